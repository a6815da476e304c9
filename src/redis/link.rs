//! The way to Redis: a connection with deadlines, and the pauses between two attempts to connect.

use super::resp::{Replies, Reply, encode};
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// A connection that owes a reply and sends no byte for so long is dead: its peer may have vanished without a word.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// Where Redis is, and what the server says to it. It is Redis 6.2 or later, or Valkey, and not a cluster.
///
/// ```
/// use newswire::channel::{RedisOptions, Storage};
///
/// let address = "redis.example:6379".to_owned();
/// let storage = Storage::Redis(RedisOptions { address, wait: 1, ..RedisOptions::default() });
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `HOST:PORT`. Each address of a name is tried in turn, and the name is resolved again for each connection.
    pub address: String,
    /// A user of its ACL; the default user.
    pub user: Option<String>,
    /// The password; none. It is never shown.
    pub password: Option<String>,
    /// The number of the database; 0.
    pub db: u32,
    /// What the key of each channel begins with; `newswire:`. The name follows in braces, as `newswire:{news}`.
    pub prefix: String,
    /// How many replicas must have an event before its publisher is told that it is published; 0.
    pub wait: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            address: "127.0.0.1:6379".into(),
            user: None,
            password: None,
            db: 0,
            prefix: "newswire:".into(),
            wait: 0,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What Redis refuses for good: another attempt with the same options fails, too.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}

/// An error that Redis sent. What it says is shown, without what could control a terminal.
pub(super) fn refused(said: &str) -> io::Error {
    let shown: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
    let is_final =
        ["NOAUTH ", "WRONGPASS ", "NOPERM ", "NOPROTO "].iter().any(|code| said.starts_with(code))
            || said.starts_with("ERR ") && !said.contains("max number of clients");
    let is_cluster = ["MOVED ", "CLUSTERDOWN "].iter().any(|code| said.starts_with(code));
    let hint =
        if is_cluster { "; it is a Redis Cluster, which newswire does not speak" } else { "" };
    let kind = if is_final { ErrorKind::PermissionDenied } else { ErrorKind::Other };
    io::Error::new(kind, format!("Redis says: {shown}{hint}"))
}

pub(super) fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "Redis sent what is not a reply to the command")
}

/// An error of a server that is not, or no longer, the master.
pub(super) fn is_of_no_master(error: &str) -> bool {
    ["READONLY", "LOADING", "MASTERDOWN"].iter().any(|code| error.starts_with(code))
}

/// A connection on which HELLO was said, in RESP3.
pub(super) struct Connection {
    pub(super) socket: Arc<TcpStream>,
    pub(super) address: SocketAddr,
    replies: Replies,
    buffer: Box<[u8]>,
    /// The bytes of the buffer that were read and not looked at.
    unread: std::ops::Range<usize>,
    read_timeout: Duration,
}

impl Connection {
    /// Connects to a master at one of the addresses. Strings of more than `string_bytes` are dropped from replies. `then`
    /// are commands that must succeed.
    pub(super) fn open(
        options: &Options,
        string_bytes: usize,
        then: &[&[&str]],
    ) -> io::Result<Connection> {
        let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in options.address.to_socket_addrs()? {
            let deadline = Instant::now() + SILENCE;
            match Connection::open_at(address, options, string_bytes, then, deadline) {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    pub(super) fn open_at(
        address: SocketAddr,
        options: &Options,
        string_bytes: usize,
        then: &[&[&str]],
        deadline: Instant,
    ) -> io::Result<Connection> {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = left.clamp(Duration::from_millis(1), CONNECT_DEADLINE);
        let socket = TcpStream::connect_timeout(&address, patience)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(SILENCE))?;
        socket.set_read_timeout(Some(SILENCE))?;
        // What HELLO says has room in any case, and so have the entry that a read begins with and one more.
        let string_bytes = string_bytes.max(1024);
        let reply_bytes = string_bytes.saturating_mul(3).saturating_add(64 * 1024);
        let mut connection = Connection {
            socket: Arc::new(socket),
            address,
            replies: Replies::new(string_bytes, reply_bytes),
            buffer: vec![0; 32 * 1024].into(),
            unread: 0..0,
            read_timeout: SILENCE,
        };
        let mut hello = vec!["HELLO", "3"];
        if let Some(password) = &options.password {
            let user = options.user.as_deref().unwrap_or("default");
            hello.extend(["AUTH", user, password]);
        }
        let db = options.db.to_string();
        let select = ["SELECT", &db];
        let commands: Vec<&[&str]> = [&[&hello[..], &select], then].concat();
        let mut wire = Vec::new();
        commands.iter().for_each(|command| encode(command, &mut wire));
        connection.send(&wire)?;
        for at in 0..commands.len() {
            match connection.reply_before(deadline)? {
                None => return Err(ErrorKind::TimedOut.into()),
                Some(Reply::Error(said)) => return Err(refused(&said)),
                Some(hello) if at == 0 => {
                    check_version(&hello).and_then(|()| check_role(&hello))?
                }
                Some(_) => {}
            }
        }
        Ok(connection)
    }

    pub(super) fn send(&mut self, wire: &[u8]) -> io::Result<()> {
        (&*self.socket).write_all(wire)
    }

    /// The next reply. Each byte restarts the deadline.
    pub(super) fn reply(&mut self) -> io::Result<Reply> {
        loop {
            match self.next(SILENCE)? {
                Some(Some(reply)) => return Ok(reply),
                Some(None) => {}
                None => return Err(ErrorKind::TimedOut.into()),
            }
        }
    }

    /// The next reply, if it is whole before the deadline.
    pub(super) fn reply_before(&mut self, deadline: Instant) -> io::Result<Option<Reply>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left)? {
                Some(Some(reply)) => return Ok(Some(reply)),
                Some(None) if !left.is_zero() => {}
                _ => return Ok(None),
            }
        }
    }

    /// Whether a reply may be in memory already.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// One look at what has arrived, or one read. `None` when no byte comes in time, `Some(None)` when no reply is whole.
    fn next(&mut self, patience: Duration) -> io::Result<Option<Option<Reply>>> {
        if self.unread.is_empty() {
            // A system call before each read would be as dear as the read itself.
            let patience = patience.max(Duration::from_millis(1));
            if self.read_timeout.abs_diff(patience) > Duration::from_millis(20) {
                self.socket.set_read_timeout(Some(patience))?;
                self.read_timeout = patience;
            }
            self.unread = match (&*self.socket).read(&mut self.buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => 0..length,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Some(None)),
                Err(error) => return Err(error),
            };
        }
        let mut input = &self.buffer[self.unread.clone()];
        let reply = self.replies.next(&mut input).map_err(|_| malformed())?;
        self.unread.start = self.unread.end - input.len();
        Ok(Some(reply))
    }
}

fn hello_field<'h>(hello: &'h Reply, name: &str) -> Option<&'h str> {
    let Reply::List(values) = hello else { return None };
    let pair = values.chunks_exact(2).find(|pair| pair[0] == Reply::Text(name.into()))?;
    if let Reply::Text(value) = &pair[1] { str::from_utf8(value).ok() } else { None }
}

/// A replica lags behind its master and takes no event. HELLO says the role of the server.
pub(super) fn check_role(hello: &Reply) -> io::Result<()> {
    match hello_field(hello, "role") {
        Some("master") => Ok(()),
        Some(_) => Err(io::Error::other("it is a replica, not a master")),
        None => Err(malformed()),
    }
}

/// XADD with MINID, and a range that excludes its end, came with Redis 6.2.
fn check_version(hello: &Reply) -> io::Result<()> {
    let version = hello_field(hello, "version").unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 2) => {
            let sentence = format!("it is Redis {major}.{minor}, and newswire needs 6.2");
            Err(io::Error::new(ErrorKind::PermissionDenied, sentence))
        }
        _ => Ok(()),
    }
}

/// How long to wait before each attempt to connect. With full jitter, servers that lost Redis in one instant do not come
/// back in one instant.
#[derive(Default)]
pub(super) struct BackOff {
    attempts: u32,
}

impl BackOff {
    pub(super) fn next(&mut self) -> Duration {
        let most = Duration::from_millis(50 << self.attempts.min(6)).min(Duration::from_secs(2));
        self.attempts += 1;
        most.mul_f64(random() as f64 / u64::MAX as f64)
    }
}

/// The keys of a hash map are the one source of randomness in the standard library.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
