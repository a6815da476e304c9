//! The content of a request, as a handler reads it: whole, or line by line.

use super::Kept;
use crate::server::{PATIENCE, ask, exchange, serve};
use newswire::http::{Limits, Method, Refusal, Status};
use newswire::{Response, Router};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// A server that answers with the length of the content and the content.
fn echo(limits: Limits) -> SocketAddr {
    let mut router = Router::new();
    let handler = |request: &mut newswire::Request<'_>| {
        let content = request.content()?;
        let again = request.content()?;
        assert!(again.is_empty(), "a content is read once");
        let text = format!("{}:", content.len()).into_bytes();
        Ok::<_, Refusal>(Response::bytes(Status::OK, "text/plain", [text, content].concat()))
    };
    router
        .route(Method::Post, "/", handler)
        .route(Method::Put, "/", handler)
        .route(Method::Delete, "/", handler)
        .get("/", handler)
        .route(Method::Post, "/unread", |_| Response::text(Status::OK, "unread\n"));
    serve(router, |server| server.limits(limits).expect("they are in range"))
}

#[test]
fn content_arrives_whole_or_is_refused() {
    let address = echo(Limits { content_bytes: 100, ..Limits::default() });
    let chunked = [("Transfer-Encoding", "chunked")];
    let text = |length: usize| "x".repeat(length);
    for length in [0, 1, 99, 100] {
        let expected = format!("{length}:{}", text(length));
        let answer = ask(address, "POST", "/", &[], text(length));
        assert_eq!((answer.status, answer.text()), (200, expected.as_str()));
        let chunk = format!("{length:x};x\r\n{}\r\n0\r\n\r\n", text(length));
        let chunks = if length == 0 { "0\r\n\r\n" } else { &chunk };
        let answer = ask(address, "PUT", "/", &chunked, chunks);
        assert_eq!((answer.status, answer.text()), (200, expected.as_str()));
    }
    for length in [101, 1_000, 100_000] {
        assert_eq!(ask(address, "POST", "/", &[], text(length)).status, 413);
        let chunk = format!("{length:x}\r\n{}\r\n0\r\n\r\n", text(length));
        assert_eq!(ask(address, "POST", "/", &chunked, chunk).status, 413);
        let pieces = "1\r\nx\r\n".repeat(length) + "0\r\n\r\n";
        assert_eq!(ask(address, "POST", "/", &chunked, pieces).status, 413);
    }
    // Other methods than POST and PUT may have content.
    assert_eq!(ask(address, "DELETE", "/", &[], "").text(), "0:");
    assert_eq!(ask(address, "GET", "/", &[], "xyz").text(), "3:xyz");
    // A POST without content must say so.
    assert_eq!(ask(address, "POST", "/", &[], "").text(), "0:");
    let without = exchange(address, "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(without.starts_with("HTTP/1.1 411 "), "{without}");
    let without = exchange(address, "POST / HTTP/1.0\r\n\r\n");
    assert!(without.starts_with("HTTP/1.1 400 "), "{without}");
}

#[test]
fn the_request_behind_refused_or_unread_content_is_found() {
    let address = echo(Limits { content_bytes: 100, ..Limits::default() });
    for (target, content) in [("/unread", "x".repeat(60)), ("/", "x".repeat(150))] {
        let mut kept = Kept::connect(address);
        let length = content.len();
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        kept.write(head);
        let first = kept.read().expect("it is answered before the content is sent");
        if first.field("connection") == Some("close") {
            assert!(kept.read().is_none());
            continue;
        }
        kept.write(content);
        assert_eq!(kept.get("/").text(), "0:");
    }
}

/// A server that sends each line to the `Receiver`, and refuses the line `refuse`.
fn liner(limits: Limits) -> (SocketAddr, Receiver<String>) {
    let (sender, lines) = channel();
    let sender = Mutex::new(sender);
    let mut router = Router::new();
    router.route(Method::Post, "/", move |request| {
        let sender: Sender<String> = sender.lock().expect("no handler panics").clone();
        let mut count = 0;
        request.lines(|line| {
            if line == b"refuse" {
                return Err(Refusal::new(Status::FORBIDDEN, "It was asked for."));
            }
            count += 1;
            let _ = sender.send(String::from_utf8_lossy(line).into_owned());
            Ok(())
        })?;
        Ok::<_, Refusal>(Response::text(Status::OK, count.to_string()))
    });
    (serve(router, |server| server.limits(limits).expect("they are in range")), lines)
}

#[test]
fn lines_are_the_same_however_they_arrive() {
    let (address, lines) = liner(Limits::default());
    let chunked = [("Transfer-Encoding", "chunked")];
    for (content, expected) in [
        ("", &[][..]),
        ("\n", &[""]),
        ("one", &["one"]),
        ("one\n", &["one"]),
        ("one\ntwo", &["one", "two"]),
        ("one\r\ntwo\r\n", &["one", "two"]),
        ("one\n\n\r\ntwo\n", &["one", "", "", "two"]),
        ("one\rstill one\ntwo\r\r\n\r", &["one\rstill one", "two\r", ""]),
        ("caf\u{e9}\n\u{1f993}", &["caf\u{e9}", "\u{1f993}"]),
    ] {
        let as_chunks = content
            .as_bytes()
            .iter()
            .flat_map(|&byte| [b"1\r\n", &[byte][..], b"\r\n"].concat())
            .chain(*b"0\r\n\r\n")
            .collect::<Vec<u8>>();
        let ways = [(&[][..], content.as_bytes().to_vec()), (&chunked, as_chunks)];
        for (fields, content) in ways {
            let answer = ask(address, "POST", "/", fields, &content);
            assert_eq!(answer.text(), expected.len().to_string(), "{content:?}");
            let heard: Vec<String> = lines.try_iter().collect();
            assert_eq!(heard, expected, "{content:?}");
        }
    }
}

#[test]
fn a_line_is_taken_when_it_arrives_not_at_the_end() {
    let (address, lines) = liner(Limits::default());
    let mut kept = Kept::connect(address);
    kept.write("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for line in ["one", "two", "three"] {
        let (start, rest) = line.split_at(1);
        // A line in two chunks, the second of which in two pieces
        kept.write(format!("1\r\n{start}\r\n{:x}\r\n{rest}", rest.len() + 1));
        assert!(lines.recv_timeout(Duration::from_millis(50)).is_err(), "the line has no end yet");
        kept.write("\n\r\n");
        assert_eq!(lines.recv_timeout(PATIENCE).as_deref(), Ok(line));
    }
    kept.write("7\r\nrefuse\n\r\n");
    assert_eq!(kept.read().expect("it is answered").status, 403);
}

#[test]
fn a_line_beyond_the_limit_is_refused_however_it_arrives() {
    let (address, lines) = liner(Limits { content_bytes: 100, ..Limits::default() });
    let line = |length: usize| "x".repeat(length);
    // Any number of lines, each within the limit
    let many = [line(100), line(99), line(100), String::new()].join("\n").repeat(50);
    assert_eq!(ask(address, "POST", "/", &[], &many).status, 200);
    assert_eq!(lines.try_iter().count(), many.lines().count());

    for content in [line(101) + "\n", line(101), line(10_000), line(5_000) + "\nshort\n"] {
        let answer = ask(address, "POST", "/", &[], &content);
        assert_eq!(answer.status, 413, "in one write: {} bytes", content.len());
        assert_eq!(lines.try_iter().count(), 0);

        let mut kept = Kept::connect(address);
        let length = content.len();
        kept.write(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        let (start, rest) = content.split_at(90);
        kept.write(start);
        thread::sleep(Duration::from_millis(20));
        kept.write(rest);
        let answer = kept.read().expect("it is answered");
        assert_eq!(answer.status, 413, "in two writes: {length} bytes");
    }
}
