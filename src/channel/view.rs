//! Replays for a view: what its channels keep, in the order of the ids.
//!
//! A view is a feed that other feeds fill. It is made for its first subscriber, and goes with the last one. It shows what is
//! appended while it exists. What a subscriber missed before is read from the histories of the channels, in rounds, so
//! that a busy channel does not push the events of a quiet one out. No lock is held for more than one history at a time.

use super::feed::{Feed, Hub, Matching, State, View};
use super::history::{Batch, Cursor, History};
use super::id::Id;
use super::limits::Limits;
use super::selection::shown;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::Duration;

/// The bytes of a round; one event may have more.
const ROUND_BYTES: usize = 32 * 1024;

/// So many names, at most, are told in a gap. If there are more, it tells the parts of the selection.
const TOLD_NAMES: usize = 64;

/// What one round has found.
pub(super) struct Round {
    pub(super) number: u64,
    /// The batch has each event up to this id.
    pub(super) until: Id,
    pub(super) oldest: Option<Id>,
    /// The channels that have lost an event, since the round before if there was one.
    pub(super) lost: Vec<Arc<str>>,
}

/// Fills the batch with the first events behind `after`.
pub(super) fn round(
    hub: &Hub,
    view: &View,
    after: Id,
    before: Option<u64>,
    batch: &mut Batch,
) -> Round {
    // What is forgotten from here on has this number, or a larger one.
    let number = hub.rounds.fetch_add(1, SeqCst) + 1;
    let is_lost = |forgotten: Id, forgot_in: u64| {
        forgotten > after && before.is_none_or(|before| forgot_in >= before)
    };
    // Read before the channels: each event up to here is in one of the histories by the time at which that is locked.
    let mut until = hub.order.settled(&hub.ids).max(after);
    let (mut found, mut bytes) = (BTreeMap::new(), 0);
    let mut lost = Vec::new();
    if let Some(sources) = view.sources.upgrade() {
        let Matching { feeds, open_parts, forgotten, forgot_in } =
            sources.matching(&view.selection);
        if is_lost(forgotten, forgot_in) {
            lost.extend(open_parts);
        }
        for feed in feeds {
            let name = &feed.members.name;
            let mut state = feed.lock();
            feed.expire(&mut state);
            if is_lost(state.history.forgotten, state.forgot_in) {
                lost.push(Arc::clone(name));
            }
            for (id, frame) in state.history.after(after) {
                if id > until {
                    break;
                }
                let frame = shown(name, frame);
                bytes += frame.len();
                found.insert(id, frame);
                // The largest ids are for the next round.
                while bytes > ROUND_BYTES
                    && found.len() > 1
                    && let Some((id, frame)) = found.pop_last()
                {
                    bytes -= frame.len();
                    until = id.previous();
                }
            }
        }
    }
    if lost.len() > TOLD_NAMES {
        lost = view.selection.parts().to_vec();
    }
    let oldest = found.keys().next().copied();
    let mut history = History::new(after);
    found.into_iter().for_each(|(id, frame)| history.append_shared(id, frame));
    history.copy(0, Cursor::MAX, usize::MAX, batch);
    Round { number, until, oldest, lost }
}

impl Feed {
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
        state.history.append_shared(id, frame);
        self.changed(&state);
        self.notify_lanes(state);
    }

    /// Waits until the fan-out threads have copied what the views of a channel lack. To be called without a lock by a
    /// publisher that has just appended an event.
    pub(super) fn wait_for_views(&self, at_most: Duration) {
        let views: Vec<_> = self.lock().views.iter().filter_map(Weak::upgrade).collect();
        for view in views.iter().filter(|view| view.is_behind.load(Relaxed)) {
            drop(view.make_room(view.lock(), 0, at_most));
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
