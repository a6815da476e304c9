//! Lines: a stream that is given the name of a line can be watched byte by byte, and cut, from
//! another connection.

use super::sandboxed;
use crate::http::connection::Closer;
use crate::http::lock::hold;
use crate::http::{Refusal, Request, Response, Status};
use crate::sse::{Event, Message, Parser, SendError, SseEmitter, base64};
use std::collections::HashMap;
use std::mem::take;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Lines at a time. A page uses one or two while it is open.
const LINES: usize = 256;

/// Watchers of a line: a stream copies each piece for each of them.
const WATCHERS: usize = 8;

/// What may wait for a watcher that reads slowly, as the events that it is sent.
const WAITING_BYTES: usize = 64 * 1024;

/// How long a stream waits for the watchers without room, all together, and how often it looks. A large frame is written
/// faster than a watcher is woken.
const WATCHER_WAIT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// After a wait in vain, no stream of the line waits for so long. Watchers that read nothing do not add up to a delay.
const PAUSE_BETWEEN_WAITS: Duration = Duration::from_secs(10);

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
        lines.retain(|_, line| Arc::strong_count(line) > 1 || line.is_watched());
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
    watchers: Mutex<Vec<SseEmitter>>,
    /// When a stream may wait for watchers again.
    waits_from: Mutex<Option<Instant>>,
}

impl Line {
    fn attach(&self, stream: Closer) {
        let mut streams = hold(&self.streams);
        streams.retain(Closer::is_open);
        streams.push(stream);
    }

    /// Shows a piece of a stream to all watchers: an event of the type `head` or `bytes`. Its data is base64, since a piece
    /// may end inside of a character.
    fn show(&self, part: &'static str, bytes: &[u8]) {
        let (watchers, now) = (hold(&self.watchers).clone(), Instant::now());
        let may_wait = hold(&self.waits_from).is_none_or(|from| from <= now);
        let deadline = if may_wait { now + WATCHER_WAIT } else { now };
        let piece = Event::new(base64(bytes)).name(part).unwrap_or_default();
        for watcher in watchers {
            while watcher.send(&piece) == Err(SendError::Full) {
                if Instant::now() < deadline {
                    thread::sleep(LOOK);
                    continue;
                }
                // The newest piece is kept, behind the number of bytes that the watcher misses.
                watcher.replace_waiting(|waiting| {
                    format!("event: gap\ndata: {{\"bytes\":{}}}\n\n{piece}", bytes_of(waiting))
                });
                if may_wait {
                    *hold(&self.waits_from) = Some(deadline + PAUSE_BETWEEN_WAITS);
                }
                break;
            }
        }
    }

    fn is_watched(&self) -> bool {
        hold(&self.watchers).iter().any(SseEmitter::is_open)
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

/// What is written on a line from now on.
pub(crate) fn watch(request: &Request<'_>, lines: &Lines) -> Result<Response, Refusal> {
    let name = request.parameter("line").unwrap_or_default();
    if !is_name(name) {
        return Err(Refusal::new(Status::NOT_FOUND, "That is not the name of a line."));
    }
    let line = lines.open(name).ok_or(TOO_MANY_LINES)?;
    let mut watchers = hold(&line.watchers);
    watchers.retain(SseEmitter::is_open);
    if watchers.len() >= WATCHERS {
        return Err(TOO_MANY_WATCHERS);
    }
    // A watcher counts before its response leaves: the client may begin a stream as soon as it reads the head.
    let watcher = SseEmitter::new(request).buffer_bytes(WAITING_BYTES);
    watchers.push(watcher.clone());
    Ok(sandboxed(watcher.into()))
}

pub(super) const TOO_MANY_LINES: Refusal =
    Refusal::new(Status::SERVICE_UNAVAILABLE, "There are too many lines; leave out line.");
const TOO_MANY_WATCHERS: Refusal = Refusal::new(Status::SERVICE_UNAVAILABLE, "This line has too many watchers.");

/// How many bytes of the line are in these events, or are missed in front of them.
fn bytes_of(events: &[u8]) -> usize {
    let bytes = |event: Message| match &*event.event_type {
        "gap" => event.data.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0),
        _ => event.data.len() / 4 * 3 - event.data.matches('=').count(),
    };
    Parser::new().feed(events).unwrap_or_default().into_iter().map(bytes).sum()
}
