//! An `http` URL, cut into what a client needs of it.

use super::grammar::{encode, encode_all_but, is_authority};
use std::fmt;

/// ```text
/// http-URI = "http" "://" authority path-abempty [ "?" query ]        (RFC 9110, 4.2.1)
/// ```
///
/// ```
/// use newswire::http::{MalformedUrl, Url};
///
/// let url = Url::parse("http://[::1]:8080/channels/news?a=b")?;
/// assert_eq!(url.authority(), "[::1]:8080");
/// assert_eq!(url.join("../sse/words#end")?.to_string(), "http://[::1]:8080/sse/words");
/// assert_eq!(Url::parse("https://127.0.0.1/"), Err(MalformedUrl::NeedsTls));
/// # Ok::<(), MalformedUrl>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// The path and the query, as they stand in a request line.
    pub(super) target: String,
}

/// A URL that this client cannot ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedUrl {
    /// The scheme is `https`.
    NeedsTls,
    /// For the reason that this sentence says.
    Malformed(&'static str),
}

const NEEDS_TLS: &str = "there is no TLS in newswire: use curl, as in `curl -N URL | newswire watch -`, or a \
                         TLS tunnel on loopback and its http URL";
const HOST: &str = "the URL's host is not an ASCII name, an IPv4 address or an IPv6 address in \
                    brackets, without a user name and with an optional port";

impl fmt::Display for MalformedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if let MalformedUrl::Malformed(sentence) = self { sentence } else { NEEDS_TLS })
    }
}

impl std::error::Error for MalformedUrl {}

impl Url {
    /// Reads an absolute URL. A fragment is dropped, dot segments are resolved, and what is no visible ASCII in the path
    /// or the query is percent-encoded as UTF-8.
    ///
    /// # Errors
    /// [`MalformedUrl`] says what is wrong.
    pub fn parse(text: &str) -> Result<Url, MalformedUrl> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        match &*scheme.to_ascii_lowercase() {
            "http" => Url::from_authority(rest),
            "https" => Err(MalformedUrl::NeedsTls),
            _ => Err(MalformedUrl::Malformed("the URL does not begin with http://")),
        }
    }

    /// The URL that a reference means here, as in a `Location` field (RFC 3986, 5.2.2).
    ///
    /// # Errors
    /// As [`parse`](Url::parse).
    pub fn join(&self, reference: &str) -> Result<Url, MalformedUrl> {
        let path = self.target.split('?').next().unwrap_or_default();
        let folder = &path[..=path.rfind('/').unwrap_or(0)];
        let target = match reference.as_bytes() {
            [] | [b'#', ..] => self.target.clone(),
            [b'/', b'/', ..] => return Url::from_authority(&reference[2..]),
            [b'/', ..] => reference.to_owned(),
            [b'?', ..] => format!("{path}{reference}"),
            _ if has_scheme(reference) => return Url::parse(reference),
            _ => format!("{folder}{reference}"),
        };
        Ok(Url { target: normalize(&target), ..self.clone() })
    }

    /// With one more parameter in the query. Its value is percent-encoded.
    pub fn parameter(mut self, name: &str, value: &str) -> Url {
        let separator = if self.target.contains('?') { '&' } else { '?' };
        self.target += &format!("{separator}{name}={}", encode(value));
        self
    }

    fn from_authority(text: &str) -> Result<Url, MalformedUrl> {
        let (authority, target) = text.split_at(text.find(['/', '?', '#']).unwrap_or(text.len()));
        if !is_authority(authority) {
            return Err(MalformedUrl::Malformed(HOST));
        }
        let end = authority.find(']').map_or(authority.find(':'), |bracket| Some(bracket + 1));
        let (host, port) = authority.split_at(end.unwrap_or(authority.len()));
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        // `is_authority` lets a number through, or nothing.
        let port = port.trim_start_matches(':').parse().unwrap_or(80);
        Ok(Url { host, port, target: normalize(target) })
    }

    /// Host and port as in a `Host` field; URLs that agree in them have the same origin.
    pub fn authority(&self) -> String {
        let is_v6 = self.host.contains(':');
        let host = if is_v6 { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.target)
    }
}

/// `scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )` (RFC 3986, 3.1), and a colon
fn has_scheme(reference: &str) -> bool {
    let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    reference.starts_with(|c: char| c.is_ascii_alphabetic())
        && reference.split_once(':').is_some_and(|(scheme, _)| scheme.bytes().all(is_scheme_byte))
}

/// Path and query in the form of a request target: no character of a URL can end a request line.
fn normalize(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    // "Remove dot segments" (RFC 3986, 5.2.4): `..` takes the segment before it away, too.
    let mut segments = Vec::new();
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = parts.next() {
        match (segment, parts.peek()) {
            (".." | ".", next) => {
                segments.truncate(segments.len().saturating_sub(segment.len() - 1));
                segments.extend(next.is_none().then_some(""));
            }
            _ => segments.push(segment),
        }
    }
    encode_all_but(u8::is_ascii_graphic, &format!("/{}{query}", segments.join("/")))
}
