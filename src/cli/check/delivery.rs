//! The rules of delivery: when events arrive, and what a client gets that comes back.

use super::finding::Outcome::*;
use super::finding::{Finding, HELD, shown};
use super::observation::{Event, Seen};
use newswire::http::Status;
use newswire::sse::lines;
use std::collections::BTreeSet;
use std::time::Duration;

/// As long a wait as the reader of a page notices.
const LATE: Duration = Duration::from_millis(500);

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

pub(super) fn first_byte(seen: &Seen) -> Finding {
    // A busy machine delays one of them, but not all.
    let head = seen.first.head_at.min(seen.cors.head_at).min(seen.http10.head_at);
    let event = seen.first.events.first().map(|event| event.at);
    let first = event.map_or("no event".into(), |at| format!("an event after {}", seconds(at)));
    let is_held = head >= LATE && event.is_some_and(|at| at < seen.first.head_at + LATE / 2);
    (if is_held { Warn } else { Pass }, format!("the head after {}, {first}", seconds(head)))
}

pub(super) fn buffering(seen: &Seen) -> Finding {
    let (raw, events, bursts) = (&seen.first.raw, &seen.first.events, seen.first.bursts());
    let is_cut = bursts.windows(2).any(|two| {
        let is_within_line = !b"\r\n".contains(&raw[two[0].1.end - 1]);
        is_within_line && two[1].0.start - two[0].0.end >= LATE / 2
    });
    let is_nginx = is_cut && bursts.iter().any(|(_, bytes)| bytes.len().is_multiple_of(4096));
    let pieces = if is_nginx { ", in pieces of 4096 bytes as nginx has them" } else { "" };
    let (mut before, mut crowded) = (Duration::ZERO, 0);
    for (time, _) in &bursts {
        let first = events.partition_point(|event| event.at < time.start);
        let events = &events[first..events.partition_point(|event| event.at <= time.end)];
        let times = events.iter().filter_map(timestamp);
        let spread = times.clone().max().zip(times.min()).map_or(Duration::ZERO, |(a, b)| a - b);
        // Events that are further apart than the wait for them are a history.
        let is_history = spread > time.end - before + LATE;
        if !is_history && spread >= time.end - time.start + HELD {
            let (count, spread) = (events.len(), seconds(spread));
            return (Fail, format!("{count} events of {spread} by their ids came at once{pieces}"));
        }
        before = time.start;
        crowded += usize::from(events.len() > 2);
    }
    let (count, is_undated) = (events.len(), events.iter().all(|event| timestamp(event).is_none()));
    match &bursts[..] {
        [(time, _)] if seen.first.end == Some(Ok(())) && count > 1 && time.start >= HELD => {
            let after = seconds(time.start);
            (Fail, format!("all {count} events came at once after {after}, with the end of the stream"))
        }
        _ if is_nginx => (Fail, format!("the stream pauses within a line{pieces}")),
        _ if is_cut => (Warn, "the stream pauses within a line".into()),
        _ if crowded > 2 && crowded == bursts.len() && is_undated => {
            (Warn, format!("{count} events came in {crowded} bursts; their ids tell no time"))
        }
        _ => (Pass, format!("{count} events in {} bursts", bursts.len())),
    }
}

/// Of an id that begins with milliseconds since 1970.
fn timestamp(event: &Event) -> Option<Duration> {
    let id = event.id.as_deref()?;
    let digits = id.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 13 { id[..13].parse().ok().map(Duration::from_millis) } else { None }
}

pub(super) fn heartbeat(seen: &Seen) -> Finding {
    let (stream, limit) = (&seen.first, seen.limit);
    let ends = stream.reads.iter().map(|&(at, _)| at).chain([stream.ended_at]);
    let starts = [stream.head_at].into_iter().chain(ends.clone());
    let longest = ends.zip(starts).map(|(end, start)| end.saturating_sub(start)).max();
    let longest = longest.unwrap_or_default();
    let opening = stream.bursts().first().map_or(0, |(_, bytes)| bytes.end);
    let comments = lines(&stream.raw[opening..]).filter(|(line, _)| line.starts_with(b":")).count();
    let found = format!("{comments} comments, the longest silence was {}", seconds(longest));
    match limit {
        _ if longest >= limit => (Warn, found),
        _ if comments == 0 && seen.time < limit => {
            (Info, format!("{found}; to know, watch with --for {}", limit.as_secs() + 10))
        }
        _ => (Pass, found),
    }
}

pub(super) fn ids(seen: &Seen) -> Finding {
    let events = &seen.first.events;
    let (mut ids, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        let Some(id) = &event.id else { continue };
        kinds.insert(&event.kind);
        if !ids.insert(id) {
            return (Fail, format!("{} stands at two events", shown(id)));
        }
    }
    // Events of another type may be about the stream, and no part of it.
    let lacks = |event: &&Event| event.id.is_none() && kinds.contains(&event.kind);
    match (ids.len(), events.iter().filter(lacks).count()) {
        (0, _) => (Warn, format!("none of {} events has one", events.len())),
        (_, 0) => (Pass, format!("{} events have one", ids.len())),
        (_, lacks) => (Warn, format!("{lacks} of {} events have none", events.len())),
    }
}

pub(super) fn resume(seen: &Seen) -> Finding {
    let Some((id, exchange)) = &seen.resumed else {
        return (Unjudged, "no event has an id".into());
    };
    let with_id = |events: &[Event]| -> Vec<(String, String)> {
        events.iter().filter_map(|event| Some((event.id.clone()?, event.data.clone()))).collect()
    };
    let (before, came) = (with_id(&seen.first.events), with_id(&exchange.events));
    let at = before.iter().position(|(found, _)| found == id).unwrap_or_default();
    let (known, missed) = before.split_at(at + 1);
    let is_other = |event: &&Event| seen.first.events.iter().all(|found| found.kind != event.kind);
    let told = exchange.events.iter().take_while(|event| event.id.is_none()).find(is_other);
    let repeated = came.first().filter(|(first, _)| known.iter().any(|(id, _)| id == first));
    let lost = missed.iter().zip(&came).find(|(missed, came)| missed != came);
    let (outcome, found) = match exchange.response.as_ref().map(|response| response.status) {
        Err(sentence) => (Fail, sentence.clone()),
        Ok(Status::NO_CONTENT) if missed.is_empty() => (Pass, "204".into()),
        Ok(Status::OK) => match (told, repeated, lost) {
            (Some(event), ..) => (Pass, format!("the event {} tells of a loss", shown(&event.kind))),
            (_, Some((id, _)), _) => (Fail, format!("the stream begins at {} again", shown(id))),
            (.., Some(((missed, _), (came, _)))) if missed == came => {
                (Fail, format!("{} comes with other data", shown(came)))
            }
            (.., Some(((missed, _), (came, _)))) => {
                (Fail, format!("the stream goes on at {}, not at {}", shown(came), shown(missed)))
            }
            _ => {
                let count = came.len().min(missed.len());
                let outcome = Fail.unless(missed.is_empty() || !came.is_empty());
                (outcome, format!("{count} of {} events came again", missed.len()))
            }
        },
        Ok(other) => (Fail, other.to_string()),
    };
    (outcome, format!("after {}, {found}", shown(id)))
}

pub(super) fn ending(seen: &Seen) -> Finding {
    let after = seconds(seen.first.ended_at);
    let again = match (&seen.again, &seen.first.end) {
        (Some(again), _) => again,
        (_, Some(Err(sentence))) => return (Fail, format!("after {after}, {sentence}")),
        _ => return (Pass, format!("open after {after}")),
    };
    let before: BTreeSet<_> = seen.first.events.iter().map(|event| (&event.id, &event.data)).collect();
    let is_new = |event: &Event| !before.contains(&(&event.id, &event.data));
    match again.response.as_ref().map(|response| response.status) {
        Err(sentence) => (Fail, format!("after a clean end, {sentence}")),
        Ok(Status::NO_CONTENT) => (Pass, "a clean end, and then 204".into()),
        Ok(Status::OK) if again.events.iter().any(is_new) => {
            (Pass, format!("a clean end after {after}, and then other events"))
        }
        Ok(Status::OK) => (Fail, "a clean end, and then another stream without anything new".into()),
        Ok(other) => (Warn, format!("a clean end, and then {other}")),
    }
}
