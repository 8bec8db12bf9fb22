//! What the owner and the tasks of a client do to the pool.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify as Signal;

use super::connect::{self, Tunnel};
use super::exchange::Exchange;
use super::pool::{Due, Idle, Multiplexed, Plan, Pool, Protocol};
use super::request::{Job, Origin};
use super::{Counts, Failure, News, Notify, Options, Request, Taken, clock, h1};
use crate::error::Error;
use crate::metrics::{self, Transport};
use crate::sync::lock;

/// What the owner and the tasks of a client share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) origin: Origin,
    pub(crate) tunnel: Tunnel,
    runtime: Handle,
    notify: Box<dyn Notify>,
    pool: Mutex<Pool>,
    /// The client is closed: its tasks end.
    pub(crate) gone: Signal,
    /// There is something to be done earlier than the clock thinks.
    pub(crate) sooner: Signal,
}

impl Shared {
    pub(crate) fn new(
        runtime: Handle,
        notify: Box<dyn Notify>,
        options: Options,
    ) -> Result<Self, Error> {
        let protocol = if options.http2 && (options.tls.is_some() || !options.http1) {
            Protocol::Single
        } else {
            Protocol::Http1
        };
        Ok(Self {
            origin: Origin::new(&options)?,
            tunnel: Tunnel::new(&options)?,
            options,
            runtime,
            notify,
            pool: Mutex::new(Pool {
                protocol,
                ..Pool::default()
            }),
            gone: Signal::new(),
            sooner: Signal::new(),
        })
    }

    pub(crate) fn request(self: &Arc<Self>, request: Request) -> Result<u64, Error> {
        let now = Instant::now();
        let mut pool = lock(&self.pool);
        pool.last_id += 1;
        let id = pool.last_id;
        let exchange = Arc::new(Exchange::new(
            id,
            request.method.is_idempotent(),
            self.options.high_water,
            request.timeout,
            request.total_timeout,
            now,
        ));
        let deadline = exchange.deadline();
        let request = Box::new(request);
        let plan = pool.submit(Job { exchange, request }, &self.options)?;
        let sooner = pool.look_at(deadline);
        let start = !std::mem::replace(&mut pool.ticking, true);
        drop(pool);
        metrics::http_client_requests.add(1);
        if start {
            self.runtime.spawn(clock::run(self.clone()));
        } else if sooner {
            self.sooner.notify_one();
        }
        match plan {
            Plan::Give(link, job) => self.give(&link, job),
            Plan::Wake(waker) => waker.wake(),
            Plan::Dial(upto) => self.dial(upto),
            Plan::Wait => {}
        }
        Ok(id)
    }

    fn give(self: &Arc<Self>, link: &Arc<h1::Link>, job: Job) {
        if let Err(job) = link.start(job, self) {
            self.requeue(job);
        }
    }

    fn dial(self: &Arc<Self>, upto: u64) {
        self.runtime.spawn(connect::run(self.clone(), upto));
    }

    /// Makes the connections that are wanted.
    pub(crate) fn dial_more(self: &Arc<Self>) {
        loop {
            let upto = lock(&self.pool).dial(&self.options);
            match upto {
                Some(upto) => self.dial(upto),
                None => return,
            }
        }
    }

    /// Puts a request that was not sent before those that wait.
    pub(crate) fn requeue(self: &Arc<Self>, job: Job) {
        job.exchange.give_back();
        if job.exchange.is_stopped() {
            return;
        }
        let mut pool = lock(&self.pool);
        if pool.closed {
            return;
        }
        if let Some(idle) = pool.idle.pop() {
            pool.busy += 1;
            drop(pool);
            return self.give(&idle.link, job);
        }
        pool.queue.push_front(job);
        let waker = pool.multiplexed.as_ref().map(|link| link.waker.clone());
        drop(pool);
        match waker {
            Some(waker) => waker.wake(),
            None => self.dial_more(),
        }
    }

    /// Tells the owner of what a request has for it. Not from a thread of the owner's.
    pub(crate) fn tell(&self, exchange: &Exchange) {
        if exchange.tell() {
            self.notify.ready(exchange.id);
        }
    }

    pub(crate) fn fail(&self, exchange: &Exchange, failure: Failure) {
        exchange.end(Err(failure));
        self.tell(exchange);
    }

    fn exchange(&self, id: u64) -> Option<Arc<Exchange>> {
        lock(&self.pool).exchanges.get(&id).cloned()
    }

    fn forget(&self, id: u64) {
        let gone = lock(&self.pool).exchanges.remove(&id);
        drop(gone);
    }

    pub(crate) fn news(&self, id: u64) -> Vec<News> {
        let Some(exchange) = self.exchange(id) else {
            return Vec::new();
        };
        let (news, over) = exchange.news();
        if over {
            self.forget(id);
        }
        news
    }

    pub(crate) fn take(
        &self,
        id: u64,
        max_parts: usize,
        max_bytes: usize,
    ) -> Option<(Vec<Bytes>, Taken)> {
        let exchange = self.exchange(id)?;
        let (parts, taken, waker) = exchange.take(max_parts, max_bytes);
        match taken {
            Taken::Done | Taken::Failed(_) => self.forget(id),
            Taken::More | Taken::Armed => {}
        }
        if let Some(waker) = waker {
            waker.wake();
            // The time for the next part begins anew.
            let sooner = lock(&self.pool).look_at(exchange.deadline());
            if sooner {
                self.sooner.notify_one();
            }
        }
        Some((parts, taken))
    }

    pub(crate) fn cancel(&self, id: u64) {
        let mut pool = lock(&self.pool);
        let Some(exchange) = pool.exchanges.remove(&id) else {
            return;
        };
        let waiting = pool.queue.iter().position(|job| job.exchange.id == id);
        let job = waiting.and_then(|place| pool.queue.remove(place));
        drop(pool);
        drop(job);
        if let Some(waker) = exchange.cancel() {
            waker.wake();
        }
    }

    /// Ends a request whose time is over. Not from a thread of the owner's.
    pub(crate) fn expire(&self, exchange: &Exchange) {
        let mut pool = lock(&self.pool);
        let waiting = pool
            .queue
            .iter()
            .position(|job| job.exchange.id == exchange.id);
        let job = waiting.and_then(|place| pool.queue.remove(place));
        drop(pool);
        drop(job);
        if let Some(waker) = exchange.expire() {
            waker.wake();
        }
        self.tell(exchange);
    }

    pub(crate) fn counts(&self) -> Counts {
        let pool = lock(&self.pool);
        let streams = pool.multiplexed.as_ref().map_or(0, |link| link.streams);
        // A request for which a connection is being made does not wait for another one.
        let dialling = pool.dials.min(pool.queue.len());
        Counts {
            connections: pool.open,
            active: pool.busy + streams + dialling,
            queued: pool.queue.len() - dialling,
        }
    }

    pub(crate) fn close(&self) {
        let mut pool = lock(&self.pool);
        pool.closed = true;
        let queue = std::mem::take(&mut pool.queue);
        let exchanges = std::mem::take(&mut pool.exchanges);
        let idle = std::mem::take(&mut pool.idle);
        drop(pool);
        drop((queue, exchanges, idle));
        self.gone.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.pool).closed
    }

    pub(crate) fn due(&self, now: Instant) -> Due {
        lock(&self.pool).due(now)
    }

    /// A dial has failed: so have the requests it was for, if there is no other connection for them.
    pub(crate) fn dial_failed(self: &Arc<Self>, upto: u64, failure: Failure) {
        metrics::connections_failed.add(Transport::Http, 1);
        let mut pool = lock(&self.pool);
        pool.dials -= 1;
        if pool.open > 0 {
            return;
        }
        let queue = std::mem::take(&mut pool.queue);
        let (failed, others): (VecDeque<_>, VecDeque<_>) =
            queue.into_iter().partition(|job| job.exchange.id <= upto);
        pool.queue = others;
        drop(pool);
        for job in failed {
            self.fail(&job.exchange, failure);
        }
        self.dial_more();
    }

    /// A connection over HTTP/1.1 stands, and is busy until it asks for more.
    pub(crate) fn opened(&self) {
        metrics::connections_opened.add(Transport::Http, 1);
        let mut pool = lock(&self.pool);
        pool.dials -= 1;
        pool.open += 1;
        pool.busy += 1;
        pool.protocol = Protocol::Http1;
    }

    /// The next request for a connection, which is idle if there is none.
    pub(crate) fn next(&self, link: &Arc<h1::Link>) -> Option<Job> {
        let mut pool = lock(&self.pool);
        if let Some(job) = pool.queue.pop_front() {
            return Some(job);
        }
        if !pool.closed {
            let until = Instant::now() + self.options.idle_timeout;
            pool.busy -= 1;
            pool.idle.push(Idle {
                link: link.clone(),
                until,
            });
            let sooner = pool.look_at(Some(until));
            drop(pool);
            if sooner {
                self.sooner.notify_one();
            }
        }
        None
    }

    pub(crate) fn ended(self: &Arc<Self>, link: &Arc<h1::Link>) {
        metrics::connections_ended.add(Transport::Http, 1);
        let mut pool = lock(&self.pool);
        pool.open -= 1;
        let place = pool
            .idle
            .iter()
            .position(|idle| Arc::ptr_eq(&idle.link, link));
        match place {
            Some(place) => drop(pool.idle.remove(place)),
            None => pool.busy = pool.busy.saturating_sub(1),
        }
        drop(pool);
        self.dial_more();
    }

    /// A connection over HTTP/2 stands.
    pub(crate) fn multiplexed(&self, link: Multiplexed) {
        metrics::connections_opened.add(Transport::Http, 1);
        let mut pool = lock(&self.pool);
        pool.dials -= 1;
        pool.open += 1;
        pool.multiplexed = Some(link);
    }

    /// The next request for the connection with this waker.
    pub(crate) fn next_stream(&self, waker: &Waker, limit: usize) -> Option<Job> {
        let mut pool = lock(&self.pool);
        let link = pool.multiplexed.as_mut();
        let link = link.filter(|link| link.waker.will_wake(waker))?;
        link.limit = limit;
        if link.streams >= limit {
            return None;
        }
        let job = pool.queue.pop_front()?;
        if let Some(link) = pool.multiplexed.as_mut() {
            link.streams += 1;
            link.idle_until = None;
        }
        Some(job)
    }

    pub(crate) fn stream_ended(&self, waker: &Waker) {
        let mut pool = lock(&self.pool);
        let until = Instant::now() + self.options.idle_timeout;
        let link = pool.multiplexed.as_mut();
        let Some(link) = link.filter(|link| link.waker.will_wake(waker)) else {
            return;
        };
        link.streams = link.streams.saturating_sub(1);
        if link.streams > 0 {
            return;
        }
        link.idle_until = Some(until);
        if pool.look_at(Some(until)) {
            drop(pool);
            self.sooner.notify_one();
        }
    }

    /// The connection with this waker takes no more requests.
    pub(crate) fn leaving(self: &Arc<Self>, waker: &Waker) {
        let mut pool = lock(&self.pool);
        let link = pool.multiplexed.take();
        match link {
            Some(link) if !link.waker.will_wake(waker) => pool.multiplexed = Some(link),
            _ => {}
        }
        drop(pool);
        self.dial_more();
    }

    pub(crate) fn multiplexed_ended(self: &Arc<Self>, waker: &Waker) {
        metrics::connections_ended.add(Transport::Http, 1);
        lock(&self.pool).open -= 1;
        self.leaving(waker);
    }
}
