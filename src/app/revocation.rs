//! Streams and uploads that end when their clients may not have them any more.

use super::keys::{Action, Keys, Verdict};
use crate::http::connection::Closer;
use crate::http::lock::hold;
use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// How often they are reviewed.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Why a client may subscribe or publish.
pub(super) struct Grant {
    pub(super) action: Action,
    pub(super) channels: String,
    /// The keys of the request that were known then.
    pub(super) presented: Vec<String>,
    /// The keys by which it was judged last, and how.
    pub(super) keys: Arc<Keys>,
    pub(super) verdict: Verdict,
    /// When the decision of the application ends, and the stream with it: the client comes back, and it is asked again.
    pub(super) until: Option<Instant>,
    /// Of an upload, which ends before its connection does.
    pub(super) upload: Option<Weak<()>>,
}

impl Grant {
    fn is_over(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.strong_count() == 0)
    }

    /// Whether it holds up to the next review.
    fn holds(&mut self, keys: &Arc<Keys>) -> bool {
        if !Arc::ptr_eq(&self.keys, keys) {
            self.keys = Arc::clone(keys);
            let verdict = keys.judge(self.action, &self.channels, &self.presented);
            // Also when the key is gone with the only line that named the channel.
            if verdict > self.verdict {
                return false;
            }
            self.verdict = verdict;
        }
        self.until.is_none_or(|until| until > Instant::now() + INTERVAL)
    }
}

/// The streams and uploads that were granted: about 200 bytes for each, its channels and its keys. One thread reviews all of
/// them: each subscriber belongs to a fan-out thread, which must not read a file.
#[derive(Default)]
pub(super) struct Granted {
    streams: Mutex<Vec<(Closer, Grant)>>,
    pub(super) revoked: AtomicU64,
}

impl Granted {
    pub(super) fn add(&self, closer: Closer, grant: Grant) {
        hold(&self.streams).push((closer, grant));
    }

    /// How many there are, with those that have ended since the last review.
    pub(super) fn len(&self) -> u64 {
        hold(&self.streams).len() as u64
    }

    /// Ends the streams with a grant that does not hold, and forgets those that have ended. The lock is free meanwhile.
    pub(super) fn review(&self, keys: &Arc<Keys>) {
        let mut streams = take(&mut *hold(&self.streams));
        streams.retain_mut(|(closer, grant)| {
            if grant.is_over() || !closer.is_open() {
                return false;
            }
            let holds = grant.holds(keys);
            if !holds && closer.close() {
                self.revoked.fetch_add(1, Relaxed);
            }
            holds
        });
        let mut new = hold(&self.streams);
        streams.append(&mut new);
        *new = streams;
    }
}
