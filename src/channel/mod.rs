//! Publish once, reach every subscriber.
//!
//! Read it in this order: `limits`, `id`, `asked`, `history`, `publication`, `reservation`, `notifier`, `members`, `subscriber`,
//! `counters`, `lane`, `order`, `selection`, `forgotten`, `hub`, `feed`, `view`, `place`, `start`, `replay`, `catch_up`, `fanout`,
//! `segment`, `recovery`, `directory`, `journal`, `mirror`, `log`, `channel`, `poll`, `views`, `table`, `presence`, `timer`,
//! `channels`, `several`. Each file uses only those before it; but `feed` and `view` also call what `view` and `place` add.

mod asked;
mod catch_up;
#[allow(clippy::module_inception)]
mod channel;
mod channels;
mod counters;
mod directory;
mod fanout;
mod feed;
mod forgotten;
mod history;
mod hub;
mod id;
mod journal;
mod lane;
mod limits;
mod log;
mod members;
mod mirror;
mod notifier;
mod order;
mod place;
mod poll;
mod presence;
mod publication;
mod recovery;
mod replay;
mod reservation;
mod segment;
mod selection;
mod several;
mod start;
mod subscriber;
mod table;
mod timer;
mod view;
mod views;

pub(crate) use crate::redis::Figures as RedisFigures;
pub use crate::redis::Options as RedisOptions;
pub(crate) use asked::since_ms;
pub use channel::{Channel, Summary};
pub use channels::Channels;
pub use directory::{JournalSummary, JournalSync, inspect_journal};
pub use limits::Limits;
pub use log::Storage;
pub use publication::{PublishError, Published};
pub(crate) use selection::{PRESENCE, Selection};
pub(crate) use several::NotPublished;
pub use table::NoChannel;
