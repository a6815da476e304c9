//! What a connection says beyond one answer to one request.

use super::contents::CHUNKS_REFUSED;
use super::wholes::UNFINISHED;
use super::{Case, NEXT, NEXT_CONTENT, check, each};
use crate::server::{Answer, Server, ask, read_until};
use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

#[test]
fn a_request_that_is_cut_off_is_400() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    each(
        UNFINISHED,
        |wire| wire.escape_ascii().to_string(),
        |wire| {
            let mut socket = server.connect();
            socket.write_all(wire).expect("the server reads");
            socket.shutdown(Shutdown::Write).expect("it is open");
            let mut from_server = BufReader::new(socket);
            let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
            check(&Case::last(400, &[wire]), &answer);
            assert!(Answer::read(&mut from_server, "GET").is_none());
        },
    );
}

/// A person presses Enter once more, and a file that is piped in ends in an empty line.
#[test]
fn empty_lines_alone_are_no_request() {
    let server = Server::start(&["--quiet"]);
    for wire in [
        &b"\r\n"[..],
        b"\n",
        b"\r\n\r\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: localhost\n\n\n\n",
    ] {
        let mut socket = server.connect();
        socket.write_all(wire).expect("the server reads");
        socket.shutdown(Shutdown::Write).expect("it is open");
        let mut from_server = BufReader::new(socket);
        if wire.starts_with(b"GET") {
            let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
            assert_eq!((answer.status, answer.text()), (200, "ok\n"));
        }
        let more = Answer::read(&mut from_server, "GET");
        assert!(more.is_none(), "{more:?} to {}", wire.escape_ascii());
    }
}

/// The route does not matter: one that reads no content, one that does not exist, one without this method.
#[test]
fn broken_chunks_that_have_arrived_are_400_before_any_route() {
    let server = Server::start(&["--quiet"]);
    for line in ["GET /healthz", "POST /nothing", "DELETE /healthz", "OPTIONS *"] {
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        let label = |(_, chunks): &(u16, &[u8])| format!("{line}: {}", chunks.escape_ascii());
        each(CHUNKS_REFUSED, label, |(status, chunks)| {
            let answers = server.exchange([head.as_bytes(), chunks, NEXT].concat());
            assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
            assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{answers}");
            assert!(answers.contains("\r\nConnection: close\r\n"), "{answers}");
        });
    }
}

/// The answer has left before the content arrives. Nothing behind broken content is a request.
#[test]
fn broken_chunks_that_arrive_later_close_the_connection() {
    let server = Server::start(&["--quiet"]);
    let head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    each(
        CHUNKS_REFUSED,
        |(_, chunks)| chunks.escape_ascii().to_string(),
        |(_, chunks)| {
            let mut socket = server.connect();
            socket.write_all(head).expect("the server reads");
            let mut from_server = BufReader::new(socket.try_clone().expect("it is a socket"));
            let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
            assert_eq!((answer.status, answer.text()), (200, NEXT_CONTENT));
            // The server may close after the first broken byte, and then writing fails.
            let _ = socket.write_all(&[chunks, NEXT].concat());
            assert!(Answer::read(&mut from_server, "GET").is_none());
        },
    );
}

#[test]
fn content_with_a_coding_or_of_a_part_is_refused_when_it_is_read() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    for (method, target, field, status) in [
        ("POST", "/channels/c", ("Content-Encoding", "gzip"), 415),
        ("PUT", "/channels/c", ("Content-Encoding", "identity, br"), 415),
        ("POST", "/channels/c?lines", ("Content-Encoding", "zstd"), 415),
        ("POST", "/channels/c", ("Content-Encoding", "Identity"), 200),
        ("PUT", "/channels/c", ("Content-Range", "bytes 0-4/9"), 400),
        ("PUT", "/channels/c?lines", ("Content-Range", ""), 400),
        ("POST", "/channels/c", ("Content-Range", "bytes 0-4/9"), 200),
        // No handler reads these.
        ("PUT", "/nothing", ("Content-Range", "bytes 0-4/9"), 404),
        ("GET", "/healthz", ("Content-Encoding", "gzip"), 200),
    ] {
        let answer = ask(server.address, method, target, &[field], "zebra");
        assert_eq!(answer.status, status, "{method} {target} with {field:?}: {answer:?}");
    }
    let answer = ask(server.address, "GET", "/channels", &[], "");
    assert!(answer.text().contains("\"events\":2,"), "{answer:?}");
}

/// "A server that responds with a final status code instead of reading the entire request content
/// SHOULD indicate whether it intends to close the connection ... or continue reading" (RFC 9110,
/// 10.1.1).
#[test]
fn content_too_large_to_skip_closes_the_connection_and_the_answer_says_so() {
    let server = Server::start(&["--quiet"]);
    for request in [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n",
        "DELETE /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n",
        "POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551615\r\n\r\n",
    ] {
        let mut socket = server.connect();
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut from_server = BufReader::new(socket);
        let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
        assert_eq!(answer.field("connection"), Some("close"), "to {request:?}");
        assert!(Answer::read(&mut from_server, "GET").is_none());
    }
}

#[test]
fn only_content_that_is_read_is_answered_with_100_continue() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let request = |line: &str, length| {
        format!("{line}\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };

    // The content is read.
    let mut socket = server.connect();
    let post = request("POST /channels/requests HTTP/1.1", 5);
    socket.write_all(post.as_bytes()).expect("the server reads");
    let interim = read_until(&mut socket, "\r\n\r\n");
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"zebra").expect("the server reads");
    socket.write_all(NEXT).expect("the server reads");
    let mut from_server = BufReader::new(socket);
    for _ in 0..2 {
        let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    // The content is not read. A client may now send it or not, so that nothing behind it is a request.
    let refused = [
        (200, request("GET /healthz HTTP/1.1", 5)),
        (404, request("POST /nothing HTTP/1.1", 5)),
        (405, request("PUT /healthz HTTP/1.1", 5)),
        (413, request("POST /channels/requests HTTP/1.1", 1_000_000)),
        (417, request("POST /channels/requests HTTP/1.1\r\nExpect: more", 5)),
    ];
    for (status, request) in refused {
        let answer = server.exchange(&request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer} to {request}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }

    // HTTP/1.0 does not have it, and an empty list does not ask for it.
    let post = request("POST /channels/requests HTTP/1.0", 5) + "zebra";
    assert!(server.exchange(post).starts_with("HTTP/1.1 200 "));
    let post = request("POST /channels/requests HTTP/1.1\r\nConnection: close", 5);
    let post = post.replace("100-continue", ",") + "zebra";
    assert!(server.exchange(post).starts_with("HTTP/1.1 200 "));
}

/// A server "MUST send the corresponding responses in the same order that the requests were
/// received" (RFC 9112, 9.3.2).
#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let socket = server.connect();
    let mut to_server = socket.try_clone().expect("it is a socket");
    let writer = thread::spawn(move || {
        for number in 0..1_000 {
            let request = match number % 4 {
                0 => "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
                1 => format!(
                    "POST /channels/requests HTTP/1.1\r\nHost: localhost\r\n\
                     Content-Length: {}\r\n\r\n{number}",
                    number.to_string().len()
                ),
                2 => "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
                _ => "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            };
            to_server.write_all(request.as_bytes()).expect("the server reads");
        }
        to_server.write_all(NEXT).expect("the server reads");
    });
    let mut from_server = BufReader::new(socket);
    for number in 0..1_000 {
        let method = if number % 4 == 2 { "HEAD" } else { "GET" };
        let answer = Answer::read(&mut from_server, method).expect("it is answered");
        let expected = if number % 4 == 3 { 404 } else { 200 };
        assert_eq!(answer.status, expected, "request {number}: {answer:?}");
        if number % 4 == 1 {
            assert!(answer.text().starts_with("{\"id\":"), "{answer:?}");
        }
    }
    let last = Answer::read(&mut from_server, "GET").expect("it is answered");
    assert_eq!(last.text(), NEXT_CONTENT);
    writer.join().expect("it writes");
    assert!(Answer::read(&mut from_server, "GET").is_none());
}

/// User and system time of a process in hundredths of a second (proc(5), `stat`, fields 14 and 15).
fn cpu_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("its name is in parentheses");
    let times = fields.split_whitespace().skip(11).take(2);
    times.map(|field| field.parse::<u64>().expect("it is a number")).sum()
}

/// A server that reads the head anew at each byte takes several times as long for it as for the same bytes of content.
#[test]
fn a_head_that_arrives_byte_by_byte_costs_no_more_than_other_bytes_do() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let send = |before: &str, slowly: &[u8], after: &str| {
        let began = cpu_time(server.pid());
        let mut socket = server.connect();
        socket.write_all(before.as_bytes()).expect("the server reads");
        for byte in slowly {
            socket.write_all(&[*byte]).expect("the server reads");
            // The server wakes for this byte alone.
            thread::sleep(Duration::from_micros(50));
        }
        socket.write_all(after.as_bytes()).expect("the server reads");
        let answer = Answer::read(&mut BufReader::new(socket), "GET").expect("it is answered");
        assert_eq!(answer.status, 200, "{answer:?}");
        cpu_time(server.pid()) - began
    };
    let bytes = vec![b'z'; 15_000];
    let post = format!("POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", bytes.len());
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ";
    // Another process can disturb a measurement: the least of each is compared.
    let (mut content, mut head) = (u64::MAX, u64::MAX);
    for _ in 0..5 {
        content = content.min(send(&post, &bytes, ""));
        head = head.min(send(get, &bytes, "\r\n\r\n"));
        if head <= 2 * content + 5 {
            return;
        }
    }
    panic!("a head took {head} hundredths of a second, a content of the same length {content}");
}
