//! The demonstration stream: a sentence, word by word, one word a second.

use crate::http::{Request, Response};
use crate::sse::{Emitter, Event, last_event_id};
use std::thread;
use std::time::Duration;

/// The page closes its EventSource at the word that ends in a full stop.
const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

/// Sends the words that the client does not have yet. The id of a word is its number: 1, 2, 3 and so on.
pub(crate) fn respond(request: &Request<'_>) -> Response {
    let words: Vec<&str> = TEXT.split(' ').collect();
    // A client that reconnects says which word it has heard last. An id of no word counts as none: any status but 200
    // and 204 is an error for EventSource, and the client may have the id from an older version of this server.
    let last_id = last_event_id(request).unwrap_or_default();
    let heard = (1..=words.len()).find(|number| number.to_string() == last_id).unwrap_or(0);
    if heard == words.len() {
        // 204: EventSource does not reconnect any more.
        return Emitter::finished();
    }
    // The closure runs on the thread of this connection. Other clients have threads of their own.
    Emitter::stream(request, move |mut emitter| {
        for (number, word) in (1..).zip(words).skip(heard) {
            // The word leaves at once. The error of a client that has left ends the closure and the stream.
            emitter.send(Event::new(word).id(number)?)?;
            thread::sleep(Duration::from_secs(1));
        }
        emitter.complete()
    })
}
