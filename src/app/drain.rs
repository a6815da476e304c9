//! `POST /drain`: the server stops without a loss, so that another one can take its place.

use super::access::Access;
use super::host::is_at_loopback;
use super::subscribe::check_parameters;
use crate::channel::Channels;
use crate::http::admission::Admission;
use crate::http::lock::hold;
use crate::http::tcp_table::user_of_peer;
use crate::http::{Head, Refusal, Request, Response, ServerHandle, Status};
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server takes at most, without `?seconds`.
const SECONDS: u64 = 10;
const MOST_SECONDS: u64 = 3600;

/// For this part of the time the server goes on as before, and only `/readyz` says that it does not: a load balancer
/// must see that before a connection is refused.
const NOTICE: u32 = 10;

/// So long before the deadline the clients that drain are answered, whatever is left.
const LAST_ANSWER: Duration = Duration::from_millis(300);

/// So long before the deadline streams end at the latest, if a tenth of the time is shorter.
const LAST_FAREWELL: Duration = Duration::from_millis(600);

const STEP: Duration = Duration::from_millis(10);

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
    server: Sender<()>,
    progress: Arc<Progress>,
}

/// What the thread that stops the server waits for.
pub(super) struct Drained {
    asked: Receiver<()>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    /// When the server was asked, and how long it takes at most. Set by the first request that drains the server.
    begun: OnceLock<(Instant, Duration)>,
    /// How many connections were left in the end.
    left: OnceLock<usize>,
    /// Requests that drain the server and do not have their answer yet.
    requests: AtomicUsize,
    /// The connections of those that have it.
    answered: Mutex<Vec<TcpStream>>,
}

/// A request that drains the server, until it has its answer or its client has left.
struct Asking(Arc<Progress>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, SeqCst);
    }
}

impl Drain {
    pub(super) fn new() -> (Drain, Drained) {
        let ((server, asked), progress) = (channel(), Arc::<Progress>::default());
        (Drain { server, progress: Arc::clone(&progress) }, Drained { asked, progress })
    }

    pub(super) fn is_draining(&self) -> bool {
        self.progress.begun.get().is_some()
    }

    /// `GET /readyz`: whether the server takes new clients. Without Redis, if it has its channels there, it could only tell
    /// them to come back later.
    pub(super) fn readiness(&self, is_connected: bool) -> Response {
        let response = match (self.is_draining(), is_connected) {
            (true, _) => Response::text(Status::SERVICE_UNAVAILABLE, "draining\n"),
            (false, false) => Response::text(Status::SERVICE_UNAVAILABLE, "not connected to Redis\n"),
            (false, true) => Response::text(Status::OK, "ready\n"),
        };
        response.field("Cache-Control", "no-store")
    }

    /// `POST /drain`: answers when nothing is left but such requests, or the time is over. The answer ends when the process
    /// does: the command that stops a service returns when the service has stopped, and its journal is free.
    pub(super) fn respond(&self, head: &Head) -> Result<Response, Refusal> {
        check_parameters(head, &["seconds"])?;
        let time = match head.query("seconds").map(|seconds| seconds.parse()) {
            None => SECONDS,
            Some(Ok(seconds @ 1..=MOST_SECONDS)) => seconds,
            Some(_) => return Err(Refusal::bad("seconds is a number from 1 to 3600.")),
        };
        let progress = Arc::clone(&self.progress);
        progress.requests.fetch_add(1, SeqCst);
        let asking = Asking(Arc::clone(&progress));
        if progress.begun.set((Instant::now(), Duration::from_secs(time))).is_ok() {
            // The thread that stops the server waits for this as long as a handler may run.
            let _ = self.server.send(());
        }
        let left = *progress.left.wait();
        let sentence = match left {
            0 => "This server has served all its clients.\n".to_owned(),
            left => format!("This server closes {left} connections, since the time is over.\n"),
        };
        let response = Response::streamed(TEXT, sentence.clone().into(), move |writer| {
            hold(&progress.answered).extend(writer.connection().try_clone());
            drop(asking);
            Ok(())
        });
        Ok(response.with_stream(|stream| stream.when_full = Some(sentence.into())))
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Drained {
    /// Waits until a client drains the server, and stops it. Returns when it has stopped, or another one has stopped it, with
    /// connections that the end of the process is to close. From time to time it ends connections that the network does
    /// not reach.
    pub(super) fn wait(self, server: &ServerHandle, channels: &Channels, connections: &Admission) -> Vec<TcpStream> {
        let mut unreachable = Vec::new();
        loop {
            match self.asked.recv_timeout(LOOK_INTERVAL) {
                Ok(()) => break,
                Err(RecvTimeoutError::Timeout) => {
                    unreachable = connections.end_unreachable(&unreachable);
                }
                Err(RecvTimeoutError::Disconnected) => return Vec::new(),
            }
        }
        self.progress.stop(server, channels, connections);
        std::mem::take(&mut *hold(&self.progress.answered))
    }
}

impl Progress {
    /// Streams end last. Each of their clients comes back some seconds later, and where a proxy is in front, it must find the
    /// next server: a browser that gets a `502` does not come back again.
    fn stop(&self, server: &ServerHandle, channels: &Channels, connections: &Admission) {
        let Some(&(begun, time)) = self.begun.get() else { return };
        let deadline = begun + time;
        thread::sleep(time / NOTICE);
        server.stop_accepting();
        connections.end_idle();
        let farewell_at = deadline - (time / NOTICE).max(LAST_FAREWELL);
        wait_until(farewell_at, || connections.requests() <= self.requests.load(SeqCst));
        // Until here a publish reaches the streams. From here on it is refused: the answer would promise what no subscriber
        // gets.
        channels.stop();
        connections.end_streams();
        let left = || connections.counts().0.saturating_sub(self.requests.load(SeqCst));
        wait_until(deadline - LAST_ANSWER, || left() == 0);
        let _ = self.left.set(left());
        wait_until(deadline, || self.requests.load(SeqCst) == 0);
        // A handler that does not return is left behind.
        let _ = server.join(deadline.saturating_duration_since(Instant::now()));
    }
}

fn wait_until(deadline: Instant, is_over: impl Fn() -> bool) {
    while !is_over() && Instant::now() < deadline {
        thread::sleep(STEP);
    }
}
