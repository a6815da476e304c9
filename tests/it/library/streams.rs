//! A stream of a handler and its one client.

use crate::server::{PATIENCE, connect, read_opening, read_until, serve};
use newswire::http::Limits;
use newswire::{Emitter, Router};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

#[test]
fn an_event_arrives_while_its_handler_still_runs() {
    let (sender, go_on) = channel::<()>();
    let go_on = Mutex::new(Some(go_on));
    let mut router = Router::new();
    router.get("/", move |request| {
        let go_on = go_on.lock().expect("no handler panics").take().expect("one client");
        Emitter::stream(request, move |mut emitter| {
            let wait = || go_on.recv_timeout(PATIENCE).map_err(std::io::Error::other);
            wait()?;
            emitter.send("one")?;
            wait()?;
            emitter.comment("two")?;
            wait()?;
            emitter.complete_with_error("a secret")
        })
    });
    let address = serve(router, |server| server);
    let mut socket = connect(address);
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the server reads");
    // Each event is read before the handler may go on.
    let head = read_until(&mut socket, "\r\n\r\n");
    assert!(head.contains("\r\nContent-Type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    assert!(!head.contains("Transfer-Encoding") && !head.contains("Content-Length"));
    let opening = read_opening(&mut socket);
    assert!(opening.starts_with(": newswire\nretry: "), "{opening:?}");
    sender.send(()).expect("it runs");
    assert_eq!(read_until(&mut socket, "\n\n"), "data: one\n\n");
    sender.send(()).expect("it runs");
    assert_eq!(read_until(&mut socket, ": two\n").trim_start(), ": two\n");
    sender.send(()).expect("it runs");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut socket, &mut rest).expect("it closes");
    assert!(rest.trim_start().starts_with(": ") && rest.ends_with('\n'), "{rest:?}");
    assert!(!rest.contains("secret") && !rest.contains("data"), "{rest:?}");
}

/// A server with a stream that sends the same event until a send fails, and reports the error.
pub(crate) fn endless(
    limits: Limits,
    data: &'static str,
    interval: Duration,
) -> (SocketAddr, Receiver<ErrorKind>) {
    let (sender, outcomes) = channel();
    let sender = Mutex::new(sender);
    let mut router = Router::new();
    router.get("/", move |request| {
        let sender = sender.lock().expect("no handler panics").clone();
        Emitter::stream(request, move |mut emitter| {
            let error = loop {
                if let Err(error) = emitter.send(data) {
                    break error;
                }
                thread::sleep(interval);
            };
            let _ = sender.send(error.kind());
            Err(error)
        })
    });
    (serve(router, |server| server.limits(limits).expect("they are in range")), outcomes)
}

#[test]
fn a_send_fails_when_the_client_has_left() {
    let (address, outcomes) = endless(Limits::default(), "tick", Duration::from_millis(10));
    let mut socket = connect(address);
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the server reads");
    read_until(&mut socket, "data: tick\n\n");
    drop(socket);
    outcomes.recv_timeout(PATIENCE).expect("a send has failed");
}
