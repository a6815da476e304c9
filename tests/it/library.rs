//! The library from outside: servers, routers, handlers that fail.

mod content;
mod responses;

use crate::server::{Answer, ask, connect, exchange, serve};
use newswire::http::{Files, Method, Status};
use newswire::{Emitter, Response, Router, Server};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};

fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, "GET", target, &[], "")
}

/// A connection that carries several requests.
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
fn the_first_route_that_fits_answers_with_its_parameters() {
    let mut router = Router::new();
    let named = |name: &'static str| {
        move |request: &mut newswire::Request<'_>| {
            let [one, two] = ["one", "two"].map(|name| request.parameter(name).unwrap_or("(none)"));
            Response::text(Status::OK, format!("{name} {one} {two}"))
        }
    };
    router
        .get("/", named("root"))
        .get("/people/me", named("me"))
        .get("/people/{one}", named("one"))
        .get("/people/{one}/{two}", named("two"))
        .get("/people/you", named("never"))
        .get("/{one}/", named("folder"));
    let address = serve(router, |server| server);

    for (target, content) in [
        ("/", "root (none) (none)"),
        ("/?one=x", "root (none) (none)"),
        ("/people/me", "me (none) (none)"),
        ("/people/%6de", "me (none) (none)"),
        ("/people/you", "one you (none)"),
        ("/people/a%2Fb", "one a/b (none)"),
        ("/people/a%252Fb", "one a%2Fb (none)"),
        ("/people/caf%C3%A9+", "one café+ (none)"),
        ("/people/%7Bone%7D", "one {one} (none)"),
        ("/people/..", "one .. (none)"),
        ("/people/a/b?one=c", "two a b"),
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
fn a_path_answers_its_methods_and_names_them_for_others() {
    let mut router = Router::new();
    let said = |text: &'static str| move |_: &mut newswire::Request<'_>| Response::text(Status::OK, text);
    router
        .get("/read", said("read\n"))
        .route(Method::Put, "/write", said("put\n"))
        .route(Method::Delete, "/write", said("delete\n"))
        .get("/both", said("read\n"))
        .route(Method::Post, "/{any}", said("posted\n"))
        .get("/custom", said("read\n"))
        .route(Method::Options, "/custom", |_| Response::empty(Status::NO_CONTENT).field("X-Own", "yes"));
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

/// A route for HEAD says whether something is there, without making it.
#[test]
fn a_route_for_head_answers_head_and_not_get() {
    let mut router = Router::new();
    router.route(Method::Head, "/large", |_| Response::empty(Status::OK).field("X-Size", "large"));
    let address = serve(router, |server| server);
    let answer = ask(address, "HEAD", "/large", &[], "");
    assert_eq!((answer.status, answer.field("x-size")), (200, Some("large")));
    let answer = ask(address, "GET", "/large", &[], "");
    assert_eq!((answer.status, answer.field("allow")), (405, Some("HEAD, OPTIONS")));
}

#[test]
fn a_path_that_no_route_has_goes_to_the_fallback_or_is_404() {
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
    // A path that a route has does not go to the fallback, even if no route has the method.
    assert_eq!(ask(address, "PUT", "/route", &[], "y").status, 405);
}

/// The routes of a program may be read from its configuration.
#[test]
fn paths_and_names_of_fields_may_be_made_at_run_time() {
    let mut router = Router::new();
    for number in 1..=3 {
        let (path, name) = (format!("/made/{number}/{{part{number}}}"), format!("X-{number}"));
        router.get(&path, move |request| {
            let value = request.parameter(&format!("part{number}")).unwrap_or_default().to_owned();
            Response::empty(Status::OK).field(name.clone(), value)
        });
    }
    let address = serve(router, |server| server);
    for number in 1..=3 {
        let answer = get(address, &format!("/made/{number}/a%2Fb"));
        assert_eq!((answer.status, answer.field(&format!("x-{number}"))), (200, Some("a/b")));
    }
}

#[test]
fn a_handler_sees_the_peer_the_request_and_the_parameters() {
    let mut router = Router::new();
    router.get("/{a}/{b}", |request| {
        let fields: Vec<&str> = request.values("x-field").collect();
        Response::text(
            Status::OK,
            format!(
                "{} {:?} {:?} {:?} {:?} {:?}",
                request.peer().expect("it is not a Unix socket"),
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
    socket.write_all(b"GET /1/2 HTTP/1.0\r\nX-Field: a, b\r\nx-field: c\r\n\r\n").expect("the server reads");
    let answer = Answer::read(&mut BufReader::new(socket), "GET").expect("it is answered");
    let expected = format!("{local} Get Http10 Some(\"2\") None [\"a, b\", \"c\"]");
    assert_eq!(answer.text(), expected);
}

#[test]
fn binding_a_port_that_is_taken_is_an_error() {
    let server = Server::bind("127.0.0.1:0").expect("there is a free port");
    let address = server.local_addr().expect("it listens");
    assert!(Server::bind(address).is_err());
}

#[test]
fn a_program_can_serve_its_own_embedded_files() {
    let files = Files::embedded(&[("index.html", b"<p>root"), ("a/b.css", b"p {}"), ("docs/index.html", b"<p>docs")]);
    let mut router = Router::new();
    router.files(files);
    let address = serve(router, |server| server);
    assert_eq!(get(address, "/").text(), "<p>root");
    assert_eq!(get(address, "/docs/").text(), "<p>docs");
    let css = get(address, "/a/b.css");
    assert_eq!(css.field("content-type"), Some("text/css; charset=utf-8"));
    for target in ["/a", "/a/", "/a%2Fb.css", "/index.html/", "//index.html"] {
        assert_eq!(get(address, target).status, 404, "{target}");
    }
}
