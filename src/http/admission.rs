//! How many connections there are, and which one is evicted for a newcomer.
//!
//! A connection holds a *place* from its first request on, and there are [`Limits::connections`] of them. Beside
//! them [`Limits::waiting`] connections may be open whose first request is still to come. When there is no room, the
//! connection that has kept the server waiting longest is evicted. So a silent peer keeps no other one out, and a
//! connection that is busy is never cut.

use super::connection::{Connection, EVICTED, Slot, now_ms};
use super::limits::Limits;
use super::lock::hold;
use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// At the limit, the accept loop looks this often for a connection that it may evict.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// All connections of a server.
pub(crate) struct Admission {
    places: usize,
    sockets: usize,
    streams: usize,
    /// How long a request waits for a place before its connection is closed.
    place_deadline: Duration,
    /// How long a write waits for a peer that makes no progress.
    pub(super) write_stall: Duration,
    table: Mutex<Table>,
    /// A socket was closed.
    closed: Condvar,
    pub(crate) counters: Counters,
}

struct Table {
    slots: Vec<Option<Arc<Slot>>>,
    free: Vec<usize>,
    places_taken: usize,
    /// Of the places, those of streams.
    streams_taken: usize,
    /// Uploads that may last.
    uploads_taken: usize,
    /// Connections whose request is here and waits for a place, in order of arrival.
    queue: VecDeque<(Arc<Slot>, Thread)>,
    is_stopping: bool,
}

/// Counters since the server began.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) threads_refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) panics: AtomicU64,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Arc<Admission> {
        Arc::new(Admission {
            places: limits.connections,
            sockets: limits.connections.saturating_add(limits.waiting),
            streams: limits.streams,
            place_deadline: limits.head_deadline,
            write_stall: limits.write_stall,
            table: Mutex::new(Table {
                slots: Vec::new(),
                free: Vec::new(),
                places_taken: 0,
                streams_taken: 0,
                uploads_taken: 0,
                queue: VecDeque::new(),
                is_stopping: false,
            }),
            closed: Condvar::new(),
            counters: Counters::default(),
        })
    }

    /// How many connections are open.
    pub(crate) fn len(&self) -> usize {
        let table = hold(&self.table);
        table.slots.len() - table.free.len()
    }

    /// How many connections have no place yet.
    pub(crate) fn waiting(&self) -> usize {
        let table = hold(&self.table);
        table.slots.len() - table.free.len() - table.places_taken
    }

    /// Makes a connection of an accepted socket; `None` when the server stops. At the limit of open sockets it waits
    /// until one is closed or may be evicted.
    pub(crate) fn admit(
        self: &Arc<Admission>,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> Option<Connection> {
        let slot = Arc::new(Slot::new(socket, peer));
        let mut evicted = None;
        let mut table = hold(&self.table);
        let index = loop {
            if table.is_stopping {
                return None;
            }
            if let Some(index) = table.free.pop() {
                break index;
            }
            if table.slots.len() < self.sockets {
                table.slots.push(None);
                break table.slots.len() - 1;
            }
            evicted = self.evict(&mut table, |_| true);
            if evicted.is_none() {
                let waited = self.closed.wait_timeout(table, RETRY_INTERVAL);
                table = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        slot.index.store(index, Relaxed);
        table.slots[index] = Some(Arc::clone(&slot));
        drop(table);
        drop(evicted);
        self.counters.accepted.fetch_add(1, Relaxed);
        Some(Connection::new(slot, Arc::clone(self)))
    }

    /// Evicts a connection because the system has no descriptor or no thread for another one.
    pub(crate) fn evict_one(&self) {
        let evicted = self.evict(&mut hold(&self.table), |_| true);
        drop(evicted);
    }

    /// Evicts the connection that has kept the server waiting longest, among those that `is_of_use`. Its slot and its
    /// place are free at once, although its thread takes a moment to end.
    fn evict(&self, table: &mut Table, is_of_use: impl Fn(&Slot) -> bool) -> Option<Evicted> {
        let now_ms = now_ms();
        let candidates = table.slots.iter().flatten().filter(|slot| is_of_use(slot));
        let from = candidates.map(|slot| (slot.evictable_from_ms.load(Relaxed), slot));
        let due = from.filter(|(from, _)| (1..=now_ms).contains(from));
        let (from, slot) = due.min_by_key(|(from, _)| *from)?;
        let slot = Arc::clone(slot);
        // The peer may have spoken in this very moment.
        slot.evictable_from_ms.compare_exchange(from, EVICTED, Relaxed, Relaxed).ok()?;
        table.release(&slot);
        self.counters.evicted.fetch_add(1, Relaxed);
        Some(Evicted(slot))
    }

    /// Gives the connection a place: a free one, or that of a connection that is evicted for it, or the next one that
    /// is given back. `false` when there was none in time, or when the connection itself was evicted.
    pub(super) fn take_place(&self, slot: &Arc<Slot>) -> bool {
        let mut table = hold(&self.table);
        if !slot.resume() {
            return false;
        }
        if slot.has_place.load(Relaxed) {
            return true;
        }
        if table.places_taken < self.places && table.queue.is_empty() {
            table.places_taken += 1;
            slot.has_place.store(true, Relaxed);
            return true;
        }
        table.queue.push_back((Arc::clone(slot), thread::current()));
        self.wait_for_place(table, slot)
    }

    fn wait_for_place<'t>(&'t self, mut table: MutexGuard<'t, Table>, slot: &Arc<Slot>) -> bool {
        let deadline = Instant::now() + self.place_deadline;
        loop {
            if slot.has_place.load(Relaxed) {
                return true;
            }
            if Instant::now() >= deadline || table.is_stopping {
                table.queue.retain(|(queued, _)| !Arc::ptr_eq(queued, slot));
                return false;
            }
            // The place of the evicted connection goes to the first in the queue.
            let evicted = self.evict(&mut table, |other| other.has_place.load(Relaxed));
            if evicted.is_none() {
                drop(table);
                thread::park_timeout(RETRY_INTERVAL);
                table = hold(&self.table);
            } else {
                drop(table);
                drop(evicted);
                table = hold(&self.table);
            }
        }
    }

    /// Counts the connection as a stream; `false` when there are [`Limits::streams`] already.
    pub(super) fn take_stream(&self, slot: &Slot) -> bool {
        let mut table = hold(&self.table);
        let has_room = table.streams_taken < self.streams;
        if has_room && !slot.is_stream.swap(true, Relaxed) {
            table.streams_taken += 1;
        }
        has_room
    }

    /// A permit for an upload that may last; `None` when half of the places that streams may not take are taken.
    pub(super) fn take_upload(self: &Arc<Admission>) -> Option<UploadPermit> {
        let mut table = hold(&self.table);
        let limit = (self.places.saturating_sub(self.streams) / 2).max(1);
        (table.uploads_taken < limit).then(|| {
            table.uploads_taken += 1;
            UploadPermit(Arc::clone(self))
        })
    }

    pub(super) fn is_stopping(&self) -> bool {
        hold(&self.table).is_stopping
    }

    /// Admits nothing more, and ends what does not end by itself.
    pub(super) fn stop(&self) {
        for slot in self.slots_of_stopping() {
            slot.stop();
        }
    }

    /// Ends every connection.
    pub(super) fn end_all(&self) {
        for slot in self.slots_of_stopping() {
            let _ = slot.socket.shutdown(Shutdown::Both);
        }
    }

    fn slots_of_stopping(&self) -> Vec<Arc<Slot>> {
        let mut table = hold(&self.table);
        table.is_stopping = true;
        self.closed.notify_all();
        table.slots.iter().flatten().cloned().collect()
    }

    /// The connection is closed.
    pub(super) fn close(&self, slot: &Arc<Slot>) {
        hold(&self.table).release(slot);
        self.closed.notify_one();
    }
}

impl Table {
    /// Frees what the connection holds: once, although it may be evicted and closed at the same time.
    fn release(&mut self, slot: &Arc<Slot>) {
        let index = slot.index.load(Relaxed);
        let is_here = self.slots.get(index).and_then(Option::as_ref);
        if !is_here.is_some_and(|here| Arc::ptr_eq(here, slot)) {
            return;
        }
        self.slots[index] = None;
        self.free.push(index);
        self.streams_taken -= usize::from(slot.is_stream.load(Relaxed));
        if slot.has_place.swap(false, Relaxed) {
            self.places_taken -= 1;
            if let Some((next, thread)) = self.queue.pop_front() {
                self.places_taken += 1;
                next.has_place.store(true, Relaxed);
                thread.unpark();
            }
        }
    }
}

/// An evicted connection, which no table knows any more. Dropping this ends it, outside of the lock.
struct Evicted(Arc<Slot>);

impl Drop for Evicted {
    fn drop(&mut self) {
        // Its thread sees the end of the stream. An error means that the peer has gone.
        let _ = self.0.socket.shutdown(Shutdown::Both);
    }
}

/// An upload that may last: it counts as long as this lives.
pub(crate) struct UploadPermit(Arc<Admission>);

impl Drop for UploadPermit {
    fn drop(&mut self) {
        hold(&self.0.table).uploads_taken -= 1;
    }
}
