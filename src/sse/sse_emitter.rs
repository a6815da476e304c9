//! A stream for one client that any thread sends to, as Spring's `SseEmitter`.

use super::buffer::{Buffer, SendError, Step};
use super::event::Event;
use super::output::{HEARTBEAT, Output, heartbeat_within_bounds};
use super::stream::{self, event_stream, opening, opening_with};
use crate::http::lock::hold;
use crate::http::{Refusal, Request, Response, Status, StreamWriter};
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Sends events to one client, from any thread. Every clone is the same emitter, and equal to it.
///
/// The handler makes an [`SseEmitter`], keeps a clone, and returns it. The connection's own thread is the writer:
/// [`send`](SseEmitter::send) only puts the event in a buffer, and so never waits for a client.
/// Events that are sent before the response has begun are kept for it.
///
/// # A broadcast
///
/// ```
/// use newswire::http::{Method, Refusal, Response, Status};
/// use newswire::sse::SseEmitter;
/// use newswire::Router;
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
/// @RestController
/// class WordsController {
///     private final ExecutorService executor = Executors.newCachedThreadPool();
///
///     @GetMapping("/sse/mvc/words")
///     SseEmitter words() {
///         SseEmitter emitter = new SseEmitter(30_000L);
///         emitter.onTimeout(() -> log.info("timeout"));
///         emitter.onError(error -> log.info("error: " + error));
///         emitter.onCompletion(() -> log.info("completed"));
///         executor.execute(() -> {
///             try {
///                 for (int id = 1; id <= WORDS.length; id++) {
///                     emitter.send(SseEmitter.event()
///                         .id(String.valueOf(id)).name("word").comment("a word")
///                         .reconnectTime(3_000L).data(WORDS[id - 1]));
///                     Thread.sleep(1_000);
///                 }
///                 emitter.complete();
///             } catch (Exception error) {
///                 emitter.completeWithError(error);
///             }
///         });
///         return emitter;
///     }
/// }
/// ```
///
/// ```
/// use newswire::sse::SseEmitter;
/// use newswire::{Event, Router};
/// use std::{error::Error, thread, time::Duration};
///
/// const WORDS: [&str; 3] = ["The", "quick", "brown"];
///
/// fn send_words(emitter: &SseEmitter) -> Result<(), Box<dyn Error + Send + Sync>> {
///     for (id, word) in (1..).zip(WORDS) {
///         emitter.send(Event::default()
///             .id(id)?.name("word")?.comment("a word")
///             .reconnection_time(Duration::from_secs(3)).data(word))?;
///         thread::sleep(Duration::from_secs(1));
///     }
///     Ok(())
/// }
///
/// let mut router = Router::new();
/// router.get("/sse/mvc/words", |request| {
///     let emitter = SseEmitter::new(request)
///         .timeout(Duration::from_secs(30))
///         .on_timeout(|_| println!("timeout"))
///         .on_error(|_, error| println!("error: {error}"))
///         .on_completion(|_| println!("completed"));
///     let kept = emitter.clone();
///     thread::spawn(move || match send_words(&kept) {
///         Ok(()) => kept.complete(),
///         Err(error) => kept.complete_with_error(error),
///     });
///     emitter
/// });
/// ```
#[derive(Clone)]
pub struct SseEmitter(Arc<Shared>);

struct Shared {
    last_event_id: Option<String>,
    buffer: Buffer,
    settings: Mutex<Settings>,
}

#[derive(Default)]
struct Settings {
    heartbeat: Option<Duration>,
    reconnection_time: Option<Duration>,
    timeout: Option<Duration>,
    has_response: bool,
    on_completion: Option<Callback>,
    on_timeout: Option<Callback>,
    on_error: Option<ErrorCallback>,
}

type Callback = Box<dyn FnOnce(&SseEmitter) + Send>;
type ErrorCallback = Box<dyn FnOnce(&SseEmitter, &io::Error) + Send>;

/// How many bytes may wait for the client by default.
const BUFFER_BYTES: usize = 64 * 1024;

/// How often the thread of an idle stream checks whether the client has left and whether the server stops.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl SseEmitter {
    /// An emitter for the client that asks.
    pub fn new(request: &Request<'_>) -> SseEmitter {
        SseEmitter(Arc::new(Shared {
            last_event_id: stream::last_event_id(request),
            buffer: Buffer::new(BUFFER_BYTES),
            settings: Mutex::default(),
        }))
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> SseEmitter {
        change(&mut hold(&self.0.settings));
        self
    }

    /// Completes the stream so long after its response has begun. Without a timeout, or with zero as in Spring, the
    /// stream lasts until it is completed.
    pub fn timeout(self, timeout: Duration) -> SseEmitter {
        self.with(|settings| settings.timeout = Some(timeout).filter(|timeout| !timeout.is_zero()))
    }

    /// How often the client gets a heartbeat while nothing else is sent; 15 seconds by default. An interval below 10
    /// milliseconds counts as 10 milliseconds, and one above a day as a day.
    pub fn heartbeat(self, interval: Duration) -> SseEmitter {
        self.with(|settings| settings.heartbeat = Some(heartbeat_within_bounds(interval)))
    }

    /// How long the client waits before it reconnects; by default a random time between two and three seconds.
    pub fn reconnection_time(self, time: Duration) -> SseEmitter {
        self.with(|settings| settings.reconnection_time = Some(time))
    }

    /// How many bytes of encoded events may wait for the client; 64 KiB by default. A larger event never fits.
    pub fn buffer_bytes(self, bytes: usize) -> SseEmitter {
        self.0.buffer.set_limit(bytes);
        self
    }

    /// Calls `callback` when the stream has ended, for whatever reason, and after the other callbacks.
    ///
    /// Each callback is called once at most, on the connection's thread, and is given the emitter. It should hold no
    /// clone of its own emitter: one that is never returned from its handler would never be freed. A callback that is
    /// set again replaces the one before, and one that is set after the end is not called. A panic in it ends only this
    /// connection.
    pub fn on_completion(self, callback: impl FnOnce(&SseEmitter) + Send + 'static) -> SseEmitter {
        self.with(|settings| settings.on_completion = Some(Box::new(callback)))
    }

    /// Calls `callback` when the [`timeout`](SseEmitter::timeout) has passed. What the callback sends is still written.
    pub fn on_timeout(self, callback: impl FnOnce(&SseEmitter) + Send + 'static) -> SseEmitter {
        self.with(|settings| settings.on_timeout = Some(Box::new(callback)))
    }

    /// Calls `callback` when the client has left or takes nothing, when the server stops, and with the error of
    /// [`complete_with_error`](SseEmitter::complete_with_error).
    pub fn on_error(
        self,
        callback: impl FnOnce(&SseEmitter, &io::Error) + Send + 'static,
    ) -> SseEmitter {
        self.with(|settings| settings.on_error = Some(Box::new(callback)))
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
        let mut frame = Vec::new();
        event.into().encode(&mut frame);
        self.0.buffer.push(&frame)
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
        !self.0.buffer.is_completed()
    }

    /// Ends the stream when all that was sent is written. The browser reconnects, with its last event ID.
    pub fn complete(&self) {
        self.0.buffer.complete(b"", None);
    }

    /// As [`complete`](SseEmitter::complete), because of an error. The client gets a comment, which does not say what
    /// the error is.
    pub fn complete_with_error(&self, error: impl Into<Box<dyn Error + Send + Sync>>) {
        let mut last_frame = Vec::new();
        Event::default().comment(stream::FAILED).encode(&mut last_frame);
        self.0.buffer.complete(&last_frame, Some(io::Error::other(error)));
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

/// The response that begins the stream. An emitter has one client: a second response of it is `500`.
impl From<SseEmitter> for Response {
    fn from(emitter: SseEmitter) -> Response {
        let mut settings = hold(&emitter.0.settings);
        let opening = settings.reconnection_time.map_or_else(opening, opening_with);
        let has_response = std::mem::replace(&mut settings.has_response, true);
        drop(settings);
        if has_response {
            let sentence = "The stream that answers this request has another client already.";
            return Refusal::new(Status::INTERNAL_SERVER_ERROR, sentence).into();
        }
        let stream = Stream(emitter);
        event_stream(opening, move |writer| stream.run(writer)).delayed()
    }
}

/// The side of an emitter that writes. When it is dropped the emitter ends, also when the response was never sent.
struct Stream(SseEmitter);

impl Stream {
    fn run(self, writer: StreamWriter) -> io::Result<()> {
        let mut output = Output::new(writer);
        let outcome = self.write_all(&mut output);
        self.end(outcome.err());
        output.finish();
        Ok(())
    }

    /// Writes what is sent until the emitter is completed.
    fn write_all(&self, output: &mut Output) -> io::Result<()> {
        let settings = hold(&self.0.0.settings);
        let (heartbeat, timeout) = (settings.heartbeat.unwrap_or(HEARTBEAT), settings.timeout);
        drop(settings);
        let mut deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut heartbeat_at = Instant::now() + heartbeat;
        loop {
            let check_at = heartbeat_at.min(Instant::now() + CHECK_INTERVAL);
            match self.0.0.buffer.next_step(check_at, deadline) {
                Step::Write(frames) => output.write(&frames)?,
                Step::Check => {
                    let next = output.keep_alive(heartbeat);
                    heartbeat_at = next.ok_or(io::ErrorKind::BrokenPipe)?;
                }
                Step::TimeOut => {
                    deadline = None;
                    let callback = hold(&self.0.0.settings).on_timeout.take();
                    if let Some(callback) = callback {
                        self.call(callback);
                    }
                    self.0.complete();
                }
                Step::End(error) => return error.map_or(Ok(()), Err),
            }
        }
    }

    fn end(&self, error: Option<io::Error>) {
        self.0.0.buffer.close();
        let mut settings = hold(&self.0.0.settings);
        let (on_error, on_completion) = (settings.on_error.take(), settings.on_completion.take());
        let not_called = settings.on_timeout.take();
        drop(settings);
        drop(not_called);
        if let (Some(callback), Some(error)) = (on_error, error) {
            self.call(|emitter| callback(emitter, &error));
        }
        if let Some(callback) = on_completion {
            self.call(callback);
        }
    }

    /// Calls a callback. After a panic, which the panic hook reports, the callbacks behind it are still called.
    fn call(&self, callback: impl FnOnce(&SseEmitter)) {
        let _ = catch_unwind(AssertUnwindSafe(|| callback(&self.0)));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end(None);
    }
}
