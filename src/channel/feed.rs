//! What the threads of a channel share: its history, its completion and its lanes, under one lock; and what all channels
//! share.

use super::history::{Batch, Cursor, History};
use super::id::{Id, Ids};
use super::lane::Lane;
use super::limits::Limits;
use super::members::Members;
use super::notifier::Notifier;
use super::subscriber::{Departure, Subscriber};
use crate::http::lock::hold;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A thread per core is enough, and no machine that we know has more cores.
pub(super) const MAX_FANOUT_THREADS: usize = 64;

/// How long a publisher waits for fan-out threads to copy what its event pushes out. They never wait for a subscriber,
/// so this is far more than they need. If one hangs all the same, publishing goes on, and its subscribers find that
/// they have lost something.
pub(super) const ROOM_DEADLINE: Duration = Duration::from_secs(2);

/// The bytes that are copied at a time for one subscriber. They bound the memory of a slow reader.
const REPLAY_BYTES: usize = 32 * 1024;

/// What all channels of a server share.
pub(super) struct Hub {
    pub(super) limits: Limits,
    pub(super) ids: Ids,
    /// One for each fan-out thread.
    pub(super) notifiers: Vec<Notifier<Arc<Feed>>>,
    pub(super) counters: Counters,
    /// How many subscribers ever joined a lane.
    pub(super) joined: AtomicU64,
    started: Instant,
    is_stopped: AtomicBool,
}

impl Hub {
    pub(super) fn new(limits: Limits, fanout_threads: usize) -> Arc<Hub> {
        Arc::new(Hub {
            limits,
            ids: Ids::new(),
            notifiers: (0..fanout_threads).map(|_| Notifier::new()).collect(),
            counters: Counters::default(),
            joined: AtomicU64::new(0),
            started: Instant::now(),
            is_stopped: AtomicBool::new(false),
        })
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(SeqCst)
    }

    pub(super) fn stop(&self) {
        self.is_stopped.store(true, SeqCst);
        self.notifiers.iter().for_each(Notifier::close);
    }
}

/// Counts since the server started.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) events_published: AtomicU64,
    pub(crate) bytes_published: AtomicU64,
    pub(crate) events_delivered: AtomicU64,
    pub(crate) bytes_delivered: AtomicU64,
    /// Subscriptions that named a last event ID.
    pub(crate) replays: AtomicU64,
    /// Subscriptions that were told of a gap.
    pub(crate) gaps: AtomicU64,
    /// Streams that ended, by reason.
    pub(crate) left: AtomicU64,
    pub(crate) slow: AtomicU64,
    pub(crate) stalled: AtomicU64,
    pub(crate) completed: AtomicU64,
    /// Of journals: waits for a disk, failures, and segments that were given up after one.
    pub(crate) journal_syncs: AtomicU64,
    pub(crate) journal_errors: AtomicU64,
    pub(crate) journal_poisoned: AtomicU64,
}

impl Counters {
    pub(super) fn delivered(&self, events: u64, bytes: u64) {
        self.events_delivered.fetch_add(events, Relaxed);
        self.bytes_delivered.fetch_add(bytes, Relaxed);
    }

    pub(super) fn departed(&self, departure: Departure) {
        let counter = match departure {
            Departure::Left => &self.left,
            Departure::Stalled => &self.stalled,
            Departure::Slow => &self.slow,
            Departure::Completed => &self.completed,
            Departure::Stopped => return,
        };
        counter.fetch_add(1, Relaxed);
    }
}

pub(super) struct Feed {
    pub(super) hub: Arc<Hub>,
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
    /// The end of the history when the channel was completed last.
    pub(super) completed_at: Option<Cursor>,
    publishers_waiting: usize,
    filtered_waiting: usize,
}

impl State {
    /// Whether the channel is completed, and nothing was published since.
    pub(super) fn is_completed(&self) -> bool {
        self.completed_at == Some(self.history.end())
    }
}

impl Feed {
    /// A feed that goes on from `history`, behind which the channel may be completed.
    pub(super) fn new(
        hub: &Arc<Hub>,
        members: Arc<Members>,
        history: History,
        is_completed: bool,
    ) -> Arc<Feed> {
        let state = Mutex::new(State {
            completed_at: is_completed.then(|| history.end()),
            history,
            lanes: hub.notifiers.iter().map(|_| Lane::default()).collect(),
            published_at: None,
            publishers_waiting: 0,
            filtered_waiting: 0,
        });
        let (room, changed) = (Condvar::new(), Condvar::new());
        Arc::new(Feed { hub: Arc::clone(hub), members, state, room, changed })
    }

    /// The newest id of a channel that is completed.
    pub(super) fn completed_after(&self) -> Option<Id> {
        let state = self.lock();
        state.is_completed().then(|| state.history.newest())
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
            let needed_from = state.lanes.iter().filter_map(Lane::needed_from).min();
            let is_copied = needed_from.is_none_or(|needed_from| first <= needed_from);
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

    /// Puts a committed event behind all others: every event of every log comes into the history here, in the order in
    /// which it was committed. The caller has made room for it, and tells the lanes.
    pub(super) fn append(
        &self,
        state: &mut State,
        id: Id,
        frame: Box<[u8]>,
        key: Option<Arc<str>>,
    ) {
        self.hub.counters.events_published.fetch_add(1, Relaxed);
        self.hub.counters.bytes_published.fetch_add(frame.len() as u64, Relaxed);
        state.history.append(id, frame, key);
        self.members.begin();
        self.changed(state);
    }

    /// Takes note that the completion of the channel is committed. The caller tells the lanes.
    pub(super) fn complete(&self, state: &mut State) {
        state.completed_at = Some(state.history.end());
        self.members.begin();
        self.changed(state);
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

    /// Copies some of what a subscriber lacks. Returns whether its stream ends behind all that it lacks.
    pub(super) fn copy_for(
        &self,
        state: &State,
        subscriber: &Subscriber,
        batch: &mut Batch,
    ) -> bool {
        let ends_at = subscriber.ends_at(state.completed_at);
        let until = ends_at.unwrap_or(state.history.end());
        state.history.copy(subscriber.cursor, until, REPLAY_BYTES, batch);
        ends_at.is_some()
    }

    /// Notifies each fan-out thread that has subscribers of this channel.
    pub(super) fn notify_lanes(self: &Arc<Feed>, mut state: MutexGuard<'_, State>) {
        let mut is_due = [false; MAX_FANOUT_THREADS];
        for (lane, is_due) in state.lanes.iter_mut().zip(&mut is_due) {
            *is_due = lane.take_notification();
        }
        drop(state);
        for (lane, _) in is_due.iter().enumerate().filter(|(_, is_due)| **is_due) {
            self.notify(lane);
        }
    }

    /// Hands a subscriber over to the fan-out thread of a lane.
    pub(super) fn join(
        self: &Arc<Feed>,
        mut state: MutexGuard<'_, State>,
        lane: usize,
        subscriber: Subscriber,
    ) {
        state.lanes[lane].joining.push(subscriber);
        if state.lanes[lane].take_notification() {
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
