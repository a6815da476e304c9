//! Many attackers, and one well-behaved client: it must be served all the time, and when
//! they have gone, nothing of them is left.

use crate::report::Report;
use crate::siege::{SIEGES, besiege};
use crate::{Order, Outcome, shortage, views, visits};

type Part = fn(&Order, &Report) -> Outcome<()>;

const PARTS: [(&str, Part); 5] = [
    ("descriptors", shortage::descriptors),
    ("threads", shortage::threads),
    ("directory", shortage::directory),
    ("views", views::run),
    ("short", visits::run),
];

pub fn run(order: &Order, report: &Report) -> Outcome<()> {
    let is_wanted = |name| order.only.as_deref().is_none_or(|only| only == name);
    let mut done = 0;
    // One that cannot go on does not keep the others from it.
    let mut conclude = |name: &str, outcome: Outcome<()>| {
        done += 1;
        if let Err(error) = outcome {
            report.violation(format!("{name} could not go on: {error}"));
        }
    };
    for siege in SIEGES.iter().filter(|siege| is_wanted(siege.name)) {
        conclude(siege.name, besiege(order, report, siege));
    }
    for (name, part) in PARTS.iter().filter(|(name, _)| is_wanted(name)) {
        conclude(name, part(order, report));
    }
    match done {
        0 => Err("--only takes a part that there is; see --help".into()),
        _ => Ok(()),
    }
}
