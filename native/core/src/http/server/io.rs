//! The socket of a connection, as hyper reads and writes it and the connection's task looks at it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use super::check::Check;
use crate::metrics::{self, Transport};
use crate::stream::Stream;
use crate::sync::lock;

/// Bytes read ahead to learn whether the client is still there.
const AHEAD: usize = 64;

pub(crate) enum Wire {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

/// One socket, shared by hyper and the task that drives hyper; never contended.
#[derive(Clone)]
pub(crate) struct Io(Arc<Mutex<Inner>>);

struct Inner {
    wire: Wire,
    /// For HTTP/1 only.
    check: Option<Check>,
    /// What hyper has given back: read and checked already.
    given_back: Bytes,
    /// What was read ahead.
    ahead: Vec<u8>,
    /// The status that answers for what the client has sent, once hyper is done with what came
    /// before it.
    refusal: Option<u16>,
    eof: bool,
    /// The socket has not taken all that was written.
    blocked: bool,
    last_written: Option<Instant>,
}

/// How far the client has come with its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Between requests.
    Idle,
    /// Within a head.
    Head,
    /// Within a body.
    Body,
}

impl Io {
    pub(crate) fn new(wire: Wire) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            wire,
            check: None,
            given_back: Bytes::new(),
            ahead: Vec::new(),
            refusal: None,
            eof: false,
            blocked: false,
            last_written: None,
        })))
    }

    /// From here on it is HTTP/1 that is read.
    pub(crate) fn check(&self, check: Check) {
        lock(&self.0).check = Some(check);
    }

    /// Looks at what comes without taking it, up to the length of `wanted`: whether it begins like
    /// that.
    pub(crate) fn poll_begins_with(
        &self,
        cx: &mut Context<'_>,
        wanted: &[u8],
    ) -> Poll<io::Result<bool>> {
        let mut inner = lock(&self.0);
        loop {
            let seen = inner.ahead.len();
            if wanted.get(..seen) != Some(inner.ahead.as_slice()) || inner.eof {
                return Poll::Ready(Ok(false));
            }
            if seen == wanted.len() {
                return Poll::Ready(Ok(true));
            }
            ready!(inner.poll_look(cx, wanted.len() - seen))?;
        }
    }

    /// Takes back what hyper has read and not used.
    pub(crate) fn give_back(&self, bytes: Bytes) {
        lock(&self.0).given_back = bytes;
    }

    /// Whether hyper may hold what the socket has not taken.
    pub(crate) fn is_blocked(&self) -> bool {
        lock(&self.0).blocked
    }

    /// Resolves when the client has closed its side. Of a client that has sent more already it is
    /// not known.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = lock(&self.0);
        let complete = inner.check.as_ref().is_none_or(Check::between_messages);
        if inner.eof {
            return Poll::Ready(());
        }
        let ahead = !inner.ahead.is_empty() || !inner.given_back.is_empty();
        if ahead || !complete || inner.refusal.is_some() {
            return Poll::Pending;
        }
        match ready!(inner.poll_look(cx, AHEAD)) {
            Ok(()) if !inner.eof => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let inner = lock(&self.0);
        match &inner.check {
            Some(check) if check.in_head() => Progress::Head,
            Some(check) if !check.between_messages() => Progress::Body,
            _ => Progress::Idle,
        }
    }

    /// The status that is still to be sent for what the client has sent. A body that is refused is
    /// answered for as its request is.
    pub(crate) fn refusal(&self) -> Option<u16> {
        let inner = lock(&self.0);
        match &inner.check {
            Some(check) if check.in_head() => inner.refusal,
            _ => None,
        }
    }

    /// Refuses the head that has not become complete.
    pub(crate) fn refuse(&self, status: u16) {
        lock(&self.0).refusal.get_or_insert(status);
    }

    /// When bytes were written last.
    pub(crate) fn last_written(&self) -> Option<Instant> {
        lock(&self.0).last_written
    }

    /// The protocol that TLS has agreed on.
    pub(crate) fn alpn_is_h2(&self) -> bool {
        match &lock(&self.0).wire {
            Wire::Plain(_) => false,
            Wire::Tls(session) => session.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(lock(&self.0).wire, Wire::Tls(_))
    }

    /// Whether the client has sent what nobody will read, or may be sending it.
    pub(crate) fn has_unread(&self) -> bool {
        let inner = lock(&self.0);
        let within = inner.check.as_ref().is_some_and(|c| !c.between_messages());
        let ahead = !inner.ahead.is_empty() || !inner.given_back.is_empty();
        !inner.eof && (within || inner.refusal.is_some() || ahead)
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write_with(|wire| wire.poll_write(cx, bytes))
    }

    /// Ends this side.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).wire.as_write().poll_shutdown(cx)
    }

    /// Has the client's system report an error when the socket is dropped.
    pub(crate) fn reset(&self) {
        let inner = lock(&self.0);
        let stream = match &inner.wire {
            Wire::Plain(stream) => stream,
            Wire::Tls(session) => session.get_ref().0,
        };
        stream.reset_on_drop();
    }

    /// Reads and drops.
    pub(crate) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [0; 4096];
        let mut buf = ReadBuf::new(&mut scratch);
        ready!(lock(&self.0).wire.as_read().poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl Inner {
    fn poll_look(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<()>> {
        let mut scratch = [0; AHEAD];
        let mut buf = ReadBuf::new(&mut scratch);
        let mut buf = buf.take(max);
        ready!(self.wire.as_read().poll_read(cx, &mut buf))?;
        self.ahead.extend_from_slice(buf.filled());
        self.eof = buf.filled().is_empty();
        Poll::Ready(Ok(()))
    }

    /// To hyper a refused head is the end of the stream, and a refused body an error.
    fn refused(&self) -> Poll<io::Result<()>> {
        Poll::Ready(match &self.check {
            Some(check) if !check.in_head() => Err(io::ErrorKind::InvalidData.into()),
            _ => Ok(()),
        })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.given_back.is_empty() {
            let n = self.given_back.len().min(buf.remaining());
            buf.put_slice(&self.given_back.split_to(n));
            return Poll::Ready(Ok(()));
        }
        if self.refusal.is_some() {
            return self.refused();
        }
        let start = buf.filled().len();
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(self.ahead.get(..n).unwrap_or_default());
            self.ahead.drain(..n);
        }
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
            let begun = buf.filled().len() > start;
            // With what was read ahead comes what else there is: hyper would make more room to read
            // the rest of a head than it needs for all of it.
            match self.wire_read(cx, buf) {
                Poll::Ready(Ok(())) => {}
                other if !begun => return other,
                _ => {}
            }
        }
        let read = buf.filled().get(start..).unwrap_or_default();
        metrics::bytes_in.add(Transport::Http, read.len() as u64);
        let Some(check) = &mut self.check else {
            return Poll::Ready(Ok(()));
        };
        let verdict = check.feed(read);
        if let Some(status) = verdict.refusal {
            self.refusal = Some(status);
            buf.set_filled(start + verdict.pass);
            if verdict.pass == 0 {
                return self.refused();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wire_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.eof && buf.remaining() > 0 {
            let before = buf.filled().len();
            ready!(self.wire.as_read().poll_read(cx, buf))?;
            self.eof = buf.filled().len() == before;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_with<F>(&mut self, write: F) -> Poll<io::Result<usize>>
    where
        F: FnOnce(Pin<&mut (dyn AsyncWrite + Send + Unpin)>) -> Poll<io::Result<usize>>,
    {
        let result = write(self.wire.as_write());
        self.blocked = result.is_pending();
        let written = ready!(result)?;
        metrics::bytes_out.add(Transport::Http, written as u64);
        self.last_written = Some(Instant::now());
        Poll::Ready(Ok(written))
    }
}

impl Wire {
    fn as_read(&mut self) -> Pin<&mut (dyn AsyncRead + Send + Unpin)> {
        match self {
            Wire::Plain(stream) => Pin::new(stream),
            Wire::Tls(session) => Pin::new(session.as_mut()),
        }
    }

    fn as_write(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match self {
            Wire::Plain(stream) => Pin::new(stream),
            Wire::Tls(session) => Pin::new(session.as_mut()),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        lock(&self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write_with(|wire| wire.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write_with(|wire| wire.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).wire.as_write().poll_flush(cx)
    }

    /// Left to the connection's task, which may have more to say.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
