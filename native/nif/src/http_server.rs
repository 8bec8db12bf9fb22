//! HTTP listeners as resources.

use std::time::Duration;

use erlmcp_core::http::{Event, Owner, Server};
use rustler::{Encoder, Env, LocalPid, Monitor, NifResult, Resource, ResourceArc, Term};

use crate::http_exchange::ExchangeResource;
use crate::sink::{next_id, send};
use crate::{http_terms, options, reason, runtime, terms};

/// A listener. Collected, it closes; its owner or its acceptor dies, it closes.
pub(crate) struct ServerResource {
    server: Server,
    acceptor: LocalPid,
}

impl Resource for ServerResource {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        if pid == self.acceptor {
            self.server.fail();
        } else {
            self.server.close();
        }
    }
}

/// The acceptor starts the processes that serve and ends those whose client is gone; the owner
/// hears of the listener's end.
struct Processes {
    id: u64,
    owner: LocalPid,
    acceptor: LocalPid,
}

impl Owner for Processes {
    fn tell(&self, event: Event) {
        let io = terms::erlmcp_native_io();
        match event {
            Event::Ready => send(&self.acceptor, (io, self.id, terms::ready())),
            Event::Closed => send(&self.acceptor, (io, self.id, terms::closed())),
            Event::Drained => send(&self.owner, (io, self.id, terms::drained())),
            Event::Down => send(&self.owner, (io, self.id, terms::down())),
        }
    }
}

/// Resolves a name and reads certificates, hence not on a normal scheduler.
#[rustler::nif(schedule = "DirtyIo")]
fn http_listen<'a>(
    env: Env<'a>,
    endpoint: Term<'a>,
    opts: Term<'a>,
    acceptor: LocalPid,
) -> NifResult<Term<'a>> {
    let id = next_id();
    let owner = env.pid();
    let server = Server::listen(
        &runtime::handle()?,
        Box::new(Processes {
            id,
            owner,
            acceptor,
        }),
        &options::endpoint(endpoint)?,
        options::tls(opts)?.as_ref(),
        options::http_server(opts)?,
    );
    let server = match server {
        Ok(server) => server,
        Err(error) => return Ok((terms::error(), reason::term(env, error)).encode(env)),
    };
    let resource = ResourceArc::new(ServerResource { server, acceptor });
    if resource.monitor(Some(env), &owner).is_none()
        || resource.monitor(Some(env), &acceptor).is_none()
    {
        resource.server.close();
    }
    Ok((terms::ok(), id, resource).encode(env))
}

#[rustler::nif]
fn http_claim(resource: ResourceArc<ServerResource>, max: usize) -> usize {
    resource.server.claim(max)
}

#[rustler::nif]
fn http_take<'a>(env: Env<'a>, resource: ResourceArc<ServerResource>) -> NifResult<Term<'a>> {
    let taken = resource
        .server
        .take()
        .and_then(|exchange| ExchangeResource::take(exchange, env.pid(), resource.acceptor));
    match taken {
        None => Ok(terms::none().encode(env)),
        Some((exchange, request)) => {
            let id = exchange.id;
            let exchange = ResourceArc::new(exchange);
            exchange.monitor(Some(env), &env.pid());
            Ok((id, exchange, http_terms::request(env, request)?).encode(env))
        }
    }
}

#[rustler::nif]
fn http_listener_info<'a>(
    env: Env<'a>,
    resource: ResourceArc<ServerResource>,
) -> NifResult<Term<'a>> {
    let info = resource.server.info();
    let pairs = [
        (
            terms::sockname(),
            terms::address(env, resource.server.local()),
        ),
        (terms::connections(), info.connections.encode(env)),
        (terms::requests(), info.requests.encode(env)),
        (terms::streams(), info.streams.encode(env)),
    ];
    Term::map_from_pairs(env, &pairs)
}

#[rustler::nif]
fn http_drain(resource: ResourceArc<ServerResource>, ms: u64) -> rustler::Atom {
    resource.server.drain(Duration::from_millis(ms));
    terms::ok()
}

#[rustler::nif]
fn http_close(resource: ResourceArc<ServerResource>) -> rustler::Atom {
    resource.server.close();
    terms::ok()
}
