//! A channel: one bounded log, many cursors, and the hand-over of a socket from the thread that
//! replays to the threads that fan out.
//!
//! A subscriber is owned by exactly one thread at a time. A connection's thread answers the request,
//! and one writes what the client has missed; then it is put in a [`Lane`], from which a fan-out
//! thread takes all that are there, writes to each and puts them back. Who has no room in its socket
//! gets a thread of its own until it has caught up. Replay and live delivery ask the log the same
//! question, "what comes after this cursor?", so that there is no seam between them.

use super::counters::Counters;
use super::history::{Batch, Cursor, EARLIEST, History};
use super::id::{Id, Ids};
use super::limits::Limits;
use super::notifier::Notifier;
use super::subscriber::{Departure, END, Presence, Subscriber, Written};
use crate::http::lock::hold;
use crate::http::{Request, Response};
use crate::sse::{Emitter, Event, event_stream, json_string, last_event_id, opening};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What one write of a replay carries; it bounds what a slow reader costs.
const REPLAY_BYTES: usize = 32 * 1024;

/// A thread that catches up copies and writes; it runs nobody's code.
const CATCH_UP_STACK_BYTES: usize = 64 * 1024;

/// How long a publisher waits for fan-out threads to copy what it would overwrite. They never wait
/// for a subscriber, so that this is far more than they need on any machine; past it the log moves
/// on and they find that they lost it.
const ROOM_DEADLINE: Duration = Duration::from_secs(2);

/// A publisher writes to so few subscribers itself, when its event is so long after the one before:
/// there is nothing to put together then, and waking a thread would take longer than the writes.
const FEW: usize = 4;
const APART: Duration = Duration::from_micros(500);

/// What all channels of a server share.
pub(crate) struct Common {
    pub(crate) limits: Limits,
    pub(crate) ids: Ids,
    /// One for each fan-out thread.
    pub(crate) notifiers: Vec<Notifier<Channel>>,
    pub(crate) counters: Counters,
    joined: AtomicU64,
    began: Instant,
}

impl Common {
    pub(crate) fn new(limits: Limits, fanout_threads: usize) -> Arc<Common> {
        Arc::new(Common {
            limits,
            ids: Ids::new(),
            notifiers: (0..fanout_threads).map(|_| Notifier::new()).collect(),
            counters: Counters::default(),
            joined: AtomicU64::new(0),
            began: Instant::now(),
        })
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// A named stream of events with any number of publishers and subscribers. Cloning it gives another
/// handle to the same.
///
/// ```
/// use newswire::{Event, Limits, Router};
/// use newswire::sse::Channels;
///
/// let channels = Channels::start(Limits::default())?;
/// let news = channels.open("news")?;
/// let mut router = Router::new();
/// let subscribed = news.clone();
/// router.get("/news", move |request| subscribed.subscribe(request));
/// // From any thread, at any time:
/// let published = news.publish(Event::new("extra, extra"))?;
/// assert_eq!(published.subscribers, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    common: Arc<Common>,
    /// Everyone who holds a place, wherever he stands.
    subscribers: Arc<AtomicUsize>,
    /// Who asked for it may publish.
    will_begin: AtomicBool,
    state: Mutex<State>,
    /// Frames that a publisher wants to overwrite have been copied.
    room: Condvar,
}

struct State {
    history: History,
    published_at: Option<Instant>,
    /// Publishers that wait for room.
    waiting: usize,
    /// How often the channel was completed, and where the log ended then.
    completions: u32,
    completed_at: Cursor,
    lanes: Vec<Lane>,
}

/// The subscribers with room that one fan-out thread writes to.
#[derive(Default)]
struct Lane {
    /// All stand at `copied`.
    subscribers: Vec<Subscriber>,
    /// Up to where the log was copied for them.
    copied: Cursor,
    /// Somebody has taken them out, to write to them. He looks for more to do when he puts them back.
    out: bool,
    /// Who has come since, each at a place of its own.
    newcomers: Vec<Subscriber>,
    /// The fan-out thread has been told, and has not come yet.
    rung: bool,
}

/// What was taken out of a lane.
struct Outing {
    lane: usize,
    subscribers: Vec<Subscriber>,
    completions: u32,
    completed_at: Cursor,
}

/// What publishing an event has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The event's id, `<unix-ms>-<n>`: larger than that of every event before it, in any channel
    /// of this server.
    pub id: String,
    /// How many subscribers the channel has now. Who of them will have read the event nobody can
    /// say.
    pub subscribers: usize,
}

/// An event that is larger than all that the channel may keep ([`Limits::history_bytes`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLargeToKeep;

impl fmt::Display for TooLargeToKeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the event is larger than all that its channel may keep")
    }
}

impl std::error::Error for TooLargeToKeep {}

/// What a channel looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// How many subscribe to it.
    pub subscribers: usize,
    /// How many events it keeps.
    pub events: usize,
    /// Their bytes, as they stand on the wire.
    pub bytes: usize,
    /// The id of the oldest event that it keeps.
    pub first_id: Option<String>,
    /// The id of the newest.
    pub last_id: Option<String>,
    /// Whether it is completed, and nothing was published since.
    pub completed: bool,
}

impl Channel {
    /// No event of it that anyone may have heard of has an id larger than `began`.
    pub(super) fn new(name: String, common: Arc<Common>, began: Id) -> Channel {
        let state = State {
            history: History::new(began),
            published_at: None,
            waiting: 0,
            completions: 0,
            completed_at: 0,
            lanes: common.notifiers.iter().map(|_| Lane::default()).collect(),
        };
        Channel {
            shared: Arc::new(Shared {
                name,
                common,
                subscribers: Arc::default(),
                will_begin: AtomicBool::new(false),
                state: Mutex::new(state),
                room: Condvar::new(),
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Sends an event to every subscriber, and keeps it for those who come back. An id it may have
    /// is replaced.
    ///
    /// It never waits for a subscriber. When publishers are faster than the machine can write, it
    /// waits until the fan-out threads have copied what the event will push out of the log.
    ///
    /// # Errors
    /// [`TooLargeToKeep`].
    pub fn publish(&self, event: Event) -> Result<Published, TooLargeToKeep> {
        let common = self.common();
        // Room is made for the longest id: counting the very one would need it before there is room
        // for it, and waiting for room lets others go first.
        let id_bytes = "id: 17592186044415-1048575\n".len();
        let most = common.limits.history_bytes.saturating_sub(id_bytes);
        let block = event.without_id().encoded_within(most).ok_or(TooLargeToKeep)?;
        let most_bytes = block.len() + id_bytes;
        let mut state = self.make_room(hold(&self.shared.state), most_bytes);
        let id = common.ids.next();
        let frame = format!("id: {id}\n{block}").into_bytes().into_boxed_slice();
        common.counters.events_published.fetch_add(1, Relaxed);
        common.counters.bytes_published.fetch_add(frame.len() as u64, Relaxed);
        state.history.append(id, frame);

        let subscribers = self.subscribers();
        let now = Instant::now();
        let before = state.published_at.replace(now);
        if subscribers <= FEW && before.is_none_or(|before| now - before >= APART) {
            self.deliver_all(state);
        } else {
            self.ring(state);
        }
        Ok(Published { id: id.to_string(), subscribers })
    }

    /// Moves the log's beginning so that another frame fits, but not past what is yet to be copied
    /// for subscribers with room.
    fn make_room<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        bytes: usize,
    ) -> MutexGuard<'s, State> {
        let limits = &self.common().limits;
        let mut deadline = None;
        loop {
            let first = state.history.first_after(
                bytes,
                limits.history_events.max(1),
                limits.history_bytes,
            );
            let now = Instant::now;
            if first <= state.needed_from() || deadline.is_some_and(|deadline| now() >= deadline) {
                state.history.forget_before(first);
                return state;
            }
            let deadline = *deadline.get_or_insert_with(|| now() + ROOM_DEADLINE);
            let wait = deadline.saturating_duration_since(now());
            state.waiting += 1;
            let waited = self.shared.room.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }

    /// Tells every fan-out thread that has subscribers here that there is something to do.
    fn ring(&self, mut state: MutexGuard<'_, State>) {
        let mut due = [false; MAX_FANOUT_THREADS];
        for (lane, due) in state.lanes.iter_mut().zip(&mut due) {
            *due = lane.is_to_ring();
        }
        drop(state);
        for (notifier, _) in self.common().notifiers.iter().zip(due).filter(|(_, due)| *due) {
            notifier.ring(self.clone());
        }
    }

    /// Writes to all subscribers with room, on this thread.
    fn deliver_all(&self, mut state: MutexGuard<'_, State>) {
        let mut batches = Vec::new();
        for lane in 0..state.lanes.len() {
            let mut batch = Batch::default();
            if let Some(outing) = state.take_out(lane, &mut batch) {
                batches.push((outing, batch));
            }
        }
        self.tell_of_room(state);
        for (outing, batch) in batches {
            self.write_and_put_back(outing, &batch);
        }
    }

    /// Writes to all subscribers in a lane all that each lacks. `false` when there are none.
    pub(super) fn deliver(&self, lane: usize, batch: &mut Batch) -> bool {
        let mut state = hold(&self.shared.state);
        let Some(outing) = state.take_out(lane, batch) else {
            return state.lanes[lane].out;
        };
        self.tell_of_room(state);
        self.write_and_put_back(outing, batch)
    }

    fn tell_of_room(&self, state: MutexGuard<'_, State>) {
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.shared.room.notify_all();
        }
    }

    fn write_and_put_back(&self, mut outing: Outing, batch: &Batch) -> bool {
        let (counters, now_ms) = (&self.common().counters, self.common().now_ms());
        let (mut events, mut bytes) = (0, 0);
        let (completions, completed_at) = (outing.completions, outing.completed_at);
        self.write_each(&mut outing.subscribers, |subscriber| {
            let before = subscriber.cursor;
            let ends_at = (subscriber.completions != completions).then_some(completed_at);
            let written = subscriber.write_batch(batch, ends_at);
            // Of a frame that is half written the rest will follow, or nobody will read it.
            let after = match &written {
                Written::Blocked { cursor, .. } => *cursor,
                _ => subscriber.cursor,
            };
            if after > before {
                subscriber.heard_ms = now_ms;
                events += after - before;
                bytes += batch.between(before, after).len() as u64;
            }
            written
        });
        counters.events_delivered.fetch_add(events, Relaxed);
        counters.bytes_delivered.fetch_add(bytes, Relaxed);
        self.put_back(outing)
    }

    /// Writes to those in a lane who have been left in silence long enough. `false` when there are
    /// none.
    pub(super) fn beat(&self, lane: usize) -> bool {
        let mut state = hold(&self.shared.state);
        let State { completions, completed_at, ref mut lanes, .. } = *state;
        let lane_state = &mut lanes[lane];
        if lane_state.out || lane_state.subscribers.is_empty() {
            return lane_state.out || !lane_state.newcomers.is_empty();
        }
        lane_state.out = true;
        let subscribers = std::mem::take(&mut lane_state.subscribers);
        drop(state);
        let mut outing = Outing { lane, subscribers, completions, completed_at };
        let now_ms = self.common().now_ms();
        self.write_each(&mut outing.subscribers, |subscriber| subscriber.beat(now_ms));
        self.put_back(outing)
    }

    /// Lets those go to whom `write` could not write all.
    fn write_each(
        &self,
        subscribers: &mut Vec<Subscriber>,
        mut write: impl FnMut(&mut Subscriber) -> Written,
    ) {
        let mut at = 0;
        while at < subscribers.len() {
            match write(&mut subscribers[at]) {
                Written::All => at += 1,
                Written::Departed(departure) => {
                    departure.count(&self.common().counters);
                    subscribers.swap_remove(at);
                }
                Written::Blocked { rest, cursor, ended } => {
                    let mut subscriber = subscribers.swap_remove(at);
                    subscriber.cursor = cursor;
                    self.catch_up_on_a_thread(subscriber, rest, ended);
                }
            }
        }
    }

    /// `false` when nobody is left to put back, nor has come meanwhile.
    fn put_back(&self, outing: Outing) -> bool {
        let mut state = hold(&self.shared.state);
        let State { history, completions, lanes, .. } = &mut *state;
        let lane = &mut lanes[outing.lane];
        lane.out = false;
        lane.subscribers = outing.subscribers;
        if lane.subscribers.capacity() > 4 * lane.subscribers.len() + 64 {
            lane.subscribers.shrink_to_fit();
        }
        let has_some = lane.has_some();
        let lags = lane.copied < history.end() || outing.completions != *completions;
        let is_to_ring = (lags || !lane.newcomers.is_empty()) && lane.is_to_ring();
        // If nobody is left here, nothing is to be copied for them.
        self.tell_of_room(state);
        if is_to_ring {
            self.common().notifiers[outing.lane].ring(self.clone());
        }
        has_some
    }

    /// Ends the story: each subscriber gets what it lacks, then an event named `end`, and its
    /// response ends. Who comes back and has heard everything is told `204`, which stops an
    /// EventSource, until something is published again.
    pub fn complete(&self) {
        let mut state = hold(&self.shared.state);
        state.completions += 1;
        state.completed_at = state.history.end();
        self.ring(state);
    }

    /// How many subscribe now.
    pub fn subscribers(&self) -> usize {
        self.shared.subscribers.load(Relaxed)
    }

    /// What it looks like now.
    pub fn summary(&self) -> Summary {
        let state = hold(&self.shared.state);
        Summary {
            name: self.name().to_owned(),
            subscribers: self.subscribers(),
            events: state.history.len(),
            bytes: state.history.bytes(),
            first_id: state.history.first_id().as_ref().map(Id::to_string),
            last_id: state.history.last_id().as_ref().map(Id::to_string),
            completed: state.is_completed(),
        }
    }

    /// Somebody may publish in it from now on.
    pub(super) fn will_begin(&self) {
        if !self.shared.will_begin.load(Relaxed) {
            self.shared.will_begin.store(true, Relaxed);
        }
    }

    /// Whether anybody could publish in it ever, or it was completed.
    pub(super) fn has_begun(&self) -> bool {
        self.shared.will_begin.load(Relaxed) || hold(&self.shared.state).completions > 0
    }

    /// The last event before the completion, if it is completed.
    pub(super) fn completed_after(&self) -> Option<Id> {
        let state = hold(&self.shared.state);
        state.is_completed().then(|| state.history.newest())
    }

    /// Whether nobody but the table of channels has a handle to it, which only the holder of the
    /// table can ask.
    pub(super) fn is_unattended(&self) -> bool {
        Arc::strong_count(&self.shared) == 1 && self.subscribers() == 0
    }

    /// The response that subscribes who asks: the head, a reconnection time and a comment at once;
    /// then what it has missed since its [`last_event_id`], then what is published from now on. Who
    /// names no id is given one with the comment, so that it can come back and miss nothing although
    /// it was cut off before its first event.
    ///
    /// When something may have been lost in between, the first event is named `gap`, with JSON that
    /// says what was asked for and what is the oldest still kept, and without an id, so that the
    /// browser's last event ID stays what it was.
    pub fn subscribe(&self, request: &Request<'_>) -> Response {
        let last_event_id = last_event_id(request);
        let (resumed, completions) = {
            let state = hold(&self.shared.state);
            let resumed = state.history.resume(last_event_id.as_deref());
            if state.is_completed() && resumed.cursor == state.history.end() {
                return Emitter::finished();
            }
            // Who comes after the completion, and has something left to hear, is one of those whom
            // it ends.
            let completions = state.completions - u32::from(state.is_completed());
            (resumed, completions)
        };
        let common = self.common();
        let presence = Presence::new(&self.shared.subscribers);
        let is_replay = last_event_id.is_some();
        if is_replay {
            common.counters.replays.fetch_add(1, Relaxed);
        }
        let channel = self.clone();
        let response = event_stream(opening(), move |writer| {
            let connection = writer.into_connection();
            let subscriber = Subscriber::new(connection, presence, resumed.cursor, completions);
            if let Err(departure) = channel.begin(subscriber, resumed.gap, last_event_id) {
                departure.count(&channel.common().counters);
            }
            Ok(())
        });
        if is_replay { response.delayed() } else { response }
    }

    /// The beginning of a stream: the event that tells of a gap, if there is one, and the first of what
    /// the log has, found at one moment and written together.
    fn begin(
        &self,
        mut subscriber: Subscriber,
        has_gap: bool,
        asked: Option<String>,
    ) -> Result<(), Departure> {
        let mut batch = Batch::default();
        let (overtaken, oldest) = {
            let state = hold(&self.shared.state);
            let first = state.history.first();
            // The log may have moved on while the connection rested.
            let overtaken = subscriber.cursor < first;
            subscriber.cursor = subscriber.cursor.max(first);
            state.copy_for(&subscriber, &mut batch);
            (overtaken, state.history.first_id())
        };
        let asked = asked.unwrap_or_default();
        let mut owed = Vec::new();
        if has_gap || (overtaken && asked != EARLIEST) {
            self.common().counters.gaps.fetch_add(1, Relaxed);
            owed = gap_event(&asked, oldest).into_bytes();
        }
        owed.extend_from_slice(batch.between(subscriber.cursor, Cursor::MAX));
        subscriber.write_blocking(&owed)?;
        self.count_delivered(&batch, subscriber.cursor);
        subscriber.cursor = batch.end();
        // To catch up may take long.
        drop((owed, batch));
        self.try_to_catch_up(subscriber, Vec::new(), false)
    }

    fn count_delivered(&self, batch: &Batch, from: Cursor) {
        let counters = &self.common().counters;
        let (events, bytes) = (batch.end() - from, batch.between(from, Cursor::MAX).len());
        counters.events_delivered.fetch_add(events, Relaxed);
        counters.bytes_delivered.fetch_add(bytes as u64, Relaxed);
    }

    fn catch_up_on_a_thread(&self, subscriber: Subscriber, owed: Vec<u8>, ended: bool) {
        let channel = self.clone();
        let thread =
            thread::Builder::new().name("catch-up".into()).stack_size(CATCH_UP_STACK_BYTES);
        if thread.spawn(move || channel.catch_up(subscriber, owed, ended)).is_err() {
            // The subscriber went with the closure. It will come back.
            Departure::Slow.count(&self.common().counters);
        }
    }

    /// Writes `owed`, then what the log has for the subscriber, on this thread and waiting for the
    /// client, until it lacks nothing; then puts it in a lane. `ended` says that `owed` is the last
    /// it is to get.
    fn catch_up(&self, subscriber: Subscriber, owed: Vec<u8>, ended: bool) {
        if let Err(departure) = self.try_to_catch_up(subscriber, owed, ended) {
            departure.count(&self.common().counters);
        }
    }

    fn try_to_catch_up(
        &self,
        mut subscriber: Subscriber,
        owed: Vec<u8>,
        ended: bool,
    ) -> Result<(), Departure> {
        subscriber.connection.set_nonblocking(false).map_err(|_| Departure::Left)?;
        subscriber.write_blocking(&owed)?;
        // It may be as large as an event, and the next one is copied before it would go by itself.
        drop(owed);
        if ended {
            subscriber.connection.linger();
            return Err(Departure::Completed);
        }
        let mut batch = Batch::default();
        loop {
            let is_over = {
                let state = hold(&self.shared.state);
                if subscriber.cursor < state.history.first() {
                    return Err(Departure::Slow);
                }
                state.copy_for(&subscriber, &mut batch)
            };
            let lacking = batch.between(subscriber.cursor, Cursor::MAX);
            if lacking.is_empty() && is_over {
                subscriber.write_blocking(END)?;
                subscriber.connection.linger();
                return Err(Departure::Completed);
            } else if lacking.is_empty() {
                return self.join(subscriber);
            }
            subscriber.write_blocking(lacking)?;
            self.count_delivered(&batch, subscriber.cursor);
            subscriber.cursor = batch.end();
        }
    }

    /// Changes hands. What was published since the subscriber was found to lack nothing is for the
    /// fan-out thread to write; the log waits for those in a lane.
    fn join(&self, mut subscriber: Subscriber) -> Result<(), Departure> {
        let common = self.common();
        subscriber.connection.set_nonblocking(true).map_err(|_| Departure::Left)?;
        let nth = common.joined.fetch_add(1, Relaxed);
        // Between half of the interval and all of it, spread by the golden ratio: not all are to be
        // written to in one instant.
        let half = common.limits.heartbeat.as_millis() as u64 / 2;
        let fraction = u64::from((nth as u32).wrapping_mul(0x9e37_79b9) >> 16);
        let patience = half + ((half.min(u64::from(u32::MAX)) * fraction) >> 16);
        subscriber.patience_ms = match patience {
            0 => u32::MAX,
            patience => u32::try_from(patience).unwrap_or(u32::MAX),
        };
        subscriber.heard_ms = common.now_ms();
        let lane = nth as usize % common.notifiers.len();
        let mut state = hold(&self.shared.state);
        if subscriber.cursor < state.history.first() {
            return Err(Departure::Slow);
        }
        let lane_state = &mut state.lanes[lane];
        lane_state.newcomers.push(subscriber);
        if lane_state.is_to_ring() {
            drop(state);
            common.notifiers[lane].ring(self.clone());
        }
        Ok(())
    }

    pub(super) fn common(&self) -> &Common {
        &self.shared.common
    }

    /// Which channel it is, for a table.
    pub(super) fn key(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }
}

/// No machine that we know has as many cores.
pub(super) const MAX_FANOUT_THREADS: usize = 64;

impl State {
    fn is_completed(&self) -> bool {
        self.completions > 0 && self.completed_at == self.history.end()
    }

    /// Copies some of what a subscriber lacks, and says whether it is to get the end behind all of it.
    fn copy_for(&self, subscriber: &Subscriber, batch: &mut Batch) -> bool {
        let is_over = subscriber.completions != self.completions;
        let until = if is_over { self.completed_at } else { self.history.end() };
        self.history.copy(subscriber.cursor, until, REPLAY_BYTES, batch);
        is_over
    }

    /// What is yet to be copied for subscribers with room begins here.
    fn needed_from(&self) -> Cursor {
        let needed = |lane: &Lane| {
            let copied = (lane.out || !lane.subscribers.is_empty()).then_some(lane.copied);
            let newcomers = lane.newcomers.iter().map(|newcomer| newcomer.cursor);
            newcomers.chain(copied).min()
        };
        self.lanes.iter().filter_map(needed).min().unwrap_or(Cursor::MAX)
    }

    /// Takes all subscribers out of a lane, and copies what they lack. `None` when there are none, or
    /// somebody else has them.
    fn take_out(&mut self, lane: usize, batch: &mut Batch) -> Option<Outing> {
        let lane_state = &mut self.lanes[lane];
        lane_state.rung = false;
        if lane_state.out || !lane_state.has_some() {
            return None;
        }
        let copied = (!lane_state.subscribers.is_empty()).then_some(lane_state.copied);
        let newcomers = lane_state.newcomers.iter().map(|newcomer| newcomer.cursor);
        let earliest = newcomers.chain(copied).min().unwrap_or(0);
        let (first, end) = (self.history.first(), self.history.end());
        self.history.copy(earliest.max(first), end, usize::MAX, batch);
        lane_state.copied = end;
        lane_state.out = true;
        let mut subscribers = std::mem::take(&mut lane_state.subscribers);
        subscribers.append(&mut lane_state.newcomers);
        Some(Outing {
            lane,
            subscribers,
            completions: self.completions,
            completed_at: self.completed_at,
        })
    }
}

impl Lane {
    fn has_some(&self) -> bool {
        !self.subscribers.is_empty() || !self.newcomers.is_empty()
    }

    /// Whether the fan-out thread is to be told now; then it counters as told. Who has the subscribers
    /// out needs no telling.
    fn is_to_ring(&mut self) -> bool {
        !self.out && self.has_some() && !std::mem::replace(&mut self.rung, true)
    }
}

/// The event that tells a client of what it has missed.
fn gap_event(asked: &str, oldest: Option<Id>) -> String {
    // A mad id may be as long as a head.
    let asked: String = asked.chars().take(64).collect();
    let oldest = oldest.map_or("null".to_owned(), |id| format!("\"{id}\""));
    let gap = Event::new(format!("{{\"asked\":{},\"oldest\":{oldest}}}", json_string(&asked)));
    gap.name("gap").map(|gap| gap.to_string()).unwrap_or_default()
}
