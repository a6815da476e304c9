//! Which routes exist, and which rule each of them has: the one place that ties HTTP and Server-Sent Events to URLs.

use super::access::{Access, Publishers};
use super::site::PAGE;
use super::{metrics, publish, subscribe, words};
use crate::channel::{self, Channels};
use crate::http::admission::Admission;
use crate::http::{
    self, Cors, Files, Head, Method, Refusal, Request, Response, Router, Server, ServerHandle,
    Status,
};
use crate::lab::{self, Lines};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// What the handlers share.
struct Shared {
    files: Files,
    channels: Channels,
    /// `None` when the laboratory is off.
    lines: Option<Lines>,
    access: Access,
    admission: Arc<Admission>,
}

/// Whether a request may have the answer of its route.
type Rule = fn(&Access, &Head) -> Result<(), Refusal>;
type Handler = fn(&mut Request<'_>, &Shared) -> Response;

/// A load balancer asks for `/healthz` with any `Host`, and learns nothing else.
const OPEN: Rule = |_, _| Ok(());

const ROUTES: [(Method, &str, Rule, Handler); 11] = [
    (Method::Get, "/sse/mvc/words", Access::read, words),
    (Method::Get, "/lab", Access::read, |request, shared| {
        with_lab(shared, |lines| lab::respond(request, lines))
    }),
    (Method::Get, "/lab/lines/{line}", Access::read, |request, shared| {
        with_lab(shared, |lines| lab::watch(request, lines))
    }),
    (Method::Delete, "/lab/lines/{line}", Access::cut, |request, shared| {
        with_lab(shared, |lines| lab::cut(request, lines))
    }),
    (Method::Get, "/channels", Access::read, |_, shared| subscribe::list(&shared.channels)),
    (Method::Get, "/channels/{name}", Access::read, |request, shared| {
        subscribe::subscribe(request, &shared.channels).into()
    }),
    (Method::Post, "/channels/{name}", Access::publish, publish),
    (Method::Put, "/channels/{name}", Access::publish, publish),
    (Method::Delete, "/channels/{name}", Access::publish, |request, shared| {
        publish::complete(request, &shared.channels).into()
    }),
    (Method::Get, "/metrics", Access::read, |_, shared| {
        metrics::respond(&shared.channels, &shared.admission)
    }),
    (Method::Get, "/healthz", OPEN, |_, _| {
        Response::text(Status::OK, "ok\n").field("Cache-Control", "no-store")
    }),
];

fn router(shared: Shared) -> Router {
    let shared = Arc::new(shared);
    let mut router = Router::new();
    for (method, path, rule, handler) in ROUTES {
        let shared = Arc::clone(&shared);
        router.route(method, path, move |request| match rule(&shared.access, request) {
            Ok(()) => handler(request, &shared),
            Err(refusal) => refusal.into(),
        });
    }
    let files = Arc::clone(&shared);
    let methods = move |head: &Head| match files.files.with_ending(head, RECORDING) {
        Ok(Some(_)) => &[Method::Get, Method::Post],
        _ => Files::METHODS,
    };
    router.fallback_for(methods, move |request| {
        shared.access.read(request)?;
        file(request, &shared)
    });
    router
}

fn publish(request: &mut Request<'_>, shared: &Shared) -> Response {
    publish::publish(request, &shared.channels).into()
}

/// The ending of files that are played.
const RECORDING: &str = ".sse";

/// A file is sent, and a recording is played.
fn file(request: &mut Request<'_>, shared: &Shared) -> Result<Response, Refusal> {
    let Some(recording) = shared.files.with_ending(request, RECORDING)? else {
        return Ok(shared.files.respond(request));
    };
    let response = match request.method() {
        Method::Get | Method::Head | Method::Post => {
            return lab::play_recording(request, &recording, shared.lines.as_ref());
        }
        Method::Options => Response::empty(Status::NO_CONTENT),
        _ => Refusal::new(Status::METHOD_NOT_ALLOWED, "A recording has GET, HEAD and POST.").into(),
    };
    Ok(response.field("Allow", "GET, HEAD, POST, OPTIONS"))
}

/// The words, on a line of the laboratory when `?line` names one.
fn words(request: &mut Request<'_>, shared: &Shared) -> Response {
    let name = request.query("line").filter(|name| Channels::is_name(name));
    let line = name.zip(shared.lines.as_ref()).and_then(|(name, lines)| lines.open(&name));
    match line {
        Some(line) => lab::on_line(words::respond(request), line),
        None => words::respond(request),
    }
}

fn with_lab<R: Into<Response>>(shared: &Shared, respond: impl FnOnce(&Lines) -> R) -> Response {
    shared.lines.as_ref().map_or_else(|| LAB_IS_OFF.into(), |lines| respond(lines).into())
}

const LAB_IS_OFF: Refusal = Refusal::new(
    Status::NOT_FOUND,
    "The laboratory is off, because this server does not listen on loopback. Start it with --lab.",
);

/// What the command line says. [`App::listen`] makes a server of it.
#[derive(Clone, Debug)]
pub struct App {
    /// Where to listen; `127.0.0.1:8080`.
    pub address: SocketAddr,
    /// A directory that is served in place of the page; none.
    pub www: Option<PathBuf>,
    /// The origins from which pages may read; any, without credentials.
    pub cors: Cors,
    /// The bounds of the server.
    pub limits: http::Limits,
    /// The bounds of its channels.
    pub channel_limits: channel::Limits,
    /// The clients that may publish; none.
    pub publishers: Publishers,
    /// Whether `/lab` is served on an address that is not loopback, too; it is not.
    pub lab: bool,
    /// Whether each request is a line on standard error; it is.
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
            lab: false,
            log_accesses: true,
        }
    }
}

impl App {
    /// Takes the port, opens the directory, and starts the fan-out threads.
    ///
    /// # Errors
    /// One sentence that says which of these failed, and why; or which field is out of range.
    pub fn listen(self) -> io::Result<Listening> {
        let failed = |what: String| {
            move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
        };
        let ip = self.address.ip();
        if self.publishers == Publishers::Anyone && !ip.is_loopback() {
            let sentence = format!(
                "--publish-open lets every client publish that reaches the server, and {ip} is not a loopback address; \
                 use --publish-token-file instead"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let files = match &self.www {
            None => Files::embedded(PAGE),
            Some(path) => Files::directory(path)
                .map_err(failed(format!("cannot serve the directory {path:?}")))?,
        };
        self.limits.check()?;
        let admission = Admission::new(&self.limits);
        let server = Server::bind(self.address)
            .map_err(failed(format!("cannot listen on {}", self.address)))?
            .limits(self.limits)?
            .cors(self.cors.clone())
            .log_accesses(self.log_accesses);
        let channels = Channels::start(self.channel_limits)
            .map_err(failed("cannot start a thread".to_owned()))?;
        let has_lab = self.lab || ip.is_loopback();
        let router = router(Shared {
            files,
            channels: channels.clone(),
            lines: has_lab.then(Lines::default),
            access: Access::new(self.publishers, self.cors, ip),
            admission: Arc::clone(&admission),
        });
        Ok(Listening { server, router, channels, admission })
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

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Listening {
    /// Where it listens: with port 0 in [`App::address`], the port that the system has chosen.
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

    /// Serves on threads of its own, until the handle stops it.
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
