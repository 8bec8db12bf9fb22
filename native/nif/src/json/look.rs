//! Looking at sixteen bytes of a string at once.

#[cfg(not(target_arch = "x86_64"))]
pub(super) use erlmcp_core::scan::lex::Portable as Vector;

#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::Vector;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use erlmcp_core::scan::lex::{Look, Marks, PIECE};
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8,
    };

    /// Looks at a piece with vector instructions.
    pub(crate) struct Vector;

    impl Look for Vector {
        #[inline(always)]
        fn marks(piece: &[u8; PIECE]) -> Marks {
            // SAFETY: SSE2 is part of x86_64, and the pointer is to as many bytes as are loaded.
            unsafe {
                let bytes = _mm_loadu_si128(piece.as_ptr().cast());
                let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
                let backslashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
                let controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
                let stops = _mm_or_si128(_mm_or_si128(quotes, backslashes), controls);
                Marks {
                    stops: _mm_movemask_epi8(stops) as u16,
                    high: _mm_movemask_epi8(bytes) as u16,
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::Vector;
        use erlmcp_core::scan::lex::{Look, Portable};

        #[test]
        fn both_ways_see_the_same() {
            for place in 0..16 {
                for byte in 0..=255 {
                    let mut piece = *b"sixteen letters.";
                    piece[place] = byte;
                    let (vector, portable) = (Vector::marks(&piece), Portable::marks(&piece));
                    assert_eq!(vector.stops.trailing_zeros(), portable.stops.trailing_zeros());
                    assert_eq!(vector.high, portable.high);
                }
            }
        }
    }
}
