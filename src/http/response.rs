//! What a handler answers: a status, fields, and a [`Body`] that is bytes, a file, a stream that
//! runs on the connection's own thread, or the connection itself handed on.

use super::connection::Connection;
use super::date::Date;
use super::request::{Method, Version};
use super::status::{Refusal, Status};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};

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
    fields: Vec<(&'static str, Cow<'static, str>)>,
    body: Body,
    witness: Option<Witness>,
}

/// As many fields as most responses have.
const FIELDS: usize = 10;

/// Is shown the bytes of the head.
type Witness = Box<dyn FnOnce(&[u8]) + Send>;

pub(super) type Run = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;
pub(super) type Take = Box<dyn FnOnce(Connection) + Send>;

pub(super) enum Body {
    Bytes(Cow<'static, [u8]>),
    /// A file, and how many bytes of it were promised.
    File(File, u64),
    /// Delimited by the close of the connection. `opening` leaves in one write with the head.
    Stream {
        opening: Vec<u8>,
        run: Run,
    },
    /// As a stream, but `take` gets the connection, and this thread may end.
    HandOver {
        opening: Vec<u8>,
        take: Take,
        /// Not at once, but when the peer has had the time to read what `opening` is part of.
        is_delayed: bool,
    },
}

impl Response {
    fn new(status: Status, body: Body) -> Response {
        Response { status, fields: Vec::with_capacity(FIELDS), body, witness: None }
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

    /// A stream of unknown length, `200`, that ends when `run` does. `opening` is sent with the
    /// head, at once; each write that `run` makes leaves when it is made, and fails when the peer
    /// has taken nothing for [`Limits::write_stall`](crate::Limits::write_stall). An error of `run`
    /// only ends the connection.
    ///
    /// It is delimited by the close of the connection and never chunked, so that telnet shows bare
    /// frames and no proxy waits for a chunk to be whole.
    pub fn stream(
        content_type: &'static str,
        opening: Vec<u8>,
        run: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Response {
        Response::new(Status::OK, Body::Stream { opening, run: Box::new(run) })
            .field("Content-Type", content_type)
    }

    /// As [`stream`](Response::stream), but the connection itself is given away, with its place
    /// under the limit: at once, or when it has rested for some milliseconds, for which it needs no
    /// thread.
    pub(crate) fn hand_over(
        content_type: &'static str,
        opening: Vec<u8>,
        is_delayed: bool,
        take: impl FnOnce(Connection) + Send + 'static,
    ) -> Response {
        Response::new(Status::OK, Body::HandOver { opening, take: Box::new(take), is_delayed })
            .field("Content-Type", content_type)
    }

    /// Adds a field. Control characters in a value that was made at run time become spaces, as RFC 9110,
    /// 5.5 asks for CR, LF and NUL: no stranger's text can begin another field. A literal is yours.
    pub fn field(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Response {
        let value = match value.into() {
            Cow::Owned(text) if text.contains(is_control) => text.replace(is_control, " ").into(),
            value => value,
        };
        self.fields.push((name, value));
        self
    }

    /// Shows the head to somebody as it leaves: fields are still added after the handler has
    /// returned.
    pub(crate) fn witnessed(mut self, witness: impl FnOnce(&[u8]) + Send + 'static) -> Response {
        self.witness = Some(Box::new(witness));
        self
    }

    /// With another Content-Type.
    pub(crate) fn with_content_type(mut self, content_type: String) -> Response {
        self.fields.retain(|(name, _)| *name != "Content-Type");
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
        matches!(self.body, Body::Stream { .. } | Body::HandOver { .. })
    }

    pub(super) fn into_body(self) -> Body {
        self.body
    }

    /// ```text
    /// status-line = HTTP-version SP status-code SP [ reason-phrase ]        (RFC 9112, 4)
    /// ```
    pub(super) fn write_head(&mut self, keep: bool, version: Version, out: &mut Vec<u8>) {
        let start = out.len();
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
            Body::Stream { .. } | Body::HandOver { .. } => None,
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
        if let Some(witness) = self.witness.take() {
            witness(&out[start..]);
        }
    }

    /// Whether content follows the head: never behind HEAD, 204, 205 and 304.
    pub(super) fn has_content(&self, method: Method) -> bool {
        method != Method::Head && !self.status.forbids_content()
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
