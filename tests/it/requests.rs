//! Raw requests and their answers (RFC 9110, RFC 9112). The tables hold bytes. Each request is given to the parser whole,
//! at every prefix and with another request behind it, and to a server whole, byte by byte and pipelined.
//!
//! Hostile bytes carry the word `zebra` wherever they can. No refusal may contain it.

mod contents;
mod conversations;
mod fields;
mod parser;
mod request_lines;
mod wholes;

use self::contents::{CHUNKS_REFUSED, CHUNKS_TAKEN, CONTENTS_REFUSED, CONTENTS_TAKEN};
use self::fields::{FIELDS_LAST, FIELDS_REFUSED, FIELDS_TAKEN};
use self::request_lines::{LINES_REFUSED, LINES_TAKEN};
use self::wholes::{WHOLES_LAST, WHOLES_REFUSED, WHOLES_TAKEN};
use crate::server::{Answer, Server, connect};
use newswire::http::Limits;
use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

/// The request behind each of them. Its answer has [`NEXT_CONTENT`], and nothing follows it.
const NEXT: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const NEXT_CONTENT: &str = "ok\n";

struct Case {
    wire: Vec<u8>,
    status: u16,
    /// Whether the head is refused, which the parser alone can tell.
    by_its_head: bool,
    /// Whether the server also answers the request behind it.
    goes_on: bool,
}

impl Case {
    fn taken(status: u16, parts: &[&[u8]]) -> Case {
        Case { wire: parts.concat(), status, by_its_head: false, goes_on: true }
    }

    fn last(status: u16, parts: &[&[u8]]) -> Case {
        Case { goes_on: false, ..Case::taken(status, parts) }
    }

    fn refused(status: u16, parts: &[&[u8]]) -> Case {
        Case { by_its_head: true, ..Case::last(status, parts) }
    }

    fn method(&self) -> &'static str {
        if self.wire.starts_with(b"HEAD ") { "HEAD" } else { "GET" }
    }

    fn label(&self) -> String {
        let shown = &self.wire[..self.wire.len().min(160)];
        format!("{} for {}", self.status, shown.escape_ascii())
    }
}

fn cases() -> Vec<Case> {
    const END: &[u8] = b"\r\nHost: localhost\r\n\r\n";
    const GET: &[u8] = b"GET /healthz HTTP/1.1\r\n";
    const POST: &[u8] = b"POST /channels/requests HTTP/1.1\r\nHost: localhost\r\n";
    const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n\r\n";
    let mut cases = Vec::new();

    let lines = LINES_TAKEN.iter();
    cases.extend(lines.map(|(status, line)| Case::taken(*status, &[line, END])));
    let lines = LINES_REFUSED.iter();
    cases.extend(lines.map(|(status, line)| Case::refused(*status, &[line, END])));

    let fields = FIELDS_TAKEN.iter();
    cases.extend(fields.map(|fields| Case::taken(200, &[GET, fields, b"\r\n"])));
    let fields = FIELDS_LAST.iter();
    cases.extend(fields.map(|fields| Case::last(200, &[GET, fields, b"\r\n"])));
    let fields = FIELDS_REFUSED.iter();
    cases.extend(fields.map(|(status, fields)| Case::refused(*status, &[GET, fields, b"\r\n"])));

    let contents = CONTENTS_TAKEN.iter();
    cases.extend(contents.map(|(fields, content)| Case::taken(200, &[POST, fields, b"\r\n\r\n", content])));
    let contents = CONTENTS_REFUSED.iter();
    cases.extend(contents.map(|(status, fields, content)| Case::last(*status, &[POST, fields, b"\r\n\r\n", content])));
    let chunks = CHUNKS_TAKEN.iter();
    cases.extend(chunks.map(|(chunks, _)| Case::taken(200, &[POST, CHUNKED, chunks])));
    let chunks = CHUNKS_REFUSED.iter();
    cases.extend(chunks.map(|(status, chunks)| Case::last(*status, &[POST, CHUNKED, chunks])));

    let wholes = WHOLES_TAKEN.iter();
    cases.extend(wholes.map(|(status, whole)| Case::taken(*status, &[whole])));
    let wholes = WHOLES_LAST.iter();
    cases.extend(wholes.map(|(status, whole)| Case::last(*status, &[whole])));
    let wholes = WHOLES_REFUSED.iter();
    cases.extend(wholes.map(|(status, whole)| Case::refused(*status, &[whole])));

    cases.extend(large_cases());
    cases
}

/// Requests at a limit, and one byte or one field beyond it.
fn large_cases() -> Vec<Case> {
    const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
    const LINE_END: &[u8] = b" HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const POST: &[u8] = b"POST /channels/requests HTTP/1.1\r\nHost: localhost\r\n";
    let limits = Limits::default();
    let z = |count: usize| vec![b'z'; count];
    let fields = |count: usize| b"X: y\r\n".repeat(count - 1);
    // A field that makes the head exactly so long
    let field = |head: usize| [b"X: ", &z(head - GET.len() - 7)[..], b"\r\n"].concat();
    let bare_cr = |count| [b"zebra\r", &z(count)[..]].concat();
    let chunked: &[u8] = b"Transfer-Encoding: chunked\r\n\r\n";
    vec![
        // "It is RECOMMENDED that all HTTP senders and recipients support, at a minimum,
        // request-line lengths of 8000 octets" (RFC 9112, 3).
        Case::taken(200, &[b"GET /healthz?", &z(8000), LINE_END]),
        Case::taken(404, &[b"GET /", &z(limits.target_bytes - 1), LINE_END]),
        Case::refused(414, &[b"GET /", &z(limits.target_bytes), LINE_END]),
        Case::refused(414, &[b"GET /?", &z(2 * limits.head_bytes), LINE_END]),
        Case::refused(414, &[b"GET http://localhost/", &z(limits.target_bytes), LINE_END]),
        Case::refused(414, &[b"GET /", &z(2 * limits.target_bytes)]),
        // "A server that receives a method longer than any that it implements SHOULD respond with a 501" (3).
        Case::refused(501, &[&z(33), b" /", LINE_END]),
        Case::refused(501, &[&z(limits.target_bytes), b" /", LINE_END]),
        Case::refused(501, &[&z(2 * limits.head_bytes), b" /", LINE_END]),
        Case::refused(501, &[&z(2 * limits.head_bytes)]),
        Case::refused(400, &[&z(32), LINE_END]),
        Case::refused(400, &[b"z(", &z(2 * limits.head_bytes)]),
        // The limit of the head
        Case::taken(200, &[GET, &field(limits.head_bytes), b"\r\n"]),
        Case::refused(431, &[GET, &field(limits.head_bytes + 1), b"\r\n"]),
        Case::refused(431, &[GET, &field(2 * limits.head_bytes), b"\r\n"]),
        Case::refused(431, &[GET, b"X: ", &z(limits.head_bytes)]),
        Case::refused(431, &[GET, &z(limits.head_bytes)]),
        Case::refused(431, &[&b"\r\n".repeat(limits.head_bytes), GET, b"\r\n"]),
        Case::refused(431, &[&b"\n".repeat(limits.head_bytes + 1)]),
        // The number of fields
        Case::taken(200, &[GET, &fields(limits.fields), b"\r\n"]),
        Case::refused(431, &[GET, &fields(limits.fields + 1), b"\r\n"]),
        Case::refused(431, &[GET, &b"a:\n".repeat(2_000), b"\r\n"]),
        // A bare CR is refused however much follows it.
        Case::refused(400, &[b"GET /", &bare_cr(2 * limits.target_bytes), LINE_END]),
        Case::refused(400, &[GET, b"X: ", &bare_cr(limits.head_bytes), b"\r\n\r\n"]),
        // Extensions and trailers are dropped, and bounded.
        Case::last(431, &[POST, chunked, b"5;", &z(5_000), b"\r\nzebra\r\n0\r\n\r\n"]),
        Case::last(431, &[POST, chunked, b"5", &[b' '; 5_000], b";a\r\nzebra\r\n0\r\n\r\n"]),
        Case::last(431, &[POST, chunked, b"5;a=\"", &z(5_000), b"\"\r\nzebra\r\n0\r\n\r\n"]),
        Case::last(431, &[POST, chunked, b"0\r\nX: ", &z(5_000), b"\r\n\r\n"]),
        Case::last(431, &[POST, chunked, b"0\r\n", &b"X: y\r\n".repeat(1_500), b"\r\n"]),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// The next request is sent after the answer, if the connection stays open.
    Whole,
    ByteByByte,
    /// The next request is sent in the same write.
    Pipelined,
}

/// Has one conversation, and panics when something is wrong with it.
fn converse(case: &Case, way: Way, address: SocketAddr) {
    let mut socket = connect(address);
    // The server may close before it has read everything, and then writing fails.
    let with_next = [&case.wire[..], NEXT].concat();
    let _ = match way {
        Way::Whole => socket.write_all(&case.wire),
        Way::ByteByByte => with_next.chunks(1).try_for_each(|byte| socket.write_all(byte)),
        Way::Pipelined => socket.write_all(&with_next),
    };
    let mut from_server = BufReader::new(socket.try_clone().expect("it is a socket"));
    let answer = Answer::read(&mut from_server, case.method()).expect("it is answered");
    check(case, &answer);
    if case.goes_on {
        if matches!(way, Way::Whole) {
            socket.write_all(NEXT).expect("the server reads on");
        }
        let next = Answer::read(&mut from_server, "GET").expect("the next one is answered too");
        assert_eq!((next.status, next.text()), (200, NEXT_CONTENT));
    }
    let mut more = Vec::new();
    from_server.read_to_end(&mut more).expect("it is no reset");
    assert!(more.is_empty(), "more was said: {}", more.escape_ascii());
}

fn check(case: &Case, answer: &Answer) {
    assert_eq!(answer.status, case.status, "{answer:?}");
    assert!(answer.field("date").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    assert_eq!(
        answer.field("connection") == Some("close"),
        !case.goes_on,
        "the server closes exactly when it says so: {}",
        answer.head
    );
    if case.goes_on && case.wire.windows(8).any(|eight| eight == b"HTTP/1.0") {
        assert_eq!(answer.field("connection"), Some("keep-alive"));
    }
    let whole = [answer.head.as_bytes(), &answer.content].concat();
    let whole = String::from_utf8_lossy(&whole).to_lowercase();
    if case.status >= 400 {
        assert!(!whole.contains("zebra"), "the refusal echoes the request: {whole}");
        assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert!(answer.field("content-length").is_some(), "{}", answer.head);
        if case.method() != "HEAD" {
            let text = answer.text();
            assert!(text.len() < 200 && text.lines().count() == 1, "{text:?}");
            assert!(text.ends_with('\n'), "{text:?}");
        }
    }
    if case.status == 405 {
        assert!(answer.field("allow").is_some_and(|allow| allow.contains("GET")));
    }
}

/// Calls `converse` for each of `all`, on many threads, and reports every failure.
fn each<T: Sync>(all: &[T], label: impl Fn(&T) -> String + Sync, converse: impl Fn(&T) + Sync) {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Relaxed)) {
                    let outcome = catch_unwind(AssertUnwindSafe(|| converse(one)));
                    if let Err(panic) = outcome {
                        let why = panic.downcast_ref::<String>().cloned();
                        let why = why.or(panic.downcast_ref().map(|why: &&str| why.to_string()));
                        let said = format!("{}\n    {}", label(one), why.unwrap_or_default());
                        wrong.lock().expect("pushing does not panic").push(said);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("pushing does not panic");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_request_gets_its_answer_over_a_socket() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let cases = cases();
    assert!(cases.len() > 150, "{} cases", cases.len());
    let ways = [Way::Whole, Way::ByteByByte, Way::Pipelined];
    let conversations: Vec<(&Case, Way)> = cases.iter().flat_map(|case| ways.map(|way| (case, way))).collect();
    each(
        &conversations,
        |(case, way)| format!("{way:?}: {}", case.label()),
        |(case, way)| converse(case, *way, server.address),
    );
}
