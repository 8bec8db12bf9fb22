//! The task that knows when time is over: for requests, and for connections that are not used.

use std::sync::Arc;
use std::time::Instant;

use super::shared::Shared;
use crate::metrics;

/// One timer does for all. Times that move on with each part of a body are looked at when the first
/// of them has come, so that a request which keeps to its time costs no timer.
pub(crate) async fn run(shared: Arc<Shared>) {
    let _task = metrics::native_tasks.live();
    loop {
        let mut gone = std::pin::pin!(shared.gone.notified());
        gone.as_mut().enable();
        let due = shared.due(Instant::now());
        if due.closed {
            return;
        }
        for exchange in &due.overdue {
            shared.expire(exchange);
        }
        for link in due.unused {
            link.retire();
        }
        if let Some(link) = due.unused_streams {
            link.retire();
        }
        tokio::select! {
            () = gone => return,
            () = shared.sooner.notified() => {}
            () = at(due.next) => {}
        }
    }
}

async fn at(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next.into()).await,
        None => std::future::pending().await,
    }
}
