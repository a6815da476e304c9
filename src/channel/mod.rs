//! Publish once, reach every subscriber.
//!
//! Read it in this order; each file uses only those before it: `limits`, `id`, `asked`, `history`, `publication`, `notifier`,
//! `members`, `subscriber`, `counters`, `lane`, `order`, `selection`, `feed`, `view`, `catch_up`, `fanout`, `log`, `channel`,
//! `poll`, `views`, `eviction`, `presence`, `table`.

mod asked;
mod catch_up;
#[allow(clippy::module_inception)]
mod channel;
mod counters;
mod eviction;
mod fanout;
mod feed;
mod history;
mod id;
mod lane;
mod limits;
mod log;
mod members;
mod notifier;
mod order;
mod poll;
mod presence;
mod publication;
mod selection;
mod subscriber;
mod table;
mod view;
mod views;

pub(crate) use asked::since_ms;
pub use channel::{Channel, Summary};
pub use limits::Limits;
pub use publication::{PublishError, Published};
pub(crate) use selection::Selection;
pub use table::{Channels, NoChannel};
