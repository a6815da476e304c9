//! Publishers and subscribers of some channels, each with habits of its own; what they did and saw
//! is for the oracle.

use crate::client::{Caller, Event, Reading, Subscribed, Subscription};
use crate::oracle::{Fate, Findings, Log, Seen, Sent, judge};
use crate::payload::{Id, Payload};
use crate::report::Report;
use fastrand::Rng;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

pub struct Channel {
    pub name: String,
    pub sent: Sent,
}

impl Channel {
    pub fn new(name: String) -> Channel {
        Channel {
            name,
            sent: Sent::default(),
        }
    }

    fn target(&self, query: &str) -> String {
        format!("/channels/{}{query}", self.name)
    }
}

/// What everyone on it shares.
pub struct Stage<'r> {
    pub address: SocketAddr,
    pub report: &'r Report,
    pub tallies: &'r Tallies,
    /// The server is killed now and then, so that a broken connection is nobody's fault.
    pub restarts: bool,
    phase: AtomicU8,
}

/// At each channel.
const PUBLISHERS: u32 = 2;

const PLAY: u8 = 0;
const QUIET: u8 = 1;
const HOME: u8 = 2;

/// How often what was done.
#[derive(Default)]
pub struct Tallies {
    pub published: AtomicU64,
    pub lines: AtomicU64,
    pub uploads_cut: AtomicU64,
    pub refused: AtomicU64,
    pub completed: AtomicU64,
    pub subscriptions: AtomicU64,
    pub resumed: AtomicU64,
    pub cut: AtomicU64,
    pub stalled: AtomicU64,
    pub ended_by_server: AtomicU64,
    pub finished: AtomicU64,
}

impl Tallies {
    pub fn tell(&self, report: &Report) {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        for (what, counter) in [
            ("requests that published one event", &self.published),
            ("lines published by ?lines", &self.lines),
            ("uploads cut in the middle", &self.uploads_cut),
            (
                "publications that had to be refused, and were",
                &self.refused,
            ),
            ("completions while others published", &self.completed),
            ("streams opened", &self.subscriptions),
            ("of them with a last event id", &self.resumed),
            ("streams cut by their client", &self.cut),
            ("times a client stopped reading", &self.stalled),
            ("streams ended by the server early", &self.ended_by_server),
            ("times told 204", &self.finished),
        ] {
            report.row(what, of(counter));
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

fn pause(random: &mut Rng, ms: Range<u64>) {
    thread::sleep(Duration::from_millis(random.u64(ms)));
}

impl<'r> Stage<'r> {
    pub fn new(
        address: SocketAddr,
        restarts: bool,
        report: &'r Report,
        tallies: &'r Tallies,
    ) -> Stage<'r> {
        Stage {
            address,
            report,
            tallies,
            restarts,
            phase: AtomicU8::new(PLAY),
        }
    }

    /// At every channel publishers, and a subscriber of each habit, while `meanwhile` lasts. Then
    /// the publishers stop, the channels are completed, and everyone reads on to the end and comes
    /// back until told 204. What the oracle makes of it.
    pub fn play(
        &self,
        channels: &[Channel],
        random: &mut Rng,
        meanwhile: impl FnOnce(&mut Rng),
    ) -> Findings {
        let mut found = Findings::default();
        thread::scope(|scope| {
            let (mut publishers, mut subscribers) = (Vec::new(), Vec::<Vec<_>>::new());
            for channel in channels {
                for number in 0..PUBLISHERS {
                    let publisher = Publisher::new(self, channel, number, random.u64(..));
                    publishers.push(scope.spawn(move || publisher.run()));
                }
                let start = |habit| {
                    let subscriber = Subscriber::new(self, channel, habit, random.u64(..));
                    scope.spawn(move || subscriber.run())
                };
                subscribers.push(HABITS.iter().map(start).collect());
            }
            meanwhile(random);
            self.phase.store(QUIET, Relaxed);
            for publisher in publishers {
                self.report
                    .expect(publisher.join().is_ok(), "a publisher panicked");
            }
            for channel in channels {
                if self.restarts {
                    // Without it, what a client saw last may lie in a life before this one.
                    Publisher::new(self, channel, PUBLISHERS, random.u64(..)).publish_last();
                }
                self.complete(channel);
            }
            self.phase.store(HOME, Relaxed);
            for (channel, subscribers) in channels.iter().zip(subscribers) {
                let logs: Vec<_> = subscribers
                    .into_iter()
                    .filter_map(|one| one.join().ok())
                    .collect();
                self.report
                    .expect(logs.len() == HABITS.len(), "a subscriber panicked");
                found.add(judge(&channel.name, &channel.sent, &logs, !self.restarts));
            }
        });
        found
    }

    fn is_home(&self) -> bool {
        self.phase.load(Relaxed) == HOME
    }

    /// Completes a channel, however often the server must be asked.
    fn complete(&self, channel: &Channel) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let answer = Caller::new(self.address).request("DELETE", &channel.target(""), b"");
            if matches!(&answer, Ok(answer) if answer.status == 204) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.report
            .violation(format!("{} could not be completed", channel.name));
    }

    /// Is told what a connection broke from, and judges whether it may have.
    fn excuse(&self, what: &str, error: &io::Error) {
        if !self.restarts || error.kind() == ErrorKind::InvalidData {
            self.report.violation(format!("{what}: {error}"));
        }
    }
}

/// Publishes in all the ways there are, one after the other, so that its events have an order.
struct Publisher<'s> {
    pub stage: &'s Stage<'s>,
    pub channel: &'s Channel,
    pub number: u32,
    next: u32,
    random: Rng,
    caller: Caller,
}

impl<'s> Publisher<'s> {
    pub fn new(
        stage: &'s Stage<'s>,
        channel: &'s Channel,
        number: u32,
        seed: u64,
    ) -> Publisher<'s> {
        Publisher {
            stage,
            channel,
            number,
            next: 0,
            random: Rng::with_seed(seed),
            caller: Caller::new(stage.address),
        }
    }

    pub fn run(mut self) {
        while self.stage.phase.load(Relaxed) == PLAY {
            match self.random.u32(..100) {
                0..60 => self.publish(1..200, 1),
                60..70 => self.publish(1..2_000, 10),
                70..74 => self.publish(4_000..60_000, 1),
                74..88 => {
                    let count = self.random.u32(1..60);
                    self.publish_lines(count, false);
                }
                // More than the channel keeps, as fast as it goes.
                88..90 => {
                    let count = self.random.u32(600..1_500);
                    self.publish_lines(count, false);
                }
                90..94 => {
                    let count = self.random.u32(1..200);
                    self.publish_lines(count, true);
                }
                94 => self.publish_what_is_refused(415, b"not \xff text"),
                95 => self.publish_what_is_refused(413, &vec![b'x'; 400_000]),
                96 => self.publish_what_is_refused(413, &vec![b'x'; 600_000]),
                97 => self.complete(),
                _ => self.caller.hang_up(),
            }
            pause(&mut self.random, 0..25);
        }
    }

    /// One event that everyone must get, at the end.
    fn publish_last(mut self) {
        let before = self.channel.sent.count();
        for _ in 0..100 {
            self.publish(1..100, 1);
            if self.channel.sent.count() > before {
                return;
            }
        }
        self.stage
            .report
            .violation("nothing can be published any more");
    }

    fn payload(&mut self) -> Payload {
        self.next += 1;
        Payload {
            publisher: self.number,
            number: self.next,
        }
    }

    fn publish(&mut self, bytes: Range<usize>, lines: usize) {
        let payload = self.payload();
        let text = payload.write(self.random.usize(bytes), self.random.usize(1..=lines));
        let method = if self.random.bool() { "POST" } else { "PUT" };
        let query = if self.random.u32(..4) == 0 {
            "?event=weather"
        } else {
            ""
        };
        let started = Instant::now();
        let target = self.channel.target(query);
        let answer = self.caller.request(method, &target, text.as_bytes());
        if matches!(&answer, Ok(answer) if answer.status == 200) {
            count(&self.stage.tallies.published);
        }
        self.note(
            vec![payload],
            text.len() + FRAME,
            started,
            answer.map(|answer| (answer.status, answer.text().to_owned())),
        );
    }

    /// Lines in one request, whole or cut in the middle.
    fn publish_lines(&mut self, lines: u32, cut: bool) {
        let mut payloads: Vec<_> = (0..lines).map(|_| self.payload()).collect();
        let bytes = self.random.usize(1..200);
        let mut text = String::new();
        for payload in &payloads {
            text += &payload.write(bytes, 1);
            text += if self.random.bool() { "\n" } else { "\r\n" };
        }
        let started = Instant::now();
        let mut cut_at = text.len();
        if cut {
            cut_at = self.random.usize(..text.len());
            // What had not arrived whole is nothing.
            payloads.truncate(text[..cut_at].matches('\n').count());
        }
        let answer = self.upload(text.as_bytes(), cut_at);
        let tallies = &self.stage.tallies;
        match &answer {
            Ok((400, _)) if cut => {
                count(&tallies.uploads_cut);
                let sent = &self.channel.sent;
                return sent.note(payloads, bytes + FRAME, started, Fate::Read);
            }
            Ok((200, text)) => {
                tallies.lines.fetch_add(u64::from(lines), Relaxed);
                let count = format!("\"count\":{lines},");
                self.stage.report.expect(
                    text.contains(&count) && !cut,
                    format!("{lines} lines, cut: {cut}, and it says {text}"),
                );
            }
            _ => {}
        }
        self.note(payloads, bytes + FRAME, started, answer);
    }

    /// Chunked or not, at once or in pieces.
    fn upload(&mut self, text: &[u8], cut_at: usize) -> io::Result<(u16, String)> {
        let chunked = self.random.bool();
        let piece = if self.random.bool() {
            text.len()
        } else {
            self.random.usize(1..4_000)
        };
        let slowly = self.random.u32(..4) == 0;
        let framing = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", text.len())
        };
        let target = self.channel.target("?lines");
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
        let socket = self.caller.begin()?;
        socket.write_all(head.as_bytes())?;
        for piece in text[..cut_at].chunks(piece) {
            if chunked {
                let size = format!("{:x}\r\n", piece.len());
                socket.write_all(&[size.as_bytes(), piece, b"\r\n"].concat())?;
            } else {
                socket.write_all(piece)?;
            }
            if slowly {
                pause(&mut self.random, 0..4);
            }
        }
        if cut_at < text.len() {
            // The answer to half of it comes when nothing more will be published of it.
            socket.shutdown(Shutdown::Write)?;
        } else if chunked {
            socket.write_all(b"0\r\n\r\n")?;
        }
        let answer = self.caller.answer()?;
        Ok((answer.status, answer.text().to_owned()))
    }

    fn note(
        &mut self,
        payloads: Vec<Payload>,
        most_bytes: usize,
        started: Instant,
        answer: io::Result<(u16, String)>,
    ) {
        let fate = match answer {
            Ok((200, text)) => {
                let id = text
                    .split_once("\"id\":\"")
                    .and_then(|(_, rest)| rest.split('"').next());
                match id.and_then(Id::read) {
                    Some(id) => Fate::Published(id),
                    None => {
                        let what = format!("published, and it says {text}");
                        return self.stage.report.violation(what);
                    }
                }
            }
            Ok((status, text)) => {
                let what = format!("publishing is answered {status}: {text}");
                self.stage.report.violation(what);
                Fate::Unknown
            }
            Err(error) => {
                self.caller.hang_up();
                self.stage.excuse("publishing", &error);
                Fate::Unknown
            }
        };
        let sent = &self.channel.sent;
        sent.note(payloads, most_bytes, started, fate);
        if fate == Fate::Unknown {
            pause(&mut self.random, 1..20);
        }
    }

    fn publish_what_is_refused(&mut self, status: u16, content: &[u8]) {
        match self
            .caller
            .request("POST", &self.channel.target(""), content)
        {
            // A server that will not read the rest of the content must say that it closes: what is
            // published next on a connection it seemed to keep would be lost.
            Ok(answer) if answer.status == status => {
                count(&self.stage.tallies.refused);
                if self.caller.is_kept() && self.caller.get("/healthz").is_err() {
                    self.caller.hang_up();
                    if !self.stage.restarts {
                        let what = format!(
                            "after a {status} that did not say so the connection was closed"
                        );
                        self.stage.report.violation(what);
                    }
                }
            }
            Ok(answer) => self
                .stage
                .report
                .violation(format!("{} in place of {status}", answer.status)),
            // A content too large to read is answered before it is read, and the answer may be lost.
            Err(_) if status == 413 => self.caller.hang_up(),
            Err(error) => {
                self.caller.hang_up();
                self.stage.excuse("publishing what must be refused", &error);
            }
        }
    }

    fn complete(&mut self) {
        match self.caller.request("DELETE", &self.channel.target(""), b"") {
            // Nobody has opened it yet.
            Ok(answer) if answer.status == 404 => {}
            Ok(answer) if answer.status == 204 => count(&self.stage.tallies.completed),
            Ok(answer) => self
                .stage
                .report
                .violation(format!("completing is answered {}", answer.status)),
            Err(error) => {
                self.caller.hang_up();
                self.stage.excuse("completing", &error);
            }
        }
    }
}

/// More than an event has on the wire beside its text: an id, a type, a name before each line; and
/// before the filler of a line that is one event, its number and the like.
const FRAME: usize = 180;

/// How a subscriber behaves.
struct Habit {
    pub name: &'static str,
    /// How long it stays before it cuts its connection; for good if empty.
    stays_ms: Range<u64>,
    away_ms: Range<u64>,
    /// How long it reads before it stops for a while; always if empty.
    reads_ms: Range<u64>,
    stalls_ms: Range<u64>,
    /// Its socket's receive buffer, and the most it takes in one read.
    room: usize,
    piece: usize,
    half_closes: bool,
    from_earliest: bool,
}

const STEADY: Habit = Habit {
    name: "steady",
    stays_ms: 0..0,
    away_ms: 1..50,
    reads_ms: 0..0,
    stalls_ms: 0..0,
    room: 0,
    piece: 16 * 1024,
    half_closes: false,
    from_earliest: false,
};

const HABITS: [Habit; 8] = [
    STEADY,
    Habit {
        name: "restless",
        stays_ms: 1..40,
        away_ms: 1..30,
        ..STEADY
    },
    Habit {
        name: "cutting",
        stays_ms: 50..1_500,
        away_ms: 1..400,
        ..STEADY
    },
    Habit {
        name: "away for long",
        stays_ms: 200..1_000,
        away_ms: 500..3_000,
        ..STEADY
    },
    Habit {
        name: "stalling",
        reads_ms: 100..1_000,
        stalls_ms: 200..3_000,
        room: 8 * 1024,
        ..STEADY
    },
    Habit {
        name: "stalling and cutting",
        stays_ms: 100..4_000,
        reads_ms: 10..300,
        stalls_ms: 50..2_000,
        room: 4 * 1024,
        piece: 700,
        ..STEADY
    },
    Habit {
        name: "half closed",
        stays_ms: 300..3_000,
        half_closes: true,
        ..STEADY
    },
    Habit {
        name: "from the earliest",
        stays_ms: 500..4_000,
        from_earliest: true,
        piece: 97,
        ..STEADY
    },
];

/// How long a client may need to come home.
const HOMEWARD: Duration = Duration::from_secs(120);

/// How long a stream may be silent, with a heartbeat each second.
const SILENCE: Duration = Duration::from_secs(30);

/// One client, from its first subscription to the 204 at the very end.
struct Subscriber<'s> {
    stage: &'s Stage<'s>,
    channel: &'s Channel,
    habit: &'s Habit,
    random: Rng,
    log: Log,
    last_event_id: Option<String>,
    /// What it named when it opened the stream.
    asked: Option<String>,
    asked_at: Id,
    homeward: Option<Instant>,
}

impl<'s> Subscriber<'s> {
    pub fn new(
        stage: &'s Stage<'s>,
        channel: &'s Channel,
        habit: &'s Habit,
        seed: u64,
    ) -> Subscriber<'s> {
        let name = format!("the {} one", habit.name);
        Subscriber {
            stage,
            channel,
            habit,
            random: Rng::with_seed(seed),
            log: Log {
                name,
                ..Log::default()
            },
            last_event_id: habit.from_earliest.then(|| "earliest".to_owned()),
            asked: None,
            asked_at: Id::earliest_of(Instant::now()),
            homeward: None,
        }
    }

    pub fn run(mut self) -> Log {
        loop {
            // Asked before the stream is: a 204 after this is the end.
            let is_home = self.stage.is_home();
            if self.is_late() {
                return self.log;
            }
            match self.open() {
                Ok(Subscribed::Streaming(stream)) => {
                    if let Err(error) = self.listen(stream) {
                        self.stage.excuse("a stream", &error);
                    }
                }
                Ok(Subscribed::Refused) => {
                    let what = format!("{} is refused a place", self.log.name);
                    self.stage.report.violation(what);
                }
                Ok(Subscribed::Finished) => {
                    count(&self.stage.tallies.finished);
                    self.note_earliest();
                    self.log.seen.push(Seen::Finished);
                    if is_home {
                        self.log.finished = true;
                        return self.log;
                    }
                    pause(&mut self.random, 1..200);
                }
                Err(error) => {
                    self.stage.excuse("subscribing", &error);
                    pause(&mut self.random, 1..30);
                }
            }
            if !self.stage.is_home() {
                pause(&mut self.random, self.habit.away_ms.clone());
            }
        }
    }

    /// Whether it should have come home by now.
    fn is_late(&mut self) -> bool {
        let now = Instant::now();
        self.stage.is_home() && now > *self.homeward.get_or_insert(now + HOMEWARD)
    }

    /// What was kept is looked up no later than when the first of it comes.
    fn note_earliest(&mut self) {
        if self.asked.as_deref() == Some("earliest") {
            let between = Seen::Earliest(self.asked_at, Id::latest_now());
            self.log.seen.push(between);
        }
    }

    fn open(&mut self) -> io::Result<Subscribed> {
        if self.habit.from_earliest && !self.stage.is_home() && self.random.bool() {
            self.last_event_id = Some("earliest".to_owned());
        }
        self.asked = self.last_event_id.clone();
        self.asked_at = Id::earliest_of(Instant::now());
        let in_query = self.random.bool();
        let opened = Subscription::open(
            self.stage.address,
            &self.channel.name,
            self.asked.as_deref(),
            in_query,
            self.habit.room,
        )?;
        if let Subscribed::Streaming(stream) = &opened {
            count(&self.stage.tallies.subscriptions);
            if self.asked.is_some() {
                count(&self.stage.tallies.resumed);
            }
            // With it, it misses nothing from here on; before, it had no way to say what it has.
            if let Some(began) = &stream.began {
                let id = Id::read(began).ok_or(ErrorKind::InvalidData)?;
                self.log.seen.push(Seen::Began(Instant::now(), id));
                self.last_event_id = Some(began.clone());
            }
        }
        Ok(opened)
    }

    fn listen(&mut self, mut stream: Subscription) -> io::Result<()> {
        let at = |random: &mut Rng, ms: &Range<u64>| {
            (!ms.is_empty()).then(|| Instant::now() + Duration::from_millis(random.u64(ms.clone())))
        };
        if self.habit.half_closes {
            stream.socket.shutdown(Shutdown::Write)?;
        }
        let cut_at = at(&mut self.random, &self.habit.stays_ms);
        let mut stall_at = at(&mut self.random, &self.habit.reads_ms);
        let (mut events, mut is_first, mut has_ended) = (Vec::new(), true, false);
        let mut heard = Instant::now();
        while !self.is_late() {
            let is_due = |at: Option<Instant>| {
                !self.stage.is_home() && at.is_some_and(|at| Instant::now() > at)
            };
            if is_due(cut_at) {
                count(&self.stage.tallies.cut);
                if self.random.bool() {
                    let _ = stream.socket.shutdown(Shutdown::Both);
                }
                return Ok(());
            }
            if is_due(stall_at) {
                count(&self.stage.tallies.stalled);
                pause(&mut self.random, self.habit.stalls_ms.clone());
                stall_at = at(&mut self.random, &self.habit.reads_ms);
            }
            let soon = Instant::now() + Duration::from_millis(100);
            let until = [cut_at, stall_at]
                .into_iter()
                .flatten()
                .fold(soon, Instant::min);
            let wait = until.saturating_duration_since(Instant::now());
            let reading = stream.read(wait, self.habit.piece, &mut events)?;
            for event in events.drain(..) {
                let has_ended_before = has_ended;
                has_ended |= event.name.as_deref() == Some("end");
                if is_first {
                    self.note_earliest();
                }
                self.note(event, is_first, has_ended_before);
                is_first = false;
            }
            match reading {
                Reading::Some => heard = Instant::now(),
                Reading::Silence if heard.elapsed() > SILENCE => {
                    self.stage
                        .report
                        .violation(format!("{}: silence on a stream", self.log.name));
                    return Ok(());
                }
                Reading::Silence => {}
                Reading::End => {
                    if !has_ended {
                        count(&self.stage.tallies.ended_by_server);
                        self.log.seen.push(Seen::Broken);
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, event: Event, is_first: bool, has_ended: bool) {
        let strange = |what: &str| {
            let (channel, client) = (&self.channel.name, &self.log.name);
            let event: String = format!("{event:?}").chars().take(200).collect();
            let what = format!("{channel}: {client}: {what}: {event}");
            self.stage.report.violation(what);
        };
        if has_ended {
            strange("an event after the end");
        }
        match (event.name.as_deref(), &event.id) {
            (Some("gap"), None) => {
                let asked = format!(
                    "{{\"asked\":\"{}\",",
                    self.asked.as_deref().unwrap_or_default()
                );
                if !is_first
                    || !event
                        .data
                        .as_deref()
                        .unwrap_or_default()
                        .starts_with(&asked)
                {
                    strange("a gap of another kind");
                }
                self.log.seen.push(Seen::Gap);
            }
            (Some("end"), None) => self.log.seen.push(Seen::End),
            (None | Some("weather"), Some(id)) => {
                let payload = event.data.as_deref().and_then(Payload::read);
                match (Id::read(id), payload) {
                    (Some(number), Some(payload)) => {
                        self.log.seen.push(Seen::Event(number, payload));
                        self.last_event_id = Some(id.clone());
                    }
                    _ => strange("not as it was published"),
                }
            }
            _ => strange("an event of no kind"),
        }
    }
}
