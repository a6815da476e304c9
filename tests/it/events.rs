//! Events to bytes and back: the encoder, and the parser held against the standard's algorithm written a second time.

use newswire::Event;
use newswire::sse::{EventTooLarge, Fields, Message, Parser, base64};
use std::borrow::Cow;
use std::time::Duration;

/// The results of a stream: the messages, the last event ID string, the reconnection time.
pub(crate) type Interpretation = (Vec<Message>, String, Option<Duration>);

/// The standard's algorithm (HTML, 9.2.6), written a second time, as simply as possible and for a whole stream. A parser
/// that takes the stream in pieces must have the same results.
pub(crate) fn interpret(stream: &[u8]) -> Interpretation {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    // Text without a line end is not a line yet.
    lines.pop();

    let (mut data, mut event_type, mut id) = (String::new(), String::new(), String::new());
    let (mut messages, mut last_event_id, mut reconnection_time) = (Vec::new(), String::new(), None);
    for line in lines {
        if line.is_empty() {
            last_event_id.clone_from(&id);
            if let Some(data) = data.strip_suffix('\n') {
                let named = [event_type.as_str(), "message"].into_iter().find(|name| !name.is_empty());
                messages.push(Message {
                    event_type: named.unwrap_or_default().to_owned(),
                    data: data.to_owned(),
                    last_event_id: last_event_id.clone(),
                });
            }
            data.clear();
            event_type.clear();
            continue;
        }
        let (field, value) = match line.find(':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, ""),
        };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data = data + value + "\n",
            "event" => event_type = value.to_owned(),
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()) => {
                // A number that is too large counts as the largest one.
                let milliseconds = value.parse().unwrap_or(u64::MAX);
                reconnection_time = Some(Duration::from_millis(milliseconds));
            }
            _ => {}
        }
    }
    (messages, last_event_id, reconnection_time)
}

/// The parser's results of a stream that arrives in these pieces.
pub(crate) fn parse<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Interpretation {
    let mut parser = Parser::new();
    let mut messages = Vec::new();
    for piece in pieces {
        messages.extend(parser.feed(piece).expect("it is far below the limit"));
    }
    (messages, parser.last_event_id().to_owned(), parser.reconnection_time())
}

/// Whole, byte by byte, and in every two pieces.
#[track_caller]
fn parses_alike(stream: &[u8], expected: &Interpretation) {
    let text = String::from_utf8_lossy(stream);
    assert_eq!(&parse([stream]), expected, "{text:?} whole");
    assert_eq!(&parse(stream.chunks(1)), expected, "{text:?} byte by byte");
    for at in 0..=stream.len() {
        let (before, after) = stream.split_at(at);
        assert_eq!(&parse([before, after]), expected, "{text:?} cut at {at}");
    }
}

/// Calls `with` for every string of up to `length` of these tokens.
pub(crate) fn every_string(tokens: &[&str], length: usize, with: &mut impl FnMut(&str)) {
    fn extend(string: &mut String, tokens: &[&str], left: usize, with: &mut impl FnMut(&str)) {
        with(string);
        if left == 0 {
            return;
        }
        for token in tokens {
            let before = string.len();
            string.push_str(token);
            extend(string, tokens, left - 1, with);
            string.truncate(before);
        }
    }
    extend(&mut String::new(), tokens, length, with);
}

/// A message of the default type.
fn message(data: &str, last_event_id: &str) -> Message {
    Message { event_type: "message".to_owned(), data: data.to_owned(), last_event_id: last_event_id.to_owned() }
}

/// Characters that have a meaning somewhere in the format, or take several bytes.
const AWKWARD: [&str; 9] = ["\r", "\n", "\0", "\u{feff}", " ", ":", "é", "😀", "d"];

#[test]
fn any_data_arrives_with_its_line_ends_as_lf() {
    every_string(&AWKWARD, 5, &mut |data| {
        let stream = Event::new(data).to_string();
        let expected = data.replace("\r\n", "\n").replace('\r', "\n");
        let arrived = parse([stream.as_bytes()]);
        assert_eq!(arrived, (vec![message(&expected, "")], String::new(), None), "{data:?} as {stream:?}");
    });
}

#[test]
fn any_data_arrives_however_it_is_cut() {
    every_string(&AWKWARD, 3, &mut |data| {
        let stream = Event::new(data).to_string();
        let expected = data.replace("\r\n", "\n").replace('\r', "\n");
        parses_alike(stream.as_bytes(), &(vec![message(&expected, "")], String::new(), None));
    });
}

#[test]
fn ids_and_names_arrive_as_they_are_or_are_refused() {
    every_string(&AWKWARD, 4, &mut |text| {
        let is_one_line = !text.contains(['\r', '\n', '\0']);
        let with_id = Event::new("data").id(text);
        let with_name = Event::new("data").name(text);
        assert_eq!(with_id.is_ok(), is_one_line, "id {text:?}");
        assert_eq!(with_name.is_ok(), is_one_line, "name {text:?}");
        if let (Ok(with_id), Ok(with_name)) = (with_id, with_name) {
            let (messages, last_event_id, _) = parse([with_id.to_string().as_bytes()]);
            assert_eq!(messages, [message("data", text)]);
            assert_eq!(last_event_id, text);
            let (messages, _, _) = parse([with_name.to_string().as_bytes()]);
            // "If the event type buffer has a value other than the empty string, change the type ... to equal the value"
            let expected = if text.is_empty() { "message" } else { text };
            assert_eq!(messages[0].event_type, expected);
            assert_eq!(messages[0].data, "data");
        }
    });
}

#[test]
fn a_comment_dispatches_nothing_and_disturbs_nothing() {
    let following = Event::new("data").to_string();
    every_string(&AWKWARD, 4, &mut |comment| {
        let stream = Event::default().comment(comment).to_string() + &following;
        let expected = (vec![message("data", "")], String::new(), None);
        assert_eq!(parse([stream.as_bytes()]), expected, "{comment:?}");
    });
}

#[test]
fn every_combination_of_fields_arrives_with_one_blank_line_if_there_is_data_and_none_if_not() {
    let texts = [None, Some(""), Some(" "), Some(":"), Some("é: 1"), Some("7")];
    let times = [None, Some(0), Some(1), Some(60_000)];
    let contents = [None, Some(""), Some("\n"), Some(" data: x\r\r\nid: 9\n\n")];
    for id in texts {
        for name in texts {
            for time in times {
                for data in contents {
                    let mut event = data.map_or(Event::default(), Event::new).comment("c");
                    if let Some(id) = id {
                        event = event.id(id).expect("it is one line");
                    }
                    if let Some(name) = name {
                        event = event.name(name).expect("it is one line");
                    }
                    if let Some(time) = time {
                        event = event.reconnection_time(Duration::from_millis(time));
                    }
                    let block = event.to_string();
                    let blank_line = data.map(|_| block.len() - 2);
                    assert_eq!(block.find("\n\n"), blank_line, "in {block:?}");
                    assert!(data.is_some() || !block.contains("event:"), "{block:?}");
                    let fields = event.fields();
                    assert_eq!((fields.id, fields.name, fields.data), (id, name, data));
                    let (messages, last_event_id, reconnection_time) = parse([block.as_bytes()]);
                    // Without data, the id counts from the next event on, and the name for no event.
                    let id_now = id.filter(|_| data.is_some()).unwrap_or_default();
                    assert_eq!(last_event_id, id_now, "{block:?}");
                    assert_eq!(reconnection_time, time.map(Duration::from_millis));
                    let (following, ..) = parse([block.as_bytes(), b"data: x\n\n"]);
                    let expected = message("x", id.unwrap_or_default());
                    assert_eq!(following.last(), Some(&expected), "after {block:?}");
                    let expected = data.map(|data| Message {
                        event_type: name.filter(|n| !n.is_empty()).unwrap_or("message").into(),
                        data: data.replace("\r\n", "\n").replace('\r', "\n"),
                        last_event_id: id.unwrap_or_default().into(),
                    });
                    assert_eq!(messages, Vec::from_iter(expected), "{block:?}");
                }
            }
        }
    }
}

#[test]
fn an_event_has_exactly_these_bytes() -> Result<(), Box<dyn std::error::Error>> {
    let second = Duration::from_secs(1);
    let cases = [
        (Event::new("The").id(1)?, "id: 1\ndata: The\n\n"),
        (Event::new(""), "data: \n\n"),
        (Event::new(" two"), "data:  two\n\n"),
        (Event::new("a\rb\r\nc\n"), "data: a\ndata: b\ndata: c\ndata: \n\n"),
        (Event::new("x").comment("c"), ": c\ndata: x\n\n"),
        (Event::new("x").data("y"), "data: y\n\n"),
        // Without data there is no blank line, and no name: it would be the name of the next event.
        (Event::default(), ""),
        (Event::default().comment("newswire"), ": newswire\n"),
        (Event::default().comment("a\rdata: b"), ": a\n: data: b\n"),
        (Event::default().comment("").id("7-0")?, ": \nid: 7-0\n"),
        (Event::default().name("n")?, ""),
        (Event::default().name("n")?.reconnection_time(second), "retry: 1000\n"),
        (Event::new("x").id("")?, "id: \ndata: x\n\n"),
        (Event::new("x").name("n")?.reconnection_time(second), "event: n\nretry: 1000\ndata: x\n\n"),
        // Milliseconds are whole, and never rounded up to a time that was not asked for.
        (Event::default().reconnection_time(Duration::from_micros(1999)), "retry: 1\n"),
    ];
    for (event, expected) in cases {
        assert_eq!(event.to_string(), expected);
        let mut frame = b"before".to_vec();
        event.encode(&mut frame);
        assert_eq!(frame, ["before", expected].concat().into_bytes());
    }
    Ok(())
}

#[test]
fn an_event_is_made_of_text_or_of_another_event() -> Result<(), Box<dyn std::error::Error>> {
    let made: [Event; 5] = [
        "x".into(),
        String::from("x").into(),
        (&String::from("x")).into(),
        Cow::Borrowed("x").into(),
        (&Event::new("x")).into(),
    ];
    assert!(made.iter().all(|event| *event == Event::new("x")), "{made:?}");
    let event = Event::new("x").comment("c").id(7)?.name("n")?;
    let expected =
        Fields { comment: Some("c"), id: Some("7"), name: Some("n"), reconnection_time: None, data: Some("x") };
    assert_eq!(event.fields(), expected);
    assert_eq!(Event::default().fields(), Fields::default());
    Ok(())
}

#[test]
fn the_names_that_browsers_and_channels_send_themselves_are_reserved() {
    let is_reserved = |name: &str| Event::new("x").name(name).map(|event| event.is_reserved());
    for name in ["open", "error", "end", "gap", "heartbeat"] {
        assert_eq!(is_reserved(name), Ok(true), "{name}");
        // Event types are case-sensitive.
        assert_eq!(is_reserved(&name.to_uppercase()), Ok(false), "{name}");
        // Some clients trim the type.
        for padded in [format!("{name} "), format!(" {name}"), format!("\t{name}\u{a0}")] {
            assert_eq!(is_reserved(&padded), Ok(true), "{padded:?}");
        }
        assert_eq!(is_reserved(&format!("{name} 2")), Ok(false), "{name}");
    }
    assert_eq!(is_reserved(""), Ok(false));
    assert!(!Event::new("end").is_reserved());
}

#[test]
fn text_that_would_forge_a_field_is_refused_or_stays_data() {
    for forged in ["1\ndata: x", "1\rdata: x", "1\r\n\r\ndata: x", "\n", "\r", "\0", "a\0b"] {
        assert!(Event::new("").id(forged).is_err(), "{forged:?}");
        assert!(Event::new("").name(forged).is_err(), "{forged:?}");
    }
    // U+0085, U+2028 and form feed end a line elsewhere, and none here.
    for harmless in ["a\u{85}data: x", "a\u{2028}data: x", "a\u{c}data: x", "a\u{b}data: x"] {
        let event = Event::new(harmless).id(harmless).and_then(|event| event.name(harmless));
        let stream = event.expect("it is one line").to_string();
        let (messages, _, _) = parse([stream.as_bytes()]);
        let expected =
            Message { event_type: harmless.to_owned(), data: harmless.to_owned(), last_event_id: harmless.to_owned() };
        assert_eq!(messages, [expected]);
    }
}

#[test]
fn the_examples_of_the_standard_have_the_results_that_it_gives() {
    let named = |event_type: &str, data: &str| Message { event_type: event_type.to_owned(), ..message(data, "") };
    let cases = [
        // HTML, 9.2.1
        (
            "data: This is the first message.\n\ndata: This is the second message, it\n\
             data: has two lines.\n\ndata: This is the third message.\n\n",
            vec![
                message("This is the first message.", ""),
                message("This is the second message, it\nhas two lines.", ""),
                message("This is the third message.", ""),
            ],
            "",
        ),
        (
            "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
            vec![named("add", "73857293"), named("remove", "2153"), named("add", "113411")],
            "",
        ),
        // 9.2.6: "causes an event message ... to be dispatched", its data in three lines
        ("data: YHOO\ndata: +2\ndata: 10\n\n", vec![message("YHOO\n+2\n10", "")], ""),
        // "contains four blocks": a comment, an id, an id that resets, a leading space
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            vec![message("first event", "1"), message("second event", ""), message(" third event", "")],
            "",
        ),
        // "the last still has to end with a blank line, the end of the stream is not enough"
        ("data: first event\nid: 1\n\ndata:  third event\n", vec![message("first event", "1")], "1"),
        // "fires two events": empty data, and a single newline; the last block is discarded
        ("data\n\ndata\ndata\n\ndata:", vec![message("", ""), message("\n", "")], ""),
        // "fires two identical events": the space after the colon is ignored
        ("data:test\n\ndata: test\n\n", vec![message("test", ""), message("test", "")], ""),
    ];
    for (stream, messages, last_event_id) in cases {
        for end in ["\n", "\r", "\r\n"] {
            let stream = stream.replace('\n', end);
            let expected = (messages.clone(), last_event_id.to_owned(), None);
            parses_alike(stream.as_bytes(), &expected);
            parses_alike(format!("\u{feff}{stream}").as_bytes(), &expected);
            assert_eq!(interpret(stream.as_bytes()), expected);
        }
    }
}

/// The streams of the web-platform-tests of EventSource, and the data that a browser makes of them.
pub(crate) fn web_platform_streams() -> Vec<(Vec<u8>, &'static [&'static str])> {
    let long = "x".repeat(2048);
    let comments = format!("data:1\r:\0\n:\r\ndata:2\n:{long}\rdata:3\n:data:fail\r:{long}\ndata:4\n\n");
    let cases: [(&[u8], &'static [&'static str]); 12] = [
        // format-bom: the second mark is part of a field name that nobody knows
        (b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n", &["1", "3"]),
        // format-bom-2: one mark is stripped, not two
        (b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\ndata:3\n\n", &["2", "3"]),
        (comments.as_bytes(), &["1\n2\n3\n4"]),
        // format-data-before-final-empty-line
        (b"retry:1000\ndata:test1\n\nid:test\ndata:test2", &["test1"]),
        // format-field-data
        (b"data:\n\ndata\ndata\n\ndata:test\n\n", &["", "\n", "test"]),
        // format-field-parsing
        (
            b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
            &["\0\n 2\n1\n3\n\n4"],
        ),
        // format-field-unknown
        (
            b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
            &["test\n\ntest"],
        ),
        // format-leading-space: one space, and no tab
        (b"data:\ttest\rdata: \ndata:test\n\n", &["\ttest\n\ntest"]),
        // format-newlines
        (b"data:test\r\ndata\ndata:test\r\n\r\n", &["test\n\ntest"]),
        // format-null-character
        (b"data:\0\n\n", &["\0"]),
        // format-utf-8: whatever the response's charset says
        ("data:ok…\n\n".as_bytes(), &["ok…"]),
        // event-data
        (b"data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n", &["msg\nmsg", "", "end"]),
    ];
    cases.map(|(stream, expected)| (stream.to_vec(), expected)).into()
}

#[test]
fn what_browsers_are_tested_with_comes_out_as_there() {
    for (stream, expected) in web_platform_streams() {
        let (messages, _, _) = parse([&*stream]);
        let data: Vec<_> = messages.iter().map(|message| message.data.as_str()).collect();
        assert_eq!(data, expected, "{:?}", String::from_utf8_lossy(&stream));
        parses_alike(&stream, &interpret(&stream));
    }
}

#[test]
fn every_short_stream_has_the_results_of_the_standards_algorithm() {
    const TOKENS: [&str; 11] = ["data", "id", "event", "retry", ":", " ", "\r", "\n", "\0", "7", "\u{feff}"];
    every_string(&TOKENS, 4, &mut |text| {
        for end in ["", "\n\n", "\rdata\r\r"] {
            let stream = format!("{text}{end}");
            let expected = interpret(stream.as_bytes());
            assert_eq!(parse([stream.as_bytes()]), expected, "{stream:?} whole");
            let bytewise = parse(stream.as_bytes().chunks(1));
            assert_eq!(bytewise, expected, "{stream:?} byte by byte");
        }
    });
}

#[test]
fn bytes_that_are_not_utf_8_are_replaced_wherever_they_are_cut() {
    // Each of these is replaced by a different number of U+FFFD (Encoding, 4.1: one for each maximal subpart).
    let bad: [&[u8]; 8] =
        [b"\xff", b"\xc0\xaf", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xf5\x80", b"\x80\x80", b"\xef\xbb"];
    for bytes in bad {
        for (before, after) in [("data: a", "b\n\n"), ("data: ", "\n\n"), ("", "\rdata: x\n\n")] {
            let stream = [before.as_bytes(), bytes, after.as_bytes()].concat();
            parses_alike(&stream, &interpret(&stream));
        }
    }
    let (messages, _, _) = parse([b"data: \xe2\x82\n\n".as_slice()]);
    assert_eq!(messages[0].data, "\u{fffd}");
}

#[test]
fn a_byte_order_mark_is_one_only_at_the_very_start() {
    let mark = "\u{feff}";
    for (stream, expected) in [
        (format!("{mark}data: x\n\n"), vec!["x"]),
        (format!("{mark}{mark}data: x\n\n"), vec![]),
        (format!("\n{mark}data: x\n\n"), vec![]),
        (format!(":\n{mark}data: x\n\n"), vec![]),
        (format!("data: {mark}x\n\n"), vec!["\u{feff}x"]),
        (format!("{mark}\ndata: x\n\n"), vec!["x"]),
        (format!("{mark}: comment\ndata: x\n\n"), vec!["x"]),
    ] {
        let interpretation = interpret(stream.as_bytes());
        let data: Vec<_> = interpretation.0.iter().map(|message| &message.data).collect();
        assert_eq!(data, expected, "{stream:?}");
        parses_alike(stream.as_bytes(), &interpretation);
    }
    // The stream of the next connection may begin with another.
    let mut parser = Parser::new();
    for _ in 0..2 {
        let messages = parser.feed("\u{feff}data: x\n\n".as_bytes());
        assert_eq!(messages.expect("it is small").len(), 1);
        parser.reconnect();
    }
}

#[test]
fn only_ascii_digits_are_a_reconnection_time() {
    for (field, expected) in [
        ("retry: 3000", Some(3000)),
        ("retry:3000", Some(3000)),
        ("retry: 0", Some(0)),
        ("retry: 007", Some(7)),
        ("retry: 18446744073709551615", Some(u64::MAX)),
        // "interpret the field value as an integer": one that is too large counts as the largest
        ("retry: 99999999999999999999999", Some(u64::MAX)),
        ("retry: 1000x", None),
        ("retry: x1000", None),
        ("retry: -1", None),
        ("retry: +1", None),
        ("retry: 1.5", None),
        ("retry: 1e3", None),
        ("retry: 0x10", None),
        ("retry:  1", None),
        ("retry: 1 ", None),
        ("retry: ٣", None),
        ("retry: 1\0", None),
        ("retry:", None),
        ("retry", None),
        ("Retry: 1", None),
        (" retry: 1", None),
    ] {
        let expected = expected.map(Duration::from_millis);
        // At once, without waiting for the end of the block: it is no part of an event.
        let stream = format!("{field}\n");
        assert_eq!(parse([stream.as_bytes()]).2, expected, "{field:?}");
        // What is no time leaves the one there was.
        let stream = format!("retry: 5\n{field}\n\n");
        let kept = expected.or(Some(Duration::from_millis(5)));
        parses_alike(stream.as_bytes(), &(Vec::new(), String::new(), kept));
    }
}

#[test]
fn the_last_event_id_is_set_by_a_blank_line_and_outlives_the_connection() {
    let mut parser = Parser::new();
    let mut feed = |piece: &str, id: &str| {
        let messages = parser.feed(piece.as_bytes()).expect("it is small");
        assert_eq!(parser.last_event_id(), id, "after {piece:?}");
        messages
    };
    feed("id: 1\ndata: x\n", "");
    assert_eq!(feed("\n", "1"), [message("x", "1")]);
    // A block with only an id moves the last event ID without an event.
    assert_eq!(feed("id: 2\n\n", "2"), []);
    assert_eq!(feed("data: y\n\n", "2"), [message("y", "2")]);
    // "If the field value does not contain U+0000 NULL ... Otherwise, ignore the field."
    assert_eq!(feed("id: 3\0\ndata: z\n\n", "2"), [message("z", "2")]);
    assert_eq!(feed("id: 3\nid: a\0\n\n", "3"), []);
    assert_eq!(feed("id\n\n", ""), []);
    assert_eq!(feed("id:  4 \n\n", " 4 "), []);
    // Pending data is discarded with its connection, and so is the id that came with it.
    feed("retry: 9\nid: 5\nevent: e\ndata: lost", " 4 ");
    parser.reconnect();
    assert_eq!(parser.last_event_id(), " 4 ");
    assert_eq!(parser.reconnection_time(), Some(Duration::from_millis(9)));
    let messages = parser.feed(b"\ndata: new\n\n").expect("it is small");
    assert_eq!(messages, [message("new", " 4 ")]);
    // A LF is the end of a CR only within one connection.
    parser.feed(b"data: a\r").expect("it is small");
    parser.reconnect();
    assert_eq!(parser.feed(b"\ndata: b\n\n").expect("it is small"), [message("b", " 4 ")]);
}

#[test]
fn an_event_beyond_the_limit_is_an_error_and_one_at_it_is_not() {
    let feed = |limit: usize, stream: &str, step: usize| {
        let mut parser = Parser::with_limit(limit);
        let pieces = stream.as_bytes().chunks(step);
        pieces
            .map(|piece| parser.feed(piece))
            .collect::<Result<Vec<_>, EventTooLarge>>()
            .map(|messages| messages.concat().len())
    };
    for step in [1, 7, 1 << 20] {
        // One line: "data: " and 94 more are a hundred.
        let line = |length: usize| format!("data: {}\n\n", "x".repeat(length - "data: ".len()));
        assert_eq!(feed(100, &line(100), step), Ok(1));
        assert_eq!(feed(100, &line(101), step), Err(EventTooLarge));
        // A line that never ends, and one that is only a comment, take memory all the same.
        assert_eq!(feed(100, &"x".repeat(101), step), Err(EventTooLarge));
        assert_eq!(feed(100, &format!(":{}\n", "x".repeat(100)), step), Err(EventTooLarge));
        // Many small lines: each counts with its LF.
        assert_eq!(feed(100, &("data:123456789\n".repeat(10) + "\n"), step), Ok(1));
        assert_eq!(feed(100, &("data:123456789\n".repeat(11) + "\n"), step), Err(EventTooLarge));
        assert_eq!(feed(100, &("data\n".repeat(101) + "\n"), step), Err(EventTooLarge));
        // Any number of events that are small.
        assert_eq!(feed(100, &line(100).repeat(500), step), Ok(500));
    }
    // Data counts as what it is decoded to: a byte that is no UTF-8 is a U+FFFD, of three.
    for (bytes, is_within) in [(33, true), (34, false)] {
        let stream = [b"data:".as_slice(), &vec![0xff; bytes], b"\n\n"].concat();
        let messages = Parser::with_limit(100).feed(&stream);
        assert_eq!(messages.is_ok(), is_within, "{bytes}: {messages:?}");
    }
}

/// Decodes base64, as simply as possible.
pub(crate) fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    assert_eq!(text.len() % 4, 0, "it is padded");
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in text.trim_end_matches('=').chars() {
        let sextet = ALPHABET.find(letter).expect("it is in the alphabet");
        bits = bits << 6 | sextet as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    assert_eq!(bits, 0, "the bits that pad are zero");
    bytes
}

#[test]
fn base64_is_what_rfc_4648_says() {
    // RFC 4648, 10
    for (bytes, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
    for length in 0..=256 {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        let text = base64(&bytes);
        assert_eq!(text.len(), bytes.len().div_ceil(3) * 4);
        assert_eq!(decode_base64(&text), bytes);
    }
}
