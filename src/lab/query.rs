//! The laboratory: a query to a [`Script`]. Each parameter says its range in the sentence that
//! refuses what lies outside.

use super::line::Lines;
use super::script::{Newline, Script};
use crate::channel::Channels;
use crate::http::{Head, Refusal, Request, Response, Status};
use crate::sse::last_event_id;
use std::time::Duration;

/// No stream of the laboratory is longer than these two.
const TOTAL_BYTES: usize = 64 * 1024 * 1024;
const TOTAL_DURATION: Duration = Duration::from_secs(3600);

/// What `GET /lab` answers; the README has the table of parameters.
pub(crate) fn respond(request: &Request<'_>, lines: &Lines) -> Result<Response, Refusal> {
    // A person who follows a link wants to see something. `EventSource` and curl accept text/html
    // in no case.
    if request.queries().next().is_none()
        && request.prefers(&["text/event-stream", "text/html"]) == Some("text/html")
    {
        return Ok(Response::empty(Status::FOUND).field("Location", "/#lab"));
    }
    let order = Order::parse(request)?;
    if let Some(status) = order.redirect {
        return Ok(Response::empty(status)
            .field("Location", format!("/lab?{}", query_without(request, "redirect")))
            .field("Cache-Control", "no-store"));
    }
    if let Some(status) = order.status {
        return Ok(Response::text(status, "This status was made to order.\n")
            .field("Cache-Control", "no-store"));
    }
    let line = match &order.line {
        Some(name) => Some(lines.open(name).ok_or(TOO_MANY_LINES)?),
        None => None,
    };
    let response = order.script.respond(last_event_id(request).as_deref(), line);
    Ok(match order.content_type {
        Some(content_type) => response.with_content_type(content_type),
        None => response,
    })
}

/// What is written on a line, to who asks before it is written: an event for each write, named
/// `head` or `bytes`, its data base64.
pub(crate) fn watch(request: &Request<'_>, lines: &Lines) -> Result<Response, Refusal> {
    let name = Some(request.parameter("line").unwrap_or_default())
        .filter(|name| Channels::is_name(name))
        .ok_or(LINE)?;
    Ok(lines.open(name).ok_or(TOO_MANY_LINES)?.wire().subscribe(request))
}

/// Breaks the connections of a line. Their clients come back, if they are EventSources.
pub(crate) fn cut(request: &Request<'_>, lines: &Lines) -> Result<Response, Refusal> {
    let line = lines.find(request.parameter("line").unwrap_or_default());
    line.ok_or(Refusal::new(Status::NOT_FOUND, "There is no such line."))?.cut();
    Ok(Response::empty(Status::NO_CONTENT))
}

const TOO_MANY_LINES: Refusal =
    Refusal::new(Status::SERVICE_UNAVAILABLE, "There are too many lines; leave out line.");
const LINE: Refusal = Refusal::bad(
    "line is a name of 1 to 64 letters, digits, dots, underscores and hyphens that does not begin with a dot.",
);

/// A script, and what comes in its place.
struct Order {
    script: Script,
    status: Option<Status>,
    content_type: Option<String>,
    redirect: Option<Status>,
    line: Option<String>,
}

impl Order {
    fn parse(head: &Head) -> Result<Order, Refusal> {
        let text = head.query("text").unwrap_or_else(|| crate::app::TEXT.to_owned());
        let mut order = Order {
            script: Script::of(&text),
            status: None,
            content_type: None,
            redirect: None,
            line: None,
        };
        let script = &mut order.script;
        if script.words.is_empty() {
            return Err(Refusal::bad("text is at least one word."));
        }
        let (mut stall, mut silence) = (None, Duration::from_secs(30));
        for (name, value) in head.queries() {
            let value = value.as_str();
            match name.as_str() {
                "text" | "last_event_id" => {}
                "count" => {
                    script.count =
                        number(value, 1..=100_000, "count is a number of events from 1 to 100000.")?
                }
                "event" if value.contains(['\r', '\n', '\0']) => {
                    return Err(Refusal::bad(
                        "event is an event type without a line end or a NUL.",
                    ));
                }
                "event" => script.event = Some(value.to_owned()),
                "id" => script.ids = switch(value, "id is on or off.")?,
                "size" => {
                    script.size = Some(number(
                        value,
                        0..=4 << 20,
                        "size is a number of bytes of data from 0 to 4194304.",
                    )?);
                }
                "lines" => {
                    script.lines =
                        number(value, 1..=1000, "lines is a number of lines from 1 to 1000.")?
                }
                "retry" => {
                    script.retry = milliseconds(
                        value,
                        0..=600_000,
                        "retry is milliseconds from 0 to 600000.",
                    )?;
                }
                "binary" => {
                    script.binary = Some(number(
                        value,
                        0..=3 << 20,
                        "binary is a number of bytes from 0 to 3145728.",
                    )?);
                }
                "interval" => {
                    script.interval = milliseconds(
                        value,
                        0..=60_000,
                        "interval is milliseconds from 0 to 60000.",
                    )?;
                }
                "heartbeat" => {
                    script.heartbeat = Some(milliseconds(
                        value,
                        10..=60_000,
                        "heartbeat is milliseconds from 10 to 60000.",
                    )?);
                }
                "chunk" => {
                    script.chunk = Some(number(
                        value,
                        1..=65_536,
                        "chunk is a number of bytes from 1 to 65536.",
                    )?);
                }
                "newline" => {
                    script.newline = match value {
                        "lf" => Newline::Lf,
                        "cr" => Newline::Cr,
                        "crlf" => Newline::Crlf,
                        _ => return Err(Refusal::bad("newline is lf, cr or crlf.")),
                    };
                }
                "bom" => script.bom = switch(value, "bom is on or off.")?,
                "cut" => {
                    script.cut = Some(number(
                        value,
                        1..=99_999,
                        "cut is a number of events from 1 to 99999.",
                    )?)
                }
                "stall" => {
                    stall = Some(number(
                        value,
                        1..=100_000,
                        "stall is a number of events from 1 to 100000.",
                    )?)
                }
                "silence" => {
                    silence = milliseconds(
                        value,
                        1..=600_000,
                        "silence is milliseconds from 1 to 600000.",
                    )?;
                }
                "garbage" => script.garbage = switch(value, "garbage is on or off.")?,
                "complete" => {
                    script.repeats = match value {
                        "204" => false,
                        "loop" => true,
                        _ => return Err(Refusal::bad("complete is 204 or loop.")),
                    };
                }
                "status" => {
                    let code =
                        number(value, 200..=599, "status is a status code from 200 to 599.")?;
                    order.status = Some(Status(code as u16)).filter(|&status| status != Status::OK);
                }
                "type" => {
                    let is_media_type = value.contains('/')
                        && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
                    order.content_type = Some(value.to_owned()).filter(|_| is_media_type);
                    if !is_media_type {
                        return Err(Refusal::bad("type is a media type, such as text/plain."));
                    }
                }
                "redirect" => {
                    order.redirect = match value {
                        "301" | "302" | "303" | "307" | "308" => value.parse().ok().map(Status),
                        _ => return Err(Refusal::bad("redirect is 301, 302, 303, 307 or 308.")),
                    };
                }
                "line" if Channels::is_name(value) => order.line = Some(value.to_owned()),
                "line" => return Err(LINE),
                _ => return Err(UNKNOWN),
            }
        }
        script.stall = stall.map(|after| (after, silence));
        order.check()?;
        Ok(order)
    }

    /// Combinations that cannot be, and bounds on the whole.
    fn check(&self) -> Result<(), Refusal> {
        let script = &self.script;
        let refused = [
            (
                script.binary.is_some() && script.size.is_some(),
                "binary and size both say how large the data is; take one.",
            ),
            (script.binary.is_some() && script.lines > 1, "binary is one line; leave out lines."),
            (
                script.size.is_some_and(|size| size < script.lines - 1),
                "size is too small for so many lines.",
            ),
            (
                script.cut.is_some_and(|cut| cut >= script.count),
                "cut is less than count, or nothing would be left to cut.",
            ),
            (
                script.cut.is_some() && !script.ids,
                "cut needs id=on, or the stream could not go on where it stopped.",
            ),
            (
                script.stall.is_some_and(|(after, _)| after > script.count),
                "stall is at most count.",
            ),
            (
                script.stall.is_some_and(|(after, _)| script.cut.is_some_and(|cut| cut <= after)),
                "stall is less than cut, or the connection would be gone by then.",
            ),
            (
                script.total_bytes() > TOTAL_BYTES,
                "count times the size of an event is at most 67108864 bytes.",
            ),
            (
                script.total_duration() > TOTAL_DURATION,
                "count times interval, with the silence and a millisecond for each chunk, is at most an hour.",
            ),
        ];
        match refused.iter().find(|(is_refused, _)| *is_refused) {
            Some((_, sentence)) => Err(Refusal::bad(sentence)),
            None => Ok(()),
        }
    }
}

const UNKNOWN: Refusal = Refusal::bad(
    "A parameter is unknown. There are text, count, event, id, size, lines, retry, binary, interval, heartbeat, chunk, newline, \
     bom, cut, stall, silence, garbage, complete, status, type, redirect, line and last_event_id.",
);

fn number(
    value: &str,
    range: std::ops::RangeInclusive<usize>,
    sentence: &'static str,
) -> Result<usize, Refusal> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| is_number && range.contains(number));
    number.ok_or(Refusal::bad(sentence))
}

fn milliseconds(
    value: &str,
    range: std::ops::RangeInclusive<usize>,
    sentence: &'static str,
) -> Result<Duration, Refusal> {
    number(value, range, sentence).map(|number| Duration::from_millis(number as u64))
}

fn switch(value: &str, sentence: &'static str) -> Result<bool, Refusal> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Refusal::bad(sentence)),
    }
}

/// The query again, but for one parameter: encoded anew, so that nothing in it can end the field it
/// goes to.
fn query_without(head: &Head, left_out: &str) -> String {
    let kept = head.queries().filter(|(name, _)| name != left_out);
    let pairs: Vec<_> =
        kept.map(|(name, value)| format!("{}={}", encode(&name), encode(&value))).collect();
    pairs.join("&")
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}
