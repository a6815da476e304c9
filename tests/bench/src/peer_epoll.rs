//! Loops over epoll, written by hand: as fast as we can make it with one thread, or with two.
//!
//! - Each thread has all of a connection's life, its own listener (`SO_REUSEPORT`, a queue of 4,096) and its own epoll,
//!   edge-triggered: a connection is added once and never changed. A connection whose request is there when it is
//!   accepted is answered before it is added at all.
//! - The frames of a channel are one piece of memory, and each subscriber is sent a slice of it (`peer_common.rs`). All
//!   that is ready is read before anything is sent, so that batches grow by themselves.
//! - At most 64 connections are accepted between two turns, so that a storm of them leaves time to those that stayed.
//! - With two threads each has a copy of every channel. A publisher's thread gives the event to the other one, under the
//!   one lock there is, and wakes it unless it is awake.
//! - There are no limits, no timeouts, no heartbeats, no `Date`, no log.

use crate::peer_common::{Connection, Store};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use slab::Slab;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

const BACKLOG: i32 = 4096;
const ACCEPTED_PER_TURN: usize = 64;
const READ: usize = 256 * 1024;

/// Events of other threads, by thread. To publish, a thread must have taken its own first: so ids are the same everywhere.
type Inboxes = Mutex<Vec<Vec<Foreign>>>;

struct Foreign {
    channel: Box<str>,
    data: Arc<[u8]>,
}

/// Listens with the others of its group. Options are inherited by what is accepted.
pub fn listen(port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseport(&listener, true)?;
    sockopt::set_tcp_nodelay(&listener, true)?;
    net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

pub fn port(listener: &OwnedFd) -> io::Result<u16> {
    let address = SocketAddrV4::try_from(net::getsockname(listener)?)?;
    Ok(address.port())
}

pub fn serve(page: Vec<u8>, threads: usize) -> io::Result<()> {
    let first = listen(0)?;
    let port = port(&first)?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(listen(port)?);
    }
    let alarm = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
    let alarms: Result<Vec<_>, _> = listeners.iter().map(|_| alarm()).collect();
    let (alarms, inboxes) = (Arc::new(alarms?), Arc::new(Inboxes::default()));
    inboxes.lock().unwrap_or_else(PoisonError::into_inner).resize_with(threads, Vec::new);
    let mut loops = Vec::new();
    for (thread, listener) in listeners.into_iter().enumerate() {
        let others = Others { thread, inboxes: Arc::clone(&inboxes), alarms: Arc::clone(&alarms) };
        loops.push(Loop {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            listener,
            connections: Slab::new(),
            store: Store::new(&page),
            others,
            buffer: vec![0; READ],
        });
    }
    println!("http://127.0.0.1:{port}/");
    let threads: Vec<_> = loops.into_iter().map(|one| thread::spawn(move || one.run())).collect();
    threads.into_iter().try_for_each(|thread| thread.join().expect("a loop does not panic"))
}

struct Others {
    thread: usize,
    inboxes: Arc<Inboxes>,
    alarms: Arc<Vec<OwnedFd>>,
}

impl Others {
    fn publish(&self, store: &mut Store, channel: &str, data: &[u8]) -> (u64, usize) {
        if self.alarms.len() == 1 {
            return store.append(channel, data);
        }
        let shared: Arc<[u8]> = data.into();
        let mut inboxes = self.lock();
        self.take(&mut inboxes, store);
        let answer = store.append(channel, data);
        for (thread, inbox) in inboxes.iter_mut().enumerate() {
            if thread != self.thread {
                if inbox.is_empty() {
                    let _ = rustix::io::write(&self.alarms[thread], &1_u64.to_ne_bytes());
                }
                inbox.push(Foreign { channel: channel.into(), data: Arc::clone(&shared) });
            }
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Foreign>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, inboxes: &mut [Vec<Foreign>], store: &mut Store) {
        for Foreign { channel, data } in inboxes[self.thread].drain(..) {
            store.append(&channel, &data);
        }
    }
}

struct Peer {
    socket: OwnedFd,
    talk: Connection,
}

struct Loop {
    epoll: OwnedFd,
    listener: OwnedFd,
    connections: Slab<Peer>,
    store: Store,
    others: Others,
    buffer: Vec<u8>,
}

const LISTENER: u64 = u64::MAX;
const ALARM: u64 = u64::MAX - 1;

impl Loop {
    fn run(mut self) -> io::Result<()> {
        let alarm = &self.others.alarms[self.others.thread];
        let token = epoll::EventData::new_u64;
        epoll::add(&self.epoll, &self.listener, token(LISTENER), epoll::EventFlags::IN)?;
        let edge = epoll::EventFlags::ET | epoll::EventFlags::IN;
        epoll::add(&self.epoll, alarm, token(ALARM), edge)?;
        let mut ready = Vec::with_capacity(1024);
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut accepts = false;
            for event in &ready {
                let (data, flags) = (event.data, event.flags);
                match data.u64() {
                    LISTENER => accepts = true,
                    ALARM => {
                        self.others.take(&mut self.others.lock(), &mut self.store);
                    }
                    number => self.attend(number as usize, flags),
                }
            }
            self.send_all();
            if accepts {
                self.accept()?;
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTED_PER_TURN {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => break,
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let number = self.connections.insert(Peer { socket, talk: Connection::default() });
            self.attend(number, epoll::EventFlags::IN);
            if let Some(peer) = self.connections.get(number) {
                let interest =
                    epoll::EventFlags::ET | epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP;
                let token = epoll::EventData::new_u64(number as u64);
                epoll::add(&self.epoll, &peer.socket, token, interest)?;
            }
        }
        Ok(())
    }

    /// Reads what is there, answers it, and ends the connection if it is over.
    fn attend(&mut self, number: usize, flags: epoll::EventFlags) {
        let Some(Peer { socket, talk }) = self.connections.get_mut(number) else {
            return;
        };
        let mut is_over = false;
        // A subscriber says nothing more, but for the end.
        while flags.contains(epoll::EventFlags::IN) && talk.subscription.is_none() && !is_over {
            match rustix::io::read(&*socket, &mut self.buffer) {
                Ok(length @ 1..) => {
                    let others = &self.others;
                    let mut publish =
                        |store: &mut Store, channel: &str, data: &[u8]| others.publish(store, channel, data);
                    let bytes = &self.buffer[..length];
                    is_over = self.store.receive(number, talk, bytes, &mut publish).is_err();
                    if length < READ {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                _ => is_over = true,
            }
        }
        let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        talk.is_full &= !flags.contains(epoll::EventFlags::OUT);
        if is_over || flags.intersects(ended) || !self.send(number) {
            self.end(number);
        }
    }

    /// Sends what a connection lacks and has room for. `false` if that was the end of it.
    fn send(&mut self, number: usize) -> bool {
        let Some(Peer { socket, talk }) = self.connections.get_mut(number) else {
            return true;
        };
        while !talk.is_full {
            let Some(unsent) = talk.unsent(&self.store) else { return false };
            if unsent.is_empty() {
                return !talk.closes;
            }
            let length = unsent.len();
            match rustix::io::write(&*socket, unsent) {
                Ok(written) => {
                    talk.advance(written);
                    talk.is_full = written < length;
                }
                Err(Errno::AGAIN) => talk.is_full = true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Brings all new events to all subscribers with room.
    fn send_all(&mut self) {
        while let Some(channel) = self.store.dirty.pop() {
            self.store.channels[channel].is_dirty = false;
            let subscribers = std::mem::take(&mut self.store.channels[channel].subscribers);
            let gone: Vec<usize> = subscribers.iter().copied().filter(|number| !self.send(*number)).collect();
            self.store.channels[channel].subscribers = subscribers;
            gone.into_iter().for_each(|number| self.end(number));
        }
    }

    fn end(&mut self, number: usize) {
        if let Some(peer) = self.connections.try_remove(number) {
            self.store.forget(number, &peer.talk);
        }
    }
}
