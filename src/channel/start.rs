//! Where a stream starts, and whether its client has lost something.

use super::asked::Asked;
use super::feed::Feed;
use super::history::{Cursor, History, has_lost_events};
use super::id::{Id, Ids};

/// Where a subscription or a poll starts, by what the client has asked for.
///
/// | the client names                                     | it gets                               |
/// |------------------------------------------------------|---------------------------------------|
/// | nothing, `latest`, a time to come                    | what is published from now on; of a   |
/// |                                                      | presence also the last number         |
/// | `earliest`                                           | everything that is kept               |
/// | an id from the last one forgotten to the last issued | what came after it                    |
/// | a time since the last one forgotten                  | what was published since              |
/// | any time, while this server has forgotten nothing    | what was published since              |
/// | an older id or time, a future id, any other text     | a gap, and everything that is kept    |
///
/// Ids grow across all channels. So what came after an id of another channel is known, too; and a view starts as a channel
/// does, with a gap if one of its channels has lost something.
pub(super) struct Start {
    /// After this id.
    pub(super) after: Id,
    /// Whether there is a gap; `None` if that depends on what is forgotten by then.
    pub(super) has_gap: Option<bool>,
    is_time: bool,
    /// What there is now: up to this id, and to this position in the history.
    pub(super) newest: Id,
    pub(super) end: Cursor,
    /// In a view over Redis, the same for each of its channels.
    pub(super) channels: Vec<Start>,
    /// Whether the channel is completed, and the client lacks nothing of it.
    pub(super) is_finished: bool,
}

impl Start {
    pub(super) fn new(feed: &Feed, asked: &Asked) -> Start {
        let ids = &feed.hub.ids;
        // Not under the lock of a view: the lock of the order comes before it.
        let settled = feed.view.as_ref().map(|_| feed.hub.order.settled(ids));
        let mut state = feed.lock();
        feed.expire(&mut state);
        let history = &state.history;
        let newest = settled.unwrap_or(history.newest());
        let knows = |id: &Id| match settled {
            Some(_) => ids.may_be_of_event(*id),
            None => knows(history, ids, *id),
        };
        let (after, has_gap) = match asked {
            // A number holds until the next one.
            Asked::Latest if feed.is_presence() => (newest.previous().max(history.forgotten), None),
            Asked::Latest => (newest, None),
            Asked::Earliest => (Id::ZERO, Some(false)),
            Asked::After(text) => match Id::parse(text).filter(knows) {
                Some(id) => (id, None),
                None => (Id::ZERO, Some(true)),
            },
            Asked::Since(_, Some(id)) => (newest.min(*id), None),
            Asked::Since(_, None) => (Id::ZERO, Some(true)),
        };
        let (is_time, end) = (matches!(asked, Asked::Since(..)), history.end());
        let is_completed = state.is_completed();
        let (channels, is_finished) = (Vec::new(), false);
        let start = Start { after, has_gap, is_time, newest, end, channels, is_finished };
        let lacks_nothing = history.position_after(after) == end && !start.is_behind_gap(history.forgotten, ids);
        Start { is_finished: is_completed && lacks_nothing, ..start }
    }

    /// Whether there is a gap where the events up to `forgotten` are not kept any more.
    pub(super) fn is_behind_gap(&self, forgotten: Id, ids: &Ids) -> bool {
        // Before this server had started, it forgot nothing.
        let is_whole = self.is_time && forgotten == ids.started();
        self.has_gap.unwrap_or(self.after < forgotten && !is_whole)
    }

    /// Finds `after` in the history of its channel, and makes it an id that every server knows; `end` is the position after it.
    /// The history may have begun anew, with other ids. Returns whether what stood at the old `end` is lost: then this starts
    /// with the oldest event.
    pub(super) fn find_in(&mut self, history: &History) -> bool {
        let is_lost = has_lost_events(self.end, history.first);
        self.after = history.last_until(if is_lost { Id::ZERO } else { self.after });
        self.end = history.position_after(self.after);
        is_lost
    }
}

/// Whether what came after this id is known. A log may have lost its end: a journal when the power failed, Redis in a
/// failover. Then a client may hold an id that is larger than those of the history, and was not issued by this process.
fn knows(history: &History, ids: &Ids, id: Id) -> bool {
    match ids.are_shared() {
        true => id == history.forgotten || id == history.last_until(id),
        false => id <= history.newest() || ids.has_issued(id),
    }
}
