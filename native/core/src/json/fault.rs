//! Why a document is no JSON, and where. Only what has already failed comes here, so this is
//! written to be exact, not fast.

use super::lex;

/// The first thing that is wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub reason: Reason,
    /// The byte where it is; the size of the input if that ends too early.
    pub at: usize,
}

/// What can be wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The input ends before the document does.
    UnexpectedEnd,
    /// A byte that may not stand where it does.
    UnexpectedByte,
    /// A string with bytes that are not UTF-8; the position is that of the first one.
    InvalidUtf8,
    /// An escape that is none; the position is that of its backslash.
    InvalidEscape,
    /// A number too large for a float, or of too many characters; the position is its first.
    NumberOutOfRange,
    /// An array or object nested too deep; the position is that of its opening bracket.
    DepthLimit,
    /// A batch of too many messages; the position is that of its opening bracket.
    BatchLimit,
}

/// What is left of the input after as much of the word as it begins with.
pub(super) fn after_common<'a>(word: &[u8], input: &'a [u8]) -> &'a [u8] {
    let common = word.iter().zip(input).take_while(|(a, b)| a == b).count();
    input.get(common..).unwrap_or_default()
}

/// What is left of the input where a number goes wrong.
pub(super) fn in_number(input: &[u8]) -> &[u8] {
    let unsigned = input.strip_prefix(b"-").unwrap_or(input);
    let integer = match unsigned {
        [b'0', rest @ ..] => rest,
        [b'1'..=b'9', rest @ ..] => skip_digits(rest),
        rest => return rest,
    };
    let fraction = match integer {
        [b'.', digits @ ..] if skip_digits(digits).len() == digits.len() => return digits,
        [b'.', digits @ ..] => skip_digits(digits),
        rest => rest,
    };
    match fraction {
        [b'e' | b'E', b'+' | b'-', digits @ ..] | [b'e' | b'E', digits @ ..] => digits,
        rest => rest,
    }
}

fn skip_digits(input: &[u8]) -> &[u8] {
    let count = input
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    input.get(count..).unwrap_or_default()
}

/// What is wrong in a string whose opening quote has been read, and what is left of the input
/// there.
pub(super) fn in_string(mut input: &[u8]) -> (Reason, &[u8]) {
    loop {
        match input {
            [] => return (Reason::UnexpectedEnd, input),
            [b'\\', escaped @ ..] => match lex::escape(escaped) {
                Some((_, rest)) => input = rest,
                None if cut_short(escaped) => return (Reason::UnexpectedEnd, &[]),
                None => return (Reason::InvalidEscape, input),
            },
            // The closing quote comes here only where the string was none for another reason,
            // and that has been met before.
            [0..0x20 | b'"', ..] => return (Reason::UnexpectedByte, input),
            [0x20..0x80, rest @ ..] => input = rest,
            [0x80..=0xff, ..] => match skip_char(input) {
                Some(rest) => input = rest,
                None => return (Reason::InvalidUtf8, input),
            },
        }
    }
}

/// Whether this is the beginning of an escape that the end of the input cuts short.
fn cut_short(escaped: &[u8]) -> bool {
    match escaped {
        [] => true,
        [b'u', hex @ ..] => hex.len() < 4 && hex.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    }
}

fn skip_char(input: &[u8]) -> Option<&[u8]> {
    (2..=4).find_map(|size| {
        let (char, rest) = input.split_at_checked(size)?;
        std::str::from_utf8(char).ok().map(|_| rest)
    })
}
