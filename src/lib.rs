#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod app;
pub mod channel;
pub mod http;
mod lab;
pub mod sse;

pub use channel::{Channel, Channels};
pub use http::{Cors, Request, Response, Router, Server, ServerHandle};
pub use sse::{Emitter, Event, EventSource};
