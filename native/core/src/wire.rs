//! What a driver reads from and writes to: a plain stream or a TLS session over one.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::outbox::Outbox;
use crate::reader::Reader;
use crate::stream::{ReadHalf, Stream, WriteHalf};
use crate::sync::lock;

/// Parts of the queue that one write gathers.
pub(crate) const GATHER: usize = 32;

/// A TLS record carries at most this much.
const TLS_RECORD: usize = 16 * 1024;

pub(crate) enum Wire {
    /// The write half is shared with the senders, which try it on their own threads first.
    Plain(ReadHalf, Arc<WriteHalf>),
    Tls(Box<Tls>),
}

pub(crate) struct Tls {
    session: TlsStream<Stream>,
    /// Records that the socket has not taken yet may wait in the session.
    unflushed: bool,
}

impl Wire {
    pub(crate) fn tls(session: TlsStream<Stream>) -> Self {
        Wire::Tls(Box::new(Tls {
            session,
            unflushed: false,
        }))
    }

    /// Whether something waits below the queue.
    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Wire::Plain(..) => true,
            Wire::Tls(tls) => !tls.unflushed,
        }
    }

    /// Reads into the reader's block, which is given room only when there is something to read: an
    /// idle connection holds no block. 0 is the end of the stream.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Reader,
    ) -> Poll<io::Result<usize>> {
        match self {
            Wire::Plain(half, _) => half.poll_read_into(cx, reader),
            Wire::Tls(tls) => {
                let mut block = [MaybeUninit::uninit(); TLS_RECORD];
                let mut read_buf = ReadBuf::uninit(&mut block);
                ready!(Pin::new(&mut tls.session).poll_read(cx, &mut read_buf))?;
                reader.buf.extend_from_slice(read_buf.filled());
                Poll::Ready(Ok(read_buf.filled().len()))
            }
        }
    }

    /// Reads what is there now, from a peer that will write nothing more. 0 is the end.
    pub(crate) fn read_rest(&mut self, reader: &mut Reader) -> io::Result<usize> {
        match self {
            Wire::Plain(half, _) => half.read_rest(reader),
            Wire::Tls(_) => Ok(0),
        }
    }

    /// Writes what is queued until the queue is empty, and returns whether a refused sender is to
    /// be told that there is room.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Mutex<Outbox>,
    ) -> (bool, Poll<io::Result<()>>) {
        let mut room = false;
        loop {
            match self.poll_write_some(cx, outbox) {
                Poll::Ready(Ok(Some(tell))) => room |= tell,
                Poll::Ready(Ok(None)) => return (room, Poll::Ready(Ok(()))),
                Poll::Ready(Err(error)) => return (room, Poll::Ready(Err(error))),
                Poll::Pending => return (room, Poll::Pending),
            }
        }
    }

    fn poll_write_some(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Mutex<Outbox>,
    ) -> Poll<io::Result<Option<bool>>> {
        match self {
            Wire::Plain(_, half) => {
                ready!(half.poll_ready(cx))?;
                let mut outbox = lock(outbox);
                let (slices, count) = outbox.front::<GATHER>();
                if count == 0 {
                    return Poll::Ready(Ok(None));
                }
                match half.try_write(slices.get(..count).unwrap_or_default()) {
                    Ok(n) => Poll::Ready(Ok(Some(outbox.written(n)))),
                    // The socket was not as ready as it seemed: ask again.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Ready(Ok(Some(false))),
                    Err(e) => Poll::Ready(Err(e)),
                }
            }
            Wire::Tls(tls) => {
                // Encryption happens outside the lock, which senders take.
                let parts = lock(outbox).parts(GATHER);
                if parts.is_empty() {
                    ready!(Pin::new(&mut tls.session).poll_flush(cx))?;
                    tls.unflushed = false;
                    return Poll::Ready(Ok(None));
                }
                let slices: Vec<_> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
                tls.unflushed = true;
                let n = ready!(Pin::new(&mut tls.session).poll_write_vectored(cx, &slices))?;
                Poll::Ready(Ok(Some(lock(outbox).written(n))))
            }
        }
    }

    /// Reads into a block that is thrown away.
    pub(crate) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        block: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut block = ReadBuf::new(block);
        match self {
            Wire::Plain(half, _) => ready!(half.poll_discard(cx, &mut block))?,
            Wire::Tls(tls) => ready!(Pin::new(&mut tls.session).poll_read(cx, &mut block))?,
        }
        Poll::Ready(Ok(block.filled().len()))
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Plain(_, half) => half.poll_shutdown(cx),
            Wire::Tls(tls) => Pin::new(&mut tls.session).poll_shutdown(cx),
        }
    }
}
