//! How many channels and subscribers there may be.

use crate::channels::{complete, start};
use crate::server::{Answer, Publisher, Server, Stream, ask, eventually};
use newswire::channel::{Channels, Limits};
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A stream that was refused for load. Its status is 200: any other ends an EventSource for good.
fn assert_told_to_come_back(answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("content-type"), Some("text/event-stream"));
    let (messages, _, reconnection_time) = crate::events::interpret(&answer.content);
    assert_eq!(messages, []);
    let reconnection_time = reconnection_time.expect("it is told when");
    let bounds = Duration::from_secs(5)..Duration::from_millis(7500);
    assert!(bounds.contains(&reconnection_time), "{reconnection_time:?}");
    assert!(answer.text().starts_with(": "), "{answer:?}");
}

#[test]
fn a_subscriber_too_many_is_told_to_come_back_and_may_when_one_has_left() {
    let server =
        Server::start(&["--publish-open", "--quiet", "--max-subscribers", "3", "--heartbeat", "1"]);
    let address = server.address;
    let mut streams: Vec<Stream> =
        ["a", "a", "b"].map(|channel| Stream::subscribe(address, channel)).into();
    for channel in ["a", "b", "new"] {
        let answer = ask(address, "GET", &format!("/channels/{channel}"), &[], "");
        assert_told_to_come_back(&answer);
    }
    assert_eq!(server.metric("newswire_subscribers"), 3);
    // Publishing is not refused, and reaches the subscribers that are there.
    Publisher::connect(address, "a").publish("x");
    assert_eq!(streams[0].next().expect("it is live").data, "x");
    drop(streams.pop());
    eventually("one has left", || server.metric("newswire_subscribers") == 2);
    let mut stream = Stream::subscribe(address, "a");
    Publisher::connect(address, "a").publish("y");
    assert_eq!(stream.next().expect("it is live").data, "y");

    // A 204 is no stream, and needs no permit.
    Publisher::connect(address, "over").publish("x");
    complete(address, "over");
    assert_eq!(ask(address, "GET", "/channels/over", &[], "").status, 204);

    let none = Server::start(&["--publish-open", "--quiet", "--max-subscribers", "0"]);
    assert_told_to_come_back(&ask(none.address, "GET", "/channels/c", &[], ""));
}

#[test]
fn channels_are_bounded_and_a_new_one_evicts_a_completed_one() {
    let server =
        Server::start(&["--publish-open", "--quiet", "--max-channels", "3", "--heartbeat", "1"]);
    let address = server.address;
    let publish = |channel: &str| {
        let answer = ask(address, "POST", &format!("/channels/{channel}"), &[], "x");
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert_eq!(answer.field("retry-after"), Some("5"));
            assert!(answer.text().contains("as many channels"), "{answer:?}");
        }
        answer.status
    };
    let names = || {
        let answer = ask(address, "GET", "/channels", &[], "");
        let names = answer.text().split("\"name\":\"").skip(1);
        let names: Vec<String> =
            names.map(|rest| rest.split('"').next().expect("split gives one").to_owned()).collect();
        names.join(" ")
    };
    // A channel that only a subscriber has asked for goes with that subscriber.
    drop(Stream::subscribe(address, "z"));
    eventually("the channel is gone", || names().is_empty());
    for channel in ["a", "b", "c"] {
        assert_eq!(publish(channel), 200);
    }
    // One more is refused.
    assert_eq!(publish("d"), 503);
    assert_eq!(ask(address, "PUT", "/channels/d?lines", &[], "x").status, 503);
    assert_eq!(publish("a"), 200, "those that exist go on");
    assert_eq!(names(), "a b c");

    // Subscribers can ask for as many besides, so that they do not keep publishers out.
    let waiting = ["d", "x", "y"].map(|channel| Stream::subscribe(address, channel));
    assert_told_to_come_back(&ask(address, "GET", "/channels/z", &[], ""));
    assert_eq!(names(), "a b c d x y");
    assert_eq!(publish("d"), 503, "it is one too many to publish on");
    drop(waiting);
    eventually("the others are gone", || names() == "a b c");

    // A completed channel without users is evicted; the one with the oldest last event first.
    complete(address, "b");
    complete(address, "a");
    assert_eq!(publish("d"), 200);
    assert_eq!(names(), "a c d");
    assert_eq!(publish("e"), 200);
    assert_eq!(names(), "c d e");
    assert_eq!(publish("f"), 503);
    // Not while it has a subscriber, which perhaps has not got the end.
    let mut subscriber = Stream::subscribe(address, "c");
    assert_eq!(publish("f"), 503);
    complete(address, "c");
    assert_eq!(subscriber.until_end(), []);
    eventually("it is evicted", || publish("f") == 200);
    assert_eq!(names(), "d e f");

    // Its history is gone with it. A client that comes back is told so, and evicts nothing.
    complete(address, "d");
    let mut back = Stream::resume(address, "c", "1000-0");
    assert_eq!(back.next().expect("it is told").event_type, "gap");
    assert_eq!(names(), "c d e f");
    // To publish on it evicts the completed one.
    assert_eq!(publish("c"), 200);
    assert_eq!(back.next().expect("it is live").event_type, "message");
    assert_eq!(names(), "c e f");
}

#[test]
fn no_way_to_create_channels_exceeds_the_limit() {
    let server = Server::start(&["--publish-open", "--quiet", "--max-channels", "2"]);
    let address = server.address;
    // Uploads that have not published anything yet.
    let uploads = ["a", "b", "c"].map(|channel| {
        let mut socket = server.connect();
        let head = format!(
            "POST /channels/{channel}?lines HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).expect("the server reads");
        if channel != "c" {
            eventually("it exists", || {
                server.metric("newswire_channels") == if channel == "a" { 1 } else { 2 }
            });
        }
        socket
    });
    let mut refused = BufReader::new(&uploads[2]);
    let answer = Answer::read(&mut refused, "POST").expect("it is answered");
    assert_eq!(answer.status, 503);
    drop(uploads);
    eventually("they are gone", || server.metric("newswire_channels") == 0);

    // Channels that are completed before anything was published.
    for number in 0..12 {
        let channel = format!("c{number}");
        let mut subscriber = Stream::subscribe(address, &channel);
        complete(address, &channel);
        assert_eq!(subscriber.until_end(), []);
    }
    assert!(server.metric("newswire_channels") <= 4);
}

/// How long the median request for a stream of a name that nothing has asked for takes.
fn ask_for_new_names(address: SocketAddr, names: std::ops::Range<usize>) -> Duration {
    let mut times: Vec<Duration> = names
        .map(|number| {
            let started = Instant::now();
            drop(Stream::subscribe(address, &format!("new-{number}")));
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_request_for_a_new_name_costs_the_same_among_many_channels_as_among_few() {
    let servers = [200, 20_000].map(|number| {
        let (address, channels) = start(Limits { channels: number, ..Limits::default() });
        for channel in 0..number {
            let channel = channels.open(&format!("c{channel}")).expect("there is room");
            channel.publish("x").expect("it is small");
        }
        (address, channels)
    });
    // The tables are full. Requests to the two servers alternate, so that both have the same machine. The best of many
    // rounds counts: other tests may have the processors in some of them.
    let mut times = [Duration::MAX; 2];
    for round in 0..50 {
        for (at, (address, _)) in servers.iter().enumerate() {
            let time = ask_for_new_names(*address, round * 20..(round + 1) * 20);
            times[at] = times[at].min(time);
        }
        if round >= 4 && times[1] < 5 * times[0] {
            break;
        }
    }
    assert!(times[1] < 5 * times[0], "{times:?} among 200 and 20,000 channels");

    // A publisher that finds no room costs as little.
    let times = servers.map(|(_, channels)| {
        let mut times: Vec<Duration> = (0..101)
            .map(|_| {
                let started = Instant::now();
                channels.open("one-more").expect_err("the table is full");
                started.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[50]
    });
    assert!(times[1] < 20 * times[0], "{times:?} among 200 and 20,000 channels");
}

#[test]
fn completed_channels_that_are_in_use_do_not_keep_others_from_being_evicted() {
    const CHANNELS: usize = 100;
    let channels = Channels::start(Limits { channels: CHANNELS, ..Limits::default() });
    let channels = channels.expect("it starts");
    let open = |name: &str| {
        channels.open(name).inspect(|channel| drop(channel.publish("x").expect("it is small")))
    };
    // The oldest are completed and in use; one younger is not in use.
    let in_use: Vec<_> = (0..CHANNELS - 1)
        .map(|number| open(&format!("c{number}")).expect("there is room"))
        .collect();
    in_use.iter().for_each(|channel| channel.complete().expect("it is in memory"));
    open("idle").expect("there is room").complete().expect("it is in memory");
    // Each attempt looks at a few. Together they come to all.
    let attempts = (0..CHANNELS).take_while(|_| open("new").is_err()).count();
    assert!(attempts < 10, "{attempts} attempts");
    assert!(channels.find("idle").is_none());
    assert!(channels.find("c0").is_some());

    // A channel that is published on again is not evicted, however often it was completed.
    drop(in_use);
    for _ in 0..3 {
        let channel = channels.find("c0").expect("it is there");
        channel.complete().expect("it is in memory");
        channel.publish("again").expect("it is small");
    }
    for number in 0..CHANNELS - 2 {
        open(&format!("d{number}")).expect("a completed one is evicted");
    }
    assert!(channels.find("c0").is_some());
    assert!(open("e").is_err());
}
