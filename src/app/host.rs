//! The host that a request names.

use crate::http::Head;
use std::net::IpAddr;

/// Whether the host that the request names is loopback; also when it names none.
pub(super) fn is_at_loopback(head: &Head) -> bool {
    let authority = head.authority().to_ascii_lowercase();
    authority.is_empty() || is_loopback_name(host_of(&authority))
}

/// The host of an authority, without the port and the brackets.
pub(super) fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether a host, which is in lower case, means this machine to every browser: a loopback address, `localhost`, or a
/// name below it (RFC 6761, 6.3).
fn is_loopback_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
