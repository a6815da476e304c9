//! Eviction: at the limit, a connection that keeps the server waiting is closed for another one, and no other is.

use crate::admission::hold;
use crate::limits::{GET, SHORT, assert_silent, dripping, lenient, receive, receive_all, send, serve_with};
use crate::server::{PATIENCE, ask, connect};
use newswire::http::{Limits, Method, Status};
use newswire::{Response, Router};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn at_the_limit_a_connection_that_makes_no_progress_is_evicted() {
    let cases = [
        ("idle", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("in a second head", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT"),
        ("in a content", "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n1234"),
        (
            "in a content that it was told to send",
            "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n1234",
        ),
        ("in a content that is skipped", "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n1234"),
    ];
    for (name, sent) in cases {
        let held = hold(Limits { connections: 1, ..lenient() });
        let evicted = connect(held.address);
        send(&evicted, sent);
        if sent.starts_with("GET") {
            assert_eq!(receive(&evicted).expect("it is answered").status, 200, "{name}");
        } else {
            // The server has the head by then.
            thread::sleep(SHORT);
        }
        assert_eq!(ask(held.address, "GET", "/", &[], "").text(), "ok\n", "{name}");
        assert!(!receive_all(&evicted).contains("200 OK"), "{name}");
    }
}

/// The next packet of a client may take some time.
#[test]
fn at_the_limit_a_connection_is_not_evicted_as_soon_as_the_server_waits_for_it() {
    let is_answered = |_| {
        let held = hold(Limits { connections: 1, ..lenient() });
        let mut slow = connect(held.address);
        send(&slow, "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n12");
        let waiting = held.ask();
        waiting.set_read_timeout(Some(Duration::from_millis(200))).expect("not zero");
        let is_kept = waiting.peek(&mut [0]).is_err() && slow.write_all(b"34").is_ok();
        let has_begun = held.begun.recv_timeout(SHORT).is_ok();
        held.end_one();
        is_kept && has_begun
    };
    // A busy machine may take longer than half a second for that.
    assert!((0..10).any(is_answered));
}

/// Bytes that arrive buy no time. Otherwise a few slow senders would keep all places for as long as their deadlines are.
#[test]
fn at_the_limit_a_request_that_arrives_slowly_is_evicted_however_much_it_sends() {
    let limits = Limits { connections: 1, head_deadline: Duration::from_secs(20), head_bytes: 1 << 20, ..lenient() };
    let get = str::from_utf8(GET).expect("it is ASCII");
    for start in [
        "POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n",
        &(get.to_owned() + "GET / HTTP/1.1\r\nX: "),
    ] {
        let held = hold(limits.clone());
        let slow = connect(held.address);
        send(&slow, start);
        // The server has the head by then.
        thread::sleep(SHORT);
        // This request is closed after 20 seconds if there is no place for it.
        let answer = dripping(&slow, &[b'x'; 20], || receive(&held.ask()));
        assert_eq!(answer.expect("the slow one is evicted").text(), "ok\n");
        assert!(!receive_all(&slow).contains(" 408 "), "its own deadline has ended it");
    }
}

/// The eviction of a connection without a place would free none.
#[test]
fn an_unfinished_request_is_not_evicted_for_a_place() {
    let held = hold(Limits { connections: 1, ..lenient() });
    let unfinished = connect(held.address);
    send(&unfinished, "GET / HT");
    thread::sleep(2 * SHORT);
    let evicted = held.ask();
    assert_eq!(receive(&evicted).expect("it is answered").status, 200);
    assert_eq!(ask(held.address, "GET", "/", &[], "").status, 200);
    assert_eq!(receive_all(&evicted), "");
    send(&unfinished, "TP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(receive(&unfinished).expect("it was not evicted").status, 200);
}

/// After the last response the server only waits for the client to close.
#[test]
fn a_connection_that_had_its_last_response_is_evicted_before_an_idle_one() {
    let held = hold(Limits { connections: 2, ..lenient() });
    let idle = held.ask();
    assert_eq!(receive(&idle).expect("it is answered").status, 200);
    thread::sleep(3 * SHORT);
    let last = connect(held.address);
    send(&last, "GET / HTTP/1.0\r\n\r\n");
    assert_eq!(receive(&last).expect("it is answered").status, 200);
    assert_eq!(receive_all(&last), "", "the server has closed its half");
    assert_eq!(ask(held.address, "GET", "/", &[], "").status, 200);
    send(&idle, GET);
    assert_eq!(receive(&idle).expect("it was not evicted").status, 200);
}

/// A handler at work is never evicted, and neither is a stream that its client has read up to the end.
#[test]
fn at_the_limit_a_busy_connection_is_not_evicted() {
    // Longer than a connection without progress is safe
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
                send(&busy, piece);
            }
            held.begun.recv_timeout(PATIENCE).expect("it begins");
            let waiting = held.ask();
            assert_silent(&waiting, time);
            held.end_one();
            let answer = receive(&busy).expect("it was not evicted");
            assert_eq!(answer.status, 200, "{request:?}");
            drop(busy);
            assert_eq!(receive(&waiting).expect("it is answered").status, 200);
        }
    };
    thread::scope(|scope| {
        scope.spawn(works(&["GET /works HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"]));
        scope.spawn(works(&["GET /works HTTP/1.1\r\nHost: localhost\r\n", "\r\n"]));
        scope.spawn(works(&["GET /streams HTTP/1.1\r\nHost: localhost\r\n\r\n"]));
        scope.spawn(works(&["POST /works HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n", "12", "34"]));
    });
}

/// A connection that asks again and again is never idle long enough to be evicted.
#[test]
fn a_kept_connection_gives_its_place_to_a_waiting_request_when_it_is_answered() {
    let held = hold(Limits { connections: 1, ..lenient() });
    let kept = connect(held.address);
    send(&kept, GET);
    assert_eq!(receive(&kept).expect("it is answered").field("connection"), None);
    let waiting = held.ask();
    let started = Instant::now();
    loop {
        send(&kept, GET);
        let answer = receive(&kept).expect("it is not evicted");
        assert_eq!(answer.text(), "ok\n");
        // A client must know that its next request would not be answered.
        if answer.field("connection") == Some("close") {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "it is kept for ever");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(receive(&waiting).expect("it is answered").status, 200);
    assert!(receive(&kept).is_none());
}

/// Its client cannot be told that it was carried out, and repeats it.
#[test]
fn a_request_that_arrives_in_the_moment_of_the_eviction_is_not_carried_out() {
    const PLACES: usize = 64;
    let carried_out = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&carried_out);
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    router.route(Method::Post, "/", move |_| {
        counter.fetch_add(1, Relaxed);
        Response::text(Status::OK, "done\n")
    });
    let limits = Limits { connections: PLACES, waiting: PLACES, ..lenient() };
    let address = serve_with(limits, router);
    let (mut answered, mut evicted) = (0, 0);
    for _ in 0..10 {
        let idle: Vec<_> = (0..PLACES).map(|_| connect(address)).collect();
        for socket in &idle {
            send(socket, GET);
            assert_eq!(receive(socket).expect("it is answered").status, 200);
        }
        // Each newcomer has a place when one of them is evicted, which begins about now.
        let newcomers: Vec<_> = (0..PLACES).map(|_| connect(address)).collect();
        newcomers.iter().for_each(|socket| send(socket, GET));
        thread::sleep(Duration::from_millis(510));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // A busy processor makes the moment longer.
            for _ in 0..8 {
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let all = idle.chunks(8).map(|sockets| {
                scope.spawn(move || {
                    for mut socket in sockets {
                        thread::sleep(Duration::from_millis(10));
                        let _ = socket.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    }
                })
            });
            let all: Vec<_> = all.collect();
            all.into_iter().for_each(|one| one.join().expect("it only writes"));
            is_over.store(true, Relaxed);
        });
        for socket in &idle {
            match is_answered(socket) {
                true => answered += 1,
                false => evicted += 1,
            }
        }
        assert_eq!(carried_out.load(Relaxed), answered, "carried out, and not answered");
    }
    println!("{answered} answered, {evicted} evicted");
    assert!(answered > 0 && evicted > 0, "one of both never happened: {answered}, {evicted}");
}

/// Whether an answer comes before the connection ends.
fn is_answered(mut socket: &TcpStream) -> bool {
    let mut start = [0; 12];
    socket.read_exact(&mut start).is_ok() && &start == b"HTTP/1.1 200"
}

const LARGE: usize = 64 * 1024 * 1024;

/// A connection that has begun to download [`LARGE`] bytes from a server with one place, and one with a request that
/// waits for this place.
fn download() -> (TcpStream, TcpStream) {
    let mut router = Router::new();
    router.get("/", |_| Response::text(Status::OK, "ok\n"));
    router.get("/large", |_| Response::bytes(Status::OK, "application/octet-stream", vec![b'x'; LARGE]));
    let address = serve_with(Limits { connections: 1, ..lenient() }, router);
    let mut downloading = connect(address);
    send(&downloading, b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    downloading.read_exact(&mut [0]).expect("it begins");
    let waiting = connect(address);
    send(&waiting, GET);
    (downloading, waiting)
}

/// How much arrives when it is read at this rate for so long, and then as fast as it comes.
fn read_steadily(mut socket: &TcpStream, bytes_per_second: usize, time: Duration) -> usize {
    let (started, mut taken) = (Instant::now(), 0);
    let mut piece = vec![0; bytes_per_second / 20];
    while let Ok(bytes @ 1..) = socket.read(&mut piece) {
        taken += bytes;
        let due = Duration::from_secs_f64(taken as f64 / bytes_per_second as f64);
        if started.elapsed() < time {
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    taken
}

#[test]
fn a_download_that_is_read_steadily_is_not_cut_for_a_waiting_request() {
    let steadily = |bytes_per_second, time| {
        let (downloading, waiting) = download();
        assert!(read_steadily(&downloading, bytes_per_second, time) >= LARGE);
        assert_eq!(receive(&waiting).expect("it is its turn").text(), "ok\n");
    };
    thread::scope(|scope| {
        scope.spawn(|| steadily(12 << 20, PATIENCE));
        scope.spawn(|| steadily(1 << 20, Duration::from_secs(8)));
        scope.spawn(|| steadily(500_000, Duration::from_secs(8)));
    });
}

#[test]
fn a_download_of_a_few_bytes_a_second_is_cut_for_a_waiting_request() {
    let (downloading, waiting) = download();
    thread::scope(|scope| {
        let answer = scope.spawn(|| receive(&waiting));
        while !answer.is_finished() {
            assert_eq!((&downloading).read(&mut [0; 20]).expect("the system has some of it"), 20);
            thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(answer.join().expect("no panic").expect("it is answered").text(), "ok\n");
    });
    assert!(read_steadily(&downloading, LARGE, PATIENCE) < LARGE);
}
