//! Whether a message leaves at once or with others.
//!
//! A write for each message of a burst costs its sender a system call and its peer a wake-up and a
//! system call for each. What is queued leaves in one write; but a message that is alone should not
//! wait for another thread to write it. So the first is written at once, by its sender, and those
//! that follow it closely are queued. While the owner of the connection is known to come back, to
//! take what else has arrived, nobody is woken for them: it writes them itself when it does.

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

    /// A message is sent. Returns whether it is one of a burst.
    pub fn sends(&mut self, now: Instant) -> bool {
        let before = self.busy.replace(now);
        before.is_some_and(|before| now.saturating_duration_since(before) < CLOSE)
    }

    /// Whether what is queued is left to the owner.
    pub fn is_on(&self) -> bool {
        self.owner_returns
    }

    /// A message of a burst was queued. Returns whether the task is to be woken: to write it, or to
    /// look after it.
    pub fn queued(&mut self) -> bool {
        if !self.owner_returns {
            return true;
        }
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

    #[test]
    fn those_that_follow_closely_are_a_burst() {
        let (mut cork, start) = (Cork::default(), Instant::now());
        assert!(!cork.sends(start));
        assert!(cork.sends(start + NEAR));
        assert!(cork.sends(start + 2 * NEAR));
        assert!(!cork.sends(start + 2 * NEAR + CLOSE));
    }

    #[test]
    fn answers_to_what_came_together_are_a_burst_and_to_what_came_alone_are_not() {
        let (mut cork, start) = (Cork::default(), Instant::now());
        cork.taken(2, false, start);
        assert!(cork.sends(start + NEAR));
        cork.taken(0, false, start);
        assert!(cork.sends(start + NEAR));
        cork.taken(1, false, start);
        assert!(!cork.sends(start + NEAR));
    }

    #[test]
    fn the_task_is_woken_for_each_unless_the_owner_returns() {
        let (mut cork, start) = (Cork::default(), Instant::now());
        assert!(cork.queued());
        assert!(cork.queued());
        assert!(!cork.is_watched());
        cork.taken(2, true, start);
        assert!(cork.queued());
        assert!(!cork.queued());
        assert!(cork.is_watched());
    }

    #[test]
    fn a_late_owner_is_not_relied_on_until_it_takes() {
        let (mut cork, start) = (Cork::default(), Instant::now());
        cork.taken(2, true, start);
        cork.queued();
        assert_eq!(cork.look(false), Watch::Write);
        assert!(!cork.is_on());
        assert!(!cork.is_watched());
        cork.taken(2, true, start);
        assert!(cork.queued());
        assert!(!cork.queued());
    }

    #[test]
    fn watching_goes_on_while_there_is_something_to_watch() {
        let (mut cork, start) = (Cork::default(), Instant::now());
        cork.taken(2, true, start);
        cork.queued();
        assert_eq!(cork.look(true), Watch::Go);
        assert_eq!(cork.look(true), Watch::Stop);
        assert!(cork.queued());
    }
}
