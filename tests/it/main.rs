//! The integration tests: one crate, a file a subject. `server` starts the binary under test and speaks to it raw.

mod access;
mod channel_library;
mod channel_table;
mod channels;
mod command_line;
mod completion;
mod cors;
mod departures;
mod emitter;
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
mod slow_readers;
mod webdriver;
mod words;
