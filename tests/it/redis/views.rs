//! Several channels in Redis on one connection: the id of each event says how far the client has come in each channel.

use super::clients::{Client, publish};
use super::machines::{Redis, Relay, node};
use crate::channels::complete;
use crate::polling::polled;
use crate::server::{Stream, ask, eventually};
use newswire::sse::Message;
use std::thread;
use std::time::Duration;

const VIEW: &str = "news,sport,weather";

/// The data of the events of one channel.
fn of_channel(events: &[Message], channel: &str) -> Vec<String> {
    let events = events.iter().filter(|event| event.event_type == channel);
    events.map(|event| event.data.clone()).collect()
}

fn take(stream: &mut Stream, count: usize) -> Vec<Message> {
    (0..count).map(|_| stream.next().expect("it goes on")).collect()
}

#[test]
fn each_id_of_a_view_resumes_on_every_server_also_when_two_channels_have_the_same() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    for channel in VIEW.split(',') {
        publish(nodes[0].address, channel, "first").expect("Redis runs");
    }
    let mut live_stream = Stream::subscribe(nodes[1].address, "weather,sport,news");
    assert_eq!(nodes[1].metric("newswire_views"), 1);
    for n in 0..10 {
        publish(nodes[n % 2].address, ["news", "sport"][n % 2], &n.to_string()).expect("it runs");
    }
    // Each id is that of three events; the last channel is behind the others by a day, as if the clock was set back.
    for n in 0..5 {
        for (channel, ms) in [("news", 9e12), ("sport", 9e12), ("weather", 8.9e12)] {
            let (key, id) = (format!("newswire:{{{channel}}}"), format!("{}-{n}", ms as u64));
            assert_eq!(redis.cli(&["XADD", &key, &id, "data", &format!("same {n}")]), id);
        }
    }
    let live = take(&mut live_stream, 25);
    let kept = take(&mut Stream::resume(nodes[0].address, VIEW, "earliest"), 28);
    let late = redis.node();
    for events in [&live, &kept] {
        for at in 0..events.len() {
            let rest = &events[at + 1..];
            let address = [nodes[0].address, nodes[1].address, late.address][at % 3];
            let mut stream = Stream::resume(address, VIEW, &events[at].last_event_id);
            let resumed = take(&mut stream, rest.len());
            let shown = format!("{:?} {:?}", events[at], resumed);
            for channel in VIEW.split(',') {
                let (resumed, rest) = (of_channel(&resumed, channel), of_channel(rest, channel));
                assert_eq!(resumed, rest, "behind {at}: {shown}");
            }
        }
    }
    let (first, last) = (&kept[0].last_event_id, &kept[27].last_event_id);
    let mut streams = [first, last].map(|id| Stream::resume(late.address, VIEW, id));
    take(&mut streams[0], 27);
    publish(nodes[0].address, "sport", "next").expect("Redis runs");
    for stream in &mut streams {
        let next = stream.next().expect("it goes on");
        assert_eq!((next.event_type.as_str(), next.data.as_str()), ("sport", "next"));
    }
    drop((streams, live_stream));
    eventually("a view goes with its last subscriber", || nodes[1].metric("newswire_views") == 0);
}

#[test]
fn what_one_channel_of_a_view_has_lost_is_told_with_its_name() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let place = {
        let mut stream = Stream::subscribe(nodes[0].address, VIEW);
        for channel in VIEW.split(',') {
            publish(nodes[0].address, channel, "a").expect("Redis runs");
        }
        take(&mut stream, 3).pop().expect("there are three").last_event_id
    };
    let told = |node: usize, id: &str, expected: &str| {
        let mut stream = Stream::resume(nodes[node].address, VIEW, id);
        let gap = stream.next().expect("it goes on");
        assert_eq!(gap.event_type, "gap");
        assert!(gap.data.ends_with(&format!("\"channels\":[{expected}]}}")), "{gap:?}");
        stream
    };
    // The first server has a copy of them, the other has never heard of them.
    let live = Stream::subscribe(nodes[0].address, VIEW);
    publish(nodes[0].address, "news", "b").expect("Redis runs");
    redis.cli(&["DEL", "newswire:{sport}"]);
    live.until_closed();
    for node in [0, 1] {
        let mut stream = told(node, &place, "\"sport\"");
        assert_eq!(stream.next().expect("the others go on").data, "b");
    }
    // Redis trims in whole nodes of a stream, unless it is told not to.
    publish(nodes[0].address, "news", "c").expect("Redis runs");
    redis.cli(&["XTRIM", "newswire:{news}", "MAXLEN", "1"]);
    let late = redis.node();
    let mut stream = Stream::resume(late.address, VIEW, &place);
    let gap = stream.next().expect("it goes on");
    assert!(gap.data.ends_with("\"channels\":[\"news\",\"sport\"]}"), "{gap:?}");
    assert_eq!(take(&mut stream, 1)[0].data, "c");
    redis.cli(&["FLUSHALL"]);
    stream.until_closed();
    told(0, &place, "\"news\",\"sport\",\"weather\"");
    // So is an id of another view, and one of a channel.
    for id in ["1-0,2-0", "1-0", "x,y,z"] {
        told(1, id, "\"news\",\"sport\",\"weather\"");
    }
}

/// A server may read what another one has published a moment later; nothing is lost or repeated.
#[test]
fn polls_of_a_view_go_on_behind_each_other_on_every_server() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let (mut polled_all, mut last_id) = (Vec::new(), "earliest".to_owned());
    let mut poll = |node: usize| {
        let target = format!("/channels/{VIEW}?poll&last_event_id={last_id}");
        let (events, id) = polled(nodes[node].address, &target);
        polled_all.extend(events);
        last_id = id;
        polled_all.len()
    };
    for n in 0..10 {
        for channel in VIEW.split(',') {
            // More than one round of a replay has.
            let data = format!("{channel} {n} {}", "x".repeat(2_000));
            publish(nodes[n % 2].address, channel, &data).expect("Redis runs");
        }
        if n % 3 == 1 {
            eventually("all events are there", || poll(n / 3 % 2) == 3 * (n + 1));
        }
    }
    eventually("all events are there", || poll(1) == 30);
    assert_eq!(nodes[0].metric("newswire_views") + nodes[0].metric("newswire_gaps_total"), 0);
    let late = redis.node();
    let target = |id: &str| format!("/channels/{VIEW}?poll&last_event_id={id}");
    for at in [0, 10, 29] {
        let (rest, _) = polled(late.address, &target(&polled_all[at][0]));
        for channel in VIEW.split(',') {
            let data = |events: &[[String; 3]]| -> Vec<String> {
                let events = events.iter().filter(|[_, name, _]| name == channel);
                events.map(|[_, _, data]| data.clone()).collect()
            };
            assert_eq!(data(&rest), data(&polled_all[at + 1..]), "behind {at}");
        }
    }
    redis.cli(&["DEL", "newswire:{sport}"]);
    eventually("the loss is told with its name", || {
        let (events, _) = polled(late.address, &target(&last_id));
        events.iter().any(|[id, name, gap]| id == "null" && name == "gap" && gap.ends_with("\"channels\":[\"sport\"]}"))
    });
}

#[test]
fn the_completion_of_a_channel_is_told_in_a_view_on_every_server() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let mut live = Stream::subscribe(nodes[1].address, VIEW);
    publish(nodes[0].address, "sport", "x").expect("Redis runs");
    complete(nodes[0].address, "sport");
    let is_end = |event: Option<Message>| event.is_some_and(|event| event.event_type == "sport:end");
    let place = live.next().expect("it goes on").last_event_id;
    assert!(is_end(live.next()));
    for node in nodes.iter().chain([&redis.node()]) {
        assert!(is_end(Stream::resume(node.address, VIEW, &place).next()));
        assert!(is_end(Stream::subscribe(node.address, VIEW).next()));
        let described = ask(node.address, "GET", &format!("/channels/{VIEW}"), &[("Accept", "application/json")], "");
        assert!(described.text().starts_with("[{\"name\":\"sport\",") && described.text().ends_with("}]\n"));
    }
    publish(nodes[0].address, "sport", "y").expect("Redis runs");
    assert_eq!(live.next().expect("it goes on").data, "y");
}

#[test]
fn a_prefix_is_refused() {
    let Some(redis) = Redis::start(&[]) else { return };
    let node = redis.node();
    for selection in ["*", "news,user.*"] {
        let answer = ask(node.address, "GET", &format!("/channels/{selection}"), &[], "");
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.text().contains("no prefix"), "{answer:?}");
    }
}

#[test]
fn clients_of_a_view_that_change_servers_lose_and_repeat_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    let relay = Relay::start(redis.address());
    let nodes = [redis.node(), node(relay.address, &[])];
    let addresses = nodes.each_ref().map(|node| node.address);
    for channel in VIEW.split(',') {
        publish(addresses[0], channel, "0").expect("Redis runs");
    }
    let clients: Vec<_> = (0..6u64)
        .map(|client| {
            let stays = Duration::from_millis(60 + 90 * client);
            Client::start_restless(VIEW, "earliest", move || addresses.to_vec(), stays)
        })
        .collect();
    let publishers: Vec<_> = VIEW
        .split(',')
        .map(|channel| {
            let publish = move |n: usize| publish(addresses[0], channel, &n.to_string());
            thread::spawn(move || (1..150).for_each(|n| drop(publish(n).expect("Redis runs"))))
        })
        .collect();
    while publishers.iter().any(|publisher| !publisher.is_finished()) {
        thread::sleep(Duration::from_millis(200));
        relay.cut();
    }
    publishers.into_iter().for_each(|publisher| publisher.join().expect("no panic"));
    let expected: Vec<_> = (0..150).map(|n| n.to_string()).collect();
    for client in &clients {
        eventually("all events arrive", || client.received().len() >= 450);
        eventually("it changes servers", || client.connections() > 1);
        for channel in VIEW.split(',') {
            assert_eq!(of_channel(&client.received(), channel), expected);
        }
        assert_eq!(client.gaps(), 0);
    }
}
