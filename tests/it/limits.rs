//! Limits and deadlines: what is slow, silent, too much, or gone costs what it costs and no more.
//! Most of it runs in this very process, where the limits can be short.

use crate::library::endless;
use crate::server::{Answer, PATIENCE, Server, Stream, ask, connect, eventually, exchange, serve};
use newswire::http::Limits;
use newswire::http::{Method, Status};
use newswire::{Emitter, Response, Router};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A limit that is met in a test.
const SHORT: Duration = Duration::from_millis(300);

/// A limit that is not.
const LONG: Duration = Duration::from_secs(3600);

/// Limits that nothing here meets.
fn lenient() -> Limits {
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
fn start(limits: Limits) -> SocketAddr {
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    router.route(Method::Post, "/", |request| {
        let length = request.content()?.len();
        Ok::<_, newswire::http::Refusal>(Response::text(Status::OK, length.to_string()))
    });
    router.route(Method::Post, "/lines", |request| {
        let mut count = 0;
        request.lines(|_| {
            count += 1;
            Ok(())
        })?;
        Ok::<_, newswire::http::Refusal>(Response::text(Status::OK, count.to_string()))
    });
    serve(router, |server| server.limits(limits).expect("they are in range"))
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn say(mut socket: &TcpStream, bytes: &[u8]) {
    socket.write_all(bytes).expect("the server reads");
}

fn hear(socket: &TcpStream) -> Option<Answer> {
    Answer::read(&mut BufReader::new(socket), "GET")
}

/// All that comes until the end. A reset is one too, for who was cut off.
fn hear_end(mut socket: &TcpStream) -> String {
    let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match socket.read(&mut piece) {
            Ok(0) => break,
            Ok(bytes) => heard.extend_from_slice(&piece[..bytes]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("it did not end: {error}"),
        }
    }
    String::from_utf8_lossy(&heard).into_owned()
}

/// Nothing is heard from the server for `time`, and the connection is there all the while.
fn assert_silent(mut socket: &TcpStream, time: Duration) {
    let waited = socket.set_read_timeout(Some(time));
    let heard = waited.and_then(|()| socket.read(&mut [0]));
    let kind = heard.map_err(|error| error.kind());
    assert!(
        matches!(kind, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        "it is not silent: {kind:?}"
    );
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
}

/// Sends `piece` again and again, a little apart, while `hear` waits.
fn dripping<T>(mut socket: &TcpStream, piece: &[u8], hear: impl FnOnce() -> T) -> T {
    let (heard, started) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !heard.load(Relaxed) && started.elapsed() < PATIENCE {
                if socket.write_all(piece).is_err() {
                    return;
                }
                thread::sleep(SHORT / 20);
            }
        });
        let result = hear();
        heard.store(true, Relaxed);
        result
    })
}

fn assert_timed_out(answer: Option<Answer>, socket: &TcpStream) {
    let answer = answer.expect("it is told why");
    assert_eq!(answer.status, 408, "{answer:?}");
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    assert!(hear(socket).is_none());
}

/// One byte now and then keeps a read from timing out, and a connection for good, unless the head
/// has a deadline as a whole (Slowloris).
#[test]
fn a_slow_head_is_408_however_it_drips() {
    let address = start(Limits { head_deadline: SHORT, ..lenient() });
    for (start, drop) in [
        (&b""[..], &b"G"[..]),
        (b"GET /", b"x"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"x"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n"),
        // Behind a request that was answered
        (GET, b"G"),
    ] {
        let socket = connect(address);
        say(&socket, start);
        if start == GET {
            assert_eq!(hear(&socket).expect("it is answered").status, 200);
        }
        let answer = dripping(&socket, drop, || hear(&socket));
        assert_timed_out(answer, &socket);
    }
}

#[test]
fn a_slow_content_is_408_however_it_drips() {
    let address = start(Limits { content_deadline: SHORT, ..lenient() });
    for (fields, drop) in [
        ("Content-Length: 500000", &b"x"[..]),
        ("Transfer-Encoding: chunked", b"1\r\nx\r\n"),
        ("Content-Length: 5", b""),
        ("Transfer-Encoding: chunked", b""),
    ] {
        let socket = connect(address);
        let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
        say(&socket, head.as_bytes());
        let answer = dripping(&socket, drop, || hear(&socket));
        assert_timed_out(answer, &socket);
    }
}

#[test]
fn lines_may_go_on_but_not_fall_silent() {
    let address = start(Limits { lines_idle: SHORT, content_deadline: SHORT, ..lenient() });
    let socket = connect(address);
    say(&socket, b"POST /lines HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    // Several times as long as either limit, and no pause as long as one
    dripping(&socket, b"2\r\nx\n\r\n", || assert_silent(&socket, 4 * SHORT));
    assert_timed_out(hear(&socket), &socket);
}

#[test]
fn who_says_nothing_is_closed_without_a_word() {
    let address = start(Limits { head_deadline: SHORT, ..lenient() });
    let socket = connect(address);
    assert_eq!(hear_end(&socket), "");

    // Empty lines are nothing said.
    let socket = connect(address);
    assert_eq!(dripping(&socket, b"\r\n", || hear_end(&socket)), "");

    // Nor with more than the answer, where the content that nobody wants does not come.
    let socket = connect(address);
    say(&socket, b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n1234");
    assert_eq!(hear(&socket).expect("it is answered").status, 200);
    assert!(hear(&socket).is_none());
}

#[test]
fn a_kept_connection_may_be_idle_for_as_long_as_it_says() {
    // The deadline of a head does not run before its first byte.
    let patient = start(Limits { head_deadline: SHORT, ..lenient() });
    let impatient = start(Limits { idle: SHORT, ..lenient() });
    let (kept, closed) = (connect(patient), connect(impatient));
    for socket in [&kept, &closed] {
        say(socket, GET);
        let answer = hear(socket).expect("it is answered");
        assert_eq!((answer.status, answer.field("connection")), (200, None));
    }
    assert_eq!(hear_end(&closed), "");
    assert_silent(&kept, 3 * SHORT);
    say(&kept, GET);
    assert_eq!(hear(&kept).expect("it is answered").status, 200);
}

/// Who sends its request and closes its writing half still reads.
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
        Ok::<_, newswire::http::Refusal>(Response::bytes(Status::OK, "text/plain", content))
    });
    let address = serve(router, |server| server);

    let socket = connect(address);
    say(&socket, GET);
    socket.shutdown(Shutdown::Write).expect("it is open");
    let stream = hear(&socket).expect("it is answered");
    let data = |number| format!("data: {number}\n\n");
    assert!(stream.text().ends_with(&(0..10).map(data).collect::<String>()));

    let socket = connect(address);
    say(&socket, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\ncontent");
    socket.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(hear(&socket).expect("it is answered").text(), "content");
    assert!(hear(&socket).is_none());
}

/// "If a server performs an immediate close of a TCP connection, there is a significant risk that
/// the client will not be able to read the last HTTP response" (RFC 9112, 9.6).
#[test]
fn a_refusal_reaches_who_is_still_sending() {
    let address = start(lenient());
    let length = 10_000_000;
    let contents = [
        (format!("Content-Length: {length}"), vec![b'x'; length]),
        (
            "Transfer-Encoding: chunked".to_owned(),
            [format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length]].concat(),
        ),
    ];
    for (fields, content) in contents {
        let mut socket = connect(address);
        let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
        say(&socket, head.as_bytes());
        // The server may close before all of it is sent.
        let _ = socket.write_all(&content);
        assert_eq!(hear(&socket).expect("it is told why").status, 413);
    }
}

/// Content that no handler wants is skipped to find the next request, but not for ever.
#[test]
fn content_that_nobody_wants_is_not_read_to_an_end_that_never_comes() {
    let address = start(lenient());
    let socket = connect(address);
    say(&socket, b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
    let heard = dripping(&socket, &chunk, || hear_end(&socket));
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
    assert_eq!(heard.matches("HTTP/1.1").count(), 1, "{heard}");
}

/// A server with streams that last until the test says so.
struct Held {
    address: SocketAddr,
    /// A message ends one of them.
    end: Sender<()>,
    /// A message is sent by each that has begun.
    begun: Receiver<()>,
}

/// `GET /` is answered. The others begin, wait for their end, and answer: `GET /works` says nothing
/// before its end, `POST /works` has its content by then, and `GET /streams` has sent its head.
fn hold(limits: Limits) -> Held {
    let (end, ends) = channel();
    let (begin, begun) = channel();
    let ends = Arc::new(Mutex::new(ends));
    let wait = move || {
        let _ = begin.send(());
        let ends: &Mutex<Receiver<()>> = &ends;
        let _ = ends.lock().expect("nobody panics").recv_timeout(PATIENCE);
    };
    let (in_get, in_post) = (wait.clone(), wait.clone());
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    router.get("/works", move |_| {
        in_get();
        Response::text(Status::OK, "worked\n")
    });
    router.route(Method::Post, "/works", move |request| {
        let content = request.content()?;
        in_post();
        Ok::<_, newswire::http::Refusal>(Response::bytes(Status::OK, "text/plain", content))
    });
    router.get("/streams", move |request| {
        let wait = wait.clone();
        Emitter::stream(request, move |mut emitter| {
            wait();
            emitter.send("end")
        })
    });
    let address = serve(router, |server| server.limits(limits).expect("they are in range"));
    Held { address, end, begun }
}

impl Held {
    fn begin(&self, request: &str) -> TcpStream {
        let socket = connect(self.address);
        say(&socket, request.as_bytes());
        self.begun.recv_timeout(PATIENCE).expect("it begins");
        socket
    }

    fn begin_stream(&self) -> TcpStream {
        self.begin("GET /streams HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }

    fn end_one(&self) {
        self.end.send(()).expect("the server runs");
    }
}

/// One connection more is not refused, which would end an EventSource for good: it waits.
#[test]
fn at_the_limit_the_next_connection_waits_until_one_ends() {
    let held = hold(Limits { connections: 3, ..lenient() });
    let streams = [held.begin_stream(), held.begin_stream(), held.begin_stream()];
    let knocking = [connect(held.address), connect(held.address)];
    for socket in &knocking {
        say(socket, GET);
    }
    assert_silent(&knocking[0], SHORT);
    assert_silent(&knocking[1], SHORT);

    held.end_one();
    let answer = hear(&knocking[0]).expect("it is answered");
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    let [first, second] = knocking;
    drop(first);
    assert_eq!(hear(&second).expect("it is answered").status, 200);

    // Nobody who streams was disturbed.
    held.end_one();
    held.end_one();
    for stream in streams {
        let stream = hear(&stream).expect("it was answered");
        assert!(stream.text().ends_with("data: end\n\n"), "{stream:?}");
    }
}

#[test]
fn a_limit_can_be_reached_and_released_again_and_again() {
    let held = hold(Limits { connections: 1, ..lenient() });
    for _ in 0..20 {
        let stream = held.begin_stream();
        let knocking = connect(held.address);
        say(&knocking, GET);
        held.end_one();
        assert!(hear(&stream).expect("it was answered").text().ends_with("data: end\n\n"));
        drop(stream);
        assert_eq!(hear(&knocking).expect("it is answered").status, 200);
    }
}

/// Silence must not keep out who has something to say.
#[test]
fn at_the_limit_who_is_silent_gives_way() {
    let limits = || Limits { connections: 1, ..lenient() };
    let silences = [
        ("from the start", ""),
        ("within the request line", "GET / HT"),
        ("within the fields", "GET / HTTP/1.1\r\nHost: localhost\r\n"),
        ("behind an answer", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (
            "within the content",
            "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n1234",
        ),
        (
            "within content that is skipped",
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n1234",
        ),
    ];
    thread::scope(|scope| {
        for (name, said) in silences {
            scope.spawn(move || {
                let held = hold(limits());
                let silent = connect(held.address);
                say(&silent, said.as_bytes());
                if said.starts_with("GET") && said.contains("\r\n\r\n") {
                    let answer = hear(&silent).expect("it is answered");
                    assert_eq!(answer.status, 200, "{name}");
                }
                let answer = ask(held.address, "GET", "/", &[], "");
                assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{name}");
                assert!(!hear_end(&silent).contains("200 OK"), "{name}");
            });
        }
    });
}

/// Of those who wait, too, who has asked goes first.
#[test]
fn who_has_asked_goes_before_who_says_nothing() {
    let server = Server::start(&["--max-connections", "1", "--quiet"]);
    let stream = Stream::open(server.address, "/sse/mvc/words", &[]);
    let silent: Vec<_> = ["", "GET / HT", "\r\n\r\n"]
        .iter()
        .map(|said| {
            let silent = server.connect();
            say(&silent, said.as_bytes());
            silent
        })
        .collect();
    let asking = server.connect();
    say(&asking, b"GET /metrics HTTP/1.1\nHost: localhost\n\n");
    assert_silent(&asking, SHORT);
    drop(stream);
    // Had they gone first, each would have had to give way.
    let answer = hear(&asking).expect("it is answered");
    let gave_way = "\nnewswire_connections_gave_way_total 0\n";
    assert!(answer.text().contains(gave_way), "{answer:?}");
    assert!(answer.text().contains("\nnewswire_connections_waiting 3\n"));
    drop((silent, asking));
}

#[test]
fn where_as_many_wait_as_may_silence_gives_way_there_too() {
    let held = hold(Limits { connections: 1, waiting: 2, ..lenient() });
    let stream = held.begin_stream();
    let silent = [connect(held.address), connect(held.address)];
    let asking = [1, 2, 3, 4].map(|_| {
        let asking = connect(held.address);
        say(&asking, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        asking
    });
    for socket in silent {
        assert_eq!(hear_end(&socket), "");
    }
    assert_silent(&asking[0], SHORT);
    held.end_one();
    assert!(hear(&stream).expect("it was answered").text().contains("end"));
    for socket in &asking {
        assert_eq!(hear(socket).expect("it is answered").status, 200);
    }
}

/// Only silence gives way. A handler at work, and a stream that has nothing to say now, are none.
#[test]
fn at_the_limit_who_is_busy_does_not_give_way() {
    // Longer than silence is borne at the limit
    let time = Duration::from_secs(3);
    let works = |request: &'static [&'static str]| {
        move || {
            let held = hold(Limits { connections: 1, ..lenient() });
            let busy = connect(held.address);
            for (at, piece) in request.iter().enumerate() {
                if at > 0 {
                    // The pieces arrive one by one, so that the server has waited for each.
                    thread::sleep(SHORT);
                }
                say(&busy, piece.as_bytes());
            }
            held.begun.recv_timeout(PATIENCE).expect("it begins");
            let knocking = connect(held.address);
            say(&knocking, GET);
            assert_silent(&knocking, time);
            held.end_one();
            let answer = hear(&busy).expect("it was not cut off");
            assert_eq!(answer.status, 200, "{request:?}");
            drop(busy);
            assert_eq!(hear(&knocking).expect("it is answered").status, 200);
        }
    };
    thread::scope(|scope| {
        let all = [
            works(&["GET /works HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"]),
            works(&["GET /works HTTP/1.1\r\nHost: localhost\r\n", "\r\n"]),
            works(&["GET /streams HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
            works(&[
                "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n",
                "12",
                "34",
            ]),
        ];
        let running = all.map(|work| scope.spawn(work));
        for one in running {
            one.join().expect("its connection was let live");
        }
    });
}

#[test]
fn who_takes_nothing_is_closed_and_who_takes_little_is_not() {
    let limits = Limits { write_stall: 2 * SHORT, ..lenient() };
    let data = Box::leak("x".repeat(64 * 1024).into_boxed_str());
    let (address, outcomes) = endless(limits, data, Duration::ZERO);
    let stalled = connect(address);
    say(&stalled, GET);
    let kind = outcomes.recv_timeout(PATIENCE).expect("a send has failed");
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind:?}");

    let mut slow = connect(address);
    say(&slow, GET);
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

/// A large answer of known length has the same bound.
#[test]
fn a_file_that_nobody_takes_frees_its_place() {
    let mut router = Router::new();
    let large = vec![b'x'; 64 * 1024 * 1024];
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    router.get("/large", move |_| {
        Response::bytes(Status::OK, "application/octet-stream", large.clone())
    });
    let limits = Limits { write_stall: SHORT, connections: 1, ..lenient() };
    let address = serve(router, |server| server.limits(limits).expect("they are in range"));
    let stalled = connect(address);
    say(&stalled, b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(ask(address, "GET", "/", &[], "").text(), "ok\n");
}

/// However little it takes at a time, so that it never stalls.
#[test]
fn at_the_limit_who_takes_an_answer_slowly_gives_way() {
    const LARGE: usize = 64 * 1024 * 1024;
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    router.get("/large", |_| {
        Response::bytes(Status::OK, "application/octet-stream", vec![b'x'; LARGE])
    });
    let limits = Limits { write_stall: 3 * SHORT, connections: 1, ..lenient() };
    let address = serve(router, |server| server.limits(limits).expect("they are in range"));
    let mut slow = connect(address);
    say(&slow, b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let taken = thread::spawn(move || {
        let (mut piece, mut taken) = (vec![0; 64 * 1024], 0);
        while let Ok(bytes @ 1..) = slow.read(&mut piece) {
            taken += bytes;
            thread::sleep(Duration::from_millis(50));
        }
        taken
    });
    assert_eq!(ask(address, "GET", "/", &[], "").text(), "ok\n");
    assert!(taken.join().expect("it only reads") < LARGE);
}

/// Uploads that last are counted by themselves.
#[test]
fn an_upload_takes_no_subscribers_place() {
    let server = Server::start(&[
        "--publish-open",
        "--quiet",
        "--max-connections",
        "20",
        "--max-subscribers",
        "1",
    ]);
    let upload = b"POST /channels/c?lines HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n";
    // Half of the connections that no subscriber may take.
    let mut uploads: Vec<_> = (0..9).map(|_| server.connect()).collect();
    for socket in &uploads {
        say(socket, upload);
    }
    eventually("each has published", || server.metric("newswire_events_published_total") == 9);
    let one_more = server.connect();
    say(&one_more, upload);
    assert_eq!(hear(&one_more).expect("it is answered").status, 503);
    let mut stream = Stream::resume(server.address, "c", "earliest");
    assert_eq!(stream.next().expect("there is room").data, "a");
    uploads.clear();
    eventually("their places are free", || {
        ask(server.address, "POST", "/channels/c?lines", &[], "b\n").status == 200
    });
}

#[test]
fn a_thousand_connections_leave_nothing_behind() {
    let server = Server::start(&["--quiet"]);
    let words = b"GET /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // What is started once, is started now.
    server.exchange("GET / HTTP/1.0\r\n\r\n");
    let at_rest = |server: &Server| (server.threads(), server.descriptors());
    eventually("the first connection ends", || server.metric("newswire_connections") == 1);
    let before = {
        let mut before = at_rest(&server);
        eventually("it comes to rest", || {
            let was = std::mem::replace(&mut before, at_rest(&server));
            before == was
        });
        before
    };
    for _ in 0..4 {
        let mut open = Vec::new();
        for number in 0..250 {
            let mut socket = server.connect();
            let said = match number % 5 {
                0 => Ok(()),
                1 => socket.write_all(b"GET / HT"),
                // Unread answers make the close a reset.
                2 => socket.write_all(&GET.repeat(3)),
                3 => socket.write_all(words),
                _ => socket.write_all(words).map(|()| socket.read(&mut [0]).map_or((), |_| ())),
            };
            said.expect("the server reads");
            open.push(socket);
        }
    }
    eventually("threads and descriptors are given back", || {
        let now = at_rest(&server);
        now.0 <= before.0 && now.1 <= before.1
    });
    assert!(server.metric("newswire_connections_accepted_total") >= 1_000);
    assert_eq!(server.metric("newswire_accept_errors_total"), 0);
    eventually("only the one that asks is left", || server.metric("newswire_connections") == 1);
}

#[test]
fn the_command_lines_limit_holds_and_silence_gives_way_there_too() {
    let server = Server::start(&["--max-connections", "2", "--quiet"]);
    let words = "GET /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let streams = [server.connect(), server.connect()];
    for stream in &streams {
        say(stream, words.as_bytes());
        let mut byte = [0];
        (&mut &*stream).read_exact(&mut byte).expect("it is answered");
    }
    let knocking = server.connect();
    say(&knocking, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_silent(&knocking, SHORT);
    let [one, other] = streams;
    drop(one);
    assert_eq!(hear(&knocking).expect("it is answered").text(), "ok\n");
    drop(other);

    let silent = [server.connect(), server.connect()];
    let before = server.metric("newswire_connections_gave_way_total");
    assert!(before > 0, "who asks has knocked, and two or three were silent");
    drop(silent);
}

#[test]
fn the_commands_deadlines_are_those_of_its_limits() {
    let server = Server::start(&["--quiet"]);
    let (silent, slow) = (server.connect(), server.connect());
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(hear_end(&silent), ""));
        say(&slow, b"GET /");
        let answer = dripping(&slow, b"G", || hear(&slow));
        assert_timed_out(answer, &slow);
    });
}

/// Who runs a process; `self` is this one.
fn user_of(process: impl std::fmt::Display) -> u32 {
    let directory = std::fs::metadata(format!("/proc/{process}"));
    directory.expect("this is Linux, and it runs").uid()
}

/// A command of this user, who may well be called nobody.
fn run_as(user: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    if user == user_of("self") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

/// Changes what a running process may have: `nofile` descriptors, or `nproc` threads of its user.
pub(crate) fn limit(server: &Server, resource: &str, most: usize) {
    let status = run_as(user_of(server.pid()), "prlimit")
        .arg(format!("--pid={}", server.pid()))
        .arg(format!("--{resource}={most}:"))
        .status()
        .expect("util-linux is installed");
    assert!(status.success());
}

/// The accept loop must not die of it, nor spin.
#[test]
fn without_descriptors_the_server_waits_says_so_and_goes_on() {
    let server = Server::start(&["--quiet"]);
    let mut kept = Stream::open(server.address, "/lab?count=1000&interval=100", &[]);
    kept.next().expect("it begins");
    limit(&server, "nofile", server.descriptors());

    let waiting: Vec<TcpStream> = (0..20)
        .map(|_| {
            let socket = server.connect();
            say(&socket, GET);
            socket
        })
        .collect();
    eventually("it says what is wrong", || {
        server.said().contains("newswire: cannot accept a connection: ")
    });
    assert_silent(&waiting[19], 3 * SHORT);
    // Who is in, is served.
    kept.next().expect("it goes on");
    assert!(server.said().lines().count() < 50, "{}", server.said());

    // One place more: they are served one after another, each when the one before it has left.
    limit(&server, "nofile", server.descriptors() + 1);
    for socket in &waiting {
        assert_eq!(hear(socket).expect("it is answered").status, 200);
        socket.shutdown(Shutdown::Both).expect("it is open");
    }
    drop(kept);
    let errors = server.metric("newswire_accept_errors_total");
    assert!(errors > 0, "they are counted");
    assert!(server.said().lines().count() as u64 >= errors, "{}", server.said());
}

/// A server of an ordinary user, since the system refuses root no thread.
fn start_as_ordinary_user() -> Server {
    let arguments = ["--listen", "127.0.0.1:0", "--quiet"];
    if user_of("self") != 0 {
        return Server::start(&arguments[2..]);
    }
    // Where that user can reach it
    let copy = std::env::temp_dir().join(format!("newswire-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_newswire"), &copy).expect("there is room");
    let mut command = run_as(65534, &copy);
    command.args(arguments);
    let server = Server::spawn(command);
    std::fs::remove_file(&copy).expect("it is there");
    server
}

#[test]
fn without_threads_the_server_waits_says_so_and_goes_on() {
    let server = start_as_ordinary_user();
    let kept = server.connect();
    say(&kept, GET);
    assert_eq!(hear(&kept).expect("it is answered").status, 200);

    limit(&server, "nproc", 0);
    let waiting = server.connect();
    say(&waiting, GET);
    eventually("it says what is wrong", || {
        server.said().contains("newswire: cannot start a thread: ")
    });
    say(&kept, GET);
    assert_eq!(hear(&kept).expect("it is answered").status, 200);

    limit(&server, "nproc", 1_000);
    let page = exchange(server.address, "GET / HTTP/1.0\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    let refused = server.metric("newswire_threads_refused_total");
    assert!(refused > 0 && refused < 50, "{refused}");
    assert_eq!(server.metric("newswire_panics_total"), 0);
}

#[test]
fn a_low_descriptor_limit_is_said_and_lived_with() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]).args([
        env!("CARGO_BIN_EXE_newswire"),
        "--listen",
        "127.0.0.1:0",
        "--quiet",
    ]);
    let server = Server::spawn(command);
    assert!(server.greeting.contains("descriptor limit of 40"), "{}", server.greeting);
    for _ in 0..3 {
        let sockets: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
        for (number, socket) in sockets.iter().enumerate() {
            if number % 2 == 0 {
                say(socket, GET);
            }
        }
        drop(sockets);
        let page = exchange(server.address, "GET / HTTP/1.0\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    }
    let descriptors = server.descriptors();
    assert!(descriptors < 40, "{descriptors}");
}
