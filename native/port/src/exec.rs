//! `erlmcp_native_port exec COMMAND [ARGUMENT...]`: one child on the standard input, output and
//! error of this process, for whoever opens a port of his own. It runs in a process group of its
//! own, and all of it ends with the VM: when nobody holds the other end of standard input any more
//! the child, which sees that too, has 2 s before SIGTERM, and 2 s more before SIGKILL.

use std::ffi::OsString;
use std::io::{Error as IoError, stdin};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use erlmcp_core::Error;
use erlmcp_core::child::{Children, Command, Exit, Grace, Host, Stderr};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::child::die_with_parent;
use crate::status;

const GRACE: Duration = Duration::from_secs(2);

struct Parent;

impl Host for Parent {
    fn prepare(&self, command: &mut process::Command) {
        die_with_parent(command);
    }

    fn began(&self, _: u32) {}

    fn ended(&self, _: u32) {}
}

/// Ends as the child does: with its status, or 128 and its signal.
pub(crate) fn run(mut args: Vec<OsString>) -> ExitCode {
    if args.first().is_some_and(|first| first == "--") {
        args.remove(0);
    }
    if args.is_empty() {
        eprintln!("usage: erlmcp_native_port exec COMMAND [ARGUMENT...]");
        return ExitCode::from(status::NOT_A_PORT);
    }
    let program = args.remove(0);
    match supervise(program.clone(), args) {
        Ok(Exit::Status(status)) => code(status),
        Ok(Exit::Signal(signal)) => code(128 + signal),
        Err(Error::Command(errno)) => {
            let error = IoError::from_raw_os_error(errno);
            eprintln!("erlmcp_native_port: {}: {error}", program.display());
            // As shells have it.
            code(if errno == libc::ENOENT { 127 } else { 126 })
        }
        Err(error) => {
            eprintln!("erlmcp_native_port: {}: {error}", program.display());
            ExitCode::from(status::NO_RESOURCES)
        }
    }
}

fn supervise(program: OsString, args: Vec<OsString>) -> Result<Exit, Error> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let children = Children::new(runtime.handle().clone(), Arc::new(Parent))?;
    let command = Command {
        program,
        args,
        env: std::env::vars_os().collect(),
        cwd: None,
        stderr: Stderr::Null,
        grace: Grace {
            input: GRACE,
            terminate: GRACE,
        },
    };
    runtime.block_on(async {
        let abandoned = watch_input()?;
        let mut asked = signal(SignalKind::terminate())?;
        let run = children.run(command, async move {
            let _ = abandoned.await;
        });
        tokio::pin!(run);
        tokio::select! {
            exit = &mut run => exit,
            _ = asked.recv() => {
                children.end().await;
                run.await
            }
        }
    })
}

/// Tells when nobody holds the other end of standard input. The child reads it; this only looks.
fn watch_input() -> Result<oneshot::Receiver<()>, Error> {
    let (tell, told) = oneshot::channel();
    thread::Builder::new().name("input".into()).spawn(move || {
        let input = stdin();
        let mut fds = [PollFd::new(&input, PollFlags::empty())];
        while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        let _ = tell.send(());
    })?;
    Ok(told)
}

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
