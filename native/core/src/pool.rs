//! Large blocks that connections read into, for all of them together.
//!
//! Memory that is new to a process costs more than what is read into it: each page is a fault, 1
//! microsecond on the machine of docs/benchmarks.md, and allocators give large blocks back to the
//! system at once. A connection that falls silent keeps no block; here a few are kept.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::BytesMut;

use crate::sync::lock;

/// Smaller blocks are left to the allocator.
const LARGE: usize = 64 * 1024;

/// 4 MiB of blocks of the largest read size.
const BLOCKS: usize = 16;

/// Blocks that frames may still refer to, the oldest first.
static POOL: Mutex<VecDeque<BytesMut>> = Mutex::new(VecDeque::new());

/// An empty block of at least this capacity.
pub(crate) fn take(capacity: usize) -> BytesMut {
    if capacity >= LARGE {
        let mut pool = lock(&POOL);
        let free = pool
            .iter_mut()
            .rposition(|block| block.try_reclaim(capacity));
        if let Some(block) = free.and_then(|index| pool.remove(index)) {
            return block;
        }
    }
    BytesMut::with_capacity(capacity)
}

/// Takes back a block that was taken with this capacity. It is handed out again when nobody
/// refers to it.
pub(crate) fn give(mut block: BytesMut, capacity: usize) {
    if capacity < LARGE {
        return;
    }
    block.clear();
    let mut pool = lock(&POOL);
    let oldest = if pool.len() < BLOCKS {
        None
    } else {
        pool.pop_front()
    };
    pool.push_back(block);
    drop(pool);
    drop(oldest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_when_nobody_refers_to_it() {
        // A size of its own, since the pool is that of all tests of the process.
        const SIZE: usize = 300 * 1024;
        let mut block = take(SIZE);
        block.extend_from_slice(&[7; SIZE]);
        let place = block.as_ptr();
        let frame = block.split_to(10).freeze();
        give(block, SIZE);
        let other = take(SIZE);
        assert_ne!(other.as_ptr(), place);
        assert_eq!(&frame[..], &[7; 10]);
        drop(frame);
        let again = take(SIZE);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(again.capacity() >= SIZE);
    }
}
