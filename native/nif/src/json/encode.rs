//! From terms to a document.

use super::vm::{Members, is_empty_tuple, pair};
use super::{Late, Watch, atoms, big, text};
use erlmcp_core::scan::lex::MAX_INTEGER_BYTES;
use rustler::types::atom;
use rustler::{Atom, Binary, Encoder, Env, NewBinary, Term, TermType};
use std::cell::RefCell;
use std::io::Write;

/// A string of this size that needs no escapes is referred to and not copied, where the result
/// may be in pieces.
const REFERRED: usize = 4096;

/// How a term is to be encoded.
pub(super) struct Options {
    /// Whether the result may be a list of binaries.
    pub(super) pieces: bool,
    /// Whether bytes that are not UTF-8 are replaced.
    pub(super) replace: bool,
    pub(super) max_depth: usize,
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

/// What is left of a list, a map or a list of pairs.
enum Container<'a> {
    List(Term<'a>),
    Map(Members<'a>),
    Pairs(Term<'a>),
}

thread_local! {
    static OUTPUT: RefCell<Vec<u8>> = RefCell::default();
}

struct Writer<'a, 'b> {
    options: &'b Options,
    open: Vec<Container<'a>>,
    /// Whether nothing has been written yet in the innermost container.
    fresh: bool,
    pieces: Vec<Term<'a>>,
    output: &'b mut Vec<u8>,
    watch: Watch,
}

/// Writes the document of a term.
pub(super) fn encode<'a>(
    term: Term<'a>,
    options: &Options,
    watch: Watch,
) -> Result<Term<'a>, Stop<'a>> {
    OUTPUT.with_borrow_mut(|output| {
        output.clear();
        let (open, pieces) = (Vec::new(), Vec::new());
        let mut writer = Writer { options, open, fresh: true, pieces, output, watch };
        let result = writer.document(term).map(|()| writer.result(term.get_env()));
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
                    Err(_) => self.end_of_list(b']')?,
                },
                Container::Map(members) => match members.next() {
                    Some((key, value)) => self.member(key, value)?,
                    None => self.close(b'}'),
                },
                Container::Pairs(rest) => match rest.list_get_cell() {
                    Ok((head, tail)) => {
                        *rest = tail;
                        let unsupported = Stop::Refused(atoms::unsupported(), head);
                        let (key, value) = pair(head).ok_or(unsupported)?;
                        self.member(key, value)?;
                    }
                    Err(_) => self.end_of_list(b'}')?,
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
            TermType::Binary => match key.decode::<Binary<'a>>() {
                Ok(text) => self.string(text)?,
                Err(_) => return Err(Stop::Refused(atoms::unsupported_key(), key)),
            },
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
            TermType::List => self.list(term),
            TermType::Map => match Members::of(term) {
                Some(members) => self.open(b'{', term, Container::Map(members)),
                None => Err(Stop::Refused(atoms::unsupported(), term)),
            },
            TermType::Binary => match term.decode::<Binary<'a>>() {
                Ok(text) => self.string(text),
                Err(_) => Err(Stop::Refused(atoms::unsupported(), term)),
            },
            _ => Err(Stop::Refused(atoms::unsupported(), term)),
        }
    }

    fn list(&mut self, term: Term<'a>) -> Written<'a> {
        match term.list_get_cell() {
            Ok((head, _)) if pair(head).is_some() => {
                self.open(b'{', term, Container::Pairs(term))
            }
            // How jsx writes the empty object, which as a list of pairs would be an array.
            Ok((head, tail)) if is_empty_tuple(head) && tail.is_empty_list() => {
                self.open(b'{', term, Container::Pairs(tail))
            }
            _ => self.open(b'[', term, Container::List(term)),
        }
    }

    fn open(&mut self, bracket: u8, term: Term<'a>, container: Container<'a>) -> Written<'a> {
        if self.open.len() >= self.options.max_depth {
            return Err(Stop::Refused(atoms::depth_limit(), term));
        }
        self.output.push(bracket);
        self.open.push(container);
        self.fresh = true;
        Ok(())
    }

    fn close(&mut self, bracket: u8) {
        self.output.push(bracket);
        self.open.pop();
        self.fresh = false;
    }

    fn end_of_list(&mut self, bracket: u8) -> Written<'a> {
        match self.open.last() {
            Some(Container::List(rest) | Container::Pairs(rest)) if !rest.is_empty_list() => {
                Err(Stop::Refused(atoms::improper_list(), *rest))
            }
            _ => {
                self.close(bracket);
                Ok(())
            }
        }
    }

    fn atom(&mut self, term: Term<'a>) -> Written<'a> {
        let word: &[u8] = if atom::true_() == term {
            b"true"
        } else if atom::false_() == term {
            b"false"
        } else if atoms::null() == term {
            b"null"
        } else {
            return self.atom_text(term);
        };
        self.output.extend_from_slice(word);
        Ok(())
    }

    fn atom_text(&mut self, term: Term<'a>) -> Written<'a> {
        let refused = Stop::Refused(atoms::unsupported(), term);
        match term.atom_to_string() {
            Ok(text) => text::write_string(text.as_bytes(), false, self.output),
            Err(_) => {
                let text = big::atom_text(term).ok_or(refused)?;
                text::write_string(&text, false, self.output)
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
        text::write_float(term.decode().map_err(|_| refused)?, self.output);
        Ok(())
    }

    fn string(&mut self, text: Binary<'a>) -> Written<'a> {
        self.watch.spend(text.len())?;
        if self.options.pieces && text.len() >= REFERRED && text::is_plain(&text) {
            self.output.push(b'"');
            self.flush(text.get_env());
            self.pieces.push(text.to_term(text.get_env()));
            self.output.push(b'"');
            return Ok(());
        }
        match text::write_string(&text, self.options.replace, self.output) {
            true => Ok(()),
            false => {
                Err(Stop::Refused(atoms::invalid_utf8(), text.to_term(text.get_env())))
            }
        }
    }

    /// Makes a piece of what has been written since the last one.
    fn flush(&mut self, env: Env<'a>) {
        self.pieces.push(NewBinary::from_slice(env, self.output).into());
        self.output.clear();
    }

    fn result(&mut self, env: Env<'a>) -> Term<'a> {
        if self.pieces.is_empty() {
            return NewBinary::from_slice(env, self.output).into();
        }
        self.flush(env);
        self.pieces.encode(env)
    }
}
