//! Who may publish, and from where.

use crate::http::{Cors, Refusal, Request, Status};
use std::fmt;
use std::hint::black_box;
use std::net::IpAddr;

/// Who may publish.
#[derive(Clone, PartialEq, Eq)]
pub enum Publishers {
    /// Nobody.
    None,
    /// Anyone who can reach the server, which must therefore listen on loopback.
    Anyone,
    /// Who has this token.
    Bearer(String),
}

/// Without the token: whoever logs what the command line asked for must not log that.
impl fmt::Debug for Publishers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Publishers::None => "None",
            Publishers::Anyone => "Anyone",
            Publishers::Bearer(_) => "Bearer(_)",
        })
    }
}

/// Lets a publisher in, or not.
pub(crate) struct Gate {
    publishers: Publishers,
    cors: Cors,
    on_loopback: bool,
}

impl Gate {
    /// For a server that listens at `address`.
    pub(crate) fn new(publishers: Publishers, cors: Cors, address: IpAddr) -> Gate {
        Gate { publishers, cors, on_loopback: address.is_loopback() }
    }

    pub(crate) fn check(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let forbidden = |sentence| Err(Refusal::new(Status::FORBIDDEN, sentence));
        let authority = request.authority().to_ascii_lowercase();
        // DNS rebinding: a page of evil.example whose name now means 127.0.0.1 is of the same
        // origin as we are, but its browser still says whom it thinks it speaks to.
        if self.on_loopback && !is_loopback_name(&authority) && !self.cors.names_host(&authority) {
            return forbidden(
                "This server listens on loopback, and the Host of the request is not a loopback name. Start it with \
                 --allow-origin to name the origin that a proxy in front has.",
            );
        }
        // A page of any origin can make its browser post here, without being able to read the
        // answer.
        if let Some(origin) = request.field("origin") {
            let own = origin
                .split_once("://")
                .is_some_and(|(_, host)| !host.is_empty() && host == authority);
            if !own && !self.cors.names(origin) {
                return forbidden(
                    "A page of another origin may not publish here. Start the server with --allow-origin to name it.",
                );
            }
        }
        match &self.publishers {
            Publishers::Anyone => Ok(()),
            Publishers::None => forbidden(
                "Publishing is off. Start the server with --publish-token-file FILE, or on a loopback address with \
                 --publish-open.",
            ),
            Publishers::Bearer(token) => match request.field("authorization").map(bearer) {
                Some(Some(given)) if is_same(given.as_bytes(), token.as_bytes()) => Ok(()),
                _ => Err(Refusal::new(
                    Status::UNAUTHORIZED,
                    "Publishing needs Authorization: Bearer TOKEN.",
                )),
            },
        }
    }
}

/// `credentials = "Bearer" 1*SP b64token` (RFC 6750, 2.1; the scheme's name in any case, RFC 9110,
/// 11.1)
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Takes as long for a token that is wrong in its first byte as for one that is wrong in its last:
/// else it could be guessed byte by byte. Its length is no secret.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len()
        && black_box(
            given.iter().zip(token).fold(0, |differing, (a, b)| differing | black_box(a ^ b)),
        ) == 0
}

fn is_loopback_name(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.strip_suffix('.').unwrap_or(host);
    // "localhost." and names below it always mean loopback (RFC 6761, 6.3).
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
