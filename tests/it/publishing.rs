//! Publishing: what arrives, what it is answered, who may do it, and every refusal.

use crate::files::Directory;
use crate::server::{Answer, Server, Stream, ask, connect, eventually};
use newswire::sse::Message;
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

const OPEN: [&str; 2] = ["--publish-open", "--quiet"];

fn post(address: SocketAddr, target: &str, content: impl AsRef<[u8]>) -> Answer {
    ask(address, "POST", target, &[], content)
}

/// A refusal: its status, and words of the sentence that says why.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.text().contains(words), "no {words:?} in {:?}", answer.text());
    let content_type = answer.field("content-type");
    assert_eq!(content_type, Some("text/plain; charset=utf-8"));
    // A page must be able to tell its user why.
    assert!(answer.field("access-control-allow-origin").is_some() || answer.field("vary").is_some());
}

/// What `GET /channels` says.
fn listed(address: SocketAddr) -> String {
    let answer = ask(address, "GET", "/channels", &[], "");
    assert_eq!(answer.field("content-type"), Some("application/json"));
    answer.text().to_owned()
}

fn event(event_type: &str, data: &str, id: &str) -> Message {
    Message { event_type: event_type.to_owned(), data: data.to_owned(), last_event_id: id.to_owned() }
}

/// The member of a flat JSON object, as it is written.
fn member<'j>(json: &'j str, name: &str) -> &'j str {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {json}"));
    rest.split([',', '}']).next().expect("split gives one")
}

#[test]
fn the_content_is_the_data_of_one_event_and_the_answer_tells_the_truth() {
    let server = Server::start(&OPEN);
    let address = server.address;
    let mut streams = [(); 3].map(|()| Stream::subscribe(address, "news"));

    let answer = post(address, "/channels/news", "Hello");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let id = member(answer.text(), "id").trim_matches('"');
    assert_eq!(answer.text(), format!("{{\"id\":\"{id}\",\"subscribers\":3}}\n"));
    for stream in &mut streams {
        assert_eq!(stream.next(), Some(event("message", "Hello", id)));
    }

    // As curl -T does it, and with a type.
    let fields = [("Accept", "text/plain")];
    let answer = ask(address, "PUT", "/channels/news?event=weather", &fields, "Rain");
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.text().strip_suffix('\n').expect("it is one line");
    for stream in &mut streams {
        assert_eq!(stream.next(), Some(event("weather", "Rain", id)));
    }

    // Nothing else is told, or counted.
    let answer = post(address, "/channels/other", "nobody hears it");
    assert_eq!(member(answer.text(), "subscribers"), "0");
    assert_eq!(server.metric("newswire_events_published_total"), 3);
}

#[test]
fn the_content_is_taken_as_it_is_whatever_its_content_type_claims() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    let contents = [
        ("application/x-www-form-urlencoded", "a=1&b=%20+"),
        ("application/json", "{\"data\": \"\\u0000\"}"),
        ("multipart/form-data; boundary=x", "--x\r\n\r\ny\r\n--x--"),
        ("text/plain; charset=iso-8859-1", "naïve"),
        ("nonsense", ""),
        ("", "\u{feff}begins with a mark"),
    ];
    for (content_type, content) in contents {
        let fields = [("Content-Type", content_type)];
        let answer = ask(server.address, "POST", "/channels/c", &fields, content);
        let id = member(answer.text(), "id").trim_matches('"');
        let data = content.replace("\r\n", "\n");
        assert_eq!(stream.next(), Some(event("message", &data, id)));
    }
}

#[test]
fn data_cannot_forge_fields_and_a_type_that_would_is_refused() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    let forging = [
        "x\ndata: y",
        "x\n\nevent: admin\ndata: forged\n\n",
        "x\r\revent: admin\rdata: forged\r\r",
        "x\r\n\r\nid: 1\r\n\r\n",
        "\n\n\n",
        "\r",
        "\r\n",
        " leading",
        ":",
        "\0",
        "id: 1\0",
        "retry: 1",
        "\u{2028}event: x\u{85}",
    ];
    for content in forging {
        let answer = post(server.address, "/channels/c", content);
        let id = member(answer.text(), "id").trim_matches('"');
        let data = content.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(stream.next(), Some(event("message", &data, id)), "{content:?}");
    }
    let reconnection_time = stream.parser.reconnection_time();
    assert_ne!(reconnection_time, Some(std::time::Duration::from_millis(1)));

    for event in ["a%0Ab", "a%0Db", "a%0D%0Adata:+x", "%00", "a%0A"] {
        // Whatever the content: it is the type that is wrong.
        for (lines, content) in [("", "x"), ("&lines", "x"), ("&lines", "")] {
            let target = format!("/channels/c?event={event}{lines}");
            assert_refused(&post(server.address, &target, content), 400, "event type");
        }
    }
    // What is only odd arrives as it is.
    for (query, name) in [
        ("+a:b+", " a:b "),
        ("%C3%A9", "é"),
        ("%E2%80%A8", "\u{2028}"),
        ("%ff", "\u{fffd}"),
        ("", "message"),
        ("%EF%BB%BFx", "\u{feff}x"),
        ("data", "data"),
    ] {
        let answer = post(server.address, &format!("/channels/c?event={query}"), "x");
        assert_eq!(answer.status, 200, "{query} {answer:?}");
        assert_eq!(stream.next().expect("it is live").event_type, name);
    }
}

#[test]
fn a_type_that_the_server_uses_itself_is_refused() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    for event in ["open", "error", "end", "gap", "heartbeat", "%65nd", "+end", "open%20"] {
        for (query, content) in [("", "x"), ("&lines", "x\n"), ("&lines", "")] {
            let target = format!("/channels/c?event={event}{query}");
            for name in ["open", "error", "end", "gap", "heartbeat"] {
                assert_refused(&post(server.address, &target, content), 400, name);
            }
        }
    }
    // What is only similar is a type like any other.
    for event in ["End", "ends", "gap2", "open+2", "message"] {
        let answer = post(server.address, &format!("/channels/c?event={event}"), "x");
        assert_eq!(answer.status, 200, "{event}");
        let name = stream.next().expect("it is live").event_type;
        assert_eq!(name, event.replace('+', " "));
    }
}

#[test]
fn an_unknown_parameter_is_refused_by_its_name_when_that_is_harmless() {
    let server = Server::start(&OPEN);
    for (method, target, words) in [
        ("POST", "/channels/c?evnet=x", "The parameter evnet is unknown. This path knows event, retry, lines, key."),
        ("PUT", "/channels/c?lines&event=x&Lines", "The parameter Lines is"),
        ("POST", "/channels/c?last_event_id=1", "The parameter last_event_id is"),
        ("GET", "/channels/c?lastEventId=1&last_event=1", "The parameter last_event is"),
        ("GET", "/channels/c?event=x", "The parameter event is unknown. This path knows last_event_id, "),
        ("GET", "/channels/c?line=x", "The parameter line is"),
        ("DELETE", "/channels/c?event=x", "The parameter event is unknown. This path knows key."),
    ] {
        // Without its content first: a stream would not end.
        let head = if method == "GET" { "HEAD" } else { method };
        assert_eq!(ask(server.address, head, target, &[], "").status, 400, "{target}");
        assert_refused(&ask(server.address, method, target, &[], ""), 400, words);
    }
    let long = "x".repeat(33);
    for name in ["%3Cscript%3E", "a%20b", "%1b[2J", "caf%C3%A9", "%0d%0aSet-Cookie:x", "%22", "=x", &long] {
        let answer = post(server.address, &format!("/channels/c?{name}=1"), "x");
        assert_refused(&answer, 400, "A parameter is unknown.");
        assert_eq!(answer.field("set-cookie"), None);
    }
    assert_eq!(listed(server.address), "[]\n", "what is refused makes no channel");
}

#[test]
fn a_parameter_that_is_given_twice_is_refused() {
    let server = Server::start(&OPEN);
    for query in ["retry=5&retry=6", "event=a&event=b", "lines&lines=off", "event=a&e%76ent=a"] {
        assert_refused(&post(server.address, &format!("/channels/c?{query}"), "x"), 400, "twice");
    }
    assert_eq!(post(server.address, "/channels/c?retry=5&event=6", "x").status, 200);
}

#[test]
fn lines_can_be_turned_off_and_on_by_name() {
    let server = Server::start(&OPEN);
    for off in ["lines=0", "lines=off"] {
        let answer = post(server.address, &format!("/channels/c?{off}"), "one\ntwo");
        assert_eq!(answer.status, 200, "{off}: {answer:?}");
        assert!(!answer.text().contains("count"), "{off}: {answer:?}");
    }
    for on in ["lines", "lines=", "lines=1", "lines=on"] {
        let answer = post(server.address, &format!("/channels/c?{on}"), "one\ntwo");
        assert_eq!(member(answer.text(), "count"), "2", "{on}");
    }
    for other in ["false", "no", "2", "On", "+0", "off+"] {
        let answer = post(server.address, &format!("/channels/c?lines={other}"), "x");
        assert_refused(&answer, 400, "lines is on or off");
    }
}

fn post_with_key(address: SocketAddr, target: &str, key: &str, content: &str) -> Answer {
    ask(address, "POST", target, &[("Idempotency-Key", key)], content)
}

#[test]
fn a_malformed_idempotency_key_is_refused_and_so_is_one_with_lines() {
    let server = Server::start(&OPEN);
    let long = "x".repeat(256);
    for key in ["", "\"\"", "\"", "a b", "\"a", "a\"", "a\"b", "caf\u{e9}", "a\\b", "\ta\tb", &long] {
        let answer = post_with_key(server.address, "/channels/c", key, "x");
        assert_refused(&answer, 400, "1 to 255 visible ASCII characters");
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")];
    let answer = ask(server.address, "POST", "/channels/c", &twice, "x");
    assert_refused(&answer, 400, "Idempotency-Key is one field");
    for target in ["/channels/c?lines", "/channels/c?lines=on&event=x"] {
        let answer = post_with_key(server.address, target, "a", "x");
        assert_refused(&answer, 400, "is for one event, not for lines");
    }
    assert_eq!(server.metric("newswire_events_published_total"), 0);
    let long = "x".repeat(255);
    for key in ["a", "\"b\"", "8e03978e-40d5-43dd-bc93-6894a57f9324", "!#$%&'()*+,-./:;<=>?@", &long] {
        let answer = post_with_key(server.address, "/channels/c", key, "x");
        assert_eq!(answer.status, 200, "{key}");
    }
}

/// A proxy may repeat a PUT, and a program may repeat a POST that got no answer.
#[test]
fn a_request_that_is_repeated_with_its_key_publishes_once() {
    let server = Server::start(&["--publish-open", "--quiet", "--history-events", "3"]);
    let address = server.address;
    let mut stream = Stream::subscribe(address, "c");
    let first = post_with_key(address, "/channels/c?event=x", "k", "one");
    let id = member(first.text(), "id").trim_matches('"').to_owned();
    assert_eq!(stream.next(), Some(event("x", "one", &id)));
    // The quotation marks are no part of the key, and the method does not matter.
    for (method, key) in [("POST", "k"), ("POST", "\"k\""), ("PUT", "k")] {
        let fields = [("Idempotency-Key", key), ("Accept", "text/plain")];
        let answer = ask(address, method, "/channels/c?event=x", &fields, "one");
        assert_eq!((answer.status, answer.text()), (200, format!("{id}\n").as_str()));
    }
    // Another event must not pass for the one that was published.
    for (target, content) in [("/channels/c?event=x", "two"), ("/channels/c?event=y", "one"), ("/channels/c", "one")] {
        let answer = post_with_key(address, target, "k", content);
        assert_refused(&answer, 422, "idempotency key");
    }
    // Another channel has keys of its own.
    assert_eq!(post_with_key(address, "/channels/other", "k", "two").status, 200);
    let second = post_with_key(address, "/channels/c", "l", "two");
    let second = member(second.text(), "id").trim_matches('"').to_owned();
    assert_eq!(stream.next(), Some(event("message", "two", &second)));
    // The key is forgotten with its event.
    for data in ["three", "four"] {
        assert_eq!(post(address, "/channels/c", data).status, 200);
        assert_eq!(stream.next().expect("it is live").data, data);
    }
    let again = post_with_key(address, "/channels/c?event=x", "k", "one");
    let again = member(again.text(), "id").trim_matches('"').to_owned();
    assert_ne!(again, id);
    assert_eq!(stream.next(), Some(event("x", "one", &again)));
}

#[test]
fn a_name_is_1_to_64_of_the_allowed_characters_or_is_not_found() {
    let server = Server::start(&OPEN);
    let long = "n".repeat(64);
    let names = ["a", "Z9", "a.b", "a..b", "-", "_", "a.", "--lines", "channels", &long];
    for name in names {
        let answer = post(server.address, &format!("/channels/{name}"), "x");
        assert_eq!(answer.status, 200, "{name}");
    }
    let answer = post(server.address, "/channels/%61%62", "the same as ab");
    assert_eq!(answer.status, 200);
    assert!(listed(server.address).contains("\"name\":\"ab\""));
    let before = listed(server.address);

    let longer = "n".repeat(65);
    let not_names = [
        ".", "..", ".hidden", "%2e%2e", "a%2Fb", "a%5Cb", "a%20b", "a+b", "a%0Ab", "a%0D%0Ab", "%C3%A9", "a:b", "a%22",
        "a'b", "~", "%7F", "a%25", "", &longer,
    ];
    for name in not_names {
        for (method, query) in
            [("GET", ""), ("HEAD", ""), ("POST", ""), ("PUT", ""), ("POST", "?lines"), ("DELETE", "")]
        {
            let target = format!("/channels/{name}{query}");
            let answer = ask(server.address, method, &target, &[], "");
            assert_eq!(answer.status, 404, "{method} {target} {answer:?}");
            if method != "HEAD" {
                assert_refused(&answer, 404, "1 to 64 letters, digits, dots, underscores and hyphens");
            }
        }
    }
    // Further segments are no name, but another path.
    for target in ["/channels/a/b", "/channels/a/", "/channels//"] {
        assert_eq!(post(server.address, target, "x").status, 404, "{target}");
    }
    assert_eq!(listed(server.address), before, "what is refused makes no channel");
}

#[test]
fn what_is_not_utf_8_is_refused_with_the_way_to_send_it() {
    let server = Server::start(&OPEN);
    let contents: [&[u8]; 7] =
        [b"\xff", b"good\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\x1f\x8b\x08\x00\x00"];
    for content in contents {
        for target in ["/channels/c", "/channels/c?lines"] {
            let answer = post(server.address, target, content);
            assert_refused(&answer, 415, "base64");
        }
    }
    assert_eq!(server.metric("newswire_events_published_total"), 0);
}

#[test]
fn what_is_too_large_is_refused_however_its_length_is_said() {
    let server = Server::start(&["--publish-open", "--quiet", "--history-bytes", "4096"]);
    let address = server.address;
    // Claimed: refused before it is sent.
    let mut socket = connect(address);
    let head = "POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 524289\r\n\r\n";
    socket.write_all(head.as_bytes()).expect("the server reads");
    let answer = Answer::read(&mut BufReader::new(socket), "POST").expect("it answers");
    assert_refused(&answer, 413, "larger than this server takes");
    // Not claimed: refused as soon as it is too much.
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let chunked = [("Transfer-Encoding", "chunked")];
    let answer = ask(address, "POST", "/channels/c", &chunked, chunk.repeat(33));
    assert_refused(&answer, 413, "larger than this server takes");
    // One line of many.
    let answer = ask(address, "POST", "/channels/c?lines", &chunked, chunk.repeat(33));
    assert_refused(&answer, 413, "A line of the content is larger");
    // Small enough to be read, too large to be kept.
    assert_refused(&post(address, "/channels/c", "x".repeat(4096)), 413, "may keep");
    let answer = post(address, "/channels/c?lines", "x".repeat(4096));
    assert_refused(&answer, 413, "may keep");
    assert_eq!(post(address, "/channels/c", "x".repeat(4000)).status, 200);
    // Every line break is a field name more on the wire, so that it is not the content's length that counts.
    assert_refused(&post(address, "/channels/c", "\n".repeat(1000)), 413, "may keep");

    let server = Server::start(&OPEN);
    let largest = "x".repeat(512 * 1024);
    assert_eq!(post(server.address, "/channels/c", &largest).status, 200);
    let mut stream = Stream::resume(server.address, "c", "earliest");
    assert_eq!(stream.next().expect("it is kept").data, largest);
    let answer = post(server.address, "/channels/c", largest + "x");
    assert_refused(&answer, 413, "larger than this server takes");
}

#[test]
fn a_content_of_unknown_length_is_refused_and_an_empty_one_is_an_event() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    for target in ["/channels/c", "/channels/c?lines"] {
        for method in ["POST", "PUT"] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let answer = server.exchange(request);
            assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
        }
    }
    assert_eq!(post(server.address, "/channels/c", "").status, 200);
    assert_eq!(stream.next().expect("it is live").data, "");
    // No line is no event.
    let answer = post(server.address, "/channels/c?lines", "");
    assert_eq!(answer.text(), "{\"count\":0,\"id\":null,\"subscribers\":1}\n");
    assert_eq!(post(server.address, "/channels/c", "last").status, 200);
    assert_eq!(stream.next().expect("it is live").data, "last");
}

#[test]
fn each_line_is_published_as_it_arrives_and_counted_at_the_end() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "log");
    // As `tail -f log | curl -T -` does it.
    let mut upload = connect(server.address);
    let head = "PUT /channels/log?lines&event=line HTTP/1.1\r\nHost: localhost\r\n\
                Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    upload.write_all(head.as_bytes()).expect("the server reads");
    let mut answers = BufReader::new(upload.try_clone().expect("it is open"));
    let mut first_line = String::new();
    std::io::BufRead::read_line(&mut answers, &mut first_line).expect("it is told to go on");
    assert_eq!(first_line, "HTTP/1.1 100 Continue\r\n");

    let mut send = |piece: &str| {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        upload.write_all(chunk.as_bytes()).expect("the server reads");
    };
    // The next piece is sent only when the line before it has been heard.
    let mut ids = Vec::new();
    let mut hears = |data: &str| {
        let message = stream.next().expect("it is live");
        assert_eq!((message.event_type.as_str(), message.data.as_str()), ("line", data));
        ids.push(message.last_event_id);
    };
    send("one\n");
    hears("one");
    send("two\r\nthree\n\nfo");
    hears("two");
    hears("three");
    hears("");
    send("ur\r");
    send("\n");
    hears("four");
    // A CR of its own is data, as anywhere.
    send("a\rb\n last, without an end");
    hears("a\nb");
    upload.write_all(b"0\r\n\r\n").expect("the server reads");
    let message = stream.next().expect("it is live");
    assert_eq!(message.data, " last, without an end");

    let answer = Answer::read(&mut std::io::Read::chain("HTTP/1.1 100 Continue\r\n".as_bytes(), answers), "PUT");
    let answer = answer.expect("it is answered at the end");
    let id = message.last_event_id;
    assert_eq!(answer.text(), format!("{{\"count\":7,\"id\":\"{id}\",\"subscribers\":1}}\n"));
}

#[test]
fn lines_are_the_same_however_the_upload_is_cut() {
    let server = Server::start(&OPEN);
    let content = "é\r\n😀\n\n\r\nplain\nlast\r";
    for size in 1..=content.len() {
        let mut stream = Stream::subscribe(server.address, "c");
        let chunk = |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        let chunks: Vec<u8> = content.as_bytes().chunks(size).flat_map(chunk).collect();
        let fields = [("Transfer-Encoding", "chunked"), ("Accept", "text/plain")];
        let content = [chunks.as_slice(), b"0\r\n\r\n"].concat();
        let answer = ask(server.address, "POST", "/channels/c?lines", &fields, content);
        let id = answer.text().trim_end().to_owned();
        for data in ["é", "😀", "", "", "plain"] {
            assert_eq!(stream.next().expect("it is live").data, data, "chunks of {size}");
        }
        assert_eq!(stream.next(), Some(event("message", "last", &id)));
    }
}

#[test]
fn lines_before_a_bad_one_are_published_and_none_behind_it() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    let answer = post(server.address, "/channels/c?lines", b"one\ntwo\n\xff\nfour\n");
    assert_refused(&answer, 415, "base64");
    assert_eq!(post(server.address, "/channels/c", "after").status, 200);
    for data in ["one", "two", "after"] {
        assert_eq!(stream.next().expect("it is live").data, data);
    }
    // An upload that breaks off has published what had arrived.
    let mut upload = connect(server.address);
    let head = "POST /channels/c?lines HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nthree\nunfin";
    upload.write_all(head.as_bytes()).expect("the server reads");
    assert_eq!(stream.next().expect("it is live").data, "three");
    drop(upload);
    eventually("the upload is gone", || server.metric("newswire_connections") == 2);
    assert_eq!(post(server.address, "/channels/c", "last").status, 200);
    assert_eq!(stream.next().expect("it is live").data, "last");
}

#[test]
fn standard_input_is_published_line_by_line_and_its_end_is_not_the_servers() {
    let mut server = Server::start(&["--stdin", "vmstat", "--quiet"]);
    let mut stream = Stream::subscribe(server.address, "vmstat");
    let mut stdin = server.stdin();
    let mut hears = |sent: &[u8], data: &[&str]| {
        stdin.write_all(sent).and_then(|()| stdin.flush()).expect("it is read");
        for data in data {
            let message = stream.next().expect("it is live");
            assert_eq!((message.event_type.as_str(), message.data.as_str()), ("message", *data));
        }
    };
    hears(b"procs -----memory-----\n", &["procs -----memory-----"]);
    hears(b"one\r\ntw", &["one"]);
    hears(b"o\n\n", &["two", ""]);
    // Nobody is there to be told that it is not text.
    hears(b"\xff\xfe\n", &["\u{fffd}\u{fffd}"]);
    hears(b"data: x\rid: 1\n", &["data: x\nid: 1"]);
    stdin.write_all(b"unfinished").expect("it is read");
    drop(stdin);
    let rest = stream.until_end();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].data, "unfinished");

    // It goes on serving, and the channel is as any completed one.
    let answer = ask(server.address, "GET", "/healthz", &[], "");
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    let heard = Stream::resume(server.address, "vmstat", "earliest").until_end();
    assert_eq!(heard.len(), 7);
    assert_eq!(ask(server.address, "GET", "/channels/vmstat", &[], "").status, 204);
    // Publishing by request is as off as it was.
    assert_eq!(post(server.address, "/channels/vmstat", "x").status, 403);
}

#[test]
fn a_line_of_standard_input_that_is_too_long_goes_in_pieces_and_loses_nothing() {
    // One byte more than an event may have, of characters that take two: a piece must not end inside of one.
    let long = "é".repeat(256 * 1024) + "x";
    let just_fits = "x".repeat(512 * 1024 - 1);
    for (line, end) in
        [(long.clone(), "\n"), ("x".to_owned() + &long, "\n"), (just_fits.clone(), "\r\n"), (just_fits + "x", "\r\n")]
    {
        let mut server = Server::start(&["--stdin", "c", "--quiet"]);
        let mut stream = Stream::subscribe(server.address, "c");
        let mut stdin = server.stdin();
        let sent = thread::spawn(move || {
            let text = format!("{line}{end}next{end}");
            stdin.write_all(text.as_bytes()).map(|()| line)
        });
        let mut pieces: Vec<String> = stream.until_end().into_iter().map(|m| m.data).collect();
        let line = sent.join().expect("it does not panic").expect("it is read");
        assert_eq!(pieces.pop().as_deref(), Some("next"));
        assert!(pieces.concat() == line, "in {} pieces", pieces.len());
        let lengths: Vec<usize> = pieces.iter().map(String::len).collect();
        assert!(lengths.iter().all(|&length| length > 0), "{lengths:?}");
    }
}

#[test]
fn a_path_that_lacks_a_method_says_which_it_has() {
    let server = Server::start(&OPEN);
    for (method, target, status, allow) in [
        ("POST", "/channels", 405, "GET, HEAD, OPTIONS"),
        ("DELETE", "/channels", 405, "GET, HEAD, OPTIONS"),
        ("PUT", "/healthz", 405, "GET, HEAD, OPTIONS"),
        ("POST", "/metrics", 405, "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/channels/c", 204, "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    ] {
        let answer = ask(server.address, method, target, &[], "");
        assert_eq!(answer.status, status, "{method} {target}");
        assert_eq!(answer.field("allow"), Some(allow), "{method} {target}");
    }
    // Nobody can complete what is not there.
    let answer = ask(server.address, "DELETE", "/channels/c", &[], "");
    assert_refused(&answer, 404, "no such channel");
    assert_eq!(listed(server.address), "[]\n");
}

#[test]
fn a_refused_publisher_can_go_on_with_its_next_request() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    let mut socket = connect(server.address);
    // Refused requests with contents that look like requests: what is not read must not become one.
    let forged = "POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nforged";
    let requests = [
        format!("POST /channels/.no HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{forged}", forged.len()),
        format!("POST /channels/c HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {}\r\n\r\n{forged}", forged.len()),
        format!(
            "POST /channels/c HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nTransfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{forged}\r\n0\r\n\r\n",
            forged.len()
        ),
        "POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nright".to_owned(),
    ];
    let pipelined = requests.concat();
    socket.write_all(pipelined.as_bytes()).expect("the server reads");
    let mut reader = BufReader::new(socket);
    let statuses = [(); 4].map(|()| {
        let answer = Answer::read(&mut reader, "POST");
        answer.expect("it answers each").status
    });
    assert_eq!(statuses, [404, 403, 403, 200]);
    assert_eq!(stream.next().expect("it is live").data, "right");
    assert_eq!(server.metric("newswire_events_published_total"), 1);
}

#[test]
fn an_id_of_the_publisher_is_refused_with_a_reason() {
    let server = Server::start(&OPEN);
    for target in ["/channels/c?id=7", "/channels/c?event=x&id", "/channels/c?lines&id=1"] {
        let answer = post(server.address, target, "x");
        assert_refused(&answer, 400, "The channel gives the event its id");
    }
    assert_eq!(listed(server.address), "[]\n");
}

#[test]
fn a_reconnection_time_goes_along_with_the_event() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    let answer = post(server.address, "/channels/c?retry=4321&event=x", "data");
    let id = member(answer.text(), "id").trim_matches('"').to_owned();
    assert_eq!(stream.next(), Some(event("x", "data", &id)));
    assert_eq!(stream.parser.reconnection_time(), Some(Duration::from_millis(4321)));
    // Also to a client that comes back, and for each line.
    let mut late = Stream::resume(server.address, "c", "earliest");
    assert_eq!(late.next(), Some(event("x", "data", &id)));
    assert_eq!(late.parser.reconnection_time(), Some(Duration::from_millis(4321)));
    assert_eq!(post(server.address, "/channels/c?lines&retry=0", "a\nb").status, 200);
    assert_eq!(stream.next().expect("it is live").data, "a");
    assert_eq!(stream.parser.reconnection_time(), Some(Duration::ZERO));
    for retry in ["", "-1", "+1", "1.5", "x", "86400001", "99999999999999999999", "1%0Adata:x"] {
        let answer = post(server.address, &format!("/channels/c?retry={retry}"), "x");
        assert_refused(&answer, 400, "retry is a number of milliseconds");
    }
    assert_eq!(server.metric("newswire_events_published_total"), 3);
}

#[test]
fn one_event_is_published_on_several_channels() {
    let server = Server::start(&OPEN);
    let mut streams = ["a", "b", "c"].map(|name| Stream::subscribe(server.address, name));
    let answer = post(server.address, "/channels/b,a,b?event=x", "news");
    assert_eq!(answer.status, 200, "{answer:?}");
    let answers: Vec<&str> = answer.text().trim_matches(['[', ']', '\n']).split(",\n ").collect();
    let ids = answers.iter().map(|one| member(one, "id").trim_matches('"')).collect::<Vec<_>>();
    let names: Vec<&str> = answers.iter().map(|one| member(one, "channel")).collect();
    assert_eq!(names, ["\"a\"", "\"b\""], "each channel once");
    assert_eq!(answers.iter().map(|one| member(one, "subscribers")).collect::<Vec<_>>(), ["1", "1"]);
    for (stream, id) in streams.iter_mut().zip(ids) {
        assert_eq!(stream.next(), Some(event("x", "news", id)));
    }
    let text = [("Accept", "text/plain")];
    let answer = ask(server.address, "PUT", "/channels/a,c", &text, "more");
    assert_eq!(answer.text().lines().count(), 2);
    for at in [0, 2] {
        assert_eq!(streams[at].next().expect("it is live").data, "more");
    }
    // A publisher that does not know whether it arrived publishes it again.
    let key = [("Idempotency-Key", "k")];
    let again = || ask(server.address, "POST", "/channels/a,b", &key, "once");
    let first = again();
    assert_eq!(first.text(), again().text());
    assert_eq!(server.metric("newswire_events_published_total"), 6);
}

#[test]
fn of_several_channels_all_get_the_event_or_none() {
    let server = Server::start(&[&OPEN[..], &["--max-channels", "3"]].concat());
    let address = server.address;
    post(address, "/channels/a", "first");
    let key = [("Idempotency-Key", "k")];
    assert_eq!(ask(address, "POST", "/channels/b", &key, "one thing").status, 200);
    // It is in use, so that no other channel takes its place.
    let _held = Stream::subscribe(address, "b");
    eventually("it has a subscriber", || listed(address).contains("\"subscribers\":1"));
    let before = listed(address);
    let large = "x".repeat(2 * 1024 * 1024);
    let many = (0..65).map(|number| format!("n{number}")).collect::<Vec<_>>().join(",");
    for (target, fields, content, status, words) in [
        ("/channels/a,.b", &[][..], "x", 404, "1 to 64 letters"),
        ("/channels/a,,b", &[], "x", 404, "1 to 64 letters"),
        ("/channels/a,b?event=gap", &[], "x", 400, "reserved"),
        ("/channels/a,b", &key, "another thing", 422, "idempotency key"),
        ("/channels/a,b?lines", &[], "x", 400, "one channel"),
        ("/channels/a,b", &[("Content-Type", "text/event-stream")], "data: x\n\n", 400, "one channel"),
        ("/channels/a,new", &[], &large, 413, ""),
        // The table has room for one more, not for two.
        ("/channels/a,new,newer", &[], "x", 503, "as many channels"),
        (&*format!("/channels/{many}"), &[], "x", 400, "64 channels"),
    ] {
        let answer = ask(address, "POST", target, fields, content);
        assert_refused(&answer, status, words);
        assert_eq!(listed(address), before, "{target}");
    }
    assert_eq!(post(address, "/channels/a,new", "x").status, 200);
}

/// Otherwise a client that may publish on names of its own could delete those of all others, and their history.
#[test]
fn a_refused_publish_and_an_upload_without_an_event_cost_no_channel_its_place() {
    let directory = Directory::new("refused");
    let journal = directory.0.join("journal");
    let journal = journal.to_str().expect("it is UTF-8");
    for storage in [&[][..], &["--journal", journal]] {
        let server = Server::start(&[&OPEN[..], &["--max-channels", "4"], storage].concat());
        let address = server.address;
        let key = [("Idempotency-Key", "k")];
        for name in ["a", "b", "c", "d"] {
            assert_eq!(ask(address, "POST", &format!("/channels/{name}"), &key, name).status, 200);
        }
        let before = listed(address);
        let idle =
            ["e", "f", "g", "h"].map(|name| crate::keys::upload(address, &format!("/channels/{name}?lines"), ""));
        let zipped = [("Content-Encoding", "gzip")];
        let zipped_events = [zipped[0], ("Content-Type", "text/event-stream")];
        let large = "\n".repeat(400_000);
        if !storage.is_empty() {
            // The journal cannot make a directory with the name of a file.
            let blocked = ["n1", "n2"].map(|name| std::path::Path::new(journal).join(name));
            blocked.iter().for_each(|path| std::fs::write(path, "").expect("there is room"));
            assert_refused(&post(address, "/channels/n1,n2", "x"), 503, "has not kept it");
            assert_eq!(listed(address), before);
        }
        for (target, fields, content, status) in [
            ("/channels/d,n1,n2", &key[..], "another", 422),
            ("/channels/n1,n2", &[], &large, 413),
            ("/channels/n1?lines", &zipped, "x", 415),
            ("/channels/n1", &zipped_events, "x", 415),
            ("/channels/n1,n2,n3,n4,n5", &[], "x", 503),
        ] {
            assert_eq!(ask(address, "POST", target, fields, content).status, status, "{target}");
            assert_eq!(listed(address), before, "{target}");
        }
        assert_eq!(server.metric("newswire_channels_evicted_total"), 0);
        for mut upload in &idle {
            upload.write_all(b"0\r\n\r\n").expect("the server reads");
            let answer = Answer::read(&mut BufReader::new(upload), "POST");
            assert_eq!(answer.expect("it is answered").status, 200);
        }
        assert_eq!(listed(address), before);
        // As many go as are needed, those that are unused for longest.
        assert_eq!(post(address, "/channels/n3,a,n4", "x").status, 200);
        assert_eq!(server.metric("newswire_channels_evicted_total"), 2);
        let listed = listed(address);
        let names: Vec<&str> = listed.split("\"name\":\"").skip(1).map(|it| &it[..1]).collect();
        assert_eq!(names.len(), 4, "{listed}");
        assert_eq!((names[0], &names[2..]), ("a", &["n", "n"][..]));
    }
}

/// Two requests with one key and different events: one of them is refused, and none of its channels has its event.
#[test]
fn a_key_is_reserved_on_all_channels_for_the_whole_request() {
    let server = Server::start(&OPEN);
    let address = server.address;
    let names = (10..26).map(|number| format!("c{number}")).collect::<Vec<_>>().join(",");
    let mut published = 0;
    for round in 0..300 {
        let publish = |names: &str, data: &'static str| {
            let (key, target) = (format!("k{round}"), format!("/channels/{names}"));
            thread::spawn(move || ask(address, "POST", &target, &[("Idempotency-Key", &key)], data).status)
        };
        let publishers = [publish(&names, "one"), publish("c25", "other")];
        match publishers.map(|it| it.join().expect("no panic")) {
            [200, 422] => published += 16,
            [422, 200] => published += 1,
            statuses => panic!("{statuses:?}"),
        }
        assert_eq!(server.metric("newswire_events_published_total"), published, "{round}");
    }
}

#[test]
fn a_log_that_fails_in_between_is_told_channel_by_channel() {
    let directory = Directory::new("between");
    let journal = directory.0.join("journal");
    let path = journal.to_str().expect("it is UTF-8");
    let server = Server::start(&[&OPEN[..], &["--journal", path]].concat());
    let blocked = journal.join("b");
    std::fs::write(&blocked, "").expect("there is room");
    let key = [("Idempotency-Key", "k")];
    let publish = |fields: &[_]| ask(server.address, "POST", "/channels/c,a,b", fields, "x");
    let answer = publish(&key);
    for words in ["have the event: a.", "do not have it: b, c.", "with the same key"] {
        assert_refused(&answer, 503, words);
    }
    assert_refused(&publish(&[]), 503, "Publish it again on the others.");
    std::fs::remove_file(&blocked).expect("it is there");
    assert_eq!(publish(&key).status, 200);
    // Once with the key, and once without it.
    assert_eq!(member(&listed(server.address), "events"), "2");
    assert_eq!(server.metric("newswire_events_published_total"), 4);
}
