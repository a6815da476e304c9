//! The order of events across channels.
//!
//! Ids grow across all channels, but a channel appends its event some time after the id is issued. So a view, which shows
//! several channels, could show a larger id first. A client that came back with that id would never get the event with the
//! smaller one. That is why an event is shown only when no smaller id can come any more.
//!
//! A log may hang for any time. So the events that wait are bounded. Beyond the bound all of them are lost to their views, and
//! the subscribers of these come back. They get them from the histories of the channels, once no smaller id can come.

use super::id::{Id, Ids};
use crate::http::lock::hold;
use std::collections::BTreeMap;
use std::mem::take;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

pub(super) struct Order<T> {
    pending: Mutex<Pending<T>>,
    /// The settled id has grown while a replay waits for that.
    grown: Condvar,
    /// What the events that wait may take in memory.
    most_bytes: usize,
    /// Called with each event in the order of the ids, and under the lock. It locks views and notifiers, and nothing else.
    show: fn(Id, T),
    /// The same, with each event that is lost.
    lose: fn(Id, T),
}

struct Pending<T> {
    /// For each open [`Issuing`], the largest id before its own; and how many of them have this id.
    floors: BTreeMap<Id, usize>,
    /// Appended, but not shown yet; each with its bytes, and those of all.
    appended: BTreeMap<Id, (usize, T)>,
    bytes: usize,
    /// How many replays wait.
    waiting: usize,
}

/// Between the first id that is issued and the last event that is appended. Dropping it shows what has waited.
pub(super) struct Issuing<'o, T> {
    order: &'o Order<T>,
    ids: &'o Ids,
    floor: Id,
}

impl<T> Order<T> {
    pub(super) fn new(most_bytes: usize, show: fn(Id, T), lose: fn(Id, T)) -> Order<T> {
        let (floors, appended) = (BTreeMap::new(), BTreeMap::new());
        let pending = Mutex::new(Pending { floors, appended, bytes: 0, waiting: 0 });
        Order { pending, grown: Condvar::new(), most_bytes, show, lose }
    }

    /// To be called before ids are issued for channels that may have views.
    pub(super) fn issue<'o>(&'o self, ids: &'o Ids) -> Issuing<'o, T> {
        let mut pending = hold(&self.pending);
        let floor = ids.last();
        *pending.floors.entry(floor).or_insert(0) += 1;
        Issuing { order: self, ids, floor }
    }

    /// An event, which takes so many bytes in memory, is in the history of its channel.
    pub(super) fn appended(&self, ids: &Ids, id: Id, bytes: usize, event: T) {
        let pending = &mut *hold(&self.pending);
        pending.bytes += bytes;
        pending.appended.insert(id, (bytes, event));
        self.show_settled(pending, ids);
        if pending.bytes > self.most_bytes {
            pending.bytes = 0;
            for (id, (_, event)) in take(&mut pending.appended) {
                (self.lose)(id, event);
            }
        }
    }

    /// A thread that then locks a channel finds in its history each event up to this id.
    pub(super) fn settled(&self, ids: &Ids) -> Id {
        hold(&self.pending).settled(ids)
    }

    /// Waits while this holds for the settled id, but no longer than `at_most`; returns whether that was enough. It may lock
    /// a view.
    pub(super) fn wait(&self, ids: &Ids, at_most: Duration, must_wait: impl Fn(Id) -> bool) -> bool {
        let mut pending = hold(&self.pending);
        pending.waiting += 1;
        let must_wait = |pending: &mut Pending<T>| must_wait(pending.settled(ids));
        let waited = self.grown.wait_timeout_while(pending, at_most, must_wait);
        let (mut pending, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        pending.waiting -= 1;
        !timeout.timed_out()
    }

    /// Calls `call` with the largest id issued. No event is shown meanwhile, and what waits looks again then.
    pub(super) fn between(&self, ids: &Ids, call: impl FnOnce(Id)) {
        let pending = hold(&self.pending);
        call(ids.last());
        self.wake(&pending);
    }

    fn show_settled(&self, pending: &mut Pending<T>, ids: &Ids) {
        let settled = pending.settled(ids);
        while let Some(first) = pending.appended.first_entry()
            && *first.key() <= settled
        {
            let (id, (bytes, event)) = first.remove_entry();
            pending.bytes -= bytes;
            (self.show)(id, event);
        }
    }

    fn wake(&self, pending: &Pending<T>) {
        if pending.waiting > 0 {
            self.grown.notify_all();
        }
    }
}

impl<T> Pending<T> {
    fn settled(&self, ids: &Ids) -> Id {
        self.floors.keys().next().copied().unwrap_or_else(|| ids.last())
    }
}

impl<T> Drop for Issuing<'_, T> {
    fn drop(&mut self) {
        let pending = &mut *hold(&self.order.pending);
        let before = pending.settled(self.ids);
        if let Some(count) = pending.floors.get_mut(&self.floor) {
            *count -= 1;
            if *count == 0 {
                pending.floors.remove(&self.floor);
            }
        }
        if pending.settled(self.ids) > before {
            self.order.show_settled(pending, self.ids);
            self.order.wake(pending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};
    use std::thread;

    #[test]
    fn an_event_is_shown_when_no_smaller_id_can_come_any_more() {
        static SHOWN: Mutex<Vec<Id>> = Mutex::new(Vec::new());
        let (ids, order) = (Ids::new(), Order::<()>::new(9, |id, ()| hold(&SHOWN).push(id), |_, ()| ()));
        let slow = order.issue(&ids);
        let fast = order.issue(&ids);
        let [a, b, c] = [(); 3].map(|()| ids.next());
        assert!(order.settled(&ids) < a);
        order.appended(&ids, b, 3, ());
        drop(fast);
        let late = order.issue(&ids);
        let d = ids.next();
        order.appended(&ids, d, 3, ());
        assert_eq!(*hold(&SHOWN), []);
        order.appended(&ids, a, 3, ());
        // It has issued c, too, and has failed to append it.
        drop(slow);
        assert_eq!(*hold(&SHOWN), [a, b]);
        assert_eq!(order.settled(&ids), c);
        drop(late);
        assert_eq!(*hold(&SHOWN), [a, b, d]);
        assert_eq!(order.settled(&ids), d);
    }

    #[test]
    fn a_replay_that_waits_goes_on_when_the_settled_id_has_grown() {
        let shared = Arc::new((Ids::new(), Order::<()>::new(9, |_, ()| (), |_, ()| ())));
        let (ids, order) = &*shared;
        let (issuing, id) = (order.issue(ids), ids.next());
        let (sender, receiver) = mpsc::channel();
        let waiting = Arc::clone(&shared);
        thread::spawn(move || {
            let (ids, order) = &*waiting;
            order.wait(ids, Duration::from_secs(3600), |settled| settled < id);
            sender.send(())
        });
        while hold(&order.pending).waiting == 0 {
            thread::yield_now();
        }
        drop(issuing);
        receiver.recv_timeout(Duration::from_secs(60)).expect("it goes on");
    }
}
