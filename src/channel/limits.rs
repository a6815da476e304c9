//! The bounds of channels.

use std::time::Duration;

/// What the channels of one server keep, and how long a subscriber is left without a byte.
///
/// The memory of channels is bounded by
///
/// ```text
/// channels * (history_bytes + history_events * 64 bytes)     the logs
///   + cores * history_bytes                                  the batches that fan-out threads write
/// ```
///
/// ```
/// use newswire::channel::Limits;
/// use std::time::Duration;
///
/// let limits = Limits { history_events: 100, heartbeat: Duration::from_secs(5), ..Limits::default() };
/// assert_eq!(limits.history_bytes, 1024 * 1024);
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    /// Channels at a time that keep something; 1,024, and as many without an event. One more takes the place of
    /// a completed channel without subscribers; if there is none, it is `503`, or for a subscriber a stream that
    /// ends.
    pub channels: usize,
    /// Events that each channel keeps; 1,000.
    pub history_events: usize,
    /// Bytes that each channel keeps, as they stand on the wire; 1 MiB. A larger event is `413`.
    pub history_bytes: usize,
    /// The heartbeat interval: an idle subscriber gets a comment this often; 15 s, a quarter of the minute
    /// after which nginx, Apache and Varnish cut a silent stream. Zero turns heartbeats off.
    pub heartbeat: Duration,
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
