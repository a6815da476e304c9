//! newswire measured beside its peers: loops over epoll and io_uring that were written by hand, hyper by hand, actix-web,
//! axum, nginx with nchan, and a bare loop of `write` calls.
//!
//! ```text
//! newswire-bench --newswire PATH [--before PATH] [--out DIR] [--only SCENARIO,...] [--peers SERVER,...] [--rounds N]
//!     [--returning N] [--quick] [--calls]
//! ```
//!
//! What is measured stands in `scenarios.rs`, what must be reached in `targets.rs`, how each server
//! is set up and why in `peer.rs` and `peer_*.rs`. The report says first where newswire loses, then which ratios were
//! asked and seen, then all figures. What holds for all of it:
//!
//! - **A self test** comes first: each server subscribes, publishes, resumes and answers `GET /`, or it is left out and the
//!   run fails.
//! - **Turns.** Each measurement has a server started for it alone. In every round each case is
//!   measured for all servers in turn; each round begins with another server, and every other one
//!   goes the other way round. A figure is the median of the rounds, and the table says the least
//!   and the most beside it. A ratio is taken within each round, and the median of these counts.
//! - **The same two requests.** `POST /channels/NAME` publishes its body, `GET /channels/NAME`
//!   subscribes, for every server. A delivery is one event's data at one subscriber, recognised by
//!   a byte that stands nowhere else.
//! - **One thread of load.** Publishers and subscribers are one epoll loop in one thread, pinned
//!   nowhere, as the servers are not: with two cores, pinning made no difference that the noise did
//!   not. How busy the load was stands in the column "load gen", in per cent of one core, and how
//!   busy the machine was with anything else in "others": where that is more than a few per cent in
//!   many rounds, the run is not worth publishing.
//! - **Flat out** is a closed loop over the readers: four publishers, each with up to 16 POSTs
//!   without an answer, as long as the subscribers lack fewer than 512 events each on average, and
//!   all together fewer than two million. No server is driven into dropping, so each has the same
//!   work; what is lost or comes twice all the same stands in columns of its own. "ended" counts
//!   subscriptions that the server closed.
//! - **Pipelining** favours who reads, and answers, many requests in one go. One POST at a time on
//!   each of 64 connections is another load: it measures how a server is woken 64 times. So the 16
//!   stay, and the axum peer too sends together what it answers together.
//! - **Paced** is an open loop: events leave on time whether or not the server keeps up. Latency is
//!   from the moment the POST is written to the moment the event has been read, by one clock in one
//!   thread.
//! - **CPU** is user and system time of all the server's processes, so it holds the kernel's work
//!   for its sends, and on loopback most of the receiving too: that part is the same for all who
//!   write as often.
//! - **Memory of the system** is what MemAvailable loses per connection, after the kernel has been
//!   asked to give back what its pools keep (which only root may; otherwise what one server leaves
//!   behind is the next one's gain). Both ends of a connection are on this machine, so it holds the
//!   kernel's part of both, and the little that the load generator keeps.
//! - **Two nodes** share a Redis that keeps nothing on the disk, and CPU is that of both and of Redis. What is published
//!   at one is received at the other. nchan stores in it and newswire commits to it, so that each can repair a loss; the
//!   axum peer only passes events on.
//! - **A journal** is in the directory for temporary files: where that is in memory, a sync costs nothing. A recovery finds
//!   its files in the page cache.
//! - nchan is left out where Debian's nginx and libnginx-mod-nchan are not installed; the floor,
//!   where history is needed; all but nchan, where a connection has several channels; io_uring, where the kernel refuses
//!   it. The report names what was left out.
//! - **`--calls`** counts the system calls of each server with `perf stat`, for `figures/PROFILE.md`. That needs root, and
//!   costs time: publish nothing else of such a run.
//!
//! The rest of the machine must be quiet, and open files allowed up to 20,000 (`ulimit -Hn`).

mod calls;
mod chart;
mod figures;
mod load;
mod net;
mod peer;
mod peer_actix;
mod peer_axum;
mod peer_axum_redis;
mod peer_common;
mod peer_epoll;
mod peer_floor;
mod peer_hyper;
mod peer_tail;
mod peer_uring;
mod probe;
mod scenarios;
mod self_test;
mod targets;
mod visits;
mod wire;

use figures::{Figures, Spread};
use lexopt::prelude::*;
use peer::{Peer, Stage};
use scenarios::{Bench, SCENARIOS};
use serde::Serialize;
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};
use targets::{Loss, Target};

/// What the rest of a machine may do during a measurement, in per cent of one core. The kernel's
/// own threads are in it. And in how many of all measurements it may do more, in per cent.
const QUIET: f64 = 20.0;
const DISTURBED: f64 = 10.0;

struct Options {
    newswire: Option<PathBuf>,
    before: Option<PathBuf>,
    out: PathBuf,
    only: Vec<String>,
    peers: Vec<Peer>,
    rounds: usize,
    quick: bool,
    calls: bool,
    returning: usize,
}

/// What is written to `figures.json`.
#[derive(Serialize)]
struct Report<'a> {
    date: &'a str,
    machine: &'a str,
    command: &'a str,
    rounds: usize,
    quick: bool,
    servers: &'a [String],
    left_out: &'a [String],
    losses: &'a [Loss],
    targets: &'a [Target],
    noise: Option<Noise>,
    #[serde(flatten)]
    figures: &'a Figures,
}

/// What the rest of the machine did, measurement by measurement: a ruined round is not seen in a
/// median.
#[derive(Serialize)]
struct Noise {
    noisy: bool,
    /// Measurements with more than [`QUIET`] of others, in per cent of all.
    disturbed: f64,
    /// What others took, in per cent of one core.
    median: f64,
    worst: f64,
}

impl Noise {
    /// Nothing, if nothing was measured.
    fn of(figures: &Figures) -> Option<Self> {
        let others: Vec<f64> = figures.values(scenarios::OTHERS).collect();
        let more = others.iter().filter(|others| **others > QUIET).count();
        let disturbed = more as f64 / others.len() as f64 * 100.0;
        let spread = Spread::of(others)?;
        Some(Self { noisy: disturbed > DISTURBED, disturbed, median: spread.median, worst: spread.most })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "peer") {
        return be_a_peer(&arguments[1..]);
    }
    let options = parse(arguments)?;
    probe::allow_open_files(20_000)?;
    fs::create_dir_all(&options.out)?;
    let begin = Instant::now();
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let (date, machine, command) = (&date[..10], probe::description(), command(&options));

    let stage = Stage::new(options.newswire, options.before, options.calls)?;
    let (peers, missing): (Vec<_>, Vec<_>) = options.peers.into_iter().partition(|peer| stage.lacks(*peer).is_none());
    let why = |peer: Peer| format!("{}: {}", peer.name(), stage.lacks(peer).unwrap_or_default());
    let missing: Vec<String> = missing.into_iter().map(why).collect();
    eprintln!("left out: {missing:?}");
    let servers: Vec<String> = peers.iter().map(|peer| stage.describe(*peer)).collect();
    let mut figures = Figures::default();
    let (peers, broken): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| {
        peer.is_pair() || {
            let outcome = stage.start(*peer).and_then(|server| self_test::run(*peer, &server));
            let failed = outcome.map_err(|error| format!("self test of {}: {error}", peer.name()));
            failed.map_err(|failure| figures.failures.push(failure)).is_ok()
        }
    });
    for peer in broken {
        eprintln!("{} is left out: it fails the self test", peer.name());
    }
    let Options { rounds, quick, returning, .. } = options;
    let mut bench = Bench { stage, peers, rounds, quick, returning, figures };
    for scenario in &SCENARIOS {
        if options.only.is_empty() || options.only.iter().any(|name| name == scenario.name) {
            (scenario.run)(&mut bench);
            eprintln!("\n{}", bench.figures.table(scenario.name));
        }
    }
    let figures = bench.figures;
    let (losses, targets) = (targets::losses(&figures), targets::targets(&figures, returning));
    println!("{date}, {machine}, {command}\n{}\n", servers.join("; "));
    println!("{}\n{}", targets::losses_table(&losses), targets::table(&targets));
    for missing in &missing {
        println!("LEFT OUT {missing}");
    }
    for scenario in &SCENARIOS {
        let table = figures.table(scenario.name);
        if table.lines().count() > 1 {
            println!("{}: {}\n\n{table}", scenario.name, scenario.about);
        }
    }
    for failure in &figures.failures {
        println!("FAILED {failure}");
    }
    let failures = figures.failures.len();
    let noise = Noise::of(&figures);
    if let Some(noise) = noise.as_ref().filter(|noise| noise.noisy) {
        println!(
            "NOISY: in {:.0} % of the measurements the rest of the machine took more than {QUIET} % \
             of a core, up to {:.0} %; do not publish this run",
            noise.disturbed, noise.worst
        );
    }

    let report = Report {
        date,
        machine: &machine,
        command: &command,
        rounds: options.rounds,
        quick: options.quick,
        servers: &servers,
        left_out: &missing,
        losses: &losses,
        targets: &targets,
        noise,
        figures: &figures,
    };
    fs::write(options.out.join("figures.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    let times = if options.rounds == 1 {
        "one round".to_owned()
    } else {
        format!("median of at least {} rounds", options.rounds)
    };
    let run = format!("{date}, {machine}\n{times}; figures.json has the command");
    for (file, svg) in chart::charts(&figures, &run) {
        fs::write(options.out.join(file), svg)?;
    }
    let took = humantime::format_duration(Duration::from_secs(begin.elapsed().as_secs()));
    println!("in {took}; figures and charts are in {}", options.out.display());
    match failures {
        0 => Ok(()),
        some => Err(format!("{some} measurements failed").into()),
    }
}

/// The bench starts itself for the peers that it contains.
fn be_a_peer(arguments: &[OsString]) -> Result<(), Box<dyn Error>> {
    let [name, page, redis @ ..] = arguments else {
        return Err("usage: newswire-bench peer NAME PAGE [REDIS-PORT]".into());
    };
    let page = fs::read(page)?;
    let redis = redis.first().and_then(|port| port.to_str()?.parse().ok());
    match name.to_str() {
        Some("axum") => peer_axum::serve(page, redis)?,
        Some("hyper") => peer_hyper::serve(page)?,
        Some("actix") => peer_actix::serve(page)?,
        Some("epoll") => peer_epoll::serve(page, 1)?,
        Some("epoll-2") => peer_epoll::serve(page, 2)?,
        Some("io-uring") => peer_uring::serve(page)?,
        Some("floor") => peer_floor::serve(page)?,
        _ => return Err("peers are axum, hyper, actix, epoll, epoll-2, io-uring and floor".into()),
    }
    Ok(())
}

fn parse(arguments: Vec<OsString>) -> Result<Options, lexopt::Error> {
    let mut options = Options {
        newswire: None,
        before: None,
        out: Path::new(env!("CARGO_MANIFEST_DIR")).join("figures"),
        only: Vec::new(),
        peers: Peer::ALL.to_vec(),
        rounds: 0,
        quick: false,
        calls: false,
        returning: 5_000,
    };
    let names = |value: OsString| -> Result<Vec<String>, lexopt::Error> {
        Ok(value.string()?.split(',').map(str::to_owned).collect())
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("newswire") => {
                options.newswire = Some(fs::canonicalize(parser.value()?).map_err(|error| error.to_string())?)
            }
            Long("before") => {
                options.before = Some(fs::canonicalize(parser.value()?).map_err(|error| error.to_string())?)
            }
            Long("out") => options.out = parser.value()?.into(),
            Long("only") => options.only = names(parser.value()?)?,
            Long("peers") => {
                let named = names(parser.value()?)?;
                if let Some(name) = named.iter().find(|name| Peer::ALL.iter().all(|peer| peer.name() != **name)) {
                    return Err(format!("no server {name}").into());
                }
                options.peers.retain(|peer| named.iter().any(|name| name == peer.name()));
            }
            Long("rounds") => options.rounds = parser.value()?.parse()?,
            Long("quick") => options.quick = true,
            Long("calls") => options.calls = true,
            Long("returning") => options.returning = parser.value()?.parse()?,
            _ => return Err(argument.unexpected()),
        }
    }
    if options.rounds == 0 {
        options.rounds = if options.quick { 1 } else { 3 };
    }
    if let Some(name) = options.only.iter().find(|name| SCENARIOS.iter().all(|scenario| scenario.name != **name)) {
        let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        return Err(format!("no scenario {name}; there are {}", known.join(", ")).into());
    }
    Ok(options)
}

/// How to run this again.
fn command(options: &Options) -> String {
    let mut flags = Vec::new();
    if options.quick {
        flags.push("--quick".to_owned());
    }
    if options.calls {
        flags.push("--calls".to_owned());
    }
    if options.rounds != if options.quick { 1 } else { 3 } {
        flags.push(format!("--rounds {}", options.rounds));
    }
    if let Some(before) = &options.before {
        flags.push(format!("--before {}", before.display()));
    }
    if options.returning != 5_000 {
        flags.push(format!("--returning {}", options.returning));
    }
    if options.peers.len() < Peer::ALL.len() {
        let names: Vec<&str> = options.peers.iter().map(|peer| peer.name()).collect();
        flags.push(format!("--peers {}", names.join(",")));
    }
    if !options.only.is_empty() {
        flags.push(format!("--only {}", options.only.join(",")));
    }
    match flags.is_empty() {
        true => "make bench".to_owned(),
        false => format!("make bench FLAGS=\"{}\"", flags.join(" ")),
    }
}
