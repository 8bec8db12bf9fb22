//! The core's counters as terms.

use erlmcp_core::metrics::{ALL, Kind};
use rustler::{Atom, Encoder, Env, NifResult, Term};

use crate::terms;

/// `[{Name, counter | gauge, Help, Value}]`.
#[rustler::nif]
fn metrics_read(env: Env<'_>) -> NifResult<Vec<Term<'_>>> {
    ALL.iter()
        .map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => terms::counter(),
                Kind::Gauge => terms::gauge(),
            };
            let help = terms::binary(env, metric.help.as_bytes());
            Ok((Atom::from_str(env, metric.name)?, kind, help, metric.get()).encode(env))
        })
        .collect()
}
