//! A Server-Sent Events server that needs nothing but the standard library.
//!
//! **A stream for one client.** A handler answers with an [`Emitter`], which writes on the connection's own thread:
//!
//! ```no_run
//! use newswire::{Emitter, Event, Router, Server};
//! use std::{thread, time::Duration};
//!
//! let mut router = Router::new();
//! router.get("/words", |request| {
//!     Emitter::stream(request, |mut emitter| {
//!         for (number, word) in (1..).zip("The quick brown fox".split(' ')) {
//!             emitter.send(Event::new(word).id(number)?)?;
//!             thread::sleep(Duration::from_secs(1));
//!         }
//!         emitter.complete()
//!     })
//! });
//! Server::bind("127.0.0.1:8080")?.run(router)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! **A stream for many.** A [`Channel`] sends each published event to all subscribers, and keeps the last ones for clients
//! that come back. **Stopping:** [`Server::serve`] returns at once with a [`ServerHandle`].
//!
//! ```
//! use newswire::{Channels, Event, Router, Server};
//! use std::time::Duration;
//!
//! let channels = Channels::start(newswire::channel::Limits::default())?;
//! let news = channels.open("news")?;
//! let subscribed = news.clone();
//! let mut router = Router::new();
//! router.get("/news", move |request| subscribed.subscribe(request));
//! let server = Server::bind("127.0.0.1:0")?.serve(router)?;
//! // From any thread, at any time:
//! news.publish(Event::new("extra, extra"))?;
//! server.stop();
//! server.join(Duration::from_secs(10))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Then, in the order in which you may need them: [`Cors`] says which pages may read; [`http`] has the rest of the server
//! and its [`Limits`](http::Limits); [`sse`] has the [`Parser`](sse::Parser) of the format; [`channel`] has channels and
//! their [`Limits`](channel::Limits); [`app`] is the whole server that the command starts, with its page and all routes.

#![forbid(unsafe_code)]

pub mod app;
pub mod channel;
pub mod http;
mod lab;
mod redis;
pub mod sse;

pub use channel::{Channel, Channels};
pub use http::{Cors, Request, Response, Router, Server, ServerHandle};
pub use sse::{Emitter, Event, EventSource, SseEmitter};
