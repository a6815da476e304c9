//! A stream for one client, written on the connection's own thread.

use super::event::Event;
use super::output::{self, HEARTBEAT, Output};
use super::stream::{self, event_stream, opening, opening_with};
use crate::http::lock::hold;
use crate::http::{Request, Response, Status};
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fmt, io};

/// The comment at the end of a stream that failed. The error itself may be a secret.
pub(super) const FAILED: &str = "the server ends this stream because of an error";

/// Writes events to one client. Each event leaves when it is sent.
///
/// ```
/// use newswire::{Emitter, Router};
/// use std::{thread, time::Duration};
///
/// Router::new().get("/countdown", |request| {
///     Emitter::stream(request, |mut emitter| {
///         for seconds in (0..10).rev() {
///             emitter.send(seconds.to_string())?;
///             thread::sleep(Duration::from_secs(1));
///         }
///         emitter.complete()
///     })
/// });
/// ```
///
/// The closure runs on the connection's thread, and may sleep and block. While it sends nothing, the client gets a
/// heartbeat every 15 seconds, so that no proxy cuts the stream. For a stream that other threads send to there is
/// [`SseEmitter`](crate::sse::SseEmitter).
pub struct Emitter<'s> {
    output: &'s Mutex<Output>,
    last_event_id: Option<&'s str>,
}

impl fmt::Debug for Emitter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Emitter");
        debug.field("last_event_id", &self.last_event_id).finish_non_exhaustive()
    }
}

/// How a stream begins and stays alive. [`Emitter::options`] gives the defaults.
#[derive(Clone, Debug)]
pub struct EmitterOptions {
    pub(super) heartbeat: Duration,
    pub(super) reconnection_time: Option<Duration>,
}

impl Default for EmitterOptions {
    fn default() -> EmitterOptions {
        EmitterOptions { heartbeat: HEARTBEAT, reconnection_time: None }
    }
}

impl EmitterOptions {
    /// How often the client gets a heartbeat while nothing else is sent; 15 seconds by default. An interval below 10
    /// milliseconds counts as 10 milliseconds, and one above a day as a day.
    pub fn heartbeat(mut self, interval: Duration) -> EmitterOptions {
        self.heartbeat = interval;
        self
    }

    /// How long the client waits before it reconnects; by default a random time between two and three seconds, so that
    /// not all clients come back at once.
    pub fn reconnection_time(mut self, time: Duration) -> EmitterOptions {
        self.reconnection_time = Some(time);
        self
    }

    pub(super) fn opening(&self) -> Vec<u8> {
        self.reconnection_time.map_or_else(opening, opening_with)
    }

    /// As [`Emitter::stream`], with these options.
    pub fn stream(
        self,
        request: &Request<'_>,
        emit: impl FnOnce(Emitter<'_>) -> io::Result<()> + Send + 'static,
    ) -> Response {
        let last_event_id = stream::last_event_id(request);
        let opening = self.opening();
        let run = move |writer| {
            let output = Arc::new(Mutex::new(Output::new(writer, self.heartbeat)));
            output::keep_alive(&output)?;
            let outcome = emit(Emitter { output: &output, last_event_id: last_event_id.as_deref() });
            hold(&output).finish();
            outcome
        };
        event_stream(opening, run).delayed()
    }
}

impl Emitter<'_> {
    /// The response that runs `emit` on the connection's thread. The head, a comment and a reconnection time leave at
    /// once, before there is an event, so that the browser reports `open`. The connection ends when `emit` returns.
    /// EventSource then reconnects, until it is answered with [`finished`](Emitter::finished). When there are
    /// [`Limits::streams`](crate::http::Limits::streams) already, the client is told to come back later, and `emit` does
    /// not run.
    pub fn stream(
        request: &Request<'_>,
        emit: impl FnOnce(Emitter<'_>) -> io::Result<()> + Send + 'static,
    ) -> Response {
        Emitter::options().stream(request, emit)
    }

    /// The response that ends an EventSource: "a client can be told to stop reconnecting using the HTTP 204 No Content
    /// response code" (HTML, 9.2.1).
    pub fn finished() -> Response {
        Response::empty(Status::NO_CONTENT).field("Cache-Control", "no-store")
    }

    /// The default options.
    pub fn options() -> EmitterOptions {
        EmitterOptions::default()
    }

    /// The id of the last event that the client has, as [`last_event_id`](crate::sse::last_event_id) finds it.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id
    }

    /// Sends one event, or only its data.
    ///
    /// EventSource itself dispatches events named `open` and `error`. A listener cannot tell yours from those.
    ///
    /// # Errors
    /// When the client has left (the first send after that may still succeed), when it has taken nothing for
    /// [`Limits::write_stall`](crate::http::Limits::write_stall), or when the server stops. There is nothing to do but
    /// return the error.
    pub fn send(&mut self, event: impl Into<Event>) -> io::Result<()> {
        hold(self.output).write(event.into().to_string().as_bytes())
    }

    /// Sends a comment, which clients ignore. It shows in the raw stream.
    ///
    /// # Errors
    /// As [`send`](Emitter::send).
    pub fn comment(&mut self, text: impl Into<String>) -> io::Result<()> {
        self.send(Event::default().comment(text))
    }

    /// Whether the client is still there, and the server does not stop. A client that has closed its half of the
    /// connection may still be reading. It gets a heartbeat, at most one a second; if it has left, a later call says
    /// so.
    pub fn is_open(&self) -> bool {
        hold(self.output).is_open()
    }

    /// Ends the stream. The browser reconnects, with its last event ID.
    ///
    /// # Errors
    /// None today. It is what the closure of [`stream`](Emitter::stream) returns.
    pub fn complete(self) -> io::Result<()> {
        Ok(())
    }

    /// Ends the stream because of an error. The client gets a comment, which does not say what the error is.
    ///
    /// # Errors
    /// Always: `error`, or the error of the write.
    pub fn complete_with_error(mut self, error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Result<()> {
        self.comment(FAILED)?;
        Err(io::Error::other(error))
    }
}
