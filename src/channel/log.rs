//! The log of a channel: where an event is committed before it exists.
//!
//! An event enters the history, and so reaches subscribers, only after it is committed, in the order in which it was
//! committed; the publisher is answered after that. So no client holds an id that the log does not have. A log in
//! memory needs no commit.

use super::directory::{self, Directory, JournalSync};
use super::fanout;
use super::feed::{Feed, Hub};
use super::history::History;
use super::hub::ROOM_DEADLINE;
use super::id::Id;
use super::journal::Journal;
use super::mirror;
use super::publication::{Publication, PublishError};
use super::recovery::Recovered;
use crate::redis::{self, Redis, Stream};
use std::io;
use std::mem::replace;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a publisher or a subscriber waits in all: for another publisher with its key, and for Redis.
pub(super) const LOG_DEADLINE: Duration = Duration::from_secs(2);

/// Where the logs of all channels are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// A restart forgets them, and clients that come back are told a gap.
    #[default]
    Memory,
    /// In files, which are event streams: `DIRECTORY/CHANNEL/ID.events`. After a restart, whatever ended the process, each
    /// channel goes on where it was.
    Journal {
        /// It is created if it does not exist, but its parent must. One process at a time has it.
        directory: PathBuf,
        /// What a loss of power can cost.
        sync: JournalSync,
    },
    /// In Redis, for any number of servers: a client may come back to each of them. A server keeps a copy of each channel
    /// that it has subscribers of, or that it was asked to publish on in the last minute.
    Redis(redis::Options),
}

/// The open logs.
pub(super) enum Logs {
    Memory,
    Journal(Arc<Directory>),
    Redis(Arc<Redis>),
}

/// A channel that an earlier process has left.
pub(super) struct Restored {
    pub(super) name: String,
    pub(super) log: Log,
    pub(super) history: History,
    pub(super) is_completed: bool,
}

impl Logs {
    /// Opens the logs, and gives the channels that they hold. From then on each new id is larger than those that are there.
    pub(super) fn open(storage: Storage, hub: &Arc<Hub>) -> io::Result<(Logs, Vec<Restored>)> {
        let (directory, sync) = match storage {
            Storage::Memory => return Ok((Logs::Memory, Vec::new())),
            Storage::Journal { directory, sync } => (directory, sync),
            Storage::Redis(options) => {
                hub.ids.mark_shared();
                let redis = Redis::open(options, mirror::bounds(&hub.limits))?;
                return Ok((Logs::Redis(redis), Vec::new()));
            }
        };
        let directory = Arc::new(Directory::open(directory, sync, hub)?);
        // All is read before anything is changed.
        let all = directory::recover(&directory.path, &hub.limits, |name, it| (name, it))?;
        let restore = |(name, mut recovered): (String, Recovered)| {
            let history = replace(&mut recovered.history, History::new(hub.ids.last()));
            let is_completed = recovered.is_completed;
            let newest = recovered.segments.iter().map(|segment| segment.name).max();
            hub.ids.issue_above(newest.unwrap_or(history.newest()).max(history.newest()));
            let journal = Journal::resume(&directory, &name, recovered)?;
            Ok(Restored { name, log: Log::Journal(Arc::new(journal)), history, is_completed })
        };
        let restored = all.into_iter().map(restore).collect::<io::Result<_>>()?;
        Ok((Logs::Journal(directory), restored))
    }

    /// Starts the thread that the logs need.
    pub(super) fn start(&self) -> io::Result<Option<JoinHandle<()>>> {
        match self {
            Logs::Memory => Ok(None),
            Logs::Journal(directory) => directory.start().map(Some),
            Logs::Redis(redis) => redis.start().map(Some),
        }
    }

    /// Ends the thread, and what waits for it.
    pub(super) fn stop(&self) {
        if let Logs::Redis(redis) = self {
            redis.stop();
        }
    }

    pub(super) fn redis(&self) -> Option<redis::Figures> {
        if let Logs::Redis(redis) = self { Some(redis.figures()) } else { None }
    }

    /// No event has a larger id that was in a channel which the logs do not hold any more.
    pub(super) fn forgotten(&self, hub: &Hub) -> Id {
        match self {
            Logs::Memory | Logs::Redis(_) => hub.ids.last(),
            Logs::Journal(directory) => directory.forgotten(),
        }
    }

    /// The log of a new channel.
    pub(super) fn log(&self, feed: &Arc<Feed>) -> Log {
        let name = &feed.members.name;
        match self {
            Logs::Memory => Log::Memory,
            Logs::Journal(directory) => Log::Journal(Arc::new(Journal::new(directory, name))),
            Logs::Redis(redis) => {
                let mirror: Weak<dyn redis::Mirror> = Arc::<Feed>::downgrade(feed);
                Log::Redis(Arc::new(redis.stream(name, mirror)))
            }
        }
    }
}

/// The log of one channel.
#[derive(Clone)]
pub(super) enum Log {
    Memory,
    Journal(Arc<Journal>),
    Redis(Arc<Stream>),
}

impl Log {
    /// Commits an event, or without one that the channel is completed, and brings it into the history. Returns its id. What
    /// is there already, by its key or as a completion, is not committed again. The deadline is for Redis.
    pub(super) fn commit(
        &self,
        feed: &Arc<Feed>,
        publication: Option<Publication>,
        deadline: Instant,
    ) -> Result<Id, PublishError> {
        match self {
            Log::Memory => commit_to_memory(feed, publication),
            Log::Journal(journal) => journal.commit(feed, publication),
            Log::Redis(stream) => mirror::commit(stream, feed, publication, deadline),
        }
    }

    /// Waits until the history knows what came after this id; `None` when that takes longer. Returns whether the history
    /// has all that there is now: otherwise another server may have sent more, or completed the channel.
    pub(super) fn follow(&self, feed: &Feed, last_event_id: Option<&str>, deadline: Instant) -> Option<bool> {
        match self {
            Log::Memory | Log::Journal(_) => Some(true),
            Log::Redis(stream) => mirror::follow(stream, feed, last_event_id, deadline).ok(),
        }
    }

    /// The channel was removed from the table, and has no user: what the log holds of it is deleted. Not to be called
    /// under a lock.
    pub(super) fn discard(&self, feed: &Feed) {
        match self {
            // What Redis has is for other servers, too.
            Log::Memory | Log::Redis(_) => {}
            Log::Journal(journal) => {
                let newest = feed.lock().history.newest();
                journal.discard(feed.members.has_begun().then_some(newest));
            }
        }
    }

    /// Waits until the history has all that is in the log now: other servers may have added to it.
    pub(super) fn refresh(&self, deadline: Instant) -> Result<(), PublishError> {
        if let Log::Redis(stream) = self { Ok(stream.refresh(deadline)?) } else { Ok(()) }
    }
}

fn commit_to_memory(feed: &Arc<Feed>, publication: Option<Publication>) -> Result<Id, PublishError> {
    let mut state = feed.lock();
    if let Some(id) = state.find(publication.as_ref())? {
        return Ok(id);
    }
    let Some(publication) = publication else {
        let issuing = (!state.views.is_empty()).then(|| feed.hub.order.issue(&feed.hub.ids));
        // Without views, ids are for events alone: a poll comes back with the last of them.
        let id = if issuing.is_some() { feed.hub.ids.next() } else { state.history.newest() };
        feed.complete(&mut state, id);
        drop(issuing);
        feed.notify_lanes(state);
        return Ok(id);
    };
    state = feed.make_room(state, publication.bytes, ROOM_DEADLINE);
    // The lock was free while it waited for room.
    if let Some(id) = publication.find_in(&state.history)? {
        return Ok(id);
    }
    // Views wait with larger ids for this event.
    let issuing = (!state.views.is_empty()).then(|| feed.hub.order.issue(&feed.hub.ids));
    let id = feed.hub.ids.next();
    feed.append(&mut state, id, publication.frame(id), publication.key);
    let has_views = issuing.is_some();
    drop(issuing);
    fanout::tell(feed, state);
    if has_views {
        feed.wait_for_views(ROOM_DEADLINE);
    }
    Ok(id)
}
