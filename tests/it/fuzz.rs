//! Chance against everything that reads what strangers send, and against a channel's whole life.
//!
//! A second each, or as long as `NEWSWIRE_FUZZ_SECONDS` says. Each round has a seed of its own; a round that fails names
//! it, and `NEWSWIRE_FUZZ_SEED` begins with that round.

use crate::events::{interpret, parse};
use crate::laboratory::PARAMETERS;
use crate::server::{Answer, Dice, Stream, ask, connect, exchange, serve_app};
use newswire::Event;
use newswire::app::{App, Publishers};
use newswire::channel::Limits;
use newswire::channel::{Channel, Channels};
use newswire::http;
use newswire::http::{Chunks, Head, Method};
use newswire::sse::{Message, Parser};
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// Plays rounds until the time is up.
fn fuzz(subject: &str, mut round: impl FnMut(&mut Dice)) {
    let setting = |name: &str| std::env::var(name).ok();
    let number = |name: &str, text: String| {
        text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}"))
    };
    let first = setting("NEWSWIRE_FUZZ_SEED").map_or(0, |text| number("NEWSWIRE_FUZZ_SEED", text));
    let seconds =
        setting("NEWSWIRE_FUZZ_SECONDS").map_or(1, |text| number("NEWSWIRE_FUZZ_SECONDS", text));
    let started = Instant::now();
    let mut seed = first;
    while seed == first || started.elapsed() < Duration::from_secs(seconds) {
        let outcome = catch_unwind(AssertUnwindSafe(|| round(&mut Dice::new(seed))));
        if let Err(panic) = outcome {
            eprintln!("{subject}: this round again is NEWSWIRE_FUZZ_SEED={seed}");
            resume_unwind(panic);
        }
        seed += 1;
    }
    println!("{subject}: seeds {first} to {}, all well", seed - 1);
}

/// Between none and `most` of these, one behind the other.
fn some_of(dice: &mut Dice, tokens: &[&str], most: usize) -> String {
    (0..dice.below(most + 1)).map(|_| *dice.pick(tokens)).collect()
}

/// Changes a few bytes, in the ways in which bytes go wrong.
fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        let byte = match dice.below(4) {
            0 => dice.next() as u8,
            _ => *dice.pick(b"\r\n\0 \t:;,%+&=?#/\\\"*@[]0a\x7f\x80\xff"),
        };
        match dice.below(6) {
            0 if at < bytes.len() => bytes[at] = byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            3 => bytes.truncate(at),
            4 => {
                let end = at + dice.below(bytes.len() - at + 1).min(40);
                let copy = bytes[at..end].to_vec();
                let to = dice.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            _ => bytes.insert(at, byte),
        }
    }
}

/// Cuts bytes into pieces of any size.
fn pieces<'b>(dice: &mut Dice, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    let most = *dice.pick(&[1, 2, 5, 40, 4000]);
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((1 + dice.below(most)).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn a_head(dice: &mut Dice) -> Vec<u8> {
    let method =
        *dice.pick(&["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", ""]);
    let path = some_of(
        dice,
        &["/", "a", "..", ".", "%2F", "%2e", "%00", "%", "%zz", "*", "channels", "~", "é"],
        8,
    );
    let query =
        some_of(dice, &["?", "&", "=", "a", "%41", "+", "%", "%ff", "last_event_id=1", "#"], 8);
    let target = match dice.below(8) {
        0 => format!("http://{path}{query}"),
        1 => format!("https://host:80/{path}{query}"),
        2 => "*".to_owned(),
        3 => format!("{path}{query}"),
        _ => format!("/{path}{query}"),
    };
    let version = *dice.pick(&[
        "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.9", "HTTP/2.0", "HTTP/1", "",
    ]);
    let end = *dice.pick(&["\r\n", "\r\n", "\n"]);
    let mut head = String::new();
    if dice.once_in(10) {
        head += end;
    }
    head += &format!("{method} {target} {version}{end}");
    if !dice.once_in(10) {
        head += &format!(
            "Host: {}{end}",
            dice.pick(&["localhost", "a:80", "[::1]:8080", "", "a b", "a,b", "a:999999"])
        );
    }
    for _ in 0..dice.below(6) {
        let name = *dice.pick(&[
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Expect",
            "X",
            "Last-Event-ID",
            "x y",
            "",
        ]);
        let value = *dice.pick(&[
            "0",
            "5",
            "5, 5",
            "+5",
            "chunked",
            "gzip, chunked",
            "chunked, chunked",
            "close",
            "keep-alive",
            "100-continue",
            "",
            " ",
            "\t",
            "\u{a0}",
            "é",
            "a\0b",
            "a\rb",
            "18446744073709551616",
            "identity",
            ",",
        ]);
        let colon = *dice.pick(&[": ", ":", ":", ": \t", " :", ":  "]);
        head += &format!("{name}{colon}{value}{end}");
    }
    head += *dice.pick(&[end, end, end, "", "\r", " folded\r\n\r\n"]);
    let mut bytes = head.into_bytes();
    mutate(dice, &mut bytes);
    bytes
}

#[test]
fn heads() {
    let tiny =
        http::Limits { target_bytes: 24, head_bytes: 160, fields: 3, ..http::Limits::default() };
    fuzz("heads", |dice| {
        let wire = a_head(dice);
        let limits = if dice.once_in(4) { tiny.clone() } else { http::Limits::default() };
        let outcome = |wire: &[u8]| Head::parse(wire, &limits);
        let shown = String::from_utf8_lossy(&wire).into_owned();
        // However much of it has arrived: not enough yet, until it is known; from then on always the same.
        let whole = outcome(&wire);
        let mut refused = None;
        for arrived in 0..=wire.len() {
            let partial = outcome(&wire[..arrived]);
            match (&partial, &whole) {
                (Ok(None), _) => {
                    assert!(refused.is_none(), "{shown:?} accepted again at {arrived}")
                }
                (Err(refusal), Err(of_whole)) => {
                    // A line that is too long already may turn out to be worse.
                    let is_same = refusal.status == of_whole.status || refusal.status.0 == 414;
                    assert!(is_same, "{shown:?} at {arrived}: {refusal}, in the end {of_whole}");
                    refused = Some(());
                }
                (Ok(Some((head, length))), Ok(Some((of_whole, whole_length)))) => {
                    assert_eq!(length, whole_length, "{shown:?} at {arrived}");
                    assert_eq!(format!("{head:?}"), format!("{of_whole:?}"), "{shown:?}");
                }
                _ => panic!("{shown:?} at {arrived}: {partial:?} and in the end {whole:?}"),
            }
            if let (Ok(None), Ok(Some((_, length)))) = (&partial, &whole) {
                assert!(arrived < *length, "{shown:?} is whole at {length}, and not at {arrived}");
            }
        }
        let Ok(Some((head, length))) = whole else {
            return;
        };
        // What follows it is not its business.
        let followed = [&wire[..length], b"\0\r\nGET / HTTP/1.1\r\n\r\n"].concat();
        let again = outcome(&followed).expect("it is as good as before").expect("it is whole");
        assert_eq!(again.1, length, "{shown:?}");
        // What it says of itself holds.
        assert!(
            length <= limits.head_bytes && head.path().len() <= limits.target_bytes,
            "{shown:?}"
        );
        assert!(head.path() == "*" || head.path().starts_with('/'), "{shown:?}");
        assert!(head.path() != "*" || head.method() == Method::Options, "{shown:?}");
        assert!(head.segments().iter().all(|segment| !segment.contains('\0')), "{shown:?}");
        for name in ["host", "content-length", "transfer-encoding", "x", "last-event-id"] {
            for value in head.values(name) {
                assert!(!value.contains(['\r', '\n', '\0']), "{shown:?}");
                assert_eq!(value, value.trim_matches([' ', '\t']), "{shown:?}");
            }
        }
        let lengths =
            head.values("content-length").count() + head.values("transfer-encoding").count();
        assert!(
            lengths <= 1 || head.values("content-length").count() == 0,
            "{shown:?} could be read in two ways"
        );
        assert!(!head.authority().contains(['@', '/', ' ']), "{shown:?}");
        for (name, value) in head.queries() {
            assert_eq!(head.query(&name).is_some(), head.queries().any(|(found, _)| found == name));
            assert!(name.len() + value.len() <= 3 * wire.len());
        }
    });
}

#[test]
fn chunked_content() {
    fuzz("chunked content", |dice| {
        let mut content = Vec::new();
        let mut wire = Vec::new();
        for _ in 0..dice.below(6) {
            let data: Vec<u8> = (0..1 + dice.below(40)).map(|_| dice.next() as u8).collect();
            let size = match dice.below(3) {
                0 => format!("{:x}", data.len()),
                1 => format!("{:X}", data.len()),
                _ => format!("{:04x}", data.len()),
            };
            let extension = *dice.pick(&["", "", "", ";a", ";a=b", "; a=\"b c\"", ";;;"]);
            wire.extend([size.as_bytes(), extension.as_bytes(), b"\r\n", &data, b"\r\n"].concat());
            content.extend(data);
        }
        wire.extend_from_slice(dice.pick::<&[u8]>(&[b"0\r\n", b"000\r\n", b"0;x=y\r\n"]));
        for _ in 0..dice.below(3) {
            wire.extend_from_slice(dice.pick::<&[u8]>(&[b"X: y\r\n", b"Content-Length: 5\r\n"]));
        }
        wire.extend_from_slice(b"\r\n");
        let end = wire.len();
        wire.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let is_intact = dice.once_in(2);
        if !is_intact {
            mutate(dice, &mut wire);
        }

        /// The content, how much of the wire it took, and whether that was all; or the status of the refusal.
        type Decoded = Result<(Vec<u8>, usize, bool), u16>;
        let decode = |pieces: &[&[u8]]| -> Decoded {
            let (mut chunks, mut content, mut taken) = (Chunks::new(), Vec::new(), 0);
            for piece in pieces {
                let read =
                    chunks.decode(piece, &mut content).map_err(|refusal| refusal.status.0)?;
                taken += read;
                assert!(
                    read == piece.len() || chunks.is_whole(),
                    "it leaves only what is not its own"
                );
                if chunks.is_whole() {
                    break;
                }
            }
            Ok((content, taken, chunks.is_whole()))
        };
        let whole = decode(&[&wire]);
        if is_intact {
            assert_eq!(whole, Ok((content, end, true)), "{:?}", String::from_utf8_lossy(&wire));
        }
        let cut = pieces(dice, &wire);
        assert_eq!(decode(&cut), whole, "{:?}", String::from_utf8_lossy(&wire));
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(decode(&bytes), whole, "{:?}", String::from_utf8_lossy(&wire));
        if let Ok((content, taken, _)) = whole {
            assert!(content.len() <= taken, "nothing comes from nowhere");
        }
    });
}

#[test]
fn event_streams() {
    const TOKENS: [&str; 24] = [
        "data",
        "data:",
        "data: ",
        "id",
        "id: ",
        "event: ",
        "retry: ",
        "retry:",
        ":",
        " ",
        "\r",
        "\n",
        "\r\n",
        "\n\n",
        "\r\r",
        "\0",
        "\u{feff}",
        "x",
        "7",
        "é",
        "😀",
        "message",
        "99999999999999999999",
        "\u{2028}",
    ];
    fuzz("event streams", |dice| {
        let mut stream = some_of(dice, &TOKENS, 60).into_bytes();
        mutate(dice, &mut stream);
        stream.extend_from_slice(dice.pick::<&[u8]>(&[
            b"",
            b"\n\n",
            b"\ndata: end\n\n",
            b"\xff\n\n",
        ]));
        let shown = String::from_utf8_lossy(&stream).into_owned();
        let expected = interpret(&stream);
        assert_eq!(parse([stream.as_slice()]), expected, "{shown:?} whole");
        let cut = pieces(dice, &stream);
        assert_eq!(parse(cut.iter().copied()), expected, "{shown:?} in {} pieces", cut.len());

        // With a limit there is an end, and up to there nothing else; pieces do not matter.
        let limit = dice.below(30);
        let feed = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut parser = Parser::with_limit(limit);
            let mut messages: Vec<Message> = Vec::new();
            for piece in pieces {
                match parser.feed(piece) {
                    Ok(more) => messages.extend(more),
                    Err(_) => return (messages, false),
                }
            }
            // What is wrong behind the last event of a piece is said at the next call.
            (messages, parser.feed(b"").is_ok())
        };
        let (messages, is_within) = feed(&mut stream.chunks(1));
        assert_eq!(messages, expected.0[..messages.len()], "{shown:?} within {limit}");
        assert!(!is_within || messages.len() == expected.0.len(), "{shown:?} within {limit}");
        assert!(
            messages.iter().all(|message| message.data.len() <= limit),
            "{shown:?} within {limit}"
        );
        assert_eq!(feed(&mut cut.iter().copied()).1, is_within, "{shown:?} within {limit}");
    });
}

#[test]
fn events() {
    const TOKENS: [&str; 14] = [
        "\r", "\n", "\r\n", "\0", "\u{feff}", " ", ":", "data: x", "id: y", "é", "😀", "event",
        "\u{85}", "\u{2028}",
    ];
    fuzz("events", |dice| {
        let mut stream = String::new();
        // The id of a comment counts from the next event on.
        let (mut expected, mut id, mut last_event_id) = (Vec::new(), String::new(), String::new());
        for _ in 0..1 + dice.below(4) {
            let data = some_of(dice, &TOKENS, 8);
            let is_comment = dice.once_in(4);
            let mut event =
                if is_comment { Event::default().comment(&data) } else { Event::new(&data) };
            let mut event_type = String::new();
            for _ in 0..dice.below(3) {
                let text = some_of(dice, &TOKENS, 3);
                let is_one_line = !text.contains(['\r', '\n', '\0']);
                let with = if dice.once_in(2) {
                    event.clone().id(&text)
                } else {
                    event.clone().name(&text)
                };
                assert_eq!(with.is_ok(), is_one_line, "{text:?}");
                if let Ok(with) = with {
                    // Which of the two it was, the block says.
                    if with.to_string().contains(&format!("id: {text}\n"))
                        && with.clone().id(&text) == Ok(with.clone())
                    {
                        id.clone_from(&text);
                    }
                    if with.clone().name(&text) == Ok(with.clone()) {
                        event_type.clone_from(&text);
                    }
                    event = with;
                }
            }
            stream += &event.to_string();
            if !is_comment {
                last_event_id.clone_from(&id);
                expected.push(Message {
                    event_type: if event_type.is_empty() {
                        "message".to_owned()
                    } else {
                        event_type
                    },
                    data: data.replace("\r\n", "\n").replace('\r', "\n"),
                    last_event_id: last_event_id.clone(),
                });
            }
        }
        let cut = pieces(dice, stream.as_bytes());
        let (messages, id, _) = parse(cut.iter().copied());
        assert_eq!((messages, id), (expected, last_event_id), "{stream:?}");
    });
}

/// The application in this process, where a panic is counted, and nothing is said of one's own accord.
fn start(limits: Limits) -> (SocketAddr, Channels) {
    serve_app(App {
        channel_limits: Limits { heartbeat: Duration::ZERO, ..limits },
        publishers: Publishers::Anyone,
        ..App::default()
    })
}

#[track_caller]
fn assert_no_panic(address: SocketAddr) {
    let metrics = exchange(address, "GET /metrics HTTP/1.0\r\n\r\n");
    assert!(metrics.contains("\nnewswire_panics_total 0\n"), "{metrics}");
}

/// `application/x-www-form-urlencoded`, with more encoded than has to be.
fn encode(dice: &mut Dice, text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' if !dice.once_in(6) => char::from(byte).to_string(),
        b' ' if dice.once_in(2) => "+".to_owned(),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(encode).collect()
}

#[test]
fn orders_of_the_laboratory() {
    let (address, _) = start(Limits::default());
    fuzz("orders of the laboratory", |dice| {
        let text = some_of(
            dice,
            &["a", "é", "😀", "word", ".", ":", "\0", " ", " ", "\n", "\u{2028}", "data: "],
            8,
        );
        let words: Vec<&str> = text.split_whitespace().collect();
        let count = 1 + dice.below(12);
        let lines = 1 + dice.below(4);
        let size = Some(dice.below(200)).filter(|size| dice.once_in(2) && *size + 1 >= lines);
        let ids = !dice.once_in(4);
        let cut = Some(1 + dice.below(12)).filter(|cut| ids && *cut < count && dice.once_in(2));
        let retry = dice.below(5000);
        let event = some_of(dice, &["e", " ", ":", "é", "message"], 2);
        let heard = Some(dice.below(count + 3)).filter(|_| dice.once_in(3));
        let repeats = dice.once_in(3);
        let mut parameters = vec![
            ("text", text.clone()),
            ("count", count.to_string()),
            ("lines", lines.to_string()),
            ("id", if ids { "on" } else { "off" }.to_owned()),
            ("retry", retry.to_string()),
            ("event", event.clone()),
            ("newline", dice.pick(&["lf", "cr", "crlf"]).to_string()),
            ("bom", dice.pick(&["on", "off"]).to_string()),
            ("garbage", dice.pick(&["on", "off"]).to_string()),
            ("complete", if repeats { "loop" } else { "204" }.to_owned()),
            ("interval", "0".to_owned()),
        ];
        // Pieces take a millisecond each, so that there must not be many.
        parameters.extend(
            Some(("chunk", (50 + dice.below(500)).to_string())).filter(|_| dice.once_in(3)),
        );
        parameters.extend(size.map(|size| ("size", size.to_string())));
        parameters.extend(cut.map(|cut| ("cut", cut.to_string())));
        parameters.extend(heard.map(|heard| ("last_event_id", heard.to_string())));
        // In any order.
        for at in (1..parameters.len()).rev() {
            parameters.swap(at, dice.below(at + 1));
        }
        let pairs: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{}={}", encode(dice, name), encode(dice, value)))
            .collect();
        let target = format!("/lab?{}", pairs.join("&"));
        if words.is_empty() {
            let answer = ask(address, "GET", &target, &[], "");
            assert_eq!(answer.status, 400, "{target}: {answer:?}");
            return;
        }
        let answer = ask(address, "GET", &target, &[], "");
        if ids && heard == Some(count) && !repeats {
            assert_eq!(answer.status, 204, "{target}: {answer:?}");
            return;
        }
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let first = heard.filter(|heard| ids && *heard < count).unwrap_or(0);
        let last = cut.filter(|_| heard.is_none()).unwrap_or(count);
        let (messages, _, reconnection_time) = interpret(&answer.content);
        assert_eq!(messages.len(), last - first, "{target}");
        assert_eq!(reconnection_time, Some(Duration::from_millis(retry as u64)), "{target}");
        for (number, message) in (first..last).zip(&messages) {
            let id = if ids { (number + 1).to_string() } else { String::new() };
            assert_eq!(message.last_event_id, id, "{target}");
            let name = if event.is_empty() { "message" } else { &event };
            assert_eq!(message.event_type, name, "{target}");
            assert_eq!(message.data.split('\n').count(), lines, "{target}");
            match size {
                Some(size) => assert_eq!(message.data.len(), size, "{target}"),
                None => assert_eq!(
                    message.data,
                    vec![words[number % words.len()]; lines].join("\n"),
                    "{target}"
                ),
            }
        }
        if dice.once_in(4) {
            let again = ask(address, "GET", &target, &[], "");
            assert!(again.content == answer.content, "{target} a second time");
        }
    });
    assert_no_panic(address);
}

#[test]
fn queries_of_the_laboratory_that_nobody_meant() {
    let names = [&PARAMETERS[..], &["x"]].concat();
    const VALUES: [&str; 26] = [
        "",
        "0",
        "1",
        "2",
        "9",
        "10",
        "599",
        "600",
        "1000",
        "65536",
        "4194304",
        "99999999999999999999",
        "-1",
        "on",
        "off",
        "lf",
        "loop",
        "302",
        "text/html",
        "a/b;c=d",
        "%0d%0aX-Evil:1",
        "%00",
        "%ff",
        "+",
        "a%2Fb",
        "..",
    ];
    let (address, _) = start(Limits::default());
    fuzz("queries that nobody meant", |dice| {
        let pairs: Vec<String> = (0..dice.below(6))
            .map(|_| format!("{}={}", dice.pick(&names), dice.pick(&VALUES)))
            .collect();
        let mut query = pairs.join("&").into_bytes();
        mutate(dice, &mut query);
        // Judged, and not played: it could be an hour. What is not a target is not sent.
        query.retain(u8::is_ascii_graphic);
        let query = String::from_utf8(query).expect("it is ASCII");
        let request =
            format!("HEAD /lab?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut socket = connect(address);
        socket.write_all(request.as_bytes()).expect("the server reads");
        let mut reader = BufReader::new(socket);
        let answer = Answer::read(&mut reader, "HEAD").expect("it answers");
        assert!((200..600).contains(&answer.status), "{query}: {answer:?}");
        assert_eq!(answer.field("x-evil"), None, "{query}");
        assert!(Answer::read(&mut reader, "HEAD").is_none(), "{query}: one answer is enough");
        if let Some(location) = answer.field("location") {
            assert!(location.starts_with("/lab?"), "{query} leads to {location}");
        }
    });
    assert_no_panic(address);
}

/// An id as we issue them, in our own words: two numbers in their shortest form.
fn parsed(id: &str) -> Option<(u64, u64)> {
    let (ms, n) = id.split_once('-')?;
    let number =
        |digits: &str| digits.parse::<u64>().ok().filter(|number| number.to_string() == digits);
    // As many bits as they have together.
    Some((number(ms)?, number(n)?)).filter(|(ms, n)| *ms < 1 << 44 && *n < 1 << 20)
}

fn json(text: &str) -> String {
    let unit = |unit: u16| match char::from_u32(u32::from(unit)) {
        Some(character @ ('"' | '\\')) => format!("\\{character}"),
        Some(character @ ' '..='~') => character.to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    let units: String = text.encode_utf16().map(unit).collect();
    format!("\"{units}\"")
}

#[test]
fn last_event_ids() {
    let (address, channels) = start(Limits { history_events: 6, ..Limits::default() });
    let (channel, other) =
        (channels.open("c").expect("it is a name"), channels.open("other").expect("it is a name"));
    let mut ids = Vec::new();
    let mut elsewhere = Vec::new();
    for number in 0..10 {
        ids.push(channel.publish(Event::new(number.to_string())).expect("it is small").id);
        // Ids between them, which exist and are not this channel's.
        elsewhere.push(other.publish(Event::new("x")).expect("it is small").id);
    }
    channel.complete();
    let (forgotten, kept) = ids.split_at(4);
    let frames = |from: usize| -> String {
        let frame = |(number, id): (usize, &String)| format!("id: {id}\ndata: {number}\n\n");
        (4 + from..).zip(&kept[from..]).map(frame).collect()
    };
    fuzz("last event ids", |dice| {
        let mut id = match dice.below(8) {
            0 => dice.pick(forgotten).clone(),
            1 => dice.pick(&elsewhere).clone(),
            2 => dice
                .pick(&["earliest", "", "0-0", "-", "null", "18446744073709551615-0", "earliest "])
                .to_string(),
            3 => some_of(
                dice,
                &[
                    "1", "-", "\"", "\\", "é", "😀", "\n", "\r", "\0", " ", "}", "\u{2028}",
                    "\u{7f}",
                ],
                80,
            ),
            _ => dice.pick(kept).clone(),
        };
        if dice.once_in(3) {
            let mut bytes = id.into_bytes();
            mutate(dice, &mut bytes);
            id = String::from_utf8_lossy(&bytes).into_owned();
        }
        // A field's value has no control characters, and none of the white space around it.
        let fits_a_field = !id.contains(|c: char| c.is_ascii_control());
        let by_field = fits_a_field && dice.once_in(2);
        let (answer, id) = if by_field {
            let id = id.trim_matches([' ', '\t']).to_owned();
            (ask(address, "GET", "/channels/c", &[("Last-Event-ID", &id)], ""), id)
        } else {
            let target = format!("/channels/c?last_event_id={}", encode(dice, &id));
            (ask(address, "GET", &target, &[], ""), id)
        };
        let position = kept.iter().position(|known| *known == id);
        if id.is_empty() || position == Some(kept.len() - 1) {
            assert_eq!(answer.status, 204, "{id:?}: {answer:?}");
            return;
        }
        let number = |id: &String| parsed(id).expect("it is one of ours");
        let expected = if let Some(at) = position {
            frames(at + 1)
        } else if id == "earliest" || id == forgotten[forgotten.len() - 1] {
            frames(0)
        } else {
            let asked: String = id.chars().take(64).collect();
            let gap = format!(
                "event: gap\ndata: {{\"asked\":{},\"oldest\":\"{}\"}}\n\n",
                json(&asked),
                kept[0]
            );
            let newest = number(&kept[kept.len() - 1]);
            let from = match parsed(&id) {
                Some(id) if id < newest && id > number(&forgotten[forgotten.len() - 1]) => {
                    kept.iter().filter(|known| number(known) < id).count()
                }
                _ => 0,
            };
            gap + &frames(from)
        };
        assert_eq!(answer.status, 200, "{id:?}: {answer:?}");
        let (_, story) = answer.text().split_once("\n\n").expect("there is an opening");
        assert_eq!(story, expected + "event: end\ndata: the channel is completed\n\n", "{id:?}");
    });
    assert_no_panic(address);
}

/// What was ever published on a channel, and what must follow from it.
struct Life {
    address: SocketAddr,
    channel: Channel,
    /// Id, type and data of each event.
    log: Vec<Message>,
    /// How many events there were at each completion.
    completions: Vec<usize>,
    /// The id that those are given who come before the first event.
    began: Option<String>,
}

/// A client of a channel, and what it must hear next.
struct Client {
    stream: Option<Stream>,
    last_event_id: String,
    /// The next event, as its place in the log.
    next: usize,
    /// How many completions it has no part in.
    completions: usize,
    /// It has asked for all that is kept, and heard nothing yet: what that is may change meanwhile.
    asks_for_all: bool,
    /// It was told so before its first event.
    was_overtaken: bool,
}

impl Life {
    /// The place of the oldest event that is kept.
    fn oldest(&self) -> usize {
        let summary = self.channel.summary();
        summary.first_id.map_or(self.log.len(), |first| self.place(&first))
    }

    fn place(&self, id: &str) -> usize {
        let place = self.log.iter().position(|event| event.last_event_id == id);
        place.expect("it was published")
    }

    fn is_completed(&self) -> bool {
        self.completions.last() == Some(&self.log.len())
    }

    fn publish(&mut self, dice: &mut Dice) {
        let data =
            some_of(dice, &["x", "\n", "\r", " ", ":", "é", "event: end\n", "\0", "0123456789"], 6);
        let event_type = *dice.pick(&["message", "message", "note", "endless"]);
        let id = if dice.once_in(3) {
            let target = format!("/channels/{}?event={event_type}", self.channel.name());
            let answer = ask(self.address, "PUT", &target, &[("Accept", "text/plain")], &data);
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.text().trim_end().to_owned()
        } else {
            let event = Event::new(&data).name(event_type).expect("it is one line");
            self.channel.publish(event).expect("it is small").id
        };
        self.log.push(Message {
            event_type: event_type.to_owned(),
            data: data.replace("\r\n", "\n").replace('\r', "\n"),
            last_event_id: id,
        });
    }

    /// Comes, or comes back, and hears at once whether something was lost.
    fn connect(&mut self, client: &mut Client, id: &str) {
        let oldest = self.oldest();
        let known = self.log.iter().position(|event| event.last_event_id == id);
        let (start, has_gap) = match known {
            None if id.is_empty() => (self.log.len(), false),
            None if id == "earliest" => (oldest, false),
            None if self.began.as_deref() == Some(id) => (oldest, oldest > 0),
            None => (oldest, true),
            Some(place) if place + 1 >= oldest => (place + 1, false),
            Some(_) => (oldest, true),
        };
        let fields = [("Last-Event-ID", id)];
        let target = format!("/channels/{}", self.channel.name());
        let mut stream =
            Stream::open(self.address, &target, &fields[..usize::from(!id.is_empty())]);
        if self.is_completed() && start == self.log.len() {
            assert_eq!(stream.answer.status, 204, "{id:?}");
            return;
        }
        assert_eq!(stream.answer.status, 200, "{id:?}");
        if has_gap {
            let gap = stream.next().expect("it is told");
            let oldest =
                self.log.get(oldest).map_or("null".to_owned(), |event| json(&event.last_event_id));
            assert_eq!(gap.event_type, "gap", "{id:?}");
            assert_eq!(gap.data, format!("{{\"asked\":{},\"oldest\":{oldest}}}", json(id)));
            assert_eq!(gap.last_event_id, "");
        }
        if id.is_empty() {
            stream.read_until(|bytes| bytes.ends_with(b"\n\n"));
            client.last_event_id = stream.parser.last_event_id().to_owned();
            match self.log.last() {
                Some(event) => assert_eq!(client.last_event_id, event.last_event_id),
                None => {
                    let began = self.began.get_or_insert(client.last_event_id.clone());
                    assert_eq!(*began, client.last_event_id);
                }
            }
        }
        client.stream = Some(stream);
        client.asks_for_all = id == "earliest";
        client.was_overtaken = false;
        client.next = start;
        // Who comes after a completion, and still has something to hear, has a part in it.
        client.completions = self.completions.len() - usize::from(self.is_completed());
    }

    /// Hears at most `most` events of those that there are for the client; with `to_the_end`, until its stream ends.
    fn hear(&self, client: &mut Client, most: usize, to_the_end: bool) {
        let Some(stream) = &mut client.stream else {
            return;
        };
        let story = self.completions.get(client.completions..).unwrap_or_default();
        let mut heard = 0;
        while to_the_end
            || (heard < most && client.next < story.first().copied().unwrap_or(self.log.len()))
        {
            match stream.next() {
                Some(message) if message.event_type == "end" => {
                    // The log may have moved past the completion, too, before its replay began.
                    let is_overtaken = client.asks_for_all || client.was_overtaken;
                    let is_past = is_overtaken && story.iter().any(|&at| at <= self.oldest());
                    assert!(
                        is_past || story.contains(&client.next),
                        "an end at {}, not at one of {story:?}",
                        client.next
                    );
                    assert_eq!(message.last_event_id, stream.parser.last_event_id());
                    assert_eq!(stream.next(), None);
                    client.stream = None;
                    return;
                }
                // The log has moved past it before its replay began.
                Some(message) if message.event_type == "gap" => {
                    let oldest = message.data.rsplit('"').nth(1).expect("it names one");
                    let oldest = self.place(oldest);
                    assert!(client.next < oldest && oldest <= self.oldest());
                    client.next = oldest;
                    client.was_overtaken = true;
                }
                Some(message) => {
                    if std::mem::take(&mut client.asks_for_all) {
                        let first = self.place(&message.last_event_id);
                        assert!(client.next <= first && first <= self.oldest().max(client.next));
                        client.next = first;
                    }
                    assert_eq!(Some(&message), self.log.get(client.next), "event {}", client.next);
                    client.last_event_id = message.last_event_id;
                    client.next += 1;
                    heard += 1;
                }
                // Only who was overtaken by the log may be sent away without a word; what was lost is told on return.
                None => {
                    assert!(
                        client.next < self.oldest(),
                        "sent away at {} of {}",
                        client.next,
                        self.log.len()
                    );
                    client.stream = None;
                    return;
                }
            }
        }
    }
}

#[test]
fn lives_of_channels() {
    let limits = |history_events, history_bytes| Limits {
        history_events,
        history_bytes,
        channels: 8,
        ..Limits::default()
    };
    let servers =
        [limits(1, 1 << 20), limits(3, 1 << 20), limits(1000, 1024), limits(1000, 1 << 20)]
            .map(|limits| (limits.clone(), start(limits)));
    let mut number = 0;
    fuzz("lives of channels", |dice| {
        number += 1;
        let (limits, (address, channels)) = dice.pick(&servers);
        let channel = channels.open(&format!("life{number}")).expect("the lives before are over");
        let mut life = Life {
            address: *address,
            channel,
            log: Vec::new(),
            completions: Vec::new(),
            began: None,
        };
        let mut clients: Vec<Client> = (0..1 + dice.below(5))
            .map(|_| Client {
                stream: None,
                last_event_id: String::new(),
                next: 0,
                completions: 0,
                asks_for_all: false,
                was_overtaken: false,
            })
            .collect();
        for _ in 0..5 + dice.below(40) {
            let at = dice.below(clients.len());
            let client = &mut clients[at];
            match dice.below(16) {
                0..=4 => life.publish(dice),
                5 => (0..dice.below(12)).for_each(|_| life.publish(dice)),
                6 => {
                    life.channel.complete();
                    life.completions.push(life.log.len());
                }
                7..=9 if client.stream.is_none() => {
                    let id = client.last_event_id.clone();
                    life.connect(client, &id);
                }
                10 if client.stream.is_none() => life.connect(client, "earliest"),
                11 if client.stream.is_none() => {
                    life.connect(client, dice.pick::<&str>(&["1-0", "mad", "99999999999999-0"]))
                }
                // A cut: what is on its way is lost, and will be asked for.
                12 => client.stream = None,
                _ => life.hear(client, dice.below(8), false),
            }
            let summary = life.channel.summary();
            assert!(
                summary.events <= limits.history_events && summary.bytes <= limits.history_bytes,
                "{summary:?}"
            );
            assert_eq!(summary.last_id.as_ref(), life.log.last().map(|event| &event.last_event_id));
            assert_eq!(summary.completed, life.is_completed());
            assert_eq!(summary.events, life.log.len() - life.oldest());
        }
        // The end of the story: everyone who comes back until he is told not to has heard all that was not lost.
        life.channel.complete();
        life.completions.push(life.log.len());
        for client in &mut clients {
            life.hear(client, 0, true);
            let id = client.last_event_id.clone();
            life.connect(client, &id);
            life.hear(client, 0, true);
            if !client.last_event_id.is_empty() {
                let last = life.log.last().map(|event| &event.last_event_id);
                assert_eq!(Some(&client.last_event_id), last.or(life.began.as_ref()));
            }
        }
    });
    for (_, (address, _)) in &servers {
        assert_no_panic(*address);
    }
}
