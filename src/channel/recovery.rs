//! Reads the journal of a channel after a restart. Nothing is changed here.

use super::history::History;
use super::id::Id;
use super::limits::Limits;
use super::segment::{self, Reader, Record};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

/// What a journal holds.
pub(super) struct Recovered {
    pub(super) history: History,
    /// Whether the channel is completed, and nothing was published since.
    pub(super) is_completed: bool,
    /// The segments, from the oldest to the newest.
    pub(super) segments: Vec<Old>,
    /// Where the last whole record of the newest one ends; `None` if it has no whole header.
    pub(super) newest: Option<u64>,
    /// Bytes after it.
    pub(super) torn_bytes: u64,
}

/// A segment by its name.
pub(super) struct Old {
    pub(super) name: Id,
    /// The id in its header. Once the history starts there or later, no segment before it is needed.
    pub(super) forgotten: Id,
}

impl Recovered {
    /// Reads the segments in a directory, each into `buffer`; `None` if there are none.
    ///
    /// # Errors
    /// A sentence with the path of what is not part of a journal, or has ids that do not grow.
    pub(super) fn read(directory: &Path, limits: &Limits, buffer: &mut Vec<u8>) -> io::Result<Option<Recovered>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            match name.to_str().map(|name| (name, segment::parse_name(name))) {
                Some((_, Some(id))) => names.push(id),
                Some((segment::NEW, _)) => {}
                _ => return Err(malformed(&directory.join(name), "this is not part of a journal")),
            }
        }
        names.sort();
        let Some(&first) = names.first() else { return Ok(None) };
        let mut recovered = Recovered {
            history: History::new(first),
            is_completed: false,
            segments: Vec::new(),
            newest: None,
            torn_bytes: 0,
        };
        for name in names {
            let path = segment::path(directory, name);
            buffer.clear();
            File::open(&path)?.read_to_end(buffer)?;
            recovered.take_segment(&path, name, buffer, limits)?;
        }
        Ok(Some(recovered))
    }

    fn take_segment(&mut self, path: &Path, name: Id, bytes: &[u8], limits: &Limits) -> io::Result<()> {
        let mut reader = Reader::new(bytes);
        let forgotten = reader.header().map_err(|what| malformed(path, what))?;
        self.segments.push(Old { name, forgotten: forgotten.unwrap_or(name) });
        (self.newest, self.torn_bytes) = (None, bytes.len() as u64);
        let Some(forgotten) = forgotten else { return Ok(()) };
        // Either a segment goes on where the one before ended, or it stands for all before it: the one before could not
        // be written any more, or an end of it was lost with the power.
        if forgotten != self.history.newest() {
            (self.history, self.is_completed) = (History::new(forgotten), false);
        }
        let mut at = reader.at;
        while let Some(record) = reader.next().map_err(|what| at_byte(path, at, what))? {
            self.take(record, limits).map_err(|what| at_byte(path, at, what))?;
            at = reader.at;
        }
        (self.newest, self.torn_bytes) = (Some(at as u64), (bytes.len() - at) as u64);
        Ok(())
    }

    fn take(&mut self, record: Record<'_>, limits: &Limits) -> Result<(), &'static str> {
        let Record::Event { id, key, frame } = record else {
            self.is_completed = true;
            return Ok(());
        };
        let history = &mut self.history;
        if id <= history.newest() {
            return Err("the id of this event is not larger than the one before");
        }
        let bytes = frame.len() + key.map_or(0, str::len);
        let first = history.first_after(bytes, limits.history_events, limits.history_bytes);
        history.forget_before(first);
        history.append(id, frame.into(), key.map(Arc::from));
        self.is_completed = false;
        Ok(())
    }
}

fn at_byte(path: &Path, at: usize, what: &str) -> io::Error {
    malformed(path, &format!("at byte {at}: {what}"))
}

pub(super) fn malformed(path: &Path, what: &str) -> io::Error {
    let sentence = format!("{path:?}: {what}; newswire has changed nothing");
    io::Error::new(ErrorKind::InvalidData, sentence)
}
