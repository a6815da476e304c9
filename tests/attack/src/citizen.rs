//! The well-behaved client: it subscribes while there is room, asks and publishes on a connection
//! for each request, and expects to be answered, and to hear in time all that it published.

use crate::Outcome;
use crate::client::{Answer, Caller, Event, Reading, Subscribed, Subscription};
use crate::payload::Payload;
use crate::report::Report;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How long a request may take until it has failed.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long nineteen in twenty requests may take: at several times the limit newcomers wait for evictions, and no
/// connection is evicted before half a second without progress. Longer is no service.
const SERVICE: Duration = Duration::from_secs(5);

/// How long a round of three requests may take, one with another: where all have sent a whole head,
/// five times the limit wait four times half a second for each.
const ROUND: Duration = Duration::from_secs(8);

/// How long what is published may take to be heard, once its publication has been answered.
const IN_TIME: Duration = Duration::from_secs(5);

pub struct Citizen<'r> {
    what: &'r str,
    address: SocketAddr,
    report: &'r Report,
    /// When the publication of each number was answered.
    published: Vec<Instant>,
    took: Vec<Duration>,
    answered: usize,
}

impl<'r> Citizen<'r> {
    pub fn new(what: &'r str, address: SocketAddr, report: &'r Report) -> Citizen<'r> {
        Citizen { what, address, report, published: Vec::new(), took: Vec::new(), answered: 0 }
    }

    /// For so long, less if it is not served at all; and then until the last of what it published
    /// must have been heard.
    pub fn go_on(mut self, mut listener: Listener, duration: Duration) {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| listener.listen(&is_over));
            let deadline = Instant::now() + duration;
            while Instant::now() < deadline && self.took.len() < self.answered + 3 {
                self.ask("GET", "/healthz", b"");
                let payload = Payload { publisher: 0, number: self.published.len() as u32 + 1 };
                let target = format!("/channels/well{}", payload.query());
                if self.ask("POST", &target, payload.write(100, 1).as_bytes()) {
                    self.published.push(Instant::now());
                }
                self.ask("GET", "/", b"");
                thread::sleep(Duration::from_millis(100));
            }
            thread::sleep(IN_TIME);
            is_over.store(true, Relaxed);
        });
        self.judge_service(duration);
        self.judge_hearing(&listener);
    }

    /// Whether it was answered well.
    fn ask(&mut self, method: &str, target: &str, content: &[u8]) -> bool {
        let started = Instant::now();
        let mut caller = Caller::new(self.address).timeout(ANSWER_TIMEOUT);
        let answer = caller.request(method, target, content);
        self.took.push(started.elapsed());
        let what = match answer {
            Ok(Answer { status: 200, .. }) => {
                self.answered += 1;
                return true;
            }
            Ok(answer) => format!("{target} is answered {}", answer.status),
            Err(error) => format!("{target} is not answered: {error}"),
        };
        self.report.violation(format!("{}: {what}", self.what));
        false
    }

    fn judge_service(&mut self, duration: Duration) {
        self.took.sort_unstable();
        let (what, asked) = (self.what, self.took.len());
        let at = |part: usize| {
            let rank = (asked * part).div_ceil(100);
            let at = rank.checked_sub(1).and_then(|at| self.took.get(at));
            at.copied().unwrap_or_default()
        };
        let figure = format!(
            "{} of {asked} answered, {} rounds, median {:.0?}, 95% {:.0?}, slowest {:.0?}",
            self.answered,
            self.published.len(),
            at(50),
            at(95),
            at(100),
        );
        let is_served = at(95) <= SERVICE && duration <= ROUND * self.published.len() as u32;
        let violation = format!("{what}: no service to the well-behaved client: {figure}");
        self.report.expect(is_served, violation);
        self.report.row(format!("{what}: the well-behaved client"), figure);
    }

    fn judge_hearing(&self, listener: &Listener) {
        let (what, published) = (self.what, self.published.len());
        // It may be heard before its publication is answered.
        let late = |(answered, heard): (&Instant, &Instant)| heard.duration_since(*answered);
        let late: Vec<_> = self.published.iter().zip(&listener.heard).map(late).collect();
        let in_time = late.iter().filter(|&&late| late <= IN_TIME).count();
        let figure = format!(
            "{in_time} of {published}, at most {:.0?} late; cut {} times",
            late.iter().max().copied().unwrap_or_default(),
            listener.cuts
        );
        let is_whole = in_time == published && listener.cuts == 0;
        let violation = format!("{what}: a stream that was there before: {figure}");
        self.report.expect(is_whole, violation);
        self.report.row(format!("{what}: heard in time"), figure);
        for strange in &listener.strange {
            let last = listener.heard.len();
            let what = format!("{what}: the client that has received {last} receives {strange}");
            self.report.violation(what);
        }
    }
}

/// Its subscription, which a thread of its own reads while its requests wait.
pub struct Listener {
    address: SocketAddr,
    stream: Option<Subscription>,
    last_event_id: Option<String>,
    /// When each number came.
    heard: Vec<Instant>,
    /// How often the server ended the stream.
    cuts: u32,
    strange: Vec<String>,
}

impl Listener {
    pub fn subscribe(address: SocketAddr) -> Outcome<Listener> {
        let mut listener =
            Listener { address, stream: None, last_event_id: None, heard: Vec::new(), cuts: 0, strange: Vec::new() };
        listener.come_back();
        match listener.stream {
            Some(_) => Ok(listener),
            None => Err("the well-behaved client cannot subscribe".into()),
        }
    }

    fn come_back(&mut self) {
        let last = self.last_event_id.as_deref();
        match Subscription::open(self.address, "well", last, false, 0) {
            Ok(Subscribed::Streaming(stream)) => self.stream = Some(stream),
            // It comes back again.
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }

    fn listen(&mut self, is_over: &AtomicBool) {
        let mut events = Vec::new();
        while !is_over.load(Relaxed) {
            let Some(stream) = &mut self.stream else {
                self.come_back();
                continue;
            };
            let reading = stream.read(Duration::from_millis(100), 16 * 1024, &mut events);
            for event in events.drain(..) {
                self.hear(event);
            }
            if matches!(reading, Ok(Reading::End) | Err(_)) {
                self.cuts += 1;
                self.stream = None;
                self.strange.extend(reading.err().map(|error| error.to_string()));
            }
        }
    }

    /// All that was published, in order; again only what was published again, since the answer was
    /// lost.
    fn hear(&mut self, event: Event) {
        match Payload::of(&event) {
            Some(payload) if payload.number as usize == self.heard.len() + 1 => {
                self.heard.push(Instant::now());
            }
            Some(payload) if payload.number as usize <= self.heard.len() => {}
            _ => self.strange.push(format!("{event:?}")),
        }
        self.last_event_id = event.id.or(self.last_event_id.take());
    }
}
