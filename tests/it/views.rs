//! Several channels on one connection.

use crate::channels::{OPEN, complete, disconnects, metric, start};
use crate::server::{Answer, Dice, Publisher, Server, Stream, ask, connect, eventually};
use newswire::channel::{Channels, Limits};
use newswire::sse::Message;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn publish(channels: &Channels, name: &str, data: &str) -> String {
    channels.open(name).expect("there is room").publish(data).expect("it is small").id
}

fn view(address: SocketAddr, selection: &str, id: &str) -> Stream {
    Stream::open(address, &format!("/channels/{selection}"), &[("Last-Event-ID", id)])
}

/// The next events, each as its type and its data.
fn take(stream: &mut Stream, count: usize) -> Vec<String> {
    let next = |_| stream.next().expect("it goes on");
    (0..count).map(next).map(|event| format!("{}={}", event.event_type, event.data)).collect()
}

#[test]
fn each_event_of_a_view_has_its_channel_as_its_type() {
    let server = Server::start(&OPEN);
    let address = server.address;
    let same = ["news,weather", "weather,news", "*", "n*,weather", "news%2Cweather"];
    let covered = ["news,weather,news", "weather,n*,news,ne*", "news,*"];
    let mut views = [&same[..], &covered]
        .concat()
        .into_iter()
        .map(|selection| Stream::open(address, &format!("/channels/{selection}"), &[]))
        .collect::<Vec<_>>();
    let mut direct = Stream::subscribe(address, "news");
    assert_eq!(server.metric("newswire_views"), 3, "the order of the names does not matter");
    assert_eq!(server.metric("newswire_subscribers"), 9);
    // A view begins no channel.
    assert_eq!(server.metric("newswire_channels"), 1);
    for (channel, query) in [("news", ""), ("weather", "?event=rain"), ("other", ""), ("news", "?event=sport%20now")] {
        let target = format!("/channels/{channel}{query}");
        assert_eq!(ask(address, "POST", &target, &[], "two\nlines").status, 200);
    }
    let expected = ["news=two\nlines", "weather:rain=two\nlines", "news:sport now=two\nlines"];
    for (at, stream) in views.iter_mut().enumerate() {
        if at == 2 || at == 7 {
            assert_eq!(take(stream, 4)[2], "other=two\nlines");
        } else {
            assert_eq!(take(stream, 3), expected);
        }
    }
    // The channel itself goes on as it was.
    assert_eq!(take(&mut direct, 2), ["message=two\nlines", "sport now=two\nlines"]);
    drop((views, direct));
    eventually("a view goes with its last subscriber", || server.metric("newswire_views") == 0);
}

#[test]
fn a_name_that_could_be_taken_for_something_else_is_refused_or_shown_as_what_it_is() {
    let server = Server::start(&OPEN);
    let address = server.address;
    let longest = format!("{},b", "x".repeat(65));
    let many = ["a"; 17].join(",");
    for malformed in [
        ",",
        "a,",
        ",a",
        "a,,b",
        "a*b",
        "**",
        "a**",
        "a,.b",
        "a,%0Aevent:x",
        "a,b%00",
        "%20a,b",
        "a,%20b",
        "@presence.",
        "@presence.a*",
        "@presence.@presence.a",
        "$a,b",
        "@presence.a,b",
        "a,b%0Aid:1",
        "%C3%A9*",
        &longest,
        &many,
    ] {
        let answer = ask(address, "GET", &format!("/channels/{malformed}"), &[], "");
        let status = if malformed.contains("%00") { 400 } else { 404 };
        assert_eq!(answer.status, status, "{malformed}: {answer:?}");
        // Nothing can be published by a name that is no name. More names can be published on than subscribed to.
        let answer = ask(address, "POST", &format!("/channels/{malformed}"), &[], "x");
        let expected = if malformed == many { 200..201 } else { 400..500 };
        assert!(expected.contains(&answer.status), "{malformed}: {answer:?}");
    }
    for several in ["*", "a*", "a*,b"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = ask(address, method, &format!("/channels/{several}"), &[], "x");
            assert_eq!(answer.status, 404, "{method} {several}: {answer:?}");
        }
    }
    assert_eq!(server.metric("newswire_views"), 0);
    // EventSource itself dispatches `error`, and the server sends `end`, `gap` and `heartbeat`.
    let mut stream = Stream::open(address, "/channels/*", &[]);
    for channel in ["error", "open", "end", "gap", "heartbeat", "message"] {
        Publisher::connect(address, channel).publish("x");
        let event = stream.next().expect("it is live");
        let expected = if channel == "message" { "message".to_owned() } else { format!("{channel}:message") };
        assert_eq!(event.event_type, expected);
    }
}

/// What a view must show: the events of its channels, by id.
fn oracle(published: &[(String, String)], selection: &str) -> Vec<(String, String)> {
    let matches = |name: &str| {
        selection.split(',').any(|part| match part.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == part,
        })
    };
    let mut expected: Vec<_> = published.iter().filter(|(_, name)| matches(name)).cloned().collect();
    expected.sort_by_key(|(id, _)| key(id));
    expected
}

fn key(id: &str) -> (u64, u64) {
    let (ms, n) = id.split_once('-').expect("it is an id");
    (ms.parse().expect("it is a number"), n.parse().expect("it is a number"))
}

fn shown(events: &[Message]) -> Vec<(String, String)> {
    events.iter().map(|event| (event.last_event_id.clone(), event.event_type.clone())).collect()
}

/// A difference among thousands of events is shown by its place.
fn assert_same(events: &[(String, String)], expected: &[(String, String)], what: &str) {
    let same = events.iter().zip(expected).take_while(|(event, expected)| event == expected);
    let at = same.count();
    let lengths = (events.len(), expected.len());
    assert_eq!((events.get(at), expected.get(at)), (None, None), "{what}: {at} of {lengths:?}");
}

const SELECTIONS: [&str; 6] = ["c0,c1,c2", "c*", "c4,c5", "c1*,c2", "c3,c7,new*", "*"];

/// A client that leaves after a random number of events, and comes back with the id of the last.
fn read_with_cuts(
    address: SocketAddr,
    selection: &str,
    mut dice: Dice,
    first: Stream,
    total: &AtomicUsize,
) -> Vec<Message> {
    let (mut events, mut stream) = (Vec::<Message>::new(), first);
    loop {
        for _ in 0..dice.below(60) + 1 {
            let event = stream.next().expect("it goes on");
            if event.data == "last" {
                return events;
            }
            assert_ne!(event.event_type, "gap", "{selection}: {event:?}");
            total.fetch_add(1, SeqCst);
            events.push(event);
        }
        let last = events.last().map(|event| event.last_event_id.clone()).unwrap_or_default();
        drop(stream);
        stream = view(address, selection, &last);
    }
}

#[test]
fn publishers_on_many_channels_at_once_are_shown_in_one_order_from_which_each_id_resumes() {
    const PUBLISHERS: usize = 6;
    const EVENTS: usize = 400;
    let (address, channels) = start(Limits { history_events: 100_000, ..Limits::default() });
    let published = Arc::new(Mutex::new(Vec::new()));
    // The readers are there before the first event.
    let total = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..2 * SELECTIONS.len() as u64)
        .map(|seed| {
            let selection = SELECTIONS[seed as usize % SELECTIONS.len()];
            let first = Stream::open(address, &format!("/channels/{selection}"), &[]);
            let total = Arc::clone(&total);
            let read = move || read_with_cuts(address, selection, Dice::new(seed), first, &total);
            (selection, thread::spawn(read))
        })
        .collect();
    let publishers: Vec<_> = (0..PUBLISHERS as u64)
        .map(|seed| {
            let (channels, published) = (channels.clone(), Arc::clone(&published));
            thread::spawn(move || {
                let mut dice = Dice::new(1000 + seed);
                for number in 0..EVENTS {
                    // Some channels begin while the views are there.
                    let name = match dice.below(10) {
                        9 => format!("new{}", number / 20),
                        other => format!("c{other}"),
                    };
                    let id = publish(&channels, &name, "x");
                    published.lock().expect("no publisher panics").push((id, name));
                    if dice.once_in(20) {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            })
        })
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().expect("it publishes"));
    let published = published.lock().expect("no publisher panics").clone();
    assert_eq!(published.len(), PUBLISHERS * EVENTS);
    for name in ["c2", "c4", "c7"] {
        publish(&channels, name, "last");
    }
    for (selection, reader) in readers {
        let events = reader.join().expect("it reads");
        assert_same(&shown(&events), &oracle(&published, selection), selection);
    }
    // Each id resumes each view, also the ids of channels that it does not show; and the view need not exist.
    let mut dice = Dice::new(7);
    for selection in SELECTIONS {
        let expected = oracle(&published, selection);
        for _ in 0..20 {
            let (id, _) = dice.pick(&published);
            let mut stream = view(address, selection, id);
            let rest: Vec<_> = expected.iter().filter(|(other, _)| key(other) > key(id)).cloned().collect();
            let events: Vec<Message> = (0..rest.len()).map(|_| stream.next().expect("it goes on")).collect();
            assert_same(&shown(&events), &rest, &format!("{selection} from {id}"));
        }
        let mut stream = view(address, selection, "earliest");
        let events: Vec<Message> = (0..expected.len()).map(|_| stream.next().expect("it goes on")).collect();
        assert_same(&shown(&events), &expected, selection);
    }
    assert_eq!(metric(address, "newswire_gaps_total"), 0);
    assert_eq!(disconnects(address, "slow"), 0);
}

#[test]
fn a_gap_of_a_view_names_the_channels_that_have_lost_something() {
    let limits = Limits { history_events: 10, channels: 6, ..Limits::default() };
    let (address, channels) = start(limits);
    let first = publish(&channels, "quiet", "q0");
    // The view exists all the time.
    let mut live = Stream::open(address, "/channels/quiet,busy", &[]);
    publish(&channels, "quiet", "q1");
    for number in 0..30 {
        publish(&channels, "busy", &number.to_string());
        live.next().expect("it is live");
    }
    publish(&channels, "quiet", "q2");
    let mut back = view(address, "quiet,busy", &first);
    let gap = back.next().expect("it is told");
    assert_eq!((gap.event_type.as_str(), gap.last_event_id.as_str()), ("gap", ""));
    assert!(gap.data.ends_with(",\"channels\":[\"busy\"]}"), "{}", gap.data);
    // A busy channel does not push the events of a quiet one out.
    let mut expected = vec!["quiet=q1".to_owned()];
    expected.extend((20..30).map(|number| format!("busy={number}")));
    expected.push("quiet=q2".to_owned());
    assert_eq!(take(&mut back, 12), expected);
    // What is no id of this server is told for all.
    for asked in ["nonsense", "99999999999999-0"] {
        let gap = view(address, "quiet,busy", asked).next().expect("it is told");
        let names = format!("{{\"asked\":\"{asked}\",");
        assert!(gap.data.starts_with(&names), "{}", gap.data);
        assert!(gap.data.ends_with("\"channels\":[\"busy\",\"quiet\"]}"), "{}", gap.data);
    }
    assert_eq!(take(&mut view(address, "quiet,busy", "earliest"), 2), ["quiet=q0", "quiet=q1"]);

    // An evicted channel has lost all.
    let kept = publish(&channels, "other", "q3");
    publish(&channels, "evicted", "e0");
    for number in 0..3 {
        publish(&channels, &format!("new{number}"), "x");
    }
    assert!(channels.find("evicted").is_some());
    let kept = (kept, channels.open("other").expect("it is evicted by now").publish("q4"));
    for number in 3..9 {
        publish(&channels, &format!("new{number}"), "x");
    }
    assert!(channels.find("evicted").is_none());
    let gap = view(address, "evicted,other", &kept.0).next().expect("it is told");
    assert!(gap.data.contains("\"channels\":[\"evicted\""), "{}", gap.data);
}

/// An unused channel goes for another one; a channel that never was has lost nothing, and its name is not told for that.
#[test]
fn a_gap_names_no_channel_that_was_not_there() {
    let (address, channels) = start(Limits { channels: 4, ..Limits::default() });
    let kept = channels.open("kept").expect("there is room");
    let first = kept.publish("k1").expect("it is small").id;
    kept.publish("k2").expect("it is small");
    for name in ["gone", "gone.too", "other1", "other2", "other3"] {
        publish(&channels, name, "x");
    }
    assert!(channels.find("gone").is_none() && channels.find("gone.too").is_none());
    for selection in ["ghost,kept", "gh*,kept"] {
        assert_eq!(take(&mut view(address, selection, &first), 1), ["kept=k2"], "{selection}");
    }
    for (selection, lost) in [("gone,kept", "\"gone\""), ("ghost,kept,g*", "\"gone\",\"gone.too\"")] {
        let gap = view(address, selection, &first).next().expect("it is told");
        assert!(gap.data.ends_with(&format!(",\"channels\":[{lost}]}}")), "{}", gap.data);
    }
    // The same with one channel, also when it begins again.
    let mut ghost = view(address, "ghost", &first);
    assert_eq!(view(address, "gone", &first).next().expect("it is told").event_type, "gap");
    publish(&channels, "gone", "y");
    assert_eq!(view(address, "gone", &first).next().expect("it is told").event_type, "gap");
    publish(&channels, "ghost", "y");
    assert_eq!(ghost.next().expect("it goes on").data, "y");
    // So many names are not remembered. Each may have been that of a channel then.
    for number in 0..1100 {
        publish(&channels, &format!("many{number}"), "x");
    }
    let gap = view(address, "unknown,kept", &first).next().expect("it is told");
    assert!(gap.data.ends_with(",\"channels\":[\"unknown\"]}"), "{}", gap.data);
    for name in ["gone", "many0", "many1000"] {
        let gap = view(address, &format!("kept,{name}"), &first).next().expect("it is told");
        assert!(gap.data.ends_with(&format!(",\"channels\":[\"{name}\"]}}")), "{}", gap.data);
    }
}

#[test]
fn a_view_goes_on_when_its_channels_are_completed_and_tells_which() {
    let server = Server::start(&OPEN);
    let address = server.address;
    let mut stream = Stream::open(address, "/channels/a,b", &[]);
    let ids = ["a", "b"].map(|channel| {
        let id = Publisher::connect(address, channel).publish("x");
        complete(address, channel);
        // Nothing comes of it, and nothing is told, a second time.
        complete(address, channel);
        id
    });
    let end = |channel: &str| format!("{channel}:end=the channel is completed");
    let (a, b) = (&*end("a"), &*end("b"));
    assert_eq!(take(&mut stream, 4), ["a=x", a, "b=x", b]);
    // A client that comes later is told, too, behind the events; whether or not the view was there meanwhile.
    let mut late = Stream::open(address, "/channels/a,b", &[]);
    assert_eq!(take(&mut late, 2), [a, b]);
    for selection in ["b,a", "a,b,c", "*"] {
        assert_eq!(take(&mut view(address, selection, "earliest"), 4), ["a=x", "b=x", a, b]);
    }
    // Also one that comes back to a view that was there all the time: of each of them once.
    let mut live = view(address, "a,b", &ids[0]);
    assert_eq!(take(&mut live, 3), [a, "b=x", b]);
    let mut back = view(address, "a,b,d", &ids[0]);
    let events: Vec<Message> = (0..3).map(|_| back.next().expect("it goes on")).collect();
    assert_eq!(events.iter().map(|event| &*event.event_type).collect::<Vec<_>>(), ["b", "a:end", "b:end"]);
    assert!(events.iter().all(|event| event.last_event_id == ids[1]), "it has no id: {events:?}");
    // Publishing begins them again.
    let id = Publisher::connect(address, "a").publish("again");
    for stream in [&mut stream, &mut late, &mut live, &mut back] {
        assert_eq!(take(stream, 1), ["a=again"]);
    }
    assert_eq!(take(&mut view(address, "a,b", &id), 1), [b]);
    complete(address, "a");
    assert_eq!(take(&mut stream, 1), [a]);
}

#[test]
fn views_are_bounded_in_number() {
    let server = Server::start(&["--publish-open", "--quiet", "--max-views", "2"]);
    let address = server.address;
    let views = ["a,b", "c,d"].map(|name| Stream::open(address, &format!("/channels/{name}"), &[]));
    let refused: Answer = ask(address, "GET", "/channels/e,f", &[], "");
    assert_eq!(refused.status, 200);
    assert!(refused.text().contains("retry: "), "{refused:?}");
    // The same ones can have more subscribers, and a channel is no view.
    let _more = ["b,a", "e"].map(|name| Stream::open(address, &format!("/channels/{name}"), &[]));
    let [one, _other] = views;
    drop(one);
    drop(_more);
    eventually("one is gone", || server.metric("newswire_views") == 1);
    let mut stream = Stream::open(address, "/channels/e,f", &[]);
    Publisher::connect(address, "f").publish("x");
    assert_eq!(take(&mut stream, 1), ["f=x"]);
}

#[test]
fn a_publisher_that_is_faster_than_the_fan_out_waits_for_the_subscribers_of_views() {
    const EVENTS: usize = 30_000;
    let (address, channels) = start(Limits { history_events: 100, ..Limits::default() });
    let mut streams: Vec<Stream> =
        ["a,b", "a*", "b,a,c"].iter().map(|name| Stream::open(address, &format!("/channels/{name}"), &[])).collect();
    let publisher = thread::spawn(move || {
        let channels = ["a", "b"].map(|name| channels.open(name).expect("it is a name"));
        for number in 0..EVENTS {
            channels[number % 2].publish(number.to_string()).expect("it is small");
        }
    });
    let readers: Vec<_> = streams
        .drain(..)
        .zip([1, 2, 1])
        .map(|(mut stream, step)| {
            thread::spawn(move || {
                for number in (0..EVENTS).step_by(step) {
                    let event = stream.next().expect("it is not cut off");
                    assert_eq!(event.data, number.to_string());
                }
            })
        })
        .collect();
    publisher.join().expect("it publishes");
    readers.into_iter().for_each(|reader| reader.join().expect("it gets all"));
    assert_eq!(disconnects(address, "slow"), 0);
}

/// Nothing is said of their number: if it were bounded below that of the subscribers, a client could keep new views out with
/// names that it invents.
#[test]
fn ten_thousand_views_get_each_event_once_and_leave_nothing_behind() {
    const VIEWS: usize = 10_000;
    let server = Server::start(&["--publish-open", "--quiet"]);
    let address = server.address;
    let at_once = VIEWS.min(crate::departures::descriptor_limit().saturating_sub(600) * 9 / 10);
    let at_once = at_once.max(100);
    let mut opened = 0;
    while opened < VIEWS {
        let wave = at_once.min(VIEWS - opened);
        let mut sockets: Vec<TcpStream> = (opened..opened + wave)
            .map(|number| {
                let mut socket = connect(address);
                let head = format!(
                    "GET /channels/all,user{number},group{}* HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    number % 100
                );
                socket.write_all(head.as_bytes()).expect("the server reads");
                socket
            })
            .collect();
        eventually("all subscribe", || server.metric("newswire_subscribers") == wave as u64);
        assert_eq!(server.metric("newswire_views"), wave as u64);
        // A channel that begins now is shown in some of them.
        Publisher::connect(address, &format!("group7-{opened}")).publish("group");
        let id = Publisher::connect(address, "all").publish("to all");
        let end = format!("id: {id}\nevent: all\ndata: to all\n\n");
        let mut groups = 0;
        for socket in &mut sockets {
            let mut received = Vec::new();
            while !received.ends_with(end.as_bytes()) {
                let mut piece = [0; 1024];
                let length = socket.read(&mut piece).expect("it is live");
                assert!(length > 0, "it ended after {}", String::from_utf8_lossy(&received));
                received.extend_from_slice(&piece[..length]);
            }
            groups += String::from_utf8_lossy(&received).matches("data: group\n").count();
        }
        assert_eq!(groups, (opened..opened + wave).filter(|number| number % 100 == 7).count());
        opened += wave;
        drop(sockets);
        eventually("no view is left", || {
            Publisher::connect(address, "all").publish("again");
            server.metric("newswire_views") == 0
        });
    }
    assert_eq!(server.metric("newswire_subscribers"), 0);
}
