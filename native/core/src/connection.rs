//! A connection as its owner holds it.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::Poll;

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use tokio::runtime::Handle;

use crate::child::{Children, Command, Lines, Reading, Stderr};
use crate::dial::dial;
use crate::driver::{Child, Driver};
use crate::error::Error;
use crate::event::{Event, Sink};
use crate::frame::Item;
use crate::high_water::{self, HighWater};
use crate::inbox::{Batch, Inbox, Status};
use crate::metrics::{self, Opened, Transport};
use crate::options::{Dial, Endpoint, Limits, Tcp, Tls};
use crate::outbox::{Outbox, Priority};
use crate::pair::Pair;
use crate::reader::Reader;
use crate::stream::{Address, ReadHalf, Stream, WriteHalf, split_pair};
use crate::sync::lock;
use crate::tls::{self, Acceptor};
use crate::wire::Wire;

/// An owner that took this much was kept busy, and the socket will have more soon.
const BUSY: usize = 16 * 1024;

/// The owner's end of a connection. Dropping it closes the connection.
pub struct Connection {
    shared: Arc<Shared>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Dialling or in the TLS handshake.
    Connecting,
    /// Established.
    Open,
    /// Established; the peer has shut down its side.
    Eof,
    /// Closed by this side; what is queued is being sent.
    Closing,
    /// Over.
    Down,
}

/// A snapshot of a connection.
#[derive(Clone, Debug)]
pub struct Info {
    /// How far it has come.
    pub state: State,
    /// The peer's address.
    pub peer: Option<Address>,
    /// Own address.
    pub local: Option<Address>,
    /// The peer's certificate in DER.
    pub certificate: Option<Bytes>,
    /// The child process at the other end.
    pub process: Option<u32>,
    /// Frames received, those included that were discarded.
    pub frames_in: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Messages accepted for sending.
    pub frames_out: u64,
    /// Bytes of these, delimiters included.
    pub bytes_out: u64,
    /// Cost of what waits for the owner, in bytes.
    pub waiting: usize,
    /// Bytes that wait for the peer.
    pub queued: usize,
    /// What is read into and ahead.
    pub buffers: Buffers,
}

/// How much is read, and why.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// Bytes of the next read.
    pub read: usize,
    /// Bytes read ahead of the owner.
    pub high_water: usize,
    /// The least and the most that are.
    pub bounds: (usize, usize),
    /// Why it is as much.
    pub reason: high_water::Reason,
}

/// A message to be sent: its bytes for the direct try, and the way to keep what did not fit.
pub trait Message {
    /// The bytes.
    fn as_slice(&self) -> &[u8];
    /// The bytes from `start` on, owned.
    fn into_bytes(self, start: usize) -> Bytes;
}

impl Message for Bytes {
    fn as_slice(&self) -> &[u8] {
        self
    }

    fn into_bytes(self, start: usize) -> Bytes {
        self.slice(start.min(self.len())..)
    }
}

pub(crate) struct Shared {
    pub(crate) limits: Arc<Limits>,
    pub(crate) transport: Transport,
    /// Taken before the inbox, never while it is held.
    pub(crate) reader: Mutex<Reader>,
    pub(crate) inbox: Mutex<Inbox>,
    pub(crate) outbox: Mutex<Outbox>,
    pub(crate) waker: AtomicWaker,
    pub(crate) counters: Counters,
    /// Set when the connection stands and its owner may read and senders may write themselves
    /// (not with TLS).
    pub(crate) direct: OnceLock<Arc<WriteHalf>>,
    ends: OnceLock<Box<Ends>>,
    /// A sender has met a reset. The system tells of it once; the task would find an orderly end.
    pub(crate) reset: AtomicBool,
    sink: Box<dyn Sink>,
}

#[derive(Default)]
struct Ends {
    peer: Option<Address>,
    local: Option<Address>,
    certificate: Option<Bytes>,
    process: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Counters {
    frames_in: AtomicU64,
    bytes_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl Connection {
    /// Starts to connect and returns at once. The sink is told when the outcome can be taken.
    pub fn dial(
        runtime: &Handle,
        sink: Box<dyn Sink>,
        endpoint: Endpoint,
        options: Dial,
        tcp: Tcp,
        tls: Option<Tls>,
        limits: Arc<Limits>,
    ) -> Self {
        let shared = Shared::new(sink, limits, Transport::Tcp);
        runtime.spawn(run(shared.clone(), async move |shared: Arc<Shared>| {
            let stream = dial(&endpoint, &options).await?;
            stream.set_options(tcp)?;
            match tls {
                None => Ok(Established::Plain(stream)),
                Some(tls) => {
                    let host = match endpoint {
                        Endpoint::Name(name, _) => Some(name),
                        Endpoint::Ip(ip, _) => Some(ip.to_string()),
                        Endpoint::Path(_) | Endpoint::Abstract(_) => None,
                    };
                    let limit = shared.limits.handshake_timeout;
                    let session = tls::connect(stream, &tls, host, limit).await?;
                    Ok(Established::Tls(Box::new(session)))
                }
            }
        }));
        Self { shared }
    }

    /// Takes over an accepted socket and returns at once.
    pub(crate) fn accepted(
        runtime: &Handle,
        sink: Box<dyn Sink>,
        stream: Stream,
        acceptor: Option<Acceptor>,
        limits: Arc<Limits>,
    ) -> Self {
        let shared = Shared::new(sink, limits, Transport::Tcp);
        runtime.spawn(run(
            shared.clone(),
            async move |shared: Arc<Shared>| match acceptor {
                None => Ok(Established::Plain(stream)),
                Some(acceptor) => {
                    let session = acceptor
                        .accept(stream, shared.limits.handshake_timeout)
                        .await?;
                    Ok(Established::Tls(Box::new(session)))
                }
            },
        ));
        Self { shared }
    }

    /// Takes over a pair of descriptors, of pipes, stream sockets, files or terminals, and returns at
    /// once. They are closed, and their flags as before, when the connection is over.
    pub fn over(
        runtime: &Handle,
        sink: Box<dyn Sink>,
        source: OwnedFd,
        target: OwnedFd,
        limits: Arc<Limits>,
    ) -> Self {
        let shared = Shared::new(sink, limits, Transport::Stdio);
        runtime.spawn(run(shared.clone(), async move |_| {
            Ok(Established::Pair(Pair::new(source, target)?))
        }));
        Self { shared }
    }

    /// Starts a child process, whose standard input and output the connection is, and returns at
    /// once. The connection ends with the child, and the child with the connection. The lines
    /// are those of its standard error.
    pub fn child(
        runtime: &Handle,
        sink: Box<dyn Sink>,
        children: &Children,
        command: Command,
        limits: Arc<Limits>,
    ) -> (Self, Lines) {
        let shared = Shared::new(sink, limits, Transport::Stdio);
        let lines = Lines::new();
        let told = lines.clone();
        let reading = match command.stderr {
            Stderr::Null => Reading::new(lines.clone(), 0, None),
            Stderr::Lines {
                max_line,
                per_second,
            } => Reading::new(lines.clone(), max_line, per_second),
        };
        let outcome = children.start(command);
        runtime.spawn(run(shared.clone(), async move |_| {
            let started = outcome.await.map_err(|_| Error::Panic)??;
            let pipes = started.pipes;
            if let Some(errors) = pipes.errors {
                tokio::spawn(reading.read(errors, started.process.exit()));
            }
            let pair = Pair::new(pipes.output, pipes.input)?;
            let child = Child::new(started.process, told);
            Ok(Established::Child(pair, child))
        }));
        (Self { shared }, lines)
    }

    /// Takes at most `max_items` items and, beyond the first, at most `max_bytes` bytes.
    ///
    /// An owner that has taken all there was, more than one message or much of one, is not armed but
    /// asked to come again, and until it finds less it alone reads, on its own thread, and writes
    /// what was sent meanwhile: a busy connection wakes nobody.
    pub fn take(&self, max_items: usize, max_bytes: usize) -> (Vec<Batch>, Status) {
        let shared = &*self.shared;
        shared.write_corked();
        if max_items > 0 && lock(&shared.inbox).is_drained() {
            shared.receive_now();
        }
        let mut inbox = lock(&shared.inbox);
        let high_water = inbox.high_water().mark();
        let (before, claimed) = (inbox.waiting(), inbox.is_claimed());
        let (batches, mut status) = inbox.take(max_items, max_bytes);
        let items = batches.iter().map(|batch| batch.items.len()).sum();
        let busy = before >= BUSY || items > 1;
        let direct = shared.direct.get().is_some();
        if status == Status::Armed && busy && direct {
            status = inbox.ask_again();
        }
        let full = before >= high_water && inbox.waiting() < inbox.high_water().mark();
        let given_back = claimed && !inbox.is_claimed();
        drop(inbox);
        let returns = direct && matches!(status, Status::Again | Status::More);
        let unwritten = shared.taken(items, returns);
        if full || given_back || unwritten {
            shared.waker.wake();
        }
        (batches, status)
    }

    /// Sends a message: writes what the socket takes now and queues the rest. What is queued behind
    /// others goes before those that its priority lets it overtake.
    ///
    /// # Errors
    /// A message is refused whole: [`Error::EmbeddedNewline`], [`Error::EmptyMessage`],
    /// [`Error::FrameTooLarge`], [`Error::Busy`] ([`Event::Writable`] follows),
    /// [`Error::NotConnected`], [`Error::Closed`].
    pub fn send<M: Message>(&self, message: M) -> Result<(), Error> {
        self.send_as(message, Priority::Auto)
    }

    /// The same, with a priority that does not go by what the message is.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn send_as<M: Message>(&self, message: M, priority: Priority) -> Result<(), Error> {
        self.shared.send(message, priority)
    }

    /// Bytes that wait for the peer.
    pub fn queued(&self) -> usize {
        lock(&self.shared.outbox).bytes()
    }

    /// Whether at most half of the queue's bound is used. If not, [`Event::Writable`] follows as
    /// after a refused send.
    pub fn has_room(&self) -> bool {
        lock(&self.shared.outbox).has_room()
    }

    /// Sends what is queued, for as long as `linger` allows, then closes. What waits for the
    /// owner is dropped. Closing twice is fine.
    pub fn close(&self) {
        self.shared.close();
    }

    /// A snapshot.
    pub fn info(&self) -> Info {
        self.shared.info()
    }

    pub(crate) fn watch(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close();
    }
}

enum Established {
    Plain(Stream),
    Pair(Pair),
    Child(Pair, Child),
    Tls(Box<tokio_rustls::TlsStream<Stream>>),
}

/// The life of a connection. Whatever happens in it, the owner learns of its end.
async fn run<F>(shared: Arc<Shared>, establish: F)
where
    F: AsyncFnOnce(Arc<Shared>) -> Result<Established, Error>,
{
    let _task = metrics::native_tasks.live();
    let _live = metrics::native_connections.live();
    let mut end = End {
        shared: shared.clone(),
        reason: Error::Panic,
    };
    // In a box of its own: what dialling and a handshake need is not kept while the connection lives.
    let establishing = Box::pin(establish(shared.clone()));
    let established = tokio::select! {
        result = establishing => result,
        () = shared.closed() => Err(Error::Closed),
    };
    match established {
        Ok(established) => {
            let _opened = Opened::new(shared.transport);
            let (wire, child) = shared.establish(established);
            let driver = Box::pin(Driver::new(shared, wire, child).run());
            end.reason = driver.await;
        }
        Err(error) => {
            tracing::debug!(%error, "not connected");
            metrics::connections_failed.add(end.shared.transport, 1);
            end.reason = error;
        }
    }
}

/// Reports the end when the task is over, also when a panic unwinds it.
struct End {
    shared: Arc<Shared>,
    reason: Error,
}

impl Drop for End {
    fn drop(&mut self) {
        if self.reason == Error::Panic {
            metrics::panics.add(1);
            tracing::error!("a connection's task has panicked");
        }
        self.shared.end(self.reason);
    }
}

impl Shared {
    fn new(sink: Box<dyn Sink>, limits: Arc<Limits>, transport: Transport) -> Arc<Self> {
        Arc::new(Self {
            transport,
            reader: Mutex::new(Reader::new(&limits)),
            inbox: Mutex::new(Inbox::new(HighWater::new(
                limits.high_water_min,
                limits.high_water,
            ))),
            outbox: Mutex::new(Outbox::new(limits.max_queue, limits.max_urgent)),
            waker: AtomicWaker::new(),
            counters: Counters::default(),
            direct: OnceLock::new(),
            ends: OnceLock::new(),
            reset: AtomicBool::new(false),
            sink,
            limits,
        })
    }

    fn establish(&self, established: Established) -> (Wire, Option<Child>) {
        let mut child = None;
        let (wire, ends) = match established {
            Established::Plain(stream) => {
                let ends = Ends {
                    peer: stream.peer(),
                    local: stream.local(),
                    ..Ends::default()
                };
                (self.plain(stream.split()), ends)
            }
            Established::Pair(pair) => (self.plain(split_pair(pair)), Ends::default()),
            Established::Child(pair, process) => {
                let ends = Ends {
                    process: Some(process.id()),
                    ..Ends::default()
                };
                child = Some(process);
                (self.plain(split_pair(pair)), ends)
            }
            Established::Tls(session) => {
                let (stream, state) = session.get_ref();
                let ends = Ends {
                    peer: stream.peer(),
                    local: stream.local(),
                    certificate: state
                        .peer_certificates()
                        .and_then(|chain| chain.first())
                        .map(|certificate| Bytes::copy_from_slice(certificate)),
                    ..Ends::default()
                };
                (Wire::tls(*session), ends)
            }
        };
        let _ = self.ends.set(Box::new(ends));
        lock(&self.outbox).opened();
        let tell = lock(&self.inbox).opened();
        self.emit_ready(tell);
        (wire, child)
    }

    fn plain(&self, (read, write): (ReadHalf, WriteHalf)) -> Wire {
        let write = Arc::new(write);
        // Never set before: a connection is established once.
        let _ = self.direct.set(write.clone());
        Wire::Plain(read, write)
    }

    /// Resolves when this side closes the connection.
    async fn closed(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if lock(&self.outbox).closing() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn close(&self) {
        lock(&self.outbox).close();
        let mut inbox = lock(&self.inbox);
        // Its owner asked for the end and waits for no event.
        let _ = inbox.end(Error::Closed);
        inbox.clear();
        drop(inbox);
        self.waker.wake();
    }

    /// What the end of the peer's data, or a write that it does not take, stands for.
    pub(crate) fn true_reason(&self, reason: Error) -> Error {
        if reason != Error::Closed {
            return reason;
        }
        // A sender that has just met it holds the queue until it has noted it.
        let _sent = lock(&self.outbox);
        if self.reset.load(Ordering::Relaxed) {
            Error::Reset
        } else {
            reason
        }
    }

    /// Reads once without waiting, unless the task is reading.
    fn receive_now(&self) {
        let (Some(half), Ok(mut reader)) = (self.direct.get(), self.reader.try_lock()) else {
            return;
        };
        if reader.done || reader.failed.is_some() || reader.is_within_large_frame() {
            return;
        }
        reader.make_room();
        let result = match half.try_read(&mut reader.buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                reader.idle();
                return;
            }
            Err(error) => Err(error.into()),
            Ok(read) => self.received(&mut reader, read),
        };
        if let Err(error) = result {
            reader.failed = Some(error);
            self.waker.wake();
        }
    }

    /// Splits what has been read into frames; a read of nothing is the end of the stream.
    pub(crate) fn received(&self, reader: &mut Reader, read: usize) -> Result<(), Error> {
        if read == 0 {
            reader.done = true;
            if !self.limits.half_close {
                return Err(Error::Closed);
            }
            self.eof();
            return Ok(());
        }
        self.count_bytes_in(read);
        let (batch, result) = reader.split(read);
        if result.is_err() {
            metrics::frames_oversized.add(self.transport, 1);
        }
        if let Some(batch) = batch {
            self.deliver(batch);
        }
        result
    }

    fn deliver(&self, batch: Batch) {
        let oversized = batch
            .items
            .iter()
            .filter(|item| matches!(item, Item::Oversized(_)));
        metrics::frames_oversized.add(self.transport, oversized.count() as u64);
        self.counters
            .frames_in
            .fetch_add(batch.items.len() as u64, Ordering::Relaxed);
        metrics::frames_in.add(self.transport, batch.items.len() as u64);
        metrics::frame_in_bytes.record_all(batch.items.iter().map(Item::bytes));
        let mut inbox = lock(&self.inbox);
        if inbox.ended().is_none() {
            inbox.push(batch);
        }
    }

    /// Tells the owner of what was delivered, if it has not been told.
    pub(crate) fn tell_waiting(&self) {
        let tell = lock(&self.inbox).tell();
        self.emit_ready(tell);
    }

    pub(crate) fn count_bytes_in(&self, n: usize) {
        self.counters
            .bytes_in
            .fetch_add(n as u64, Ordering::Relaxed);
        metrics::bytes_in.add(self.transport, n as u64);
    }

    fn eof(&self) {
        let tell = lock(&self.inbox).eof();
        self.emit_ready(tell);
    }

    /// Tells the owner of the end; what is queued can still be sent.
    pub(crate) fn end_receiving(&self, reason: Error) {
        lock(&self.outbox).close();
        let tell = lock(&self.inbox).end(reason);
        self.emit_ready(tell);
    }

    fn end(&self, reason: Error) {
        let refused = lock(&self.outbox).end();
        let tell = lock(&self.inbox).end(reason);
        self.emit_ready(tell);
        if refused {
            self.emit_writable();
        }
    }

    fn emit_ready(&self, tell: bool) {
        if tell {
            self.sink.emit(Event::Ready);
        }
    }

    pub(crate) fn emit_writable(&self) {
        self.sink.emit(Event::Writable);
    }

    /// Whether what was accepted has still to leave.
    pub(crate) fn is_leaving(&self) -> bool {
        let outbox = lock(&self.outbox);
        outbox.closing() || !outbox.is_empty()
    }

    fn state(&self) -> State {
        let closing = lock(&self.outbox).closing();
        let inbox = lock(&self.inbox);
        if closing {
            State::Closing
        } else if inbox.ended().is_some() {
            State::Down
        } else if inbox.at_eof() {
            State::Eof
        } else if self.ends.get().is_some() {
            State::Open
        } else {
            State::Connecting
        }
    }

    fn info(&self) -> Info {
        let ends = self.ends.get();
        let counters = &self.counters;
        let buffers = self.buffers();
        Info {
            state: self.state(),
            peer: ends.and_then(|e| e.peer.clone()),
            local: ends.and_then(|e| e.local.clone()),
            certificate: ends.and_then(|e| e.certificate.clone()),
            process: ends.and_then(|e| e.process),
            frames_in: counters.frames_in.load(Ordering::Relaxed),
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            frames_out: counters.frames_out.load(Ordering::Relaxed),
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
            waiting: lock(&self.inbox).waiting(),
            queued: lock(&self.outbox).bytes(),
            buffers,
        }
    }

    fn buffers(&self) -> Buffers {
        let read = lock(&self.reader).size();
        let inbox = lock(&self.inbox);
        let high_water = inbox.high_water();
        Buffers {
            read,
            high_water: high_water.mark(),
            bounds: high_water.bounds(),
            reason: high_water.reason(),
        }
    }
}

/// Whether an error of the operating system passes by itself.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
