//! The task behind a connection: reads ahead, writes what is queued, and ends.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use crate::connection::Shared;
use crate::error::Error;
use crate::frame::{Item, Splitter};
use crate::inbox::Batch;
use crate::metrics;
use crate::read_size::{MAX, ReadSize};
use crate::sync::lock;
use crate::wire::Wire;

/// Time for the notice of the end (TLS close_notify, FIN) to leave.
const SHUTDOWN: Duration = Duration::from_secs(1);

pub(crate) struct Driver {
    shared: Arc<Shared>,
    wire: Wire,
    reader: Reader,
}

/// Where the task stands.
enum Step {
    /// This side has closed the connection.
    Closing,
    Ended(Error),
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, wire: Wire) -> Self {
        let reader = Reader::new(&shared);
        Self {
            shared,
            wire,
            reader,
        }
    }

    /// Runs to the end of the connection and returns its reason.
    pub(crate) async fn run(mut self) -> Error {
        let reason = match poll_fn(|cx| self.poll(cx)).await {
            Step::Closing => Error::Closed,
            Step::Ended(reason) => {
                self.shared.end_receiving(reason);
                reason
            }
        };
        self.reader.drop_buffer();
        if matches!(reason, Error::Closed | Error::FrameTooLarge) {
            // In a box: an open connection should not hold room for its end.
            Box::pin(self.finish()).await;
        }
        reason
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.shared.waker.register(cx.waker());
        if lock(&self.shared.outbox).closing() {
            return Poll::Ready(Step::Closing);
        }
        if let Err(error) = self.poll_send(cx) {
            return Poll::Ready(Step::Ended(error));
        }
        loop {
            if self.reader.done
                || lock(&self.shared.inbox).waiting() >= self.shared.limits.high_water
            {
                return Poll::Pending;
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Step::Ended(error)),
                Poll::Pending => {
                    self.reader.idle();
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
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
        let room = self.reader.room();
        let read = match self.wire.poll_read(cx, &mut self.reader.buf, room) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(n)) => n,
        };
        if read == 0 {
            self.reader.done = true;
            if !self.shared.limits.half_close {
                return Poll::Ready(Err(Error::Closed));
            }
            self.shared.eof();
            return Poll::Ready(Ok(()));
        }
        self.shared.counters.bytes_in(read);
        let (batch, result) = self.reader.split(read, room);
        if let Some(batch) = batch {
            self.shared.deliver(batch);
        }
        Poll::Ready(result)
    }

    /// Sends what is queued, for as long as `linger` allows, and says goodbye. What the peer has
    /// sent meanwhile is read and dropped: closing a socket with unread data resets the
    /// connection, and the reset can destroy what was just sent.
    async fn finish(mut self) {
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
        let mut scratch = BytesMut::new();
        poll_fn(|cx| {
            let mut budget = 64;
            while budget > 0 {
                budget -= 1;
                scratch.clear();
                match self.wire.poll_read(cx, &mut scratch, 4096) {
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    _ => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

struct Reader {
    buf: BytesMut,
    splitter: Splitter,
    size: ReadSize,
    /// The peer will send nothing more.
    done: bool,
}

impl Reader {
    fn new(shared: &Shared) -> Self {
        let limits = &shared.limits;
        Self {
            buf: BytesMut::new(),
            splitter: Splitter::new(limits.framing, limits.max_frame, limits.on_oversize),
            size: ReadSize::new(),
            done: false,
        }
    }

    /// Room for the next read. For a frame of known length all that is missing of it, within
    /// reason: a peer that announces much and sends little must not make us allocate much.
    fn room(&self) -> usize {
        let size = self.size.get();
        match self.splitter.wanted(&self.buf) {
            Some(wanted) => wanted.saturating_sub(self.buf.len()).clamp(size, MAX),
            None => size,
        }
    }

    fn split(&mut self, read: usize, room: usize) -> (Option<Batch>, Result<(), Error>) {
        self.size.record(read, room);
        let mut items: Vec<Item> = Vec::new();
        let (done, result) = self.splitter.split(&self.buf, &mut items);
        let data = self.buf.split_to(done).freeze();
        if result.is_err() {
            metrics::frames_oversized.add(1);
        }
        let batch = if items.is_empty() {
            None
        } else {
            Some(Batch { data, items })
        };
        (batch, result)
    }

    /// Nothing is coming in: give back what the last burst needed.
    fn idle(&mut self) {
        if self.buf.is_empty() {
            self.drop_buffer();
        }
    }

    fn drop_buffer(&mut self) {
        self.buf = BytesMut::new();
    }
}
