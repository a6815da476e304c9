//! Plain HTTP: `GET /` on connections that are kept, or each on a new one, from one thread.

use crate::net::{self, Poll, Sources};
use crate::wire;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// Requests on the way at any time.
const AT_ONCE: usize = 64;

pub struct Visits {
    server: SocketAddrV4,
    /// Whether a connection is kept for the next request.
    keep: bool,
    request: String,
    poll: Poll,
    sources: Sources,
    visitors: Vec<Visitor>,
    pub answered: u64,
    pub failed: u64,
}

struct Visitor {
    socket: TcpStream,
    asked: bool,
    inbox: Vec<u8>,
}

impl Visits {
    pub fn new(server: SocketAddrV4, keep: bool) -> io::Result<Self> {
        let (poll, sources, visitors) = (Poll::new()?, Sources::default(), Vec::new());
        let request = wire::visit(server, keep);
        let mut visits =
            Self { server, keep, request, poll, sources, visitors, answered: 0, failed: 0 };
        for token in 0..AT_ONCE {
            let socket = net::connect(server, &mut visits.sources, None)?;
            visits.poll.add(&socket, token as u64, true)?;
            visits.visitors.push(Visitor {
                socket,
                asked: false,
                inbox: Vec::with_capacity(64 * 1024),
            });
        }
        Ok(visits)
    }

    /// Keeps all visitors busy for this long.
    pub fn run(&mut self, time: Duration) -> io::Result<()> {
        let mut ready = Vec::with_capacity(AT_ONCE);
        let mut buffer = vec![0; 64 * 1024];
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.poll.wait(&mut ready, left)?;
            for event in &ready {
                let (token, writable) = net::unpack(event);
                if self.serve(token as usize, writable, &mut buffer).is_err() {
                    self.failed += 1;
                    self.renew(token as usize)?;
                }
            }
        }
    }

    fn serve(&mut self, token: usize, writable: bool, buffer: &mut [u8]) -> io::Result<()> {
        let visitor = &mut self.visitors[token];
        if writable && !visitor.asked {
            visitor.socket.write_all(self.request.as_bytes())?;
            visitor.asked = true;
            return self.poll.modify(&visitor.socket, token as u64, false);
        }
        let length = match visitor.socket.read(buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        visitor.inbox.extend_from_slice(&buffer[..length]);
        let complete = match wire::answer(&visitor.inbox)? {
            Some((length, 200)) => visitor.inbox.len() == length,
            Some((_, status)) => {
                return Err(io::Error::other(format!("GET / was answered {status}")));
            }
            None => false,
        };
        match (self.keep, complete, length) {
            (true, true, 1..) => {
                self.answered += 1;
                visitor.inbox.clear();
                visitor.socket.write_all(self.request.as_bytes())
            }
            // The server ends the connection; a visit is over when it has.
            (false, true, 0) => {
                self.answered += 1;
                self.renew(token)
            }
            (_, _, 0) => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Puts a new connection in the place of an old one, which is closed by that.
    fn renew(&mut self, token: usize) -> io::Result<()> {
        let socket = net::connect(self.server, &mut self.sources, None)?;
        self.poll.add(&socket, token as u64, true)?;
        let visitor = &mut self.visitors[token];
        visitor.socket = socket;
        visitor.asked = false;
        visitor.inbox.clear();
        Ok(())
    }
}
