//! Clocks that jump: the ids of a journal are of the server's clock, those of Redis of its own. They grow all the same.

use super::clients::{Node, publish, resume};
use super::machines::{Redis, has, node};
use crate::journal::journal;
use crate::server::{Server, Stream};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// A server with a clock that is ahead by so much, or behind. Without `faketime` itself: its process would stand between.
fn at(offset: &str, arguments: &[&str]) -> Node {
    let preload = Command::new("faketime").args(["-m", "-f", "+0d", "printenv", "LD_PRELOAD"]).output();
    let preload = String::from_utf8(preload.expect("it is there").stdout).expect("it is a path");
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.env("LD_PRELOAD", preload.trim_end()).env("FAKETIME", offset);
    // Times to wait are of the other clock, which does not jump.
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    command.args(["serve", "--listen", "127.0.0.1:0", "--publish-open", "--quiet"]);
    command.args(arguments);
    Server::spawn(command)
}

fn key(id: &str) -> (u64, u64) {
    let (ms, n) = id.split_once('-').expect("it is an id");
    (ms.parse().expect("it is a number"), n.parse().expect("it is a number"))
}

fn ms_in(time: Duration) -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    (since_1970.expect("it is after 1970") + time).as_millis() as u64
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_ids_of_a_journal_stay_larger_across_restarts_whatever_the_clock_does() {
    if !has("faketime", "faketime") {
        return;
    }
    let (_directory, path) = journal("clocks");
    let path = path.to_str().expect("it is UTF-8");
    let mut ids: Vec<String> = Vec::new();
    for offset in ["+1d", "+0d", "-30d", "+2d", "-1d"] {
        let node = at(offset, &["--journal", path]);
        for from in 0..ids.len() {
            let received = resume(node.address, "news", &ids[from], ids.len() - from - 1);
            assert_eq!(received, ids[from + 1..], "at {offset}");
        }
        ids.extend((0..3).map(|n| publish(node.address, "news", &n.to_string()).expect("it runs")));
        assert!(ids.is_sorted_by_key(|id| key(id)), "at {offset}: {ids:?}");
    }
    assert!(key(&ids[0]).0 > ms_in(23 * HOUR), "the clock of the first server was ahead");
    assert!(key(&ids[14]).0 > ms_in(47 * HOUR), "the last one follows the largest");
}

#[test]
fn servers_with_clocks_of_their_own_have_one_order() {
    if !has("faketime", "faketime") {
        return;
    }
    let Some(redis) = Redis::start(&[]) else { return };
    let address = redis.address().to_string();
    let nodes = ["+1d", "-1d", "+0d"].map(|offset| at(offset, &["--redis", &address]));
    let mut ids: Vec<String> = Vec::new();
    for n in 0..12 {
        ids.push(publish(nodes[n % 3].address, "news", &n.to_string()).expect("Redis runs"));
        let received = resume(nodes[(n + 1) % 3].address, "news", &ids[0], n);
        assert_eq!(received, ids[1..]);
    }
    assert!(ids.is_sorted_by_key(|id| key(id)), "{ids:?}");
    assert!(key(&ids[11]).0 < ms_in(HOUR), "they are of the clock of Redis");
}

/// `redis-server` does not run under faketime. What its clock has done is seen in the ids only.
#[test]
fn a_clock_of_redis_that_is_set_back_loses_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), node(redis.address(), &[])];
    let mut stream = Stream::subscribe(nodes[0].address, "news,sport");
    let ahead = format!("{}-7", ms_in(24 * HOUR));
    redis.cli(&["XADD", "newswire:{news}", &ahead, "data", "ahead"]);
    let first = stream.next().expect("it goes on");
    let next = publish(nodes[1].address, "news", "next").expect("Redis runs");
    assert!(key(&next) > key(&ahead));
    assert_eq!(resume(nodes[1].address, "news", &ahead, 1), [next]);
    let behind = publish(nodes[1].address, "sport", "behind").expect("Redis runs");
    assert!(key(&behind) < key(&ahead));
    let mut resumed = Stream::resume(nodes[0].address, "news,sport", &first.last_event_id);
    for stream in [&mut stream, &mut resumed] {
        let mut data = [(); 2].map(|()| stream.next().expect("it goes on").data);
        data.sort();
        assert_eq!(data, ["behind", "next"]);
    }
}
