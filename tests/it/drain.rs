//! Draining: a server stops without a loss, so that another one can take its place. Who may ask for it, what becomes of
//! streams and requests, and what a container is told at the start.

use crate::channels::metric;
use crate::files::Directory;
use crate::server::{Server, Stream, ask, connect, eventually, read_until};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_newswire");

fn drain(address: SocketAddr, options: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("drain").args(options).arg(format!("http://{address}/"));
    command.output().expect("the binary under test starts")
}

#[test]
fn a_drained_server_finishes_what_it_has_begun_and_ends_with_exit_code_0() {
    let mut server = Server::start(&["--publish-open"]);
    let address = server.address;
    let mut uploading = connect(address);
    let head = "POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n";
    uploading.write_all(head.as_bytes()).expect("the server reads");
    uploading.write_all(b"12").expect("the server reads");
    let mut idle = connect(address);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    read_until(&mut idle, "ok\n");
    let mut slow = Stream::open(address, "/lab?interval=60000&count=9", &[]);
    slow.next().expect("the first event comes at once");
    let mut subscriber = Stream::subscribe(address, "news");

    let draining = thread::spawn(move || drain(address, &["--deadline", "100"]));
    eventually("it is not ready", || ask(address, "GET", "/readyz", &[], "").status == 503);
    assert_eq!(metric(address, "newswire_draining"), 1, "it goes on for a moment");
    let again = thread::spawn(move || drain(address, &[]));
    eventually("it does not accept", || TcpStream::connect(address).is_err());
    assert_eq!(idle.read(&mut [0]).expect("it is closed"), 0);
    // One request is still being sent. Streams end last, and get what it publishes.
    uploading.write_all(b"34").expect("the server reads");
    let answer = read_until(&mut uploading, "\r\n\r\n");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(!draining.is_finished() && !again.is_finished());
    drop(uploading);
    assert_eq!(subscriber.next().map(|message| message.data).as_deref(), Some("1234"));
    // The end of a stream, with a time to come back
    for mut stream in [subscriber, slow] {
        assert_eq!(stream.next(), None);
        let text = String::from_utf8(stream.bytes).expect("it is text");
        assert!(text.trim_end().rsplit('\n').next().is_some_and(is_retry), "{text:?}");
    }
    for draining in [draining, again] {
        let output = draining.join().expect("it only waits");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(said(&output), "This server has served all its clients.\n");
    }
    assert_eq!(server.wait(), Some(0));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `newswire drain URL; newswire serve`, and what a service manager does.
#[test]
fn the_next_server_can_take_the_place_of_a_drained_one_when_the_command_returns() {
    let directory = Directory::new("drain-again");
    let journal = directory.0.join("journal");
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    for _ in 0..3 {
        let mut command = Command::new(BINARY);
        command.args(["--listen", &address.to_string(), "--journal"]).arg(&journal);
        let server = Server::spawn(command);
        address = server.address;
        let _subscriber = Stream::subscribe(address, "news");
        assert_eq!(drain(address, &["--deadline", "5"]).status.code(), Some(0));
        // Killing it would free its place.
        std::mem::forget(server);
    }
}

/// The answer is there before the deadline. The command returns when the process has ended, which closes the connections.
#[test]
fn the_command_returns_after_the_last_connection_is_closed() {
    let server = Server::start(&["--publish-open"]);
    let mut uploading = server.connect();
    let head = "POST /channels/news?lines HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\none\n";
    uploading.write_all(head.as_bytes()).expect("the server reads");
    let output = drain(server.address, &["--deadline", "4"]);
    assert!(said(&output).contains("closes 1 connections"), "{output:?}");
    uploading.set_nonblocking(true).expect("it is a socket");
    let end = uploading.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert_ne!(end, Err(ErrorKind::WouldBlock), "it is open still");
}

const EVENTS: usize = 60;

/// A server, and a stream that is far behind: what it lacks is larger than all buffers of the system.
fn fall_behind() -> (Server, Stream) {
    let server = Server::start(&["--publish-open", "--history-bytes", "100000000"]);
    for number in 0..EVENTS {
        let data = format!("{number} {}", "x".repeat(500_000));
        assert_eq!(ask(server.address, "POST", "/channels/news", &[], data).status, 200);
    }
    let stream = Stream::resume(server.address, "news", "earliest");
    (server, stream)
}

#[test]
fn a_slow_reader_gets_all_that_it_lacks_of_a_drained_server() {
    let (mut server, mut stream) = fall_behind();
    let address = server.address;
    let draining = thread::spawn(move || drain(address, &["--deadline", "40"]));
    let mut is_accepting = true;
    for number in 0..EVENTS {
        // It is slow, but reads.
        is_accepting = is_accepting && TcpStream::connect(address).is_ok();
        thread::sleep(Duration::from_millis(if is_accepting { 300 } else { 20 }));
        let message = stream.next().unwrap_or_else(|| panic!("it is cut before {number}"));
        assert!(message.data.starts_with(&format!("{number} ")), "{number}");
    }
    assert_eq!(stream.next(), None);
    let end = String::from_utf8_lossy(&stream.bytes[stream.bytes.len() - 20..]).into_owned();
    assert!(end.trim_end().rsplit('\n').next().is_some_and(is_retry), "{end:?}");
    let output = draining.join().expect("it only waits");
    assert_eq!(said(&output), "This server has served all its clients.\n");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn the_command_says_how_many_readers_a_drained_server_has_cut() {
    let (mut server, _unread) = fall_behind();
    let output = drain(server.address, &["--deadline", "2"]);
    assert!(said(&output).contains("closes 1 connections"), "{output:?}");
    assert_eq!(server.wait(), Some(0));
}

fn is_retry(line: &str) -> bool {
    line.strip_prefix("retry: ").is_some_and(|time| time.parse::<u32>().is_ok())
}

#[test]
fn a_server_that_nothing_keeps_is_ready_and_gone_long_before_the_deadline() {
    let mut server = Server::start(&[]);
    let answer = ask(server.address, "GET", "/readyz", &[("Host", "any.example")], "");
    assert_eq!((answer.status, answer.text()), (200, "ready\n"));
    let started = Instant::now();
    assert_eq!(drain(server.address, &["--deadline", "100"]).status.code(), Some(0));
    assert_eq!(server.wait(), Some(0));
    // For a tenth of the time a load balancer can see that the server is not ready.
    assert!((10..90).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[test]
fn a_request_that_does_not_end_keeps_a_drained_server_until_the_deadline() {
    let mut server = Server::start(&["--publish-open"]);
    let mut uploading = connect(server.address);
    let head = "POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n12";
    uploading.write_all(head.as_bytes()).expect("the server reads");
    let _subscriber = Stream::subscribe(server.address, "news");
    let output = drain(server.address, &["--deadline", "2"]);
    assert!(said(&output).contains("closes 1 connections"), "{output:?}");
    assert_eq!(server.wait(), Some(0));
}

/// Thousands of clients that come back in one instant would find the next server busy.
#[test]
fn the_clients_of_a_drained_server_come_back_at_different_times() {
    let server = Server::start(&[]);
    let streams: Vec<_> = (0..60).map(|_| Stream::subscribe(server.address, "news")).collect();
    assert_eq!(drain(server.address, &[]).status.code(), Some(0));
    let times = streams.into_iter().map(|mut stream| {
        assert_eq!(stream.next(), None);
        let text = String::from_utf8(stream.bytes).expect("it is text");
        let time = text.trim_end().rsplit_once("retry: ").expect("it has a time").1;
        time.parse::<u32>().expect("it is a number")
    });
    let times: BTreeSet<u32> = times.collect();
    assert!(times.iter().all(|time| (2_000..=7_000).contains(time)), "{times:?}");
    // All of 60 lie in the same three of five seconds once in 10^12.
    let (first, last) = (times.first().expect("some"), times.last().expect("some"));
    assert!(times.len() > 30 && last - first > 3_000, "{times:?}");
}

#[test]
fn a_page_and_a_proxied_client_cannot_drain_a_server() {
    let server = Server::start(&["--publish-open"]);
    let refused = |fields: &[(&str, &str)], target: &str| ask(server.address, "POST", target, fields, "").status;
    assert_eq!(refused(&[("Origin", "http://evil.example")], "/drain"), 403);
    assert_eq!(refused(&[("Origin", "null")], "/drain"), 403);
    assert_eq!(refused(&[("Host", "evil.example")], "/drain"), 403);
    for field in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via"] {
        assert_eq!(refused(&[(field, "for=127.0.0.1")], "/drain"), 403, "{field}");
    }
    assert_eq!(refused(&[("Sec-Fetch-Site", "cross-site")], "/drain"), 403);
    for seconds in ["", "0", "x", "-1", "1.5", "3601"] {
        assert_eq!(refused(&[], &format!("/drain?seconds={seconds}")), 400, "{seconds}");
    }
    let answer = ask(server.address, "POST", "/drain?second=5", &[], "");
    assert!(answer.status == 400 && answer.text().contains("second is unknown"), "{answer:?}");
    assert_eq!(ask(server.address, "GET", "/drain", &[], "").status, 405);
    assert_eq!(ask(server.address, "GET", "/readyz", &[], "").status, 200, "it goes on");
}

#[test]
fn a_server_with_a_token_is_drained_with_the_token_only() {
    let directory = Directory::new("drain-token");
    let path = directory.0.join("token");
    fs::write(&path, "opensesame-opensesame\n").expect("it can be written");
    let path = path.to_str().expect("it is UTF-8");
    let mut server = Server::start(&["--publish-token-file", path]);
    let output = drain(server.address, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("401"), "{output:?}");
    assert_eq!(drain(server.address, &["--token-file", path]).status.code(), Some(0));
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_key_to_publish_on_all_channels_does_not_drain_a_server_that_has_a_token() {
    let directory = Directory::new("drain-key");
    let [token, keys] = ["token", "keys"].map(|name| directory.0.join(name));
    fs::write(&token, "opensesame-opensesame\n").expect("it can be written");
    let lines = "anyone allow publish *\na-key-of-the-file allow all *\n";
    fs::write(&keys, lines).expect("it can be written");
    let [token, keys] = [&token, &keys].map(|path| path.to_str().expect("it is UTF-8"));
    let mut server = Server::start(&["--publish-token-file", token, "--access", keys]);
    for field in ["", "Bearer a-key-of-the-file"] {
        let answer = ask(server.address, "POST", "/drain", &[("Authorization", field)], "");
        assert_eq!(answer.status, 401, "{field}");
    }
    assert_eq!(ask(server.address, "GET", "/readyz", &[], "").status, 200, "it goes on");
    assert_eq!(drain(server.address, &["--token-file", token]).status.code(), Some(0));
    assert_eq!(server.wait(), Some(0));
}

/// A proxy of the same user, on the same machine, can only be told from the command by what it sends. Where clients need keys
/// they are not on this machine.
#[test]
fn a_server_with_keys_or_an_application_is_not_drained_without_a_token() {
    let directory = Directory::new("drain-keys");
    let keys = directory.0.join("keys");
    fs::write(&keys, "a-key-of-the-file allow all *\n").expect("it can be written");
    let keys = keys.to_str().expect("it is UTF-8");
    for option in [["--access", keys], ["--authorize", "http://127.0.0.1:1/"]] {
        let server = Server::start(&option);
        let output = drain(server.address, &["--token-file", keys.replace("keys", "missing").as_str()]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let output = drain(server.address, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("403") && said.contains("--publish-token-file"), "{said}");
        let bearer = [("Authorization", "Bearer a-key-of-the-file")];
        assert_eq!(ask(server.address, "POST", "/drain", &bearer, "").status, 403);
        assert_eq!(ask(server.address, "GET", "/readyz", &[], "").status, 200, "it goes on");
    }
}

/// Off loopback, each `Host` may be a name of the server; a proxy that keeps the field shows that it is one.
#[test]
fn a_server_is_drained_at_a_loopback_address_only() {
    let mut command = Command::new(BINARY);
    command.args(["--listen", "0.0.0.0:0", "--quiet"]);
    let server = Server::spawn(command);
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    for host in ["push.example", "192.0.2.7", "localhost.example"] {
        let answer = ask(address, "POST", "/drain?seconds=1", &[("Host", host)], "");
        assert!(answer.status == 403 && answer.text().contains("loopback"), "{host}: {answer:?}");
    }
    assert_eq!(drain(address, &[]).status.code(), Some(0));
}

/// On one machine a proxy is on loopback, and so are all its clients then. It has a user of its own.
#[test]
fn a_process_of_another_user_cannot_drain_a_server() {
    let server = Server::start(&[]);
    let place = Directory::new("other-user");
    let client = std::env::temp_dir().join(format!("newswire-{}", std::process::id()));
    fs::copy(BINARY, &client).expect("it can be copied");
    let mut command = Command::new(&client);
    let url = format!("http://{}", server.address);
    let output = command.args(["drain", &url]).uid(65_534).current_dir("/").output();
    fs::remove_file(&client).expect("it is ours");
    drop(place);
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("status 403") && said.contains("same user"), "{output:?}");
            assert_eq!(ask(server.address, "GET", "/readyz", &[], "").status, 200, "it goes on");
        }
        Err(error) => skip(&format!("no process of another user can be started: {error}")),
    }
}

/// Not eprintln, which the test harness would keep to itself.
fn skip(why: &str) {
    assert!(std::env::var("CI").is_err(), "{why}");
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {why} ***");
}

/// A container is stopped with SIGTERM, and killed ten seconds later, unless its image says what stops it.
#[test]
fn the_first_process_of_a_container_says_what_stops_it() {
    let note = "SIGTERM does nothing here";
    assert!(!Server::start(&[]).greeting.contains(note));
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", BINARY, "--listen", "127.0.0.1:0"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return skip("there is no unshare") };
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let first = lines.next().map(|line| line.expect("it is text"));
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    match first {
        Some(first) => assert!(first.contains(note) && first.contains("STOPSIGNAL SIGKILL")),
        None => skip("unshare may not make a process namespace"),
    }
}

#[test]
fn a_closed_standard_input_is_told_from_one_that_has_ended() {
    for (input, said) in [("", "is closed or empty"), ("Hello\n", "has ended")] {
        let mut server = Server::start(&["--stdin", "news", "--quiet"]);
        server.stdin().write_all(input.as_bytes()).expect("it reads");
        let sentence = format!("newswire: standard input {said}; the channel news is complete\n");
        eventually("it says so", || server.said() == sentence);
    }
}
