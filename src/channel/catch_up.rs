//! Brings a subscriber up to date: what it missed is written on a thread that waits for it, and then it joins a lane.

use super::asked::Asked;
use super::feed::{Feed, Hub, State};
use super::history::{Batch, Cursor, History, Rest, has_lost_events};
use super::id::Id;
use super::replay::Replay;
use super::start::Start;
use super::subscriber::{Departure, END, Subscriber, Written};
use crate::sse::{Message, Parser, farewell};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

/// The thread copies and writes; it runs no code of the program that uses the library.
const STACK_BYTES: usize = 64 * 1024;

/// Says of each event whether the subscriber gets it.
pub(super) type Filter = Box<dyn FnMut(&Message) -> bool + Send>;

/// Starts a stream on the thread of its connection, with its head unless that has left. The event that reports a gap and
/// the first part of the history are found at one moment.
pub(super) fn begin(
    feed: &Arc<Feed>,
    mut subscriber: Subscriber,
    mut head: Vec<u8>,
    start: Start,
    asked: Asked,
    mut filter: Option<Filter>,
) -> Result<(), Departure> {
    subscriber.presence.join();
    if feed.view.is_some() {
        subscriber.write_blocking(&head)?;
        subscriber.connection.set_farewell(farewell);
        let after = replay_view(feed, &mut subscriber, start, &asked, filter.as_mut())?;
        subscriber.write_blocking(&feed.ends(&after, Some(subscriber.cursor)))?;
        return catch_up(feed, subscriber, filter);
    }
    let mut batch = Batch::default();
    {
        let state = feed.lock();
        let History { first, forgotten, .. } = state.history;
        // A history that was begun anew may have other ids, also smaller ones.
        let has_lost = start.has_gap.is_none() && has_lost_events(subscriber.joined_at, first);
        subscriber.cursor = match has_lost {
            true => first,
            false => state.history.position_after(start.after),
        };
        if has_lost || start.is_behind_gap(forgotten, &feed.hub.ids) {
            head.extend_from_slice(feed.gap(&asked, state.history.first_id(), BTreeSet::new()).as_bytes());
        }
        feed.copy_for(&state, &subscriber, &mut batch);
    }
    write(feed, &mut subscriber, &head, &batch, filter.as_mut())?;
    subscriber.connection.set_farewell(farewell);
    // The rest may take long.
    drop((head, batch));
    catch_up(feed, subscriber, filter)
}

/// Writes what the channels of a view keep for the subscriber, until the view itself has all that it lacks. Returns up to
/// where it has them.
fn replay_view(
    feed: &Arc<Feed>,
    subscriber: &mut Subscriber,
    start: Start,
    asked: &Asked,
    mut filter: Option<&mut Filter>,
) -> Result<Vec<Id>, Departure> {
    let (mut replay, mut batch, hub) = (Replay::new(feed, start), Batch::default(), &feed.hub);
    start_heartbeats(hub, subscriber, hub.joined.load(Relaxed));
    while !hub.is_stopped() {
        wait_for_view(feed, subscriber)?;
        let (until, end) = {
            let State { history, place, .. } = &*feed.lock();
            let after = replay.after()[0];
            if !feed.has_place() && after >= history.forgotten {
                subscriber.cursor = history.position_after(after);
                return Ok(replay.after());
            }
            (if feed.has_place() { place.clone() } else { vec![Id::MAX] }, history.end())
        };
        loop {
            let gap = replay.next(asked, &until, &mut batch)?;
            subscriber.cursor = 0;
            write(feed, subscriber, gap.as_bytes(), &batch, filter.as_deref_mut())?;
            if replay.is_complete || hub.is_stopped() {
                break;
            }
        }
        if feed.has_place() && replay.is_complete {
            subscriber.cursor = end;
            return Ok(replay.after());
        }
    }
    // `catch_up` ends the stream.
    subscriber.cursor = feed.lock().history.end();
    Ok(replay.after())
}

/// Waits until the view is active, and its channels have each event that it has not. A log that hangs may hold that up.
fn wait_for_view(feed: &Feed, subscriber: &mut Subscriber) -> Result<(), Departure> {
    let hub = &feed.hub;
    let must_wait = |settled: Id| {
        let forgotten = feed.lock().history.forgotten;
        let is_ready = if feed.has_place() { forgotten < Id::MAX } else { forgotten <= settled };
        !is_ready && !hub.is_stopped()
    };
    loop {
        let until_heartbeat = Duration::from_millis(subscriber.heartbeat_in_ms(hub.now_ms()));
        if hub.order.wait(&hub.ids, until_heartbeat, must_wait) {
            return Ok(());
        }
        write_heartbeat(feed, subscriber)?;
    }
}

/// Continues with a subscriber when its socket had no room for `rest`, on a thread of its own.
pub(super) fn spawn(feed: &Arc<Feed>, subscriber: Subscriber, rest: Rest, is_ended: bool) {
    let spawned_feed = Arc::clone(feed);
    let resume = move || {
        let (frame, from) = rest;
        subscriber.connection.set_nonblocking(false).map_err(|_| Departure::Left)?;
        if is_ended {
            subscriber.write_last_blocking(&frame[from..])?;
            return Err(Departure::Completed);
        }
        subscriber.write_blocking(&frame[from..])?;
        // The history may have forgotten the frame, and only this thread keep it.
        drop(frame);
        catch_up(&spawned_feed, subscriber, None)
    };
    let thread = thread::Builder::new().name("catch-up".into()).stack_size(STACK_BYTES);
    let counted = Arc::clone(feed);
    if thread.spawn(move || count(&counted, resume())).is_err() {
        // The subscriber was dropped with the closure. The client comes back.
        count(feed, Err(Departure::Slow));
    }
}

pub(super) fn count(feed: &Feed, outcome: Result<(), Departure>) {
    if let Err(departure) = outcome {
        feed.hub.counters.departed(departure);
    }
}

/// Writes what the history has for the subscriber until it lacks nothing and joins a lane. A filtered subscriber never
/// joins one: the thread waits for what comes.
fn catch_up(feed: &Arc<Feed>, mut subscriber: Subscriber, mut filter: Option<Filter>) -> Result<(), Departure> {
    if filter.is_some() {
        start_heartbeats(&feed.hub, &mut subscriber, feed.hub.joined.fetch_add(1, Relaxed));
    }
    let mut batch = Batch::default();
    loop {
        let ends = {
            let state = feed.lock();
            if has_lost_events(subscriber.cursor, state.history.first) {
                return Err(Departure::Slow);
            }
            feed.copy_for(&state, &subscriber, &mut batch)
        };
        if subscriber.cursor < batch.end() {
            write(feed, &mut subscriber, b"", &batch, filter.as_mut())?;
        } else if feed.hub.is_stopped() {
            subscriber.write_last_blocking(&farewell())?;
            return Err(Departure::Stopped);
        } else if ends {
            subscriber.write_last_blocking(END)?;
            return Err(Departure::Completed);
        } else if filter.is_none() {
            return join(feed, subscriber);
        } else {
            wait(feed, &mut subscriber)?;
        }
    }
}

/// Writes what a batch has for the subscriber, in one call with what comes before it.
fn write(
    feed: &Feed,
    subscriber: &mut Subscriber,
    before: &[u8],
    batch: &Batch,
    filter: Option<&mut Filter>,
) -> Result<(), Departure> {
    let mut bytes = Cow::Borrowed(batch.between(subscriber.cursor, Cursor::MAX));
    let mut events = batch.end() - subscriber.cursor;
    if let Some(filter) = filter {
        let mut is_accepted = |frame: &&[u8]| {
            // A frame in the history is one whole event, within the bounds of the history.
            let messages = Parser::with_limit(usize::MAX).feed(frame).unwrap_or_default();
            messages.iter().any(&mut *filter)
        };
        let accepted: Vec<&[u8]> = batch.frames().filter(&mut is_accepted).collect();
        (events, bytes) = (accepted.len() as u64, Cow::Owned(accepted.concat()));
    }
    subscriber.write_both_blocking(before, &bytes)?;
    if events > 0 {
        subscriber.written_ms = feed.hub.now_ms();
        feed.hub.counters.delivered(events, bytes.len() as u64);
    }
    subscriber.cursor = batch.end();
    Ok(())
}

/// Waits until a filtered subscriber lacks something, or a heartbeat is due.
fn wait(feed: &Feed, subscriber: &mut Subscriber) -> Result<(), Departure> {
    let until_heartbeat = subscriber.heartbeat_in_ms(feed.hub.now_ms());
    {
        let state = feed.lock();
        let lacks_nothing =
            subscriber.cursor == state.history.end() && subscriber.ends_at(state.completed_at).is_none();
        if lacks_nothing && until_heartbeat > 0 && !feed.hub.is_stopped() {
            feed.wait_for_change(state, Duration::from_millis(until_heartbeat));
            return Ok(());
        }
    }
    write_heartbeat(feed, subscriber)
}

/// Writes a heartbeat if one is due, on a thread that waits for the subscriber, and looks whether that has left.
fn write_heartbeat(feed: &Feed, subscriber: &mut Subscriber) -> Result<(), Departure> {
    subscriber.connection.set_nonblocking(true).map_err(|_| Departure::Left)?;
    let written = subscriber.heartbeat(feed.hub.now_ms(), feed.hub.heartbeat());
    subscriber.connection.set_nonblocking(false).map_err(|_| Departure::Left)?;
    match written {
        Written::All => Ok(()),
        Written::Blocked { rest: (frame, from), .. } => subscriber.write_blocking(&frame[from..]),
        Written::Departed(departure) => Err(departure),
    }
}

/// Gives the subscriber an interval between half of the limit and all of it. The golden ratio spreads the heartbeats of
/// subscribers that came together; this is the `nth`.
fn start_heartbeats(hub: &Hub, subscriber: &mut Subscriber, nth: u64) {
    let half = hub.limits.heartbeat.as_millis() as u64 / 2;
    let fraction = u64::from((nth as u32).wrapping_mul(0x9e37_79b9) >> 16);
    // An interval is a day at most.
    let interval_ms = (half + ((half * fraction) >> 16)).max(1) as u32;
    let has_heartbeats = !hub.limits.heartbeat.is_zero();
    subscriber.heartbeat_interval_ms = if has_heartbeats { interval_ms } else { u32::MAX };
    subscriber.written_ms = hub.now_ms();
}

/// Hands the subscriber over to a fan-out thread, which writes what was published since it was found to lack nothing.
fn join(feed: &Arc<Feed>, mut subscriber: Subscriber) -> Result<(), Departure> {
    subscriber.connection.set_nonblocking(true).map_err(|_| Departure::Left)?;
    let nth = feed.hub.joined.fetch_add(1, Relaxed);
    start_heartbeats(&feed.hub, &mut subscriber, nth);
    let lane = nth as usize % feed.hub.notifiers.len();
    let state = feed.lock();
    if has_lost_events(subscriber.cursor, state.history.first) {
        return Err(Departure::Slow);
    }
    feed.join(state, lane, subscriber);
    Ok(())
}
