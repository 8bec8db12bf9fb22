//! JSON without values: the tokens that decoders are made of, whether a document is one, where
//! and why it is not, the envelope of the JSON-RPC messages in it, and how strings and floats are
//! written.
//!
//! The grammar is that of RFC 8259. Where the RFC leaves a choice: a byte order mark at the
//! start is skipped, of members with the same name the last one counts, and half of a surrogate
//! pair stands for U+FFFD.

pub mod big;
mod envelope;
mod fault;
pub mod lex;
mod look;
pub mod names;
mod role;
#[cfg(test)]
mod tests;
pub mod write;

pub use envelope::{Element, Envelope, Id, Kind, Message, Params, Why, envelope};
pub use fault::{Fault, Reason};
pub use role::Role;

use lex::Text;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The input without a byte order mark at its start.
pub fn skip_mark(input: &[u8]) -> &[u8] {
    input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input)
}

/// Checks that the input is one JSON document whose arrays and objects are nested at most
/// `max_depth` deep.
pub fn check(input: &[u8], max_depth: usize) -> Result<(), Fault> {
    let mut reader = Reader::new(input, max_depth);
    reader.value()?;
    reader.end()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

/// What a value is, as far as its first byte tells.
#[derive(Clone, Copy, PartialEq)]
enum Value<'a> {
    Null,
    Bool,
    Number(lex::Number<'a>),
    Text(Text<'a>),
    Array,
    Object,
}

impl Value<'_> {
    fn is_container(&self) -> bool {
        matches!(self, Value::Array | Value::Object)
    }
}

/// What follows inside an array or object.
enum Next<'a> {
    Item,
    Member(Text<'a>),
    Closed,
}

/// Reads a document from front to back. Nesting is kept in a list, not on the stack of the
/// thread: a scheduler thread of the VM has little of that.
struct Reader<'a> {
    input: &'a [u8],
    rest: &'a [u8],
    open: Vec<Container>,
    max_depth: usize,
}

impl<'a> Reader<'a> {
    fn new(input: &'a [u8], max_depth: usize) -> Self {
        let rest = skip_mark(input);
        Self {
            input,
            rest,
            open: Vec::new(),
            max_depth,
        }
    }

    fn at(&self, rest: &[u8]) -> usize {
        self.input.len() - rest.len()
    }

    /// The fault of a byte that may not stand where `rest` begins.
    fn unexpected(&self, rest: &[u8]) -> Fault {
        let reason = if rest.is_empty() {
            Reason::UnexpectedEnd
        } else {
            Reason::UnexpectedByte
        };
        Fault {
            reason,
            at: self.at(rest),
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.rest = lex::skip_space(self.rest);
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.unexpected(self.rest))
        }
    }

    /// Reads a value and all that is in it.
    fn value(&mut self) -> Result<Value<'a>, Fault> {
        let value = self.begin()?;
        self.finish(value)?;
        Ok(value)
    }

    /// Reads the rest of a value that has begun.
    fn finish(&mut self, value: Value<'a>) -> Result<(), Fault> {
        let mut fresh = value.is_container();
        let outside = self.open.len() - usize::from(fresh);
        while self.open.len() > outside {
            fresh = match self.next(fresh)? {
                Next::Closed => false,
                Next::Item | Next::Member(_) => self.begin()?.is_container(),
            };
        }
        Ok(())
    }

    /// Reads on inside an array or object, up to the next value in it or past its end. `fresh`
    /// says that its opening bracket has just been read.
    fn next(&mut self, fresh: bool) -> Result<Next<'a>, Fault> {
        self.rest = lex::skip_space(self.rest);
        match (self.open.last(), self.rest) {
            (Some(Container::Array), [b']', rest @ ..])
            | (Some(Container::Object), [b'}', rest @ ..]) => {
                self.rest = rest;
                self.open.pop();
                return Ok(Next::Closed);
            }
            (_, [b',', rest @ ..]) if !fresh => self.rest = rest,
            _ if fresh => {}
            _ => return Err(self.unexpected(self.rest)),
        }
        match self.open.last() {
            Some(Container::Object) => self.key().map(Next::Member),
            _ => Ok(Next::Item),
        }
    }

    /// Reads a scalar, or the opening bracket of an array or object.
    fn begin(&mut self) -> Result<Value<'a>, Fault> {
        self.rest = lex::skip_space(self.rest);
        match self.rest {
            [b'"', rest @ ..] => self.text(rest).map(Value::Text),
            [b'{', rest @ ..] => self.open(Container::Object, rest).map(|()| Value::Object),
            [b'[', rest @ ..] => self.open(Container::Array, rest).map(|()| Value::Array),
            [b'-' | b'0'..=b'9', ..] => self.number().map(Value::Number),
            [b't', ..] => self.literal(b"true", Value::Bool),
            [b'f', ..] => self.literal(b"false", Value::Bool),
            [b'n', ..] => self.literal(b"null", Value::Null),
            rest => Err(self.unexpected(rest)),
        }
    }

    fn literal(&mut self, word: &[u8], value: Value<'a>) -> Result<Value<'a>, Fault> {
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                Ok(value)
            }
            None => Err(self.unexpected(fault::after_common(word, self.rest))),
        }
    }

    fn number(&mut self) -> Result<lex::Number<'a>, Fault> {
        let at = self.at(self.rest);
        match lex::number(self.rest) {
            Some((number, rest)) if number.in_range() => {
                self.rest = rest;
                Ok(number)
            }
            Some(_) => Err(Fault {
                reason: Reason::NumberOutOfRange,
                at,
            }),
            None => Err(self.unexpected(fault::in_number(self.rest))),
        }
    }

    fn text(&mut self, rest: &'a [u8]) -> Result<Text<'a>, Fault> {
        match lex::string(rest) {
            Some((text, rest)) => {
                self.rest = rest;
                Ok(text)
            }
            None => {
                let (reason, rest) = fault::in_string(rest);
                Err(Fault {
                    reason,
                    at: self.at(rest),
                })
            }
        }
    }

    fn open(&mut self, container: Container, rest: &'a [u8]) -> Result<(), Fault> {
        if self.open.len() >= self.max_depth {
            return Err(Fault {
                reason: Reason::DepthLimit,
                at: self.at(self.rest),
            });
        }
        self.open.push(container);
        self.rest = rest;
        Ok(())
    }

    /// Reads a name and the colon.
    fn key(&mut self) -> Result<Text<'a>, Fault> {
        self.rest = lex::skip_space(self.rest);
        let [b'"', rest @ ..] = self.rest else {
            return Err(self.unexpected(self.rest));
        };
        let key = self.text(rest)?;
        self.rest = lex::skip_space(self.rest);
        let [b':', rest @ ..] = self.rest else {
            return Err(self.unexpected(self.rest));
        };
        self.rest = rest;
        Ok(key)
    }
}
