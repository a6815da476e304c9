//! The limits of a server: each with its default, its reason, and the status of what exceeds it.

use std::time::Duration;

/// What one server carries, and for how long it waits.
///
/// Nothing is allocated because the wire claims a length: each limit is checked against bytes that have arrived. The
/// memory of a server, without that of its handlers and of the system's sockets, is at most about
///
/// ```text
///   (connections + waiting) * (40 KiB + 3 * head_bytes)    a thread with its stack, a read and a write buffer, the head
/// + connections * content_bytes                            contents that handlers have asked for
/// + 1 MiB                                                  lines of the log that wait or are being written
/// ```
///
/// A head is held as it came and as one text, which is no larger: of the text, too, more than `head_bytes` are `431`. Most
/// heads are far smaller.
/// A subscriber of a channel needs less than a kibibyte: it has no thread while it has room in its socket.
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
    /// Bytes of the request target; 8 KiB. A longer one is `414`. RFC 9112, 3: "at minimum, 8000 octets".
    pub target_bytes: usize,
    /// Bytes of the whole head, which is the request line and the fields; 16 KiB, as Node's and twice nginx's. A larger
    /// one is `431`.
    pub head_bytes: usize,
    /// Fields in a head; 100, as Apache's. More are `431`.
    pub fields: usize,
    /// Bytes of content that a handler may ask to have in memory, and bytes in one line of `?lines`; 512 KiB, half a
    /// channel's default history. More are `413`. With 0 a handler gets no content.
    pub content_bytes: usize,
    /// From the first byte of a head to its last; 10 s. It holds for the head as a whole: with a deadline for each read,
    /// one byte every nine seconds would hold a thread for ever (Slowloris). A late head is `408`. A new connection
    /// that sends nothing for as long is closed, and so is a request that waits for a place for as long.
    pub head_deadline: Duration,
    /// For the whole content, from the moment when a handler asks for it; 60 s. A late one is `408`.
    pub content_deadline: Duration,
    /// Between two pieces of a content that is published as it arrives (`?lines`); 1 h. The content as a whole has no
    /// deadline, because a log may go on for days, but a peer that has vanished must be noticed. A late piece is `408`.
    pub lines_idle: Duration,
    /// Between two requests on a kept connection; 60 s. Then the connection is closed.
    pub idle: Duration,
    /// How long a peer may take less than 240 bytes a second of what is written to it; 20 s. Then the connection is
    /// closed.
    pub write_stall: Duration,
    /// Connections at a time that have sent a request; 1,000 for the library, from the descriptor limit on the command
    /// line. At the limit the connection is evicted that has kept the server waiting longest, and for half a second at
    /// least: since its last response, since the first byte of a request that is not whole yet, or since its peer has
    /// last taken bytes of a response. When there is none the new request waits, and after `head_deadline` its connection
    /// is closed. A `503` would end an EventSource for good. While requests wait, no connection is kept after a response.
    pub connections: usize,
    /// Connections at a time, besides, that have not sent a whole request yet or wait for a place; 10 for the library,
    /// half of the descriptors that are left and at most 1,024 on the command line. At the limit the one is evicted
    /// that has kept the server waiting longest, after half a second at the earliest.
    pub waiting: usize,
    /// Streams at a time; nine in ten connections, so that there is always room to publish. One more gets what its
    /// response says, which is a stream that ends for Server-Sent Events, and else `503`. With 0 there are none.
    pub streams: usize,
}

/// A limit that is out of range.
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

/// A longer one could overflow the clock of some system.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// A blocked write returns this often to say what the peer has taken, until the connection may be evicted. It must be
/// well below the half second after which it may.
const WRITE_STEP: Duration = Duration::from_millis(100);

impl Limits {
    pub(super) fn write_step(&self) -> Duration {
        self.write_stall.min(WRITE_STEP)
    }

    /// # Errors
    /// The first field that is out of range.
    pub(crate) fn check(&self) -> Result<(), InvalidLimits> {
        let is_duration = |time| (Duration::from_millis(1)..=LONGEST).contains(&time);
        let duration = "from a millisecond to 366 days";
        let head_bytes = self.target_bytes.saturating_add(1)..=1 << 30;
        let rules = [
            ("target_bytes", self.target_bytes > 0, "at least 1"),
            ("head_bytes", head_bytes.contains(&self.head_bytes), "more than target_bytes, up to 1 GiB"),
            ("fields", self.fields > 0, "at least 1"),
            ("head_deadline", is_duration(self.head_deadline), duration),
            ("content_deadline", is_duration(self.content_deadline), duration),
            ("lines_idle", is_duration(self.lines_idle), duration),
            ("idle", is_duration(self.idle), duration),
            ("write_stall", is_duration(self.write_stall), duration),
            ("connections", self.connections > 0, "at least 1"),
            ("waiting", self.waiting > 0, "at least 1"),
        ];
        match rules.into_iter().find(|(_, is_kept, _)| !is_kept) {
            Some((field, _, rule)) => Err(InvalidLimits { field, rule }),
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
