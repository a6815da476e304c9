//! hyper 1 without a framework: what axum stands on, driven by hand.
//!
//! - A runtime of one thread for each core, each with its own listener (`SO_REUSEPORT`): no task moves, and none is locked.
//! - `pipeline_flush`: hyper flushes when it has nothing more to do, not after each chunk. hyper calls it experimental; and
//!   with it nothing bounds what hyper keeps for a reader that has stalled.
//! - The body of a stream hands over all that its subscriber lacks as one chunk (`peer_tail.rs`).
//! - No timer, so no timeouts; no heartbeats.

use crate::peer_common::{HTML, answer_to_publisher};
use crate::peer_epoll::{listen, port};
use crate::peer_tail::{Channels, Tail, relay};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

enum Content {
    Whole(Option<Bytes>),
    Events(Tail),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Content::Whole(bytes) => Poll::Ready(bytes.take()),
            Content::Events(tail) => tail.poll_next(context),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Events(_) => SizeHint::default(),
        }
    }
}

pub fn serve(page: Vec<u8>) -> io::Result<()> {
    let (page, channels) = (Bytes::from(page), Channels::default());
    let first = listen(0)?;
    let port = port(&first)?;
    let mut listeners = vec![first];
    for _ in 1..thread::available_parallelism()?.get() {
        listeners.push(listen(port)?);
    }
    println!("http://127.0.0.1:{port}/");
    let start = |listener| {
        let (page, channels) = (page.clone(), channels.clone());
        thread::spawn(move || run(TcpListener::from(listener), page, channels))
    };
    let threads: Vec<_> = listeners.into_iter().map(start).collect();
    threads.into_iter().try_for_each(|thread| thread.join().expect("a runtime does not panic"))
}

fn run(listener: TcpListener, page: Bytes, channels: Channels) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        tokio::spawn(relay());
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut http = http1::Builder::new();
        http.pipeline_flush(true);
        loop {
            // Its options are the listener's.
            let (socket, _) = listener.accept().await?;
            let (page, channels) = (page.clone(), channels.clone());
            let service = service_fn(move |request| respond(request, page.clone(), channels.clone()));
            let connection = http.serve_connection(TokioIo::new(socket), service);
            // A connection that breaks off is the client's affair.
            tokio::spawn(async { drop(connection.await) });
        }
    })
}

async fn respond(
    request: Request<Incoming>,
    page: Bytes,
    channels: Channels,
) -> Result<Response<Content>, hyper::Error> {
    let whole = |kind, bytes| {
        let response = Response::builder().header(CONTENT_TYPE, kind);
        response.body(Content::Whole(Some(bytes))).expect("these fields are valid")
    };
    let Some(name) = request.uri().path().strip_prefix("/channels/") else {
        return Ok(whole(HTML, page));
    };
    let channel = channels.named(name);
    if request.method() == Method::POST {
        let data = request.into_body().collect().await?.to_bytes();
        let (id, subscribers) = channel.publish(&data);
        let body = answer_to_publisher(id, subscribers);
        return Ok(whole("application/json", body.into()));
    }
    let seen = request.headers().get("last-event-id");
    let seen = seen.and_then(|id| id.to_str().ok()?.parse().ok());
    let mut response = Response::new(Content::Events(channel.subscribe(seen)));
    *response.status_mut() = StatusCode::OK;
    for (name, value) in [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")] {
        response.headers_mut().insert(name, value.parse().expect("a valid field"));
    }
    Ok(response)
}
