//! Server-Sent Events (HTML, 9.2): the format, and the server's end of one stream.
//!
//! Read it in this order; each file uses only those before it: `event`, `parser`, `recording`, `text` for the format; `stream` and
//! `output` for any stream; `heartbeat` and `emitter` for one that is written on the connection's thread; `buffer` and
//! `sse_emitter` for one that any thread sends to.

mod buffer;
mod emitter;
mod event;
mod heartbeat;
mod output;
mod parser;
mod recording;
mod sse_emitter;
mod stream;
mod text;

pub use buffer::SendError;
pub use emitter::{Emitter, EmitterOptions};
pub use event::{Event, Fields, MalformedEvent};
pub use parser::{EventTooLarge, Message, Parser};
pub use recording::{Block, Blocks, Recorder, Recording};
pub use sse_emitter::SseEmitter;
pub use stream::last_event_id;
pub(crate) use stream::{LAST_EVENT_ID_PARAMETERS, event_stream, opening, opening_with, refused};
pub use text::base64;
pub(crate) use text::json_string;
