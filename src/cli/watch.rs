//! `newswire watch`: the events of a stream, as they arrive.

use super::output::{Output, Printer};
use super::source::{Arrival, Connection, Source};
use super::{Arguments, Failure, say, tell};
use newswire::sse::{Block, Blocks, Message, Parser, Recorder, Step};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

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
    let Some((options, source)) = Options::parse(arguments)? else { return Ok(()) };
    let mut watch = Watch::new(options)?;
    let deadline = watch.options.time.map(|time| Instant::now() + time);
    let arrivals = source.open()?;
    loop {
        let arrival =
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => arrivals.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(Duration::ZERO) => return Ok(()),
                Some(rest) => arrivals.recv_timeout(rest),
            };
        let next = match arrival {
            Ok(arrival) => watch.take(arrival)?,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => watch.end()?,
        };
        if next.is_break() {
            return Ok(());
        }
    }
}

/// Whether to go on; a closed pipe is a reason not to.
type Next = Result<ControlFlow<()>, Failure>;

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
            let file = File::create(path);
            file.map_err(|error| {
                Failure::usage(format!("--record: cannot write {path:?}: {error}"))
            })
        };
        Ok(Watch {
            printer: Printer::new(options.output),
            recorder: options.record.as_ref().map(create).transpose()?.map(Recorder::new),
            blocks: Blocks::new(),
            parser: Parser::new().with_last_event_id(options.last_event_id.clone()),
            events: 0,
            out: Vec::new(),
            is_begun: false,
            options,
        })
    }

    fn take(&mut self, arrival: Arrival) -> Next {
        match arrival {
            Ok(Step::Open) => tell("connected"),
            Ok(Step::Bytes(piece)) => return self.take_piece(&piece),
            // The block that it stands in has printed it.
            Ok(Step::Event(_)) => {}
            Ok(Step::Reconnecting { after, cause }) => {
                let why =
                    cause.map_or("the server ended the stream".into(), |cause| cause.to_string());
                let sentence = format!("{why}; it connects again in {:.1} s", after.as_secs_f32());
                self.comment(&sentence)?;
                tell(&sentence);
                self.blocks = Blocks::new();
                self.parser.reconnect();
            }
            Err((failure, comment)) => {
                self.comment(&comment)?;
                return self.end().and(Err(failure));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn comment(&mut self, text: &str) -> Result<(), Failure> {
        self.recorder
            .as_mut()
            .map_or(Ok(()), |recorder| recorder.comment(text))
            .map_err(not_recorded)
    }

    fn take_piece(&mut self, piece: &[u8]) -> Next {
        let blocks = self.blocks.feed(piece);
        let mut blocks = blocks.map_err(|error| Failure::later(error.to_string()))?;
        blocks.extend(self.blocks.release());
        let mut next = ControlFlow::Continue(());
        for block in &blocks {
            next = self.take_block(block)?;
            if next.is_break() {
                break;
            }
        }
        Ok(if self.write()?.is_break() { ControlFlow::Break(()) } else { next })
    }

    fn take_block(&mut self, block: &Block) -> Next {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(block).map_err(not_recorded)?;
        }
        let mark: &[u8] = if block.has_mark { b"\xef\xbb\xbf" } else { b"" };
        let messages = self.parser.feed(mark).and_then(|_| self.parser.feed(&block.bytes));
        let messages = messages.map_err(|error| Failure::later(error.to_string()))?;
        let message = messages.first().filter(|message| self.is_wanted(message));
        match (self.options.output, message) {
            (Output::Raw, None) if !self.options.events.is_empty() => {}
            (Output::Raw, _) => {
                // The mark of a later stream would be part of a field name.
                let mark = if self.is_begun { b"" } else { mark };
                self.is_begun = true;
                self.out.extend([mark, &block.bytes].concat());
            }
            (_, Some(message)) => self.out.extend(self.printer.print(message).bytes()),
            _ => {}
        }
        self.events += usize::from(message.is_some());
        Ok(match self.options.count == Some(self.events) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
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

    fn write(&mut self) -> Next {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&self.out).and_then(|()| stdout.flush());
        self.out.clear();
        match written {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(Failure::later(format!("cannot write to standard output: {error}"))),
        }
    }

    /// At the end of the stream: raw output has every byte of it, also those of an unfinished event.
    fn end(&mut self) -> Next {
        if self.options.output == Output::Raw && self.options.events.is_empty() {
            self.out.extend(self.blocks.end().bytes);
        }
        self.write().map(|_| ControlFlow::Break(()))
    }
}

fn not_recorded(error: io::Error) -> Failure {
    Failure::later(format!("cannot write the recording: {error}"))
}

/// What is printed, and how much of it.
struct Options {
    output: Output,
    events: Vec<String>,
    count: Option<usize>,
    time: Option<Duration>,
    record: Option<OsString>,
    last_event_id: String,
}

const FORMATS: &str = "text, json, data or raw";

impl Options {
    /// `None` when the help was asked for and written.
    fn parse(mut arguments: Arguments) -> Result<Option<(Options, Source)>, Failure> {
        let (output, events) = (Output::Text, Vec::new());
        let (record, last_event_id) = (None, String::new());
        let mut options =
            Options { output, events, count: None, time: None, record, last_event_id };
        let (mut connection, mut operands) = (Connection::default(), Vec::new());
        while let Some(name) = arguments.next()? {
            if name == "--help" || name == "-h" {
                arguments.check_switch(&name)?;
                say(HELP);
                return Ok(None);
            }
            let is_taken = options.take(&name, &mut arguments)?;
            if connection.take(&name, &mut arguments)? {
                connection.option = Some(name.clone());
            } else if !is_taken {
                arguments.operand(&name, &mut operands, 1)?;
            }
            arguments.check_switch(&name)?;
        }
        let source = operands.pop().ok_or_else(|| {
            Failure::usage("say what to watch: a URL, a file, or - for standard input; see newswire watch --help")
        })?;
        options.last_event_id.clone_from(&connection.last_event_id);
        Ok(Some((options, connection.source(&source)?)))
    }

    /// Whether this is an option of these.
    fn take(&mut self, name: &str, arguments: &mut Arguments) -> Result<bool, Failure> {
        match name {
            "--output" => self.output = arguments.one_of(name, FORMATS, Output::parse)?,
            "--event" => self.events.push(arguments.value(name, "an event type")?),
            "--count" => self.count = Some(arguments.number(name, 1, 1_000_000_000_000)?),
            "--for" => self.time = Some(arguments.seconds(name)?),
            "--record" => self.record = Some(arguments.raw_value(name)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}
