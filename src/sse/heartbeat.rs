//! Heartbeats for streams whose own thread sleeps or computes: one thread of the process writes all of them.
//!
//! The thread of a stream owns its [`Output`] and holds the lock while it writes, which may take long. The heartbeat
//! thread never waits for that lock: a stream that is writing needs no heartbeat. It holds the lock for a write that
//! does not wait.

use super::output::Output;
use crate::http::lock::hold;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

struct Schedule {
    /// The streams of the process, by number.
    streams: BTreeMap<u64, Stream>,
    next_number: u64,
    has_thread: bool,
}

struct Stream {
    output: Arc<Mutex<Output>>,
    interval: Duration,
    /// When it is checked next.
    due: Instant,
}

static SCHEDULE: Mutex<Schedule> =
    Mutex::new(Schedule { streams: BTreeMap::new(), next_number: 0, has_thread: false });

/// A stream was added. It may be due before the others.
static ADDED: Condvar = Condvar::new();

/// Heartbeats that are due within this time are written together, since each look at the schedule visits every stream.
const STEP: Duration = Duration::from_millis(10);

const STACK_BYTES: usize = 64 * 1024;

/// Keeps a stream alive with heartbeats until this is dropped.
pub(super) struct KeepAlive(u64);

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
        let number = schedule.next_number;
        schedule.next_number += 1;
        let (output, due) = (Arc::clone(output), Instant::now() + interval);
        schedule.streams.insert(number, Stream { output, interval, due });
        ADDED.notify_one();
        Ok(KeepAlive(number))
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        let ended = hold(&SCHEDULE).streams.remove(&self.0);
        // Outside of the lock, since this may close the connection.
        drop(ended);
    }
}

/// Runs until no stream is left when it wakes.
fn run() {
    let mut schedule = hold(&SCHEDULE);
    while let Some(next) = schedule.streams.values().map(|stream| stream.due).min() {
        let now = Instant::now();
        if now < next {
            let woken = ADDED.wait_timeout(schedule, (next - now).max(STEP));
            schedule = woken.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let due = schedule.streams.iter().filter(|(_, stream)| stream.due <= now);
        let due =
            due.map(|(number, stream)| (*number, Arc::clone(&stream.output), stream.interval));
        let due: Vec<_> = due.collect();
        drop(schedule);
        let kept = due
            .into_iter()
            .map(|(number, output, interval)| (number, keep_alive(&output, interval)));
        let kept: Vec<_> = kept.collect();
        schedule = hold(&SCHEDULE);
        for (number, next) in kept {
            match (schedule.streams.get_mut(&number), next) {
                (Some(stream), Some(next)) => stream.due = next,
                _ => drop(schedule.streams.remove(&number)),
            }
        }
    }
    schedule.has_thread = false;
}

/// Returns when the next heartbeat is due; `None` when the client has left.
fn keep_alive(output: &Mutex<Output>, interval: Duration) -> Option<Instant> {
    match output.try_lock() {
        Ok(mut output) => output.keep_alive(interval),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().keep_alive(interval),
        Err(TryLockError::WouldBlock) => Some(Instant::now() + interval),
    }
}
