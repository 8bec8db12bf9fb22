//! JSON between binaries and terms.
//!
//! A call that may take long is made on a dirty scheduler. Whether one will is not known from the
//! size alone, so calls on a normal scheduler are watched: one that takes too long gives up with
//! `late`, and the caller repeats it on a dirty one.

mod big;
mod decode;
mod encode;
mod envelope;
mod vm;

use std::time::{Duration, Instant};

use erlmcp_core::json::names::WORDS;
use erlmcp_core::json::{self, Fault, Reason};
use rustler::types::tuple::make_tuple;
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Term};

use crate::terms;

/// How long a call may take on a normal scheduler. The VM wants a call back within one
/// millisecond; half of it leaves room for the step that goes beyond.
const PATIENCE: Duration = Duration::from_micros(500);

/// How many steps there are between two looks at the clock.
const STEPS: u32 = 1024;

/// How many bytes of strings are written on a normal scheduler: about 50 microseconds' worth.
const DIRECT_BYTES: usize = 1 << 18;

/// From this size of a document, or from so many steps, on a call counts as work for the
/// scheduler. The VM counts a call as one of 4,000 in a process's turn, which is to last about a
/// millisecond.
const NOTICEABLE: usize = 1024;
const NOTICEABLE_STEPS: u32 = 64;

/// How many steps and bytes of encoding take a microsecond, roughly.
const STEPS_PER_US: u32 = 32;
const BYTES_PER_US: usize = 8192;

mod atoms {
    rustler::atoms! {
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
    looks: u32,
    bytes: usize,
}

impl Watch {
    /// For a dirty scheduler.
    fn patient() -> Self {
        Self {
            patient: true,
            since: None,
            steps: STEPS,
            looks: 0,
            bytes: usize::MAX,
        }
    }

    /// For a normal scheduler.
    fn impatient() -> Self {
        Self {
            patient: false,
            since: None,
            steps: STEPS,
            looks: 0,
            bytes: DIRECT_BYTES,
        }
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
        self.looks += 1;
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

    /// Tells the scheduler of work that took more than a moment. It is estimated: most documents
    /// are written in less time than it takes to look at the clock twice.
    fn account(&self, env: Env<'_>) {
        if self.patient {
            return;
        }
        let steps = self.looks * STEPS + (STEPS - self.steps);
        let bytes = DIRECT_BYTES - self.bytes;
        let us = steps / STEPS_PER_US + (bytes / BYTES_PER_US) as u32;
        if steps >= NOTICEABLE_STEPS || us > 0 {
            consume(env, us.into());
        }
    }

    /// Announces a step that takes long.
    fn take_time(&self) -> Result<(), Late> {
        if self.patient { Ok(()) } else { Err(Late) }
    }
}

/// Tells the scheduler of a call that took more than a moment.
fn accounted<T>(env: Env<'_>, size: usize, call: impl FnOnce() -> T) -> T {
    if size < NOTICEABLE {
        return call();
    }
    let since = Instant::now();
    let result = call();
    consume(env, since.elapsed().as_micros());
    result
}

fn consume(env: Env<'_>, us: u128) {
    let percent = i32::try_from((us / 10).clamp(1, 100)).unwrap_or(100);
    rustler::schedule::consume_timeslice(env, percent);
}

/// The tuple of terms that saves decoding from making the most frequent ones anew.
#[rustler::nif]
fn json_words(env: Env<'_>) -> Term<'_> {
    make_tuple(env, &WORDS.map(|word| terms::binary(env, word.as_bytes())))
}

/// Decodes on a normal scheduler.
#[rustler::nif]
fn json_decode<'a>(
    env: Env<'a>,
    input: Binary<'a>,
    words: Term<'a>,
    null: Term<'a>,
    existing_atoms: bool,
    references: bool,
    max_depth: usize,
) -> NifResult<Term<'a>> {
    let options = decode::Options {
        words,
        null,
        existing_atoms,
        references,
        max_depth,
    };
    accounted(env, input.len(), || {
        decoded(env, input, &options, Watch::impatient())
    })
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
    let options = decode::Options {
        words,
        null,
        existing_atoms,
        references,
        max_depth,
    };
    decoded(env, input, &options, Watch::patient())
}

fn decoded<'a>(
    env: Env<'a>,
    input: Binary<'a>,
    options: &decode::Options<'a>,
    watch: Watch,
) -> NifResult<Term<'a>> {
    // Positions and counts have 32 bits.
    u32::try_from(input.len()).map_err(|_| Error::BadArg)?;
    Ok(match decode::decode(input, options, watch) {
        Ok(term) => (terms::ok(), term).encode(env),
        Err(decode::Stop::Late) => atoms::late().encode(env),
        Err(decode::Stop::Fault) => match json::check(&input, options.max_depth) {
            Err(fault) => faulty(env, fault),
            // Both follow the same grammar, so this is out of reach; a wrong position is better
            // than a wrong answer.
            Ok(()) => faulty(
                env,
                Fault {
                    reason: Reason::UnexpectedByte,
                    at: 0,
                },
            ),
        },
    })
}

/// Encodes on a normal scheduler.
#[rustler::nif]
fn json_encode<'a>(env: Env<'a>, term: Term<'a>, null: Term<'a>, pieces: bool) -> Term<'a> {
    encoded(env, term, null, pieces, Watch::impatient())
}

/// Encodes on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn json_encode_dirty<'a>(env: Env<'a>, term: Term<'a>, null: Term<'a>, pieces: bool) -> Term<'a> {
    encoded(env, term, null, pieces, Watch::patient())
}

fn encoded<'a>(
    env: Env<'a>,
    term: Term<'a>,
    null: Term<'a>,
    pieces: bool,
    mut watch: Watch,
) -> Term<'a> {
    let result = encode::encode(term, &encode::Options { null, pieces }, &mut watch);
    watch.account(env);
    match result {
        Ok(document) => (terms::ok(), document).encode(env),
        Err(encode::Stop::Late) => atoms::late().encode(env),
        Err(encode::Stop::Refused(reason, term)) => (terms::error(), (reason, term)).encode(env),
    }
}

/// Reads envelopes on a normal scheduler; the caller sees to the size.
#[rustler::nif]
fn json_scan<'a>(
    env: Env<'a>,
    input: Binary<'a>,
    max_depth: usize,
    max_batch: usize,
) -> NifResult<Term<'a>> {
    accounted(env, input.len(), || {
        envelope::scan(env, input, max_depth, max_batch)
    })
}

/// Reads envelopes on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn json_scan_dirty<'a>(
    env: Env<'a>,
    input: Binary<'a>,
    max_depth: usize,
    max_batch: usize,
) -> NifResult<Term<'a>> {
    envelope::scan(env, input, max_depth, max_batch)
}

fn faulty(env: Env<'_>, fault: Fault) -> Term<'_> {
    (terms::error(), (reason(fault.reason), fault.at)).encode(env)
}

fn reason(reason: Reason) -> Atom {
    match reason {
        Reason::UnexpectedEnd => atoms::unexpected_end(),
        Reason::UnexpectedByte => atoms::unexpected_byte(),
        Reason::InvalidUtf8 => atoms::invalid_utf8(),
        Reason::InvalidEscape => atoms::invalid_escape(),
        Reason::NumberOutOfRange => atoms::number_out_of_range(),
        Reason::DepthLimit => atoms::depth_limit(),
        Reason::BatchLimit => atoms::batch_limit(),
    }
}
