//! Publishers and subscribers of some channels, together; what they did and saw is for the oracle.

use crate::client::Caller;
use crate::oracle::{Findings, Log, judge};
use crate::publisher::Publisher;
use crate::stage::{Channel, Phase, Selection, Stage};
use crate::subscriber::Subscriber;
use fastrand::Rng;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// At each channel.
const PUBLISHERS: u32 = 2;

/// At every channel publishers, and at every selection subscribers, while `meanwhile` lasts. Then
/// the publishers stop, the channels are completed, and each client reads on to the end and comes
/// back until told 204. What the oracle makes of it: of a view, channel by channel.
pub fn play(
    stage: &Stage<'_>,
    channels: &[Channel],
    selections: &[Selection<'_>],
    random: &mut Rng,
    meanwhile: impl FnOnce(&mut Rng),
) -> Findings {
    let mut found = Findings::default();
    thread::scope(|scope| {
        let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
        for channel in channels {
            for number in 0..PUBLISHERS {
                let publisher = Publisher::new(stage, channel, number, random.u64(..));
                publishers.push(scope.spawn(move || publisher.run()));
            }
        }
        for selection in selections {
            for habit in selection.habits {
                let subscriber = Subscriber::new(stage, selection, habit, random.u64(..));
                subscribers.push((selection, scope.spawn(move || subscriber.run())));
            }
        }
        let started = Instant::now();
        meanwhile(random);
        let played_ms = started.elapsed().as_millis() as u64 * channels.len() as u64;
        stage.tallies.played_ms.fetch_add(played_ms, Relaxed);
        stage.enter(Phase::Quiet);
        for publisher in publishers {
            stage.report.expect(publisher.join().is_ok(), "a publisher panicked");
        }
        for channel in channels {
            if stage.restarts {
                // Without it, what a client saw last may lie in a life before this one.
                Publisher::new(stage, channel, PUBLISHERS, random.u64(..)).publish_last();
            }
            complete(stage, channel);
        }
        stage.enter(Phase::Home);
        let mut logs: HashMap<&str, Vec<Log>> = HashMap::new();
        for (selection, subscriber) in subscribers {
            let Ok(told) = subscriber.join() else {
                stage.report.violation("a subscriber panicked");
                continue;
            };
            for (channel, log) in selection.channels.iter().zip(told) {
                logs.entry(&channel.name).or_default().push(log);
            }
        }
        for Channel { name, sent, .. } in channels {
            let logs = logs.remove(name.as_str()).unwrap_or_default();
            found.add(judge(name, sent, &logs, !stage.restarts, stage.remembers));
        }
    });
    found
}

/// Completes a channel, however often the server must be asked.
fn complete(stage: &Stage<'_>, channel: &Channel) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        let answer = Caller::new(stage.address).request("DELETE", &channel.target(""), b"");
        if matches!(&answer, Ok(answer) if answer.status == 204) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    stage.report.violation(format!("{} could not be completed", channel.name));
}
