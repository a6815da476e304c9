//! The life of a channel: a subscriber gets what a model says, whatever its last event ID is.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use newswire::channel::{Channels, Limits, PublishError};
use newswire::sse::{Message, Parser};
use newswire::{Event, http};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const HISTORY_EVENTS: usize = 6;
const HISTORY_BYTES: usize = 1200;

/// The history makes room for an event with an id of this length, whatever id it gets.
const LONGEST_ID: usize = 22;

#[derive(Arbitrary, Debug)]
struct Input {
    acts: Vec<Act>,
    /// They subscribe after all of this, and again when the channel is completed.
    late: Vec<Asked>,
}

#[derive(Arbitrary, Debug)]
enum Act {
    Publish(String),
    PublishLarge(u16),
    Complete,
    Subscribe(Asked),
}

/// The last event ID that a subscriber names.
#[derive(Arbitrary, Clone, Debug)]
enum Asked {
    Nothing,
    Earliest,
    /// The id of an event of the channel.
    Known(u8),
    /// An id at this distance from that of an event.
    Near(u8, i8),
    Malformed(String),
}

struct Stage {
    address: SocketAddr,
    channels: Channels,
    runs: AtomicU64,
}

static STAGE: OnceLock<Stage> = OnceLock::new();

fn start() -> Stage {
    let limits =
        Limits { channels: 64, history_events: HISTORY_EVENTS, history_bytes: HISTORY_BYTES, ..Limits::default() };
    let (address, channels) = newswire_fuzz::serve(http::Limits::default(), limits);
    Stage { address, channels, runs: AtomicU64::new(0) }
}

fuzz_target!(|input: Input| {
    let stage = STAGE.get_or_init(start);
    let name = format!("run-{}", stage.runs.fetch_add(1, Relaxed));
    let channel = stage.channels.open(&name).unwrap();
    let mut model = Model::default();
    let mut open: Vec<(Stream, Vec<Expected>)> = Vec::new();

    let subscribe = |model: &Model, asked: &Asked| {
        let id = model.id_of(asked);
        let answer = ask(stage.address, &name, id.as_deref());
        match (model.subscribe(id.as_deref()), answer) {
            (None, None) => None,
            (Some(expected), Some(stream)) => Some((stream, expected)),
            (None, Some(mut stream)) => {
                let _ = stream.socket.read_to_end(&mut stream.rest);
                panic!("{id:?} should get 204, not {:?}", String::from_utf8_lossy(&stream.rest))
            }
            (Some(expected), None) => panic!("{id:?} got 204, and lacks {expected:?}"),
        }
    };

    for act in input.acts.iter().take(40) {
        let data = match act {
            Act::Publish(text) => text.clone(),
            Act::PublishLarge(bytes) => "x".repeat(usize::from(bytes % 1300)),
            Act::Complete => {
                channel.complete().expect("it is in memory");
                model.completed = true;
                for (_, expected) in &mut open {
                    expected.push(Expected::End);
                }
                continue;
            }
            Act::Subscribe(asked) => {
                // Each has two sockets here.
                open.extend(Some(()).filter(|()| open.len() < 64).and_then(|()| subscribe(&model, asked)));
                continue;
            }
        };
        let event = Event::new(&*data);
        let bytes = event.to_string().len() + 5 + LONGEST_ID;
        match channel.publish(event) {
            Ok(published) => {
                assert!(bytes <= HISTORY_BYTES);
                let message = model.publish(published.id, &data);
                for (_, expected) in &mut open {
                    expected.push(Expected::Event(message.clone()));
                }
            }
            Err(PublishError::TooLarge) => assert!(bytes > HISTORY_BYTES),
            Err(error) => panic!("{error}"),
        }
        let summary = channel.summary();
        assert_eq!(summary.events, model.kept.len());
        assert_eq!(summary.bytes, model.kept.iter().map(|(_, bytes)| bytes).sum::<usize>());
        assert_eq!(summary.last_id.as_ref(), model.kept.last().map(|(message, _)| &message.last_event_id));
        assert_eq!(summary.completed, model.completed);
    }

    let late: Vec<_> = input.late.iter().take(16).collect();
    open.extend(late.iter().filter_map(|asked| subscribe(&model, asked)));
    channel.complete().expect("it is in memory");
    model.completed = true;
    for (_, expected) in &mut open {
        expected.push(Expected::End);
    }
    open.extend(late.iter().filter_map(|asked| subscribe(&model, asked)));
    for (stream, expected) in open {
        check(stream, &expected);
    }
});

#[derive(Clone, Debug, PartialEq)]
enum Expected {
    /// That something may be missing, and the oldest id that is kept.
    Gap(Option<String>),
    Event(Message),
    End,
}

/// What a channel keeps, as the README says.
#[derive(Default)]
struct Model {
    /// Messages, and their bytes on the wire.
    kept: Vec<(Message, usize)>,
    /// The last id that is not kept any more.
    forgotten: String,
    ids: Vec<String>,
    completed: bool,
}

impl Model {
    fn publish(&mut self, id: String, data: &str) -> Message {
        let newest = self.newest();
        assert!(number(&id) > number(newest), "{id} comes after {newest}");
        let data = data.replace("\r\n", "\n").replace('\r', "\n");
        // The id's line, a line for each of the data, and the blank one.
        let bytes = 5 + id.len() + data.split('\n').map(|line| 7 + line.len()).sum::<usize>() + 1;
        let room = bytes - id.len() + LONGEST_ID;
        while self.kept.len() >= HISTORY_EVENTS
            || self.kept.iter().map(|(_, bytes)| bytes).sum::<usize>() + room > HISTORY_BYTES
        {
            self.forgotten = self.kept.remove(0).0.last_event_id;
        }
        let message = Message { event_type: "message".to_owned(), data, last_event_id: id.clone() };
        self.kept.push((message.clone(), bytes));
        self.ids.push(id);
        self.completed = false;
        message
    }

    /// What a subscriber gets at once, or `None` for a 204.
    fn subscribe(&self, id: Option<&str>) -> Option<Vec<Expected>> {
        let messages = || self.kept.iter().map(|(message, _)| message.clone());
        let is_kept = |id| messages().any(|message| message.last_event_id == id);
        let newest = self.newest();
        let (gap, after) = match (id, id.and_then(number)) {
            (None, _) => (false, number(newest)),
            (Some("earliest"), _) => (false, None),
            (Some("latest"), _) => (false, number(newest)),
            (Some(id), _) if id == self.forgotten => (false, None),
            (Some(id), named) if is_kept(id) => (false, named),
            // Nothing behind it is forgotten.
            (_, named) if named > number(self.known_from()) && named < number(newest) => (false, named),
            _ => (true, None),
        };
        let oldest = || messages().next().map(|message| message.last_event_id);
        let mut expected: Vec<_> = Some(Expected::Gap(oldest())).filter(|_| gap).into_iter().collect();
        let lacking = messages().filter(|message| number(&message.last_event_id) > after);
        expected.extend(lacking.map(Expected::Event));
        let lacks_something = expected.iter().any(|expected| matches!(expected, Expected::Event(_)));
        if self.completed && !lacks_something {
            return None;
        }
        if self.completed {
            expected.push(Expected::End);
        }
        Some(expected)
    }

    /// What came after this id is known. Before anything is forgotten, it is known from the start of the server on, which the
    /// model does not know.
    fn known_from(&self) -> &str {
        let first = self.ids.first().map_or("", String::as_str);
        if self.forgotten.is_empty() { first } else { &self.forgotten }
    }

    fn newest(&self) -> &str {
        self.ids.last().map_or("", String::as_str)
    }

    fn id_of(&self, asked: &Asked) -> Option<String> {
        let known = |at: u8| self.ids.get(usize::from(at) % self.ids.len().max(1));
        match asked {
            Asked::Nothing => None,
            Asked::Earliest => Some("earliest".to_owned()),
            Asked::Known(at) => known(*at).cloned(),
            Asked::Near(at, by) => {
                let (ms, n) = number(known(*at)?)?;
                let n = i64::from(n) + i64::from(*by);
                let near = if n < 0 { format!("{}-{}", ms - 1, -n) } else { format!("{ms}-{n}") };
                Some(near).filter(|near| number(near) >= number(self.known_from()))
            }
            Asked::Malformed(text) => Some(text.chars().take(100).collect::<String>()).filter(|text| !text.is_empty()),
        }
    }
}

/// An id as the two numbers it is, if it is one that newswire could have written.
fn number(id: &str) -> Option<(u64, u32)> {
    let (ms, n) = id.split_once('-')?;
    let number = (ms.parse::<u64>().ok()?, n.parse::<u32>().ok()?);
    (format!("{}-{}", number.0, number.1) == id && number.0 < 1 << 44 && number.1 < 1 << 20).then_some(number)
}

struct Stream {
    socket: TcpStream,
    asked_for_all: bool,
    /// What has arrived behind the opening.
    rest: Vec<u8>,
}

/// Subscribes, and reads the head and the opening: nothing that is published from then on may be
/// missing. `None` stands for a 204.
fn ask(address: SocketAddr, name: &str, id: Option<&str>) -> Option<Stream> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let query = id.map_or(String::new(), |id| {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("?last_event_id={encoded}")
    });
    write!(socket, "GET /channels/{name}{query} HTTP/1.0\r\n\r\n").unwrap();
    let mut wire = Vec::new();
    let head = read_through(b"\r\n\r\n", &mut socket, &mut wire);
    if head.starts_with(b"HTTP/1.1 204 ") {
        return None;
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&head));
    let comment = read_through(b"\n", &mut socket, &mut wire);
    let retry = read_through(b"\n", &mut socket, &mut wire);
    assert!(comment.starts_with(b": ") && retry.starts_with(b"retry: "));
    Some(Stream { socket, asked_for_all: id == Some("earliest"), rest: wire })
}

/// Reads up to `end` and returns it, too. What has arrived behind it stays in `wire`.
fn read_through(end: &[u8], socket: &mut TcpStream, wire: &mut Vec<u8>) -> Vec<u8> {
    loop {
        if let Some(at) = wire.windows(end.len()).position(|bytes| bytes == end) {
            let rest = wire.split_off(at + end.len());
            return std::mem::replace(wire, rest);
        }
        let mut bytes = [0; 2048];
        let count = loop {
            match socket.read(&mut bytes) {
                // The timer of libFuzzer.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.unwrap(),
            }
        };
        assert!(count > 0, "it ends within its opening");
        wire.extend_from_slice(&bytes[..count]);
    }
}

/// Reads to the end, and compares. The history is so short that it may move on before a stream has
/// started: then a gap says so, unless the client asked for everything that is kept. If it moves on
/// later, the stream ends early, without `end`. A subscriber that is still catching up while the
/// channel is completed, published on and completed again gets the last of these ends.
fn check(mut stream: Stream, expected: &[Expected]) {
    stream.socket.read_to_end(&mut stream.rest).unwrap();
    let (mut gaps, mut seen, mut ends) = (Vec::new(), Vec::new(), 0);
    for message in Parser::new().feed(&stream.rest).unwrap() {
        assert_eq!(ends, 0, "{message:?} came after the end");
        match message.event_type.as_str() {
            "gap" => {
                assert!(gaps.is_empty() && seen.is_empty(), "a gap comes first");
                let oldest = message.data.rsplit_once("\"oldest\":").unwrap().1;
                let oldest = oldest.trim_end_matches('}').trim_matches('"');
                gaps.push(number(oldest));
            }
            "end" => ends += 1,
            _ => seen.push(message),
        }
    }

    let mut expected = expected.to_vec();
    let is_before = |expected: &Expected, id| match expected {
        Expected::Event(message) => number(&message.last_event_id) < id,
        _ => false,
    };
    let oldest = match (expected.first(), gaps.first()) {
        (Some(Expected::Gap(then)), Some(&now)) => {
            assert!(now >= number(then.as_deref().unwrap_or_default()));
            expected.remove(0);
            now
        }
        (Some(Expected::Gap(_)), None) => panic!("no gap is reported: {seen:?}"),
        (_, Some(&now)) => {
            assert!(
                expected.iter().any(|expected| is_before(expected, now)),
                "a gap that is none: {now:?}, {expected:?}"
            );
            now
        }
        (_, None) if stream.asked_for_all => seen.first().and_then(|first| number(&first.last_event_id)),
        (_, None) => None,
    };
    expected.retain(|expected| !is_before(expected, oldest));

    let is_end = |expected: &Expected| *expected == Expected::End;
    let events = expected.iter().filter(|expected| !is_end(expected));
    let is_beginning = events.zip(&seen).all(|(expected, seen)| *expected == Expected::Event(seen.clone()));
    // The end stands behind as many events as it was expected behind.
    let mut before = 0;
    let is_told_there = expected.iter().any(|expected| {
        before += usize::from(!is_end(expected));
        is_end(expected) && before == seen.len()
    });
    assert!(
        is_beginning && seen.len() <= before && (ends == 0 || is_told_there),
        "{seen:?} and {ends} ends, of {expected:?}"
    );
}
