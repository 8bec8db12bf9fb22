//! Events to the process that owns a connection or a listener.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use erlmcp_core::{Event, Sink};
use rustler::{Encoder, LocalPid, OwnedEnv};

use crate::terms;

/// The owner, shared by the resource, which changes it, and the sink, which sends to it.
///
/// A message names its connection by number: a term of the resource in the hands of a task would
/// keep the resource from being collected.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) id: u64,
    pid: Arc<Mutex<LocalPid>>,
}

impl Owner {
    pub(crate) fn new(pid: LocalPid) -> Self {
        Self {
            id: next_id(),
            pid: Arc::new(Mutex::new(pid)),
        }
    }

    pub(crate) fn set(&self, pid: LocalPid) {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }

    pub(crate) fn get(&self) -> LocalPid {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that messages name a resource by.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Sink for Owner {
    fn emit(&self, event: Event) {
        let event = match event {
            Event::Ready => terms::ready(),
            Event::Writable => terms::writable(),
        };
        let owner = self.get();
        send(&owner, (terms::erlmcp_native_io(), self.id, event));
    }
}

/// Sends from a thread of the runtime.
pub(crate) fn send(to: &LocalPid, message: impl Encoder) {
    thread_local! {
        static ENV: RefCell<OwnedEnv> = RefCell::new(OwnedEnv::new());
    }
    // A receiver that is gone takes no message; its monitor closes what it owned.
    let _ = ENV.with_borrow_mut(|env| env.send_and_clear(to, |_| message));
}
