//! Integers of more than 64 bits and atoms beyond Latin-1. The interface of the VM has no calls
//! for them, but they can pass through its external term format.

use erlmcp_core::json::big;
use rustler::{Env, Term};

const VERSION: u8 = 131;
const SMALL_BIG: u8 = 110;
const LARGE_BIG: u8 = 111;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;

/// The most decimal digits that always fit a limb, and ten to the power of it.
const CHUNK_DIGITS: usize = 19;
const CHUNK: u64 = 10_000_000_000_000_000_000;

/// The integer that these characters stand for.
pub(super) fn from_text<'a>(env: Env<'a>, text: &[u8]) -> Option<Term<'a>> {
    let (negative, bytes) = big::bytes(text);
    let mut format = vec![VERSION];
    match u8::try_from(bytes.len()) {
        Ok(count) => format.extend([SMALL_BIG, count]),
        Err(_) => {
            format.push(LARGE_BIG);
            format.extend(u32::try_from(bytes.len()).ok()?.to_be_bytes());
        }
    }
    format.push(u8::from(negative));
    format.extend(bytes);
    env.binary_to_term(&format).map(|(term, _)| term)
}

/// The characters of an integer that does not fit 64 bits; `None` if there are more than `max`.
pub(super) fn to_text(integer: Term<'_>, max: usize) -> Option<String> {
    let format = integer.to_binary();
    let (count, rest) = match format.as_slice() {
        [VERSION, SMALL_BIG, count, rest @ ..] => (usize::from(*count), rest),
        [VERSION, LARGE_BIG, a, b, c, d, rest @ ..] => (
            usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?,
            rest,
        ),
        _ => return None,
    };
    // A byte is worth more than two digits. What is clearly too long is not worked out: that
    // takes time that grows with the square of its length.
    if count > max / 2 {
        return None;
    }
    let (sign, bytes) = rest.split_first()?;
    let mut limbs: Vec<u64> = bytes.chunks(8).map(limb).collect();
    let mut chunks = Vec::new();
    while !limbs.is_empty() {
        chunks.push(divide(&mut limbs, CHUNK));
    }
    let mut text = String::from(if *sign == 0 { "" } else { "-" });
    text.push_str(&chunks.pop().unwrap_or_default().to_string());
    for chunk in chunks.iter().rev() {
        text.push_str(&format!("{chunk:0CHUNK_DIGITS$}"));
    }
    (text.len() <= max).then_some(text)
}

fn limb(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |limb, byte| limb << 8 | u64::from(*byte))
}

/// Divides and returns the remainder.
fn divide(limbs: &mut Vec<u64>, divisor: u64) -> u64 {
    let mut remainder = 0;
    for limb in limbs.iter_mut().rev() {
        let part = remainder << u64::BITS | u128::from(*limb);
        *limb = (part / u128::from(divisor)) as u64;
        remainder = part % u128::from(divisor);
    }
    while limbs.pop_if(|limb| *limb == 0).is_some() {}
    remainder as u64
}

/// The atom with this text if there is one already.
pub(super) fn existing_atom<'a>(env: Env<'a>, text: &[u8]) -> Option<Term<'a>> {
    let size = u16::try_from(text.len()).ok()?;
    let mut format = vec![VERSION, ATOM_UTF8];
    format.extend(size.to_be_bytes());
    format.extend(text);
    // The safe conversion, which this is, makes no atoms.
    env.binary_to_term(&format).map(|(term, _)| term)
}

/// The text of an atom in UTF-8.
pub(super) fn atom_text(atom: Term<'_>) -> Option<Vec<u8>> {
    match atom.to_binary().as_slice() {
        [VERSION, SMALL_ATOM_UTF8, _, text @ ..] | [VERSION, ATOM_UTF8, _, _, text @ ..] => {
            Some(text.to_vec())
        }
        _ => None,
    }
}
