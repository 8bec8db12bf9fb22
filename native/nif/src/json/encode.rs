//! From terms to a document.

use std::cell::RefCell;
use std::io::Write;

use erlmcp_core::json::lex::MAX_INTEGER_BYTES;
use erlmcp_core::json::write;
use rustler::types::atom;
use rustler::{Atom, Binary, Encoder, Env, MapIterator, Term, TermType};

use super::{Late, Watch, atoms, big};
use crate::terms;

/// A string of this size that needs no escapes is referred to and not copied, where the result
/// may be in pieces.
const REFERRED: usize = 4096;

/// How a term is to be encoded.
pub(super) struct Options<'a> {
    /// What is written as null, beside the atom of that name.
    pub(super) null: Term<'a>,
    /// Whether the result may be a list of binaries.
    pub(super) pieces: bool,
}

/// Why there is no document.
pub(super) enum Stop<'a> {
    /// This term cannot be encoded.
    Refused(Atom, Term<'a>),
    /// Time is up.
    Late,
}

impl From<Late> for Stop<'_> {
    fn from(_: Late) -> Self {
        Self::Late
    }
}

/// What is left of a list or a map.
#[expect(
    clippy::large_enum_variant,
    reason = "a box would cost an allocation for each map"
)]
enum Container<'a> {
    List(Term<'a>),
    Map(MapIterator<'a>),
}

thread_local! {
    static OUTPUT: RefCell<Vec<u8>> = RefCell::default();
}

struct Writer<'a, 'b> {
    options: &'b Options<'a>,
    open: Vec<Container<'a>>,
    /// Whether nothing has been written yet in the innermost container.
    fresh: bool,
    pieces: Vec<Term<'a>>,
    output: &'b mut Vec<u8>,
    watch: &'b mut Watch,
}

/// Writes the document of a term.
pub(super) fn encode<'a>(
    term: Term<'a>,
    options: &Options<'a>,
    watch: &mut Watch,
) -> Result<Term<'a>, Stop<'a>> {
    OUTPUT.with_borrow_mut(|output| {
        output.clear();
        let (open, pieces) = (Vec::new(), Vec::new());
        let mut writer = Writer {
            options,
            open,
            fresh: true,
            pieces,
            output,
            watch,
        };
        let result = writer
            .document(term)
            .map(|()| writer.result(term.get_env()));
        // One large document is no reason to keep much memory for good.
        output.clear();
        output.shrink_to(1 << 18);
        result
    })
}

type Written<'a> = Result<(), Stop<'a>>;

impl<'a> Writer<'a, '_> {
    fn document(&mut self, term: Term<'a>) -> Written<'a> {
        self.value(term)?;
        while let Some(container) = self.open.last_mut() {
            self.watch.tick()?;
            match container {
                Container::List(rest) => match rest.list_get_cell() {
                    Ok((head, tail)) => {
                        *rest = tail;
                        self.comma();
                        self.value(head)?;
                    }
                    Err(_) => self.end_of_list()?,
                },
                Container::Map(members) => match members.next() {
                    Some((key, value)) => self.member(key, value)?,
                    None => self.close(b'}'),
                },
            }
        }
        Ok(())
    }

    fn comma(&mut self) {
        if !self.fresh {
            self.output.push(b',');
        }
        self.fresh = false;
    }

    fn member(&mut self, key: Term<'a>, value: Term<'a>) -> Written<'a> {
        self.comma();
        match key.get_type() {
            TermType::Atom => self.atom_text(key)?,
            TermType::Binary if key.is_binary() => self.string(key)?,
            TermType::Integer => {
                self.output.push(b'"');
                self.integer(key)?;
                self.output.push(b'"');
            }
            _ => return Err(Stop::Refused(atoms::unsupported_key(), key)),
        }
        self.output.push(b':');
        self.value(value)
    }

    fn value(&mut self, term: Term<'a>) -> Written<'a> {
        match term.get_type() {
            TermType::Atom => self.atom(term),
            TermType::Integer => self.integer(term),
            TermType::Float => self.float(term),
            TermType::List => {
                self.open(b'[', Container::List(term));
                Ok(())
            }
            TermType::Map => match MapIterator::new(term) {
                Some(members) => {
                    self.open(b'{', Container::Map(members));
                    Ok(())
                }
                None => Err(Stop::Refused(atoms::unsupported(), term)),
            },
            TermType::Binary => self.string(term),
            _ => Err(Stop::Refused(atoms::unsupported(), term)),
        }
    }

    fn open(&mut self, bracket: u8, container: Container<'a>) {
        self.output.push(bracket);
        self.open.push(container);
        self.fresh = true;
    }

    fn close(&mut self, bracket: u8) {
        self.output.push(bracket);
        self.open.pop();
        self.fresh = false;
    }

    fn end_of_list(&mut self) -> Written<'a> {
        match self.open.last() {
            Some(Container::List(rest)) if !rest.is_empty_list() => {
                Err(Stop::Refused(atoms::improper_list(), *rest))
            }
            _ => {
                self.close(b']');
                Ok(())
            }
        }
    }

    fn atom(&mut self, term: Term<'a>) -> Written<'a> {
        let word: &[u8] = if atoms::null() == term || self.options.null == term {
            b"null"
        } else if atom::true_() == term {
            b"true"
        } else if atom::false_() == term {
            b"false"
        } else {
            return self.atom_text(term);
        };
        self.output.extend_from_slice(word);
        Ok(())
    }

    fn atom_text(&mut self, term: Term<'a>) -> Written<'a> {
        let refused = Stop::Refused(atoms::unsupported(), term);
        match term.atom_to_string() {
            Ok(text) => write::write_string(text.as_bytes(), self.output),
            Err(_) => {
                let text = big::atom_text(term).ok_or(refused)?;
                write::write_string(&text, self.output)
            }
        };
        Ok(())
    }

    fn integer(&mut self, term: Term<'a>) -> Written<'a> {
        // Writing to memory cannot fail.
        if let Ok(small) = term.decode::<i64>() {
            let _ = write!(self.output, "{small}");
            return Ok(());
        }
        self.watch.look()?;
        let refused = Stop::Refused(atoms::number_out_of_range(), term);
        let text = big::to_text(term, MAX_INTEGER_BYTES).ok_or(refused)?;
        self.output.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn float(&mut self, term: Term<'a>) -> Written<'a> {
        let refused = Stop::Refused(atoms::unsupported(), term);
        write::write_float(term.decode().map_err(|_| refused)?, self.output);
        Ok(())
    }

    fn string(&mut self, term: Term<'a>) -> Written<'a> {
        let Ok(text) = term.decode::<Binary<'a>>() else {
            return Err(Stop::Refused(atoms::unsupported(), term));
        };
        self.watch.spend(text.len())?;
        if self.options.pieces && text.len() >= REFERRED && write::is_plain(&text) {
            self.output.push(b'"');
            self.flush(term.get_env());
            self.pieces.push(term);
            self.output.push(b'"');
            return Ok(());
        }
        match write::write_string(&text, self.output) {
            true => Ok(()),
            false => Err(Stop::Refused(atoms::invalid_utf8(), term)),
        }
    }

    /// Makes a piece of what has been written since the last one.
    fn flush(&mut self, env: Env<'a>) {
        self.pieces.push(terms::binary(env, self.output));
        self.output.clear();
    }

    fn result(&mut self, env: Env<'a>) -> Term<'a> {
        if self.pieces.is_empty() {
            return terms::binary(env, self.output);
        }
        self.flush(env);
        self.pieces.encode(env)
    }
}
