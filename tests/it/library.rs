//! The library from outside: routers, handlers that go wrong, responses that cannot be made wrong,
//! content as a whole and line by line, an emitter's one client.

use crate::server::{Answer, PATIENCE, ask, connect, exchange, read_until, serve};
use newswire::http::Limits;
use newswire::http::{Files, Method, Refusal, Status};
use newswire::{Emitter, Response, Router, Server};
use std::io::{BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, "GET", target, &[], "")
}

/// A connection that is kept, and what comes back on it.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn connect(address: SocketAddr) -> Kept {
        Kept(BufReader::new(connect(address)))
    }

    fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let written = self.0.get_mut().write_all(bytes.as_ref());
        written.expect("the server reads");
    }

    fn read(&mut self) -> Option<Answer> {
        Answer::read(&mut self.0, "GET")
    }

    fn get(&mut self, target: &str) -> Answer {
        self.write(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.read().expect("the server answers")
    }
}

#[test]
fn a_panicking_handler_costs_its_own_connection_and_no_other() {
    let mut router = Router::new();
    router.get("/fine", |_| Response::text(Status::OK, "fine\n"));
    router.get("/panics", |_| -> Response { panic!("on purpose: a handler") });
    router.route(Method::Post, "/panics", |request| -> Response {
        let content = request.content();
        panic!("on purpose: a handler with {content:?}")
    });
    router.get("/panics/later", |request| {
        Emitter::stream(request, |mut emitter| {
            emitter.send("before")?;
            panic!("on purpose: a stream")
        })
    });
    let address = serve(router, |server| server);

    let mut other = Kept::connect(address);
    assert_eq!(other.get("/fine").status, 200);
    for request in [
        "GET /panics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /panics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nzero",
        "POST /panics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n",
    ] {
        let mut kept = Kept::connect(address);
        kept.write(request);
        if request.ends_with("\r\n\r\n") && request.starts_with("POST") {
            kept.write("zero");
        }
        let answer = kept.read().expect("the server answers");
        assert_eq!(answer.status, 500);
        assert!(!answer.text().contains("on purpose"), "{answer:?}");
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.field("connection"), Some("close"), "{answer:?}");
        assert!(kept.read().is_none());
    }
    let stream = get(address, "/panics/later");
    assert_eq!(stream.status, 200);
    assert!(stream.text().ends_with("data: before\n\n"), "{stream:?}");

    assert_eq!(other.get("/fine").status, 200);
    assert_eq!(get(address, "/fine").text(), "fine\n");
}

#[test]
fn routes_have_literals_parameters_and_an_order() {
    let mut router = Router::new();
    let named = |name: &'static str| {
        move |request: &mut newswire::Request<'_>| {
            let [who, what] =
                ["who", "what"].map(|name| request.parameter(name).unwrap_or("(none)"));
            Response::text(Status::OK, format!("{name} {who} {what}"))
        }
    };
    router
        .get("/", named("root"))
        .get("/people/me", named("me"))
        .get("/people/{who}", named("one"))
        .get("/people/{who}/{what}", named("two"))
        .get("/people/you", named("never"))
        .get("/{who}/", named("folder"));
    let address = serve(router, |server| server);

    for (target, content) in [
        ("/", "root (none) (none)"),
        ("/?who=x", "root (none) (none)"),
        ("/people/me", "me (none) (none)"),
        ("/people/%6de", "me (none) (none)"),
        ("/people/you", "one you (none)"),
        ("/people/a%2Fb", "one a/b (none)"),
        ("/people/a%252Fb", "one a%2Fb (none)"),
        ("/people/caf%C3%A9+", "one café+ (none)"),
        ("/people/%7Bwho%7D", "one {who} (none)"),
        ("/people/..", "one .. (none)"),
        ("/people/a/b?who=c", "two a b"),
        ("/people/", "one  (none)"),
        ("/x/", "folder x (none)"),
    ] {
        let answer = get(address, target);
        assert_eq!((answer.status, answer.text()), (200, content), "{target}");
    }
    for target in ["/people", "/people/a/b/c", "/people/a/b/", "//people/me", "/PEOPLE/me"] {
        assert_eq!(get(address, target).status, 404, "{target}");
    }
}

#[test]
fn methods_are_told_apart_and_named() {
    let mut router = Router::new();
    let said =
        |text: &'static str| move |_: &mut newswire::Request<'_>| Response::text(Status::OK, text);
    router
        .get("/read", said("read\n"))
        .route(Method::Put, "/write", said("put\n"))
        .route(Method::Delete, "/write", said("delete\n"))
        .get("/both", said("read\n"))
        .route(Method::Post, "/{any}", said("posted\n"))
        .get("/custom", said("read\n"))
        .route(Method::Options, "/custom", |_| {
            Response::empty(Status::NO_CONTENT).field("X-Own", "yes")
        });
    let address = serve(router, |server| server);

    for (method, target, status, allow) in [
        ("GET", "/read", 200, None),
        ("HEAD", "/read", 200, None),
        ("POST", "/read", 200, None),
        ("DELETE", "/read", 405, Some("GET, HEAD, POST, OPTIONS")),
        ("OPTIONS", "/read", 204, Some("GET, HEAD, POST, OPTIONS")),
        ("GET", "/write", 405, Some("POST, PUT, DELETE, OPTIONS")),
        ("HEAD", "/write", 405, Some("POST, PUT, DELETE, OPTIONS")),
        ("DELETE", "/write", 200, None),
        ("GET", "/nothing/here", 404, None),
        ("OPTIONS", "/nothing/here", 404, None),
    ] {
        let answer = ask(address, method, target, &[], "");
        assert_eq!(answer.status, status, "{method} {target}");
        assert_eq!(answer.field("allow"), allow, "{method} {target}");
    }
    let own = ask(address, "OPTIONS", "/custom", &[], "");
    assert_eq!((own.field("x-own"), own.field("allow")), (Some("yes"), None));
    // As GET, but for the content (RFC 9110, 9.3.2)
    let (whole, head) = (get(address, "/read"), ask(address, "HEAD", "/read", &[], ""));
    assert_eq!(head.field("content-length"), Some("5"));
    for field in ["content-length", "content-type", "access-control-allow-origin"] {
        assert_eq!(head.field(field), whole.field(field));
    }
    let bytes = exchange(address, "HEAD /read HTTP/1.0\r\n\r\n");
    assert!(bytes.ends_with("\r\n\r\n") && !bytes.contains("read"), "{bytes}");
}

/// A route for HEAD alone is one: it says whether something is there, without making it.
#[test]
fn head_can_have_a_route_of_its_own() {
    let mut router = Router::new();
    router.route(Method::Head, "/large", |_| Response::empty(Status::OK).field("X-Size", "large"));
    let address = serve(router, |server| server);
    let answer = ask(address, "HEAD", "/large", &[], "");
    assert_eq!((answer.status, answer.field("x-size")), (200, Some("large")));
    let answer = ask(address, "GET", "/large", &[], "");
    assert_eq!((answer.status, answer.field("allow")), (405, Some("HEAD, OPTIONS")));
}

#[test]
fn without_a_route_there_is_the_fallback_or_404() {
    let address = serve(Router::new(), |server| server);
    assert_eq!(get(address, "/").status, 404);
    assert_eq!(ask(address, "POST", "/x", &[], "y").status, 404);

    let mut router = Router::new();
    router.get("/route", |_| Response::empty(Status::NO_CONTENT));
    router.fallback(|request| Response::text(Status::OK, request.path().to_owned()));
    let address = serve(router, |server| server);
    assert_eq!(get(address, "/any%20where?x").text(), "/any%20where");
    assert_eq!(ask(address, "PUT", "/x", &[], "y").status, 200);
    assert_eq!(get(address, "/route").status, 204);
    // A path that a route has does not fall back for want of the method.
    assert_eq!(ask(address, "PUT", "/route", &[], "y").status, 405);
}

#[test]
fn a_handler_may_refuse() {
    let mut router = Router::new();
    router.get("/who", |_| Refusal::new(Status::UNAUTHORIZED, "Say who you are."));
    router.get("/when", |request| match request.query("now") {
        Some(_) => Err(Refusal::new(Status::SERVICE_UNAVAILABLE, "Later.")),
        None => Ok(Response::text(Status::OK, "here\n")),
    });
    let address = serve(router, |server| server);
    let who = get(address, "/who");
    assert_eq!((who.status, who.text()), (401, "Say who you are.\n"));
    assert_eq!(who.field("www-authenticate"), Some("Bearer"));
    let when = get(address, "/when?now");
    assert_eq!((when.status, when.text()), (503, "Later.\n"));
    assert!(when.field("retry-after").is_some());
    assert_eq!(get(address, "/when").text(), "here\n");
    // A handler that answers in peace does not cost the connection.
    let mut kept = Kept::connect(address);
    assert_eq!(kept.get("/when?now").status, 503);
    assert_eq!(kept.get("/when").status, 200);
}

/// "Field values containing CR, LF, or NUL characters are invalid and dangerous", and "other CTL
/// characters are also invalid" (RFC 9110, 5.5): a value from a stranger cannot begin another field
/// or end the head, nor be one that a strict client refuses.
#[test]
fn no_field_value_breaks_the_head() {
    let mut router = Router::new();
    router.get("/", |request| {
        let value = request.query("value").unwrap_or_default();
        Response::bytes(Status::OK, value.clone(), b"content".as_slice()).field("X-Value", value)
    });
    let address = serve(router, |server| server);
    for value in [
        "a%0d%0aX-Zebra:%20yes",
        "a%0aX-Zebra:%20yes",
        "a%0dX-Zebra:%20yes",
        "a%0d%0a%0d%0azebra",
        "%0d%0aX-Zebra:%20yes",
        "a%00b",
        "a%01b%08%0b%0c%1b%1f%7f",
        "caf%C3%A9%E2%80%A8%C2%85",
        "%E5%98%8D%E5%98%8AX-Zebra:%20yes",
        "",
    ] {
        let answer = get(address, &format!("/?value={value}"));
        assert_eq!((answer.status, answer.text()), (200, "content"), "{value}");
        assert_eq!(answer.field("x-zebra"), None, "{value}");
        let control = answer
            .head
            .split("\r\n")
            .find(|line| line.chars().any(|c| c.is_ascii_control() && c != '\t'));
        assert_eq!(control, None, "{value}");
        let value = answer.field("x-value").expect("it was given");
        assert_eq!(answer.field("content-type"), Some(value));
    }
}

#[test]
fn a_status_without_content_has_none_whatever_it_was_made_of() {
    let mut router = Router::new();
    for (path, status) in [("/204", Status::NO_CONTENT), ("/304", Status::NOT_MODIFIED)] {
        router.get(path, move |_| Response::text(Status::OK, "content\n").with_status(status));
    }
    router.get("/stream", |request| {
        Emitter::stream(request, |_| panic!("nobody wants this")).with_status(Status::NO_CONTENT)
    });
    router.get("/299", |_| Response::text(Status(299), "content\n"));
    let address = serve(router, |server| server);
    let mut kept = Kept::connect(address);
    for (target, status) in [("/204", 204), ("/304", 304), ("/299", 299), ("/204", 204)] {
        let answer = kept.get(target);
        assert_eq!(answer.status, status);
        assert_eq!(answer.field("content-length").is_some(), status == 299);
    }
    assert_eq!(get(address, "/stream").status, 204);
}

/// A server that gives back the content of a POST, its length first.
fn echo(limits: Limits) -> SocketAddr {
    let mut router = Router::new();
    let handler = |request: &mut newswire::Request<'_>| {
        let content = request.content()?;
        let again = request.content()?;
        assert!(again.is_empty(), "there is only one");
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
fn content_is_whole_or_refused() {
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
    // A method that need not have content may have it.
    assert_eq!(ask(address, "DELETE", "/", &[], "").text(), "0:");
    assert_eq!(ask(address, "GET", "/", &[], "xyz").text(), "3:xyz");
    // A POST must say that it has none.
    assert_eq!(ask(address, "POST", "/", &[], "").text(), "0:");
    let unsaid = exchange(address, "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(unsaid.starts_with("HTTP/1.1 411 "), "{unsaid}");
    let unsaid = exchange(address, "POST / HTTP/1.0\r\n\r\n");
    assert!(unsaid.starts_with("HTTP/1.1 400 "), "{unsaid}");
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

/// A server that tells `Sender` each line, and refuses a line that says so.
fn liner(limits: Limits) -> (SocketAddr, Receiver<String>) {
    let (sender, lines) = channel();
    let sender = Mutex::new(sender);
    let mut router = Router::new();
    router.route(Method::Post, "/", move |request| {
        let sender: Sender<String> = sender.lock().expect("nobody panics").clone();
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
        assert!(lines.recv_timeout(Duration::from_millis(50)).is_err(), "no end yet");
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
    // As many as you like, each within the limit
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

#[test]
fn an_event_arrives_while_its_handler_still_runs() {
    let (sender, go_on) = channel::<()>();
    let go_on = Mutex::new(Some(go_on));
    let mut router = Router::new();
    router.get("/", move |request| {
        let go_on = go_on.lock().expect("nobody panics").take().expect("one client");
        Emitter::stream(request, move |mut emitter| {
            let wait = || go_on.recv_timeout(PATIENCE).map_err(std::io::Error::other);
            wait()?;
            emitter.send("one")?;
            wait()?;
            emitter.comment("two")?;
            wait()?;
            emitter.complete_with_error("a secret")
        })
    });
    let address = serve(router, |server| server);
    let mut socket = connect(address);
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the server reads");
    // Each of them is read before the handler is let go on.
    let head = read_until(&mut socket, "\r\n\r\n");
    assert!(head.contains("\r\nContent-Type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    assert!(!head.contains("Transfer-Encoding") && !head.contains("Content-Length"));
    let opening = read_until(&mut socket, "\n\n");
    assert!(opening.contains("retry: ") && opening.contains(": newswire\n"));
    sender.send(()).expect("it runs");
    assert_eq!(read_until(&mut socket, "\n\n"), "data: one\n\n");
    sender.send(()).expect("it runs");
    assert_eq!(read_until(&mut socket, "\n\n"), ": two\n\n");
    sender.send(()).expect("it runs");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut socket, &mut rest).expect("it closes");
    assert!(rest.starts_with(": ") && rest.ends_with("\n\n"), "{rest:?}");
    assert!(!rest.contains("secret") && !rest.contains("data"), "{rest:?}");
}

/// A server whose one stream says the same until it cannot, and tells why.
pub(crate) fn endless(
    limits: Limits,
    data: &'static str,
    interval: Duration,
) -> (SocketAddr, Receiver<ErrorKind>) {
    let (sender, outcomes) = channel();
    let sender = Mutex::new(sender);
    let mut router = Router::new();
    router.get("/", move |request| {
        let sender = sender.lock().expect("nobody panics").clone();
        Emitter::stream(request, move |mut emitter| {
            let error = loop {
                if let Err(error) = emitter.send(data) {
                    break error;
                }
                thread::sleep(interval);
            };
            let _ = sender.send(error.kind());
            Err(error)
        })
    });
    (serve(router, |server| server.limits(limits).expect("they are in range")), outcomes)
}

#[test]
fn a_handler_learns_that_its_client_has_left() {
    let (address, outcomes) = endless(Limits::default(), "tick", Duration::from_millis(10));
    let mut socket = connect(address);
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the server reads");
    read_until(&mut socket, "data: tick\n\n");
    drop(socket);
    outcomes.recv_timeout(PATIENCE).expect("a send has failed");
}

#[test]
fn a_handler_sees_who_asks_and_what_for() {
    let mut router = Router::new();
    router.get("/{a}/{b}", |request| {
        let fields: Vec<&str> = request.values("x-field").collect();
        Response::text(
            Status::OK,
            format!(
                "{} {:?} {:?} {:?} {:?} {:?}",
                request.peer(),
                request.method(),
                request.version(),
                request.parameter("b"),
                request.parameter("c"),
                fields
            ),
        )
    });
    let address = serve(router, |server| server);
    let mut socket = connect(address);
    let local = socket.local_addr().expect("it is connected");
    socket
        .write_all(b"GET /1/2 HTTP/1.0\r\nX-Field: a, b\r\nx-field: c\r\n\r\n")
        .expect("the server reads");
    let answer = Answer::read(&mut BufReader::new(socket), "GET").expect("it is answered");
    let expected = format!("{local} Get Http10 Some(\"2\") None [\"a, b\", \"c\"]");
    assert_eq!(answer.text(), expected);
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let server = Server::bind("127.0.0.1:0").expect("there is a free port");
    let address = server.local_addr().expect("it listens");
    assert!(Server::bind(address).is_err());
}

#[test]
fn files_of_a_program_of_ones_own() {
    let files = Files::embedded(&[
        ("index.html", b"<p>root"),
        ("a/b.css", b"p {}"),
        ("docs/index.html", b"<p>docs"),
    ]);
    let mut router = Router::new();
    router.fallback(move |request| files.respond(request));
    let address = serve(router, |server| server);
    assert_eq!(get(address, "/").text(), "<p>root");
    assert_eq!(get(address, "/docs/").text(), "<p>docs");
    let css = get(address, "/a/b.css");
    assert_eq!(css.field("content-type"), Some("text/css; charset=utf-8"));
    for target in ["/a", "/a/", "/a%2Fb.css", "/index.html/", "//index.html"] {
        assert_eq!(get(address, target).status, 404, "{target}");
    }
}
