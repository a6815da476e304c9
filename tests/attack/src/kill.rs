//! The process ends at any moment, under load, and begins again: nothing is repeated as new, every
//! loss is told as a gap, and ids go on growing.

use crate::crowd::{Channel, HABITS, Publisher, Stage, Subscriber, Tallies};
use crate::oracle::{Findings, judge};
use crate::report::Report;
use crate::server::Newswire;
use crate::{Order, Outcome};
use fastrand::Rng;
use std::thread;
use std::time::Duration;

const CHANNELS: usize = 3;
const PUBLISHERS: usize = 2;

/// Histories that clients outrun (`oracle::KEPT`).
const ARGUMENTS: [&str; 6] = [
    "--history-events",
    "500",
    "--history-bytes",
    "262144",
    "--heartbeat",
    "1",
];

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
    report.row("events seen by clients", all.seen);
    report.row("gaps told", all.gaps);
    report.row("of them, with nothing lost after all", all.needless_gaps);
    report.row("ends told", all.ends);
    tallies.tell(report);
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
    let channels: Vec<_> = (0..CHANNELS)
        .map(|at| Channel::new(format!("kill-{first}-{at}")))
        .collect();
    let mut found = Findings::default();
    thread::scope(|scope| {
        let stage = &stage;
        let (mut publishers, mut subscribers) = (Vec::new(), Vec::<Vec<_>>::new());
        for channel in &channels {
            for number in 0..PUBLISHERS {
                let publisher = Publisher::new(stage, channel, number as u32, random.u64(..));
                publishers.push(scope.spawn(move || publisher.run()));
            }
            let start = |habit| {
                let subscriber = Subscriber::new(stage, channel, habit, random.u64(..));
                scope.spawn(move || subscriber.run())
            };
            subscribers.push(HABITS.iter().map(start).collect());
        }
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(random.u64(20..1_000)));
            let pause = Duration::from_millis(random.u64(..30));
            if let Err(error) = server.kill_and_restart(pause) {
                report.violation(format!("it does not start again: {error}"));
                break;
            }
        }
        stage.quieten();
        for publisher in publishers {
            report.expect(publisher.join().is_ok(), "a publisher panicked");
        }
        for channel in &channels {
            // Without it, what a client saw last may lie in a life before this one.
            Publisher::new(stage, channel, PUBLISHERS as u32, random.u64(..)).publish_last();
            stage.complete(channel);
        }
        stage.send_home();
        for (channel, subscribers) in channels.iter().zip(subscribers) {
            let logs: Vec<_> = subscribers
                .into_iter()
                .filter_map(|one| one.join().ok())
                .collect();
            report.expect(logs.len() == HABITS.len(), "a subscriber panicked");
            found.add(judge(&channel.name, &channel.sent, &logs, false));
        }
    });
    found
}
