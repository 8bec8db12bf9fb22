//! Connections over real sockets. What all paths have in common is tested from Erlang; here is
//! what only the core can show.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use erlmcp_core::frame::{Framing, Item};
use erlmcp_core::inbox::Status;
use erlmcp_core::options::{Dial, Endpoint, Limits, OnOversize, Tcp};
use erlmcp_core::{Connection, Error, Event, Listener, Sink, State, metrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::timeout;

const TCP: Tcp = Tcp {
    nodelay: true,
    keepalive: true,
};
const WAIT: Duration = Duration::from_secs(10);

struct Channel(Sender<Event>);

impl Sink for Channel {
    fn emit(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

fn limits() -> Limits {
    Limits {
        framing: Framing::Line,
        max_frame: 1024 * 1024,
        on_oversize: OnOversize::Close,
        high_water_min: 64 * 1024,
        high_water: 64 * 1024,
        max_urgent: 0,
        max_queue: 64 * 1024,
        half_close: false,
        linger: Duration::from_secs(5),
        handshake_timeout: Duration::from_secs(5),
    }
}

fn dial_options() -> Dial {
    Dial {
        connect_timeout: Duration::from_secs(5),
        attempt_delay: Duration::from_millis(250),
        bind: None,
    }
}

fn dial(port: u16, sink: Box<dyn Sink>, limits: Limits) -> Connection {
    let endpoint = Endpoint::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    Connection::dial(
        &Handle::current(),
        sink,
        endpoint,
        dial_options(),
        TCP,
        None,
        Arc::new(limits),
    )
}

/// A connection and the raw socket of its peer.
async fn pair(limits: Limits) -> (Connection, Receiver<Event>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sender, events) = channel();
    let port = listener.local_addr().unwrap().port();
    let connection = dial(port, Box::new(Channel(sender)), limits);
    let (peer, _) = listener.accept().await.unwrap();
    wait(&events, Event::Ready).await;
    assert_eq!(connection.take(0, 0).1, Status::Armed);
    (connection, events, peer)
}

async fn wait(events: &Receiver<Event>, wanted: Event) {
    let got = tokio::task::block_in_place(|| events.recv_timeout(WAIT));
    assert_eq!(got, Ok(wanted));
}

/// Takes until the inbox is empty.
fn drain(connection: &Connection) -> (Vec<Bytes>, Status) {
    let mut frames = Vec::new();
    loop {
        let (batches, status) = connection.take(7, usize::MAX);
        for batch in batches {
            for item in batch.items {
                let Item::Frame { start, len } = item else {
                    panic!("oversized")
                };
                frames.push(batch.data.slice(start..start + len));
            }
        }
        if !matches!(status, Status::More | Status::Again) {
            return (frames, status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_in_order_and_the_end_after_them() {
    let (connection, events, mut peer) = pair(limits()).await;
    let lines: Vec<String> = (0..10_000).map(|n| format!("line {n}")).collect();
    peer.write_all((lines.join("\n") + "\n").as_bytes())
        .await
        .unwrap();
    drop(peer);
    let mut got = Vec::new();
    loop {
        wait(&events, Event::Ready).await;
        let (frames, status) = drain(&connection);
        got.extend(frames);
        if let Status::Down(reason) = status {
            assert_eq!(reason, Error::Closed);
            break;
        }
    }
    assert_eq!(got, lines);
}

/// Takes what comes until the connection waits for nothing more.
async fn drain_to_the_end(
    connection: &Connection,
    events: &Receiver<Event>,
) -> (Vec<Bytes>, Status) {
    let (mut frames, mut status) = drain(connection);
    while status == Status::Armed {
        wait(events, Event::Ready).await;
        let (more, next) = drain(connection);
        frames.extend(more);
        status = next;
    }
    (frames, status)
}

/// A connection whose owner has taken so much at once that it is asked to come again.
async fn busy(limits: Limits) -> (Connection, Receiver<Event>, TcpStream) {
    const FRAMES: usize = 40;
    let (connection, events, mut peer) = pair(limits).await;
    let line = [vec![b'x'; 1023], vec![b'\n']].concat();
    peer.write_all(&line.repeat(FRAMES)).await.unwrap();
    while connection.info().frames_in < FRAMES as u64 {
        tokio::task::yield_now().await;
    }
    wait(&events, Event::Ready).await;
    let (batches, status) = connection.take(FRAMES, usize::MAX);
    let taken: usize = batches.iter().map(|batch| batch.items.len()).sum();
    assert_eq!((taken, status), (FRAMES, Status::Again));
    (connection, events, peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_owner_reads_for_itself_until_it_finds_nothing() {
    let (connection, events, mut peer) = busy(limits()).await;
    for _ in 0..100 {
        peer.write_all(b"more\n").await.unwrap();
        let (mut frames, mut status) = drain(&connection);
        while frames.is_empty() {
            wait(&events, Event::Ready).await;
            (frames, status) = drain(&connection);
        }
        assert_eq!(
            (frames, status),
            (vec![Bytes::from_static(b"more")], Status::Armed)
        );
    }
}

/// Sends so many messages and returns what the peer has to read.
fn send_some(connection: &Connection, count: usize) -> Vec<u8> {
    let messages: Vec<String> = (0..count).map(|n| format!("answer {n}")).collect();
    for message in &messages {
        connection.send(Bytes::from(message.clone())).unwrap();
    }
    (messages.join("\n") + "\n").into_bytes()
}

async fn read(peer: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut read = vec![0; len];
    timeout(WAIT, peer.read_exact(&mut read))
        .await
        .unwrap()
        .unwrap();
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_leaves_in_order_with_the_next_take() {
    let (connection, _events, mut peer) = busy(limits()).await;
    for count in [1, 3, 1000] {
        let expected = send_some(&connection, count);
        connection.take(1, usize::MAX);
        assert_eq!(read(&mut peer, expected.len()).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_leaves_without_an_owner_that_returns() {
    let (connection, _events, mut peer) = busy(limits()).await;
    for count in [2, 3, 1000] {
        let expected = send_some(&connection, count);
        assert_eq!(read(&mut peer, expected.len()).await, expected);
    }
    assert_eq!(connection.queued(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_owner_that_looks_is_told_of_what_comes_next() {
    let (connection, events, mut peer) = busy(limits()).await;
    assert_eq!(connection.take(0, 0).1, Status::Armed);
    peer.write_all(b"next\n").await.unwrap();
    wait(&events, Event::Ready).await;
    assert_eq!(drain(&connection).0, [Bytes::from_static(b"next")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_owner_leaves_a_large_frame_to_the_task() {
    let (connection, events, mut peer) = busy(limits()).await;
    let mut large = vec![b'z'; 1024 * 1024];
    large.push(b'\n');
    let writing = tokio::spawn(async move {
        peer.write_all(&large).await.unwrap();
        peer
    });
    let (mut frames, mut status) = drain(&connection);
    while frames.is_empty() {
        assert_eq!(status, Status::Armed);
        wait(&events, Event::Ready).await;
        (frames, status) = drain(&connection);
    }
    let _peer = writing.await.unwrap();
    assert_eq!(frames, [Bytes::from(vec![b'z'; 1024 * 1024])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_owner_meets_the_end_after_what_came_before_it() {
    let (connection, events, mut peer) = busy(limits()).await;
    peer.write_all(b"last\nunfinished").await.unwrap();
    drop(peer);
    let (frames, status) = drain_to_the_end(&connection, &events).await;
    assert_eq!(frames, [Bytes::from_static(b"last")]);
    assert_eq!(status, Status::Down(Error::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_owner_meets_a_frame_that_is_too_large() {
    let small = Limits {
        max_frame: 1023,
        ..limits()
    };
    let (connection, events, mut peer) = busy(small).await;
    peer.write_all(b"last\n").await.unwrap();
    peer.write_all(&[b'y'; 1025]).await.unwrap();
    let (frames, status) = drain_to_the_end(&connection, &events).await;
    assert_eq!(frames, [Bytes::from_static(b"last")]);
    assert_eq!(status, Status::Down(Error::FrameTooLarge));
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_stops_at_the_high_water_mark() {
    let (connection, events, mut peer) = pair(limits()).await;
    let line = [vec![b'x'; 1023], vec![b'\n']].concat();
    let writer = tokio::spawn(async move {
        for _ in 0..20_000 {
            peer.write_all(&line).await.unwrap();
        }
        peer
    });
    wait(&events, Event::Ready).await;
    // The peer goes on until the kernel's buffers are full; the inbox must not follow it.
    let bound = limits().high_water + 2 * erlmcp_core::read_size::MAX;
    for _ in 0..50 {
        assert!(connection.info().waiting <= bound);
        tokio::task::yield_now().await;
    }
    assert!(!writer.is_finished());
    let mut count = drain(&connection).0.len();
    while count < 20_000 {
        wait(&events, Event::Ready).await;
        count += drain(&connection).0.len();
    }
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_tells_of_room_and_nothing_is_lost() {
    let (connection, events, mut peer) = pair(limits()).await;
    let message = Bytes::from(vec![b'y'; 1000]);
    let mut accepted = 0;
    while connection.send(message.clone()).is_ok() {
        accepted += 1;
    }
    assert_eq!(connection.send(message.clone()), Err(Error::Busy));
    assert!(connection.info().queued <= limits().max_queue);
    let mut received = vec![0; accepted * 1001];
    peer.read_exact(&mut received).await.unwrap();
    wait(&events, Event::Writable).await;
    assert_eq!(connection.send(message), Ok(()));
    assert!(received.chunks(1001).all(|line| line.ends_with(b"y\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_sends_what_is_queued() {
    let roomy = Limits {
        max_queue: 32 << 20,
        ..limits()
    };
    let (connection, _events, mut peer) = pair(Limits {
        max_frame: 32 << 20,
        ..roomy
    })
    .await;
    let message = Bytes::from(vec![b'z'; 16 << 20]);
    connection.send(message).unwrap();
    drop(connection);
    let mut received = Vec::new();
    peer.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), (16 << 20) + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_close_leaves_the_other_direction_open() {
    let (connection, events, mut peer) = pair(Limits {
        half_close: true,
        ..limits()
    })
    .await;
    peer.write_all(b"question\n").await.unwrap();
    peer.shutdown().await.unwrap();
    wait(&events, Event::Ready).await;
    let (mut frames, mut status) = drain(&connection);
    while status != Status::EofArmed {
        wait(&events, Event::Ready).await;
        let (more, next) = drain(&connection);
        frames.extend(more);
        status = next;
    }
    assert_eq!(frames, [Bytes::from_static(b"question")]);
    assert_eq!(connection.info().state, State::Eof);
    connection.send(Bytes::from_static(b"answer")).unwrap();
    connection.close();
    let mut received = String::new();
    peer.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "answer\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_leaves_nothing_behind() {
    let (connection, events, mut peer) = pair(limits()).await;
    peer.write_all(b"unread\n").await.unwrap();
    wait(&events, Event::Ready).await;
    drop(connection);
    let mut rest = Vec::new();
    assert_eq!(peer.read_to_end(&mut rest).await.unwrap(), 0);
    // The sink goes with the last of what the connection was made of.
    let gone = tokio::task::block_in_place(|| events.recv_timeout(WAIT));
    assert_eq!(gone, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
}

/// Fails when it is told of the first frame: a defect in the way out of the core.
struct Defective(std::sync::atomic::AtomicUsize, Sender<Event>);

impl Sink for Defective {
    fn emit(&self, event: Event) {
        let call = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let _ = self.1.send(event);
        assert_ne!(call, 1, "injected");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_task_becomes_the_end_of_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, events) = channel();
    let connection = dial(port, Box::new(Defective(0.into(), sender)), limits());
    let (mut peer, _) = listener.accept().await.unwrap();
    wait(&events, Event::Ready).await;
    assert_eq!(connection.take(0, 0).1, Status::Armed);
    let panics = metrics::panics.get();
    peer.write_all(b"a\n").await.unwrap();
    wait(&events, Event::Ready).await;
    let mut end = drain(&connection).1;
    while end != Status::Down(Error::Panic) {
        wait(&events, Event::Ready).await;
        end = drain(&connection).1;
    }
    assert!(metrics::panics.get() > panics);
    assert_eq!(
        connection.send(Bytes::from_static(b"x")),
        Err(Error::Closed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_accepts_no_more_than_it_is_asked_for_and_a_batch_ahead() {
    let (sender, events) = channel();
    let endpoint = Endpoint::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let sink = Box::new(Channel(sender));
    let limits = Arc::new(limits());
    let listener =
        Listener::listen(&Handle::current(), sink, &endpoint, 16, TCP, None, limits).unwrap();
    let Some(erlmcp_core::stream::Address::Ip(address)) = listener.local().cloned() else {
        panic!("no address");
    };
    let _client = TcpStream::connect(address).await.unwrap();
    wait(&events, Event::Ready).await;
    let (mut incoming, _) = listener.accept(16);
    let connection = listener.adopt(incoming.remove(0), Box::new(Channel(channel().0)));
    assert!(matches!(
        connection.info().state,
        State::Connecting | State::Open
    ));
    listener.close();
    assert!(TcpStream::connect(address).await.is_err());
}
