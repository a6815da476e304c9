//! What can be published on a channel.

use super::history::History;
use super::id::Id;
use crate::sse::Event;
use std::fmt::{self, Write};
use std::sync::Arc;

/// The draft of the `Idempotency-Key` field sets no bound; this is the one of Stripe.
const LONGEST_KEY: usize = 255;

/// The longest line that an id makes.
const LONGEST_ID: &str = "id: 17592186044415-1048575\n";

/// The result of publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The event's id, `<unix-ms>-<n>`: larger than that of every event before it, in any channel of this server; with Redis,
    /// in this channel.
    pub id: String,
    /// How many subscribers the channel has now. The server cannot know how many of them read the event.
    pub subscribers: usize,
}

/// Why an event was not published, or a channel not completed. None of it has reached a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The event is larger than all that the channel keeps ([`Limits::history_bytes`](super::Limits::history_bytes)).
    TooLarge,
    /// The event type is `open`, `error`, `end`, `gap` or `heartbeat`.
    ReservedName,
    /// The event has an id. A channel gives ids itself, so that it can tell a client what it missed; drop the event's
    /// own with [`Event::without_id`].
    OwnId,
    /// The event has no data. By the standard it would be no event; several clients dispatch an empty message for it.
    NoData,
    /// The key is not 1 to 255 visible ASCII characters.
    MalformedKey,
    /// Another event was published with the same key.
    KeyReused,
    /// [`Channels::stop`](super::Channels::stop) was called.
    Stopped,
    /// The log of the channel cannot take it now: the disk is full, say. It was not kept.
    Unavailable,
    /// The log of the channel failed while it took it. Subscribers may get it after a restart, or never.
    Unknown,
}

impl PublishError {
    /// One sentence for the publisher.
    pub const fn sentence(self) -> &'static str {
        match self {
            PublishError::TooLarge => "The event is larger than all that its channel may keep.",
            PublishError::ReservedName => {
                "The event types open, error, end, gap and heartbeat are reserved; choose another one."
            }
            PublishError::OwnId => "The channel gives the event its id; publish it without one.",
            PublishError::NoData => "The event has no data; publish it with data, which may be empty.",
            PublishError::MalformedKey => "The idempotency key must be 1 to 255 visible ASCII characters.",
            PublishError::KeyReused => {
                "Another event was published with this idempotency key; use a new key for a new event."
            }
            PublishError::Stopped => "The server is stopping.",
            PublishError::Unavailable => {
                "The log of the channel cannot take it now, and has not kept it; publish it again later."
            }
            PublishError::Unknown => {
                "The log of the channel failed: it may or may not have been kept. With an idempotency key, publish it again."
            }
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for PublishError {}

/// What a log has committed: an encoded event and its key, or without one that the channel is completed.
pub(super) type Committed = (Id, Option<(Arc<[u8]>, Option<Arc<str>>)>);

/// An event that can be published, encoded but for its id.
#[derive(Clone)]
pub(super) struct Publication {
    /// Without the id.
    pub(super) block: String,
    pub(super) key: Option<Arc<str>>,
    /// What it may take in the history. That counts the longest id: publishers wait for room in any order, and the id is
    /// issued after the wait.
    pub(super) bytes: usize,
}

pub(super) fn is_key(key: &str) -> bool {
    (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Publication {
    /// Checks the event and the key for a channel that keeps `history_bytes`.
    pub(super) fn new(event: &Event, key: Option<&str>, history_bytes: usize) -> Result<Publication, PublishError> {
        if key.is_some_and(|key| !is_key(key)) {
            return Err(PublishError::MalformedKey);
        }
        let reserve = LONGEST_ID.len() + key.map_or(0, str::len);
        let most = history_bytes.checked_sub(reserve).ok_or(PublishError::TooLarge)?;
        let fields = event.fields();
        if fields.id.is_some() {
            return Err(PublishError::OwnId);
        } else if event.is_reserved() {
            return Err(PublishError::ReservedName);
        } else if fields.data.is_none() {
            return Err(PublishError::NoData);
        }
        let block = event.encoded_within(most).ok_or(PublishError::TooLarge)?;
        Ok(Publication { bytes: block.len() + reserve, block, key: key.map(Arc::from) })
    }

    pub(super) fn frame(&self, id: Id) -> Arc<[u8]> {
        frame(id, &self.block)
    }

    /// The id of the event that was published with this key.
    pub(super) fn find_in(&self, history: &History) -> Result<Option<Id>, PublishError> {
        match self.key.as_ref().and_then(|key| history.find_key(key)) {
            None => Ok(None),
            Some((id, frame)) if *self.frame(id) == *frame => Ok(Some(id)),
            Some(_) => Err(PublishError::KeyReused),
        }
    }
}

/// An encoded event with its id.
pub(super) fn frame(id: Id, block: &str) -> Arc<[u8]> {
    // It does not grow: each time would cost as much as the rest.
    let mut frame = String::with_capacity(LONGEST_ID.len() + block.len());
    // A string takes everything.
    let _ = write!(frame, "id: {id}\n{block}");
    frame.into_bytes().into()
}
