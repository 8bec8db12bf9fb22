//! The task of one connection.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::time::timeout;

use super::io::{Io, Wire};
use super::listener::Shared as Server;
use super::session::Session;
use super::stream::Takeover;
use crate::error::Error;
use crate::metrics::{self, Opened, Transport};
use crate::stream::Stream;
use crate::sync::lock;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Time for the last words of a connection.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a client may still be sending when its connection is ended is read, so that the reset which
/// unread data causes does not destroy the answer.
const DISCARD: usize = 1024 * 1024;

/// What the listener has decided about its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Will {
    Serve,
    Drain,
    Close,
}

/// A connection, as its listener knows it.
pub(crate) struct Connection {
    will: AtomicU8,
    pub(crate) waker: AtomicWaker,
    in_flight: AtomicUsize,
    /// The end of the connection would be taken for the end of the answer (HTTP/1.0).
    open_ended: AtomicBool,
    /// From the service to the task that polls it, within one poll.
    takeover: Mutex<Option<Box<Takeover>>>,
}

/// Holds a connection in use.
pub(crate) struct InFlight(Arc<Connection>);

impl InFlight {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        connection.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }

    pub(crate) fn connection(&self) -> Arc<Connection> {
        self.0.clone()
    }

    /// Until it is set back, the connection can end only by a reset.
    pub(crate) fn set_open_ended(&self, open_ended: bool) {
        self.0.open_ended.store(open_ended, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        // Streams of HTTP/2 end in tasks of their own.
        self.0.waker.wake();
    }
}

impl Connection {
    pub(crate) fn new() -> Self {
        Self {
            will: AtomicU8::new(Will::Serve as u8),
            waker: AtomicWaker::new(),
            in_flight: AtomicUsize::new(0),
            open_ended: AtomicBool::new(false),
            takeover: Mutex::new(None),
        }
    }

    /// Has the connection's task go on with a stream.
    pub(crate) fn take_over(&self, takeover: Takeover) {
        *lock(&self.takeover) = Some(Box::new(takeover));
    }

    pub(crate) fn taken_over(&self) -> Option<Box<Takeover>> {
        lock(&self.takeover).take()
    }

    pub(crate) fn tell(&self, will: Will) {
        self.will.fetch_max(will as u8, Ordering::Relaxed);
        self.waker.wake();
    }

    pub(crate) fn is_told(&self, will: Will) -> bool {
        self.will.load(Ordering::Relaxed) >= will as u8
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    async fn told(&self, will: Will) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.is_told(will) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// The life of an accepted socket.
pub(crate) async fn run(server: Arc<Server>, connection: Arc<Connection>, stream: Stream) {
    let _live = metrics::native_http_connections.live();
    let _opened = Opened::new(Transport::Http);
    // A client that has gone already is found out by the first read.
    let _ = stream.set_options(server.options.tcp);
    let peer = stream.peer();
    // In boxes: what opening a connection needs is not kept while it lives.
    let opening = Box::pin(open(&server, stream));
    let opened = tokio::select! {
        opened = opening => opened,
        () = connection.told(Will::Drain) => return,
    };
    match opened {
        Ok((io, http2)) => {
            let session = Session::new(server, connection.clone(), io.clone(), peer, http2);
            session.await;
            if connection.open_ended.load(Ordering::Relaxed) {
                io.reset();
            } else {
                Box::pin(end(io)).await;
            }
        }
        Err(error) => tracing::debug!(%error, "an HTTP client did not get as far as a request"),
    }
}

/// TLS, and which HTTP it is.
async fn open(server: &Server, stream: Stream) -> Result<(Io, bool), Error> {
    let options = &server.options;
    let wire = match &server.acceptor {
        None => Wire::Plain(stream),
        Some(acceptor) => {
            let session = acceptor.accept(stream, options.handshake_timeout).await?;
            Wire::Tls(Box::new(session))
        }
    };
    let io = Io::new(wire);
    let http2 = if io.alpn_is_h2() || !options.http1 {
        true
    } else if !options.http2 || io.is_tls() {
        false
    } else {
        let looking = poll_fn(|cx| io.poll_begins_with(cx, PREFACE));
        timeout(options.idle_timeout, looking)
            .await
            .map_err(|_| Error::Timeout)??
    };
    Ok((io, http2))
}

/// Says what is left to be said and ends the connection.
async fn end(io: Io) {
    if let Some(status) = io.refusal() {
        metrics::http_refused.add(1);
        let answer = refusal(status);
        let mut rest = answer.as_slice();
        let writing = async {
            while !rest.is_empty() {
                let written = poll_fn(|cx| io.poll_write(cx, rest)).await?;
                rest = rest.get(written..).unwrap_or_default();
            }
            std::io::Result::Ok(())
        };
        if !matches!(timeout(LAST_WORDS, writing).await, Ok(Ok(()))) {
            return;
        }
    }
    let unread = io.has_unread();
    if !matches!(
        timeout(LAST_WORDS, poll_fn(|cx| io.poll_end(cx))).await,
        Ok(Ok(()))
    ) || !unread
    {
        return;
    }
    let discarding = async {
        let mut left = DISCARD;
        while left > 0 {
            match poll_fn(|cx| io.poll_discard(cx)).await {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => break,
            }
        }
    };
    let _ = timeout(LAST_WORDS, discarding).await;
}

fn refusal(status: u16) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    format!("HTTP/1.1 {status} {reason}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .into_bytes()
}
