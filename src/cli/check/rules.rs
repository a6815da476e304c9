//! The rules: what each judges, why it matters, and the remedy.

use super::super::json::{is_json, is_meant_as_json};
use super::delivery::{buffering, ending, first_byte, heartbeat, ids, resume};
use super::finding::Outcome::*;
use super::finding::{Finding, HELD, answered, field_as_text, listed, pass_if_none, shown};
use super::observation::{BOM, ORIGIN, Seen, lines};
use Needs::*;
use newswire::http::Status;
use std::collections::BTreeSet;

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

pub(super) const RULES: &[Rule] = &[
    rule("status", Nothing, |seen| match &seen.first.response {
        Err(sentence) => (Fail, sentence.clone()),
        Ok(r) => {
            let said = r.sentence(&seen.first.raw).map_or(String::new(), |said| format!(": {said}"));
            (Fail.unless(r.status == Status::OK), format!("{} from {}{said}", r.status, r.url))
        }
    })
    .why("EventSource opens at the status 200 only, and stops for good at any other.")
    .remedy("Start the server; answer 200; flush the head before any event, through all proxies."),
    rule("media-type", Response, |seen| {
        let is_right = seen.first.media_type() == "text/event-stream";
        (Fail.unless(is_right), field_as_text(&seen.first, "Content-Type"))
    })
    .why("EventSource fails for good at any other media type.")
    .remedy("Send Content-Type: text/event-stream."),
    rule("charset", Response, |seen| {
        let content_type = seen.first.list("content-type").concat();
        let named = content_type.split("charset=").nth(1).and_then(|rest| rest.split(';').next());
        let is_right = named.is_none_or(|named| named.trim_matches(['"', ' ']) == "utf-8");
        (Warn.unless(is_right), field_as_text(&seen.first, "Content-Type"))
    })
    .why("EventSource decodes every stream as UTF-8. Other clients believe the parameter.")
    .remedy("Encode the stream as UTF-8, and leave the parameter out."),
    rule("caching", Response, |seen| {
        let has = |name| seen.first.has("cache-control", name);
        let is_kept = |directive: &String| match directive.split_once('=') {
            Some(("max-age" | "s-maxage", seconds)) => seconds != "0",
            _ => directive == "public",
        };
        let outcome = match seen.first.field("age") {
            None if has("no-store") || has("no-cache") => Pass,
            None if !seen.first.list("cache-control").iter().any(is_kept) => Warn,
            _ => Fail,
        };
        (outcome, ["Cache-Control", "Age"].map(|name| field_as_text(&seen.first, name)).join(", "))
    })
    .why("A cache may keep an old stream, or join a second client to the stream of the first.")
    .remedy("Send Cache-Control: no-store (or no-cache)."),
    rule("no-transform", Response, |seen| listed(&seen.first, "Cache-Control", "no-transform", Warn))
        .why("Without it, middleware and proxies may compress the stream, and hold events to do so.")
        .remedy("Send Cache-Control: no-store, no-transform."),
    rule("compression", Stream, |seen| {
        let exchanges = [&seen.first, &seen.gzip];
        let [plain, packed] = exchanges.map(|exchange| exchange.bursts().len());
        let outcome = match exchanges.map(|exchange| exchange.field("content-encoding")) {
            [Some(_), _] => Fail,
            [_, Some(_)] if packed * 2 < plain => Fail,
            [_, Some(_)] => Warn,
            _ if seen.gzip.response.is_ok() => Pass,
            _ if seen.cors.response.is_ok() => Fail,
            _ => Warn,
        };
        let [coding, gzip] = exchanges.map(|exchange| field_as_text(exchange, "Content-Encoding"));
        let first = format!("{coding}, in {plain} bursts");
        (outcome, format!("{first}; where gzip is accepted, {gzip}, in {packed} bursts"))
    })
    .why("A compressor holds events until it has a block full, unless it is flushed after each.")
    .remedy("Exclude text/event-stream (nginx: gzip_types; Express: filter), or flush each event."),
    rule("cors", Response, |seen| {
        let outcome = match allowed_origins(seen)[..] {
            ["*"] => Pass,
            [origin] if origin == seen.origin => Warn.unless(seen.cors.has("vary", "origin")),
            [] => Warn,
            [origin] if !origin.contains([',', ' ', '*']) => Warn,
            _ => Fail,
        };
        let [allowed, vary] = ["Access-Control-Allow-Origin", "Vary"].map(|n| field_as_text(&seen.cors, n));
        (outcome, format!("for a page of {}, {allowed}, {vary}", shown(&seen.origin)))
    })
    .why("A page of another origin reads only by * or by its own origin; caches need Vary.")
    .remedy("Send the field once, with Vary: Origin. For your own page: --header 'Origin: ...'."),
    rule("credentials", Response, |seen| {
        let origins = allowed_origins(seen);
        let outcome = match seen.cors.field("access-control-allow-credentials") {
            None => Pass,
            Some("true") if !origins.contains(&"*") => Warn.unless(origins != [ORIGIN]),
            _ => Fail,
        };
        (outcome, field_as_text(&seen.cors, "Access-Control-Allow-Credentials"))
    })
    .why("Browsers want `true` and no *. If any origin is echoed, any page reads as the user.")
    .remedy("Allow credentials for a list of origins, and echo only these."),
    rule("nosniff", Response, |seen| listed(&seen.first, "X-Content-Type-Options", "nosniff", Info))
        .why("With it, no browser takes what the events say for HTML.")
        .remedy("Send X-Content-Type-Options: nosniff."),
    rule("x-accel-buffering", Response, |seen| {
        // nginx takes the field away.
        let is_nginx = |name: &str| name.starts_with("nginx");
        let is_right = match seen.first.field("x-accel-buffering") {
            Some(value) => value.eq_ignore_ascii_case("no"),
            None => seen.first.field("server").is_some_and(is_nginx),
        };
        (Warn.unless(is_right), field_as_text(&seen.first, "X-Accel-Buffering"))
    })
    .why("nginx in front of the server holds events until it has a block full.")
    .remedy("Send X-Accel-Buffering: no, which nginx obeys; or set proxy_buffering off."),
    rule("connection", Stream, |seen| {
        let outcome = if seen.first.field("content-length").is_some() { Warn } else { Info };
        let names = ["Content-Length", "Transfer-Encoding"];
        (outcome, names.map(|name| field_as_text(&seen.first, name)).join(", "))
    })
    .why(
        "A length means that the stream was whole before it was sent. With HTTP/1.1 a browser \
         opens six connections to a host, over all tabs; a seventh EventSource waits in silence.",
    )
    .remedy("Write events as they happen; speak HTTP/2 in the proxy, or share one EventSource."),
    rule("head", Stream, |seen| answered(&seen.head))
        .why("Monitors and link checkers ask with HEAD, and wait.")
        .remedy("Answer HEAD with the head of GET, and nothing behind it."),
    rule("http-1.0", Stream, |seen| match seen.http10.field("transfer-encoding") {
        Some(_) => (Fail, field_as_text(&seen.http10, "Transfer-Encoding")),
        None => answered(&seen.http10),
    })
    .why("nginx asks in HTTP/1.0 by default. A client that speaks it does not know chunks.")
    .remedy("End the stream with the connection there. In nginx: proxy_http_version 1.1."),
    rule("encoding", Stream, |seen| {
        let error = str::from_utf8(&seen.first.raw).err();
        // A character may be whole only after what was watched.
        let error = error.filter(|error| error.error_len().is_some());
        (Fail.unless(error.is_none()), error.map_or("UTF-8".into(), |error| error.to_string()))
    })
    .why("EventSource puts U+FFFD for what is not UTF-8. Other clients throw.")
    .remedy("Encode text as UTF-8, and do not cut it within a character. Send bytes as base64."),
    rule("bom", Stream, |seen| {
        let marked = lines(&seen.first.raw).map(|(line, _)| line.starts_with(BOM));
        let marked: Vec<usize> = marked.enumerate().filter(|(_, is)| *is).map(|(n, _)| n).collect();
        let outcome = marked.last().map_or(Pass, |last| if *last == 0 { Warn } else { Fail });
        (outcome, format!("{} lines begin with one", marked.len()))
    })
    .why("EventSource drops one at the start only. Elsewhere it makes an unknown field's name.")
    .remedy("Write UTF-8 without a byte order mark (in .NET: new UTF8Encoding(false))."),
    rule("nul", Stream, |seen| {
        let bytes = seen.first.raw.iter().filter(|byte| **byte == 0).count();
        let ids = seen.first.values("id").filter(|id| id.contains('\0')).count();
        let outcome = if ids > 0 { Fail } else { Warn.unless(bytes == 0) };
        (outcome, format!("{bytes} bytes, {ids} ids with one"))
    })
    .why("EventSource ignores an id with a NUL. Other clients cut text there.")
    .remedy("Leave NUL out of ids; send bytes as base64."),
    rule("line-ends", Stream, |seen| {
        let ends = lines(&seen.first.raw).filter(|(_, end)| !end.is_empty());
        let ends: BTreeSet<String> = ends.map(|(_, end)| end.escape_ascii().to_string()).collect();
        let is_right = ends.len() < 2 && !ends.contains("\\r");
        (Warn.unless(is_right), Vec::from_iter(ends).join(" and "))
    })
    .why("Many clients split at LF only, or at the first kind that they meet. A CR comes late.")
    .remedy("End every line with LF, and split data at LF, CR and CRLF before it is sent."),
    rule("fields", Stream, |seen| {
        let is_known = |name: &str| ["", "data", "event", "id", "retry"].contains(&name);
        let unknown = || seen.first.fields().map(|(name, _)| name).filter(|name| !is_known(name));
        match unknown().find(|name| is_known(&name.trim().to_ascii_lowercase())) {
            Some(name) => (Fail, format!("{} is not a field's name", shown(name))),
            None => pass_if_none("lines that begin with no known field", unknown()),
        }
    })
    .why("EventSource knows data, event, id and retry, exactly so, and ignores any other line.")
    .remedy("Begin every line of the data with `data: `, also behind each line end within it."),
    rule("retry", Stream, |seen| {
        let values: Vec<String> = seen.first.values("retry").collect();
        let judge = |text: &String| match text.parse::<u64>() {
            _ if text.is_empty() || text.contains(|c: char| !c.is_ascii_digit()) => Fail,
            number => Warn.unless(number.is_ok_and(|ms| (100..=3_600_000).contains(&ms))),
        };
        let outcome = values.iter().map(judge).max().unwrap_or(Pass);
        (outcome, format!("{} values {}", values.len(), shown(values)))
    })
    .why("EventSource ignores what is not digits alone. It takes them for milliseconds.")
    .remedy("Send whole milliseconds, such as retry: 3000, from 100 to 3600000."),
    rule("empty-blocks", Stream, |seen| pass_if_none("blocks without data", seen.first.empty_blocks.iter().cloned()))
        .why(
            "httpx-sse, niquests, the OpenAI and Anthropic SDKs for Python, fetch-event-source, \
         extended-eventsource and fetch-event-stream dispatch an empty message for each.",
        )
        .remedy("Send a comment with one line end; put retry and id into a block with data."),
    rule("unfinished", Stream, |seen| {
        let stream = &seen.first;
        let pending = stream.raw.len() - stream.pending;
        let has_data = lines(&stream.raw[pending..]).any(|(line, _)| line.starts_with(b"data"));
        let is_old = stream.arrival(pending + 1) + HELD / 2 < stream.ended_at;
        // Where bytes are held, they end anywhere.
        let is_line = stream.raw.ends_with(b"\n") || stream.raw.ends_with(b"\r");
        match stream.end.is_none() {
            false if has_data => (Fail, "the stream ends within an event".into()),
            true if has_data && is_old && is_line => (Fail, "no blank line behind the data".into()),
            _ => (Pass, "a blank line follows each event".into()),
        }
    })
    .why("EventSource dispatches an event at the blank line behind it, and drops it at the end.")
    .remedy("End every event with two line ends."),
    rule("json", Events, |seen| {
        let texts = seen.first.events.iter().map(|event| &event.data);
        let broken = texts.filter(|text| is_meant_as_json(text) && !is_json(text));
        pass_if_none("events whose data looks like JSON and is not", broken.cloned())
    })
    .why("JSON.parse throws, and in many pages no later event is handled.")
    .remedy("Write JSON with a library, one value an event, with line ends escaped as \\n."),
    rule("event-names", Events, |seen| {
        let kinds = seen.first.events.iter().map(|event| &event.kind);
        let own = kinds.filter(|kind| *kind == "open" || *kind == "error");
        pass_if_none("events that have a name of EventSource's own", own.cloned())
    })
    .why("EventSource fires `open` and `error` for the connection; a page takes one for the other.")
    .remedy("Choose another name."),
    rule("first-byte", Stream, first_byte)
        .why("The page knows of no connection, and proxies give up, until the head comes.")
        .remedy("Flush the head at once, with a comment behind it; in Node res.flushHeaders()."),
    rule("buffering", Stream, buffering)
        .why("Something on the way holds events. The page gets them late, many at a time.")
        .remedy(
            "Flush each event. nginx: proxy_buffering off; Apache: flushpackets=on; lighttpd: \
             server.stream-response-body = 1.",
        ),
    rule("heartbeat", Stream, heartbeat)
        .why("nginx, Apache, Varnish and load balancers cut a connection after a silent minute.")
        .remedy("Send a comment, `:` and one line end, every 15 s; or raise proxy_read_timeout."),
    rule("ids", Events, ids)
        .why("EventSource comes back with the last id. What has none is lost, or comes twice.")
        .remedy("Give each event an id of its own, and keep what was sent."),
    rule("resume", Events, resume)
        .why("Connections break. A client that comes back lacks what came after its Last-Event-ID.")
        .remedy("Keep a history; begin behind Last-Event-ID, also through proxies; tell of gaps."),
    rule("ending", Stream, ending)
        .why("EventSource comes back after every end, for ever, and starts the stream again.")
        .remedy("Answer 204 to the last Last-Event-ID, or let an event tell the page to close."),
];

fn allowed_origins(seen: &Seen) -> Vec<&str> {
    let responses = seen.cors.response.iter();
    responses.flat_map(|response| response.values("access-control-allow-origin")).collect()
}
