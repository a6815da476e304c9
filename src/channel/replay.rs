//! What a client lacks, piece by piece.
//!
//! A view is a feed that other feeds fill. It is made for its first subscriber, and goes with the last one. It shows what is
//! appended while it exists. What a subscriber missed before is read from the histories of the channels, in rounds, so
//! that a busy channel does not push the events of a quiet one out. No lock is held for more than one history at a time.

use super::asked::Asked;
use super::feed::{Feed, Matching, State};
use super::history::{Batch, Cursor, History, REPLAY_BYTES};
use super::id::Id;
use super::limits::Limits;
use super::place::placed;
use super::selection::shown;
use super::start::Start;
use super::subscriber::Departure;
use crate::sse::{Event, json_string};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// So many names, at most, are told in a gap. If there are more, it tells the parts of the selection.
const TOLD_NAMES: usize = 64;

/// Reads what the channels of a view keep, or what one channel keeps, in the order of the ids.
pub(super) struct Replay<'f> {
    feed: &'f Arc<Feed>,
    /// How far the client has come: behind one id, or in a view over Redis behind one of each channel.
    starts: Vec<Start>,
    /// The client has each event up to where the last round was to end.
    pub(super) is_complete: bool,
    /// The number of the round before.
    round: Option<u64>,
}

impl<'f> Replay<'f> {
    pub(super) fn new(feed: &'f Arc<Feed>, mut start: Start) -> Replay<'f> {
        let channels = std::mem::take(&mut start.channels);
        let starts = if channels.is_empty() { vec![start] } else { channels };
        Replay { feed, starts, is_complete: false, round: None }
    }

    /// The client has each event up to here.
    pub(super) fn after(&self) -> Vec<Id> {
        self.starts.iter().map(|start| start.after).collect()
    }

    /// What there was when it was made.
    pub(super) fn newest(&self) -> Vec<Id> {
        self.starts.iter().map(|start| start.newest).collect()
    }

    /// Fills the batch with the first events that the client lacks, none of them behind `until`. Returns the gap that it is
    /// told before the first round, or nothing.
    ///
    /// # Errors
    /// [`Departure::Slow`] if a channel has lost an event since the round before.
    pub(super) fn next(
        &mut self,
        asked: &Asked,
        until: &[Id],
        batch: &mut Batch,
    ) -> Result<String, Departure> {
        let (feed, hub) = (self.feed, &self.feed.hub);
        // What is forgotten after this line has this number or more.
        let number = hub.rounds.fetch_add(1, SeqCst) + 1;
        let before = self.round.replace(number);
        let has_forgotten = |start: &Start, forgotten: Id, forgot_in: u64| match before {
            None => start.is_behind_gap(forgotten, &hub.ids),
            Some(before) => start.after < forgotten && forgot_in >= before,
        };
        // Read before the channels are locked: their histories then have each event up to this id.
        let in_order = feed.view.as_ref().filter(|_| !feed.has_place());
        let settled = in_order.map(|_| hub.order.settled(&hub.ids));
        let until: Vec<Id> =
            until.iter().map(|until| settled.map_or(*until, |it| it.min(*until))).collect();
        let (mut found, mut lost) = (Found::default(), Vec::new());
        let (sources, last) = (feed.sources(), self.starts.len() - 1);
        if has_forgotten(&self.starts[0], sources.forgotten, sources.forgot_in) {
            lost.extend(sources.open_parts);
        }
        for (at, channel) in sources.feeds.iter().enumerate() {
            let (start, until) = (&mut self.starts[at.min(last)], until[at.min(last)]);
            let mut state = channel.lock();
            channel.expire(&mut state);
            let history = &state.history;
            let has_forgotten = has_forgotten(start, history.forgotten, state.forgot_in);
            let is_anew = settled.is_none() && start.is_lost_in(history);
            if has_forgotten || is_anew && (before.is_some() || start.has_gap.is_none()) {
                lost.push(Arc::clone(&channel.members.name));
            }
            let name = feed.view.as_ref().map(|_| &*channel.members.name);
            let events = history.after(start.after);
            found.add(at, name, events.take_while(|(id, _)| *id <= until));
        }
        if before.is_some() && !lost.is_empty() {
            return Err(Departure::Slow);
        }
        // Nothing is known of an id that no channel had.
        if let Some(view) = in_order
            && !lost.is_empty()
            && (lost.len() > TOLD_NAMES || self.starts[0].has_gap.is_some())
        {
            lost = view.selection.parts().to_vec();
        }
        let gap = match lost.is_empty() {
            true => String::new(),
            false => feed.gap(asked, found.frames.keys().next().map(|(id, _)| *id), lost),
        };
        let mut history = History::new(Id::FIRST);
        for ((id, at), frame) in found.frames {
            let start = &mut self.starts[at.min(last)];
            (start.after, start.end) = (id, start.end + 1);
            let frame = if feed.has_place() { placed(&self.after(), &frame) } else { frame };
            history.append(id, frame, None);
        }
        history.copy(0, Cursor::MAX, usize::MAX, batch);
        self.is_complete = found.left.is_none();
        if self.is_complete {
            let ends = self.starts.iter_mut().zip(until);
            ends.for_each(|(start, until)| start.after = start.after.max(until));
        }
        Ok(gap)
    }
}

/// The first events of several histories, in one order.
#[derive(Default)]
struct Found {
    /// By the id, and the number of the channel: two streams in Redis may have the same id.
    frames: BTreeMap<(Id, usize), Arc<[u8]>>,
    bytes: usize,
    /// The first one that did not fit.
    left: Option<(Id, usize)>,
}

impl Found {
    /// Adds those of one history that fit, with the name of their channel if they are for a view.
    fn add<'h>(
        &mut self,
        at: usize,
        channel: Option<&str>,
        events: impl Iterator<Item = (Id, &'h Arc<[u8]>)>,
    ) {
        for (id, frame) in events {
            if self.left.is_some_and(|left| (id, at) > left) {
                break;
            }
            let frame = channel.map_or_else(|| Arc::clone(frame), |name| shown(name, frame));
            self.bytes += frame.len();
            self.frames.insert((id, at), frame);
            // The largest ids are for the next round.
            while self.bytes > REPLAY_BYTES
                && self.frames.len() > 1
                && let Some((key, frame)) = self.frames.pop_last()
            {
                self.bytes -= frame.len();
                self.left = Some(key);
            }
        }
    }
}

impl Feed {
    /// The channels that a replay reads: those of a view, or the channel itself.
    fn sources(self: &Arc<Feed>) -> Matching {
        let Some(view) = &self.view else {
            let feeds = vec![Arc::clone(self)];
            return Matching { feeds, ..Matching::default() };
        };
        let sources = view.sources.upgrade();
        sources.map(|sources| sources.matching(&view.selection)).unwrap_or_default()
    }

    /// The event that tells a client what it missed; in a view, with the channels that have lost something. It has no id, so
    /// that the client keeps its own.
    pub(super) fn gap(&self, asked: &Asked, oldest: Option<Id>, lost: Vec<Arc<str>>) -> String {
        self.hub.counters.gaps.fetch_add(1, Relaxed);
        // The client may have sent as much as a head has room for.
        let asked: String = asked.text().chars().take(64).collect();
        let oldest = oldest.map_or("null".to_owned(), |id| format!("\"{id}\""));
        let mut json = format!("{{\"asked\":{},\"oldest\":{oldest}", json_string(&asked));
        if self.view.is_some() {
            let names: Vec<_> = lost.iter().map(|name| json_string(name)).collect();
            json += &format!(",\"channels\":[{}]", names.join(","));
        }
        let gap = Event::new(json + "}").name("gap");
        gap.map(|gap| gap.to_string()).unwrap_or_default()
    }

    /// Appends the next event of its channels to a view. It does not wait for room, since all channels would wait with it:
    /// while fan-out threads are behind, the history grows to twice its size. See [`wait_for_views`](Feed::wait_for_views).
    pub(super) fn show(self: &Arc<Feed>, id: Id, frame: &Arc<[u8]>) {
        let state = self.lock();
        // Before the view was activated; or the event is in the history of its channel since before that.
        if id > state.history.newest() {
            self.append_shown(state, id, Arc::clone(frame));
        }
    }

    pub(super) fn append_shown(
        self: &Arc<Feed>,
        mut state: MutexGuard<'_, State>,
        id: Id,
        frame: Arc<[u8]>,
    ) {
        let Limits { history_events, history_bytes, .. } = self.hub.limits;
        let soft = state.history.first_after(frame.len(), history_events, history_bytes);
        let hard = state.history.first_after(frame.len(), 2 * history_events, 2 * history_bytes);
        let needed_from = state.needed_from().unwrap_or(Cursor::MAX);
        self.is_behind.store(needed_from < soft, Relaxed);
        state.forget_before(hard.max(soft.min(needed_from)), &self.hub);
        state.history.append(id, frame, None);
        self.changed(&state);
        self.notify_lanes_of_view(state);
    }

    /// Waits until the fan-out threads have copied what the views of a channel lack. To be called without a lock by a
    /// publisher that has just appended an event.
    pub(super) fn wait_for_views(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let views: Vec<_> = self.lock().views.iter().filter_map(Weak::upgrade).collect();
        for view in views.iter().filter(|view| view.is_behind.load(Relaxed)) {
            let left = deadline.saturating_duration_since(Instant::now());
            drop(view.make_room(view.lock(), 0, left));
        }
    }

    /// The view shows each event from now on: all channels have it among their views. The older ones are in their
    /// histories.
    pub(super) fn activate(&self) {
        self.hub.order.between(&self.hub.ids, |last| {
            let mut state = self.lock();
            if state.history.forgotten == Id::MAX {
                state.history = History::new(last);
            }
        });
    }
}

/// Makes each of the channels feed a view.
pub(super) fn connect(view: &Arc<Feed>, feeds: &[Arc<Feed>]) {
    for feed in feeds {
        let mut state = feed.lock();
        state.show_in(Arc::downgrade(view));
        if view.has_place() {
            view.restart(feed, state.history.newest());
        }
    }
    view.activate();
}
