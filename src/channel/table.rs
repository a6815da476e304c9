//! The table of channels: names to logs, and its bounds.

use super::channel::{Channel, Common, MAX_FANOUT_THREADS, Summary};
use super::fanout;
use super::id::Id;
use super::limits::Limits;
use crate::http::lock::hold;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;

/// All channels of a server, and the threads that fan out: as many as the machine has cores.
/// Cloning it gives another handle.
///
/// See [`Channel`] for an example.
#[derive(Clone)]
pub struct Channels {
    common: Arc<Common>,
    table: Arc<Mutex<Table>>,
}

struct Table {
    channels: BTreeMap<String, Channel>,
    /// No event of a channel that gave its place away has a larger id; at first, the moment of the
    /// beginning. It is where a new channel's log begins.
    forgotten: Id,
}

/// Why there is no such channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChannel {
    /// The name is not one.
    Name,
    /// There are [`Limits::channels`] already.
    Full,
}

impl fmt::Display for NoChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
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

impl std::error::Error for NoChannel {}

impl Channels {
    /// Without a channel yet, and with the threads that will write to their subscribers. They live
    /// as long as the process.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(limits: Limits) -> io::Result<Channels> {
        let threads =
            available_parallelism().map_or(1, |cores| cores.get()).min(MAX_FANOUT_THREADS);
        let common = Common::new(limits, threads);
        fanout::start(&common)?;
        let table = Table { channels: BTreeMap::new(), forgotten: common.ids.last() };
        Ok(Channels { common, table: Arc::new(Mutex::new(table)) })
    }

    /// Whether a channel can have this name: 1 to 64 ASCII letters, digits, dots, underscores and hyphens,
    /// not beginning with a dot.
    pub fn is_name(name: &str) -> bool {
        (1..=64).contains(&name.len())
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    }

    /// The channel of this name, which begins to exist if it did not.
    ///
    /// # Errors
    /// [`NoChannel`].
    pub fn open(&self, name: &str) -> Result<Channel, NoChannel> {
        if !Channels::is_name(name) {
            return Err(NoChannel::Name);
        }
        let limit = self.common.limits.channels;
        let table = &mut *hold(&self.table);
        let found = table.channels.get(name).cloned();
        let is_in_place = found.as_ref().is_some_and(Channel::has_begun);
        if !is_in_place && table.channels.len() >= limit {
            table.sweep();
            if table.begun() >= limit && !table.evict() {
                return Err(NoChannel::Full);
            }
        }
        let channel = found.unwrap_or_else(|| self.begin(table, name));
        channel.will_begin();
        Ok(channel)
    }

    /// For who only reads, and whom nobody has asked who he is: he takes no place of those who publish.
    pub(crate) fn open_to_subscribe(&self, name: &str) -> Result<Channel, NoChannel> {
        if !Channels::is_name(name) {
            return Err(NoChannel::Name);
        }
        let limit = self.common.limits.channels;
        let table = &mut *hold(&self.table);
        if let Some(channel) = table.channels.get(name) {
            return Ok(channel.clone());
        }
        if table.channels.len() >= limit {
            table.sweep();
            let all = table.channels.len();
            // What is completed without an event has begun, too, and nobody was asked for a place.
            if all - table.begun() >= limit || (all >= 2 * limit && !table.evict()) {
                return Err(NoChannel::Full);
            }
        }
        Ok(self.begin(table, name))
    }

    fn begin(&self, table: &mut Table, name: &str) -> Channel {
        let (common, began) = (Arc::clone(&self.common), table.forgotten);
        let channel = Channel::new(name.to_owned(), common, began);
        table.channels.insert(name.to_owned(), channel.clone());
        channel
    }

    /// A channel that is not in the table.
    pub(crate) fn unlisted(&self, name: &str) -> Channel {
        let began = self.common.ids.last();
        Channel::new(name.to_owned(), Arc::clone(&self.common), began)
    }

    /// The channel of this name, if it exists.
    pub fn find(&self, name: &str) -> Option<Channel> {
        hold(&self.table).channels.get(name).cloned()
    }

    /// All channels, by name.
    pub fn list(&self) -> Vec<Summary> {
        let mut table = hold(&self.table);
        table.sweep();
        table.channels.values().map(Channel::summary).collect()
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }
}

impl Table {
    /// How many are, or will be, more than somebody's wish to listen.
    fn begun(&self) -> usize {
        let channels = self.channels.values();
        channels.filter(|channel| channel.has_begun()).count()
    }

    /// A channel that keeps nothing and that nobody has a handle to is gone, whenever somebody looks.
    fn sweep(&mut self) {
        self.channels.retain(|_, channel| {
            // In this order: a handle that is gone may have published just before it went.
            !channel.is_unattended() || {
                let summary = channel.summary();
                summary.events > 0 || summary.completed
            }
        });
    }

    /// What is completed and listened to by nobody gives its place to what is new; the one whose last
    /// event is the oldest. `false` when there is none.
    fn evict(&mut self) -> bool {
        let channels = self.channels.iter();
        let unattended = channels.filter(|(_, channel)| channel.is_unattended());
        let completed =
            unattended.filter_map(|(name, channel)| Some((channel.completed_after()?, name)));
        let Some((newest, name)) = completed.min().map(|(id, name)| (id, name.clone())) else {
            return false;
        };
        self.forgotten = self.forgotten.max(newest);
        self.channels.remove(&name);
        true
    }
}
