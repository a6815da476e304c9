#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod app;
mod gate;
pub mod http;
mod lab;
mod limits;
mod line;
mod lock;
mod metrics;
mod script;
pub mod sse;
mod words;

pub use http::{Cors, Request, Response, Router, Server};
pub use limits::Limits;
pub use sse::{Channel, Channels, Emitter, Event, EventSource};
