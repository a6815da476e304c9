//! Where a server listens: several addresses, Unix sockets, a socket that another process has opened, and a base path;
//! and what the log says of the clients.

use crate::files::Directory;
use crate::server::{PATIENCE, Server, ask, eventually};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

const BINARY: &str = env!("CARGO_BIN_EXE_newswire");
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A server that has said where it listens. It ends with the test.
struct Running {
    child: Child,
    greeting: String,
}

impl Running {
    fn start(arguments: &[&str], stdin: Stdio) -> Running {
        let mut command = Command::new(BINARY);
        command.args(arguments).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary under test starts");
        let mut greeting = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        stdout.read_line(&mut greeting).expect("its output is text");
        assert!(greeting.contains("listens on"), "{arguments:?}: {greeting:?}");
        thread::spawn(move || stdout.read_to_string(&mut String::new()));
        Running { child, greeting }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exchange(mut socket: impl Read + Write, request: &str) -> std::io::Result<String> {
    socket.write_all(request.as_bytes())?;
    let mut response = String::new();
    socket.read_to_string(&mut response)?;
    Ok(response)
}

fn connect_unix(path: &Path) -> std::io::Result<UnixStream> {
    let socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn ask_unix(path: &Path, request: &str) -> String {
    let answer = connect_unix(path).and_then(|socket| exchange(socket, request));
    answer.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// The one sentence with which a server refuses to start.
fn refusal(arguments: &[&str], stdin: Stdio) -> String {
    let output = Command::new(BINARY).args(arguments).stdin(stdin).output();
    let output = output.expect("the binary under test starts");
    let said = String::from_utf8(output.stderr).expect("it is UTF-8");
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{arguments:?}: {said}");
    said
}

#[test]
fn a_server_listens_at_every_address_that_it_is_given() {
    let directory = Directory::new("addresses");
    let (open, own) = (directory.0.join("open"), directory.0.join("own"));
    let own_mode = format!("{},mode=0600", unix(&own));
    let server = Server::start(&["--listen", "127.0.0.1:0", "--listen", &unix(&open), "--listen", &own_mode]);
    let second = server.greeting.split("http://").nth(2).and_then(|rest| rest.split('/').next());
    let second: SocketAddr = second.and_then(|address| address.parse().ok()).expect("it is said");
    for address in [server.address, second] {
        assert_eq!(ask(address, "GET", "/healthz", &[], "").text(), "ok\n");
    }
    for path in [&open, &own] {
        assert!(ask_unix(path, HEALTH).ends_with("\r\n\r\nok\n"));
        assert!(server.greeting.contains(&unix(path)), "{}", server.greeting);
    }
    assert_eq!((mode(&open), mode(&own)), (0o660, 0o600));
}

#[test]
fn a_stream_over_a_unix_socket_arrives_event_by_event() {
    let directory = Directory::new("unix-stream");
    let path = directory.0.join("s");
    let server = Running::start(&["--quiet", "--listen", &unix(&path)], Stdio::null());
    assert!(server.greeting.contains(&unix(&path)), "{}", server.greeting);
    let mut socket = connect_unix(&path).expect("it listens");
    let request = "GET /lab?text=a+b+c&interval=1000&retry=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("the server reads");
    let mut lines = BufReader::new(socket).lines().map(|line| line.expect("it is text"));
    assert!(lines.any(|line| line == "data: a"));
    assert!(lines.any(|line| line == "data: b"));
}

#[test]
fn the_file_of_a_server_that_was_killed_is_replaced_and_no_other_file_is() {
    let directory = Directory::new("stale");
    let path = directory.0.join("s");
    let arguments = ["--quiet", "--listen", &unix(&path)];
    drop(Running::start(&arguments, Stdio::null()));
    assert!(fs::symlink_metadata(&path).expect("it was killed").file_type().is_socket());
    let live = Running::start(&arguments, Stdio::null());
    assert!(refusal(&arguments, Stdio::null()).contains("another server listens there"));
    assert!(ask_unix(&path, HEALTH).contains("200 OK"), "the first one goes on");
    drop(live);
    fs::remove_file(&path).expect("it is left");
    fs::write(&path, "precious").expect("it can be written");
    assert!(refusal(&arguments, Stdio::null()).contains("not a socket"));
    assert_eq!(fs::read_to_string(&path).expect("it is left"), "precious");
}

#[test]
fn the_file_of_a_socket_is_removed_at_the_end_unless_another_server_has_put_its_own_there() {
    let directory = Directory::new("removed");
    let path = directory.0.join("s");
    let end = |between: &dyn Fn()| {
        let mut server = Server::start(&["--quiet", "--listen", &unix(&path)]);
        between();
        assert_eq!(drain(server.address), Some(0));
        assert_eq!(server.wait(), Some(0));
    };
    end(&|| ());
    assert!(!path.exists());
    end(&|| {
        fs::remove_file(&path).expect("it is a file");
        UnixListener::bind(&path).expect("the path is free");
    });
    assert!(path.exists());
}

/// The exit code of the command that drains.
fn drain(address: SocketAddr) -> Option<i32> {
    let mut command = Command::new(BINARY);
    command.args(["drain", "--deadline", "5", &format!("http://{address}")]);
    command.output().expect("it starts").status.code()
}

/// A parent opens the socket and keeps it, as systemd does, while clients connect all the time.
#[test]
fn a_server_that_got_its_socket_as_standard_input_is_restarted_without_a_refused_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    let start = || {
        let socket = OwnedFd::from(listener.try_clone().expect("there are descriptors"));
        Running::start(&["--quiet", "--listen", "stdin"], socket.into())
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let mut server = start();
    let ask_all_the_time = move |is_over: Arc<AtomicBool>| {
        let mut answered = 0;
        while !is_over.load(Relaxed) {
            let answer = TcpStream::connect(address).and_then(|socket| exchange(socket, HEALTH));
            let is_answered = answer.as_ref().is_ok_and(|text| text.contains("200 OK"));
            assert!(is_answered, "after {answered} answers: {answer:?}");
            answered += 1;
        }
        answered
    };
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || ask_all_the_time(is_over))
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(drain(address), Some(0));
        assert!(server.child.wait().expect("it is ours").success());
        server = start();
    }
    is_over.store(true, Relaxed);
    let answered: Vec<u32> = clients.into_iter().map(|it| it.join().expect("see above")).collect();
    assert!(answered.iter().all(|answered| *answered > 3), "{answered:?}");
}

#[test]
fn a_unix_socket_can_be_standard_input_and_its_file_is_left_to_the_process_that_made_it() {
    let directory = Directory::new("inherited");
    let path = directory.0.join("s");
    let listener = UnixListener::bind(&path).expect("the path is free");
    listener.set_nonblocking(true).expect("it is a socket");
    let server = Running::start(&["--quiet", "--listen", "stdin"], OwnedFd::from(listener).into());
    assert!(server.greeting.contains(&unix(&path)), "{}", server.greeting);
    assert!(ask_unix(&path, HEALTH).contains("200 OK"));
    drop(server);
    assert!(path.exists());
}

#[test]
fn a_standard_input_that_does_not_listen_is_refused_in_one_sentence() {
    let arguments = ["--listen", "stdin"];
    assert!(refusal(&arguments, Stdio::null()).contains("no socket that listens"));
    assert!(refusal(&arguments, Stdio::piped()).contains("no socket that listens"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    let _client = TcpStream::connect(address).expect("it listens");
    let (connection, _) = listener.accept().expect("there is a client");
    assert!(refusal(&arguments, OwnedFd::from(connection).into()).contains("Accept=no"));
    let (one, _other) = UnixStream::pair().expect("there are descriptors");
    assert!(refusal(&arguments, OwnedFd::from(one).into()).contains("Accept=no"));
    // Bound, but not listening
    let bound = TcpStream::from(OwnedFd::from(listener));
    bound.shutdown(Shutdown::Both).expect("it listens");
    assert!(refusal(&arguments, OwnedFd::from(bound).into()).contains("no socket that listens"));
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("there is a free port");
    assert!(refusal(&arguments, OwnedFd::from(datagrams).into()).contains("no socket that listens"));
    let both = ["--listen", "stdin", "--stdin", "news"];
    assert!(refusal(&both, Stdio::null()).contains("exclude each other"));
    // Only the socket itself says whether other machines reach it.
    let everywhere = TcpListener::bind("0.0.0.0:0").expect("there is a free port");
    let open = ["--listen", "stdin", "--publish-open"];
    assert!(refusal(&open, OwnedFd::from(everywhere).into()).contains("loopback"));
}

#[test]
fn a_server_without_a_page_does_not_send_the_user_to_a_browser() {
    let directory = Directory::new("no-page");
    directory.write("site/a.sse", "data: a\n\n");
    assert!(!directory.serve().greeting.contains("browser"));
    directory.write("site/index.html", "<!doctype html>");
    assert!(directory.serve().greeting.contains("Open it in a browser"));
}

/// The strictest of its addresses decides what a server allows.
#[test]
fn one_address_that_other_machines_reach_makes_a_server_public() {
    let directory = Directory::new("strictest");
    let path = directory.0.join("s");
    let public = ["--listen", &unix(&path), "--listen", "0.0.0.0:0"];
    let open = [&public[..], &["--publish-open"]].concat();
    assert!(refusal(&open, Stdio::null()).contains("is not a loopback address"));
    let server = Server::start(&public);
    assert_eq!(ask(server.address, "GET", "/lab", &[], "").status, 404);
    // A page of a name that was rebound to loopback is still found out.
    for (host, status) in [("evil.example", 403), ("localhost", 404), ("192.0.2.1:80", 404)] {
        let answer = ask(server.address, "DELETE", "/lab/lines/x", &[("Host", host)], "");
        assert_eq!(answer.status, status, "{host}");
    }
    let server = Server::start(&["--publish-open", "--listen", &unix(&directory.0.join("own"))]);
    assert_eq!(ask(server.address, "POST", "/channels/news", &[], "x").status, 200);
    assert_eq!(ask(server.address, "GET", "/lab?count=1&interval=0", &[], "").status, 200);
}

#[test]
fn everything_is_served_under_the_base_too() {
    let server = Server::start(&["--base", "/apps/push", "--publish-open"]);
    let status = |method: &str, target: &str| ask(server.address, method, target, &[], "").status;
    for target in ["/", "/app.js", "/healthz", "/channels", "/sse/mvc/words", "/samples/"] {
        assert_eq!(status("HEAD", target), 200, "{target}");
        assert_eq!(status("HEAD", &format!("/apps/push{target}")), 200, "{target}");
    }
    assert_eq!(status("POST", "/apps/push/channels/news"), 200);
    for target in ["/apps/", "/apps/pushy/", "/apps/push/apps/push/", "/push/", "/apps%2Fpush/"] {
        assert_eq!(status("GET", target), 404, "{target}");
    }
    // Relative addresses of the page need the slash.
    let answer = ask(server.address, "GET", "/apps/push", &[], "");
    assert_eq!((answer.status, answer.field("location")), (307, Some("push/")));
    assert_eq!(ask(server.address, "OPTIONS", "*", &[], "").status, 204);
    // Fields that are answered before a route is looked for
    let preflight = [("Origin", "http://a.example"), ("Access-Control-Request-Method", "POST")];
    let answer = ask(server.address, "OPTIONS", "/apps/push/channels/x", &preflight, "");
    assert!(answer.head.contains("POST"), "{answer:?}");
}

/// The clients in the log of a server that believes these proxies, after one request with these fields each.
fn logged(trusted: &[&str], requests: &[&[(&str, &str)]]) -> Vec<String> {
    let options = trusted.iter().flat_map(|proxy| ["--trusted-proxy", proxy]);
    let server = Server::start(&options.collect::<Vec<_>>());
    for (at, fields) in requests.iter().enumerate() {
        assert_eq!(ask(server.address, "GET", "/healthz", fields, "").status, 200);
        eventually("it is logged", || server.said().lines().count() > at);
    }
    let said = server.said();
    let client = |line: &str| line.split(' ').nth(1).expect("it has a client").to_owned();
    said.lines().map(client).collect()
}

#[test]
fn the_log_names_the_client_that_a_trusted_proxy_names() {
    const PEER: &str = "127.0.0.1:";
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("X-Forwarded-For", "192.0.2.7")], "192.0.2.7"),
        (&[("X-Forwarded-For", "192.0.2.7:4711")], "192.0.2.7"),
        (&[("X-Forwarded-For", "2001:db8::7")], "2001:db8::7"),
        (&[("X-Forwarded-For", "[2001:db8::7]:4711")], "2001:db8::7"),
        (&[("X-Forwarded-For", "::ffff:192.0.2.7")], "192.0.2.7"),
        (&[("Forwarded", "for=192.0.2.7;proto=https")], "192.0.2.7"),
        (&[("Forwarded", "proto=https; FOR=\"[2001:db8::7]:4711\"")], "2001:db8::7"),
        // The client has sent the first ones. The proxy has added the last one.
        (&[("X-Forwarded-For", "203.0.113.9, 192.0.2.7")], "192.0.2.7"),
        (&[("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "192.0.2.7")], "192.0.2.7"),
        (&[("Forwarded", "for=\"203.0.113.9, for=192.0.2.7")], "192.0.2.7"),
        // A second trusted proxy stands behind the first one.
        (&[("X-Forwarded-For", "203.0.113.9, 192.0.2.7, 10.0.0.1")], "192.0.2.7"),
        (&[("X-Forwarded-For", "10.0.0.1, 127.0.0.1")], "10.0.0.1"),
        // What is no address is not guessed at.
        (&[], PEER),
        (&[("X-Forwarded-For", "unknown")], PEER),
        (&[("X-Forwarded-For", "192.0.2.7, 10.0.0.300")], PEER),
        (&[("X-Forwarded-For", "192.0.2.7, _hidden, 10.0.0.1")], PEER),
        (&[("X-Forwarded-For", ",,")], PEER),
        (&[("Forwarded", "for=_hidden")], PEER),
        (&[("Forwarded", "for=192.0.2.7;for=192.0.2.8")], PEER),
        (&[("Forwarded", "by=192.0.2.7")], PEER),
        // One of the two fields is the client's own, and nothing says which: it neither hides the other, nor stands alone.
        (&[("Forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "192.0.2.7")], "192.0.2.7,203.0.113.9"),
        (&[("X-Forwarded-For", "unknown"), ("Forwarded", "for=_hidden")], PEER),
        (&[("Forwarded", "for=192.0.2.7"), ("X-Forwarded-For", "192.0.2.7")], "192.0.2.7"),
    ];
    let requests: Vec<_> = cases.iter().map(|(fields, _)| *fields).collect();
    let clients = logged(&["127.0.0.1", "10.0.0.1"], &requests);
    let both = [("Forwarded", "for=unknown"), ("X-Forwarded-For", "192.0.2.7")];
    let client = logged(&["127.0.0.1"], &[&both]).concat();
    assert!(client.starts_with(&format!("192.0.2.7,{PEER}")), "{client}");
    for ((fields, client), logged) in cases.iter().zip(&clients) {
        assert!(logged.starts_with(client), "{fields:?}: {logged}, not {client}");
        assert_eq!(logged == client, *client != PEER, "{fields:?}: {logged}");
    }
    for trusted in [&[][..], &["10.0.0.1"], &["unix"]] {
        let clients = logged(trusted, &requests);
        assert!(clients.iter().all(|client| client.starts_with(PEER)), "{trusted:?}: {clients:?}");
    }
}

/// A key stands in the query because `EventSource` can send no fields. A log is read by more people than may use the key.
#[test]
fn a_key_in_the_query_never_reaches_the_log() {
    for format in ["text", "json"] {
        let server = Server::start(&["--log", format]);
        for target in [
            "/healthz?key=opensesame&a=%22",
            "/healthz?a=b&k%65y=opensesame&key=opensesame",
            "/nothing?key=opensesame=opensesame&keys=mine",
            "/nothing?KEY=opensesame&;key=opensesame",
        ] {
            ask(server.address, "GET", target, &[("Referer", "/?key=opensesame")], "");
        }
        eventually("they are logged", || server.said().lines().count() == 4);
        let said = server.said();
        assert!(!said.contains("opensesame"), "{said}");
        for rest in ["/healthz?key=***&a=%22", "?a=b&k%65y=***&key=***", "?key=***&keys=mine"] {
            assert!(said.contains(rest), "{rest} is not in {said}");
        }
    }
}

#[test]
fn a_log_in_json_is_one_object_a_line() {
    let directory = Directory::new("json");
    let path: PathBuf = directory.0.join("s");
    let server = Server::start(&["--log", "json", "--listen", &unix(&path)]);
    ask(server.address, "GET", "/a\"b\\c?d='%00", &[], "");
    ask_unix(&path, HEALTH);
    server.exchange("NONSENSE\r\n\r\n");
    eventually("they are logged", || server.said().lines().count() == 3);
    let said = server.said();
    for (line, (client, rest)) in said.lines().zip([
        ("127.0.0.1:", r#""method":"GET","target":"/a\"b\\c?d='%00","status":404}"#),
        ("unix\"", r#""method":"GET","target":"/healthz","status":200}"#),
        ("127.0.0.1:", r#""method":null,"target":null,"status":400}"#),
    ]) {
        let (time, behind) = line.split_once(r#"Z","client":""#).expect("it has a client");
        assert!(time.starts_with(r#"{"time":"20"#), "{line}");
        assert!(behind.starts_with(client) && behind.ends_with(rest), "{line}");
    }
}
