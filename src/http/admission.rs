//! How many connections there are, and which one is evicted for a newcomer.
//!
//! A connection has a *place* from its first request on, and there are [`Limits::connections`] places. Beside them,
//! [`Limits::waiting`] connections may be open that have no place yet. A connection may be evicted from a certain time
//! on while the server waits for its peer, and never while a handler runs. When there is no room, the connection with the
//! earliest time is evicted.
//!
//! Two things wait for room. The threads that accept look every ten milliseconds. A request waits in a queue for a place. There
//! are two queues, and places that are given back go to them in turn: one for requests that are whole, and one for
//! requests with content that must still arrive. An upload that sends little holds its place until it is evicted. With
//! one queue, many such uploads would each take that time from every other request.

use super::limits::Limits;
use super::lock::hold;
use super::slot::{Slot, now_ms};
use super::tcp_table::{self, Ends, entry};
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// When there is no room and no connection may be evicted, the next look is after this time. Only the threads
/// that accept look, and the request that the next place goes to.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// All connections of a server.
pub(crate) struct Admission {
    pub(super) limits: Limits,
    table: Mutex<Table>,
    /// It is set under the lock of the table: no connection is admitted after it.
    is_stopping: AtomicBool,
    /// No connection waits for another request.
    ends_idle: AtomicBool,
    pub(crate) counters: Counters,
}

#[derive(Default)]
struct Table {
    /// By the address of the slot.
    slots: BTreeMap<usize, Arc<Slot>>,
    places_taken: usize,
    /// Of the places, those of streams.
    streams_taken: usize,
    uploads_taken: usize,
    /// Connections with a request that waits for a place, in the order of arrival, each with its thread. First stand the
    /// requests that are whole, then the uploads.
    queues: [VecDeque<(Arc<Slot>, Thread)>; 2],
    /// The queue that the next place goes to, unless it is empty.
    turn: usize,
}

/// Counters since the server began.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) threads_refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) panics: AtomicU64,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Arc<Admission> {
        Arc::new(Admission {
            limits: limits.clone(),
            table: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            ends_idle: AtomicBool::new(false),
            counters: Counters::default(),
        })
    }

    /// How many connections are open, and how many of them have no place yet.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let table = hold(&self.table);
        (table.slots.len(), table.slots.len() - table.places_taken)
    }

    /// How many connections are open that are no streams.
    pub(crate) fn requests(&self) -> usize {
        let table = hold(&self.table);
        table.slots.len() - table.streams_taken
    }

    pub(super) fn is_full(&self) -> bool {
        hold(&self.table).places_taken >= self.limits.connections
    }

    /// Counts an accepted socket; `None` when the server stops. At the limit it waits until a connection is closed or may
    /// be evicted.
    pub(super) fn admit(&self, socket: TcpStream, peer: Option<SocketAddr>) -> Option<Arc<Slot>> {
        let slot = Arc::new(Slot::new(socket, peer));
        let mut evicted = None;
        let most = self.limits.connections.saturating_add(self.limits.waiting);
        let mut table = hold(&self.table);
        while table.slots.len() >= most && !self.is_stopping() {
            evicted = self.evict(&mut table, |_| true);
            if evicted.is_none() {
                drop(table);
                thread::sleep(LOOK_INTERVAL);
                table = hold(&self.table);
            }
        }
        let is_admitted = !self.is_stopping();
        if is_admitted {
            table.slots.insert(key(&slot), Arc::clone(&slot));
            self.counters.accepted.fetch_add(1, Relaxed);
        }
        drop(table);
        evicted.inspect(|evicted| _ = evicted.end());
        is_admitted.then_some(slot)
    }

    /// Evicts a connection, if one may be: the system has no descriptor or no thread for another one.
    pub(super) fn evict_one(&self) {
        let evicted = self.evict(&mut hold(&self.table), |_| true);
        evicted.inspect(|evicted| _ = evicted.end());
    }

    /// Evicts the connection with the earliest time, among those that `is_candidate` accepts. What it counted for is
    /// free at once, although its thread takes a moment to end. The caller ends it, without the lock.
    fn evict(&self, table: &mut Table, is_candidate: impl Fn(&Slot) -> bool) -> Option<Arc<Slot>> {
        let now_ms = now_ms();
        let candidates = table.slots.values().filter(|slot| is_candidate(slot));
        let due = candidates.filter_map(|slot| Some((slot.evictable_from_ms().filter(|from| *from <= now_ms)?, slot)));
        let (from_ms, slot) = due.min_by_key(|(from_ms, _)| *from_ms)?;
        let slot = Arc::clone(slot);
        if !slot.evict(from_ms) {
            return None;
        }
        self.release(table, &slot);
        self.counters.evicted.fetch_add(1, Relaxed);
        Some(slot)
    }

    /// Gives the connection a place: a free one, that of a connection that is evicted for it, or one that is given back.
    /// `false` when there was none in time, and when the server stops.
    pub(super) fn take_place(&self, slot: &Arc<Slot>, is_whole: bool) -> bool {
        let deadline = Instant::now() + self.limits.head_deadline;
        let mut table = hold(&self.table);
        table.queues[usize::from(!is_whole)].push_back((Arc::clone(slot), thread::current()));
        self.grant_places(&mut table);
        loop {
            if slot.has_place.load(Relaxed) {
                return true;
            }
            let wait = deadline.saturating_duration_since(Instant::now());
            // When the server stops, the first request notices it within `LOOK_INTERVAL` and wakes the next one.
            if wait.is_zero() || self.is_stopping() {
                table.queues.iter_mut().for_each(|queue| queue.retain(|(queued, _)| !Arc::ptr_eq(queued, slot)));
                table.wake_first();
                return false;
            }
            let first = table.queues[table.next()].front();
            let is_first = first.is_some_and(|(first, _)| Arc::ptr_eq(first, slot));
            let has_place = |other: &Slot| other.has_place.load(Relaxed);
            let evicted = if is_first { self.evict(&mut table, has_place) } else { None };
            drop(table);
            evicted.inspect(|evicted| _ = evicted.end());
            // Returns at once if the place was granted after the table was unlocked.
            thread::park_timeout(if is_first { wait.min(LOOK_INTERVAL) } else { wait });
            table = hold(&self.table);
        }
    }

    /// Whether connections are kept for a next request: not when the server stops, and not while requests wait for a
    /// place. A connection that asks again and again would never be evicted, and would keep them out for ever.
    pub(super) fn keeps_connections(&self) -> bool {
        !self.ends_idle() && hold(&self.table).queues.iter().all(VecDeque::is_empty)
    }

    /// Grants free places to the first requests in the queues.
    fn grant_places(&self, table: &mut Table) {
        while table.places_taken < self.limits.connections {
            let next = table.next();
            let Some((slot, thread)) = table.queues[next].pop_front() else { return };
            table.turn = 1 - next;
            table.places_taken += 1;
            slot.has_place.store(true, Relaxed);
            thread.unpark();
            table.wake_first();
        }
    }

    /// Counts the connection as a stream; `false` when there are [`Limits::streams`] already.
    pub(super) fn take_stream(&self, slot: &Slot) -> bool {
        let mut table = hold(&self.table);
        let has_room = table.streams_taken < self.limits.streams;
        slot.is_stream.store(has_room, Relaxed);
        table.streams_taken += usize::from(has_room);
        has_room
    }

    /// A permit for an upload that may last. `None` when half of the places that streams leave over are taken by
    /// uploads.
    pub(super) fn take_upload(self: &Arc<Admission>) -> Option<UploadPermit> {
        let mut table = hold(&self.table);
        let most = (self.limits.connections.saturating_sub(self.limits.streams) / 2).max(1);
        (table.uploads_taken < most).then(|| {
            table.uploads_taken += 1;
            UploadPermit(Arc::clone(self))
        })
    }

    pub(super) fn is_stopping(&self) -> bool {
        // Of two threads that each write, and then read what the other writes, one at least sees the other's: the other
        // fence stands in `stop`.
        fence(SeqCst);
        self.is_stopping.load(Relaxed)
    }

    /// Admits nothing more. Ends connections that are idle, and streams. `false` when this was done before.
    pub(super) fn stop(&self) -> bool {
        let table = hold(&self.table);
        let is_first = !self.is_stopping.swap(true, Relaxed);
        drop(table);
        self.end_idle();
        if is_first {
            self.slots().iter().for_each(|slot| slot.end_stream());
        }
        is_first
    }

    pub(super) fn ends_idle(&self) -> bool {
        // As in `is_stopping`.
        fence(SeqCst);
        self.ends_idle.load(Relaxed)
    }

    /// Ends connections that are idle, from now on, too.
    pub(crate) fn end_idle(&self) {
        self.ends_idle.store(true, Relaxed);
        fence(SeqCst);
        self.slots().iter().for_each(|slot| slot.end_idle());
    }

    /// Ends streams, but none that its owner ends.
    pub(crate) fn end_streams(&self) {
        let slots = self.slots();
        let others = slots.iter().filter(|slot| !slot.is_spared.load(Relaxed));
        others.for_each(|slot| slot.end_stream());
    }

    /// Ends every connection.
    pub(super) fn end_all(&self) {
        self.slots().iter().for_each(|slot| _ = slot.end());
    }

    /// Ends the connections that are unreachable and were so at the last look, and returns those that are so now. A
    /// network that is gone sends no reset.
    pub(crate) fn end_unreachable(&self, last: &[Ends]) -> Vec<Ends> {
        let now = tcp_table::unreachable();
        self.end_unreachable_twice(last, &now);
        now
    }

    /// When the network of this machine is down for a moment, a first look finds connections that it will reach again.
    fn end_unreachable_twice(&self, last: &[Ends], now: &[Ends]) {
        let lost: Vec<&Ends> = now.iter().filter(|ends| last.contains(ends)).collect();
        // Most often there is none, and no connection has to be asked for its address.
        for slot in self.slots().iter().filter(|_| !lost.is_empty()) {
            let ends = slot.local_addr().ok().zip(slot.peer).map(|(own, peer)| [own, peer].map(entry));
            if ends.is_some_and(|ends| lost.contains(&&ends)) && slot.end() {
                self.counters.unreachable.fetch_add(1, Relaxed);
            }
        }
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        hold(&self.table).slots.values().cloned().collect()
    }

    /// The connection is closed.
    pub(super) fn close(&self, slot: &Arc<Slot>) {
        self.release(&mut hold(&self.table), slot);
    }

    /// Frees what the connection counts for: once, although it is evicted first and closed later.
    fn release(&self, table: &mut Table, slot: &Arc<Slot>) {
        if table.slots.remove(&key(slot)).is_some() {
            table.streams_taken -= usize::from(slot.is_stream.load(Relaxed));
            table.places_taken -= usize::from(slot.has_place.load(Relaxed));
            self.grant_places(table);
        }
    }
}

impl Table {
    /// The queue that the next place goes to.
    fn next(&self) -> usize {
        if self.queues[self.turn].is_empty() { 1 - self.turn } else { self.turn }
    }

    /// The request that the next place goes to looks for a connection to evict.
    fn wake_first(&self) {
        if let Some((_, thread)) = self.queues[self.next()].front() {
            thread.unpark();
        }
    }
}

/// No other slot has the same address while this one lives.
fn key(slot: &Arc<Slot>) -> usize {
    Arc::as_ptr(slot).addr()
}

/// An upload that may last counts as long as this lives.
pub(crate) struct UploadPermit(Arc<Admission>);

impl Drop for UploadPermit {
    fn drop(&mut self) {
        hold(&self.0.table).uploads_taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A network that is down for three seconds would end all streams.
    #[test]
    fn a_connection_is_ended_when_two_looks_find_it_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let addr = listener.local_addr().expect("it listens");
        let _client = TcpStream::connect(addr).expect("it listens");
        let (socket, peer) = listener.accept().expect("it has come");
        let ends = [[addr, peer].map(entry)];
        let admission = Admission::new(&Limits::default());
        admission.admit(socket, Some(peer)).expect("there is room");
        let ended = |last| {
            admission.end_unreachable_twice(last, &ends);
            admission.counters.unreachable.load(Relaxed)
        };
        assert_eq!((ended(&[]), ended(&ends)), (0, 1));
    }
}
