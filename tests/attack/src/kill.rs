//! The process ends at any moment, under load, and begins again: nothing is repeated as new, every
//! loss is told as a gap, and ids go on growing. With a journal nothing that was acknowledged is lost,
//! and no gap is told but where the channel has moved on.

use crate::crowd::play;
use crate::oracle::{ARGUMENTS, Findings};
use crate::report::Report;
use crate::server::Newswire;
use crate::stage::{Channel, Selection, Stage, Tallies};
use crate::{Order, Outcome};
use fastrand::Rng;
use std::thread;
use std::time::Duration;

const CHANNELS: usize = 3;

/// So many lives are judged together, by an oracle that remembers all of them.
const KILLS_PER_CAMPAIGN: u64 = 25;

pub fn run(order: &Order, report: &Report) -> Outcome<()> {
    let tallies = Tallies::default();
    let journal = std::env::temp_dir().join(format!("newswire-kill-{}", std::process::id()));
    let directory = journal.to_str().ok_or("the directory for temporary files is not UTF-8")?;
    let mut arguments = ARGUMENTS.to_vec();
    if let Some(sync) = &order.journal {
        arguments.extend(["--journal", directory, "--journal-sync", sync]);
    }
    let mut server = Newswire::start("kill", report, &order.newswire, &arguments)?;
    let mut random = Rng::with_seed(order.seed);
    let (mut all, mut kills) = (Findings::default(), 0);
    while kills < order.rounds && server.is_alive() {
        let now = KILLS_PER_CAMPAIGN.min(order.rounds - kills);
        let remembers = order.journal.is_some();
        let found = campaign(&mut server, report, &tallies, kills, now, remembers, &mut random);
        kills += now;
        for violation in &found.violations {
            report.violation(violation.as_str());
        }
        all.add(found);
        report.row(format!("after {kills} kills"), format!("{} events, {} gaps told", all.events, all.gaps));
    }
    report.row("kills", kills);
    report.row("events", all.events);
    tallies.judge(report, &all);
    report.row("gaps with nothing lost after all", all.needless_gaps);
    report.row("after", server.vitals()?);
    if order.journal.is_some() {
        drop(server);
        std::fs::remove_dir_all(journal)?;
    }
    Ok(())
}

fn campaign(
    server: &mut Newswire<'_>,
    report: &Report,
    tallies: &Tallies,
    first: u64,
    kills: u64,
    remembers: bool,
    random: &mut Rng,
) -> Findings {
    let mut stage = Stage::new(server.address, true, report, tallies);
    stage.remembers = remembers;
    let channels: Vec<_> = (0..CHANNELS).map(|at| Channel::new(format!("kill-{first}-{at}"))).collect();
    let selections: Vec<_> = channels.iter().map(Selection::of).collect();
    play(&stage, &channels, &selections, random, |random| {
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
