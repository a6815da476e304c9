//! A connection, as the thread that owns it uses it.

use super::admission::Admission;
use super::slot::{GRACE, Slot, ms_for_bytes};
use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock, WriteZero};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long the server goes on reading after its last byte.
const LINGER: Duration = Duration::from_secs(2);

/// A connection, which one thread at a time owns. Dropping it closes the socket and gives back what it counts for.
pub(crate) struct Connection {
    slot: Arc<Slot>,
    admission: Arc<Admission>,
}

impl Connection {
    /// Makes a connection of an accepted socket; `None` when the server stops. It waits while there is no room.
    pub(super) fn admit(admission: &Arc<Admission>, socket: TcpStream, peer: Option<SocketAddr>) -> Option<Connection> {
        let slot = admission.admit(socket, peer)?;
        Some(Connection { slot, admission: Arc::clone(admission) })
    }

    /// The server waits for a request. `false` when the server stops.
    pub(super) fn wait_for_request(&self) -> bool {
        self.is_idle.store(true, Relaxed);
        self.wait_for_peer();
        // After the two stores: either this sees that such connections end, or `Admission::end_idle` sees them.
        !self.admission.ends_idle()
    }

    /// A request is here, with all of its content if it `is_whole`. Waits for a place if all are taken. `false` when there
    /// is none in time, and when the connection was evicted: then the request must not be carried out.
    pub(super) fn take_place(&self, is_whole: bool) -> bool {
        let has_resumed = self.resume();
        self.is_idle.store(false, Relaxed);
        let has_place = self.has_place.load(Relaxed);
        has_resumed && (has_place || self.admission.take_place(&self.slot, is_whole))
    }

    /// Whether its first request will wait for a place.
    pub(super) fn must_wait(&self) -> bool {
        !self.has_place.load(Relaxed) && self.admission.is_full()
    }

    /// Counts the connection as a stream; `false` when there is no room for one more.
    pub(super) fn take_stream(&self) -> bool {
        self.admission.take_stream(&self.slot)
    }

    pub(super) fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The opening of a stream has left. `farewell` makes what the client is sent when the server stops.
    pub(crate) fn set_farewell(&self, farewell: fn() -> Vec<u8>) {
        let _ = self.farewell.set(farewell);
        // After the store, as in `wait_for_request`.
        if self.admission.is_stopping() {
            self.end_stream();
        }
    }

    /// The caller ends the stream when the server is drained.
    pub(crate) fn spare(&self) {
        self.is_spared.store(true, Relaxed);
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
    pub(crate) fn write_both(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        let mut pieces = [first, second].map(IoSlice::new);
        let mut rest = &mut pieces[..=usize::from(!second.is_empty())];
        // Removes the first piece if it is empty.
        IoSlice::advance_slices(&mut rest, 0);
        let before = self.begin_write();
        if !rest.is_empty() {
            self.write_some(&mut rest)?;
        }
        if !rest.is_empty() {
            self.write_rest(rest)?;
        }
        self.end_write(before);
        Ok(())
    }

    /// One call, which waits for room as long as the write timeout says. Returns how many bytes the system has taken.
    fn write_some(&self, rest: &mut &mut [IoSlice<'_>]) -> io::Result<usize> {
        let written = match &**rest {
            // `write` raises no signal when the peer has left, `write_vectored` does.
            [one] => (&**self.slot).write(one),
            _ => (&**self.slot).write_vectored(rest),
        };
        match written {
            Ok(0) => Err(WriteZero.into()),
            Ok(bytes) => {
                IoSlice::advance_slices(rest, bytes);
                Ok(bytes)
            }
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Writes what the first call has left.
    fn write_rest(&self, mut rest: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.wait_for_peer();
        let (stall, short) = (self.admission.limits.write_stall, self.admission.limits.write_step());
        let (mut progress_at, mut step) = (Instant::now(), short);
        let mut deadline = progress_at + stall;
        while !rest.is_empty() {
            let bytes = self.write_some(&mut rest)?;
            let now = Instant::now();
            if bytes > 0 {
                self.progress(bytes);
                progress_at = now;
                deadline = (deadline + Duration::from_millis(ms_for_bytes(bytes))).min(now + stall);
            }
            // The call that follows a long one says what the peer has taken meanwhile.
            if now >= deadline && step == short {
                return Err(TimedOut.into());
            }
            // A stalled connection may be evicted from here on, and need not look again so soon: thousands of them
            // would take the processor.
            let stalled = now - progress_at;
            let next = if stalled < GRACE { short } else { stalled.min(deadline - now).max(short) };
            if next != step {
                self.set_write_timeout(Some(next))?;
                step = next;
            }
        }
        Ok(())
    }

    /// Looks whether the peer has left. A peer that has closed its half may still be reading: then [`Peer::HalfClosed`]
    /// says that only a write can tell, by the error that comes back some time after it.
    pub(crate) fn look_for_peer(&self) -> Peer {
        // The shortest wait there is; zero is an error.
        if self.set_read_timeout(Some(Duration::from_micros(1))).is_err() {
            return Peer::Gone;
        }
        match (&**self.slot).read(&mut [0; 1024]) {
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
        self.evict_first();
        if self.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        let mut unread = [0; 4096];
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() || self.set_read_timeout(Some(wait)).is_err() {
                return;
            }
            match (&**self.slot).read(&mut unread) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl Deref for Connection {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
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
        self.0.upgrade().is_some_and(|slot| slot.end())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn connection() -> (Connection, UnixStream) {
        let (own, peer) = UnixStream::pair().expect("there are descriptors");
        own.set_write_timeout(Some(GRACE / 10)).expect("it is not zero");
        let write_stall = Duration::from_secs(3600);
        let admission = Admission::new(&Limits { write_stall, ..Limits::default() });
        let connection = Connection::admit(&admission, OwnedFd::from(own).into(), None);
        (connection.expect("there is room"), peer)
    }

    #[test]
    fn an_evicted_connection_takes_no_place_with_the_request_that_it_has_read() {
        for is_whole in [true, false] {
            let (connection, _peer) = connection();
            assert!(connection.take_place(is_whole), "its first request has a place");
            assert!(connection.wait_for_request());
            let from_ms = connection.evictable_from_ms().expect("it waits for its peer");
            assert!(connection.evict(from_ms) && !connection.take_place(is_whole));
        }
    }

    /// The buffer of a Unix socket is full after the first call.
    #[test]
    fn a_connection_may_be_evicted_when_its_peer_takes_nothing_of_a_response() {
        let (connection, _peer) = connection();
        let slot = Arc::clone(&connection.slot);
        let writing = thread::spawn(move || connection.write_all(&vec![0; 16 << 20]));
        let mut looks = (0..600).map(|_| {
            thread::sleep(GRACE / 5);
            slot.evictable_from_ms()
        });
        let from_ms = looks.find_map(|from_ms| from_ms).expect("it waits for its peer");
        assert!(slot.evict(from_ms) && slot.end());
        assert!(writing.join().expect("it does not panic").is_err());
    }
}
