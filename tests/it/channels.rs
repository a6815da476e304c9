//! Channels: one history, many subscribers.

use crate::resumption::numbers;
use crate::server::{PATIENCE, Publisher, Server, Stream, ask, connect, eventually, exchange, is_opening, serve_app};
use newswire::Event;
use newswire::app::{App, Publishers};
use newswire::channel::{Channels, Limits};
use newswire::sse::Message;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

pub(crate) const OPEN: [&str; 2] = ["--publish-open", "--quiet"];

pub(crate) fn complete(address: SocketAddr, channel: &str) {
    let answer = ask(address, "DELETE", &format!("/channels/{channel}"), &[], "");
    assert_eq!(answer.status, 204, "{answer:?}");
}

pub(crate) fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.last_event_id.as_str()).collect()
}

/// A server in this process, with these limits, on which everything may be published.
pub(crate) fn start(limits: Limits) -> (SocketAddr, Channels) {
    serve_app(App { channel_limits: limits, publishers: Publishers::Anyone, ..App::default() })
}

/// The value of one line of the metrics.
pub(crate) fn metric(address: SocketAddr, name: &str) -> u64 {
    let metrics = exchange(address, "GET /metrics HTTP/1.0\r\n\r\n");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{name} is not in {metrics}"));
    value.parse().expect("it is a number")
}

pub(crate) fn disconnects(address: SocketAddr, reason: &str) -> u64 {
    metric(address, &format!("newswire_disconnects_total{{reason=\"{reason}\"}}"))
}

/// The last event of a stream whose channel was completed.
pub(crate) const END: &[u8] = b"event: end\ndata: the channel is completed\n\n";

/// The opening of a stream, and what follows it.
pub(crate) fn split_opening(bytes: &[u8]) -> (&[u8], &[u8]) {
    let ends = (0..=bytes.len()).find(|&end| is_opening(&bytes[..end]));
    bytes.split_at(ends.expect("the opening is whole"))
}

/// How many heartbeats there are among the lines of a stream.
pub(crate) fn heartbeats(bytes: &[u8]) -> usize {
    let whole = bytes.split_inclusive(|&byte| byte == b'\n');
    whole.filter(|line| *line == b":\n").count()
}

/// How many threads of this name the server has.
pub(crate) fn threads_named(server: &Server, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|found| found.trim_end() == name)
        .count()
}

/// The reconnection time in the opening of a stream, which is a comment and that.
fn reconnection_time(stream: &Stream) -> Duration {
    let (opening, rest) = split_opening(&stream.bytes);
    let opening = std::str::from_utf8(opening).expect("it is UTF-8");
    let (comment, retry) = opening.split_once('\n').expect("there are two lines");
    assert!(comment.starts_with(": "), "{opening:?}");
    assert_eq!(rest, b"", "no blank line ends the opening, and nothing follows it yet");
    let retry = retry.strip_prefix("retry: ").and_then(|retry| retry.strip_suffix('\n'));
    Duration::from_millis(retry.expect("it is there").parse().expect("it is a number"))
}

#[test]
fn a_stream_opens_at_once_with_the_fields_that_proxies_need() {
    let server = Server::start(&OPEN);
    let mut times = Vec::new();
    for _ in 0..12 {
        let mut stream = Stream::subscribe(server.address, "c");
        // No event is ever published.
        stream.read_until(is_opening);
        let answer = &stream.answer;
        assert_eq!(answer.field("content-type"), Some("text/event-stream"));
        assert_eq!(answer.field("cache-control"), Some("no-store, no-transform"));
        assert_eq!(answer.field("x-accel-buffering"), Some("no"));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
        // The close delimits the stream: it has neither a length nor chunks.
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(answer.field("content-length"), None);
        assert_eq!(answer.field("transfer-encoding"), None);
        times.push(reconnection_time(&stream));
    }
    let second = Duration::from_secs(1);
    assert!(times.iter().all(|time| (2 * second..3 * second).contains(time)), "{times:?}");
    // Clients do not all come back in the same instant.
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 6, "{times:?}");
}

#[test]
fn all_subscribers_get_the_same_events_in_the_same_order() {
    const SUBSCRIBERS: usize = 60;
    const PUBLISHERS: usize = 4;
    const EVENTS: usize = 1000;
    let history = ["--history-events", "100000", "--history-bytes", "100000000"];
    let server = Server::start(&[&OPEN[..], &history].concat());
    let address = server.address;
    let streams: Vec<Stream> = (0..SUBSCRIBERS).map(|_| Stream::subscribe(address, "c")).collect();
    let readers: Vec<_> = streams.into_iter().map(|mut stream| thread::spawn(move || stream.until_end())).collect();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            thread::spawn(move || {
                let mut connection = Publisher::connect(address, "c");
                let publish = |event| {
                    let data = format!("{publisher}/{event}");
                    (connection.publish(&data), data)
                };
                (0..EVENTS).map(publish).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut published: Vec<(String, String)> = Vec::new();
    for publisher in publishers {
        published.extend(publisher.join().expect("it publishes"));
    }
    published.sort_by_key(|(id, _)| numbers(id));
    complete(address, "c");
    for reader in readers {
        let received = reader.join().expect("it gets the end");
        let received: Vec<(String, String)> =
            received.into_iter().map(|message| (message.last_event_id, message.data)).collect();
        // One comparison says it all: the same order, no event twice, none missing, ids that grow.
        assert_eq!(received.len(), published.len());
        assert!(received == published);
    }
    let delivered = (SUBSCRIBERS * PUBLISHERS * EVENTS) as u64;
    assert_eq!(server.metric("newswire_events_delivered_total"), delivered);
    assert_eq!(
        server.metric("newswire_bytes_delivered_total"),
        server.metric("newswire_bytes_published_total") * SUBSCRIBERS as u64
    );
    assert_eq!(disconnects(address, "completed"), SUBSCRIBERS as u64);
}

#[test]
fn a_subscriber_with_room_loses_nothing_however_fast_events_are_published() {
    // The history keeps one event. It must be copied for all subscribers before the next one pushes it out. All events
    // together fit in any socket, so that a subscriber that falls behind was not given the time.
    let (address, channels) =
        start(Limits { history_events: 1, heartbeat: Duration::from_millis(100), ..Limits::default() });
    for subscribers in [1, 12] {
        let channel = channels.open(&format!("c{subscribers}")).expect("it is a name");
        let mut streams: Vec<Stream> = (0..subscribers).map(|_| Stream::subscribe(address, channel.name())).collect();
        // A subscriber that gets a heartbeat is live. Before that, the history may pass it by.
        for stream in &mut streams {
            stream.read_until(|bytes| heartbeats(bytes) > 0);
        }
        let publishers = [(); 3].map(|()| {
            let channel = channel.clone();
            let publish = move |_| channel.publish(Event::new("x")).expect("it is small").id;
            thread::spawn(move || (0..400).map(publish).collect::<Vec<_>>())
        });
        let published = publishers.map(|publisher| publisher.join().expect("it publishes"));
        let mut published = published.concat();
        published.sort_by_key(|id| numbers(id));
        channel.complete().expect("it is in memory");
        for stream in &mut streams {
            assert_eq!(ids(&stream.until_end()), published, "of {subscribers}");
        }
    }
}

#[test]
fn the_events_of_one_channel_reach_no_other() {
    const CHANNELS: usize = 40;
    let server = Server::start(&OPEN);
    let address = server.address;
    let mut streams: Vec<(usize, Stream)> = (0..3 * CHANNELS)
        .map(|at| at % CHANNELS)
        .map(|channel| (channel, Stream::subscribe(address, &format!("c{channel}"))))
        .collect();
    let mut publishers: Vec<Publisher> =
        (0..CHANNELS).map(|channel| Publisher::connect(address, &format!("c{channel}"))).collect();
    for event in 0..10 {
        for (channel, publisher) in publishers.iter_mut().enumerate() {
            publisher.publish(&format!("{channel} {event}"));
        }
    }
    for channel in 0..CHANNELS {
        complete(address, &format!("c{channel}"));
    }
    for (channel, stream) in &mut streams {
        let received = stream.until_end();
        let received: Vec<&str> = received.iter().map(|message| message.data.as_str()).collect();
        let expected: Vec<String> = (0..10).map(|event| format!("{channel} {event}")).collect();
        assert_eq!(received, expected);
    }
}

#[test]
fn a_history_is_bounded_in_events_and_in_bytes_and_the_list_says_what_it_keeps() {
    let server = Server::start(&["--publish-open", "--quiet", "--history-events", "5", "--history-bytes", "1024"]);
    let address = server.address;
    let mut publisher = Publisher::connect(address, "c.d-e_f");
    let mut ids = Vec::new();
    for round in 0..40 {
        let data = "x".repeat(round * 23);
        ids.push(publisher.publish(&data));
        let mut stream = Stream::resume(address, "c.d-e_f", "earliest");
        let mut kept = Vec::new();
        while kept.last() != ids.last() {
            kept.push(stream.next().expect("it is kept").last_event_id);
        }
        assert!((1..=5).contains(&kept.len()));
        assert_eq!(kept, ids[ids.len() - kept.len()..]);
        // The bytes behind the opening are those that the list reports.
        let (_, kept_bytes) = split_opening(&stream.bytes);
        let bytes = kept_bytes.len();
        assert!(bytes <= 1024, "{bytes}");
        let listed = ask(address, "GET", "/channels", &[], "");
        let expected = format!(
            "[{{\"name\":\"c.d-e_f\",\"subscribers\":1,\"events\":{},\"bytes\":{bytes},\
             \"first_id\":\"{}\",\"last_id\":\"{}\",\"last_published_ms\":{},\"completed\":false}}]\n",
            kept.len(),
            kept[0],
            kept[kept.len() - 1],
            numbers(&kept[kept.len() - 1]).0
        );
        assert_eq!(listed.text(), expected);
        assert_eq!(server.metric("newswire_history_events"), kept.len() as u64);
        assert_eq!(server.metric("newswire_history_bytes"), bytes as u64);
        // The subscriber must be gone before the next one is counted.
        drop(stream);
        eventually("it has left", || {
            ids.push(publisher.publish(&data));
            server.metric("newswire_subscribers") == 0
        });
    }
}

#[test]
fn the_metrics_are_prometheus_text_and_count_what_happened() {
    let server = Server::start(&OPEN);
    let address = server.address;
    let mut stream = Stream::subscribe(address, "c");
    let id = Publisher::connect(address, "c").publish("x");
    stream.next().expect("it is live");
    drop(Stream::resume(address, "c", &id));
    let gap = Stream::resume(address, "c", "1-1").next();
    assert_eq!(gap.expect("it is told").event_type, "gap");
    let answer = ask(address, "GET", "/metrics", &[], "");
    assert_eq!(answer.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));

    let mut described = Vec::new();
    let mut samples = Vec::new();
    for line in answer.text().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, _, ..] => described.push(*name),
            ["#", "TYPE", name, kind] => {
                assert_eq!(described.last(), Some(name), "{line}");
                let is_counter = name.ends_with("_total");
                assert_eq!(*kind, if is_counter { "counter" } else { "gauge" });
            }
            [sample, value] => {
                let name = sample.split('{').next().expect("split gives one");
                assert_eq!(described.last(), Some(&name), "{line}");
                value.parse::<u64>().expect("it is a number");
                samples.push(*sample);
            }
            _ => panic!("{line:?}"),
        }
    }
    let mut unique = described.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), described.len(), "{described:?}");
    assert!(described.iter().all(|name| name.starts_with("newswire_")));
    // These exist.
    for sample in [
        "newswire_connections",
        "newswire_subscribers",
        "newswire_channels",
        "newswire_events_published_total",
        "newswire_bytes_published_total",
        "newswire_events_delivered_total",
        "newswire_bytes_delivered_total",
        "newswire_replays_total",
        "newswire_gaps_total",
        "newswire_disconnects_total{reason=\"client\"}",
        "newswire_disconnects_total{reason=\"slow\"}",
        "newswire_disconnects_total{reason=\"stalled\"}",
        "newswire_disconnects_total{reason=\"completed\"}",
        "newswire_accept_errors_total",
        "newswire_panics_total",
    ] {
        assert!(samples.contains(&sample), "{sample} is not in {samples:?}");
    }
    assert_eq!(server.metric("newswire_events_published_total"), 1);
    let frame = format!("id: {id}\ndata: x\n\n").len() as u64;
    assert_eq!(server.metric("newswire_bytes_published_total"), frame);
    assert_eq!(server.metric("newswire_replays_total"), 2);
    assert_eq!(server.metric("newswire_gaps_total"), 1);
    assert_eq!(server.metric("newswire_panics_total"), 0);
}

#[test]
fn a_head_request_gets_the_head_of_a_stream_and_does_not_subscribe() {
    let server = Server::start(&OPEN);
    let get = Stream::subscribe(server.address, "c").answer.head;
    let head = ask(server.address, "HEAD", "/channels/c", &[], "").head;
    // The dates may differ by a second. What the channel looks like is told to HEAD alone.
    let same = |head: &str| {
        let lines = head.lines().filter(|line| !line.starts_with("Date: ") && !line.starts_with("Newswire-"));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(same(&head), same(&get));
    assert!(head.contains("\nNewswire-Subscribers: ") && !get.contains("Newswire-"), "{head} {get}");
    eventually("both are gone", || {
        Publisher::connect(server.address, "c").publish("x");
        server.metric("newswire_subscribers") == 0
    });
}

#[test]
fn a_stream_is_the_last_response_of_a_kept_connection() {
    let server = Server::start(&OPEN);
    let mut socket = connect(server.address);
    let requests = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\
                    POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nfirst\
                    GET /channels/c?last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(requests.as_bytes()).expect("the server reads");
    let mut received = Vec::new();
    while !received.ends_with(b"data: first\n\n") {
        let mut piece = [0; 1024];
        let length = socket.read(&mut piece).expect("it is live");
        assert!(length > 0, "it ended after {}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&piece[..length]);
    }
    assert_eq!(String::from_utf8_lossy(&received).matches("HTTP/1.1 200 OK").count(), 3);
    // And it is live.
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("it is not zero");
    let error = socket.read(&mut [0]).expect_err("nothing is published");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    complete(server.address, "c");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let mut rest = String::new();
    socket.read_to_string(&mut rest).expect("it ends");
    assert_eq!(rest, "event: end\ndata: the channel is completed\n\n");
}
