//! The events that a channel keeps: one bounded sequence of encoded frames, and the keys under which some were published.

use super::id::Id;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A position in the history: the number of events that were ever appended before it.
pub(super) type Cursor = u64;

pub(super) struct History {
    frames: VecDeque<Frame>,
    /// The position of the oldest event that is kept.
    pub(super) first: Cursor,
    /// Bytes of all frames and all keys.
    pub(super) bytes: usize,
    /// Where the frames with a key are.
    keys: HashMap<Arc<str>, Cursor>,
    /// The newest id that is not kept any more; before any was dropped, the id at which the history starts.
    pub(super) forgotten: Id,
}

struct Frame {
    id: Id,
    bytes: Box<[u8]>,
    key: Option<Arc<str>>,
}

impl Frame {
    fn size(&self) -> usize {
        self.bytes.len() + self.key.as_ref().map_or(0, |key| key.len())
    }
}

impl History {
    pub(super) fn new(start: Id) -> History {
        let (frames, keys) = (VecDeque::new(), HashMap::new());
        History { frames, first: 0, bytes: 0, keys, forgotten: start }
    }

    /// The position of the next event.
    pub(super) fn end(&self) -> Cursor {
        self.first + self.frames.len() as u64
    }

    pub(super) fn first_id(&self) -> Option<Id> {
        self.frames.front().map(|frame| frame.id)
    }

    pub(super) fn last_id(&self) -> Option<Id> {
        self.frames.back().map(|frame| frame.id)
    }

    /// The position behind the last event with an id not larger than `id`, and whether that event has this very id.
    pub(super) fn position_after(&self, id: Id) -> (Cursor, bool) {
        let after = self.frames.partition_point(|frame| frame.id <= id);
        let is_found = after > 0 && self.frames[after - 1].id == id;
        (self.first + after as u64, is_found)
    }

    /// The newest id that was ever in it; before any was, the id at which the history starts.
    pub(super) fn newest(&self) -> Id {
        self.last_id().unwrap_or(self.forgotten)
    }

    /// The key and the frame of each event.
    pub(super) fn events(&self) -> impl Iterator<Item = (Option<&str>, &[u8])> {
        self.frames.iter().map(|frame| (frame.key.as_deref(), &*frame.bytes))
    }

    /// The id and the frame of the event that was published with this key.
    pub(super) fn find_key(&self, key: &str) -> Option<(Id, &[u8])> {
        let cursor = *self.keys.get(key)?;
        let frame = self.frames.get((cursor - self.first) as usize)?;
        Some((frame.id, &frame.bytes))
    }

    pub(super) fn append(&mut self, id: Id, bytes: Box<[u8]>, key: Option<Arc<str>>) {
        let frame = Frame { id, bytes, key };
        if let Some(key) = &frame.key {
            self.keys.insert(Arc::clone(key), self.end());
        }
        self.bytes += frame.size();
        self.frames.push_back(frame);
    }

    /// Where the history must start so that another event of so many `bytes` fits within the bounds.
    pub(super) fn first_after(&self, bytes: usize, max_events: usize, max_bytes: usize) -> Cursor {
        let (mut events, mut total) = (self.frames.len() + 1, self.bytes + bytes);
        let must_go = self.frames.iter().take_while(|frame| {
            let fits = events <= max_events && total <= max_bytes;
            events -= 1;
            total -= frame.size();
            !fits
        });
        self.first + must_go.count() as u64
    }

    /// Drops the events before `first`.
    pub(super) fn forget_before(&mut self, first: Cursor) {
        while self.first < first
            && let Some(frame) = self.frames.pop_front()
        {
            self.first += 1;
            self.bytes -= frame.size();
            self.forgotten = frame.id;
            if let Some(key) = frame.key {
                self.keys.remove(&key);
            }
        }
    }

    /// Begins anew behind all positions that a subscriber may have: each of them has lost something.
    pub(super) fn reset(&mut self, forgotten: Id) {
        let first = self.end() + 1;
        *self = History { first, ..History::new(forgotten) };
    }

    /// Fills the batch with the frames between `cursor` and `until`, as many as fit in `max_bytes`, but at least one.
    pub(super) fn copy(&self, cursor: Cursor, until: Cursor, max_bytes: usize, batch: &mut Batch) {
        batch.from = cursor;
        batch.bytes.clear();
        batch.ends.clear();
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
    pub(super) from: Cursor,
    bytes: Vec<u8>,
    /// Where each frame ends in `bytes`.
    ends: Vec<usize>,
}

impl Batch {
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

    /// For a subscriber at `cursor`, of which the socket took `taken` bytes: the rest of the frame that it took a part of, and
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
            let key = (n % 2 == 0).then(|| format!("key-{n}").into());
            history.append(id(n), vec![b'x'; 10].into(), key);
        }
        assert_eq!(history.bytes, 4 * 10 + 2 * 5);
        assert_eq!(history.find_key("key-2"), Some((id(2), &[b'x'; 10][..])));
        assert_eq!(history.find_key("key-1"), None);
        // Without the first event 40 bytes are left, without the second 25.
        assert_eq!(history.first_after(10, 100, 50), 1);
        assert_eq!(history.first_after(11, 100, 50), 2);
        history.forget_before(2);
        assert_eq!(history.bytes, 25);
        assert_eq!(history.find_key("key-2"), None);
        assert!(history.find_key("key-4").is_some());
        history.forget_before(4);
        assert_eq!((history.bytes, history.keys.len()), (0, 0));
    }
}
