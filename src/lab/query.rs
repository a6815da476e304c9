//! The parameters of `/lab`: one table, from which the parser and the refusals read.

use super::flow::Flow;
use super::line::{Lines, NAME, TOO_MANY_LINES, is_name, on_line};
use super::sandboxed;
use super::script::Script;
use crate::http::grammar::encode;
use crate::http::{Head, Refusal, Request, Response, Status};
use crate::sse::last_event_id;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// No stream is longer than these two.
const TOTAL_BYTES: usize = 64 * 1024 * 1024;
pub(super) const TOTAL_DURATION: Duration = Duration::from_secs(3600);

/// What a stream says that no parameter gives another text: the demonstration's words.
const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

/// Each parameter with its streams, its default and its values. `www/lab.txt` explains them.
static PARAMETERS: [(Streams, &str, &str, Values); 29] = [
    // What is said.
    (Made, "text", TEXT, Text("at least one word", |text| !text.trim().is_empty())),
    (Made, "split", "word", Choice(&["word", "char"])),
    (Made, "data", "", Text("any text", |_| true)),
    (Made, "count", "", Number("a number of events", 1..=100_000)),
    (Made, "event", "", Text("an event type without a line end or a NUL", is_event_type)),
    (Made, "id", "on", Choice(&["on", "off"])),
    (Made, "size", "", Number("a number of bytes of data", 0..=4 << 20)),
    (Made, "lines", "1", Number("a number of lines", 1..=1000)),
    (Made, "binary", "", Number("a number of bytes", 0..=3 << 20)),
    (Played, "interval", "1000", Number("milliseconds", 0..=60_000)),
    (Faulty, "jitter", "0", Number("a percentage", 0..=100)),
    (Played, "speed", "1", Text("a number from 0.1 to 100", |text| speed(text).is_some())),
    // How it flows.
    (Faulty, "retry", "2000", Number("milliseconds", 0..=600_000)),
    (Faulty, "heartbeat", "", Number("milliseconds", 10..=60_000)),
    (Faulty, "chunk", "", Number("a number of bytes", 1..=65_536)),
    (Faulty, "newline", "lf", Choice(&["lf", "cr", "crlf"])),
    (Faulty, "bom", "off", Choice(&["on", "off"])),
    (Faulty, "complete", "204", Choice(&["204", "loop"])),
    // What goes wrong.
    (Faulty, "cut", "", Number("a number of events", 1..=99_999)),
    (Faulty, "stall", "", Number("a number of events", 1..=100_000)),
    (Faulty, "silence", "30000", Number("milliseconds", 1..=600_000)),
    (Faulty, "garbage", "off", Choice(&["on", "off"])),
    (Faulty, "status", "200", Number("a status code", 200..=599)),
    (Made, "type", "", Text("a media type, such as text/plain", is_media_type)),
    (Made, "redirect", "", Choice(&["301", "302", "303", "307", "308"])),
    // How it is watched and resumed.
    (Faulty, "line", "", Text(NAME, is_name)),
    (Played, "last_event_id", "", Text("any text", |_| true)),
    (Played, "lastEventId", "", Text("any text", |_| true)),
    (Played, "Last-Event-ID", "", Text("any text", |_| true)),
];

/// Which streams have a parameter. Each kind has those of the kinds before it, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Streams {
    /// Recordings where the laboratory is off.
    Played,
    /// Recordings where it is on.
    Faulty,
    /// Streams made to order. A recording says itself what their own parameters say.
    Made,
}
use Streams::{Faulty, Made, Played};

/// What a parameter can be.
enum Values {
    /// What the number counts, and from where to where.
    Number(&'static str, RangeInclusive<usize>),
    Choice(&'static [&'static str]),
    /// The rule that the text keeps, as a sentence and as code.
    Text(&'static str, fn(&str) -> bool),
}
use Values::{Choice, Number, Text};

impl Values {
    fn contain(&self, value: &str) -> bool {
        match self {
            Number(_, range) => number(value).is_some_and(|number| range.contains(&number)),
            Choice(words) => words.contains(&value),
            Text(_, keeps_rule) => keeps_rule(value),
        }
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number(what, range) => write!(f, "{what} from {} to {}", range.start(), range.end()),
            Choice(words) => f.write_str(&list(words, "or")),
            Text(rule, _) => f.write_str(rule),
        }
    }
}

/// The parameters of a query, each with a value that it can have.
pub(super) struct Given<'h>(&'h Head);

impl Given<'_> {
    /// The parameters of such a stream. The others are unknown.
    ///
    /// # Errors
    /// A sentence that begins with the name of the parameter at fault.
    pub(super) fn parse(head: &Head, streams: Streams) -> Result<Given<'_>, Refusal> {
        let known = || PARAMETERS.iter().filter(|(of, ..)| *of <= streams);
        for (name, value) in head.queries() {
            let Some((.., values)) = known().find(|(_, known, ..)| *known == name) else {
                let known: Vec<&str> = known().map(|(_, name, ..)| *name).collect();
                return Err(unknown(&name, &known));
            };
            if !values.contain(&value) {
                return Err(bad(format!("{name} is {values}.")));
            }
        }
        Ok(Given(head))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.query(name).is_some()
    }

    /// The first value, or the default. `None` without either.
    fn text(&self, name: &str) -> Option<String> {
        let row = PARAMETERS.iter().find(|(_, known, ..)| *known == name);
        let default = row.map(|(_, _, default, _)| *default).filter(|text| !text.is_empty());
        self.0.query(name).or_else(|| default.map(str::to_owned))
    }

    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.text(name).as_deref() == Some(value)
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.text(name).as_deref().and_then(number)
    }

    pub(super) fn milliseconds(&self, name: &str) -> Option<Duration> {
        self.number(name).map(|number| Duration::from_millis(number as u64))
    }

    /// How a stream flows that these parameters order, whatever it says.
    pub(super) fn flow(&self) -> Result<Flow, Refusal> {
        let flow = Flow {
            retry: self.milliseconds("retry"),
            delay: Duration::ZERO,
            jitter: self.number("jitter").unwrap_or_default() as u32,
            speed: self.text("speed").as_deref().and_then(speed).unwrap_or(1.0),
            heartbeat: self.milliseconds("heartbeat"),
            chunk: self.number("chunk").unwrap_or(usize::MAX),
            line_end: self.has("newline").then(|| match self.text("newline").as_deref() {
                Some("cr") => &b"\r"[..],
                Some("crlf") => b"\r\n",
                _ => b"\n",
            }),
            has_bom: self.is("bom", "on"),
            cut: self.number("cut"),
            stall: self.number("stall"),
            silence: self.milliseconds("silence").unwrap_or_default(),
            has_garbage: self.is("garbage", "on"),
        };
        match flow.stall.is_some_and(|stall| flow.cut.is_some_and(|cut| cut <= stall)) {
            true => Err(bad("stall is less than cut, or the connection would be gone by then.")),
            false => Ok(flow),
        }
    }

    fn script(&self) -> Script {
        let data = self.0.queries().filter(|(name, _)| name == "data").map(|(_, value)| with_lf(&value) + "\r");
        let (mut texts, text) = (data.collect::<String>(), self.text("text").unwrap_or_default());
        if self.is("split", "char") {
            with_lf(&text).chars().for_each(|character| texts.extend([character, '\r']));
        } else if texts.is_empty() {
            text.split_whitespace().for_each(|word| texts.extend([word, "\r"]));
        }
        Script {
            count: self.number("count").unwrap_or_else(|| texts.matches('\r').count()),
            texts,
            event: self.text("event"),
            has_ids: self.is("id", "on"),
            size: self.number("size"),
            lines: self.number("lines").unwrap_or(1),
            binary: self.number("binary"),
            interval: self.milliseconds("interval").unwrap_or_default(),
        }
    }

    /// The status that is the answer in place of the stream: to every client, or with a cut to one that `returns`.
    pub(super) fn status(&self, returns: bool) -> Option<Response> {
        let code = self.number("status").filter(|&code| code != 200)?;
        let is_due = returns || !self.has("cut");
        is_due.then(|| Refusal::new(Status(code as u16), "This status was made to order.").into())
    }

    /// The stream on its line, if it has one. Where the laboratory is off there are no lines.
    pub(super) fn on_line(&self, response: Response, lines: Option<&Lines>) -> Response {
        match self.text("line").zip(lines).map(|(name, lines)| lines.open(&name)) {
            None => response,
            Some(None) => TOO_MANY_LINES.into(),
            Some(Some(line)) => on_line(response, line),
        }
    }
}

/// The answer to `GET /lab`.
pub(crate) fn respond(request: &Request<'_>, lines: &Lines) -> Response {
    let is_bare = request.queries().next().is_none();
    // A browser that follows a link is sent to the page. EventSource and curl do not accept text/html.
    let response = match is_bare && request.lists("accept", "text/html") {
        true => without_content(Status::FOUND).field("Location", "./#lab"),
        false => play(request, lines).into(),
    };
    sandboxed(if is_bare { response.field("Vary", "Accept") } else { response })
}

pub(super) fn without_content(status: Status) -> Response {
    Response::empty(status).field("Cache-Control", "no-store").field("X-Content-Type-Options", "nosniff")
}

fn play(request: &Request<'_>, lines: &Lines) -> Result<Response, Refusal> {
    let given = Given::parse(request, Made)?;
    let (script, flow) = (given.script(), given.flow()?);
    check(&given, &script, &flow)?;
    if let Some(code) = given.number("redirect") {
        let location = format!("lab?{}", query_without(request, "redirect"));
        return Ok(without_content(Status(code as u16)).field("Location", location));
    }
    let id = last_event_id(request);
    if let Some(response) = given.status(id.is_some()) {
        return Ok(response);
    }
    let heard = id.as_deref().and_then(number).filter(|_| script.has_ids);
    let first = match heard {
        Some(heard) if heard < script.count => heard + 1,
        // Any status but 200 tells an EventSource not to come back.
        Some(heard) if heard == script.count && given.is("complete", "204") => {
            return Ok(without_content(Status::NO_CONTENT));
        }
        // An id that the stream does not have is no id.
        _ => 1,
    };
    let response = given.on_line(flow.stream(script, first, id.is_some()), Some(lines));
    Ok(match given.text("type") {
        Some(content_type) => response.without("Content-Type").field("Content-Type", content_type),
        None => response,
    })
}

/// Combinations that cannot be, and the bounds on the whole.
#[rustfmt::skip]
fn check(given: &Given<'_>, script: &Script, flow: &Flow) -> Result<(), Refusal> {
    let (bytes, has_binary, has_data) = (script.total_bytes(), script.binary.is_some(), given.has("data"));
    let has_any = |names: &[&str]| names.iter().any(|name| given.has(name));
    let pauses = script.interval * u32::try_from(script.count).unwrap_or(u32::MAX);
    let rules = [
        (has_data && (script.lines > 1 || has_any(&["text", "size", "binary"])),
            "data is sent as it is; leave out text, size, lines and binary."),
        (given.is("split", "char") && (has_data || has_any(&["size", "binary"])),
            "split=char is for text; leave out data, size and binary."),
        (has_binary && script.size.is_some(), "binary and size both say how large the data is; take one."),
        (has_binary && script.lines > 1, "binary is one line; leave out lines."),
        (script.size.is_some_and(|size| size < script.lines - 1), "size is too small for so many lines: each line end counts as a byte."),
        (flow.cut.is_some_and(|cut| cut >= script.count), "cut is less than count, or nothing would be left to cut."),
        (flow.cut.is_some() && !script.has_ids, "cut needs id=on, or the stream could not go on where it stopped."),
        (flow.stall.is_some_and(|stall| stall > script.count), "stall is at most count."),
        (bytes > TOTAL_BYTES, "count times the size of an event is at most 67108864 bytes."),
        (flow.duration(pauses, bytes) > TOTAL_DURATION, "count times interval, with the jitter, the speed, the silence and a \
            millisecond for each chunk, is at most an hour."),
    ];
    rules.into_iter().find(|(is_broken, _)| *is_broken).map_or(Ok(()), |(_, sentence)| Err(bad(sentence)))
}

pub(super) fn bad(sentence: impl Into<String>) -> Refusal {
    Refusal::with_sentence(Status::BAD_REQUEST, sentence.into())
}

/// `number = 1*DIGIT`
pub(super) fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `speed = 1*DIGIT [ "." 1*DIGIT ]`, from 0.1 to 100
fn speed(text: &str) -> Option<f64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = [whole, part].iter().all(|digits| number(digits).is_some());
    text.parse().ok().filter(|speed| is_number && (0.1..=100.0).contains(speed))
}

/// `end-of-line = ( cr lf / cr / lf )`: each of them begins another line of data.
fn with_lf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn is_event_type(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

fn is_media_type(text: &str) -> bool {
    text.contains('/') && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

/// The reply repeats the name only if it is a plain word.
fn unknown(name: &str, known: &[&str]) -> Refusal {
    let is_plain =
        (1..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let culprit = if is_plain { name } else { "A parameter" };
    bad(format!("{culprit} is unknown. The parameters are {}.", list(known, "and")))
}

/// `a, b and c`
fn list(words: &[&str], conjunction: &str) -> String {
    match words {
        [all @ .., last] if !all.is_empty() => format!("{} {conjunction} {last}", all.join(", ")),
        _ => words.concat(),
    }
}

/// The query without one parameter. It is encoded again: nothing in it can end the field that it goes to.
fn query_without(head: &Head, left_out: &str) -> String {
    let kept = head.queries().filter(|(name, _)| name != left_out);
    let pairs = kept.map(|(name, value)| format!("{}={}", encode(&name), encode(&value)));
    pairs.collect::<Vec<_>>().join("&")
}
