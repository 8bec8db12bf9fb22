//! A listening socket and the requests that come in by it.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

use super::server_check::Limits;
use super::server_connection::{Connection, Will, run as run_connection};
use super::server_exchange::{Counts, Exchange};
use crate::backoff::Backoff;
use crate::connection::is_passing;
use crate::error::Error;
use crate::listener::{ACCEPT_RETRY, Socket, bind, jitter};
use crate::metrics;
use crate::options::{Endpoint, Tcp, Tls};
use crate::stream::{Address, Stream};
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

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) counts: Arc<Counts>,
    queue: Mutex<Queue>,
    connections: Mutex<Connections>,
    waker: AtomicWaker,
    owner: Box<dyn Owner>,
}

/// Requests that no process has taken.
struct Queue {
    exchanges: VecDeque<Exchange>,
    /// Of these, those that the owner has been told to start processes for.
    claimed: usize,
    armed: bool,
}

struct Connections {
    /// Until the listener is closed or drained.
    socket: Option<Socket>,
    will: Will,
    /// When draining is to end.
    deadline: Option<Instant>,
    drain: bool,
    failed: bool,
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
    peers: HashMap<IpAddr, usize>,
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

impl Connections {
    fn tell(&mut self, will: Will) {
        if will > self.will {
            self.will = will;
        }
        // Closed at once, so that the address is free when the caller returns.
        self.socket = None;
        for connection in self.open.values() {
            connection.tell(will);
        }
    }
}

impl Shared {
    /// Passes a request on to the owner.
    pub(crate) fn offer(&self, exchange: Exchange) {
        let mut queue = lock(&self.queue);
        queue.exchanges.push_back(exchange);
        let tell = std::mem::take(&mut queue.armed);
        drop(queue);
        if tell {
            self.owner.tell(Event::Ready);
        }
    }

    /// Accepts while there is room; nothing once the listener is closed.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Stream>>> {
        self.waker.register(cx.waker());
        let connections = lock(&self.connections);
        match &connections.socket {
            None => Poll::Ready(None),
            Some(_) if connections.open.len() >= self.options.max_connections => Poll::Pending,
            Some(socket) => socket.poll_accept(cx).map(Some),
        }
    }

    /// Counts a connection in, unless its peer has too many or the listener is over.
    fn enter(self: &Arc<Self>, stream: &Stream) -> Option<(Arc<Connection>, Entry)> {
        let few = self.options.max_connections_per_peer < self.options.max_connections;
        let peer = match stream.peer() {
            Some(Address::Ip(address)) if few => Some(address.ip()),
            _ => None,
        };
        let mut connections = lock(&self.connections);
        if connections.will != Will::Serve {
            return None;
        }
        if let Some(ip) = peer {
            let count = connections.peers.entry(ip).or_insert(0);
            if *count >= self.options.max_connections_per_peer {
                return None;
            }
            *count += 1;
        }
        let id = connections.next;
        connections.next += 1;
        let connection = Arc::new(Connection::new());
        connections.open.insert(id, connection.clone());
        let server = self.clone();
        Some((connection, Entry { server, id, peer }))
    }

    /// Resolves when no connection is left.
    fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if lock(&self.connections).open.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// A connection's place among those of its listener.
struct Entry {
    server: Arc<Shared>,
    id: u64,
    peer: Option<IpAddr>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut connections = lock(&self.server.connections);
        connections.open.remove(&self.id);
        if let Some(ip) = self.peer
            && let Some(count) = connections.peers.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                connections.peers.remove(&ip);
            }
        }
        drop(connections);
        self.server.waker.wake();
    }
}

async fn run(shared: Arc<Shared>) {
    let _task = metrics::native_tasks.live();
    let _live = metrics::native_http_listeners.live();
    let mut end = End {
        shared: shared.clone(),
        panicked: true,
        event: None,
    };
    accept(&shared).await;
    drain(&shared).await;
    let connections = lock(&shared.connections);
    end.event = match (connections.failed, connections.drain) {
        (true, _) => Some(Event::Down),
        (false, true) => Some(Event::Drained),
        (false, false) => None,
    };
    end.panicked = false;
}

async fn accept(shared: &Arc<Shared>) {
    let mut backoff = Backoff::new(ACCEPT_RETRY);
    let mut last_success = Instant::now();
    while let Some(result) = poll_fn(|cx| shared.poll_accept(cx)).await {
        match result {
            Ok(stream) => {
                last_success = Instant::now();
                if let Some((connection, entry)) = shared.enter(&stream) {
                    tokio::spawn(serve(shared.clone(), connection, entry, stream));
                }
            }
            Err(error) => {
                metrics::accept_errors.add(1);
                if is_passing(&error) {
                    let delay = backoff.next(Some(last_success.elapsed()), jitter());
                    tracing::warn!(%error, ?delay, "cannot accept");
                    sleep(delay.unwrap_or_default().max(ACCEPT_RETRY.min)).await;
                }
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, connection: Arc<Connection>, entry: Entry, stream: Stream) {
    let _entry = entry;
    run_connection(shared, connection, stream).await;
}

/// Waits for the connections to end, for as long as draining may take.
async fn drain(shared: &Shared) {
    let deadline = lock(&shared.connections).deadline;
    if let Some(deadline) = deadline {
        let _ = timeout_at(deadline, poll_fn(|cx| shared.poll_empty(cx))).await;
    }
    lock(&shared.connections).tell(Will::Close);
    poll_fn(|cx| shared.poll_empty(cx)).await;
}

/// Reports the end of a listener, also when a panic unwinds it.
struct End {
    shared: Arc<Shared>,
    panicked: bool,
    event: Option<Event>,
}

impl Drop for End {
    fn drop(&mut self) {
        if self.panicked {
            metrics::panics.add(1);
            tracing::error!("a listener's task has panicked");
            lock(&self.shared.connections).tell(Will::Close);
            self.event = Some(Event::Down);
        }
        if let Some(event) = self.event {
            self.shared.owner.tell(event);
        }
        self.shared.owner.tell(Event::Closed);
    }
}
