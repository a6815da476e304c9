//! The axum peer: server-sent events as its documentation writes them, over a tokio broadcast
//! channel.
//!
//! Settings, each the best we found for it:
//! - tokio's multi-threaded runtime with its default of one worker per core; release build with
//!   LTO.
//! - TCP_NODELAY, and a listen queue of 4,096, so that a storm of connections waits instead of
//!   being dropped.
//! - `axum::serve`, as documented. hyper has an option that it does not offer, called experimental,
//!   `pipeline_flush`: with hyper under axum by hand it made two to three times as many deliveries
//!   flat out, since events then leave together; but nothing bounds what hyper keeps for a reader
//!   that has stalled.
//! - An event is encoded once, when it is published. Each subscriber then has a copy of its own,
//!   since `Sse` wants an `Event`. To go past `Sse` and share encoded bytes as a plain body saved a
//!   tenth of the CPU time flat out and nothing that could be measured when paced, and it is not
//!   what is documented.
//! - `stream::unfold` over the receiver rather than `BroadcastStream`, which boxes each wait.
//! - No keep-alive comments: their timer costs memory and time for every connection and event.
//!   (newswire runs with its default, a comment every 15 s.)
//! - The broadcast channel and the history hold 1,000 events, newswire's default and twice what the
//!   bench keeps on the way.

use crate::peer_axum_redis::{self, Publisher};
use crate::peer_common::{HISTORY, HTML, answer_to_publisher};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::stream;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::net::TcpSocket;
use tokio::sync::broadcast::{self, error::RecvError};

pub struct Channel {
    live: broadcast::Sender<Arc<Event>>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    last_id: u64,
    events: VecDeque<Arc<Event>>,
}

#[derive(Clone, Default)]
pub struct Channels {
    by_name: Arc<RwLock<HashMap<String, Arc<Channel>>>>,
    /// With a Redis behind it.
    redis: Option<Publisher>,
}

impl Channels {
    fn named(&self, name: &str) -> Arc<Channel> {
        if let Some(channel) = self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(channel);
        }
        let mut channels = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let channel = channels.entry(name.to_owned()).or_insert_with(|| {
            let (live, _) = broadcast::channel(HISTORY);
            Arc::new(Channel { live, log: Mutex::default() })
        });
        Arc::clone(channel)
    }

    /// Puts an event into the log, and sends it to the subscribers: its id, and their number.
    pub fn append(&self, name: &str, data: &str) -> (u64, usize) {
        let channel = self.named(name);
        let mut log = channel.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.last_id += 1;
        let id = log.last_id;
        let event = Arc::new(Event::default().id(id.to_string()).data(data));
        if log.events.len() == HISTORY {
            log.events.pop_front();
        }
        log.events.push_back(Arc::clone(&event));
        // Sent under the lock, so that no subscriber finds an event neither in the log nor in its
        // receiver.
        (id, channel.live.send(event).unwrap_or_default())
    }
}

pub fn serve(page: Vec<u8>, redis: Option<u16>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_io().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(4096)?;
        println!("http://{}/", listener.local_addr()?);
        // A socket that cannot be set is about to fail anyway.
        let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        let page = axum::body::Bytes::from(page);
        let front = move || async move { ([(header::CONTENT_TYPE, HTML)], page) };
        let mut channels = Channels::default();
        if let Some(port) = redis {
            channels.redis = Some(peer_axum_redis::connect(port, channels.clone()).await?);
        }
        let app = Router::new()
            .route("/", get(front))
            .route("/channels/{name}", get(subscribe).post(publish))
            .with_state(channels);
        axum::serve(listener, app).await
    })
}

async fn publish(State(channels): State<Channels>, Path(name): Path<String>, data: String) -> impl IntoResponse {
    let (id, subscribers) = match &channels.redis {
        None => channels.append(&name, &data),
        Some(redis) => {
            redis.publish(name, data).await;
            (0, 0)
        }
    };
    ([(header::CONTENT_TYPE, "application/json")], answer_to_publisher(id, subscribers))
}

async fn subscribe(
    State(channels): State<Channels>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Sse<impl stream::Stream<Item = Result<Event, Infallible>>> {
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let channel = channels.named(&name);
    let (missed, receiver) = {
        let log = channel.log.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = seen.map_or(0, |seen| log.last_id.saturating_sub(seen) as usize).min(log.events.len());
        let missed: VecDeque<Arc<Event>> = log.events.range(log.events.len() - missed..).cloned().collect();
        (missed.into_iter(), channel.live.subscribe())
    };
    Sse::new(stream::unfold((missed, receiver), async |(mut missed, mut receiver)| {
        let event = match missed.next() {
            Some(event) => event,
            None => loop {
                match receiver.recv().await {
                    Ok(event) => break event,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            },
        };
        Some((Ok(Event::clone(&event)), (missed, receiver)))
    }))
}
