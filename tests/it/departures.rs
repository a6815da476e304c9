//! Idle subscribers: their heartbeats, and how it is noticed that they have left.

use crate::channels::{OPEN, complete, disconnects, heartbeats, start, threads_named};
use crate::server::{Publisher, Server, Stream, ask, connect, eventually, is_opening};
use newswire::Event;
use newswire::channel::Limits;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// So many of the threads of connections have none, and wait for the next one.
const ACCEPTING: usize = 3;

#[test]
fn a_client_that_leaves_is_noticed_by_a_heartbeat() {
    let server = Server::start(&["--publish-open", "--quiet", "--heartbeat", "1"]);
    let connections = |server: &Server| server.metric("newswire_connections") - 1;
    // A client that closes its connection, and one that does so without having read everything, which resets it.
    for reads_everything in [true, false] {
        let mut streams: Vec<Stream> =
            (0..30).map(|number| Stream::subscribe(server.address, ["a", "b", "c"][number % 3])).collect();
        assert_eq!(server.metric("newswire_subscribers"), 30);
        if reads_everything {
            streams.iter_mut().for_each(|stream| stream.read_until(is_opening));
        }
        drop(streams);
        eventually("no subscriber is left", || server.metric("newswire_subscribers") == 0);
        eventually("their connections are closed", || connections(&server) == 0);
    }
    assert_eq!(disconnects(server.address, "client"), 60);
    eventually("their threads are gone", || threads_named(&server, "connection") <= ACCEPTING + 1);
    // A channel without an event and without a subscriber does not exist.
    assert_eq!(server.metric("newswire_channels"), 0);
}

#[test]
fn a_client_that_closes_its_sending_half_still_gets_events_until_it_closes_the_other() {
    let server = Server::start(&["--publish-open", "--quiet", "--heartbeat", "1"]);
    let mut stream = Stream::subscribe(server.address, "c");
    stream.socket().shutdown(Shutdown::Write).expect("it is open");
    // After so many the server would have taken it for gone.
    stream.read_until(|bytes| heartbeats(bytes) >= 3);
    let id = Publisher::connect(server.address, "c").publish("still there");
    assert_eq!(stream.next().expect("it is live").last_event_id, id);
    let seen = heartbeats(&stream.bytes);
    stream.read_until(|bytes| heartbeats(bytes) >= seen + 2);
    assert_eq!(server.metric("newswire_subscribers"), 1);
    drop(stream);
    eventually("it is gone", || server.metric("newswire_subscribers") == 0);

    // A client that closes its half with the request, as `nc -N` does, is a subscriber like any other.
    let mut socket = connect(server.address);
    socket
        .write_all(b"GET /channels/c HTTP/1.0\r\n\r\n")
        .and_then(|()| socket.shutdown(Shutdown::Write))
        .expect("the server reads");
    eventually("it subscribes", || server.metric("newswire_subscribers") == 1);
    Publisher::connect(server.address, "c").publish("one-way");
    complete(server.address, "c");
    let mut received = String::new();
    socket.read_to_string(&mut received).expect("it ends");
    assert!(received.contains("data: one-way\n\nevent: end\n"), "{received}");
}

#[test]
fn bytes_that_a_client_sends_behind_its_request_do_not_cost_it_the_end_of_the_stream() {
    let server = Server::start(&["--publish-open", "--quiet", "--heartbeat", "0"]);
    let request = "GET /channels/c HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let pipelined = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let long = "x".repeat(100_000);
    for (together, later) in [(pipelined, ""), ("", pipelined), ("", long.as_str()), (pipelined, long.as_str())] {
        let mut socket = connect(server.address);
        let whole = [request, together].concat();
        socket.write_all(whole.as_bytes()).expect("the server reads");
        eventually("it subscribes", || server.metric("newswire_subscribers") == 1);
        socket.write_all(later.as_bytes()).expect("the system takes it");
        Publisher::connect(server.address, "c").publish("said");
        complete(server.address, "c");
        // A reset would be an error here, and could have erased what was not read yet.
        let mut received = String::new();
        let end = socket.read_to_string(&mut received);
        let behind = format!("{} bytes together, {} later", together.len(), later.len());
        assert!(end.is_ok(), "{end:?} with {behind}, after {received:?}");
        let end = "data: said\n\nevent: end\ndata: the channel is completed\n\n";
        assert!(received.ends_with(end), "{behind}: {received}");
        assert_eq!(received.matches("HTTP/1.1").count(), 1, "{received}");
        eventually("it is gone", || server.metric("newswire_subscribers") == 0);
        // This opens the channel again.
        Publisher::connect(server.address, "c").publish("next");
    }
}

/// How many files this process may have open.
pub(crate) fn descriptor_limit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("this is Linux");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("it is there");
    let soft = line.split_whitespace().next().expect("it is there");
    soft.parse().unwrap_or(usize::MAX)
}

#[test]
fn ten_thousand_subscribers_cost_a_handful_of_threads_and_leave_nothing_behind() {
    const SUBSCRIBERS: usize = 10_000;
    let server = Server::start(&OPEN);
    let settle = |what: &str| {
        eventually(what, || server.metric("newswire_connections") == 1);
        // The threads that answered these questions end, too, or accept again.
        eventually(what, || {
            threads_named(&server, "connection") == ACCEPTING && threads_named(&server, "catch-up") == 0
        });
        (server.threads(), server.descriptors())
    };
    let before = settle("it has just started");
    // Other tests run at the same time, and have files open, too.
    let at_once = SUBSCRIBERS.min(descriptor_limit().saturating_sub(64 + 500) * 9 / 10).max(100);
    let mut opened = 0;
    while opened < SUBSCRIBERS {
        let wave = at_once.min(SUBSCRIBERS - opened);
        let mut sockets: Vec<TcpStream> = (0..wave)
            .map(|_| {
                let mut socket = connect(server.address);
                let request = b"GET /channels/c HTTP/1.1\r\nHost: localhost\r\n\r\n";
                socket.write_all(request).expect("the server reads");
                socket
            })
            .collect();
        eventually("all subscribe", || server.metric("newswire_subscribers") == wave as u64);
        // A thread that has just been created has no name of its own yet: all threads are counted.
        eventually("they have no threads", || server.threads() <= before.0 + 1);
        // Each of them gets the event.
        let id = Publisher::connect(server.address, "c").publish("to all");
        let end = format!("id: {id}\ndata: to all\n\n");
        for socket in &mut sockets {
            let mut received = Vec::new();
            while !received.ends_with(end.as_bytes()) {
                let mut piece = [0; 1024];
                let length = socket.read(&mut piece).expect("it is live");
                assert!(length > 0, "it ended after {}", String::from_utf8_lossy(&received));
                received.extend_from_slice(&piece[..length]);
            }
        }
        opened += wave;
        drop(sockets);
        // The first write into a closed connection comes back as a reset, and the second one fails.
        eventually("no subscriber is left", || {
            Publisher::connect(server.address, "c").publish("again");
            server.metric("newswire_subscribers") == 0
        });
    }
    eventually("threads and descriptors are as before", || {
        let now = settle("it is idle again");
        now.0 <= before.0 && now.1 <= before.1
    });
    let mut stream = Stream::subscribe(server.address, "c");
    Publisher::connect(server.address, "c").publish("as before");
    assert_eq!(stream.next().expect("it is live").data, "as before");
}

#[test]
fn heartbeats_go_to_idle_subscribers_and_not_to_all_in_the_same_instant() {
    let (address, channels) = start(Limits { heartbeat: Duration::from_secs(4), ..Limits::default() });
    let idle: Vec<Stream> = (0..40).map(|_| Stream::subscribe(address, "idle")).collect();
    let mut busy = Stream::subscribe(address, "busy");
    let first_heartbeats = Arc::new(Mutex::new(Vec::new()));
    let readers: Vec<_> = idle
        .into_iter()
        .map(|mut stream| {
            let first_heartbeats = Arc::clone(&first_heartbeats);
            thread::spawn(move || {
                stream.read_until(|bytes| heartbeats(bytes) > 0);
                first_heartbeats.lock().expect("nobody panics").push(Instant::now());
                stream
            })
        })
        .collect();
    // An event comes every now and then until all idle ones have got a heartbeat. A busy subscriber needs none.
    let channel = channels.open("busy").expect("there is room");
    let mut published = 0;
    while readers.iter().any(|reader| !reader.is_finished()) {
        channel.publish(Event::new("x")).expect("it is small");
        published += 1;
        thread::sleep(Duration::from_millis(50));
    }
    channel.complete().expect("it is in memory");
    assert_eq!(busy.until_end().len(), published);
    assert_eq!(heartbeats(&busy.bytes), 0);

    let mut first_heartbeats = first_heartbeats.lock().expect("nobody panics").clone();
    first_heartbeats.sort_unstable();
    // They are spread over two seconds.
    let spread = first_heartbeats[39] - first_heartbeats[0];
    assert!(spread > Duration::from_millis(200), "{spread:?}");
}

#[test]
fn heartbeats_can_be_turned_off() {
    let (address, channels) = start(Limits { heartbeat: Duration::ZERO, ..Limits::default() });
    let (beating, _) = start(Limits { heartbeat: Duration::from_millis(100), ..Limits::default() });
    let mut silent = Stream::subscribe(address, "c");
    let mut other = Stream::subscribe(beating, "c");
    // Another server sends many in this time.
    other.read_until(|bytes| heartbeats(bytes) > 5);
    let channel = channels.open("c").expect("there is room");
    channel.publish(Event::new("x")).expect("it is small");
    channel.complete().expect("it is in memory");
    assert_eq!(silent.until_end().len(), 1);
    assert_eq!(heartbeats(&silent.bytes), 0);
}

#[test]
fn a_client_that_leaves_is_noticed_without_heartbeats_and_one_that_closes_its_half_is_not_cut() {
    let server = Server::start(&["--publish-open", "--quiet", "--heartbeat", "0"]);
    let mut half = Stream::subscribe(server.address, "c");
    half.socket().shutdown(Shutdown::Write).expect("it is connected");
    drop([(); 3].map(|_| Stream::subscribe(server.address, "c")));
    eventually("only one is left", || server.metric("newswire_subscribers") == 1);
    assert_eq!(ask(server.address, "POST", "/channels/c", &[], "x").status, 200);
    assert_eq!(half.next().expect("it still reads").data, "x");
}

#[test]
fn a_client_that_has_left_is_noticed_before_a_second_heartbeat_to_it_is_due() {
    // The heartbeat intervals of the first two subscribers are 4.0 and 6.5 seconds.
    let (address, channels) = start(Limits { heartbeat: Duration::from_secs(8), ..Limits::default() });
    let channel = channels.open("c").expect("it is a name");
    let mut leaves = Stream::subscribe(address, "c");
    // The second one comes when the first has joined its lane.
    for _ in 0..3 {
        channel.publish("x").expect("it is small");
        leaves.next().expect("it is live");
        thread::sleep(Duration::from_millis(20));
    }
    let mut stays = Stream::subscribe(address, "c");
    drop(leaves);
    stays.read_until(|bytes| heartbeats(bytes) > 0);
    // The first heartbeat was written 2.5 seconds ago, the reset came back, and the next one would be due in 1.5 seconds.
    assert_eq!(channel.subscribers(), 1);
}
