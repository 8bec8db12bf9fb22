//! A process that outlives this one by a moment, however this one ends: it ends the process groups
//! that are left then. What a parent-death signal does for a child, and only on Linux, this does
//! for all that the child has started.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write, stdin};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// The argument that has this program be one.
pub(crate) const MODE: &str = "guard";

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(300);

/// The guard of this process.
pub(crate) struct Guard(Mutex<Option<Child>>);

impl Guard {
    /// Where none can be started, children are still ended by whatever else ends them.
    pub(crate) fn start() -> Self {
        let guard = spawn();
        if let Err(error) = &guard {
            tracing::warn!(%error, "no guard for child processes");
        }
        Self(Mutex::new(guard.ok()))
    }

    pub(crate) fn watch(&self, group: u32) {
        self.tell('+', group);
    }

    pub(crate) fn forget(&self, group: u32) {
        self.tell('-', group);
    }

    fn tell(&self, what: char, group: u32) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = guard.as_mut().and_then(|guard| guard.stdin.as_mut()) {
            // One that somebody has killed reads nothing more.
            let _ = writeln!(input, "{what}{group}");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let guard = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(guard) = guard {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

fn spawn() -> std::io::Result<Child> {
    // The file may have been replaced by that of another version.
    let program = if cfg!(target_os = "linux") {
        "/proc/self/exe".into()
    } else {
        std::env::current_exe()?
    };
    Command::new(program)
        .arg0("erlmcp_native_port")
        .arg(MODE)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// The life of a guard.
pub(crate) fn run() -> ExitCode {
    let mut groups = HashSet::new();
    for line in BufReader::new(stdin()).lines() {
        let Ok(line) = line else { break };
        let (what, id) = line.split_at(line.len().min(1));
        if let Some(group) = id.parse().ok().and_then(Pid::from_raw) {
            match what {
                "+" => groups.insert(group),
                _ => groups.remove(&group),
            };
        }
    }
    for group in &groups {
        let _ = kill_process_group(*group, Signal::TERM);
        let _ = kill_process_group(*group, Signal::CONT);
    }
    if !groups.is_empty() {
        sleep(GRACE);
    }
    for group in &groups {
        let _ = kill_process_group(*group, Signal::KILL);
    }
    ExitCode::SUCCESS
}
