//! A lane: the subscribers with room in their sockets that one fan-out thread writes to.

use super::history::Cursor;
use super::subscriber::Subscriber;

#[derive(Default)]
pub(super) struct Lane {
    /// All of them are at `copied`.
    subscribers: Vec<Subscriber>,
    /// The history was copied for them up to here.
    pub(super) copied: Cursor,
    /// Subscribers that have come since, each at a position of its own.
    joining: Vec<Subscriber>,
    /// A thread has taken the subscribers out, to write to them. It looks for more to write when it puts them back.
    pub(super) is_out: bool,
    /// The fan-out thread was notified, and has not looked yet.
    is_notified: bool,
}

impl Lane {
    /// How many subscribers are in it now.
    pub(super) fn len(&self) -> usize {
        self.subscribers.len() + self.joining.len()
    }

    /// Takes a subscriber in. `false` when no thread has to look at the lane for it: it lacks nothing that was copied, and
    /// the fan-out thread knows of the lane. Otherwise each client that comes would cost a look at all others.
    pub(super) fn join(&mut self, subscriber: Subscriber, completed_at: Option<Cursor>) -> bool {
        let is_known = !self.is_out && self.len() > 0;
        let is_level = is_known && self.is_level(&subscriber, completed_at);
        let place = if is_level { &mut self.subscribers } else { &mut self.joining };
        place.push(subscriber);
        !is_level
    }

    fn is_level(&self, subscriber: &Subscriber, completed_at: Option<Cursor>) -> bool {
        subscriber.cursor == self.copied && subscriber.ends_at(completed_at).is_none()
    }

    /// Whether the fan-out thread must be notified now. The caller then does so.
    pub(super) fn take_notification(&mut self) -> bool {
        !self.is_out && self.len() > 0 && !std::mem::replace(&mut self.is_notified, true)
    }

    /// The first position that is yet to be copied for the subscribers.
    pub(super) fn needed_from(&self) -> Option<Cursor> {
        let copied = (self.is_out || !self.subscribers.is_empty()).then_some(self.copied);
        self.joining.iter().map(|subscriber| subscriber.cursor).chain(copied).min()
    }

    /// Takes all subscribers out, for which the history was copied up to `end`. `None` when there are none, or when
    /// another thread has them.
    pub(super) fn take_out(&mut self, end: Cursor) -> Option<Vec<Subscriber>> {
        self.is_notified = false;
        if self.is_out || self.len() == 0 {
            return None;
        }
        (self.copied, self.is_out) = (end, true);
        let mut subscribers = std::mem::take(&mut self.subscribers);
        subscribers.append(&mut self.joining);
        Some(subscribers)
    }

    /// Takes out the subscribers that lack nothing of what was copied. `None` as above.
    pub(super) fn take_out_idle(&mut self) -> Option<Vec<Subscriber>> {
        if self.is_out || self.subscribers.is_empty() {
            return None;
        }
        self.is_out = true;
        Some(std::mem::take(&mut self.subscribers))
    }

    /// Puts those back that were taken out. `true` when a thread has to look at some that have come since.
    pub(super) fn put_back(&mut self, subscribers: Vec<Subscriber>, completed_at: Option<Cursor>) -> bool {
        self.is_out = false;
        self.subscribers = subscribers;
        let joining = std::mem::take(&mut self.joining).into_iter();
        let is_level = |one: &Subscriber| self.is_level(one, completed_at);
        let (mut level, joining): (Vec<_>, Vec<_>) = joining.partition(is_level);
        self.subscribers.append(&mut level);
        self.joining = joining;
        if self.subscribers.capacity() > 4 * self.subscribers.len() + 64 {
            self.subscribers.shrink_to_fit();
        }
        !self.joining.is_empty()
    }

    /// Takes out everything for good. A subscriber that joins later needs a notification of its own.
    pub(super) fn drain(&mut self) -> Vec<Subscriber> {
        self.is_notified = false;
        let mut subscribers = std::mem::take(&mut self.subscribers);
        subscribers.append(&mut self.joining);
        subscribers
    }
}
