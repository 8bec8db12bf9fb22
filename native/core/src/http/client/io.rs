//! The byte stream below an HTTP connection, which counts and remembers what went wrong.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::error::Error;
use crate::metrics::{self, Transport};
use crate::stream::Stream;

/// What the owner of a connection can ask about its stream, which the protocol holds.
#[derive(Default)]
pub(crate) struct Trace {
    read: AtomicU64,
    failed: OnceLock<Error>,
}

impl Trace {
    /// Bytes read so far.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The first error of the stream.
    pub(crate) fn failed(&self) -> Option<Error> {
        self.failed.get().copied()
    }

    fn note<T>(&self, result: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = result {
            let _ = self.failed.set(Error::from(error));
        }
    }
}

pub(crate) struct Io {
    wire: Wire,
    trace: Arc<Trace>,
}

enum Wire {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

impl Io {
    pub(crate) fn plain(stream: Stream) -> Self {
        Self::new(Wire::Plain(stream))
    }

    pub(crate) fn tls(session: TlsStream<Stream>) -> Self {
        Self::new(Wire::Tls(Box::new(session)))
    }

    fn new(wire: Wire) -> Self {
        Self {
            wire,
            trace: Arc::default(),
        }
    }

    pub(crate) fn trace(&self) -> Arc<Trace> {
        self.trace.clone()
    }

    /// Whether writing costs no more than a copy into the kernel.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.wire, Wire::Plain(_))
    }

    /// The protocol that was agreed on in the TLS handshake.
    pub(crate) fn agreed(&self) -> Option<&[u8]> {
        match &self.wire {
            Wire::Plain(_) => None,
            Wire::Tls(session) => session.get_ref().1.alpn_protocol(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(session) => Pin::new(session).poll_read(cx, buf),
        };
        let read = (buf.filled().len() - before) as u64;
        if read > 0 {
            this.trace.read.fetch_add(read, Ordering::Relaxed);
            metrics::bytes_in.add(Transport::Http, read);
        }
        this.trace.note(&result);
        result
    }
}

impl Io {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &result {
            metrics::bytes_out.add(Transport::Http, *written as u64);
        }
        self.trace.note(&result);
        result
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(session) => Pin::new(session).poll_write(cx, buf),
        };
        this.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Tls(session) => Pin::new(session).poll_write_vectored(cx, bufs),
        };
        this.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(session) => Pin::new(session).poll_flush(cx),
        };
        this.trace.note(&result);
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(session) => Pin::new(session).poll_shutdown(cx),
        }
    }
}
