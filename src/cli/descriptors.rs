//! How many connections the system has descriptors for.

use newswire::http::Limits;
use std::fs;
use std::io;
use std::os::fd::AsFd;

/// Descriptors that are not connections with a request: standard streams, the listener, and half of these for connections
/// that have not sent a request yet.
const RESERVED: usize = 64;

/// The default, however many descriptors there are: as many threads as a small machine can have.
const DEFAULT_MOST_CONNECTIONS: usize = 65_536;

/// More connections without a request would cost memory, and would not get a client in any sooner.
const MOST_WAITING: usize = 1_024;

/// Sets `connections` and `waiting`. More than there are descriptors would only be refused by the system later, while
/// clients are connected. With `serves_files` a connection needs a second descriptor, for the file that it is sent.
/// Returns the sentence that tells the user of it.
pub(super) fn limit_connections(limits: &mut Limits, asked: Option<usize>, serves_files: bool) -> Option<String> {
    let process = fs::read_to_string("/proc/self/limits").ok();
    let Some(descriptors) = process.and_then(|limits| soft_limit(&limits)) else {
        limits.connections = asked.unwrap_or(limits.connections);
        return None;
    };
    // With very few descriptors, half of them are reserved.
    let each = if serves_files { 2 } else { 1 };
    let room = ((descriptors - RESERVED.min(descriptors / 2)) / each).max(1);
    limits.connections = asked.unwrap_or(DEFAULT_MOST_CONNECTIONS).min(room);
    let others = descriptors.saturating_sub(limits.connections * each);
    limits.waiting = (others / 2).clamp(1, MOST_WAITING);
    let sentence = format!("the descriptor limit of {descriptors} leaves room for {room} connections");
    match asked {
        Some(asked) if asked > room => Some(format!("{sentence}, not {asked}; raise it with ulimit -n")),
        None if room < 4_096 => Some(format!("{sentence}; raise it with ulimit -n")),
        _ => None,
    }
}

/// The most descriptors that [`grow_table`] makes room for: 128 KiB in the kernel.
const MOST_GROWN: usize = 16_384;

/// Has the kernel make room for the descriptors of so many connections, while the process has one thread. Each time the
/// table doubles later, Linux stops all threads that open or accept anything for some milliseconds (`expand_fdtable`
/// waits for all that read the old one). In a storm, more clients than the listener lets wait would come in that time.
pub(super) fn grow_table(connections: usize) {
    let any = io::stderr();
    let clones = (0..connections.min(MOST_GROWN)).map_while(|_| any.as_fd().try_clone_to_owned().ok());
    drop(clones.collect::<Vec<_>>());
}

/// ```text
/// Max open files            1024                 524288               files
/// ```
fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}
