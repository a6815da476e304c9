//! Redis: the log of all channels, which any number of servers share. It knows no channel.
//!
//! Read it in this order; each file uses only those before it: `resp`, `link`, `pipeline`, `entry`, `shared`, `stream`,
//! `reader`.

mod entry;
mod link;
mod pipeline;
mod reader;
mod resp;
mod shared;
mod stream;

pub(crate) use entry::{Bounds, Content, Entry, Mirror};
pub use link::Options;
pub(crate) use shared::{Figures, Redis};
pub(crate) use stream::{Failure, Stream};
