//! How a fan-out thread is told that there is something to do: a queue that wakes who sleeps on it.

use crate::http::lock::hold;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// How a fan-out thread is told what has something for it to do.
pub(crate) struct Notifier<T> {
    rung: Mutex<Rung<T>>,
    wake: Condvar,
}

struct Rung<T> {
    by: VecDeque<T>,
    asleep: bool,
}

impl<T> Notifier<T> {
    pub(crate) fn new() -> Notifier<T> {
        Notifier {
            rung: Mutex::new(Rung { by: VecDeque::new(), asleep: false }),
            wake: Condvar::new(),
        }
    }

    pub(crate) fn ring(&self, by: T) {
        let mut rung = hold(&self.rung);
        rung.by.push_back(by);
        // Who is awake looks again before sleeping; a system call is spent only on who sleeps.
        if std::mem::take(&mut rung.asleep) {
            drop(rung);
            self.wake.notify_one();
        }
    }

    /// Who rang next, or `None` when `deadline` has passed; without one it waits for good.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<T> {
        let mut rung = hold(&self.rung);
        loop {
            if let Some(by) = rung.by.pop_front() {
                return Some(by);
            }
            rung.asleep = true;
            rung = match deadline {
                None => self.wake.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let wait = deadline.saturating_duration_since(Instant::now());
                    if wait.is_zero() {
                        rung.asleep = false;
                        return None;
                    }
                    self.wake.wait_timeout(rung, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            rung.asleep = false;
        }
    }
}
