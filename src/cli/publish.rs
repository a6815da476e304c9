//! `newswire publish`: one event, or as many as a file or standard input has.

use super::serve::read_token;
use super::{Arguments, Failure, say, tell};
use newswire::http::client::{CloseHandle, NetworkError, Request, Response};
use newswire::http::{Method, Status};
use newswire::sse::{Block, Recording};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::iter;
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
    let answer = match options.is_lines || options.is_events {
        true => send_streamed(request, options)?,
        false => send_whole(request, options.operand.map(String::into_bytes))?,
    };
    if !(200..300).contains(&answer.status.0) {
        let status = answer.status.0;
        let sentence =
            format!("the server answered with the status {status}: {}", answer.text.trim());
        return Err(Failure::later(sentence));
    }
    say(&answer.text);
    Ok(())
}

struct Answer {
    status: Status,
    retry_after: Option<Duration>,
    text: String,
}

impl Answer {
    fn read(mut response: Response) -> Result<Answer, NetworkError> {
        let mut content = Vec::new();
        while content.len() < ANSWER_BYTES && response.read(&mut content)? {}
        // A date instead of seconds is not read: the back-off is enough for a busy server.
        let retry_after = response.field("retry-after").and_then(|value| value.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let text = String::from_utf8_lossy(&content).into_owned();
        Ok(Answer { status: response.status, retry_after, text })
    }
}

/// Each request has the same key, so that a server that knows `Idempotency-Key` publishes once even if only its answer was
/// lost.
fn send_whole(mut request: Request, data: Option<Vec<u8>>) -> Result<Answer, Failure> {
    request.content = data.map_or_else(read_stdin, Ok)?;
    request.idle_deadline = Some(ANSWER_DEADLINE);
    let request =
        request.field("Idempotency-Key", format!("\"{:016x}{:016x}\"", random(), random()));
    let mut attempt = 0;
    loop {
        let answer = request.clone().send(&CloseHandle::default()).and_then(Answer::read);
        let (sentence, retry_after) = match answer {
            Ok(answer) if answer.status == Status::SERVICE_UNAVAILABLE => {
                ("the server answered with the status 503".to_owned(), answer.retry_after)
            }
            Ok(answer) => return Ok(answer),
            Err(error) if is_passing(&error) => (error.to_string(), None),
            Err(error) => return Err(Failure::later(error.to_string())),
        };
        if attempt == RETRIES {
            return Err(Failure::later(format!(
                "{sentence}; that was the last of {} attempts",
                RETRIES + 1
            )));
        }
        let back_off = BACK_OFF * 2u32.pow(attempt);
        let back_off = back_off.mul_f64(1.0 + random() as f64 / u64::MAX as f64);
        let wait = back_off.max(retry_after.unwrap_or_default().min(LONGEST_WAIT));
        tell(&format!("{sentence}; it is sent again in {:.1} s", wait.as_secs_f32()));
        thread::sleep(wait);
        attempt += 1;
    }
}

fn is_passing(error: &NetworkError) -> bool {
    use NetworkError::*;
    matches!(error, NameNotFound(..) | NotConnected(..) | Broken(_))
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
fn send_streamed(request: Request, options: Options) -> Result<Answer, Failure> {
    let input: Box<dyn Read + Send> = match options.operand.as_deref() {
        None | Some("-") => Box::new(io::stdin()),
        Some(path) => {
            let file = File::open(path);
            Box::new(
                file.map_err(|error| Failure::usage(format!("cannot read {path:?}: {error}")))?,
            )
        }
    };
    let mut pieces: Box<dyn Iterator<Item = io::Result<Block>> + Send> = match options.is_timed {
        true => Box::new(Recording::new(BufReader::new(input))),
        false => Box::new(pieces(input)),
    };
    let (failed, failure) = channel();
    let write = move |out: &mut dyn Write| {
        pieces.try_for_each(|piece| {
            let piece = piece.inspect_err(|error| drop(failed.send(error.to_string())))?;
            thread::sleep(piece.delay.unwrap_or_default());
            out.write_all(if piece.has_mark { b"\xef\xbb\xbf" } else { b"" })?;
            out.write_all(&piece.bytes)
        })
    };
    let answer = request.send_streamed(&CloseHandle::default(), write).and_then(Answer::read);
    match failure.try_recv() {
        Ok(sentence) => Err(Failure::later(format!("cannot read what to publish: {sentence}"))),
        Err(_) => answer.map_err(|error| Failure::later(error.to_string())),
    }
}

/// What has arrived of the input, as it arrives.
fn pieces(mut input: impl Read) -> impl Iterator<Item = io::Result<Block>> {
    let mut piece = vec![0; 64 * 1024];
    iter::from_fn(move || {
        loop {
            match input.read(&mut piece) {
                Ok(0) => return None,
                Ok(length) => {
                    return Some(Ok(Block { bytes: piece[..length].to_vec(), ..Block::default() }));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error)),
            }
        }
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
        let sentence = match &options {
            _ if url.is_none() => "say where to publish: a URL; see newswire publish --help",
            Options { is_lines: true, is_events: true, .. } => {
                "--lines and --events exclude each other; leave one out"
            }
            Options { is_timed: true, is_events: false, .. } => "--timed needs --events",
            Options { is_events: true, event: Some(_), .. } => {
                "--events keeps the types; leave --event out"
            }
            _ => {
                return Ok(Some(Options {
                    url: url.unwrap_or_default(),
                    operand: operands.next(),
                    ..options
                }));
            }
        };
        Err(Failure::usage(sentence))
    }

    fn request(&self) -> Result<Request, Failure> {
        let mut url = self.url.split('#').next().unwrap_or_default().to_owned();
        let event = self.event.as_ref().map(|event| format!("event={}", percent_encode(event)));
        for parameter in event.into_iter().chain(self.is_lines.then(|| "lines".to_owned())) {
            url = format!("{url}{}{parameter}", if url.contains('?') { '&' } else { '?' });
        }
        let request = Request::new(&url).map_err(|error| Failure::usage(error.to_string()))?;
        let media_type =
            if self.is_events { "text/event-stream" } else { "text/plain; charset=utf-8" };
        let request = Request { method: Method::Post, ..request }.field("Content-Type", media_type);
        Ok(self.fields.iter().fold(request, |request, (name, value)| request.field(name, value)))
    }
}

fn percent_encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match is_plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
