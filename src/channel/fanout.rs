//! The threads that write to every subscriber with room, as many as the machine has cores. Each has a
//! lane in every channel, and none ever waits for a subscriber.

use super::channel::{Channel, Common};
use super::history::Batch;
use super::subscriber::LOOK_INTERVAL;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How often in a heartbeat's interval a thread looks who is due.
const BEATS_PER_INTERVAL: u32 = 32;

/// Starts one thread for each of the notifiers.
pub(super) fn start(common: &Arc<Common>) -> io::Result<()> {
    for lane in 0..common.notifiers.len() {
        let common = Arc::clone(common);
        let thread = thread::Builder::new().name(format!("fan-out {lane}"));
        thread.spawn(move || fan_out(lane, &common))?;
    }
    Ok(())
}

fn fan_out(lane: usize, common: &Common) -> ! {
    let interval = match common.limits.heartbeat {
        Duration::ZERO => LOOK_INTERVAL,
        heartbeat => heartbeat.min(LOOK_INTERVAL),
    };
    let pause =
        (interval / BEATS_PER_INTERVAL).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut next_beat = Instant::now();
    let mut batch = Batch::default();
    // The channels in which this thread's lane has somebody who may have left, or is to have a heartbeat.
    let mut attended: HashMap<usize, Channel> = HashMap::new();
    loop {
        let deadline = (!attended.is_empty()).then_some(next_beat);
        if let Some(channel) = common.notifiers[lane].wait(deadline) {
            if !channel.deliver(lane, &mut batch) {
                attended.remove(&channel.key());
            } else {
                attended.entry(channel.key()).or_insert(channel);
            }
        }
        let now = Instant::now();
        if now >= next_beat {
            attended.retain(|_, channel| channel.beat(lane));
            next_beat = now + pause;
        }
    }
}
