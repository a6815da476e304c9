//! The integration tests: one crate, a file a subject. `server` starts the binary under test and speaks to it raw.

mod requests;
mod server;
