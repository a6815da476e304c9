//! The head of a request: the request line and the fields, and what they say of the content.

use super::grammar::{decode_form, decode_segment, is_authority, list, trim_ows, weight_of};
use super::status::{Refusal, Status};
use std::borrow::Cow;
use std::fmt;

/// The request line and the fields.
///
/// ```
/// use newswire::http::{Head, Limits, Method};
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
#[derive(Clone)]
pub struct Head {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) scheme: &'static str,
    /// The pieces of the head, one behind the other: with one text, many small fields cost no more memory than a large one.
    /// First come the authority, which only the absolute-form has, the path and the query; then each field's name, in lower
    /// case, and its value.
    text: String,
    /// Where each piece ends.
    ends: Vec<usize>,
    /// How many segments of the path belong to the base of the router.
    pub(super) base: usize,
    pub(super) framing: Framing,
    /// Whether the peer waits for `100 Continue` before it sends its content.
    pub(super) continue_awaited: bool,
}

/// Which piece of the head is which. The fields stand behind these.
const AUTHORITY: usize = 0;
const PATH: usize = 1;
const QUERY: usize = 2;
const FIELDS: usize = 3;

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
    /// All of them, in the order in which `Allow` names them.
    pub(super) const ALL: [Method; 6] =
        [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete, Method::Options];

    /// The name on the wire; methods are case-sensitive.
    pub fn name(self) -> &'static str {
        ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"][self as usize]
    }
}

/// HTTP/1.0 or HTTP/1.1. A later minor version is read as 1.1 (RFC 9110, 2.5); another major version is `505`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    Http11,
}

/// How the end of the content is known (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither `Content-Length` nor `Transfer-Encoding`: there is no content.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Fields that decide where the request ends, which page it is from, or which user it is for. With two of them, a program
/// in front and this server could each believe another one.
const SINGLE: [&str; 4] = ["host", "content-length", "origin", "authorization"];

/// Fields that `Debug` does not show: they hold secrets, and debug output ends in logs.
const SECRET: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

impl Head {
    /// A head without fields, in a text that begins with room for so many `bytes`.
    pub(super) fn new(
        (method, version): (Method, Version),
        (scheme, authority): (&'static str, &str),
        (path, query): (&str, &str),
        bytes: usize,
    ) -> Head {
        let (text, ends) = (String::with_capacity(bytes), Vec::with_capacity(16));
        let (base, framing, continue_awaited) = (0, Framing::None, false);
        let mut head = Head { method, version, scheme, text, ends, base, framing, continue_awaited };
        [authority, path, query].iter().for_each(|piece| head.push(piece));
        head
    }

    fn push(&mut self, piece: &str) {
        // It does not grow by doubling: its memory is bounded by what has arrived.
        self.text.reserve_exact(piece.len());
        self.text.push_str(piece);
        self.ends.push(self.text.len());
    }

    pub(super) fn add_field(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.push(name);
        self.text[start..].make_ascii_lowercase();
        self.push(value);
    }

    /// How much text it holds.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    fn piece(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[at]]
    }

    /// The names and values of all fields, in order.
    pub(super) fn fields(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let names = (FIELDS..self.ends.len()).step_by(2);
        names.map(|name| (self.piece(name), self.piece(name + 1)))
    }

    /// Checks the fields against each other, and finds what they say of the content.
    pub(super) fn check(&mut self) -> Result<(), Refusal> {
        if let Some(name) = SINGLE.into_iter().find(|name| self.values(name).nth(1).is_some()) {
            let sentence = format!("The request has more than one {name} field.");
            return Err(Refusal::with_sentence(Status::BAD_REQUEST, sentence));
        }
        self.check_host()?;
        self.framing = self.parse_framing()?;
        self.continue_awaited = self.parse_expectation()?;
        Ok(())
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
        self.piece(PATH)
    }

    /// The method and the target, for a log, which learns no `key`. A target that was parsed is visible ASCII.
    pub(super) fn line(&self) -> String {
        let (method, query) = (self.method.name(), self.piece(QUERY));
        let mark = if query.is_empty() { "" } else { "?" };
        let is_key = |name: &str| decode_form(name).to_ascii_lowercase().ends_with("key");
        let shown = |pair| match str::split_once(pair, '=') {
            Some((name, _)) if is_key(name) => format!("{name}=***"),
            _ => pair.to_owned(),
        };
        let query: Vec<String> = query.split('&').map(shown).collect();
        format!("{method} {}{mark}{}", self.path(), query.join("&"))
    }

    /// The segments of the path. Each is decoded by itself, so that an encoded slash stays within its segment:
    /// `["a/b"]` for `/a%2Fb`, `[""]` for `/`, none for `*`.
    pub fn segments(&self) -> Vec<Cow<'_, str>> {
        self.parts().collect()
    }

    /// The same, without memory for all of them: a path may have a segment for each two of its bytes.
    pub(super) fn parts(&self) -> impl Iterator<Item = Cow<'_, str>> {
        // The parser has refused a path that cannot be decoded.
        let decoded = |part| decode_segment(part).unwrap_or_default();
        self.path().split('/').skip(1 + self.base).map(decoded)
    }

    /// The first value of a query parameter, decoded as `application/x-www-form-urlencoded` (WHATWG URL, 5.1).
    pub fn query(&self, name: &str) -> Option<String> {
        self.queries().find_map(|(found, value)| (found == name).then_some(value))
    }

    /// All query parameters in order, decoded.
    pub fn queries(&self) -> impl Iterator<Item = (String, String)> {
        let pairs = self.piece(QUERY).split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_form(name), decode_form(value))
        })
    }

    /// The value of the first field with this name, which is given in lower case. Bytes that are not UTF-8 are replaced
    /// by U+FFFD.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// The values of all fields with this name, which is given in lower case, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let mut start = self.ends[QUERY];
        self.ends[FIELDS..].as_chunks().0.iter().filter_map(move |&[middle, end]| {
            let found = &self.text.as_bytes()[std::mem::replace(&mut start, end)..middle];
            (found == name.as_bytes()).then(|| &self.text[middle..end])
        })
    }

    /// Whether a field that is a list of tokens has this token, in any case (RFC 9110, 5.6.1). The name of the field is
    /// given in lower case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name).flat_map(list).any(|element| element.eq_ignore_ascii_case(token))
    }

    /// The media type among `offered` that the client prefers by its `Accept` field (RFC 9110, 12.5.1). Of equals the
    /// first is taken, and without the field the first of all. `None` when the client accepts none of them.
    pub fn prefers<'o>(&self, offered: &[&'o str]) -> Option<&'o str> {
        if self.field("accept").is_none() {
            return offered.first().copied();
        }
        let weight = |media_type| weight_of(media_type, self.values("accept").flat_map(list));
        let weighted = offered.iter().map(|offer| (weight(offer), *offer));
        // The last of equals is the maximum of an iterator.
        let accepted = weighted.rev().filter(|(weight, _)| *weight > 0);
        accepted.max_by_key(|(weight, _)| *weight).map(|(_, offer)| offer)
    }

    /// The host and port that the request is for: the target's in absolute-form, which overrides `Host` (RFC 9112,
    /// 3.2.2), else the `Host` field's. Empty for an HTTP/1.0 request without either.
    pub fn authority(&self) -> &str {
        match self.piece(AUTHORITY) {
            "" => self.field("host").unwrap_or(""),
            authority => authority,
        }
    }

    /// The scheme of an absolute-form target, in lower case, else `http`: this server speaks no TLS.
    pub fn scheme(&self) -> &str {
        self.scheme
    }

    /// Whether the peer may send another request on this connection (RFC 9112, 9.3).
    pub(super) fn keeps_connection(&self) -> bool {
        !self.lists("connection", "close")
            && (self.version() == Version::Http11 || self.lists("connection", "keep-alive"))
    }

    /// "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a Host header field and
    /// to any request message that contains more than one Host header field line or a Host header field with an invalid
    /// field value." (RFC 9112, 3.2)
    fn check_host(&self) -> Result<(), Refusal> {
        match self.field("host") {
            None if self.version() == Version::Http10 => Ok(()),
            None => Err(Refusal::bad("An HTTP/1.1 request needs a Host field.")),
            Some(host) if host.is_empty() || is_authority(host) => Ok(()),
            Some(_) => Err(Refusal::bad("The Host field is not a host with an optional port.")),
        }
    }

    /// ```text
    /// Transfer-Encoding = #transfer-coding        Content-Length = 1*DIGIT
    /// ```
    /// What RFC 9112, 6.3 leaves to the server's choice is refused: each of these has smuggled requests.
    fn parse_framing(&self) -> Result<Framing, Refusal> {
        let length = self.field("content-length");
        if self.field("transfer-encoding").is_some() {
            Refusal::bad("A request has either Transfer-Encoding or Content-Length, never both.")
                .unless(length.is_none())?;
            return self.check_codings().map(|()| Framing::Chunked);
        }
        let Some(digits) = length else { return Ok(Framing::None) };
        Refusal::bad("Content-Length is not a number of bytes.")
            .unless(!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        let sentence = "Content-Length is larger than any number of bytes.";
        let too_large = Refusal::new(Status::CONTENT_TOO_LARGE, sentence);
        digits.parse().map(Framing::Length).map_err(|_| too_large)
    }

    /// "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not the final
    /// encoding, ... the server MUST respond with the 400 (Bad Request) status code" (RFC 9112, 6.3). An empty list
    /// element is refused, too: some programs ignore it, others take it for a coding.
    fn check_codings(&self) -> Result<(), Refusal> {
        Refusal::bad("HTTP/1.0 has no Transfer-Encoding.").unless(self.version == Version::Http11)?;
        let values = self.values("transfer-encoding");
        let codings: Vec<&str> = values.flat_map(|value| value.split(',')).map(trim_ows).collect();
        let (last, before) = codings.split_last().unwrap_or((&"", &[]));
        let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
        let is_other = |coding: &&str| !is_chunked(coding) && !coding.is_empty();
        Refusal::bad("The last transfer coding of a request must be chunked, once.")
            .unless(is_chunked(last) && before.iter().all(is_other))?;
        let sentence = "The one transfer coding that this server knows is chunked.";
        Refusal::new(Status::NOT_IMPLEMENTED, sentence).unless(before.is_empty())
    }

    /// "A server that receives an Expect field value containing a member other than 100-continue MAY respond with a
    /// 417", and a server that receives 100-continue in an HTTP/1.0 request "MUST ignore that expectation" (RFC 9110,
    /// 10.1.1).
    fn parse_expectation(&self) -> Result<bool, Refusal> {
        if self.version() == Version::Http10 {
            return Ok(false);
        }
        let mut expectations = self.values("expect").flat_map(list).peekable();
        let is_expected = expectations.peek().is_some();
        let sentence = "The one expectation that this server can meet is 100-continue.";
        Refusal::new(Status::EXPECTATION_FAILED, sentence)
            .unless(expectations.all(|one| one.eq_ignore_ascii_case("100-continue")))?;
        Ok(self.framing != Framing::None && is_expected)
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.fields().map(|(name, value)| {
            let is_secret = SECRET.contains(&name);
            (name, if is_secret { "(not shown)" } else { value })
        });
        f.debug_struct("Head")
            .field("line", &self.line())
            .field("version", &self.version())
            .field("authority", &self.authority())
            .field("fields", &shown.collect::<Vec<_>>())
            .field("framing", &self.framing)
            .finish()
    }
}
