//! Child processes whose standard input and output are a connection.
//!
//! Each child leads a process group of its own. Whatever becomes of the connection, the group is
//! brought to its end: standard input is closed, then it is asked with SIGTERM, then killed, each
//! after its time; members that outlive the child itself are not left either.

mod lines;
mod process;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::error::Error;
use crate::sync::lock;

pub(crate) use lines::Reading;
pub use lines::{Lines, Taken};
pub use process::Exit;
use process::{Group, Stop};
pub(crate) use process::{Process, exit_within};

/// What to start.
#[derive(Clone, Debug)]
pub struct Command {
    /// The path of a program, or its name, to be found in the `PATH` of the environment below.
    pub program: OsString,
    /// Its arguments, without its name.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts; here if absent.
    pub cwd: Option<PathBuf>,
    /// What becomes of its standard error.
    pub stderr: Stderr,
    /// How long it is waited for.
    pub grace: Grace,
}

/// What becomes of a child's standard error, which is read in any case.
#[derive(Clone, Copy, Debug)]
pub enum Stderr {
    /// Nothing.
    Null,
    /// It is cut into lines, which wait to be taken.
    Lines {
        /// Bytes of a line; the rest of a longer one is dropped.
        max_line: usize,
        /// Lines a second beyond which they are dropped and counted.
        per_second: Option<u32>,
    },
}

/// The stages of a child's end.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// From the closing of its standard input to SIGTERM.
    pub input: Duration,
    /// From SIGTERM to SIGKILL.
    pub terminate: Duration,
}

/// What the program that uses this crate does for each child; both run outside of the runtime.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// Adds what must happen in the child before it becomes another program.
    pub prepare: fn(&mut std::process::Command),
    /// A process group has come to be (true) or is over.
    pub group: fn(u32, bool),
}

/// Starts children, and knows those that live.
pub struct Children {
    starts: mpsc::Sender<Start>,
    live: Arc<Live>,
}

/// A child that runs, with its ends of the pipes.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) input: OwnedFd,
    pub(crate) output: OwnedFd,
    pub(crate) errors: Option<OwnedFd>,
}

type Live = Mutex<HashMap<u32, watch::Sender<Stop>>>;

struct Start {
    command: Command,
    reply: oneshot::Sender<Result<Started, Error>>,
}

impl Children {
    /// # Errors
    /// No thread could be started.
    ///
    /// The thread lives as long as this: a parent-death signal, where there is one, is about the
    /// thread that has started the child.
    pub fn new(runtime: Handle, hooks: Hooks) -> io::Result<Self> {
        let (starts, requests) = mpsc::channel::<Start>();
        let live = Arc::new(Live::default());
        let starter = Starter {
            runtime,
            hooks,
            live: live.clone(),
        };
        std::thread::Builder::new()
            .name("children".into())
            .spawn(move || {
                for Start { command, reply } in requests {
                    // A child that nobody waits for any more ends by being dropped.
                    let _ = reply.send(starter.start(&command));
                }
            })?;
        Ok(Self { starts, live })
    }

    pub(crate) fn start(&self, command: Command) -> oneshot::Receiver<Result<Started, Error>> {
        let (reply, outcome) = oneshot::channel();
        // Where the thread is gone the reply is dropped, and the receiver learns of it.
        let _ = self.starts.send(Start { command, reply });
        outcome
    }

    /// How many live.
    pub fn count(&self) -> usize {
        lock(&self.live).len()
    }

    /// Ends all, without the time that their options give them: SIGTERM at once, SIGKILL soon.
    pub async fn end(&self) {
        loop {
            let one = lock(&self.live).values().next().cloned();
            let Some(stop) = one else { return };
            for stop in lock(&self.live).values() {
                stop.send_replace(Stop::Now);
            }
            stop.closed().await;
            tokio::task::yield_now().await;
        }
    }
}

struct Starter {
    runtime: Handle,
    hooks: Hooks,
    live: Arc<Live>,
}

impl Starter {
    fn start(&self, command: &Command) -> Result<Started, Error> {
        let _runtime = self.runtime.enter();
        let (child_input, input) = io::pipe()?;
        let (output, child_output) = io::pipe()?;
        let (errors, child_errors) = match command.stderr {
            Stderr::Null => (None, Stdio::null()),
            Stderr::Lines { .. } => {
                let (errors, child_errors) = io::pipe()?;
                (Some(errors.into()), child_errors.into())
            }
        };
        let mut builder = tokio::process::Command::new(&command.program);
        builder
            .args(&command.args)
            .env_clear()
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .stdin(child_input)
            .stdout(child_output)
            .stderr(child_errors)
            .process_group(0);
        if let Some(cwd) = &command.cwd {
            builder.current_dir(cwd);
        }
        (self.hooks.prepare)(builder.as_std_mut());
        let child = builder.spawn().map_err(|error| explain(&error, command))?;
        let group = child.id().and_then(Group::new).ok_or(Error::Closed)?;
        let process = self.supervise(child, group, command.grace);
        Ok(Started {
            process,
            input: input.into(),
            output: output.into(),
            errors,
        })
    }

    fn supervise(&self, child: tokio::process::Child, group: Group, grace: Grace) -> Process {
        let (stop, stopped) = watch::channel(Stop::No);
        let (exited, exit) = watch::channel(None);
        let id = group.id();
        (self.hooks.group)(id, true);
        lock(&self.live).insert(id, stop.clone());
        let (live, over) = (self.live.clone(), self.hooks.group);
        self.runtime.spawn(async move {
            process::supervise(child, group, grace, stopped, exited).await;
            lock(&live).remove(&id);
            over(id, false);
        });
        Process::new(id, stop, exit)
    }
}

/// A start fails with one error number, whatever failed: which of the two, the directory tells.
fn explain(error: &io::Error, command: &Command) -> Error {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    match &command.cwd {
        Some(cwd) => match enter(cwd) {
            Ok(()) => Error::Command(errno),
            Err(error) => Error::Cwd(error.raw_os_error().unwrap_or(errno)),
        },
        None => Error::Command(errno),
    }
}

fn enter(directory: &PathBuf) -> io::Result<()> {
    if !std::fs::metadata(directory)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    Ok(access(directory, Access::EXEC_OK)?)
}
