//! Recordings that play: files with their timing in comments, under the faults of the laboratory.
//!
//! The file is the operator's, and the parameters are a stranger's: no field of the answer comes from the query.

use super::flow::Source;
use super::line::Lines;
use super::query::{Given, Streams, TOTAL_DURATION, number, without_content};
use super::sandboxed;
use crate::http::{Framing, Named, Refusal, Request, Response, Status};
use crate::sse::{Block, Recording, field, last_event_id, lines, refused_because};
use std::io::{self, BufRead, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The pause before a block without a timing.
const INTERVAL: Duration = Duration::from_millis(50);

/// A frame of the laboratory, of 4 MiB of data, fits in a block.
const BLOCK_BYTES: usize = 5 * 1024 * 1024;

/// So many clients at a time are brought to their last event ID. That reads the file up to there, and a stranger could have it
/// read on every core.
const SKIPS: usize = 2;
static SKIP: LazyLock<Arc<()>> = LazyLock::new(Arc::default);

/// The largest content in place of a stream.
const CONTENT_BYTES: usize = 1024 * 1024;

/// The answer to a request for a recording. Without `lines`, the laboratory is off. A recording may be the stream of a
/// stranger, with directives that the stranger has put in front of it: no answer may run as a page of this server.
pub(crate) fn play_recording(
    request: &mut Request<'_>,
    file: &Named,
    lines: Option<&Lines>,
) -> Result<Response, Refusal> {
    let response = sandboxed(play(request, file, lines)?).without(NOSNIFF);
    Ok(response.field(NOSNIFF, "nosniff"))
}

fn play(request: &mut Request<'_>, file: &Named, lines: Option<&Lines>) -> Result<Response, Refusal> {
    // It is dropped. On a connection with unread content the end would be a reset, which erases what is on its way.
    if request.framing() != Framing::None {
        request.content()?;
    }
    let streams = if lines.is_some() { Streams::Faulty } else { Streams::Played };
    let given = Given::parse(request, streams)?;
    let mut flow = given.flow()?;
    let id = last_event_id(request);
    if let Some(response) = given.status(id.is_some()) {
        return Ok(response);
    }
    let (directives, mut recording) = Played::open(file, &given)?;
    if directives.status != Status::OK {
        return recording.content(directives.status).map(|response| directives.add_fields(response));
    }
    flow.retry = flow.retry.filter(|_| given.has("retry"));
    flow.has_bom |= recording.has_mark;
    // Nothing stands before the first block for an interval to follow.
    if recording.next.as_ref().is_some_and(|block| block.delay.is_some()) {
        flow.delay = recording.pause();
    }
    let mut first = 1;
    if let Some(id) = &id {
        let skip = Arc::clone(&SKIP);
        if Arc::strong_count(&skip) > 1 + SKIPS {
            return Ok(refused_because("too many clients look for their place in a recording"));
        }
        match recording.skip_to(id).map_err(|_| UNPLAYABLE)? {
            Some(number) if recording.next.is_some() => (first, flow.delay) = (number, recording.pause()),
            // Any status but 200 tells an EventSource not to come back.
            Some(_) if given.is("complete", "204") => {
                return Ok(without_content(Status::NO_CONTENT));
            }
            // An id that the recording does not have is no id.
            _ => recording = Played::open(file, &given)?.1,
        }
    }
    let response = directives.add_fields(flow.stream(recording, first, id.is_some()));
    Ok(given.on_line(response, lines))
}

const UNPLAYABLE: Refusal = Refusal::new(
    Status::INTERNAL_SERVER_ERROR,
    "This recording cannot be read. A block of it has at most 5 MiB, and a content in place of the stream 1 MiB.",
);

const MALFORMED: Refusal = Refusal::new(
    Status::INTERNAL_SERVER_ERROR,
    "The first lines of this recording are malformed. A status is a number from 200 to 599. A header is a name, a colon \
     and a value; the server itself writes those of the framing, of the connection, of CORS and of the sandbox, and no cookie.",
);

const NOSNIFF: &str = "X-Content-Type-Options";

/// A recording that a stranger has made must not change what other pages of this origin are and have.
const REFUSED: [&str; 4] = ["set-cookie", "content-security-policy", "x-content-type-options", "clear-site-data"];

/// What the comments in front of the first block order.
///
/// ```text
/// directive = ": status " 3DIGIT end-of-line / ": header " field-line end-of-line
/// ```
struct Directives {
    status: Status,
    fields: Vec<(String, String)>,
}

impl Directives {
    /// Takes them out of the first block. In a file that the recorder wrote, a timing stands in front of it, and what
    /// follows is a comment that a stranger sent.
    fn take(first: &mut Block) -> Result<Directives, Refusal> {
        let mut directives = Directives { status: Status::OK, fields: Vec::new() };
        let (mut kept, mut is_front) = (Vec::new(), first.delay.is_none());
        for (line, end) in lines(&first.bytes) {
            is_front &= line.starts_with(b":");
            let text = if is_front { String::from_utf8_lossy(line) } else { "".into() };
            if let Some(status) = text.strip_prefix(": status ") {
                let status = number(status).filter(|status| (200..600).contains(status));
                directives.status = Status(status.ok_or(MALFORMED)? as u16);
            } else if let Some(field) = text.strip_prefix(": header ") {
                let (name, value) = field.split_once(':').ok_or(MALFORMED)?;
                let lower = name.to_ascii_lowercase();
                if !Response::takes(name) || lower.starts_with("access-control-") || REFUSED.contains(&&*lower) {
                    return Err(MALFORMED);
                }
                directives.fields.push((name.to_owned(), value.trim().to_owned()));
            } else {
                kept.extend([line, end].concat());
            }
        }
        first.bytes = kept;
        Ok(directives)
    }

    /// The response with these fields in place of its own.
    fn add_fields(self, mut response: Response) -> Response {
        for (name, _) in &self.fields {
            response = response.without(name);
        }
        let fields = self.fields.into_iter();
        fields.fold(response, |response, (name, value)| response.field(name, value))
    }
}

/// A recording and the place that has been reached in it. It is read while it is played.
struct Played {
    blocks: Recording<Box<dyn BufRead + Send>>,
    /// What comes next.
    next: Option<Block>,
    has_mark: bool,
    /// The pause before a block without a timing.
    interval: Duration,
}

impl Played {
    fn open(file: &Named, given: &Given<'_>) -> Result<(Directives, Played), Refusal> {
        let blocks = Recording::within(file.open().map_err(|_| UNPLAYABLE)?, BLOCK_BYTES);
        let interval = given.milliseconds("interval").filter(|_| given.has("interval")).unwrap_or(INTERVAL);
        let mut played = Played { blocks, next: None, has_mark: false, interval };
        played.load().map_err(|_| UNPLAYABLE)?;
        let first = played.next.get_or_insert_default();
        let directives = Directives::take(first)?;
        played.has_mark = first.has_mark;
        if first.bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            played.load().map_err(|_| UNPLAYABLE)?;
        }
        Ok((directives, played))
    }

    fn load(&mut self) -> io::Result<()> {
        self.next = self.blocks.next().transpose()?;
        Ok(())
    }

    /// The pause before the next block.
    fn pause(&self) -> Duration {
        let block = self.next.as_ref();
        let pause = block.map_or(Duration::ZERO, |block| block.delay.unwrap_or(self.interval));
        // No pause is longer than a stream of the laboratory.
        pause.min(TOTAL_DURATION)
    }

    /// Goes to the event behind the first block that has this id. Gives its number; `None` without such a block.
    fn skip_to(&mut self, id: &str) -> io::Result<Option<usize>> {
        let (mut number, mut is_found) = (1, false);
        while let Some(block) = &self.next {
            if is_found && is_event(block) {
                break;
            }
            let ids = values(&block.bytes, "id").filter(|id| !id.contains(&0));
            is_found |= ids.last().is_some_and(|found| String::from_utf8_lossy(found) == id);
            number += usize::from(is_event(block));
            self.load()?;
        }
        Ok(is_found.then_some(number))
    }

    /// The data of all that is left, as the content of an answer.
    fn content(&mut self, status: Status) -> Result<Response, Refusal> {
        let mut content = Vec::new();
        while let Some(block) = &self.next {
            values(&block.bytes, "data").for_each(|line| content.extend([line, b"\n"].concat()));
            if content.len() > CONTENT_BYTES {
                return Err(UNPLAYABLE);
            }
            self.load().map_err(|_| UNPLAYABLE)?;
        }
        content.pop();
        let response = Response::bytes(status, "text/plain; charset=utf-8", content);
        Ok(response.field("Cache-Control", "no-store"))
    }
}

impl Source for Played {
    fn has(&mut self, _: usize) -> io::Result<bool> {
        Ok(self.next.is_some())
    }

    fn write(&mut self, _: usize, out: &mut impl Write) -> io::Result<(Duration, bool)> {
        let block = self.next.take().unwrap_or_default();
        out.write_all(&block.bytes)?;
        // The block behind it may be too large to be read.
        out.flush()?;
        self.load()?;
        Ok((self.pause(), is_event(&block)))
    }
}

fn is_event(block: &Block) -> bool {
    values(&block.bytes, "data").next().is_some()
}

/// The values of the fields with this name.
fn values<'b>(block: &'b [u8], name: &str) -> impl Iterator<Item = &'b [u8]> {
    let fields = lines(block).map(|(line, _)| field(line));
    fields.filter(move |(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
}
