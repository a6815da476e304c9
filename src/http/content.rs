//! The content of a request (RFC 9110, 6.4): read when a handler asks for it, never before.

use super::connection::Connection;
use super::limits::Limits;
use super::status::{Refusal, Status};
use super::wire::Wire;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// How the end of the content is known (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither `Content-Length` nor `Transfer-Encoding`: there is none.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Content that is still on the wire.
pub(crate) struct Content<'w> {
    wire: &'w mut Wire,
    limits: &'w Limits,
    remaining: Remaining,
    continue_awaited: bool,
    failed: bool,
}

enum Remaining {
    Length(u64),
    Chunks(Chunks),
}

impl<'w> Content<'w> {
    pub(crate) fn new(
        wire: &'w mut Wire,
        limits: &'w Limits,
        framing: Framing,
        continue_awaited: bool,
    ) -> Content<'w> {
        let remaining = match framing {
            Framing::None => Remaining::Length(0),
            Framing::Length(bytes) => Remaining::Length(bytes),
            Framing::Chunked => Remaining::Chunks(Chunks::new()),
        };
        Content { wire, limits, remaining, continue_awaited, failed: false }
    }

    /// The whole content, which must be no larger than `Limits::content_bytes` and here within its
    /// deadline.
    pub(crate) fn read_whole(&mut self) -> Result<Vec<u8>, Refusal> {
        let too_large = Refusal::new(
            Status::CONTENT_TOO_LARGE,
            "The content is larger than this server takes; send less in one request.",
        );
        // A length that is only claimed is refused before a byte is read, and no memory is set
        // aside for it.
        if matches!(self.remaining, Remaining::Length(claimed) if claimed > self.limits.content_bytes as u64)
        {
            return Err(too_large);
        }
        let deadline = Instant::now() + self.limits.content_deadline;
        self.wire.connection().wait_for_peer();
        let mut whole = Vec::new();
        while self.read_some(&mut whole, || until(deadline))? {
            if whole.len() > self.limits.content_bytes {
                return Err(too_large);
            }
        }
        match self.wire.connection().resume() {
            true => Ok(whole),
            false => Err(TOO_LATE),
        }
    }

    /// Appends what has arrived to `out`, waiting for it; `false` at the end of the content. `wait` says
    /// how long at most, before each read: a chunk's extensions can come byte by byte, too.
    pub(crate) fn read_some(
        &mut self,
        out: &mut Vec<u8>,
        wait: impl Fn() -> Duration,
    ) -> Result<bool, Refusal> {
        let before = out.len();
        loop {
            if self.is_whole() {
                return Ok(out.len() > before);
            }
            let taken = self.take_unread(out).inspect_err(|_| self.failed = true)?;
            self.wire.consume(taken);
            if out.len() > before {
                return Ok(true);
            }
            if !self.is_whole() {
                self.fill(wait()).inspect_err(|_| self.failed = true)?;
            }
        }
    }

    fn take_unread(&mut self, out: &mut Vec<u8>) -> Result<usize, Refusal> {
        let unread = self.wire.unread();
        match &mut self.remaining {
            Remaining::Length(remaining) => {
                let taken = unread.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                out.extend_from_slice(&unread[..taken]);
                *remaining -= taken as u64;
                Ok(taken)
            }
            Remaining::Chunks(chunks) => chunks.decode(unread, out),
        }
    }

    fn fill(&mut self, wait: Duration) -> Result<(), Refusal> {
        if std::mem::take(&mut self.continue_awaited) {
            self.wire.out().extend_from_slice(CONTINUE);
        }
        let flushed = self.wire.flush();
        match flushed.and_then(|()| self.wire.fill(wait)) {
            Ok(0) => Err(Refusal::bad("The connection ended before the content did.")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(TOO_LATE),
            Err(_) => Err(Refusal::bad("The connection broke before the content ended.")),
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        self.wire.connection()
    }

    pub(crate) fn is_whole(&self) -> bool {
        match &self.remaining {
            Remaining::Length(remaining) => *remaining == 0,
            Remaining::Chunks(chunks) => chunks.is_whole(),
        }
    }

    /// A request whose framing cannot be trusted: where the next one begins is not known.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    fn is_too_long_to_skip(&self) -> bool {
        matches!(self.remaining, Remaining::Length(remaining) if remaining > SKIP_BYTES)
    }

    /// What the connection must still skip to find the next request; `None` when it cannot be
    /// found, because the framing is broken or a peer that waits for `100 Continue` may or may not
    /// send its content now.
    pub(crate) fn into_rest(self) -> Option<Rest> {
        if self.failed {
            None
        } else if self.is_whole() {
            Some(Rest(None))
        } else if self.continue_awaited || self.is_too_long_to_skip() {
            None
        } else {
            Some(Rest(Some(self.remaining)))
        }
    }
}

const TOO_LATE: Refusal =
    Refusal::new(Status::REQUEST_TIMEOUT, "The content did not arrive in time.");

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Content that no handler asked for is read up to here; past it, closing the connection is cheaper.
const SKIP_BYTES: u64 = 64 * 1024;

/// Content that no handler asked for.
pub(crate) struct Rest(Option<Remaining>);

impl Rest {
    /// Skips it; `false` when there is so much of it that closing the connection is cheaper than
    /// reading on.
    pub(crate) fn skip(self, wire: &mut Wire, limits: &Limits) -> bool {
        let Some(remaining) = self.0 else { return true };
        let mut content =
            Content { wire, limits, remaining, continue_awaited: false, failed: false };
        if content.is_whole() {
            return true;
        }
        if content.wire.flush().is_err() {
            return false;
        }
        content.wire.connection().evict_first();
        let deadline = Instant::now() + limits.head_deadline;
        let (mut skipped, mut piece) = (0, Vec::new());
        while skipped <= SKIP_BYTES as usize {
            piece.clear();
            match content.read_some(&mut piece, || until(deadline)) {
                Ok(true) => skipped += piece.len(),
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

/// Decodes the chunked transfer coding, however it is cut into pieces (RFC 9112, 7.1):
///
/// ```text
/// chunked-body = *chunk last-chunk trailer-section CRLF
/// chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
/// last-chunk   = 1*("0") [ chunk-ext ] CRLF
/// ```
///
/// Every CRLF must be one. The bare LF that a head may have is for people who type; nobody types
/// chunks, and a proxy in front that reads one differently would let a second request be smuggled
/// in.
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
#[derive(Debug)]
pub struct Chunks {
    state: ChunkState,
    /// Bytes of extensions or trailers since the last chunk's data: both are dropped, and both are
    /// bounded.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
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

/// Extensions and trailers in all before the next data; more is `431`. Nothing we know sends
/// either.
const CHUNK_OVERHEAD_BYTES: usize = 4 * 1024;

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks::new()
    }
}

impl Chunks {
    /// A decoder before the first chunk.
    pub fn new() -> Chunks {
        Chunks { state: ChunkState::Size { digits: 0, size: 0 }, overhead: 0 }
    }

    /// Whether the last chunk and its trailer section have been read.
    pub fn is_whole(&self) -> bool {
        self.state == ChunkState::Whole
    }

    /// Decodes a piece of the wire and appends its data to `out`. Returns how many bytes of `wire`
    /// were read: all of them, unless the coding ends before they do.
    ///
    /// # Errors
    /// `400` for a broken coding, `431` for extensions or trailers beyond 4 KiB.
    pub fn decode(&mut self, wire: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        use ChunkState::*;
        let mut at = 0;
        while at < wire.len() && self.state != Whole {
            if let Data { remaining } = self.state {
                let taken = (wire.len() - at).min(usize::try_from(remaining).unwrap_or(usize::MAX));
                out.extend_from_slice(&wire[at..at + taken]);
                at += taken;
                let remaining = remaining - taken as u64;
                self.state = if remaining == 0 { DataCr } else { Data { remaining } };
                self.overhead = 0;
                continue;
            }
            let byte = wire[at];
            at += 1;
            self.state = match (self.state, byte) {
                (Size { digits: 16, .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    return Err(Refusal::bad(
                        "A chunk size has more digits than any chunk could need.",
                    ));
                }
                (Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                    let digit = match byte {
                        b'0'..=b'9' => byte - b'0',
                        _ => (byte | 0x20) - b'a' + 10,
                    };
                    Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
                }
                (Size { digits: 1.., size }, b'\r') => SizeLf { size },
                (Size { digits: 1.., size }, b';') => Extension { size },
                (Extension { size }, b'\r') => SizeLf { size },
                (Extension { size }, b'\t' | b' '..=0x7e | 0x80..) => {
                    self.spend_overhead()?;
                    Extension { size }
                }
                (SizeLf { size: 0 }, b'\n') => TrailerStart,
                (SizeLf { size }, b'\n') => Data { remaining: size },
                (DataCr, b'\r') => DataLf,
                (DataLf, b'\n') => Size { digits: 0, size: 0 },
                (TrailerStart, b'\r') => LastLf,
                (TrailerStart | TrailerName, _) if is_token_byte(byte) => {
                    self.spend_overhead()?;
                    TrailerName
                }
                (TrailerName, b':') => TrailerValue,
                (TrailerValue, b'\r') => TrailerLf,
                (TrailerValue, b'\t' | b' '..=0x7e | 0x80..) => {
                    self.spend_overhead()?;
                    TrailerValue
                }
                (TrailerLf, b'\n') => TrailerStart,
                (LastLf, b'\n') => Whole,
                _ => {
                    return Err(Refusal::bad(
                        "The chunked transfer coding of the content is broken.",
                    ));
                }
            };
        }
        Ok(at)
    }

    fn spend_overhead(&mut self) -> Result<(), Refusal> {
        self.overhead += 1;
        if self.overhead > CHUNK_OVERHEAD_BYTES {
            return Err(Refusal::new(
                Status::FIELDS_TOO_LARGE,
                "The extensions or trailers of the chunked content are too large.",
            ));
        }
        Ok(())
    }
}

/// `tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~" /
/// DIGIT / ALPHA` (RFC 9110, 5.6.2)
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
