//! What the channels of a server count.

use super::subscriber::Departure;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the server started.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) events_published: AtomicU64,
    pub(crate) bytes_published: AtomicU64,
    pub(crate) events_delivered: AtomicU64,
    pub(crate) bytes_delivered: AtomicU64,
    /// Subscriptions that named a last event ID.
    pub(crate) replays: AtomicU64,
    /// Subscriptions that were told of a gap.
    pub(crate) gaps: AtomicU64,
    pub(crate) channels_evicted: AtomicU64,
    pub(crate) channels_expired: AtomicU64,
    pub(crate) events_expired: AtomicU64,
    /// Clients that may not begin the channel that they asked for.
    pub(crate) not_begun: AtomicU64,
    /// Streams that ended, by reason.
    pub(crate) left: AtomicU64,
    pub(crate) slow: AtomicU64,
    pub(crate) stalled: AtomicU64,
    pub(crate) completed: AtomicU64,
    /// Of journals: waits for a disk, failures, and segments that were given up after one.
    pub(crate) journal_syncs: AtomicU64,
    pub(crate) journal_errors: AtomicU64,
    pub(crate) journal_poisoned: AtomicU64,
}

impl Counters {
    pub(super) fn delivered(&self, events: u64, bytes: u64) {
        self.events_delivered.fetch_add(events, Relaxed);
        self.bytes_delivered.fetch_add(bytes, Relaxed);
    }

    pub(super) fn departed(&self, departure: Departure) {
        let counter = match departure {
            Departure::Left => &self.left,
            Departure::Stalled => &self.stalled,
            Departure::Slow => &self.slow,
            Departure::Completed => &self.completed,
            Departure::Stopped => return,
        };
        counter.fetch_add(1, Relaxed);
    }
}
