//! The command line: each option does what it says, and a mistake is one sentence on standard error.

use crate::files::Directory;
use crate::server::{PATIENCE, Server, ask, connect, eventually, read_until};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

const BINARY: &str = env!("CARGO_BIN_EXE_newswire");

/// The result of a process.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the command until it ends, or says that it listens. Then it is killed.
fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Outcome {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test starts");
    let mut output = child.stdout.take().expect("it is piped");
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let (mut said, mut piece) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&said).contains("listens on") {
            match output.read(&mut piece) {
                Ok(bytes @ 1..) => said.extend_from_slice(&piece[..bytes]),
                _ => break,
            }
        }
        let _ = sender.send(said);
    });
    let said = receiver.recv_timeout(PATIENCE).ok();
    let stdout = said.map(|said| String::from_utf8(said).expect("it is UTF-8"));
    if stdout.as_ref().is_none_or(|said| said.contains("listens on")) {
        child.kill().expect("it is ours");
    }
    let output = child.wait_with_output().expect("it has ended");
    Outcome {
        code: output.status.code(),
        stdout: stdout.expect("it ends, or says that it has begun"),
        stderr: String::from_utf8(output.stderr).expect("it is UTF-8"),
    }
}

/// Checks that these arguments are refused: exit code 2, nothing on standard output, and one sentence that contains
/// `what`. An error says what happened instead.
fn refuse<A: AsRef<OsStr>>(arguments: &[A], what: &str) -> Result<(), String> {
    let outcome = run(arguments);
    let line = outcome.stderr.strip_suffix('\n').unwrap_or_default();
    let is_sentence = line.starts_with("newswire: ")
        && !line.contains(char::is_control)
        && !line.contains("panicked")
        // A value may be a token, which must not reach a log.
        && !line.contains("secret")
        && line.len() < 400;
    if outcome.code == Some(2) && outcome.stdout.is_empty() && is_sentence && line.contains(what) {
        return Ok(());
    }
    let shown: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    Err(format!("{shown:?}, {what:?} expected: {outcome:?}"))
}

fn assert_refused<A: AsRef<OsStr>>(arguments: &[A], what: &str) {
    refuse(arguments, what).unwrap_or_else(|instead| panic!("{instead}"));
}

/// Fails with every case that was not refused.
fn assert_all(refusals: Vec<Result<(), String>>) {
    let wrong: Vec<String> = refusals.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Checks that a command refuses each of these arguments with these words.
pub(crate) fn assert_mistakes(command: &str, cases: &[(&[&str], &str)]) {
    let mut refusals = Vec::new();
    for (arguments, what) in cases {
        refusals.push(refuse(&[&[command], *arguments].concat(), what));
    }
    assert_all(refusals);
}

const VALUED: [&str; 17] = [
    "--base",
    "--log",
    "--trusted-proxy",
    "--listen",
    "--www",
    "--allow-origin",
    "--publish-token-file",
    "--stdin",
    "--heartbeat",
    "--max-connections",
    "--max-subscribers",
    "--max-channels",
    "--history-events",
    "--history-seconds",
    "--max-views",
    "--channel-idle",
    "--create",
];

const SWITCHES: [&str; 4] = ["--publish-open", "--lab", "--quiet", "--presence"];

#[test]
fn help_and_version_are_on_standard_output() {
    for arguments in [&["--help"][..], &["-h"], &["serve", "--help"], &["--quiet", "-h"]] {
        let outcome = run(arguments);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        for word in VALUED.iter().chain(&SWITCHES).chain(&["--history-bytes", "serve", "/lab"]) {
            assert!(outcome.stdout.contains(word), "{word}");
        }
        assert!(outcome.stdout.contains("127.0.0.1:8080"), "the default is said");
        assert!(outcome.stdout.lines().all(|line| line.len() <= 100));
    }
    for argument in ["--version", "-V"] {
        let outcome = run([argument]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert_eq!(outcome.stdout, concat!("newswire ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[test]
fn an_unknown_option_or_a_value_for_a_switch_is_refused() {
    let mut refusals = Vec::new();
    for (arguments, what) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["--nonsense=secret"], "--nonsense"),
        (&["nonsense"], "nonsense"),
        (&["serve", "nonsense"], "nonsense"),
        (&["serve", "serve"], "serve"),
        (&["--quiet", "serve"], "serve"),
        (&["--listening", "127.0.0.1:0"], "--listening"),
        (&["--Quiet"], "--Quiet"),
        (&["-q"], "-q"),
        (&["-"], "-"),
        (&["--"], "--"),
        (&["---quiet"], "---quiet"),
        (&["--=x"], "--"),
        (&[""], "not an option"),
        (&["--help\n"], "--help"),
        (&["--quiet="], "--quiet"),
        (&["--quiet=yes"], "--quiet"),
        (&["--publish-open=yes"], "--publish-open"),
        (&["--lab=on"], "--lab"),
        (&["--help=x"], "--help"),
        (&["--version=x"], "--version"),
        (&["serve=x"], "serve=x"),
    ] {
        refusals.push(refuse(arguments, what));
    }
    refusals.push(refuse(&[OsStr::from_bytes(b"--caf\xe9")], "--caf"));
    assert_all(refusals);
}

#[test]
fn a_missing_or_malformed_value_is_refused() {
    let missing = VALUED.map(|option| refuse(&[option], option));
    let mut refusals = Vec::from(missing);
    for (option, values) in [
        (
            "--listen",
            &[
                "",
                "8080",
                ":8080",
                "127.0.0.1",
                "127.0.0.1:",
                "127.0.0.1:http",
                "127.0.0.1:65536",
                "127.0.0.1:-1",
                "256.0.0.1:80",
                "127.0.0.1:80:80",
                "[::1]",
                "::1:80:",
                "http://127.0.0.1:80",
                "127.0.0.1:80\n",
                "--quiet",
                "unix:",
                "unix:,mode=660",
                "unix:/tmp/s,mode=",
                "unix:/tmp/s,mode=66",
                "unix:/tmp/s,mode=888",
                "unix:/tmp/s,mode=1660",
                "unix:/tmp/s,mode=+66",
                "unix",
                "Stdin",
            ][..],
        ),
        ("--base", &["", "/", "//", "push", "/a//b", "/a/../b", "/.", "/a b", "/%61", "/a?b"]),
        ("--log", &["", "JSON", "xml"]),
        ("--trusted-proxy", &["", "localhost", "127.0.0.1:80", "10.0.0.0/8", "Unix", "::1%lo"]),
        ("--heartbeat", &["", "x", "-1", "1.5", "86401", "15s", " 15"]),
        ("--max-connections", &["", "x", "0", "-1", "1.5", "1e3", "99999999999999999999999"]),
        ("--max-subscribers", &["", "x", "-1", "99999999999999999999999"]),
        ("--max-channels", &["", "x", "0", "-1"]),
        ("--history-events", &["", "x", "0", "-1"]),
        ("--max-views", &["", "x", "0"]),
        ("--history-seconds", &["", "x", "1.5", "1000000001"]),
        ("--channel-idle", &["", "x", "-1", "1000000001"]),
        ("--create", &["", "all", "Nobody"]),
        ("--history-bytes", &["", "x", "0", "1023", "-1", "1MiB"]),
        ("--stdin", &["", "a/b", ".hidden", "a b", "caf\u{e9}", &"x".repeat(65)]),
    ] {
        for value in values {
            let behind = format!("{option}={value}");
            refusals.push(refuse(&["--listen", "127.0.0.1:0", option, value], option));
            refusals.push(refuse(&["--listen=127.0.0.1:0", &behind], option));
        }
    }
    for origin in crate::cors::MALFORMED_ORIGINS {
        let arguments = ["--listen", "127.0.0.1:0", "--allow-origin", origin];
        refusals.push(refuse(&arguments, "--allow-origin"));
    }
    let not_utf8 = [OsStr::new("--listen"), OsStr::from_bytes(b"127.0.0.1:\xff")];
    refusals.push(refuse(&not_utf8, "--listen"));
    assert_all(refusals);
}

/// `/channels/news` could mean the channel, or the file `news` under the base.
#[test]
fn a_base_that_begins_a_path_of_the_server_is_refused() {
    let taken = ["/channels", "/channels/news", "/channels/", "/lab", "/lab/lines", "/sse", "/drain", "/samples"];
    assert_all(taken.map(|base| refuse(&["--base", base, "--listen", "127.0.0.1:0"], base)).into());
    for base in ["/push/channels", "/channel", "/channels/news/all", "/lab/other"] {
        let server = Server::start(&["--base", base]);
        let target = format!("{base}/healthz");
        assert_eq!(ask(server.address, "GET", &target, &[], "").status, 200, "{base}");
    }
    // The samples belong to the page, which a directory replaces.
    let directory = Directory::new("base");
    let path = directory.0.to_str().expect("it is UTF-8");
    let server = Server::start(&["--www", path, "--base", "/samples"]);
    assert_eq!(ask(server.address, "GET", "/samples/healthz", &[], "").status, 200);
    fs::create_dir_all(directory.0.join("docs/push")).expect("it can be made");
    let own = ["--www", path, "--listen", "127.0.0.1:0", "--base"];
    assert_all(["/docs", "/docs/push/"].map(|base| refuse(&[&own[..], &[base]].concat(), base)).into());
}

#[test]
fn a_directory_or_a_file_that_cannot_be_used_is_refused() {
    let directory = Directory::new("unusable");
    let path = |name: &str| directory.0.join(name).into_os_string();
    let (token, www) = (OsString::from("--publish-token-file"), OsString::from("--www"));
    let mut refusals = Vec::new();
    for (name, content) in [
        ("empty", &b""[..]),
        ("spaces", b" \t\r\n\n"),
        ("two-words", b"open sesame\n"),
        ("two-lines", b"open\nsesame\n"),
        ("control", b"open\x00\n"),
        ("accented", "s\u{e9}same\n".as_bytes()),
        ("binary", b"\xff\xfe\n"),
    ] {
        fs::write(path(name), content).expect("it can be written");
        let arguments = [token.clone(), path(name)];
        refusals.push(refuse(&arguments, name));
        let said = run(&arguments).stderr;
        assert!(!said.contains("sesame"), "a token is never shown: {said}");
        refusals.push(refuse(&[www.clone(), path(name)], name));
    }
    for name in ["missing", "missing/deeper", "empty/below", "two\nlines"] {
        let last = name.rsplit(['/', '\n']).next().unwrap_or(name);
        refusals.push(refuse(&[token.clone(), path(name)], last));
        refusals.push(refuse(&[www.clone(), path(name)], last));
    }
    refusals.push(refuse(&[token, directory.0.clone().into_os_string()], "cannot"));
    refusals.push(refuse(&["--www", ""], "directory"));
    refusals.push(refuse(&["--www="], "directory"));
    refusals.push(refuse(&["--publish-token-file="], "--publish-token-file"));
    assert_all(refusals);
}

#[test]
fn an_address_that_is_taken_or_not_this_machines_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it listens").to_string();
    assert_refused(&["--listen", &address], &address);
    // An address for documentation (RFC 5737)
    assert_refused(&["--listen", "192.0.2.1:0"], "192.0.2.1:0");
    // The same with two servers
    let server = Server::start(&["--quiet"]);
    let address = server.address.to_string();
    assert_refused(&["--listen", &address], &address);
}

/// Without a token every client that reaches the server can publish, so no other machine may reach it.
#[test]
fn publishing_without_a_token_is_for_loopback_only() {
    assert_refused(&["--publish-open", "--publish-token-file", "/dev/null"], "leave one out");
    let two_tokens = ["--publish-token-file", "one", "--publish-token-file", "two"];
    assert_refused(&two_tokens, "leave the others out");
    for address in ["0.0.0.0:0", "[::]:0"] {
        assert_refused(&["--publish-open", "--listen", address], "loopback");
        assert_refused(&["--listen", address, "--publish-open"], "loopback");
    }
    let server = Server::start(&["--publish-open"]);
    assert_eq!(ask(server.address, "POST", "/channels/news", &[], "x").status, 200);
    let server = Server::start(&[]);
    assert_eq!(ask(server.address, "POST", "/channels/news", &[], "x").status, 403);
}

#[test]
fn a_value_may_stand_behind_an_equals_sign() {
    let directory = Directory::new("equals");
    fs::write(directory.0.join("index.html"), "<p>mine").expect("it can be written");
    let mut command = Command::new(BINARY);
    command
        .args(["--listen=127.0.0.1:0", "--max-connections=7", "--allow-origin=http://a.example"])
        .arg(format!("--www={}", directory.0.display()));
    let server = Server::spawn(command);
    assert!(server.greeting.contains(" 7 connections"), "{}", server.greeting);
    let answer = ask(server.address, "GET", "/", &[("Origin", "http://a.example")], "");
    assert_eq!(answer.text(), "<p>mine");
    let allowed = answer.field("access-control-allow-origin");
    assert_eq!(allowed, Some("http://a.example"));
}

/// A path is bytes. It need not be UTF-8, and may contain an equals sign.
#[test]
fn any_directory_can_be_named_in_both_forms() {
    let parent = Directory::new("any");
    for name in [&b"caf\xe9"[..], b"a=b", b"--quiet", b"two words"] {
        let path = parent.0.join(OsStr::from_bytes(name));
        fs::create_dir(&path).expect("it can be made");
        fs::write(path.join("index.html"), "<p>mine").expect("it can be written");
        let mut behind = OsString::from("--www=");
        behind.push(&path);
        for arguments in [vec!["--www".into(), path.into_os_string()], vec![behind]] {
            let mut command = Command::new(BINARY);
            command.args(["--listen", "127.0.0.1:0"]).args(&arguments);
            let server = Server::spawn(command);
            assert_eq!(ask(server.address, "GET", "/", &[], "").text(), "<p>mine");
        }
        // A value that looks like an option is a value. A relative path is relative to the current directory.
        let mut command = Command::new(BINARY);
        command.current_dir(&parent.0).args(["--listen", "127.0.0.1:0", "--www"]).arg(OsStr::from_bytes(name));
        let server = Server::spawn(command);
        assert_eq!(ask(server.address, "GET", "/", &[], "").text(), "<p>mine");
    }
}

#[test]
fn the_greeting_says_where_to_look() {
    let server = Server::start(&[]);
    let address = server.address;
    assert_ne!(address.port(), 0, "it says which port it was given");
    assert!(server.greeting.contains(&format!("http://{address}/ ")), "{}", server.greeting);
    assert_eq!(ask(address, "GET", "/", &[], "").status, 200);

    // The lines of the greeting can be run as they are: the words, the laboratory, and a channel.
    let server = Server::start(&["--publish-open"]);
    for path in ["/sse/mvc/words", "/lab?interval=100", "/channels/news"] {
        let url = format!("http://{}{path}", server.address);
        eventually("the greeting is whole", || server.output().contains(&url));
        assert_eq!(ask(server.address, "HEAD", path, &[], "").status, 200);
    }

    if TcpListener::bind("[::1]:0").is_ok() {
        let mut command = Command::new(BINARY);
        command.args(["--listen", "[::1]:0", "--quiet"]);
        let server = Server::spawn(command);
        assert!(server.address.is_ipv6(), "{}", server.greeting);
        assert_eq!(ask(server.address, "GET", "/healthz", &[], "").text(), "ok\n");
    }
}

#[test]
fn each_request_is_a_line_on_standard_error_unless_quiet() {
    let server = Server::start(&[]);
    let quiet = Server::start(&["--quiet"]);
    for server in [&server, &quiet] {
        let mut socket = server.connect();
        for request in
            ["GET /healthz?a=b HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: a\r\nX: y\x07\r\n\r\n"]
        {
            socket.write_all(request.as_bytes()).expect("the server reads");
        }
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).expect("the server closes");
        // A hostile request must not write a line of its own, nor move the cursor of a terminal.
        server.exchange("GET /%0d%0a1999-01-01T00:00:00Z%1b[2J HTTP/1.0\r\n\r\n");
        server.exchange("GET /x\x1b[2J HTTP/1.0\r\n\r\n");
    }
    eventually("four lines are written", || server.said().lines().count() >= 4);
    let said = server.said();
    let lines: Vec<&str> = said.lines().collect();
    for (line, end) in
        lines.iter().zip([" GET /healthz?a=b 200", " - 400", " GET /%0d%0a1999-01-01T00:00:00Z%1b[2J 404", " - 400"])
    {
        let (start, _) = line.split_once(end).unwrap_or_else(|| panic!("{line} without {end}"));
        let (date, peer) = start.split_once(' ').expect("a date and a peer");
        assert!(date.len() == 20 && date.ends_with('Z') && date.contains('T'), "{line}");
        assert!(peer.parse::<SocketAddr>().is_ok_and(|peer| peer.ip().is_loopback()), "{line}");
        assert!(line.ends_with(end) && !line.contains(char::is_control), "{line:?}");
    }
    assert_eq!(lines.len(), 4, "{said}");
    assert_eq!(quiet.said(), "");
}

/// An address that no other test uses, so that its port is free.
fn own_address(last: u8) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 77, high, low], 18080 + u16::from(last)))
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(address: SocketAddr, stdout: Stdio, stderr: Stdio) -> Running {
    let child = Command::new(BINARY)
        .args(["--listen", &address.to_string()])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn();
    Running(child.expect("the binary under test starts"))
}

/// After `newswire | head -1`, or in a terminal that was closed, each write to an output fails.
#[test]
fn it_serves_although_its_outputs_are_closed() {
    let closed = || {
        let (reader, writer) = pipe().expect("there are descriptors");
        drop(reader);
        Stdio::from(writer)
    };
    let ways = [(1, closed(), Stdio::null()), (2, Stdio::null(), closed()), (3, closed(), closed())];
    for (last, stdout, stderr) in ways {
        let address = own_address(last);
        let mut running = spawn(address, stdout, stderr);
        eventually("it listens", || TcpStream::connect(address).is_ok());
        for _ in 0..10 {
            assert_eq!(ask(address, "GET", "/healthz", &[], "").text(), "ok\n");
            assert_eq!(ask(address, "GET", "/nothing", &[], "").status, 404);
        }
        assert_eq!(running.0.try_wait().expect("it is ours"), None, "way {last}");
    }
    // The exit code of a mistake is the same.
    let code = Command::new(BINARY).arg("--nonsense").stderr(closed()).status();
    assert_eq!(code.expect("it starts").code(), Some(2));
}

/// A pipe that no process reads is full after a while.
#[test]
fn it_serves_although_its_standard_error_is_full() {
    let address = own_address(4);
    let (reader, writer) = pipe().expect("there are descriptors");
    let _running = spawn(address, Stdio::null(), Stdio::from(writer));
    eventually("it listens", || TcpStream::connect(address).is_ok());
    let long = "x".repeat(7_000);
    let request = format!("GET /healthz?{long} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut socket = connect(address);
    for _ in 0..200 {
        socket.write_all(request.as_bytes()).expect("the server reads");
        read_until(&mut socket, "\r\n\r\nok\n");
    }
    drop(reader);
    assert_eq!(ask(address, "GET", "/healthz", &[], "").text(), "ok\n");
}

/// Otherwise a storm of clients would stop all threads each time the table doubles.
#[test]
fn the_kernel_has_room_for_the_descriptors_of_all_connections_from_the_start() {
    let server = Server::start(&["--max-connections", "3000", "--quiet"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("it is there");
    let room: usize = line.trim().parse().expect("it is a number");
    assert!(room >= 3000 || server.greeting.contains("descriptor limit"), "{room}");
}

#[test]
fn it_promises_no_more_connections_than_there_are_descriptors() {
    let start = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 200; exec \"$0\" --listen 127.0.0.1:0 --quiet \"$@\"", BINARY]).args(arguments);
        Server::spawn(command)
    };
    let promised = |server: &Server| -> usize {
        let (before, _) = server.greeting.rsplit_once(" connections. ").expect("it says how many");
        let (_, number) = before.rsplit_once(' ').expect("it is a sentence");
        number.parse().expect("it is a number")
    };
    for arguments in [&[][..], &["--max-connections", "5000"]] {
        let server = start(arguments);
        assert!(server.greeting.contains("descriptor limit of 200"), "{}", server.greeting);
        assert!((1..200).contains(&promised(&server)), "{}", server.greeting);
        assert!(arguments.is_empty() || server.greeting.contains("5000"));
    }
    let server = start(&["--max-connections", "20"]);
    assert_eq!(promised(&server), 20);
    assert!(!server.greeting.contains("descriptor limit"), "{}", server.greeting);
}

#[test]
fn it_can_be_killed_and_started_again_at_the_same_address() {
    let mut server = Server::start(&["--quiet"]);
    let address = server.address;
    for _ in 0..5 {
        let mut socket = connect(address);
        let request = b"GET /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\n\r\n";
        socket.write_all(request).expect("the server reads");
        read_until(&mut socket, "retry: ");
        server.kill();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        let mut command = Command::new(BINARY);
        command.args(["--quiet", "--listen", &address.to_string()]);
        server = Server::spawn(command);
    }
    assert_eq!(ask(address, "GET", "/healthz", &[], "").text(), "ok\n");
}

#[test]
fn standard_input_is_not_read_without_the_option_for_it() {
    let mut server = Server::start(&["--quiet"]);
    let mut stdin = server.stdin();
    stdin.write_all(b"not for it\n").expect("it holds the pipe");
    drop(stdin);
    assert_eq!(ask(server.address, "GET", "/healthz", &[], "").text(), "ok\n");
    let channels: OsString = ask(server.address, "GET", "/channels", &[], "").text().into();
    assert_eq!(channels, "[]\n");
}
