//! The threads of connections. A connection has one to itself while it speaks HTTP; a thread whose
//! connection is gone waits a moment for another, since beginning and ending a thread costs more than
//! a request.
//!
//! Who accepts only queues, and never begins a thread: that takes longer than accepting, and
//! connections that nobody accepts are dropped.

use crate::lock::hold;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread waits for another connection.
const SPARE: Duration = Duration::from_secs(1);

/// Enough for a handler that formats and parses. What is not touched costs no memory.
const STACK_BYTES: usize = 256 * 1024;

/// Between two tries to begin a thread that the system refused: it doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How long a guest rests, and how many of those who rest are called together: all of a millisecond.
const REST: Duration = Duration::from_millis(10);
const CALL_INTERVAL: Duration = Duration::from_millis(1);

/// Threads for guests that are served one at a time.
pub(super) struct Hosts<G> {
    lobby: Mutex<Lobby<G>>,
    /// A guest waits, and a host is idle.
    arrived: Condvar,
    /// A guest waits, and no host is idle; or the first guest rests.
    wanted: Condvar,
}

struct Lobby<G> {
    guests: VecDeque<G>,
    /// Who is to be served later, and not before when.
    resting: VecDeque<(Instant, G)>,
    idle: usize,
    /// Threads that have been begun and have not looked for a guest yet.
    beginning: usize,
}

impl<G: Send + 'static> Hosts<G> {
    /// With a thread that begins others, each of which serves guests with `serve`; `refused` is told
    /// when the system refuses one. `thread::spawn` would panic.
    pub(super) fn start(
        serve: impl Fn(G, &Hosts<G>) + Send + Sync + 'static,
        refused: impl Fn(io::Error) + Send + 'static,
    ) -> io::Result<Arc<Hosts<G>>> {
        let lobby = Lobby {
            guests: VecDeque::new(),
            resting: VecDeque::new(),
            idle: 0,
            beginning: 0,
        };
        let hosts = Arc::new(Hosts {
            lobby: Mutex::new(lobby),
            arrived: Condvar::new(),
            wanted: Condvar::new(),
        });
        let (begun, serve) = (Arc::clone(&hosts), Arc::new(serve));
        let usher = thread::Builder::new().name("usher".into());
        usher.spawn(move || begun.usher(&serve, refused))?;
        Ok(hosts)
    }

    pub(super) fn receive(&self, guest: G) {
        let mut lobby = hold(&self.lobby);
        lobby.guests.push_back(guest);
        let is_wanted = lobby.is_wanted();
        drop(lobby);
        if is_wanted {
            self.wanted.notify_one();
        } else {
            self.arrived.notify_one();
        }
    }

    /// Takes a guest in who is to be served in ten milliseconds, or a little later. No thread waits with
    /// it.
    pub(super) fn let_rest(&self, guest: G) {
        let mut lobby = hold(&self.lobby);
        lobby.resting.push_back((Instant::now() + REST, guest));
        let is_first = lobby.resting.len() == 1;
        drop(lobby);
        if is_first {
            self.wanted.notify_one();
        }
    }

    fn usher(
        self: Arc<Self>,
        serve: &Arc<impl Fn(G, &Hosts<G>) + Send + Sync + 'static>,
        refused: impl Fn(io::Error),
    ) {
        let mut backoff = BACKOFF.0;
        // The system has refused a thread: none is begun before then, but who has rested is called.
        let mut retry = None;
        let mut lobby = hold(&self.lobby);
        loop {
            for _ in 0..lobby.call_rested().min(lobby.idle) {
                self.arrived.notify_one();
            }
            retry = retry.filter(|&retry| Instant::now() < retry);
            if !lobby.is_wanted() || retry.is_some() {
                lobby = self.wait_until_wanted(lobby, retry);
                continue;
            }
            lobby.beginning += 1;
            drop(lobby);
            let (hosts, serve) = (Arc::clone(&self), Arc::clone(serve));
            let host = thread::Builder::new()
                .name("connection".into())
                .stack_size(STACK_BYTES);
            match host.spawn(move || hosts.serve_guests(&*serve)) {
                Ok(_) => {
                    backoff = BACKOFF.0;
                    lobby = hold(&self.lobby);
                }
                Err(error) => {
                    refused(error);
                    retry = Some(Instant::now() + backoff);
                    backoff = (backoff * 2).min(BACKOFF.1);
                    lobby = hold(&self.lobby);
                    lobby.beginning -= 1;
                }
            }
        }
    }

    fn wait_until_wanted<'l>(
        &self,
        lobby: MutexGuard<'l, Lobby<G>>,
        retry: Option<Instant>,
    ) -> MutexGuard<'l, Lobby<G>> {
        let rested = lobby.resting.front().map(|(until, _)| *until);
        let Some(until) = rested.into_iter().chain(retry).min() else {
            let woken = self.wanted.wait(lobby);
            return woken.unwrap_or_else(PoisonError::into_inner);
        };
        let wait = until.saturating_duration_since(Instant::now());
        let woken = self.wanted.wait_timeout(lobby, wait.max(CALL_INTERVAL));
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    fn serve_guests(&self, serve: impl Fn(G, &Hosts<G>)) {
        let mut lobby = hold(&self.lobby);
        lobby.beginning -= 1;
        loop {
            if let Some(guest) = lobby.guests.pop_front() {
                drop(lobby);
                serve(guest, self);
                lobby = hold(&self.lobby);
                continue;
            }
            lobby.idle += 1;
            let waited = self.arrived.wait_timeout(lobby, SPARE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            lobby = woken;
            lobby.idle -= 1;
            if timeout.timed_out() && lobby.guests.is_empty() {
                return;
            }
        }
    }
}

impl<G> Lobby<G> {
    fn is_wanted(&self) -> bool {
        self.guests.len() > self.idle + self.beginning
    }

    /// Those who have rested wait to be served now; returns how many.
    fn call_rested(&mut self) -> usize {
        let before = self.guests.len();
        if !self.resting.is_empty() {
            let now = Instant::now();
            let rested = self.resting.partition_point(|(until, _)| *until <= now);
            let rested = self.resting.drain(..rested).map(|(_, guest)| guest);
            self.guests.extend(rested);
        }
        self.guests.len() - before
    }
}
