//! The lines on standard error. A terminal may be paused, and a pipe may have no reader: nothing else waits for them.

use crate::files::Directory;
use crate::server::{PATIENCE, Server, ask, eventually, exchange};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_newswire");

/// A server whose standard error is a pipe that is full.
pub(crate) struct Unheard {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Unheard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Unheard {
    pub(crate) fn start(arguments: &[&str]) -> Unheard {
        let mut command = Command::new(BINARY);
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary under test starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let address = lines.find_map(|line| {
            let line = line.expect("it is text");
            line.split_once("http://")?.1.split_once('/')?.0.parse().ok()
        });
        let unheard = Unheard { child, address: address.expect("it says where it listens") };
        // Any stranger can do this. It is more than a pipe takes, and more than the server keeps.
        for _ in 0..200 {
            let request = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(5_000));
            assert!(exchange(unheard.address, request).starts_with("HTTP/1.1 404"));
        }
        unheard
    }

    pub(crate) fn drain(&mut self, options: &[&str]) {
        let mut command = Command::new(BINARY);
        command.arg("drain").args(options).arg(format!("http://{}/", self.address));
        assert!(command.status().expect("it starts").success());
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

#[test]
fn a_log_that_is_not_read_stops_neither_revocation_nor_drain() {
    let directory = Directory::new("unread-keys");
    let [token, keys] = ["token", "keys"].map(|name| directory.0.join(name));
    fs::write(&token, "opensesame\n").expect("it can be written");
    fs::write(&keys, "the-first-key-of-two allow all *\n").expect("it can be written");
    let [token, path] = [&token, &keys].map(|path| path.to_str().expect("it is UTF-8"));
    let mut server = Unheard::start(&["--publish-token-file", token, "--access", path]);
    let publish = |key: &str| {
        let field = [("Authorization", &*format!("Bearer {key}"))];
        ask(server.address, "POST", "/channels/news", &field, "x").status
    };
    assert_eq!(publish("the-first-key-of-two"), 200);
    fs::write(&keys, "nonsense\n").expect("it can be written");
    // Long enough for the server to find that it is wrong.
    thread::sleep(Duration::from_secs(4));
    fs::write(&keys, "the-second-key-of-two allow all *\n").expect("it can be written");
    eventually("the key is removed", || publish("the-first-key-of-two") == 401);
    assert_eq!(publish("the-second-key-of-two"), 200);
    server.drain(&["--token-file", token]);
}

#[test]
fn lines_that_have_no_room_are_counted() {
    let mut server = Unheard::start(&[]);
    let (stderr, started) = (server.child.stderr.take().expect("it is piped"), Instant::now());
    let mut lines = BufReader::new(stderr).lines().map(|line| line.expect("it is text"));
    let lost = lines.find(|line| line.ends_with(" lines of this log were lost"));
    assert!(started.elapsed() < PATIENCE);
    let lost = lost.expect("the server goes on");
    let count = lost.strip_prefix("newswire: ").and_then(|rest| rest.split(' ').next());
    let count: usize = count.and_then(|count| count.parse().ok()).expect("it is a number");
    assert!((1..200).contains(&count), "{lost}");
}

#[test]
fn with_log_json_the_lines_that_are_no_requests_are_objects_too() {
    let directory = Directory::new("json-lines");
    let keys = directory.0.join("keys");
    fs::write(&keys, "the-first-key-of-two allow all *\n").expect("it can be written");
    let path = keys.to_str().expect("it is UTF-8");
    let options = ["--quiet", "--log", "json", "--stdin", "news", "--access", path];
    let mut server = Server::start(&options);
    drop(server.stdin());
    eventually("it says so", || server.said().contains("standard input is closed or empty"));
    fs::write(&keys, "nonsense\n").expect("it can be written");
    eventually("it says so", || server.said().contains("the keys stay as they were"));
    let said = server.said();
    assert_eq!(said.lines().count(), 2, "{said}");
    for line in said.lines() {
        let message =
            line.strip_prefix(r#"{"time":"20"#).and_then(|rest| rest.split_once(r#"Z","message":"newswire: "#));
        assert!(message.is_some_and(|(_, message)| message.ends_with("\"}")), "{line}");
    }
}
