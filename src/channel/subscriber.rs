//! A subscriber that has room in its socket: what it lacks is written without waiting for it.

use super::counters::Counters;
use super::history::{Batch, Cursor};
use crate::http::connection::Connection;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What an idle subscriber is sent: the shortest comment. No blank line ends it (see the opening of a stream).
const HEARTBEAT: &[u8] = b":\n";

/// How often it is looked whether an idle subscriber has left, if heartbeats do not tell before.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// The last event of a completed channel's streams. It has no id, and some data, without which it
/// would not be dispatched.
pub(super) const END: &[u8] = b"event: end\ndata: the channel is completed\n\n";

/// A client of a channel: its connection, and where in the log it stands. It is owned by one thread
/// at a time; dropping it closes the connection and gives its permit back.
pub(super) struct Subscriber {
    pub(super) connection: Connection,
    pub(super) cursor: Cursor,
    /// How many completions of the channel it has no part in: any later one ends it.
    pub(super) completions: u32,
    /// How long a silence it is left in, in milliseconds.
    pub(super) patience_ms: u32,
    /// When something was last written to it, in milliseconds of the channels' clock.
    pub(super) heard_ms: u64,
    /// When it was last looked whether it has left, on the same clock.
    looked_ms: u64,
    /// It has closed its half of the connection: it may still be listening, or be gone.
    half_closed: bool,
    _presence: Presence,
}

/// What came of writing to a subscriber.
pub(super) enum Written {
    All,
    /// There was no room for the rest, after which it stands at `cursor`, or has heard the end.
    Blocked {
        rest: Vec<u8>,
        cursor: Cursor,
        ended: bool,
    },
    Departed(Departure),
}

/// Why a subscriber is no more.
pub(super) enum Departure {
    /// The client closed its connection, or it broke.
    Left,
    /// It took nothing for [`Limits::write_stall`](crate::http::Limits::write_stall).
    Stalled,
    /// The log moved past it, or there was no thread for it.
    Slow,
    Completed,
}

impl Departure {
    pub(super) fn count(self, counters: &Counters) {
        let counter = match self {
            Departure::Left => &counters.left,
            Departure::Stalled => &counters.stalled,
            Departure::Slow => &counters.slow,
            Departure::Completed => &counters.completed,
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// One of a channel's subscribers, as long as this lives.
pub(super) struct Presence(Arc<AtomicUsize>);

impl Presence {
    pub(super) fn new(subscribers: &Arc<AtomicUsize>) -> Presence {
        subscribers.fetch_add(1, Relaxed);
        Presence(Arc::clone(subscribers))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Subscriber {
    pub(super) fn new(
        connection: Connection,
        presence: Presence,
        cursor: Cursor,
        completions: u32,
    ) -> Subscriber {
        Subscriber {
            connection,
            cursor,
            completions,
            patience_ms: 0,
            heard_ms: 0,
            looked_ms: 0,
            half_closed: false,
            _presence: presence,
        }
    }

    /// Writes what it lacks of a batch, with one call; with `ends_at` only up to there, and then the
    /// end.
    pub(super) fn write_batch(&mut self, batch: &Batch, ends_at: Option<Cursor>) -> Written {
        if self.cursor < batch.from() {
            return Written::Departed(Departure::Slow);
        }
        let until = ends_at.unwrap_or(batch.end());
        let lacking = batch.between(self.cursor, until);
        if !lacking.is_empty() {
            match self.write_some(lacking) {
                Ok(taken) if taken == lacking.len() => self.cursor = until,
                Ok(taken) => {
                    let (rest, cursor) = batch.split(self.cursor, taken);
                    return Written::Blocked { rest: rest.to_vec(), cursor, ended: false };
                }
                Err(_) => return Written::Departed(Departure::Left),
            }
        }
        match ends_at {
            Some(_) => self.write_end(),
            None => Written::All,
        }
    }

    fn write_end(&mut self) -> Written {
        match self.write_some(END) {
            Ok(taken) if taken < END.len() => self.blocked(&END[taken..], true),
            Ok(_) => {
                // What the client may have sent must be read before the close, or a reset would
                // take the end back from it.
                let _ = self.connection.shutdown(Shutdown::Write);
                let _ = (&mut &*self.connection).read(&mut [0; 4096]);
                Written::Departed(Departure::Completed)
            }
            Err(_) => Written::Departed(Departure::Left),
        }
    }

    /// Breaks the silence if it has lasted long enough, and looks whether the client has left: its place
    /// must come back although heartbeats may be rare, or off.
    pub(super) fn beat(&mut self, now_ms: u64) -> Written {
        // The beat that was written into a closed connection has come back as a reset by now.
        if self.half_closed && !matches!(self.connection.take_error(), Ok(None)) {
            return Written::Departed(Departure::Left);
        }
        let (silent_ms, unseen_ms) = (
            now_ms.saturating_sub(self.heard_ms),
            now_ms.saturating_sub(self.heard_ms.max(self.looked_ms)),
        );
        let is_due = silent_ms >= u64::from(self.patience_ms);
        if !is_due && unseen_ms < LOOK_INTERVAL.as_millis() as u64 {
            return Written::All;
        }
        self.looked_ms = now_ms;
        match (&mut &*self.connection).read(&mut [0; 1024]) {
            Ok(0) => self.half_closed = true,
            // A client has nothing to say on a stream.
            Ok(_) => {}
            Err(error) if is_for_later(&error) => {}
            Err(_) => return Written::Departed(Departure::Left),
        }
        // Who has closed its half can be told from who has left by a write alone.
        if !is_due && !self.half_closed {
            return Written::All;
        }
        self.heard_ms = now_ms;
        match self.write_some(HEARTBEAT) {
            Ok(taken) if taken < HEARTBEAT.len() => self.blocked(&HEARTBEAT[taken..], false),
            Ok(_) => Written::All,
            Err(_) => Written::Departed(Departure::Left),
        }
    }

    fn blocked(&self, rest: &[u8], ended: bool) -> Written {
        Written::Blocked { rest: rest.to_vec(), cursor: self.cursor, ended }
    }

    /// One call; no room at all is no bytes.
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        match (&mut &*self.connection).write(bytes) {
            Err(error) if is_for_later(&error) => Ok(0),
            outcome => outcome,
        }
    }

    /// Waits for the client, but not for one that takes nothing.
    pub(super) fn write_blocking(&self, bytes: &[u8]) -> Result<(), Departure> {
        let written = self.connection.write_all(bytes);
        written.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Departure::Stalled,
            _ => Departure::Left,
        })
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
