//! Responses and refusals: nothing that a handler makes breaks the protocol.

use super::{Kept, get};
use crate::server::{ask, exchange, serve};
use newswire::http::{Files, Refusal, Status};
use newswire::{Cors, Emitter, Response, Router};

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
    assert!(format!("{router:?}").contains("has_fallback: true"));
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
        let control = answer.head.split("\r\n").find(|line| line.chars().any(|c| c.is_ascii_control() && c != '\t'));
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
        Emitter::stream(request, |_| panic!("the stream must not run")).with_status(Status::NO_CONTENT)
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

/// A client that reads `100 Continue` waits for the response behind it (RFC 9110, 15.2).
#[test]
fn a_status_that_no_final_response_has_is_500() {
    let mut router = Router::new();
    for (path, status) in [("/100", 100), ("/199", 199), ("/7", 7), ("/600", 600)] {
        router.get(path, move |_| Response::text(Status(status), "content\n"));
        router.get(&format!("{path}/refused"), move |_| -> Result<Response, Refusal> {
            Err(Refusal::new(Status(status), "No."))
        });
    }
    router.get("/changed", |_| Response::empty(Status::OK).with_status(Status(101)));
    let address = serve(router, |server| server);
    for target in ["/100", "/199", "/7", "/600", "/100/refused", "/changed"] {
        assert_eq!(get(address, target).status, 500, "{target}");
    }
}
