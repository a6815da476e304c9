//! Which pages may read (Fetch, 3.3): by default those of any origin, without credentials; with
//! `--allow-origin` those of the origins it names, with them.

use crate::server::{Answer, Server, ask};
use newswire::Cors;
use std::io::{BufReader, Write};

const APP: &str = "https://app.example.com";
const DEV: &str = "http://localhost:3000";

fn narrowed() -> Server {
    Server::start(&["--allow-origin", APP, "--allow-origin", DEV, "--quiet"])
}

/// The head of the stream's response, which has no end for now.
fn stream_head(server: &Server, origin: &str) -> Answer {
    let mut socket = server.connect();
    let request =
        format!("HEAD /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n");
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

/// What may be read by anyone says so to everyone, and names nobody.
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

/// A cache must not give to others what depends on who asks, also when that was nobody.
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
            // Refusals too, or a browser could not tell its user why.
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
fn a_preflight_is_answered_with_all_that_a_stream_needs() {
    let server = Server::start(&["--quiet"]);
    for target in ["/sse/mvc/words", "/channels/news", "/nothing", "/"] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let answer = preflight(&server, "https://elsewhere.example", target, method);
            assert_eq!(answer.status, 204, "{method} {target}");
            assert_open(&answer);
            let methods = tokens(&answer, "access-control-allow-methods");
            assert!(methods.contains(&method.to_lowercase()), "{methods:?}");
            let headers = tokens(&answer, "access-control-allow-headers");
            for header in ["last-event-id", "cache-control", "content-type", "authorization"] {
                assert!(headers.contains(&header.to_owned()), "{headers:?}");
            }
            let seconds = answer.field("access-control-max-age").expect("it may be kept");
            assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{seconds}");
        }
    }
    // Without the two fields of a preflight it is an OPTIONS like any other.
    let fields = [("Access-Control-Request-Method", "GET")];
    for fields in [&[][..], &[("Origin", APP)], &fields] {
        let answer = ask(server.address, "OPTIONS", "/healthz", fields, "");
        assert_eq!(answer.field("allow"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(answer.field("access-control-max-age"), None);
        assert_open(&answer);
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

/// A browser has sent the `Origin` by then, and its user should learn what was wrong: a page's
/// cookies on the same host grow too large, say.
#[test]
fn refusals_of_the_head_are_readable_for_named_origins() {
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
}

#[test]
fn other_origins_may_not_read() {
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
    // Who is no page is not kept from reading, and neither is the page of the server itself.
    let answer = ask(server.address, "GET", "/healthz", &[], "");
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    assert_unnamed(&answer);
}

#[test]
fn an_origin_is_named_in_any_case() {
    let server = Server::start(&["--allow-origin", "HTTPS://App.Example.COM", "--quiet"]);
    assert_named(&ask(server.address, "GET", "/healthz", &[("Origin", APP)], ""), APP);
}

/// What could never be the origin of a page is a mistake, found when the server is started. (That
/// the command line says so is tested with its other mistakes.)
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
];

#[test]
fn a_malformed_origin_is_found_at_the_start() {
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
