//! The table of channels: names to channels, and how many there may be.

use super::channel::{Channel, Summary};
use super::fanout;
use super::feed::{Counters, Feed, Hub, MAX_FANOUT_THREADS};
use super::history::History;
use super::id::Id;
use super::limits::Limits;
use super::log::Log;
use super::members::{Listing, Members};
use super::notifier::Wake;
use crate::http::lock::hold;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle, available_parallelism};
use std::time::{Duration, Instant};

/// How many channels expire, at most, while the table is locked.
const EXPIRED_AT_ONCE: usize = 64;

/// All channels of a server, and the threads that fan out: as many as the machine has cores. Cloning it gives another
/// handle. [`Channel`] has an example.
#[derive(Clone)]
pub struct Channels {
    hub: Arc<Hub>,
    table: Arc<Mutex<Table>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

struct Table {
    hub: Arc<Hub>,
    channels: BTreeMap<Arc<str>, Entry>,
    /// How many of them were opened to publish, or completed. Subscribers have asked for the others, each of which goes
    /// with its last subscriber.
    claimed: usize,
    /// Those that keep something and that nothing uses, in the order in which they are evicted.
    unused: BTreeSet<(Unused, Arc<str>)>,
    /// No event of an evicted channel has a larger id; at first, the time at which the server started. The history of a
    /// new channel starts here.
    forgotten: Id,
}

struct Entry {
    feed: Arc<Feed>,
    log: Log,
    is_claimed: bool,
    /// Its key in `unused`. Each handle comes from the table, which takes the channel out of `unused` then.
    unused: Option<Unused>,
}

/// A channel without a handle and without a subscriber, or a completed one without a handle. The one unused for longest is
/// evicted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Unused {
    /// Its subscribers have not read all yet, perhaps on purpose. It is evicted after all others, and they are told of a
    /// gap when they come back.
    is_read: bool,
    /// On the clock of the hub.
    since: Duration,
}

/// Why there is no such channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChannel {
    /// The name is not one.
    Name,
    /// There are [`Limits::channels`] already, and each of them is in use.
    Full,
}

impl NoChannel {
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            NoChannel::Name => {
                "A channel's name is 1 to 64 letters, digits, dots, underscores and hyphens, and does not begin with a dot."
            }
            NoChannel::Full => {
                "There are as many channels as this server may have, and each of them is in use."
            }
        }
    }
}

impl fmt::Display for NoChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for NoChannel {}

impl Channels {
    /// Starts the threads that write to subscribers. They run until [`stop`](Channels::stop).
    ///
    /// # Errors
    /// When the system refuses a thread; and an [`InvalidLimits`](crate::http::InvalidLimits), as [`Limits::check`].
    pub fn start(limits: Limits) -> io::Result<Channels> {
        limits.check()?;
        let threads = available_parallelism().map_or(1, |cores| cores.get());
        let hub = Hub::new(limits, threads.min(MAX_FANOUT_THREADS));
        let threads = fanout::start(&hub).inspect_err(|_| hub.stop())?;
        let table = Table {
            hub: Arc::clone(&hub),
            channels: BTreeMap::new(),
            claimed: 0,
            unused: BTreeSet::new(),
            forgotten: hub.ids.last(),
        };
        let (table, threads) = (Arc::new(Mutex::new(table)), Arc::new(Mutex::new(threads)));
        let channels = Channels { hub, table, threads };
        channels.start_timer().inspect_err(|_| channels.stop())?;
        Ok(channels)
    }

    /// Whether a channel can have this name: 1 to 64 ASCII letters, digits, dots, underscores and hyphens, and no dot at
    /// the beginning.
    pub fn is_name(name: &str) -> bool {
        let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(may_stand)
    }

    /// The channel of this name, to publish on it. It is created if it does not exist.
    ///
    /// # Errors
    /// [`NoChannel`].
    pub fn open(&self, name: &str) -> Result<Channel, NoChannel> {
        check_name(name)?;
        // Dropped after the lock is free: a callback of a channel may own the last handle to another one.
        let mut evicted = Vec::new();
        let table = &mut *hold(&self.table);
        let is_claimed = table.channels.get(name).is_some_and(|entry| entry.is_claimed);
        if !is_claimed && !table.make_room(&mut evicted) {
            return Err(NoChannel::Full);
        }
        let channel = self.channel(table, name);
        table.claim(&channel.feed.members);
        Ok(channel)
    }

    /// The channel of this name, to subscribe to it. Anyone may ask for any name, so this evicts nothing, and such
    /// channels do not count against those that were opened to publish: each goes with its last subscriber, so the bound
    /// of subscribers is theirs. A bound of their own would let a client keep others out with names that it invents.
    pub(crate) fn open_to_subscribe(&self, name: &str) -> Result<Channel, NoChannel> {
        check_name(name)?;
        Ok(self.channel(&mut hold(&self.table), name))
    }

    fn channel(&self, table: &mut Table, name: &str) -> Channel {
        if let Some(channel) = table.find(name) {
            return channel;
        }
        let name: Arc<str> = name.into();
        let listing: Weak<dyn Listing> = Arc::<Mutex<Table>>::downgrade(&self.table);
        let members = Members::new(Arc::clone(&name), listing);
        let feed = Feed::new(&self.hub, members, History::new(table.forgotten), false);
        let log = Log::Memory;
        let channel = Channel::new(&feed, &log);
        table.channels.insert(name, Entry { feed, log, is_claimed: false, unused: None });
        channel
    }

    /// The channel of this name, if it exists.
    pub fn find(&self, name: &str) -> Option<Channel> {
        hold(&self.table).find(name)
    }

    /// All channels, by name.
    pub fn list(&self) -> Vec<Summary> {
        // The lock is held for the copy only: other threads open channels meanwhile.
        feeds(&self.table).iter().map(|feed| Summary::new(feed)).collect()
    }

    /// Starts the thread that lets channels and events go by their age, if any of them may.
    fn start_timer(&self) -> io::Result<()> {
        let Some(pause) = self.hub.limits.timer_pause() else { return Ok(()) };
        let (hub, table) = (Arc::clone(&self.hub), Arc::downgrade(&self.table));
        let run = move || {
            while let Wake::DeadlinePassed = hub.timer.wait(Some(Instant::now() + pause)) {
                // The program has no handle to the channels any more.
                let Some(table) = table.upgrade() else { return };
                expire(&hub, &table);
            }
        };
        let thread = thread::Builder::new().name("timer".into()).spawn(run)?;
        hold(&self.threads).push(thread);
        Ok(())
    }

    /// Ends the streams of all subscribers, tells them when to reconnect, and ends the threads that fan out. A
    /// subscriber that is just being written to on a thread of its own ends soon after. From now on nothing can be
    /// published, and a client that subscribes is told to come back later. A second call changes nothing.
    pub fn stop(&self) {
        self.hub.stop();
        for feed in feeds(&self.table) {
            feed.changed(&feed.lock());
        }
        let threads = std::mem::take(&mut *hold(&self.threads));
        // A callback that stops the channels runs on one of the threads itself.
        let others = threads.into_iter().filter(|it| it.thread().id() != thread::current().id());
        others.for_each(|thread| drop(thread.join()));
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.hub.counters
    }
}

/// Lets channels and events go that are too old. It locks the table for a moment at a time.
fn expire(hub: &Hub, table: &Mutex<Table>) {
    let Limits { channel_idle, history_age, .. } = hub.limits;
    if !channel_idle.is_zero()
        && let Some(before) = hub.uptime().checked_sub(channel_idle)
    {
        loop {
            // Dropped after the lock is free.
            let mut expired = Vec::new();
            hold(table).expire(before, &mut expired);
            hub.counters.channels_expired.fetch_add(expired.len() as u64, Relaxed);
            if expired.is_empty() {
                break;
            }
        }
    }
    if !history_age.is_zero() {
        feeds(table).iter().for_each(|feed| feed.expire(&mut feed.lock()));
    }
}

fn feeds(table: &Mutex<Table>) -> Vec<Arc<Feed>> {
    hold(table).channels.values().map(|entry| Arc::clone(&entry.feed)).collect()
}

fn check_name(name: &str) -> Result<(), NoChannel> {
    if Channels::is_name(name) { Ok(()) } else { Err(NoChannel::Name) }
}

impl Table {
    /// `None` for a channel that is not in the table any more.
    fn entry(&mut self, members: &Members) -> Option<&mut Entry> {
        let entry = self.channels.get_mut(&members.name)?;
        std::ptr::eq(&*entry.feed.members, members).then_some(entry)
    }

    fn claim(&mut self, members: &Members) {
        if let Some(entry) = self.entry(members)
            && !std::mem::replace(&mut entry.is_claimed, true)
        {
            self.claimed += 1;
        }
    }

    /// A handle to a channel.
    fn find(&mut self, name: &str) -> Option<Channel> {
        let entry = self.channels.get_mut(name)?;
        if let Some(unused) = entry.unused.take() {
            self.unused.remove(&(unused, Arc::clone(&entry.feed.members.name)));
        }
        Some(Channel::new(&entry.feed, &entry.log))
    }

    /// Whether one more channel can be claimed. Evicts as many as it takes.
    fn make_room(&mut self, evicted: &mut Vec<Entry>) -> bool {
        while self.claimed >= self.hub.limits.channels {
            let Some(entry) = self.evict() else { return false };
            self.hub.counters.channels_evicted.fetch_add(1, Relaxed);
            evicted.push(entry);
        }
        true
    }

    /// Evicts the channel that is unused for longest. Nothing can be published on it meanwhile: a handle would have to come
    /// from this table.
    fn evict(&mut self) -> Option<Entry> {
        let (_, name) = self.unused.pop_first()?;
        let entry = self.channels.remove(&name)?;
        self.forgotten = self.forgotten.max(entry.feed.forget());
        self.claimed -= usize::from(entry.is_claimed);
        Some(entry)
    }

    /// Evicts the channels that are unused since `before`, or some of them.
    fn expire(&mut self, before: Duration, expired: &mut Vec<Entry>) {
        while expired.len() < EXPIRED_AT_ONCE
            && let Some((Unused { is_read: false, since }, _)) = self.unused.first()
            && *since <= before
        {
            expired.extend(self.evict());
        }
    }
}

impl Listing for Mutex<Table> {
    fn review(&self, members: &Members) {
        // Dropped after the lock is free.
        let mut removed = Vec::new();
        let table = &mut *hold(self);
        let now = table.hub.uptime();
        let Some(entry) = table.entry(members) else { return };
        let users = members.without_handle();
        if !members.has_begun() {
            if users == Some(0) {
                table.claimed -= usize::from(entry.is_claimed);
                removed.extend(table.channels.remove(&members.name));
            }
            return;
        }
        let is_unused = |users: &u64| *users == 0 || members.is_completed();
        let unused = users.filter(is_unused).map(|users| Unused { is_read: users > 0, since: now });
        let before = std::mem::replace(&mut entry.unused, unused);
        let key = |unused| (unused, Arc::clone(&members.name));
        if let Some(before) = before {
            table.unused.remove(&key(before));
        }
        table.unused.extend(unused.map(key));
        // It was perhaps only asked for by subscribers. It keeps something now, and counts, so another one goes.
        table.claim(members);
        while table.claimed > table.hub.limits.channels
            && let Some(entry) = table.evict()
        {
            removed.push(entry);
        }
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels")
            .field("channels", &hold(&self.table).channels.len())
            .field("limits", &self.hub.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Router, Server};
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;

    /// Otherwise the table would wait for a publisher.
    #[test]
    fn the_history_of_a_channel_with_a_handle_is_not_looked_at_to_evict_one() {
        let channels = Channels::start(Limits { channels: 1, ..Limits::default() });
        let channels = channels.expect("it starts");
        let channel = channels.open("c").expect("there is room");
        channel.complete().expect("it is in memory");
        let feed = Arc::clone(&hold(&channels.table).channels["c"].feed);
        let history = feed.lock();
        let (sender, receiver) = mpsc::channel();
        let others = channels.clone();
        thread::spawn(move || sender.send(others.open("d").err()));
        let refused = receiver.recv_timeout(Duration::from_secs(60));
        assert_eq!(refused, Ok(Some(NoChannel::Full)));
        drop(history);
    }

    #[test]
    fn a_channel_that_is_used_often_stands_at_most_once_among_the_unused_ones() {
        let channels = Channels::start(Limits::default()).expect("it starts");
        let channel = channels.open("c").expect("it is a name");
        for number in 0..100 {
            channel.publish(number.to_string()).expect("it is small");
            channel.complete().expect("it is in memory");
            assert_eq!(hold(&channels.table).unused.len(), 0);
            drop(channels.find("c"));
            assert_eq!(hold(&channels.table).unused.len(), 0, "another handle is left");
        }
        drop(channel);
        for _ in 0..100 {
            drop(channels.find("c"));
            assert_eq!(hold(&channels.table).unused.len(), 1);
        }
    }

    #[test]
    fn an_event_that_is_too_old_is_not_sent_although_the_timer_has_not_come_yet() {
        let limits = Limits { history_age: Duration::from_secs(3600), ..Limits::default() };
        let channels = Channels::start(limits).expect("it starts");
        let channel = channels.open("c").expect("it is a name");
        let id = Id::parse("1-1").expect("it has the form of an id");
        channel.feed.lock().history.append(id, b"data: old\n\n"[..].into(), None);
        channel.publish("young").expect("it is small");
        let mut router = Router::new();
        router.get("/", move |request| channel.subscribe(request));
        let server = Server::bind("127.0.0.1:0").expect("there is a free port");
        let mut client =
            TcpStream::connect(server.local_addr().expect("it listens")).expect("it accepts");
        server.log_accesses(false).serve(router).expect("it starts");
        client.write_all(b"GET /?last_event_id=earliest HTTP/1.0\r\n\r\n").expect("it reads");
        let lines = BufReader::new(client).lines().map(|line| line.expect("it is text"));
        let data = lines.filter(|line| line.starts_with("data")).next();
        assert_eq!(data.as_deref(), Some("data: young"));
    }
}
