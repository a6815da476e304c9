//! Every bound newswire keeps, in one place: its default, its reason, and what who meets it is
//! told.

use std::time::Duration;

/// What one server will carry, and for how long it waits.
///
/// Nothing is allocated because the wire claims a length: each bound is checked against bytes that
/// have arrived. The memory of a whole server is bounded by
///
/// ```text
/// connections * (head_bytes + content_bytes + 3 * an event + a thread's stack)   while they speak HTTP
///   + subscribers * 5 KiB                             the kernel's socket and ours
///   + slow subscribers * (64 KiB + the largest event) a thread each, until they have caught up
///   + channels * (history_bytes + history_events * 64 bytes)
///   + waiting * 5 KiB                                 and what the kernel keeps of what they send
///   + cores * history_bytes                           the batches being written
///   + 256 * history_bytes                             lines of the laboratory, while they are watched
///   + streams of the laboratory * 8 MiB               two frames of the largest size one can ask for
///   + 4,096 * target_bytes                            lines of the log that nobody takes
/// ```
///
/// and only requests that may publish have their content kept at all.
///
/// ```
/// use newswire::Limits;
/// use std::time::Duration;
///
/// let limits = Limits { connections: 64, idle: Duration::from_secs(5), ..Limits::default() };
/// assert_eq!(limits.head_bytes, 16 * 1024);
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the request target; 8 KiB. More is `414`. RFC 9112, 3: "at minimum, 8000 octets".
    pub target_bytes: usize,
    /// Bytes of the whole head, request line and fields; 16 KiB, as Node's and twice nginx's. More
    /// is `431`.
    pub head_bytes: usize,
    /// Fields in a head; 100, as Apache's. More is `431`.
    pub fields: usize,
    /// Bytes of content that a handler may ask to have in memory, and bytes in one line of
    /// `?lines`; 512 KiB, half a channel's default history. More is `413`.
    pub content_bytes: usize,
    /// From the first byte of a head to its last; 10 s, for the head as a whole: a deadline per read
    /// would let one byte every nine seconds hold a thread for good (Slowloris). Late is `408`. A new
    /// connection may also be silent for as long before its first byte; then it is closed without a
    /// word.
    pub head_deadline: Duration,
    /// For the whole content, from the moment it is asked for; 60 s. Late is `408`.
    pub content_deadline: Duration,
    /// Silence between two pieces of a content that is published as it arrives (`?lines`); 1 h. It
    /// has no deadline as a whole, because a log may go on for days, but a peer that vanished must
    /// be noticed. Late is `408`.
    pub lines_idle: Duration,
    /// Between two requests on a kept connection; 60 s. Then it is closed without a word.
    pub idle: Duration,
    /// How long a peer may take nothing at all of what is written to it; 20 s. Then the connection
    /// is closed.
    pub write_stall: Duration,
    /// Connections at a time; 1,000 for the library, from the descriptor limit on the command line.
    /// At the limit newcomers wait until one ends, or gives way because its peer has kept it waiting for
    /// half a second: a `503` would end an EventSource for good.
    pub connections: usize,
    /// Connections at a time, besides, that wait for one of those places, the ones whose request is here
    /// before the others; 10 for the library, half of the descriptors that are left and at most 1,024 on
    /// the command line. When as many wait, whose request is not here after half a second is closed, and
    /// others wait to be accepted: there the system drops whom it has no room for.
    pub waiting: usize,
    /// Subscribers of all channels at a time, and other streams of the command; nine in ten
    /// connections, so that there is always a way left in to publish. More are told to come back
    /// later, in a stream that ends.
    pub subscribers: usize,
    /// Channels at a time that keep something, 1,024, and as many that nothing was published in yet. One
    /// more takes the place of a completed one that nobody listens to; if there is none, it is `503`, or
    /// for a subscriber a stream that ends.
    pub channels: usize,
    /// Events kept for each channel; 1,000.
    pub history_events: usize,
    /// Bytes kept for each channel, as they stand on the wire; 1 MiB. An event that is larger by
    /// itself is `413`.
    pub history_bytes: usize,
    /// Silence after which a subscriber is sent a comment at the latest; 15 s, a quarter of the minute
    /// after which nginx, Apache and Varnish cut a silent stream. Zero sends none, but to who has closed its half,
    /// since nothing else tells whether it listens still.
    pub heartbeat: Duration,
}

impl Limits {
    /// Uploads with `?lines` at a time, each of which may last for days: half of the connections that
    /// subscribers may not take, so that a way is left in for those that do not. One more is `503`.
    pub(crate) fn uploads(&self) -> usize {
        (self.connections.saturating_sub(self.subscribers) / 2).max(1)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            target_bytes: 8 * 1024,
            head_bytes: 16 * 1024,
            fields: 100,
            content_bytes: 512 * 1024,
            head_deadline: Duration::from_secs(10),
            content_deadline: Duration::from_secs(60),
            lines_idle: Duration::from_secs(3600),
            idle: Duration::from_secs(60),
            write_stall: Duration::from_secs(20),
            connections: 1_000,
            waiting: 10,
            subscribers: 900,
            channels: 1_024,
            history_events: 1_000,
            history_bytes: 1024 * 1024,
            heartbeat: Duration::from_secs(15),
        }
    }
}
