//! The order of events across channels.
//!
//! Ids grow across all channels, but a channel appends its event some time after the id is issued. So a view, which shows
//! several channels, could show a larger id first. A client that came back with that one would never get the smaller. That is why
//! an event is shown only when no smaller id can come any more.

use super::id::{Id, Ids};
use crate::http::lock::hold;
use std::collections::BTreeMap;
use std::sync::Mutex;

pub(super) struct Order<T> {
    pending: Mutex<Pending<T>>,
    /// Called with each event in the order of the ids, and under the lock. It takes the locks of views, and no other.
    show: fn(Id, T),
}

struct Pending<T> {
    /// For each open [`Issuing`], the largest id before its own; and how many of them have this id.
    floors: BTreeMap<Id, usize>,
    /// Appended, but not shown yet.
    appended: BTreeMap<Id, T>,
}

/// Between the first id that is issued and the last event that is appended. Dropping it shows what has waited.
pub(super) struct Issuing<'o, T> {
    order: &'o Order<T>,
    ids: &'o Ids,
    floor: Id,
}

impl<T> Order<T> {
    pub(super) fn new(show: fn(Id, T)) -> Order<T> {
        let pending = Pending { floors: BTreeMap::new(), appended: BTreeMap::new() };
        Order { pending: Mutex::new(pending), show }
    }

    /// To be called before ids are issued for channels that may have views.
    pub(super) fn issue<'o>(&'o self, ids: &'o Ids) -> Issuing<'o, T> {
        let mut pending = hold(&self.pending);
        let floor = ids.last();
        *pending.floors.entry(floor).or_insert(0) += 1;
        Issuing { order: self, ids, floor }
    }

    /// An event is in the history of its channel.
    pub(super) fn appended(&self, ids: &Ids, id: Id, event: T) {
        let mut pending = hold(&self.pending);
        pending.appended.insert(id, event);
        self.show_settled(&mut pending, ids);
    }

    /// A thread that then locks a channel finds in its history each event up to this id.
    pub(super) fn settled(&self, ids: &Ids) -> Id {
        hold(&self.pending).settled(ids)
    }

    fn show_settled(&self, pending: &mut Pending<T>, ids: &Ids) {
        let settled = pending.settled(ids);
        while let Some(first) = pending.appended.first_entry()
            && *first.key() <= settled
        {
            let (id, event) = first.remove_entry();
            (self.show)(id, event);
        }
    }

    /// Calls `call` with the largest id issued. No event is shown meanwhile.
    pub(super) fn between(&self, ids: &Ids, call: impl FnOnce(Id)) {
        let _pending = hold(&self.pending);
        call(ids.last());
    }
}

impl<T> Pending<T> {
    fn settled(&self, ids: &Ids) -> Id {
        self.floors.keys().next().copied().unwrap_or_else(|| ids.last())
    }
}

impl<T> Drop for Issuing<'_, T> {
    fn drop(&mut self) {
        let mut pending = hold(&self.order.pending);
        if let Some(count) = pending.floors.get_mut(&self.floor) {
            *count -= 1;
            if *count == 0 {
                pending.floors.remove(&self.floor);
            }
        }
        self.order.show_settled(&mut pending, self.ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_shown_when_no_smaller_id_can_come_any_more() {
        static SHOWN: Mutex<Vec<Id>> = Mutex::new(Vec::new());
        let (ids, order) = (Ids::new(), Order::<()>::new(|id, ()| hold(&SHOWN).push(id)));
        let slow = order.issue(&ids);
        let fast = order.issue(&ids);
        let [a, b, c] = [(); 3].map(|()| ids.next());
        assert!(order.settled(&ids) < a);
        order.appended(&ids, b, ());
        drop(fast);
        let late = order.issue(&ids);
        let d = ids.next();
        order.appended(&ids, d, ());
        assert_eq!(*hold(&SHOWN), []);
        order.appended(&ids, a, ());
        // It has issued c, too, and has failed to append it.
        drop(slow);
        assert_eq!(*hold(&SHOWN), [a, b]);
        assert_eq!(order.settled(&ids), c);
        drop(late);
        assert_eq!(*hold(&SHOWN), [a, b, d]);
        assert_eq!(order.settled(&ids), d);
    }
}
