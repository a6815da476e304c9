//! A stream for one client that any thread sends to, as Spring's `SseEmitter`.

use super::emitter::{EmitterOptions, FAILED};
use super::event::Event;
use super::stream;
use crate::http::Request;
use crate::http::connection::Closer;
use crate::http::lock::hold;
use std::error::Error;
use std::mem::replace;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{fmt, io};

/// Sends events to one client, from any thread. Every clone is the same emitter, and equal to it.
///
/// The handler makes an [`SseEmitter`], keeps a clone, and returns it. The connection's own thread is the writer:
/// [`send`](SseEmitter::send) only puts the event in a buffer, and so never waits for a client. Events that are sent
/// before the response has begun are kept for it. An emitter that is not returned ends with the connection of its
/// request, and without callbacks.
///
/// # A broadcast
///
/// ```
/// use newswire::http::{Method, Refusal, Status};
/// use newswire::{Response, Router, SseEmitter};
/// use std::sync::{Arc, Mutex};
///
/// let clients: Arc<Mutex<Vec<SseEmitter>>> = Arc::default();
/// let mut router = Router::new();
/// let joined = Arc::clone(&clients);
/// router.get("/news", move |request| {
///     let emitter = SseEmitter::new(request);
///     joined.lock().unwrap().push(emitter.clone());
///     emitter
/// });
/// router.route(Method::Post, "/news", move |request| {
///     let text = String::from_utf8_lossy(&request.content()?).into_owned();
///     // A client that has left, or is too slow, is no longer sent to.
///     clients.lock().unwrap().retain(|client| client.send(&text).is_ok());
///     Ok::<_, Refusal>(Response::empty(Status::NO_CONTENT))
/// });
/// ```
///
/// # A Spring controller, line by line
///
/// ```java
/// @GetMapping("/words")
/// SseEmitter words() {
///     SseEmitter emitter = new SseEmitter(30_000L);
///     emitter.onTimeout(() -> log.info("timeout"));
///     emitter.onError(error -> log.info("error: " + error));
///     emitter.onCompletion(() -> log.info("completed"));
///     executor.execute(() -> {
///         try {
///             emitter.send(SseEmitter.event().id("1").name("word").data("The"));
///             emitter.complete();
///         } catch (Exception error) {
///             emitter.completeWithError(error);
///         }
///     });
///     return emitter;
/// }
/// ```
///
/// ```
/// use newswire::{Event, Router, SseEmitter};
/// use std::{error::Error, thread, time::Duration};
///
/// fn send_word(emitter: &SseEmitter) -> Result<(), Box<dyn Error + Send + Sync>> {
///     Ok(emitter.send(Event::new("The").id("1")?.name("word")?)?)
/// }
///
/// Router::new().get("/words", |request| {
///     let emitter = SseEmitter::new(request)
///         .timeout(Duration::from_secs(30))
///         .on_timeout(|_| println!("timeout"))
///         .on_error(|_, error| println!("error: {error}"))
///         .on_completion(|_| println!("completed"));
///     let kept = emitter.clone();
///     thread::spawn(move || match send_word(&kept) {
///         Ok(()) => kept.complete(),
///         Err(error) => kept.complete_with_error(error),
///     });
///     emitter
/// });
/// ```
#[derive(Clone)]
pub struct SseEmitter(pub(super) Arc<Shared>);

pub(super) struct Shared {
    last_event_id: Option<String>,
    /// Of the request.
    pub(super) connection: Closer,
    pub(super) state: Mutex<State>,
    /// There is something to write, or no more is sent.
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) options: EmitterOptions,
    pub(super) timeout: Option<Duration>,
    buffer_bytes: usize,
    pub(super) on_completion: Option<Callback>,
    pub(super) on_timeout: Option<Callback>,
    pub(super) on_error: Option<ErrorCallback>,
    pub(super) has_response: bool,
    /// Encoded events that wait for the client.
    pub(super) frames: Vec<u8>,
    /// How many bytes the writer has taken and not yet written.
    pub(super) bytes_in_write: usize,
    /// Nothing more may be sent. What is in the buffer is still written.
    pub(super) is_completed: bool,
    pub(super) error: Option<io::Error>,
}

type Callback = Box<dyn FnOnce(&SseEmitter) + Send>;
type ErrorCallback = Box<dyn FnOnce(&SseEmitter, &io::Error) + Send>;

/// How many bytes may wait for the client by default.
const BUFFER_BYTES: usize = 64 * 1024;

/// An event could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The client is too slow: the event does not fit in the buffer beside what the client has not taken yet. The
    /// event is lost, and the stream goes on.
    Full,
    /// The emitter was completed, or its client has left.
    Completed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full => "the client is too slow: the event does not fit in the buffer",
            SendError::Completed => "the stream has ended",
        })
    }
}

impl Error for SendError {}

impl SseEmitter {
    /// An emitter for the client that asks.
    pub fn new(request: &Request<'_>) -> SseEmitter {
        let state = State { buffer_bytes: BUFFER_BYTES, ..State::default() };
        SseEmitter(Arc::new(Shared {
            last_event_id: stream::last_event_id(request),
            connection: request.connection().closer(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }))
    }

    /// What `change` returns is dropped without the lock: a callback may hold anything, also this emitter.
    fn with<R>(self, change: impl FnOnce(&mut State) -> R) -> SseEmitter {
        let _replaced = change(&mut hold(&self.0.state));
        self
    }

    /// Completes the stream so long after its response has begun. Without a timeout, or with zero as in Spring, the
    /// stream lasts until it is completed.
    pub fn timeout(self, timeout: Duration) -> SseEmitter {
        self.with(|state| state.timeout = Some(timeout).filter(|timeout| !timeout.is_zero()))
    }

    /// As [`EmitterOptions::heartbeat`](crate::sse::EmitterOptions::heartbeat).
    pub fn heartbeat(self, interval: Duration) -> SseEmitter {
        self.with(|state| state.options.heartbeat = interval)
    }

    /// As [`EmitterOptions::reconnection_time`](crate::sse::EmitterOptions::reconnection_time).
    pub fn reconnection_time(self, time: Duration) -> SseEmitter {
        self.with(|state| state.options.reconnection_time = Some(time))
    }

    /// How many bytes of encoded events may wait for the client; 64 KiB by default. A larger event never fits.
    pub fn buffer_bytes(self, bytes: usize) -> SseEmitter {
        self.with(|state| state.buffer_bytes = bytes)
    }

    /// Calls `callback` when the stream has ended, for whatever reason, and after the other callbacks.
    ///
    /// Each callback is called once at most, and is given the emitter. It runs on the connection's thread, or on the one
    /// that stops the server if the stream has not begun. It should hold no clone of its own emitter: one that is never
    /// returned from its handler would never be freed. A callback that is set again replaces the one before, and one
    /// that is set after the end is not called. A panic in it ends only this connection.
    pub fn on_completion(self, callback: impl FnOnce(&SseEmitter) + Send + 'static) -> SseEmitter {
        self.with(|state| state.on_completion.replace(Box::new(callback)))
    }

    /// Calls `callback` when the [`timeout`](SseEmitter::timeout) has passed. What the callback sends is still written.
    pub fn on_timeout(self, callback: impl FnOnce(&SseEmitter) + Send + 'static) -> SseEmitter {
        self.with(|state| state.on_timeout.replace(Box::new(callback)))
    }

    /// Calls `callback` when the client has left or takes nothing, when the server stops, and with the error of
    /// [`complete_with_error`](SseEmitter::complete_with_error).
    pub fn on_error(self, callback: impl FnOnce(&SseEmitter, &io::Error) + Send + 'static) -> SseEmitter {
        self.with(|state| state.on_error.replace(Box::new(callback)))
    }

    /// The id of the last event that the client has, as [`last_event_id`](crate::sse::last_event_id) finds it.
    pub fn last_event_id(&self) -> Option<&str> {
        self.0.last_event_id.as_deref()
    }

    /// Sends one event, or only its data. It does not wait for the client.
    ///
    /// # Errors
    /// [`SendError::Full`] when the client is too slow, [`SendError::Completed`] when the stream has ended.
    pub fn send(&self, event: impl Into<Event>) -> Result<(), SendError> {
        let frame = event.into().to_string();
        let mut state = hold(&self.0.state);
        if !self.takes_events(&state) {
            return Err(SendError::Completed);
        }
        if state.frames.len() + state.bytes_in_write + frame.len() > state.buffer_bytes {
            return Err(SendError::Full);
        }
        state.frames.extend_from_slice(frame.as_bytes());
        self.0.changed.notify_one();
        Ok(())
    }

    /// Puts other frames in place of those that still wait for the client, whether or not they fit.
    pub(crate) fn replace_waiting(&self, replaced: impl FnOnce(&[u8]) -> String) {
        let mut state = hold(&self.0.state);
        if self.takes_events(&state) {
            state.frames = replaced(&state.frames).into_bytes();
            self.0.changed.notify_one();
        }
    }

    /// Sends a comment, which clients ignore.
    ///
    /// # Errors
    /// As [`send`](SseEmitter::send).
    pub fn comment(&self, text: impl Into<String>) -> Result<(), SendError> {
        self.send(Event::default().comment(text))
    }

    /// Whether events may be sent. It takes a second, at most, until it is known that the client of an idle stream has
    /// left.
    pub fn is_open(&self) -> bool {
        self.takes_events(&hold(&self.0.state))
    }

    /// Without its connection, an emitter that was not returned has no client any more.
    fn takes_events(&self, state: &State) -> bool {
        !state.is_completed && (state.has_response || self.0.connection.is_open())
    }

    /// Ends the stream when all that was sent is written. The browser reconnects, with its last event ID.
    pub fn complete(&self) {
        self.complete_behind(Event::default(), None);
    }

    /// As [`complete`](SseEmitter::complete), because of an error. The client gets a comment, which does not say what
    /// the error is.
    pub fn complete_with_error(&self, error: impl Into<Box<dyn Error + Send + Sync>>) {
        self.complete_behind(Event::default().comment(FAILED), Some(io::Error::other(error)));
    }

    /// The last event is written whether or not it fits in the buffer.
    fn complete_behind(&self, last: Event, error: Option<io::Error>) {
        let mut state = hold(&self.0.state);
        if !replace(&mut state.is_completed, true) {
            last.encode(&mut state.frames);
            state.error = error;
            self.0.changed.notify_one();
        }
    }
}

impl PartialEq for SseEmitter {
    fn eq(&self, other: &SseEmitter) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SseEmitter {}

impl fmt::Debug for SseEmitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SseEmitter");
        debug.field("last_event_id", &self.last_event_id()).field("is_open", &self.is_open());
        debug.finish_non_exhaustive()
    }
}
