//! The body of a stream, and its writer.

use super::connection::{Closer, Connection};
use std::io::{self, Write};
use std::net::TcpStream;

pub(super) type Run = Box<dyn FnOnce(StreamWriter) -> io::Result<()> + Send>;

/// A body of unknown length. The close of the connection delimits it, so that telnet shows bare frames and no proxy
/// waits for a whole chunk.
pub(crate) struct Stream {
    /// Leaves with the head, at once.
    pub(super) opening: Vec<u8>,
    /// Writes the rest.
    pub(super) run: Run,
    pub(super) pace: Pace,
    /// The content when there are too many streams; without it the response is `503`.
    pub(crate) when_full: Option<Vec<u8>>,
    /// Makes what is written last when the server stops.
    pub(crate) farewell: Option<fn() -> Vec<u8>>,
    /// Sees the head before it leaves, and can watch what is written. The server still adds fields after the handler has
    /// returned, so that the handler itself cannot see the head.
    pub(super) prepare: Option<Prepare>,
}

impl Stream {
    pub(super) fn new(opening: Vec<u8>, run: Run) -> Stream {
        Stream { opening, run, pace: Pace::AtOnce, when_full: None, farewell: None, prepare: None }
    }
}

/// When the head and the opening of a stream leave, and when the rest is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// The head leaves, and the run begins.
    AtOnce,
    /// The run begins ten milliseconds after the head has left.
    Delayed,
    /// The run begins, and the head leaves with the first bytes that it writes.
    Joined,
}

pub(super) type Prepare = Box<dyn FnOnce(&mut StreamWriter, &[u8]) + Send>;

/// Writes the body of a stream. Each write leaves when it is made.
pub(crate) struct StreamWriter {
    connection: Connection,
    /// The head and the opening, until they leave.
    head: Vec<u8>,
    tap: Option<Tap>,
}

type Tap = Box<dyn FnMut(&[u8]) + Send>;

impl StreamWriter {
    pub(super) fn new(connection: Connection) -> StreamWriter {
        StreamWriter { connection, head: Vec::new(), tap: None }
    }

    /// Takes the head and the opening. They leave in one piece with the next bytes, or before.
    pub(super) fn begin(&mut self, mut head: Vec<u8>, opening: &[u8]) {
        if let Some(tap) = self.tap.as_mut().filter(|_| !opening.is_empty()) {
            tap(opening);
        }
        head.extend_from_slice(opening);
        self.head = head;
    }

    /// Shows each piece to `tap` before it is written.
    pub(crate) fn tap(&mut self, tap: impl FnMut(&[u8]) + Send + 'static) {
        self.tap = Some(Box::new(tap));
    }

    /// Lets another thread end the stream.
    pub(crate) fn closer(&self) -> Closer {
        self.connection.closer()
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection, and what must be written to it first.
    pub(crate) fn into_parts(self) -> (Connection, Vec<u8>) {
        (self.connection, self.head)
    }

    /// Writes what the system takes without waiting; returns how many bytes that is.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing now; else as the socket says, also when `bytes` is empty.
    pub(crate) fn write_at_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket: &TcpStream = &self.connection;
        socket.set_nonblocking(true)?;
        let written = socket.write(bytes);
        socket.set_nonblocking(false)?;
        let written = written?;
        if let Some(tap) = self.tap.as_mut().filter(|_| written > 0) {
            tap(&bytes[..written]);
        }
        Ok(written)
    }

    /// Ends the stream so that the client reads all of it.
    pub(crate) fn finish(self) {
        self.connection.linger();
    }
}

impl Write for StreamWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tap) = &mut self.tap {
            tap(bytes);
        }
        // The head is empty once it has left.
        self.connection.write_both(&std::mem::take(&mut self.head), bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connection.write_all(&std::mem::take(&mut self.head))
    }
}
