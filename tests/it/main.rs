//! The integration tests: one crate, a file a subject. `server` starts the binary under test and speaks to it raw.

mod admission;
mod channels;
mod command_line;
mod cors;
mod deadlines;
mod events;
mod eviction;
mod files;
mod fuzz;
mod laboratory;
mod library;
mod limits;
mod page;
mod publishing;
mod repository;
mod requests;
mod resumption;
mod server;
mod shortage;
mod stopping;
mod webdriver;
mod words;
