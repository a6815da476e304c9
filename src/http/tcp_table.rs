//! The TCP connections of this machine, as the kernel lists them (`proc_pid_net(5)` of Linux). Where it does not, nothing
//! is known of them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};

/// The user that has the other end of a connection, if a process on this machine has it.
///
/// An end that its process has closed counts as root's in the table. It is not established any more.
pub(crate) fn user_of_peer(socket: &TcpStream) -> Option<u32> {
    const ESTABLISHED: &str = "01";
    let (peer, own) = (socket.peer_addr().ok()?, socket.local_addr().ok()?);
    let is_v4 = peer.ip().to_canonical().is_ipv4();
    let table = File::open(if is_v4 { "/proc/net/tcp" } else { "/proc/net/tcp6" }).ok()?;
    let sought = [&*entry(peer), &*entry(own), ESTABLISHED];
    // The number of the row, the two addresses, the state, three columns, the user.
    BufReader::new(table).lines().map_while(Result::ok).find_map(|row| {
        let mut columns = row.split_ascii_whitespace().skip(1);
        let is_sought = sought.iter().all(|column| columns.next() == Some(column));
        columns.nth(3).filter(|_| is_sought)?.parse().ok()
    })
}

/// The bytes of an address in groups of four, each in the order of this machine.
fn entry(addr: SocketAddr) -> String {
    let group = |bytes: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*bytes));
    let ip: String = match addr.ip().to_canonical() {
        IpAddr::V4(ip) => group(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().as_chunks().0.iter().map(group).collect(),
    };
    format!("{ip}:{:04X}", addr.port())
}
