//! A channel's users: the handles to it and its subscribers. The table drops a channel that nothing uses and that keeps
//! nothing, and evicts one that nothing uses when it needs room.

use crate::http::lock::hold;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, Weak};

/// Where a channel is listed by its name.
pub(super) trait Listing: Send + Sync {
    /// The channel was completed, or its last handle or its last user has gone.
    fn review(&self, members: &Members);
}

pub(super) struct Members {
    pub(super) name: Arc<str>,
    listing: Weak<dyn Listing>,
    /// The subscribers, and the handles, each as [`HANDLE`]: one look sees both.
    users: AtomicU64,
    /// A [`Phase`].
    phase: AtomicU8,
    callbacks: Mutex<Vec<(Change, Callback)>>,
}

const HANDLE: u64 = 1 << 32;

/// How far a channel has come. It may be completed and go on, as often as it likes.
#[derive(Clone, Copy)]
pub(super) enum Phase {
    /// It was only asked for.
    Asked,
    /// Something was published.
    Begun,
    /// It was completed, and nothing was published since.
    Completed,
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
            users: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Asked as u8),
            callbacks: Mutex::default(),
        })
    }

    pub(super) fn subscribers(&self) -> usize {
        (self.users.load(Relaxed) % HANDLE) as usize
    }

    /// How many subscribers there are; `None` while there is a handle. Only the listing makes a first handle, and a
    /// subscriber needs one: under the lock of the listing, `Some` stays `Some`.
    pub(super) fn without_handle(&self) -> Option<u64> {
        Some(self.users.load(SeqCst)).filter(|users| *users < HANDLE)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.phase.load(SeqCst) != Phase::Asked as u8
    }

    pub(super) fn is_completed(&self) -> bool {
        self.phase.load(SeqCst) == Phase::Completed as u8
    }

    /// Called under the lock of the channel.
    pub(super) fn set_phase(&self, phase: Phase) {
        // The store would take the cache line away from other publishers each time.
        if self.phase.load(Relaxed) != phase as u8 {
            self.phase.store(phase as u8, SeqCst);
        }
    }

    pub(super) fn review(&self) {
        if let Some(listing) = self.listing.upgrade() {
            listing.review(self);
        }
    }

    pub(super) fn add_callback(&self, change: Change, callback: Callback) {
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

/// A handle, which keeps a channel in use. It must not be dropped under the lock of the channel or of the table.
pub(super) struct User(Arc<Members>);

impl User {
    pub(super) fn new(members: &Arc<Members>) -> User {
        members.users.fetch_add(HANDLE, SeqCst);
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
        let users = self.0.users.fetch_sub(HANDLE, SeqCst) - HANDLE;
        if users == 0 || (users < HANDLE && self.0.is_completed()) {
            self.0.review();
        }
    }
}

/// Counts one subscriber of a channel, and keeps the channel in use until it is completed. As a handle, it must not be
/// dropped under a lock.
pub(super) struct Presence {
    members: Arc<Members>,
    has_joined: bool,
}

impl Presence {
    /// For a response that may still be refused or be one to `HEAD`.
    pub(super) fn new(members: &Arc<Members>) -> Presence {
        members.users.fetch_add(1, SeqCst);
        Presence { members: Arc::clone(members), has_joined: false }
    }

    /// The stream of the subscriber has started.
    pub(super) fn join(&mut self) {
        self.has_joined = true;
        self.members.report(Change::Joined);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let is_last = self.members.users.fetch_sub(1, SeqCst) == 1;
        if self.has_joined {
            self.members.report(Change::Left);
        }
        if is_last {
            self.members.review();
        }
    }
}
