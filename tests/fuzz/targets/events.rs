//! Event streams: however one is cut, the same messages; and an event comes back as it was.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use newswire::Event;
use newswire::sse::{Message, Parser};
use newswire_fuzz::pieces;
use std::time::Duration;

#[derive(Arbitrary, Debug)]
enum Input {
    Stream { bytes: Vec<u8>, lengths: Vec<u8>, limit: Option<u8> },
    Events { events: Vec<Made>, lengths: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
struct Made {
    comment: bool,
    text: String,
    id: Option<String>,
    name: Option<String>,
    retry_ms: Option<u32>,
}

fuzz_target!(|input: Input| match input {
    Input::Stream { bytes, lengths, limit } => {
        let limit = limit.map_or(1 << 20, usize::from);
        let whole = read([bytes.as_slice()], limit);
        assert_eq!(read(pieces(&bytes, &lengths), limit), whole);
        assert_eq!(read(pieces(&bytes, &[1]), limit), whole);
        let plain = read_plainly(&bytes);
        match whole {
            Some(read) => assert_eq!(read, plain),
            // What is no UTF-8 counts as the U+FFFD, of three bytes, that it becomes.
            None => assert!(3 * bytes.len() > limit),
        }
    }
    Input::Events { events, lengths } => round(&events, &lengths),
});

/// Messages, the last event ID and the reconnection time; `None` when it is beyond the limit.
type Read = (Vec<Message>, String, Option<Duration>);

fn read<'s>(pieces: impl IntoIterator<Item = &'s [u8]>, limit: usize) -> Option<Read> {
    let (mut parser, mut messages) = (Parser::with_limit(limit), Vec::new());
    for piece in pieces {
        messages.extend(parser.feed(piece).ok()?);
    }
    // Where the last piece has completed events, this call is told that the rest was too large.
    parser.feed(&[]).ok()?;
    Some((messages, parser.last_event_id().to_owned(), parser.reconnection_time()))
}

/// HTML, 9.2.6 without a thought of pieces or memory: the whole stream is one string.
fn read_plainly(bytes: &[u8]) -> Read {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
    let (mut messages, mut retry) = (Vec::new(), None);
    let (mut data, mut event_type, mut id, mut last_id) = (None::<String>, String::new(), String::new(), String::new());
    // What stands after the last line end is no line.
    let lines: Vec<_> = text.split('\n').collect();
    for line in &lines[..lines.len() - 1] {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            _ if line.is_empty() => {
                last_id = id.clone();
                let event_type = std::mem::take(&mut event_type);
                if let Some(data) = data.take() {
                    let event_type = if event_type.is_empty() { "message".to_owned() } else { event_type };
                    messages.push(Message { event_type, data, last_event_id: last_id.clone() });
                }
            }
            "data" => {
                data = Some(match data {
                    None => value.to_owned(),
                    Some(before) => before + "\n" + value,
                })
            }
            "event" => event_type = value.to_owned(),
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if !value.is_empty() && value.chars().all(|digit| digit.is_ascii_digit()) => {
                retry = Some(Duration::from_millis(value.parse().unwrap_or(u64::MAX)));
            }
            _ => {}
        }
    }
    (messages, last_id, retry)
}

/// Events as we encode them arrive as they were made: ids and names unchanged or refused when they
/// are given, and of the data only the kind of line end is lost.
fn round(events: &[Made], lengths: &[u8]) {
    let (mut wire, mut sent, mut retry) = (Vec::new(), Vec::new(), None);
    // The id of a comment counts from the next event on.
    let (mut id_buffer, mut last_id) = (String::new(), String::new());
    for made in events {
        let mut event = match made.comment {
            true => Event::default().comment(&*made.text),
            false => Event::new(&*made.text),
        };
        let is_bad = |text: &str| text.contains(['\r', '\n', '\0']);
        let mut event_type = "message";
        if let Some(id) = &made.id {
            match event.clone().id(id) {
                Ok(with_id) => event = with_id,
                Err(_) => {
                    assert!(is_bad(id));
                    continue;
                }
            }
            id_buffer.clone_from(id);
        }
        if let Some(name) = &made.name {
            match event.clone().name(&**name) {
                Ok(with_name) => event = with_name,
                Err(_) => {
                    assert!(is_bad(name));
                    event = Event::new(&*made.text);
                    if let Some(id) = &made.id {
                        event = event.id(id).unwrap();
                    }
                }
            }
            if !is_bad(name) && !name.is_empty() {
                event_type = name;
            }
        }
        if let Some(ms) = made.retry_ms {
            retry = Some(Duration::from_millis(ms.into()));
            event = event.reconnection_time(Duration::from_millis(ms.into()));
        }
        event.encode(&mut wire);
        let is_comment = made.comment && !made.name.as_deref().is_some_and(is_bad);
        if !is_comment {
            last_id.clone_from(&id_buffer);
            let data = made.text.replace("\r\n", "\n").replace('\r', "\n");
            sent.push(Message { event_type: event_type.to_owned(), data, last_event_id: last_id.clone() });
        }
    }
    assert_eq!(read(pieces(&wire, lengths), usize::MAX), Some((sent, last_id, retry)));
}
