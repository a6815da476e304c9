//! A request as a handler sees it: the head, the peer, and the content.

use super::connection::Connection;
use super::content::Content;
use super::grammar::list;
use super::head::{Framing, Head, Method, Version};
use super::limits::Limits;
use super::status::{Refusal, Status};
use super::wire::Wire;
use std::fmt;
use std::net::SocketAddr;

/// A request: its head, the address of the peer, and its content, which is read from the wire when the handler asks for
/// it. It dereferences to its [`Head`].
///
/// ```
/// use newswire::http::{Method, Refusal, Response, Router, Status};
///
/// let mut router = Router::new();
/// router.route(Method::Put, "/notes/{name}", |request| {
///     let content = request.content()?;
///     let name = request.parameter("name").unwrap_or_default();
///     Ok::<_, Refusal>(Response::text(Status::OK, format!("{name} has {} bytes\n", content.len())))
/// });
/// ```
pub struct Request<'c> {
    head: Head,
    pub(super) content: Content<'c>,
    /// The values of the `{names}` of the route. The router sets them.
    pub(super) parameters: Parameters,
}

/// Names and decoded values.
pub(super) type Parameters = Vec<(String, String)>;

impl<'c> Request<'c> {
    pub(super) fn new(head: Head, wire: &'c mut Wire, limits: &'c Limits) -> Request<'c> {
        let content = Content::new(&head, wire, limits);
        Request { head, content, parameters: Parameters::new() }
    }

    pub(crate) fn connection(&self) -> &Connection {
        self.content.wire.connection()
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.content.limits
    }

    /// The address that the connection comes from; `None` for a client of a Unix socket. Behind a proxy it is the proxy's.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.connection().peer
    }

    /// The segment of the path that stands where the route has `{name}`, decoded; `None` when the route has no such
    /// name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Reads the whole content. A peer that waits for `100 Continue` is told to go on now, so that a handler that refuses
    /// before that spares the peer the upload.
    ///
    /// # Errors
    /// `413` beyond [`Limits::content_bytes`], `408` beyond [`Limits::content_deadline`], `411` (`400` in HTTP/1.0) when
    /// a POST or PUT says no length at all, `415` for a `Content-Encoding`, `400` when the framing is broken or a PUT has
    /// a `Content-Range`.
    pub fn content(&mut self) -> Result<Vec<u8>, Refusal> {
        self.check_content()?;
        self.content.read_whole()
    }

    /// Reads the content as it arrives, however long that takes, and gives each piece to `take`.
    ///
    /// # Errors
    /// What `take` returns; `408` after [`Limits::lines_idle`] without a byte; `503` when there are as many such uploads
    /// as the server may have; else as [`content`](Request::content).
    pub fn pieces(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.check_content()?;
        let sentence = "There are as many uploads as this server may have.";
        let full = Refusal::new(Status::SERVICE_UNAVAILABLE, sentence);
        let _permit = self.connection().admission().take_upload().ok_or(full)?;
        let (mut piece, idle) = (Vec::new(), self.limits().lines_idle);
        while self.content.read_some(&mut piece, || idle)? {
            take(&piece)?;
            piece.clear();
        }
        Ok(())
    }

    /// Reads the content line by line as it arrives, and gives each line to `take` without its end (LF or CRLF). An
    /// unfinished last line is a line.
    ///
    /// # Errors
    /// `413` for a line beyond [`Limits::content_bytes`]; else as [`pieces`](Request::pieces).
    pub fn lines(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let (mut kept, most) = (Vec::new(), self.limits().content_bytes);
        self.pieces(|piece| {
            let (mut start, mut searched) = (0, kept.len());
            kept.extend_from_slice(piece);
            while let Some(length) = kept[searched..].iter().position(|&byte| byte == b'\n') {
                let end = searched + length;
                take(check_line(&kept[start..end], most)?)?;
                (start, searched) = (end + 1, end + 1);
            }
            kept.drain(..start);
            check_line(&kept, most).map(|_| ())
        })?;
        if kept.is_empty() { Ok(()) } else { take(check_line(&kept, most)?) }
    }

    /// What is wrong with a content that is going to be read.
    fn check_content(&mut self) -> Result<(), Refusal> {
        self.check_length_is_said()?;
        // "An origin server SHOULD respond with a 400 (Bad Request) status code if it receives Content-Range on a PUT"
        // (RFC 9110, 14.5): a part must not be taken for the whole.
        Refusal::bad("A PUT here is a whole; send it without Content-Range.")
            .unless(self.method() != Method::Put || self.field("content-range").is_none())?;
        let mut codings = self.values("content-encoding").flat_map(list);
        let sentence = "This server decodes no content; send it without Content-Encoding.";
        Refusal::new(Status::UNSUPPORTED_MEDIA_TYPE, sentence)
            .unless(codings.all(|coding| coding.eq_ignore_ascii_case("identity")))
    }

    /// "A server MAY reject a request that contains a message body but not a Content-Length by responding with 411
    /// (Length Required)" (RFC 9112, 6.3). Without either field there is no content by definition, but a program that
    /// posts without one has more likely forgotten it, and its content would be read as the next request.
    fn check_length_is_said(&mut self) -> Result<(), Refusal> {
        let sends = matches!(self.method(), Method::Post | Method::Put);
        if !sends || self.framing() != Framing::None {
            return Ok(());
        }
        // What follows may be content, or the next request.
        self.content.failed = true;
        let sentence = "Say how long the content is, with Content-Length; 0 if there is none.";
        Err(match self.version() {
            Version::Http10 => Refusal::bad(sentence),
            Version::Http11 => Refusal::new(Status::LENGTH_REQUIRED, sentence),
        })
    }
}

/// The line without a CR that is, or may become, part of its end.
fn check_line(line: &[u8], most_bytes: usize) -> Result<&[u8], Refusal> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let sentence = "A line of the content is larger than this server takes.";
    Refusal::new(Status::CONTENT_TOO_LARGE, sentence).unless(line.len() <= most_bytes)?;
    Ok(line)
}

impl std::ops::Deref for Request<'_> {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("head", &self.head)
            .field("peer", &self.peer())
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}
