//! Which request goes to which connection, and when there is to be another one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Instant;

use super::exchange::Exchange;
use super::request::Job;
use super::{Options, h1};
use crate::error::Error;

/// Streams that a peer is taken to allow before it has said so, as h2 does.
pub(crate) const STREAMS: usize = 100;

/// The connections of a client and the requests for them: decisions, which [`Shared`] carries out.
///
/// [`Shared`]: super::shared::Shared
#[derive(Default)]
pub(super) struct Pool {
    pub(super) closed: bool,
    pub(super) last_id: u64,
    pub(super) exchanges: HashMap<u64, Arc<Exchange>>,
    pub(super) queue: VecDeque<Job>,
    /// The one used last is used next, so that those that are not needed grow old.
    pub(super) idle: Vec<Idle>,
    pub(super) dials: usize,
    pub(super) open: usize,
    pub(super) busy: usize,
    pub(super) protocol: Protocol,
    /// The HTTP/2 connection that takes new requests.
    pub(super) multiplexed: Option<Multiplexed>,
    pub(super) ticking: bool,
    pub(super) wake_at: Option<Instant>,
}

/// What the origin speaks, as far as it is known.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2 or not known: one connection may do for all.
    #[default]
    Single,
    Http1,
}

pub(super) struct Idle {
    pub(super) link: Arc<h1::Link>,
    pub(super) until: Instant,
}

pub(crate) struct Multiplexed {
    pub(crate) waker: Waker,
    pub(crate) retired: Arc<AtomicBool>,
    pub(crate) streams: usize,
    pub(crate) limit: usize,
    pub(crate) idle_until: Option<Instant>,
}

impl Multiplexed {
    /// Closes the connection, which is idle.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.waker.wake_by_ref();
    }
}

/// What to do once the pool is unlocked.
pub(super) enum Plan {
    Give(Arc<h1::Link>, Job),
    Wake(Waker),
    Dial(u64),
    Wait,
}

/// What is to be done now, and when the next time is.
#[derive(Default)]
pub(crate) struct Due {
    pub(crate) overdue: Vec<Arc<Exchange>>,
    pub(crate) unused: Vec<Arc<h1::Link>>,
    pub(crate) unused_streams: Option<Multiplexed>,
    pub(crate) next: Option<Instant>,
    pub(crate) closed: bool,
}

impl Pool {
    /// Requests that could be sent if the connections for them stood.
    fn room(&self, options: &Options) -> usize {
        match &self.multiplexed {
            Some(link) => link.limit.saturating_sub(link.streams),
            None => options.max_connections.saturating_sub(self.busy),
        }
    }

    pub(super) fn submit(&mut self, job: Job, options: &Options) -> Result<Plan, Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        let exchange = job.exchange.clone();
        let plan = if let Some(idle) = self.idle.pop() {
            self.busy += 1;
            Plan::Give(idle.link, job)
        } else if self.queue.len() >= options.max_queue.saturating_add(self.room(options)) {
            return Err(Error::Busy);
        } else {
            self.queue.push_back(job);
            match &self.multiplexed {
                Some(link) => Plan::Wake(link.waker.clone()),
                None => self.dial(options).map_or(Plan::Wait, Plan::Dial),
            }
        };
        self.exchanges.insert(exchange.id, exchange);
        Ok(plan)
    }

    /// Whether another connection is to be made; its failure is that of the requests up to the one
    /// returned.
    pub(super) fn dial(&mut self, options: &Options) -> Option<u64> {
        let wanted = match self.protocol {
            Protocol::Http1 => self.dials + self.open < options.max_connections,
            Protocol::Single => self.dials == 0 && self.multiplexed.is_none(),
        };
        if self.closed || !wanted || self.dials >= self.queue.len() {
            return None;
        }
        self.dials += 1;
        self.queue
            .get(self.dials - 1)
            .map(|job| match self.protocol {
                Protocol::Http1 => job.exchange.id,
                Protocol::Single => self.last_id,
            })
    }

    /// Remembers to look at this time; whether the clock has to hear of it.
    pub(super) fn look_at(&mut self, at: Option<Instant>) -> bool {
        match (at, self.wake_at) {
            (Some(at), Some(set)) if at >= set => false,
            (None, _) => false,
            (Some(at), _) => {
                self.wake_at = Some(at);
                true
            }
        }
    }

    /// What has to be done by this time; it is out of the pool then.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due {
            closed: self.closed,
            ..Due::default()
        };
        let mut next: Option<Instant> = None;
        let mut later = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for exchange in self.exchanges.values() {
            match exchange.deadline() {
                Some(at) if at <= now => due.overdue.push(exchange.clone()),
                Some(at) => later(at),
                None => {}
            }
        }
        // The oldest come first.
        let old = self.idle.iter().take_while(|idle| idle.until <= now);
        let old = old.count();
        due.unused = self.idle.drain(..old).map(|idle| idle.link).collect();
        self.busy += due.unused.len();
        if let Some(idle) = self.idle.first() {
            later(idle.until);
        }
        match self.multiplexed.as_ref().and_then(|link| link.idle_until) {
            Some(at) if at <= now => due.unused_streams = self.multiplexed.take(),
            Some(at) => later(at),
            None => {}
        }
        due.next = next;
        self.wake_at = next;
        due
    }
}
