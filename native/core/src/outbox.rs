//! What waits to be sent.
//!
//! Pings, cancellations, errors and what its sender calls urgent overtake the rest. A message whose
//! writing has begun is overtaken by none, and so is one that met an empty queue. A cancellation
//! stays behind the request that it names, which it would otherwise miss, and an answer behind the
//! progress that may be its request's.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use bytes::{Buf, Bytes};

use crate::cork::Cork;
use crate::error::Error;
use crate::json::Role;
use crate::metrics;

/// What the order is settled of ahead of writing, in bytes, beyond the first message.
const SETTLED: usize = 64 * 1024;

/// Urgent messages that leave in a row while others wait, in bytes.
const URGENT_RUN: usize = 64 * 1024;

/// What a sender says of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Nothing: what the message is decides.
    #[default]
    Auto,
    /// It overtakes.
    Urgent,
    /// It does not.
    Normal,
}

/// A message with its delimiters.
#[derive(Debug)]
pub struct Queued {
    /// Before the body.
    pub prefix: Option<[u8; 4]>,
    /// The message.
    pub body: Bytes,
    /// After the body.
    pub suffix: &'static [u8],
}

/// The bounded queue of a connection.
#[derive(Debug)]
pub struct Outbox {
    /// Whether what is queued is left to the owner.
    pub(crate) cork: Cork,
    /// In the order in which they leave: parts of messages whose writing has begun or is next.
    settled: VecDeque<Bytes>,
    urgent: VecDeque<Queued>,
    normal: VecDeque<Waiting>,
    /// Urgent bytes that left since something else did.
    run: usize,
    bytes: usize,
    max: usize,
    reserve: usize,
    /// A send was refused and its sender has not been told of room yet.
    refused: bool,
    /// Since when something waits.
    since: Option<Instant>,
    phase: Phase,
}

#[derive(Debug)]
struct Waiting {
    message: Queued,
    role: Role,
    /// Would overtake, but for one before it.
    held_back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    Deaf,
    Closing,
    Ended,
}

impl Queued {
    fn len(&self) -> usize {
        self.prefix.map_or(0, |prefix| prefix.len()) + self.body.len() + self.suffix.len()
    }

    fn into_parts(self) -> [Bytes; 3] {
        let prefix = match &self.prefix {
            Some(prefix) => Bytes::copy_from_slice(prefix),
            None => Bytes::new(),
        };
        [prefix, self.body, Bytes::from_static(self.suffix)]
    }
}

impl Outbox {
    /// The queue of a connection that is being established. Beyond `max` bytes, `reserve` are for
    /// what is urgent.
    pub fn new(max: usize, reserve: usize) -> Self {
        Self {
            cork: Cork::default(),
            settled: VecDeque::new(),
            urgent: VecDeque::new(),
            normal: VecDeque::new(),
            run: 0,
            bytes: 0,
            max,
            reserve,
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

    /// The peer reads nothing more; it may still have something to say. Returns what
    /// [`Outbox::end`] does.
    pub fn deafen(&mut self) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let refused = self.end();
        self.phase = Phase::Deaf;
        refused
    }

    /// Nothing more is accepted; what waits is still sent.
    pub fn close(&mut self) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Closing;
        }
    }

    /// Nothing more can be sent. Returns whether a refused sender waits to be told of room: it may
    /// take nothing before it can send, and so would never learn of the end.
    pub fn end(&mut self) -> bool {
        self.phase = Phase::Ended;
        self.forget();
        self.bytes = 0;
        std::mem::take(&mut self.refused)
    }

    fn forget(&mut self) {
        self.settled = VecDeque::new();
        self.urgent = VecDeque::new();
        self.normal = VecDeque::new();
        self.run = 0;
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
        self.bytes == 0
    }

    /// Says whether a message of `len` bytes is accepted now. One message is always accepted into
    /// an empty queue, however long, so that the queue's bound is none on messages.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::Closed`] and [`Error::Busy`].
    pub fn admit(&mut self, len: usize, urgent: bool) -> Result<(), Error> {
        let max = self.max + if urgent { self.reserve } else { 0 };
        match self.phase {
            Phase::Connecting => Err(Error::NotConnected),
            Phase::Deaf | Phase::Closing | Phase::Ended => Err(Error::Closed),
            Phase::Open if self.bytes == 0 || self.bytes + len <= max => Ok(()),
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

    /// Appends the rest of a message that was admitted to an empty queue.
    pub fn begin(&mut self, parts: [Bytes; 3]) {
        for part in parts {
            if !part.is_empty() {
                self.bytes += part.len();
                self.settled.push_back(part);
            }
        }
        self.since = Some(Instant::now());
    }

    /// Adds an admitted message.
    pub fn push(&mut self, message: Queued, role: Role, urgent: bool) {
        self.bytes += message.len();
        self.since.get_or_insert_with(Instant::now);
        if !urgent {
            self.normal.push_back(Waiting {
                message,
                role,
                held_back: false,
            });
            return;
        }
        match self.last_before(role) {
            None => self.urgent.push_back(message),
            Some(last) => {
                let held = self.normal.iter().skip(last + 1);
                let place = last + 1 + held.take_while(|waiting| waiting.held_back).count();
                let waiting = Waiting {
                    message,
                    role,
                    held_back: true,
                };
                self.normal.insert(place, waiting);
            }
        }
    }

    /// The last of those that an urgent message may not overtake.
    fn last_before(&self, role: Role) -> Option<usize> {
        let bars: fn(Role, Role) -> bool = match role {
            Role::Cancellation(Some(_)) => |role, of| match (role, of) {
                (Role::Cancellation(Some(cancelled)), Role::Request(id)) => cancelled == id,
                _ => false,
            },
            Role::Answer => |_, of| of == Role::Progress,
            _ => return None,
        };
        self.normal
            .iter()
            .rposition(|waiting| bars(role, waiting.role))
    }

    /// Settles the order of as much as is written at once.
    fn settle(&mut self, parts: usize) {
        let mut bytes: usize = self.settled.iter().map(Bytes::len).sum();
        while bytes < SETTLED && self.settled.len() < parts {
            let Some(message) = self.next() else { break };
            bytes += message.len();
            let parts = message.into_parts().into_iter();
            self.settled.extend(parts.filter(|part| !part.is_empty()));
        }
    }

    fn next(&mut self) -> Option<Queued> {
        if self.normal.is_empty() {
            self.run = 0;
        }
        if self.run < URGENT_RUN
            && let Some(message) = self.urgent.pop_front()
        {
            self.run += message.len();
            return Some(message);
        }
        self.run = 0;
        let waiting = self.normal.pop_front()?;
        Some(waiting.message)
    }

    /// Lends up to `N` parts from the front for writing.
    pub fn front<const N: usize>(&mut self) -> ([IoSlice<'_>; N], usize) {
        self.settle(N);
        let mut slices = [IoSlice::new(&[]); N];
        let mut count = 0;
        for (slot, part) in slices.iter_mut().zip(&self.settled) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        (slices, count)
    }

    /// Parts from the front for writing outside the lock.
    pub fn parts(&mut self, max: usize) -> Vec<Bytes> {
        self.settle(max);
        self.settled.iter().take(max).cloned().collect()
    }

    /// Removes `n` written bytes from the front. Returns whether a refused sender is to be told
    /// that there is room: at half of the bound, so that it can send more than one message.
    pub fn written(&mut self, mut n: usize) -> bool {
        self.bytes -= n.min(self.bytes);
        while n > 0 {
            let Some(part) = self.settled.front_mut() else {
                break;
            };
            if part.len() > n {
                part.advance(n);
                break;
            }
            n -= part.len();
            self.settled.pop_front();
        }
        if self.is_empty() {
            // Room for a burst is not kept through quiet times.
            self.forget();
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
        let mut outbox = Outbox::new(max, 5);
        assert_eq!(outbox.admit(1, false), Err(Error::NotConnected));
        outbox.opened();
        outbox
    }

    fn message(body: &'static [u8]) -> Queued {
        Queued {
            prefix: None,
            body: Bytes::from_static(body),
            suffix: b"",
        }
    }

    fn push(outbox: &mut Outbox, len: usize) -> Result<(), Error> {
        outbox.admit(len, false)?;
        let body = Bytes::from(vec![0; len]);
        let message = Queued {
            body,
            ..message(b"")
        };
        outbox.push(message, Role::Other, false);
        Ok(())
    }

    fn add(outbox: &mut Outbox, body: &'static [u8], role: Role) {
        outbox.push(message(body), role, role.is_urgent());
    }

    /// Writes everything, a byte at a time.
    fn drain(outbox: &mut Outbox) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(part) = outbox.parts(1).first() {
            out.push(part[0]);
            outbox.written(1);
        }
        out
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
    fn urgent_ones_have_a_reserve_and_no_more() {
        let mut outbox = open(10);
        assert_eq!(push(&mut outbox, 10), Ok(()));
        assert_eq!(outbox.admit(5, true), Ok(()));
        assert_eq!(outbox.admit(6, true), Err(Error::Busy));
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
        outbox.parts(9);
        assert!(!outbox.written(1));
        assert_eq!(outbox.admit(5, false), Err(Error::Busy));
        assert!(!outbox.written(3));
        assert!(outbox.written(1));
        assert!(!outbox.written(5));
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_refused_sender_is_told_of_the_end_once() {
        let mut outbox = open(10);
        push(&mut outbox, 10).unwrap();
        assert_eq!(outbox.admit(1, false), Err(Error::Busy));
        assert!(outbox.deafen());
        assert!(!outbox.deafen());
        assert!(!outbox.end());
    }

    #[test]
    fn written_bytes_may_end_inside_a_part() {
        let mut outbox = open(100);
        add(&mut outbox, b"abc", Role::Other);
        add(&mut outbox, b"defg", Role::Other);
        outbox.parts(4);
        outbox.written(5);
        let (slices, count) = outbox.front::<4>();
        assert_eq!(count, 1);
        assert_eq!(&slices[0][..], b"fg");
    }

    #[test]
    fn urgent_ones_overtake_whole_messages_in_their_own_order() {
        let mut outbox = open(100);
        outbox.begin([Bytes::from_static(b"ab"), Bytes::new(), Bytes::new()]);
        add(&mut outbox, b"cc", Role::Other);
        add(&mut outbox, b"dd", Role::Other);
        outbox.written(1);
        add(&mut outbox, b"1", Role::Ping);
        add(&mut outbox, b"2", Role::Answer);
        outbox.push(message(b"3"), Role::Other, true);
        assert_eq!(drain(&mut outbox), b"b123ccdd");
    }

    #[test]
    fn one_that_has_begun_is_not_overtaken() {
        let mut outbox = open(100);
        add(&mut outbox, b"abc", Role::Other);
        assert_eq!(outbox.parts(1).len(), 1);
        outbox.written(1);
        add(&mut outbox, b"1", Role::Ping);
        assert_eq!(drain(&mut outbox), b"bc1");
    }

    #[test]
    fn a_cancellation_stays_behind_its_request_and_an_answer_behind_progress() {
        let mut outbox = open(100);
        add(&mut outbox, b"a", Role::Request(1));
        add(&mut outbox, b"b", Role::Request(2));
        add(&mut outbox, b"c", Role::Progress);
        add(&mut outbox, b"d", Role::Other);
        add(&mut outbox, b"1", Role::Cancellation(Some(2)));
        add(&mut outbox, b"2", Role::Cancellation(Some(3)));
        add(&mut outbox, b"3", Role::Answer);
        add(&mut outbox, b"4", Role::Answer);
        assert_eq!(drain(&mut outbox), b"2ab1c34d");
    }

    #[test]
    fn a_flood_of_urgent_ones_starves_nobody() {
        let mut outbox = Outbox::new(1 << 20, 1 << 20);
        outbox.opened();
        for _ in 0..3 {
            add(&mut outbox, b"n", Role::Other);
        }
        for _ in 0..2 * URGENT_RUN {
            add(&mut outbox, b"u", Role::Ping);
        }
        let order = drain(&mut outbox);
        let first = order.iter().position(|byte| *byte == b'n');
        assert_eq!(first, Some(URGENT_RUN));
        assert_eq!(order.len(), 3 + 2 * URGENT_RUN);
    }

    #[test]
    fn a_closed_queue_refuses_and_still_drains() {
        let mut outbox = open(10);
        push(&mut outbox, 3).unwrap();
        outbox.close();
        assert_eq!(outbox.admit(1, true), Err(Error::Closed));
        assert_eq!(outbox.bytes(), 3);
        assert!(!outbox.end());
        assert!(outbox.is_empty());
    }
}
