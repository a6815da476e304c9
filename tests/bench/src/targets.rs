//! What newswire must reach, as ratios within one run.
//!
//! A ratio is one of figures of the same round, since what else the machine does changes from round
//! to round; what is judged is the median of these ratios.

use crate::figures::{Figures, Spread, align};
use crate::scenarios::*;
use serde::Serialize;
use std::thread;

#[derive(Serialize)]
pub struct Target {
    what: String,
    bound: Bound,
    /// In the rounds. Nothing, if one of the figures is missing.
    #[serde(flatten)]
    measured: Option<Spread>,
    met: Option<bool>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

pub fn targets(figures: &Figures) -> Vec<Target> {
    // Memory can come out as nothing or less where the rest of the machine is busy. That is not a
    // figure.
    let of = |scenario, case: &str, server, name| -> Vec<Option<f64>> {
        let figure = figures.find(scenario, case, server, name);
        let rounds = figure.map_or(&[][..], |figure| &figure.rounds);
        let positive = |value: &Option<f64>| value.filter(|value| *value > 0.0);
        rounds.iter().map(positive).collect()
    };
    let ours = |scenario, case: &str, name| of(scenario, case, "newswire", name);
    // Round by round, as far as there are both.
    let divide = |these: Vec<Option<f64>>, those: Vec<Option<f64>>| -> Vec<Option<f64>> {
        let pairs = these.into_iter().zip(those);
        pairs.map(|(this, that)| Some(this? / that?)).collect()
    };
    let mut targets = Vec::new();
    let mut add = |what: &str, bound: Bound, rounds: Vec<Option<f64>>| {
        let measured = Spread::of(rounds.into_iter().flatten());
        let met = measured.map(|measured| match bound {
            Bound::AtLeast(least) => measured.median >= least,
            Bound::AtMost(most) => measured.median <= most,
        });
        targets.push(Target { what: what.to_owned(), bound, measured, met });
    };
    use Bound::{AtLeast, AtMost};

    let (thousand, many) = (subscribers(1_000), subscribers(15_000));
    let (paced, alone, idle) = (paced_case(1_000), paced_case(1), idle_case());
    type OfPeers<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [(&'a str, Bound)]);
    let of_peers: [OfPeers<'_>; 7] = [
        (
            "flat out to 1,000: deliveries",
            FLAT_OUT,
            &thousand,
            DELIVERIES,
            &[("axum", AtLeast(5.0)), ("nchan", AtLeast(20.0))],
        ),
        (
            "paced to 1,000: CPU per delivery",
            PACED,
            &paced,
            CPU,
            &[("axum", AtMost(0.70)), ("nchan", AtMost(0.80)), ("floor", AtMost(1.10))],
        ),
        (
            "idle: system's memory",
            IDLE,
            &idle,
            SYSTEM_MEMORY,
            &[("nchan", AtMost(0.55)), ("axum", AtMost(0.30))],
        ),
        ("one subscriber: latency p50", PACED, &alone, P50, &[("floor", AtMost(1.3))]),
        (
            "own three of 100 channels, paced: CPU per delivery",
            VIEWS,
            VIEWS_PACED,
            CPU,
            &[("nchan", AtMost(0.80))],
        ),
        ("GET / on kept connections", PLAIN, KEPT, ANSWERS, &[("axum", AtLeast(ON_A_PAR))]),
        ("GET / on new connections", PLAIN, ANEW, ANSWERS, &[("axum", AtLeast(ON_A_PAR))]),
    ];
    for (what, scenario, case, name, bounds) in of_peers {
        for (peer, bound) in bounds {
            let rounds = divide(ours(scenario, case, name), of(scenario, case, peer, name));
            add(&format!("{what}, of {peer}'s"), *bound, rounds);
        }
    }
    add("idle: system's KB per connection", AtMost(6.0), ours(IDLE, &idle, SYSTEM_MEMORY));
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    add("idle: threads (cores + 4)", AtMost(cores as f64 + 4.0), ours(IDLE, &idle, THREADS));
    add(
        "stalled readers: the others' p99, with of without",
        AtMost(1.2),
        ours(STALLED, STALLED_CASE, P99_RATIO),
    );
    add(
        "15,000 subscribers: CPU per delivery, of that at 1,000",
        AtMost(1.3),
        divide(ours(GROWTH, &many, CPU), ours(GROWTH, &thousand, CPU)),
    );
    let journal = |server, case, name| of(JOURNAL, case, server, name);
    for (name, bound) in [(ANSWERS, AtLeast(0.8)), (P99, AtMost(1.5))] {
        let rounds = divide(
            journal("journal-interval", EIGHT_PUBLISHERS, name),
            journal("newswire", EIGHT_PUBLISHERS, name),
        );
        add(
            &format!("journal synced every second, 8 publishers: {name}, of memory's"),
            bound,
            rounds,
        );
    }
    add(
        "journal synced always: answers to 64 publishers, of those to one",
        AtLeast(15.0),
        divide(
            journal("journal-always", MANY_PUBLISHERS, ANSWERS),
            journal("journal-always", ONE_PUBLISHER, ANSWERS),
        ),
    );
    targets
}

/// Two servers that are equally fast differ by this much from run to run.
const ON_A_PAR: f64 = 0.95;

pub fn table(targets: &[Target]) -> String {
    let mut lines = vec![["target", "bound", "measured", ""].map(str::to_owned).to_vec()];
    for target in targets {
        let bound = match target.bound {
            Bound::AtLeast(least) => format!(">= {least}"),
            Bound::AtMost(most) => format!("<= {most}"),
        };
        let measured =
            target.measured.map_or_else(|| "-".to_owned(), |measured| measured.to_string());
        let verdict = match target.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        lines.push(vec![target.what.clone(), bound, measured, verdict.to_owned()]);
    }
    align(&lines)
}
