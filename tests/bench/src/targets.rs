//! Where newswire loses, and what it must reach, as ratios within one run.
//!
//! A ratio is one of figures of the same round, since what else the machine does changes from round
//! to round; what is judged is the median of these ratios.

use crate::figures::{Figure, Figures, Short, Spread, Unit, align};
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

/// A figure in which some other server is better than newswire.
#[derive(Serialize)]
pub struct Loss {
    server: &'static str,
    scenario: &'static str,
    case: String,
    figure: &'static str,
    unit: Unit,
    ours: f64,
    /// All that are better, the best first.
    better: Vec<Better>,
}

#[derive(Serialize)]
struct Better {
    than: &'static str,
    theirs: f64,
    /// How many times better, in the rounds.
    #[serde(flatten)]
    ratio: Spread,
}

/// What is judged, and whether more is better.
const JUDGED: [(&str, bool); 7] = [
    (DELIVERIES, true),
    (ANSWERS, true),
    (CPU, false),
    (CPU_ANSWER, false),
    (P99, false),
    (WHOLE, false),
    (SYSTEM_MEMORY, false),
];

/// The rows that newswire loses, the worst first. The floor is no server: it is left out, as are other builds of newswire.
pub fn losses(figures: &Figures) -> Vec<Loss> {
    let is_ours = |figure: &&Figure| figure.server.starts_with("newswire");
    let is_theirs = |server: &str| {
        let no_peers = ["newswire", "before", "floor", "journal"];
        no_peers.iter().all(|name| !server.starts_with(name))
    };
    let mut losses = Vec::new();
    for ours in figures.figures.iter().filter(is_ours) {
        let Some((_, is_more)) = JUDGED.iter().find(|(name, _)| *name == ours.name) else {
            continue;
        };
        let mut better = Vec::new();
        for theirs in figures.figures.iter().filter(|figure| is_theirs(figure.server)) {
            if (theirs.scenario, &theirs.case, theirs.name) != (ours.scenario, &ours.case, ours.name) {
                continue;
            }
            let (more, less) = if *is_more { (theirs, ours) } else { (ours, theirs) };
            let ratio = Spread::of(divide(&positive(more), &positive(less)).into_iter().flatten());
            better.extend(ratio.filter(|ratio| ratio.median > 1.0).map(|ratio| Better {
                than: theirs.server,
                theirs: theirs.median,
                ratio,
            }));
        }
        better.sort_by(|one, other| other.ratio.median.total_cmp(&one.ratio.median));
        if !better.is_empty() {
            losses.push(Loss {
                server: ours.server,
                scenario: ours.scenario,
                case: ours.case.clone(),
                figure: ours.name,
                unit: ours.unit,
                ours: ours.median,
                better,
            });
        }
    }
    losses.sort_by(|one: &Loss, other| other.better[0].ratio.median.total_cmp(&one.better[0].ratio.median));
    losses
}

pub fn losses_table(losses: &[Loss]) -> String {
    if losses.is_empty() {
        return "newswire loses nowhere in this run\n".to_owned();
    }
    let heads = ["newswire loses", "figure", "ours", "best", "times", "", "also better"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for loss in losses {
        let best = &loss.better[0];
        let also: Vec<&str> = loss.better[1..].iter().map(|better| better.than).collect();
        let of = match loss.server {
            "newswire" => String::new(),
            other => format!(" ({other})"),
        };
        lines.push(vec![
            format!("{}, {}{of}", loss.scenario, loss.case),
            loss.figure.to_owned(),
            format!("{} {}", Short(loss.ours), loss.unit.name()),
            format!("{} {}", Short(best.theirs), best.than),
            best.ratio.to_string(),
            if best.ratio.least > 1.0 { "" } else { "overlaps" }.to_owned(),
            also.join(", "),
        ]);
    }
    align(&lines)
}

/// Memory can come out as nothing or less where the rest of the machine is busy. That is not a figure.
fn positive(figure: &Figure) -> Vec<Option<f64>> {
    figure.rounds.iter().map(|value| value.filter(|value| *value > 0.0)).collect()
}

/// Round by round, as far as there are both.
fn divide(these: &[Option<f64>], those: &[Option<f64>]) -> Vec<Option<f64>> {
    let pairs = these.iter().zip(those);
    pairs.map(|(this, that)| Some((*this)? / (*that)?)).collect()
}

pub fn targets(figures: &Figures, returning: usize) -> Vec<Target> {
    let of = |scenario, case: &str, server, name| -> Vec<Option<f64>> {
        figures.find(scenario, case, server, name).map(positive).unwrap_or_default()
    };
    let ours = |scenario, case: &str, name| of(scenario, case, "newswire", name);
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
    let storm = storm_case(returning);
    type OfPeers<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [(&'a str, Bound)]);
    let of_peers: [OfPeers<'_>; 18] = [
        (
            "flat out to 1,000: deliveries",
            FLAT_OUT,
            &thousand,
            DELIVERIES,
            &[("axum", AtLeast(5.0)), ("nchan", AtLeast(20.0))],
        ),
        ("flat out to 1,000: CPU", FLAT_OUT, &thousand, CPU, &[(BEST, AtMost(0.9))]),
        (
            "paced to 1,000: CPU",
            PACED,
            &paced,
            CPU,
            &[("epoll", AtMost(1.05)), ("axum", AtMost(0.70)), ("nchan", AtMost(0.80)), ("floor", AtMost(1.10))],
        ),
        ("paced to 1,000: p99", PACED, &paced, P99, &[(BEST, AtMost(1.0))]),
        ("1,000 channels: CPU", MANY_CHANNELS, MANY_PACED, CPU, &[("epoll", AtMost(1.0))]),
        ("1,000 channels: p99", MANY_CHANNELS, MANY_PACED, P99, &[("epoll", AtMost(1.1))]),
        ("100 KB to 200: CPU", BIG, BIG_CASE, CPU, &[("epoll", AtMost(1.05))]),
        ("100 KB to 200: p99", BIG, BIG_CASE, P99, &[("epoll", AtMost(1.05))]),
        ("slow readers: CPU", SLOW, SLOW_CASE, CPU, &[("epoll", AtMost(1.05))]),
        ("slow readers: p99", SLOW, SLOW_CASE, P99, &[("epoll", AtMost(1.05))]),
        ("GET / on kept connections", PLAIN, KEPT, ANSWERS, &[("hyper", AtLeast(1.0)), ("axum", AtLeast(ON_A_PAR))]),
        ("GET / on kept connections: CPU", PLAIN, KEPT, CPU_ANSWER, &[("hyper", AtMost(1.1))]),
        ("GET / on new connections", PLAIN, ANEW, ANSWERS, &[("epoll", AtLeast(1.0)), ("axum", AtLeast(ON_A_PAR))]),
        ("storm: last whole", COMING_BACK, &storm, WHOLE, &[("axum", AtMost(1.0))]),
        ("storm: p99 of those who stayed", COMING_BACK, &storm, P99, &[("epoll", AtMost(1.0))]),
        ("idle: system's memory", IDLE, &idle, SYSTEM_MEMORY, &[("nchan", AtMost(0.55)), ("axum", AtMost(0.30))]),
        ("one subscriber: p50", PACED, &alone, P50, &[("floor", AtMost(1.3))]),
        ("own three of 100 channels: CPU", VIEWS, VIEWS_PACED, CPU, &[("nchan", AtMost(0.80))]),
    ];
    for (what, scenario, case, name, bounds) in of_peers {
        for (peer, bound) in bounds {
            let best = || figures.best(scenario, case, name, &RIVALS).unwrap_or_default();
            let peer = if *peer == BEST { best() } else { peer };
            let rounds = divide(&ours(scenario, case, name), &of(scenario, case, peer, name));
            let of = if peer.is_empty() { "the best" } else { peer };
            add(&format!("{what}, of {of}'s"), *bound, rounds);
        }
    }
    for (name, what, peer) in [(WHOLE, "last whole", "hyper"), (P99, "p99 of those who stayed", "epoll")] {
        add(
            &format!("storm, inherited listener: {what}, of {peer}'s"),
            AtMost(1.0),
            divide(&of(COMING_BACK, &storm, "newswire-inherited", name), &of(COMING_BACK, &storm, peer, name)),
        );
    }
    add("idle: system's KB per connection", AtMost(4.7), ours(IDLE, &idle, SYSTEM_MEMORY));
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    add("idle: threads (cores + 4)", AtMost(cores as f64 + 4.0), ours(IDLE, &idle, THREADS));
    add("stalled readers: the others' p99, with of without", AtMost(1.2), ours(STALLED, STALLED_CASE, P99_RATIO));
    add(
        "15,000 subscribers: CPU per delivery, of that at 1,000",
        AtMost(1.3),
        divide(&ours(GROWTH, &many, CPU), &ours(GROWTH, &thousand, CPU)),
    );
    let journal = |server, case, name| of(JOURNAL, case, server, name);
    for (name, bound) in [(ANSWERS, AtLeast(0.8)), (P99, AtMost(1.5))] {
        let rounds =
            divide(&journal("journal-interval", EIGHT_PUBLISHERS, name), &journal("newswire", EIGHT_PUBLISHERS, name));
        add(&format!("journal synced every second, 8 publishers: {name}, of memory's"), bound, rounds);
    }
    add(
        "journal synced always: answers to 64 publishers, of those to one",
        AtLeast(15.0),
        divide(
            &journal("journal-always", MANY_PUBLISHERS, ANSWERS),
            &journal("journal-always", ONE_PUBLISHER, ANSWERS),
        ),
    );
    targets
}

/// Whichever of these has the least in this run.
const BEST: &str = "best";
const RIVALS: [&str; 7] = ["axum", "hyper", "actix", "epoll", "epoll-2", "io-uring", "nchan"];

/// Two servers that are equally fast differ by this much from run to run.
const ON_A_PAR: f64 = 0.95;

pub fn table(targets: &[Target]) -> String {
    let mut lines = vec![["ratio", "asked", "seen", ""].map(str::to_owned).to_vec()];
    for target in targets {
        let bound = match target.bound {
            Bound::AtLeast(least) => format!(">= {least}"),
            Bound::AtMost(most) => format!("<= {most}"),
        };
        let measured = target.measured.map_or_else(|| "-".to_owned(), |measured| measured.to_string());
        let verdict = match target.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        lines.push(vec![target.what.clone(), bound, measured, verdict.to_owned()]);
    }
    align(&lines)
}
