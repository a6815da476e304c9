//! What channels have now, and then the end: for clients that cannot hold a connection, or cannot read a stream.

use super::asked::Asked;
use super::channel::Channel;
use super::history::Batch;
use super::place;
use super::replay::Replay;
use super::start::Start;
use crate::http::{Refusal, Request, Response, Status, StreamWriter};
use crate::sse::{Emitter, Parser, event_stream, json_string, opening, refused_because};
use std::io::{self, ErrorKind, Write};
use std::mem::{replace, take};

impl Channel {
    /// Everything after the client's last event ID; without one, everything that is kept. It is an event stream that ends
    /// at once, or with `is_json` an object with an array of the same events, and the last event ID for the next time.
    pub(crate) fn poll(&self, request: &Request<'_>, is_json: bool) -> Response {
        let asked = Asked::by(request).unwrap_or(Asked::Earliest);
        let Some(start) = self.start(&asked) else {
            return if is_json { NOT_NOW.into() } else { refused_because("the channel cannot be read now") };
        };
        if !is_json && start.is_finished {
            return Emitter::finished();
        }
        // A handle keeps the channel while its events are copied piece by piece.
        let channel = self.clone();
        let write = move |writer| write(&channel, &asked, start, is_json, writer);
        if !is_json {
            return event_stream(opening(), write);
        }
        Response::streamed("application/json", b"{\"events\":[".to_vec(), write)
            .field("Cache-Control", "no-store")
            .field("X-Content-Type-Options", "nosniff")
    }
}

const NOT_NOW: Refusal = Refusal::new(Status::SERVICE_UNAVAILABLE, "The channel cannot be read now; come back later.");

fn write(channel: &Channel, asked: &Asked, start: Start, is_json: bool, mut writer: StreamWriter) -> io::Result<()> {
    let mut replay = Replay::new(&channel.feed, start);
    let until = replay.newest();
    let (mut batch, mut out, mut comma) = (Batch::default(), Vec::new(), "");
    let is_view = channel.feed.view.is_some();
    let mut put = |frames: &[u8], out: &mut Vec<u8>| match is_json {
        true => put_objects(frames, is_view, &mut comma, out),
        false => out.extend_from_slice(frames),
    };
    loop {
        // JSON without its end is not whole. A stream that ends early is repaired by the next last event ID.
        let gap = replay.next(asked, &until, &mut batch);
        put(gap.map_err(|_| ErrorKind::BrokenPipe)?.as_bytes(), &mut out);
        let before = out.len();
        put(batch.between(0, batch.end()), &mut out);
        channel.feed.hub.counters.delivered(batch.end(), (out.len() - before) as u64);
        if replay.is_complete {
            break;
        }
        writer.write_all(&take(&mut out))?;
    }
    put(&channel.feed.ends(&replay.after(), None), &mut out);
    if is_json {
        let last_id = place::text(&replay.after());
        out.extend_from_slice(format!("],\"last_id\":\"{last_id}\"}}\n").as_bytes());
    }
    writer.write_all(&out)?;
    writer.finish();
    Ok(())
}

/// Appends events as objects of the array. The id of a control event is null.
fn put_objects(frames: &[u8], is_view: bool, comma: &mut &str, out: &mut Vec<u8>) {
    // They are within the bounds of the history.
    for message in Parser::with_limit(usize::MAX).feed(frames).unwrap_or_default() {
        let of_channel = message.event_type.split_once(':').filter(|_| is_view);
        let id = match of_channel.map_or(&*message.event_type, |(_, own_type)| own_type) {
            "gap" | "end" => "null".to_owned(),
            _ => json_string(&message.last_event_id),
        };
        let (name, data) = (json_string(&message.event_type), json_string(&message.data));
        let comma = replace(comma, ",\n");
        let object = format!("{comma}{{\"id\":{id},\"event\":{name},\"data\":{data}}}");
        out.extend_from_slice(object.as_bytes());
    }
}
