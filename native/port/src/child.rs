//! Children: connections to processes that the program starts.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use erlmcp_core::child::{Command, Grace, Host, Line, Lines, Stderr};
use erlmcp_core::{Connection, Error};
use tokio::sync::Semaphore;

use crate::connection::{Conn, Settings};
use crate::guard::Guard;
use crate::op::to_vm;
use crate::program::Program;
use crate::term::{Malformed, Term, Writer};
use crate::{options, orphans, reason};

/// What this program does for its children.
pub(crate) struct Parent {
    guard: Guard,
}

impl Parent {
    pub(crate) fn new() -> Self {
        orphans::adopt();
        Self {
            guard: Guard::start(),
        }
    }
}

impl Host for Parent {
    fn prepare(&self, command: &mut process::Command) {
        die_with_parent(command);
    }

    fn began(&self, group: u32) {
        self.guard.watch(group);
    }

    fn ended(&self, group: u32) {
        self.guard.forget(group);
        orphans::reap();
    }
}

/// Has the child killed when the thread that starts it ends, which is when this process does. There
/// is no such thing but on Linux.
pub(crate) fn die_with_parent(command: &mut process::Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;

        let parent = process::id();
        // SAFETY: between fork and exec only calls that are async-signal-safe are allowed: these are
        // bare system calls, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // It ended before the signal was asked for.
                if u32::try_from(libc::getppid()) != Ok(parent) {
                    libc::_exit(1);
                }
                Ok(())
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Starts a child: a window, and `{Child, Options}`.
pub(crate) fn start(program: &Arc<Program>, id: u64, mut body: Bytes) -> Result<(), Malformed> {
    let window = body.try_get_u32().map_err(|_| Malformed)?;
    let term = Term::read(&body)?;
    let [child, given] = term.tuple()? else {
        return Err(Malformed);
    };
    let command = command(child)?;
    let settings = Settings::read(given)?;
    let limits = settings.limits.clone();
    let Ok(children) = program.children() else {
        let reason = reason::term(Error::Posix(libc::EAGAIN));
        program.out.send(to_vm::DOWN, id, &[&reason]);
        return Ok(());
    };
    let mut errors = None;
    let conn = Conn::insert(program, id, window.into(), settings, |sink| {
        let (connection, lines) =
            Connection::child(&program.runtime, sink, children, command, limits);
        errors = Some(lines);
        connection
    });
    if let Some(lines) = errors {
        program.runtime.spawn(pass_on(conn, lines));
    }
    Ok(())
}

/// Sends the lines of standard error as the VM takes them; the last ones leave at the end in any
/// case.
async fn pass_on(conn: Arc<Conn>, lines: Lines) {
    conn.stderr.begin(lines.clone());
    loop {
        lines.ready().await;
        if conn.send_stderr() {
            return;
        }
        conn.stderr.taken_or(lines.ended()).await;
    }
}

/// The lines of a child's standard error on their way to the VM.
pub(crate) struct Errors {
    lines: Mutex<Option<Lines>>,
    taken: Semaphore,
}

impl Errors {
    pub(crate) fn new() -> Self {
        Self {
            lines: Mutex::default(),
            taken: Semaphore::new(0),
        }
    }

    fn begin(&self, lines: Lines) {
        *self.lock() = Some(lines);
    }

    /// The VM takes more.
    pub(crate) fn taken(&self) {
        self.taken.add_permits(1);
    }

    async fn taken_or(&self, ended: impl Future<Output = ()>) {
        tokio::select! {
            permit = self.taken.acquire() => {
                if let Ok(permit) = permit {
                    permit.forget();
                }
            }
            () = ended => {}
        }
    }

    /// Sends what there is, if anything, and says whether nothing more will come.
    pub(crate) fn send(&self, send: impl FnOnce(&[u8])) -> bool {
        // Held over the sending: two that send at once would change the order.
        let lines = self.lock();
        let Some((lines, ended)) = lines.as_ref().map(Lines::take) else {
            return true;
        };
        if !lines.is_empty() {
            send(&lines_term(lines));
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lines>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binaries, and numbers in the place of lines that were dropped.
pub(crate) fn lines_term(
    lines: impl IntoIterator<Item = Line, IntoIter: ExactSizeIterator>,
) -> Vec<u8> {
    let lines = lines.into_iter();
    let mut out = Writer::new();
    out.list(lines.len());
    for line in lines {
        match line {
            Line::Text(text) => out.binary(&text),
            Line::Dropped(count) => out.integer(count),
        };
    }
    out.nil();
    out.finish()
}

pub(crate) fn command(child: &Term) -> Result<Command, Malformed> {
    Ok(Command {
        program: text(child.get("command")?)?,
        args: child
            .get("args")?
            .list()?
            .iter()
            .map(text)
            .collect::<Result<_, _>>()?,
        env: child
            .get("env")?
            .list()?
            .iter()
            .map(variable)
            .collect::<Result<_, _>>()?,
        cwd: Some(PathBuf::from(text(child.get("cwd")?)?)),
        stderr: stderr(child)?,
        grace: Grace {
            input: options::ms(child, "stdin_grace_ms")?,
            terminate: options::ms(child, "sigterm_grace_ms")?,
        },
    })
}

fn stderr(child: &Term) -> Result<Stderr, Malformed> {
    let max_line = child.get("stderr_line_bytes")?.integer()?;
    let rate = child.get("stderr_lines_per_s")?.integer()?;
    match child.get("stderr")?.atom()? {
        "null" => Ok(Stderr::Null),
        "owner" => Ok(Stderr::Lines {
            max_line,
            per_second: None,
        }),
        "logger" => Ok(Stderr::Lines {
            max_line,
            per_second: Some(rate),
        }),
        _ => Err(Malformed),
    }
}

fn variable(pair: &Term) -> Result<(OsString, OsString), Malformed> {
    match pair.tuple()? {
        [name, value] => Ok((text(name)?, text(value)?)),
        _ => Err(Malformed),
    }
}

/// Names of files and arguments are bytes, in whatever encoding.
fn text(term: &Term) -> Result<OsString, Malformed> {
    Ok(OsString::from_vec(term.bytes()?.to_vec()))
}
