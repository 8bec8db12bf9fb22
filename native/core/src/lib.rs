//! Transport core of erlmcp_native: framing, buffering and socket I/O without any BEAM types.
//!
//! A [`Connection`] is driven by one tokio task. The task reads ahead up to a high-water mark
//! and splits what it reads into frames; the owner pulls them in bounded batches with
//! [`Connection::take`] and is told through its [`Sink`], once per edge, when there is something
//! to pull. Sending tries the socket on the caller's thread and queues what does not fit, within
//! a bound. Nothing here blocks a caller.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod child;
pub mod connection;
pub mod cork;
mod dial;
mod driver;
pub mod error;
pub mod event;
pub mod frame;
pub mod high_water;
pub mod http;
pub mod inbox;
pub mod json;
pub mod listener;
pub mod metrics;
pub mod options;
pub mod outbox;
mod pair;
mod pool;
mod pump;
pub mod read_size;
mod reader;
mod sending;
pub mod stdio;
pub mod stream;
mod sync;
pub mod tls;
mod wire;

pub use connection::{Connection, Info, State};
pub use error::{Error, TlsError};
pub use event::{Event, Sink};
pub use listener::Listener;
