//! Coming back: what a client gets that names the event it heard last, and what it is told when something was lost.

use crate::server::{Answer, Dice, Publisher, Server, Stream, ask};
use newswire::sse::Message;
use std::net::SocketAddr;
use std::thread;

/// An id as the two numbers it is; as strings, "10" would come before "9".
pub(crate) fn numbers(id: &str) -> (u64, u64) {
    let (ms, n) = id.split_once('-').unwrap_or_else(|| panic!("{id:?} is no id"));
    let number = |digits: &str| {
        let number: u64 = digits.parse().unwrap_or_else(|_| panic!("{id:?} is no id"));
        assert_eq!(number.to_string(), digits, "{id:?} is not in its shortest form");
        number
    };
    (number(ms), number(n))
}

/// Publishes `1` to `count` on a channel, and gives the ids.
fn publish_numbers(address: SocketAddr, channel: &str, count: usize) -> Vec<String> {
    let mut publisher = Publisher::connect(address, channel);
    (1..=count).map(|number| publisher.publish(&number.to_string())).collect()
}

fn complete(address: SocketAddr, channel: &str) {
    let answer = ask(address, "DELETE", &format!("/channels/{channel}"), &[], "");
    assert_eq!(answer.status, 204, "{answer:?}");
}

/// What a client hears that resumes on a completed channel, up to its end.
fn resumed(address: SocketAddr, channel: &str, id: &str) -> Vec<Message> {
    Stream::resume(address, channel, id).until_end()
}

fn data(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.data.as_str()).collect()
}

/// The gap that must come first, and what comes behind it.
#[track_caller]
fn gap_of(messages: &[Message]) -> (&str, &[Message]) {
    let (gap, rest) = messages.split_first().expect("there is a gap at least");
    assert_eq!(gap.event_type, "gap", "{messages:?}");
    assert_eq!(gap.last_event_id, "", "a gap has no id of its own");
    assert!(
        rest.iter().all(|message| message.event_type != "gap"),
        "one gap is enough: {messages:?}"
    );
    (&gap.data, rest)
}

#[test]
fn whoever_comes_back_gets_what_it_lacks_from_every_position_and_then_what_is_new() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let ids = publish_numbers(server.address, "c", 40);
    let mut streams: Vec<Stream> = ids
        .iter()
        .enumerate()
        .map(|(at, id)| {
            // The field and the query say the same.
            if at % 2 == 0 {
                Stream::resume(server.address, "c", id)
            } else {
                let target = format!("/channels/c?last_event_id={id}");
                Stream::open(server.address, &target, &[])
            }
        })
        .collect();
    // Published while some of them are still being told of the past: no event twice, and none missing in between.
    let new = publish_numbers(server.address, "c", 3);
    complete(server.address, "c");
    let all = [ids.as_slice(), &new].concat();
    for (at, stream) in streams.iter_mut().enumerate() {
        let heard = stream.until_end();
        let heard: Vec<&str> = heard.iter().map(|m| m.last_event_id.as_str()).collect();
        assert_eq!(heard, all[at + 1..], "after event {at}");
    }
}

#[test]
fn the_field_goes_before_the_query_and_an_empty_one_is_none() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let ids = publish_numbers(server.address, "c", 4);
    let heard = |target: &str, fields: &[(&str, &str)]| {
        let mut stream = Stream::open(server.address, target, fields);
        let id = Publisher::connect(server.address, "c").publish("last");
        let mut heard = Vec::new();
        loop {
            let message = stream.next().expect("it goes on");
            if message.last_event_id == id {
                return heard;
            }
            if message.data != "last" {
                heard.push(message.data);
            }
        }
    };
    let by_query = format!("/channels/c?last_event_id={}", ids[2]);
    let earliest = "/channels/c?last_event_id=earliest";
    assert_eq!(heard(&by_query, &[]), ["4"]);
    assert_eq!(heard(&by_query, &[("Last-Event-ID", &ids[1])]), ["3", "4"]);
    assert_eq!(heard(&by_query, &[("last-event-id", "")]), ["4"]);
    assert_eq!(heard(earliest, &[("LAST-EVENT-ID", &ids[3])]), [""; 0]);
    assert_eq!(heard(earliest, &[]), ["1", "2", "3", "4"]);
    let field = [("Last-Event-ID", "earliest")];
    assert_eq!(heard(&by_query, &field), ["1", "2", "3", "4"]);
    // Who names nothing begins with what comes.
    assert_eq!(heard("/channels/c", &[]), [""; 0]);
    assert_eq!(heard("/channels/c?last_event_id=", &[]), [""; 0]);
    assert_eq!(heard("/channels/c?last_event_id", &[]), [""; 0]);
}

#[test]
fn what_was_pushed_out_is_told_as_a_gap_and_what_was_not_is_no_gap() {
    let server = Server::start(&["--publish-open", "--quiet", "--history-events", "10"]);
    let ids = publish_numbers(server.address, "c", 25);
    complete(server.address, "c");
    let kept: Vec<String> = (16..=25).map(|number| number.to_string()).collect();
    for (at, id) in ids.iter().enumerate() {
        let lost = 15;
        if at + 1 < lost {
            let heard = resumed(server.address, "c", id);
            let (gap, rest) = gap_of(&heard);
            let oldest = &ids[lost];
            assert_eq!(gap, format!("{{\"asked\":\"{id}\",\"oldest\":\"{oldest}\"}}"));
            assert_eq!(data(rest), kept);
        } else if at + 1 < ids.len() {
            // Event 15 is not kept any more, but who heard it has lost nothing.
            let heard = resumed(server.address, "c", id);
            assert_eq!(data(&heard), kept[at + 1 - lost..], "after event {}", at + 1);
        } else {
            let answer = ask(server.address, "GET", "/channels/c", &[("Last-Event-ID", id)], "");
            assert_eq!(answer.status, 204, "{answer:?}");
        }
    }
    assert_eq!(server.metric("newswire_gaps_total"), 14);
}

#[test]
fn the_bytes_of_the_history_push_out_too() {
    let server = Server::start(&["--publish-open", "--quiet", "--history-bytes", "2048"]);
    let mut publisher = Publisher::connect(server.address, "c");
    let ids: Vec<String> = (0..100).map(|_| publisher.publish(&"x".repeat(200))).collect();
    complete(server.address, "c");
    let heard = resumed(server.address, "c", "earliest");
    // A frame is a little more than its data: its id, its field names, its line ends.
    assert!((7..=9).contains(&heard.len()), "{}", heard.len());
    let kept: Vec<&str> = heard.iter().map(|m| m.last_event_id.as_str()).collect();
    assert_eq!(kept, ids[ids.len() - kept.len()..]);
    let heard = resumed(server.address, "c", &ids[50]);
    let (gap, rest) = gap_of(&heard);
    assert!(gap.contains(&format!("\"oldest\":\"{}\"", kept[0])), "{gap}");
    assert_eq!(rest.len(), kept.len());
}

#[test]
fn an_id_that_was_never_issued_here_is_a_gap() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let mut here = Publisher::connect(server.address, "here");
    let mut elsewhere = Publisher::connect(server.address, "elsewhere");
    let before = elsewhere.publish("before");
    elsewhere.publish("the moment before");
    let first = here.publish("1");
    let between = elsewhere.publish("between");
    let second = here.publish("2");
    let after = elsewhere.publish("after");
    complete(server.address, "here");

    let told = |id: &str| {
        let heard = resumed(server.address, "here", id);
        let (gap, rest) = gap_of(&heard);
        (gap.to_owned(), rest.len())
    };
    let gap = |id: &str| format!("{{\"asked\":\"{id}\",\"oldest\":\"{first}\"}}");
    assert_eq!(told(&before), (gap(&before), 2));
    // What lies between two that are kept: what came after it is known.
    assert_eq!(told(&between), (gap(&between), 1));
    // The future, which an earlier life of the server with another clock may have issued.
    assert_eq!(told(&after), (gap(&after), 2));
    let (ms, n) = numbers(&second);
    for id in [
        format!("{ms}-{}", n + 1),
        format!("{}-0", ms + 1),
        "17592186044415-1048575".to_owned(),
        "0-0".to_owned(),
        "1-0".to_owned(),
    ] {
        assert_eq!(told(&id), (gap(&id), 2));
    }
    // The very ids, written otherwise, are not ours either.
    for id in [
        format!("0{first}"),
        format!("{first} x"),
        format!("{first}-0"),
        format!("+{first}"),
        first.replace('-', "–"),
        first.replace('-', ""),
    ] {
        assert_eq!(told(&id).1, 2, "{id:?}");
    }
}

#[test]
fn a_mad_id_is_told_of_a_gap_and_can_say_nothing_else_in_the_stream() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let id = Publisher::connect(server.address, "c").publish("kept");
    complete(server.address, "c");
    // What follows the opening must be these bytes, no line more and none less.
    let expected = |asked: &str| {
        format!(
            "event: gap\ndata: {{\"asked\":\"{asked}\",\"oldest\":\"{id}\"}}\n\n\
             id: {id}\ndata: kept\n\nevent: end\ndata: the channel is completed\n\n"
        )
    };
    let long = "9".repeat(7000);
    let check = |answer: &Answer, asked: &str| {
        assert_eq!(answer.status, 200, "{answer:?}");
        let (_, behind_opening) = answer.text().split_once("\n\n").expect("there is an opening");
        assert_eq!(behind_opening, expected(asked));
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
        // A target has no angle brackets, strictly speaking; browsers encode them, people do not.
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
    let answer =
        server.exchange(b"GET /channels/c HTTP/1.0\r\nLast-Event-ID: \xff\xfe\r\n\r\n".as_slice());
    assert!(answer.ends_with(&expected("\\ufffd\\ufffd")), "{answer}");
}

#[test]
fn a_gap_is_told_again_until_an_event_has_moved_the_client_on() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let old = "1000-7";
    for _ in 0..2 {
        let mut stream = Stream::resume(server.address, "c", old);
        let gap = stream.next().expect("it is told at once");
        assert_eq!(gap.event_type, "gap");
        assert_eq!(gap.data, "{\"asked\":\"1000-7\",\"oldest\":null}");
        // What the browser would send next time is what it sent this time.
        assert_eq!(stream.parser.last_event_id(), "");
    }
    let mut stream = Stream::resume(server.address, "c", old);
    let id = Publisher::connect(server.address, "c").publish("new");
    assert_eq!(stream.next().expect("it is told").event_type, "gap");
    assert_eq!(stream.next().expect("it is live").last_event_id, id);
    let mut stream = Stream::resume(server.address, "c", stream.parser.last_event_id());
    Publisher::connect(server.address, "c").publish("newer");
    assert_eq!(stream.next().expect("it is live").data, "newer");
}

#[test]
fn a_client_that_was_away_before_its_first_event_is_not_left_in_silence() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    for before in [0, 3] {
        let channel = format!("c{before}");
        let kept = publish_numbers(server.address, &channel, before);
        // A page is opened, and the laptop is closed before anything is said.
        let mut stream = Stream::subscribe(server.address, &channel);
        stream.read_until(|bytes| bytes.ends_with(b"\n\n"));
        let id = stream.parser.last_event_id().to_owned();
        drop(stream);
        let missed = publish_numbers(server.address, &channel, 2);
        // It comes back with what an EventSource would send.
        let mut stream = Stream::resume(server.address, &channel, &id);
        let last = Publisher::connect(server.address, &channel).publish("last");
        let mut heard = Vec::new();
        while heard.last().is_none_or(|message: &Message| message.last_event_id != last) {
            heard.push(stream.next().expect("it is live"));
        }
        let ids: Vec<&str> = heard.iter().map(|m| m.last_event_id.as_str()).collect();
        let is_told = heard[0].event_type == "gap";
        assert!(is_told || ids == [&missed[0], &missed[1], &last], "{heard:?} after {kept:?}");
    }
}

#[test]
fn after_a_restart_an_old_id_is_a_gap_and_nothing_old_is_new() {
    let mut server = Server::start(&["--publish-open", "--quiet"]);
    let before = publish_numbers(server.address, "c", 5);
    server.kill();
    let server = Server::start(&["--publish-open", "--quiet"]);

    // Before anything is published: not silence.
    let mut stream = Stream::resume(server.address, "c", &before[4]);
    let gap = stream.next().expect("it is told at once");
    let asked = &before[4];
    assert_eq!(gap.event_type, "gap");
    assert_eq!(gap.data, format!("{{\"asked\":\"{asked}\",\"oldest\":null}}"));

    let after = publish_numbers(server.address, "c", 3);
    let ids = [before.as_slice(), &after].concat();
    assert!(ids.windows(2).all(|pair| numbers(&pair[0]) < numbers(&pair[1])), "{ids:?}");
    for id in &after {
        assert_eq!(&stream.next().expect("it is live").last_event_id, id);
    }
    // And afterwards: whatever it heard last, it is told, and gets all that there is once.
    complete(server.address, "c");
    for id in &before {
        let heard = resumed(server.address, "c", id);
        let (gap, rest) = gap_of(&heard);
        let oldest = &after[0];
        assert_eq!(gap, format!("{{\"asked\":\"{id}\",\"oldest\":\"{oldest}\"}}"));
        let rest: Vec<&str> = rest.iter().map(|m| m.last_event_id.as_str()).collect();
        assert_eq!(rest, after);
    }
    // Who has caught up is an ordinary client.
    assert_eq!(data(&resumed(server.address, "c", &after[0])), ["2", "3"]);
}

#[test]
fn ids_grow_over_all_channels_and_publishers() {
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
        // Each publisher's own grow in the order in which it was answered.
        assert!(ids.windows(2).all(|pair| numbers(&pair[0]) < numbers(&pair[1])));
        all.extend(ids.iter().map(|id| numbers(id)));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 1200, "no id was given twice");
}

#[test]
fn histories_become_whole_through_any_number_of_cuts_while_others_publish() {
    const CLIENTS: u64 = 10;
    const PUBLISHERS: usize = 3;
    const EVENTS: usize = 600;
    let server = Server::start(&["--publish-open", "--quiet", "--history-events", "100000"]);
    let address = server.address;

    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            thread::spawn(move || {
                let mut dice = Dice::new(seed);
                let mut heard: Vec<Message> = Vec::new();
                let mut connections = 0;
                loop {
                    let id = heard.last().map_or("earliest", |m| m.last_event_id.as_str());
                    let mut stream = Stream::resume(address, "c", id);
                    connections += 1;
                    // What it reads further than this has arrived, and is lost with the connection all the same.
                    for _ in 0..dice.below(120) {
                        let message = stream.next().expect("it ends only with an end");
                        assert_ne!(message.event_type, "gap", "nothing is lost");
                        if message.event_type == "end" {
                            return (heard, connections);
                        }
                        heard.push(message);
                    }
                }
            })
        })
        .collect();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| thread::spawn(move || publish_numbers(address, "c", EVENTS)))
        .collect();
    let mut published: Vec<String> = Vec::new();
    for publisher in publishers {
        published.extend(publisher.join().expect("it publishes"));
    }
    published.sort_by_key(|id| numbers(id));
    complete(address, "c");
    for client in clients {
        let (heard, connections) = client.join().expect("it hears");
        let heard: Vec<&str> = heard.iter().map(|m| m.last_event_id.as_str()).collect();
        assert_eq!(heard.len(), published.len());
        assert!(heard == published, "each event once, in the order of the ids");
        assert!(connections > 5, "it was cut {connections} times");
    }
}
