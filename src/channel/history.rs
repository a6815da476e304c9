//! The events that a channel keeps: one bounded sequence of encoded frames, and the keys under which some were published.

use super::id::Id;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A position in the history: the number of events that were ever appended before it.
pub(super) type Cursor = u64;

/// Whether a subscriber at `cursor` has lost events when `first` is the oldest position that is left.
pub(super) fn has_lost_events(cursor: Cursor, first: Cursor) -> bool {
    cursor < first
}

/// The bytes that are copied at a time for one subscriber. They bound the memory of a slow reader.
pub(super) const REPLAY_BYTES: usize = 32 * 1024;

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
    /// Several histories share it, and slow subscribers if it is large.
    bytes: Arc<[u8]>,
    key: Option<Arc<str>>,
}

/// A frame of this size is shared by the subscribers that read it slowly. Smaller ones are cheaper to copy.
const SHARED_BYTES: usize = 16 * 1024;

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

    /// The position after the last event with an id not larger than `id`.
    pub(super) fn position_after(&self, id: Id) -> Cursor {
        self.first + self.frames.partition_point(|frame| frame.id <= id) as u64
    }

    /// The newest id that was ever in it; before any was, the id at which the history starts.
    pub(super) fn newest(&self) -> Id {
        self.last_id().unwrap_or(self.forgotten)
    }

    /// The newest of the ids up to `id`, among those that are kept and the newest one that is not. A history that has
    /// forgotten nothing has what stands right before its first event in the place of the latter: every server knows that.
    pub(super) fn last_until(&self, id: Id) -> Id {
        let before = self.frames.partition_point(|frame| frame.id <= id).checked_sub(1);
        match (before, self.first_id()) {
            (Some(before), _) => self.frames[before].id,
            (None, Some(first)) if self.forgotten == Id::ZERO => first.previous(),
            (None, _) => self.forgotten,
        }
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

    pub(super) fn append(&mut self, id: Id, bytes: Arc<[u8]>, key: Option<Arc<str>>) {
        let frame = Frame { id, bytes, key };
        if let Some(key) = &frame.key {
            self.keys.insert(Arc::clone(key), self.end());
        }
        self.bytes += frame.size();
        self.frames.push_back(frame);
    }

    /// The frames from a position on.
    pub(super) fn from(&self, cursor: Cursor) -> impl Iterator<Item = &Arc<[u8]>> {
        self.frames.iter().skip(cursor.saturating_sub(self.first) as usize).map(|frame| &frame.bytes)
    }

    /// The events after this id.
    pub(super) fn after(&self, id: Id) -> impl Iterator<Item = (Id, &Arc<[u8]>)> {
        let first = self.frames.partition_point(|frame| frame.id <= id);
        self.frames.range(first..).map(|frame| (frame.id, &frame.bytes))
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

    /// Begins anew after all positions that a subscriber may have: each of them has lost something.
    pub(super) fn reset(&mut self, forgotten: Id) {
        let first = self.end() + 1;
        *self = History { first, ..History::new(forgotten) };
    }

    /// Fills the batch with the frames between `cursor` and `until`, as many as fit in `max_bytes`, but at least one.
    pub(super) fn copy(&self, cursor: Cursor, until: Cursor, max_bytes: usize, batch: &mut Batch) {
        batch.clear();
        batch.from = cursor;
        let from = cursor.saturating_sub(self.first) as usize;
        let count = until.saturating_sub(cursor) as usize;
        let mut bytes = 0;
        for frame in self.frames.iter().skip(from).take(count) {
            bytes += frame.bytes.len();
            if bytes > max_bytes && !batch.ends.is_empty() {
                break;
            }
            if frame.bytes.len() >= SHARED_BYTES {
                batch.shared.push((batch.ends.len(), Arc::clone(&frame.bytes)));
            }
            batch.ends.push(bytes);
        }
        if !batch.is_one_shared() {
            batch.joined.reserve_exact(batch.ends.last().copied().unwrap_or(0));
            let frames = self.frames.iter().skip(from).take(batch.ends.len());
            frames.for_each(|frame| batch.joined.extend_from_slice(&frame.bytes));
        }
    }
}

/// Consecutive frames of the history in one piece, so that one call writes them all.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) from: Cursor,
    /// The piece, unless it is one shared frame.
    joined: Vec<u8>,
    /// Where each frame ends in the piece.
    ends: Vec<usize>,
    /// The frames that are large, each with its place among all.
    shared: Vec<(usize, Arc<[u8]>)>,
}

/// The bytes of a frame from an index on.
pub(super) type Rest = (Arc<[u8]>, usize);

impl Batch {
    pub(super) fn end(&self) -> Cursor {
        self.from + self.ends.len() as u64
    }

    /// Gives shared frames back. If the history has forgotten them, this frees them.
    pub(super) fn clear(&mut self) {
        self.joined.clear();
        self.ends.clear();
        self.shared.clear();
    }

    fn is_one_shared(&self) -> bool {
        self.ends.len() == 1 && self.shared.len() == 1
    }

    fn piece(&self) -> &[u8] {
        if self.is_one_shared() { &self.shared[0].1 } else { &self.joined }
    }

    /// The frames between `cursor` and `until`.
    pub(super) fn between(&self, cursor: Cursor, until: Cursor) -> &[u8] {
        &self.piece()[self.start(cursor)..self.start(until.max(cursor))]
    }

    /// All frames, one by one.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.piece()[std::mem::replace(&mut start, end)..end])
    }

    /// For a subscriber at `cursor`, of which the socket took `taken` bytes: the rest of the frame that it took a part of, and
    /// the position after that frame.
    pub(super) fn split(&self, cursor: Cursor, taken: usize) -> (Rest, Cursor) {
        let at = self.start(cursor) + taken;
        let whole = self.ends.partition_point(|&end| end <= at);
        let boundary = whole.checked_sub(1).map_or(0, |last| self.ends[last]);
        let after = self.from + whole as u64;
        match self.ends.get(whole) {
            Some(&end) if at > boundary => {
                let shared = self.shared.iter().find(|(place, _)| *place == whole);
                let copied = || (self.joined[at..end].into(), 0);
                let rest = shared.map(|(_, frame)| (Arc::clone(frame), at - boundary));
                (rest.unwrap_or_else(copied), after + 1)
            }
            _ => (Rest::default(), after),
        }
    }

    fn start(&self, cursor: Cursor) -> usize {
        match cursor.saturating_sub(self.from) as usize {
            0 => 0,
            frames => self.ends.get(frames - 1).copied().unwrap_or(self.piece().len()),
        }
    }
}
