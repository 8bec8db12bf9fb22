//! How events leave the core.

/// What a connection or a listener tells its owner. Both are edges: neither is repeated before
/// the owner has acted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The owner's last look found nothing; now there is something: frames, an accepted
    /// connection, the connection being established, or its end.
    Ready,
    /// A send was refused with [`Error::Busy`](crate::Error::Busy); there is room again.
    Writable,
}

/// The one way out for events. Called from tokio's threads only, never from a caller's.
pub trait Sink: Send + Sync + 'static {
    /// Passes an event to the owner. Must not block.
    fn emit(&self, event: Event);
}
