//! Mixed publishing, subscribing, cutting, stalling, completing, for as long as you like: nothing
//! may be lost without a gap, come twice or out of order, and nothing may grow.
//!
//! It goes in rounds of a few seconds. Each has channels of its own, which are completed at its
//! end, so that each client is told the end and 204, and the oracle needs no memory beyond a round.
//! Every third round is for a server on which events and channels expire.

use crate::client::{Caller, Reading, Subscribed, Subscription};
use crate::crowd::play;
use crate::habit::HABITS;
use crate::oracle::{ARGUMENTS, Findings};
use crate::payload::Payload;
use crate::report::{Report, hold};
use crate::server::{Newswire, Vitals, is_all_gone};
use crate::stage::{Channel, Selection, Stage, Tallies};
use crate::{Order, Outcome};
use fastrand::Rng;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, process};

const CHANNELS: usize = 6;

/// A table of channels that is full after four rounds: from then on memory has no reason to grow.
const TABLE: [&str; 4] = ["--max-connections", "1000", "--max-channels", "24"];

/// A client that is away for a second or two finds events gone, and channels soon after they are completed.
const EXPIRY: [&str; 4] = ["--history-seconds", "1", "--channel-idle", "1"];

/// In each round, this many of the channels are private, and this key opens them.
const PRIVATE: usize = 2;
const OWNER: &str = "owner-0123456789abcdef";

/// A server of the soak, and its vital signs.
struct Subject<'r> {
    server: Newswire<'r>,
    before: Vitals,
    samples: Mutex<Vec<Vitals>>,
    keys: KeyFile,
    rounds: u64,
    expires: bool,
}

impl<'r> Subject<'r> {
    fn start(what: &'r str, order: &Order, report: &'r Report, expires: bool) -> Outcome<Self> {
        let keys = KeyFile::new(what)?;
        let path = keys.path.to_str().ok_or("the directory for temporary files is not UTF-8")?;
        let special = if expires { &EXPIRY[..] } else { &TABLE[..] };
        let arguments = [special, &ARGUMENTS, &["--access", path]].concat();
        let server = Newswire::start(what, report, &order.newswire, &arguments)?;
        let before = server.vitals_at_first()?;
        report.row(format!("{what}: before"), before);
        Ok(Subject { server, before, samples: Mutex::default(), keys, rounds: 0, expires })
    }
}

/// The file of `--access`: an owner, and guests of one round, of which only subscribing is asked.
struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    fn new(what: &str) -> Outcome<KeyFile> {
        let name = format!("newswire-{}-{}.keys", what.replace(' ', "-"), process::id());
        let file = KeyFile { path: std::env::temp_dir().join(name) };
        file.admit(0)?;
        Ok(file)
    }

    fn guest(round: u64) -> String {
        format!("guest-{round}-0123456789abcdef")
    }

    /// The guests of this round and no others; at once, as a file that is written by and by is not read.
    fn admit(&self, round: u64) -> Outcome<()> {
        let guest = KeyFile::guest(round);
        let lines = format!("{OWNER} allow all private-*\n{guest} allow subscribe private-*  # a guest\n");
        let new = Path::new(&self.path).with_extension("new");
        fs::write(&new, lines)?;
        Ok(fs::rename(new, &self.path)?)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

pub fn run(order: &Order, report: &Report) -> Outcome<()> {
    let tallies = Tallies::default();
    let mut subjects =
        [Subject::start("soak", order, report, false)?, Subject::start("soak with expiry", order, report, true)?];
    let mut random = Rng::with_seed(order.seed);
    let mut all = Findings::default();
    let deadline = Instant::now() + Duration::from_secs_f64(order.minutes * 60.0);
    let (mut rounds, mut is_alive) = (0u64, true);
    while Instant::now() < deadline && is_alive {
        let subject = &mut subjects[usize::from(rounds % 3 == 1)];
        let is_over = AtomicBool::new(false);
        let found = thread::scope(|scope| {
            scope.spawn(|| subject.server.watch(&is_over, &subject.samples));
            let found = round(subject, report, &tallies, &mut random);
            // Which it also is when there are no vital signs.
            is_alive = !is_over.swap(true, Relaxed);
            found
        });
        subject.rounds += 1;
        for violation in &found.violations {
            report.violation(violation.as_str());
        }
        all.add(found);
        rounds += 1;
        if let Some(vitals) = hold(&subject.samples).last().filter(|_| rounds.is_multiple_of(10)) {
            report.row(format!("after {rounds} rounds, {} events", all.events), vitals);
        }
    }

    report.row("rounds", rounds);
    report.row("events", all.events);
    tallies.judge(report, &all);
    let revoked = tallies.revoked.load(Relaxed);
    report.row("clients that lost their key", revoked);
    report.row("the last stream that ended for it, ms", tallies.revoked_ms.load(Relaxed));
    report.expect(revoked >= rounds, format!("in {rounds} rounds {revoked} lost their key"));
    for subject in &subjects {
        let what = if subject.expires { "soak with expiry" } else { "soak" };
        judge_memory(report, what, &hold(&subject.samples));
        let after = subject.server.vitals_at_rest(subject.before, Duration::from_secs(30))?;
        report.row(format!("{what}: after"), after);
        is_all_gone(report, what, subject.before, after);
        for name in ["views", "access_revoked_total"] {
            report.row(format!("{what}: {name}"), subject.server.metric(name)?);
        }
        report.expect(subject.server.metric("views")? == 0, format!("{what}: views are left without a subscriber"));
    }
    let expired = ["events_expired_total", "channels_expired_total"];
    for name in expired {
        let count = subjects[1].server.metric(name)?;
        report.row(name, count);
        report.expect(count > subjects[1].rounds, format!("{name} is {count} in {} rounds", subjects[1].rounds));
    }
    Ok(())
}

fn round(subject: &Subject<'_>, report: &Report, tallies: &Tallies, random: &mut Rng) -> Findings {
    let (server, round) = (&subject.server, subject.rounds);
    let mut stage = Stage::new(server.address, false, report, tallies);
    stage.remembers = !subject.expires;
    let channels: Vec<_> = (0..CHANNELS)
        .map(|at| match at {
            0..PRIVATE => {
                let name = format!("private-{round}-{at}");
                Channel { key: Some(OWNER), ..Channel::new(name) }
            }
            _ => Channel::new(format!("soak-{round}-{at}")),
        })
        .collect();
    let selections = selections(&channels, round);
    let found = play(&stage, &channels, &selections, random, |random| {
        thread::sleep(Duration::from_millis(random.u64(4_000..8_000)));
        // The next ones are known before they come: a file is read again within two seconds.
        if let Err(error) = subject.keys.admit(round + 1) {
            report.violation(format!("the keys cannot be written: {error}"));
        }
        // Nothing but this sets it.
        let _ = stage.revoked.set(Instant::now());
        thread::sleep(Duration::from_millis(random.u64(3_000..5_000)));
    });
    if subject.expires
        && let Err(error) = return_to_what_expired(server, report, round)
    {
        report.violation(format!("a channel that should expire: {error}"));
    }
    found
}

/// Each channel alone, guests, and views: by names, by a prefix, and of private channels with public ones.
fn selections<'c>(channels: &'c [Channel], round: u64) -> Vec<Selection<'c>> {
    let all: Vec<&Channel> = channels.iter().collect();
    let (private, public) = all.split_at(PRIVATE);
    let names =
        |channels: &[&Channel]| channels.iter().map(|channel| channel.name.as_str()).collect::<Vec<_>>().join(",");
    let mixed = [private, &public[..1]].concat();
    let guests = Selection {
        key: Some(KeyFile::guest(round)),
        is_revoked: true,
        // The others stop reading for a while, or come back late.
        habits: &HABITS[..3],
        ..Selection::of(private[0])
    };
    let view = |channels: &[&'c Channel], names, key: Option<&str>| Selection {
        channels: channels.to_vec(),
        names,
        key: key.map(str::to_owned),
        is_revoked: false,
        habits: &HABITS,
    };
    let views = [
        view(&public[..3], names(&public[..3]), None),
        view(public, format!("soak-{round}-*"), None),
        view(&mixed, names(&mixed), Some(OWNER)),
    ];
    channels.iter().map(Selection::of).chain(views).chain([guests]).collect()
}

/// A client that lacks an event of a channel that is gone, and comes back, is told a gap.
fn return_to_what_expired(server: &Newswire<'_>, report: &Report, round: u64) -> Outcome<()> {
    let name = format!("private-expired-{round}?key={OWNER}");
    let mut caller = Caller::new(server.address);
    let mut ids = Vec::new();
    for number in 1..=2 {
        let text = Payload { publisher: 0, number }.write(10, 1);
        let answer = caller.request("POST", &format!("/channels/{name}"), text.as_bytes())?;
        ids.push(answer.text().split('"').nth(3).ok_or("it was not published")?.to_owned());
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_listed = |list: &str| list.contains(&format!("private-expired-{round}\""));
    let list = format!("/channels?key={OWNER}");
    report.expect(is_listed(caller.get(&list)?.text()), format!("{name} is not listed"));
    while is_listed(caller.get(&list)?.text()) {
        if Instant::now() > deadline {
            return Err("it is still there after 20 seconds".into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let Subscribed::Streaming(mut stream) = Subscription::open(server.address, &name, Some(&ids[0]), false, 0)? else {
        return Err("no stream".into());
    };
    let mut events = Vec::new();
    while events.is_empty()
        && Instant::now() < deadline
        && stream.read(Duration::from_secs(5), 16 * 1024, &mut events)? == Reading::Some
    {}
    let is_told = events.first().is_some_and(|event| event.name.as_deref() == Some("gap"));
    report.expect(is_told, format!("{name} expired, and its client is told {events:?}"));
    Ok(())
}

/// The middle of what was resident in a quarter of the samples, early and late. A leak grows all
/// the time.
fn judge_memory(report: &Report, what: &str, samples: &[Vitals]) {
    let quarter = samples.len() / 4;
    // Until the table is full, which takes about a minute, memory grows.
    if quarter < 75 {
        report.row(format!("{what}: memory"), "too short to judge");
        return;
    }
    let middle = |samples: &[Vitals]| {
        let mut resident: Vec<_> = samples.iter().map(|vitals| vitals.resident_kib).collect();
        resident.sort_unstable();
        resident[resident.len() / 2]
    };
    let (early, late) = (middle(&samples[quarter..2 * quarter]), middle(&samples[3 * quarter..]));
    let most = samples.iter().map(|vitals| vitals.resident_kib).max().unwrap_or(0);
    let threads = samples.iter().map(|vitals| vitals.threads).max().unwrap_or(0);
    report
        .row(format!("{what}: resident in the second quarter, the last, most"), format!("{early}, {late}, {most} KiB"));
    report.row(format!("{what}: threads at most"), threads);
    report.expect(late <= early + early / 10 + 512, format!("{what}: memory grew from {early} to {late} KiB"));
}
