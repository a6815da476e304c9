//! A rule: its name, what it judges, why it matters, and the remedy.

use super::probe::Seen;
use Needs::*;
use std::fmt::Debug;
use std::time::Duration;

pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) needs: Needs,
    pub(super) judge: fn(&Seen) -> Finding,
    pub(super) why: &'static str,
    pub(super) remedy: &'static str,
}

/// Without which there is nothing to judge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Response,
    Stream,
    Events,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Pass,
    Info,
    Warn,
    Fail,
    Unjudged,
}

/// An outcome, and what was seen.
pub(super) type Finding = (Outcome, String);

pub(super) fn pass(seen: impl Into<String>) -> Finding {
    (Outcome::Pass, seen.into())
}

pub(super) fn info(seen: impl Into<String>) -> Finding {
    (Outcome::Info, seen.into())
}

pub(super) fn warn(seen: impl Into<String>) -> Finding {
    (Outcome::Warn, seen.into())
}

pub(super) fn fail(seen: impl Into<String>) -> Finding {
    (Outcome::Fail, seen.into())
}

/// Passes where nothing was found.
pub(super) fn none(what: &str, mut found: impl Iterator<Item = String>) -> Finding {
    match found.next() {
        None => pass(format!("no {what}")),
        Some(first) => warn(format!("{} {what}, first {}", found.count() + 1, shown(first))),
    }
}

/// Escaped, so that it cannot control a terminal, and not longer than a line.
pub(super) fn shown(value: impl Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(70) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// As long a wait as the reader of a page notices.
pub(super) const LATE: Duration = Duration::from_millis(500);
/// Events of so different times do not arrive at once unless they were held.
pub(super) const HELD: Duration = Duration::from_secs(1);

impl Rule {
    pub(super) fn judge(&self, seen: &Seen) -> Finding {
        let missing = match self.needs {
            Response if seen.first.response.is_err() => "there is no response",
            Stream | Events if !seen.first.is_stream() => "there is no event stream",
            Events if seen.first.events.is_empty() => "no event was seen",
            _ => return (self.judge)(seen),
        };
        (Outcome::Unjudged, missing.to_owned())
    }
}
