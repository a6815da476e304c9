//! Which pages may read what this server sends: the CORS protocol (Fetch, 3.3), for every response
//! alike.

use super::request::{Head, Method, is_authority, is_port};
use super::response::Response;
use super::status::{Refusal, Status};
use std::fmt;

/// The policy. The default lets a page of any origin read, without credentials.
///
/// ```
/// use newswire::Cors;
///
/// let any = Cors::default();
/// let few = Cors::only(["https://app.example.com", "http://localhost:3000"])?;
/// assert!(Cors::only(["app.example.com"]).is_err());
/// # Ok::<(), newswire::http::MalformedOrigin>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// `None` is any origin.
    origins: Option<Vec<String>>,
}

/// What was given as an origin is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedOrigin(String);

impl fmt::Display for MalformedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an origin, which is a scheme, a host and a port unless it is the usual one, \
             and nothing behind them: https://app.example.com or http://localhost:3000",
            self.0
        )
    }
}

impl std::error::Error for MalformedOrigin {}

/// A week. Browsers cut it down to hours.
const PREFLIGHT_MAX_AGE: &str = "604800";

impl Cors {
    /// Only pages of these origins may read, also with credentials.
    ///
    /// # Errors
    /// [`MalformedOrigin`] for what is not the ASCII serialization of an origin (HTML, 7.1.1).
    pub fn only<O: AsRef<str>>(
        origins: impl IntoIterator<Item = O>,
    ) -> Result<Cors, MalformedOrigin> {
        let origins = origins.into_iter().map(|origin| {
            let origin = origin.as_ref();
            // Browsers send it in lower case.
            let is_one = is_origin(origin).then(|| origin.to_ascii_lowercase());
            is_one.ok_or_else(|| MalformedOrigin(origin.to_owned()))
        });
        Ok(Cors { origins: Some(origins.collect::<Result<_, _>>()?) })
    }

    /// Whether a page of any origin may read.
    pub fn is_open(&self) -> bool {
        self.origins.is_none()
    }

    /// Whether the policy names this origin; any origin is not a name.
    pub fn names(&self, origin: &str) -> bool {
        self.origins.as_ref().is_some_and(|origins| origins.iter().any(|named| named == origin))
    }

    /// Whether the policy names an origin with this host and port.
    pub fn names_host(&self, authority: &str) -> bool {
        let named =
            |origin: &String| origin.split_once("://").is_some_and(|(_, host)| host == authority);
        self.origins.as_ref().is_some_and(|origins| origins.iter().any(named))
    }

    /// The answer to a preflight: an `OPTIONS` of a browser that asks whether it may send another
    /// request (Fetch, 3.3.2).
    pub(super) fn preflight(&self, head: &Head) -> Option<Response> {
        head.field("access-control-request-method").filter(|_| head.method() == Method::Options)?;
        let origin = head.field("origin")?;
        if self.origins.is_some() && !self.names(origin) {
            let refusal =
                Refusal::new(Status::FORBIDDEN, "Pages of this origin may not use this server.");
            return Some(refusal.into());
        }
        Some(
            Response::empty(Status::NO_CONTENT)
                .field("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS")
                .field(
                    "Access-Control-Allow-Headers",
                    "Last-Event-ID, Cache-Control, Content-Type, Authorization",
                )
                .field("Access-Control-Max-Age", PREFLIGHT_MAX_AGE),
        )
    }

    /// Adds the fields that let a page read `response`; refusals too, or a browser could not tell
    /// its user why.
    ///
    /// `*` may not go with credentials. Where the answer depends on who asks, a shared cache must
    /// know: "If Access-Control-Allow-Origin is set to ... an origin ... include Vary: Origin"
    /// (Fetch, 3.3.5), also when it is absent.
    pub(super) fn mark(&self, origin: Option<&str>, response: Response) -> Response {
        if self.origins.is_none() {
            return response.field("Access-Control-Allow-Origin", "*");
        }
        let response = response.field("Vary", "Origin");
        match origin {
            Some(origin) if self.names(origin) => response
                .field("Access-Control-Allow-Origin", origin.to_owned())
                .field("Access-Control-Allow-Credentials", "true"),
            _ => response,
        }
    }
}

/// ```text
/// serialized-origin = scheme "://" host [ ":" port ]        (RFC 6454, 6.2)
/// ```
/// "If origin's port is non-null" (HTML, 7.1.1) it is written, and it is null where it is the scheme's
/// own: an origin with that port would never be asked for.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    let own = match scheme.to_ascii_lowercase().as_str() {
        "http" => "80",
        "https" => "443",
        _ => "",
    };
    is_scheme
        && is_authority(authority)
        && authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
        && port.is_none_or(|port| is_port(port) && port != own)
}
