//! The golden vectors of HTTP, which Erlang's tests read, too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes};
use erlmcp_core::http::client::{Failure, Head as AnswerHead, Reason};
use erlmcp_core::http::{HeaderMap, HeaderName, HeaderValue, Request, Version, request};
use erlmcp_core::options::Endpoint;
use erlmcp_core::stream::Address;
use erlmcp_core::{Error, TlsError};

use crate::op::{from_vm, to_vm};
use crate::out::Out;
use crate::term::{Term, Writer};
use crate::vectors::{expect_in, hex, packets_of};
use crate::{http_client, http_exchange, http_options, http_packet, options, terms};

/// The number of a request.
const R: u64 = 1 << 40 | 5;

fn expect(name: &str, op: u8, id: u64) -> Bytes {
    expect_in(&packets_of("http.txt"), name, op, id)
}

/// Of a packet about a request.
fn expect_about(name: &str, op: u8) -> Bytes {
    let mut body = expect(name, op, 18);
    assert_eq!(body.get_u64(), R, "{name}");
    body
}

fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )
}

#[test]
fn what_the_vm_sends_about_a_listener() {
    let term = Term::read(&expect("vm_http_listen", from_vm::HTTP_LISTEN, 16)).unwrap();
    let [acceptor, endpoint, given] = term.tuple().unwrap() else {
        panic!("{term:?}");
    };
    assert_eq!(acceptor.integer(), Ok(18));
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    assert_eq!(options::endpoint(endpoint), Ok(Endpoint::Ip(here, 0)));
    let server = http_options::server(given).unwrap();
    assert!(server.http1 && server.http2 && server.tcp.nodelay);
    assert_eq!(server.max_body, 16 * 1_048_576);
    assert_eq!(server.header_timeout, Duration::from_secs(10));
    let ms = expect("vm_http_drain", from_vm::HTTP_DRAIN, 16).get_u64();
    assert_eq!(ms, 30_000);
    assert_eq!(expect("vm_http_info", from_vm::HTTP_INFO, 16).get_u64(), 7);
}

#[test]
fn what_the_vm_sends_about_a_request() {
    let mut body = expect_about("vm_http_reply", from_vm::HTTP_REPLY);
    let head = http_packet::head(&mut body).unwrap().unwrap();
    let expected = HeaderMap::from_iter([field("content-type", "application/json")]);
    assert_eq!((head.status.as_u16(), head.headers), (200, expected));
    assert_eq!(body, b"{}"[..]);
    let mut body = expect_about("vm_http_stream", from_vm::HTTP_STREAM);
    let head = http_packet::head(&mut body).unwrap().unwrap();
    let expected = [
        field("content-type", "text/event-stream"),
        field("x-empty", ""),
    ];
    assert_eq!(head.headers, HeaderMap::from_iter(expected));
    assert!(body.is_empty());
    let part = expect_about("vm_http_send", from_vm::HTTP_SEND);
    assert_eq!(part, b"data: x\n\n"[..]);
    assert!(expect_about("vm_http_finish", from_vm::HTTP_FINISH).is_empty());
    assert!(expect_about("vm_http_want_room", from_vm::HTTP_WANT_ROOM).is_empty());
    assert_eq!(
        expect_about("vm_http_want_body", from_vm::HTTP_WANT_BODY),
        [4][..]
    );
    let mut done = expect("vm_http_done", from_vm::HTTP_DONE, 18);
    assert_eq!((done.get_u64(), done.get_u16()), (R, 0));
    assert_eq!((done.get_u64(), done.get_u16()), (R + 2, 202));
}

#[test]
fn what_the_vm_sends_about_a_client() {
    let term = Term::read(&expect("vm_client_open", from_vm::HTTP_CLIENT_OPEN, 20)).unwrap();
    let [origin, given] = term.tuple().unwrap() else {
        panic!("{term:?}");
    };
    let client = http_options::client(origin, given).unwrap();
    assert_eq!((&client.host[..], client.port), ("localhost", 4000));
    assert!(client.tls.is_none());
    let proxy = client.proxy.unwrap();
    assert_eq!(proxy.authorization.as_deref(), Some(&b"Basic eA=="[..]));
    let op = from_vm::HTTP_CLIENT_REQUEST;
    let mut body = expect("vm_client_request", op, 20);
    assert_eq!((body.get_u64(), body.get_u32()), (1, 262_144));
    let request = http_packet::client_request(&mut body).unwrap();
    assert!(request.is_some() && body.is_empty());
    let mut body = expect("vm_client_request_without_body", op, 20);
    assert_eq!((body.get_u64(), body.get_u32()), (2, 1024));
    let request = http_packet::client_request(&mut body).unwrap();
    assert!(request.is_some() && body.is_empty());
    let mut grant = expect("vm_client_grant", from_vm::HTTP_CLIENT_GRANT, 20);
    assert_eq!((grant.get_u64(), grant.get_u32()), (1, 131_072));
    let cancel = expect("vm_client_cancel", from_vm::HTTP_CLIENT_CANCEL, 20).get_u64();
    assert_eq!(cancel, 1);
    let info = expect("vm_client_info", from_vm::HTTP_CLIENT_INFO, 20).get_u64();
    assert_eq!(info, 7);
}

/// What was cut short is malformed, wherever that is.
#[test]
fn packets_that_are_none() {
    let whole = expect_about("vm_http_stream", from_vm::HTTP_STREAM);
    for len in 0..whole.len() {
        assert!(http_packet::head(&mut whole.slice(..len)).is_err(), "{len}");
    }
    let mut whole = expect(
        "vm_client_request_without_body",
        from_vm::HTTP_CLIENT_REQUEST,
        20,
    );
    whole.advance(12);
    for len in 0..whole.len() {
        let request = http_packet::client_request(&mut whole.slice(..len));
        assert!(request.is_err(), "{len}");
    }
}

fn request_of(request: request::Builder, peer: Address, tls: bool, body: Option<Bytes>) -> Vec<u8> {
    let (head, ()) = request.body(()).unwrap().into_parts();
    let request = Request {
        head,
        body,
        peer: Some(peer),
        tls,
    };
    let (flags, term) = http_packet::request(&request);
    let body = request.body.unwrap_or_default();
    [&R.to_be_bytes()[..], &[flags], &term, &body].concat()
}

/// Each packet that the program sends, made anew.
#[test]
fn what_the_program_sends() {
    let out = Out::new();
    let mut sent = BTreeMap::new();
    let mut send = |name: &str, op: u8, id: u64, body: &[u8]| {
        out.send(op, id, &[body]);
        sent.insert(format!("program_{name}"), hex(&out.written()));
    };
    let here = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 4000)));
    let numbers = |numbers: &[u64]| -> Vec<u8> {
        let bytes = numbers.iter().map(|number| number.to_be_bytes());
        bytes.flatten().collect()
    };
    let mut name = Writer::new();
    terms::address(&mut name, Some(&here));
    send("http_listening", to_vm::HTTP_LISTENING, 16, &name.finish());
    send("http_drained", to_vm::HTTP_DRAINED, 16, &[]);
    send("http_closed", to_vm::HTTP_CLOSED, 18, &[]);
    send("http_info", to_vm::HTTP_INFO, 16, &numbers(&[7, 3, 2, 1]));
    let post = request::Builder::new()
        .method("POST")
        .uri("/mcp?a=%20")
        .header("host", "localhost")
        .header("content-length", "2");
    let body = Some(Bytes::from_static(b"{}"));
    let post = request_of(post, here, false, body);
    send("http_request", to_vm::HTTP_REQUEST, 18, &post);
    let get = request::Builder::new().uri("/").version(Version::HTTP_2);
    let get = request_of(get, Address::Unnamed, true, None);
    send("http_request_pending", to_vm::HTTP_REQUEST, 18, &get);
    send("http_gone", to_vm::HTTP_GONE, 18, &numbers(&[R]));
    send("http_taken", to_vm::HTTP_TAKEN, 18, &numbers(&[R, 131_072]));
    send("http_room", to_vm::HTTP_ROOM, 18, &numbers(&[R, 524_288]));
    let last = [&R.to_be_bytes()[..], &[http_exchange::kind::LAST], b"last"].concat();
    send("http_body", to_vm::HTTP_BODY, 18, &last);
    send("client_opened", to_vm::HTTP_CLIENT_OPENED, 20, &[]);
    for (name, answer) in answers() {
        let body = [&answer.head(1)[..], &answer.parts.concat()].concat();
        send(name, to_vm::HTTP_ANSWER, 20, &body);
    }
    let mut golden = packets_of("http.txt");
    golden.retain(|name, _| name.starts_with("program_"));
    assert_eq!(sent, golden);
}

fn answers() -> [(&'static str, http_client::Answer); 4] {
    let mut whole = http_client::Answer::default();
    whole.begin(&AnswerHead {
        status: 200,
        headers: HeaderMap::from_iter([field("content-type", "application/json")]),
    });
    whole.parts = vec![Bytes::from_static(b"{}")];
    whole.done();
    let mut part = http_client::Answer::default();
    part.parts = vec![Bytes::from_static(b"part")];
    let mut failed = http_client::Answer::default();
    failed.fail(Failure {
        reason: Reason::Error(Error::Tls(TlsError::UnknownCa)),
        safe: true,
    });
    let mut cut_off = http_client::Answer::default();
    cut_off.begin(&AnswerHead {
        status: 200,
        headers: HeaderMap::new(),
    });
    cut_off.parts = vec![Bytes::from_static(b"be")];
    cut_off.fail(Failure {
        reason: Reason::Protocol,
        safe: false,
    });
    [
        ("client_answer", whole),
        ("client_part", part),
        ("client_failed", failed),
        ("client_cut_off", cut_off),
    ]
}
