//! A server that is not Redis, or a hostile one, at the address of Redis.

use super::clients::publish;
use super::machines::{Redis, node};
use crate::server::{Server, ask, eventually};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

/// Answers each connection's first bytes with these, again and again until the client leaves. Counts connections.
fn impostor(reply: Vec<u8>, again: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, SeqCst);
            let (reply, again) = (reply.clone(), again.clone());
            thread::spawn(move || {
                let _ = client.read(&mut [0; 1024]);
                let mut sent = client.write_all(&reply);
                while sent.is_ok() && !again.is_empty() {
                    sent = client.write_all(&again);
                }
                let _ = client.read(&mut [0; 1024]);
            });
        }
    });
    (address, connections)
}

fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has one");
    line.trim().trim_end_matches(" kB").parse().expect("it is a number")
}

/// The server goes on, refuses, tries again, and its memory does not grow.
fn is_survived(reply: &[u8], again: &[u8]) {
    let (address, connections) = impostor(reply.to_vec(), again.to_vec());
    let node = node(address, &[]);
    let before = resident_kib(&node);
    assert_eq!(publish(node.address, "news", "x"), Err(503));
    eventually("it tries again", || connections.load(SeqCst) > 2);
    assert_eq!(ask(node.address, "GET", "/healthz", &[], "").status, 200);
    assert_eq!(node.metric("newswire_panics_total"), 0);
    let grown = resident_kib(&node).saturating_sub(before);
    assert!(grown < 16 * 1024, "it grew by {grown} KiB");
}

/// What HELLO, SELECT and CLIENT TRACKING are answered with.
const WELCOME: &[u8] = b"%1\r\n+role\r\n+master\r\n+OK\r\n+OK\r\n";

#[test]
fn a_version_that_lacks_a_command_is_refused_before_the_server_listens() {
    let old = b"%2\r\n+role\r\n+master\r\n+version\r\n+6.0.16\r\n+OK\r\n+OK\r\n";
    let (address, _) = impostor(old.to_vec(), Vec::new());
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.args(["--listen", "127.0.0.1:0", "--redis", &address.to_string()]);
    let output = command.output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("6.0") && said.contains("needs 6.2"), "{said}");
}

#[test]
fn bytes_that_are_not_resp_are_survived() {
    is_survived(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"");
    is_survived(b"$9223372036854775807\r\n", b"");
    is_survived("*1\r\n".repeat(1_000_000).as_bytes(), b"");
}

#[test]
fn replies_of_the_wrong_kind_are_survived() {
    is_survived(&[WELCOME, b"+OK\r\n", b":1\r\n"].concat(), b"+OK\r\n");
    is_survived(&[WELCOME, b"*1\r\n*2\r\n:1\r\n:2\r\n"].concat(), b":1\r\n");
    is_survived(b"%1\r\n+role\r\n+replica\r\n+OK\r\n+OK\r\n", b"");
}

#[test]
fn a_reply_without_an_end_costs_no_memory() {
    let many = b":1\r\n".repeat(1000);
    let start = b"*9223372036854775807\r\n";
    let (address, _) = impostor(start.to_vec(), many);
    let node = node(address, &[]);
    let before = resident_kib(&node);
    thread::sleep(std::time::Duration::from_secs(2));
    let grown = resident_kib(&node).saturating_sub(before);
    assert!(grown < 16 * 1024, "it grew by {grown} KiB");
    assert_eq!(publish(node.address, "news", "x"), Err(503));
}

#[test]
fn a_cluster_is_named_in_the_log() {
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        listener.local_addr().expect("it listens").port().to_string()
    };
    let start = |bus: &str| Redis::start(&["--cluster-enabled", "yes", "--cluster-port", bus]);
    let bus = free();
    let (Some(asked), Some(owner)) = (start(&free()), start(&bus)) else { return };
    owner.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    asked.cli(&["CLUSTER", "MEET", "127.0.0.1", &owner.port.to_string(), &bus]);
    eventually("one knows the other", || asked.cli(&["GET", "x"]).starts_with("MOVED"));
    let node = asked.node();
    assert_eq!(publish(node.address, "news", "x"), Err(503));
    eventually("it says why", || node.said().contains("Redis Cluster"));
}
