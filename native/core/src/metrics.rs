//! Counters of the whole process, each declared once with its kind and help.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a counter moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only up.
    Counter,
    /// Up and down.
    Gauge,
}

/// One number.
#[derive(Debug)]
pub struct Metric {
    /// Name, unit last.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it counts.
    pub help: &'static str,
    value: AtomicU64,
}

impl Metric {
    const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            name,
            kind,
            help,
            value: AtomicU64::new(0),
        }
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Counts one for as long as the result lives.
    pub fn live(&'static self) -> Live {
        self.add(1);
        Live(self)
    }
}

/// Holds a gauge up by one.
#[derive(Debug)]
pub struct Live(&'static Metric);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.value.fetch_sub(1, Ordering::Relaxed);
    }
}

macro_rules! metrics {
    ($($ident:ident: $kind:ident, $help:literal;)*) => {
        $(
            #[doc = $help]
            #[allow(non_upper_case_globals)]
            pub static $ident: Metric = Metric::new(stringify!($ident), Kind::$kind, $help);
        )*

        /// All metrics.
        pub static ALL: &[&Metric] = &[$(&$ident),*];
    };
}

metrics! {
    native_connections: Gauge, "Connections that the core holds";
    native_tasks: Gauge, "Tasks that drive connections and listeners";
    native_listeners: Gauge, "Listeners that the core holds";
    native_blocks: Gauge, "Blocks of received frames that Erlang terms refer to";
    connections_opened: Counter, "Connections established, dialled and accepted";
    connections_failed: Counter, "Connections that could not be established";
    connections_ended: Counter, "Established connections that have ended";
    accept_errors: Counter, "Accepts that the operating system refused";
    frames_in: Counter, "Frames received";
    frames_out: Counter, "Messages accepted for sending";
    frames_oversized: Counter, "Frames received over the limit";
    bytes_in: Counter, "Bytes read from sockets, after TLS";
    bytes_out: Counter, "Bytes written to sockets, before TLS";
    sends_refused_busy: Counter, "Sends refused because the outbound queue was full";
    native_http_listeners: Gauge, "HTTP listeners that the core holds";
    native_http_connections: Gauge, "Connections of HTTP listeners";
    native_http_exchanges: Gauge, "HTTP requests that a task or an Erlang process holds";
    http_requests: Counter, "HTTP requests received";
    http_refused: Counter, "HTTP requests refused by the core, malformed ones included";
    http_client_requests: Counter, "Requests of HTTP clients, queued ones included";
    panics: Counter, "Tasks that ended in a panic";
}
