//! Subscribers that read slowly or not at all.

use crate::channels::{END, OPEN, complete, disconnects, metric, split_opening, start, threads_named};
use crate::laboratory::resident_kib;
use crate::server::{PATIENCE, Publisher, Server, Stream, ask, connect, eventually, serve_app};
use newswire::Event;
use newswire::app::{App, Publishers};
use newswire::channel::{Channel, Limits};
use newswire::http;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// Publishes until each of the clients, which read nothing, is behind. On a slow machine some wait for so long meanwhile
/// that their connections end, which makes room and not memory.
fn publish_until_all_are_behind(server: &Server, clients: usize, mut publish: impl FnMut()) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let gone = disconnects(server.address, "stalled") + disconnects(server.address, "slow");
        let behind = threads_named(server, "catch-up");
        if behind + usize::try_from(gone).expect("it is small") >= clients {
            assert!(behind * 2 >= clients, "{behind} of {clients} are behind, and {gone} are gone");
            return;
        }
        assert!(Instant::now() < deadline, "{behind} of {clients} are behind, and {gone} are gone");
        publish();
    }
}

/// Publishes an event that is so large that a few hundred fill any socket. Returns the frame that must arrive.
fn publish_large(publisher: &mut Publisher, number: usize) -> Vec<u8> {
    let data = format!("{number} ") + &"x".repeat(64 * 1024);
    let id = publisher.publish(&data);
    format!("id: {id}\ndata: {data}\n\n").into_bytes()
}

/// Reads as many bytes as are expected, which must be these.
#[track_caller]
fn expect(socket: &mut TcpStream, expected: &[u8]) {
    let mut read = vec![0; expected.len()];
    socket.read_exact(&mut read).expect("there is more");
    if read != expected {
        let at = read.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(0);
        let there = |bytes: &[u8]| String::from_utf8_lossy(&bytes[at..][..80.min(bytes.len() - at)]).into_owned();
        panic!("byte {at}: {:?} in place of {:?}", there(&read), there(expected));
    }
}

#[test]
fn a_stalled_reader_does_not_delay_others_and_gets_the_rest_or_a_gap_when_it_comes_back() {
    // The first is passed by the history. The second stalls for too long before that.
    for (history_bytes, has_gap) in [(4 << 20, true), (1 << 30, false)] {
        let (address, _) = serve_app(App {
            limits: http::Limits { write_stall: Duration::from_secs(1), ..http::Limits::default() },
            channel_limits: Limits {
                history_events: 1_000_000,
                history_bytes,
                heartbeat: Duration::ZERO,
                ..Limits::default()
            },
            publishers: Publishers::Anyone,
            ..App::default()
        });
        let mut stalled = Stream::subscribe(address, "c");
        let others = [(); 2].map(|()| Stream::subscribe(address, "c").into_socket());
        let others = others.map(|mut socket| {
            thread::spawn(move || {
                let mut received = Vec::new();
                socket.read_to_end(&mut received).expect("it ends");
                received
            })
        });
        let mut publisher = Publisher::connect(address, "c");
        let mut frames = Vec::new();
        let is_gone = || disconnects(address, "stalled") + disconnects(address, "slow") == 1;
        let deadline = Instant::now() + PATIENCE;
        while frames.len() < 256 || !is_gone() {
            assert!(Instant::now() < deadline, "it is still there after {} events", frames.len());
            frames.push(publish_large(&mut publisher, frames.len()));
            // Fast while its socket fills; then slower, since the time of a stall must pass.
            if frames.len() > 256 {
                thread::sleep(Duration::from_millis(5));
            }
        }
        complete(address, "c");
        let mut whole = frames.concat();
        whole.extend_from_slice(END);
        for reader in others {
            let received = reader.join().expect("it got the end");
            assert!(received == whole, "the other subscribers notice nothing");
        }
        assert_eq!(metric(address, "newswire_subscribers"), 0);

        // What its socket had taken still arrives. The last of it may be half an event.
        let mut received = 0;
        while let Some(message) = stalled.next() {
            assert!(message.data.starts_with(&format!("{received} x")), "after {received} events");
            received += 1;
        }
        assert!(received < frames.len(), "it never stalled");
        let id = stalled.parser.last_event_id();
        let mut back = connect(address);
        let request = format!("GET /channels/c HTTP/1.0\r\nLast-Event-ID: {id}\r\n\r\n");
        back.write_all(request.as_bytes()).expect("the server reads");
        let mut whole = Vec::new();
        back.read_to_end(&mut whole).expect("it ends");
        let (_, rest_of_stream) = split_opening(&whole);
        if has_gap {
            let kept = frames.iter().rev().scan(0, |bytes, frame| {
                *bytes += frame.len();
                (*bytes <= history_bytes).then_some(())
            });
            let kept = kept.count();
            let oldest = String::from_utf8_lossy(&frames[frames.len() - kept][4..40]).into_owned();
            let oldest = oldest.lines().next().expect("it is the id");
            let gap = format!("event: gap\ndata: {{\"asked\":\"{id}\",\"oldest\":\"{oldest}\"}}\n\n");
            let rest = frames[frames.len() - kept..].concat();
            assert!(rest_of_stream == [gap.as_bytes(), &rest, END].concat(), "a gap and what is kept");
        } else {
            assert!(rest_of_stream == [&frames[received..].concat(), END].concat(), "the rest");
        }
    }
}

#[test]
fn memory_does_not_grow_with_what_stalled_readers_do_not_read() {
    let server = Server::start(&OPEN);
    let stalled: Vec<Stream> = (0..8).map(|_| Stream::subscribe(server.address, "c")).collect();
    let mut live = Stream::subscribe(server.address, "c").into_socket();
    let reader = thread::spawn(move || {
        let mut read = vec![0; 1 << 20];
        while live.read(&mut read).is_ok_and(|length| length > 0) {}
    });
    let mut publisher = Publisher::connect(server.address, "c");
    publish_until_all_are_behind(&server, stalled.len(), || drop(publish_large(&mut publisher, 0)));
    let before = resident_kib(&server);
    for number in 0..512 {
        publish_large(&mut publisher, number);
    }
    let grown = resident_kib(&server).saturating_sub(before);
    // 32 MiB were published. The history keeps one, and each fan-out thread a copy.
    assert!(grown < 8 << 10, "{grown} KiB more than {before}");
    drop(stalled);
    drop(server);
    reader.join().expect("it reads to the end");
}

/// Clients that send this and read nothing but the beginning of the answers.
fn ask_without_reading(server: &Server, clients: usize, request: &str) -> Vec<TcpStream> {
    let ask = |_| {
        let mut socket = server.connect();
        socket.write_all(request.as_bytes()).expect("the server reads");
        socket.read_exact(&mut [0; 2_000]).expect("it answers");
        socket
    };
    (0..clients).map(ask).collect()
}

const LARGE: usize = 500_000;

#[test]
fn slow_readers_share_the_large_event_that_they_are_reading() {
    let server = Server::start(&OPEN);
    let before = resident_kib(&server);
    let mut publisher = Publisher::connect(server.address, "c");
    let mut stalled = Vec::new();
    // Sockets have room for the same number of bytes. Those of a group are full at another part of an event.
    for _ in 0..4 {
        stalled.extend((0..10).map(|_| Stream::subscribe(server.address, "c")));
        publisher.publish(&"x".repeat(LARGE / 4));
    }
    let large = "x".repeat(LARGE);
    publish_until_all_are_behind(&server, stalled.len(), || drop(publisher.publish(&large)));
    let grown = resident_kib(&server).saturating_sub(before);
    // The history, the batches of the fan-out threads, and threads. A copy for each reader would be 8 to 13 MB more.
    assert!(grown < 8 << 10, "{grown} KiB more than {before}");
}

#[test]
fn slow_clients_that_come_back_share_the_large_events_of_the_history() {
    let server = Server::start(&[&OPEN[..], &["--history-bytes", "20000000"]].concat());
    let mut publisher = Publisher::connect(server.address, "c");
    (0..30).for_each(|_| drop(publisher.publish(&"x".repeat(LARGE))));
    let before = resident_kib(&server);
    let request = "GET /channels/c HTTP/1.0\r\nLast-Event-ID: lost\r\n\r\n";
    let stalled = ask_without_reading(&server, 40, request);
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more than {before}");
    drop(stalled);
}

#[test]
fn a_list_of_channels_that_is_not_read_costs_a_page_of_it_and_not_the_whole() {
    let server = Server::start(&[&OPEN[..], &["--max-channels", "2000"]].concat());
    let names: Vec<String> = (0..2_000).map(|number| format!("{number:0>64}")).collect();
    for names in names.chunks(100) {
        let mut socket = server.connect();
        let last = names.len() - 1;
        let requests = names.iter().enumerate().map(|(nth, name)| {
            let close = if nth == last { "Connection: close\r\n" } else { "" };
            format!("PUT /channels/{name} HTTP/1.1\r\nHost: localhost\r\n{close}Content-Length: 1\r\n\r\nx")
        });
        socket.write_all(requests.collect::<String>().as_bytes()).expect("the server reads");
        socket.read_to_end(&mut Vec::new()).expect("it answers");
    }
    let listed = ask(server.address, "GET", "/channels", &[], "");
    assert_eq!(listed.field("content-type"), Some("application/json"));
    let whole = listed.text().strip_prefix('[').and_then(|text| text.strip_suffix("}]\n"));
    let objects: Vec<&str> = whole.expect("it is whole").split("},\n ").collect();
    let listed = objects.iter().map(|object| object.split('"').nth(3).expect("it has a name"));
    assert_eq!(listed.collect::<Vec<_>>(), names, "each once, by name");

    let before = resident_kib(&server);
    let requests = "GET /channels HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let unread = ask_without_reading(&server, 60, &requests);
    let grown = resident_kib(&server).saturating_sub(before);
    // Each whole list would be 350 KB, and all together 20 MB.
    assert!(grown < 10 << 10, "{grown} KiB more than {before}");
    drop(unread);
}

/// A server whose history keeps everything that a test publishes, and that sends no heartbeats.
fn start_with_long_history() -> Server {
    let history = ["--history-events", "1000000", "--history-bytes", "1000000000", "--heartbeat", "0"];
    Server::start(&[&OPEN[..], &history].concat())
}

/// Publishes until the socket of a subscriber that reads nothing is full, and the subscriber has a thread of its own.
fn publish_until_behind(server: &Server, publisher: &mut Publisher) -> Vec<u8> {
    let mut frames = Vec::new();
    for number in 0..4096 {
        frames.extend(publish_large(publisher, number));
        if number % 16 == 0 && threads_named(server, "catch-up") == 1 {
            return frames;
        }
    }
    panic!("it takes and takes");
}

#[test]
fn a_reader_that_falls_behind_and_catches_up_gets_every_event_once() {
    let server = start_with_long_history();
    let mut slow = Stream::subscribe(server.address, "c").into_socket();
    let mut quick = Stream::subscribe(server.address, "c").into_socket();
    let quick = thread::spawn(move || {
        let mut received = Vec::new();
        quick.read_to_end(&mut received).expect("it ends");
        received
    });
    let mut publisher = Publisher::connect(server.address, "c");
    let mut whole = Vec::new();
    for round in 0..2 {
        let frames = publish_until_behind(&server, &mut publisher);
        // More comes while it catches up.
        let (half, rest) = frames.split_at(frames.len() / 2);
        expect(&mut slow, half);
        let more = publish_large(&mut publisher, round);
        expect(&mut slow, rest);
        expect(&mut slow, &more);
        eventually("it has caught up", || threads_named(&server, "catch-up") == 0);
        let live = publish_large(&mut publisher, round);
        expect(&mut slow, &live);
        whole.extend([frames, more, live].concat());
    }
    complete(server.address, "c");
    expect(&mut slow, END);
    whole.extend_from_slice(END);
    assert!(quick.join().expect("it ends") == whole, "the other one notices nothing");
    // What was written to catch up counts like what was written live.
    let published = server.metric("newswire_events_published_total");
    let delivered = server.metric("newswire_events_delivered_total");
    assert_eq!(delivered, 2 * published, "events");
    let published = server.metric("newswire_bytes_published_total");
    let delivered = server.metric("newswire_bytes_delivered_total");
    assert_eq!(delivered, 2 * published, "bytes");
}

#[test]
fn a_reader_that_is_behind_when_the_channel_is_completed_gets_every_event_and_the_end() {
    let server = start_with_long_history();
    let mut slow = Stream::subscribe(server.address, "c").into_socket();
    let mut publisher = Publisher::connect(server.address, "c");
    let frames = publish_until_behind(&server, &mut publisher);
    complete(server.address, "c");
    // This event comes after the end of its stream.
    publisher.publish("next");
    expect(&mut slow, &frames);
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("it ends");
    assert_eq!(String::from_utf8_lossy(&rest), String::from_utf8_lossy(END));
}

#[test]
fn publishing_does_not_wait_for_subscribers_that_have_left() {
    // The history keeps one event. It must be copied for the subscribers before the next one pushes it out.
    let (address, channels) =
        start(Limits { history_events: 1, heartbeat: Duration::from_millis(200), ..Limits::default() });
    let channels: Vec<Channel> =
        (0..12).map(|number| channels.open(&format!("c{number}")).expect("there is room")).collect();
    for channel in &channels {
        drop(Stream::subscribe(address, channel.name()));
    }
    eventually("all have left", || metric(address, "newswire_subscribers") == 0);
    let mut times = Vec::new();
    for channel in &channels {
        for number in 0..20 {
            let started = Instant::now();
            channel.publish(Event::new(number.to_string())).expect("it is small");
            times.push(started.elapsed());
        }
    }
    // A publisher gives up after two seconds, here on up to twelve channels. A machine may stand still for so long once.
    let gave_up = times.iter().filter(|time| time.as_millis() > 1900).count();
    assert!(gave_up <= 1, "{times:?}");
}

#[test]
fn publishing_does_not_wait_for_subscribers_whose_stream_has_ended() {
    let (address, channels) = start(Limits { history_events: 1, heartbeat: Duration::ZERO, ..Limits::default() });
    let mut longest = Vec::new();
    for round in 0..12 {
        let channel = channels.open(&format!("c{round}")).expect("there is room");
        let streams: Vec<Stream> = (0..60).map(|_| Stream::subscribe(address, channel.name())).collect();
        let publishers = [(); 3].map(|()| {
            let channel = channel.clone();
            thread::spawn(move || {
                let mut longest = Duration::ZERO;
                while channel.subscribers() > 0 {
                    let started = Instant::now();
                    channel.publish(Event::new("x")).expect("it is small");
                    longest = longest.max(started.elapsed());
                }
                longest
            })
        });
        // All streams end at once, while publishers wait until what they lack was copied.
        thread::sleep(Duration::from_millis(20));
        channel.complete().expect("it is in memory");
        let times = publishers.map(|publisher| publisher.join().expect("it publishes"));
        longest.extend(times.into_iter().max());
        drop(streams);
    }
    // A publisher gives up after two seconds. A machine may stand still for so long once.
    let gave_up = longest.iter().filter(|time| **time > Duration::from_millis(1900)).count();
    assert!(gave_up < 2, "{longest:?}");
}
