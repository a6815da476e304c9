//! Which routes exist: the one place that ties HTTP and Server-Sent Events to URLs.

use super::access::{Gate, Publishers};
use super::{metrics, words};
use crate::channel::{self, Channel, Channels, NoChannel, PublishError, Published};
use crate::http::admission::Admission;
use crate::http::{
    self, Cors, Files, Method, Refusal, Request, Response, Router, Server, ServerHandle, Status,
};
use crate::lab::{self, Lines};
use crate::sse::{Event, json_string, refused};
use std::io::{self, BufRead, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The page, as it was when the binary was built.
const SITE: &[(&str, &[u8])] = &[
    ("index.html", include_bytes!("../../www/index.html")),
    ("style.css", include_bytes!("../../www/style.css")),
    ("app.js", include_bytes!("../../www/app.js")),
    ("favicon.svg", include_bytes!("../../www/favicon.svg")),
];

/// What the command line says. [`App::listen`] makes a server of it.
#[derive(Clone, Debug)]
pub struct App {
    /// Where to listen; `127.0.0.1:8080`.
    pub address: SocketAddr,
    /// A directory to serve in place of the page.
    pub www: Option<PathBuf>,
    /// Pages of which origins may read.
    pub cors: Cors,
    /// The bounds of the server.
    pub limits: http::Limits,
    /// The bounds of its channels.
    pub channel_limits: channel::Limits,
    /// Who may publish; nobody.
    pub publishers: Publishers,
    /// Whether every request is a line on standard error; it is.
    pub log_accesses: bool,
}

impl Default for App {
    fn default() -> App {
        App {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            www: None,
            cors: Cors::default(),
            limits: http::Limits::default(),
            channel_limits: channel::Limits::default(),
            publishers: Publishers::None,
            log_accesses: true,
        }
    }
}

/// A server with every route, which listens but does not accept yet.
///
/// ```no_run
/// use newswire::app::App;
///
/// let listening = App::default().listen()?;
/// println!("http://{}/", listening.address()?);
/// listening.run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Listening {
    server: Server,
    router: Router,
    channels: Channels,
    admission: Arc<Admission>,
}

impl App {
    /// Takes the port, reads the directory, starts the threads that fan out.
    ///
    /// # Errors
    /// One sentence that says which of these failed, and why.
    pub fn listen(self) -> io::Result<Listening> {
        let failed = |what: String| {
            move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
        };
        let files = match &self.www {
            None => Files::embedded(SITE),
            Some(path) => Files::directory(path)
                .map_err(failed(format!("cannot serve the directory {path:?}")))?,
        };
        if self.publishers == Publishers::Anyone && !self.address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "anyone may publish only where nobody else can reach the server: {} is not a loopback address; \
                     use a token instead",
                    self.address.ip()
                ),
            ));
        }
        let admission = Admission::new(&self.limits);
        let server = Server::bind(self.address)
            .map_err(failed(format!("cannot listen on {}", self.address)))?;
        let channels = Channels::start(self.channel_limits.clone())
            .map_err(failed("cannot start a thread".to_owned()))?;
        let gate = Gate::new(self.publishers, self.cors.clone(), self.address.ip());
        let gate = Arc::new(gate);
        let router = routes(files, &channels, &gate, &admission);
        let server = server.limits(self.limits)?.cors(self.cors).log_accesses(self.log_accesses);
        Ok(Listening { server, router, channels, admission })
    }
}

impl Listening {
    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.server.local_addr()
    }

    /// The channels, to publish from this process.
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// Serves until the process ends or the handle stops it.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn serve(self) -> io::Result<ServerHandle> {
        self.server.serve_with(self.router, self.admission)
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// As [`serve`](Listening::serve).
    pub fn run(self) -> io::Result<()> {
        self.serve()?.wait();
        Ok(())
    }
}

fn routes(
    files: Files,
    channels: &Channels,
    gate: &Arc<Gate>,
    admission: &Arc<Admission>,
) -> Router {
    let mut router = Router::new();
    let lines = Arc::new(Lines::new(channels.clone(), channels.limits().history_bytes));
    let (spoken, streamed) = (Arc::clone(&lines), Arc::clone(&lines));
    let (watched, cut) = (Arc::clone(&lines), lines);
    router.get("/sse/mvc/words", move |request| {
        let name = request.query("line").filter(|name| Channels::is_name(name));
        match name.and_then(|name| spoken.open(&name)) {
            Some(line) => lab::on_line(words::respond(request), line),
            None => words::respond(request),
        }
    });
    router.get("/lab", move |request| lab::respond(request, &streamed));
    router.get("/lab/lines/{line}", move |request| lab::watch(request, &watched));
    router.route(Method::Delete, "/lab/lines/{line}", move |request| lab::cut(request, &cut));

    let table = channels.clone();
    router.get("/channels", move |_| list(&table));
    let table = channels.clone();
    router.get("/channels/{name}", move |request| subscribe(request, &table));
    for method in [Method::Post, Method::Put] {
        let (table, gate) = (channels.clone(), Arc::clone(gate));
        router.route(method, "/channels/{name}", move |request| {
            gate.check(request)?;
            publish(request, &table)
        });
    }
    let (table, gate) = (channels.clone(), Arc::clone(gate));
    router.route(Method::Delete, "/channels/{name}", move |request| {
        gate.check(request)?;
        complete(request, &table)
    });

    router
        .get("/healthz", |_| Response::text(Status::OK, "ok\n").field("Cache-Control", "no-store"));
    let (table, counted) = (channels.clone(), Arc::clone(admission));
    router.get("/metrics", move |_| metrics::respond(&table, &counted));
    router.fallback(move |request| files.respond(request));
    router
}

fn subscribe(request: &Request<'_>, channels: &Channels) -> Response {
    match channels.open_to_subscribe(request.parameter("name")) {
        Ok(channel) => channel.subscribe(request),
        Err(NoChannel::Full) => refused(),
        Err(name) => refusal_of(name).into(),
    }
}

/// The content is the data of one event, or with `?lines` each line of it is one, published as it
/// arrives.
fn publish(request: &mut Request<'_>, channels: &Channels) -> Result<Response, Refusal> {
    // What stands in the head is judged before any content is read, and before a channel is made.
    check_name(request)?;
    let template = typed(request.query("event").unwrap_or_default())?;
    let event_of = move |content: Vec<u8>| {
        let data = String::from_utf8(content).map_err(|_| NOT_TEXT)?;
        Ok(template.clone().data(data))
    };
    let as_text = request.lists("accept", "text/plain");
    if request.query("lines").is_none() {
        let event = event_of(request.content()?)?;
        let published = publish_event(&open(request, channels)?, event)?;
        return Ok(if as_text {
            Response::text(Status::OK, published.id + "\n")
        } else {
            Response::json(format!(
                "{{\"id\":\"{}\",\"subscribers\":{}}}\n",
                published.id, published.subscribers
            ))
        });
    }
    let channel = open(request, channels)?;
    let (mut count, mut last_id) = (0u64, String::new());
    request.lines(|line| {
        last_id = publish_event(&channel, event_of(line.to_vec())?)?.id;
        count += 1;
        Ok(())
    })?;
    Ok(if as_text {
        Response::text(Status::OK, last_id + "\n")
    } else {
        let id = if count == 0 { "null".to_owned() } else { json_string(&last_id) };
        let subscribers = channel.subscribers();
        Response::json(format!("{{\"count\":{count},\"id\":{id},\"subscribers\":{subscribers}}}\n"))
    })
}

/// An event of this type, or of none, to which the data is yet to come.
fn typed(name: String) -> Result<Event, Refusal> {
    let event = Event::default();
    if name.is_empty() {
        return Ok(event);
    }
    event.name(name).map_err(|_| Refusal::bad("The event type has a line end or a NUL in it."))
}

fn publish_event(channel: &Channel, event: Event) -> Result<Published, Refusal> {
    channel.publish(event).map_err(|error| {
        let status = match error {
            PublishError::TooLarge => Status::CONTENT_TOO_LARGE,
            PublishError::Stopped => Status::SERVICE_UNAVAILABLE,
            _ => Status::BAD_REQUEST,
        };
        Refusal::new(status, error.sentence())
    })
}

const NOT_TEXT: Refusal = Refusal::new(
    Status::UNSUPPORTED_MEDIA_TYPE,
    "The content is not UTF-8, and an event stream carries text only. Send binary data as base64: base64 FILE | curl -T - URL",
);

fn complete(request: &Request<'_>, channels: &Channels) -> Result<Response, Refusal> {
    check_name(request)?;
    let channel = channels.find(request.parameter("name"));
    channel.ok_or(Refusal::new(Status::NOT_FOUND, "There is no such channel."))?.complete();
    Ok(Response::empty(Status::NO_CONTENT))
}

fn check_name(request: &Request<'_>) -> Result<(), Refusal> {
    if Channels::is_name(request.parameter("name")) {
        Ok(())
    } else {
        Err(refusal_of(NoChannel::Name))
    }
}

fn open(request: &Request<'_>, channels: &Channels) -> Result<Channel, Refusal> {
    channels.open(request.parameter("name")).map_err(refusal_of)
}

fn refusal_of(no_channel: NoChannel) -> Refusal {
    let status = match no_channel {
        NoChannel::Name => Status::NOT_FOUND,
        NoChannel::Full => Status::SERVICE_UNAVAILABLE,
    };
    Refusal::new(status, no_channel.sentence())
}

fn list(channels: &Channels) -> Response {
    let id = |id: &Option<String>| id.as_ref().map_or("null".to_owned(), |id| json_string(id));
    let channels = channels.list().into_iter().map(|channel| {
        format!(
            "{{\"name\":{},\"subscribers\":{},\"events\":{},\"bytes\":{},\"first_id\":{},\"last_id\":{},\"completed\":{}}}",
            json_string(&channel.name),
            channel.subscribers,
            channel.events,
            channel.bytes,
            id(&channel.first_id),
            id(&channel.last_id),
            channel.completed
        )
    });
    Response::json(format!("[{}]\n", channels.collect::<Vec<_>>().join(",\n ")))
        .field("Cache-Control", "no-store")
}

/// Publishes each line of `input` on a channel, and completes it at the end. A line longer than
/// [`Limits::content_bytes`] goes in pieces; bytes that are no text become U+FFFD: nobody is there to
/// be told.
///
/// # Errors
/// When the input cannot be read.
pub fn publish_lines(
    mut input: impl BufRead,
    channel: &Channel,
    limits: &http::Limits,
) -> io::Result<()> {
    let (mut line, mut is_continued) = (Vec::new(), false);
    loop {
        let room = limits.content_bytes.max(4).saturating_sub(line.len());
        let read = (&mut input).take(room as u64).read_until(b'\n', &mut line)?;
        let is_whole = line.ends_with(b"\n") || read < room;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").filter(|_| is_whole).unwrap_or(text);
        // A piece ends before what is not whole yet, be it a character or the line's end.
        let end = if is_whole { text.len() } else { text.len() - unfinished(text) };
        if end > 0 || (is_whole && !is_continued && !line.is_empty()) {
            publish_text(channel, &String::from_utf8_lossy(&text[..end]));
        }
        if read == 0 {
            channel.complete();
            return Ok(());
        }
        is_continued = !is_whole;
        line = if is_whole { Vec::new() } else { line.split_off(end) };
    }
}

/// In as many events as it takes: the channel may keep less than a line.
fn publish_text(channel: &Channel, text: &str) {
    if channel.publish(Event::new(text)).is_err() && text.len() > 1 {
        let is_boundary = |at: &usize| text.is_char_boundary(*at);
        let half = (0..=text.len() / 2).rev().find(is_boundary).unwrap_or(0);
        let (first, second) = text.split_at(half);
        if !first.is_empty() {
            publish_text(channel, first);
            publish_text(channel, second);
        }
    }
}

/// How many bytes at the end of `text` begin a character of UTF-8 that needs more, or a CRLF.
fn unfinished(text: &[u8]) -> usize {
    if text.ends_with(b"\r") {
        return 1;
    }
    let tail = &text[text.len().saturating_sub(3)..];
    let Some(back) = tail.iter().rev().position(|&byte| byte >= 0xc0) else {
        return 0;
    };
    let needed = match tail[tail.len() - 1 - back] {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    if back + 1 < needed { back + 1 } else { 0 }
}
