//! Bytes to a [`Head`], in pieces of any size. It does not know sockets.
//!
//! There are three outcomes: a head and its length, not enough bytes yet, or a [`Refusal`]. Where the standard leaves a
//! choice that two programs could make differently, the parser refuses: a proxy in front and this server must not
//! disagree on where a request ends (request smuggling).

use super::grammar::{decode_segment, is_authority, is_text_byte, is_token, is_token_byte};
use super::head::{Head, Method, Version};
use super::limits::Limits;
use super::status::{Refusal, Status};
use std::borrow::Cow;

/// Reads a head that arrives in pieces. Each byte is searched once, so that a client that sends one byte at a time does
/// not cost more than its bytes do.
///
/// ```
/// use newswire::http::{HeadParser, Limits};
///
/// let (mut parser, limits) = (HeadParser::default(), Limits::default());
/// assert!(parser.parse(b"GET / HTTP/1.1\r\nHost:", &limits)?.is_none());
/// let wire = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nthe next bytes";
/// let (head, length) = parser.parse(wire, &limits)?.expect("it is whole");
/// assert_eq!(head.authority(), "localhost");
/// assert_eq!(&wire[length..], b"the next bytes");
/// # Ok::<(), newswire::http::Refusal>(())
/// ```
#[derive(Debug, Default)]
pub struct HeadParser {
    /// Where the next line begins.
    start: usize,
    /// The bytes before this one have been searched for a line end.
    searched: usize,
    /// What the lines before say.
    head: Option<Head>,
}

impl Head {
    /// Reads the head that `wire` begins with, and how many bytes it takes; `None` while it is not whole. A
    /// [`HeadParser`] does the same for a head that arrives in pieces.
    ///
    /// # Errors
    /// `400` for what breaks the grammar, `413`, `414`, `417`, `431`, `501` and `505` where each belongs. The request
    /// line is judged before the fields have arrived.
    pub fn parse(wire: &[u8], limits: &Limits) -> Result<Option<(Head, usize)>, Refusal> {
        HeadParser::default().parse(wire, limits)
    }
}

impl HeadParser {
    /// Reads on. `wire` begins with the bytes of the call before. After a head or a refusal the parser is used up.
    ///
    /// ```text
    /// HTTP-message = start-line CRLF *( field-line CRLF ) CRLF [ message-body ]        (RFC 9112, 2.1)
    /// ```
    /// Empty lines before the request line are ignored (2.2).
    ///
    /// # Errors
    /// As [`Head::parse`].
    pub fn parse(&mut self, wire: &[u8], limits: &Limits) -> Result<Option<(Head, usize)>, Refusal> {
        loop {
            let line = self.next_line(wire)?;
            let read = line.map_or(wire.len(), |_| self.start);
            let Some(head) = &mut self.head else {
                match line {
                    Some(b"") => {}
                    Some(line) => self.head = Some(parse_request_line(line, limits)?),
                    None => {
                        judge_beginning(&wire[self.start..], limits)?;
                        return TOO_LARGE.unless(read <= limits.head_bytes).map(|()| None);
                    }
                }
                continue;
            };
            TOO_LARGE.unless(read <= limits.head_bytes)?;
            match line {
                None => return Ok(None),
                Some(b"") => {
                    head.check()?;
                    return Ok(self.head.take().map(|head| (head, self.start)));
                }
                Some(line) => {
                    TOO_MANY_FIELDS.unless(head.fields().len() < limits.fields)?;
                    let (name, value) = parse_field(line)?;
                    head.add_field(name, &value);
                    // A byte that is not UTF-8 becomes three.
                    TOO_LARGE.unless(head.bytes() <= limits.head_bytes)?;
                }
            }
        }
    }

    /// The next line, without its end. "A recipient MAY recognize a single LF as a line terminator" (RFC 9112, 2.2):
    /// this server does, because people type requests in telnet. "A recipient of such a bare CR MUST consider that
    /// element to be invalid".
    fn next_line<'w>(&mut self, wire: &'w [u8]) -> Result<Option<&'w [u8]>, Refusal> {
        let unsearched = &wire[self.searched..];
        let found = unsearched.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let end = self.searched + found.unwrap_or(unsearched.len());
        self.searched = end;
        let after = match &wire[end..] {
            [b'\n', ..] => end + 1,
            [b'\r', b'\n', ..] => end + 2,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(Refusal::bad("A CR must be followed by LF.")),
        };
        let line = &wire[self.start..end];
        (self.start, self.searched) = (after, after);
        Ok(Some(line))
    }
}

const TOO_LARGE: Refusal = Refusal::new(Status::FIELDS_TOO_LARGE, "The head of the request is too large.");

const TOO_MANY_FIELDS: Refusal = Refusal::new(Status::FIELDS_TOO_LARGE, "The request has too many fields.");

/// The longest method in IANA's registry has 17 bytes.
const METHOD_BYTES: usize = 32;

/// Room in a request line for the method, the version and two spaces.
const BESIDE_TARGET_BYTES: usize = 64;

const URI_TOO_LONG: Refusal = Refusal::new(Status::URI_TOO_LONG, "The request target is too long.");

const UNKNOWN_METHOD: Refusal =
    Refusal::new(Status::NOT_IMPLEMENTED, "This server knows GET, HEAD, POST, PUT, DELETE and OPTIONS.");

/// What can be said of a request line before its end has arrived. A client that speaks TLS sends no line end, and would
/// wait for the whole deadline.
fn judge_beginning(line: &[u8], limits: &Limits) -> Result<(), Refusal> {
    let start = &line[..line.len().min(METHOD_BYTES + 1)];
    // A CR may be half of the line end.
    let start = start.strip_suffix(b"\r").unwrap_or(start);
    // A TLS handshake record begins with 22 (RFC 8446, 5.1), which begins no method.
    Refusal::bad("This is not HTTP. This port speaks plain HTTP/1.1, without TLS.")
        .unless(start.first().is_none_or(|&first| is_token_byte(first)))?;
    let method = start.split(|&byte| byte == b' ').next().unwrap_or_default();
    Refusal::bad("The method is not a token.").unless(method.iter().all(|&b| is_token_byte(b)))?;
    // "A server that receives a method longer than any that it implements SHOULD respond with a 501" (RFC 9112, 3).
    UNKNOWN_METHOD.unless(method.len() <= METHOD_BYTES)?;
    URI_TOO_LONG.unless(line.len() <= limits.target_bytes.saturating_add(BESIDE_TARGET_BYTES))
}

/// ```text
/// request-line = method SP request-target SP HTTP-version        (RFC 9112, 3)
/// method       = token
/// HTTP-version = "HTTP/" DIGIT "." DIGIT
/// ```
/// Exactly one space each. "Recipients MAY instead parse on whitespace-delimited word boundaries", and a program that
/// does that reads another target than a program that does not.
fn parse_request_line(line: &[u8], limits: &Limits) -> Result<Head, Refusal> {
    judge_beginning(line, limits)?;
    let mut words = line.split(|&byte| byte == b' ');
    let [Some(method), Some(target), Some(version), None] = [(); 4].map(|()| words.next()) else {
        return Err(Refusal::bad("A request line is: METHOD SP TARGET SP HTTP/1.1"));
    };
    let version = match version {
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            let sentence = "This server speaks HTTP/1.1 and HTTP/1.0.";
            return Err(Refusal::new(Status::VERSION_NOT_SUPPORTED, sentence));
        }
        _ => return Err(Refusal::bad("The request line does not end in an HTTP version.")),
    };
    URI_TOO_LONG.unless(target.len() <= limits.target_bytes)?;
    let method = Method::ALL.into_iter().find(|known| known.name().as_bytes() == method);
    let method = method.ok_or(UNKNOWN_METHOD)?;
    let (origin, path) = parse_target(target, method)?;
    Ok(Head::new((method, version), origin, path, line.len()))
}

/// The scheme and the authority of a target.
type Origin<'t> = (&'static str, &'t str);

/// ```text
/// request-target = origin-form / absolute-form / authority-form / asterisk-form        (RFC 9112, 3.2)
/// origin-form    = absolute-path [ "?" query ]
/// absolute-form  = scheme "://" authority path-abempty [ "?" query ]        (RFC 3986, 4.3)
/// ```
/// The authority-form belongs to CONNECT, which is `501`. A fragment is never sent. Every byte of a URI is visible ASCII.
/// Userinfo is "an error" here, "likely being used to obscure the authority" (RFC 9110, 4.2.4).
///
/// Returns the scheme and the authority, and the path and the query.
fn parse_target(target: &[u8], method: Method) -> Result<(Origin<'_>, (&str, &str)), Refusal> {
    let is_visible = target.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#');
    let target = str::from_utf8(target).unwrap_or_default();
    Refusal::bad("The request target has a character that no request target has.")
        .unless(is_visible && !target.is_empty())?;
    let (mut scheme, mut authority, mut rest) = ("http", "", target);
    if target == "*" {
        Refusal::bad("The request target * is for OPTIONS.").unless(method == Method::Options)?;
        return Ok(((scheme, authority), (target, "")));
    }
    if !target.starts_with('/') {
        let (given, after) = target.split_once("://").unwrap_or_default();
        scheme = ["http", "https"]
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(given))
            .ok_or(Refusal::bad("The request target is neither a path that begins with / nor an http URL."))?;
        let (host, path) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
        Refusal::bad("The request target has no valid host.").unless(is_authority(host))?;
        (authority, rest) = (host, path);
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = if path.is_empty() { "/" } else { path };
    path.split('/').try_for_each(|segment| decode_segment(segment).map(drop))?;
    Ok(((scheme, authority), (path, query)))
}

/// ```text
/// field-line  = field-name ":" OWS field-value OWS        (RFC 9112, 5)
/// field-name  = token
/// field-value = *field-content, of VCHAR, obs-text, SP and HTAB        (RFC 9110, 5.5)
/// ```
/// "No whitespace is allowed between the field name and colon" (RFC 9112, 5.1), and a line that begins with whitespace
/// is obs-fold, which "a server MUST either reject ... or replace" (5.2).
pub(super) fn parse_field(line: &[u8]) -> Result<(&str, Cow<'_, str>), Refusal> {
    Refusal::bad("A field line begins with whitespace; a field is one line.")
        .unless(!line.starts_with(b" ") && !line.starts_with(b"\t"))?;
    let colon = line.iter().position(|&byte| byte == b':');
    let (name, value) = line.split_at(colon.ok_or(Refusal::bad("A field line has no colon."))?);
    Refusal::bad("A field name is not a token, or whitespace stands before its colon.").unless(is_token(name))?;
    Refusal::bad("A field value has a control character.").unless(value.iter().all(|&byte| is_text_byte(byte)))?;
    // A token is ASCII, and of the white space that is trimmed here only OWS can be left.
    let name = str::from_utf8(name).unwrap_or_default();
    Ok((name, String::from_utf8_lossy(value[1..].trim_ascii())))
}

/// The origin in a head that was refused: the page there is told why.
pub(super) fn origin_of(refused: &[u8]) -> Option<String> {
    // Empty lines before the request line are ignored here, too.
    let lines = refused.trim_ascii_start().split(|&byte| byte == b'\n').skip(1);
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut fields = lines.take_while(|line| !line.is_empty()).flat_map(parse_field);
    fields.find_map(|(name, value)| name.eq_ignore_ascii_case("origin").then(|| value.into_owned()))
}
