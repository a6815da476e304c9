//! The client of a request that came through a proxy, for the log. Nothing else trusts these fields.

use super::grammar::list;
use super::head::Head;
use std::net::{IpAddr, SocketAddr};

/// The address of the client. It is that of the peer, unless the peer is a trusted proxy: then it is the last hop that
/// is not trusted, because any client can send the fields, and each proxy adds the hop that it has seen at their end. A hop
/// that is no address is not guessed at: the client is the peer then.
///
/// Most proxies write one of the two fields, and pass on the other one as the client has sent it (RFC 7239, 8.1). When the two
/// name different clients, both are given, with that of `X-Forwarded-For` first: with one of them alone, a client could hide its
/// address, or have another one logged.
pub(super) fn client_of(head: &Head, peer: Option<SocketAddr>, trusted: &[Option<IpAddr>]) -> String {
    let peer_ip = peer.map(|peer| peer.ip().to_canonical());
    if !trusted.contains(&peer_ip) {
        return name_of(peer);
    }
    let elements = |field| head.values(field).flat_map(list);
    let x_forwarded: Vec<_> = elements("x-forwarded-for").map(node).collect();
    let forwarded: Vec<_> = elements("forwarded").map(forwarded_for).collect();
    let is_untrusted = |hop: &&Option<IpAddr>| hop.is_none() || !trusted.contains(hop);
    let client = |hops: &[Option<IpAddr>]| {
        let client = hops.iter().rev().find(is_untrusted).or(hops.first())?;
        Some(client.map_or_else(|| name_of(peer), |client| client.to_string()))
    };
    let mut clients = Vec::from_iter([&x_forwarded, &forwarded].iter().filter_map(|hops| client(hops)));
    clients.dedup();
    if clients.is_empty() { name_of(peer) } else { clients.join(",") }
}

/// The peer of a connection; that of a Unix socket has no address.
pub(super) fn name_of(peer: Option<SocketAddr>) -> String {
    peer.map_or("unix".to_owned(), |peer| peer.to_string())
}

/// ```text
/// forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )        forwarded-pair = token "=" value
/// value             = token / quoted-string                                 (RFC 7239, 4)
/// ```
/// The element that a proxy has added holds no comma and no semicolon in quotation marks, since its node is an address.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut nodes = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    let (_, value) = nodes.next()?;
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    node(bare).filter(|_| nodes.next().is_none())
}

/// ```text
/// node = nodename [ ":" node-port ]        nodename = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
/// ```
/// `X-Forwarded-For` has IPv6 addresses without brackets, too.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|addr| addr.ip());
    bare.parse().ok().or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}
