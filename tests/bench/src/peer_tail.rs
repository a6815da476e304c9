//! A channel for servers in which every subscriber is a task of its own: hyper by hand and actix.
//!
//! Better than a queue for each subscriber, which `tokio::sync::broadcast` amounts to: a task that is woken takes all it
//! lacks at once, and those at the same place share one piece of memory, put together once.

use crate::peer_common::History;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct State {
    history: History,
    subscribers: usize,
    /// Those that lack nothing.
    waiting: Vec<Waker>,
    /// What was last put together, and from where it goes to where.
    batch: (u64, u64, Bytes),
}

#[derive(Default)]
pub struct Channel(Mutex<State>);

impl Channel {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn publish(&self, data: &[u8]) -> (u64, usize) {
        let mut state = self.lock();
        let id = state.history.append(data);
        let (waiting, subscribers) = (std::mem::take(&mut state.waiting), state.subscribers);
        // Without the lock: those that are woken want it.
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
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
            state.waiting.push(context.waker().clone());
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
