//! A client of an event stream: the standard's EventSource (HTML, 9.2.2 and 9.2.3), sentence by sentence.

use super::parser::{Message, Parser};
use super::stream::jittered;
use crate::http::back_off::longer;
use crate::http::client::{CloseHandle, NetworkError, Request, Response};
use crate::http::{MalformedUrl, Status};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// "This must initially be an implementation-defined value, probably in the region of a few seconds." (9.2.2) Chromium
/// waits 3 s, Firefox 5 s.
const RECONNECTION_TIME: Duration = Duration::from_secs(3);
/// The first and the longest wait that repeated failures add to the reconnection time.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(30)];

/// The events of a URL, through disconnections and restarts of its server.
///
/// As an iterator it waits for each event. It ends when the server says `204`, when it was [closed](CloseHandle::close),
/// and after an error, which is final.
///
/// ```no_run
/// use newswire::EventSource;
///
/// let url = "http://127.0.0.1:8080/channels/news";
/// for event in EventSource::get(url)?.last_event_id("1700000000000-0") {
///     println!("{}", event?.data);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// As a browser's, it connects again after every network error, a refused connection and an unknown name included.
/// [`step`](EventSource::step) tells the reason; [`once`](EventSource::once) makes the first one final.
#[derive(Debug)]
pub struct EventSource {
    request: Request,
    handle: CloseHandle,
    parser: Parser,
    reconnects: bool,
    ready_state: ReadyState,
    /// The wait before the next connection.
    wait: Duration,
    /// What the next failure without an event adds to the wait.
    back_off: Duration,
    /// The latest.
    response: Option<Response>,
    /// Received and not given yet.
    messages: VecDeque<Message>,
}

/// The state of the connection (9.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyState {
    /// "The connection has not yet been established, or it was closed and the user agent is reconnecting."
    Connecting,
    /// "The user agent has an open connection and is dispatching events as it receives them."
    Open,
    /// "The connection is not open, and the user agent is not trying to reconnect."
    Closed,
}

/// What happens to an [`EventSource`].
#[derive(Debug)]
pub enum Step {
    /// The server's [response](EventSource::response) is an event stream.
    Open,
    /// A piece of the stream as it arrived, without the framing of HTTP. The events that it completes follow.
    Bytes(Vec<u8>),
    /// An event.
    Event(Message),
    /// The connection is gone, and the next step waits before it connects again.
    Reconnecting {
        /// For how long it waits.
        after: Duration,
        /// Why the connection is gone; `None` when the server ended the stream in good order.
        cause: Option<NetworkError>,
    },
}

/// Why an [`EventSource`] failed for good.
#[derive(Debug)]
pub enum EventSourceError {
    /// The response has another status than 200, and [says](Response::sentence) this, if it had arrived with the head.
    Status(Status, Option<String>),
    /// The response has this media type; it is empty if there was none.
    MediaType(String),
    /// The response has this content coding, although none was asked for.
    ContentCoding(String),
    /// An event is larger than this many bytes.
    EventTooLarge(usize),
    /// A network error that is final: any with [`once`](EventSource::once), else one that the next connection would meet
    /// again.
    Network(NetworkError),
}

impl fmt::Display for EventSourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use EventSourceError::*;
        match self {
            Status(found, said) => {
                write!(f, "the server answered with the status {} instead of 200", found.0)?;
                said.iter().try_for_each(|sentence| write!(f, ": {sentence}"))
            }
            MediaType(found) => {
                write!(f, "the server sent the media type {found:?} instead of text/event-stream")
            }
            ContentCoding(found) => {
                write!(f, "the server sent the content coding {found:?} that was not asked for")
            }
            EventTooLarge(bytes) => {
                write!(f, "an event of the stream is larger than the limit of {bytes} bytes")
            }
            Network(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EventSourceError {}

/// `None` is the end.
type Outcome = Result<Option<Step>, EventSourceError>;

impl EventSource {
    /// Of this URL. It connects at the first step.
    ///
    /// # Errors
    /// For a URL that is not `http`.
    pub fn get(url: &str) -> Result<EventSource, MalformedUrl> {
        Request::new(url).map(EventSource::new)
    }

    /// With a request of the caller's, which may have another method, content, and deadlines. Each connection sends it
    /// again.
    pub fn new(request: Request) -> EventSource {
        // "User agents may set (`Accept`, `text/event-stream`) in request's header list." "Set request's cache mode to
        // "no-store"." Some servers want more in Accept.
        let accepts = request.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept"));
        let request = request.field("Cache-Control", "no-store");
        EventSource {
            request: if accepts { request } else { request.field("Accept", "text/event-stream") },
            handle: CloseHandle::default(),
            parser: Parser::new(),
            reconnects: true,
            ready_state: ReadyState::Connecting,
            wait: Duration::ZERO,
            back_off: Duration::ZERO,
            response: None,
            messages: VecDeque::new(),
        }
    }

    /// With this field in each request, which replaces those of the same name.
    pub fn field(mut self, name: &str, value: impl Into<String>) -> EventSource {
        self.request = self.request.field(name, value);
        self
    }

    /// As if an event with this id had been received before.
    pub fn last_event_id(mut self, id: impl Into<String>) -> EventSource {
        self.parser = self.parser.with_last_event_id(id);
        self
    }

    /// With a limit for one line and for the data of one event; 16 MiB by default.
    pub fn event_bytes(mut self, bytes: usize) -> EventSource {
        self.parser = Parser::with_limit(bytes).with_last_event_id(self.parser.last_event_id());
        self
    }

    /// Without reconnection: the end of the first response is the end.
    pub fn once(mut self) -> EventSource {
        self.reconnects = false;
        self
    }

    /// What closes it from another thread.
    pub fn close_handle(&self) -> CloseHandle {
        self.handle.clone()
    }

    /// The state of the connection.
    pub fn ready_state(&self) -> ReadyState {
        if self.handle.is_closed() { ReadyState::Closed } else { self.ready_state }
    }

    /// The latest response, also one that was refused.
    pub fn response(&self) -> Option<&Response> {
        self.response.as_ref()
    }

    /// Waits for what happens next; `None` once it is closed. What a closed source has received and not given yet is
    /// dropped, as in a browser.
    pub fn step(&mut self) -> Option<Result<Step, EventSourceError>> {
        let outcome = match (self.ready_state(), self.messages.pop_front()) {
            (ReadyState::Closed, _) => None,
            (_, Some(message)) => Some(Ok(Step::Event(message))),
            (ReadyState::Open, None) => self.read().transpose(),
            (ReadyState::Connecting, None) => self.connect().transpose(),
        };
        if !matches!(outcome, Some(Ok(_))) {
            // "Abort any instances of the fetch algorithm started for this EventSource object, and set the readyState
            // attribute to CLOSED."
            self.ready_state = ReadyState::Closed;
            self.response.iter_mut().for_each(Response::close);
        }
        outcome
    }

    fn connect(&mut self) -> Outcome {
        // "Wait a delay equal to the reconnection time of the event source."
        if self.handle.wait(self.wait) {
            return Ok(None);
        }
        let mut request = self.request.clone();
        // "If the EventSource object's last event ID string is not the empty string, then: Let lastEventIDValue be the
        // EventSource object's last event ID string, encoded as UTF-8. Set (`Last-Event-ID`, lastEventIDValue) in
        // request's header list."
        if !self.parser.last_event_id().is_empty() {
            request = request.field("Last-Event-ID", self.parser.last_event_id());
        }
        // "If res is an aborted network error, then fail the connection. Otherwise, if res is a network error, then
        // reestablish the connection."
        let response = match request.send(&self.handle) {
            Ok(response) => self.response.insert(response),
            Err(error) => return self.reestablish(Some(error)),
        };
        match response.status {
            Status::OK => {}
            // "A client can be told to stop reconnecting using the HTTP 204 No Content response code."
            Status::NO_CONTENT => return Ok(None),
            // "Otherwise, if res's status is not 200, or if res's `Content-Type` is not `text/event-stream`, then fail the
            // connection."
            status => {
                let said = response.sentence(response.arrived());
                return Err(EventSourceError::Status(status, said));
            }
        }
        let media_type = response.media_type().unwrap_or_default();
        if !media_type.eq_ignore_ascii_case("text/event-stream") {
            return Err(EventSourceError::MediaType(media_type.to_owned()));
        }
        match response.field("content-encoding") {
            None | Some("" | "identity") => {}
            Some(coding) => return Err(EventSourceError::ContentCoding(coding.to_owned())),
        }
        // "Otherwise, announce the connection": "if the readyState attribute is set to a value other than CLOSED, sets
        // the readyState attribute to OPEN and fires an event named open".
        self.ready_state = ReadyState::Open;
        Ok(Some(Step::Open))
    }

    /// "... and interpret res's body line by line."
    fn read(&mut self) -> Outcome {
        // The piece before has broken the limit behind the events that it completed.
        if self.parser.feed(b"").is_err() {
            return Err(EventSourceError::EventTooLarge(self.parser.limit()));
        }
        let Some(response) = &mut self.response else { return Ok(None) };
        let mut piece = Vec::new();
        match response.read(&mut piece) {
            Ok(true) => {}
            // "If res is not a network error, then reestablish the connection."
            Ok(false) => return self.reestablish(None),
            Err(error) => return self.reestablish(Some(error)),
        }
        self.messages.extend(self.parser.feed(&piece).unwrap_or_default());
        if !self.messages.is_empty() {
            self.back_off = Duration::ZERO;
        }
        Ok(Some(Step::Bytes(piece)))
    }

    /// "If the readyState attribute is set to CLOSED, abort the task. Set the readyState attribute to CONNECTING. Fire an
    /// event named error at the EventSource object."
    fn reestablish(&mut self, cause: Option<NetworkError>) -> Outcome {
        use NetworkError::{Field, TooManyRedirects, Url};
        // "... unless the user agent knows that to be futile, in which case the user agent may fail the connection."
        let is_futile = matches!(cause, Some(Url(_) | Field(_) | TooManyRedirects(..)));
        if self.handle.is_closed() {
            return Ok(None);
        }
        if is_futile || !self.reconnects {
            return cause.map_or(Ok(None), |error| Err(EventSourceError::Network(error)));
        }
        self.ready_state = ReadyState::Connecting;
        self.parser.reconnect();
        // "Optionally, wait some more. In particular, if the previous attempt failed, then user agents might introduce an
        // exponential backoff delay to avoid overloading a potentially already overloaded server." An event resets it.
        let time = self.parser.reconnection_time().unwrap_or(RECONNECTION_TIME);
        self.wait = time + jittered(self.back_off);
        self.back_off = longer(self.back_off, BACK_OFF);
        Ok(Some(Step::Reconnecting { after: self.wait, cause }))
    }
}

impl Iterator for EventSource {
    type Item = Result<Message, EventSourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step()? {
                Ok(Step::Event(message)) => return Some(Ok(message)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
