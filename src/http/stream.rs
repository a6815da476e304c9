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
    /// Writes the rest; ten milliseconds after the opening if `is_delayed`.
    pub(super) run: Run,
    pub(super) is_delayed: bool,
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
        Stream { opening, run, is_delayed: false, when_full: None, farewell: None, prepare: None }
    }
}

pub(super) type Prepare = Box<dyn FnOnce(&mut StreamWriter, &[u8]) + Send>;

/// Writes the body of a stream. Each write leaves when it is made.
pub(crate) struct StreamWriter {
    connection: Connection,
    tap: Option<Tap>,
}

type Tap = Box<dyn FnMut(&[u8]) + Send>;

impl StreamWriter {
    pub(super) fn new(connection: Connection) -> StreamWriter {
        StreamWriter { connection, tap: None }
    }

    /// Writes the head and the opening in one piece.
    pub(super) fn begin(&mut self, mut head: Vec<u8>, opening: &[u8]) -> io::Result<()> {
        if let Some(tap) = self.tap.as_mut().filter(|_| !opening.is_empty()) {
            tap(opening);
        }
        head.extend_from_slice(opening);
        self.connection.write_all(&head)
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

    pub(crate) fn into_connection(self) -> Connection {
        self.connection
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
        self.connection.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
