//! The status of a response (RFC 9110, 15), and the refusal that knows its status.

use std::borrow::Cow;
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

            /// The reason phrase of RFC 9110; empty for a code that newswire itself does not send.
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
    PRECONDITION_FAILED 412 "Precondition Failed",
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
    /// Whether a final response with this status has no content (RFC 9110, 6.4.1 and 15.3.6).
    pub(crate) fn forbids_content(self) -> bool {
        matches!(self.0, 204 | 205 | 304)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

/// A request that is not carried out: the status, and one sentence that says what is wrong and what to do.
///
/// It becomes a [`Response`](super::Response) of plain text. A sentence that is a literal cannot echo what a hostile
/// request said. In a sentence that is made at run time control characters become spaces, and browsers are told not to
/// take it for anything but text.
///
/// ```
/// use newswire::http::{Refusal, Status};
///
/// const CLOSED: Refusal = Refusal::new(Status::FORBIDDEN, "The office is closed.");
/// assert_eq!(CLOSED.to_string(), "403 Forbidden: The office is closed.");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the response.
    pub status: Status,
    /// The content of the response, for a person.
    pub sentence: Cow<'static, str>,
}

impl Refusal {
    pub(super) const NOTHING_HERE: Refusal = Refusal::new(Status::NOT_FOUND, "There is nothing at this path.");

    /// A refusal with a sentence that is a literal.
    pub const fn new(status: Status, sentence: &'static str) -> Refusal {
        Refusal { status, sentence: Cow::Borrowed(sentence) }
    }

    /// A refusal with a sentence that is made at run time.
    pub fn with_sentence(status: Status, sentence: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, sentence: sentence.into() }
    }

    pub(crate) const fn bad(sentence: &'static str) -> Refusal {
        Refusal::new(Status::BAD_REQUEST, sentence)
    }

    /// An error, unless the condition holds.
    pub(super) fn unless(self, holds: bool) -> Result<(), Refusal> {
        if holds { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.sentence)
    }
}

impl std::error::Error for Refusal {}
