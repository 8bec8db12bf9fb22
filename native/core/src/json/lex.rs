//! The tokens of JSON. Nothing here decides what a fault is called or where it lies: a token
//! that is no token is `None`, and [`super::check`] finds the reason.

use super::look::{Marks, PIECE};

/// The longest integer that is read, in characters. Turning digits into an integer takes time
/// that grows with the square of their count, so one long number could hold a thread for
/// minutes.
pub const MAX_INTEGER_BYTES: usize = 4096;

/// A string, as it stands between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The bytes between the quotes.
    pub raw: &'a [u8],
    /// Whether there are escapes among them.
    pub escaped: bool,
}

impl<'a> Text<'a> {
    /// What the string stands for; `buffer` is overwritten where there are escapes.
    pub fn plain<'b>(&self, buffer: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        if !self.escaped {
            return self.raw;
        }
        buffer.clear();
        let mut rest = self.raw;
        loop {
            let (run, stop) = rest.split_at(text_run(rest).0.min(rest.len()));
            buffer.extend_from_slice(run);
            let Some((char, after)) = stop.strip_prefix(b"\\").and_then(escape) else {
                break;
            };
            buffer.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        }
        buffer
    }
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
    /// The value as a float; `None` where it is too large to be one.
    pub fn float(&self) -> Option<f64> {
        let value: f64 = std::str::from_utf8(self.text).ok()?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// Whether the number can be represented: an integer of not too many characters, or a float
    /// that is not too large.
    pub fn in_range(&self) -> bool {
        match self.float {
            true => self.float().is_some(),
            false => self.text.len() <= MAX_INTEGER_BYTES,
        }
    }
}

/// Splits off the white space at the start.
#[inline(always)]
pub fn skip_space(mut input: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = input {
        input = rest;
    }
    input
}

/// Splits off the number at the start if it is an integer of at most 18 digits, as nearly all
/// numbers are.
#[inline(always)]
pub fn small_integer(input: &[u8]) -> Option<(i64, &[u8])> {
    let (negative, digits) = match input {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut value = 0i64;
    let mut rest = digits;
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit & 15));
        rest = after;
    }
    let more = matches!(rest, [b'.' | b'e' | b'E', ..]);
    match digits.len() - rest.len() {
        // What begins with a zero is more than one number, or none.
        2.. if digits.first() == Some(&b'0') => None,
        1..=18 if !more => Some((if negative { -value } else { value }, rest)),
        _ => None,
    }
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
    let count = input
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if count == 0 { None } else { input.get(count..) }
}

/// How many bytes at the start may stand for themselves in a string, and whether they are all
/// ASCII. Whether those that are not form UTF-8 is not looked at.
#[inline(always)]
pub fn text_run(input: &[u8]) -> (usize, bool) {
    let mut rest = input;
    let mut ascii = true;
    while let Some((piece, after)) = rest.split_first_chunk::<PIECE>() {
        let marks = Marks::of(piece);
        if let Some(stop) = marks.stop() {
            let count = input.len() - rest.len() + stop;
            return (count, ascii & marks.ascii_before(stop));
        }
        ascii &= marks.high == 0;
        rest = after;
    }
    let stops = |byte: &&u8| !matches!(**byte, 0..0x20 | b'"' | b'\\');
    let tail = rest.iter().take_while(stops);
    let (count, high) = tail.fold((0, 0), |(count, high), byte| (count + 1, high | byte));
    (input.len() - rest.len() + count, ascii & high.is_ascii())
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
    match input {
        [b'u', rest @ ..] => unicode_escape(rest),
        [kind, rest @ ..] => short_escape(*kind).map(|byte| (char::from(byte), rest)),
        [] => None,
    }
}

#[inline(always)]
#[expect(
    clippy::indexing_slicing,
    reason = "only while the table is made, by the compiler"
)]
fn short_escape(kind: u8) -> Option<u8> {
    // A table, because a jump for each kind is one that the processor often guesses wrong.
    static BYTES: [u8; 256] = {
        let mut bytes = [0; 256];
        let pairs = *b"\"\"\\\\//b\x08f\x0cn\nr\rt\t";
        let mut at = 0;
        while at < pairs.len() {
            bytes[pairs[at] as usize] = pairs[at + 1];
            at += 2;
        }
        bytes
    };
    match BYTES.get(usize::from(kind)) {
        None | Some(0) => None,
        Some(byte) => Some(*byte),
    }
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
    let mut ascii = true;
    loop {
        if let Some((piece, after)) = rest.split_first_chunk::<PIECE>() {
            let marks = Marks::of(piece);
            // Copied whole, then shortened to what precedes the stop: a copy of constant length
            // is one instruction, one of variable length is a call.
            output.extend_from_slice(piece);
            let Some(stop) = marks.stop() else {
                ascii &= marks.high == 0;
                rest = after;
                continue;
            };
            output.truncate(output.len() - PIECE + stop);
            ascii &= marks.ascii_before(stop);
            rest = rest.get(stop..)?;
        } else {
            let (count, plain) = text_run(rest);
            output.extend_from_slice(rest.get(..count)?);
            ascii &= plain;
            rest = rest.get(count..)?;
        }
        if let [b'"', after @ ..] = rest {
            return Some((after, ascii));
        }
        // Escapes often come in groups.
        while let [b'\\', after @ ..] = rest {
            rest = match after {
                [kind, after @ ..] if let Some(byte) = short_escape(*kind) => {
                    output.push(byte);
                    after
                }
                _ => {
                    let (char, after) = escape(after)?;
                    output.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                    ascii &= char.is_ascii();
                    after
                }
            };
        }
        if let [0..0x20, ..] | [] = rest {
            return None;
        }
    }
}
