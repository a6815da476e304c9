//! The first line of a request: method, target and version (RFC 9112, 3).

use super::grammar::{decode_segment, is_authority, is_token_byte};
use super::limits::Limits;
use super::status::{Refusal, Status};

/// The methods that newswire knows (RFC 9110, 9.3). Any other is `501`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
}

impl Method {
    /// All of them, in the order in which `Allow` names them.
    pub(super) const ALL: [Method; 6] =
        [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete, Method::Options];

    /// The name on the wire; methods are case-sensitive.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }
}

/// HTTP/1.0 or HTTP/1.1. A later minor version is read as 1.1 (RFC 9110, 2.5); another major version is `505`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    Http11,
}

#[derive(Clone, Debug)]
pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) version: Version,
}

/// The longest method in IANA's registry has 17 bytes.
const METHOD_BYTES: usize = 32;

/// Room in a request line for the method, the version and two spaces.
const BESIDE_TARGET_BYTES: usize = 64;

impl RequestLine {
    /// ```text
    /// request-line = method SP request-target SP HTTP-version        (RFC 9112, 3)
    /// method       = token
    /// HTTP-version = "HTTP/" DIGIT "." DIGIT
    /// ```
    /// Exactly one space each. "Recipients MAY instead parse on whitespace-delimited word boundaries", and a program
    /// that does that reads another target than a program that does not.
    pub(super) fn parse(line: &[u8], limits: &Limits) -> Result<RequestLine, Refusal> {
        RequestLine::judge_beginning(line, limits)?;
        let mut words = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Refusal::bad("A request line is: METHOD SP TARGET SP HTTP/1.1"));
        };
        let version = match version {
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(Refusal::new(
                    Status::VERSION_NOT_SUPPORTED,
                    "This server speaks HTTP/1.1 and HTTP/1.0.",
                ));
            }
            _ => {
                return Err(Refusal::bad("The request line does not end in an HTTP version."));
            }
        };
        if target.len() > limits.target_bytes {
            return Err(Refusal::new(Status::URI_TOO_LONG, "The request target is too long."));
        }
        let method = Method::ALL.into_iter().find(|known| known.name().as_bytes() == method);
        let method = method.ok_or(UNKNOWN_METHOD)?;
        Ok(RequestLine { method, target: Target::parse(target, method)?, version })
    }

    /// What can be said of a request line before its end has arrived. A client that speaks TLS sends no line end, and
    /// would wait for the whole deadline.
    pub(super) fn judge_beginning(line: &[u8], limits: &Limits) -> Result<(), Refusal> {
        let start = &line[..line.len().min(METHOD_BYTES + 1)];
        // A CR may be half of the line end.
        let start = start.strip_suffix(b"\r").unwrap_or(start);
        // A TLS handshake record begins with 22 (RFC 8446, 5.1), which begins no method.
        if start.first().is_some_and(|&first| !is_token_byte(first)) {
            return Err(Refusal::bad(
                "This is not HTTP. This port speaks plain HTTP/1.1, without TLS.",
            ));
        }
        let method = start.split(|&byte| byte == b' ').next().unwrap_or_default();
        if !method.iter().all(|&byte| is_token_byte(byte)) {
            return Err(Refusal::bad("The method is not a token."));
        }
        // "A server that receives a method longer than any that it implements SHOULD respond with a 501" (RFC 9112, 3).
        if method.len() > METHOD_BYTES {
            return Err(UNKNOWN_METHOD);
        }
        if line.len() > limits.target_bytes.saturating_add(BESIDE_TARGET_BYTES) {
            return Err(Refusal::new(Status::URI_TOO_LONG, "The request line is too long."));
        }
        Ok(())
    }
}

const UNKNOWN_METHOD: Refusal = Refusal::new(
    Status::NOT_IMPLEMENTED,
    "This server knows GET, HEAD, POST, PUT, DELETE and OPTIONS.",
);

#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) scheme: &'static str,
    pub(super) authority: Option<String>,
    pub(super) path: String,
    pub(super) segments: Vec<String>,
    pub(super) query: String,
}

impl Target {
    /// ```text
    /// request-target = origin-form / absolute-form / authority-form / asterisk-form        (RFC 9112, 3.2)
    /// origin-form    = absolute-path [ "?" query ]
    /// ```
    /// The authority-form belongs to CONNECT, which is `501`. A fragment is never sent. Every byte of a URI is visible
    /// ASCII.
    fn parse(target: &[u8], method: Method) -> Result<Target, Refusal> {
        let target = str::from_utf8(target).unwrap_or("");
        let is_visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if target.is_empty() || !target.bytes().all(is_visible) {
            return Err(Refusal::bad(
                "The request target has a character that no request target has.",
            ));
        }
        if target == "*" {
            if method != Method::Options {
                return Err(Refusal::bad("The request target * is for OPTIONS."));
            }
            return Ok(Target {
                scheme: "http",
                authority: None,
                path: "*".into(),
                segments: Vec::new(),
                query: String::new(),
            });
        }
        let (authority, rest) = match target.strip_prefix('/') {
            Some(_) => (None, target),
            None => split_absolute_form(target)?,
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = if path.is_empty() { "/" } else { path };
        let segments = path[1..].split('/').map(decode_segment).collect::<Result<_, _>>()?;
        let is_https = authority.is_some() && target[..6].eq_ignore_ascii_case("https:");
        Ok(Target {
            scheme: if is_https { "https" } else { "http" },
            authority: authority.map(str::to_owned),
            path: path.to_owned(),
            segments,
            query: query.to_owned(),
        })
    }
}

/// ```text
/// absolute-form = scheme "://" authority path-abempty [ "?" query ]        (RFC 3986, 4.3)
/// ```
/// Userinfo is "an error" here, "likely being used to obscure the authority" (RFC 9110, 4.2.4).
fn split_absolute_form(target: &str) -> Result<(Option<&str>, &str), Refusal> {
    let (scheme, rest) = target.split_once("://").ok_or(NO_TARGET)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(NO_TARGET);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    if !is_authority(&rest[..end]) {
        return Err(Refusal::bad("The request target has no valid host."));
    }
    Ok((Some(&rest[..end]), &rest[end..]))
}

const NO_TARGET: Refusal =
    Refusal::bad("The request target is neither a path that begins with / nor an http URL.");
