//! Lines of the laboratory: a stream that was given a name can be watched byte by byte, and cut,
//! from another connection.

use crate::channel::{Channel, Channels};
use crate::http::Response;
use crate::http::connection::Closer;
use crate::http::lock::hold;
use crate::sse::{Event, base64};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Lines at a time; one more is not watched. A page has one or two, for as long as it is open.
const LINES: usize = 256;

/// Streams that can be watched and cut.
pub(crate) struct Line {
    streams: Mutex<Vec<Closer>>,
    wire: Channel,
    piece_bytes: usize,
}

impl Line {
    fn attach(&self, stream: Closer) {
        let mut streams = hold(&self.streams);
        streams.retain(Closer::is_open);
        streams.push(stream);
    }

    /// Breaks the connections of the streams.
    pub(crate) fn cut(&self) {
        for stream in std::mem::take(&mut *hold(&self.streams)) {
            stream.close();
        }
    }

    /// Shows bytes to who watches, in events named after what they are part of: their data is base64,
    /// since a piece of a stream may end inside of a character.
    pub(crate) fn show(&self, part: &str, bytes: &[u8]) {
        if self.wire.subscribers() == 0 {
            return;
        }
        for piece in bytes.chunks(self.piece_bytes) {
            if let Ok(event) = Event::new(base64(piece)).name(part) {
                // It fits: pieces are a fraction of what a channel may keep.
                let _ = self.wire.publish(event);
            }
        }
    }

    /// What is shown, as an event stream.
    pub(crate) fn wire(&self) -> &Channel {
        &self.wire
    }
}

/// Lets a stream be watched and cut on this line, from outside of it.
pub(crate) fn on_line(response: Response, line: Arc<Line>) -> Response {
    response.prepare(move |writer, head| {
        line.attach(writer.closer());
        line.show("head", head);
        writer.tap(move |piece| line.show("bytes", piece));
    })
}

/// Lines by name, each for as long as somebody streams on it or watches it.
pub(crate) struct Lines {
    channels: Channels,
    piece_bytes: usize,
    lines: Mutex<HashMap<String, Arc<Line>>>,
}

impl Lines {
    /// For channels that keep `history_bytes` each.
    pub(crate) fn new(channels: Channels, history_bytes: usize) -> Lines {
        let piece_bytes = (history_bytes / 4).clamp(1, 32 * 1024);
        Lines { channels, piece_bytes, lines: Mutex::default() }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Line>> {
        hold(&self.lines).get(name).cloned()
    }

    /// The line of this name, or `None` when there are too many.
    pub(crate) fn open(&self, name: &str) -> Option<Arc<Line>> {
        let mut lines = hold(&self.lines);
        if let Some(line) = lines.get(name) {
            return Some(Arc::clone(line));
        }
        lines.retain(|_, line| Arc::strong_count(line) > 1 || line.wire.subscribers() > 0);
        if lines.len() >= LINES {
            return None;
        }
        let wire = self.channels.unlisted(name);
        let line =
            Arc::new(Line { streams: Mutex::default(), wire, piece_bytes: self.piece_bytes });
        lines.insert(name.to_owned(), Arc::clone(&line));
        Some(line)
    }
}
