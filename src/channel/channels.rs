//! The channels of a server: each has a name.

use super::channel::{Channel, Summary};
use super::counters::Counters;
use super::fanout;
use super::feed::{Feed, Hub};
use super::hub::MAX_FANOUT_THREADS;
use super::limits::{Limits, is_name};
use super::log::{LOG_DEADLINE, Logs, Storage};
use super::selection::{Kind, Selection};
use super::table::{self, NoChannel, Removed, Table, feeds};
use super::timer;
use crate::http::lock::hold;
use crate::redis;
use std::fmt;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, available_parallelism};
use std::time::Instant;

/// All channels of a server, and the threads that fan out: as many as the machine has cores. Cloning it gives another
/// handle. [`Channel`] has an example.
#[derive(Clone)]
pub struct Channels {
    pub(super) hub: Arc<Hub>,
    logs: Arc<Logs>,
    pub(super) table: Arc<Mutex<Table>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Channels {
    /// Starts the threads that write to subscribers. They run until [`stop`](Channels::stop). The logs are in memory.
    ///
    /// # Errors
    /// When the system refuses a thread; and an [`InvalidLimits`](crate::http::InvalidLimits), as [`Limits::check`].
    pub fn start(limits: Limits) -> io::Result<Channels> {
        Channels::start_with(limits, Storage::Memory)
    }

    /// As [`start`](Channels::start), with the logs elsewhere. The channels that they hold are there at once.
    ///
    /// ```
    /// use newswire::Channels;
    /// use newswire::channel::{JournalSync, Limits, Storage};
    ///
    /// # let directory = std::env::temp_dir().join(format!("newswire-doc-{}", std::process::id()));
    /// let storage = Storage::Journal { directory: directory.clone(), sync: JournalSync::Always };
    /// let channels = Channels::start_with(Limits::default(), storage)?;
    /// let id = channels.open("news")?.publish("extra, extra")?.id;
    /// channels.stop();
    /// # std::fs::remove_dir_all(directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Also why the journal cannot be used, which is then unchanged; or what Redis refuses. If Redis cannot be reached,
    /// that is no error: it may come later.
    pub fn start_with(limits: Limits, storage: Storage) -> io::Result<Channels> {
        limits.check()?;
        let threads = available_parallelism().map_or(1, |cores| cores.get());
        let hub = Feed::hub(limits, threads.min(MAX_FANOUT_THREADS));
        let (logs, restored) = Logs::open(storage, &hub)?;
        let mut threads = fanout::start(&hub).inspect_err(|_| hub.stop())?;
        threads.extend(logs.start().inspect_err(|_| hub.stop())?);
        let logs = Arc::new(logs);
        let table = Table::new(&hub, &logs);
        let channels = Channels { hub, logs, table, threads: Arc::new(Mutex::new(threads)) };
        for restored in restored {
            let feed = hold(&channels.table).restore(restored);
            // Without the lock: one may be evicted now.
            feed.members.review();
        }
        let timer = timer::start(&channels.hub, &channels.table);
        hold(&channels.threads).extend(timer.inspect_err(|_| channels.stop())?);
        Ok(channels)
    }

    /// Whether a channel can have this name: 1 to 64 ASCII letters, digits, dots, underscores and hyphens, and no dot at
    /// the beginning.
    pub fn is_name(name: &str) -> bool {
        is_name(name)
    }

    /// The channel of this name, to publish on it. It is created if it does not exist.
    ///
    /// # Errors
    /// [`NoChannel`].
    pub fn open(&self, name: &str) -> Result<Channel, NoChannel> {
        check_name(name)?;
        let mut evicted = Removed::default();
        let table = &mut *hold(&self.table);
        let is_claimed = table.channels.get(name).is_some_and(|entry| entry.is_claimed);
        if !is_claimed && !table.make_room(1, &mut evicted) {
            return Err(NoChannel::Full);
        }
        let channel = table.open(name);
        table.claim(&channel.feed.members, true);
        Ok(channel)
    }

    /// What a client has selected, to subscribe to it. [`NoChannel::Full`] also stands for a channel that does not exist if
    /// the client may not begin one, and [`NoChannel::Name`] for a presence that is off.
    ///
    /// Any client may ask for any name, so this evicts nothing. Such a channel does not count in [`Limits::channels`]:
    /// it goes with its last subscriber, and the subscribers are bounded. With a separate bound, a client that invents
    /// names could keep others out.
    pub(crate) fn open_selection(&self, selection: &Selection, may_begin: bool) -> Result<Channel, NoChannel> {
        match selection.kind {
            Kind::Channel if may_begin => Ok(hold(&self.table).open(&selection.name())),
            Kind::Channel => self.find(&selection.name()).ok_or_else(|| {
                self.hub.counters.not_begun.fetch_add(1, Relaxed);
                NoChannel::Full
            }),
            Kind::Presence if !self.hub.limits.presence => Err(NoChannel::Name),
            Kind::View | Kind::Presence => table::open_view(&self.table, selection),
        }
    }

    /// As [`open_selection`](Channels::open_selection), to read what is there. A view is made for this poll alone: it is on
    /// no list, and takes the place of no other.
    pub(crate) fn open_to_poll(&self, selection: &Selection, may_begin: bool) -> Result<Channel, NoChannel> {
        match selection.kind {
            Kind::View => Ok(hold(&self.table).new_view(selection)),
            Kind::Channel | Kind::Presence => self.open_selection(selection, may_begin),
        }
    }

    /// How many views and presences there are, and how many subscribers these and all channels have: each counts once.
    pub(crate) fn views(&self) -> [usize; 3] {
        let feeds = feeds(&self.table);
        let count = |is_counted: fn(&Feed) -> bool| feeds.iter().filter(|feed| is_counted(feed)).count();
        let subscribers = feeds.iter().map(|feed| feed.members.subscribers()).sum();
        [count(|feed| feed.view.is_some()), count(Feed::is_presence), subscribers]
    }

    /// The channel of this name, if it exists. With Redis that is looked up there; while Redis does not answer, each channel
    /// may exist.
    pub fn find(&self, name: &str) -> Option<Channel> {
        self.find_before(name, Instant::now() + LOG_DEADLINE)
    }

    /// The same for several names, in the time that one may take.
    pub(crate) fn find_all(&self, names: &[Arc<str>]) -> Vec<Channel> {
        let deadline = Instant::now() + LOG_DEADLINE;
        names.iter().filter_map(|name| self.find_before(name, deadline)).collect()
    }

    fn find_before(&self, name: &str, deadline: Instant) -> Option<Channel> {
        let Some(redis) = self.redis() else { return hold(&self.table).find(name) };
        let channel = self.handle(name).ok()?;
        (!redis.is_connected || channel.may_have_begun(deadline)).then_some(channel)
    }

    /// All channels, by name. With Redis these are the ones that this process keeps a copy of.
    pub fn list(&self) -> Vec<Summary> {
        self.list_after("", usize::MAX)
    }

    /// So many channels at most, by name, of those after this name.
    pub(crate) fn list_after(&self, name: &str, at_most: usize) -> Vec<Summary> {
        // The lock is held for the copy only: other threads open channels meanwhile.
        let table = hold(&self.table);
        let behind = table.channels.range::<str, _>((Excluded(name), Unbounded)).take(at_most);
        let feeds: Vec<_> = behind.map(|(_, entry)| Arc::clone(&entry.feed)).collect();
        drop(table);
        feeds.iter().map(|feed| Summary::new(feed)).collect()
    }

    /// Ends the streams of all subscribers, tells them when to reconnect, and ends the threads that fan out. A
    /// subscriber that is just being written to on a thread of its own ends soon after. From now on nothing can be
    /// published, and a client that subscribes is told to come back later. What is in a journal is on the disk then,
    /// unless it is never synced. A second call changes nothing.
    pub fn stop(&self) {
        self.hub.stop();
        self.logs.stop();
        for feed in feeds(&self.table) {
            feed.changed(&feed.lock());
        }
        let threads = std::mem::take(&mut *hold(&self.threads));
        // A callback that stops the channels runs on one of the threads itself.
        let others = threads.into_iter().filter(|it| it.thread().id() != thread::current().id());
        for thread in others {
            // The timer, or the thread of a journal, may sleep.
            thread.thread().unpark();
            drop(thread.join());
        }
        // A view may have been shown an event when the threads had stopped.
        for feed in feeds(&self.table) {
            (0..self.hub.notifiers.len()).for_each(|lane| feed.stop_lane(lane));
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.hub.counters
    }

    /// What is known of Redis; `None` without it.
    pub(crate) fn redis(&self) -> Option<redis::Figures> {
        self.logs.redis()
    }
}

fn check_name(name: &str) -> Result<(), NoChannel> {
    if Channels::is_name(name) { Ok(()) } else { Err(NoChannel::Name) }
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
    use super::super::asked::Asked;
    use super::super::history::Batch;
    use super::super::id::Id;
    use super::super::members::Phase;
    use super::super::replay::Replay;
    use super::*;
    use crate::http::{Router, Server};
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;
    use std::time::Duration;

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

    /// Otherwise the key would evict a later channel of that name, also while it is in use.
    #[test]
    fn a_mirror_that_is_retired_leaves_no_key_among_the_unused_ones() {
        let channels = Channels::start(Limits::default()).expect("it starts");
        let feed = {
            let channel = channels.open("c").expect("it is a name");
            channel.publish("x").expect("it is small");
            Arc::clone(&channel.feed)
        };
        assert_eq!(hold(&channels.table).unused.len(), 1);
        feed.members.set_phase(Phase::Asked);
        feed.members.review();
        assert!(channels.list().is_empty());
        assert_eq!(hold(&channels.table).unused.len(), 0);
    }

    #[test]
    fn a_channel_that_is_evicted_and_begins_again_between_two_rounds_has_lost_events() {
        let channels = Channels::start(Limits { channels: 2, ..Limits::default() });
        let channels = channels.expect("it starts");
        let publish = |name: &str, bytes: usize| {
            let channel = channels.open(name).expect("there is room");
            channel.publish("x".repeat(bytes)).expect("it is small");
            channel
        };
        let _used = publish("a", 1);
        (0..3).for_each(|_| drop(publish("b", 30_000)));
        let selection = Selection::parse("a,b").expect("it is a view");
        let view = hold(&channels.table).new_view(&selection);
        let start = view.start(&Asked::Earliest).expect("it can be read");
        let (mut replay, mut batch) = (Replay::new(&view.feed, start), Batch::default());
        let until = replay.newest();
        assert!(replay.next(&Asked::Earliest, &until, &mut batch).is_ok());
        assert!(!replay.is_complete, "there is a second round");
        drop(publish("c", 1));
        drop(publish("b", 1));
        assert!(replay.next(&Asked::Earliest, &until, &mut batch).is_err());
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
        let mut client = TcpStream::connect(server.local_addr().expect("it listens")).expect("it accepts");
        server.log_accesses(false).serve(router).expect("it starts");
        client.write_all(b"GET /?last_event_id=earliest HTTP/1.0\r\n\r\n").expect("it reads");
        let mut lines = BufReader::new(client).lines().map(|line| line.expect("it is text"));
        let data = lines.find(|line| line.starts_with("data"));
        assert_eq!(data.as_deref(), Some("data: young"));
    }
}
