//! The system has no more descriptors, no more threads, or no more of a directory: a client that is served
//! goes on being served, and the others are when there is enough again.

use crate::citizen::ANSWER_TIMEOUT;
use crate::client::{Caller, Reading, Subscribed, Subscription};
use crate::payload::Payload;
use crate::report::Report;
use crate::server::{Newswire, figure, is_all_gone};
use crate::swarm::{SILENT, Swarm};
use crate::{Order, Outcome};
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// A user that nothing else on the machine runs as.
const NOBODY_ELSE: u32 = 64_123;

/// The clients that were there before the system ran out of something: a connection to publish on, and a
/// stream.
struct Insiders<'r> {
    what: &'r str,
    report: &'r Report,
    caller: Caller,
    stream: Subscription,
    published: u32,
}

impl<'r> Insiders<'r> {
    fn new(what: &'r str, address: SocketAddr, report: &'r Report) -> Outcome<Insiders<'r>> {
        let mut caller = Caller::new(address).timeout(ANSWER_TIMEOUT);
        caller.get("/healthz")?;
        let stream = inside(address, 0)?;
        Ok(Insiders { what, report, caller, stream, published: 0 })
    }

    /// The connection may have been evicted while it was idle: from now on another one.
    fn call_anew(&mut self) {
        self.caller.hang_up();
    }

    /// They go on for three seconds, and are never idle for so long that they could be evicted.
    fn go_on(&mut self) -> Outcome<()> {
        for _ in 0..20 {
            self.published += 1;
            let payload = Payload { publisher: 1, number: self.published };
            self.publish(&payload.write(100, 1))?;
            thread::sleep(Duration::from_millis(150));
        }
        Ok(())
    }

    /// Answered, and the next event on the stream.
    fn publish(&mut self, line: &str) -> Outcome<()> {
        let target = "/channels/inside";
        let status = self.caller.request("POST", target, line.as_bytes())?.status;
        let mut events = Vec::new();
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while events.is_empty()
            && Instant::now() < deadline
            && self.stream.read(ANSWER_TIMEOUT, 16 * 1024, &mut events)? == Reading::Some
        {}
        let is_heard = matches!(&events[..], [event] if event.data.as_deref() == Some(line));
        let (what, count) = (self.what, events.len());
        self.report.expect(
            status == 200 && is_heard,
            format!("{what}: {status}, and on the stream {count} events: heard is {is_heard}"),
        );
        Ok(())
    }
}

/// A stream with a receive buffer of so many bytes.
fn inside(address: SocketAddr, room: usize) -> Outcome<Subscription> {
    match Subscription::open(address, "inside", None, false, room)? {
        Subscribed::Streaming(stream) => Ok(stream),
        _ => Err("no stream".into()),
    }
}

fn is_served(report: &Report, what: String, address: SocketAddr) {
    let started = Instant::now();
    let answer = Caller::new(address).timeout(ANSWER_TIMEOUT).get("/healthz");
    let is_served = matches!(&answer, Ok(answer) if answer.status == 200);
    report.expect(is_served, format!("{what}: not served"));
    report.row(what, format!("{} ms", started.elapsed().as_millis()));
}

/// Suddenly no descriptors are left.
pub fn descriptors(order: &Order, report: &Report) -> Outcome<()> {
    let what = "descriptors exhausted";
    let arguments = ["--max-connections", "1000", "--heartbeat", "2"];
    let server = Newswire::start(what, report, &order.newswire, &arguments)?.run_short();
    let before = server.vitals_at_first()?;
    let mut insiders = Insiders::new(what, server.address, report)?;
    let few = server.vitals()?.descriptors + 4;
    let usual = getrlimit(Resource::Nofile);
    server.limit(Resource::Nofile, Rlimit { current: Some(few), ..usual })?;
    let swarm = Swarm::start(server.address, 100, &[SILENT], order.seed);
    insiders.go_on()?;
    server.limit(Resource::Nofile, usual)?;
    is_served(report, format!("{what}: afterwards"), server.address);
    let errors = server.metric("accept_errors_total")?;
    report.row(format!("{what}: accepts that failed"), errors);
    report.expect(errors > 0, format!("{what}: they were not"));
    swarm.stop()?;
    insiders.call_anew();
    insiders.go_on()?;
    drop(insiders);
    let after = server.vitals_at_rest(before, Duration::from_secs(30))?;
    is_all_gone(report, what, before, after);
    Ok(())
}

/// No threads: as a user other than root: the threads of root are not counted.
pub fn threads(order: &Order, report: &Report) -> Outcome<()> {
    let what = "threads refused";
    let (mut path, mut user, mut others) = (order.newswire.clone(), None, 0);
    let folder = Folder::new("threads")?;
    if getuid().is_root() {
        path = folder.path.join("newswire");
        fs::copy(&order.newswire, &path)?;
        fs::set_permissions(&folder.path, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        user = Some(NOBODY_ELSE);
    } else {
        others = threads_of_this_user()?;
    }
    // Enough for the server itself (two that accept, one that begins others, one that logs, one for
    // each core), for one client of ours, and for four more.
    let most = others + 4 + thread::available_parallelism()?.get() as u64 + 1 + 4;
    let server =
        with_limit(Resource::Nproc, most, || Newswire::start_as(what, report, &path, &["--heartbeat", "2"], user))?
            .run_short();
    let before = server.vitals_at_first()?;
    let mut insiders = Insiders::new(what, server.address, report)?;
    // A subscriber that stops reading needs a thread of its own as soon as its socket is full.
    let mut slow = inside(server.address, 4096)?;
    let swarm = Swarm::start(server.address, 8, &[SILENT], order.seed);
    insiders.go_on()?;
    let much = "x".repeat(200_000);
    for _ in 0..40 {
        insiders.publish(&much)?;
    }
    let (mut events, mut reading) = (Vec::new(), Reading::Some);
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while reading != Reading::End && Instant::now() < deadline {
        reading = slow.read(Duration::from_secs(1), 16 * 1024, &mut events)?;
    }
    let figure = format!("{} events, then {reading:?}", events.len());
    report.row(format!("{what}: a slow reader sees"), &figure);
    report.expect(reading == Reading::End && events.len() < 60, format!("{what}: a slow reader sees {figure}"));
    // Also a newcomer is served, when it is its turn.
    is_served(report, format!("{what}: a newcomer waits"), server.address);
    swarm.stop()?;
    is_served(report, format!("{what}: afterwards"), server.address);
    let errors = server.metric("threads_refused_total")?;
    report.row(format!("{what}: refusals"), errors);
    report.expect(errors > 0, format!("{what}: none was"));
    insiders.call_anew();
    insiders.go_on()?;
    drop((insiders, slow));
    let after = server.vitals_at_rest(before, Duration::from_secs(30))?;
    is_all_gone(report, what, before, after);
    Ok(())
}

/// Runs `start` with a lower limit, which what it starts inherits.
fn with_limit<T>(resource: Resource, most: u64, start: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let usual = getrlimit(resource);
    let lower = Rlimit { current: Some(most), ..usual };
    setrlimit(resource, lower)?;
    let started = start();
    setrlimit(resource, usual)?;
    started
}

fn threads_of_this_user() -> Outcome<u64> {
    let mut threads = 0;
    for entry in fs::read_dir("/proc")? {
        let status = fs::read_to_string(entry?.path().join("status")).unwrap_or_default();
        // What is no process, or none any more, has none.
        if figure(&status, "Uid:").ok() == Some(u64::from(getuid().as_raw())) {
            threads += figure(&status, "Threads:")?;
        }
    }
    Ok(threads)
}

/// The directory of `--www` goes away, and comes back.
pub fn directory(order: &Order, report: &Report) -> Outcome<()> {
    let what = "directory gone";
    let folder = Folder::new("directory")?;
    let www = folder.path.join("www");
    let page = || fs::create_dir(&www).and_then(|()| fs::write(www.join("index.html"), "It works.\n"));
    page()?;
    let arguments = ["--www", &www.to_string_lossy()];
    let server = Newswire::start(what, report, &order.newswire, &arguments)?;
    let mut insiders = Insiders::new(what, server.address, report)?;
    let mut caller = Caller::new(server.address);
    let mut statuses = vec![caller.get("/")?.status];
    fs::remove_dir_all(&www)?;
    for target in ["/", "/index.html", "/nothing"] {
        statuses.push(caller.get(target)?.status);
    }
    insiders.go_on()?;
    page()?;
    statuses.push(caller.get("/")?.status);
    report.row(format!("{what}: before, three times during, after"), format!("{statuses:?}"));
    report.expect(statuses == [200, 404, 404, 404, 200], format!("{what}: {statuses:?}"));
    Ok(())
}

/// A folder that goes when it is not needed any more.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(name: &str) -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("newswire-attack-{}-{name}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Folder { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
