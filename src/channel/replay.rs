//! What a client lacks, piece by piece.
//!
//! A view shows what is appended while it exists. What a subscriber missed before that is read from the histories of the
//! channels, so that a busy channel does not push the events of a quiet one out.
//!
//! A replay looks at each channel once, and finds what its next event is. Then it takes the smallest id again and again
//! (a merge of sorted sequences), so a piece costs what it writes, however many channels there are. No lock is held for more
//! than one history at a time.

use super::asked::Asked;
use super::feed::Feed;
use super::history::{Batch, Cursor, History, REPLAY_BYTES};
use super::id::Id;
use super::place::placed;
use super::selection::shown;
use super::start::Start;
use super::subscriber::Departure;
use crate::sse::{Event, json_string};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::{replace, take};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// So many names, at most, are told in a gap. If there are more, it tells the parts of the selection.
const TOLD_NAMES: usize = 64;

/// Reads what the channels of a view keep, or what one channel keeps, in the order of the ids.
pub(super) struct Replay<'f> {
    feed: &'f Arc<Feed>,
    /// How far the client has come: to one id, or in a view over Redis to one of each channel.
    starts: Vec<Start>,
    /// It has looked at all channels.
    has_looked: bool,
    /// What was found then is replayed up to here.
    until: Vec<Id>,
    /// The channels that have more of it, by the id of their next event and by their number: two streams in Redis may have
    /// the same id.
    next: BTreeMap<(Id, usize), Arc<Feed>>,
    /// Nothing is left of what was found. The client has each event up to the end.
    pub(super) is_complete: bool,
}

impl<'f> Replay<'f> {
    pub(super) fn new(feed: &'f Arc<Feed>, mut start: Start) -> Replay<'f> {
        let channels = take(&mut start.channels);
        let starts = if channels.is_empty() { vec![start] } else { channels };
        let (until, next) = (Vec::new(), BTreeMap::new());
        Replay { feed, starts, has_looked: false, until, next, is_complete: true }
    }

    /// The client has each event up to here.
    pub(super) fn after(&self) -> Vec<Id> {
        self.starts.iter().map(|start| start.after).collect()
    }

    /// What there was when it was made.
    pub(super) fn newest(&self) -> Vec<Id> {
        self.starts.iter().map(|start| start.newest).collect()
    }

    /// Fills the batch with the first events that the client lacks. If nothing was left, it looks at all channels, for events
    /// up to `until`. Returns the gap that the client is told before the first event, or nothing.
    ///
    /// # Errors
    /// [`Departure::Slow`] if a channel has lost an event since then.
    pub(super) fn next(&mut self, asked: &Asked, until: &[Id], batch: &mut Batch) -> Result<String, Departure> {
        let gap = if self.is_complete { self.look(asked, until)? } else { String::new() };
        let mut history = History::new(Id::ZERO);
        self.fill(&mut history)?;
        history.copy(0, Cursor::MAX, usize::MAX, batch);
        self.is_complete = self.next.is_empty();
        if self.is_complete {
            let ends = self.starts.iter_mut().zip(&self.until);
            ends.for_each(|(start, until)| start.after = start.after.max(*until));
        }
        Ok(gap)
    }

    /// Finds the next event of each channel, and what was lost.
    fn look(&mut self, asked: &Asked, until: &[Id]) -> Result<String, Departure> {
        let (feed, hub) = (self.feed, &self.feed.hub);
        let is_first = !replace(&mut self.has_looked, true);
        let has_forgotten = |start: &Start, forgotten: Id| match is_first {
            true => start.is_behind_gap(forgotten, &hub.ids),
            false => start.after < forgotten,
        };
        // Read before the channels are locked: their histories then have each event up to this id.
        let in_order = feed.view.as_ref().filter(|_| !feed.has_place());
        let settled = in_order.map_or(Id::MAX, |_| hub.order.settled(&hub.ids));
        self.until = until.iter().map(|until| settled.min(*until)).collect();
        let (mut lost, mut number, last) = (BTreeSet::new(), 0, self.starts.len() - 1);
        let sources = feed.each_source(|channel| {
            let (at, start) = (number.min(last), &mut self.starts[number.min(last)]);
            let mut state = channel.lock();
            channel.expire(&mut state);
            let history = &state.history;
            let has_forgotten = has_forgotten(start, history.forgotten);
            let is_anew = in_order.is_none() && start.find_in(history);
            if has_forgotten || is_anew && start.has_gap.is_none() {
                lost.insert(Arc::clone(&channel.members.name));
            }
            if let Some((id, _)) = history.after(start.after).next()
                && id <= self.until[at]
            {
                self.next.insert((id, number), Arc::clone(channel));
            }
            number += 1;
        });
        let gone = sources.gone.into_iter().filter(|(_, id)| has_forgotten(&self.starts[0], *id));
        lost.extend(gone.map(|(name, _)| name));
        if lost.is_empty() {
            return Ok(String::new());
        } else if !is_first {
            return Err(Departure::Slow);
        }
        // Nothing is known of an id that no channel had.
        if let Some(view) = in_order
            && (lost.len() > TOLD_NAMES || self.starts[0].has_gap.is_some())
        {
            lost = view.selection.parts().iter().cloned().collect();
        }
        Ok(feed.gap(asked, self.next.keys().next().map(|(id, _)| *id), lost))
    }

    /// Takes events in the order of their ids, as many as fit in a piece, but at least one.
    fn fill(&mut self, piece: &mut History) -> Result<(), Departure> {
        let last = self.starts.len() - 1;
        while let Some(((next, number), channel)) = self.next.pop_first() {
            let (at, others_turn) = (number.min(last), self.next.keys().next().copied());
            let mut state = channel.lock();
            channel.expire(&mut state);
            let mut events = state.history.after(next.previous()).peekable();
            if events.peek().is_none_or(|(id, _)| *id != next) {
                return Err(Departure::Slow);
            }
            for (id, frame) in events.take_while(|(id, _)| *id <= self.until[at]) {
                let is_full = piece.end() > 0 && piece.bytes + frame.len() > REPLAY_BYTES;
                if is_full || others_turn.is_some_and(|turn| turn < (id, number)) {
                    self.next.insert((id, number), Arc::clone(&channel));
                    if is_full {
                        return Ok(());
                    }
                    break;
                }
                let start = &mut self.starts[at];
                (start.after, start.end) = (id, start.end + 1);
                let frame = match &self.feed.view {
                    None => Arc::clone(frame),
                    Some(_) => shown(&channel.members.name, frame),
                };
                let frame = if self.feed.has_place() { placed(&self.after(), &frame) } else { frame };
                piece.append(id, frame, None);
            }
        }
        Ok(())
    }
}

impl Feed {
    /// The event that tells a client what it missed; in a view, with the channels that have lost something. It has no id, so
    /// that the client keeps its own.
    pub(super) fn gap(&self, asked: &Asked, oldest: Option<Id>, lost: BTreeSet<Arc<str>>) -> String {
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
}
