//! The chunked transfer coding (RFC 9112, 7.1), however it is cut into pieces.

use super::grammar::{hex_digit, is_text_byte, is_token_byte};
use super::status::{Refusal, Status};

/// Decodes the chunked transfer coding:
///
/// ```text
/// chunked-body = *chunk last-chunk trailer-section CRLF
/// chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
/// last-chunk   = 1*("0") [ chunk-ext ] CRLF
/// ```
///
/// Each CRLF must be one. The bare LF that a head may have is for people who type, and chunks are not typed. A proxy in
/// front that reads a bare LF differently would let a second request be smuggled in.
///
/// ```
/// use newswire::http::Chunks;
///
/// let (mut chunks, mut content) = (Chunks::new(), Vec::new());
/// let taken = chunks.decode(b"3\r\nThe\r\n0\r\n\r\nGET /", &mut content)?;
/// assert!(chunks.is_whole());
/// assert_eq!((taken, content.as_slice()), (13, b"The".as_slice()));
/// # Ok::<(), newswire::http::Refusal>(())
/// ```
#[derive(Clone, Debug)]
pub struct Chunks {
    state: State,
    /// Bytes of extensions or trailers since the last chunk's data. Both are dropped, and both are bounded.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8, size: u64 },
    InExtension { size: u64, part: Extension },
    SizeLf { size: u64 },
    Data { remaining: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Whole,
}

/// What has been read of the extensions of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// Whitespace behind the size or a value: a semicolon must follow.
    Space,
    /// The semicolon.
    Semicolon,
    Name,
    /// Whitespace behind a name: `=` or a semicolon must follow.
    NameSpace,
    Equals,
    Token,
    Quoted,
    /// A backslash in a quoted string.
    Backslash,
    /// The quote that ends a quoted string.
    EndQuote,
}

/// Bytes of extensions and trailers before the next data; more is `431`. No client we know sends either.
const OVERHEAD_BYTES: usize = 4 * 1024;

/// Digits of a chunk size that fit into 64 bits.
const SIZE_DIGITS: u8 = 16;

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks::new()
    }
}

impl Chunks {
    /// A decoder before the first chunk.
    pub fn new() -> Chunks {
        Chunks { state: State::Size { digits: 0, size: 0 }, overhead: 0 }
    }

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
            if let State::Data { remaining } = self.state {
                let taken = (wire.len() - at).min(usize::try_from(remaining).unwrap_or(usize::MAX));
                out.extend_from_slice(&wire[at..at + taken]);
                at += taken;
                let remaining = remaining - taken as u64;
                self.state = if remaining == 0 { State::DataCr } else { State::Data { remaining } };
                self.overhead = 0;
                continue;
            }
            self.state = self.step(wire[at])?;
            at += 1;
        }
        Ok(at)
    }

    /// The state behind a byte that is not data.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        use State::*;
        Ok(match (self.state, byte) {
            (Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS {
                    return Err(Refusal::bad(
                        "A chunk size has more digits than any chunk could need.",
                    ));
                }
                Size { digits: digits + 1, size: size << 4 | hex_digit(byte).map_or(0, u64::from) }
            }
            (Size { digits: 1.., size }, b'\r') => SizeLf { size },
            (Size { digits: 1.., size }, _) => self.extend(size, Extension::Space, byte)?,
            (InExtension { size, part }, _) => self.extend(size, part, byte)?,
            (SizeLf { size: 0 }, b'\n') => TrailerStart,
            (SizeLf { size }, b'\n') => Data { remaining: size },
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Size { digits: 0, size: 0 },
            (TrailerStart, b'\r') => LastLf,
            (TrailerStart | TrailerName, _) if is_token_byte(byte) => {
                self.count_overhead()?;
                TrailerName
            }
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if is_text_byte(byte) => {
                self.count_overhead()?;
                TrailerValue
            }
            (TrailerLf, b'\n') => TrailerStart,
            (LastLf, b'\n') => Whole,
            _ => return Err(BROKEN),
        })
    }

    /// ```text
    /// chunk-ext      = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )        (RFC 9112, 7.1.1)
    /// chunk-ext-name = token        chunk-ext-val = token / quoted-string
    /// quoted-string  = DQUOTE *( qdtext / "\" ( HTAB / SP / VCHAR / obs-text ) ) DQUOTE        (RFC 9110, 5.6.4)
    /// ```
    fn extend(&mut self, size: u64, part: Extension, byte: u8) -> Result<State, Refusal> {
        use Extension::*;
        self.count_overhead()?;
        let part = match (part, byte) {
            (Name | Token | EndQuote, b'\r') => return Ok(State::SizeLf { size }),
            (Space | Name | NameSpace | Token | EndQuote, b';') => Semicolon,
            (Semicolon | Equals, b' ' | b'\t') => part,
            (Space | Token | EndQuote, b' ' | b'\t') => Space,
            (Name | NameSpace, b' ' | b'\t') => NameSpace,
            (Name | NameSpace, b'=') => Equals,
            (Semicolon | Name, _) if is_token_byte(byte) => Name,
            (Equals, b'"') => Quoted,
            (Equals | Token, _) if is_token_byte(byte) => Token,
            (Quoted, b'"') => EndQuote,
            (Quoted, b'\\') => Backslash,
            (Quoted | Backslash, _) if is_text_byte(byte) => Quoted,
            _ => return Err(BROKEN),
        };
        Ok(State::InExtension { size, part })
    }

    fn count_overhead(&mut self) -> Result<(), Refusal> {
        self.overhead += 1;
        if self.overhead > OVERHEAD_BYTES {
            return Err(Refusal::new(
                Status::FIELDS_TOO_LARGE,
                "The extensions or trailers of the chunked content are too large.",
            ));
        }
        Ok(())
    }
}

const BROKEN: Refusal = Refusal::bad("The chunked transfer coding of the content is broken.");
