//! Splitting a stream into frames: many small ones, and a large one that arrives in pieces, whose
//! time per byte must not depend on its size.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use erlmcp_core::frame::{Framing, Splitter, envelope};
use erlmcp_core::options::OnOversize;

const MIB: usize = 1 << 20;
const PIECE: usize = 65536;
const MAX: usize = 128 * MIB;

fn splitter(framing: Framing) -> Splitter {
    Splitter::new(framing, MAX, OnOversize::Close)
}

fn line(bytes: usize) -> Vec<u8> {
    let mut line = vec![b'x'; bytes - 1];
    line.push(b'\n');
    line
}

fn prefixed(bytes: usize) -> Vec<u8> {
    let len = u32::try_from(bytes - 4).unwrap_or(u32::MAX);
    let mut frame = len.to_be_bytes().to_vec();
    frame.resize(bytes, b'x');
    frame
}

fn many(c: &mut Criterion) {
    let mut group = c.benchmark_group("split_256k");
    group.throughput(Throughput::Bytes(MIB as u64 / 4));
    for bytes in [64, 1024, 65536] {
        for (name, framing, frame) in [
            ("line", Framing::Line, line(bytes)),
            ("length4", Framing::Length4, prefixed(bytes)),
        ] {
            let input = frame.repeat(MIB / 4 / bytes);
            let mut items = Vec::new();
            group.bench_function(BenchmarkId::new(name, bytes), |b| {
                b.iter(|| {
                    items.clear();
                    splitter(framing).split(black_box(&input), &mut items)
                });
            });
        }
    }
    group.finish();
}

fn in_pieces(c: &mut Criterion) {
    let mut group = c.benchmark_group("split_one_in_pieces");
    group.sample_size(20);
    for mib in [1, 16, 64] {
        let input = line(mib * MIB);
        let mut items = Vec::new();
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(BenchmarkId::new("line_mib", mib), |b| {
            b.iter(|| {
                items.clear();
                let mut splitter = splitter(Framing::Line);
                for end in (PIECE..=input.len()).step_by(PIECE) {
                    let arrived = input.get(..end).unwrap_or_default();
                    let _ = black_box(splitter.split(black_box(arrived), &mut items));
                }
            });
        });
    }
    group.finish();
}

fn outgoing(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope_of_message_to_send");
    for bytes in [1024, 65536] {
        let message = vec![b'x'; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("line", bytes), |b| {
            b.iter(|| envelope(Framing::Line, MAX, black_box(&message)));
        });
    }
    group.finish();
}

criterion_group!(benches, many, in_pieces, outgoing);
criterion_main!(benches);
