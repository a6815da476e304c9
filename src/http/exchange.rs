//! Requests and their responses on one connection. Every response of the server leaves through [`Service::answer`]: that
//! of a handler, a refusal, that of a head which cannot be read, and that of a handler that panicked.

use super::admission::Admission;
use super::connection::Connection;
use super::content::Rest;
use super::cors::Cors;
use super::forwarded::{client_of, name_of};
use super::head::{Framing, Head, Method, Version};
use super::head_parser::{HeadParser, origin_of};
use super::limits::Limits;
use super::listener::Listener;
use super::log::Log;
use super::pool::Pool;
use super::request::Request;
use super::response::{Body, Response};
use super::router::Router;
use super::slot::GRACE;
use super::status::{Refusal, Status};
use super::stream::{Pace, Run, Stream, StreamWriter};
use super::wire::{READ_BYTES, Wire};
use std::io::{self, ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Responses to pipelined requests leave together, from a write buffer of this size; with their fields it stays below
/// 16 KiB. The allocator may keep what a thread once had: a larger buffer would cost more memory than [`Limits`] say.
const BUFFER_BYTES: usize = 12 * 1024;

/// A larger content is not copied to the write buffer.
const COPIED_BYTES: usize = 4 * 1024;

/// How much of a file is in memory.
const PIECE_BYTES: usize = 16 * 1024;

/// What all connections of a server share.
pub(super) struct Service {
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) cors: Cors,
    pub(super) admission: Arc<Admission>,
    pub(super) log: Log,
}

/// What a thread is needed for.
pub(super) enum Job {
    /// Accepts connections and serves them.
    Accept(Arc<Listener>),
    /// Serves a connection that was accepted there, and then accepts others if it is needed there.
    Serve(Connection, Weak<Listener>),
    /// Runs a stream. Its opening has left.
    Run(StreamWriter, Run),
}

/// How a response is to be sent.
struct Reply {
    method: Method,
    version: Version,
    /// The peer sends nothing more, so that the connection can be closed at once.
    is_last: bool,
    /// The content of the request that no handler asked for, with the next request behind it; `None` when the connection
    /// is not kept, or the next request cannot be found.
    rest: Option<Rest>,
}

/// What becomes of a connection after a response.
enum After {
    /// Serve the next request; the method is of this one.
    Next(Method),
    /// The peer may still be sending.
    Close,
    /// "A client that sends a "close" connection option MUST NOT send further requests on that connection" (RFC 9112,
    /// 9.6).
    CloseAtOnce,
    Stream(Stream),
}

impl Service {
    /// Answers one request after another. An error in between means that the peer has left, or that the connection was
    /// evicted.
    pub(super) fn serve(&self, connection: Connection, pool: &Pool<Job>) {
        let mut wire = Wire::new(connection);
        let (mut wait, mut is_idle) = (self.limits.head_deadline, false);
        loop {
            // The next request of a busy peer has often arrived when this thread runs again. A yield costs less than a
            // read that falls asleep and is woken: without it a request costs a third more. After a publish it would
            // let the fan-out threads run, which write less with each call when they run early.
            if wire.unread().is_empty() && is_idle {
                if wire.flush().is_err() {
                    return;
                }
                thread::yield_now();
            }
            let after = match self.read_head(&mut wire, wait) {
                Ok(Some(head)) => self.exchange(head, &mut wire),
                Ok(None) => return,
                Err(refusal) => self.refuse_head(refusal, &mut wire),
            };
            match after {
                Ok(After::Next(method)) => {
                    wait = self.limits.idle;
                    is_idle = !matches!(method, Method::Post | Method::Put);
                }
                Ok(After::Close) => {
                    if wire.flush().is_ok() {
                        wire.connection().linger();
                    }
                    return;
                }
                Ok(After::CloseAtOnce) => {
                    let _ = wire.flush();
                    return;
                }
                Ok(After::Stream(stream)) => return self.begin_stream(stream, wire, pool),
                Err(_) => return,
            }
        }
    }

    /// The next head. `None` when the peer has left or has sent nothing for `wait`, when the connection was evicted, and
    /// when the server stops.
    fn read_head(&self, wire: &mut Wire, wait: Duration) -> Result<Option<Head>, Refusal> {
        let (mut parser, mut deadline) = (HeadParser::default(), None);
        loop {
            if !wire.unread().is_empty()
                && let Some((head, length)) = parser.parse(wire.unread(), &self.limits)?
            {
                wire.consume(length);
                let is_whole = self.has_arrived(&head, wire);
                return Ok(Some(head).filter(|_| wire.connection().take_place(is_whole)));
            }
            if wire.flush().is_err() {
                return Ok(None);
            }
            if wire.unread().is_empty() {
                if !wire.connection().wait_for_request() {
                    return Ok(None);
                }
            } else if deadline.is_none() {
                deadline = Some(Instant::now() + self.limits.head_deadline);
                wire.connection().wait_for_peer();
            }
            let wait = deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()));
            match wire.fill(wait) {
                Ok(0) if is_blank(wire.unread()) => return Ok(None),
                Ok(0) => return Err(Refusal::bad("The connection ended before the head did.")),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut && !is_blank(wire.unread()) => {
                    return Err(Refusal::new(Status::REQUEST_TIMEOUT, "The request did not arrive in time."));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Whether the content has arrived, too. Many clients send it in a write of its own, right behind the head. When a
    /// request must wait for a place, that is waited for, so that a publish does not stand in the queue of the uploads.
    fn has_arrived(&self, head: &Head, wire: &mut Wire) -> bool {
        let missing = |wire: &Wire| match head.framing() {
            Framing::None => 0,
            Framing::Length(bytes) => bytes.saturating_sub(wire.unread().len() as u64),
            Framing::Chunked => u64::MAX,
        };
        let is_short = (1..=READ_BYTES as u64).contains(&missing(wire));
        if is_short && !head.continue_awaited && wire.connection().must_wait() {
            let _ = wire.fill(GRACE);
        }
        missing(wire) == 0
    }

    /// Answers a head that cannot be read, and closes the connection.
    fn refuse_head(&self, refusal: Refusal, wire: &mut Wire) -> io::Result<After> {
        let peer = wire.connection().peer;
        let status = refusal.status.0;
        self.log.access(|| (name_of(peer), None, status));
        let is_head = wire.unread().trim_ascii_start().starts_with(b"HEAD ");
        let reply = Reply {
            method: if is_head { Method::Head } else { Method::Get },
            version: Version::Http11,
            is_last: false,
            rest: None,
        };
        let origin = origin_of(wire.unread());
        self.answer(self.cors.add_fields(origin.as_deref(), refusal.into()), reply, wire)
    }

    fn exchange(&self, mut head: Head, wire: &mut Wire) -> io::Result<After> {
        self.router.enter_base(&mut head);
        self.admission.counters.requests.fetch_add(1, Relaxed);
        let peer = wire.connection().peer;
        let mut request = Request::new(head, wire, &self.limits);
        let answered = match request.content.check_arrived() {
            Err(refusal) => Some(refusal.into()),
            Ok(()) => {
                self.cors.preflight(&request, &self.router).or_else(|| self.guard(|| self.router.respond(&mut request)))
            }
        };
        let is_whole = answered.is_some();
        let response = answered.unwrap_or_else(|| PANICKED.into());
        // From here on the connection cannot be evicted, and so it can be counted as a stream.
        if !request.connection().resume() {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        // A handler that panicked has left its work undone. A stream lasts as long as its connection, and a refused one
        // gives its place to another client at once.
        let keeps_connection = is_whole
            && !response.is_close_delimited()
            && request.keeps_connection()
            && self.admission.keeps_connections();
        // This is the only place that counts streams.
        let response = match response.is_close_delimited() && !request.connection().take_stream() {
            true => response.full(),
            false => response,
        };
        let response = self.cors.add_fields(request.field("origin"), response);
        self.log.access(|| {
            let client = client_of(&request, peer, &self.log.options.trusted_proxies);
            (client, Some(request.line()), response.status().0)
        });
        let reply = Reply {
            method: request.method(),
            version: request.version(),
            // A POST may have forgotten to announce its content.
            is_last: request.lists("connection", "close")
                && request.framing() == Framing::None
                && matches!(request.method(), Method::Get | Method::Head),
            rest: request.content.into_rest().filter(|_| keeps_connection),
        };
        self.answer(response, reply, wire)
    }

    /// Writes the head, and the content unless the method or the status forbids it.
    fn answer(&self, response: Response, reply: Reply, wire: &mut Wire) -> io::Result<After> {
        response.write_head(reply.rest.is_some(), reply.version, wire.out());
        let mut is_whole = true;
        if response.has_content(reply.method) {
            match response.into_body() {
                Body::Stream(stream) => return Ok(After::Stream(stream)),
                Body::Bytes(content) => write_bytes(&content, wire)?,
                Body::File(file, promised) => is_whole = write_file(file, promised, wire)?,
            }
        }
        if is_whole && reply.rest.is_some_and(|rest| rest.skip(wire, &self.limits)) {
            return Ok(After::Next(reply.method));
        }
        let closes_at_once = reply.is_last && is_whole && wire.unread().is_empty();
        Ok(if closes_at_once { After::CloseAtOnce } else { After::Close })
    }

    /// Sends the head and the opening of a stream in one write, unless the run does, and runs it.
    fn begin_stream(&self, mut stream: Stream, mut wire: Wire, pool: &Pool<Job>) {
        let head = std::mem::take(wire.out());
        let mut writer = StreamWriter::new(wire.into_connection());
        if let Some(prepare) = stream.prepare.take() {
            prepare(&mut writer, &head);
        }
        writer.begin(head, &stream.opening);
        if stream.pace != Pace::Joined {
            if writer.flush().is_err() {
                return;
            }
            writer.connection().set_farewell(stream.farewell.unwrap_or(Vec::new));
        }
        match stream.pace {
            Pace::Delayed => pool.submit_later(Job::Run(writer, stream.run)),
            Pace::AtOnce | Pace::Joined => self.run(writer, stream.run),
        }
    }

    /// An error of a stream means that the client has left.
    pub(super) fn run(&self, writer: StreamWriter, run: Run) {
        self.guard(|| {
            let _ = run(writer);
        });
    }

    /// Runs a handler. A panic in it is counted, the panic hook reports it, and it costs this connection.
    fn guard<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        let outcome = catch_unwind(AssertUnwindSafe(run));
        if outcome.is_err() {
            self.admission.counters.panics.fetch_add(1, Relaxed);
        }
        outcome.ok()
    }
}

const PANICKED: Refusal = Refusal::new(Status::INTERNAL_SERVER_ERROR, "The server failed to answer this request.");

fn write_bytes(content: &[u8], wire: &mut Wire) -> io::Result<()> {
    if content.len() > COPIED_BYTES || wire.out().len() + content.len() > BUFFER_BYTES {
        return wire.flush_with(content);
    }
    wire.out().extend_from_slice(content);
    Ok(())
}

/// `false` when the file has become shorter: then only the end of the connection can tell the peer.
fn write_file(file: std::fs::File, promised: u64, wire: &mut Wire) -> io::Result<bool> {
    wire.flush()?;
    let (mut file, mut written) = (file.take(promised), 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(written == promised),
            Ok(bytes) => {
                wire.connection().write_all(&piece[..bytes])?;
                written += bytes as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A server ignores empty lines before a request line (RFC 9112, 2.2). Alone they are no request.
fn is_blank(unread: &[u8]) -> bool {
    unread.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}
