//! `--access FILE`: which key may do what, how a key comes, and what becomes of it when the file changes.

use crate::server::{Answer, Dice, Server, Stream, ask, connect, eventually};
use crate::webdriver::Browser;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const ALICE: &str = "alice-0123456789";
const BOB: &str = "bob-9876543210/+=~";
const BACKEND: &str = "backend.key_of-42";

/// A file of keys that ends with the test.
pub(crate) struct KeyFile(PathBuf);

impl KeyFile {
    pub(crate) fn holding(text: &str) -> KeyFile {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let name = format!("newswire-keys-{}-{}", std::process::id(), FILES.fetch_add(1, Relaxed));
        let file = KeyFile(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    /// As an editor does: another file takes the name.
    fn write(&self, text: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, text).expect("there is room");
        fs::rename(&new, &self.0).expect("it is the same directory");
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("it is UTF-8")
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An upload in chunks, of which none is sent yet.
pub(crate) fn upload(address: SocketAddr, target: &str, field: &str) -> TcpStream {
    let mut socket = connect(address);
    let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{field}\r\n");
    socket.write_all(head.as_bytes()).expect("the server reads");
    socket
}

fn lines() -> String {
    format!(
        "# The backend publishes everything.\n{BACKEND} allow all *\n\
         {ALICE} allow subscribe user.alice shop.*   # and nothing else\n\
         {BOB}\tallow  all user.bob\n\nanyone allow subscribe news\n"
    )
}

/// Without heartbeats, so that a stream that does not end as it should is silent, and its test ends.
fn start(file: &KeyFile) -> Server {
    Server::start(&["--access", file.path(), "--heartbeat", "0"])
}

/// The three ways in which a key comes.
fn with_key(server: &Server, method: &str, target: &str, key: &str, way: usize) -> Answer {
    let (bearer, cookie) = (format!("Bearer {key}"), format!("a=b; newswire_key={key}; c"));
    let encoded = key.replace('+', "%2B");
    let mark = if target.contains('?') { '&' } else { '?' };
    let (target, fields) = match way {
        0 => (target.to_owned(), vec![("Authorization", bearer.as_str())]),
        1 => (target.to_owned(), vec![("Cookie", cookie.as_str())]),
        _ => (format!("{target}{mark}key={encoded}"), vec![]),
    };
    ask(server.address, method, &target, &fields, "x")
}

#[test]
fn a_key_opens_what_its_lines_say_in_each_way_in_which_it_comes() {
    let file = KeyFile::holding(&lines());
    let server = start(&file);
    for way in 0..3 {
        for (key, method, channels, status) in [
            (BACKEND, "POST", "user.alice", 200),
            (BACKEND, "POST", "user.alice,shop.a,other", 200),
            (BACKEND, "HEAD", "other", 200),
            (BACKEND, "DELETE", "other", 204),
            (ALICE, "HEAD", "user.alice", 200),
            (ALICE, "HEAD", "shop.a", 200),
            (ALICE, "HEAD", "user.bob", 401),
            (ALICE, "POST", "user.alice", 401),
            (ALICE, "DELETE", "user.alice", 401),
            (BOB, "POST", "user.bob", 200),
            (BOB, "PUT", "user.bob,user.alice", 401),
            (BOB, "HEAD", "user.bob", 200),
            (BOB, "HEAD", "user.alice", 401),
            (BOB, "HEAD", "news", 200),
            (BOB, "POST", "news", 401),
            ("unknown-0123456789", "HEAD", "user.alice", 401),
        ] {
            let answer = with_key(&server, method, &format!("/channels/{channels}"), key, way);
            assert_eq!(answer.status, status, "{method} {channels} of {key}, way {way}");
        }
    }
    // An open channel needs none.
    assert_eq!(ask(server.address, "HEAD", "/channels/news", &[], "").status, 200);
    // One that comes is enough, whatever else comes.
    let fields = [("Authorization", "Bearer of-something-else"), ("Cookie", "newswire_key=alice-0123456789")];
    assert_eq!(ask(server.address, "HEAD", "/channels/user.alice", &fields, "").status, 200);
}

/// A channel that a line names is private for what the line allows, and each other one is as it was.
#[test]
fn what_no_line_names_is_open_and_beginnings_of_names_are_judged_by_all_that_they_could_be() {
    let file = KeyFile::holding(&format!(
        "{ALICE} allow all user.7 shop.*\n{BOB} allow subscribe shop.a\nanyone allow subscribe shop.open\n\
         {BOB} allow publish news\nnone allow all lonely.*\n"
    ));
    let server = Server::start(&["--access", file.path(), "--publish-open"]);
    // A name that may be asked for and is none is 404, and a stream is 200.
    for (method, channels, key, status) in [
        ("HEAD", "user.7", ALICE, 200),
        ("HEAD", "user.7", BOB, 401),
        ("HEAD", "user.70", "", 200),
        ("POST", "user.70", "", 200),
        ("HEAD", "@presence.user.7", "", 401),
        ("POST", "shop.a", BOB, 401),
        ("HEAD", "shop.a", BOB, 200),
        ("HEAD", "shop.open", "", 200),
        ("POST", "shop.open", "", 401),
        ("POST", "shop.open", ALICE, 200),
        ("POST", "news", "", 401),
        ("HEAD", "news", "", 200),
        ("HEAD", "lonely.heart", ALICE, 401),
        ("HEAD", "lonely.heart", "none", 401),
        ("POST", "user.7,other", "", 401),
        ("POST", "user.7,other", ALICE, 200),
        ("POST", "user.7,shop.a", BOB, 401),
        // What begins so could be private.
        ("HEAD", "user.*", ALICE, 401),
        ("HEAD", "*", ALICE, 401),
        ("HEAD", "shop.open*", "", 401),
        ("POST", "shop.a*", ALICE, 404),
        ("POST", "weather.*", "", 404),
    ] {
        let answer = with_key(&server, method, &format!("/channels/{channels}"), key, 0);
        assert_eq!(answer.status, status, "{method} {channels} of {key:?}");
    }
}

/// A program that is still writing the file has not said what it means yet. Without its last lines a file is sound, too.
#[test]
fn a_file_that_is_being_written_does_not_count() {
    let file = KeyFile::holding(&format!("{ALICE} allow subscribe secret\n"));
    let server = start(&file);
    let asked = || ask(server.address, "HEAD", "/channels/secret", &[], "").status;
    // Another text each time, none of which names the channel. Again, if the machine has held up the writer.
    let is_written = (0..20).any(|_| {
        let (begun, mut written, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        while begun.elapsed() < Duration::from_secs(4) {
            file.write(&format!("{ALICE} allow subscribe other # {:?}\n", begun.elapsed()));
            longest = longest.max(written.elapsed());
            written = Instant::now();
            thread::sleep(Duration::from_millis(20));
        }
        longest < Duration::from_millis(500)
    });
    assert!(is_written, "the machine is too busy to write a file");
    assert_eq!(asked(), 401);
    eventually("the last text counts", || asked() == 200);
}

/// Lines that cover and overlap one another in each way, against a reading of the rule that looks at every line.
#[test]
fn any_lines_are_read_as_if_each_were_looked_at() {
    let mut dice = Dice::new(12);
    for _ in 0..5 {
        let pattern = |dice: &mut Dice| {
            let text: String = (0..1 + dice.below(3)).map(|_| *dice.pick(&['a', 'b', '-'])).collect();
            text + *dice.pick(&["", "*"])
        };
        let holders = [ALICE, BOB, "anyone", "none"];
        let lines: Vec<(&str, String)> = (0..12).map(|_| (*dice.pick(&holders), pattern(&mut dice))).collect();
        let text = lines.iter().map(|(holder, it)| format!("{holder} allow subscribe {it}\n"));
        let file = KeyFile::holding(&text.collect::<String>());
        let server = start(&file);
        let covers = |one: &str, other: &str| match one.strip_suffix('*') {
            Some(start) => other.strip_suffix('*').unwrap_or(other).starts_with(start),
            None => one == other,
        };
        for _ in 0..60 {
            let (asked, key) = (pattern(&mut dice), *dice.pick(&[ALICE, BOB, "unknown-0123456789"]));
            let allows = |(holder, it): &(&str, String)| (*holder == key || *holder == "anyone") && covers(it, &asked);
            let names = |(_, it): &(&str, String)| covers(it, &asked) || covers(&asked, it);
            let is_open = lines.iter().any(allows) || !lines.iter().any(names);
            let answer = with_key(&server, "HEAD", &format!("/channels/{asked}"), key, 0);
            let expected = if is_open { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{asked} of {key} with {lines:?}");
        }
    }
}

/// Clock ticks, a hundred a second, that a process has used (proc_pid_stat(5)).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("the name ends");
    rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("it is a number")).sum()
}

/// Each line was looked at for each channel: a list took the processor for a fifth of a second, without a key.
#[test]
fn twenty_thousand_lines_do_not_make_a_list_of_a_thousand_channels_expensive() {
    let line = |number: usize| format!("key-{number:012} allow all user.{number} g{number}.*\n");
    let many: String = (0..20_000).map(line).collect();
    let cost = |lines: &str| {
        let file = KeyFile::holding(&(lines.to_owned() + BACKEND + " allow publish *\n"));
        let server = Server::start(&["--access", file.path(), "--quiet"]);
        for first in (0..1_000).step_by(50) {
            let names: Vec<String> = (first..first + 50).map(|n| format!("c{n}")).collect();
            let answer = with_key(&server, "POST", &format!("/channels/{}", names.join(",")), BACKEND, 0);
            assert_eq!(answer.status, 200);
        }
        let before = ticks(server.pid());
        for _ in 0..5 {
            let list = ask(server.address, "GET", "/channels", &[], "");
            assert_eq!(list.text().matches("\"name\"").count(), 1_000);
        }
        ticks(server.pid()) - before
    };
    let (few, many) = (cost(""), cost(&many));
    assert!(many < 3 * few + 50, "{few} ticks with a line, and {many} with 20,001");
}

/// What a request is answered when it may not know whether a channel is there, but for its date.
fn refusal(server: &Server, target: &str, fields: &[(&str, &str)]) -> (u16, String, String) {
    let answer = ask(server.address, "GET", target, fields, "");
    let head = answer.head.lines().filter(|line| !line.starts_with("Date: "));
    (answer.status, head.collect::<Vec<_>>().join("\n"), answer.text().to_owned())
}

#[test]
fn an_unknown_channel_and_a_forbidden_one_are_answered_the_same() {
    let file = KeyFile::holding(&lines());
    let server = start(&file);
    let exists = with_key(&server, "POST", "/channels/user.bob,shop.a", BACKEND, 0);
    assert_eq!(exists.status, 200);
    let expected = refusal(&server, "/channels/not-there", &[]);
    assert_eq!(expected.0, 401);
    assert!(expected.1.contains("WWW-Authenticate: Bearer"), "{expected:?}");
    assert!(expected.1.contains("Cache-Control: no-store"), "{expected:?}");
    let alice = format!("Bearer {ALICE}");
    let json = ("Accept", "application/json");
    for (target, fields) in [
        ("/channels/user.bob", vec![]),
        ("/channels/user.bob", vec![("Authorization", &*alice)]),
        ("/channels/user.nobody", vec![("Authorization", &*alice)]),
        ("/channels/user.bob", vec![("Authorization", "Bearer x")]),
        ("/channels/user.bob?key=", vec![]),
        ("/channels/user.bob", vec![json]),
        ("/channels/nothing", vec![json, ("Authorization", &*alice)]),
        ("/channels/user.bob?poll&last_event_id=1-1", vec![]),
        ("/channels/%2e%2e", vec![]),
        ("/channels/news,user.bob", vec![]),
        ("/channels/user.*", vec![("Authorization", &*alice)]),
    ] {
        assert_eq!(refusal(&server, target, &fields), expected, "{target} {fields:?}");
    }
    let answer = ask(server.address, "POST", "/channels/news", &[], "x");
    assert_eq!((answer.status, answer.text()), (401, &*expected.2));
    assert_eq!(server.metric("newswire_access_refused_total"), 13);
}

#[test]
fn the_list_shows_what_the_key_may_subscribe_to() {
    let file = KeyFile::holding(&lines());
    let server = start(&file);
    let channels = "/channels/user.alice,user.bob,shop.a,news,other";
    assert_eq!(with_key(&server, "POST", channels, BACKEND, 0).status, 200);
    let listed = |key: &str, way: usize| {
        let answer = with_key(&server, "GET", "/channels", key, way);
        let names = answer.text().split("\"name\":\"").skip(1);
        names.map(|rest| rest.split('"').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    for way in 0..3 {
        assert_eq!(listed("none", way), ["news"]);
        assert_eq!(listed(ALICE, way), ["news", "shop.a", "user.alice"]);
        assert_eq!(listed(BOB, way), ["news", "user.bob"]);
        assert_eq!(listed(BACKEND, way), ["news", "other", "shop.a", "user.alice", "user.bob"]);
    }
}

#[test]
fn keys_and_names_that_attack_open_nothing() {
    let file = KeyFile::holding(&lines());
    let server = start(&file);
    let long = "x".repeat(6_000);
    let many = format!("{}newswire_key={ALICE}", "newswire_key=x; ".repeat(300));
    let head = |target: &str, fields: &[(&str, &str)]| ask(server.address, "HEAD", target, fields, "").status;
    for key in [
        "",
        "*",
        "anyone",
        "none",
        "alice-012345678",
        "alice-01234567890",
        "ALICE-0123456789",
        "alice-0123456789%00",
        "alice-0123456789%0A",
        "%20alice-0123456789",
        "%22alice-0123456789%22",
        "alice-0123456789,x",
        "alice-0123456789%20allow%20all%20*",
        "%ff%fe",
        &long,
    ] {
        assert_eq!(head(&format!("/channels/user.alice?key={key}"), &[]), 401, "{key}");
    }
    // The first cookie and the first parameter count: what stands behind cannot be guessed at in bulk.
    assert_eq!(head("/channels/user.alice", &[("Cookie", &many)]), 401);
    assert_eq!(head(&format!("/channels/user.alice?key=x&key={ALICE}"), &[]), 401);
    for cookie in [
        format!("newswire_keys={ALICE}"),
        format!("xnewswire_key={ALICE}"),
        format!("newswire_key = {ALICE}"),
        format!("newswire_key=\"{ALICE}\""),
        format!("NEWSWIRE_KEY={ALICE}"),
        format!("a=newswire_key={ALICE}"),
    ] {
        assert_eq!(head("/channels/user.alice", &[("Cookie", &cookie)]), 401, "{cookie}");
    }
    let alice = [("Authorization", &*format!("Bearer {ALICE}"))].map(|(name, value)| (name, value.to_owned()));
    for name in [
        "user.bob",
        "user.alice,user.bob",
        "user.bob,user.alice",
        "user.alice,",
        ",user.alice",
        "USER.ALICE",
        "user.alice%2Fx",
        "user.alice%0Ashop.a",
        "shop",
        "*",
        "user.*",
        "user.alice*",
        "s*",
        "%2A",
        "@presence.user.bob",
        ".%2Fuser.alice",
    ] {
        let fields = alice.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(head(&format!("/channels/{name}"), &fields), 401, "{name}");
    }
    assert_eq!(head(&format!("/channels/user%2Ealice?key={ALICE}"), &[]), 200, "the same name");
    assert!(!server.said().contains("panicked"));
}

#[test]
fn a_page_that_was_asked_for_with_a_key_tells_no_other_site() {
    let file = KeyFile::holding(&lines());
    let server = start(&file);
    for target in ["/", &*format!("/?key={ALICE}"), "/samples/", "/nothing"] {
        let answer = ask(server.address, "GET", target, &[], "");
        let policy = answer.field("referrer-policy");
        assert!(answer.status == 404 || policy == Some("no-referrer"), "{target} {answer:?}");
    }
    for target in ["/channels", "/channels/user.alice?poll", "/channels/user.alice"] {
        let method = if target.ends_with("alice") { "HEAD" } else { "GET" };
        let answer = with_key(&server, method, target, ALICE, 2);
        let cached = answer.field("cache-control").unwrap_or_default();
        assert!(cached.contains("no-store"), "{target} {answer:?}");
    }
}

#[test]
fn a_wrong_file_ends_the_command_with_the_number_of_the_line_and_without_the_key() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["--listen", "127.0.0.1:0"]).args(arguments).stdin(Stdio::null());
        let output = command.output().expect("the binary under test starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let file = KeyFile::holding("");
    for (line, words) in [
        ("shortkey allow all *", "16 to 256"),
        ("secret-0123456789 allow all", "a pattern is"),
        ("secret-0123456789 allow everything *", "publish, subscribe or all"),
        ("secret-0123456789", "KEY allow"),
        ("secret-0123456789 allow secret", "publish, subscribe or all"),
        ("secret-0123456789 deny all secret", "KEY allow"),
        ("secret-0123456789 allow ALL secret", "publish, subscribe or all"),
        ("secret-0123456789 allow all se*cret", "a pattern is"),
        ("secret-0123456789 allow all a secret/b", "a pattern is"),
        ("secret-0123456789 allow all **", "a pattern is"),
        ("secret-0123456789 allow all .*", "a pattern is"),
        ("secret-012345678,; allow all a", "16 to 256"),
        ("secret-0123456789\u{e9} allow all a", "16 to 256"),
        ("Anyone allow all a", "16 to 256"),
        ("allow all secret", "KEY allow"),
    ] {
        file.write(&format!("{}\n# a comment\n{line}\n", lines().lines().next().unwrap_or_default()));
        let (code, said) = run(&["--access", file.path()]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("line 3: ") && said.contains(words), "{said}");
        assert!(!said.contains("secret-") && !said.contains("shortkey"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    file.write("# only a comment\n");
    assert!(run(&["--access", file.path()]).1.contains("no line of it allows anything"));
    fs::write(&file.0, b"\xff\xfe").expect("there is room");
    assert_eq!(run(&["--access", file.path()]).0, Some(2));
    fs::write(&file.0, "#".repeat(2 * 1024 * 1024)).expect("there is room");
    let (code, said) = run(&["--access", file.path()]);
    assert!(code == Some(2) && said.contains("1 MiB"), "{said}");
    let (code, said) = run(&["--access", "/nothing/here"]);
    assert!(code == Some(2) && said.contains("/nothing/here"), "{said}");
}

#[test]
fn a_changed_file_counts_from_then_on_and_ends_the_streams_of_keys_that_are_gone() {
    let file = KeyFile::holding(&lines());
    let server = start(&file);
    let key = |key: &str| format!("/channels/user.{}?key={key}", &key[..key.find('-').expect("it has one")]);
    let mut alice = Stream::open(server.address, &key(ALICE), &[]);
    let mut bob = Stream::open(server.address, "/channels/user.bob", &[("Authorization", &*format!("Bearer {BOB}"))]);
    let mut anyone = Stream::open(server.address, "/channels/news", &[]);
    assert_eq!([&alice, &bob, &anyone].map(|stream| stream.answer.status), [200; 3]);

    // A wrong line: everything stays as it was, and that is said once.
    file.write(&format!("{}carol allow all *\n", lines()));
    let wrong = || server.said().matches("line 7: ").count();
    eventually("the wrong line is noticed", || wrong() > 0);
    assert_eq!(server.metric("newswire_access_file_errors_total"), 1);
    file.write(&format!("{}carol-0123456789 allow subscribe other\n", lines()));
    let carol = |status| {
        let answer = ask(server.address, "HEAD", "/channels/other?key=carol-0123456789", &[], "");
        answer.status == status
    };
    eventually("a right file is taken", || carol(200));
    assert_eq!(wrong(), 1);
    for secret in ["carol", "alice-", "backend."] {
        assert!(!server.said().contains(&format!("{secret} allow")), "{}", server.said());
    }

    // Alice's key is gone, and news is private now.
    file.write(&format!("{BACKEND} allow all *\n{BOB} allow all user.bob\n"));
    assert_eq!(alice.next(), None);
    assert_eq!(anyone.next(), None);
    let answer = ask(server.address, "GET", &key(ALICE), &[], "");
    assert_eq!(answer.status, 401, "an EventSource does not come back");
    assert_eq!(with_key(&server, "POST", "/channels/user.bob", BACKEND, 0).status, 200);
    assert_eq!(bob.next().expect("it goes on").data, "x");
    eventually("they are counted", || server.metric("newswire_access_revoked_total") == 2);

    // A file that is not there is wrong, too.
    fs::remove_file(&file.0).expect("it is there");
    eventually("that is said", || {
        server.said().contains("stay as they were") && server.said().matches("cannot use").count() == 2
    });
    assert_eq!(with_key(&server, "POST", "/channels/user.bob", BACKEND, 0).status, 200);
    assert_eq!(bob.next().expect("it goes on").data, "x");
    assert!(!server.said().contains("panicked"));
}

/// A poll that is read slowly lasts as long as its client likes.
#[test]
fn a_poll_ends_when_its_key_is_gone() {
    let file = KeyFile::holding(&lines());
    let options = ["--access", file.path(), "--history-bytes", "16777216", "--quiet"];
    let server = Server::start(&options);
    let data = "x".repeat(250_000);
    // More than the kernel keeps for a connection.
    for _ in 0..60 {
        let bearer = [("Authorization", &*format!("Bearer {BACKEND}"))];
        assert_eq!(ask(server.address, "POST", "/channels/user.alice", &bearer, &data).status, 200);
    }
    let target = format!("/channels/user.alice?poll&key={ALICE}");
    let mut slow = Stream::open(server.address, &target, &[]);
    file.write(&format!("{BACKEND} allow all *\n"));
    eventually("it is ended", || server.metric("newswire_access_revoked_total") == 1);
    // A reset is an end, too.
    let mut received = 0;
    while let Ok(Some(event)) = slow.try_next() {
        received += event.data.len();
    }
    assert!(received < 15_000_000, "{received} bytes");
}

#[test]
fn a_token_file_is_a_line_that_publishes_everywhere_beside_those_of_the_file() {
    let token = KeyFile::holding("token-of-publishers\n");
    let file = KeyFile::holding(&format!("{ALICE} allow subscribe user.alice\n"));
    let server = Server::start(&["--access", file.path(), "--publish-token-file", token.path()]);
    let post = |key: &str, way: usize| with_key(&server, "POST", "/channels/user.alice", key, way).status;
    for way in 0..3 {
        assert_eq!(post("token-of-publishers", way), 200);
        assert_eq!(post(ALICE, way), 401);
    }
    assert_eq!(ask(server.address, "HEAD", "/channels/user.alice?key=token-of-publishers", &[], "").status, 401);
    assert_eq!(ask(server.address, "HEAD", "/channels/other", &[], "").status, 200);
    // It stays when the file changes.
    file.write(&format!("{ALICE} allow all user.alice\n"));
    eventually("the file is read again", || post(ALICE, 0) == 200);
    assert_eq!(post("token-of-publishers", 0), 200);
}

/// A stream that has ended must not be kept in mind: a server lives for years.
#[test]
fn a_thousand_streams_that_come_and_go_leave_nothing_behind() {
    let file = KeyFile::holding(&lines());
    let server = start(&file);
    for _ in 0..10 {
        let streams: Vec<Stream> =
            (0..100).map(|_| Stream::open(server.address, &format!("/channels/shop.a?key={ALICE}"), &[])).collect();
        assert!(streams.iter().all(|stream| stream.answer.status == 200));
    }
    eventually("all are forgotten", || server.metric("newswire_access_granted") == 0);
    let kept = Stream::open(server.address, &format!("/channels/shop.a?key={ALICE}"), &[]);
    file.write(&format!("{BACKEND} allow all *\n"));
    kept.until_closed();
    eventually("one is counted, and the others were gone", || server.metric("newswire_access_revoked_total") == 1);
}

#[test]
fn of_hundreds_of_streams_only_those_end_that_have_lost_their_line() {
    let line = |number: usize| format!("key-{number:012} allow all user.{number} group.{}.*\n", number % 10);
    let text: String = (0..1_000).map(line).collect();
    let file = KeyFile::holding(&text);
    let server = Server::start(&["--access", file.path(), "--heartbeat", "0", "--quiet"]);
    let stream = |number: usize| {
        let target = format!("/channels/user.{number}?key=key-{number:012}");
        Stream::open(server.address, &target, &[])
    };
    let streams: Vec<Stream> = (0..300).map(stream).collect();
    assert!(streams.iter().all(|stream| stream.answer.status == 200));
    file.write(&(0..200).map(line).collect::<String>());
    eventually("the others have ended", || server.metric("newswire_access_revoked_total") == 100);
    for stream in streams.into_iter().skip(200) {
        stream.until_closed();
    }
    // The others go on.
    assert_eq!(ask(server.address, "POST", "/channels/user.7?key=key-000000000007", &[], "x").status, 200);
}

/// EventSource can send no fields. The page gets its cookie from the application on the same host.
#[test]
fn a_page_subscribes_with_a_cookie_and_stops_when_its_key_is_gone() {
    let Some(browser) = Browser::start() else { return };
    let file = KeyFile::holding(&lines());
    let server = start(&file);
    browser.open(&server.url("/"));
    browser.run(&format!("document.cookie = 'newswire_key={ALICE}; SameSite=Strict'"), &[]);
    let script = "
        window.heard = [];
        window.source = new EventSource('/channels/user.alice');
        source.onopen = () => heard.push('open');
        source.onmessage = (event) => heard.push(event.data);
        source.onerror = () => heard.push('error ' + source.readyState);";
    browser.run(script, &[]);
    browser.wait_for("heard.includes('open')");
    assert_eq!(with_key(&server, "POST", "/channels/user.alice", BACKEND, 0).status, 200);
    browser.wait_for("heard.includes('x')");
    // Revoked: it comes back once, is refused, and is closed for good.
    file.write(&format!("{BACKEND} allow all *\n"));
    browser.wait_for("heard.includes('error 2') && source.readyState === EventSource.CLOSED");
}

#[test]
fn an_upload_ends_when_its_key_is_gone_and_its_connection_does_not_when_the_upload_is_over() {
    let file = KeyFile::holding(&lines());
    let server = start(&file);
    let mut stream =
        Stream::open(server.address, "/channels/user.bob", &[("Authorization", &*format!("Bearer {BACKEND}"))]);
    let target = format!("/channels/user.bob?key={}", BOB.replace('+', "%2B"));
    let lines_target = format!("{target}&lines");
    let events = "Content-Type: text/event-stream\r\n";
    let uploads = [
        upload(server.address, &lines_target, ""),
        upload(server.address, &target, events),
        upload(server.address, &lines_target, ""),
    ];
    let pieces = ["4\r\none\n\r\n", "b\r\ndata: two\n\n\r\n", "5\r\nthree\r\n0\r\n\r\n"];
    for ((mut upload, piece), data) in uploads.iter().zip(pieces).zip(["one", "two", "three"]) {
        upload.write_all(piece.as_bytes()).expect("the server reads");
        assert_eq!(stream.next().expect("it is live").data, data);
    }
    let mut over = BufReader::new(&uploads[2]);
    assert_eq!(Answer::read(&mut over, "POST").expect("it is answered").status, 200);
    file.write(&format!("{BACKEND} allow all *\n"));
    for mut upload in &uploads[..2] {
        assert_eq!(upload.read_to_end(&mut Vec::new()).unwrap_or(0), 0, "its key is gone");
    }
    eventually("they are counted", || server.metric("newswire_access_revoked_total") == 2);
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    (&uploads[2]).write_all(request).expect("the server reads");
    assert_eq!(Answer::read(&mut over, "GET").expect("it goes on").status, 200);
}
