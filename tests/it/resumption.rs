//! Clients that come back: what a client gets that names its last event, and what it gets when something was lost.

use crate::channels::{complete, split_opening};
use crate::server::{Answer, Dice, Publisher, Server, Stream, ask};
use newswire::sse::Message;
use std::net::SocketAddr;
use std::thread;

/// An id as two numbers: as strings, "10" would come before "9".
pub(crate) fn numbers(id: &str) -> (u64, u64) {
    let (ms, n) = id.split_once('-').unwrap_or_else(|| panic!("{id:?} is no id"));
    let number = |digits: &str| {
        let number: u64 = digits.parse().unwrap_or_else(|_| panic!("{id:?} is no id"));
        assert_eq!(number.to_string(), digits, "{id:?} is not in its shortest form");
        number
    };
    (number(ms), number(n))
}

/// Publishes `1` to `count` on a channel, and returns the ids.
fn publish_numbers(address: SocketAddr, channel: &str, count: usize) -> Vec<String> {
    let mut publisher = Publisher::connect(address, channel);
    (1..=count).map(|number| publisher.publish(&number.to_string())).collect()
}

/// What a client gets that resumes on a completed channel, up to the end.
fn resumed(address: SocketAddr, channel: &str, id: &str) -> Vec<Message> {
    Stream::resume(address, channel, id).until_end()
}

fn data(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.data.as_str()).collect()
}

/// The data of the gap that must come first, and what follows it.
#[track_caller]
fn gap_of(messages: &[Message]) -> (&str, &[Message]) {
    let (gap, rest) = messages.split_first().expect("there is a gap at least");
    assert_eq!(gap.event_type, "gap", "{messages:?}");
    assert_eq!(gap.last_event_id, "", "a gap has no id of its own");
    assert!(rest.iter().all(|message| message.event_type != "gap"), "one gap is enough: {messages:?}");
    (&gap.data, rest)
}

#[test]
fn a_client_that_comes_back_gets_what_it_lacks_from_every_position_and_then_what_is_new() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let ids = publish_numbers(server.address, "c", 40);
    let mut streams: Vec<Stream> = ids
        .iter()
        .enumerate()
        .map(|(at, id)| {
            // The field and the parameter mean the same.
            if at % 2 == 0 {
                Stream::resume(server.address, "c", id)
            } else {
                let target = format!("/channels/c?last_event_id={id}");
                Stream::open(server.address, &target, &[])
            }
        })
        .collect();
    // These are published while some streams still replay: no event may come twice, and none may be missing.
    let new = publish_numbers(server.address, "c", 3);
    complete(server.address, "c");
    let all = [ids.as_slice(), &new].concat();
    for (at, stream) in streams.iter_mut().enumerate() {
        let received = stream.until_end();
        let received: Vec<&str> = received.iter().map(|m| m.last_event_id.as_str()).collect();
        assert_eq!(received, all[at + 1..], "after event {at}");
    }
}

#[test]
fn the_field_goes_before_the_parameter_and_an_empty_one_is_none() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let ids = publish_numbers(server.address, "c", 4);
    let received = |target: &str, fields: &[(&str, &str)]| {
        let mut stream = Stream::open(server.address, target, fields);
        let id = Publisher::connect(server.address, "c").publish("last");
        let mut received = Vec::new();
        loop {
            let message = stream.next().expect("it goes on");
            if message.last_event_id == id {
                return received;
            }
            if message.data != "last" {
                received.push(message.data);
            }
        }
    };
    let by_query = format!("/channels/c?last_event_id={}", ids[2]);
    let earliest = "/channels/c?last_event_id=earliest";
    assert_eq!(received(&by_query, &[]), ["4"]);
    assert_eq!(received(&by_query, &[("Last-Event-ID", &ids[1])]), ["3", "4"]);
    assert_eq!(received(&by_query, &[("last-event-id", "")]), ["4"]);
    assert_eq!(received(earliest, &[("LAST-EVENT-ID", &ids[3])]), [""; 0]);
    assert_eq!(received(earliest, &[]), ["1", "2", "3", "4"]);
    let field = [("Last-Event-ID", "earliest")];
    assert_eq!(received(&by_query, &field), ["1", "2", "3", "4"]);
    // A client that names none gets what is published from now on, and so does one that says so.
    assert_eq!(received("/channels/c", &[]), [""; 0]);
    assert_eq!(received("/channels/c?last_event_id=latest", &[]), [""; 0]);
    assert_eq!(received("/channels/c", &[("Last-Event-ID", "latest")]), [""; 0]);
    // The polyfills
    for name in ["lastEventId", "Last-Event-ID"] {
        let target = format!("/channels/c?{name}={}", ids[2]);
        assert_eq!(received(&target, &[]), ["4"], "{name}");
    }
    assert_eq!(received("/channels/c?last_event_id=", &[]), [""; 0]);
    assert_eq!(received("/channels/c?last_event_id", &[]), [""; 0]);
}

#[test]
fn a_gap_is_reported_exactly_if_an_event_was_lost() {
    let server = Server::start(&["--publish-open", "--quiet", "--history-events", "10"]);
    let ids = publish_numbers(server.address, "c", 25);
    complete(server.address, "c");
    let kept: Vec<String> = (16..=25).map(|number| number.to_string()).collect();
    for (at, id) in ids.iter().enumerate() {
        let lost = 15;
        if at + 1 < lost {
            let received = resumed(server.address, "c", id);
            let (gap, rest) = gap_of(&received);
            let oldest = &ids[lost];
            assert_eq!(gap, format!("{{\"asked\":\"{id}\",\"oldest\":\"{oldest}\"}}"));
            assert_eq!(data(rest), kept);
        } else if at + 1 < ids.len() {
            // Event 15 is not kept any more, but a client that got it has lost nothing.
            let received = resumed(server.address, "c", id);
            assert_eq!(data(&received), kept[at + 1 - lost..], "after event {}", at + 1);
        } else {
            let answer = ask(server.address, "GET", "/channels/c", &[("Last-Event-ID", id)], "");
            assert_eq!(answer.status, 204, "{answer:?}");
        }
    }
    assert_eq!(server.metric("newswire_gaps_total"), 14);
}

#[test]
fn events_are_lost_when_their_bytes_exceed_the_history_too() {
    let server = Server::start(&["--publish-open", "--quiet", "--history-bytes", "2048"]);
    let mut publisher = Publisher::connect(server.address, "c");
    let ids: Vec<String> = (0..100).map(|_| publisher.publish(&"x".repeat(200))).collect();
    complete(server.address, "c");
    let received = resumed(server.address, "c", "earliest");
    // A frame is a little larger than its data: it has an id, field names and line ends.
    assert!((7..=9).contains(&received.len()), "{}", received.len());
    let kept: Vec<&str> = received.iter().map(|m| m.last_event_id.as_str()).collect();
    assert_eq!(kept, ids[ids.len() - kept.len()..]);
    let received = resumed(server.address, "c", &ids[50]);
    let (gap, rest) = gap_of(&received);
    assert!(gap.contains(&format!("\"oldest\":\"{}\"", kept[0])), "{gap}");
    assert_eq!(rest.len(), kept.len());
}

/// Ids grow across all channels: what came after an id of another channel is known, and nothing of it was evicted.
#[test]
fn an_id_between_the_events_of_a_channel_is_no_gap() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let mut here = Publisher::connect(server.address, "here");
    let mut elsewhere = Publisher::connect(server.address, "elsewhere");
    let before = elsewhere.publish("before");
    here.publish("1");
    let between = elsewhere.publish("between");
    here.publish("2");
    let after = elsewhere.publish("after");
    let mut stream = Stream::resume(server.address, "here", &after);
    complete(server.address, "here");
    assert_eq!(data(&resumed(server.address, "here", &before)), ["1", "2"]);
    assert_eq!(data(&resumed(server.address, "here", &between)), ["2"]);
    assert_eq!(data(&stream.until_end()), [""; 0]);
    let answer = ask(server.address, "GET", "/channels/here", &[("Last-Event-ID", &after)], "");
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(server.metric("newswire_gaps_total"), 0);
}

#[test]
fn an_id_that_was_never_issued_here_is_a_gap() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let mut here = Publisher::connect(server.address, "here");
    let first = here.publish("1");
    let second = here.publish("2");
    complete(server.address, "here");

    let gap_and_rest = |id: &str| {
        let received = resumed(server.address, "here", id);
        let (gap, rest) = gap_of(&received);
        (gap.to_owned(), rest.len())
    };
    let gap = |id: &str| format!("{{\"asked\":\"{id}\",\"oldest\":\"{first}\"}}");
    // Ids of the future, which an earlier process with another clock may have issued, and of the past
    let (ms, n) = numbers(&second);
    for id in [
        format!("{ms}-{}", n + 1),
        format!("{}-0", ms + 1),
        "17592186044415-1048575".to_owned(),
        "0-0".to_owned(),
        "1-0".to_owned(),
    ] {
        assert_eq!(gap_and_rest(&id), (gap(&id), 2));
    }
    // The same ids written differently were not issued here either.
    for id in [
        format!("0{first}"),
        format!("{first} x"),
        format!("{first}-0"),
        format!("+{first}"),
        first.replace('-', "–"),
        first.replace('-', ""),
    ] {
        assert_eq!(gap_and_rest(&id).1, 2, "{id:?}");
    }
}

#[test]
fn a_malformed_id_is_answered_with_a_gap_and_cannot_forge_anything_in_the_stream() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let id = Publisher::connect(server.address, "c").publish("kept");
    complete(server.address, "c");
    // Exactly these bytes must follow the opening.
    let expected = |asked: &str| {
        format!(
            "event: gap\ndata: {{\"asked\":\"{asked}\",\"oldest\":\"{id}\"}}\n\n\
             id: {id}\ndata: kept\n\nevent: end\ndata: the channel is completed\n\n"
        )
    };
    let long = "9".repeat(7000);
    let check = |answer: &Answer, asked: &str| {
        assert_eq!(answer.status, 200, "{answer:?}");
        let (_, behind_opening) = split_opening(&answer.content);
        assert_eq!(String::from_utf8_lossy(behind_opening), expected(asked));
    };
    let by_query: [(&str, &str); 10] = [
        ("x%0A%0Adata:+forged%0A%0A", "x\\u000a\\u000adata: forged\\u000a\\u000a"),
        ("x%0D%0Did:+1%0D", "x\\u000d\\u000did: 1\\u000d"),
        ("%00", "\\u0000"),
        ("%22%7D%0A", "\\\"}\\u000a"),
        ("%5C%22", "\\\\\\\""),
        ("%ff%fe", "\\ufffd\\ufffd"),
        ("%F0%9F%98%80", "\\ud83d\\ude00"),
        ("%C3%A9%E2%80%A8", "\\u00e9\\u2028"),
        ("</script>", "</script>"),
        (&long, &long[..64]),
    ];
    for (query, asked) in by_query {
        let target = format!("/channels/c?last_event_id={query}");
        // A target has no angle brackets by the grammar. Browsers encode them; people who type do not.
        let answer = ask(server.address, "GET", &target, &[], "");
        check(&answer, asked);
    }
    let by_field: [(&str, &str); 7] = [
        ("\"", "\\\""),
        ("\\", "\\\\"),
        ("a\tb", "a\\u0009b"),
        ("😀é", "\\ud83d\\ude00\\u00e9"),
        ("x, y", "x, y"),
        ("0", "0"),
        (&long, &long[..64]),
    ];
    for (field, asked) in by_field {
        let answer = ask(server.address, "GET", "/channels/c", &[("Last-Event-ID", field)], "");
        check(&answer, asked);
    }
    // Bytes that are not UTF-8, which EventSource never sends.
    let answer = server.exchange(b"GET /channels/c HTTP/1.0\r\nLast-Event-ID: \xff\xfe\r\n\r\n".as_slice());
    assert!(answer.ends_with(&expected("\\ufffd\\ufffd")), "{answer}");
}

#[test]
fn a_gap_is_reported_again_until_the_client_has_got_an_event() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let old = "1000-7";
    for _ in 0..2 {
        let mut stream = Stream::resume(server.address, "c", old);
        let gap = stream.next().expect("it comes at once");
        assert_eq!(gap.event_type, "gap");
        assert_eq!(gap.data, "{\"asked\":\"1000-7\",\"oldest\":null}");
        // The browser sends the same id the next time.
        assert_eq!(stream.parser.last_event_id(), "");
    }
    let mut stream = Stream::resume(server.address, "c", old);
    let id = Publisher::connect(server.address, "c").publish("new");
    assert_eq!(stream.next().expect("it comes").event_type, "gap");
    assert_eq!(stream.next().expect("it is live").last_event_id, id);
    let mut stream = Stream::resume(server.address, "c", stream.parser.last_event_id());
    Publisher::connect(server.address, "c").publish("newer");
    assert_eq!(stream.next().expect("it is live").data, "newer");
}

#[test]
fn after_a_restart_an_old_id_gets_a_gap_and_every_new_event() {
    let mut server = Server::start(&["--publish-open", "--quiet"]);
    let before = publish_numbers(server.address, "c", 5);
    server.kill();
    let server = Server::start(&["--publish-open", "--quiet"]);

    // The gap is reported before anything is published.
    let mut stream = Stream::resume(server.address, "c", &before[4]);
    let gap = stream.next().expect("it comes at once");
    let asked = &before[4];
    assert_eq!(gap.event_type, "gap");
    assert_eq!(gap.data, format!("{{\"asked\":\"{asked}\",\"oldest\":null}}"));

    let after = publish_numbers(server.address, "c", 3);
    let ids = [before.as_slice(), &after].concat();
    assert!(ids.windows(2).all(|pair| numbers(&pair[0]) < numbers(&pair[1])), "{ids:?}");
    for id in &after {
        assert_eq!(&stream.next().expect("it is live").last_event_id, id);
    }
    // Afterwards, too: whatever its last event was, the client gets a gap and every event that is kept.
    complete(server.address, "c");
    for id in &before {
        let received = resumed(server.address, "c", id);
        let (gap, rest) = gap_of(&received);
        let oldest = &after[0];
        assert_eq!(gap, format!("{{\"asked\":\"{id}\",\"oldest\":\"{oldest}\"}}"));
        let rest: Vec<&str> = rest.iter().map(|m| m.last_event_id.as_str()).collect();
        assert_eq!(rest, after);
    }
    // Once it has caught up, it is a client like any other.
    assert_eq!(data(&resumed(server.address, "c", &after[0])), ["2", "3"]);
}

#[test]
fn ids_grow_across_all_channels_and_publishers() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let address = server.address;
    let publishers: Vec<_> = (0..4)
        .map(|number| {
            thread::spawn(move || {
                let channel = ["a", "b"][number % 2];
                publish_numbers(address, channel, 300)
            })
        })
        .collect();
    let mut all = Vec::new();
    for publisher in publishers {
        let ids = publisher.join().expect("it publishes");
        // Those of one publisher grow in the order of the answers.
        assert!(ids.windows(2).all(|pair| numbers(&pair[0]) < numbers(&pair[1])));
        all.extend(ids.iter().map(|id| numbers(id)));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 1200, "no id was given twice");
}

#[test]
fn a_client_gets_every_event_once_however_often_its_connection_breaks() {
    const CLIENTS: u64 = 10;
    const PUBLISHERS: usize = 3;
    const EVENTS: usize = 600;
    let server = Server::start(&["--publish-open", "--quiet", "--history-events", "100000"]);
    let address = server.address;

    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            thread::spawn(move || {
                let mut dice = Dice::new(seed);
                let mut received: Vec<Message> = Vec::new();
                let mut connections = 0;
                loop {
                    let id = received.last().map_or("earliest", |m| m.last_event_id.as_str());
                    let mut stream = Stream::resume(address, "c", id);
                    connections += 1;
                    // The rest of what has arrived is lost with the connection.
                    for _ in 0..dice.below(120) {
                        let message = stream.next().expect("it ends only with an end");
                        assert_ne!(message.event_type, "gap", "nothing is lost");
                        if message.event_type == "end" {
                            return (received, connections);
                        }
                        received.push(message);
                    }
                }
            })
        })
        .collect();
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|_| thread::spawn(move || publish_numbers(address, "c", EVENTS))).collect();
    let mut published: Vec<String> = Vec::new();
    for publisher in publishers {
        published.extend(publisher.join().expect("it publishes"));
    }
    published.sort_by_key(|id| numbers(id));
    complete(address, "c");
    for client in clients {
        let (received, connections) = client.join().expect("it reads to the end");
        let received: Vec<&str> = received.iter().map(|m| m.last_event_id.as_str()).collect();
        assert_eq!(received.len(), published.len());
        assert!(received == published, "each event once, in the order of the ids");
        assert!(connections > 5, "it was cut {connections} times");
    }
}
