//! The way to Redis: a connection with deadlines, and the pauses between two attempts to connect.

use super::resp::{Most, Reply, encode, malformed};
use crate::http::back_off::random_fraction;
use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
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
    let is_final = ["NOAUTH ", "WRONGPASS ", "NOPERM ", "NOPROTO "].iter().any(|code| said.starts_with(code))
        || said.starts_with("ERR ") && !said.contains("max number of clients");
    let is_cluster = ["MOVED ", "CLUSTERDOWN "].iter().any(|code| said.starts_with(code));
    let hint = if is_cluster { "; it is a Redis Cluster, which newswire does not speak" } else { "" };
    let kind = if is_final { ErrorKind::PermissionDenied } else { ErrorKind::Other };
    io::Error::new(kind, format!("Redis says: {shown}{hint}"))
}

/// An error of a server that is not, or no longer, the master.
pub(super) fn is_of_no_master(error: &str) -> bool {
    ["READONLY", "LOADING", "MASTERDOWN"].iter().any(|code| error.starts_with(code))
}

/// A connection on which HELLO was said, in RESP3.
pub(super) struct Connection {
    pub(super) socket: Arc<TcpStream>,
    pub(super) address: SocketAddr,
    input: BufReader<Patient>,
    most: Most,
}

/// Reads with patience: each byte proves that the peer is there, so it may come as late as [`SILENCE`], or as a deadline.
struct Patient {
    socket: Arc<TcpStream>,
    deadline: Option<Instant>,
    read_timeout: Duration,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.map_or(SILENCE, |it| it.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        // A system call before each read would be as dear as the read itself.
        let patience = left.max(Duration::from_millis(1));
        if self.read_timeout.abs_diff(patience) > Duration::from_millis(20) {
            self.socket.set_read_timeout(Some(patience))?;
            self.read_timeout = patience;
        }
        (&*self.socket).read(buffer).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

impl Connection {
    /// Connects to a master at one of the addresses. Strings of more than `string_bytes` are dropped from replies. `then`
    /// are commands that must succeed.
    pub(super) fn open(options: &Options, string_bytes: usize, then: &[&[&str]]) -> io::Result<Connection> {
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
        let socket = Arc::new(TcpStream::connect_timeout(&address, patience)?);
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(SILENCE))?;
        socket.set_read_timeout(Some(SILENCE))?;
        let input = Patient { socket: Arc::clone(&socket), deadline: None, read_timeout: SILENCE };
        let input = BufReader::with_capacity(32 * 1024, input);
        // What HELLO says has room in any case, and so have the entry that a read begins with and one more.
        let string_bytes = string_bytes.max(1024);
        let reply_bytes = string_bytes.saturating_mul(3).saturating_add(64 * 1024);
        let most = Most { string_bytes, reply_bytes };
        let mut connection = Connection { socket, address, input, most };
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
                Reply::Error(said) => return Err(refused(&said)),
                hello if at == 0 => check_version(&hello).and_then(|()| check_role(&hello))?,
                _ => {}
            }
        }
        Ok(connection)
    }

    pub(super) fn send(&mut self, wire: &[u8]) -> io::Result<()> {
        (&*self.socket).write_all(wire)
    }

    /// The next reply. Each byte restarts the deadline.
    pub(super) fn reply(&mut self) -> io::Result<Reply> {
        self.input.get_mut().deadline = None;
        self.most.read(&mut self.input)
    }

    /// The next reply, if it is whole before the deadline.
    pub(super) fn reply_before(&mut self, deadline: Instant) -> io::Result<Reply> {
        self.input.get_mut().deadline = Some(deadline);
        self.most.read(&mut self.input)
    }

    /// Waits until a reply begins, or the peer closes, or until the deadline.
    pub(super) fn wait_until(&mut self, deadline: Instant) -> io::Result<()> {
        self.input.get_mut().deadline = Some(deadline);
        match self.input.fill_buf() {
            Ok([]) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::TimedOut) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the beginning of a reply is in memory.
    pub(super) fn has_unread(&self) -> bool {
        !self.input.buffer().is_empty()
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

/// How long to wait after so many attempts to connect. With full jitter, servers that lost Redis in one instant do not come
/// back in one instant.
pub(super) fn back_off(attempts: u32) -> Duration {
    let most = Duration::from_millis(50 << attempts.min(6)).min(Duration::from_secs(2));
    most.mul_f64(random_fraction())
}
