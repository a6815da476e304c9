//! The log of a channel: where an event is committed before it exists.
//!
//! An event enters the history, and so reaches subscribers, only after it is committed, in the order in which it was
//! committed; the publisher is answered after that. So no client holds an id that the log does not have. What differs is
//! what commits: in memory nothing does.

use super::fanout;
use super::feed::{Feed, Hub, ROOM_DEADLINE};
use super::id::Id;
use super::mirror;
use super::publication::{Publication, PublishError};
use crate::redis::{self, Redis, Stream};
use std::io;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// Where the logs of all channels are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// A restart forgets them, and clients that come back are told a gap.
    #[default]
    Memory,
    /// In Redis, for any number of servers: a client may come back to each of them.
    Redis(redis::Options),
}

/// The same, open.
pub(super) enum Logs {
    Memory,
    Redis(Arc<Redis>),
}

impl Logs {
    /// Opens the logs, and starts the thread that they need.
    pub(super) fn open(storage: Storage, hub: &Hub) -> io::Result<(Logs, Option<JoinHandle<()>>)> {
        match storage {
            Storage::Memory => Ok((Logs::Memory, None)),
            Storage::Redis(options) => {
                let (redis, thread) = Redis::start(options, mirror::bounds(&hub.limits))?;
                Ok((Logs::Redis(redis), Some(thread)))
            }
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

    /// The log of a new channel.
    pub(super) fn log(&self, feed: &Arc<Feed>) -> Log {
        match self {
            Logs::Memory => Log::Memory,
            Logs::Redis(redis) => {
                let mirror: Weak<dyn redis::Mirror> = Arc::<Feed>::downgrade(feed);
                Log::Redis(Arc::new(redis.stream(&feed.members.name, mirror)))
            }
        }
    }
}

/// The log of one channel.
#[derive(Clone)]
pub(super) enum Log {
    Memory,
    Redis(Arc<Stream>),
}

impl Log {
    /// Commits an event. Returns its id; with a key under which the same event is kept, the id of that one.
    pub(super) fn publish(
        &self,
        feed: &Arc<Feed>,
        publication: Publication,
    ) -> Result<Id, PublishError> {
        match self {
            Log::Memory => {
                let mut state = feed.lock();
                if let Some(id) = publication.find_in(&state.history)? {
                    return Ok(id);
                }
                state = feed.make_room(state, publication.bytes, ROOM_DEADLINE);
                // The lock was free while it waited for room.
                if let Some(id) = publication.find_in(&state.history)? {
                    return Ok(id);
                }
                let id = feed.hub.ids.next();
                feed.append(&mut state, id, publication.frame(id), publication.key);
                fanout::tell(feed, state);
                Ok(id)
            }
            Log::Redis(stream) => mirror::publish(stream, feed, &publication),
        }
    }

    /// Commits that the channel is completed.
    pub(super) fn complete(&self, feed: &Arc<Feed>) -> Result<(), PublishError> {
        match self {
            Log::Memory => {
                let mut state = feed.lock();
                feed.complete(&mut state);
                feed.notify_lanes(state);
                Ok(())
            }
            Log::Redis(stream) => mirror::complete(stream, feed),
        }
    }

    /// Waits until the history can say what a client lacks that names this id. `false` when it cannot soon.
    pub(super) fn follow(&self, feed: &Feed, last_event_id: Option<&str>) -> bool {
        match self {
            Log::Memory => true,
            Log::Redis(stream) => mirror::follow(stream, feed, last_event_id).is_ok(),
        }
    }
}
