//! HTTP/1.1 by hand: a listener, a thread per connection, a parser that refuses what two programs
//! could read differently. It has never heard of Server-Sent Events.
//!
//! Read it in this order; each file uses only those before it: `status`, `date`, `log`, `workers`,
//! `connection`, `wire`, `content`, `request`, `response`, `cors`, `files`, `router`, `server`; at the client's end
//! `url`, `received`, `client`.

pub mod client;
pub(crate) mod connection;
mod content;
mod cors;
mod date;
mod files;
mod log;
mod received;
mod request;
mod response;
mod router;
mod server;
mod status;
mod url;
mod wire;
mod workers;

pub use content::{Chunks, Framing};
pub use cors::{Cors, MalformedOrigin};
pub use files::Files;
pub use request::{Head, Method, Request, Version};
pub use response::Response;
pub use router::Router;
pub use server::Server;
pub use status::{Refusal, Status};
pub use url::{MalformedUrl, Url};
