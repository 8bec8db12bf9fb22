//! HTTP servers over real sockets: what only the core can show, and HTTP/2. What all paths have in
//! common is tested from Erlang.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver as Events, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use erlmcp_core::Error;
use erlmcp_core::http::{
    Body, Event, Exchange, HeaderMap, Notice, OnGone, Options, Owner, Receiver, Request, Server,
    StatusCode,
};
use erlmcp_core::options::{Endpoint, Tcp};
use erlmcp_core::stream::Address;
use http::Response;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

const WAIT: Duration = Duration::from_secs(10);

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";

/// Long enough for what must not happen to happen.
const WHILE: Duration = Duration::from_millis(100);

struct Channel<T>(Sender<T>);

impl Owner for Channel<Event> {
    fn tell(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

impl Receiver for Channel<Notice> {
    fn tell(&self, notice: Notice) {
        let _ = self.0.send(notice);
    }
}

fn options() -> Options {
    Options {
        http1: true,
        http2: true,
        max_body: 100_000,
        max_headers: 20,
        max_header: 1000,
        max_target: 1000,
        header_timeout: WAIT,
        body_timeout: WAIT,
        idle_timeout: WAIT,
        max_connections: 100,
        max_connections_per_peer: 100,
        max_requests: 100,
        max_streams: 100,
        max_concurrent_streams: 50,
        max_stream: 10_000,
        tcp: Tcp {
            nodelay: true,
            keepalive: true,
        },
        handshake_timeout: WAIT,
        backlog: 100,
    }
}

struct Fixture {
    server: Server,
    events: Events<Event>,
    address: SocketAddr,
}

type Client = SendRequest<String>;
type Asked = JoinHandle<Result<Response<Incoming>, hyper::Error>>;

/// What the serving process would have.
struct Served {
    exchange: Exchange,
    request: Box<Request>,
    notices: Events<Notice>,
}

fn listen(options: Options) -> Fixture {
    let (sender, events) = channel();
    let endpoint = Endpoint::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let owner = Box::new(Channel(sender));
    let server = Server::listen(&Handle::current(), owner, &endpoint, None, options).unwrap();
    let Some(Address::Ip(address)) = server.local().cloned() else {
        panic!("no address")
    };
    Fixture {
        server,
        events,
        address,
    }
}

fn next<T>(events: &Events<T>) -> T {
    tokio::task::block_in_place(|| events.recv_timeout(WAIT)).unwrap()
}

fn quiet<T: std::fmt::Debug + PartialEq>(events: &Events<T>) {
    let got = tokio::task::block_in_place(|| events.recv_timeout(WHILE));
    assert_eq!(got, Err(RecvTimeoutError::Timeout));
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < WAIT, "it did not come to pass");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Fixture {
    fn serve(&self) -> Served {
        while self.server.claim(1) == 0 {
            assert_eq!(next(&self.events), Event::Ready);
        }
        let exchange = self.server.take().unwrap();
        let (sender, notices) = channel();
        let request = exchange.take(Box::new(Channel(sender))).unwrap();
        Served {
            exchange,
            request,
            notices,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection on which a request has been sent.
    async fn get(&self) -> TcpStream {
        let mut socket = self.connect().await;
        socket.write_all(GET).await.unwrap();
        socket
    }

    async fn connect2(&self) -> Client {
        let io = TokioIo::new(self.connect().await);
        let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A request over HTTP/2 that is to be answered.
    fn ask(&self, client: &mut Client, request: http::Request<String>) -> (Asked, Served) {
        let asked = tokio::spawn(client.send_request(request));
        (asked, self.serve())
    }

    /// One whose answer is a stream that has begun.
    async fn stream(&self, client: &mut Client) -> (Response<Incoming>, Served) {
        let (asked, served) = self.ask(client, request("/", ""));
        served.stream();
        (asked.await.unwrap().unwrap(), served)
    }
}

impl Served {
    fn reply(&self, body: &'static str) {
        let body = Bytes::from_static(body.as_bytes());
        let reply = self.exchange.reply(StatusCode::OK, HeaderMap::new(), body);
        reply.unwrap();
    }

    fn stream(&self) {
        let result = self.exchange.stream(StatusCode::OK, HeaderMap::new());
        result.unwrap();
    }
}

fn request(path: &str, body: &str) -> http::Request<String> {
    let uri = format!("http://localhost{path}");
    http::Request::post(uri).body(body.to_owned()).unwrap()
}

/// The next of a body; the empty frame that may end it is passed over.
async fn frame(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx));
        match tokio::time::timeout(WAIT, frame).await.unwrap()? {
            Ok(frame) if frame.is_data() && frame.data_ref().unwrap().is_empty() => {}
            result => return Some(result.map(|frame| frame.into_data().unwrap())),
        }
    }
}

/// All that the server has to say until it closes.
async fn rest(mut socket: TcpStream) -> String {
    let mut all = Vec::new();
    let reading = socket.read_to_end(&mut all);
    let _ = tokio::time::timeout(WAIT, reading).await.unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tells_the_owner_once_per_edge() {
    let fixture = listen(options());
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(fixture.get().await);
    }
    eventually(|| fixture.server.info().requests == 3).await;
    assert_eq!(next(&fixture.events), Event::Ready);
    eventually(|| fixture.server.claim(10) > 0 || fixture.server.take().is_none()).await;
    while fixture.server.claim(10) > 0 {}
    while fixture.server.take().is_some() {}
    let _socket = fixture.get().await;
    assert_eq!(next(&fixture.events), Event::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_requests_of_one_http2_connection_side_by_side() {
    let fixture = listen(options());
    let mut client = fixture.connect2().await;
    let (first, first_served) = fixture.ask(&mut client, request("/first?q", "one"));
    let (second, second_served) = fixture.ask(&mut client, request("/second", "two"));
    assert_eq!(first_served.request.head.uri.path(), "/first");
    assert_eq!(first_served.request.head.uri.query(), Some("q"));
    assert_eq!(first_served.request.head.headers["host"], "localhost");
    assert_eq!(second_served.request.body, Some(Bytes::from_static(b"two")));
    second_served.reply("second");
    let mut answer = second.await.unwrap().unwrap();
    assert_eq!(answer.headers()["content-length"], "6");
    assert_eq!(frame(answer.body_mut()).await.unwrap().unwrap(), "second");
    first_served.reply("first");
    let mut answer = first.await.unwrap().unwrap();
    assert_eq!(frame(answer.body_mut()).await.unwrap().unwrap(), "first");
    eventually(|| fixture.server.info().requests == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_over_http2_and_tells_of_room() {
    let fixture = listen(options());
    let mut client = fixture.connect2().await;
    let (mut answer, served) = fixture.stream(&mut client).await;
    served.exchange.send(Bytes::from_static(b"one")).unwrap();
    assert_eq!(frame(answer.body_mut()).await.unwrap().unwrap(), "one");
    // The client's window, what hyper holds and the queue are finite.
    let part = Bytes::from(vec![0; 10_000]);
    let mut sent = 0;
    while served.exchange.send(part.clone()).is_ok() {
        sent += 10_000;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(sent < 100_000_000);
    }
    assert_eq!(served.exchange.send(part.clone()), Err(Error::Busy));
    let mut received = 0;
    while received < sent {
        received += frame(answer.body_mut()).await.unwrap().unwrap().len();
    }
    assert_eq!(next(&served.notices), Notice::Writable);
    served.exchange.finish().unwrap();
    assert!(frame(answer.body_mut()).await.is_none());
    eventually(|| fixture.server.info().streams == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_were_read_with_one_that_streams_are_served_after_it() {
    let fixture = listen(options());
    let mut socket = fixture.connect().await;
    let two = "POST /one HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\none\
        POST /two HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\ntwo\
        GET /three HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    socket.write_all(two.as_bytes()).await.unwrap();
    for name in ["one", "two", "three"] {
        let served = fixture.serve();
        assert_eq!(served.request.head.uri.path(), format!("/{name}"));
        served.stream();
        served.exchange.send(Bytes::from(name)).unwrap();
        let large = Bytes::from(vec![b'x'; 5000]);
        served.exchange.send(large).unwrap();
        served.exchange.finish().unwrap();
    }
    let all = rest(socket).await;
    let answers: Vec<&str> = all.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    assert_eq!(answers.len(), 3);
    for (answer, name) in answers.iter().zip(["one", "two", "three"]) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("transfer-encoding: chunked"));
        assert_eq!(head.contains("connection: close"), name == "three");
        let len = name.len();
        assert!(body.starts_with(&format!("{len:x}\r\n{name}\r\n1388\r\nxxx")));
        assert!(body.ends_with("xxx\r\n0\r\n\r\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stream_is_a_client_that_is_gone() {
    let fixture = listen(options());
    let mut client = fixture.connect2().await;
    let (answer, served) = fixture.ask(&mut client, request("/", ""));
    answer.abort();
    assert_eq!(next(&served.notices), Notice::Gone);
    let closed = served
        .exchange
        .reply(StatusCode::OK, HeaderMap::new(), Bytes::new());
    assert_eq!(closed, Err(Error::Closed));

    let (answer, served) = fixture.ask(&mut client, request("/", ""));
    assert!(!served.exchange.on_gone(OnGone::Exit));
    served.stream();
    drop(answer.await.unwrap().unwrap());
    assert_eq!(next(&served.notices), Notice::Exit);
    assert!(served.exchange.on_gone(OnGone::Exit));
    assert_eq!(served.exchange.finish(), Err(Error::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_is_answered_for_over_http2() {
    let fixture = listen(options());
    let mut client = fixture.connect2().await;
    let (answer, served) = fixture.ask(&mut client, request("/", ""));
    served.exchange.on_exit(StatusCode::BAD_GATEWAY);
    drop(served);
    assert_eq!(answer.await.unwrap().unwrap().status(), 502);

    let (mut answer, served) = fixture.stream(&mut client).await;
    served.exchange.send(Bytes::from_static(b"part")).unwrap();
    assert_eq!(frame(answer.body_mut()).await.unwrap().unwrap(), "part");
    // Not before: a reset may overtake what came before it.
    drop(served);
    assert!(frame(answer.body_mut()).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_a_large_body_when_it_is_asked_for() {
    let fixture = listen(options());
    let mut client = fixture.connect2().await;
    let body = "b".repeat(100_000);
    let (answer, served) = fixture.ask(&mut client, request("/", &body));
    assert_eq!(served.request.body, None);
    assert_eq!(served.exchange.body(), Body::Waiting);
    assert_eq!(next(&served.notices), Notice::Body);
    assert_eq!(served.exchange.body(), Body::Complete(Bytes::from(body)));
    served.reply("");
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);

    let body = "b".repeat(100_001);
    let (_answer, served) = fixture.ask(&mut client, request("/", &body));
    assert_eq!(served.exchange.body(), Body::Waiting);
    assert_eq!(next(&served.notices), Notice::Body);
    assert_eq!(served.exchange.body(), Body::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_over_http2_what_is_over_a_limit() {
    let fixture = listen(Options {
        max_requests: 1,
        ..options()
    });
    let mut client = fixture.connect2().await;
    let long = request(&format!("/{}", "x".repeat(1000)), "");
    assert_eq!(client.send_request(long).await.unwrap().status(), 414);
    let mut large = request("/", "");
    let value = "x".repeat(1000).parse().unwrap();
    large.headers_mut().insert("large", value);
    assert_eq!(client.send_request(large).await.unwrap().status(), 431);
    let mut many = request("/", "");
    for n in 0..30 {
        let name: http::HeaderName = format!("h{n}").parse().unwrap();
        many.headers_mut().insert(name, "v".parse().unwrap());
    }
    assert_eq!(client.send_request(many).await.unwrap().status(), 431);
    let (first, served) = fixture.ask(&mut client, request("/", ""));
    let refused = client.send_request(request("/", "")).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    served.reply("");
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_too_many_is_refused() {
    let fixture = listen(Options {
        max_streams: 1,
        ..options()
    });
    let mut client = fixture.connect2().await;
    let (first, streaming) = fixture.stream(&mut client).await;
    let (second, served) = fixture.ask(&mut client, request("/", ""));
    let refused = served.exchange.stream(StatusCode::OK, HeaderMap::new());
    assert_eq!(refused, Err(Error::Closed));
    assert_eq!(second.await.unwrap().unwrap().status(), 503);
    drop(first);
    assert_eq!(next(&streaming.notices), Notice::Gone);
    assert_eq!(fixture.server.info().streams, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_waits_for_requests_and_then_cuts_them_off() {
    for version in [1, 2] {
        let fixture = listen(options());
        let idle = fixture.connect().await;
        let mut client2 = fixture.connect2().await;
        let mut client1 = fixture.connect().await;
        if version == 1 {
            client1.write_all(GET).await.unwrap();
        } else {
            let sending = client2.send_request(request("/", ""));
            tokio::spawn(async move {
                let _answer = sending.await;
                std::future::pending::<()>().await;
            });
        }
        let served = fixture.serve();
        served.stream();
        fixture.server.drain(Duration::from_millis(300));
        assert_eq!(rest(idle).await, "");
        assert!(TcpStream::connect(fixture.address).await.is_err());
        quiet(&served.notices);
        assert_eq!(next(&served.notices), Notice::Gone);
        while next(&fixture.events) != Event::Drained {}
        assert_eq!(next(&fixture.events), Event::Closed);
        assert_eq!(fixture.server.info().connections, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_everything_at_once() {
    let fixture = listen(options());
    let mut client = fixture.connect2().await;
    let (mut answer, served) = fixture.stream(&mut client).await;
    fixture.server.close();
    assert_eq!(next(&served.notices), Notice::Gone);
    assert!(frame(answer.body_mut()).await.unwrap().is_err());
    while next(&fixture.events) != Event::Closed {}
    assert_eq!(fixture.server.info().connections, 0);
    assert_eq!(fixture.server.info().requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_forgets_what_nobody_has_taken() {
    let fixture = listen(options());
    let socket = fixture.get().await;
    assert_eq!(next(&fixture.events), Event::Ready);
    assert_eq!(fixture.server.claim(10), 1);
    fixture.server.close();
    assert_eq!(next(&fixture.events), Event::Closed);
    assert!(fixture.server.take().is_none());
    assert_eq!(rest(socket).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_http2_connection_is_closed() {
    let fixture = listen(Options {
        idle_timeout: Duration::from_millis(200),
        ..options()
    });
    let mut client = fixture.connect2().await;
    let (answer, served) = fixture.stream(&mut client).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fixture.server.info().connections, 1);
    served.exchange.finish().unwrap();
    drop(answer);
    eventually(|| fixture.server.info().connections == 0).await;
    assert!(client.send_request(request("/", "")).await.is_err());
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2.
fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `:method GET`, `:scheme http`, `:path /`, `:authority h`.
const HEADERS: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'h'];

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets_ends_the_connection() {
    let fixture = listen(options());
    let mut socket = fixture.connect().await;
    let mut flood = [PREFACE, &raw(4, 0, 0, &[])].concat();
    for n in 0..1000 {
        flood.extend_from_slice(&raw(1, 5, 2 * n + 1, HEADERS));
        flood.extend_from_slice(&raw(3, 0, 2 * n + 1, &8_u32.to_be_bytes()));
    }
    let _ = socket.write_all(&flood).await;
    rest(socket).await;
    eventually(|| fixture.server.info().connections == 0).await;
    assert_eq!(fixture.server.info().requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_continuations_ends_the_connection() {
    let fixture = listen(options());
    let mut socket = fixture.connect().await;
    let mut start = [PREFACE, &raw(4, 0, 0, &[])].concat();
    start.extend_from_slice(&raw(1, 1, 1, HEADERS));
    socket.write_all(&start).await.unwrap();
    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'v'; 16_000]].concat();
    let continuation = raw(9, 0, 1, &field);
    let mut sent = 0;
    while socket.write_all(&continuation).await.is_ok() {
        sent += 1;
        assert!(sent < 10_000, "nothing stops it");
    }
    eventually(|| fixture.server.info().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_only_the_protocols_that_it_is_to() {
    let fixture = listen(Options {
        http1: false,
        ..options()
    });
    let mut socket = fixture.connect().await;
    let _ = socket.write_all(GET).await;
    assert!(!rest(socket).await.contains("HTTP/1.1"));
    let fixture = listen(Options {
        http2: false,
        ..options()
    });
    let mut socket = fixture.connect().await;
    let _ = socket.write_all(PREFACE).await;
    assert!(rest(socket).await.starts_with("HTTP/1.1 505 "));
}
