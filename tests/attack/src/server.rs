//! A newswire process: started, killed, started again where it was; and its vital signs.

use crate::Outcome;
use crate::client::Caller;
use crate::report::{Report, hold};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub struct Newswire<'r> {
    what: &'r str,
    report: &'r Report,
    path: PathBuf,
    arguments: Vec<String>,
    user: Option<u32>,
    child: Child,
    pub address: SocketAddr,
    /// What it said on standard error.
    complaints: Arc<Mutex<Vec<String>>>,
    /// The system refuses it something, on purpose: it may say so.
    runs_short: bool,
}

/// What would grow if something leaked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vitals {
    pub resident_kib: u64,
    pub threads: u64,
    pub descriptors: u64,
    pub connections: u64,
    pub subscribers: u64,
}

/// Longer than a thread without a connection waits for another, and than a connection lingers.
const REST: Duration = Duration::from_secs(3);

impl std::fmt::Display for Vitals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} KiB resident, {} threads, {} descriptors, {} connections, {} subscribers",
            self.resident_kib, self.threads, self.descriptors, self.connections, self.subscribers
        )
    }
}

impl<'r> Newswire<'r> {
    /// On a port of its own, where all may publish; `what` it is for.
    pub fn start(what: &'r str, report: &'r Report, path: &Path, arguments: &[&str]) -> Outcome<Newswire<'r>> {
        Newswire::start_as(what, report, path, arguments, None)
    }

    /// As another user, which must be allowed to run it.
    pub fn start_as(
        what: &'r str,
        report: &'r Report,
        path: &Path,
        arguments: &[&str],
        user: Option<u32>,
    ) -> Outcome<Newswire<'r>> {
        let complaints = Arc::default();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (child, address) = spawn(path, &arguments, "127.0.0.1:0", user, &complaints)?;
        Ok(Newswire {
            what,
            report,
            path: path.to_owned(),
            arguments,
            user,
            child,
            address,
            complaints,
            runs_short: false,
        })
    }

    /// It will be refused descriptors or threads.
    pub fn run_short(mut self) -> Newswire<'r> {
        self.runs_short = true;
        self
    }

    /// Ends it at this very moment, as a power cut would, and starts it again at the same address.
    pub fn kill_and_restart(&mut self, pause: Duration) -> Outcome<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        self.report.expect(
            status.signal() == Some(Signal::KILL.as_raw()),
            format!("{}: it ended before it was killed: {status}", self.what),
        );
        thread::sleep(pause);
        let listen = self.address.to_string();
        let (path, arguments) = (&self.path, &self.arguments);
        (self.child, _) = spawn(path, arguments, &listen, self.user, &self.complaints)?;
        Ok(())
    }

    /// Sets how much of a resource it may have from now on.
    pub fn limit(&self, resource: Resource, most: Rlimit) -> Outcome<()> {
        prlimit(Some(Pid::from_child(&self.child)), resource, most)?;
        Ok(())
    }

    pub fn vitals(&self) -> Outcome<Vitals> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        // Before the connection that asks.
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count() as u64;
        let metrics = self.metrics()?;
        Ok(Vitals {
            resident_kib: figure(&status, "VmRSS:")?,
            threads: figure(&status, "Threads:")?,
            descriptors,
            // The connection that asks is one of them.
            connections: figure(&metrics, "newswire_connections ")?.saturating_sub(1),
            subscribers: figure(&metrics, "newswire_subscribers ")?,
        })
    }

    /// The vital signs, once a second until it is over; which it also is when there are none.
    pub fn watch(&self, is_over: &AtomicBool, samples: &Mutex<Vec<Vitals>>) {
        while !is_over.load(Relaxed) {
            match self.vitals() {
                Ok(vitals) => hold(samples).push(vitals),
                Err(error) => {
                    let what = format!("{}: no vital signs: {error}", self.what);
                    self.report.violation(what);
                    is_over.store(true, Relaxed);
                }
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// The vital signs when nothing is going on, before anything has been.
    pub fn vitals_at_first(&self) -> Outcome<Vitals> {
        self.metric("connections")?;
        thread::sleep(REST);
        self.vitals()
    }

    /// The vital signs when it has come to rest again, or those after `timeout`.
    pub fn vitals_at_rest(&self, rest: Vitals, timeout: Duration) -> Outcome<Vitals> {
        let deadline = Instant::now() + timeout;
        loop {
            // To ask more often would keep it from it.
            thread::sleep(REST);
            let vitals = self.vitals()?;
            let is_at_rest = vitals.threads <= rest.threads
                && vitals.descriptors <= rest.descriptors
                && vitals.connections <= rest.connections
                && vitals.subscribers == 0;
            if is_at_rest || Instant::now() > deadline {
                return Ok(vitals);
            }
        }
    }

    /// A figure of `GET /metrics`, by its name without `newswire_`.
    pub fn metric(&self, name: &str) -> Outcome<u64> {
        figure(&self.metrics()?, &format!("newswire_{name} "))
    }

    fn metrics(&self) -> Outcome<String> {
        let mut caller = Caller::new(self.address).timeout(Duration::from_secs(60));
        Ok(String::from_utf8(caller.get("/metrics")?.content)?)
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// The number behind `name` at the beginning of a line, as of `GET /metrics` or `/proc/PID/status`.
pub fn figure(lines: &str, name: &str) -> Outcome<u64> {
    let rest = lines.lines().find_map(|line| line.strip_prefix(name));
    let word = rest.and_then(|rest| rest.split_whitespace().next());
    Ok(word.ok_or_else(|| format!("there is no figure {name}"))?.parse()?)
}

impl Drop for Newswire<'_> {
    /// It is alive, and nothing went wrong in it: to be judged also when an error ends the attack,
    /// which a server that has ended causes most of all.
    fn drop(&mut self) {
        let mut wrong = Vec::new();
        match self.child.try_wait() {
            Ok(None) => {
                let metrics = self.metrics().unwrap_or_default();
                let refusals = ["accept_errors_total", "threads_refused_total"];
                let refusals = refusals.into_iter().filter(|_| !self.runs_short);
                for name in refusals.chain(["panics_total"]) {
                    let count = figure(&metrics, &format!("newswire_{name} ")).ok();
                    if count != Some(0) {
                        wrong.push(format!("{name} is {count:?}"));
                    }
                }
            }
            ended => wrong.push(format!("the server ended by itself: {ended:?}")),
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The former may come so fast that some are lost.
        let is_of_shortage = |said: &String| said.ends_with("trying again") || said.ends_with("of this log were lost");
        let said = std::mem::take(&mut *hold(&self.complaints));
        let said = said.iter().filter(|said| !self.runs_short || !is_of_shortage(said));
        wrong.extend(said.map(|said| format!("the server said: {said}")));
        for wrong in wrong {
            self.report.violation(format!("{}: {wrong}", self.what));
        }
    }
}

/// Nothing is left of the clients that have left.
pub fn is_all_gone(report: &Report, what: &str, before: Vitals, after: Vitals) {
    let is_gone = after.threads <= before.threads
        && after.descriptors <= before.descriptors
        && after.connections == 0
        && after.subscribers == 0;
    report.expect(is_gone, format!("{what}: something is left over: {before}; then {after}"));
}

fn spawn(
    path: &Path,
    arguments: &[String],
    listen: &str,
    user: Option<u32>,
    complaints: &Arc<Mutex<Vec<String>>>,
) -> Outcome<(Child, SocketAddr)> {
    let mut command = Command::new(path);
    command
        .args(["serve", "--listen", listen, "--publish-open", "--quiet"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut child = command.spawn()?;
    if let Some(stderr) = child.stderr.take() {
        let complaints = Arc::clone(complaints);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                hold(&complaints).push(line);
            }
        });
    }
    let mut stdout = BufReader::new(child.stdout.take().ok_or("it has no standard output")?);
    loop {
        let mut line = String::new();
        if stdout.read_line(&mut line)? == 0 {
            let said = hold(complaints).join(" ");
            return Err(format!("the server ended before it listened: {said}").into());
        }
        let after = line.split_once("http://").map(|(_, after)| after);
        if let Some(address) = after.and_then(|after| after.split('/').next()) {
            let address = address.parse()?;
            // What else it says is for people; it must not fill the pipe.
            thread::spawn(move || stdout.lines().map_while(Result::ok).count());
            return Ok((child, address));
        }
    }
}
