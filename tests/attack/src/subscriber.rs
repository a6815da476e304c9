//! Clients that subscribe, each with a habit of its own.

use crate::client::{Event, Reading, Subscribed, Subscription};
use crate::oracle::{Log, Seen};
use crate::payload::{Id, Payload};
use crate::stage::{Channel, Phase, Stage, count, pause};
use fastrand::Rng;
use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How a subscriber behaves.
pub struct Habit {
    name: &'static str,
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

pub const HABITS: [Habit; 8] = [
    STEADY,
    Habit { name: "restless", stays_ms: 1..40, away_ms: 1..30, ..STEADY },
    Habit { name: "cutting", stays_ms: 50..1_500, away_ms: 1..400, ..STEADY },
    Habit { name: "away for long", stays_ms: 200..1_000, away_ms: 500..3_000, ..STEADY },
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
    Habit { name: "half closed", stays_ms: 300..3_000, half_closes: true, ..STEADY },
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
pub struct Subscriber<'s> {
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
            log: Log { name, ..Log::default() },
            last_event_id: habit.from_earliest.then(|| "earliest".to_owned()),
            asked: None,
            asked_at: Id::earliest_of(Instant::now()),
            homeward: None,
        }
    }

    pub fn run(mut self) -> Log {
        loop {
            // Asked before the stream is: a 204 after this is the end.
            let is_home = self.is_home();
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
            if !self.is_home() {
                pause(&mut self.random, self.habit.away_ms.clone());
            }
        }
    }

    fn is_home(&self) -> bool {
        self.stage.phase() == Phase::Home
    }

    /// Whether it should have come home by now.
    fn is_late(&mut self) -> bool {
        let now = Instant::now();
        self.is_home() && now > *self.homeward.get_or_insert(now + HOMEWARD)
    }

    /// What was kept is looked up no later than when the first of it comes.
    fn note_earliest(&mut self) {
        if self.asked.as_deref() == Some("earliest") {
            let between = Seen::Earliest(self.asked_at, Id::latest_now());
            self.log.seen.push(between);
        }
    }

    fn open(&mut self) -> io::Result<Subscribed> {
        if self.habit.from_earliest && !self.is_home() && self.random.bool() {
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
        if let Subscribed::Streaming(_) = &opened {
            count(&self.stage.tallies.subscriptions);
            match self.asked {
                Some(_) => count(&self.stage.tallies.resumed),
                // From here on it misses nothing.
                None => self.log.seen.push(Seen::Began(Instant::now())),
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
            let is_due =
                |at: Option<Instant>| !self.is_home() && at.is_some_and(|at| Instant::now() > at);
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
            let until = [cut_at, stall_at].into_iter().flatten().fold(soon, Instant::min);
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
                    self.stage.report.violation(format!("{}: silence on a stream", self.log.name));
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
                let asked =
                    format!("{{\"asked\":\"{}\",", self.asked.as_deref().unwrap_or_default());
                if !is_first || !event.data.as_deref().unwrap_or_default().starts_with(&asked) {
                    strange("a gap of another kind");
                }
                self.log.seen.push(Seen::Gap);
            }
            (Some("end"), None) => self.log.seen.push(Seen::End),
            (_, Some(id)) => match (Id::read(id), Payload::of(&event)) {
                (Some(number), Some(payload)) => {
                    self.log.seen.push(Seen::Event(number, payload));
                    self.last_event_id = Some(id.clone());
                }
                _ => strange("not as it was published"),
            },
            _ => strange("an event of no kind"),
        }
    }
}
