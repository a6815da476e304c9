//! The rules: what each judges, why it matters, and the remedy.

use super::delivery::{buffering, ending, heartbeat, ids, resume};
use super::json::{is_json, is_meant_as_json};
use super::observation::{BOM, End, Exchange, ORIGIN, Seen, event, lines};
use Needs::*;
use Outcome::*;
use newswire::http::Status;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

pub(super) struct Rule {
    pub(super) name: &'static str,
    needs: Needs,
    judge: fn(&Seen) -> Finding,
    pub(super) why: &'static str,
    pub(super) remedy: &'static str,
}

/// Without which there is nothing to judge.
#[derive(PartialEq, Eq)]
enum Needs {
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

const fn rule(name: &'static str, needs: Needs, judge: fn(&Seen) -> Finding) -> Rule {
    Rule { name, needs, judge, why: "", remedy: "" }
}

impl Rule {
    const fn why(self, why: &'static str) -> Rule {
        Rule { why, ..self }
    }

    const fn remedy(self, remedy: &'static str) -> Rule {
        Rule { remedy, ..self }
    }

    pub(super) fn judge(&self, seen: &Seen) -> Finding {
        let missing = match self.needs {
            Response if seen.first.response.is_err() => "there is no response",
            Stream | Events if !seen.first.is_stream() => "there is no event stream",
            Events if seen.first.events.is_empty() => "no event was seen",
            _ => return (self.judge)(seen),
        };
        (Unjudged, missing.to_owned())
    }
}

/// Passes where nothing was found.
fn none(what: &str, mut found: impl Iterator<Item = String>) -> Finding {
    match found.next() {
        None => (Pass, format!("no {what}")),
        Some(first) => (Warn, format!("{} {what}, first {}", found.count() + 1, shown(first))),
    }
}

/// Escaped, so that it cannot control a terminal, and not longer than a line.
pub(super) fn shown(value: impl Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(70) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// As long a wait as the reader of a page notices.
pub(super) const LATE: Duration = Duration::from_millis(500);
/// Events of so different times do not arrive at once unless they were held.
pub(super) const HELD: Duration = Duration::from_secs(1);

pub(super) const RULES: &[Rule] = &[
    rule("status", Nothing, |seen| match &seen.first.response {
        Err(sentence) => (Fail, sentence.clone()),
        Ok(response) => {
            let outcome = if response.status == Status::OK { Pass } else { Fail };
            (outcome, format!("{} from {}", response.status, response.url))
        }
    })
    .why("EventSource opens at the status 200 only. It stops for good at 204 and at any other.")
    .remedy("Start the server; answer 200, and flush the head before any event, through all proxies."),
    rule("media-type", Response, |seen| match seen.first.media_type() == "text/event-stream" {
        true => (Pass, "text/event-stream".into()),
        false => {
            let content_type = seen.first.field("content-type");
            (Fail, content_type.map_or("there is no Content-Type".into(), |t| format!("Content-Type is {}", shown(t))))
        }
    })
    .why("EventSource fails for good at any other media type.")
    .remedy("Send Content-Type: text/event-stream."),
    rule("charset", Response, |seen| {
        let parameters = seen.first.field("content-type").unwrap_or_default().split(';').skip(1);
        let mut named = parameters.filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
        });
        match named.next() {
            Some(other) if !other.eq_ignore_ascii_case("utf-8") => (Warn, shown(other)),
            Some(_) => (Pass, "utf-8".into()),
            None => (Pass, "none is named".into()),
        }
    })
    .why("EventSource decodes every stream as UTF-8. Other clients believe the parameter.")
    .remedy("Encode the stream as UTF-8, and leave the parameter out."),
    rule("caching", Response, |seen| {
        let directives = seen.first.list("cache-control");
        let has = |name| seen.first.has("cache-control", name);
        let is_kept = |directive: &String| match directive.split_once('=') {
            Some(("max-age" | "s-maxage", time)) => time != "0",
            _ => directive == "public",
        };
        let found = match seen.first.field("age") {
            Some(age) => return (Fail, format!("it comes from a cache: Age is {}", shown(age))),
            None if directives.is_empty() => "there is no Cache-Control".into(),
            None => format!("Cache-Control is {}", shown(directives.join(", "))),
        };
        match () {
            _ if has("no-store") || has("no-cache") => (Pass, found),
            _ if directives.iter().any(is_kept) => (Fail, found),
            _ => (Warn, found),
        }
    })
    .why("A cache may keep an old stream, or join a second client to the stream of the first.")
    .remedy("Send Cache-Control: no-store (or no-cache)."),
    rule("no-transform", Response, |seen| match seen.first.has("cache-control", "no-transform") {
        true => (Pass, "Cache-Control has it".into()),
        false => (Warn, "Cache-Control does not have it".into()),
    })
    .why("Without it, middleware and proxies may compress the stream, and hold events to do so.")
    .remedy("Send Cache-Control: no-store, no-transform."),
    rule("compression", Stream, |seen| {
        let coding = |exchange: &Exchange| exchange.field("content-encoding").map(shown);
        let [plain, packed] = [&seen.first, &seen.gzip].map(|exchange| exchange.bursts().len());
        match (coding(&seen.first), coding(&seen.gzip), &seen.gzip.response) {
            (Some(coding), ..) => (Fail, format!("{coding}, although identity was asked for")),
            (_, Some(coding), _) if packed * 2 < plain => {
                (Fail, format!("{coding} holds events: {packed} bursts instead of {plain}"))
            }
            (_, Some(coding), _) => (Warn, format!("{coding}, where gzip is accepted")),
            (.., Err(sentence)) if seen.cross_origin.response.is_ok() => {
                (Fail, format!("with Accept-Encoding: gzip, {sentence}"))
            }
            (.., Err(sentence)) => (Warn, sentence.clone()),
            _ => (Pass, "none, also where gzip is accepted".into()),
        }
    })
    .why("A compressor holds events until it has a block full, unless it is flushed after each.")
    .remedy("Exclude text/event-stream: in nginx from gzip_types, in Express by the filter of \
             compression(). Or flush after each event."),
    rule("cors", Response, |seen| match allowed_origins(seen)[..] {
        _ if seen.cross_origin.response.is_err() => (Warn, "a request with an Origin has no response".into()),
        [] => (Warn, format!("pages of {} may not read this", shown(&seen.origin))),
        ["*"] => (Pass, "pages of any origin may read".into()),
        [origin] if origin == seen.origin && !seen.cross_origin.has("vary", "origin") => {
            (Warn, format!("{} is echoed without Vary: Origin", shown(origin)))
        }
        [origin] if origin == seen.origin => (Pass, format!("pages of {} may read", shown(origin))),
        [origin] if !origin.contains([',', ' ', '*']) => (Warn, format!("only pages of {} may read", shown(origin))),
        ref several => (Fail, format!("Access-Control-Allow-Origin is {}", shown(several))),
    })
    .why("A page of another origin reads the stream only where Access-Control-Allow-Origin is * or its \
          own origin, once. Without Vary a cache gives it the answer for another one.")
    .remedy("Send the field once, from the server or the proxy but not from both, and Vary: Origin where \
             it depends on the request. To check for your page: --header 'Origin: ...'."),
    rule("credentials", Response, |seen| {
        let origins = allowed_origins(seen);
        match seen.cross_origin.field("access-control-allow-credentials") {
            None => (Pass, "no page of another origin may send credentials".into()),
            Some("true") if origins.contains(&"*") => (Fail, "allowed for the origin *".into()),
            Some("true") if origins == [ORIGIN] => (Warn, "allowed for any origin".into()),
            Some("true") => (Pass, "allowed for origins by name".into()),
            Some(other) => (Fail, format!("Access-Control-Allow-Credentials is {}", shown(other))),
        }
    })
    .why("With withCredentials a browser takes * for nothing, and `true` alone for yes. Where any \
          origin is echoed, any page reads what the user may read.")
    .remedy("Allow credentials for a list of origins, and echo only these."),
    rule("nosniff", Response, |seen| match seen.first.has("x-content-type-options", "nosniff") {
        true => (Pass, "nosniff".into()),
        false => (Info, "X-Content-Type-Options is not nosniff".into()),
    })
    .why("With it, no browser takes what the events say for HTML.")
    .remedy("Send X-Content-Type-Options: nosniff."),
    rule("x-accel-buffering", Response, |seen| match seen.first.field("x-accel-buffering") {
        Some(value) if value.eq_ignore_ascii_case("no") => (Pass, "no".into()),
        None if seen.first.field("server").is_some_and(|server| server.starts_with("nginx")) => {
            (Pass, "nginx takes the field away".into())
        }
        _ => (Warn, "it is not \"no\"".into()),
    })
    .why("nginx in front of the server holds events until it has a block full.")
    .remedy("Send X-Accel-Buffering: no, which nginx obeys; or set proxy_buffering off."),
    rule("connection", Stream, |seen| {
        let codings = seen.first.list("transfer-encoding");
        match seen.first.field("content-length") {
            Some(length) => (Warn, format!("Content-Length is {}", shown(length))),
            None if codings.is_empty() => (Info, "HTTP/1.1, until the connection closes".into()),
            None => (Info, format!("HTTP/1.1, Transfer-Encoding: {}", shown(codings.join(", ")))),
        }
    })
    .why("A length means that the stream was whole before it was sent. HAProxy holds small chunks for 0.2 s. With \
          HTTP/1.1 a browser opens six connections to a host, over all its tabs; a seventh EventSource waits in silence.")
    .remedy("Write events as they happen. Speak HTTP/2 in the proxy in front, or share one EventSource."),
    rule("head", Stream, |seen| answered(&seen.head))
        .why("Monitors and link checkers ask with HEAD, and wait.")
        .remedy("Answer HEAD with the head of GET, and nothing behind it."),
    rule("http-1.0", Stream, |seen| match seen.http10.field("transfer-encoding") {
        Some(coding) => (Fail, format!("it is answered with Transfer-Encoding {}", shown(coding))),
        None => answered(&seen.http10),
    })
    .why("nginx asks in HTTP/1.0 by default. A client that speaks it does not know chunks.")
    .remedy("Answer HTTP/1.0 with a stream that ends with the connection. In nginx: proxy_http_version 1.1."),
    rule("encoding", Stream, |seen| match str::from_utf8(&seen.first.raw) {
        Err(error) if error.error_len().is_some() => (Fail, format!("byte {} is not UTF-8", error.valid_up_to())),
        _ => (Pass, "UTF-8".into()),
    })
    .why("EventSource puts U+FFFD for what is not UTF-8. Other clients throw.")
    .remedy("Encode the text as UTF-8, and do not cut it within a character. Send bytes as base64."),
    rule("bom", Stream, |seen| {
        match lines(&seen.first.raw).skip(1).filter(|(line, _)| line.starts_with(BOM)).count() {
            0 if seen.first.raw.starts_with(BOM) => (Warn, "the stream begins with one".into()),
            0 => (Pass, "none".into()),
            lines => (Fail, format!("{lines} lines within the stream begin with one")),
        }
    })
    .why("EventSource drops one at the start. Anywhere else, and in many other clients, it is part of a \
          field's name, which is then unknown.")
    .remedy("Write UTF-8 without a byte order mark (in .NET: new UTF8Encoding(false))."),
    rule("nul", Stream, |seen| match seen.first.raw.contains(&0) {
        true if seen.first.values("id").any(|id| id.contains('\0')) => (Fail, "an id has one".into()),
        true => (Warn, "the stream has one".into()),
        false => (Pass, "none".into()),
    })
    .why("EventSource ignores an id with a NUL. Other clients cut text there.")
    .remedy("Leave NUL out of ids; send bytes as base64."),
    rule("line-ends", Stream, |seen| {
        let ends: BTreeSet<_> = lines(&seen.first.raw).map(|(_, end)| end).collect();
        let named = [("LF", &b"\n"[..]), ("CR", b"\r"), ("CRLF", b"\r\n")];
        let named = named.into_iter().filter(|(_, end)| ends.contains(end)).map(|(name, _)| name);
        let named: Vec<&str> = named.collect();
        (if named.len() > 1 || named == ["CR"] { Warn } else { Pass }, named.join(" and "))
    })
    .why("The standard allows LF, CR and CRLF. Many clients split at LF only, or at the first kind that \
          they meet. A CR alone is held back until the next byte comes.")
    .remedy("End every line with LF, and split data at each of the three before it is sent."),
    rule("fields", Stream, |seen| {
        let is_known = |name: &str| ["", "data", "event", "id", "retry"].contains(&name);
        let unknown = || seen.first.fields().map(|(name, _)| name).filter(|name| !is_known(name));
        match unknown().find(|name| is_known(&name.trim().to_ascii_lowercase())) {
            Some(name) => (Fail, format!("{} is not a field's name", shown(name))),
            None => none("lines that begin with no known field", unknown()),
        }
    })
    .why("EventSource ignores a line whose field is not data, event, id or retry, in small letters and \
          without spaces around it.")
    .remedy("Begin every line of the data with `data: `, also behind each line end within it."),
    rule("retry", Stream, |seen| {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_odd = |text: &String| !text.parse().is_ok_and(|ms: u64| (100..=3_600_000).contains(&ms));
        let values = || seen.first.values("retry");
        match (values().find(|text| !is_number(text)), values().find(is_odd), values().last()) {
            (Some(text), ..) => (Fail, format!("{} is not a number", shown(text))),
            (_, Some(text), _) => (Warn, format!("{} ms", shown(text))),
            (.., Some(text)) => (Pass, format!("{text} ms")),
            (.., None) => (Pass, "none; browsers wait 3 s or 5 s".into()),
        }
    })
    .why("EventSource ignores what is not digits alone. It takes them for milliseconds.")
    .remedy("Send whole milliseconds, such as retry: 3000, from 100 to 3600000."),
    rule("empty-blocks", Stream, |seen| {
        let blocks = seen.first.blocks().0.into_iter();
        let empty = blocks.filter(|&(at, text)| event(at, text).is_none());
        none("blocks without data", empty.map(|(_, text)| String::from_utf8_lossy(text).into_owned()))
    })
    .why("httpx-sse, niquests, the OpenAI and Anthropic SDKs for Python, fetch-event-source, \
          extended-eventsource and fetch-event-stream dispatch an empty message for each.")
    .remedy("Send a comment with one line end behind it, and put retry and id into a block with data."),
    rule("unfinished", Stream, |seen| {
        let stream = &seen.first;
        let pending = stream.blocks().1;
        let has_data = lines(&stream.raw[pending..]).any(|(line, _)| line.starts_with(b"data"));
        let is_old = stream.arrival(pending + 1) + HELD / 2 < stream.ended_at;
        // Where bytes are held, they end anywhere.
        let is_line = stream.raw.ends_with(b"\n") || stream.raw.ends_with(b"\r");
        match stream.end == End::Closed {
            false if has_data => (Fail, "the stream ends within an event".into()),
            true if has_data && is_old && is_line => (Fail, "no blank line follows the last data".into()),
            _ => (Pass, "a blank line follows each event".into()),
        }
    })
    .why("EventSource dispatches an event at the blank line behind it, and drops it at the end.")
    .remedy("End every event with two line ends."),
    rule("json", Events, |seen| {
        let texts = seen.first.events.iter().map(|event| &event.data);
        let broken = texts.filter(|text| is_meant_as_json(text) && !is_json(text));
        none("events whose data looks like JSON and is not", broken.cloned())
    })
    .why("JSON.parse throws, and in many pages no later event is handled.")
    .remedy("Write JSON with a library, one value an event, with line ends escaped as \\n."),
    rule("event-names", Events, |seen| {
        let kinds = seen.first.events.iter().map(|event| &event.kind);
        let own = kinds.filter(|kind| *kind == "open" || *kind == "error");
        none("events that have a name of EventSource's own", own.cloned())
    })
    .why("EventSource fires `open` and `error` for the connection; a page takes one for the other.")
    .remedy("Choose another name."),
    rule("first-byte", Stream, |seen| {
        // A busy machine delays one of them, but not all.
        let exchanges = [&seen.first, &seen.cross_origin, &seen.http10];
        let head = exchanges.map(|exchange| exchange.head_at).into_iter().min().unwrap_or_default();
        let event = seen.first.events.first().map(|event| event.at);
        let first = event.map_or("no event".into(), |at| format!("an event after {}", seconds(at)));
        let is_held = head >= LATE && event.is_some_and(|at| at < seen.first.head_at + LATE / 2);
        (if is_held { Warn } else { Pass }, format!("the head after {}, {first}", seconds(head)))
    })
    .why("The page does not know that it is connected, and proxies give up, until the head comes.")
    .remedy("Flush the head at once, with a comment behind it; in Node res.flushHeaders()."),
    rule("buffering", Stream, buffering)
        .why("Something on the way holds events. The page gets them late, many at a time.")
        .remedy("nginx: X-Accel-Buffering: no from the server, or proxy_buffering off. Apache: flushpackets=on. \
                 lighttpd: server.stream-response-body = 1. A framework: flush after each event, and no compression."),
    rule("heartbeat", Stream, heartbeat)
        .why("nginx, Apache, Varnish and load balancers cut a connection that is silent for a minute.")
        .remedy("Send a comment, `:` and one line end, every 15 s; or raise proxy_read_timeout."),
    rule("ids", Events, ids)
        .why("EventSource comes back with the last id. What it cannot name is lost, or comes twice.")
        .remedy("Give each event an id of its own, and keep what was sent."),
    rule("resume", Events, resume)
        .why("Connections break. A client that comes back with Last-Event-ID lacks what came after it.")
        .remedy("Keep a history; begin behind Last-Event-ID; tell the client by an event where something \
                 is gone. Proxies and CORS must let the field through."),
    rule("ending", Stream, ending)
        .why("EventSource comes back after every end, for ever, and starts the stream again.")
        .remedy("Answer 204 to a client whose Last-Event-ID is the last one, or let an event tell the page \
                 to close. In proxies, raise the timeouts."),
];

fn allowed_origins(seen: &Seen) -> Vec<&str> {
    let responses = seen.cross_origin.response.iter();
    responses.flat_map(|response| response.values("access-control-allow-origin")).collect()
}

fn answered(exchange: &Exchange) -> Finding {
    match &exchange.response {
        Err(sentence) => (Warn, sentence.clone()),
        Ok(response) if response.status != Status::OK => (Warn, response.status.to_string()),
        Ok(response) => (Pass, response.status.to_string()),
    }
}
