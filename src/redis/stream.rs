//! What the threads of this process share of Redis: the streams that are followed, and the way to add to one.
//!
//! The thread of [`reader`](super::reader) is the only one that reads streams, and the only one that changes a mirror. A
//! thread that needs something from it asks here, and waits until a deadline.

use super::entry::{Bounds, Content, Mirror, add};
use super::link::{Answer, Options, Pipeline, Session, is_of_no_master, random, refused};
use super::resp::Reply;
use crate::http::lock::hold;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A connection that is lost for so long will not be back in a moment: nothing waits for it any more.
const KNOWN_DOWN: Duration = Duration::from_secs(2);

/// A stream that nothing was asked of for so long, and that has no subscriber, is not followed any more.
const UNASKED: Duration = Duration::from_secs(60);

/// The pause before a command that was not sent is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Redis, for one server.
pub(crate) struct Redis {
    pub(super) options: Options,
    pub(super) bounds: Bounds,
    pub(super) shared: Mutex<Shared>,
    pub(super) counters: Counters,
    changed: Condvar,
    pipeline: Pipeline,
    /// Tells the tokens of this process from those of others.
    nonce: String,
    tokens: AtomicU64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) reconnects: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) resets: AtomicU64,
    pub(super) skipped: AtomicU64,
}

/// What is known of Redis at a moment, for `/metrics`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Whether streams are read now. Without this a server can neither publish nor serve a client that comes.
    pub(crate) is_connected: bool,
    pub(crate) streams: usize,
    /// Streams that have changed and are not read yet: how far the server lags behind.
    pub(crate) behind: usize,
    /// Commands that wait to be sent, and their bytes.
    pub(crate) waiting: usize,
    pub(crate) waiting_bytes: usize,
    pub(crate) reconnects: u64,
    pub(crate) errors: u64,
    /// Streams that had lost what their mirror had.
    pub(crate) resets: u64,
    /// Entries that are no event, or cannot be held.
    pub(crate) skipped: u64,
}

pub(super) struct Shared {
    pub(super) streams: HashMap<Arc<str>, Followed>,
    /// The keys of the streams that are to be read.
    pub(super) due: BTreeSet<Arc<str>>,
    /// `None` while there is no connection.
    pub(super) session: Option<Session>,
    down_since: Instant,
    /// The socket of the reader while it waits for a push. What takes it out may write one PING to wake the reader.
    pub(super) asleep: Option<Arc<TcpStream>>,
    pub(super) socket: Option<Arc<TcpStream>>,
    /// The tokens of commands whose reply is awaited, and the id under which the reader has met one.
    pub(super) awaited: HashMap<String, Option<String>>,
    /// Idempotency keys, behind the key of their stream, with which an event is being published.
    claimed: HashSet<String>,
    /// The last line on standard error.
    said: String,
    pub(super) is_stopped: bool,
}

pub(super) struct Followed {
    pub(super) mirror: Weak<dyn Mirror>,
    /// Whether the mirror holds the end of the stream, up to `last`.
    pub(super) is_warm: bool,
    /// The last entry that was read; `None` when the stream was empty.
    pub(super) last: Option<String>,
    /// Each request has a number. A read answers all that came before it.
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// The session in which it was read last.
    pub(super) session: u64,
    touched: Instant,
}

impl Followed {
    pub(super) fn is_unasked(&self) -> bool {
        self.touched.elapsed() > UNASKED
    }
}

/// Redis cannot be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Down;

/// Why an entry was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddError {
    /// It is not in the stream.
    Unavailable,
    /// It may be in the stream.
    Unknown,
}

impl Redis {
    pub(super) fn new(options: Options, bounds: Bounds) -> Redis {
        let shared = Shared {
            streams: HashMap::new(),
            due: BTreeSet::new(),
            session: None,
            down_since: Instant::now(),
            asleep: None,
            socket: None,
            awaited: HashMap::new(),
            claimed: HashSet::new(),
            said: String::new(),
            is_stopped: false,
        };
        Redis {
            pipeline: Pipeline::new(options.clone()),
            options,
            bounds,
            shared: Mutex::new(shared),
            counters: Counters::default(),
            changed: Condvar::new(),
            nonce: format!("{:016x}", random()),
            tokens: AtomicU64::new(0),
        }
    }

    /// The stream of the channel with this name. Braces keep all keys of a channel in one slot of a cluster.
    pub(crate) fn stream(self: &Arc<Redis>, name: &str, mirror: Weak<dyn Mirror>) -> Stream {
        let key = format!("{}{{{name}}}", self.options.prefix).into();
        Stream { redis: Arc::clone(self), key, mirror }
    }

    pub(crate) fn figures(&self) -> Figures {
        let (waiting, waiting_bytes) = self.pipeline.waiting();
        let shared = hold(&self.shared);
        Figures {
            is_connected: shared.session.is_some(),
            streams: shared.streams.len(),
            behind: shared.due.len(),
            waiting,
            waiting_bytes,
            reconnects: self.counters.reconnects.load(Relaxed),
            errors: self.counters.errors.load(Relaxed),
            resets: self.counters.resets.load(Relaxed),
            skipped: self.counters.skipped.load(Relaxed),
        }
    }

    /// Ends the thread that reads, and all waits.
    pub(crate) fn stop(&self) {
        hold(&self.shared).is_stopped = true;
        self.leave();
        self.changed.notify_all();
    }

    /// Ends the session of the reader, which then connects again, perhaps to another server.
    fn leave(&self) {
        if let Some(socket) = hold(&self.shared).socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn begin_session(&self, number: u64, address: SocketAddr, socket: &Arc<TcpStream>) {
        let shared = &mut *hold(&self.shared);
        shared.session = Some(Session { number, address });
        shared.socket = Some(Arc::clone(socket));
        // Whatever was known of a stream may be wrong: this may be another server, or one without its data.
        shared.due = shared.streams.keys().cloned().collect();
        self.changed.notify_all();
    }

    pub(super) fn end_session(&self) {
        let shared = &mut *hold(&self.shared);
        if shared.session.take().is_some() {
            shared.down_since = Instant::now();
        }
        (shared.asleep, shared.socket) = (None, None);
        self.changed.notify_all();
    }

    /// Waits for so long, or until the channels are stopped. Returns whether they are not.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let goes_on = |shared: &mut Shared| !shared.is_stopped;
        let waited = self.changed.wait_timeout_while(hold(&self.shared), time, goes_on);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped
    }

    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    pub(super) fn is_own(&self, token: &str) -> bool {
        token.starts_with(&self.nonce)
    }

    /// Counts an error, and says it.
    pub(super) fn report(&self, error: &io::Error) {
        self.counters.errors.fetch_add(1, Relaxed);
        self.say(error.to_string());
    }

    /// A line on standard error. The same sentence for each of a thousand commands is said once.
    pub(super) fn say(&self, what: String) {
        let line = format!("newswire: Redis at {}: {what}\n", self.options.address);
        let is_new = {
            let said = &mut hold(&self.shared).said;
            *said != what && {
                *said = what;
                true
            }
        };
        if is_new {
            // There is no other place to say that standard error is closed.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }

    /// Waits for a change, at most until then. `None` when that has passed, or Redis is known to be down.
    fn wait<'s>(
        &self,
        shared: MutexGuard<'s, Shared>,
        deadline: Instant,
    ) -> Option<MutexGuard<'s, Shared>> {
        let gives_up_at = match shared.session {
            None => deadline.min(shared.down_since + KNOWN_DOWN),
            Some(_) => deadline,
        };
        let left = gives_up_at.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.is_stopped {
            return None;
        }
        Some(self.changed.wait_timeout(shared, left).unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// The stream of one channel.
pub(crate) struct Stream {
    redis: Arc<Redis>,
    key: Arc<str>,
    mirror: Weak<dyn Mirror>,
}

/// An idempotency key with which no other thread of this process publishes meanwhile.
pub(crate) struct Claim<'s> {
    stream: &'s Stream,
    claimed: String,
}

impl Stream {
    /// Waits until the mirror holds the end of the stream as this connection to Redis has it. It follows from then on.
    pub(crate) fn follow(&self, deadline: Instant) -> Result<(), Down> {
        self.wait_for_read(false, deadline)
    }

    /// Waits until the mirror holds everything that is in the stream now.
    pub(crate) fn refresh(&self, deadline: Instant) -> Result<(), Down> {
        self.wait_for_read(true, deadline)
    }

    fn wait_for_read(&self, must_be_new: bool, deadline: Instant) -> Result<(), Down> {
        let mut shared = hold(&self.redis.shared);
        let session = shared.session.map(|session| session.number);
        let followed = self.followed(&mut shared);
        followed.touched = Instant::now();
        if !must_be_new && followed.is_warm && Some(followed.session) == session {
            return Ok(());
        }
        followed.asked += 1;
        let number = followed.asked;
        shared.due.insert(Arc::clone(&self.key));
        if let Some(socket) = shared.asleep.take() {
            drop(shared);
            // All commands of the reader are answered while it sleeps, so there is room for these bytes.
            let _ = (&*socket).write_all(b"PING\r\n");
            shared = hold(&self.redis.shared);
        }
        loop {
            let session = shared.session.map(|session| session.number);
            let followed = self.followed(&mut shared);
            if followed.answered >= number && Some(followed.session) == session {
                return if followed.is_warm { Ok(()) } else { Err(Down) };
            }
            shared = self.redis.wait(shared, deadline).ok_or(Down)?;
        }
    }

    /// A mirror takes the place of another one that is gone.
    fn followed<'s>(&self, shared: &'s mut Shared) -> &'s mut Followed {
        let new = || Followed {
            mirror: Weak::clone(&self.mirror),
            is_warm: false,
            last: None,
            asked: 0,
            answered: 0,
            session: 0,
            touched: Instant::now(),
        };
        let followed = shared.streams.entry(Arc::clone(&self.key)).or_insert_with(new);
        if !Weak::ptr_eq(&followed.mirror, &self.mirror) {
            *followed = new();
        }
        followed
    }

    /// Waits until no other thread publishes with this idempotency key.
    pub(crate) fn claim(&self, key: &str, deadline: Instant) -> Result<Claim<'_>, Down> {
        let claimed = format!("{}\n{key}", self.key);
        let mut shared = hold(&self.redis.shared);
        while shared.claimed.contains(&claimed) {
            shared = self.redis.wait(shared, deadline).ok_or(Down)?;
        }
        shared.claimed.insert(claimed.clone());
        Ok(Claim { stream: self, claimed })
    }

    /// Adds an entry, and gives its id. `oldest` is the id before which the stream may be trimmed.
    ///
    /// A command whose reply is lost is never sent again: Redis may have it. If it has, the reader meets its token.
    pub(crate) fn add(
        &self,
        content: &Content,
        oldest: Option<&str>,
        deadline: Instant,
    ) -> Result<String, AddError> {
        let token = format!("{}-{}", self.redis.nonce, self.redis.tokens.fetch_add(1, Relaxed));
        let wire = add(&self.key, content, &token, oldest);
        hold(&self.redis.shared).awaited.insert(token.clone(), None);
        let outcome = match self.send(wire, deadline) {
            Answer::Reply(Reply::Text(id)) => String::from_utf8(id).map_err(|_| AddError::Unknown),
            Answer::Reply(Reply::Error(said)) => {
                self.redis.report(&refused(&said));
                if is_of_no_master(&said) {
                    self.redis.leave();
                }
                Err(AddError::Unavailable)
            }
            Answer::NotSent => Err(AddError::Unavailable),
            Answer::NotReplicated => Err(AddError::Unknown),
            Answer::Lost | Answer::Reply(_) => self.meet(&token, deadline),
        };
        hold(&self.redis.shared).awaited.remove(&token);
        outcome
    }

    fn send(&self, wire: Vec<u8>, deadline: Instant) -> Answer {
        let mut shared = hold(&self.redis.shared);
        loop {
            if let Some(session) = shared.session {
                drop(shared);
                let answer = self.redis.pipeline.run(wire.clone(), session, deadline);
                let is_over = Instant::now() + RETRY_PAUSE >= deadline;
                if is_over || !matches!(answer, Answer::NotSent) {
                    return answer;
                }
                // The reader may not have noticed yet that its server has gone.
                self.redis.pause(RETRY_PAUSE);
                shared = hold(&self.redis.shared);
            }
            if shared.session.is_none() {
                let Some(waited) = self.redis.wait(shared, deadline) else {
                    return Answer::NotSent;
                };
                shared = waited;
            }
        }
    }

    fn meet(&self, token: &str, deadline: Instant) -> Result<String, AddError> {
        let mut shared = hold(&self.redis.shared);
        loop {
            if let Some(Some(id)) = shared.awaited.get(token) {
                return Ok(id.clone());
            }
            shared = self.redis.wait(shared, deadline).ok_or(AddError::Unknown)?;
        }
    }
}

/// Otherwise clients that ask for one name after the other would fill the memory.
impl Drop for Stream {
    fn drop(&mut self) {
        let shared = &mut *hold(&self.redis.shared);
        let is_own = |followed: &Followed| Weak::ptr_eq(&followed.mirror, &self.mirror);
        if shared.streams.get(&self.key).is_some_and(is_own) {
            shared.streams.remove(&self.key);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        hold(&self.stream.redis.shared).claimed.remove(&self.claimed);
        self.stream.redis.changed.notify_all();
    }
}
