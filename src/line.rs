//! Lines of the laboratory: a stream that was given a name can be watched byte by byte, and cut,
//! from another connection.

use crate::lock::hold;
use crate::sse::{Channel, Channels, Event, base64};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines at a time; one more is not watched. A page has one or two, for as long as it is open.
const LINES: usize = 256;

/// What can be done to a stream while it runs.
pub(crate) struct Line {
    /// How often it was cut.
    cuts: Mutex<u64>,
    cut: Condvar,
    wire: Channel,
    piece_bytes: usize,
}

impl Line {
    /// How often it was cut until now, for a stream that begins.
    pub(crate) fn cuts(&self) -> u64 {
        *hold(&self.cuts)
    }

    /// Waits, and says whether the line was cut meanwhile, or before, since a stream began that saw
    /// `cuts`.
    pub(crate) fn is_cut_within(&self, time: Duration, since: u64) -> bool {
        let deadline = Instant::now() + time;
        let mut cuts = hold(&self.cuts);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if *cuts != since || left.is_zero() {
                return *cuts != since;
            }
            cuts = self.cut.wait_timeout(cuts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn cut(&self) {
        *hold(&self.cuts) += 1;
        self.cut.notify_all();
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

    /// The channels that lines are shown on, and whose places streams take.
    pub(crate) fn channels(&self) -> &Channels {
        &self.channels
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
        let line = Arc::new(Line {
            cuts: Mutex::new(0),
            cut: Condvar::new(),
            wire,
            piece_bytes: self.piece_bytes,
        });
        lines.insert(name.to_owned(), Arc::clone(&line));
        Some(line)
    }
}
