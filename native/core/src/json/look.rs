//! Looking at sixteen bytes of a string at once.

use wide::u8x16;

/// The size of the pieces that strings are looked at in.
pub(super) const PIECE: usize = 16;

/// What there is in a piece of a string, with a bit for each byte, the lowest for the first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// The bytes that a string cannot hold as they are: quotes, backslashes, control characters.
    stops: u16,
    /// The bytes that are not ASCII.
    pub(super) high: u16,
}

impl Marks {
    #[inline(always)]
    pub(super) fn of(piece: &[u8; PIECE]) -> Self {
        let bytes = u8x16::new(*piece);
        let controls = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
        let quotes = bytes.simd_eq(u8x16::splat(b'"'));
        let backslashes = bytes.simd_eq(u8x16::splat(b'\\'));
        Self {
            stops: (quotes | backslashes | controls).to_bitmask() as u16,
            high: bytes.to_bitmask() as u16,
        }
    }

    /// Where the first stop is.
    #[inline(always)]
    pub(super) fn stop(self) -> Option<usize> {
        (self.stops != 0).then_some(self.stops.trailing_zeros() as usize)
    }

    #[inline(always)]
    pub(super) fn ascii_before(self, stop: usize) -> bool {
        self.high & ((1 << stop) - 1) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Marks, PIECE};

    #[test]
    fn every_byte_is_seen_in_every_place() {
        for place in 0..PIECE {
            for byte in 0..=255u8 {
                let mut piece = *b"sixteen letters.";
                piece[place] = byte;
                let marks = Marks::of(&piece);
                let stops = matches!(byte, 0..0x20 | b'"' | b'\\');
                assert_eq!(marks.stop(), stops.then_some(place));
                assert_eq!(marks.high, u16::from(byte >= 0x80) << place);
            }
        }
    }
}
