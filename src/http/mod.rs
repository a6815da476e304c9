//! HTTP/1.1 by hand: a listener, a thread for each connection, and a parser that refuses what two programs could read
//! differently. Nothing here knows of Server-Sent Events.
//!
//! Read the files in this order: `lock`, `status`, `date`, `limits`, `pool`, `log`, `connection`, `admission`, `wire`,
//! `content`, `request`, `response`, `cors`, `files`, `router`, `exchange`, `server`.

pub(crate) mod admission;
pub(crate) mod connection;
mod content;
mod cors;
mod date;
mod exchange;
mod files;
mod limits;
pub(crate) mod lock;
mod log;
mod pool;
mod request;
mod response;
mod router;
mod server;
mod status;
mod wire;

pub use content::{Chunks, Framing};
pub use cors::{Cors, MalformedOrigin};
pub use files::Files;
pub use limits::{InvalidLimits, Limits};
pub use request::{Head, Method, Request, Version};
pub use response::Response;
pub(crate) use response::StreamWriter;
pub use router::Router;
pub use server::{Server, ServerHandle, StillRunning};
pub use status::{Refusal, Status};
