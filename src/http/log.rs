//! Lines on standard error, which a thread of its own writes: a paused terminal, or a pipe that is not read, must not
//! hold up a connection.

use super::pool::Threads;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

/// So many lines may wait to be written. More are counted, and not kept.
const LINES_WAITING: usize = 4 * 1024;

/// A write takes more lines up to this size.
const WRITE_BYTES: usize = 16 * 1024;

pub(super) struct Log {
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
    access: bool,
}

impl Log {
    /// Starts the thread that writes; it ends with the last clone of the log. With `access` there is a line for each
    /// request. Errors are written in any case.
    pub(super) fn start(access: bool, threads: &Arc<Threads>) -> io::Result<Log> {
        let (lines, waiting) = sync_channel(LINES_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let log = Log { lines, lost: Arc::clone(&lost), access };
        let thread = thread::Builder::new().name("log".into()).stack_size(64 * 1024);
        threads.start(thread, move || write_lines(&waiting, &lost))?;
        Ok(log)
    }

    /// Writes an access line. It is made only if it is wanted.
    pub(super) fn access(&self, line: impl FnOnce() -> String) {
        if self.access {
            self.say(line());
        }
    }

    pub(super) fn say(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

fn write_lines(waiting: &Receiver<String>, lost: &AtomicU64) {
    while let Ok(mut text) = waiting.recv() {
        text.push('\n');
        // All lines that wait leave in one write.
        while let Some(more) = waiting.try_recv().ok().filter(|_| text.len() < WRITE_BYTES) {
            text.push_str(&more);
            text.push('\n');
        }
        match lost.swap(0, Relaxed) {
            0 => {}
            lines => text.push_str(&format!("newswire: {lines} lines of this log were lost\n")),
        }
        // There is no other place to say that standard error is closed.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}
