//! Accepting connections and passing their requests on.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use tokio::time::{Instant, sleep, timeout_at};

use super::connection::{Connection, Will, run as run_connection};
use super::exchange::Exchange;
use super::state::Counts;
use super::{Event, Options, Owner};
use crate::backoff::Backoff;
use crate::connection::is_passing;
use crate::listener::{ACCEPT_RETRY, Socket, jitter};
use crate::metrics;
use crate::stream::{Address, Stream};
use crate::sync::lock;
use crate::tls::Acceptor;

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) connections: Mutex<Connections>,
    pub(crate) waker: AtomicWaker,
    pub(crate) owner: Box<dyn Owner>,
}

/// Requests that no process has taken.
pub(crate) struct Queue {
    pub(crate) exchanges: VecDeque<Exchange>,
    /// Of these, those that the owner has been told to start processes for.
    pub(crate) claimed: usize,
    pub(crate) armed: bool,
}

pub(crate) struct Connections {
    /// Until the listener is closed or drained.
    pub(crate) socket: Option<Socket>,
    pub(crate) will: Will,
    /// When draining is to end.
    pub(crate) deadline: Option<Instant>,
    pub(crate) drain: bool,
    pub(crate) failed: bool,
    pub(crate) next: u64,
    pub(crate) open: HashMap<u64, Arc<Connection>>,
    pub(crate) peers: HashMap<IpAddr, usize>,
}

impl Connections {
    pub(crate) fn tell(&mut self, will: Will) {
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

/// The life of a listener.
pub(crate) async fn run(shared: Arc<Shared>) {
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
        let unserved = std::mem::take(&mut lock(&self.shared.queue).exchanges);
        drop(unserved);
        if let Some(event) = self.event {
            self.shared.owner.tell(event);
        }
        self.shared.owner.tell(Event::Closed);
    }
}
