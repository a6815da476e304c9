//! The chunked transfer coding (RFC 9112, 7.1), however it is cut into pieces.

use super::grammar::{is_text_byte, is_token, is_token_byte};
use super::status::{Refusal, Status};

/// Decodes the chunked transfer coding:
///
/// ```text
/// chunked-body    = *chunk last-chunk trailer-section CRLF
/// chunk           = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
/// last-chunk      = 1*("0") [ chunk-ext ] CRLF
/// trailer-section = *( field-line CRLF )
/// ```
///
/// Each CRLF must be one. A head may have bare LFs, because people type heads; they do not type chunks. A proxy in
/// front that reads a bare LF differently would let a second request be smuggled in.
///
/// ```
/// use newswire::http::Chunks;
///
/// let (mut chunks, mut content) = (Chunks::default(), Vec::new());
/// let taken = chunks.decode(b"3\r\nThe\r\n0\r\n\r\nGET /", &mut content)?;
/// assert!(chunks.is_whole());
/// assert_eq!((taken, content.as_slice()), (13, b"The".as_slice()));
/// # Ok::<(), newswire::http::Refusal>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    state: State,
    /// What has arrived of a line.
    line: Vec<u8>,
    /// Bytes of lines since the last chunk's data. Extensions and trailers are dropped, and bounded.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    SizeLine,
    /// Bytes of data that are still to come.
    Data(u64),
    DataEnd,
    Trailers,
    Whole,
}

/// Bytes of extensions and trailers before the next data; more is `431`. No client we know sends either.
const OVERHEAD_BYTES: usize = 4 * 1024;

const BROKEN: Refusal = Refusal::bad("The chunked transfer coding of the content is broken.");

const TOO_MUCH_OVERHEAD: Refusal =
    Refusal::new(Status::FIELDS_TOO_LARGE, "The extensions or trailers of the chunked content are too large.");

impl Chunks {
    /// Whether the last chunk and its trailer section have been read.
    pub fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    /// Decodes a piece of the wire and appends its data to `out`. Returns how many bytes of `wire` were read: all of
    /// them, unless the coding ends before they do.
    ///
    /// # Errors
    /// `400` for a broken coding, `431` for extensions or trailers beyond 4 KiB.
    pub fn decode(&mut self, wire: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < wire.len() && !self.is_whole() {
            let State::Data(remaining) = self.state else {
                self.read_line(wire[at])?;
                at += 1;
                continue;
            };
            let taken = (wire.len() - at).min(usize::try_from(remaining).unwrap_or(usize::MAX));
            out.extend_from_slice(&wire[at..at + taken]);
            at += taken;
            self.state = match remaining - taken as u64 {
                0 => State::DataEnd,
                remaining => State::Data(remaining),
            };
            self.overhead = 0;
        }
        Ok(at)
    }

    /// Reads a byte of a line, and the line at its end. What is wrong however the line goes on is refused at once.
    fn read_line(&mut self, byte: u8) -> Result<(), Refusal> {
        let is_end = self.line.last() == Some(&b'\r');
        let is_possible = match byte {
            b'\n' => is_end,
            b'\r' => !is_end,
            _ => !is_end && self.state != State::DataEnd && is_text_byte(byte),
        };
        BROKEN.unless(is_possible)?;
        if !is_end {
            self.line.push(byte);
            self.overhead += 1;
            return TOO_MUCH_OVERHEAD.unless(self.overhead <= OVERHEAD_BYTES);
        }
        self.line.pop();
        self.state = match self.state {
            State::SizeLine => match parse_size(&self.line).ok_or(BROKEN)? {
                0 => State::Trailers,
                size => State::Data(size),
            },
            State::Trailers if self.line.is_empty() => State::Whole,
            State::Trailers => {
                // Text without a name in front could be a request that another program finds here.
                let name = self.line.split(|&byte| byte == b':').next().unwrap_or_default();
                BROKEN.unless(is_token(name) && name.len() < self.line.len())?;
                State::Trailers
            }
            _ => State::SizeLine,
        };
        self.line.clear();
        Ok(())
    }
}

/// ```text
/// chunk-size [ chunk-ext ]        chunk-size = 1*HEXDIG
/// chunk-ext  = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )        (RFC 9112, 7.1.1)
/// chunk-ext-name = token          chunk-ext-val = token / quoted-string
/// ```
fn parse_size(line: &[u8]) -> Option<u64> {
    let line: String = line.iter().copied().map(char::from).collect();
    let mut rest = line.trim_start_matches(|digit: char| digit.is_ascii_hexdigit());
    let size = u64::from_str_radix(&line[..line.len() - rest.len()], 16).ok()?;
    while !rest.is_empty() {
        rest = skip_token(skip_bws(skip_bws(rest).strip_prefix(';')?))?;
        if let Some(value) = skip_bws(rest).strip_prefix('=') {
            let value = skip_bws(value);
            rest = value.strip_prefix('"').map_or_else(|| skip_token(value), skip_quoted)?;
        }
    }
    Some(size)
}

/// `BWS = *( SP / HTAB )`: "a recipient MUST parse for such bad whitespace and remove it" (RFC 9110, 5.6.3).
fn skip_bws(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn skip_token(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c| u8::try_from(c).is_ok_and(is_token_byte));
    (rest.len() < text.len()).then_some(rest)
}

/// `quoted-string = DQUOTE *( qdtext / "\" ( HTAB / SP / VCHAR / obs-text ) ) DQUOTE` (RFC 9110, 5.6.4), behind its first
/// quote.
fn skip_quoted(text: &str) -> Option<&str> {
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some(characters.as_str()),
            '\\' => _ = characters.next()?,
            _ => {}
        }
    }
}
