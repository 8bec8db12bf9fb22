//! One request and its answer, as the serving process sees them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request};

use super::state::{Answer, AnswerBody, Counted, Parts, Phase, Shared, State, bare};
use crate::error::Error;
use crate::metrics::{self, Transport};
use crate::stream::Address;
use crate::sync::lock;

/// What the serving process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The body that was asked for can be read.
    Body,
    /// A part was refused with [`Error::Busy`]; there is room again.
    Writable,
    /// The client is gone, and the process wants to be told.
    Gone,
    /// The client is gone, and the process is to end.
    Exit,
}

/// The serving process. Told from tokio's threads only.
pub trait Receiver: Send + Sync + 'static {
    /// Passes a notice on. Must not block.
    fn tell(&self, notice: Notice);

    /// So many bytes of a stream have left its queue. For a receiver that counts what waits; it may
    /// be told on the thread that has called the exchange.
    fn taken(&self, _bytes: usize) {}
}

/// What becomes of the serving process when the client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGone {
    /// It is told.
    Notice,
    /// It ends.
    Exit,
}

/// A request, as the process takes it.
pub struct Request {
    /// Method, target, headers and version.
    pub head: request::Parts,
    /// The body, where it came with the head.
    pub body: Option<Bytes>,
    /// The client's address.
    pub peer: Option<Address>,
    /// Whether it came over TLS.
    pub tls: bool,
}

/// What there is of a body that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// All of it.
    Complete(Bytes),
    /// More than the limit.
    TooLarge,
    /// It did not arrive in time.
    Timeout,
    /// A notice follows.
    Waiting,
    /// The exchange is over.
    Closed,
}

/// The process's end of an exchange. Dropped before the answer is complete, the answer is
/// completed for it.
pub struct Exchange {
    shared: Arc<Shared>,
}

impl Exchange {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Takes the request. `None` when the client is gone already.
    pub fn take(&self, receiver: Box<dyn Receiver>) -> Option<Box<Request>> {
        let mut state = lock(&self.shared.state);
        let request = state.request.take()?;
        state.receiver = Some(receiver);
        Some(request)
    }

    /// The body, or a promise of a notice. A complete body is given once.
    pub fn body(&self) -> Body {
        let mut state = lock(&self.shared.state);
        match std::mem::replace(&mut state.body, Body::Waiting) {
            Body::Waiting => {
                state.wanted = true;
                state.wake();
                Body::Waiting
            }
            Body::Complete(bytes) => {
                state.body = Body::Closed;
                Body::Complete(bytes)
            }
            other => {
                state.body = other.clone();
                other
            }
        }
    }

    /// Answers whole.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn reply(&self, status: StatusCode, headers: HeaderMap, body: Bytes) -> Result<(), Error> {
        let answer = Answer {
            status,
            headers,
            body: AnswerBody::Whole(body),
        };
        let mut state = self.waiting()?;
        self.shared.count(&mut state, Counted::Not);
        state.answer(answer);
        Ok(())
    }

    /// Begins an answer of unknown length. With too many of them it is answered with 503.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn stream(&self, status: StatusCode, headers: HeaderMap) -> Result<(), Error> {
        let mut state = self.waiting()?;
        let counts = &self.shared.counts;
        if counts.streams.fetch_add(1, Ordering::Relaxed) >= counts.max_streams {
            counts.streams.fetch_sub(1, Ordering::Relaxed);
            metrics::http_refused.add(1);
            self.shared.count(&mut state, Counted::Not);
            state.answer(bare(StatusCode::SERVICE_UNAVAILABLE));
            return Err(Error::Closed);
        }
        self.shared.count(&mut state, Counted::Streaming);
        let body = AnswerBody::Parts(Parts::default());
        state.answer(Answer {
            status,
            headers,
            body,
        });
        Ok(())
    }

    /// Sends a part of a stream.
    ///
    /// # Errors
    /// [`Error::Busy`], after which a notice follows, and [`Error::Closed`].
    pub fn send(&self, part: Bytes) -> Result<(), Error> {
        let max = self.shared.counts.max_stream;
        let mut state = lock(&self.shared.state);
        if let Phase::Discarding = state.phase {
            state.taken(part.len());
            return Ok(());
        }
        let parts = state.parts().ok_or(Error::Closed)?;
        if part.is_empty() {
            return Ok(());
        }
        if parts.bytes > 0 && parts.bytes + part.len() > max {
            parts.refused = true;
            metrics::sends_refused_busy.add(Transport::Http, 1);
            return Err(Error::Busy);
        }
        parts.bytes += part.len();
        parts.queue.push_back(part);
        state.wake();
        Ok(())
    }

    /// Asks to be told of room as if a part had been refused, at once where nothing waits. For a
    /// process that keeps to the limit by itself; it may be told on the caller's thread.
    pub fn want_room(&self) {
        let mut state = lock(&self.shared.state);
        match state.parts() {
            Some(parts) if parts.bytes > 0 => parts.refused = true,
            _ => state.tell(Notice::Writable),
        }
    }

    /// Ends a stream after what is queued.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn finish(&self) -> Result<(), Error> {
        let mut state = lock(&self.shared.state);
        if let Phase::Discarding = state.phase {
            state.phase = Phase::Over;
            return Ok(());
        }
        state.parts().ok_or(Error::Closed)?.finished = true;
        state.wake();
        Ok(())
    }

    /// Sets what becomes of the process when the client goes. Returns whether it has gone already.
    pub fn on_gone(&self, what: OnGone) -> bool {
        let mut state = lock(&self.shared.state);
        state.on_gone = what;
        state.gone
    }

    /// Sets the status that answers for a process that ends without an answer.
    pub fn on_exit(&self, status: StatusCode) {
        lock(&self.shared.state).on_exit = status;
    }

    /// The process has ended. Nothing is sent here, which may be a destructor: the task is woken and
    /// does it.
    pub fn abandon(&self) {
        let mut state = lock(&self.shared.state);
        state.receiver = None;
        if let Phase::Waiting = state.phase {
            let status = state.on_exit;
            state.answer(bare(status));
        } else if let Some(parts) = state.parts() {
            parts.aborted = true;
            state.wake();
        }
    }

    fn waiting(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = lock(&self.shared.state);
        match state.phase {
            Phase::Waiting => Ok(state),
            _ => Err(Error::Closed),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.abandon();
    }
}
