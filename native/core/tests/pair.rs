//! Connections over pairs of descriptors: pipes, sockets, and what only a thread can serve.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use erlmcp_core::frame::{Framing, Item};
use erlmcp_core::inbox::Status;
use erlmcp_core::options::{Limits, OnOversize};
use erlmcp_core::{Connection, Error, Event, Sink, State};
use rustix::fs::{OFlags, fcntl_getfl};
use tokio::runtime::{Builder, Runtime};

const WAIT: Duration = Duration::from_secs(10);
const LARGE: usize = 10 << 20;

struct Channel(Sender<Event>);

impl Sink for Channel {
    fn emit(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

struct Served {
    connection: Connection,
    events: Receiver<Event>,
    _runtime: Runtime,
}

fn limits(half_close: bool) -> Arc<Limits> {
    Arc::new(Limits {
        framing: Framing::Line,
        max_frame: LARGE,
        on_oversize: OnOversize::Close,
        high_water_min: 64 * 1024,
        high_water: 64 * 1024,
        max_urgent: 0,
        max_queue: 64 * 1024,
        half_close,
        linger: Duration::from_secs(5),
        handshake_timeout: Duration::from_secs(5),
    })
}

fn serve(source: impl Into<OwnedFd>, target: impl Into<OwnedFd>, half_close: bool) -> Served {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (sender, events) = channel();
    let connection = Connection::over(
        runtime.handle(),
        Box::new(Channel(sender)),
        source.into(),
        target.into(),
        limits(half_close),
    );
    Served {
        connection,
        events,
        _runtime: runtime,
    }
}

impl Served {
    /// Takes until something else than data is next.
    fn take_all(&self) -> (Vec<Bytes>, Status) {
        let mut frames = Vec::new();
        loop {
            let (batches, status) = self.connection.take(7, usize::MAX);
            for batch in batches {
                for item in batch.items {
                    let Item::Frame { start, len } = item else {
                        panic!("oversized")
                    };
                    frames.push(batch.data.slice(start..start + len));
                }
            }
            match status {
                Status::More | Status::Again => {}
                Status::Connecting | Status::Armed => {
                    assert_eq!(self.events.recv_timeout(WAIT), Ok(Event::Ready));
                }
                Status::EofArmed | Status::Down(_) => return (frames, status),
            }
        }
    }

    fn opened(self) -> Self {
        assert_eq!(self.events.recv_timeout(WAIT), Ok(Event::Ready));
        assert_eq!(self.connection.take(0, 0).1, Status::Armed);
        self
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    })
}

/// Both directions, a large message each, and the end.
fn exchange(
    served: Served,
    mut peer_in: impl Write + Send + 'static,
    peer_out: impl Read + Send + 'static,
) {
    let served = served.opened();
    let large = vec![b'x'; LARGE - 1];
    let expected = large.clone();
    let writer = thread::spawn(move || {
        peer_in.write_all(b"first\n").unwrap();
        peer_in.write_all(&large).unwrap();
        peer_in.write_all(b"\nlast\n").unwrap();
    });
    let reader = read_all(peer_out);
    let (frames, status) = served.take_all();
    writer.join().unwrap();
    assert_eq!(status, Status::EofArmed);
    assert_eq!(frames.len(), 3);
    assert_eq!(&frames[1][..], expected);
    served
        .connection
        .send(Bytes::from(expected.clone()))
        .unwrap();
    served.connection.close();
    let sent = reader.join().unwrap();
    assert_eq!(sent.len(), LARGE);
    assert_eq!(sent.last(), Some(&b'\n'));
}

#[test]
fn pipes_carry_both_directions() {
    let (source, peer_in) = pipe().unwrap();
    let (peer_out, target) = pipe().unwrap();
    exchange(serve(source, target, true), peer_in, peer_out);
}

#[test]
fn sockets_carry_both_directions() {
    let (source, peer_in) = UnixStream::pair().unwrap();
    let (peer_out, target) = UnixStream::pair().unwrap();
    exchange(serve(source, target, true), peer_in, peer_out);
}

#[test]
fn files_are_read_and_written_to_the_end() {
    let dir = std::env::temp_dir().join(format!("erlmcp_pair_{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (input, output) = (dir.join("in"), dir.join("out"));
    fs::write(&input, "one\ntwo\n").unwrap();
    let served = serve(
        File::open(&input).unwrap(),
        File::create(&output).unwrap(),
        true,
    );
    let (frames, status) = served.take_all();
    assert_eq!(frames, ["one", "two"]);
    assert_eq!(status, Status::EofArmed);
    served
        .connection
        .send(Bytes::from_static(b"answer"))
        .unwrap();
    served.connection.close();
    while served.connection.info().state != State::Down {
        thread::yield_now();
    }
    assert_eq!(fs::read(&output).unwrap(), b"answer\n");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn nothing_to_read_is_the_end() {
    let null = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
    };
    let served = serve(null(), null(), false);
    assert_eq!(served.take_all(), (vec![], Status::Down(Error::Closed)));
}

#[test]
fn a_directory_is_refused() {
    let (_peer_out, target) = pipe().unwrap();
    let served = serve(File::open("/").unwrap(), target, false);
    let (_, status) = served.take_all();
    assert!(
        matches!(status, Status::Down(Error::Posix(_))),
        "{status:?}"
    );
}

#[test]
fn a_reader_that_is_gone_ends_the_connection_and_loses_nothing_that_came() {
    let (source, mut peer_in) = pipe().unwrap();
    let (peer_out, target) = pipe().unwrap();
    let served = serve(source, target, false).opened();
    peer_in.write_all(b"before\n").unwrap();
    assert_eq!(served.events.recv_timeout(WAIT), Ok(Event::Ready));
    drop(peer_out);
    served.connection.send(Bytes::from_static(b"lost")).unwrap();
    let (frames, status) = served.take_all();
    assert_eq!(frames, ["before"]);
    assert_eq!(status, Status::Down(Error::Closed));
}

#[test]
fn the_descriptors_are_closed_at_the_end_though_the_connection_is_held() {
    let (source, peer_in) = pipe().unwrap();
    let (peer_out, target) = pipe().unwrap();
    let served = serve(source, target, false).opened();
    drop(peer_in);
    assert_eq!(served.take_all().1, Status::Down(Error::Closed));
    assert_eq!(read_all(peer_out).join().unwrap(), b"");
    assert_eq!(
        served.connection.send(Bytes::from_static(b"x")),
        Err(Error::Closed)
    );
}

#[test]
fn flags_that_others_share_are_restored() {
    let (source, peer_in) = pipe().unwrap();
    let (_peer_out, target) = UnixStream::pair().unwrap();
    let shared = [
        source.try_clone().unwrap().into(),
        OwnedFd::from(target.try_clone().unwrap()),
    ];
    let served = serve(source, target, false).opened();
    assert!(shared.iter().all(is_nonblocking));
    drop(peer_in);
    assert_eq!(served.take_all().1, Status::Down(Error::Closed));
    while shared.iter().any(is_nonblocking) {
        thread::yield_now();
    }
}

fn is_nonblocking(fd: &OwnedFd) -> bool {
    fcntl_getfl(fd.as_fd()).unwrap().contains(OFlags::NONBLOCK)
}
