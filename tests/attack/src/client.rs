//! Requests, and subscriptions to channels: as little HTTP as is needed to see whether the server's
//! is right, and an event-stream reader that takes nothing but what newswire writes.

use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a connection, and then the beginning of a stream, may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends requests one after the other, on one connection as long as it is kept.
pub struct Caller {
    address: SocketAddr,
    socket: Option<TcpStream>,
    timeout: Duration,
}

pub struct Answer {
    pub status: u16,
    pub content: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        str::from_utf8(&self.content).unwrap_or("")
    }
}

impl Caller {
    pub fn new(address: SocketAddr) -> Caller {
        Caller { address, socket: None, timeout: Duration::from_secs(30) }
    }

    /// How long a connection, and then each answer, may take.
    pub fn timeout(mut self, timeout: Duration) -> Caller {
        self.timeout = timeout;
        self
    }

    pub fn get(&mut self, target: &str) -> io::Result<Answer> {
        self.request("GET", target, b"")
    }

    pub fn request(&mut self, method: &str, target: &str, content: &[u8]) -> io::Result<Answer> {
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", content.len());
        self.begin()?.write_all(&[head.as_bytes(), content].concat())?;
        self.answer()
    }

    /// The connection, to write a request on by hand.
    pub fn begin(&mut self) -> io::Result<&mut TcpStream> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = TcpStream::connect_timeout(&self.address, self.timeout)?;
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(self.timeout))?;
                socket.set_write_timeout(Some(self.timeout))?;
                socket
            }
        };
        Ok(self.socket.insert(socket))
    }

    /// What the server answers to what was written.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut socket = self.socket.take().ok_or(ErrorKind::NotConnected)?;
        let (head, mut content) = read_head(&mut socket)?;
        let status = status_of(&head)?;
        let length = match field(&head, "content-length") {
            Some(digits) => digits.parse().map_err(|_| broken("a length that is none"))?,
            None if matches!(status, 204 | 304) => 0,
            None => return Err(broken("an answer without a length")),
        };
        while content.len() < length {
            read_more(&mut socket, &mut content)?;
        }
        if content.len() > length {
            return Err(broken("more than the content"));
        }
        if field(&head, "connection").is_none_or(|value| value != "close") {
            self.socket = Some(socket);
        }
        Ok(Answer { status, content })
    }

    /// Whether the last answer left the connection open.
    pub fn is_kept(&self) -> bool {
        self.socket.is_some()
    }

    /// Closes the connection; the next request opens another.
    pub fn hang_up(&mut self) {
        self.socket = None;
    }
}

/// A stream of a channel.
pub struct Subscription {
    pub socket: TcpStream,
    stream: Stream,
}

/// What asking for a stream comes to.
pub enum Subscribed {
    Streaming(Subscription),
    /// 204: there is nothing more, do not come back.
    Finished,
    /// A stream that only says that there is no room.
    Refused,
    /// 401: no key allows it.
    Forbidden,
}

/// What reading a stream comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    Some,
    Silence,
    End,
}

impl Subscription {
    /// Asks for a channel, or for several; a key stands behind the name. `room` is the size of the socket's receive buffer, the system's if 0; a
    /// small one is full soon.
    pub fn open(
        address: SocketAddr,
        channel: &str,
        last_event_id: Option<&str>,
        in_query: bool,
        room: usize,
    ) -> io::Result<Subscribed> {
        let mut socket = connect(address, room)?;
        socket.set_read_timeout(Some(OPEN_TIMEOUT))?;
        let (query, field) = match last_event_id {
            None => (String::new(), String::new()),
            Some(id) if in_query => {
                let separator = if channel.contains('?') { '&' } else { '?' };
                (format!("{separator}last_event_id={id}"), String::new())
            }
            Some(id) => (String::new(), format!("Last-Event-ID: {id}\r\n")),
        };
        let request = format!(
            "GET /channels/{channel}{query} HTTP/1.1\r\nHost: localhost\r\n\
             Accept: text/event-stream\r\n{field}\r\n"
        );
        socket.write_all(request.as_bytes())?;
        let (head, mut rest) = read_head(&mut socket)?;
        match status_of(&head)? {
            204 => return Ok(Subscribed::Finished),
            401 => return Ok(Subscribed::Forbidden),
            200 => {}
            _ => return Err(broken(&format!("a stream with the head {head:?}"))),
        }
        let end = loop {
            match opening_end(&rest) {
                Some(end) => break end,
                None => read_more(&mut socket, &mut rest)?,
            }
        };
        let bytes = rest.split_off(end);
        if rest.starts_with(b": there is no room ") {
            return Ok(Subscribed::Refused);
        }
        if !rest.starts_with(OPENING.as_bytes()) {
            return Err(broken(&format!("the opening {:?}", String::from_utf8_lossy(&rest))));
        }
        let stream = Stream { bytes, event: Event::default() };
        Ok(Subscribed::Streaming(Subscription { socket, stream }))
    }

    /// Reads once, waiting at most `wait`, and gives what events that completes.
    pub fn read(&mut self, wait: Duration, piece: usize, events: &mut Vec<Event>) -> io::Result<Reading> {
        if self.stream.take(events)? {
            return Ok(Reading::Some);
        }
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut bytes = [0; 16 * 1024];
        let piece = piece.clamp(1, bytes.len());
        match self.socket.read(&mut bytes[..piece]) {
            Ok(0) => Ok(Reading::End),
            Ok(count) => {
                self.stream.bytes.extend_from_slice(&bytes[..count]);
                self.stream.take(events)?;
                Ok(Reading::Some)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(Reading::Silence),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Reading::End),
            Err(error) => Err(error),
        }
    }
}

/// What every stream of a channel begins with, unless it is refused.
pub const OPENING: &str = ": newswire\nretry: ";

/// Where the opening of a stream ends: two lines, and no blank line behind them.
pub fn opening_end(bytes: &[u8]) -> Option<usize> {
    let mut ends = bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
    ends.nth(1).map(|(at, _)| at + 1)
}

/// An event as it stands in the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub name: Option<String>,
    pub data: Option<String>,
}

/// Bytes to events. newswire ends each line with LF and puts a space behind each colon; anything
/// else is not from newswire, or is half of something.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    event: Event,
}

impl Stream {
    /// Takes all whole lines; whether there were any.
    fn take(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        let Some(end) = self.bytes.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(false);
        };
        let rest = self.bytes.split_off(end + 1);
        let lines = String::from_utf8(std::mem::replace(&mut self.bytes, rest));
        let lines = lines.map_err(|_| broken("bytes that are no UTF-8"))?;
        for line in lines.lines() {
            let event = &mut self.event;
            match line.split_once(": ").unwrap_or((line, "")) {
                ("", "") if event.data.is_some() => events.push(std::mem::take(event)),
                ("", "") if *event != Event::default() => {
                    return Err(broken(&format!("no data: {event:?}")));
                }
                ("" | ":" | "retry", _) => {}
                ("id", id) if event.id.is_none() => event.id = Some(id.to_owned()),
                ("event", name) if event.name.is_none() => event.name = Some(name.to_owned()),
                ("data", data) => match &mut event.data {
                    Some(before) => *before = format!("{before}\n{data}"),
                    None => event.data = Some(data.to_owned()),
                },
                _ => return Err(broken(&format!("the line {line:?}"))),
            }
        }
        Ok(true)
    }
}

/// A connection with a receive buffer of this size, which only counts when it is set before the connection begins.
fn connect(address: SocketAddr, room: usize) -> io::Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if room > 0 {
        sockopt::set_socket_recv_buffer_size(&socket, room)?;
    }
    // Which is the time that connecting may take, too.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(OPEN_TIMEOUT))?;
    rustix::net::connect(&socket, &address)?;
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// The head, without its last empty line, and what came behind it.
fn read_head(socket: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let started = Instant::now();
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            bytes.truncate(end);
            let head = String::from_utf8(bytes).map_err(|_| broken("a head that is no text"))?;
            return Ok((head, rest));
        }
        if started.elapsed() > Duration::from_secs(120) {
            return Err(ErrorKind::TimedOut.into());
        }
        read_more(socket, &mut bytes)?;
    }
}

fn read_more(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut more = [0; 16 * 1024];
    match socket.read(&mut more)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        count => {
            bytes.extend_from_slice(&more[..count]);
            Ok(())
        }
    }
}

fn status_of(head: &str) -> io::Result<u16> {
    let digits = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| broken(&format!("the head {head:?}")))
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    fields.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
}

/// What a server must never send.
fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the server sent {what}"))
}
