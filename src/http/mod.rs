//! HTTP/1.1 by hand: a listener, a thread per connection, a parser that refuses what two programs
//! could read differently. It has never heard of Server-Sent Events.
//!
//! Read it in this order; each file uses only those before it: `lock`, `status`, `date`, `log`, `limits`, `pool`,
//! `connection`, `admission`, `wire`, `content`, `request`, `response`, `cors`, `files`, `router`, `exchange`, `server`; for the client's end
//! `url`, `received`, `client`.

pub(crate) mod admission;
pub mod client;
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
mod received;
mod request;
mod response;
mod router;
mod server;
mod status;
mod url;
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
pub use url::{MalformedUrl, Url};
