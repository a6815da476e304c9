//! A real `redis-server`, servers whose channels are in it, and a relay in between that fails as it is told.

use super::clients::Node;
use crate::server::{Server, eventually};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Whether a program is on this machine. If it is not, that is said; in CI it is a failure.
pub(super) fn has(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    let is_missing = found.is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if is_missing {
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!is_ci, "{program} is missing; .ci/run installs it");
        eprintln!("NOT TESTED: {program} is missing. Install it: apt-get install {package}");
    }
    !is_missing
}

/// A `redis-server` with a directory of its own. It ends with the test.
pub(super) struct Redis {
    child: Child,
    host: Ipv4Addr,
    pub(super) port: u16,
    pub(super) directory: PathBuf,
    /// The command that starts it.
    command: Vec<String>,
}

impl Redis {
    /// `None` on a machine without `redis-server`.
    pub(super) fn start(arguments: &[&str]) -> Option<Redis> {
        Redis::start_in(&[], Ipv4Addr::LOCALHOST, arguments)
    }

    /// At this address, by a command that has `redis-server` behind it.
    pub(super) fn start_in(before: &[&str], host: Ipv4Addr, arguments: &[&str]) -> Option<Redis> {
        if !has("redis-server", "redis-server") {
            return None;
        }
        let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = free.local_addr().expect("it listens").port();
        drop(free);
        let name = format!("newswire-redis-{}-{port}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("it is new");
        let (port_text, host_text) = (port.to_string(), host.to_string());
        let own = ["redis-server", "--port", &port_text, "--bind", &host_text, "--save", ""];
        let words = [before, &own, arguments].concat();
        let command: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let child = Redis::spawn(&command, &directory, SocketAddr::from((host, port)));
        Some(Redis { child, host, port, directory, command })
    }

    fn spawn(command: &[String], directory: &PathBuf, address: SocketAddr) -> Child {
        let child = Command::new(&command[0])
            .args(&command[1..])
            .current_dir(directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        eventually("redis-server listens", || TcpStream::connect(address).is_ok());
        child
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((self.host, self.port))
    }

    /// As `kill -9`.
    pub(super) fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it has ended");
    }

    pub(super) fn restart(&mut self) {
        self.child = Redis::spawn(&self.command, &self.directory, self.address());
    }

    /// `STOP` or `CONT`.
    pub(super) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(status.expect("kill is there").success());
    }

    /// What redis-cli prints for a command.
    pub(super) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", &self.host.to_string(), "-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .expect("redis-cli is there");
        String::from_utf8(output.stdout).expect("it is text").trim_end().to_owned()
    }

    /// A server whose channels are in it.
    pub(super) fn node(&self) -> Node {
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

pub(super) fn node(redis: SocketAddr, arguments: &[&str]) -> Node {
    let redis = redis.to_string();
    let own = ["--publish-open", "--quiet", "--heartbeat", "1", "--redis", &redis];
    Server::start(&[&own[..], arguments].concat())
}

/// Forwards connections to Redis, and fails as it is told.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    rules: Arc<Mutex<Rules>>,
}

pub(super) struct Rules {
    pub(super) target: SocketAddr,
    /// What arrives is dropped, and nothing is closed: a network that has lost its peer.
    pub(super) swallows: bool,
    /// What arrives waits: a network that is slow.
    pub(super) holds: bool,
    /// Replies leave one byte at a time.
    pub(super) drips: bool,
    /// The next publish command is forwarded, and its connection cut before the reply.
    pub(super) loses_reply: bool,
    sockets: Vec<TcpStream>,
}

impl Relay {
    pub(super) fn start(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let rules = Arc::new(Mutex::new(Rules {
            target,
            swallows: false,
            holds: false,
            drips: false,
            loses_reply: false,
            sockets: Vec::new(),
        }));
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

    pub(super) fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().expect("no panic")
    }

    /// Closes all connections.
    pub(super) fn cut(&self) {
        self.rules().sockets.drain(..).for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    }
}

fn copy(socket: &TcpStream) -> TcpStream {
    socket.try_clone().expect("there are descriptors")
}

fn pump(mut from: TcpStream, mut to: TcpStream, is_reply: bool, rules: &Mutex<Rules>, is_cut: &Mutex<bool>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..length];
        while rules.lock().expect("no panic").holds {
            thread::sleep(Duration::from_millis(5));
        }
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
