//! The library from outside: routers, handlers that fail, responses that cannot break the protocol.

mod content;
mod streams;

pub(crate) use self::streams::endless;
use crate::server::{Answer, ask, connect, exchange, serve};
use newswire::http::{Files, Method, Refusal, Status};
use newswire::{Cors, Emitter, Response, Router, Server};
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

#[test]
fn a_handler_may_refuse() {
    let mut router = Router::new();
    router.get("/secret", |_| Refusal::new(Status::UNAUTHORIZED, "A token is needed."));
    router.get("/when", |request| match request.query("now") {
        Some(_) => Err(Refusal::new(Status::SERVICE_UNAVAILABLE, "Later.")),
        None => Ok(Response::text(Status::OK, "here\n")),
    });
    let address = serve(router, |server| server);
    let secret = get(address, "/secret");
    assert_eq!((secret.status, secret.text()), (401, "A token is needed.\n"));
    assert_eq!(secret.field("www-authenticate"), Some("Bearer"));
    let when = get(address, "/when?now");
    assert_eq!((when.status, when.text()), (503, "Later.\n"));
    assert!(when.field("retry-after").is_some());
    assert_eq!(get(address, "/when").text(), "here\n");
    // A refusal does not cost the connection.
    let mut kept = Kept::connect(address);
    assert_eq!(kept.get("/when?now").status, 503);
    assert_eq!(kept.get("/when").status, 200);
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

/// A name from a client could begin another field, and a second length another response.
#[test]
fn a_field_with_a_bad_name_is_500_and_never_on_the_wire() {
    let mut router = Router::new();
    router.get("/", |request| {
        let name = request.query("name").unwrap_or_default();
        Response::text(Status::OK, "content").field(name, "zebra")
    });
    let address = serve(router, |server| server);
    for name in [
        "",
        "X%20Y",
        "X:",
        "X%0d%0aY",
        "X%0aY",
        "%00",
        "caf%C3%A9",
        "X(Y)",
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "dATE",
    ] {
        let answer = exchange(address, format!("GET /?name={name} HTTP/1.0\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 500 "), "{name}: {answer}");
        assert!(!answer.contains("zebra"), "{name}: {answer}");
    }
    let answer = get(address, "/?name=!%23$%25%26'*%2B-.^_`|~09azAZ");
    assert_eq!(answer.field("!#$%&'*+-.^_`|~09azaz"), Some("zebra"));
}

/// The sentence of a refusal may name what was wrong, and then it may have hostile text in it.
#[test]
fn a_sentence_that_is_made_at_run_time_is_one_line_of_plain_text() {
    let mut router = Router::new();
    router.get("/", |request| {
        let count = request.query("count").unwrap_or_default();
        Refusal::with_sentence(Status::BAD_REQUEST, format!("count is {count:.40}."))
    });
    let address = serve(router, |server| server);
    for (count, text) in [
        ("12", "count is 12.\n"),
        ("%3Cscript%3Ealert(1)%3C/script%3E", "count is <script>alert(1)</script>.\n"),
        ("a%0d%0a%0d%0ab%00%1b[2J%7f%C2%9Bc", "count is a    b  [2J  c.\n"),
        ("caf%C3%A9", "count is café.\n"),
    ] {
        let answer = get(address, &format!("/?count={count}"));
        assert_eq!((answer.status, answer.text()), (400, text));
        assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
    }
}

#[test]
fn every_public_type_can_be_shown_for_debugging() {
    let mut router = Router::new();
    router.get("/people/{name}", |request| Response::text(Status::OK, format!("{request:?}")));
    let shown = format!("{router:?}");
    assert!(shown.contains("GET") && shown.contains("/people/{name}"), "{shown}");
    router.files(Files::embedded(&[("index.html", b"<p>")]));
    assert!(format!("{router:?}").contains("GET, HEAD, OPTIONS"));
    let files = format!("{:?}", Files::embedded(&[("index.html", b"<p>")]));
    assert!(files.contains("index.html"), "{files}");

    let response = Response::text(Status::OK, "content").field("X-Note", "by hand");
    let shown = format!("{response:?}");
    for part in ["200", "X-Note", "by hand", "7 bytes"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let stream = Response::stream("text/plain", Vec::new(), |_| Ok(()));
    assert!(format!("{stream:?}").contains("a stream"), "{stream:?}");
    assert!(format!("{:?}", Cors::only(["https://a.example"])).contains("https://a.example"));

    // A token in debug output would be in logs.
    let address = serve(router, |server| server);
    let answer = ask(address, "GET", "/people/me", &[("Authorization", "Bearer zebra")], "");
    for part in ["GET /people/me", "127.0.0.1", "name", "authorization"] {
        assert!(answer.text().contains(part), "{part} is not in {answer:?}");
    }
    assert!(!answer.text().contains("zebra"), "{answer:?}");
}

/// "Field values containing CR, LF, or NUL characters are invalid and dangerous", and "other CTL characters are also
/// invalid" (RFC 9110, 5.5). A value from a client cannot begin another field or end the head.
#[test]
fn no_field_value_breaks_the_head() {
    let mut router = Router::new();
    router.get("/", |request| {
        let value = request.query("value").unwrap_or_default();
        // A literal is no exception: a program may have leaked a string to get one.
        let literal: &'static str = value.clone().leak();
        Response::bytes(Status::OK, value.clone(), b"content".as_slice())
            .field("X-Value", value)
            .field("X-Literal", literal)
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
        assert_eq!(answer.field("x-literal"), Some(value));
    }
}

#[test]
fn a_response_with_a_status_that_forbids_content_has_none() {
    let mut router = Router::new();
    for (path, status) in [("/204", Status::NO_CONTENT), ("/304", Status::NOT_MODIFIED)] {
        router.get(path, move |_| Response::text(Status::OK, "content\n").with_status(status));
    }
    router.get("/stream", |request| {
        Emitter::stream(request, |_| panic!("the stream must not run"))
            .with_status(Status::NO_CONTENT)
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

#[test]
fn a_handler_sees_the_peer_the_request_and_the_parameters() {
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
fn binding_a_port_that_is_taken_is_an_error() {
    let server = Server::bind("127.0.0.1:0").expect("there is a free port");
    let address = server.local_addr().expect("it listens");
    assert!(Server::bind(address).is_err());
}

#[test]
fn a_program_can_serve_its_own_embedded_files() {
    let files = Files::embedded(&[
        ("index.html", b"<p>root"),
        ("a/b.css", b"p {}"),
        ("docs/index.html", b"<p>docs"),
    ]);
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
