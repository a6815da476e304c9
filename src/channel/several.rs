//! Publishing an event on one channel or on several, which may have to begin.

use super::channel::Channel;
use super::channels::Channels;
use super::log::LOG_DEADLINE;
use super::publication::{Publication, PublishError, Published};
use super::table::{NoChannel, Removed, Table};
use crate::http::lock::hold;
use crate::sse::Event;
use std::iter::repeat_n;
use std::time::Instant;

/// Why an event is not on all of its channels.
pub(crate) enum NotPublished {
    /// There is no room for those that were to begin. None has it.
    NoRoom,
    /// So many channels have it, the first ones; the next one failed. Those behind it do not have it.
    Failed { published: usize, error: PublishError },
}

impl From<PublishError> for NotPublished {
    fn from(error: PublishError) -> NotPublished {
        NotPublished::Failed { published: 0, error }
    }
}

impl Channels {
    /// A handle to publish with. The channel takes no place before something is published: what is refused costs no other
    /// channel its place.
    ///
    /// # Errors
    /// [`NoChannel::Name`].
    pub(crate) fn handle(&self, name: &str) -> Result<Channel, NoChannel> {
        if Channels::is_name(name) { Ok(hold(&self.table).open(name)) } else { Err(NoChannel::Name) }
    }

    /// Publishes an event on all of the channels, or on none: what can be refused is refused before the first of them has
    /// it. Only the failure of a log can come in between. With a key, it is published once for each key in the history.
    pub(crate) fn publish(
        &self,
        channels: &[Channel],
        event: &Event,
        key: Option<&str>,
    ) -> Result<Vec<Published>, NotPublished> {
        let deadline = Instant::now() + LOG_DEADLINE;
        let publication = Publication::new(event, key, self.hub.limits.history_bytes)?;
        let names = channels.iter().map(Channel::name);
        let _reservation = self.hub.reservations.reserve(key, names, deadline)?;
        if channels.len() > 1 {
            channels.iter().try_for_each(|channel| channel.check(&publication, deadline))?;
        }
        let has_new = channels.iter().any(|channel| !channel.feed.members.has_begun());
        if has_new && !hold(&self.table).take_places(channels) {
            return Err(NotPublished::NoRoom);
        }
        let (mut published, copies) = (Vec::new(), repeat_n(publication, channels.len()));
        let outcome = channels.iter().zip(copies).try_for_each(|(channel, publication)| {
            published.push(channel.commit(publication, deadline)?);
            Ok(())
        });
        if has_new {
            let mut evicted = Removed::default();
            hold(&self.table).settle(channels, &mut evicted);
        }
        match outcome {
            Ok(()) => Ok(published),
            Err(error) => Err(NotPublished::Failed { published: published.len(), error }),
        }
    }
}

impl Table {
    /// Gives a place to each channel that is to begin, or to none of them. The channels that lose theirs are not evicted
    /// yet: the log may fail.
    fn take_places(&mut self, channels: &[Channel]) -> bool {
        let has_place = |channel: &&Channel| self.channels.get(channel.name()).is_some_and(|entry| entry.is_claimed);
        let new = channels.len() - channels.iter().filter(has_place).count();
        let has_room = new == 0 || self.claimed + new <= self.hub.limits.channels + self.unused.len();
        if has_room {
            channels.iter().for_each(|channel| self.claim(&channel.feed.members, true));
        }
        has_room
    }

    /// Evicts others for the channels that have begun. The rest give their places back.
    fn settle(&mut self, channels: &[Channel], evicted: &mut Removed) {
        for channel in channels {
            let members = &channel.feed.members;
            self.claim(members, members.has_begun());
        }
        self.make_room(0, evicted);
    }
}
