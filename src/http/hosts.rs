//! The threads of connections. A connection has one to itself while it speaks HTTP; a thread whose
//! connection is gone waits a moment for another, since beginning and ending a thread costs more than
//! a request.
//!
//! Who accepts only queues, and never begins a thread: the system lets 128 connections wait to be
//! accepted and drops the next, whose client tries again a second later.

use crate::lock::hold;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a thread waits for another connection.
const SPARE: Duration = Duration::from_secs(1);

/// Enough for a handler that formats and parses. What is not touched costs no memory.
const STACK_BYTES: usize = 256 * 1024;

/// Between two tries to begin a thread that the system refused: it doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Threads for guests that are served one at a time.
pub(super) struct Hosts<G> {
    lobby: Mutex<Lobby<G>>,
    /// A guest waits, and a host is idle.
    arrived: Condvar,
    /// A guest waits, and no host is idle.
    wanted: Condvar,
}

struct Lobby<G> {
    guests: VecDeque<G>,
    idle: usize,
    /// Threads that have been begun and have not looked for a guest yet.
    beginning: usize,
}

impl<G: Send + 'static> Hosts<G> {
    /// With a thread that begins others, each of which serves guests with `serve`; `refused` is told
    /// when the system refuses one. `thread::spawn` would panic.
    pub(super) fn start(
        serve: impl Fn(G) + Send + Sync + 'static,
        refused: impl Fn(io::Error) + Send + 'static,
    ) -> io::Result<Arc<Hosts<G>>> {
        let lobby = Lobby {
            guests: VecDeque::new(),
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
        usher.spawn(move || begun.begin_threads(&serve, refused))?;
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

    fn begin_threads(
        self: Arc<Self>,
        serve: &Arc<impl Fn(G) + Send + Sync + 'static>,
        refused: impl Fn(io::Error),
    ) {
        let mut backoff = BACKOFF.0;
        let mut lobby = hold(&self.lobby);
        loop {
            if !lobby.is_wanted() {
                lobby = self
                    .wanted
                    .wait(lobby)
                    .unwrap_or_else(PoisonError::into_inner);
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
                    thread::sleep(backoff);
                    backoff = (backoff * 2).min(BACKOFF.1);
                    lobby = hold(&self.lobby);
                    lobby.beginning -= 1;
                }
            }
        }
    }

    fn serve_guests(&self, serve: impl Fn(G)) {
        let mut lobby = hold(&self.lobby);
        lobby.beginning -= 1;
        loop {
            if let Some(guest) = lobby.guests.pop_front() {
                drop(lobby);
                serve(guest);
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
}
