//! How a stream flows and what goes wrong in it, whatever it says.

use crate::http::connection::Peer;
use crate::http::{Response, StreamWriter};
use crate::sse::{event_stream, opening_with};
use std::borrow::Cow;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

/// A frame that is larger leaves in pieces of this size.
pub(super) const PIECE_BYTES: usize = 8 * 1024;

/// The pause between two chunks: a client that waits reads each by itself.
const CHUNK_PAUSE: Duration = Duration::from_millis(1);

/// A silence is interrupted this often to see whether the client is still there.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a stream says, event by event.
pub(super) trait Source {
    /// Whether there is an event of this number, counted from 1.
    fn has(&mut self, number: usize) -> io::Result<bool>;

    /// Writes the event of this number in pieces, so that no frame is held as a whole. Returns the
    /// pause behind it.
    fn write(&mut self, number: usize, out: &mut impl Write) -> io::Result<Duration>;
}

/// How a stream flows. The same flow of the same source gives the same bytes every time.
pub(super) struct Flow {
    /// The reconnection time.
    pub(super) retry: Duration,
    /// A comment this often in a pause.
    pub(super) heartbeat: Option<Duration>,
    /// Frames leave in chunks of so many bytes; `usize::MAX` for whole frames.
    pub(super) chunk: usize,
    /// What every line ends with: LF, CR or CRLF.
    pub(super) line_end: &'static str,
    /// Whether a byte order mark stands first.
    pub(super) has_bom: bool,
    /// The connection ends after this event, unless the client has come back.
    pub(super) cut: Option<usize>,
    /// A silence begins after this event, unless the client has come back.
    pub(super) stall: Option<usize>,
    /// How long that silence lasts.
    pub(super) silence: Duration,
    /// Whether blocks that dispatch nothing stand between the events.
    pub(super) has_garbage: bool,
}

impl Flow {
    /// The stream of the events from the number `first` on. A client that `returns` has met the cut
    /// and the stall before.
    pub(super) fn stream(
        self,
        mut source: impl Source + Send + 'static,
        first: usize,
        returns: bool,
    ) -> Response {
        let mark = if self.has_bom { "\u{feff}" } else { "" };
        let opening = [mark.as_bytes(), &opening_with(self.retry)].concat();
        // The opening leaves with the head, or in chunks as the frames do.
        let (with_head, opening) = match self.chunk {
            usize::MAX => (self.end_lines(&opening).into_owned(), Vec::new()),
            _ => (Vec::new(), opening),
        };
        let run = move |writer| {
            let mut outlet =
                Outlet { writer, flow: &self, piece: Vec::new(), chunk_left: self.chunk };
            outlet.send(&opening)?;
            self.play(&mut source, first, returns, &mut outlet)?;
            outlet.writer.finish();
            Ok(())
        };
        event_stream(with_head, run).delayed()
    }

    /// The same text, whose lines end in LF, with the line ends of the stream.
    fn end_lines<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        if self.line_end == "\n" {
            return Cow::Borrowed(text);
        }
        let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
        Cow::Owned(lines.join(self.line_end.as_bytes()))
    }

    fn play(
        &self,
        source: &mut impl Source,
        first: usize,
        returns: bool,
        outlet: &mut Outlet<'_>,
    ) -> io::Result<()> {
        let mut number = first;
        while source.has(number)? {
            if self.has_garbage {
                outlet.send(GARBAGE[number % GARBAGE.len()])?;
            }
            let pause = source.write(number, outlet)?;
            outlet.flush()?;
            if self.cut == Some(number) && !returns {
                return Ok(());
            }
            if self.stall == Some(number) && !returns {
                outlet.wait(self.silence)?;
            }
            self.pause(pause, outlet)?;
            number += 1;
        }
        if self.has_garbage {
            outlet.send(UNFINISHED)?;
        }
        Ok(())
    }

    /// How long a stream of so many bytes takes without a cut, besides the pauses of its source.
    pub(super) fn duration(&self, bytes: usize) -> Duration {
        let chunks = u32::try_from(bytes / self.chunk).unwrap_or(u32::MAX);
        let silence = self.stall.map_or(Duration::ZERO, |_| self.silence);
        silence + CHUNK_PAUSE.saturating_mul(chunks)
    }

    fn pause(&self, mut left: Duration, outlet: &mut Outlet<'_>) -> io::Result<()> {
        loop {
            let step = self.heartbeat.map_or(left, |heartbeat| heartbeat.min(left));
            outlet.wait(step)?;
            left -= step;
            if left.is_zero() {
                return Ok(());
            }
            outlet.send(HEARTBEAT)?;
        }
    }
}

/// A comment that says nothing. It has one line end: a blank line behind it would be a block without
/// data.
pub(super) const HEARTBEAT: &[u8] = b":\n";

/// Blocks that a parser must read past: none of them changes what is dispatched (HTML, 9.2.6).
const GARBAGE: [&[u8]; 6] = [
    // A field that the standard does not know, and one in capitals, which is another field.
    b"color: blue\nDATA: not data\n",
    // A reconnection time that is no number. (Some browsers take an empty one for the default.)
    b"retry: 12x\nretry: -1\nretry: 1 2\n",
    // An id with a NUL is ignored. The id of the frame behind it counts.
    b"id: nul\0nul\n",
    // Fields without a colon, and a comment that looks like a field.
    b"colorless\nname\n:data: not data\n",
    // Bytes that are not UTF-8, and a space before a name, which makes it another name.
    b": \xff\xfe\xc0\n data: not data\n",
    // Two blocks without data. The type of the second must not become that of the next event.
    b"\nevent: nothing\n\n",
];

/// "Any pending data must be discarded. (If the file ends in the middle of an event, before the
/// final empty line, the incomplete event is not dispatched.)"
const UNFINISHED: &[u8] = b"id: unfinished\ndata: never dispatched\n";

/// Sends a frame while it is written: with other line ends, in pieces. `flush` ends the frame.
struct Outlet<'f> {
    writer: StreamWriter,
    flow: &'f Flow,
    /// What has been written and not sent. Empty between two frames.
    piece: Vec<u8>,
    /// How many more bytes belong to this chunk.
    chunk_left: usize,
}

impl Outlet<'_> {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.write_all(frame)?;
        self.flush()
    }

    fn send_piece(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }

    /// # Errors
    /// When the client leaves meanwhile.
    fn wait(&mut self, time: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            thread::sleep(left.min(LOOK_INTERVAL));
            if left <= LOOK_INTERVAL {
                return Ok(());
            }
            look_for_client(&mut self.writer, &self.flow.end_lines(HEARTBEAT))?;
        }
    }
}

impl Write for Outlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let ended = self.flow.end_lines(bytes);
        let mut rest = &ended[..];
        while !rest.is_empty() {
            if self.chunk_left == 0 {
                self.flush()?;
                thread::sleep(CHUNK_PAUSE);
            } else if self.piece.len() == PIECE_BYTES {
                self.send_piece()?;
            }
            let room = self.chunk_left.min(PIECE_BYTES - self.piece.len());
            let (now, later) = rest.split_at(rest.len().min(room));
            self.piece.extend_from_slice(now);
            self.chunk_left -= now.len();
            rest = later;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.chunk_left = self.flow.chunk;
        self.send_piece()
    }
}

/// Fails when the client has left. A client that has closed its half of the connection has left, or
/// reads on: the reset that answers the comment tells which, when the next look comes.
pub(super) fn look_for_client(writer: &mut StreamWriter, comment: &[u8]) -> io::Result<()> {
    match writer.connection().look_for_peer() {
        Peer::Open => Ok(()),
        Peer::HalfClosed => writer.write_all(comment),
        Peer::Gone => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}
