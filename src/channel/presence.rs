//! Presence: how many subscribers a channel has, as events on a channel of its own.

use super::channel::Channel;
use super::limits::PRESENCE_INTERVAL;
use super::log::Log;
use super::selection::PRESENCE;
use super::table::Table;
use crate::http::lock::hold;
use std::collections::HashMap;
use std::mem::take;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What was told last.
#[derive(Default)]
pub(super) struct Told {
    at: Option<Instant>,
    /// For each presence: the subscribers of its channel, and its own.
    numbers: HashMap<Arc<str>, [usize; 2]>,
}

impl Told {
    /// Publishes each number that has changed or that a new subscriber has not got. Only presences with subscribers
    /// exist.
    pub(super) fn tell(&mut self, table: &Mutex<Table>) {
        if self.at.is_some_and(|at| at.elapsed() < PRESENCE_INTERVAL) {
            return;
        }
        self.at = Some(Instant::now());
        let presences: Vec<Channel> = {
            let table = hold(table);
            let views = table.views.all().filter(|view| view.view.is_none());
            views.map(|view| Channel::new(view, &Log::Memory)).collect()
        };
        let before = take(&mut self.numbers);
        for presence in presences {
            let name = &presence.feed.members.name;
            let of_channel = hold(table).subscribers(name.trim_start_matches(PRESENCE));
            let own = presence.subscribers();
            let is_told = before.get(name).is_some_and(|[told, to]| *told == of_channel && *to >= own);
            if !is_told {
                // It fails when the channels are stopped.
                let _ = presence.publish(format!("{{\"subscribers\":{of_channel}}}"));
            }
            self.numbers.insert(Arc::clone(name), [of_channel, own]);
        }
    }
}
