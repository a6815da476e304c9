//! Deadlines: a peer that is slow, silent or gone does not hold a thread for ever.

use crate::emitter::endless;
use crate::files::Directory;
use crate::limits::{
    GET, LONG, SHORT, assert_silent, dripping, lenient, receive, receive_all, send, serve_with, start,
};
use crate::server::{Answer, PATIENCE, Server, connect, serve};
use newswire::http::{Limits, Method, Refusal, Status};
use newswire::{Emitter, Response, Router};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

fn assert_timed_out(answer: Option<Answer>, socket: &TcpStream) {
    let answer = answer.expect("it is told why");
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    assert!(receive(socket).is_none());
}

/// One byte now and then keeps a read from timing out. Only a deadline for the whole head ends it (Slowloris).
#[test]
fn a_slow_head_is_408_also_when_bytes_go_on_arriving() {
    let address = start(Limits { head_deadline: SHORT, ..lenient() });
    for (start, drop) in [
        (&b""[..], &b"G"[..]),
        (b"GET /", b"x"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"x"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n"),
        // After a request that was answered
        (GET, b"G"),
    ] {
        let socket = connect(address);
        send(&socket, start);
        if start == GET {
            assert_eq!(receive(&socket).expect("it is answered").status, 200);
        }
        let answer = dripping(&socket, drop, || receive(&socket));
        assert_timed_out(answer, &socket);
    }
}

#[test]
fn a_slow_content_is_408_also_when_bytes_go_on_arriving() {
    let address = start(Limits { content_deadline: SHORT, ..lenient() });
    for (fields, drop) in [
        ("Content-Length: 500000", &b"x"[..]),
        ("Transfer-Encoding: chunked", b"1\r\nx\r\n"),
        ("Content-Length: 5", b""),
        ("Transfer-Encoding: chunked", b""),
    ] {
        let socket = connect(address);
        send(&socket, format!("POST / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n"));
        let answer = dripping(&socket, drop, || receive(&socket));
        assert_timed_out(answer, &socket);
    }
}

#[test]
fn lines_may_arrive_for_ever_but_no_pause_may_be_too_long() {
    let address = start(Limits { lines_idle: SHORT, content_deadline: SHORT, ..lenient() });
    let socket = connect(address);
    send(&socket, b"POST /lines HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    // Several times as long as both limits, without a pause as long as one of them
    dripping(&socket, b"2\r\nx\n\r\n", || assert_silent(&socket, 4 * SHORT));
    assert_timed_out(receive(&socket), &socket);
}

#[test]
fn a_connection_without_a_request_is_closed_without_an_answer() {
    let address = start(Limits { head_deadline: SHORT, ..lenient() });
    let socket = connect(address);
    assert_eq!(receive_all(&socket), "");

    // Empty lines are no request.
    let socket = connect(address);
    assert_eq!(dripping(&socket, b"\r\n", || receive_all(&socket)), "");

    // A content that no handler asked for, and that does not arrive
    let socket = connect(address);
    send(&socket, b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n1234");
    assert_eq!(receive(&socket).expect("it is answered").status, 200);
    assert!(receive(&socket).is_none());
}

#[test]
fn a_kept_connection_may_be_idle_for_as_long_as_the_limit_says() {
    // The deadline of a head does not run before its first byte.
    let keeping = start(Limits { head_deadline: SHORT, ..lenient() });
    let closing = start(Limits { idle: SHORT, ..lenient() });
    let (kept, closed) = (connect(keeping), connect(closing));
    for socket in [&kept, &closed] {
        send(socket, GET);
        let answer = receive(socket).expect("it is answered");
        assert_eq!((answer.status, answer.field("connection")), (200, None));
    }
    assert_eq!(receive_all(&closed), "");
    assert_silent(&kept, 3 * SHORT);
    send(&kept, GET);
    assert_eq!(receive(&kept).expect("it is answered").status, 200);
}

/// A client that sends its request and closes its writing half still reads.
#[test]
fn a_half_closed_connection_gets_its_whole_response() {
    let mut router = Router::new();
    router.get("/", |request| {
        Emitter::stream(request, |mut emitter| {
            for number in 0..10 {
                emitter.send(number.to_string())?;
                thread::sleep(SHORT / 10);
            }
            emitter.complete()
        })
    });
    router.route(Method::Post, "/", |request| {
        let content = request.content()?;
        thread::sleep(SHORT);
        Ok::<_, Refusal>(Response::bytes(Status::OK, "text/plain", content))
    });
    let address = serve(router, |server| server);

    let socket = connect(address);
    send(&socket, GET);
    socket.shutdown(Shutdown::Write).expect("it is open");
    let stream = receive(&socket).expect("it is answered");
    let data = |number| format!("data: {number}\n\n");
    assert!(stream.text().ends_with(&(0..10).map(data).collect::<String>()));

    let socket = connect(address);
    send(&socket, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\ncontent");
    socket.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(receive(&socket).expect("it is answered").text(), "content");
    assert!(receive(&socket).is_none());
}

/// "If a server performs an immediate close of a TCP connection, there is a significant risk that the client will not be
/// able to read the last HTTP response" (RFC 9112, 9.6).
#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let address = start(lenient());
    let length = 10_000_000;
    let contents = [
        (format!("Content-Length: {length}"), vec![b'x'; length]),
        ("Transfer-Encoding: chunked".to_owned(), [format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length]].concat()),
    ];
    for (fields, content) in contents {
        let mut socket = connect(address);
        send(&socket, format!("POST / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n"));
        // The server may close before all of it is sent.
        let _ = socket.write_all(&content);
        assert_eq!(receive(&socket).expect("it is told why").status, 413);
    }
}

/// A content that no handler asks for is skipped to find the next request, but only so much of it.
#[test]
fn a_content_without_an_end_that_no_handler_asks_for_ends_the_connection() {
    let address = start(lenient());
    let socket = connect(address);
    send(&socket, b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
    let received = dripping(&socket, &chunk, || receive_all(&socket));
    assert!(received.starts_with("HTTP/1.1 200 OK\r\n"), "{received}");
    assert_eq!(received.matches("HTTP/1.1").count(), 1, "{received}");
}

#[test]
fn a_client_that_reads_nothing_is_closed_and_a_slow_one_is_not() {
    let limits = Limits { write_stall: 2 * SHORT, ..lenient() };
    let data = Box::leak("x".repeat(64 * 1024).into_boxed_str());
    let (address, outcomes) = endless(limits, data, Duration::ZERO);
    let stalled = connect(address);
    send(&stalled, GET);
    let kind = outcomes.recv_timeout(PATIENCE).expect("a send has failed");
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind:?}");

    let mut slow = connect(address);
    send(&slow, GET);
    let mut piece = vec![0; 512 * 1024];
    let started = Instant::now();
    while started.elapsed() < 6 * SHORT {
        assert!(slow.read(&mut piece).expect("it goes on") > 0);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(outcomes.try_recv().is_err(), "it was closed");
    drop(slow);
    outcomes.recv_timeout(PATIENCE).expect("its client has left");
}

/// A response of known length has the same deadline as a stream.
#[test]
fn a_large_response_that_is_not_read_ends_its_connection() {
    let mut router = Router::new();
    router.get("/", |_| Response::bytes(Status::OK, "application/octet-stream", vec![b'x'; 64 * 1024 * 1024]));
    let address = serve_with(Limits { write_stall: SHORT, idle: LONG, ..lenient() }, router);
    // What the system has taken can still be read, and then the connection ends. A busy machine may take longer to end it.
    let ends_within = |time: Duration| {
        let stalled = connect(address);
        send(&stalled, GET);
        thread::sleep(time);
        receive_all(&stalled).len() < 64 * 1024 * 1024
    };
    assert!([4, 16, 64].iter().any(|times| ends_within(*times * SHORT)), "it is read to its end");
}

/// Thousands of clients that read nothing must not take the processor.
#[test]
fn a_connection_that_is_not_read_does_not_wake_the_server_again_and_again() {
    const CLIENTS: usize = 20;
    let directory = Directory::new("stalled");
    directory.write("site/large.bin", vec![b'x'; 16 * 1024 * 1024]);
    let server = directory.serve();
    let stalled: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let socket = server.connect();
            send(&socket, b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
            socket
        })
        .collect();
    thread::sleep(Duration::from_secs(3));
    let (before, threads) = (wakeups(&server), server.threads());
    thread::sleep(Duration::from_secs(4));
    let woken = wakeups(&server) - before;
    assert_eq!(server.threads(), threads, "some were closed meanwhile");
    println!("{woken} wake-ups of {CLIENTS} threads");
    assert!(woken < 8 * CLIENTS as u64, "{woken} wake-ups of {CLIENTS} threads");
    drop(stalled);
}

/// How often the threads of the server have slept and gone on.
fn wakeups(server: &Server) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs");
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line?.trim().parse::<u64>().ok()
    };
    tasks.filter_map(of_task).sum()
}
