//! HTTP clients over real sockets. What all paths have in common is tested from Erlang; here are
//! servers that no library would make, and HTTP/2 frame by frame.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use erlmcp_core::Error;
use erlmcp_core::http::client::{
    Client, Failure, Invalid, News, Notify, Options, Reason, Request, Taken,
};
use erlmcp_core::options::{Dial, Tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const WAIT: Duration = Duration::from_secs(10);

struct Channel(Sender<u64>);

impl Notify for Channel {
    fn ready(&self, request: u64) {
        let _ = self.0.send(request);
    }
}

/// A client, what it has told, and the runtime of it and its server.
struct Bench {
    client: Client,
    told: Receiver<u64>,
    runtime: Runtime,
}

fn options(port: u16) -> Options {
    Options {
        host: "127.0.0.1".to_owned(),
        port,
        tls: None,
        http1: true,
        http2: true,
        max_connections: 4,
        max_queue: 100,
        max_head: 16 * 1024,
        high_water: 64 * 1024,
        idle_timeout: Duration::from_secs(60),
        dial: Dial {
            connect_timeout: Duration::from_secs(5),
            attempt_delay: Duration::from_millis(250),
            bind: None,
        },
        tcp: Tcp {
            nodelay: true,
            keepalive: true,
        },
        handshake_timeout: Duration::from_secs(5),
        proxy: None,
    }
}

/// A client of a server that runs `serve` for each connection, with its number.
fn bench<F, S>(change: impl FnOnce(&mut Options), serve: S) -> Bench
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(usize, TcpStream) -> F + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime
        .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .unwrap();
    let mut options = options(listener.local_addr().unwrap().port());
    change(&mut options);
    runtime.spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    let (sender, told) = channel();
    let client = Client::open(runtime.handle(), Box::new(Channel(sender)), options).unwrap();
    Bench {
        client,
        told,
        runtime,
    }
}

fn request(method: &str, body: Option<&[u8]>) -> Request {
    let body = body.map(Bytes::copy_from_slice);
    let mut request = Request::new(method.as_bytes(), b"/path?query", body).unwrap();
    request.limit(Some(WAIT), None);
    request
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Complete(u16, Vec<u8>),
    Broken(u16, Vec<u8>, Failure),
    Failed(Failure),
}

impl Bench {
    fn send(&self, request: Request) -> u64 {
        self.client.request(request).unwrap()
    }

    fn get(&self) -> Outcome {
        let id = self.send(request("GET", None));
        self.outcome(id)
    }

    fn post(&self) -> Outcome {
        let id = self.send(request("POST", Some(b"text")));
        self.outcome(id)
    }

    /// News of a request, with nothing of others coming between.
    fn news(&self, id: u64) -> Vec<News> {
        assert_eq!(self.told.recv_timeout(WAIT), Ok(id));
        self.client.news(id)
    }

    fn outcome(&self, id: u64) -> Outcome {
        let mut status = 0;
        let mut body = Vec::new();
        loop {
            for news in self.news(id) {
                match news {
                    News::Head(head) => status = head.status,
                    News::Failed(failure) => return Outcome::Failed(failure),
                    News::Readable => loop {
                        let (parts, taken) = self.client.take(id, 16, 65536).unwrap();
                        body.extend(parts.into_iter().flatten());
                        match taken {
                            Taken::More => {}
                            Taken::Armed => break,
                            Taken::Done => return Outcome::Complete(status, body),
                            Taken::Failed(failure) => {
                                return Outcome::Broken(status, body, failure);
                            }
                        }
                    },
                }
            }
        }
    }
}

fn failure(reason: impl Into<Reason>, safe: bool) -> Failure {
    Failure {
        reason: reason.into(),
        safe,
    }
}

fn eventually(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < WAIT);
        std::thread::yield_now();
    }
}

/// Reads up to the end of a request's head.
async fn head(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => seen.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// A server that answers a request with these bytes and then reads up to the end.
fn saying(bytes: &'static [u8]) -> Bench {
    bench(
        |_| {},
        move |_, mut stream| async move {
            head(&mut stream).await;
            stream.write_all(bytes).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        },
    )
}

/// A server that answers a request with these bytes and closes.
fn saying_last(bytes: &'static [u8]) -> Bench {
    bench(
        |_| {},
        move |_, mut stream| async move {
            head(&mut stream).await;
            stream.write_all(bytes).await.unwrap();
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        },
    )
}

#[test]
fn interim_answers_are_skipped() {
    let bench = saying(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    assert_eq!(bench.get(), Outcome::Complete(200, b"ok".to_vec()));
}

#[test]
fn truncated_bodies_are_failures() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\npart",
    ] {
        let expected = failure(Error::Closed, false);
        assert_eq!(
            saying_last(answer).get(),
            Outcome::Broken(200, b"part".to_vec(), expected)
        );
    }
}

#[test]
fn what_is_not_http_is_a_failure() {
    let protocol = failure(Reason::Protocol, false);
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ] {
        assert_eq!(saying(answer).get(), Outcome::Failed(protocol));
    }
    let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let broken = Outcome::Broken(200, Vec::new(), protocol);
    assert_eq!(saying(chunks).get(), broken);
}

#[test]
fn heads_are_bounded() {
    let bench = bench(
        |_| {},
        |_, mut stream| async move {
            head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        },
    );
    let protocol = failure(Reason::Protocol, false);
    assert_eq!(bench.get(), Outcome::Failed(protocol));
}

#[test]
fn a_reset_in_a_body_is_one() {
    let bench = bench(
        |_| {},
        |_, mut stream| async move {
            head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart";
            stream.write_all(answer).await.unwrap();
            // Not before it was read.
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.set_zero_linger().unwrap();
        },
    );
    let expected = failure(Error::Reset, false);
    assert_eq!(
        bench.get(),
        Outcome::Broken(200, b"part".to_vec(), expected)
    );
}

#[test]
fn closed_before_a_byte_came_is_safe_for_some_methods_on_a_used_connection() {
    // The first connection serves one request and closes on the second, others close on the first.
    let serve = |number, mut stream: TcpStream| async move {
        head(&mut stream).await;
        if number == 0 {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            head(&mut stream).await;
        }
    };
    let closed = |safe| Outcome::Failed(failure(Error::Closed, safe));
    let first = Outcome::Complete(200, Vec::new());
    let used = bench(|_| {}, serve);
    assert_eq!(used.get(), first);
    assert_eq!(used.get(), closed(true));
    assert_eq!(used.get(), closed(false));
    let used = bench(|_| {}, serve);
    assert_eq!(used.get(), first);
    assert!(matches!(
        used.outcome(used.send(request("POST", None))),
        Outcome::Failed(Failure { safe: false, .. })
    ));
}

#[test]
fn a_connection_that_was_closed_while_unused_costs_no_request() {
    let bench = bench(
        |_| {},
        |_, mut stream| async move {
            head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        },
    );
    for _ in 0..3 {
        assert_eq!(bench.get(), Outcome::Complete(200, Vec::new()));
        eventually(|| bench.client.counts().connections == 0);
    }
}

#[test]
fn an_unused_connection_is_closed_in_time() {
    let (ended, end) = channel();
    let bench = bench(
        |options| options.idle_timeout = Duration::from_millis(50),
        move |_, mut stream| {
            let ended = ended.clone();
            async move {
                head(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                let _ = ended.send(stream.read_to_end(&mut Vec::new()).await.is_ok());
            }
        },
    );
    assert_eq!(bench.get(), Outcome::Complete(200, Vec::new()));
    assert_eq!(end.recv_timeout(WAIT), Ok(true));
    eventually(|| bench.client.counts().connections == 0);
}

#[test]
fn a_refused_dial_fails_what_waits_for_it() {
    let port = {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    for http1 in [true, false] {
        let change = |options: &mut Options| {
            options.port = port;
            options.http1 = http1;
        };
        let bench = bench(change, |_, _| async {});
        let mut ids: Vec<u64> = (0..20).map(|_| bench.send(request("POST", None))).collect();
        while !ids.is_empty() {
            let told = bench.told.recv_timeout(WAIT).unwrap();
            let news = bench.client.news(told);
            let [News::Failed(failed)] = news[..] else {
                panic!("{news:?}")
            };
            assert_eq!(failed, failure(Error::Refused, true));
            ids.retain(|id| *id != told);
        }
        let counts = bench.client.counts();
        assert_eq!((counts.active, counts.queued), (0, 0));
    }
}

#[test]
fn nothing_unfit_is_sent() {
    let new = |method: &[u8], target: &[u8]| Request::new(method, target, None).err();
    assert_eq!(new(b"GET", b"/"), None);
    assert_eq!(new(b"GE T", b"/"), Some(Invalid::Method));
    assert_eq!(new(b"CONNECT", b"/"), Some(Invalid::Method));
    assert_eq!(new(b"GET", b"/a b"), Some(Invalid::Target));
    assert_eq!(new(b"GET", b"http://elsewhere/"), Some(Invalid::Target));
    let mut request = request("GET", None);
    assert_eq!(request.header(b"a:", b"b"), Err(Invalid::Header));
    assert_eq!(request.header(b"a", b"b\r\nc: d"), Err(Invalid::Header));
    assert_eq!(request.header(b"a", b"b"), Ok(()));
}

#[test]
fn an_answer_of_many_parts_comes_whole_and_no_further_ahead_than_it_may() {
    const SIZE: usize = 8 << 20;
    let (sent, progress) = channel();
    let bench = bench(
        |_| {},
        move |_, mut stream| {
            let sent = sent.clone();
            async move {
                head(&mut stream).await;
                let start = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
                stream.write_all(start.as_bytes()).await.unwrap();
                for number in 0..SIZE / 4096 {
                    let part = [u8::try_from(number % 251).unwrap(); 4096];
                    stream.write_all(&part).await.unwrap();
                    let _ = sent.send(());
                }
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        },
    );
    let id = bench.send(request("GET", None));
    let mut parts = 0;
    while progress.recv_timeout(Duration::from_millis(500)).is_ok() {
        parts += 1;
    }
    assert!(parts * 4096 < SIZE, "the server was never made to wait");
    let Outcome::Complete(200, body) = bench.outcome(id) else {
        panic!("not complete")
    };
    assert_eq!(body.len(), SIZE);
    let expected = |place: usize| u8::try_from(place / 4096 % 251).unwrap();
    assert!(body.iter().enumerate().all(|(n, b)| *b == expected(n)));
}

/// A server of HTTP/2 that runs `serve` with each connection.
fn h2_bench<F, S>(change: impl FnOnce(&mut h2::server::Builder), serve: S) -> Bench
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(usize, h2::server::Connection<TcpStream, Bytes>) -> F + Send + Sync + Clone + 'static,
{
    let mut builder = h2::server::Builder::new();
    change(&mut builder);
    bench(
        |options| options.http1 = false,
        move |number, stream| {
            let (builder, serve) = (builder.clone(), serve.clone());
            async move {
                if let Ok(connection) = builder.handshake(stream).await {
                    serve(number, connection).await;
                }
            }
        },
    )
}

fn ok() -> http::Response<()> {
    http::Response::new(())
}

#[test]
fn http2_requests_share_a_connection() {
    let bench = h2_bench(
        |_| {},
        |number, mut connection| async move {
            assert_eq!(number, 0);
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().path_and_query().unwrap(), "/path?query");
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    let mut all = Vec::new();
                    while let Some(Ok(part)) = body.data().await {
                        let _ = body.flow_control().release_capacity(part.len());
                        all.extend_from_slice(&part);
                    }
                    let mut send = respond.send_response(ok(), all.is_empty()).unwrap();
                    if !all.is_empty() {
                        send.send_data(all.into(), true).unwrap();
                    }
                });
            }
        },
    );
    assert_eq!(bench.get(), Outcome::Complete(200, Vec::new()));
    assert_eq!(bench.post(), Outcome::Complete(200, b"text".to_vec()));
    let large = vec![7; 3 << 20];
    let id = bench.send(request("POST", Some(&large)));
    assert_eq!(bench.outcome(id), Outcome::Complete(200, large));
    assert_eq!(bench.client.counts().connections, 1);
}

#[test]
fn a_refused_stream_is_safe_and_a_reset_one_is_not() {
    let bench = h2_bench(
        |_| {},
        |_, mut connection| async move {
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                respond.send_reset(if request.method() == "GET" {
                    h2::Reason::REFUSED_STREAM
                } else {
                    h2::Reason::INTERNAL_ERROR
                });
            }
        },
    );
    let refused = failure(Error::Refused, true);
    assert_eq!(bench.get(), Outcome::Failed(refused));
    let reset = failure(Error::Reset, false);
    assert_eq!(bench.post(), Outcome::Failed(reset));
    assert_eq!(bench.client.counts().active, 0);
}

#[test]
fn a_server_that_goes_away_loses_nothing_it_has_begun() {
    let bench = h2_bench(
        |_| {},
        |_, mut connection| async move {
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            connection.graceful_shutdown();
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data(Bytes::from_static(b"bye"), true).unwrap();
            while connection.accept().await.is_some() {}
        },
    );
    for _ in 0..3 {
        assert_eq!(bench.get(), Outcome::Complete(200, b"bye".to_vec()));
    }
}

#[test]
fn streams_beyond_the_servers_limit_wait() {
    let bench = h2_bench(
        |builder| {
            builder.max_concurrent_streams(2);
        },
        |number, mut connection| async move {
            assert_eq!(number, 0);
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    respond.send_response(ok(), true).unwrap();
                });
            }
        },
    );
    let mut ids: Vec<u64> = (0..30).map(|_| bench.send(request("GET", None))).collect();
    while !ids.is_empty() {
        let told = bench.told.recv_timeout(WAIT).unwrap();
        let news = bench.client.news(told);
        assert!(matches!(news[..], [News::Head(_), News::Readable]));
        let (_, taken) = bench.client.take(told, 1, 1).unwrap();
        assert_eq!(taken, Taken::Done);
        ids.retain(|id| *id != told);
    }
}

#[test]
fn a_cancelled_stream_is_reset_and_the_connection_serves_on() {
    let (reset, resets) = channel();
    let bench = h2_bench(
        |_| {},
        move |number, mut connection| {
            let reset = reset.clone();
            async move {
                assert_eq!(number, 0);
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    if request.method() == "GET" {
                        let _ = respond.send_response(ok(), true);
                        continue;
                    }
                    let reset = reset.clone();
                    tokio::spawn(async move {
                        let why = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                        let _ = reset.send(why.unwrap());
                    });
                }
            }
        },
    );
    let id = bench.send(request("POST", None));
    eventually(|| bench.client.counts().connections == 1);
    assert_eq!(bench.get(), Outcome::Complete(200, Vec::new()));
    bench.client.cancel(id);
    assert_eq!(resets.recv_timeout(WAIT), Ok(h2::Reason::CANCEL));
    assert!(bench.client.take(id, 1, 1).is_none());
    let mut late = request("POST", None);
    late.limit(Some(Duration::from_millis(20)), None);
    let late = bench.send(late);
    let timeout = failure(Error::Timeout, false);
    assert_eq!(bench.outcome(late), Outcome::Failed(timeout));
    assert_eq!(resets.recv_timeout(WAIT), Ok(h2::Reason::CANCEL));
    assert_eq!(bench.get(), Outcome::Complete(200, Vec::new()));
}

#[test]
fn a_stream_that_nobody_takes_does_not_hold_up_others() {
    const SIZE: usize = 4 << 20;
    let bench = h2_bench(
        |builder| {
            builder.max_send_buffer_size(16 << 20);
        },
        |_, mut connection| async move {
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let size = if request.method() == "GET" { SIZE } else { 4 };
                let mut send = respond.send_response(ok(), false).unwrap();
                send.send_data(vec![1; size].into(), true).unwrap();
            }
        },
    );
    let stuck: Vec<u64> = (0..8).map(|_| bench.send(request("GET", None))).collect();
    for _ in &stuck {
        let _ = bench.told.recv_timeout(WAIT).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(bench.post(), Outcome::Complete(200, vec![1; 4]));
    }
    for id in stuck {
        let mut size = 0;
        // It was told of before.
        let mut known = true;
        loop {
            if !std::mem::take(&mut known) {
                while bench.told.recv_timeout(WAIT).unwrap() != id {}
            }
            let _ = bench.client.news(id);
            let taken = loop {
                let (parts, taken) = bench.client.take(id, 16, 1 << 20).unwrap();
                size += parts.iter().map(Bytes::len).sum::<usize>();
                if taken != Taken::More {
                    break taken;
                }
            };
            match taken {
                Taken::Done => break,
                Taken::Armed => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(size, SIZE);
    }
}

#[test]
fn closing_ends_connections_and_requests() {
    let (ended, end) = channel();
    let bench = bench(
        |_| {},
        move |_, mut stream| {
            let ended = ended.clone();
            async move {
                head(&mut stream).await;
                let _ = ended.send(());
                let _ = stream.read_to_end(&mut Vec::new()).await;
                let _ = ended.send(());
            }
        },
    );
    let id = bench.send(request("GET", None));
    end.recv_timeout(WAIT).unwrap();
    bench.client.close();
    end.recv_timeout(WAIT).unwrap();
    assert!(bench.told.try_recv().is_err());
    assert!(bench.client.news(id).is_empty());
    assert_eq!(
        bench.client.request(request("GET", None)),
        Err(Error::Closed)
    );
    eventually(|| bench.client.counts().connections == 0);
    drop(bench.runtime);
}
