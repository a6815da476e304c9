//! The limits of a server: which values are accepted, how much memory they stand for, and what the command line sets.
//! Beside it stand `deadlines`, `admission` and `shortage`, which share the first half of this file.

use crate::server::{Answer, PATIENCE, Server, connect, eventually, serve};
use newswire::http::{Limits, Method, Refusal, Status};
use newswire::{Response, Router};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// A limit that is reached in a test.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// A limit that is not.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Deadlines that no test reaches.
pub(crate) fn lenient() -> Limits {
    Limits {
        head_deadline: LONG,
        content_deadline: LONG,
        lines_idle: LONG,
        idle: LONG,
        write_stall: LONG,
        ..Limits::default()
    }
}

/// `GET /` is answered, `POST /` reads its content, `POST /lines` counts lines.
pub(crate) fn start(limits: Limits) -> SocketAddr {
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    router.route(Method::Post, "/", |request| {
        let length = request.content()?.len();
        Ok::<_, Refusal>(Response::text(Status::OK, length.to_string()))
    });
    router.route(Method::Post, "/lines", |request| {
        let mut count = 0;
        request.lines(|_| {
            count += 1;
            Ok(())
        })?;
        Ok::<_, Refusal>(Response::text(Status::OK, count.to_string()))
    });
    serve_with(limits, router)
}

pub(crate) fn serve_with(limits: Limits, router: Router) -> SocketAddr {
    serve(router, |server| server.limits(limits).expect("they are in range"))
}

pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

pub(crate) fn send(mut socket: &TcpStream, bytes: impl AsRef<[u8]>) {
    socket.write_all(bytes.as_ref()).expect("the server reads");
}

/// The next answer; `None` when the server closes instead.
pub(crate) fn receive(socket: &TcpStream) -> Option<Answer> {
    Answer::read(&mut BufReader::new(socket), "GET")
}

/// All bytes until the connection ends. A reset is an end, too.
pub(crate) fn receive_all(mut socket: &TcpStream) -> String {
    let (mut received, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match socket.read(&mut piece) {
            Ok(0) => break,
            Ok(bytes) => received.extend_from_slice(&piece[..bytes]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the connection did not end: {error}"),
        }
    }
    String::from_utf8_lossy(&received).into_owned()
}

/// The server sends nothing for `time`, and keeps the connection open.
pub(crate) fn assert_silent(mut socket: &TcpStream, time: Duration) {
    let waited = socket.set_read_timeout(Some(time));
    let kind = waited.and_then(|()| socket.read(&mut [0])).map_err(|error| error.kind());
    let is_silent = matches!(kind, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert!(is_silent, "the server is not silent: {kind:?}");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
}

/// Sends `piece` again and again, with short pauses, until `receive` returns.
pub(crate) fn dripping<T>(mut socket: &TcpStream, piece: &[u8], receive: impl FnOnce() -> T) -> T {
    let (is_over, started) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) && started.elapsed() < PATIENCE {
                if socket.write_all(piece).is_err() {
                    return;
                }
                thread::sleep(SHORT / 20);
            }
        });
        let result = receive();
        is_over.store(true, Relaxed);
        result
    })
}

#[test]
fn a_limit_that_is_out_of_range_is_an_error_that_names_its_field() {
    let base = Limits::default;
    let too_long = [Duration::ZERO, Duration::MAX, Duration::from_secs(367 * 86_400)];
    let mut wrong = vec![
        ("target_bytes", Limits { target_bytes: 0, ..base() }),
        ("head_bytes", Limits { head_bytes: 0, ..base() }),
        ("head_bytes", Limits { head_bytes: 8 * 1024, ..base() }),
        ("head_bytes", Limits { head_bytes: (1 << 30) + 1, ..base() }),
        ("fields", Limits { fields: 0, ..base() }),
        ("connections", Limits { connections: 0, ..base() }),
        ("waiting", Limits { waiting: 0, ..base() }),
    ];
    for time in too_long {
        wrong.extend([
            ("head_deadline", Limits { head_deadline: time, ..base() }),
            ("content_deadline", Limits { content_deadline: time, ..base() }),
            ("lines_idle", Limits { lines_idle: time, ..base() }),
            ("idle", Limits { idle: time, ..base() }),
            ("write_stall", Limits { write_stall: time, ..base() }),
        ]);
    }
    for (field, limits) in wrong {
        let server = newswire::Server::bind("127.0.0.1:0").expect("there is a free port");
        let error = server.limits(limits).expect_err(field);
        assert_eq!(error.field, field);
        assert!(error.to_string().starts_with(&format!("the limit {field} must be ")), "{error}");
    }
}

/// No sum of a clock and a limit overflows.
#[test]
fn the_largest_limits_are_served_with() {
    let longest = Duration::from_secs(366 * 86_400);
    let address = start(Limits {
        target_bytes: (1 << 30) - 1,
        head_bytes: 1 << 30,
        fields: usize::MAX,
        content_bytes: usize::MAX,
        head_deadline: longest,
        content_deadline: longest,
        lines_idle: longest,
        idle: longest,
        write_stall: longest,
        connections: usize::MAX,
        waiting: usize::MAX,
        streams: usize::MAX,
    });
    let socket = connect(address);
    for (target, answer) in [("/", "5"), ("/lines", "1")] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n");
        send(&socket, head);
        thread::sleep(SHORT / 10);
        send(&socket, "Hello");
        assert_eq!(receive(&socket).expect("it is answered").text(), answer);
    }
}

#[test]
fn a_server_without_streams_answers_everything_else() {
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    router.get("/stream", |_| Response::stream("text/plain", Vec::new(), |_| Ok(())));
    let address = serve_with(Limits { streams: 0, content_bytes: 0, ..lenient() }, router);
    let socket = connect(address);
    send(&socket, b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = receive(&socket).expect("it is answered");
    assert_eq!((answer.status, answer.field("connection")), (503, Some("close")));
    let socket = connect(address);
    send(&socket, GET);
    assert_eq!(receive(&socket).expect("it is answered").status, 200);
}

/// What a connection may cost in memory, by what it is doing, as the documentation of `Limits` says.
#[test]
fn a_connection_costs_no_more_memory_than_the_limits_say() {
    const CONNECTIONS: usize = 200;
    let limits = Limits::default();
    let most = (40 * 1024 + 3 * limits.head_bytes) / 1024;
    let large_head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(limits.head_bytes - 100));
    let content = format!(
        "POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
        limits.content_bytes,
        "x".repeat(limits.content_bytes - 1)
    );
    let fields: String = (0..98).map(|n| format!("X{n:02}: {}\r\n", "x".repeat(143))).collect();
    let many_fields = format!("GET / HTTP/1.1\r\n{fields}");
    let many_segments = format!("GET /{} HTTP/1.1\r\nX: ", "/".repeat(8000));
    let behind_many = format!("POST /channels/c HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n{fields}\r\n1");
    let most_with_content = most + limits.content_bytes / 1024;
    let get = "GET /favicon.svg HTTP/1.1\r\nHost: h\r\n\r\n";
    for (what, bytes, most) in [
        ("silent", "", most),
        ("idle", get, most),
        // Its responses wait for each other in the write buffer, which must not be kept.
        ("idle after many requests", &get.repeat(300), most),
        ("in the middle of a head", &large_head, most),
        ("in the middle of a head of many fields", &many_fields, most),
        ("in the middle of a content behind many fields", &behind_many, most),
        ("in the middle of a head behind many segments", &many_segments, most),
        ("in the middle of a content", &content, most_with_content),
    ] {
        let server = Server::start(&["--publish-open", "--quiet", "--max-connections", "300"]);
        let before_kib = resident_kib(&server);
        let sockets: Vec<_> = (0..CONNECTIONS).map(|_| server.connect()).collect();
        for socket in &sockets {
            send(socket, bytes);
        }
        let mut grown_kib = 0;
        eventually("it comes to rest", || {
            let was = std::mem::replace(&mut grown_kib, resident_kib(&server) - before_kib);
            thread::sleep(SHORT);
            was == grown_kib && server.threads() > CONNECTIONS
        });
        let each_kib = grown_kib / CONNECTIONS;
        assert!(each_kib <= most, "{what}: {each_kib} KiB for each, of {most}");
        // As little as this would not be all of them.
        assert!(each_kib * 4 >= most_of(what, &limits), "{what}: {each_kib} KiB for each");
    }
}

/// What the connection has sent, in KiB: the server must have read it.
fn most_of(what: &str, limits: &Limits) -> usize {
    match what {
        "in the middle of a content" => limits.content_bytes / 1024,
        "in the middle of a head" => limits.head_bytes / 1024,
        _ => 4,
    }
}

fn resident_kib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().next());
    digits.and_then(|digits| digits.parse().ok()).expect("Linux says so")
}

#[test]
fn the_command_line_has_the_default_deadlines() {
    let server = Server::start(&["--quiet"]);
    let (silent, slow) = (server.connect(), server.connect());
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(receive_all(&silent), ""));
        send(&slow, b"GET /");
        let answer = dripping(&slow, b"G", || receive(&slow));
        assert_eq!(answer.expect("it is told why").status, 408);
    });
}

const O_NONBLOCK: u32 = 0o4000;

/// With a listener that does not wait, `accept` would fail again and again.
#[test]
fn a_listener_in_non_blocking_mode_is_served_like_any_other() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.set_nonblocking(true).expect("it is a socket");
    // The mode is that of all descriptors of the socket.
    let other = listener.try_clone().expect("there are descriptors");
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    let server = newswire::Server::from_listener(listener).serve(router).expect("it starts");
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", other.as_raw_fd()));
    let info = info.expect("this is Linux");
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("it has flags");
    let flags = u32::from_str_radix(flags.trim(), 8).expect("they are octal");
    assert_eq!(flags & O_NONBLOCK, 0);
    let socket = connect(server.addr());
    send(&socket, GET);
    assert_eq!(receive(&socket).expect("it is answered").text(), "ok\n");
}
