//! The writer of one stream and its heartbeats.
//!
//! One thread of the process writes the heartbeats of all streams, although their own threads sleep or compute. The thread of a
//! stream holds the lock of its [`Output`] while it writes, which may take long. The heartbeat thread never waits for
//! that lock: a stream that is writing needs no heartbeat. It holds the lock for a write that does not wait.

use crate::http::StreamWriter;
use crate::http::connection::Peer;
use crate::http::lock::hold;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How often a stream is given a heartbeat while nothing else is sent. Proxies cut a silent stream after a minute or
/// less.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// A comment, which clients ignore. It is one line, and no blank line follows: several clients would dispatch an empty
/// message.
const HEARTBEAT_LINE: &[u8] = b":\n";

/// How often a client that has closed its half of the connection is written to, at least, while it is checked.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Heartbeats that are due within this time are written together, since each look visits every stream.
const STEP: Duration = Duration::from_millis(10);

/// Where a stream is written.
pub(super) struct Output {
    writer: StreamWriter,
    interval: Duration,
    written_at: Instant,
    /// Nothing more can be written.
    has_left: bool,
}

impl Output {
    /// An output with this heartbeat interval. The bounds keep the heartbeat thread from running without a pause, and
    /// the clock from overflowing.
    pub(super) fn new(writer: StreamWriter, interval: Duration) -> Output {
        let interval = interval.clamp(STEP, Duration::from_secs(24 * 60 * 60));
        Output { writer, interval, written_at: Instant::now(), has_left: false }
    }

    /// Writes a whole frame, and waits for the client to take it.
    pub(super) fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.has_left {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.writer.write_all(frame);
        self.written_at = Instant::now();
        self.has_left = written.is_err();
        written
    }

    /// Writes a heartbeat unless something was written within the interval. Returns when the next one is due; `None`
    /// when the client has left.
    pub(super) fn keep_alive(&mut self) -> Option<Instant> {
        let is_open = self.is_open();
        if is_open && self.written_at + self.interval <= Instant::now() {
            self.beat();
        }
        is_open.then(|| self.written_at + self.interval)
    }

    /// Writes a heartbeat without waiting. A client that does not take it has unread bytes, which keep the connection
    /// as busy as a heartbeat would.
    fn beat(&mut self) {
        self.has_left = match self.writer.write_at_once(HEARTBEAT_LINE) {
            // Behind half of a heartbeat the next frame would be a comment. The client reconnects.
            Ok(bytes) => bytes < HEARTBEAT_LINE.len(),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.written_at = Instant::now();
    }

    /// Whether the client is still there, as far as is known. A client that has closed its half of the connection may
    /// still be reading. Only a write tells: the system of a client that has left answers it with a reset, which the
    /// next check sees.
    pub(super) fn is_open(&mut self) -> bool {
        // A write of no bytes fails when the writing half is closed, as it is when the server stops.
        if self.has_left || self.writer.write_at_once(b"").is_err() {
            self.has_left = true;
            return false;
        }
        match self.writer.connection().look_for_peer() {
            Peer::Open => {}
            Peer::HalfClosed if self.written_at.elapsed() < PROBE_INTERVAL => {}
            Peer::HalfClosed => self.beat(),
            Peer::Gone => self.has_left = true,
        }
        !self.has_left
    }

    /// Ends the stream so that the client reads all of it.
    pub(super) fn finish(&self) {
        self.writer.connection().linger();
    }
}

/// What the heartbeat thread knows of a stream.
struct Kept {
    output: Weak<Mutex<Output>>,
    interval: Duration,
    due: Instant,
}

/// Takes streams to the heartbeat thread. The receiver is gone while there is no such thread.
static BEGUN: LazyLock<Mutex<Sender<Kept>>> = LazyLock::new(|| Mutex::new(channel().0));

/// Has the heartbeat thread keep a stream alive.
///
/// # Errors
/// When the system refuses the thread.
pub(super) fn keep_alive(output: &Arc<Mutex<Output>>) -> io::Result<()> {
    let interval = hold(output).interval;
    let kept = Kept { output: Arc::downgrade(output), interval, due: Instant::now() + interval };
    let mut begun = hold(&BEGUN);
    if let Err(SendError(kept)) = begun.send(kept) {
        let (sender, receiver) = channel();
        let thread = thread::Builder::new().name("heartbeat".into()).stack_size(64 * 1024);
        thread.spawn(|| run(vec![kept], receiver))?;
        *begun = sender;
    }
    Ok(())
}

/// Runs until no stream is left when it wakes.
fn run(mut streams: Vec<Kept>, begun: Receiver<Kept>) {
    loop {
        let now = Instant::now();
        streams.retain_mut(|kept| kept.output.strong_count() > 0 && (now < kept.due || kept.keep_alive()));
        let arrived = match streams.iter().map(|kept| kept.due).min() {
            Some(next) => begun.recv_timeout(next.saturating_duration_since(now).max(STEP)).ok(),
            None => {
                // No stream is sent between the look and the end of the receiver.
                let _sender = hold(&BEGUN);
                match begun.try_recv() {
                    Ok(kept) => Some(kept),
                    Err(_) => return drop(begun),
                }
            }
        };
        streams.extend(arrived.into_iter().chain(begun.try_iter()));
    }
}

impl Kept {
    /// `false` when the stream has ended or its client has left.
    fn keep_alive(&mut self) -> bool {
        let Some(output) = self.output.upgrade() else { return false };
        // A lock that cannot be taken: the stream is writing.
        let next = match output.try_lock() {
            Ok(mut output) => output.keep_alive(),
            Err(_) => Some(Instant::now() + self.interval),
        };
        self.due = next.unwrap_or(self.due);
        next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams with a long interval that begin and end all the time would fill the memory.
    #[test]
    fn the_heartbeat_thread_forgets_an_ended_stream_before_its_next_heartbeat() {
        let interval = Duration::from_secs(24 * 60 * 60);
        let ended = Kept { output: Weak::new(), interval, due: Instant::now() + interval };
        run(vec![ended], channel().1);
    }
}
