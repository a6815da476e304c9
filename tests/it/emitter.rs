//! Streams for one client: the emitter on the connection's thread, and the one that any thread sends to.

use crate::server::{
    Answer, PATIENCE, Server, Stream, ask, connect, eventually, is_opening, read_opening, read_until, serve,
};
use newswire::http::Limits;
use newswire::sse::{SendError, SseEmitter};
use newswire::{Emitter, Event, Response, Router};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Far below the default, so that a test sees many.
const SHORT: Duration = Duration::from_millis(50);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A client that has read the opening of `GET /`.
fn open(address: SocketAddr) -> TcpStream {
    let mut socket = connect(address);
    socket.write_all(GET).expect("the server reads");
    read_opening(&mut socket);
    socket
}

fn read_to_end(mut socket: TcpStream) -> String {
    let mut rest = String::new();
    socket.read_to_string(&mut rest).expect("the stream ends and is text");
    rest
}

/// Reads as many heartbeats, and nothing else.
fn read_heartbeats(socket: &mut TcpStream, count: usize) {
    let mut read = vec![0; 2 * count];
    socket.read_exact(&mut read).expect("heartbeats arrive");
    assert_eq!(String::from_utf8_lossy(&read), ":\n".repeat(count));
}

/// A server whose `GET /` is this emitter, with a channel on which it waits for the test.
fn serve_emitter(
    emit: impl Fn(Emitter<'_>, &Receiver<()>) -> std::io::Result<()> + Clone + Send + Sync + 'static,
) -> (SocketAddr, Sender<()>) {
    let (sender, go_on) = channel();
    let go_on = Arc::new(Mutex::new(go_on));
    let mut router = Router::new();
    router.get("/", move |request| {
        let (go_on, emit) = (Arc::clone(&go_on), emit.clone());
        let options = Emitter::options().heartbeat(SHORT);
        options.stream(request, move |emitter| emit(emitter, &go_on.lock().expect("one client")))
    });
    (serve(router, |server| server), sender)
}

fn wait(go_on: &Receiver<()>) {
    go_on.recv_timeout(PATIENCE).expect("the test goes on");
}

#[test]
fn an_event_arrives_while_its_closure_still_runs() {
    let (sender, go_on) = channel::<()>();
    let go_on = Mutex::new(Some(go_on));
    let mut router = Router::new();
    router.get("/", move |request| {
        let go_on = go_on.lock().expect("one client").take().expect("one client");
        Emitter::stream(request, move |mut emitter| {
            wait(&go_on);
            emitter.send("one")?;
            wait(&go_on);
            emitter.comment("two")?;
            wait(&go_on);
            emitter.complete_with_error("a secret")
        })
    });
    let mut socket = connect(serve(router, |server| server));
    socket.write_all(GET).expect("the server reads");
    let head = read_until(&mut socket, "\r\n\r\n");
    assert!(head.contains("\r\nContent-Type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    assert!(!head.contains("Transfer-Encoding") && !head.contains("Content-Length"));
    // Each of them is read before the closure goes on, and nothing is behind it.
    let opening = read_opening(&mut socket);
    assert!(opening.starts_with(": newswire\nretry: "), "{opening:?}");
    sender.send(()).expect("it runs");
    assert_eq!(read_until(&mut socket, "\n\n"), "data: one\n\n");
    sender.send(()).expect("it runs");
    assert_eq!(read_until(&mut socket, "\n"), ": two\n");
    sender.send(()).expect("it runs");
    assert_eq!(read_to_end(socket), ": the server ends this stream because of an error\n");
}

#[test]
fn an_idle_stream_gets_heartbeats_while_its_closure_sleeps() {
    let (address, go_on) = serve_emitter(|mut emitter, go_on| {
        wait(go_on);
        emitter.send("one")?;
        wait(go_on);
        emitter.send("two")
    });
    let mut socket = open(address);
    for data in ["one", "two"] {
        read_heartbeats(&mut socket, 3);
        go_on.send(()).expect("it runs");
        let read = read_until(&mut socket, "\n\n");
        let event = read.trim_start_matches(":\n");
        assert_eq!(event, format!("data: {data}\n\n"));
    }
    assert_eq!(read_to_end(socket), "");
}

#[test]
fn a_stream_with_a_long_heartbeat_interval_does_not_delay_the_heartbeats_of_another() {
    let mut router = Router::new();
    for (path, interval) in [("/long", Duration::MAX), ("/", SHORT)] {
        router.get(path, move |request| {
            Emitter::options().heartbeat(interval).stream(request, |emitter| {
                while emitter.is_open() {
                    thread::sleep(SHORT);
                }
                Ok(())
            })
        });
    }
    let address = serve(router, |server| server);
    let long = Stream::open(address, "/long", &[]);
    thread::sleep(SHORT);
    read_heartbeats(&mut open(address), 2);
    drop(long);
}

/// The client reads a large event so slowly that heartbeats are due in the middle of it.
#[test]
fn no_heartbeat_stands_in_the_middle_of_an_event() {
    const BYTES: usize = 16 << 20;
    let (address, go_on) = serve_emitter(|mut emitter, go_on| {
        emitter.send("x".repeat(BYTES))?;
        wait(go_on);
        Ok(())
    });
    let mut socket = open(address);
    read_until(&mut socket, "data: ");
    thread::sleep(5 * SHORT);
    let mut event = vec![0; BYTES + "\n\n".len()];
    socket.read_exact(&mut event).expect("it arrives");
    assert_eq!(event.iter().filter(|&&byte| byte == b'x').count(), BYTES);
    assert!(event.ends_with(b"x\n\n"));
    read_heartbeats(&mut socket, 1);
    go_on.send(()).expect("it runs");
}

/// A heartbeat is due only when nothing was sent for the interval, which happens on a busy machine.
#[test]
fn a_stream_that_sends_all_the_time_gets_no_heartbeats() {
    let (sender, pauses) = channel();
    let (address, _) = serve_emitter(move |mut emitter, _| {
        let (mut sent_at, mut long_pauses) = (Instant::now(), 0);
        for number in 0..400 {
            emitter.send(number.to_string())?;
            long_pauses += sent_at.elapsed().as_millis() / SHORT.as_millis();
            sent_at = Instant::now();
            thread::sleep(SHORT / 10);
        }
        sender.send(long_pauses).map_err(std::io::Error::other)
    });
    let rest = read_to_end(open(address));
    assert_eq!(rest.matches("data: ").count(), 400);
    let heartbeats = rest.matches(":\n").count() as u128;
    assert!(heartbeats <= next(&pauses) + 1, "{heartbeats} heartbeats");
}

/// The client may have got half of the event. Nothing may follow that.
#[test]
fn nothing_is_sent_after_an_event_that_the_client_did_not_take() {
    let (sender, errors) = channel();
    let mut router = Router::new();
    router.get("/", move |request| {
        let sender = sender.clone();
        Emitter::stream(request, move |mut emitter| {
            for data in ["x".repeat(16 << 20), "second".to_owned()] {
                let error = emitter.send(data).expect_err("the client takes nothing");
                sender.send(error.kind()).expect("the test waits");
            }
            assert!(!emitter.is_open());
            Ok(())
        })
    });
    let limits = Limits { write_stall: 4 * SHORT, ..Limits::default() };
    let address = serve(router, |server| server.limits(limits).expect("they are in range"));
    let _socket = open(address);
    assert_eq!(next(&errors), ErrorKind::TimedOut);
    assert_eq!(next(&errors), ErrorKind::BrokenPipe);
}

/// A close with unread bytes would be a reset, which erases what the client has not read yet.
#[test]
fn a_client_that_sends_more_reads_the_whole_stream() {
    let data = "x".repeat(1 << 20);
    let (mut router, event) = (Router::new(), format!("data: {data}\n\n"));
    let (sender, began) = channel();
    let (gate, go_on) = channel::<()>();
    let (go_on, text) = (Arc::new(Mutex::new(go_on)), data.clone());
    let (started, resumed) = (sender.clone(), Arc::clone(&go_on));
    router.get("/", move |request| {
        let (sender, go_on, text) = (started.clone(), Arc::clone(&resumed), text.clone());
        Emitter::stream(request, move |mut emitter| {
            sender.send(()).map_err(std::io::Error::other)?;
            wait(&go_on.lock().expect("one client"));
            emitter.send(text)?;
            emitter.complete()
        })
    });
    router.get("/detached", move |request| {
        let emitter = SseEmitter::new(request).buffer_bytes(2 << 20);
        let (kept, go_on, data) = (emitter.clone(), Arc::clone(&go_on), data.clone());
        sender.send(()).expect("the test waits");
        thread::spawn(move || {
            wait(&go_on.lock().expect("one client"));
            kept.send(data).expect("it fits");
            kept.complete();
        });
        emitter
    });
    let address = serve(router, |server| server);
    for target in ["/", "/detached"] {
        let mut socket = connect(address);
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("the server reads");
        read_opening(&mut socket);
        next(&began);
        socket.write_all(&[b'y'; 16 << 10]).expect("the system takes it");
        gate.send(()).expect("the server runs");
        thread::sleep(4 * SHORT);
        assert!(read_to_end(socket) == event, "{target}");
    }
}

#[test]
fn is_open_says_when_the_client_has_left() {
    let (sender, answers) = channel();
    let (address, go_on) = serve_emitter(move |emitter, go_on| {
        sender.send(emitter.is_open()).expect("the test waits");
        wait(go_on);
        while emitter.is_open() {
            thread::sleep(SHORT / 10);
        }
        sender.send(false).expect("the test waits");
        Ok(())
    });
    let socket = open(address);
    assert_eq!(answers.recv_timeout(PATIENCE), Ok(true));
    go_on.send(()).expect("it runs");
    drop(socket);
    assert_eq!(answers.recv_timeout(PATIENCE), Ok(false));
}

/// The system of a client that has left answers a write with a reset. A client that has only closed its half reads on.
#[test]
fn is_open_tells_a_half_closed_client_from_one_that_has_left() {
    let (sender, answers) = channel();
    let (go_on, going) = channel();
    let going = Mutex::new(Some(going));
    let mut router = Router::new();
    router.get("/", move |request| {
        let sender = sender.clone();
        let going: Receiver<()> = going.lock().expect("one client").take().expect("one client");
        // Only the checks write.
        let options = Emitter::options().heartbeat(Duration::MAX);
        options.stream(request, move |mut emitter| {
            let mut checks = 0;
            while emitter.is_open() {
                checks += 1;
                if going.try_recv().is_ok() {
                    emitter.send(checks.to_string())?;
                }
                thread::sleep(SHORT / 50);
            }
            sender.send(()).map_err(std::io::Error::other)
        })
    });
    let address = serve(router, |server| server);
    let mut socket = connect(address);
    socket.write_all(GET).expect("the server reads");
    socket.shutdown(Shutdown::Write).expect("it is open");
    read_opening(&mut socket);
    read_heartbeats(&mut socket, 2);
    go_on.send(()).expect("it runs");
    let event = read_until(&mut socket, "\n\n");
    let checks: usize = event
        .trim_start_matches(":\n")
        .strip_prefix("data: ")
        .and_then(|rest| rest.trim_end().parse().ok())
        .unwrap_or_else(|| panic!("another event: {event:?}"));
    assert!(checks > 20, "two heartbeats for {checks} checks");
    assert!(answers.try_recv().is_err(), "it is open");
    drop(socket);
    next(&answers);
}

/// The state of the server's end of a connection, as the system lists it.
fn is_close_wait(client: SocketAddr, server: SocketAddr) -> bool {
    let hex = |address: SocketAddr| format!(":{:04X} ", address.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the system has one");
    let ends = [hex(server), hex(client)];
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours =
            fields.len() > 3 && fields[1].ends_with(ends[0].trim_end()) && fields[2].ends_with(ends[1].trim_end());
        is_ours && fields[3] == "08"
    })
}

#[test]
fn heartbeats_see_that_a_client_has_left_while_the_closure_sleeps() {
    let (sender, answers) = channel();
    let (address, go_on) = serve_emitter(move |mut emitter, go_on| {
        wait(go_on);
        // Without the heartbeats this send would be the first to reach the client, and so succeed.
        sender.send(emitter.send("x").map_err(|error| error.kind())).expect("the test waits");
        Ok(())
    });
    let socket = open(address);
    let client = socket.local_addr().expect("it is connected");
    drop(socket);
    eventually("the connection is closed", || !is_close_wait(client, address));
    thread::sleep(2 * SHORT);
    go_on.send(()).expect("it runs");
    let answer = answers.recv_timeout(PATIENCE).expect("it has sent");
    assert!(answer.is_err(), "the client has left");
}

#[test]
fn options_set_the_reconnection_time_and_the_emitter_knows_the_last_event_id() {
    let mut router = Router::new();
    router.get("/", |request| {
        let options = Emitter::options().reconnection_time(Duration::from_secs(7));
        options.stream(request, |mut emitter| {
            let id = format!("{:?}", emitter.last_event_id());
            emitter.send(id)
        })
    });
    router.get("/detached", |request| {
        let emitter = SseEmitter::new(request).reconnection_time(Duration::from_secs(7));
        emitter.send(format!("{:?}", emitter.last_event_id())).expect("it is small");
        emitter.complete();
        emitter
    });
    let address = serve(router, |server| server);
    for target in ["/", "/detached"] {
        for (query, fields, id) in [
            ("", &[][..], "None"),
            ("", &[("Last-Event-ID", "")], "None"),
            ("", &[("Last-Event-ID", "a b")], "Some(\"a b\")"),
            ("?last_event_id=1", &[], "Some(\"1\")"),
            ("?lastEventId=2", &[], "Some(\"2\")"),
            ("?Last-Event-ID=3", &[], "Some(\"3\")"),
            ("?last_event_id=1", &[("Last-Event-ID", "4")], "Some(\"4\")"),
        ] {
            let answer = ask(address, "GET", &format!("{target}{query}"), fields, "");
            let expected = format!(": newswire\nretry: 7000\ndata: {id}\n\n");
            assert_eq!(answer.text(), expected, "{target}{query} {fields:?}");
        }
    }
}

/// How many threads of this name a process has.
fn threads(process: &str, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim_end() == name).count()
}

#[test]
fn one_thread_writes_all_heartbeats_and_ends_with_the_last_stream() {
    let server = Server::start(&["--quiet"]);
    let process = server.pid().to_string();
    assert_eq!(threads(&process, "heartbeat"), 0);
    for round in 1..=2 {
        let clients: Vec<Stream> = (0..20)
            .map(|_| {
                let mut client = Stream::open(server.address, "/sse/mvc/words", &[]);
                assert!(client.next().is_some());
                client
            })
            .collect();
        assert_eq!(threads(&process, "heartbeat"), 1);
        drop(clients);
        // The thread ends when it wakes for the next heartbeat, and another one begins with the next stream.
        if round == 1 {
            eventually("the thread ends", || threads(&process, "heartbeat") == 0);
        }
    }
}

/// A server whose `GET /` is a detached emitter, which the test gets.
fn serve_detached(
    limits: Limits,
    make: impl Fn(SseEmitter) -> SseEmitter + Send + Sync + 'static,
) -> (SocketAddr, Receiver<SseEmitter>) {
    let (sender, emitters) = channel();
    let mut router = Router::new();
    router.get("/", move |request| {
        let emitter = make(SseEmitter::new(request));
        sender.send(emitter.clone()).expect("the test waits");
        emitter
    });
    (serve(router, |server| server.limits(limits).expect("they are in range")), emitters)
}

fn next<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(PATIENCE).expect("it comes")
}

/// Adds to a detached emitter callbacks that say what they are called for.
fn told(emitter: SseEmitter, calls: &Sender<String>) -> SseEmitter {
    let [first, second, third] = [calls.clone(), calls.clone(), calls.clone()];
    let say = |calls: &Sender<String>, what: String| calls.send(what).expect("the test waits");
    emitter
        .on_timeout(move |_| say(&first, "timeout".to_owned()))
        .on_error(move |_, error| say(&second, format!("error: {error}")))
        .on_completion(move |emitter| {
            say(&third, format!("completion, {:?}", emitter.send("late")));
        })
}

const COMPLETION: &str = "completion, Err(Completed)";

/// All that the callbacks say up to the last one, which drops the sender.
fn all_calls(calls: Receiver<String>) -> Vec<String> {
    let mut all = vec![];
    loop {
        match calls.recv_timeout(PATIENCE) {
            Ok(call) => all.push(call),
            Err(RecvTimeoutError::Disconnected) => return all,
            Err(RecvTimeoutError::Timeout) => panic!("a callback is kept after the end"),
        }
    }
}

/// A server whose `GET /` is a detached emitter with callbacks. The calls end when the emitter is gone.
fn serve_told(
    make: impl Fn(SseEmitter) -> SseEmitter + Send + Sync + 'static,
) -> (SocketAddr, Receiver<SseEmitter>, Receiver<String>) {
    let (sender, calls) = channel();
    let sender = Mutex::new(Some(sender));
    let (address, emitters) = serve_detached(Limits::default(), move |emitter| {
        let sender = sender.lock().expect("one client").take().expect("one client");
        told(make(emitter), &sender)
    });
    (address, emitters, calls)
}

#[test]
fn any_thread_sends_to_a_detached_emitter() {
    let (address, emitters) = serve_detached(Limits::default(), |emitter| {
        // The response has not begun.
        emitter.send("first").expect("it is kept");
        emitter
    });
    let mut socket = open(address);
    let emitter = next(&emitters);
    assert_eq!(read_until(&mut socket, "\n\n"), "data: first\n\n");
    for number in 0..3 {
        let clone = emitter.clone();
        assert_eq!(clone, emitter);
        let sent = thread::spawn(move || clone.send(Event::new("x").id(number).expect("digits")));
        assert_eq!(sent.join().expect("it does not panic"), Ok(()));
        // It leaves although nothing follows it.
        assert_eq!(read_until(&mut socket, "\n\n"), format!("id: {number}\ndata: x\n\n"));
    }
    emitter.comment("bye").expect("it is open");
    assert!(emitter.is_open());
    emitter.complete();
    assert!(!emitter.is_open());
    assert_eq!(emitter.send("late"), Err(SendError::Completed));
    assert_eq!(read_to_end(socket), ": bye\n");
    drop(open(address));
    assert_ne!(next(&emitters), emitter);
}

/// The writer also wakes once a second. With that alone, this would take minutes.
#[test]
fn the_writer_of_a_detached_emitter_wakes_for_each_event_and_for_the_end() {
    let (address, emitters) = serve_detached(Limits::default(), |emitter| emitter);
    let began = Instant::now();
    for _ in 0..100 {
        let mut socket = open(address);
        let emitter = next(&emitters);
        for data in ["one", "two"] {
            // The writer is waiting again.
            thread::sleep(SHORT / 10);
            emitter.send(data).expect("it is open");
            read_until(&mut socket, "\n\n");
        }
        emitter.complete();
        assert_eq!(read_to_end(socket), "");
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn an_idle_detached_emitter_sends_heartbeats() {
    let (address, emitters) = serve_detached(Limits::default(), |emitter| emitter.heartbeat(SHORT));
    let mut socket = open(address);
    read_heartbeats(&mut socket, 3);
    next(&emitters).complete();
    assert_eq!(read_to_end(socket).replace(":\n", ""), "");
}

#[test]
fn an_event_that_does_not_fit_in_the_buffer_is_refused_and_the_others_arrive() {
    let data = "x".repeat(92);
    let frame = format!("data: {data}\n\n");
    assert_eq!(frame.len(), 100);
    let (address, emitters) = serve_detached(Limits::default(), {
        let data = data.clone();
        move |emitter| {
            let emitter = emitter.buffer_bytes(1_000);
            for _ in 0..10 {
                assert_eq!(emitter.send(&data), Ok(()));
            }
            assert_eq!(emitter.send(&data), Err(SendError::Full));
            assert_eq!(emitter.send(""), Err(SendError::Full));
            emitter
        }
    });
    let mut socket = open(address);
    let mut read = vec![0; 1_000];
    socket.read_exact(&mut read).expect("they arrive");
    assert_eq!(String::from_utf8_lossy(&read), frame.repeat(10));
    let emitter = next(&emitters);
    eventually("there is room again", || emitter.send("again") == Ok(()));
    assert_eq!(emitter.send("x".repeat(1_000)), Err(SendError::Full));
    emitter.complete();
    assert_eq!(read_to_end(socket), "data: again\n\n");
}

/// The buffer counts what is being written, or a client that takes nothing would have twice the bytes.
#[test]
fn bytes_that_the_client_has_not_taken_count_against_the_buffer() {
    const BYTES: usize = 16 << 20;
    let (address, emitters) = serve_detached(Limits::default(), |emitter| emitter.buffer_bytes(BYTES));
    let mut socket = open(address);
    let emitter = next(&emitters);
    emitter.send("x".repeat(BYTES - "data: \n\n".len())).expect("it fits");
    assert_eq!(read_until(&mut socket, "data: "), "data: ");
    assert_eq!(emitter.send("x"), Err(SendError::Full));
    emitter.complete();
    assert_eq!(read_to_end(socket).len(), BYTES - "data: ".len());
}

#[test]
fn the_timeout_completes_the_stream_and_its_callback_may_send() {
    let (sender, calls) = channel();
    let sender = Mutex::new(Some(sender));
    let (address, emitters) = serve_detached(Limits::default(), move |emitter| {
        let sender = sender.lock().expect("one client").take().expect("one client");
        let (timed_out, emitter) = (sender.clone(), told(emitter.timeout(SHORT), &sender));
        emitter.on_timeout(move |emitter| {
            emitter.send("too late").expect("it is open");
            timed_out.send("timeout".to_owned()).expect("the test waits");
        })
    });
    let socket = open(address);
    assert_eq!(read_to_end(socket), "data: too late\n\n");
    assert_eq!(next(&emitters).send("x"), Err(SendError::Completed));
    assert_eq!(all_calls(calls), ["timeout", COMPLETION]);
}

#[test]
fn a_completed_stream_does_not_time_out_while_the_client_reads_the_rest() {
    const BYTES: usize = 16 << 20;
    let (address, _emitters, calls) = serve_told(|emitter| {
        let emitter = emitter.timeout(SHORT).buffer_bytes(2 * BYTES);
        emitter.send("x".repeat(BYTES)).expect("it fits");
        emitter.complete();
        emitter
    });
    let socket = open(address);
    thread::sleep(4 * SHORT);
    assert!(read_to_end(socket).len() > BYTES);
    assert_eq!(all_calls(calls), [COMPLETION]);
}

#[test]
fn without_a_timeout_or_with_zero_a_stream_lasts() {
    for timeout in [Duration::ZERO, Duration::MAX] {
        let (address, emitters) =
            serve_detached(Limits::default(), move |emitter| emitter.timeout(timeout).heartbeat(SHORT));
        let mut socket = open(address);
        read_heartbeats(&mut socket, 2);
        assert!(next(&emitters).is_open());
    }
}

#[test]
fn callbacks_say_how_a_stream_ended_each_once() {
    // It was completed.
    let (address, emitters, calls) = serve_told(|emitter| emitter);
    let socket = open(address);
    let emitter = next(&emitters);
    emitter.send("x").expect("it is open");
    emitter.complete();
    emitter.complete();
    emitter.complete_with_error("too late");
    assert_eq!(read_to_end(socket), "data: x\n\n");
    assert_eq!(all_calls(calls), [COMPLETION]);

    // It was completed because of an error, which the client is not told.
    let (address, emitters, calls) = serve_told(|emitter| emitter);
    let socket = open(address);
    next(&emitters).complete_with_error("a secret");
    assert_eq!(read_to_end(socket), ": the server ends this stream because of an error\n");
    assert_eq!(all_calls(calls), ["error: a secret", COMPLETION]);

    // The client has left, and nothing is sent.
    let (address, emitters, calls) = serve_told(|emitter| emitter);
    let socket = open(address);
    let emitter = next(&emitters);
    drop(socket);
    let calls = all_calls(calls);
    assert!(calls[0].starts_with("error: ") && calls[1..] == [COMPLETION], "{calls:?}");
    assert_eq!(emitter.send("x"), Err(SendError::Completed));
    assert!(!emitter.is_open());
}

#[test]
fn an_emitter_whose_response_is_never_sent_is_completed() {
    let (address, emitters, calls) = serve_told(|emitter| emitter);
    assert_eq!(ask(address, "HEAD", "/", &[], "").status, 200);
    assert_eq!(next(&emitters).send("x"), Err(SendError::Completed));
    assert_eq!(all_calls(calls), [COMPLETION]);
}

#[test]
fn a_panic_in_a_callback_costs_only_its_connection() {
    let (sender, calls) = channel();
    let mut router = Router::new();
    router.get("/callbacks/{what}", move |request| {
        let sender = sender.clone();
        let emitter = SseEmitter::new(request)
            .on_error(|_, _| panic!("on purpose: on_error"))
            .on_timeout(|_| panic!("on purpose: on_timeout"))
            .on_completion(move |_| {
                sender.send(()).expect("the test waits");
                panic!("on purpose: on_completion")
            });
        match request.parameter("what").unwrap_or_default() {
            "fails" => emitter.complete_with_error("x"),
            "times-out" => return emitter.timeout(SHORT),
            _ => emitter.complete(),
        }
        emitter
    });
    router.get("/", |_| Response::text(newswire::http::Status::OK, "fine\n"));
    let address = serve(router, |server| server);
    let mut kept = connect(address);
    for (method, target) in [("GET", "fails"), ("GET", "times-out"), ("GET", "completes"), ("HEAD", "completes")] {
        assert_eq!(ask(address, method, &format!("/callbacks/{target}"), &[], "").status, 200);
        next(&calls);
        assert!(calls.try_recv().is_err(), "it is called once");
    }
    kept.write_all(GET).expect("the server reads");
    assert!(read_until(&mut kept, "fine\n").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn an_emitter_has_one_client() {
    let kept: Mutex<Option<SseEmitter>> = Mutex::new(None);
    let mut router = Router::new();
    router.get("/", move |request| {
        let mut kept = kept.lock().expect("it does not panic");
        kept.get_or_insert_with(|| SseEmitter::new(request)).clone()
    });
    let address = serve(router, |server| server);
    let _first = open(address);
    assert_eq!(ask(address, "GET", "/", &[], "").status, 500);
}

#[test]
fn when_the_server_stops_a_detached_emitter_ends_with_an_error_also_if_it_has_just_begun() {
    for is_idle in [true, false] {
        let (sender, calls) = channel();
        let sender = Mutex::new(Some(sender));
        let (kept, emitters) = channel();
        let mut router = Router::new();
        router.get("/", move |request| {
            let sender = sender.lock().expect("one client").take().expect("one client");
            // The check tells, and not a write.
            let emitter = told(SseEmitter::new(request).heartbeat(Duration::MAX), &sender);
            kept.send(emitter.clone()).expect("the test waits");
            emitter
        });
        let server = newswire::Server::bind("127.0.0.1:0").expect("there is a free port");
        let handle = server.serve(router).expect("there are threads");
        let mut socket = open(handle.addr());
        let emitter = next(&emitters);
        if is_idle {
            emitter.send("x").expect("it is open");
            read_until(&mut socket, "\n\n");
        }
        handle.stop();
        // The client keeps its connection open.
        let calls = all_calls(calls);
        assert!(calls[0].starts_with("error: ") && calls[1..] == [COMPLETION], "{calls:?}");
        assert_eq!(emitter.send("x"), Err(SendError::Completed));
        handle.join(PATIENCE).expect("all threads end");
    }
}

/// A broadcast may keep emitters that their handlers did not return.
#[test]
fn an_emitter_that_is_not_returned_ends_with_its_connection() {
    let (sender, emitters) = channel();
    let mut router = Router::new();
    router.get("/", move |request| {
        sender.send(SseEmitter::new(request)).expect("the test waits");
        Response::text(newswire::http::Status::OK, "another\n")
    });
    let mut socket = connect(serve(router, |server| server));
    socket.write_all(GET).expect("the server reads");
    read_until(&mut socket, "another\n");
    let emitter = next(&emitters);
    assert_eq!(emitter.send("x"), Ok(()));
    drop(socket);
    eventually("it has ended", || !emitter.is_open());
    assert_eq!(emitter.send("x"), Err(SendError::Completed));
}

#[test]
fn a_callback_that_is_set_after_the_end_is_not_called() {
    let (sender, calls) = channel();
    let sender = Mutex::new(Some(sender));
    let (address, emitters) = serve_detached(Limits::default(), move |emitter| {
        let sender = sender.lock().expect("one client").take().expect("one client");
        emitter.complete();
        emitter.on_completion(move |emitter| {
            sender.send("first".to_owned()).expect("the test waits");
            let late = emitter.clone();
            drop(late.on_completion(move |_| sender.send("late".to_owned()).expect("it waits")));
        })
    });
    assert_eq!(read_to_end(open(address)), "");
    drop(emitters);
    assert_eq!(all_calls(calls), ["first"]);
}

/// What a callback holds may use the emitter when it is dropped.
struct AsksWhenDropped(SseEmitter);

impl Drop for AsksWhenDropped {
    fn drop(&mut self) {
        self.0.is_open();
    }
}

#[test]
fn a_callback_that_is_replaced_or_not_called_is_dropped_without_a_lock() {
    let (address, _emitters) = serve_detached(Limits::default(), |emitter| {
        let [first, second, third] = [(); 3].map(|()| AsksWhenDropped(emitter.clone()));
        emitter.complete();
        emitter.on_error(move |_, _| drop(first)).on_error(move |_, _| drop(second)).on_timeout(move |_| drop(third))
    });
    assert_eq!(read_to_end(open(address)), "");
}

#[test]
fn a_thousand_emitters_need_no_thread_until_they_are_returned() {
    let made = Mutex::new(0);
    let mut router = Router::new();
    router.get("/", move |request| {
        let before = threads("self", "connection");
        let emitters: Vec<SseEmitter> = (0..1_000).map(|_| SseEmitter::new(request)).collect();
        assert!(emitters.iter().all(|emitter| emitter.send("x").is_ok()));
        *made.lock().expect("it does not panic") += emitters.len();
        assert!(threads("self", "connection") < before + 500);
        drop(emitters);
        Response::text(newswire::http::Status::OK, "made\n")
    });
    let address = serve(router, |server| server);
    assert_eq!(ask(address, "GET", "/", &[], "").text(), "made\n");
    assert!(threads("self", "heartbeat") <= 1);
}

#[test]
fn a_stream_beyond_the_limit_is_told_to_come_back() {
    let limits = Limits { streams: 1, ..Limits::default() };
    let (address, emitters) = serve_detached(limits.clone(), |emitter| emitter);
    let (sender, began) = channel();
    let mut router = Router::new();
    router.get("/", move |request| {
        let sender = sender.clone();
        Emitter::stream(request, move |mut emitter| {
            sender.send(()).expect("the test waits");
            while emitter.is_open() {
                thread::sleep(SHORT);
            }
            emitter.send("x")
        })
    });
    let other = serve(router, |server| server.limits(limits).expect("they are in range"));
    for address in [address, other] {
        let first = open(address);
        let answer = ask(address, "GET", "/", &[], "");
        assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
        let content = answer.text();
        let retry = content
            .strip_prefix(": there is no room for another stream now; come back later\nretry: ")
            .and_then(|rest| rest.strip_suffix('\n')?.parse::<u64>().ok());
        assert!(retry.is_some_and(|retry| (5_000..=7_500).contains(&retry)), "{content:?}");
        drop(first);
        // When the first one has ended there is room again.
        eventually("there is room again", || {
            let mut stream = Stream::open(address, "/", &[]);
            stream.read_until(is_opening);
            stream.bytes.starts_with(b": newswire\n")
        });
    }
    next(&emitters);
    next(&began);
    let refused = next(&emitters);
    assert_eq!(refused.send("x"), Err(SendError::Completed));
}

/// A server with a stream that sends the same event until a send fails, and reports the error.
pub(crate) fn endless(limits: Limits, data: &'static str, interval: Duration) -> (SocketAddr, Receiver<ErrorKind>) {
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
            assert!(!emitter.is_open());
            let _ = sender.send(error.kind());
            Err(error)
        })
    });
    (serve(router, |server| server.limits(limits).expect("they are in range")), outcomes)
}

#[test]
fn a_closure_learns_that_its_client_has_left() {
    let (address, outcomes) = endless(Limits::default(), "tick", SHORT / 5);
    let mut socket = open(address);
    read_until(&mut socket, "data: tick\n\n");
    drop(socket);
    next(&outcomes);
}

#[test]
fn a_stream_that_panics_ends_and_the_server_goes_on() {
    let mut router = Router::new();
    router.get("/", |request| {
        Emitter::stream(request, |mut emitter| {
            emitter.send("before")?;
            panic!("on purpose: a stream")
        })
    });
    let address = serve(router, |server| server);
    for _ in 0..2 {
        let answer: Answer = ask(address, "GET", "/", &[], "");
        assert!(answer.text().ends_with("\ndata: before\n\n"), "{answer:?}");
    }
}
