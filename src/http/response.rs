//! What a handler answers: a status, fields, and a body that is bytes, a file or a stream.

use super::date::Date;
use super::grammar::is_token;
use super::head::{Method, Version};
use super::request::Request;
use super::status::{Refusal, Status};
use super::stream::{Pace, Stream, StreamWriter};
use std::borrow::Cow;
use std::fmt;
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
#[derive(Debug)]
pub struct Response {
    status: Status,
    fields: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Body,
}

/// More fields than most responses have.
const FIELDS: usize = 10;

/// Fields that the server writes itself. A second one would let a client find another end of the response.
const OWN_FIELDS: [&str; 4] = ["Connection", "Content-Length", "Date", "Transfer-Encoding"];

pub(super) enum Body {
    Bytes(Cow<'static, [u8]>),
    /// A file, and how many bytes of it `Content-Length` says.
    File(File, u64),
    Stream(Stream),
}

impl Response {
    fn new(status: Status, body: Body) -> Response {
        let response = Response { status: Status::OK, fields: Vec::with_capacity(FIELDS), body };
        response.with_status(status)
    }

    /// Without content.
    pub fn empty(status: Status) -> Response {
        Response::new(status, Body::Bytes(Cow::Borrowed(b"")))
    }

    /// Plain text in UTF-8.
    pub fn text(status: Status, text: impl Into<Cow<'static, str>>) -> Response {
        let content: Cow<'static, [u8]> = match text.into() {
            Cow::Borrowed(text) => text.as_bytes().into(),
            Cow::Owned(text) => text.into_bytes().into(),
        };
        Response::typed(status, "text/plain; charset=utf-8", Body::Bytes(content))
    }

    /// `200` with JSON that the caller has written.
    pub fn json(json: String) -> Response {
        Response::typed(Status::OK, "application/json", Body::Bytes(json.into_bytes().into()))
    }

    /// Bytes with their media type. Browsers are told not to guess another one.
    pub fn bytes(
        status: Status,
        content_type: impl Into<Cow<'static, str>>,
        content: impl Into<Cow<'static, [u8]>>,
    ) -> Response {
        Response::new(status, Body::Bytes(content.into()))
            .field("Content-Type", content_type)
            .literal("X-Content-Type-Options", "nosniff")
    }

    /// As [`bytes`](Response::bytes), with a media type that this program says itself.
    pub(super) fn typed(status: Status, content_type: &'static str, body: Body) -> Response {
        Response::new(status, body).literal("Content-Type", content_type).literal("X-Content-Type-Options", "nosniff")
    }

    /// A stream of unknown length, `200`, that ends when `run` returns. `opening` leaves with the head at once. Each
    /// write that `run` makes leaves at once; it fails when the peer makes no progress for
    /// [`Limits::write_stall`](super::Limits::write_stall). An error of `run` ends the connection and nothing else.
    ///
    /// When there are [`Limits::streams`](super::Limits::streams) already, the response is `503`.
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
        // A program may have made the text at run time: it is cleaned as that of any field.
        Response::new(Status::OK, Body::Stream(Stream::new(opening, Box::new(run)))).field("Content-Type", content_type)
    }

    /// Changes the stream, if the body is one.
    pub(crate) fn with_stream(mut self, change: impl FnOnce(&mut Stream)) -> Response {
        if let Body::Stream(stream) = &mut self.body {
            change(stream);
        }
        self
    }

    /// The run begins ten milliseconds after the opening has left, and needs no thread until then. A proxy that reads a
    /// piece of the stream together with the head may hold it until the next bytes come (Varnish does).
    pub(crate) fn delayed(self) -> Response {
        self.with_stream(|stream| stream.pace = Pace::Delayed)
    }

    /// The run takes the head, and writes it with its first bytes: one call in place of two. It is
    /// [`delayed`](Response::delayed) when the request came through a proxy; the one that needs it adds a field.
    pub(crate) fn joined(self, request: &Request<'_>) -> Response {
        let is_direct = ["x-forwarded-for", "forwarded", "via"].iter().all(|name| request.field(name).is_none());
        self.with_stream(|stream| stream.pace = if is_direct { Pace::Joined } else { Pace::Delayed })
    }

    /// Sets [`Stream::prepare`].
    pub(crate) fn prepare(self, prepare: impl FnOnce(&mut StreamWriter, &[u8]) + Send + 'static) -> Response {
        self.with_stream(|stream| stream.prepare = Some(Box::new(prepare)))
    }

    /// The answer for a method that the path does not have: of OPTIONS the methods there are, else `405`.
    pub(super) fn for_other_method(method: Method, allow: impl Into<Cow<'static, str>>) -> Response {
        let allow = allow.into();
        let response = match method {
            Method::Options => Response::empty(Status::NO_CONTENT),
            _ => {
                let sentence = format!("This path takes {allow}.");
                Refusal::with_sentence(Status::METHOD_NOT_ALLOWED, sentence).into()
            }
        };
        response.field("Allow", allow)
    }

    /// Adds a field. Control characters in the value become spaces, as RFC 9110, 5.5 asks for CR, LF and NUL: a value
    /// that a client chose cannot begin another field.
    ///
    /// # Panics
    /// When the name is not a token (RFC 9110, 5.6.2), or is one that the server writes itself: `Connection`,
    /// `Content-Length`, `Date`, `Transfer-Encoding`. Nothing of such a field reaches the wire. A panic of a handler is
    /// `500` for its client.
    #[track_caller]
    pub fn field(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Response {
        let (name, value) = (name.into(), value.into());
        assert!(Response::takes(&name), "{name:?} is no name, or the server itself writes this field");
        let value = match value.bytes().any(is_control) {
            true => value.replace(|c| u8::try_from(c).is_ok_and(is_control), " ").into(),
            false => value,
        };
        self.fields.push((name, value));
        self
    }

    /// As [`field`](Response::field), for what this program says itself: it is not searched for control characters in
    /// each response.
    pub(crate) fn literal(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Response {
        let value = value.into();
        debug_assert!(Response::takes(name) && !value.bytes().any(is_control));
        self.fields.push((name.into(), value));
        self
    }

    /// Without the fields of this name.
    pub(crate) fn without(mut self, name: &str) -> Response {
        self.fields.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        self
    }

    /// Whether [`field`](Response::field) takes this name.
    pub(crate) fn takes(name: &str) -> bool {
        is_token(name.as_bytes()) && !OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// With another status.
    ///
    /// # Panics
    /// When the status is not one of a final response (RFC 9110, 15): 200 to 599. A client would wait behind a `100`.
    pub fn with_status(mut self, status: Status) -> Response {
        assert!(matches!(status.0, 200..=599), "{status} is not the status of a final response");
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

    /// What is sent in place of the stream when there are too many streams.
    pub(super) fn full(mut self) -> Response {
        if let Body::Stream(Stream { when_full: Some(content), .. }) = self.body {
            self.body = Body::Bytes(content.into());
            return self;
        }
        let sentence = "There are as many streams as this server may have.";
        Refusal::new(Status::SERVICE_UNAVAILABLE, sentence).into()
    }

    pub(super) fn into_body(self) -> Body {
        self.body
    }

    /// ```text
    /// status-line = HTTP-version SP status-code SP [ reason-phrase ]        (RFC 9112, 4)
    /// ```
    pub(super) fn write_head(&self, keep: bool, version: Version, out: &mut Vec<u8>) {
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        let digit = |unit| b'0' + (self.status.0 / unit % 10) as u8;
        put(&[b"HTTP/1.1 ", &[100, 10, 1].map(digit), b" ", self.status.reason().as_bytes()]);
        put(&[b"\r\nDate: ", &Date::now().imf_fixdate(), b"\r\n"]);
        for (name, value) in &self.fields {
            put(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        let length = match (&self.body, self.status.0) {
            // A 205 says that it has no content with Content-Length: 0 (RFC 9110, 15.3.6). The other statuses without
            // content have no length.
            (_, 205) => Some(0),
            _ if self.status.forbids_content() => None,
            (Body::Bytes(content), _) => Some(content.len() as u64),
            (Body::File(_, bytes), _) => Some(*bytes),
            (Body::Stream(_), _) => None,
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

    /// Whether content follows the head: never for HEAD, 204, 205 and 304.
    pub(super) fn has_content(&self, method: Method) -> bool {
        method != Method::Head && !self.status.forbids_content()
    }
}

/// Without the content, which may be long.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Bytes(content) => write!(f, "{} bytes", content.len()),
            Body::File(_, bytes) => write!(f, "a file of {bytes} bytes"),
            Body::Stream(_) => f.write_str("a stream"),
        }
    }
}

/// What no field value may have (RFC 9110, 5.5).
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        let sentence = refusal.sentence.replace(char::is_control, " ") + "\n";
        let response = Response::text(refusal.status, sentence).literal("Cache-Control", "no-store");
        match refusal.status {
            // "The server generating a 401 response MUST send a WWW-Authenticate header field" (RFC 9110, 11.6.1).
            Status::UNAUTHORIZED => response.literal("WWW-Authenticate", "Bearer"),
            Status::SERVICE_UNAVAILABLE => response.literal("Retry-After", "5"),
            _ => response,
        }
    }
}

impl From<Result<Response, Refusal>> for Response {
    fn from(result: Result<Response, Refusal>) -> Response {
        result.unwrap_or_else(Response::from)
    }
}
