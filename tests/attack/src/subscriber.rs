//! Clients that subscribe, each with a habit of its own.

use crate::client::{Event, Reading, Subscribed, Subscription};
use crate::habit::Habit;
use crate::oracle::{Ending, Gap, Log, Seen};
use crate::payload::{Id, Payload};
use crate::stage::{Phase, Selection, Stage, count, pause};
use fastrand::Rng;
use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How long a client may need to come home.
const HOMEWARD: Duration = Duration::from_secs(120);

/// How long a stream may be silent, with a heartbeat each second.
const SILENCE: Duration = Duration::from_secs(30);

/// How long nothing but heartbeats may come to a client that is home, where no 204 tells it so: on a view, and where what
/// it lacks may have expired.
const NOTHING_MORE: Duration = Duration::from_secs(5);

/// How long a stream may go on when its key is gone: the server says two seconds, and the machine is busy.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// One client, from its first subscription to its very end.
pub struct Subscriber<'s> {
    stage: &'s Stage<'s>,
    selection: &'s Selection<'s>,
    habit: &'s Habit,
    random: Rng,
    name: String,
    /// What it saw of each channel, in the order of the selection.
    logs: Vec<Log>,
    last_event_id: Option<String>,
    /// The last event, of whatever channel.
    newest: Option<Id>,
    /// What it named when it opened the stream.
    asked: Option<String>,
    asked_at: Id,
    homeward: Option<Instant>,
}

impl<'s> Subscriber<'s> {
    pub fn new(stage: &'s Stage<'s>, selection: &'s Selection<'s>, habit: &'s Habit, seed: u64) -> Subscriber<'s> {
        let name = format!("the {} one of {}", habit.name, selection.names);
        let log = |_| Log { name: name.clone(), ..Log::default() };
        Subscriber {
            stage,
            selection,
            habit,
            random: Rng::with_seed(seed),
            logs: selection.channels.iter().map(log).collect(),
            name,
            newest: None,
            last_event_id: habit.from_earliest.then(|| "earliest".to_owned()),
            asked: None,
            asked_at: Id::earliest_of(Instant::now()),
            homeward: None,
        }
    }

    /// What it saw of each channel.
    pub fn run(mut self) -> Vec<Log> {
        loop {
            // Asked before the stream is: a 204 after this is the end.
            let is_home = self.is_home();
            if self.is_late() || self.logs.iter().any(|log| log.ending != Ending::None) {
                return self.logs;
            }
            match self.open() {
                Ok(Subscribed::Streaming(stream)) => {
                    if let Err(error) = self.listen(stream) {
                        self.stage.excuse("a stream", &error);
                    }
                }
                Ok(Subscribed::Refused) => {
                    let what = format!("{} is refused a place", self.name);
                    self.stage.report.violation(what);
                }
                Ok(Subscribed::Forbidden) => {
                    count(&self.stage.tallies.revoked);
                    self.stage.report.expect(self.is_revoked(), format!("{} is refused, and has its key", self.name));
                    self.end(Ending::Revoked);
                }
                Ok(Subscribed::Finished) => {
                    count(&self.stage.tallies.finished);
                    self.note_earliest();
                    self.saw(Seen::Finished);
                    if is_home {
                        self.end(Ending::Home);
                    }
                    pause(&mut self.random, 1..200);
                }
                Err(error) => {
                    self.stage.excuse("subscribing", &error);
                    pause(&mut self.random, 1..30);
                }
            }
            if !self.is_home() {
                pause(&mut self.random, self.habit.away_ms.clone());
            }
        }
    }

    /// It has the end of each channel.
    fn end(&mut self, ending: Ending) {
        self.logs.iter_mut().for_each(|log| log.ending = ending);
    }

    /// In all channels.
    fn saw(&mut self, seen: Seen) {
        self.logs.iter_mut().for_each(|log| log.seen.push(seen));
    }

    fn is_revoked(&self) -> bool {
        self.selection.is_revoked && self.stage.revoked.get().is_some()
    }

    fn is_home(&self) -> bool {
        self.stage.phase() == Phase::Home
    }

    /// Whether it should have come home by now.
    fn is_late(&mut self) -> bool {
        let now = Instant::now();
        self.is_home() && now > *self.homeward.get_or_insert(now + HOMEWARD)
    }

    /// What was kept is looked up no later than when the first of it comes.
    fn note_earliest(&mut self) {
        if self.asked.as_deref() == Some("earliest") {
            self.saw(Seen::Earliest(self.asked_at, Id::latest_now()));
            self.newest = None;
        }
    }

    fn open(&mut self) -> io::Result<Subscribed> {
        if self.habit.from_earliest && !self.is_home() && self.random.bool() {
            self.last_event_id = Some("earliest".to_owned());
        }
        self.asked = self.last_event_id.clone();
        self.asked_at = Id::earliest_of(Instant::now());
        let in_query = self.random.bool();
        let opened = Subscription::open(
            self.stage.address,
            &self.selection.target(),
            self.asked.as_deref(),
            in_query,
            self.habit.room,
        )?;
        if let Subscribed::Streaming(_) = &opened {
            count(&self.stage.tallies.subscriptions);
            match self.asked {
                Some(_) => count(&self.stage.tallies.resumed),
                // From here on it misses nothing.
                None => self.saw(Seen::Began(Instant::now())),
            }
        }
        Ok(opened)
    }

    fn listen(&mut self, mut stream: Subscription) -> io::Result<()> {
        let at = |random: &mut Rng, ms: &Range<u64>| {
            (!ms.is_empty()).then(|| Instant::now() + Duration::from_millis(random.u64(ms.clone())))
        };
        // Otherwise its end may be that of an earlier completion.
        let is_opened_at_home = self.is_home();
        if self.habit.half_closes {
            stream.socket.shutdown(Shutdown::Write)?;
        }
        let cut_at = at(&mut self.random, &self.habit.stays_ms);
        let mut stall_at = at(&mut self.random, &self.habit.reads_ms);
        let (mut events, mut is_first, mut has_ended) = (Vec::new(), true, false);
        let (mut heard, mut last_event) = (Instant::now(), Instant::now());
        while !self.is_late() {
            if !self.is_home() {
                last_event = Instant::now();
            }
            let never_ends = self.selection.is_view() || self.stage.expires();
            if self.is_home() && never_ends && last_event.elapsed() > NOTHING_MORE {
                self.end(Ending::Home);
                return Ok(());
            }
            if let Some(at) = self.stage.revoked.get().filter(|_| self.selection.is_revoked)
                && at.elapsed() > REVOKED_WITHIN
            {
                let what = format!("{} goes on without its key", self.name);
                self.stage.report.violation(what);
                self.end(Ending::Revoked);
                return Ok(());
            }
            let is_due = |at: Option<Instant>| !self.is_home() && at.is_some_and(|at| Instant::now() > at);
            if is_due(cut_at) {
                count(&self.stage.tallies.cut);
                if self.random.bool() {
                    let _ = stream.socket.shutdown(Shutdown::Both);
                }
                return Ok(());
            }
            if is_due(stall_at) {
                count(&self.stage.tallies.stalled);
                pause(&mut self.random, self.habit.stalls_ms.clone());
                stall_at = at(&mut self.random, &self.habit.reads_ms);
            }
            let soon = Instant::now() + Duration::from_millis(100);
            let until = [cut_at, stall_at].into_iter().flatten().fold(soon, Instant::min);
            let wait = until.saturating_duration_since(Instant::now());
            let reading = stream.read(wait, self.habit.piece, &mut events)?;
            for event in events.drain(..) {
                let has_ended_before = has_ended;
                has_ended |= event.name.as_deref() == Some("end");
                if is_first {
                    self.note_earliest();
                }
                self.note(event, is_first, has_ended_before);
                (is_first, last_event) = (false, Instant::now());
            }
            match reading {
                Reading::Some => heard = Instant::now(),
                Reading::Silence if heard.elapsed() > SILENCE => {
                    self.stage.report.violation(format!("{}: silence on a stream", self.name));
                    return Ok(());
                }
                Reading::Silence => {}
                Reading::End => {
                    if let Some(at) = self.stage.revoked.get().filter(|_| self.selection.is_revoked) {
                        let ms = at.elapsed().as_millis() as u64;
                        self.stage.tallies.revoked_ms.fetch_max(ms, Relaxed);
                    } else if !has_ended {
                        count(&self.stage.tallies.ended_by_server);
                        // The channels of a view may keep what the view itself keeps no more.
                        if !self.selection.is_view() {
                            self.saw(Seen::Broken);
                        }
                    } else if is_opened_at_home && self.stage.expires() {
                        // What it lacks is gone, and each stream will say so.
                        self.end(Ending::Home);
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, mut event: Event, is_first: bool, has_ended: bool) {
        let shown: String = format!("{event:?}").chars().take(200).collect();
        let (stage, name) = (self.stage, self.name.clone());
        let strange = |what: &str| stage.report.violation(format!("{name}: {what}: {shown}"));
        if has_ended {
            strange("an event after the end");
        }
        let (event_type, id) = (event.name.take(), event.id.clone());
        match (event_type.as_deref(), id) {
            (Some("gap"), None) => {
                let asked = format!("{{\"asked\":\"{}\",", self.asked.as_deref().unwrap_or_default());
                let told = event.data.as_deref().unwrap_or_default();
                if !is_first || !told.starts_with(&asked) || !self.note_gap(told) {
                    strange("a gap of another kind");
                }
            }
            (Some("end"), None) if !self.selection.is_view() => self.saw(Seen::End),
            // The view goes on.
            (Some(told), None) if self.selection.is_end(told) => {}
            (_, Some(id)) => {
                let origin = self.selection.origin(event_type);
                let known = origin.and_then(|(channel, event_type)| {
                    event.name = event_type;
                    Some((channel, Id::read(&id)?, Payload::of(&event)?))
                });
                let Some((channel, number, payload)) = known else {
                    return strange("not as it was published");
                };
                // Across all channels of a view.
                if self.newest.replace(number).is_some_and(|newest| newest >= number) {
                    strange("an event out of order");
                }
                self.logs[channel].seen.push(Seen::Event(number, payload));
                self.last_event_id = Some(id);
            }
            _ => strange("an event of no kind"),
        }
    }

    /// Notes a gap in each channel that it names. Whether it names any, and no other.
    fn note_gap(&mut self, told: &str) -> bool {
        let asked = self.asked.as_deref().and_then(Id::read);
        if !self.selection.is_view() {
            self.saw(Seen::Gap(Gap { asked, is_sure: true }));
            return true;
        }
        let list = told.split_once("\"channels\":[").and_then(|(_, rest)| rest.split_once(']'));
        let Some((list, _)) = list else { return false };
        let named: Vec<&str> = list.split(',').map(|name| name.trim_matches('"')).collect();
        let mut is_known = vec![false; named.len()];
        for (channel, log) in self.selection.channels.iter().zip(&mut self.logs) {
            for (named, is_known) in named.iter().zip(&mut is_known) {
                let is_sure = *named == channel.name;
                let begins = named.strip_suffix('*');
                if is_sure || begins.is_some_and(|begins| channel.name.starts_with(begins)) {
                    log.seen.push(Seen::Gap(Gap { asked, is_sure }));
                    *is_known = true;
                }
            }
        }
        is_known.into_iter().all(|is_known| is_known)
    }
}
