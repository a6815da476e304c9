//! The demonstration stream: a sentence, one word a second.

use crate::http::{Request, Response};
use crate::sse::{Emitter, Event, last_event_id};
use std::thread;
use std::time::Duration;

/// The word that ends in a full stop is the last one.
pub(crate) const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

/// Sends the words that the client lacks. The id of a word is its number, from 1.
pub(crate) fn respond(request: &Request<'_>) -> Response {
    let words: Vec<&str> = TEXT.split(' ').collect();
    let id = last_event_id(request).and_then(|id| id.parse().ok());
    let heard: usize = id.filter(|&id| id <= words.len()).unwrap_or(0);
    if heard == words.len() {
        return Emitter::finished();
    }
    Emitter::stream(request, move |mut emitter| {
        for (number, word) in (1..).zip(words).skip(heard) {
            emitter.send(Event::new(word).id(number)?)?;
            thread::sleep(Duration::from_secs(1));
        }
        emitter.complete()
    })
}
