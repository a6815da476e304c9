//! The demonstration stream: a sentence, one word a second.

use crate::http::{Request, Response};
use crate::script::Script;
use crate::sse::{jittered, last_event_id};

/// What every typist knows. The word that ends in a full stop is the last.
pub(crate) const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

/// The words that the client has not heard yet.
pub(crate) fn respond(request: &Request<'_>) -> Response {
    let script = Script::of(TEXT);
    Script {
        retry: jittered(script.retry),
        ..script
    }
    .respond(last_event_id(request).as_deref(), None)
}
