//! What is counted about channels since the server began.

use std::sync::atomic::AtomicU64;

/// Events and frames published and delivered, subscriptions that resumed, and subscribers that are no
/// more, by reason.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) events_published: AtomicU64,
    pub(crate) bytes_published: AtomicU64,
    pub(crate) events_delivered: AtomicU64,
    pub(crate) bytes_delivered: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) left: AtomicU64,
    pub(crate) slow: AtomicU64,
    pub(crate) stalled: AtomicU64,
    pub(crate) completed: AtomicU64,
}
