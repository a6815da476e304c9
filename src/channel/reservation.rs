//! Idempotency keys with which something is being published: such a key is neither new nor known.

use super::publication::PublishError;
use crate::http::lock::hold;
use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Each with the name of its channel.
#[derive(Default)]
pub(super) struct Reservations {
    reserved: Mutex<HashSet<String>>,
    released: Condvar,
}

/// A key on some channels, with which no other thread of this process publishes there meanwhile.
pub(super) struct Reservation<'r> {
    reservations: &'r Reservations,
    keys: Vec<String>,
}

impl Reservations {
    /// Waits until nothing has the key, if there is one, on any of the channels. It is reserved on all of them at once:
    /// otherwise two publishers could wait for each other.
    pub(super) fn reserve<'n>(
        &self,
        key: Option<&str>,
        channels: impl Iterator<Item = &'n str>,
        deadline: Instant,
    ) -> Result<Option<Reservation<'_>>, PublishError> {
        let Some(key) = key else { return Ok(None) };
        let keys: Vec<String> = channels.map(|name| format!("{name}\n{key}")).collect();
        let time = deadline.saturating_duration_since(Instant::now());
        let is_reserved = |reserved: &mut HashSet<String>| keys.iter().any(|key| reserved.contains(key));
        let waited = self.released.wait_timeout_while(hold(&self.reserved), time, is_reserved);
        let (mut reserved, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Err(PublishError::Unavailable);
        }
        reserved.extend(keys.iter().cloned());
        drop(reserved);
        Ok(Some(Reservation { reservations: self, keys }))
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut reserved = hold(&self.reservations.reserved);
        for key in &self.keys {
            reserved.remove(key);
        }
        drop(reserved);
        self.reservations.released.notify_all();
    }
}
