//! Lines on standard error, which a thread of its own writes: a paused terminal, or a pipe that is not read, must not
//! hold up anything else. A process has one standard error, and so one such thread.

use super::date::Date;
use super::json::json_string;
use super::lock::hold;
use std::io::{self, Write};
use std::mem::{replace, take};
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// So much text may wait to be written. Lines beyond it are counted, and not kept.
const WAITING_BYTES: usize = 512 * 1024;

static WAITING: Mutex<Waiting> =
    Mutex::new(Waiting { text: String::new(), lost: 0, is_json: false, has_thread: false, is_busy: false });
static CHANGED: Condvar = Condvar::new();

struct Waiting {
    text: String,
    /// How many lines had no room.
    lost: u64,
    is_json: bool,
    has_thread: bool,
    /// The thread writes, or something waits for it.
    is_busy: bool,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogOptions {
    /// Whether there is a line for each request. Errors are written in any case.
    pub(crate) accesses: bool,
    /// Whether each line is a JSON object. One such server makes it so for the process.
    pub(crate) json: bool,
    /// The peers that say for which client they ask; `None` is a client of a Unix socket.
    pub(crate) trusted_proxies: Vec<Option<IpAddr>>,
}

pub(super) struct Log {
    pub(super) options: LogOptions,
}

impl Log {
    /// Writes an access line: the client, the method and the target unless the request could not be read, and the status.
    /// It is made only if it is wanted.
    pub(super) fn access(&self, request: impl FnOnce() -> (String, Option<String>, u16)) {
        if !self.options.accesses {
            return;
        }
        let (date, (client, line, status)) = (Date::now().rfc3339(), request());
        send(&if self.options.json {
            let parts = line.as_deref().and_then(|line| line.split_once(' ')).unzip();
            let [method, target] = [parts.0, parts.1].map(|part| part.map_or("null".to_owned(), json_string));
            let client = json_string(&client);
            format!(
                "{{\"time\":\"{date}\",\"client\":{client},\"method\":{method},\"target\":{target},\"status\":{status}}}\n"
            )
        } else {
            format!("{date} {client} {} {status}\n", line.as_deref().unwrap_or("-"))
        });
    }
}

/// Starts the thread that writes, while the system still grants one.
pub(super) fn start() {
    hold(&WAITING).start_thread();
}

/// Each line of this process becomes a JSON object.
pub(super) fn begin_json() {
    hold(&WAITING).is_json = true;
}

/// Writes a line on standard error, in JSON if a server of this process was told so. It waits for no reader: when the
/// lines before it are not read, this one is counted, and not kept.
pub fn say(sentence: &str) {
    let is_json = hold(&WAITING).is_json;
    send(&as_line(sentence, is_json));
}

/// Waits until all lines are written, but no longer than this: they may have no reader.
pub(super) fn wait_until_written(at_most: Duration) {
    let waited = CHANGED.wait_timeout_while(hold(&WAITING), at_most, |waiting| waiting.is_busy);
    drop(waited.unwrap_or_else(PoisonError::into_inner));
}

fn as_line(sentence: &str, is_json: bool) -> String {
    let sentence = format!("newswire: {sentence}");
    if !is_json {
        return sentence + "\n";
    }
    let (date, sentence) = (Date::now().rfc3339(), json_string(&sentence));
    format!("{{\"time\":\"{date}\",\"message\":{sentence}}}\n")
}

fn send(line: &str) {
    let mut waiting = hold(&WAITING);
    if waiting.text.len() + line.len() > WAITING_BYTES {
        waiting.lost += 1;
        return;
    }
    waiting.text.push_str(line);
    let was_busy = replace(&mut waiting.is_busy, true);
    waiting.start_thread();
    drop(waiting);
    if !was_busy {
        CHANGED.notify_all();
    }
}

impl Waiting {
    /// When the system refuses the thread, the next line asks for it again.
    fn start_thread(&mut self) {
        if !self.has_thread {
            let thread = thread::Builder::new().name("log".into()).stack_size(64 * 1024);
            self.has_thread = thread.spawn(write_lines).is_ok();
        }
    }
}

fn write_lines() {
    let mut waiting = hold(&WAITING);
    loop {
        // All lines that wait leave in one write.
        let mut text = take(&mut waiting.text);
        if text.is_empty() {
            waiting.is_busy = false;
            CHANGED.notify_all();
            waiting = CHANGED.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let lost = take(&mut waiting.lost);
        if lost > 0 {
            let sentence = format!("{lost} lines of this log were lost");
            text.push_str(&as_line(&sentence, waiting.is_json));
        }
        drop(waiting);
        // There is no other place to say that standard error is closed.
        let _ = io::stderr().write_all(text.as_bytes());
        waiting = hold(&WAITING);
    }
}
