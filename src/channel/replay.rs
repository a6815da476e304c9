//! What a client lacks, piece by piece.
//!
//! A view is a feed that other feeds fill. It is made for its first subscriber, and goes with the last one. It shows what is
//! appended while it exists. What a subscriber missed before is read from the histories of the channels, in rounds, so
//! that a busy channel does not push the events of a quiet one out. No lock is held for more than one history at a time.

use super::asked::Asked;
use super::feed::{Feed, Matching};
use super::history::{Batch, Cursor, History, REPLAY_BYTES};
use super::hub::ROOM_DEADLINE;
use super::id::Id;
use super::selection::shown;
use super::start::Start;
use super::subscriber::Departure;
use crate::sse::{Event, json_string};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Weak};

/// So many names, at most, are told in a gap. If there are more, it tells the parts of the selection.
const TOLD_NAMES: usize = 64;

/// Reads what the channels of a view keep, or what one channel keeps, in the order of the ids.
pub(super) struct Replay<'f> {
    feed: &'f Arc<Feed>,
    start: Start,
    /// The client has each event up to here.
    pub(super) after: Id,
    /// The number of the round before.
    round: Option<u64>,
}

impl<'f> Replay<'f> {
    pub(super) fn new(feed: &'f Arc<Feed>, start: Start) -> Replay<'f> {
        Replay { feed, after: start.after, start, round: None }
    }

    /// Fills the batch with the first events that the client lacks, none of them behind `until`. Returns the gap that it is
    /// told before the first round, or nothing.
    ///
    /// # Errors
    /// [`Departure::Slow`] if a channel has lost an event since the round before.
    pub(super) fn next(
        &mut self,
        asked: &Asked,
        until: Id,
        batch: &mut Batch,
    ) -> Result<String, Departure> {
        let (hub, after) = (&self.feed.hub, self.after);
        // What is forgotten after this line has this number or more.
        let number = hub.rounds.fetch_add(1, SeqCst) + 1;
        let before = self.round.replace(number);
        let is_lost = |forgotten: Id, forgot_in: u64| match before {
            None => self.start.is_behind_gap(forgotten, &hub.ids),
            Some(before) => after < forgotten && forgot_in >= before,
        };
        // Read before the channels are locked: their histories then have each event up to this id.
        let settled = self.feed.view.as_ref().map(|_| hub.order.settled(&hub.ids));
        let mut found =
            Found { until: settled.unwrap_or(until).min(until).max(after), ..Found::default() };
        let (mut lost, sources) = (Vec::new(), self.feed.sources());
        if is_lost(sources.forgotten, sources.forgot_in) {
            lost.extend(sources.open_parts);
        }
        for feed in sources.feeds {
            let mut state = feed.lock();
            feed.expire(&mut state);
            if is_lost(state.history.forgotten, state.forgot_in) {
                lost.push(Arc::clone(&feed.members.name));
            }
            let channel = settled.map(|_| &*feed.members.name);
            found.add(channel, state.history.after(after));
        }
        self.after = found.until;
        if before.is_some() && !lost.is_empty() {
            return Err(Departure::Slow);
        }
        // Nothing is known of an id that no channel had.
        if let Some(view) = &self.feed.view
            && !lost.is_empty()
            && (lost.len() > TOLD_NAMES || self.start.has_gap.is_some())
        {
            lost = view.selection.parts().to_vec();
        }
        let gap = match lost.is_empty() {
            true => String::new(),
            false => self.feed.gap(asked, found.frames.keys().next().copied(), lost),
        };
        let mut history = History::new(after);
        found.frames.into_iter().for_each(|(id, frame)| history.append(id, frame, None));
        history.copy(0, Cursor::MAX, usize::MAX, batch);
        Ok(gap)
    }
}

/// The first events of several histories, in one order.
#[derive(Default)]
struct Found {
    frames: BTreeMap<Id, Arc<[u8]>>,
    bytes: usize,
    /// It has each event up to this id.
    until: Id,
}

impl Found {
    /// Adds those of one history that fit, with the name of their channel if they are for a view.
    fn add<'h>(
        &mut self,
        channel: Option<&str>,
        events: impl Iterator<Item = (Id, &'h Arc<[u8]>)>,
    ) {
        for (id, frame) in events {
            if id > self.until {
                break;
            }
            let frame = channel.map_or_else(|| Arc::clone(frame), |name| shown(name, frame));
            self.bytes += frame.len();
            self.frames.insert(id, frame);
            // The largest ids are for the next round.
            while self.bytes > REPLAY_BYTES
                && self.frames.len() > 1
                && let Some((id, frame)) = self.frames.pop_last()
            {
                self.bytes -= frame.len();
                self.until = id.previous();
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

    /// Waits until the fan-out threads have copied what the views of a channel lack. To be called without a lock by a
    /// publisher that has just appended an event.
    pub(super) fn wait_for_views(&self) {
        let views: Vec<_> = self.lock().views.iter().filter_map(Weak::upgrade).collect();
        for view in views.iter().filter(|view| view.is_behind.load(Relaxed)) {
            drop(view.make_room(view.lock(), 0, ROOM_DEADLINE));
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
    feeds.iter().for_each(|feed| feed.lock().show_in(Arc::downgrade(view)));
    view.activate();
}
