//! HTTP on an open connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, Sleep, sleep_until};

use super::check::Check;
use super::connection::{Connection, Will};
use super::io::{Io, Progress};
use super::listener::Shared as Server;
use super::service::Service;
use super::stream::{Outcome, Streaming, Takeover};
use crate::stream::Address;

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

type Http1 = http1::Connection<TokioIo<Io>, Service>;
type Http2 = http2::Connection<TokioIo<Io>, Service, TokioExecutor>;

enum Http {
    One(Box<Http1>),
    Two(Box<Http2>),
    Stream(Box<Streaming>),
    Over,
}

/// An open connection until there is nothing more to serve on it.
pub(crate) struct Session {
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
    pub(crate) fn new(
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
