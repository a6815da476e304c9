//! The table of channels: names to logs, and its bounds.

use super::channel::{Channel, Common, MAX_FANOUT_THREADS, Summary};
use super::fanout;
use crate::Limits;
use crate::lock::hold;
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
    table: Arc<Mutex<BTreeMap<String, Channel>>>,
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
        f.write_str(match self {
            NoChannel::Name => {
                "A channel's name is 1 to 64 letters, digits, dots, underscores and hyphens, and does not begin with a dot."
            }
            NoChannel::Full => "There are as many channels as this server may have.",
        })
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
        let threads = available_parallelism()
            .map_or(1, |cores| cores.get())
            .min(MAX_FANOUT_THREADS);
        let common = Common::new(limits, threads);
        fanout::start(&common)?;
        Ok(Channels {
            common,
            table: Arc::default(),
        })
    }

    /// Whether a channel can have this name: 1 to 64 ASCII letters, digits, dots, underscores and hyphens,
    /// not beginning with a dot.
    pub fn is_name(name: &str) -> bool {
        is_name(name)
    }

    /// The channel of this name, which begins to exist if it did not.
    ///
    /// # Errors
    /// [`NoChannel`].
    pub fn open(&self, name: &str) -> Result<Channel, NoChannel> {
        if !is_name(name) {
            return Err(NoChannel::Name);
        }
        let mut table = hold(&self.table);
        if let Some(channel) = table.get(name) {
            return Ok(channel.clone());
        }
        if table.len() >= self.common.limits.channels {
            sweep(&mut table);
        }
        if table.len() >= self.common.limits.channels {
            // What is completed and listened to by nobody gives its place to what is new; the one
            // completed first.
            let unattended = table.iter().filter(|(_, channel)| channel.is_unattended());
            let completed =
                unattended.filter_map(|(name, channel)| Some((channel.completed_after()?, name)));
            let oldest = completed.min().map(|(_, name)| name.clone());
            table.remove(&oldest.ok_or(NoChannel::Full)?);
        }
        let channel = Channel::new(name.to_owned(), Arc::clone(&self.common));
        table.insert(name.to_owned(), channel.clone());
        Ok(channel)
    }

    /// A channel that is not in the table.
    pub(crate) fn unlisted(&self, name: &str) -> Channel {
        Channel::new(name.to_owned(), Arc::clone(&self.common))
    }

    /// The channel of this name, if it exists.
    pub fn find(&self, name: &str) -> Option<Channel> {
        hold(&self.table).get(name).cloned()
    }

    /// All channels, by name.
    pub fn list(&self) -> Vec<Summary> {
        let mut table = hold(&self.table);
        sweep(&mut table);
        table.values().map(Channel::summary).collect()
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }
}

/// A channel that keeps nothing and that nobody has a handle to is gone, whenever somebody looks.
fn sweep(table: &mut BTreeMap<String, Channel>) {
    table.retain(|_, channel| {
        let summary = channel.summary();
        !channel.is_unattended() || summary.events > 0 || summary.completed
    });
}

pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
