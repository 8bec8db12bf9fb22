//! HTTP exchanges as resources of the processes that serve.

use bytes::Bytes;
use erlmcp_core::Error;
use erlmcp_core::http::{Body, Exchange, Notice, OnGone, Receiver, Request};
use rustler::{
    Atom, Encoder, Env, ListIterator, LocalPid, Monitor, NifResult, Resource, ResourceArc, Term,
};

use crate::sink::{next_id, send};
use crate::{http_terms, reason, terms};

/// An exchange. Its process ends or it is collected: it is answered for.
pub(crate) struct ExchangeResource {
    pub(crate) id: u64,
    exchange: Exchange,
}

impl Resource for ExchangeResource {
    const IMPLEMENTS_DOWN: bool = true;

    /// Others may hold the exchange still: the logger, when the process has crashed in a call.
    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.exchange.abandon();
    }
}

mod atoms {
    rustler::atoms! { body, body_too_large, exit, gone, notice, timeout, waiting }
}

/// Notices go to the process that serves. An exit signal only an Erlang process can send, so that
/// is asked of the acceptor.
struct Process {
    id: u64,
    pid: LocalPid,
    acceptor: LocalPid,
}

impl Receiver for Process {
    fn tell(&self, notice: Notice) {
        let io = terms::erlmcp_native_io();
        match notice {
            Notice::Body => send(&self.pid, (io, self.id, atoms::body())),
            Notice::Writable => send(&self.pid, (io, self.id, terms::writable())),
            Notice::Gone => send(&self.pid, (io, self.id, atoms::gone())),
            Notice::Exit => send(&self.acceptor, (io, atoms::gone(), self.pid)),
        }
    }
}

impl ExchangeResource {
    /// Makes the process the receiver of notices. `None` when the client is gone already.
    pub(crate) fn take(
        exchange: Exchange,
        pid: LocalPid,
        acceptor: LocalPid,
    ) -> Option<(Self, Request)> {
        let id = next_id();
        let request = exchange.take(Box::new(Process { id, pid, acceptor }))?;
        Some((Self { id, exchange }, *request))
    }
}

fn result<'a>(env: Env<'a>, result: Result<(), Error>) -> Term<'a> {
    match result {
        Ok(()) => terms::ok().encode(env),
        Err(error) => (terms::error(), reason::term(env, error)).encode(env),
    }
}

#[rustler::nif]
fn http_body<'a>(env: Env<'a>, resource: ResourceArc<ExchangeResource>) -> Term<'a> {
    let error = match resource.exchange.body() {
        Body::Complete(bytes) => return (terms::ok(), http_terms::binary(env, bytes)).encode(env),
        Body::Waiting => return atoms::waiting().encode(env),
        Body::TooLarge => atoms::body_too_large(),
        Body::Timeout => atoms::timeout(),
        Body::Closed => terms::closed(),
    };
    (terms::error(), error).encode(env)
}

#[rustler::nif]
fn http_reply<'a>(
    env: Env<'a>,
    resource: ResourceArc<ExchangeResource>,
    status: u16,
    headers: ListIterator<'a>,
    body: Term<'a>,
) -> NifResult<Term<'a>> {
    reply(env, &resource, status, headers, body)
}

/// The same for bodies whose copying would hold a scheduler for too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn http_reply_large<'a>(
    env: Env<'a>,
    resource: ResourceArc<ExchangeResource>,
    status: u16,
    headers: ListIterator<'a>,
    body: Term<'a>,
) -> NifResult<Term<'a>> {
    reply(env, &resource, status, headers, body)
}

fn reply<'a>(
    env: Env<'a>,
    resource: &ExchangeResource,
    status: u16,
    headers: ListIterator<'a>,
    body: Term<'a>,
) -> NifResult<Term<'a>> {
    let status = http_terms::status(status)?;
    let headers = http_terms::headers(headers)?;
    let body: Bytes = http_terms::bytes(body)?;
    Ok(result(env, resource.exchange.reply(status, headers, body)))
}

#[rustler::nif]
fn http_stream<'a>(
    env: Env<'a>,
    resource: ResourceArc<ExchangeResource>,
    status: u16,
    headers: ListIterator<'a>,
) -> NifResult<Term<'a>> {
    let status = http_terms::status(status)?;
    let headers = http_terms::headers(headers)?;
    Ok(result(env, resource.exchange.stream(status, headers)))
}

#[rustler::nif]
fn http_send<'a>(
    env: Env<'a>,
    resource: ResourceArc<ExchangeResource>,
    data: Term<'a>,
) -> NifResult<Term<'a>> {
    Ok(result(
        env,
        resource.exchange.send(http_terms::bytes(data)?),
    ))
}

/// The same for parts whose copying would hold a scheduler for too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn http_send_large<'a>(
    env: Env<'a>,
    resource: ResourceArc<ExchangeResource>,
    data: Term<'a>,
) -> NifResult<Term<'a>> {
    Ok(result(
        env,
        resource.exchange.send(http_terms::bytes(data)?),
    ))
}

#[rustler::nif]
fn http_finish<'a>(env: Env<'a>, resource: ResourceArc<ExchangeResource>) -> Term<'a> {
    result(env, resource.exchange.finish())
}

#[rustler::nif]
fn http_on_gone(resource: ResourceArc<ExchangeResource>, what: Atom) -> NifResult<Atom> {
    let what = if what == atoms::exit() {
        OnGone::Exit
    } else if what == atoms::notice() {
        OnGone::Notice
    } else {
        return Err(rustler::Error::BadArg);
    };
    Ok(if resource.exchange.on_gone(what) {
        atoms::gone()
    } else {
        terms::ok()
    })
}

#[rustler::nif]
fn http_on_exit(resource: ResourceArc<ExchangeResource>, status: u16) -> NifResult<Atom> {
    resource.exchange.on_exit(http_terms::status(status)?);
    Ok(terms::ok())
}
