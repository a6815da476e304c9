//! URLs to handlers: the server that the command line starts, for a program that wants all of it.
//!
//! Read it in this order; each file uses only those before it: `words`, `keys`, `authorization`, `host`, `revocation`,
//! `access`, `subscribe`, `drain`, `metrics`, `publish`, `site`, `routes`, `application`.

mod access;
mod application;
mod authorization;
mod drain;
mod host;
mod keys;
mod metrics;
mod publish;
mod revocation;
mod routes;
mod site;
mod subscribe;
mod words;

pub use access::Publishers;
pub use application::{App, Listening};
pub use publish::publish_lines;
pub use subscribe::Create;
