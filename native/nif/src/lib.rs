//! The NIF library of `erlmcp_native`: `erlmcp_core` in terms of the BEAM.

mod json;

rustler::init!("erlmcp_native_nif");
