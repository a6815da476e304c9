//! The events that a channel keeps: one bounded sequence of encoded frames, and the keys under which some were published.

use super::id::Id;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A position in the history: the number of events that were ever appended before it.
pub(super) type Cursor = u64;

pub(super) struct History {
    frames: VecDeque<Frame>,
    first: Cursor,
    /// Bytes of all frames and all keys.
    bytes: usize,
    keys: Keys,
    /// The newest id that is not kept any more; before any was dropped, the id at which the history starts.
    forgotten: Id,
}

struct Frame {
    id: Id,
    bytes: Box<[u8]>,
}

/// The keys of the frames that have one. A key is forgotten with its frame.
#[derive(Default)]
struct Keys {
    cursors: HashMap<Arc<str>, Cursor>,
    oldest_first: VecDeque<(Cursor, Arc<str>)>,
}

impl History {
    pub(super) fn new(start: Id) -> History {
        History {
            frames: VecDeque::new(),
            first: 0,
            bytes: 0,
            keys: Keys::default(),
            forgotten: start,
        }
    }

    /// The position of the oldest event that is kept.
    pub(super) fn first(&self) -> Cursor {
        self.first
    }

    /// The position of the next event.
    pub(super) fn end(&self) -> Cursor {
        self.first + self.frames.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn first_id(&self) -> Option<Id> {
        self.frames.front().map(|frame| frame.id)
    }

    pub(super) fn last_id(&self) -> Option<Id> {
        self.frames.back().map(|frame| frame.id)
    }

    pub(super) fn forgotten(&self) -> Id {
        self.forgotten
    }

    /// The last id that was ever in the history, or the id at which it starts.
    pub(super) fn newest(&self) -> Id {
        self.last_id().unwrap_or(self.forgotten)
    }

    /// The position behind the last event whose id is not larger than `id`, and whether that event has this very id.
    pub(super) fn position_after(&self, id: Id) -> (Cursor, bool) {
        let after = self.frames.partition_point(|frame| frame.id <= id);
        let is_found = after > 0 && self.frames[after - 1].id == id;
        (self.first + after as u64, is_found)
    }

    /// The id and the frame of the event that was published with this key.
    pub(super) fn find_key(&self, key: &str) -> Option<(Id, &[u8])> {
        let cursor = *self.keys.cursors.get(key)?;
        let frame = self.frames.get((cursor - self.first) as usize)?;
        Some((frame.id, &frame.bytes))
    }

    pub(super) fn append(&mut self, id: Id, bytes: Box<[u8]>, key: Option<&str>) {
        if let Some(key) = key {
            let (key, cursor): (Arc<str>, _) = (key.into(), self.end());
            self.bytes += key.len();
            self.keys.cursors.insert(Arc::clone(&key), cursor);
            self.keys.oldest_first.push_back((cursor, key));
        }
        self.bytes += bytes.len();
        self.frames.push_back(Frame { id, bytes });
    }

    /// Where the history must start so that another event of so many `bytes` fits within the bounds.
    pub(super) fn first_after(&self, bytes: usize, max_events: usize, max_bytes: usize) -> Cursor {
        let (mut events, mut total, mut first) =
            (self.frames.len() + 1, self.bytes + bytes, self.first);
        let mut keys = self.keys.oldest_first.iter().peekable();
        for frame in &self.frames {
            if events <= max_events && total <= max_bytes {
                break;
            }
            let key = keys.next_if(|(cursor, _)| *cursor == first);
            events -= 1;
            total -= frame.bytes.len() + key.map_or(0, |(_, key)| key.len());
            first += 1;
        }
        first
    }

    /// Drops the events before `first`.
    pub(super) fn forget_before(&mut self, first: Cursor) {
        while self.first < first
            && let Some(frame) = self.frames.pop_front()
        {
            let oldest_key = self.keys.oldest_first.front();
            if oldest_key.is_some_and(|(cursor, _)| *cursor == self.first)
                && let Some((_, key)) = self.keys.oldest_first.pop_front()
            {
                self.keys.cursors.remove(&key);
                self.bytes -= key.len();
            }
            self.first += 1;
            self.bytes -= frame.bytes.len();
            self.forgotten = frame.id;
        }
    }

    /// Fills the batch with the frames between `cursor` and `until`, as many as fit in `max_bytes`, but at least one.
    pub(super) fn copy(&self, cursor: Cursor, until: Cursor, max_bytes: usize, batch: &mut Batch) {
        batch.clear(cursor);
        let from = cursor.saturating_sub(self.first) as usize;
        let count = until.saturating_sub(cursor) as usize;
        for frame in self.frames.iter().skip(from).take(count) {
            if batch.bytes.len() + frame.bytes.len() > max_bytes && !batch.bytes.is_empty() {
                break;
            }
            batch.bytes.extend_from_slice(&frame.bytes);
            batch.ends.push(batch.bytes.len());
        }
    }
}

/// Consecutive frames of the history in one piece, so that one call writes them all.
#[derive(Default)]
pub(super) struct Batch {
    from: Cursor,
    bytes: Vec<u8>,
    /// Where each frame ends in `bytes`.
    ends: Vec<usize>,
}

impl Batch {
    fn clear(&mut self, from: Cursor) {
        self.from = from;
        self.bytes.clear();
        self.ends.clear();
    }

    pub(super) fn from(&self) -> Cursor {
        self.from
    }

    pub(super) fn end(&self) -> Cursor {
        self.from + self.ends.len() as u64
    }

    /// The frames between `cursor` and `until`.
    pub(super) fn between(&self, cursor: Cursor, until: Cursor) -> &[u8] {
        &self.bytes[self.start(cursor)..self.start(until.max(cursor))]
    }

    /// All frames, one by one.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.bytes[std::mem::replace(&mut start, end)..end])
    }

    /// For a subscriber at `cursor` whose socket took `taken` bytes: the rest of the frame that it took a part of, and
    /// the position behind that frame.
    pub(super) fn split(&self, cursor: Cursor, taken: usize) -> (&[u8], Cursor) {
        let at = self.start(cursor) + taken;
        let whole = self.ends.partition_point(|&end| end <= at);
        let boundary = whole.checked_sub(1).map_or(0, |last| self.ends[last]);
        match self.ends.get(whole) {
            Some(&end) if at > boundary => (&self.bytes[at..end], self.from + whole as u64 + 1),
            _ => (&[], self.from + whole as u64),
        }
    }

    fn start(&self, cursor: Cursor) -> usize {
        match cursor.saturating_sub(self.from) as usize {
            0 => 0,
            frames => self.ends.get(frames - 1).copied().unwrap_or(self.bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> Id {
        Id::parse(&format!("1-{n}")).expect("it has the form of an id")
    }

    #[test]
    fn a_key_counts_as_its_bytes_and_is_forgotten_with_its_event() {
        let mut history = History::new(id(0));
        for n in 1..=4 {
            let key = (n % 2 == 0).then(|| format!("key-{n}"));
            history.append(id(n), vec![b'x'; 10].into(), key.as_deref());
        }
        assert_eq!(history.bytes(), 4 * 10 + 2 * 5);
        assert_eq!(history.find_key("key-2"), Some((id(2), &[b'x'; 10][..])));
        assert_eq!(history.find_key("key-1"), None);
        // Without the first event 40 bytes are left, without the second 25.
        assert_eq!(history.first_after(10, 100, 50), 1);
        assert_eq!(history.first_after(11, 100, 50), 2);
        history.forget_before(2);
        assert_eq!(history.bytes(), 25);
        assert_eq!(history.find_key("key-2"), None);
        assert!(history.find_key("key-4").is_some());
        history.forget_before(4);
        assert_eq!((history.bytes(), history.keys.cursors.len()), (0, 0));
    }
}
