//! `newswire watch`: the events of a stream, as they arrive.

use super::output::{Output, Printer};
use super::{Arguments, Failure, read_piece, say, tell};
use newswire::http::Method;
use newswire::http::client::Response;
use newswire::sse::{
    Block, Blocks, EventSource, EventSourceError, Message, Parser, Recorder, Step,
};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;
use std::{process, thread};

const HELP: &str = "\
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
    --data TEXT                send this content, by POST, as application/json
    --method METHOD            GET, HEAD, POST, PUT, DELETE or OPTIONS
";

/// Prints until the stream ends for good, or an option says that it is enough.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else { return Ok(()) };
    let mut source = options.source()?;
    if let Some(time) = options.time {
        let stop = move || {
            thread::sleep(time);
            // What has arrived is printed and recorded as a whole.
            let _printed = io::stdout().lock();
            process::exit(0)
        };
        thread::Builder::new().name("time".into()).spawn(stop)?;
    }
    let mut watch = Watch::new(options)?;
    while let Some(step) = source.step() {
        let _printing = io::stdout().lock();
        let is_enough = match step {
            Ok(step) => watch.take(step)?,
            Err((failure, comment)) => {
                watch.comment(&comment)?;
                return watch.end().and(Err(failure));
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

impl Source {
    /// What happens to the stream, or why it failed for good, and what a recording says of that.
    fn step(&mut self) -> Option<Result<Step, (Failure, String)>> {
        let failed = |sentence: String| (Failure::later(&*sentence), sentence);
        match self {
            Source::File(file) => {
                let piece = read_piece(file).transpose()?.map(Step::Bytes);
                Some(piece.map_err(|error| failed(format!("cannot read the stream: {error}"))))
            }
            Source::Url(source) => Some(source.step()?.map_err(|error| {
                let (failure, comment) = failed(error.to_string());
                let is_refused = matches!(error, EventSourceError::Status(_));
                (failure, source.response().filter(|_| is_refused).map_or(comment, refusal))
            })),
        }
    }
}

/// At the start of a recording, these comments make it a fixture that refuses.
fn refusal(response: &Response) -> String {
    let mut comment = format!("status {}", response.status.0);
    for name in ["Retry-After", "Content-Type"] {
        let value = response.field(&name.to_ascii_lowercase());
        comment += &value.map_or(String::new(), |value| format!("\nheader {name}: {value}"));
    }
    comment
}

/// Whether it is enough: so many events were asked for, or the pipe is closed.
type IsEnough = Result<bool, Failure>;

struct Watch {
    options: Options,
    printer: Printer,
    recorder: Option<Recorder<File>>,
    blocks: Blocks,
    parser: Parser,
    events: usize,
    /// What is printed next, in one write.
    out: Vec<u8>,
    is_begun: bool,
}

impl Watch {
    fn new(options: Options) -> Result<Watch, Failure> {
        let create = |path: &OsString| {
            let failed =
                |error| Failure::usage(format!("--record: cannot write {path:?}: {error}"));
            File::create(path).map(Recorder::new).map_err(failed)
        };
        Ok(Watch {
            printer: Printer::new(options.output),
            recorder: options.record.as_ref().map(create).transpose()?,
            blocks: Blocks::new(),
            parser: Parser::new().with_last_event_id(&*options.last_event_id),
            events: 0,
            out: Vec::new(),
            is_begun: false,
            options,
        })
    }

    fn take(&mut self, step: Step) -> IsEnough {
        match step {
            Step::Open => tell("connected"),
            Step::Bytes(piece) => return Ok(self.take_piece(&piece)? | self.write()?),
            // The block that it stands in has printed it.
            Step::Event(_) => {}
            Step::Reconnecting { after, cause } => {
                let why =
                    cause.map_or("the server ended the stream".into(), |cause| cause.to_string());
                let sentence = format!("{why}; it connects again in {:.1} s", after.as_secs_f32());
                self.comment(&sentence)?;
                tell(&sentence);
                self.blocks = Blocks::new();
                self.parser.reconnect();
            }
        }
        Ok(false)
    }

    fn comment(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.recorder.as_mut().map(|recorder| recorder.comment(text));
        written.transpose().map(drop).map_err(not_recorded)
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
        let recorded = self.recorder.as_mut().map(|recorder| recorder.record(block));
        recorded.transpose().map_err(not_recorded)?;
        let messages = self.parser.feed(&block.wire())?;
        let message = messages.first().filter(|message| self.is_wanted(message));
        match (self.options.output, message) {
            (Output::Raw, None) if !self.options.events.is_empty() => {}
            (Output::Raw, _) => {
                // The mark of a later stream would be part of a field name.
                let is_first = !std::mem::replace(&mut self.is_begun, true);
                self.out.extend(if is_first { block.wire() } else { block.bytes.clone() });
            }
            (_, Some(message)) => self.out.extend(self.printer.print(message).bytes()),
            _ => {}
        }
        self.events += usize::from(message.is_some());
        Ok(self.options.count == Some(self.events))
    }

    /// Tells of a gap. It is no event for people or a program that reads data alone, if they have not asked for it.
    fn is_wanted(&self, message: &Message) -> bool {
        let Options { events, output, .. } = &self.options;
        let is_gap = message.event_type == "gap" && message.data.starts_with("{\"asked\":");
        if is_gap {
            tell(&format!("events are missing: {}", message.data));
        }
        match events.is_empty() {
            true => !is_gap || matches!(output, Output::Json | Output::Raw),
            false => events.contains(&message.event_type),
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
        if self.options.output == Output::Raw && self.options.events.is_empty() {
            self.out.extend(self.blocks.end().bytes);
        }
        self.write()
    }
}

fn not_recorded(error: io::Error) -> Failure {
    Failure::later(format!("cannot write the recording: {error}"))
}

#[derive(Default)]
struct Options {
    output: Output,
    events: Vec<String>,
    count: Option<usize>,
    time: Option<Duration>,
    record: Option<OsString>,
    source: String,
    /// An option for a URL that was given.
    url_option: Option<String>,
    last_event_id: String,
    is_once: bool,
    idle: Option<Duration>,
    fields: Vec<(String, String)>,
    content: Option<String>,
    method: Option<Method>,
}

impl Options {
    /// `None` when the help was asked for and written.
    fn parse(mut arguments: Arguments) -> Result<Option<Options>, Failure> {
        let (mut options, mut operands) = (Options::default(), Vec::new());
        while let Some(name) = arguments.next()? {
            if name == "--help" || name == "-h" {
                arguments.check_switch(&name)?;
                say(HELP);
                return Ok(None);
            }
            options.take(&name, &mut arguments, &mut operands)?;
            arguments.check_switch(&name)?;
        }
        options.source = operands.pop().ok_or_else(|| {
            Failure::usage("say what to watch: a URL, a file, or - for standard input; see newswire watch --help")
        })?;
        Ok(Some(options))
    }

    fn take(
        &mut self,
        name: &str,
        arguments: &mut Arguments,
        operands: &mut Vec<String>,
    ) -> Result<(), Failure> {
        use Method::*;
        use Output::*;
        let outputs = [("text", Text), ("json", Json), ("data", Data), ("raw", Raw)];
        let methods = [Get, Head, Post, Put, Delete, Options].map(|method| (method.name(), method));
        match name {
            "--output" => self.output = arguments.one_of(name, &outputs)?,
            "--event" => self.events.push(arguments.value(name, "an event type")?),
            "--count" => self.count = Some(arguments.number(name, 1, 1_000_000_000_000)?),
            "--for" => self.time = Some(arguments.seconds(name)?),
            "--record" => self.record = Some(arguments.raw_value(name)?),
            "--last-event-id" => self.last_event_id = arguments.value(name, "an id")?,
            "--once" => self.is_once = true,
            "--idle" => self.idle = Some(arguments.seconds(name)?),
            "--header" => self.fields.push(arguments.field(name)?),
            "--data" => self.content = Some(arguments.value(name, "text in UTF-8")?),
            "--method" => self.method = Some(arguments.one_of(name, &methods)?),
            _ => arguments.operand(name, operands, 1)?,
        }
        let for_url = ["--last-event-id", "--once", "--idle", "--header", "--data", "--method"];
        if for_url.contains(&name) {
            self.url_option = Some(name.to_owned());
        }
        Ok(())
    }

    fn source(&self) -> Result<Source, Failure> {
        let path = &self.source;
        let open = |path| File::open(path).map(|file| Source::File(Box::new(file)));
        match (&self.url_option, &**path) {
            (_, url) if url.contains("://") => self.event_source(),
            (Some(option), _) => {
                Err(Failure::usage(format!("{option} is for a URL, which begins with http://")))
            }
            (None, "-") => Ok(Source::File(Box::new(io::stdin()))),
            (None, path) => open(path).map_err(|error| {
                Failure::usage(format!("cannot read {path:?}: {error}; a URL begins with http://"))
            }),
        }
    }

    fn event_source(&self) -> Result<Source, Failure> {
        if self.last_event_id.contains(['\r', '\n', '\0']) {
            return Err(Failure::usage("--last-event-id takes an id without line ends and NUL"));
        }
        let typed =
            self.content.is_some().then(|| ("Content-Type".into(), "application/json".into()));
        let fields = typed.into_iter().chain(self.fields.iter().cloned());
        let mut request = super::request(&self.source, fields.collect())?;
        let usual = if self.content.is_some() { Method::Post } else { Method::Get };
        request.method = self.method.unwrap_or(usual);
        request.content = self.content.clone().unwrap_or_default().into_bytes();
        request.idle_deadline = self.idle;
        let source = EventSource::new(request).last_event_id(&*self.last_event_id);
        Ok(Source::Url(Box::new(if self.is_once { source.once() } else { source })))
    }
}
