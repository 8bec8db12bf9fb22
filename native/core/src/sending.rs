//! How a connection sends: on its caller's thread, where that is soonest, or through its queue.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use crate::connection::{Message, Shared};
use crate::error::Error;
use crate::frame::{Envelope, envelope};
use crate::json::Role;
use crate::metrics;
use crate::outbox::{Outbox, Priority, Queued};
use crate::stream::WriteHalf;
use crate::sync::lock;
use crate::wire::GATHER;

/// The most that is written at once on the thread of a sender or an owner; about 0.1 ms on
/// loopback. The rest is queued, however much room the socket has.
const DIRECT_WRITE: usize = 256 * 1024;

/// What is left to the owner before its sender writes it itself, in bytes.
const GATHERED: usize = 64 * 1024;

impl Shared {
    /// Sends a message, or refuses it whole.
    pub(crate) fn send<M: Message>(&self, message: M, priority: Priority) -> Result<(), Error> {
        let envelope = envelope(
            self.limits.framing,
            self.limits.max_frame,
            message.as_slice(),
        )?;
        let mut outbox = lock(&self.outbox);
        let left = outbox.cork.is_on() && outbox.cork.sends(Instant::now());
        let mut room = false;
        let wake = if outbox.is_empty() && !left {
            self.begin(message, &envelope, &mut outbox)?;
            !outbox.is_empty()
        } else {
            self.queue(message, &envelope, priority, &mut outbox)?;
            if outbox.cork.is_on() && (!left || outbox.bytes() >= GATHERED) {
                room = self.write_queued(&mut outbox);
            }
            !outbox.is_empty() && (!left || outbox.cork.queued())
        };
        drop(outbox);
        if room {
            self.emit_writable();
        }
        if wake {
            self.waker.wake();
        }
        Ok(())
    }

    /// Writes what the socket takes, and queues the rest, of which nobody gets ahead.
    fn begin<M: Message>(
        &self,
        message: M,
        envelope: &Envelope,
        outbox: &mut Outbox,
    ) -> Result<(), Error> {
        let body = message.as_slice();
        let len = body.len() + envelope.len();
        outbox.admit(len, false)?;
        self.count_sent(body.len(), len);
        let prefix = envelope
            .prefix
            .as_ref()
            .map_or(&[][..], |prefix| &prefix[..]);
        let parts = [prefix, body, envelope.suffix];
        let written = match self.direct.get() {
            Some(half) => self.write_now(half, &within(parts, DIRECT_WRITE)),
            None => 0,
        };
        if written == len {
            return Ok(());
        }
        let body_len = body.len();
        let body_from = written.saturating_sub(prefix.len());
        let suffix_from = body_from.saturating_sub(body_len);
        outbox.begin([
            Bytes::copy_from_slice(prefix.get(written..).unwrap_or_default()),
            message.into_bytes(body_from),
            Bytes::from_static(envelope.suffix.get(suffix_from..).unwrap_or_default()),
        ]);
        Ok(())
    }

    /// Queues it where its priority puts it.
    fn queue<M: Message>(
        &self,
        message: M,
        envelope: &Envelope,
        priority: Priority,
        outbox: &mut Outbox,
    ) -> Result<(), Error> {
        let body_len = message.as_slice().len();
        let role = Role::of(message.as_slice());
        let urgent = match priority {
            Priority::Auto => role.is_urgent(),
            Priority::Urgent => true,
            Priority::Normal => false,
        };
        let len = body_len + envelope.len();
        outbox.admit(len, urgent).inspect_err(|error| {
            if *error == Error::Busy {
                metrics::sends_refused_busy.add(self.transport, 1);
            }
        })?;
        self.count_sent(body_len, len);
        let queued = Queued {
            prefix: envelope.prefix,
            body: message.into_bytes(0),
            suffix: envelope.suffix,
        };
        outbox.push(queued, role, urgent);
        Ok(())
    }

    /// A message was accepted whose delimiters make it `len` bytes.
    fn count_sent(&self, body: usize, len: usize) {
        let counters = &self.counters;
        counters.frames_out.fetch_add(1, Ordering::Relaxed);
        counters.bytes_out.fetch_add(len as u64, Ordering::Relaxed);
        metrics::frames_out.add(self.transport, 1);
        metrics::bytes_out.add(self.transport, len as u64);
        metrics::frame_out_bytes.record(body as u64);
    }

    /// The owner is back, and writes what was left to it.
    pub(crate) fn write_corked(&self) {
        let mut outbox = lock(&self.outbox);
        let room = outbox.cork.is_on() && self.write_queued(&mut outbox);
        drop(outbox);
        if room {
            self.emit_writable();
        }
    }

    /// The owner has taken so many items. Returns whether something waits that the task is to
    /// write, because the owner will not take again before it waits itself.
    pub(crate) fn taken(&self, items: usize, owner_returns: bool) -> bool {
        let mut outbox = lock(&self.outbox);
        let was_on = outbox.cork.is_on();
        outbox.cork.taken(items, owner_returns, Instant::now());
        was_on && !owner_returns && !outbox.is_empty()
    }

    /// Writes of what is queued what the socket takes now, up to a bound. Returns whether a refused
    /// sender is to be told that there is room, which is not done while the queue is locked: the
    /// sink may look at it.
    fn write_queued(&self, outbox: &mut Outbox) -> bool {
        let mut tell = false;
        let Some(half) = self.direct.get() else {
            return tell;
        };
        let mut room = DIRECT_WRITE;
        while room > 0 && !outbox.is_empty() {
            let (slices, count) = outbox.front::<GATHER>();
            let slices = within(slices.each_ref().map(|slice| &**slice), room);
            let written = self.write_now(half, slices.get(..count).unwrap_or_default());
            if written == 0 {
                break;
            }
            room -= written;
            tell |= outbox.written(written);
        }
        tell
    }

    /// Writes as far as the socket takes it. It is the task that ends the connection with an error,
    /// which it meets too, but for a reset, of which the system tells once.
    fn write_now(&self, half: &WriteHalf, slices: &[IoSlice<'_>]) -> usize {
        half.try_write(slices).unwrap_or_else(|error| {
            if error.kind() == io::ErrorKind::ConnectionReset {
                self.reset.store(true, Ordering::Relaxed);
            }
            0
        })
    }
}

/// The parts, cut off where there is no more room.
fn within<const N: usize>(parts: [&[u8]; N], mut room: usize) -> [IoSlice<'_>; N] {
    parts.map(|part| {
        let (now, _) = part.split_at(part.len().min(room));
        room -= now.len();
        IoSlice::new(now)
    })
}
