//! Several times as many connections as the server admits, which do what they can to keep it busy,
//! and one client that means well.

use crate::client::{Answer, Caller, Event, Reading, Subscribed, Subscription};
use crate::payload::Payload;
use crate::report::Report;
use crate::server::{Newswire, is_all_gone};
use crate::swarm::{SILENT, Swarm, Tactic};
use crate::{Order, Outcome};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Connections that the server admits, and those that knock.
const ADMITTED: usize = 200;
const KNOCKING: usize = 1_000;

/// How long each kind of them goes on.
pub const SIEGE: Duration = Duration::from_secs(20);

/// What the many do, all the time.
pub struct Siege {
    pub name: &'static str,
    what: &'static str,
    /// Each may take the place of a subscriber: then who comes later is told to come back later.
    takes_places: bool,
    tactics: &'static [Tactic],
}

pub const SIEGES: [Siege; 7] = [
    Siege {
        name: "silence",
        what: "connections that say nothing",
        takes_places: false,
        tactics: &[SILENT],
    },
    Siege {
        name: "heads",
        what: "slow heads",
        takes_places: false,
        tactics: &[Tactic {
            opening: "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
            drip: "a",
            ..SILENT
        }],
    },
    Siege {
        name: "bodies",
        what: "slow bodies",
        takes_places: false,
        tactics: &[Tactic {
            opening: "POST /channels/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n",
            drip: "a",
            ..SILENT
        }],
    },
    // As from a page that may not publish: refused, but what of the content?
    Siege {
        name: "refused",
        what: "slow bodies that are refused",
        takes_places: false,
        tactics: &[Tactic {
            opening: "POST /channels/slow HTTP/1.1\r\nHost: localhost\r\nOrigin: http://elsewhere\r\n\
                      Content-Length: 5000\r\n\r\n",
            drip: "a",
            ..SILENT
        }],
    },
    // They publish what they send, and never end.
    Siege {
        name: "lines",
        what: "slow lines",
        takes_places: false,
        tactics: &[Tactic {
            opening: "POST /channels/slow?lines HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            drip: "1\r\na\r\n",
            ..SILENT
        }],
    },
    Siege {
        name: "readers",
        what: "slow readers",
        takes_places: true,
        tactics: &[
            Tactic {
                opening: "GET /channels/much?last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n",
                reads: 1,
                ..SILENT
            },
            Tactic {
                opening: "GET /channels/much HTTP/1.1\r\nHost: localhost\r\n\r\n",
                reads: 1,
                ..SILENT
            },
        ],
    },
    // Each has a thread for as long as it lasts.
    Siege {
        name: "streams",
        what: "slow streams",
        takes_places: true,
        tactics: &[
            Tactic {
                opening: "GET /lab?count=1000&size=60000&interval=0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                reads: 1,
                ..SILENT
            },
            Tactic {
                opening: "GET /lab?count=50&interval=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                ..SILENT
            },
            Tactic {
                opening: "GET /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\n\r\n",
                ..SILENT
            },
        ],
    },
];

/// How long one request of the client that means well may take, and what it is then.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long what is published may take to be heard, in the middle of it all.
const IN_TIME: Duration = Duration::from_secs(5);

/// A client that means well: it asks and publishes on connections of their own, subscribes on
/// another, and expects to be answered.
pub struct Client<'r> {
    what: &'r str,
    address: SocketAddr,
    report: &'r Report,
    subscription: Option<Subscription>,
    published: u32,
    heard: u32,
    ms: Vec<u64>,
    failures: usize,
}

impl<'r> Client<'r> {
    pub fn new(what: &'r str, address: SocketAddr, report: &'r Report) -> Client<'r> {
        Client {
            what,
            address,
            report,
            subscription: None,
            published: 0,
            heard: 0,
            ms: Vec::new(),
            failures: 0,
        }
    }

    /// For so long; less, if it is not served at all.
    pub fn go_on(&mut self, duration: Duration) {
        let deadline = Instant::now() + duration;
        while Instant::now() < deadline && self.failures < 3 {
            self.subscribe();
            self.ask("GET", "/healthz", b"");
            let payload = Payload {
                publisher: 0,
                number: self.published + 1,
            };
            if self.ask("POST", "/channels/well", payload.write(100, 1).as_bytes()) {
                self.published += 1;
            }
            self.ask("GET", "/", b"");
            self.listen(Duration::ZERO);
            thread::sleep(Duration::from_millis(100));
        }
        self.listen(IN_TIME);
    }

    fn ask(&mut self, method: &str, target: &str, content: &[u8]) -> bool {
        let started = Instant::now();
        let answer = Caller::new(self.address)
            .patience(PATIENCE)
            .request(method, target, content);
        self.ms.push(started.elapsed().as_millis() as u64);
        match answer {
            Ok(Answer { status: 200, .. }) => return true,
            Ok(answer) => self.fail(format!("{target} is answered {}", answer.status)),
            Err(error) => self.fail(format!("{target} is not answered: {error}")),
        }
        false
    }

    fn fail(&mut self, what: String) {
        self.failures += 1;
        self.report.violation(format!("{}: {what}", self.what));
    }

    fn subscribe(&mut self) {
        if self.subscription.is_some() {
            return;
        }
        let last = (self.published > 0).then_some("earliest");
        let started = Instant::now();
        let opened = Subscription::open(self.address, "well", last, false, 0);
        self.ms.push(started.elapsed().as_millis() as u64);
        match opened {
            Ok(Subscribed::Streaming(stream)) => self.subscription = Some(stream),
            // It comes back.
            Ok(Subscribed::Refused) => {}
            Ok(Subscribed::Finished) => self.fail("told 204".to_owned()),
            Err(error) => self.fail(format!("it cannot subscribe: {error}")),
        }
    }

    /// Hears all that it has published, in order.
    fn listen(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let Some(stream) = &mut self.subscription else {
                return;
            };
            let mut events = Vec::new();
            let reading = stream.read(Duration::from_millis(10), 16 * 1024, &mut events);
            for event in events {
                self.hear(&event);
            }
            match reading {
                Ok(Reading::Some) => continue,
                Ok(Reading::Silence)
                    if self.heard == self.published || Instant::now() >= deadline =>
                {
                    return;
                }
                Ok(Reading::Silence) => {}
                Ok(Reading::End) => self.subscription = None,
                Err(error) => self.fail(format!("its stream broke: {error}")),
            }
        }
    }

    fn hear(&mut self, event: &Event) {
        match event.data.as_deref().and_then(Payload::read) {
            Some(payload) if payload.number == self.heard + 1 => self.heard += 1,
            Some(payload) if payload.number <= self.heard => {}
            _ => self.fail(format!("after {} it hears {event:?}", self.heard)),
        }
    }

    /// When the others have gone, it hears whatever it has not been able to. Unless they held the
    /// places of subscribers, it has heard all before.
    pub fn conclude(mut self, places_are_held: bool) {
        let heard = self.heard;
        if !places_are_held && heard < self.published {
            self.fail(format!(
                "of {} events it heard {heard} in time",
                self.published
            ));
        }
        let deadline = Instant::now() + PATIENCE;
        while self.heard < self.published && Instant::now() < deadline {
            self.subscribe();
            self.listen(Duration::from_secs(1));
            thread::sleep(Duration::from_millis(100));
        }
        if self.heard != self.published {
            self.fail(format!(
                "it published {} and heard {}",
                self.published, self.heard
            ));
        }
        let figure = format!("{heard} of {}", self.published);
        self.report
            .row(format!("{}: events heard in time", self.what), figure);
        self.ms.sort_unstable();
        let at = |part: f64| {
            self.ms
                .get((self.ms.len() as f64 * part) as usize)
                .copied()
                .unwrap_or(0)
        };
        let figure = format!(
            "{} answered, median {} ms, 95% {} ms, slowest {} ms",
            self.ms.len() - self.failures.min(self.ms.len()),
            at(0.5),
            at(0.95),
            self.ms.last().copied().unwrap_or(0)
        );
        self.report
            .row(format!("{}: the client that means well", self.what), figure);
    }
}

pub fn besiege(order: &Order, report: &Report, siege: &Siege) -> Outcome<()> {
    let what = siege.what;
    let admitted = ADMITTED.to_string();
    let server = Newswire::start(
        what,
        report,
        &order.newswire,
        &["--max-connections", &admitted, "--heartbeat", "2"],
    )?;
    let before = server.vitals_at_first()?;
    let is_over = AtomicBool::new(false);
    let (fate, most) = thread::scope(|scope| {
        // So that slow readers have something not to read.
        scope.spawn(|| {
            let mut caller = Caller::new(server.address);
            while !is_over.load(Relaxed) {
                if caller
                    .request("POST", "/channels/much", &[b'x'; 20_000])
                    .is_err()
                {
                    caller.hang_up();
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        let swarm = Swarm::start(server.address, KNOCKING, siege.tactics, order.seed);
        thread::sleep(Duration::from_secs(3));
        // Which takes no connection.
        let most = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Relaxed) {
                most = server.descriptors().unwrap_or(0).max(most);
                thread::sleep(Duration::from_millis(100));
            }
            most
        });
        let mut client = Client::new(what, server.address, report);
        client.go_on(SIEGE);
        is_over.store(true, Relaxed);
        let fate = swarm.stop();
        client.conclude(siege.takes_places);
        (fate, most.join().unwrap_or(0))
    });
    let fate = fate?;
    report.row(
        format!("{what}: {KNOCKING} at {ADMITTED} places"),
        format!(
            "opened {}, closed by the server {}",
            fate.opened, fate.closed_by_server
        ),
    );
    // Two that accept may each wait with one more, and a place is free before its socket closes.
    let most = most.saturating_sub(before.descriptors);
    report.row(format!("{what}: connections at most"), most);
    let (places, knocking) = (ADMITTED as u64, KNOCKING as u64);
    report.expect(
        (places / 2..=places + 8).contains(&most) && fate.opened >= knocking,
        format!("{what}: no siege, or no limit: at most {most}, {fate:?}"),
    );
    let after = server.vitals_at_rest(before, Duration::from_secs(90))?;
    report.row(format!("{what}: before"), before);
    report.row(format!("{what}: after"), after);
    is_all_gone(report, what, before, after);
    Ok(())
}
