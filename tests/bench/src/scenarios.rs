//! What is measured, scenario by scenario.

mod logs;

use crate::calls::Calls;
use crate::figures::{Figures, Place, Unit};
use crate::load::{Load, Losses, Offer};
use crate::peer::{Peer, Server, Stage};
use crate::probe;
use crate::visits::Visits;
use hdrhistogram::Histogram;
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

pub struct Bench {
    pub stage: Stage,
    pub peers: Vec<Peer>,
    pub rounds: usize,
    /// Fewer cases and shorter measurements: enough to see that everything works, not to publish.
    pub quick: bool,
    /// Clients that come back at once.
    pub returning: usize,
    pub figures: Figures,
}

pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&mut Bench),
}

/// In the order of running: memory first, while the kernel's pools are still as they were.
pub const SCENARIOS: [Scenario; 16] = [
    Scenario {
        name: IDLE,
        about: "subscribers to whom nothing is sent; memory of the whole machine counts both ends of a connection",
        run: idle,
    },
    Scenario {
        name: FLAT_OUT,
        about: "100-byte events to one channel, published as fast as they are received",
        run: flat_out,
    },
    Scenario { name: PACED, about: "100-byte events to one channel at a steady pace", run: paced },
    Scenario {
        name: MANY_CHANNELS,
        about: "1,000 channels with ten subscribers each, 3 events a second to each; then flat out",
        run: many_channels,
    },
    Scenario {
        name: BURST,
        about: "1,000 channels with ten subscribers each, an event to all of them in one instant, once a second",
        run: burst,
    },
    Scenario { name: BIG, about: "events of 100 KB to 200 subscribers, 5 a second", run: big },
    Scenario {
        name: SLOW,
        about: "900 subscribers, 30 events of 2 KB a second; 100 more read 1 KB a second",
        run: slow,
    },
    Scenario {
        name: VIEWS,
        about: "1,000 subscribers, each with its own three of a hundred channels on one connection; beside one channel",
        run: views,
    },
    Scenario {
        name: GROWTH,
        about: "30,000 deliveries a second in all, whatever the number of subscribers",
        run: growth,
    },
    Scenario {
        name: COMING_BACK,
        about: "5,000 clients connect at once with Last-Event-ID, 100 events each to catch up; 1,000 stayed, 20 events/s",
        run: coming_back,
    },
    Scenario {
        name: STALLED,
        about: "900 subscribers, 30 events of 8 KB a second; then 100 more who read nothing",
        run: stalled,
    },
    Scenario { name: PLAIN, about: "GET / from 64 clients at once", run: plain },
    Scenario {
        name: JOURNAL,
        about: "events of 100 bytes published by so many clients at once, each waiting for its answer",
        run: logs::journal,
    },
    Scenario {
        name: RECOVERY,
        about: "from the start to the first answer, with journals of 1 MiB a channel that were just written",
        run: logs::recovery,
    },
    Scenario {
        name: REDIS,
        about: "published at one node, subscribed at the other; CPU of both and of the Redis behind them",
        run: logs::redis,
    },
    Scenario {
        name: REDIS_COMING_BACK,
        about: "as coming-back, but the clients come back to the other node",
        run: redis_coming_back,
    },
];

pub const IDLE: &str = "idle";
pub const FLAT_OUT: &str = "flat-out";
pub const PACED: &str = "paced";
pub const MANY_CHANNELS: &str = "many-channels";
pub const BURST: &str = "burst";
pub const BIG: &str = "big-events";
pub const SLOW: &str = "slow-readers";
pub const VIEWS: &str = "views";
pub const GROWTH: &str = "growth";
pub const COMING_BACK: &str = "coming-back";
pub const STALLED: &str = "stalled";
pub const PLAIN: &str = "plain";

pub const JOURNAL: &str = "journal";
pub const RECOVERY: &str = "recovery";
pub const REDIS: &str = "redis";
pub const REDIS_COMING_BACK: &str = "redis-coming-back";

pub const DELIVERIES: &str = "deliveries";
pub const CPU: &str = "CPU/delivery";
pub const P50: &str = "p50";
pub const P99: &str = "p99";
pub const MAX: &str = "max";
pub const SYSTEM_MEMORY: &str = "system/connection";
pub const SERVER_MEMORY: &str = "server/connection";
pub const THREADS: &str = "threads";
pub const P99_RATIO: &str = "p99 with/without";
pub const OTHERS: &str = "others";
pub const ANSWERS: &str = "answers";
pub const CPU_ANSWER: &str = "CPU/answer";
pub const WHOLE: &str = "all whole after";
pub const EIGHT_PUBLISHERS: &str = "8 publishers";
pub const MANY_PUBLISHERS: &str = "64 publishers";
pub const ONE_PUBLISHER: &str = "1 publisher";
pub const KEPT: &str = "kept connections";
pub const ANEW: &str = "new connections";

const EVENT: usize = 100;

/// "1,000"
pub fn count(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

/// "1,000 subscribers"
pub fn subscribers(number: usize) -> String {
    format!("{} subscriber{}", count(number), if number == 1 { "" } else { "s" })
}

pub fn paced_case(number: usize) -> String {
    format!("{}, {} events/s", subscribers(number), pace(number))
}

/// Events a second: one subscriber alone bears more of them.
fn pace(number: usize) -> u32 {
    if number == 1 { 200 } else { 30 }
}

pub fn idle_case() -> String {
    format!("{} connections", count(IDLE_CONNECTIONS))
}

const IDLE_CONNECTIONS: usize = 10_000;
pub const STALLED_CASE: &str = "one in ten";
pub const SLOW_CASE: &str = "one in ten reads 1 KB/s";
pub const BIG_CASE: &str = "200 subscribers, 5 events/s";
pub const BURST_CASE: &str = "all 1,000 channels at once";
pub const MANY_PACED: &str = "3 events/s each";
pub const VIEWS_PACED: &str = "own three of 100, 10 events/s each";

const EVERYONE: [Peer; 10] = {
    use Peer::*;
    [Newswire, Before, Axum, Hyper, Actix, Epoll, Epoll2, Uring, Nchan, Floor]
};
/// The floor keeps nothing to replay, and stops for everybody when one reader does.
const WITH_HISTORY: [Peer; 9] = {
    use Peer::*;
    [Newswire, Before, Axum, Hyper, Actix, Epoll, Epoll2, Uring, Nchan]
};
/// The others have one channel on a connection.
const WITH_VIEWS: [Peer; 2] = [Peer::Newswire, Peer::Nchan];
const PAIRS: [Peer; 3] = [Peer::NewswireRedis, Peer::AxumRedis, Peer::NchanRedis];

impl Bench {
    /// Runs every case for every peer in every round, each time with a server started for it alone.
    /// Each round begins with another peer, and every other goes backwards, so that none is always
    /// the first, and none always finds the machine as the same other one left it.
    fn take_turns<C>(
        &mut self,
        scenario: &'static str,
        rounds: usize,
        cases: &[(String, C)],
        peers: &[Peer],
        measure: impl Fn(&Server, &C, &mut Place) -> io::Result<()>,
    ) {
        for round in 0..rounds {
            for (case, setting) in cases {
                for turn in 0..peers.len() {
                    let forward = if round % 2 == 0 { turn } else { peers.len() - turn };
                    let peer = peers[(round + forward) % peers.len()];
                    eprintln!("{scenario}, {case}, {}, round {} of {rounds}", peer.name(), round + 1);
                    let mut place =
                        Place { figures: &mut self.figures, scenario, case: case.clone(), server: peer.name(), round };
                    let outcome = self.stage.start(peer).and_then(|server| measure(&server, setting, &mut place));
                    if let Err(error) = outcome {
                        let failure = format!("{scenario}, {case}, {}, round {}: {error}", peer.name(), round + 1);
                        eprintln!("FAILED {failure}");
                        self.figures.failures.push(failure);
                    }
                }
            }
        }
    }

    /// Those of these peers that take part.
    fn peers_of(&self, peers: &[Peer]) -> Vec<Peer> {
        self.peers.iter().copied().filter(|peer| peers.contains(peer)).collect()
    }

    fn seconds(&self, usual: f64, quick: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { quick } else { usual })
    }
}

/// Times a measurement, in seconds and in processor time of everyone.
struct Clock {
    calls: Option<Calls>,
    begin: Instant,
    server: Vec<u32>,
    cpu: [Duration; 3],
}

/// What a measurement took, in seconds.
struct Spent {
    calls: Option<Calls>,
    seconds: f64,
    cpu: f64,
    load_cpu: f64,
    other_cpu: f64,
}

impl Clock {
    fn start(server: &Server) -> Self {
        let calls = server.is_counted.then(|| Calls::start(&server.processes()));
        let calls = calls.and_then(|started| started.inspect_err(|error| eprintln!("perf cannot count: {error}")).ok());
        let server = server.processes();
        Self { calls, begin: Instant::now(), cpu: Self::look(&server), server }
    }

    fn look(server: &[u32]) -> [Duration; 3] {
        [probe::cpu(server), probe::cpu(&[std::process::id()]), probe::machine()]
    }

    fn stop(self) -> Spent {
        let seconds = self.begin.elapsed().as_secs_f64();
        let now = Self::look(&self.server);
        let [cpu, load_cpu, all] = [0, 1, 2].map(|who| now[who].saturating_sub(self.cpu[who]).as_secs_f64());
        Spent { calls: self.calls, seconds, cpu, load_cpu, other_cpu: (all - cpu - load_cpu).max(0.0) }
    }
}

impl Spent {
    /// The system calls of one unit, if they were counted.
    fn put_calls(&mut self, place: &mut Place, unit: &'static str, units: f64) {
        if let Some(calls) = self.calls.take() {
            let said = calls.stop(units).unwrap_or_else(|error| error.to_string());
            let Place { scenario, case, server, .. } = place;
            let line = format!("{scenario}, {case}, {server}, a {unit}: {said}");
            eprintln!("{line}");
            place.figures.calls.push(line);
        }
    }

    /// How busy the load generator was, of one core: near 100 % it would hide the server's cost.
    /// And how busy everything that is neither: other programs, and the machine's host, so that a
    /// noisy run can be told.
    fn put_surroundings(self, place: &mut Place) {
        place.put("load gen", Unit::Percent, self.load_cpu / self.seconds * 100.0);
        place.put(OTHERS, Unit::Percent, self.other_cpu / self.seconds * 100.0);
    }
}

/// Lets the load run, and says how many deliveries that gave and what it took.
fn timed(server: &Server, load: &mut Load, time: Duration) -> io::Result<(f64, Spent)> {
    let (before, clock) = (load.tally().delivered, Clock::start(server));
    load.run(time)?;
    let spent = clock.stop();
    match load.tally().delivered - before {
        0 => Err(io::Error::other("nothing was delivered")),
        delivered => Ok((delivered as f64, spent)),
    }
}

/// Deliveries that never came, of all; those that came again; and connections that the server
/// ended.
fn put_losses(place: &mut Place, load: &Load) {
    let (tally, losses) = (load.tally(), load.losses());
    place.put("lost", Unit::Percent, losses.lost as f64 / (tally.expected.max(1)) as f64 * 100.0);
    place.put("repeated", Unit::Count, losses.repeated as f64);
    place.put("ended", Unit::Count, losses.ended as f64);
    if tally.refused > 0 {
        place.put("refused", Unit::Count, tally.refused as f64);
    }
}

fn put_latency(place: &mut Place, latency: &Histogram<u64>) {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    place.put(P50, Unit::Microseconds, micros(latency.value_at_quantile(0.50)));
    place.put(P99, Unit::Microseconds, micros(latency.value_at_quantile(0.99)));
    place.put(MAX, Unit::Microseconds, micros(latency.max()));
}

/// Events at a steady pace: processor time, latency, losses.
///
/// The measurement begins and ends between two events, so that none is counted in part.
fn steady(server: &Server, load: &mut Load, interval: Duration, time: Duration, place: &mut Place) -> io::Result<()> {
    measure(server, load, Offer::Paced(interval), time, place)
}

/// The same, also for all channels at a time.
fn measure(server: &Server, load: &mut Load, offer: Offer, time: Duration, place: &mut Place) -> io::Result<()> {
    let interval = match offer {
        Offer::Paced(interval) | Offer::Burst(interval) => interval,
        Offer::Nothing | Offer::FlatOut => return Err(io::Error::other("this offer has no pace")),
    };
    let events = |time: Duration| interval * (time.as_secs_f64() / interval.as_secs_f64()).ceil() as u32;
    load.offer(offer);
    load.run(events(Duration::from_secs(1)) + interval / 2)?;
    load.take_latency();
    let (delivered, mut spent) = timed(server, load, events(time))?;
    spent.put_calls(place, "delivery", delivered);
    let latency = load.take_latency();
    load.drain()?;
    place.put(CPU, Unit::Microseconds, spent.cpu / delivered * 1e6);
    put_latency(place, &latency);
    put_losses(place, load);
    spent.put_surroundings(place);
    Ok(())
}

/// Publishing as fast as it goes: deliveries, processor time, losses.
fn flood(server: &Server, load: &mut Load, time: Duration, place: &mut Place) -> io::Result<()> {
    load.offer(Offer::FlatOut);
    load.run(Duration::from_millis(700))?;
    let (delivered, mut spent) = timed(server, load, time)?;
    spent.put_calls(place, "delivery", delivered);
    load.drain()?;
    place.put(DELIVERIES, Unit::PerSecond, delivered / spent.seconds);
    place.put(CPU, Unit::Microseconds, spent.cpu / delivered * 1e6);
    put_losses(place, load);
    spent.put_surroundings(place);
    Ok(())
}

/// Subscribes so many, and says what memory each takes of the server's.
fn weigh(server: &Server, load: &mut Load, size: usize, place: &mut Place) -> io::Result<()> {
    let processes = server.processes();
    let memory = probe::memory(&processes);
    load.subscribe(size)?;
    let grown = probe::memory(&processes) - memory;
    place.put(SERVER_MEMORY, Unit::Kilobytes, grown / size as f64);
    Ok(())
}

fn idle(bench: &mut Bench) {
    let sizes = [(idle_case(), IDLE_CONNECTIONS)];
    let peers = bench.peers_of(&EVERYONE);
    // The first so many connections since the machine was started pay for much that stays: these
    // are weighed for nobody. If that fails, so will the measurement, and say so.
    if let Some(first) = peers.first()
        && let Ok(server) = bench.stage.start(*first)
    {
        let load = Load::new(server.address, 1, EVENT, IDLE_CONNECTIONS);
        let _ = load.and_then(|mut load| load.subscribe(IDLE_CONNECTIONS));
    }
    bench.take_turns(IDLE, bench.rounds, &sizes, &peers, |server, &size, place| {
        let mut load = Load::new(server.address, 1, EVENT, size)?;
        let available = probe::available_memory();
        weigh(server, &mut load, size, place)?;
        let taken = available - probe::available_memory();
        place.put(SYSTEM_MEMORY, Unit::Kilobytes, taken / size as f64);
        place.put(THREADS, Unit::Count, probe::threads(&server.processes()));
        place.put("ended", Unit::Count, load.losses().ended as f64);
        Ok(())
    });
}

fn flat_out(bench: &mut Bench) {
    let sizes = if bench.quick { &[1, 1_000][..] } else { &[1, 100, 1_000, 10_000] };
    let cases: Vec<_> = sizes.iter().map(|&size| (subscribers(size), size)).collect();
    let (peers, time) = (bench.peers_of(&EVERYONE), bench.seconds(2.5, 1.5));
    bench.take_turns(FLAT_OUT, bench.rounds, &cases, &peers, |server, &size, place| {
        let mut load = Load::new(server.address, 1, EVENT, size)?;
        load.subscribe(size)?;
        flood(server, &mut load, time, place)
    });
}

fn paced(bench: &mut Bench) {
    let cases = [1, 1_000].map(|size| (paced_case(size), size));
    let (peers, time) = (bench.peers_of(&EVERYONE), bench.seconds(5.0, 2.0));
    // Most is judged by this, and by differences of a few per cent: five rounds for every three, and three for one.
    let rounds = if bench.quick { bench.rounds } else { (bench.rounds * 5 / 3).max(3) };
    bench.take_turns(PACED, rounds, &cases, &peers, |server, &size, place| {
        let mut load = Load::new(server.address, 1, EVENT, size)?;
        load.subscribe(size)?;
        steady(server, &mut load, Duration::from_secs(1) / pace(size), time, place)
    });
}

fn many_channels(bench: &mut Bench) {
    const CHANNELS: usize = 1_000;
    let cases = [(MANY_PACED.to_owned(), true), ("flat out".to_owned(), false)];
    let (peers, time) = (bench.peers_of(&EVERYONE), bench.seconds(3.0, 2.0));
    bench.take_turns(MANY_CHANNELS, bench.rounds, &cases, &peers, |server, &steadily, place| {
        let mut load = Load::new(server.address, CHANNELS, EVENT, CHANNELS * 10)?;
        load.subscribe(CHANNELS * 10)?;
        if steadily {
            steady(server, &mut load, Duration::from_secs(1) / (3 * CHANNELS as u32), time, place)
        } else {
            flood(server, &mut load, time, place)
        }
    });
}

fn burst(bench: &mut Bench) {
    const CHANNELS: usize = 1_000;
    let (peers, bursts) = (bench.peers_of(&EVERYONE), bench.seconds(5.0, 2.0));
    let cases = [(BURST_CASE.to_owned(), ())];
    bench.take_turns(BURST, bench.rounds, &cases, &peers, |server, (), place| {
        let mut load = Load::new(server.address, CHANNELS, EVENT, CHANNELS * 10)?;
        load.subscribe(CHANNELS * 10)?;
        measure(server, &mut load, Offer::Burst(Duration::from_secs(1)), bursts, place)
    });
}

fn big(bench: &mut Bench) {
    const SUBSCRIBERS: usize = 200;
    let (peers, time) = (bench.peers_of(&EVERYONE), bench.seconds(4.0, 2.0));
    let cases = [(BIG_CASE.to_owned(), ())];
    bench.take_turns(BIG, bench.rounds, &cases, &peers, |server, (), place| {
        let mut load = Load::new(server.address, 1, 100 * 1024, SUBSCRIBERS)?;
        load.subscribe(SUBSCRIBERS)?;
        steady(server, &mut load, Duration::from_millis(200), time, place)
    });
}

fn slow(bench: &mut Bench) {
    const RECEIVE_BUFFER: usize = 16 * 1024;
    let (peers, time) = (bench.peers_of(&WITH_HISTORY), bench.seconds(5.0, 2.0));
    let cases = [(SLOW_CASE.to_owned(), ())];
    bench.take_turns(SLOW, bench.rounds, &cases, &peers, |server, (), place| {
        let mut load = Load::new(server.address, 1, 2048, 1_000)?;
        load.subscribe(900)?;
        load.bound_receive_buffers(RECEIVE_BUFFER);
        load.subscribe_slow(100)?;
        steady(server, &mut load, Duration::from_secs(1) / pace(1_000), time, place)
    });
}

fn views(bench: &mut Bench) {
    const SUBSCRIBERS: usize = 1_000;
    const CHANNELS: usize = 100;
    // Thirty subscribers to each channel, and no two with the same set: of the three distances
    // around the circle of channels, only one is 70, and what the other two are says which set it
    // is.
    let set = |number: usize| [0, 1 + number / CHANNELS, 30].map(|step| (number + step) % CHANNELS).to_vec();
    // The same deliveries a second to each subscriber, 30, from three channels and from one.
    let cases = [
        (VIEWS_PACED, (CHANNELS, true)),
        ("one channel, 30 events/s", (1, true)),
        ("own three of 100, flat out", (CHANNELS, false)),
        ("one channel, flat out", (1, false)),
    ]
    .map(|(case, setting)| (case.to_owned(), setting));
    let (peers, time) = (bench.peers_of(&WITH_VIEWS), bench.seconds(3.0, 2.0));
    bench.take_turns(VIEWS, bench.rounds, &cases, &peers, |server, &(channels, steadily), place| {
        let mut load = Load::new(server.address, channels, EVENT, SUBSCRIBERS)?;
        if channels > 1 {
            load.subscribe_to((0..SUBSCRIBERS).map(set));
        }
        weigh(server, &mut load, SUBSCRIBERS, place)?;
        if steadily {
            // Each event reaches 30 subscribers, or all.
            let rate = if channels > 1 { 10 * CHANNELS as u32 } else { pace(SUBSCRIBERS) };
            steady(server, &mut load, Duration::from_secs(1) / rate, time, place)
        } else {
            flood(server, &mut load, time, place)
        }
    });
}

fn growth(bench: &mut Bench) {
    let sizes = if bench.quick { &[1_000, 15_000][..] } else { &[100, 1_000, 5_000, 15_000] };
    let cases: Vec<_> = sizes.iter().map(|&size| (subscribers(size), size)).collect();
    let (peers, time) = (bench.peers_of(&EVERYONE), bench.seconds(4.0, 3.0));
    bench.take_turns(GROWTH, bench.rounds, &cases, &peers, |server, &size, place| {
        let mut load = Load::new(server.address, 1, EVENT, size)?;
        weigh(server, &mut load, size, place)?;
        steady(server, &mut load, Duration::from_secs_f64(size as f64 / 30_000.0), time, place)
    });
}

fn coming_back(bench: &mut Bench) {
    // A longer listen queue makes a difference only where many connect at once.
    storm(bench, COMING_BACK, &[&WITH_HISTORY[..], &[Peer::Inherited]].concat());
}

fn redis_coming_back(bench: &mut Bench) {
    storm(bench, REDIS_COMING_BACK, &PAIRS);
}

pub fn storm_case(returning: usize) -> String {
    format!("{} at once", count(returning))
}

/// Of a pair, the clients stayed at one node, and come back to the other.
fn storm(bench: &mut Bench, scenario: &'static str, peers: &[Peer]) {
    const STAYED: usize = 1_000;
    let returning = bench.returning;
    let cases = [(storm_case(returning), ())];
    let peers = bench.peers_of(peers);
    let quiet = bench.seconds(3.0, 2.0);
    bench.take_turns(scenario, bench.rounds, &cases, &peers, |server, (), place| {
        let mut load = Load::new(server.address, 1, EVENT, STAYED + returning)?;
        load.subscribe(STAYED)?;
        load.offer(Offer::Paced(Duration::from_millis(50)));
        load.run(Duration::from_secs(1))?;
        load.take_latency();
        load.run(quiet)?;
        let before = load.take_latency();
        load.drain()?;
        let seen = learn_id(server.address, &mut load)?;
        for _ in 0..100 {
            load.publish_one()?;
        }
        load.take_latency();
        load.offer(Offer::Paced(Duration::from_millis(50)));
        let clock = Clock::start(server);
        load.subscribe_at(server.far());
        let whole = load.come_back(returning, &seen, 100)?;
        let mut spent = clock.stop();
        spent.put_calls(place, "client that came back", returning as f64);
        let meanwhile = load.take_latency();
        load.drain()?;
        // That does not wait for those who came back: as long as something comes to them.
        let mut lost = u64::MAX;
        while load.losses_of_returning().lost < lost {
            lost = load.losses_of_returning().lost;
            load.run(Duration::from_secs(1))?;
        }
        if let Some(whole) = whole {
            let whole = whole.as_secs_f64() * 1e3;
            place.put(WHOLE, Unit::Milliseconds, whole);
        }
        let Losses { lost, repeated, ended } = load.losses_of_returning();
        place.put("returning: lost", Unit::Count, lost as f64);
        place.put("returning: repeated", Unit::Count, repeated as f64);
        place.put("returning: cut off", Unit::Count, ended as f64);
        place.put("CPU/returning", Unit::Microseconds, spent.cpu / returning as f64 * 1e6);
        spent.put_surroundings(place);
        let micros = |latency: &Histogram<u64>, quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        place.put("stayed, before: p99", Unit::Microseconds, micros(&before, 0.99));
        place.put("meanwhile: p50", Unit::Microseconds, micros(&meanwhile, 0.50));
        place.put("p99", Unit::Microseconds, micros(&meanwhile, 0.99));
        place.put("max", Unit::Microseconds, meanwhile.max() as f64 / 1e3);
        put_losses(place, &load);
        Ok(())
    });
}

/// Publishes an event, and reads from a subscription of its own which id the server gave it.
fn learn_id(server: SocketAddrV4, load: &mut Load) -> io::Result<String> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.write_all(crate::wire::subscribe(server, "/channels/bench0", None).as_bytes())?;
    // The head is the sign that the subscription stands; the pause, that all of the server knows.
    let mut stream = vec![0; 4096];
    let mut length = socket.read(&mut stream)?;
    load.run(Duration::from_millis(300))?;
    load.publish_one()?;
    while !stream[..length].contains(&crate::wire::MARK) {
        match socket.read(&mut stream[length..])? {
            0 => return Err(io::Error::other("no event came to learn an id from")),
            more => length += more,
        }
    }
    let text = String::from_utf8_lossy(&stream[..length]);
    let id = text.lines().filter_map(|line| line.strip_prefix("id:")).next_back().map(str::trim);
    id.map(str::to_owned).ok_or_else(|| io::Error::other("an event without an id"))
}

fn stalled(bench: &mut Bench) {
    const READERS: usize = 900;
    const SILENT: usize = 100;
    // A server notices nothing until its kernel holds all it will for a connection: up to 4 MB to
    // be sent, and what the receiver takes, which is bounded here, as it is on a phone. That is
    // filled at twice the pace, in 8.7 seconds at most, and what arrives meanwhile is not judged. A
    // stalled one may be cut off any time after 20 seconds without a byte: what is judged ends
    // before the first can be; how many are, is seen afterwards.
    // (The kernel cuts what several sockets are to send from the same 32 KB, and frees that only
    // when the last has been read: so the system grows by several times what the stalled were sent,
    // for every server alike.)
    const SIZE: usize = 8192;
    const RECEIVE_BUFFER: usize = 128 * 1024;
    const INTERVAL: Duration = Duration::from_micros(33_333);
    const FILLING: Duration = Duration::from_millis(8_700);
    let cases = [(STALLED_CASE.to_owned(), ())];
    let peers = bench.peers_of(&WITH_HISTORY);
    let (judged, after) = (bench.seconds(10.0, 3.0), bench.seconds(10.0, 3.0));
    let rounds = bench.rounds;
    bench.take_turns(STALLED, rounds, &cases, &peers, |server, (), place| {
        let mut load = Load::new(server.address, 1, SIZE, READERS + SILENT)?;
        load.bound_receive_buffers(RECEIVE_BUFFER);
        load.subscribe(READERS)?;
        load.offer(Offer::Paced(INTERVAL));
        load.run(Duration::from_secs(2))?;
        load.take_latency();
        load.run(judged)?;
        let without = load.take_latency();
        load.drain()?;
        let processes = server.processes();
        let (memory, available) = (probe::memory(&processes), probe::available_memory());
        load.subscribe_stalled(SILENT)?;
        load.offer(Offer::Paced(INTERVAL / 2));
        load.run(FILLING)?;
        load.offer(Offer::Paced(INTERVAL));
        load.run(Duration::from_millis(300))?;
        load.take_latency();
        let clock = Clock::start(server);
        load.run(judged)?;
        clock.stop().put_surroundings(place);
        let with = load.take_latency();
        load.drain()?;
        let grown = probe::memory(&processes) - memory;
        let taken = available - probe::available_memory();
        load.take_latency();
        load.offer(Offer::Paced(INTERVAL));
        load.run(after)?;
        let later = load.take_latency();
        load.drain()?;
        let micros = |latency: &Histogram<u64>| latency.value_at_quantile(0.99) as f64 / 1e3;
        place.put("p99 without", Unit::Microseconds, micros(&without));
        place.put("p99 with", Unit::Microseconds, micros(&with));
        place.put(P99_RATIO, Unit::Count, micros(&with) / micros(&without));
        place.put("max with", Unit::Milliseconds, later.max().max(with.max()) as f64 / 1e6);
        place.put("server grew", Unit::Megabytes, grown / 1024.0);
        place.put("system grew", Unit::Megabytes, taken / 1024.0);
        put_losses(place, &load);
        place.put("cut off", Unit::Count, load.wake_stalled()? as f64);
        Ok(())
    });
}

fn plain(bench: &mut Bench) {
    let cases = [(KEPT.to_owned(), true), (ANEW.to_owned(), false)];
    let (peers, time) = (bench.peers_of(&EVERYONE), bench.seconds(2.5, 1.5));
    bench.take_turns(PLAIN, bench.rounds, &cases, &peers, |server, &keep, place| {
        let request = crate::wire::visit(server.address, keep).into_bytes();
        answers(server, Visits::new(server.address, keep, request, 64)?, time, place)?;
        Ok(())
    });
}

/// Requests and their answers for this long. Returns how long they took.
fn answers(server: &Server, mut visits: Visits, time: Duration, place: &mut Place) -> io::Result<Histogram<u64>> {
    visits.run(Duration::from_millis(500))?;
    visits.latency.reset();
    let (answered, clock) = (visits.answered, Clock::start(server));
    visits.run(time)?;
    let (answered, mut spent) = ((visits.answered - answered) as f64, clock.stop());
    spent.put_calls(place, "request", answered);
    if answered == 0.0 {
        return Err(io::Error::other("nothing was answered"));
    }
    place.put(ANSWERS, Unit::PerSecond, answered / spent.seconds);
    place.put(CPU_ANSWER, Unit::Microseconds, spent.cpu / answered * 1e6);
    place.put("failed", Unit::Count, visits.failed as f64);
    spent.put_surroundings(place);
    Ok(visits.latency)
}
