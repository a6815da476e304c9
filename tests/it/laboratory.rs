//! The laboratory, parameter by parameter and byte by byte, from a raw socket.

use crate::events::{Interpretation, decode_base64, interpret, parse};
use crate::server::{Answer, Server, Stream, ask, connect, eventually, read_until};
use newswire::sse::Message;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

fn start() -> Server {
    Server::start(&["--quiet"])
}

/// The whole response to a query, without a pause between events unless the query has an interval.
fn order(address: SocketAddr, query: &str) -> Answer {
    let pause = if query.contains("interval=") { "" } else { "&interval=0" };
    ask(address, "GET", &format!("/lab?{query}{pause}"), &[], "")
}

/// The whole stream of a query.
fn play(address: SocketAddr, query: &str) -> Vec<u8> {
    let answer = order(address, query);
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    assert_eq!(answer.field("content-type"), Some("text/event-stream"));
    answer.content
}

/// The response to a client whose last event ID is `id`.
fn resume(address: SocketAddr, query: &str, id: &str) -> Answer {
    let fields = [("Last-Event-ID", id)];
    ask(address, "GET", &format!("/lab?{query}&interval=0"), &fields, "")
}

fn data(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.data.as_str()).collect()
}

const OPENING: &str = ": newswire\nretry: 2000\n";

#[test]
fn each_parameter_gives_the_documented_bytes() {
    let server = start();
    let cases = [
        (
            "",
            "id: 1\ndata: The\n\nid: 2\ndata: quick\n\nid: 3\ndata: brown\n\nid: 4\ndata: fox\n\n\
             id: 5\ndata: jumps\n\nid: 6\ndata: over\n\nid: 7\ndata: the\n\nid: 8\ndata: lazy\n\n\
             id: 9\ndata: dog.\n\n",
        ),
        ("text=to+be", "id: 1\ndata: to\n\nid: 2\ndata: be\n\n"),
        // Any white space, in any amount, separates two words.
        ("text=%20a%0D%0A%0D%0Ab%09%C2%A0%E2%80%A8c%0A", "id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: c\n\n"),
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
        // A pause of four heartbeat intervals has three comments, behind the last event too.
        ("count=2&interval=40&heartbeat=10", "id: 1\ndata: The\n\n:\n:\n:\nid: 2\ndata: quick\n\n:\n:\n:\n"),
        ("count=1&interval=10&heartbeat=10", "id: 1\ndata: The\n\n"),
        ("count=1&interval=15&heartbeat=10", "id: 1\ndata: The\n\n:\n"),
    ];
    for (query, expected) in cases {
        let stream = play(server.address, query);
        let expected = [OPENING, expected].concat();
        assert_eq!(String::from_utf8_lossy(&stream), expected, "{query}");
    }
    for (retry, expected) in [("0", "0"), ("1", "1"), ("1500", "1500"), ("600000", "600000")] {
        let stream = play(server.address, &format!("count=1&retry={retry}"));
        let expected = format!(": newswire\nretry: {expected}\nid: 1\ndata: The\n\n");
        assert_eq!(String::from_utf8_lossy(&stream), expected);
    }
}

/// Queries whose parameters affect each other.
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
        // The order of the parameters does not matter.
        let reversed: Vec<&str> = query.split('&').rev().collect();
        assert!(first == play(server.address, &reversed.join("&")), "{query} reversed");
    }
}

#[test]
fn line_ends_a_byte_order_mark_and_pieces_do_not_change_the_events() {
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
fn data_has_exactly_the_size_and_the_number_of_lines_that_were_asked_for() {
    let server = start();
    let texts = ["x", "The", "%C3%A9", "%E2%80%A6%E2%80%A6", "%F0%9F%98%80", "a%F0%9F%98%80%C3%A9b"];
    for text in texts {
        for size in [0, 1, 2, 3, 4, 5, 7, 8, 63, 64, 100, 1021] {
            for lines in [1, 2, 3, 10, 33, (size + 1).min(1000)] {
                let query = format!("text={text}&count=2&size={size}&lines={lines}");
                if lines > size + 1 {
                    assert_eq!(order(server.address, &query).status, 400, "{query}");
                    continue;
                }
                let stream = play(server.address, &query);
                let whole = String::from_utf8(stream).expect("no character is cut in two");
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
        let lines: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').skip(3).collect();
        let lines: Vec<&[u8]> = lines.iter().map_while(|line| line.strip_prefix(b"data: ")).collect();
        let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        assert_eq!(bytes - 1, size, "{query}");
    }
}

#[test]
fn binary_data_is_base64_of_consecutive_bytes() {
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
    let line = stream.split(|&byte| byte == b'\n').nth(3).expect("there is an event");
    assert_eq!(line.len(), "data: ".len() + (3 << 20) / 3 * 4);
}

#[test]
fn garbage_is_sent_and_does_not_change_the_events() {
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
        // Each documented kind of garbage is a line of its own.
        let lines: Vec<&[u8]> = dirty.split(|byte| b"\r\n".contains(byte)).collect();
        let has = |is: &dyn Fn(&[u8]) -> bool| lines.iter().any(|line| is(line));
        assert!(has(&|line| line.starts_with(b"id: ") && line.contains(&0)), "an id with a NUL");
        assert!(has(&|line| line.starts_with(b"retry: ") && line.ends_with(b"x")), "a bad retry");
        assert!(has(&|line| line.starts_with(b"color")), "an unknown field");
        assert!(has(&|line| std::str::from_utf8(line).is_err()), "bytes that are no text");
        let last = lines.iter().rev().find(|line| !line.is_empty());
        assert_eq!(last, Some(&b"data: never dispatched".as_slice()));
        assert!(!dirty.ends_with(b"\n\n") && !dirty.ends_with(b"\r\r") && !dirty.ends_with(b"\n\r\n"));
    }
    // Garbage does not change the events of a client that resumes either.
    let clean = resume(server.address, "count=13", "7");
    let dirty = resume(server.address, "count=13&garbage=on", "7");
    assert_eq!(interpret(&dirty.content), interpret(&clean.content));
}

/// The status of a query, and the sentence of its refusal. The stream is not played.
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
fn a_bad_value_is_refused_with_the_name_and_the_range_of_its_parameter() {
    let server = start();
    // Besides, each has the parameters that keep its largest value within the bounds of the whole stream.
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
        ("jitter", 0, 100, ""),
        ("status", 200, 599, "&count=1"),
    ];
    for (name, least, most, besides) in numbers {
        for value in [least, least + 1, most - 1, most] {
            let query = format!("{name}={value}{besides}");
            let expected = if name == "status" { value } else { 200 };
            assert_eq!(usize::from(judge(server.address, &query).0), expected, "{query}");
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
    // A number can be percent-encoded and can have leading zeros.
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

/// The parameters of the laboratory.
pub(crate) const PARAMETERS: [&str; 29] = [
    "text",
    "split",
    "data",
    "count",
    "event",
    "id",
    "size",
    "lines",
    "binary",
    "interval",
    "jitter",
    "speed",
    "retry",
    "heartbeat",
    "chunk",
    "newline",
    "bom",
    "complete",
    "cut",
    "stall",
    "silence",
    "garbage",
    "status",
    "type",
    "redirect",
    "line",
    "last_event_id",
    "lastEventId",
    "Last-Event-ID",
];

#[test]
fn an_unknown_parameter_is_refused_by_its_name_and_hostile_text_is_not_repeated() {
    let server = start();
    let long = "x".repeat(33);
    for (query, culprit) in [
        ("x=1", "x"),
        ("Count=1", "Count"),
        ("count_2", "count_2"),
        ("textt", "textt"),
        ("count+=1", "A parameter"),
        ("=1", "A parameter"),
        ("=", "A parameter"),
        ("count%00=1", "A parameter"),
        ("<script>=1", "A parameter"),
        ("%ff=1", "A parameter"),
        (&*long, "A parameter"),
        ("a.b=1", "A parameter"),
        ("caf%C3%A9=1", "A parameter"),
    ] {
        let (status, sentence) = judge(server.address, query);
        assert_eq!(status, 400, "{query}");
        let expected = format!("{culprit} is unknown. The parameters are ");
        assert!(sentence.starts_with(&expected), "{query}: {sentence}");
        for name in PARAMETERS {
            assert!(sentence.contains(name), "{name} is not in {sentence}");
        }
    }
    // One bad parameter among good ones is enough, wherever it stands.
    for query in ["count=1&x=1", "x&count=1", "count=1&count=0", "text=a&text=b&y"] {
        assert_eq!(judge(server.address, query).0, 400, "{query}");
    }
}

#[test]
fn parameters_that_contradict_each_other_are_refused_with_the_reason() {
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
        ("count=3600&jitter=1", ["count", "jitter"]),
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
    // The order of the parameters does not matter.
    assert_eq!(judge(server.address, "cut=8&count=9").0, 200);
    assert_eq!(judge(server.address, "cut=9&count=10").0, 200);
    assert_eq!(judge(server.address, "cut=9&count=9").0, 400);
}

#[test]
fn a_cut_ends_the_stream_once_and_a_resuming_client_gets_the_rest() {
    let server = start();
    let query = "text=a+b+c+d+e&cut=2";
    let (messages, last_event_id, _) = interpret(&play(server.address, query));
    assert_eq!((data(&messages), last_event_id.as_str()), (vec!["a", "b"], "2"));
    // A client that resumes is not cut again.
    for (id, expected) in
        [("2", &["c", "d", "e"][..]), ("1", &["b", "c", "d", "e"]), ("0", &["a", "b", "c", "d", "e"]), ("4", &["e"])]
    {
        let answer = resume(server.address, query, id);
        let (messages, _, _) = interpret(&answer.content);
        assert_eq!(data(&messages), expected, "after {id}");
        let numbers = messages.iter().map(|message| message.last_event_id.parse().ok());
        let first: usize = id.parse().expect("it is a number");
        assert!(numbers.eq((first + 1..=5).map(Some)), "{messages:?}");
    }
    assert_eq!(resume(server.address, query, "5").status, 204);
    // A new client is cut every time.
    assert_eq!(interpret(&play(server.address, query)).0.len(), 2);
    // The stream ends behind a whole frame.
    let stream = play(server.address, query);
    assert!(stream.ends_with(b"id: 2\ndata: b\n\n"));
}

#[test]
fn a_client_continues_after_its_last_event_id_and_an_unknown_id_is_ignored() {
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
    // The field, which EventSource sends, wins over the query, which stays in the URL.
    let answer = resume(server.address, "count=12&last_event_id=3", "10");
    assert_eq!(interpret(&answer.content).0, all[10..]);
    let unknown = [
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
    for id in unknown {
        // A space at the end of a field's value is not part of it.
        if id != "1 " {
            let answer = resume(server.address, "count=12", id);
            assert_eq!(interpret(&answer.content).0, all, "{id:?}");
        }
        let id = id.replace('+', "%2B").replace(' ', "%20").replace('é', "%C3%A9");
        let answer = order(server.address, &format!("count=12&last_event_id={id}"));
        assert_eq!(interpret(&answer.content).0, all, "{id:?}");
    }
    // A stream without ids cannot be resumed.
    let without = resume(server.address, "count=12&id=off", "5");
    assert_eq!(interpret(&without.content).0.len(), 12);
}

#[test]
fn a_client_that_has_heard_everything_gets_204_or_the_stream_again() {
    let server = start();
    for query in ["count=3", "count=3&complete=204", "count=3&garbage=on&bom=on", "count=3&cut=1"] {
        for answer in [resume(server.address, query, "3"), order(server.address, &format!("{query}&last_event_id=3"))] {
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
    // A client that hears the stream again resumes, so it is not cut.
    let again = resume(server.address, "count=3&complete=loop&cut=1", "3");
    assert_eq!(interpret(&again.content).0.len(), 3);
}

#[test]
fn a_stall_is_one_silence_on_an_open_connection() {
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
    // A stall does not change the bytes.
    assert_eq!(stream.bytes, play(server.address, "text=a+b+c+d"));
    // A stall has no heartbeat. The pauses have one.
    let beating = play(server.address, "text=a+b&stall=1&silence=60&interval=20&heartbeat=10");
    let expected = format!("{OPENING}id: 1\ndata: a\n\n:\nid: 2\ndata: b\n\n:\n");
    assert_eq!(String::from_utf8_lossy(&beating), expected);

    // A client that resumes meets no stall. It would last ten minutes.
    let started = Instant::now();
    let query = "text=a+b+c+d&stall=2&silence=600000";
    let answer = resume(server.address, query, "1");
    assert_eq!(data(&interpret(&answer.content).0), ["b", "c", "d"]);
    let answer = resume(server.address, query, "0");
    assert_eq!(interpret(&answer.content).0.len(), 4);
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn each_event_leaves_after_its_interval_and_not_before() {
    let server = start();
    let interval = Duration::from_millis(200);
    let started = Instant::now();
    let mut stream = Stream::open(server.address, "/lab?text=a+b+c+d&interval=200", &[]);
    let mut arrived = Vec::new();
    while stream.next().is_some() {
        arrived.push(started.elapsed());
    }
    assert_eq!(arrived.len(), 4);
    // There are three pauses between the first event and the last, and one behind it.
    assert!(arrived[3] >= interval * 3, "{arrived:?}");
    assert!(started.elapsed() >= interval * 4, "{arrived:?}");
    // The first event does not wait for the second, which is a minute away.
    let mut stream = Stream::open(server.address, "/lab?text=a+b&interval=60000", &[]);
    assert_eq!(stream.next().expect("it is sent").data, "a");
}

#[test]
fn a_status_replaces_the_stream_and_a_type_its_media_type() {
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
        assert_eq!(answer.content, stream, "the bytes are the same");
    }
}

#[test]
fn a_redirect_leads_to_the_same_stream_and_its_location_is_encoded() {
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
                assert!(location.starts_with("lab?"), "{location}");
                assert!(!location.contains("redirect"), "{location}");
                assert_eq!(answer.field("set-cookie"), None);
                assert_eq!(answer.field("cache-control"), Some("no-store"));
                let direct = query.replace(&format!("redirect={code}"), "");
                let led_to = ask(server.address, "GET", &format!("/{location}"), &[], "");
                let direct = order(server.address, &direct);
                assert_eq!((led_to.status, led_to.content), (direct.status, direct.content), "{query}");
                assert!(led_to.head.contains("Content-Type: text/"), "{}", led_to.head);
            }
        }
    }
    // A query that is refused is refused before the redirect.
    assert_eq!(order(server.address, "redirect=302&count=0").status, 400);
}

#[test]
fn a_browser_without_parameters_is_redirected_to_the_page_and_a_program_is_not() {
    let server = start();
    let browser = [("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")];
    for method in ["GET", "HEAD"] {
        for target in ["/lab", "/lab?"] {
            let answer = ask(server.address, method, target, &browser, "");
            assert_eq!(answer.status, 302, "{method} {target}");
            assert_eq!(answer.field("location"), Some("./#lab"));
            assert_eq!(answer.field("vary"), Some("Accept"));
        }
    }
    let answer = ask(server.address, "GET", "/lab?count=1&interval=0", &browser, "");
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
    for accept in ["text/event-stream", "*/*", ""] {
        let mut stream = Stream::open(server.address, "/lab", &[("Accept", accept)]);
        assert_eq!((stream.answer.status, stream.answer.field("vary")), (200, Some("Accept")));
        assert_eq!(stream.next().expect("it is the words").data, "The");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(server.address, method, "/lab?count=1", &[], "");
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD, OPTIONS")));
    }
}

#[test]
fn a_page_of_any_origin_can_read_every_answer() {
    let server = start();
    let origin = [("Origin", "https://elsewhere.example")];
    for query in ["count=1&interval=0", "status=500", "redirect=307", "count=0", "count=1&last_event_id=1"] {
        let answer = ask(server.address, "GET", &format!("/lab?{query}"), &origin, "");
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"), "{query}");
    }
    let stream = ask(server.address, "GET", "/lab?count=1&interval=0", &origin, "");
    assert_eq!(stream.field("cache-control"), Some("no-store, no-transform"));
    assert_eq!(stream.field("x-accel-buffering"), Some("no"));
    assert_eq!(stream.field("connection"), Some("close"));
    assert_eq!(stream.field("content-length"), None);
}

/// A client that watches a line.
struct Watch {
    stream: Stream,
    /// The pieces that were shown so far, with the part that each belongs to.
    shown: Vec<(String, Vec<u8>)>,
}

impl Watch {
    fn open(address: SocketAddr, line: &str) -> Watch {
        let stream = Stream::open(address, &format!("/lab/lines/{line}"), &[]);
        assert_eq!(stream.answer.status, 200, "{:?}", stream.answer);
        let shown = Vec::new();
        Watch { stream, shown }
    }

    /// All bytes that were shown, once there are so many.
    fn until(&mut self, bytes: usize) -> Vec<u8> {
        self.until_shown(|shown| shown.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= bytes)
    }

    /// All bytes that were shown, once there are enough.
    fn until_shown(&mut self, is_enough: impl Fn(&[(String, Vec<u8>)]) -> bool) -> Vec<u8> {
        while !is_enough(&self.shown) {
            let message = self.stream.next().expect("it goes on");
            self.shown.push((message.event_type, decode_base64(&message.data)));
        }
        self.shown.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}

/// All bytes that a client of a stream receives, head included.
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
fn a_watcher_of_a_line_sees_each_byte_of_its_streams() {
    let server = start();
    let address = server.address;
    for (number, query) in COMBINATIONS.iter().enumerate() {
        let mut watches = [(); 2].map(|()| Watch::open(address, &format!("line{number}")));
        let pause = if query.contains("interval=") { "" } else { "&interval=0" };
        let query = format!("{query}{pause}&line=line{number}");
        let mut received = receive(address, &query, None);
        // Another stream on the same line, which resumes.
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
        // A watcher sees only streams that begin later, and none of another line.
        let mut watch = Watch::open(address, &format!("line{number}"));
        let received = receive(address, &query, None);
        assert!(watch.until(received.len()) == received, "{query} once more");
    }
}

#[test]
fn a_frame_leaves_in_pieces_of_the_size_that_chunk_says() {
    let server = start();
    for size in [1, 2, 3, 7, 64] {
        let mut watch = Watch::open(server.address, "pieces");
        let query =
            format!("count=4&lines=2&text=%F0%9F%98%80&newline=crlf&bom=on&interval=0&chunk={size}&line=pieces");
        let mut received = receive(server.address, &query, None);
        assert!(watch.until(received.len()) == received);
        // The opening has no blank line behind it, and is a frame of its own all the same.
        let content = received.split_off(watch.shown[0].1.len());
        let opening = "\u{feff}: newswire\r\nretry: 2000\r\n";
        let (opening, events) = content.split_at(opening.len());
        let frames = [&[opening][..], &events.chunks(events.len() / 4).collect::<Vec<_>>()].concat();
        let expected: Vec<&[u8]> = frames.iter().flat_map(|frame| frame.chunks(size)).collect();
        let pieces = watch.shown.iter().filter(|(part, _)| part == "bytes");
        let pieces: Vec<&[u8]> = pieces.map(|(_, bytes)| bytes.as_slice()).collect();
        assert_eq!(pieces, expected);
    }
}

#[test]
fn a_watcher_that_reads_sees_the_whole_of_a_large_frame() {
    let server = start();
    let address = server.address;
    for size in [300_000, 700_000, 1_500_000] {
        let mut watch = Watch::open(address, "large");
        let large = format!("count=1&interval=0&size={size}&line=large");
        // With a small stream before and behind it, missing bytes are noticed.
        let small = "count=1&interval=0&line=large";
        let player = thread::spawn(move || [small, &large, small].map(|query| receive(address, query, None)));
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
fn a_watcher_sees_nothing_of_a_head_request() {
    let server = start();
    let mut watch = Watch::open(server.address, "head");
    let mut socket = connect(server.address);
    let request = "HEAD /lab?count=1&interval=0&line=head HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("the server reads");
    let mut received = Vec::new();
    socket.read_to_end(&mut received).expect("it ends");
    assert!(received.ends_with(b"\r\n\r\n"));
    let received = receive(server.address, "count=1&interval=0&line=head", None);
    let seen = watch.until(received.len());
    assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(&received));
}

#[test]
fn cutting_a_line_ends_its_streams_and_their_clients_can_resume() {
    let server = start();
    let address = server.address;
    let cut = |line: &str| ask(address, "DELETE", &format!("/lab/lines/{line}"), &[], "");
    assert_eq!(cut("unused").status, 404);
    assert_eq!(cut(".no").status, 404);

    // In a pause, in a silence, between two heartbeats.
    for query in ["interval=60000", "interval=0&stall=1&silence=600000", "interval=60000&heartbeat=20"] {
        let target = format!("/lab?count=5&line=cut&{query}");
        let mut streams = [(); 2].map(|()| Stream::open(address, &target, &[]));
        for stream in &mut streams {
            assert_eq!(stream.next().expect("it begins").data, "The");
        }
        assert_eq!(cut("cut").status, 204);
        for mut stream in streams {
            assert_eq!(stream.next(), None, "{query}");
        }
        // A client that resumes on the same line is not cut.
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

    // Streams on another line go on.
    let mut other = Stream::open(address, "/lab?count=2&interval=300&line=other", &[]);
    other.next().expect("it begins");
    assert_eq!(cut("cut").status, 204);
    assert_eq!(other.next().expect("it goes on").data, "quick");
}

#[test]
fn a_stream_without_pauses_can_be_cut_too() {
    let server = start();
    let whole = 1000 * 60_000;
    let mut stream = connect(server.address);
    let request = "GET /lab?count=1000&size=60000&interval=0&line=flood HTTP/1.0\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the server reads");
    stream.read_exact(&mut [0; 1000]).expect("it flows");
    // The stream is larger than the buffers of the sockets: the server is still writing.
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
fn clients_that_leave_in_a_silence_are_noticed_long_before_it_ends() {
    let server = start();
    let targets = [
        ("/lab?count=2&interval=0&stall=1&silence=600000", &b"data: The\n\n"[..]),
        ("/lab?count=2&interval=60000", b"data: The\n\n"),
        ("/lab?count=2&interval=60000&newline=crlf&chunk=3&line=left", b"data: The\r\n\r\n"),
        ("/lab/lines/unused", b"\n"),
    ];
    for (target, end) in targets {
        for closes_its_half_first in [false, true] {
            // At most eight watch a line.
            let count = if target.contains("lines") { 8 } else { 20 };
            let streams: Vec<Stream> = (0..count)
                .map(|_| {
                    let mut stream = Stream::open(server.address, target, &[]);
                    // A close with unread bytes is a reset, which is noticed at once: this client has read everything.
                    stream.read_until(|bytes| bytes.ends_with(end));
                    stream
                })
                .collect();
            assert_eq!(server.metric("newswire_connections"), count + 1);
            if closes_its_half_first {
                for stream in &streams {
                    stream.socket().shutdown(Shutdown::Write).expect("it is open");
                }
            }
            drop(streams);
            eventually(target, || server.metric("newswire_connections") == 1);
        }
    }
}

#[test]
fn a_client_that_closes_only_its_half_gets_the_whole_stream() {
    let server = start();
    for (newline, comment) in [("lf", "\n\n:\n"), ("crlf", "\r\n\r\n:\r\n")] {
        let mut socket = connect(server.address);
        let target = format!("/lab?text=a+b+c&interval=1500&newline={newline}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("the server reads");
        socket.shutdown(Shutdown::Write).expect("it is open");
        let answer = Answer::read(&mut BufReader::new(socket), "GET").expect("the server answers");
        assert_eq!(data(&interpret(&answer.content).0), ["a", "b", "c"]);
        // Each second of a pause has a comment, whose answer would tell that the client is gone.
        assert!(answer.text().contains(comment), "{answer:?}");
    }
}

/// The memory of the server, in KiB.
pub(crate) fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("the server runs");
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    value.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).expect("it is a number")
}

/// What the allocator and the threads of the server may take besides.
const SLACK_KIB: u64 = 4 * 1024;

#[test]
fn a_stream_costs_at_most_128_kib_whatever_it_plays() {
    let (letters, word) = ("a+".repeat(3_900), "w".repeat(7_900));
    let items = "data=x&".repeat(1_130);
    let unread = 2_000;
    for (query, read_bytes) in [
        ("size=4194304&count=15&interval=0", unread),
        ("size=4194304&count=15&interval=0&chunk=65536&newline=crlf", unread),
        ("size=1000000&lines=1000&count=60&interval=0", unread),
        ("binary=3145728&count=15&interval=0", unread),
        (&format!("text={word}&lines=1000&count=8&interval=0"), unread),
        (&format!("text={letters}&size=65000&count=1000&interval=0&chunk=65536"), unread),
        (&format!("{items}count=60000&interval=0"), unread),
        // Clients that read, and a server that pauses behind a large frame.
        ("size=500000&count=2&interval=60000", 500_000),
        ("binary=300000&count=2&interval=60000&chunk=65000", 400_000),
    ] {
        let server = start();
        let target = format!("/lab?{query}");
        drop(Stream::open(server.address, "/lab", &[]));
        let before = resident_kib(&server);
        let sockets: Vec<TcpStream> = (0..100)
            .map(|_| {
                let mut socket = connect(server.address);
                let request = format!("GET {target} HTTP/1.0\r\n\r\n");
                socket.write_all(request.as_bytes()).expect("the server reads");
                socket
            })
            .collect();
        for mut socket in &sockets {
            let mut begin = vec![0; read_bytes];
            socket.read_exact(&mut begin).expect("it is played");
            assert!(begin.starts_with(b"HTTP/1.1 200 "), "{query}");
        }
        let grown = resident_kib(&server).saturating_sub(before);
        assert!(grown <= 100 * 128 + SLACK_KIB, "{grown} KiB: {:.80}", query);
    }
}

#[test]
fn a_watcher_that_does_not_read_costs_at_most_128_kib_and_learns_how_many_bytes_it_missed() {
    let server = start();
    let address = server.address;
    let before = resident_kib(&server);
    let mut watches = [(); 2].map(|()| Watch::open(address, "slow").stream);
    let received = receive(address, "size=1048576&count=15&interval=0&line=slow", None);
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown <= 3 * 128 + SLACK_KIB, "{grown} KiB");
    for watch in &mut watches {
        let (mut shown, mut missed, mut last) = (0, 0, Vec::new());
        while shown + missed < received.len() {
            let message = watch.next().expect("it goes on");
            if message.event_type == "gap" {
                let bytes = message.data.strip_prefix("{\"bytes\":");
                let bytes = bytes.and_then(|bytes| bytes.strip_suffix('}')?.parse::<usize>().ok());
                missed += bytes.unwrap_or_else(|| panic!("{message:?}"));
            } else {
                last = decode_base64(&message.data);
                shown += last.len();
            }
        }
        assert_eq!(shown + missed, received.len());
        assert!(missed > 0, "the sockets took all of it");
        assert!(received.ends_with(&last), "the newest pieces are kept");
    }
}

#[test]
fn watchers_that_read_nothing_delay_a_stream_once_and_not_one_after_the_other() {
    let server = start();
    let watches: Vec<Watch> = (0..8).map(|_| Watch::open(server.address, "slow")).collect();
    let mut socket = connect(server.address);
    let request = "GET /lab?size=1048576&count=15&interval=0&line=slow HTTP/1.0\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("the server reads");
    let (mut piece, mut waited) = (vec![0; 1 << 20], Duration::ZERO);
    loop {
        let begun = Instant::now();
        let bytes = socket.read(&mut piece).expect("it is played");
        // A busy machine takes its time, too, but not in pauses like this.
        waited += Some(begun.elapsed()).filter(|time| time.as_millis() > 700).unwrap_or_default();
        if bytes == 0 {
            break;
        }
    }
    drop(watches);
    // A stream waits for a second. For one watcher after the other it would be eight.
    assert!(waited > Duration::from_millis(700), "no queue was full");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[test]
fn streams_in_small_pieces_share_a_rate_that_leaves_the_machine_free() {
    let server = start();
    let begun = Instant::now();
    let order = |_| {
        let mut socket = connect(server.address);
        let request = "GET /lab?size=1000000&count=3&chunk=1 HTTP/1.0\r\n\r\n";
        socket.write_all(request.as_bytes()).expect("the server reads");
        socket
    };
    let sockets: Vec<TcpStream> = (0..200).map(order).collect();
    let closing: Vec<TcpStream> =
        sockets.iter().map(|socket| socket.try_clone().expect("there are descriptors")).collect();
    let readers = sockets.into_iter().map(|mut socket| {
        thread::spawn(move || {
            read_until(&mut socket, "\r\n\r\n");
            std::io::copy(&mut socket, &mut std::io::sink())
        })
    });
    let readers: Vec<_> = readers.collect();
    thread::sleep(Duration::from_secs(3));
    closing.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    let bytes = readers.into_iter().map(|reader| reader.join().expect("it reads"));
    let chunks: u64 = bytes.map(|bytes| bytes.unwrap_or_default()).sum();
    let most = begun.elapsed().as_secs_f64() * 10_000.0;
    assert!(chunks > 0, "they are played");
    assert!((chunks as f64) < most * 1.1, "{chunks} chunks, {most} at most");
}

#[test]
fn a_watcher_of_a_silent_line_gets_heartbeats() {
    let server = start();
    let mut watch = Stream::open(server.address, "/lab/lines/silent", &[]);
    watch.read_until(|bytes| bytes.ends_with(b"\n:\n:\n"));
}

#[test]
fn a_line_has_at_most_eight_watchers() {
    let server = start();
    let mut watches: Vec<Watch> = (0..8).map(|_| Watch::open(server.address, "busy")).collect();
    let status = || Stream::open(server.address, "/lab/lines/busy", &[]).answer.status;
    assert_eq!(status(), 503);
    watches.pop();
    eventually("a watcher has left", || status() == 200);
}

/// A page of another origin can show an answer in a frame: its bytes must not be a page of this server.
#[test]
fn every_answer_of_the_laboratory_is_sandboxed() {
    let server = start();
    let _stream = Stream::open(server.address, "/lab?interval=60000&line=boxed", &[]);
    let html = "<script>alert(1)</script>";
    for (method, target, status) in [
        ("GET", &*format!("/lab?type=text/html&text={html}&interval=0"), 200),
        ("GET", "/lab?type=image/svg%2Bxml&text=x&interval=0", 200),
        ("GET", "/lab?count=1&interval=0", 200),
        ("HEAD", "/lab", 200),
        ("GET", "/lab?status=404&type=text/html", 404),
        ("GET", "/lab?status=200&count=1&interval=0", 200),
        ("GET", "/lab?redirect=302", 302),
        ("GET", "/lab?count=1&last_event_id=1", 204),
        ("GET", "/lab?count=0", 400),
        ("GET", &format!("/lab?{html}=1"), 400),
        ("HEAD", "/lab/lines/boxed", 200),
        ("DELETE", "/lab/lines/boxed", 204),
    ] {
        let answer = ask(server.address, method, target, &[], "");
        assert_eq!(answer.status, status, "{method} {target}");
        let policy = answer.field("content-security-policy");
        assert_eq!(policy, Some("sandbox; default-src 'none'"), "{method} {target}");
        let sniffing = answer.field("x-content-type-options");
        assert_eq!(sniffing, Some("nosniff"), "{method} {target}");
    }
}

#[test]
fn data_is_sent_as_it_is_one_event_for_each() {
    let server = start();
    let json = "%7B%22a%22:+%5B1%5D%7D";
    for (query, expected) in [
        (format!("data={json}&data=%5BDONE%5D"), "id: 1\ndata: {\"a\": [1]}\n\nid: 2\ndata: [DONE]\n\n"),
        ("data=".to_owned(), "id: 1\ndata: \n\n"),
        ("data=a%0Db%0D%0A%0Ac%0A".to_owned(), "id: 1\ndata: a\ndata: b\ndata: \ndata: c\ndata: \n\n"),
        ("data=+a&data=b&count=3&id=off".to_owned(), "data:  a\n\ndata: b\n\ndata:  a\n\n"),
    ] {
        let expected = [OPENING, expected].concat();
        assert_eq!(String::from_utf8_lossy(&play(server.address, &query)), expected, "{query}");
    }
    for query in ["data=a&text=b", "data=a&size=3", "data=a&lines=2", "data=a&binary=1"] {
        let (status, sentence) = judge(server.address, query);
        assert_eq!(status, 400, "{query}");
        assert!(sentence.starts_with("data is sent as it is"), "{sentence}");
    }
}

#[test]
fn a_text_can_arrive_one_character_at_a_time() {
    let server = start();
    // The text is 你好。a b, then CR LF, then c. A character may have several bytes, a space is one, and so is a line end.
    let query = "text=%E4%BD%A0%E5%A5%BD%E3%80%82a+b%0D%0Ac&split=char&id=off";
    let expected = "data: 你\n\ndata: 好\n\ndata: 。\n\ndata: a\n\ndata:  \n\ndata: b\n\ndata: \ndata: \n\ndata: c\n\n";
    let stream = play(server.address, query);
    assert_eq!(String::from_utf8_lossy(&stream), [OPENING, expected].concat());
    let words = play(server.address, "text=%E4%BD%A0+a&split=word&id=off");
    let expected = [OPENING, "data: 你\n\ndata: a\n\n"].concat();
    assert_eq!(String::from_utf8_lossy(&words), expected);
    for other in ["data=a", "size=3", "binary=1"] {
        let (status, sentence) = judge(server.address, &format!("split=char&{other}"));
        assert_eq!(status, 400, "{other}");
        assert!(sentence.starts_with("split=char is for text"), "{sentence}");
    }
}

#[test]
fn jitter_makes_pauses_longer_and_shorter_and_does_not_change_the_bytes() {
    let server = start();
    let target = "/lab?count=6&interval=400&jitter=100";
    let mut stream = Stream::open(server.address, target, &[]);
    let (mut arrived, mut pauses) = (None, Vec::new());
    while stream.next().is_some() {
        let now = Instant::now();
        pauses.extend(arrived.replace(now).map(|before| now - before));
    }
    assert_eq!(stream.bytes, play(server.address, "count=6"));
    // The sum of the pauses is about the same; a slow machine only makes them longer.
    let interval = Duration::from_millis(400);
    assert!(pauses.iter().any(|pause| *pause > interval + interval / 4), "{pauses:?}");
    assert!(pauses.iter().any(|pause| *pause < interval - interval / 8), "{pauses:?}");
}

/// The page of parameters, the refusals and the parser come from one table, or are compared with it here.
#[test]
fn the_page_of_parameters_has_a_row_for_each_with_the_range_that_the_server_names() {
    let server = start();
    let page = ask(server.address, "GET", "/lab.txt", &[], "").text().to_owned();
    let (_, known) = judge(server.address, "unknown=1");
    let known = known.trim_end().strip_prefix("unknown is unknown. The parameters are ");
    let known = known.and_then(|known| known.strip_suffix('.')).expect("it says which there are");
    let known: Vec<&str> = known.split(", ").flat_map(|name| name.split(" and ")).collect();
    assert_eq!(known, PARAMETERS);
    for name in known.iter().filter(|name| !name.to_lowercase().starts_with("last")) {
        let row = page.lines().find(|line| line.split(' ').next() == Some(*name));
        let row = row.unwrap_or_else(|| panic!("there is no row for {name}"));
        let (status, sentence) = judge(server.address, &format!("{name}=%00"));
        let values = sentence.trim_end_matches(['.', '\n']);
        if let Some((_, range)) = values.split_once(" from ") {
            assert!(row.contains(range), "{row}: {sentence}");
        } else if status == 400 && !values.contains(" a ") {
            let (_, choices) = values.split_once(" is ").expect("it names the parameter");
            let mut choices = choices.split(", ").flat_map(|choices| choices.split(" or "));
            assert!(choices.all(|choice| row.contains(choice)), "{row}: {sentence}");
        }
    }
}

#[test]
fn lines_are_bounded_and_unused_lines_make_room() {
    let server = start();
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
    // Any number of lines, one after the other.
    for number in 0..300 {
        assert_eq!(status(&format!("used{number}")), 200);
    }
    // As many as there can be at the same time.
    let watches: Vec<Watch> = (0..256).map(|number| Watch::open(address, &format!("held{number}"))).collect();
    assert_eq!(status("one-more"), 503);
    assert_eq!(status("held7"), 200);
    drop(watches);
    eventually("a line is free", || status("one-more") == 200);
}

#[test]
fn a_stream_on_an_unwatched_line_has_the_same_bytes() {
    let server = start();
    for query in COMBINATIONS {
        let plain = play(server.address, query);
        let on_a_line = play(server.address, &format!("{query}&line=unwatched"));
        assert!(plain == on_a_line, "{query}");
    }
}

#[test]
fn many_streams_at_once_do_not_disturb_each_other() {
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
fn a_refusal_leaves_the_connection_open_for_the_next_request() {
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
