//! Mixed publishing, subscribing, cutting, stalling, completing, for as long as you like: nothing
//! may be lost without a gap, come twice or out of order, and nothing may grow.
//!
//! It goes in rounds of a few seconds. Each has channels of its own, which are completed at its
//! end, so that each client is told the end and 204, and the oracle needs no memory beyond a round.

use crate::crowd::play;
use crate::oracle::{ARGUMENTS, Findings};
use crate::report::{Report, hold};
use crate::server::{Newswire, Vitals, is_all_gone};
use crate::stage::{Channel, Stage, Tallies};
use crate::{Order, Outcome};
use fastrand::Rng;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const CHANNELS: usize = 6;

/// A table of channels that is full after four rounds: from then on memory has no reason to grow.
const TABLE: [&str; 4] = ["--max-connections", "1000", "--max-channels", "24"];

pub fn run(order: &Order, report: &Report) -> Outcome<()> {
    let (what, tallies) = ("soak", Tallies::default());
    let arguments = [&TABLE[..], &ARGUMENTS].concat();
    let server = Newswire::start(what, report, &order.newswire, &arguments)?;
    let before = server.vitals_at_first()?;
    report.row("before", before);

    let samples = Mutex::new(Vec::new());
    let is_over = AtomicBool::new(false);
    let mut random = Rng::with_seed(order.seed);
    let mut all = Findings::default();
    let mut rounds = 0u64;
    thread::scope(|scope| {
        scope.spawn(|| server.watch(&is_over, &samples));
        let deadline = Instant::now() + Duration::from_secs_f64(order.minutes * 60.0);
        while Instant::now() < deadline && !is_over.load(Relaxed) {
            let found = round(&server, report, &tallies, rounds, &mut random);
            for violation in &found.violations {
                report.violation(violation.as_str());
            }
            all.add(found);
            rounds += 1;
            if let Some(vitals) = hold(&samples).last().filter(|_| rounds.is_multiple_of(10)) {
                report.row(format!("after {rounds} rounds, {} events", all.events), vitals);
            }
        }
        is_over.store(true, Relaxed);
    });

    report.row("rounds", rounds);
    report.row("events", all.events);
    tallies.judge(report, &all);
    judge_memory(report, &hold(&samples));
    let after = server.vitals_at_rest(before, Duration::from_secs(30))?;
    report.row("after", after);
    is_all_gone(report, what, before, after);
    Ok(())
}

fn round(
    server: &Newswire<'_>,
    report: &Report,
    tallies: &Tallies,
    round: u64,
    random: &mut Rng,
) -> Findings {
    let stage = Stage::new(server.address, false, report, tallies);
    let channels: Vec<_> =
        (0..CHANNELS).map(|at| Channel::new(format!("soak-{round}-{at}"))).collect();
    play(&stage, &channels, random, |random| {
        thread::sleep(Duration::from_millis(random.u64(6_000..12_000)));
    })
}

/// The middle of what was resident in a quarter of the samples, early and late. A leak grows all
/// the time.
fn judge_memory(report: &Report, samples: &[Vitals]) {
    let quarter = samples.len() / 4;
    // Until the table is full, which takes about a minute, memory grows.
    if quarter < 75 {
        report.row("memory", "too short to judge");
        return;
    }
    let middle = |samples: &[Vitals]| {
        let mut resident: Vec<_> = samples.iter().map(|vitals| vitals.resident_kib).collect();
        resident.sort_unstable();
        resident[resident.len() / 2]
    };
    let (early, late) = (middle(&samples[quarter..2 * quarter]), middle(&samples[3 * quarter..]));
    let most = samples.iter().map(|vitals| vitals.resident_kib).max().unwrap_or(0);
    let threads = samples.iter().map(|vitals| vitals.threads).max().unwrap_or(0);
    report.row(
        "resident in the second quarter, the last, most",
        format!("{early}, {late}, {most} KiB"),
    );
    report.row("threads at most", threads);
    report.expect(
        late <= early + early / 10 + 512,
        format!("memory grew from {early} to {late} KiB"),
    );
}
