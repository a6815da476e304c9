//! Server-Sent Events (HTML, 9.2): the format, and the two ends of one stream.
//!
//! Read it in this order; each file uses only those before it: `event`, `parser`, `text`, `emitter`, `event_source`.

mod emitter;
mod event;
mod event_source;
mod parser;
mod text;

pub use emitter::{Emitter, last_event_id};
pub(crate) use emitter::{event_stream, opening, opening_with, refused};
pub use event::{Event, MalformedEvent};
pub use event_source::{EventSource, EventSourceError, ReadyState, Step};
pub use parser::{EventTooLarge, Message, Parser};
pub use text::{base64, json_string};
