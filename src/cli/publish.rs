//! `newswire publish`: one event, or as many as a file or standard input has.

use super::output::for_stdout;
use super::serve::read_token;
use super::{Arguments, Failure, read_piece, say, tell};
use newswire::Event;
use newswire::http::client::{CloseHandle, NetworkError, Request, Response};
use newswire::http::{Method, Status};
use newswire::sse::{Block, Parser, Recording};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Read};
use std::iter;
use std::mem::replace;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

const HELP: &str = "\
newswire publish: publish on a channel, and print the answer of the server

USAGE
    newswire publish [OPTIONS] URL [DATA]
    newswire publish [OPTIONS] --lines|--events URL [FILE]

Without DATA or FILE it reads standard input. DATA is one event, and is published once even
if it has to be sent again.

OPTIONS
    --event TYPE               publish events of this type
    --lines                    publish each line as an event, as it comes
    --events                   publish the events of an event stream, as they come
    --timed                    publish the events of a recording in its rhythm
    --token-file FILE          send the token in this file
    --header 'Name: value'     send this field; repeatable
";

/// How often a request is sent again, and the wait before that, which doubles each time.
const RETRIES: u32 = 5;
const BACK_OFF: Duration = Duration::from_millis(250);
/// The longest wait that a `Retry-After` is granted.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long a server may take for its answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// More of an answer is not read.
const ANSWER_BYTES: usize = 64 * 1024;

/// Publishes, and prints the answer of the server.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else { return Ok(()) };
    let request = options.request()?;
    let (response, text) = match options.is_lines || options.is_events {
        true => send_streamed(request, options)?,
        false => send_whole(request, options.operand)?,
    };
    let status = response.status.0;
    Err(Failure::later(match (status, response.field("location")) {
        (200..300, _) => {
            say(&for_stdout(&text));
            return Ok(());
        }
        // A redirect may turn a POST into a GET, which publishes nothing.
        (300..400, Some(url)) => {
            format!("the server answered with the status {status}; publish to {url} instead")
        }
        _ => format!("the server answered with the status {status}: {}", text.trim()),
    }))
}

fn answer(mut response: Response) -> Result<(Response, String), NetworkError> {
    let mut content = Vec::new();
    while content.len() < ANSWER_BYTES && response.read(&mut content)? {}
    Ok((response, String::from_utf8_lossy(&content).into_owned()))
}

/// Each request has the same key, so that a server that knows `Idempotency-Key` publishes once even if only its answer was
/// lost.
fn send_whole(mut request: Request, data: Option<String>) -> Result<(Response, String), Failure> {
    request.content = data.map_or_else(read_stdin, |data| Ok(data.into_bytes()))?;
    let key = format!("\"{:016x}{:016x}\"", random(), random());
    let request = request.field("Idempotency-Key", key);
    let mut back_offs = (0..RETRIES).map(|attempt| BACK_OFF * 2u32.pow(attempt));
    loop {
        use NetworkError::*;
        let (sentence, least) = match request.send_once(&CloseHandle::default()).and_then(answer) {
            Ok((response, _)) if response.status == Status::SERVICE_UNAVAILABLE => {
                // A date instead of seconds is not read: the back-off is enough for a busy server.
                let seconds = response.field("retry-after").and_then(|value| value.parse().ok());
                let sentence = "the server answered with the status 503".to_owned();
                (sentence, Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST_WAIT))
            }
            Err(error @ (NameNotFound(..) | NotConnected(..) | Broken(_))) => {
                (error.to_string(), Duration::ZERO)
            }
            outcome => return Ok(outcome?),
        };
        let Some(back_off) = back_offs.next() else {
            let attempts = RETRIES + 1;
            let sentence = format!("{sentence}; that was the last of {attempts} attempts");
            return Err(Failure::later(sentence));
        };
        let wait = back_off.mul_f64(1.0 + random() as f64 / u64::MAX as f64).max(least);
        tell(&format!("{sentence}; it is sent again in {:.1} s", wait.as_secs_f32()));
        thread::sleep(wait);
    }
}

/// Unpredictable: the standard library seeds its hash maps from the system's random numbers.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Without the line end that `echo` adds.
fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut data);
    read.map_err(|error| Failure::later(format!("cannot read standard input: {error}")))?;
    data.pop_if(|byte| *byte == b'\n');
    Ok(data)
}

/// Sends what comes as it comes. It is not sent again: a part of it is published already.
fn send_streamed(request: Request, options: Options) -> Result<(Response, String), Failure> {
    let mut input: Box<dyn Read + Send> = match options.operand.as_deref() {
        None | Some("-") => Box::new(io::stdin()),
        Some(path) => {
            let failed = |error| Failure::usage(format!("cannot read {path:?}: {error}"));
            Box::new(File::open(path).map_err(failed)?)
        }
    };
    let new = if options.is_timed { Recording::new } else { Recording::live };
    let pieces: Box<dyn Iterator<Item = io::Result<Vec<u8>>> + Send> = match options.is_events {
        true => Box::new(without_reserved(new(BufReader::new(input)))),
        false => Box::new(iter::from_fn(move || read_piece(&mut input).transpose())),
    };
    let (failed, failure) = channel();
    let pieces = pieces.map(move |piece| piece.inspect_err(|e| drop(failed.send(e.to_string()))));
    let answer = request.send_streamed(&CloseHandle::default(), pieces).and_then(answer);
    match failure.try_recv() {
        Ok(sentence) => Err(Failure::later(format!("cannot read what to publish: {sentence}"))),
        Err(_) => Ok(answer?),
    }
}

fn is_reserved(event_type: &str) -> bool {
    Event::default().name(event_type).is_ok_and(|event| event.is_reserved())
}

/// Leaves out what a server says of its own channel: a server takes no event of these types from a publisher.
fn without_reserved(
    blocks: impl Iterator<Item = io::Result<Block>>,
) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    let (mut parser, mut is_told) = (Parser::new(), false);
    blocks.map(move |block| {
        let block = block?;
        thread::sleep(block.delay.unwrap_or_default());
        let wire = block.wire();
        let messages = parser.feed(&wire).unwrap_or_default();
        let Some(reserved) = messages.iter().find(|message| is_reserved(&message.event_type))
        else {
            return Ok(wire);
        };
        if !replace(&mut is_told, true) {
            let event_type = &reserved.event_type;
            tell(&format!(
                "events of types that servers reserve are left out, as this one: {event_type}"
            ));
        }
        Ok(Vec::new())
    })
}

#[derive(Default)]
struct Options {
    event: Option<String>,
    is_lines: bool,
    is_events: bool,
    is_timed: bool,
    fields: Vec<(String, String)>,
    url: String,
    /// The data, or the path of a file.
    operand: Option<String>,
}

impl Options {
    /// `None` when the help was asked for and written.
    fn parse(mut arguments: Arguments) -> Result<Option<Options>, Failure> {
        let (mut options, mut operands) = (Options::default(), Vec::new());
        while let Some(option) = arguments.next()? {
            let name = option.as_str();
            match name {
                "--event" => options.event = Some(arguments.value(name, "an event type")?),
                "--lines" => options.is_lines = true,
                "--events" => options.is_events = true,
                "--timed" => options.is_timed = true,
                "--token-file" => {
                    let token = read_token(name, arguments.raw_value(name)?)?;
                    options.fields.push(("Authorization".into(), format!("Bearer {token}")));
                }
                "--header" => options.fields.push(arguments.field(name)?),
                "--help" | "-h" => {
                    arguments.check_switch(name)?;
                    say(HELP);
                    return Ok(None);
                }
                _ => arguments.operand(name, &mut operands, 2)?,
            }
            arguments.check_switch(name)?;
        }
        let mut operands = operands.into_iter();
        let url = operands.next();
        let mistakes = [
            (url.is_none(), "say where to publish: a URL; see newswire publish --help"),
            (
                options.is_lines && options.is_events,
                "--lines and --events exclude each other; leave one out",
            ),
            (options.is_timed && !options.is_events, "--timed needs --events"),
            (
                options.is_events && options.event.is_some(),
                "--events keeps the types; leave --event out",
            ),
        ];
        if let Some((_, mistake)) = mistakes.into_iter().find(|(is_made, _)| *is_made) {
            return Err(Failure::usage(mistake));
        }
        options.url = url.unwrap_or_default();
        options.operand = operands.next();
        Ok(Some(options))
    }

    fn request(&self) -> Result<Request, Failure> {
        let media_type =
            if self.is_events { "text/event-stream" } else { "text/plain; charset=utf-8" };
        let mut fields = vec![("Content-Type".to_owned(), media_type.to_owned())];
        fields.extend_from_slice(&self.fields);
        let mut request = super::request(&self.url, fields)?;
        request.method = Method::Post;
        request.idle_deadline = Some(ANSWER_DEADLINE);
        let lines = self.is_lines.then_some(("lines", "on"));
        for (name, value) in self.event.iter().map(|event| ("event", &**event)).chain(lines) {
            request.url = request.url.parameter(name, value);
        }
        Ok(request)
    }
}
