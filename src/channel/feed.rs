//! What the threads of a channel share: its history, its completion and its lanes, under one lock.

use super::history::{Batch, Cursor, History, REPLAY_BYTES};
use super::hub::{self, MAX_FANOUT_THREADS};
use super::id::{Id, now_ms};
use super::lane::Lane;
use super::limits::Limits;
use super::members::{Members, Phase};
use super::publication::{Committed, Publication, PublishError};
use super::selection::{PRESENCE, Selection, shown};
use super::subscriber::{END, Subscriber};
use crate::http::lock::hold;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What all channels of a server share.
pub(super) type Hub = hub::Hub<Feed>;

/// What makes a feed a view: the channels that it shows, and where they are. Its history has each event after `forgotten`;
/// what came before that is in the histories of the channels. It is in the order of the ids, but over Redis in the order in
/// which this server has read the events.
pub(super) struct View {
    pub(super) selection: Selection,
    pub(super) sources: Weak<dyn Sources>,
}

pub(super) trait Sources: Send + Sync {
    /// Some of the channels of a selection, in the order of their names: those after `name`.
    fn matching(&self, selection: &Selection, name: &str) -> Matching;
}

/// Channels of a selection at one moment.
#[derive(Default)]
pub(super) struct Matching {
    pub(super) feeds: Vec<Arc<Feed>>,
    /// Behind the last of them, those that were evicted, and the parts that evicted channels without a remembered name may
    /// have matched; each with an id, and no event of theirs has a larger one.
    pub(super) gone: Vec<(Arc<str>, Id)>,
}

pub(super) struct Feed {
    pub(super) hub: Arc<Hub>,
    pub(super) view: Option<View>,
    /// It is a view, and its fan-out threads have much to copy.
    pub(super) is_behind: AtomicBool,
    /// Whether views may show the channel: without any, publishing needs no lock a second time.
    pub(super) has_views: AtomicBool,
    pub(super) members: Arc<Members>,
    state: Mutex<State>,
    /// Frames that a publisher wants to push out have been copied.
    room: Condvar,
    /// Something was appended, or the channel was completed, while a filtered subscriber waits for that.
    changed: Condvar,
}

pub(super) struct State {
    pub(super) history: History,
    pub(super) lanes: Vec<Lane>,
    pub(super) published_at: Option<Instant>,
    /// The end of the history when the channel was completed last, and the id of that: views show it in the order of the ids.
    pub(super) completed_at: Option<Cursor>,
    pub(super) completed_id: Id,
    /// The views that show the channel. Some may be gone by now.
    pub(super) views: Vec<Weak<Feed>>,
    /// In a view over Redis, for each channel the last event that it has.
    pub(super) place: Vec<Id>,
    publishers_waiting: usize,
    filtered_waiting: usize,
}

impl State {
    /// Whether the channel is completed, and nothing was published since.
    pub(super) fn is_completed(&self) -> bool {
        self.completed_at == Some(self.history.end())
    }

    /// The id of what is to be published, if it is there already: an event by its key; without one, for a completion, the
    /// last event of a channel that is completed.
    pub(super) fn find(&self, publication: Option<&Publication>) -> Result<Option<Id>, PublishError> {
        match publication {
            Some(publication) => publication.find_in(&self.history),
            None => Ok(self.is_completed().then(|| self.history.newest())),
        }
    }

    /// Whether a view shows what is published from now on. Before that its history starts after all ids.
    pub(super) fn is_active(&self) -> bool {
        self.history.forgotten != Id::MAX
    }

    pub(super) fn needed_from(&self) -> Option<Cursor> {
        self.lanes.iter().filter_map(Lane::needed_from).min()
    }
}

impl Feed {
    pub(super) fn hub(limits: Limits, fanout_threads: usize) -> Arc<Hub> {
        Hub::new(
            limits,
            fanout_threads,
            |id, (frame, views)| views.iter().for_each(|view| view.show(id, &frame)),
            |id, (_, views)| views.iter().for_each(|view| view.lose(id)),
        )
    }

    /// A feed that goes on from `history`.
    pub(super) fn new(hub: &Arc<Hub>, members: Arc<Members>, history: History, view: Option<View>) -> Arc<Feed> {
        let state = Mutex::new(State {
            history,
            lanes: hub.notifiers.iter().map(|_| Lane::default()).collect(),
            published_at: None,
            completed_at: None,
            completed_id: Id::ZERO,
            views: Vec::new(),
            place: Vec::new(),
            publishers_waiting: 0,
            filtered_waiting: 0,
        });
        let (room, changed) = (Condvar::new(), Condvar::new());
        let (hub, is_behind, has_views) = (Arc::clone(hub), AtomicBool::default(), AtomicBool::default());
        Arc::new(Feed { hub, view, is_behind, has_views, members, state, room, changed })
    }

    /// Drops all events of a channel that is removed from the table, and returns the newest id. A subscriber that lacks
    /// one of them finds that it has lost it.
    pub(super) fn forget(&self) -> Id {
        let mut state = self.lock();
        let end = state.history.end();
        state.history.forget_before(end);
        state.history.newest()
    }

    /// Drops the events that are too old, but none that is yet to be copied for subscribers in lanes. The number of a presence
    /// holds until the next one, however old it is.
    pub(super) fn expire(&self, state: &mut State) {
        let age = self.hub.limits.history_age;
        if !age.is_zero() && !self.is_presence() {
            let oldest_ms = now_ms().saturating_sub(age.as_millis() as u64);
            let first = state.history.position_after(Id::before_ms(oldest_ms));
            let first = first.min(state.needed_from().unwrap_or(first));
            let expired = first.saturating_sub(state.history.first);
            self.hub.counters.events_expired.fetch_add(expired, Relaxed);
            state.history.forget_before(first);
        }
    }

    pub(super) fn is_presence(&self) -> bool {
        self.members.name.starts_with(PRESENCE)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }

    /// Moves the start of the history so that another frame fits. Waits at most so long until what it moves past is
    /// copied for the subscribers in lanes; the lock is free meanwhile.
    pub(super) fn make_room<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        bytes: usize,
        at_most: Duration,
    ) -> MutexGuard<'s, State> {
        let Limits { history_events, history_bytes, .. } = self.hub.limits;
        let mut deadline = None;
        loop {
            let first = state.history.first_after(bytes, history_events, history_bytes);
            let is_copied = state.needed_from().is_none_or(|needed_from| first <= needed_from);
            if is_copied || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                state.history.forget_before(first);
                return state;
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + at_most);
            let wait = deadline.saturating_duration_since(Instant::now());
            state.publishers_waiting += 1;
            state = self.room.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            state.publishers_waiting -= 1;
        }
    }

    /// Brings what a log has committed into the history. It waits for room at most so long in all: however much there is, a
    /// fan-out thread that hangs does not hold the publishers up for longer. The caller tells the lanes of the last one.
    pub(super) fn extend(self: &Arc<Feed>, committed: Vec<Committed>, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let mut left = committed.len();
        for (id, event) in committed {
            let mut state = self.lock();
            match event {
                None => self.complete(&mut state, id),
                Some((frame, key)) => {
                    let bytes = frame.len() + key.as_ref().map_or(0, |key| key.len());
                    let at_most = deadline.saturating_duration_since(Instant::now());
                    state = self.make_room(state, bytes, at_most);
                    self.append(&mut state, id, frame, key);
                }
            }
            left -= 1;
            // The next one may have to wait until this one is copied.
            if left > 0 {
                self.notify_lanes(state);
            }
        }
    }

    /// Puts a committed event after all others: every event of every log comes into the history here, in the order in
    /// which it was committed. The caller has made room for it, and tells the lanes.
    pub(super) fn append(&self, state: &mut State, id: Id, frame: Arc<[u8]>, key: Option<Arc<str>>) {
        self.hub.counters.events_published.fetch_add(1, Relaxed);
        self.hub.counters.bytes_published.fetch_add(frame.len() as u64, Relaxed);
        if !state.views.is_empty() {
            self.feed_views(state, id, &frame);
        }
        state.history.append(id, frame, key);
        self.members.set_phase(Phase::Begun);
        self.changed(state);
    }

    /// Takes note that the completion of the channel is committed, unless it is completed. The caller tells the lanes. Views go
    /// on, and show it as an event, which has no id on the wire, and this one in the order.
    pub(super) fn complete(&self, state: &mut State, id: Id) {
        if !state.is_completed() {
            if !state.views.is_empty() {
                self.feed_views(state, id, END);
            }
            (state.completed_at, state.completed_id) = (Some(state.history.end()), id);
            self.members.set_phase(Phase::Completed);
            self.changed(state);
        }
    }

    fn feed_views(&self, state: &mut State, id: Id, frame: &[u8]) {
        state.views.retain(|view| view.strong_count() > 0);
        self.has_views.store(!state.views.is_empty(), Relaxed);
        let views: Vec<Arc<Feed>> = state.views.iter().filter_map(Weak::upgrade).collect();
        let shown = shown(&self.members.name, frame);
        if self.hub.ids.are_shared() {
            let id = (frame != END).then_some(id);
            views.iter().for_each(|view| view.show_of(self, id, &shown));
        } else if !views.is_empty() {
            let bytes = shown.len() + 8 * views.len() + 120;
            self.hub.order.appended(&self.hub.ids, id, bytes, (shown, views));
        }
    }

    /// Something was copied: publishers may have room now.
    pub(super) fn copied(&self, state: MutexGuard<'_, State>) {
        let is_awaited = state.publishers_waiting > 0;
        drop(state);
        if is_awaited {
            self.room.notify_all();
        }
    }

    /// Something was appended, or the channel was completed: filtered subscribers have something to do.
    pub(super) fn changed(&self, state: &State) {
        if state.filtered_waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Waits on the thread of a filtered subscriber until something changes.
    pub(super) fn wait_for_change(&self, mut state: MutexGuard<'_, State>, at_most: Duration) {
        state.filtered_waiting += 1;
        let waited = self.changed.wait_timeout(state, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0.filtered_waiting -= 1;
    }

    /// Copies some of what a subscriber lacks. Returns whether its stream ends after all that it lacks.
    pub(super) fn copy_for(&self, state: &State, subscriber: &Subscriber, batch: &mut Batch) -> bool {
        let ends_at = subscriber.ends_at(state.completed_at);
        let until = ends_at.unwrap_or(state.history.end());
        state.history.copy(subscriber.cursor, until, REPLAY_BYTES, batch);
        ends_at.is_some()
    }

    /// Notifies each fan-out thread that has subscribers of this channel. If they have stopped, its subscribers are stopped
    /// elsewhere: a subscriber that goes locks the table, and the lock of another channel may be held here.
    pub(super) fn notify_lanes(self: &Arc<Feed>, mut state: MutexGuard<'_, State>) {
        let mut is_due = [false; MAX_FANOUT_THREADS];
        for (lane, is_due) in state.lanes.iter_mut().zip(&mut is_due) {
            *is_due = lane.take_notification();
        }
        drop(state);
        for (notifier, _) in self.hub.notifiers.iter().zip(is_due).filter(|(_, is_due)| *is_due) {
            notifier.notify(Arc::clone(self));
        }
    }

    /// Hands a subscriber over to the fan-out thread of a lane.
    pub(super) fn join(self: &Arc<Feed>, mut state: MutexGuard<'_, State>, lane: usize, subscriber: Subscriber) {
        let State { lanes, completed_at, .. } = &mut *state;
        let waits = lanes[lane].join(subscriber, *completed_at);
        if waits && lanes[lane].take_notification() || self.hub.is_stopped() {
            drop(state);
            self.notify(lane);
        }
    }

    /// Notifies one fan-out thread. If that has stopped, the subscribers are stopped here.
    pub(super) fn notify(self: &Arc<Feed>, lane: usize) {
        if !self.hub.notifiers[lane].notify(Arc::clone(self)) {
            self.stop_lane(lane);
        }
    }

    /// Stops all subscribers of a lane, but those that another thread has taken out: it stops them when it finds that
    /// the hub is stopped.
    pub(super) fn stop_lane(&self, lane: usize) {
        let mut state = self.lock();
        let subscribers = state.lanes[lane].drain();
        self.copied(state);
        subscribers.iter().for_each(Subscriber::stop);
    }
}
