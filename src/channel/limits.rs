//! The bounds of channels.

use crate::http::InvalidLimits;
use std::time::Duration;

/// What the channels of one server keep, and how often an idle subscriber gets a heartbeat. Their memory is bounded by
///
/// ```text
/// (channels + subscribers) * 1 KiB                          channels, with or without events
///   + channels * (history_bytes + history_events * 120)     the histories; 280 in place of 120 for events with a key;
///                                                           with Redis also of channels that clients have asked for
///   + views * 2 * (history_bytes + history_events * 120)    what they have shown; but over Redis, views share the frames
///   + channels * views * 16 bytes                            which views a channel is shown in, at most
///   + 16 * (history_bytes + history_events * 120)           what views wait with while a log hangs
///   + views that are being replayed * channels * 40 bytes   which channels have more, for each subscriber
///   + (fan-out threads + publishers at a time) * 2 * (history_bytes + 8 * history_events)     batches to write
///   + journals that are written at a time * 4 * history_bytes     queues and batches, with a journal only
///   + 10 * history_bytes + 8 MiB                            with Redis: a page that is read, and commands that wait
///   + subscribers that are replaying or slow * 2 * (32 KiB or one event, which those at the same event share)
///   + clients that poll for JSON at a time * 8 * (32 KiB or one event)
/// ```
///
/// ```
/// use newswire::channel::Limits;
/// use std::time::Duration;
///
/// let limits = Limits { history_events: 100, heartbeat: Duration::from_secs(5), ..Limits::default() };
/// assert_eq!(limits.history_bytes, 1024 * 1024);
/// assert!(limits.check().is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    /// Channels at a time that were opened to publish; 1,024. One more evicts the channel that is unused for longest, which
    /// has no handle and no subscriber; if there is none, a completed one that is still being read; if there is none, it
    /// is `503`. A client of an evicted channel that comes back is told of a gap. Channels that only subscribers have
    /// asked for do not count: each goes with its last subscriber.
    pub channels: usize,
    /// Views at a time, each of which shows several channels on one connection; 1,024. A subscriber of one more is told to come
    /// back later.
    pub views: usize,
    /// Events that each channel keeps; 1,000.
    pub history_events: usize,
    /// Bytes that each channel keeps: its events as they stand on the wire, and their keys; 1 MiB. A larger event is
    /// `413`.
    pub history_bytes: usize,
    /// The heartbeat interval: an idle subscriber gets a comment this often; 15 s, a quarter of the minute
    /// after which nginx, Apache and Varnish cut a silent stream. Zero turns heartbeats off.
    pub heartbeat: Duration,
    /// Whether the heartbeat is an event named `heartbeat`, with data and without an id, in place of a comment; it is
    /// not. EventSource shows comments to no page.
    pub heartbeat_event: bool,
    /// After so long without a handle and a subscriber a channel goes, with its events; zero, which is never.
    pub channel_idle: Duration,
    /// After so long an event goes, by the time in its id; zero, which is never. A client that it was kept for is told of a
    /// gap. Its memory is free an eighth of that time later, or at the next subscription.
    pub history_age: Duration,
    /// Whether clients may subscribe to `@presence.NAME`, which tells how many subscribers the channel has whenever that
    /// changes, at most once a second; no. Each counts as a view.
    pub presence: bool,
}

/// 1 to 64 ASCII letters, digits, dots, underscores and hyphens, and no dot at the beginning: the name of a file, too.
pub(super) fn is_name(name: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(may_stand)
}

/// How often a presence is told, at most.
pub(super) const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);

const LONGEST_HEARTBEAT: Duration = Duration::from_secs(24 * 3600);

impl Limits {
    /// [`Channels::start`](super::Channels::start) checks the limits, too.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn check(&self) -> Result<(), InvalidLimits> {
        let Limits { channels, views, history_events, history_bytes, heartbeat, .. } = *self;
        let counts = [
            ("channels", channels),
            ("views", views),
            ("history_events", history_events),
            ("history_bytes", history_bytes),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(InvalidLimits { field, rule: "at least 1" });
        }
        if heartbeat.is_zero() || (Duration::from_millis(1)..=LONGEST_HEARTBEAT).contains(&heartbeat) {
            return Ok(());
        }
        Err(InvalidLimits { field: "heartbeat", rule: "zero, or from a millisecond to a day" })
    }

    /// How often the timer looks for what is too old; `None` when nothing ever is.
    pub(super) fn timer_pause(&self) -> Option<Duration> {
        let ages = [self.channel_idle, self.history_age].into_iter().filter(|age| !age.is_zero());
        let pauses = ages.map(|age| age / 8).chain(self.presence.then_some(PRESENCE_INTERVAL));
        Some(pauses.min()?.clamp(Duration::from_millis(10), Duration::from_secs(10)))
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            channels: 1_024,
            views: 1_024,
            history_events: 1_000,
            history_bytes: 1024 * 1024,
            heartbeat: Duration::from_secs(15),
            heartbeat_event: false,
            channel_idle: Duration::ZERO,
            history_age: Duration::ZERO,
            presence: false,
        }
    }
}
