//! A channel for servers in which every subscriber is a task of its own: hyper by hand and actix.
//!
//! Better than a queue for each subscriber, which `tokio::sync::broadcast` amounts to: a task that is woken takes all it
//! lacks at once, and those at the same place share one piece of memory, put together once.
//!
//! Both have a runtime of one thread for each core. To wake a task of another thread costs a system call, so each thread
//! has a relay: a task that is woken once, and wakes all the others of its thread.

use crate::peer_common::History;
use bytes::Bytes;
use std::cell::Cell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

const MOST_THREADS: usize = 64;

/// What is to be woken in a thread, and the relay that does it.
#[derive(Default)]
struct Relay {
    pending: Vec<Waker>,
    relay: Option<Waker>,
}

static RELAYS: [Mutex<Relay>; MOST_THREADS] =
    [const { Mutex::new(Relay { pending: Vec::new(), relay: None }) }; MOST_THREADS];
static STARTED: AtomicUsize = AtomicUsize::new(0);
thread_local!(static THREAD: Cell<usize> = const { Cell::new(0) });

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs in each thread before there are subscribers in it, and for ever.
pub fn relay() -> impl Future<Output = ()> {
    let thread = STARTED.fetch_add(1, Relaxed) % MOST_THREADS;
    THREAD.set(thread);
    poll_fn(move |context| {
        let mut relay = lock(&RELAYS[thread]);
        relay.relay = Some(context.waker().clone());
        let pending = std::mem::take(&mut relay.pending);
        drop(relay);
        pending.into_iter().for_each(Waker::wake);
        Poll::Pending
    })
}

fn wake(thread: usize, mut waiting: Vec<Waker>) {
    if thread == THREAD.get() {
        return waiting.into_iter().for_each(Waker::wake);
    }
    let mut relay = lock(&RELAYS[thread]);
    let sleeps = relay.pending.is_empty();
    relay.pending.append(&mut waiting);
    if let Some(relay) = relay.relay.as_ref().filter(|_| sleeps) {
        relay.wake_by_ref();
    }
}

#[derive(Default)]
struct State {
    history: History,
    subscribers: usize,
    /// Those that lack nothing, by thread.
    waiting: Vec<Vec<Waker>>,
    /// What was last put together, and from where it goes to where.
    batch: (u64, u64, Bytes),
}

#[derive(Default)]
pub struct Channel(Mutex<State>);

impl Channel {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    pub fn publish(&self, data: &[u8]) -> (u64, usize) {
        let mut state = self.lock();
        let id = state.history.append(data);
        let (waiting, subscribers) = (std::mem::take(&mut state.waiting), state.subscribers);
        // Without the lock: those that are woken want it.
        drop(state);
        let waiting = waiting.into_iter().enumerate().filter(|(_, waiting)| !waiting.is_empty());
        waiting.for_each(|(thread, waiting)| wake(thread, waiting));
        (id, subscribers)
    }

    pub fn subscribe(self: Arc<Self>, seen: Option<u64>) -> Tail {
        let mut state = self.lock();
        state.subscribers += 1;
        let cursor = state.history.cursor_after(seen);
        drop(state);
        Tail { channel: self, cursor }
    }
}

/// The place of one subscriber.
pub struct Tail {
    channel: Arc<Channel>,
    cursor: u64,
}

impl Tail {
    /// All that it lacks, when there is something. `None` if some of that is gone.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let state = &mut *self.channel.lock();
        let end = state.history.end();
        if self.cursor == end {
            let thread = THREAD.get();
            if state.waiting.len() <= thread {
                state.waiting.resize_with(thread + 1, Vec::new);
            }
            state.waiting[thread].push(context.waker().clone());
            return Poll::Pending;
        }
        if (state.batch.0, state.batch.1) != (self.cursor, end) {
            let Some(batch) = state.history.from(self.cursor) else { return Poll::Ready(None) };
            state.batch = (self.cursor, end, Bytes::copy_from_slice(batch));
        }
        self.cursor = end;
        Poll::Ready(Some(state.batch.2.clone()))
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.channel.lock().subscribers -= 1;
    }
}

#[derive(Clone, Default)]
pub struct Channels(Arc<RwLock<HashMap<String, Arc<Channel>>>>);

impl Channels {
    pub fn named(&self, name: &str) -> Arc<Channel> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| {
            let mut channels = self.0.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(channels.entry(name.to_owned()).or_default())
        })
    }
}
