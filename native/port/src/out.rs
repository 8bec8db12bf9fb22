//! What waits to be written to the VM, and the thread that writes it.
//!
//! Whatever has been queued while the thread was writing leaves in the next write. Two bounds hold:
//! what waits here, for data packets; and what the VM's routing process has not looked at yet, so
//! that its mailbox is bounded whatever the number of connections.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::packet::HEAD;

/// Data waits while more than this is queued.
const HIGH: usize = 1024 * 1024;

/// How much the VM may have in its mailbox, by [`cost`].
const UNPROCESSED: usize = 16 * 1024 * 1024;

/// What a packet costs the VM beside its bytes.
const PACKET_COST: usize = 64;

/// Smaller parts are copied: a vector for each would cost more.
const COPIED: usize = 16 * 1024;

/// The way out to the VM, for all threads.
#[derive(Clone)]
pub(crate) struct Out(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    room: Notify,
}

#[derive(Default)]
struct Queue {
    parts: Vec<Bytes>,
    /// The last part, as long as it grows.
    tail: BytesMut,
    bytes: usize,
    cost: usize,
    unprocessed: usize,
    /// The thread waits to be woken.
    idle: bool,
    closed: bool,
}

/// A packet's body: parts in order, the last one by reference.
pub(crate) struct Body<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) data: Bytes,
}

impl Out {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            room: Notify::new(),
        }))
    }

    /// Queues a packet, whatever waits already: these are bounded by what the VM has asked for.
    pub(crate) fn send(&self, op: u8, id: u64, parts: &[&[u8]]) {
        let mut queue = self.lock();
        queue.head(op, id, parts.iter().map(|part| part.len()).sum());
        for part in parts {
            queue.tail.extend_from_slice(part);
        }
        self.wake(queue);
    }

    /// The same for data that is referred to where it is large.
    pub(crate) fn send_bytes(&self, op: u8, id: u64, head: &[u8], data: &[Bytes]) {
        let mut queue = self.lock();
        queue.head(
            op,
            id,
            head.len() + data.iter().map(Bytes::len).sum::<usize>(),
        );
        queue.tail.extend_from_slice(head);
        for part in data {
            queue.part(part.clone());
        }
        self.wake(queue);
    }

    /// Queues a packet of data as soon as there is room for it.
    pub(crate) async fn send_data(&self, op: u8, id: u64, body: Body<'_>) {
        loop {
            // Made before the look, so that no room is missed.
            let room = self.0.room.notified();
            {
                let mut queue = self.lock();
                if queue.bytes < HIGH || queue.closed {
                    queue.data(op, id, body);
                    self.wake(queue);
                    return;
                }
            }
            room.await;
        }
    }

    /// Whether so much waits that what can be left out should be.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().bytes >= HIGH
    }

    /// The VM has looked at packets of that cost.
    pub(crate) fn processed(&self, cost: usize) {
        let mut queue = self.lock();
        queue.unprocessed = queue.unprocessed.saturating_sub(cost);
        self.wake(queue);
    }

    /// Nothing is written any more.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        self.wake(queue);
        self.0.room.notify_waiters();
    }

    /// Writes until the VM reads no more.
    pub(crate) fn run(&self, mut output: File) {
        loop {
            let mut queue = self.lock();
            while !queue.closed && (queue.bytes == 0 || queue.unprocessed > UNPROCESSED) {
                queue.idle = true;
                queue = self
                    .0
                    .filled
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            queue.idle = false;
            let parts = queue.take();
            let closed = queue.closed;
            drop(queue);
            self.0.room.notify_waiters();
            if write_all(&mut output, &parts).is_err() || closed {
                self.close();
                return;
            }
        }
    }

    /// What the VM would be sent.
    #[cfg(test)]
    pub(crate) fn written(&self) -> Vec<u8> {
        self.lock().take().concat()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let idle = std::mem::take(&mut queue.idle);
        drop(queue);
        if idle {
            self.0.filled.notify_one();
        }
    }
}

impl Queue {
    fn head(&mut self, op: u8, id: u64, len: usize) {
        let len = HEAD + len;
        self.bytes += len;
        self.cost += len + PACKET_COST;
        self.tail.extend_from_slice(&(len as u32).to_be_bytes());
        self.tail.extend_from_slice(&[op]);
        self.tail.extend_from_slice(&id.to_be_bytes());
    }

    fn data(&mut self, op: u8, id: u64, body: Body<'_>) {
        let Body { head, data } = body;
        self.head(op, id, head.len() + data.len());
        self.tail.extend_from_slice(head);
        self.part(data);
    }

    fn part(&mut self, data: Bytes) {
        if data.len() < COPIED {
            self.tail.extend_from_slice(&data);
        } else {
            self.parts.push(self.tail.split().freeze());
            self.parts.push(data);
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        let mut parts = std::mem::take(&mut self.parts);
        if !self.tail.is_empty() {
            parts.push(self.tail.split().freeze());
        }
        self.unprocessed += self.cost;
        self.bytes = 0;
        self.cost = 0;
        parts
    }
}

fn write_all(output: &mut File, parts: &[Bytes]) -> io::Result<()> {
    const AT_ONCE: usize = 64;
    for chunk in parts.chunks(AT_ONCE) {
        let mut slices: Vec<IoSlice<'_>> = chunk.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match output.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
