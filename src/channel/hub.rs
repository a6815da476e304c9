//! What all channels of a server share.

use super::counters::Counters;
use super::id::{Id, Ids};
use super::limits::Limits;
use super::notifier::Notifier;
use super::order::Order;
use super::reservation::Reservations;
use super::subscriber::{HEARTBEAT, HEARTBEAT_EVENT};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// One thread per core is enough; more cores than this get no more threads.
pub(super) const MAX_FANOUT_THREADS: usize = 64;

/// How long a publisher waits for fan-out threads to copy what its event pushes out. They never wait for a subscriber,
/// so this is far more than they need. If one hangs all the same, publishing goes on, and its subscribers find that
/// they have lost something.
pub(super) const ROOM_DEADLINE: Duration = Duration::from_secs(2);

/// What a channel is for its threads is not known here: it is `F`.
pub(super) struct Hub<F> {
    pub(super) limits: Limits,
    pub(super) ids: Ids,
    pub(super) order: Order<Shown<F>>,
    /// One for each fan-out thread.
    pub(super) notifiers: Vec<Notifier<Arc<F>>>,
    pub(super) counters: Counters,
    pub(super) reservations: Reservations,
    /// How many subscribers ever joined a lane.
    pub(super) joined: AtomicU64,
    started: Instant,
    is_stopped: AtomicBool,
}

/// The frame of an event as views show it, and the views of its channel.
pub(super) type Shown<F> = (Arc<[u8]>, Vec<Arc<F>>);

/// What the events that views wait with may take, in times of what a channel may keep. A disk that writes for a while should
/// not bring all subscribers of views back.
const WAITING_HISTORIES: usize = 16;

impl<F> Hub<F> {
    /// `show` brings an event into its views, in the order of the ids; `lose` tells them that they do not get it.
    pub(super) fn new(
        limits: Limits,
        fanout_threads: usize,
        show: fn(Id, Shown<F>),
        lose: fn(Id, Shown<F>),
    ) -> Arc<Hub<F>> {
        let history = limits.history_events.saturating_mul(120).saturating_add(limits.history_bytes);
        Arc::new(Hub {
            ids: Ids::new(),
            order: Order::new(history.saturating_mul(WAITING_HISTORIES), show, lose),
            limits,
            notifiers: (0..fanout_threads).map(|_| Notifier::new()).collect(),
            counters: Counters::default(),
            reservations: Reservations::default(),
            joined: AtomicU64::new(0),
            started: Instant::now(),
            is_stopped: AtomicBool::new(false),
        })
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// What an idle subscriber gets.
    pub(super) fn heartbeat(&self) -> &'static [u8] {
        if self.limits.heartbeat_event { HEARTBEAT_EVENT } else { HEARTBEAT }
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(SeqCst)
    }

    pub(super) fn stop(&self) {
        self.is_stopped.store(true, SeqCst);
        self.notifiers.iter().for_each(Notifier::close);
        // Replays that wait look again.
        self.order.between(&self.ids, |_| ());
    }
}
