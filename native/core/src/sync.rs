//! A mutex that survives a panic of its holder: the state it guards is valid at every unlock, and
//! a defect in one connection must not become a second panic in its owner's process.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
