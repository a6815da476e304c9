//! Publish once, reach every subscriber.
//!
//! Read it in this order; each file uses only those before it: `limits`, `id`, `asked`, `history`, `publication`, `notifier`,
//! `members`, `subscriber`, `counters`, `lane`, `order`, `selection`, `feed`, `view`, `catch_up`, `place`, `fanout`, `segment`,
//! `recovery`, `directory`, `journal`, `mirror`, `log`, `channel`, `poll`, `views`, `eviction`, `presence`, `table`.

mod asked;
mod catch_up;
#[allow(clippy::module_inception)]
mod channel;
mod counters;
mod directory;
mod eviction;
mod fanout;
mod feed;
mod history;
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
mod segment;
mod selection;
mod subscriber;
mod table;
mod view;
mod views;

pub(crate) use crate::redis::Figures as RedisFigures;
pub use crate::redis::Options as RedisOptions;
pub(crate) use asked::since_ms;
pub use channel::{Channel, Summary};
pub use directory::{JournalSummary, JournalSync, inspect_journal};
pub use limits::Limits;
pub use log::Storage;
pub use publication::{PublishError, Published};
pub(crate) use selection::Selection;
pub use table::{Channels, NoChannel};
