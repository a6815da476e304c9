//! The TCP connections of this machine, as the kernel lists them (`proc_pid_net(5)` of Linux). Where it does not, nothing
//! is known of them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};

const IPV4: &str = "/proc/net/tcp";
const IPV6: &str = "/proc/net/tcp6";
const ESTABLISHED: &str = "01";

/// The own end and the peer's end of a connection, each as [`entry`] has it.
pub(crate) type Ends = [String; 2];

/// A connection is unreachable while its peer has acknowledged none of so many retransmissions. Their pauses double: on
/// a fast network these take 13 s. The kernel gives up after 15 of them, a quarter of an hour. When the network of this
/// machine itself is down, it repeats them sooner.
const RETRANSMISSIONS: u32 = 6;

pub(super) fn unreachable() -> Vec<Ends> {
    let columns = |row: String| {
        let mut columns = row.split_ascii_whitespace().skip(1);
        let ends = [columns.next()?, columns.next()?];
        let is_open = columns.next()? == ESTABLISHED;
        let retransmissions = u32::from_str_radix(columns.nth(2)?, 16).ok()?;
        (is_open && retransmissions >= RETRANSMISSIONS).then(|| ends.map(str::to_owned))
    };
    rows(IPV4).chain(rows(IPV6)).filter_map(columns).collect()
}

/// The user that has the other end of a connection, if a process on this machine has it.
///
/// The table gives a closed end to root, and not as `ESTABLISHED`: it is not found.
pub(crate) fn user_of_peer(socket: &TcpStream) -> Option<u32> {
    let [peer, own] = [socket.peer_addr().ok()?, socket.local_addr().ok()?]
        .map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
    let sought = [&*entry(peer), &*entry(own), ESTABLISHED];
    rows(if peer.is_ipv4() { IPV4 } else { IPV6 }).find_map(|row| {
        let mut columns = row.split_ascii_whitespace().skip(1);
        let is_sought = sought.iter().all(|column| columns.next() == Some(column));
        columns.nth(3).filter(|_| is_sought)?.parse().ok()
    })
}

/// ```text
/// row = number own-address peer-address state queues timer retransmissions user …
/// ```
fn rows(path: &str) -> impl Iterator<Item = String> {
    let table = File::open(path).into_iter().map(BufReader::new);
    table.flat_map(|table| table.lines().map_while(Result::ok))
}

/// The bytes of an address in groups of four, each in the order of this machine.
pub(super) fn entry(addr: SocketAddr) -> String {
    let group = |bytes: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*bytes));
    let ip: String = match addr.ip() {
        IpAddr::V4(ip) => group(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().as_chunks().0.iter().map(group).collect(),
    };
    format!("{ip}:{:04X}", addr.port())
}
