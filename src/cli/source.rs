//! What `newswire watch` reads: a URL, with the options for its requests, or a file.

use super::{Arguments, Failure};
use newswire::http::Method;
use newswire::http::client::{Request, Response};
use newswire::sse::{EventSource, EventSourceError, Step};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// The options that are for a URL only.
#[derive(Default)]
pub(super) struct Connection {
    /// One that was given.
    pub(super) option: Option<String>,
    pub(super) last_event_id: String,
    is_once: bool,
    idle: Option<Duration>,
    fields: Vec<(String, String)>,
    content: Option<String>,
    method: Option<Method>,
}

const METHODS: &str = "GET, HEAD, POST, PUT, DELETE or OPTIONS";

impl Connection {
    pub(super) fn take(&mut self, name: &str, arguments: &mut Arguments) -> Result<bool, Failure> {
        use Method::*;
        let method = |asked: &str| {
            [Get, Head, Post, Put, Delete, Options]
                .into_iter()
                .find(|method| method.name() == asked)
        };
        match name {
            "--last-event-id" => self.last_event_id = arguments.value(name, "an id")?,
            "--once" => self.is_once = true,
            "--idle" => self.idle = Some(arguments.seconds(name)?),
            "--header" => self.fields.push(arguments.field(name)?),
            "--data" => self.content = Some(arguments.value(name, "text in UTF-8")?),
            "--method" => self.method = Some(arguments.one_of(name, METHODS, method)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn source(self, source: &str) -> Result<Source, Failure> {
        if source.contains("://") {
            let request =
                Request::new(source).map_err(|error| Failure::usage(error.to_string()))?;
            return Ok(Source::Url(Box::new(self.event_source(request)?)));
        }
        if let Some(option) = self.option {
            return Err(Failure::usage(format!(
                "{option} is for a URL, which begins with http://"
            )));
        }
        let file = File::open(source);
        match source {
            "-" => Ok(Source::File(Box::new(io::stdin()))),
            _ => file.map(|file| Source::File(Box::new(file))).map_err(|error| {
                Failure::usage(format!(
                    "cannot read {source:?}: {error}; a URL begins with http://"
                ))
            }),
        }
    }

    fn event_source(self, mut request: Request) -> Result<EventSource, Failure> {
        if self.last_event_id.contains(['\r', '\n', '\0']) {
            return Err(Failure::usage("--last-event-id takes an id without line ends and NUL"));
        }
        request.method =
            self.method.unwrap_or(if self.content.is_some() { Method::Post } else { Method::Get });
        if let Some(content) = self.content {
            request = request.field("Content-Type", "application/json");
            request.content = content.into_bytes();
        }
        for (name, value) in &self.fields {
            request = request.field(name, value);
        }
        request.idle_deadline = self.idle;
        let source = EventSource::new(request).last_event_id(self.last_event_id);
        Ok(if self.is_once { source.once() } else { source })
    }
}

/// What happens to the stream, or why it failed for good, and what a recording says of that.
pub(super) type Arrival = Result<Step, (Failure, String)>;

pub(super) enum Source {
    Url(Box<EventSource>),
    File(Box<dyn Read + Send>),
}

impl Source {
    /// Reads on a thread of its own: the main thread keeps the time. The channel is closed at the end of the stream.
    pub(super) fn open(self) -> Result<Receiver<Arrival>, Failure> {
        let (sender, receiver) = sync_channel(16);
        let read = move || match self {
            Source::Url(source) => follow(*source, &sender),
            Source::File(file) => read_file(file, &sender),
        };
        let thread = thread::Builder::new().name("source".into()).spawn(read);
        thread.map_err(|error| Failure::later(format!("cannot start a thread: {error}")))?;
        Ok(receiver)
    }
}

fn follow(mut source: EventSource, sender: &SyncSender<Arrival>) {
    while let Some(step) = source.step() {
        let arrival = step.map_err(|error| {
            let sentence = error.to_string();
            let comment = match (&error, source.response()) {
                (EventSourceError::Status(_), Some(response)) => refusal(response),
                _ => sentence.clone(),
            };
            (Failure::later(sentence), comment)
        });
        if sender.send(arrival).is_err() {
            return;
        }
    }
}

/// At the start of a recording, these comments make it a fixture that refuses.
fn refusal(response: &Response) -> String {
    let fields = ["Retry-After", "Content-Type"].into_iter();
    let values =
        fields.filter_map(|name| Some((name, response.field(&name.to_ascii_lowercase())?)));
    let headers = values.map(|(name, value)| format!("\nheader {name}: {value}"));
    format!("status {}", response.status.0) + &headers.collect::<String>()
}

fn read_file(mut file: impl Read, sender: &SyncSender<Arrival>) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let arrival = match file.read(&mut piece) {
            Ok(0) => return,
            Ok(length) => Ok(Step::Bytes(piece[..length].to_vec())),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                let sentence = format!("cannot read the stream: {error}");
                Err((Failure::later(sentence.clone()), sentence))
            }
        };
        if arrival.is_err() | sender.send(arrival).is_err() {
            return;
        }
    }
}
