//! What a program that uses the library can do with channels.

use crate::channels::{start, threads_named};
use crate::server::{Server, Stream, ask, eventually, is_opening, serve};
use newswire::channel::{Channel, Channels, Limits, PublishError};
use newswire::http::InvalidLimits;
use newswire::sse::Message;
use newswire::{Event, Router};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

#[test]
fn the_library_publishes_without_a_request() {
    let (address, channels) = start(Limits::default());
    let channel = channels.open("library").expect("it is a name");
    assert_eq!(channel.name(), "library");
    let mut stream = Stream::subscribe(address, "library");
    assert_eq!(channel.subscribers(), 1);
    let event = Event::new("pushed").name("n").expect("it is one line");
    let event = event.reconnection_time(Duration::from_secs(1));
    let published = channel.publish(event).expect("it is small");
    assert_eq!(published.subscribers, 1);
    let message = stream.next().expect("it is live");
    assert_eq!(message.last_event_id, published.id);
    assert_eq!((message.event_type.as_str(), message.data.as_str()), ("n", "pushed"));
    assert_eq!(stream.parser.reconnection_time(), Some(Duration::from_secs(1)));
    let again = channels.find("library").expect("it is there");
    let last = again.publish(Event::new("last")).expect("it is small");
    assert_eq!(stream.next().expect("it is live").last_event_id, last.id);
    let summary = channel.summary();
    assert_eq!((summary.events, summary.last_id.as_ref()), (2, Some(&last.id)));
    channel.complete().expect("it is in memory");
    assert_eq!(stream.until_end(), []);
    assert!(channels.open("no/name").is_err());
    assert!(channels.find("other").is_none());
}

#[test]
fn an_event_that_clients_would_misread_is_refused_with_a_sentence() {
    let channels = Channels::start(Limits { history_bytes: 100, ..Limits::default() });
    let channel = channels.expect("it starts").open("c").expect("it is a name");
    let named = |name: &str| Event::new("x").name(name).expect("it is one line");
    for reserved in ["open", "error", "end", "gap", "heartbeat"] {
        assert_eq!(channel.publish(named(reserved)), Err(PublishError::ReservedName), "{reserved}");
    }
    let with_id = Event::new("x").id(7).expect("it is one line");
    assert_eq!(channel.publish(with_id.clone()), Err(PublishError::OwnId));
    let only_name = Event::default().name("n").expect("it is one line");
    assert_eq!(channel.publish(only_name), Err(PublishError::NoData));
    let only_retry = Event::default().reconnection_time(Duration::from_secs(1));
    assert_eq!(channel.publish(only_retry), Err(PublishError::NoData));
    assert_eq!(channel.publish("x".repeat(100)), Err(PublishError::TooLarge));
    assert_eq!(channel.summary().events, 0, "nothing of them is kept");
    assert!(PublishError::ReservedName.to_string().contains("reserved"));

    for name in ["End", "ends", "message", "gap s"] {
        channel.publish(named(name)).expect("the name is not reserved");
    }
    channel.publish(with_id.without_id()).expect("the id is gone");
    channel.publish("id: 7\nevent: end").expect("data can look like fields");
    channel.publish(Event::new("").name("empty").expect("it is one line")).expect("it has data");
}

#[test]
fn a_repeated_key_publishes_once_as_long_as_its_event_is_kept() {
    let limits =
        Limits { history_events: 3, history_bytes: 1000, heartbeat: Duration::from_millis(100), ..Limits::default() };
    let (address, channels) = start(limits);
    let channel = channels.open("c").expect("it is a name");
    let mut stream = Stream::subscribe(address, "c");
    // From its first heartbeat on it is live, and the short history waits for it.
    stream.read_until(|bytes| crate::channels::heartbeats(bytes) > 0);
    let first = channel.publish_once("k1", "first").expect("it is new");
    assert_eq!(channel.publish_once("k1", "first"), Ok(first.clone()));
    assert_eq!(channel.publish_once("k1", "other"), Err(PublishError::KeyReused));
    let named = Event::new("first").name("n").expect("it is one line");
    assert_eq!(channel.publish_once("k1", named), Err(PublishError::KeyReused));
    // Another channel has keys of its own.
    let other = channels.open("other").expect("it is a name");
    assert_ne!(other.publish_once("k1", "first").expect("it is new").id, first.id);
    // Two more push nothing out, the third one does.
    for number in 0..2 {
        channel.publish(number.to_string()).expect("it is small");
        assert_eq!(channel.publish_once("k1", "first").expect("it is kept").id, first.id);
    }
    channel.publish("2").expect("it is small");
    assert_ne!(channel.publish_once("k1", "first").expect("it was forgotten").id, first.id);
    channel.complete().expect("it is in memory");
    let received: Vec<String> = stream.until_end().into_iter().map(|m| m.data).collect();
    assert_eq!(received, ["first", "0", "1", "2", "first"]);

    let longest = "~".repeat(255);
    channel.publish_once(&longest, "x").expect("it is not too long");
    let too_long = "~".repeat(256);
    for key in ["", "a b", "a\tb", "a\n", "é", "\u{7f}", &too_long] {
        assert_eq!(channel.publish_once(key, "x"), Err(PublishError::MalformedKey), "{key:?}");
    }
}

#[test]
fn the_bytes_of_keys_count_as_bytes_of_the_history() {
    let limits = Limits { history_bytes: 2000, ..Limits::default() };
    let channels = Channels::start(limits).expect("it starts");
    let channel = channels.open("c").expect("it is a name");
    for number in 0..20 {
        channel.publish_once(&format!("{number:0>200}"), "x").expect("it is small");
        assert!(channel.summary().bytes <= 2000);
    }
    // An event is about 33 bytes without its key.
    assert!((7..=8).contains(&channel.summary().events), "{:?}", channel.summary());
    assert_eq!(channel.publish_once("k", "x".repeat(1970)), Err(PublishError::TooLarge), "the key takes the last byte");
}

#[test]
fn publishers_that_repeat_a_key_at_the_same_time_publish_once() {
    const PUBLISHERS: usize = 16;
    const KEYS: usize = 200;
    // The history is so short that publishers wait for room, which frees its lock.
    let limits = Limits { history_events: 4, heartbeat: Duration::ZERO, ..Limits::default() };
    let (address, channels) = start(limits);
    let channel = channels.open("c").expect("it is a name");
    let mut streams: Vec<Stream> = (0..6).map(|_| Stream::subscribe(address, "c")).collect();
    let barrier = Arc::new(Barrier::new(PUBLISHERS));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let (channel, barrier) = (channel.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                let publish = |number: usize| {
                    barrier.wait();
                    let key = number.to_string();
                    channel.publish_once(&key, &*key).expect("it is the same event").id
                };
                (0..KEYS).map(publish).collect::<Vec<_>>()
            })
        })
        .collect();
    let ids: BTreeSet<Vec<String>> =
        publishers.into_iter().map(|publisher| publisher.join().expect("it publishes")).collect();
    assert_eq!(ids.len(), 1, "all publishers were told the same ids");
    channel.complete().expect("it is in memory");
    // Those who fell behind the short history were cut off; no event may have come twice.
    for stream in &mut streams {
        let mut received = BTreeSet::new();
        while let Some(message) = stream.next() {
            assert!(received.insert(message.data), "an event came twice");
        }
    }
    let published = channel.summary().last_id;
    assert_eq!(published.as_ref(), ids.first().and_then(|ids| ids.last()));
}

/// A server with one route, which subscribes to a channel as `subscribe` says.
fn serve_channel(
    channel: &Channel,
    subscribe: impl Fn(&Channel, &newswire::Request<'_>) -> newswire::Response + Send + Sync + 'static,
) -> SocketAddr {
    let (channel, mut router) = (channel.clone(), Router::new());
    router.get("/channels/c", move |request| subscribe(&channel, request));
    serve(router, |server| server.log_accesses(false))
}

fn open(limits: Limits) -> (Channels, Channel) {
    let channels = Channels::start(limits).expect("it starts");
    let channel = channels.open("c").expect("it is a name");
    (channels, channel)
}

#[test]
fn a_filtered_subscriber_gets_what_its_filter_accepts_and_comes_back_to_that() {
    let (_, channel) = open(Limits { heartbeat: Duration::from_millis(100), ..Limits::default() });
    let address = serve_channel(&channel, |channel, request| {
        let wanted = request.query("only").unwrap_or_default();
        channel.subscribe_filtered(request, move |event: &Message| event.event_type == wanted)
    });
    let publish = |name: &str, data: usize| {
        let event = Event::new(data.to_string()).name(name).expect("it is one line");
        channel.publish(event).expect("it is small").id
    };
    let mut streams: Vec<Stream> =
        ["a", "b"].map(|name| Stream::open(address, &format!("/channels/c?only={name}"), &[])).into();
    // They are told of heartbeats like any other.
    for stream in &mut streams {
        stream.read_until(|bytes| crate::channels::heartbeats(bytes) > 2);
    }
    let ids: Vec<String> = (0..40).map(|number| publish(["a", "b", "c"][number % 3], number)).collect();
    for (at, stream) in streams.iter_mut().enumerate() {
        for number in (at..20).step_by(3) {
            assert_eq!(stream.next().expect("it is live").last_event_id, ids[number]);
        }
    }
    // It comes back after the sixth of its kind, and gets the rest of them.
    let mut back = Stream::open(address, "/channels/c?only=b", &[("Last-Event-ID", &ids[16])]);
    channel.complete().expect("it is in memory");
    let rest: Vec<String> = back.until_end().into_iter().map(|m| m.last_event_id).collect();
    let expected: Vec<&String> = ids.iter().skip(19).step_by(3).collect();
    assert_eq!(rest.iter().collect::<Vec<_>>(), expected);
    for stream in &mut streams {
        assert!(!stream.until_end().is_empty());
    }
    eventually("all have left", || channel.subscribers() == 0);
    let mut lost = Stream::open(address, "/channels/c?only=none", &[("Last-Event-ID", "1-1")]);
    let received = lost.until_end();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].event_type, "gap", "a gap is not filtered");
}

#[test]
fn a_filtered_subscriber_that_leaves_is_noticed_and_a_panic_in_a_filter_ends_one_stream() {
    let (_, channel) = open(Limits { heartbeat: Duration::from_millis(100), ..Limits::default() });
    let address = serve_channel(&channel, |channel, request| {
        let panics = request.query("panics").is_some();
        channel.subscribe_filtered(request, move |_| if panics { panic!("a test") } else { true })
    });
    drop(Stream::open(address, "/channels/c", &[]));
    eventually("it has left", || channel.subscribers() == 0);
    let mut other = Stream::open(address, "/channels/c", &[]);
    let mut panics = Stream::open(address, "/channels/c?panics", &[]);
    let id = channel.publish("x").expect("it is small").id;
    assert_eq!(panics.next(), None);
    // In what a client missed it costs the stream, too, and not the head.
    let mut panics = Stream::open(address, "/channels/c?panics", &[("Last-Event-ID", "earliest")]);
    assert_eq!(panics.next(), None);
    assert_eq!(other.next().expect("it is live").last_event_id, id);
    eventually("one is left", || channel.subscribers() == 1);
}

#[test]
fn callbacks_are_told_how_many_subscribers_there_are_and_a_panic_in_one_costs_nothing() {
    let (_, channel) = open(Limits { heartbeat: Duration::from_millis(100), ..Limits::default() });
    let address = serve_channel(&channel, Channel::subscribe);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let record = |sign: i32| {
        let changes = Arc::clone(&changes);
        move |subscribers| changes.lock().expect("it never panics").push((sign, subscribers))
    };
    channel.on_join(|_| panic!("a test"));
    channel.on_leave(|_| panic!("a test"));
    channel.on_join(record(1));
    channel.on_leave(record(-1));
    // A callback can publish.
    let again = channel.clone();
    channel.on_leave(move |left| drop(again.publish(format!("{left} left"))));
    // The response to a HEAD is no stream.
    ask(address, "HEAD", "/channels/c", &[], "");
    let recorded = || changes.lock().expect("it never panics").clone();
    let first = Stream::subscribe(address, "c");
    eventually("the first has joined", || recorded() == [(1, 1)]);
    let mut second = Stream::subscribe(address, "c");
    eventually("the second has joined", || recorded().last() == Some(&(1, 2)));
    drop(first);
    assert_eq!(second.next().expect("it is live").data, "1 left");
    eventually("the first has left", || recorded().last() == Some(&(-1, 1)));
    channel.complete().expect("it is in memory");
    second.until_end();
    eventually("the second has left", || recorded().len() == 4);
    assert_eq!(recorded(), [(1, 1), (1, 2), (-1, 1), (-1, 0)]);
}

#[test]
fn a_filtered_subscriber_is_woken_when_the_channels_stop() {
    let filtered = |heartbeat: u64| {
        let heartbeat = Duration::from_secs(heartbeat);
        let (channels, channel) = open(Limits { heartbeat, ..Limits::default() });
        let address = serve_channel(&channel, |c, request| c.subscribe_filtered(request, |_| true));
        (Stream::open(address, "/channels/c", &[]), channels, channel)
    };
    // A subscriber that is not woken looks after 7 seconds or more. The first heartbeat of the other one comes after 4.
    let (_stream, channels, channel) = filtered(15);
    let (mut other, ..) = filtered(8);
    thread::sleep(Duration::from_millis(100));
    channels.stop();
    other.read_until(|bytes| crate::channels::heartbeats(bytes) > 0);
    assert_eq!(channel.subscribers(), 0);
}

#[test]
fn stopping_the_channels_ends_streams_with_a_reconnection_time_and_ends_the_threads() {
    let (channels, channel) = open(Limits::default());
    let address = serve_channel(&channel, |channel, request| match request.query("filtered") {
        Some(_) => channel.subscribe_filtered(request, |_| true),
        None => channel.subscribe(request),
    });
    let streams: Vec<_> = ["", "", "", "", "", "", "?filtered"]
        .iter()
        .map(|query| Stream::open(address, &format!("/channels/c{query}"), &[]).into_socket())
        .collect();
    channels.stop();
    for mut stream in streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("it ends without a reset");
        assert!(is_opening(rest.as_bytes()), "{rest:?}");
    }
    eventually("no subscriber is left", || channel.subscribers() == 0);
    assert_eq!(channel.publish("x"), Err(PublishError::Stopped));
    channel.complete().expect("it is in memory");
    let late = ask(address, "GET", "/channels/c", &[], "");
    assert_eq!(late.status, 200);
    assert!(is_opening(&late.content), "{late:?}");
    channels.stop();
}

#[test]
fn channels_that_stop_while_clients_subscribe_and_publish_leave_no_stream_behind() {
    for round in 0..20 {
        let (channels, channel) = open(Limits { heartbeat: Duration::ZERO, ..Limits::default() });
        let address = serve_channel(&channel, Channel::subscribe);
        let clients: Vec<_> = (0..6)
            .map(|number| {
                let id = if number % 2 == 0 { "" } else { "earliest" };
                thread::spawn(move || {
                    let fields = [("Last-Event-ID", id)];
                    Stream::open(address, "/channels/c", &fields).until_closed()
                })
            })
            .collect();
        let publisher = {
            let channel = channel.clone();
            thread::spawn(move || while channel.publish("x").is_ok() {})
        };
        thread::sleep(Duration::from_millis(round % 10));
        channels.stop();
        publisher.join().expect("it is told");
        clients.into_iter().for_each(|client| client.join().expect("its stream ends"));
        eventually("no subscriber is left", || channel.subscribers() == 0);
    }
}

#[test]
fn limits_that_no_server_can_keep_are_refused_by_name() {
    let refused = |limits: Limits| {
        let error = Channels::start(limits).expect_err("it cannot start");
        let error = error.get_ref().and_then(|error| error.downcast_ref::<InvalidLimits>());
        error.expect("it says which limit").field
    };
    let usual = Limits::default;
    assert_eq!(refused(Limits { channels: 0, ..usual() }), "channels");
    assert_eq!(refused(Limits { history_events: 0, ..usual() }), "history_events");
    assert_eq!(refused(Limits { history_bytes: 0, ..usual() }), "history_bytes");
    assert_eq!(refused(Limits { heartbeat: Duration::MAX, ..usual() }), "heartbeat");
    assert_eq!(refused(Limits { heartbeat: Duration::from_nanos(1), ..usual() }), "heartbeat");
    for heartbeat in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(24 * 3600)] {
        assert!(Limits { heartbeat, ..usual() }.check().is_ok());
    }
}

#[test]
fn the_public_types_show_what_they_are() {
    let (channels, channel) = open(Limits::default());
    assert_eq!(format!("{channel:?}"), "Channel { name: \"c\", subscribers: 0, .. }");
    assert!(format!("{channels:?}").starts_with("Channels { channels: 1, limits: Limits {"));
}

/// How often the fan-out threads of this process fell asleep.
fn fan_out_sleeps(server: &Server) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .filter(|status| status.starts_with("Name:\tfan-out"))
        .filter_map(|status| {
            let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            line?.trim().parse::<u64>().ok()
        })
        .sum()
}

#[test]
fn an_event_for_few_subscribers_wakes_no_fan_out_thread() {
    const EVENTS: u64 = 200;
    let server = Server::start(&["--publish-open", "--quiet", "--heartbeat", "0"]);
    let mut publisher = crate::server::Publisher::connect(server.address, "c");
    let mut sleeps = |streams: &mut [Stream]| {
        let before = fan_out_sleeps(&server);
        for _ in 0..EVENTS {
            thread::sleep(Duration::from_millis(2));
            let id = publisher.publish("x");
            for stream in &mut *streams {
                assert_eq!(stream.next().expect("it is live").last_event_id, id);
            }
        }
        fan_out_sleeps(&server) - before
    };
    eventually("the thread has its name", || threads_named(&server, "fan-out 0") == 1);
    let mut streams: Vec<Stream> = (0..16).map(|_| Stream::subscribe(server.address, "c")).collect();
    let few = sleeps(&mut streams);
    streams.push(Stream::subscribe(server.address, "c"));
    let more = sleeps(&mut streams);
    // Besides, they look for heartbeats twice a second, in both cases.
    assert!(few + EVENTS / 2 < more, "{few} for few, {more} for more");
}

/// What [`Limits`] promises, measured in a process of its own: this test again, told so by its environment.
#[test]
fn the_memory_of_histories_is_what_the_limits_say() {
    const CHILD: &str = "NEWSWIRE_MEASURES_HISTORIES";
    if std::env::var_os(CHILD).is_some() {
        return measure_histories();
    }
    let name = "channel_library::the_memory_of_histories_is_what_the_limits_say";
    let program = std::env::current_exe().expect("it runs");
    let child = Command::new(program).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output();
    let child = child.expect("it starts");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

fn measure_histories() {
    let resident = || {
        let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
        // Without the pages of the program itself, which grow with this crate.
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: usize = kilobytes.expect("it is there").parse().expect("it is a number");
        kilobytes * 1024
    };
    // Channels that keep nothing come first, before there is freed memory that they could use.
    let channels = Channels::start(Limits { channels: 20_000, ..Limits::default() });
    let channels = channels.expect("it starts");
    let before = resident();
    let opened: Vec<Channel> =
        (0..20_000).map(|number| channels.open(&format!("{number:0>64}")).expect("there is room")).collect();
    let each = (resident() - before) / opened.len();
    println!("{each} bytes for an empty channel");
    assert!(each <= 1024, "{each} bytes for an empty channel");
    // Everything is kept to the end, so that no freed memory is used again.
    let mut kept = vec![(channels, opened)];
    const CHANNELS: usize = 8;
    // Just more than a power of two, when vectors that double are as large as they get.
    const EVENTS: usize = 17_000;
    for (with_keys, per_event) in [(false, 120), (true, 280)] {
        let limits = Limits { history_events: EVENTS, history_bytes: 1 << 30, ..Limits::default() };
        let channels = Channels::start(limits).expect("it starts");
        let before = resident();
        let mut kept_bytes = 0;
        for number in 0..CHANNELS {
            let channel = channels.open(&format!("c{number}")).expect("there is room");
            for event in 0..2 * EVENTS {
                let published = match with_keys {
                    true => channel.publish_once(&format!("{event}"), "x"),
                    false => channel.publish("x"),
                };
                published.expect("it is small");
            }
            assert_eq!(channel.summary().events, EVENTS);
            kept_bytes += channel.summary().bytes;
        }
        let grown = resident() - before;
        kept.push((channels, Vec::new()));
        let allowed = kept_bytes + CHANNELS * EVENTS * per_event;
        println!(
            "with keys {with_keys}: {} bytes an event besides its own",
            (grown - kept_bytes) / (CHANNELS * EVENTS)
        );
        assert!(grown <= allowed, "{grown} of {allowed} bytes, with keys: {with_keys}");
    }
}
