//! Whether a message leaves at once or with others.
//!
//! A write for each message of a burst costs its sender a system call, and its peer a wake-up and a
//! system call, for each. An owner that is known to come back, to take what else has arrived, can
//! write several at once when it does. What follows another message closely is left to it; the rest,
//! and everything where the owner may be waiting, is written by its sender.

use std::time::{Duration, Instant};

/// Messages that follow one another this closely are of one burst: some ten times what a sender
/// needs from one to the next.
const CLOSE: Duration = Duration::from_micros(100);

/// What a connection knows of its owner and its senders.
#[derive(Debug, Default)]
pub struct Cork {
    /// When it was last at work on more than one message.
    busy: Option<Instant>,
    /// The owner will take again before it waits.
    owner_returns: bool,
    /// The task looks after what is left to the owner.
    watched: bool,
    /// Something was left to the owner since the task last looked.
    used: bool,
}

/// What the task that looks after it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Look again later.
    Go,
    /// Write: the owner is late.
    Write,
    /// There is nothing to look after until it is woken.
    Stop,
}

impl Cork {
    /// The owner has taken so many items, and will or will not take again before it waits. Those
    /// that come together are answered together; the answer to one that came alone is awaited.
    pub fn taken(&mut self, items: usize, owner_returns: bool, now: Instant) {
        self.owner_returns = owner_returns;
        match items {
            0 => {}
            1 => self.busy = None,
            _ => self.busy = Some(now),
        }
    }

    /// A message is sent. Returns whether it is left to the owner.
    pub fn sends(&mut self, now: Instant) -> bool {
        let before = self.busy.replace(now);
        self.owner_returns
            && before.is_some_and(|before| now.saturating_duration_since(before) < CLOSE)
    }

    /// Whether the owner writes what is queued.
    pub fn is_on(&self) -> bool {
        self.owner_returns
    }

    /// A message was left to the owner. Returns whether the task is to be woken to look after it.
    pub fn queued(&mut self) -> bool {
        self.used = true;
        !std::mem::replace(&mut self.watched, true)
    }

    /// Whether the task looks after what is left to the owner.
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    /// The task looks, after some time. An owner that was late is not relied on until it has taken
    /// again.
    pub fn look(&mut self, empty: bool) -> Watch {
        let used = std::mem::take(&mut self.used);
        if self.owner_returns && !empty {
            self.owner_returns = false;
            self.watched = false;
            return Watch::Write;
        }
        self.watched = used;
        if used { Watch::Go } else { Watch::Stop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Duration = Duration::from_micros(99);

    fn of_an_owner_that_returns(start: Instant) -> Cork {
        let mut cork = Cork::default();
        cork.taken(2, true, start);
        cork
    }

    #[test]
    fn those_that_follow_closely_are_left_to_an_owner_that_returns() {
        let start = Instant::now();
        let mut cork = of_an_owner_that_returns(start);
        assert!(cork.sends(start + NEAR));
        assert!(cork.sends(start + 2 * NEAR));
        assert!(!cork.sends(start + 2 * NEAR + CLOSE));
        assert!(cork.sends(start + 3 * NEAR + CLOSE));
        cork.taken(0, false, start + 4 * NEAR);
        assert!(!cork.sends(start + 4 * NEAR));
    }

    #[test]
    fn the_answer_to_what_came_alone_is_not() {
        let start = Instant::now();
        let mut cork = of_an_owner_that_returns(start);
        cork.taken(1, true, start);
        assert!(!cork.sends(start));
        assert!(cork.sends(start + NEAR));
    }

    #[test]
    fn the_task_is_woken_once() {
        let mut cork = of_an_owner_that_returns(Instant::now());
        assert!(!cork.is_watched());
        assert!(cork.queued());
        assert!(!cork.queued());
        assert!(cork.is_watched());
    }

    #[test]
    fn a_late_owner_is_not_relied_on_until_it_takes() {
        let start = Instant::now();
        let mut cork = of_an_owner_that_returns(start);
        cork.queued();
        assert_eq!(cork.look(false), Watch::Write);
        assert!(!cork.sends(start));
        assert!(!cork.is_watched());
        cork.taken(2, true, start);
        assert!(cork.sends(start));
        assert!(cork.queued());
    }

    #[test]
    fn watching_goes_on_while_there_is_something_to_watch() {
        let mut cork = of_an_owner_that_returns(Instant::now());
        cork.queued();
        assert_eq!(cork.look(true), Watch::Go);
        assert_eq!(cork.look(true), Watch::Stop);
        assert!(cork.queued());
    }
}
