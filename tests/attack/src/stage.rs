//! What the clients share that publish and subscribe: the channels, how far the play has come, and how often
//! what was done.

use crate::habit::{HABITS, Habit};
use crate::oracle::{Findings, Sent};
use crate::report::{Report, hold};
use fastrand::Rng;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

pub struct Channel {
    pub name: String,
    /// The key to publish on it and to subscribe to it, if it is private.
    pub key: Option<&'static str>,
    pub sent: Sent,
}

impl Channel {
    pub fn new(name: String) -> Channel {
        Channel { name, key: None, sent: Sent::default() }
    }

    pub fn target(&self, query: &str) -> String {
        match self.key {
            None => format!("/channels/{}{query}", self.name),
            Some(key) => {
                format!("/channels/{}?key={key}{}", self.name, query.replacen('?', "&", 1))
            }
        }
    }
}

/// What some clients subscribe to: one channel, or a view of several.
pub struct Selection<'s> {
    pub channels: Vec<&'s Channel>,
    /// The names as the request has them, or a prefix of them and `*`.
    pub names: String,
    pub key: Option<String>,
    /// Its key is taken away while the clients are there.
    pub is_revoked: bool,
    pub habits: &'static [Habit],
}

impl<'s> Selection<'s> {
    /// A client of each habit for one channel.
    pub fn of(channel: &'s Channel) -> Selection<'s> {
        Selection {
            channels: vec![channel],
            names: channel.name.clone(),
            key: channel.key.map(str::to_owned),
            is_revoked: false,
            habits: &HABITS,
        }
    }

    /// Whether a view tells by this event type that one of its channels is completed.
    pub fn is_end(&self, event_type: &str) -> bool {
        let named = event_type.strip_suffix(":end").filter(|_| self.is_view());
        named.is_some_and(|named| self.channels.iter().any(|channel| *channel.name == *named))
    }

    pub fn is_view(&self) -> bool {
        self.names.contains([',', '*'])
    }

    /// The names with the key behind them.
    pub fn target(&self) -> String {
        let key = self.key.as_ref().map(|key| format!("?key={key}"));
        format!("{}{}", self.names, key.unwrap_or_default())
    }

    /// Which channel an event is from, and the type that it was published with.
    pub fn origin(&self, event_type: Option<String>) -> Option<(usize, Option<String>)> {
        if !self.is_view() {
            return Some((0, event_type));
        }
        let shown = event_type?;
        let (name, inner) = match shown.split_once(':') {
            Some((name, inner)) => (name, Some(inner.to_owned())),
            None => (shown.as_str(), None),
        };
        Some((self.channels.iter().position(|channel| channel.name == name)?, inner))
    }
}

/// What all clients share.
pub struct Stage<'r> {
    pub address: SocketAddr,
    pub report: &'r Report,
    pub tallies: &'r Tallies,
    /// The server is killed now and then, so that a connection may break.
    pub restarts: bool,
    /// The server knows at any time what it has acknowledged, and what it has forgotten.
    pub remembers: bool,
    /// When the key of guests was taken away.
    pub revoked: OnceLock<Instant>,
    phase: Mutex<Phase>,
}

/// How far the play has come, for all clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Play,
    /// No client publishes any more.
    Quiet,
    /// The channels are completed.
    Home,
}

/// How often what was done.
#[derive(Default)]
pub struct Tallies {
    /// For how long, in all channels together.
    pub played_ms: AtomicU64,
    pub published: AtomicU64,
    pub lines: AtomicU64,
    pub uploads_cut: AtomicU64,
    pub not_text: AtomicU64,
    pub too_large: AtomicU64,
    /// Of what is too large, answers that were lost on the way.
    pub unheard: AtomicU64,
    pub completed: AtomicU64,
    pub subscriptions: AtomicU64,
    pub resumed: AtomicU64,
    pub cut: AtomicU64,
    pub stalled: AtomicU64,
    pub ended_by_server: AtomicU64,
    pub finished: AtomicU64,
    /// Clients that were refused as their key was taken away, and how long the slowest stream went on.
    pub revoked: AtomicU64,
    pub revoked_ms: AtomicU64,
}

impl Tallies {
    /// Tells all of them, and judges that none is so small that it proves nothing: for each about a
    /// tenth of what a channel sees in a minute on a slow machine.
    pub fn judge(&self, report: &Report, found: &Findings) {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let minutes = of(&self.played_ms) as f64 / 60_000.0;
        for (what, count, a_minute) in [
            ("published one by one", of(&self.published), 500.0),
            ("published by ?lines", of(&self.lines), 10_000.0),
            ("uploads cut in the middle", of(&self.uploads_cut), 25.0),
            ("refused as no text", of(&self.not_text), 5.0),
            ("refused as too large", of(&self.too_large), 10.0),
            ("completed while others published", of(&self.completed), 5.0),
            ("streams opened", of(&self.subscriptions), 200.0),
            ("of them with a last event id", of(&self.resumed), 150.0),
            ("streams cut by their client", of(&self.cut), 100.0),
            ("times a client stopped reading", of(&self.stalled), 5.0),
            ("times told 204", of(&self.finished), 8.0),
            ("gaps told", found.gaps, 20.0),
            ("ends told", found.ends, 30.0),
            ("events seen by clients", found.seen, 50_000.0),
        ] {
            let least = (a_minute * minutes) as u64;
            report.row(what, count);
            let violation = format!("{what}: {count}, which is not more than {least}");
            report.expect(count > least, violation);
        }
        report.row("streams ended by the server early", of(&self.ended_by_server));
        let (unheard, heard) = (of(&self.unheard), of(&self.too_large));
        report.row("answers lost to what is too large", unheard);
        report.expect(unheard < heard, format!("of 413s {unheard} were lost, {heard} heard"));
    }
}

/// Counts one more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

pub fn pause(random: &mut Rng, ms: Range<u64>) {
    thread::sleep(Duration::from_millis(random.u64(ms)));
}

impl<'r> Stage<'r> {
    pub fn new(address: SocketAddr, restarts: bool, report: &'r Report, tallies: &'r Tallies) -> Stage<'r> {
        let (remembers, phase) = (!restarts, Mutex::new(Phase::Play));
        Stage { address, report, tallies, restarts, remembers, revoked: OnceLock::new(), phase }
    }

    /// Events and channels expire.
    pub fn expires(&self) -> bool {
        !self.restarts && !self.remembers
    }

    pub fn phase(&self) -> Phase {
        *hold(&self.phase)
    }

    pub fn enter(&self, phase: Phase) {
        *hold(&self.phase) = phase;
    }

    /// Is told what a connection broke from, and judges whether it may have.
    pub fn excuse(&self, what: &str, error: &io::Error) {
        if !self.restarts || error.kind() == ErrorKind::InvalidData {
            self.report.violation(format!("{what}: {error}"));
        }
    }
}
