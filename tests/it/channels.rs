//! Channels: one log, many subscribers, whoever comes, goes, stalls or falls behind.

use crate::resumption::numbers;
use crate::server::{
    Answer, Dice, PATIENCE, Publisher, Server, Stream, ask, connect, eventually, exchange,
    serve_app,
};
use newswire::Event;
use newswire::app::{App, Publishers};
use newswire::channel::Channel;
use newswire::channel::Limits;
use newswire::http;
use newswire::sse::Message;
use std::fs;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const OPEN: [&str; 2] = ["--publish-open", "--quiet"];

fn complete(address: SocketAddr, channel: &str) {
    let answer = ask(address, "DELETE", &format!("/channels/{channel}"), &[], "");
    assert_eq!(answer.status, 204, "{answer:?}");
}

fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.last_event_id.as_str()).collect()
}

/// In this process, with these limits; anyone may publish.
fn start(limits: Limits) -> (SocketAddr, newswire::channel::Channels) {
    serve_app(App { channel_limits: limits, publishers: Publishers::Anyone, ..App::default() })
}

/// The value of one line of the metrics.
fn metric(address: SocketAddr, name: &str) -> u64 {
    let metrics = exchange(address, "GET /metrics HTTP/1.0\r\n\r\n");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{name} is not in {metrics}"));
    value.parse().expect("it is a number")
}

fn disconnects(address: SocketAddr, reason: &str) -> u64 {
    metric(address, &format!("newswire_disconnects_total{{reason=\"{reason}\"}}"))
}

/// The opening of a stream: a comment and a reconnection time, which is returned.
fn opening(stream: &Stream) -> Duration {
    let (opening, _) = split_opening(&stream.bytes);
    let opening = std::str::from_utf8(opening).expect("it is UTF-8");
    let lines: Vec<&str> = opening.lines().collect();
    assert!(lines[0].starts_with(": "), "{opening:?}");
    let retry = lines.iter().find_map(|line| line.strip_prefix("retry: "));
    Duration::from_millis(retry.expect("there is one").parse().expect("it is a number"))
}

/// The last thing that a stream of a completed channel has.
const END: &[u8] = b"event: end\ndata: the channel is completed\n\n";

/// The opening of a stream, with its blank line, and what follows it.
fn split_opening(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    bytes.split_at(end.expect("it is whole") + 2)
}

fn is_opened(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n")
}

#[test]
fn the_opening_leaves_at_once_and_says_what_a_proxy_must_know() {
    let server = Server::start(&OPEN);
    let mut times = Vec::new();
    for _ in 0..12 {
        let mut stream = Stream::subscribe(server.address, "c");
        // There is no event, and never will be one.
        stream.read_until(is_opened);
        let answer = &stream.answer;
        assert_eq!(answer.field("content-type"), Some("text/event-stream"));
        assert_eq!(answer.field("cache-control"), Some("no-store, no-transform"));
        assert_eq!(answer.field("x-accel-buffering"), Some("no"));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
        // Delimited by the close: neither a length nor chunks.
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(answer.field("content-length"), None);
        assert_eq!(answer.field("transfer-encoding"), None);
        times.push(opening(&stream));
    }
    let second = Duration::from_secs(1);
    assert!(times.iter().all(|time| (2 * second..3 * second).contains(time)), "{times:?}");
    // Not everyone comes back in the same instant.
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 6, "{times:?}");
}

#[test]
fn everyone_hears_the_same_in_the_same_order() {
    const SUBSCRIBERS: usize = 60;
    const PUBLISHERS: usize = 4;
    const EVENTS: usize = 1000;
    let history = ["--history-events", "100000", "--history-bytes", "100000000"];
    let server = Server::start(&[&OPEN[..], &history].concat());
    let address = server.address;
    let streams: Vec<Stream> = (0..SUBSCRIBERS).map(|_| Stream::subscribe(address, "c")).collect();
    let listeners: Vec<_> =
        streams.into_iter().map(|mut stream| thread::spawn(move || stream.until_end())).collect();
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
    for listener in listeners {
        let heard = listener.join().expect("it hears the end");
        let heard: Vec<(String, String)> =
            heard.into_iter().map(|message| (message.last_event_id, message.data)).collect();
        // Which says all at once: same order, no event twice, none missing, ids strictly growing.
        assert_eq!(heard.len(), published.len());
        assert!(heard == published);
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
fn nobody_with_room_loses_anything_however_fast_it_is_published() {
    // The log keeps one event: each must have been copied for all before the next may push it out. All of them together
    // are less than what any socket takes, so that whoever falls behind was not given the time.
    let (address, channels) = start(Limits {
        history_events: 1,
        heartbeat: Duration::from_millis(100),
        ..Limits::default()
    });
    for subscribers in [1, 12] {
        let channel = channels.open(&format!("c{subscribers}")).expect("it is a name");
        let mut streams: Vec<Stream> =
            (0..subscribers).map(|_| Stream::subscribe(address, channel.name())).collect();
        // Who gets a heartbeat is live; before, the log may pass it by.
        for stream in &mut streams {
            stream.read_until(|bytes| bytes.ends_with(b"\n\n:\n\n"));
        }
        let publishers = [(); 3].map(|()| {
            let channel = channel.clone();
            let publish = move |_| channel.publish(Event::new("x")).expect("it is small").id;
            thread::spawn(move || (0..400).map(publish).collect::<Vec<_>>())
        });
        let published = publishers.map(|publisher| publisher.join().expect("it publishes"));
        let mut published = published.concat();
        published.sort_by_key(|id| numbers(id));
        channel.complete();
        for stream in &mut streams {
            assert_eq!(ids(&stream.until_end()), published, "of {subscribers}");
        }
    }
}

#[test]
fn many_channels_do_not_mix() {
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
        let heard = stream.until_end();
        let heard: Vec<&str> = heard.iter().map(|message| message.data.as_str()).collect();
        let expected: Vec<String> = (0..10).map(|event| format!("{channel} {event}")).collect();
        assert_eq!(heard, expected);
    }
}

/// Publishers, subscribers and completions at the same time. A subscriber comes back after every end, after every cut of
/// its own, and after every 204 until all is over: then its history must be whole.
#[test]
fn publishers_race_subscribers_race_completions() {
    const PUBLISHERS: u64 = 3;
    const SUBSCRIBERS: u64 = 8;
    let (address, channels) =
        start(Limits { history_events: 1_000_000, history_bytes: 1 << 30, ..Limits::default() });
    let channel = channels.open("c").expect("there is room");
    let all_published = Arc::new(AtomicBool::new(false));
    let is_over = Arc::new(AtomicBool::new(false));

    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|seed| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let mut dice = Dice::new(seed);
                let mut heard: Vec<Message> = Vec::new();
                let (mut ends, mut refusals) = (0, 0);
                loop {
                    // Asked before the request: what comes after it cannot be missed.
                    let was_over = is_over.load(SeqCst);
                    let id = heard.last().map_or("earliest", |m| m.last_event_id.as_str());
                    let fields = [("Last-Event-ID", id)];
                    let mut stream = Stream::open(address, "/channels/c", &fields);
                    if stream.answer.status == 204 {
                        refusals += 1;
                        if was_over {
                            return (heard, ends, refusals);
                        }
                        thread::yield_now();
                        continue;
                    }
                    assert_eq!(stream.answer.status, 200);
                    for _ in 0..1 + dice.below(300) {
                        match stream.next() {
                            Some(message) if message.event_type == "end" => {
                                ends += 1;
                                assert_eq!(stream.next(), None);
                                break;
                            }
                            Some(message) => {
                                assert_eq!(message.event_type, "message", "nothing is lost");
                                heard.push(message);
                            }
                            None => panic!("a stream ends with an end"),
                        }
                    }
                }
            })
        })
        .collect();
    let completer = {
        let (channel, all_published) = (channel.clone(), Arc::clone(&all_published));
        thread::spawn(move || {
            let mut dice = Dice::new(77);
            let mut completions = 0;
            while !all_published.load(SeqCst) {
                thread::sleep(Duration::from_micros(dice.below(4000) as u64));
                channel.complete();
                completions += 1;
            }
            completions
        })
    };
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|seed| {
            let channel = channel.clone();
            thread::spawn(move || {
                let mut dice = Dice::new(1000 + seed);
                let publish = |number: usize| {
                    if dice.once_in(3) {
                        thread::sleep(Duration::from_micros(dice.below(2000) as u64));
                    }
                    let data = format!("{number}\n").repeat(dice.below(4));
                    channel.publish(Event::new(data)).expect("it is small").id
                };
                (0..1500).map(publish).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut published: Vec<String> = Vec::new();
    for publisher in publishers {
        published.extend(publisher.join().expect("it publishes"));
    }
    all_published.store(true, SeqCst);
    let completions = completer.join().expect("it completes");
    channel.complete();
    is_over.store(true, SeqCst);

    published.sort_by_key(|id| numbers(id));
    let (mut ends, mut refusals) = (0, 0);
    for subscriber in subscribers {
        let (heard, heard_ends, was_refused) = subscriber.join().expect("it hears");
        assert_eq!(heard.len(), published.len());
        assert!(ids(&heard) == published, "each event once, in the order of the ids");
        ends += heard_ends;
        refusals += was_refused;
    }
    assert!(completions > 0 && ends > 0 && refusals > 0, "{completions} {ends} {refusals}");
    eventually("every place is free again", || channel.subscribers() == 0);
}

#[test]
fn a_completed_channel_ends_its_streams_and_sends_nobody_away_who_lacks_something() {
    let server = Server::start(&OPEN);
    let address = server.address;
    let mut live = Stream::subscribe(address, "c");
    let mut publisher = Publisher::connect(address, "c");
    let published: Vec<String> =
        (0..5).map(|number| publisher.publish(&number.to_string())).collect();
    complete(address, "c");
    assert_eq!(ids(&live.until_end()), published);
    // The end has no id of its own, so that it does not move the client.
    assert_eq!(live.parser.last_event_id(), published[4]);
    let expected =
        format!("id: {}\ndata: 4\n\nevent: end\ndata: the channel is completed\n\n", published[4]);
    assert!(String::from_utf8_lossy(&live.bytes).ends_with(&expected));

    let status = |id: &str| {
        let fields = [("Last-Event-ID", id)];
        let answer = ask(address, "GET", "/channels/c", &fields[..usize::from(!id.is_empty())], "");
        if answer.status == 204 {
            assert_eq!(answer.field("cache-control"), Some("no-store"));
            assert_eq!(answer.field("content-type"), None);
            assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
        }
        answer.status
    };
    // Twice, since the first time must not change anything.
    for _ in 0..2 {
        assert_eq!(status(&published[4]), 204, "it has heard everything");
        assert_eq!(status(""), 204, "there is nothing to come");
        for (at, id) in published[..4].iter().enumerate() {
            let heard = Stream::resume(address, "c", id).until_end();
            assert_eq!(ids(&heard), published[at + 1..], "after event {at}");
        }
        let heard = Stream::resume(address, "c", "earliest").until_end();
        assert_eq!(ids(&heard), published);
    }
    // Completing what is completed already changes nothing, and is no error.
    complete(address, "c");
    assert_eq!(status(&published[4]), 204);
    let listed = ask(address, "GET", "/channels", &[], "");
    assert!(listed.text().contains("\"completed\":true"), "{listed:?}");

    // Until something is published again.
    let next = publisher.publish("again");
    let mut stream = Stream::resume(address, "c", &published[4]);
    assert_eq!(stream.next().expect("it is open again").last_event_id, next);
    let mut stream = Stream::resume(address, "c", &published[3]);
    let heard = [(); 2].map(|()| stream.next().expect("it goes on").last_event_id);
    assert_eq!(heard, [published[4].clone(), next.clone()]);
    let listed = ask(address, "GET", "/channels", &[], "");
    assert!(listed.text().contains("\"completed\":false"), "{listed:?}");
    let last = publisher.publish("and again");
    assert_eq!(stream.next().expect("it is live").last_event_id, last);
    complete(address, "c");
    assert_eq!(stream.until_end(), []);
    assert_eq!(status(&next), 200);
    assert_eq!(status(&last), 204);
}

#[test]
fn a_channel_without_an_event_can_be_completed() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    complete(server.address, "c");
    assert_eq!(stream.until_end(), []);
    assert_eq!(ask(server.address, "GET", "/channels/c", &[], "").status, 204);
    let id = Publisher::connect(server.address, "c").publish("first");
    let mut stream = Stream::resume(server.address, "c", "earliest");
    assert_eq!(stream.next().expect("it is kept").last_event_id, id);
}

/// An event so large that a few hundred fill any socket, and its frame as it must stand on the wire.
fn publish_large(publisher: &mut Publisher, number: usize) -> Vec<u8> {
    let data = format!("{number} ") + &"x".repeat(64 * 1024);
    let id = publisher.publish(&data);
    format!("id: {id}\ndata: {data}\n\n").into_bytes()
}

/// Reads as many bytes as are expected; they must be these.
#[track_caller]
fn expect(socket: &mut TcpStream, expected: &[u8]) {
    let mut read = vec![0; expected.len()];
    socket.read_exact(&mut read).expect("there is more");
    if read != expected {
        let at = read.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(0);
        let there = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[at..][..80.min(bytes.len() - at)]).into_owned()
        };
        panic!("byte {at}: {:?} in place of {:?}", there(&read), there(expected));
    }
}

#[test]
fn a_stalled_reader_costs_the_live_ones_nothing_and_comes_back_to_a_gap_or_the_rest() {
    // One falls off the end of the log; the other is still within it when its time is up.
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
        let live = [(); 2].map(|()| Stream::subscribe(address, "c").into_socket());
        let live = live.map(|mut socket| {
            thread::spawn(move || {
                let mut heard = Vec::new();
                socket.read_to_end(&mut heard).expect("it ends");
                heard
            })
        });
        let mut publisher = Publisher::connect(address, "c");
        let mut frames = Vec::new();
        let is_gone = || disconnects(address, "stalled") + disconnects(address, "slow") == 1;
        let deadline = Instant::now() + PATIENCE;
        while frames.len() < 256 || !is_gone() {
            assert!(Instant::now() < deadline, "it is still there after {} events", frames.len());
            frames.push(publish_large(&mut publisher, frames.len()));
            // Fast while its socket fills, then slower: its time must pass.
            if frames.len() > 256 {
                thread::sleep(Duration::from_millis(5));
            }
        }
        complete(address, "c");
        let mut whole = frames.concat();
        whole.extend_from_slice(END);
        for listener in live {
            let heard = listener.join().expect("it heard the end");
            assert!(heard == whole, "the live ones notice nothing");
        }
        assert_eq!(metric(address, "newswire_subscribers"), 0);

        // What it had taken is still on its way; the last of it may be half an event.
        let mut heard = 0;
        while let Some(message) = stalled.next() {
            assert!(message.data.starts_with(&format!("{heard} x")), "after {heard} events");
            heard += 1;
        }
        assert!(heard < frames.len(), "it never stalled");
        let id = stalled.parser.last_event_id();
        let mut back = connect(address);
        let request = format!("GET /channels/c HTTP/1.0\r\nLast-Event-ID: {id}\r\n\r\n");
        back.write_all(request.as_bytes()).expect("the server reads");
        let mut whole = Vec::new();
        back.read_to_end(&mut whole).expect("it ends");
        let (_, story) = split_opening(&whole);
        if has_gap {
            let kept = frames.iter().rev().scan(0, |bytes, frame| {
                *bytes += frame.len();
                (*bytes <= history_bytes).then_some(())
            });
            let kept = kept.count();
            let oldest = String::from_utf8_lossy(&frames[frames.len() - kept][4..40]).into_owned();
            let oldest = oldest.lines().next().expect("it is the id");
            let gap =
                format!("event: gap\ndata: {{\"asked\":\"{id}\",\"oldest\":\"{oldest}\"}}\n\n");
            let rest = frames[frames.len() - kept..].concat();
            assert!(story == [gap.as_bytes(), &rest, END].concat(), "a gap and what is kept");
        } else {
            assert!(story == [&frames[heard..].concat(), END].concat(), "the rest");
        }
    }
}

#[test]
fn memory_does_not_grow_with_what_stalled_readers_do_not_read() {
    let resident = |server: &Server| {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: usize = kilobytes.expect("it is there").parse().expect("it is a number");
        kilobytes * 1024
    };
    let server = Server::start(&OPEN);
    let stalled: Vec<Stream> = (0..8).map(|_| Stream::subscribe(server.address, "c")).collect();
    let mut live = Stream::subscribe(server.address, "c").into_socket();
    let listener = thread::spawn(move || {
        let mut heard = vec![0; 1 << 20];
        while live.read(&mut heard).is_ok_and(|length| length > 0) {}
    });
    let mut publisher = Publisher::connect(server.address, "c");
    let mut published = 0;
    while threads_named(&server, "catch-up") < stalled.len() {
        assert!(published < 4096, "they take and take");
        publish_large(&mut publisher, published);
        published += 1;
    }
    let before = resident(&server);
    for number in 0..512 {
        publish_large(&mut publisher, number);
    }
    let grown = resident(&server).saturating_sub(before);
    // 32 MiB went through; the log keeps one, and each thread that fans out a copy.
    assert!(grown < 8 << 20, "{grown} bytes more than {before}");
    drop(stalled);
    drop(server);
    listener.join().expect("it has heard what it could");
}

/// How many threads of this name the server has.
fn threads_named(server: &Server, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|found| found.trim_end() == name)
        .count()
}

/// A server whose log keeps all that a test says, and which says nothing of its own.
fn start_remembering() -> Server {
    let history =
        ["--history-events", "1000000", "--history-bytes", "1000000000", "--heartbeat", "0"];
    Server::start(&[&OPEN[..], &history].concat())
}

/// Publishes until somebody who reads nothing has no room left, and has got a thread of its own.
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
fn a_reader_that_falls_behind_and_catches_up_hears_everything_once() {
    let server = start_remembering();
    let mut slow = Stream::subscribe(server.address, "c").into_socket();
    let mut quick = Stream::subscribe(server.address, "c").into_socket();
    let quick = thread::spawn(move || {
        let mut heard = Vec::new();
        quick.read_to_end(&mut heard).expect("it ends");
        heard
    });
    let mut publisher = Publisher::connect(server.address, "c");
    let mut story = Vec::new();
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
        story.extend([frames, more, live].concat());
    }
    complete(server.address, "c");
    expect(&mut slow, END);
    story.extend_from_slice(END);
    assert!(quick.join().expect("it ends") == story, "the other has noticed nothing");
    // What was written on the way back counts as much as what was written live.
    let published = server.metric("newswire_events_published_total");
    let delivered = server.metric("newswire_events_delivered_total");
    assert_eq!(delivered, 2 * published, "events");
    let published = server.metric("newswire_bytes_published_total");
    let delivered = server.metric("newswire_bytes_delivered_total");
    assert_eq!(delivered, 2 * published, "bytes");
}

#[test]
fn a_reader_that_is_completed_while_it_is_behind_hears_everything_and_the_end() {
    let server = start_remembering();
    let mut slow = Stream::subscribe(server.address, "c").into_socket();
    let mut publisher = Publisher::connect(server.address, "c");
    let frames = publish_until_behind(&server, &mut publisher);
    complete(server.address, "c");
    // What is published now is none of its story.
    publisher.publish("next");
    expect(&mut slow, &frames);
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("it ends");
    assert_eq!(String::from_utf8_lossy(&rest), String::from_utf8_lossy(END));
}

#[test]
fn publishing_waits_for_nobody_who_has_left() {
    // One event of history: each must be copied by whoever fans out before the next one may push it out.
    let (address, channels) = start(Limits {
        history_events: 1,
        heartbeat: Duration::from_millis(200),
        ..Limits::default()
    });
    let channels: Vec<Channel> = (0..12)
        .map(|number| channels.open(&format!("c{number}")).expect("there is room"))
        .collect();
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
    // A publisher gives up after two seconds, and there are twelve channels on which it could have to. A
    // machine that stands still so long once is forgiven.
    let gave_up = times.iter().filter(|time| time.as_millis() > 1900).count();
    assert!(gave_up <= 1, "{times:?}");
}

#[test]
fn publishing_waits_for_nobody_whose_stream_has_ended() {
    let (address, channels) =
        start(Limits { history_events: 1, heartbeat: Duration::ZERO, ..Limits::default() });
    let mut longest = Vec::new();
    for round in 0..12 {
        let channel = channels.open(&format!("c{round}")).expect("there is room");
        let streams: Vec<Stream> =
            (0..60).map(|_| Stream::subscribe(address, channel.name())).collect();
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
        // All go at once, while publishers wait until what they lack has been copied.
        thread::sleep(Duration::from_millis(20));
        channel.complete();
        let times = publishers.map(|publisher| publisher.join().expect("it publishes"));
        longest.extend(times.into_iter().max());
        drop(streams);
    }
    // A publisher gives up after two seconds. A machine that stands still so long once is forgiven.
    let gave_up = longest.iter().filter(|time| **time > Duration::from_millis(1900)).count();
    assert!(gave_up < 2, "{longest:?}");
}

#[test]
fn who_leaves_is_noticed_by_the_next_heartbeat() {
    let server = Server::start(&["--publish-open", "--quiet", "--heartbeat", "1"]);
    let connections = |server: &Server| server.metric("newswire_connections") - 1;
    // Who closes, and who closes without having read everything, which resets the connection.
    for reads_everything in [true, false] {
        let mut streams: Vec<Stream> = (0..30)
            .map(|number| Stream::subscribe(server.address, ["a", "b", "c"][number % 3]))
            .collect();
        assert_eq!(server.metric("newswire_subscribers"), 30);
        if reads_everything {
            streams.iter_mut().for_each(|stream| stream.read_until(is_opened));
        }
        drop(streams);
        eventually("their places are free", || server.metric("newswire_subscribers") == 0);
        eventually("their connections are closed", || connections(&server) == 0);
    }
    assert_eq!(disconnects(server.address, "client"), 60);
    eventually("their threads are gone", || threads_named(&server, "connection") <= 1);
    // Without an event and without a subscriber there is no channel.
    assert_eq!(server.metric("newswire_channels"), 0);
}

#[test]
fn a_subscriber_that_closes_its_half_goes_on_hearing_until_it_closes_the_other() {
    let server = Server::start(&["--publish-open", "--quiet", "--heartbeat", "1"]);
    let mut stream = Stream::subscribe(server.address, "c");
    stream.socket().shutdown(Shutdown::Write).expect("it is open");
    let heartbeats = |bytes: &[u8]| bytes.windows(3).filter(|beat| beat == b":\n\n").count();
    // Long enough that it would have been taken for gone.
    stream.read_until(|bytes| heartbeats(bytes) >= 3);
    let id = Publisher::connect(server.address, "c").publish("still there");
    assert_eq!(stream.next().expect("it is live").last_event_id, id);
    let seen = heartbeats(&stream.bytes);
    stream.read_until(|bytes| heartbeats(bytes) >= seen + 2);
    assert_eq!(server.metric("newswire_subscribers"), 1);
    drop(stream);
    eventually("it is gone", || server.metric("newswire_subscribers") == 0);

    // Who closes its half with the request, as `nc -N` does, is a subscriber like any other.
    let mut socket = connect(server.address);
    socket
        .write_all(b"GET /channels/c HTTP/1.0\r\n\r\n")
        .and_then(|()| socket.shutdown(Shutdown::Write))
        .expect("the server reads");
    eventually("it subscribes", || server.metric("newswire_subscribers") == 1);
    Publisher::connect(server.address, "c").publish("one-way");
    complete(server.address, "c");
    let mut heard = String::new();
    socket.read_to_string(&mut heard).expect("it ends");
    assert!(heard.contains("data: one-way\n\nevent: end\n"), "{heard}");
}

#[test]
fn what_a_client_says_behind_its_request_does_not_cost_it_the_end() {
    let server = Server::start(&["--publish-open", "--quiet", "--heartbeat", "0"]);
    let request = "GET /channels/c HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let pipelined = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let talkative = "x".repeat(100_000);
    for (together, later) in [
        (pipelined, ""),
        ("", pipelined),
        ("", talkative.as_str()),
        (pipelined, talkative.as_str()),
    ] {
        let mut socket = connect(server.address);
        let whole = [request, together].concat();
        socket.write_all(whole.as_bytes()).expect("the server reads");
        eventually("it subscribes", || server.metric("newswire_subscribers") == 1);
        socket.write_all(later.as_bytes()).expect("the system takes it");
        Publisher::connect(server.address, "c").publish("said");
        complete(server.address, "c");
        // A reset would be an error here, and could have erased what was not read yet.
        let mut heard = String::new();
        let end = socket.read_to_string(&mut heard);
        let behind = format!("{} bytes together, {} later", together.len(), later.len());
        assert!(end.is_ok(), "{end:?} with {behind}, after {heard:?}");
        let end = "data: said\n\nevent: end\ndata: the channel is completed\n\n";
        assert!(heard.ends_with(end), "{behind}: {heard}");
        assert_eq!(heard.matches("HTTP/1.1").count(), 1, "{heard}");
        eventually("it is gone", || server.metric("newswire_subscribers") == 0);
        // Opens it again.
        Publisher::connect(server.address, "c").publish("next");
    }
}

/// How many files this process may have open.
fn descriptor_limit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("this is Linux");
    let line =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("it is there");
    let soft = line.split_whitespace().next().expect("it is there");
    soft.parse().unwrap_or(usize::MAX)
}

#[test]
fn ten_thousand_subscribers_cost_a_handful_of_threads_and_leave_nothing_behind() {
    const SUBSCRIBERS: usize = 10_000;
    let server = Server::start(&OPEN);
    let settle = |what: &str| {
        eventually(what, || server.metric("newswire_connections") == 1);
        // The threads that answered these questions end, too.
        eventually(what, || {
            threads_named(&server, "connection") + threads_named(&server, "catch-up") == 0
        });
        (server.threads(), server.descriptors())
    };
    let before = settle("it has just begun");
    // Other tests run at the same time, and have files open too.
    let at_once = SUBSCRIBERS.min(descriptor_limit().saturating_sub(64 + 500) * 9 / 10).max(100);
    let mut opened = 0;
    while opened < SUBSCRIBERS {
        let wave = at_once.min(SUBSCRIBERS - opened);
        let mut sockets: Vec<TcpStream> = (0..wave)
            .map(|_| {
                let mut socket = connect(server.address);
                let request = b"GET /channels/c HTTP/1.1\r\nHost: localhost\r\n\r\n";
                socket.write_all(request).expect("the server reads");
                socket
            })
            .collect();
        eventually("all subscribe", || server.metric("newswire_subscribers") == wave as u64);
        eventually("no thread is theirs", || threads_named(&server, "connection") <= 1);
        assert!(server.threads() <= before.0 + 1, "{} threads", server.threads());
        // Everyone hears of it.
        let id = Publisher::connect(server.address, "c").publish("everyone");
        let end = format!("id: {id}\ndata: everyone\n\n");
        for socket in &mut sockets {
            let mut heard = Vec::new();
            while !heard.ends_with(end.as_bytes()) {
                let mut piece = [0; 1024];
                let length = socket.read(&mut piece).expect("it is live");
                assert!(length > 0, "it ended after {}", String::from_utf8_lossy(&heard));
                heard.extend_from_slice(&piece[..length]);
            }
        }
        opened += wave;
        drop(sockets);
        // The first write into a closed connection comes back as a reset, and the second one fails.
        eventually("their places are free", || {
            Publisher::connect(server.address, "c").publish("is anyone there?");
            server.metric("newswire_subscribers") == 0
        });
    }
    assert_eq!(settle("it has quietened down"), before, "threads and descriptors");
    let mut stream = Stream::subscribe(server.address, "c");
    Publisher::connect(server.address, "c").publish("as before");
    assert_eq!(stream.next().expect("it is live").data, "as before");
}

#[test]
fn heartbeats_are_for_the_idle_and_do_not_come_all_at_once() {
    let (address, channels) =
        start(Limits { heartbeat: Duration::from_secs(4), ..Limits::default() });
    let idle: Vec<Stream> = (0..40).map(|_| Stream::subscribe(address, "idle")).collect();
    let mut busy = Stream::subscribe(address, "busy");
    let first_beats = Arc::new(Mutex::new(Vec::new()));
    let listeners: Vec<_> = idle
        .into_iter()
        .map(|mut stream| {
            let first_beats = Arc::clone(&first_beats);
            thread::spawn(move || {
                stream.read_until(|bytes| bytes.ends_with(b"\n\n:\n\n"));
                first_beats.lock().expect("nobody panics").push(Instant::now());
                stream
            })
        })
        .collect();
    // An event every now and then, until the idle ones have all been greeted: who is spoken to needs no comment.
    let channel = channels.open("busy").expect("there is room");
    let mut published = 0;
    while listeners.iter().any(|listener| !listener.is_finished()) {
        channel.publish(Event::new("x")).expect("it is small");
        published += 1;
        thread::sleep(Duration::from_millis(50));
    }
    channel.complete();
    assert_eq!(busy.until_end().len(), published);
    let said = String::from_utf8_lossy(&busy.bytes);
    assert!(!said.contains("\n\n:\n\n"), "{said}");

    let mut first_beats = first_beats.lock().expect("nobody panics").clone();
    first_beats.sort_unstable();
    // They are spread over two seconds. On a machine that stands still for most of them they would come together.
    let spread = first_beats[39] - first_beats[0];
    assert!(spread > Duration::from_millis(200), "{spread:?}");
}

#[test]
fn heartbeats_can_be_turned_off() {
    let (address, channels) = start(Limits { heartbeat: Duration::ZERO, ..Limits::default() });
    let (beating, _) = start(Limits { heartbeat: Duration::from_millis(100), ..Limits::default() });
    let mut silent = Stream::subscribe(address, "c");
    let mut other = Stream::subscribe(beating, "c");
    // As long as another server takes for many.
    other.read_until(|bytes| bytes.windows(3).filter(|beat| beat == b":\n\n").count() > 5);
    let channel = channels.open("c").expect("there is room");
    channel.publish(Event::new("x")).expect("it is small");
    channel.complete();
    assert_eq!(silent.until_end().len(), 1);
    assert!(!String::from_utf8_lossy(&silent.bytes).contains("\n:\n"));
}

/// A stream that was refused for load: EventSource must come back later, so that it is not an error.
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
    assert_eq!(disconnects(address, "refused"), 3);
    assert_eq!(server.metric("newswire_subscribers"), 3);
    // Publishing is not refused, and those who are there hear it.
    Publisher::connect(address, "a").publish("x");
    assert_eq!(streams[0].next().expect("it is live").data, "x");
    drop(streams.pop());
    eventually("a place is free", || server.metric("newswire_subscribers") == 2);
    let mut stream = Stream::subscribe(address, "a");
    Publisher::connect(address, "a").publish("y");
    assert_eq!(stream.next().expect("it is live").data, "y");

    // What is over is over for them too: a 204, and no place needed.
    Publisher::connect(address, "over").publish("x");
    complete(address, "over");
    assert_eq!(ask(address, "GET", "/channels/over", &[], "").status, 204);

    let nobody = Server::start(&["--publish-open", "--quiet", "--max-subscribers", "0"]);
    assert_told_to_come_back(&ask(nobody.address, "GET", "/channels/c", &[], ""));
}

#[test]
fn who_leaves_is_noticed_without_heartbeats_too_and_who_only_closes_its_half_is_not_cut() {
    let server = Server::start(&["--publish-open", "--quiet", "--heartbeat", "0"]);
    let mut half = Stream::subscribe(server.address, "c");
    half.socket().shutdown(Shutdown::Write).expect("it is connected");
    drop([(); 3].map(|_| Stream::subscribe(server.address, "c")));
    eventually("they are gone", || server.metric("newswire_subscribers") == 1);
    assert_eq!(ask(server.address, "POST", "/channels/c", &[], "x").status, 200);
    assert_eq!(half.next().expect("it listens still").data, "x");
}

#[test]
fn channels_are_bounded_and_those_that_are_over_give_way() {
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
    // One that only somebody's subscription has made goes with it.
    drop(Stream::subscribe(address, "z"));
    eventually("the channel is gone", || names().is_empty());
    for channel in ["a", "b", "c"] {
        assert_eq!(publish(channel), 200);
    }
    // One more is refused, in the way in which whoever asks understands it.
    assert_eq!(publish("d"), 503);
    assert_eq!(ask(address, "PUT", "/channels/d?lines", &[], "x").status, 503);
    assert_eq!(publish("a"), 200, "those that there are go on");
    assert_eq!(names(), "a b c");

    // Readers have as many of their own, so that nobody who may not publish keeps those out who may.
    let waiting = ["d", "x", "y"].map(|channel| Stream::subscribe(address, channel));
    assert_told_to_come_back(&ask(address, "GET", "/channels/z", &[], ""));
    assert_eq!(names(), "a b c d x y");
    assert_eq!(publish("d"), 503, "it would begin");
    drop(waiting);
    eventually("they are gone", || names() == "a b c");

    // What is completed and nobody listens to gives way, the one that was completed by the oldest event first.
    complete(address, "b");
    complete(address, "a");
    assert_eq!(publish("d"), 200);
    assert_eq!(names(), "a c d");
    assert_eq!(publish("e"), 200);
    assert_eq!(names(), "c d e");
    assert_eq!(publish("f"), 503);
    // Not while somebody still listens: he has not heard the end, perhaps.
    let mut listener = Stream::subscribe(address, "c");
    assert_eq!(publish("f"), 503);
    complete(address, "c");
    assert_eq!(listener.until_end(), []);
    eventually("it gives way", || publish("f") == 200);
    assert_eq!(names(), "d e f");

    // A channel is forgotten with its log: who was there before is told, at nobody's cost.
    complete(address, "d");
    let mut back = Stream::resume(address, "c", "1000-0");
    assert_eq!(back.next().expect("it is told").event_type, "gap");
    assert_eq!(names(), "c d e f");
    // It begins in the place of what is completed.
    assert_eq!(publish("c"), 200);
    assert_eq!(back.next().expect("it is heard").event_type, "message");
    assert_eq!(names(), "c e f");
}

#[test]
fn however_channels_begin_there_are_no_more_than_may_be() {
    let server = Server::start(&["--publish-open", "--quiet", "--max-channels", "2"]);
    let address = server.address;
    // Uploads that have published nothing yet.
    let uploads = ["a", "b", "c"].map(|channel| {
        let mut socket = server.connect();
        let head = format!(
            "POST /channels/{channel}?lines HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).expect("the server reads");
        if channel != "c" {
            eventually("it has begun", || {
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

    // What is completed before anything was published.
    for number in 0..12 {
        let channel = format!("c{number}");
        let mut listener = Stream::subscribe(address, &channel);
        complete(address, &channel);
        assert_eq!(listener.until_end(), []);
    }
    assert!(server.metric("newswire_channels") <= 4);
}

#[test]
fn the_history_is_bounded_in_events_and_in_bytes_and_says_what_it_has() {
    let server = Server::start(&[
        "--publish-open",
        "--quiet",
        "--history-events",
        "5",
        "--history-bytes",
        "1024",
    ]);
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
        // What stands on the wire behind the opening is what it says it has.
        let (_, kept_bytes) = split_opening(&stream.bytes);
        let bytes = kept_bytes.len();
        assert!(bytes <= 1024, "{bytes}");
        let listed = ask(address, "GET", "/channels", &[], "");
        let expected = format!(
            "[{{\"name\":\"c.d-e_f\",\"subscribers\":1,\"events\":{},\"bytes\":{bytes},\
             \"first_id\":\"{}\",\"last_id\":\"{}\",\"completed\":false}}]\n",
            kept.len(),
            kept[0],
            kept[kept.len() - 1]
        );
        assert_eq!(listed.text(), expected);
        assert_eq!(server.metric("newswire_history_events"), kept.len() as u64);
        assert_eq!(server.metric("newswire_history_bytes"), bytes as u64);
        // Its place must be free before the next is counted.
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
    // What issue 3 asks for.
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
        "newswire_disconnects_total{reason=\"refused\"}",
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
fn a_head_request_subscribes_nobody() {
    let server = Server::start(&OPEN);
    let get = Stream::subscribe(server.address, "c").answer.head;
    let head = ask(server.address, "HEAD", "/channels/c", &[], "").head;
    // The two but for the second at which they were written.
    let undated = |head: &str| {
        let lines = head.lines().filter(|line| !line.starts_with("Date: "));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(undated(&head), undated(&get));
    eventually("both are gone", || {
        Publisher::connect(server.address, "c").publish("x");
        server.metric("newswire_subscribers") == 0
    });
}

#[test]
fn a_stream_of_a_kept_connection_is_its_last_response() {
    let server = Server::start(&OPEN);
    let mut socket = connect(server.address);
    let requests = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\
                    POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nfirst\
                    GET /channels/c?last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(requests.as_bytes()).expect("the server reads");
    let mut heard = Vec::new();
    while !heard.ends_with(b"data: first\n\n") {
        let mut piece = [0; 1024];
        let length = socket.read(&mut piece).expect("it is live");
        assert!(length > 0, "it ended after {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&piece[..length]);
    }
    assert_eq!(String::from_utf8_lossy(&heard).matches("HTTP/1.1 200 OK").count(), 3);
    // And it is live.
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("it is not zero");
    let error = socket.read(&mut [0]).expect_err("nothing is said");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    complete(server.address, "c");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let mut rest = String::new();
    socket.read_to_string(&mut rest).expect("it ends");
    assert_eq!(rest, "event: end\ndata: the channel is completed\n\n");
}

#[test]
fn the_library_pushes_to_browsers_without_a_request() {
    let (address, channels) = start(Limits::default());
    let channel = channels.open("library").expect("it is a name");
    assert_eq!(channel.name(), "library");
    let mut stream = Stream::subscribe(address, "library");
    assert_eq!(channel.subscribers(), 1);
    let event = Event::new("pushed").id("mine").and_then(|event| event.name("n"));
    let event = event.expect("both are one line").reconnection_time(Duration::from_secs(1));
    let published = channel.publish(event).expect("it is small");
    assert_eq!(published.subscribers, 1);
    let message = stream.next().expect("it is live");
    // Ids are the channel's, or nobody could come back.
    assert_eq!(message.last_event_id, published.id);
    assert_eq!((message.event_type.as_str(), message.data.as_str()), ("n", "pushed"));
    assert_eq!(stream.parser.reconnection_time(), Some(Duration::from_secs(1)));
    // A comment is kept and counted as any block, and dispatches nothing.
    channel.publish(Event::default().comment("only a comment")).expect("it is small");
    let again = channels.find("library").expect("it is there");
    let last = again.publish(Event::new("last")).expect("it is small");
    assert_eq!(stream.next().expect("it is live").last_event_id, last.id);
    let summary = channel.summary();
    assert_eq!((summary.events, summary.last_id.as_ref()), (3, Some(&last.id)));
    channel.complete();
    assert_eq!(stream.until_end(), []);
    assert!(channels.open("no/name").is_err());
    assert!(channels.find("other").is_none());
}
