//! Connections: frames to the VM within the window that it grants, messages from it, and word of
//! what has left.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Buf, Bytes};
use erlmcp_core::connection::Message;
use erlmcp_core::frame::Framing;
use erlmcp_core::high_water::Reason;
use erlmcp_core::inbox::Status;
use erlmcp_core::options::Limits;
use erlmcp_core::outbox::Priority;
use erlmcp_core::{Connection, Event, Info, Sink, State, stdio};

use crate::child::Errors;
use crate::frames::{DataPacket, frames_packets, terms_packet};
use crate::op::{from_vm, to_vm};
use crate::out::Body;
use crate::program::{Program, Resident};
use crate::term::{Malformed, Term, Writer};
use crate::{options, reason, terms};

/// Frames taken at once: as many as fit the VM's read buffer.
const BATCH_BYTES: usize = 60 * 1024;
const BATCH_ITEMS: usize = 512;

/// Parts of a message up to this size are copied where they have to wait: they would keep the
/// block that they were read into.
const COPIED: usize = 16 * 1024;

/// A connection.
pub(crate) struct Conn {
    id: u64,
    program: Arc<Program>,
    core: Connection,
    settings: Settings,
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
    /// Whether a task takes what the core has.
    task: AtomicU8,
    /// Of a child.
    pub(crate) stderr: Errors,
}

/// What the program itself keeps to.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) limits: Arc<Limits>,
    /// Frames are JSON and go to the VM as terms.
    decode: bool,
}

impl Settings {
    pub(crate) fn read(given: &Term) -> Result<Self, Malformed> {
        Ok(Self {
            limits: options::limits(given)?,
            decode: options::choice(given.get("decode")?, [("none", false), ("json", true)])?,
        })
    }
}

/// What the VM counts, in bytes with delimiters.
#[derive(Default)]
struct Sending {
    accepted: u64,
    /// What the VM knows to have left.
    told: u64,
}

/// What the VM has been told of, and how much more it takes.
struct Receiving {
    window: i64,
    opened: bool,
    eof: bool,
    down: bool,
    /// What has been taken and did not fit the window.
    ready: VecDeque<DataPacket>,
}

/// The task of a connection: there is none; it runs; it has to look again.
const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const AGAIN: u8 = 2;

struct Wake(Weak<Conn>);

impl Sink for Wake {
    fn emit(&self, event: Event) {
        if let Some(conn) = self.0.upgrade() {
            match event {
                Event::Ready => conn.pump(),
                Event::Writable => conn.tell_room(),
            }
        }
    }
}

/// Begins to connect: a window, and `{Endpoint, Options}`.
pub(crate) fn connect(program: &Arc<Program>, id: u64, mut body: Bytes) -> Result<(), Malformed> {
    let window = body.try_get_u32().map_err(|_| Malformed)?;
    let term = Term::read(&body)?;
    let [endpoint, given] = term.tuple()? else {
        return Err(Malformed);
    };
    if endpoint.is("stdio") {
        return stdio(program, id, window, given);
    }
    let endpoint = options::endpoint(endpoint)?;
    let dial = options::dial(given)?;
    let tcp = options::tcp(given)?;
    let tls = options::tls(given)?;
    let settings = Settings::read(given)?;
    let limits = settings.limits.clone();
    Conn::insert(program, id, window.into(), settings, |sink| {
        Connection::dial(&program.runtime, sink, endpoint, dial, tcp, tls, limits)
    });
    Ok(())
}

/// A connection over the node's own standard input and output, which are also this program's.
fn stdio(program: &Arc<Program>, id: u64, window: u32, given: &Term) -> Result<(), Malformed> {
    let settings = Settings::read(given)?;
    let limits = settings.limits.clone();
    match stdio::take() {
        Ok(stdio) => {
            Conn::insert(program, id, window.into(), settings, |sink| {
                stdio.connect(&program.runtime, sink, limits)
            });
        }
        Err(fault) => program.out.send(to_vm::DOWN, id, &[&reason::stdio(fault)]),
    }
    Ok(())
}

impl Conn {
    /// Makes a connection and has the VM's packets reach it.
    pub(crate) fn insert(
        program: &Arc<Program>,
        id: u64,
        window: i64,
        settings: Settings,
        make: impl FnOnce(Box<dyn Sink>) -> Connection,
    ) -> Arc<Self> {
        let conn = Self::make(program, id, window, settings, make);
        conn.start();
        conn
    }

    /// Makes one that the VM does not know of: it is told before anything else is said of it, and
    /// after its packets can be met.
    pub(crate) fn born(
        program: &Arc<Program>,
        parent: u64,
        settings: Settings,
        make: impl FnOnce(Box<dyn Sink>) -> Connection,
    ) {
        let id = program.new_id();
        let conn = Self::make(program, id, 0, settings, make);
        program.out.send(to_vm::BORN, id, &[&parent.to_be_bytes()]);
        conn.start();
    }

    fn make(
        program: &Arc<Program>,
        id: u64,
        window: i64,
        settings: Settings,
        make: impl FnOnce(Box<dyn Sink>) -> Connection,
    ) -> Arc<Self> {
        let conn = Arc::new_cyclic(|weak: &Weak<Conn>| Conn {
            id,
            program: program.clone(),
            core: make(Box::new(Wake(weak.clone()))),
            settings,
            sending: Mutex::default(),
            receiving: Mutex::new(Receiving {
                window,
                opened: false,
                eof: false,
                down: false,
                ready: VecDeque::new(),
            }),
            // No other is started before this one is.
            task: AtomicU8::new(RUNNING),
            stderr: Errors::new(),
        });
        program.insert(id, Arc::new(Handle(conn.clone())));
        conn
    }

    /// Sees to what happened before there was a connection to tell of it, and to all that follows.
    fn start(self: &Arc<Self>) {
        self.task.store(IDLE, Ordering::Release);
        self.pump();
    }

    /// Has a task see to what the core has for the VM.
    fn pump(self: &Arc<Self>) {
        if self.task.swap(AGAIN, Ordering::AcqRel) != IDLE {
            return;
        }
        let conn = self.clone();
        self.program.runtime.spawn(async move {
            loop {
                conn.task.swap(RUNNING, Ordering::AcqRel);
                while conn.step().await {
                    tokio::task::yield_now().await;
                }
                let done =
                    conn.task
                        .compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
                if done.is_ok() {
                    break;
                }
            }
        });
    }

    /// Takes once and sends what there was. Returns whether there may be more to send now.
    async fn step(&self) -> bool {
        if !self.send_ready().await {
            return false;
        }
        let window = usize::try_from(self.receiving().window).unwrap_or_default();
        let items = if window == 0 { 0 } else { BATCH_ITEMS };
        let (batches, status) = self.core.take(items, window.min(BATCH_BYTES));
        if status == Status::Connecting {
            return false;
        }
        if !matches!(status, Status::Down(_)) || !batches.is_empty() {
            self.tell_once(to_vm::OPENED, |told| &mut told.opened, &[]);
        }
        let packets = if self.settings.decode {
            terms_packet(&batches)
        } else {
            batches.iter().flat_map(frames_packets).collect()
        };
        self.receiving().ready = packets;
        if !self.send_ready().await {
            return false;
        }
        match status {
            Status::EofArmed => self.tell_once(to_vm::EOF, |told| &mut told.eof, &[]),
            Status::Down(error) => {
                self.tell_once(to_vm::DOWN, |told| &mut told.down, &reason::term(error));
            }
            Status::More | Status::Again => return window > 0,
            Status::Connecting | Status::Armed => {}
        }
        false
    }

    /// Sends what has been taken, as far as the window allows: no packet follows one that uses it
    /// up. Returns whether all of it was sent.
    async fn send_ready(&self) -> bool {
        loop {
            let DataPacket { op, head, data } = {
                let mut receiving = self.receiving();
                if receiving.ready.is_empty() {
                    return true;
                }
                if receiving.window <= 0 {
                    return false;
                }
                let Some(packet) = receiving.ready.pop_front() else {
                    return true;
                };
                receiving.window -= (packet.head.len() + packet.data.len()) as i64;
                packet
            };
            let body = Body { head: &head, data };
            self.program.out.send_data(op, self.id, body).await;
        }
    }

    fn tell_once(&self, op: u8, of: fn(&mut Receiving) -> &mut bool, body: &[u8]) {
        let told = std::mem::replace(of(&mut self.receiving()), true);
        if !told {
            self.program.out.send(op, self.id, &[body]);
        }
    }

    fn accept_message(&self, body: Bytes, priority: Priority) {
        let delimiter = match self.settings.limits.framing {
            Framing::Line => 1,
            Framing::Length4 => 4,
        };
        let len = body.len() as u64 + delimiter;
        // The VM has checked it and counted it; a connection that has ended takes none, and says so.
        let _ = self.core.send_as(Outgoing(body), priority);
        let mut sending = self.sending();
        sending.accepted += len;
        let left = sending.left(&self.core);
        if left > (self.settings.limits.max_queue / 4) as u64 {
            sending.told += left;
            self.program
                .out
                .send(to_vm::SENT, self.id, &[&left.to_be_bytes()]);
        }
    }

    /// Tells of room, now that there is or as soon as there is.
    fn want_room(&self) {
        if self.core.has_room() {
            self.tell_room();
        }
    }

    fn tell_room(&self) {
        let mut sending = self.sending();
        let left = sending.left(&self.core);
        sending.told += left;
        self.program
            .out
            .send(to_vm::ROOM, self.id, &[&left.to_be_bytes()]);
    }

    fn tell_info(&self, question: &[u8]) {
        let term = info_term(&self.core.info());
        self.program
            .out
            .send(to_vm::INFO, self.id, &[question, &term]);
    }

    /// Sends lines of standard error, and says whether nothing more will come.
    pub(crate) fn send_stderr(&self) -> bool {
        self.stderr
            .send(|term| self.program.out.send(to_vm::STDERR, self.id, &[term]))
    }

    fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The packets of a connection, but for the one that makes it.
pub(crate) struct Handle(Arc<Conn>);

impl Resident for Handle {
    fn packet(&self, _: &Arc<Program>, op: u8, mut body: Bytes) -> Result<(), Malformed> {
        let conn = &self.0;
        match op {
            from_vm::SEND => conn.accept_message(body, Priority::Auto),
            from_vm::SEND_URGENT => conn.accept_message(body, Priority::Urgent),
            from_vm::SEND_NORMAL => conn.accept_message(body, Priority::Normal),
            from_vm::GRANT => {
                let bytes = body.try_get_u32().map_err(|_| Malformed)?;
                conn.receiving().window += i64::from(bytes);
                conn.pump();
            }
            from_vm::WANT_ROOM => conn.want_room(),
            from_vm::INFO => conn.tell_info(&body),
            from_vm::STDERR_NEXT => conn.stderr.taken(),
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn close(&self) {
        self.0.core.close();
    }
}

impl Sending {
    /// What has left and the VM does not know of.
    fn left(&self, core: &Connection) -> u64 {
        self.accepted
            .saturating_sub(self.told)
            .saturating_sub(core.queued() as u64)
    }
}

/// A message that is to be sent.
struct Outgoing(Bytes);

impl Message for Outgoing {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn into_bytes(self, start: usize) -> Bytes {
        let rest = self.0.slice(start.min(self.0.len())..);
        if rest.len() <= COPIED {
            Bytes::copy_from_slice(&rest)
        } else {
            rest
        }
    }
}

/// `erlmcp_native:socket_info()`.
pub(crate) fn info_term(info: &Info) -> Vec<u8> {
    let state = match info.state {
        State::Connecting => "connecting",
        State::Open => "open",
        State::Eof => "eof",
        State::Closing => "closing",
        State::Down => "down",
    };
    let mut out = Writer::new();
    out.map(12).atom("state").atom(state);
    terms::address(out.atom("peername"), info.peer.as_ref());
    terms::address(out.atom("sockname"), info.local.as_ref());
    match &info.certificate {
        Some(der) => out.atom("peercert").binary(der),
        None => out.atom("peercert").atom("undefined"),
    };
    match info.process {
        Some(process) => out.atom("os_pid").integer(process.into()),
        None => out.atom("os_pid").atom("undefined"),
    };
    let numbers = [
        ("frames_in", info.frames_in),
        ("bytes_in", info.bytes_in),
        ("frames_out", info.frames_out),
        ("bytes_out", info.bytes_out),
        ("inbound_bytes", info.waiting as u64),
        ("queue_bytes", info.queued as u64),
    ];
    for (name, value) in numbers {
        out.atom(name).integer(value);
    }
    let buffers = info.buffers;
    let reason = match buffers.reason {
        Reason::Fixed => "fixed",
        Reason::Start => "start",
        Reason::QuickOwner => "quick_owner",
        Reason::SlowOwner => "slow_owner",
    };
    out.atom("buffers").map(5).atom("reason").atom(reason);
    let numbers = [
        ("read_bytes", buffers.read),
        ("high_water_bytes", buffers.high_water),
        ("min", buffers.bounds.0),
        ("max", buffers.bounds.1),
    ];
    for (name, value) in numbers {
        out.atom(name).integer(value as u64);
    }
    out.finish()
}
