//! The way to Redis: a connection with deadlines, and the pipeline in which all publishers of this process share one.

use super::resp::{Replies, Reply, encode};
use crate::http::lock::hold;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// A connection that owes a reply and sends no byte for so long is dead: its peer may have vanished without a word.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// The commands that wait for the pipeline. More are refused: Redis is slower than the publishers.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// How long Redis waits for its replicas, with [`Options::wait`].
const REPLICA_MS: &[u8] = b"500";

/// Where Redis is, and what the server says to it.
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
    /// Connects to a master at one of the addresses, with replies whose longest string is `string_bytes`. `then` are
    /// commands that must succeed.
    pub(super) fn open(
        options: &Options,
        string_bytes: usize,
        then: &[&[&[u8]]],
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
        then: &[&[&[u8]]],
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
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &options.password {
            let user = options.user.as_deref().unwrap_or("default");
            hello.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        let db = options.db.to_string();
        let select: &[&[u8]] = &[b"SELECT", db.as_bytes()];
        let commands: Vec<&[&[u8]]> =
            [&hello[..], select].into_iter().chain(then.iter().copied()).collect();
        let mut wire = Vec::new();
        commands.iter().for_each(|command| encode(command, &mut wire));
        connection.send(&wire)?;
        for at in 0..commands.len() {
            match connection.reply_before(deadline)? {
                None => return Err(ErrorKind::TimedOut.into()),
                Some(Reply::Error(said)) => return Err(refused(&said)),
                Some(hello) if at == 0 => check_role(&hello)?,
                Some(_) => {}
            }
        }
        Ok(connection)
    }

    pub(super) fn send(&mut self, wire: &[u8]) -> io::Result<()> {
        (&*self.socket).write_all(wire)
    }

    /// The next reply. Each byte proves that the peer is there.
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
            // A system call for each read would be as dear as the read itself.
            let patience = patience.max(Duration::from_millis(1));
            if self.read_timeout.abs_diff(patience) > Duration::from_millis(50)
                || patience < self.read_timeout / 2
            {
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

/// A replica lags behind its master and takes no event. HELLO says the role of the server.
pub(super) fn check_role(hello: &Reply) -> io::Result<()> {
    let Reply::List(values) = hello else { return Err(malformed()) };
    let role = values.chunks(2).find(|pair| pair[0] == Reply::Text(b"role".into()));
    match role.and_then(|pair| pair.get(1)) {
        Some(Reply::Text(role)) if role == b"master" => Ok(()),
        _ => Err(io::Error::other("it is a replica, not a master")),
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

/// What became of a command.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Reply(Reply),
    /// No byte of it has left.
    NotSent,
    /// It was sent, perhaps in part, and no reply has come.
    Lost,
    /// Redis has it, and too few of its replicas do.
    NotReplicated,
}

/// The commands of all publishers of this process, on one connection. The first publisher that finds no leader becomes
/// it: it sends all commands that wait with one write, and reads their replies. Meanwhile the next batch gathers.
pub(super) struct Pipeline {
    options: Options,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Arc<Request>>,
    bytes: usize,
    has_leader: bool,
    /// With the number of the session that it belongs to. It is here while no leader has it.
    connection: Option<(u64, Connection)>,
}

struct Request {
    wire: Vec<u8>,
    deadline: Instant,
    answer: Mutex<Option<Answer>>,
}

/// The connection of the reader: publishers follow it to another server, and leave a server together with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) address: SocketAddr,
}

impl Pipeline {
    pub(super) fn new(options: Options) -> Pipeline {
        Pipeline { options, queue: Mutex::default(), changed: Condvar::new() }
    }

    /// Commands that wait, and their bytes.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let queue = hold(&self.queue);
        (queue.waiting.len(), queue.bytes)
    }

    /// Sends a command and waits for its reply until the deadline.
    pub(super) fn run(&self, wire: Vec<u8>, session: Session, deadline: Instant) -> Answer {
        let request = Arc::new(Request { wire, deadline, answer: Mutex::default() });
        let mut queue = hold(&self.queue);
        if !queue.waiting.is_empty() && queue.bytes + request.wire.len() > QUEUE_BYTES {
            return Answer::NotSent;
        }
        queue.bytes += request.wire.len();
        queue.waiting.push(Arc::clone(&request));
        loop {
            if let Some(answer) = hold(&request.answer).take() {
                return answer;
            }
            let at = queue.waiting.iter().position(|waiting| Arc::ptr_eq(waiting, &request));
            let left = deadline.saturating_duration_since(Instant::now());
            queue = match at {
                Some(at) if left.is_zero() => {
                    queue.waiting.remove(at);
                    queue.bytes -= request.wire.len();
                    return Answer::NotSent;
                }
                Some(_) if !queue.has_leader => {
                    let batch = Batch::take(self, &mut queue, session);
                    drop(queue);
                    batch.exchange(session.address, deadline);
                    hold(&self.queue)
                }
                None if left.is_zero() => return Answer::Lost,
                _ => {
                    self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// What a leader has taken out of the queue. Dropping it gives every request an answer, and the lead away.
struct Batch<'p> {
    pipeline: &'p Pipeline,
    requests: Vec<Arc<Request>>,
    session: u64,
    /// `None` when there was none, and after a failure.
    connection: Option<Connection>,
}

impl<'p> Batch<'p> {
    fn take(pipeline: &'p Pipeline, queue: &mut Queue, session: Session) -> Batch<'p> {
        let now = Instant::now();
        // The threads of the others are about to give up.
        let (requests, late) =
            std::mem::take(&mut queue.waiting).into_iter().partition(|it| now < it.deadline);
        queue.waiting = late;
        queue.bytes = queue.waiting.iter().map(|request| request.wire.len()).sum();
        queue.has_leader = true;
        let connection = queue.connection.take().filter(|(number, _)| *number == session.number);
        let connection = connection.map(|(_, connection)| connection);
        Batch { pipeline, requests, session: session.number, connection }
    }

    fn exchange(mut self, address: SocketAddr, deadline: Instant) {
        let options = &self.pipeline.options;
        let opened = match self.connection.take() {
            Some(connection) => Ok(connection),
            // A reply is an id or an error.
            None => Connection::open_at(address, options, 1024, &[], deadline),
        };
        let Ok(mut connection) = opened else {
            self.requests.iter().for_each(|request| request.answer(Answer::NotSent));
            return;
        };
        let mut wire =
            self.requests.iter().map(|request| &request.wire[..]).collect::<Vec<_>>().concat();
        if options.wait > 0 {
            encode(&[b"WAIT", options.wait.to_string().as_bytes(), REPLICA_MS], &mut wire);
        }
        let mut replies = Vec::new();
        if connection.send(&wire).is_ok() {
            let next = || connection.reply_before(deadline).ok().flatten();
            replies.extend(
                std::iter::from_fn(next).take(self.requests.len() + usize::from(options.wait > 0)),
            );
        }
        let replicas = (options.wait > 0).then(|| replies.get(self.requests.len()));
        let is_replicated = match replicas {
            None => true,
            Some(replicas) => {
                matches!(replicas, Some(Reply::Number(count)) if *count >= i64::from(options.wait))
            }
        };
        // A connection that has not answered in time, or whose server is no master now, is not used again.
        let is_whole = replies.len() == self.requests.len() + usize::from(options.wait > 0);
        let is_refused =
            |reply: &Reply| matches!(reply, Reply::Error(said) if is_of_no_master(said));
        if is_whole && !replies.iter().any(is_refused) {
            self.connection = Some(connection);
        }
        for (request, reply) in self.requests.iter().zip(replies) {
            let is_kept = is_replicated || matches!(reply, Reply::Error(_));
            request.answer(if is_kept { Answer::Reply(reply) } else { Answer::NotReplicated });
        }
    }
}

impl Request {
    fn answer(&self, answer: Answer) {
        *hold(&self.answer) = Some(answer);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for request in &self.requests {
            hold(&request.answer).get_or_insert(Answer::Lost);
        }
        let mut queue = hold(&self.pipeline.queue);
        queue.connection = self.connection.take().map(|connection| (self.session, connection));
        queue.has_leader = false;
        drop(queue);
        self.pipeline.changed.notify_all();
    }
}

/// A server that says so may be one that a failover has left behind.
pub(super) fn is_of_no_master(error: &str) -> bool {
    ["READONLY", "LOADING", "MASTERDOWN"].iter().any(|code| error.starts_with(code))
}
