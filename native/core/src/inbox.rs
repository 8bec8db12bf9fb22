//! What has been read ahead and waits for the owner.

use std::collections::VecDeque;
use std::mem::size_of;
use std::time::Instant;

use bytes::Bytes;

use crate::error::Error;
use crate::frame::Item;
use crate::high_water::HighWater;

/// Frames that were read together: ranges of one block of memory.
#[derive(Debug)]
pub struct Batch {
    /// The block that the ranges are in.
    pub data: Bytes,
    /// In the order of the stream.
    pub items: Vec<Item>,
}

/// What to expect after a batch was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not established yet; an event follows.
    Connecting,
    /// Nothing is left; an event tells of the next data.
    Armed,
    /// There is more to take now; no event will come.
    More,
    /// Nothing is left, but there will be more soon: take again, no event will come before that
    /// take has found nothing.
    Again,
    /// The peer has shut down its side, everything was taken; an event tells of the end.
    EofArmed,
    /// The end; everything was taken.
    Down(Error),
}

/// Frames between the task that reads and the owner that takes. The owner is told when the inbox
/// goes from nothing to something, and only after it has found nothing.
#[derive(Debug)]
pub struct Inbox {
    batches: VecDeque<Batch>,
    /// Items of the first batch that were taken already.
    taken: usize,
    /// Cost of what waits: bytes, and the ranges that describe them, since a flood of tiny frames
    /// takes more memory for these than for its bytes.
    waiting: usize,
    phase: Phase,
    armed: bool,
    claimed: bool,
    high_water: HighWater,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    Eof,
    Ended(Error),
}

impl Inbox {
    /// The inbox of a connection that is being established.
    pub fn new(high_water: HighWater) -> Self {
        Self {
            batches: VecDeque::new(),
            taken: 0,
            waiting: 0,
            phase: Phase::Connecting,
            armed: true,
            claimed: false,
            high_water,
        }
    }

    /// Cost of what waits, in bytes.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How much may wait.
    pub fn high_water(&self) -> &HighWater {
        &self.high_water
    }

    /// Whether reading is to stop, because as much waits as may.
    pub fn is_full(&mut self) -> bool {
        let full = self.waiting >= self.high_water.mark();
        if full {
            self.high_water.reached();
        }
        full
    }

    /// The connection stands. Returns whether the owner is to be told, as do the other changes.
    pub fn opened(&mut self) -> bool {
        self.phase = Phase::Open;
        self.disarm()
    }

    /// Adds frames; [`Inbox::tell`] says when the owner is to hear of them.
    pub fn push(&mut self, batch: Batch) {
        self.waiting += batch.items.iter().map(cost).sum::<usize>();
        self.batches.push_back(batch);
    }

    /// Whether frames wait that the owner has not been told of.
    pub fn tell(&mut self) -> bool {
        !self.batches.is_empty() && self.disarm()
    }

    /// The peer has shut down its side.
    pub fn eof(&mut self) -> bool {
        self.phase = Phase::Eof;
        self.disarm()
    }

    /// The connection is over. Only the first reason counts.
    pub fn end(&mut self, reason: Error) -> bool {
        if matches!(self.phase, Phase::Ended(_)) {
            return false;
        }
        self.phase = Phase::Ended(reason);
        self.disarm()
    }

    /// The reason of the end, if it has come.
    pub fn ended(&self) -> Option<Error> {
        match self.phase {
            Phase::Ended(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether the peer has shut down its side and the connection lives on.
    pub fn at_eof(&self) -> bool {
        self.phase == Phase::Eof
    }

    /// Whether the connection stands and nothing waits.
    pub fn is_drained(&self) -> bool {
        self.phase == Phase::Open && self.batches.is_empty()
    }

    /// Has an owner that has taken everything come again and read for itself, instead of waiting
    /// for an event.
    pub fn ask_again(&mut self) -> Status {
        self.armed = false;
        self.claimed = true;
        Status::Again
    }

    /// Whether reading is the owner's, until it waits for an event again.
    pub fn is_claimed(&self) -> bool {
        self.claimed
    }

    /// Forgets what waits: nobody will take it.
    pub fn clear(&mut self) {
        self.batches = VecDeque::new();
        self.taken = 0;
        self.waiting = 0;
    }

    /// Takes at most `max_items` items and, beyond the first, at most `max_bytes` bytes.
    pub fn take(&mut self, max_items: usize, max_bytes: usize) -> (Vec<Batch>, Status) {
        let before = self.waiting;
        let taken = self.detach_all(max_items, max_bytes);
        if self.high_water.adapts() {
            // The owner may have read it itself.
            if before >= self.high_water.mark() {
                self.high_water.reached();
            }
            self.high_water.taken(before - self.waiting, Instant::now());
        }
        (taken, self.settle())
    }

    fn detach_all(&mut self, max_items: usize, max_bytes: usize) -> Vec<Batch> {
        let mut out = Vec::new();
        let mut items_left = max_items;
        let mut bytes_left = max_bytes;
        let mut first = true;
        while items_left > 0 {
            let Some(batch) = self.batches.front() else {
                break;
            };
            let rest = batch.items.get(self.taken..).unwrap_or_default();
            let mut count = 0;
            for item in rest.iter().take(items_left) {
                let len = data_len(item);
                if len > bytes_left && !first {
                    break;
                }
                first = false;
                bytes_left = bytes_left.saturating_sub(len);
                count += 1;
            }
            if count == 0 {
                break;
            }
            items_left -= count;
            let whole = count == rest.len();
            self.waiting -= rest.iter().take(count).map(cost).sum::<usize>();
            if let Some(taken) = self.detach(count, whole) {
                out.push(taken);
            }
            if !whole {
                break;
            }
        }
        out
    }

    fn detach(&mut self, count: usize, whole: bool) -> Option<Batch> {
        if whole && self.taken == 0 {
            return self.batches.pop_front();
        }
        let start = self.taken;
        let batch = self.batches.front()?;
        let items = batch
            .items
            .get(start..start + count)
            .unwrap_or_default()
            .to_vec();
        let taken = Batch {
            data: batch.data.clone(),
            items,
        };
        if whole {
            self.batches.pop_front();
            self.taken = 0;
        } else {
            self.taken += count;
        }
        Some(taken)
    }

    fn settle(&mut self) -> Status {
        if !self.batches.is_empty() {
            self.armed = false;
            return Status::More;
        }
        match self.phase {
            Phase::Ended(reason) => Status::Down(reason),
            phase => {
                self.armed = true;
                self.claimed = false;
                // Room for a burst is not kept through quiet times.
                self.batches = VecDeque::new();
                match phase {
                    Phase::Connecting => Status::Connecting,
                    Phase::Eof => Status::EofArmed,
                    _ => Status::Armed,
                }
            }
        }
    }

    fn disarm(&mut self) -> bool {
        std::mem::take(&mut self.armed)
    }
}

fn data_len(item: &Item) -> usize {
    match item {
        Item::Frame { len, .. } => *len,
        Item::Oversized(_) => 0,
    }
}

fn cost(item: &Item) -> usize {
    data_len(item) + size_of::<Item>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lens: &[usize]) -> Batch {
        let mut start = 0;
        let items = lens
            .iter()
            .map(|&len| {
                let item = Item::Frame { start, len };
                start += len;
                item
            })
            .collect();
        Batch {
            data: Bytes::from(vec![b'x'; start]),
            items,
        }
    }

    fn taken(batches: &[Batch]) -> Vec<usize> {
        batches
            .iter()
            .flat_map(|b| b.items.iter().map(data_len))
            .collect()
    }

    fn fresh() -> Inbox {
        Inbox::new(HighWater::new(1000, 1000))
    }

    fn open() -> Inbox {
        let mut inbox = fresh();
        assert!(inbox.opened());
        assert_eq!(inbox.take(0, 0).1, Status::Armed);
        inbox
    }

    #[test]
    fn tells_the_owner_once_per_edge() {
        let mut inbox = open();
        assert!(!inbox.tell());
        inbox.push(batch(&[1]));
        inbox.push(batch(&[1]));
        assert!(inbox.tell());
        assert!(!inbox.tell());
        assert_eq!(inbox.take(1, 100).1, Status::More);
        inbox.push(batch(&[1]));
        assert!(!inbox.tell());
        assert_eq!(inbox.take(10, 100).1, Status::Armed);
        inbox.push(batch(&[1]));
        assert!(inbox.tell());
    }

    #[test]
    fn what_the_owner_finds_before_it_is_told_is_not_told() {
        let mut inbox = open();
        inbox.push(batch(&[1, 1]));
        assert_eq!(inbox.take(1, 100).1, Status::More);
        assert!(!inbox.tell());
        assert_eq!(inbox.take(1, 100).1, Status::Armed);
        assert!(!inbox.tell());
    }

    #[test]
    fn an_end_is_told_with_what_came_before_it() {
        let mut inbox = open();
        inbox.push(batch(&[1]));
        assert!(inbox.end(Error::Reset));
        assert!(!inbox.tell());
    }

    #[test]
    fn bounds_a_batch_by_items_and_by_bytes_beyond_the_first() {
        let mut inbox = open();
        inbox.push(batch(&[10, 10, 10]));
        inbox.push(batch(&[50, 1]));
        assert_eq!(taken(&inbox.take(2, 1000).0), [10, 10]);
        assert_eq!(taken(&inbox.take(9, 5).0), [10]);
        assert_eq!(taken(&inbox.take(9, 5).0), [50]);
        let (rest, status) = inbox.take(9, 5);
        assert_eq!((taken(&rest), status), (vec![1], Status::Armed));
        assert_eq!(inbox.waiting(), 0);
    }

    #[test]
    fn gives_everything_before_the_end() {
        let mut inbox = open();
        inbox.push(batch(&[1, 2]));
        inbox.end(Error::Reset);
        inbox.end(Error::Closed);
        assert_eq!(inbox.take(1, 100).1, Status::More);
        assert_eq!(inbox.take(1, 100).1, Status::Down(Error::Reset));
        assert_eq!(inbox.take(1, 100).1, Status::Down(Error::Reset));
    }

    #[test]
    fn a_look_without_taking_changes_nothing_but_the_edge() {
        let mut inbox = fresh();
        assert_eq!(inbox.take(0, 0).1, Status::Connecting);
        assert!(inbox.opened());
        inbox.push(batch(&[3]));
        assert_eq!(inbox.take(0, 0).1, Status::More);
        assert_eq!(taken(&inbox.take(9, 100).0), [3]);
    }
}
