//! Admission: how many connections a server has, and what waits for a place. See `eviction` for what is evicted.

use crate::limits::{GET, SHORT, assert_silent, lenient, receive, receive_all, send, serve_with};
use crate::server::{Answer, PATIENCE, Server, Stream, ask, connect, eventually, read_opening};
use newswire::http::{Limits, Method, Refusal, Status};
use newswire::{Emitter, Response, Router};
use std::io::{BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often a request that waits for a place looks for a connection to evict.
const LOOK: Duration = Duration::from_millis(10);

/// A server with handlers that run until the test ends them.
pub(crate) struct Held {
    pub(crate) address: SocketAddr,
    /// A message ends one handler.
    end: Sender<()>,
    /// Each handler that has begun sends a message.
    pub(crate) begun: Receiver<()>,
}

/// `GET /` is answered. The others begin, wait for their end, and answer: `GET /works` has sent nothing before its end,
/// `POST /works` has read its content, and `GET /streams` has sent its head.
pub(crate) fn hold(limits: Limits) -> Held {
    let (end, ends) = channel();
    let (begin, begun) = channel();
    let ends = Arc::new(Mutex::new(ends));
    let wait = move || {
        let _ = begin.send(());
        let ends: &Mutex<Receiver<()>> = &ends;
        let _ = ends.lock().expect("no handler panics").recv_timeout(PATIENCE);
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
        Ok::<_, Refusal>(Response::bytes(Status::OK, "text/plain", content))
    });
    router.get("/streams", move |request| {
        let wait = wait.clone();
        Emitter::stream(request, move |mut emitter| {
            wait();
            emitter.send("end")
        })
    });
    Held { address: serve_with(limits, router), end, begun }
}

impl Held {
    fn begin(&self, request: &str) -> TcpStream {
        let socket = connect(self.address);
        send(&socket, request);
        self.begun.recv_timeout(PATIENCE).expect("it begins");
        socket
    }

    fn begin_stream(&self) -> TcpStream {
        self.begin("GET /streams HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }

    pub(crate) fn end_one(&self) {
        self.end.send(()).expect("the server runs");
    }

    /// A connection of its own with a request.
    pub(crate) fn ask(&self) -> TcpStream {
        let socket = connect(self.address);
        send(&socket, GET);
        socket
    }
}

/// A refusal would end an EventSource for good.
#[test]
fn at_the_limit_a_request_waits_until_another_connection_ends() {
    let held = hold(Limits { connections: 3, ..lenient() });
    let streams = [held.begin_stream(), held.begin_stream(), held.begin_stream()];
    let first = held.ask();
    assert_silent(&first, SHORT);
    let second = held.ask();
    assert_silent(&second, SHORT);

    held.end_one();
    let answer = receive(&first).expect("it is answered");
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    // Its connection is idle now, and is evicted for the second one.
    assert_eq!(receive(&second).expect("it is answered").status, 200);
    assert!(receive(&first).is_none());

    held.end_one();
    held.end_one();
    for stream in streams {
        let stream = receive(&stream).expect("it was answered");
        assert!(stream.text().ends_with("data: end\n\n"), "{stream:?}");
    }
}

#[test]
fn waiting_requests_are_answered_in_the_order_of_their_arrival() {
    let held = hold(Limits { connections: 1, ..lenient() });
    let stream = held.begin_stream();
    let work = |_| {
        let socket = connect(held.address);
        send(&socket, b"GET /works HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_silent(&socket, SHORT);
        socket
    };
    let waiting = [1, 2, 3].map(work);
    held.end_one();
    for socket in &waiting {
        held.end_one();
        assert_eq!(receive(socket).expect("it is its turn").text(), "worked\n");
    }
    drop(stream);
}

#[test]
fn a_limit_can_be_reached_and_left_again_and_again() {
    let held = hold(Limits { connections: 1, ..lenient() });
    for _ in 0..20 {
        let stream = held.begin_stream();
        let waiting = held.ask();
        held.end_one();
        assert!(receive(&stream).expect("it was answered").text().ends_with("data: end\n\n"));
        drop(stream);
        assert_eq!(receive(&waiting).expect("it is answered").status, 200);
    }
}

/// An upload that sends little holds its place for half a second, until it is evicted. With one queue, a request behind
/// forty of them would wait for ten seconds at two places.
#[test]
fn a_request_that_is_whole_does_not_wait_for_the_uploads_before_it() {
    let held = hold(Limits { connections: 2, waiting: 100, ..lenient() });
    let upload = "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n1234";
    let uploads: Vec<_> = (0..40).map(|_| connect(held.address)).collect();
    uploads.iter().for_each(|socket| send(socket, upload));
    // The server has the heads by then.
    thread::sleep(SHORT);
    let started = Instant::now();
    assert_eq!(receive(&held.ask()).expect("it is answered").text(), "ok\n");
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(5), "it has waited for {waited:?}");
}

/// Many clients send the head and the content in two writes.
#[test]
fn a_publish_in_two_writes_does_not_wait_for_the_uploads_before_it() {
    let held = hold(Limits { connections: 2, waiting: 100, ..lenient() });
    let upload = "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n1234";
    let uploads: Vec<_> = (0..40).map(|_| connect(held.address)).collect();
    uploads.iter().for_each(|socket| send(socket, upload));
    // They stand in their queue by then.
    thread::sleep(SHORT + Duration::from_secs(1));
    let (started, publish) = (Instant::now(), connect(held.address));
    send(&publish, upload);
    thread::sleep(Duration::from_millis(50));
    send(&publish, "5");
    held.end_one();
    assert_eq!(receive(&publish).expect("it is answered").text(), "12345");
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(4), "it has waited for {waited:?}");
}

/// A request that waits for a place looks for a connection to evict every ten milliseconds. A place that is given back must
/// not be free until then.
#[test]
fn a_place_that_is_given_back_is_taken_at_once() {
    let held = hold(Limits { connections: 1, waiting: 100, ..lenient() });
    eventually("24 requests take the place one after another, in less time than four looks", || {
        let stream = held.begin_stream();
        let waiting = [(); 24].map(|()| connect(held.address));
        for socket in &waiting {
            send(socket, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        }
        thread::sleep(SHORT);
        let started = Instant::now();
        held.end_one();
        receive_all(&stream);
        drop(stream);
        waiting.iter().for_each(|socket| drop(receive_all(socket)));
        started.elapsed() < 4 * LOOK
    });
}

#[test]
fn an_upload_has_its_turn_among_requests_that_are_whole() {
    let held = hold(Limits { connections: 1, ..lenient() });
    let stream = held.begin_stream();
    let work = |line: &str, rest: &str| {
        let socket = connect(held.address);
        let close = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        send(&socket, [line, close, rest].concat());
        assert_silent(&socket, SHORT);
        socket
    };
    let whole = [1, 2].map(|_| work("GET /works ", "\r\n"));
    // Whether content in chunks is whole is not known in advance.
    let upload = work("POST /works ", "Transfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n0\r\n\r\n");
    held.end_one();
    held.end_one();
    assert_eq!(receive(&upload).expect("it is its turn").text(), "1234");
    for socket in &whole {
        held.end_one();
        assert_eq!(receive(socket).expect("it is its turn").text(), "worked\n");
    }
    drop(stream);
}

/// A request that waits for a place is closed after the deadline of a head, and the next one has its turn.
#[test]
fn a_request_does_not_wait_for_ever() {
    let held = hold(Limits { connections: 1, head_deadline: SHORT, ..lenient() });
    let stream = held.begin_stream();
    let (first, second) = (held.ask(), held.ask());
    assert_eq!(receive_all(&first), "");
    assert_eq!(receive_all(&second), "");
    held.end_one();
    drop(stream);
    assert_eq!(ask(held.address, "GET", "/", &[], "").status, 200);
}

/// Only the request that the next place goes to looks for a connection to evict. When it has given up, the next one looks.
#[test]
fn the_next_request_in_the_queue_evicts_when_the_first_has_given_up() {
    let ((begin, begun), (end, ends)) = (channel(), channel::<()>());
    let ends = Mutex::new(ends);
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    router.get("/large", move |_| {
        let _ = begin.send(());
        let _ = ends.lock().expect("no handler panics").recv_timeout(PATIENCE);
        Response::bytes(Status::OK, "text/plain", vec![b'x'; 64 << 20])
    });
    let head_deadline = Duration::from_secs(6);
    let address = serve_with(Limits { connections: 1, head_deadline, ..lenient() }, router);
    let ask = |target: &str| {
        let socket = connect(address);
        send(&socket, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        socket
    };
    let _unread = ask("/large");
    begun.recv_timeout(PATIENCE).expect("it begins");
    let first = ask("/");
    thread::sleep(Duration::from_secs(5));
    let second = ask("/");
    assert_eq!(receive_all(&first), "");
    // From here on the connection with the place makes no progress.
    end.send(()).expect("it waits");
    assert_eq!(receive(&second).expect("there is time left").status, 200);
}

/// And so does the next one when the first has got its place.
#[test]
fn the_next_request_evicts_one_that_has_got_its_place_and_makes_no_progress() {
    let held = hold(Limits { connections: 1, ..lenient() });
    let stream = held.begin_stream();
    let upload = connect(held.address);
    // Its content is not waited for before it stands in the queue.
    let chunked = "POST /works HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n";
    send(&upload, chunked);
    assert_silent(&upload, SHORT);
    let waiting = held.ask();
    assert_silent(&waiting, SHORT);
    held.end_one();
    assert_eq!(receive(&waiting).expect("the upload is evicted").text(), "ok\n");
    drop(stream);
}

/// The places of clients that left while they waited are not lost.
#[test]
fn waiting_clients_that_leave_take_no_place_with_them() {
    let held = hold(Limits { connections: 2, ..lenient() });
    let streams = [held.begin_stream(), held.begin_stream()];
    for how in [Shutdown::Both, Shutdown::Write] {
        for _ in 0..4 {
            held.ask().shutdown(how).expect("it is open");
        }
    }
    held.end_one();
    held.end_one();
    drop(streams);
    for _ in 0..4 {
        assert_eq!(ask(held.address, "GET", "/", &[], "").status, 200);
    }
}

/// Connections without a whole request have a limit of their own, and take no place.
#[test]
fn unfinished_requests_are_evicted_for_newcomers_and_keep_no_request_out() {
    let held = hold(Limits { connections: 1, waiting: 2, ..lenient() });
    let stream = held.begin_stream();
    let unfinished = ["", "GET / HT"].map(|sent| {
        let socket = connect(held.address);
        send(&socket, sent);
        socket
    });
    let asking = [1, 2, 3, 4].map(|_| {
        let socket = connect(held.address);
        send(&socket, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket
    });
    for socket in unfinished {
        assert_eq!(receive_all(&socket), "");
    }
    for socket in &asking {
        assert_silent(socket, SHORT / 4);
    }
    held.end_one();
    assert!(receive(&stream).expect("it was answered").text().contains("end"));
    for socket in &asking {
        assert_eq!(receive(socket).expect("it is answered").status, 200);
    }
}

/// Streams leave some connections over, so that everything else is still answered.
#[test]
fn all_streams_are_counted_and_the_rest_is_answered_when_there_are_too_many() {
    let held = hold(Limits { connections: 20, streams: 2, ..lenient() });
    let mut streams = vec![held.begin_stream(), held.begin_stream()];
    for _ in 0..3 {
        let refused = connect(held.address);
        send(&refused, b"GET /streams HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = receive(&refused).expect("it is answered");
        assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
        assert!(answer.text().starts_with(": ") && answer.text().contains("\nretry: "), "{answer:?}");
        assert!(!answer.text().contains("\n\n"), "{answer:?}");
        // Its place is free at once.
        assert_eq!(answer.field("connection"), Some("close"));
    }
    assert_eq!(ask(held.address, "GET", "/", &[], "").text(), "ok\n");
    held.end_one();
    held.end_one();
    for stream in streams.drain(..) {
        assert!(receive(&stream).expect("it was answered").text().ends_with("data: end\n\n"));
    }
    // Both are free again.
    drop((held.begin_stream(), held.begin_stream()));
}

/// A proxy that gets an event in one read with the head may hold it until the next bytes come.
#[test]
fn the_first_event_does_not_arrive_together_with_the_opening() {
    let mut router = Router::new();
    router.get("/", |request| Emitter::stream(request, |mut emitter| emitter.send("first")));
    assert_opening_is_alone(serve_with(lenient(), router), "/");
}

#[test]
fn a_replay_arrives_together_with_the_opening_but_not_through_a_proxy_that_may_hold_it() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    assert_eq!(ask(server.address, "POST", "/channels/c", &[], "first").status, 200);
    let target = "/channels/c?last_event_id=earliest";
    assert_eq!(openings_alone(server.address, target, ""), 0);
    for field in ["X-Forwarded-For: 192.0.2.1\r\n", "Via: 1.1 cache\r\n", "Forwarded: for=192.0.2.1\r\n"] {
        let alone = openings_alone(server.address, target, field);
        assert!(alone >= 50, "only {alone} of 100 openings arrived alone");
    }
}

/// A client that waits for the head and reads soon after it gets the opening alone.
fn assert_opening_is_alone(address: SocketAddr, target: &str) {
    let alone = openings_alone(address, target, "");
    assert!(alone >= 50, "only {alone} of 100 openings arrived alone");
}

/// Of a hundred clients, how many read the opening without the first event.
fn openings_alone(address: SocketAddr, target: &str, field: &str) -> usize {
    let mut alone = 0;
    for _ in 0..100 {
        let mut socket = connect(address);
        send(&socket, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n"));
        socket.peek(&mut [0]).expect("the head arrives");
        thread::sleep(Duration::from_millis(2));
        let mut bytes = [0; 4096];
        let read = socket.read(&mut bytes).expect("it is here");
        let text = String::from_utf8_lossy(&bytes[..read]);
        assert!(text.contains("\nretry: "), "{text}");
        alone += usize::from(!text.contains("data: first"));
    }
    alone
}

/// One write for many small responses: while a handler runs, the response to the request before it has not left yet.
#[test]
fn responses_to_pipelined_requests_leave_together() {
    let held = hold(lenient());
    let work = "GET /works HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let socket = held.begin(&[str::from_utf8(GET).expect("it is ASCII"), work].concat());
    assert_silent(&socket, SHORT);
    held.end_one();
    let mut reader = BufReader::new(&socket);
    for text in ["ok\n", "worked\n"] {
        assert_eq!(Answer::read(&mut reader, "GET").expect("it is answered").text(), text);
    }
}

/// Uploads have a limit of their own.
#[test]
fn uploads_that_last_leave_room_for_streams() {
    let server = Server::start(&["--publish-open", "--quiet", "--max-connections", "20", "--max-subscribers", "1"]);
    let upload =
        b"POST /channels/c?lines HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n";
    // Half of the connections that are not for streams.
    let mut uploads: Vec<_> = (0..9).map(|_| server.connect()).collect();
    for socket in &uploads {
        send(socket, upload);
    }
    eventually("each has published", || server.metric("newswire_events_published_total") == 9);
    let one_more = server.connect();
    send(&one_more, upload);
    assert_eq!(receive(&one_more).expect("it is answered").status, 503);
    let mut stream = Stream::resume(server.address, "c", "earliest");
    assert_eq!(stream.next().expect("there is room").data, "a");
    uploads.clear();
    eventually("their permits are free", || ask(server.address, "POST", "/channels/c?lines", &[], "b\n").status == 200);
}

#[test]
fn the_command_line_sets_the_limit_of_connections() {
    let server = Server::start(&["--max-connections", "2", "--max-subscribers", "2", "--quiet"]);
    let words = "GET /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let [one, _other] = [1, 2].map(|_| {
        let mut stream = server.connect();
        send(&stream, words);
        read_opening(&mut stream);
        stream
    });
    let waiting = server.connect();
    send(&waiting, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_silent(&waiting, SHORT);
    drop(one);
    assert_eq!(receive(&waiting).expect("it is answered").text(), "ok\n");
    // The connection that has been answered is idle, and is evicted for the one that asks.
    assert_eq!(server.metric("newswire_connections_evicted_total"), 1);
}

/// At the limit, with every kind of connection that waits, the server sleeps until something happens.
#[test]
fn connections_that_wait_are_closed_in_time_and_cost_no_processor_time() {
    let server = Server::start(&["--max-connections", "8", "--max-subscribers", "8", "--quiet"]);
    let streams: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = server.connect();
            send(&stream, b"GET /channels/c HTTP/1.1\r\nHost: localhost\r\n\r\n");
            read_opening(&mut stream);
            stream
        })
        .collect();
    let unfinished = format!("GET /{}", "x".repeat(3_995));
    let (before, started) = (processor_time(&server), Instant::now());
    let waiting: Vec<_> = (0..400)
        .map(|number| {
            let socket = server.connect();
            send(&socket, if number % 2 == 0 { GET } else { unfinished.as_bytes() });
            socket
        })
        .collect();
    for socket in &waiting {
        receive_all(socket);
    }
    let (used, time) = (processor_time(&server) - before, started.elapsed());
    println!("{used:?} of processor time in {time:?}");
    assert!(used * 20 < time, "{used:?} of processor time in {time:?}");
    drop(streams);
}

/// What the process has used in all, in user and in kernel mode.
fn processor_time(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let fields = stat.rsplit_once(')').expect("the name is in parentheses").1;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    // A tick is a hundredth of a second wherever Linux runs.
    Duration::from_millis(ticks * 10)
}
