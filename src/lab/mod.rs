//! The laboratory: streams made to order, good and bad. It knows nothing of channels.
//!
//! Read it in this order; each file uses only those before it: `flow`, `script`, `line`, `query`, `recording`.
//!
//! Its limits are constants, since each stream is counted by [`Limits::streams`](crate::http::Limits::streams):
//!
//! - A stream costs at most 128 KiB of memory besides the kernel's socket, whatever it plays: its texts (24 KiB), a
//!   piece of a frame (8 KiB) and the stack of its thread. Frames are generated while they are written.
//! - A recording has no bound but its file. It is read while it is played: a stream holds one block besides. A block has at
//!   most 5 MiB, which is more than a frame of the laboratory, and its buffer 8 MiB.
//! - At most two clients at a time are brought to their last event ID in a recording. Others are told to come back.
//! - A watcher of a line costs as much: up to 64 KiB of events wait for it, then only the newest piece is kept.
//! - A stream has at most 64 MiB and lasts at most an hour. An order for more is `400`.
//! - All streams together write 10,000 chunks a second at most. When they want more, each takes longer.
//! - There are at most 256 lines at a time, and 8 watchers on each. One more is `503`.

mod flow;
mod line;
mod query;
mod recording;
mod script;

pub(crate) use line::{Lines, cut, on_line, watch};
pub(crate) use query::respond;
pub(crate) use recording::play_recording;

use crate::http::Response;

/// A stranger chooses what an answer of `/lab` says, and under which media type. If a browser shows it as a page, that
/// page must not be one of ours: `sandbox` gives it an origin of its own and no scripts.
fn sandboxed(response: Response) -> Response {
    response.field("Content-Security-Policy", "sandbox; default-src 'none'")
}
