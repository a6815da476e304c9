//! Publish once, reach every subscriber.
//!
//! Read it in this order; each file uses only those before it: `limits`, `id`, `history`, `publication`, `notifier`,
//! `members`, `subscriber`, `lane`, `feed`, `catch_up`, `fanout`, `segment`, `recovery`, `directory`, `journal`,
//! `mirror`, `log`, `channel`, `table`.

mod catch_up;
#[allow(clippy::module_inception)]
mod channel;
mod directory;
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
mod publication;
mod recovery;
mod segment;
mod subscriber;
mod table;

pub(crate) use crate::redis::Figures as RedisFigures;
pub use crate::redis::Options as RedisOptions;
pub use channel::{Channel, Summary};
pub use directory::{JournalSummary, JournalSync, inspect_journal};
pub use limits::Limits;
pub use log::Storage;
pub use publication::{PublishError, Published};
pub use table::{Channels, NoChannel};
