//! Accepting connections, as many as the owner asks for.

use std::collections::VecDeque;
use std::fs;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::backoff::{Backoff, Options as BackoffOptions};
use crate::connection::{Connection, is_passing};
use crate::dial::unix_path;
use crate::error::Error;
use crate::event::{Event, Sink};
use crate::metrics;
use crate::options::{Endpoint, Limits, Tcp, Tls};
use crate::stream::{Address, Stream, unix_address};
use crate::sync::lock;
use crate::tls::Acceptor;

/// Connections accepted ahead of the owner. The kernel's backlog holds the others.
const AHEAD: usize = 64;

/// Failed accepts, for want of descriptors or memory, are tried again at this pace.
pub(crate) const ACCEPT_RETRY: BackoffOptions = BackoffOptions {
    min: Duration::from_millis(10),
    max: Duration::from_secs(1),
    max_attempts: None,
    stable: Duration::from_millis(1),
};

/// The owner's end of a listening socket. Dropping it closes the socket.
pub struct Listener {
    shared: Arc<Shared>,
    runtime: Handle,
    tcp: Tcp,
    acceptor: Option<Acceptor>,
    limits: Arc<Limits>,
    local: Option<Address>,
}

/// A socket that was accepted and belongs to nobody yet.
pub struct Incoming(Stream);

/// What to expect after connections were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// None is left; an event tells of the next.
    Armed,
    /// There are more now; no event will come.
    More,
    /// The listener is over.
    Down(Error),
}

struct Shared {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    sink: Box<dyn Sink>,
}

struct Queue {
    /// Until the listener is closed; it is closed at once then, so that the address is free when
    /// the closing call returns.
    socket: Option<Socket>,
    streams: VecDeque<Stream>,
    armed: bool,
    ended: Option<Error>,
}

pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[allow(dead_code, reason = "held for its drop")] Option<SocketFile>,
    ),
}

/// Removes the socket's file with the listener.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds and listens. Blocks for a name look-up and for reading certificates.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::NoSuchName`], [`Error::Tls`], [`Error::Posix`].
    pub fn listen(
        runtime: &Handle,
        sink: Box<dyn Sink>,
        endpoint: &Endpoint,
        backlog: u32,
        tcp: Tcp,
        tls: Option<&Tls>,
        limits: Arc<Limits>,
    ) -> Result<Self, Error> {
        let acceptor = tls.map(Acceptor::new).transpose()?;
        let reactor = runtime.enter();
        let socket = bind(endpoint, backlog)?;
        drop(reactor);
        let local = socket.local();
        let queue = Queue {
            socket: Some(socket),
            streams: VecDeque::new(),
            armed: true,
            ended: None,
        };
        let waker = AtomicWaker::new();
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            waker,
            sink,
        });
        runtime.spawn(run(shared.clone()));
        Ok(Self {
            shared,
            runtime: runtime.clone(),
            tcp,
            acceptor,
            limits,
            local,
        })
    }

    /// At most `max` connections that have arrived, each for [`Listener::adopt`].
    pub fn accept(&self, max: usize) -> (Vec<Incoming>, Accepted) {
        let mut queue = lock(&self.shared.queue);
        let count = queue.streams.len().min(max);
        let incoming = queue.streams.drain(..count).map(Incoming).collect();
        let status = queue.status();
        drop(queue);
        self.shared.waker.wake();
        (incoming, status)
    }

    /// Makes a connection of an accepted socket.
    pub fn adopt(&self, incoming: Incoming, sink: Box<dyn Sink>) -> Connection {
        let Incoming(stream) = incoming;
        // A peer that has gone already is found out by the first read.
        let _ = stream.set_options(self.tcp);
        Connection::accepted(
            &self.runtime,
            sink,
            stream,
            self.acceptor.clone(),
            self.limits.clone(),
        )
    }

    /// The address that is listened on.
    pub fn local(&self) -> Option<&Address> {
        self.local.as_ref()
    }

    /// Stops listening. Accepted connections live on. Closing twice is fine.
    pub fn close(&self) {
        // Its owner asked for the end and waits for no event.
        let _ = lock(&self.shared.queue).end(Error::Closed);
        self.shared.waker.wake();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    fn status(&mut self) -> Accepted {
        match self.ended {
            _ if !self.streams.is_empty() => Accepted::More,
            Some(reason) => Accepted::Down(reason),
            None => {
                self.armed = true;
                Accepted::Armed
            }
        }
    }

    /// Returns whether the owner is to be told.
    fn push(&mut self, stream: Stream) -> bool {
        self.streams.push_back(stream);
        std::mem::take(&mut self.armed)
    }

    fn end(&mut self, reason: Error) -> bool {
        self.ended.get_or_insert(reason);
        self.socket = None;
        std::mem::take(&mut self.armed)
    }
}

async fn run(shared: Arc<Shared>) {
    let _task = metrics::native_tasks.live();
    let _live = metrics::native_listeners.live();
    let mut end = End {
        shared: shared.clone(),
        reason: Error::Panic,
    };
    let mut backoff = Backoff::new(ACCEPT_RETRY);
    let mut last_success = Instant::now();
    loop {
        match poll_fn(|cx| poll(cx, &shared)).await {
            None => {
                end.reason = Error::Closed;
                return;
            }
            Some(Ok(stream)) => {
                last_success = Instant::now();
                let tell = lock(&shared.queue).push(stream);
                if tell {
                    shared.sink.emit(Event::Ready);
                }
            }
            Some(Err(error)) => {
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

/// Accepts while there is room ahead of the owner; nothing once the listener is closed.
fn poll(cx: &mut Context<'_>, shared: &Shared) -> Poll<Option<io::Result<Stream>>> {
    shared.waker.register(cx.waker());
    let queue = lock(&shared.queue);
    match &queue.socket {
        None => Poll::Ready(None),
        Some(_) if queue.streams.len() >= AHEAD => Poll::Pending,
        Some(socket) => socket.poll_accept(cx).map(Some),
    }
}

/// Reports the end when the task is over, also when a panic unwinds it.
struct End {
    shared: Arc<Shared>,
    reason: Error,
}

impl Drop for End {
    fn drop(&mut self) {
        if self.reason == Error::Panic {
            metrics::panics.add(1);
            tracing::error!("a listener's task has panicked");
        }
        let mut queue = lock(&self.shared.queue);
        let tell = queue.end(self.reason) && self.reason != Error::Closed;
        drop(queue);
        if tell {
            self.shared.sink.emit(Event::Ready);
        }
    }
}

impl Socket {
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Socket::Tcp(socket) => socket.poll_accept(cx).map_ok(|(s, _)| Stream::Tcp(s)),
            Socket::Unix(socket, _) => socket.poll_accept(cx).map_ok(|(s, _)| Stream::Unix(s)),
        }
    }

    pub(crate) fn local(&self) -> Option<Address> {
        match self {
            Socket::Tcp(socket) => socket.local_addr().ok().map(Address::Ip),
            Socket::Unix(socket, _) => socket.local_addr().ok().map(unix_address),
        }
    }
}

pub(crate) fn bind(endpoint: &Endpoint, backlog: u32) -> Result<Socket, Error> {
    match endpoint {
        Endpoint::Ip(ip, port) => bind_tcp(SocketAddr::new(*ip, *port), backlog),
        Endpoint::Name(name, port) => {
            let found = (name.as_str(), *port)
                .to_socket_addrs()
                .map_err(|_| Error::NoSuchName)?;
            let mut result = Err(Error::NoSuchName);
            for address in found {
                result = bind_tcp(address, backlog);
                if result.is_ok() {
                    break;
                }
            }
            result
        }
        Endpoint::Path(path) => {
            remove_stale(path)?;
            let socket = bind_unix(endpoint, backlog)?;
            Ok(Socket::Unix(socket, Some(SocketFile(path.clone()))))
        }
        Endpoint::Abstract(_) => Ok(Socket::Unix(bind_unix(endpoint, backlog)?, None)),
    }
}

fn bind_tcp(address: SocketAddr, backlog: u32) -> Result<Socket, Error> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(Socket::Tcp(socket.listen(backlog)?))
}

fn bind_unix(endpoint: &Endpoint, backlog: u32) -> Result<UnixListener, Error> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(unix_path(endpoint))?;
    Ok(socket.listen(backlog)?)
}

/// A socket file outlives a listener that was killed. One that nobody listens on is removed.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::AddressInUse);
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(fs::remove_file(path)?)
        }
        _ => Err(Error::AddressInUse),
    }
}

pub(crate) fn jitter() -> f64 {
    // The random state of the standard library's hasher: enough to keep listeners apart.
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
