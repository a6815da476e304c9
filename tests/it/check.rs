//! `newswire check`: for each rule a server that breaks it, and one that keeps them all.

use crate::command_line::assert_mistakes;
use crate::server::{Publisher, Server, eventually};
use crate::webdriver::Json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What a server was asked.
struct Asked {
    /// Its head, in lower case but for the request line.
    head: String,
    last_event_id: Option<usize>,
}

impl Asked {
    fn has(&self, text: &str) -> bool {
        self.head.contains(text)
    }
}

/// What it answers.
struct Plan {
    status: &'static str,
    fields: BTreeMap<&'static str, String>,
    /// Before the head.
    delay: u64,
    /// Pieces of the stream, and the milliseconds before each.
    pieces: Vec<(u64, Vec<u8>)>,
    /// Whether the connection is closed behind the pieces.
    ends: bool,
}

impl Plan {
    /// Breaks no rule: twenty events in two seconds, kept for those that come back.
    fn good(asked: &Asked) -> Plan {
        let first = asked.last_event_id.map_or(1, |id| id + 1);
        let event = |n| (100, format!("id: {n}\ndata: {{\"n\":[{n},-1.5e3,\"\\u00e9\\n\"]}}\n\n"));
        let mut pieces = vec![(0, ": hello\nretry: 2000\n".to_owned())];
        pieces.extend((first..=20).map(event));
        pieces.insert(pieces.len().min(4), (0, ":\n".to_owned()));
        let fields = [
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-store, no-transform"),
            ("Access-Control-Allow-Origin", "*"),
            ("X-Accel-Buffering", "no"),
            ("X-Content-Type-Options", "nosniff"),
        ];
        Plan {
            status: "200 OK",
            fields: fields.map(|(name, value)| (name, value.to_owned())).into(),
            delay: 0,
            pieces: pieces.into_iter().map(|(delay, text)| (delay, text.into_bytes())).collect(),
            ends: false,
        }
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.fields.insert(name, value.to_owned());
    }

    /// Changes the text of every piece.
    fn replace(&mut self, from: &str, to: &str) {
        for (_, piece) in &mut self.pieces {
            *piece = String::from_utf8_lossy(piece).replace(from, to).into_bytes();
        }
    }

    /// One more piece behind the first event, for a client that comes for the first time.
    fn insert(&mut self, asked: &Asked, piece: impl Into<Vec<u8>>) {
        if asked.last_event_id.is_none() {
            self.pieces.insert(2, (0, piece.into()));
        }
    }

    fn play(&self, asked: &Asked, socket: &mut TcpStream) -> std::io::Result<()> {
        let wait = |ms| thread::sleep(Duration::from_millis(ms));
        wait(self.delay);
        let mut head = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        socket.write_all((head + "\r\n").as_bytes())?;
        if asked.has("HEAD ") {
            return Ok(());
        }
        for (delay, piece) in &self.pieces {
            wait(*delay);
            socket.write_all(piece)?;
        }
        if !self.ends {
            // Until the client has gone.
            let _ = socket.read(&mut [0]);
        }
        Ok(())
    }
}

type Change = fn(&Asked, &mut Plan);

/// A good server with this change.
fn serve(change: Change) -> SocketAddr {
    raw(move |asked, socket| {
        let mut plan = Plan::good(&asked);
        change(&asked, &mut plan);
        // The client goes when it has seen enough.
        let _ = plan.play(&asked, socket);
    })
}

/// Each connection on a thread of its own.
fn raw(answer: impl Fn(Asked, &mut TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("it accepts");
            let answer = answer.clone();
            thread::spawn(move || {
                socket.set_nodelay(true).expect("it is a socket");
                let (mut head, mut byte) = (String::new(), [0]);
                while !head.ends_with("\r\n\r\n") && socket.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(char::from(byte[0]));
                }
                let id = head.split("Last-Event-ID: ").nth(1).and_then(|rest| rest.split('\r').next());
                let last_event_id = id.and_then(|id| id.parse().ok());
                answer(Asked { head, last_event_id }, &mut socket);
                let _ = socket.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

fn check(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.arg("check").args(arguments).stdin(Stdio::null());
    command.output().expect("the binary under test starts")
}

/// The outcome of each rule, with what was seen.
fn findings(address: SocketAddr, arguments: &[&str]) -> BTreeMap<String, (String, String)> {
    let url = format!("http://{address}/stream");
    let output = check(&[&[&*url, "--output", "json"], arguments].concat());
    outcomes(&output)
}

fn outcomes(output: &Output) -> BTreeMap<String, (String, String)> {
    let text = std::str::from_utf8(&output.stdout).expect("it is UTF-8");
    let Json::List(findings) = &Json::parse(text)["findings"] else { panic!("no findings: {text}") };
    let outcomes: BTreeMap<_, _> = findings
        .iter()
        .map(|finding| {
            let text = |name: &str| finding[name].text().to_owned();
            assert!(!text("why").is_empty() && !text("remedy").is_empty(), "{}", text("rule"));
            (text("rule"), (text("outcome"), text("seen")))
        })
        .collect();
    let fails = outcomes.values().any(|(outcome, _)| outcome == "fail");
    assert_eq!(output.status.code(), Some(i32::from(fails)), "{outcomes:?}");
    outcomes
}

fn complaints(findings: &BTreeMap<String, (String, String)>) -> Vec<(&str, &str)> {
    let is_bad = |outcome: &str| ["warn", "fail"].contains(&outcome);
    let all = findings.iter().map(|(rule, (outcome, _))| (rule.as_str(), outcome.as_str()));
    all.filter(|(_, outcome)| is_bad(outcome)).collect()
}

/// Events whose ids are the milliseconds at which they happened. So many at a time leave together, behind a pause.
fn dated(asked: &Asked, plan: &mut Plan, happened: fn(usize) -> usize, at_once: usize, pause: u64) {
    let ids = (0..240).map(|n| 1_700_000_000_000 + happened(n));
    let ids = ids.filter(|&id| asked.last_event_id.is_none_or(|last| last < id));
    let events: Vec<String> = ids.map(|id| format!("id: {id}\ndata: x\n\n")).collect();
    plan.pieces.truncate(1);
    plan.pieces.extend(events.chunks(at_once).map(|events| (pause, events.concat().into_bytes())));
}

/// Larger events, which leave in pieces of so many bytes.
fn in_blocks(plan: &mut Plan, bytes: usize) {
    plan.replace("id: ", &format!(": {}\nid: ", "x".repeat(1_000)));
    let all: Vec<u8> = plan.pieces.drain(..).flat_map(|(_, piece)| piece).collect();
    plan.pieces = all.chunks(bytes).take(4).map(|block| (400, block.to_vec())).collect();
}

/// What is broken, what is said of it, and how the server breaks it.
const BROKEN: &[(&str, &str, Change)] = &[
    ("status", "fail", |_, plan| plan.status = "404 Not Found"),
    ("status", "fail", |_, plan| plan.status = "204 No Content"),
    ("status", "fail", |_, plan| plan.delay = 5_000),
    ("media-type", "fail", |_, plan| plan.set("Content-Type", "text/plain")),
    ("charset", "warn", |_, plan| plan.set("Content-Type", "text/event-stream; charset=\"ISO-8859-1\"")),
    ("encoding", "fail", |asked, plan| plan.insert(asked, *b"data: caf\xe9\n")),
    ("caching", "warn", |_, plan| plan.set("Cache-Control", "no-transform")),
    ("caching", "fail", |_, plan| plan.set("Cache-Control", "max-age=60, no-transform")),
    ("caching", "fail", |_, plan| plan.set("Age", "7")),
    // Not kept without a question, but kept.
    ("caching", "warn", |_, plan| plan.set("Cache-Control", "max-age=0, no-transform")),
    ("no-transform", "warn", |_, plan| plan.set("Cache-Control", "no-cache")),
    ("compression", "warn", |asked, plan| {
        if asked.has("Accept-Encoding: gzip") {
            plan.set("Content-Encoding", "gzip");
        }
    }),
    ("compression", "fail", |asked, plan| {
        if asked.has("Accept-Encoding: gzip") {
            plan.set("Content-Encoding", "gzip");
            plan.pieces = vec![(0, b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec())];
        }
    }),
    ("compression", "fail", |_, plan| plan.set("Content-Encoding", "br")),
    ("compression", "fail", |asked, plan| {
        plan.delay = if asked.has("Accept-Encoding: gzip") { 9_000 } else { 0 };
    }),
    ("cors", "warn", |_, plan| {
        plan.fields.remove("Access-Control-Allow-Origin");
    }),
    ("cors", "warn", |_, plan| {
        plan.set("Access-Control-Allow-Origin", "https://app.example.com");
    }),
    ("cors", "warn", |_, plan| {
        plan.set("Access-Control-Allow-Origin", "https://newswire.example");
    }),
    ("cors", "fail", |_, plan| plan.set("Access-Control-Allow-Origin", "*, *")),
    ("cors", "fail", |_, plan| plan.set("access-control-allow-origin", "*")),
    ("credentials", "fail", |_, plan| plan.set("Access-Control-Allow-Credentials", "true")),
    ("credentials", "fail", |_, plan| plan.set("Access-Control-Allow-Credentials", "yes")),
    ("credentials", "warn", |_, plan| {
        plan.set("Access-Control-Allow-Origin", "https://newswire.example");
        plan.set("Vary", "Accept, Origin");
        plan.set("Access-Control-Allow-Credentials", "true");
    }),
    ("x-accel-buffering", "warn", |_, plan| {
        plan.fields.remove("X-Accel-Buffering");
    }),
    ("connection", "warn", |_, plan| plan.set("Content-Length", "100000")),
    ("head", "warn", |asked, plan| {
        if asked.has("HEAD ") {
            plan.status = "405 Method Not Allowed";
        }
    }),
    ("head", "warn", |asked, plan| plan.delay = if asked.has("HEAD ") { 5_000 } else { 0 }),
    ("http-1.0", "warn", |asked, plan| {
        if asked.has("HTTP/1.0") {
            plan.status = "505 HTTP Version Not Supported";
        }
    }),
    ("http-1.0", "fail", |asked, plan| {
        if asked.has("HTTP/1.0") {
            plan.set("Transfer-Encoding", "chunked");
        }
    }),
    ("first-byte", "warn", |asked, plan| plan.delay = if asked.has("HEAD ") { 0 } else { 700 }),
    ("buffering", "fail", |asked, plan| dated(asked, plan, |n| n / 4 * 1_300 + n % 4 * 400, 4, 1_300)),
    ("buffering", "fail", |asked, plan| {
        if asked.last_event_id.is_none() {
            in_blocks(plan, 4_096);
        }
    }),
    ("buffering", "warn", |asked, plan| {
        if asked.last_event_id.is_none() {
            in_blocks(plan, 1_500);
        }
    }),
    ("buffering", "warn", |asked, plan| {
        if asked.last_event_id.is_none() {
            let bursts =
                plan.pieces.chunks(5).map(|pieces| (600, pieces.iter().flat_map(|(_, piece)| piece.clone()).collect()));
            plan.pieces = bursts.collect();
        }
    }),
    ("buffering", "fail", |asked, plan| {
        if asked.last_event_id.is_none() {
            let all = plan.pieces.drain(..).flat_map(|(_, piece)| piece).collect();
            (plan.pieces, plan.ends) = (vec![(1_200, all)], true);
        } else if asked.last_event_id == Some(20) {
            plan.status = "204 No Content";
        }
    }),
    ("bom", "warn", |asked, plan| {
        let event = "\u{feff}id: 0\ndata: x\n\n";
        if asked.last_event_id.is_none() {
            plan.pieces[0].1.splice(..0, event.bytes()).for_each(drop);
        }
    }),
    ("nul", "warn", |asked, plan| plan.insert(asked, *b": a\0b\n")),
    ("nul", "fail", |asked, plan| plan.insert(asked, *b"id: a\0b\ndata: x\nid: x\n\n")),
    // The id of the last event is the one without a NUL.
    ("nul", "fail", |asked, plan| {
        if asked.last_event_id.is_none() {
            plan.pieces.truncate(2);
            plan.pieces.push((0, b"id: 2\nid: a\0b\ndata: x\n\n".to_vec()));
        } else {
            plan.pieces = vec![(0, b"id: 2\ndata: x\n\n".to_vec())];
        }
    }),
    ("line-ends", "warn", |asked, plan| plan.insert(asked, *b": x\r\n")),
    ("line-ends", "warn", |_, plan| plan.replace("\n", "\r")),
    ("fields", "warn", |asked, plan| plan.insert(asked, *b"sent: now\n")),
    ("fields", "fail", |asked, plan| plan.insert(asked, *b"Data: x\n")),
    ("fields", "fail", |asked, plan| plan.insert(asked, *b"data : x\n")),
    ("retry", "fail", |_, plan| plan.replace("retry: 2000", "retry: 2s")),
    ("retry", "fail", |_, plan| plan.replace("retry: 2000", "retry:")),
    ("retry", "warn", |_, plan| plan.replace("retry: 2000", "retry: 3")),
    ("empty-blocks", "warn", |asked, plan| plan.insert(asked, *b": ping\n\n")),
    ("empty-blocks", "warn", |asked, plan| plan.insert(asked, *b"\n")),
    ("unfinished", "fail", |asked, plan| {
        if asked.last_event_id.is_none() {
            plan.pieces.iter_mut().skip(2).for_each(|(_, piece)| piece.truncate(piece.len() - 1));
        }
    }),
    ("unfinished", "fail", |asked, plan| {
        plan.pieces.truncate(5);
        plan.ends = true;
        if asked.last_event_id == Some(3) {
            plan.status = "204 No Content";
        } else {
            plan.pieces.push((0, b"data: never dispatched\n".to_vec()));
        }
    }),
    ("json", "warn", |_, plan| plan.replace("-1.5e3", "NaN")),
    ("json", "warn", |_, plan| plan.replace("-1.5e3", "01")),
    ("json", "warn", |_, plan| plan.replace("-1.5e3", "1.")),
    ("json", "warn", |_, plan| plan.replace("-1.5e3", "1.e3")),
    ("json", "warn", |_, plan| plan.replace("\\u00e9", "\\u00g9")),
    ("json", "warn", |asked, plan| plan.insert(asked, *b"id: 1.5\ndata: [1, 2,]\n\n")),
    ("json", "warn", |_, plan| plan.replace("\"n\"", "'n'")),
    ("json", "warn", |_, plan| plan.replace("]}", "]},{}")),
    ("json", "warn", |_, plan| plan.replace("]}", "],}")),
    ("json", "warn", |_, plan| plan.replace("]}", "")),
    ("json", "warn", |_, plan| plan.replace("\\u00e9", "\t")),
    ("json", "warn", |_, plan| plan.replace("-1.5e3", &"[".repeat(100_000))),
    ("event-names", "warn", |_, plan| plan.replace("id: 2\n", "id: 2\nevent: error\n")),
    ("event-names", "warn", |_, plan| plan.replace("id: 2\n", "id: 2\nevent: open\n")),
    ("ids", "warn", |_, plan| plan.replace("id: 3\n", "")),
    ("ids", "fail", |_, plan| plan.replace("id: 3\n", "id: 2\n")),
    ("ids", "warn", |_, plan| (1..=20).for_each(|n| plan.replace(&format!("id: {n}\n"), ""))),
    ("resume", "fail", |asked, plan| {
        if asked.last_event_id.is_some() {
            *plan = Plan::good(&Asked { head: String::new(), last_event_id: None });
        }
    }),
    ("resume", "fail", |asked, plan| {
        if asked.last_event_id.is_some() {
            plan.pieces.drain(1..3).for_each(drop);
        }
    }),
    ("resume", "fail", |asked, plan| {
        if asked.last_event_id.is_some() {
            plan.pieces.drain(1..3).for_each(drop);
        }
        plan.pieces.insert(0, (0, b"event: hello\ndata: x\n\n".to_vec()));
    }),
    ("resume", "fail", |asked, plan| {
        if asked.last_event_id.is_some() {
            plan.pieces.truncate(1);
        }
    }),
    ("resume", "fail", |asked, plan| {
        if asked.last_event_id.is_some() {
            plan.status = "500 Internal Server Error";
        }
    }),
    ("ending", "fail", |asked, plan| {
        plan.pieces.truncate(if asked.last_event_id == Some(3) { 1 } else { 5 });
        plan.ends = true;
    }),
    ("ending", "fail", |asked, plan| {
        plan.pieces.truncate(5);
        plan.ends = true;
        if asked.last_event_id == Some(3) {
            let again = Asked { head: String::new(), last_event_id: Some(2) };
            plan.pieces = Plan::good(&again).pieces[..2].to_vec();
        }
    }),
    ("ending", "warn", |asked, plan| {
        plan.pieces.truncate(5);
        plan.ends = true;
        if asked.last_event_id == Some(3) {
            plan.status = "404 Not Found";
        }
    }),
    ("ending", "fail", |asked, plan| {
        if asked.last_event_id.is_none() && !asked.has("HTTP/1.0") {
            plan.set("Transfer-Encoding", "chunked");
            plan.pieces = vec![(0, b"c\r\nid: 1\ndata: \r\n3\r\nx\n\n\r\n".to_vec())];
            plan.ends = true;
        }
    }),
];

/// What looks like a fault of the rule and is none.
const KEPT: &[(&str, Change)] = &[
    ("charset", |_, plan| plan.set("Content-Type", "Text/Event-Stream; charset=UTF-8")),
    ("caching", |_, plan| plan.set("Cache-Control", "no-cache, no-transform")),
    ("cors", |_, plan| {
        plan.set("Access-Control-Allow-Origin", "https://newswire.example");
        plan.set("Vary", "origin");
    }),
    ("x-accel-buffering", |_, plan| {
        plan.fields.remove("X-Accel-Buffering");
        plan.set("Server", "nginx/1.26.3");
    }),
    // A slow server, but one that does not wait for an event.
    ("first-byte", |asked, plan| {
        plan.delay = if asked.has("HEAD ") { 0 } else { 700 };
        plan.pieces[1].0 = 500;
    }),
    // Events that happened before the client came.
    ("buffering", |asked, plan| dated(asked, plan, |n| n * 20_000, 12, 10)),
    // Events so close to each other that there is no pause between them.
    ("buffering", |asked, plan| dated(asked, plan, |n| n * 10, 1, 10)),
    // Bursts of events that happened in bursts.
    ("buffering", |asked, plan| {
        dated(asked, plan, |n| n / 4 * 600 + n % 4, 4, 600);
        plan.pieces.remove(0);
    }),
    // Events that have the size of a block.
    ("buffering", |_, plan| {
        for (delay, piece) in &mut plan.pieces[1..] {
            *delay = 400;
            *piece = [b":", &*vec![b'x'; 4_094 - piece.len()], b"\n", piece].concat();
        }
    }),
    ("fields", |asked, plan| plan.insert(asked, *b": a comment\ndata\nid: 1.5\n\n")),
    // A line that is still to come is not an event without an end.
    ("unfinished", |asked, plan| {
        if asked.last_event_id.is_none() {
            plan.pieces.truncate(5);
            plan.pieces.push((0, b"id: 4\ndata: hal".to_vec()));
        }
    }),
    ("json", |_, plan| plan.replace("data: {\"n\"", "data: {\ndata: \"n\"\ndata: ")),
    ("json", |asked, plan| plan.insert(asked, *b"id: 1.5\ndata: [DONE]\n\n")),
    // A line of a log.
    ("json", |asked, plan| plan.insert(asked, *b"id: 1.5\ndata: [2026-01-02 12:00:01] GET / [200]\n\n")),
    ("json", |asked, plan| plan.insert(asked, *b"id: 1.5\ndata: [0, -1e9, [1.25E+2], true, {}]\n\n")),
    // An event of another type may be about the stream.
    ("ids", |asked, plan| plan.insert(asked, *b"event: hello\ndata: x\n\n")),
    ("resume", |asked, plan| {
        if asked.last_event_id.is_some() {
            plan.pieces.drain(1..3).for_each(drop);
            plan.pieces.insert(0, (0, b"event: gap\ndata: x\n\n".to_vec()));
        }
    }),
    ("resume", |asked, plan| {
        if asked.last_event_id.is_none() {
            plan.pieces.truncate(2);
        }
    }),
    ("resume", |asked, plan| {
        plan.pieces.truncate(2);
        plan.ends = true;
        if asked.last_event_id == Some(1) {
            plan.status = "204 No Content";
        }
    }),
    ("ending", |asked, plan| {
        plan.pieces.truncate(5);
        plan.ends = true;
        if asked.last_event_id == Some(3) {
            plan.status = "204 No Content";
        }
    }),
    ("ending", |_, plan| (plan.pieces, plan.ends) = (plan.pieces[..5].to_vec(), true)),
];

/// Runs each on a thread of its own, since they wait most of the time, and tells what is wrong with all of them. On a busy
/// machine a stream may be late, as through a bad proxy: what was wrong must be wrong again when it runs alone.
fn all<T: Sync>(cases: &[T], wrong: impl Fn(&T) -> Option<String> + Sync) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = Vec::new();
    for cases in cases.chunks(16) {
        let is_wrong = thread::scope(|scope| {
            let threads: Vec<_> = cases.iter().map(|case| scope.spawn(|| wrong(case))).collect();
            let found = threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
            found.map(|found| found.is_some()).collect::<Vec<_>>()
        });
        let again = cases.iter().zip(is_wrong).filter(|(_, is_wrong)| *is_wrong);
        all.extend(again.filter_map(|(case, _)| wrong(case).and_then(|_| wrong(case))));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

fn seconds(rule: &str) -> &'static str {
    if rule == "buffering" { "3" } else { "2" }
}

fn names_of_rules() -> Vec<String> {
    let list = check(&["--list"]);
    let list = String::from_utf8(list.stdout).expect("it is UTF-8");
    list.lines().map(str::to_owned).collect()
}

#[test]
fn each_rule_finds_a_server_that_breaks_it_and_no_other_rule_does() {
    all(BROKEN, |(rule, expected, change)| {
        let findings = findings(serve(*change), &["--for", seconds(rule)]);
        let is_right = complaints(&findings) == [(*rule, *expected)];
        (!is_right).then(|| format!("{rule} is to {expected}: {:?} {findings:?}", complaints(&findings)))
    });
    // Heartbeat has a test of its own, and these two say nothing that needs a remedy at once.
    let not_here = ["heartbeat", "nosniff"];
    for rule in names_of_rules() {
        let is_broken = BROKEN.iter().any(|(name, ..)| *name == rule);
        assert_ne!(is_broken, not_here.contains(&&*rule), "{rule}");
    }
}

#[test]
fn a_server_that_keeps_every_rule_passes_every_rule() {
    let findings = findings(serve(|_, _| ()), &["--for", "1"]);
    assert_eq!(findings.len(), names_of_rules().len());
    for (rule, (outcome, seen)) in findings {
        let expected = if rule == "connection" { "info" } else { "pass" };
        assert_eq!(outcome, expected, "{rule}: {seen}");
    }
}

#[test]
fn no_rule_complains_of_what_only_looks_like_its_fault() {
    all(KEPT, |(rule, change)| {
        let findings = findings(serve(*change), &["--for", seconds(rule)]);
        let is_right = complaints(&findings).is_empty() && findings[*rule].0 == "pass";
        (!is_right).then(|| format!("{rule} is to pass: {:?} {findings:?}", complaints(&findings)))
    });
}

#[test]
fn silence_is_measured_against_the_timeout_of_the_proxies() {
    let outcome = |change, arguments: &[&str]| {
        let findings = findings(serve(change), &[&["--for", "2", "--only", "heartbeat"], arguments].concat());
        findings["heartbeat"].0.clone()
    };
    let silent: Change = |_, plan| plan.pieces.truncate(4);
    assert_eq!(outcome(silent, &["--proxy-timeout", "1"]), "warn");
    assert_eq!(outcome(silent, &[]), "info", "two seconds say nothing about a minute");
    assert_eq!(outcome(|_, _| (), &["--proxy-timeout", "1"]), "pass");
}

#[test]
fn what_comes_after_a_resumption_is_told() {
    let told = |change: Change| findings(serve(change), &["--for", "1"])["resume"].1.clone();
    let begins_again = told(|_, plan| {
        *plan = Plan::good(&Asked { head: String::new(), last_event_id: None });
    });
    assert!(begins_again.ends_with("the stream begins at \"1\" again"), "{begins_again}");
    let goes_on = told(|asked, plan| {
        if asked.last_event_id.is_some() {
            plan.pieces.drain(1..3).for_each(drop);
        }
    });
    assert!(goes_on.contains("the stream goes on at "), "{goes_on}");
    let other_data = told(|asked, plan| {
        if asked.last_event_id.is_some() {
            plan.replace("-1.5e3", "7");
        }
    });
    assert!(other_data.ends_with(" comes with other data"), "{other_data}");
    let lost_in_between = told(|asked, plan| {
        if asked.last_event_id.is_some() {
            plan.pieces.remove(2);
        }
    });
    assert!(lost_in_between.contains(", not at "), "{lost_in_between}");
}

#[test]
fn a_byte_order_mark_within_the_stream_makes_an_unknown_field() {
    let address = serve(|asked, plan| plan.insert(asked, "\u{feff}id: x\n"));
    let findings = findings(address, &["--for", "2"]);
    assert_eq!(complaints(&findings), [("bom", "fail"), ("fields", "warn")]);
}

#[test]
fn a_stream_of_another_media_type_is_judged_all_the_same() {
    let findings = findings(serve(BROKEN[3].2), &["--for", "2"]);
    let of = |rule: &str| findings[rule].0.clone();
    assert_eq!((of("media-type"), of("ids")), ("fail".to_owned(), "pass".to_owned()));
}

#[test]
fn what_was_seen_of_a_field_is_its_value() {
    let findings = findings(serve(|_, plan| drop(plan.fields.remove("X-Accel-Buffering"))), &["--for", "1"]);
    for (rule, seen) in [
        ("media-type", "Content-Type is \"text/event-stream\""),
        ("caching", "Cache-Control is \"no-store, no-transform\", there is no Age"),
        ("nosniff", "X-Content-Type-Options is \"nosniff\""),
        ("x-accel-buffering", "there is no X-Accel-Buffering"),
    ] {
        assert_eq!(findings[rule].1, seen, "{rule}");
    }
    assert!(findings["cors"].1.contains("Access-Control-Allow-Origin is \"*\""), "{findings:?}");
}

#[test]
fn nosniff_is_information() {
    let address = serve(|_, plan| drop(plan.fields.remove("X-Content-Type-Options")));
    let findings = findings(address, &["--for", "1"]);
    assert_eq!((complaints(&findings), &*findings["nosniff"].0), (vec![], "info"));
}

#[test]
fn the_users_own_origin_is_asked_for() {
    let address = serve(|asked, plan| {
        plan.set("Vary", "Origin");
        plan.fields.remove("Access-Control-Allow-Origin");
        if asked.has("Origin: https://app.example.com\r\n") && asked.has("Authorization: Bearer x\r\n") {
            plan.set("Access-Control-Allow-Origin", "https://app.example.com");
            plan.set("Access-Control-Allow-Credentials", "true");
        }
    });
    let own = ["--header", "Origin: https://app.example.com", "--header=Authorization:Bearer x"];
    assert_eq!(complaints(&findings(address, &[&["--for", "1"], &own[..]].concat())), []);
    assert_eq!(complaints(&findings(address, &["--for", "1"])), [("cors", "warn")]);
}

#[test]
fn our_own_server_has_nothing_to_warn_about() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let (address, (over, is_over)) = (server.address, mpsc::channel::<()>());
    let publisher = thread::spawn(move || {
        let mut publisher = Publisher::connect(address, "news");
        while is_over.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
            publisher.publish("{\"a\": 1}");
        }
    });
    let targets = [
        ("/channels/news", "2"),
        ("/sse/mvc/words", "12"),
        ("/lab", "2"),
        ("/lab?interval=100", "2"),
        ("/channels/idle", "1"),
    ];
    all(&targets, |(target, seconds)| {
        let url = server.url(target);
        let found = outcomes(&check(&[&*url, "--output", "json", "--for", *seconds]));
        let has_resumed = *target == "/channels/idle" || found["resume"].0 == "pass";
        let has_ended = *target != "/sse/mvc/words" || found["ending"].1.contains("204");
        let is_right = complaints(&found).is_empty() && has_resumed && has_ended;
        (!is_right).then(|| format!("{target}: {found:?}"))
    });
    drop(over);
    publisher.join().expect("it publishes");
}

/// `None` once it has ended.
fn resident_kib(pid: u32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_stream_without_an_end_neither_holds_it_up_nor_makes_it_grow() {
    let pieces = ["x", "\n", "d\n", "data\n\n", "id: 1\ndata\n\n"];
    all(&pieces, |&piece| {
        let address = raw(move |_, socket| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
            let _ = socket.write_all(head.as_bytes());
            while socket.write_all(piece.repeat(10_000).as_bytes()).is_ok() {}
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["check", &format!("http://{address}/"), "--for", "1", "--output", "json"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let pid = child.id();
        let watch = thread::spawn(move || {
            let mut most = 0;
            while let Some(resident) = resident_kib(pid) {
                most = resident;
                thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let findings = outcomes(&child.wait_with_output().expect("it ends"));
        let most = watch.join().expect("it watches");
        let is_right = findings["status"].0 == "pass" && (1..300_000).contains(&most);
        (!is_right).then(|| format!("{piece:?}: {most} KiB, {findings:?}"))
    });
}

#[test]
fn a_server_that_is_none_is_reported() {
    let refused = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let hold = |socket: &mut TcpStream| drop(socket.read(&mut [0]));
    let servers: [(&str, SocketAddr); 7] = [
        ("takes no connection", refused.expect("there is a free port")),
        ("no response came within 1s", raw(move |_, socket| hold(socket))),
        (
            "no response came within 1s",
            raw(move |_, socket| {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX: ");
                while socket.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(10));
                }
            }),
        ),
        (
            "its head is larger than",
            raw(|_, socket| {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX: ");
                while socket.write_all(&[b'x'; 1_000]).is_ok() {}
            }),
        ),
        ("the connection broke", raw(|_, _| ())),
        ("TLS", raw(|_, socket| drop(socket.write_all(b"\x15\x03\x01\0\x02\x02\x28")))),
        (
            "redirects loop",
            raw(|_, socket| {
                drop(socket.write_all(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"));
            }),
        ),
    ];
    all(&servers, |(sentence, address)| {
        let output = check(&[&*format!("http://{address}/"), "--for", "1", "--output", "json", "--only", "ids"]);
        let found = outcomes(&output);
        let is_right = found["status"].0 == "fail" && found["status"].1.contains(sentence);
        (!is_right).then(|| format!("{sentence}: {found:?}"))
    });
}

#[test]
fn nothing_that_a_server_sends_controls_the_terminal() {
    let address = serve(|asked, plan| {
        plan.set("Content-Type", "text/event-stream; charset=\u{202e}");
        plan.replace("id: 3\n", "id: \u{1b}[31m\nx\u{1b}[31m: \u{202e}\nretry: \u{9b}\n");
        plan.insert(asked, ": \u{1b}[31m\n\nevent: error\ndata: {\u{1b}\nid: \u{1b}[31m\n\n");
    });
    let output = check(&[&*format!("http://{address}/"), "--for", "1"]);
    let text = String::from_utf8(output.stdout).expect("it is UTF-8");
    assert!(text.contains("\\u{1b}[31m") && text.contains("fail"), "{text}");
    let is_harmless = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
    assert!(text.chars().all(is_harmless), "{text:?}");
}

#[test]
fn a_mistake_on_the_command_line_is_code_2_and_one_sentence() {
    let url = "http://127.0.0.1:1/";
    let cases: &[(&[&str], &str)] = &[
        (&[], "say what to check"),
        (&["--for"], "--for needs a value"),
        (&[url, "--for", "0"], "more than 0"),
        (&[url, "--for=x"], "more than 0"),
        (&[url, url], "one argument too many"),
        (&[url, "--nonsense"], "see newswire check --help"),
        (&[url, "--list=x"], "--list takes no value"),
        (&[url, "--only", "nonsense"], "check --list"),
        (&[url, "--only", "bom,nonsense"], "check --list"),
        (&[url, "--skip", ""], "check --list"),
        (&[url, "--output", "xml"], "text, json"),
        (&[url, "--header", "no colon"], "--header takes a field"),
        (&[url, "--header", "a b: c"], "--header takes a field"),
        (&[url, "--header", "a: b\r\nc: d"], "--header takes a field"),
        (&[url, "--token-file", "no such file"], "--token-file: cannot use"),
        (&["ftp://127.0.0.1/"], "does not begin with http://"),
        (&["https://127.0.0.1/"], "there is no TLS"),
        (&["127.0.0.1:8080"], "does not begin with http://"),
    ];
    assert_mistakes("check", cases);
}

#[test]
fn rules_are_chosen_by_name() {
    let address = serve(|_, plan| plan.replace("id: 2\n", "id: 2\nevent: error\n"));
    let names = |arguments: &[&str]| -> Vec<String> {
        findings(address, &[&["--for", "1"], arguments].concat()).into_keys().collect()
    };
    assert_eq!(names(&["--only", "bom, nul", "--only=ids"]), ["bom", "ids", "nul"]);
    assert_eq!(names(&["--only", "bom,nul", "--skip", "nul"]), ["bom"]);
    let rest = names(&["--skip", "event-names", "--skip", "bom,nul"]);
    assert_eq!(rest.len(), names_of_rules().len() - 3);
    assert!(!rest.contains(&"event-names".to_owned()));
}

#[test]
fn the_table_says_why_and_the_remedy_of_what_does_not_pass() {
    let address = serve(|_, plan| {
        plan.replace("id: 2\n", "id: 2\nevent: error\n");
        plan.replace("retry: 2000", "retry: soon");
    });
    let url = format!("http://{address}/");
    let output = check(&[&url, "--for", "1"]);
    let text = String::from_utf8(output.stdout).expect("it is UTF-8");
    let said = String::from_utf8(output.stderr).expect("it is UTF-8");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said, format!("newswire: 1 of {} rules fail\n", names_of_rules().len()));
    let below = |start: &str| -> Vec<&str> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(start));
        lines.next().expect("the line is there");
        lines.take_while(|line| line.starts_with("      ")).collect()
    };
    assert_eq!(below("pass  ids "), [""; 0]);
    for start in ["warn  event-names ", "fail  retry "] {
        let [why, remedy] = below(start)[..] else { panic!("{text}") };
        assert!(why.starts_with("      why  ") && remedy.starts_with("      remedy  "), "{text}");
    }
    assert!(text.contains(" 1 warn, 1 fail\n"), "{text}");
    assert!(!text.contains('\x1b'), "it is no terminal: {text}");
}

#[test]
fn what_could_not_be_judged_is_named_with_the_reason() {
    let address = serve(|_, plan| plan.pieces.truncate(1));
    let output = check(&[&*format!("http://{address}/"), "--for", "1"]);
    let text = String::from_utf8(output.stdout).expect("it is UTF-8");
    assert_eq!(output.status.code(), Some(0), "{text}");
    let last = text.lines().last().expect("there are lines");
    assert_eq!(last, "not judged, because no event was seen: json, event-names, ids, resume");
}

/// On a terminal of script(1).
#[test]
fn colours_are_for_terminals_without_no_color() {
    let address = serve(|_, _| ());
    let on_terminal = |no_color: &str| {
        let run = format!("{} check http://{address}/ --for 1", env!("CARGO_BIN_EXE_newswire"));
        let mut command = Command::new("script");
        command.args(["-qec", &run, "/dev/null"]).env("NO_COLOR", no_color).stdin(Stdio::null());
        let output = command.output().expect("script(1) is there");
        String::from_utf8(output.stdout).expect("it is UTF-8")
    };
    assert!(on_terminal("").contains("\x1b[32mpass\x1b[m  status"));
    let plain = on_terminal("1");
    assert!(plain.contains("pass  status") && !plain.contains('\x1b'), "{plain}");
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let url = format!("http://{}/", serve(|_, _| ()));
    for options in [&["--for", "1"][..], &["--list"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("there are descriptors");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["check", &url]).args(options).stdout(writer).stderr(Stdio::piped());
        let output = command.spawn().and_then(|child| child.wait_with_output()).expect("it ends");
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{options:?}");
    }
}

/// nginx before a server, with its buffering as it is by default, and without.
struct Nginx {
    child: Child,
    buffering: SocketAddr,
    passing: SocketAddr,
}

impl Nginx {
    /// `None`, loudly, on a machine without nginx; a machine that is there to test must have it.
    fn start(server: SocketAddr) -> Option<Nginx> {
        // nginx cannot pick a free port. At this address no other test listens.
        let [.., high, low] = std::process::id().to_be_bytes();
        let [buffering, passing] = [8_001, 8_002].map(|port| SocketAddr::from(([127, 77, high, low], port)));
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nginx-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("it can be made");
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};\n"))
            .concat();
        // nginx obeys X-Accel-Buffering, which other servers do not send.
        let conf = format!(
            "daemon off; master_process off; pid pid; error_log error.log; events {{}}\n\
             http {{ access_log off; {paths} proxy_ignore_headers X-Accel-Buffering;\n\
             server {{ listen {buffering}; location / {{ proxy_pass http://{server}; }} }}\n\
             server {{ listen {passing}; location / {{ proxy_pass http://{server}; proxy_buffering off; }} }} }}\n"
        );
        std::fs::write(place.join("nginx.conf"), conf).expect("it can be written");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&place).args(["-c", "nginx.conf", "-e", "error.log"]);
        match command.stderr(Stdio::null()).spawn() {
            Ok(child) => {
                let nginx = Nginx { child, buffering, passing };
                eventually("nginx listens", || TcpStream::connect(passing).is_ok());
                Some(nginx)
            }
            Err(error) => {
                assert!(std::env::var("CI").is_err(), "nginx does not start: {error}");
                // Not eprintln, which the test harness would keep to itself.
                let _ = writeln!(std::io::stderr(), "\n*** SKIPPED, no proxy is checked: nginx: {error} ***");
                None
            }
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_buffering_of_a_real_nginx_is_named() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let Some(nginx) = Nginx::start(server.address) else { return };
    let (address, (over, is_over)) = (server.address, mpsc::channel::<()>());
    let publisher = thread::spawn(move || {
        let mut publisher = Publisher::connect(address, "news");
        while is_over.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
            publisher.publish(&"x".repeat(200));
        }
    });
    let held = "all 12 events came at once after";
    let cases = [
        (nginx.buffering, "/lab?interval=150&count=12", "fail", held),
        (nginx.buffering, "/channels/news", "fail", "in pieces of 4096 bytes as nginx has them"),
        (nginx.passing, "/lab?interval=150&count=12", "pass", "12 events in"),
        (nginx.passing, "/channels/news", "pass", " events in "),
    ];
    all(&cases, |(proxy, target, outcome, sentence)| {
        let url = format!("http://{proxy}{target}");
        let found = outcomes(&check(&[&*url, "--for", "4", "--output", "json"]));
        let buffering = &found["buffering"];
        let is_right = buffering.0 == *outcome && buffering.1.contains(sentence);
        let is_clean = *outcome == "fail" || complaints(&found).is_empty();
        (!is_right || !is_clean).then(|| format!("{target}: {found:?}"))
    });
    drop(over);
    publisher.join().expect("it publishes");
}

#[test]
fn what_a_server_says_of_its_refusal_is_shown() {
    let server = Server::start(&["--quiet"]);
    let url = server.url("/channels/news?typo=1");
    let found = outcomes(&check(&[&*url, "--for", "1", "--output", "json", "--only", "status"]));
    let (outcome, seen) = &found["status"];
    assert!(outcome == "fail" && seen.contains(": The parameter typo is unknown."), "{found:?}");
}
