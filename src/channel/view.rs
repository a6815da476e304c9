//! A view: a feed that other feeds fill. It is made for its first subscriber, and goes with the last one. It shows what is
//! appended to its channels while it exists.

use super::feed::{Feed, Matching, State};
use super::history::{Cursor, History};
use super::id::Id;
use super::limits::Limits;
use super::selection::shown;
use super::subscriber::END;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant};

impl Feed {
    /// How many subscribers it has, with those of its views.
    pub(super) fn subscribers(&self) -> usize {
        let of_views = self.views().iter().map(|view| view.members.subscribers()).sum::<usize>();
        self.members.subscribers() + of_views
    }

    /// The views that show the channel.
    pub(super) fn views(&self) -> Vec<Arc<Feed>> {
        match self.has_views.load(Relaxed) {
            true => self.lock().views.iter().filter_map(Weak::upgrade).collect(),
            false => Vec::new(),
        }
    }

    /// A channel begins, and these views show it.
    pub(super) fn begin(&self, views: Vec<Weak<Feed>>) {
        self.has_views.store(!views.is_empty(), Relaxed);
        self.lock().views = views;
    }

    /// From now on each event is shown in this view, too.
    pub(super) fn show_in(&self, state: &mut State, view: Weak<Feed>) {
        // Otherwise the views that come and go would fill the memory while nothing is published.
        if state.views.len() == state.views.capacity() {
            state.views.retain(|view| view.strong_count() > 0);
        }
        // A channel that has begun since the view did has it already.
        if !state.views.iter().any(|other| Weak::ptr_eq(other, &view)) {
            state.views.push(view);
        }
        self.has_views.store(true, Relaxed);
    }

    /// Calls `call` with each channel that a replay reads: those of a view, or the channel itself. The table is locked for a
    /// moment at a time. Returns what it said last: a channel that is evicted meanwhile is in that.
    pub(super) fn each_source(self: &Arc<Feed>, mut call: impl FnMut(&Arc<Feed>)) -> Matching {
        let Some(view) = &self.view else {
            call(self);
            return Matching::default();
        };
        let Some(sources) = view.sources.upgrade() else { return Matching::default() };
        let mut name = Arc::from("");
        loop {
            let matching = sources.matching(&view.selection, &name);
            matching.feeds.iter().for_each(&mut call);
            let Some(last) = matching.feeds.last() else { return matching };
            name = Arc::clone(&last.members.name);
        }
    }

    /// What tells a client of each channel of a view, or of the channel itself, that is completed, and of which it has all: it
    /// has what came up to `after`. A client that then follows a view from a position gets those that were completed later
    /// from there.
    pub(super) fn ends(self: &Arc<Feed>, after: &[Id], follows_from: Option<Cursor>) -> Vec<u8> {
        let (mut ends, mut number) = (Vec::new(), 0);
        self.each_source(|channel| {
            let after = after[number.min(after.len() - 1)];
            number += 1;
            if !channel.members.is_completed() {
                return;
            }
            let state = channel.lock();
            let frame = match self.view {
                Some(_) => shown(&channel.members.name, END),
                None => END.into(),
            };
            let follows = |cursor| match self.has_place() {
                // A completion has no part in the place.
                true => self.lock().history.from(cursor).any(|other| *other == frame),
                false => state.completed_id > after,
            };
            if state.is_completed() && state.history.newest() <= after && !follows_from.is_some_and(follows) {
                ends.push(frame);
            }
        });
        ends.concat()
    }

    /// Appends the next event of its channels to a view. It does not wait for room, since all channels would wait with it:
    /// while fan-out threads lag, the history grows to twice its size. See [`wait_for_views`](Feed::wait_for_views).
    pub(super) fn show(self: &Arc<Feed>, id: Id, frame: &Arc<[u8]>) {
        let state = self.lock();
        // Before the view was activated; or the event is in the history of its channel since before that.
        if id > state.history.newest() {
            self.append_shown(state, id, Arc::clone(frame));
        }
    }

    /// The view does not get the event with this id. A subscriber that comes back finds it in the history of its channel.
    pub(super) fn lose(self: &Arc<Feed>, id: Id) {
        let state = self.lock();
        if id > state.history.newest() {
            self.restart_at(state, id);
        }
    }

    /// The history of a view begins anew after this id: each of its subscribers has lost something.
    pub(super) fn restart_at(self: &Arc<Feed>, mut state: MutexGuard<'_, State>, forgotten: Id) {
        state.history.reset(forgotten);
        self.changed(&state);
        self.notify_lanes(state);
    }

    pub(super) fn append_shown(self: &Arc<Feed>, mut state: MutexGuard<'_, State>, id: Id, frame: Arc<[u8]>) {
        let Limits { history_events, history_bytes, .. } = self.hub.limits;
        let soft = state.history.first_after(frame.len(), history_events, history_bytes);
        let hard = state.history.first_after(frame.len(), 2 * history_events, 2 * history_bytes);
        let needed_from = state.needed_from().unwrap_or(Cursor::MAX);
        self.is_behind.store(needed_from < soft, Relaxed);
        state.history.forget_before(hard.max(soft.min(needed_from)));
        state.history.append(id, frame, None);
        self.changed(&state);
        self.notify_lanes(state);
    }

    /// Waits until the fan-out threads have copied what the views of a channel lack. To be called without a lock by a
    /// publisher that has just appended an event.
    pub(super) fn wait_for_views(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        for view in self.views().iter().filter(|view| view.is_behind.load(Relaxed)) {
            let left = deadline.saturating_duration_since(Instant::now());
            drop(view.make_room(view.lock(), 0, left));
        }
    }
}

/// Makes each of its channels feed a view, which then shows each event. The older ones are in the histories of the channels.
pub(super) fn connect(view: &Arc<Feed>) {
    view.each_source(|channel| {
        let mut state = channel.lock();
        channel.show_in(&mut state, Arc::downgrade(view));
        if view.has_place() {
            view.restart(channel, state.history.newest());
        }
    });
    view.hub.order.between(&view.hub.ids, |last| view.lock().history = History::new(last));
}
