//! The bounds of a server: each with its default, its reason, and the status that it yields.

use std::time::Duration;

/// What one server will carry, and for how long it waits.
///
/// Nothing is allocated because the wire claims a length: each bound is checked against bytes that
/// have arrived. The memory of a whole server is bounded by
///
/// ```text
/// connections * (head_bytes + content_bytes + 3 * an event + a thread's stack)   while they speak HTTP
///   + streams * 5 KiB                                 the kernel's socket and ours
///   + waiting * 32 KiB                                a thread and a read buffer each
///   + 4,096 * target_bytes                            lines of the log that wait to be written
/// ```
///
/// and only requests that may publish have their content kept at all.
///
/// ```
/// use newswire::http::Limits;
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
    /// Connections at a time that have sent a request; 1,000 for the library, from the descriptor limit on the command
    /// line. At the limit, the connection that has kept the server waiting longest is evicted for a newcomer whose
    /// request is here. Without one the newcomer waits; after `head_deadline` it is closed without a word, since a `503`
    /// would end an EventSource for good.
    pub connections: usize,
    /// Connections at a time, besides, whose first request is still to come; 10 for the library, half of the
    /// descriptors that are left and at most 1,024 on the command line. At the limit the one that is silent longest is
    /// evicted, but none before half a second.
    pub waiting: usize,
    /// Streams at a time; nine in ten connections, so that there is always room to publish. One more gets what its
    /// response says, which is a stream that ends for Server-Sent Events, and else `503`.
    pub streams: usize,
}

/// A limit that no server can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidLimits {
    /// The name of the field.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

impl std::fmt::Display for InvalidLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the limit {} must be {}", self.field, self.rule)
    }
}

impl std::error::Error for InvalidLimits {}

impl From<InvalidLimits> for std::io::Error {
    fn from(error: InvalidLimits) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, error)
    }
}

/// A deadline beyond this overflows the clock of some system.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

impl Limits {
    /// # Errors
    /// The first field that is out of range.
    pub(crate) fn check(&self) -> Result<(), InvalidLimits> {
        let durations = [
            ("head_deadline", self.head_deadline),
            ("content_deadline", self.content_deadline),
            ("lines_idle", self.lines_idle),
            ("idle", self.idle),
            ("write_stall", self.write_stall),
        ];
        let rule = "from a millisecond to 366 days";
        for (field, duration) in durations {
            if !(Duration::from_millis(1)..=LONGEST).contains(&duration) {
                return Err(InvalidLimits { field, rule });
            }
        }
        let counts =
            [("connections", self.connections), ("waiting", self.waiting), ("fields", self.fields)];
        match counts.iter().find(|(_, count)| *count == 0) {
            Some((field, _)) => Err(InvalidLimits { field, rule: "at least 1" }),
            None => Ok(()),
        }
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
            streams: 900,
        }
    }
}
