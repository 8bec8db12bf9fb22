//! Child processes: what they say, how they end, and that nothing is left of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use erlmcp_core::child::{Children, Command, Grace, Host, Line, Lines, Stderr};
use erlmcp_core::frame::{Framing, Item};
use erlmcp_core::inbox::Status;
use erlmcp_core::options::{Limits, OnOversize};
use erlmcp_core::{Connection, Error, Event, Sink};
use rustix::process::{Pid, test_kill_process, test_kill_process_group};
use tokio::runtime::{Builder, Runtime};

const WAIT: Duration = Duration::from_secs(10);

struct Channel(Sender<Event>);

impl Sink for Channel {
    fn emit(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

struct Nothing;

impl Host for Nothing {
    fn prepare(&self, _: &mut std::process::Command) {}
    fn began(&self, _: u32) {}
    fn ended(&self, _: u32) {}
}

struct Program {
    children: Children,
    runtime: Runtime,
}

struct Child {
    connection: Connection,
    lines: Lines,
    events: Receiver<Event>,
    said: Vec<Vec<u8>>,
}

impl Program {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let children = Children::new(runtime.handle().clone(), Arc::new(Nothing)).unwrap();
        Self { children, runtime }
    }

    fn start(&self, command: Command) -> Child {
        let (sender, events) = channel();
        let limits = Arc::new(Limits {
            framing: Framing::Line,
            max_frame: 16 << 20,
            on_oversize: OnOversize::Close,
            high_water_min: 64 * 1024,
            high_water: 64 * 1024,
            max_urgent: 0,
            max_queue: 64 * 1024,
            half_close: false,
            linger: Duration::from_millis(100),
            handshake_timeout: WAIT,
        });
        let (connection, lines) = Connection::child(
            self.runtime.handle(),
            Box::new(Channel(sender)),
            &self.children,
            command,
            limits,
        );
        Child {
            connection,
            lines,
            events,
            said: Vec::new(),
        }
    }

    fn shell(&self, script: &str) -> Child {
        self.start(command("sh", &["-c", script]))
    }

    fn await_none(&self) {
        let deadline = Instant::now() + WAIT;
        while self.children.count() > 0 {
            assert!(Instant::now() < deadline, "children are left");
            sleep(Duration::from_millis(5));
        }
    }
}

impl Child {
    /// Takes what it says until there is so much, or its end.
    fn until(&mut self, items: usize) -> Option<Error> {
        loop {
            let (batches, status) = self.connection.take(1000, 1 << 20);
            for batch in batches {
                for item in batch.items {
                    let Item::Frame { start, len } = item else {
                        panic!("oversized")
                    };
                    self.said
                        .push(batch.data.slice(start..start + len).to_vec());
                }
            }
            match status {
                Status::Down(reason) => return Some(reason),
                _ if self.said.len() >= items => return None,
                Status::More | Status::Again => {}
                _ => {
                    self.events.recv_timeout(WAIT).unwrap();
                }
            }
        }
    }

    fn end(&mut self) -> Error {
        self.until(usize::MAX).unwrap()
    }

    fn number(&mut self, index: usize) -> Pid {
        self.until(index + 1);
        let text = String::from_utf8(self.said[index].clone()).unwrap();
        Pid::from_raw(text.parse().unwrap()).unwrap()
    }
}

fn command(program: &str, args: &[&str]) -> Command {
    Command {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: vec![("PATH".into(), std::env::var_os("PATH").unwrap())],
        cwd: None,
        stderr: Stderr::Lines {
            max_line: 100,
            per_second: None,
        },
        grace: Grace {
            input: Duration::from_millis(200),
            terminate: Duration::from_millis(200),
        },
    }
}

/// Of a process whose parent is not this one, whoever reaps it may take his time.
fn await_gone(process: Pid) {
    let deadline = Instant::now() + WAIT;
    while test_kill_process(process).is_ok() && !is_zombie(process) {
        assert!(Instant::now() < deadline, "a process is left");
        sleep(Duration::from_millis(5));
    }
}

fn is_zombie(process: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()))
        .is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn what_is_sent_comes_back_and_the_end_of_input_ends_it() {
    let program = Program::new();
    let mut cat = program.start(command("cat", &[]));
    cat.until(0);
    let large = Bytes::from(vec![b'x'; 10 << 20]);
    let mut sent = cat.connection.send(Bytes::from_static(b"hello"));
    while sent == Err(Error::NotConnected) {
        sleep(Duration::from_millis(1));
        sent = cat.connection.send(Bytes::from_static(b"hello"));
    }
    cat.until(1);
    cat.connection.send(large.clone()).unwrap();
    cat.until(2);
    assert!(cat.said[0] == b"hello" && cat.said[1] == large);
    assert!(cat.connection.info().process.is_some());
    cat.connection.close();
    program.await_none();
}

#[test]
fn the_reason_is_how_it_ended_after_all_it_said() {
    let program = Program::new();
    let mut child = program.shell("echo last; exit 7");
    assert_eq!(child.end(), Error::ExitStatus(7));
    assert_eq!(child.said, [b"last"]);
    assert_eq!(program.shell("kill -9 $$").end(), Error::Signal(9));
    program.await_none();
}

#[test]
fn what_cannot_be_started_is_named() {
    let program = Program::new();
    let missing = Error::Command(libc::ENOENT);
    assert_eq!(
        program.start(command("no-such-program", &[])).end(),
        missing
    );
    let denied = Error::Command(libc::EACCES);
    assert_eq!(program.start(command("/etc/passwd", &[])).end(), denied);
    for (cwd, errno) in [("/no/such", libc::ENOENT), ("/etc/passwd", libc::ENOTDIR)] {
        let nowhere = Command {
            cwd: Some(cwd.into()),
            ..command("cat", &[])
        };
        assert_eq!(program.start(nowhere).end(), Error::Cwd(errno));
    }
    program.await_none();
}

#[test]
fn it_has_the_environment_and_the_directory_that_it_was_given() {
    let program = Program::new();
    let mut child = program.start(Command {
        cwd: Some("/".into()),
        env: vec![("ONLY".into(), "this".into())],
        ..command("/bin/sh", &["-c", "pwd; echo $ONLY $HOME; exit 0"])
    });
    assert_eq!(child.end(), Error::ExitStatus(0));
    assert_eq!(child.said, [b"/".as_slice(), b"this"]);
}

#[test]
fn standard_error_is_read_whoever_takes_it() {
    let program = Program::new();
    let script = "echo one >&2; head -c 2000000 /dev/zero | tr '\\0' x >&2; echo done";
    let mut child = program.shell(script);
    assert_eq!(child.end(), Error::ExitStatus(0));
    assert_eq!(child.said, [b"done"]);
    // It had ended before its exit was told of.
    let (lines, ended) = child.lines.take();
    assert!(ended);
    let wanted = [Bytes::from_static(b"one"), vec![b'x'; 100].into()];
    assert_eq!(lines, wanted.map(Line::Text));
}

#[test]
fn one_that_heeds_nothing_is_killed_with_its_group() {
    let program = Program::new();
    let script = "trap '' TERM; sleep 1000 & echo $!; echo $$; while :; do sleep 1000; done";
    let mut child = program.shell(script);
    let (grandchild, leader) = (child.number(0), child.number(1));
    let start = Instant::now();
    drop(child.connection);
    await_gone(leader);
    assert!(start.elapsed() >= Duration::from_millis(400));
    await_gone(grandchild);
    program.await_none();
}

#[test]
fn who_outlives_it_in_its_group_does_not_live_long_and_holds_nothing_up() {
    let program = Program::new();
    let mut child = program.shell("trap '' TERM; sleep 1000 & echo $!; exit 3");
    let grandchild = child.number(0);
    let start = Instant::now();
    assert_eq!(child.end(), Error::ExitStatus(3));
    assert!(start.elapsed() < Duration::from_millis(400));
    await_gone(grandchild);
    program.await_none();
    assert!(test_kill_process_group(grandchild).is_err());
}

#[test]
fn one_that_stops_reading_can_still_speak() {
    let program = Program::new();
    let mut child = program.shell("exec <&-; echo deaf; sleep 0.3; echo last; exit 0");
    child.until(1);
    while child.connection.send(Bytes::from_static(b"hello")).is_ok() {
        sleep(Duration::from_millis(5));
    }
    assert_eq!(child.end(), Error::ExitStatus(0));
    assert_eq!(child.said, [b"deaf".as_slice(), b"last"]);
}

#[test]
fn in_a_hurry_all_end_within_a_second() {
    let program = Program::new();
    let script = "trap '' TERM; sleep 1000 & echo $!; while :; do sleep 1000; done";
    let mut children: Vec<_> = (0..20).map(|_| program.shell(script)).collect();
    let sleepers: Vec<_> = children.iter_mut().map(|child| child.number(0)).collect();
    let start = Instant::now();
    program.runtime.block_on(program.children.end());
    assert!(start.elapsed() < Duration::from_secs(1));
    sleepers.into_iter().for_each(await_gone);
    assert_eq!(program.children.count(), 0);
}

#[test]
fn one_that_is_given_up_while_it_starts_is_not_left() {
    let program = Program::new();
    for _ in 0..20 {
        drop(program.start(command("sleep", &["1000"])));
    }
    // They start one after the other: this one is the last.
    program.shell("exit 0").end();
    program.await_none();
}
