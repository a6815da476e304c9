//! Presence: how many subscribers a channel has, as events on a channel of its own.

use super::channel::Channel;
use super::limits::PRESENCE_INTERVAL;
use super::log::Log;
use super::selection::PRESENCE;
use super::table::Table;
use crate::http::lock::hold;
use std::sync::Mutex;
use std::time::Instant;

/// Publishes each number that has changed, unless that was done a moment ago. Only presences with subscribers exist; a
/// subscriber that comes later starts with the number that was told last.
pub(super) fn tell(table: &Mutex<Table>, told_at: &mut Option<Instant>) {
    if told_at.is_some_and(|at| at.elapsed() < PRESENCE_INTERVAL) {
        return;
    }
    *told_at = Some(Instant::now());
    let presences: Vec<Channel> = {
        let table = hold(table);
        let views = table.views.all().filter(|view| view.is_presence());
        views.map(|view| Channel::new(view, &Log::Memory)).collect()
    };
    for presence in presences {
        let of_channel = hold(table).subscribers(presence.name().trim_start_matches(PRESENCE));
        let number = format!("{{\"subscribers\":{of_channel}}}");
        let end = format!("data: {number}\n\n");
        let last_is = |frame: &[u8]| frame.ends_with(end.as_bytes());
        let is_told = presence.feed.lock().history.events().last().is_some_and(|(_, frame)| last_is(frame));
        if !is_told {
            // It fails when the channels are stopped.
            let _ = presence.publish(number);
        }
    }
}
