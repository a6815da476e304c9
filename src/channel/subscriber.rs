//! A subscriber: its connection and its position. What it lacks is written without waiting for the client, as long as
//! its socket has room.

use super::history::{Batch, Cursor, Rest};
use super::members::Presence;
use crate::http::connection::Connection;
use crate::sse::farewell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

/// The shortest comment. No blank line ends it: several clients dispatch an empty message for a block without data.
pub(super) const HEARTBEAT: &[u8] = b":\n";

/// The heartbeat for pages that must see it: EventSource hides comments. It has no id, so that the client keeps its own.
pub(super) const HEARTBEAT_EVENT: &[u8] = b"event: heartbeat\ndata: heartbeat\n\n";

/// How often the server looks whether an idle client has closed its connection, if no heartbeat tells it before: a
/// permit must come back although heartbeats may be rare, or off.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// The first look comes so soon, and each pause after it is twice as long as the one before. Otherwise clients that
/// subscribe and leave at once, a hundred each second, would take all permits.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// The last event of a stream when its channel is completed. It has no id, so that the client keeps its own; without data
/// it would not be dispatched.
pub(super) const END: &[u8] = b"event: end\ndata: the channel is completed\n\n";

/// It is owned by one thread at a time. Dropping it closes the connection and gives its permit back.
pub(super) struct Subscriber {
    pub(super) connection: Connection,
    pub(super) cursor: Cursor,
    /// The end of the history when the subscriber came: a completion from there on ends its stream.
    pub(super) joined_at: Cursor,
    pub(super) heartbeat_interval_ms: u32,
    /// When something was last written, on the clock of the hub.
    pub(super) written_ms: u64,
    /// When the server last looked whether the client has left, on the same clock.
    looked_ms: u64,
    /// The pause until it looks again.
    look_interval: Duration,
    /// The client has closed its half of the connection. It may still be reading, or be gone.
    is_half_closed: bool,
    pub(super) presence: Presence,
}

/// The outcome of a write that does not wait.
pub(super) enum Written {
    All,
    /// The socket had no room for `rest`, with which a frame or, if `is_ended`, the stream ends.
    Blocked {
        rest: Rest,
        is_ended: bool,
    },
    Departed(Departure),
}

/// Why a stream has ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Departure {
    /// The client closed its connection, or the connection broke.
    Left,
    /// The client made no progress for [`Limits::write_stall`](crate::http::Limits::write_stall).
    Stalled,
    /// The history moved past the subscriber, or the system refused a thread for it.
    Slow,
    Completed,
    /// The channels were stopped.
    Stopped,
}

impl Subscriber {
    pub(super) fn new(connection: Connection, presence: Presence, joined_at: Cursor) -> Subscriber {
        connection.spare();
        Subscriber {
            connection,
            cursor: joined_at,
            joined_at,
            heartbeat_interval_ms: u32::MAX,
            written_ms: 0,
            looked_ms: 0,
            look_interval: FIRST_LOOK,
            is_half_closed: false,
            presence,
        }
    }

    /// The position at which the stream ends, if the channel was completed there.
    pub(super) fn ends_at(&self, completed_at: Option<Cursor>) -> Option<Cursor> {
        completed_at.filter(|completed_at| *completed_at >= self.joined_at)
    }

    /// Writes what the subscriber lacks of the batch, with one call; with `ends_at` only up to there, and the end.
    pub(super) fn write_batch(&mut self, batch: &Batch, ends_at: Option<Cursor>) -> Written {
        let until = ends_at.unwrap_or(batch.end());
        let lacking = batch.between(self.cursor, until);
        if !lacking.is_empty() {
            match self.write_some(lacking) {
                Ok(taken) if taken == lacking.len() => self.cursor = until,
                Ok(taken) => {
                    let (rest, cursor) = batch.split(self.cursor, taken);
                    self.cursor = cursor;
                    return Written::Blocked { rest, is_ended: false };
                }
                Err(_) => return Written::Departed(Departure::Left),
            }
        }
        match ends_at {
            Some(_) => self.write_last(END, Departure::Completed),
            None => Written::All,
        }
    }

    /// Ends the stream and tells the client when to reconnect.
    pub(super) fn stop(&self) {
        let _ = self.write_last(&farewell(), Departure::Stopped);
    }

    fn write_last(&self, bytes: &[u8], departure: Departure) -> Written {
        match self.write_some(bytes) {
            Ok(taken) if taken < bytes.len() => Written::Blocked { rest: (bytes.into(), taken), is_ended: true },
            Ok(_) => {
                // The system answers bytes that were never read with a reset, which could take the last event back.
                let _ = self.connection.shutdown(Shutdown::Write);
                let _ = (&mut &**self.connection).read(&mut [0; 4096]);
                Written::Departed(departure)
            }
            Err(_) => Written::Departed(Departure::Left),
        }
    }

    fn heartbeat_at_ms(&self) -> u64 {
        self.written_ms + u64::from(self.heartbeat_interval_ms)
    }

    /// When [`heartbeat`](Subscriber::heartbeat) has something to do.
    pub(super) fn heartbeat_in_ms(&self, now_ms: u64) -> u64 {
        let look_at_ms = self.written_ms.max(self.looked_ms) + self.look_interval.as_millis() as u64;
        look_at_ms.min(self.heartbeat_at_ms()).saturating_sub(now_ms)
    }

    /// Writes a heartbeat if one is due, and looks from time to time whether the client has left.
    pub(super) fn heartbeat(&mut self, now_ms: u64, frame: &'static [u8]) -> Written {
        // A write into a closed connection brings a reset. After a heartbeat it is here by now.
        if self.is_half_closed && !matches!(self.connection.take_error(), Ok(None)) {
            return Written::Departed(Departure::Left);
        }
        if self.heartbeat_in_ms(now_ms) > 0 {
            return Written::All;
        }
        let is_due = now_ms >= self.heartbeat_at_ms();
        self.looked_ms = now_ms;
        self.look_interval = (self.look_interval * 2).min(LOOK_INTERVAL);
        match (&mut &**self.connection).read(&mut [0; 1024]) {
            Ok(0) => self.is_half_closed = true,
            // A client has nothing to say on a stream.
            Ok(_) => {}
            Err(error) if is_temporary(&error) => {}
            Err(_) => return Written::Departed(Departure::Left),
        }
        // Only a write can tell a client that closed its half from one that has left.
        if !is_due && !self.is_half_closed {
            return Written::All;
        }
        self.written_ms = now_ms;
        match self.write_some(frame) {
            Ok(taken) if taken < frame.len() => Written::Blocked { rest: (frame.into(), taken), is_ended: false },
            Ok(_) => Written::All,
            Err(_) => Written::Departed(Departure::Left),
        }
    }

    /// One call. When the socket has no room it has taken 0 bytes.
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        match (&mut &**self.connection).write(bytes) {
            Err(error) if is_temporary(&error) => Ok(0),
            outcome => outcome,
        }
    }

    /// Writes everything on a blocking socket.
    pub(super) fn write_blocking(&self, bytes: &[u8]) -> Result<(), Departure> {
        self.write_both_blocking(bytes, b"")
    }

    /// The same, for two pieces in one call.
    pub(super) fn write_both_blocking(&self, first: &[u8], second: &[u8]) -> Result<(), Departure> {
        self.connection.write_both(first, second).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Departure::Stalled,
            _ => Departure::Left,
        })
    }

    /// The same, with the last bytes of the stream; the client can read all of them.
    pub(super) fn write_last_blocking(&self, bytes: &[u8]) -> Result<(), Departure> {
        self.write_blocking(bytes)?;
        self.connection.linger();
        Ok(())
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
