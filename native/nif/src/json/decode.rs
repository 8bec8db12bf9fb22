//! From a document to terms.
//!
//! One pass, which builds as it reads and knows only that something is wrong, not what: then
//! `erlmcp_core::json` is asked. Nesting is kept in a list, because a scheduler thread has
//! little stack.

use std::cell::RefCell;

use erlmcp_core::json::lex::{self, MAX_INTEGER_BYTES, Number};
use erlmcp_core::json::names::{HEAD, Name};
use erlmcp_core::json::skip_mark;
use rustler::types::atom;
use rustler::{Atom, Binary, Encoder, Env, Term};

use super::vm::{Mark, Memory, Stack};
use super::{Late, Watch, big};
use crate::terms;

/// A string up to this size is copied, even where the input may be referred to: the reference
/// would take as much room.
const COPIED: usize = 64;

/// In an input below this size hardly any name comes twice.
const REPETITIVE: usize = 1024;

/// Building a map of more keys than this is too long a step on a normal scheduler.
const LARGE_MAP: usize = 1024;

/// How the terms of a document are to be.
pub(super) struct Options<'a> {
    pub(super) words: Term<'a>,
    pub(super) null: Term<'a>,
    pub(super) existing_atoms: bool,
    pub(super) references: bool,
    pub(super) max_depth: usize,
}

/// Why a document was not read to its end.
pub(super) enum Stop {
    /// It is no JSON.
    Fault,
    /// Time is up.
    Late,
}

impl From<Late> for Stop {
    fn from(_: Late) -> Self {
        Self::Late
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document,
    Array,
    Object,
}

/// An array or object that has begun, or the document around all.
#[derive(Clone, Copy)]
struct Container {
    kind: Kind,
    mark: Mark,
}

/// Memory that calls on one thread hand on to each other.
#[derive(Default)]
struct Scratch {
    stack: Memory,
    outer: Vec<Container>,
    text: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

struct Decoder<'a, 'b> {
    input: Binary<'a>,
    options: &'b Options<'a>,
    stack: Stack<'a, 'b>,
    outer: &'b mut Vec<Container>,
    text: &'b mut Vec<u8>,
    watch: Watch,
}

/// Builds the term of a document.
pub(super) fn decode<'a>(
    input: Binary<'a>,
    options: &Options<'a>,
    watch: Watch,
) -> Result<Term<'a>, Stop> {
    SCRATCH.with_borrow_mut(|scratch| {
        let Scratch { stack, outer, text } = scratch;
        outer.clear();
        let stack = Stack::new(options.words, input.as_slice(), stack);
        let mut decoder = Decoder {
            input,
            options,
            stack,
            outer,
            text,
            watch,
        };
        let result = decoder.document(input.as_slice());
        scratch.shrink();
        result
    })
}

/// What is left of the input after something has been read. It is passed from call to call, and
/// not a field, because that keeps it in registers.
type Rest<'b> = Result<&'b [u8], Stop>;

impl<'a, 'b> Decoder<'a, 'b> {
    fn document(&mut self, input: &'b [u8]) -> Result<Term<'a>, Stop> {
        let mut inner = Container {
            kind: Kind::Document,
            mark: self.stack.mark(),
        };
        let mut rest = self.value(skip_mark(input), &mut inner)?;
        loop {
            rest = lex::skip_space(rest);
            rest = match (rest, inner.kind) {
                ([b',', rest @ ..], Kind::Array) => self.value(rest, &mut inner)?,
                ([b',', rest @ ..], Kind::Object) => {
                    let rest = self.key(lex::skip_space(rest))?;
                    self.value(rest, &mut inner)?
                }
                ([b']', rest @ ..], Kind::Array) | ([b'}', rest @ ..], Kind::Object) => {
                    self.close(&mut inner)?;
                    rest
                }
                ([], Kind::Document) => return self.stack.pop().ok_or(Stop::Fault),
                _ => return Err(Stop::Fault),
            };
        }
    }

    /// Reads a value that is a scalar or empty, after any number of opening brackets.
    #[inline(always)]
    fn value(&mut self, mut rest: &'b [u8], inner: &mut Container) -> Rest<'b> {
        loop {
            self.watch.tick()?;
            rest = match lex::skip_space(rest) {
                [b'"', rest @ ..] => return self.string(rest),
                [b'{', rest @ ..] => match self.open(Kind::Object, rest, inner)? {
                    [b'}', rest @ ..] => {
                        self.close(inner)?;
                        return Ok(rest);
                    }
                    rest => self.key(rest)?,
                },
                [b'[', rest @ ..] => match self.open(Kind::Array, rest, inner)? {
                    [b']', rest @ ..] => {
                        self.close(inner)?;
                        return Ok(rest);
                    }
                    rest => rest,
                },
                rest @ [b'-' | b'0'..=b'9', ..] => return self.number(rest),
                rest => return self.literal(rest),
            }
        }
    }

    fn literal(&mut self, rest: &'b [u8]) -> Rest<'b> {
        let (value, rest) = match rest {
            [b't', b'r', b'u', b'e', rest @ ..] => (atom::true_().encode(self.env()), rest),
            [b'f', b'a', b'l', b's', b'e', rest @ ..] => (atom::false_().encode(self.env()), rest),
            [b'n', b'u', b'l', b'l', rest @ ..] => (self.options.null, rest),
            _ => return Err(Stop::Fault),
        };
        self.stack.push(value);
        Ok(rest)
    }

    #[inline(always)]
    fn open(&mut self, kind: Kind, rest: &'b [u8], inner: &mut Container) -> Rest<'b> {
        if self.outer.len() >= self.options.max_depth {
            return Err(Stop::Fault);
        }
        self.outer.push(*inner);
        *inner = Container {
            kind,
            mark: self.stack.mark(),
        };
        Ok(lex::skip_space(rest))
    }

    #[inline(always)]
    fn close(&mut self, inner: &mut Container) -> Result<(), Stop> {
        match inner.kind {
            Kind::Object => {
                if self.stack.keys_since(inner.mark) > LARGE_MAP {
                    self.watch.take_time()?;
                }
                self.stack.map(inner.mark);
            }
            _ => self.stack.list(inner.mark),
        }
        if let Some(outer) = self.outer.pop() {
            *inner = outer;
        }
        Ok(())
    }

    #[inline(always)]
    fn key(&mut self, rest: &'b [u8]) -> Rest<'b> {
        let [b'"', name @ ..] = rest else {
            return Err(Stop::Fault);
        };
        let (text, rest) = self.run(name)?;
        let rest = match rest {
            [b'"', rest @ ..] if !self.options.existing_atoms => {
                let name = Name::new(name, self.at(text), text.len());
                self.stack
                    .push_named_key(text, name, self.input.len() > REPETITIVE);
                rest
            }
            _ => self.uncommon_key(name)?,
        };
        match lex::skip_space(rest) {
            [b':', rest @ ..] => Ok(rest),
            _ => Err(Stop::Fault),
        }
    }

    /// Reads a key that has escapes or is to be an atom.
    fn uncommon_key(&mut self, name: &'b [u8]) -> Rest<'b> {
        let rest = self.unescape(name)?;
        let text = self.text.as_slice();
        let atom = match Atom::existing_from_utf8_bytes(self.env(), text) {
            _ if !self.options.existing_atoms => None,
            Ok(atom) => Some(atom.encode(self.env())),
            Err(_) if text.is_ascii() => None,
            Err(_) => big::existing_atom(self.env(), text),
        };
        let key = atom.unwrap_or_else(|| terms::binary(self.env(), text));
        self.stack.push_key(key);
        Ok(rest)
    }

    #[inline(always)]
    fn string(&mut self, input: &'b [u8]) -> Rest<'b> {
        let (text, rest) = self.run(input)?;
        let [b'"', rest @ ..] = rest else {
            let rest = self.unescape(input)?;
            self.stack.push_binary(self.text);
            return Ok(rest);
        };
        if text.len() <= HEAD {
            let name = Name::new(input, self.at(text), text.len());
            self.stack.push_named(text, name);
        } else if text.len() > COPIED && self.options.references {
            self.push_reference(text)?;
        } else {
            self.stack.push_binary(text);
        }
        Ok(rest)
    }

    fn push_reference(&mut self, text: &'b [u8]) -> Result<(), Stop> {
        let reference = self.input.make_subbinary(self.at(text), text.len());
        self.stack
            .push(reference.map_err(|_| Stop::Fault)?.to_term(self.env()));
        Ok(())
    }

    /// Splits off what stands for itself in a string.
    #[inline(always)]
    fn run(&self, input: &'b [u8]) -> Result<(&'b [u8], &'b [u8]), Stop> {
        let (count, ascii) = lex::text_run(input);
        let Some((text, rest)) = input.split_at_checked(count) else {
            return Err(Stop::Fault);
        };
        // Where there are escapes, the whole is looked at when they have been replaced.
        if !ascii && rest.first() == Some(&b'"') && std::str::from_utf8(text).is_err() {
            return Err(Stop::Fault);
        }
        Ok((text, rest))
    }

    fn unescape(&mut self, input: &'b [u8]) -> Rest<'b> {
        self.text.clear();
        let (rest, ascii) = lex::unescape(input, self.text).ok_or(Stop::Fault)?;
        if !ascii && std::str::from_utf8(self.text).is_err() {
            return Err(Stop::Fault);
        }
        Ok(rest)
    }

    #[inline(always)]
    fn number(&mut self, input: &'b [u8]) -> Rest<'b> {
        if let Some((small, rest)) = lex::small_integer(input) {
            self.stack.push(small.encode(self.env()));
            return Ok(rest);
        }
        self.watch.look()?;
        let (number, rest) = lex::number(input).ok_or(Stop::Fault)?;
        self.stack
            .push(self.uncommon_number(number).ok_or(Stop::Fault)?);
        Ok(rest)
    }

    fn uncommon_number(&self, number: Number<'_>) -> Option<Term<'a>> {
        match number.float {
            true => number.float().map(|float| float.encode(self.env())),
            false if number.text.len() > MAX_INTEGER_BYTES => None,
            false => big::from_text(self.env(), number.text),
        }
    }

    /// Where a part of the input stands in it.
    #[inline(always)]
    fn at(&self, part: &'b [u8]) -> usize {
        part.as_ptr().addr() - self.input.as_ptr().addr()
    }

    fn env(&self) -> Env<'a> {
        self.options.null.get_env()
    }
}

impl Scratch {
    /// One large document is no reason to keep much memory for good.
    fn shrink(&mut self) {
        const KEPT: usize = 1 << 18;
        self.text.clear();
        self.text.shrink_to(KEPT);
        self.stack.shrink(KEPT / size_of::<usize>());
        self.outer.shrink_to(KEPT / size_of::<Container>());
    }
}
