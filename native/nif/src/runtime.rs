//! The one tokio runtime of the VM, made at first use.

use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::sync::OnceCell;
use rustler::{Error, NifResult};
use tokio::runtime::{Builder, Handle, Runtime};

static RUNTIME: OnceCell<Runtime> = OnceCell::new();
static WORKERS: AtomicUsize = AtomicUsize::new(2);

/// A runtime that cannot be made (no threads left) is `badarg` to the caller and tried again.
pub(crate) fn handle() -> NifResult<Handle> {
    let runtime = RUNTIME.get_or_try_init(|| {
        Builder::new_multi_thread()
            .worker_threads(WORKERS.load(Ordering::Relaxed))
            .thread_name("erlmcp_native")
            .enable_all()
            .build()
    });
    runtime
        .map(|runtime| runtime.handle().clone())
        .map_err(|_| Error::BadArg)
}

/// The runtime, if it has been made: to look at it is no reason to make it.
pub(crate) fn started() -> Option<Handle> {
    RUNTIME.get().map(|runtime| runtime.handle().clone())
}

/// Sets the number of worker threads; `false` if the runtime runs already.
#[rustler::nif]
fn set_workers(workers: usize) -> NifResult<bool> {
    if workers == 0 || workers > 1024 {
        return Err(Error::BadArg);
    }
    WORKERS.store(workers, Ordering::Relaxed);
    Ok(RUNTIME.get().is_none())
}
