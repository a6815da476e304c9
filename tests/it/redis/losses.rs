//! Redis loses what it had, by command or by a failover: clients are told a gap, and others are not.

use super::clients::{Client, publish, resume};
use super::machines::{Redis, Relay, node};
use crate::server::{Stream, eventually};

/// Subscribers that are connected when `lose` runs come back, are told a gap, and go on.
fn loses(lose: impl Fn(&Redis)) {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let clients = nodes.each_ref().map(|node| {
        let address = node.address;
        Client::start("news", "earliest", move || vec![address])
    });
    for data in ["a", "b", "c"] {
        publish(nodes[0].address, "news", data).expect("Redis runs");
    }
    for client in &clients {
        eventually("all arrives", || client.data() == ["a", "b", "c"]);
    }
    lose(&redis);
    for client in &clients {
        eventually("the client is told", || client.gaps() == 1);
    }
    publish(nodes[1].address, "news", "next").expect("Redis runs");
    for client in &clients {
        eventually("it goes on", || client.data().last().is_some_and(|data| data == "next"));
        assert_eq!(client.gaps(), 1, "one loss is one gap");
    }
}

#[test]
fn a_flush_of_everything_is_told() {
    loses(|redis| drop(redis.cli(&["FLUSHALL"])));
}

#[test]
fn a_deleted_stream_is_told() {
    loses(|redis| drop(redis.cli(&["DEL", "newswire:{news}"])));
}

#[test]
fn a_stream_that_expires_is_told() {
    loses(|redis| drop(redis.cli(&["PEXPIRE", "newswire:{news}", "10"])));
}

#[test]
fn a_stream_that_is_trimmed_to_nothing_is_told() {
    loses(|redis| drop(redis.cli(&["XTRIM", "newswire:{news}", "MAXLEN", "0"])));
}

#[test]
fn a_deleted_last_entry_is_told() {
    loses(|redis| {
        let last = redis.cli(&["XREVRANGE", "newswire:{news}", "+", "-", "COUNT", "1"]);
        let id = last.lines().next().expect("it has an id");
        redis.cli(&["XDEL", "newswire:{news}", id]);
    });
}

#[test]
fn ids_that_go_back_are_told() {
    loses(|redis| {
        redis.cli(&["FLUSHALL"]);
        redis.cli(&["XADD", "newswire:{news}", "1-1", "data", "from an older time"]);
    });
}

#[test]
fn a_key_that_holds_something_else_ends_its_streams_and_no_other() {
    let Some(redis) = Redis::start(&[]) else { return };
    let node = redis.node();
    let mut other = Stream::subscribe(node.address, "other");
    let stream = Stream::subscribe(node.address, "news");
    redis.cli(&["SET", "newswire:{news}", "no stream"]);
    stream.until_closed();
    Stream::subscribe(node.address, "news").until_closed();
    assert_eq!(publish(node.address, "news", "x"), Err(503));
    publish(node.address, "other", "x").expect("it is a channel of its own");
    other.next().expect("it stays");
    redis.cli(&["DEL", "newswire:{news}"]);
    let mut stream = Stream::subscribe(node.address, "news");
    publish(node.address, "news", "y").expect("it is a stream again");
    assert_eq!(stream.next().expect("it goes on").data, "y");
    assert_eq!(node.metric("newswire_redis_reconnects_total"), 0);
}

#[test]
fn an_event_that_no_history_can_hold_is_a_gap() {
    let Some(redis) = Redis::start(&[]) else { return };
    let limits = ["--history-bytes", "1024"];
    let (small, large) = (node(redis.address(), &limits), redis.node());
    let address = small.address;
    let client = Client::start("news", "earliest", move || vec![address]);
    publish(large.address, "news", "a").expect("Redis runs");
    eventually("it arrives", || client.data() == ["a"]);
    publish(large.address, "news", &"x".repeat(100_000)).expect("this server can hold it");
    publish(large.address, "news", "b").expect("Redis runs");
    eventually("the client goes on", || client.data().last().is_some_and(|data| data == "b"));
    assert_eq!((client.gaps(), client.data().len()), (1, 3));
}

#[test]
fn a_failover_that_loses_events_tells_a_gap_to_the_clients_that_hold_them_and_to_no_other() {
    let Some(old) = Redis::start(&[]) else { return };
    let Some(new) = Redis::start(&[]) else { return };
    let port = old.port.to_string();
    new.cli(&["REPLICAOF", "127.0.0.1", &port]);
    let relay = Relay::start(old.address());
    let nodes = [node(relay.address, &[]), node(relay.address, &[])];
    let addresses = nodes.each_ref().map(|node| node.address);
    let holder = Client::start("news", "earliest", move || addresses.to_vec());
    let kept = publish(addresses[0], "news", "kept").expect("Redis runs");
    eventually("the replica has it", || new.cli(&["XLEN", "newswire:{news}"]) == "1");
    new.cli(&["REPLICAOF", "NO", "ONE"]);
    publish(addresses[0], "news", "lost").expect("the old master takes it");
    eventually("a client holds it", || holder.data() == ["kept", "lost"]);
    relay.rules().target = new.address();
    relay.cut();
    eventually("the holder is told", || holder.gaps() == 1);
    let mut next = None;
    eventually("the new master takes events", || {
        next = publish(addresses[1], "news", "next").ok();
        next.is_some()
    });
    eventually("it goes on", || holder.data().last().is_some_and(|data| data == "next"));
    assert_eq!(holder.gaps(), 1);
    // `resume` refuses a gap.
    assert_eq!(resume(addresses[0], "news", &kept, 1), [next.expect("it is published")]);
}

#[test]
fn a_master_that_becomes_a_replica_is_left() {
    let Some(old) = Redis::start(&[]) else { return };
    let Some(new) = Redis::start(&[]) else { return };
    let relay = Relay::start(old.address());
    let (node, readers) = (node(relay.address, &[]), node(relay.address, &[]));
    publish(node.address, "news", "x").expect("Redis runs");
    relay.rules().target = new.address();
    // No connection is cut: a virtual address that moves does not cut them.
    old.cli(&["REPLICAOF", "127.0.0.1", &new.port.to_string()]);
    eventually("events go to the new master", || {
        publish(node.address, "news", "y").is_ok() && new.cli(&["EXISTS", "newswire:{news}"]) == "1"
    });
    // This one has not tried to publish.
    eventually("it asks for the role of its server", || readers.metric("newswire_redis_reconnects_total") > 0);
}
