//! A stream for one client, written on the connection's own thread. Who knows Spring's `SseEmitter`
//! knows this.

use super::event::Event;
use crate::http::{Request, Response, Status, StreamWriter};
use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::time::Duration;

/// Writes events to one client; every frame leaves the machine when it is sent.
///
/// ```
/// use newswire::{Emitter, Router};
/// use std::{thread, time::Duration};
///
/// let mut router = Router::new();
/// router.get("/countdown", |request| {
///     Emitter::stream(request, |mut emitter| {
///         for seconds in (0..10).rev() {
///             emitter.send(seconds.to_string())?;
///             thread::sleep(Duration::from_secs(1));
///         }
///         emitter.complete()
///     })
/// });
/// ```
pub struct Emitter<'s> {
    stream: &'s mut dyn Write,
    frame: Vec<u8>,
}

impl<'s> Emitter<'s> {
    /// Writes to any stream; [`stream`](Emitter::stream) is what a handler wants.
    pub fn new(stream: &'s mut dyn Write) -> Emitter<'s> {
        Emitter { stream, frame: Vec::new() }
    }

    /// The response that runs `emit` on the connection's thread. The head, a reconnection time of
    /// two to three seconds and a comment leave at once, before any event exists, so that the
    /// browser reports `open`. When `emit` returns, or a send fails, the connection ends;
    /// EventSource will then reconnect, until it is answered with [`finished`](Emitter::finished).
    pub fn stream(
        request: &Request<'_>,
        emit: impl FnOnce(Emitter<'_>) -> io::Result<()> + Send + 'static,
    ) -> Response {
        let _ = request;
        let run = move |mut writer: StreamWriter| {
            emit(Emitter::new(&mut writer))?;
            writer.finish();
            Ok(())
        };
        event_stream(opening(), run).delayed()
    }

    /// The response that tells an EventSource not to come back: `204` (HTML, 9.2.3, "any other
    /// status ... fail the connection").
    pub fn finished() -> Response {
        Response::empty(Status::NO_CONTENT).field("Cache-Control", "no-store")
    }

    /// Sends one event, in one write.
    ///
    /// # Errors
    /// When the client has left (the first send after that may still succeed), or has taken nothing
    /// for [`Limits::write_stall`](crate::Limits::write_stall). There is nothing to do but return
    /// it.
    pub fn send(&mut self, event: impl Into<Event>) -> io::Result<()> {
        self.frame.clear();
        event.into().encode(&mut self.frame);
        self.stream.write_all(&self.frame)?;
        self.stream.flush()
    }

    /// Sends what no [`Event`] can be: bytes that break the format, for those who test a parser.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a comment, which the browser ignores and proxies take for a sign of life.
    ///
    /// # Errors
    /// As [`send`](Emitter::send).
    pub fn comment(&mut self, text: impl Into<String>) -> io::Result<()> {
        self.send(Event::comment(text))
    }

    /// Ends the stream. The browser reconnects, with its last event ID.
    ///
    /// # Errors
    /// None today; it is what the closure of [`stream`](Emitter::stream) returns.
    pub fn complete(self) -> io::Result<()> {
        self.stream.flush()
    }

    /// Ends the stream because of an error, which the client is not told: a comment says only that
    /// there was one.
    ///
    /// # Errors
    /// Always: with `error`, or that the comment cannot be written.
    pub fn complete_with_error(
        mut self,
        error: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> io::Result<()> {
        self.comment("the server ends this stream because of an error")?;
        Err(io::Error::other(error))
    }
}

/// Which event the client has heard last: the `Last-Event-ID` field, which EventSource sends when
/// it reconnects, else the query's `last_event_id`, for who cannot set a field. An empty one is
/// none. It is a stranger's word.
pub fn last_event_id(request: &Request<'_>) -> Option<String> {
    let field = request.field("last-event-id").map(str::to_owned).filter(|id| !id.is_empty());
    field.or_else(|| request.query("last_event_id")).filter(|id| !id.is_empty())
}

pub(crate) const CONTENT_TYPE: &str = "text/event-stream";

/// The response that begins an event stream. No cache may keep it or join clients in it, no proxy may transform or
/// buffer it. When there are too many streams, the client is told to come back: any status but `200` would end a
/// browser's EventSource for good.
pub(crate) fn event_stream(
    opening: Vec<u8>,
    run: impl FnOnce(StreamWriter) -> io::Result<()> + Send + 'static,
) -> Response {
    with_stream_fields(Response::streamed(CONTENT_TYPE, opening, run))
        .when_full(come_back_later())
        .farewell(|| format!("retry: {}\n", jittered(RETRY).as_millis()).into_bytes())
}

/// What a stream says that is refused for load.
pub(crate) fn come_back_later() -> Vec<u8> {
    let retry = jittered(Duration::from_secs(5)).as_millis();
    format!(": there is no room for another stream now; come back later\nretry: {retry}\n")
        .into_bytes()
}

/// A stream that only tells the client to come back later.
pub(crate) fn refused() -> Response {
    with_stream_fields(Response::bytes(Status::OK, CONTENT_TYPE, come_back_later()))
}

fn with_stream_fields(response: Response) -> Response {
    response
        .field("Cache-Control", "no-store, no-transform")
        .field("X-Accel-Buffering", "no")
        .field("X-Content-Type-Options", "nosniff")
}

/// How long clients wait before they reconnect, at least.
const RETRY: Duration = Duration::from_secs(2);

/// The first lines of a stream: a comment and a reconnection time. No blank line ends them, since several clients
/// dispatch an empty message for a block without data.
pub(crate) fn opening() -> Vec<u8> {
    opening_with(jittered(RETRY))
}

pub(crate) fn opening_with(retry: Duration) -> Vec<u8> {
    format!(": newswire\nretry: {}\n", retry.as_millis()).into_bytes()
}

/// Between `time` and half as much again, so that a restart of the server does not bring everyone
/// back in one instant.
pub(crate) fn jittered(time: Duration) -> Duration {
    // The one source of randomness in the standard library: the keys of a hash map.
    let random = RandomState::new().build_hasher().finish();
    time + time.mul_f64(0.5 * (random >> 11) as f64 / (1u64 << 53) as f64)
}
