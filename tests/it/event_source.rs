//! The client: EventSource against servers that do everything a server may do, and much that it may not.

use crate::server::{Dice, PATIENCE, Publisher, Server, connect, eventually, serve};
use newswire::http::client::{CloseHandle, NetworkError, Request};
use newswire::http::{MalformedUrl, Method, Status, Url, Version};
use newswire::sse::{EventSourceError, Message, ReadyState, Step};
use newswire::{Emitter, EventSource, Router};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const OPENING: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
const FINISHED: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// A server of one test: for each connection it reads a request, and plays what `script` says.
pub(crate) struct Hostile {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Receiver<String>,
}

/// `script` is given the number of the connection, from 0, the request, and the socket.
pub(crate) fn hostile(mut script: impl FnMut(usize, &str, &mut TcpStream) + Send + 'static) -> Hostile {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    let (sender, requests) = channel();
    thread::spawn(move || {
        for (number, socket) in listener.incoming().enumerate() {
            let mut socket = socket.expect("it accepts");
            socket.set_nodelay(true).expect("it is a socket");
            let request = read_request(&mut socket);
            let _ = sender.send(request.clone());
            script(number, &request, &mut socket);
        }
    });
    Hostile { address, requests }
}

/// These responses, one a connection, and then a 204 for each.
pub(crate) fn responses(responses: Vec<Vec<u8>>) -> Hostile {
    hostile(move |number, _, socket| {
        let response = responses.get(number).map_or(FINISHED.as_bytes(), |response| response);
        // A client that refuses a response does not read all of it.
        let _ = socket.write_all(response);
    })
}

fn read_request(socket: &mut TcpStream) -> String {
    socket.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|bytes| bytes == 1) {
        request.push(byte[0]);
    }
    let mut request = String::from_utf8(request).expect("a request is UTF-8");
    let length = request.split("Content-Length: ").nth(1).and_then(|rest| rest.split('\r').next());
    let length: u64 = length.map_or(0, |length| length.parse().expect("it is a number"));
    // What is larger than that stays unread on purpose.
    if length < 100_000 {
        socket.take(length).read_to_string(&mut request).expect("the client sends it all");
    }
    request
}

impl Hostile {
    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    fn source(&self) -> EventSource {
        EventSource::get(&self.url("/stream")).expect("it is a URL")
    }

    pub(crate) fn request(&self) -> String {
        self.requests.recv_timeout(PATIENCE).expect("there is another request")
    }
}

fn data(source: EventSource) -> Vec<String> {
    source.map(|event| event.expect("nothing fails").data).collect()
}

fn next_step(source: &mut EventSource) -> Step {
    source.step().expect("it is not closed").expect("it has not failed")
}

/// Steps until it reconnects: the wait, and why.
fn reconnecting(source: &mut EventSource) -> (Duration, Option<NetworkError>) {
    loop {
        if let Step::Reconnecting { after, cause } = next_step(source) {
            return (after, cause);
        }
    }
}

/// The error that it fails with.
fn failure(mut source: EventSource) -> EventSourceError {
    let error = loop {
        match source.step().expect("it fails before it ends") {
            Ok(Step::Reconnecting { cause, .. }) => panic!("it reconnects: {cause:?}"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(source.ready_state(), ReadyState::Closed);
    assert!(source.step().is_none(), "an error is final");
    error
}

fn is_broken(cause: Option<NetworkError>, kind: ErrorKind) -> bool {
    matches!(cause, Some(NetworkError::Broken(error)) if error.kind() == kind)
}

/// A BOM, each of the three line ends, an id, a comment, and an unfinished event.
const STREAM: &str =
    "\u{feff}: hello\r\nid: 7\r\nevent: note\r\ndata: caf\u{e9}\r\n\r\ndata: a\rdata: b\r\rdata: c\n\ndata: cut";

fn is_stream(messages: &[Message]) -> bool {
    let found: Vec<(&str, &str, &str)> =
        messages.iter().map(|m| (&*m.event_type, &*m.data, &*m.last_event_id)).collect();
    found == [("note", "caf\u{e9}", "7"), ("message", "a\nb", "7"), ("message", "c", "7")]
}

/// `STREAM` in every way in which HTTP can frame it: head and content.
fn framings() -> Vec<(String, Vec<u8>)> {
    let kind = "Content-Type: text/event-stream\r\n";
    let length = STREAM.len();
    let chunked = |size: usize, extension: &str, trailers: &str| {
        let mut content = Vec::new();
        for chunk in STREAM.as_bytes().chunks(size) {
            content.extend(format!("{:X}{extension}\r\n", chunk.len()).bytes());
            content.extend([chunk, b"\r\n"].concat());
        }
        content.extend(format!("00{extension}\r\n{trailers}\r\n").bytes());
        content
    };
    let with = |head: &str, content: Vec<u8>| (head.to_owned(), content);
    let whole = || STREAM.as_bytes().to_vec();
    let chunks = format!("HTTP/1.1 200 OK\r\n{kind}Transfer-Encoding: chunked\r\n\r\n");
    vec![
        with(OPENING, whole()),
        with(&format!("HTTP/1.0 200 OK\r\n{kind}\r\n"), whole()),
        with(&format!("HTTP/1.1 200\n{}\n\n", kind.trim_end()), whole()),
        with(&format!("HTTP/1.9 200 \r\n{kind}Content-Length: {length}\r\n\r\n"), whole()),
        with(&format!("HTTP/1.1 200 OK\r\n{kind}content-length: {length}, {length}\r\n\r\n"), whole()),
        with(&chunks, chunked(1, "", "")),
        with(&chunks, chunked(5, ";name=\"a value\"", "Trailer: x\r\nAnother: y\r\n")),
        with(&chunks, chunked(1_000, "", "")),
        // "The Transfer-Encoding overrides the Content-Length" (RFC 9112, 6.3).
        with(&chunks.replace("Tr", "Content-Length: 3\r\nTr"), chunked(7, "", "")),
        with(&format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{OPENING}"), whole()),
        with("HTTP/1.1 200 OK\r\nContent-Type:\r\n  text/event-stream;\r\n\tcharset=x\r\n\r\n", whole()),
    ]
}

#[test]
fn a_stream_arrives_in_every_framing_whole_byte_by_byte_and_cut_anywhere() {
    for (head, content) in framings() {
        let response = [head.as_bytes(), &content].concat();
        let length = response.len();
        let text = String::from_utf8_lossy(&response).into_owned();
        // 0 is whole; then two pieces; at last byte by byte.
        let pieces = response.clone();
        let server = hostile(move |number, _, socket| {
            if number < length {
                let (before, after) = pieces.split_at(number);
                socket.write_all(before).expect("the client reads");
                // So that they arrive apart.
                thread::sleep(Duration::from_millis(1));
                return socket.write_all(after).expect("the client reads");
            }
            for byte in &pieces {
                socket.write_all(&[*byte]).expect("the client reads");
                thread::sleep(Duration::from_micros(100));
            }
        });
        for cut in 0..=length {
            let mut source = server.source().once();
            let messages: Vec<Message> = source.by_ref().map(|event| event.expect("it is sound")).collect();
            assert!(is_stream(&messages), "{text:?} cut at {cut}: {messages:?}");
        }
    }
}

#[test]
fn the_bytes_of_the_stream_are_told_as_they_arrive_and_before_their_events() {
    for (head, content) in framings() {
        let server = responses(vec![[head.as_bytes(), &content].concat()]);
        let mut source = server.source().once();
        assert_eq!(source.ready_state(), ReadyState::Connecting);
        assert!(matches!(next_step(&mut source), Step::Open));
        assert_eq!(source.ready_state(), ReadyState::Open);
        assert_eq!(source.response().expect("it is open").status, Status::OK);
        let (mut bytes, mut events) = (Vec::new(), 0);
        while let Some(step) = source.step() {
            match step.expect("it is sound") {
                Step::Bytes(piece) => bytes.extend(piece),
                Step::Event(message) => {
                    events += 1;
                    let ended = String::from_utf8_lossy(&bytes).into_owned();
                    let last = message.data.rsplit('\n').next().unwrap_or_default().to_owned();
                    assert!(ended.contains(&format!("data: {last}")), "{last} before its bytes");
                }
                step => panic!("{step:?}"),
            }
        }
        assert_eq!((String::from_utf8_lossy(&bytes).as_ref(), events), (STREAM, 3));
        assert_eq!(source.ready_state(), ReadyState::Closed);
    }
}

/// The first event must arrive while the response goes on.
#[test]
fn an_event_arrives_before_the_one_behind_it_is_sent() {
    let mut router = Router::new();
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(Some(told));
    router.get("/stream", move |request| {
        let told = told.lock().expect("nothing panics").take().expect("it is asked once");
        Emitter::stream(request, move |mut emitter| {
            for data in ["one", "two", "three"] {
                emitter.send(data)?;
                let _ = told.recv_timeout(PATIENCE);
            }
            Ok(())
        })
    });
    let address = serve(router, |server| server);
    let mut source = EventSource::get(&format!("http://{address}/stream")).expect("it is a URL").once();
    for expected in ["one", "two", "three"] {
        assert_eq!(source.next().expect("it goes on").expect("it is sound").data, expected);
        go_on.send(()).expect("the stream waits");
    }
    assert!(source.next().is_none());
}

#[test]
fn a_response_that_ends_early_anywhere_is_a_broken_connection() {
    for (head, content) in framings() {
        let response = [head.as_bytes(), &content].concat();
        let text = String::from_utf8_lossy(&response).into_owned();
        let framing = head.to_ascii_lowercase();
        let is_framed = framing.contains("content-length") || framing.contains("chunked");
        // What the closing of the connection ends cannot end early.
        let ends = if is_framed { response.len() } else { head.len() };
        for end in 0..ends {
            let server = responses(vec![response[..end].to_vec()]);
            let mut source = server.source();
            let (_, cause) = reconnecting(&mut source);
            assert!(is_broken(cause, ErrorKind::UnexpectedEof), "{text:?} up to {end}");
        }
    }
}

#[test]
fn what_is_not_http_is_told_at_once_and_tried_again() {
    let field = "Name: value\r\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    let most = field.repeat(199);
    for (response, is_taken) in [
        ("SSH-2.0-x".to_owned(), false),
        // A TLS alert
        ("\x15\x03\x03\x00\x02\x02\x28".to_owned(), false),
        ("HTTP/2 200\r\n\r\n".to_owned(), false),
        ("HTTP/1.1 20\r\n\r\n".to_owned(), false),
        ("HTTP/1.1 2000\r\n\r\n".to_owned(), false),
        ("HTTP/1.1 +20 OK\r\n\r\n".to_owned(), false),
        ("HTTP/1.1 099 OK\r\n\r\n".to_owned(), false),
        ("\r\n\r\n".to_owned(), false),
        (format!("{head}No colon\r\n\r\n"), false),
        (format!("{head}Space : before colon\r\n\r\n"), false),
        (format!("{head}: no name\r\n\r\n"), false),
        (format!("{head}A: b\rc\r\n\r\n"), false),
        ("HTTP/1.1 200 OK\r\n folded: onto nothing\r\n\r\n".to_owned(), false),
        (format!("{head}{most}\r\n"), true),
        (format!("{head}{most}{field}\r\n"), false),
        (format!("{head}Name: {}\r\n\r\n", "x".repeat(60_000)), true),
        (format!("{head}Name: {}", "x".repeat(70_000)), false),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(3_000), false),
        (format!("{head}Content-Length: +5\r\n\r\n"), false),
        (format!("{head}Content-Length: \r\n\r\n"), false),
        (format!("{head}Content-Length: 99999999999999999999\r\n\r\n"), false),
        (format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), false),
        (format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n"), false),
        (format!("{head}Transfer-Encoding: chunked, chunked\r\n\r\n"), false),
        (format!("{head}Transfer-Encoding: \r\nContent-Length: 5\r\n\r\n"), false),
        (format!("{}Transfer-Encoding: chunked\r\n\r\n", head.replace("1.1", "1.0")), false),
    ] {
        let wire = response.clone().into_bytes();
        // It stays open: a client that waits for more of it never ends.
        let server = hostile(move |number, _, socket| {
            let response = if number == 0 { &wire } else { FINISHED.as_bytes() };
            let _ = socket.write_all(response);
            let _ = socket.read(&mut [0]);
        });
        let mut source = server.source();
        match next_step(&mut source) {
            Step::Open => assert!(is_taken, "{response:?}"),
            Step::Reconnecting { cause: Some(NetworkError::Malformed(_)), .. } => {
                assert!(!is_taken, "{response:?}")
            }
            step => panic!("{step:?} for {response:?}"),
        }
    }
}

/// However the pieces are cut, what came before the fault is given, and then the fault is told.
#[test]
fn an_event_in_front_of_a_broken_chunk_is_given() {
    let content = "b\r\ndata: one\n\n\r\nb\r\ndata: two\n\n\r\nBROKEN\r\n";
    let response = OPENING.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n") + content;
    for size in [1, 1_000] {
        let response = response.clone().into_bytes();
        let server = hostile(move |_, _, socket| {
            for piece in response.chunks(size) {
                let _ = socket.write_all(piece);
                thread::sleep(Duration::from_micros(100));
            }
            let _ = socket.read(&mut [0]);
        });
        let mut source = server.source();
        let both: Vec<_> = source.by_ref().take(2).map(|event| event.expect("it is sound").data).collect();
        assert_eq!(both, ["one", "two"]);
        let (_, cause) = reconnecting(&mut source);
        assert!(matches!(cause, Some(NetworkError::Malformed(_))), "{cause:?}");
    }
}

#[test]
fn a_reset_and_a_half_close_are_reconnected_and_told_apart() {
    let content = "x".repeat(1_000_000);
    let server = hostile(|number, _, socket| {
        let _ = socket.write_all(format!("{OPENING}retry: 1\ndata: {number}\n\n").as_bytes());
        match number {
            // Closing with unread content is a reset, which erases nothing that has arrived already.
            0 => {
                // The reset needs unread content, which a busy machine sends late.
                let _ = socket.peek(&mut [0]);
                thread::sleep(Duration::from_millis(200));
            }
            1 => {
                socket.shutdown(Shutdown::Write).expect("it is connected");
                let _ = socket.read_to_end(&mut Vec::new());
            }
            _ => {}
        }
    });
    let request = Request::new(&server.url("/")).expect("it is a URL");
    let request = Request { method: Method::Post, content: content.into(), ..request };
    let mut source = EventSource::new(request);
    assert_eq!(source.next().expect("it goes on").expect("it is sound").data, "0");
    let (_, cause) = reconnecting(&mut source);
    let shown = format!("{cause:?}");
    assert!(is_broken(cause, ErrorKind::ConnectionReset), "{shown}");
    assert_eq!(source.next().expect("it goes on").expect("it is sound").data, "1");
    assert!(reconnecting(&mut source).1.is_none());
    assert_eq!(source.next().expect("it goes on").expect("it is sound").data, "2");
}

#[test]
fn a_server_that_refuses_the_content_is_heard_although_it_does_not_read_it() {
    let server = hostile(|_, _, socket| {
        let _ = socket.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
        // The client now waits for room to write, and the closing resets its connection.
        thread::sleep(Duration::from_millis(200));
    });
    let request = Request::new(&server.url("/")).expect("it is a URL");
    let request = Request { method: Method::Post, content: vec![b'x'; 30_000_000], ..request };
    let error = failure(EventSource::new(request));
    assert!(matches!(error, EventSourceError::Status(Status(413), _)), "{error}");
}

#[test]
fn only_200_is_a_stream_and_204_is_the_end() {
    for status in [
        200, 201, 202, 205, 206, 299, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 404, 410, 429, 500, 502, 503,
        600, 999,
    ] {
        let response = format!("HTTP/1.1 {status} x\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n");
        let server = responses(vec![response.into_bytes()]);
        if status == 200 {
            assert_eq!(data(server.source().once()), ["x"]);
            continue;
        }
        // A redirect without a Location is no redirect.
        match failure(server.source()) {
            EventSourceError::Status(found, _) => assert_eq!(found.0, status),
            error => panic!("{status}: {error}"),
        }
    }
    let server = responses(vec![]);
    let mut source = server.source();
    assert!(source.step().is_none());
    assert_eq!(source.ready_state(), ReadyState::Closed);
    assert_eq!(source.response().expect("it is kept").status, Status::NO_CONTENT);
    // What is refused is closed at once, although its head is kept.
    let (sender, closed) = channel();
    let server = hostile(move |_, _, socket| {
        socket.write_all(b"HTTP/1.1 404 x\r\nReason: y\r\n\r\n").expect("the client reads");
        let _ = sender.send(socket.read(&mut [0]).is_ok_and(|bytes| bytes == 0));
    });
    let mut source = server.source();
    assert!(source.next().expect("it fails").is_err());
    assert!(closed.recv_timeout(PATIENCE).expect("the server reads on"));
    assert_eq!(source.response().expect("it is kept").field("reason"), Some("y"));
    let error = EventSourceError::Status(Status(404), None).to_string();
    assert_eq!(error, "the server answered with the status 404 instead of 200");
}

#[test]
fn the_media_type_is_that_of_an_event_stream_or_the_connection_fails() {
    for (fields, refused) in [
        ("Content-Type: text/event-stream", None),
        ("Content-Type: text/event-stream;", None),
        ("Content-Type: text/event-stream;charset=windows-1252", None),
        ("content-type:TEXT/Event-Stream ; charset=UTF-8;x=y\t", None),
        ("Content-Type: text/html, text/event-stream", None),
        ("Content-Type: text/html\r\nContent-Type: text/event-stream", None),
        ("Content-Type: text/event-stream\r\nContent-Type: */*", None),
        ("Content-Type: text/event-stream\r\nContent-Encoding: identity", None),
        ("Content-Type: text/event-streams", Some("text/event-streams")),
        ("Content-Type: text/event-stream+x", Some("text/event-stream+x")),
        ("Content-Type: xtext/event-stream", Some("xtext/event-stream")),
        ("Content-Type: text/x;text/event-stream", Some("text/x")),
        ("Content-Type: text/event-stream\r\nContent-Type: text/html; charset=x", Some("text/html")),
        ("Content-Type: event-stream", Some("")),
        ("Content-Type:", Some("")),
        ("X: y", Some("")),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\ndata: x\n\n");
        let server = responses(vec![response.into_bytes()]);
        match refused {
            None => assert_eq!(data(server.source().once()), ["x"], "{fields}"),
            Some(expected) => match failure(server.source()) {
                EventSourceError::MediaType(found) => assert_eq!(found, expected, "{fields}"),
                error => panic!("{fields}: {error}"),
            },
        }
    }
    let server = responses(vec![OPENING.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n").into()]);
    let error = failure(server.source()).to_string();
    assert_eq!(error, "the server sent the content coding \"gzip\" that was not asked for");
    // A terminal obeys no byte of the server.
    let shown = EventSourceError::MediaType("a/\u{9b}2J\u{1b}".into()).to_string();
    assert!(!shown.contains(char::is_control), "{shown:?}");
}

#[test]
fn redirects_are_followed_with_the_method_that_fetch_says() {
    use Method::{Get, Post, Put};
    for (status, method, expected) in [
        (301, Get, "GET"),
        (302, Get, "GET"),
        (303, Get, "GET"),
        (307, Get, "GET"),
        (308, Get, "GET"),
        (301, Post, "GET"),
        (302, Post, "GET"),
        (303, Post, "GET"),
        (307, Post, "POST"),
        (308, Post, "POST"),
        (301, Put, "PUT"),
        (303, Put, "GET"),
    ] {
        let redirect = format!("HTTP/1.1 {status} x\r\nLocation: ../moved?a=b#c\r\nContent-Length: 5\r\n\r\nxxxxx");
        let stream = format!("{OPENING}retry: 1\ndata: x\n\n");
        let server = responses(vec![redirect.into(), stream.into()]);
        let request = Request::new(&server.url("/a/b/c")).expect("it is a URL");
        let content = if method == Get { vec![] } else { b"content".to_vec() };
        let request = Request { method, content, ..request };
        let request = request.field("Content-Type", "text/plain").field("Authorization", "Bearer x");
        let mut source = EventSource::new(request);
        assert_eq!(source.next().expect("it goes on").expect("it is sound").data, "x");
        assert_eq!(source.response().expect("it is open").url.to_string(), server.url("/a/moved?a=b"));
        assert!(source.next().is_none());

        let first = server.request();
        assert!(first.starts_with(&format!("{} /a/b/c HTTP/1.1\r\n", method.name())), "{first}");
        let second = server.request();
        assert!(second.starts_with(&format!("{expected} /a/moved?a=b HTTP/1.1\r\n")), "{second}");
        assert!(second.contains("Authorization: Bearer x\r\n"), "the origin is the same: {second}");
        let is_dropped = expected == "GET" && method != Get;
        assert_eq!(second.contains("Content-Type: text/plain\r\n"), !is_dropped, "{second}");
        assert_eq!(second.ends_with("content"), expected != "GET", "{second}");
        // The next connection begins where the first one did.
        let third = server.request();
        assert!(third.starts_with(&format!("{} /a/b/c HTTP/1.1\r\n", method.name())), "{third}");
    }
}

#[test]
fn a_token_is_not_sent_to_the_origin_that_a_redirect_names() {
    let other = responses(vec![format!("{OPENING}data: x\n\n").into()]);
    let location = other.url("/other");
    let server = responses(vec![format!("HTTP/1.1 307 x\r\nLocation: {location}\r\n\r\n").into()]);
    let source = server.source().field("authorization", "Bearer x").field("Cookie", "y").field("Host", "z");
    let source = source.field("Proxy-Authorization", "v").field("X-Mine", "w");
    assert_eq!(data(source.once()), ["x"]);
    let (first, second) = (server.request(), other.request());
    for field in ["authorization: Bearer x", "Cookie: y", "Host: z", "Proxy-Authorization: v", "X-Mine: w"] {
        assert!(first.contains(&format!("\r\n{field}\r\n")), "{first}");
        assert_eq!(second.contains(field), field == "X-Mine: w", "{second}");
    }
    assert!(second.contains(&format!("\r\nHost: {}\r\n", other.address)), "{second}");
}

#[test]
fn twenty_redirects_are_followed_and_a_loop_is_told() {
    let chain = |length: usize| {
        hostile(move |number, _, socket| {
            let redirect = format!("HTTP/1.1 302 x\r\nLocation: /{}\r\n\r\n", number + 1);
            let stream = format!("{OPENING}data: {number}\n\n");
            let response = if number < length { redirect } else { stream };
            socket.write_all(response.as_bytes()).expect("the client reads");
        })
    };
    assert_eq!(data(chain(20).source().once()), ["20"]);
    match failure(chain(21).source()) {
        EventSourceError::Network(NetworkError::TooManyRedirects(url, false)) => {
            assert!(url.to_string().ends_with("/21"), "{url}")
        }
        error => panic!("{error}"),
    }
    let server = hostile(|number, _, socket| {
        let _ = write!(socket, "HTTP/1.1 301 x\r\nLocation: /{}\r\n\r\n", number % 3);
    });
    let error = failure(server.source());
    assert!(matches!(error, EventSourceError::Network(NetworkError::TooManyRedirects(_, true))), "{error}");

    for (location, expected) in [("https://127.0.0.1/x", true), ("ftp://127.0.0.1/", false), ("http://a@b/", false)] {
        let server = responses(vec![format!("HTTP/1.1 301 x\r\nLocation: {location}\r\n\r\n").into()]);
        match failure(server.source()) {
            EventSourceError::Network(NetworkError::Url(error)) => {
                assert_eq!(error == MalformedUrl::NeedsTls, expected, "{location}: {error}")
            }
            error => panic!("{error}"),
        }
    }
}

#[test]
fn the_request_is_that_of_an_event_source_with_what_the_caller_adds() {
    let server = responses(vec![]);
    let host = server.address;
    assert!(data(server.source()).is_empty());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        server.request(),
        format!(
            "GET /stream HTTP/1.1\r\nHost: {host}\r\nUser-Agent: newswire/{version}\r\nAccept-Encoding: identity\r\n\
             Connection: close\r\nCache-Control: no-store\r\nAccept: text/event-stream\r\n\r\n"
        )
    );

    let request = Request::new(&server.url("/?q=caf\u{e9} x")).expect("it is a URL");
    let request = Request { method: Method::Post, version: Version::Http10, content: b"{}".into(), ..request };
    let request = request.field("accept", "application/json, text/event-stream").field("Token", "s3cret");
    let source = EventSource::new(request).field("user-agent", "mine").field("TOKEN", "s3cr\u{e9}t");
    let shown = format!("{source:?}");
    assert!(shown.contains("TOKEN") && !shown.contains("s3cr"), "{shown}");
    assert!(data(source.last_event_id("caf\u{e9} 7")).is_empty());
    assert_eq!(
        server.request(),
        format!(
            "POST /?q=caf%C3%A9%20x HTTP/1.0\r\nHost: {host}\r\nAccept-Encoding: identity\r\nConnection: close\r\n\
             accept: application/json, text/event-stream\r\nCache-Control: no-store\r\nuser-agent: mine\r\n\
             TOKEN: s3cr\u{e9}t\r\nLast-Event-ID: caf\u{e9} 7\r\nContent-Length: 2\r\n\r\n{{}}"
        )
    );

    // Nothing of the caller's can begin another field.
    for (name, value) in [
        ("A", "b\r\nC: d"),
        ("A", "b\nC"),
        ("A", "\0"),
        ("A b", "c"),
        ("", "a"),
        ("A:", "a"),
        ("Content-Length", "7"),
        ("transfer-encoding", "chunked"),
    ] {
        let error = failure(server.source().field(name, value));
        assert!(matches!(error, EventSourceError::Network(NetworkError::Field(_))), "{name:?}: {error}");
    }
    let error = failure(server.source().last_event_id("7\r\nA: b"));
    assert!(matches!(error, EventSourceError::Network(NetworkError::Field(_))), "{error}");
}

#[test]
fn a_response_that_is_no_stream_is_read_with_its_fields() {
    let whole = "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nA: b\r\na: c\r\n\r\nyes and more";
    let read = |method, wire: &str| {
        let server = responses(vec![wire.into()]);
        let request = Request::new(&server.url("/")).expect("it is a URL");
        let request = Request { method, ..request };
        let mut response = request.send(&CloseHandle::default()).expect("it is sound");
        let mut content = Vec::new();
        while response.read(&mut content).expect("it is sound") {}
        (response, String::from_utf8(content).expect("it is text"))
    };
    let (response, content) = read(Method::Get, whole);
    assert_eq!((response.status, response.version), (Status::OK, Version::Http10));
    assert_eq!(response.values("a").collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(content, "yes");
    // "Any response to a HEAD request and any response with a 1xx, 204, or 304 status code is always
    // terminated by the first empty line" (RFC 9112, 6.3).
    assert_eq!(read(Method::Head, whole).1, "");
    assert_eq!(read(Method::Get, &whole.replace("200", "304")).1, "");
    assert_eq!(read(Method::Get, &whole.replace("200", "404")).1, "yes");
}

#[test]
fn the_last_event_id_comes_back_as_it_was_sent_until_it_is_emptied() {
    let streams = [
        "retry: 0\nid: 1\ndata: x\n\nid: not dispatched\n",
        "data: x\n\n",
        "id: caf\u{e9} \u{1f98a}\n\n",
        "id: a\0b\ndata: x\n\n",
        "id\ndata: x\n\n",
        "data: x\n\n",
    ];
    let server = responses(streams.iter().map(|stream| format!("{OPENING}{stream}").into()).collect());
    assert_eq!(data(server.source().last_event_id("0")).len(), 5);
    for expected in ["0", "1", "1", "caf\u{e9} \u{1f98a}", "caf\u{e9} \u{1f98a}", "", ""] {
        let request = server.request();
        let found = request.split("Last-Event-ID: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        assert_eq!(found.unwrap_or(""), expected, "{request}");
        assert_eq!(found.is_none(), expected.is_empty(), "an empty one is not sent: {request}");
    }
}

#[test]
fn the_server_sets_the_reconnection_time_and_failures_without_an_event_lengthen_it() {
    let server = responses(
        ["", "retry: 20\n", "retry: 2x\n", "data: x\n\n", "", ""].map(|s| format!("{OPENING}{s}").into()).into(),
    );
    let mut source = server.source();
    let mut waits = Vec::new();
    // The first wait is the client's own 3 s, and the last one is followed by the 204.
    for _ in 0..6 {
        let (after, cause) = reconnecting(&mut source);
        assert!(cause.is_none());
        waits.push(after.as_millis());
    }
    assert!(source.step().is_none());
    let jittered = |least: u128| least..=least + least / 2;
    assert_eq!(waits[0], 3_000);
    assert!(jittered(100).contains(&(waits[1] - 20)), "{waits:?}");
    assert!(jittered(200).contains(&(waits[2] - 20)), "{waits:?}");
    assert_eq!(waits[3], 20, "an event ends the back-off: {waits:?}");
    assert!(jittered(100).contains(&(waits[4] - 20)), "{waits:?}");
    assert!(jittered(200).contains(&(waits[5] - 20)), "{waits:?}");
}

#[test]
fn a_reconnection_time_beyond_every_clock_can_be_waited_for_and_closed() {
    let server = responses(vec![format!("{OPENING}retry: 99999999999999999999999\ndata: x\n\n").into()]);
    let mut source = server.source();
    let (after, _) = reconnecting(&mut source);
    assert_eq!(after, Duration::from_millis(u64::MAX));
    closes(source, Duration::from_millis(100));
}

/// Steps on in a thread of its own, closes it from here after `wait`, and expects the end.
fn closes(mut source: EventSource, wait: Duration) {
    let handle = source.close_handle();
    let (sender, ended) = channel();
    thread::spawn(move || {
        while let Some(step) = source.step() {
            step.expect("a close is no failure");
        }
        let _ = sender.send(source.ready_state());
    });
    thread::sleep(wait);
    assert!(ended.try_recv().is_err(), "it ended by itself");
    handle.close();
    assert!(handle.is_closed());
    assert_eq!(ended.recv_timeout(PATIENCE).expect("a close interrupts it"), ReadyState::Closed);
}

#[test]
fn another_thread_closes_it_while_it_reads_or_waits() {
    let silent = |opening: &'static str| {
        hostile(move |_, _, socket| {
            socket.write_all(opening.as_bytes()).expect("the client reads");
            let _ = socket.read(&mut [0]);
        })
    };
    let wait = Duration::from_millis(200);
    // Within the head, within the stream, before the reconnection
    closes(silent("").source(), wait);
    closes(silent("").source().once(), wait);
    closes(silent("HTTP/1.1 200").source(), wait);
    closes(silent("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n").source(), wait);
    closes(responses(vec![format!("{OPENING}retry: 3600000\n").into()]).source(), wait);
    // The client's content that the server does not take
    let server = silent("");
    let request = Request::new(&server.url("/")).expect("it is a URL");
    closes(EventSource::new(Request { content: vec![b'x'; 30_000_000], ..request }), wait);

    // Before it begins, nothing is asked.
    let server = responses(vec![]);
    let mut source = server.source();
    source.close_handle().close();
    assert_eq!(source.ready_state(), ReadyState::Closed);
    assert!(source.step().is_none());
    assert!(server.requests.try_recv().is_err());

    // What has been received and not given is dropped, as in a browser.
    let server = responses(vec![format!("{OPENING}data: 1\n\ndata: 2\n\n").into()]);
    let mut source = server.source();
    assert!(source.next().is_some());
    source.close_handle().close();
    assert!(source.next().is_none());
}

/// Whenever it is closed, it ends: also within the connect, when no socket is there to be shut down.
#[test]
fn a_close_is_never_missed() {
    let server = hostile(|_, _, socket| {
        let _ = socket.read(&mut [0]);
    });
    let mut dice = Dice::new(3);
    for round in 0..1_500 {
        let mut source = server.source();
        let handle = source.close_handle();
        let (sender, ended) = channel();
        let (start, started) = channel();
        thread::spawn(move || {
            start.send(Instant::now()).expect("the test waits");
            let _ = sender.send(source.step().is_none());
        });
        let closing = started.recv().expect("it starts") + Duration::from_micros(dice.below(400) as u64);
        while Instant::now() < closing {
            std::hint::spin_loop();
        }
        handle.close();
        assert_eq!(ended.recv_timeout(PATIENCE), Ok(true), "in round {round}");
    }
}

#[test]
fn silence_past_the_idle_deadline_is_a_broken_connection_and_a_comment_is_no_silence() {
    let server = hostile(|number, _, socket| {
        let opening = if number == 0 { "" } else { OPENING };
        socket.write_all(opening.as_bytes()).expect("the client reads");
        if number == 2 {
            for _ in 0..30 {
                thread::sleep(Duration::from_millis(100));
                socket.write_all(b":\n").expect("the client reads");
            }
            socket.write_all(b"data: alive\n\n").expect("the client reads");
        }
        let _ = socket.read(&mut [0]);
    });
    let with_deadline = |milliseconds| {
        let request = Request::new(&server.url("/")).expect("it is a URL");
        Request { idle_deadline: Some(Duration::from_millis(milliseconds)), ..request }
    };
    let mut source = EventSource::new(with_deadline(1_500));
    // Before the head, and within the stream
    for _ in 0..2 {
        let (_, cause) = reconnecting(&mut source);
        assert!(is_broken(cause, ErrorKind::TimedOut));
    }
    loop {
        match next_step(&mut source) {
            Step::Event(message) => break assert_eq!(message.data, "alive"),
            Step::Reconnecting { cause, .. } => panic!("{cause:?}"),
            _ => {}
        }
    }
    let source = EventSource::new(Request { content: vec![b'x'; 30_000_000], ..with_deadline(100) });
    let error = failure(source.once()).to_string();
    assert_eq!(error, "the connection broke: nothing arrived within the idle deadline");
    let error = failure(EventSource::new(with_deadline(100)).once()).to_string();
    assert_eq!(error, "the connection broke: nothing arrived within the idle deadline");
}

#[test]
fn an_endless_line_is_told_by_a_typed_error_and_does_not_fill_the_memory() {
    const LIMIT: usize = 100_000;
    for piece in ["x", "data: x\n", "event: "] {
        let piece = piece.repeat(1_000);
        let server = hostile(move |_, _, socket| {
            let _ = socket.write_all(format!("{OPENING}data: before\n\n").as_bytes());
            while socket.write_all(piece.as_bytes()).is_ok() {}
        });
        let mut source = server.source().event_bytes(LIMIT);
        let (mut bytes, mut events) = (0, 0);
        let error = loop {
            match source.step().expect("it fails") {
                Ok(Step::Bytes(piece)) => bytes += piece.len(),
                Ok(Step::Event(_)) => events += 1,
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(error, EventSourceError::EventTooLarge(LIMIT)), "{error}");
        assert_eq!(events, 1);
        // Eight bytes of a line of data are two of the data.
        assert!(bytes <= 4 * LIMIT + 32 * 1024, "{bytes}");
    }
    // Also when the stream ends right behind the line that is too long.
    let stream = format!("{OPENING}data: before\n\ndata: {}", "x".repeat(LIMIT));
    let mut source = responses(vec![stream.into()]).source().event_bytes(LIMIT);
    assert_eq!(source.next().expect("it goes on").expect("it is sound").data, "before");
    let error = source.next().expect("it fails").expect_err("it fails");
    assert!(matches!(error, EventSourceError::EventTooLarge(LIMIT)), "{error}");
}

#[test]
fn a_refused_connection_and_an_unknown_name_are_told_and_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    drop(listener);
    let url = format!("http://{address}/");
    let mut source = EventSource::get(&url).expect("it is a URL");
    match next_step(&mut source) {
        Step::Reconnecting { cause: Some(NetworkError::NotConnected(found, error)), .. } => {
            assert_eq!((found, error.kind()), (address, ErrorKind::ConnectionRefused))
        }
        step => panic!("{step:?}"),
    }
    let error = failure(EventSource::get(&url).expect("it is a URL").once());
    assert!(matches!(error, EventSourceError::Network(NetworkError::NotConnected(..))), "{error}");
    let listener = TcpListener::bind(address).expect("the port is still free");
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("it accepts");
        read_request(&mut socket);
        socket.write_all(format!("{OPENING}data: back\n\n").as_bytes()).expect("the client reads");
    });
    assert_eq!(source.next().expect("it goes on").expect("it is sound").data, "back");

    let mut source = EventSource::get("http://no-such-host.invalid/").expect("it is a URL");
    match next_step(&mut source) {
        Step::Reconnecting { cause: Some(NetworkError::NameNotFound(name, _)), .. } => {
            assert_eq!(name, "no-such-host.invalid")
        }
        step => panic!("{step:?}"),
    }
    // An address that answers nothing is given up by its deadline.
    let request = Request::new("http://192.0.2.1/").expect("it is a URL");
    let request = Request { connect_deadline: Duration::from_millis(100), ..request };
    let error = request.send(&CloseHandle::default()).expect_err("it is no host of anything");
    assert!(matches!(error, NetworkError::NotConnected(..)), "{error}");
}

#[test]
fn https_is_refused_with_a_way_around_it() {
    let error = EventSource::get("https://127.0.0.1/channels/news").expect_err("there is no TLS");
    assert_eq!(error, MalformedUrl::NeedsTls);
    let sentence = error.to_string();
    assert!(sentence.contains("no TLS") && sentence.contains("curl -N URL | newswire watch -"), "{sentence}");
}

#[test]
fn an_ipv6_address_is_asked_and_each_address_of_a_name_is_tried() {
    let listener = TcpListener::bind("[::1]:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    let asked = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("it accepts");
        socket.write_all(format!("{OPENING}data: six\n\n").as_bytes()).expect("the client reads");
        read_request(&mut socket)
    });
    let source = EventSource::get(&format!("http://{address}/")).expect("it is a URL");
    assert_eq!(data(source.once()), ["six"]);
    let request = asked.join().expect("it has read");
    assert!(request.contains(&format!("\r\nHost: {address}\r\n")), "{request}");

    // Nothing listens at any address of the name but the last.
    let addresses: Vec<SocketAddr> = ("localhost", 0).to_socket_addrs().expect("it is known").collect();
    let listener = TcpListener::bind(addresses[addresses.len() - 1]).expect("there is a free port");
    let port = listener.local_addr().expect("it listens").port();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("it accepts");
        read_request(&mut socket);
        socket.write_all(format!("{OPENING}data: last\n\n").as_bytes()).expect("the client reads");
    });
    let source = EventSource::get(&format!("http://LocalHost:{port}/")).expect("it is a URL");
    assert_eq!(data(source.once()), ["last"]);
}

#[test]
fn a_url_is_read_and_resolved_as_the_standard_says() {
    for (text, expected) in [
        ("http://h", "http://h/"),
        ("HTTP://H:80/a", "http://h/a"),
        ("http://h:/a", "http://h/a"),
        ("http://h?q", "http://h/?q"),
        ("http://h#f?q", "http://h/"),
        ("http://h:65535/a/./b/../c?x/../y#f", "http://h:65535/a/c?x/../y"),
        ("http://h/../..//a/..", "http://h//"),
        ("http://[::1]", "http://[::1]/"),
        ("http://[::FFFF:1.2.3.4]:8/", "http://[::ffff:1.2.3.4]:8/"),
        ("http://h/\u{e9} \r\n\"\u{7f}%20%", "http://h/%C3%A9%20%0D%0A\"%7F%20%"),
    ] {
        assert_eq!(Url::parse(text).map(|url| url.to_string()).as_deref(), Ok(expected), "{text:?}");
    }
    for text in [
        "",
        "h",
        "/a",
        "//h/",
        "ftp://h/",
        "http:/h",
        "http:///a",
        "http://",
        "http://a@h/",
        "http://a:b@h/",
        "http://h:65536/",
        "http://h:x/",
        "http://h\r\n/",
        "http://h h/",
        "http://[::1/",
        "http://[::g]/",
        "http://::1/",
        "http://b\u{fc}cher/",
        "http://h\\@x/",
    ] {
        assert!(matches!(Url::parse(text), Err(MalformedUrl::Malformed(_))), "{text:?}");
    }
    // Those of RFC 3986, 5.4
    let base = Url::parse("http://a/b/c/d;p?q").expect("it is a URL");
    for (reference, expected) in [
        ("g", "/b/c/g"),
        ("./g", "/b/c/g"),
        ("g/", "/b/c/g/"),
        ("/g", "/g"),
        ("?y", "/b/c/d;p?y"),
        ("g?y", "/b/c/g?y"),
        ("#s", "/b/c/d;p?q"),
        ("g#s", "/b/c/g"),
        (";x", "/b/c/;x"),
        ("", "/b/c/d;p?q"),
        (".", "/b/c/"),
        ("..", "/b/"),
        ("../g", "/b/g"),
        ("../..", "/"),
        ("../../../g", "/g"),
        ("/./g", "/g"),
        ("g.", "/b/c/g."),
        ("..g", "/b/c/..g"),
        ("g;x=1/../y", "/b/c/y"),
        ("g?y/../x", "/b/c/g?y/../x"),
        ("a:b/c", ""),
        ("/a:b", "/a:b"),
        ("1:b", "/b/c/1:b"),
    ] {
        let joined = base.join(reference).map(|url| url.to_string());
        match expected {
            "" => assert!(joined.is_err(), "{reference}"),
            path => assert_eq!(joined, Ok(format!("http://a{path}")), "{reference}"),
        }
    }
    assert_eq!(base.join("//g:1?x").map(|url| url.to_string()).as_deref(), Ok("http://g:1/?x"));
    assert_eq!(base.join("https://g/"), Err(MalformedUrl::NeedsTls));
}

/// Forwards to a server and cuts each connection after some bytes of its response, in the middle of anything. Its clients
/// come back at once.
fn unreliable(server: SocketAddr, cuts: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    thread::spawn(move || {
        let mut dice = Dice::new(11);
        for client in listener.incoming() {
            let mut client = client.expect("it accepts");
            let mut upstream = connect(server);
            upstream.write_all(read_request(&mut client).as_bytes()).expect("the server reads");
            let mut rest = 500 + dice.below(6_000);
            let mut piece = [0; 1_000];
            while let Ok(bytes @ 1..) = upstream.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..bytes]);
                if let Some(at) = text.find("retry: ") {
                    piece[at + 7..at + 11].fill(b'0');
                }
                let bytes = bytes.min(rest);
                if client.write_all(&piece[..bytes]).is_err() {
                    return;
                }
                rest -= bytes;
                if rest == 0 {
                    cuts.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
    });
    address
}

#[test]
fn nothing_is_lost_or_given_twice_when_the_line_is_cut_in_the_middle_of_anything() {
    const EVENTS: usize = 900;
    let server = Server::start(&["--publish-open"]);
    let cuts = Arc::new(AtomicUsize::new(0));
    let proxy = unreliable(server.address, Arc::clone(&cuts));
    let mut publisher = Publisher::connect(server.address, "news");
    let first = publisher.publish("0");
    thread::spawn(move || {
        for number in 1..EVENTS {
            publisher.publish(&format!("{number} {}", "\u{e9}".repeat(30)));
        }
    });
    let source = EventSource::get(&format!("http://{proxy}/channels/news")).expect("it is a URL");
    let source = source.last_event_id(first);
    for (expected, event) in (1..EVENTS).zip(source) {
        let event = event.expect("it comes back");
        assert_eq!(event.event_type, "message");
        assert_eq!(event.data.split(' ').next(), Some(&*expected.to_string()));
    }
    assert!(cuts.load(Ordering::Relaxed) > 20, "{cuts:?}");
}

#[test]
fn a_server_that_is_killed_and_started_again_is_found_again_with_nothing_lost_or_twice() {
    let mut server = Server::start(&["--publish-open"]);
    let address = server.address;
    let (sender, received) = channel();
    let source = EventSource::get(&server.url("/channels/news")).expect("it is a URL");
    let handle = source.close_handle();
    let source = source.last_event_id(Publisher::connect(address, "news").publish("before"));
    let client = thread::spawn(move || {
        for event in source {
            sender.send(event.expect("it comes back")).expect("the test listens");
        }
    });
    let mut heard: Vec<Message> = Vec::new();
    for life in 0..3 {
        let mut publisher = Publisher::connect(address, "news");
        for number in 0..20 {
            let id = publisher.publish(&format!("{life} {number}"));
            // A new server says that it does not know the id of the one before.
            let message = loop {
                let message = received.recv_timeout(PATIENCE).expect("it arrives");
                if message.event_type != "gap" {
                    break message;
                }
            };
            assert_eq!((&*message.data, &message.last_event_id), (&*format!("{life} {number}"), &id));
            heard.push(message);
        }
        server.kill();
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["serve", "--publish-open", "--listen", &address.to_string()]);
        server = Server::spawn(command);
    }
    assert_eq!(heard.len(), 60);
    handle.close();
    client.join().expect("it ends in good order");
}

/// In a process of its own, for other tests have descriptors and threads, too.
#[test]
fn ten_thousand_reconnections_leave_no_descriptor_and_no_thread_behind() {
    const ALONE: &str = "NEWSWIRE_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "event_source::ten_thousand_reconnections_leave_no_descriptor_and_no_thread_behind";
        let mut alone = Command::new(std::env::current_exe().expect("it has a path"));
        let output = alone.args(["--exact", name]).env(ALONE, "1").output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let server = hostile(|number, _, socket| {
        let _ = socket.write_all(format!("{OPENING}retry: 0\nid: {number}\ndata: {number}\n\n").as_bytes());
    });
    let mut source = server.source();
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).expect("it is Linux").count();
    let mut expect = |number: usize| {
        assert_eq!(source.next().expect("it goes on").expect("it is sound").data, number.to_string());
    };
    expect(0);
    let before = (count("fd"), count("task"));
    (1..=10_000).for_each(&mut expect);
    // The server's own end of the last connection may not be closed yet.
    eventually("the descriptors and threads are as many as before", || {
        let after = (count("fd"), count("task"));
        after.0 <= before.0 + 1 && after.1 <= before.1
    });
    let last = server.requests.try_iter().last().expect("there are some");
    assert!(last.contains("Last-Event-ID: 9999\r\n"), "{last}");
}
