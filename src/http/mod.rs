//! HTTP/1.1 by hand: a listener, a thread for each connection, and a parser that refuses what two programs could read
//! differently. Nothing here knows of Server-Sent Events.
//!
//! Read it in this order; each file uses only those before it: `lock`, `back_off`, `status`, `date`, `json`, `limits`, `tcp_table`, `listener`,
//! `pool`, `log`, `grammar`, `head`, `head_parser`, `forwarded`, `chunked`, `slot`, `admission`, `connection`, `wire`, `content`,
//! `request`, `stream`, `response`, `files`, `router`, `cors`, `exchange`, `server`; for the client `url`, `received`, `client`.

pub(crate) mod admission;
pub(crate) mod back_off;
mod chunked;
pub mod client;
pub(crate) mod connection;
mod content;
mod cors;
mod date;
mod exchange;
mod files;
mod forwarded;
pub(crate) mod grammar;
mod head;
mod head_parser;
pub(crate) mod json;
mod limits;
pub(crate) mod listener;
pub(crate) mod lock;
pub(crate) mod log;
mod pool;
mod received;
mod request;
mod response;
mod router;
mod server;
mod slot;
mod status;
mod stream;
pub(crate) mod tcp_table;
mod url;
mod wire;

pub use chunked::Chunks;
pub use cors::{Cors, InvalidCors};
pub use files::Files;
pub(crate) use files::Named;
pub use head::{Framing, Head, Method, Version};
pub use head_parser::HeadParser;
pub use limits::{InvalidLimits, Limits};
pub use listener::Address;
pub(crate) use log::LogOptions;
pub use log::say;
pub use request::Request;
pub use response::Response;
pub use router::Router;
pub use server::{Server, ServerHandle, StillRunning};
pub use status::{Refusal, Status};
pub(crate) use stream::StreamWriter;
pub use url::{MalformedUrl, Url};
