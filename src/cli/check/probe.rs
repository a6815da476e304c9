//! What `newswire check` asks a server, and what comes of it.

use super::stream::{Event, PAUSE, Stream};
use newswire::http::client::{CloseHandle, Request, Response};
use newswire::http::{Method, Status, Version};
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

/// A stream is not watched any further than that, however fast it is.
const WATCHED_BYTES: usize = 1024 * 1024;
/// So many of the last events are asked for again.
const RESUMED_EVENTS: usize = 3;
/// In a domain for examples, which no server has a reason to know.
const ORIGIN: &str = "https://newswire.example";

/// All that was seen of a server.
pub(super) struct Seen {
    /// How long the stream was watched.
    pub(super) time: Duration,
    /// The silence after which a proxy cuts a connection.
    pub(super) proxy_timeout: Duration,
    pub(super) origin: String,
    /// Whether the user named the origin.
    pub(super) origin_is_known: bool,
    /// As EventSource asks.
    pub(super) first: Exchange,
    pub(super) cross_origin: Exchange,
    pub(super) http10: Exchange,
    pub(super) head: Exchange,
    pub(super) gzip: Exchange,
    /// With the id of an event that was seen.
    pub(super) resumed: Option<(String, Exchange)>,
    /// As EventSource comes back after a clean end.
    pub(super) again: Option<Exchange>,
}

/// A request, and what came of it.
pub(super) struct Exchange {
    /// A sentence if there is none.
    pub(super) response: Result<Response, String>,
    /// From the request to the end of the head.
    pub(super) head_at: Duration,
    /// What was watched of the content.
    pub(super) stream: Stream,
    pub(super) events: Vec<Event>,
    pub(super) end: End,
    pub(super) ended_at: Duration,
}

#[derive(PartialEq, Eq)]
pub(super) enum End {
    /// It was closed from here.
    Closed,
    Clean,
    Broken(String),
}

impl Seen {
    pub(super) fn gather(request: &Request, time: Duration, proxy_timeout: Duration) -> Seen {
        let named = request.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("origin"));
        let origin = named.map_or(ORIGIN.to_owned(), |(_, origin)| origin.clone());
        let with = |name, value: &str| request.clone().field(name, value);
        let [first, cross_origin, http10, head, gzip] = at_once(
            [
                (request.clone(), usize::MAX),
                (with("Origin", &origin), 0),
                (Request { version: Version::Http10, ..request.clone() }, 0),
                (Request { method: Method::Head, ..request.clone() }, 0),
                (with("Accept-Encoding", "gzip"), usize::MAX),
            ]
            .map(|(request, ids)| move || Exchange::run(request, ids, time)),
        );
        let ids: Vec<&String> = first.events.iter().filter_map(|event| event.id.as_ref()).collect();
        let resumed = ids.len().checked_sub(1).map(|last| {
            let events = RESUMED_EVENTS.min(last);
            // Where no event must come again, it is enough to see that none does.
            let within = if events == 0 { PAUSE * 10 } else { time };
            let id = ids[last - events];
            (id.clone(), Exchange::run(with("Last-Event-ID", id), events.max(1), within))
        });
        let last = ids.last().map_or(request.clone(), |id| with("Last-Event-ID", id));
        let again = (first.end == End::Clean).then(|| Exchange::run(last, 1, time));
        Seen {
            time,
            proxy_timeout,
            origin_is_known: named.is_some(),
            origin,
            first,
            cross_origin,
            http10,
            head,
            gzip,
            resumed,
            again,
        }
    }
}

fn at_once<const N: usize>(runs: [impl FnOnce() -> Exchange + Send; N]) -> [Exchange; N] {
    thread::scope(|scope| {
        let threads = runs.map(|run| scope.spawn(run));
        threads.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

impl Exchange {
    /// Closes it after this time, or after so many events with an id.
    fn run(request: Request, ids: usize, time: Duration) -> Exchange {
        let (begun, handle) = (Instant::now(), CloseHandle::default());
        let request = Request { connect_deadline: time, ..request };
        thread::scope(|scope| {
            scope.spawn(|| {
                if !handle.wait(time) {
                    handle.close()
                }
            });
            let mut response = request.send(&handle).map_err(|error| match handle.is_closed() {
                true => format!("no response came within {time:?}"),
                false => error.to_string(),
            });
            let head_at = begun.elapsed();
            let (mut stream, mut end) = (Stream::default(), End::Closed);
            if let Ok(response) = &mut response {
                while end == End::Closed && !is_enough(&stream, ids) {
                    match response.read(&mut stream.raw) {
                        _ if handle.is_closed() => break,
                        Ok(true) => stream.reads.push((begun.elapsed(), stream.raw.len())),
                        Ok(false) => end = End::Clean,
                        Err(error) => end = End::Broken(error.to_string()),
                    }
                }
                response.close();
            }
            // Ends the thread that waits.
            handle.close();
            let (events, ended_at) = (stream.events(), begun.elapsed());
            Exchange { response, head_at, stream, events, end, ended_at }
        })
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.response.as_ref().ok()?.field(name)
    }

    /// The members of a list, in lower case.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let values = self.response.iter().flat_map(|response| response.values(name));
        values.flat_map(|value| value.split(',')).map(|v| v.trim().to_ascii_lowercase()).collect()
    }

    /// Whether a list has this member, with or without a value.
    pub(super) fn has(&self, name: &str, member: &str) -> bool {
        self.list(name).iter().any(|found| found.split('=').next() == Some(member))
    }

    /// Whether EventSource would take it for a stream, or would but for its media type.
    pub(super) fn is_stream(&self) -> bool {
        let is_ok = self.response.as_ref().is_ok_and(|response| response.status == Status::OK);
        is_ok && (self.media_type() == "text/event-stream" || !self.events.is_empty())
    }

    pub(super) fn media_type(&self) -> String {
        let media_type = self.field("content-type").unwrap_or_default().split(';').next();
        media_type.unwrap_or_default().trim().to_ascii_lowercase()
    }
}

fn is_enough(stream: &Stream, ids: usize) -> bool {
    let has_all = || stream.events().iter().filter(|event| event.id.is_some()).count() >= ids;
    stream.raw.len() >= WATCHED_BYTES || ids < usize::MAX && has_all()
}
