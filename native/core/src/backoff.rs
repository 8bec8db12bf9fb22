//! When to try again. Pure: no clock, no timer; randomness is handed in.
//!
//! What `erlmcp_native_backoff` in Erlang decides for connections when it is not eager; here it
//! paces a listener whose accepts fail, where nobody waits at the other end.

use std::time::Duration;

/// Full jitter: the first delay is zero, each further one is drawn between zero and
/// `min * 2^n`, at most `max`. The count starts again after `stable`.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Ceiling of the second delay.
    pub min: Duration,
    /// Ceiling of all delays.
    pub max: Duration,
    /// Failures in a row before giving up; none for never.
    pub max_attempts: Option<u32>,
    /// How long things must go well for the count to start again.
    pub stable: Duration,
}

/// The count of failures.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    options: Options,
    attempts: u32,
}

impl Backoff {
    /// A fresh count.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            attempts: 0,
        }
    }

    /// The delay before the next try, or none where there is to be no other. `went_well` is how
    /// long the last success held, `random` is uniform in 0..1.
    pub fn next(&mut self, went_well: Option<Duration>, random: f64) -> Option<Duration> {
        if went_well.is_some_and(|time| time >= self.options.stable) {
            self.attempts = 0;
        }
        if self
            .options
            .max_attempts
            .is_some_and(|max| self.attempts >= max)
        {
            return None;
        }
        let delay = match self.attempts {
            0 => Duration::ZERO,
            n => {
                let doubled = self.options.min.saturating_mul(1 << (n - 1).min(20));
                doubled
                    .min(self.options.max)
                    .mul_f64(random.clamp(0.0, 1.0))
            }
        };
        self.attempts = self.attempts.saturating_add(1);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options {
        min: Duration::from_millis(50),
        max: Duration::from_millis(300),
        max_attempts: None,
        stable: Duration::from_secs(5),
    };

    fn ceilings(backoff: &mut Backoff, n: usize) -> Vec<u128> {
        (0..n)
            .map(|_| backoff.next(None, 1.0).unwrap().as_millis())
            .collect()
    }

    #[test]
    fn first_at_once_then_doubling_ceilings_up_to_the_cap() {
        assert_eq!(
            ceilings(&mut Backoff::new(OPTIONS), 6),
            [0, 50, 100, 200, 300, 300]
        );
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::new(OPTIONS);
        backoff.next(None, 0.5);
        assert_eq!(backoff.next(None, 0.0), Some(Duration::ZERO));
        assert_eq!(backoff.next(None, 0.5), Some(Duration::from_millis(50)));
    }

    #[test]
    fn starts_again_only_after_a_stable_time() {
        let mut backoff = Backoff::new(OPTIONS);
        ceilings(&mut backoff, 3);
        let almost = OPTIONS.stable - Duration::from_millis(1);
        assert_eq!(
            backoff.next(Some(almost), 1.0),
            Some(Duration::from_millis(200))
        );
        assert_eq!(
            backoff.next(Some(OPTIONS.stable), 1.0),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn gives_up_after_the_last_attempt() {
        let mut backoff = Backoff::new(Options {
            max_attempts: Some(2),
            ..OPTIONS
        });
        assert!(backoff.next(None, 0.0).is_some());
        assert!(backoff.next(None, 0.0).is_some());
        assert_eq!(backoff.next(None, 0.0), None);
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff::new(Options {
            max: Duration::MAX,
            ..OPTIONS
        });
        for _ in 0..100 {
            assert!(backoff.next(None, 0.9).is_some());
        }
    }
}
