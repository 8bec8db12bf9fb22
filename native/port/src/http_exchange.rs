//! A request that a process of the VM serves.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use erlmcp_core::http::{Body, Exchange, Notice, Receiver, Request, StatusCode};

use crate::http_packet::{self, Head};
use crate::http_server::Link;
use crate::op::to_vm;
use crate::sync::lock;

/// Bytes of a body in one packet, so that others get a turn.
const PIECE: usize = 256 * 1024;

/// How the VM hears of a body that it has asked for.
pub(crate) mod kind {
    pub(crate) const PIECE: u8 = 0;
    pub(crate) const LAST: u8 = 1;
    pub(crate) const TOO_LARGE: u8 = 2;
    pub(crate) const TIMEOUT: u8 = 3;
    pub(crate) const CLOSED: u8 = 4;
}

/// What the VM knows of a request.
mod stage {
    pub(super) const NOTHING: u8 = 0;
    pub(super) const TOLD: u8 = 1;
    /// That its client is gone, or nothing yet.
    pub(super) const GONE: u8 = 2;
}

/// From the packet with the request to the end of the process that serves it.
pub(crate) struct Served {
    id: u64,
    link: Arc<Link>,
    exchange: Exchange,
    stage: AtomicU8,
    /// Bytes of the stream that have left its queue, and how many of them the VM knows of.
    taken: AtomicU64,
    told: AtomicU64,
    pieces: Mutex<Pieces>,
}

/// A body on its way to the VM.
#[derive(Default)]
struct Pieces {
    rest: Option<Bytes>,
    /// How many the process waits for.
    wanted: usize,
}

/// The process, as the exchange knows it: what it is told goes to the VM. Called with the exchange
/// locked, so that it must not call back.
struct Process(Weak<Served>);

impl Served {
    /// Passes a request on to the VM, unless its client is gone already.
    pub(crate) fn offer(exchange: Exchange, link: &Arc<Link>) {
        let served = Arc::new(Self {
            id: link.program.new_id(),
            link: link.clone(),
            exchange,
            stage: AtomicU8::new(stage::NOTHING),
            taken: AtomicU64::new(0),
            told: AtomicU64::new(0),
            pieces: Mutex::default(),
        });
        let process = Process(Arc::downgrade(&served));
        // Otherwise it is dropped here, and answered for.
        if let Some(request) = served.exchange.take(Box::new(process))
            && link.enter(served.id, &served)
        {
            served.announce(*request);
        }
    }

    fn announce(&self, request: Request) {
        let (flags, head) = http_packet::request(&request);
        let body = request.body.unwrap_or_default();
        self.tell(to_vm::HTTP_REQUEST, &[&[flags], &head, &body]);
        // Nothing about the request may come before it.
        let told = self.stage.compare_exchange(
            stage::NOTHING,
            stage::TOLD,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if told.is_err() {
            self.tell(to_vm::HTTP_GONE, &[]);
        }
    }

    fn gone(&self) {
        if self.stage.swap(stage::GONE, Ordering::AcqRel) == stage::TOLD {
            self.tell(to_vm::HTTP_GONE, &[]);
        }
    }

    pub(crate) fn reply(&self, head: Option<Head>, body: Bytes) {
        match head {
            // Refused where it is closed already, which the VM is told of anyway.
            Some(head) => drop(self.exchange.reply(head.status, head.headers, body)),
            None => self.exchange.abandon(),
        }
    }

    pub(crate) fn stream(&self, head: Option<Head>) {
        let Some(head) = head else {
            return self.exchange.abandon();
        };
        if self.exchange.stream(head.status, head.headers).is_err() {
            self.gone();
        }
    }

    /// The VM keeps to the limit; a part that does not is one after the end.
    pub(crate) fn send(&self, part: Bytes) {
        let _ = self.exchange.send(part);
    }

    pub(crate) fn finish(&self) {
        let _ = self.exchange.finish();
    }

    pub(crate) fn want_room(&self) {
        self.exchange.want_room();
    }

    /// The process wants so many pieces of the body.
    pub(crate) fn want_body(&self, count: usize) {
        let mut pieces = lock(&self.pieces);
        pieces.wanted += count;
        self.send_body(&mut pieces);
    }

    /// The body is there, or its end.
    fn body_came(&self) {
        self.send_body(&mut lock(&self.pieces));
    }

    fn send_body(&self, pieces: &mut Pieces) {
        if pieces.wanted == 0 {
            return;
        }
        if pieces.rest.is_none() {
            let end = match self.exchange.body() {
                Body::Waiting => return,
                Body::Complete(body) => {
                    pieces.rest = Some(body);
                    None
                }
                Body::TooLarge => Some(kind::TOO_LARGE),
                Body::Timeout => Some(kind::TIMEOUT),
                Body::Closed => Some(kind::CLOSED),
            };
            if let Some(kind) = end {
                pieces.wanted = 0;
                return self.tell(to_vm::HTTP_BODY, &[&[kind]]);
            }
        }
        while let Some(rest) = &mut pieces.rest
            && pieces.wanted > 0
        {
            let piece = rest.split_to(rest.len().min(PIECE));
            let kind = if rest.is_empty() {
                pieces.rest = None;
                pieces.wanted = 0;
                kind::LAST
            } else {
                pieces.wanted -= 1;
                kind::PIECE
            };
            self.tell_data(to_vm::HTTP_BODY, kind, piece);
        }
    }

    /// The process has ended. If it has not answered, that status does, or the one for crashes.
    pub(crate) fn done(&self, status: Option<StatusCode>) {
        if let Some(status) = status {
            self.exchange.on_exit(status);
        }
        self.exchange.abandon();
    }

    fn tell(&self, op: u8, parts: &[&[u8]]) {
        let id = self.id.to_be_bytes();
        let parts = [&[&id[..]], parts].concat();
        self.link.program.out.send(op, self.link.acceptor, &parts);
    }

    fn tell_data(&self, op: u8, kind: u8, data: Bytes) {
        let mut head = self.id.to_be_bytes().to_vec();
        head.push(kind);
        let out = &self.link.program.out;
        out.send_bytes(op, self.link.acceptor, &head, &[data]);
    }

    fn tell_taken(&self, op: u8, total: u64) {
        self.told.store(total, Ordering::Relaxed);
        self.tell(op, &[&total.to_be_bytes()]);
    }
}

impl Receiver for Process {
    fn tell(&self, notice: Notice) {
        let Some(served) = self.0.upgrade() else {
            return;
        };
        match notice {
            // The exchange is locked now.
            Notice::Body => {
                let runtime = served.link.program.runtime.clone();
                runtime.spawn(async move { served.body_came() });
            }
            Notice::Writable => {
                served.tell_taken(to_vm::HTTP_ROOM, served.taken.load(Ordering::Relaxed));
            }
            Notice::Gone | Notice::Exit => served.gone(),
        }
    }

    fn taken(&self, bytes: usize) {
        let Some(served) = self.0.upgrade() else {
            return;
        };
        let total = served.taken.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        // What the VM does not know of yet is little beside what may wait.
        if total - served.told.load(Ordering::Relaxed) >= served.link.tell_after {
            served.tell_taken(to_vm::HTTP_TAKEN, total);
        }
    }
}
