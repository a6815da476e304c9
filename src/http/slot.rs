//! What the table of all connections keeps of each: its socket, and the time from which on it may be evicted.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

/// A connection may be evicted when the server has waited for its peer for this long: for a whole request, however
/// much of it has arrived, or for progress of a response.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// A peer that takes less than this makes no progress. Without a least rate, a peer that takes one byte now and then
/// would hold its place for ever. Kestrel has the same rate.
const LEAST_BYTES_PER_SECOND: u64 = 240;

/// In [`Slot::evictable_from_ms`]: the server does not wait for the peer.
const BUSY: u64 = 0;

/// In [`Slot::evictable_from_ms`]: a write has begun. Most writes end at once, and need no clock.
const WRITING: u64 = 2;

/// In [`Slot::evictable_from_ms`]: the response was sent, and what still arrives is thrown away. Such a connection is
/// evicted before any other.
const ANSWERED: u64 = 1;

/// In [`Slot::evictable_from_ms`]: the connection was evicted. This value never changes again.
const EVICTED: u64 = u64::MAX;

/// The clock of all connections, in milliseconds.
pub(super) fn now_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64
}

/// It is none of the values above.
fn grace_ms() -> u64 {
    now_ms() + GRACE.as_millis() as u64
}

/// How much time a peer has earned by taking so many bytes.
pub(super) fn ms_for_bytes(bytes: usize) -> u64 {
    (bytes as u64).saturating_mul(1000) / LEAST_BYTES_PER_SECOND
}

pub(crate) struct Slot {
    socket: TcpStream,
    pub(super) peer: Option<SocketAddr>,
    /// From when on the connection may be evicted, on the clock of [`now_ms`], or one of the values above.
    evictable_from_ms: AtomicU64,
    /// The server waits for a request. When the server stops, it can end such a connection without an answer.
    pub(super) is_idle: AtomicBool,
    /// Whether the connection counts among `Limits::connections`. It changes under the table's lock.
    pub(super) has_place: AtomicBool,
    /// Whether the connection counts among `Limits::streams`. It changes under the table's lock.
    pub(super) is_stream: AtomicBool,
    /// The owner of the stream ends it when the server is drained, as soon as the client has all of it.
    pub(super) is_spared: AtomicBool,
    /// Makes what a stream is sent when the server stops. It is set when the opening of the stream has left.
    pub(super) farewell: OnceLock<fn() -> Vec<u8>>,
}

impl Slot {
    pub(super) fn new(socket: TcpStream, peer: Option<SocketAddr>) -> Slot {
        Slot {
            socket,
            peer,
            evictable_from_ms: AtomicU64::new(BUSY),
            is_idle: AtomicBool::new(true),
            has_place: AtomicBool::new(false),
            is_stream: AtomicBool::new(false),
            is_spared: AtomicBool::new(false),
            farewell: OnceLock::new(),
        }
    }

    /// `None` while the connection may not be evicted, and after the eviction.
    pub(super) fn evictable_from_ms(&self) -> Option<u64> {
        let from_ms = self.evictable_from_ms.load(Relaxed);
        (![BUSY, WRITING, EVICTED].contains(&from_ms)).then_some(from_ms)
    }

    /// Changes the time, and returns what it was. An error for a connection that was evicted: its thread can still read
    /// what arrived before, and must not act on it.
    fn change(&self, from_ms: impl Fn(u64) -> u64) -> Result<u64, u64> {
        let unless_evicted = |before_ms| (before_ms != EVICTED).then(|| from_ms(before_ms));
        self.evictable_from_ms.fetch_update(Relaxed, Relaxed, unless_evicted)
    }

    /// The server waits for bytes of the peer, or for the peer to take bytes.
    pub(super) fn wait_for_peer(&self) {
        let from_ms = grace_ms();
        let _ = self.change(|_| from_ms);
    }

    /// The peer has taken bytes. They postpone the eviction, at the least rate.
    pub(super) fn progress(&self, bytes: usize) {
        let latest_ms = grace_ms();
        let _ = self.change(|from_ms| from_ms.saturating_add(ms_for_bytes(bytes)).min(latest_ms));
    }

    /// A write begins. What this returns is given to [`end_write`](Slot::end_write).
    pub(super) fn begin_write(&self) -> u64 {
        self.change(|_| WRITING).unwrap_or(EVICTED)
    }

    /// The server waits for the peer as it did before the write, or not at all.
    pub(super) fn end_write(&self, before_ms: u64) {
        let _ = self.change(|_| before_ms);
    }

    /// The server does not wait for the peer any more. `false` when the connection was evicted meanwhile.
    pub(super) fn resume(&self) -> bool {
        self.change(|_| BUSY).is_ok()
    }

    /// The response was sent, and what still arrives is thrown away.
    pub(super) fn evict_first(&self) {
        let _ = self.change(|_| ANSWERED);
    }

    /// `false` when the peer has made progress since the caller read `from_ms`. The socket is still open then, and
    /// also when this is `true`: the caller calls [`end`](Slot::end), without a lock.
    pub(super) fn evict(&self, from_ms: u64) -> bool {
        self.evictable_from_ms.compare_exchange(from_ms, EVICTED, Relaxed, Relaxed).is_ok()
    }

    /// Ends the connection: its thread sees the end of the stream. `false` when the peer has left already.
    pub(super) fn end(&self) -> bool {
        self.socket.shutdown(Shutdown::Both).is_ok()
    }

    /// Ends the connection if it is a stream, because the server stops.
    pub(super) fn end_stream(&self) {
        if let Some(farewell) = self.farewell.get() {
            // A stream that is being written to may be in the middle of a frame, and may have no room.
            if self.evictable_from_ms.load(Relaxed) == BUSY {
                let _ = (&self.socket).write(&farewell());
            }
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Ends the connection if it is idle. A request is still answered.
    pub(super) fn end_idle(&self) {
        if self.is_idle.load(Relaxed) {
            // The peer may make progress between the two steps.
            while let Some(from_ms) = self.evictable_from_ms() {
                if self.evict(from_ms) {
                    self.end();
                }
            }
        }
    }
}

impl Deref for Slot {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn slot() -> Slot {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let addr = listener.local_addr().expect("it listens");
        Slot::new(TcpStream::connect(addr).expect("it listens"), None)
    }

    /// Its thread can still read a request that arrived before, and must not carry it out.
    #[test]
    fn an_eviction_is_final_and_fails_when_the_peer_has_acted_meanwhile() {
        let slot = slot();
        slot.wait_for_peer();
        let from_ms = slot.evictable_from_ms().expect("it waits");
        assert!(slot.resume() && !slot.evict(from_ms));
        slot.wait_for_peer();
        assert!(slot.evictable_from_ms().is_some_and(|from_ms| slot.evict(from_ms)));
        assert!(!slot.resume());
        slot.wait_for_peer();
        assert_eq!(slot.evictable_from_ms(), None);
    }

    /// A peer that takes a byte now and then would hold its place for ever, if any progress began a new half second.
    #[test]
    fn bytes_that_are_taken_postpone_the_eviction_at_the_least_rate() {
        let slot = slot();
        slot.wait_for_peer();
        let first_ms = slot.evictable_from_ms().expect("it waits");
        std::thread::sleep(GRACE / 2);
        slot.progress(24);
        assert_eq!(slot.evictable_from_ms(), Some(first_ms + 100));
        slot.progress(1 << 20);
        assert!(slot.evictable_from_ms().is_some_and(|from_ms| from_ms <= grace_ms()));
        slot.wait_for_peer();
        slot.progress(1);
        assert!(slot.evictable_from_ms().is_some_and(|from_ms| from_ms <= grace_ms()));
    }
}
