//! The calls of the VM's interface for which rustler has nothing, or nothing fast enough.
//!
//! The VM makes a list or a map from an array of terms; rustler makes lists cell by cell and maps
//! key by key, and building terms is most of the time that decoding takes. All that is unsafe
//! about JSON, but for the vector instructions, is in this module.
//!
//! What makes it sound: a [`Stack`] holds bare terms, and they are valid because a stack is
//! filled and emptied within one call of a NIF, whose environment it borrows. Its memory is
//! handed on from call to call, but never read before it has been written in the same call.

use std::mem::MaybeUninit;

use erlmcp_core::json::names::Name;
use rustler::sys::{
    ErlNifTerm, enif_get_tuple, enif_make_list_from_array, enif_make_map_from_arrays,
    enif_make_new_binary,
};
use rustler::{Env, Term};

const KNOWN_BITS: u32 = 6;

/// The memory of a stack.
#[derive(Default)]
pub(super) struct Memory {
    values: Vec<ErlNifTerm>,
    keys: Vec<ErlNifTerm>,
    known: Vec<Known>,
    /// The number of the document; 64 bits do not come round.
    document: u64,
}

/// A key that has been made for a document.
#[derive(Clone, Copy, Default)]
struct Known {
    document: u64,
    name: Name,
    key: ErlNifTerm,
}

impl Memory {
    /// Gives back what is more than this.
    pub(super) fn shrink(&mut self, kept: usize) {
        self.values.clear();
        self.values.shrink_to(kept);
        self.keys.clear();
        self.keys.shrink_to(kept);
    }
}

/// The members of all arrays and objects that have begun and not yet ended.
pub(super) struct Stack<'a, 'b> {
    env: Env<'a>,
    input: &'b [u8],
    words: &'a [ErlNifTerm],
    memory: &'b mut Memory,
}

/// How many values and keys there were when an array or object began.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    values: usize,
    keys: usize,
}

impl<'a, 'b> Stack<'a, 'b> {
    /// An empty stack. The names and strings that come up most are taken from the tuple `words`,
    /// if it is one.
    pub(super) fn new(words: Term<'a>, input: &'b [u8], memory: &'b mut Memory) -> Self {
        memory.values.clear();
        memory.keys.clear();
        memory.document += 1;
        memory.known.resize(1 << KNOWN_BITS, Known::default());
        Self {
            env: words.get_env(),
            input,
            words: elements(words),
            memory,
        }
    }

    #[inline(always)]
    pub(super) fn mark(&self) -> Mark {
        Mark {
            values: self.memory.values.len(),
            keys: self.memory.keys.len(),
        }
    }

    /// How many keys were pushed since the mark.
    pub(super) fn keys_since(&self, mark: Mark) -> usize {
        self.memory.keys.len() - mark.keys
    }

    #[inline(always)]
    pub(super) fn push(&mut self, value: Term<'a>) {
        self.memory.values.push(value.as_c_arg());
    }

    /// Pushes a string.
    #[inline(always)]
    pub(super) fn push_binary(&mut self, text: &[u8]) {
        self.memory.values.push(binary(self.env, text));
    }

    /// Pushes a string that may be one of the words.
    #[inline(always)]
    pub(super) fn push_named(&mut self, text: &[u8], name: Name) {
        let word = name
            .word(text)
            .and_then(|index| self.words.get(index).copied());
        self.memory
            .values
            .push(word.unwrap_or_else(|| binary(self.env, text)));
    }

    /// Pushes a key.
    #[inline(always)]
    pub(super) fn push_key(&mut self, key: Term<'a>) {
        self.memory.keys.push(key.as_c_arg());
    }

    /// Pushes a key that may be one of the words, or else, where `again`, one that has been
    /// pushed before.
    #[inline(always)]
    pub(super) fn push_named_key(&mut self, text: &[u8], name: Name, again: bool) {
        let word = name
            .word(text)
            .and_then(|index| self.words.get(index).copied());
        let key = match word {
            Some(word) => word,
            None if again => self.known(text, name),
            None => binary(self.env, text),
        };
        self.memory.keys.push(key);
    }

    #[inline(always)]
    fn known(&mut self, text: &[u8], name: Name) -> ErlNifTerm {
        let Memory {
            known, document, ..
        } = &mut *self.memory;
        let Some(known) = known.get_mut(name.place(KNOWN_BITS)) else {
            return binary(self.env, text);
        };
        if known.document != *document || !known.name.is_same(&name, self.input) {
            *known = Known {
                document: *document,
                name,
                key: binary(self.env, text),
            };
        }
        known.key
    }

    /// Replaces what was pushed since the mark by a list of it.
    pub(super) fn list(&mut self, mark: Mark) {
        let values = self.memory.values.get(mark.values..).unwrap_or_default();
        // SAFETY: the pointer and the length are those of a slice of terms of this environment.
        // The length fits: an input has at most half as many values as bytes, and no input of
        // more than 4 GiB comes here.
        let list = unsafe {
            let count = values.len() as u32;
            enif_make_list_from_array(self.env.as_c_arg(), values.as_ptr(), count)
        };
        self.memory.values.truncate(mark.values);
        self.memory.values.push(list);
    }

    /// Replaces the keys and values that were pushed since the mark by a map of them. Of equal
    /// keys the last one counts.
    pub(super) fn map(&mut self, mark: Mark) {
        let keys = self.memory.keys.get(mark.keys..).unwrap_or_default();
        let values = self.memory.values.get(mark.values..).unwrap_or_default();
        let map = map_of(self.env, keys, values).or_else(|| {
            let (keys, values) = last_of_equal(self.env, keys, values);
            map_of(self.env, &keys, &values)
        });
        self.memory.values.truncate(mark.values);
        self.memory.keys.truncate(mark.keys);
        self.memory.values.extend(map);
    }

    /// Takes the value on top.
    pub(super) fn pop(&mut self) -> Option<Term<'a>> {
        // SAFETY: what is on the stack are terms of this environment.
        self.memory
            .values
            .pop()
            .map(|value| unsafe { Term::new(self.env, value) })
    }
}

/// The map of these keys and values; `None` where two keys are equal.
#[inline(always)]
fn map_of(env: Env<'_>, keys: &[ErlNifTerm], values: &[ErlNifTerm]) -> Option<ErlNifTerm> {
    let count = keys.len().min(values.len());
    let mut map = MaybeUninit::uninit();
    // SAFETY: both arrays have at least `count` terms of this environment, and the map is set
    // where the call does not fail.
    unsafe {
        let (env, to) = (env.as_c_arg(), map.as_mut_ptr());
        let made = enif_make_map_from_arrays(env, keys.as_ptr(), values.as_ptr(), count, to);
        (made != 0).then(|| map.assume_init())
    }
}

/// The keys and values without those whose key comes again.
///
/// Putting all of them into a map one after the other would be simpler, but each of these maps is
/// garbage, and that of a large object is many times the size of the document.
fn last_of_equal(
    env: Env<'_>,
    keys: &[ErlNifTerm],
    values: &[ErlNifTerm],
) -> (Vec<ErlNifTerm>, Vec<ErlNifTerm>) {
    // SAFETY: the keys are terms of this environment.
    let term = |key: &ErlNifTerm| unsafe { Term::new(env, *key) };
    let mut pairs: Vec<_> = keys.iter().zip(values).collect();
    // The order of those with equal keys stays.
    pairs.sort_by(|(a, _), (b, _)| term(a).cmp(&term(b)));
    pairs.reverse();
    pairs.dedup_by(|(a, _), (b, _)| term(a) == term(b));
    pairs.into_iter().unzip()
}

#[inline(always)]
fn binary(env: Env<'_>, bytes: &[u8]) -> ErlNifTerm {
    let mut term = MaybeUninit::uninit();
    // SAFETY: the call sets the term and returns as many bytes as it is asked for; it ends the
    // VM where there is no memory.
    unsafe {
        let data = enif_make_new_binary(env.as_c_arg(), bytes.len(), term.as_mut_ptr());
        data.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        term.assume_init()
    }
}

/// The elements of a tuple; none where the term is not a tuple.
fn elements(term: Term<'_>) -> &[ErlNifTerm] {
    let mut count = 0;
    let mut first = std::ptr::null();
    // SAFETY: where the call says that the term is a tuple, it sets the pointer to that many
    // terms, which live as long as the environment. The pointer to those of an empty tuple is
    // not null either.
    unsafe {
        match enif_get_tuple(
            term.get_env().as_c_arg(),
            term.as_c_arg(),
            &mut count,
            &mut first,
        ) {
            0 => &[],
            _ => std::slice::from_raw_parts(first, usize::try_from(count).unwrap_or(0)),
        }
    }
}
