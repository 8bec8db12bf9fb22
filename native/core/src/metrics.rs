//! What the whole process counts, each declared once with its kind, group, unit and help.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// How a value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only up.
    Counter,
    /// Up and down.
    Gauge,
    /// How many values of which size there were.
    Histogram,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What carries messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, TLS and Unix-domain sockets.
    Tcp,
    /// Own standard input and output, and those of child processes.
    Stdio,
    /// HTTP, server and client.
    Http,
}

impl Transport {
    const ALL: [Self; 3] = [Self::Tcp, Self::Stdio, Self::Http];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Stdio => "stdio",
            Self::Http => "http",
        }
    }
}

/// What is said of a metric.
#[derive(Debug)]
pub struct Declaration {
    /// Name, unit last if there is one.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it belongs to.
    pub group: &'static str,
    /// Unit of the value, or `none`.
    pub unit: &'static str,
    /// What it counts.
    pub help: &'static str,
}

/// One number.
#[derive(Debug)]
pub struct Metric {
    declaration: Declaration,
    value: AtomicU64,
}

impl Metric {
    const fn new(declaration: Declaration) -> Self {
        Self {
            declaration,
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

/// One number for each transport.
#[derive(Debug)]
pub struct ByTransport {
    declaration: Declaration,
    tcp: AtomicU64,
    stdio: AtomicU64,
    http: AtomicU64,
}

impl ByTransport {
    const fn new(declaration: Declaration) -> Self {
        Self {
            declaration,
            tcp: AtomicU64::new(0),
            stdio: AtomicU64::new(0),
            http: AtomicU64::new(0),
        }
    }

    fn of(&self, transport: Transport) -> &AtomicU64 {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Stdio => &self.stdio,
            Transport::Http => &self.http,
        }
    }

    /// Adds `n` to that of a transport.
    pub fn add(&self, transport: Transport, n: u64) {
        self.of(transport).fetch_add(n, Ordering::Relaxed);
    }
}

/// A connection counted as opened, and when dropped as ended.
#[derive(Debug)]
pub struct Opened(Transport);

impl Opened {
    /// Counts it.
    pub fn new(transport: Transport) -> Self {
        connections_opened.add(transport, 1);
        Self(transport)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        connections_ended.add(self.0, 1);
    }
}

static RECORDING: AtomicBool = AtomicBool::new(true);

/// Switches the recording of histograms on or off.
pub fn set_recording(on: bool) {
    RECORDING.store(on, Ordering::Relaxed);
}

/// Buckets for values below 2^33; larger ones are counted in the last.
const BUCKETS: usize = 28 * PER_OCTAVE;
const PER_OCTAVE: usize = 64;

/// How many values of which size there were, within 1/128 of each: the buckets are those of
/// `erlmcp_native_histogram`.
#[derive(Debug)]
pub struct Histogram {
    declaration: Declaration,
    sum: AtomicU64,
    largest: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    const fn new(declaration: Declaration) -> Self {
        Self {
            declaration,
            sum: AtomicU64::new(0),
            largest: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// Records the microseconds since then.
    pub fn record_since(&self, since: Instant) {
        self.record(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
    }

    /// Records a value.
    pub fn record(&self, value: u64) {
        if !RECORDING.load(Ordering::Relaxed) {
            return;
        }
        if let Some(count) = self.buckets.get(bucket(value)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
        if self.largest.load(Ordering::Relaxed) < value {
            self.largest.fetch_max(value, Ordering::Relaxed);
        }
    }

    /// Records many values that came together. Those that follow each other are mostly alike.
    pub fn record_all<I: Iterator<Item = u64>>(&self, values: I) {
        if !RECORDING.load(Ordering::Relaxed) {
            return;
        }
        let (mut last, mut count, mut sum, mut largest) = (0, 0, 0_u64, 0);
        for value in values {
            if value != last {
                self.counted(last, count);
                (last, count) = (value, 0);
                largest = largest.max(value);
            }
            count += 1;
            sum = sum.wrapping_add(value);
        }
        self.counted(last, count);
        self.sum.fetch_add(sum, Ordering::Relaxed);
        if self.largest.load(Ordering::Relaxed) < largest {
            self.largest.fetch_max(largest, Ordering::Relaxed);
        }
    }

    fn counted(&self, value: u64, count: u64) {
        if let Some(total) = self.buckets.get(bucket(value)).filter(|_| count > 0) {
            total.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn recorded(&self) -> Value {
        let counts = self.buckets.iter().enumerate();
        Value::Recorded {
            sum: self.sum.load(Ordering::Relaxed),
            largest: self.largest.load(Ordering::Relaxed),
            buckets: counts
                .map(|(bucket, count)| (bucket as u64, count.load(Ordering::Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}

/// A value of 7 bits or less is its own bucket; of a larger one the first 7 bits count.
fn bucket(value: u64) -> usize {
    let value = value.min((1 << 33) - 1);
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(7);
    shift as usize * PER_OCTAVE + (value >> shift) as usize
}

/// What there is to read of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// One number.
    One(u64),
    /// One for each transport.
    Each([(&'static str, u64); 3]),
    /// Of a histogram: how many values are in which bucket.
    Recorded {
        /// Of all values.
        sum: u64,
        /// The largest value.
        largest: u64,
        /// Bucket and count, of those that are not empty.
        buckets: Vec<(u64, u64)>,
    },
}

/// A metric of any kind.
#[derive(Clone, Copy, Debug)]
pub enum Any {
    /// One number.
    One(&'static Metric),
    /// One for each transport.
    Each(&'static ByTransport),
    /// A histogram.
    Recorded(&'static Histogram),
}

impl Any {
    fn read(self) -> (&'static Declaration, Value) {
        match self {
            Self::One(metric) => (&metric.declaration, Value::One(metric.get())),
            Self::Each(metric) => {
                let each =
                    Transport::ALL.map(|one| (one.name(), metric.of(one).load(Ordering::Relaxed)));
                (&metric.declaration, Value::Each(each))
            }
            Self::Recorded(histogram) => (&histogram.declaration, histogram.recorded()),
        }
    }
}

macro_rules! metrics {
    ($($ident:ident: $type:ident $kind:ident, $group:ident, $unit:ident, $help:literal;)*) => {
        $(
            #[doc = $help]
            #[allow(non_upper_case_globals)]
            pub static $ident: metrics!(@type $type) = <metrics!(@type $type)>::new(Declaration {
                name: stringify!($ident),
                kind: Kind::$kind,
                group: stringify!($group),
                unit: stringify!($unit),
                help: $help,
            });
        )*

        static ALL: &[Any] = &[$(Any::$type(&$ident)),*];
    };
    (@type One) => { Metric };
    (@type Each) => { ByTransport };
    (@type Recorded) => { Histogram };
}

metrics! {
    native_connections: One Gauge, transport, none, "Connections that the core holds";
    native_tasks: One Gauge, runtime, none, "Tasks that drive connections and listeners";
    native_listeners: One Gauge, transport, none, "Listeners that the core holds";
    native_blocks: One Gauge, transport, none,
        "Blocks of received frames that Erlang terms refer to";
    connections_opened: Each Counter, transport, none,
        "Connections established, dialled and accepted";
    connections_failed: Each Counter, transport, none,
        "Connections that could not be established";
    connections_ended: Each Counter, transport, none, "Established connections that have ended";
    accept_errors: One Counter, transport, none, "Accepts that the operating system refused";
    frames_in: Each Counter, transport, none, "Frames received";
    frames_out: Each Counter, transport, none, "Messages accepted for sending";
    frames_oversized: Each Counter, transport, none, "Frames received over the limit";
    bytes_in: Each Counter, transport, bytes, "Bytes read from sockets, after TLS";
    bytes_out: Each Counter, transport, bytes, "Bytes written to sockets, before TLS";
    sends_refused_busy: Each Counter, transport, none,
        "Sends refused because the outbound queue was full";
    frame_in_bytes: Recorded Histogram, transport, bytes, "Sizes of frames received";
    frame_out_bytes: Recorded Histogram, transport, bytes,
        "Sizes of messages accepted for sending";
    outbound_queue_us: Recorded Histogram, transport, us,
        "How long something waited to be sent, from a queue that was empty to one that is again";
    native_http_listeners: One Gauge, http, none, "HTTP listeners that the core holds";
    native_http_connections: One Gauge, http, none, "Connections of HTTP listeners";
    native_http_exchanges: One Gauge, http, none,
        "HTTP requests that a task or an Erlang process holds";
    http_requests: One Counter, http, none, "HTTP requests received";
    http_refused: One Counter, http, none,
        "HTTP requests refused by the core, malformed ones included";
    native_http_client_connections: One Gauge, http_client, none,
        "Connections in the pools of HTTP clients, those being made included";
    http_client_requests: One Counter, http_client, none,
        "Requests of HTTP clients, queued ones included";
    panics: One Counter, runtime, none, "Tasks that ended in a panic";
}

static RUNTIME: [Declaration; 5] = [
    runtime(
        "tokio_workers",
        Kind::Gauge,
        "none",
        "Threads of the runtime",
    ),
    runtime(
        "tokio_tasks",
        Kind::Gauge,
        "none",
        "Tasks of the runtime that have not ended",
    ),
    runtime(
        "tokio_queued_tasks",
        Kind::Gauge,
        "none",
        "Tasks that wait in the runtime's common queue",
    ),
    runtime(
        "tokio_busy_us",
        Kind::Counter,
        "us",
        "Time that the threads of the runtime were busy, together",
    ),
    runtime(
        "tokio_parks",
        Kind::Counter,
        "none",
        "Times that a thread of the runtime had nothing to do",
    ),
];

const fn runtime(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
) -> Declaration {
    Declaration {
        name,
        kind,
        group: "runtime",
        unit,
        help,
    }
}

/// All metrics, and those of the runtime, if there is one.
pub fn read(handle: Option<&Handle>) -> Vec<(&'static Declaration, Value)> {
    let own = ALL.iter().map(|metric| metric.read());
    let runtime = handle.map(|handle| {
        let metrics = handle.metrics();
        let workers = 0..metrics.num_workers();
        let busy = workers
            .clone()
            .map(|n| metrics.worker_total_busy_duration(n));
        let values = [
            metrics.num_workers() as u64,
            metrics.num_alive_tasks() as u64,
            metrics.global_queue_depth() as u64,
            u64::try_from(busy.sum::<Duration>().as_micros()).unwrap_or(u64::MAX),
            workers.map(|n| metrics.worker_park_count(n)).sum(),
        ];
        RUNTIME.iter().zip(values.map(Value::One))
    });
    own.chain(runtime.into_iter().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same pairs are in `metrics_SUITE`: both sides divide values into the same buckets.
    #[test]
    fn buckets_are_those_of_the_histogram_in_erlang() {
        let pairs = [
            (0, 0),
            (127, 127),
            (128, 128),
            (129, 128),
            (255, 191),
            (256, 192),
            (1000, 317),
            (65536, 704),
            (1 << 24, 1216),
            ((1 << 33) - 1, 1791),
            (u64::MAX, 1791),
        ];
        for (value, expected) in pairs {
            assert_eq!(bucket(value), expected, "{value}");
        }
        assert_eq!(bucket(u64::MAX) + 1, BUCKETS);
    }

    fn histogram() -> Histogram {
        Histogram::new(Declaration {
            name: "test",
            kind: Kind::Histogram,
            group: "test",
            unit: "none",
            help: "",
        })
    }

    #[test]
    fn many_at_once_are_recorded_like_one_after_the_other() {
        let values = [3, 3, 3, 1000, 1001, 5, 70000, 3, 3];
        let (one, all) = (histogram(), histogram());
        values.into_iter().for_each(|value| one.record(value));
        all.record_all(values.into_iter());
        all.record_all(std::iter::empty());
        assert_eq!(one.recorded(), all.recorded());
    }

    #[test]
    fn the_runtime_is_read_with_the_rest() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let names: Vec<_> = read(Some(runtime.handle()))
            .into_iter()
            .map(|(declaration, _)| declaration.name)
            .collect();
        assert!(names.contains(&"tokio_tasks"));
        assert_eq!(names.len(), ALL.len() + RUNTIME.len());
        assert_eq!(read(None).len(), ALL.len());
    }
}
