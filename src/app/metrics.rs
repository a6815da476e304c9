//! `GET /metrics`: what the server counts.

use crate::channel::{Channels, Summary};
use crate::http::admission::Admission;
use crate::http::{Response, Status};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Prometheus text exposition format 0.0.4.
pub(super) fn respond(channels: &Channels, connections: &Admission) -> Response {
    let counts = &channels.common().counters;
    let of = |counter: &AtomicU64| counter.load(Relaxed);
    let listed = channels.list();
    let kept = |of: fn(&Summary) -> usize| listed.iter().map(of).sum::<usize>() as u64;
    let gauges = [
        ("connections", "Connections open.", connections.len() as u64),
        (
            "connections_waiting",
            "Connections whose first request has not come.",
            connections.waiting() as u64,
        ),
        ("subscribers", "Subscribers of all channels.", kept(|channel| channel.subscribers)),
        ("channels", "Channels.", listed.len() as u64),
        ("history_events", "Events that the channels keep.", kept(|channel| channel.events)),
        ("history_bytes", "Their bytes.", kept(|channel| channel.bytes)),
    ];
    let counters = [
        ("connections_accepted", "Connections accepted.", of(&connections.counters.accepted)),
        ("requests", "Requests read.", of(&connections.counters.requests)),
        (
            "accept_errors",
            "Connections that could not be accepted.",
            of(&connections.counters.accept_errors),
        ),
        (
            "threads_refused",
            "Threads that the system has refused.",
            of(&connections.counters.threads_refused),
        ),
        (
            "connections_evicted",
            "Connections evicted for another one.",
            of(&connections.counters.evicted),
        ),
        ("panics", "Handlers that panicked.", of(&connections.counters.panics)),
        ("events_published", "Events published.", of(&counts.events_published)),
        ("bytes_published", "Their bytes, as they are sent.", of(&counts.bytes_published)),
        ("events_delivered", "Events written to subscribers.", of(&counts.events_delivered)),
        ("bytes_delivered", "Their bytes.", of(&counts.bytes_delivered)),
        ("replays", "Subscriptions that named a last event ID.", of(&counts.replays)),
        ("gaps", "Subscriptions that got a gap event.", of(&counts.gaps)),
    ];
    let reasons = [
        ("client", of(&counts.left)),
        ("slow", of(&counts.slow)),
        ("stalled", of(&counts.stalled)),
        ("completed", of(&counts.completed)),
    ];
    let mut text = String::new();
    for (name, help, value) in gauges {
        text += &format!(
            "# HELP newswire_{name} {help}\n# TYPE newswire_{name} gauge\nnewswire_{name} {value}\n"
        );
    }
    for (name, help, value) in counters {
        let name = format!("newswire_{name}_total");
        text += &format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n");
    }
    let name = "newswire_disconnects_total";
    text +=
        &format!("# HELP {name} Subscribers that have left, by reason.\n# TYPE {name} counter\n");
    for (reason, value) in reasons {
        text += &format!("{name}{{reason=\"{reason}\"}} {value}\n");
    }
    Response::bytes(Status::OK, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes())
        .field("Cache-Control", "no-store")
}
