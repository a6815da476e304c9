//! The threads of connections. A connection has one to itself while it speaks HTTP; a thread whose
//! connection is gone waits a moment for another, since beginning and ending a thread costs more than
//! a request.
//!
//! Who accepts only submits, and never begins a thread: that takes longer than accepting, and
//! connections that nobody accepts are dropped.

use super::lock::hold;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread waits for another connection.
const SPARE: Duration = Duration::from_secs(1);

/// Enough for a handler that formats and parses. What is not touched costs no memory.
const STACK_BYTES: usize = 256 * 1024;

/// By how much a job can be delayed, and how many of the delayed fall due together: all of a millisecond.
const DELAY: Duration = Duration::from_millis(10);
const DUE_INTERVAL: Duration = Duration::from_millis(1);

/// Between two tries for what the system has refused: it doubles from the first to the last.
pub(super) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(5);
    pub(super) const LAST: Duration = Duration::from_secs(1);

    pub(super) fn new() -> Backoff {
        Backoff(Backoff::FIRST)
    }

    /// How long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(Backoff::LAST);
        wait
    }
}

/// Threads that do jobs, each one at a time.
pub(super) struct Pool<J> {
    queue: Mutex<Queue<J>>,
    /// A job waits, and a worker is idle.
    arrived: Condvar,
    /// A job waits, and no worker is idle; or the first one is delayed.
    wanted: Condvar,
    /// A thread has ended, while the pool stops.
    ended: Condvar,
}

struct Queue<J> {
    jobs: VecDeque<J>,
    /// What is to be done later, and not before when.
    delayed: VecDeque<(Instant, J)>,
    idle: usize,
    /// Threads that have been begun and have not looked for a job yet.
    beginning: usize,
    /// All threads, but for the one that begins them.
    threads: usize,
    is_stopping: bool,
}

impl<J: Send + 'static> Pool<J> {
    /// With a thread that begins others, each of which does jobs with `work`; `refused` is told
    /// when the system refuses one. `thread::spawn` would panic.
    pub(super) fn start(
        work: impl Fn(J, &Pool<J>) + Send + Sync + 'static,
        refused: impl Fn(io::Error) + Send + 'static,
    ) -> io::Result<Arc<Pool<J>>> {
        let queue = Queue {
            jobs: VecDeque::new(),
            delayed: VecDeque::new(),
            idle: 0,
            beginning: 0,
            threads: 0,
            is_stopping: false,
        };
        let pool = Arc::new(Pool {
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
            wanted: Condvar::new(),
            ended: Condvar::new(),
        });
        let (begun, work) = (Arc::clone(&pool), Arc::new(work));
        let spawner = thread::Builder::new().name("spawner".into());
        spawner.spawn(move || begun.begin_threads(&work, refused))?;
        Ok(pool)
    }

    pub(super) fn submit(&self, job: J) {
        let mut queue = hold(&self.queue);
        queue.jobs.push_back(job);
        let is_wanted = queue.is_wanted();
        drop(queue);
        if is_wanted {
            self.wanted.notify_one();
        } else {
            self.arrived.notify_one();
        }
    }

    /// Takes a job that is to be done in ten milliseconds, or a little later. No thread waits with it.
    pub(super) fn submit_later(&self, job: J) {
        let mut queue = hold(&self.queue);
        // The thread that begins others may have ended. The caller is a worker, and takes the job next.
        if queue.is_stopping {
            return queue.jobs.push_back(job);
        }
        queue.delayed.push_back((Instant::now() + DELAY, job));
        let is_first = queue.delayed.len() == 1;
        drop(queue);
        if is_first {
            self.wanted.notify_one();
        }
    }

    /// Ends the threads, each after its job.
    pub(super) fn stop(&self) {
        hold(&self.queue).is_stopping = true;
        self.arrived.notify_all();
        self.wanted.notify_one();
    }

    /// Waits for the threads of a pool that stops; how many are left at the deadline.
    pub(super) fn join(&self, deadline: Instant) -> usize {
        let mut queue = hold(&self.queue);
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            if queue.threads == 0 || wait.is_zero() {
                return queue.threads;
            }
            let waited = self.ended.wait_timeout(queue, wait);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn begin_threads(
        self: Arc<Self>,
        work: &Arc<impl Fn(J, &Pool<J>) + Send + Sync + 'static>,
        refused: impl Fn(io::Error),
    ) {
        let mut backoff = Backoff::new();
        // The system has refused a thread: none is begun before then, but what is due is queued.
        let mut retry = None;
        let mut queue = hold(&self.queue);
        loop {
            for _ in 0..queue.queue_due().min(queue.idle) {
                self.arrived.notify_one();
            }
            if queue.is_stopping && queue.jobs.is_empty() && queue.delayed.is_empty() {
                return;
            }
            retry = retry.filter(|&retry| Instant::now() < retry);
            if !queue.is_wanted() || retry.is_some() {
                queue = self.wait_until_wanted(queue, retry);
                continue;
            }
            queue.beginning += 1;
            queue.threads += 1;
            drop(queue);
            let (pool, work) = (Arc::clone(&self), Arc::clone(work));
            let worker = thread::Builder::new().name("connection".into()).stack_size(STACK_BYTES);
            match worker.spawn(move || pool.run_jobs(&*work)) {
                Ok(_) => {
                    backoff = Backoff::new();
                    queue = hold(&self.queue);
                }
                Err(error) => {
                    refused(error);
                    retry = Some(Instant::now() + backoff.next());
                    queue = hold(&self.queue);
                    queue.beginning -= 1;
                    queue.threads -= 1;
                }
            }
        }
    }

    fn wait_until_wanted<'l>(
        &self,
        queue: MutexGuard<'l, Queue<J>>,
        retry: Option<Instant>,
    ) -> MutexGuard<'l, Queue<J>> {
        let due = queue.delayed.front().map(|(due, _)| *due);
        let Some(until) = due.into_iter().chain(retry).min() else {
            let woken = self.wanted.wait(queue);
            return woken.unwrap_or_else(PoisonError::into_inner);
        };
        let wait = until.saturating_duration_since(Instant::now());
        let woken = self.wanted.wait_timeout(queue, wait.max(DUE_INTERVAL));
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    fn run_jobs(&self, work: impl Fn(J, &Pool<J>)) {
        let mut queue = hold(&self.queue);
        queue.beginning -= 1;
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                work(job, self);
                queue = hold(&self.queue);
                continue;
            }
            if queue.is_stopping {
                queue.threads -= 1;
                drop(queue);
                return self.ended.notify_all();
            }
            queue.idle += 1;
            let waited = self.arrived.wait_timeout(queue, SPARE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if timeout.timed_out() && queue.jobs.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

impl<J> Queue<J> {
    fn is_wanted(&self) -> bool {
        self.jobs.len() > self.idle + self.beginning
    }

    /// What is due waits for a worker now; returns how many jobs that is.
    fn queue_due(&mut self) -> usize {
        let before = self.jobs.len();
        if !self.delayed.is_empty() {
            let now = Instant::now();
            let due = self.delayed.partition_point(|(due, _)| *due <= now);
            let due = self.delayed.drain(..due).map(|(_, job)| job);
            self.jobs.extend(due);
        }
        self.jobs.len() - before
    }
}
