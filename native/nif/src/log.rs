//! `tracing` events to an Erlang process, which hands them to `logger`.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::sync::OnceCell;
use rustler::{Atom, LocalPid, NifResult};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{Layer, Registry};

use crate::{runtime, sink, terms};

mod atoms {
    rustler::atoms! { debug, error, info, none, trace, warning }
}

/// Events wait here for the runtime: they can be made on scheduler threads, which must not send.
const QUEUE: usize = 1024;

static DROPPED: AtomicU64 = AtomicU64::new(0);

struct Record {
    level: Level,
    target: &'static str,
    message: String,
}

struct Forward(Sender<Record>);

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let metadata = event.metadata();
        let record = Record {
            level: *metadata.level(),
            target: metadata.target(),
            message: message.0,
        };
        if self.0.try_send(record).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let separator = if self.0.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{separator}{value:?}"),
            name => write!(self.0, "{separator}{name}: {value:?}"),
        };
    }
}

struct Log {
    level: Handle<LevelFilter, Registry>,
    receiver: Mutex<Option<LocalPid>>,
}

static LOG: OnceCell<Log> = OnceCell::new();

/// Sends `{erlmcp_native_log, Level, Target, Message, Dropped}` to a process from now on, for
/// events of this level and above. `Dropped` counts the events lost since the last message.
#[rustler::nif]
fn log_to(receiver: LocalPid, level: Atom) -> NifResult<Atom> {
    let filter = filter(level)?;
    let handle = runtime::handle()?;
    let log = LOG.get_or_init(|| {
        let (layer, level) = reload::Layer::new(LevelFilter::OFF);
        let (sender, records) = channel(QUEUE);
        // A second subscriber in the VM would be a second copy of this library: it keeps its own.
        let _ = tracing::subscriber::set_global_default(
            Registry::default().with(layer).with(Forward(sender)),
        );
        handle.spawn(forward(records));
        Log {
            level,
            receiver: Mutex::new(None),
        }
    });
    if let Ok(mut current) = log.receiver.lock() {
        *current = Some(receiver);
    }
    let _ = log.level.modify(|current| *current = filter);
    Ok(terms::ok())
}

async fn forward(mut records: Receiver<Record>) {
    while let Some(record) = records.recv().await {
        let receiver = LOG
            .get()
            .and_then(|log| log.receiver.lock().ok().and_then(|r| *r));
        if let Some(pid) = receiver {
            let dropped = DROPPED.swap(0, Ordering::Relaxed);
            let level = level_atom(record.level);
            let tag = terms::erlmcp_native_log();
            sink::send(&pid, (tag, level, record.target, record.message, dropped));
        }
    }
}

fn filter(level: Atom) -> NifResult<LevelFilter> {
    [
        (atoms::none(), LevelFilter::OFF),
        (atoms::error(), LevelFilter::ERROR),
        (atoms::warning(), LevelFilter::WARN),
        (atoms::info(), LevelFilter::INFO),
        (atoms::debug(), LevelFilter::DEBUG),
        (atoms::trace(), LevelFilter::TRACE),
    ]
    .into_iter()
    .find_map(|(atom, filter)| (atom == level).then_some(filter))
    .ok_or(rustler::Error::BadArg)
}

fn level_atom(level: Level) -> Atom {
    match level {
        Level::ERROR => atoms::error(),
        Level::WARN => atoms::warning(),
        Level::INFO => atoms::info(),
        _ => atoms::debug(),
    }
}
