//! Shortage: the system has no more descriptors or threads. Connections that are open are served on, and the others when
//! there is enough again.

use crate::files::Directory;
use crate::limits::{GET, receive, send};
use crate::server::{Server, Stream, ask, eventually, exchange};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[test]
fn a_thousand_connections_leave_nothing_behind() {
    let server = Server::start(&["--quiet"]);
    let words = b"GET /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // What is started only once is started now.
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

/// The user of a process; `self` is this one.
fn user_of(process: impl std::fmt::Display) -> u32 {
    let directory = std::fs::metadata(format!("/proc/{process}"));
    directory.expect("this is Linux, and it runs").uid()
}

/// A command that runs as this user.
fn run_as(user: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    if user == user_of("self") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}")]).args(["--clear-groups", "--"]).arg(program);
    command
}

/// Changes how much a running process may have: `nofile` descriptors, or `nproc` threads of its user.
pub(crate) fn limit(server: &Server, resource: &str, most: usize) {
    let status = run_as(user_of(server.pid()), "prlimit")
        .arg(format!("--pid={}", server.pid()))
        .arg(format!("--{resource}={most}:"))
        .status()
        .expect("util-linux is installed");
    assert!(status.success());
}

/// The accept threads neither end nor spin.
#[test]
fn without_descriptors_the_server_says_so_and_serves_on() {
    let server = Server::start(&["--quiet"]);
    let mut kept = Stream::open(server.address, "/lab?count=1000&interval=100", &[]);
    kept.next().expect("it begins");
    limit(&server, "nofile", server.descriptors());

    let waiting: Vec<TcpStream> = (0..20)
        .map(|_| {
            let socket = server.connect();
            send(&socket, GET);
            socket
        })
        .collect();
    eventually("it says what is wrong", || server.said().contains("newswire: cannot accept a connection: "));
    for _ in 0..10 {
        kept.next().expect("a connection that is open is served");
    }
    assert!(server.said().lines().count() < 50, "{}", server.said());

    // With one descriptor more they are served one after another: each is evicted when it has been answered.
    limit(&server, "nofile", server.descriptors() + 1);
    for socket in &waiting {
        assert_eq!(receive(socket).expect("it is answered").status, 200);
    }
    drop((kept, waiting));
    let errors = server.metric("newswire_accept_errors_total");
    assert!(errors > 0, "they are counted");
    assert!(server.said().lines().count() as u64 >= errors, "{}", server.said());
}

/// A server that an ordinary user runs: the system refuses root no thread.
fn start_as_ordinary_user() -> Server {
    let arguments = ["--listen", "127.0.0.1:0", "--quiet"];
    if user_of("self") != 0 {
        return Server::start(&arguments[2..]);
    }
    // In a place where that user can reach it
    // Two tests do this, perhaps at the same time.
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), COPIES.fetch_add(1, Relaxed));
    let copy = std::env::temp_dir().join(format!("newswire-{process}-{number}"));
    std::fs::copy(env!("CARGO_BIN_EXE_newswire"), &copy).expect("there is room");
    let mut command = run_as(65534, &copy);
    command.args(arguments);
    let server = Server::spawn(command);
    std::fs::remove_file(&copy).expect("it is there");
    server
}

/// Idle connections on all threads that accept but the last one, which hands its connections over, and on one more.
fn idle_connections(server: &Server) -> [TcpStream; 3] {
    [(); 3].map(|()| {
        let idle = server.connect();
        send(&idle, GET);
        assert_eq!(receive(&idle).expect("it is answered").status, 200);
        // The clock of evictions counts milliseconds, and the first of two in one is any of them.
        std::thread::sleep(std::time::Duration::from_millis(5));
        idle
    })
}

#[test]
fn without_threads_the_server_says_so_and_serves_on() {
    let server = start_as_ordinary_user();
    let mut kept = Stream::open(server.address, "/lab?count=1000&interval=100", &[]);
    kept.next().expect("it begins");
    let _idle = idle_connections(&server);

    limit(&server, "nproc", 0);
    let waiting = [server.connect(), server.connect()];
    waiting.iter().for_each(|socket| send(socket, GET));
    eventually("it says what is wrong", || server.said().contains("newswire: cannot start a thread: "));
    for _ in 0..10 {
        kept.next().expect("a connection that is open is served");
    }

    // The others were not evicted meanwhile: the server has not waited for them.
    limit(&server, "nproc", 1_000);
    for socket in &waiting {
        assert_eq!(receive(socket).expect("it is answered").status, 200);
    }
    let refused = server.metric("newswire_threads_refused_total");
    assert!(refused > 0 && refused < 50, "{refused}");
    assert_eq!(server.metric("newswire_panics_total"), 0);
}

/// The thread of an idle connection serves a newcomer, before it accepts any other connection.
#[test]
fn without_threads_an_idle_connection_is_evicted() {
    let server = start_as_ordinary_user();
    let idle = idle_connections(&server);
    limit(&server, "nproc", 0);
    let page = exchange(server.address, "GET / HTTP/1.0\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(receive(&idle[0]).is_none());
}

fn start_with_descriptors(most: usize, arguments: &[&str]) -> Server {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\"")])
        .args([env!("CARGO_BIN_EXE_newswire"), "--listen", "127.0.0.1:0", "--quiet"])
        .args(arguments);
    Server::spawn(command)
}

#[test]
fn a_low_descriptor_limit_is_said_and_kept() {
    let server = start_with_descriptors(40, &[]);
    assert!(server.greeting.contains("descriptor limit of 40"), "{}", server.greeting);
    for _ in 0..3 {
        let sockets: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
        for (number, socket) in sockets.iter().enumerate() {
            if number % 2 == 0 {
                send(socket, GET);
            }
        }
        drop(sockets);
        let page = exchange(server.address, "GET / HTTP/1.0\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    }
    let descriptors = server.descriptors();
    assert!(descriptors < 40, "{descriptors}");
}

/// A connection that is sent a file has two descriptors.
#[test]
fn downloads_that_are_not_read_do_not_take_the_descriptors_of_other_files() {
    let directory = Directory::new("unread");
    directory.write("site/large.bin", vec![b'x'; 8 * 1024 * 1024]);
    directory.write("site/small.txt", "small");
    let site = directory.0.join("site");
    let server = start_with_descriptors(60, &["--www", site.to_str().expect("it is UTF-8")]);
    let downloads: Vec<_> = (0..90)
        .map(|_| {
            let socket = server.connect();
            send(&socket, "GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
            socket
        })
        .collect();
    for mut socket in &downloads {
        let mut start = [0; 12];
        socket.read_exact(&mut start).expect("it has its turn");
        assert_eq!(&start, b"HTTP/1.1 200");
    }
    assert_eq!(ask(server.address, "GET", "/small.txt", &[], "").text(), "small");
}

#[test]
fn recordings_that_play_leave_descriptors_for_other_requests() {
    let directory = Directory::new("playing");
    directory.write("site/long.sse", "data: 1\n\n: +3600000 ms\ndata: 2\n\n");
    let site = directory.0.join("site");
    let server = start_with_descriptors(60, &["--www", site.to_str().expect("it is UTF-8")]);
    let mut playing: Vec<_> = (0..30).map(|_| server.connect()).collect();
    for socket in &mut playing {
        send(socket, "GET /long.sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.read_exact(&mut [0; 12]).expect("it plays, or is refused");
    }
    assert_eq!(ask(server.address, "GET", "/healthz", &[], "").text(), "ok\n");
    assert_eq!(server.metric("newswire_accept_errors_total"), 0);
}
