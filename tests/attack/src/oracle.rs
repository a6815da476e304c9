//! What every client of a channel must have seen, given what was published and acknowledged.
//!
//! The truth about a channel is put together at the end: the ids that publishers were told, and
//! those that any client saw. Events that were not acknowledged, because the connection or the
//! process ended first, may be part of it or not; but for everybody alike. Of a run of lines only
//! the last one's id is told, and the others may have come and gone before a client saw them: then it
//! is known only between which ids theirs were.

use crate::payload::{Id, Payload};
use crate::report::hold;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::Excluded;
use std::sync::Mutex;
use std::time::Instant;

/// What each channel keeps, so that clients outrun it: events, and their bytes on the wire.
const KEPT: (usize, usize) = (500, 262_144);

/// As soak and kill start the server, then; and with a heartbeat that clients can wait for.
pub const ARGUMENTS: [&str; 6] = ["--history-events", "500", "--history-bytes", "262144", "--heartbeat", "1"];

/// What publishers did, in a channel.
#[derive(Default)]
pub struct Sent {
    runs: Mutex<Vec<Run>>,
}

/// One event, or some lines, sent in one request.
struct Run {
    payloads: Vec<Payload>,
    /// No event of it has more of them on the wire.
    most_bytes: usize,
    started: Instant,
    /// No id is smaller than this one.
    from: Id,
    fate: Fate,
    /// No id is larger than this one.
    until: Id,
}

/// What the publisher was told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The id of the last.
    Published(Id),
    /// No id, but that the server had read them all before the upload broke off.
    Read,
    Unknown,
}

impl Run {
    fn last_id(&self) -> Option<Id> {
        match self.fate {
            Fate::Published(id) => Some(id),
            _ => None,
        }
    }

    fn is_certain(&self) -> bool {
        self.fate != Fate::Unknown
    }
}

impl Sent {
    /// To be called at once: nothing is published after it.
    pub fn note(&self, payloads: Vec<Payload>, most_bytes: usize, started: Instant, fate: Fate) {
        let mut run =
            Run { payloads, most_bytes, started, from: Id::earliest_of(started), fate, until: Id::latest_now() };
        run.until = run.last_id().unwrap_or(run.until);
        hold(&self.runs).push(run);
    }

    /// How many events were acknowledged.
    pub fn count(&self) -> usize {
        let runs = hold(&self.runs);
        let acknowledged = runs.iter().filter(|run| run.is_certain());
        acknowledged.map(|run| run.payloads.len()).sum()
    }
}

/// What one client saw, in order.
#[derive(Default)]
pub struct Log {
    pub name: String,
    pub seen: Vec<Seen>,
    pub ending: Ending,
}

/// How a client came to its end.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// It did not.
    #[default]
    None,
    /// It was told 204; or it is on a stream on which nothing comes any more, and that is never finished.
    Home,
    /// Its key was taken away.
    Revoked,
}

#[derive(Clone, Copy, Debug)]
pub enum Seen {
    /// It subscribed without a last event ID, and had the opening at this moment.
    Began(Instant),
    /// It asked for all that is kept, as if it had seen nothing; the server looked between these.
    Earliest(Id, Id),
    /// It was told that something may be missing.
    Gap(Gap),
    Event(Id, Payload),
    /// It was told the end.
    End,
    /// The server ended its stream without it.
    Broken,
    /// It was told 204.
    Finished,
}

#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// The id that it asked for: in a view, the position in all channels.
    pub asked: Option<Id>,
    /// It was told of this very channel, not of names that begin like it.
    pub is_sure: bool,
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
    most_bytes: HashMap<Payload, usize>,
    /// By `after`.
    unseen: Vec<Unseen>,
}

/// Events of a run that lie behind one another, that no client saw.
struct Unseen {
    after: Id,
    before: Id,
    count: usize,
    most_bytes: usize,
    is_certain: bool,
}

impl Truth {
    fn find(runs: &[Run], logs: &[Log], violations: &mut Vec<String>) -> Truth {
        let mut truth = Truth::default();
        let told = runs.iter().filter_map(|run| Some((run.last_id()?, *run.payloads.last()?)));
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
        for run in runs {
            let most_bytes = run.payloads.iter().map(|&payload| (payload, run.most_bytes));
            truth.most_bytes.extend(most_bytes);
        }
        truth.unseen = runs.iter().flat_map(|run| unseen(run, &ids)).collect();
        truth.unseen.sort_by_key(|unseen| unseen.after);
        truth
    }

    /// Nothing that was never sent; the events of a publisher in their order. What was not answered may
    /// still have been on its way when the publisher went on.
    fn judge_order(&self, runs: &[Run], violations: &mut Vec<String>) {
        let of = |is_wanted: fn(&&Run) -> bool| {
            let runs = runs.iter().filter(is_wanted);
            runs.flat_map(|run| &run.payloads).copied().collect()
        };
        let acknowledged: HashSet<Payload> = of(|run| run.is_certain());
        let uncertain: HashSet<Payload> = of(|run| !run.is_certain());
        let mut newest: HashMap<u32, u32> = HashMap::new();
        for (id, payload) in &self.events {
            if acknowledged.contains(payload) {
                let before = newest.insert(payload.publisher, payload.number);
                if let Some(before) = before.filter(|&before| before >= payload.number) {
                    violations.push(format!("{id} is {payload:?}, after number {before}"));
                }
            } else if !uncertain.contains(payload) {
                violations.push(format!("{id} is {payload:?}, which was never published"));
            }
        }
    }

    /// How many acknowledged events lie between two.
    fn certainly_between(&self, after: Id, before: Id) -> usize {
        let seen = self.events.range((Excluded(after), Excluded(before))).count();
        let from = self.unseen.partition_point(|unseen| unseen.after < after);
        let unseen = self.unseen[from..].iter().take_while(|unseen| unseen.after < before);
        let unseen = unseen.filter(|unseen| unseen.is_certain && unseen.before <= before);
        seen + unseen.map(|unseen| unseen.count).sum::<usize>()
    }

    fn possibly_between(&self, after: Id, before: Id) -> bool {
        let may_be = |unseen: &Unseen| unseen.before > after && unseen.after < before;
        self.certainly_between(after, before) > 0 || self.unseen.iter().any(may_be)
    }

    /// The oldest event that was certainly kept, all the time from `asked` to `answered`: older
    /// than the one, and with all that may have followed it until the other within the bounds.
    fn kept(&self, asked: Id, answered: Id) -> Option<Id> {
        let (mut events, mut bytes, mut oldest) = (0, 0, None);
        for (&id, payload) in self.events.range(..answered).rev() {
            events += 1;
            bytes += self.most_bytes.get(payload)?;
            let unseen = self.unseen.iter();
            let unseen = unseen.filter(|unseen| unseen.before > id && unseen.after < answered);
            let (more, more_bytes) = unseen.fold((0, 0), |(events, bytes), unseen| {
                (events + unseen.count, bytes + unseen.count * unseen.most_bytes)
            });
            if events + more > KEPT.0 || bytes + more_bytes > KEPT.1 {
                break;
            }
            oldest = (id < asked).then_some(id).or(oldest);
        }
        oldest
    }
}

fn unseen(run: &Run, ids: &HashMap<Payload, Id>) -> Vec<Unseen> {
    let (mut all, mut after, mut count) = (Vec::new(), run.from, 0);
    let seen = run.payloads.iter().map(|payload| ids.get(payload).copied());
    for id in seen.chain([Some(run.until)]) {
        let Some(before) = id else {
            count += 1;
            continue;
        };
        all.push(Unseen { after, before, count, most_bytes: run.most_bytes, is_certain: run.is_certain() });
        (after, count) = (before, 0);
    }
    all.retain(|unseen| unseen.count > 0);
    all
}

/// Judges the logs of a channel that is completed and quiet. `one_life` says that the server was
/// never restarted; `remembers`, that it was not, or has a journal, and that nothing expires.
pub fn judge(channel: &str, sent: &Sent, logs: &[Log], one_life: bool, remembers: bool) -> Findings {
    let (mut findings, mut violations) = (Findings::default(), Vec::new());
    let runs = hold(&sent.runs);
    let truth = Truth::find(&runs, logs, &mut violations);
    let last = truth.events.last_key_value().map(|(&id, _)| id);
    findings.events = truth.events.len() as u64;
    for log in logs {
        let mut judged = Judged { one_life, remembers, last, ..Judged::default() };
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
        if remembers && needless > 0 {
            violations.push(format!("{name}: {needless} gaps that hid nothing"));
        }
        // What has expired, the last event included, is told as a gap and never comes.
        let is_told = one_life && !remembers && judged.fresh_gaps > 0;
        match log.ending {
            Ending::None => violations.push(format!("{name} never came home")),
            Ending::Home if judged.at.is_some() && judged.at != last && !is_told => {
                let (at, last) = (judged.at, last);
                let seen = &log.seen[log.seen.len().saturating_sub(5)..];
                violations
                    .push(format!("{name} came home at {at:?}, but the last is {last:?}; it saw at last {seen:?}"));
            }
            Ending::Home | Ending::Revoked => {}
        }
        // What was published after the stream had begun must be in it.
        for (at, first) in judged.began {
            let mut later = runs.iter().filter(|run| run.started > at);
            if let Some(id) = later.find_map(|run| run.last_id().filter(|&id| id < first)) {
                violations.push(format!("{name} subscribed before {id}, and saw {first} first"));
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
    one_life: bool,
    remembers: bool,
    last: Option<Id>,
    at: Option<Id>,
    /// Told since the event at which it stands.
    fresh_gaps: u64,
    /// Of them, those that need not be about this channel.
    unsure_gaps: u64,
    /// What it asked for when it was told the last of them.
    asked: Option<Id>,
    /// The server ended its stream early, which must have cost it something.
    broken: bool,
    /// What it asked for was kept, from here on.
    kept: Option<Id>,
    /// When it subscribed without a last event ID, until it has seen an event.
    beginning: Option<Instant>,
    /// The same, and the first event that it saw then.
    began: Vec<(Instant, Id)>,
    events: u64,
    gaps: u64,
    needless_gaps: u64,
    ends: u64,
}

impl Judged {
    /// No event follows for the gaps to be judged by: behind the last one they hid nothing.
    fn judge_gaps_at_end(&mut self, truth: &Truth) {
        let at = self.at.filter(|_| self.at == self.last);
        if at.is_some_and(|at| !truth.possibly_between(at, Id::latest_now())) {
            self.needless_gaps += self.take_gaps().1;
        }
    }

    /// How many gaps were told since the last event, and how many of them were sure.
    fn take_gaps(&mut self) -> (u64, u64) {
        let gaps = std::mem::take(&mut self.fresh_gaps);
        (gaps, gaps - std::mem::take(&mut self.unsure_gaps))
    }

    fn take(&mut self, seen: &Seen, truth: &Truth) -> Result<(), String> {
        match *seen {
            Seen::Began(moment) => self.beginning = Some(moment),
            Seen::Earliest(asked, answered) => {
                self.beginning = None;
                self.judge_gaps_at_end(truth);
                self.take_gaps();
                (self.at, self.broken) = (None, false);
                // Without a journal, a restart forgets everything.
                self.kept = truth.kept(asked, answered).filter(|_| self.remembers);
            }
            Seen::End => self.ends += 1,
            // Killed, or the log has moved past it, which is told when it comes back; behind the
            // last event there is nothing to miss.
            Seen::Broken => self.broken = self.one_life || (self.last.is_some() && self.at == self.last),
            Seen::Finished => {
                self.judge_gaps_at_end(truth);
                if let Some(kept) = self.kept {
                    return Err(format!("was told 204, although {kept} was kept"));
                }
                if std::mem::take(&mut self.broken) {
                    return Err("was told 204, but never the end".to_owned());
                }
            }
            Seen::Gap(Gap { asked, is_sure }) => {
                self.beginning = None;
                (self.broken, self.kept) = (false, None);
                self.fresh_gaps += 1;
                self.unsure_gaps += u64::from(!is_sure);
                self.asked = asked;
                self.gaps += 1;
            }
            Seen::Event(id, _) => {
                self.events += 1;
                let (gaps, sure_gaps) = self.take_gaps();
                let before = self.at.replace(id);
                self.began.extend(self.beginning.take().map(|moment| (moment, id)));
                if let Some(kept) = self.kept.take().filter(|&kept| kept < id) {
                    return Err(format!("asked for all, and began with {id}; {kept} was kept"));
                }
                if std::mem::take(&mut self.broken) {
                    return Err(format!("its stream was ended before {id}, and nothing was lost"));
                }
                if let Some(before) = before.filter(|&before| id <= before) {
                    return Err(format!("{id} came after {before}"));
                }
                if gaps > 0 {
                    // A client that asks for all that is kept misses nothing of it.
                    let from = before.max(self.asked);
                    if !from.is_some_and(|from| truth.possibly_between(from, id)) {
                        self.needless_gaps += sure_gaps;
                    }
                    return Ok(());
                }
                let Some(before) = before else { return Ok(()) };
                let lost = truth.certainly_between(before, id);
                if lost > 0 {
                    return Err(format!("{lost} events between {before} and {id} are missing, without a gap"));
                }
            }
        }
        Ok(())
    }
}
