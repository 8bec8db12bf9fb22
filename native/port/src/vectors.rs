//! The golden vectors in `test/port_vectors`, which Erlang's tests read, too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes};
use erlmcp_core::child::{Line, Stderr};
use erlmcp_core::connection::Buffers;
use erlmcp_core::frame::{Framing, Item};
use erlmcp_core::high_water::Reason;
use erlmcp_core::inbox::Batch;
use erlmcp_core::options::{Endpoint, OnOversize};
use erlmcp_core::stream::Address;
use erlmcp_core::{Error, Info, State, TlsError};

use crate::connection::{Settings, info_term};
use crate::frames::{frames, terms_of};
use crate::hello::{self, Hello, Refused};
use crate::json::Decoder;
use crate::op::{from_vm, to_vm};
use crate::out::{Body, Out};
use crate::packet::Packets;
use crate::term::{Term, Writer};
use crate::{child, options, reason, terms};

fn file(name: &str) -> String {
    let path = format!(
        "{}/../../test/port_vectors/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(path).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Packets with their lengths, by name.
pub(crate) fn packets_of(file: &str) -> BTreeMap<String, String> {
    self::file(file)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, hex)| (name.to_owned(), hex.replace(' ', "")))
        .collect()
}

fn packets() -> BTreeMap<String, String> {
    packets_of("packets.txt")
}

fn expect(name: &str, op: u8, id: u64) -> Bytes {
    expect_in(&packets(), name, op, id)
}

/// The body of a packet, which is of that operation and id.
pub(crate) fn expect_in(all: &BTreeMap<String, String>, name: &str, op: u8, id: u64) -> Bytes {
    let bytes = bytes(&all[name]);
    let packet = Packets::new(&bytes[..]).next().unwrap();
    assert_eq!((packet.op, packet.id), (op, id), "{name}");
    packet.body
}

#[test]
fn what_the_vm_sends_about_the_program() {
    let body = expect("vm_hello", from_vm::HELLO, 0);
    let expected = Hello {
        generation: 7,
        workers: 2,
        level: 2,
    };
    assert_eq!(hello::read(from_vm::HELLO, body), Ok(expected));
    let body = expect("vm_hello_of_version_9", from_vm::HELLO, 0);
    assert_eq!(hello::read(from_vm::HELLO, body), Err(Refused::Version));
    assert!(expect("vm_ping", from_vm::PING, 0).is_empty());
    assert_eq!(
        expect("vm_processed", from_vm::PROCESSED, 0).get_u64(),
        1_048_640
    );
    assert!(expect("vm_close", from_vm::CLOSE, 12).is_empty());
    assert_eq!(expect("vm_log_level", from_vm::LOG_LEVEL, 0)[..], [4]);
    assert!(expect("vm_metrics", from_vm::METRICS, 12).is_empty());
}

#[test]
fn what_the_vm_sends_about_a_connection() {
    let mut body = expect("vm_connect", from_vm::CONNECT, 12);
    assert_eq!(body.get_u32(), 1_048_576);
    let term = Term::read(&body).unwrap();
    let [endpoint, given] = term.tuple().unwrap() else {
        panic!("{term:?}");
    };
    assert_eq!(
        options::endpoint(endpoint),
        Ok(Endpoint::Name("localhost".into(), 4000))
    );
    let limits = Settings::read(given).unwrap().limits;
    assert_eq!(limits.framing, Framing::Line);
    assert_eq!(limits.max_frame, 16 * 1_048_576);
    assert_eq!(limits.on_oversize, OnOversize::Close);
    assert_eq!(limits.linger, Duration::from_secs(5));
    assert!(options::tcp(given).unwrap().nodelay);
    assert_eq!(options::dial(given).unwrap().bind, None);
    let tls = options::tls(given).unwrap().unwrap();
    assert!(tls.verify && !tls.only_tls13 && tls.ca_file.is_none());
    assert_eq!(expect("vm_send", from_vm::SEND, 12)[..], b"{\"id\":1}"[..]);
    let body = b"{}";
    let urgent = expect("vm_send_urgent", from_vm::SEND_URGENT, 12);
    assert_eq!(urgent[..], body[..]);
    let normal = expect("vm_send_normal", from_vm::SEND_NORMAL, 12);
    assert_eq!(normal[..], body[..]);
    assert_eq!(expect("vm_grant", from_vm::GRANT, 12).get_u32(), 524_300);
    assert!(expect("vm_want_room", from_vm::WANT_ROOM, 12).is_empty());
    assert_eq!(expect("vm_info", from_vm::INFO, 12).get_u64(), 5);
}

#[test]
fn what_the_vm_sends_about_a_child() {
    let mut body = expect("vm_child", from_vm::CHILD, 12);
    assert_eq!(body.get_u32(), 1_048_576);
    let term = Term::read(&body).unwrap();
    let [child, given] = term.tuple().unwrap() else {
        panic!("{term:?}");
    };
    let command = child::command(child).unwrap();
    assert_eq!(command.program, "cat");
    assert_eq!(command.args, ["-u"]);
    assert_eq!(command.env, [("A".into(), "b".into())]);
    assert_eq!(command.cwd, Some("/".into()));
    assert_eq!(command.grace.input, Duration::from_secs(2));
    let Stderr::Lines {
        max_line,
        per_second,
    } = command.stderr
    else {
        panic!("nothing of standard error");
    };
    assert_eq!((max_line, per_second), (4096, None));
    assert!(Settings::read(given).is_ok());
    assert!(expect("vm_stderr_next", from_vm::STDERR_NEXT, 12).is_empty());
}

#[test]
fn what_the_vm_sends_about_a_listener() {
    let body = expect("vm_listen", from_vm::LISTEN, 14);
    let term = Term::read(&body).unwrap();
    let [endpoint, given] = term.tuple().unwrap() else {
        panic!("{term:?}");
    };
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    assert_eq!(options::endpoint(endpoint), Ok(Endpoint::Ip(here, 0)));
    assert_eq!(given.get("backlog").unwrap().integer(), Ok(1024));
    assert!(options::tls(given).unwrap().is_none());
    assert_eq!(expect("vm_accept", from_vm::ACCEPT, 14).get_u32(), 16);
}

/// Each packet that the program sends, made anew.
#[test]
fn what_the_program_sends() {
    let out = Out::new();
    let mut sent = BTreeMap::new();
    let mut send = |name: &str, op: u8, id: u64, parts: &[&[u8]]| {
        out.send(op, id, parts);
        sent.insert(format!("program_{name}"), hex(&out.written()));
    };
    send("pong", to_vm::PONG, 0, &[]);
    send("garbage", to_vm::GARBAGE, 0, &[]);
    send("born", to_vm::BORN, 1 << 40 | 1, &[&14u64.to_be_bytes()]);
    send("opened", to_vm::OPENED, 12, &[]);
    send("eof", to_vm::EOF, 12, &[]);
    send("sent", to_vm::SENT, 12, &[&2_097_153u64.to_be_bytes()]);
    send("room", to_vm::ROOM, 12, &[&1_000u64.to_be_bytes()]);
    send(
        "oversized",
        to_vm::OVERSIZED,
        12,
        &[&16_777_217u64.to_be_bytes()],
    );
    send("down", to_vm::DOWN, 12, &[&reason::term(Error::Closed)]);
    let tls = Error::Tls(TlsError::UnknownCa);
    send("down_tls", to_vm::DOWN, 12, &[&reason::term(tls)]);
    let posix = Error::Posix(libc::EACCES);
    send("down_posix", to_vm::DOWN, 12, &[&reason::term(posix)]);
    for (name, error) in [
        ("down_exit_status", Error::ExitStatus(3)),
        ("down_signal", Error::Signal(9)),
        ("down_command", Error::Command(libc::ENOENT)),
        ("down_cwd", Error::Cwd(libc::ENOTDIR)),
    ] {
        send(name, to_vm::DOWN, 12, &[&reason::term(error)]);
    }
    let lines = [
        Line::Text("line".into()),
        Line::Dropped(3),
        Line::Text("\u{e9}".into()),
    ];
    send("stderr", to_vm::STDERR, 12, &[&child::lines_term(lines)]);
    let here = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 4000)));
    let mut name = Writer::new();
    terms::address(&mut name, Some(&here));
    send("listening", to_vm::LISTENING, 14, &[&name.finish()]);
    let info = Info {
        state: State::Open,
        peer: Some(here),
        local: Some(Address::Unnamed),
        certificate: None,
        process: None,
        frames_in: 1,
        bytes_in: 300,
        frames_out: 70_000,
        bytes_out: 1 << 33,
        waiting: 0,
        queued: 5,
        buffers: Buffers {
            read: 4096,
            high_water: 131_072,
            bounds: (65_536, 1_048_576),
            reason: Reason::QuickOwner,
        },
    };
    send(
        "info",
        to_vm::INFO,
        12,
        &[&5u64.to_be_bytes(), &info_term(&info)],
    );
    let data = Bytes::from_static(b"done\nfirst\n\nsecond\nrest");
    let items = [
        Item::Frame { start: 5, len: 5 },
        Item::Frame { start: 12, len: 6 },
    ];
    let (table, block) = frames(&items, &data);
    send("frames", to_vm::FRAMES, 12, &[&table, &block]);
    let data = Bytes::from_static(b"{\"id\":1}\n[1,\n");
    let items = vec![
        Item::Frame { start: 0, len: 8 },
        Item::Oversized(100),
        Item::Frame { start: 9, len: 3 },
    ];
    let (table, terms) = terms_of(&[Batch { data, items }]);
    send("json", to_vm::JSON, 12, &[&table, &terms]);
    sent.insert("program_hello".into(), hex(&hello::own(4711)));
    let mut golden = packets();
    golden.retain(|name, _| name.starts_with("program_"));
    assert_eq!(sent, golden);
}

#[tokio::test]
async fn data_is_sent_as_any_packet_is() {
    let out = Out::new();
    for size in [3, 100_000] {
        let data = Bytes::from(vec![7; size]);
        let head = [1, 2];
        out.send(to_vm::FRAMES, 12, &[&head, &data]);
        let copied = out.written();
        let body = Body { head: &head, data };
        out.send_data(to_vm::FRAMES, 12, body).await;
        assert_eq!(out.written(), copied);
    }
}

/// Documents and the items that they become.
#[test]
fn json() {
    for line in file("json.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let (document, expected) = line.split_once('\t').unwrap();
        let mut decoder = Decoder::new(Writer::new());
        decoder.item(document.as_bytes());
        assert_eq!(hex(&decoder.finish()), expected, "{document}");
    }
}

#[test]
fn a_decoder_goes_on_after_what_is_no_json() {
    let mut decoder = Decoder::new(Writer::new());
    decoder.item(b"[[[{\"a\":[1");
    decoder.item(b"{\"a\":1,\"a\":2}");
    let mut alone = Decoder::new(Writer::new());
    alone.item(b"{\"a\":1,\"a\":2}");
    let (both, alone) = (decoder.finish(), alone.finish());
    assert!(both.ends_with(&alone[1..]));
}

#[test]
fn terms_that_are_none() {
    let good = expect("vm_listen", from_vm::LISTEN, 14);
    for len in 0..good.len() {
        assert!(Term::read(&good.slice(..len)).is_err(), "{len}");
    }
    for byte in 0..=255u8 {
        // Whatever comes of it, it comes soon.
        let _ = Term::read(&Bytes::from(vec![131, byte, 255, 255, 255, 255, byte]));
    }
    let deep = [vec![131], [104, 1].repeat(100), vec![106]].concat();
    assert!(Term::read(&Bytes::from(deep)).is_err());
}
