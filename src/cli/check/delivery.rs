//! The rules of delivery: when events arrive, and what a client gets that comes back.

use super::probe::{End, Seen};
use super::rule::Needs::*;
use super::rule::{Finding, HELD, LATE, Outcome, Rule, fail, info, pass, seconds, shown, warn};
use super::stream::{Event, lines};
use newswire::http::Status;
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "first-byte",
        needs: Stream,
        judge: |seen| {
            // A busy machine delays one of them, but not all.
            let exchanges = [&seen.first, &seen.cross_origin, &seen.http10];
            let head = exchanges.iter().map(|exchange| exchange.head_at).min().unwrap_or_default();
            let event = seen.first.events.first().map(|event| event.at);
            let first =
                event.map_or("no event".into(), |at| format!("an event after {}", seconds(at)));
            let found = format!("the head after {}, {first}", seconds(head));
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

fn buffering(seen: &Seen) -> Finding {
    let stream = &seen.first.stream;
    let (events, bursts) = (&seen.first.events, stream.bursts());
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
        let times =
            events[first..behind].iter().filter_map(|event| timestamp(event.id.as_deref()?));
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
fn timestamp(id: &str) -> Option<Duration> {
    let digits = id.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 13 { id[..13].parse().ok().map(Duration::from_millis) } else { None }
}

fn is_undated(event: &Event) -> bool {
    event.id.as_deref().and_then(timestamp).is_none()
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
    let events = &seen.first.events;
    let (mut ids, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
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
    let (before, after) = (&seen.first.events, &exchange.events);
    let kinds: BTreeSet<&String> = before.iter().map(|event| &event.kind).collect();
    let with_id = |events: &[Event]| -> Vec<(String, String)> {
        events.iter().filter_map(|event| Some((event.id.clone()?, event.data.clone()))).collect()
    };
    let (seen_before, came) = (with_id(before), with_id(after));
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
        (.., Some(first)) if known.iter().any(|(id, _)| *id == first.0) => {
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
        seen.first.events.iter().map(|event| (&event.id, &event.data)).collect();
    let is_new = |event: &Event| !before.contains(&(&event.id, &event.data));
    match status {
        Status::NO_CONTENT => pass("a clean end, and then 204"),
        Status::OK if again.events.iter().any(is_new) => {
            pass(format!("a clean end after {after}, and then other events"))
        }
        Status::OK => fail("a clean end, and then another stream without anything new"),
        other => warn(format!("a clean end, and then {other}")),
    }
}
