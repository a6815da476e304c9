//! The load: subscribers and publishers of one server, all driven by one thread.
//!
//! It must cost so little that it does not hide the server's cost. So a delivery is one byte found
//! in what a read returned; a read takes up to 256 KB; and nothing is allocated while a measurement
//! runs.

use crate::net::{self, Poll, Ready, Sources};
use crate::wire::{self, Stamps};
use hdrhistogram::Histogram;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// How events are offered to a server, the same way to every one.
#[derive(Clone, Copy)]
pub enum Offer {
    Nothing,
    /// An event at every such interval, on four connections in turn, whether or not the last one is
    /// answered: a slow server does not slow the publishers and so cannot look better than it is.
    Paced(Duration),
    /// An event to every channel in one instant, again after every such interval.
    Burst(Duration),
    /// As fast as events arrive. A publisher sends while it has fewer than `UNANSWERED` POSTs
    /// without an answer and the subscribers lack fewer than `IN_FLIGHT` events each, on average.
    /// So the readers set the pace, no server is driven into dropping, and what is measured is
    /// deliveries, not losses.
    FlatOut,
}

/// Publishers.
const PUBLISHERS: usize = 4;
/// POSTs on the way on one publisher's connection, while flat out.
const UNANSWERED: u64 = 16;
/// Events on the way to each subscriber, while flat out: half of what the peers' buffers hold. With
/// a sweep every 20 ms at 1,000 subscribers, fewer would cap the fastest.
const IN_FLIGHT: u64 = 512;
/// Deliveries on the way altogether: at 10,000 subscribers the kernel's memory for sockets is the
/// limit.
const IN_FLIGHT_TOTAL: u64 = 2_000_000;

/// While flat out, subscribers are read once in 20 us times their number, that is, 50,000 reads a
/// second in all: to read each small write by itself would take more time than many a server takes
/// to write it, and on two cores it would be time that the server lacks. But never more seldom than
/// this: what is on the way altogether, once in so long, is the most that can be delivered, and no
/// server should come near to that.
const SWEEP_PER_READER: Duration = Duration::from_micros(20);
const SWEEP_AT_MOST: Duration = Duration::from_millis(50);

/// While paced, a look at what has arrived is this much, times the readers of a channel, after the
/// last: a quarter of a millisecond for a thousand, who take some eight to be written to. Without
/// it, each single write would wake this thread, at the server's cost, and take the second core
/// from a server that has a use for it. Where it comes to less than a tenth of a millisecond, there
/// is no pause.
const PAUSE_PER_READER: Duration = Duration::from_nanos(250);

/// Connections being opened before the first of them is answered, where the time to open is not
/// measured.
const OPENING: usize = 64;
/// Connections opened between two looks at what is ready. With sixteen, the looks took so long that
/// the storm was as slow as the reading of live events: a server that was late with these had the
/// shorter storm.
const OPENED_PER_TURN: usize = 256;

/// A slow reader takes so many bytes after every such interval: 1 KB a second.
const SIP: usize = 256;
const SIP_INTERVAL: Duration = Duration::from_millis(250);

/// What a subscriber is there for.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// Counted, and its latencies are recorded.
    Reader,
    /// Comes back with the id of an event that it knows; counted apart from the readers.
    Returning,
    /// Reads the head of its answer, and nothing else.
    Stalled,
    /// Reads the head of its answer, and then [`SIP`] bytes at a time.
    Slow,
}

enum Phase {
    /// Holds the request.
    Connecting(String),
    /// Holds the head of the answer as far as it has come.
    Head(Vec<u8>),
    Open,
    /// Ended by the server when so many events had been published in its channels.
    Closed(u64),
}

struct Subscriber {
    socket: TcpStream,
    phase: Phase,
    role: Role,
    set: usize,
    /// How many events of its channels are not for it, having been published before.
    skipped: u64,
    received: u64,
    /// Of one who comes back: the newest stamp, and how many were from before the storm.
    newest: u64,
    missed: u64,
    repeated: u64,
    stamps: Stamps,
}

/// Connected when it first publishes, and again if the server has ended its connection for being
/// idle.
#[derive(Default)]
struct Publisher {
    socket: Option<TcpStream>,
    /// Bytes that the socket had no room for.
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    unanswered: u64,
}

struct Channel {
    /// The POST that publishes an event here, lacking only the stamp.
    request: Vec<u8>,
    readers: u64,
    sent: u64,
}

/// What one subscription is for: a channel, or several.
struct Set {
    path: String,
    channels: Vec<usize>,
}

impl Set {
    fn new(channels: Vec<usize>) -> Self {
        let names: Vec<String> = channels.iter().map(|channel| name(*channel)).collect();
        Self { path: path(&names.join(",")), channels }
    }

    /// Events published so far in its channels.
    fn sent(&self, channels: &[Channel]) -> u64 {
        self.channels.iter().map(|channel| channels[*channel].sent).sum()
    }
}

fn name(channel: usize) -> String {
    format!("bench{channel}")
}

fn path(names: &str) -> String {
    format!("/channels/{names}")
}

/// What has happened so far; the difference between two of them is a measurement.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    /// POSTs that lost their connection.
    pub refused: u64,
    /// Events that should have reached readers.
    pub expected: u64,
    pub delivered: u64,
}

/// What went wrong with some subscribers: for each by itself, so that what one has twice makes up
/// for nothing that another lacks.
#[derive(Clone, Copy, Default)]
pub struct Losses {
    pub lost: u64,
    pub repeated: u64,
    /// Connections that the server has ended.
    pub ended: u64,
}

pub struct Load {
    server: SocketAddrV4,
    /// Where subscribers connect, if that is another server.
    subscribe_at: SocketAddrV4,
    /// Two sets, so that answers to publishers can be had without looking at 10,000 subscribers.
    subscribers_poll: Poll,
    publishers_poll: Poll,
    ready: Vec<Ready>,
    buffer: Box<[u8]>,
    sources: Sources,
    receive_buffer: Option<usize>,
    epoch: Instant,
    offer: Offer,
    due: Instant,
    /// When the subscribers were last read, and when one of them last had something, while flat
    /// out.
    swept: Instant,
    moved: Instant,
    /// When the slow readers read last.
    sipped: Instant,
    channels: Vec<Channel>,
    /// What subscribers ask for, in turn.
    sets: Vec<Set>,
    next_channel: usize,
    next_publisher: usize,
    publishers: [Publisher; PUBLISHERS],
    subscribers: Vec<Subscriber>,
    opening: usize,
    /// Readers of all channels together.
    readers: u64,
    tally: Tally,
    /// Deliveries that will not come, their connections having ended.
    gone: u64,
    /// Deliveries that are no longer waited for, while flat out.
    written_off: u64,
    latency: Histogram<u64>,
    /// What those who come back say they have seen, how many events that is and how many they lack,
    /// and when they began to come.
    last_event_id: String,
    known: u64,
    catch_up: u64,
    storm: u64,
    whole: usize,
    last_whole: Instant,
}

impl Load {
    /// A load for `server` of so many channels, events of `size` bytes, and room for so many
    /// subscribers.
    pub fn new(server: SocketAddrV4, channels: usize, size: usize, subscribers: usize) -> io::Result<Self> {
        let sets = (0..channels).map(|channel| Set::new(vec![channel])).collect();
        let channels = (0..channels)
            .map(|channel| {
                let request = wire::publish(server, &path(&name(channel)), size);
                Channel { request, readers: 0, sent: 0 }
            })
            .collect();
        let now = Instant::now();
        Ok(Self {
            server,
            subscribe_at: server,
            subscribers_poll: Poll::new()?,
            publishers_poll: Poll::new()?,
            ready: Vec::with_capacity(1024),
            buffer: vec![0; 256 * 1024].into_boxed_slice(),
            sources: Sources::default(),
            receive_buffer: None,
            epoch: now,
            offer: Offer::Nothing,
            due: now,
            swept: now,
            moved: now,
            sipped: now,
            channels,
            sets,
            next_channel: 0,
            next_publisher: 0,
            publishers: std::array::from_fn(|_| Publisher::default()),
            subscribers: Vec::with_capacity(subscribers),
            opening: 0,
            readers: 0,
            tally: Tally::default(),
            gone: 0,
            written_off: 0,
            // From a microsecond to a minute, to three digits.
            latency: Histogram::new_with_bounds(1_000, 60_000_000_000, 3).map_err(io::Error::other)?,
            last_event_id: String::new(),
            known: 0,
            catch_up: 0,
            storm: 0,
            whole: 0,
            last_whole: now,
        })
    }

    /// Bounds what the kernel holds for each subscriber that does not read; otherwise it may grow
    /// to many megabytes.
    pub fn bound_receive_buffers(&mut self, bytes: usize) {
        self.receive_buffer = Some(bytes);
    }

    /// From now on, subscribers ask for these sets of channels in turn, and not for one channel each.
    pub fn subscribe_to(&mut self, sets: impl Iterator<Item = Vec<usize>>) {
        self.sets = sets.map(Set::new).collect();
    }

    /// From now on, subscribers connect to this server, and what is published at the other one must reach them.
    pub fn subscribe_at(&mut self, server: SocketAddrV4) {
        self.subscribe_at = server;
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What the readers lack or have twice; call it after [`Load::drain`].
    pub fn losses(&self) -> Losses {
        self.losses_of(Role::Reader)
    }

    /// The same of those who came back.
    pub fn losses_of_returning(&self) -> Losses {
        self.losses_of(Role::Returning)
    }

    fn losses_of(&self, role: Role) -> Losses {
        let mut losses = Losses::default();
        for one in self.subscribers.iter().filter(|one| one.role == role) {
            let published = match one.phase {
                Phase::Closed(published) => published,
                _ => self.sets[one.set].sent(&self.channels),
            };
            let expected = published - one.skipped;
            losses.lost += expected.saturating_sub(one.received);
            losses.repeated += one.repeated + one.received.saturating_sub(expected);
            losses.ended += u64::from(matches!(one.phase, Phase::Closed(_)));
        }
        losses
    }

    /// The latencies since the last call, in nanoseconds from publish to receipt.
    pub fn take_latency(&mut self) -> Histogram<u64> {
        let taken = self.latency.clone();
        self.latency.reset();
        taken
    }

    pub fn offer(&mut self, offer: Offer) {
        self.offer = offer;
        self.due = Instant::now();
        self.moved = self.due;
    }

    /// Lets things happen for this long.
    pub fn run(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(end)?;
        }
        if matches!(self.offer, Offer::FlatOut) {
            // What has arrived by now counts, whenever the last sweep was.
            self.sweep()?;
        }
        Ok(())
    }

    /// Publishes nothing more and waits until what is on the way has arrived, or a second goes by
    /// in which nothing does.
    pub fn drain(&mut self) -> io::Result<()> {
        self.offer = Offer::Nothing;
        self.written_off = 0;
        let end = Instant::now() + Duration::from_secs(20);
        let (mut seen, mut since) = (self.tally.delivered, Instant::now());
        while Instant::now() < end {
            let unanswered: u64 = self.publishers.iter().map(|publisher| publisher.unanswered).sum();
            if unanswered == 0 && self.on_the_way() == 0 {
                break;
            }
            self.turn(Instant::now() + Duration::from_millis(10))?;
            if self.tally.delivered != seen {
                (seen, since) = (self.tally.delivered, Instant::now());
            } else if since.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
        Ok(())
    }

    /// Publishes one event, and lets it arrive.
    pub fn publish_one(&mut self) -> io::Result<()> {
        self.send(0);
        self.flush(0)?;
        self.drain()
    }

    /// Subscribes `count` readers, spread evenly over the sets of channels, and waits until each has its
    /// answer's head.
    pub fn subscribe(&mut self, count: usize) -> io::Result<()> {
        self.open_subscribers(Role::Reader, count)
    }

    /// Subscribes `count` who read nothing of what follows.
    pub fn subscribe_stalled(&mut self, count: usize) -> io::Result<()> {
        self.open_subscribers(Role::Stalled, count)
    }

    /// Subscribes `count` who read a little at a time.
    pub fn subscribe_slow(&mut self, count: usize) -> io::Result<()> {
        self.open_subscribers(Role::Slow, count)
    }

    fn open_subscribers(&mut self, role: Role, count: usize) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        let mut opened = 0;
        while opened < count || self.opening > 0 {
            for _ in 0..OPENED_PER_TURN {
                if opened < count && self.opening < OPENING {
                    self.open_subscriber(role, opened % self.sets.len())?;
                    opened += 1;
                }
            }
            self.turn(Instant::now() + Duration::from_millis(10))?;
            if Instant::now() > end {
                return Err(io::Error::other(format!("{} of {count} subscriptions had no answer", self.opening)));
            }
        }
        // Some servers answer before they have told every one of their threads about the
        // subscriber.
        self.run(Duration::from_millis(300))
    }

    /// Opens `count` connections at once that come back with `last_event_id` and lack `catch_up`
    /// events each, while publishing goes on as offered. Returns the time until the last of them
    /// was whole, that is, had all that was published before they came; nothing, if one of them
    /// never was.
    pub fn come_back(&mut self, count: usize, last_event_id: &str, catch_up: u64) -> io::Result<Option<Duration>> {
        self.last_event_id = last_event_id.to_owned();
        self.known = self.channels[0].sent - catch_up;
        self.catch_up = catch_up;
        self.storm = self.epoch.elapsed().as_nanos() as u64;
        let begin = Instant::now();
        let mut opened = 0;
        while opened < count || self.whole < count {
            for _ in 0..OPENED_PER_TURN {
                if opened < count {
                    self.open_subscriber(Role::Returning, 0)?;
                    opened += 1;
                }
            }
            let patience = if opened < count { Duration::ZERO } else { Duration::from_millis(10) };
            self.turn(Instant::now() + patience)?;
            if begin.elapsed() > Duration::from_secs(30) {
                return Ok(None);
            }
        }
        Ok(Some(self.last_whole - begin))
    }

    /// The stalled ones read again, to the end of what there is. Returns how many the server had
    /// cut off.
    pub fn wake_stalled(&mut self) -> io::Result<usize> {
        let mut cut_off = 0;
        for subscriber in self.subscribers.iter_mut().filter(|one| one.role == Role::Stalled) {
            loop {
                match subscriber.socket.read(&mut self.buffer) {
                    Ok(0) => break cut_off += 1,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => break cut_off += 1,
                }
            }
        }
        Ok(cut_off)
    }

    /// Does what there is to do, or waits for it until `end`.
    fn turn(&mut self, end: Instant) -> io::Result<()> {
        match self.offer {
            Offer::Nothing | Offer::Paced(_) | Offer::Burst(_) => {
                self.sip();
                let wake = self.publish_due()?.unwrap_or(end).min(end);
                let pause = PAUSE_PER_READER * (self.readers / self.channels.len() as u64) as u32;
                if pause > Duration::from_micros(100) {
                    thread::sleep(pause.min(wake.saturating_duration_since(Instant::now())));
                }
                self.serve_publishers(Duration::ZERO)?;
                self.serve_subscribers(wake.saturating_duration_since(Instant::now()))?;
            }
            Offer::FlatOut => {
                self.publish_all_there_is_room_for()?;
                let now = Instant::now();
                let sweep = self.swept + (SWEEP_PER_READER * self.readers as u32).min(SWEEP_AT_MOST);
                if now < sweep {
                    return self.serve_publishers(sweep.min(end) - now);
                }
                self.serve_publishers(Duration::ZERO)?;
                self.sweep()?;
            }
        }
        Ok(())
    }

    fn sip(&mut self) {
        if self.sipped.elapsed() < SIP_INTERVAL {
            return;
        }
        self.sipped = Instant::now();
        let is_slow = |one: &&mut Subscriber| one.role == Role::Slow && matches!(one.phase, Phase::Open);
        for slow in self.subscribers.iter_mut().filter(is_slow) {
            // Whether there was something makes no difference.
            let _ = slow.socket.read(&mut self.buffer[..SIP]);
        }
    }

    /// Reads, while flat out, what has arrived at all subscribers.
    fn sweep(&mut self) -> io::Result<()> {
        self.swept = Instant::now();
        // Each sweep takes every subscriber once, not those again that have something new by then.
        for _ in 0..self.readers.div_ceil(self.ready.capacity() as u64) {
            if !self.serve_subscribers(Duration::ZERO)? {
                break;
            }
            self.moved = self.swept;
        }
        // The last events on the way may have been dropped by the server. If nothing at all moves
        // for a while, they are written off and publishing goes on.
        if self.swept - self.moved > Duration::from_millis(500) {
            self.written_off += self.on_the_way();
        }
        Ok(())
    }

    /// Reads from subscribers that have something, and says whether there was one.
    fn serve_subscribers(&mut self, wait: Duration) -> io::Result<bool> {
        let mut ready = std::mem::take(&mut self.ready);
        self.subscribers_poll.wait(&mut ready, wait)?;
        for event in &ready {
            let (number, _) = net::unpack(event);
            self.serve_subscriber(number as usize)?;
        }
        self.ready = ready;
        Ok(!self.ready.is_empty())
    }

    fn serve_publishers(&mut self, wait: Duration) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.publishers_poll.wait(&mut ready, wait)?;
        for event in &ready {
            let (number, writable) = net::unpack(event);
            self.serve_publisher(number as usize, writable)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn on_the_way(&self) -> u64 {
        self.tally.expected.saturating_sub(self.tally.delivered + self.gone + self.written_off)
    }

    /// Publishes what is due by now, and says when the next event will be.
    fn publish_due(&mut self) -> io::Result<Option<Instant>> {
        let (interval, at_once) = match self.offer {
            Offer::Paced(interval) => (interval, 1),
            Offer::Burst(interval) => (interval, self.channels.len()),
            Offer::Nothing | Offer::FlatOut => return Ok(None),
        };
        while self.due <= Instant::now() {
            for _ in 0..at_once {
                self.send(self.next_publisher);
                self.next_publisher = (self.next_publisher + 1) % PUBLISHERS;
            }
            (0..PUBLISHERS).try_for_each(|publisher| self.flush(publisher))?;
            self.due += interval;
        }
        Ok(Some(self.due))
    }

    /// Fills the publishers' windows.
    fn publish_all_there_is_room_for(&mut self) -> io::Result<()> {
        let room = (IN_FLIGHT * self.readers).min(IN_FLIGHT_TOTAL);
        for publisher in 0..self.publishers.len() {
            while self.publishers[publisher].unanswered < UNANSWERED && self.on_the_way() < room {
                self.send(publisher);
            }
            self.flush(publisher)?;
        }
        Ok(())
    }

    /// Puts a POST to the next channel in a publisher's outbox.
    fn send(&mut self, publisher: usize) {
        let channel = &mut self.channels[self.next_channel];
        wire::stamp(&mut channel.request, self.epoch.elapsed().as_nanos() as u64);
        channel.sent += 1;
        self.tally.expected += channel.readers;
        let publisher = &mut self.publishers[publisher];
        publisher.outbox.extend_from_slice(&channel.request);
        publisher.unanswered += 1;
        self.next_channel = (self.next_channel + 1) % self.channels.len();
    }

    fn flush(&mut self, number: usize) -> io::Result<()> {
        let publisher = &mut self.publishers[number];
        if publisher.outbox.is_empty() {
            return Ok(());
        }
        let socket = match &mut publisher.socket {
            Some(socket) => socket,
            none => {
                // Blocking is fine here: it is the first event, or the server has just ended a
                // connection.
                let socket = TcpStream::connect(self.server)?;
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                self.publishers_poll.add(&socket, number as u64, false)?;
                none.insert(socket)
            }
        };
        match socket.write(&publisher.outbox) {
            Ok(written) => {
                publisher.outbox.drain(..written);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                self.end_publisher(number);
                return Ok(());
            }
        }
        if !publisher.outbox.is_empty() {
            self.publishers_poll.modify(socket, number as u64, true)?;
        }
        Ok(())
    }

    fn serve_publisher(&mut self, number: usize, writable: bool) -> io::Result<()> {
        let publisher = &mut self.publishers[number];
        let Some(socket) = &mut publisher.socket else {
            return Ok(());
        };
        match socket.read(&mut self.buffer) {
            Ok(0) => {
                self.end_publisher(number);
                return Ok(());
            }
            Ok(length) => publisher.inbox.extend_from_slice(&self.buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                self.end_publisher(number);
                return Ok(());
            }
        }
        if writable {
            self.publishers_poll.modify(socket, number as u64, false)?;
        }
        let mut used = 0;
        while let Some((length, status)) = wire::answer(&publisher.inbox[used..])? {
            used += length;
            publisher.unanswered = publisher.unanswered.saturating_sub(1);
            // A refused event is lost to a measurement, and to more of them, so it ends it.
            if !(200..300).contains(&status) {
                return Err(io::Error::other(format!("a POST was answered {status}")));
            }
        }
        publisher.inbox.drain(..used);
        self.flush(number)
    }

    fn end_publisher(&mut self, number: usize) {
        self.tally.refused += self.publishers[number].unanswered;
        self.publishers[number] = Publisher::default();
    }

    fn open_subscriber(&mut self, role: Role, set: usize) -> io::Result<()> {
        let mut socket = net::connect(self.subscribe_at, &mut self.sources, self.receive_buffer)?;
        let resume = (role == Role::Returning).then_some(self.last_event_id.as_str());
        let request = wire::subscribe(self.subscribe_at, &self.sets[set].path, resume);
        // On loopback a connection is nearly always there by now, and the request goes straight
        // out.
        let phase = match socket.write(request.as_bytes()) {
            Ok(length) if length == request.len() => Phase::Head(Vec::new()),
            Ok(_) => return Err(io::Error::other("a new socket without room for a request")),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                Phase::Connecting(request)
            }
            Err(error) => return Err(error),
        };
        let token = self.subscribers.len() as u64;
        self.subscribers_poll.add(&socket, token, matches!(phase, Phase::Connecting(_)))?;
        self.subscribers.push(Subscriber {
            socket,
            phase,
            role,
            set,
            // A reader's is set when its answer has come.
            skipped: self.known,
            received: 0,
            newest: 0,
            missed: 0,
            repeated: 0,
            stamps: Stamps::default(),
        });
        self.opening += 1;
        Ok(())
    }

    fn serve_subscriber(&mut self, number: usize) -> io::Result<()> {
        let subscriber = &mut self.subscribers[number];
        match &subscriber.phase {
            Phase::Connecting(request) => {
                subscriber.socket.write_all(request.as_bytes())?;
                subscriber.phase = Phase::Head(Vec::new());
                return self.subscribers_poll.modify(&subscriber.socket, number as u64, false);
            }
            Phase::Closed(_) => return Ok(()),
            Phase::Head(_) | Phase::Open => {}
        }
        let length = match subscriber.socket.read(&mut self.buffer) {
            Ok(0) => return self.end_subscriber(number),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return self.end_subscriber(number),
        };
        let mut bytes = &self.buffer[..length];
        let joined;
        if let Phase::Head(head) = &mut subscriber.phase {
            head.extend_from_slice(bytes);
            let Some(answer) = wire::head(head)? else {
                return Ok(());
            };
            if answer.status != 200 {
                return Err(io::Error::other(format!("a subscription was answered {}", answer.status)));
            }
            joined = head.split_off(answer.length);
            bytes = &joined;
            subscriber.phase = Phase::Open;
            self.opening -= 1;
            match subscriber.role {
                Role::Reader => {
                    // What was published before is not expected of it.
                    let set = &self.sets[subscriber.set];
                    subscriber.skipped = set.sent(&self.channels);
                    for channel in &set.channels {
                        self.channels[*channel].readers += 1;
                    }
                    self.readers += 1;
                }
                Role::Returning => {}
                Role::Stalled | Role::Slow => {
                    return self.subscribers_poll.remove(&subscriber.socket);
                }
            }
        }
        match subscriber.role {
            Role::Reader => {
                let arrived = if matches!(self.offer, Offer::FlatOut) {
                    wire::count(bytes)
                } else {
                    let now = self.epoch.elapsed().as_nanos() as u64;
                    let latency = &mut self.latency;
                    subscriber.stamps.read(bytes, |sent| latency.saturating_record(now.saturating_sub(sent)))
                };
                subscriber.received += arrived;
                self.tally.delivered += arrived;
            }
            Role::Returning => {
                let before = subscriber.missed;
                // Events are far apart here, so that stamps grow from each to the next. What comes
                // after a later one counts as repeated, and as lost.
                subscriber.stamps.read(bytes, |sent| {
                    if sent > subscriber.newest {
                        subscriber.newest = sent;
                        subscriber.received += 1;
                        subscriber.missed += u64::from(sent < self.storm);
                    } else {
                        subscriber.repeated += 1;
                    }
                });
                if before < self.catch_up && subscriber.missed >= self.catch_up {
                    self.whole += 1;
                    self.last_whole = Instant::now();
                }
            }
            Role::Stalled | Role::Slow => {}
        }
        Ok(())
    }

    /// The server has ended a subscription. What this one lacks will not come.
    fn end_subscriber(&mut self, number: usize) -> io::Result<()> {
        let subscriber = &mut self.subscribers[number];
        self.subscribers_poll.remove(&subscriber.socket)?;
        if matches!(subscriber.phase, Phase::Head(_)) && subscriber.role != Role::Returning {
            return Err(io::Error::other("a subscription was ended before its answer"));
        }
        let set = &self.sets[subscriber.set];
        let sent = set.sent(&self.channels);
        subscriber.phase = Phase::Closed(sent);
        if subscriber.role == Role::Reader {
            for channel in &set.channels {
                self.channels[*channel].readers -= 1;
            }
            self.readers -= 1;
            self.gone += (sent - subscriber.skipped).saturating_sub(subscriber.received);
        }
        Ok(())
    }
}
