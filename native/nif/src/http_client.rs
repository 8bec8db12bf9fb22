//! HTTP clients as resources.

use bytes::Bytes;
use erlmcp_core::connection::Message;
use erlmcp_core::http::client::{
    Client, Failure, Head, Invalid, News, Notify, Reason, Request, Taken,
};
use rustler::{
    Binary, Encoder, Env, Error, LocalPid, Monitor, NifResult, Resource, ResourceArc, Term,
};
use std::time::Duration;

use crate::message::Outgoing;
use crate::sink::{Owner, send};
use crate::{connection, options, reason, runtime, terms};

mod atoms {
    rustler::atoms! {
        body, done, failed, head, headers, infinity, method, none, option, protocol, readable,
        reason, safe, target,
    }
}

/// Parts of a body up to this size are copied: they would keep alive the block that they were read
/// into, which is larger.
const COPY_MAX: usize = 4 * 1024;

/// Parts that one call hands out; building their terms takes some 10 microseconds.
const PARTS: usize = 64;

/// A client. Collected, it closes; its owner dies, it closes.
pub(crate) struct ClientResource {
    client: Client,
}

impl Resource for ClientResource {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.client.close();
    }
}

impl Notify for Owner {
    fn ready(&self, request: u64) {
        let message = (
            terms::erlmcp_native_io(),
            self.id,
            (request, terms::ready()),
        );
        send(&self.get(), message);
    }
}

/// Reads certificates, hence not on a normal scheduler.
#[rustler::nif(schedule = "DirtyIo")]
fn http_client_open<'a>(env: Env<'a>, origin: Term<'a>, opts: Term<'a>) -> NifResult<Term<'a>> {
    let owner = Owner::new(env.pid());
    let options = options::http_client(origin, opts)?;
    let client = match Client::open(&runtime::handle()?, Box::new(owner.clone()), options) {
        Ok(client) => client,
        Err(error) => return Ok((terms::error(), reason::term(env, error)).encode(env)),
    };
    let resource = ResourceArc::new(ClientResource { client });
    if resource.monitor(Some(env), &env.pid()).is_none() {
        resource.client.close();
    }
    Ok((terms::ok(), owner.id, resource).encode(env))
}

#[rustler::nif]
fn http_client_request<'a>(
    env: Env<'a>,
    resource: ResourceArc<ClientResource>,
    start: (Term<'a>, Term<'a>),
    headers: Term<'a>,
    body: Term<'a>,
    timeouts: (Term<'a>, Term<'a>),
) -> NifResult<Term<'a>> {
    request(env, &resource, start, headers, body, timeouts)
}

/// The same for bodies whose flattening would hold a scheduler for too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn http_client_request_large<'a>(
    env: Env<'a>,
    resource: ResourceArc<ClientResource>,
    start: (Term<'a>, Term<'a>),
    headers: Term<'a>,
    body: Term<'a>,
    timeouts: (Term<'a>, Term<'a>),
) -> NifResult<Term<'a>> {
    request(env, &resource, start, headers, body, timeouts)
}

fn request<'a>(
    env: Env<'a>,
    resource: &ResourceArc<ClientResource>,
    start: (Term<'a>, Term<'a>),
    headers: Term<'a>,
    body: Term<'a>,
    timeouts: (Term<'a>, Term<'a>),
) -> NifResult<Term<'a>> {
    let refuse = |invalid, term: Term<'a>| {
        let key = match invalid {
            Invalid::Method => atoms::method(),
            Invalid::Target => atoms::target(),
            Invalid::Header => atoms::headers(),
        };
        (terms::error(), (atoms::option(), key, term)).encode(env)
    };
    let method: Binary<'a> = start.0.decode()?;
    let target: Binary<'a> = start.1.decode()?;
    let body = if body
        .decode()
        .is_ok_and(|atom: rustler::Atom| atom == atoms::none())
    {
        None
    } else {
        Some(Outgoing::new(body)?.into_bytes(0))
    };
    let mut request = match Request::new(method.as_slice(), target.as_slice(), body) {
        Ok(request) => request,
        Err(Invalid::Target) => return Ok(refuse(Invalid::Target, start.1)),
        Err(invalid) => return Ok(refuse(invalid, start.0)),
    };
    for header in headers.into_list_iterator()? {
        let (name_term, value): (Term<'a>, Term<'a>) = header.decode()?;
        let name: Binary<'a> = name_term.decode()?;
        let value = Outgoing::new(value)?;
        // The value may be a secret.
        if let Err(invalid) = request.header(name.as_slice(), value.as_slice()) {
            return Ok(refuse(invalid, name_term));
        }
    }
    request.limit(timeout(timeouts.0)?, timeout(timeouts.1)?);
    Ok(match resource.client.request(request) {
        Ok(id) => (terms::ok(), id).encode(env),
        Err(error) => (terms::error(), reason::term(env, error)).encode(env),
    })
}

fn timeout(term: Term<'_>) -> NifResult<Option<Duration>> {
    if let Ok(ms) = term.decode::<u64>() {
        return Ok(Some(Duration::from_millis(ms)));
    }
    let atom: rustler::Atom = term.decode()?;
    if atom == atoms::infinity() {
        Ok(None)
    } else {
        Err(Error::BadArg)
    }
}

/// The events that a notice stands for, as the contract has them.
#[rustler::nif]
fn http_client_events<'a>(
    env: Env<'a>,
    resource: ResourceArc<ClientResource>,
    id: u64,
) -> NifResult<Vec<Term<'a>>> {
    let event = |news| match news {
        News::Head(head) => head_term(env, id, &head),
        News::Readable => Ok((atoms::readable(), id).encode(env)),
        News::Failed(failure) => Ok((atoms::failed(), id, failure_term(env, failure)?).encode(env)),
    };
    resource.client.news(id).into_iter().map(event).collect()
}

fn head_term<'a>(env: Env<'a>, id: u64, head: &Head) -> NifResult<Term<'a>> {
    let headers: Vec<(Term<'a>, Term<'a>)> = head
        .headers
        .iter()
        .map(|(name, value)| {
            let name = terms::binary(env, name.as_str().as_bytes());
            (name, terms::binary(env, value.as_bytes()))
        })
        .collect();
    Ok((atoms::head(), id, head.status, headers).encode(env))
}

fn failure_term<'a>(env: Env<'a>, failure: Failure) -> NifResult<Term<'a>> {
    let reason = match failure.reason {
        Reason::Error(error) => reason::term(env, error),
        Reason::Protocol => atoms::protocol().encode(env),
    };
    let pairs = [
        (atoms::reason(), reason),
        (atoms::safe(), failure.safe.encode(env)),
    ];
    Term::map_from_pairs(env, &pairs)
}

#[rustler::nif]
fn http_client_take<'a>(
    env: Env<'a>,
    resource: ResourceArc<ClientResource>,
    id: u64,
    max_bytes: usize,
) -> NifResult<Term<'a>> {
    let Some((parts, taken)) = resource.client.take(id, PARTS, max_bytes) else {
        // It is over, and was taken to its end.
        return Ok((Vec::<Term<'a>>::new(), atoms::done()).encode(env));
    };
    let parts: Vec<Term<'a>> = parts.into_iter().map(|part| part_term(env, part)).collect();
    let status = match taken {
        Taken::More => terms::more().encode(env),
        Taken::Armed => terms::armed().encode(env),
        Taken::Done => atoms::done().encode(env),
        Taken::Failed(failure) => (atoms::failed(), failure_term(env, failure)?).encode(env),
    };
    Ok((parts, status).encode(env))
}

fn part_term(env: Env<'_>, part: Bytes) -> Term<'_> {
    if part.len() <= COPY_MAX {
        terms::binary(env, &part)
    } else {
        connection::block(env, part).to_term(env)
    }
}

#[rustler::nif]
fn http_client_cancel(resource: ResourceArc<ClientResource>, id: u64) -> rustler::Atom {
    resource.client.cancel(id);
    terms::ok()
}

#[rustler::nif]
fn http_client_info(resource: ResourceArc<ClientResource>) -> (usize, usize, usize) {
    let counts = resource.client.counts();
    (counts.connections, counts.active, counts.queued)
}

#[rustler::nif]
fn http_client_close(resource: ResourceArc<ClientResource>) -> rustler::Atom {
    resource.client.close();
    terms::ok()
}
