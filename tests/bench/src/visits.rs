//! Requests that are answered at once, on connections that are kept, or each on a new one, from one thread.

use crate::net::{self, Poll, Sources};
use crate::wire;
use hdrhistogram::Histogram;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

pub struct Visits {
    server: SocketAddrV4,
    /// Whether a connection is kept for the next request.
    keep: bool,
    request: Vec<u8>,
    poll: Poll,
    sources: Sources,
    visitors: Vec<Visitor>,
    pub answered: u64,
    pub failed: u64,
    /// From each request to its whole answer, in nanoseconds.
    pub latency: Histogram<u64>,
}

struct Visitor {
    socket: TcpStream,
    /// When it sent its request.
    asked: Option<Instant>,
    inbox: Vec<u8>,
}

impl Visits {
    /// So many at once, each with one request on the way.
    pub fn new(server: SocketAddrV4, keep: bool, request: Vec<u8>, at_once: usize) -> io::Result<Self> {
        let mut visits = Self {
            server,
            keep,
            request,
            poll: Poll::new()?,
            sources: Sources::default(),
            visitors: Vec::new(),
            answered: 0,
            failed: 0,
            // From a microsecond to a minute, to three digits.
            latency: Histogram::new_with_bounds(1_000, 60_000_000_000, 3).map_err(io::Error::other)?,
        };
        for token in 0..at_once {
            let socket = net::connect(server, &mut visits.sources, None)?;
            visits.poll.add(&socket, token as u64, true)?;
            visits.visitors.push(Visitor { socket, asked: None, inbox: Vec::with_capacity(64 * 1024) });
        }
        Ok(visits)
    }

    /// Keeps all visitors busy for this long.
    pub fn run(&mut self, time: Duration) -> io::Result<()> {
        let mut ready = Vec::with_capacity(self.visitors.len());
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
        if writable && visitor.asked.is_none() {
            visitor.socket.write_all(&self.request)?;
            visitor.asked = Some(Instant::now());
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
                return Err(io::Error::other(format!("a request was answered {status}")));
            }
            None => false,
        };
        match (self.keep, complete, length) {
            (true, true, 1..) => {
                self.answered += 1;
                let now = Instant::now();
                let asked = visitor.asked.replace(now).unwrap_or(now);
                self.latency.saturating_record((now - asked).as_nanos() as u64);
                visitor.inbox.clear();
                visitor.socket.write_all(&self.request)
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
        visitor.asked = None;
        visitor.inbox.clear();
        Ok(())
    }
}
