//! The tokens of JSON. Nothing here decides what a fault is called or where it lies: a token
//! that is no token is `None`, and [`super::check`] finds the reason.

/// The longest number that is read, in characters. Turning digits into an integer takes time
/// that grows with the square of their count, so one long number could hold a thread for
/// minutes.
pub const MAX_NUMBER_BYTES: usize = 4096;

const WORD: usize = size_of::<u64>();
const BLOCK: usize = 64;
const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// A string, as it stands between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The bytes between the quotes.
    pub raw: &'a [u8],
    /// Whether there are escapes among them.
    pub escaped: bool,
}

/// A number that has the form of one; it may still be out of range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number<'a> {
    /// The characters.
    pub text: &'a [u8],
    /// Whether there is a fraction or an exponent.
    pub float: bool,
}

impl Number<'_> {
    /// The value where it is an integer of at most 18 digits, which is nearly always.
    pub fn small(&self) -> Option<i64> {
        let (digits, negative) = match self.text {
            [b'-', digits @ ..] => (digits, true),
            digits => (digits, false),
        };
        if self.float || digits.len() > 18 {
            return None;
        }
        let value = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit & 15));
        Some(if negative { -value } else { value })
    }

    /// The value as a float; `None` where it is too large to be one.
    pub fn float(&self) -> Option<f64> {
        let value: f64 = std::str::from_utf8(self.text).ok()?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// Whether the number can be represented: neither too long nor, as a float, too large.
    pub fn in_range(&self) -> bool {
        // Without an exponent it takes more than 308 digits to leave the range of a double.
        let sure = !self.float || (self.text.len() < 308 && !self.text.iter().any(is_exponent));
        self.text.len() <= MAX_NUMBER_BYTES && (sure || self.float().is_some())
    }
}

fn is_exponent(byte: &u8) -> bool {
    matches!(byte, b'e' | b'E')
}

/// Splits off the white space at the start.
#[inline(always)]
pub fn skip_space(mut input: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = input {
        input = rest;
    }
    input
}

/// Splits off the number at the start.
#[inline]
pub fn number(input: &[u8]) -> Option<(Number<'_>, &[u8])> {
    let unsigned = input.strip_prefix(b"-").unwrap_or(input);
    let mut rest = match unsigned {
        [b'0', rest @ ..] => rest,
        _ => digits(unsigned)?,
    };
    let mut float = false;
    if let [b'.', fraction @ ..] = rest {
        rest = digits(fraction)?;
        float = true;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        rest = match exponent {
            [b'+' | b'-', unsigned @ ..] => digits(unsigned)?,
            _ => digits(exponent)?,
        };
        float = true;
    }
    let text = input.get(..input.len() - rest.len())?;
    Some((Number { text, float }, rest))
}

fn digits(input: &[u8]) -> Option<&[u8]> {
    let count = input.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 { None } else { input.get(count..) }
}

/// How many bytes at the start may stand for themselves in a string, and whether they are all
/// ASCII. Whether those that are not form UTF-8 is not looked at.
#[inline(always)]
pub fn text_run(input: &[u8]) -> (usize, bool) {
    let mut rest = input;
    let mut high = 0;
    let mut words = 0;
    while let Some((word, after)) = rest.split_first_chunk::<WORD>() {
        let word = u64::from_le_bytes(*word);
        let stops = stops(word);
        if stops != 0 {
            let before = (stops & stops.wrapping_neg()) - 1;
            let count = input.len() - rest.len() + stops.trailing_zeros() as usize / WORD;
            return (count, (high | (word & before)) & HIGH == 0);
        }
        high |= word;
        rest = after;
        words += 1;
        // A string that goes on for this long is worth looking at in larger pieces.
        if words == 8 {
            rest = plain_blocks(rest);
        }
    }
    let tail = rest.iter().take_while(|byte| !is_stop(**byte));
    let (count, tail) = tail.fold((0, 0), |(count, high), byte| (count + 1, high | byte));
    let ascii = high & HIGH == 0 && tail < 0x80;
    (input.len() - rest.len() + count, ascii)
}

/// Splits off whole blocks of ASCII that stands for itself.
fn plain_blocks(input: &[u8]) -> &[u8] {
    let mut rest = input;
    // A fold without a way out is what the compiler turns into vector instructions.
    while let Some((block, after)) = rest.split_first_chunk::<BLOCK>() {
        let unplain = |byte: &u8| is_stop(*byte) | (*byte >= 0x80);
        if block.iter().fold(false, |any, byte| any | unplain(byte)) {
            break;
        }
        rest = after;
    }
    rest
}

#[inline(always)]
fn is_stop(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// The high bit of each byte that a string cannot hold as it is: quote, backslash, control
/// character. Exact up to the lowest bit that is set.
#[inline(always)]
fn stops(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let found = (quote.wrapping_sub(ONES) & !quote)
        | (backslash.wrapping_sub(ONES) & !backslash)
        | (word.wrapping_sub(ONES * 0x20) & !word);
    found & HIGH
}

/// Splits off the rest of a string whose opening quote has been read, with its closing quote.
pub fn string(input: &[u8]) -> Option<(Text<'_>, &[u8])> {
    let mut rest = input;
    let mut ascii = true;
    let mut escaped = false;
    loop {
        let (count, plain) = text_run(rest);
        ascii &= plain;
        match rest.get(count..)? {
            [b'"', after @ ..] => {
                let raw = input.get(..input.len() - after.len() - 1)?;
                if !ascii {
                    std::str::from_utf8(raw).ok()?;
                }
                return Some((Text { raw, escaped }, after));
            }
            [b'\\', escape @ ..] => {
                (_, rest) = self::escape(escape)?;
                escaped = true;
            }
            _ => return None,
        }
    }
}

/// Splits off an escape whose backslash has been read. Half of a surrogate pair is read as
/// U+FFFD, the replacement character.
#[inline]
pub fn escape(input: &[u8]) -> Option<(char, &[u8])> {
    let [kind, rest @ ..] = input else { return None };
    let char = match kind {
        b'"' | b'\\' | b'/' => char::from(*kind),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(rest),
        _ => return None,
    };
    Some((char, rest))
}

fn unicode_escape(input: &[u8]) -> Option<(char, &[u8])> {
    let (unit, rest) = hex(input)?;
    if let Some(char) = char::from_u32(unit) {
        return Some((char, rest));
    }
    if let (0xd800..0xdc00, [b'\\', b'u', low @ ..]) = (unit, rest)
        && let Some((low @ 0xdc00..0xe000, after)) = hex(low)
        && let Some(char) = char::from_u32(0x10000 + ((unit & 0x3ff) << 10) + (low & 0x3ff))
    {
        return Some((char, after));
    }
    Some((char::REPLACEMENT_CHARACTER, rest))
}

fn hex(input: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = input.split_first_chunk::<4>()?;
    let mut value = 0;
    for digit in digits {
        value = value * 16 + char::from(*digit).to_digit(16)?;
    }
    Some((value, rest))
}

/// Reads the rest of a string whose opening quote has been read and appends what it stands for
/// to `output`. Returns what follows the closing quote, and whether all is ASCII: what is not
/// has not been checked to be UTF-8.
pub fn unescape<'a>(input: &'a [u8], output: &mut Vec<u8>) -> Option<(&'a [u8], bool)> {
    let mut rest = input;
    let mut high = 0;
    loop {
        if let Some((bytes, after)) = rest.split_first_chunk::<WORD>() {
            let word = u64::from_le_bytes(*bytes);
            let stops = stops(word);
            // Copied whole, then shortened to what precedes the stop: a copy of constant length
            // is one instruction, one of variable length is a call.
            output.extend_from_slice(bytes);
            if stops == 0 {
                high |= word;
                rest = after;
                continue;
            }
            let count = stops.trailing_zeros() as usize / WORD;
            output.truncate(output.len() - WORD + count);
            high |= word & ((stops & stops.wrapping_neg()) - 1);
            rest = rest.get(count..)?;
        } else {
            let (count, ascii) = text_run(rest);
            output.extend_from_slice(rest.get(..count)?);
            high |= if ascii { 0 } else { HIGH };
            rest = rest.get(count..)?;
        }
        match rest {
            [b'"', after @ ..] => return Some((after, high & HIGH == 0)),
            [b'\\', after @ ..] => {
                let (char, after) = escape(after)?;
                high |= if char.is_ascii() { 0 } else { HIGH };
                output.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            _ => return None,
        }
    }
}
