//! What the core counts, as terms.

use erlmcp_core::metrics::{Value, read, set_recording};
use rustler::{Atom, Encoder, Env, NifResult, Term};

use crate::{runtime, terms};

/// Switches the recording of histograms on or off.
#[rustler::nif]
fn metrics_recording(on: bool) -> Atom {
    set_recording(on);
    terms::ok()
}

/// `[{Name, Kind, Group, Unit, Help, Value}]`, where a value is a number, `[{Transport, Number}]`,
/// or, of a histogram, `{Sum, Largest, [{Bucket, Count}]}`.
#[rustler::nif]
fn metrics_read(env: Env<'_>) -> NifResult<Vec<Term<'_>>> {
    let atom = |name| Atom::from_str(env, name);
    read(runtime::started().as_ref())
        .into_iter()
        .map(|(said, value)| {
            let value = match value {
                Value::One(n) => n.encode(env),
                Value::Each(each) => each
                    .iter()
                    .map(|(name, n)| Ok((atom(name)?, n).encode(env)))
                    .collect::<NifResult<Vec<_>>>()?
                    .encode(env),
                Value::Recorded {
                    sum,
                    largest,
                    buckets,
                } => (sum, largest, buckets).encode(env),
            };
            Ok((
                atom(said.name)?,
                atom(said.kind.name())?,
                atom(said.group)?,
                atom(said.unit)?,
                terms::binary(env, said.help.as_bytes()),
                value,
            )
                .encode(env))
        })
        .collect()
}
