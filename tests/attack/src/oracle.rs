//! What every client of a channel must have seen, given what was published and acknowledged.
//!
//! The truth about a channel is put together at the end: the ids that publishers were told, and
//! those that any client saw. Events that nobody acknowledged, because the connection or the
//! process ended first, may be part of it or not; but for everybody alike.

use crate::payload::{Id, Payload};
use crate::report::hold;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::Excluded;
use std::sync::Mutex;
use std::time::Instant;

/// What publishers did, in a channel.
#[derive(Default)]
pub struct Sent {
    acknowledged: Mutex<Vec<Acknowledged>>,
    /// Sent, and no answer.
    uncertain: Mutex<HashSet<Payload>>,
}

/// One event, or a run of lines, of which only the last one's id is told.
struct Acknowledged {
    payloads: Vec<Payload>,
    last_id: Id,
    started: Instant,
}

impl Sent {
    pub fn acknowledged(&self, payloads: Vec<Payload>, last_id: Id, started: Instant) {
        hold(&self.acknowledged).push(Acknowledged {
            payloads,
            last_id,
            started,
        });
    }

    pub fn uncertain(&self, payloads: impl IntoIterator<Item = Payload>) {
        hold(&self.uncertain).extend(payloads);
    }

    pub fn count(&self) -> usize {
        hold(&self.acknowledged)
            .iter()
            .map(|sent| sent.payloads.len())
            .sum()
    }
}

/// What one client saw, in order.
#[derive(Default)]
pub struct Log {
    pub name: String,
    pub seen: Vec<Seen>,
    /// It was told 204 at the very end.
    pub finished: bool,
}

pub enum Seen {
    /// It subscribed without a last event ID; it had the head of the answer at this moment.
    Fresh(Instant),
    /// It asked for all that is kept.
    Earliest,
    /// It was told that something may be missing.
    Gap,
    Event(Id, Payload),
    /// It was told the end.
    End,
}

/// What was found, beside the violations.
#[derive(Default)]
pub struct Findings {
    pub violations: Vec<String>,
    pub events: u64,
    pub seen: u64,
    pub gaps: u64,
    /// Gaps that hid nothing. After a restart no server can know; before, it must.
    pub needless_gaps: u64,
    pub ends: u64,
}

impl Findings {
    pub fn add(&mut self, other: Findings) {
        self.violations.extend(other.violations);
        self.events += other.events;
        self.seen += other.seen;
        self.gaps += other.gaps;
        self.needless_gaps += other.needless_gaps;
        self.ends += other.ends;
    }
}

/// Judges the logs of a channel that is completed and quiet. `one_life` says that the server was
/// never restarted.
pub fn judge(channel: &str, sent: &Sent, logs: &[Log], one_life: bool) -> Findings {
    let mut findings = Findings::default();
    let mut violations = Vec::new();
    let acknowledged = hold(&sent.acknowledged);
    let uncertain = hold(&sent.uncertain);

    // Each id means one event, each event has one id.
    let mut truth: BTreeMap<Id, Payload> = BTreeMap::new();
    let last_ids = acknowledged
        .iter()
        .filter_map(|sent| Some((sent.last_id, *sent.payloads.last()?)));
    let seen = logs
        .iter()
        .flat_map(|log| &log.seen)
        .filter_map(|seen| match seen {
            Seen::Event(id, payload) => Some((*id, *payload)),
            _ => None,
        });
    for (id, payload) in last_ids.chain(seen) {
        let known = *truth.entry(id).or_insert(payload);
        if known != payload {
            violations.push(format!("{id} is {known:?} and {payload:?}"));
        }
    }
    let mut ids: HashMap<Payload, Id> = HashMap::new();
    for (&id, &payload) in &truth {
        if let Some(other) = ids.insert(payload, id) {
            violations.push(format!("{payload:?} is {other} and {id}"));
        }
    }

    // Nothing that was never sent; a publisher's own in their order. What he did not wait for to be
    // acknowledged may still have been on its way when he went on.
    let certain: HashSet<Payload> = acknowledged
        .iter()
        .flat_map(|sent| &sent.payloads)
        .copied()
        .collect();
    let mut newest: HashMap<u32, u32> = HashMap::new();
    for (id, payload) in &truth {
        if certain.contains(payload) {
            let before = newest.insert(payload.publisher, payload.number);
            if let Some(before) = before.filter(|&before| before >= payload.number) {
                violations.push(format!("{id} is {payload:?}, after number {before}"));
            }
        } else if !uncertain.contains(payload) {
            violations.push(format!("{id} is {payload:?}, which nobody published"));
        }
    }
    findings.events = truth.len() as u64;

    let last = truth.last_key_value().map(|(&id, _)| id);
    for log in logs {
        let mut judged = Judged::default();
        for seen in &log.seen {
            findings.ends += u64::from(matches!(seen, Seen::End));
            if let Err(violation) = judged.take(seen, &truth) {
                violations.push(format!("{}: {violation}", log.name));
            }
        }
        findings.seen += judged.events;
        findings.gaps += judged.gaps;
        findings.needless_gaps += judged.needless_gaps;
        if one_life && judged.needless_gaps > 0 {
            violations.push(format!(
                "{}: {} gaps that hid nothing",
                log.name, judged.needless_gaps
            ));
        }
        if !log.finished {
            violations.push(format!("{} was never told 204", log.name));
        } else if judged.at.is_some() && judged.at != last {
            violations.push(format!(
                "{} was told 204 at {:?}, but the last is {last:?}",
                log.name, judged.at
            ));
        }
        // Who was there before an event was published gets it, or is told.
        for fresh in &judged.fresh {
            let missed = acknowledged.iter().find(|sent| {
                sent.started > fresh.at && fresh.first.is_none_or(|first| sent.last_id < first)
            });
            if let Some(missed) = missed.filter(|_| !fresh.may_have_missed) {
                violations.push(format!(
                    "{} was there, and never saw {}",
                    log.name, missed.last_id
                ));
            }
        }
        // Who was there from the beginning and never told of a gap has seen all.
        if let Some(fresh) = judged
            .fresh
            .first()
            .filter(|_| judged.gaps == 0 && judged.fresh.len() == 1)
        {
            let all = log.seen.iter().filter_map(|seen| match seen {
                Seen::Event(_, payload) => Some(*payload),
                _ => None,
            });
            let all: HashSet<Payload> = all.collect();
            let later = acknowledged.iter().filter(|sent| sent.started > fresh.at);
            let missing = later
                .flat_map(|sent| &sent.payloads)
                .filter(|payload| !all.contains(payload))
                .count();
            if missing > 0 {
                violations.push(format!(
                    "{} has not seen {missing} events, and was told of no gap",
                    log.name
                ));
            }
        }
    }
    findings.violations = violations
        .into_iter()
        .map(|violation| format!("{channel}: {violation}"))
        .collect();
    findings
}

/// How far the reading of a log has come.
#[derive(Default)]
struct Judged {
    at: Option<Id>,
    gap: bool,
    fresh: Vec<Fresh>,
    events: u64,
    gaps: u64,
    needless_gaps: u64,
}

/// A subscription that named no id, and the first event it led to.
struct Fresh {
    at: Instant,
    first: Option<Id>,
    may_have_missed: bool,
}

impl Judged {
    fn take(&mut self, seen: &Seen, truth: &BTreeMap<Id, Payload>) -> Result<(), String> {
        match *seen {
            Seen::Fresh(at) => {
                // One that led to nothing is followed by another, and what lay between is lost to
                // a client that has no id to name.
                if let Some(last) = self.fresh.last_mut() {
                    last.may_have_missed |= last.first.is_none();
                }
                self.fresh.push(Fresh {
                    at,
                    first: None,
                    may_have_missed: false,
                });
            }
            Seen::Earliest | Seen::End => {}
            Seen::Gap => {
                self.gap = true;
                self.gaps += 1;
            }
            Seen::Event(id, _) => {
                self.events += 1;
                let (gap, before) = (std::mem::take(&mut self.gap), self.at.replace(id));
                if let Some(fresh) = self.fresh.last_mut() {
                    fresh.first.get_or_insert(id);
                }
                let Some(before) = before else { return Ok(()) };
                if id <= before {
                    return Err(format!("{id} came after {before}"));
                }
                let lost = truth.range((Excluded(before), Excluded(id))).count();
                if gap {
                    if lost == 0 { eprintln!("NEEDLESS {before} {:?} -> {id} {:?}", truth.get(&before), truth.get(&id)); }
                    self.needless_gaps += u64::from(lost == 0);
                } else if lost > 0 {
                    return Err(format!(
                        "{lost} events between {before} and {id} are missing, without a gap"
                    ));
                }
            }
        }
        Ok(())
    }
}
