//! The rules: each with its name, what it judges, why it matters, and the remedy.

use super::json::{is_json, is_meant_as_json};
use super::probe::{End, Exchange, Seen};
use super::stream::{BOM, Event, lines};
use Needs::*;
use newswire::http::Status;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) needs: Needs,
    pub(super) judge: fn(&Seen) -> Finding,
    pub(super) why: &'static str,
    pub(super) remedy: &'static str,
}

/// Without which there is nothing to judge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Response,
    Stream,
    Events,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Pass,
    Info,
    Warn,
    Fail,
    Unjudged,
}

/// An outcome, and what was seen.
pub(super) type Finding = (Outcome, String);

fn pass(seen: impl Into<String>) -> Finding {
    (Outcome::Pass, seen.into())
}

fn info(seen: impl Into<String>) -> Finding {
    (Outcome::Info, seen.into())
}

fn warn(seen: impl Into<String>) -> Finding {
    (Outcome::Warn, seen.into())
}

fn fail(seen: impl Into<String>) -> Finding {
    (Outcome::Fail, seen.into())
}

/// Passes where nothing was found.
fn none<T: Debug>(what: &str, outcome: Outcome, found: impl IntoIterator<Item = T>) -> Finding {
    let mut found = found.into_iter();
    match found.next() {
        None => pass(format!("no {what}")),
        Some(first) => (outcome, format!("{} {what}, first {}", found.count() + 1, shown(&first))),
    }
}

/// Escaped, so that it cannot control a terminal, and not longer than a line.
fn shown(value: impl Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(70) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// As long a wait as the reader of a page notices.
const LATE: Duration = Duration::from_millis(500);
/// Events of so different times do not arrive at once unless they were held.
const HELD: Duration = Duration::from_secs(1);

impl Rule {
    pub(super) fn find(name: &str) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.name == name)
    }

    pub(super) fn judge(&self, seen: &Seen) -> Finding {
        let missing = match self.needs {
            Response if seen.first.response.is_err() => "there is no response",
            Stream | Events if !seen.first.is_stream() => "there is no event stream",
            Events if seen.first.stream.events().is_empty() => "no event was seen",
            _ => return (self.judge)(seen),
        };
        (Outcome::Unjudged, missing.to_owned())
    }
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "status",
        needs: Nothing,
        judge: |seen| match &seen.first.response {
            Err(sentence) => fail(sentence),
            Ok(response) if response.status == Status::OK => {
                pass(format!("200 from {}", response.url))
            }
            Ok(response) => fail(format!("{} from {}", response.status, response.url)),
        },
        why: "EventSource opens at the status 200 only. 204 stops it for good, and so does any other.",
        remedy: "Answer 200, and flush the head before there is an event. Turn buffering off in proxies.",
    },
    Rule {
        name: "media-type",
        needs: Response,
        judge: |seen| match seen.first.field("content-type") {
            Some(_) if seen.first.media_type() == "text/event-stream" => pass("text/event-stream"),
            other => fail(format!("Content-Type is {}", shown(other.unwrap_or_default()))),
        },
        why: "EventSource fails for good at any other media type.",
        remedy: "Send Content-Type: text/event-stream.",
    },
    Rule {
        name: "charset",
        needs: Response,
        judge: |seen| {
            let parameters =
                seen.first.field("content-type").unwrap_or_default().split(';').skip(1);
            let mut named = parameters.filter_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
            });
            match named.next() {
                Some(other) if !other.eq_ignore_ascii_case("utf-8") => warn(shown(other)),
                Some(_) => pass("utf-8"),
                None => pass("none is named"),
            }
        },
        why: "EventSource decodes every stream as UTF-8. Other clients believe the parameter.",
        remedy: "Encode the stream as UTF-8, and leave the parameter out.",
    },
    Rule {
        name: "encoding",
        needs: Stream,
        judge: |seen| match str::from_utf8(&seen.first.stream.raw) {
            Err(error) if error.error_len().is_some() => {
                fail(format!("byte {} is not UTF-8", error.valid_up_to()))
            }
            _ => pass("UTF-8"),
        },
        why: "EventSource puts U+FFFD for what is not UTF-8. Other clients throw.",
        remedy: "Encode the text as UTF-8, and do not cut it within a character. Send bytes as base64.",
    },
    Rule {
        name: "caching",
        needs: Response,
        judge: |seen| {
            let directives = seen.first.list("cache-control");
            let has =
                |name: &str| directives.iter().any(|found| found.split('=').next() == Some(name));
            let found = format!("Cache-Control is {}", shown(directives.join(", ")));
            match seen.first.field("age") {
                Some(age) => fail(format!("it comes from a cache: Age is {}", shown(age))),
                None if has("no-store") || has("no-cache") => pass(found),
                None if has("public") || has("max-age") || has("s-maxage") => fail(found),
                None => warn(found),
            }
        },
        why: "A cache may keep an old stream, or join a second client to the stream of the first.",
        remedy: "Send Cache-Control: no-store (or no-cache).",
    },
    Rule {
        name: "no-transform",
        needs: Response,
        judge: |seen| match seen.first.list("cache-control").iter().any(|d| d == "no-transform") {
            true => pass("Cache-Control has it"),
            false => warn("Cache-Control does not have it"),
        },
        why: "Without it, middleware and proxies may compress the stream, and hold events to do so.",
        remedy: "Send Cache-Control: no-store, no-transform.",
    },
    Rule {
        name: "compression",
        needs: Stream,
        judge: |seen| {
            let coding = |exchange: &Exchange| exchange.field("content-encoding").map(shown);
            let bursts = [&seen.first, &seen.gzip].map(|exchange| exchange.stream.bursts().len());
            match (coding(&seen.first), coding(&seen.gzip), &seen.gzip.response) {
                (Some(coding), ..) => fail(format!("{coding}, although identity was asked for")),
                (_, Some(coding), _) if bursts[1] * 2 < bursts[0] => fail(format!(
                    "{coding} holds events: {} bursts instead of {}",
                    bursts[1], bursts[0]
                )),
                (_, Some(coding), _) => warn(format!("{coding}, where gzip is accepted")),
                (.., Err(sentence)) => warn(format!("with Accept-Encoding: gzip, {sentence}")),
                _ => pass("none, also where gzip is accepted"),
            }
        },
        why: "A compressor holds events until it has a block full, unless it is flushed after each.",
        remedy: "Exclude text/event-stream: in nginx from gzip_types, in Express by the filter of \
                 compression(). Or flush after each event.",
    },
    Rule {
        name: "cors",
        needs: Response,
        judge: |seen| match allowed_origins(seen)[..] {
            _ if seen.cross_origin.response.is_err() => {
                warn("a request with an Origin has no response")
            }
            [] => warn(format!("pages of {} may not read this", shown(&seen.origin))),
            ["*"] => pass("pages of any origin may read"),
            [origin] if origin == seen.origin => {
                pass(format!("pages of {} may read", shown(origin)))
            }
            [origin] if !origin.contains([',', ' ', '*']) => {
                warn(format!("only pages of {} may read", shown(origin)))
            }
            ref several => fail(format!("Access-Control-Allow-Origin is {}", shown(several))),
        },
        why: "A page of another origin reads the stream only where Access-Control-Allow-Origin is * \
              or its own origin, once.",
        remedy: "Send the field once, from the server or the proxy but not from both. Name the origin of \
                 your page with --header 'Origin: ...' to check for it.",
    },
    Rule {
        name: "credentials",
        needs: Response,
        judge: |seen| {
            let allowed = seen.cross_origin.field("access-control-allow-credentials");
            let echoes = allowed_origins(seen)[..] == [seen.origin.as_str()];
            match allowed {
                None => pass("no page of another origin may send credentials"),
                Some("true") if allowed_origins(seen).contains(&"*") => {
                    fail("allowed for the origin *")
                }
                Some("true") if echoes && !seen.origin_is_known => warn("allowed for any origin"),
                Some("true") => pass("allowed for origins by name"),
                Some(other) => {
                    fail(format!("Access-Control-Allow-Credentials is {}", shown(other)))
                }
            }
        },
        why: "With withCredentials a browser takes * for nothing, and `true` alone for yes. Where any \
              origin is echoed, any page reads what the user may read.",
        remedy: "Allow credentials for a list of origins, and echo only these.",
    },
    Rule {
        name: "vary",
        needs: Response,
        judge: |seen| {
            let names_origin = allowed_origins(seen).iter().any(|&origin| origin != "*");
            let vary = seen.cross_origin.list("vary");
            match vary.iter().any(|name| name == "origin" || name == "*") {
                true => pass("Vary has Origin"),
                false if names_origin => warn("the origin is echoed without Vary: Origin"),
                false => pass("not needed"),
            }
        },
        why: "A cache gives the answer for one origin to a page of another, which may not read it.",
        remedy: "Send Vary: Origin wherever Access-Control-Allow-Origin depends on the request.",
    },
    Rule {
        name: "nosniff",
        needs: Response,
        judge: |seen| match seen.first.list("x-content-type-options").first() {
            Some(value) if value == "nosniff" => pass("nosniff"),
            _ => info("X-Content-Type-Options is not nosniff"),
        },
        why: "With it, no browser takes what the events say for HTML.",
        remedy: "Send X-Content-Type-Options: nosniff.",
    },
    Rule {
        name: "x-accel-buffering",
        needs: Response,
        judge: |seen| match (
            seen.first.list("x-accel-buffering").first(),
            seen.first.field("server"),
        ) {
            (Some(value), _) if value == "no" => pass("no"),
            (None, Some(server)) if server.starts_with("nginx") => {
                pass("nginx takes the field away")
            }
            _ => warn("it is not \"no\""),
        },
        why: "nginx in front of the server holds events until it has a block full.",
        remedy: "Send X-Accel-Buffering: no, which nginx obeys; or set proxy_buffering off.",
    },
    Rule {
        name: "framing",
        needs: Stream,
        judge: |seen| match (
            seen.first.field("transfer-encoding"),
            seen.first.field("content-length"),
        ) {
            (Some(coding), _) => info(format!("Transfer-Encoding is {}", shown(coding))),
            (None, Some(length)) => warn(format!("Content-Length is {}", shown(length))),
            (None, None) => pass("until the connection closes"),
        },
        why: "A length means that all of the stream was there before it was sent. Of chunks, HAProxy \
              holds small ones for 0.2 s.",
        remedy: "Write each event as it happens, without a length. Connection: close does without chunks.",
    },
    Rule {
        name: "connections",
        needs: Stream,
        judge: |_| info("HTTP/1.1: a browser opens six connections to one host, over all its tabs"),
        why: "The seventh tab waits in silence, and so do the pictures and scripts of that host.",
        remedy: "Speak HTTP/2 in the proxy in front, or share one EventSource in a SharedWorker.",
    },
    Rule {
        name: "head",
        needs: Stream,
        judge: |seen| answered(&seen.head),
        why: "Monitors and link checkers ask with HEAD, and wait.",
        remedy: "Answer HEAD with the head of GET, and nothing behind it.",
    },
    Rule {
        name: "http-1.0",
        needs: Stream,
        judge: |seen| match seen.http10.field("transfer-encoding") {
            Some(coding) => {
                fail(format!("it is answered with Transfer-Encoding {}", shown(coding)))
            }
            None => answered(&seen.http10),
        },
        why: "nginx asks in HTTP/1.0 by default. Its clients do not know chunks, and would show them.",
        remedy: "Answer HTTP/1.0 with a stream that ends with the connection. In nginx: \
                 proxy_http_version 1.1.",
    },
    Rule {
        name: "first-byte",
        needs: Stream,
        judge: |seen| {
            // A busy machine delays one of them, but not all.
            let exchanges = [&seen.first, &seen.cross_origin, &seen.http10];
            let head = exchanges.iter().map(|exchange| exchange.head_at).min().unwrap_or_default();
            let events = seen.first.stream.events();
            let event = events.first().map(|event| event.at);
            let at = event.map_or("none".to_owned(), seconds);
            let found = format!("the head after {}, the first event after {at}", seconds(head));
            let is_held =
                head >= LATE && event.is_some_and(|at| at < seen.first.head_at + LATE / 2);
            if is_held { warn(found) } else { pass(found) }
        },
        why: "The page does not know that it is connected, and proxies give up, until the head comes.",
        remedy: "Flush the head at once, with a comment behind it; in Node res.flushHeaders().",
    },
    Rule {
        name: "buffering",
        needs: Stream,
        judge: buffering,
        why: "Something on the way holds events. The page gets them late, many at a time.",
        remedy: "nginx: X-Accel-Buffering: no from the server, or proxy_buffering off. Apache: \
                 flushpackets=on. lighttpd: server.stream-response-body = 1. A framework: flush after \
                 each event, and no compression.",
    },
    Rule {
        name: "heartbeat",
        needs: Stream,
        judge: heartbeat,
        why: "nginx, Apache, Varnish and load balancers cut a connection that is silent for a minute.",
        remedy: "Send a comment, `:` and one line end, every 15 s; or raise proxy_read_timeout.",
    },
    Rule {
        name: "bom",
        needs: Stream,
        judge: |seen| {
            let raw = &seen.first.stream.raw;
            match lines(raw).skip(1).filter(|(line, _)| line.starts_with(BOM)).count() {
                0 if raw.starts_with(BOM) => warn("the stream begins with one"),
                0 => pass("none"),
                lines => fail(format!("{lines} lines within the stream begin with one")),
            }
        },
        why: "EventSource drops one at the start. Anywhere else it makes an unknown field, also there \
              for many other clients.",
        remedy: "Write UTF-8 without a byte order mark (in .NET: new UTF8Encoding(false)).",
    },
    Rule {
        name: "nul",
        needs: Stream,
        judge: |seen| {
            let mut ids = seen.first.stream.fields().filter(|(name, _)| name == "id");
            match seen.first.stream.raw.contains(&0) {
                true if ids.any(|(_, id)| id.contains('\0')) => fail("an id has one"),
                true => warn("the stream has one"),
                false => pass("none"),
            }
        },
        why: "EventSource ignores an id with a NUL. Other clients cut text there.",
        remedy: "Leave NUL out of ids; send bytes as base64.",
    },
    Rule {
        name: "line-ends",
        needs: Stream,
        judge: |seen| {
            let ends = lines(&seen.first.stream.raw).filter(|(_, end)| !end.is_empty());
            let ends: BTreeSet<&[u8]> = ends.map(|(_, end)| end).collect();
            let named = ends.iter().map(|end| match *end {
                b"\r\n" => "CRLF",
                b"\r" => "CR",
                _ => "LF",
            });
            let named = named.collect::<Vec<_>>().join(" and ");
            if ends.len() > 1 || named == "CR" { warn(named) } else { pass(named) }
        },
        why: "The standard allows LF, CR and CRLF. Many clients split at LF only, or at the first kind \
              that they meet.",
        remedy: "End every line with LF, and split data at each of the three before it is sent.",
    },
    Rule {
        name: "fields",
        needs: Stream,
        judge: |seen| {
            let is_known = |name: &str| ["", "data", "event", "id", "retry"].contains(&name);
            let names = seen.first.stream.fields().map(|(name, _)| name);
            let unknown: Vec<String> = names.filter(|name| !is_known(name)).collect();
            let is_meant = |name: &&String| is_known(&name.trim().to_ascii_lowercase());
            match unknown.iter().find(is_meant) {
                Some(name) => fail(format!("{} is not a field's name", shown(name))),
                None => none("lines that begin with no known field", Outcome::Warn, unknown),
            }
        },
        why: "EventSource ignores a line whose field is not data, event, id or retry, in small letters and \
              without spaces around it.",
        remedy: "Begin every line of the data with `data: `, also behind each line end within it.",
    },
    Rule {
        name: "retry",
        needs: Stream,
        judge: |seen| {
            let values = seen.first.stream.fields().filter(|(name, _)| name == "retry");
            let values: Vec<String> = values.map(|(_, value)| value).collect();
            let number =
                |value: &String| value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse());
            match values.iter().find(|value| value.is_empty() || number(value).is_none()) {
                Some(value) => return fail(format!("{} is not a number", shown(value))),
                None => {}
            }
            let odd = |value: &&String| !matches!(number(value), Some(Ok(100..=3_600_000u64)));
            match (values.iter().find(odd), values.last()) {
                (Some(value), _) => warn(format!("{value} ms")),
                (None, Some(value)) => pass(format!("{value} ms")),
                (None, None) => pass("none; browsers wait 3 s or 5 s"),
            }
        },
        why: "EventSource ignores what is not digits alone. It takes them for milliseconds.",
        remedy: "Send whole milliseconds, such as retry: 3000, and not fewer than 100.",
    },
    Rule {
        name: "empty-blocks",
        needs: Stream,
        judge: |seen| {
            let blocks = seen.first.stream.blocks().0.into_iter().filter(|block| !block.has_data());
            let texts = blocks.map(|block| String::from_utf8_lossy(block.text).into_owned());
            none("blocks without data", Outcome::Warn, texts)
        },
        why: "httpx-sse, niquests, the OpenAI and Anthropic SDKs for Python, fetch-event-source, \
              extended-eventsource and fetch-event-stream dispatch an empty message for each.",
        remedy: "Send a comment with one line end behind it, and put retry and id into a block with data.",
    },
    Rule {
        name: "unfinished",
        needs: Stream,
        judge: |seen| {
            let stream = &seen.first.stream;
            let pending = stream.blocks().1;
            let has_data = lines(&stream.raw[pending..]).any(|(line, _)| line.starts_with(b"data"));
            let is_old = stream.arrival(pending + 1) + HELD / 2 < seen.first.ended_at;
            match seen.first.end == End::Closed {
                false if has_data => fail("the stream ends within an event"),
                true if has_data && is_old => fail("no blank line follows the last data"),
                _ => pass("a blank line follows each event"),
            }
        },
        why: "EventSource dispatches an event at the blank line behind it, and drops it at the end.",
        remedy: "End every event with two line ends.",
    },
    Rule {
        name: "json",
        needs: Events,
        judge: |seen| {
            let texts = seen.first.stream.events().into_iter().map(|event| event.data);
            let broken = texts.filter(|text| is_meant_as_json(text) && !is_json(text));
            none("events whose data looks like JSON and is not", Outcome::Warn, broken)
        },
        why: "JSON.parse throws, and in many pages no later event is handled.",
        remedy: "Write JSON with a library, one value an event, with line ends escaped as \\n.",
    },
    Rule {
        name: "event-names",
        needs: Events,
        judge: |seen| {
            let kinds = seen.first.stream.events().into_iter().map(|event| event.kind);
            let own = kinds.filter(|kind| kind == "open" || kind == "error");
            none("events that have a name of EventSource's own", Outcome::Warn, own)
        },
        why: "EventSource fires `open` and `error` for the connection; a page takes one for the other.",
        remedy: "Choose another name.",
    },
    Rule {
        name: "ids",
        needs: Events,
        judge: ids,
        why: "EventSource comes back with the last id. What it cannot name is lost, or comes twice.",
        remedy: "Give each event an id of its own, and keep what was sent.",
    },
    Rule {
        name: "resume",
        needs: Events,
        judge: resume,
        why: "Connections break. A client that comes back with Last-Event-ID lacks what came after it.",
        remedy: "Keep a history; begin behind Last-Event-ID; tell the client by an event where something \
                 is gone. Proxies and CORS must let the field through.",
    },
    Rule {
        name: "ending",
        needs: Stream,
        judge: ending,
        why: "EventSource comes back after every end, for ever, and starts the stream again.",
        remedy: "Answer 204 to a client whose Last-Event-ID is the last one, or let an event tell the page \
                 to close. In proxies, raise the timeouts.",
    },
];

fn allowed_origins(seen: &Seen) -> Vec<&str> {
    let responses = seen.cross_origin.response.iter();
    responses.flat_map(|response| response.values("access-control-allow-origin")).collect()
}

fn answered(exchange: &Exchange) -> Finding {
    match &exchange.response {
        Err(sentence) => warn(sentence),
        Ok(response) if response.status != Status::OK => warn(response.status.to_string()),
        Ok(response) => pass(response.status.to_string()),
    }
}

fn buffering(seen: &Seen) -> Finding {
    let stream = &seen.first.stream;
    let (events, bursts) = (stream.events(), stream.bursts());
    let is_cut = bursts.windows(2).any(|two| {
        let is_within_line = !b"\r\n".contains(&stream.raw[two[0].bytes.end - 1]);
        is_within_line && two[1].time.start - two[0].time.end >= LATE / 2
    });
    let has_blocks = bursts.iter().any(|burst| burst.bytes.len().is_multiple_of(4096));
    let pieces =
        if is_cut && has_blocks { ", in pieces of 4096 bytes as nginx has them" } else { "" };
    let (mut before, mut crowded) = (Duration::ZERO, 0);
    for burst in &bursts {
        let first = events.partition_point(|event| event.at < burst.time.start);
        let behind = events.partition_point(|event| event.at <= burst.time.end);
        let times = events[first..behind].iter().filter_map(|event| timestamp(event.id.as_ref()?));
        let spread = times.clone().max().zip(times.min()).map_or(Duration::ZERO, |(a, b)| a - b);
        // Events that are further apart than the wait for them are a history.
        let is_history = spread > burst.time.end - before + LATE;
        if !is_history && spread >= burst.time.end - burst.time.start + HELD {
            let (count, spread) = (behind - first, seconds(spread));
            return fail(format!("{count} events of {spread} by their ids came at once{pieces}"));
        }
        before = burst.time.start;
        crowded += usize::from(behind - first > 2);
    }
    let (count, ended) = (events.len(), seen.first.end == End::Clean);
    match &bursts[..] {
        [only] if ended && count > 1 && only.time.start >= HELD => {
            let after = seconds(only.time.start);
            fail(format!(
                "all {count} events came at once after {after}, with the end of the stream"
            ))
        }
        _ if is_cut && has_blocks => fail(format!("the stream pauses within a line{pieces}")),
        _ if is_cut => warn("the stream pauses within a line"),
        _ if crowded > 2 && crowded == bursts.len() && events.iter().all(is_undated) => {
            warn(format!("{count} events came in {crowded} bursts; their ids tell no time"))
        }
        _ => pass(format!("{count} events in {} bursts", bursts.len())),
    }
}

/// Of an id that begins with milliseconds since 1970.
fn timestamp(id: &String) -> Option<Duration> {
    let digits = id.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 13 { id[..13].parse().ok().map(Duration::from_millis) } else { None }
}

fn is_undated(event: &Event) -> bool {
    event.id.as_ref().and_then(timestamp).is_none()
}

fn heartbeat(seen: &Seen) -> Finding {
    let (stream, limit) = (&seen.first.stream, seen.proxy_timeout);
    let (mut longest, mut before) = (Duration::ZERO, seen.first.head_at);
    for at in stream.reads.iter().map(|&(at, _)| at).chain([seen.first.ended_at]) {
        longest = longest.max(at.saturating_sub(before));
        before = at;
    }
    let opening = stream.bursts().first().map_or(0, |burst| burst.bytes.end);
    let comments = lines(&stream.raw[opening..]).filter(|(line, _)| line.starts_with(b":")).count();
    let found = format!("{comments} comments, the longest silence was {}", seconds(longest));
    match limit {
        _ if longest >= limit => warn(found),
        _ if comments == 0 && seen.time < limit => {
            info(format!("{found}; to know, watch with --for {}", limit.as_secs() + 10))
        }
        _ => pass(found),
    }
}

fn ids(seen: &Seen) -> Finding {
    let events = seen.first.stream.events();
    let (mut ids, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for event in &events {
        let Some(id) = &event.id else { continue };
        kinds.insert(&event.kind);
        if !ids.insert(id) {
            return fail(format!("{} stands at two events", shown(id)));
        }
    }
    // Events of another type may be about the stream, and no part of it.
    let lacks =
        events.iter().filter(|event| event.id.is_none() && kinds.contains(&event.kind)).count();
    match (ids.len(), lacks) {
        (0, _) => warn(format!("none of {} events has one", events.len())),
        (_, 0) => pass(format!("{} events have one", ids.len())),
        (_, lacks) => warn(format!("{lacks} of {} events have none", events.len())),
    }
}

fn resume(seen: &Seen) -> Finding {
    let Some((id, exchange)) = &seen.resumed else {
        return (Outcome::Unjudged, "no event has an id".to_owned());
    };
    let (before, after) = (seen.first.stream.events(), exchange.stream.events());
    let kinds: BTreeSet<&String> = before.iter().map(|event| &event.kind).collect();
    let with_id = |events: &[Event]| -> Vec<(String, String)> {
        events.iter().filter_map(|event| Some((event.id.clone()?, event.data.clone()))).collect()
    };
    let (seen_before, came) = (with_id(&before), with_id(&after));
    let at = seen_before.iter().position(|(found, _)| found == id).unwrap_or_default();
    let (known, missed) = seen_before.split_at(at + 1);
    let told = after.iter().take_while(|event| event.id.is_none());
    let told = told.map(|event| &event.kind).find(|kind| !kinds.contains(kind));
    let after = format!("after {}", shown(id));
    match (&exchange.response, told, came.first()) {
        (Err(sentence), ..) => fail(format!("{after}, {sentence}")),
        (Ok(response), ..) if response.status == Status::NO_CONTENT && missed.is_empty() => {
            pass("204")
        }
        (Ok(response), ..) if response.status != Status::OK => {
            fail(format!("{after}, {}", response.status))
        }
        (_, Some(kind), _) => pass(format!("{after}, the event {} tells of a loss", shown(kind))),
        (.., None) if missed.is_empty() => pass(format!("nothing came again {after}")),
        (.., None) => fail(format!("{after}, {} events did not come again", missed.len())),
        (.., Some(first)) if known.contains(first) => {
            fail(format!("{after}, the stream begins at {} again", shown(&first.0)))
        }
        _ if missed.iter().zip(&came).all(|(missed, came)| missed == came) => {
            pass(format!("{after}, {} events came again", missed.len().min(came.len())))
        }
        (.., Some(first)) => fail(format!("{after}, the stream goes on at {}", shown(&first.0))),
    }
}

fn ending(seen: &Seen) -> Finding {
    let after = seconds(seen.first.ended_at);
    let Some(again) = &seen.again else {
        return match &seen.first.end {
            End::Broken(sentence) => fail(format!("after {after}, {sentence}")),
            _ => pass(format!("open after {after}")),
        };
    };
    let status = match &again.response {
        Err(sentence) => return fail(format!("after a clean end, {sentence}")),
        Ok(response) => response.status,
    };
    let before: BTreeSet<_> =
        seen.first.stream.events().into_iter().map(|e| (e.id, e.data)).collect();
    let is_new = |event: Event| !before.contains(&(event.id, event.data));
    match status {
        Status::NO_CONTENT => pass("a clean end, and then 204"),
        Status::OK if again.stream.events().into_iter().any(is_new) => {
            pass(format!("a clean end after {after}, and then other events"))
        }
        Status::OK => fail("a clean end, and then another stream without anything new"),
        other => warn(format!("a clean end, and then {other}")),
    }
}
