//! Tells a fan-out thread which channels have something for it to write.

use crate::http::lock::hold;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A queue that wakes the one thread that waits on it.
pub(super) struct Notifier<T> {
    queue: Mutex<Queue<T>>,
    wake: Condvar,
}

struct Queue<T> {
    items: VecDeque<T>,
    is_asleep: bool,
    is_closed: bool,
}

/// Why a wait is over.
pub(super) enum Wake<T> {
    Notified(T),
    DeadlinePassed,
    /// The notifier is closed, and every notification before that was delivered.
    Closed,
}

impl<T> Notifier<T> {
    pub(super) fn new() -> Notifier<T> {
        let queue = Mutex::new(Queue { items: VecDeque::new(), is_asleep: false, is_closed: false });
        Notifier { queue, wake: Condvar::new() }
    }

    /// `false` when the notifier is closed: the item is dropped.
    pub(super) fn notify(&self, item: T) -> bool {
        let mut queue = hold(&self.queue);
        if queue.is_closed {
            return false;
        }
        queue.items.push_back(item);
        // A thread that is awake looks at the queue again before it sleeps: only a sleeping one costs a system call.
        if std::mem::take(&mut queue.is_asleep) {
            drop(queue);
            self.wake.notify_one();
        }
        true
    }

    pub(super) fn close(&self) {
        hold(&self.queue).is_closed = true;
        self.wake.notify_one();
    }

    /// The next item. Without a deadline it waits for as long as it takes.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Wake<T> {
        let mut queue = hold(&self.queue);
        loop {
            if let Some(item) = queue.items.pop_front() {
                return Wake::Notified(item);
            }
            if queue.is_closed {
                return Wake::Closed;
            }
            queue.is_asleep = true;
            let wait = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            queue = match wait {
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    queue.is_asleep = false;
                    return Wake::DeadlinePassed;
                }
                Some(wait) => self.wake.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0,
            };
            queue.is_asleep = false;
        }
    }
}
