//! URLs to handlers: the server that the command line starts, for a program that wants all of it.
//!
//! Read it in this order; each file uses only those before it: `words`, `access`, `metrics`, `subscribe`, `publish`,
//! `site`, `routes`.

mod access;
mod metrics;
mod publish;
mod routes;
mod site;
mod subscribe;
mod words;

pub use access::Publishers;
pub use publish::publish_lines;
pub use routes::{App, Listening};
