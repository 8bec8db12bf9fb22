//! The task behind a connection: reads ahead, writes what is queued, and ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep, timeout};

use crate::child::{Lines, Process, exit_within};
use crate::connection::Shared;
use crate::cork::Watch;
use crate::error::Error;
use crate::sync::lock;
use crate::wire::Wire;

/// Time for the notice of the end (TLS close_notify, FIN) to leave.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Between the end of a child's output and its own: what the owner is told says how it ended.
const EXIT: Duration = Duration::from_millis(500);

/// For the last lines of a child's standard error, which others may hold open, to come before the
/// word of its end.
const LINES: Duration = Duration::from_millis(100);

/// How much may wait before the owner hears of it while the socket has more to give. Telling it
/// of each read would wake it more often than it has work for.
const UNTOLD: usize = 64 * 1024;

/// An owner that has not come back after this long has something else to do.
const LATE: Duration = Duration::from_millis(1);

pub(crate) struct Driver {
    shared: Arc<Shared>,
    wire: Wire,
    /// When to look whether the owner has written what was left to it.
    look: Option<Pin<Box<Sleep>>>,
    /// Dropped after the wire: then its standard input is closed.
    child: Option<Box<Child>>,
}

/// The child process at the other end.
pub(crate) struct Child {
    process: Process,
    lines: Lines,
    exit: Pin<Box<dyn Future<Output = ()> + Send>>,
    gone: bool,
}

impl Child {
    pub(crate) fn new(process: Process, lines: Lines) -> Self {
        let mut exit = process.exit();
        Self {
            process,
            lines,
            exit: Box::pin(async move {
                let _ = exit.wait_for(Option::is_some).await;
            }),
            gone: false,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

/// Where the task stands.
enum Step {
    /// This side has closed the connection.
    Closing,
    Ended(Error),
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, wire: Wire, child: Option<Child>) -> Self {
        Self {
            shared,
            wire,
            look: None,
            child: child.map(Box::new),
        }
    }

    /// Runs to the end of the connection and returns its reason.
    pub(crate) async fn run(mut self) -> Error {
        let reason = match poll_fn(|cx| self.poll(cx)).await {
            Step::Closing => Error::Closed,
            Step::Ended(reason) => {
                let reason = self.shared.true_reason(reason);
                // In a box: an open connection should not hold room for its end.
                let reason = Box::pin(self.explain(reason)).await;
                self.shared.end_receiving(reason);
                reason
            }
        };
        lock(&self.shared.reader).drop_buffer();
        if matches!(reason, Error::Closed | Error::FrameTooLarge) {
            Box::pin(self.finish()).await;
        }
        if let Some(child) = self.child.take() {
            Box::pin(see_off(self.wire, child, &self.shared)).await;
        }
        reason
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.shared.waker.register(cx.waker());
        if lock(&self.shared.outbox).closing() {
            return Poll::Ready(Step::Closing);
        }
        if let Some(child) = &mut self.child
            && !child.gone
        {
            child.gone = child.exit.as_mut().poll(cx).is_ready();
        }
        if let Err(error) = self.poll_send(cx) {
            if self.child.is_none() {
                return Poll::Ready(Step::Ended(error));
            }
            // What it still has to say is worth reading, and its exit tells more.
            let refused = lock(&self.shared.outbox).deafen();
            if refused {
                self.shared.emit_writable();
            }
        }
        let step = self.poll_receive_all(cx);
        self.shared.tell_waiting();
        step
    }

    fn poll_receive_all(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let mut inbox = lock(&self.shared.inbox);
            let waiting = inbox.waiting();
            if inbox.is_full() || inbox.is_claimed() {
                return Poll::Pending;
            }
            drop(inbox);
            if waiting >= UNTOLD {
                self.shared.tell_waiting();
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Step::Ended(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether what is queued is left to the owner, who writes it with its next take.
    fn is_left_to_owner(&mut self, cx: &mut Context<'_>) -> bool {
        if !lock(&self.shared.outbox).cork.is_watched() {
            return false;
        }
        loop {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LATE)));
            if look.as_mut().poll(cx).is_pending() {
                return lock(&self.shared.outbox).cork.is_on();
            }
            self.look = None;
            let mut outbox = lock(&self.shared.outbox);
            let empty = outbox.is_empty();
            match outbox.cork.look(empty) {
                Watch::Go => {}
                Watch::Write | Watch::Stop => return false,
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.is_left_to_owner(cx) {
            return Ok(());
        }
        if self.wire.is_flushed() && lock(&self.shared.outbox).is_empty() {
            return Ok(());
        }
        let (room, result) = self.wire.poll_write(cx, &self.shared.outbox);
        if room {
            self.shared.emit_writable();
        }
        match result {
            Poll::Ready(Err(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut reader = lock(&self.shared.reader);
        if let Some(error) = reader.failed.take() {
            return Poll::Ready(Err(error));
        }
        let gone = self.child.as_ref().is_some_and(|child| child.gone);
        if reader.done {
            return if gone {
                Poll::Ready(Err(Error::Closed))
            } else {
                Poll::Pending
            };
        }
        match self.wire.poll_read(cx, &mut reader) {
            // Others may hold its output open.
            Poll::Pending if gone => match self.wire.read_rest(&mut reader)? {
                0 => Poll::Ready(Err(Error::Closed)),
                read => Poll::Ready(self.shared.received(&mut reader, read)),
            },
            Poll::Pending => {
                reader.idle();
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(read)) => Poll::Ready(self.shared.received(&mut reader, read)),
        }
    }

    /// The end of a child's output is seldom the news: its exit is.
    async fn explain(&mut self, reason: Error) -> Error {
        let ends = self
            .child
            .as_ref()
            .filter(|_| reason == Error::Closed)
            .map(|child| (child.process.exit(), child.lines.clone()));
        let Some((mut exit, lines)) = ends else {
            return reason;
        };
        let exit = exit_within(&mut exit, EXIT).await;
        let _ = timeout(LINES, lines.ended()).await;
        exit.map_or(reason, Error::from)
    }

    /// Sends what is queued, for as long as `linger` allows, and says goodbye. What the peer has
    /// sent meanwhile is read and dropped: closing a socket with unread data resets the
    /// connection, and the reset can destroy what was just sent.
    async fn finish(&mut self) {
        let linger = self.shared.limits.linger;
        let flush = poll_fn(|cx| self.wire.poll_write(cx, &self.shared.outbox).1);
        if !matches!(timeout(linger, flush).await, Ok(Ok(()))) {
            return;
        }
        if !matches!(
            timeout(SHUTDOWN, poll_fn(|cx| self.wire.poll_shutdown(cx))).await,
            Ok(Ok(()))
        ) {
            return;
        }
        let mut scratch = vec![0; 4096];
        poll_fn(|cx| {
            let mut budget = 64;
            while budget > 0 {
                budget -= 1;
                match self.wire.poll_discard(cx, &mut scratch) {
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    _ => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// Has a child end. It may still have something to say, and be harmed if nobody read it.
async fn see_off(mut wire: Wire, mut child: Box<Child>, shared: &Shared) {
    let _ = timeout(SHUTDOWN, poll_fn(|cx| wire.poll_shutdown(cx))).await;
    child.process.stop();
    poll_fn(|cx| {
        while !child.gone {
            child.gone = child.exit.as_mut().poll(cx).is_ready();
            let mut reader = lock(&shared.reader);
            match wire.poll_read(cx, &mut reader) {
                Poll::Ready(Ok(read)) if read > 0 => reader.buf.clear(),
                Poll::Pending if !child.gone => return Poll::Pending,
                _ => break,
            }
        }
        Poll::Ready(())
    })
    .await;
    lock(&shared.reader).drop_buffer();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl FnOnce(Driver) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn open_connections_hold_no_room_for_their_end() {
        assert!(size(Driver::run) <= 128);
    }
}
