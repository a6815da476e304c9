//! The rules: what each judges.

use super::super::json::{is_json, is_meant_as_json};
use super::delivery::{buffering, ending, first_byte, heartbeat, ids, resume};
use super::finding::Outcome::*;
use super::finding::{Finding, HELD, pass_if_none, shown};
use super::observation::{BOM, ORIGIN, Seen};
use Needs::*;
use newswire::http::Status;
use newswire::sse::lines;
use std::collections::BTreeSet;

pub(super) struct Rule {
    pub(super) name: &'static str,
    needs: Needs,
    judge: fn(&Seen) -> Finding,
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
    Rule { name, needs, judge }
}

/// Why each rule matters, and the remedy: `name: ["why", "remedy"],`. The page has most of the rules, and their texts.
const TEXTS: &str = concat!(include_str!("../../../www/text/check_en.js"), "\n", include_str!("rules.txt"));

impl Rule {
    pub(super) fn why_and_remedy(&self) -> [String; 2] {
        let starts = [" ", "\n", "\""].map(|before| format!("{before}{}{}: [", self.name, before.trim()));
        let found = starts.iter().find_map(|start| TEXTS.split_once(start));
        let mut strings = found.map_or("", |(_, texts)| texts).split('"').skip(1).step_by(2);
        [(); 2].map(|()| strings.next().unwrap_or_default().replace(r"\\", r"\"))
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
    }),
    rule("media-type", Response, |seen| (Fail.unless(seen.first.has_media_type()), seen.first.said("Content-Type"))),
    rule("charset", Response, |seen| {
        let content_type = seen.first.list("content-type").concat();
        let named = content_type.split("charset=").nth(1).and_then(|rest| rest.split(';').next());
        let is_right = named.is_none_or(|named| named.trim_matches(['"', ' ']) == "utf-8");
        (Warn.unless(is_right), seen.first.said("Content-Type"))
    }),
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
        (outcome, ["Cache-Control", "Age"].map(|name| seen.first.said(name)).join(", "))
    }),
    rule("no-transform", Response, |seen| {
        (Warn.unless(seen.first.has("cache-control", "no-transform")), seen.first.said("Cache-Control"))
    }),
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
        let [coding, gzip] = exchanges.map(|exchange| exchange.said("Content-Encoding"));
        let first = format!("{coding}, in {plain} bursts");
        (outcome, format!("{first}; where gzip is accepted, {gzip}, in {packed} bursts"))
    }),
    rule("cors", Response, |seen| {
        let outcome = match allowed_origins(seen)[..] {
            ["*"] => Pass,
            [origin] if origin == seen.origin => Warn.unless(seen.cors.has("vary", "origin")),
            [] => Warn,
            [origin] if !origin.contains([',', ' ', '*']) => Warn,
            _ => Fail,
        };
        let [allowed, vary] = ["Access-Control-Allow-Origin", "Vary"].map(|n| seen.cors.said(n));
        (outcome, format!("for a page of {}, {allowed}, {vary}", shown(&seen.origin)))
    }),
    rule("credentials", Response, |seen| {
        let origins = allowed_origins(seen);
        let outcome = match seen.cors.field("access-control-allow-credentials") {
            None => Pass,
            Some("true") if !origins.contains(&"*") => Warn.unless(origins != [ORIGIN]),
            _ => Fail,
        };
        (outcome, seen.cors.said("Access-Control-Allow-Credentials"))
    }),
    rule("nosniff", Response, |seen| {
        (Info.unless(seen.first.has("x-content-type-options", "nosniff")), seen.first.said("X-Content-Type-Options"))
    }),
    rule("x-accel-buffering", Response, |seen| {
        // nginx takes the field away.
        let is_nginx = |name: &str| name.starts_with("nginx");
        let is_right = match seen.first.field("x-accel-buffering") {
            Some(value) => value.eq_ignore_ascii_case("no"),
            None => seen.first.field("server").is_some_and(is_nginx),
        };
        (Warn.unless(is_right), seen.first.said("X-Accel-Buffering"))
    }),
    rule("connection", Stream, |seen| {
        let outcome = if seen.first.field("content-length").is_some() { Warn } else { Info };
        let names = ["Content-Length", "Transfer-Encoding"];
        (outcome, names.map(|name| seen.first.said(name)).join(", "))
    }),
    rule("head", Stream, |seen| seen.head.is_answered()),
    rule("http-1.0", Stream, |seen| match seen.http10.field("transfer-encoding") {
        Some(_) => (Fail, seen.http10.said("Transfer-Encoding")),
        None => seen.http10.is_answered(),
    }),
    rule("encoding", Stream, |seen| {
        let error = str::from_utf8(&seen.first.raw).err();
        // A character may be whole only after what was watched.
        let error = error.filter(|error| error.error_len().is_some());
        (Fail.unless(error.is_none()), error.map_or("UTF-8".into(), |error| error.to_string()))
    }),
    rule("bom", Stream, |seen| {
        let marked = lines(&seen.first.raw).map(|(line, _)| line.starts_with(BOM));
        let marked: Vec<usize> = marked.enumerate().filter(|(_, is)| *is).map(|(n, _)| n).collect();
        let outcome = marked.last().map_or(Pass, |last| if *last == 0 { Warn } else { Fail });
        (outcome, format!("{} lines begin with one", marked.len()))
    }),
    rule("nul", Stream, |seen| {
        let bytes = seen.first.raw.iter().filter(|byte| **byte == 0).count();
        let ids = seen.first.values("id").filter(|id| id.contains('\0')).count();
        let outcome = if ids > 0 { Fail } else { Warn.unless(bytes == 0) };
        (outcome, format!("{bytes} bytes, {ids} ids with one"))
    }),
    rule("line-ends", Stream, |seen| {
        let ends = lines(&seen.first.raw).filter(|(_, end)| !end.is_empty());
        let ends: BTreeSet<String> = ends.map(|(_, end)| end.escape_ascii().to_string()).collect();
        let is_right = ends.len() < 2 && !ends.contains("\\r");
        (Warn.unless(is_right), Vec::from_iter(ends).join(" and "))
    }),
    rule("fields", Stream, |seen| {
        let is_known = |name: &str| ["", "data", "event", "id", "retry"].contains(&name);
        let unknown = || seen.first.fields().map(|(name, _)| name).filter(|name| !is_known(name));
        match unknown().find(|name| is_known(&name.trim().to_ascii_lowercase())) {
            Some(name) => (Fail, format!("{} is not a field's name", shown(name))),
            None => pass_if_none("lines that begin with no known field", unknown()),
        }
    }),
    rule("retry", Stream, |seen| {
        let values: Vec<String> = seen.first.values("retry").collect();
        let judge = |text: &String| match text.parse::<u64>() {
            _ if text.is_empty() || text.contains(|c: char| !c.is_ascii_digit()) => Fail,
            number => Warn.unless(number.is_ok_and(|ms| (100..=3_600_000).contains(&ms))),
        };
        let outcome = values.iter().map(judge).max().unwrap_or(Pass);
        (outcome, format!("{} values {}", values.len(), shown(values)))
    }),
    rule("empty-blocks", Stream, |seen| pass_if_none("blocks without data", seen.first.empty_blocks.iter().cloned())),
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
    }),
    rule("json", Events, |seen| {
        let texts = seen.first.events.iter().map(|event| &event.data);
        let broken = texts.filter(|text| is_meant_as_json(text) && !is_json(text));
        pass_if_none("events whose data looks like JSON and is not", broken.cloned())
    }),
    rule("event-names", Events, |seen| {
        let kinds = seen.first.events.iter().map(|event| &event.kind);
        let own = kinds.filter(|kind| *kind == "open" || *kind == "error");
        pass_if_none("events that have a name of EventSource's own", own.cloned())
    }),
    rule("first-byte", Stream, first_byte),
    rule("buffering", Stream, buffering),
    rule("heartbeat", Stream, heartbeat),
    rule("ids", Events, ids),
    rule("resume", Events, resume),
    rule("ending", Stream, ending),
];

fn allowed_origins(seen: &Seen) -> Vec<&str> {
    let responses = seen.cors.response.iter();
    responses.flat_map(|response| response.values("access-control-allow-origin")).collect()
}
