//! Lines on standard error, which a thread of its own writes: a paused terminal, or a pipe that is not read, must not
//! hold up a connection.

use super::date::Date;
use super::json::json_string;
use super::pool::Threads;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

/// So many lines may wait to be written. More are counted, and not kept.
const LINES_WAITING: usize = 4 * 1024;

/// A write takes more lines up to this size.
const WRITE_BYTES: usize = 16 * 1024;

/// What is logged, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogOptions {
    /// Whether there is a line for each request. Errors are written in any case.
    pub(crate) accesses: bool,
    /// Whether each line is a JSON object.
    pub(crate) json: bool,
    /// The peers that say for which client they ask; `None` is a client of a Unix socket.
    pub(crate) trusted_proxies: Vec<Option<IpAddr>>,
}

pub(super) struct Log {
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
    pub(super) options: LogOptions,
}

impl Log {
    /// Starts the thread that writes; it ends with the log.
    pub(super) fn start(options: LogOptions, threads: &Arc<Threads>) -> io::Result<Log> {
        let (lines, waiting) = sync_channel(LINES_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let (counter, is_json) = (Arc::clone(&lost), options.json);
        let thread = thread::Builder::new().name("log".into()).stack_size(64 * 1024);
        threads.start(thread, move || write_lines(&waiting, &counter, is_json))?;
        Ok(Log { lines, lost, options })
    }

    /// Writes an access line: the client, the method and the target unless the request could not be read, and the status.
    /// It is made only if it is wanted.
    pub(super) fn access(&self, request: impl FnOnce() -> (String, Option<String>, u16)) {
        if !self.options.accesses {
            return;
        }
        let (date, (client, line, status)) = (Date::now().rfc3339(), request());
        self.send(if self.options.json {
            let parts = line.as_deref().and_then(|line| line.split_once(' ')).unzip();
            let [method, target] = [parts.0, parts.1]
                .map(|part| part.map_or("null".to_owned(), json_string));
            let client = json_string(&client);
            format!(
                r#"{{"time":"{date}","client":{client},"method":{method},"target":{target},"status":{status}}}"#
            )
        } else {
            format!("{date} {client} {} {status}", line.as_deref().unwrap_or("-"))
        });
    }

    pub(super) fn say(&self, sentence: String) {
        self.send(as_line(sentence, self.options.json));
    }

    fn send(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

fn as_line(sentence: String, is_json: bool) -> String {
    if !is_json {
        return sentence;
    }
    format!(r#"{{"time":"{}","message":{}}}"#, Date::now().rfc3339(), json_string(&sentence))
}

fn write_lines(waiting: &Receiver<String>, lost: &AtomicU64, is_json: bool) {
    while let Ok(mut text) = waiting.recv() {
        text.push('\n');
        // All lines that wait leave in one write.
        while let Some(more) = waiting.try_recv().ok().filter(|_| text.len() < WRITE_BYTES) {
            text.push_str(&more);
            text.push('\n');
        }
        match lost.swap(0, Relaxed) {
            0 => {}
            lines => {
                let sentence = format!("newswire: {lines} lines of this log were lost");
                text.push_str(&(as_line(sentence, is_json) + "\n"));
            }
        }
        // There is no other place to say that standard error is closed.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}
