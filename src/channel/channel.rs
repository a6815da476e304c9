//! A channel: publish once, reach every subscriber.
//!
//! One thread at a time owns a subscriber. The thread of its connection answers the request and writes what the client
//! missed. Then a fan-out thread has the subscriber in its lane, and writes what is published. When its socket has no
//! room, the subscriber gets a thread of its own until it has caught up. There is no queue per subscriber: each has a
//! position in the history, and replay and live delivery both ask the history what comes after it.

use super::asked::Asked;
use super::catch_up::{self, Filter};
use super::feed::Feed;
use super::id::Id;
use super::log::{LOG_DEADLINE, Log};
use super::members::{Change, Presence, User};
use super::publication::{Publication, PublishError, Published};
use super::start::Start;
use super::subscriber::Subscriber;
use crate::http::{Request, Response};
use crate::sse::{Emitter, Event, Message, event_stream, opening, refused_because};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// A named stream of events with any number of publishers and subscribers. Cloning it gives another handle to it.
///
/// ```
/// use newswire::channel::Limits;
/// use newswire::{Channels, Event, Router};
///
/// let channels = Channels::start(Limits::default())?;
/// let news = channels.open("news")?;
/// let mut router = Router::new();
/// let subscribed = news.clone();
/// router.get("/news", move |request| subscribed.subscribe(request));
/// let filtered = news.clone();
/// router.get("/sport", move |request| filtered.subscribe_filtered(request, |event| event.event_type == "sport"));
/// // From any thread, at any time:
/// let published = news.publish(Event::new("extra, extra"))?;
/// assert_eq!(published.subscribers, 0);
/// let published = news.publish_once("order-7", "paid")?;
/// assert_eq!(news.publish_once("order-7", "paid")?, published);
/// news.on_leave(|subscribers| println!("{subscribers} subscribers are left"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Channel {
    pub(super) feed: Arc<Feed>,
    log: Log,
    /// Of a view over Redis: its channels, in the order of their names. It keeps them in use.
    pub(super) channels: Vec<Channel>,
    _user: User,
}

/// What a channel looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// How many subscribers it has.
    pub subscribers: usize,
    /// How many events it keeps.
    pub events: usize,
    /// Their bytes, as they stand on the wire, and those of their keys.
    pub bytes: usize,
    /// The id of the oldest event that it keeps.
    pub first_id: Option<String>,
    /// The id of the newest event that it keeps.
    pub last_id: Option<String>,
    /// Whether it is completed, and nothing was published since.
    pub completed: bool,
    /// When the last event was published, in milliseconds since 1970; `None` before the first one.
    pub last_published_ms: Option<u64>,
}

impl Channel {
    pub(super) fn new(feed: &Arc<Feed>, log: &Log) -> Channel {
        let (feed, user) = (Arc::clone(feed), User::new(&feed.members));
        Channel { feed, log: log.clone(), channels: Vec::new(), _user: user }
    }

    /// A handle to a view, which has no log but those of its channels.
    pub(super) fn of_view(view: &Arc<Feed>, channels: Vec<Channel>) -> Channel {
        Channel { channels, ..Channel::new(view, &Log::Memory) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.feed.members.name
    }

    /// Sends an event to every subscriber, and keeps it for clients that come back.
    ///
    /// It never waits for a subscriber. When publishers are faster than the machine can write, it waits until the
    /// fan-out threads have copied what the event pushes out of the history.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(&self, event: impl Into<Event>) -> Result<Published, PublishError> {
        self.publish_encoded(&event.into(), None)
    }

    /// Publishes an event unless one with this key is still kept; then the result is that one's. A publisher that does
    /// not know whether its event arrived can publish it again.
    ///
    /// The key is 1 to 255 visible ASCII characters. It counts as bytes of the history, and is forgotten with its event.
    ///
    /// # Errors
    /// As [`publish`](Channel::publish). [`PublishError::KeyReused`] if another event was published with the key.
    pub fn publish_once(&self, key: &str, event: impl Into<Event>) -> Result<Published, PublishError> {
        self.publish_encoded(&event.into(), Some(key))
    }

    fn publish_encoded(&self, event: &Event, key: Option<&str>) -> Result<Published, PublishError> {
        let (hub, deadline) = (&self.feed.hub, Instant::now() + LOG_DEADLINE);
        let publication = Publication::new(event, key, hub.limits.history_bytes)?;
        let names = std::iter::once(self.name());
        let _reservation = hub.reservations.reserve(key, names, deadline)?;
        self.commit(publication, deadline)
    }

    /// Publishes an event. Its key is reserved.
    pub(super) fn commit(&self, publication: Publication, deadline: Instant) -> Result<Published, PublishError> {
        if self.feed.hub.is_stopped() {
            return Err(PublishError::Stopped);
        }
        let id = self.log.commit(&self.feed, Some(publication), deadline)?;
        Ok(Published { id: id.to_string(), subscribers: self.subscribers() })
    }

    /// Whether the key of an event, which is reserved, was another one's.
    pub(super) fn check(&self, publication: &Publication, deadline: Instant) -> Result<(), PublishError> {
        self.log.refresh(deadline)?;
        publication.find_in(&self.feed.lock().history).map(drop)
    }

    /// `false` only if nothing was published, by any server.
    pub(super) fn may_have_begun(&self, deadline: Instant) -> bool {
        let is_unknown = self.log.refresh(deadline).is_err();
        is_unknown || self.feed.members.has_begun()
    }

    /// Completes the channel: each subscriber gets what it lacks, then an event named `end`, and its response ends. A
    /// client that comes back and lacks nothing gets `204`, which stops an EventSource, until something is published.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`] and [`PublishError::Unknown`]; never while the log is in memory.
    pub fn complete(&self) -> Result<(), PublishError> {
        self.log.commit(&self.feed, None, Instant::now() + LOG_DEADLINE)?;
        self.feed.members.review();
        Ok(())
    }

    /// How many subscribers it has now, with those that have it among several channels.
    pub fn subscribers(&self) -> usize {
        self.feed.subscribers()
    }

    /// What it looks like now.
    pub fn summary(&self) -> Summary {
        Summary::new(&self.feed)
    }

    /// Calls back when a subscriber has joined, with the number of subscribers then.
    ///
    /// The call comes on the thread that noticed the change, and other subscribers may wait for it: return soon, and
    /// publish less than the history holds. A panic ends the call and nothing else. A callback that keeps a handle to the
    /// channel keeps the channel in use.
    pub fn on_join(&self, callback: impl Fn(usize) + Send + Sync + 'static) {
        self.feed.members.add_callback(Change::Joined, Arc::new(callback));
    }

    /// Calls back when a subscriber has left, for whatever reason, with the number of those that are left. Otherwise as
    /// [`on_join`](Channel::on_join).
    pub fn on_leave(&self, callback: impl Fn(usize) + Send + Sync + 'static) {
        self.feed.members.add_callback(Change::Left, Arc::new(callback));
    }

    /// The response that subscribes the client: the head, a comment and a reconnection time at once; then what it
    /// missed since its [`last_event_id`](crate::sse::last_event_id), or since the time in the query parameter `since`,
    /// then what is published from now on.
    ///
    /// If something may have been lost in between, the first event is named `gap`, with JSON that says which id the
    /// client named and which is the oldest still kept. It has no id, so that the browser's last event ID stays.
    pub fn subscribe(&self, request: &Request<'_>) -> Response {
        self.subscribe_with(request, None)
    }

    /// As [`subscribe`](Channel::subscribe), but the subscriber gets only the events that `accepts` returns `true` for.
    /// Its last event ID is that of the last event it got, so `accepts` sees some events again when the client comes
    /// back; `gap` and `end` are never filtered.
    ///
    /// Such a subscriber has a thread of its own, on which `accepts` runs. If that is slower than the publishers for
    /// long, the stream ends, and the client comes back. A panic in it ends this stream alone.
    pub fn subscribe_filtered(
        &self,
        request: &Request<'_>,
        accepts: impl FnMut(&Message) -> bool + Send + 'static,
    ) -> Response {
        self.subscribe_with(request, Some(Box::new(accepts)))
    }

    /// Where a client starts, and what there is for it now. `None` when the channel cannot be read.
    pub(super) fn start(&self, asked: &Asked) -> Option<Start> {
        self.start_before(asked, Instant::now() + LOG_DEADLINE)
    }

    fn start_before(&self, asked: &Asked, deadline: Instant) -> Option<Start> {
        if self.feed.hub.is_stopped() {
            return None;
        }
        let is_current = self.log.follow(&self.feed, asked.id(), deadline)?;
        let of_channel =
            |(at, it): (_, &Channel)| it.start_before(&asked.of_channel(at, self.channels.len()), deadline);
        let channels = self.channels.iter().enumerate().map(of_channel).collect::<Option<_>>()?;
        let mut start = Start::new(&self.feed, asked);
        start.channels = channels;
        // The history may have been completed since then, and another server may have sent more.
        start.is_finished &= is_current;
        Some(start)
    }

    fn subscribe_with(&self, request: &Request<'_>, filter: Option<Filter>) -> Response {
        let asked = Asked::by(request);
        let (is_replay, is_filtered) = (asked.is_some(), filter.is_some());
        let asked = asked.unwrap_or(Asked::Latest);
        // It counts from here on: a stream without subscribers is not followed for ever.
        let presence = Presence::new(&self.feed.members);
        let Some(start) = self.start(&asked) else {
            return refused_because("the channel cannot be read now");
        };
        if start.is_finished {
            return Emitter::finished();
        }
        self.feed.hub.counters.replays.fetch_add(u64::from(is_replay), Relaxed);
        let feed = Arc::clone(&self.feed);
        let response = event_stream(opening(), move |writer| {
            let (connection, head) = writer.into_parts();
            let subscriber = Subscriber::new(connection, presence, start.end);
            let outcome = catch_up::begin(&feed, subscriber, head, start, asked, filter);
            catch_up::count(&feed, outcome);
            Ok(())
        });
        match (is_replay, is_filtered) {
            (false, _) => response,
            (true, false) => response.joined(request),
            // A filter that panics costs its stream, and not the head of it.
            (true, true) => response.delayed(),
        }
    }
}

impl Summary {
    pub(super) fn new(feed: &Feed) -> Summary {
        let subscribers = feed.subscribers();
        let state = feed.lock();
        let last_id = state.history.last_id();
        // The last event may be forgotten by now. A history may begin without any.
        let has_had_some = state.history.end() > 0 && state.history.forgotten > Id::ZERO;
        let last_published = last_id.or(has_had_some.then_some(state.history.forgotten));
        Summary {
            name: feed.members.name.to_string(),
            subscribers,
            events: (state.history.end() - state.history.first) as usize,
            bytes: state.history.bytes,
            first_id: state.history.first_id().as_ref().map(Id::to_string),
            last_id: last_id.as_ref().map(Id::to_string),
            completed: state.is_completed(),
            last_published_ms: last_published.map(Id::ms),
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut channel = f.debug_struct("Channel");
        channel.field("name", &self.name()).field("subscribers", &self.subscribers()).finish_non_exhaustive()
    }
}
