//! Several times as many connections as the server admits, which do what they can to keep it busy,
//! and one well-behaved client.

use crate::citizen::{Citizen, Listener};
use crate::client::Caller;
use crate::report::Report;
use crate::server::{Newswire, figure, is_all_gone};
use crate::swarm::{SILENT, Swarm, Tactic};
use crate::{Order, Outcome};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Connections that the server admits, and those that want to be.
const ADMITTED: u64 = 200;
const WANTED: usize = 1_000;

/// So many connections of the siege must have been open at a time.
const HALF: u64 = ADMITTED / 2;

/// Connections that make no progress are evicted.
const EVICTED: (&str, u64) = ("connections_evicted_total", 1);

/// Connections without a whole request take no place.
const WITHOUT_REQUEST: (&str, u64) = ("connections_waiting", HALF);

/// How long each kind of them goes on.
const SIEGE: Duration = Duration::from_secs(20);

/// What the many do, all the time.
pub struct Siege {
    pub name: &'static str,
    what: &'static str,
    /// A figure of `/metrics` by which the server shows that it is besieged in this way, and how
    /// large it becomes at least.
    mark: (&'static str, u64),
    tactics: &'static [Tactic],
}

pub const SIEGES: [Siege; 7] = [
    Siege { name: "silence", what: "connections that send nothing", mark: WITHOUT_REQUEST, tactics: &[SILENT] },
    Siege {
        name: "heads",
        what: "slow heads",
        mark: WITHOUT_REQUEST,
        tactics: &[Tactic { opening: "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", drip: "a", ..SILENT }],
    },
    Siege {
        name: "bodies",
        what: "slow bodies",
        mark: EVICTED,
        tactics: &[Tactic {
            opening: "POST /channels/slow HTTP/1.1\r\nHost: localhost\r\n\
                      Content-Length: 500000\r\n\r\n",
            drip: "a",
            ..SILENT
        }],
    },
    // As from a page that may not publish: refused, but what of the content?
    Siege {
        name: "refused",
        what: "slow bodies that are refused",
        mark: EVICTED,
        tactics: &[Tactic {
            opening: "POST /channels/slow HTTP/1.1\r\nHost: localhost\r\n\
                      Origin: http://elsewhere\r\nContent-Length: 5000\r\n\r\n",
            status: Some(403),
            drip: "a",
            ..SILENT
        }],
    },
    // They publish what they send, and never end.
    Siege {
        name: "lines",
        what: "slow lines",
        mark: EVICTED,
        tactics: &[Tactic {
            opening: "POST /channels/slow?lines HTTP/1.1\r\nHost: localhost\r\n\
                      Transfer-Encoding: chunked\r\n\r\n",
            drip: "1\r\na\r\n",
            ..SILENT
        }],
    },
    Siege {
        name: "readers",
        what: "slow readers",
        mark: ("subscribers", HALF),
        tactics: &[
            Tactic {
                opening: "GET /channels/much?last_event_id=earliest HTTP/1.1\r\n\
                          Host: localhost\r\n\r\n",
                status: Some(200),
                reads: 1,
                ..SILENT
            },
            Tactic {
                opening: "GET /channels/much HTTP/1.1\r\nHost: localhost\r\n\r\n",
                status: Some(200),
                reads: 1,
                ..SILENT
            },
        ],
    },
    // Each has a thread for as long as it lasts.
    Siege {
        name: "streams",
        what: "slow streams",
        mark: EVICTED,
        tactics: &[
            Tactic {
                opening: "GET /lab?count=1000&size=60000&interval=0 HTTP/1.1\r\n\
                          Host: localhost\r\n\r\n",
                status: Some(200),
                reads: 1,
                ..SILENT
            },
            Tactic {
                opening: "GET /lab?count=50&interval=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                status: Some(200),
                ..SILENT
            },
            Tactic { opening: "GET /sse/mvc/words HTTP/1.1\r\nHost: localhost\r\n\r\n", status: Some(200), ..SILENT },
        ],
    },
];

pub fn besiege(order: &Order, report: &Report, siege: &Siege) -> Outcome<()> {
    let what = siege.what;
    let admitted = ADMITTED.to_string();
    let server = Newswire::start(what, report, &order.newswire, &["--max-connections", &admitted, "--heartbeat", "2"])?;
    let before = server.vitals_at_first()?;
    for tactic in siege.tactics {
        tactic.rehearse(server.address)?;
    }
    let listener = Listener::subscribe(server.address)?;
    let mut observer = Caller::new(server.address);
    observer.get("/metrics")?;
    let is_over = &AtomicBool::new(false);
    let (fate, fed, seen) = thread::scope(|scope| {
        let fed = scope.spawn(|| feed(server.address, is_over));
        let observed = scope.spawn(move || observe(observer, siege.mark.0, is_over));
        let swarm = Swarm::start(server.address, WANTED, siege.tactics, order.seed);
        thread::sleep(Duration::from_secs(3));
        Citizen::new(what, server.address, report).go_on(listener, SIEGE);
        is_over.store(true, Relaxed);
        let fate = swarm.stop();
        let observed = observed.join().unwrap_or_default();
        (fate, fed.join().unwrap_or(0), observed)
    });
    let (fate, (mark, least)) = (fate?, siege.mark);
    let Seen { open, places, marked } = seen;
    for (row, figure) in [
        (format!("{WANTED} at {ADMITTED} places"), fate.to_string()),
        ("connections at most".to_owned(), format!("{open}, {places} of them with a place")),
        (mark.to_owned(), marked.to_string()),
        ("events fed".to_owned(), fed.to_string()),
    ] {
        report.row(format!("{what}: {row}"), figure);
    }
    report.expect(
        open >= HALF && places <= ADMITTED && fate.opened > ADMITTED && marked >= least && fed > 0,
        format!(
            "{what}: no siege, or no limit: at most {open}, {places} with a place, {fate}, {mark} {marked}, fed {fed}"
        ),
    );
    let after = server.vitals_at_rest(before, Duration::from_secs(90))?;
    report.row(format!("{what}: before"), before);
    report.row(format!("{what}: after"), after);
    is_all_gone(report, what, before, after);
    Ok(())
}

/// Publishes, so that slow readers have something not to read. How many events.
fn feed(address: SocketAddr, is_over: &AtomicBool) -> u64 {
    let (mut feeder, mut fed) = (Caller::new(address), 0);
    while !is_over.load(Relaxed) {
        match feeder.request("POST", "/channels/much", &[b'x'; 20_000]) {
            Ok(answer) => fed += u64::from(answer.status == 200),
            Err(_) => feeder.hang_up(),
        }
        thread::sleep(Duration::from_millis(20));
    }
    fed
}

/// The largest figures of the server during a siege.
#[derive(Default)]
struct Seen {
    open: u64,
    /// Connections that had a place.
    places: u64,
    marked: u64,
}

/// How many connections there were at a time, and how large a figure of the server became. When its connection is
/// evicted it opens another one.
fn observe(mut observer: Caller, mark: &str, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mark = format!("newswire_{mark} ");
    while !is_over.load(Relaxed) {
        match observer.get("/metrics") {
            Ok(answer) => {
                let of = |name| figure(answer.text(), name).unwrap_or(0);
                let open = of("newswire_connections ");
                let places = open.saturating_sub(of("newswire_connections_waiting "));
                seen.open = open.max(seen.open);
                seen.places = places.max(seen.places);
                seen.marked = of(&mark).max(seen.marked);
            }
            Err(_) => observer.hang_up(),
        }
        thread::sleep(Duration::from_millis(200));
    }
    seen
}
