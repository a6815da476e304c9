//! Channels in Redis, shared by servers: a real `redis-server`, two servers, and a relay between them that can fail.

mod clients;
mod faults;
mod losses;
mod replies;
mod soak;

use crate::server::{Server, Stream, ask, eventually};
use clients::{Node, publish, resume};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// A `redis-server` with a directory of its own. It ends with the test.
struct Redis {
    child: Child,
    port: u16,
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Redis {
    /// `None` on a machine without `redis-server`, which is said. In CI that is a failure.
    fn start(arguments: &[&str]) -> Option<Redis> {
        let found = Command::new("redis-server").arg("--version").output();
        if found.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!is_ci, "redis-server is missing; .ci/run installs it");
            eprintln!(
                "NOT TESTED: redis-server is missing. Install it: apt-get install redis-server"
            );
            return None;
        }
        let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = free.local_addr().expect("it listens").port();
        drop(free);
        let name = format!("newswire-redis-{}-{port}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("it is new");
        let arguments: Vec<String> = arguments.iter().map(|text| text.to_string()).collect();
        let child = Redis::spawn(port, &directory, &arguments);
        Some(Redis { child, port, directory, arguments })
    }

    fn spawn(port: u16, directory: &PathBuf, arguments: &[String]) -> Child {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(directory)
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        eventually("redis-server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// As `kill -9`.
    fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it has ended");
    }

    fn restart(&mut self) {
        self.child = Redis::spawn(self.port, &self.directory, &self.arguments);
    }

    /// `STOP` or `CONT`.
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(status.expect("kill is there").success());
    }

    /// What redis-cli prints for a command.
    fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .expect("redis-cli is there");
        String::from_utf8(output.stdout).expect("it is text").trim_end().to_owned()
    }

    /// A server whose channels are in it.
    fn node(&self) -> Node {
        node(self.address(), &[])
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn node(redis: SocketAddr, arguments: &[&str]) -> Node {
    let redis = redis.to_string();
    let own = ["--publish-open", "--quiet", "--heartbeat", "1", "--redis", &redis];
    Server::start(&[&own[..], arguments].concat())
}

/// Forwards connections to Redis, and fails as it is told.
struct Relay {
    address: SocketAddr,
    rules: Arc<Mutex<Rules>>,
}

struct Rules {
    target: SocketAddr,
    /// What arrives is dropped, and nothing is closed: a network that has lost its peer.
    swallows: bool,
    /// Replies leave one byte at a time.
    drips: bool,
    /// The next publish command is forwarded, and its connection cut before the reply.
    loses_reply: bool,
    sockets: Vec<TcpStream>,
}

impl Relay {
    fn start(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let (swallows, drips, loses_reply, sockets) = (false, false, false, Vec::new());
        let rules = Arc::new(Mutex::new(Rules { target, swallows, drips, loses_reply, sockets }));
        let shared = Arc::clone(&rules);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = shared.lock().expect("no panic").target;
                let Ok(server) = TcpStream::connect(target) else { continue };
                let is_cut = Arc::new(Mutex::new(false));
                for (from, to, is_reply) in [(&client, &server, false), (&server, &client, true)] {
                    let (from, to) = (copy(from), copy(to));
                    let (rules, is_cut) = (Arc::clone(&shared), Arc::clone(&is_cut));
                    thread::spawn(move || pump(from, to, is_reply, &rules, &is_cut));
                }
                shared.lock().expect("no panic").sockets.extend([client, server]);
            }
        });
        Relay { address, rules }
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().expect("no panic")
    }

    /// Closes all connections.
    fn cut(&self) {
        self.rules().sockets.drain(..).for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    }
}

fn copy(socket: &TcpStream) -> TcpStream {
    socket.try_clone().expect("there are descriptors")
}

fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    is_reply: bool,
    rules: &Mutex<Rules>,
    is_cut: &Mutex<bool>,
) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..length];
        let (drips, cuts) = {
            let mut rules = rules.lock().expect("no panic");
            if rules.swallows {
                continue;
            }
            let is_publish = !is_reply && bytes.windows(4).any(|word| word == b"XADD");
            let cuts = is_publish && std::mem::take(&mut rules.loses_reply);
            (rules.drips && is_reply, cuts)
        };
        let mut is_cut = is_cut.lock().expect("no panic");
        *is_cut |= cuts;
        if *is_cut && is_reply {
            break;
        }
        let sent = match drips {
            true => bytes.iter().try_for_each(|byte| to.write_all(&[*byte])),
            false => to.write_all(bytes),
        };
        if sent.is_err() || cuts {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn an_event_reaches_the_subscribers_of_every_server_with_one_id_and_in_one_order() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let mut subscribers = nodes.each_ref().map(|node| Stream::subscribe(node.address, "news"));
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let address = nodes[publisher % 2].address;
            thread::spawn(move || {
                let publish = |n| publish(address, "news", &format!("{publisher}.{n}"));
                (0..50).map(|n| publish(n).expect("Redis runs")).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut answered: Vec<String> =
        publishers.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    let received = subscribers
        .each_mut()
        .map(|stream| (0..200).map(|_| stream.next().expect("it goes on")).collect::<Vec<_>>());
    assert_eq!(received[0], received[1]);
    let mut ids: Vec<String> = received[0].iter().map(|it| it.last_event_id.clone()).collect();
    ids.sort();
    answered.sort();
    assert_eq!(ids, answered, "the publishers were answered with these ids");
}

#[test]
fn redis_cli_publishes_and_cannot_break_a_stream() {
    let Some(redis) = Redis::start(&[]) else { return };
    let node = redis.node();
    let mut subscriber = Stream::subscribe(node.address, "news");
    let add = |fields: &[&str]| redis.cli(&[&["XADD", "newswire:{news}", "*"], fields].concat());
    let hello = add(&["data", "hello"]);
    add(&["event", "end", "data", "a reserved type"]);
    add(&["f", "id: 7\ndata: forged\n\n"]);
    add(&["f", "data: a\n\ndata: b\n\n"]);
    add(&["unknown", "field"]);
    let last = add(&["event", "note", "data", "two\nlines"]);
    let mut next = || subscriber.next().expect("it goes on");
    let (first, forged, note) = (next(), next(), next());
    assert_eq!((first.data.as_str(), first.last_event_id), ("hello", hello));
    assert!(forged.data == "forged" && forged.last_event_id != "7", "{forged:?}");
    assert_eq!((note.event_type.as_str(), note.data.as_str()), ("note", "two\nlines"));
    assert_eq!(note.last_event_id, last);
    assert_eq!(node.metric("newswire_redis_skipped_total"), 3);
    let id = publish(node.address, "news", "ours").expect("Redis runs");
    assert!(redis.cli(&["XRANGE", "newswire:{news}", &id, &id]).contains("data: ours"));
}

#[test]
fn a_client_comes_back_to_another_server_and_lacks_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [node(redis.address(), &["--history-events", "100"]), redis.node()];
    let mut ids = Vec::new();
    for n in 0..60 {
        ids.push(publish(nodes[0].address, "news", &n.to_string()).expect("Redis runs"));
        // The other server has never heard of the channel, and then it has; the newest event it may not have read yet.
        for from in [0, n / 2, n] {
            let received = resume(nodes[(n + 1) % 2].address, "news", &ids[from], n - from);
            assert_eq!(received, ids[from + 1..], "behind {from} of {n}");
        }
    }
    // Redis keeps more than the history holds, and the first server trims.
    for n in 60..400 {
        ids.push(publish(nodes[0].address, "news", &n.to_string()).expect("Redis runs"));
    }
    let kept: usize = redis.cli(&["XLEN", "newswire:{news}"]).parse().expect("it is a number");
    assert!((100..300).contains(&kept), "{kept}");
    let late = redis.node();
    let mut stream = Stream::resume(late.address, "news", &ids[10]);
    let gap = stream.next().expect("it goes on");
    assert_eq!(gap.event_type, "gap");
    let oldest = stream.next().expect("it goes on");
    assert!(gap.data.contains(&format!("\"oldest\":\"{}\"", oldest.last_event_id)), "{gap:?}");
    assert_eq!(
        resume(late.address, "news", &oldest.last_event_id, kept - 1),
        ids[400 - kept + 1..]
    );
}

#[test]
fn a_channel_is_completed_on_every_server_until_something_is_published() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (one, other, late) = (redis.node(), redis.node(), redis.node());
    let id = publish(one.address, "news", "last").expect("Redis runs");
    let mut subscriber = Stream::resume(one.address, "news", "earliest");
    assert_eq!(ask(other.address, "DELETE", "/channels/news", &[], "").status, 204);
    assert_eq!(subscriber.until_end().len(), 1);
    for node in [&one, &other, &late] {
        eventually("a client that lacks nothing is told not to come back", || {
            ask(node.address, "GET", "/channels/news", &[("Last-Event-ID", &id)], "").status == 204
        });
    }
    let next = publish(late.address, "news", "more").expect("Redis runs");
    assert_eq!(resume(other.address, "news", &id, 1), [next]);
}

#[test]
fn an_idempotency_key_holds_on_every_server() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let publish = |node: &Node, data: &str| {
        let fields = [("Idempotency-Key", "order-7"), ("Accept", "text/plain")];
        let answer = ask(node.address, "POST", "/channels/orders", &fields, data);
        (answer.status, answer.text().to_owned())
    };
    let first = publish(&nodes[0], "paid");
    assert_eq!(first.0, 200);
    assert_eq!(publish(&nodes[1], "paid"), first);
    assert_eq!(publish(&nodes[1], "other").0, 422);
    // At one time on one server
    let address = nodes[0].address;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let fields = [("Idempotency-Key", "order-8"), ("Accept", "text/plain")];
            thread::spawn(move || {
                ask(address, "POST", "/channels/orders", &fields, "x").text().to_owned()
            })
        })
        .collect();
    let ids: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(redis.cli(&["XLEN", "newswire:{orders}"]), "2");
}

#[test]
fn what_redis_refuses_is_said_before_the_server_listens() {
    let Some(redis) = Redis::start(&["--requirepass", "secret"]) else { return };
    let address = redis.address().to_string();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let mut child =
            command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let mut said = String::new();
        let mut stderr = child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut said).expect("it is text");
        (child.wait().expect("it has ended").code(), said)
    };
    let (code, said) = run(&["--redis", &address]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("NOAUTH"), "{said}");
    let file = redis.directory.join("password");
    std::fs::write(&file, "secret\n").expect("the directory is ours");
    let password = ["--redis-password-file", file.to_str().expect("it is UTF-8")];
    let node = node(redis.address(), &password);
    publish(node.address, "news", "x").expect("the password is right");
    for (arguments, reason) in [
        (&["--redis-db", "1"][..], "needs --redis"),
        (&["--redis", "localhost"], "HOST:PORT"),
        (&["--redis", &address, "--redis-prefix", "a{b"], "brace"),
        (&["--redis", &address, "--redis-user", "me"], "--redis-password-file"),
    ] {
        let (code, said) = run(arguments);
        assert!(code == Some(2) && said.contains(reason), "{arguments:?}: {said}");
    }
    // What the README tells to allow is enough.
    let rule = "+hello +select +client|tracking +ping +xadd +xread +xrange +xrevrange +wait";
    let acl = ["-a", "secret", "ACL", "SETUSER", "app", "on", ">word", "~newswire:*"];
    assert_eq!(redis.cli(&[&acl[..], &rule.split(' ').collect::<Vec<_>>()].concat()), "OK");
    std::fs::write(&file, "word").expect("the directory is ours");
    let app = [&password[..], &["--redis-user", "app"]].concat();
    let node = super::redis::node(redis.address(), &app);
    let mut stream = Stream::subscribe(node.address, "news");
    publish(node.address, "news", "y").expect("the user may");
    assert_eq!(stream.next().expect("it goes on").data, "y");
    let deaf = Redis::start(&["--rename-command", "CLIENT", "NONE"]).expect("it is there");
    let (code, said) = run(&["--redis", &deaf.address().to_string()]);
    assert!(code == Some(2) && said.contains("CLIENT"), "{said}");
}
