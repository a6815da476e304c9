//! The response that begins an event stream, and what a client says when it asks for one.

use crate::http::back_off::random_fraction;
use crate::http::{Request, Response, Status, StreamWriter};
use std::io;
use std::time::Duration;

const CONTENT_TYPE: &str = "text/event-stream";

/// How long clients wait before they reconnect, at least.
const RECONNECTION_TIME: Duration = Duration::from_secs(2);

/// When a server stops, its clients come back over so long a time. A server answers some thousands a second.
const RECONNECTION_SPREAD: Duration = Duration::from_secs(5);

/// How long a client waits, at least, when there was no room for its stream.
const REFUSED_RECONNECTION_TIME: Duration = Duration::from_secs(5);

/// The query parameters that stand in for `Last-Event-ID`. A browser cannot set the field on a first request, and
/// polyfills that cannot set it at all ask with the second or the third.
pub(crate) const LAST_EVENT_ID_PARAMETERS: [&str; 3] = ["last_event_id", "lastEventId", "Last-Event-ID"];

/// The id of the last event that the client has: the `Last-Event-ID` field, which EventSource sends when it
/// reconnects, or else the query parameter `last_event_id`, `lastEventId` or `Last-Event-ID`. An empty id is none.
///
/// The client chooses it freely. It may be the id of no event.
pub fn last_event_id(request: &Request<'_>) -> Option<String> {
    let field = request.field("last-event-id").map(str::to_owned);
    let parameters = LAST_EVENT_ID_PARAMETERS.iter().map(|name| request.query(name));
    field.into_iter().chain(parameters.flatten()).find(|id| !id.is_empty())
}

/// The response that begins an event stream. When there are too many streams the client is told to come back: any status
/// but `200` would end a browser's EventSource for good.
pub(crate) fn event_stream(
    opening: Vec<u8>,
    run: impl FnOnce(StreamWriter) -> io::Result<()> + Send + 'static,
) -> Response {
    with_stream_fields(Response::streamed(CONTENT_TYPE, opening, run)).with_stream(|stream| {
        stream.when_full = Some(come_back_later(NO_ROOM));
        stream.farewell = Some(farewell);
    })
}

/// A stream that only tells the client to come back later.
pub(crate) fn refused() -> Response {
    refused_because(NO_ROOM)
}

/// The same, for this reason.
pub(crate) fn refused_because(reason: &str) -> Response {
    with_stream_fields(Response::bytes(Status::OK, CONTENT_TYPE, come_back_later(reason)))
}

/// The first lines of a stream: a comment and a reconnection time. No blank line ends them, since several clients
/// dispatch an empty message for a block without data.
pub(crate) fn opening() -> Vec<u8> {
    opening_with(jittered(RECONNECTION_TIME))
}

/// As [`opening`], with this reconnection time.
pub(crate) fn opening_with(reconnection_time: Duration) -> Vec<u8> {
    format!(": newswire\n{}", retry_line(reconnection_time)).into_bytes()
}

/// What a stream gets last when the server stops.
pub(crate) fn farewell() -> Vec<u8> {
    retry_line(RECONNECTION_TIME + RECONNECTION_SPREAD.mul_f64(random_fraction())).into_bytes()
}

const NO_ROOM: &str = "there is no room for another stream now";

fn come_back_later(reason: &str) -> Vec<u8> {
    let retry = retry_line(jittered(REFUSED_RECONNECTION_TIME));
    format!(": {reason}; come back later\n{retry}").into_bytes()
}

fn retry_line(reconnection_time: Duration) -> String {
    format!("retry: {}\n", reconnection_time.as_millis())
}

/// No cache may keep a stream or join clients in it, and no proxy may transform or buffer it.
fn with_stream_fields(response: Response) -> Response {
    response
        .literal("Cache-Control", "no-store, no-transform")
        .literal("X-Accel-Buffering", "no")
        .literal("X-Content-Type-Options", "nosniff")
}

/// Between `time` and half as much again, so that not all clients come back in the same instant after a restart.
pub(super) fn jittered(time: Duration) -> Duration {
    time + time.mul_f64(0.5 * random_fraction())
}
