//! The thread that lets channels and events go by their age, and tells presences.

use super::feed::Hub;
use super::limits::Limits;
use super::presence;
use super::table::{Removed, Table, feeds};
use crate::http::lock::hold;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Starts it, if there is anything to do.
pub(super) fn start(hub: &Arc<Hub>, table: &Arc<Mutex<Table>>) -> io::Result<Option<JoinHandle<()>>> {
    let Some(pause) = hub.limits.timer_pause() else { return Ok(None) };
    let (hub, table) = (Arc::clone(hub), Arc::downgrade(table));
    let mut told_at = None;
    let run = move || loop {
        thread::park_timeout(pause);
        // Without a table, the program has no handle to the channels any more.
        let Some(table) = table.upgrade().filter(|_| !hub.is_stopped()) else { return };
        expire(&hub, &table);
        if hub.limits.presence {
            presence::tell(&table, &mut told_at);
        }
    };
    thread::Builder::new().name("timer".into()).spawn(run).map(Some)
}

/// Lets channels and events go that are too old. It locks the table for a moment at a time.
fn expire(hub: &Hub, table: &Mutex<Table>) {
    let Limits { channel_idle, history_age, .. } = hub.limits;
    if !channel_idle.is_zero()
        && let Some(before) = hub.uptime().checked_sub(channel_idle)
    {
        loop {
            // It is dropped when the lock is free.
            let mut expired = Removed::default();
            if !hold(table).expire(before, &mut expired) {
                break;
            }
        }
    }
    if !history_age.is_zero() {
        feeds(table).iter().for_each(|feed| feed.expire(&mut feed.lock()));
    }
}
