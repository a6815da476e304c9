//! Two servers, Redis and a relay, of which something fails all the time; and an oracle that knows what each publisher
//! was answered.

use super::clients::{Client, publish};
use super::machines::{Redis, Relay, node};
use crate::server::{Dice, eventually};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long things fail; `NEWSWIRE_SOAK_SECONDS` says another time.
const SECONDS: u64 = 12;

#[test]
fn nothing_that_was_acknowledged_is_missing_and_the_order_is_one_while_everything_fails() {
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut redis) = Redis::start(&arguments) else { return };
    let relay = Relay::start(redis.address());
    let limits = ["--history-events", "100000", "--history-bytes", "100000000"];
    let nodes = [node(relay.address, &limits), node(redis.address(), &limits)];
    let addresses = nodes.each_ref().map(|node| node.address);
    let is_over = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..4usize)
        .map(|publisher| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let (mut acknowledged, mut refused) = (BTreeMap::new(), 0);
                for n in 0.. {
                    if is_over.load(SeqCst) {
                        break;
                    }
                    let data = format!("{publisher}.{n}");
                    match publish(addresses[(publisher + n) % 2], "news", &data) {
                        Ok(id) => drop(acknowledged.insert(id, data)),
                        Err(status) => {
                            assert_eq!(status, 503);
                            refused += 1;
                        }
                    }
                }
                (acknowledged, refused)
            })
        })
        .collect();
    let clients: Vec<_> = (0..10usize)
        .map(|client| {
            let mut servers = addresses.to_vec();
            servers.rotate_left(client % 2);
            // Some stay with one server.
            servers.truncate(1 + client % 3);
            let stays = match client % 2 {
                0 => Duration::MAX,
                _ => Duration::from_millis(100 + 70 * client as u64),
            };
            Client::start_restless("news", "earliest", move || servers.clone(), stays)
        })
        .collect();

    let seconds = std::env::var("NEWSWIRE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let mut dice = Dice::new(u64::from(redis.port));
    while Instant::now() < until {
        thread::sleep(Duration::from_millis(200 + dice.below(600) as u64));
        match dice.below(5) {
            0 => {
                redis.kill();
                thread::sleep(Duration::from_millis(dice.below(500) as u64));
                redis.restart();
            }
            1 => {
                redis.signal("STOP");
                thread::sleep(Duration::from_millis(dice.below(4000) as u64));
                redis.signal("CONT");
            }
            2 => relay.rules().loses_reply = true,
            3 => {
                relay.rules().swallows = true;
                thread::sleep(Duration::from_millis(dice.below(4000) as u64));
                relay.rules().swallows = false;
                relay.cut();
            }
            _ => relay.cut(),
        }
    }
    is_over.store(true, SeqCst);
    let answers: Vec<_> =
        publishers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    let refused: usize = answers.iter().map(|(_, refused)| refused).sum();
    let acknowledged: BTreeMap<_, _> = answers.into_iter().flat_map(|(ids, _)| ids).collect();
    let mut last = None;
    eventually("Redis is back", || {
        last = publish(addresses[0], "news", "the last").ok();
        last.is_some()
    });
    let last = last.expect("it is published");
    let first = clients[0].received().first().map(|message| message.last_event_id.clone());
    println!("{} acknowledged, {refused} refused, from {first:?} to {last}", acknowledged.len());
    assert!(acknowledged.len() > 20 && refused > 0, "the faults were felt, and were not all");

    // What Redis holds is the order. Every client has exactly that, without a gap: Redis has lost nothing.
    let mut expected: Option<Vec<(String, String)>> = None;
    for client in &clients {
        eventually("every client has the last event", || {
            client.received().last().is_some_and(|message| message.last_event_id == last)
        });
        assert_eq!(client.gaps(), 0);
        let received: Vec<_> =
            client.received().into_iter().map(|it| (it.last_event_id, it.data)).collect();
        assert_eq!(*expected.get_or_insert_with(|| received.clone()), received);
    }
    let expected: BTreeMap<_, _> = expected.expect("there are clients").into_iter().collect();
    for (id, data) in &acknowledged {
        assert_eq!(expected.get(id), Some(data), "it was acknowledged under {id}");
    }
    let connections: Vec<_> = clients.iter().map(Client::connections).collect();
    println!("the clients connected {connections:?} times");
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
