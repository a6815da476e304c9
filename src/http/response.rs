//! What a handler answers: a status, fields, and a [`Body`] that is bytes, a file, a stream that
//! runs on the connection's own thread, or the connection itself handed on.

use super::connection::{Closer, Connection};
use super::date::Date;
use super::request::{Method, Version};
use super::status::{Refusal, Status};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;

/// A response.
///
/// ```
/// use newswire::http::{Response, Status};
///
/// let response = Response::text(Status::OK, "It works.\n").field("X-Note", "by hand");
/// assert_eq!(response.status(), Status::OK);
/// ```
pub struct Response {
    status: Status,
    fields: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Body,
}

/// As many fields as most responses have.
const FIELDS: usize = 10;

pub(super) type Run = Box<dyn FnOnce(StreamWriter) -> io::Result<()> + Send>;

pub(super) enum Body {
    Bytes(Cow<'static, [u8]>),
    /// A file, and how many bytes of it were promised.
    File(File, u64),
    Stream(Stream),
}

/// A body of unknown length. The close of the connection delimits it, so that telnet shows bare frames and no proxy
/// waits for a chunk to be whole.
pub(super) struct Stream {
    /// Leaves with the head, at once.
    pub(super) opening: Vec<u8>,
    /// Writes the rest, when the peer has had the time to read the opening if `is_delayed`.
    pub(super) run: Run,
    pub(super) is_delayed: bool,
    /// What stands in place of the stream when there are too many; without it the response is `503`.
    pub(super) when_full: Option<Vec<u8>>,
    /// What a stream is told when the server stops.
    pub(super) farewell: Option<fn() -> Vec<u8>>,
    /// Sees the head before it leaves, and can watch what is written.
    pub(super) prepare: Option<Prepare>,
}

pub(super) type Prepare = Box<dyn FnOnce(&mut StreamWriter, &[u8]) + Send>;

impl Response {
    fn new(status: Status, body: Body) -> Response {
        Response { status, fields: Vec::with_capacity(FIELDS), body }
    }

    /// Without content.
    pub fn empty(status: Status) -> Response {
        Response::new(status, Body::Bytes(Cow::Borrowed(b"")))
    }

    /// Plain text, UTF-8.
    pub fn text(status: Status, text: impl Into<Cow<'static, str>>) -> Response {
        Response::bytes(
            status,
            "text/plain; charset=utf-8",
            match text.into() {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
        )
    }

    /// JSON that the caller has written.
    pub fn json(json: String) -> Response {
        Response::bytes(Status::OK, "application/json", json.into_bytes())
    }

    /// Any bytes with their media type. The browser is told not to guess another one.
    pub fn bytes(
        status: Status,
        content_type: impl Into<Cow<'static, str>>,
        content: impl Into<Cow<'static, [u8]>>,
    ) -> Response {
        Response::new(status, Body::Bytes(content.into()))
            .field("Content-Type", content_type)
            .field("X-Content-Type-Options", "nosniff")
    }

    pub(super) fn file(content_type: &'static str, file: File, bytes: u64) -> Response {
        Response::new(Status::OK, Body::File(file, bytes))
            .field("Content-Type", content_type)
            .field("X-Content-Type-Options", "nosniff")
    }

    /// A stream of unknown length, `200`, that ends when `run` does. `opening` leaves with the head, at once; each
    /// write that `run` makes leaves when it is made, and fails when the peer makes no progress for
    /// [`Limits::write_stall`](crate::http::Limits::write_stall). An error of `run` only ends the connection.
    ///
    /// When there are [`Limits::streams`](crate::http::Limits::streams) already the response is `503`.
    pub fn stream(
        content_type: &'static str,
        opening: Vec<u8>,
        run: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Response {
        Response::streamed(content_type, opening, move |mut writer| {
            run(&mut writer)?;
            writer.finish();
            Ok(())
        })
    }

    /// As [`stream`](Response::stream), but `run` owns the writer, and may take the connection out of it.
    pub(crate) fn streamed(
        content_type: &'static str,
        opening: Vec<u8>,
        run: impl FnOnce(StreamWriter) -> io::Result<()> + Send + 'static,
    ) -> Response {
        let run: Run = Box::new(run);
        let stream = Stream {
            opening,
            run,
            is_delayed: false,
            when_full: None,
            farewell: None,
            prepare: None,
        };
        Response::new(Status::OK, Body::Stream(stream)).field("Content-Type", content_type)
    }

    fn with_stream(mut self, change: impl FnOnce(&mut Stream)) -> Response {
        if let Body::Stream(stream) = &mut self.body {
            change(stream);
        }
        self
    }

    /// The stream goes on ten milliseconds after its opening, for which it needs no thread: a proxy that gets a piece
    /// of the stream in one read with the head may hold it until the next bytes come (Varnish does).
    pub(crate) fn delayed(self) -> Response {
        self.with_stream(|stream| stream.is_delayed = true)
    }

    /// What the content is when there are too many streams.
    pub(crate) fn when_full(self, content: Vec<u8>) -> Response {
        self.with_stream(|stream| stream.when_full = Some(content))
    }

    /// What is written last when the server stops while the stream runs.
    pub(crate) fn farewell(self, farewell: fn() -> Vec<u8>) -> Response {
        self.with_stream(|stream| stream.farewell = Some(farewell))
    }

    /// Calls `prepare` with the head of the stream before it leaves: fields are still added after the handler has
    /// returned.
    pub(crate) fn prepare(
        self,
        prepare: impl FnOnce(&mut StreamWriter, &[u8]) + Send + 'static,
    ) -> Response {
        self.with_stream(|stream| stream.prepare = Some(Box::new(prepare)))
    }

    /// Adds a field. Control characters in a value that was made at run time become spaces, as RFC 9110,
    /// 5.5 asks for CR, LF and NUL: no stranger's text can begin another field. A literal is yours.
    pub fn field(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Response {
        let value = match value.into() {
            Cow::Owned(text) if text.contains(is_control) => text.replace(is_control, " ").into(),
            value => value,
        };
        self.fields.push((name.into(), value));
        self
    }

    /// With another Content-Type.
    pub(crate) fn with_content_type(mut self, content_type: String) -> Response {
        self.fields.retain(|(name, _)| name != "Content-Type");
        self.field("Content-Type", content_type)
    }

    /// With another status.
    pub fn with_status(mut self, status: Status) -> Response {
        self.status = status;
        self
    }

    /// The status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether the end of the content is the end of the connection.
    pub(super) fn is_close_delimited(&self) -> bool {
        matches!(self.body, Body::Stream(_))
    }

    /// What is sent in place of a stream when there are too many.
    pub(super) fn full(mut self) -> Response {
        let when_full = match &mut self.body {
            Body::Stream(stream) => stream.when_full.take(),
            _ => None,
        };
        let Some(content) = when_full else {
            let sentence = "There are as many streams as this server may have.";
            return Refusal::new(Status::SERVICE_UNAVAILABLE, sentence).into();
        };
        self.body = Body::Bytes(content.into());
        self
    }

    pub(super) fn into_body(self) -> Body {
        self.body
    }

    /// ```text
    /// status-line = HTTP-version SP status-code SP [ reason-phrase ]        (RFC 9112, 4)
    /// ```
    pub(super) fn write_head(&self, keep: bool, version: Version, out: &mut Vec<u8>) {
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        let status = self.status.to_string();
        put(&[b"HTTP/1.1 ", status.as_bytes()]);
        put(&[b"\r\nDate: ", &Date::now().imf_fixdate(), b"\r\n"]);
        for (name, value) in &self.fields {
            put(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        let length = match &self.body {
            Body::Bytes(content) => Some(content.len() as u64),
            Body::File(_, bytes) => Some(*bytes),
            Body::Stream(_) => None,
        };
        let length = match self.status.0 {
            // "By ... Content-Length: 0" it says that there is nothing (RFC 9110, 15.3.6); the others
            // that have no content say nothing of it.
            205 => Some(0),
            _ => length.filter(|_| !self.status.forbids_content()),
        };
        if let Some(length) = length {
            put(&[b"Content-Length: ", length.to_string().as_bytes(), b"\r\n"]);
        }
        if !keep {
            put(&[b"Connection: close\r\n"]);
        } else if version == Version::Http10 {
            put(&[b"Connection: keep-alive\r\n"]);
        }
        put(&[b"\r\n"]);
    }

    /// Whether content follows the head: never behind HEAD, 204, 205 and 304.
    pub(super) fn has_content(&self, method: Method) -> bool {
        method != Method::Head && !self.status.forbids_content()
    }
}

/// Writes the body of a stream. Each write leaves when it is made.
pub(crate) struct StreamWriter {
    connection: Connection,
    tap: Option<Tap>,
}

type Tap = Box<dyn FnMut(&[u8]) + Send>;

impl StreamWriter {
    pub(super) fn new(connection: Connection) -> StreamWriter {
        StreamWriter { connection, tap: None }
    }

    /// Writes the head and the opening in one piece.
    pub(super) fn begin(&mut self, mut head: Vec<u8>, opening: &[u8]) -> io::Result<()> {
        if let Some(tap) = self.tap.as_mut().filter(|_| !opening.is_empty()) {
            tap(opening);
        }
        head.extend_from_slice(opening);
        self.connection.write_all(&head)
    }

    /// Shows each piece to `tap` before it is written.
    pub(crate) fn tap(&mut self, tap: impl FnMut(&[u8]) + Send + 'static) {
        self.tap = Some(Box::new(tap));
    }

    /// Lets another thread end the stream.
    pub(crate) fn closer(&self) -> Closer {
        self.connection.closer()
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }

    /// Writes what the system takes without waiting; returns how many bytes that is.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing now; else as the socket says, also when `bytes` is empty.
    pub(crate) fn write_at_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket: &TcpStream = &self.connection;
        socket.set_nonblocking(true)?;
        let written = socket.write(bytes);
        socket.set_nonblocking(false)?;
        let written = written?;
        if let Some(tap) = self.tap.as_mut().filter(|_| written > 0) {
            tap(&bytes[..written]);
        }
        Ok(written)
    }

    /// Ends the stream so that the client reads all of it.
    pub(crate) fn finish(self) {
        self.connection.linger();
    }
}

impl Write for StreamWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tap) = &mut self.tap {
            tap(bytes);
        }
        self.connection.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What may stand in no field value (RFC 9110, 5.5).
fn is_control(character: char) -> bool {
    character.is_ascii_control() && character != '\t'
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        let response = Response::text(refusal.status, format!("{}\n", refusal.sentence))
            .field("Cache-Control", "no-store");
        match refusal.status {
            // "The server generating a 401 response MUST send a WWW-Authenticate header field" (RFC
            // 9110, 11.6.1).
            Status::UNAUTHORIZED => response.field("WWW-Authenticate", "Bearer"),
            Status::SERVICE_UNAVAILABLE => response.field("Retry-After", "5"),
            _ => response,
        }
    }
}

impl From<Result<Response, Refusal>> for Response {
    fn from(result: Result<Response, Refusal>) -> Response {
        result.unwrap_or_else(Response::from)
    }
}
