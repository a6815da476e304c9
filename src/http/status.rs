//! The status of a response (RFC 9110, 15), and the refusal that knows its own.

use std::fmt;

/// A status code with its reason phrase.
///
/// ```
/// use newswire::http::Status;
///
/// assert_eq!(Status::NOT_FOUND.to_string(), "404 Not Found");
/// assert_eq!(Status(299).reason(), "");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

macro_rules! statuses {
    ($($name:ident $code:literal $reason:literal,)*) => {
        impl Status {
            $(#[doc = concat!("`", stringify!($code), " ", $reason, "`")]
            pub const $name: Status = Status($code);)*

            /// The reason phrase of RFC 9110; empty for a code that newswire does not send by
            /// itself.
            pub fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    _ => "",
                }
            }
        }
    };
}

statuses! {
    OK 200 "OK",
    NO_CONTENT 204 "No Content",
    FOUND 302 "Found",
    TEMPORARY_REDIRECT 307 "Temporary Redirect",
    NOT_MODIFIED 304 "Not Modified",
    BAD_REQUEST 400 "Bad Request",
    UNAUTHORIZED 401 "Unauthorized",
    FORBIDDEN 403 "Forbidden",
    NOT_FOUND 404 "Not Found",
    METHOD_NOT_ALLOWED 405 "Method Not Allowed",
    REQUEST_TIMEOUT 408 "Request Timeout",
    LENGTH_REQUIRED 411 "Length Required",
    CONTENT_TOO_LARGE 413 "Content Too Large",
    URI_TOO_LONG 414 "URI Too Long",
    UNSUPPORTED_MEDIA_TYPE 415 "Unsupported Media Type",
    EXPECTATION_FAILED 417 "Expectation Failed",
    UNPROCESSABLE_CONTENT 422 "Unprocessable Content",
    FIELDS_TOO_LARGE 431 "Request Header Fields Too Large",
    INTERNAL_SERVER_ERROR 500 "Internal Server Error",
    NOT_IMPLEMENTED 501 "Not Implemented",
    SERVICE_UNAVAILABLE 503 "Service Unavailable",
    VERSION_NOT_SUPPORTED 505 "HTTP Version Not Supported",
}

impl Status {
    /// Whether a response with this status has no content, whatever was asked (RFC 9110, 6.4.1 and
    /// 15.3.6).
    pub(crate) fn forbids_content(self) -> bool {
        self.0 < 200 || matches!(self.0, 204 | 205 | 304)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

/// A request that is not carried out: the status, and one fixed sentence that says what was wrong
/// and what to do.
///
/// The sentence is a literal, so that a reply can never echo what a hostile request said.
///
/// ```
/// use newswire::http::{Refusal, Status};
///
/// let refusal = Refusal::new(Status::FORBIDDEN, "Ask somebody else.");
/// assert_eq!(refusal.to_string(), "403 Forbidden: Ask somebody else.");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the response.
    pub status: Status,
    /// Its content, a sentence for a person.
    pub sentence: &'static str,
}

impl Refusal {
    /// A refusal with this status and sentence.
    pub const fn new(status: Status, sentence: &'static str) -> Refusal {
        Refusal { status, sentence }
    }

    pub(crate) const fn bad(sentence: &'static str) -> Refusal {
        Refusal::new(Status::BAD_REQUEST, sentence)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.sentence)
    }
}

impl std::error::Error for Refusal {}
