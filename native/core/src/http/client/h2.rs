//! A connection over HTTP/2: requests share it.
//!
//! h2 is used as it is, without hyper between: a stream then needs no task of its own, its flow
//! control follows what the owner takes, and the reasons of failures stay visible.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason as Code, RecvStream, SendStream};

use super::alarm::{Alarm, Entry, Roll};
use super::exchange::Exchange;
use super::io::{Io, Trace};
use super::pool::{Multiplexed, STREAMS};
use super::request::Job;
use super::shared::Shared;
use super::{Failure, Reason};
use crate::error::Error;
use crate::metrics;

/// The largest window there is: each stream is bounded by its own, and one that nobody reads must
/// not hold up the others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Streams to begin with before the server has said how many it takes: it would refuse what is too
/// many.
const FIRST_STREAMS: usize = 1;

/// Below this, requests for more would be most of the traffic.
const STREAM_WINDOW: u32 = 16 * 1024;

/// The task's end of a connection.
pub(crate) struct Driver {
    connection: Connection<Io, Bytes>,
    sender: SendRequest<Bytes>,
    streams: HashMap<u64, Stream>,
    roll: Arc<Roll>,
    alarm: Arc<Alarm>,
    waker: Waker,
    trace: Arc<Trace>,
    retired: Arc<AtomicBool>,
    /// No more requests are taken.
    leaving: bool,
    over: bool,
    shared: Arc<Shared>,
}

struct Stream {
    exchange: Arc<Exchange>,
    stage: Stage,
    send: SendStream<Bytes>,
    entry: Arc<Entry>,
    waker: Waker,
}

enum Stage {
    Head(ResponseFuture),
    Body(RecvStream),
}

/// What becomes of a stream that was looked at.
enum Progress {
    News,
    Nothing,
    Ended(Result<(), Failure>),
}

pub(crate) async fn open(io: Io, shared: &Arc<Shared>) -> Result<Driver, Failure> {
    let trace = io.trace();
    let window = u32::try_from(shared.options.high_water).unwrap_or(CONNECTION_WINDOW);
    let max_head = u32::try_from(shared.options.max_head).unwrap_or(u32::MAX);
    let (sender, connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(window.clamp(STREAM_WINDOW, CONNECTION_WINDOW))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(max_head)
        .initial_max_send_streams(FIRST_STREAMS)
        .handshake(io)
        .await
        .map_err(|error| Failure {
            reason: reason(&error, &trace),
            safe: true,
        })?;
    let (alarm, waker) = Alarm::new();
    let retired = Arc::new(AtomicBool::new(false));
    shared.multiplexed(Multiplexed {
        waker: waker.clone(),
        retired: retired.clone(),
        streams: 0,
        limit: STREAMS,
        idle_until: None,
    });
    Ok(Driver {
        connection,
        sender,
        streams: HashMap::new(),
        roll: Roll::new(waker.clone()),
        alarm,
        waker,
        trace,
        retired,
        leaving: false,
        over: false,
        shared: shared.clone(),
    })
}

impl Driver {
    /// Runs to the end of the connection.
    pub(crate) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let alarm = self.alarm.clone();
        let waker = self.waker.clone();
        alarm.belong_to(task);
        let mut cx = Context::from_waker(&waker);
        alarm.poll(|| self.step(&mut cx))
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.over && Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.over = true;
            self.leave();
            let ids: Vec<u64> = self.streams.keys().copied().collect();
            for id in ids {
                self.look_at(id);
            }
        }
        for id in self.roll.take() {
            self.look_at(id);
        }
        self.send(cx);
        if self.streams.is_empty() && (self.over || self.retired.load(Ordering::SeqCst)) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.shared.leaving(&self.waker);
        }
    }

    /// Sends what waits, as long as the peer takes more streams.
    fn send(&mut self, cx: &mut Context<'_>) {
        while !self.leaving {
            match self.sender.poll_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => return self.leave(),
                Poll::Ready(Ok(())) => {}
            }
            let limit = match self.sender.current_max_send_streams() {
                FIRST_STREAMS => STREAMS,
                limit => limit,
            };
            let Some(job) = self.shared.next_stream(&self.waker, limit) else {
                return;
            };
            if !self.begin(job) {
                self.shared.stream_ended(&self.waker);
            }
        }
    }

    fn begin(&mut self, job: Job) -> bool {
        let Job { exchange, request } = job;
        let (entry, waker) = self.roll.waker(exchange.id);
        if !exchange.begin(&waker) {
            return false;
        }
        let (request, body) = self.shared.origin.http2(*request);
        let body = body.filter(|body| !body.is_empty());
        let sent = self.sender.send_request(request, body.is_none());
        let sent = sent.and_then(|(answer, mut send)| {
            if let Some(body) = body {
                send.send_data(body, true)?;
            }
            Ok((answer, send))
        });
        let (answer, send) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                let failure = self.failure(&error, true);
                self.shared.fail(&exchange, failure);
                return false;
            }
        };
        let id = exchange.id;
        let stream = Stream {
            exchange,
            stage: Stage::Head(answer),
            send,
            entry,
            waker,
        };
        // To be polled for the first time.
        stream.waker.wake_by_ref();
        self.streams.insert(id, stream);
        true
    }

    fn look_at(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.entry.clear();
        if stream.exchange.is_stopped() {
            stream.send.send_reset(Code::CANCEL);
            self.streams.remove(&id);
            return self.shared.stream_ended(&self.waker);
        }
        match stream.poll(&self.trace) {
            Progress::Nothing => {}
            Progress::News => self.shared.tell(&stream.exchange),
            Progress::Ended(result) => {
                let stream = self.streams.remove(&id);
                self.shared.stream_ended(&self.waker);
                if let Some(stream) = stream {
                    stream.exchange.end(result);
                    self.shared.tell(&stream.exchange);
                }
            }
        }
    }

    fn failure(&self, error: &h2::Error, unsent: bool) -> Failure {
        failure(error, &self.trace, unsent)
    }
}

impl Drop for Driver {
    /// Whatever has ended the connection, a panic included.
    fn drop(&mut self) {
        if std::thread::panicking() {
            metrics::panics.add(1);
            tracing::error!("the task of a connection has panicked");
            for stream in self.streams.values() {
                let failure = Failure::new(Error::Panic, false);
                self.shared.fail(&stream.exchange, failure);
            }
        }
        self.shared.multiplexed_ended(&self.waker);
    }
}

impl Stream {
    fn poll(&mut self, trace: &Trace) -> Progress {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        let mut progress = Progress::Nothing;
        if let Stage::Head(answer) = &mut self.stage {
            match Pin::new(answer).poll(&mut cx) {
                Poll::Pending => return Progress::Nothing,
                Poll::Ready(Err(error)) => {
                    return Progress::Ended(Err(failure(&error, trace, false)));
                }
                Poll::Ready(Ok(response)) => {
                    let (head, body) = response.into_parts();
                    self.exchange.set_head(head.status.as_u16(), head.headers);
                    self.stage = Stage::Body(body);
                    progress = Progress::News;
                }
            }
        }
        let Stage::Body(body) = &mut self.stage else {
            return progress;
        };
        while self.exchange.has_room() {
            if body.is_end_stream() {
                return Progress::Ended(Ok(()));
            }
            match body.poll_data(&mut cx) {
                Poll::Pending => return progress,
                Poll::Ready(None) => return Progress::Ended(Ok(())),
                Poll::Ready(Some(Ok(part))) => {
                    // The stream may be over, and then there is no window to widen.
                    let _ = body.flow_control().release_capacity(part.len());
                    self.exchange.push(part);
                    progress = Progress::News;
                }
                Poll::Ready(Some(Err(error))) => {
                    let mut failure = failure(&error, trace, false);
                    failure.safe = false;
                    return Progress::Ended(Err(failure));
                }
            }
        }
        progress
    }
}

/// A stream that was refused, or that the peer did not look at any more before it went away, has
/// had no effect (RFC 9113, 8.7).
fn failure(error: &h2::Error, trace: &Trace, unsent: bool) -> Failure {
    let refused = error.is_reset() && error.reason() == Some(Code::REFUSED_STREAM);
    let away = error.is_go_away() && error.is_remote();
    Failure {
        reason: reason(error, trace),
        safe: unsent || refused || away,
    }
}

fn reason(error: &h2::Error, trace: &Trace) -> Reason {
    if let Some(error) = trace.failed() {
        return Reason::Error(error);
    }
    if let Some(error) = error.get_io() {
        return Reason::Error(Error::from(error));
    }
    if error.is_reset() && error.is_remote() {
        return Reason::Error(match error.reason() {
            Some(Code::REFUSED_STREAM) => Error::Refused,
            _ => Error::Reset,
        });
    }
    if error.is_go_away() && error.is_remote() {
        return Reason::Error(Error::Closed);
    }
    Reason::Protocol
}
