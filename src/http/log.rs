//! Lines for a person on standard error, written by a thread of their own: a terminal that has been
//! paused, or a pipe that nobody reads, must not hold up a connection.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

/// Lines that may wait to be written; beyond them lines are counted, not kept.
const LINES_WAITING: usize = 4 * 1024;

#[derive(Clone)]
pub(crate) struct Log {
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
    access: bool,
}

impl Log {
    /// With `access`, a line for each request; what goes wrong is said in any case.
    pub(crate) fn start(access: bool) -> io::Result<Log> {
        let (lines, waiting) = sync_channel::<String>(LINES_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let log = Log { lines, lost: Arc::clone(&lost), access };
        thread::Builder::new().name("log".into()).stack_size(64 * 1024).spawn(move || {
            while let Ok(mut text) = waiting.recv() {
                text.push('\n');
                // What has piled up meanwhile goes in the same write.
                while let Some(more) = waiting.try_recv().ok().filter(|_| text.len() < 16 * 1024) {
                    text.push_str(&more);
                    text.push('\n');
                }
                match lost.swap(0, Relaxed) {
                    0 => {}
                    lines => {
                        text.push_str(&format!("newswire: {lines} lines of this log were lost\n"))
                    }
                }
                // Nobody is left to tell.
                let _ = io::stderr().write_all(text.as_bytes());
            }
        })?;
        Ok(log)
    }

    /// An access line, made only if it is wanted.
    pub(crate) fn access(&self, line: impl FnOnce() -> String) {
        if self.access {
            self.say(line());
        }
    }

    pub(crate) fn say(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}
