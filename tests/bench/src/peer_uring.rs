//! The loop of `peer_epoll.rs` over io_uring, with one thread: the same protocol and the same memory, other calls.
//!
//! - One call submits everything and waits for what comes: accepting and receiving are asked for once for many times
//!   (multishot), what is received lies in a ring of buffers that the kernel takes from, and sockets are numbers in a
//!   table of the ring (direct descriptors), never files of the process.
//! - The kernel works for this thread alone and only when this thread waits (`SINGLE_ISSUER`, `DEFER_TASKRUN`).
//! - Each send is tried at submission and never waits (`MSG_DONTWAIT`): so the memory it names may move as soon as the call
//!   is back. A turn first does all that changes memory, and then asks for the sends. A full socket is polled for room.
//! - Where the kernel refuses io_uring, this peer is left out, and the report says so.

use crate::peer_common::{Connection, Store};
use crate::peer_epoll::{listen, port};
use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 32 * 1024;
const SOCKETS: u32 = 20_000;
const BUFFERS: u16 = 512;
const BUFFER: usize = 16 * 1024;
/// Accepted connections are numbers below [`SOCKETS`], so that a token has room for what is done above them.
const GROUP: u16 = 0;

#[derive(Clone, Copy, PartialEq)]
#[repr(u64)]
enum Act {
    Accept,
    Receive,
    Send,
    Room,
    Shutdown,
    Close,
}

const ACTS: [Act; 6] = [Act::Accept, Act::Receive, Act::Send, Act::Room, Act::Shutdown, Act::Close];

fn token(act: Act, number: usize) -> u64 {
    (act as u64) << 32 | number as u64
}

/// Whether there is io_uring here, and all of it that is used.
pub fn is_refused() -> Option<String> {
    ring()
        .and_then(|ring| Buffers::new(&ring).map(drop))
        .err()
        .map(|error| format!("THIS KERNEL REFUSES io_uring ({error}): the row is missing, not won"))
}

fn ring() -> io::Result<IoUring> {
    let ring = IoUring::builder()
        .setup_cqsize(COMPLETIONS)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(SUBMISSIONS)?;
    ring.submitter().register_files_sparse(SOCKETS)?;
    Ok(ring)
}

/// Memory that the kernel receives into, and the ring that says which of it is free.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: Vec<u8>,
    tail: u16,
}

impl Buffers {
    fn new(ring: &IoUring) -> io::Result<Self> {
        let size = usize::from(BUFFERS) * size_of::<BufRingEntry>();
        let layout = std::alloc::Layout::from_size_align(size, 4096).map_err(io::Error::other)?;
        // SAFETY: the size is not zero. It is never freed: the kernel has it as long as the process runs.
        let entries = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<BufRingEntry>();
        // SAFETY: this many entries are there, on a page's border, for good.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0)? };
        let memory = vec![0; usize::from(BUFFERS) * BUFFER];
        let mut buffers = Self { entries, memory, tail: 0 };
        (0..BUFFERS).for_each(|number| buffers.give(number));
        Ok(buffers)
    }

    fn filled(&self, number: u16, length: usize) -> &[u8] {
        &self.memory[usize::from(number) * BUFFER..][..length]
    }

    /// Gives a buffer back to the kernel.
    fn give(&mut self, number: u16) {
        // SAFETY: the place is within the ring, and the kernel reads it only when the tail says so.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail % BUFFERS)) };
        entry.set_addr(self.memory[usize::from(number) * BUFFER..].as_ptr() as u64);
        entry.set_len(BUFFER as u32);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a field of the first entry, and aligned; the kernel only reads it.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

pub fn serve(page: Vec<u8>) -> io::Result<()> {
    let listener = listen(0)?;
    // Otherwise io_uring says "not now" instead of waiting.
    rustix::io::ioctl_fionbio(&listener, false)?;
    let ring = ring()?;
    let buffers = Buffers::new(&ring)?;
    println!("http://127.0.0.1:{}/", port(&listener)?);
    let mut this = Loop {
        ring,
        buffers,
        connections: Vec::new(),
        store: Store::new(&page),
        due: Vec::new(),
        listener: Fd(listener.as_raw_fd()),
    };
    this.accept()?;
    this.run()
}

/// A connection, by its number in the ring's table.
#[derive(Default)]
struct Peer {
    talk: Connection,
    /// A send is on the way: there is one at a time.
    is_sending: bool,
    is_ending: bool,
}

struct Loop {
    ring: IoUring,
    buffers: Buffers,
    connections: Vec<Option<Box<Peer>>>,
    store: Store,
    /// Connections that may have something to send at the end of this turn.
    due: Vec<usize>,
    listener: Fd,
}

impl Loop {
    fn run(&mut self) -> io::Result<()> {
        let mut done: Vec<cqueue::Entry> = Vec::new();
        loop {
            self.send_all()?;
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc_errno::EINTR)) => {}
                Err(error) => return Err(error),
            }
            done.extend(self.ring.completion());
            for entry in done.drain(..) {
                self.complete(&entry)?;
            }
        }
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: what a send names does not move before it is submitted, by `send_all`, and it is done then; what is received
        // goes to the ring of buffers, which stays.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(self.listener).allocate_file_index(true).build();
        self.push(accept.user_data(token(Act::Accept, 0)))
    }

    fn receive(&mut self, number: usize) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(Fixed(number as u32), GROUP).build();
        self.push(receive.user_data(token(Act::Receive, number)))
    }

    fn complete(&mut self, entry: &cqueue::Entry) -> io::Result<()> {
        let (result, flags) = (entry.result(), entry.flags());
        let number = entry.user_data() as u32 as usize;
        let act = ACTS[(entry.user_data() >> 32) as usize];
        match act {
            Act::Accept => {
                if result >= 0 {
                    let number = result as usize;
                    if self.connections.len() <= number {
                        self.connections.resize_with(number + 1, || None);
                    }
                    self.connections[number] = Some(Box::default());
                    self.receive(number)?;
                }
                if !cqueue::more(flags) {
                    self.accept()?;
                }
            }
            Act::Receive => self.received(number, result, flags)?,
            Act::Send => {
                let Some(peer) = self.connections[number].as_mut() else { return Ok(()) };
                peer.is_sending = false;
                match result {
                    0.. => peer.talk.advance(result as usize),
                    _ if -result == libc_errno::EAGAIN => {
                        peer.talk.is_full = true;
                        let out = rustix::event::PollFlags::OUT.bits().into();
                        let room = opcode::PollAdd::new(Fixed(number as u32), out).build();
                        self.push(room.user_data(token(Act::Room, number)))?;
                        return Ok(());
                    }
                    _ => return self.end(number),
                }
                self.due.push(number);
            }
            Act::Room => {
                if let Some(peer) = self.connections[number].as_mut() {
                    peer.talk.is_full = false;
                    self.due.push(number);
                }
            }
            Act::Shutdown | Act::Close => {}
        }
        Ok(())
    }

    fn received(&mut self, number: usize, result: i32, flags: u32) -> io::Result<()> {
        let Some(peer) = self.connections[number].as_mut() else { return Ok(()) };
        let mut is_over = result <= 0 && -result != libc_errno::ENOBUFS;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            let bytes = self.buffers.filled(buffer, result.max(0) as usize);
            let mut publish = |store: &mut Store, name: &str, data: &[u8]| store.append(name, data);
            if !peer.is_ending {
                let took = self.store.receive(number, &mut peer.talk, bytes, &mut publish);
                is_over |= took.is_err();
            }
            self.buffers.give(buffer);
        }
        if cqueue::more(flags) {
            self.due.push(number);
            return if is_over { self.end(number) } else { Ok(()) };
        }
        // Receiving has ended, and a poll for room ends with the connection: nothing else holds the socket.
        if is_over || peer.is_ending {
            if let Some(peer) = self.connections[number].take() {
                self.store.forget(number, &peer.talk);
            }
            let close = opcode::Close::new(Fixed(number as u32)).build();
            return self.push(close.user_data(token(Act::Close, number)));
        }
        self.due.push(number);
        self.receive(number)
    }

    /// Shuts a connection down. That ends its receiving, and then it is closed.
    fn end(&mut self, number: usize) -> io::Result<()> {
        let Some(peer) = self.connections[number].as_mut().filter(|peer| !peer.is_ending) else {
            return Ok(());
        };
        peer.is_ending = true;
        const BOTH: i32 = 2;
        let shutdown = opcode::Shutdown::new(Fixed(number as u32), BOTH).build();
        self.push(shutdown.user_data(token(Act::Shutdown, number)))
    }

    /// Sends what a connection lacks, if nothing is on the way and there may be room.
    fn send(&mut self, number: usize) -> io::Result<()> {
        let Some(peer) = self.connections[number].as_mut() else { return Ok(()) };
        if peer.is_sending || peer.talk.is_full || peer.is_ending {
            return Ok(());
        }
        match peer.talk.unsent(&self.store) {
            None => self.end(number),
            Some([]) if peer.talk.closes => self.end(number),
            Some([]) => Ok(()),
            Some(unsent) => {
                peer.is_sending = true;
                let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
                let socket = Fixed(number as u32);
                let send = opcode::Send::new(socket, unsent.as_ptr(), unsent.len() as u32);
                let send = send.flags(flags.bits() as i32).build();
                self.push(send.user_data(token(Act::Send, number)))
            }
        }
    }

    /// Asks for all that is new to be sent. Nothing else happens between this and the submission.
    fn send_all(&mut self) -> io::Result<()> {
        while let Some(number) = self.due.pop() {
            self.send(number)?;
        }
        while let Some(channel) = self.store.dirty.pop() {
            self.store.channels[channel].is_dirty = false;
            let subscribers = std::mem::take(&mut self.store.channels[channel].subscribers);
            for number in &subscribers {
                self.send(*number)?;
            }
            self.store.channels[channel].subscribers = subscribers;
        }
        Ok(())
    }
}

mod libc_errno {
    use rustix::io::Errno;
    pub const EINTR: i32 = Errno::INTR.raw_os_error();
    pub const EAGAIN: i32 = Errno::AGAIN.raw_os_error();
    pub const ENOBUFS: i32 = Errno::NOBUFS.raw_os_error();
}
