//! What a rule finds: an outcome, and what was seen as a sentence.

use super::observation::Exchange;
use Outcome::*;
use newswire::http::Status;
use std::fmt::Debug;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Pass,
    Info,
    Warn,
    Fail,
    Unjudged,
}

impl Outcome {
    pub(super) fn unless(self, is_right: bool) -> Outcome {
        if is_right { Pass } else { self }
    }
}

/// An outcome, and what was seen.
pub(super) type Finding = (Outcome, String);

/// Passes where nothing was found.
pub(super) fn pass_if_none(what: &str, mut found: impl Iterator<Item = String>) -> Finding {
    match found.next() {
        None => (Pass, format!("no {what}")),
        Some(first) => (Warn, format!("{} {what}, first {}", found.count() + 1, shown(first))),
    }
}

impl Exchange {
    /// What the head says in this field.
    pub(super) fn said(&self, name: &str) -> String {
        let Ok(response) = &self.response else { return self.is_answered().1 };
        match response.values(name).collect::<Vec<_>>() {
            values if values.is_empty() => format!("there is no {name}"),
            values => format!("{name} is {}", shown(values.join(", "))),
        }
    }

    pub(super) fn is_answered(&self) -> Finding {
        match &self.response {
            Err(sentence) => (Warn, sentence.clone()),
            Ok(response) => (Warn.unless(response.status == Status::OK), response.status.to_string()),
        }
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

/// Events of so different times do not arrive at once unless they were held.
pub(super) const HELD: Duration = Duration::from_secs(1);
