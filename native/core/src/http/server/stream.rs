//! A streaming answer over HTTP/1, written without hyper.
//!
//! A stream is most of the time a client that waits. hyper would hold a read buffer of 8 KiB for it
//! and its own state; here it costs a few hundred bytes.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::body::AnswerBody;
use super::io::Io;
use super::service::Service;

/// Parts are taken from the serving process while less than this waits for the socket.
const LOW_WATER: usize = 64 * 1024;

/// A part up to this size is copied into one piece with what frames it.
const COPY_MAX: usize = 1024;

const MAX_SLICES: usize = 32;

/// A stream that has been answered with and is not hyper's business any more.
pub(crate) struct Takeover {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
    /// HTTP/1.0, where the end of the connection ends the stream.
    pub(crate) http10: bool,
    /// The client wants to go on after the stream.
    pub(crate) keep_alive: bool,
}

/// The stream on its way.
pub(crate) struct Streaming {
    io: Io,
    pub(crate) service: Service,
    body: AnswerBody,
    chunked: bool,
    pub(crate) keep_alive: bool,
    queue: VecDeque<Bytes>,
    waiting: usize,
    over: Option<Outcome>,
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Complete,
    CutOff,
}

impl Streaming {
    pub(crate) fn new(io: Io, service: Service, takeover: Takeover) -> Self {
        let head = head(&takeover);
        Self {
            io,
            service,
            body: takeover.body,
            chunked: !takeover.http10,
            keep_alive: takeover.keep_alive && !takeover.http10,
            waiting: head.len(),
            queue: VecDeque::from([head]),
            over: None,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            self.fill(cx);
            match ready!(self.poll_write(cx)) {
                Err(_) => return Poll::Ready(Outcome::CutOff),
                Ok(()) => {
                    if let Some(outcome) = self.over {
                        return Poll::Ready(outcome);
                    }
                    // All that there was is written; the body has registered for more.
                    if self.waiting == 0 && !self.fill(cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Takes parts while there are some. Returns whether there is something to be written or done.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        while self.over.is_none() && self.waiting < LOW_WATER {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.push_part(data);
                    }
                }
                Poll::Ready(Some(Err(_))) => self.over = Some(Outcome::CutOff),
                Poll::Ready(None) => {
                    if self.chunked {
                        self.push(Bytes::from_static(b"0\r\n\r\n"));
                    }
                    self.over = Some(Outcome::Complete);
                }
            }
        }
        self.waiting > 0 || self.over.is_some()
    }

    fn push_part(&mut self, data: Bytes) {
        if !self.chunked {
            self.push(data);
            return;
        }
        let mut size = String::new();
        // Writing to a string cannot fail.
        let _ = write!(size, "{:x}\r\n", data.len());
        if data.len() <= COPY_MAX {
            let mut chunk = BytesMut::with_capacity(size.len() + data.len() + 2);
            chunk.extend_from_slice(size.as_bytes());
            chunk.extend_from_slice(&data);
            chunk.extend_from_slice(b"\r\n");
            self.push(chunk.freeze());
        } else {
            self.push(Bytes::from(size));
            self.push(data);
            self.push(Bytes::from_static(b"\r\n"));
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.waiting += bytes.len();
        self.queue.push_back(bytes);
    }

    /// Writes what waits. Ready when the socket has taken all of it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waiting > 0 {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slot, bytes) in slices.iter_mut().zip(&self.queue) {
                *slot = IoSlice::new(bytes);
                count += 1;
            }
            let slices = slices.get(..count).unwrap_or_default();
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written(written);
        }
        self.queue = VecDeque::new();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn written(&mut self, mut n: usize) {
        self.waiting -= n.min(self.waiting);
        while let Some(bytes) = self.queue.front_mut() {
            if bytes.len() > n {
                bytes.advance(n);
                break;
            }
            n -= bytes.len();
            self.queue.pop_front();
        }
    }
}

fn head(takeover: &Takeover) -> Bytes {
    let version = if takeover.http10 { "1.0" } else { "1.1" };
    let reason = takeover.status.canonical_reason().unwrap_or_default();
    let mut head = BytesMut::with_capacity(256);
    let mut line = |parts: &[&[u8]]| {
        for part in parts {
            head.extend_from_slice(part);
        }
        head.extend_from_slice(b"\r\n");
    };
    let status = takeover.status.as_str();
    line(&[
        b"HTTP/",
        version.as_bytes(),
        b" ",
        status.as_bytes(),
        b" ",
        reason.as_bytes(),
    ]);
    for (name, value) in &takeover.headers {
        line(&[name.as_str().as_bytes(), b": ", value.as_bytes()]);
    }
    if takeover.http10 || !takeover.keep_alive {
        line(&[b"connection: close"]);
    }
    if !takeover.http10 {
        line(&[b"transfer-encoding: chunked"]);
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    line(&[b"date: ", date.as_bytes()]);
    line(&[]);
    head.freeze()
}
