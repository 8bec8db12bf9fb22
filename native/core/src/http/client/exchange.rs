//! A request and its answer, between a connection and the owner.

use std::collections::VecDeque;
use std::mem;
use std::sync::Mutex;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;

use super::{Failure, Head, News, Taken};
use crate::error::Error;
use crate::sync::lock;

/// What keeping a part costs beside its bytes.
const PART: usize = size_of::<Bytes>();

pub(crate) struct Exchange {
    pub(crate) id: u64,
    /// RFC 9110, 9.2.2.
    pub(crate) idempotent: bool,
    high_water: usize,
    timeout: Option<Duration>,
    over_at: Option<Instant>,
    state: Mutex<State>,
}

struct State {
    sent: bool,
    /// Nobody wants the answer any more.
    stopped: bool,
    /// When the wait for the head or for the next part began.
    since: Instant,
    head: Option<Head>,
    answered: bool,
    parts: VecDeque<Bytes>,
    waiting: usize,
    /// The connection reads nothing until there is room.
    paused: bool,
    end: Option<Result<(), Failure>>,
    /// The owner is to be told of the next news.
    armed: bool,
    /// The owner knows that there is something to take.
    readable: bool,
    /// The connection that works on it.
    waker: Option<Waker>,
}

impl Exchange {
    pub(crate) fn new(
        id: u64,
        idempotent: bool,
        high_water: usize,
        timeout: Option<Duration>,
        total: Option<Duration>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            idempotent,
            high_water,
            timeout,
            over_at: total.and_then(|total| now.checked_add(total)),
            state: Mutex::new(State {
                sent: false,
                stopped: false,
                since: now,
                head: None,
                answered: false,
                parts: VecDeque::new(),
                waiting: 0,
                paused: false,
                end: None,
                armed: true,
                readable: false,
                waker: None,
            }),
        }
    }

    /// Is given to a connection, unless it is over.
    pub(crate) fn begin(&self, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        if state.stopped {
            return false;
        }
        state.sent = true;
        state.waker = Some(waker.clone());
        true
    }

    /// Was not sent after all, and waits again.
    pub(crate) fn give_back(&self) {
        let mut state = lock(&self.state);
        state.sent = false;
        state.waker = None;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.state).stopped
    }

    pub(crate) fn set_head(&self, status: u16, headers: HeaderMap) {
        let mut state = lock(&self.state);
        state.since = Instant::now();
        state.answered = true;
        state.head = Some(Head { status, headers });
    }

    pub(crate) fn push(&self, part: Bytes) {
        if part.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        state.since = Instant::now();
        state.waiting += part.len() + PART;
        state.parts.push_back(part);
    }

    /// Whether to read on. If not, the connection is woken when there is room again.
    pub(crate) fn has_room(&self) -> bool {
        let mut state = lock(&self.state);
        state.paused = state.waiting >= self.high_water;
        !state.paused
    }

    /// The first end counts.
    pub(crate) fn end(&self, result: Result<(), Failure>) {
        lock(&self.state).end(result);
    }

    /// Whether the owner is to be told, which it is once.
    pub(crate) fn tell(&self) -> bool {
        let mut state = lock(&self.state);
        state.has_news() && mem::take(&mut state.armed)
    }

    /// What the owner has not heard of, and whether the request is over with it.
    pub(crate) fn news(&self) -> (Vec<News>, bool) {
        let mut state = lock(&self.state);
        let mut news = Vec::new();
        if let Some(head) = state.head.take() {
            news.push(News::Head(head));
        }
        if let (false, Some(Err(failure))) = (state.answered, state.end) {
            news.push(News::Failed(failure));
            return (news, true);
        }
        if state.has_body() {
            if !mem::replace(&mut state.readable, true) {
                news.push(News::Readable);
            }
        } else {
            state.armed = true;
        }
        (news, false)
    }

    /// Takes parts, beyond the first at most `max_bytes` and at most `max_parts` in all. The waker
    /// is that of a connection that can read on.
    pub(crate) fn take(
        &self,
        max_parts: usize,
        max_bytes: usize,
    ) -> (Vec<Bytes>, Taken, Option<Waker>) {
        let mut state = lock(&self.state);
        let mut parts = Vec::new();
        let mut left = max_bytes;
        while parts.len() < max_parts {
            match state.parts.pop_front() {
                Some(part) if parts.is_empty() || part.len() <= left => {
                    left = left.saturating_sub(part.len());
                    state.waiting = state.waiting.saturating_sub(part.len() + PART);
                    parts.push(part);
                }
                Some(part) => {
                    state.parts.push_front(part);
                    break;
                }
                None => break,
            }
        }
        let waker = if state.paused && state.waiting < self.high_water {
            state.paused = false;
            state.since = Instant::now();
            state.waker.clone()
        } else {
            None
        };
        (parts, state.settle(), waker)
    }

    /// Stops it for an owner that wants nothing more of it, and returns the waker of the connection
    /// that works on it.
    pub(crate) fn cancel(&self) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.stopped = true;
        state.armed = false;
        state.waker.take()
    }

    /// Stops it because its time is over, and returns the waker of the connection that works on
    /// it. Whether it was sent is settled in the same moment: nobody can send it after it.
    pub(crate) fn expire(&self) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.stopped = true;
        let waker = state.waker.take();
        let failure = Failure::new(Error::Timeout, !state.sent);
        state.end(Err(failure));
        waker
    }

    /// When its time will be over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = lock(&self.state);
        if state.end.is_some() || state.stopped {
            return None;
        }
        let wait = match self.timeout {
            Some(timeout) if !state.paused => state.since.checked_add(timeout),
            _ => None,
        };
        match (wait, self.over_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

impl State {
    fn end(&mut self, result: Result<(), Failure>) {
        self.waker = None;
        self.paused = false;
        self.end.get_or_insert(result);
    }

    fn has_body(&self) -> bool {
        self.answered && (!self.parts.is_empty() || self.end.is_some())
    }

    fn has_news(&self) -> bool {
        self.head.is_some() || self.has_body() || self.end.is_some()
    }

    fn settle(&mut self) -> Taken {
        if !self.parts.is_empty() {
            return Taken::More;
        }
        match self.end {
            // A failure without an answer is told of as news.
            Some(Err(failure)) if self.answered => Taken::Failed(failure),
            Some(Ok(())) => Taken::Done,
            _ => {
                if !self.has_news() {
                    self.armed = true;
                }
                self.readable = false;
                // Room for a burst is not kept through quiet times.
                self.parts = VecDeque::new();
                Taken::Armed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(timeout: Option<Duration>) -> Exchange {
        Exchange::new(1, false, 1000, timeout, None, Instant::now())
    }

    fn taken(exchange: &Exchange, max_bytes: usize) -> (Vec<usize>, Taken) {
        let (parts, taken, _) = exchange.take(64, max_bytes);
        (parts.iter().map(Bytes::len).collect(), taken)
    }

    fn part(len: usize) -> Bytes {
        Bytes::from(vec![b'x'; len])
    }

    #[test]
    fn one_notice_until_all_is_taken() {
        let exchange = exchange(None);
        assert!(!exchange.tell());
        exchange.set_head(200, HeaderMap::new());
        assert!(exchange.tell());
        exchange.push(part(1));
        assert!(!exchange.tell());
        let (news, over) = exchange.news();
        assert!(matches!(news[..], [News::Head(_), News::Readable]) && !over);
        exchange.push(part(2));
        assert!(!exchange.tell());
        assert_eq!(taken(&exchange, 100), (vec![1, 2], Taken::Armed));
        exchange.end(Ok(()));
        assert!(exchange.tell());
        assert!(matches!(exchange.news().0[..], [News::Readable]));
        assert_eq!(taken(&exchange, 100), (vec![], Taken::Done));
    }

    #[test]
    fn a_head_without_more_is_told_of_alone() {
        let exchange = exchange(None);
        exchange.set_head(200, HeaderMap::new());
        assert!(exchange.tell());
        assert!(matches!(exchange.news().0[..], [News::Head(_)]));
        assert_eq!(taken(&exchange, 100), (vec![], Taken::Armed));
        assert!(!exchange.tell());
        exchange.push(part(1));
        assert!(exchange.tell());
    }

    #[test]
    fn taking_before_the_head_was_heard_of_loses_no_notice() {
        let exchange = exchange(None);
        assert_eq!(taken(&exchange, 100), (vec![], Taken::Armed));
        exchange.set_head(200, HeaderMap::new());
        assert_eq!(taken(&exchange, 100), (vec![], Taken::Armed));
        assert!(exchange.tell());
    }

    #[test]
    fn takes_are_bounded_beyond_the_first_part() {
        let exchange = exchange(None);
        exchange.set_head(200, HeaderMap::new());
        for len in [50, 10, 10, 10] {
            exchange.push(part(len));
        }
        assert_eq!(taken(&exchange, 1), (vec![50], Taken::More));
        assert_eq!(taken(&exchange, 20), (vec![10, 10], Taken::More));
        assert_eq!(taken(&exchange, 20), (vec![10], Taken::Armed));
    }

    #[test]
    fn a_full_exchange_wakes_its_connection_when_there_is_room() {
        let exchange = exchange(Some(Duration::from_secs(1)));
        assert!(exchange.begin(Waker::noop()));
        exchange.set_head(200, HeaderMap::new());
        exchange.push(part(2000));
        assert!(!exchange.has_room());
        // The server is made to wait, and not at fault.
        assert_eq!(exchange.deadline(), None);
        assert!(exchange.take(1, 1).2.is_some());
        assert!(exchange.deadline().is_some());
        assert!(exchange.has_room());
        assert!(exchange.take(1, 1).2.is_none());
    }

    #[test]
    fn what_was_late_is_safe_if_it_was_not_sent() {
        let failed = |exchange: &Exchange| match exchange.news().0[..] {
            [News::Failed(failure)] => failure.safe,
            _ => panic!("not failed"),
        };
        let queued = exchange(None);
        queued.expire();
        assert!(queued.tell() && failed(&queued));
        assert!(!queued.begin(Waker::noop()));
        let sent = exchange(None);
        assert!(sent.begin(Waker::noop()));
        sent.expire();
        assert!(sent.tell() && !failed(&sent));
    }

    #[test]
    fn nothing_is_told_of_what_was_cancelled() {
        let exchange = exchange(None);
        assert!(exchange.begin(Waker::noop()));
        assert!(exchange.cancel().is_some());
        exchange.set_head(200, HeaderMap::new());
        assert!(!exchange.tell());
        assert!(exchange.is_stopped());
    }
}
