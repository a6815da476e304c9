//! Redis dies, stops, or cannot be reached, and comes back: nothing is lost, and streams stay.

use super::clients::{Client, publish};
use super::machines::{Redis, Relay, node};
use crate::server::{PATIENCE, Stream, ask, eventually};
use crate::standard_error::Unheard;
use std::time::{Duration, Instant};

/// Publishes until it succeeds. An event whose publisher was answered 503 may be there all the same.
fn publish_at_last(address: std::net::SocketAddr, data: &str) -> String {
    let mut id = None;
    eventually("something can be published again", || {
        id = publish(address, "news", data).ok();
        id.is_some()
    });
    id.expect("it is published")
}

#[test]
fn subscribers_stay_and_go_on_when_redis_is_killed_and_starts_again() {
    let Some(mut redis) = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let nodes = [redis.node(), redis.node()];
    let mut subscribers = nodes.each_ref().map(|node| Stream::subscribe(node.address, "news"));
    publish(nodes[0].address, "news", "before").expect("Redis runs");
    for _ in 0..3 {
        redis.kill();
        let refused = ask(nodes[0].address, "POST", "/channels/news", &[], "while it is down");
        assert_eq!(refused.status, 503);
        assert!(refused.field("retry-after").is_some());
        redis.restart();
        publish_at_last(nodes[0].address, "after");
    }
    for stream in &mut subscribers {
        assert_eq!(stream.next().expect("it stays").data, "before");
        for _ in 0..3 {
            assert_eq!(stream.next().expect("it stays").data, "after");
        }
    }
    assert_eq!(nodes[0].metric("newswire_redis_resets_total"), 0);
    assert!(nodes[0].metric("newswire_redis_reconnects_total") >= 3);
}

#[test]
fn a_redis_that_kept_nothing_is_noticed_and_clients_are_told_a_gap() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let mut streams = nodes.each_ref().map(|node| Stream::subscribe(node.address, "news"));
    let id = publish(nodes[0].address, "news", "lost").expect("Redis runs");
    for stream in &mut streams {
        stream.next().expect("it arrives");
    }
    redis.kill();
    redis.restart();
    streams.into_iter().for_each(Stream::until_closed);
    let mut streams = nodes.each_ref().map(|node| Stream::resume(node.address, "news", &id));
    for stream in &mut streams {
        let gap = stream.next().expect("it goes on");
        assert_eq!(gap.event_type, "gap");
        assert!(gap.data.contains("\"oldest\":null"), "{gap:?}");
    }
    let next = publish_at_last(nodes[0].address, "next");
    for stream in &mut streams {
        assert_eq!(stream.next().expect("it goes on").last_event_id, next);
    }
}

#[test]
fn while_redis_is_stopped_publishers_are_refused_and_streams_have_heartbeats() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let mut stream = Stream::subscribe(nodes[1].address, "news");
    publish(nodes[0].address, "news", "before").expect("Redis runs");
    stream.next().expect("it arrives");
    redis.signal("STOP");
    let stopped = Instant::now();
    // The first command is sent, and its outcome unknown; the second is not.
    let statuses = [1, 2].map(|n| publish(nodes[0].address, "news", &format!("in doubt {n}")));
    assert_eq!(statuses, [Err(503), Err(503)]);
    let heartbeats = |bytes: &[u8]| bytes.windows(2).filter(|line| line == b":\n").count();
    let before = heartbeats(&stream.bytes);
    stream.read_until(|bytes| heartbeats(bytes) >= before + 2);
    eventually("the server notices that Redis is silent", || nodes[1].metric("newswire_redis_connected") == 0);
    let refused = Stream::subscribe(nodes[1].address, "news");
    refused.until_closed();
    std::thread::sleep(Duration::from_secs(5).saturating_sub(stopped.elapsed()));
    redis.signal("CONT");
    let after = publish_at_last(nodes[0].address, "after");
    loop {
        let message = stream.next().expect("it stays");
        if message.last_event_id == after {
            break;
        }
        assert!(message.data.starts_with("in doubt") || message.data == "after", "{message:?}");
    }
}

#[test]
fn a_network_that_swallows_everything_is_noticed_and_the_stream_goes_on() {
    let Some(redis) = Redis::start(&[]) else { return };
    let relay = Relay::start(redis.address());
    let (cut_off, other) = (node(relay.address, &[]), redis.node());
    let mut stream = Stream::subscribe(cut_off.address, "news");
    publish(other.address, "news", "before").expect("Redis runs");
    stream.next().expect("it arrives");
    relay.rules().swallows = true;
    let during = publish(other.address, "news", "during").expect("this one reaches Redis");
    eventually("the server notices", || cut_off.metric("newswire_redis_connected") == 0);
    assert_eq!(publish(cut_off.address, "news", "x"), Err(503));
    relay.rules().swallows = false;
    assert_eq!(stream.next().expect("it stays").last_event_id, during);
    publish_at_last(cut_off.address, "after");
}

#[test]
fn a_reply_that_is_lost_is_found_by_its_token_and_the_event_is_there_once() {
    let Some(redis) = Redis::start(&[]) else { return };
    let relay = Relay::start(redis.address());
    let node = node(relay.address, &[]);
    let mut stream = Stream::subscribe(node.address, "news");
    publish(node.address, "news", "first").expect("Redis runs");
    stream.next().expect("it arrives");
    let mut answered = 0;
    for n in 0..5 {
        relay.rules().loses_reply = true;
        let data = format!("lost reply {n}");
        let answer = publish(node.address, "news", &data);
        let message = stream.next().expect("it goes on");
        assert_eq!(message.data, data, "it is there, and nothing twice");
        match answer {
            Ok(id) => {
                assert_eq!(id, message.last_event_id);
                answered += 1;
            }
            Err(status) => assert_eq!(status, 503),
        }
    }
    assert!(answered > 0, "the reader meets the token of at least one");
    assert_eq!(redis.cli(&["XLEN", "newswire:{news}"]), "6");
}

#[test]
fn a_server_starts_without_redis_and_works_when_that_comes() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    redis.kill();
    let node = redis.node();
    assert_eq!(publish(node.address, "news", "x"), Err(503));
    let refused = Stream::subscribe(node.address, "news");
    refused.until_closed();
    // Redis is known to be down now, so a publisher waits for nothing: otherwise this would take 80 s.
    let begun = Instant::now();
    for _ in 0..40 {
        assert_eq!(publish(node.address, "news", "x"), Err(503));
    }
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(ask(node.address, "GET", "/healthz", &[], "").status, 200);
    redis.restart();
    publish_at_last(node.address, "at last");
    assert!(node.said().contains("connected"), "{}", node.said());
}

#[test]
fn too_few_replicas_leave_a_publisher_in_doubt() {
    let Some(redis) = Redis::start(&[]) else { return };
    let node = node(redis.address(), &["--redis-wait", "1"]);
    let mut stream = Stream::subscribe(node.address, "news");
    let answer = ask(node.address, "POST", "/channels/news", &[], "x");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("may or may not"), "{answer:?}");
    assert_eq!(stream.next().expect("Redis has it").data, "x");
}

#[test]
fn a_server_that_was_stopped_itself_tells_a_gap_if_redis_has_trimmed_meanwhile() {
    let Some(redis) = Redis::start(&[]) else { return };
    let limits = ["--history-events", "100"];
    let (sleeper, busy) = (node(redis.address(), &limits), node(redis.address(), &limits));
    let client = Client::start("news", "earliest", {
        let address = sleeper.address;
        move || vec![address]
    });
    publish(busy.address, "news", "first").expect("Redis runs");
    eventually("it arrives", || client.data() == ["first"]);
    let signal = |signal: &str| {
        let pid = sleeper.pid().to_string();
        let status = std::process::Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("kill is there").success());
    };
    signal("-STOP");
    for n in 0..500 {
        publish(busy.address, "news", &n.to_string()).expect("Redis runs");
    }
    signal("-CONT");
    eventually("the last event arrives", || client.data().last().is_some_and(|data| data == "499"));
    assert_eq!(client.gaps(), 1, "{:?}", client.data());
}

#[test]
fn redis_may_be_slow() {
    let Some(redis) = Redis::start(&[]) else { return };
    let relay = Relay::start(redis.address());
    relay.rules().drips = true;
    let node = node(relay.address, &[]);
    let mut stream = Stream::subscribe(node.address, "news");
    for n in 0..20 {
        publish(node.address, "news", &n.to_string()).expect("one byte at a time is no fault");
    }
    for n in 0..20 {
        assert_eq!(stream.next().expect("it goes on").data, n.to_string());
    }
    assert_eq!(node.metric("newswire_redis_reconnects_total"), 0);
}

#[test]
fn a_log_that_is_not_read_stops_no_publisher_over_redis() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let address = redis.address().to_string();
    let mut server = Unheard::start(&["--publish-open", "--redis", &address]);
    let publish = || ask(server.address, "POST", "/channels/news", &[], "x").status;
    eventually("Redis is there", || publish() == 200);
    redis.kill();
    assert_eq!(publish(), 503);
    redis.restart();
    eventually("Redis is there again", || publish() == 200);
    server.drain(&[]);
}
