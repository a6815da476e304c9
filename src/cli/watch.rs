//! `newswire watch`: the events of a stream, as they arrive.

use super::output::{Output, Printer};
use super::{Arguments, Failure, read_piece, tell};
use newswire::http::client::Request;
use newswire::http::{Method, Status};
use newswire::sse::{Block, Blocks, EventSource, Message, Parser, Recorder, Step};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::{process, thread};

pub(super) const HELP: &str = "\
newswire watch: print the events of a stream as they arrive

USAGE
    newswire watch [OPTIONS] URL|FILE|-

OPTIONS
    --output FORMAT            text, json (an object a line), data, or raw (the bytes)  [text]
    --event TYPE               only events of this type; repeatable
    --count N                  stop after this many events
    --for SECONDS              stop after this time
    --record FILE              write the stream to this file, with its timing in comments
    --once                     do not connect again when the stream ends
    --last-event-id ID         go on behind this event
    --idle SECONDS             connect again after a silence of this length
    --header 'Name: value'     send this field; repeatable
    --token-file FILE          send the token in this file
    --data TEXT                send this content, by POST, as application/json
    --method METHOD            GET, HEAD, POST, PUT, DELETE or OPTIONS
    --help

The exit code is 0 when the stream has ended or an option has ended it, 1 when it failed for
good, and 2 for a mistake on the command line.
";

/// Prints until the stream ends for good, or an option says that it is enough.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let last_event_id = arguments.text("--last-event-id")?.unwrap_or_default();
    let time = arguments.seconds("--for")?;
    let mut source = Source::open(arguments, &last_event_id)?;
    let mut watch = Watch::new(arguments, &last_event_id)?;
    if let Some(time) = time {
        let stop = move || {
            thread::sleep(time);
            // What has arrived is printed and recorded as a whole.
            let _printed = io::stdout().lock();
            process::exit(0)
        };
        thread::Builder::new().name("time".into()).spawn(stop)?;
    }
    while let Some(step) = source.step() {
        let _printing = io::stdout().lock();
        let is_enough = match step {
            Ok(step) => watch.take(step)?,
            Err(sentence) => {
                let comment = source.refusal().unwrap_or_else(|| sentence.clone());
                watch.recorder.comment(&comment).map_err(not_recorded)?;
                return watch.end().and(Err(Failure::later(sentence)));
            }
        };
        if is_enough {
            return Ok(());
        }
    }
    watch.end().map(|_| ())
}

enum Source {
    Url(Box<EventSource>),
    File(Box<dyn Read>),
}

/// The options for a stream of a server.
const FOR_URL: [&str; 7] = ["--last-event-id", "--once", "--idle", "--header", "--token-file", "--data", "--method"];

impl Source {
    fn open(arguments: &Arguments, last_event_id: &str) -> Result<Source, Failure> {
        let (path, _) = arguments.operands("say what to watch: a URL, a file, or - for standard input")?;
        if path.contains("://") {
            return Source::open_url(arguments, path, last_event_id);
        }
        if let Some(name) = arguments.first(|name| FOR_URL.contains(&name)) {
            let sentence = format!("{name} is for a URL, which begins with http://, and not for {path:?}");
            return Err(Failure::usage(sentence));
        }
        Ok(Source::File(super::open(path, "; a URL begins with http://")?))
    }

    fn open_url(arguments: &Arguments, url: &str, last_event_id: &str) -> Result<Source, Failure> {
        use Method::*;
        if last_event_id.contains(['\r', '\n', '\0']) {
            return Err(Failure::usage("--last-event-id takes an id without line ends and NUL"));
        }
        let content = arguments.text("--data")?;
        let typed = content.as_ref().map(|_| ("Content-Type", "application/json"));
        let usual = if content.is_some() { Post } else { Get };
        let methods = [Get, Head, Post, Put, Delete, Options].map(|method| (method.name(), method));
        let request = Request {
            method: arguments.one_of("--method", &methods)?.unwrap_or(usual),
            content: content.clone().unwrap_or_default().into_bytes(),
            idle_deadline: arguments.seconds("--idle")?,
            ..super::request(arguments, url, typed.as_slice())?
        };
        let source = EventSource::new(request).last_event_id(last_event_id);
        let is_once = arguments.has("--once");
        Ok(Source::Url(Box::new(if is_once { source.once() } else { source })))
    }

    /// What happens to the stream, or why it failed for good.
    fn step(&mut self) -> Option<Result<Step, String>> {
        Some(match self {
            Source::File(file) => {
                let piece = read_piece(file).transpose()?.map(Step::Bytes);
                piece.map_err(|error| format!("cannot read the stream: {error}"))
            }
            Source::Url(source) => source.step()?.map_err(|error| error.to_string()),
        })
    }

    /// What a recording says of a server that refuses. At the start, these comments make it a fixture that refuses.
    fn refusal(&self) -> Option<String> {
        let Source::Url(source) = self else { return None };
        let response = source.response().filter(|response| response.status != Status::OK)?;
        let mut comment = format!("status {}", response.status.0);
        for name in ["Retry-After", "Content-Type"] {
            comment += &response.field(name).map_or(String::new(), |value| format!("\nheader {name}: {value}"));
        }
        Some(comment)
    }
}

/// Whether it is enough: so many events were asked for, or the pipe is closed.
type IsEnough = Result<bool, Failure>;

struct Watch {
    /// Of these types only. Empty for all.
    event_types: Vec<String>,
    most: Option<usize>,
    printer: Printer,
    recorder: Recorder<Box<dyn Write>>,
    blocks: Blocks,
    parser: Parser,
    events: usize,
    /// What is printed next, in one write.
    out: Vec<u8>,
    is_begun: bool,
}

impl Watch {
    fn new(arguments: &Arguments, last_event_id: &str) -> Result<Watch, Failure> {
        use Output::*;
        let outputs = [("text", Text), ("json", Json), ("data", Data), ("raw", Raw)];
        let output = arguments.one_of("--output", &outputs)?.unwrap_or_default();
        let event_types = arguments.texts("--event")?;
        let most = arguments.number("--count", 1..=1_000_000_000_000)?;
        // The file is emptied, and so comes last.
        let recording: Box<dyn Write> = match arguments.path("--record") {
            Some(path) => Box::new(
                File::create(&path)
                    .map_err(|error| Failure::usage(format!("--record: cannot write {path:?}: {error}")))?,
            ),
            None => Box::new(io::sink()),
        };
        Ok(Watch {
            event_types,
            most,
            printer: Printer::new(output),
            recorder: Recorder::new(recording),
            blocks: Blocks::new(),
            parser: Parser::new().with_last_event_id(last_event_id),
            events: 0,
            out: Vec::new(),
            is_begun: false,
        })
    }

    fn take(&mut self, step: Step) -> IsEnough {
        match step {
            Step::Open => tell("connected"),
            Step::Bytes(piece) => return Ok(self.take_piece(&piece)? | self.write()?),
            // The block that it stands in has printed it.
            Step::Event(_) => {}
            Step::Reconnecting { after, cause } => {
                let why = cause.map_or("the server ended the stream".into(), |cause| cause.to_string());
                let sentence = format!("{why}; it connects again in {:.1} s", after.as_secs_f32());
                self.recorder.comment(&sentence).map_err(not_recorded)?;
                tell(&sentence);
                self.blocks = Blocks::new();
                self.parser.reconnect();
            }
        }
        Ok(false)
    }

    fn take_piece(&mut self, piece: &[u8]) -> IsEnough {
        let mut blocks = self.blocks.feed(piece)?;
        blocks.extend(self.blocks.release());
        for block in &blocks {
            if self.take_block(block)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take_block(&mut self, block: &Block) -> IsEnough {
        self.recorder.record(block).map_err(not_recorded)?;
        let messages = self.parser.feed(&block.wire())?;
        let message = messages.first().filter(|message| self.is_wanted(message));
        match (self.printer.output, message) {
            (Output::Raw, None) if !self.event_types.is_empty() => {}
            (Output::Raw, _) => {
                // A later byte order mark would be part of a field.
                let is_first = !std::mem::replace(&mut self.is_begun, true);
                self.out.extend(if is_first { block.wire() } else { block.bytes.clone() });
            }
            (_, Some(message)) => self.out.extend(self.printer.print(message).bytes()),
            _ => {}
        }
        self.events += usize::from(message.is_some());
        Ok(self.most == Some(self.events))
    }

    /// Tells of a gap. It is no event for people or a program that reads data alone, if they have not asked for it.
    fn is_wanted(&self, message: &Message) -> bool {
        let is_gap = message.event_type == "gap" && message.data.starts_with("{\"asked\":");
        if is_gap {
            tell(&format!("events are missing: {}", message.data));
        }
        match self.event_types.is_empty() {
            true => !is_gap || matches!(self.printer.output, Output::Json | Output::Raw),
            false => self.event_types.contains(&message.event_type),
        }
    }

    fn write(&mut self) -> IsEnough {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&self.out).and_then(|()| stdout.flush());
        self.out.clear();
        match written {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
            Err(error) => Err(Failure::later(format!("cannot write to standard output: {error}"))),
        }
    }

    /// At the end of the stream: raw output has every byte of it, also those of an unfinished event.
    fn end(&mut self) -> IsEnough {
        if self.printer.output == Output::Raw && self.event_types.is_empty() {
            self.out.extend(self.blocks.end().bytes);
        }
        self.write()
    }
}

fn not_recorded(error: io::Error) -> Failure {
    Failure::later(format!("cannot write the recording: {error}"))
}
