//! A feed as the mirror of a stream in Redis. Only the thread that reads Redis appends to it, so that its order is that of
//! the stream.

use super::feed::Feed;
use super::id::Id;
use super::limits::Limits;
use super::members::Phase;
use super::publication::{Committed, Publication, PublishError, frame, is_key};
use crate::redis::{Bounds, Content, Entry, Failure, Mirror, Stream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the thread that reads waits for fan-out threads, for all entries that came in one piece: a thread that hangs
/// must not stop the other channels.
const READER_DEADLINE: Duration = Duration::from_millis(250);

pub(super) fn bounds(limits: &Limits) -> Bounds {
    let Limits { history_events, history_bytes, .. } = *limits;
    let is_id = |id: &str| Id::parse(id).is_some();
    Bounds { events: history_events, bytes: history_bytes, is_id, is_key }
}

pub(super) fn commit(
    stream: &Stream,
    feed: &Feed,
    publication: Option<Publication>,
    deadline: Instant,
) -> Result<Id, PublishError> {
    let key = publication.as_ref().and_then(|publication| publication.key.as_deref());
    match &publication {
        Some(Publication { key: None, .. }) => stream.follow(deadline)?,
        // Whether it is there already must be true now.
        _ => stream.refresh(deadline)?,
    }
    let oldest = {
        let state = feed.lock();
        if let Some(id) = state.find(publication.as_ref())? {
            return Ok(id);
        }
        state.history.first_id().map(|id| id.to_string())
    };
    let content = match &publication {
        None => Content::End,
        Some(event) => Content::Event { block: event.block.clone(), key: key.map(str::to_owned) },
    };
    let id = stream.add(&content, oldest.as_deref(), deadline)?;
    // Redis has it, but under an id that no channel can hold.
    let id = Id::parse(&id).ok_or(PublishError::Unknown)?;
    // The reader appends the event in a moment. Until then the table must not drop the channel.
    if !feed.members.has_begun() {
        let _state = feed.lock();
        if !feed.members.has_begun() {
            feed.members.set_phase(Phase::Begun);
        }
    }
    Ok(id)
}

/// Waits until the feed knows what came after this id. A client that seems to lack nothing, or has an id beyond the history,
/// may be ahead of this server; and a completion ends the client for good. So the stream is read again then. Returns
/// whether it was.
pub(super) fn follow(
    stream: &Stream,
    feed: &Feed,
    last_event_id: Option<&str>,
    deadline: Instant,
) -> Result<bool, Failure> {
    stream.follow(deadline)?;
    let asked = last_event_id.and_then(Id::parse);
    let (is_completed, last) = {
        let state = feed.lock();
        (state.is_completed(), state.history.last_id())
    };
    let is_last = asked.is_some_and(|id| last.is_none_or(|last| id >= last));
    let is_refreshed = is_last || is_completed;
    if is_refreshed {
        stream.refresh(deadline)?
    }
    Ok(is_refreshed)
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> PublishError {
        match failure {
            Failure::Down => PublishError::Unavailable,
            Failure::Unknown => PublishError::Unknown,
        }
    }
}

/// The reader has checked the ids and the sizes.
fn committed(entry: Entry) -> Option<Committed> {
    let id = Id::parse(&entry.id)?;
    Some(match entry.content {
        Content::End => (id, None),
        Content::Event { block, key } => (id, Some((frame(id, &block), key.map(Arc::from)))),
    })
}

impl Mirror for Feed {
    fn is_wanted(&self) -> bool {
        Feed::subscribers(self) > 0
    }

    fn extend(self: Arc<Feed>, entries: Vec<Entry>) {
        let committed = entries.into_iter().filter_map(committed).collect();
        let deadline = Instant::now() + READER_DEADLINE;
        Feed::extend(&self, committed, READER_DEADLINE);
        self.notify_lanes(self.lock());
        self.wait_for_views(deadline.saturating_duration_since(Instant::now()));
        if self.members.is_completed() {
            self.members.review();
        }
    }

    fn replace(self: Arc<Feed>, entries: Vec<Entry>, forgotten: Option<&str>) {
        let entries: Vec<_> = entries.into_iter().filter_map(committed).collect();
        let mut state = self.lock();
        // Without an older entry, only a client at the id before the first has lost nothing.
        let first = entries.first().map(|(id, _)| id.previous());
        let forgotten = forgotten.map(|id| Id::parse(id).or(first));
        state.history.reset(forgotten.unwrap_or(first).unwrap_or(Id::ZERO));
        state.completed_at = None;
        let is_empty = entries.is_empty();
        for (id, event) in entries {
            match event {
                None => (state.completed_at, state.completed_id) = (Some(state.history.end()), id),
                Some((frame, key)) => state.history.append(id, frame, key),
            }
        }
        let is_completed = state.is_completed();
        if !is_empty {
            self.members.set_phase(if is_completed { Phase::Completed } else { Phase::Begun });
        }
        self.restart_views(&state);
        self.changed(&state);
        self.notify_lanes(state);
        if is_completed {
            self.members.review();
        }
    }

    fn retire(self: Arc<Feed>) {
        let mut state = self.lock();
        state.history.reset(Id::ZERO);
        self.restart_views(&state);
        // The channel is as if it had not begun: what it had is in Redis.
        self.members.set_phase(Phase::Asked);
        drop(state);
        self.members.review();
    }
}
