//! Many that mean ill, and one client that means well: it is to be served all the time, and when
//! they have gone, nothing of them is left.

use crate::report::Report;
use crate::siege::{SIEGES, besiege};
use crate::{Order, Outcome, shortage, visits};

pub fn run(order: &Order) -> Outcome<Report> {
    let report = Report::new();
    let is_wanted = |name| order.only.as_deref().is_none_or(|only| only == name);
    for siege in SIEGES.iter().filter(|siege| is_wanted(siege.name)) {
        besiege(order, &report, siege)?;
    }
    type Part = fn(&Order, &Report) -> Outcome<()>;
    let parts: [(&str, Part); 4] = [
        ("descriptors", shortage::descriptors),
        ("threads", shortage::threads),
        ("directory", shortage::directory),
        ("short", visits::run),
    ];
    for (_, part) in parts.iter().filter(|(name, _)| is_wanted(name)) {
        part(order, &report)?;
    }
    Ok(report)
}
