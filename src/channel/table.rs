//! The channels of a server: each has a name.

use super::channel::{Channel, Summary};
use super::counters::Counters;
use super::eviction::{Entry, Removed, Table, expire, feeds};
use super::fanout;
use super::feed::{Feed, Hub, Joint, MAX_FANOUT_THREADS, Sources, View};
use super::history::History;
use super::limits::{Limits, is_name};
use super::log::{Log, Logs, Restored, Storage};
use super::members::{Listing, Members, Phase};
use super::notifier::Wake;
use super::presence::Told;
use super::selection::{Kind, Selection};
use super::view;
use super::views::Views;
use crate::http::lock::hold;
use crate::redis;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle, available_parallelism};
use std::time::Instant;

/// All channels of a server, and the threads that fan out: as many as the machine has cores. Cloning it gives another
/// handle. [`Channel`] has an example.
#[derive(Clone)]
pub struct Channels {
    hub: Arc<Hub>,
    logs: Arc<Logs>,
    table: Arc<Mutex<Table>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
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
    /// Also a sentence that says why the journal cannot be used, and nothing in it was changed then; or what Redis refuses.
    /// Redis that cannot be reached is no error: it may come.
    pub fn start_with(limits: Limits, storage: Storage) -> io::Result<Channels> {
        limits.check()?;
        let threads = available_parallelism().map_or(1, |cores| cores.get());
        let hub = Hub::new(limits, threads.min(MAX_FANOUT_THREADS));
        let (logs, restored) = Logs::open(storage, &hub)?;
        let mut threads = fanout::start(&hub).inspect_err(|_| hub.stop())?;
        threads.extend(logs.start().inspect_err(|_| hub.stop())?);
        let table = Table {
            hub: Arc::clone(&hub),
            channels: BTreeMap::new(),
            claimed: 0,
            unused: BTreeSet::new(),
            views: Views::default(),
            forgotten: hub.ids.last(),
            forgot_in: 0,
        };
        let (table, threads) = (Arc::new(Mutex::new(table)), Arc::new(Mutex::new(threads)));
        let channels = Channels { hub, logs: Arc::new(logs), table, threads };
        for restored in restored {
            // Without the lock: one may be evicted now.
            channels.restore(restored).members.review();
        }
        channels.start_timer().inspect_err(|_| channels.stop())?;
        Ok(channels)
    }

    /// Lists a channel of an earlier process. There may be more of them than the limits allow now.
    fn restore(&self, Restored { name, log, history, is_completed }: Restored) -> Arc<Feed> {
        let table = &mut *hold(&self.table);
        let feed = Arc::clone(&self.insert(table, &name, |_| log, history, is_completed).feed);
        feed.members.enter(if is_completed { Phase::Completed } else { Phase::Begun });
        table.claim(&feed.members);
        feed
    }

    fn insert<'t>(
        &self,
        table: &'t mut Table,
        name: &str,
        log: impl FnOnce(&Arc<Feed>) -> Log,
        history: History,
        is_completed: bool,
    ) -> &'t Entry {
        let name: Arc<str> = name.into();
        let listing: Weak<dyn Listing> = Arc::<Mutex<Table>>::downgrade(&self.table);
        let members = Members::new(Arc::clone(&name), listing);
        let feed = Feed::new(&self.hub, members, history, is_completed);
        for view in table.views.of_channel(&name) {
            feed.lock().show_in(view);
        }
        let entry = Entry { log: log(&feed), feed, is_claimed: false, unused: None };
        table.channels.entry(name).or_insert(entry)
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
        if !is_claimed && !table.make_room(&mut evicted) {
            return Err(NoChannel::Full);
        }
        let channel = self.channel(table, name);
        table.claim(&channel.feed.members);
        Ok(channel)
    }

    /// What a client has selected, to subscribe to it. [`NoChannel::Full`] also stands for a channel that does not exist if
    /// the client may not begin one, and [`NoChannel::Name`] for a presence that is off.
    ///
    /// Anyone may ask for any name, so this evicts nothing, and such channels do not count against those that were opened
    /// to publish: each goes with its last subscriber, so the bound of subscribers is theirs. A bound of their own would
    /// let a client keep others out with names that it invents.
    pub(crate) fn open_selection(
        &self,
        selection: &Selection,
        may_begin: bool,
    ) -> Result<Channel, NoChannel> {
        let name = selection.name();
        match selection.kind {
            Kind::Channel if may_begin => Ok(self.channel(&mut hold(&self.table), &name)),
            Kind::Channel => self.find(&name).ok_or(NoChannel::Full),
            Kind::View => self.open_view(name.into(), Some(selection)),
            Kind::Presence if self.hub.limits.presence => self.open_view(name.into(), None),
            Kind::Presence => Err(NoChannel::Name),
        }
    }

    fn channel(&self, table: &mut Table, name: &str) -> Channel {
        if let Some(channel) = table.find(name) {
            return channel;
        }
        let history = History::new(table.forgotten);
        let entry = self.insert(table, name, |feed| self.logs.log(feed), history, false);
        Channel::new(&entry.feed, &entry.log)
    }

    /// The view of several channels. It begins none of them: those that begin later join it. Or, without a selection, the
    /// presence of a channel, which goes with its last subscriber as a view does.
    fn open_view(
        &self,
        name: Arc<str>,
        selection: Option<&Selection>,
    ) -> Result<Channel, NoChannel> {
        let mut table = hold(&self.table);
        if let Some(view) = table.views.find(&name) {
            return Ok(Channel::new(&view.0, &view.1));
        } else if table.views.len() >= self.hub.limits.views {
            return Err(NoChannel::Full);
        }
        let listing: Weak<dyn Listing> = Arc::<Mutex<Table>>::downgrade(&self.table);
        let members = Members::new(name, listing);
        let Some(selection) = selection else {
            let feed = Feed::new(&self.hub, members, History::new(self.hub.ids.last()), false);
            return Ok(table.views.insert(&feed, &Log::Memory));
        };
        let sources: Weak<dyn Sources> = Arc::<Mutex<Table>>::downgrade(&self.table);
        let view = View { selection: selection.clone(), sources, joint: None };
        if let Logs::Redis(_) = *self.logs {
            // It must have each of its channels: others may publish on them.
            let parts: Vec<_> =
                selection.parts().iter().map(|name| self.channel(&mut table, name)).collect();
            let joint = Joint::new(parts.iter().map(|part| Arc::clone(&part.feed)).collect());
            let feed = Feed::view(&self.hub, members, View { joint: Some(joint), ..view });
            feed.connect_joint();
            let log = Log::Several(parts.into_iter().map(Channel::into_part).collect());
            return Ok(table.views.insert(&feed, &log));
        }
        let feed = Feed::view(&self.hub, members, view);
        // A channel that begins from here on finds the view. Those that are there are told without this lock.
        let channel = table.views.insert(&feed, &Log::Memory);
        let matching = table.matching(selection);
        drop(table);
        view::connect(&feed, &matching.feeds);
        Ok(channel)
    }

    /// How many views there are, and how many subscribers they have.
    pub(crate) fn views(&self) -> (usize, usize) {
        let table = hold(&self.table);
        (table.views.len(), table.views.all().map(|view| view.members.subscribers()).sum())
    }

    /// The channel of this name, if it exists. With Redis it may exist although this process has never heard of it, so it
    /// is opened.
    pub fn find(&self, name: &str) -> Option<Channel> {
        // This process does not know all channels that others have published on.
        if let Logs::Redis(_) = *self.logs {
            return self.open(name).ok();
        }
        hold(&self.table).find(name)
    }

    /// All channels, by name. With Redis these are the ones that this process keeps a copy of.
    pub fn list(&self) -> Vec<Summary> {
        self.list_after("", usize::MAX)
    }

    /// So many channels at most, by name, of those behind this name.
    pub(crate) fn list_after(&self, name: &str, at_most: usize) -> Vec<Summary> {
        // The lock is held for the copy only: other threads open channels meanwhile.
        let table = hold(&self.table);
        let behind = table.channels.range::<str, _>((Excluded(name), Unbounded)).take(at_most);
        let feeds: Vec<_> = behind.map(|(_, entry)| Arc::clone(&entry.feed)).collect();
        drop(table);
        feeds.iter().map(|feed| Summary::new(feed)).collect()
    }

    /// Starts the thread that lets channels and events go by their age and tells presences, if there is anything to do.
    fn start_timer(&self) -> io::Result<()> {
        let Some(pause) = self.hub.limits.timer_pause() else { return Ok(()) };
        let (hub, table) = (Arc::clone(&self.hub), Arc::downgrade(&self.table));
        let mut told = Told::default();
        let run = move || {
            while let Wake::DeadlinePassed = hub.timer.wait(Some(Instant::now() + pause)) {
                // The program has no handle to the channels any more.
                let Some(table) = table.upgrade() else { return };
                expire(&hub, &table);
                if hub.limits.presence {
                    told.tell(&table);
                }
            }
        };
        let thread = thread::Builder::new().name("timer".into()).spawn(run)?;
        hold(&self.threads).push(thread);
        Ok(())
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
            // That of a journal may sleep.
            thread.thread().unpark();
            drop(thread.join());
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
    use super::super::id::Id;
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
        let mut lines = BufReader::new(client).lines().map(|line| line.expect("it is text"));
        let data = lines.find(|line| line.starts_with("data"));
        assert_eq!(data.as_deref(), Some("data: young"));
    }
}
