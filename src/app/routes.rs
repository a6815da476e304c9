//! Which routes exist, and which rule each of them has: the one place that ties HTTP and Server-Sent Events to URLs.

use super::access::Access;
use super::drain::{self, Drain};
use super::site::PAGE;
use super::subscribe::Create;
use super::{metrics, publish, subscribe, words};
use crate::channel::Channels;
use crate::http::admission::Admission;
use crate::http::{Files, Head, Method, Refusal, Request, Response, Router, Status};
use crate::lab::{self, Lines};
use std::path::Path;
use std::sync::Arc;

/// What the handlers share.
pub(super) struct Shared {
    pub(super) files: Files,
    pub(super) channels: Channels,
    /// `None` when the laboratory is off.
    pub(super) lines: Option<Lines>,
    pub(super) access: Arc<Access>,
    pub(super) create: Create,
    pub(super) admission: Arc<Admission>,
    pub(super) drain: Drain,
}

/// Whether a request may have the answer of its route.
type Rule = fn(&Access, &Request<'_>) -> Result<(), Refusal>;
type Handler = fn(&mut Request<'_>, &Shared) -> Response;

/// A load balancer asks for `/healthz` and `/readyz` with any `Host`, and learns nothing else.
const OPEN: Rule = |_, _| Ok(());

const ROUTES: [(Method, &str, Rule, Handler); 13] = [
    (Method::Get, "/sse/mvc/words", Access::read, words),
    (Method::Get, "/lab", Access::read, |request, shared| with_lab(shared, |lines| lab::respond(request, lines))),
    (Method::Get, "/lab/lines/{line}", Access::read, |request, shared| {
        with_lab(shared, |lines| lab::watch(request, lines))
    }),
    (Method::Delete, "/lab/lines/{line}", Access::check_host_and_origin, |request, shared| {
        with_lab(shared, |lines| lab::cut(request, lines))
    }),
    (Method::Get, "/channels", Access::read, |request, shared| {
        subscribe::list(&shared.channels, shared.access.sees(request))
    }),
    (Method::Get, "/channels/{name}", Access::read, |request, shared| {
        let may_begin = match shared.create {
            Create::Anyone => true,
            Create::Publishers => shared.access.may_publish(request),
            Create::Nobody => false,
        };
        subscribe::subscribe(request, &shared.channels, &shared.access, may_begin).into()
    }),
    (Method::Post, "/channels/{name}", Access::check_host_and_origin, publish),
    (Method::Put, "/channels/{name}", Access::check_host_and_origin, publish),
    (Method::Delete, "/channels/{name}", Access::check_host_and_origin, |request, shared| {
        publish::complete(request, &shared.channels, &shared.access).into()
    }),
    (Method::Get, "/metrics", Access::read, |_, shared| {
        metrics::respond(&shared.channels, &shared.admission, &shared.access, &shared.drain)
    }),
    (Method::Get, "/readyz", OPEN, |_, shared| {
        shared.drain.readiness(shared.channels.redis().is_none_or(|redis| redis.is_connected))
    }),
    (Method::Post, "/drain", OPEN, |request, shared| {
        let allowed = drain::check(request, &shared.access);
        allowed.and_then(|()| shared.drain.respond(request)).into()
    }),
    (Method::Get, "/healthz", OPEN, |_, _| Response::text(Status::OK, "ok\n").field("Cache-Control", "no-store")),
];

/// Whether a path of the server itself begins with this base: a request could then mean either. `www` is the directory that
/// stands in place of the page.
pub(super) fn is_taken(base: &str, www: Option<&Path>) -> bool {
    let base: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    let begins = |path: &str| {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut pairs = parts.iter().zip(&base);
        parts.len() >= base.len() && pairs.all(|(part, of_base)| part == of_base || part.starts_with('{'))
    };
    let is_file = match www {
        Some(directory) => directory.join(base.join("/")).exists(),
        None => PAGE.iter().any(|(path, _)| begins(path)),
    };
    is_file || ROUTES.iter().any(|(_, path, ..)| begins(path))
}

pub(super) fn router(shared: Shared) -> Router {
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
    publish::publish(request, &shared.channels, &shared.access).into()
}

/// The ending of files that are played.
const RECORDING: &str = ".sse";

/// A file is sent, and a recording is played.
fn file(request: &mut Request<'_>, shared: &Shared) -> Result<Response, Refusal> {
    let is_recording = request.segments().last().is_some_and(|last| last.ends_with(RECORDING));
    if !is_recording && let Some(response) = shared.files.find_response(request) {
        return Ok(response);
    }
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
