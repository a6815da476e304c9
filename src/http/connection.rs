//! Accepted connections: each holds a place under the limit for as long as it lives, whoever owns
//! it.

use crate::lock::hold;
use std::io::ErrorKind::{ConnectionAborted, Interrupted, TimedOut, WouldBlock};
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When every place is taken, a connection that its peer has kept waiting this long for a request
/// gives way to one that knocks: silence must not keep out who has something to say. Anyone who
/// speaks at once is safe from it. Were it longer, so few would come in at a time that a SYN of one of
/// them could be dropped until its retries run out.
const GRACE: Duration = Duration::from_millis(500);

/// How long we go on reading after our last byte.
const LINGER: Duration = Duration::from_secs(2);

/// A socket and its place under the limit, owned by one thread at a time. Dropping it closes the
/// one and frees the other.
pub(crate) struct Connection {
    seat: Arc<Seat>,
    place: usize,
    connections: Arc<Connections>,
}

/// What an accept loop can see of a connection that a thread owns.
struct Seat {
    socket: TcpStream,
    /// Milliseconds on the connections' clock since which we wait for the peer; 0 while we do not.
    awaited_since: AtomicU64,
}

/// The moment of the connections' clock that makes a connection the first to give way, and the one that says
/// that it has.
const FIRST: u64 = 1;
const GAVE_WAY: u64 = u64::MAX;

impl Connection {
    /// From here on, until [`resume`](Connection::resume), nothing but the peer keeps this
    /// connection busy.
    pub(crate) fn await_peer(&self) {
        self.seat
            .awaited_since
            .store(self.connections.clock_ms(), Relaxed);
    }

    /// `false` when it has given way meanwhile: nobody would hear an answer.
    pub(crate) fn resume(&self) -> bool {
        self.seat.awaited_since.swap(0, Relaxed) != GAVE_WAY
    }

    /// For who has nothing to write for long, and would not notice otherwise: whether the peer is known to
    /// have left. One that has closed its half may be listening still, which only a write can tell.
    ///
    /// # Errors
    /// When it has left.
    pub(crate) fn look_for_peer(&self) -> io::Result<()> {
        // The shortest wait there is; zero would be for good.
        self.set_read_timeout(Some(Duration::from_micros(1)))?;
        match (&mut &**self).read(&mut [0; 1024]) {
            Ok(0) if self.seat.awaited_since.swap(FIRST, Relaxed) == GAVE_WAY => {
                return Err(ConnectionAborted.into());
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Closes its writing half, and waits for the peer to close the other.
    ///
    /// "If a server performs an immediate close of a TCP connection, there is a significant risk
    /// that the client will not be able to read the last HTTP response": bytes of the peer that
    /// nobody has read make the system answer with a reset, which erases what the peer has not read
    /// yet (RFC 9112, 9.6).
    pub(crate) fn linger(&self) {
        if self.shutdown(Shutdown::Write).is_err() {
            return;
        }
        // Who has had its answer needs its place less than anyone.
        self.seat.awaited_since.store(FIRST, Relaxed);
        let deadline = Instant::now() + LINGER;
        let mut unheard = [0; 4096];
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() || self.set_read_timeout(Some(wait)).is_err() {
                return;
            }
            match (&mut &**self).read(&mut unheard) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl Deref for Connection {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.seat.socket
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut places = hold(&self.connections.places);
        let seat = places.seats[self.place].take();
        places.free.push(self.place);
        let is_awaited = places.knocked > places.admitted;
        drop(places);
        // The socket is closed when `self.seat` goes, after this.
        drop(seat);
        // Waking costs a system call, also when nobody sleeps.
        if is_awaited {
            self.connections.freed.notify_all();
        }
    }
}

/// All connections of a server, and what is counted about them.
pub(crate) struct Connections {
    limit: usize,
    started: Instant,
    places: Mutex<Places>,
    freed: Condvar,
    pub(crate) counts: Counts,
}

struct Places {
    seats: Vec<Option<Arc<Seat>>>,
    free: Vec<usize>,
    /// How many have asked for one, and how many of them have got it, in that order.
    knocked: u64,
    admitted: u64,
}

impl Places {
    fn vacant(&mut self, limit: usize) -> Option<usize> {
        if self.free.is_empty() && self.seats.len() < limit {
            self.seats.push(None);
            return Some(self.seats.len() - 1);
        }
        self.free.pop()
    }
}

/// Counters since the server began.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) accepted: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) threads_refused: AtomicU64,
    pub(crate) gave_way: AtomicU64,
    pub(crate) panics: AtomicU64,
}

impl Connections {
    pub(crate) fn new(limit: usize) -> Arc<Connections> {
        Arc::new(Connections {
            limit: limit.max(1),
            started: Instant::now(),
            places: Mutex::new(Places {
                seats: Vec::new(),
                free: Vec::new(),
                knocked: 0,
                admitted: 0,
            }),
            freed: Condvar::new(),
            counts: Counts::default(),
        })
    }

    /// How many there are now.
    pub(crate) fn len(&self) -> usize {
        let places = hold(&self.places);
        places.seats.len() - places.free.len()
    }

    /// Gives `socket` a place, waiting for one while all are taken: the caller is an accept loop, which
    /// lets nobody else in meanwhile.
    pub(crate) fn admit(self: &Arc<Connections>, socket: TcpStream) -> Connection {
        let mut places = hold(&self.places);
        let number = places.knocked;
        places.knocked += 1;
        let place = loop {
            let is_next = number == places.admitted;
            if let Some(place) = is_next.then(|| places.vacant(self.limit)).flatten() {
                break place;
            }
            drop(places);
            if is_next {
                self.let_one_give_way();
            }
            places = hold(&self.places);
            if places.free.is_empty() || number > places.admitted {
                let waited = self.freed.wait_timeout(places, GRACE / 20);
                places = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        places.admitted += 1;
        if places.knocked > places.admitted {
            self.freed.notify_all();
        }
        let seat = Arc::new(Seat {
            socket,
            awaited_since: AtomicU64::new(0),
        });
        places.seats[place] = Some(Arc::clone(&seat));
        Connection {
            seat,
            place,
            connections: Arc::clone(self),
        }
    }

    /// Ends the connection that has been waited for longest, if that is long enough: something that
    /// the system has no more of is wanted for another.
    pub(crate) fn let_one_give_way(&self) {
        let latest = self.clock_ms().saturating_sub(GRACE.as_millis() as u64);
        let since = |seat: &Arc<Seat>| seat.awaited_since.load(Relaxed);
        let longest = {
            let places = hold(&self.places);
            let seats = places.seats.iter().flatten();
            if seats.clone().any(|seat| since(seat) == GAVE_WAY) {
                // Somebody is on the way out already.
                return;
            }
            let longest = seats
                .map(|seat| (since(seat), seat))
                .filter(|(since, _)| (FIRST..=latest).contains(since))
                .min_by_key(|(since, _)| *since);
            longest.map(|(since, seat)| (since, Arc::clone(seat)))
        };
        let Some((since, seat)) = longest else {
            return;
        };
        // Unless its peer has just spoken.
        let gives_way = seat
            .awaited_since
            .compare_exchange(since, GAVE_WAY, Relaxed, Relaxed);
        if gives_way.is_ok() {
            self.counts.gave_way.fetch_add(1, Relaxed);
            // Its thread sees the end of the stream and drops it; an error means that the peer is
            // gone already.
            let _ = seat.socket.shutdown(Shutdown::Both);
        }
    }

    /// Never 0.
    fn clock_ms(&self) -> u64 {
        1 + self.started.elapsed().as_millis() as u64
    }
}
