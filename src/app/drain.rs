//! `POST /drain`: the server stops without a loss, so that another one can take its place.

use super::access::Access;
use super::host::is_at_loopback;
use crate::channel::Channels;
use crate::http::admission::Admission;
use crate::http::tcp_table::user_of_peer;
use crate::http::{Head, Refusal, Request, Response, ServerHandle, Status};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server takes at most, without `?seconds`.
const SECONDS: u64 = 10;
const MOST_SECONDS: u64 = 3600;

/// For this part of the time the server goes on as before, and only `/readyz` says that it does not: a load balancer
/// must see that before a connection is refused.
const NOTICE: u32 = 10;

/// So long before the deadline the client that drains is answered, whatever is left.
const LAST_ANSWER: Duration = Duration::from_millis(300);

/// How often a server looks for connections that the network does not reach. A look at 10,000 connections takes 20 ms.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// Fields that a proxy adds.
const FORWARDING: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// Whether a client may drain the server. Where clients need keys, it needs the token of the publishers: such a server has
/// clients on other machines, and a proxy on this one may hide them. Else it needs a process that could as well end the
/// server with a signal: one of the same user, which has asked this machine. A proxy mostly has a user of its own, names its
/// client, or keeps the `Host`.
pub(super) fn check(request: &Request<'_>, access: &Access) -> Result<(), Refusal> {
    access.check_host_and_origin(request)?;
    if let Some(has_token) = access.has_token(request) {
        return has_token;
    }
    let is_loopback = request.peer().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let is_forwarded = FORWARDING.iter().any(|field| request.field(field).is_some());
    // A browser that another site has asked to send this may be behind a proxy, too.
    let site = request.field("sec-fetch-site");
    let is_foreign = site.is_some_and(|site| !["same-origin", "none"].contains(&site));
    let is_near = is_loopback && is_at_loopback(request) && !is_forwarded && !is_foreign;
    let user = is_near.then(|| user_of_peer(request.connection())).flatten();
    let own = fs::metadata("/proc/self").map(|process| process.uid()).ok();
    if user.is_some() && user == own { Ok(()) } else { Err(ELSEWHERE) }
}

const ELSEWHERE: Refusal = Refusal::new(
    Status::FORBIDDEN,
    "Without --publish-token-file, only a process of the same user on the same machine drains the server, over TCP, at a \
     loopback address.",
);

/// What the handlers know of it.
pub(super) struct Drain {
    server: Sender<Duration>,
    /// Set by the one request that drains the server.
    deadline: OnceLock<Instant>,
}

/// What the thread that stops the server waits for.
pub(super) struct Drained(Receiver<Duration>);

impl Drain {
    pub(super) fn new() -> (Drain, Drained) {
        let (server, asked) = channel();
        (Drain { server, deadline: OnceLock::new() }, Drained(asked))
    }

    pub(super) fn is_draining(&self) -> bool {
        self.deadline.get().is_some()
    }

    /// `GET /readyz`: whether the server takes new clients. Without Redis, if it has its channels there, it could only tell
    /// them to come back later.
    pub(super) fn readiness(&self, is_connected: bool) -> Response {
        let response = match (self.is_draining(), is_connected) {
            (true, _) => Response::text(Status::SERVICE_UNAVAILABLE, "draining\n"),
            (false, false) => {
                Response::text(Status::SERVICE_UNAVAILABLE, "not connected to Redis\n")
            }
            (false, true) => Response::text(Status::OK, "ready\n"),
        };
        response.field("Cache-Control", "no-store")
    }

    /// `POST /drain`: answers when nothing is left but this request, or the time is over. So the command that stops a
    /// service returns when the service has stopped.
    pub(super) fn respond(
        &self,
        head: &Head,
        connections: &Admission,
    ) -> Result<Response, Refusal> {
        let time = match head.query("seconds").map(|seconds| seconds.parse()) {
            None => SECONDS,
            Some(Ok(seconds @ 1..=MOST_SECONDS)) => seconds,
            Some(_) => return Err(Refusal::bad("seconds is a number from 1 to 3600.")),
        };
        let time = Duration::from_secs(time);
        let deadline = Instant::now() + time;
        if self.deadline.set(deadline).is_err() {
            return Ok(Response::text(Status::OK, "This server is draining already.\n"));
        }
        // The thread that stops the server waits for this as long as a handler may run.
        let _ = self.server.send(time);
        while connections.len() > 1 && Instant::now() + LAST_ANSWER < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let sentence = match connections.len().saturating_sub(1) {
            0 => "This server has served all its clients.\n".to_owned(),
            left => format!("This server closes {left} connections, since the time is over.\n"),
        };
        Ok(Response::text(Status::OK, sentence))
    }
}

impl Drained {
    /// Waits until a client drains the server, and stops it. Returns when it has stopped, or another one has stopped it.
    /// From time to time it ends connections that the network does not reach.
    pub(super) fn wait(self, server: &ServerHandle, channels: &Channels, connections: &Admission) {
        let mut unreachable = Vec::new();
        let time = loop {
            match self.0.recv_timeout(LOOK_INTERVAL) {
                Ok(time) => break time,
                Err(RecvTimeoutError::Timeout) => {
                    unreachable = connections.end_unreachable(&unreachable);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        let deadline = Instant::now() + time;
        thread::sleep(time / NOTICE);
        server.stop_accepting();
        // From here on a publish is refused: the answer would promise what no subscriber gets.
        channels.stop();
        // A handler that does not return is left behind.
        let _ = server.join(deadline.saturating_duration_since(Instant::now()));
    }
}
