//! `newswire publish`: one event, or as many as a file or standard input has.

use super::{Arguments, Failure, open, print_answer, read_answer, read_piece, tell};
use newswire::Event;
use newswire::http::client::{CloseHandle, NetworkError, Request, Response};
use newswire::http::{Method, Status};
use newswire::sse::{Block, Parser, Recording};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Read};
use std::iter;
use std::mem::replace;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

pub(super) const HELP: &str = "\
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
    --help
";

/// How often a request is sent, and the wait before the second time, which doubles each time.
const ATTEMPTS: u32 = 6;
const BACK_OFF: Duration = Duration::from_millis(250);
/// The longest wait that a `Retry-After` is granted.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long a server may take for its answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Publishes, and prints the answer of the server.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (url, operand) = arguments.operands("say where to publish: a URL")?;
    let [lines, events] = ["--lines", "--events"].map(|name| arguments.has(name));
    arguments.exclude("--lines", "--events")?;
    arguments.need("--timed", "--events")?;
    let event = arguments.text("--event")?;
    if events && event.is_some() {
        return Err(Failure::usage("--events keeps the types; leave --event out"));
    }
    let media_type = if events { "text/event-stream" } else { "text/plain; charset=utf-8" };
    let mut request = super::request(arguments, url, &[("Content-Type", media_type)])?;
    request.method = Method::Post;
    request.idle_deadline = Some(ANSWER_DEADLINE);
    if let Some(event) = event {
        request.url = request.url.parameter("event", &event);
    }
    if lines {
        request.url = request.url.parameter("lines", "on");
    }
    print_answer(match lines || events {
        true => send_streamed(request, pieces(arguments, operand)?)?,
        false => send_whole(request, operand)?,
    })
}

/// Each request has the same key, so that a server that knows `Idempotency-Key` publishes once even if only its answer was
/// lost.
fn send_whole(mut request: Request, data: Option<&str>) -> Result<(Response, String), Failure> {
    request.content = data.map_or_else(read_stdin, |data| Ok(data.into()))?;
    let key = format!("\"{:016x}{:016x}\"", random(), random());
    let request = request.field("Idempotency-Key", key);
    let mut attempts = 0;
    loop {
        use NetworkError::*;
        attempts += 1;
        let (sentence, least) = match request.send_once(&CloseHandle::default()).and_then(read_answer) {
            Ok((response, _)) if response.status == Status::SERVICE_UNAVAILABLE => {
                // A date instead of seconds is not read: the back-off is enough for a busy server.
                let seconds = response.field("retry-after").and_then(|value| value.parse().ok());
                let sentence = "the server answered with the status 503".to_owned();
                (sentence, Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST_WAIT))
            }
            Err(error @ (NameNotFound(..) | NotConnected(..) | Broken(_))) => (error.to_string(), Duration::ZERO),
            outcome => return Ok(outcome?),
        };
        if attempts == ATTEMPTS {
            return Err(Failure::later(format!("{sentence}; that was the last of {ATTEMPTS} attempts")));
        }
        let back_off = BACK_OFF * 2u32.pow(attempts - 1);
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

type Pieces = Box<dyn Iterator<Item = io::Result<Vec<u8>>> + Send>;

/// What a file or standard input has, as it comes.
fn pieces(arguments: &Arguments, path: Option<&str>) -> Result<Pieces, Failure> {
    let mut input = open(path.unwrap_or("-"), "")?;
    let new = if arguments.has("--timed") { Recording::new } else { Recording::live };
    Ok(match arguments.has("--events") {
        true => Box::new(without_reserved(new(BufReader::new(input)))),
        false => Box::new(iter::from_fn(move || read_piece(&mut input).transpose())),
    })
}

/// Sends what comes as it comes. It is not sent again: a part of it is published already.
fn send_streamed(request: Request, pieces: Pieces) -> Result<(Response, String), Failure> {
    let (failed, failure) = channel();
    let pieces = pieces.map(move |piece| piece.inspect_err(|e| drop(failed.send(e.to_string()))));
    let answer = request.send_streamed(&CloseHandle::default(), pieces).and_then(read_answer);
    match failure.try_recv() {
        Ok(sentence) => Err(Failure::later(format!("cannot read what to publish: {sentence}"))),
        Err(_) => Ok(answer?),
    }
}

fn is_reserved(event_type: &str) -> bool {
    Event::default().name(event_type).is_ok_and(|event| event.is_reserved())
}

/// Leaves out what a server says of its own channel: a server takes no event of these types from a publisher.
fn without_reserved(blocks: impl Iterator<Item = io::Result<Block>>) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    let (mut parser, mut is_told) = (Parser::new(), false);
    blocks.map(move |block| {
        let block = block?;
        thread::sleep(block.delay.unwrap_or_default());
        let wire = block.wire();
        let messages = parser.feed(&wire).unwrap_or_default();
        let Some(reserved) = messages.iter().find(|message| is_reserved(&message.event_type)) else {
            return Ok(wire);
        };
        if !replace(&mut is_told, true) {
            let event_type = &reserved.event_type;
            tell(&format!("events of types that servers reserve are left out, as this one: {event_type}"));
        }
        Ok(Vec::new())
    })
}
