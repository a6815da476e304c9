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
    let ratio = |scenario, case: &str, name, peer| {
        divide(ours(scenario, case, name), of(scenario, case, peer, name))
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

    let thousand = subscribers(1_000);
    add(
        "flat out to 1,000: deliveries, of axum's",
        AtLeast(5.0),
        ratio(FLAT_OUT, &thousand, DELIVERIES, "axum"),
    );
    add(
        "flat out to 1,000: deliveries, of nchan's",
        AtLeast(20.0),
        ratio(FLAT_OUT, &thousand, DELIVERIES, "nchan"),
    );
    let paced = paced_case(1_000);
    add(
        "paced to 1,000: CPU per delivery, of axum's",
        AtMost(0.70),
        ratio(PACED, &paced, CPU, "axum"),
    );
    add(
        "paced to 1,000: CPU per delivery, of nchan's",
        AtMost(0.80),
        ratio(PACED, &paced, CPU, "nchan"),
    );
    add(
        "paced to 1,000: CPU per delivery, of the floor's",
        AtMost(1.10),
        ratio(PACED, &paced, CPU, "floor"),
    );
    let idle = idle_case();
    let memory = |peer| ratio(IDLE, &idle, SYSTEM_MEMORY, peer);
    add("idle: system's KB per connection", AtMost(6.0), ours(IDLE, &idle, SYSTEM_MEMORY));
    add("idle: system's memory, of nchan's", AtMost(0.55), memory("nchan"));
    add("idle: system's memory, of axum's", AtMost(0.30), memory("axum"));
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    add("idle: threads (cores + 4)", AtMost(cores as f64 + 4.0), ours(IDLE, &idle, THREADS));
    add(
        "one subscriber: latency p50, of the floor's",
        AtMost(1.3),
        ratio(PACED, &paced_case(1), P50, "floor"),
    );
    add(
        "stalled readers: the others' p99, with of without",
        AtMost(1.2),
        ours(STALLED, STALLED_CASE, P99_RATIO),
    );
    add(
        "own three of 100 channels, paced: CPU per delivery, of nchan's",
        AtMost(0.80),
        ratio(VIEWS, VIEWS_PACED, CPU, "nchan"),
    );
    let many = subscribers(15_000);
    add(
        "15,000 subscribers: CPU per delivery, of that at 1,000",
        AtMost(1.3),
        divide(ours(GROWTH, &many, CPU), ours(GROWTH, &thousand, CPU)),
    );
    add(
        "GET / on kept connections, of axum's",
        AtLeast(ON_A_PAR),
        ratio(PLAIN, KEPT, ANSWERS, "axum"),
    );
    add(
        "GET / on new connections, of axum's",
        AtLeast(ON_A_PAR),
        ratio(PLAIN, ANEW, ANSWERS, "axum"),
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
