//! How much is read ahead of an owner. Pure: the time is the caller's.
//!
//! What is read ahead is worth as long as it lasts. Where the mark keeps the task from reading, and
//! the owner takes what the mark holds in less than [`SHORT`], it is doubled; where that lasts for
//! more than [`LONG`], it is halved. A step changes how long it lasts by a factor of two, and
//! the two times are a factor of eight apart: what one step has brought about calls for none back.

use std::time::{Duration, Instant};

const SHORT: f64 = 0.05;
const LONG: f64 = 0.4;

/// What a look at the owner's rate spans at least.
const SPAN: Duration = Duration::from_millis(50);

/// The weight of the latest look.
const WEIGHT: f64 = 0.5;

/// Why the mark is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was given.
    Fixed,
    /// Nothing has been learnt yet.
    Start,
    /// The owner was quicker than what was read ahead for it.
    QuickOwner,
    /// What was read ahead waited for long.
    SlowOwner,
}

/// The mark, between two bounds.
#[derive(Debug)]
pub struct HighWater {
    min: usize,
    max: usize,
    mark: usize,
    reason: Reason,
    /// Bytes a second that the owner takes when there is enough for it.
    rate: Option<f64>,
    since: Option<Instant>,
    taken: usize,
    reached: bool,
}

impl HighWater {
    /// Begins at the lower bound.
    pub fn new(min: usize, max: usize) -> Self {
        let reason = if min < max {
            Reason::Start
        } else {
            Reason::Fixed
        };
        Self {
            min,
            max,
            mark: min,
            reason,
            rate: None,
            since: None,
            taken: 0,
            reached: false,
        }
    }

    /// Bytes that may wait.
    pub fn mark(&self) -> usize {
        self.mark
    }

    /// The bounds.
    pub fn bounds(&self) -> (usize, usize) {
        (self.min, self.max)
    }

    /// Why the mark is where it is.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Whether there is anything to learn.
    pub fn adapts(&self) -> bool {
        self.min < self.max
    }

    /// Reading has stopped at the mark.
    pub fn reached(&mut self) {
        self.reached = true;
    }

    /// The owner has taken `bytes`.
    pub fn taken(&mut self, bytes: usize, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.taken = self.taken.saturating_add(bytes);
        let span = now.saturating_duration_since(since);
        if span < SPAN {
            return;
        }
        if self.reached {
            self.look(self.taken as f64 / span.as_secs_f64());
        }
        self.since = Some(now);
        self.taken = 0;
        self.reached = false;
    }

    fn look(&mut self, rate: f64) {
        let rate = match self.rate {
            Some(before) => before + WEIGHT * (rate - before),
            None => rate,
        };
        self.rate = Some(rate);
        let mark = self.mark as f64;
        if mark < SHORT * rate && self.mark < self.max {
            self.mark = self.mark.saturating_mul(2).min(self.max);
            self.reason = Reason::QuickOwner;
        } else if mark > LONG * rate && self.mark > self.min {
            self.mark = (self.mark / 2).max(self.min);
            self.reason = Reason::SlowOwner;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    /// Takes at these rates, in bytes a second, always from the mark, and returns the marks.
    fn run(water: &mut HighWater, rates: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut now = Instant::now();
        water.taken(0, now);
        let mut marks = Vec::new();
        for rate in rates {
            water.reached();
            now += SPAN;
            water.taken(rate / 20, now);
            marks.push(water.mark());
        }
        marks
    }

    #[test]
    fn grows_for_a_quick_owner_and_shrinks_for_a_slow_one() {
        let mut water = HighWater::new(64 * KIB, 8192 * KIB);
        assert_eq!((water.mark(), water.reason()), (64 * KIB, Reason::Start));
        let marks = run(&mut water, vec![20_000 * KIB; 20]);
        assert_eq!(marks.last(), Some(&(1024 * KIB)));
        assert_eq!(water.reason(), Reason::QuickOwner);
        run(&mut water, vec![100 * KIB; 40]);
        assert_eq!(
            (water.mark(), water.reason()),
            (64 * KIB, Reason::SlowOwner)
        );
    }

    #[test]
    fn learns_nothing_where_the_mark_is_not_reached() {
        let mut water = HighWater::new(64 * KIB, 8192 * KIB);
        let mut now = Instant::now();
        for _ in 0..100 {
            now += SPAN;
            water.taken(1 << 30, now);
        }
        assert_eq!((water.mark(), water.reason()), (64 * KIB, Reason::Start));
    }

    #[test]
    fn keeps_its_bounds_and_never_turns_back_under_a_constant_load_with_noise() {
        let mut seed = 1u64;
        let mut random = move || {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) as usize
        };
        for _ in 0..500 {
            let min = 1 + random() % (256 * KIB);
            let max = min + random() % (16384 * KIB);
            let rate = 1000 + random() % 200_000_000;
            let mut water = HighWater::new(min, max);
            let rates: Vec<usize> = (0..200).map(|_| rate / 10 * (7 + random() % 8)).collect();
            let marks = run(&mut water, rates);
            assert!(marks.iter().all(|mark| (min..=max).contains(mark)));
            assert!(marks.is_sorted(), "{marks:?}");
        }
    }

    #[test]
    fn a_mark_that_is_given_stays() {
        let mut water = HighWater::new(KIB, KIB);
        run(&mut water, vec![1 << 30; 10]);
        assert_eq!((water.mark(), water.reason()), (KIB, Reason::Fixed));
        assert!(!water.adapts());
    }
}
