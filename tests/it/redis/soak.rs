//! Two servers, Redis and a relay, of which something fails all the time; and an oracle that knows what each publisher
//! was answered.

use super::clients::{Client, publish};
use super::machines::{Redis, Relay, node};
use crate::server::{Dice, PATIENCE, eventually};
use newswire::sse::Message;
use std::collections::BTreeMap;
use std::ops::Bound::Excluded;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long things fail. `NEWSWIRE_SOAK_SECONDS` says another time; from two minutes on, Redis is once stopped for one.
const SECONDS: u64 = 12;

const CHANNELS: [&str; 2] = ["news", "sport"];

/// A stream that is gone has forgotten its ids: within the same millisecond it would give one of them to another event, and
/// no server and no client could tell the two apart. So nothing is published in some milliseconds behind a flush.
const FLUSH: &str = "redis.call('FLUSHALL') for _ = 1, 1e6 do end";

/// The events of each channel, by id: those that were acknowledged.
type Acknowledged = [BTreeMap<(u64, u64), String>; 2];

#[test]
fn nothing_that_was_acknowledged_is_missing_and_the_order_is_one_while_everything_fails() {
    soak(false);
}

#[test]
fn what_a_flush_takes_away_is_told_and_nothing_else_is_missing_while_everything_fails() {
    soak(true);
}

fn soak(loses: bool) {
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut redis) = Redis::start(&arguments) else { return };
    let relay = Relay::start(redis.address());
    let limits = ["--history-events", "100000", "--history-bytes", "100000000"];
    let nodes = [node(relay.address, &limits), node(redis.address(), &limits)];
    let addresses = nodes.each_ref().map(|node| node.address);
    let is_over = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || publish_until(&is_over, publisher, addresses))
        })
        .collect();
    let clients: Vec<_> = (0..12usize)
        .map(|client| {
            let mut servers = addresses.to_vec();
            servers.rotate_left(client % 2);
            // Some stay with one server.
            servers.truncate(1 + client % 3);
            let stays = match client % 2 {
                0 => Duration::MAX,
                _ => Duration::from_millis(100 + 70 * client as u64),
            };
            let selection = ["news", "sport", "news,sport"][client / 4];
            (selection, Client::start_restless(selection, "earliest", move || servers.clone(), stays))
        })
        .collect();

    let seconds = std::env::var("NEWSWIRE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = seconds.unwrap_or(SECONDS);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut dice = Dice::new(u64::from(redis.port));
    let (mut faults, mut long_stop) = ([0; 6], seconds >= 120);
    while Instant::now() < until {
        thread::sleep(Duration::from_millis(200 + dice.below(600) as u64));
        let fault = dice.below(if loses { 6 } else { 5 });
        faults[fault] += 1;
        match fault {
            0 => {
                redis.kill();
                thread::sleep(Duration::from_millis(dice.below(500) as u64));
                redis.restart();
            }
            1 => {
                let ms = dice.below(4000) as u64;
                redis.signal("STOP");
                let is_long = std::mem::take(&mut long_stop);
                thread::sleep(Duration::from_millis(if is_long { 60_000 } else { ms }));
                redis.signal("CONT");
            }
            2 => relay.rules().loses_reply = true,
            3 => {
                relay.rules().swallows = true;
                thread::sleep(Duration::from_millis(dice.below(4000) as u64));
                relay.rules().swallows = false;
                relay.cut();
            }
            4 => relay.cut(),
            _ => drop(redis.cli(&["EVAL", FLUSH, "0"])),
        }
    }
    is_over.store(true, SeqCst);
    let (mut acknowledged, mut refused) = (Acknowledged::default(), 0);
    for publisher in publishers {
        let (own, own_refused) = publisher.join().expect("no panic");
        acknowledged.iter_mut().zip(own).for_each(|(all, own)| all.extend(own));
        refused += own_refused;
    }
    let last = CHANNELS.map(|channel| {
        let mut last = None;
        eventually("Redis is back", || {
            last = publish(addresses[0], channel, "the last").ok();
            last.is_some()
        });
        last.expect("it is published")
    });
    let count: usize = acknowledged.iter().map(BTreeMap::len).sum();
    println!("{seconds} s, kills, stops, lost replies, partitions, cuts, flushes: {faults:?}");
    println!("{count} acknowledged, {refused} refused, the last are {last:?}");
    assert!(count > 20 && refused > 0, "the faults were felt, and were not all");

    let mut seen = Acknowledged::default();
    let (mut gaps, mut received, mut connections) = (0, 0, 0);
    for (selection, client) in &clients {
        for (at, channel) in CHANNELS.iter().enumerate() {
            if selection.split(',').any(|name| name == *channel) {
                let deadline = Instant::now() + PATIENCE;
                while !client.has(|message| part(selection, channel, message) == Some(&last[at])) {
                    let (is_late, last) = (Instant::now() > deadline, &last[at]);
                    assert!(!is_late, "{selection} waits for {last} of {channel}: {}", client.summary());
                    thread::sleep(Duration::from_millis(20));
                }
                judge(&client.received(), selection, at, &acknowledged[at], &mut seen[at]);
            }
        }
        assert!(loses || client.gaps() == 0, "Redis has lost nothing");
        gaps += client.gaps();
        received += client.received().len();
        connections += client.connections();
    }
    println!("{received} received by {} clients, {connections} connections, {gaps} gaps", clients.len());
    for node in &nodes {
        let metrics = ["reconnects", "errors", "resets", "skipped"]
            .map(|name| node.metric(&format!("newswire_redis_{name}_total")));
        println!("a server: reconnects, errors, resets, skipped: {metrics:?}");
        assert_eq!(node.metric("newswire_panics_total"), 0);
    }
}

/// What was acknowledged, and how many were not.
fn publish_until(
    is_over: &AtomicBool,
    publisher: usize,
    addresses: [std::net::SocketAddr; 2],
) -> (Acknowledged, usize) {
    let (mut acknowledged, mut refused) = (Acknowledged::default(), 0);
    for n in 0.. {
        if is_over.load(SeqCst) {
            break;
        }
        let (data, channel) = (format!("{publisher}.{n}"), n / 2 % 2);
        match publish(addresses[(publisher + n) % 2], CHANNELS[channel], &data) {
            Ok(id) => drop(acknowledged[channel].insert(key(&id), data)),
            Err(status) => {
                assert_eq!(status, 503);
                refused += 1;
            }
        }
    }
    (acknowledged, refused)
}

fn key(id: &str) -> (u64, u64) {
    let (ms, n) = id.split_once('-').expect("it is an id");
    (ms.parse().expect("it is a number"), n.parse().expect("it is a number"))
}

/// The id of an event of this channel, if it is one.
fn part<'m>(selection: &str, channel: &str, message: &'m Message) -> Option<&'m str> {
    match selection.split(',').position(|name| name == channel)? {
        _ if selection == channel && message.event_type == "message" => Some(&message.last_event_id),
        at if message.event_type == channel => message.last_event_id.split(',').nth(at),
        _ => None,
    }
}

/// A client has each acknowledged event of a channel in the order of the ids and once, but for those that a gap stands for;
/// and each id is that of the same event for every client.
fn judge(
    received: &[Message],
    selection: &str,
    at: usize,
    acknowledged: &BTreeMap<(u64, u64), String>,
    seen: &mut BTreeMap<(u64, u64), String>,
) {
    let (channel, mut last, mut has_gap) = (CHANNELS[at], (0, 0), false);
    for message in received {
        let name = format!("\"{channel}\"");
        if message.event_type == "gap" {
            has_gap |= selection == channel || message.data.contains(&name);
        }
        let Some(id) = part(selection, channel, message).map(key) else { continue };
        assert!(id > last, "{selection}: {id:?} follows {last:?}");
        let missing = acknowledged.range((Excluded(last), Excluded(id))).next();
        assert!(has_gap || missing.is_none(), "{selection}: {missing:?} before {message:?}");
        for known in [acknowledged.get(&id), seen.get(&id)].into_iter().flatten() {
            assert_eq!(*known, message.data, "{selection}: {id:?}");
        }
        seen.insert(id, message.data.clone());
        (last, has_gap) = (id, false);
    }
}

#[test]
fn a_rolling_restart_of_all_servers_loses_and_repeats_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut nodes = vec![redis.node(), redis.node()];
    let live = Arc::new(Mutex::new(nodes.iter().map(|node| node.address).collect::<Vec<_>>()));
    let is_over = Arc::new(AtomicBool::new(false));
    let (servers, stop) = (Arc::clone(&live), Arc::clone(&is_over));
    let publisher = thread::spawn(move || {
        let mut ids = Vec::new();
        while !stop.load(SeqCst) {
            let address = servers.lock().expect("no panic")[0];
            ids.push(publish(address, "news", &ids.len().to_string()).expect("Redis runs"));
        }
        ids
    });
    let clients: Vec<_> = (0..10)
        .map(|client| {
            let servers = Arc::clone(&live);
            Client::start("news", "earliest", move || {
                let mut servers = servers.lock().expect("no panic").clone();
                let by = client % servers.len();
                servers.rotate_left(by);
                servers
            })
        })
        .collect();
    for _ in 0..4 {
        // As a load balancer drains a server: it gets no new connection, and then it ends.
        live.lock().expect("no panic").remove(0);
        thread::sleep(Duration::from_millis(500));
        drop(nodes.remove(0));
        nodes.push(redis.node());
        live.lock().expect("no panic").push(nodes[1].address);
        thread::sleep(Duration::from_millis(200));
    }
    is_over.store(true, SeqCst);
    let ids = publisher.join().expect("every event was accepted");
    assert!(ids.len() > 20);
    for client in &clients {
        eventually("the last event arrives", || client.received().len() >= ids.len());
        let received = client.received().into_iter().map(|it| it.last_event_id);
        assert_eq!(received.collect::<Vec<_>>(), ids);
        assert!(client.connections() > 1, "its server has ended at least once");
    }
}
