//! A channel's users: the handles to it and its subscribers. The table drops a channel that nothing uses and that keeps
//! nothing.

use crate::http::lock::hold;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, Weak};

/// Where a channel is listed by its name.
pub(super) trait Listing: Send + Sync {
    /// The channel was completed; or it has no user any more, and nothing was published on it.
    fn review(&self, members: &Members);
}

pub(super) struct Members {
    pub(super) name: Arc<str>,
    listing: Weak<dyn Listing>,
    /// Handles and subscribers.
    users: AtomicUsize,
    subscribers: AtomicUsize,
    /// Something was published, or the channel was completed, and this process is to remember it.
    has_begun: AtomicBool,
    callbacks: Mutex<Vec<(Change, Callback)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Joined,
    Left,
}

type Callback = Arc<dyn Fn(usize) + Send + Sync>;

impl Members {
    pub(super) fn new(name: Arc<str>, listing: Weak<dyn Listing>) -> Arc<Members> {
        Arc::new(Members {
            name,
            listing,
            users: AtomicUsize::new(0),
            subscribers: AtomicUsize::new(0),
            has_begun: AtomicBool::new(false),
            callbacks: Mutex::default(),
        })
    }

    pub(super) fn subscribers(&self) -> usize {
        self.subscribers.load(Relaxed)
    }

    /// Only the listing can make a user of a channel that has none, so under its lock this stays true.
    pub(super) fn are_none(&self) -> bool {
        self.users.load(SeqCst) == 0
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(SeqCst)
    }

    pub(super) fn begin(&self) {
        // The store would take the cache line away from other publishers each time.
        if !self.has_begun.load(Relaxed) {
            self.has_begun.store(true, SeqCst);
        }
    }

    /// The channel is as if it had not begun: what it had is elsewhere.
    pub(super) fn end(&self) {
        self.has_begun.store(false, SeqCst);
        self.review();
    }

    pub(super) fn review(&self) {
        if let Some(listing) = self.listing.upgrade() {
            listing.review(self);
        }
    }

    pub(super) fn on(&self, change: Change, callback: Callback) {
        hold(&self.callbacks).push((change, callback));
    }

    /// Calls back without a lock. A panic ends that callback alone; the panic hook has reported it.
    fn report(&self, change: Change) {
        let callbacks = hold(&self.callbacks).clone();
        for (_, callback) in callbacks.iter().filter(|(wanted, _)| *wanted == change) {
            let _ = catch_unwind(AssertUnwindSafe(|| callback(self.subscribers())));
        }
    }
}

/// Keeps a channel in use. It must not be dropped under the lock of the channel or of the table.
pub(super) struct User(Arc<Members>);

impl User {
    pub(super) fn new(members: &Arc<Members>) -> User {
        members.users.fetch_add(1, SeqCst);
        User(Arc::clone(members))
    }
}

impl Clone for User {
    fn clone(&self) -> User {
        User::new(&self.0)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let is_last = self.0.users.fetch_sub(1, SeqCst) == 1;
        if is_last && !self.0.has_begun() {
            self.0.review();
        }
    }
}

/// Counts one subscriber of a channel.
pub(super) struct Presence {
    user: User,
    has_joined: bool,
}

impl Presence {
    /// For a response that may still be refused or be one to `HEAD`.
    pub(super) fn new(members: &Arc<Members>) -> Presence {
        members.subscribers.fetch_add(1, Relaxed);
        Presence { user: User::new(members), has_joined: false }
    }

    /// The stream of the subscriber has started.
    pub(super) fn join(&mut self) {
        self.has_joined = true;
        self.user.0.report(Change::Joined);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.user.0.subscribers.fetch_sub(1, Relaxed);
        if self.has_joined {
            self.user.0.report(Change::Left);
        }
    }
}
