//! How many channels and subscribers there may be.

use crate::channels::{complete, start};
use crate::server::{Answer, Publisher, Server, Stream, ask, eventually};
use newswire::channel::{Channels, Limits, NoChannel};
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
    let server = Server::start(&["--publish-open", "--quiet", "--max-subscribers", "3", "--heartbeat", "1"]);
    let address = server.address;
    let mut streams: Vec<Stream> = ["a", "a", "b"].map(|channel| Stream::subscribe(address, channel)).into();
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
fn channels_are_bounded_and_a_new_one_evicts_the_one_that_is_unused_for_longest() {
    let server = Server::start(&["--publish-open", "--quiet", "--max-channels", "3", "--heartbeat", "1"]);
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
    // The order is that of the last use. A subscriber is one.
    assert_eq!(publish("a"), 200);
    assert_eq!(publish("d"), 200);
    assert_eq!(names(), "a c d");
    drop(Stream::subscribe(address, "c"));
    eventually("it has left", || server.metric("newswire_subscribers") == 0);
    assert_eq!(publish("e"), 200);
    assert_eq!(names(), "c d e");
    assert_eq!(server.metric("newswire_channels_evicted_total"), 2);

    // A channel with a subscriber stays. When all have some, one more to publish on is refused.
    let subscribers = ["c", "d", "e"].map(|channel| Stream::subscribe(address, channel));
    assert_eq!(publish("f"), 503);
    assert_eq!(ask(address, "PUT", "/channels/f?lines", &[], "x").status, 503);
    assert_eq!(publish("c"), 200, "those that exist go on");
    // Subscribers can ask for any number besides, and do not keep publishers out.
    let waiting = ["p", "q", "r", "s", "t", "u"].map(|name| Stream::subscribe(address, name));
    assert_eq!(names(), "c d e p q r s t u");
    assert_eq!(publish("p"), 503, "it is one too many to publish on");
    drop(waiting);
    eventually("the others are gone", || names() == "c d e");
    // A completed one is evicted when its subscriber has got the end.
    let [mut subscriber, _d, _e] = subscribers;
    complete(address, "c");
    assert_eq!(subscriber.until_end().len(), 1);
    assert_eq!(publish("f"), 200);
    assert_eq!(names(), "d e f");

    // Its history is gone with it. A client that comes back is told so, and evicts nothing.
    let mut back = Stream::resume(address, "c", "1000-0");
    assert_eq!(back.next().expect("it is told").event_type, "gap");
    assert_eq!(names(), "c d e f");
    // To publish on it evicts the one that is unused.
    assert_eq!(publish("c"), 200);
    assert_eq!(back.next().expect("it is live").event_type, "message");
    assert_eq!(names(), "c d e");
}

#[test]
fn a_completed_channel_that_a_client_reads_slowly_does_not_keep_new_ones_out() {
    let (address, channels) = start(Limits { channels: 2, history_bytes: 64 << 20, ..Limits::default() });
    let id = {
        let over = channels.open("over").expect("there is room");
        let id = over.publish("first").expect("it is small").id;
        for _ in 0..20 {
            over.publish("x".repeat(3_000_000)).expect("it fits");
        }
        over.complete().expect("it is in memory");
        id
    };
    // These do not read. Their sockets hold far less than what they asked for.
    let target = "/channels/over?last_event_id=earliest";
    let mut slow: Vec<Stream> = (0..3).map(|_| Stream::open(address, target, &[])).collect();
    drop(channels.open("idle").map(|channel| channel.publish("x")));
    let open = |name: &str| {
        let channel = channels.open(name)?;
        channel.publish("x").expect("it is small");
        Ok::<_, newswire::channel::NoChannel>(channel)
    };
    // What nothing uses at all goes first.
    let _new = open("new").expect("there is room");
    assert!(channels.find("idle").is_none());
    let _newer = open("newer").expect("there is room");
    assert!(channels.find("over").is_none());
    open("newest").expect_err("the others are in use");
    // They are not told that they have got all, and are told of a gap when they come back.
    for stream in &mut slow {
        while let Ok(Some(message)) = stream.try_next() {
            assert_eq!(message.event_type, "message");
        }
    }
    let mut back = Stream::resume(address, "over", &id);
    assert_eq!(back.next().expect("it is told").event_type, "gap");
}

#[test]
fn clients_that_ask_for_a_channel_and_leave_at_once_do_not_keep_others_out() {
    // No heartbeat tells that they have left.
    let options = ["--quiet", "--heartbeat", "0", "--max-subscribers", "20", "--max-channels", "5"];
    let server = Server::start(&options);
    let started = Instant::now();
    for wave in 0..3 {
        for number in 0..20 {
            drop(Stream::subscribe(server.address, &format!("asked-{wave}-{number}")));
        }
        eventually("they are gone", || server.metric("newswire_subscribers") == 0);
        assert_eq!(server.metric("newswire_channels"), 0);
    }
    // A look each 15 s would take 45 s.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn a_channel_begins_by_subscribing_only_for_the_clients_that_may() {
    let token = std::env::temp_dir().join(format!("newswire-create-{}", std::process::id()));
    std::fs::write(&token, "secret-of-the-publisher").expect("it can be written");
    let with = |create: &str| {
        let token = token.to_str().expect("it is UTF-8");
        let options = ["--publish-token-file", token, "--create", create, "--quiet"];
        Server::start(&options)
    };
    let bearer = [("Authorization", "Bearer secret-of-the-publisher")];
    for (create, publishers_may) in [("publishers", true), ("nobody", false)] {
        let server = with(create);
        let address = server.address;
        // The answer is the same for each name. It does not end an EventSource: the channel may begin at any time.
        for name in ["news", "other"] {
            assert_told_to_come_back(&ask(address, "GET", &format!("/channels/{name}"), &[], ""));
        }
        assert_eq!(ask(address, "GET", "/channels/.x", &[], "").status, 404);
        let json = [("Accept", "application/json")];
        assert_eq!(ask(address, "GET", "/channels/news", &json, "").status, 404);
        let polled = ask(address, "GET", "/channels/news?poll", &json, "");
        assert!(polled.status == 503 && polled.text().contains("has not begun"), "{polled:?}");
        assert_eq!(server.metric("newswire_channels"), 0);
        assert_eq!(server.metric("newswire_channels_not_begun_total"), 3, "two streams and a poll");
        let begun = Stream::open(address, "/channels/asked", &bearer);
        assert_eq!(server.metric("newswire_channels"), u64::from(publishers_may), "{create}");
        let other = Stream::subscribe(address, "asked");
        let subscribers = if publishers_may { 2 } else { 0 };
        assert_eq!(server.metric("newswire_subscribers"), subscribers, "it has begun for all");
        drop((begun, other));
        assert_eq!(ask(address, "POST", "/channels/news", &bearer, "x").status, 200);
        let mut stream = Stream::resume(address, "news", "earliest");
        assert_eq!(stream.next().expect("it is kept").data, "x");
    }
    let anyone = with("anyone");
    let _begun = Stream::subscribe(anyone.address, "news");
    assert_eq!(anyone.metric("newswire_channels"), 1);
    std::fs::remove_file(&token).expect("it is there");
}

#[test]
fn no_way_to_create_channels_exceeds_the_limit() {
    let server = Server::start(&["--publish-open", "--quiet", "--max-channels", "2"]);
    let address = server.address;
    // Uploads that go on. Each begins its channel with its first event.
    let uploads = ["a", "b", "c"].map(|channel| {
        let target = format!("/channels/{channel}?lines");
        let mut socket = crate::keys::upload(address, &target, "");
        socket.write_all(b"2\r\nx\n\r\n").expect("the server reads");
        if channel != "c" {
            eventually("it exists", || server.metric("newswire_channels") == if channel == "a" { 1 } else { 2 });
        }
        socket
    });
    let mut refused = BufReader::new(&uploads[2]);
    let answer = Answer::read(&mut refused, "POST").expect("it is answered");
    assert_eq!(answer.status, 503);
    drop(uploads);
    assert_eq!(server.metric("newswire_channels"), 2);

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

    // A publisher of a new name evicts a channel, and costs as little.
    let times = servers.map(|(_, channels)| {
        let mut times: Vec<Duration> = (0..101)
            .map(|number| {
                let started = Instant::now();
                let channel = channels.open(&format!("more-{number}"));
                channel.expect("one is evicted").publish("x").expect("it is small");
                started.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[50]
    });
    assert!(times[1] < 20 * times[0], "{times:?} among 200 and 20,000 channels");
}

#[test]
fn channels_that_are_in_use_do_not_keep_others_from_being_evicted() {
    const CHANNELS: usize = 100;
    let channels = Channels::start(Limits { channels: CHANNELS, ..Limits::default() });
    let channels = channels.expect("it starts");
    let open = |name: &str| channels.open(name).inspect(|channel| drop(channel.publish("x").expect("it is small")));
    // The oldest are in use, some of them completed; one younger is not in use.
    let in_use: Vec<_> = (0..CHANNELS - 1).map(|number| open(&format!("c{number}")).expect("there is room")).collect();
    in_use.iter().skip(1).step_by(2).for_each(|channel| channel.complete().expect("it is kept"));
    drop(open("idle").expect("there is room"));
    for number in 0..3 {
        drop(open(&format!("new-{number}")).expect("one is not in use"));
    }
    assert!(channels.find("idle").is_none() && channels.find("new-1").is_none());
    let last = open("last").expect("one is not in use");
    assert_eq!(open("more").err(), Some(NoChannel::Full));
    assert!(channels.find("c0").is_some());

    // The first that is not used any more is the first that goes. A look at the list is no use.
    drop(last);
    drop(in_use);
    let is_listed = |name: &str| channels.list().iter().any(|channel| channel.name == name);
    for number in 0..CHANNELS {
        drop(open(&format!("d{number}")).expect("one is evicted"));
        assert!(!is_listed("last"));
        assert_eq!(is_listed(&format!("c{}", CHANNELS - 2)), number < CHANNELS - 1);
    }
}
