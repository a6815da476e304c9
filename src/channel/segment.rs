//! A segment of a journal: a file that is an event stream.
//!
//! ```text
//! segment    = header *( event / completion )
//! header     = ": newswire journal 1" LF "id: " id LF LF     ; no event before the segment has a larger id
//! event      = [ ": key " key LF ] frame                     ; with its idempotency key
//! frame      = "id: " id LF *( field LF ) LF                 ; as it is sent
//! completion = "event: end" LF "data: the channel is completed" LF LF
//! ```
//!
//! A parser of event streams ignores the comments. The block of the header moves its last event ID, and is no event. A
//! completion has no id; an event has one.

use super::counters::Counters;
use super::id::Id;
use super::subscriber::END;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};

const VERSION: &str = ": newswire journal 1\n";
const KEY: &str = ": key ";

/// The name of a segment that is not whole yet. No id is like it.
pub(super) const NEW: &str = "new";
const EXTENSION: &str = ".events";

pub(super) fn header(forgotten: Id) -> Vec<u8> {
    format!("{VERSION}id: {forgotten}\n\n").into_bytes()
}

pub(super) fn write_event(bytes: &mut Vec<u8>, key: Option<&str>, frame: &[u8]) {
    if let Some(key) = key {
        bytes.extend([KEY, key, "\n"].map(str::as_bytes).concat());
    }
    bytes.extend_from_slice(frame);
}

pub(super) fn write_completion(bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(END);
}

pub(super) fn path(directory: &Path, name: Id) -> PathBuf {
    directory.join(format!("{name}{EXTENSION}"))
}

/// The id in the name of a segment. Names grow as ids do: they are the order of the segments.
pub(super) fn parse_name(name: &str) -> Option<Id> {
    Id::parse(name.strip_suffix(EXTENSION)?)
}

#[derive(Clone, Copy)]
pub(super) enum Record<'s> {
    Event { id: Id, key: Option<&'s str>, frame: &'s [u8] },
    Completion,
}

/// Reads the bytes of a segment.
pub(super) struct Reader<'s> {
    bytes: &'s [u8],
    /// What was read ends here.
    pub(super) at: usize,
}

impl<'s> Reader<'s> {
    pub(super) fn new(bytes: &'s [u8]) -> Reader<'s> {
        Reader { bytes, at: 0 }
    }

    /// The id in the header. `None` for a header that was not written to its end.
    pub(super) fn header(&mut self) -> Result<Option<Id>, &'static str> {
        let start = VERSION.len().min(self.bytes.len());
        let Some(block) = self.block() else {
            let is_begun = self.is_hole() || VERSION.as_bytes().starts_with(&self.bytes[..start]);
            return if is_begun { Ok(None) } else { Err(NO_SEGMENT) };
        };
        let id = block.strip_prefix(VERSION.as_bytes()).and_then(parse_id_line);
        id.map(|(id, _)| Some(id)).ok_or(NO_SEGMENT)
    }

    /// The next record; `None` where nothing whole follows. "Once the end of the file is reached, any pending data must
    /// be discarded" (HTML, 9.2.6).
    pub(super) fn next(&mut self) -> Result<Option<Record<'s>>, &'static str> {
        let Some(block) = self.block() else { return Ok(None) };
        if block == END {
            return Ok(Some(Record::Completion));
        }
        let (key, frame) = match block.strip_prefix(KEY.as_bytes()) {
            None => (None, block),
            Some(rest) => {
                let end = rest.iter().position(|&byte| byte == b'\n').ok_or(NO_RECORD)?;
                (Some(str::from_utf8(&rest[..end]).map_err(|_| NO_RECORD)?), &rest[end + 1..])
            }
        };
        let (id, _) = parse_id_line(frame).ok_or(NO_RECORD)?;
        Ok(Some(Record::Event { id, key, frame }))
    }

    /// The next block with its blank line.
    fn block(&mut self) -> Option<&'s [u8]> {
        if self.is_hole() {
            return None;
        }
        let rest = &self.bytes[self.at..];
        let (mut lines, mut end) = (rest, 0);
        // `skip_until` looks at many bytes at a time, and fails only where a reader does.
        while let Ok(length @ 1..) = lines.skip_until(b'\n') {
            end += length;
            if lines.starts_with(b"\n") && rest[..end].ends_with(b"\n") {
                self.at += end + 1;
                return Some(&rest[..=end]);
            }
        }
        None
    }

    /// After a loss of power, a file can have zeros where a write had not reached the disk.
    fn is_hole(&self) -> bool {
        self.bytes.get(self.at) == Some(&0)
    }
}

const NO_SEGMENT: &str = "this is not a segment of a journal of this version";
const NO_RECORD: &str = "this is not an event of a journal";

fn parse_id_line(block: &[u8]) -> Option<(Id, &[u8])> {
    let rest = block.strip_prefix(b"id: ")?;
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    Some((Id::parse(str::from_utf8(&rest[..end]).ok()?)?, &rest[end + 1..]))
}

/// A segment that is written.
pub(super) struct Segment {
    file: File,
    /// It waits to be synced.
    pub(super) is_dirty: AtomicBool,
    /// A write or a sync of it, or of one before it, has failed. Nothing is written to it any more: after a failed sync,
    /// the system may have dropped what it could not write, and a later sync reports success all the same.
    pub(super) is_poisoned: Arc<AtomicBool>,
}

impl Segment {
    /// A new one, which has its name only when it is whole: a crash at any moment leaves all of it or nothing.
    pub(super) fn create(directory: &Path, name: Id, content: &[u8], syncs: Option<&Counters>) -> io::Result<Segment> {
        let path = path(directory, name);
        let file = write_new(&directory.join(NEW), &path, content, syncs);
        file.map(Segment::from).inspect_err(|_| drop(fs::remove_file(&path)))
    }

    /// To go on with one that was recovered; what stands after `length` is cut off.
    pub(super) fn open(directory: &Path, name: Id, length: u64) -> io::Result<Segment> {
        let file = OpenOptions::new().append(true).open(path(directory, name))?;
        if file.metadata()?.len() > length {
            file.set_len(length)?;
        }
        Ok(Segment::from(file))
    }

    /// Appends a batch with one write. A part of it that a failed write has left is cut off. A full disk does no harm to
    /// the file beyond that; any other error poisons it.
    pub(super) fn append(&self, bytes: &[u8], length: u64) -> io::Result<()> {
        (&self.file).write_all(bytes).inspect_err(|error| {
            let is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            if self.cut(length).is_err() || !is_full {
                self.is_poisoned.store(true, SeqCst);
            }
        })
    }

    /// Cuts off what stands after `length`.
    pub(super) fn cut(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    /// Waits until the disk has what was written.
    pub(super) fn sync(&self, counters: &Counters) -> io::Result<()> {
        counters.journal_syncs.fetch_add(1, Relaxed);
        self.file.sync_data().inspect_err(|_| self.is_poisoned.store(true, SeqCst))
    }
}

impl From<File> for Segment {
    fn from(file: File) -> Segment {
        Segment { file, is_dirty: AtomicBool::new(false), is_poisoned: Arc::default() }
    }
}

/// For this user alone: a channel may need a key.
pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Writes a file under the name `new`, then gives it its name. With `syncs`, both are on the disk then.
pub(super) fn write_new(new: &Path, path: &Path, content: &[u8], syncs: Option<&Counters>) -> io::Result<File> {
    let _ = fs::remove_file(new);
    let mut file = OpenOptions::new().append(true).create_new(true).open(new)?;
    let written = file.write_all(content).and_then(|()| match syncs {
        Some(_) => file.sync_all(),
        None => Ok(()),
    });
    let renamed = written.and_then(|()| fs::rename(new, path));
    renamed.inspect_err(|_| drop(fs::remove_file(new)))?;
    if let (Some(counters), Some(directory)) = (syncs, path.parent()) {
        counters.journal_syncs.fetch_add(2, Relaxed);
        sync_directory(directory)?;
    }
    Ok(file)
}

/// Waits until the disk has the names in a directory.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
