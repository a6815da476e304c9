//! The journal of one channel: an event is committed when it is in a file.
//!
//! There is no thread that writes. A publisher puts its event into the queue. If no other publisher is writing, it becomes
//! the leader: it takes all that waits and writes it with one call, so that publishers at the same time share one write
//! and one sync (group commit). Then it appends the batch to the history, and wakes the others.

use super::directory::{Directory, JournalSync};
use super::fanout;
use super::feed::{Feed, State};
use super::hub::ROOM_DEADLINE;
use super::id::Id;
use super::publication::{Publication, PublishError};
use super::recovery::{Old, Recovered};
use super::segment::{self, Segment};
use crate::http::lock::hold;
use std::fs;
use std::io::{self, ErrorKind::NotFound};
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

pub(super) struct Journal {
    directory: Arc<Directory>,
    /// The segments are here.
    path: PathBuf,
    queue: Mutex<Queue>,
    /// A leader is done.
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    /// What is to be committed next: events, or the completion of the channel.
    waiting: Vec<Option<Publication>>,
    bytes: usize,
    /// Where those that wait find the outcome.
    outcome: Arc<Outcome>,
    /// How many publishers sleep.
    asleep: usize,
    /// `None` while a leader works.
    writer: Option<Writer>,
}

/// Of a batch: the id of each of its events, in their order.
type Outcome = OnceLock<Result<Vec<Id>, PublishError>>;

/// How often a publisher lets other threads run before it sleeps. Without a sync, the leader is done sooner than a thread
/// falls asleep and is woken, and eight publishers would do little else.
const YIELDS: usize = 16;

/// What only the leader uses.
#[derive(Default)]
struct Writer {
    segments: Vec<Old>,
    /// The newest of them. Without one, the next commit begins one.
    current: Option<Arc<Segment>>,
    /// Its bytes.
    length: u64,
}

impl Journal {
    pub(super) fn new(directory: &Arc<Directory>, name: &str) -> Journal {
        Journal::with(directory, name, Writer::default())
    }

    /// Goes on with what was recovered. What a crash has torn is cut off.
    pub(super) fn resume(directory: &Arc<Directory>, name: &str, recovered: Recovered) -> io::Result<Journal> {
        let path = directory.path.join(name);
        let newest = recovered.segments.last().zip(recovered.newest);
        let length = recovered.newest.unwrap_or_default();
        let open = |(old, _): (&Old, _)| Segment::open(&path, old.name, length).map(Arc::new);
        let current = newest.map(open).transpose()?;
        // A client must not get what a loss of power could still undo.
        if let Some((segment, counters)) = current.as_ref().zip(directory.syncs()) {
            segment.sync(counters)?;
        }
        let writer = Writer { segments: recovered.segments, current, length };
        Ok(Journal::with(directory, name, writer))
    }

    fn with(directory: &Arc<Directory>, name: &str, writer: Writer) -> Journal {
        let queue = Queue { writer: Some(writer), ..Queue::default() };
        let path = directory.path.join(name);
        let directory = Arc::clone(directory);
        Journal { directory, path, queue: queue.into(), done: Condvar::new() }
    }

    /// Commits an event, or that the channel is completed, as each log does.
    pub(super) fn commit(&self, feed: &Arc<Feed>, publication: Option<Publication>) -> Result<Id, PublishError> {
        let mut queue = hold(&self.queue);
        let bytes = publication.as_ref().map_or(0, |publication| publication.bytes);
        let history_bytes = feed.hub.limits.history_bytes;
        // A batch is bounded.
        while queue.bytes + bytes > history_bytes && !queue.waiting.is_empty() {
            queue = self.sleep(queue);
        }
        // Completions alone would fill the disk: no event would push them out.
        if publication.as_ref().is_none_or(|publication| publication.key.is_some())
            && let Some(id) = feed.lock().find(publication.as_ref())?
        {
            return Ok(id);
        }
        let place = queue.waiting.len();
        queue.bytes += bytes;
        queue.waiting.push(publication);
        let outcome = Arc::clone(&queue.outcome);
        let mut yields = if self.directory.sync == JournalSync::Always { 0 } else { YIELDS };
        loop {
            if let Some(outcome) = outcome.get() {
                return outcome.as_ref().map(|ids| ids[place]).map_err(|error| *error);
            }
            queue = match queue.writer.take() {
                Some(writer) => self.lead(feed, queue, writer),
                None if yields > 0 => {
                    yields -= 1;
                    drop(queue);
                    thread::yield_now();
                    hold(&self.queue)
                }
                None => self.sleep(queue),
            };
        }
    }

    /// Until a leader is done.
    fn sleep<'q>(&self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        queue.asleep += 1;
        let mut queue = self.done.wait(queue).unwrap_or_else(PoisonError::into_inner);
        queue.asleep -= 1;
        queue
    }

    /// Commits all that waits.
    fn lead<'q>(
        &'q self,
        feed: &Arc<Feed>,
        mut queue: MutexGuard<'q, Queue>,
        mut writer: Writer,
    ) -> MutexGuard<'q, Queue> {
        let (batch, outcome) = (take(&mut queue.waiting), take(&mut queue.outcome));
        queue.bytes = 0;
        drop(queue);
        let write = AssertUnwindSafe(|| self.write(feed, &mut writer, batch));
        let written = catch_unwind(write).unwrap_or_else(|_| {
            writer.current = None;
            Err(PublishError::Unknown)
        });
        let mut queue = hold(&self.queue);
        // Nothing else sets it.
        let _ = outcome.set(written);
        queue.writer = Some(writer);
        // It is a system call, also when no thread waits. A thread that wakes needs the queue.
        let wakes = queue.asleep > 0;
        drop(queue);
        if wakes {
            self.done.notify_all();
        }
        // Not before: a callback of a subscriber that leaves may publish here, and would wait for this thread.
        fanout::tell(feed, feed.lock());
        hold(&self.queue)
    }

    /// Writes a batch, and then appends it to the history. Returns the id of each event.
    fn write(
        &self,
        feed: &Arc<Feed>,
        writer: &mut Writer,
        batch: Vec<Option<Publication>>,
    ) -> Result<Vec<Id>, PublishError> {
        let segment = self.segment(feed, writer).map_err(|error| {
            self.directory.failed("has no new segment", &self.path, &error);
            PublishError::Unavailable
        })?;
        let (mut committed, mut bytes) = (Vec::new(), Vec::new());
        // Until the views have these events, they show no larger one. One may begin while the bytes are written.
        let issuing = feed.hub.order.issue(&feed.hub.ids);
        for publication in batch {
            // Also a completion has one: views show it in this place.
            let id = feed.hub.ids.next();
            let event = publication.map(|publication| {
                let frame = publication.frame(id);
                segment::write_event(&mut bytes, publication.key.as_deref(), &frame);
                (frame, publication.key)
            });
            if event.is_none() {
                segment::write_completion(&mut bytes);
            }
            committed.push((id, event));
        }
        self.write_bytes(&segment, &bytes, writer.length)?;
        writer.length += bytes.len() as u64;
        drop(bytes);
        let ids = committed.iter().map(|(id, _)| *id).collect();
        feed.extend(committed, ROOM_DEADLINE);
        drop(issuing);
        feed.wait_for_views(ROOM_DEADLINE);
        Ok(ids)
    }

    fn write_bytes(&self, segment: &Arc<Segment>, bytes: &[u8], length: u64) -> Result<(), PublishError> {
        let written = segment.append(bytes, length).and_then(|()| self.directory.written(segment));
        written.map_err(|error| {
            self.directory.failed("cannot be written", &self.path, &error);
            if !segment.is_poisoned.load(SeqCst) {
                return PublishError::Unavailable;
            }
            // Subscribers have not got the batch, and should not get it after a restart.
            let _ = segment.cut(length);
            PublishError::Unknown
        })
    }

    /// The segment to write to: a new one when the newest is full, or was poisoned.
    fn segment(&self, feed: &Arc<Feed>, writer: &mut Writer) -> io::Result<Arc<Segment>> {
        let (limits, counters) = (&feed.hub.limits, &feed.hub.counters);
        // Not by events: a new segment waits for the disk three times.
        let is_full = writer.length >= limits.history_bytes as u64;
        if let Some(current) = &writer.current {
            if !is_full && !current.is_poisoned.load(SeqCst) {
                return Ok(Arc::clone(current));
            }
            // First sync this one: recovery takes a torn segment for the newest.
            if self.directory.sync == JournalSync::Interval {
                let _ = current.sync(counters);
            }
            if current.is_poisoned.load(SeqCst) {
                counters.journal_poisoned.fetch_add(1, Relaxed);
                writer.current = None;
            }
        }
        // What a poisoned segment holds is uncertain, so the new one stands for all before it: memory is the truth.
        let stands_alone = writer.current.is_none();
        let (forgotten, newest, content) = {
            let state = feed.lock();
            let history = &state.history;
            (history.forgotten, history.newest(), stands_alone.then(|| whole(&state)))
        };
        let content = content.unwrap_or_else(|| segment::header(newest));
        let name = feed.hub.ids.next();
        let create = || {
            if writer.segments.is_empty() && !self.path.is_dir() {
                segment::create_directory(&self.path)?;
                if self.directory.syncs().is_some() {
                    segment::sync_directory(&self.directory.path)?;
                }
            }
            Segment::create(&self.path, name, &content, self.directory.syncs())
        };
        // A channel of the same name that was evicted may just have removed the directory.
        let created = create().or_else(|error| if error.kind() == NotFound { create() } else { Err(error) });
        let mut segment = created?;
        if let Some(current) = &writer.current {
            segment.is_poisoned = Arc::clone(&current.is_poisoned);
        }
        let segment = Arc::new(segment);
        let starts_at = if stands_alone { forgotten } else { newest };
        writer.segments.push(Old { name, forgotten: starts_at });
        writer.current = Some(Arc::clone(&segment));
        writer.length = content.len() as u64;
        self.delete_old(writer, forgotten);
        Ok(segment)
    }

    /// Deletes the segments before the newest one that holds all after `forgotten`, from the oldest to the newest.
    fn delete_old(&self, writer: &mut Writer, forgotten: Id) {
        let needed = writer.segments.iter().rposition(|segment| segment.forgotten <= forgotten);
        for old in writer.segments.drain(..needed.unwrap_or(0)) {
            // What remains does no harm: recovery takes the newest that is whole.
            let _ = fs::remove_file(segment::path(&self.path, old.name));
        }
    }

    /// Deletes the journal of a channel that has no users. With `forgotten` it had events, and none with a larger id.
    pub(super) fn discard(&self, forgotten: Option<Id>) {
        let Some(mut writer) = hold(&self.queue).writer.take() else { return };
        let is_noted = forgotten.map_or(Ok(()), |id| self.directory.forget(id));
        // Otherwise the channel comes back after a restart, and that does no harm.
        if let Err(error) = is_noted {
            return self.directory.failed("cannot be deleted", &self.path, &error);
        }
        for old in writer.segments.drain(..) {
            let _ = fs::remove_file(segment::path(&self.path, old.name));
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// A segment with all that the history has.
fn whole(state: &State) -> Vec<u8> {
    let mut content = segment::header(state.history.forgotten);
    for (key, frame) in state.history.events() {
        segment::write_event(&mut content, key, frame);
    }
    if state.is_completed() {
        segment::write_completion(&mut content);
    }
    content
}
