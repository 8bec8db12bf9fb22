//! How many bytes to ask the kernel for.

/// Smallest read.
pub const MIN: usize = 4 * 1024;
/// Largest read. On loopback larger ones gained nothing (docs/design.md).
pub const MAX: usize = 256 * 1024;

/// Grows at once when a read fills its buffer and shrinks after several that use a quarter or
/// less of it, so that one small message in a busy stream costs nothing.
#[derive(Debug)]
pub struct ReadSize {
    size: usize,
    small_reads: u8,
}

const SMALL_READS_BEFORE_SHRINKING: u8 = 4;

impl ReadSize {
    /// Starts at the smallest size.
    pub fn new() -> Self {
        Self {
            size: MIN,
            small_reads: 0,
        }
    }

    /// The size of the next read.
    pub fn get(&self) -> usize {
        self.size
    }

    /// Learns from a read of `n` bytes into a buffer of `capacity`.
    pub fn record(&mut self, n: usize, capacity: usize) {
        if n >= capacity {
            self.size = (self.size * 2).min(MAX);
            self.small_reads = 0;
        } else if n > self.size / 4 {
            self.small_reads = 0;
        } else {
            self.small_reads += 1;
            if self.small_reads >= SMALL_READS_BEFORE_SHRINKING {
                self.size = (self.size / 2).max(MIN);
                self.small_reads = 0;
            }
        }
    }
}

impl Default for ReadSize {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_when_a_read_fills_the_buffer_up_to_the_maximum() {
        let mut size = ReadSize::new();
        for expected in [8, 16, 32, 64, 128, 256, 256] {
            size.record(size.get(), size.get());
            assert_eq!(size.get(), expected * 1024);
        }
    }

    #[test]
    fn shrinks_only_after_several_small_reads_in_a_row() {
        let mut size = ReadSize::new();
        size.record(MIN, MIN);
        size.record(MIN, MIN);
        for _ in 0..3 {
            size.record(1, size.get());
        }
        size.record(size.get() / 2, size.get());
        for _ in 0..3 {
            size.record(1, size.get());
        }
        assert_eq!(size.get(), 4 * MIN);
        size.record(1, size.get());
        assert_eq!(size.get(), 2 * MIN);
    }

    #[test]
    fn never_falls_below_the_minimum() {
        let mut size = ReadSize::new();
        for _ in 0..100 {
            size.record(1, size.get());
        }
        assert_eq!(size.get(), MIN);
    }
}
