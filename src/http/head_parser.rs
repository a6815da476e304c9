//! Bytes to a [`Head`], in pieces of any size. It does not know sockets.
//!
//! There are three outcomes: a head and its length, not enough bytes yet, or a [`Refusal`]. Where the standard leaves a
//! choice that two programs could make differently, the parser refuses: a proxy in front and this server must not
//! disagree on where a request ends (request smuggling).

use super::grammar::{is_text_byte, is_token, trim_ows};
use super::head::Head;
use super::limits::Limits;
use super::request_line::RequestLine;
use super::status::{Refusal, Status};

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
    line: Option<RequestLine>,
    fields: Vec<(String, String)>,
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
    pub fn parse(
        &mut self,
        wire: &[u8],
        limits: &Limits,
    ) -> Result<Option<(Head, usize)>, Refusal> {
        while self.line.is_none() {
            match self.next_line(wire)? {
                Some(b"") => {}
                Some(line) => self.line = Some(RequestLine::parse(line, limits)?),
                None => {
                    RequestLine::judge_beginning(&wire[self.start..], limits)?;
                    return check_head_bytes(wire.len(), limits).map(|()| None);
                }
            }
        }
        loop {
            let line = self.next_line(wire)?;
            check_head_bytes(line.map_or(wire.len(), |_| self.start), limits)?;
            match line {
                None => return Ok(None),
                Some(b"") => break,
                Some(_) if self.fields.len() == limits.fields => {
                    return Err(Refusal::new(
                        Status::FIELDS_TOO_LARGE,
                        "The request has too many fields.",
                    ));
                }
                Some(line) => self.fields.push(parse_field(line)?),
            }
        }
        let Some(line) = self.line.take() else { return Ok(None) };
        let head = Head::new(line, std::mem::take(&mut self.fields))?;
        Ok(Some((head, self.start)))
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

fn check_head_bytes(bytes: usize, limits: &Limits) -> Result<(), Refusal> {
    if bytes > limits.head_bytes {
        let sentence = "The head of the request is too large.";
        return Err(Refusal::new(Status::FIELDS_TOO_LARGE, sentence));
    }
    Ok(())
}

/// ```text
/// field-line  = field-name ":" OWS field-value OWS        (RFC 9112, 5)
/// field-name  = token
/// field-value = *field-content, of VCHAR, obs-text, SP and HTAB        (RFC 9110, 5.5)
/// ```
/// "No whitespace is allowed between the field name and colon" (RFC 9112, 5.1), and a line that begins with whitespace
/// is obs-fold, which "a server MUST either reject ... or replace" (5.2).
pub(super) fn parse_field(line: &[u8]) -> Result<(String, String), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::bad("A field line begins with whitespace; a field is one line."));
    }
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return Err(Refusal::bad("A field line has no colon."));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(Refusal::bad(
            "A field name is not a token, or whitespace stands before its colon.",
        ));
    }
    if !value.iter().all(|&byte| is_text_byte(byte)) {
        return Err(Refusal::bad("A field value has a control character."));
    }
    let name = name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    Ok((name, trim_ows(&String::from_utf8_lossy(value)).to_owned()))
}

/// The origin in a head that was refused: the page there is told why.
pub(super) fn origin_of(refused: &[u8]) -> Option<String> {
    let fields = refused.split(|&byte| byte == b'\n').skip(1);
    let fields = fields.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut fields =
        fields.take_while(|line| !line.is_empty()).filter_map(|line| parse_field(line).ok());
    fields.find_map(|(name, value)| (name == "origin").then_some(value))
}
