//! The content of a request (RFC 9110, 6.4), which is read when a handler asks for it.

use super::chunked::Chunks;
use super::head::{Framing, Head};
use super::limits::Limits;
use super::status::{Refusal, Status};
use super::wire::{READ_BYTES, Wire};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The content of a request, and the wire that has it.
pub(super) struct Content<'w> {
    pub(super) wire: &'w mut Wire,
    pub(super) limits: &'w Limits,
    rest: Rest,
    continue_awaited: bool,
    /// The framing cannot be trusted: where the next request begins is not known.
    pub(super) failed: bool,
}

/// The part of a content that is still on the wire.
#[derive(Debug)]
pub(super) enum Rest {
    Length(u64),
    Chunks(Chunks),
}

impl<'w> Content<'w> {
    pub(super) fn new(head: &Head, wire: &'w mut Wire, limits: &'w Limits) -> Content<'w> {
        let rest = match head.framing {
            Framing::None => Rest::Length(0),
            Framing::Length(bytes) => Rest::Length(bytes),
            Framing::Chunked => Rest::Chunks(Chunks::default()),
        };
        Content { wire, limits, rest, continue_awaited: head.continue_awaited, failed: false }
    }

    /// Finds an error in the part of a chunked content that is here already, before a handler runs: a handler that does
    /// not read its content would answer, and the connection would break behind that answer.
    pub(super) fn check_arrived(&mut self) -> Result<(), Refusal> {
        let Rest::Chunks(chunks) = &self.rest else { return Ok(()) };
        let decoded = chunks.clone().decode(self.wire.unread(), &mut Vec::new());
        decoded.map(|_| ()).inspect_err(|_| self.failed = true)
    }

    /// The whole content. It must arrive within `Limits::content_deadline` and be no larger than
    /// `Limits::content_bytes`.
    pub(super) fn read_whole(&mut self) -> Result<Vec<u8>, Refusal> {
        // A length that is only claimed is refused before a byte is read, and no memory is allocated for it.
        let most = self.limits.content_bytes;
        let is_too_large = matches!(self.rest, Rest::Length(claimed) if claimed > most as u64);
        TOO_LARGE.unless(!is_too_large)?;
        let deadline = Instant::now() + self.limits.content_deadline;
        self.wire.connection().wait_for_peer();
        let mut whole = Vec::new();
        while self.read_some(&mut whole, || until(deadline))? {
            TOO_LARGE.unless(whole.len() <= most)?;
        }
        TOO_LATE.unless(self.wire.connection().resume()).map(|()| whole)
    }

    /// Waits for content and appends what has arrived to `out`; `false` at the end of the content. `wait` is asked
    /// before each read how long it may take, since the extensions of a chunk can arrive byte by byte, too.
    pub(super) fn read_some(&mut self, out: &mut Vec<u8>, wait: impl Fn() -> Duration) -> Result<bool, Refusal> {
        let before = out.len();
        while out.len() == before && !self.rest.is_whole() {
            let taken = self.rest.decode(self.wire.unread(), out);
            self.wire.consume(taken.inspect_err(|_| self.failed = true)?);
            if out.len() == before && !self.rest.is_whole() {
                self.fill(out, wait()).inspect_err(|_| self.failed = true)?;
            }
        }
        Ok(out.len() > before)
    }

    /// Reads more of the content. A large one goes straight to `out`, in pieces that grow with what has arrived.
    fn fill(&mut self, out: &mut Vec<u8>, wait: Duration) -> Result<(), Refusal> {
        if std::mem::take(&mut self.continue_awaited) {
            self.wire.out().extend_from_slice(CONTINUE);
        }
        let read = self.wire.flush().and_then(|()| match &mut self.rest {
            Rest::Length(remaining) if *remaining > READ_BYTES as u64 => {
                let most = out.len().clamp(READ_BYTES, PIECE_BYTES).min(*remaining as usize);
                self.wire.read_into(out, most, wait).inspect(|bytes| *remaining -= *bytes as u64)
            }
            _ => self.wire.fill(wait),
        });
        match read {
            Ok(0) => Err(Refusal::bad("The connection ended before the content did.")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(TOO_LATE),
            Err(_) => Err(Refusal::bad("The connection broke before the content ended.")),
        }
    }

    /// What the connection must still skip to find the next request. `None` when the next request cannot be found: the
    /// framing is broken, or a peer that waits for `100 Continue` may or may not send its content now.
    pub(super) fn into_rest(self) -> Option<Rest> {
        let is_far = matches!(self.rest, Rest::Length(remaining) if remaining > SKIP_BYTES as u64);
        let is_skippable = self.rest.is_whole() || !(self.continue_awaited || is_far);
        (!self.failed && is_skippable).then_some(self.rest)
    }
}

/// The most that one read asks for.
const PIECE_BYTES: usize = 64 * 1024;

const TOO_LATE: Refusal = Refusal::new(Status::REQUEST_TIMEOUT, "The content did not arrive in time.");

const TOO_LARGE: Refusal =
    Refusal::new(Status::CONTENT_TOO_LARGE, "The content is larger than this server takes; send less in one request.");

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Content that no handler asked for is read up to here. Beyond it, closing the connection is cheaper.
const SKIP_BYTES: usize = 64 * 1024;

impl Rest {
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Rest::Length(remaining) => *remaining == 0,
            Rest::Chunks(chunks) => chunks.is_whole(),
        }
    }

    /// Appends to `out` what a piece of the wire has of it. Returns how many bytes that took.
    pub(super) fn decode(&mut self, wire: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        match self {
            Rest::Length(remaining) => {
                let taken = wire.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                out.extend_from_slice(&wire[..taken]);
                *remaining -= taken as u64;
                Ok(taken)
            }
            Rest::Chunks(chunks) => chunks.decode(wire, out),
        }
    }

    /// Reads it and drops it; `false` when there is too much of it, or it is broken.
    pub(super) fn skip(self, wire: &mut Wire, limits: &Limits) -> bool {
        if self.is_whole() {
            return true;
        }
        if wire.flush().is_err() {
            return false;
        }
        wire.connection().evict_first();
        let deadline = Instant::now() + limits.head_deadline;
        let mut content = Content { wire, limits, rest: self, continue_awaited: false, failed: false };
        let (mut skipped, mut piece) = (0, Vec::new());
        while skipped <= SKIP_BYTES {
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
