//! What a client asks of a channel besides a stream: since a time, now and no more, as JSON, or what the channel looks like.

use crate::channels::{OPEN, complete, heartbeats, split_opening};
use crate::resumption::numbers;
use crate::server::{Answer, Publisher, Server, Stream, ask, eventually};
use crate::webdriver::Json;
use std::net::SocketAddr;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

const JSON: [(&str, &str); 1] = [("Accept", "application/json")];

fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, "GET", target, &[], "")
}

/// The id, the type and the data of each event, and the last event ID.
pub(crate) fn polled(address: SocketAddr, target: &str) -> (Vec<[String; 3]>, String) {
    let answer = ask(address, "GET", target, &JSON, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("content-type"), Some("application/json"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    let json = Json::parse(answer.text());
    let member = |json: &Json, name| match &json[name] {
        Json::Null => "null".to_owned(),
        text => text.text().to_owned(),
    };
    let events = json["events"].items().iter();
    let events = events.map(|event| ["id", "event", "data"].map(|name| member(event, name)));
    (events.collect(), member(&json, "last_id"))
}

fn data(address: SocketAddr, target: &str) -> Vec<String> {
    polled(address, target).0.into_iter().map(|[_, _, data]| data).collect()
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    now.as_millis() as u64
}

#[test]
fn a_poll_gets_what_is_there_behind_the_last_event_id_and_ends() {
    let server = Server::start(&OPEN);
    let mut publisher = Publisher::connect(server.address, "c");
    let ids: Vec<String> = (1..=3).map(|number| publisher.publish(&number.to_string())).collect();
    let events = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.field("content-type"), Some("text/event-stream"));
        assert_eq!(answer.field("cache-control"), Some("no-store, no-transform"));
        String::from_utf8(split_opening(&answer.content).1.to_vec()).expect("it is text")
    };
    let frame = |at: usize| format!("id: {}\ndata: {}\n\n", ids[at], at + 1);
    let all = (0..3).map(frame).collect::<String>();
    for all_of_it in ["?poll", "?poll=1", "?poll=on&last_event_id=earliest", "?poll&since=1h"] {
        assert_eq!(events(&get(server.address, &format!("/channels/c{all_of_it}"))), all);
    }
    let target = format!("/channels/c?poll&last_event_id={}", ids[1]);
    assert_eq!(events(&get(server.address, &target)), frame(2));
    // EventSource polls, too: it comes back with the field.
    let fields = [("Last-Event-ID", ids[0].as_str())];
    let answer = ask(server.address, "GET", "/channels/c?poll", &fields, "");
    assert_eq!(events(&answer), frame(1) + &frame(2));
    for nothing in ["latest", &ids[2]] {
        let target = format!("/channels/c?poll&last_event_id={nothing}");
        assert_eq!(events(&get(server.address, &target)), "");
    }
    let gap = format!("event: gap\ndata: {{\"asked\":\"1-0\",\"oldest\":\"{}\"}}\n\n", ids[0]);
    assert_eq!(events(&get(server.address, "/channels/c?poll&last_event_id=1-0")), gap + &all);
    assert_eq!(server.metric("newswire_gaps_total"), 1);
    assert_eq!(server.metric("newswire_subscribers"), 0);

    complete(server.address, "c");
    let end = "event: end\ndata: the channel is completed\n\n";
    assert_eq!(events(&get(server.address, &target)), frame(2) + end);
    let behind_all = format!("/channels/c?poll&last_event_id={}", ids[2]);
    assert_eq!(get(server.address, &behind_all).status, 204);

    assert_eq!(get(server.address, "/channels/c?poll=maybe").status, 400);
    drop(Stream::open(server.address, "/channels/c?poll=0&last_event_id=earliest", &[]));
    // A channel that was only asked for is not there any more.
    assert_eq!(events(&get(server.address, "/channels/other?poll")), "");
    let listed = || get(server.address, "/channels").text().to_owned();
    eventually("the other channel is gone", || !listed().contains("\"other\""));
}

#[test]
fn a_poll_for_json_gets_the_same_events_and_the_last_event_id_for_the_next_poll() {
    let server = Server::start(&OPEN);
    // Nothing yet: its last event ID is that of the start, and nothing is lost behind it.
    let (events, mut last_id) = polled(server.address, "/channels/c?poll");
    assert!(events.is_empty());
    let mut publisher = Publisher::connect(server.address, "c");
    let next = |last_id: &mut String| {
        let (events, id) = polled(server.address, &format!("/channels/c?poll&last_event_id={last_id}"));
        *last_id = id;
        events
    };
    for text in ["", "two\nlines", "\"quoted\" \\ \u{0} \u{1b} é😀\u{2028}", "],\"last_id\":\"1-1\"}"] {
        let id = publisher.publish(text);
        assert_eq!(next(&mut last_id), [[id.clone(), "message".to_owned(), text.to_owned()]]);
        assert_eq!(last_id, id);
        assert!(next(&mut last_id).is_empty());
        assert_eq!(last_id, id);
    }
    ask(server.address, "POST", "/channels/c?event=note%22", &[], "x");
    assert_eq!(next(&mut last_id)[0][1..], ["note\"", "x"]);
    let (events, _) = polled(server.address, "/channels/c?poll&last_event_id=x");
    assert_eq!(events[0][..2], ["null", "gap"]);
    assert_eq!(events.len(), 6);
    complete(server.address, "c");
    assert_eq!(next(&mut last_id), [["null", "end", "the channel is completed"]]);
}

#[test]
fn a_poll_of_several_channels_gets_the_events_of_all_in_one_order() {
    let server = Server::start(&[&OPEN[..], &["--history-events", "3", "--max-views", "1"]].concat());
    let address = server.address;
    // A poll takes the place of no view, and needs none.
    let _view = Stream::open(address, "/channels/x,y", &[]);
    let publish = |channel: &str, data: &str| Publisher::connect(address, channel).publish(data);
    // Nothing yet: its last event ID is that of the start, and nothing is lost behind it.
    let (events, start) = polled(address, "/channels/b,a.*?poll");
    assert_eq!(events.len(), 0);
    let ids = [("a.1", "1"), ("b", "2"), ("a.2", "3"), ("other", "4"), ("a.1", "5")]
        .map(|(channel, data)| publish(channel, data));
    let event = |at: usize, channel: &str, data: &str| [ids[at].clone(), channel.to_owned(), data.to_owned()];
    let all = [event(0, "a.1", "1"), event(1, "b", "2"), event(2, "a.2", "3"), event(4, "a.1", "5")];
    let (events, last_id) = polled(address, "/channels/b,a.*?poll");
    assert_eq!((&events[..], &last_id), (&all[..], &ids[4]));
    let behind_start = format!("/channels/b,a.*?poll&last_event_id={start}");
    assert_eq!(polled(address, &behind_start).0, all);
    // Behind an id of whatever channel; and as a stream.
    for (at, rest) in [(0, 1), (1, 2), (3, 3), (4, 4)] {
        let target = format!("/channels/a.*,b?poll&last_event_id={}", ids[at]);
        assert_eq!(polled(address, &target).0, all[rest..], "{at}");
        let frames: String =
            all[rest..].iter().map(|[id, name, data]| format!("id: {id}\nevent: {name}\ndata: {data}\n\n")).collect();
        let answer = get(address, &target);
        assert_eq!(answer.field("content-type"), Some("text/event-stream"));
        assert_eq!(split_opening(&answer.content).1, frames.as_bytes(), "{at}");
    }
    for nothing in ["latest", &last_id] {
        assert_eq!(data(address, &format!("/channels/*?poll&last_event_id={nothing}")), [""; 0]);
    }
    assert_eq!(data(address, "/channels/b,a.*?poll&since=1h"), ["1", "2", "3", "5"]);
    assert_eq!(server.metric("newswire_gaps_total"), 0);

    // A gap names the channels that have lost something, or all if nothing is known of the id.
    (6..9).for_each(|number| drop(publish("b", &number.to_string())));
    for (asked, channels) in [(ids[0].as_str(), "[\"b\"]"), ("x", "[\"a.*\",\"b\"]")] {
        let target = format!("/channels/b,a.*?poll&last_event_id={asked}");
        let [id, name, gap] = &polled(address, &target).0[0];
        assert_eq!([id, name], ["null", "gap"]);
        assert!(gap.starts_with(&format!("{{\"asked\":\"{asked}\",")), "{gap}");
        assert!(gap.ends_with(&format!(",\"channels\":{channels}}}")), "{gap}");
        assert!(get(address, &target).text().contains(&format!("event: gap\ndata: {gap}\n\n")));
    }
    // The end of one of them is no end of all.
    complete(address, "b");
    let (events, last_id) = polled(address, "/channels/b,a.*?poll");
    let [end, before @ ..] = &events.iter().rev().collect::<Vec<_>>()[..] else { panic!("{events:?}") };
    assert_eq!(before.iter().rev().map(|event| &*event[2]).collect::<Vec<_>>(), ["1", "3", "5", "6", "7", "8"]);
    assert_eq!(end.each_ref().map(String::as_str), ["null", "b:end", "the channel is completed"]);
    assert_eq!(last_id, before[0][0]);
    // As JSON, several channels are a list of those that are there.
    let described = Json::parse(ask(address, "GET", "/channels/b,a.*,d", &JSON, "").text());
    let described: Vec<_> =
        described.items().iter().map(|it| (it["name"].text(), it["subscribers"].number())).collect();
    assert_eq!(described, [("a.1", 0.0), ("a.2", 0.0), ("b", 0.0)]);
    assert_eq!(ask(address, "GET", "/channels/d,e", &JSON, "").text(), "[]\n");
    // There may be many with a prefix: they are written page by page.
    (0..150).for_each(|number| drop(publish(&format!("many.{number}"), "x")));
    let many = ask(address, "GET", "/channels/many.*,b", &JSON, "");
    assert_eq!(many.field("content-length"), None);
    assert_eq!(Json::parse(many.text()).items().len(), 151);
    assert_eq!(server.metric("newswire_views"), 1);
    assert_eq!(get(address, "/channels/@presence.b?poll").status, 400);
}

/// Nothing is lost or repeated while the channels go on.
#[test]
fn polls_of_several_channels_while_they_are_published_on_miss_nothing() {
    let server = Server::start(&[&OPEN[..], &["--history-events", "100000"]].concat());
    let address = server.address;
    const EVENTS: usize = 300;
    let publishers = ["a", "b", "c"].map(|channel| {
        thread::spawn(move || {
            let mut publisher = Publisher::connect(address, channel);
            (0..EVENTS).map(|_| publisher.publish(&"x".repeat(500))).collect::<Vec<_>>()
        })
    });
    let (mut events, mut last_id) = (Vec::new(), "earliest".to_owned());
    while events.len() < 3 * EVENTS {
        let (found, id) = polled(address, &format!("/channels/a,b,c?poll&last_event_id={last_id}"));
        events.extend(found.into_iter().map(|[id, ..]| id));
        last_id = id;
    }
    let mut published: Vec<String> = publishers.into_iter().flat_map(|it| it.join().expect("it publishes")).collect();
    published.sort_by_key(|id| numbers(id));
    assert!(events == published, "{} events", events.len());
}

#[test]
fn a_large_history_is_polled_whole() {
    let server = Server::start(&OPEN);
    let mut publisher = Publisher::connect(server.address, "c");
    let text = "é\"".repeat(2_000);
    let published: Vec<String> = (0..100).map(|number| format!("{number} {text}")).collect();
    published.iter().for_each(|data| drop(publisher.publish(data)));
    assert!(data(server.address, "/channels/c?poll") == published);
    let stream = get(server.address, "/channels/c?poll");
    assert_eq!(stream.text().matches("data: ").count(), 100);
}

#[test]
fn a_time_starts_a_stream_with_what_was_published_since() {
    let server = Server::start(&[&OPEN[..], &["--history-events", "3"]].concat());
    let address = server.address;
    let mut publisher = Publisher::connect(address, "c");
    let before = now_ms();
    let ms = |id: &str| numbers(id).0;
    let first = publisher.publish("1");
    eventually("the clock goes on", || now_ms() > ms(&first) + 1);
    let second = publisher.publish("2");
    let since = |time: u64| data(address, &format!("/channels/c?poll&since={time}"));
    // Nothing was evicted, so that no time is a gap: none before the start of the server, none between two events.
    for time in [0, 1_000_000_000, before - 3_600_000, before, ms(&first)] {
        assert_eq!(since(time), ["1", "2"], "{time}");
    }
    assert_eq!(since(ms(&first) + 1), ["2"]);
    assert_eq!(since(ms(&second)), ["2"]);
    assert_eq!(since(ms(&second) + 1), [""; 0]);
    assert_eq!(since(now_ms() + 3_600_000), [""; 0]);
    for time in ["10m", "1d", "0", "2026-01-01T00:00:00Z"] {
        assert_eq!(data(address, &format!("/channels/c?poll&since={time}")), ["1", "2"], "{time}");
    }
    // A stream goes on from there. An id says more than a time, which EventSource sends again.
    let mut stream = Stream::open(address, "/channels/c?since=1h", &[("Last-Event-ID", &first)]);
    assert_eq!(stream.next().expect("it is kept").data, "2");
    publisher.publish("3");
    assert_eq!(stream.next().expect("it is live").data, "3");
    assert_eq!(server.metric("newswire_gaps_total"), 0);

    // The first event is evicted now: of the time before it something is lost.
    publisher.publish("4");
    let lost = polled(address, "/channels/c?poll&since=1h").0;
    assert_eq!(lost[0][1], "gap");
    assert!(lost[0][2].starts_with("{\"asked\":\"1h\","), "{lost:?}");
    assert_eq!(lost.len(), 4);
    assert_eq!(since(ms(&first) + 1), ["2", "3", "4"]);

    for malformed in ["x", "-1", "1.5h", "yesterday", "2026-11-26", "%00", "10m%0Adata:x"] {
        let answer = get(address, &format!("/channels/c?since={malformed}"));
        assert!(answer.status == 400 && answer.text().contains("10m"), "{answer:?}");
    }
}

#[test]
fn a_client_that_wants_json_is_told_what_a_channel_looks_like() {
    let server = Server::start(&OPEN);
    let address = server.address;
    for method in ["GET", "HEAD"] {
        assert_eq!(ask(address, method, "/channels/c", &JSON, "").status, 404);
    }
    assert_eq!(get(address, "/channels").text(), "[]\n", "a question makes no channel");
    let _subscribers = [1, 2].map(|_| Stream::subscribe(address, "c"));
    let described = || Json::parse(ask(address, "GET", "/channels/c", &JSON, "").text());
    assert!(matches!(described()["last_published_ms"], Json::Null));
    let before = now_ms();
    let id = Publisher::connect(address, "c").publish("x");
    let channel = described();
    assert_eq!(channel["name"].text(), "c");
    assert_eq!(channel["subscribers"].number(), 2.0);
    assert_eq!(channel["last_id"].text(), id);
    let published = channel["last_published_ms"].number() as u64;
    assert!((before..=now_ms()).contains(&published), "{published}");
    let head = ask(address, "HEAD", "/channels/c", &JSON, "");
    assert_eq!((head.status, head.field("content-type")), (200, Some("application/json")));
    for head in [head, ask(address, "HEAD", "/channels/c", &[], "")] {
        let field = |name| head.field(name).map(str::to_owned);
        assert_eq!(field("newswire-subscribers").as_deref(), Some("2"));
        assert_eq!(field("newswire-last-published-ms"), Some(published.to_string()));
        assert_eq!([field("newswire-first-id"), field("newswire-last-id")], [Some(id.clone()), Some(id.clone())]);
    }
    // A client that takes both gets the stream.
    for accept in ["*/*", "text/event-stream", "application/json, text/plain, */*", "text/*"] {
        let answer = ask(address, "HEAD", "/channels/c", &[("Accept", accept)], "");
        assert_eq!(answer.field("content-type"), Some("text/event-stream"), "{accept}");
    }
}

#[test]
fn a_page_sees_a_heartbeat_that_is_an_event_and_keeps_its_last_event_id() {
    let server = Server::start(&[&OPEN[..], &["--heartbeat", "1", "--heartbeat-event"]].concat());
    let mut stream = Stream::subscribe(server.address, "c");
    let id = Publisher::connect(server.address, "c").publish("x");
    assert_eq!(stream.next().expect("it is live").last_event_id, id);
    stream.read_until(|bytes| heartbeats(bytes) > 0 || bytes.ends_with(b"data: heartbeat\n\n"));
    for _ in 0..2 {
        assert_eq!(heartbeats(&stream.bytes), 0, "it is an event in place of the comment");
        let heartbeat = stream.next().expect("it is live");
        assert_eq!((&*heartbeat.event_type, &*heartbeat.data), ("heartbeat", "heartbeat"));
        assert_eq!(heartbeat.last_event_id, id);
    }
    let text = String::from_utf8_lossy(&stream.bytes).into_owned();
    assert!(!text.contains("\n:\n") && text.matches("id: ").count() == 1, "{text:?}");
}
