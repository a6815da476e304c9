//! The demonstration: nine words, one a second, each in a frame of its own, to every kind of client.

use crate::server::{Server, ask, connect, eventually, exchange, read_opening, read_until};
use newswire::sse::Parser;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

const WORDS: [&str; 9] = ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog."];

const REQUEST: &str = "GET /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The frames after the first `heard` words, as they stand on the wire.
fn frames_after(heard: usize) -> Vec<String> {
    let words = WORDS.iter().enumerate().skip(heard);
    words.map(|(at, word)| format!("id: {}\ndata: {word}\n\n", at + 1)).collect()
}

/// A stream as it arrived.
struct Heard {
    head: String,
    /// The reconnection time in milliseconds.
    retry: u64,
    frames: Vec<String>,
    /// When each frame was whole, and then when the stream ended.
    arrivals: Vec<Instant>,
}

impl Heard {
    /// Reads a response to its end.
    fn read(from: &mut impl Read) -> Heard {
        let (mut wire, mut arrivals, mut piece) = (Vec::new(), Vec::new(), [0; 4096]);
        loop {
            let bytes = from.read(&mut piece).expect("it is no reset");
            let now = Instant::now();
            if bytes == 0 {
                arrivals.push(now);
                break;
            }
            wire.extend_from_slice(&piece[..bytes]);
            let whole = String::from_utf8_lossy(&wire).matches("\n\n").count();
            arrivals.resize(whole, now);
        }
        let wire = String::from_utf8(wire).expect("it is UTF-8");
        let (head, content) = wire.split_once("\r\n\r\n").unwrap_or(("", &wire));
        // A comment and a reconnection time leave with the head, before there is a word. No blank line follows them.
        let opened = content.strip_prefix(": newswire\nretry: ");
        let (retry, words) =
            opened.and_then(|rest| rest.split_once('\n')).unwrap_or_else(|| panic!("another opening: {content:?}"));
        Heard {
            head: head.to_owned(),
            retry: retry.parse().expect("it is digits"),
            frames: words.split_inclusive("\n\n").map(str::to_owned).collect(),
            arrivals,
        }
    }

    fn ask(address: SocketAddr, request: &str) -> Heard {
        let mut socket = connect(address);
        let written = socket.write_all(request.as_bytes());
        written.expect("the server reads");
        Heard::read(&mut socket)
    }

    /// Each word arrived by itself, and then the end. The server sends one a second. A busy machine may see some of them
    /// late.
    fn assert_one_by_one(&self) {
        let gaps: Vec<Duration> = self.arrivals.windows(2).map(|two| two[1] - two[0]).collect();
        let apart = |gap: &&Duration| **gap > Duration::from_millis(250);
        assert!(gaps.iter().filter(apart).count() * 4 >= gaps.len() * 3, "they did not arrive one by one: {gaps:?}");
        let whole: Duration = gaps.iter().sum();
        assert!(whole > Duration::from_millis(400) * gaps.len() as u32, "{gaps:?}");
    }

    fn assert_words_after(&self, heard: usize) {
        assert_eq!(self.frames, frames_after(heard));
        self.assert_one_by_one();
    }

    fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let mut fields = lines.filter_map(|line| line.split_once(": "));
        let found = fields.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

fn with_field(id: &str) -> String {
    format!("GET /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {id}\r\n\r\n")
}

fn with_query(query: &str) -> String {
    format!("GET /sse/mvc/words?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn assert_head(heard: &Heard) {
    assert!(heard.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", heard.head);
    assert_eq!(heard.field("content-type"), Some("text/event-stream"));
    // No cache may keep it or join a second client to it, no proxy transform or buffer it.
    let cache = heard.field("cache-control").expect("caches are told");
    assert!(cache.contains("no-store") && cache.contains("no-transform"), "{cache}");
    assert_eq!(heard.field("x-accel-buffering"), Some("no"));
    assert_eq!(heard.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(heard.field("access-control-allow-origin"), Some("*"));
    // It ends with the connection, and is never chunked.
    assert_eq!(heard.field("connection"), Some("close"));
    assert_eq!(heard.field("content-length"), None);
    assert_eq!(heard.field("transfer-encoding"), None);
}

/// All of these at once, since each takes as long as the words do.
#[test]
fn every_client_hears_the_words_one_by_one() {
    let server = Server::start(&["--quiet"]);
    let address = server.address;
    thread::scope(|scope| {
        let mut clients = Vec::new();
        let mut client = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.into());
            clients.push(thread.spawn_scoped(scope, run).expect("there are threads"));
        };
        client(
            "HTTP/1.1",
            Box::new(move || {
                let heard = Heard::ask(address, REQUEST);
                assert_head(&heard);
                heard.assert_words_after(0);
            }),
        );
        client(
            "HTTP/1.0, as typed in telnet",
            Box::new(move || {
                let heard = Heard::ask(address, "GET /sse/mvc/words HTTP/1.0\n\n");
                assert_head(&heard);
                heard.assert_words_after(0);
            }),
        );
        client(
            "behind another request on the same connection",
            Box::new(move || {
                let mut socket = connect(address);
                let both = format!("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n{REQUEST}");
                socket.write_all(both.as_bytes()).expect("the server reads");
                let first = read_until(&mut socket, "\r\n\r\n");
                assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
                Heard::read(&mut socket).assert_words_after(0);
            }),
        );
        client(
            "half closed",
            Box::new(move || {
                let mut socket = connect(address);
                socket.write_all(REQUEST.as_bytes()).expect("the server reads");
                socket.shutdown(Shutdown::Write).expect("it is open");
                Heard::read(&mut socket).assert_words_after(0);
            }),
        );
        client(
            "keep-alive is asked for",
            Box::new(move || {
                let fields = "Host: localhost\r\nConnection: keep-alive\r\nAccept: text/event-stream";
                let request = format!("GET /sse/mvc/words HTTP/1.1\r\n{fields}\r\n\r\n");
                let heard = Heard::ask(address, &request);
                assert_head(&heard);
                heard.assert_words_after(0);
            }),
        );
        let url = server.url("/sse/mvc/words");
        client("ureq", Box::new(move || hear_with_ureq(&url)));
        client(
            "the parser",
            Box::new(move || {
                let heard = Heard::ask(address, REQUEST);
                let mut parser = Parser::new();
                let stream = format!("retry: {}\n{}", heard.retry, heard.frames.concat());
                let messages = parser.feed(stream.as_bytes()).expect("they are small");
                for (at, (message, word)) in messages.iter().zip(WORDS).enumerate() {
                    assert_eq!((message.event_type.as_str(), message.data.as_str()), ("message", word));
                    assert_eq!(message.last_event_id, (at + 1).to_string());
                }
                assert_eq!(messages.len(), WORDS.len());
                assert_eq!(parser.last_event_id(), "9");
                let retry = Duration::from_millis(heard.retry);
                assert_eq!(parser.reconnection_time(), Some(retry));
            }),
        );
        for (heard, request) in [
            (4, with_field("4")),
            (1, with_field("1")),
            (8, with_field(" \t8 ")),
            (4, with_query("last_event_id=4")),
            (6, with_query("x=1&last_event_id=%36&last_event_id=2")),
            // Polyfills that cannot set the field
            (3, with_query("lastEventId=3")),
            (2, with_query("Last-Event-ID=2")),
            (5, with_query("last_event_id=&lastEventId=5")),
            // The field of the browser is newer than the URL of the page.
            (7, with_field("7").replace("words ", "words?last_event_id=2 ")),
            (5, with_field("").replace("words ", "words?last_event_id=5 ")),
        ] {
            let run = move || Heard::ask(address, &request).assert_words_after(heard);
            client(&format!("has heard {heard}"), Box::new(run));
        }
        // Many others
        for _ in 0..30 {
            let run = move || Heard::ask(address, REQUEST).assert_words_after(0);
            client("one of many", Box::new(run));
        }
        for client in clients {
            let name = client.thread().name().unwrap_or_default().to_owned();
            client.join().unwrap_or_else(|_| panic!("it went wrong for: {name}"));
        }
    });
}

/// A client that is not ours.
fn hear_with_ureq(url: &str) {
    let mut response = ureq::get(url).call().expect("it is 200");
    let content_type = response.headers().get("content-type");
    assert_eq!(content_type.expect("it has one"), "text/event-stream");
    let heard = Heard::read(&mut response.body_mut().as_reader());
    heard.assert_words_after(0);

    // And again, from where it was
    let last = ureq::get(url).header("Last-Event-ID", "9").call().expect("it is not an error");
    assert_eq!(last.status(), 204);
}

/// `204` is what makes an EventSource stop.
#[test]
fn a_client_that_has_heard_all_nine_words_is_told_to_stop() {
    let server = Server::start(&["--quiet"]);
    for request in
        [with_field("9"), with_query("last_event_id=9"), with_field("9").replace("words ", "words?last_event_id=3 ")]
    {
        let request = request.replace("HTTP/1.1\r\n", "HTTP/1.1\r\nConnection: close\r\n");
        let answer = server.exchange(&request);
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("\r\nAccess-Control-Allow-Origin: *\r\n"), "{answer}");
        assert!(answer.contains("\r\nCache-Control: no-store"), "{answer}");
        assert!(!answer.contains("Content-Length"), "{answer}");
    }
}

/// The first word, and what came before it.
fn first_frame(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut socket = connect(address);
    socket.write_all(request.as_ref()).expect("the server reads");
    let head = read_until(&mut socket, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    read_opening(&mut socket);
    read_until(&mut socket, "\n\n")
}

/// The client chooses `Last-Event-ID` freely. Any status but 200 or 204 would end an EventSource for good.
#[test]
fn an_id_that_makes_no_sense_begins_at_the_beginning() {
    let server = Server::start(&["--quiet"]);
    let long = "9".repeat(5_000);
    let ids: Vec<&[u8]> = vec![
        b"",
        b"0",
        b"10",
        b"-1",
        b"+4",
        b"4.0",
        b"4,5",
        b"4 5",
        b"0x4",
        b"4e0",
        b"four",
        b"null",
        b"99999999999999999999999999",
        b"18446744073709551620",
        long.as_bytes(),
        b"1795363109763-0",
        b"\xef\xbc\x94",
        b"\xd9\xa4",
        b"\xe2\x91\xa3",
        b"\xff\xfe",
        b"caf\xe9",
        b"\xf0\x9f\xa6\x8a",
        b"4\xc2\xa0",
        b"04",
    ];
    thread::scope(|scope| {
        for id in ids {
            let address = server.address;
            scope.spawn(move || {
                let mut request = b"GET /sse/mvc/words HTTP/1.1\r\nHost: a\r\nLast-Event-ID: ".to_vec();
                request.extend_from_slice(id);
                request.extend_from_slice(b"\r\n\r\n");
                let frame = first_frame(address, &request);
                assert_eq!(frame, frames_after(0)[0], "field {}", id.escape_ascii());

                let encoded: String = id.iter().map(|byte| format!("%{byte:02x}")).collect();
                let mut request = with_query(&format!("last_event_id={encoded}"));
                if request.len() > 8_000 {
                    request = with_query(&format!("last_event_id={}", id.escape_ascii()));
                }
                let frame = first_frame(address, &request);
                assert_eq!(frame, frames_after(0)[0], "query {}", id.escape_ascii());
            });
        }
        for query in ["last_event_id", "last_event_id=%00", "last_event_id=4%0a", "lasteventid=4"] {
            let address = server.address;
            scope.spawn(move || {
                let frame = first_frame(address, with_query(query));
                assert_eq!(frame, frames_after(0)[0], "{query}");
            });
        }
    });
}

#[test]
fn head_and_other_methods_do_not_start_a_stream() {
    let server = Server::start(&["--quiet"]);
    let request = "HEAD /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let head = exchange(server.address, request);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/event-stream\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(server.address, method, "/sse/mvc/words", &[], "");
        assert_eq!(answer.status, 405);
        assert_eq!(answer.field("allow"), Some("GET, HEAD, OPTIONS"));
    }
    for target in ["/sse/mvc/words/", "/sse/mvc", "/sse/mvc/Words"] {
        assert_eq!(ask(server.address, "GET", target, &[], "").status, 404);
    }
}

/// When the server restarts, its clients do not all come back in the same instant.
#[test]
fn the_reconnection_time_differs_from_client_to_client() {
    let server = Server::start(&["--quiet"]);
    let barrier = Barrier::new(20);
    let times: HashSet<u64> = thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let mut socket = server.connect();
                    let written = socket.write_all(REQUEST.as_bytes());
                    written.expect("the server reads");
                    read_until(&mut socket, "\r\n\r\n");
                    let opening = read_opening(&mut socket);
                    let time = opening.lines().find_map(|line| line.strip_prefix("retry: "));
                    time.expect("there is one").parse().expect("it is digits")
                })
            })
            .collect();
        let times = clients.into_iter().map(|client| client.join());
        times.map(|time| time.expect("it is answered")).collect()
    });
    assert!(times.len() > 10, "{times:?}");
    assert!(times.iter().all(|time| (1_000..=5_000).contains(time)), "{times:?}");
}

/// The connection of a page that was closed ends at one of the next words.
#[test]
fn a_client_that_has_left_is_not_sent_to() {
    let server = Server::start(&["--quiet"]);
    let mut sockets = [server.connect(), server.connect()];
    for socket in &mut sockets {
        socket.write_all(REQUEST.as_bytes()).expect("the server reads");
        read_until(socket, "\n\n");
    }
    let [leaves, mut stays] = sockets;
    drop(leaves);
    // The one that stays, and the one that asks
    eventually("its connection ends", || server.metric("newswire_connections") == 2);
    stays.set_nonblocking(true).expect("it is a socket");
    let mut heard = [0; 4096];
    let bytes = stays.read(&mut heard).unwrap_or(0);
    let heard = String::from_utf8_lossy(&heard[..bytes]);
    assert!(!heard.contains("dog."), "only because the words were over: {heard}");
}
