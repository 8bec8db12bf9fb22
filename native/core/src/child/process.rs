//! The life and the end of a child and its process group.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Grace;
use crate::error::Error;

/// Between SIGTERM and SIGKILL where there is no time: the VM is gone, and a second after it
/// nothing is to be left.
const HURRY: Duration = Duration::from_millis(300);

/// How often a group is looked at whose leader is gone: the kernel tells of no other process.
const LOOK: Duration = Duration::from_millis(10);

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with a status.
    Status(i32),
    /// By a signal.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Status(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        }
    }
}

impl From<Exit> for Error {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Status(status) => Error::ExitStatus(status),
            Exit::Signal(signal) => Error::Signal(signal),
        }
    }
}

/// Whether a child is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Stop {
    No,
    /// In stages. Its standard input has been closed.
    InOrder,
    /// At once.
    Now,
}

/// A child that runs, for whoever holds its connection. Dropped, it is stopped.
#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    stop: watch::Sender<Stop>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    pub(super) fn new(
        id: u32,
        stop: watch::Sender<Stop>,
        exit: watch::Receiver<Option<Exit>>,
    ) -> Self {
        Self { id, stop, exit }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Has it end in stages. Its standard input has been closed.
    pub(crate) fn stop(&self) {
        self.stop.send_if_modified(|stop| {
            let changes = *stop < Stop::InOrder;
            if changes {
                *stop = Stop::InOrder;
            }
            changes
        });
    }

    /// Tells of its end, also after this was dropped.
    pub(crate) fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A process group, named by its leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group(Pid);

impl Group {
    pub(super) fn new(id: u32) -> Option<Self> {
        Pid::from_raw(i32::try_from(id).ok()?).map(Self)
    }

    pub(super) fn id(self) -> u32 {
        self.0.as_raw_nonzero().get().unsigned_abs()
    }

    /// An error means that nobody is left to get it.
    fn signal(self, signal: Signal) -> bool {
        kill_process_group(self.0, signal).is_ok()
    }

    /// A process that was stopped ends only when it runs again.
    fn terminate(self) -> bool {
        self.signal(Signal::TERM) && self.signal(Signal::CONT)
    }

    /// Ends the members that have outlived their leader. As long as there is one, no other group
    /// can have this name.
    async fn clear(self, grace: Duration) {
        self.reap();
        if !self.terminate() || self.gone_within(grace).await {
            return;
        }
        self.signal(Signal::KILL);
        self.gone_within(HURRY).await;
    }

    async fn gone_within(self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            sleep(LOOK).await;
            self.reap();
            if test_kill_process_group(self.0).is_err() {
                return true;
            }
        }
        false
    }

    /// Where orphans come to this process, as they do if it has asked for them, it has to see to
    /// those that have ended: nobody else will, and a group has members as long as they are there.
    /// The leader itself has been seen to.
    fn reap(self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while let Ok(Some(_)) = waitid(WaitId::Pgid(Some(self.0)), options) {}
    }
}

/// Sees a child through to the end of its group.
pub(super) async fn supervise(
    mut child: Child,
    group: Group,
    grace: Grace,
    mut stop: watch::Receiver<Stop>,
    exited: watch::Sender<Option<Exit>>,
) {
    let status = end(&mut child, group, grace, &mut stop).await;
    exited.send_replace(Some(status.map_or(Exit::Signal(0), Exit::from)));
    let time = match *stop.borrow() {
        Stop::Now => HURRY,
        _ => grace.terminate,
    };
    tokio::select! {
        () = group.clear(time) => {}
        () = asked(&mut stop, Stop::Now) => group.clear(HURRY.min(time)).await,
    }
}

async fn end(
    child: &mut Child,
    group: Group,
    grace: Grace,
    stop: &mut watch::Receiver<Stop>,
) -> io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        () = asked(stop, Stop::InOrder) => {}
    }
    tokio::select! {
        status = child.wait() => return status,
        () = sleep(grace.input) => {}
        () = asked(stop, Stop::Now) => {}
    }
    group.terminate();
    tokio::select! {
        status = child.wait() => return status,
        () = sleep(grace.terminate) => {}
        () = async {
            asked(stop, Stop::Now).await;
            sleep(HURRY).await;
        } => {}
    }
    group.signal(Signal::KILL);
    child.wait().await
}

/// Waits until the child is asked to end, this urgently at least.
async fn asked(stop: &mut watch::Receiver<Stop>, level: Stop) {
    if stop.wait_for(|stop| *stop >= level).await.is_err() {
        // Nobody is left who could ask more urgently.
        std::future::pending::<()>().await;
    }
}

/// How a process has ended, if that is known in time.
pub(crate) async fn exit_within(
    exit: &mut watch::Receiver<Option<Exit>>,
    time: Duration,
) -> Option<Exit> {
    match timeout(time, exit.wait_for(Option::is_some)).await {
        Ok(Ok(exit)) => *exit,
        _ => None,
    }
}
