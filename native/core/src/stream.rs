//! Plain byte streams: TCP and Unix-domain sockets behind one type, and the halves of these and of
//! pairs of descriptors.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio_util::io::poll_read_buf;

use crate::options::Tcp;
use crate::pair::Pair;
use crate::reader::Reader;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Ip(SocketAddr),
    /// A Unix-domain socket in the file system.
    Path(PathBuf),
    /// A Unix-domain socket in Linux's abstract namespace.
    Abstract(Vec<u8>),
    /// A Unix-domain socket without a name, as most clients have.
    Unnamed,
}

#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub(crate) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
    Pair(PairHalf),
}

pub(crate) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
    Pair(Arc<Pair>),
}

/// Closes the pair with the task that reads, since those who send may hold the other half for
/// longer, and nobody else would learn of the end.
pub(crate) struct PairHalf(Arc<Pair>);

impl Drop for PairHalf {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Stream {
    pub(crate) fn set_options(&self, options: Tcp) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_nodelay(options.nodelay)?;
                socket2::SockRef::from(stream).set_keepalive(options.keepalive)
            }
            Stream::Unix(_) => Ok(()),
        }
    }

    /// Makes dropping it break the connection off, where there is such a thing.
    pub(crate) fn reset_on_drop(&self) {
        if let Stream::Tcp(stream) = self {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    pub(crate) fn peer(&self) -> Option<Address> {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().ok().map(Address::Ip),
            Stream::Unix(stream) => stream.peer_addr().ok().map(unix_address),
        }
    }

    pub(crate) fn local(&self) -> Option<Address> {
        match self {
            Stream::Tcp(stream) => stream.local_addr().ok().map(Address::Ip),
            Stream::Unix(stream) => stream.local_addr().ok().map(unix_address),
        }
    }

    pub(crate) fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Stream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Stream::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
        }
    }
}

pub(crate) fn unix_address(address: unix::SocketAddr) -> Address {
    if let Some(path) = address.as_pathname() {
        return Address::Path(path.to_owned());
    }
    match abstract_name(&address) {
        Some(name) => Address::Abstract(name.to_owned()),
        None => Address::Unnamed,
    }
}

#[cfg(target_os = "linux")]
fn abstract_name(address: &unix::SocketAddr) -> Option<&[u8]> {
    address.as_abstract_name()
}

#[cfg(not(target_os = "linux"))]
fn abstract_name(_: &unix::SocketAddr) -> Option<&[u8]> {
    None
}

/// The halves of a pair.
pub(crate) fn split_pair(pair: Pair) -> (ReadHalf, WriteHalf) {
    let pair = Arc::new(pair);
    (
        ReadHalf::Pair(PairHalf(pair.clone())),
        WriteHalf::Pair(pair),
    )
}

impl ReadHalf {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            ReadHalf::Tcp(half) => half.as_ref().poll_read_ready(cx),
            ReadHalf::Unix(half) => half.as_ref().poll_read_ready(cx),
            ReadHalf::Pair(half) => half.0.poll_read_ready(cx),
        }
    }

    /// Reads into the reader's block, which is given room only when there is something to read.
    pub(crate) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Reader,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_ready(cx))?;
            reader.make_room();
            match self {
                ReadHalf::Tcp(half) => return poll_read_buf(Pin::new(half), cx, &mut reader.buf),
                ReadHalf::Unix(half) => return poll_read_buf(Pin::new(half), cx, &mut reader.buf),
                ReadHalf::Pair(half) => match half.0.try_read(&mut reader.buf) {
                    // Not as ready as it seemed: ask again.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                },
            }
        }
    }

    /// Reads what a pair holds at the moment. 0 is the end of that.
    pub(crate) fn read_rest(&self, reader: &mut Reader) -> io::Result<usize> {
        match self {
            ReadHalf::Tcp(_) | ReadHalf::Unix(_) => Ok(0),
            ReadHalf::Pair(half) => match half.0.read_now(&mut reader.buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                result => result,
            },
        }
    }

    /// Reads into a block that is thrown away. What a pipe still holds does nobody harm.
    pub(crate) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        block: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            ReadHalf::Tcp(half) => Pin::new(half).poll_read(cx, block),
            ReadHalf::Unix(half) => Pin::new(half).poll_read(cx, block),
            ReadHalf::Pair(_) => Poll::Ready(Ok(())),
        }
    }
}

impl WriteHalf {
    /// Reads what there is, without being told of what comes later. Both halves are of one stream.
    pub(crate) fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        match self {
            WriteHalf::Tcp(half) => half.as_ref().try_read_buf(buf),
            WriteHalf::Unix(half) => half.as_ref().try_read_buf(buf),
            WriteHalf::Pair(pair) => pair.try_read(buf),
        }
    }

    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            WriteHalf::Tcp(half) => half.try_write_vectored(slices),
            WriteHalf::Unix(half) => half.try_write_vectored(slices),
            WriteHalf::Pair(pair) => pair.try_write(slices),
        }
    }

    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            WriteHalf::Tcp(half) => half.as_ref().poll_write_ready(cx),
            WriteHalf::Unix(half) => half.as_ref().poll_write_ready(cx),
            WriteHalf::Pair(pair) => pair.poll_write_ready(cx),
        }
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            WriteHalf::Tcp(half) => {
                let stream: &TcpStream = half.as_ref();
                Poll::Ready(socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write))
            }
            WriteHalf::Unix(half) => {
                let stream: &UnixStream = half.as_ref();
                Poll::Ready(socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write))
            }
            WriteHalf::Pair(pair) => pair.poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
