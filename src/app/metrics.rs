//! `GET /metrics`: what the server counts.

use super::access::Access;
use super::authorization::Authorization;
use crate::channel::{Channels, RedisFigures, Summary};
use crate::http::admission::Admission;
use crate::http::{Response, Status};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Prometheus text exposition format 0.0.4. What ends in `_total` is a counter since the server began.
pub(super) fn respond(channels: &Channels, connections: &Admission, access: &Access) -> Response {
    let (http, hub, listed) = (&connections.counters, channels.counters(), channels.list());
    let (views, subscribers) = channels.views();
    let of = |counter: &AtomicU64| counter.load(Relaxed);
    let asked = |counter: fn(&Authorization) -> &AtomicU64| {
        access.authorization.as_deref().map_or(0, |application| of(counter(application)))
    };
    let kept = |of: fn(&Summary) -> usize| listed.iter().map(of).sum::<usize>() as u64;
    let metrics = [
        ("connections", "Connections open.", connections.len() as u64),
        (
            "connections_waiting",
            "Connections whose first request has not come, or waits for a place.",
            connections.waiting() as u64,
        ),
        (
            "subscribers",
            "Subscribers of all channels and views.",
            kept(|channel| channel.subscribers) + subscribers as u64,
        ),
        ("views", "Views of several channels.", views as u64),
        ("channels", "Channels.", listed.len() as u64),
        ("history_events", "Events that the channels keep.", kept(|channel| channel.events)),
        ("history_bytes", "Their bytes.", kept(|channel| channel.bytes)),
        (
            "access_granted",
            "Streams that are reviewed, because their key may go or their authorization expire.",
            access.granted.len(),
        ),
        (
            "channels_evicted_total",
            "Channels evicted to make room for others.",
            of(&hub.channels_evicted),
        ),
        ("channels_expired_total", "Channels unused for too long.", of(&hub.channels_expired)),
        ("events_expired_total", "Events that were kept for too long.", of(&hub.events_expired)),
        ("connections_accepted_total", "Connections accepted.", of(&http.accepted)),
        ("requests_total", "Requests read.", of(&http.requests)),
        ("accept_errors_total", "Failures to accept a connection.", of(&http.accept_errors)),
        ("threads_refused_total", "Threads that the system refused.", of(&http.threads_refused)),
        ("connections_evicted_total", "Connections evicted for another one.", of(&http.evicted)),
        (
            "connections_unreachable_total",
            "Connections ended because the peer acknowledged nothing any more.",
            of(&http.unreachable),
        ),
        ("panics_total", "Handlers that panicked.", of(&http.panics)),
        ("events_published_total", "Events published.", of(&hub.events_published)),
        ("bytes_published_total", "Their bytes, as they are sent.", of(&hub.bytes_published)),
        ("events_delivered_total", "Events written to subscribers.", of(&hub.events_delivered)),
        ("bytes_delivered_total", "Their bytes.", of(&hub.bytes_delivered)),
        ("replays_total", "Subscriptions that named a last event ID.", of(&hub.replays)),
        ("journal_syncs_total", "Waits for a disk.", of(&hub.journal_syncs)),
        ("journal_errors_total", "Failures of a journal.", of(&hub.journal_errors)),
        (
            "journal_poisoned_total",
            "Segments of a journal given up after a failure.",
            of(&hub.journal_poisoned),
        ),
        ("gaps_total", "Subscriptions that got a gap event.", of(&hub.gaps)),
        ("access_refused_total", "Requests without a key that allows them.", of(&access.refused)),
        (
            "access_revoked_total",
            "Streams that ended because their key is gone or their authorization expired.",
            of(&access.granted.revoked),
        ),
        ("authorize_requests_total", "Questions to the application.", asked(|it| &it.questions)),
        ("authorize_errors_total", "Those without a decision in time.", asked(|it| &it.failures)),
        ("authorize_cache_hits_total", "Decisions that were kept.", asked(|it| &it.cache_hits)),
    ];
    let mut text = described(&metrics);
    if let Some(redis) = channels.redis() {
        text += &of_redis(&redis);
    }
    let name = "newswire_disconnects_total";
    text += &format!("# HELP {name} Subscribers that have left, by reason.\n");
    text += &format!("# TYPE {name} counter\n");
    let reasons = [
        ("client", &hub.left),
        ("slow", &hub.slow),
        ("stalled", &hub.stalled),
        ("completed", &hub.completed),
    ];
    for (reason, counter) in reasons {
        text += &format!("{name}{{reason=\"{reason}\"}} {}\n", of(counter));
    }
    Response::bytes(Status::OK, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes())
        .field("Cache-Control", "no-store")
}

fn described(metrics: &[(&str, &str, u64)]) -> String {
    let mut text = String::new();
    for (name, help, value) in metrics {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        text += &format!("# HELP newswire_{name} {help}\n# TYPE newswire_{name} {kind}\n");
        text += &format!("newswire_{name} {value}\n");
    }
    text
}

fn of_redis(redis: &RedisFigures) -> String {
    described(&[
        ("redis_connected", "1 while streams are read from Redis.", redis.is_connected.into()),
        ("redis_streams", "Streams that are followed.", redis.streams as u64),
        ("redis_behind", "Streams that have changed and are not read yet.", redis.behind as u64),
        ("redis_queue", "Commands that wait to be sent.", redis.waiting as u64),
        ("redis_queue_bytes", "Their bytes.", redis.waiting_bytes as u64),
        ("redis_reconnects_total", "Connections to Redis after the first.", redis.reconnects),
        ("redis_errors_total", "Failures of connections and commands.", redis.errors),
        ("redis_resets_total", "Streams that had lost what was read.", redis.resets),
        ("redis_skipped_total", "Entries that no channel can hold.", redis.skipped),
    ])
}
