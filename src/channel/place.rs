//! Views of channels in Redis, where each stream has ids of its own.
//!
//! Two events of two streams may have one id, and behind a failover the clock of Redis may be late: one id cannot say which
//! events of several streams came before it. So the id of an event in such a view has a part for each channel, in the order
//! of their names: the id of the last event of that channel, as `1795363109763-0,1795363109770-2`. With it every server finds
//! what a client lacks, and what is lost, channel by channel. The events of a channel stand in their order; between two
//! channels there is none that all servers know.

use super::asked::Asked;
use super::catch_up::{Filter, Start, catch_up, gap_event, is_lost, write};
use super::feed::{Feed, Joint, REPLAY_BYTES};
use super::history::{Batch, Cursor, History};
use super::id::Id;
use super::selection::shown;
use super::subscriber::{Departure, Subscriber};
use crate::http::lock::hold;
use crate::sse::json_string;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

impl Joint {
    pub(super) fn new(channels: Vec<Arc<Feed>>) -> Joint {
        Joint { place: Mutex::new(vec![Id::FIRST; channels.len()]), channels }
    }

    /// The number of a channel among the others.
    fn find(&self, channel: &Feed) -> Option<usize> {
        self.channels.iter().position(|it| std::ptr::eq(&**it, channel))
    }
}

/// The frame of an event as a view shows it, with the place behind the event as its id.
fn placed(place: &[Id], shown: &[u8]) -> Arc<[u8]> {
    let id: Vec<String> = place.iter().map(Id::to_string).collect();
    let own_id = shown.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    [format!("id: {}\n", id.join(",")).as_bytes(), &shown[own_id..]].concat().into()
}

impl Feed {
    fn joint(&self) -> Option<&Joint> {
        self.view.as_ref()?.joint.as_ref()
    }

    /// Makes the channels of the view feed it.
    pub(super) fn connect_joint(self: &Arc<Feed>) {
        let Some(joint) = self.joint() else { return };
        self.lock().history = History::new(Id::FIRST);
        for channel in &joint.channels {
            let mut state = channel.lock();
            state.show_in(Arc::downgrade(self));
            self.restart_joint(channel, state.history.newest());
        }
    }

    /// The history of a channel has begun anew behind this event. The subscribers of the view come back with their places,
    /// and are told what is lost. Called under the lock of the channel.
    pub(super) fn restart_joint(self: &Arc<Feed>, channel: &Feed, newest: Id) {
        let Some(joint) = self.joint() else { return };
        let mut state = self.lock();
        joint.find(channel).into_iter().for_each(|at| hold(&joint.place)[at] = newest);
        state.history.reset(Id::FIRST);
        self.changed(&state);
        self.notify_lanes(state);
    }

    /// Appends the next event of a channel to the view. Called under the lock of the channel.
    pub(super) fn show_joint(self: &Arc<Feed>, channel: &Feed, id: Id, shown: &[u8]) {
        let Some(joint) = self.joint() else { return };
        let state = self.lock();
        let frame = {
            let place = &mut *hold(&joint.place);
            joint.find(channel).into_iter().for_each(|at| place[at] = id);
            placed(place, shown)
        };
        // The history of the view is in the order in which the events came. Its ids only tell how old they are.
        let id = id.max(state.history.newest());
        self.append_shown(state, id, frame);
    }
}

/// Starts the stream of a client that comes back to a view, on the thread of its connection.
pub(super) fn begin(
    feed: &Arc<Feed>,
    joint: &Joint,
    mut subscriber: Subscriber,
    asked: &Asked,
    mut filter: Option<Filter>,
) -> Result<(), Departure> {
    subscriber.presence.join();
    let (mut replay, gap) = joint.replay(feed, asked);
    subscriber.write_blocking(gap.as_bytes())?;
    let mut batch = Batch::default();
    while replay.next(&mut batch)? {
        subscriber.cursor = 0;
        write(feed, &mut subscriber, &batch, filter.as_mut())?;
    }
    subscriber.cursor = replay.cursor;
    catch_up(feed, subscriber, filter)
}

/// The way from the place of a client to that of the view.
struct Replay<'j> {
    joint: &'j Joint,
    place: Vec<Id>,
    /// The same as positions in the histories of the channels.
    positions: Vec<Cursor>,
    until: Vec<Id>,
    /// The position in the history of the view behind `until`.
    cursor: Cursor,
}

impl Joint {
    /// The replay for a client, and the event that tells what it has lost.
    fn replay(&self, feed: &Feed, asked: &Asked) -> (Replay<'_>, String) {
        let (mut place, mut positions) = (Vec::new(), Vec::new());
        let (mut lost, mut oldest) = (Vec::new(), None);
        for (at, channel) in self.channels.iter().enumerate() {
            let mut state = channel.lock();
            channel.expire(&mut state);
            let history = &state.history;
            // Of a channel that has forgotten nothing, every server knows what stands right before the first event.
            let before_first = history.first_id().map(Id::previous);
            let before_first =
                before_first.filter(|id| [Id::FIRST, *id].contains(&history.forgotten));
            let start = match asked {
                Asked::After(text) => {
                    let ids: Vec<&str> = text.split(',').collect();
                    // An id of another view, or of a channel, says nothing of this one.
                    let own = if ids.len() == self.channels.len() { ids[at] } else { "" };
                    match before_first.filter(|id| Id::parse(own) == Some(*id)) {
                        Some(_) => Start::At(history.first),
                        None => Start::new(history, &feed.hub.ids, &Asked::After(own.to_owned())),
                    }
                }
                asked => Start::new(history, &feed.hub.ids, asked),
            };
            let (position, is_lost) = start.position(history);
            let before_first = before_first.filter(|_| position == history.first);
            place.push(before_first.unwrap_or_else(|| history.id_before(position)));
            positions.push(position);
            lost.extend(is_lost.then(|| json_string(&channel.members.name)));
            oldest = history.first_id().into_iter().chain(oldest).min();
        }
        // Taken behind those places: what is appended in between is part of the replay.
        let (until, cursor) = {
            let state = feed.lock();
            (hold(&self.place).clone(), state.history.end())
        };
        let mut gap = String::new();
        if !lost.is_empty() {
            feed.hub.counters.gaps.fetch_add(1, Relaxed);
            let lost = format!(",\"channels\":[{}]", lost.join(","));
            gap = gap_event(asked.text(), oldest, &lost);
        }
        (Replay { joint: self, place, positions, until, cursor }, gap)
    }
}

impl Replay<'_> {
    /// Fills the batch with the events that follow, those of all channels in the order of their ids. `false` when there are
    /// none.
    fn next(&mut self, batch: &mut Batch) -> Result<bool, Departure> {
        let (mut found, mut bytes) = (BTreeMap::new(), 0);
        // The smallest event that is left for the next round.
        let mut left = (Id::MAX, usize::MAX);
        for (at, channel) in self.joint.channels.iter().enumerate() {
            let state = channel.lock();
            if is_lost(self.positions[at], state.history.first) {
                return Err(Departure::Slow);
            }
            for (id, frame) in state.history.after(self.place[at]) {
                if id > self.until[at] || (id, at) > left {
                    break;
                }
                let frame = shown(&channel.members.name, frame);
                bytes += frame.len();
                found.insert((id, at), frame);
                while bytes > REPLAY_BYTES
                    && found.len() > 1
                    && let Some((key, frame)) = found.pop_last()
                {
                    bytes -= frame.len();
                    left = key;
                }
            }
        }
        let mut history = History::new(Id::FIRST);
        let is_empty = found.is_empty();
        for ((id, at), frame) in found {
            self.place[at] = id;
            self.positions[at] += 1;
            history.append_shared(id, placed(&self.place, &frame));
        }
        history.copy(0, Cursor::MAX, usize::MAX, batch);
        Ok(!is_empty)
    }
}
