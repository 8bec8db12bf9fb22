//! The task of one connection.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::server::Shared as Server;
use super::server_check::Check;
use super::server_io::{Io, Progress, Wire};
use super::server_service::Service;
use super::server_stream::{Outcome, Streaming, Takeover};
use crate::error::Error;
use crate::metrics;
use crate::stream::{Address, Stream};
use crate::sync::lock;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Time for the last words of a connection.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a client may still be sending when its connection is ended is read, so that the reset which
/// unread data causes does not destroy the answer.
const DISCARD: usize = 1024 * 1024;

const REQUEST_TIMEOUT: u16 = 408;

/// hyper's own bounds of its buffers.
const MIN_BUFFER: usize = 8 * 1024;
const MAX_BUFFER: usize = 408 * 1024;

/// A request line without its target, and the end of a head.
const LINE: usize = 64;

/// One HTTP/2 header block, decoded.
const MAX_HEADER_LIST: usize = 256 * 1024;

/// Streams that a client has reset and the service has not seen yet.
const MAX_RESETS: usize = 20;

/// Streams that were reset because of the client's errors.
const MAX_ERROR_RESETS: usize = 256;

/// Headers up to this many are parsed without an allocation.
const FREE_HEADERS: usize = 100;

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
    waker: AtomicWaker,
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

    fn taken_over(&self) -> Option<Box<Takeover>> {
        lock(&self.takeover).take()
    }

    pub(crate) fn tell(&self, will: Will) {
        self.will.fetch_max(will as u8, Ordering::Relaxed);
        self.waker.wake();
    }

    fn is_told(&self, will: Will) -> bool {
        self.will.load(Ordering::Relaxed) >= will as u8
    }

    fn is_busy(&self) -> bool {
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

type Http1 = http1::Connection<TokioIo<Io>, Service>;
type Http2 = http2::Connection<TokioIo<Io>, Service, TokioExecutor>;

enum Http {
    One(Box<Http1>),
    Two(Box<Http2>),
    Stream(Box<Streaming>),
    Over,
}

/// An open connection until there is nothing more to serve on it.
struct Session {
    server: Arc<Server>,
    connection: Arc<Connection>,
    io: Io,
    http: Http,
    draining: bool,
    /// What the client was last seen doing, and since when.
    state: Doing,
    since: Instant,
    alarm: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Idle,
    Sending,
    /// A request is being served.
    Waiting,
}

impl Session {
    fn new(
        server: Arc<Server>,
        connection: Arc<Connection>,
        io: Io,
        peer: Option<Address>,
        http2: bool,
    ) -> Self {
        let service = Service {
            server: server.clone(),
            connection: connection.clone(),
            peer,
            tls: io.is_tls(),
            io: io.clone(),
        };
        let http = if http2 {
            Http::Two(Box::new(serve_http2(&server, io.clone(), service)))
        } else {
            io.check(Check::new(server.options.check_limits()));
            Http::One(Box::new(serve_http1(&server, io.clone(), service)))
        };
        let since = Instant::now();
        let alarm = Box::pin(sleep_until(since + server.options.idle_timeout));
        Self {
            server,
            connection,
            io,
            http,
            draining: false,
            state: Doing::Idle,
            since,
            alarm,
        }
    }

    /// Stops after the requests in progress.
    fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            match &mut self.http {
                Http::One(http) => Pin::new(http.as_mut()).graceful_shutdown(),
                Http::Two(http) => Pin::new(http.as_mut()).graceful_shutdown(),
                Http::Stream(_) | Http::Over => {}
            }
        }
    }

    fn poll_http(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let result = match &mut self.http {
                Http::One(http) => Pin::new(http.as_mut()).poll(cx),
                Http::Two(http) => Pin::new(http.as_mut()).poll(cx),
                Http::Stream(stream) => match ready!(stream.poll(cx)) {
                    Outcome::Complete if stream.keep_alive && !self.draining => {
                        self.end_stream();
                        continue;
                    }
                    _ => return Poll::Ready(()),
                },
                Http::Over => return Poll::Ready(()),
            };
            match (result, self.connection.taken_over()) {
                (Poll::Pending, Some(takeover)) => self.begin_stream(*takeover),
                (Poll::Pending, None) => return Poll::Pending,
                (Poll::Ready(result), _) => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "an HTTP connection has ended");
                    }
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Goes on without hyper.
    fn begin_stream(&mut self, takeover: Takeover) {
        if let Http::One(http) = std::mem::replace(&mut self.http, Http::Over) {
            let parts = http.into_parts();
            self.io.give_back(parts.read_buf);
            let stream = Streaming::new(self.io.clone(), parts.service, takeover);
            self.http = Http::Stream(Box::new(stream));
        }
    }

    /// Goes on with hyper.
    fn end_stream(&mut self) {
        if let Http::Stream(stream) = std::mem::replace(&mut self.http, Http::Over) {
            let http = serve_http1(&self.server, self.io.clone(), stream.service);
            self.http = Http::One(Box::new(http));
        }
    }

    fn observe(&mut self) {
        let state = if self.connection.is_busy() {
            Doing::Waiting
        } else {
            match self.io.progress() {
                Progress::Head => Doing::Sending,
                Progress::Idle | Progress::Body => Doing::Idle,
            }
        };
        if state != self.state {
            self.state = state;
            self.since = Instant::now();
            if let Some(deadline) = self.deadline()
                && deadline < self.alarm.deadline()
            {
                self.alarm.as_mut().reset(deadline);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let options = &self.server.options;
        match self.state {
            Doing::Waiting => None,
            Doing::Sending => Some(self.since + options.header_timeout),
            Doing::Idle => {
                let since = self
                    .io
                    .last_written()
                    .map_or(self.since, |w| w.max(self.since));
                Some(since + options.idle_timeout)
            }
        }
    }

    /// Whether the client has taken too long.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match self.deadline() {
                Some(deadline) if deadline <= now => return Poll::Ready(()),
                Some(deadline) => self.alarm.as_mut().reset(deadline),
                None => {
                    let again = now + self.server.options.idle_timeout;
                    self.alarm.as_mut().reset(again);
                }
            }
        }
        Poll::Pending
    }
}

impl Future for Session {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.get_mut();
        me.connection.waker.register(cx.waker());
        if me.connection.is_told(Will::Close) {
            return Poll::Ready(());
        }
        if me.connection.is_told(Will::Drain) {
            me.drain();
        }
        if me.poll_http(cx).is_ready() {
            return Poll::Ready(());
        }
        me.observe();
        if me.state == Doing::Waiting
            && !matches!(me.http, Http::Two(_))
            && me.io.poll_gone(cx).is_ready()
        {
            return Poll::Ready(());
        }
        let late = me.poll_alarm(cx);
        if late.is_ready() && me.state == Doing::Sending {
            me.io.refuse(REQUEST_TIMEOUT);
        }
        late
    }
}

fn serve_http1(server: &Server, io: Io, service: Service) -> Http1 {
    let options = &server.options;
    let field = options.max_header + ": \r\n".len();
    let head = LINE + options.max_target + options.max_headers * field;
    let mut builder = http1::Builder::new();
    builder
        // The session itself looks whether the client is there: hyper would hold a buffer for it.
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(head.clamp(MIN_BUFFER, MAX_BUFFER));
    if options.max_headers > FREE_HEADERS {
        builder.max_headers(options.max_headers);
    }
    builder.serve_connection(TokioIo::new(io), service)
}

fn serve_http2(server: &Server, io: Io, service: Service) -> Http2 {
    let options = &server.options;
    let list = options.max_headers * (options.max_header + 32);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_send_buf_size(64 * 1024)
        .max_header_list_size(u32::try_from(list.min(MAX_HEADER_LIST)).unwrap_or(u32::MAX));
    builder.serve_connection(TokioIo::new(io), service)
}
