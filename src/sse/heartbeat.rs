//! Heartbeats for streams whose own thread sleeps or computes: one thread of the process writes all of them.
//!
//! The thread of a stream owns its [`Output`] and holds the lock while it writes, which may take long. The heartbeat
//! thread never waits for that lock: a stream that is writing needs no heartbeat. It holds the lock for a write that
//! does not wait.

use super::output::Output;
use crate::http::lock::hold;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// The streams of the process, by the time when each is checked next.
struct Schedule {
    /// The number tells apart streams that are due at the same time.
    due: BTreeMap<(Instant, u64), Stream>,
    next_number: u64,
    /// How many streams there are. `due` may have more, which have ended.
    streams: usize,
    has_thread: bool,
}

struct Stream {
    output: Weak<Mutex<Output>>,
    interval: Duration,
}

static SCHEDULE: Mutex<Schedule> =
    Mutex::new(Schedule { due: BTreeMap::new(), next_number: 0, streams: 0, has_thread: false });

/// The schedule has an earlier time than before, or is empty.
static CHANGED: Condvar = Condvar::new();

const STACK_BYTES: usize = 64 * 1024;

/// Keeps the stream alive with heartbeats until this is dropped.
pub(super) struct KeepAlive;

impl KeepAlive {
    /// # Errors
    /// When the system refuses the thread.
    pub(super) fn start(output: &Arc<Mutex<Output>>, interval: Duration) -> io::Result<KeepAlive> {
        let mut schedule = hold(&SCHEDULE);
        if !schedule.has_thread {
            let thread = thread::Builder::new().name("heartbeat".into()).stack_size(STACK_BYTES);
            thread.spawn(run)?;
            schedule.has_thread = true;
        }
        schedule.streams += 1;
        let output = Arc::downgrade(output);
        schedule.insert(Instant::now() + interval, Stream { output, interval });
        CHANGED.notify_one();
        Ok(KeepAlive)
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        let mut schedule = hold(&SCHEDULE);
        schedule.streams -= 1;
        // Streams that have ended stay until they are due. They must not pile up when many begin and end.
        if schedule.streams == 0 {
            schedule.due.clear();
            CHANGED.notify_one();
        } else if schedule.due.len() > 2 * schedule.streams + 64 {
            schedule.due.retain(|_, stream| stream.output.strong_count() > 0);
        }
    }
}

impl Schedule {
    fn insert(&mut self, due: Instant, stream: Stream) {
        self.due.insert((due, self.next_number), stream);
        self.next_number += 1;
    }
}

/// Runs until there is no stream left to keep alive.
fn run() {
    let mut schedule = hold(&SCHEDULE);
    loop {
        let Some(first) = schedule.due.first_entry() else {
            schedule.has_thread = false;
            return;
        };
        let wait = first.key().0.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            let woken = CHANGED.wait_timeout(schedule, wait);
            schedule = woken.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let stream = first.remove();
        drop(schedule);
        let due = stream.output.upgrade().and_then(|output| keep_alive(&output, stream.interval));
        schedule = hold(&SCHEDULE);
        if let Some(due) = due.filter(|_| schedule.streams > 0) {
            schedule.insert(due, stream);
        }
    }
}

/// Returns when the next heartbeat is due; `None` when the client has left.
fn keep_alive(output: &Mutex<Output>, interval: Duration) -> Option<Instant> {
    match output.try_lock() {
        Ok(mut output) => output.keep_alive(interval),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().keep_alive(interval),
        Err(TryLockError::WouldBlock) => Some(Instant::now() + interval),
    }
}
