//! What the threads of this process share of Redis: the streams that are followed, and what is asked of the reader.
//!
//! The reader is the only thread that reads streams, and the only one that changes a mirror.

use super::entry::{Bounds, Mirror};
use super::link::Options;
use super::pipeline::{Pipeline, Session};
use super::resp::Reply;
use crate::http::back_off::random;
use crate::http::lock::hold;
use crate::http::log;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Redis that is away for so long will not be back in a moment: nothing waits for it any more.
const KNOWN_DOWN: Duration = Duration::from_secs(2);

/// A stream that nothing was asked of for so long, and that has no subscriber, is not followed any more.
const UNASKED: Duration = Duration::from_secs(60);

/// Redis, for one server.
pub(crate) struct Redis {
    pub(super) options: Options,
    pub(super) bounds: Bounds,
    pub(super) shared: Mutex<Shared>,
    pub(super) pipeline: Pipeline,
    /// The tokens of this process begin with it.
    pub(super) nonce: String,
    /// How many tokens there were.
    pub(super) tokens: AtomicU64,
    /// Something that a thread waits for.
    pub(super) changed: Condvar,
}

/// What is known of Redis at a moment, for `/metrics`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Whether streams are read now. Without this a server can neither publish nor serve a client that comes.
    pub(crate) is_connected: bool,
    pub(crate) streams: usize,
    /// Streams that have changed and are not read yet: how far the server lags behind.
    pub(crate) behind: usize,
    /// Commands that wait to be sent, and their bytes.
    pub(crate) waiting: usize,
    pub(crate) waiting_bytes: usize,
    pub(crate) reconnects: u64,
    pub(crate) errors: u64,
    /// Streams that had lost what their mirror had.
    pub(crate) resets: u64,
    /// Entries that are no event, or cannot be held.
    pub(crate) skipped: u64,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) streams: HashMap<Arc<str>, Followed>,
    /// The keys of the streams that are to be read.
    pub(super) due: BTreeSet<Arc<str>>,
    /// `None` while there is no connection.
    pub(super) session: Option<Session>,
    /// Since when there was none; `None` before the first attempt.
    down_since: Option<Instant>,
    /// The socket of the reader while that sleeps. The thread that takes it out writes one PING to wake the reader.
    pub(super) asleep: Option<Arc<TcpStream>>,
    socket: Option<Arc<TcpStream>>,
    /// What is counted; the other figures are found when they are asked for.
    pub(super) counted: Figures,
    /// The token of each command that waits for its reply, and the id under which the reader has met it.
    pub(super) awaited: HashMap<String, Option<String>>,
    /// The last line on standard error.
    said: String,
    pub(super) is_stopped: bool,
}

/// In place of the last entry of a stream that has none.
pub(super) const EMPTY: &str = "0-0";

/// What is known of a stream.
#[derive(Clone)]
pub(super) struct Followed {
    pub(super) mirror: Weak<dyn Mirror>,
    /// The mirror holds the end of the stream up to this entry, or [`EMPTY`]; `None` when it does not.
    pub(super) last: Option<String>,
    /// Each request has a number. A read answers all that came before it.
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// The session in which it was read last.
    pub(super) session: u64,
    pub(super) touched: Instant,
}

impl Followed {
    pub(super) fn new(mirror: &Weak<dyn Mirror>) -> Followed {
        let (mirror, touched) = (Weak::clone(mirror), Instant::now());
        Followed { mirror, last: None, asked: 0, answered: 0, session: 0, touched }
    }

    fn is_unasked(&self) -> bool {
        self.touched.elapsed() > UNASKED
    }
}

impl Shared {
    /// These keys are to be read, if they are those of streams that are followed.
    pub(super) fn mark_due<'k>(&mut self, keys: impl Iterator<Item = &'k Reply>) {
        for key in keys {
            if let Reply::Text(key) = key
                && let Ok(key) = str::from_utf8(key)
                && let Some((key, _)) = self.streams.get_key_value(key)
            {
                self.due.insert(Arc::clone(key));
            }
        }
    }

    pub(super) fn mark_all_due(&mut self) {
        self.due = self.streams.keys().cloned().collect();
    }

    /// Takes out up to so many streams that are to be read.
    pub(super) fn take_due(&mut self, most: usize) -> Vec<(Arc<str>, Followed)> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some(key) = self.due.pop_first()
        {
            let followed = self.streams.get(&key).cloned();
            due.extend(followed.map(|followed| (key, followed)));
        }
        due
    }
}

impl Redis {
    pub(super) fn new(options: Options, bounds: Bounds) -> Redis {
        Redis {
            pipeline: Pipeline::new(options.clone()),
            options,
            bounds,
            shared: Mutex::default(),
            changed: Condvar::new(),
            nonce: format!("{:016x}", random()),
            tokens: AtomicU64::new(0),
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let (waiting, waiting_bytes) = self.pipeline.waiting();
        let shared = hold(&self.shared);
        Figures {
            is_connected: shared.session.is_some(),
            streams: shared.streams.len(),
            behind: shared.due.len(),
            waiting,
            waiting_bytes,
            ..shared.counted
        }
    }

    /// Ends the thread that reads, and all waits.
    pub(crate) fn stop(&self) {
        let shared = &mut *hold(&self.shared);
        shared.is_stopped = true;
        if let Some(socket) = shared.socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    pub(super) fn begin_session(&self, number: u64, address: SocketAddr, socket: &Arc<TcpStream>) {
        let shared = &mut *hold(&self.shared);
        shared.counted.reconnects += u64::from(number > 1);
        shared.session = Some(Session { number, address });
        shared.socket = Some(Arc::clone(socket));
        // Whatever was known of a stream may be wrong: this may be another server, or one without its data.
        shared.mark_all_due();
        self.changed.notify_all();
    }

    pub(super) fn end_session(&self) {
        let shared = &mut *hold(&self.shared);
        if shared.session.take().is_some() || shared.down_since.is_none() {
            shared.down_since = Some(Instant::now());
        }
        (shared.asleep, shared.socket) = (None, None);
        self.changed.notify_all();
    }

    /// Follows no stream that nothing needs. Returns the others, each with its last entry.
    pub(super) fn retire_unwanted(&self) -> Vec<(Arc<str>, String)> {
        let shared = || hold(&self.shared);
        let unasked =
            |(key, it): (&Arc<str>, &Followed)| it.is_unasked().then(|| (Arc::clone(key), Weak::clone(&it.mirror)));
        let unasked: Vec<_> = shared().streams.iter().filter_map(unasked).collect();
        for (key, mirror) in unasked {
            // It is asked, and dropped, without the lock.
            let mirror = mirror.upgrade();
            if mirror.as_ref().is_some_and(|mirror| mirror.is_wanted()) {
                continue;
            }
            let is_left = {
                let streams = &mut shared().streams;
                streams.get(&key).is_some_and(Followed::is_unasked) && streams.remove(&key).is_some()
            };
            mirror.filter(|_| is_left).into_iter().for_each(|mirror| mirror.retire());
        }
        let warm = |(key, it): (&Arc<str>, &Followed)| Some((Arc::clone(key), it.last.clone()?));
        shared().streams.iter().filter_map(warm).collect()
    }

    /// Waits for so long, or until the channels are stopped. Returns whether they are not.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let goes_on = |shared: &mut Shared| !shared.is_stopped;
        let waited = self.changed.wait_timeout_while(hold(&self.shared), time, goes_on);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped
    }

    /// Counts an error, and says it.
    pub(super) fn report(&self, error: &io::Error) {
        hold(&self.shared).counted.errors += 1;
        self.say(error.to_string());
    }

    /// A line on standard error. A sentence that equals the last one is not written again.
    pub(super) fn say(&self, what: String) {
        let before = std::mem::replace(&mut hold(&self.shared).said, what.clone());
        if before != what {
            log::say(&format!("Redis at {}: {what}", self.options.address));
        }
    }

    /// Waits for a change, at most until then. `None` when that has passed, or Redis is known to be down.
    pub(super) fn wait<'s>(&self, shared: MutexGuard<'s, Shared>, deadline: Instant) -> Option<MutexGuard<'s, Shared>> {
        let is_known = |_: &Instant| shared.session.is_none();
        let down_since = shared.down_since.filter(is_known);
        let gives_up_at = down_since.map_or(deadline, |since| deadline.min(since + KNOWN_DOWN));
        let left = gives_up_at.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.is_stopped {
            return None;
        }
        Some(self.changed.wait_timeout(shared, left).unwrap_or_else(PoisonError::into_inner).0)
    }
}
