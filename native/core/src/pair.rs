//! A byte stream over two descriptors: one that is read from and one that is written to.
//!
//! Pipes and sockets are polled, and their owner reads and writes on its own thread as with any
//! connection. Files, terminals and devices cannot be polled, or not without harm to others that
//! have them open: a thread copies between them and a pipe ([`crate::pump`]).

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::pump::{self, Done};
use crate::sync::lock;

/// Two descriptors, in the hands of a connection's task and of those that send and take. They are
/// closed when the task ends, whoever still holds the pair.
pub(crate) struct Pair {
    source: Mutex<Option<Source>>,
    target: Mutex<Option<Target>>,
    /// Whether a thread has still to write what was passed to it.
    writing: Mutex<Option<Done>>,
}

enum Source {
    Pipe(pipe::Receiver, Flags),
    /// Any stream socket: the calls are the same for all of them.
    Socket(UnixStream, Flags),
}

enum Target {
    Pipe(pipe::Sender, Flags),
    Socket(UnixStream, Flags),
}

/// How a descriptor is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pipe,
    Socket,
    /// By a thread.
    Pumped,
}

/// What is to be undone at the end: other processes may share the open file, and they would meet
/// errors that they do not expect.
#[derive(Clone, Copy)]
struct Flags {
    was_blocking: bool,
}

impl Pair {
    /// Takes the descriptors over. Called where tokio's reactor is at hand.
    pub(crate) fn new(source: OwnedFd, target: OwnedFd) -> io::Result<Self> {
        let (target, writing) = Target::new(target)?;
        Ok(Self {
            source: Mutex::new(Some(Source::new(source)?)),
            target: Mutex::new(Some(target)),
            writing: Mutex::new(writing),
        })
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*lock(&self.source) {
            Some(Source::Pipe(pipe, _)) => pipe.poll_read_ready(cx),
            Some(Source::Socket(socket, _)) => socket.poll_read_ready(cx),
            None => Poll::Ready(Err(closed())),
        }
    }

    pub(crate) fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        match &*lock(&self.source) {
            Some(Source::Pipe(pipe, _)) => pipe.try_read_buf(buf),
            Some(Source::Socket(socket, _)) => socket.try_read_buf(buf),
            None => Err(closed()),
        }
    }

    /// Reads what is there, also where nobody has been told of it yet.
    pub(crate) fn read_now(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let mut block = [0; 16 * 1024];
        let read = match &*lock(&self.source) {
            Some(Source::Pipe(pipe, _)) => rustix::io::read(pipe, &mut block)?,
            Some(Source::Socket(socket, _)) => rustix::io::read(socket, &mut block)?,
            None => return Err(closed()),
        };
        buf.extend_from_slice(block.get(..read).unwrap_or_default());
        Ok(read)
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*lock(&self.target) {
            Some(Target::Pipe(pipe, _)) => pipe.poll_write_ready(cx),
            Some(Target::Socket(socket, _)) => socket.poll_write_ready(cx),
            None => Poll::Ready(Err(closed())),
        }
    }

    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &*lock(&self.target) {
            Some(Target::Pipe(pipe, _)) => pipe.try_write_vectored(slices),
            Some(Target::Socket(socket, _)) => socket.try_write_vectored(slices),
            None => Err(closed()),
        }
    }

    /// Lets the reader of what was written see its end. Ready when nothing is left to be written.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close_target();
        match &mut *lock(&self.writing) {
            Some(done) => done.poll(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn close_target(&self) {
        if let Some(Target::Socket(socket, _)) = lock(&self.target).take().as_ref() {
            // Others may have it open: closing would not tell the peer.
            let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write);
        }
    }

    /// Closes both.
    pub(crate) fn close(&self) {
        drop(lock(&self.source).take());
        self.close_target();
    }
}

impl Source {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        match kind(&fd)? {
            Kind::Pipe => {
                let flags = Flags::of(&fd)?;
                Ok(Source::Pipe(pipe::Receiver::from_owned_fd(fd)?, flags))
            }
            Kind::Socket => {
                let flags = Flags::of(&fd)?;
                Ok(Source::Socket(socket(fd)?, flags))
            }
            Kind::Pumped => {
                let pipe = pump::reader(File::from(fd))?;
                let pipe = pipe::Receiver::from_owned_fd(pipe)?;
                Ok(Source::Pipe(pipe, Flags::PRIVATE))
            }
        }
    }
}

impl Target {
    fn new(fd: OwnedFd) -> io::Result<(Self, Option<Done>)> {
        match kind(&fd)? {
            Kind::Pipe => {
                let flags = Flags::of(&fd)?;
                let pipe = pipe::Sender::from_owned_fd(fd)?;
                Ok((Target::Pipe(pipe, flags), None))
            }
            Kind::Socket => {
                let flags = Flags::of(&fd)?;
                Ok((Target::Socket(socket(fd)?, flags), None))
            }
            Kind::Pumped => {
                let (pipe, done) = pump::writer(File::from(fd))?;
                let pipe = pipe::Sender::from_owned_fd(pipe)?;
                Ok((Target::Pipe(pipe, Flags::PRIVATE), Some(done)))
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        match self {
            Source::Pipe(pipe, flags) => flags.restore(pipe),
            Source::Socket(socket, flags) => flags.restore(socket),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        match self {
            Target::Pipe(pipe, flags) => flags.restore(pipe),
            Target::Socket(socket, flags) => flags.restore(socket),
        }
    }
}

impl Flags {
    const PRIVATE: Self = Self {
        was_blocking: false,
    };

    fn of(fd: impl AsFd) -> io::Result<Self> {
        Ok(Self {
            was_blocking: !fcntl_getfl(fd)?.contains(OFlags::NONBLOCK),
        })
    }

    fn restore(self, fd: impl AsFd) {
        if self.was_blocking
            && let Ok(flags) = fcntl_getfl(&fd)
        {
            let _ = fcntl_setfl(&fd, flags - OFlags::NONBLOCK);
        }
    }
}

/// How a descriptor is served, if it can be.
pub(crate) fn kind(fd: &OwnedFd) -> io::Result<Kind> {
    let file_type = File::from(fd.try_clone()?).metadata()?.file_type();
    if file_type.is_fifo() {
        Ok(Kind::Pipe)
    } else if file_type.is_socket() {
        Ok(Kind::Socket)
    } else if file_type.is_file() || file_type.is_char_device() || file_type.is_block_device() {
        Ok(Kind::Pumped)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

fn socket(fd: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(fd);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
