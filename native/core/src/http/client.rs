//! HTTP/1.1 and HTTP/2 as a client.
//!
//! A [`Client`] is a pool of connections to one origin. Each connection is driven by a task of its
//! own; requests have none. The owner is told once per edge, through [`Notify`], that a request has
//! news, and fetches everything itself: the head of the answer with [`Client::news`], its body with
//! [`Client::take`]. A body is read ahead up to a high-water mark; beyond it the server waits.

mod alarm;
mod clock;
mod connect;
mod exchange;
mod h1;
mod h2;
mod io;
mod pool;
mod request;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use bytes::Bytes;
use tokio::runtime::Handle;

use crate::error::Error;
use crate::options::{Dial, Tcp, Tls};
use shared::Shared;

pub use request::{Invalid, Request};

/// What a client keeps to.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name or the address of the origin; IPv6 without brackets.
    pub host: String,
    /// The origin's port.
    pub port: u16,
    /// `https` and how; `http` where absent.
    pub tls: Option<Tls>,
    /// HTTP/1.1 may be spoken.
    pub http1: bool,
    /// HTTP/2 may be spoken: where ALPN agrees on it, or, without HTTP/1.1, in any case.
    pub http2: bool,
    /// Connections over HTTP/1.1.
    pub max_connections: usize,
    /// Requests that wait for a connection.
    pub max_queue: usize,
    /// Size of the head of an answer.
    pub max_head: usize,
    /// Bytes of a body read ahead of the owner.
    pub high_water: usize,
    /// How long a connection is kept unused.
    pub idle_timeout: Duration,
    /// How to dial.
    pub dial: Dial,
    /// Options of the sockets.
    pub tcp: Tcp,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// An HTTP proxy to go through.
    pub proxy: Option<Proxy>,
}

/// An HTTP proxy.
#[derive(Clone)]
pub struct Proxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `proxy-authorization`.
    pub authorization: Option<Vec<u8>>,
}

impl std::fmt::Debug for Proxy {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why there is no answer, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub reason: Reason,
    /// The server cannot have acted on the request.
    pub safe: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// To the connection, or to the request as a whole.
    Error(Error),
    /// The server does not keep to HTTP.
    Protocol,
}

impl From<Error> for Reason {
    fn from(error: Error) -> Self {
        Reason::Error(error)
    }
}

impl Failure {
    fn new(error: Error, safe: bool) -> Self {
        Self {
            reason: Reason::Error(error),
            safe,
        }
    }

    fn protocol(safe: bool) -> Self {
        Self {
            reason: Reason::Protocol,
            safe,
        }
    }
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// Not of an interim one.
    pub status: u16,
    /// Names are in lower case.
    pub headers: HeaderMap,
}

/// What the owner has not heard of a request.
#[derive(Debug)]
pub enum News {
    /// The head of the answer.
    Head(Head),
    /// There is something to take, body or end.
    Readable,
    /// It is over without an answer.
    Failed(Failure),
}

/// What to expect after taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There is more now.
    More,
    /// The owner will be told of more.
    Armed,
    /// The body is complete.
    Done,
    /// The rest of the body will not come.
    Failed(Failure),
}

/// A snapshot of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Connections that stand.
    pub connections: usize,
    /// Requests under way on them, or for which one is being made.
    pub active: usize,
    /// Requests that wait for one.
    pub queued: usize,
}

/// The way out for notices. Called from tokio's threads only, never from a caller's.
pub trait Notify: Send + Sync + 'static {
    /// A request has news; not repeated before the owner has taken everything there was.
    fn ready(&self, request: u64);
}

/// The owner's end of a pool. Dropping it closes everything.
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Reads the files that are named in the options, which may block. Dials nothing.
    ///
    /// # Errors
    /// [`Error::Tls`] for files that cannot be used, [`Error::NoSuchName`] for what cannot be a
    /// host name.
    pub fn open(
        runtime: &Handle,
        notify: Box<dyn Notify>,
        options: Options,
    ) -> Result<Self, Error> {
        let shared = Shared::new(runtime.clone(), notify, options)?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Sends a request, or queues it where no connection is free, and returns its number.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many wait, [`Error::Closed`] after [`Client::close`].
    pub fn request(&self, request: Request) -> Result<u64, Error> {
        self.shared.request(request)
    }

    /// What is new of a request.
    pub fn news(&self, request: u64) -> Vec<News> {
        self.shared.news(request)
    }

    /// Takes at most `max_parts` parts of a body and, beyond the first, at most `max_bytes` bytes.
    /// Nothing is known of a request that is over.
    pub fn take(
        &self,
        request: u64,
        max_parts: usize,
        max_bytes: usize,
    ) -> Option<(Vec<Bytes>, Taken)> {
        self.shared.take(request, max_parts, max_bytes)
    }

    /// Stops a request wherever it is. Stopping one that is over is fine.
    pub fn cancel(&self, request: u64) {
        self.shared.cancel(request);
    }

    /// A snapshot.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Stops all requests and closes all connections. Closing twice is fine.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.close();
    }
}
