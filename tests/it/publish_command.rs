//! `newswire publish`, as its users run it, and what it sends to a server that fails.

use crate::command_line::assert_mistakes;
use crate::event_source::{Hostile, hostile, responses};
use crate::server::{PATIENCE, Server, Stream, eventually};
use crate::watch::{Outcome, end, run, start};
use newswire::http::Method;
use newswire::http::client::{CloseHandle, NetworkError, Request};
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::iter;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

fn publish(arguments: &[&str], input: &str) -> Outcome {
    run(&[&["publish"], arguments].concat(), input.as_bytes())
}

/// The id in the server's answer.
#[track_caller]
fn published(outcome: &Outcome) -> String {
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let answer = outcome.text();
    let id = answer.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    id.unwrap_or_else(|| panic!("no id in {answer}")).to_owned()
}

#[track_caller]
fn failed(outcome: &Outcome, sentence: &str) {
    let is_sentence = outcome.stderr.starts_with("newswire: ")
        && !outcome.stderr.trim_end().contains(|c: char| c.is_control() && c != '\n');
    assert_eq!((outcome.code, outcome.text().as_str()), (Some(1), ""), "{outcome:?}");
    assert!(is_sentence && outcome.stderr.contains(sentence), "{outcome:?}");
}

/// A channel of a server of the test's own, and a subscriber.
fn channel_of(arguments: &[&str]) -> (Server, Stream, String) {
    let server = Server::start(arguments);
    let stream = Stream::subscribe(server.address, "c");
    let url = server.url("/channels/c");
    (server, stream, url)
}

#[track_caller]
fn next(stream: &mut Stream) -> (String, String) {
    let message = stream.next().expect("an event comes");
    (message.event_type, message.data)
}

fn event(event_type: &str, data: &str) -> (String, String) {
    (event_type.to_owned(), data.to_owned())
}

#[test]
fn one_event_comes_from_the_argument_or_from_standard_input() {
    let (_server, mut stream, url) = channel_of(&["--publish-open"]);
    let id = published(&publish(&[&url, "Hello é"], ""));
    let message = stream.next().expect("an event comes");
    assert_eq!((message.data.as_str(), message.last_event_id), ("Hello é", id));

    for (input, data) in [("one\n", "one"), ("a\nb\n\n", "a\nb\n"), ("", ""), ("no end", "no end")] {
        published(&publish(&[&url], input));
        assert_eq!(next(&mut stream), event("message", data));
    }
    published(&publish(&["--event", "a b&c=é#", &url, "typed"], ""));
    assert_eq!(next(&mut stream), event("a b&c=é#", "typed"));
    // The URL may have a query and a fragment already.
    published(&publish(&["--event=x", &format!("{url}?lines=off#f"), "typed"], ""));
    assert_eq!(next(&mut stream), event("x", "typed"));
    published(&publish(&[&url, "--", "--data"], ""));
    assert_eq!(next(&mut stream), event("message", "--data"));
}

#[test]
fn the_token_is_read_from_a_file_and_fields_are_sent() {
    let token = std::env::temp_dir().join(format!("newswire-token-{}", std::process::id()));
    fs::write(&token, "s3cret-of-publishers\n").expect("there is room for it");
    let token_file = token.to_str().expect("it is UTF-8");
    let (_server, mut stream, url) = channel_of(&["--publish-token-file", token_file]);
    published(&publish(&["--token-file", token_file, &url, "mine"], ""));
    assert_eq!(next(&mut stream), event("message", "mine"));
    published(&publish(&["--header", "Authorization: Bearer s3cret-of-publishers", &url, "also mine"], ""));
    assert_eq!(next(&mut stream), event("message", "also mine"));

    let outcome = publish(&[&url, "not mine"], "");
    failed(&outcome, "the server answered with the status 401: ");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    fs::remove_file(&token).expect("it is there");
    let outcome = publish(&["--token-file", token_file, &url, "x"], "");
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}

/// The key in a request.
fn key(request: &str) -> String {
    let key = request.split("\r\nIdempotency-Key: \"").nth(1).and_then(|rest| rest.split('"').next());
    key.unwrap_or_else(|| panic!("no key in {request}")).to_owned()
}

#[test]
fn an_event_that_has_to_be_sent_again_has_the_same_key_each_time() {
    let refusal = "HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"id\"";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"id\":\"7\"}";
    let server = responses(["", refusal, cut, answer].map(Vec::from).into());
    let outcome = publish(&["--event=x", &server.url("/c"), "data"], "");
    assert_eq!((outcome.code, outcome.text().as_str()), (Some(0), "{\"id\":\"7\"}"), "{outcome:?}");
    assert!(outcome.stderr.contains("status 503; it is sent again in 2.0 s"), "{outcome:?}");
    assert_eq!(outcome.stderr.matches("; it is sent again in ").count(), 3, "{outcome:?}");

    let requests: Vec<String> = (0..4).map(|_| server.request()).collect();
    assert!(requests[0].starts_with("POST /c?event=x HTTP/1.1\r\n") && requests[0].ends_with("\r\n\r\ndata"));
    assert!(requests.iter().all(|request| *request == requests[0]), "{requests:?}");
    assert_eq!(key(&requests[0]).len(), 32);

    // Another event has another key.
    let server = responses(vec![answer.into(), answer.into()]);
    for _ in 0..2 {
        assert_eq!(publish(&[&server.url("/"), "data"], "").code, Some(0));
    }
    assert_ne!(key(&server.request()), key(&server.request()));
}

#[test]
fn it_gives_up_after_the_last_attempt_and_at_once_when_it_is_refused() {
    let server = hostile(|_, _, _| {});
    let outcome = publish(&[&server.url("/"), "data"], "");
    failed(&outcome, "the connection broke: ");
    assert!(outcome.stderr.ends_with("that was the last of 6 attempts\n"), "{outcome:?}");
    assert_eq!(server.requests.try_iter().count(), 6);

    let refusal = "HTTP/1.1 403 No\r\nContent-Length: 17\r\n\r\nNot \x1b[31m for\nyou\n";
    let server: Hostile = responses(vec![refusal.into()]);
    let outcome = publish(&[&server.url("/"), "data"], "");
    failed(&outcome, "the server answered with the status 403: Not \\u{1b}[31m for");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert_eq!(server.requests.try_iter().count(), 1);
}

#[test]
fn lines_are_events_as_they_come() {
    let (_server, mut stream, url) = channel_of(&["--publish-open"]);
    let mut running = start(&["publish", "--lines", "--event", "line", &url]);
    let mut stdin = running.0.stdin.take().expect("it is piped");
    for line in ["one", "two", ""] {
        writeln!(stdin, "{line}").expect("it reads");
        assert_eq!(next(&mut stream), event("line", line), "it comes while the input goes on");
    }
    stdin.write_all(b"unfinished").expect("it reads");
    drop(stdin);
    let outcome = end(running);
    published(&outcome);
    assert!(outcome.text().starts_with("{\"count\":4,"), "{outcome:?}");
    assert_eq!(next(&mut stream), event("line", "unfinished"));
}

const EVENTS: &str =
    "\u{feff}: c\r\nretry: 1\r\nid: 41\r\nevent: note\r\ndata: a\r\ndata: b\r\n\r\ndata: c\n\ndata: unfinished";

#[test]
fn the_events_of_a_stream_keep_their_types_and_get_ids_of_the_channel() {
    let (_server, mut stream, url) = channel_of(&["--publish-open"]);
    let file = std::env::temp_dir().join(format!("newswire-events-{}", std::process::id()));
    fs::write(&file, EVENTS).expect("there is room for it");
    let path = file.to_str().expect("it is UTF-8");
    for (arguments, input) in [(&[&*url][..], EVENTS), (&[&url, "-"], EVENTS), (&[&url, path], "")] {
        let outcome = publish(&[&["--events"], arguments].concat(), input);
        let id = published(&outcome);
        assert!(outcome.text().starts_with("{\"count\":2,"), "{outcome:?}");
        assert_eq!(next(&mut stream), event("note", "a\nb"));
        let last = stream.next().expect("an event comes");
        assert_eq!((last.data.as_str(), last.last_event_id), ("c", id));
    }
    fs::remove_file(&file).expect("it is there");
}

#[test]
fn a_recording_is_published_in_its_rhythm_only_if_that_is_asked_for() {
    let (_server, mut stream, url) = channel_of(&["--publish-open"]);
    let recording = ": +0 ms\ndata: a\n\n: +400 ms\ndata: b\n\n: +30000000 ms\n: never sent";
    let begun = Instant::now();
    let mut running = start(&["publish", "--events", "--timed", &url]);
    let mut stdin = running.0.stdin.take().expect("it is piped");
    stdin.write_all(recording.as_bytes()).expect("it reads");
    assert_eq!(next(&mut stream), event("message", "a"));
    assert_eq!(next(&mut stream), event("message", "b"));
    assert!(begun.elapsed() >= Duration::from_millis(400));
    drop(running);

    published(&publish(&["--events", &url], recording));
    assert_eq!(next(&mut stream), event("message", "a"));
    assert_eq!(next(&mut stream), event("message", "b"));
}

#[test]
fn watch_and_publish_relay_a_channel_to_another_one() {
    let (server, mut stream, url) = channel_of(&["--publish-open"]);
    let from = server.url("/channels/from");
    let binary = env!("CARGO_BIN_EXE_newswire");
    let relay = format!("'{binary}' watch --output raw --once '{from}' | '{binary}' publish --events '{url}'");
    let mut shell = Command::new("sh");
    let mut relay =
        shell.args(["-c", &relay]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("there is a shell");
    eventually("the relay subscribes", || server.metric("newswire_subscribers") == 2);
    for (event_type, data) in [("message", "a"), ("note", "b\nc"), ("message", "")] {
        published(&publish(&["--event", event_type, &from, data], ""));
        assert_eq!(next(&mut stream), event(event_type, data));
    }
    // The `end` of the channel is its own.
    server.exchange("DELETE /channels/from HTTP/1.0\r\n\r\n");
    let said = io::read_to_string(relay.stderr.take().expect("it is piped")).expect("it is text");
    assert!(relay.wait().expect("it is ours").success(), "{said}");
    assert!(said.contains("are left out, as this one: end\n"), "{said}");
}

#[test]
fn events_of_a_reserved_type_are_left_out_and_that_is_told_once() {
    let (_server, mut stream, url) = channel_of(&["--publish-open"]);
    let reserved = ["gap", "end", "heartbeat", "open", "error", "gap"];
    let reserved: String =
        reserved.map(|name| format!("event: {name}\r\ndata: {{}}\r\n\r\nevent: {name}\r\r")).concat();
    // The mark in the middle of a stream makes another field.
    let input = format!("{reserved}data: a\n\n{reserved}\u{feff}event: gap\ndata: b\n\n");
    for options in [&["--events"][..], &["--events", "--timed"]] {
        let outcome = publish(&[options, &[&url]].concat(), &input);
        assert!(outcome.text().starts_with("{\"count\":2,"), "{outcome:?}");
        assert_eq!(next(&mut stream), event("message", "a"));
        assert_eq!(next(&mut stream), event("message", "b"));
        let told = "newswire: events of types that servers reserve are left out, as this one: gap\n";
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), told));
    }
}

/// A heartbeat keeps the connection to the other server alive, too.
#[test]
fn a_comment_of_a_live_stream_is_sent_when_it_arrives() {
    let (sender, receiver) = channel();
    let server = hostile(move |_, _, socket| {
        let mut content = Vec::new();
        let mut reader = BufReader::new(&*socket);
        while content.is_empty() || !content.ends_with(b":\n\r\n") {
            reader.read_until(b'\n', &mut content).expect("the client sends");
        }
        let _ = sender.send(());
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let mut running = start(&["publish", "--events", &server.url("/")]);
    let mut stdin = running.0.stdin.take().expect("it is piped");
    stdin.write_all(b":\n").expect("it reads");
    receiver.recv_timeout(PATIENCE).expect("it arrives while the input goes on");
    assert_eq!(end(running).code, Some(0));
    drop(stdin);
}

/// A POST that is redirected becomes a GET in browsers, and a GET that succeeds has published nothing.
#[test]
fn a_redirect_is_no_success() {
    for status in [301, 302, 303, 307, 308] {
        let redirect = format!("HTTP/1.1 {status} x\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n");
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        for option in ["--event=x", "--lines"] {
            let server = responses(vec![redirect.clone().into(), answer.into()]);
            let outcome = publish(&[option, &server.url("/")], "");
            failed(&outcome, &format!("status {status}; use /other instead"));
        }
    }
}

#[test]
fn an_answer_does_not_control_the_terminal() {
    let server = responses(vec![b"HTTP/1.1 200 OK\r\n\r\n\x1b[31mtaken\n".to_vec()]);
    let command = format!("'{}' publish '{}' data", env!("CARGO_BIN_EXE_newswire"), server.url("/"));
    let mut script = Command::new("script");
    let script = script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null());
    let output = script.output().expect("script(1) of util-linux is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\\u{1b}[31mtaken\r\n");
}

/// A client that would wait for more input must not hide that the server has refused.
#[test]
fn a_refusal_ends_an_upload_whose_input_is_still_open() {
    let server = Server::start(&["--publish-open"]);
    let mut running = start(&["publish", "--lines", &server.url("/channels/no%20name")]);
    let stdin = running.0.stdin.take().expect("it is piped");
    let outcome = end(running);
    failed(&outcome, "the server answered with the status 404: ");
    drop(stdin);

    let mut running = start(&["publish", "--events", &server.url("/channels/c")]);
    let mut stdin = running.0.stdin.take().expect("it is piped");
    stdin.write_all(b"event: a\0b\ndata: x\n\n").expect("it reads");
    failed(&end(running), "NUL");
}

#[test]
fn input_that_cannot_be_read_is_a_failure_and_not_a_whole_upload() {
    let (_server, mut stream, url) = channel_of(&["--publish-open"]);
    let directory = std::env::temp_dir();
    let outcome = publish(&["--lines", &url, directory.to_str().expect("it is UTF-8")], "");
    failed(&outcome, "cannot read what to publish: ");
    published(&publish(&[&url, "next"], ""));
    assert_eq!(next(&mut stream), event("message", "next"));
}

#[test]
fn mistakes_in_the_command_have_code_2_and_one_sentence() {
    let url = "http://127.0.0.1:1/";
    let cases: &[(&[&str], &str)] = &[
        (&[], "say where to publish"),
        (&[url, "a", "b"], "one argument too many"),
        (&["https://localhost/", "x"], "there is no TLS"),
        (&["localhost", "x"], "does not begin with http://"),
        (&["--lines", "--events", url], "exclude each other"),
        (&["--timed", url], "--timed needs --events"),
        (&["--events", "--event", "x", url], "leave --event out"),
        (&["--lines=1", url], "--lines takes no value"),
        (&["--nope", url], "is not an option"),
        (&["--token-file", "no such file", url], "--token-file: cannot use"),
        (&["--lines", url, "no such file"], "cannot read \"no such file\""),
        (&["--header", "a", url], "--header takes a field"),
    ];
    assert_mistakes("publish", cases);
    let outcome = publish(&["--help"], "");
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.text().lines().all(|line| line.len() <= 100) && outcome.text().contains("--timed"));
}

/// What the library sends as streamed content: everything until the client ends.
fn streamed(pieces: Vec<io::Result<Vec<u8>>>) -> String {
    let (sender, receiver) = channel();
    let server = hostile(move |_, head, socket| {
        let mut content = Vec::new();
        let mut reader = BufReader::new(&*socket);
        // A failed upload ends without its last chunk.
        while !content.ends_with(b"0\r\n\r\n") {
            if reader.read_until(b'\n', &mut content).expect("the client sends") == 0 {
                break;
            }
        }
        let content = String::from_utf8(content).expect("it is text");
        let _ = sender.send(format!("{head}{content}"));
        let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    });
    let request = Request::new(&server.url("/")).expect("it is a URL");
    let request = Request { method: Method::Put, ..request };
    let response = request.send_streamed(&CloseHandle::default(), pieces.into_iter());
    let response = response.expect("it answers");
    assert_eq!(response.status.0, 204);
    receiver.recv_timeout(PATIENCE).expect("the server has read it")
}

#[test]
fn streamed_content_is_chunked_and_has_its_last_chunk_only_if_it_is_whole() {
    // A chunk without bytes would be the last one.
    let sent = streamed(vec![Ok(b"a".to_vec()), Ok(vec![]), Ok(vec![b'b'; 17])]);
    let (head, content) = sent.split_once("\r\n\r\n").expect("it has a head");
    assert!(head.starts_with("PUT / HTTP/1.1\r\n") && head.contains("\r\nTransfer-Encoding: chunked"));
    assert!(!head.contains("Content-Length"), "{head}");
    assert_eq!(content, format!("1\r\na\r\n11\r\n{}\r\n0\r\n\r\n", "b".repeat(17)));

    let sent = streamed(vec![Ok(b"a".to_vec()), Err(ErrorKind::Other.into())]);
    assert!(sent.ends_with("\r\n\r\n1\r\na\r\n"), "{sent}");
}

#[test]
fn an_upload_ends_when_its_response_is_dropped() {
    let server = responses(vec![b"HTTP/1.1 200 OK\r\n\r\n".to_vec()]);
    let (goes_on, told) = channel::<()>();
    let (sender, receiver) = channel();
    let request = Request::new(&server.url("/")).expect("it is a URL");
    let mut count = 0;
    let pieces = iter::from_fn(move || {
        count += 1;
        let _ = told.recv_timeout(PATIENCE);
        let _ = sender.send(count);
        Some(Ok(b"late".to_vec()))
    });
    let response = Request { method: Method::Post, ..request }
        .send_streamed(&CloseHandle::default(), pieces)
        .expect("it answers at once");
    drop(response);
    goes_on.send(()).expect("it waits");
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok(1));
    let ended = receiver.recv_timeout(PATIENCE);
    assert_eq!(ended, Err(RecvTimeoutError::Disconnected), "no second piece is asked for");
}

const DEADLINE: Duration = Duration::from_millis(300);

/// Uploads to a server that never answers, and reads or not. Returns how long that took.
fn upload_in_vain(reads: bool, pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Duration {
    let (is_over, over) = channel::<()>();
    let server = hostile(move |_, _, socket| {
        while reads && socket.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
        let _ = over.recv_timeout(PATIENCE);
    });
    let request = Request::new(&server.url("/")).expect("it is a URL");
    let request = Request { method: Method::Post, idle_deadline: Some(DEADLINE), ..request };
    let begun = Instant::now();
    let outcome = request.send_streamed(&CloseHandle::default(), pieces.map(Ok));
    let error = outcome.expect_err("it never answers");
    assert!(matches!(&error, NetworkError::Broken(e) if e.kind() == ErrorKind::TimedOut), "{error}");
    drop(is_over);
    begun.elapsed()
}

#[test]
fn an_answer_that_never_comes_ends_an_upload_by_the_idle_deadline_behind_its_content() {
    let slow = (0..3).map(|_| {
        thread::sleep(DEADLINE * 2);
        b"x".to_vec()
    });
    let took = upload_in_vain(true, slow);
    assert!(took >= DEADLINE * 7, "{took:?}: the content took six, and the answer has one more");
    upload_in_vain(false, iter::repeat_with(|| vec![b'x'; 64 * 1024]));
}
