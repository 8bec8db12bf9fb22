//! Connections as resources.

use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use erlmcp_core::connection::Buffers;
use erlmcp_core::frame::Item;
use erlmcp_core::high_water::Reason;
use erlmcp_core::inbox::{Batch, Status};
use erlmcp_core::{Connection, Info, State, metrics, stdio};
use rustler::{
    Atom, Binary, Encoder, Env, Error, LocalPid, Monitor, NifResult, Resource, ResourceArc, Term,
};

use crate::message::Outgoing;
use crate::sink::Owner;
use crate::{options, reason, runtime, terms};

/// Frames up to this size live on the process heap: a reference to the block would be larger and
/// would keep the block alive.
const HEAP_BINARY_MAX: usize = 64;

/// Frames of these sizes become binaries of their own. As long as a frame refers to its block, and
/// that is until the owner's next collection, the block cannot be read into again; copying costs
/// less than the page faults of a new one. Larger frames fill their block, and copying them would
/// hold the scheduler.
const OWN_BINARY: RangeInclusive<usize> = 4096..=1_048_576;

/// Frames that have come together and are no more than this are copied: references to them would
/// keep a whole block from being read into again, on each of many connections that get a message
/// now and then (docs/design.md).
const FEW: usize = 8 * 1024;

/// A connection. Collected, it closes; its owner dies, it closes.
pub(crate) struct ConnectionResource {
    connection: Connection,
    owner: Owner,
    copy: bool,
    monitor: Mutex<Option<Monitor>>,
}

impl Resource for ConnectionResource {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        // The monitor of a former owner can fire while the connection is being given away.
        if self.owner.get() == pid {
            self.connection.close();
        }
    }
}

/// Received bytes that binaries refer to.
pub(crate) struct Block {
    data: Bytes,
    _live: metrics::Live,
}

impl Resource for Block {}

/// Makes the resource and monitors its owner.
pub(crate) fn resource(
    env: Env<'_>,
    connection: Connection,
    owner: Owner,
    copy: bool,
) -> ResourceArc<ConnectionResource> {
    let pid = owner.get();
    let monitor = Mutex::new(None);
    let resource = ResourceArc::new(ConnectionResource {
        connection,
        owner,
        copy,
        monitor,
    });
    watch(env, &resource, pid);
    resource
}

fn watch(env: Env<'_>, resource: &ResourceArc<ConnectionResource>, pid: LocalPid) -> bool {
    let monitor = resource.monitor(Some(env), &pid);
    let watched = monitor.is_some();
    let mut held = resource
        .monitor
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let former = std::mem::replace(&mut *held, monitor);
    drop(held);
    if let Some(former) = former {
        resource.demonitor(Some(env), &former);
    }
    watched
}

#[rustler::nif]
fn connection_open<'a>(env: Env<'a>, endpoint: Term<'a>, opts: Term<'a>) -> NifResult<Term<'a>> {
    let owner = Owner::new(env.pid());
    let connection = Connection::dial(
        &runtime::handle()?,
        Box::new(owner.clone()),
        options::endpoint(endpoint)?,
        options::dial(opts)?,
        options::tcp(opts)?,
        options::tls(opts)?,
        options::limits(opts)?,
    );
    let id = owner.id;
    let resource = resource(env, connection, owner, options::copy(opts)?);
    Ok((id, resource).encode(env))
}

/// Puts the node's own standard input and output aside, before anything can print into them.
#[rustler::nif]
fn stdio_claim(env: Env<'_>) -> Term<'_> {
    match stdio::claim() {
        Ok(()) => terms::ok().encode(env),
        Err(fault) => (terms::error(), reason::stdio(env, fault)).encode(env),
    }
}

#[rustler::nif]
fn stdio_open<'a>(env: Env<'a>, opts: Term<'a>) -> NifResult<Term<'a>> {
    let (runtime, limits) = (runtime::handle()?, options::limits(opts)?);
    Ok(match stdio::take() {
        Ok(stdio) => {
            let owner = Owner::new(env.pid());
            let connection = stdio.connect(&runtime, Box::new(owner.clone()), limits);
            let id = owner.id;
            let resource = resource(env, connection, owner, options::copy(opts)?);
            (terms::ok(), id, resource).encode(env)
        }
        Err(fault) => (terms::error(), reason::stdio(env, fault)).encode(env),
    })
}

/// Whether messages that were accepted have still to leave.
#[rustler::nif]
fn stdio_is_leaving() -> bool {
    stdio::is_leaving()
}

#[rustler::nif]
fn connection_take<'a>(
    env: Env<'a>,
    resource: ResourceArc<ConnectionResource>,
    max_items: usize,
    max_bytes: usize,
) -> Term<'a> {
    let (batches, status) = resource.connection.take(max_items, max_bytes);
    let count = batches.iter().map(|batch| batch.items.len()).sum();
    let mut items = Vec::with_capacity(count);
    for batch in batches {
        append_items(env, batch, resource.copy, &mut items);
    }
    (items, status_term(env, status)).encode(env)
}

fn append_items<'a>(env: Env<'a>, batch: Batch, copy: bool, out: &mut Vec<Term<'a>>) {
    let Batch { data, items } = batch;
    let refers = |item: &Item| matches!(item, Item::Frame { len, .. } if refers_to_block(*len));
    let block = if !copy && data.len() > FEW && items.iter().any(refers) {
        Some(block(env, data.clone()))
    } else {
        None
    };
    for item in items {
        out.push(match (item, &block) {
            (Item::Oversized(len), _) => (terms::oversized(), len).encode(env),
            (Item::Frame { start, len }, Some(block)) if refers_to_block(len) => {
                match block.make_subbinary(start, len) {
                    Ok(frame) => frame.encode(env),
                    Err(_) => terms::binary(env, &[]),
                }
            }
            (Item::Frame { start, len }, _) => {
                terms::binary(env, data.get(start..start + len).unwrap_or_default())
            }
        });
    }
}

fn refers_to_block(len: usize) -> bool {
    len > HEAP_BINARY_MAX && !OWN_BINARY.contains(&len)
}

/// A binary that refers to the bytes.
pub(crate) fn block(env: Env<'_>, data: Bytes) -> Binary<'_> {
    let block = ResourceArc::new(Block {
        data,
        _live: metrics::native_blocks.live(),
    });
    block.make_binary(env, |block| &block.data)
}

fn status_term<'a>(env: Env<'a>, status: Status) -> Term<'a> {
    match status {
        Status::Connecting => terms::connecting().encode(env),
        Status::Armed => terms::armed().encode(env),
        Status::More => terms::more().encode(env),
        Status::Again => terms::again().encode(env),
        Status::EofArmed => (terms::eof(), terms::armed()).encode(env),
        Status::Down(error) => (terms::down(), reason::term(env, error)).encode(env),
    }
}

#[rustler::nif]
fn connection_send<'a>(
    env: Env<'a>,
    resource: ResourceArc<ConnectionResource>,
    data: Term<'a>,
    priority: Atom,
) -> NifResult<Term<'a>> {
    send(env, &resource, data, priority)
}

/// The same for messages whose copying and checking would hold a scheduler for too long.
#[rustler::nif(schedule = "DirtyCpu")]
fn connection_send_large<'a>(
    env: Env<'a>,
    resource: ResourceArc<ConnectionResource>,
    data: Term<'a>,
    priority: Atom,
) -> NifResult<Term<'a>> {
    send(env, &resource, data, priority)
}

fn send<'a>(
    env: Env<'a>,
    resource: &ResourceArc<ConnectionResource>,
    data: Term<'a>,
    priority: Atom,
) -> NifResult<Term<'a>> {
    let priority = options::priority(priority)?;
    let result = resource.connection.send_as(Outgoing::new(data)?, priority);
    Ok(match result {
        Ok(()) => terms::ok().encode(env),
        Err(error) => (terms::error(), reason::term(env, error)).encode(env),
    })
}

#[rustler::nif]
fn connection_give<'a>(
    env: Env<'a>,
    resource: ResourceArc<ConnectionResource>,
    new_owner: LocalPid,
) -> NifResult<rustler::Atom> {
    if env.pid() != resource.owner.get() {
        return Err(Error::BadArg);
    }
    resource.owner.set(new_owner);
    if !watch(env, &resource, new_owner) {
        resource.connection.close();
    }
    Ok(terms::ok())
}

#[rustler::nif]
fn connection_close(resource: ResourceArc<ConnectionResource>) -> rustler::Atom {
    resource.connection.close();
    terms::ok()
}

#[rustler::nif]
fn connection_info<'a>(
    env: Env<'a>,
    resource: ResourceArc<ConnectionResource>,
) -> NifResult<Term<'a>> {
    let info: Info = resource.connection.info();
    let state = match info.state {
        State::Connecting => terms::connecting(),
        State::Open => terms::open(),
        State::Eof => terms::eof(),
        State::Closing => terms::closing(),
        State::Down => terms::down(),
    };
    let certificate = match &info.certificate {
        Some(der) => terms::binary(env, der),
        None => terms::undefined().encode(env),
    };
    let pairs = [
        (terms::state(), state.encode(env)),
        (terms::peername(), terms::address(env, info.peer.as_ref())),
        (terms::sockname(), terms::address(env, info.local.as_ref())),
        (terms::peercert(), certificate),
        (terms::frames_in(), info.frames_in.encode(env)),
        (terms::bytes_in(), info.bytes_in.encode(env)),
        (terms::frames_out(), info.frames_out.encode(env)),
        (terms::bytes_out(), info.bytes_out.encode(env)),
        (terms::inbound_bytes(), info.waiting.encode(env)),
        (terms::queue_bytes(), info.queued.encode(env)),
        (terms::buffers(), buffers(env, info.buffers)?),
    ];
    Term::map_from_pairs(env, &pairs)
}

fn buffers(env: Env<'_>, buffers: Buffers) -> NifResult<Term<'_>> {
    let reason = match buffers.reason {
        Reason::Fixed => terms::fixed(),
        Reason::Start => terms::start(),
        Reason::QuickOwner => terms::quick_owner(),
        Reason::SlowOwner => terms::slow_owner(),
    };
    let (min, max) = buffers.bounds;
    let pairs = [
        (terms::read_bytes(), buffers.read.encode(env)),
        (terms::high_water_bytes(), buffers.high_water.encode(env)),
        (terms::min(), min.encode(env)),
        (terms::max(), max.encode(env)),
        (terms::reason(), reason.encode(env)),
    ];
    Term::map_from_pairs(env, &pairs)
}
