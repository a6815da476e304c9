//! Bytes to a [`Request`]: the grammar of RFC 9112 and the meanings of RFC 9110, by hand.
//!
//! [`Head::parse`] has three outcomes: a head and its length, not enough bytes yet, or a
//! [`Refusal`]. It has never heard of a socket. Where the standard leaves a choice that two
//! programs could make differently, it refuses: a proxy in front and this server must never
//! disagree on where a request ends (request smuggling).

use super::connection::Connection;
use super::content::{Content, Framing, is_token_byte};
use super::limits::Limits;
use super::status::{Refusal, Status};
use std::net::{Ipv6Addr, SocketAddr};

/// The methods that newswire knows (RFC 9110, 9.3). Any other is `501`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
}

impl Method {
    /// Its name on the wire; methods are case-sensitive.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }

    fn parse(name: &[u8]) -> Option<Method> {
        use Method::*;
        [Get, Head, Post, Put, Delete, Options]
            .into_iter()
            .find(|method| method.name().as_bytes() == name)
    }
}

/// HTTP/1.0 or HTTP/1.1; a later minor version is read as 1.1 (RFC 9110, 2.5), another major one is
/// `505`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    Http11,
}

/// The request line and the fields.
///
/// ```
/// use newswire::Limits;
/// use newswire::http::{Head, Method};
///
/// let wire = b"GET /a%20path?name=caf%C3%A9+noir HTTP/1.1\r\nHost: localhost\r\n\r\nthe next bytes";
/// let (head, length) = Head::parse(wire, &Limits::default())?.expect("it is whole");
/// assert_eq!(head.method(), Method::Get);
/// assert_eq!(head.segments(), ["a path"]);
/// assert_eq!(head.query("name").as_deref(), Some("café noir"));
/// assert_eq!(head.field("host"), Some("localhost"));
/// assert_eq!(&wire[length..], b"the next bytes");
/// # Ok::<(), newswire::http::Refusal>(())
/// ```
#[derive(Clone, Debug)]
pub struct Head {
    method: Method,
    target: Target,
    version: Version,
    fields: Vec<(String, String)>,
    framing: Framing,
    continue_awaited: bool,
}

impl Head {
    /// Reads the head that `wire` begins with, and how many bytes it takes; `None` while it is not
    /// whole.
    ///
    /// ```text
    /// HTTP-message = start-line CRLF *( field-line CRLF ) CRLF [ message-body ]        (RFC 9112, 2.1)
    /// ```
    ///
    /// "A recipient MAY recognize a single LF as a line terminator and ignore any preceding CR"
    /// (2.2): we do, because people type requests in telnet. Empty lines before the request line
    /// are ignored (2.2).
    ///
    /// # Errors
    /// `400` for what breaks the grammar, `414`, `417`, `431`, `501` and `505` where each belongs.
    /// The request line is judged as soon as it has arrived, and a first byte that no method begins
    /// with at once: who speaks TLS here would otherwise wait for the whole deadline.
    pub fn parse(wire: &[u8], limits: &Limits) -> Result<Option<(Head, usize)>, Refusal> {
        let mut lines = Lines { wire, at: 0 };
        let request_line = loop {
            let start = lines.at;
            match lines.next()? {
                Some(b"") => {}
                Some(line) => break line,
                None => return judge_beginning(&wire[start..], wire.len(), limits).map(|()| None),
            }
        };
        let (method, target, version) = parse_request_line(request_line, limits)?;

        let mut fields = Vec::new();
        loop {
            let whole = lines.next()?;
            if lines.at > limits.head_bytes || (whole.is_none() && wire.len() > limits.head_bytes) {
                return Err(Refusal::new(
                    Status::FIELDS_TOO_LARGE,
                    "The head of the request is too large.",
                ));
            }
            let Some(line) = whole else { return Ok(None) };
            if line.is_empty() {
                break;
            }
            if fields.len() == limits.fields {
                return Err(Refusal::new(
                    Status::FIELDS_TOO_LARGE,
                    "The request has too many fields.",
                ));
            }
            fields.push(parse_field(line)?);
        }

        let mut head = Head {
            method,
            target,
            version,
            fields,
            framing: Framing::None,
            continue_awaited: false,
        };
        head.check_host()?;
        head.framing = head.parse_framing()?;
        head.continue_awaited = head.parse_expectation()?;
        Ok(Some((head, lines.at)))
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The version that both sides speak.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How the end of the content is known.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The path as it was sent, still percent-encoded; `*` for the asterisk-form.
    pub fn path(&self) -> &str {
        &self.target.path
    }

    /// The method and the target, for a log: a target that was parsed is visible ASCII.
    pub(crate) fn line(&self) -> String {
        let mark = if self.target.query.is_empty() { "" } else { "?" };
        format!("{} {}{mark}{}", self.method.name(), self.target.path, self.target.query)
    }

    /// The path's segments, each decoded by itself, so that an encoded slash stays within its
    /// segment: `["a/b"]` for `/a%2Fb`, `[""]` for `/`, none for `*`.
    pub fn segments(&self) -> &[String] {
        &self.target.segments
    }

    /// The first value of a query parameter, decoded as `application/x-www-form-urlencoded` (WHATWG
    /// URL, 5.1).
    pub fn query(&self, name: &str) -> Option<String> {
        self.queries().find_map(|(found, value)| (found == name).then_some(value))
    }

    /// All query parameters in order, decoded.
    pub fn queries(&self) -> impl Iterator<Item = (String, String)> {
        let pairs = self.target.query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_form(name), decode_form(value))
        })
    }

    /// The value of the first field with this name, in lower case; bytes that are not UTF-8 are
    /// replaced by U+FFFD.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// The values of all fields with this name, in lower case, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether a field that is a list of tokens has this one, in lower case (RFC 9110, 5.6.1).
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(','))
            .any(|item| trim_ows(item).eq_ignore_ascii_case(token))
    }

    /// The host and port that the request is for: the target's in absolute-form, which overrides
    /// `Host` (RFC 9112, 3.2.2), else the `Host` field's. Empty for an HTTP/1.0 request without
    /// either.
    pub fn authority(&self) -> &str {
        match &self.target.authority {
            Some(authority) => authority,
            None => self.field("host").unwrap_or(""),
        }
    }

    /// The scheme of an absolute-form target, in lower case, else `http`: this server speaks no TLS.
    pub fn scheme(&self) -> &str {
        self.target.scheme
    }

    /// Whether the peer wants to send another request on this connection (RFC 9112, 9.3).
    pub(crate) fn keeps_connection(&self) -> bool {
        !self.lists("connection", "close")
            && (self.version == Version::Http11 || self.lists("connection", "keep-alive"))
    }

    pub(crate) fn continue_awaited(&self) -> bool {
        self.continue_awaited
    }

    /// "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a
    /// Host header field and to any request message that contains more than one Host header field
    /// line or a Host header field with an invalid field value." (RFC 9112, 3.2)
    fn check_host(&self) -> Result<(), Refusal> {
        let mut hosts = self.values("host");
        match (hosts.next(), hosts.next()) {
            (None, _) if self.version == Version::Http10 => Ok(()),
            (None, _) => Err(Refusal::bad("An HTTP/1.1 request needs a Host field.")),
            (Some(_), Some(_)) => Err(Refusal::bad("The request has more than one Host field.")),
            (Some(host), None) if host.is_empty() || is_authority(host) => Ok(()),
            (Some(_), None) => {
                Err(Refusal::bad("The Host field is not a host with an optional port."))
            }
        }
    }

    /// ```text
    /// Transfer-Encoding = #transfer-coding        Content-Length = 1*DIGIT
    /// ```
    /// What RFC 9112, 6.3 leaves to the server's choice is refused: every one of these has smuggled
    /// requests.
    fn parse_framing(&self) -> Result<Framing, Refusal> {
        let codings: Vec<&str> = self
            .values("transfer-encoding")
            .flat_map(|value| value.split(','))
            .map(trim_ows)
            .collect();
        let mut lengths = self.values("content-length");
        let length = lengths.next();
        if lengths.next().is_some() {
            return Err(Refusal::bad("The request has more than one Content-Length."));
        }
        if !codings.is_empty() {
            if length.is_some() {
                return Err(Refusal::bad(
                    "A request has either Transfer-Encoding or Content-Length, never both.",
                ));
            }
            if self.version == Version::Http10 {
                return Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding."));
            }
            let (last, before) = codings.split_last().unwrap_or((&"", &[]));
            let chunked = |coding: &&str| coding.eq_ignore_ascii_case("chunked");
            if !chunked(last) || before.iter().any(|coding| chunked(coding) || coding.is_empty()) {
                return Err(Refusal::bad(
                    "The last transfer coding of a request must be chunked, once.",
                ));
            }
            if !before.is_empty() {
                return Err(Refusal::new(
                    Status::NOT_IMPLEMENTED,
                    "The one transfer coding that this server knows is chunked.",
                ));
            }
            return Ok(Framing::Chunked);
        }
        match length {
            None => Ok(Framing::None),
            Some(digits)
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                Err(Refusal::bad("Content-Length is not a number of bytes."))
            }
            Some(digits) => digits.parse().map(Framing::Length).map_err(|_| {
                Refusal::new(
                    Status::CONTENT_TOO_LARGE,
                    "Content-Length is larger than any number of bytes.",
                )
            }),
        }
    }

    /// "A server that receives an Expect field value containing a member other than 100-continue
    /// MAY respond with a 417", and one that receives it in an HTTP/1.0 request "MUST ignore that
    /// expectation" (RFC 9110, 10.1.1).
    fn parse_expectation(&self) -> Result<bool, Refusal> {
        if self.version == Version::Http10 {
            return Ok(false);
        }
        let mut expectations =
            self.values("expect").flat_map(|value| value.split(',')).map(trim_ows);
        if expectations.any(|expectation| !expectation.eq_ignore_ascii_case("100-continue")) {
            return Err(Refusal::new(
                Status::EXPECTATION_FAILED,
                "The one expectation that this server can meet is 100-continue.",
            ));
        }
        Ok(self.framing != Framing::None && self.field("expect").is_some())
    }
}

fn check_line(line: &[u8], most_bytes: usize) -> Result<&[u8], Refusal> {
    if line.len() <= most_bytes {
        return Ok(line);
    }
    Err(Refusal::new(
        Status::CONTENT_TOO_LARGE,
        "A line of the content is larger than this server takes.",
    ))
}

/// A request: its head, who sent it, and its content, which is read from the wire when it is asked
/// for.
///
/// It dereferences to its [`Head`].
pub struct Request<'c> {
    head: Head,
    peer: SocketAddr,
    content: Content<'c>,
    limits: &'c Limits,
    /// The values of a route's `{names}`, set by the router.
    pub(super) parameters: Vec<(&'static str, String)>,
}

impl<'c> Request<'c> {
    pub(super) fn new(
        head: Head,
        peer: SocketAddr,
        content: Content<'c>,
        limits: &'c Limits,
    ) -> Request<'c> {
        Request { head, peer, content, limits, parameters: Vec::new() }
    }

    pub(super) fn connection(&self) -> &Connection {
        self.content.connection()
    }

    pub(super) fn into_content(self) -> Content<'c> {
        self.content
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.limits
    }

    /// The address that the connection comes from: behind a proxy, the proxy's.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What stands in the path where the route has `{name}`; empty when the route has no such name.
    pub fn parameter(&self, name: &str) -> &str {
        let found = self.parameters.iter().find(|(found, _)| *found == name);
        found.map_or("", |(_, value)| value)
    }

    /// Reads the whole content. A peer that waits for `100 Continue` is told to go on now, so a
    /// handler that refuses first spares it the upload.
    ///
    /// # Errors
    /// `413` beyond [`Limits::content_bytes`], `408` beyond [`Limits::content_deadline`], `411`
    /// (`400` in HTTP/1.0) when a POST or PUT says no length at all, `400` when the framing is
    /// broken.
    pub fn content(&mut self) -> Result<Vec<u8>, Refusal> {
        self.check_length_is_said()?;
        self.content.read_whole()
    }

    /// Reads the content as it arrives, however long that goes on, and gives each piece to `take`.
    ///
    /// # Errors
    /// What `take` returns; `503` when there are too many uploads of this kind, `408` after [`Limits::lines_idle`] without
    /// a byte, else as [`content`](Request::content).
    pub fn pieces(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.check_length_is_said()?;
        let _permit = self.connection().admission().take_upload().ok_or(Refusal::new(
            Status::SERVICE_UNAVAILABLE,
            "There are as many uploads as this server may have.",
        ))?;
        let (mut piece, idle) = (Vec::new(), self.limits.lines_idle);
        while self.content.read_some(&mut piece, || idle)? {
            take(&piece)?;
            piece.clear();
        }
        Ok(())
    }

    /// Reads the content line by line as it arrives, and gives each to `take` without its line end (LF or CRLF). An
    /// unfinished last line is a line.
    ///
    /// # Errors
    /// `413` for a line beyond [`Limits::content_bytes`], else as [`pieces`](Request::pieces).
    pub fn lines(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let most = self.limits.content_bytes;
        let mut kept = Vec::new();
        self.pieces(|piece| {
            let (mut start, mut from) = (0, kept.len());
            kept.extend_from_slice(piece);
            while let Some(length) = kept[from..].iter().position(|&byte| byte == b'\n') {
                let line = &kept[start..from + length];
                take(check_line(line.strip_suffix(b"\r").unwrap_or(line), most)?)?;
                start = from + length + 1;
                from = start;
            }
            kept.drain(..start);
            // A CR may be part of the line end; the next byte tells.
            check_line(kept.strip_suffix(b"\r").unwrap_or(&kept), most).map(|_| ())
        })?;
        match kept.strip_suffix(b"\r").unwrap_or(&kept) {
            [] if kept.is_empty() => Ok(()),
            line => take(line),
        }
    }

    /// "A server MAY reject a request that contains a message body but not a Content-Length by
    /// responding with 411 (Length Required)" (RFC 9112, 6.3). Without either field there is no
    /// content by definition, but a program that posts without one has more likely forgotten it,
    /// and its content would be read as the next request.
    fn check_length_is_said(&mut self) -> Result<(), Refusal> {
        let sends = matches!(self.head.method, Method::Post | Method::Put);
        if !sends || self.head.framing != Framing::None {
            return Ok(());
        }
        self.content.fail();
        let sentence = "Say how long the content is, with Content-Length; 0 if there is none.";
        Err(match self.head.version {
            Version::Http10 => Refusal::bad(sentence),
            Version::Http11 => Refusal::new(Status::LENGTH_REQUIRED, sentence),
        })
    }
}

impl std::ops::Deref for Request<'_> {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

/// Cuts the wire into lines that end in LF or CRLF.
struct Lines<'w> {
    wire: &'w [u8],
    at: usize,
}

impl<'w> Lines<'w> {
    fn next(&mut self) -> Result<Option<&'w [u8]>, Refusal> {
        let rest = &self.wire[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            // The last byte may be one half of a line end.
            let is_bare = rest[..rest.len().saturating_sub(1)].contains(&b'\r');
            return if is_bare { Err(BARE_CR) } else { Ok(None) };
        };
        self.at += length + 1;
        let line = rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]);
        // "A recipient of such a bare CR MUST consider that element to be invalid" (RFC 9112, 2.2).
        if line.contains(&b'\r') {
            return Err(BARE_CR);
        }
        Ok(Some(line))
    }
}

const BARE_CR: Refusal = Refusal::bad("A CR must be followed by LF.");

/// The origin that a head names which was refused, so that its page can be told why.
pub(super) fn origin_of(refused: &[u8]) -> Option<String> {
    let fields = refused.split(|&byte| byte == b'\n').skip(1);
    let fields = fields.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut fields =
        fields.take_while(|line| !line.is_empty()).filter_map(|line| parse_field(line).ok());
    fields.find_map(|(name, value)| (name == "origin").then_some(value))
}

/// What can be said of a request line that has not ended yet.
fn judge_beginning(line: &[u8], head_bytes: usize, limits: &Limits) -> Result<(), Refusal> {
    // A TLS handshake record begins with 22 (RFC 8446, 5.1); no method does.
    if line.first().is_some_and(|&byte| byte != b'\r' && !is_token_byte(byte)) {
        return Err(Refusal::bad(
            "This is not HTTP. This port speaks plain HTTP/1.1, without TLS.",
        ));
    }
    // Some room for the method, the version and two spaces.
    if line.len() > limits.target_bytes + 64 {
        return Err(Refusal::new(Status::URI_TOO_LONG, "The request line is too long."));
    }
    if head_bytes > limits.head_bytes {
        return Err(Refusal::new(
            Status::FIELDS_TOO_LARGE,
            "The head of the request is too large.",
        ));
    }
    Ok(())
}

/// ```text
/// request-line = method SP request-target SP HTTP-version        (RFC 9112, 3)
/// method       = token
/// HTTP-version = "HTTP/" DIGIT "." DIGIT
/// ```
/// Exactly one space each: "recipients MAY instead parse on whitespace-delimited word boundaries",
/// and who does disagrees with who does not on what the target is.
fn parse_request_line(line: &[u8], limits: &Limits) -> Result<(Method, Target, Version), Refusal> {
    judge_beginning(line, 0, limits)?;
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::bad("A request line is: METHOD SP TARGET SP HTTP/1.1"));
    };
    if method.is_empty() || !method.iter().all(|&byte| is_token_byte(byte)) {
        return Err(Refusal::bad("The method is not a token."));
    }
    let version = match version {
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(Refusal::new(
                Status::VERSION_NOT_SUPPORTED,
                "This server speaks HTTP/1.1 and HTTP/1.0.",
            ));
        }
        _ => {
            return Err(Refusal::bad("The request line does not end in an HTTP version."));
        }
    };
    if target.len() > limits.target_bytes {
        return Err(Refusal::new(Status::URI_TOO_LONG, "The request target is too long."));
    }
    let Some(method) = Method::parse(method) else {
        return Err(Refusal::new(
            Status::NOT_IMPLEMENTED,
            "This server knows GET, HEAD, POST, PUT, DELETE and OPTIONS.",
        ));
    };
    Ok((method, Target::parse(target, method)?, version))
}

#[derive(Clone, Debug)]
struct Target {
    scheme: &'static str,
    authority: Option<String>,
    path: String,
    segments: Vec<String>,
    query: String,
}

impl Target {
    /// ```text
    /// request-target = origin-form / absolute-form / authority-form / asterisk-form        (RFC 9112, 3.2)
    /// origin-form    = absolute-path [ "?" query ]
    /// ```
    /// The authority-form is CONNECT's, which is `501`. A fragment is never sent; a byte that is
    /// not visible ASCII never stands in a URI.
    fn parse(target: &[u8], method: Method) -> Result<Target, Refusal> {
        let target = str::from_utf8(target).unwrap_or("");
        if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        {
            return Err(Refusal::bad(
                "The request target has a character that no request target has.",
            ));
        }
        if target == "*" {
            if method != Method::Options {
                return Err(Refusal::bad("The request target * is for OPTIONS."));
            }
            return Ok(Target {
                scheme: "http",
                authority: None,
                path: "*".into(),
                segments: Vec::new(),
                query: String::new(),
            });
        }
        let (authority, rest) = match target.strip_prefix('/') {
            Some(_) => (None, target),
            None => split_absolute_form(target)?,
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = if path.is_empty() { "/" } else { path };
        let segments = path[1..].split('/').map(decode_segment).collect::<Result<_, _>>()?;
        let is_https = authority.is_some() && target[..6].eq_ignore_ascii_case("https:");
        Ok(Target {
            scheme: if is_https { "https" } else { "http" },
            authority: authority.map(str::to_owned),
            path: path.to_owned(),
            segments,
            query: query.to_owned(),
        })
    }
}

/// ```text
/// absolute-form = scheme "://" authority path-abempty [ "?" query ]        (RFC 3986, 4.3)
/// ```
/// Userinfo is "an error" here, "likely being used to obscure the authority" (RFC 9110, 4.2.4).
fn split_absolute_form(target: &str) -> Result<(Option<&str>, &str), Refusal> {
    let error =
        Refusal::bad("The request target is neither a path that begins with / nor an http URL.");
    let (scheme, rest) = target.split_once("://").ok_or(error)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(error);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    if !is_authority(&rest[..end]) {
        return Err(Refusal::bad("The host of the request target is not one."));
    }
    Ok((Some(&rest[..end]), &rest[end..]))
}

/// ```text
/// Host = uri-host [ ":" port ]        uri-host = IP-literal / IPv4address / reg-name        (RFC 9110, 7.2)
/// ```
///
/// The one IP-literal is IPv6; nobody has defined another.
pub(super) fn is_authority(text: &str) -> bool {
    let (is_host, after) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) => (address.parse::<Ipv6Addr>().is_ok(), after),
        None => {
            let (name, after) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_name(name), after)
        }
    };
    let is_port = match after.strip_prefix(':') {
        Some(port) => port.is_empty() || is_port(port),
        None => after.is_empty(),
    };
    is_host && is_port
}

/// `port = *DIGIT` (RFC 3986, 3.2.3), and no larger than a port can be.
pub(super) fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// `reg-name = *( unreserved / pct-encoded / sub-delims )` (RFC 3986, 3.2.2), and not empty
fn is_name(text: &str) -> bool {
    let is_name_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    let is_encoded =
        |after: &str| after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    !text.is_empty() && text.bytes().all(is_name_byte) && text.split('%').skip(1).all(is_encoded)
}

/// `pct-encoded = "%" HEXDIG HEXDIG` (RFC 3986, 2.1), once: what still looks encoded afterwards is
/// meant literally.
fn decode_segment(segment: &str) -> Result<String, Refusal> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit));
        let (Some(high), Some(low)) = digits else {
            return Err(Refusal::bad("A % in the path is not followed by two hexadecimal digits."));
        };
        decoded.push(high << 4 | low);
    }
    match String::from_utf8(decoded) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Refusal::bad("The path is not UTF-8, or has a NUL.")),
    }
}

/// "Percent-decode: a % that is not followed by two hexadecimal digits stays" (WHATWG URL, 1.3),
/// with + for a space (5.1), decoded as UTF-8 without a byte order mark, bad bytes replaced.
fn decode_form(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = (
            bytes.get(at + 1).copied().and_then(hex_digit),
            bytes.get(at + 2).copied().and_then(hex_digit),
        );
        match (bytes[at], digits) {
            (b'%', (Some(high), Some(low))) => {
                decoded.push(high << 4 | low);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// ```text
/// field-line  = field-name ":" OWS field-value OWS        (RFC 9112, 5)
/// field-name  = token
/// field-value = *field-content, of VCHAR, obs-text, SP and HTAB        (RFC 9110, 5.5)
/// ```
/// "No whitespace is allowed between the field name and colon" (RFC 9112, 5.1), and a line that
/// begins with whitespace is obs-fold, which "a server MUST either reject ... or replace" (5.2).
pub(super) fn parse_field(line: &[u8]) -> Result<(String, String), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::bad("A field line begins with whitespace; a field is one line."));
    }
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return Err(Refusal::bad("A field line has no colon."));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|&byte| is_token_byte(byte)) {
        return Err(Refusal::bad(
            "A field name is not a token, or whitespace stands before its colon.",
        ));
    }
    if !value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)) {
        return Err(Refusal::bad("A field value has a control character."));
    }
    let name = name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    Ok((name, trim_ows(&String::from_utf8_lossy(value)).to_owned()))
}

/// `OWS = *( SP / HTAB )` (RFC 9110, 5.6.3) and nothing else: a no-break space or a form feed that
/// one side trims and the other does not has smuggled a `Transfer-Encoding`.
pub(super) fn trim_ows(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
