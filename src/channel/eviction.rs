//! The table of channels: names to channels, how many there may be, and which one goes when another one needs its place.

use super::channel::Channel;
use super::feed::{Feed, Hub, Matching, Sources};
use super::id::Id;
use super::limits::Limits;
use super::log::Log;
use super::members::{Listing, Members};
use super::selection::Selection;
use super::views::Views;
use crate::http::lock::hold;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Included, Unbounded};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many channels expire, at most, while the table is locked.
const EXPIRED_AT_ONCE: usize = 64;

pub(super) struct Table {
    pub(super) hub: Arc<Hub>,
    pub(super) channels: BTreeMap<Arc<str>, Entry>,
    /// How many of them were opened to publish, or completed. Subscribers have asked for the others, each of which goes
    /// with its last subscriber.
    pub(super) claimed: usize,
    /// Those that keep something and that nothing uses, in the order in which they are evicted.
    pub(super) unused: BTreeSet<(Unused, Arc<str>)>,
    pub(super) views: Views,
    /// No event of an evicted channel has a larger id; at first, the time at which the server started. The history of a
    /// new channel starts here.
    pub(super) forgotten: Id,
    /// The round of replays in which the last one was evicted.
    pub(super) forgot_in: u64,
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
    /// Its subscribers have not read all yet, perhaps on purpose. It is evicted after all others, and they are told of a
    /// gap when they come back.
    pub(super) is_read: bool,
    /// On the clock of the hub.
    pub(super) since: Duration,
}

/// What was removed from the table, with what the log holds of it. It is made before the table is locked, and so dropped
/// after the lock is free: its log may be on a disk, and a callback of a channel may own the last handle to another one.
#[derive(Default)]
pub(super) struct Removed(Vec<Entry>);

impl Drop for Removed {
    fn drop(&mut self) {
        self.0.iter().for_each(|entry| entry.log.discard(&entry.feed));
    }
}

impl Table {
    /// `None` for a channel that is not in the table any more.
    fn entry(&mut self, members: &Members) -> Option<&mut Entry> {
        let entry = self.channels.get_mut(&members.name)?;
        std::ptr::eq(&*entry.feed.members, members).then_some(entry)
    }

    pub(super) fn claim(&mut self, members: &Members) {
        if let Some(entry) = self.entry(members)
            && !std::mem::replace(&mut entry.is_claimed, true)
        {
            self.claimed += 1;
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

    /// Whether one more channel can be claimed. Evicts as many as it takes.
    pub(super) fn make_room(&mut self, evicted: &mut Removed) -> bool {
        while self.claimed >= self.hub.limits.channels {
            let Some(entry) = self.evict() else { return false };
            self.hub.counters.channels_evicted.fetch_add(1, Relaxed);
            evicted.0.push(entry);
        }
        true
    }

    pub(super) fn matching(&self, selection: &Selection) -> Matching {
        let (mut feeds, mut open_parts) = (Vec::new(), Vec::new());
        for part in selection.parts() {
            let Some(prefix) = part.strip_suffix('*') else {
                match self.channels.get(part) {
                    Some(entry) => feeds.push(Arc::clone(&entry.feed)),
                    None => open_parts.push(Arc::clone(part)),
                }
                continue;
            };
            let behind = self.channels.range::<str, _>((Included(prefix), Unbounded));
            let matching = behind.take_while(|(name, _)| name.starts_with(prefix));
            feeds.extend(matching.map(|(_, entry)| Arc::clone(&entry.feed)));
            open_parts.push(Arc::clone(part));
        }
        Matching { feeds, open_parts, forgotten: self.forgotten, forgot_in: self.forgot_in }
    }

    /// How many subscribers a channel has, itself and in views.
    pub(super) fn subscribers(&self, name: &str) -> usize {
        let own = self.channels.get(name).map_or(0, |entry| entry.feed.members.subscribers());
        let views = self.views.of_channel(name).into_iter().filter_map(|view| view.upgrade());
        own + views.map(|view| view.members.subscribers()).sum::<usize>()
    }

    /// Evicts the channel that is unused for longest. Nothing can be published on it meanwhile: a handle would have to come
    /// from this table.
    pub(super) fn evict(&mut self) -> Option<Entry> {
        let (_, name) = self.unused.pop_first()?;
        let entry = self.channels.remove(&name)?;
        self.forgotten = self.forgotten.max(entry.feed.forget());
        self.forgot_in = self.hub.rounds.load(SeqCst);
        self.claimed -= usize::from(entry.is_claimed);
        Some(entry)
    }

    /// Evicts the channels that are unused since `before`, or some of them.
    pub(super) fn expire(&mut self, before: Duration, expired: &mut Removed) {
        while expired.0.len() < EXPIRED_AT_ONCE
            && let Some((Unused { is_read: false, since }, _)) = self.unused.first()
            && *since <= before
        {
            expired.0.extend(self.evict());
        }
    }
}

impl Sources for Mutex<Table> {
    fn matching(&self, selection: &Selection) -> Matching {
        hold(self).matching(selection)
    }
}

impl Listing for Mutex<Table> {
    fn review(&self, members: &Members) {
        // A view keeps its channels in use. Like these, it is dropped when the lock is free.
        let (mut removed, mut gone) = (Removed::default(), Vec::new());
        let table = &mut *hold(self);
        let now = table.hub.uptime();
        let Some(entry) = table.entry(members) else {
            let is_view = |(view, _): &(Arc<Feed>, Log)| std::ptr::eq(&*view.members, members);
            if members.without_handle() == Some(0)
                && table.views.find(&members.name).is_some_and(is_view)
            {
                gone.extend(table.views.remove(&members.name));
            }
            return;
        };
        let users = members.without_handle();
        if !members.has_begun() {
            if users == Some(0) {
                table.claimed -= usize::from(entry.is_claimed);
                removed.0.extend(table.channels.remove(&members.name));
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
            removed.0.push(entry);
        }
    }
}

/// Lets channels and events go that are too old. It locks the table for a moment at a time.
pub(super) fn expire(hub: &Hub, table: &Mutex<Table>) {
    let Limits { channel_idle, history_age, .. } = hub.limits;
    if !channel_idle.is_zero()
        && let Some(before) = hub.uptime().checked_sub(channel_idle)
    {
        loop {
            let mut expired = Removed::default();
            hold(table).expire(before, &mut expired);
            hub.counters.channels_expired.fetch_add(expired.0.len() as u64, Relaxed);
            if expired.0.is_empty() {
                break;
            }
        }
    }
    if !history_age.is_zero() {
        feeds(table).iter().for_each(|feed| feed.expire(&mut feed.lock()));
    }
}

/// Of all channels and views.
pub(super) fn feeds(table: &Mutex<Table>) -> Vec<Arc<Feed>> {
    let table = hold(table);
    let channels = table.channels.values().map(|entry| &entry.feed);
    channels.chain(table.views.all()).map(Arc::clone).collect()
}
