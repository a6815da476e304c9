//! The stream of one channel, for publishers and subscribers: they ask the reader, and wait until a deadline.

use super::entry::{Content, Mirror, add};
use super::link::refused;
use super::pipeline::Answer;
use super::resp::Reply;
use super::shared::{Followed, Redis, Shared};
use crate::http::lock::hold;
use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The pause before a command that was not sent is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why a stream was not read in time, or an entry not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Redis cannot be used now. The entry is not in the stream.
    Down,
    /// The entry may be in the stream.
    Unknown,
}

/// The stream of one channel.
pub(crate) struct Stream {
    redis: Arc<Redis>,
    key: Arc<str>,
    mirror: Weak<dyn Mirror>,
}

impl Redis {
    /// The stream of the channel with this name. Braces keep all keys of a channel in one slot of a cluster.
    pub(crate) fn stream(self: &Arc<Redis>, name: &str, mirror: Weak<dyn Mirror>) -> Stream {
        let key = format!("{}{{{name}}}", self.options.prefix).into();
        Stream { redis: Arc::clone(self), key, mirror }
    }
}

impl Stream {
    /// Waits until the mirror holds the end of the stream as this connection to Redis has it. It follows from then on.
    pub(crate) fn follow(&self, deadline: Instant) -> Result<(), Failure> {
        self.wait_for_read(false, deadline)
    }

    /// Waits until the mirror holds everything that is in the stream now.
    pub(crate) fn refresh(&self, deadline: Instant) -> Result<(), Failure> {
        self.wait_for_read(true, deadline)
    }

    fn wait_for_read(&self, must_be_new: bool, deadline: Instant) -> Result<(), Failure> {
        let mut shared = hold(&self.redis.shared);
        let session = shared.session.map(|session| session.number);
        let followed = self.followed(&mut shared);
        followed.touched = Instant::now();
        if !must_be_new && followed.last.is_some() && Some(followed.session) == session {
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
                return if followed.last.is_some() { Ok(()) } else { Err(Failure::Down) };
            }
            shared = self.redis.wait(shared, deadline).ok_or(Failure::Down)?;
        }
    }

    /// A mirror takes the place of another one that is gone.
    fn followed<'s>(&self, shared: &'s mut Shared) -> &'s mut Followed {
        let new = || Followed::new(&self.mirror);
        let followed = shared.streams.entry(Arc::clone(&self.key)).or_insert_with(new);
        if !Weak::ptr_eq(&followed.mirror, &self.mirror) {
            *followed = new();
        }
        followed
    }

    /// Adds an entry, and gives its id. `oldest` is the id before which the stream may be trimmed.
    ///
    /// A command is never sent again when its reply is lost: Redis may have it. If it has, the reader meets its token.
    pub(crate) fn add(&self, content: &Content, oldest: Option<&str>, deadline: Instant) -> Result<String, Failure> {
        let token = format!("{}-{}", self.redis.nonce, self.redis.tokens.fetch_add(1, Relaxed));
        let wire = add(&self.key, content, &token, oldest);
        hold(&self.redis.shared).awaited.insert(token.clone(), None);
        let outcome = match self.send(wire, deadline) {
            Answer::Reply(Reply::Text(id)) => String::from_utf8(id).map_err(|_| Failure::Unknown),
            Answer::Reply(Reply::Error(said)) => {
                self.redis.report(&refused(&said));
                Err(Failure::Down)
            }
            Answer::NotSent => Err(Failure::Down),
            Answer::NotReplicated => Err(Failure::Unknown),
            Answer::Lost | Answer::Reply(_) => self.await_entry(&token, deadline),
        };
        hold(&self.redis.shared).awaited.remove(&token);
        outcome
    }

    fn send(&self, wire: Vec<u8>, deadline: Instant) -> Answer {
        let mut shared = hold(&self.redis.shared);
        loop {
            let Some(session) = shared.session else {
                match self.redis.wait(shared, deadline) {
                    Some(waited) => shared = waited,
                    None => return Answer::NotSent,
                }
                continue;
            };
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
    }

    fn await_entry(&self, token: &str, deadline: Instant) -> Result<String, Failure> {
        let mut shared = hold(&self.redis.shared);
        loop {
            if let Some(Some(id)) = shared.awaited.get(token) {
                return Ok(id.clone());
            }
            shared = self.redis.wait(shared, deadline).ok_or(Failure::Unknown)?;
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
