//! A connection over HTTP/1.1: one request at a time.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::{Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::alarm::Alarm;
use super::exchange::Exchange;
use super::io::{Io, Trace};
use super::request::{Job, Payload, Request};
use super::shared::Shared;
use super::{Failure, Reason};
use crate::error::Error;
use crate::metrics;
use crate::sync::lock;

/// The most that a request may have for its caller's thread to send it.
const DIRECT: usize = 64 * 1024;

/// What hyper reads at once at most; heads may be larger.
const READ: usize = 256 * 1024;

type Answer = Pin<Box<dyn Future<Output = Sent> + Send>>;
type Sent = Result<Response<Incoming>, TrySendError<http::Request<Payload>>>;
type Ended = (Arc<Exchange>, Result<(), Failure>);

pub(crate) struct Link {
    core: Mutex<Core>,
    alarm: Arc<Alarm>,
    waker: Waker,
    trace: Arc<Trace>,
    /// Callers may send on their own threads.
    direct: bool,
}

struct Core {
    connection: Connection<TokioIo<Io>, Payload>,
    sender: SendRequest<Payload>,
    current: Option<Current>,
    /// An answer is complete and the connection not yet ready for the next request.
    returning: bool,
    /// Requests that were answered.
    served: u64,
    retired: bool,
    /// Nothing more comes from the connection.
    over: bool,
    /// The current request has something for its owner.
    news: bool,
    outcome: Outcome,
}

/// What is left to do when the connection is unlocked, for its task.
#[derive(Default)]
struct Outcome {
    tell: Vec<Arc<Exchange>>,
    requeue: Option<Job>,
}

struct Current {
    exchange: Arc<Exchange>,
    stage: Stage,
    /// Bytes read before it.
    read: u64,
}

enum Stage {
    Head(Answer),
    Body(Incoming),
}

/// The task's end of a connection.
pub(crate) struct Driver {
    link: Arc<Link>,
    shared: Arc<Shared>,
}

pub(crate) async fn open(io: Io, shared: &Arc<Shared>) -> Result<Driver, Failure> {
    let max_head = shared.options.max_head;
    let (trace, direct) = (io.trace(), io.is_plain());
    let (sender, connection) = Builder::new()
        .max_header_size(max_head)
        .max_buf_size(READ.max(max_head))
        .handshake(TokioIo::new(io))
        .await
        .map_err(|_| Failure::protocol(true))?;
    let (alarm, waker) = Alarm::new();
    let core = Core {
        connection,
        sender,
        current: None,
        // Ready from its first poll on.
        returning: true,
        served: 0,
        retired: false,
        over: false,
        news: false,
        outcome: Outcome::default(),
    };
    shared.opened();
    let link = Arc::new(Link {
        core: Mutex::new(core),
        alarm,
        waker,
        trace,
        direct,
    });
    Ok(Driver {
        link,
        shared: shared.clone(),
    })
}

impl Driver {
    /// Runs to the end of the connection.
    pub(crate) async fn run(self) {
        let mut fresh = true;
        std::future::poll_fn(|cx| {
            self.link.alarm.belong_to(cx);
            let (over, outcome) = self.link.poll(&self.shared);
            if std::mem::take(&mut fresh) {
                // If it was not known what the origin speaks, others have waited for this one.
                self.shared.dial_more();
            }
            for exchange in outcome.tell {
                self.shared.tell(&exchange);
            }
            if let Some(job) = outcome.requeue {
                self.shared.requeue(job);
            }
            over
        })
        .await;
    }
}

impl Drop for Driver {
    /// Whatever has ended the connection, a panic included.
    fn drop(&mut self) {
        let mut core = lock(&self.link.core);
        core.over = true;
        let current = core.current.take();
        drop(core);
        if std::thread::panicking() {
            metrics::panics.add(1);
            tracing::error!("the task of a connection has panicked");
            if let Some(current) = current {
                let failure = Failure::new(Error::Panic, false);
                self.shared.fail(&current.exchange, failure);
            }
        }
        self.shared.ended(&self.link);
    }
}

impl Link {
    /// Sends a request, or gives it back if the connection is over. What the caller's thread can
    /// send at once it does; everything else is left to the task.
    pub(crate) fn start(self: &Arc<Self>, job: Job, shared: &Arc<Shared>) -> Result<(), Job> {
        let size = job.request.body.as_ref().map_or(0, bytes::Bytes::len);
        let mut core = lock(&self.core);
        if core.over {
            return Err(job);
        }
        if !core.begin(job, self, shared) {
            core.returning = true;
        } else if self.direct && size <= DIRECT {
            let over = core.poll(self, shared);
            if over.is_pending() && core.outcome.is_empty() {
                return Ok(());
            }
        }
        drop(core);
        self.waker.wake_by_ref();
        Ok(())
    }

    /// Closes the connection, which is idle.
    pub(crate) fn retire(&self) {
        lock(&self.core).retired = true;
        self.waker.wake_by_ref();
    }

    fn poll(self: &Arc<Self>, shared: &Arc<Shared>) -> (Poll<()>, Outcome) {
        let mut core = lock(&self.core);
        let over = core.poll(self, shared);
        (over, std::mem::take(&mut core.outcome))
    }
}

impl Outcome {
    fn is_empty(&self) -> bool {
        self.tell.is_empty() && self.requeue.is_none()
    }
}

impl Core {
    /// Gives the connection, which is free, a request, unless that is over.
    fn begin(&mut self, job: Job, link: &Link, shared: &Shared) -> bool {
        let Job { exchange, request } = job;
        if !exchange.begin(&link.waker) {
            return false;
        }
        let request = shared.origin.http1(*request);
        self.current = Some(Current {
            exchange,
            stage: Stage::Head(Box::pin(self.sender.try_send_request(request))),
            read: link.trace.read(),
        });
        true
    }

    /// Does what there is to do; ready when nothing more will come of the connection.
    fn poll(&mut self, link: &Arc<Link>, shared: &Arc<Shared>) -> Poll<()> {
        let mut cx = Context::from_waker(&link.waker);
        let result = link.alarm.poll(|| self.step(&mut cx, link, shared));
        if std::mem::take(&mut self.news)
            && let Some(current) = &self.current
        {
            self.outcome.tell.push(current.exchange.clone());
        }
        // An answer that is there before its request was sent is the end of both.
        self.over |= result.is_ready() || (self.returning && self.served > 0);
        if self.over && self.current.is_none() {
            Poll::Ready(())
        } else {
            result
        }
    }

    fn step(&mut self, cx: &mut Context<'_>, link: &Arc<Link>, shared: &Arc<Shared>) -> Poll<()> {
        let unwanted = match &self.current {
            Some(current) => current.exchange.is_stopped(),
            None => self.retired,
        };
        if unwanted {
            self.current = None;
            return Poll::Ready(());
        }
        self.poll_connection(cx);
        let ended = self.poll_answer(cx, link);
        if let Some((_, Ok(()))) = &ended {
            self.served += 1;
            self.returning = true;
            self.poll_connection(cx);
        }
        // Before the owner learns of the end: its next request is to find the connection.
        self.go_on(cx, link, shared);
        if let Some((exchange, result)) = ended {
            self.over |= result.is_err();
            exchange.end(result);
            self.outcome.tell.push(exchange);
        }
        if self.over && self.current.is_none() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) {
        if !self.over {
            // Errors are those of the request, if there is one.
            self.over = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
    }

    /// Takes the next request, once the connection is ready for it.
    fn go_on(&mut self, cx: &mut Context<'_>, link: &Arc<Link>, shared: &Arc<Shared>) {
        if !self.returning || self.over || self.sender.poll_ready(cx).is_pending() {
            return;
        }
        self.returning = false;
        while let Some(job) = shared.next(link) {
            if self.begin(job, link, shared) {
                return;
            }
        }
    }

    /// Takes what has come of the answer, and returns its end.
    fn poll_answer(&mut self, cx: &mut Context<'_>, link: &Link) -> Option<Ended> {
        let current = self.current.as_mut()?;
        if let Stage::Head(answer) = &mut current.stage {
            match answer.as_mut().poll(cx) {
                Poll::Pending => return None,
                Poll::Ready(Err(error)) => return self.unanswered(error, link),
                Poll::Ready(Ok(response)) => {
                    let (head, body) = response.into_parts();
                    if head.status == StatusCode::SWITCHING_PROTOCOLS {
                        return self.end(Err(Failure::protocol(false)));
                    }
                    self.news = true;
                    current
                        .exchange
                        .set_head(head.status.as_u16(), head.headers);
                    current.stage = Stage::Body(body);
                }
            }
        }
        let result = self.poll_body(cx, link)?;
        self.end(result)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, link: &Link) -> Option<Result<(), Failure>> {
        let Some(Current {
            exchange,
            stage: Stage::Body(body),
            ..
        }) = &mut self.current
        else {
            return None;
        };
        loop {
            if body.is_end_stream() {
                return Some(Ok(()));
            }
            if !exchange.has_room() {
                return None;
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return None,
                Poll::Ready(None) => return Some(Ok(())),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are left out.
                    if let Ok(part) = frame.into_data() {
                        exchange.push(part);
                        self.news = true;
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    return Some(Err(Failure {
                        reason: reason(&error, &link.trace),
                        safe: false,
                    }));
                }
            }
        }
    }

    fn end(&mut self, result: Result<(), Failure>) -> Option<Ended> {
        let current = self.current.take()?;
        Some((current.exchange, result))
    }

    /// There will be no answer. What was not sent is sent on another connection, if this one has
    /// served: then it was closed for having been unused.
    fn unanswered(
        &mut self,
        mut error: TrySendError<http::Request<Payload>>,
        link: &Link,
    ) -> Option<Ended> {
        let current = self.current.take()?;
        let unsent = error.take_message();
        let not_sent = unsent.is_some();
        self.over = true;
        if let (true, Some(request)) = (self.served > 0, unsent.and_then(Request::recover)) {
            self.outcome.requeue = Some(Job {
                exchange: current.exchange,
                request,
            });
            return None;
        }
        let silent = link.trace.read() == current.read;
        let unserved = self.served > 0 && silent && current.exchange.idempotent;
        let failure = Failure {
            reason: reason(&error.into_error(), &link.trace),
            safe: not_sent || unserved,
        };
        Some((current.exchange, Err(failure)))
    }
}

/// The stream knows best what has happened to it.
fn reason(error: &hyper::Error, trace: &Trace) -> Reason {
    if let Some(error) = trace.failed() {
        return Reason::Error(error);
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Reason::Error(Error::Closed);
    }
    let cause = error.source().and_then(|e| e.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof) => Reason::Error(Error::Closed),
        _ => Reason::Protocol,
    }
}
