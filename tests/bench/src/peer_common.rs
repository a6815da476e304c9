//! What the peers that are written by hand have in common: the history of a channel, ids and frames, and HTTP without a
//! socket. The loops over epoll and io_uring share all of it, hyper and actix the history.

use std::collections::{HashMap, VecDeque};
use std::io;

/// Events that each channel keeps: as many as every other server in the bench.
pub const HISTORY: usize = 1000;
/// What is gone stays at the front of the bytes until it is at least this much: so that moving the rest is rare.
const SLACK: usize = 1024 * 1024;

/// The frames of a channel, one behind the other, so that whatever any subscriber lacks is one slice: nothing is put
/// together, and nothing copied.
#[derive(Default)]
pub struct History {
    bytes: Vec<u8>,
    /// How many bytes were dropped from the front. A cursor counts all that ever were.
    dropped: u64,
    /// The cursor before each kept event.
    starts: VecDeque<u64>,
    last_id: u64,
}

impl History {
    /// Appends an event, and says which id it has.
    pub fn append(&mut self, data: &[u8]) -> u64 {
        self.starts.push_back(self.end());
        self.last_id += 1;
        self.bytes.extend_from_slice(format!("id: {}\n", self.last_id).as_bytes());
        for line in data.split(|byte| *byte == b'\n') {
            self.bytes.extend_from_slice(b"data: ");
            self.bytes.extend_from_slice(line);
            self.bytes.push(b'\n');
        }
        self.bytes.push(b'\n');
        if self.starts.len() > HISTORY {
            self.starts.pop_front();
            let gone = (self.starts[0] - self.dropped) as usize;
            if gone >= SLACK.max(self.bytes.len() / 2) {
                self.bytes.drain(..gone);
                self.dropped += gone as u64;
            }
        }
        self.last_id
    }

    pub fn end(&self) -> u64 {
        self.dropped + self.bytes.len() as u64
    }

    /// All that comes after a cursor. `None` if some of it is gone.
    pub fn from(&self, cursor: u64) -> Option<&[u8]> {
        self.bytes.get(cursor.checked_sub(self.dropped)? as usize..)
    }

    /// Where a subscriber begins that has seen this event: behind it, as far as there is what follows; without an id,
    /// at the end.
    pub fn cursor_after(&self, seen: Option<u64>) -> u64 {
        let missed = seen.map_or(0, |seen| self.last_id.saturating_sub(seen) as usize);
        let kept = self.starts.len();
        self.starts.get(kept - missed.min(kept)).copied().unwrap_or(self.end())
    }
}

pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub body: &'a [u8],
    pub close: bool,
    pub last_event_id: Option<u64>,
    pub length: usize,
}

/// A request with its whole body, if all of it is there.
pub fn parse(bytes: &[u8]) -> io::Result<Option<Request<'_>>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    let head = match request.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let field = |name: &str| {
        let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    };
    let body = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let close = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let last_event_id = field("last-event-id").and_then(|id| id.trim().parse().ok());
    let length = head + body;
    let body = bytes.get(head..length);
    Ok(body.map(|body| Request { method, path, body, close, last_event_id, length }))
}

/// A whole answer.
pub fn answer(kind: &str, body: &[u8], close: bool) -> Vec<u8> {
    let connection = if close { "close" } else { "keep-alive" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// What is answered to a POST, as JSON.
pub fn answer_to_publisher(id: u64, subscribers: usize) -> String {
    format!("{{\"id\":\"{id}\",\"subscribers\":{subscribers}}}")
}

pub const STREAM: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n";
pub const HTML: &str = "text/html; charset=utf-8";

/// A connection of a loop, without its socket.
#[derive(Default)]
pub struct Connection {
    /// The beginning of a request that is not whole.
    inbox: Vec<u8>,
    /// Answers that are to be sent before anything else, and how much of them was.
    pub outbox: Vec<u8>,
    pub sent: usize,
    /// Ends when the outbox is empty.
    pub closes: bool,
    /// The channel that it subscribes to, and how far it has been sent.
    pub subscription: Option<(usize, u64)>,
    /// Its socket was full. It has its turn when there is room again.
    pub is_full: bool,
}

impl Connection {
    /// What is to be sent: answers, then what the channel has. `None` if a subscriber has lost events: it ends.
    pub fn unsent<'a>(&'a self, store: &'a Store) -> Option<&'a [u8]> {
        match self.subscription {
            _ if self.sent < self.outbox.len() => Some(&self.outbox[self.sent..]),
            Some((channel, cursor)) => store.channels[channel].history.from(cursor),
            None => Some(&[]),
        }
    }

    pub fn advance(&mut self, written: usize) {
        if self.sent < self.outbox.len() {
            self.sent += written;
            if self.sent == self.outbox.len() {
                (self.sent, self.outbox) = (0, Vec::new());
            }
        } else if let Some((_, cursor)) = &mut self.subscription {
            *cursor += written as u64;
        }
    }
}

#[derive(Default)]
pub struct Channel {
    pub history: History,
    /// Connections, by their number.
    pub subscribers: Vec<usize>,
    pub is_dirty: bool,
}

/// All that one thread serves.
#[derive(Default)]
pub struct Store {
    page: [Vec<u8>; 2],
    by_name: HashMap<Box<str>, usize>,
    pub channels: Vec<Channel>,
    /// Channels with events that were not sent yet. They are sent when all that was ready has been read: many events,
    /// one write for each subscriber.
    pub dirty: Vec<usize>,
}

impl Store {
    pub fn new(page: &[u8]) -> Self {
        Self { page: [false, true].map(|close| answer(HTML, page, close)), ..Self::default() }
    }

    fn named(&mut self, name: &str) -> usize {
        if let Some(channel) = self.by_name.get(name) {
            return *channel;
        }
        self.channels.push(Channel::default());
        self.by_name.insert(name.into(), self.channels.len() - 1);
        self.channels.len() - 1
    }

    pub fn append(&mut self, name: &str, data: &[u8]) -> (u64, usize) {
        let number = self.named(name);
        let channel = &mut self.channels[number];
        if !channel.is_dirty && !channel.subscribers.is_empty() {
            channel.is_dirty = true;
            self.dirty.push(number);
        }
        (channel.history.append(data), channel.subscribers.len())
    }

    /// Takes what a connection has received, and does what is asked. `publish` appends to the store.
    pub fn receive(
        &mut self,
        number: usize,
        connection: &mut Connection,
        bytes: &[u8],
        publish: &mut impl FnMut(&mut Store, &str, &[u8]) -> (u64, usize),
    ) -> io::Result<()> {
        if connection.subscription.is_some() || connection.closes {
            return Ok(());
        }
        let held = std::mem::take(&mut connection.inbox);
        let joined;
        let bytes = if held.is_empty() {
            bytes
        } else {
            joined = [held, bytes.to_vec()].concat();
            &joined
        };
        let mut used = 0;
        while let Some(request) = parse(&bytes[used..])? {
            used += request.length;
            let name = request.path.strip_prefix("/channels/");
            match (request.method, name) {
                ("POST", Some(name)) => {
                    let (id, subscribers) = publish(self, name, request.body);
                    let body = answer_to_publisher(id, subscribers);
                    let answer = answer("application/json", body.as_bytes(), request.close);
                    connection.outbox.extend_from_slice(&answer);
                }
                ("GET", Some(name)) => {
                    let number_of_channel = self.named(name);
                    let channel = &mut self.channels[number_of_channel];
                    channel.subscribers.push(number);
                    let cursor = channel.history.cursor_after(request.last_event_id);
                    connection.outbox.extend_from_slice(STREAM);
                    connection.subscription = Some((number_of_channel, cursor));
                    return Ok(());
                }
                _ => connection.outbox.extend_from_slice(&self.page[usize::from(request.close)]),
            }
            if request.close {
                connection.closes = true;
                return Ok(());
            }
        }
        connection.inbox = bytes[used..].to_vec();
        Ok(())
    }

    /// Forgets a connection that has ended.
    pub fn forget(&mut self, number: usize, connection: &Connection) {
        if let Some((channel, _)) = connection.subscription {
            self.channels[channel].subscribers.retain(|subscriber| *subscriber != number);
        }
    }
}
