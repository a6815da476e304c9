//! How a stream flows and what goes wrong in it, whatever it says.

use crate::http::connection::Peer;
use crate::http::lock::hold;
use crate::http::{Response, StreamWriter};
use crate::sse::{event_stream, lines, opening_with};
use std::borrow::Cow;
use std::io::{self, Write};
use std::mem::replace;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A frame that is larger leaves in pieces of this size.
const PIECE_BYTES: usize = 8 * 1024;

/// The pause between two chunks, at least: a client that waits reads each by itself.
const CHUNK_PAUSE: Duration = Duration::from_millis(1);

/// The time between two chunks of all streams together. Each chunk wakes a thread: streams in pieces of a byte would take
/// every core. At this rate they take about a fifth of one.
const CHUNK_SPACING: Duration = Duration::from_micros(100);

/// When the next chunk of any stream may leave.
static NEXT_CHUNK: LazyLock<Mutex<Instant>> = LazyLock::new(|| Mutex::new(Instant::now()));

/// A silence is interrupted this often to see whether the client is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a stream says, event by event.
pub(super) trait Source {
    /// Whether there is anything left. Events are numbered from 1.
    fn has(&mut self, number: usize) -> io::Result<bool>;

    /// Writes what comes next in pieces, so that no frame is held as a whole: the event of this number, or something in
    /// front of it. Returns the pause behind it, and whether it was the event.
    fn write(&mut self, number: usize, out: &mut impl Write) -> io::Result<(Duration, bool)>;
}

/// What the parameters of the same names say. The same flow of the same source gives the same bytes every time.
pub(super) struct Flow {
    /// Without it the stream has no opening.
    pub(super) retry: Option<Duration>,
    /// The pause before the first event.
    pub(super) delay: Duration,
    pub(super) jitter: u32,
    pub(super) speed: f64,
    pub(super) heartbeat: Option<Duration>,
    /// `usize::MAX` for whole frames.
    pub(super) chunk: usize,
    /// What takes the place of every line end.
    pub(super) line_end: Option<&'static [u8]>,
    pub(super) has_bom: bool,
    pub(super) cut: Option<usize>,
    pub(super) stall: Option<usize>,
    pub(super) silence: Duration,
    pub(super) has_garbage: bool,
}

impl Flow {
    /// The stream of the events from the number `first` on. A client that `returns` has met the cut and the stall before.
    pub(super) fn stream(self, mut source: impl Source + Send + 'static, first: usize, returns: bool) -> Response {
        let mark = if self.has_bom { "\u{feff}" } else { "" };
        let opening = self.retry.map(opening_with).unwrap_or_default();
        let opening = [mark.as_bytes(), &opening].concat();
        // The opening leaves with the head, or in chunks as the frames do.
        let (with_head, opening) = match self.chunk {
            usize::MAX => (self.end_lines(&opening).into_owned(), Vec::new()),
            _ => (Vec::new(), opening),
        };
        let run = move |writer| {
            let mut outlet = Outlet { writer, flow: &self, piece: Vec::new(), chunk_left: self.chunk, after_cr: false };
            outlet.send(&opening)?;
            self.play(&mut source, first, returns, &mut outlet)?;
            outlet.writer.finish();
            Ok(())
        };
        event_stream(with_head, run).delayed()
    }

    /// The same text with the line ends of the stream.
    fn end_lines<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let Some(line_end) = self.line_end else { return Cow::Borrowed(text) };
        let mut ended = Vec::new();
        for (line, end) in lines(text) {
            ended.extend_from_slice(line);
            ended.extend_from_slice(if end.is_empty() { b"" } else { line_end });
        }
        Cow::Owned(ended)
    }

    fn play(&self, source: &mut impl Source, first: usize, returns: bool, outlet: &mut Outlet<'_>) -> io::Result<()> {
        let mut number = first;
        outlet.pause(self.paced(self.delay, number - 1))?;
        while source.has(number)? {
            if self.has_garbage {
                outlet.send(GARBAGE[number % GARBAGE.len()])?;
            }
            let (pause, is_event) = source.write(number, outlet)?;
            outlet.flush()?;
            let happens_now = |fault| is_event && !returns && fault == Some(number);
            if happens_now(self.cut) {
                return Ok(());
            }
            if happens_now(self.stall) {
                outlet.wait(self.silence)?;
            }
            outlet.pause(self.paced(pause, number))?;
            number += usize::from(is_event);
        }
        if self.has_garbage {
            outlet.send(UNFINISHED)?;
        }
        Ok(())
    }

    /// The pause behind an event, at this speed, shorter or longer by up to `jitter` percent, evenly spread. It is the
    /// same every time for an event of the same number.
    fn paced(&self, pause: Duration, number: usize) -> Duration {
        let spread = (number % 201 * 124 % 201) as u32;
        let pause = pause * (10_000 - 100 * self.jitter + spread * self.jitter) / 10_000;
        pause.div_f64(self.speed)
    }

    /// How long a stream of so many bytes and these pauses takes at most, without a cut.
    pub(super) fn duration(&self, pauses: Duration, bytes: usize) -> Duration {
        let pauses = (pauses * (100 + self.jitter) / 100).div_f64(self.speed);
        let chunks = u32::try_from(bytes / self.chunk).unwrap_or(u32::MAX);
        let silence = self.stall.map_or(Duration::ZERO, |_| self.silence);
        pauses + silence + CHUNK_PAUSE * chunks
    }
}

/// A comment that says nothing. It has one line end: a blank line behind it would be a block without data.
const HEARTBEAT: &[u8] = b":\n";

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

/// "Any pending data must be discarded. (If the file ends in the middle of an event, before the final empty line, the
/// incomplete event is not dispatched.)"
const UNFINISHED: &[u8] = b"id: unfinished\ndata: never dispatched\n";

/// Sends a frame while it is written: with other line ends, in pieces. `flush` ends the frame.
struct Outlet<'f> {
    writer: StreamWriter,
    flow: &'f Flow,
    /// What has been written and not sent. Empty between two frames.
    piece: Vec<u8>,
    /// How many more bytes belong to this chunk.
    chunk_left: usize,
    /// The last byte of the source was a CR: an LF now is part of the same line end.
    after_cr: bool,
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

    /// A silence. It fails when the client leaves meanwhile.
    fn wait(&mut self, time: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            thread::sleep(left.min(LOOK_INTERVAL));
            if left <= LOOK_INTERVAL {
                return Ok(());
            }
            match self.writer.connection().look_for_peer() {
                Peer::Open => {}
                // The client may still read. If it has left, the next look finds the reset.
                Peer::HalfClosed => self.writer.write_all(&self.flow.end_lines(HEARTBEAT))?,
                Peer::Gone => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }

    /// A wait with heartbeats in it.
    fn pause(&mut self, mut left: Duration) -> io::Result<()> {
        while let Some(heartbeat) = self.flow.heartbeat.filter(|heartbeat| *heartbeat < left) {
            self.wait(heartbeat)?;
            left -= heartbeat;
            self.send(HEARTBEAT)?;
        }
        self.wait(left)
    }
}

impl Write for Outlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A block of a recording may be large, and this copies it.
        let bytes = &bytes[..bytes.len().min(PIECE_BYTES)];
        let is_rest = replace(&mut self.after_cr, bytes.ends_with(b"\r")) && bytes.starts_with(b"\n");
        let ended = self.flow.end_lines(&bytes[usize::from(is_rest && self.flow.line_end.is_some())..]);
        let mut rest = &ended[..];
        while !rest.is_empty() {
            if self.chunk_left == 0 {
                self.flush()?;
                pause_for_chunk();
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

fn pause_for_chunk() {
    let now = Instant::now();
    let leaves_at = {
        let mut next = hold(&NEXT_CHUNK);
        let leaves_at = (*next).max(now + CHUNK_PAUSE);
        *next = leaves_at + CHUNK_SPACING;
        leaves_at
    };
    thread::sleep(leaves_at - now);
}
