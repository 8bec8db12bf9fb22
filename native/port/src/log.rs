//! `tracing` events to the VM, which hands them to `logger`.

use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{Layer, Registry};

use crate::op::to_vm;
use crate::out::Out;
use crate::term::Writer;

static LEVEL: OnceLock<Handle<LevelFilter, Registry>> = OnceLock::new();

struct Forward {
    out: Out,
    dropped: AtomicUsize,
}

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if self.out.is_crowded() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let metadata = event.metadata();
        let mut term = Writer::new();
        term.tuple(4)
            .atom(level_name(*metadata.level()))
            .binary(metadata.target().as_bytes())
            .binary(message.0.as_bytes())
            .integer(self.dropped.swap(0, Ordering::Relaxed) as u64);
        self.out.send(to_vm::LOG, 0, &[&term.finish()]);
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

/// Sends events of this level and above from now on.
pub(crate) fn start(out: Out, level: u8) {
    let (layer, handle) = reload::Layer::new(filter(level));
    let forward = Forward {
        out,
        dropped: AtomicUsize::new(0),
    };
    // There is one subscriber in a process, and this is called once.
    let _ = tracing::subscriber::set_global_default(Registry::default().with(layer).with(forward));
    let _ = LEVEL.set(handle);
}

pub(crate) fn set_level(level: u8) {
    if let Some(handle) = LEVEL.get() {
        let _ = handle.modify(|current| *current = filter(level));
    }
}

fn filter(level: u8) -> LevelFilter {
    match level {
        0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}
