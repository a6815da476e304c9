//! A subscription's own choice of events.

use super::history::Batch;
use crate::sse::{Message, Parser};

/// Says of each event whether the subscriber gets it.
pub(super) struct Filter(Box<dyn FnMut(&Message) -> bool + Send>);

impl Filter {
    pub(super) fn new(accepts: impl FnMut(&Message) -> bool + Send + 'static) -> Filter {
        Filter(Box::new(accepts))
    }

    /// The frames that are accepted, in one piece, and their number.
    pub(super) fn apply(&mut self, batch: &Batch) -> (Vec<u8>, u64) {
        let (mut bytes, mut events) = (Vec::new(), 0);
        for frame in batch.frames() {
            // A frame in the history is one whole event, within the bounds of the history.
            let messages = Parser::with_limit(usize::MAX).feed(frame).unwrap_or_default();
            if messages.iter().any(|message| (self.0)(message)) {
                bytes.extend_from_slice(frame);
                events += 1;
            }
        }
        (bytes, events)
    }
}
