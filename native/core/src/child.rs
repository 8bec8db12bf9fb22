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
pub use lines::{Line, Lines};
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

/// What the program that uses this crate does for each child.
pub trait Host: Send + Sync + 'static {
    /// Adds what must happen in the child before it becomes another program.
    fn prepare(&self, command: &mut std::process::Command);

    /// A process group has come to be.
    fn began(&self, group: u32);

    /// None of its members is left.
    fn ended(&self, group: u32);
}

/// Starts children, and knows those that live.
pub struct Children {
    jobs: mpsc::Sender<Job>,
    live: Arc<Live>,
}

/// A child that runs, with its ends of the pipes.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) pipes: Pipes,
}

/// Where a child reads and writes: through pipes, of which these are the other ends.
pub(crate) struct Pipes {
    pub(crate) input: OwnedFd,
    pub(crate) output: OwnedFd,
    pub(crate) errors: Option<OwnedFd>,
}

/// The child's ends.
struct Ends {
    input: Stdio,
    output: Stdio,
    errors: Stdio,
}

type Live = Mutex<HashMap<u32, watch::Sender<Stop>>>;

enum Job {
    Start(Command, oneshot::Sender<Result<Started, Error>>),
    Attach(Command, oneshot::Sender<Result<Process, Error>>),
}

impl Children {
    /// # Errors
    /// No thread could be started.
    ///
    /// The thread lives as long as this: a parent-death signal, where there is one, is about the
    /// thread that has started the child.
    pub fn new(runtime: Handle, host: Arc<dyn Host>) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel();
        let live = Arc::new(Live::default());
        let starter = Starter {
            runtime,
            host,
            live: live.clone(),
        };
        std::thread::Builder::new()
            .name("children".into())
            .spawn(move || {
                for job in todo {
                    starter.act(job);
                }
            })?;
        Ok(Self { jobs, live })
    }

    pub(crate) fn start(&self, command: Command) -> oneshot::Receiver<Result<Started, Error>> {
        let (reply, outcome) = oneshot::channel();
        // Where the thread is gone the reply is dropped, and the receiver learns of it.
        let _ = self.jobs.send(Job::Start(command, reply));
        outcome
    }

    /// Runs a child on the standard input, output and error of this process, and returns how it
    /// ended and all of its group with it. It is to end when `stop` is ready.
    ///
    /// # Errors
    /// [`Error::Command`], [`Error::Cwd`], and what else keeps a process from being started.
    pub async fn run(
        &self,
        command: Command,
        stop: impl Future<Output = ()>,
    ) -> Result<Exit, Error> {
        let (reply, outcome) = oneshot::channel();
        let _ = self.jobs.send(Job::Attach(command, reply));
        let process = outcome.await.map_err(|_| Error::Panic)??;
        let mut exit = process.exit();
        tokio::select! {
            _ = exit.wait_for(Option::is_some) => {}
            () = stop => {}
        }
        drop(process);
        let exited = exit.wait_for(Option::is_some).await.map(|exit| *exit);
        while exit.changed().await.is_ok() {}
        exited.ok().flatten().ok_or(Error::Panic)
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

impl Pipes {
    fn new(stderr: Stderr) -> io::Result<(Self, Ends)> {
        let (child_input, input) = io::pipe()?;
        let (output, child_output) = io::pipe()?;
        let (errors, child_errors) = match stderr {
            Stderr::Null => (None, Stdio::null()),
            Stderr::Lines { .. } => {
                let (errors, child_errors) = io::pipe()?;
                (Some(errors.into()), child_errors.into())
            }
        };
        let pipes = Self {
            input: input.into(),
            output: output.into(),
            errors,
        };
        let ends = Ends {
            input: child_input.into(),
            output: child_output.into(),
            errors: child_errors,
        };
        Ok((pipes, ends))
    }
}

struct Starter {
    runtime: Handle,
    host: Arc<dyn Host>,
    live: Arc<Live>,
}

impl Starter {
    /// A child that nobody waits for any more ends by being dropped.
    fn act(&self, job: Job) {
        match job {
            Job::Start(command, reply) => {
                let _ = reply.send(self.start(&command));
            }
            Job::Attach(command, reply) => {
                let ends = Ends {
                    input: Stdio::inherit(),
                    output: Stdio::inherit(),
                    errors: Stdio::inherit(),
                };
                let _ = reply.send(self.spawn(&command, ends));
            }
        }
    }

    fn start(&self, command: &Command) -> Result<Started, Error> {
        let (pipes, ends) = Pipes::new(command.stderr)?;
        let process = self.spawn(command, ends)?;
        Ok(Started { process, pipes })
    }

    fn spawn(&self, command: &Command, ends: Ends) -> Result<Process, Error> {
        let _runtime = self.runtime.enter();
        let mut builder = tokio::process::Command::new(&command.program);
        builder
            .args(&command.args)
            .env_clear()
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .stdin(ends.input)
            .stdout(ends.output)
            .stderr(ends.errors)
            .process_group(0);
        if let Some(cwd) = &command.cwd {
            builder.current_dir(cwd);
        }
        self.host.prepare(builder.as_std_mut());
        let child = builder.spawn().map_err(|error| explain(&error, command))?;
        let group = child.id().and_then(Group::new).ok_or(Error::Closed)?;
        Ok(self.supervise(child, group, command.grace))
    }

    fn supervise(&self, child: tokio::process::Child, group: Group, grace: Grace) -> Process {
        let (stop, stopped) = watch::channel(Stop::No);
        let (exited, exit) = watch::channel(None);
        let id = group.id();
        self.host.began(id);
        lock(&self.live).insert(id, stop.clone());
        let (live, host) = (self.live.clone(), self.host.clone());
        self.runtime.spawn(async move {
            process::supervise(child, group, grace, stopped, exited).await;
            lock(&live).remove(&id);
            host.ended(id);
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
