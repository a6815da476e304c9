//! The servers that are measured: how each is started, and with what settings.

use crate::{peer_epoll, peer_uring, probe, wire};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Newswire,
    /// Another build of newswire: the one before a change.
    Before,
    /// newswire with a listening socket that it is handed over, with a queue of 4,096.
    Inherited,
    Axum,
    Hyper,
    Actix,
    Epoll,
    /// With two threads.
    Epoll2,
    Uring,
    Nchan,
    Floor,
    /// newswire with a journal, synced every second.
    Interval,
    /// The same, synced before each answer.
    Always,
    /// Two of each with a Redis behind them.
    NewswireRedis,
    AxumRedis,
    NchanRedis,
}

impl Peer {
    pub const ALL: [Peer; 16] = [
        Peer::Newswire,
        Peer::Before,
        Peer::Inherited,
        Peer::Axum,
        Peer::Hyper,
        Peer::Actix,
        Peer::Epoll,
        Peer::Epoll2,
        Peer::Uring,
        Peer::Nchan,
        Peer::Floor,
        Peer::Interval,
        Peer::Always,
        Peer::NewswireRedis,
        Peer::AxumRedis,
        Peer::NchanRedis,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Peer::Newswire => "newswire",
            Peer::Before => "before",
            Peer::Inherited => "newswire-inherited",
            Peer::Axum => "axum",
            Peer::Hyper => "hyper",
            Peer::Actix => "actix",
            Peer::Epoll => "epoll",
            Peer::Epoll2 => "epoll-2",
            Peer::Uring => "io-uring",
            Peer::Nchan => "nchan",
            Peer::Floor => "floor",
            Peer::Interval => "journal-interval",
            Peer::Always => "journal-always",
            Peer::NewswireRedis => "newswire-redis",
            Peer::AxumRedis => "axum-redis",
            Peer::NchanRedis => "nchan-redis",
        }
    }

    /// Which server it is, apart from its settings.
    fn program(self) -> Peer {
        match self {
            Peer::Inherited | Peer::Interval | Peer::Always | Peer::NewswireRedis => Peer::Newswire,
            Peer::AxumRedis => Peer::Axum,
            Peer::NchanRedis => Peer::Nchan,
            other => other,
        }
    }

    pub fn is_pair(self) -> bool {
        matches!(self, Peer::NewswireRedis | Peer::AxumRedis | Peer::NchanRedis)
    }
}

/// What starting a peer may need.
pub struct Stage {
    newswire: Option<PathBuf>,
    before: Option<PathBuf>,
    counts: bool,
    /// Holds nginx's own files and the page that every peer answers to `GET /`, newswire's if it is
    /// there.
    directory: tempfile::TempDir,
}

/// A peer that runs. Dropping it ends its processes.
pub struct Server {
    pub address: SocketAddrV4,
    /// Whether its system calls are counted while it is measured.
    pub is_counted: bool,
    /// Of a pair, the other one, and the Redis behind them.
    others: Vec<Server>,
    /// Goes with the server.
    _journal: Option<tempfile::TempDir>,
    child: Child,
    /// Kept open, so that a server that prints something more has somewhere to print it.
    _stdout: Option<BufReader<ChildStdout>>,
}

impl Stage {
    pub fn new(newswire: Option<PathBuf>, before: Option<PathBuf>, counts: bool) -> io::Result<Self> {
        // nginx started by root reads the page as another user.
        let open = fs::Permissions::from_mode(0o755);
        let directory = tempfile::Builder::new().prefix("newswire-bench-").permissions(open).tempdir()?;
        let stage = Self { newswire, before, counts, directory };
        let page = match stage.lacks(Peer::Newswire) {
            None => fetch_page(stage.start(Peer::Newswire)?.address)?,
            Some(_) => b"<!doctype html><title>bench</title>".repeat(60),
        };
        fs::write(stage.page_file(), page)?;
        Ok(stage)
    }

    fn binary(&self, peer: Peer) -> Option<&PathBuf> {
        if peer == Peer::Before { self.before.as_ref() } else { self.newswire.as_ref() }
    }

    fn page_file(&self) -> PathBuf {
        self.directory.path().join("index.html")
    }

    /// Whether this peer can be started here, and if not, what is missing.
    pub fn lacks(&self, peer: Peer) -> Option<String> {
        let missing = match peer.program() {
            _ if peer.is_pair() && redis().is_none() => "redis-server is not installed",
            Peer::Newswire if self.newswire.is_none() => "no --newswire PATH given",
            Peer::Before if self.before.is_none() => "no --before PATH given",
            Peer::Nchan if nginx().is_none() => "nginx or libnginx-mod-nchan is not installed",
            Peer::Uring => return peer_uring::is_refused(),
            _ => return None,
        };
        Some(missing.to_owned())
    }

    /// The peer with its version.
    pub fn describe(&self, peer: Peer) -> String {
        let said = |command: &mut Command| {
            let output = command.output().ok()?;
            let text = [output.stdout, output.stderr].concat();
            Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
        };
        let of_program = match peer.program() {
            program @ (Peer::Newswire | Peer::Before) => {
                self.binary(program).and_then(|newswire| said(Command::new(newswire).arg("--version")))
            }
            Peer::Axum => Some(format!("axum {}, tokio {}", locked("axum"), locked("tokio"))),
            Peer::Nchan => nginx().and_then(|(nginx, _)| said(Command::new(nginx).arg("-v"))).map(|version| {
                let package = ["-W", "-f", "${Package} ${Version}", "libnginx-mod-nchan"];
                let module = said(Command::new("dpkg-query").args(package)).unwrap_or_default();
                format!("{} with {module}", version.trim_start_matches("nginx version: "))
            }),
            Peer::Hyper => Some(format!("{}, tokio {}", locked("hyper"), locked("tokio"))),
            Peer::Actix => Some(format!("actix-web {}", locked("actix-web"))),
            Peer::Epoll | Peer::Epoll2 => Some(format!("rustix {}", locked("rustix"))),
            Peer::Uring => Some(format!("the crate io-uring {}", locked("io-uring"))),
            _ => Some("std only".to_owned()),
        };
        let of_redis = redis().filter(|_| peer.is_pair());
        let of_redis = of_redis.and_then(|redis| said(Command::new(redis).arg("--version")));
        let texts = [Some(peer.name().to_owned()), of_program, of_redis];
        texts.into_iter().flatten().collect::<Vec<_>>().join(": ")
    }

    pub fn start(&self, peer: Peer) -> io::Result<Server> {
        let mut server = match peer.is_pair() {
            true => self.start_pair(peer)?,
            false => self.start_one(peer, None, &[])?,
        };
        server.is_counted = self.counts;
        Ok(server)
    }

    fn start_pair(&self, peer: Peer) -> io::Result<Server> {
        let redis = start_redis(self.directory.path())?;
        let port = Some(redis.address.port());
        let mut server = self.start_one(peer, port, &[])?;
        server.others = vec![self.start_one(peer, port, &[])?, redis];
        wait_until_it_publishes(server.address)?;
        wait_until_it_publishes(server.far())?;
        Ok(server)
    }

    /// newswire with a journal in this directory, which stays.
    pub fn start_with_journal(&self, directory: &Path) -> io::Result<Server> {
        let directory = directory.to_str().ok_or_else(|| io::Error::other("not UTF-8"))?;
        self.start_one(Peer::Newswire, None, &["--journal", directory])
    }

    fn start_one(&self, peer: Peer, redis: Option<u16>, arguments: &[&str]) -> io::Result<Server> {
        let missing = || io::Error::other(self.lacks(peer).unwrap_or_default());
        match peer.program() {
            program @ (Peer::Newswire | Peer::Before) => {
                let mut command = Command::new(self.binary(program).ok_or_else(missing)?);
                let inherited = (peer == Peer::Inherited).then(|| peer_epoll::listen(0)).transpose()?;
                let listen = if inherited.is_some() { "stdin" } else { "127.0.0.1:0" };
                // Its defaults, but for room for everyone and a log that is not a terminal's.
                command.args(["serve", "--listen", listen, "--publish-open", "--quiet"]);
                command.args([
                    "--max-connections",
                    "19000",
                    "--max-subscribers",
                    "17000",
                    "--max-channels",
                    "2000",
                    // So that 1,000 events are kept, as by the others, also where they are of 8 KB.
                    "--history-bytes",
                    "16777216",
                ]);
                command.args(arguments);
                command.args(redis.map(|port| format!("--redis=127.0.0.1:{port}")));
                let journal = match peer {
                    Peer::Interval | Peer::Always => Some(tempfile::tempdir_in(&self.directory)?),
                    _ => None,
                };
                if let Some(journal) = &journal {
                    let sync = if peer == Peer::Always { "always" } else { "interval" };
                    command.args(["--journal-sync", sync, "--journal"]).arg(journal.path());
                }
                let mut server = start_and_listen(command, inherited)?;
                server._journal = journal;
                Ok(server)
            }
            Peer::Nchan => {
                let (nginx, module) = nginx().ok_or_else(missing)?;
                // nginx cannot say which port it was given, so one is found for it.
                let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
                let directory = self.directory.path();
                let configuration = directory.join(format!("nginx-{port}.conf"));
                fs::write(&configuration, nginx_configuration(directory, module, port, redis))?;
                let mut command = Command::new(nginx);
                command.arg("-p").arg(directory).arg("-c").arg(&configuration).stderr(Stdio::null());
                let mut server = Server::new(port, command.stdin(Stdio::null()).spawn()?);
                server.wait_until_it_answers()?;
                Ok(server)
            }
            program => {
                // The bench itself, told to be the peer: `cargo run` builds one binary only.
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("peer").arg(program.name()).arg(self.page_file());
                command.args(redis.map(|port| port.to_string()));
                start_and_listen(command, None)
            }
        }
    }
}

/// The version of a package that the bench is built with.
fn locked(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"\nversion = \"");
    let found = include_str!("../Cargo.lock").split_once(&name).and_then(|(_, rest)| rest.split('"').next());
    found.unwrap_or_default()
}

/// Where nginx and its nchan module are, if they are.
fn nginx() -> Option<(&'static Path, &'static Path)> {
    let nginx = probe::first_of(&["/usr/sbin/nginx", "/usr/bin/nginx"])?;
    let module = probe::first_of(&["/usr/lib/nginx/modules/ngx_nchan_module.so"])?;
    Some((nginx, module))
}

fn redis() -> Option<&'static Path> {
    probe::first_of(&["/usr/bin/redis-server", "/usr/local/bin/redis-server"])
}

/// A Redis that keeps nothing on the disk.
fn start_redis(directory: &Path) -> io::Result<Server> {
    let redis = redis().ok_or_else(|| io::Error::other("no redis-server"))?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new(redis);
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
    command.arg(port.to_string()).arg("--dir").arg(directory);
    let server = Server::new(port, command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = TcpStream::connect(server.address) {
        if Instant::now() > end {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// nginx at its best for this work.
fn nginx_configuration(directory: &Path, module: &Path, port: u16, redis: Option<u16>) -> String {
    let (directory, module) = (directory.display(), module.display());
    let upstream = redis.map(|redis| format!("upstream shared {{ nchan_redis_server redis://127.0.0.1:{redis}; }}"));
    let pass = redis.map(|_| "nchan_redis_pass shared;");
    let (upstream, pass) = (upstream.unwrap_or_default(), pass.unwrap_or_default());
    format!(
        "
daemon off;
load_module {module};
worker_processes auto;                  # one per core
pid {directory}/nginx-{port}.pid;
error_log {directory}/error.log crit;
worker_rlimit_nofile 20000;
events {{
    worker_connections 20000;           # also room for all in one worker
    multi_accept on;                    # take a storm of connections in one go
}}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    access_log off;                     # nobody else writes one
    tcp_nodelay on;
    sendfile on;
    tcp_nopush on;                      # head and page in one packet
    keepalive_requests 1000000000;      # never end the load generator's connections
    open_file_cache max=16;             # the page's file stays open
    nchan_shared_memory_size 1G;        # messages are never dropped for want of memory
    {upstream}
    server {{
        # A listen queue for each worker: connections spread evenly, and a storm of them waits.
        listen 127.0.0.1:{port} reuseport backlog=4096;
        root {directory};
        default_type text/html;
        location ~ ^/channels/(.+)$ {{
            nchan_publisher http;
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            {pass}
            nchan_channel_id_split_delimiter ',';     # bench1,bench2 is two channels on one connection
            nchan_message_buffer_length 1000;         # as the axum peer: twice what is on the way
            nchan_message_timeout 1h;
            nchan_subscriber_first_message newest;    # without Last-Event-ID, only what comes from now on
            nchan_eventsource_ping_interval 0;        # no comments while idle, its default
        }}
    }}
}}
"
    )
}

/// Starts a server that prints the URL it listens at, with a listener in place of its standard input if it is given one.
fn start_and_listen(mut command: Command, listener: Option<OwnedFd>) -> io::Result<Server> {
    let input = listener.map_or_else(Stdio::null, Stdio::from);
    let mut child = command.stdin(input).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().map(BufReader::new);
    let address = read_address(stdout.as_mut());
    // Dropped, and so ended, if there is no address.
    let mut server = Server::new(0, child);
    server.address = address?;
    server._stdout = stdout;
    server.wait_until_it_answers()?;
    Ok(server)
}

fn read_address(stdout: Option<&mut BufReader<ChildStdout>>) -> io::Result<SocketAddrV4> {
    let silent = || io::Error::other("the server ended without saying where it listens");
    for line in stdout.ok_or_else(silent)?.lines() {
        let line = line?;
        if let Some((_, rest)) = line.split_once("http://") {
            let address = rest.split(['/', ' ']).next().unwrap_or_default();
            return address.parse().map_err(|_| io::Error::other(format!("not an address: {line}")));
        }
    }
    Err(silent())
}

impl Server {
    fn new(port: u16, child: Child) -> Self {
        let address = SocketAddrV4::new([127, 0, 0, 1].into(), port);
        Self { address, is_counted: false, others: Vec::new(), _journal: None, child, _stdout: None }
    }

    /// All its processes: nginx has workers, and a pair has another node and a Redis.
    pub fn processes(&self) -> Vec<u32> {
        let others = self.others.iter().flat_map(Server::processes);
        probe::family(self.child.id()).into_iter().chain(others).collect()
    }

    /// Of a pair, where the other one listens; otherwise its own address.
    pub fn far(&self) -> SocketAddrV4 {
        self.others.first().map_or(self.address, |other| other.address)
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        while fetch_page(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            if Instant::now() > end {
                return Err(io::Error::other("the server does not answer"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        // One of nginx's workers has answered; the others may still be setting themselves up.
        thread::sleep(Duration::from_millis(200));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The workers too: nginx's would otherwise finish their connections first. These are
        // processes that we started or that the one we started did.
        for process in probe::family(self.child.id()) {
            if let Some(process) = rustix::process::Pid::from_raw(process as i32) {
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// nchan answers 503 until it has found its Redis.
fn wait_until_it_publishes(address: SocketAddrV4) -> io::Result<()> {
    let request = wire::publish(address, "/channels/first", 100);
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(&request)?;
        let mut answer = [0; 4096];
        let length = socket.read(&mut answer)?;
        match wire::head(&answer[..length])?.map(|head| head.status) {
            Some(200..300) => return Ok(()),
            status if Instant::now() > end => {
                return Err(io::Error::other(format!("a POST was answered {status:?}")));
            }
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Fetches `GET /` from a server, so that all of them can serve the same bytes.
fn fetch_page(address: SocketAddrV4) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(wire::visit(address, false).as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    match wire::head(&answer)? {
        Some(head) if head.status == 200 => Ok(answer.split_off(head.length)),
        _ => Err(io::Error::other("no page at /")),
    }
}
