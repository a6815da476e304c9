//! Which requests may read, publish and cut: the one place that decides it.

use crate::http::tcp_table::user_of_peer;
use crate::http::{Address, Cors, Head, Refusal, Request, Status};
use std::fmt;
use std::fs;
use std::hint::black_box;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

/// Which clients may publish.
#[derive(Clone, PartialEq, Eq)]
pub enum Publishers {
    /// None.
    None,
    /// All that can reach the server. [`App::listen`](super::App::listen) refuses this on an address that is not
    /// loopback.
    Anyone,
    /// Those that send this token as `Authorization: Bearer TOKEN`.
    Bearer(String),
}

/// Without the token: a program that logs its configuration must not log the token.
impl fmt::Debug for Publishers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Publishers::None => "None",
            Publishers::Anyone => "Anyone",
            Publishers::Bearer(_) => "Bearer(_)",
        })
    }
}

/// The rules of one server. A route takes one of the three methods as its rule.
pub(super) struct Access {
    publishers: Publishers,
    cors: Cors,
    /// Whether a browser on this machine reaches the server at a loopback address, or a proxy at a Unix socket; maybe at
    /// other addresses, too.
    on_loopback: bool,
    /// The addresses at which it listens.
    own: Vec<IpAddr>,
}

impl Access {
    /// For a server that listens at these addresses.
    pub(super) fn new(publishers: Publishers, cors: Cors, addresses: &[Address]) -> Access {
        let on_loopback = addresses.iter().any(Address::is_local);
        let ip = |address: &Address| match address {
            Address::Tcp(addr) => Some(addr.ip()),
            _ => None,
        };
        Access { publishers, cors, on_loopback, own: addresses.iter().filter_map(ip).collect() }
    }

    /// Streams, the list of channels, the metrics and the page. They are open to a page of any origin unless the
    /// command line names origins.
    pub(super) fn read(&self, head: &Head) -> Result<(), Refusal> {
        if self.cors.is_open() {
            return Ok(());
        }
        self.check_host(head)?;
        self.check_origin(head)
    }

    /// Breaking the connections of a line. It needs no token, because the page cuts lines of its own.
    pub(super) fn cut(&self, head: &Head) -> Result<(), Refusal> {
        self.check_host(head)?;
        self.check_origin(head)
    }

    /// Publishing an event, and completing a channel.
    pub(super) fn publish(&self, head: &Head) -> Result<(), Refusal> {
        self.cut(head)?;
        match &self.publishers {
            Publishers::Anyone => Ok(()),
            Publishers::None => Err(PUBLISHING_IS_OFF),
            Publishers::Bearer(token) => match head.field("authorization").map(bearer) {
                Some(Some(given)) if is_same(given.as_bytes(), token.as_bytes()) => Ok(()),
                _ => Err(TOKEN_NEEDED),
            },
        }
    }

    /// Draining the server. Where publishers have a token, it needs the token. Else it needs a process that could as well
    /// end the server with a signal: one of the same user. That the client is on loopback is not enough, because behind a
    /// proxy on this machine all clients of the internet are, and a proxy has a user of its own.
    pub(super) fn drain(&self, request: &Request<'_>) -> Result<(), Refusal> {
        if let Publishers::Bearer(_) = self.publishers {
            return self.publish(request);
        }
        self.cut(request)?;
        let is_forwarded = FORWARDING.iter().any(|field| request.field(field).is_some());
        let is_loopback = request.peer().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        let is_near = is_loopback && !is_forwarded;
        let user = is_near.then(|| user_of_peer(request.connection())).flatten();
        let own = fs::metadata("/proc/self").map(|process| process.uid()).ok();
        if user.is_some() && user == own { Ok(()) } else { Err(DRAIN_ELSEWHERE) }
    }

    /// DNS rebinding: the name of evil.example changes to 127.0.0.1 while its page is open. The browser takes this
    /// server for evil.example then, so that nothing is cross-origin, but `Host` still has the name. Only a program
    /// that is not a browser sends no `Host`.
    fn check_host(&self, head: &Head) -> Result<(), Refusal> {
        let authority = head.authority().to_ascii_lowercase();
        let is_known = authority.is_empty()
            || is_loopback_name(host_of(&authority))
            || self.is_own(host_of(&authority))
            || self.cors.names_host(&authority);
        if is_known || !self.on_loopback { Ok(()) } else { Err(FOREIGN_HOST) }
    }

    /// An address in `Host` is not rebound: it is the one to which the browser has connected.
    fn is_own(&self, host: &str) -> bool {
        let is_at = |ip: IpAddr| self.own.iter().any(|own| *own == ip || own.is_unspecified());
        host.parse().is_ok_and(is_at)
    }

    /// A page of any origin can make its browser send a request here, although it cannot read the answer. Our own
    /// origin is the one that the request was sent to (RFC 6454, 4). This server speaks plain HTTP: behind a proxy that
    /// adds TLS, the page has another origin, which the command line must name. `null` is the origin of a sandbox.
    fn check_origin(&self, head: &Head) -> Result<(), Refusal> {
        let Some(origin) = head.field("origin") else { return Ok(()) };
        let authority = head.authority().to_ascii_lowercase();
        let is_own = !authority.is_empty() && origin == format!("{}://{authority}", head.scheme());
        if is_own || self.cors.names(origin) { Ok(()) } else { Err(FOREIGN_ORIGIN) }
    }
}

const PUBLISHING_IS_OFF: Refusal = Refusal::new(
    Status::FORBIDDEN,
    "Publishing is off. Start the server with --publish-token-file FILE, or on a loopback address with --publish-open.",
);
const TOKEN_NEEDED: Refusal =
    Refusal::new(Status::UNAUTHORIZED, "Publishing needs Authorization: Bearer TOKEN.");
const DRAIN_ELSEWHERE: Refusal = Refusal::new(
    Status::FORBIDDEN,
    "Without --publish-token-file only a process of the same user, on the same machine, over TCP, drains the server.",
);
/// Fields that a proxy adds.
const FORWARDING: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];
const FOREIGN_HOST: Refusal = Refusal::new(
    Status::FORBIDDEN,
    "This server listens on loopback, and the Host of the request is not a loopback name. If the request came through \
     a proxy, start the server with --allow-origin and the origin that the proxy has, as https://your.name.",
);
const FOREIGN_ORIGIN: Refusal = Refusal::new(
    Status::FORBIDDEN,
    "A page of another origin may not do this here. Start the server with --allow-origin and the origin of the page, \
     as https://your.name.",
);

/// ```text
/// credentials = "Bearer" 1*SP b64token        (RFC 6750, 2.1)
/// ```
/// The scheme's name is case-insensitive (RFC 9110, 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Compares in the same time wherever the first wrong byte is. Otherwise the time would tell an attacker how much of a
/// guess is right. The length of the token is no secret.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let difference = |all, (a, b): (&u8, &u8)| all | black_box(a ^ b);
    given.len() == token.len() && black_box(given.iter().zip(token).fold(0, difference)) == 0
}

/// The host of an authority, without the port and the brackets.
fn host_of(authority: &str) -> &str {
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
