//! From JSON to the external term format, so that the VM has nothing to do but to read that.
//!
//! One pass, which writes as it reads: the size of a list or map is filled in at its end. It knows
//! only that something is wrong, not what: then `erlmcp_core::json` is asked.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use erlmcp_core::json::lex::{self, MAX_INTEGER_BYTES, Number};
use erlmcp_core::json::{self, Fault, Reason, big, skip_mark};

use crate::term::{Writer, tag};

/// As `erlmcp_native_json:decode/1` has it.
const MAX_DEPTH: usize = 512;

/// Up to so many names are compared each with each.
const FEW_NAMES: usize = 8;

/// Memory that is kept from one document to the next.
const KEPT: usize = 1 << 16;

/// What is wrong is not known here.
struct Invalid;

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
    /// Where its term begins.
    at: usize,
    count: u32,
    /// How many names there were before its own.
    names: usize,
}

/// A name, where it stands in the output.
#[derive(Clone, Copy)]
struct Name {
    at: usize,
    len: usize,
}

/// Writes terms of documents.
pub(crate) struct Decoder {
    out: Writer,
    outer: Vec<Container>,
    names: Vec<Name>,
    text: Vec<u8>,
}

impl Decoder {
    /// A decoder that writes behind what has been written.
    pub(crate) fn new(out: Writer) -> Self {
        Self {
            out,
            outer: Vec::new(),
            names: Vec::new(),
            text: Vec::new(),
        }
    }

    /// What has been written.
    pub(crate) fn out(&mut self) -> &mut Writer {
        &mut self.out
    }

    /// All that has been written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.out.finish()
    }

    /// Writes `{json, Term}`, or `{bad_json, {Reason, At}, Frame}`.
    pub(crate) fn item(&mut self, frame: &[u8]) {
        let begin = self.out.len();
        self.out.tuple(2).atom("json");
        if self.document(skip_mark(frame)).is_ok() {
            return;
        }
        self.out.truncate(begin);
        self.outer.clear();
        self.names.clear();
        let Fault { reason, at } = json::check(frame, MAX_DEPTH).err().unwrap_or(Fault {
            // Both follow the same grammar, so this is out of reach; a wrong position is better
            // than a wrong answer.
            reason: Reason::UnexpectedByte,
            at: 0,
        });
        self.out.tuple(3).atom("bad_json").tuple(2);
        self.out.atom(reason_name(reason)).integer(at as u64);
        self.out.binary(frame);
    }

    fn document(&mut self, input: &[u8]) -> Result<(), Invalid> {
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
        }
        let mut inner = Container {
            kind: Kind::Document,
            at: 0,
            count: 0,
            names: 0,
        };
        let mut rest = self.value(input, &mut inner)?;
        loop {
            rest = match (lex::skip_space(rest), inner.kind) {
                ([b',', rest @ ..], Kind::Array) => self.value(rest, &mut inner)?,
                ([b',', rest @ ..], Kind::Object) => {
                    let rest = self.name(lex::skip_space(rest))?;
                    self.value(rest, &mut inner)?
                }
                ([b']', rest @ ..], Kind::Array) | ([b'}', rest @ ..], Kind::Object) => {
                    self.close(&mut inner);
                    rest
                }
                ([], Kind::Document) => return Ok(()),
                _ => return Err(Invalid),
            };
        }
    }

    /// Reads a value that is a scalar or empty, after any number of opening brackets.
    fn value<'b>(
        &mut self,
        mut rest: &'b [u8],
        inner: &mut Container,
    ) -> Result<&'b [u8], Invalid> {
        loop {
            inner.count += 1;
            rest = match lex::skip_space(rest) {
                [b'"', rest @ ..] => return self.string(rest),
                [b'{', rest @ ..] => match self.open(Kind::Object, rest, inner)? {
                    [b'}', rest @ ..] => {
                        self.close(inner);
                        return Ok(rest);
                    }
                    rest => self.name(rest)?,
                },
                [b'[', rest @ ..] => match self.open(Kind::Array, rest, inner)? {
                    [b']', rest @ ..] => {
                        self.close(inner);
                        return Ok(rest);
                    }
                    rest => rest,
                },
                rest @ [b'-' | b'0'..=b'9', ..] => return self.number(rest),
                rest => return self.literal(rest),
            }
        }
    }

    fn literal<'b>(&mut self, rest: &'b [u8]) -> Result<&'b [u8], Invalid> {
        let (name, rest) = match rest {
            [b't', b'r', b'u', b'e', rest @ ..] => ("true", rest),
            [b'f', b'a', b'l', b's', b'e', rest @ ..] => ("false", rest),
            [b'n', b'u', b'l', b'l', rest @ ..] => ("null", rest),
            _ => return Err(Invalid),
        };
        self.out.atom(name);
        Ok(rest)
    }

    fn open<'b>(
        &mut self,
        kind: Kind,
        rest: &'b [u8],
        inner: &mut Container,
    ) -> Result<&'b [u8], Invalid> {
        if self.outer.len() >= MAX_DEPTH {
            return Err(Invalid);
        }
        self.outer.push(*inner);
        *inner = Container {
            kind,
            at: self.out.len(),
            count: 0,
            names: self.names.len(),
        };
        let tag = match kind {
            Kind::Object => tag::MAP,
            _ => tag::LIST,
        };
        self.out.counted(tag, 0);
        Ok(lex::skip_space(rest))
    }

    fn close(&mut self, inner: &mut Container) {
        let Container {
            kind,
            at,
            count,
            names,
        } = *inner;
        match kind {
            Kind::Object => {
                let count = if self.has_twins(names) {
                    self.last_of_twins(names, at)
                } else {
                    count
                };
                self.names.truncate(names);
                self.out.set_count(at, count);
            }
            _ if count == 0 => {
                self.out.truncate(at);
                self.out.nil();
            }
            _ => {
                self.out.set_count(at, count);
                self.out.nil();
            }
        }
        if let Some(outer) = self.outer.pop() {
            *inner = outer;
        }
    }

    fn name<'b>(&mut self, rest: &'b [u8]) -> Result<&'b [u8], Invalid> {
        let [b'"', rest @ ..] = rest else {
            return Err(Invalid);
        };
        let at = self.out.len();
        let rest = self.string(rest)?;
        let len = self.out.len() - at;
        self.names.push(Name { at, len });
        match lex::skip_space(rest) {
            [b':', rest @ ..] => Ok(rest),
            _ => Err(Invalid),
        }
    }

    fn string<'b>(&mut self, input: &'b [u8]) -> Result<&'b [u8], Invalid> {
        let (count, ascii) = lex::text_run(input);
        let (text, rest) = input.split_at_checked(count).ok_or(Invalid)?;
        if let [b'"', rest @ ..] = rest {
            if !ascii && std::str::from_utf8(text).is_err() {
                return Err(Invalid);
            }
            self.out.binary(text);
            return Ok(rest);
        }
        self.text.clear();
        let (rest, ascii) = lex::unescape(input, &mut self.text).ok_or(Invalid)?;
        if !ascii && std::str::from_utf8(&self.text).is_err() {
            return Err(Invalid);
        }
        self.out.binary(&self.text);
        Ok(rest)
    }

    fn number<'b>(&mut self, input: &'b [u8]) -> Result<&'b [u8], Invalid> {
        if let Some((small, rest)) = lex::small_integer(input) {
            self.out.signed(small);
            return Ok(rest);
        }
        let (number, rest) = lex::number(input).ok_or(Invalid)?;
        match number {
            Number { float: true, .. } => {
                self.out.float(number.float().ok_or(Invalid)?);
            }
            Number { text, .. } if text.len() <= MAX_INTEGER_BYTES => {
                let (negative, bytes) = big::bytes(text);
                self.out.big(negative, &bytes);
            }
            Number { .. } => return Err(Invalid),
        }
        Ok(rest)
    }

    fn names_since(&self, from: usize) -> &[Name] {
        self.names.get(from..).unwrap_or_default()
    }

    fn written(&self, name: &Name) -> &[u8] {
        self.out.part(name.at, name.len)
    }

    /// Whether a name comes twice in the object whose names begin at `from`.
    fn has_twins(&self, from: usize) -> bool {
        let names = self.names_since(from);
        if names.len() <= FEW_NAMES {
            return names.iter().enumerate().any(|(index, name)| {
                let others = names.iter().skip(index + 1);
                let mut same = others.filter(|other| other.len == name.len);
                same.any(|other| self.written(other) == self.written(name))
            });
        }
        let hasher = RandomState::new();
        let hash = |name: &Name| hasher.hash_one(self.written(name));
        let mut sorted: Vec<(u64, &Name)> = names.iter().map(|name| (hash(name), name)).collect();
        sorted.sort_unstable_by_key(|(hash, _)| *hash);
        let mut pairs = sorted.iter().zip(sorted.iter().skip(1));
        pairs.any(|((a, one), (b, other))| a == b && self.written(one) == self.written(other))
    }

    /// Leaves of members with the same name the last one, and says how many are left.
    fn last_of_twins(&mut self, from: usize, at: usize) -> u32 {
        let names = self.names_since(from);
        let mut last: HashMap<&[u8], usize> = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            last.insert(self.written(name), index);
        }
        let ends = names.iter().skip(1).map(|name| name.at);
        let ends = ends.chain(std::iter::once(self.out.len()));
        let mut kept = Vec::new();
        for (index, (name, end)) in names.iter().zip(ends).enumerate() {
            if last.get(self.written(name)) == Some(&index) {
                kept.extend_from_slice(self.out.part(name.at, end - name.at));
            }
        }
        let count = last.len() as u32;
        self.out.truncate(at);
        self.out.counted(tag::MAP, count).raw(&kept);
        count
    }
}

fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::UnexpectedEnd => "unexpected_end",
        Reason::UnexpectedByte => "unexpected_byte",
        Reason::InvalidUtf8 => "invalid_utf8",
        Reason::InvalidEscape => "invalid_escape",
        Reason::NumberOutOfRange => "number_out_of_range",
        Reason::DepthLimit => "depth_limit",
        Reason::BatchLimit => "batch_limit",
    }
}
