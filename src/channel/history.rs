//! What a channel keeps: one bounded log of encoded frames, in which any number of cursors stand.

use super::id::Id;
use std::collections::VecDeque;

/// A place in the log: how many events were ever appended before it.
pub(crate) type Cursor = u64;

/// What asks for all that is kept, in place of an id.
pub(crate) const EARLIEST: &str = "earliest";

pub(crate) struct History {
    frames: VecDeque<Frame>,
    first: Cursor,
    bytes: usize,
    /// The newest id that is not kept any more; before anything was forgotten, the moment the log
    /// began.
    forgotten: Id,
}

struct Frame {
    id: Id,
    bytes: Box<[u8]>,
}

/// Where a client that comes back goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resumption {
    pub(crate) cursor: Cursor,
    /// Whether something between the id it named and the cursor may have been lost.
    pub(crate) gap: bool,
}

impl History {
    pub(crate) fn new(began: Id) -> History {
        History { frames: VecDeque::new(), first: 0, bytes: 0, forgotten: began }
    }

    /// The oldest place that can still be read from.
    pub(crate) fn first(&self) -> Cursor {
        self.first
    }

    /// The place of the next event.
    pub(crate) fn end(&self) -> Cursor {
        self.first + self.frames.len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Bytes of all frames, as they stand on the wire.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn first_id(&self) -> Option<Id> {
        self.frames.front().map(|frame| frame.id)
    }

    pub(crate) fn last_id(&self) -> Option<Id> {
        self.frames.back().map(|frame| frame.id)
    }

    /// The last id that was ever in the log, or the moment it began.
    pub(crate) fn newest(&self) -> Id {
        self.last_id().unwrap_or(self.forgotten)
    }

    pub(crate) fn append(&mut self, id: Id, bytes: Box<[u8]>) {
        self.bytes += bytes.len();
        self.frames.push_back(Frame { id, bytes });
    }

    /// How far the log's beginning must move so that another `bytes` fit within the bounds.
    pub(crate) fn first_after(&self, bytes: usize, max_events: usize, max_bytes: usize) -> Cursor {
        let (mut events, mut total, mut first) =
            (self.frames.len() + 1, self.bytes + bytes, self.first);
        for frame in &self.frames {
            if events <= max_events && total <= max_bytes {
                break;
            }
            events -= 1;
            total -= frame.bytes.len();
            first += 1;
        }
        first
    }

    /// Forgets everything before `first`.
    pub(crate) fn forget_before(&mut self, first: Cursor) {
        while self.first < first
            && let Some(frame) = self.frames.pop_front()
        {
            self.first += 1;
            self.bytes -= frame.bytes.len();
            self.forgotten = frame.id;
        }
    }

    /// Where a client goes on that names the id it heard last. One that names none begins with the
    /// next event.
    ///
    /// | it names                                        | it gets                                    |
    /// |-------------------------------------------------|--------------------------------------------|
    /// | `earliest`                                      | all that is kept                           |
    /// | an id in the log, or the last one forgotten     | what came after it                         |
    /// | an id that lies between those in the log        | a gap, and what came after it              |
    /// | an older one, one of the future, any other text | a gap, and all that is kept                |
    pub(crate) fn resume(&self, last_event_id: Option<&str>) -> Resumption {
        let id = match last_event_id {
            None => {
                return Resumption { cursor: self.end(), gap: false };
            }
            Some(EARLIEST) => {
                return Resumption { cursor: self.first, gap: false };
            }
            Some(text) => Id::parse(text),
        };
        match id {
            Some(id) if id == self.forgotten => Resumption { cursor: self.first, gap: false },
            Some(id) if id > self.forgotten && self.last_id().is_some_and(|last| id <= last) => {
                let after = self.frames.partition_point(|frame| frame.id <= id);
                let known = after > 0 && self.frames[after - 1].id == id;
                Resumption { cursor: self.first + after as u64, gap: !known }
            }
            _ => Resumption { cursor: self.first, gap: true },
        }
    }

    /// Appends frames from `cursor` on, before `until` and at least one if there is any, as long as
    /// they fit in `max_bytes`.
    pub(crate) fn copy(&self, cursor: Cursor, until: Cursor, max_bytes: usize, batch: &mut Batch) {
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

/// Frames that stand behind each other in the log, in one piece, so that one write call sends them
/// all.
#[derive(Default)]
pub(crate) struct Batch {
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

    pub(crate) fn end(&self) -> Cursor {
        self.from + self.ends.len() as u64
    }

    /// What someone lacks who stands at `cursor` and is to have what stands before `until`.
    pub(crate) fn between(&self, cursor: Cursor, until: Cursor) -> &[u8] {
        &self.bytes[self.start(cursor)..self.start(until.max(cursor))]
    }

    pub(crate) fn from(&self) -> Cursor {
        self.from
    }

    /// Of someone who stood at `cursor` and took `taken` bytes: the rest of the frame he is in, and
    /// where he stands after it.
    pub(crate) fn split(&self, cursor: Cursor, taken: usize) -> (&[u8], Cursor) {
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
