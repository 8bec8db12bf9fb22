//! JSON between binaries and terms.
//!
//! A call that may take long is made on a dirty scheduler. Whether one will is not known from the
//! size alone, so calls on a normal scheduler are watched: one that takes too long gives up with
//! `late`, and the caller repeats it on a dirty one.

mod big;
mod decode;
mod encode;
mod envelope;
mod look;
mod names;
mod text;
mod vm;

use erlmcp_core::scan::{self, Fault, Reason};
use rustler::types::tuple::make_tuple;
use rustler::{Atom, Binary, Encoder, Env, Error, NewBinary, NifResult, Term};
use std::time::{Duration, Instant};

/// How long a call may take on a normal scheduler. The VM wants a call back within one
/// millisecond; half of it leaves room for the step that goes beyond.
const PATIENCE: Duration = Duration::from_micros(500);

/// How many steps there are between two looks at the clock.
const STEPS: u32 = 1024;

/// How many bytes of strings are written on a normal scheduler.
const DIRECT_BYTES: usize = 1 << 18;

/// From this size on a call counts as work for the scheduler.
const NOTICEABLE: usize = 4096;

mod atoms {
    rustler::atoms! {
        ok,
        error,
        late,
        null,
        unexpected_end,
        unexpected_byte,
        invalid_utf8,
        invalid_escape,
        number_out_of_range,
        depth_limit,
        batch_limit,
        unsupported,
        unsupported_key,
        improper_list,
    }
}

/// Time is up.
struct Late;

/// Keeps an eye on the time.
struct Watch {
    patient: bool,
    since: Option<Instant>,
    steps: u32,
    bytes: usize,
}

impl Watch {
    /// For a dirty scheduler.
    fn patient() -> Self {
        Self { patient: true, since: None, steps: STEPS, bytes: usize::MAX }
    }

    /// For a normal scheduler.
    fn impatient() -> Self {
        Self { patient: false, since: None, steps: STEPS, bytes: DIRECT_BYTES }
    }

    /// Counts one step.
    #[inline(always)]
    fn tick(&mut self) -> Result<(), Late> {
        self.steps = self.steps.wrapping_sub(1);
        if self.steps == 0 { self.look() } else { Ok(()) }
    }

    /// Looks at the clock, from the second time on: the clock starts when it is first needed,
    /// because most calls are over before.
    #[cold]
    fn look(&mut self) -> Result<(), Late> {
        self.steps = STEPS;
        match self.since {
            Some(since) if !self.patient && since.elapsed() > PATIENCE => Err(Late),
            Some(_) => Ok(()),
            None => {
                self.since = Some(Instant::now());
                Ok(())
            }
        }
    }

    /// Announces work in proportion to a size.
    #[inline(always)]
    fn spend(&mut self, bytes: usize) -> Result<(), Late> {
        match self.bytes.checked_sub(bytes) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => self.take_time(),
        }
    }

    /// Announces a step that takes long.
    fn take_time(&self) -> Result<(), Late> {
        if self.patient { Ok(()) } else { Err(Late) }
    }
}

/// The tuple of terms that saves decoding from making the most frequent ones anew.
#[rustler::nif]
fn json_words(env: Env<'_>) -> Term<'_> {
    let words = names::WORDS.map(|word| NewBinary::from_slice(env, word.as_bytes()).into());
    make_tuple(env, &words)
}

/// Decodes with the default options on a normal scheduler.
#[rustler::nif(name = "json_decode")]
fn json_decode_default<'a>(env: Env<'a>, input: Binary<'a>, words: Term<'a>) -> NifResult<Term<'a>> {
    let null = atoms::null().encode(env);
    decode_direct(env, input, words, null, false, false, 512)
}

/// Decodes on a normal scheduler.
#[rustler::nif(name = "json_decode")]
fn json_decode<'a>(
    env: Env<'a>,
    input: Binary<'a>,
    words: Term<'a>,
    null: Term<'a>,
    existing_atoms: bool,
    references: bool,
    max_depth: usize,
) -> NifResult<Term<'a>> {
    let options = decode::Options { words, null, existing_atoms, references, max_depth };
    accounted(env, input.len(), || decoded(env, input, &options, Watch::impatient()))
}

/// Decodes on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn json_decode_dirty<'a>(
    env: Env<'a>,
    input: Binary<'a>,
    words: Term<'a>,
    null: Term<'a>,
    existing_atoms: bool,
    references: bool,
    max_depth: usize,
) -> NifResult<Term<'a>> {
    let options = decode::Options { words, null, existing_atoms, references, max_depth };
    decoded(env, input, &options, Watch::patient())
}
