//! Views of channels in Redis, where each stream has ids of its own.
//!
//! Two events of two streams may have one id, and after a failover the clock of Redis may be late: one id cannot say which
//! events of several streams came before it. So the id of an event in such a view is a place: it has a part for each
//! channel, in the order of their names, which is the id of the last event of that channel, as
//! `1795363109763-0,1795363109770-2`. With it every server finds what a client lacks, and what is lost, channel by channel.
//! The events of a channel stand in their order; between two channels there is none that all servers know.
//!
//! The part of a stream that was empty is `0-0`. If the stream has begun since then, a server that saw it empty knows that
//! nothing is missing. Any other server tells a gap: a stream that was deleted and began again looks the same to it.

use super::feed::{Feed, State};
use super::id::Id;
use std::sync::{Arc, Weak};

/// A place as the client gets it.
pub(super) fn text(place: &[Id]) -> String {
    place.iter().map(Id::to_string).collect::<Vec<_>>().join(",")
}

/// The frame of an event as a view shows it, with the place after the event as its id.
pub(super) fn placed(place: &[Id], shown: &[u8]) -> Arc<[u8]> {
    let own_id = shown.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    [format!("id: {}\n", text(place)).as_bytes(), &shown[own_id..]].concat().into()
}

impl Feed {
    /// Whether it is a view over Redis.
    pub(super) fn has_place(&self) -> bool {
        self.view.is_some() && self.hub.ids.are_shared()
    }

    fn set_part(&self, state: &mut State, channel: &Feed, id: Id) {
        let mut parts = self.view.iter().flat_map(|view| view.selection.parts());
        if let Some(at) = parts.position(|part| *part == channel.members.name) {
            state.place[at] = id;
        }
    }

    /// Appends the next event of a channel to the view; that it is completed has no id, and no part in the place. Called under
    /// the lock of the channel.
    pub(super) fn show_of(self: &Arc<Feed>, channel: &Feed, id: Option<Id>, shown: &Arc<[u8]>) {
        let mut state = self.lock();
        if let Some(id) = id {
            self.set_part(&mut state, channel, id);
        }
        if state.is_active() {
            let frame = id.map_or_else(|| Arc::clone(shown), |_| placed(&state.place, shown));
            // The history of the view is in the order in which the events came. Its ids only tell how old they are.
            let id = id.unwrap_or_default().max(state.history.newest());
            self.append_shown(state, id, frame);
        }
    }

    /// The history of a channel ends with this event, and it has begun anew unless the view has. The subscribers of the view
    /// come back with their places, and are told what is lost. Called under the lock of the channel.
    pub(super) fn restart(self: &Arc<Feed>, channel: &Feed, newest: Id) {
        let mut state = self.lock();
        self.set_part(&mut state, channel, newest);
        if state.is_active() {
            self.restart_at(state, Id::ZERO);
        }
    }

    /// The same for all views of a channel.
    pub(super) fn restart_views(&self, state: &State) {
        let views = state.views.iter().filter_map(Weak::upgrade);
        views.for_each(|view| view.restart(self, state.history.newest()));
    }
}
