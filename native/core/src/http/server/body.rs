//! The body of an answer, as hyper takes it.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::connection::InFlight;
use super::state::{Part, Shared};

/// Holds its connection in use until hyper is done with it.
pub(crate) struct AnswerBody {
    kind: Kind,
    in_flight: InFlight,
}

enum Kind {
    Whole(Bytes),
    Stream(Stream),
}

struct Stream(Arc<Shared>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The serving process has ended in the middle of a stream.
#[derive(Debug)]
pub(crate) struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream was cut off")
    }
}

impl std::error::Error for Aborted {}

impl From<Infallible> for Aborted {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl AnswerBody {
    pub(crate) fn whole(bytes: Bytes, in_flight: InFlight) -> Self {
        Self {
            kind: Kind::Whole(bytes),
            in_flight,
        }
    }

    /// Over HTTP/1.0 nothing but the end of the connection tells of the end of the stream.
    pub(crate) fn stream(exchange: Arc<Shared>, in_flight: InFlight, http10: bool) -> Self {
        in_flight.set_open_ended(http10);
        Self {
            kind: Kind::Stream(Stream(exchange)),
            in_flight,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let me = self.get_mut();
        match &mut me.kind {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream(Stream(exchange)) => exchange.poll_part(cx).map(|part| match part {
                Part::Data(bytes) => {
                    // hyper does not ask for more after the last part.
                    if exchange.is_finished() {
                        me.in_flight.set_open_ended(false);
                    }
                    Some(Ok(Frame::data(bytes)))
                }
                Part::End => {
                    me.in_flight.set_open_ended(false);
                    None
                }
                Part::Aborted => Some(Err(Aborted)),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Stream(Stream(exchange)) => exchange.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}
