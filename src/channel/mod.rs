//! Publish once, reach every subscriber.
//!
//! Read it in this order; each file uses only those before it: `limits`, `id`, `history`, `notifier`, `counters`,
//! `subscriber`, `channel`, `fanout`, `table`.

#[allow(clippy::module_inception)]
mod channel;
mod counters;
mod fanout;
mod history;
mod id;
mod limits;
mod notifier;
mod subscriber;
mod table;

pub use channel::{Channel, Published, Summary, TooLargeToKeep};
pub use limits::Limits;
pub use table::{Channels, NoChannel};
