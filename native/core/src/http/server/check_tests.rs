//! The reading of framing, whole and byte by byte.

use super::*;

const LIMITS: Limits = Limits {
    max_headers: 3,
    max_header: 40,
    max_target: 16,
};

fn feed(input: &str) -> (Verdict, bool) {
    let mut check = Check::new(LIMITS);
    let verdict = check.feed(input.as_bytes());
    // Bytes that arrive one by one are judged alike.
    let mut slow = Check::new(LIMITS);
    let refusal = input.bytes().find_map(|b| slow.feed(&[b]).refusal);
    assert_eq!(refusal, verdict.refusal, "{input:?}");
    (verdict, check.between_messages())
}

fn passes(input: &str) {
    let (verdict, complete) = feed(input);
    assert_eq!(verdict.refusal, None, "{input:?}");
    assert!(complete, "{input:?}");
    assert_eq!(verdict.pass, input.len());
}

fn refused(input: &str, status: u16) {
    assert_eq!(feed(input).0.refusal, Some(status), "{input:?}");
}

#[test]
fn passes_what_is_plain() {
    passes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    passes("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    passes("POST / HTTP/1.1\r\nhost:\r\ncontent-length: 3 \r\n\r\nabc");
    passes("POST / HTTP/1.1\r\nhost: a\r\ncontent-length:0\r\n\r\n");
    passes(
        "POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
         3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nx: y\r\n\r\n",
    );
}

#[test]
fn refuses_what_can_be_read_in_two_ways() {
    for head in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nb: c\r\n d\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        refused(head, 400);
    }
    for coding in ["gzip, chunked", "chunked, x", "xchunked", "identity"] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ";
        refused(&format!("{head}{coding}\r\n\r\n"), 501);
    }
    refused("GET / HTTP/2.0\r\n\r\n", 505);
}

#[test]
fn refuses_bad_chunks() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "x\r\n",
        "\r\n",
        "3 \r\nabc\r\n",
        "0x3\r\nabc\r\n",
        "3\nabc\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n",
        "1234567812345678\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n x: y\r\n\r\n",
        "3;a\nb\r\nabc\r\n",
    ] {
        refused(&format!("{head}{body}"), 400);
    }
}

#[test]
fn keeps_the_limits() {
    let long = "x".repeat(40);
    refused(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414);
    refused(
        &format!("GET / HTTP/1.1\r\nHost: a\r\nx: {long}\r\n\r\n"),
        431,
    );
    refused(
        &format!("GET / HTTP/1.1\r\nHost: a\r\n{long}y: z\r\n\r\n"),
        431,
    );
    refused(
        "GET / HTTP/1.1\r\nHost: a\r\nb: \r\nc: \r\nd: \r\n\r\n",
        431,
    );
}

#[test]
fn passes_the_messages_before_one_that_is_refused() {
    let good = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    let verdict = feed(&format!("{good}GET / HTTP/1.1\n")).0;
    assert_eq!(verdict.pass, good.len());
    assert_eq!(verdict.refusal, Some(400));
}
