//! The NIF library of `erlmcp_native`: `erlmcp_core` in terms of the BEAM.
//!
//! Only this crate knows terms. No call blocks, nothing is sent from a scheduler thread but by
//! the VM's own means, and resources close what they hold when they are collected.

mod connection;
mod http_client;
mod http_exchange;
mod http_server;
mod http_terms;
mod json;
mod listener;
mod log;
mod message;
mod metrics;
mod options;
mod reason;
mod runtime;
mod sink;
mod terms;

use rustler::{Env, Term};

fn load(env: Env<'_>, _info: Term<'_>) -> bool {
    env.register::<connection::ConnectionResource>().is_ok()
        && env.register::<connection::Block>().is_ok()
        && env.register::<listener::ListenerResource>().is_ok()
        && env.register::<http_client::ClientResource>().is_ok()
        && env.register::<http_server::ServerResource>().is_ok()
        && env.register::<http_exchange::ExchangeResource>().is_ok()
}

rustler::init!("erlmcp_native_nif", load = load);
