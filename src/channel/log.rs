//! The log of a channel: where an event is committed before it exists.
//!
//! An event enters the history, and so reaches subscribers, only after it is committed, in the order in which it was
//! committed; the publisher is answered after that. So no client holds an id that the log does not have. What differs is
//! what commits: in memory nothing does.

use super::fanout;
use super::feed::{Feed, ROOM_DEADLINE};
use super::id::Id;
use super::publication::{Publication, PublishError};
use std::sync::Arc;

#[derive(Clone)]
pub(super) enum Log {
    Memory,
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
        }
    }
}
