//! The directory of all journals: `.lock`, `.forgotten`, and a directory for each channel by its name.

use super::counters::Counters;
use super::feed::Hub;
use super::id::Id;
use super::limits::{Limits, is_name};
use super::recovery::{Recovered, malformed};
use super::segment::{self, Segment};
use crate::http::lock::hold;
use crate::http::log;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// No channel has a name that begins with a dot.
const LOCK: &str = ".lock";
/// An event stream of one block without data, which has an id.
const FORGOTTEN: &str = ".forgotten";
const NEW_FORGOTTEN: &str = ".forgotten.new";

/// How much can be lost with the power while syncs come at an interval.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// When a journal waits until the disk has what it wrote. What a publisher was answered survives the end of the process
/// in any case: the system has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JournalSync {
    /// Before a publisher is answered: what it was answered survives a loss of power. All that publish at the same time
    /// wait together.
    Always,
    /// Once a second: a loss of power costs at most about a second.
    #[default]
    Interval,
    /// The system decides: a loss of power can cost more.
    Never,
}

pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) sync: JournalSync,
    hub: Arc<Hub>,
    /// The segments that wait for the interval to pass.
    dirty: Mutex<Vec<Arc<Segment>>>,
    /// What failed since it was last told.
    failure: Mutex<Option<String>>,
    /// What stands in `.forgotten`. The lock is for this file alone, and held while it is written.
    forgotten: Mutex<Option<Id>>,
    /// No other process uses the directory while this one is open.
    _lock: File,
}

impl Directory {
    /// Creates the directory if it does not exist, and locks it.
    pub(super) fn open(path: PathBuf, sync: JournalSync, hub: &Arc<Hub>) -> io::Result<Directory> {
        let cannot_write =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot write to the journal {path:?}: {error}"));
        if !path.is_dir() {
            segment::create_directory(&path).map_err(cannot_write)?;
            let whole = fs::canonicalize(&path)?;
            if let Some(parent) = whole.parent().filter(|_| sync != JournalSync::Never) {
                segment::sync_directory(parent)?;
            }
        }
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).open(path.join(LOCK));
        let lock = try_lock(lock.map_err(cannot_write)?, &path)?;
        if path.join(LOCK.to_uppercase()).exists() {
            let what = "its file system takes a for A, but the names of channels do not; use another one";
            return Err(malformed(&path, what));
        }
        let forgotten = read_forgotten(&path)?;
        let hub = Arc::clone(hub);
        hub.ids.issue_above(forgotten.unwrap_or(hub.ids.last()));
        let (dirty, failure, forgotten) = (Mutex::default(), Mutex::default(), forgotten.into());
        Ok(Directory { path, sync, hub, dirty, failure, forgotten, _lock: lock })
    }

    /// Starts the thread that syncs at the interval, and tells what failed.
    pub(super) fn start(self: &Arc<Directory>) -> io::Result<JoinHandle<()>> {
        let directory = Arc::clone(self);
        thread::Builder::new().name("journal".into()).spawn(move || {
            loop {
                let is_last = directory.hub.is_stopped();
                directory.sync_dirty();
                // Not in the head of the block, where the lock would be held to its end.
                let failure = hold(&directory.failure).take();
                if let Some(failure) = failure {
                    log::say(&failure);
                }
                if is_last {
                    return;
                }
                thread::park_timeout(SYNC_INTERVAL);
            }
        })
    }

    fn sync_dirty(&self) {
        // Not in the head of the loop: publishers would wait for the lock until the disk has all.
        let dirty = take(&mut *hold(&self.dirty));
        for segment in dirty {
            segment.is_dirty.store(false, SeqCst);
            if let Err(error) = segment.sync(&self.hub.counters) {
                self.failed("cannot sync; the last second is at risk", &self.path, &error);
            }
        }
    }

    /// Something was written to the segment.
    pub(super) fn written(&self, segment: &Arc<Segment>) -> io::Result<()> {
        match self.sync {
            JournalSync::Always => return segment.sync(&self.hub.counters),
            JournalSync::Interval if !segment.is_dirty.swap(true, SeqCst) => {
                hold(&self.dirty).push(Arc::clone(segment));
            }
            JournalSync::Interval | JournalSync::Never => {}
        }
        Ok(())
    }

    /// The counters, if new files are synced.
    pub(super) fn syncs(&self) -> Option<&Counters> {
        (self.sync != JournalSync::Never).then_some(&self.hub.counters)
    }

    /// Counts a failure. The thread tells it: one a second is enough.
    pub(super) fn failed(&self, what: &str, path: &Path, error: &io::Error) {
        self.hub.counters.journal_errors.fetch_add(1, Relaxed);
        let failure = format!("the journal {path:?} {what}: {error}");
        hold(&self.failure).get_or_insert(failure);
    }

    /// No event of a channel that was removed has a larger id.
    pub(super) fn forgotten(&self) -> Id {
        hold(&self.forgotten).unwrap_or(Id::ZERO)
    }

    /// No event of a channel that is removed has a larger id: new channels start after it, also after a restart.
    pub(super) fn forget(&self, id: Id) -> io::Result<()> {
        let mut forgotten = hold(&self.forgotten);
        if forgotten.is_some_and(|before| before >= id) {
            return Ok(());
        }
        let (new, path) = (self.path.join(NEW_FORGOTTEN), self.path.join(FORGOTTEN));
        segment::write_new(&new, &path, &segment::header(id), self.syncs())?;
        *forgotten = Some(id);
        Ok(())
    }
}

fn try_lock(lock: File, path: &Path) -> io::Result<File> {
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let sentence = format!("another process uses the journal {path:?}; stop it first");
            Err(io::Error::new(ErrorKind::ResourceBusy, sentence))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read_forgotten(path: &Path) -> io::Result<Option<Id>> {
    let path = path.join(FORGOTTEN);
    match fs::read(&path) {
        Ok(bytes) => segment::Reader::new(&bytes).header().map_err(|what| malformed(&path, what)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a journal holds of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSummary {
    /// The name of the channel.
    pub channel: String,
    /// How many events it has.
    pub events: usize,
    /// Their bytes, as they stand on the wire, and those of their keys.
    pub bytes: usize,
    /// The id of the oldest one.
    pub first_id: Option<String>,
    /// The id of the newest one.
    pub last_id: Option<String>,
    /// Whether the channel is completed, and nothing was published since.
    pub completed: bool,
    /// What a crash has left of a record after the last whole one. A server that starts here cuts it off.
    pub torn_bytes: u64,
}

/// Reads a journal that no server uses, and changes nothing.
///
/// # Errors
/// The sentence with which a server would refuse to start.
pub fn inspect_journal(path: &Path) -> io::Result<Vec<JournalSummary>> {
    let _lock = File::open(path.join(LOCK)).ok().map(|lock| try_lock(lock, path)).transpose()?;
    read_forgotten(path)?;
    let all = Limits { history_events: usize::MAX, history_bytes: usize::MAX, ..Limits::default() };
    recover(path, &all, |channel, recovered| JournalSummary {
        channel,
        events: recovered.history.end() as usize,
        bytes: recovered.history.bytes,
        first_id: recovered.history.first_id().map(|id| id.to_string()),
        last_id: recovered.history.last_id().map(|id| id.to_string()),
        completed: recovered.is_completed,
        torn_bytes: recovered.torn_bytes,
    })
}

/// What the journals in a directory hold, by the name of the channel.
///
/// # Errors
/// As [`Recovered::read`].
pub(super) fn recover<T>(
    path: &Path,
    limits: &Limits,
    mut take: impl FnMut(String, Recovered) -> T,
) -> io::Result<Vec<T>> {
    let mut channels = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Some(LOCK | FORGOTTEN | NEW_FORGOTTEN) => {}
            Some(name) if is_name(name) && entry.file_type()?.is_dir() => {
                channels.insert(name.to_owned());
            }
            _ => return Err(malformed(&entry.path(), "this is not part of a journal")),
        }
    }
    let (mut all, mut buffer) = (Vec::new(), Vec::new());
    for channel in channels {
        let recovered = Recovered::read(&path.join(&channel), limits, &mut buffer)?;
        all.extend(recovered.map(|recovered| take(channel, recovered)));
    }
    Ok(all)
}
