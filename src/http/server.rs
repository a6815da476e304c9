//! The accept loops, and what a connection's own thread does: read a head, let the router answer,
//! write, again.

use super::connection::{Connection, Connections};
use super::content::{Content, Framing};
use super::cors::Cors;
use super::date::Date;
use super::log::Log;
use super::request::{Head, Method, Request, Version, origin_of};
use super::response::{Body, Take};
use super::router::Router;
use super::status::{Refusal, Status};
use super::wire::Wire;
use super::workers::{Backoff, Workers};
use crate::Limits;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// A server that listens but does not accept yet.
///
/// ```no_run
/// use newswire::http::{Response, Router, Status};
/// use newswire::Server;
///
/// let mut router = Router::new();
/// router.get("/", |_| Response::text(Status::OK, "It works.\n"));
/// Server::bind("127.0.0.1:8080")?.run(router);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Server {
    listener: TcpListener,
    limits: Limits,
    cors: Cors,
    log_accesses: bool,
    connections: Option<Arc<Connections>>,
}

/// Responses to pipelined requests wait for each other up to here.
const OWED_BYTES: usize = 64 * 1024;

/// A content that is larger is not copied to what is owed.
const COPIED_BYTES: usize = 4 * 1024;

impl Server {
    /// Listens at the address; port 0 lets the system choose one, which
    /// [`local_addr`](Server::local_addr) tells.
    ///
    /// # Errors
    /// As [`TcpListener::bind`]: the port is taken, the address is not this machine's, or ports
    /// below 1024 are not for you.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Server> {
        Ok(Server {
            listener: TcpListener::bind(address)?,
            limits: Limits::default(),
            cors: Cors::default(),
            log_accesses: false,
            connections: None,
        })
    }

    /// With these limits instead of the default ones.
    pub fn limits(mut self, limits: Limits) -> Server {
        self.limits = limits;
        self
    }

    /// With this policy for pages of other origins instead of the default one, which is any origin
    /// without credentials.
    pub fn cors(mut self, cors: Cors) -> Server {
        self.cors = cors;
        self
    }

    /// With a line on standard error for each request; without one by default.
    pub fn log_accesses(mut self, yes: bool) -> Server {
        self.log_accesses = yes;
        self
    }

    /// With connections that somebody else counts too.
    pub(crate) fn connections(mut self, connections: Arc<Connections>) -> Server {
        self.connections = Some(connections);
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts and serves, for good: the way to stop is to end the process, at any moment.
    ///
    /// Rust's runtime has the process ignore SIGPIPE. A program that takes that back is ended by the
    /// first client that leaves in the middle of an answer.
    pub fn run(self, router: Router) -> ! {
        let connections = self.connections.unwrap_or_else(|| Connections::new(&self.limits));
        let (limits, cors, log_accesses) = (self.limits, self.cors, self.log_accesses);
        let log = until_it_works(|| Log::start(log_accesses));
        let site = Arc::new(Site { router, limits, cors, connections, log });
        let workers = until_it_works(|| {
            let (serving, refused) = (Arc::clone(&site), Arc::clone(&site));
            Workers::start(
                move |job, workers| match job {
                    Job::Serve(connection, peer) => serving.serve(connection, peer, workers),
                    Job::HandOver(connection, take) => serving.hand_over(connection, take),
                },
                move |error| {
                    refused.connections.let_one_give_way();
                    refused.connections.counts.threads_refused.fetch_add(1, Relaxed);
                    refused
                        .log
                        .say(format!("newswire: cannot start a thread: {error}; trying again"));
                },
            )
        });
        let acceptor = Arc::new(Acceptor { listener: self.listener, site, workers });
        let other = Arc::clone(&acceptor);
        until_it_works(move || {
            let (other, thread) = (Arc::clone(&other), thread::Builder::new());
            thread.name("accept".into()).spawn(move || other.accept())
        });
        acceptor.accept()
    }
}

/// Where connections come in.
struct Acceptor {
    listener: TcpListener,
    site: Arc<Site>,
    workers: Arc<Workers<Job>>,
}

impl Acceptor {
    /// What two threads do: the system lets 128 connections wait to be accepted and drops the next, whose
    /// client tries again a second later. When thousands come at once, and everyone wants the processor,
    /// two get twice the share of one.
    fn accept(&self) -> ! {
        let connections = &self.site.connections;
        let mut backoff = Backoff::new();
        loop {
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    backoff = Backoff::new();
                    connections.admit(socket, peer, |connection, peer| {
                        self.workers.submit(Job::Serve(connection, peer));
                    });
                }
                // Out of descriptors, most likely: they come back when a connection ends, and the
                // loop must live to see it.
                Err(error) => {
                    connections.counts.accept_errors.fetch_add(1, Relaxed);
                    connections.let_one_give_way();
                    let error =
                        format!("newswire: cannot accept a connection: {error}; trying again");
                    self.site.log.say(error);
                    thread::sleep(backoff.next());
                }
            }
        }
    }
}

/// Starts what a server cannot be without, on a machine that may refuse a thread just now.
fn until_it_works<T>(start: impl Fn() -> io::Result<T>) -> T {
    loop {
        match start() {
            Ok(started) => return started,
            Err(_) => thread::sleep(Backoff::LAST),
        }
    }
}

/// What every connection of a server shares.
struct Site {
    router: Router,
    limits: Limits,
    cors: Cors,
    connections: Arc<Connections>,
    log: Log,
}

/// What a thread is needed for.
enum Job {
    Serve(Connection, SocketAddr),
    /// The response has begun.
    HandOver(Connection, Take),
}

/// What becomes of a connection after a response.
enum After {
    /// It answered a request of this method, and the peer may send another.
    Next(Method),
    /// The peer may still be sending.
    Close,
    /// "A client that sends a "close" connection option MUST NOT send further requests on that
    /// connection" (RFC 9112, 9.6).
    CloseAtOnce,
    HandOver {
        take: Take,
        is_delayed: bool,
    },
}

impl Site {
    fn serve(&self, connection: Connection, peer: SocketAddr, workers: &Workers<Job>) {
        self.connections.counts.accepted.fetch_add(1, Relaxed);
        let stall = Some(self.limits.write_stall).filter(|stall| !stall.is_zero());
        // Both fail only for a peer that has left already.
        if connection.set_nodelay(true).and_then(|()| connection.set_write_timeout(stall)).is_err()
        {
            return;
        }
        let mut wire = Wire::new(connection);
        let (mut idle, mut has_published) = (self.limits.head_deadline, false);
        loop {
            // The next request of a busy peer is here when this thread's turn comes again: to let the
            // others go first costs less than to fall asleep and be woken. Not if what goes first
            // were the delivery of what has just been published: the more it finds, the better.
            if wire.unread().is_empty() && !has_published {
                wire.connection().await_peer_after(self.limits.write_stall);
                if wire.flush().is_err() {
                    return;
                }
                thread::yield_now();
            }
            let after = match self.read_head(&mut wire, idle) {
                Ok(Some(head)) => self.exchange(head, peer, &mut wire),
                Ok(None) => return,
                Err(refusal) => {
                    self.log.access(|| {
                        format!("{} {peer} - {}", Date::now().rfc3339(), refusal.status.0)
                    });
                    let origin = origin_of(wire.unread());
                    let mut response = self.cors.mark(origin.as_deref(), refusal.into());
                    let is_head = wire.unread().trim_ascii_start().starts_with(b"HEAD ");
                    response.write_head(false, Version::Http11, wire.owe());
                    let body = Some(response.into_body()).filter(|_| !is_head);
                    body.map_or(Ok(true), |body| self.write_body(body, &mut wire))
                        .map(|_| After::Close)
                }
            };
            match after {
                Ok(After::Next(method)) => {
                    idle = self.limits.idle;
                    has_published = matches!(method, Method::Post | Method::Put);
                }
                Ok(After::Close) => {
                    return wire.flush().map(|()| wire.connection().linger()).unwrap_or_default();
                }
                Ok(After::CloseAtOnce) => return wire.flush().unwrap_or_default(),
                Ok(After::HandOver { take, is_delayed }) => {
                    return match wire.flush() {
                        Ok(()) if is_delayed => {
                            workers.submit_later(Job::HandOver(wire.into_connection(), take))
                        }
                        Ok(()) => self.hand_over(wire.into_connection(), take),
                        Err(_) => {}
                    };
                }
                // The peer has left, or takes nothing: there is nobody to say anything to.
                Err(_) => return,
            }
        }
    }

    fn hand_over(&self, connection: Connection, take: Take) {
        self.guard(|| take(connection));
    }

    /// The next head; `None` when the peer has left, or said nothing for `idle`.
    fn read_head(&self, wire: &mut Wire, idle: Duration) -> Result<Option<Head>, Refusal> {
        let mut deadline = None;
        wire.connection().await_peer();
        loop {
            if !wire.unread().is_empty() {
                if let Some((head, length)) = Head::parse(wire.unread(), &self.limits)? {
                    wire.consume(length);
                    let is_open = wire.connection().resume();
                    return Ok(Some(head).filter(|_| is_open));
                }
                deadline.get_or_insert_with(|| Instant::now() + self.limits.head_deadline);
            }
            let wait = deadline
                .map_or(idle, |deadline| deadline.saturating_duration_since(Instant::now()));
            match wire.fill(wait) {
                Ok(0) if is_blank(wire.unread()) => return Ok(None),
                Ok(0) => return Err(Refusal::bad("The connection ended before the head did.")),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut && !is_blank(wire.unread()) => {
                    return Err(Refusal::new(
                        Status::REQUEST_TIMEOUT,
                        "The request did not arrive in time.",
                    ));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// One request and its response. The response of a request that another one follows at once may
    /// still be owed.
    fn exchange(&self, head: Head, peer: SocketAddr, wire: &mut Wire) -> io::Result<After> {
        self.connections.counts.requests.fetch_add(1, Relaxed);
        let has_content = head.framing() != Framing::None;
        let content = Content::new(wire, &self.limits, head.framing(), head.continue_awaited());
        let mut request = Request::new(head, peer, content, &self.limits);
        let answered = self
            .cors
            .preflight(&request)
            .or_else(|| self.guard(|| self.router.respond(&mut request)));
        // Nobody knows what a handler that panicked has left undone.
        let keeps = answered.is_some() && request.keeps_connection();
        let response = answered.unwrap_or_else(|| {
            Refusal::new(Status::INTERNAL_SERVER_ERROR, "The server failed to answer this request.")
                .into()
        });
        let mut response = self.cors.mark(request.field("origin"), response);
        // But a POST may have forgotten to announce its content, and on a stream a person may press any
        // key.
        let sends_no_more = request.lists("connection", "close")
            && !has_content
            && matches!(request.method(), Method::Get | Method::Head)
            && !response.is_close_delimited();
        let (method, version) = (request.method(), request.version());
        self.log.access(|| {
            format!("{} {peer} {} {}", Date::now().rfc3339(), request.line(), response.status().0)
        });
        let rest = request.into_content().into_rest();
        wire.connection().resume();

        let keep = keeps && rest.is_some() && !response.is_close_delimited();
        response.write_head(keep, version, wire.owe());
        if response.has_content(method) {
            match response.into_body() {
                Body::HandOver { opening, take, is_delayed } => {
                    wire.owe().extend_from_slice(&opening);
                    return Ok(After::HandOver { take, is_delayed });
                }
                body => {
                    if !self.write_body(body, wire)? {
                        return Ok(After::Close);
                    }
                }
            }
        }
        let goes_on = keep && rest.is_some_and(|rest| rest.skip(wire, &self.limits));
        Ok(if goes_on {
            After::Next(method)
        } else if sends_no_more && wire.unread().is_empty() {
            After::CloseAtOnce
        } else {
            After::Close
        })
    }

    /// Whether all that was promised was written.
    fn write_body(&self, body: Body, wire: &mut Wire) -> io::Result<bool> {
        if matches!(body, Body::Bytes(_) | Body::File(..)) {
            wire.connection().await_peer_after(self.limits.write_stall);
        }
        match body {
            Body::Bytes(content) if content.len() > COPIED_BYTES => {
                wire.flush_with(&content)?;
                Ok(true)
            }
            Body::Bytes(content) => {
                wire.owe().extend_from_slice(&content);
                if wire.owe().len() > OWED_BYTES {
                    wire.flush()?;
                }
                Ok(true)
            }
            Body::File(file, promised) => {
                wire.flush()?;
                // Somebody may cut the file short meanwhile: then only the close can tell the peer.
                Ok(io::copy(&mut file.take(promised), &mut &**wire.connection())? == promised)
            }
            Body::Stream { opening, run } => {
                wire.owe().extend_from_slice(&opening);
                wire.flush()?;
                self.guard(|| run(&mut &**wire.connection())).unwrap_or(Ok(()))?;
                Ok(true)
            }
            Body::HandOver { .. } => Ok(true),
        }
    }

    /// Runs what may be somebody else's code: a panic in it is counted, said by the panic hook, and
    /// costs this connection.
    fn guard<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        let outcome = catch_unwind(AssertUnwindSafe(run));
        if outcome.is_err() {
            self.connections.counts.panics.fetch_add(1, Relaxed);
        }
        outcome.ok()
    }
}

/// Line ends before a request line are ignored (RFC 9112, 2.2), and alone they are no request.
fn is_blank(unread: &[u8]) -> bool {
    unread.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}
