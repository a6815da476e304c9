//! URLs to handlers: the server that the command line starts.

mod access;
mod metrics;
mod routes;
mod words;

pub use access::Publishers;
pub use routes::{App, Listening, publish_lines};
pub(crate) use words::TEXT;
