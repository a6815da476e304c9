//! Publishing on a channel, by request and from standard input, and completing it.

use super::access::Access;
use super::subscribe::{NO_SUCH_CHANNEL, check_parameters, is_on, name, refusal_of};
use crate::channel::{Channel, Channels, NoChannel, NotPublished, PublishError, Published};
use crate::http::{Head, Limits, Refusal, Request, Response, Status};
use crate::sse::{Event, Parser, json_string};
use std::io::{self, BufRead, Read};
use std::slice::from_ref;
use std::time::Duration;

/// `POST` or `PUT /channels/{name}`: the content is the data of one event, or with `?lines` each line of it is one, or it is an
/// event stream. One event may be for several channels, with commas between their names.
///
/// What stands in the head is checked before any content is read, and everything before a channel begins to exist.
pub(super) fn publish(request: &mut Request<'_>, channels: &Channels, access: &Access) -> Result<Response, Refusal> {
    let grant = access.publish(request)?;
    let names = names(request)?;
    if request.query("id").is_some() {
        return Err(refusal_to_publish(PublishError::OwnId));
    }
    check_parameters(request, &["event", "retry", "lines", "key"])?;
    check_once(request)?;
    let template = with_retry(request, event_of_type(request.query("event").unwrap_or_default())?)?;
    let is_stream = is_event_stream(request);
    match (is_on(request, "lines")?, idempotency_key(request)?) {
        (is_by_lines, Some(_)) if is_by_lines || is_stream => Err(KEY_WITH_LINES),
        (is_by_lines, _) if (is_by_lines || is_stream) && names.len() > 1 => Err(LINES_TO_SEVERAL),
        (true, _) if is_stream => Err(LINES_OF_EVENTS),
        _ if is_stream && template != Event::default() => Err(TYPE_OF_EVENTS),
        (is_by_lines, _) if is_by_lines || is_stream => {
            let _granted = access.watch_upload(grant, request.connection().closer());
            let upload = Upload { channels, channel: None, count: 0, last_id: String::new() };
            upload.publish_all(request, is_by_lines.then_some(template))
        }
        (_, key) => publish_whole(request, channels, &names, template, key.as_deref()),
    }
}

/// Of a parameter that is given twice, one would be ignored without a word.
fn check_once(head: &Head) -> Result<(), Refusal> {
    let mut names: Vec<String> = head.queries().map(|(name, _)| name).collect();
    names.sort_unstable();
    let is_once = names.windows(2).all(|pair| pair[0] != pair[1]);
    if is_once { Ok(()) } else { Err(Refusal::bad("A parameter is given twice. Leave one out.")) }
}

/// The channels in the path, each once.
fn names(request: &Request<'_>) -> Result<Vec<String>, Refusal> {
    let mut names: Vec<String> = name(request).split(',').map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    let are_names = names.iter().all(|name| Channels::is_name(name));
    if are_names { Ok(names) } else { Err(refusal_of(NoChannel::Name)) }
}

fn publish_whole(
    request: &mut Request<'_>,
    channels: &Channels,
    names: &[String],
    template: Event,
    key: Option<&str>,
) -> Result<Response, Refusal> {
    let event = template.data(text(request.content()?)?);
    let opened = names.iter().map(|name| channels.handle(name)).collect::<Result<Vec<_>, _>>();
    let published = channels.publish(&opened.map_err(refusal_of)?, &event, key);
    let published = published.map_err(|why| refusal_for(why, names, key.is_some()))?;
    let mut answers = Vec::new();
    for (name, Published { id, subscribers }) in names.iter().zip(published) {
        let name = match names {
            [_] => String::new(),
            _ => format!("\"channel\":{},", json_string(name)),
        };
        answers.push(match prefers_text(request) {
            true => id,
            false => format!("{{{name}\"id\":\"{id}\",\"subscribers\":{subscribers}}}"),
        });
    }
    Ok(match names {
        _ if prefers_text(request) => Response::text(Status::OK, answers.join("\n") + "\n"),
        [_] => Response::json(answers.concat() + "\n"),
        _ => Response::json(format!("[{}]\n", answers.join(",\n "))),
    })
}

/// The content has many events for one channel. Each is published as it arrives.
struct Upload<'c> {
    channels: &'c Channels,
    /// From the first event on.
    channel: Option<Channel>,
    count: u64,
    last_id: String,
}

impl Upload<'_> {
    /// With a template, each line is the data of an event. Otherwise the content is an event stream: the channel gives the
    /// ids, and comments and reconnection times are between the publisher and this server.
    fn publish_all(mut self, request: &mut Request<'_>, template: Option<Event>) -> Result<Response, Refusal> {
        let name = name(request).to_owned();
        if let Some(template) = template {
            request.lines(|line| self.publish(&name, template.clone().data(text(line.to_vec())?)))?;
        } else {
            let mut parser = Parser::with_limit(request.limits().content_bytes);
            let mut publish = |piece: &[u8]| {
                for message in parser.feed(piece).map_err(|_| EVENT_TOO_LARGE)? {
                    let is_default = message.event_type == "message";
                    let event_type = if is_default { String::new() } else { message.event_type };
                    self.publish(&name, event_of_type(event_type)?.data(message.data))?;
                }
                Ok(())
            };
            // An event that outgrows the limit is refused at the next call, behind the events before it.
            request.pieces(|piece| publish(piece).and_then(|()| publish(b"")))?;
        }
        if prefers_text(request) {
            return Ok(Response::text(Status::OK, self.last_id + "\n"));
        }
        let id = if self.count == 0 { "null".to_owned() } else { json_string(&self.last_id) };
        let channel = self.channel.or_else(|| self.channels.find(&name));
        let (count, subscribers) = (self.count, channel.map_or(0, |it| it.subscribers()));
        let json = format!("{{\"count\":{count},\"id\":{id},\"subscribers\":{subscribers}}}\n");
        Ok(Response::json(json))
    }

    fn publish(&mut self, name: &str, event: Event) -> Result<(), Refusal> {
        self.count += 1;
        if let Some(channel) = &self.channel {
            self.last_id = channel.publish(event).map_err(refusal_to_publish)?.id;
            return Ok(());
        }
        // The first event takes the place for the rest.
        let channel = self.channels.handle(name).map_err(refusal_of)?;
        let published = self.channels.publish(from_ref(&channel), &event, None);
        let published = published.map_err(|why| refusal_for(why, &[], false))?;
        self.last_id = published.into_iter().map(|it| it.id).collect();
        self.channel = Some(channel);
        Ok(())
    }
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
    if event.is_reserved() { Err(refusal_to_publish(PublishError::ReservedName)) } else { Ok(event) }
}

const MALFORMED_TYPE: Refusal = Refusal::bad("The event type has a line end or a NUL in it. Leave that out.");

/// The longest reconnection time, a day: with a longer one a typing error would keep the clients away for good.
const LONGEST_RETRY: Duration = Duration::from_secs(86_400);

/// With the reconnection time of `?retry=`.
fn with_retry(head: &Head, event: Event) -> Result<Event, Refusal> {
    let Some(digits) = head.query("retry") else { return Ok(event) };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let time = digits.parse().ok().filter(|_| is_number).map(Duration::from_millis);
    let time = time.filter(|time| *time <= LONGEST_RETRY).ok_or(MALFORMED_RETRY)?;
    Ok(event.reconnection_time(time))
}

const MALFORMED_RETRY: Refusal = Refusal::bad("retry is a number of milliseconds, from 0 to 86400000, which is a day.");

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
const KEY_WITH_LINES: Refusal =
    Refusal::bad("Idempotency-Key is for one event, not for lines or an event stream. Leave one of the two out.");
const LINES_TO_SEVERAL: Refusal =
    Refusal::bad("Lines and event streams are for one channel. Publish them on each channel by itself.");
const LINES_OF_EVENTS: Refusal =
    Refusal::bad("The content is lines or an event stream, not both. Leave one of the two out.");
const TYPE_OF_EVENTS: Refusal =
    Refusal::bad("The events of an event stream have types of their own. Leave ?event and ?retry out.");
const EVENT_TOO_LARGE: Refusal =
    Refusal::new(Status::CONTENT_TOO_LARGE, "An event of the content is larger than this server takes.");

/// Says the truth about each of the channels when not all of them have the event.
fn refusal_for(why: NotPublished, names: &[String], has_key: bool) -> Refusal {
    let (published, error) = match why {
        NotPublished::NoRoom => return refusal_of(NoChannel::Full),
        NotPublished::Failed { published, error } => (published, error),
    };
    let is_unknown = error == PublishError::Unknown;
    if names.len() < 2 || (published == 0 && !is_unknown) {
        return refusal_to_publish(error);
    }
    let (have, others) = names.split_at(published);
    let (may_have, lack) = others.split_at(is_unknown.into());
    let list = |said: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!(" {said}: {}.", names.join(", ")),
    };
    let advice = match has_key {
        true => "Publish it again with the same key: only the others get it then.",
        false => "Publish it again on the others.",
    };
    let sentence = format!(
        "The log of a channel failed.{}{}{} {advice}",
        list("These channels have the event", have),
        list("This one may have it", may_have),
        list("These do not have it", lack),
    );
    Refusal::with_sentence(refusal_to_publish(error).status, sentence)
}

fn refusal_to_publish(error: PublishError) -> Refusal {
    let status = match error {
        PublishError::TooLarge => Status::CONTENT_TOO_LARGE,
        // "The server SHOULD reply with an HTTP 422 status code" (the draft of the field, 2.7).
        PublishError::KeyReused => Status::UNPROCESSABLE_CONTENT,
        PublishError::Stopped | PublishError::Unavailable | PublishError::Unknown => Status::SERVICE_UNAVAILABLE,
        _ => Status::BAD_REQUEST,
    };
    Refusal::new(status, error.sentence())
}

/// `DELETE /channels/{name}`: subscribers get what they lack, then an event named `end`.
pub(super) fn complete(request: &Request<'_>, channels: &Channels, access: &Access) -> Result<Response, Refusal> {
    access.publish(request)?;
    check_parameters(request, &["key"])?;
    if !Channels::is_name(name(request)) {
        return Err(refusal_of(NoChannel::Name));
    }
    let channel = channels.find(name(request)).ok_or(NO_SUCH_CHANNEL)?;
    channel.complete().map_err(refusal_to_publish)?;
    Ok(Response::empty(Status::NO_CONTENT))
}

/// Publishes each line of `input` on a channel, and completes the channel at the end. A line longer than
/// [`Limits::content_bytes`] becomes several events. A byte that is not UTF-8 becomes U+FFFD, because no client waits
/// for an answer that could say so.
///
/// # Errors
/// When the input cannot be read.
pub fn publish_lines(mut input: impl BufRead, channel: &Channel, limits: &Limits) -> io::Result<()> {
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
    if text.ends_with(b"\r") { 1 } else { text.utf8_chunks().last().map_or(0, |last| last.invalid().len()) }
}
