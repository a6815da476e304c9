//! A network that is parted: Redis is in a network namespace of its own, and the link to it goes down.

use super::clients::publish;
use super::machines::{Redis, has, node};
use crate::server::{Stream, eventually};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

/// A network namespace with one link to it. It goes with the test.
struct Network {
    name: String,
    host: Ipv4Addr,
}

impl Network {
    /// `None` without the right to make one, which is said. In CI that is a failure.
    fn new() -> Option<Network> {
        if !has("ip", "iproute2") {
            return None;
        }
        let number = std::process::id() % 16_000;
        let [high, low] = (number as u16 * 4).to_be_bytes();
        let name = format!("nw{number}");
        if !run(&["netns", "add", &name]) {
            let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!is_ci, "a network namespace needs root, which CI has");
            eprintln!("NOT TESTED: a network namespace needs root");
            return None;
        }
        let network = Network { host: Ipv4Addr::new(10, 213, high, low + 2), name };
        let (own, other) = (Ipv4Addr::new(10, 213, high, low + 1), network.host);
        let (near, far) = (network.near(), network.far());
        for command in [
            format!("link add {near} type veth peer name {far} netns {}", network.name),
            format!("addr add {own}/30 dev {near}"),
            format!("link set {near} up"),
            format!("-n {} addr add {other}/30 dev {far}", network.name),
            format!("-n {} link set {far} up", network.name),
            format!("-n {} link set lo up", network.name),
        ] {
            assert!(run(&command.split(' ').collect::<Vec<_>>()), "ip {command}");
        }
        Some(network)
    }

    fn near(&self) -> String {
        format!("{}a", self.name)
    }

    fn far(&self) -> String {
        format!("{}b", self.name)
    }

    /// `up` or `down`, at the end where Redis is.
    fn set(&self, state: &str) {
        assert!(run(&["-n", &self.name, "link", "set", &self.far(), state]));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        run(&["netns", "del", &self.name]);
    }
}

fn run(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
}

#[test]
fn a_parted_network_is_noticed_within_seconds_and_nothing_is_lost() {
    let Some(network) = Network::new() else { return };
    let before = ["ip", "netns", "exec", &network.name];
    let both = ["--bind", &network.host.to_string(), "127.0.0.1", "--protected-mode", "no"];
    let Some(redis) = Redis::start_in(&before, network.host, &both) else { return };
    let node = node(redis.address(), &[]);
    let mut stream = Stream::subscribe(node.address, "news");
    publish(node.address, "news", "before").expect("Redis runs");
    assert_eq!(stream.next().expect("it arrives").data, "before");
    network.set("down");
    let parted = Instant::now();
    eventually("the server notices", || node.metric("newswire_redis_connected") == 0);
    let noticed = parted.elapsed();
    assert!(noticed < Duration::from_secs(20), "{noticed:?}");
    assert_eq!(publish(node.address, "news", "nowhere"), Err(503));
    // A client on the other side
    let port = redis.port.to_string();
    let add = ["netns", "exec", &network.name, "redis-cli", "-p", &port, "XADD"];
    assert!(run(&[&add[..], &["newswire:{news}", "*", "data", "meanwhile"]].concat()));
    network.set("up");
    assert_eq!(stream.next().expect("it stays").data, "meanwhile");
    eventually("events are taken again", || publish(node.address, "news", "after").is_ok());
    while stream.next().expect("it stays").data != "after" {}
}
