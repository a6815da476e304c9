//! What arrived of an event stream, and when: its lines, blocks and events, and the bursts in which it came.

use std::iter;
use std::ops::Range;
use std::time::Duration;

/// Reads with a shorter pause between them are one burst.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
pub(super) const BOM: &[u8] = "\u{feff}".as_bytes();

#[derive(Default)]
pub(super) struct Stream {
    pub(super) raw: Vec<u8>,
    /// When each read ended, and where in `raw`.
    pub(super) reads: Vec<(Duration, usize)>,
}

/// Bytes that arrived without a pause: from when to when, and where in `raw`.
pub(super) struct Burst {
    pub(super) time: Range<Duration>,
    pub(super) bytes: Range<usize>,
}

/// The lines before a blank line.
pub(super) struct Block<'s> {
    /// When its blank line arrived.
    pub(super) at: Duration,
    pub(super) text: &'s [u8],
}

/// An event as EventSource dispatches it.
pub(super) struct Event {
    pub(super) at: Duration,
    /// Its own, unless that is empty.
    pub(super) id: Option<String>,
    pub(super) kind: String,
    pub(super) data: String,
}

impl Stream {
    /// When the byte before this end arrived.
    pub(super) fn arrival(&self, end: usize) -> Duration {
        let read = self.reads.partition_point(|&(_, read)| read < end);
        self.reads.get(read).map_or(Duration::ZERO, |&(at, _)| at)
    }

    /// The blocks, and where in `raw` the lines begin that no blank line has followed yet.
    pub(super) fn blocks(&self) -> (Vec<Block<'_>>, usize) {
        let mut start = if self.raw.starts_with(BOM) { BOM.len() } else { 0 };
        let (mut blocks, mut at) = (Vec::new(), start);
        for (line, end) in lines(&self.raw[start..]) {
            let text = start..at;
            at += line.len() + end.len();
            if line.is_empty() {
                blocks.push(Block { at: self.arrival(at), text: &self.raw[text] });
                start = at;
            }
        }
        (blocks, start)
    }

    pub(super) fn events(&self) -> Vec<Event> {
        let events = self.blocks().0.into_iter().filter(Block::has_data);
        events.map(|block| block.event()).collect()
    }

    pub(super) fn bursts(&self) -> Vec<Burst> {
        let (mut bursts, mut start) = (Vec::<Burst>::new(), 0);
        for &(at, end) in &self.reads {
            match bursts.last_mut() {
                Some(burst) if at < burst.time.end + PAUSE => {
                    (burst.time.end, burst.bytes.end) = (at, end);
                }
                _ => bursts.push(Burst { time: at..at, bytes: start..end }),
            }
            start = end;
        }
        bursts
    }

    /// The fields and, with an empty name, the comments.
    pub(super) fn fields(&self) -> impl Iterator<Item = (String, String)> {
        fields(self.raw.strip_prefix(BOM).unwrap_or(&self.raw))
    }
}

impl Block<'_> {
    pub(super) fn has_data(&self) -> bool {
        fields(self.text).any(|(name, _)| name == "data")
    }

    fn event(&self) -> Event {
        let (mut id, mut kind, mut data) = (None, String::new(), Vec::new());
        for (name, value) in fields(self.text) {
            match name.as_str() {
                "data" => data.push(value),
                "event" => kind = value,
                "id" if !value.contains('\0') => id = Some(value).filter(|id| !id.is_empty()),
                _ => {}
            }
        }
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        Event { at: self.at, id, kind, data: data.join("\n") }
    }
}

/// Each line with its end, which the last one may not have yet.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = text;
    iter::from_fn(move || {
        let end = rest.iter().position(|byte| b"\r\n".contains(byte)).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        let end = if after.starts_with(b"\r\n") { 2 } else { after.len().min(1) };
        (!rest.is_empty()).then(|| {
            rest = &after[end..];
            (line, &after[..end])
        })
    })
}

/// "If value starts with a U+0020 SPACE character, remove it from value." (HTML, 9.2.6)
fn fields(text: &[u8]) -> impl Iterator<Item = (String, String)> {
    lines(text).filter(|(line, _)| !line.is_empty()).map(|(line, _)| {
        let line = String::from_utf8_lossy(line);
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        (name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned())
    })
}
