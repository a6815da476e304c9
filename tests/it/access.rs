//! Which requests may read, publish and cut: Host, Origin and token, for each kind of route.

use crate::files::Directory;
use crate::server::{Answer, Server, Stream, ask, eventually};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

/// A refusal: its status, and words of the sentence that says why.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.text().contains(words), "no {words:?} in {:?}", answer.text());
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
}

/// A file with a token that ends with the test.
struct Secret(PathBuf);

impl Secret {
    fn holding(name: &str, content: impl AsRef<[u8]>) -> Secret {
        let file = format!("newswire-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        fs::write(&path, content).expect("there is room");
        Secret(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("it is UTF-8")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// One request of each kind, with what its route answers when access is granted. The line exists because the test
/// watches it.
const READS: [(&str, &str, u16); 8] = [
    ("HEAD", "/sse/mvc/words", 200),
    ("HEAD", "/lab?text=a", 200),
    ("HEAD", "/lab/lines/watched", 200),
    ("HEAD", "/channels/only-read", 200),
    ("GET", "/channels", 200),
    ("GET", "/metrics", 200),
    ("GET", "/", 200),
    ("GET", "/nothing", 404),
];
const PUBLISHES: [(&str, &str, u16); 3] =
    [("POST", "/channels/c", 200), ("PUT", "/channels/c?event=x", 200), ("DELETE", "/channels/c", 204)];
const CUTS: [(&str, &str, u16); 1] = [("DELETE", "/lab/lines/watched", 204)];

/// What a request says of where it comes from. PORT stands for the port of the server.
struct From {
    host: &'static str,
    origin: Option<&'static str>,
    /// Whether it may read without --allow-origin, and with it; and whether it may publish and cut in the two cases.
    reads: [bool; 2],
    writes: [bool; 2],
}

const fn from(host: &'static str, origin: Option<&'static str>, reads: [bool; 2], writes: [bool; 2]) -> From {
    From { host, origin, reads, writes }
}

const YES: [bool; 2] = [true, true];
const NO: [bool; 2] = [false, false];
const ONLY_NAMED: [bool; 2] = [false, true];
const ONLY_OPEN: [bool; 2] = [true, false];

/// The named origins are https://named.example and http://localhost:3000.
const ON_LOOPBACK: [From; 33] = [
    // A program that is not a browser, and our own page by each of its names
    from("127.0.0.1:PORT", None, YES, YES),
    from("localhost", None, YES, YES),
    from("127.0.0.1:PORT", Some("http://127.0.0.1:PORT"), YES, YES),
    from("localhost:PORT", Some("http://localhost:PORT"), YES, YES),
    from("LocalHost:PORT", Some("http://localhost:PORT"), YES, YES),
    from("[::1]:PORT", Some("http://[::1]:PORT"), YES, YES),
    from("app.localhost:PORT", Some("http://app.localhost:PORT"), YES, YES),
    // A page of a named origin: itself, or through a proxy that passes its name on, or through one that does not
    from("127.0.0.1:PORT", Some("http://localhost:3000"), YES, ONLY_NAMED),
    from("127.0.0.1:PORT", Some("https://named.example"), YES, ONLY_NAMED),
    from("named.example", Some("https://named.example"), YES, ONLY_NAMED),
    from("Named.Example", None, YES, ONLY_NAMED),
    // The origin of that host has another scheme.
    from("named.example", Some("http://other.example"), ONLY_OPEN, NO),
    // DNS rebinding: the browser takes the server for evil.example.
    from("evil.example", None, ONLY_OPEN, NO),
    from("evil.example:PORT", Some("http://evil.example:PORT"), ONLY_OPEN, NO),
    from("evil.example", Some("https://named.example"), ONLY_OPEN, NO),
    from("localhost.evil.example", None, ONLY_OPEN, NO),
    from("127.0.0.1.nip.io:PORT", None, ONLY_OPEN, NO),
    from("named.example.evil.example", None, ONLY_OPEN, NO),
    from("10.0.0.1", None, ONLY_OPEN, NO),
    // A page of another origin
    from("127.0.0.1:PORT", Some("http://evil.example"), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some("null"), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some(""), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some("http://localhost:PORT"), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some("http://127.0.0.1"), ONLY_OPEN, NO),
    // This server speaks no https, so https is another origin although the host is the same.
    from("127.0.0.1:PORT", Some("https://127.0.0.1:PORT"), ONLY_OPEN, NO),
    from("localhost", Some("https://localhost"), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some("http://named.example"), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some("https://named.example:443"), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some("https://sub.named.example"), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some("https://named.example.evil.example"), ONLY_OPEN, NO),
    // What is not the serialization of an origin
    from("127.0.0.1:PORT", Some("http://127.0.0.1:PORT/"), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some("http://127.0.0.1:PORT@evil.example"), ONLY_OPEN, NO),
    from("127.0.0.1:PORT", Some("127.0.0.1:PORT"), ONLY_OPEN, NO),
];

const NAMED: [&str; 4] = ["--allow-origin", "https://named.example", "--allow-origin", "http://localhost:3000"];

fn check(server: &Server, address: SocketAddr, from: &From, has_named: bool) -> Vec<String> {
    let port = address.port().to_string();
    let host = from.host.replace("PORT", &port);
    let origin = from.origin.map(|origin| origin.replace("PORT", &port));
    let mut fields = vec![("Host", host.as_str()), ("Authorization", "Bearer token-of-publishers")];
    fields.extend(origin.as_deref().map(|origin| ("Origin", origin)));
    let may_write = from.writes[usize::from(has_named)];
    let cases = READS.iter().map(|case| (case, from.reads[usize::from(has_named)]));
    let cases = cases.chain(PUBLISHES.iter().chain(&CUTS).map(|case| (case, may_write)));
    let mut wrong = Vec::new();
    for ((method, target, granted), is_granted) in cases {
        let answer = ask(address, method, target, &fields, "");
        let expected = if is_granted { *granted } else { 403 };
        if answer.status != expected {
            let status = answer.status;
            wrong.push(format!("{method} {target} of {host} {origin:?}, named {has_named}: {status}, not {expected}"));
        }
    }
    // Anything may ask whether the server lives.
    assert_eq!(ask(address, "GET", "/healthz", &fields, "").status, 200);
    assert!(!server.said().contains("panicked"));
    wrong
}

#[test]
fn a_token_that_can_be_guessed_is_told_at_the_start() {
    let directory = Directory::new("short-token");
    for (token, is_short) in [("fifteen-letters", true), ("sixteen-letters!", false)] {
        fs::write(directory.0.join("token"), token).expect("it can be written");
        let token = directory.0.join("token");
        let server = Server::start(&["--publish-token-file", token.to_str().expect("it is UTF-8")]);
        ask(server.address, "GET", "/healthz", &[], "");
        eventually("the request is logged", || server.said().contains("/healthz"));
        assert_eq!(server.said().contains("fewer than 16 characters"), is_short);
    }
}

#[test]
fn host_and_origin_decide_the_same_for_every_route_of_a_kind() {
    let open = Server::start(&["--publish-open", "--quiet"]);
    let named = Server::start(&[&["--publish-open", "--quiet"][..], &NAMED].concat());
    let mut wrong = Vec::new();
    for (server, has_named) in [(&open, false), (&named, true)] {
        let _watched = Stream::open(server.address, "/lab/lines/watched", &[]);
        for from in &ON_LOOPBACK {
            wrong.extend(check(server, server.address, from, has_named));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// On an address that other machines reach, the server cannot know its own names. A token protects publishing there.
#[test]
fn off_loopback_any_host_may_be_ours_and_a_foreign_origin_is_refused_all_the_same() {
    let file = Secret::holding("off-loopback", "token-of-publishers");
    let start = |named: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["--listen", "0.0.0.0:0", "--lab", "--quiet", "--publish-token-file"]);
        command.arg(file.path()).args(named);
        let server = Server::spawn(command);
        let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
        (server, address)
    };
    let mut wrong = Vec::new();
    for (named, has_named) in [(&[][..], false), (&NAMED, true)] {
        let (server, address) = start(named);
        let _watched = Stream::open(address, "/lab/lines/watched", &[]);
        for from in [
            from("news.example", None, YES, YES),
            from("news.example:PORT", Some("http://news.example:PORT"), YES, YES),
            from("news.example", Some("https://news.example"), ONLY_OPEN, NO),
            from("news.example", Some("https://named.example"), YES, ONLY_NAMED),
            from("news.example", Some("http://evil.example"), ONLY_OPEN, NO),
            from("news.example", Some("null"), ONLY_OPEN, NO),
        ] {
            wrong.extend(check(&server, address, &from, has_named));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// "When an origin server receives a request with an absolute-form of request-target, the origin server MUST ignore the
/// received Host header field (if any)" (RFC 9112, 3.2.2).
#[test]
fn the_authority_of_the_target_goes_before_the_host_field() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let post = |target: &str, host: &str, origin: &str| {
        let fields = [("Host", host), ("Origin", origin)];
        ask(server.address, "POST", target, &fields, "x").status
    };
    assert_eq!(post("http://localhost/channels/c", "evil.example", "http://localhost"), 200);
    assert_eq!(post("http://evil.example/channels/c", "localhost", "http://evil.example"), 403);
    // The scheme of the target is part of the origin that the request was sent to.
    assert_eq!(post("https://localhost/channels/c", "localhost", "https://localhost"), 200);
    assert_eq!(post("https://localhost/channels/c", "localhost", "http://localhost"), 403);
    assert_eq!(post("HTTP://localhost/channels/c", "localhost", "http://localhost"), 200);
}

/// A browser always sends Host. By hand, over telnet, it is left out.
#[test]
fn a_request_without_a_host_is_not_from_a_browser_and_may_do_all_that_a_program_may() {
    let server = Server::start(&["--quiet", "--publish-open", "--allow-origin", "https://a.example"]);
    let by_hand = server.exchange("GET /channels HTTP/1.0\r\n\r\n");
    assert!(by_hand.starts_with("HTTP/1.1 200 "), "{by_hand}");
    let with_origin = server.exchange("GET /channels HTTP/1.0\r\nOrigin: http://\r\n\r\n");
    assert!(with_origin.starts_with("HTTP/1.1 403 "), "{with_origin}");
}

#[test]
fn a_refusal_says_what_to_start_the_server_with() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let post = |name, value| ask(server.address, "POST", "/channels/c", &[(name, value)], "x");
    assert_refused(&post("Host", "evil.example"), 403, "not a loopback name");
    assert_refused(&post("Host", "evil.example"), 403, "--allow-origin");
    assert_refused(&post("Origin", "https://evil.example"), 403, "another origin");
    assert_refused(&post("Origin", "https://evil.example"), 403, "--allow-origin");
    // The page can tell its user why.
    let answer = post("Origin", "https://evil.example");
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    for hostile in ["evil.example", "https://evil.example"] {
        assert!(!answer.text().contains(hostile), "{answer:?}");
    }
    assert_eq!(server.metric("newswire_events_published_total"), 0);
}

#[test]
fn a_page_of_another_origin_reads_what_is_open_to_all() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let origin = [("Origin", "http://evil.example")];
    let mut stream = Stream::open(server.address, "/channels/c", &origin);
    assert_eq!(stream.answer.field("access-control-allow-origin"), Some("*"));
    assert_eq!(ask(server.address, "POST", "/channels/c", &[], "for all").status, 200);
    assert_eq!(stream.next().expect("it is live").data, "for all");
}

#[test]
fn the_laboratory_is_off_where_other_machines_reach_it_unless_it_is_asked_for() {
    let start = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["--quiet", "--listen"]).args(arguments);
        let server = Server::spawn(command);
        let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
        (server, address)
    };
    let (_server, address) = start(&["0.0.0.0:0"]);
    for (method, target) in
        [("GET", "/lab"), ("GET", "/lab?text=a"), ("GET", "/lab/lines/a"), ("DELETE", "/lab/lines/a")]
    {
        let answer = ask(address, method, target, &[], "");
        assert_refused(&answer, 404, "--lab");
    }
    // The words need no laboratory; only their line is not there.
    assert_eq!(ask(address, "HEAD", "/sse/mvc/words?line=a", &[], "").status, 200);
    for arguments in [&["127.0.0.1:0"][..], &["0.0.0.0:0", "--lab"]] {
        let (server, address) = start(arguments);
        assert_eq!(ask(address, "GET", "/lab?count=1&interval=0", &[], "").status, 200);
        assert!(server.greeting.contains("/lab") || !server.greeting.contains("curl"));
    }
}

#[test]
fn publishing_is_off_unless_it_is_turned_on() {
    let server = Server::start(&["--quiet"]);
    for (method, target) in
        [("POST", "/channels/c"), ("PUT", "/channels/c"), ("POST", "/channels/c?lines"), ("DELETE", "/channels/c")]
    {
        let answer = ask(server.address, method, target, &[], "x");
        assert_refused(&answer, 403, "--publish-token-file");
        assert_refused(&answer, 403, "--publish-open");
    }
    assert_eq!(ask(server.address, "GET", "/channels", &[], "").text(), "[]\n");
    // Reading is not off.
    drop(Stream::subscribe(server.address, "c"));
    // A client that waits for `100 Continue` does not upload in vain.
    let answer = server
        .exchange("POST /channels/c HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[test]
fn only_the_whole_token_publishes_and_no_log_line_shows_it() {
    let token = "S3cret-T0ken_~+/.42==";
    let file = Secret::holding("token", format!("  {token}\r\n\n"));
    let server = Server::start(&["--publish-token-file", file.path()]);
    let address = server.address;
    let with = |authorization: &str| {
        let fields = [("Authorization", authorization)];
        ask(address, "POST", "/channels/c", &fields, "x")
    };
    for right in [
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("BEARER {token}"),
        format!("Bearer   {token}"),
        format!("  Bearer {token}  "),
    ] {
        assert_eq!(with(&right).status, 200, "{right:?}");
    }
    for wrong in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer x".to_owned(),
        format!("Bearer {token}x"),
        format!("Bearer x{token}"),
        format!("Bearer {}", &token[1..]),
        format!("Bearer {}", &token[..token.len() - 1]),
        format!("Bearer {}!", &token[..token.len() - 1]),
        format!("Bearer {}", token.to_lowercase()),
        format!("Bearer {token}, Bearer x"),
        format!("Bearer {token} {token}"),
        format!("Bearer \"{token}\""),
        format!("Bearer\t{token}"),
        format!("Bearer{token}"),
        format!("Basic {token}"),
        token.to_owned(),
        "Bearer é".to_owned(),
    ] {
        let answer = with(&wrong);
        assert_refused(&answer, 401, "Authorization: Bearer");
        // RFC 9110, 11.6.1: "MUST send a WWW-Authenticate header field"
        assert_eq!(answer.field("www-authenticate"), Some("Bearer"), "{wrong:?}");
        assert!(!answer.text().contains(token));
    }
    let right = format!("Bearer {token}");
    let fields = [("Authorization", right.as_str())];
    for method in ["POST", "PUT", "DELETE"] {
        assert_eq!(ask(address, method, "/channels/c", &[], "x").status, 401, "{method}");
        let answer = ask(address, method, "/channels/c", &fields, "x");
        assert!(matches!(answer.status, 200 | 204), "{answer:?}");
    }
    // The token is checked before the name, and before the content is asked for.
    let post = |target, content: &[u8]| ask(address, "POST", target, &[], content).status;
    assert_eq!(post("/channels/.no", b"x"), 401);
    assert_eq!(post("/channels/c", b"\xff"), 401);

    // The file is read once, at the start.
    fs::write(&file.0, "another").expect("there is room");
    assert_eq!(with(&right).status, 200);
    assert_eq!(with("Bearer another").status, 401);

    eventually("the last request is logged", || {
        server.said().lines().filter(|line| line.ends_with(" 401")).count() >= 23
    });
    let said = server.said();
    assert!(said.contains("POST /channels/c 200"), "{said}");
    for part in [token, "S3cret", "T0ken", "Bearer", "Authorization", "another"] {
        assert!(!said.contains(part), "{part:?} in {said}");
    }
}

#[test]
fn a_token_counts_in_its_own_field_only() {
    let token = "token-of-publishers";
    let file = Secret::holding("elsewhere", token);
    let server = Server::start(&["--publish-token-file", file.path(), "--quiet"]);
    for query in ["token=", "access_token=", "Authorization=Bearer%20", "Bearer="] {
        let target = format!("/channels/c?{query}{token}");
        let content = format!("Bearer {token}");
        assert_refused(&ask(server.address, "POST", &target, &[], content), 401, "Bearer");
    }
    for field in ["Proxy-Authorization", "Cookie", "X-Authorization", "X-Token"] {
        let fields = [(field, "Bearer token-of-publishers")];
        let answer = ask(server.address, "POST", "/channels/c", &fields, "x");
        assert_refused(&answer, 401, "Bearer");
    }
}
