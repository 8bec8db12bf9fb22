//! Reading into blocks of memory and splitting them into frames.

use bytes::BytesMut;

use crate::error::Error;
use crate::frame::{Item, Splitter};
use crate::inbox::Batch;
use crate::options::Limits;
use crate::pool;
use crate::read_size::{MAX, ReadSize};

/// Room for a read: where there is less than `least`, `most` is made.
struct Room {
    least: usize,
    most: usize,
}

/// The beginning of a frame up to this size moves to the next block; a larger one stays in a block
/// of its own that grows by doubling, which copies it.
const MOVED_MAX: usize = 64 * 1024;

/// What has been read of frames that are not complete, and how to go on.
pub(crate) struct Reader {
    pub(crate) buf: BytesMut,
    /// With what capacity the block was taken from the pool.
    block: usize,
    splitter: Splitter,
    size: ReadSize,
    /// The peer will send nothing more.
    pub(crate) done: bool,
    /// What a read on the owner's thread met, for the task to end with.
    pub(crate) failed: Option<Error>,
}

impl Reader {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            buf: BytesMut::new(),
            block: 0,
            splitter: Splitter::new(limits.framing, limits.max_frame, limits.on_oversize),
            size: ReadSize::new(),
            done: false,
            failed: None,
        }
    }

    /// Room for the next read: what is left of a block, as long as that is not little. For a
    /// frame of known length all that is missing of it, within reason: a peer that announces much
    /// and sends little must not make us allocate much.
    fn room(&self) -> Room {
        let size = self.size.get();
        match self.splitter.wanted(&self.buf) {
            Some(wanted) => {
                let missing = wanted.saturating_sub(self.buf.len()).clamp(size, MAX);
                Room {
                    least: missing,
                    most: missing,
                }
            }
            None => Room {
                least: size / 4,
                most: size,
            },
        }
    }

    /// How much is asked for at once.
    pub(crate) fn size(&self) -> usize {
        self.size.get()
    }

    /// Whether the next read is into a block that may have to grow, which takes milliseconds.
    pub(crate) fn is_within_large_frame(&self) -> bool {
        self.buf.len() > MOVED_MAX
    }

    /// Makes room for a read.
    pub(crate) fn make_room(&mut self) {
        let room = self.room();
        let begun = self.buf.len();
        if self.buf.capacity() - begun >= room.least {
            return;
        }
        if self.is_within_large_frame() {
            self.buf.reserve(room.most);
            // Not for the pool: it may have grown to any size.
            self.block = 0;
            return;
        }
        let capacity = room.most.max(begun + room.least);
        let mut fresh = pool::take(capacity);
        fresh.extend_from_slice(&self.buf);
        pool::give(std::mem::replace(&mut self.buf, fresh), self.block);
        self.block = capacity;
    }

    pub(crate) fn split(&mut self, read: usize) -> (Option<Batch>, Result<(), Error>) {
        let left = self.buf.capacity() - self.buf.len();
        self.size.record(read, read + left);
        let mut items: Vec<Item> = Vec::new();
        let (done, result) = self.splitter.split(&self.buf, &mut items);
        let data = self.buf.split_to(done).freeze();
        let batch = if items.is_empty() {
            None
        } else {
            Some(Batch { data, items })
        };
        (batch, result)
    }

    /// Nothing is coming in: give back what the last burst needed.
    pub(crate) fn idle(&mut self) {
        if self.buf.is_empty() {
            self.drop_buffer();
        }
    }

    pub(crate) fn drop_buffer(&mut self) {
        pool::give(std::mem::take(&mut self.buf), self.block);
        self.block = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::frame::Framing;
    use crate::options::OnOversize;

    fn reader() -> Reader {
        Reader::new(&Limits {
            framing: Framing::Line,
            max_frame: 16 << 20,
            on_oversize: OnOversize::Close,
            high_water_min: 1 << 20,
            high_water: 1 << 20,
            max_queue: 1 << 20,
            max_urgent: 0,
            half_close: false,
            linger: Duration::ZERO,
            handshake_timeout: Duration::ZERO,
        })
    }

    /// Reads the beginning of a frame until it has at least this size.
    fn read_frame(reader: &mut Reader, size: usize) {
        while reader.buf.len() < size {
            reader.make_room();
            let room = (reader.buf.capacity() - reader.buf.len()).min(size - reader.buf.len());
            reader.buf.extend_from_slice(&vec![b'x'; room]);
            assert!(reader.split(room).0.is_none());
        }
    }

    #[test]
    fn a_block_that_has_grown_is_not_kept_for_others() {
        let mut reader = reader();
        read_frame(&mut reader, MOVED_MAX);
        assert!(!reader.is_within_large_frame());
        reader.make_room();
        assert_ne!(reader.block, 0);
        read_frame(&mut reader, 8 << 20);
        assert!(reader.is_within_large_frame());
        assert_eq!(reader.block, 0);
        reader.buf.extend_from_slice(b"\n");
        assert!(reader.split(1).0.is_some());
        reader.idle();
        assert_eq!(reader.buf.capacity(), 0);
    }
}
