//! The standard input and output of this process, taken for a connection.
//!
//! What the process prints must not get among the messages. So the descriptors that peers know are
//! duplicated to private ones, which no child inherits, and in their places come others: standard
//! output becomes standard error, and standard input the null device.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::{OFlags, fcntl_getfl};
use tokio::runtime::Handle;

use crate::connection::{Connection, Shared};
use crate::error::Error;
use crate::event::Sink;
use crate::options::Limits;
use crate::pair::{self, Kind};
use crate::sync::lock;

/// Why standard input and output cannot carry messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They have been taken before.
    Taken,
    /// Standard input is closed, not for reading, or a directory.
    Stdin,
    /// Standard output is closed, not for writing, or a directory.
    Stdout,
    /// Standard error goes where standard output goes: every print would get among the messages.
    StderrIsStdout,
    /// The operating system refuses.
    Posix(i32),
}

enum State {
    Free,
    Claimed(OwnedFd, OwnedFd),
    /// The connection, once there is one.
    Taken(Weak<Shared>),
}

static STATE: Mutex<State> = Mutex::new(State::Free);

/// Standard input and output, for the connection that carries messages over them.
pub struct Stdio {
    source: OwnedFd,
    target: OwnedFd,
}

/// Puts standard input and output aside. From now on nothing that prints does harm. A second call
/// does nothing.
///
/// # Errors
/// As [`Fault`] says. Nothing has changed then.
pub fn claim() -> Result<(), Fault> {
    let mut state = lock(&STATE);
    match *state {
        State::Free => {
            let (source, target) = set_aside()?;
            *state = State::Claimed(source, target);
            Ok(())
        }
        State::Claimed(..) | State::Taken(_) => Ok(()),
    }
}

/// Takes them, once in the life of the process.
///
/// # Errors
/// As [`Fault`] says. Nothing has changed then.
pub fn take() -> Result<Stdio, Fault> {
    claim()?;
    let mut state = lock(&STATE);
    match std::mem::replace(&mut *state, State::Taken(Weak::new())) {
        State::Claimed(source, target) => Ok(Stdio { source, target }),
        taken => {
            *state = taken;
            Err(Fault::Taken)
        }
    }
}

/// Whether messages that were accepted have still to leave.
pub fn is_leaving() -> bool {
    match &*lock(&STATE) {
        State::Taken(shared) => shared.upgrade().is_some_and(|shared| shared.is_leaving()),
        State::Free | State::Claimed(..) => false,
    }
}

impl Stdio {
    /// The connection.
    pub fn connect(self, runtime: &Handle, sink: Box<dyn Sink>, limits: Arc<Limits>) -> Connection {
        let connection = Connection::over(runtime, sink, self.source, self.target, limits);
        *lock(&STATE) = State::Taken(connection.watch());
        connection
    }
}

fn set_aside() -> Result<(OwnedFd, OwnedFd), Fault> {
    check(&stdin(), OFlags::WRONLY).ok_or(Fault::Stdin)?;
    let out = check(&stdout(), OFlags::RDONLY).ok_or(Fault::Stdout)?;
    let prints = match metadata(stderr().as_fd()) {
        Ok(err) if is_same_stream(&out, &err) => return Err(Fault::StderrIsStdout),
        Ok(_) => stderr().as_fd().try_clone_to_owned()?,
        Err(_) => null()?,
    };
    let nothing = null()?;
    let source = private(stdin().as_fd(), OpenOptions::new().read(true))?;
    let target = private(stdout().as_fd(), OpenOptions::new().write(true))?;
    rustix::stdio::dup2_stdin(nothing).map_err(io::Error::from)?;
    rustix::stdio::dup2_stdout(prints).map_err(io::Error::from)?;
    Ok((source, target))
}

fn check(stream: &impl AsFd, wrong: OFlags) -> Option<Metadata> {
    let fd = stream.as_fd();
    let access = fcntl_getfl(fd).ok()? & OFlags::RWMODE;
    let usable = access != wrong && pair::kind(&fd.try_clone_to_owned().ok()?).is_ok();
    if usable { metadata(fd).ok() } else { None }
}

/// A terminal shows everything anyway, and the null device nothing.
fn is_same_stream(out: &Metadata, err: &Metadata) -> bool {
    !out.file_type().is_char_device() && out.dev() == err.dev() && out.ino() == err.ino()
}

/// Others may have the same open file, the shell that started us among them, and would be surprised
/// by its flags. Linux gives a pipe opened anew flags of its own; elsewhere, and for sockets, the
/// flags are restored in the end.
fn private(fd: BorrowedFd<'_>, how: &mut OpenOptions) -> io::Result<OwnedFd> {
    let duplicate = fd.try_clone_to_owned()?;
    if cfg!(target_os = "linux") && pair::kind(&duplicate)? == Kind::Pipe {
        // A named pipe whose peer has gone already would have to be waited for.
        how.custom_flags(libc::O_NONBLOCK);
        // Refused where the pipe was made by another user, or there is no /proc.
        if let Ok(file) = how.open(format!("/proc/self/fd/{}", duplicate.as_raw_fd())) {
            return Ok(file.into());
        }
    }
    Ok(duplicate)
}

fn metadata(fd: BorrowedFd<'_>) -> io::Result<Metadata> {
    File::from(fd.try_clone_to_owned()?).metadata()
}

fn null() -> io::Result<OwnedFd> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    Ok(null.into())
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match Error::from(error) {
            Error::Posix(errno) => Fault::Posix(errno),
            _ => Fault::Posix(libc::EIO),
        }
    }
}
