//! A channel: one bounded log, many cursors, and the hand-over of a socket from the thread that
//! replays to the threads that fan out.
//!
//! A subscriber is owned by exactly one thread at a time. Its connection's own thread answers the
//! request and writes what the client has missed; then the subscriber is put in a [`Lane`] and
//! belongs to a fan-out thread. Replay and live delivery ask the log the same question, "what comes
//! after this cursor?", so that there is no seam between them.

use super::emitter::{
    CONTENT_TYPE, Emitter, jittered, last_event_id, let_head_pass, opening, with_stream_fields,
};
use super::event::Event;
use super::history::{Batch, Cursor, History};
use super::id::{Id, Ids};
use crate::Limits;
use crate::http::connection::Connection;
use crate::http::{Request, Response};
use crate::lock::hold;
use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What one write of a replay carries; it bounds what a slow reader costs.
const REPLAY_BYTES: usize = 32 * 1024;

/// How long a publisher waits for fan-out threads to copy what it would overwrite. They never wait
/// for a subscriber, so that this is far more than they need on any machine; past it the log moves
/// on and they find that they lost it.
const ROOM_DEADLINE: Duration = Duration::from_secs(2);

/// What all channels of a server share.
pub(crate) struct Common {
    pub(crate) limits: Limits,
    pub(crate) ids: Ids,
    pub(crate) bells: Vec<Bell>,
    pub(crate) counts: Counts,
    pub(crate) subscribers: AtomicUsize,
    next_lane: AtomicUsize,
}

/// Counters since the server began.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) events_published: AtomicU64,
    pub(crate) bytes_published: AtomicU64,
    pub(crate) events_delivered: AtomicU64,
    pub(crate) bytes_delivered: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) left: AtomicU64,
    pub(crate) slow: AtomicU64,
    pub(crate) stalled: AtomicU64,
    pub(crate) completed: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Common {
    pub(crate) fn new(limits: Limits, fanout_threads: usize) -> Arc<Common> {
        Arc::new(Common {
            limits,
            ids: Ids::new(),
            bells: (0..fanout_threads).map(|_| Bell::default()).collect(),
            counts: Counts::default(),
            subscribers: AtomicUsize::new(0),
            next_lane: AtomicUsize::new(0),
        })
    }
}

/// How a fan-out thread is told which channels have something for it.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    wake: Condvar,
}

#[derive(Default)]
struct Rung {
    by: VecDeque<Channel>,
    asleep: bool,
}

impl Bell {
    fn ring(&self, channel: Channel) {
        let mut rung = hold(&self.rung);
        rung.by.push_back(channel);
        // Who is awake looks again before sleeping; a system call is spent only on who sleeps.
        if std::mem::take(&mut rung.asleep) {
            drop(rung);
            self.wake.notify_one();
        }
    }

    /// The next channel, or `None` when `deadline` has passed; without one it waits for good.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<Channel> {
        let mut rung = hold(&self.rung);
        loop {
            if let Some(channel) = rung.by.pop_front() {
                return Some(channel);
            }
            rung.asleep = true;
            rung = match deadline {
                None => self.wake.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let wait = deadline.saturating_duration_since(Instant::now());
                    if wait.is_zero() {
                        rung.asleep = false;
                        return None;
                    }
                    self.wake
                        .wait_timeout(rung, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
            rung.asleep = false;
        }
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
    /// Everyone who holds a subscription, wherever he stands.
    subscribers: AtomicUsize,
    state: Mutex<State>,
    /// A fan-out thread has copied frames that a publisher wants to overwrite.
    room: Condvar,
}

struct State {
    history: History,
    /// How often the channel was completed, and where the log ended then.
    completions: u32,
    completed_at: Cursor,
    lanes: Vec<Lane>,
}

/// Where subscribers change hands, for one fan-out thread.
#[derive(Default)]
struct Lane {
    newcomers: Vec<Subscriber>,
    /// Up to where the fan-out thread has copied the log; `None` while it has no subscriber of this
    /// channel.
    copied: Option<Cursor>,
    rung: bool,
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
    pub(super) fn new(name: String, common: Arc<Common>) -> Channel {
        let lanes = common.bells.iter().map(|_| Lane::default()).collect();
        let history = History::new(common.ids.last());
        let state = State {
            history,
            completions: 0,
            completed_at: 0,
            lanes,
        };
        let subscribers = AtomicUsize::new(0);
        Channel {
            shared: Arc::new(Shared {
                name,
                common,
                subscribers,
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
        let shared = &*self.shared;
        let limits = &shared.common.limits;
        let event = event.without_id().to_string();
        let mut state = hold(&shared.state);
        // The longest id has 26 digits; counting it exactly would need it before there is room for
        // it.
        let bytes = event.len() + "id: \n".len() + 26;
        if bytes > limits.history_bytes {
            return Err(TooLargeToKeep);
        }
        state = self.make_room(state, bytes);
        let id = shared.common.ids.next();
        let frame = format!("id: {id}\n{event}").into_bytes().into_boxed_slice();
        shared.common.counts.events_published.fetch_add(1, Relaxed);
        shared
            .common
            .counts
            .bytes_published
            .fetch_add(frame.len() as u64, Relaxed);
        state.history.append(id, frame);
        self.ring(state);
        Ok(Published {
            id: id.to_string(),
            subscribers: self.subscribers(),
        })
    }

    /// Moves the log's beginning so that another frame fits, but not past what a fan-out thread has
    /// yet to copy.
    fn make_room<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        bytes: usize,
    ) -> MutexGuard<'s, State> {
        let shared = &*self.shared;
        let limits = &shared.common.limits;
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
            state = shared
                .room
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Tells every fan-out thread that has subscribers here that there is something to do.
    fn ring(&self, mut state: MutexGuard<'_, State>) {
        let mut due = [false; MAX_FANOUT_THREADS];
        for (lane, due) in state.lanes.iter_mut().zip(&mut due) {
            if !lane.rung && (lane.copied.is_some() || !lane.newcomers.is_empty()) {
                lane.rung = true;
                *due = true;
            }
        }
        drop(state);
        for (bell, _) in self
            .shared
            .common
            .bells
            .iter()
            .zip(due)
            .filter(|(_, due)| *due)
        {
            bell.ring(self.clone());
        }
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

    /// The response that subscribes who asks: the head, a reconnection time and a comment at once,
    /// then what it has missed since its [`last_event_id`], then what is published from now on.
    ///
    /// When something may have been lost in between, the first event is named `gap`, with JSON that
    /// says what was asked for and what is the oldest still kept, and without an id, so that the
    /// browser's last event ID stays what it was.
    pub fn subscribe(&self, request: &Request<'_>) -> Response {
        let last_event_id = last_event_id(request);
        let counts = &self.shared.common.counts;
        let (resumption, completions, oldest) = {
            let state = hold(&self.shared.state);
            let resumption = state.history.resume(last_event_id.as_deref());
            if state.is_completed() && resumption.cursor == state.history.end() {
                return Emitter::finished();
            }
            // Who comes after the completion, and has something left to hear, is one of those whom
            // it ends.
            let completions = state.completions - u32::from(state.is_completed());
            (resumption, completions, state.history.first_id())
        };
        let Some(place) = Place::take(self) else {
            return refused(&self.shared.common);
        };
        if last_event_id.is_some() {
            counts.replays.fetch_add(1, Relaxed);
        }
        let gap = resumption.gap.then(|| {
            counts.gaps.fetch_add(1, Relaxed);
            gap_event(last_event_id.as_deref().unwrap_or_default(), oldest).into_bytes()
        });
        let take = move |connection| {
            let subscriber = Subscriber {
                connection,
                place,
                cursor: resumption.cursor,
                completions,
            };
            if last_event_id.is_some() {
                let_head_pass();
            }
            subscriber.catch_up(&gap.unwrap_or_default(), false);
        };
        with_stream_fields(Response::hand_over(CONTENT_TYPE, opening("newswire"), take))
    }

    /// What the fan-out thread of this lane has to do; `has_subscribers` says whether any of its
    /// own are left.
    pub(super) fn take_up(&self, lane: usize, has_subscribers: bool, batch: &mut Batch) -> Work {
        let mut state = hold(&self.shared.state);
        let State {
            history,
            completions,
            completed_at,
            lanes,
        } = &mut *state;
        let lane = &mut lanes[lane];
        lane.rung = false;
        let newcomers = std::mem::take(&mut lane.newcomers);
        let places = newcomers.iter().map(|newcomer| newcomer.cursor);
        let earliest = lane
            .copied
            .filter(|_| has_subscribers)
            .into_iter()
            .chain(places)
            .min();
        let from = earliest.map_or(history.end(), |earliest| earliest.max(history.first()));
        history.copy(from, history.end(), usize::MAX, batch);
        lane.copied = earliest.map(|_| batch.end());
        let work = Work {
            newcomers,
            completions: *completions,
            completed_at: *completed_at,
        };
        drop(state);
        self.shared.room.notify_all();
        work
    }

    pub(super) fn common(&self) -> &Common {
        &self.shared.common
    }

    /// Which channel it is, for a table.
    pub(super) fn key(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }
}

/// What a fan-out thread finds when it takes up a channel, beside the batch.
pub(super) struct Work {
    pub(super) newcomers: Vec<Subscriber>,
    pub(super) completions: u32,
    pub(super) completed_at: Cursor,
}

/// No machine that we know has as many cores.
pub(super) const MAX_FANOUT_THREADS: usize = 64;

impl State {
    fn is_completed(&self) -> bool {
        self.completions > 0 && self.completed_at == self.history.end()
    }

    /// What fan-out threads have not copied yet begins here.
    fn needed_from(&self) -> Cursor {
        let needed = |lane: &Lane| {
            lane.copied
                .into_iter()
                .chain(lane.newcomers.iter().map(|newcomer| newcomer.cursor))
                .min()
        };
        self.lanes
            .iter()
            .filter_map(needed)
            .min()
            .unwrap_or(Cursor::MAX)
    }
}

/// A subscriber's place among those whom the limits admit.
pub(super) struct Place {
    channel: Channel,
}

impl Place {
    fn take(channel: &Channel) -> Option<Place> {
        let common = channel.common();
        let below =
            |subscribers| (subscribers < common.limits.subscribers).then_some(subscribers + 1);
        common
            .subscribers
            .fetch_update(Relaxed, Relaxed, below)
            .ok()?;
        channel.shared.subscribers.fetch_add(1, Relaxed);
        Some(Place {
            channel: channel.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.channel.shared.subscribers.fetch_sub(1, Relaxed);
        self.channel.common().subscribers.fetch_sub(1, Relaxed);
    }
}

/// A client of a channel: its connection, and where in the log it stands. Dropping it closes the
/// one and frees its places.
pub(super) struct Subscriber {
    pub(super) connection: Connection,
    pub(super) cursor: Cursor,
    /// How many completions of the channel it has not been part of: any later one ends it.
    pub(super) completions: u32,
    place: Place,
}

/// The last event of a completed channel's streams. It has no id, and some data, without which it
/// would not be dispatched.
pub(super) const END: &[u8] = b"event: end\ndata: the channel is completed\n\n";

/// Why a subscriber is no more.
pub(super) enum Departure {
    /// The client closed its connection, or it broke.
    Left,
    /// It took nothing for [`Limits::write_stall`].
    Stalled,
    /// The log moved past it, or there was no thread for it.
    Slow,
    Completed,
}

impl Departure {
    pub(super) fn count(self, counts: &Counts) {
        let counter = match self {
            Departure::Left => &counts.left,
            Departure::Stalled => &counts.stalled,
            Departure::Slow => &counts.slow,
            Departure::Completed => &counts.completed,
        };
        counter.fetch_add(1, Relaxed);
    }
}

impl Subscriber {
    /// Writes `owed`, then what the log has for it, on this thread and waiting for the client,
    /// until it has all; then gives it to a fan-out thread. `ended` says that `owed` is the last it
    /// is to get.
    pub(super) fn catch_up(self, owed: &[u8], ended: bool) {
        let channel = self.place.channel.clone();
        if let Err(departure) = self.try_to_catch_up(&channel, owed, ended) {
            departure.count(&channel.common().counts);
        }
    }

    fn try_to_catch_up(
        mut self,
        channel: &Channel,
        owed: &[u8],
        ended: bool,
    ) -> Result<(), Departure> {
        let counts = &channel.common().counts;
        self.connection
            .set_nonblocking(false)
            .map_err(|_| Departure::Left)?;
        self.write(owed)?;
        if ended {
            self.connection.linger();
            return Err(Departure::Completed);
        }
        let mut batch = Batch::default();
        loop {
            let is_over = {
                let state = hold(&channel.shared.state);
                if self.cursor < state.history.first() {
                    return Err(Departure::Slow);
                }
                let is_over = self.completions != state.completions;
                let until = if is_over {
                    state.completed_at
                } else {
                    state.history.end()
                };
                state
                    .history
                    .copy(self.cursor, until, REPLAY_BYTES, &mut batch);
                is_over
            };
            let lacking = batch.between(self.cursor, Cursor::MAX);
            if lacking.is_empty() && is_over {
                self.write(END)?;
                self.connection.linger();
                return Err(Departure::Completed);
            } else if lacking.is_empty() {
                return self.join(channel);
            }
            self.write(lacking)?;
            counts
                .events_delivered
                .fetch_add(batch.end() - self.cursor, Relaxed);
            counts
                .bytes_delivered
                .fetch_add(lacking.len() as u64, Relaxed);
            self.cursor = batch.end();
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Departure> {
        (&mut &*self.connection)
            .write_all(bytes)
            .map_err(|error| match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Departure::Stalled,
                _ => Departure::Left,
            })
    }

    /// Changes hands. What was published since it was found to lack nothing is for the fan-out
    /// thread to write; the log waits for those in a lane.
    fn join(self, channel: &Channel) -> Result<(), Departure> {
        let common = channel.common();
        self.connection
            .set_nonblocking(true)
            .map_err(|_| Departure::Left)?;
        let lane = common.next_lane.fetch_add(1, Relaxed) % common.bells.len();
        let mut state = hold(&channel.shared.state);
        if self.cursor < state.history.first() {
            return Err(Departure::Slow);
        }
        state.lanes[lane].newcomers.push(self);
        channel.ring(state);
        Ok(())
    }
}

/// The event that tells a client of what it has missed.
fn gap_event(asked: &str, oldest: Option<Id>) -> String {
    // A mad id may be as long as a head.
    let asked: String = asked.chars().take(64).collect();
    let oldest = oldest.map_or("null".to_owned(), |id| format!("\"{id}\""));
    let gap = Event::new(format!(
        "{{\"asked\":{},\"oldest\":{oldest}}}",
        json_string(&asked)
    ));
    gap.name("gap")
        .map(|gap| gap.to_string())
        .unwrap_or_default()
}

/// A JSON string (RFC 8259, 7), in ASCII letters wherever a reader might stumble.
pub(crate) fn json_string(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            ' '..='~' => json.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    json.push('"');
    json
}

/// For a subscriber too many. Any status but `200` would end a browser's EventSource for good; so
/// it gets a stream, a longer reconnection time, and the end.
pub(crate) fn refused(common: &Common) -> Response {
    common.counts.refused.fetch_add(1, Relaxed);
    let mut opening = Vec::new();
    Event::comment("no room for another subscriber now; come back later")
        .reconnection_time(jittered(Duration::from_secs(5)))
        .encode(&mut opening);
    with_stream_fields(Response::stream(CONTENT_TYPE, opening, |_| Ok(())))
}
