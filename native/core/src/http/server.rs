//! HTTP servers: a listening socket and the requests that come in by it.

mod body;
mod check;
mod connection;
mod exchange;
mod gathering;
mod io;
mod listener;
mod service;
mod session;
mod state;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::runtime::Handle;
use tokio::time::Instant;

use self::check::Limits;
use self::connection::Will;
pub use self::exchange::{Body, Exchange, Notice, OnGone, Receiver, Request};
use self::listener::{Connections, Queue, Shared, run};
use self::state::Counts;
use crate::error::Error;
use crate::listener::bind;
use crate::options::{Endpoint, Tcp, Tls};
use crate::stream::Address;
use crate::sync::lock;
use crate::tls::Acceptor;

/// What a listener keeps to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Serve HTTP/1.1.
    pub http1: bool,
    /// Serve HTTP/2.
    pub http2: bool,
    /// Largest body of a request.
    pub max_body: usize,
    /// Fields in a head.
    pub max_headers: usize,
    /// Bytes of a field, name and value.
    pub max_header: usize,
    /// Bytes of a request target.
    pub max_target: usize,
    /// Time for a head, from its first byte.
    pub header_timeout: Duration,
    /// Time for a body.
    pub body_timeout: Duration,
    /// Time between requests.
    pub idle_timeout: Duration,
    /// Connections at a time; the others wait in the kernel's backlog.
    pub max_connections: usize,
    /// Connections of one address; those beyond are closed.
    pub max_connections_per_peer: usize,
    /// Requests that have not begun to be answered.
    pub max_requests: usize,
    /// Answers that stream.
    pub max_streams: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Bytes that wait in one stream.
    pub max_stream: usize,
    /// Of accepted sockets.
    pub tcp: Tcp,
    /// Time for TLS.
    pub handshake_timeout: Duration,
    /// Of the listening socket.
    pub backlog: u32,
}

impl Options {
    pub(crate) fn check_limits(&self) -> Limits {
        Limits {
            max_headers: self.max_headers,
            max_header: self.max_header,
            max_target: self.max_target,
        }
    }
}

/// What a listener tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The owner's last look found nothing; now there are requests to claim.
    Ready,
    /// The draining that was asked for is over: all connections are closed.
    Drained,
    /// The listener has ended by itself.
    Down,
    /// The listener and all its connections are over; nothing follows.
    Closed,
}

/// The process that owns a listener. Told from tokio's threads only.
pub trait Owner: Send + Sync + 'static {
    /// Passes an event on. Must not block.
    fn tell(&self, event: Event);
}

/// The outcome of a claim: for so many requests a process is to be started. None are left to claim
/// when it is none, and an event tells of the next.
pub type Claim = usize;

/// A snapshot of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Open connections.
    pub connections: usize,
    /// Requests in progress, streams included.
    pub requests: usize,
    /// Answers that stream.
    pub streams: usize,
}

/// The owner's end of a listener. Dropping it closes the listener and all its connections.
pub struct Server {
    shared: Arc<Shared>,
    local: Option<Address>,
}

impl Server {
    /// Binds and listens. Blocks for a name look-up and for reading certificates.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::NoSuchName`], [`Error::Tls`], [`Error::Posix`].
    pub fn listen(
        runtime: &Handle,
        owner: Box<dyn Owner>,
        endpoint: &Endpoint,
        tls: Option<&Tls>,
        options: Options,
    ) -> Result<Self, Error> {
        let mut protocols: Vec<&[u8]> = Vec::new();
        if options.http2 {
            protocols.push(b"h2");
        }
        if options.http1 {
            protocols.push(b"http/1.1");
        }
        let acceptor = tls
            .map(|tls| Acceptor::with_protocols(tls, &protocols))
            .transpose()?;
        let reactor = runtime.enter();
        let socket = bind(endpoint, options.backlog)?;
        drop(reactor);
        let local = socket.local();
        let counts = Arc::new(Counts {
            unanswered: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            max_streams: options.max_streams,
            max_stream: options.max_stream,
        });
        let shared = Arc::new(Shared {
            options,
            acceptor,
            counts,
            queue: Mutex::new(Queue {
                exchanges: VecDeque::new(),
                claimed: 0,
                armed: true,
            }),
            connections: Mutex::new(Connections {
                socket: Some(socket),
                will: Will::Serve,
                deadline: None,
                drain: false,
                failed: false,
                next: 0,
                open: HashMap::new(),
                peers: HashMap::new(),
            }),
            waker: AtomicWaker::new(),
            owner,
        });
        runtime.spawn(run(shared.clone()));
        Ok(Self { shared, local })
    }

    /// Claims at most `max` requests; as many processes are to be started, each of which takes one.
    pub fn claim(&self, max: usize) -> Claim {
        let mut queue = lock(&self.shared.queue);
        let count = max.min(queue.exchanges.len() - queue.claimed.min(queue.exchanges.len()));
        queue.claimed += count;
        queue.armed = count == 0;
        count
    }

    /// The oldest request that was claimed.
    pub fn take(&self) -> Option<Exchange> {
        let mut queue = lock(&self.shared.queue);
        queue.claimed = queue.claimed.saturating_sub(1);
        queue.exchanges.pop_front()
    }

    /// The address that is listened on.
    pub fn local(&self) -> Option<&Address> {
        self.local.as_ref()
    }

    /// A snapshot.
    pub fn info(&self) -> Info {
        let streams = self.shared.counts.streams.load(Ordering::Relaxed);
        let unanswered = self.shared.counts.unanswered.load(Ordering::Relaxed);
        Info {
            connections: lock(&self.shared.connections).open.len(),
            requests: streams + unanswered,
            streams,
        }
    }

    /// Stops accepting, closes what is idle, and cuts off after `limit` what is not. An event tells
    /// of the end.
    pub fn drain(&self, limit: Duration) {
        let mut connections = lock(&self.shared.connections);
        connections.drain = true;
        connections.deadline = Some(Instant::now() + limit);
        connections.tell(Will::Drain);
        drop(connections);
        self.shared.waker.wake();
    }

    /// Closes as [`Server::close`] does, and tells the owner that this was not asked for.
    pub fn fail(&self) {
        lock(&self.shared.connections).failed = true;
        self.close();
    }

    /// Closes the listener and all its connections. Closing twice is fine.
    pub fn close(&self) {
        lock(&self.shared.connections).tell(Will::Close);
        self.shared.waker.wake();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}
