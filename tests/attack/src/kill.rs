//! The process ends at any moment, under load, and begins again: nothing is repeated as new, every
//! loss is told as a gap, and ids go on growing.

use crate::crowd::play;
use crate::oracle::{ARGUMENTS, Findings};
use crate::report::Report;
use crate::server::Newswire;
use crate::stage::{Channel, Stage, Tallies};
use crate::{Order, Outcome};
use fastrand::Rng;
use std::thread;
use std::time::Duration;

const CHANNELS: usize = 3;

/// So many lives are judged together, by an oracle that remembers all of them.
const KILLS_PER_CAMPAIGN: u64 = 25;

pub fn run(order: &Order, report: &Report) -> Outcome<()> {
    let tallies = Tallies::default();
    let mut server = Newswire::start("kill", report, &order.newswire, &ARGUMENTS)?;
    let mut random = Rng::with_seed(order.seed);
    let (mut all, mut kills) = (Findings::default(), 0);
    while kills < order.rounds && server.is_alive() {
        let now = KILLS_PER_CAMPAIGN.min(order.rounds - kills);
        let found = campaign(&mut server, report, &tallies, kills, now, &mut random);
        kills += now;
        for violation in &found.violations {
            report.violation(violation.as_str());
        }
        all.add(found);
        report.row(
            format!("after {kills} kills"),
            format!("{} events, {} gaps told", all.events, all.gaps),
        );
    }
    report.row("kills", kills);
    report.row("events", all.events);
    tallies.judge(report, &all);
    report.row("gaps with nothing lost after all", all.needless_gaps);
    report.row("after", server.vitals()?);
    Ok(())
}

fn campaign(
    server: &mut Newswire<'_>,
    report: &Report,
    tallies: &Tallies,
    first: u64,
    kills: u64,
    random: &mut Rng,
) -> Findings {
    let stage = Stage::new(server.address, true, report, tallies);
    let channels: Vec<_> =
        (0..CHANNELS).map(|at| Channel::new(format!("kill-{first}-{at}"))).collect();
    play(&stage, &channels, random, |random| {
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(random.u64(20..1_000)));
            let pause = Duration::from_millis(random.u64(..30));
            if let Err(error) = server.kill_and_restart(pause) {
                report.violation(format!("it does not start again: {error}"));
                break;
            }
        }
    })
}
