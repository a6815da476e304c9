//! The threads that write to every subscriber with room. Each owns its share of the subscribers,
//! and none ever waits for one: sockets are non-blocking, and who has no room gets a thread of its
//! own until it has caught up.

use super::channel::{Channel, Common, Departure, END, Subscriber, Work};
use super::history::{Batch, Cursor};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// A catching-up thread copies and writes; it runs nobody's code.
const CATCH_UP_STACK_BYTES: usize = 64 * 1024;

/// What an idle subscriber is sent: the shortest comment, in a block of its own.
const HEARTBEAT: &[u8] = b":\n\n";

/// How often in a heartbeat's interval a thread looks who is due.
const BEATS_PER_INTERVAL: u32 = 32;

/// Starts one thread for each of the bells.
pub(super) fn start(common: &Arc<Common>) -> io::Result<()> {
    for lane in 0..common.bells.len() {
        let fanout = FanOut::new(lane, Arc::clone(common));
        thread::Builder::new()
            .name(format!("fan-out {lane}"))
            .spawn(move || fanout.run())?;
    }
    Ok(())
}

struct FanOut {
    lane: usize,
    common: Arc<Common>,
    rosters: HashMap<usize, Roster>,
    batch: Batch,
    started: Instant,
    /// Varies how long members are left in silence.
    seed: u32,
}

/// The subscribers of one channel that this thread owns. All stand where the last batch ended.
struct Roster {
    channel: Channel,
    members: Vec<Member>,
}

struct Member {
    subscriber: Subscriber,
    /// When something was last written to it, in milliseconds since the thread began.
    heard_ms: u64,
    /// How long a silence it is left in, in milliseconds: between half of the heartbeat's interval
    /// and all of it, so that not all are written to in one instant.
    patience_ms: u32,
    /// It has closed its half of the connection: it may still be listening, or be gone.
    half_closed: bool,
}

/// What came of writing to a member.
enum Written {
    All,
    /// There is no room for the rest, after which it stands at `cursor`, or has heard the end.
    Blocked {
        rest: Vec<u8>,
        cursor: Cursor,
        ended: bool,
    },
    Departed(Departure),
}

impl FanOut {
    fn new(lane: usize, common: Arc<Common>) -> FanOut {
        FanOut {
            lane,
            common,
            rosters: HashMap::new(),
            batch: Batch::default(),
            started: Instant::now(),
            seed: 1,
        }
    }

    fn run(mut self) -> ! {
        let interval = self.common.limits.heartbeat;
        let pause = (interval / BEATS_PER_INTERVAL)
            .clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut next_beat = Instant::now();
        loop {
            let beats = !interval.is_zero() && !self.rosters.is_empty();
            if let Some(channel) = self.common.bells[self.lane].wait(beats.then_some(next_beat)) {
                self.deliver(channel);
            }
            if beats && Instant::now() >= next_beat {
                self.beat();
                next_beat = Instant::now() + pause;
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Writes to each member of a channel all that it lacks, with one call.
    fn deliver(&mut self, channel: Channel) {
        let key = channel.key();
        let mut roster = self.rosters.remove(&key).unwrap_or_else(|| Roster {
            channel,
            members: Vec::new(),
        });
        let mut work =
            roster
                .channel
                .take_up(self.lane, !roster.members.is_empty(), &mut self.batch);
        let now_ms = self.now_ms();
        for subscriber in std::mem::take(&mut work.newcomers) {
            let patience_ms = self.patience_ms();
            roster.members.push(Member {
                subscriber,
                heard_ms: now_ms,
                patience_ms,
                half_closed: false,
            });
        }
        let (mut events, mut bytes) = (0, 0);
        let mut at = 0;
        while at < roster.members.len() {
            let member = &mut roster.members[at];
            let before = member.subscriber.cursor;
            let written = write_batch(&mut member.subscriber, &self.batch, &work);
            events += member.subscriber.cursor.saturating_sub(before);
            bytes += self.batch.between(before, member.subscriber.cursor).len() as u64;
            match written {
                Written::All => {
                    member.heard_ms = now_ms;
                    at += 1;
                }
                blocked_or_departed => dismiss(
                    roster.members.swap_remove(at),
                    blocked_or_departed,
                    &self.common,
                ),
            }
        }
        self.common
            .counts
            .events_delivered
            .fetch_add(events, Relaxed);
        self.common.counts.bytes_delivered.fetch_add(bytes, Relaxed);
        if !roster.members.is_empty() {
            self.rosters.insert(key, roster);
        }
    }

    /// Writes to those who have been left in silence long enough, which also tells who has left.
    fn beat(&mut self) {
        let now_ms = self.now_ms();
        let common = &self.common;
        self.rosters.retain(|_, roster| {
            let mut at = 0;
            while at < roster.members.len() {
                match beat_member(&mut roster.members[at], now_ms) {
                    Written::All => at += 1,
                    blocked_or_departed => {
                        dismiss(roster.members.swap_remove(at), blocked_or_departed, common)
                    }
                }
            }
            !roster.members.is_empty()
        });
    }

    fn patience_ms(&mut self) -> u32 {
        // A linear congruential generator: it only has to spread.
        self.seed = self
            .seed
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        let half =
            u32::try_from(self.common.limits.heartbeat.as_millis() / 2).unwrap_or(u32::MAX / 2);
        half + ((u64::from(half) * u64::from(self.seed >> 16)) >> 16) as u32
    }
}

fn write_batch(subscriber: &mut Subscriber, batch: &Batch, work: &Work) -> Written {
    if subscriber.cursor < batch.from() {
        return Written::Departed(Departure::Slow);
    }
    let ends = subscriber.completions != work.completions;
    let until = if ends { work.completed_at } else { batch.end() };
    let lacking = batch.between(subscriber.cursor, until);
    if !lacking.is_empty() {
        match write_some(subscriber, lacking) {
            Ok(taken) if taken == lacking.len() => subscriber.cursor = until,
            Ok(taken) => {
                let (rest, cursor) = batch.split(subscriber.cursor, taken);
                return Written::Blocked {
                    rest: rest.to_vec(),
                    cursor,
                    ended: false,
                };
            }
            Err(_) => return Written::Departed(Departure::Left),
        }
    }
    if ends {
        write_end(subscriber)
    } else {
        Written::All
    }
}

fn write_end(subscriber: &Subscriber) -> Written {
    match write_some(subscriber, END) {
        Ok(taken) if taken < END.len() => Written::Blocked {
            rest: END[taken..].to_vec(),
            cursor: subscriber.cursor,
            ended: true,
        },
        Ok(_) => {
            // What the client may have sent must be read before the close, or a reset would take
            // the end back from it.
            let _ = subscriber.connection.shutdown(Shutdown::Write);
            let _ = (&mut &*subscriber.connection).read(&mut [0; 4096]);
            Written::Departed(Departure::Completed)
        }
        Err(_) => Written::Departed(Departure::Left),
    }
}

/// One call; no room at all is no bytes.
fn write_some(subscriber: &Subscriber, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match (&mut &*subscriber.connection).write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            outcome => return outcome,
        }
    }
}

fn beat_member(member: &mut Member, now_ms: u64) -> Written {
    let connection = &member.subscriber.connection;
    // The beat that was written into a closed connection has come back as a reset by now.
    if member.half_closed && !matches!(connection.take_error(), Ok(None)) {
        return Written::Departed(Departure::Left);
    }
    if now_ms.saturating_sub(member.heard_ms) < u64::from(member.patience_ms) {
        return Written::All;
    }
    match (&mut &**connection).read(&mut [0; 1024]) {
        Ok(0) => member.half_closed = true,
        // A client has nothing to say on a stream.
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(_) => return Written::Departed(Departure::Left),
    }
    member.heard_ms = now_ms;
    match write_some(&member.subscriber, HEARTBEAT) {
        Ok(taken) if taken < HEARTBEAT.len() => {
            let rest = HEARTBEAT[taken..].to_vec();
            Written::Blocked {
                rest,
                cursor: member.subscriber.cursor,
                ended: false,
            }
        }
        Ok(_) => Written::All,
        Err(_) => Written::Departed(Departure::Left),
    }
}

/// Lets a member go: to a thread of its own, or for good.
fn dismiss(member: Member, written: Written, common: &Common) {
    let mut subscriber = member.subscriber;
    let departure = match written {
        Written::All => return,
        Written::Departed(departure) => departure,
        Written::Blocked {
            rest,
            cursor,
            ended,
        } => {
            subscriber.cursor = cursor;
            let thread = thread::Builder::new()
                .name("catch-up".into())
                .stack_size(CATCH_UP_STACK_BYTES);
            match thread.spawn(move || subscriber.catch_up(&rest, ended)) {
                Ok(_) => return,
                // The subscriber went with the closure.
                Err(_) => Departure::Slow,
            }
        }
    };
    departure.count(&common.counts);
}
