//! A connection: its socket, and since when its peer keeps the server waiting.

use super::admission::Admission;
use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::{Duration, Instant};

/// A connection in the middle of a request or of an answer can be evicted when its peer makes no progress for this
/// long. A peer that sends or takes bytes at once is safe.
const GRACE: Duration = Duration::from_millis(500);

/// The least rate that counts as progress, both ways; the one of Kestrel. A peer that takes a byte now and then would
/// hold its place for good.
const LEAST_BYTES_PER_SECOND: u64 = 240;

/// A blocked write looks this often whether the peer has taken something.
pub(super) const WRITE_STEP: Duration = Duration::from_secs(1);

/// How long the server goes on reading after its last byte.
const LINGER: Duration = Duration::from_secs(2);

/// The value of `evictable_from_ms` of a connection that was evicted. It never changes again.
pub(super) const EVICTED: u64 = u64::MAX;

/// The value for a connection that has had its answer: it is evicted before any other.
const FIRST: u64 = 1;

/// The clock of all connections, in milliseconds; never 0.
pub(super) fn now_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    1 + START.elapsed().as_millis() as u64
}

/// From when on a connection whose peer makes no progress can be evicted.
fn grace_ms() -> u64 {
    now_ms() + GRACE.as_millis() as u64
}

/// What the table of connections knows of each.
pub(super) struct Slot {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    /// From when on the connection may be evicted, in [`now_ms`]; 0 while the server does not wait for the peer.
    pub(super) evictable_from_ms: AtomicU64,
    /// Where it stands in the table.
    pub(super) index: AtomicUsize,
    pub(super) has_place: AtomicBool,
    pub(super) is_stream: AtomicBool,
    farewell: OnceLock<fn() -> Vec<u8>>,
}

impl Slot {
    pub(super) fn new(socket: TcpStream, peer: SocketAddr) -> Slot {
        Slot {
            socket,
            peer,
            evictable_from_ms: AtomicU64::new(grace_ms()),
            index: AtomicUsize::new(usize::MAX),
            has_place: AtomicBool::new(false),
            is_stream: AtomicBool::new(false),
            farewell: OnceLock::new(),
        }
    }

    /// `false` for a connection that was evicted. What its peer sent before can still be read, and must not be
    /// carried out.
    fn set_evictable_from(&self, from_ms: u64) -> bool {
        let unless_evicted = |before| (before != EVICTED).then_some(from_ms);
        self.evictable_from_ms.fetch_update(Relaxed, Relaxed, unless_evicted).is_ok()
    }

    /// The server does not wait for the peer any more. `false` when the connection was evicted.
    pub(super) fn resume(&self) -> bool {
        self.set_evictable_from(0)
    }

    /// The server stops. An idle connection ends, a stream ends with its farewell, and a request is still answered.
    pub(super) fn stop(&self) {
        let is_waiting = self.evictable_from_ms.load(Relaxed) != 0;
        if self.is_stream.load(Relaxed) {
            // Behind half of a frame the farewell would be part of it.
            if let Some(farewell) = self.farewell.get().filter(|_| !is_waiting) {
                let _ = (&mut &self.socket).write(&farewell());
            }
            let _ = self.socket.shutdown(Shutdown::Write);
        } else if is_waiting {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }
}

/// A connection, owned by one thread at a time. Dropping it closes the socket and gives its place back.
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

    /// What a socket of ours has: small frames leave at once, and a blocked write looks up from time to time.
    ///
    /// # Errors
    /// When the peer has left already.
    pub(super) fn prepare(&self) -> io::Result<()> {
        self.set_nodelay(true)?;
        self.set_write_timeout(Some(self.admission.write_stall.min(WRITE_STEP)))
    }

    /// The connection is idle, and may be evicted at once; a new one only after [`GRACE`].
    pub(super) fn wait_for_request(&self) {
        if self.slot.has_place.load(Relaxed) {
            self.slot.set_evictable_from(now_ms());
        }
    }

    /// What the client is told when the server stops while the connection is a stream.
    pub(super) fn set_farewell(&self, farewell: fn() -> Vec<u8>) {
        let _ = self.slot.farewell.set(farewell);
    }

    /// The server waits for bytes of the peer, or for the peer to take bytes: it may be evicted after [`GRACE`].
    pub(super) fn wait_for_peer(&self) {
        self.slot.set_evictable_from(grace_ms());
    }

    /// The peer has sent or taken bytes: that buys time at the least rate.
    pub(super) fn progress(&self, bytes: usize) {
        let bought_ms = (bytes as u64).saturating_mul(1000) / LEAST_BYTES_PER_SECOND;
        let latest_ms = grace_ms();
        let later = |from_ms: u64| {
            let is_waiting = from_ms != EVICTED && from_ms != 0;
            is_waiting.then(|| from_ms.saturating_add(bought_ms).min(latest_ms))
        };
        let _ = self.slot.evictable_from_ms.fetch_update(Relaxed, Relaxed, later);
    }

    /// The server does not wait for the peer any more. `false` when the connection was evicted meanwhile.
    pub(super) fn resume(&self) -> bool {
        self.slot.resume()
    }

    /// A request is here. Waits for a place if all are taken; `false` when there is none in time.
    pub(super) fn take_place(&self) -> bool {
        if self.slot.has_place.load(Relaxed) {
            return self.resume();
        }
        self.admission.take_place(&self.slot)
    }

    /// Counts the connection as a stream; `false` when there is no room for one more.
    pub(super) fn take_stream(&self) -> bool {
        self.admission.take_stream(&self.slot)
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
        let mut rest = bytes;
        self.write_with(|| {
            let written = (&mut &self.slot.socket).write(rest)?;
            rest = &rest[written..];
            Ok((written, rest.is_empty()))
        })
    }

    /// As [`write_all`](Connection::write_all), for two pieces in one call.
    pub(super) fn write_both(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        let mut pieces = [IoSlice::new(first), IoSlice::new(second)];
        let mut rest = &mut pieces[..];
        self.write_with(|| {
            let written = (&mut &self.slot.socket).write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, written);
            Ok((written, rest.is_empty()))
        })
    }

    /// `write` says how many bytes the peer took, and whether those were the last ones.
    fn write_with(&self, mut write: impl FnMut() -> io::Result<(usize, bool)>) -> io::Result<()> {
        let stall = self.admission.write_stall;
        let was_waiting = self.slot.evictable_from_ms.load(Relaxed) != 0;
        self.wait_for_peer();
        let mut progress_until = Instant::now() + stall;
        loop {
            match write() {
                Ok((_, true)) => {
                    self.slot.set_evictable_from(if was_waiting { grace_ms() } else { 0 });
                    return Ok(());
                }
                Ok((0, false)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok((written, false)) => {
                    self.progress(written);
                    let bought =
                        Duration::from_secs(written as u64) / LEAST_BYTES_PER_SECOND as u32;
                    progress_until = (progress_until + bought).min(Instant::now() + stall);
                }
                Err(error) if error.kind() == Interrupted => {}
                Err(error) if !matches!(error.kind(), WouldBlock | TimedOut) => return Err(error),
                Err(_) => {}
            }
            if Instant::now() >= progress_until {
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
        match (&mut &self.slot.socket).read(&mut [0; 1024]) {
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
        self.slot.set_evictable_from(FIRST);
        let deadline = Instant::now() + LINGER;
        let mut unread = [0; 4096];
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() || self.set_read_timeout(Some(wait)).is_err() {
                return;
            }
            match (&mut &self.slot.socket).read(&mut unread) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// The connection has had its answer, and what is still read is thrown away.
    pub(super) fn evict_first(&self) {
        self.slot.set_evictable_from(FIRST);
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
