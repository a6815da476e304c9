//! Publishing on a channel, by request and from standard input, and completing it.

use super::subscribe::{check_parameters, name, refusal_of};
use crate::channel::{Channel, Channels, NoChannel, PublishError, Published};
use crate::http::{Head, Limits, Refusal, Request, Response, Status};
use crate::sse::{Event, Parser, json_string};
use std::io::{self, BufRead, Read};

/// `POST` or `PUT /channels/{name}`: the content is the data of one event, or with `?lines` each line of it is one, or it is an
/// event stream.
///
/// What stands in the head is checked before any content is read, and before a channel begins to exist.
pub(super) fn publish(request: &mut Request<'_>, channels: &Channels) -> Result<Response, Refusal> {
    check_name(request)?;
    check_parameters(request, &["event", "lines"])?;
    let template = event_of_type(request.query("event").unwrap_or_default())?;
    let is_stream = is_event_stream(request);
    match (is_by_lines(request)?, idempotency_key(request)?) {
        (is_by_lines, Some(_)) if is_by_lines || is_stream => Err(KEY_WITH_LINES),
        (true, _) if is_stream => Err(LINES_OF_EVENTS),
        (true, _) => publish_by_lines(request, channels, template),
        _ if is_stream && template != Event::default() => Err(TYPE_OF_EVENTS),
        _ if is_stream => publish_event_stream(request, channels),
        (false, key) => publish_whole(request, channels, template, key),
    }
}

fn publish_whole(
    request: &mut Request<'_>,
    channels: &Channels,
    template: Event,
    key: Option<String>,
) -> Result<Response, Refusal> {
    let event = template.data(text(request.content()?)?);
    let published = publish_event(&open(request, channels)?, event, key.as_deref())?;
    Ok(if prefers_text(request) {
        Response::text(Status::OK, published.id + "\n")
    } else {
        let Published { id, subscribers } = published;
        Response::json(format!("{{\"id\":\"{id}\",\"subscribers\":{subscribers}}}\n"))
    })
}

/// Publishes each line as it arrives.
fn publish_by_lines(
    request: &mut Request<'_>,
    channels: &Channels,
    template: Event,
) -> Result<Response, Refusal> {
    let channel = open(request, channels)?;
    let (mut count, mut last_id) = (0u64, String::new());
    request.lines(|line| {
        let event = template.clone().data(text(line.to_vec())?);
        last_id = publish_event(&channel, event, None)?.id;
        count += 1;
        Ok(())
    })?;
    Ok(answer_of_many(request, &channel, count, last_id))
}

/// Publishes each event of an event stream as it arrives: its type and its data. The channel gives the ids; comments and
/// reconnection times are between the publisher and this server.
fn publish_event_stream(
    request: &mut Request<'_>,
    channels: &Channels,
) -> Result<Response, Refusal> {
    let channel = open(request, channels)?;
    let (mut count, mut last_id) = (0u64, String::new());
    let mut parser = Parser::with_limit(request.limits().content_bytes);
    let mut publish = |piece: &[u8]| {
        for message in parser.feed(piece).map_err(|_| EVENT_TOO_LARGE)? {
            let is_default = message.event_type == "message";
            let event = event_of_type(if is_default { String::new() } else { message.event_type })?;
            last_id = publish_event(&channel, event.data(message.data), None)?.id;
            count += 1;
        }
        Ok(())
    };
    // An event that outgrows the limit is refused at the next call, behind the events before it.
    request.pieces(|piece| publish(piece).and_then(|()| publish(b"")))?;
    Ok(answer_of_many(request, &channel, count, last_id))
}

fn answer_of_many(head: &Head, channel: &Channel, count: u64, last_id: String) -> Response {
    if prefers_text(head) {
        return Response::text(Status::OK, last_id + "\n");
    }
    let id = if count == 0 { "null".to_owned() } else { json_string(&last_id) };
    let subscribers = channel.subscribers();
    Response::json(format!("{{\"count\":{count},\"id\":{id},\"subscribers\":{subscribers}}}\n"))
}

fn is_event_stream(head: &Head) -> bool {
    let essence = head.field("content-type").and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/event-stream"))
}

fn prefers_text(head: &Head) -> bool {
    head.prefers(&["application/json", "text/plain"]) == Some("text/plain")
}

fn text(content: Vec<u8>) -> Result<String, Refusal> {
    String::from_utf8(content).map_err(|_| NOT_TEXT)
}

const NOT_TEXT: Refusal = Refusal::new(
    Status::UNSUPPORTED_MEDIA_TYPE,
    "The content is not UTF-8, and an event stream carries text only. Send binary data as base64: base64 FILE | curl -T - URL",
);

/// An event of this type, or without one, and without data yet.
fn event_of_type(name: String) -> Result<Event, Refusal> {
    let event = Event::default();
    if name.is_empty() {
        return Ok(event);
    }
    let event = event.name(name).map_err(|_| MALFORMED_TYPE)?;
    if event.is_reserved() {
        Err(refusal_to_publish(PublishError::ReservedName))
    } else {
        Ok(event)
    }
}

const MALFORMED_TYPE: Refusal =
    Refusal::bad("The event type has a line end or a NUL in it. Leave that out.");

/// `?lines`, `?lines=1` and `?lines=on` turn it on, `?lines=0` and `?lines=off` off.
fn is_by_lines(head: &Head) -> Result<bool, Refusal> {
    match head.query("lines").as_deref() {
        None | Some("0" | "off") => Ok(false),
        Some("" | "1" | "on") => Ok(true),
        Some(_) => Err(Refusal::bad("lines is on or off.")),
    }
}

/// The longest key. UUIDs have 36 bytes.
const KEY_BYTES: usize = 255;

/// ```text
/// Idempotency-Key = sf-string        (draft-ietf-httpapi-idempotency-key-header, 2.1)
/// ```
/// Many clients leave the quotation marks out. The key is the same with and without them.
fn idempotency_key(head: &Head) -> Result<Option<String>, Refusal> {
    let mut values = head.values("idempotency-key");
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let is_key = (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(is_plain);
    if is_key && values.next().is_none() { Ok(Some(key.to_owned())) } else { Err(MALFORMED_KEY) }
}

const MALFORMED_KEY: Refusal = Refusal::bad(
    "Idempotency-Key is one field with 1 to 255 visible ASCII characters, none of them a quotation mark or a backslash. \
     The key may stand in quotation marks.",
);
const KEY_WITH_LINES: Refusal = Refusal::bad(
    "Idempotency-Key is for one event, not for lines or an event stream. Leave one of the two out.",
);
const LINES_OF_EVENTS: Refusal =
    Refusal::bad("The content is lines or an event stream, not both. Leave one of the two out.");
const TYPE_OF_EVENTS: Refusal =
    Refusal::bad("The events of an event stream have types of their own. Leave ?event out.");
const EVENT_TOO_LARGE: Refusal = Refusal::new(
    Status::CONTENT_TOO_LARGE,
    "An event of the content is larger than this server takes.",
);

/// Publishes one event; with a key, once for each key in the history.
fn publish_event(channel: &Channel, event: Event, key: Option<&str>) -> Result<Published, Refusal> {
    match key {
        Some(key) => channel.publish_once(key, event),
        None => channel.publish(event),
    }
    .map_err(refusal_to_publish)
}

fn refusal_to_publish(error: PublishError) -> Refusal {
    let status = match error {
        PublishError::TooLarge => Status::CONTENT_TOO_LARGE,
        // "The server SHOULD reply with an HTTP 422 status code" (the draft of the field, 2.7).
        PublishError::KeyReused => Status::UNPROCESSABLE_CONTENT,
        PublishError::Stopped | PublishError::Unavailable | PublishError::Unknown => {
            Status::SERVICE_UNAVAILABLE
        }
        _ => Status::BAD_REQUEST,
    };
    Refusal::new(status, error.sentence())
}

/// `DELETE /channels/{name}`: subscribers get what they lack, then an event named `end`.
pub(super) fn complete(request: &Request<'_>, channels: &Channels) -> Result<Response, Refusal> {
    check_name(request)?;
    check_parameters(request, &[])?;
    let channel = channels.find(name(request));
    let channel = channel.ok_or(Refusal::new(Status::NOT_FOUND, "There is no such channel."))?;
    channel.complete().map_err(refusal_to_publish)?;
    Ok(Response::empty(Status::NO_CONTENT))
}

fn check_name(request: &Request<'_>) -> Result<(), Refusal> {
    let is_name = Channels::is_name(name(request));
    if is_name { Ok(()) } else { Err(refusal_of(NoChannel::Name)) }
}

fn open(request: &Request<'_>, channels: &Channels) -> Result<Channel, Refusal> {
    channels.open(name(request)).map_err(refusal_of)
}

/// Publishes each line of `input` on a channel, and completes the channel at the end. A line longer than
/// [`Limits::content_bytes`] becomes several events. A byte that is not UTF-8 becomes U+FFFD, because no client waits
/// for an answer that could say so.
///
/// # Errors
/// When the input cannot be read.
pub fn publish_lines(
    mut input: impl BufRead,
    channel: &Channel,
    limits: &Limits,
) -> io::Result<()> {
    let (mut line, mut is_continued) = (Vec::new(), false);
    loop {
        let room = limits.content_bytes.max(4).saturating_sub(line.len());
        let read = (&mut input).take(room as u64).read_until(b'\n', &mut line)?;
        let is_whole = line.ends_with(b"\n") || read < room;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").filter(|_| is_whole).unwrap_or(text);
        // A piece ends before a character or a line end that is not whole yet.
        let end = if is_whole { text.len() } else { text.len() - unfinished(text) };
        if end > 0 || (is_whole && !is_continued && !line.is_empty()) {
            publish_text(channel, &String::from_utf8_lossy(&text[..end]));
        }
        if read == 0 {
            return channel.complete().map_err(io::Error::other);
        }
        is_continued = !is_whole;
        line = if is_whole { Vec::new() } else { line.split_off(end) };
    }
}

/// Publishes a text as one event, or as several when the channel may keep less than one of that size.
fn publish_text(channel: &Channel, text: &str) {
    if channel.publish(Event::new(text)).is_ok() || text.len() <= 1 {
        return;
    }
    let is_boundary = |at: &usize| text.is_char_boundary(*at);
    let half = (0..=text.len() / 2).rev().find(is_boundary).unwrap_or(0);
    let (first, second) = text.split_at(half);
    if !first.is_empty() {
        publish_text(channel, first);
        publish_text(channel, second);
    }
}

/// How many bytes at the end of `text` may begin a UTF-8 character or a CRLF that needs more bytes; at most 3.
fn unfinished(text: &[u8]) -> usize {
    if text.ends_with(b"\r") {
        1
    } else {
        text.utf8_chunks().last().map_or(0, |last| last.invalid().len())
    }
}
