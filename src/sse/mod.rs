//! Server-Sent Events (HTML, 9.2): writing them, reading them, sending them to one client or to
//! many.
//!
//! Read it in this order; each file uses only those before it: `event`, `parser`, `emitter` for one
//! client, `event_source` for the client itself; `id`, `history`, `bell`, `counts`, `subscriber`, `channel`, `fanout`, `channels` for many.

mod bell;
pub(crate) mod channel;
mod channels;
mod counts;
mod emitter;
mod event;
mod event_source;
mod fanout;
mod history;
mod id;
mod parser;
mod subscriber;

pub(crate) use channel::json_string;
pub use channel::{Channel, Published, Summary, TooLargeToKeep};
pub use channels::{Channels, NoChannel};
pub(crate) use emitter::{CONTENT_TYPE, jittered, with_stream_fields};
pub use emitter::{Emitter, last_event_id};
pub use event::{Event, MalformedEvent, base64};
pub use event_source::{EventSource, EventSourceError, ReadyState, Step};
pub use parser::{EventTooLarge, Message, Parser};
