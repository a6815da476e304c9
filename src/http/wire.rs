//! A connection with a read buffer and a write buffer, while a thread of its own serves it.

use super::connection::Connection;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

/// How much one read asks for. The head of a browser has one or two kilobytes.
pub(super) const READ_BYTES: usize = 8 * 1024;

pub(crate) struct Wire {
    connection: Connection,
    storage: Vec<u8>,
    unread: Range<usize>,
    out: Vec<u8>,
    /// The read timeout of the socket.
    read_timeout: Duration,
}

impl Wire {
    /// The socket has the read timeout that its listener has given it.
    pub(crate) fn new(connection: Connection) -> Wire {
        let read_timeout = connection.admission().limits.head_deadline;
        Wire { connection, storage: Vec::new(), unread: 0..0, out: Vec::new(), read_timeout }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.storage[self.unread.clone()]
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.unread.start = (self.unread.start + bytes).min(self.unread.end);
    }

    /// Reads bytes of the peer, waiting at most `wait`. `Ok(0)` is the end of what the peer sends. The write buffer must
    /// be empty: the peer may wait for a response before it goes on.
    ///
    /// # Errors
    /// `TimedOut` when nothing has arrived; else as the socket says.
    pub(crate) fn fill(&mut self, wait: Duration) -> io::Result<usize> {
        debug_assert!(self.out.is_empty(), "the peer may wait for what is in the write buffer");
        if self.unread.start > 0 {
            self.storage.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        // It grows only when it is full, and by a half: its memory is bounded by what a request may have, and a long head
        // is not copied again and again.
        if self.unread.end == self.storage.len() {
            let more = READ_BYTES.max(self.storage.len() / 2);
            self.storage.reserve_exact(more);
            self.storage.resize(self.unread.end + more, 0);
        }
        let bytes = read(&self.connection, &mut self.read_timeout, &mut self.storage[self.unread.end..], wait)?;
        self.unread.end += bytes;
        Ok(bytes)
    }

    /// As [`fill`](Wire::fill), but appends to `out`, at most so many bytes. Nothing may be unread.
    pub(super) fn read_into(&mut self, out: &mut Vec<u8>, most: usize, wait: Duration) -> io::Result<usize> {
        debug_assert!(self.unread.is_empty() && self.out.is_empty());
        let before = out.len();
        out.resize(before + most, 0);
        let outcome = read(&self.connection, &mut self.read_timeout, &mut out[before..], wait);
        out.truncate(before + outcome.as_ref().unwrap_or(&0));
        outcome
    }

    /// The write buffer. What stands in it leaves at the next [`flush`](Wire::flush).
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = self.connection.write_all(&self.out);
        self.empty();
        written
    }

    /// Writes the write buffer and then `content`, without copying it.
    pub(crate) fn flush_with(&mut self, content: &[u8]) -> io::Result<()> {
        let written = self.connection.write_both(&self.out, content);
        self.empty();
        written
    }

    /// An idle connection keeps no large write buffer.
    fn empty(&mut self) {
        self.out.clear();
        self.out.shrink_to(READ_BYTES);
    }
}

/// A read may wait for an eighth longer than it has time: then most pieces of a request need no timeout of their own.
fn read(socket: &TcpStream, timeout: &mut Duration, into: &mut [u8], wait: Duration) -> io::Result<usize> {
    if wait.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    if !(wait..=wait.saturating_add(wait / 8)).contains(timeout) {
        socket.set_read_timeout(Some(wait))?;
        *timeout = wait;
    }
    let mut socket = socket;
    loop {
        match socket.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Some platforms call it `WouldBlock`, others `TimedOut`.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            outcome => return outcome,
        }
    }
}
