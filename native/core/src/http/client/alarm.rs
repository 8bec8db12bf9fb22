//! Wakers that know whether they are needed.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use atomic_waker::AtomicWaker;

use crate::sync::lock;

const POLLING: u8 = 1;
const WOKEN: u8 = 2;

/// Rounds in one poll. The runtime lets a task do so much at a time and then has it wait for its
/// next turn, which must come.
const ROUNDS: usize = 16;

/// The waker of a connection. What happens to it while it is being looked after wakes nobody: the
/// protocols wake themselves several times in each request, and on another thread than that of
/// the task each time would be a switch.
#[derive(Default)]
pub(crate) struct Alarm {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Alarm {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let alarm = Arc::new(Self::default());
        let waker = Waker::from(alarm.clone());
        (alarm, waker)
    }

    /// Makes a task the one to wake.
    pub(crate) fn belong_to(&self, cx: &Context<'_>) {
        self.task.register(cx.waker());
    }

    /// Repeats `step` for as long as it is woken meanwhile. One thread at a time.
    pub(crate) fn poll(&self, mut step: impl FnMut() -> Poll<()>) -> Poll<()> {
        for _ in 0..ROUNDS {
            self.state.store(POLLING, Ordering::SeqCst);
            let done = step();
            let calm = self
                .state
                .compare_exchange(POLLING, 0, Ordering::SeqCst, Ordering::SeqCst);
            if done.is_ready() || calm.is_ok() {
                return done;
            }
        }
        self.state.store(0, Ordering::SeqCst);
        self.task.wake();
        Poll::Pending
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::SeqCst) & POLLING == 0 {
            self.task.wake();
        }
    }
}

/// The requests of a connection that have something to do.
pub(crate) struct Roll {
    due: Mutex<Vec<u64>>,
    connection: Waker,
}

impl Roll {
    pub(crate) fn new(connection: Waker) -> Arc<Self> {
        Arc::new(Self {
            due: Mutex::new(Vec::new()),
            connection,
        })
    }

    /// A waker that enters a request.
    pub(crate) fn waker(self: &Arc<Self>, request: u64) -> (Arc<Entry>, Waker) {
        let entry = Arc::new(Entry {
            request,
            entered: AtomicBool::new(false),
            roll: self.clone(),
        });
        let waker = Waker::from(entry.clone());
        (entry, waker)
    }

    pub(crate) fn take(&self) -> Vec<u64> {
        mem::take(&mut lock(&self.due))
    }
}

/// A request's place in the roll.
pub(crate) struct Entry {
    request: u64,
    entered: AtomicBool,
    roll: Arc<Roll>,
}

impl Entry {
    /// To be called before what the entry is about is looked at.
    pub(crate) fn clear(&self) {
        self.entered.store(false, Ordering::SeqCst);
    }
}

impl Wake for Entry {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.entered.swap(true, Ordering::SeqCst) {
            lock(&self.roll.due).push(self.request);
            self.roll.connection.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(AtomicU8);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn wakes_the_task_only_when_nobody_looks() {
        let task = Arc::new(Count(AtomicU8::new(0)));
        let task_waker = Waker::from(task.clone());
        let (alarm, waker) = Alarm::new();
        alarm.belong_to(&Context::from_waker(&task_waker));
        let mut rounds = 0;
        let _ = alarm.poll(|| {
            rounds += 1;
            if rounds < 3 {
                waker.wake_by_ref();
            }
            Poll::Pending
        });
        assert_eq!((rounds, task.0.load(Ordering::SeqCst)), (3, 0));
        waker.wake_by_ref();
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_step_without_end_gets_another_turn() {
        let task = Arc::new(Count(AtomicU8::new(0)));
        let task_waker = Waker::from(task.clone());
        let (alarm, waker) = Alarm::new();
        alarm.belong_to(&Context::from_waker(&task_waker));
        let pending = alarm.poll(|| {
            waker.wake_by_ref();
            Poll::Pending
        });
        assert!(pending.is_pending());
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_request_is_entered_once() {
        let (_alarm, waker) = Alarm::new();
        let roll = Roll::new(waker);
        let (entry, waker) = roll.waker(7);
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(roll.take(), [7]);
        waker.wake_by_ref();
        assert!(roll.take().is_empty());
        entry.clear();
        waker.wake_by_ref();
        assert_eq!(roll.take(), [7]);
    }
}
