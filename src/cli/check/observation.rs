//! What `newswire check` asks a server, and what it sees: responses, and streams with the time of each read.

use newswire::http::client::{CloseHandle, Request, Response};
use newswire::http::{Method, Status, Version};
use newswire::sse::{Blocks, Parser, field, lines};
use std::ops::Range;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

/// A stream is not watched any further than that, however fast it is.
const WATCHED_BYTES: usize = 1024 * 1024;
/// So many of the last events are asked for again.
const RESUMED_EVENTS: usize = 3;
/// Reads with a shorter pause between them are one burst.
const PAUSE: Duration = Duration::from_millis(50);
/// In a domain for examples, which no server has a reason to know.
pub(super) const ORIGIN: &str = "https://newswire.example";
pub(super) const BOM: &[u8] = "\u{feff}".as_bytes();

/// All that was seen of a server.
pub(super) struct Seen {
    /// How long the stream was watched.
    pub(super) time: Duration,
    /// The silence after which a proxy cuts a connection.
    pub(super) limit: Duration,
    pub(super) origin: String,
    /// As EventSource asks.
    pub(super) first: Exchange,
    pub(super) cors: Exchange,
    pub(super) http10: Exchange,
    pub(super) head: Exchange,
    pub(super) gzip: Exchange,
    /// With the id of an event that was seen.
    pub(super) resumed: Option<(String, Exchange)>,
    /// As EventSource comes back after a clean end.
    pub(super) again: Option<Exchange>,
}

/// A request, and what came of it. The times count from the request.
pub(super) struct Exchange {
    /// A sentence if there is none.
    pub(super) response: Result<Response, String>,
    /// The end of the head.
    pub(super) head_at: Duration,
    /// What was watched of the content.
    pub(super) raw: Vec<u8>,
    /// When each read ended, and where in `raw`.
    pub(super) reads: Vec<(Duration, usize)>,
    pub(super) events: Vec<Event>,
    /// The blocks that dispatch nothing.
    pub(super) empty_blocks: Vec<String>,
    /// How many bytes at the end of `raw` no blank line has followed.
    pub(super) pending: usize,
    /// `None` if it was closed from here; else whether the end was clean, or a sentence.
    pub(super) end: Option<Result<(), String>>,
    pub(super) ended_at: Duration,
}

/// An event as EventSource dispatches it.
pub(super) struct Event {
    pub(super) at: Duration,
    /// Its own, unless that is empty.
    pub(super) id: Option<String>,
    pub(super) kind: String,
    pub(super) data: String,
}

impl Seen {
    pub(super) fn gather(request: &Request, time: Duration, limit: Duration) -> Seen {
        let named = request.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("origin"));
        let origin = named.map_or(ORIGIN.to_owned(), |(_, origin)| origin.clone());
        let with = |name, value: &str| request.clone().field(name, value);
        let requests = [
            (request.clone(), usize::MAX),
            (with("Origin", &origin), 0),
            (Request { version: Version::Http10, ..request.clone() }, 0),
            (Request { method: Method::Head, ..request.clone() }, 0),
            (with("Accept-Encoding", "gzip"), usize::MAX),
        ];
        let [first, cors, http10, head, gzip] = requests
            .map(|(request, ids)| thread::spawn(move || Exchange::run(request, ids, time)))
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        let ids: Vec<&String> = first.events.iter().filter_map(|event| event.id.as_ref()).collect();
        let resumed = ids.len().checked_sub(1).map(|last| {
            let events = RESUMED_EVENTS.min(last);
            // Where no event must come again, it is enough to see that none does.
            let within = if events == 0 { time.min(PAUSE * 10) } else { time };
            let id = ids[last - events];
            (id.clone(), Exchange::run(with("Last-Event-ID", id), events.max(1), within))
        });
        let last = ids.last().map_or(request.clone(), |id| with("Last-Event-ID", id));
        let again = (first.end == Some(Ok(()))).then(|| Exchange::run(last, 1, time));
        Seen { time, limit, origin, first, cors, http10, head, gzip, resumed, again }
    }
}

impl Exchange {
    /// Closes it after this time, or after so many events with an id.
    fn run(request: Request, ids: usize, time: Duration) -> Exchange {
        let (begun, handle) = (Instant::now(), CloseHandle::default());
        let closing = handle.clone();
        thread::spawn(move || {
            closing.wait(time);
            closing.close();
        });
        let request = Request { connect_deadline: time, ..request };
        let response = request.send(&handle).map_err(|error| match handle.is_closed() {
            true => format!("no response came within {time:?}"),
            false => error.to_string(),
        });
        let mut seen = Exchange {
            response,
            head_at: begun.elapsed(),
            raw: Vec::new(),
            reads: Vec::new(),
            events: Vec::new(),
            empty_blocks: Vec::new(),
            pending: 0,
            end: None,
            ended_at: Duration::ZERO,
        };
        let mut blocks = Blocks::new();
        while !seen.is_enough(ids)
            && let Ok(response) = &mut seen.response
        {
            match response.read(&mut seen.raw) {
                Ok(true) => seen.take(begun.elapsed(), &mut blocks),
                _ if handle.is_closed() => break,
                Ok(false) => seen.end = Some(Ok(())),
                Err(error) => seen.end = Some(Err(error.to_string())),
            }
        }
        // Closes the connection, and ends the thread that waits.
        handle.close();
        seen.pending = blocks.end().bytes.len();
        seen.ended_at = begun.elapsed();
        seen
    }

    fn is_enough(&self, ids: usize) -> bool {
        let with_id = self.events.iter().filter(|event| event.id.is_some()).count();
        self.end.is_some() || self.raw.len() >= WATCHED_BYTES || with_id >= ids
    }

    /// Takes what the last read has appended.
    fn take(&mut self, at: Duration, blocks: &mut Blocks) {
        let start = self.reads.last().map_or(0, |&(_, end)| end);
        self.reads.push((at, self.raw.len()));
        for block in blocks.feed(&self.raw[start..]).unwrap_or_default() {
            let is_ended = lines(&block.bytes).last().is_some_and(|(line, _)| line.is_empty());
            match event(at, &block.bytes) {
                Some(event) => self.events.push(event),
                // A delay of zero marks the LF of a CRLF that was split between two reads.
                None if is_ended && block.delay.is_none() => {
                    let text = String::from_utf8_lossy(&block.bytes);
                    self.empty_blocks.push(text.trim_end_matches(['\r', '\n']).to_owned());
                }
                None => {}
            }
        }
    }

    /// When the byte before this end arrived.
    pub(super) fn arrival(&self, end: usize) -> Duration {
        let read = self.reads.partition_point(|&(_, read)| read < end);
        self.reads.get(read).map_or(self.ended_at, |&(at, _)| at)
    }

    /// Bytes that arrived without a pause: from when to when, and where in `raw`.
    pub(super) fn bursts(&self) -> Vec<(Range<Duration>, Range<usize>)> {
        let (mut bursts, mut start) = (Vec::<(Range<Duration>, Range<usize>)>::new(), 0);
        for &(at, end) in &self.reads {
            match bursts.last_mut() {
                Some((time, bytes)) if at < time.end + PAUSE => (time.end, bytes.end) = (at, end),
                _ => bursts.push((at..at, start..end)),
            }
            start = end;
        }
        bursts
    }

    /// The values of a field of the stream.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = String> {
        self.fields().filter(move |(found, _)| found == name).map(|(_, value)| value)
    }

    /// The fields and, with an empty name, the comments.
    pub(super) fn fields(&self) -> impl Iterator<Item = (String, String)> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let fields = lines(self.raw.strip_prefix(BOM).unwrap_or(&self.raw)).filter(|(line, _)| !line.is_empty());
        fields.map(move |(line, _)| field(line)).map(move |(name, value)| (text(name), text(value)))
    }

    /// The first field of the head with this name.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.response.as_ref().ok()?.field(name)
    }

    /// The members of a list, in lower case.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let members = self.response.iter().flat_map(|response| response.list(name));
        members.map(str::to_ascii_lowercase).collect()
    }

    /// Whether a list has this member, with or without a value.
    pub(super) fn has(&self, name: &str, member: &str) -> bool {
        self.list(name).iter().any(|found| found.split('=').next() == Some(member))
    }

    pub(super) fn has_media_type(&self) -> bool {
        let media_type = self.response.as_ref().ok().and_then(Response::media_type);
        media_type.is_some_and(|found| found.eq_ignore_ascii_case("text/event-stream"))
    }

    /// Whether EventSource would take it for a stream, or would but for its media type.
    pub(super) fn is_stream(&self) -> bool {
        let is_ok = self.response.as_ref().is_ok_and(|response| response.status == Status::OK);
        is_ok && (self.has_media_type() || !self.events.is_empty())
    }
}

/// What EventSource dispatches for a block, if it does.
fn event(at: Duration, block: &[u8]) -> Option<Event> {
    // A byte order mark is dropped at the start of a stream only, so that the block must not be at the start.
    let message = Parser::new().feed(&[b":\n", block].concat()).ok()?.pop()?;
    let id = Some(message.last_event_id).filter(|id| !id.is_empty());
    Some(Event { at, id, kind: message.event_type, data: message.data })
}
