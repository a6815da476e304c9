//! Stopping a server of the library: what becomes of its connections, and that nothing is left of it.

use crate::limits::{GET, LONG, SHORT, lenient, receive, receive_all, send};
use crate::server::{PATIENCE, connect, eventually, read_opening};
use newswire::http::{Limits, Method, Refusal, Status};
use newswire::{Emitter, Response, Router, Server, ServerHandle};
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What handlers wait for.
#[derive(Clone, Default)]
struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    fn open(&self) {
        *self.0.0.lock().expect("no handler panics") = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let is_open = self.0.0.lock().expect("no handler panics");
        let waited = self.0.1.wait_timeout_while(is_open, PATIENCE, |is_open| !*is_open);
        drop(waited.expect("no handler panics"));
    }
}

/// `GET /` is answered at once; `GET /works` and `POST /works` when the latch opens; `GET /streams` sends an event at once
/// and another one when the latch opens.
fn router(latch: &Latch) -> Router {
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    let waiting = latch.clone();
    router.get("/works", move |_| {
        waiting.wait();
        Response::text(Status::OK, "worked\n")
    });
    router.route(Method::Post, "/works", |request| {
        let content = request.content()?;
        Ok::<_, Refusal>(Response::bytes(Status::OK, "text/plain", content))
    });
    let waiting = latch.clone();
    router.get("/streams", move |request| {
        let waiting = waiting.clone();
        Emitter::stream(request, move |mut emitter| {
            emitter.send("first")?;
            waiting.wait();
            // Its client has left: an emitter learns that from one of its next sends.
            loop {
                emitter.send("more")?;
                thread::sleep(Duration::from_millis(10));
            }
        })
    });
    router
}

fn start(address: &str, latch: &Latch, limits: Limits) -> ServerHandle {
    let listener = TcpListener::bind(address).expect("there is a free port");
    let server = Server::from_listener(listener).limits(limits).expect("they are in range");
    server.serve(router(latch)).expect("the system has threads")
}

fn begin(server: &ServerHandle, request: &str) -> TcpStream {
    let socket = connect(server.addr());
    send(&socket, request);
    socket
}

fn assert_refused(server: &ServerHandle) {
    let refused = TcpStream::connect(server.addr()).expect_err("nothing listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_stopped_server_answers_what_it_has_begun_and_nothing_more() {
    let latch = Latch::default();
    let server = start("127.0.0.1:0", &latch, lenient());
    let (silent, unfinished) = (begin(&server, ""), begin(&server, "GET / HT"));
    let idle = begin(&server, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(receive(&idle).expect("it is answered").status, 200);
    let working = begin(&server, "GET /works HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let uploading = begin(&server, "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n12");
    let mut streaming = begin(&server, "GET /streams HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let opening = read_opening(&mut streaming);
    // All of them are where they are meant to be.
    thread::sleep(SHORT);

    server.stop();
    for ended in [silent, unfinished, idle] {
        assert_eq!(receive_all(&ended), "");
    }
    assert!(opening.starts_with("HTTP/1.1 200 OK\r\n"), "{opening}");
    let rest = receive_all(&streaming);
    let (event, farewell) = rest.split_once("\n\n").expect("the event was sent before");
    assert_eq!(event, "data: first");
    assert!(farewell.starts_with("retry: ") && farewell.ends_with('\n'), "{farewell:?}");
    assert_eq!(farewell.lines().count(), 1, "{farewell:?}");

    send(&uploading, "34");
    let answer = receive(&uploading).expect("it is answered");
    assert_eq!((answer.status, answer.text()), (200, "1234"));
    assert_eq!(answer.field("connection"), Some("close"));
    latch.open();
    let answer = receive(&working).expect("it is answered");
    assert_eq!((answer.status, answer.text()), (200, "worked\n"));
    assert_eq!(answer.field("connection"), Some("close"));
    drop((uploading, working, streaming));

    server.join(PATIENCE).expect("all threads end");
    assert_refused(&server);
    server.wait();
    server.join(Duration::ZERO).expect("they have ended");
}

/// A response that is on its way when the server stops arrives whole.
#[test]
fn a_download_goes_on_while_the_server_stops() {
    let mut router = Router::new();
    let large = vec![b'x'; 64 * 1024 * 1024];
    router.get("/", move |_| Response::bytes(Status::OK, "text/plain", large.clone()));
    let server = Server::bind("127.0.0.1:0").expect("there is a free port");
    let server = server.serve(router).expect("the system has threads");
    let socket = connect(server.addr());
    send(&socket, GET);
    // The socket is full by then, and the server waits for the client.
    thread::sleep(SHORT);
    server.stop();
    assert_eq!(receive(&socket).expect("it is answered").content.len(), 64 * 1024 * 1024);
    server.join(PATIENCE).expect("all threads end");
}

/// Nothing else would end it.
#[test]
fn a_stream_that_begins_while_the_server_stops_ends_at_once() {
    let (latch, (begin, begun)) = (Latch::default(), channel());
    let mut router = Router::new();
    let (waiting, began) = (latch.clone(), Mutex::new(begin.clone()));
    router.get("/events", move |request| {
        began.lock().expect("no handler panics").send(()).expect("the test waits");
        waiting.wait();
        Emitter::stream(request, |mut emitter| {
            loop {
                emitter.send("more")?;
                thread::sleep(Duration::from_millis(10));
            }
        })
    });
    let (waiting, began) = (latch.clone(), Mutex::new(begin));
    router.get("/bytes", move |_| {
        began.lock().expect("no handler panics").send(()).expect("the test waits");
        waiting.wait();
        Response::stream("text/plain", b"opening".to_vec(), |writer| {
            loop {
                writer.write_all(b"more")?;
                thread::sleep(Duration::from_millis(10));
            }
        })
    });
    let server = Server::bind("127.0.0.1:0").expect("there is a free port");
    let server = server.serve(router).expect("the system has threads");
    let events = begin_at(&server, "/events");
    let bytes = begin_at(&server, "/bytes");
    for _ in 0..2 {
        begun.recv_timeout(PATIENCE).expect("the handler runs");
    }
    server.stop();
    latch.open();
    let received = receive_all(&events);
    assert!(received.starts_with("HTTP/1.1 200 OK\r\n"), "{received}");
    assert!(received.contains("\nretry: ") && received.ends_with('\n'), "{received}");
    let received = receive_all(&bytes);
    assert!(received.ends_with("\r\n\r\nopening"), "{received}");
    server.join(PATIENCE).expect("all threads end");
}

fn begin_at(server: &ServerHandle, target: &str) -> TcpStream {
    begin(server, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[test]
fn a_handler_that_does_not_return_is_a_typed_error() {
    let latch = Latch::default();
    let server = start("127.0.0.1:0", &latch, lenient());
    let stuck = begin(&server, "GET /works HTTP/1.1\r\nHost: localhost\r\n\r\n");
    thread::sleep(SHORT);
    let error = server.join(SHORT).expect_err("a handler waits");
    assert_eq!(error.threads, 1);
    assert_refused(&server);
    assert_eq!(receive_all(&stuck), "", "its connection is closed at the deadline");
    latch.open();
    server.join(Duration::MAX).expect("now it returns");
}

/// A peer that does not read, and one that does not send, do not outlast the deadline.
#[test]
fn connections_are_closed_when_the_deadline_has_passed() {
    let latch = Latch::default();
    let server = start("127.0.0.1:0", &latch, lenient());
    let uploading = begin(&server, "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n12");
    thread::sleep(SHORT);
    server.join(SHORT).expect("all threads end");
    assert!(!receive_all(&uploading).contains("200 OK"));
}

#[test]
fn a_server_at_its_limit_can_be_stopped() {
    let latch = Latch::default();
    let server = start("127.0.0.1:0", &latch, Limits { connections: 1, waiting: 3, ..lenient() });
    let working = begin(&server, "GET /works HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    thread::sleep(SHORT);
    // Three have a request and wait for a place. For the others the accept threads wait.
    let waiting: Vec<_> = (0..5).map(|_| begin(&server, "")).collect();
    waiting.iter().for_each(|socket| send(socket, GET));
    thread::sleep(SHORT);
    server.stop();
    for socket in &waiting {
        assert_eq!(receive_all(socket), "");
    }
    latch.open();
    assert_eq!(receive(&working).expect("it is answered").text(), "worked\n");
    server.join(PATIENCE).expect("all threads end");
    assert_refused(&server);
}

#[test]
fn a_server_on_any_address_can_be_stopped_and_its_port_is_free_again() {
    for address in ["127.0.0.1:0", "0.0.0.0:0", "127.1.2.3:0", "[::1]:0", "[::]:0"] {
        let server = start(address, &Latch::default(), lenient());
        let addr = server.addr();
        server.join(PATIENCE).unwrap_or_else(|error| panic!("{address}: {error}"));
        let again = start(&addr.to_string(), &Latch::default(), lenient());
        assert_eq!(again.addr(), addr);
        again.join(PATIENCE).unwrap_or_else(|error| panic!("{address}: {error}"));
    }
}

/// An environment variable: the test runs itself, alone in a process, so that it can count.
const ALONE: &str = "NEWSWIRE_TEST_ALONE";

#[test]
fn a_hundred_stopped_servers_leave_no_thread_and_no_descriptor() {
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().expect("a test is a program");
        let name = "stopping::a_hundred_stopped_servers_leave_no_thread_and_no_descriptor";
        let status = Command::new(this).args(["--exact", name]).env(ALONE, "1").status();
        assert!(status.expect("it starts").success(), "see its output above");
        return;
    }
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).expect("this is Linux").count();
    let cycle = |number: usize| {
        let latch = Latch::default();
        latch.open();
        let server = start("127.0.0.1:0", &latch, lenient());
        let mut sockets = vec![begin(&server, ""), begin(&server, "GET / HT")];
        sockets.extend(["/", "/works", "/streams"].map(|target| begin_at(&server, target)));
        let addr = server.addr();
        // Connections that arrive in the moment when the server stops
        let newcomers = thread::spawn(move || {
            let request = b"GET /streams HTTP/1.1\r\nHost: localhost\r\n\r\n";
            let newcomer = || {
                let mut socket = TcpStream::connect(addr).ok()?;
                let _ = socket.write_all(request);
                Some(socket)
            };
            std::iter::from_fn(newcomer).take(50).collect::<Vec<_>>()
        });
        thread::sleep(Duration::from_millis(number as u64 % 4 * 5));
        server.join(PATIENCE).expect("all threads end");
        assert_refused(&server);
        // Each connection ends, also while there is a handle to the server.
        sockets.extend(newcomers.join().expect("it only connects"));
        for socket in &sockets {
            socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
            receive_all(socket);
        }
        server
    };
    drop(cycle(3));
    let before = (count("task"), count("fd"));
    let stopped: Vec<_> = (0..100).map(cycle).collect();
    // A thread is listed for a moment after its end.
    eventually("nothing is left", || count("task") <= before.0 && count("fd") <= before.1);
    drop(stopped);
}

/// `wait` returns when another handle has stopped the server.
#[test]
fn the_end_of_a_server_can_be_waited_for() {
    let server = start("127.0.0.1:0", &Latch::default(), Limits { idle: LONG, ..lenient() });
    let stopping = server.clone();
    let stopper = thread::spawn(move || {
        thread::sleep(SHORT);
        stopping.stop();
    });
    let started = Instant::now();
    server.wait();
    assert!(started.elapsed() >= SHORT / 2);
    stopper.join().expect("it only stops");
    assert_refused(&server);
}
