//! Listeners as resources.

use erlmcp_core::Listener;
use erlmcp_core::listener::Accepted;
use rustler::{Encoder, Env, LocalPid, Monitor, NifResult, Resource, ResourceArc, Term};

use crate::sink::Owner;
use crate::{connection, options, reason, runtime, terms};

/// A listener. Collected, it closes; its owner dies, it closes.
pub(crate) struct ListenerResource {
    listener: Listener,
    copy: bool,
}

impl Resource for ListenerResource {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.listener.close();
    }
}

/// Resolves a name and reads certificates, hence not on a normal scheduler.
#[rustler::nif(schedule = "DirtyIo")]
fn listener_open<'a>(env: Env<'a>, endpoint: Term<'a>, opts: Term<'a>) -> NifResult<Term<'a>> {
    let owner = Owner::new(env.pid());
    let listener = Listener::listen(
        &runtime::handle()?,
        Box::new(owner.clone()),
        &options::endpoint(endpoint)?,
        options::backlog(opts)?,
        options::tcp(opts)?,
        options::tls(opts)?.as_ref(),
        options::limits(opts)?,
    );
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return Ok((terms::error(), reason::term(env, error)).encode(env)),
    };
    let resource = ResourceArc::new(ListenerResource {
        listener,
        copy: options::copy(opts)?,
    });
    if resource.monitor(Some(env), &env.pid()).is_none() {
        resource.listener.close();
    }
    Ok((terms::ok(), owner.id, resource).encode(env))
}

#[rustler::nif]
fn listener_accept<'a>(
    env: Env<'a>,
    resource: ResourceArc<ListenerResource>,
    max: usize,
) -> Term<'a> {
    let (incoming, status) = resource.listener.accept(max);
    let connections: Vec<Term<'a>> = incoming
        .into_iter()
        .map(|stream| {
            let owner = Owner::new(env.pid());
            let connection = resource.listener.adopt(stream, Box::new(owner.clone()));
            let id = owner.id;
            (
                id,
                connection::resource(env, connection, owner, resource.copy),
            )
                .encode(env)
        })
        .collect();
    let status = match status {
        Accepted::Armed => terms::armed().encode(env),
        Accepted::More => terms::more().encode(env),
        Accepted::Down(error) => (terms::down(), reason::term(env, error)).encode(env),
    };
    (connections, status).encode(env)
}

#[rustler::nif]
fn listener_sockname<'a>(env: Env<'a>, resource: ResourceArc<ListenerResource>) -> Term<'a> {
    terms::address(env, resource.listener.local())
}

#[rustler::nif]
fn listener_close(resource: ResourceArc<ListenerResource>) -> rustler::Atom {
    resource.listener.close();
    terms::ok()
}
