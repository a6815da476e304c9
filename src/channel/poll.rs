//! What a channel has now, and then the end: for clients that cannot hold a connection, or cannot read a stream.

use super::asked::Asked;
use super::catch_up::{Start, gap_event, is_lost};
use super::channel::Channel;
use super::feed::REPLAY_BYTES;
use super::history::{Batch, Cursor};
use super::subscriber::END;
use crate::http::{Refusal, Request, Response, Status, StreamWriter};
use crate::sse::{Emitter, Parser, event_stream, json_string, opening, refused};
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::Ordering::Relaxed;

/// What one poll gets.
struct Poll {
    cursor: Cursor,
    until: Cursor,
    /// The events around those of the channel.
    gap: String,
    end: &'static [u8],
    /// The last event ID with which the client is to come back.
    last_id: String,
    is_json: bool,
    /// What stands before the next object.
    comma: &'static str,
}

impl Channel {
    /// Everything behind the client's last event ID; without one, everything that is kept. It is an event stream that ends
    /// at once, or with `is_json` an object with an array of the same events, and the last event ID for the next time.
    pub(crate) fn poll(&self, request: &Request<'_>, is_json: bool) -> Response {
        let hub = &self.feed.hub;
        if hub.is_stopped() {
            return if is_json { STOPPING.into() } else { refused() };
        }
        let asked = Asked::by(request).unwrap_or(Asked::Earliest);
        let poll = {
            let mut state = self.feed.lock();
            self.feed.expire(&mut state);
            let history = &state.history;
            let (cursor, has_gap) = Start::new(history, &hub.ids, &asked).position(history);
            let gap = has_gap.then(|| gap_event(asked.text(), history.first_id(), ""));
            let end = if state.is_completed() { END } else { b"" };
            let last_id = history.last_id().unwrap_or(history.forgotten).to_string();
            let gap = gap.unwrap_or_default();
            Poll { cursor, until: history.end(), gap, end, last_id, is_json, comma: "" }
        };
        let lacks_nothing = poll.gap.is_empty() && poll.cursor == poll.until;
        if !is_json && !poll.end.is_empty() && lacks_nothing {
            return Emitter::finished();
        }
        hub.counters.gaps.fetch_add(u64::from(!poll.gap.is_empty()), Relaxed);
        // A handle keeps the channel while its events are copied piece by piece.
        let channel = self.clone();
        match is_json {
            true => {
                Response::streamed("application/json", b"{\"events\":[".to_vec(), move |writer| {
                    poll.write(&channel, writer)
                })
                .field("Cache-Control", "no-store")
                .field("X-Content-Type-Options", "nosniff")
            }
            false => event_stream(opening(), move |writer| poll.write(&channel, writer)),
        }
    }
}

const STOPPING: Refusal = Refusal::new(Status::SERVICE_UNAVAILABLE, "The server is stopping.");

impl Poll {
    fn write(mut self, channel: &Channel, mut writer: StreamWriter) -> io::Result<()> {
        let (feed, mut batch) = (&channel.feed, Batch::default());
        let mut out = Vec::new();
        let gap = std::mem::take(&mut self.gap);
        self.put(gap.as_bytes(), &mut out);
        while self.cursor < self.until {
            let state = feed.lock();
            // JSON without its end is not whole. A stream that ends early is repaired by the next last event ID.
            if is_lost(self.cursor, state.history.first) {
                return Err(ErrorKind::BrokenPipe.into());
            }
            state.history.copy(self.cursor, self.until, REPLAY_BYTES, &mut batch);
            drop(state);
            let before = out.len();
            self.put(batch.between(self.cursor, self.until), &mut out);
            let (events, bytes) = (batch.end() - self.cursor, out.len() - before);
            feed.hub.counters.delivered(events, bytes as u64);
            self.cursor = batch.end();
            if self.cursor < self.until {
                writer.write_all(&std::mem::take(&mut out))?;
            }
        }
        self.put(self.end, &mut out);
        if self.is_json {
            out.extend_from_slice(format!("],\"last_id\":\"{}\"}}\n", self.last_id).as_bytes());
        }
        writer.write_all(&out)?;
        writer.finish();
        Ok(())
    }

    /// Appends these events, as they are or as objects of the array. The id of a control event is null.
    fn put(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        if !self.is_json {
            return out.extend_from_slice(frames);
        }
        // They are within the bounds of the history.
        for message in Parser::with_limit(usize::MAX).feed(frames).unwrap_or_default() {
            let id = match &*message.event_type {
                "gap" | "end" => "null".to_owned(),
                _ => json_string(&message.last_event_id),
            };
            let (name, data) = (json_string(&message.event_type), json_string(&message.data));
            let comma = std::mem::replace(&mut self.comma, ",\n");
            let object = format!("{comma}{{\"id\":{id},\"event\":{name},\"data\":{data}}}");
            out.extend_from_slice(object.as_bytes());
        }
    }
}
