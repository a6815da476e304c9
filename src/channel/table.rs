//! The table of channels: names to channels, and how many there may be.

use super::channel::{Channel, Summary};
use super::fanout;
use super::feed::{Counters, Feed, Hub, MAX_FANOUT_THREADS};
use super::history::History;
use super::id::Id;
use super::limits::{Limits, is_name};
use super::log::{Log, Logs, Restored, Storage};
use super::members::{Listing, Members};
use crate::http::lock::hold;
use crate::redis;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle, available_parallelism};

/// How many completed channels are looked at, at most, to find one that can be evicted.
const PROBES: usize = 16;

/// All channels of a server, and the threads that fan out: as many as the machine has cores. Cloning it gives another
/// handle. [`Channel`] has an example.
#[derive(Clone)]
pub struct Channels {
    hub: Arc<Hub>,
    logs: Arc<Logs>,
    table: Arc<Mutex<Table>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

struct Table {
    hub: Arc<Hub>,
    channels: BTreeMap<Arc<str>, Entry>,
    /// How many of them were opened to publish, or completed. Subscribers have asked for the others.
    claimed: usize,
    /// The completed ones, in the order in which they are looked at to evict one.
    completed: BTreeSet<(Id, Arc<str>)>,
    /// No event of an evicted channel has a larger id; at first, the time at which the server started. The history of a
    /// new channel starts here.
    forgotten: Id,
}

struct Entry {
    feed: Arc<Feed>,
    log: Log,
    is_claimed: bool,
    /// Its key in `completed`: the id of its last event, or a later one since the channel was found to be in use.
    completed: Option<Id>,
}

/// What was removed from the table, with what the log holds of it. It is made before the table is locked, and so dropped
/// after the lock is free: its log may be on a disk, and a callback of a channel may own the last handle to another one.
#[derive(Default)]
struct Removed(Vec<Entry>);

impl Drop for Removed {
    fn drop(&mut self) {
        self.0.iter().for_each(|entry| entry.log.discard(&entry.feed));
    }
}

/// Why there is no such channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChannel {
    /// The name is not one.
    Name,
    /// There are [`Limits::channels`] already.
    Full,
}

impl NoChannel {
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            NoChannel::Name => {
                "A channel's name is 1 to 64 letters, digits, dots, underscores and hyphens, and does not begin with a dot."
            }
            NoChannel::Full => "There are as many channels as this server may have.",
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
            completed: BTreeSet::new(),
            forgotten: hub.ids.last(),
        };
        let (table, threads) = (Arc::new(Mutex::new(table)), Arc::new(Mutex::new(threads)));
        let channels = Channels { hub, logs: Arc::new(logs), table, threads };
        for restored in restored {
            // Without the lock: one that is completed may be evicted now.
            channels.restore(restored).members.review();
        }
        Ok(channels)
    }

    /// Lists a channel of an earlier process. There may be more of them than the limits allow now.
    fn restore(&self, Restored { name, log, history, is_completed }: Restored) -> Arc<Feed> {
        let table = &mut *hold(&self.table);
        let feed = Arc::clone(&self.insert(table, &name, |_| log, history, is_completed).feed);
        feed.members.begin();
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
        let entry = Entry { log: log(&feed), feed, is_claimed: false, completed: None };
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

    /// The channel of this name, to subscribe to it. Anyone may ask for any name, so this evicts nothing, and such
    /// channels do not count against those that were opened to publish.
    pub(crate) fn open_to_subscribe(&self, name: &str) -> Result<Channel, NoChannel> {
        check_name(name)?;
        let table = &mut *hold(&self.table);
        let unclaimed = table.channels.len() - table.claimed;
        if unclaimed >= self.hub.limits.channels && !table.channels.contains_key(name) {
            return Err(NoChannel::Full);
        }
        Ok(self.channel(table, name))
    }

    fn channel(&self, table: &mut Table, name: &str) -> Channel {
        if let Some(entry) = table.channels.get(name) {
            return Channel::new(&entry.feed, &entry.log);
        }
        let history = History::new(table.forgotten);
        let entry = self.insert(table, name, |feed| self.logs.log(feed), history, false);
        Channel::new(&entry.feed, &entry.log)
    }

    /// The channel of this name, if it exists. With Redis it may exist although this process has never heard of it, so it
    /// is opened.
    pub fn find(&self, name: &str) -> Option<Channel> {
        // This process does not know all channels that others have published on.
        if let Logs::Redis(_) = *self.logs {
            return self.open(name).ok();
        }
        hold(&self.table).channels.get(name).map(|entry| Channel::new(&entry.feed, &entry.log))
    }

    /// All channels, by name. With Redis these are the ones that this process keeps a copy of.
    pub fn list(&self) -> Vec<Summary> {
        // The lock is held for the copy only: other threads open channels meanwhile.
        self.feeds().iter().map(|feed| Summary::new(feed)).collect()
    }

    fn feeds(&self) -> Vec<Arc<Feed>> {
        hold(&self.table).channels.values().map(|entry| Arc::clone(&entry.feed)).collect()
    }

    /// Ends the streams of all subscribers, tells them when to reconnect, and ends the threads that fan out. A
    /// subscriber that is just being written to on a thread of its own ends soon after. From now on nothing can be
    /// published, and a client that subscribes is told to come back later. What is in a journal is on the disk then,
    /// unless it is never synced. A second call changes nothing.
    pub fn stop(&self) {
        self.hub.stop();
        self.logs.stop();
        for feed in self.feeds() {
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

    /// Whether one more channel can be claimed. Evicts as many as it takes, but completed ones without users only.
    fn make_room(&mut self, evicted: &mut Removed) -> bool {
        while self.claimed >= self.hub.limits.channels {
            match self.evict() {
                Some(entry) => evicted.0.push(entry),
                None => return false,
            }
        }
        true
    }

    /// Evicts the one with the oldest last event among the completed ones without users.
    fn evict(&mut self) -> Option<Entry> {
        for _ in 0..PROBES {
            let (_, name) = self.completed.pop_first()?;
            let Some(entry) = self.channels.get_mut(&name) else { continue };
            if !entry.feed.members.are_none() {
                // A new id puts it behind all others.
                let later = self.hub.ids.next();
                entry.completed = Some(later);
                self.completed.insert((later, name));
                continue;
            }
            // Nothing can be published from here on: a handle would have to come from this table.
            match entry.feed.completed_after() {
                // Something was published since. It is listed again when it is completed again.
                None => entry.completed = None,
                Some(newest) => {
                    self.forgotten = self.forgotten.max(newest);
                    self.claimed -= usize::from(entry.is_claimed);
                    return self.channels.remove(&name);
                }
            }
        }
        None
    }
}

impl Listing for Mutex<Table> {
    fn review(&self, members: &Members) {
        let mut removed = Removed::default();
        let table = &mut *hold(self);
        let Some(entry) = table.entry(members) else { return };
        if let Some(newest) = entry.feed.completed_after() {
            if let Some(before) = entry.completed.replace(newest) {
                table.completed.remove(&(before, Arc::clone(&members.name)));
            }
            table.completed.insert((newest, Arc::clone(&members.name)));
            // It was perhaps only asked for by subscribers. It counts now all the same, so another one goes.
            table.claim(members);
            while table.claimed > table.hub.limits.channels
                && let Some(entry) = table.evict()
            {
                removed.0.push(entry);
            }
        } else if members.are_none() && !members.has_begun() {
            table.claimed -= usize::from(entry.is_claimed);
            removed.0.extend(table.channels.remove(&members.name));
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
    use std::sync::mpsc;
    use std::time::Duration;

    /// Otherwise an event that follows the completion, published with the last handle, could be evicted unnoticed: it
    /// would come after the look at the history, and before the look at the handles.
    #[test]
    fn the_handles_of_a_completed_channel_are_looked_at_before_its_history() {
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
    fn a_channel_that_is_completed_often_stands_once_among_the_completed_ones() {
        let channels = Channels::start(Limits::default()).expect("it starts");
        let channel = channels.open("c").expect("it is a name");
        for number in 0..100 {
            channel.publish(number.to_string()).expect("it is small");
            channel.complete().expect("it is in memory");
        }
        assert_eq!(hold(&channels.table).completed.len(), 1);
    }
}
