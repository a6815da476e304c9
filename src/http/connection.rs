//! Accepted connections: each holds a place under the limit for as long as it lives, whoever owns
//! it. While all are taken, newcomers wait here, and those who have said what they want go first.

use crate::Limits;
use crate::lock::hold;
use std::collections::VecDeque;
use std::io::ErrorKind::{ConnectionAborted, Interrupted, TimedOut, WouldBlock};
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When every place is taken, a connection that its peer has kept waiting this long for a request
/// gives way to a newcomer: silence must not keep out who has something to say. Anyone who speaks at
/// once is safe from it. Were it longer, newcomers would wait for so long when many are silent.
const GRACE: Duration = Duration::from_millis(500);

/// How long the thread of a connection that gives way may take to end it, before the next one does.
const WAY_OUT: Duration = Duration::from_millis(50);

/// How often those who wait are looked at, and how much of what each has sent: a system call for each.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const LOOK_BYTES: usize = 4 * 1024;

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
        self.await_peer_since(self.connections.clock_ms());
    }

    /// As [`await_peer`](Connection::await_peer), but so long the peer may take for what is written to it:
    /// a byte at a time must not hold a place for good. Zero is for good.
    pub(crate) fn await_peer_after(&self, patience: Duration) {
        let since = match u64::try_from(patience.as_millis()) {
            Ok(ms @ 1..) => self.connections.clock_ms().saturating_add(ms),
            _ => 0,
        };
        self.await_peer_since(since.min(GAVE_WAY - 1));
    }

    /// As [`await_peer`](Connection::await_peer), for who has had its answer: it needs its place less
    /// than anyone.
    pub(crate) fn give_way_first(&self) {
        self.await_peer_since(FIRST);
    }

    /// `false`, for good, when it has given way: what was sent to it before can be read still, and must
    /// not be carried out.
    fn await_peer_since(&self, since: u64) -> bool {
        let unless_it_gave_way = |before| (before != GAVE_WAY).then_some(since);
        let awaited_since = &self.seat.awaited_since;
        awaited_since.fetch_update(Relaxed, Relaxed, unless_it_gave_way).is_ok()
    }

    /// `false` when it has given way meanwhile: nobody would hear an answer.
    pub(crate) fn resume(&self) -> bool {
        self.await_peer_since(0)
    }

    /// For who has nothing to write for long, and would not notice otherwise: whether the peer is known to
    /// have left. One that has closed its half may be listening still; a write tells, by the error that
    /// comes back some time after it.
    ///
    /// # Errors
    /// When it has left.
    pub(crate) fn look_for_peer(&self) -> io::Result<()> {
        // The shortest wait there is; zero would be for good.
        self.set_read_timeout(Some(Duration::from_micros(1)))?;
        match (&mut &**self).read(&mut [0; 1024]) {
            Ok(0) if !self.await_peer_since(FIRST) => return Err(ConnectionAborted.into()),
            Ok(0) => return self.take_error()?.map_or(Ok(()), Err),
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
        self.give_way_first();
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
        let is_awaited = places.is_attended;
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
    waiting_limit: usize,
    started: Instant,
    /// When a connection was last told to give way, on the same clock as theirs.
    gave_way_ms: AtomicU64,
    places: Mutex<Places>,
    /// A place is free. Who finds no room to wait in looks again from time to time.
    freed: Condvar,
    pub(crate) counts: Counts,
}

struct Places {
    seats: Vec<Option<Arc<Seat>>>,
    free: Vec<usize>,
    /// Newcomers whom the thread that lets them in has not seen yet.
    arrivals: VecDeque<Newcomer>,
    /// How many wait, seen or not.
    waiting: usize,
    /// Some thread is letting them in.
    is_attended: bool,
}

/// An accepted socket that has no place yet.
struct Newcomer {
    socket: TcpStream,
    peer: SocketAddr,
    since: Instant,
    /// The head of its request is here.
    has_asked: bool,
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

impl Newcomer {
    /// Looks at what it has sent, without taking it. `false` when it has left.
    fn look(&mut self) -> bool {
        if self.has_asked {
            return true;
        }
        let mut sent = [0; LOOK_BYTES];
        match self.socket.peek(&mut sent) {
            Ok(0) => false,
            Ok(bytes) => {
                // An empty line ends a head, and others may stand before it; a line may end in a bare
                // LF (RFC 9112, 2.2). A head that is longer than this look is no silence, either.
                let head = sent[..bytes].trim_ascii_start();
                let ends = |at: usize| {
                    matches!(&head[at..], [b'\n', b'\n', ..] | [b'\n', b'\r', b'\n', ..])
                };
                self.has_asked = bytes == LOOK_BYTES || (0..head.len()).any(ends);
                true
            }
            Err(error) => matches!(error.kind(), WouldBlock | Interrupted),
        }
    }
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Arc<Connections> {
        Arc::new(Connections {
            limit: limits.connections.max(1),
            waiting_limit: limits.waiting.max(1),
            started: Instant::now(),
            gave_way_ms: AtomicU64::new(0),
            places: Mutex::new(Places {
                seats: Vec::new(),
                free: Vec::new(),
                arrivals: VecDeque::new(),
                waiting: 0,
                is_attended: false,
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

    /// How many wait for a place.
    pub(crate) fn waiting(&self) -> usize {
        hold(&self.places).waiting
    }

    /// Gives `socket` a place and lets it in. While all are taken it waits with others; who comes first
    /// to that does not return before none of them waits, and who comes when no more may wait does not
    /// before one does not any more.
    pub(crate) fn admit(
        self: &Arc<Connections>,
        socket: TcpStream,
        peer: SocketAddr,
        let_in: impl Fn(Connection, SocketAddr),
    ) {
        let mut places = hold(&self.places);
        if !places.is_attended
            && let Some(place) = places.vacant(self.limit)
        {
            let connection = self.seat(places, place, socket);
            return let_in(connection, peer);
        }
        while places.waiting >= self.waiting_limit {
            places = self.wait_for_a_place(places);
        }
        places.waiting += 1;
        places.arrivals.push_back(Newcomer {
            socket,
            peer,
            since: Instant::now(),
            has_asked: false,
        });
        if !std::mem::replace(&mut places.is_attended, true) {
            drop(places);
            self.let_all_in(let_in);
        }
    }

    /// Until nobody waits any more. Who has asked goes first, then who came first.
    fn let_all_in(self: &Arc<Connections>, let_in: impl Fn(Connection, SocketAddr)) {
        let mut newcomers = VecDeque::new();
        let mut looked_at: Option<Instant> = None;
        loop {
            let (arrivals, is_full) = {
                let mut places = hold(&self.places);
                let is_full = places.waiting >= self.waiting_limit;
                (std::mem::take(&mut places.arrivals), is_full)
            };
            let does_not_block =
                |newcomer: &Newcomer| newcomer.socket.set_nonblocking(true).is_ok();
            newcomers.extend(arrivals.into_iter().filter(does_not_block));
            let now = Instant::now();
            if looked_at.is_none_or(|looked_at| now - looked_at >= LOOK_INTERVAL) {
                newcomers.retain_mut(Newcomer::look);
                looked_at = Some(now);
            }
            if is_full {
                // Silence must not keep others from waiting, either.
                let before = newcomers.len();
                newcomers.retain(|one| one.has_asked || now - one.since < GRACE);
                let gone = before - newcomers.len();
                self.counts.gave_way.fetch_add(gone as u64, Relaxed);
            }

            let mut places = hold(&self.places);
            places.waiting = places.arrivals.len() + newcomers.len();
            if places.waiting == 0 {
                places.is_attended = false;
                return;
            }
            if newcomers.is_empty() {
                // All of those have left, and others have just come.
                continue;
            }
            let has_asked = newcomers.iter().position(|one| one.has_asked);
            let next = has_asked.unwrap_or(0);
            if let Some(place) = places.vacant(self.limit)
                && let Some(newcomer) = newcomers.remove(next)
            {
                places.waiting -= 1;
                let connection = self.seat(places, place, newcomer.socket);
                if connection.set_nonblocking(false).is_ok() {
                    let_in(connection, newcomer.peer);
                }
            } else {
                drop(places);
                self.let_one_give_way();
                let places = hold(&self.places);
                // Somebody may have ended meanwhile.
                if places.free.is_empty() {
                    drop(self.wait_for_a_place(places));
                }
            }
        }
    }

    fn seat(
        self: &Arc<Connections>,
        mut places: MutexGuard<'_, Places>,
        place: usize,
        socket: TcpStream,
    ) -> Connection {
        let seat = Arc::new(Seat { socket, awaited_since: AtomicU64::new(0) });
        places.seats[place] = Some(Arc::clone(&seat));
        Connection { seat, place, connections: Arc::clone(self) }
    }

    fn wait_for_a_place<'p>(&self, places: MutexGuard<'p, Places>) -> MutexGuard<'p, Places> {
        let waited = self.freed.wait_timeout(places, LOOK_INTERVAL);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends the connection that has been waited for longest, if that is long enough: something that
    /// the system has no more of is wanted for another.
    pub(crate) fn let_one_give_way(&self) {
        let now_ms = self.clock_ms();
        let latest = now_ms.saturating_sub(GRACE.as_millis() as u64);
        let since = |seat: &Arc<Seat>| seat.awaited_since.load(Relaxed);
        let longest = {
            let places = hold(&self.places);
            let seats = places.seats.iter().flatten();
            let was_told_ms = now_ms.saturating_sub(self.gave_way_ms.load(Relaxed));
            if was_told_ms < WAY_OUT.as_millis() as u64
                && seats.clone().any(|seat| since(seat) == GAVE_WAY)
            {
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
        let gives_way = seat.awaited_since.compare_exchange(since, GAVE_WAY, Relaxed, Relaxed);
        if gives_way.is_ok() {
            self.gave_way_ms.store(now_ms, Relaxed);
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

impl Places {
    fn vacant(&mut self, limit: usize) -> Option<usize> {
        if self.free.is_empty() && self.seats.len() < limit {
            self.seats.push(None);
            return Some(self.seats.len() - 1);
        }
        self.free.pop()
    }
}
