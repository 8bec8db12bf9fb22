//! The names that come up again and again.
//!
//! Making a term for each name of each member is most of what a small message costs. The names
//! of JSON-RPC, MCP and JSON Schema are therefore made once, and the caller hands them in as a
//! tuple of terms that the VM keeps; see [`WORDS`].

/// The words, in the order of the tuple. Of those that have eight bytes or fewer, also strings
/// that are not names are taken from it.
pub const WORDS: [&str; 48] = [
    "2.0",
    "_meta",
    "additionalProperties",
    "annotations",
    "arguments",
    "array",
    "blob",
    "boolean",
    "capabilities",
    "clientInfo",
    "code",
    "content",
    "cursor",
    "data",
    "default",
    "description",
    "enum",
    "error",
    "id",
    "inputSchema",
    "integer",
    "isError",
    "items",
    "jsonrpc",
    "maximum",
    "message",
    "method",
    "mimeType",
    "minimum",
    "name",
    "nextCursor",
    "number",
    "object",
    "outputSchema",
    "params",
    "progressToken",
    "properties",
    "protocolVersion",
    "required",
    "result",
    "serverInfo",
    "string",
    "structuredContent",
    "text",
    "title",
    "tools",
    "type",
    "uri",
];

/// Up to this size the first bytes and the size are the whole text.
pub const HEAD: usize = 8;

const SLOT_BITS: u32 = 8;

/// The word in each place of the table: the place in [`WORDS`], the name. No two words have the
/// same place, which the compiler checks; the factor was found by trying.
static PLACES: [Option<(u8, Name)>; 1 << SLOT_BITS] = places();
const FACTOR: u64 = 0x1a2b_8f1f_f1fd_42a3;

/// A text in the input, cut down to what tells it from others at little cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Name {
    head: u64,
    at: u32,
    size: u32,
}

impl Name {
    /// The text of this size at the start of `rest`, which stands at `at` in the input.
    #[inline(always)]
    pub fn new(rest: &[u8], at: usize, size: usize) -> Self {
        let head = match rest.first_chunk::<HEAD>() {
            Some(head) => u64::from_le_bytes(*head),
            None => rest
                .iter()
                .rev()
                .fold(0, |head, byte| head << 8 | u64::from(*byte)),
        };
        let kept = if size < HEAD {
            !(u64::MAX << (8 * size))
        } else {
            u64::MAX
        };
        Self {
            head: head & kept,
            at: at as u32,
            size: size as u32,
        }
    }

    #[inline(always)]
    const fn hash(&self) -> u64 {
        (self.head ^ self.size as u64).wrapping_mul(FACTOR)
    }

    /// The place in a table of so many bits.
    #[inline(always)]
    pub const fn place(&self, bits: u32) -> usize {
        (self.hash() >> (u64::BITS - bits)) as usize
    }

    /// Which of the words this is, of which `text` is the text.
    #[inline(always)]
    pub fn word(&self, text: &[u8]) -> Option<usize> {
        let (index, word) = PLACES.get(self.place(SLOT_BITS)).copied().flatten()?;
        let index = usize::from(index);
        let same = self.looks_like(&word)
            && (text.len() <= HEAD || WORDS.get(index).is_some_and(|word| word.as_bytes() == text));
        same.then_some(index)
    }

    /// Whether this is the same text of the same input.
    #[inline(always)]
    pub fn is_same(&self, other: &Self, input: &[u8]) -> bool {
        self.looks_like(other)
            && (self.size as usize <= HEAD || self.text(input) == other.text(input))
    }

    #[inline(always)]
    fn looks_like(&self, other: &Self) -> bool {
        self.head == other.head && self.size == other.size
    }

    fn text<'b>(&self, input: &'b [u8]) -> &'b [u8] {
        let rest = input.get(self.at as usize..);
        rest.and_then(|rest| rest.get(..self.size as usize))
            .unwrap_or_default()
    }
}

#[expect(clippy::indexing_slicing, reason = "runs in the compiler only")]
const fn places() -> [Option<(u8, Name)>; 1 << SLOT_BITS] {
    let mut places = [None; 1 << SLOT_BITS];
    let mut index = 0;
    while index < WORDS.len() {
        let word = WORDS[index].as_bytes();
        let mut name = Name {
            head: 0,
            at: 0,
            size: word.len() as u32,
        };
        let mut at = 0;
        while at < word.len() && at < HEAD {
            name.head |= (word[at] as u64) << (8 * at);
            at += 1;
        }
        let place = name.place(SLOT_BITS);
        assert!(
            places[place].is_none(),
            "two words have the same place: try another factor"
        );
        places[place] = Some((index as u8, name));
        index += 1;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::{Name, WORDS};

    fn word(input: &str, at: usize, size: usize) -> Option<usize> {
        let rest = &input.as_bytes()[at..];
        Name::new(rest, at, size).word(&rest[..size])
    }

    #[test]
    fn every_word_is_found_wherever_it_stands() {
        for (index, text) in WORDS.iter().enumerate() {
            for after in ["", "\"", "\":{\"x\":1}}"] {
                let input = format!("{{\"{text}{after}");
                assert_eq!(word(&input, 2, text.len()), Some(index), "{input}");
            }
        }
    }

    #[test]
    fn what_only_resembles_a_word_is_none() {
        for text in [
            "",
            "i",
            "idx",
            "descriptiom",
            "description ",
            "additional",
            "2.1",
            "i\0",
        ] {
            assert_eq!(word(text, 0, text.len()), None, "{text}");
        }
    }

    #[test]
    fn names_are_told_apart_beyond_their_heads() {
        let input = b"description_a description_b description_a";
        let [a, b, c] = [0, 14, 28].map(|at| Name::new(&input[at..], at, 13));
        assert!(a.is_same(&c, input));
        assert!(!a.is_same(&b, input));
    }
}
