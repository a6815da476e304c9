//! The threads of a server. A connection has a thread to itself while it speaks HTTP. A thread that has no connection any
//! more waits a moment for another job: to start and end a thread costs more than a request. One thread starts the others.

use super::back_off;
use super::lock::hold;
use std::collections::VecDeque;
use std::io;
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a worker waits for another job.
const SPARE: Duration = Duration::from_secs(1);

/// Enough for a handler that formats and parses. Pages of it that are not touched cost no memory.
const STACK_BYTES: usize = 256 * 1024;

/// How much later a delayed job is done, and how often due ones are collected.
const DELAY: Duration = Duration::from_millis(10);
const DUE_INTERVAL: Duration = Duration::from_millis(1);

/// The first and the longest pause between attempts at what the system has refused.
pub(super) const BACK_OFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// Starts threads and counts those that run, so that a server can wait for their end.
#[derive(Default)]
pub(super) struct Threads {
    running: Mutex<usize>,
    ended: Condvar,
}

impl Threads {
    /// # Errors
    /// When the system refuses a thread. `thread::spawn` would panic.
    pub(super) fn start(
        self: &Arc<Threads>,
        thread: thread::Builder,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        *hold(&self.running) += 1;
        let running = Running(Arc::clone(self));
        thread.spawn(move || {
            work();
            drop(running);
        })?;
        Ok(())
    }

    /// Waits for the end of all of them, and returns how many are left after `wait`.
    pub(super) fn join(&self, wait: Duration) -> usize {
        let running = hold(&self.running);
        let waited = self.ended.wait_timeout_while(running, wait, |running| *running > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Counts one thread until it is dropped: at the end of the thread, in a panic, or when there was no thread.
struct Running(Arc<Threads>);

impl Drop for Running {
    fn drop(&mut self) {
        *hold(&self.0.running) -= 1;
        self.0.ended.notify_all();
    }
}

/// Threads that do jobs, each one job at a time.
pub(super) struct Pool<J> {
    threads: Arc<Threads>,
    queue: Mutex<Queue<J>>,
    /// A job is here, and a worker is free; or the pool stops.
    arrived: Condvar,
    /// A job is here, and no worker is free; or the first job is delayed; or the pool stops.
    wanted: Condvar,
}

struct Queue<J> {
    jobs: VecDeque<J>,
    /// Jobs for later, each with its time.
    delayed: VecDeque<(Instant, J)>,
    /// Workers that do no job, also those that have not begun to run yet.
    free: usize,
    is_stopping: bool,
}

impl<J: Send + 'static> Pool<J> {
    /// Starts the thread that starts workers. Each does jobs with `work`; `refused` is called when the system refuses
    /// a worker.
    pub(super) fn start(
        threads: &Arc<Threads>,
        work: impl Fn(J, &Pool<J>) + Send + Sync + 'static,
        refused: impl Fn(io::Error) + Send + 'static,
    ) -> io::Result<Arc<Pool<J>>> {
        let (jobs, delayed) = (VecDeque::new(), VecDeque::new());
        let queue = Queue { jobs, delayed, free: 0, is_stopping: false };
        let pool = Arc::new(Pool {
            threads: Arc::clone(threads),
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
            wanted: Condvar::new(),
        });
        let (spawning, work) = (Arc::clone(&pool), Arc::new(work));
        let spawner = thread::Builder::new().name("spawner".into());
        threads.start(spawner, move || spawning.start_workers(&work, refused))?;
        Ok(pool)
    }

    /// A pool that stops drops the job, which closes its connection.
    pub(super) fn submit(&self, job: J) {
        let mut queue = hold(&self.queue);
        if queue.is_stopping {
            return drop(queue);
        }
        queue.jobs.push_back(job);
        let is_wanted = queue.is_wanted();
        drop(queue);
        if is_wanted {
            self.wanted.notify_one();
        } else {
            self.arrived.notify_one();
        }
    }

    /// Whether jobs wait for a worker.
    pub(super) fn has_jobs(&self) -> bool {
        !hold(&self.queue).jobs.is_empty()
    }

    /// Takes a job that is done ten milliseconds later. No thread waits with it. Only a worker calls this: when the pool
    /// stops meanwhile, the worker does the job next.
    pub(super) fn submit_later(&self, job: J) {
        let mut queue = hold(&self.queue);
        // The thread that collects due jobs may have ended.
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

    /// Drops all jobs, and ends the threads, each after the job that it does now.
    pub(super) fn stop(&self) {
        let mut queue = hold(&self.queue);
        queue.is_stopping = true;
        let dropped = (take(&mut queue.jobs), take(&mut queue.delayed));
        drop(queue);
        self.arrived.notify_all();
        self.wanted.notify_one();
        drop(dropped);
    }

    fn start_workers(
        self: &Arc<Self>,
        work: &Arc<impl Fn(J, &Pool<J>) + Send + Sync + 'static>,
        refused: impl Fn(io::Error),
    ) {
        let mut pause = Duration::ZERO;
        // After a refusal no worker is started until then. Delayed jobs still become due.
        let mut retry = None;
        let mut queue = hold(&self.queue);
        while !queue.is_stopping {
            for _ in 0..queue.take_due().min(queue.free) {
                self.arrived.notify_one();
            }
            retry = retry.filter(|&retry| Instant::now() < retry);
            if !queue.is_wanted() || retry.is_some() {
                queue = self.wait_until_wanted(queue, retry);
                continue;
            }
            queue.free += 1;
            drop(queue);
            let (pool, work) = (Arc::clone(self), Arc::clone(work));
            let worker = thread::Builder::new().name("connection".into()).stack_size(STACK_BYTES);
            match self.threads.start(worker, move || pool.run_jobs(&*work)) {
                Ok(()) => {
                    pause = Duration::ZERO;
                    queue = hold(&self.queue);
                }
                Err(error) => {
                    refused(error);
                    pause = back_off::longer(pause, BACK_OFF);
                    retry = Some(Instant::now() + pause);
                    queue = hold(&self.queue);
                    queue.free -= 1;
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
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                queue.free -= 1;
                drop(queue);
                work(job, self);
                queue = hold(&self.queue);
                queue.free += 1;
                continue;
            }
            if queue.is_stopping {
                return;
            }
            let waited = self.arrived.wait_timeout(queue, SPARE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            if timeout.timed_out() && queue.jobs.is_empty() {
                queue.free -= 1;
                return;
            }
        }
    }
}

impl<J> Queue<J> {
    fn is_wanted(&self) -> bool {
        self.jobs.len() > self.free
    }

    /// Moves the delayed jobs that are due to the others; returns how many.
    fn take_due(&mut self) -> usize {
        if self.delayed.is_empty() {
            return 0;
        }
        let now = Instant::now();
        let due = self.delayed.partition_point(|(due, _)| *due <= now);
        self.jobs.extend(self.delayed.drain(..due).map(|(_, job)| job));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// A job that nothing does would keep its connection open.
    #[test]
    fn a_pool_that_stops_drops_its_jobs() {
        let pool = Pool::start(&Arc::default(), |_: Arc<()>, _| {}, |_| {});
        let (pool, job) = (pool.expect("the system has threads"), Arc::new(()));
        pool.submit_later(Arc::clone(&job));
        pool.stop();
        pool.submit(Arc::clone(&job));
        assert_eq!(pool.threads.join(Duration::MAX), 0);
        assert_eq!(Arc::strong_count(&job), 1);
    }

    /// Many clients that come back at once need few threads, because a replay that is delayed keeps none.
    #[test]
    fn a_job_for_later_lets_the_jobs_behind_it_pass() {
        let (done, jobs) = channel();
        let work = move |job: u8, pool: &Pool<u8>| {
            done.send((job, Instant::now())).expect("the test waits");
            if job == 1 {
                pool.submit_later(2);
                pool.submit(3);
            }
        };
        let pool = Pool::start(&Arc::default(), work, |_| {}).expect("the system has threads");
        pool.submit(1);
        let [first, second, third] = [(); 3].map(|()| jobs.recv().expect("each is done"));
        assert_eq!([first.0, second.0, third.0], [1, 3, 2]);
        assert!(third.1 - first.1 >= DELAY);
        pool.stop();
    }

    #[test]
    fn a_worker_of_a_pool_that_stops_still_does_the_job_that_it_submits_for_later() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let doing = Arc::clone(&done);
        let work = move |job: u8, pool: &Pool<u8>| {
            hold(&doing).push(job);
            if job == 1 {
                pool.stop();
                pool.submit_later(2);
            }
        };
        let pool = Pool::start(&Arc::default(), work, |_| {}).expect("the system has threads");
        pool.submit(1);
        assert_eq!(pool.threads.join(Duration::MAX), 0);
        assert_eq!(*hold(&done), [1, 2]);
    }
}
