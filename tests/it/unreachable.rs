//! Peers that a network has cut off without a reset.

use crate::server::{Server, Stream, eventually};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A network of two: this machine, and a namespace with an address of its own. It needs the rights of root.
struct Link {
    name: String,
    own: String,
    client: Option<Child>,
}

fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    let status = command.args(arguments.split(' ')).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Link {
    fn new() -> Option<Link> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let (name, own) = (format!("nw{high:02x}{low:02x}"), format!("10.{high}.{low}.1"));
        let link = Link { name, own, client: None };
        let (name, own) = (&link.name, &link.own);
        let is_up = [
            format!("netns add {name}"),
            format!("link add {name}a type veth peer name {name}b netns {name}"),
            format!("addr add {own}/24 dev {name}a"),
            format!("link set {name}a up"),
            format!("-n {name} addr add 10.{high}.{low}.2/24 dev {name}b"),
            format!("-n {name} link set {name}b up"),
        ]
        .iter()
        .all(|arguments| ip(arguments));
        if !is_up {
            assert!(std::env::var("CI").is_err(), "no network namespace can be made");
            // Not eprintln, which the test harness would keep to itself.
            let why = "\n*** SKIPPED, no peer is cut off: no network namespace can be made ***";
            let _ = writeln!(std::io::stderr(), "{why}");
        }
        Some(link).filter(|_| is_up)
    }

    /// From now on nothing that arrives at the other end is for it.
    fn cut(&self) {
        assert!(ip(&format!("-n {0} addr flush dev {0}b", self.name)));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(client) = &mut self.client {
            let _ = client.kill();
            let _ = client.wait();
        }
        ip(&format!("link del {}a", self.name));
        ip(&format!("netns del {}", self.name));
    }
}

/// The kernel alone takes a quarter of an hour for it.
#[test]
fn a_subscriber_whose_network_is_gone_is_noticed_and_no_other_one() {
    let Some(mut link) = Link::new() else { return };
    let listen = format!("{}:0", link.own);
    let server = Server::start(&["--quiet", "--heartbeat", "2", "--listen", &listen]);
    let far = server.greeting.split("http://").nth(2).and_then(|rest| rest.split('/').next());
    let url = format!("http://{}/channels/news", far.expect("it listens there"));
    let mut client = Command::new("ip");
    client.args(["netns", "exec", &link.name, env!("CARGO_BIN_EXE_newswire"), "watch", &url]);
    client.stdout(Stdio::null()).stderr(Stdio::null());
    link.client = Some(client.spawn().expect("there is ip"));
    let mut near = Stream::subscribe(server.address, "news");
    eventually("both have subscribed", || server.metric("newswire_subscribers") == 2);
    link.cut();
    let started = Instant::now();
    while server.metric("newswire_connections_unreachable_total") == 0 {
        assert!(started.elapsed() < Duration::from_secs(300), "it is not noticed");
        thread::sleep(Duration::from_secs(1));
    }
    eventually("it has left", || server.metric("newswire_subscribers") == 1);
    let before = near.bytes.len();
    near.read_until(|bytes| bytes.len() > before + 10);
    assert_eq!(server.metric("newswire_connections_unreachable_total"), 1);
}
