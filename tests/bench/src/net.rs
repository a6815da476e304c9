//! Sockets and readiness: what the load generator stands on.

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

pub type Ready = epoll::Event;

/// Level-triggered epoll: one read per readiness, so a busy socket never starves the others.
pub struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll })
    }

    pub fn add(&self, socket: &TcpStream, token: u64, writable: bool) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, socket, token, interest(writable))?)
    }

    pub fn modify(&self, socket: &TcpStream, token: u64, writable: bool) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token);
        Ok(epoll::modify(&self.epoll, socket, token, interest(writable))?)
    }

    pub fn remove(&self, socket: &TcpStream) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits until something is ready or the time is over, and leaves what is ready in `ready`.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Duration) -> io::Result<()> {
        ready.clear();
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, spare_capacity(ready), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whose readiness this is, and whether it can be written to.
pub fn unpack(event: &Ready) -> (u64, bool) {
    // The kernel's struct is packed: its fields are copied, never referred to.
    let (data, flags) = (event.data, event.flags);
    (data.u64(), flags.contains(epoll::EventFlags::OUT))
}

fn interest(writable: bool) -> epoll::EventFlags {
    if writable { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN }
}

/// One source address has some 28,000 ports to one server. Taking turns over 64 addresses of the
/// loopback network leaves room for 15,000 subscribers and for every connection of a round.
#[derive(Default)]
pub struct Sources {
    taken: u8,
}

impl Sources {
    fn next(&mut self) -> Ipv4Addr {
        self.taken = (self.taken + 1) % 64;
        Ipv4Addr::new(127, 0, 0, 2 + self.taken)
    }
}

/// Begins a connection. It is usable once the socket is writable.
///
/// A zero linger makes our close a reset: nothing of a finished measurement stays behind in
/// TIME_WAIT to take memory or ports from the next. A receive buffer must be bounded before there
/// is a connection.
pub fn connect(server: SocketAddrV4, sources: &mut Sources, buffer: Option<usize>) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if let Some(bytes) = buffer {
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    net::bind(&socket, &SocketAddrV4::new(sources.next(), 0))?;
    match net::connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}
