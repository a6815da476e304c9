//! What is known of the channels that were evicted: a client that comes back to one of them has lost something, and a client
//! of any other channel has not.

use super::id::Id;
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many of them, at most, are remembered by their names: 160 KiB.
const REMEMBERED: usize = 1024;

pub(super) struct Forgotten {
    /// The newest id that each of them had. It stays when the channel begins again: that may come to nothing.
    pub(super) by_name: BTreeMap<Arc<str>, Id>,
    /// No event of the others, of which the names are not remembered, has a larger id.
    pub(super) others: Id,
}

impl Forgotten {
    pub(super) fn new(others: Id) -> Forgotten {
        Forgotten { by_name: BTreeMap::new(), others }
    }

    /// No event of a channel of this name that is not there any more has a larger id.
    pub(super) fn newest(&self, name: &str) -> Id {
        self.by_name.get(name).copied().unwrap_or(self.others)
    }

    pub(super) fn insert(&mut self, name: Arc<str>, newest: Id) {
        self.by_name.insert(name, newest);
        if self.by_name.len() > REMEMBERED {
            // Half of them go at once, so that each costs little.
            let mut ids: Vec<Id> = self.by_name.values().copied().collect();
            let middle = *ids.select_nth_unstable(REMEMBERED / 2).1;
            self.by_name.retain(|_, id| *id > middle);
            self.others = self.others.max(middle);
        }
    }
}
