//! One request and its answer, between the task that speaks HTTP and the process that serves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::exchange::{Body, Notice, OnGone, Receiver, Request};
use crate::metrics;
use crate::sync::lock;

/// Counts of a listener's exchanges, for its limits.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) unanswered: AtomicUsize,
    pub(crate) streams: AtomicUsize,
    pub(crate) max_streams: usize,
    /// Bytes that may wait in one stream.
    pub(crate) max_stream: usize,
}

impl Counts {
    /// Counts a request in as unanswered, unless there are too many.
    pub(crate) fn enter(&self, max_unanswered: usize) -> bool {
        let entered = self.unanswered.fetch_add(1, Ordering::Relaxed) < max_unanswered;
        if !entered {
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
        }
        entered
    }
}

pub(crate) struct Shared {
    pub(crate) counts: Arc<Counts>,
    pub(crate) state: Mutex<State>,
    _live: metrics::Live,
}

pub(crate) struct State {
    pub(crate) request: Option<Box<Request>>,
    pub(crate) phase: Phase,
    pub(crate) counted: Counted,
    /// A HEAD request: nothing of the answer's body goes out.
    pub(crate) bodiless: bool,
    /// The body was asked for.
    pub(crate) wanted: bool,
    pub(crate) body: Body,
    pub(crate) on_gone: OnGone,
    pub(crate) on_exit: StatusCode,
    pub(crate) gone: bool,
    pub(crate) receiver: Option<Box<dyn Receiver>>,
    pub(crate) waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Unanswered,
    Streaming,
    Not,
}

pub(crate) enum Phase {
    /// The process has not answered.
    Waiting,
    /// It has; the task has not seen it.
    Answered(Answer),
    /// The head is with the task, parts follow.
    Streaming(Parts),
    /// Parts follow, of which nothing goes out.
    Discarding,
    /// Nothing more can be said.
    Over,
}

/// An answer, as the task takes it.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
}

pub(crate) enum AnswerBody {
    Whole(Bytes),
    Parts(Parts),
    Nothing,
}

/// What waits of a stream.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) queue: VecDeque<Bytes>,
    pub(crate) bytes: usize,
    pub(crate) finished: bool,
    pub(crate) aborted: bool,
    pub(crate) refused: bool,
    /// An abort lets what was taken before it go out first.
    pub(crate) flushed: bool,
}

/// The next of a stream.
pub(crate) enum Part {
    Data(Bytes),
    End,
    Aborted,
}

/// Whether an answer of that status has no body.
pub(crate) fn is_silent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// An answer without a body.
pub(crate) fn bare(status: StatusCode) -> Answer {
    let mut headers = HeaderMap::new();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Answer {
        status,
        headers,
        body: AnswerBody::Whole(Bytes::new()),
    }
}

impl Shared {
    /// Of a request that was counted as unanswered.
    pub(crate) fn new(counts: Arc<Counts>, request: Request) -> Arc<Self> {
        metrics::http_requests.add(1);
        let bodiless = request.head.method == Method::HEAD;
        Arc::new(Self {
            counts,
            state: Mutex::new(State {
                request: Some(Box::new(request)),
                phase: Phase::Waiting,
                counted: Counted::Unanswered,
                bodiless,
                wanted: false,
                body: Body::Waiting,
                on_gone: OnGone::Notice,
                on_exit: StatusCode::INTERNAL_SERVER_ERROR,
                gone: false,
                receiver: None,
                waker: None,
            }),
            _live: metrics::native_http_exchanges.live(),
        })
    }

    /// The body came with the head.
    pub(crate) fn complete(&self, body: Bytes) {
        if let Some(request) = &mut lock(&self.state).request {
            request.body = Some(body);
        }
    }

    pub(crate) fn wants_body(&self) -> bool {
        lock(&self.state).wanted
    }

    pub(crate) fn deliver(&self, body: Body) {
        let mut state = lock(&self.state);
        state.wanted = false;
        state.body = body;
        state.tell(Notice::Body);
    }

    /// The next thing that the process does: asks for the body (`None`), or answers.
    pub(crate) fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut state.phase, Phase::Over) {
            Phase::Answered(mut answer) => {
                if let AnswerBody::Parts(parts) = &mut answer.body {
                    if state.bodiless || is_silent(answer.status) {
                        state.phase = Phase::Discarding;
                        answer.body = AnswerBody::Nothing;
                    } else {
                        state.phase = Phase::Streaming(std::mem::take(parts));
                    }
                }
                Poll::Ready(answer)
            }
            phase => {
                state.phase = phase;
                state.wait(cx);
                Poll::Pending
            }
        }
    }

    /// The next part of a stream whose head has gone out.
    pub(crate) fn poll_part(&self, cx: &mut Context<'_>) -> Poll<Part> {
        let mut state = lock(&self.state);
        let max = self.counts.max_stream;
        let Phase::Streaming(parts) = &mut state.phase else {
            return Poll::Ready(Part::Aborted);
        };
        if let Some(part) = parts.queue.pop_front() {
            let len = part.len();
            parts.bytes -= len;
            let room = parts.bytes <= max / 2 && std::mem::take(&mut parts.refused);
            if parts.queue.is_empty() {
                parts.queue = VecDeque::new();
            }
            state.taken(len);
            if room {
                state.tell(Notice::Writable);
            }
            return Poll::Ready(Part::Data(part));
        }
        if parts.finished {
            return Poll::Ready(Part::End);
        }
        if parts.aborted {
            if std::mem::replace(&mut parts.flushed, true) {
                return Poll::Ready(Part::Aborted);
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        state.wait(cx);
        Poll::Pending
    }

    /// Whether a stream is complete and nothing of it waits.
    pub(crate) fn is_finished(&self) -> bool {
        match &lock(&self.state).phase {
            Phase::Streaming(parts) => parts.finished && parts.queue.is_empty(),
            _ => false,
        }
    }

    /// The task is done with the exchange. If it was not complete, the client is gone.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        let complete = match &state.phase {
            Phase::Streaming(parts) => parts.aborted || (parts.finished && parts.queue.is_empty()),
            Phase::Over | Phase::Discarding => true,
            Phase::Waiting | Phase::Answered(_) => false,
        };
        self.over(&mut state);
        if std::mem::take(&mut state.wanted) {
            state.tell(Notice::Body);
        }
        if !complete {
            state.gone = true;
            let notice = match state.on_gone {
                OnGone::Notice => Notice::Gone,
                OnGone::Exit => Notice::Exit,
            };
            state.tell(notice);
        }
        state.receiver = None;
    }

    fn over(&self, state: &mut State) {
        if !matches!(state.phase, Phase::Discarding) {
            state.phase = Phase::Over;
        }
        state.body = Body::Closed;
        state.request = None;
        self.count(state, Counted::Not);
    }

    /// The caller has counted it already as what it becomes.
    pub(crate) fn count(&self, state: &mut State, as_what: Counted) {
        let former = std::mem::replace(&mut state.counted, as_what);
        if former == as_what {
            return;
        }
        match former {
            Counted::Unanswered => self.counts.unanswered.fetch_sub(1, Ordering::Relaxed),
            Counted::Streaming => self.counts.streams.fetch_sub(1, Ordering::Relaxed),
            Counted::Not => 0,
        };
    }
}

impl State {
    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    pub(crate) fn tell(&self, notice: Notice) {
        if let Some(receiver) = &self.receiver {
            receiver.tell(notice);
        }
    }

    pub(crate) fn taken(&self, bytes: usize) {
        if let Some(receiver) = &self.receiver {
            receiver.taken(bytes);
        }
    }

    pub(crate) fn answer(&mut self, answer: Answer) {
        self.body = Body::Closed;
        self.phase = Phase::Answered(answer);
        self.wake();
    }

    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The parts of a stream that can take more.
    pub(crate) fn parts(&mut self) -> Option<&mut Parts> {
        let parts = match &mut self.phase {
            Phase::Streaming(parts) => parts,
            Phase::Answered(answer) => match &mut answer.body {
                AnswerBody::Parts(parts) => parts,
                AnswerBody::Whole(_) | AnswerBody::Nothing => return None,
            },
            Phase::Waiting | Phase::Discarding | Phase::Over => return None,
        };
        (!parts.finished).then_some(parts)
    }
}
