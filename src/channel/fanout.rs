//! The threads that write to every subscriber with room, as many as the machine has cores. Each has a lane in every
//! channel. None of them ever waits for a subscriber.

use super::catch_up;
use super::feed::{Feed, Hub, State};
use super::history::{Batch, Cursor, has_lost_events};
use super::lane::Lane;
use super::notifier::Wake;
use super::subscriber::{Departure, LOOK_INTERVAL, Subscriber, Written};
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often in a heartbeat interval a thread looks for heartbeats that are due.
const LOOKS_PER_INTERVAL: u32 = 32;

/// A publisher writes to so few subscribers itself, if its event comes so long after the one before: waking a fan-out
/// thread would take longer than the writes. Events in quick succession are for the fan-out thread, which writes many
/// with one call; `make bench` shows both in the rows of one subscriber.
const FEW: usize = 16;
const APART: Duration = Duration::from_micros(500);

/// After so many subscribers a fan-out thread lets other threads run. With thousands of them the system would let it write for
/// milliseconds, while the threads that accept wait for a core. After 128 clients that are not accepted, a listener of std
/// drops the next one, which comes back a second later.
const BETWEEN_YIELDS: usize = 32;

/// Starts one thread for each of the notifiers.
pub(super) fn start(hub: &Arc<Hub>) -> io::Result<Vec<JoinHandle<()>>> {
    let start_one = |lane: usize| {
        let hub = Arc::clone(hub);
        thread::Builder::new().name(format!("fan-out {lane}")).spawn(move || fan_out(lane, &hub))
    };
    (0..hub.notifiers.len()).map(start_one).collect()
}

fn fan_out(lane: usize, hub: &Hub) {
    let interval = match hub.limits.heartbeat {
        Duration::ZERO => LOOK_INTERVAL,
        heartbeat => heartbeat.min(LOOK_INTERVAL),
    };
    let pause = (interval / LOOKS_PER_INTERVAL).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut next_look = Instant::now();
    let mut batch = Batch::default();
    // The channels that have subscribers in this thread's lane.
    let mut attended: HashMap<*const Feed, Arc<Feed>> = HashMap::new();
    loop {
        let deadline = (!attended.is_empty()).then_some(next_look);
        match hub.notifiers[lane].wait(deadline) {
            Wake::Notified(feed) => {
                if deliver(&feed, lane, &mut batch) {
                    attended.entry(Arc::as_ptr(&feed)).or_insert(feed);
                } else {
                    attended.remove(&Arc::as_ptr(&feed));
                }
            }
            Wake::DeadlinePassed => {}
            Wake::Closed => {
                attended.values().for_each(|feed| feed.stop_lane(lane));
                return;
            }
        }
        let now = Instant::now();
        if now >= next_look {
            attended.retain(|_, feed| write_heartbeats(feed, lane));
            next_look = now + pause;
        }
    }
}

/// The subscribers that one thread has taken out of a lane.
struct Round {
    lane: usize,
    subscribers: Vec<Subscriber>,
    completed_at: Option<Cursor>,
}

/// Copies what the subscribers in these lanes lack.
fn copy(state: &State, lanes: Range<usize>, batch: &mut Batch) {
    let lanes = state.lanes[lanes].iter().filter(|lane| !lane.is_out);
    let from = lanes.filter_map(Lane::needed_from).min().unwrap_or(Cursor::MAX);
    let from = from.clamp(state.history.first, state.history.end());
    state.history.copy(from, Cursor::MAX, usize::MAX, batch);
}

fn take_out(state: &mut State, lane: usize) -> Option<Round> {
    let subscribers = state.lanes[lane].take_out(state.history.end())?;
    Some(Round { lane, subscribers, completed_at: state.completed_at })
}

/// Writes to all subscribers in a lane what each of them lacks. `false` when the lane has none.
fn deliver(feed: &Arc<Feed>, lane: usize, batch: &mut Batch) -> bool {
    let mut state = feed.lock();
    copy(&state, lane..lane + 1, batch);
    let Some(round) = take_out(&mut state, lane) else {
        return state.lanes[lane].is_out;
    };
    feed.copied(state);
    let has_some = write_batch(feed, round, batch);
    batch.clear();
    has_some
}

/// Brings what was appended to the subscribers in lanes: on this thread, or on those that fan out.
pub(super) fn tell(feed: &Arc<Feed>, mut state: MutexGuard<'_, State>) {
    let now = Instant::now();
    let before = state.published_at.replace(now);
    let is_apart = before.is_none_or(|before| now - before >= APART);
    if feed.members.subscribers() <= FEW && is_apart {
        deliver_to_all(feed, state);
    } else {
        feed.notify_lanes(state);
    }
}

/// Writes to all subscribers in all lanes, on the publisher's thread.
fn deliver_to_all(feed: &Arc<Feed>, mut state: MutexGuard<'_, State>) {
    let (lanes, mut batch) = (0..state.lanes.len(), Batch::default());
    copy(&state, lanes.clone(), &mut batch);
    let rounds: Vec<_> = lanes.filter_map(|lane| take_out(&mut state, lane)).collect();
    feed.copied(state);
    for round in rounds {
        write_batch(feed, round, &batch);
    }
}

fn write_batch(feed: &Arc<Feed>, mut round: Round, batch: &Batch) -> bool {
    let now_ms = feed.hub.now_ms();
    let (mut events, mut bytes) = (0, 0);
    write_each(feed, &mut round.subscribers, |subscriber| {
        let before = subscriber.cursor;
        if has_lost_events(before, batch.from) {
            return Written::Departed(Departure::Slow);
        }
        let written = subscriber.write_batch(batch, subscriber.ends_at(round.completed_at));
        // The rest of a frame that is half written follows, or nothing does.
        if subscriber.cursor > before {
            subscriber.written_ms = now_ms;
            events += subscriber.cursor - before;
            bytes += batch.between(before, subscriber.cursor).len() as u64;
        }
        written
    });
    feed.hub.counters.delivered(events, bytes);
    put_back(feed, round)
}

/// Writes the heartbeats that are due in a lane. `false` when the lane has no subscribers.
fn write_heartbeats(feed: &Arc<Feed>, lane: usize) -> bool {
    let mut state = feed.lock();
    let completed_at = state.completed_at;
    let Some(subscribers) = state.lanes[lane].take_out_idle() else {
        return state.lanes[lane].is_out || state.lanes[lane].len() > 0;
    };
    drop(state);
    let mut round = Round { lane, subscribers, completed_at };
    let (now_ms, heartbeat) = (feed.hub.now_ms(), feed.hub.heartbeat());
    let write = |subscriber: &mut Subscriber| subscriber.heartbeat(now_ms, heartbeat);
    write_each(feed, &mut round.subscribers, write);
    put_back(feed, round)
}

/// Removes the subscribers to which `write` could not write everything.
fn write_each(feed: &Arc<Feed>, subscribers: &mut Vec<Subscriber>, mut write: impl FnMut(&mut Subscriber) -> Written) {
    let (mut at, mut written) = (0, 0);
    while at < subscribers.len() {
        written += 1;
        if written % BETWEEN_YIELDS == 0 {
            thread::yield_now();
        }
        match write(&mut subscribers[at]) {
            Written::All => at += 1,
            Written::Departed(departure) => {
                feed.hub.counters.departed(departure);
                subscribers.swap_remove(at);
            }
            Written::Blocked { rest, is_ended } => {
                catch_up::spawn(feed, subscribers.swap_remove(at), rest, is_ended);
            }
        }
    }
}

/// `false` when the lane has no subscribers any more.
fn put_back(feed: &Arc<Feed>, round: Round) -> bool {
    let mut state = feed.lock();
    let (end, completed_at) = (state.history.end(), state.completed_at);
    let lane = &mut state.lanes[round.lane];
    let has_newcomers = lane.put_back(round.subscribers, completed_at);
    let has_some = lane.len() > 0;
    let lags = lane.copied < end || has_newcomers || completed_at != round.completed_at;
    let must_notify = lags && lane.take_notification();
    // If no subscriber is left in the lane, nothing is to be copied for it.
    feed.copied(state);
    // When the hub stopped meanwhile, nothing else looks at the lane again.
    if must_notify || feed.hub.is_stopped() {
        feed.notify(round.lane);
    }
    has_some
}

#[cfg(test)]
mod tests {
    use super::super::asked::Asked;
    use super::super::history::History;
    use super::super::hub::ROOM_DEADLINE;
    use super::super::limits::Limits;
    use super::super::members::{Listing, Members, Presence};
    use super::super::start::Start;
    use super::*;
    use crate::http::{Router, Server};
    use crate::sse::{event_stream, opening};
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Weak;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::mpsc;

    struct Unlisted;

    impl Listing for Unlisted {
        fn review(&self, _: &Members) {}
    }

    const CLIENTS: usize = 5;

    /// A history of one event and one lane with clients in it. No fan-out thread runs, as if it hung.
    fn start_without_thread() -> (Arc<Feed>, Vec<TcpStream>) {
        let hub = Feed::hub(Limits { history_events: 1, ..Limits::default() }, 1);
        let members = Members::new("c".into(), Weak::<Unlisted>::new());
        let feed = Feed::new(&hub, members, History::new(hub.ids.last()), None);
        let (subscribed, mut router) = (Arc::clone(&feed), Router::new());
        router.get("/", move |_| {
            let feed = Arc::clone(&subscribed);
            event_stream(opening(), move |writer| {
                let presence = Presence::new(&feed.members);
                let subscriber = Subscriber::new(writer.into_parts().0, presence, 0);
                let start = Start::new(&feed, &Asked::Earliest);
                let outcome = catch_up::begin(&feed, subscriber, Vec::new(), start, Asked::Earliest, None);
                catch_up::count(&feed, outcome);
                Ok(())
            })
        });
        let server = Server::bind("127.0.0.1:0").expect("there is a free port");
        let address = server.local_addr().expect("it listens");
        server.log_accesses(false).serve(router).expect("it starts");
        let connect = |_| {
            let mut client = TcpStream::connect(address).expect("it accepts");
            client.set_read_timeout(Some(Duration::from_secs(60))).expect("it is not zero");
            client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
            client
        };
        let clients = (0..CLIENTS).map(connect).collect();
        while feed.lock().lanes[0].len() < CLIENTS {
            thread::yield_now();
        }
        (feed, clients)
    }

    fn read_to_end(clients: Vec<TcpStream>) -> impl Iterator<Item = String> {
        clients.into_iter().map(|mut client| {
            let mut received = String::new();
            client.read_to_string(&mut received).expect("the stream ends");
            received
        })
    }

    #[test]
    fn publishing_goes_on_when_a_fan_out_thread_hangs_and_its_subscribers_are_cut_off_later() {
        let (feed, clients) = start_without_thread();
        let (sender, receiver) = mpsc::channel();
        let published = Arc::clone(&feed);
        thread::spawn(move || {
            for _ in 0..3 {
                let mut state = published.make_room(published.lock(), 10, ROOM_DEADLINE);
                state.history.append(published.hub.ids.next(), b"data: x\n\n"[..].into(), None);
            }
            sender.send(())
        });
        receiver.recv_timeout(Duration::from_secs(60)).expect("publishing goes on");
        start(&feed.hub).expect("there are threads");
        for received in read_to_end(clients) {
            assert!(!received.contains("data"), "no event may come after a lost one");
        }
        assert_eq!(feed.hub.counters.slow.load(Relaxed), CLIENTS as u64);
    }

    #[test]
    fn subscribers_that_another_thread_has_taken_out_are_stopped_when_they_are_put_back() {
        let (feed, clients) = start_without_thread();
        let round = take_out(&mut feed.lock(), 0).expect("there are some");
        feed.hub.stop();
        put_back(&feed, round);
        assert!(read_to_end(clients).all(|received| received.matches("retry: ").count() == 2));
    }

    /// In a channel of thousands, each client that comes would cost a look at all others.
    #[test]
    fn a_subscriber_that_joins_and_lacks_nothing_wakes_no_thread_and_gets_what_follows() {
        let (feed, mut clients) = start_without_thread();
        let is_notified = || matches!(feed.hub.notifiers[0].wait(Some(Instant::now())), Wake::Notified(_));
        assert!(is_notified(), "the first one wakes the thread");
        let mut batch = Batch::default();
        assert!(deliver(&feed, 0, &mut batch));
        let join = |subscriber| feed.join(feed.lock(), 0, subscriber);
        let subscribers = feed.lock().lanes[0].drain();
        let mut subscribers = subscribers.into_iter();
        join(subscribers.next().expect("there are some"));
        assert!(is_notified() && deliver(&feed, 0, &mut batch));
        let round = take_out(&mut feed.lock(), 0).expect("there is one");
        join(subscribers.next().expect("there are some"));
        put_back(&feed, round);
        subscribers.for_each(join);
        assert!(!is_notified(), "nothing is to be written");
        feed.lock().history.append(feed.hub.ids.next(), b"data: x\n\n"[..].into(), None);
        feed.notify_lanes(feed.lock());
        assert!(is_notified() && deliver(&feed, 0, &mut batch));
        for client in &mut clients {
            let mut received = [0; 4096];
            let mut text = String::new();
            while !text.contains("data: x") {
                let bytes = client.read(&mut received).expect("it is written");
                text += &String::from_utf8_lossy(&received[..bytes]);
            }
        }
    }

    #[test]
    fn subscribers_that_join_a_lane_too_late_for_its_thread_are_stopped() {
        let (feed, clients) = start_without_thread();
        let subscribers = feed.lock().lanes[0].drain();
        feed.hub.stop();
        for subscriber in subscribers {
            feed.join(feed.lock(), 0, subscriber);
        }
        assert!(read_to_end(clients).all(|received| received.matches("retry: ").count() == 2));
    }
}
