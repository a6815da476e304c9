//! What every client of a channel must have seen, given what was published and acknowledged.
//!
//! The truth about a channel is put together at the end: the ids that publishers were told, and
//! those that any client saw. Events that nobody acknowledged, because the connection or the
//! process ended first, may be part of it or not; but for everybody alike. Of a run of lines only
//! the last one's id is told, and the others may have come and gone before anyone saw them: then it
//! is known only between which ids theirs were.

use crate::payload::{Id, Payload};
use crate::report::hold;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::Excluded;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What publishers did, in a channel.
#[derive(Default)]
pub struct Sent {
    runs: Mutex<Vec<Run>>,
}

/// One event, or some lines, sent in one request.
struct Run {
    payloads: Vec<Payload>,
    started: Instant,
    /// No id is smaller than this one.
    from: Id,
    /// The id of the last, if it was acknowledged.
    last_id: Option<Id>,
    /// No id is larger than this one.
    until: Id,
}

/// How long the server may go on publishing of an upload what it had received when that broke.
const AFTERWARDS: Duration = Duration::from_secs(10);

impl Sent {
    /// `last_id` is what the publisher was told; `None` when it was told nothing.
    pub fn note(&self, payloads: Vec<Payload>, started: Instant, last_id: Option<Id>) {
        let from = Id::earliest_of(started.elapsed(), Duration::ZERO);
        let until = last_id.unwrap_or(Id::earliest_of(Duration::ZERO, AFTERWARDS));
        hold(&self.runs).push(Run {
            payloads,
            started,
            from,
            last_id,
            until,
        });
    }

    /// How many events were acknowledged.
    pub fn count(&self) -> usize {
        let runs = hold(&self.runs);
        let acknowledged = runs.iter().filter(|run| run.last_id.is_some());
        acknowledged.map(|run| run.payloads.len()).sum()
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

/// All that is known of a channel's events.
#[derive(Default)]
struct Truth {
    events: BTreeMap<Id, Payload>,
    /// By `after`.
    unseen: Vec<Unseen>,
}

/// Events of a run that lie behind one another, that nobody saw.
struct Unseen {
    after: Id,
    before: Id,
    count: usize,
    is_acknowledged: bool,
}

impl Truth {
    fn find(runs: &[Run], logs: &[Log], violations: &mut Vec<String>) -> Truth {
        let mut truth = Truth::default();
        let told = runs
            .iter()
            .filter_map(|run| Some((run.last_id?, *run.payloads.last()?)));
        let seen = logs.iter().flat_map(|log| &log.seen);
        let seen = seen.filter_map(|seen| match seen {
            Seen::Event(id, payload) => Some((*id, *payload)),
            _ => None,
        });
        // Each id means one event, each event has one id.
        for (id, payload) in told.chain(seen) {
            let known = *truth.events.entry(id).or_insert(payload);
            if known != payload {
                violations.push(format!("{id} is {known:?} and {payload:?}"));
            }
        }
        let mut ids: HashMap<Payload, Id> = HashMap::new();
        for (&id, &payload) in &truth.events {
            if let Some(other) = ids.insert(payload, id) {
                violations.push(format!("{payload:?} is {other} and {id}"));
            }
        }
        truth.judge_order(runs, violations);
        truth.unseen = runs.iter().flat_map(|run| unseen(run, &ids)).collect();
        truth.unseen.sort_by_key(|unseen| unseen.after);
        truth
    }

    /// Nothing that was never sent; a publisher's own in their order. What he did not wait for to be
    /// acknowledged may still have been on its way when he went on.
    fn judge_order(&self, runs: &[Run], violations: &mut Vec<String>) {
        let of = |is_wanted: fn(&&Run) -> bool| {
            let runs = runs.iter().filter(is_wanted);
            runs.flat_map(|run| &run.payloads).copied().collect()
        };
        let acknowledged: HashSet<Payload> = of(|run| run.last_id.is_some());
        let uncertain: HashSet<Payload> = of(|run| run.last_id.is_none());
        let mut newest: HashMap<u32, u32> = HashMap::new();
        for (id, payload) in &self.events {
            if acknowledged.contains(payload) {
                let before = newest.insert(payload.publisher, payload.number);
                if let Some(before) = before.filter(|&before| before >= payload.number) {
                    violations.push(format!("{id} is {payload:?}, after number {before}"));
                }
            } else if !uncertain.contains(payload) {
                violations.push(format!("{id} is {payload:?}, which nobody published"));
            }
        }
    }

    /// How many acknowledged events lie between two.
    fn certainly_between(&self, after: Id, before: Id) -> usize {
        let seen = self
            .events
            .range((Excluded(after), Excluded(before)))
            .count();
        let from = self.unseen.partition_point(|unseen| unseen.after < after);
        let unseen = self.unseen[from..]
            .iter()
            .take_while(|unseen| unseen.after < before);
        let unseen = unseen.filter(|unseen| unseen.is_acknowledged && unseen.before <= before);
        seen + unseen.map(|unseen| unseen.count).sum::<usize>()
    }

    fn possibly_between(&self, after: Id, before: Id) -> bool {
        let may_be = |unseen: &Unseen| unseen.before > after && unseen.after < before;
        self.certainly_between(after, before) > 0 || self.unseen.iter().any(may_be)
    }
}

fn unseen(run: &Run, ids: &HashMap<Payload, Id>) -> Vec<Unseen> {
    let (mut all, mut after, mut count) = (Vec::new(), run.from, 0);
    let is_acknowledged = run.last_id.is_some();
    for id in run.payloads.iter().map(|payload| ids.get(payload)) {
        match id {
            None => count += 1,
            Some(&id) => {
                let before = id;
                all.push(Unseen {
                    after,
                    before,
                    count,
                    is_acknowledged,
                });
                (after, count) = (id, 0);
            }
        }
    }
    all.push(Unseen {
        after,
        before: run.until,
        count,
        is_acknowledged,
    });
    all.retain(|unseen| unseen.count > 0);
    all
}

/// Judges the logs of a channel that is completed and quiet. `one_life` says that the server was
/// never restarted.
pub fn judge(channel: &str, sent: &Sent, logs: &[Log], one_life: bool) -> Findings {
    let (mut findings, mut violations) = (Findings::default(), Vec::new());
    let runs = hold(&sent.runs);
    let truth = Truth::find(&runs, logs, &mut violations);
    let last = truth.events.last_key_value().map(|(&id, _)| id);
    findings.events = truth.events.len() as u64;
    for log in logs {
        let mut judged = Judged::default();
        for seen in &log.seen {
            if let Err(violation) = judged.take(seen, &truth) {
                violations.push(format!("{}: {violation}", log.name));
            }
        }
        findings.seen += judged.events;
        findings.gaps += judged.gaps;
        findings.needless_gaps += judged.needless_gaps;
        findings.ends += judged.ends;
        let (name, needless) = (&log.name, judged.needless_gaps);
        if one_life && needless > 0 {
            violations.push(format!("{name}: {needless} gaps that hid nothing"));
        }
        if !log.finished {
            violations.push(format!("{name} was never told 204"));
        } else if judged.at.is_some() && judged.at != last {
            let (at, last) = (judged.at, last);
            violations.push(format!(
                "{name} was told 204 at {at:?}, but the last is {last:?}"
            ));
        }
        // Who was there before an event was published gets it, or is told.
        for fresh in judged.fresh.iter().filter(|fresh| !fresh.may_have_missed) {
            let is_missed = |id: Id| fresh.first.is_none_or(|first| id < first);
            let mut later = runs.iter().filter(|run| run.started > fresh.at);
            if let Some(id) = later.find_map(|run| run.last_id.filter(|&id| is_missed(id))) {
                violations.push(format!("{name} was there, and never saw {id}"));
            }
        }
    }
    let in_channel = |violation| format!("{channel}: {violation}");
    findings.violations = violations.into_iter().map(in_channel).collect();
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
    ends: u64,
}

/// A subscription that named no id, and the first event it led to.
struct Fresh {
    at: Instant,
    first: Option<Id>,
    may_have_missed: bool,
}

impl Judged {
    fn take(&mut self, seen: &Seen, truth: &Truth) -> Result<(), String> {
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
            Seen::Earliest => {}
            Seen::End => self.ends += 1,
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
                if gap {
                    self.needless_gaps += u64::from(!truth.possibly_between(before, id));
                    return Ok(());
                }
                let lost = truth.certainly_between(before, id);
                if lost > 0 {
                    return Err(format!(
                        "{lost} events between {before} and {id} are missing, without a gap"
                    ));
                }
            }
        }
        Ok(())
    }
}
