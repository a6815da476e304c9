//! The demonstration stream: a sentence, one word a second.

use crate::http::{Request, Response};
use crate::line::Lines;
use crate::script::Script;
use crate::sse::{Channels, jittered, last_event_id};

/// What every typist knows. The word that ends in a full stop is the last.
pub(crate) const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

/// The words that the client has not heard yet; on a line that can be watched and cut, if it names
/// one with `line`, as in the laboratory.
pub(crate) fn respond(request: &Request<'_>, lines: &Lines) -> Response {
    let script = Script::of(TEXT);
    let name = request.query("line").filter(|name| Channels::is_name(name));
    let line = name.and_then(|name| lines.open(&name));
    Script { retry: jittered(script.retry), ..script }.respond(
        last_event_id(request).as_deref(),
        line,
        lines.channels(),
    )
}
