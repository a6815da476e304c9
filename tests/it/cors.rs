//! Which pages may read (Fetch, 3.3). By default pages of any origin may, without credentials; with `--allow-origin` only
//! pages of the origins that it names, with credentials.

use crate::server::{Answer, Server, ask, serve};
use newswire::http::{Method, Status};
use newswire::{Cors, Request, Response, Router};
use std::io::{BufReader, Write};
use std::net::SocketAddr;

const APP: &str = "https://app.example.com";
const DEV: &str = "http://localhost:3000";

fn narrowed() -> Server {
    Server::start(&["--allow-origin", APP, "--allow-origin", DEV, "--quiet"])
}

/// The head of a response that has a stream.
fn stream_head(server: &Server, origin: &str) -> Answer {
    let mut socket = server.connect();
    let request = format!("HEAD /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n");
    let written = socket.write_all(request.as_bytes());
    written.expect("the server reads");
    Answer::read(&mut BufReader::new(socket), "HEAD").expect("it is answered")
}

fn preflight(server: &Server, origin: &str, target: &str, method: &str) -> Answer {
    let fields = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", "last-event-id,content-type"),
    ];
    ask(server.address, "OPTIONS", target, &fields, "")
}

/// A list of tokens, in lower case.
fn tokens(answer: &Answer, field: &str) -> Vec<String> {
    let list = answer.field(field).unwrap_or_default().to_lowercase();
    list.split(',').map(|token| token.trim().to_owned()).collect()
}

/// A response that any page may read says so, and names no origin.
fn assert_open(answer: &Answer) {
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"), "{answer:?}");
    // The asterisk may not go with credentials (Fetch, 3.3.5).
    assert_eq!(answer.field("access-control-allow-credentials"), None);
}

fn assert_named(answer: &Answer, origin: &str) {
    assert_eq!(answer.field("access-control-allow-origin"), Some(origin), "{answer:?}");
    assert_eq!(answer.field("access-control-allow-credentials"), Some("true"));
    assert!(tokens(answer, "vary").contains(&"origin".into()), "{answer:?}");
}

/// The response depends on the origin, also when the request has none: a shared cache must know.
fn assert_unnamed(answer: &Answer) {
    assert_eq!(answer.field("access-control-allow-origin"), None, "{answer:?}");
    assert_eq!(answer.field("access-control-allow-credentials"), None);
    assert_eq!(answer.field("access-control-allow-methods"), None);
    assert!(tokens(answer, "vary").contains(&"origin".into()), "{answer:?}");
}

#[test]
fn by_default_a_page_of_any_origin_may_read() {
    let server = Server::start(&["--quiet"]);
    for origin in ["https://elsewhere.example", "http://localhost:3000", "null", "nonsense"] {
        assert_open(&stream_head(&server, origin));
        for (method, target, status) in [
            ("GET", "/healthz", 200),
            ("GET", "/", 200),
            ("HEAD", "/", 200),
            ("OPTIONS", "/healthz", 204),
            // Refusals, too: without the field a page could not tell its user what is wrong.
            ("GET", "/nothing", 404),
            ("DELETE", "/healthz", 405),
            ("POST", "/channels/news", 403),
            ("PATCH", "/healthz", 501),
        ] {
            let answer = ask(server.address, method, target, &[("Origin", origin)], "");
            assert_eq!(answer.status, status, "{method} {target}");
            assert_open(&answer);
        }
    }
    assert_open(&ask(server.address, "GET", "/healthz", &[], ""));
    let page = ask(server.address, "GET", "/", &[], "");
    let etag = page.field("etag").expect("the page has one");
    let fields = [("If-None-Match", etag), ("Origin", "https://elsewhere.example")];
    let unchanged = ask(server.address, "GET", "/", &fields, "");
    assert_eq!(unchanged.status, 304);
    assert_open(&unchanged);
}

#[test]
fn a_preflight_promises_the_methods_that_the_path_has_and_no_others() {
    let server = Server::start(&["--quiet"]);
    for (target, methods) in [
        ("/sse/mvc/words", "GET, HEAD, OPTIONS"),
        ("/channels/news", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("/channels/a%2Fb", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("/lab/lines/one", "GET, HEAD, DELETE, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("/nothing", "GET, HEAD, OPTIONS"),
    ] {
        for method in ["GET", "POST", "DELETE", "PATCH"] {
            let answer = preflight(&server, "https://elsewhere.example", target, method);
            assert_eq!(answer.status, 204, "{method} {target}");
            assert_open(&answer);
            assert_eq!(answer.field("access-control-allow-methods"), Some(methods), "{target}");
            let seconds = answer.field("access-control-max-age").expect("browsers may keep it");
            assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{seconds}");
        }
    }
    // Without the two fields of a preflight, an OPTIONS is like any other.
    let fields = [("Access-Control-Request-Method", "GET")];
    for fields in [&[][..], &[("Origin", APP)], &fields] {
        let answer = ask(server.address, "OPTIONS", "/healthz", fields, "");
        assert_eq!(answer.field("allow"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(answer.field("access-control-max-age"), None);
        assert_eq!(answer.field("access-control-allow-methods"), None);
        assert_open(&answer);
    }
}

#[test]
fn a_preflight_of_a_router_asks_its_routes_and_its_fallback() {
    let said = |_: &mut Request<'_>| Response::text(Status::OK, "here\n");
    let ask_for = |address, target| {
        let fields = [("Origin", APP), ("Access-Control-Request-Method", "PUT")];
        ask(address, "OPTIONS", target, &fields, "")
    };
    let mut router = Router::new();
    router
        .route(Method::Put, "/write", said)
        .route(Method::Options, "/write", |_| -> Response { panic!("a preflight is not for the handlers") });
    let address = serve(router, |server| server);
    let methods = |answer: &Answer| answer.field("access-control-allow-methods").unwrap_or("(none)").to_owned();
    assert_eq!(methods(&ask_for(address, "/write")), "PUT, OPTIONS");
    assert_eq!(methods(&ask_for(address, "/nothing")), "(none)");

    let mut router = Router::new();
    router.route(Method::Put, "/write", said).fallback(said);
    let address = serve(router, |server| server);
    assert_eq!(methods(&ask_for(address, "/write")), "PUT, OPTIONS");
    let all = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
    assert_eq!(methods(&ask_for(address, "/elsewhere")), all);
}

/// The fields of a preflight that asks for these fields.
fn allowed_headers(address: SocketAddr, asked: &[&str]) -> String {
    let mut fields = vec![("Origin", APP), ("Access-Control-Request-Method", "GET")];
    fields.extend(asked.iter().map(|names| ("Access-Control-Request-Headers", *names)));
    let answer = ask(address, "OPTIONS", "/sse/mvc/words", &fields, "");
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.field("access-control-allow-headers").unwrap_or("(none)").to_owned()
}

/// Libraries for tracing add fields of their own to every request of a page: a list of names would break its streams.
#[test]
fn a_preflight_allows_the_fields_that_it_asks_for() {
    for server in [Server::start(&["--quiet"]), narrowed()] {
        let allowed = |asked: &[&str]| allowed_headers(server.address, asked);
        assert_eq!(allowed(&["last-event-id,content-type"]), "last-event-id, content-type");
        assert_eq!(allowed(&["traceparent , sentry-trace", "b3"]), "traceparent, sentry-trace, b3");
        // A name that is not a token is none.
        assert_eq!(allowed(&["x y, x(y), z\"z\", ,é, x:y, good"]), "good");
        assert_eq!(allowed(&["<script>"]), "(none)");
        assert_eq!(allowed(&[]), "(none)");
    }
}

/// A page of a public site that its visitor opens must not reach a server in the visitor's own network by itself.
#[test]
fn only_a_page_of_a_named_origin_may_reach_into_a_private_network() {
    let allowed = |server: &Server, asks: &str| {
        let mut fields = vec![("Origin", APP), ("Access-Control-Request-Method", "GET")];
        fields.push(("Access-Control-Request-Private-Network", asks));
        let answer = ask(server.address, "OPTIONS", "/sse/mvc/words", &fields, "");
        answer.field("access-control-allow-private-network").map(str::to_owned)
    };
    let (open, named) = (Server::start(&["--quiet"]), narrowed());
    assert_eq!(allowed(&named, "true").as_deref(), Some("true"));
    assert_eq!(allowed(&named, "false"), None);
    assert_eq!(allowed(&open, "true"), None);
    let fields = [("Origin", APP), ("Access-Control-Request-Method", "GET")];
    let answer = ask(named.address, "OPTIONS", "/sse/mvc/words", &fields, "");
    assert_eq!(answer.field("access-control-allow-private-network"), None);
}

#[test]
fn the_fields_that_pages_may_send_and_read_can_be_configured() {
    let cors = |cors: Cors| {
        let cors = cors.allow_headers(["Authorization", "X-Note"]).expect("they are names");
        cors.expose_headers(vec!["X-Request-ID".to_owned(), "ETag".to_owned()]).expect("names")
    };
    let serve_with = |cors| {
        let mut router = Router::new();
        router.get("/sse/mvc/words", |_| Response::text(Status::OK, "words\n"));
        serve(router, |server| server.cors(cors))
    };
    let open = serve_with(cors(Cors::default()));
    let named = serve_with(cors(Cors::only([APP]).expect("it is an origin")));
    for address in [open, named] {
        assert_eq!(allowed_headers(address, &["traceparent"]), "Authorization, X-Note");
        assert_eq!(allowed_headers(address, &[]), "Authorization, X-Note");
        for target in ["/sse/mvc/words", "/nothing"] {
            let answer = ask(address, "GET", target, &[("Origin", APP)], "");
            let exposed = answer.field("access-control-expose-headers");
            assert_eq!(exposed, Some("X-Request-ID, ETag"), "{answer:?}");
        }
    }
    let other = ask(named, "GET", "/nothing", &[("Origin", DEV)], "");
    assert_eq!(other.field("access-control-expose-headers"), None);

    for name in ["", "X Note", "X-Note:", "X-Note\r\nX", "café", "X,Y"] {
        let errors = [Cors::default().allow_headers(["X-Note", name]), Cors::default().expose_headers([name])];
        for error in errors.map(|cors| cors.expect_err("it is no name").to_string()) {
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
    }
}

#[test]
fn named_origins_may_read_with_credentials() {
    let server = narrowed();
    for origin in [APP, DEV] {
        assert_named(&stream_head(&server, origin), origin);
        for (method, target, status) in [
            ("GET", "/healthz", 200),
            ("HEAD", "/", 200),
            ("GET", "/nothing", 404),
            ("DELETE", "/healthz", 405),
            ("POST", "/channels/news", 403),
        ] {
            let answer = ask(server.address, method, target, &[("Origin", origin)], "");
            assert_eq!(answer.status, status, "{method} {target}");
            assert_named(&answer, origin);
        }
        let answer = preflight(&server, origin, "/channels/news", "POST");
        assert_eq!(answer.status, 204);
        assert_named(&answer, origin);
        assert!(answer.field("access-control-max-age").is_some());
    }
}

/// The head has its `Origin` by then, and a page can tell its user what is wrong: its cookies are too large, say.
#[test]
fn a_page_of_a_named_origin_may_read_why_its_head_was_refused() {
    let server = narrowed();
    let cookies = "x".repeat(20_000);
    for (method, field, status) in [
        ("PATCH", ("X", "y"), 501),
        ("GET", ("Cookie", cookies.as_str()), 431),
        ("GET", ("Expect", "more"), 417),
        ("GET", ("Content-Length", "x"), 400),
    ] {
        let fields = [("Origin", APP), field];
        let answer = ask(server.address, method, "/healthz", &fields, "");
        assert_eq!(answer.status, status);
        assert_named(&answer, APP);
    }
    // Empty lines before the request line are ignored (RFC 9112, 2.2).
    let mut socket = server.connect();
    let request = format!("\r\n\r\nGET /healthz HTTP/1.1\r\nOrigin: {APP}\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("the server reads");
    let answer = Answer::read(&mut BufReader::new(socket), "GET").expect("it is answered");
    assert_eq!(answer.status, 400);
    assert_named(&answer, APP);
}

#[test]
fn pages_of_other_origins_may_not_read() {
    let server = narrowed();
    for origin in [
        "https://elsewhere.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.elsewhere.example",
        "https://app.example.co",
        "https://app.example.comx",
        "https://xapp.example.com",
        "https://sub.app.example.com",
        "https://app.example.com/",
        "https://app.example.com https://elsewhere.example",
        "https://elsewhere.example, https://app.example.com",
        "http://localhost",
        "http://localhost:30000",
        "null",
        "*",
        "",
    ] {
        assert_unnamed(&stream_head(&server, origin));
        let fields = [("Origin", origin)];
        assert_unnamed(&ask(server.address, "GET", "/healthz", &fields, ""));
        assert_unnamed(&ask(server.address, "GET", "/nothing", &fields, ""));
        let answer = preflight(&server, origin, "/channels/news", "POST");
        assert_eq!(answer.status, 403, "{origin}");
        assert_unnamed(&answer);
    }
    // A program that is no page may read, and so may the server's own page.
    let answer = ask(server.address, "GET", "/healthz", &[], "");
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    assert_unnamed(&answer);
}

#[test]
fn an_origin_may_be_named_in_upper_case() {
    let server = Server::start(&["--allow-origin", "HTTPS://App.Example.COM", "--quiet"]);
    assert_named(&ask(server.address, "GET", "/healthz", &[("Origin", APP)], ""), APP);
}

/// Texts that cannot be the origin of a page. The tests of the command line use them, too.
pub(crate) const MALFORMED_ORIGINS: &[&str] = &[
    "",
    "*",
    "null",
    "app.example.com",
    "//app.example.com",
    "https:app.example.com",
    "https:/app.example.com",
    "https://",
    "://app.example.com",
    "https://app.example.com/",
    "https://app.example.com/path",
    "https://app.example.com?query",
    "https://app.example.com#fragment",
    "https://user@app.example.com",
    "https://app example.com",
    "https://app.example.com,https://other.example",
    "https://*.example.com",
    "https://caf\u{e9}.example",
    "https://:8080",
    "https://app.example.com:",
    "https://app.example.com:port",
    "https://app.example.com:99999",
    "https://app.example.com:80:80",
    "https://[::1",
    "1https://app.example.com",
    // "If port is non-null", and it is null where it is the scheme's own (URL, 4.4).
    "https://app.example.com:443",
    "http://app.example.com:80",
    // A port is written without leading zeros.
    "http://app.example.com:08080",
    "http://app.example.com:0080",
];

#[test]
fn a_malformed_origin_is_an_error_that_names_it() {
    let taken: Vec<_> = MALFORMED_ORIGINS
        .iter()
        .filter(|origin| match Cors::only([APP, origin]) {
            Ok(_) => true,
            Err(error) => !error.to_string().contains(&format!("{origin:?}")),
        })
        .collect();
    assert!(taken.is_empty(), "{taken:#?}");
    for origin in [
        APP,
        DEV,
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "https://xn--caf-dma.example",
        "http://app.example.com:443",
        "chrome-extension://abcdefghijklmnop",
        "capacitor://localhost",
    ] {
        assert!(Cors::only([origin]).is_ok_and(|cors| cors.names(origin)), "{origin}");
    }
    assert!(Cors::only(Vec::<String>::new()).is_ok_and(|cors| !cors.names(APP)));
}
