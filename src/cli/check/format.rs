//! The rules of the format: the bytes, lines, blocks and events of the stream.

use super::json::{is_json, is_meant_as_json};
use super::probe::End;
use super::rule::Needs::*;
use super::rule::{HELD, Rule, fail, none, pass, shown, warn};
use super::stream::{BOM, lines};
use std::collections::BTreeSet;

pub(super) const RULES: &[Rule] = &[
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
        why: "EventSource drops one at the start. Anywhere else, and in many other clients, it is \
              part of a field's name, which is then unknown.",
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
              that they meet. A CR alone is held back until the next byte comes.",
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
                None => none("lines that begin with no known field", unknown.into_iter()),
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
            let broken = values.iter().find(|value| value.is_empty() || number(value).is_none());
            let is_odd = |value: &&String| !matches!(number(value), Some(Ok(100..=3_600_000u64)));
            match (broken, values.iter().find(is_odd), values.last()) {
                (Some(value), ..) => fail(format!("{} is not a number", shown(value))),
                (_, Some(value), _) => warn(format!("{} ms", shown(value))),
                (.., Some(value)) => pass(format!("{value} ms")),
                (.., None) => pass("none; browsers wait 3 s or 5 s"),
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
            none("blocks without data", texts)
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
            // Where bytes are held, they end anywhere.
            let is_line = stream.raw.ends_with(b"\n") || stream.raw.ends_with(b"\r");
            match seen.first.end == End::Closed {
                false if has_data => fail("the stream ends within an event"),
                true if has_data && is_old && is_line => {
                    fail("no blank line follows the last data")
                }
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
            let texts = seen.first.events.iter().map(|event| &event.data);
            let broken = texts.filter(|text| is_meant_as_json(text) && !is_json(text));
            none("events whose data looks like JSON and is not", broken.cloned())
        },
        why: "JSON.parse throws, and in many pages no later event is handled.",
        remedy: "Write JSON with a library, one value an event, with line ends escaped as \\n.",
    },
    Rule {
        name: "event-names",
        needs: Events,
        judge: |seen| {
            let kinds = seen.first.events.iter().map(|event| &event.kind);
            let own = kinds.filter(|kind| *kind == "open" || *kind == "error");
            none("events that have a name of EventSource's own", own.cloned())
        },
        why: "EventSource fires `open` and `error` for the connection; a page takes one for the other.",
        remedy: "Choose another name.",
    },
];
