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
    /// The read timeout of the socket: only a change costs a system call.
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
        if wait.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        if self.read_timeout != wait {
            self.connection.set_read_timeout(Some(wait))?;
            self.read_timeout = wait;
        }
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
        loop {
            let mut socket: &TcpStream = &self.connection;
            match socket.read(&mut self.storage[self.unread.end..]) {
                Ok(bytes) => {
                    self.unread.end += bytes;
                    return Ok(bytes);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Some platforms call it `WouldBlock`, others `TimedOut`.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
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
