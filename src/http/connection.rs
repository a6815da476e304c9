//! A connection: its socket, and the time from which on it may be evicted.

use super::admission::Admission;
use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock, WriteZero};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::{Duration, Instant};

/// A connection may be evicted when the server has waited for its peer for this long without progress.
const GRACE: Duration = Duration::from_millis(500);

/// Slower than this is no progress, in both directions. Without a least rate, a peer that takes one byte now and then
/// would hold its place for ever. Kestrel has the same rate.
const LEAST_BYTES_PER_SECOND: u64 = 240;

/// A blocked write returns this often to say what the peer has taken. It must be well below [`GRACE`].
const WRITE_STEP: Duration = Duration::from_millis(100);

/// How long the server goes on reading after its last byte.
const LINGER: Duration = Duration::from_secs(2);

/// In [`Slot::evictable_from_ms`]: the connection was evicted. This value never changes again.
const EVICTED: u64 = u64::MAX;

/// In [`Slot::evictable_from_ms`]: the response was sent, and what still arrives is thrown away. Such a connection is
/// evicted before any other.
const ANSWERED: u64 = 1;

/// The clock of all connections, in milliseconds. It is never 0.
pub(super) fn now_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    1 + START.elapsed().as_millis() as u64
}

fn grace_ms() -> u64 {
    now_ms() + GRACE.as_millis() as u64
}

/// What the table of all connections keeps of each.
pub(super) struct Slot {
    pub(super) socket: TcpStream,
    peer: SocketAddr,
    /// From when on the connection may be evicted, on the clock of [`now_ms`]. It is 0 while the server does not wait
    /// for the peer.
    evictable_from_ms: AtomicU64,
    /// The server waits for a request. A connection that the server stops in this state has nothing to be answered.
    is_idle: AtomicBool,
    /// Whether the connection counts among `Limits::connections`. It changes under the table's lock.
    pub(super) has_place: AtomicBool,
    /// Whether the connection counts among `Limits::streams`. It changes under the table's lock.
    pub(super) is_stream: AtomicBool,
    /// What a stream is sent when the server stops. It is set when the opening of the stream has left.
    farewell: OnceLock<fn() -> Vec<u8>>,
}

impl Slot {
    pub(super) fn new(socket: TcpStream, peer: SocketAddr) -> Slot {
        Slot {
            socket,
            peer,
            evictable_from_ms: AtomicU64::new(0),
            is_idle: AtomicBool::new(true),
            has_place: AtomicBool::new(false),
            is_stream: AtomicBool::new(false),
            farewell: OnceLock::new(),
        }
    }

    /// `None` while the server does not wait for the peer, and after the eviction.
    pub(super) fn evictable_from_ms(&self) -> Option<u64> {
        let from_ms = self.evictable_from_ms.load(Relaxed);
        (from_ms != 0 && from_ms != EVICTED).then_some(from_ms)
    }

    /// `false` for a connection that was evicted: its thread can still read what arrived before, and must not act on
    /// it.
    fn set_evictable_from(&self, from_ms: u64) -> bool {
        let unless_evicted = |before_ms| (before_ms != EVICTED).then_some(from_ms);
        self.evictable_from_ms.fetch_update(Relaxed, Relaxed, unless_evicted).is_ok()
    }

    /// `false` when the peer has made progress since the caller read `from_ms`. The socket is still open then, and
    /// also when this is `true`: closing it is the caller's work.
    pub(super) fn evict(&self, from_ms: u64) -> bool {
        self.evictable_from_ms.compare_exchange(from_ms, EVICTED, Relaxed, Relaxed).is_ok()
    }

    /// Ends the connection if it is idle or a stream, because the server stops. A request is still answered.
    pub(super) fn stop(&self) {
        if let Some(farewell) = self.farewell.get() {
            // A blocked stream has no room for it.
            if self.evictable_from_ms().is_none() {
                let _ = (&self.socket).write(&farewell());
            }
            let _ = self.socket.shutdown(Shutdown::Write);
        } else if self.is_idle.load(Relaxed) {
            // The peer may make progress between the two steps.
            while let Some(from_ms) = self.evictable_from_ms() {
                if self.evict(from_ms) {
                    let _ = self.socket.shutdown(Shutdown::Both);
                }
            }
        }
    }
}

/// A connection, which one thread at a time owns. Dropping it closes the socket and gives back what it counts for.
pub(crate) struct Connection {
    slot: Arc<Slot>,
    admission: Arc<Admission>,
}

impl Connection {
    pub(super) fn new(slot: Arc<Slot>, admission: Arc<Admission>) -> Connection {
        Connection { slot, admission }
    }

    pub(super) fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.slot.peer
    }

    /// Sets the socket's options: small frames leave at once, and a blocked write returns from time to time.
    ///
    /// # Errors
    /// When the peer has left already.
    pub(super) fn set_options(&self) -> io::Result<()> {
        self.set_nodelay(true)?;
        self.set_write_timeout(Some(self.admission.write_stall.min(WRITE_STEP)))
    }

    /// The server waits for a request. `false` when the server stops.
    pub(super) fn wait_for_request(&self) -> bool {
        self.slot.is_idle.store(true, Relaxed);
        self.wait_for_peer();
        // After the two stores: either this sees that the server stops, or `Admission::stop` sees them.
        !self.admission.is_stopping()
    }

    /// The server waits for bytes of the peer, or for the peer to take bytes.
    pub(super) fn wait_for_peer(&self) {
        self.slot.set_evictable_from(grace_ms());
    }

    /// The peer has sent or taken bytes. They postpone the eviction, at the least rate.
    pub(super) fn progress(&self, bytes: usize) {
        let bought_ms = (bytes as u64).saturating_mul(1000) / LEAST_BYTES_PER_SECOND;
        let latest_ms = grace_ms();
        let later = |from_ms: u64| {
            let is_waiting = from_ms > ANSWERED && from_ms != EVICTED;
            is_waiting.then(|| from_ms.saturating_add(bought_ms).min(latest_ms))
        };
        let _ = self.slot.evictable_from_ms.fetch_update(Relaxed, Relaxed, later);
    }

    /// The server does not wait for the peer any more. `false` when the connection was evicted meanwhile.
    pub(super) fn resume(&self) -> bool {
        self.slot.set_evictable_from(0)
    }

    /// A request is here. Waits for a place if all are taken. `false` when there is none in time, and when the
    /// connection was evicted: then the request must not be carried out.
    pub(super) fn take_place(&self) -> bool {
        let has_resumed = self.resume();
        self.slot.is_idle.store(false, Relaxed);
        has_resumed && (self.slot.has_place.load(Relaxed) || self.admission.take_place(&self.slot))
    }

    /// Counts the connection as a stream; `false` when there is no room for one more.
    pub(super) fn take_stream(&self) -> bool {
        self.admission.take_stream(&self.slot)
    }

    /// The opening of a stream has left. `farewell` makes what the client is sent when the server stops.
    pub(super) fn set_farewell(&self, farewell: fn() -> Vec<u8>) {
        let _ = self.slot.farewell.set(farewell);
        // After the store, as in `wait_for_request`.
        if self.admission.is_stopping() {
            self.slot.stop();
        }
    }

    /// The response was sent, and what still arrives is thrown away.
    pub(super) fn evict_first(&self) {
        self.slot.set_evictable_from(ANSWERED);
    }

    /// Lets another thread end the connection.
    pub(crate) fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.slot))
    }

    /// Writes all of `bytes` on a blocking socket, and waits for the peer to take them.
    ///
    /// # Errors
    /// `TimedOut` when the peer has made no progress for [`Limits::write_stall`](super::Limits::write_stall); else as
    /// the socket says.
    pub(crate) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_both(bytes, b"")
    }

    /// As [`write_all`](Connection::write_all), for two pieces in one call.
    pub(super) fn write_both(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        let was_waiting = self.slot.evictable_from_ms().is_some();
        self.wait_for_peer();
        self.write_pieces(&mut [IoSlice::new(first), IoSlice::new(second)])?;
        self.slot.set_evictable_from(if was_waiting { grace_ms() } else { 0 });
        Ok(())
    }

    fn write_pieces(&self, mut rest: &mut [IoSlice<'_>]) -> io::Result<()> {
        let stall = self.admission.write_stall;
        let mut stalled_from = Instant::now() + stall;
        loop {
            // Removes empty pieces.
            IoSlice::advance_slices(&mut rest, 0);
            let written = match rest {
                [] => return Ok(()),
                // `write` raises no signal when the peer has left, `write_vectored` does.
                [one] => (&self.slot.socket).write(one),
                _ => (&self.slot.socket).write_vectored(rest),
            };
            match written {
                Ok(0) => return Err(WriteZero.into()),
                Ok(bytes) => {
                    IoSlice::advance_slices(&mut rest, bytes);
                    self.progress(bytes);
                    let bought =
                        Duration::from_millis(bytes as u64 * 1000 / LEAST_BYTES_PER_SECOND);
                    stalled_from = (stalled_from + bought).min(Instant::now() + stall);
                }
                Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {}
                Err(error) => return Err(error),
            }
            if !rest.is_empty() && Instant::now() >= stalled_from {
                return Err(TimedOut.into());
            }
        }
    }

    /// Looks whether the peer has left. A peer that has closed its half may still be reading: then [`Peer::HalfClosed`]
    /// says that only a write can tell, by the error that comes back some time after it.
    pub(crate) fn look_for_peer(&self) -> Peer {
        // The shortest wait there is; zero is an error.
        if self.set_read_timeout(Some(Duration::from_micros(1))).is_err() {
            return Peer::Gone;
        }
        match (&self.slot.socket).read(&mut [0; 1024]) {
            Ok(0) => match self.take_error() {
                Ok(None) => Peer::HalfClosed,
                _ => Peer::Gone,
            },
            // On a stream a client has nothing to say.
            Ok(_) => Peer::Open,
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => Peer::Open,
            Err(_) => Peer::Gone,
        }
    }

    /// Closes the writing half, and waits for the peer to close the other.
    ///
    /// "If a server performs an immediate close of a TCP connection, there is a significant risk that the client will
    /// not be able to read the last HTTP response": the system answers bytes that were never read with a reset, which
    /// erases what the peer has not read yet (RFC 9112, 9.6).
    pub(crate) fn linger(&self) {
        if self.shutdown(Shutdown::Write).is_err() {
            return;
        }
        self.evict_first();
        let deadline = Instant::now() + LINGER;
        let mut unread = [0; 4096];
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() || self.set_read_timeout(Some(wait)).is_err() {
                return;
            }
            match (&self.slot.socket).read(&mut unread) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl Deref for Connection {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.slot.socket
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.admission.close(&self.slot);
    }
}

/// What is known of a peer that has nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Open,
    HalfClosed,
    Gone,
}

/// Ends a connection that another thread owns.
#[derive(Clone)]
pub(crate) struct Closer(Weak<Slot>);

impl Closer {
    /// Ends the connection, if it is still there. `false` when it is not.
    pub(crate) fn close(&self) -> bool {
        self.0.upgrade().is_some_and(|slot| slot.socket.shutdown(Shutdown::Both).is_ok())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}
