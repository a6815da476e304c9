//! The pipeline: the commands of all publishers of this process, on one connection.
//!
//! The first publisher that finds no leader becomes the leader: it sends all commands that wait with one write, and reads
//! their replies. Meanwhile the next batch gathers.

use super::link::{Connection, Options, is_of_no_master};
use super::resp::{Reply, encode};
use crate::http::lock::hold;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// The commands that wait for the pipeline. More are refused: Redis is slower than the publishers.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// How long Redis waits for its replicas, if `--redis-wait` asks for some.
const REPLICA_MS: &str = "500";

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

pub(super) struct Pipeline {
    options: Options,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Arc<Request>>,
    has_leader: bool,
    /// The connection and the number of its session. `None` while a leader has it.
    connection: Option<(u64, Connection)>,
}

impl Queue {
    fn bytes(&self) -> usize {
        self.waiting.iter().map(|request| request.wire.len()).sum()
    }
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
        (queue.waiting.len(), queue.bytes())
    }

    /// Sends a command and waits for its reply until the deadline.
    pub(super) fn run(&self, wire: Vec<u8>, session: Session, deadline: Instant) -> Answer {
        let request = Arc::new(Request { wire, deadline, answer: Mutex::default() });
        let mut queue = hold(&self.queue);
        if !queue.waiting.is_empty() && queue.bytes() + request.wire.len() > QUEUE_BYTES {
            return Answer::NotSent;
        }
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
                    return Answer::NotSent;
                }
                Some(_) if !queue.has_leader => {
                    let batch = Batch::take(self, &mut queue, session);
                    drop(queue);
                    batch.exchange(session.address, deadline);
                    hold(&self.queue)
                }
                None if left.is_zero() => return Answer::Lost,
                _ => self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
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
        // The threads of late requests remove them.
        let (requests, late) = std::mem::take(&mut queue.waiting).into_iter().partition(|it| now < it.deadline);
        queue.waiting = late;
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
        let mut wire = self.requests.iter().map(|request| &request.wire[..]).collect::<Vec<_>>().concat();
        let mut expected = self.requests.len();
        if options.wait > 0 {
            encode(&["WAIT", &options.wait.to_string(), REPLICA_MS], &mut wire);
            expected += 1;
        }
        let mut replies = Vec::new();
        if connection.send(&wire).is_ok() {
            let next = || connection.reply_before(deadline).ok();
            replies.extend(std::iter::from_fn(next).take(expected));
        }
        let has_enough = |count: i64| count >= i64::from(options.wait);
        let is_replicated =
            options.wait == 0 || matches!(replies.get(self.requests.len()), Some(Reply::Number(it)) if has_enough(*it));
        // A connection that has not answered in time, or has a server that is no master now, is not used again.
        let is_refused = |reply: &Reply| matches!(reply, Reply::Error(said) if is_of_no_master(said));
        if replies.len() == expected && !replies.iter().any(is_refused) {
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
