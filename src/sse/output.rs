//! The writer of one stream, with its heartbeat and the check whether the client has left.

use crate::http::StreamWriter;
use crate::http::connection::Peer;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How often a stream is given a heartbeat while nothing else is sent. Proxies cut a silent stream after a minute or
/// less.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// A comment, which clients ignore. It is one line, and no blank line follows: several clients would dispatch an empty
/// message.
const HEARTBEAT_LINE: &[u8] = b":\n";

/// How often a client that has closed its half of the connection is written to, at least, while it is checked.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The heartbeat interval that is used when this one is asked for. The bounds keep the thread of the heartbeats from
/// running without a pause, and its clock from overflowing.
pub(super) fn heartbeat_within_bounds(interval: Duration) -> Duration {
    interval.clamp(Duration::from_millis(10), Duration::from_secs(24 * 60 * 60))
}

/// Where a stream is written.
pub(super) struct Output {
    writer: StreamWriter,
    written_at: Instant,
    /// Nothing more can be written.
    has_left: bool,
}

impl Output {
    pub(super) fn new(writer: StreamWriter) -> Output {
        let written_at = Instant::now();
        Output { writer, written_at, has_left: false }
    }

    /// Writes a whole frame, and waits for the client to take it.
    pub(super) fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.has_left {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.writer.write_all(frame);
        self.written_at = Instant::now();
        self.has_left = written.is_err();
        written
    }

    /// Writes a heartbeat unless something was written within the interval. Returns when the next one is due; `None`
    /// when the client has left.
    pub(super) fn keep_alive(&mut self, interval: Duration) -> Option<Instant> {
        let is_open = self.is_open();
        if is_open && self.written_at + interval <= Instant::now() {
            self.beat();
        }
        is_open.then(|| self.written_at + interval)
    }

    /// Writes a heartbeat without waiting. A client that does not take it has unread bytes, which keep the connection
    /// as busy as a heartbeat would.
    fn beat(&mut self) {
        match self.writer.write_at_once(HEARTBEAT_LINE) {
            // Behind half of a heartbeat the next frame would be a comment. The client reconnects.
            Ok(bytes) => self.has_left = bytes < HEARTBEAT_LINE.len(),
            Err(error) => self.has_left = error.kind() != io::ErrorKind::WouldBlock,
        }
        self.written_at = Instant::now();
    }

    /// Whether the client is still there, as far as is known. A client that has closed its half of the connection may
    /// still be reading. Only a write tells: the system of a client that has left answers it with a reset, which the
    /// next check sees.
    pub(super) fn is_open(&mut self) -> bool {
        // A write of no bytes fails when the writing half is closed, as it is when the server stops.
        if self.has_left || self.writer.write_at_once(b"").is_err() {
            self.has_left = true;
            return false;
        }
        match self.writer.connection().look_for_peer() {
            Peer::Open => {}
            Peer::HalfClosed if self.written_at.elapsed() < PROBE_INTERVAL => {}
            Peer::HalfClosed => self.beat(),
            Peer::Gone => self.has_left = true,
        }
        !self.has_left
    }

    /// Ends the stream so that the client reads all of it.
    pub(super) fn finish(&self) {
        self.writer.connection().linger();
    }
}
