//! `newswire watch`, as its users run it: in pipes, on a terminal, and against servers that are not ours.

use crate::command_line::assert_mistakes;
use crate::event_source::{Hostile, OPENING, hostile, responses};
use crate::events::{interpret, web_platform_streams};
use crate::server::{Server, ask, eventually, serve};
use newswire::sse::{Parser, Recording, json_string};
use newswire::{Emitter, Event, Router};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A file of this test's own.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, content: &[u8]) -> TempFile {
        let path = std::env::temp_dir().join(format!("newswire-{}-{name}", std::process::id()));
        fs::write(&path, content).expect("there is room for it");
        TempFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("it is UTF-8")
    }

    fn read(&self) -> Vec<u8> {
        fs::read(&self.0).expect("it is there")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// How a command has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("it is UTF-8")
    }

    /// Standard output, of a command that has ended well.
    #[track_caller]
    fn good(&self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.text()
    }
}

/// A command that runs; it ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start<A: AsRef<OsStr>>(arguments: &[A]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.args(arguments);
    Running(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test starts"),
    )
}

/// Runs a command with this standard input until it ends.
pub(crate) fn run<A: AsRef<OsStr>>(arguments: &[A], input: &[u8]) -> Outcome {
    let mut running = start(arguments);
    let mut stdin = running.0.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // A command that does not read all of it closes the pipe.
    thread::spawn(move || drop(stdin.write_all(&input)));
    end(running)
}

/// Waits until a command ends.
pub(crate) fn end(mut running: Running) -> Outcome {
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        let mut pipe = pipe.expect("it is piped");
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).map(|_| bytes).expect("a pipe can be read")
        })
    };
    let stdout = read(running.0.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = read(running.0.stderr.take().map(|pipe| Box::new(pipe) as _));
    eventually("the command ends", || running.0.try_wait().expect("it is ours").is_some());
    Outcome {
        code: running.0.wait().expect("it has ended").code(),
        stdout: stdout.join().expect("it reads"),
        stderr: String::from_utf8(stderr.join().expect("it reads")).expect("it is UTF-8"),
    }
}

fn watch(arguments: &[&str]) -> Outcome {
    run(&[&["watch"], arguments].concat(), b"")
}

fn watch_stdin(arguments: &[&str], input: &[u8]) -> Outcome {
    run(&[&["watch", "-"], arguments].concat(), input)
}

fn watch_stream(stream: &[u8], arguments: &[&str]) -> Outcome {
    let server = responses(vec![[OPENING.as_bytes(), stream].concat()]);
    watch(&[&[&*server.url("/")], arguments].concat())
}

/// The lines of `--output json` without their times, which must be there.
#[track_caller]
fn events(json: &str) -> Vec<String> {
    let event = |line: &str| {
        let (event, time) = line.rsplit_once(",\"time\":").expect("it has a time");
        let time = time.strip_suffix('}').and_then(|time| time.parse::<u64>().ok());
        assert!(time.is_some_and(|time| time > 1_600_000_000_000), "{line}");
        event.to_owned() + "}"
    };
    json.lines().map(event).collect()
}

/// What they are for these messages of a parser.
fn json_of(stream: &[u8]) -> Vec<String> {
    let messages = interpret(stream).0.into_iter();
    let line = |[id, event, data]: [String; 3]| format!("{{\"id\":{id},\"event\":{event},\"data\":{data}}}");
    let fields = messages.map(|m| [m.last_event_id, m.event_type, m.data]);
    fields.map(|fields| line(fields.map(|text| json_string(&text)))).collect()
}

const STREAM: &str = "retry: 1\nid: 1\ndata: a\n\nevent: note\ndata: b\ndata: c\n\nid: 3\ndata: d\n\n";

#[test]
fn the_streams_of_the_web_platform_tests_give_the_events_that_browsers_dispatch() {
    for (stream, data) in web_platform_streams() {
        let expected = json_of(&stream);
        assert_eq!(expected.len(), data.len());
        let file = TempFile::new("platform", &stream);
        for outcome in [
            watch_stdin(&["--output", "json"], &stream),
            watch(&["--output=json", file.path()]),
            watch_stream(&stream, &["--output", "json", "--once"]),
        ] {
            assert_eq!(events(&outcome.good()), expected, "{:?}", String::from_utf8_lossy(&stream));
        }
    }
}

#[test]
fn json_has_an_object_a_line_with_id_event_data_and_time() {
    let lines = events(&watch_stdin(&["--output", "json"], STREAM.as_bytes()).good());
    let expected = [
        r#"{"id":"1","event":"message","data":"a"}"#,
        r#"{"id":"1","event":"note","data":"b\u000ac"}"#,
        r#"{"id":"3","event":"message","data":"d"}"#,
    ];
    assert_eq!(lines, expected);
}

#[test]
fn data_is_printed_alone_and_people_get_aligned_columns_with_json_in_one_line() {
    let outcome = watch_stdin(&["--output", "data"], STREAM.as_bytes());
    assert_eq!(outcome.good(), "a\nb\nc\nd\n");

    let stream = "id: 1\ndata: a\n\nid: 23\nevent: forecast\ndata: {\"a\": [1,\ndata:   2], \"b\": \"x  y\"}\n\n\
                  data: {no\ndata: json\n\n";
    let text = watch_stdin(&[], stream.as_bytes()).good();
    let lines: Vec<(&str, &str)> = text.lines().map(|line| line.split_at(13)).collect();
    let columns: Vec<&str> = lines.iter().map(|(_, columns)| *columns).collect();
    let expected = [
        "  1  message  a",
        "  23  forecast  {\"a\": [1, 2], \"b\": \"x  y\"}",
        "  23  message   {no",
        "                json",
    ];
    assert_eq!(columns, expected, "{text}");
    for (time, _) in &lines[..3] {
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "00:00:00.000Z");
    }
    // No id, no column.
    let text = watch_stdin(&[], b"data: a\n\n").good();
    assert_eq!(&text[13..], "  message  a\n");
}

#[test]
fn raw_is_the_very_bytes_also_those_of_an_unfinished_event() {
    let streams =
        ["\u{feff}: c\r\rdata: a\r\r\n\n", "data: a\r\n\r\ndata: unfini", "\n\r\n\r", ": c\nretry", "\u{feff}"];
    for stream in streams {
        let outcome = watch_stdin(&["--output", "raw"], stream.as_bytes());
        assert_eq!(outcome.good(), stream);
        let outcome = watch_stream(stream.as_bytes(), &["--output", "raw", "--once"]);
        assert_eq!(outcome.good(), stream);
    }
    let server = Server::start(&["--lab"]);
    for query in ["newline=cr&bom=on&chunk=3&garbage=on", "newline=crlf&chunk=1&size=300&lines=3"] {
        let target = format!("/lab?interval=0&id=off&{query}");
        let mut socket = server.connect();
        let request = format!("GET {target} HTTP/1.0\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("the server reads");
        let mut raw = Vec::new();
        socket.read_to_end(&mut raw).expect("the server closes");
        let head = raw.windows(4).position(|end| end == b"\r\n\r\n").expect("it has a head");
        let outcome = watch(&["--output", "raw", "--once", &server.url(&target)]);
        assert_eq!(outcome.code, Some(0));
        assert!(outcome.stdout == raw[head + 4..], "{outcome:?}");
    }
}

#[test]
fn what_has_its_effect_at_once_is_printed_raw_at_once() {
    let server = hostile(|_, _, socket| {
        let _ = socket.write_all(format!("{OPENING}: hello\nretry: 7\n").as_bytes());
        let _ = socket.read(&mut [0]);
    });
    let mut running = start(&["watch", "--output", "raw", &server.url("/")]);
    let mut stdout = BufReader::new(running.0.stdout.take().expect("it is piped"));
    let mut line = String::new();
    while line.lines().count() < 2 {
        assert_ne!(stdout.read_line(&mut line).expect("it is text"), 0);
    }
    assert_eq!(line, ": hello\nretry: 7\n");
}

#[test]
fn raw_output_through_a_reconnection_has_no_part_of_an_event_and_one_mark_at_most() {
    let parts = ["\u{feff}retry: 1\ndata: a\n\nid: 9\ndata: hal", "\u{feff}data: b\n\ndata: ", "data: c\n\n"];
    let server = responses(parts.map(|part| (OPENING.to_owned() + part).into_bytes()).into());
    let outcome = watch(&["--output", "raw", &server.url("/")]);
    assert_eq!(outcome.good(), "\u{feff}retry: 1\ndata: a\n\ndata: b\n\ndata: c\n\n");
    assert_eq!(outcome.stderr.matches("connected\n").count(), 3, "{outcome:?}");
    assert_eq!(outcome.stderr.matches("the server ended the stream; it connects again in").count(), 3);
}

#[test]
fn only_the_types_that_are_asked_for_are_printed_and_counted() {
    let stream = STREAM.repeat(2);
    let watch = |arguments: &[&str]| watch_stdin(arguments, stream.as_bytes()).good();
    assert_eq!(watch(&["--output=data", "--event", "note"]), "b\nc\nb\nc\n");
    assert_eq!(watch(&["--output=data", "--event", "note", "--count", "1"]), "b\nc\n");
    assert_eq!(watch(&["--output=data", "--event=note", "--event=message", "--count=4"]), "a\nb\nc\nd\na\n");
    assert_eq!(watch(&["--output=data", "--count=2"]), "a\nb\nc\n");
    assert_eq!(watch(&["--output=raw", "--event=note", "--count=1"]), "event: note\ndata: b\ndata: c\n\n");
    assert_eq!(watch(&["--output=raw", "--count=2"]), STREAM[..STREAM.find("id: 3").expect("it is there")]);
    assert_eq!(watch(&["--event=other"]), "");
}

#[test]
fn count_and_time_end_it_although_the_stream_goes_on() {
    let server = Server::start(&["--lab"]);
    let url = server.url("/lab?interval=20&count=100000");
    let outcome = watch(&["--count", "3", "--output", "data", &url]);
    assert_eq!(outcome.good(), "The\nquick\nbrown\n");
    let begun = Instant::now();
    let outcome = watch(&["--for", "0.5", "--output", "data", &url]);
    assert!(outcome.good().starts_with("The\n"));
    assert!(begun.elapsed() >= Duration::from_millis(500));

    // Standard input that is silent.
    let running = start(&["watch", "--for", "0.2", "-"]);
    let outcome = end(running);
    assert_eq!((outcome.code, outcome.text(), &*outcome.stderr), (Some(0), String::new(), ""));
}

#[test]
fn the_request_is_what_the_options_say() {
    let server = responses(vec![]);
    let url = server.url("/stream?a=b");
    watch(&[&url]).good();
    let request = server.request();
    assert!(request.starts_with("GET /stream?a=b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nAccept: text/event-stream\r\n"), "{request}");
    assert!(!request.contains("Last-Event-ID"));

    let options = ["--last-event-id", "é7", "--header", "X-One: 1", "--header=Accept:  x/y ", "--data", "{\"a\":1}"];
    watch(&[&options[..], &[&url]].concat()).good();
    let request = server.request();
    assert!(
        request.starts_with("POST /stream?a=b HTTP/1.1\r\n") && request.ends_with("\r\n\r\n{\"a\":1}"),
        "{request}"
    );
    for field in ["Last-Event-ID: é7", "X-One: 1", "Accept: x/y", "Content-Type: application/json"] {
        assert!(request.contains(&format!("\r\n{field}\r\n")), "{field} in {request}");
    }

    watch(&["--data=x", "--method=PUT", "--header=Content-Type: text/plain", &url]).good();
    let request = server.request();
    assert!(request.starts_with("PUT ") && request.contains("\r\nContent-Type: text/plain\r\n"), "{request}");
    assert!(!request.contains("application/json"));
}

#[test]
fn an_event_without_an_id_has_the_last_event_id_that_was_given() {
    let server = responses(vec![(OPENING.to_owned() + "retry: 1\ndata: a\n\n").into_bytes()]);
    let outcome = watch(&["--output=json", "--last-event-id=41", &server.url("/")]);
    assert_eq!(events(&outcome.good()), [r#"{"id":"41","event":"message","data":"a"}"#]);
}

#[test]
fn it_connects_again_and_goes_on_behind_the_last_event_unless_it_is_once() {
    let server = Server::start(&["--lab"]);
    let url = server.url("/lab?interval=0&retry=1&cut=4");
    let outcome = watch(&["--output", "data", &url]);
    assert_eq!(outcome.good(), "The\nquick\nbrown\nfox\njumps\nover\nthe\nlazy\ndog.\n");
    assert!(
        outcome.stderr.starts_with("newswire: connected\nnewswire: the connection broke: ")
            || outcome.stderr.contains("it connects again in"),
        "{outcome:?}"
    );

    let outcome = watch_stream(b"data: a\n\n", &["--once", "--output=data"]);
    assert_eq!((outcome.good().as_str(), outcome.stderr.as_str()), ("a\n", "newswire: connected\n"));
    let broken = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata: a\n\n";
    let server = responses(vec![broken.to_vec()]);
    let outcome = watch(&["--once", "--output=data", &server.url("/")]);
    assert_eq!((outcome.code, outcome.text().as_str()), (Some(1), "a\n"));
    assert!(outcome.stderr.ends_with("newswire: the connection broke: it ended within the response\n"), "{outcome:?}");
}

#[test]
fn silence_for_longer_than_idle_is_a_broken_connection() {
    let server = hostile(|number, _, socket| {
        if number == 0 {
            let _ = socket.write_all(format!("{OPENING}retry: 1\n").as_bytes());
            let _ = socket.read(&mut [0]);
        } else {
            let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    let outcome = watch(&["--idle", "0.3", &server.url("/")]);
    outcome.good();
    assert!(outcome.stderr.contains("nothing arrived within the idle deadline; it connects again"), "{outcome:?}");
}

#[test]
fn failures_for_good_have_code_1_and_one_sentence() {
    let response = |head: &str| responses(vec![format!("HTTP/1.1 {head}\r\n\r\ndata: a\n\n").into_bytes()]);
    let cases = [
        ("429 Too Many\r\nRetry-After: 3", "the server answered with the status 429 instead of 200"),
        (
            "403 Forbidden\r\nContent-Type: text/plain\r\n\r\nNot you\u{1b}[31m.\nMore",
            "the server answered with the status 403 instead of 200: Not you\\u{1b}[31m.\n",
        ),
        ("200 OK\r\nContent-Type: text/html\u{9b}31m", "the server sent the media type \"text/html"),
        ("200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip", "the content coding \"gzip\""),
        ("302 Found\r\nLocation: https://localhost/", "there is no TLS in newswire"),
    ];
    for (head, sentence) in cases {
        let outcome = watch(&[&*response(head).url("/")]);
        assert_eq!((outcome.code, outcome.text()), (Some(1), String::new()), "{head}");
        assert!(outcome.stderr.starts_with("newswire: ") && outcome.stderr.contains(sentence), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1);
        assert!(!outcome.stderr.trim_end().contains(char::is_control), "{outcome:?}");
    }
    let directory = std::env::temp_dir();
    let outcome = watch(&[directory.to_str().expect("it is UTF-8")]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("cannot read the stream: "), "{outcome:?}");
}

#[test]
fn once_fails_at_once_where_no_connection_can_be_made() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it listens"));
    drop(listener);
    for (url, sentence) in [(&*url, "takes no connection"), ("http://no-such-host.invalid/", "no address is known")] {
        let outcome = watch(&["--once", url]);
        assert_eq!((outcome.code, outcome.text()), (Some(1), String::new()), "{outcome:?}");
        assert!(outcome.stderr.contains(sentence), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        // A browser would try again for ever.
        let outcome = watch(&["--for=0.5", url]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stderr.contains("it connects again in"), "{outcome:?}");
    }
}

#[test]
fn mistakes_in_the_command_have_code_2_and_one_sentence() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "say what to watch"),
        (&["-", "-"], "one argument too many"),
        (&["no such file"], "a URL begins with http://"),
        (&["https://localhost/"], "there is no TLS in newswire"),
        (&["ftp://localhost/"], "does not begin with http://"),
        (&["http://exa mple/"], "the URL's host"),
        (&["--nope", "-"], "is not an option"),
        (&["-x", "-"], "is not an option"),
        (&["--output", "xml", "-"], "text, json, data, raw, not \"xml\""),
        (&["--count", "0", "-"], "--count takes a number"),
        (&["--for", "0", "-"], "--for takes a number of seconds, more than 0"),
        (&["--for", "-1", "-"], "more than 0"),
        (&["--for", "nan", "-"], "more than 0"),
        (&["--for", "inf", "-"], "more than 0"),
        (&["--idle", "x", "http://localhost/"], "more than 0"),
        (&["--once", "-"], "--once is for a URL"),
        (&["--header", "a: b", "-"], "--header is for a URL"),
        (&["--once=1", "http://localhost/"], "--once takes no value"),
        (&["--header", "secret", "http://localhost/"], "--header takes a field"),
        (&["--header", "a b: secret", "http://localhost/"], "--header takes a field"),
        (&["--header", "a: b\nc: secret", "http://localhost/"], "--header takes a field"),
        (&["--header", "content-length: 3", "http://localhost/"], "the length of the content"),
        (&["--last-event-id", "a\nb", "http://localhost/"], "without line ends"),
        (&["--method", "get", "http://localhost/"], "GET, HEAD, POST"),
        (&["--record", "/nowhere/at/all", "-"], "--record: cannot write"),
        (&["-", "--event"], "--event needs a value"),
    ];
    assert_mistakes("watch", cases);
    let outcome = watch(&["--help"]);
    assert!(outcome.good().lines().all(|line| line.len() <= 100) && outcome.text().contains("--record FILE"));
}

#[test]
fn a_closed_pipe_ends_it_quietly_while_the_stream_goes_on() {
    let server = Server::start(&["--lab"]);
    let mut running = start(&["watch", &server.url("/lab?interval=20&count=100000")]);
    let mut stdout = BufReader::new(running.0.stdout.take().expect("it is piped"));
    stdout.read_line(&mut String::new()).expect("an event comes");
    drop(stdout);
    eventually("it ends", || running.0.try_wait().expect("it is ours").is_some());
    assert_eq!(running.0.wait().expect("it has ended").code(), Some(0));
    let mut stderr = String::new();
    let mut pipe = running.0.stderr.take().expect("it is piped");
    pipe.read_to_string(&mut stderr).expect("it is text");
    assert_eq!(stderr, "newswire: connected\n");
}

/// All that a byte can be, in the data, the type and the id, and what reorders a line.
fn hostile_stream() -> Vec<u8> {
    let all: Vec<u8> = (0..=255).filter(|byte| !b"\r\n\0".contains(byte)).collect();
    let text = "\u{9b}31m\u{202e}\u{2066}\x1b]0;title\x07\u{200f}";
    [b"data: {\ndata: ", &*all, b"\nevent: ", &*all, b"\nid: ", text.as_bytes(), b"\n\n"].concat()
}

fn is_harmless(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t')
        && !text.contains(['\u{202e}', '\u{2066}', '\u{200f}'])
}

#[test]
fn no_control_character_of_a_stream_is_printed_for_people() {
    let text = watch_stdin(&[], &hostile_stream()).good();
    assert!(is_harmless(&text), "{text:?}");
    assert!(text.contains(r"\u{1b}") && text.contains(r"\u{9b}31m\u{202e}\u{2066}\u{1b}]0;title\u{7}"));
    let json = watch_stdin(&["--output=json"], &hostile_stream()).good();
    assert!(is_harmless(&json) && json.is_ascii(), "{json:?}");
    let gap = b"event: gap\ndata: {\"asked\":\"\x1b[31m\"}\n\n";
    let outcome = watch_stdin(&[], gap);
    assert!(is_harmless(&outcome.stderr) && outcome.stderr.contains(r"\u{1b}"), "{outcome:?}");
}

/// Runs the command on a terminal: what appears there.
fn on_terminal(arguments: &str, variables: &[(&str, &str)]) -> String {
    let binary = env!("CARGO_BIN_EXE_newswire");
    let output = Command::new("script")
        .args(["-qec", &format!("'{binary}' watch {arguments}"), "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("script(1) of util-linux is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it is UTF-8").replace("\r\n", "\n")
}

#[test]
fn a_terminal_gets_colour_unless_it_is_not_wanted_and_nothing_of_a_hostile_stream() {
    let file = TempFile::new("terminal", b"id: 1\ndata: a\n\n");
    let coloured = on_terminal(file.path(), &[]);
    assert!(coloured.contains("Z\x1b[0m  \x1b[36m1\x1b[0m  \x1b[33mmessage\x1b[0m  a\n"), "{coloured:?}");
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = on_terminal(file.path(), &[variable]);
        assert!(plain.ends_with("Z  1  message  a\n") && !plain.contains('\x1b'), "{plain:?}");
    }
    assert!(on_terminal(file.path(), &[("NO_COLOR", "")]).contains("\x1b[36m"));

    let file = TempFile::new("hostile", &hostile_stream());
    for arguments in ["--output data", "--output text", "--output json"] {
        let plain = on_terminal(&format!("{arguments} {}", file.path()), &[("NO_COLOR", "1")]);
        assert!(is_harmless(&plain), "{arguments}: {plain:?}");
    }
}

#[test]
fn a_gap_is_told_on_standard_error_and_is_an_event_for_programs() {
    let server = Server::start(&["--publish-open"]);
    ask(server.address, "POST", "/channels/c", &[], "a");
    let url = server.url("/channels/c");
    let watch = |output: &str| watch(&["--last-event-id=1-0", "--for=1", &format!("--output={output}"), &url]);
    for (output, is_event) in [("text", false), ("data", false), ("json", true), ("raw", true)] {
        let outcome = watch(output);
        assert!(outcome.good().contains('a'));
        assert_eq!(outcome.text().contains("asked"), is_event, "{outcome:?}");
        assert!(outcome.stderr.contains("newswire: events are missing: {\"asked\":\"1-0\""), "{outcome:?}");
    }
    let asked = watch_stdin(&["--event=gap", "--output=data"], b"event: gap\ndata: {\"asked\":1}\n\n");
    assert_eq!(asked.good(), "{\"asked\":1}\n");
    // Another server's type of the same name.
    assert_eq!(watch_stdin(&["--output=data"], b"event: gap\ndata: 7\n\n").good(), "7\n");
}

#[test]
fn a_stream_that_breaks_off_in_a_pipe_gives_its_whole_events() {
    let mut running = start(&["watch", "--output", "data", "-"]);
    let mut stdin = running.0.stdin.take().expect("it is piped");
    stdin.write_all(b"data: whole\n\ndata: half").expect("it reads");
    let mut stdout = BufReader::new(running.0.stdout.take().expect("it is piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("it is text");
    assert_eq!(line, "whole\n", "it is printed while the stream goes on");
    drop(stdin);
    stdout.read_to_string(&mut line).expect("it is text");
    assert_eq!(line, "whole\n");
}

/// The blocks of a recording that have data, with their delays.
fn recorded(file: &[u8]) -> Vec<(Duration, String)> {
    let blocks = Recording::new(file).map(|block| block.expect("a slice can be read"));
    let timed =
        blocks.map(|block| (block.delay.unwrap_or_default(), String::from_utf8(block.bytes).expect("it is text")));
    timed.filter(|(_, text)| text.contains("data:")).collect()
}

#[test]
fn a_recording_has_the_events_and_the_rhythm_of_the_stream() {
    let mut router = Router::new();
    router.get("/", |request| {
        Emitter::stream(request, |mut emitter: Emitter<'_>| {
            for (number, pause) in [0, 300, 20, 150].into_iter().enumerate() {
                thread::sleep(Duration::from_millis(pause));
                emitter.send(Event::new("a\nb").id(number)?)?;
            }
            Ok(())
        })
    });
    let address = serve(router, |server| server);
    let file = TempFile::new("rhythm", b"what was there before");
    let outcome = watch(&["--once", "--record", file.path(), "--output=raw", &format!("http://{address}/")]);
    let stream = outcome.good().into_bytes();

    assert_eq!(interpret(&file.read()), interpret(&stream));
    let recorded = recorded(&file.read());
    assert_eq!(recorded.len(), 4);
    // Another process can make a pause longer, and only a late start makes one shorter.
    for ((delay, _), pause) in recorded.iter().zip([0, 200, 0, 100]).skip(1) {
        assert!(*delay >= Duration::from_millis(pause), "{recorded:?}");
    }
    let again = watch(&[file.path(), "--output=json"]);
    assert_eq!(events(&again.good()), json_of(&stream));
}

#[test]
fn reconnections_and_refusals_are_comments_in_a_recording() {
    let stream = |text: &str| (OPENING.to_owned() + text).into_bytes();
    let refusal = b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Type: text/plain\r\n\r\nno".to_vec();
    let parts = [
        stream("\u{feff}retry: 1\rid: 1\rdata: a\r\rdata: cut off"),
        stream("\u{feff}data: b\r\n\r\n"),
        refusal.clone(),
    ];
    let server = responses(parts.into());
    let file = TempFile::new("comments", b"");
    let outcome = watch(&["--record", file.path(), "--output=json", &server.url("/")]);
    assert_eq!(outcome.code, Some(1));
    let recording = String::from_utf8(file.read()).expect("it is text");
    assert_eq!(events(&outcome.text()), json_of(recording.as_bytes()), "{recording}");
    let comments =
        [": the server ended the stream; it connects again in 0.0 s\n", "ms\n: status 429\n: header Retry-After: 3\n"];
    for comment in comments {
        assert!(recording.contains(comment), "{comment:?} in {recording:?}");
    }
    assert_eq!(recording.matches('\u{feff}').count(), 1);
    assert!(!recording.contains("cut off"));

    // A refusal alone begins with its status, without a timing: it can be played.
    let server = responses(vec![refusal]);
    let outcome = watch(&["--record", file.path(), &server.url("/")]);
    assert_eq!(outcome.code, Some(1));
    let expected = ": status 429\n: header Retry-After: 3\n: header Content-Type: text/plain\n";
    assert_eq!(String::from_utf8(file.read()).as_deref(), Ok(expected));
}

#[test]
fn a_recording_that_is_killed_ends_with_a_whole_event() {
    let server = Server::start(&["--lab"]);
    let file = TempFile::new("killed", b"");
    let url = server.url("/lab?interval=0&count=50000&size=1000&lines=5&newline=crlf");
    let mut running = start(&["watch", "--record", file.path(), "--output=data", &url]);
    let mut stdout = running.0.stdout.take().expect("it is piped");
    // So much that the kill comes in the middle of it.
    let mut read = [0; 300_000];
    stdout.read_exact(&mut read).expect("the stream is longer");
    running.0.kill().expect("it is ours");
    running.0.wait().expect("it has ended");

    let recording = file.read();
    assert!(recording.ends_with(b"\r\n\r\n"), "{:?}", String::from_utf8_lossy(&recording[recording.len() - 50..]));
    let mut parser = Parser::new();
    let messages = parser.feed(&recording).expect("no event is large");
    assert!(messages.len() >= 290, "{}", messages.len());
    for (number, message) in messages.iter().enumerate() {
        assert_eq!(message.last_event_id, (number + 1).to_string());
        assert_eq!(message.data.len(), messages[0].data.len());
    }
}

#[test]
fn a_recording_that_ends_in_time_has_the_events_that_were_printed() {
    let file = TempFile::new("time", b"");
    // From a file, nothing but printing and recording takes time.
    let input = TempFile::new("input", "data: x\n\n".repeat(2_000_000).as_bytes());
    for time in ["0.1", "0.13", "0.16", "0.19", "0.22"] {
        let outcome = watch(&["--for", time, "--record", file.path(), "--output=raw", input.path()]);
        let printed = outcome.good().len();
        assert!(printed < 18_000_000, "it ended before its time");
        let recorded = Recording::new(&*file.read()).count() * 9;
        assert!(recorded == printed, "{recorded} bytes are recorded, {printed} are printed");
    }
}

#[test]
fn a_recording_that_cannot_be_written_on_is_a_failure() {
    // Every write to this device fails as on a full disk.
    let outcome = watch_stdin(&["--record", "/dev/full"], b"data: a\n\n");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("cannot write the recording: "), "{outcome:?}");
}

#[test]
fn an_endless_line_is_a_failure_and_not_all_of_the_memory() {
    let endless = |_: usize, _: &str, socket: &mut std::net::TcpStream| {
        let piece = vec![b'x'; 1 << 20];
        let _ = socket.write_all(OPENING.as_bytes());
        while socket.write_all(&piece).is_ok() {}
    };
    let server: Hostile = hostile(endless);
    let outcome = watch(&[&*server.url("/")]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("is larger than"), "{outcome:?}");
}
