//! `GET /metrics`: what the server counts.

use super::access::Access;
use super::authorization::Authorization;
use super::drain::Drain;
use crate::channel::{Channels, RedisFigures, Summary};
use crate::http::admission::Admission;
use crate::http::{Response, Status};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Name, help and value of a row. A counter ends in `_total`, and counts since the server began. Rows of one name with
/// different labels stand together.
type Row = (&'static str, &'static str, u64);

/// Prometheus text exposition format 0.0.4.
pub(super) fn respond(channels: &Channels, connections: &Admission, access: &Access, drain: &Drain) -> Response {
    let draining = drain.is_draining().into();
    let mut text = described(&[("draining", "1 once a client drains the server.", draining)]);
    text += &described(&of_connections(connections));
    text += &described(&of_channels(channels));
    text += &described(&of_access(access));
    if let Some(redis) = channels.redis() {
        text += &described(&of_redis(&redis));
    }
    Response::bytes(Status::OK, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes())
        .field("Cache-Control", "no-store")
}

fn described(rows: &[Row]) -> String {
    let (mut text, mut before) = (String::new(), "");
    for (name, help, value) in rows {
        let family = name.split('{').next().unwrap_or(name);
        if family != before {
            let kind = if family.ends_with("_total") { "counter" } else { "gauge" };
            text += &format!("# HELP newswire_{family} {help}\n# TYPE newswire_{family} {kind}\n");
        }
        text += &format!("newswire_{name} {value}\n");
        before = family;
    }
    text
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

#[rustfmt::skip]
fn of_connections(connections: &Admission) -> Vec<Row> {
    let (http, (open, waiting)) = (&connections.counters, connections.counts());
    vec![
        ("connections", "Connections that are open.", open as u64),
        ("connections_waiting", "Connections that wait for their first request, or for a place.", waiting as u64),
        ("connections_accepted_total", "Connections accepted.", of(&http.accepted)),
        ("connections_evicted_total", "Connections closed to make room for another one.", of(&http.evicted)),
        ("connections_unreachable_total", "Connections closed because the peer acknowledged nothing any more.", of(&http.unreachable)),
        ("accept_errors_total", "Failures to accept a connection.", of(&http.accept_errors)),
        ("threads_refused_total", "Threads that the system refused.", of(&http.threads_refused)),
        ("requests_total", "Requests read.", of(&http.requests)),
        ("panics_total", "Handlers that panicked.", of(&http.panics)),
    ]
}

#[rustfmt::skip]
fn of_channels(channels: &Channels) -> Vec<Row> {
    let (hub, listed, [views, presences, subscribers]) = (channels.counters(), channels.list(), channels.views());
    let sum = |of: fn(&Summary) -> usize| listed.iter().map(of).sum::<usize>() as u64;
    const LEFT: &str = "Subscribers that have left, by reason.";
    vec![
        ("subscribers", "Subscribers of all channels and views.", subscribers as u64),
        ("disconnects_total{reason=\"client\"}", LEFT, of(&hub.left)),
        ("disconnects_total{reason=\"slow\"}", LEFT, of(&hub.slow)),
        ("disconnects_total{reason=\"stalled\"}", LEFT, of(&hub.stalled)),
        ("disconnects_total{reason=\"completed\"}", LEFT, of(&hub.completed)),
        ("replays_total", "Subscriptions that named a last event ID.", of(&hub.replays)),
        ("gaps_total", "Subscriptions that got a gap event.", of(&hub.gaps)),
        ("views", "Views of several channels.", views as u64),
        ("presences", "Presences that have subscribers.", presences as u64),
        ("channels", "Channels.", listed.len() as u64),
        ("channels_evicted_total", "Channels removed to make room for others.", of(&hub.channels_evicted)),
        ("channels_expired_total", "Channels removed because they were unused for too long.", of(&hub.channels_expired)),
        ("channels_not_begun_total", "Refusals of a channel that has not begun to a client that may not begin it.", of(&hub.not_begun)),
        ("history_events", "Events that the channels keep.", sum(|channel| channel.events)),
        ("history_bytes", "Bytes of the events that the channels keep.", sum(|channel| channel.bytes)),
        ("events_expired_total", "Events removed because they were kept for too long.", of(&hub.events_expired)),
        ("events_published_total", "Events published.", of(&hub.events_published)),
        ("bytes_published_total", "Bytes of the events published, as they are sent.", of(&hub.bytes_published)),
        ("events_delivered_total", "Events written to subscribers.", of(&hub.events_delivered)),
        ("bytes_delivered_total", "Bytes of the events written to subscribers.", of(&hub.bytes_delivered)),
        ("journal_syncs_total", "Times that a journal waited for the disk.", of(&hub.journal_syncs)),
        ("journal_errors_total", "Failures of a journal.", of(&hub.journal_errors)),
        ("journal_poisoned_total", "Segments of a journal given up after a failure.", of(&hub.journal_poisoned)),
    ]
}

#[rustfmt::skip]
fn of_access(access: &Access) -> Vec<Row> {
    let asked = |counter: fn(&Authorization) -> &AtomicU64| {
        access.authorization.as_deref().map_or(0, |application| of(counter(application)))
    };
    vec![
        ("access_granted", "Streams that end when their key or their authorization is gone.", access.granted.len()),
        ("access_refused_total", "Requests without a key that allows them.", of(&access.refused)),
        ("access_file_errors_total", "Changes of the file of keys that were not taken.", of(&access.file_errors)),
        ("access_revoked_total", "Streams ended because their key or their authorization was gone.", of(&access.granted.revoked)),
        ("authorize_requests_total", "Questions to the application that authorizes.", asked(|it| &it.questions)),
        ("authorize_errors_total", "Questions to the application without a decision in time.", asked(|it| &it.failures)),
        ("authorize_cache_hits_total", "Decisions of the application that were used again.", asked(|it| &it.cache_hits)),
    ]
}

#[rustfmt::skip]
fn of_redis(redis: &RedisFigures) -> Vec<Row> {
    vec![
        ("redis_connected", "1 while streams are read from Redis.", redis.is_connected.into()),
        ("redis_streams", "Streams in Redis that are followed.", redis.streams as u64),
        ("redis_behind", "Streams in Redis that have changed and are not read yet.", redis.behind as u64),
        ("redis_queue", "Commands that wait to be sent to Redis.", redis.waiting as u64),
        ("redis_queue_bytes", "Bytes of the commands that wait to be sent to Redis.", redis.waiting_bytes as u64),
        ("redis_reconnects_total", "Connections to Redis after the first.", redis.reconnects),
        ("redis_errors_total", "Failures of connections to Redis and of commands.", redis.errors),
        ("redis_resets_total", "Streams in Redis that had lost what was read of them.", redis.resets),
        ("redis_skipped_total", "Entries in Redis that no channel can hold.", redis.skipped),
    ]
}
