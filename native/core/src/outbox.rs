//! What waits to be sent.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use bytes::{Buf, Bytes};

use crate::error::Error;
use crate::metrics;

/// The bounded queue of a connection.
#[derive(Debug)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    bytes: usize,
    max: usize,
    /// A send was refused and its sender has not been told of room yet.
    refused: bool,
    /// Since when something waits.
    since: Option<Instant>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    Deaf,
    Closing,
    Ended,
}

impl Outbox {
    /// The queue of a connection that is being established.
    pub fn new(max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            max,
            refused: false,
            since: None,
            phase: Phase::Connecting,
        }
    }

    /// The connection stands.
    pub fn opened(&mut self) {
        if self.phase == Phase::Connecting {
            self.phase = Phase::Open;
        }
    }

    /// The peer reads nothing more; it may still have something to say.
    pub fn deafen(&mut self) {
        if self.phase == Phase::Open {
            self.end();
            self.phase = Phase::Deaf;
        }
    }

    /// Nothing more is accepted; what waits is still sent.
    pub fn close(&mut self) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Closing;
        }
    }

    /// Nothing more can be sent.
    pub fn end(&mut self) {
        self.phase = Phase::Ended;
        self.queue = VecDeque::new();
        self.bytes = 0;
        self.refused = false;
    }

    /// Whether this side has closed the connection.
    pub fn closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Says whether a message of `len` bytes is accepted now. One message is always accepted into
    /// an empty queue, however long, so that the queue's bound is none on messages.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::Closed`] and [`Error::Busy`].
    pub fn admit(&mut self, len: usize) -> Result<(), Error> {
        match self.phase {
            Phase::Connecting => Err(Error::NotConnected),
            Phase::Deaf | Phase::Closing | Phase::Ended => Err(Error::Closed),
            Phase::Open if self.bytes == 0 || self.bytes + len <= self.max => Ok(()),
            Phase::Open => {
                self.refused = true;
                Err(Error::Busy)
            }
        }
    }

    /// Whether there is room as a refused sender is told of it; if not, one is told when there is.
    pub fn has_room(&mut self) -> bool {
        let room = self.phase != Phase::Open || self.bytes <= self.max / 2;
        self.refused = !room;
        room
    }

    /// Appends a part of an admitted message.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.bytes += part.len();
            self.queue.push_back(part);
            if self.since.is_none() {
                self.since = Some(Instant::now());
            }
        }
    }

    /// Lends up to `N` parts from the front for writing.
    pub fn front<const N: usize>(&self) -> ([IoSlice<'_>; N], usize) {
        let mut slices = [IoSlice::new(&[]); N];
        let mut count = 0;
        for (slot, part) in slices.iter_mut().zip(&self.queue) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        (slices, count)
    }

    /// Parts from the front for writing outside the lock.
    pub fn parts(&self, max: usize) -> Vec<Bytes> {
        self.queue.iter().take(max).cloned().collect()
    }

    /// Removes `n` written bytes from the front. Returns whether a refused sender is to be told
    /// that there is room: at half of the bound, so that it can send more than one message.
    pub fn written(&mut self, mut n: usize) -> bool {
        self.bytes -= n.min(self.bytes);
        while n > 0 {
            let Some(part) = self.queue.front_mut() else {
                break;
            };
            if part.len() > n {
                part.advance(n);
                break;
            }
            n -= part.len();
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            // Room for a burst is not kept through quiet times.
            self.queue = VecDeque::new();
            if let Some(since) = self.since.take() {
                metrics::outbound_queue_us.record_since(since);
            }
        }
        self.refused && self.bytes <= self.max / 2 && std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(max: usize) -> Outbox {
        let mut outbox = Outbox::new(max);
        assert_eq!(outbox.admit(1), Err(Error::NotConnected));
        outbox.opened();
        outbox
    }

    fn push(outbox: &mut Outbox, len: usize) -> Result<(), Error> {
        outbox.admit(len)?;
        outbox.push(Bytes::from(vec![0; len]));
        Ok(())
    }

    #[test]
    fn fills_to_the_bound_and_not_beyond() {
        let mut outbox = open(10);
        assert_eq!(push(&mut outbox, 4), Ok(()));
        assert_eq!(push(&mut outbox, 6), Ok(()));
        assert_eq!(push(&mut outbox, 1), Err(Error::Busy));
        assert_eq!(outbox.bytes(), 10);
    }

    #[test]
    fn an_empty_queue_takes_one_message_of_any_size() {
        let mut outbox = open(10);
        assert_eq!(push(&mut outbox, 100), Ok(()));
        assert_eq!(push(&mut outbox, 1), Err(Error::Busy));
    }

    #[test]
    fn tells_a_refused_sender_once_at_half() {
        let mut outbox = open(10);
        push(&mut outbox, 10).unwrap();
        assert!(!outbox.written(1));
        assert_eq!(outbox.admit(5), Err(Error::Busy));
        assert!(!outbox.written(3));
        assert!(outbox.written(1));
        assert!(!outbox.written(5));
        assert!(outbox.is_empty());
    }

    #[test]
    fn written_bytes_may_end_inside_a_part() {
        let mut outbox = open(100);
        outbox.push(Bytes::from_static(b"abc"));
        outbox.push(Bytes::from_static(b"defg"));
        outbox.written(5);
        let (slices, count) = outbox.front::<4>();
        assert_eq!(count, 1);
        assert_eq!(&slices[0][..], b"fg");
    }

    #[test]
    fn a_closed_queue_refuses_and_still_drains() {
        let mut outbox = open(10);
        push(&mut outbox, 3).unwrap();
        outbox.close();
        assert_eq!(outbox.admit(1), Err(Error::Closed));
        assert_eq!(outbox.bytes(), 3);
        outbox.end();
        assert!(outbox.is_empty());
    }
}
