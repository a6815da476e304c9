//! Server-Sent Events (HTML, 9.2): the format, and the server's end of one stream.
//!
//! Read it in this order; each file uses only those before it: `event`, `parser`, `text` for the format; `stream` and
//! `output` for any stream; `emitter` for one that is written on the connection's thread; `sse_emitter` and `sse_writer` for one
//! that any thread sends to; `event_source` and `recording` for the client.

mod emitter;
mod event;
mod event_source;
mod output;
mod parser;
mod recording;
mod sse_emitter;
mod sse_writer;
mod stream;
mod text;

pub use crate::http::json::json_string;
pub use emitter::{Emitter, EmitterOptions};
pub use event::{Event, Fields, MalformedEvent};
pub use event_source::{EventSource, EventSourceError, ReadyState, Step};
pub use parser::{EventTooLarge, Message, Parser, field, lines};
pub use recording::{Block, Blocks, Recorder, Recording};
pub use sse_emitter::{SendError, SseEmitter};
pub use stream::last_event_id;
pub(crate) use stream::{
    LAST_EVENT_ID_PARAMETERS, event_stream, farewell, opening, opening_with, refused, refused_because,
};
pub use text::base64;
