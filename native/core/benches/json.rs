//! Reading JSON without building values: the whole document checked, and the JSON-RPC envelope.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use erlmcp_core::json::{check, envelope};

const MAX_DEPTH: usize = 512;
const MAX_BATCH: usize = 100;

fn call() -> String {
    concat!(
        r#"{"jsonrpc":"2.0","id":1234567,"method":"tools/call","params":{"name":"#,
        r#""search_documents","arguments":{"query":"supervision trees","limit":1000,"#,
        r#""fuzzy":true}}}"#
    )
    .to_owned()
}

fn list() -> String {
    let mut tools = String::new();
    for number in 1..=50 {
        let comma = if number == 1 { "" } else { "," };
        let _ = write!(
            tools,
            concat!(
                r#"{}{{"name":"read_table_{}","description":"Reads the rows of table {} that match"#,
                r#" one condition only, newest first.","inputSchema":{{"type":"object","#,
                r#""properties":{{"condition":{{"type":"string","description":"An SQL condition"}},"#,
                r#""limit":{{"type":"integer","minimum":1,"maximum":500}}}},"#,
                r#""required":["condition"],"additionalProperties":false}}}}"#
            ),
            comma, number, number
        );
    }
    format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"tools":[{tools}]}}}}"#)
}

/// Numbers that no branch predictor learns.
fn noise() -> impl FnMut(usize) -> usize {
    let mut state: u64 = 1;
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap_or_default() % below
    }
}

fn letters(alphabet: &[u8], count: usize, noise: &mut impl FnMut(usize) -> usize) -> String {
    (0..count)
        .filter_map(|_| alphabet.get(noise(alphabet.len())))
        .map(|byte| char::from(*byte))
        .collect()
}

fn content(text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#
    )
}

/// Lines of words, each with a tab, a quoted word and a newline to escape.
fn text() -> String {
    let mut noise = noise();
    let mut lines = String::new();
    while lines.len() < 63 * 1024 {
        lines.push_str(r"\t");
        for _ in 0..6 {
            let length = 1 + noise(9);
            lines.push_str(&letters(b"abcdefghijklmnopqrstuvwxyz", length, &mut noise));
            lines.push(' ');
        }
        lines.push_str(r#"\"quoted\"\n"#);
    }
    content(&lines)
}

fn base64() -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    content(&letters(alphabet, 64 * 1024, &mut noise()))
}

fn documents() -> [(&'static str, String); 4] {
    [
        ("call", call()),
        ("list", list()),
        ("text", text()),
        ("base64", base64()),
    ]
}

fn checked(c: &mut Criterion) {
    let mut group = c.benchmark_group("json_check");
    for (name, document) in documents() {
        assert!(
            check(document.as_bytes(), MAX_DEPTH).is_ok(),
            "{name} is no JSON"
        );
        group.throughput(Throughput::Bytes(document.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| check(black_box(document.as_bytes()), MAX_DEPTH));
        });
    }
    group.finish();
}

fn enveloped(c: &mut Criterion) {
    let mut group = c.benchmark_group("json_envelope");
    for (name, document) in documents() {
        group.throughput(Throughput::Bytes(document.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| envelope(black_box(document.as_bytes()), MAX_DEPTH, MAX_BATCH));
        });
    }
    group.finish();
}

criterion_group!(benches, checked, enveloped);
criterion_main!(benches);
