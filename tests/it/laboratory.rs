//! The laboratory, parameter by parameter and byte by byte, from a raw socket.

use crate::events::{Interpretation, decode_base64, interpret, parse};
use crate::server::{Answer, Server, Stream, ask, connect, eventually};
use newswire::sse::Message;
use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Without heartbeats, so that waiting for what never comes has an end.
fn start() -> Server {
    Server::start(&["--quiet", "--heartbeat", "0"])
}

/// The whole response to a query, without a pause between events unless it asks for one.
fn order(address: SocketAddr, query: &str) -> Answer {
    let pause = if query.contains("interval=") { "" } else { "&interval=0" };
    ask(address, "GET", &format!("/lab?{query}{pause}"), &[], "")
}

/// The whole stream that a query orders.
fn play(address: SocketAddr, query: &str) -> Vec<u8> {
    let answer = order(address, query);
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    assert_eq!(answer.field("content-type"), Some("text/event-stream"));
    answer.content
}

/// What a client hears that has heard everything up to `id`.
fn resume(address: SocketAddr, query: &str, id: &str) -> Answer {
    let fields = [("Last-Event-ID", id)];
    ask(address, "GET", &format!("/lab?{query}&interval=0"), &fields, "")
}

fn data(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.data.as_str()).collect()
}

const OPENING: &str = ": newswire\nretry: 2000\n\n";

#[test]
fn each_parameter_does_what_it_says_to_the_byte() {
    let server = start();
    let cases = [
        (
            "",
            "id: 1\ndata: The\n\nid: 2\ndata: quick\n\nid: 3\ndata: brown\n\nid: 4\ndata: fox\n\n\
             id: 5\ndata: jumps\n\nid: 6\ndata: over\n\nid: 7\ndata: the\n\nid: 8\ndata: lazy\n\n\
             id: 9\ndata: dog.\n\n",
        ),
        ("text=to+be", "id: 1\ndata: to\n\nid: 2\ndata: be\n\n"),
        // Words are what white space separates, of any kind and any amount.
        (
            "text=%20a%0D%0A%0D%0Ab%09%C2%A0%E2%80%A8c%0A",
            "id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: c\n\n",
        ),
        ("text=:+data:x", "id: 1\ndata: :\n\nid: 2\ndata: data:x\n\n"),
        ("text=%00", "id: 1\ndata: \0\n\n"),
        ("text=%ff", "id: 1\ndata: \u{fffd}\n\n"),
        ("count=2", "id: 1\ndata: The\n\nid: 2\ndata: quick\n\n"),
        ("text=a+b&count=3", "id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: a\n\n"),
        ("count=1&event=word", "id: 1\nevent: word\ndata: The\n\n"),
        ("count=1&event=+two+words", "id: 1\nevent:  two words\ndata: The\n\n"),
        ("count=1&id=on", "id: 1\ndata: The\n\n"),
        ("count=2&id=off", "data: The\n\ndata: quick\n\n"),
        ("count=1&lines=1", "id: 1\ndata: The\n\n"),
        ("count=1&lines=3", "id: 1\ndata: The\ndata: The\ndata: The\n\n"),
        ("count=1&size=0", "id: 1\ndata: \n\n"),
        ("count=1&size=1", "id: 1\ndata: .\n\n"),
        ("count=1&size=4", "id: 1\ndata: The \n\n"),
        ("count=1&size=9", "id: 1\ndata: The The .\n\n"),
        ("count=1&size=2&lines=3", "id: 1\ndata: \ndata: \ndata: \n\n"),
        ("count=1&binary=0", "id: 1\ndata: \n\n"),
        ("count=2&binary=3", "id: 1\ndata: AQID\n\nid: 2\ndata: AgME\n\n"),
        ("count=1&status=200", "id: 1\ndata: The\n\n"),
        ("count=1&bom=off&garbage=off&newline=lf&complete=204", "id: 1\ndata: The\n\n"),
        ("count=1&last_event_id=", "id: 1\ndata: The\n\n"),
        ("count=1&&", "id: 1\ndata: The\n\n"),
        // In a pause of four times its length there are three comments, behind the last event too.
        (
            "count=2&interval=40&heartbeat=10",
            "id: 1\ndata: The\n\n: \n\n: \n\n: \n\nid: 2\ndata: quick\n\n: \n\n: \n\n: \n\n",
        ),
        ("count=1&interval=10&heartbeat=10", "id: 1\ndata: The\n\n"),
        ("count=1&interval=15&heartbeat=10", "id: 1\ndata: The\n\n: \n\n"),
    ];
    for (query, expected) in cases {
        let stream = play(server.address, query);
        let expected = [OPENING, expected].concat();
        assert_eq!(String::from_utf8_lossy(&stream), expected, "{query}");
    }
    for (retry, expected) in [("0", "0"), ("1", "1"), ("1500", "1500"), ("600000", "600000")] {
        let stream = play(server.address, &format!("count=1&retry={retry}"));
        let expected = format!(": newswire\nretry: {expected}\n\nid: 1\ndata: The\n\n");
        assert_eq!(String::from_utf8_lossy(&stream), expected);
    }
}

/// Queries that have much to do with each other.
const COMBINATIONS: [&str; 14] = [
    "text=one+two+three",
    "text=%C3%A9+%F0%9F%98%80+x&count=7&lines=2",
    "count=13&event=e&lines=3&size=40",
    "count=8&size=1000&lines=10&newline=crlf",
    "count=8&binary=100&newline=cr&id=off",
    "count=20&garbage=on",
    "count=20&garbage=on&id=off&event=x",
    "count=12&garbage=on&newline=cr&bom=on&lines=2",
    "count=12&garbage=on&newline=crlf&bom=on&chunk=7",
    "count=3&chunk=1&newline=crlf&bom=on",
    "count=6&chunk=5&text=%F0%9F%98%80%C3%A9&lines=4",
    "count=3&bom=on&size=0",
    "count=5&interval=10&heartbeat=10&garbage=on",
    "count=9&text=%E2%80%A6&size=50&lines=25&event=%C3%A9",
];

#[test]
fn the_same_parameters_give_the_same_bytes_every_time() {
    let server = start();
    let other = start();
    for query in COMBINATIONS {
        let first = play(server.address, query);
        assert!(first == play(server.address, query), "{query} a second time");
        assert!(first == play(other.address, query), "{query} of another server");
        // The order in which they stand means nothing.
        let reversed: Vec<&str> = query.split('&').rev().collect();
        assert!(first == play(server.address, &reversed.join("&")), "{query} reversed");
    }
}

#[test]
fn line_ends_a_mark_and_pieces_change_the_bytes_and_not_the_meaning() {
    let server = start();
    let of = |query: &str| play(server.address, query);
    let plain = of("count=10&lines=3&event=e&text=a+%C3%A9");
    let text = String::from_utf8(plain.clone()).expect("it is UTF-8");
    for (newline, end) in [("lf", "\n"), ("cr", "\r"), ("crlf", "\r\n")] {
        for (bom, mark) in [("off", ""), ("on", "\u{feff}")] {
            for chunk in ["", "&chunk=1", "&chunk=4", "&chunk=65536"] {
                let query = format!("newline={newline}&bom={bom}{chunk}");
                let stream = of(&format!("count=10&lines=3&event=e&text=a+%C3%A9&{query}"));
                let expected = format!("{mark}{}", text.replace('\n', end));
                assert_eq!(String::from_utf8_lossy(&stream), expected, "{query}");
                assert_eq!(parse([stream.as_slice()]), interpret(&plain), "{query}");
                assert_eq!(parse(stream.chunks(1)), interpret(&plain), "{query}");
            }
        }
    }
}

#[test]
fn data_has_exactly_the_size_and_the_lines_that_were_ordered() {
    let server = start();
    let texts =
        ["x", "The", "%C3%A9", "%E2%80%A6%E2%80%A6", "%F0%9F%98%80", "a%F0%9F%98%80%C3%A9b"];
    for text in texts {
        for size in [0, 1, 2, 3, 4, 5, 7, 8, 63, 64, 100, 1021] {
            for lines in [1, 2, 3, 10, 33, (size + 1).min(1000)] {
                let query = format!("text={text}&count=2&size={size}&lines={lines}");
                if lines > size + 1 {
                    assert_eq!(order(server.address, &query).status, 400, "{query}");
                    continue;
                }
                let stream = play(server.address, &query);
                let whole = String::from_utf8(stream).expect("no character was cut in two");
                assert!(!whole.contains('\u{fffd}'), "{query}: {whole:?}");
                let (messages, _, _) = parse([whole.as_bytes()]);
                assert_eq!(messages.len(), 2, "{query}");
                for message in messages {
                    assert_eq!(message.data.len(), size, "{query}: {message:?}");
                    assert_eq!(message.data.split('\n').count(), lines, "{query}: {message:?}");
                }
            }
        }
    }
    for (query, size) in [("size=4194304", 4 << 20), ("size=1000001&lines=1000", 1_000_001)] {
        let stream = play(server.address, &format!("count=1&{query}"));
        let lines: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').skip(4).collect();
        let lines: Vec<&[u8]> =
            lines.iter().map_while(|line| line.strip_prefix(b"data: ")).collect();
        let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        assert_eq!(bytes - 1, size, "{query}");
    }
}

#[test]
fn binary_is_base64_of_every_byte_there_is() {
    let server = start();
    for size in [1, 2, 3, 255, 256, 257, 1000] {
        let stream = play(server.address, &format!("count=300&binary={size}"));
        let (messages, _, _) = parse([stream.as_slice()]);
        for (number, message) in (1..).zip(&messages) {
            let expected: Vec<u8> = (number..number + size).map(|byte: usize| byte as u8).collect();
            assert!(decode_base64(&message.data) == expected, "event {number} of {size} bytes");
        }
        assert_eq!(messages.len(), 300);
    }
    let stream = play(server.address, "count=1&binary=3145728");
    let line = stream.split(|&byte| byte == b'\n').nth(4).expect("there is an event");
    assert_eq!(line.len(), "data: ".len() + (3 << 20) / 3 * 4);
}

#[test]
fn garbage_is_there_and_changes_nothing_that_is_dispatched() {
    let server = start();
    let variants = [
        "",
        "&newline=cr",
        "&newline=crlf",
        "&bom=on",
        "&lines=3",
        "&id=off",
        "&event=e",
        "&size=20&lines=4",
        "&binary=9",
        "&retry=77",
        "&newline=crlf&bom=on&lines=2&event=e&id=off",
        "&chunk=3&newline=cr",
    ];
    for variant in variants {
        let clean = play(server.address, &format!("count=13{variant}"));
        let dirty = play(server.address, &format!("count=13{variant}&garbage=on"));
        assert!(dirty.len() > clean.len() + 100, "{variant}");
        let expected: Interpretation = interpret(&clean);
        assert_eq!(expected.0.len(), 13);
        assert_eq!(parse([dirty.as_slice()]), expected, "{variant} whole");
        assert_eq!(parse(dirty.chunks(1)), expected, "{variant} byte by byte");
        assert_eq!(interpret(&dirty), expected, "{variant} by the standard's algorithm");
        // Each kind that was promised, as a line of its own.
        let lines: Vec<&[u8]> = dirty.split(|byte| b"\r\n".contains(byte)).collect();
        let has = |is: &dyn Fn(&[u8]) -> bool| lines.iter().any(|line| is(line));
        assert!(has(&|line| line.starts_with(b"id: ") && line.contains(&0)), "an id with a NUL");
        assert!(has(&|line| line.starts_with(b"retry: ") && line.ends_with(b"x")), "a bad retry");
        assert!(has(&|line| line.starts_with(b"color")), "an unknown field");
        assert!(has(&|line| std::str::from_utf8(line).is_err()), "bytes that are no text");
        let last = lines.iter().rev().find(|line| !line.is_empty());
        assert_eq!(last, Some(&b"data: never dispatched".as_slice()));
        assert!(
            !dirty.ends_with(b"\n\n") && !dirty.ends_with(b"\r\r") && !dirty.ends_with(b"\n\r\n")
        );
    }
    // Nor does it when the client comes back.
    let clean = resume(server.address, "count=13", "7");
    let dirty = resume(server.address, "count=13&garbage=on", "7");
    assert_eq!(interpret(&dirty.content), interpret(&clean.content));
}

/// The status of a query, without playing it, and the sentence if it is refused.
fn judge(address: SocketAddr, query: &str) -> (u16, String) {
    let target = format!("/lab?{query}");
    let head = ask(address, "HEAD", &target, &[], "");
    if head.status == 200 {
        return (200, String::new());
    }
    let answer = ask(address, "GET", &target, &[], "");
    assert_eq!(answer.status, head.status);
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    (answer.status, answer.text().to_owned())
}

#[test]
fn a_value_outside_of_its_range_is_refused_by_its_name_and_range() {
    let server = start();
    // What else has to be said so that the largest value is within the bounds of the whole.
    let numbers = [
        ("count", 1, 100_000, "&interval=0"),
        ("size", 0, 4_194_304, ""),
        ("lines", 1, 1000, ""),
        ("retry", 0, 600_000, ""),
        ("binary", 0, 3_145_728, ""),
        ("interval", 0, 60_000, ""),
        ("heartbeat", 10, 60_000, ""),
        ("chunk", 1, 65_536, ""),
        ("cut", 1, 99_999, "&count=100000&interval=0"),
        ("stall", 1, 100_000, "&count=100000&interval=0"),
        ("silence", 1, 600_000, "&stall=1"),
    ];
    for (name, least, most, besides) in numbers {
        for value in [least, least + 1, most - 1, most] {
            let query = format!("{name}={value}{besides}");
            assert_eq!(judge(server.address, &query).0, 200, "{query}");
        }
        let mut outside = vec![
            (most + 1).to_string(),
            "".to_owned(),
            "-1".to_owned(),
            format!("%2B{least}"),
            format!("{least}.0"),
            format!("{least}+"),
            format!("+{least}"),
            "1e3".to_owned(),
            "0x1".to_owned(),
            "x".to_owned(),
            "%D9%A3".to_owned(),
            "18446744073709551616".to_owned(),
            "99999999999999999999999999".to_owned(),
            "1%00".to_owned(),
            "1%0A".to_owned(),
        ];
        if least > 0 {
            outside.push((least - 1).to_string());
        }
        for value in outside {
            let query = format!("{name}={value}{besides}");
            let (status, sentence) = judge(server.address, &query);
            assert_eq!(status, 400, "{query}");
            assert!(sentence.starts_with(&format!("{name} is ")), "{query}: {sentence}");
            assert!(sentence.contains(&format!("from {least} to {most}.")), "{query}: {sentence}");
        }
    }
    // A number is a number, whether it is encoded or has zeros before it.
    for query in ["count=%31", "count=0001", "%63ount=1"] {
        assert_eq!(judge(server.address, query).0, 200, "{query}");
    }
    let words = [
        ("id", &["on", "off"][..], "id is on or off."),
        ("bom", &["on", "off"], "bom is on or off."),
        ("garbage", &["on", "off"], "garbage is on or off."),
        ("newline", &["lf", "cr", "crlf"], "newline is lf, cr or crlf."),
        ("complete", &["204", "loop"], "complete is 204 or loop."),
    ];
    for (name, values, expected) in words {
        for value in values {
            assert_eq!(judge(server.address, &format!("{name}={value}")).0, 200, "{name}={value}");
        }
        for value in ["", "On", "ON", "true", "1", "on+", "lf,cr", "LF", "205", "Loop", "%00"] {
            let (status, sentence) = judge(server.address, &format!("{name}={value}"));
            assert_eq!((status, sentence.trim_end()), (400, expected), "{name}={value}");
        }
    }
    for (query, expected) in [
        ("text=", "text is at least one word."),
        ("text=+%0A%09", "text is at least one word."),
        ("event=a%0Ab", "event is an event type without a line end or a NUL."),
        ("event=a%0D", "event is an event type without a line end or a NUL."),
        ("event=%00", "event is an event type without a line end or a NUL."),
        ("status=199", "status is a status code from 200 to 599."),
        ("status=600", "status is a status code from 200 to 599."),
        ("status=", "status is a status code from 200 to 599."),
        ("status=2e2", "status is a status code from 200 to 599."),
        ("redirect=300", "redirect is 301, 302, 303, 307 or 308."),
        ("redirect=200", "redirect is 301, 302, 303, 307 or 308."),
        ("redirect=", "redirect is 301, 302, 303, 307 or 308."),
        ("redirect=/elsewhere", "redirect is 301, 302, 303, 307 or 308."),
        ("type=", "type is a media type, such as text/plain."),
        ("type=texthtml", "type is a media type, such as text/plain."),
        ("type=text/html%0D%0AX-Evil:1", "type is a media type, such as text/plain."),
        ("type=text/html%0A", "type is a media type, such as text/plain."),
        ("type=text/%00", "type is a media type, such as text/plain."),
        ("type=text/%C3%A9", "type is a media type, such as text/plain."),
        ("type=text/%7F", "type is a media type, such as text/plain."),
    ] {
        let (status, sentence) = judge(server.address, query);
        assert_eq!((status, sentence.trim_end()), (400, expected), "{query}");
    }
    for name in ["", ".x", "a/b", "a%2Fb", "%0A", "a+b", &"x".repeat(65)] {
        let (status, sentence) = judge(server.address, &format!("line={name}"));
        assert_eq!(status, 400, "{name}");
        assert!(sentence.starts_with("line is a name of 1 to 64 "), "{sentence}");
    }
}

/// All that the laboratory knows.
pub(crate) const PARAMETERS: [&str; 23] = [
    "text",
    "count",
    "event",
    "id",
    "size",
    "lines",
    "retry",
    "binary",
    "interval",
    "heartbeat",
    "chunk",
    "newline",
    "bom",
    "cut",
    "stall",
    "silence",
    "garbage",
    "complete",
    "status",
    "type",
    "redirect",
    "line",
    "last_event_id",
];

#[test]
fn what_nobody_knows_is_refused_with_what_there_is_and_nothing_is_echoed() {
    let server = start();
    for query in
        ["x=1", "Count=1", "count+=1", "=1", "=", "count%00=1", "<script>=1", "textt", "%ff=1"]
    {
        let (status, sentence) = judge(server.address, query);
        assert_eq!(status, 400, "{query}");
        for name in PARAMETERS {
            assert!(sentence.contains(name), "{name} is not in {sentence}");
        }
        assert!(!sentence.contains("script") && !sentence.contains("Count"), "{sentence}");
    }
    // One bad thing among good ones is enough, wherever it stands.
    for query in ["count=1&x=1", "x&count=1", "count=1&count=0", "text=a&text=b&y"] {
        assert_eq!(judge(server.address, query).0, 400, "{query}");
    }
}

#[test]
fn what_cannot_be_together_is_refused_with_the_reason() {
    let server = start();
    for (query, names) in [
        ("binary=1&size=1", ["binary", "size"]),
        ("binary=1&lines=2", ["binary", "lines"]),
        ("size=1&lines=3", ["size", "lines"]),
        ("size=998&lines=1000", ["size", "lines"]),
        ("cut=9", ["cut", "count"]),
        ("cut=10", ["cut", "count"]),
        ("count=1&cut=1", ["cut", "count"]),
        ("text=a+b&cut=2", ["cut", "count"]),
        ("cut=1&id=off", ["cut", "id"]),
        ("stall=10", ["stall", "count"]),
        ("count=3&stall=4", ["stall", "count"]),
        ("stall=3&cut=3", ["stall", "cut"]),
        ("stall=4&cut=3", ["stall", "cut"]),
        ("count=100000&size=1000&interval=0", ["count", "size"]),
        ("count=17&size=4194304&interval=0", ["count", "size"]),
        ("count=100000&lines=1000&interval=0", ["count", "size"]),
        ("count=22&binary=3145728&interval=0", ["count", "size"]),
        ("count=100000", ["count", "interval"]),
        ("count=3601", ["count", "interval"]),
        ("count=61&interval=60000", ["count", "interval"]),
        ("count=60&interval=60000&stall=1&silence=1", ["count", "interval"]),
        ("count=60&interval=60000&stall=1", ["count", "interval"]),
        ("count=1&size=4194304&chunk=1", ["count", "chunk"]),
    ] {
        let (status, sentence) = judge(server.address, query);
        assert_eq!(status, 400, "{query}");
        for name in names {
            assert!(sentence.contains(name), "{query}: {sentence}");
        }
    }
    for query in [
        "size=2&lines=3",
        "size=999&lines=1000",
        "cut=8",
        "text=a+b&cut=1",
        "stall=9",
        "count=3&stall=3",
        "stall=2&cut=3",
        "count=3600",
        "count=60&interval=60000",
        "count=15&size=4194304&interval=0",
        "count=3540&stall=1&silence=60000",
        "silence=1",
        "binary=1&lines=1",
        "id=off&stall=1",
    ] {
        let judged = judge(server.address, query);
        assert_eq!(judged, (200, String::new()), "{query}");
    }
    // The values are judged as they are in the end, in whichever order they stand.
    assert_eq!(judge(server.address, "cut=8&count=9").0, 200);
    assert_eq!(judge(server.address, "cut=9&count=10").0, 200);
    assert_eq!(judge(server.address, "cut=9&count=9").0, 400);
}

#[test]
fn a_cut_breaks_the_stream_once_and_it_goes_on_where_it_stopped() {
    let server = start();
    let query = "text=a+b+c+d+e&cut=2";
    let (messages, last_event_id, _) = interpret(&play(server.address, query));
    assert_eq!((data(&messages), last_event_id.as_str()), (vec!["a", "b"], "2"));
    // Who comes back is not cut again, from wherever it comes.
    for (id, expected) in [
        ("2", &["c", "d", "e"][..]),
        ("1", &["b", "c", "d", "e"]),
        ("0", &["a", "b", "c", "d", "e"]),
        ("4", &["e"]),
    ] {
        let answer = resume(server.address, query, id);
        let (messages, _, _) = interpret(&answer.content);
        assert_eq!(data(&messages), expected, "after {id}");
        let numbers = messages.iter().map(|message| message.last_event_id.parse().ok());
        let first: usize = id.parse().expect("it is a number");
        assert!(numbers.eq((first + 1..=5).map(Some)), "{messages:?}");
    }
    assert_eq!(resume(server.address, query, "5").status, 204);
    // Who comes anew is, every time.
    assert_eq!(interpret(&play(server.address, query)).0.len(), 2);
    // The break is a clean end in the middle of nothing, and not an error for who counts bytes.
    let stream = play(server.address, query);
    assert!(stream.ends_with(b"id: 2\ndata: b\n\n"));
}

#[test]
fn a_client_goes_on_behind_what_it_has_heard_and_a_mad_id_is_no_id() {
    let server = start();
    let all = interpret(&play(server.address, "count=12")).0;
    for heard in 0..12 {
        let id = heard.to_string();
        let expected = &all[heard..];
        let by_field = resume(server.address, "count=12", &id);
        assert_eq!(interpret(&by_field.content).0, expected, "after {heard}");
        let by_query = order(server.address, &format!("count=12&last_event_id={id}"));
        assert_eq!(interpret(&by_query.content).0, expected, "after {heard}");
        assert!(by_field.content == by_query.content);
    }
    // The field, which EventSource sends, goes before the query, which stays in its URL.
    let answer = resume(server.address, "count=12&last_event_id=3", "10");
    assert_eq!(interpret(&answer.content).0, all[10..]);
    let mad = [
        "13",
        "-1",
        "1.0",
        "x",
        "0x1",
        "+1",
        "1 ",
        "99999999999999999999999",
        "unfinished",
        "nul\\0nul",
        "1-0",
        "earliest",
        "é",
    ];
    for id in mad {
        // Spaces around a field's value are none of it.
        if id != "1 " {
            let answer = resume(server.address, "count=12", id);
            assert_eq!(interpret(&answer.content).0, all, "{id:?}");
        }
        let id = id.replace('+', "%2B").replace(' ', "%20").replace('é', "%C3%A9");
        let answer = order(server.address, &format!("count=12&last_event_id={id}"));
        assert_eq!(interpret(&answer.content).0, all, "{id:?}");
    }
    // Without ids nobody can have heard one.
    let without = resume(server.address, "count=12&id=off", "5");
    assert_eq!(interpret(&without.content).0.len(), 12);
}

#[test]
fn who_has_heard_everything_is_told_to_stop_or_hears_it_again() {
    let server = start();
    for query in ["count=3", "count=3&complete=204", "count=3&garbage=on&bom=on", "count=3&cut=1"] {
        for answer in [
            resume(server.address, query, "3"),
            order(server.address, &format!("{query}&last_event_id=3")),
        ] {
            assert_eq!(answer.status, 204, "{query}");
            assert_eq!(answer.field("cache-control"), Some("no-store"));
            assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
            assert_eq!(answer.field("content-type"), None);
        }
    }
    let again = resume(server.address, "count=3&complete=loop", "3");
    assert_eq!(again.content, play(server.address, "count=3"));
    let rest = resume(server.address, "count=3&complete=loop", "2");
    assert_eq!(data(&interpret(&rest.content).0), ["brown"]);
    // A loop is not cut each time round: it comes back.
    let again = resume(server.address, "count=3&complete=loop&cut=1", "3");
    assert_eq!(interpret(&again.content).0.len(), 3);
}

#[test]
fn a_stall_is_silence_with_the_connection_open_once() {
    let server = start();
    let silence = Duration::from_millis(700);
    let query = "text=a+b+c+d&stall=2&silence=700&interval=0";
    let started = Instant::now();
    let mut stream = Stream::open(server.address, &format!("/lab?{query}"), &[]);
    let mut arrived = Vec::new();
    while stream.next().is_some() {
        arrived.push(started.elapsed());
    }
    assert_eq!(arrived.len(), 4);
    assert!(arrived[2] >= silence, "{arrived:?}");
    // The bytes are those of a stream that never stalled.
    assert_eq!(stream.bytes, play(server.address, "text=a+b+c+d"));
    // Not even a heartbeat breaks it; in the pauses there is one.
    let beating = play(server.address, "text=a+b&stall=1&silence=60&interval=20&heartbeat=10");
    let expected = format!("{OPENING}id: 1\ndata: a\n\n: \n\nid: 2\ndata: b\n\n: \n\n");
    assert_eq!(String::from_utf8_lossy(&beating), expected);

    // Who has come back is not kept waiting: ten minutes here, if it were.
    let started = Instant::now();
    let query = "text=a+b+c+d&stall=2&silence=600000";
    let answer = resume(server.address, query, "1");
    assert_eq!(data(&interpret(&answer.content).0), ["b", "c", "d"]);
    let answer = resume(server.address, query, "0");
    assert_eq!(interpret(&answer.content).0.len(), 4);
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn events_leave_when_they_are_due_and_not_before() {
    let server = start();
    let interval = Duration::from_millis(200);
    let started = Instant::now();
    let mut stream = Stream::open(server.address, "/lab?text=a+b+c+d&interval=200", &[]);
    let mut arrived = Vec::new();
    while stream.next().is_some() {
        arrived.push(started.elapsed());
    }
    assert_eq!(arrived.len(), 4);
    // There are three pauses between the first and the last, and one behind it.
    assert!(arrived[3] >= interval * 3, "{arrived:?}");
    assert!(started.elapsed() >= interval * 4, "{arrived:?}");
    // The first does not wait for the second, which is a minute away.
    let mut stream = Stream::open(server.address, "/lab?text=a+b&interval=60000", &[]);
    assert_eq!(stream.next().expect("it is sent").data, "a");
}

#[test]
fn a_status_or_a_type_stands_where_the_stream_would() {
    let server = start();
    for code in 201..=599 {
        let answer = order(server.address, &format!("status={code}"));
        assert_eq!(answer.status, code);
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.field("location"), None);
        assert!(!answer.content.starts_with(b": newswire"), "{answer:?}");
    }
    let stream = play(server.address, "count=2");
    for (content_type, expected) in [
        ("text/plain", "text/plain"),
        ("text/event-stream;charset=windows-1251", "text/event-stream;charset=windows-1251"),
        ("text/event-stream%20;%20charset=%22utf-8%22", "text/event-stream ; charset=\"utf-8\""),
        ("TEXT/EVENT-STREAM", "TEXT/EVENT-STREAM"),
        ("x/bogus;charset=%3A,", "x/bogus;charset=:,"),
        ("/", "/"),
    ] {
        let answer = order(server.address, &format!("count=2&type={content_type}"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("content-type"), Some(expected));
        assert_eq!(answer.content, stream, "the rest is as it was");
    }
}

#[test]
fn a_redirect_leads_to_the_same_stream_and_no_value_gets_out_of_it() {
    let server = start();
    for code in [301, 302, 303, 307, 308] {
        for query in [
            "count=2",
            "text=a+b%20c&event=x%26y%3Dz%23&count=2",
            "text=%0D%0ASet-Cookie:+x=1%0D%0A%0D%0A&type=text/plain;a=%22b%22",
            "text=%C3%A9%F0%9F%98%80%ff%00&lines=2",
            "text=%25+%2B+%3Cscript%3E",
            "count=1&event=",
            "last_event_id=8",
        ] {
            for query in [format!("redirect={code}&{query}"), format!("{query}&redirect={code}")] {
                let answer = order(server.address, &query);
                assert_eq!(answer.status, code, "{query}");
                let location = answer.field("location").expect("it says where").to_owned();
                let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"/?&=%-._~".contains(&byte);
                assert!(location.bytes().all(safe), "{location}");
                assert!(location.starts_with("/lab?"), "{location}");
                assert!(!location.contains("redirect"), "{location}");
                assert_eq!(answer.field("set-cookie"), None);
                assert_eq!(answer.field("cache-control"), Some("no-store"));
                let direct = query.replace(&format!("redirect={code}"), "");
                let led_to = ask(server.address, "GET", &location, &[], "");
                let direct = order(server.address, &direct);
                assert_eq!(
                    (led_to.status, led_to.content),
                    (direct.status, direct.content),
                    "{query}"
                );
                assert!(led_to.head.contains("Content-Type: text/"), "{}", led_to.head);
            }
        }
    }
    // What is refused is refused at once, not where it would lead.
    assert_eq!(order(server.address, "redirect=302&count=0").status, 400);
}

#[test]
fn a_person_without_parameters_is_led_to_the_page_and_a_program_is_not() {
    let server = start();
    let browser = [("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")];
    for method in ["GET", "HEAD"] {
        for target in ["/lab", "/lab?"] {
            let answer = ask(server.address, method, target, &browser, "");
            assert_eq!(answer.status, 302, "{method} {target}");
            assert_eq!(answer.field("location"), Some("/#lab"));
        }
    }
    let answer = ask(server.address, "GET", "/lab?count=1&interval=0", &browser, "");
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
    for accept in ["text/event-stream", "*/*", ""] {
        let mut stream = Stream::open(server.address, "/lab", &[("Accept", accept)]);
        assert_eq!(stream.answer.status, 200);
        assert_eq!(stream.next().expect("it is the words").data, "The");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(server.address, method, "/lab?count=1", &[], "");
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD, OPTIONS")));
    }
}

#[test]
fn a_page_of_any_origin_may_use_it() {
    let server = start();
    let origin = [("Origin", "https://elsewhere.example")];
    for query in
        ["count=1&interval=0", "status=500", "redirect=307", "count=0", "count=1&last_event_id=1"]
    {
        let answer = ask(server.address, "GET", &format!("/lab?{query}"), &origin, "");
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"), "{query}");
    }
    let stream = ask(server.address, "GET", "/lab?count=1&interval=0", &origin, "");
    assert_eq!(stream.field("cache-control"), Some("no-store, no-transform"));
    assert_eq!(stream.field("x-accel-buffering"), Some("no"));
    assert_eq!(stream.field("connection"), Some("close"));
    assert_eq!(stream.field("content-length"), None);
}

/// Who watches a line: what was shown so far.
struct Watch {
    stream: Stream,
    /// The parts that were shown, by their names.
    shown: Vec<(String, Vec<u8>)>,
}

impl Watch {
    fn open(address: SocketAddr, line: &str) -> Watch {
        let stream = Stream::open(address, &format!("/lab/lines/{line}"), &[]);
        assert_eq!(stream.answer.status, 200, "{:?}", stream.answer);
        let shown = Vec::new();
        Watch { stream, shown }
    }

    /// Everything that was shown, once it is as long as this.
    fn until(&mut self, bytes: usize) -> Vec<u8> {
        self.until_shown(|shown| shown.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= bytes)
    }

    /// Everything that was shown, once there is enough of it.
    fn until_shown(&mut self, is_enough: impl Fn(&[(String, Vec<u8>)]) -> bool) -> Vec<u8> {
        while !is_enough(&self.shown) {
            let message = self.stream.next().expect("it goes on");
            self.shown.push((message.event_type, decode_base64(&message.data)));
        }
        self.shown.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}

/// All that a client's socket receives, head included, of a stream on a line.
fn receive(address: SocketAddr, query: &str, id: Option<&str>) -> Vec<u8> {
    let id = id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
    let request = format!("GET /lab?{query} HTTP/1.1\r\nHost: localhost\r\n{id}\r\n");
    let mut socket = connect(address);
    socket.write_all(request.as_bytes()).expect("the server reads");
    let mut received = Vec::new();
    socket.read_to_end(&mut received).expect("it ends");
    received
}

#[test]
fn who_watches_a_line_sees_each_byte_that_its_stream_received() {
    let server = start();
    let address = server.address;
    for (number, query) in COMBINATIONS.iter().enumerate() {
        let mut watches = [(); 2].map(|()| Watch::open(address, &format!("line{number}")));
        let pause = if query.contains("interval=") { "" } else { "&interval=0" };
        let query = format!("{query}{pause}&line=line{number}");
        let mut received = receive(address, &query, None);
        // Again, on the same line, and from the middle.
        received.extend(receive(address, &query, Some("2")));
        for watch in &mut watches {
            assert!(watch.until(received.len()) == received, "{query}");
            let names: Vec<&str> = watch.shown.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names[0], "head");
            assert_eq!(names.iter().filter(|name| **name == "head").count(), 2, "{query}");
            assert!(names.iter().all(|name| ["head", "bytes"].contains(name)), "{names:?}");
            let (_, head) = &watch.shown[0];
            assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n") && head.ends_with(b"\r\n\r\n"));
        }
        // Nothing else is shown than what a stream received, and nothing of another line.
        let mut watch = Watch::open(address, &format!("line{number}"));
        let received = receive(address, &query, None);
        assert!(watch.until(received.len()) == received, "{query} once more");
    }
}

#[test]
fn a_frame_leaves_in_pieces_of_exactly_the_size_that_was_ordered() {
    let server = start();
    for size in [1, 2, 3, 7, 64] {
        let mut watch = Watch::open(server.address, "pieces");
        let query = format!(
            "count=4&lines=2&text=%F0%9F%98%80&newline=crlf&bom=on&interval=0&chunk={size}&line=pieces"
        );
        let received = receive(server.address, &query, None);
        assert!(watch.until(received.len()) == received);
        let pieces =
            watch.shown.iter().filter(|(name, bytes)| name == "bytes" && !bytes.is_empty());
        let mut frame = Vec::new();
        let mut frames = 0;
        for (_, piece) in pieces {
            assert!(piece.len() <= size, "{piece:?}");
            frame.extend_from_slice(piece);
            if piece.len() < size || frame.ends_with(b"\r\n\r\n") {
                assert!(
                    frame.ends_with(b"\r\n\r\n"),
                    "only a frame's last piece is short: {piece:?}"
                );
                frame.clear();
                frames += 1;
            }
        }
        assert_eq!((frames, frame.len()), (5, 0), "the opening and four events");
    }
}

#[test]
fn a_large_frame_is_shown_whole() {
    let server = start();
    let address = server.address;
    for size in [300_000, 700_000, 1_500_000] {
        let mut watch = Watch::open(address, "large");
        let large = format!("count=1&interval=0&size={size}&line=large");
        // Something small before it and behind it, so that what is missing shows.
        let small = "count=1&interval=0&line=large";
        let player = thread::spawn(move || {
            [small, &large, small].map(|query| receive(address, query, None))
        });
        let is_over = |shown: &[(String, Vec<u8>)]| {
            let heads = shown.iter().filter(|(name, _)| name == "head").count();
            heads == 3 && shown.last().is_some_and(|(_, bytes)| bytes.ends_with(b"data: The\n\n"))
        };
        let seen = watch.until_shown(is_over);
        let received = player.join().expect("it is played").concat();
        assert_eq!(seen.len(), received.len(), "{size}");
        assert!(seen == received, "{size}");
    }
}

#[test]
fn what_no_socket_receives_is_not_shown() {
    let server = start();
    let mut watch = Watch::open(server.address, "head");
    let mut socket = connect(server.address);
    let request = "HEAD /lab?count=1&interval=0&line=head HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("the server reads");
    let mut received = Vec::new();
    socket.read_to_end(&mut received).expect("it ends");
    assert!(received.ends_with(b"\r\n\r\n"));
    received.extend(receive(server.address, "count=1&interval=0&line=head", None));
    let seen = watch.until(received.len());
    assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(&received));
}

#[test]
fn cutting_a_line_breaks_its_streams_wherever_they_are_and_they_go_on_afterwards() {
    let server = start();
    let address = server.address;
    let cut = |line: &str| ask(address, "DELETE", &format!("/lab/lines/{line}"), &[], "");
    assert_eq!(cut("nobody").status, 404);
    assert_eq!(cut(".no").status, 404);

    // In a pause, in a silence, between two heartbeats.
    for query in
        ["interval=60000", "interval=0&stall=1&silence=600000", "interval=60000&heartbeat=20"]
    {
        let target = format!("/lab?count=5&line=cut&{query}");
        let mut streams = [(); 2].map(|()| Stream::open(address, &target, &[]));
        for stream in &mut streams {
            assert_eq!(stream.next().expect("it begins").data, "The");
        }
        assert_eq!(cut("cut").status, 204);
        for mut stream in streams {
            assert_eq!(stream.next(), None, "{query}");
        }
        // Who comes back is on a line that is whole.
        let answer = resume(address, "count=5&line=cut", "1");
        assert_eq!(interpret(&answer.content).0.len(), 4);
    }

    // While it flows.
    let mut stream = Stream::open(address, "/lab?count=60000&interval=1&line=cut", &[]);
    for _ in 0..5 {
        stream.next().expect("it flows");
    }
    assert_eq!(cut("cut").status, 204);
    let mut heard = 5;
    while let Some(message) = stream.next() {
        heard += 1;
        assert_eq!(message.last_event_id, heard.to_string());
    }
    assert!(heard < 60_000);

    // Another line is another line.
    let mut other = Stream::open(address, "/lab?count=2&interval=300&line=other", &[]);
    other.next().expect("it begins");
    assert_eq!(cut("cut").status, 204);
    assert_eq!(other.next().expect("it goes on").data, "quick");
    // A page of any origin may: the laboratory is for everyone.
    let origin = [("Origin", "https://elsewhere.example")];
    let answer = ask(address, "DELETE", "/lab/lines/other", &origin, "");
    assert_eq!(answer.status, 204);
}

#[test]
fn a_stream_without_pauses_can_be_cut_too() {
    let server = start();
    let whole = 1000 * 60_000;
    let mut stream = connect(server.address);
    let request = "GET /lab?count=1000&size=60000&interval=0&line=flood HTTP/1.0\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the server reads");
    stream.read_exact(&mut [0; 1000]).expect("it flows");
    // It is so much more than a socket takes that the server is still writing.
    let answer = ask(server.address, "DELETE", "/lab/lines/flood", &[], "");
    assert_eq!(answer.status, 204);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("it ends");
    assert!(received.len() < whole, "{} bytes", received.len());
}

#[test]
fn a_line_can_be_cut_as_soon_as_its_stream_has_begun() {
    let server = start();
    for number in 0..4 {
        let line = format!("early{number}");
        let query = format!("/lab?count=2&interval=5000&line={line}");
        let mut stream = Stream::open(server.address, &query, &[]);
        let target = format!("/lab/lines/{line}");
        let answer = ask(server.address, "DELETE", &target, &[], "");
        assert_eq!(answer.status, 204);
        while let Some(message) = stream.next() {
            assert_ne!(message.data, "quick");
        }
    }
}

#[test]
fn clients_that_have_left_in_a_silence_do_not_keep_others_out() {
    let server =
        Server::start(&["--quiet", "--heartbeat=0", "--max-connections=8", "--max-subscribers=8"]);
    for _ in 0..8 {
        let target = "/lab?count=2&interval=0&stall=1&silence=600000";
        let mut stream = Stream::open(server.address, target, &[]);
        assert_eq!(stream.next().expect("it begins").data, "The");
    }
    let answer = ask(server.address, "GET", "/healthz", &[], "");
    assert_eq!(answer.status, 200);
}

/// One that has closed its half may listen still. What was written to one that has left comes back.
#[test]
fn what_was_written_to_a_client_that_had_left_is_noticed_in_the_silence_behind_it() {
    let server = Server::start(&["--quiet", "--heartbeat=0"]);
    let target = "/lab?count=3&interval=1000&stall=2&silence=600000";
    for _ in 0..4 {
        let mut stream = Stream::open(server.address, target, &[]);
        assert_eq!(stream.next().expect("it begins").data, "The");
    }
    eventually("they are gone", || server.metric("newswire_connections") == 1);
}

#[test]
fn lines_are_bounded_and_those_that_nobody_uses_give_way() {
    let server = Server::start(&["--quiet", "--heartbeat", "1"]);
    let address = server.address;
    let status = |line: &str| {
        let target = format!("/lab?count=1&interval=0&line={line}");
        let answer = ask(address, "GET", &target, &[], "");
        if answer.status == 503 {
            assert_eq!(answer.field("retry-after"), Some("5"));
            assert!(answer.text().contains("too many lines"), "{answer:?}");
        }
        answer.status
    };
    // Any number, one after the other.
    for number in 0..300 {
        assert_eq!(status(&format!("used{number}")), 200);
    }
    // As many as there may be, at the same time.
    let watches: Vec<Watch> =
        (0..256).map(|number| Watch::open(address, &format!("held{number}"))).collect();
    assert_eq!(status("one-more"), 503);
    assert_eq!(status("held7"), 200);
    drop(watches);
    eventually("one gives way", || status("one-more") == 200);
}

#[test]
fn a_stream_on_a_line_that_nobody_watches_is_the_same() {
    let server = start();
    for query in COMBINATIONS {
        let plain = play(server.address, query);
        let on_a_line = play(server.address, &format!("{query}&line=unwatched"));
        assert!(plain == on_a_line, "{query}");
    }
}

#[test]
fn many_streams_at_once_are_each_as_ordered() {
    let server = start();
    let address = server.address;
    let clients: Vec<_> = (0..24)
        .map(|number| {
            thread::spawn(move || {
                let query = COMBINATIONS[number % COMBINATIONS.len()];
                (query, play(address, query))
            })
        })
        .collect();
    for client in clients {
        let (query, stream) = client.join().expect("it is played");
        assert!(stream == play(address, query), "{query}");
    }
}

#[test]
fn a_refused_order_leaves_the_connection_for_the_next() {
    let server = start();
    let mut socket = connect(server.address);
    let requests = "GET /lab?count=0 HTTP/1.1\r\nHost: localhost\r\n\r\n\
                    GET /lab?status=503 HTTP/1.1\r\nHost: localhost\r\n\r\n\
                    GET /lab?count=1&last_event_id=1 HTTP/1.1\r\nHost: localhost\r\n\r\n\
                    GET /lab?count=1&interval=0 HTTP/1.1\r\nHost: localhost\r\n\r\n\
                    GET /lab?count=1&interval=0 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(requests.as_bytes()).expect("the server reads");
    let mut reader = BufReader::new(socket);
    let statuses = [(); 4].map(|()| Answer::read(&mut reader, "GET").map(|answer| answer.status));
    assert_eq!(statuses, [Some(400), Some(503), Some(204), Some(200)]);
    // A stream ends with its connection: the request behind it is not answered.
    assert!(Answer::read(&mut reader, "GET").is_none());
}
