//! The table of channels: names to channels, how many there may be, and which one goes when another one needs its place.

use super::channel::Channel;
use super::feed::{Feed, Hub, Matching, Sources, View};
use super::forgotten::Forgotten;
use super::history::History;
use super::id::Id;
use super::log::{Log, Logs, Restored};
use super::members::{Listing, Members, Phase};
use super::selection::{Selection, matching_part};
use super::view;
use super::views::Views;
use crate::http::lock::hold;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// How many channels expire, at most, while the table is locked.
const EXPIRED_AT_ONCE: usize = 64;

/// When so many channels have subscribers of views only, one of them is evicted for another channel.
const VIEWED_AT_ONCE: usize = 16;

/// How many channels of a selection are found, at most, while the table is locked.
const MATCHING_AT_ONCE: usize = 256;

/// Why there is no such channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChannel {
    /// The name is not one.
    Name,
    /// There are [`Limits::channels`](super::Limits::channels) already, and each of them is in use.
    Full,
}

impl NoChannel {
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            NoChannel::Name => {
                "A channel's name is 1 to 64 letters, digits, dots, underscores and hyphens, and does not begin with a dot."
            }
            NoChannel::Full => "There are as many channels as this server may have, and each of them is in use.",
        }
    }
}

impl fmt::Display for NoChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for NoChannel {}

pub(super) struct Table {
    itself: Weak<Mutex<Table>>,
    pub(super) hub: Arc<Hub>,
    logs: Arc<Logs>,
    pub(super) channels: BTreeMap<Arc<str>, Entry>,
    /// How many of them were opened to publish, or completed. Subscribers have asked for the others, each of which goes
    /// with its last subscriber.
    pub(super) claimed: usize,
    /// Those that keep something and that nothing uses, in the order in which they are evicted.
    pub(super) unused: BTreeSet<(Unused, Arc<str>)>,
    pub(super) views: Views,
    forgotten: Forgotten,
    /// The id of the time at which the server started. The history of a new channel starts here, or after what an evicted
    /// one of that name had.
    started: Id,
}

pub(super) struct Entry {
    pub(super) feed: Arc<Feed>,
    pub(super) log: Log,
    pub(super) is_claimed: bool,
    /// Its key in `unused`. Each handle comes from the table, which takes the channel out of `unused` then.
    pub(super) unused: Option<Unused>,
}

/// A channel without a handle and without a subscriber, or a completed one without a handle. The one unused for longest is
/// evicted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unused {
    /// Completed, but subscribers are still reading. It is evicted last, and its subscribers get a gap when they come
    /// back.
    pub(super) is_read: bool,
    /// On the clock of the hub.
    pub(super) since: Duration,
}

/// Channels that were removed. Dropping this deletes their logs, perhaps from a disk, and their callbacks, which may
/// own the last handle to a channel. So make it before the table is locked: then it is dropped after the lock.
#[derive(Default)]
pub(super) struct Removed(Vec<Entry>);

impl Drop for Removed {
    fn drop(&mut self) {
        self.0.iter().for_each(|entry| entry.log.discard(&entry.feed));
    }
}

impl Table {
    pub(super) fn new(hub: &Arc<Hub>, logs: &Arc<Logs>) -> Arc<Mutex<Table>> {
        Arc::new_cyclic(|itself| {
            Mutex::new(Table {
                itself: Weak::clone(itself),
                hub: Arc::clone(hub),
                logs: Arc::clone(logs),
                channels: BTreeMap::new(),
                claimed: 0,
                unused: BTreeSet::new(),
                views: Views::default(),
                forgotten: Forgotten::new(logs.forgotten(hub)),
                started: hub.ids.last(),
            })
        })
    }

    /// Lists a channel of an earlier process. There may be more of them than the limits allow now.
    pub(super) fn restore(&mut self, restored: Restored) -> Arc<Feed> {
        let Restored { name, log, history, is_completed } = restored;
        let feed = Arc::clone(&self.insert(&name, |_| log, history).feed);
        match is_completed {
            true => {
                let mut state = feed.lock();
                let id = state.history.newest();
                feed.complete(&mut state, id);
            }
            false => feed.members.set_phase(Phase::Begun),
        }
        self.claim(&feed.members, true);
        feed
    }

    /// A handle to a channel, which is created if it does not exist.
    pub(super) fn open(&mut self, name: &str) -> Channel {
        if let Some(channel) = self.find(name) {
            return channel;
        }
        let (logs, start) = (Arc::clone(&self.logs), self.forgotten.newest(name).max(self.started));
        let entry = self.insert(name, |feed| logs.log(feed), History::new(start));
        Channel::new(&entry.feed, &entry.log)
    }

    fn insert(&mut self, name: &str, log: impl FnOnce(&Arc<Feed>) -> Log, history: History) -> &Entry {
        let feed = self.new_feed(name, history, None);
        feed.begin(self.views.of_channel(name));
        let entry = Entry { log: log(&feed), feed, is_claimed: false, unused: None };
        self.channels.entry(name.into()).or_insert(entry)
    }

    fn new_feed(&self, name: &str, history: History, view: Option<View>) -> Arc<Feed> {
        let listing: Weak<dyn Listing> = self.itself.clone();
        Feed::new(&self.hub, Members::new(name.into(), listing), history, view)
    }

    /// A view that is on no list, and shows nothing before it is [activated](Feed::activate).
    pub(super) fn new_view(&mut self, selection: &Selection) -> Channel {
        let view = View { selection: selection.clone(), sources: self.itself.clone() };
        let feed = self.new_feed(&selection.name(), History::new(Id::MAX), Some(view));
        // Over Redis it has each of its channels: other servers may publish on them.
        let parts = selection.parts().iter().filter(|_| feed.has_place());
        let channels: Vec<_> = parts.map(|name| self.open(name)).collect();
        feed.lock().place = vec![Id::ZERO; channels.len()];
        Channel::of_view(&feed, channels)
    }

    /// `None` for a channel that is not in the table any more.
    fn entry(&mut self, members: &Members) -> Option<&mut Entry> {
        let entry = self.channels.get_mut(&members.name)?;
        std::ptr::eq(&*entry.feed.members, members).then_some(entry)
    }

    /// Whether a channel counts from now on.
    pub(super) fn claim(&mut self, members: &Members, counts: bool) {
        if let Some(entry) = self.entry(members) {
            let before = std::mem::replace(&mut entry.is_claimed, counts);
            self.claimed = self.claimed + usize::from(counts) - usize::from(before);
        }
    }

    /// A handle to a channel.
    pub(super) fn find(&mut self, name: &str) -> Option<Channel> {
        let entry = self.channels.get_mut(name)?;
        if let Some(unused) = entry.unused.take() {
            self.unused.remove(&(unused, Arc::clone(&entry.feed.members.name)));
        }
        Some(Channel::new(&entry.feed, &entry.log))
    }

    /// Whether so many more channels can be claimed. Evicts as many as it takes.
    pub(super) fn make_room(&mut self, more: usize, evicted: &mut Removed) -> bool {
        while self.claimed + more > self.hub.limits.channels {
            let Some(entry) = self.evict() else { return false };
            self.hub.counters.channels_evicted.fetch_add(1, Relaxed);
            evicted.0.push(entry);
        }
        true
    }

    fn matching(&self, selection: &Selection, name: &str) -> Matching {
        let parts = selection.parts().iter();
        let feeds = parts.clone().flat_map(|part| matching_part(&self.channels, part, name));
        let feeds: Vec<_> = feeds.map(|(_, entry)| Arc::clone(&entry.feed)).take(MATCHING_AT_ONCE).collect();
        let (is_gone, by_name) = (|name: &str| !self.channels.contains_key(name), &self.forgotten.by_name);
        let named = parts.clone().flat_map(|part| matching_part(by_name, part, "")).filter(|(name, _)| is_gone(name));
        let is_open = |part: &&Arc<str>| part.ends_with('*') || is_gone(part) && !by_name.contains_key(*part);
        let gone = named.chain(parts.filter(is_open).map(|part| (part, &self.forgotten.others)));
        // They stand behind the last channel.
        let gone = gone.filter(|_| feeds.is_empty()).map(|(name, id)| (Arc::clone(name), *id)).collect();
        Matching { feeds, gone }
    }

    /// How many subscribers a channel has, with those of its views, also before it begins.
    pub(super) fn subscribers(&self, name: &str) -> usize {
        if let Some(entry) = self.channels.get(name) {
            return entry.feed.subscribers();
        }
        let views = self.views.of_channel(name).into_iter().filter_map(|view| view.upgrade());
        views.map(|view| view.members.subscribers()).sum()
    }

    /// Evicts the channel that is unused for longest. Nothing can be published on it meanwhile: a handle would have to come
    /// from this table.
    pub(super) fn evict(&mut self) -> Option<Entry> {
        (0..VIEWED_AT_ONCE).find(|_| !self.renew_viewed());
        let (_, name) = self.unused.first()?.clone();
        let entry = self.remove(&name)?;
        self.forgotten.insert(name, entry.feed.forget());
        Some(entry)
    }

    fn remove(&mut self, name: &Arc<str>) -> Option<Entry> {
        let entry = self.channels.remove(name)?;
        self.claimed -= usize::from(entry.is_claimed);
        entry.unused.map(|unused| self.unused.remove(&(unused, Arc::clone(name))));
        Some(entry)
    }

    /// If a view with a subscriber shows the channel that is unused for longest, it counts as used until now. Returns
    /// whether it does.
    fn renew_viewed(&mut self) -> bool {
        let Some((unused, name)) = self.unused.first().cloned() else { return false };
        let views = self.views.of_channel(&name).into_iter().filter_map(|view| view.upgrade());
        let is_viewed = !unused.is_read && views.map(|view| view.members.subscribers()).sum::<usize>() > 0;
        if let Some(entry) = self.channels.get_mut(&name).filter(|_| is_viewed) {
            let renewed = Unused { since: self.hub.uptime(), ..unused };
            self.unused.remove(&(unused, Arc::clone(&name)));
            entry.unused = Some(renewed);
            self.unused.insert((renewed, name));
        }
        is_viewed
    }

    /// Evicts the channels that are unused since `before`, or some of them. Returns whether there were any.
    pub(super) fn expire(&mut self, before: Duration, expired: &mut Removed) -> bool {
        let mut looked = 0;
        while looked < EXPIRED_AT_ONCE
            && let Some((Unused { is_read: false, since }, _)) = self.unused.first()
            && *since <= before
        {
            looked += 1;
            if !self.renew_viewed() {
                expired.0.extend(self.evict());
            }
        }
        self.hub.counters.channels_expired.fetch_add(expired.0.len() as u64, Relaxed);
        looked > 0
    }
}

impl Sources for Mutex<Table> {
    fn matching(&self, selection: &Selection, name: &str) -> Matching {
        hold(self).matching(selection, name)
    }
}

impl Listing for Mutex<Table> {
    fn review(&self, members: &Members) {
        // A view over Redis keeps its channels in use. Like these, it is dropped when the lock is free.
        let (mut removed, mut gone) = (Removed::default(), Vec::new());
        let table = &mut *hold(self);
        let now = table.hub.uptime();
        let Some(entry) = table.entry(members) else {
            let is_view = |(view, _): &(Arc<Feed>, Vec<Channel>)| std::ptr::eq(&*view.members, members);
            if members.without_handle() == Some(0) && table.views.find(&members.name).is_some_and(is_view) {
                gone.extend(table.views.remove(&members.name));
            }
            return;
        };
        let users = members.without_handle();
        if !members.has_begun() {
            if users == Some(0) {
                removed.0.extend(table.remove(&members.name));
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
        table.claim(members, true);
        table.make_room(0, &mut removed);
    }
}

/// Of all channels and views.
pub(super) fn feeds(table: &Mutex<Table>) -> Vec<Arc<Feed>> {
    let table = hold(table);
    let channels = table.channels.values().map(|entry| &entry.feed);
    channels.chain(table.views.all()).map(Arc::clone).collect()
}

/// The view of several channels. It begins none of them: those that begin later join it. Or the presence of a channel,
/// which goes with its last subscriber as a view does.
pub(super) fn open_view(table: &Mutex<Table>, selection: &Selection) -> Result<Channel, NoChannel> {
    let mut table = hold(table);
    if let Some((view, channels)) = table.views.find(&selection.name()) {
        return Ok(Channel::of_view(view, channels.clone()));
    } else if table.views.len() >= table.hub.limits.views {
        return Err(NoChannel::Full);
    }
    if !selection.is_view() {
        let history = History::new(table.hub.ids.last());
        let presence = table.new_feed(&selection.name(), history, None);
        let presence = Channel::new(&presence, &Log::Memory);
        table.views.insert(&presence);
        return Ok(presence);
    }
    let channel = table.new_view(selection);
    // A channel that begins from here on finds the view. Those that are there are told without this lock.
    table.views.insert(&channel);
    drop(table);
    view::connect(&channel.feed);
    Ok(channel)
}
