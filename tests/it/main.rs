//! The integration tests: one crate, a file a subject. `server` starts the binary under test and speaks to it raw.

mod access;
mod channels;
mod check;
mod command_line;
mod cors;
mod event_source;
mod events;
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
mod webdriver;
mod words;
