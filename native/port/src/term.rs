//! Erlang's external term format, as much of it as goes through the pipes.

use bytes::Bytes;

const VERSION: u8 = 131;

/// The first byte of each kind of term that is written.
pub(crate) mod tag {
    pub(crate) const FLOAT: u8 = 70;
    pub(crate) const SMALL_INTEGER: u8 = 97;
    pub(crate) const INTEGER: u8 = 98;
    pub(crate) const SMALL_TUPLE: u8 = 104;
    pub(crate) const NIL: u8 = 106;
    pub(crate) const LIST: u8 = 108;
    pub(crate) const BINARY: u8 = 109;
    pub(crate) const SMALL_BIG: u8 = 110;
    pub(crate) const LARGE_BIG: u8 = 111;
    pub(crate) const MAP: u8 = 116;
    pub(crate) const SMALL_ATOM: u8 = 119;
}

/// Nesting beyond this is no term of ours.
const MAX_DEPTH: usize = 32;

/// A term as it is read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Term {
    Atom(String),
    Integer(i64),
    Binary(Bytes),
    Tuple(Vec<Term>),
    List(Vec<Term>),
    Map(Vec<(Term, Term)>),
}

/// What was read is no term, or not the one that belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Term {
    /// Reads a term that is all there is. Binaries refer to the input.
    pub(crate) fn read(input: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader { input, at: 0 };
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let term = reader.term(0)?;
        if reader.at == input.len() {
            Ok(term)
        } else {
            Err(Malformed)
        }
    }

    /// The value of a key of a map.
    pub(crate) fn get(&self, name: &str) -> Result<&Term, Malformed> {
        self.find(name).ok_or(Malformed)
    }

    /// The value of a key of a map that may be absent.
    pub(crate) fn find(&self, name: &str) -> Option<&Term> {
        let Term::Map(pairs) = self else {
            return None;
        };
        let found = pairs.iter().find(|(key, _)| key.is(name));
        found.map(|(_, value)| value)
    }

    /// Whether this is the atom of that name.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, Term::Atom(text) if text == name)
    }

    pub(crate) fn atom(&self) -> Result<&str, Malformed> {
        match self {
            Term::Atom(text) => Ok(text),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn bool(&self) -> Result<bool, Malformed> {
        match self.atom()? {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Malformed),
        }
    }

    /// An integer of a type that it must fit.
    pub(crate) fn integer<T: TryFrom<i64>>(&self) -> Result<T, Malformed> {
        match self {
            Term::Integer(value) => T::try_from(*value).map_err(|_| Malformed),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn bytes(&self) -> Result<&Bytes, Malformed> {
        match self {
            Term::Binary(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    /// A binary in UTF-8.
    pub(crate) fn text(&self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Malformed)
    }

    pub(crate) fn list(&self) -> Result<&[Term], Malformed> {
        match self {
            Term::List(elements) => Ok(elements),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn tuple(&self) -> Result<&[Term], Malformed> {
        match self {
            Term::Tuple(elements) => Ok(elements),
            _ => Err(Malformed),
        }
    }
}

struct Reader<'a> {
    input: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed)?;
        let bytes = self.input.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<usize, Malformed> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn u32(&mut self) -> Result<usize, Malformed> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| Malformed)
    }

    fn term(&mut self, depth: usize) -> Result<Term, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        match self.u8()? {
            97 => Ok(Term::Integer(self.u8()?.into())),
            98 => Ok(Term::Integer(i32::from_be_bytes(self.array()?).into())),
            110 => self.big(),
            100 | 118 => {
                let len = self.u16()?;
                self.atom(len)
            }
            115 | 119 => {
                let len = self.u8()?.into();
                self.atom(len)
            }
            104 => {
                let count = self.u8()?.into();
                self.terms(count, depth).map(Term::Tuple)
            }
            105 => {
                let count = self.u32()?;
                self.terms(count, depth).map(Term::Tuple)
            }
            106 => Ok(Term::List(Vec::new())),
            107 => {
                let len = self.u16()?;
                let bytes = self.take(len)?;
                let elements = bytes.iter().map(|byte| Term::Integer((*byte).into()));
                Ok(Term::List(elements.collect()))
            }
            108 => self.list(depth),
            109 => {
                let len = self.u32()?;
                let start = self.at;
                self.take(len)?;
                Ok(Term::Binary(self.input.slice(start..self.at)))
            }
            116 => {
                let count = self.u32()?;
                let mut pairs = Vec::new();
                for _ in 0..count {
                    pairs.push((self.term(depth + 1)?, self.term(depth + 1)?));
                }
                Ok(Term::Map(pairs))
            }
            _ => Err(Malformed),
        }
    }

    /// An integer of up to 64 bits.
    fn big(&mut self) -> Result<Term, Malformed> {
        let len = self.u8()?.into();
        let negative = self.u8()? != 0;
        let digits = self.take(len)?;
        if len > 8 {
            return Err(Malformed);
        }
        let value = digits
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | i128::from(*byte));
        let value = if negative { -value } else { value };
        i64::try_from(value)
            .map(Term::Integer)
            .map_err(|_| Malformed)
    }

    /// Atoms in Latin-1 occur only in ASCII, which OTP 25 writes so.
    fn atom(&mut self, len: usize) -> Result<Term, Malformed> {
        let text = self.take(len)?.to_vec();
        String::from_utf8(text)
            .map(Term::Atom)
            .map_err(|_| Malformed)
    }

    fn terms(&mut self, count: usize, depth: usize) -> Result<Vec<Term>, Malformed> {
        // Not made with room for `count`: that may be a lie, and each term takes a byte at least.
        (0..count).map(|_| self.term(depth + 1)).collect()
    }

    fn list(&mut self, depth: usize) -> Result<Term, Malformed> {
        let count = self.u32()?;
        let elements = self.terms(count, depth)?;
        match self.u8()? {
            106 => Ok(Term::List(elements)),
            _ => Err(Malformed),
        }
    }
}

/// A term as it is written.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// The beginning of a term.
    pub(crate) fn new() -> Self {
        Self(vec![VERSION])
    }

    /// What was written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// How much was written.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets what was written from there on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// A part of what was written.
    pub(crate) fn part(&self, at: usize, len: usize) -> &[u8] {
        self.0.get(at..at + len).unwrap_or_default()
    }

    /// What has been written elsewhere.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn atom(&mut self, name: &str) -> &mut Self {
        // The names are those in this program: none has more than 255 bytes.
        self.0
            .extend_from_slice(&[tag::SMALL_ATOM, name.len() as u8]);
        self.raw(name.as_bytes())
    }

    pub(crate) fn integer(&mut self, value: u64) -> &mut Self {
        match i64::try_from(value) {
            Ok(value) => self.signed(value),
            Err(_) => self.big(false, &value.to_le_bytes()),
        }
    }

    pub(crate) fn signed(&mut self, value: i64) -> &mut Self {
        if let Ok(small) = u8::try_from(value) {
            return self.raw(&[tag::SMALL_INTEGER, small]);
        }
        if let Ok(medium) = i32::try_from(value) {
            self.0.push(tag::INTEGER);
            return self.raw(&medium.to_be_bytes());
        }
        let size = value.unsigned_abs().to_le_bytes();
        let zeros = size.iter().rev().take_while(|byte| **byte == 0).count();
        self.big(
            value < 0,
            size.get(..size.len() - zeros).unwrap_or_default(),
        )
    }

    /// An integer by the bytes of its absolute value, the least first.
    pub(crate) fn big(&mut self, negative: bool, bytes: &[u8]) -> &mut Self {
        match u8::try_from(bytes.len()) {
            Ok(count) => self.raw(&[tag::SMALL_BIG, count]),
            Err(_) => self.counted(tag::LARGE_BIG, bytes.len() as u32),
        };
        self.raw(&[u8::from(negative)]).raw(bytes)
    }

    pub(crate) fn float(&mut self, value: f64) -> &mut Self {
        self.0.push(tag::FLOAT);
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn binary(&mut self, bytes: &[u8]) -> &mut Self {
        self.counted(tag::BINARY, bytes.len() as u32).raw(bytes)
    }

    /// A tuple of so many elements, which follow.
    pub(crate) fn tuple(&mut self, arity: u8) -> &mut Self {
        self.raw(&[tag::SMALL_TUPLE, arity])
    }

    /// A list of so many elements, which follow, and then [`Writer::nil`].
    pub(crate) fn list(&mut self, count: usize) -> &mut Self {
        if count > 0 {
            self.counted(tag::LIST, count as u32);
        }
        self
    }

    /// The end of a list.
    pub(crate) fn nil(&mut self) -> &mut Self {
        self.raw(&[tag::NIL])
    }

    /// A map of so many keys and values, which follow in turn.
    pub(crate) fn map(&mut self, size: usize) -> &mut Self {
        self.counted(tag::MAP, size as u32)
    }

    /// A tag and a count, which may be set later.
    pub(crate) fn counted(&mut self, tag: u8, count: u32) -> &mut Self {
        let [a, b, c, d] = count.to_be_bytes();
        self.raw(&[tag, a, b, c, d])
    }

    /// Sets the count of what begins at `at`.
    pub(crate) fn set_count(&mut self, at: usize, count: u32) {
        if let Some(place) = self.0.get_mut(at + 1..at + 5) {
            place.copy_from_slice(&count.to_be_bytes());
        }
    }
}
