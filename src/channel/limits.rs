//! The bounds of channels.

use crate::http::InvalidLimits;
use std::time::Duration;

/// What the channels of one server keep, and how often an idle subscriber gets a heartbeat. Their memory is bounded by
///
/// ```text
/// 2 * channels * 1 KiB                                      channels, with or without events
///   + channels * (history_bytes + history_events * 96)      the histories; 256 in place of 96 for events with a key
///   + (fan-out threads + publishers at a time) * 2 * (history_bytes + 8 * history_events)     batches to write
///   + journals that are written at a time * 4 * history_bytes     queues and batches, with a journal only
///   + 10 * history_bytes + 8 MiB                            with Redis: a page that is read, and commands that wait
///   + subscribers that are replaying or slow * 2 * (32 KiB or one event)
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
    /// Channels at a time that were opened to publish; 1,024. One more evicts a completed channel that is not in
    /// use; if there is none, it is `503`. Beside them there may be as many channels that only subscribers have asked
    /// for; a subscriber of one more gets a stream that ends.
    pub channels: usize,
    /// Events that each channel keeps; 1,000.
    pub history_events: usize,
    /// Bytes that each channel keeps: its events as they stand on the wire, and their keys; 1 MiB. A larger event is
    /// `413`.
    pub history_bytes: usize,
    /// The heartbeat interval: an idle subscriber gets a comment this often; 15 s, a quarter of the minute
    /// after which nginx, Apache and Varnish cut a silent stream. Zero turns heartbeats off.
    pub heartbeat: Duration,
}

/// 1 to 64 ASCII letters, digits, dots, underscores and hyphens, and no dot at the beginning: the name of a file, too.
pub(super) fn is_name(name: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(may_stand)
}

const LONGEST_HEARTBEAT: Duration = Duration::from_secs(24 * 3600);

impl Limits {
    /// [`Channels::start`](super::Channels::start) checks the limits, too.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn check(&self) -> Result<(), InvalidLimits> {
        let Limits { channels, history_events, history_bytes, heartbeat } = *self;
        let counts = [
            ("channels", channels),
            ("history_events", history_events),
            ("history_bytes", history_bytes),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(InvalidLimits { field, rule: "at least 1" });
        }
        if heartbeat.is_zero()
            || (Duration::from_millis(1)..=LONGEST_HEARTBEAT).contains(&heartbeat)
        {
            return Ok(());
        }
        Err(InvalidLimits { field: "heartbeat", rule: "zero, or from a millisecond to a day" })
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            channels: 1_024,
            history_events: 1_000,
            history_bytes: 1024 * 1024,
            heartbeat: Duration::from_secs(15),
        }
    }
}
