//! An event stream as the content of a request: each of its events is published.

use crate::events::{interpret, web_platform_streams};
use crate::server::{Answer, Server, Stream, ask, connect, serve_app};
use newswire::app::{App, Publishers};
use newswire::http::Limits;
use std::io::{BufReader, Write};

const OPEN: [&str; 2] = ["--publish-open", "--quiet"];
const FIELDS: [(&str, &str); 1] = [("Content-Type", "Text/Event-Stream; charset=utf-8")];

fn publish(server: &Server, content: impl AsRef<[u8]>) -> Answer {
    ask(server.address, "POST", "/channels/c", &FIELDS, content)
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.text().contains(words), "{answer:?}");
}

#[test]
fn types_are_kept_and_ids_comments_and_reconnection_times_are_not() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    let content = "\u{feff}: c\r\nid: mine\r\nretry: 7\r\nevent: note\r\ndata: a\r\ndata: b\r\n\r\n\
                   id: only\n\nevent: message\ndata\n\ndata: unfinished";
    let answer = publish(&server, content);
    let events = [stream.next(), stream.next()].map(|event| event.expect("two are published"));
    assert_eq!((events[0].event_type.as_str(), events[0].data.as_str()), ("note", "a\nb"));
    assert_eq!((events[1].event_type.as_str(), events[1].data.as_str()), ("message", ""));
    let id = &events[1].last_event_id;
    assert!(events[0].last_event_id.contains('-') && events[0].last_event_id < *id);
    assert_eq!(answer.text(), format!("{{\"count\":2,\"id\":\"{id}\",\"subscribers\":1}}\n"));
    let raw = String::from_utf8_lossy(&stream.bytes).into_owned();
    for dropped in [": c\n", "mine", "retry: 7", "only", "unfinished"] {
        assert!(!raw.contains(dropped), "{dropped:?} in {raw}");
    }

    let fields = [FIELDS[0], ("Accept", "text/plain")];
    let answer = ask(server.address, "PUT", "/channels/c?lines=off", &fields, "data: x\n\n");
    assert_eq!(answer.text().trim_end(), stream.next().expect("it is live").last_event_id);
    let answer = publish(&server, ": nothing\n\n");
    assert_eq!(answer.text(), "{\"count\":0,\"id\":null,\"subscribers\":1}\n");
}

#[test]
fn the_streams_of_the_web_platform_tests_are_published_as_browsers_dispatch_them() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    for (content, _) in web_platform_streams() {
        assert_eq!(publish(&server, &content).status, 200);
        for message in interpret(&content).0 {
            let heard = stream.next().expect("it is live");
            assert_eq!((heard.event_type, heard.data), (message.event_type, message.data));
        }
    }
}

#[test]
fn an_event_is_published_when_its_blank_line_arrives() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    let mut upload = connect(server.address);
    let head = "POST /channels/c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
                Content-Type: text/event-stream\r\n\r\n";
    upload.write_all(head.as_bytes()).expect("the server reads");
    for piece in ["data: one\n\nda", "ta: two\r\r", "\nevent: note\ndata: three\n\n"] {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        upload.write_all(chunk.as_bytes()).expect("the server reads");
        let data = stream.next().expect("it is live").data;
        assert!(piece.contains(&data), "{data} after {piece:?}");
    }
    upload.write_all(b"0\r\n\r\n").expect("the server reads");
    let answer = Answer::read(&mut BufReader::new(upload), "POST").expect("it answers");
    assert!(answer.text().starts_with("{\"count\":3,"), "{answer:?}");
}

#[test]
fn a_reserved_type_is_refused_behind_the_events_before_it() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    for reserved in ["open", "error", "end", "gap", "heartbeat"] {
        let content = format!("data: before {reserved}\n\nevent: {reserved}\ndata: x\n\ndata: behind\n\n");
        assert_refused(&publish(&server, content), 400, "are reserved");
        assert_eq!(stream.next().expect("it is live").data, format!("before {reserved}"));
    }
    assert_refused(&publish(&server, "event: a\0b\ndata: x\n\n"), 400, "NUL");
}

#[test]
fn what_does_not_go_with_an_event_stream_is_refused() {
    let server = Server::start(&OPEN);
    let content = "data: x\n\n";
    let with = |target: &str, fields: &[(&str, &str)]| {
        ask(server.address, "POST", target, &[&FIELDS, fields].concat(), content)
    };
    assert_refused(&with("/channels/c?event=x", &[]), 400, "have types of their own");
    assert_refused(&with("/channels/c?lines", &[]), 400, "lines or an event stream");
    assert_refused(&with("/channels/c", &[("Idempotency-Key", "k")]), 400, "for one event");
    assert_eq!(server.metric("newswire_events_published_total"), 0);
}

#[test]
fn an_event_that_is_too_large_is_refused_behind_the_events_before_it() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    let line = format!("data: {}\n", "x".repeat(300 * 1024));
    let content = format!("data: before\n\n{line}{line}\ndata: behind\n\n");
    assert_refused(&publish(&server, content), 413, "An event of the content is larger");
    assert_eq!(stream.next().expect("it is live").data, "before");
    assert_eq!(publish(&server, "data: last\n\n").status, 200);
    assert_eq!(stream.next().expect("it is live").data, "last");

    // In the last piece of the content, too.
    let limits = Limits { content_bytes: 16, ..Limits::default() };
    let (address, channels) = serve_app(App { publishers: Publishers::Anyone, limits, ..App::default() });
    let content = "data: a\n\ndata: 17 bytes and more";
    let answer = ask(address, "POST", "/channels/c", &FIELDS, content);
    assert_refused(&answer, 413, "An event of the content is larger");
    assert!(channels.find("c").is_some(), "the event before it is published");
}
