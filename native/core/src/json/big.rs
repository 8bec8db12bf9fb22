//! Integers of any size.

/// The most decimal digits that always fit a limb, and ten to the power of it.
const CHUNK_DIGITS: usize = 19;
const CHUNK: u64 = 10_000_000_000_000_000_000;

/// Whether the integer that these characters stand for is negative, and its absolute value, least
/// byte first, without zeros at the end. The characters have been checked. Takes time that grows
/// with the square of their count.
pub fn bytes(text: &[u8]) -> (bool, Vec<u8>) {
    let (digits, negative) = match text {
        [b'-', digits @ ..] => (digits, true),
        digits => (digits, false),
    };
    let mut limbs = Vec::with_capacity(digits.len() / CHUNK_DIGITS + 1);
    let (first, chunks) = digits.split_at(digits.len() % CHUNK_DIGITS);
    for chunk in std::iter::once(first).chain(chunks.chunks(CHUNK_DIGITS)) {
        let value = chunk
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit & 15));
        multiply_add(&mut limbs, CHUNK, value);
    }
    let mut bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    while bytes.pop_if(|byte| *byte == 0).is_some() {}
    (negative, bytes)
}

fn multiply_add(limbs: &mut Vec<u64>, factor: u64, summand: u64) {
    let mut carry = u128::from(summand);
    for limb in limbs.iter_mut() {
        carry += u128::from(*limb) * u128::from(factor);
        *limb = carry as u64;
        carry >>= u64::BITS;
    }
    if carry > 0 {
        limbs.push(carry as u64);
    }
}
