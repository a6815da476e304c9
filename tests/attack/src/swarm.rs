//! Many connections that do one unpleasant thing, all on one thread; what the server closes, it
//! opens again.

use crate::Outcome;
use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What each connection does.
#[derive(Clone, Copy)]
pub struct Tactic {
    /// What it sends at once.
    pub opening: &'static str,
    /// What it sends now and then, for good.
    pub drip: &'static str,
    pub drip_every: Duration,
    /// How much it reads in a second.
    pub reads: usize,
    /// What the server answers at once, if it does.
    pub status: Option<u16>,
}

pub const SILENT: Tactic =
    Tactic { opening: "", status: None, drip: "", drip_every: Duration::from_millis(300), reads: 64 * 1024 };

impl Tactic {
    /// Once, with nothing in its way: one that the server does not take as it is meant besieges
    /// nothing.
    pub fn rehearse(&self, address: SocketAddr) -> Outcome<()> {
        let mut socket = TcpStream::connect(address)?;
        let timeout = Duration::from_millis(if self.status.is_some() { 10_000 } else { 300 });
        socket.set_read_timeout(Some(timeout))?;
        socket.write_all(self.opening.as_bytes())?;
        let expected = self.status.map(|status| format!("HTTP/1.1 {status} "));
        let mut start = [0; "HTTP/1.1 200 ".len()];
        let answered = match socket.read_exact(&mut start) {
            Ok(()) => Some(String::from_utf8_lossy(&start).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => return Err(error.into()),
        };
        match answered == expected {
            true => Ok(()),
            false => Err(format!("{:?} is answered {answered:?}", self.opening).into()),
        }
    }
}

/// How often each connection is looked after.
const TICK: Duration = Duration::from_millis(50);

/// What became of them.
#[derive(Clone, Copy, Default)]
pub struct Fate {
    pub opened: u64,
    closed_by_server: u64,
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (opened, closed) = (self.opened, self.closed_by_server);
        write!(f, "opened {opened}, closed by the server {closed}")
    }
}

pub struct Swarm {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Fate>,
}

impl Swarm {
    /// `count` connections, which take the tactics in turn.
    pub fn start(address: SocketAddr, count: usize, tactics: &'static [Tactic], seed: u64) -> Swarm {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut random = Rng::with_seed(seed);
            let mut members: Vec<_> = tactics.iter().cycle().take(count).map(Member::new).collect();
            let mut fate = Fate::default();
            while !over.load(Relaxed) {
                random.shuffle(&mut members);
                for member in &mut members {
                    member.tick(address, &mut fate);
                }
                fate.closed_by_server += drop_closed(&mut members);
                thread::sleep(TICK);
            }
            fate
        });
        Swarm { is_over, thread }
    }

    /// Closes all of them.
    pub fn stop(self) -> Outcome<Fate> {
        self.is_over.store(true, Relaxed);
        self.thread.join().map_err(|_| "the swarm panicked".into())
    }
}

struct Member {
    tactic: &'static Tactic,
    socket: Option<TcpStream>,
    is_open: bool,
    sent: usize,
    dripped: Instant,
    read: Instant,
}

impl Member {
    fn new(tactic: &'static Tactic) -> Member {
        Member { tactic, socket: None, is_open: false, sent: 0, dripped: Instant::now(), read: Instant::now() }
    }

    fn tick(&mut self, address: SocketAddr, fate: &mut Fate) {
        let Some(socket) = &mut self.socket else {
            // No descriptor, no port: another time.
            if let Ok(socket) = connect(address) {
                self.socket = Some(socket);
                (self.is_open, self.sent) = (false, 0);
            }
            return;
        };
        if !self.is_open {
            // Until then it is not accepted.
            self.is_open = socket.peer_addr().is_ok();
            fate.opened += u64::from(self.is_open);
        }
        let opening = &self.tactic.opening.as_bytes()[self.sent..];
        let is_due = !self.tactic.drip.is_empty() && self.dripped.elapsed() >= self.tactic.drip_every;
        let written = match (opening, is_due) {
            ([], false) => Ok(0),
            ([], true) => {
                self.dripped = Instant::now();
                socket.write(self.tactic.drip.as_bytes()).map(|_| 0)
            }
            (opening, _) => socket.write(opening),
        };
        self.sent += written.unwrap_or(0);
        if self.read.elapsed() >= Duration::from_secs(1) {
            self.read = Instant::now();
            // What it reads, and whether it can, is of no interest.
            let _ = socket.read(&mut vec![0; self.tactic.reads]);
        }
    }
}

/// Forgets the connections that have ended, also those with something left to read. How many of
/// them had been open.
fn drop_closed(members: &mut [Member]) -> u64 {
    let (mut polled, mut owners) = (Vec::new(), Vec::new());
    for (at, member) in members.iter().enumerate() {
        if let Some(socket) = &member.socket {
            polled.push(PollFd::new(socket, PollFlags::RDHUP));
            owners.push(at);
        }
    }
    if poll(&mut polled, Some(&Timespec::default())).is_err() {
        return 0;
    }
    let is_closed = |polled: &PollFd<'_>| !polled.revents().is_empty();
    let closed: Vec<_> =
        owners.iter().zip(&polled).filter(|(_, polled)| is_closed(polled)).map(|(&at, _)| at).collect();
    let mut count = 0;
    for at in closed {
        count += u64::from(members[at].is_open);
        members[at].socket = None;
    }
    count
}

/// Begins to connect, and does not wait for it.
fn connect(address: SocketAddr) -> Outcome<TcpStream> {
    let socket = TcpStream::from(rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?);
    socket.set_nonblocking(true)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}
