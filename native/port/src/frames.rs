//! Packets of frames that have been taken.

use std::collections::VecDeque;

use bytes::Bytes;
use erlmcp_core::frame::Item;
use erlmcp_core::inbox::Batch;

use crate::json::Decoder;
use crate::op::to_vm;
use crate::term::Writer;

/// A packet of frames: what describes them, and they.
pub(crate) struct DataPacket {
    pub(crate) op: u8,
    pub(crate) head: Vec<u8>,
    pub(crate) data: Bytes,
}

fn is_frame(item: &Item) -> bool {
    matches!(item, Item::Frame { .. })
}

/// Packets of the frames of a batch, and of what stands for those that were discarded.
pub(crate) fn frames_packets(batch: &Batch) -> Vec<DataPacket> {
    let runs = batch.items.chunk_by(|a, b| is_frame(a) && is_frame(b));
    let packets = runs.map(|run| match run {
        [Item::Oversized(len)] => DataPacket {
            op: to_vm::OVERSIZED,
            head: len.to_be_bytes().to_vec(),
            data: Bytes::new(),
        },
        items => {
            let (head, data) = frames(items, &batch.data);
            DataPacket {
                op: to_vm::FRAMES,
                head,
                data,
            }
        }
    });
    packets.collect()
}

/// One packet for all: it is made anew in any case.
pub(crate) fn terms_packet(batches: &[Batch]) -> VecDeque<DataPacket> {
    if batches.is_empty() {
        return VecDeque::new();
    }
    let (head, terms) = terms_of(batches);
    VecDeque::from([DataPacket {
        op: to_vm::JSON,
        head,
        data: terms.into(),
    }])
}

/// How many frames, where each begins and how long it is, and the bytes that these places are in.
pub(crate) fn frames(items: &[Item], data: &Bytes) -> (Vec<u8>, Bytes) {
    let places = items.iter().filter_map(|item| match item {
        Item::Frame { start, len } => Some((*start, *len)),
        Item::Oversized(_) => None,
    });
    let first = places.clone().next().map_or(0, |(start, _)| start);
    let end = places
        .clone()
        .next_back()
        .map_or(0, |(start, len)| start + len);
    let mut table = Vec::with_capacity(4 + 8 * items.len());
    table.extend((items.len() as u32).to_be_bytes());
    for (start, len) in places {
        table.extend(((start - first) as u32).to_be_bytes());
        table.extend((len as u32).to_be_bytes());
    }
    let end = end.min(data.len());
    (table, data.slice(first.min(end)..end))
}

/// How many items, how long each was, and the list of them.
pub(crate) fn terms_of(batches: &[Batch]) -> (Vec<u8>, Vec<u8>) {
    let count = batches.iter().map(|batch| batch.items.len()).sum();
    let mut table = Vec::with_capacity(4 + 4 * count);
    table.extend((count as u32).to_be_bytes());
    let mut out = Writer::new();
    out.list(count);
    let mut decoder = Decoder::new(out);
    for Batch { data, items } in batches {
        for item in items {
            let len = match item {
                Item::Frame { start, len } => {
                    decoder.item(data.get(*start..start + len).unwrap_or_default());
                    *len
                }
                Item::Oversized(len) => {
                    decoder.out().tuple(2).atom("oversized").integer(*len);
                    0
                }
            };
            table.extend((len as u32).to_be_bytes());
        }
    }
    decoder.out().nil();
    (table, decoder.finish())
}
