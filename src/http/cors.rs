//! Which pages may read what this server sends: the CORS protocol (Fetch, 3.3), for every response alike.

use super::grammar::{is_authority, is_token, list};
use super::head::{Head, Method};
use super::response::Response;
use super::router::Router;
use super::status::{Refusal, Status};
use std::fmt;

/// The policy for pages of other origins. By default a page of any origin may read, without credentials, and may send
/// any field.
///
/// ```
/// use newswire::Cors;
///
/// let any = Cors::default();
/// let few = Cors::only(["https://app.example.com", "http://localhost:3000"])?
///     .allow_headers(["Authorization", "Last-Event-ID"])?
///     .expose_headers(["X-Request-ID"])?;
/// assert!(Cors::only(["app.example.com"]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// `None` is any origin.
    origins: Option<Vec<String>>,
    /// `None` is what the preflight asks for.
    allow_headers: Option<String>,
    expose_headers: Option<String>,
}

/// The text that was given as an origin, or as the name of a field, is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCors {
    text: String,
    rule: &'static str,
}

impl fmt::Display for InvalidCors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not {}", self.text, self.rule)
    }
}

impl std::error::Error for InvalidCors {}

const ORIGIN: &str = "an origin, which is a scheme, a host and a port unless it is the usual one, and nothing behind \
                      them: https://app.example.com or http://localhost:3000";

const FIELD_NAME: &str = "the name of a field, such as X-Request-ID";

/// A week. Browsers cut it down to hours.
const PREFLIGHT_MAX_AGE: &str = "604800";

impl Cors {
    /// Only pages of these origins may read, also with credentials.
    ///
    /// # Errors
    /// [`InvalidCors`] for what is not the ASCII serialization of an origin (HTML, 7.1.1).
    pub fn only<O: AsRef<str>>(origins: impl IntoIterator<Item = O>) -> Result<Cors, InvalidCors> {
        let origins = origins.into_iter().map(|origin| {
            let origin = origin.as_ref();
            // Browsers send it in lower case.
            let is_one = is_origin(origin).then(|| origin.to_ascii_lowercase());
            is_one.ok_or_else(|| InvalidCors { text: origin.to_owned(), rule: ORIGIN })
        });
        Ok(Cors { origins: Some(origins.collect::<Result<_, _>>()?), ..Cors::default() })
    }

    /// Whether a page of any origin may read.
    pub fn is_open(&self) -> bool {
        self.origins.is_none()
    }

    /// Pages may send only these fields, besides those that need no preflight. Without this call they may send any field:
    /// libraries for tracing add fields of their own to every request.
    ///
    /// # Errors
    /// [`InvalidCors`] for a name that is not a token.
    pub fn allow_headers<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Result<Cors, InvalidCors> {
        self.allow_headers = Some(join_names(names)?);
        Ok(self)
    }

    /// Pages may read these fields of a response, besides those that need no permission. Without this call there are no
    /// others.
    ///
    /// # Errors
    /// [`InvalidCors`] for a name that is not a token.
    pub fn expose_headers<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Result<Cors, InvalidCors> {
        self.expose_headers = Some(join_names(names)?);
        Ok(self)
    }

    /// Whether the policy names this origin. Any origin is not a name.
    pub fn names(&self, origin: &str) -> bool {
        self.origins.iter().flatten().any(|named| named == origin)
    }

    /// Whether the policy names an origin with this host and port.
    pub fn names_host(&self, authority: &str) -> bool {
        let mut origins = self.origins.iter().flatten().filter_map(|named| named.split_once("://"));
        origins.any(|(_, host)| host == authority)
    }

    /// The answer to a preflight: an `OPTIONS` by which a browser asks whether a page may send another request (Fetch,
    /// 3.3.2). It promises the methods that the path has.
    pub(super) fn preflight(&self, head: &Head, router: &Router) -> Option<Response> {
        head.field("access-control-request-method").filter(|_| head.method() == Method::Options)?;
        let origin = head.field("origin")?;
        if self.origins.is_some() && !self.names(origin) {
            let sentence = "Pages of this origin may not use this server.";
            return Some(Refusal::new(Status::FORBIDDEN, sentence).into());
        }
        let asked = head.values("access-control-request-headers").flat_map(list);
        let asked = asked.filter(|name| is_token(name.as_bytes())).collect::<Vec<_>>().join(", ");
        let fields = [
            ("Access-Control-Max-Age", PREFLIGHT_MAX_AGE.to_owned()),
            ("Access-Control-Allow-Methods", router.allow(head)),
            ("Access-Control-Allow-Headers", self.allow_headers.clone().unwrap_or(asked)),
            // A page from a public network asks for this before it reaches a server in a private one (Private Network
            // Access). Not every page may: only those of origins that the policy names.
            ("Access-Control-Allow-Private-Network", {
                let asks = head.field("access-control-request-private-network") == Some("true");
                if asks && self.names(origin) { "true".to_owned() } else { String::new() }
            }),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let response = Response::empty(Status::NO_CONTENT);
        Some(given.fold(response, |response, (name, value)| response.field(name, value)))
    }

    /// Adds the fields that let a page read `response`. Refusals get them, too: without them a page could not tell its
    /// user what is wrong.
    ///
    /// `*` may not go with credentials. Where the response depends on the origin, shared caches must know: "If
    /// Access-Control-Allow-Origin is set to ... an origin ... include Vary: Origin" (Fetch, 3.3.5), also in a response
    /// without it.
    pub(super) fn add_fields(&self, origin: Option<&str>, response: Response) -> Response {
        let response = match origin {
            _ if self.origins.is_none() => response.literal("Access-Control-Allow-Origin", "*"),
            Some(origin) if self.names(origin) => response
                .field("Vary", "Origin")
                .field("Access-Control-Allow-Origin", origin.to_owned())
                .field("Access-Control-Allow-Credentials", "true"),
            _ => return response.field("Vary", "Origin"),
        };
        match &self.expose_headers {
            Some(names) => response.field("Access-Control-Expose-Headers", names.clone()),
            None => response,
        }
    }
}

fn join_names<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Result<String, InvalidCors> {
    let names = names.into_iter().map(|name| match name.as_ref() {
        name if is_token(name.as_bytes()) => Ok(name.to_owned()),
        name => Err(InvalidCors { text: name.to_owned(), rule: FIELD_NAME }),
    });
    Ok(names.collect::<Result<Vec<_>, _>>()?.join(", "))
}

/// ```text
/// serialized-origin = scheme "://" host [ ":" port ]        (RFC 6454, 6.2)
/// ```
/// "If origin's port is non-null" (HTML, 7.1.1) it is written. It is null where it is the scheme's default port: no
/// browser sends such an origin.
fn is_origin(text: &str) -> bool {
    let (scheme, authority) = text.split_once("://").unwrap_or_default();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => 0,
    };
    // A leading zero is never written.
    let is_port =
        |port: &str| port.parse::<u16>().is_ok_and(|number| number != default_port && number.to_string() == port);
    is_scheme
        && is_authority(authority)
        && authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
        && port.is_none_or(is_port)
}
