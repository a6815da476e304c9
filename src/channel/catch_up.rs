//! Brings a subscriber up to date: what it missed is written on a thread that waits for it, and then it joins a lane.
//! This is the only place that decides that a subscriber has lost something.

use super::asked::Asked;
use super::feed::{Feed, Hub, View};
use super::history::{Batch, Cursor, History, Rest};
use super::id::{Id, Ids};
use super::subscriber::{Departure, END, Subscriber, Written};
use super::view;
use crate::sse::{Event, Message, Parser, json_string, opening};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

/// The thread copies and writes; it runs no code of the program that uses the library.
const STACK_BYTES: usize = 64 * 1024;

/// Says of each event whether the subscriber gets it.
pub(super) type Filter = Box<dyn FnMut(&Message) -> bool + Send>;

/// Where a subscription starts, by the id of the event that the client heard last, or by a time.
///
/// | the client names                                     | it gets                               |
/// |------------------------------------------------------|---------------------------------------|
/// | nothing, `latest`, a time to come                    | what is published from now on         |
/// | `earliest`                                           | everything that is kept               |
/// | an id from the last one forgotten to the last issued | what came after it                    |
/// | a time since the last one forgotten                  | what was published since              |
/// | any time, while this server has forgotten nothing    | what was published since              |
/// | an older id or time, a future id, any other text     | a gap, and everything that is kept    |
///
/// Ids grow across all channels. So what came after an id of another channel is known, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With what is the oldest event then. Nothing is lost, whatever is forgotten until then.
    Earliest,
    /// With the event at this position.
    At(Cursor),
    /// The same, but something before it is lost.
    BehindGap(Cursor),
    /// In a view: behind this id.
    Behind(Id),
}

impl Start {
    pub(super) fn new(history: &History, ids: &Ids, asked: &Asked) -> Start {
        let (id, is_time) = match asked {
            Asked::Latest => return Start::At(history.end()),
            Asked::Earliest => return Start::Earliest,
            Asked::After(text) => (Id::parse(text), false),
            Asked::Since(_, id) => (*id, true),
        };
        match id {
            Some(id) if id >= history.forgotten && (is_time || knows(history, ids, id)) => {
                Start::At(history.position_after(id))
            }
            Some(_) if is_time && history.forgotten == ids.started() => Start::At(history.first),
            _ => Start::BehindGap(history.first),
        }
    }

    /// Where a subscription to a view starts.
    ///
    /// | the client names                  | it gets                                           |
    /// |-----------------------------------|---------------------------------------------------|
    /// | nothing, `latest`, a time to come  | what is published from now on                     |
    /// | `earliest`                        | everything that the channels keep                 |
    /// | an id, of whatever channel        | what came after it; a gap, if a channel lost some |
    /// | a future one, any other text      | a gap, and everything that the channels keep      |
    pub(super) fn of_view(hub: &Hub, asked: &Asked) -> Start {
        let settled = hub.order.settled(&hub.ids);
        Start::Behind(match asked {
            Asked::Latest => settled,
            Asked::Earliest | Asked::Since(_, None) => Id::before_ms(0),
            Asked::After(text) => known_id(hub, text).unwrap_or(Id::before_ms(0)),
            // Before the server had started, it forgot nothing.
            Asked::Since(_, Some(id)) => (*id).max(hub.ids.started()).min(settled),
        })
    }

    /// The position in the history of this moment, and whether something before it is lost.
    pub(super) fn position(self, history: &History) -> (Cursor, bool) {
        let first = history.first;
        match self {
            Start::Earliest => (first, false),
            Start::At(cursor) => (cursor.max(first), is_lost(cursor, first)),
            Start::BehindGap(cursor) => (cursor.max(first), true),
            Start::Behind(id) => (history.position_after(id), false),
        }
    }
}

fn known_id(hub: &Hub, text: &str) -> Option<Id> {
    Id::parse(text).filter(|id| hub.ids.may_be_of_event(*id))
}

/// Whether what came after this id is known. A log may have lost its end: a journal when the power failed, Redis in a
/// failover. Then a client may hold an id that is larger than those of the history, and was not issued by this process.
fn knows(history: &History, ids: &Ids, id: Id) -> bool {
    match ids.are_shared() {
        true => id == history.forgotten || history.has(id),
        false => id <= history.newest() || ids.has_issued(id),
    }
}

/// Whether a subscriber at `cursor` has lost something when `first` is the oldest position that is left.
pub(super) fn is_lost(cursor: Cursor, first: Cursor) -> bool {
    cursor < first
}

/// Starts a stream behind its opening, on the thread of its connection. The event that reports a gap and the first part
/// of the history are found at one moment.
pub(super) fn begin(
    feed: &Arc<Feed>,
    mut subscriber: Subscriber,
    start: Start,
    asked: Asked,
    mut filter: Option<Filter>,
) -> Result<(), Departure> {
    subscriber.presence.join();
    if let (Some(view), Start::Behind(after)) = (&feed.view, start) {
        replay_view(feed, view, &mut subscriber, after, &asked, filter.as_mut())?;
        return catch_up(feed, subscriber, filter);
    }
    let mut batch = Batch::default();
    let mut gap = String::new();
    {
        let state = feed.lock();
        let (cursor, has_gap) = start.position(&state.history);
        subscriber.cursor = cursor;
        feed.copy_for(&state, &subscriber, &mut batch);
        if has_gap {
            feed.hub.counters.gaps.fetch_add(1, Relaxed);
            gap = gap_event(asked.text(), state.history.first_id(), "");
        }
    }
    subscriber.write_blocking(gap.as_bytes())?;
    write(feed, &mut subscriber, &batch, filter.as_mut())?;
    // The rest may take long.
    drop((gap, batch));
    catch_up(feed, subscriber, filter)
}

/// How long a replay waits for an event that is about to be appended.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(10);

/// Writes what the channels of a view keep for the subscriber, until the view itself has all that it lacks.
fn replay_view(
    feed: &Feed,
    view: &View,
    subscriber: &mut Subscriber,
    mut after: Id,
    asked: &Asked,
    mut filter: Option<&mut Filter>,
) -> Result<(), Departure> {
    let hub = &feed.hub;
    let tells_gap = matches!(asked, Asked::After(_) | Asked::Since(..));
    let is_known = match asked {
        Asked::After(text) => known_id(hub, text).is_some(),
        Asked::Since(_, id) => id.is_some(),
        Asked::Latest | Asked::Earliest => true,
    };
    let (mut before, mut batch) = (None, Batch::default());
    while !hub.is_stopped() {
        {
            let state = feed.lock();
            if after >= state.history.forgotten {
                subscriber.cursor = state.history.position_after(after);
                return Ok(());
            }
        }
        let mut round = view::round(hub, view, after, before, &mut batch);
        let mut gap = String::new();
        if before.is_some() && !round.lost.is_empty() {
            return Err(Departure::Slow);
        } else if before.is_none() && tells_gap {
            if !is_known {
                round.lost = view.selection.parts().to_vec();
            }
            if !round.lost.is_empty() {
                hub.counters.gaps.fetch_add(1, Relaxed);
                let lost: Vec<_> = round.lost.iter().map(|name| json_string(name)).collect();
                let lost = format!(",\"channels\":[{}]", lost.join(","));
                gap = gap_event(asked.text(), round.oldest, &lost);
            }
        }
        subscriber.cursor = 0;
        let is_settled = round.until > after;
        subscriber.write_blocking(gap.as_bytes())?;
        write(feed, subscriber, &batch, filter.as_deref_mut())?;
        (after, before) = (round.until, Some(round.number));
        if !is_settled {
            thread::sleep(UNSETTLED_PAUSE);
        }
    }
    // It is told so like any other.
    subscriber.cursor = feed.lock().history.end();
    Ok(())
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
pub(super) fn catch_up(
    feed: &Arc<Feed>,
    mut subscriber: Subscriber,
    mut filter: Option<Filter>,
) -> Result<(), Departure> {
    if filter.is_some() {
        start_heartbeats(&feed.hub, &mut subscriber);
    }
    let mut batch = Batch::default();
    loop {
        let ends = {
            let state = feed.lock();
            if is_lost(subscriber.cursor, state.history.first) {
                return Err(Departure::Slow);
            }
            feed.copy_for(&state, &subscriber, &mut batch)
        };
        if feed.hub.is_stopped() {
            subscriber.write_last_blocking(&opening())?;
            return Err(Departure::Stopped);
        } else if subscriber.cursor < batch.end() {
            write(feed, &mut subscriber, &batch, filter.as_mut())?;
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

pub(super) fn write(
    feed: &Feed,
    subscriber: &mut Subscriber,
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
    subscriber.write_blocking(&bytes)?;
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
        let lacks_nothing = subscriber.cursor == state.history.end()
            && subscriber.ends_at(state.completed_at).is_none();
        if lacks_nothing && until_heartbeat > 0 && !feed.hub.is_stopped() {
            feed.wait_for_change(state, Duration::from_millis(until_heartbeat));
            return Ok(());
        }
    }
    subscriber.connection.set_nonblocking(true).map_err(|_| Departure::Left)?;
    let written = subscriber.heartbeat(feed.hub.now_ms(), feed.hub.heartbeat());
    subscriber.connection.set_nonblocking(false).map_err(|_| Departure::Left)?;
    match written {
        Written::All => Ok(()),
        Written::Blocked { rest: (frame, from), .. } => subscriber.write_blocking(&frame[from..]),
        Written::Departed(departure) => Err(departure),
    }
}

/// Between half of the interval and all of it. Multiples of the golden ratio spread subscribers that came together:
/// their heartbeats are not all written in one instant.
///
/// Returns how many subscribers came before.
fn start_heartbeats(hub: &Hub, subscriber: &mut Subscriber) -> u64 {
    let nth = hub.joined.fetch_add(1, Relaxed);
    let half = hub.limits.heartbeat.as_millis() as u64 / 2;
    let fraction = u64::from((nth as u32).wrapping_mul(0x9e37_79b9) >> 16);
    // An interval is a day at most.
    let interval_ms = (half + ((half * fraction) >> 16)).max(1) as u32;
    let has_heartbeats = !hub.limits.heartbeat.is_zero();
    subscriber.heartbeat_interval_ms = if has_heartbeats { interval_ms } else { u32::MAX };
    subscriber.written_ms = hub.now_ms();
    nth
}

/// Hands the subscriber over to a fan-out thread, which writes what was published since it was found to lack nothing.
fn join(feed: &Arc<Feed>, mut subscriber: Subscriber) -> Result<(), Departure> {
    subscriber.connection.set_nonblocking(true).map_err(|_| Departure::Left)?;
    let nth = start_heartbeats(&feed.hub, &mut subscriber);
    let lane = nth as usize % feed.hub.notifiers.len();
    let state = feed.lock();
    if is_lost(subscriber.cursor, state.history.first) {
        return Err(Departure::Slow);
    }
    feed.join(state, lane, subscriber);
    Ok(())
}

/// The event that tells a client what it missed. It has no id, so that the client keeps its own. `channels` is the member
/// of the object that says which channels of a view have lost something.
pub(super) fn gap_event(asked: &str, oldest: Option<Id>, channels: &str) -> String {
    // The client may have sent as much as a head has room for.
    let asked: String = asked.chars().take(64).collect();
    let oldest = oldest.map_or("null".to_owned(), |id| format!("\"{id}\""));
    let gap =
        Event::new(format!("{{\"asked\":{},\"oldest\":{oldest}{channels}}}", json_string(&asked)));
    gap.name("gap").map(|gap| gap.to_string()).unwrap_or_default()
}
