//! The socket as a connection's own thread sees it: bytes not read yet, and bytes owed to the peer.

use super::connection::Connection;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::ops::Range;
use std::time::Duration;

/// How much one read asks for. A head of a browser is one or two kilobytes.
const READ_BYTES: usize = 8 * 1024;

pub(crate) struct Wire {
    connection: Connection,
    storage: Vec<u8>,
    unread: Range<usize>,
    owed: Vec<u8>,
    /// What the socket's read timeout is set to, so that a system call is spent only on a change.
    read_timeout: Option<Duration>,
}

impl Wire {
    pub(crate) fn new(connection: Connection) -> Wire {
        Wire { connection, storage: Vec::new(), unread: 0..0, owed: Vec::new(), read_timeout: None }
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

    /// Waits at most `wait` for bytes of the peer; `Ok(0)` is the end of what it sends, `TimedOut`
    /// is silence.
    ///
    /// Whatever is owed is written first: a peer that pipelines gets its responses together, and
    /// one that waits for a response before it goes on is never kept waiting.
    pub(crate) fn fill(&mut self, wait: Duration) -> io::Result<usize> {
        self.flush()?;
        if wait.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        if self.read_timeout != Some(wait) {
            self.connection.set_read_timeout(Some(wait))?;
            self.read_timeout = Some(wait);
        }
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.start > 0 && self.storage.len() - self.unread.end < READ_BYTES {
            self.storage.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.storage.len() - self.unread.end < READ_BYTES {
            self.storage.resize(self.unread.end + READ_BYTES, 0);
        }
        loop {
            let mut socket = &*self.connection;
            match socket.read(&mut self.storage[self.unread.end..]) {
                Ok(bytes) => {
                    self.unread.end += bytes;
                    return Ok(bytes);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Which of the two a timed-out read is depends on the platform.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes to write before the next wait, or at the next [`flush`](Wire::flush).
    pub(crate) fn owe(&mut self) -> &mut Vec<u8> {
        &mut self.owed
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let written = (&mut &*self.connection).write_all(&self.owed);
        self.owed.clear();
        written
    }

    /// Writes what is owed, and `content` behind it, which is not copied for that.
    pub(crate) fn flush_with(&mut self, content: &[u8]) -> io::Result<()> {
        let mut pieces = [IoSlice::new(&self.owed), IoSlice::new(content)];
        let mut rest = &mut pieces[..];
        let mut socket = &*self.connection;
        let written = loop {
            match socket.write_vectored(rest) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => IoSlice::advance_slices(&mut rest, bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if rest.is_empty() {
                break Ok(());
            }
        };
        self.owed.clear();
        written
    }
}
