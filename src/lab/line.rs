//! Lines: a stream that is given the name of a line can be watched byte by byte, and cut, from
//! another connection.

use super::flow::{HEARTBEAT, LOOK_INTERVAL, look_for_client};
use super::sandboxed;
use crate::http::connection::Closer;
use crate::http::lock::hold;
use crate::http::{Refusal, Request, Response, Status, StreamWriter};
use crate::sse::{base64, event_stream, opening};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Lines at a time. A page uses one or two while it is open.
const LINES: usize = 256;

/// Watchers of a line: a stream copies each piece for each of them.
const WATCHERS: usize = 8;

/// What may wait for a watcher that reads slowly, counting [`PIECE_COST`] for each piece besides its bytes.
const QUEUE_BYTES: usize = 64 * 1024;
const PIECE_COST: usize = 64;

/// How long a stream waits for the watchers with a full queue, all together. A large frame is written faster than a watcher
/// is woken.
const WATCHER_WAIT: Duration = Duration::from_secs(1);

/// After a wait in vain, no stream of the line waits for so long. Watchers that read nothing do not add up to a delay.
const PAUSE_BETWEEN_WAITS: Duration = Duration::from_secs(10);

/// A watcher gets a comment after a silence of this length: proxies cut a stream that is silent for a minute.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Lines by name. A line exists as long as a stream is on it or a client watches it.
#[derive(Default)]
pub(crate) struct Lines(Mutex<HashMap<String, Arc<Line>>>);

impl Lines {
    /// The line of this name. `None` when it is no name, or when there are too many lines.
    pub(crate) fn open(&self, name: &str) -> Option<Arc<Line>> {
        let mut lines = hold(&self.0);
        if let Some(line) = lines.get(name) {
            return Some(Arc::clone(line));
        }
        lines.retain(|_, line| Arc::strong_count(line) > 1);
        if lines.len() >= LINES || !is_name(name) {
            return None;
        }
        let line = Arc::<Line>::default();
        lines.insert(name.to_owned(), Arc::clone(&line));
        Some(line)
    }
}

/// `name = 1*64( ALPHA / DIGIT / "." / "_" / "-" )`, not beginning with a dot: it stands in a path as it is. The names
/// of channels follow the same rule.
pub(super) fn is_name(name: &str) -> bool {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_name_byte)
}

pub(super) const NAME: &str =
    "a name of 1 to 64 letters, digits, dots, underscores and hyphens that does not begin with a dot";

/// Streams that can be watched and cut together.
#[derive(Default)]
pub(crate) struct Line {
    streams: Mutex<Vec<Closer>>,
    queues: Mutex<Vec<Weak<Queue>>>,
    /// When a stream may wait for watchers again.
    waits_from: Mutex<Option<Instant>>,
}

impl Line {
    fn attach(&self, stream: Closer) {
        let mut streams = hold(&self.streams);
        streams.retain(Closer::is_open);
        streams.push(stream);
    }

    fn show(&self, part: &'static str, bytes: &[u8]) {
        let (queues, now) = (hold(&self.queues).clone(), Instant::now());
        let may_wait = hold(&self.waits_from).is_none_or(|from| from <= now);
        let deadline = if may_wait { now + WATCHER_WAIT } else { now };
        for queue in queues.iter().filter_map(Weak::upgrade) {
            if !queue.push(part, bytes, deadline) && may_wait {
                *hold(&self.waits_from) = Some(deadline + PAUSE_BETWEEN_WAITS);
            }
        }
    }

    /// A queue for one more watcher. Dropping it ends that.
    fn watch(&self) -> Option<Arc<Queue>> {
        let mut queues = hold(&self.queues);
        queues.retain(|queue| queue.strong_count() > 0);
        let queue = (queues.len() < WATCHERS).then(Arc::<Queue>::default)?;
        queues.push(Arc::downgrade(&queue));
        Some(queue)
    }
}

/// Lets a stream be watched and cut on this line, from outside of it.
pub(crate) fn on_line(response: Response, line: Arc<Line>) -> Response {
    response.prepare(move |writer, head| {
        line.attach(writer.closer());
        line.show("head", head);
        writer.tap(move |piece| line.show("bytes", piece));
    })
}

/// Ends the connections of a line. Their clients come back, if they are EventSources.
pub(crate) fn cut(request: &Request<'_>, lines: &Lines) -> Result<Response, Refusal> {
    let line = hold(&lines.0).get(request.parameter("line").unwrap_or_default()).cloned();
    let line = line.ok_or(Refusal::new(
        Status::NOT_FOUND,
        "There is no such line now: no stream is on it, and no client watches it.",
    ))?;
    // Not in the head of a loop, where the lock would be held to its end.
    let streams = take(&mut *hold(&line.streams));
    streams.iter().for_each(|stream| _ = stream.close());
    let response = Response::empty(Status::NO_CONTENT);
    Ok(sandboxed(response.field("X-Content-Type-Options", "nosniff")))
}

/// What is written on a line from now on: an event for each piece, of the type `head` or `bytes`. Its data is base64,
/// since a piece may end inside of a character.
pub(crate) fn watch(request: &Request<'_>, lines: &Lines) -> Result<Response, Refusal> {
    let name = request.parameter("line").unwrap_or_default();
    if !is_name(name) {
        return Err(Refusal::new(Status::NOT_FOUND, "That is not the name of a line."));
    }
    let line = lines.open(name).ok_or(TOO_MANY_LINES)?;
    // A watcher counts before its response leaves: the client may begin a stream as soon as it reads the head.
    let queue = line.watch().ok_or(TOO_MANY_WATCHERS)?;
    let run = move |writer| {
        // The line exists as long as it is watched.
        let _line = line;
        queue.run(writer)
    };
    Ok(sandboxed(event_stream(opening(), run).delayed()))
}

pub(super) const TOO_MANY_LINES: Refusal =
    Refusal::new(Status::SERVICE_UNAVAILABLE, "There are too many lines; leave out line.");
const TOO_MANY_WATCHERS: Refusal = Refusal::new(Status::SERVICE_UNAVAILABLE, "This line has too many watchers.");

/// The pieces that wait for one watcher. When there are too many, the oldest are dropped and counted.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Piece>,
    cost: usize,
    missed_bytes: usize,
}

/// A part of a stream, and some bytes of it.
type Piece = (&'static str, Box<[u8]>);

impl Queue {
    /// `false` when a piece was dropped.
    fn push(&self, part: &'static str, bytes: &[u8], deadline: Instant) -> bool {
        let mut waiting = hold(&self.waiting);
        // A watcher that has missed something is slow, and a stream does not wait for it again until it has read that.
        if waiting.is_full() && waiting.missed_bytes == 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = self.changed.wait_timeout_while(waiting, left, |w| w.is_full());
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let has_room = !waiting.is_full();
        while waiting.is_full() {
            waiting.missed_bytes += waiting.pop().map_or(0, |(_, bytes)| bytes.len());
        }
        waiting.cost += bytes.len() + PIECE_COST;
        waiting.pieces.push_back((part, bytes.into()));
        self.changed.notify_all();
        has_room
    }

    /// Sends the pieces until the client leaves, which is an error.
    fn run(&self, mut writer: StreamWriter) -> io::Result<()> {
        let mut heartbeat_due = Instant::now() + HEARTBEAT_INTERVAL;
        loop {
            let (missed_bytes, piece) = self.pop();
            let mut frame = match piece {
                Some((part, bytes)) => format!("event: {part}\ndata: {}\n\n", base64(&bytes)),
                None if Instant::now() >= heartbeat_due => ":\n".to_owned(),
                None => {
                    look_for_client(&mut writer, HEARTBEAT)?;
                    continue;
                }
            };
            if missed_bytes > 0 {
                let gap = format!("event: gap\ndata: {{\"bytes\":{missed_bytes}}}\n\n");
                frame.insert_str(0, &gap);
            }
            writer.write_all(frame.as_bytes())?;
            heartbeat_due = Instant::now() + HEARTBEAT_INTERVAL;
        }
    }

    /// How many bytes were dropped since the last call, and the next piece, if one comes soon.
    fn pop(&self) -> (usize, Option<Piece>) {
        let waiting = hold(&self.waiting);
        let waited = self.changed.wait_timeout_while(waiting, LOOK_INTERVAL, |w| w.pieces.is_empty());
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        let next = (take(&mut waiting.missed_bytes), waiting.pop());
        self.changed.notify_all();
        next
    }
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.cost >= QUEUE_BYTES
    }

    fn pop(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.cost -= piece.1.len() + PIECE_COST;
        Some(piece)
    }
}
