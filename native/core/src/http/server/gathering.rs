//! The body of a request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

/// Bodies up to this size come with the request.
const EAGER: usize = 64 * 1024;

/// How long the body of a small request may lag behind its head and still come with it.
const GRACE: Duration = Duration::from_millis(10);

/// The body of a request, as it comes.
pub(crate) struct Gathering {
    /// Until all of it is there.
    incoming: Option<Incoming>,
    declared: Option<u64>,
    /// One chunk is kept as it came; many are joined, however small they are.
    one: Bytes,
    many: BytesMut,
    len: usize,
    max: usize,
    grace: Grace,
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Grace {
    NotBegun,
    Running(Pin<Box<Sleep>>),
    Over,
}

pub(crate) enum Gathered {
    Complete(Bytes),
    TooLarge,
    Malformed,
}

/// The body's time is over.
pub(crate) struct Late;

impl Gathering {
    pub(crate) fn nothing() -> Self {
        Self {
            incoming: None,
            declared: None,
            one: Bytes::new(),
            many: BytesMut::new(),
            len: 0,
            max: 0,
            grace: Grace::Over,
            deadline: None,
        }
    }

    /// A client that expects to be asked for the body is asked when the process reads it.
    pub(crate) fn new(incoming: Incoming, max: usize, expects: bool) -> Self {
        let declared = incoming.size_hint().exact();
        let complete = incoming.is_end_stream();
        Self {
            incoming: (!complete).then_some(incoming),
            declared,
            max,
            grace: if expects {
                Grace::Over
            } else {
                Grace::NotBegun
            },
            ..Self::nothing()
        }
    }

    /// Whether there is nothing more to come.
    pub(crate) fn is_complete(&self) -> bool {
        self.incoming.is_none()
    }

    /// Starts the body's time.
    pub(crate) fn limit(&mut self, timeout: Duration) {
        self.deadline = Some(Box::pin(sleep(timeout)));
    }

    fn is_too_large(&self, max: usize) -> bool {
        self.len > max || self.declared.is_some_and(|n| n > max as u64)
    }

    /// `None`: it does not come at once.
    pub(crate) fn poll_eager(&mut self, cx: &mut Context<'_>) -> Poll<Option<Gathered>> {
        if self.incoming.is_none() {
            return Poll::Ready(Some(Gathered::Complete(Bytes::new())));
        }
        let max = self.max.min(EAGER);
        if self.is_too_large(max) || matches!(self.grace, Grace::Over) {
            return Poll::Ready(None);
        }
        match self.poll(cx, max) {
            Poll::Ready(gathered) => Poll::Ready(Some(gathered)),
            Poll::Pending => {
                if let Grace::NotBegun = self.grace {
                    self.grace = Grace::Running(Box::pin(sleep(GRACE)));
                }
                match &mut self.grace {
                    Grace::Running(grace) => grace.as_mut().poll(cx).map(|()| None),
                    Grace::NotBegun | Grace::Over => Poll::Ready(None),
                }
            }
        }
    }

    pub(crate) fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<Gathered, Late>> {
        if let Poll::Ready(gathered) = self.poll(cx, self.max) {
            return Poll::Ready(Ok(gathered));
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| Err(Late)),
            None => Poll::Pending,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Gathered> {
        loop {
            if self.is_too_large(max) {
                return Poll::Ready(Gathered::TooLarge);
            }
            let Some(incoming) = &mut self.incoming else {
                return Poll::Ready(Gathered::Complete(self.join()));
            };
            match Pin::new(incoming).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Gathered::Malformed),
                Poll::Ready(None) => self.incoming = None,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.push(data);
                    }
                    if self.incoming.as_ref().is_some_and(Incoming::is_end_stream) {
                        self.incoming = None;
                    }
                }
            }
        }
    }

    fn push(&mut self, data: Bytes) {
        if self.len == 0 {
            self.one = data.clone();
        } else {
            if self.many.is_empty() {
                self.many.extend_from_slice(&std::mem::take(&mut self.one));
            }
            self.many.extend_from_slice(&data);
        }
        self.len += data.len();
    }

    fn join(&mut self) -> Bytes {
        if self.many.is_empty() {
            std::mem::take(&mut self.one)
        } else {
            std::mem::take(&mut self.many).freeze()
        }
    }
}
