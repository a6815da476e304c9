//! A stream that was written beforehand: what it says, how it flows, and what goes wrong. The words
//! are one; the laboratory makes others to order.

use super::line::{Line, on_line};
use crate::http::connection::Peer;
use crate::http::lock::hold;
use crate::http::{Response, StreamWriter};
use crate::sse::{Emitter, Event, base64, event_stream, opening_with};
use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two pieces of a frame that is cut into them: long enough that a reader that is awake
/// meets each by itself.
pub(crate) const PIECE_PAUSE: Duration = Duration::from_millis(1);

/// The same script gives the same bytes every time.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// One word an event, from the beginning again when there are more events than words.
    pub(crate) words: Vec<String>,
    pub(crate) count: usize,
    pub(crate) event: Option<String>,
    /// The id of an event is its number, from 1.
    pub(crate) ids: bool,
    /// Bytes of data, made of the word repeated.
    pub(crate) size: Option<usize>,
    pub(crate) lines: usize,
    pub(crate) retry: Duration,
    /// Bytes that travel as base64 instead of a word.
    pub(crate) binary: Option<usize>,
    pub(crate) interval: Duration,
    /// A comment this often while nothing else is sent.
    pub(crate) heartbeat: Option<Duration>,
    /// Frames leave in pieces of so many bytes.
    pub(crate) chunk: Option<usize>,
    pub(crate) newline: Newline,
    pub(crate) bom: bool,
    /// The connection breaks after so many events, unless the client has come back.
    pub(crate) cut: Option<usize>,
    /// Silence after so many events, unless the client has come back, and how long it lasts.
    pub(crate) stall: Option<(usize, Duration)>,
    pub(crate) garbage: bool,
    /// A client that has heard everything hears it again, instead of being told to stop.
    pub(crate) repeats: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newline {
    Lf,
    Cr,
    Crlf,
}

impl Script {
    /// A text, word by word, one a second.
    pub(crate) fn of(text: &str) -> Script {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Script {
            count: words.len(),
            words,
            event: None,
            ids: true,
            size: None,
            lines: 1,
            retry: Duration::from_secs(2),
            binary: None,
            interval: Duration::from_secs(1),
            heartbeat: None,
            chunk: None,
            newline: Newline::Lf,
            bom: false,
            cut: None,
            stall: None,
            garbage: false,
            repeats: false,
        }
    }

    /// The response to a client that names the event it heard last: it goes on behind it. One that
    /// has heard everything is told to stop, and an id that makes no sense begins at the beginning.
    /// Who comes when there are as many streams as there may be is told to come back.
    pub(crate) fn respond(self, last_event_id: Option<&str>, line: Option<Arc<Line>>) -> Response {
        let number = |id: &str| {
            id.parse::<usize>().ok().filter(|_| id.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let heard = last_event_id.and_then(number).filter(|&heard| self.ids && heard <= self.count);
        let first = match heard {
            Some(heard) if heard == self.count && !self.repeats => return Emitter::finished(),
            Some(heard) if heard < self.count => heard + 1,
            _ => 1,
        };
        let returning = last_event_id.is_some();
        let opening = opening_with(self.retry);
        let mark = if self.bom { "\u{feff}".as_bytes() } else { b"" };
        let opening = [mark, &opening].concat();
        // Cut into pieces, the opening takes the way of the frames.
        let (with_head, opening) = match self.chunk {
            Some(_) => (Vec::new(), opening),
            None => (self.newline.end_lines(&opening).into_owned(), Vec::new()),
        };
        let response = event_stream(with_head, move |writer| {
            let audience = Audience { writer: Mutex::new(writer), script: &self };
            (&audience).write_all(&opening)?;
            self.play(first, returning, &audience)?;
            let writer = audience.writer.into_inner().unwrap_or_else(PoisonError::into_inner);
            writer.finish();
            Ok(())
        });
        match line {
            Some(line) => on_line(response.delayed(), line),
            None => response.delayed(),
        }
    }

    fn play(&self, first: usize, returning: bool, audience: &Audience<'_>) -> io::Result<()> {
        let mut stream = audience;
        for number in first..=self.count {
            if self.garbage {
                stream.write_all(GARBAGE[number % GARBAGE.len()])?;
            }
            stream.write_all(self.event(number)?.to_string().as_bytes())?;
            if !returning && self.cut == Some(number) {
                return Ok(());
            }
            let stall = self
                .stall
                .filter(|(after, _)| !returning && *after == number)
                .map(|(_, silence)| silence);
            let stays = match stall {
                Some(silence) => audience.wait(silence)?,
                None => true,
            };
            if !stays || !self.pause(audience)? {
                return Ok(());
            }
        }
        if self.garbage {
            stream.write_all(UNFINISHED)?;
        }
        Ok(())
    }

    /// `false` when the line was cut meanwhile.
    fn pause(&self, mut audience: &Audience<'_>) -> io::Result<bool> {
        let mut left = self.interval;
        loop {
            let step = self.heartbeat.map_or(left, |heartbeat| heartbeat.min(left));
            left -= step;
            if !audience.wait(step)? {
                return Ok(false);
            }
            if left.is_zero() {
                return Ok(true);
            }
            audience.write_all(b":\n")?;
        }
    }

    fn event(&self, number: usize) -> io::Result<Event> {
        let event = Event::new(self.data(number));
        let event = match &self.event {
            Some(name) => event.name(name)?,
            None => event,
        };
        Ok(if self.ids { event.id(number)? } else { event })
    }

    fn data(&self, number: usize) -> String {
        if let Some(bytes) = self.binary {
            // Every byte there is, beginning with a different one each time.
            return base64(&(0..bytes).map(|at| (at + number) as u8).collect::<Vec<_>>());
        }
        let word = &self.words[(number - 1) % self.words.len()];
        let Some(size) = self.size else {
            return vec![word.as_str(); self.lines].join("\n");
        };
        // As many whole words as fit, and dots up to the exact size; then line ends in place of
        // characters, evenly.
        let mut data = String::with_capacity(size);
        while data.len() + word.len() < size {
            data.push_str(word);
            data.push(' ');
        }
        data.extend(std::iter::repeat_n('.', size - data.len()));
        let mut bytes = data.into_bytes();
        for line in 1..self.lines {
            // A line end may fall into a character of several bytes; dots take the place of all of
            // it.
            let at = (size * line / self.lines).min(size.saturating_sub(1));
            let mut start = at;
            while start > 0 && bytes[start] & 0xc0 == 0x80 {
                start -= 1;
            }
            let mut end = at + 1;
            while end < size && bytes[end] & 0xc0 == 0x80 {
                end += 1;
            }
            if end - start > 1 {
                bytes[start..end].fill(b'.');
            }
            bytes[at] = b'\n';
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Bytes of one frame, about, and of the whole stream.
    pub(crate) fn total_bytes(&self) -> usize {
        let longest = self.words.iter().map(String::len).max().unwrap_or(0);
        let data = match (self.binary, self.size) {
            (Some(bytes), _) => bytes.div_ceil(3) * 4,
            (None, Some(size)) => size + self.lines * 8,
            (None, None) => (longest + 8) * self.lines,
        };
        self.count.saturating_mul(data + 32 + self.event.as_ref().map_or(0, String::len))
    }

    /// How long it takes without a cut.
    pub(crate) fn total_duration(&self) -> Duration {
        let pieces = self.chunk.map_or(0, |chunk| self.total_bytes() / chunk);
        let flowing = self.interval.saturating_mul(u32::try_from(self.count).unwrap_or(u32::MAX));
        let silence = self.stall.map_or(Duration::ZERO, |(_, silence)| silence);
        flowing + silence + PIECE_PAUSE.saturating_mul(u32::try_from(pieces).unwrap_or(u32::MAX))
    }
}

/// What a parser must not stumble over: none of it changes what is dispatched (HTML, 9.2.6).
const GARBAGE: [&[u8]; 6] = [
    // A field that nobody knows, and one in capitals, which is another.
    b"color: blue\nDATA: not data\n",
    // A reconnection time that is no number. (One that is empty means the default to some browsers.)
    b"retry: 12x\nretry: -1\nretry: 1 2\n",
    // An id with a NUL is ignored. The id of the frame behind it counts.
    b"id: nul\0nul\n",
    // Fields without a colon, and a comment that looks like a field.
    b"colorless\nname\n:data: not data\n",
    // Bytes that are not UTF-8, and a space before the name, which makes it another.
    b": \xff\xfe\xc0\n data: not data\n",
    // Two blocks without data: the second one's name must not stick to the next event.
    b"\nevent: nothing\n\n",
];

/// "Any pending data must be discarded. (If the file ends in the middle of an event, before the
/// final empty line, the incomplete event is not dispatched.)"
const UNFINISHED: &[u8] = b"id: unfinished\ndata: never dispatched\n";

impl Newline {
    /// Ends each line of a block that has LF in this way.
    fn end_lines(self, block: &[u8]) -> Cow<'_, [u8]> {
        let end: &[u8] = match self {
            Newline::Lf => return Cow::Borrowed(block),
            Newline::Cr => b"\r",
            Newline::Crlf => b"\r\n",
        };
        let mut ended = Vec::with_capacity(block.len());
        for line in block.split_inclusive(|&byte| byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(text) => ended.extend_from_slice(&[text, end].concat()),
                None => ended.extend_from_slice(line),
            }
        }
        Cow::Owned(ended)
    }
}

/// Who listens to a script, and who watches. What an emitter sends is written as the script wants it: with
/// other line ends, in pieces.
struct Audience<'s> {
    writer: Mutex<StreamWriter>,
    script: &'s Script,
}

/// How often a silence is interrupted to see whether the client is still there.
const GLANCE_INTERVAL: Duration = Duration::from_secs(1);

impl Audience<'_> {
    /// `false` when the line was cut meanwhile.
    ///
    /// # Errors
    /// When the client has left.
    fn wait(&self, time: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let step = left.min(GLANCE_INTERVAL);
            thread::sleep(step);
            if step == left {
                return Ok(true);
            }
            if hold(&self.writer).connection().look_for_peer() == Peer::Gone {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

impl Write for &Audience<'_> {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        let bytes = self.script.newline.end_lines(frame);
        let piece = self.script.chunk.unwrap_or(bytes.len()).max(1);
        for (at, piece) in bytes.chunks(piece).enumerate() {
            if at > 0 {
                thread::sleep(PIECE_PAUSE);
            }
            hold(&self.writer).write_all(piece)?;
        }
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
