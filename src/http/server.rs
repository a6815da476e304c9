//! A server: it listens, accepts, and can be stopped.

use super::admission::Admission;
use super::back_off;
use super::connection::Connection;
use super::cors::Cors;
use super::exchange::{Job, Service};
use super::limits::{InvalidLimits, Limits};
use super::listener::{ACCEPT_THREADS, Address, LAST_SECOND, Listener};
use super::log::{self, Log, LogOptions};
use super::pool::{BACK_OFF, Pool, Threads};
use super::router::Router;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
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
/// Server::bind("127.0.0.1:8080")?.run(router)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    limits: Limits,
    cors: Cors,
    log: LogOptions,
}

impl Server {
    /// Listens at the address; port 0 lets the system choose one, which [`local_addr`](Server::local_addr) tells.
    ///
    /// # Errors
    /// As [`TcpListener::bind`]: the port is taken, the address is not this machine's, or the process may not use
    /// ports below 1024.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Server> {
        Ok(Server::from_listener(TcpListener::bind(address)?))
    }

    /// Serves on a listener that listens already. It is put in blocking mode, and gets the timeouts of connections.
    pub fn from_listener(listener: TcpListener) -> Server {
        Server::from_listeners(vec![listener.into()])
    }

    pub(crate) fn from_listeners(listeners: Vec<Listener>) -> Server {
        let (limits, cors, log) = (Limits::default(), Cors::default(), LogOptions::default());
        Server { listeners, limits, cors, log }
    }

    /// Sets the limits.
    ///
    /// # Errors
    /// [`InvalidLimits`] names the field that is out of range.
    pub fn limits(mut self, limits: Limits) -> Result<Server, InvalidLimits> {
        limits.check()?;
        self.limits = limits;
        Ok(self)
    }

    /// Sets the policy for pages of other origins. By default any origin may read, without credentials.
    pub fn cors(mut self, cors: Cors) -> Server {
        self.cors = cors;
        self
    }

    /// Whether each request has a line on standard error; by default none has.
    pub fn log_accesses(mut self, yes: bool) -> Server {
        self.log.accesses = yes;
        self
    }

    pub(crate) fn log(mut self, log: LogOptions) -> Server {
        if log.json {
            log::begin_json();
        }
        self.log = log;
        self
    }

    /// Where it listens; of several TCP addresses the first.
    ///
    /// # Errors
    /// When the system does not say, and when the server listens on Unix sockets only.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let addrs = self.addresses()?.into_iter().find_map(|address| match address {
            Address::Tcp(addr) => Some(addr),
            _ => None,
        });
        addrs.ok_or(ErrorKind::Unsupported.into())
    }

    /// Everywhere it listens.
    pub(crate) fn addresses(&self) -> io::Result<Vec<Address>> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Serves until the process ends. It may be killed at any moment.
    ///
    /// The runtime of Rust has the process ignore SIGPIPE. A program that takes that back is ended by the first client
    /// that leaves in the middle of an answer.
    ///
    /// # Errors
    /// As [`serve`](Server::serve).
    pub fn run(self, router: Router) -> io::Result<()> {
        self.serve(router)?.wait();
        Ok(())
    }

    /// Serves on threads of its own, until the handle stops it.
    ///
    /// Each time the table of descriptors doubles, Linux stops all threads that accept for some milliseconds. That matters when
    /// thousands of clients come at once. A program that opens as many descriptors, and closes them again, before it starts
    /// its first thread is spared that. The command does so.
    ///
    /// # Errors
    /// When the system refuses the first thread, or does not say where the listener listens. The threads that accept are
    /// started by the first one. One that is refused is said on standard error, and tried again.
    pub fn serve(self, router: Router) -> io::Result<ServerHandle> {
        let admission = Admission::new(&self.limits);
        self.serve_with(router, admission)
    }

    /// As [`serve`](Server::serve), with connections that the caller can count.
    pub(crate) fn serve_with(self, router: Router, admission: Arc<Admission>) -> io::Result<ServerHandle> {
        self.listeners.iter().try_for_each(|listener| listener.prepare(&self.limits))?;
        log::start();
        let addr = self.local_addr().unwrap_or(NO_ADDRESS);
        let threads = Arc::new(Threads::default());
        let service = Arc::new(Service {
            router,
            limits: self.limits,
            cors: self.cors,
            admission: Arc::clone(&admission),
            log: Log { options: self.log },
        });
        let (working, refused) = (Arc::clone(&service), Arc::clone(&service));
        let pool = Pool::start(
            &threads,
            move |job, pool| working.work(job, pool),
            move |error| {
                refused.admission.evict_one();
                refused.admission.counters.threads_refused.fetch_add(1, Relaxed);
                log::say(&format!("cannot start a thread: {error}; trying again"));
            },
        )?;
        let listeners: Vec<_> = self.listeners.into_iter().map(Arc::new).collect();
        // If the system has few threads, each listener should have one.
        for _ in 0..ACCEPT_THREADS {
            listeners.iter().for_each(|listener| pool.submit(Job::Accept(Arc::clone(listener))));
        }
        let listeners = listeners.iter().map(Arc::downgrade).collect();
        Ok(ServerHandle { addr, listeners, admission, pool, threads })
    }
}

/// Of a server that listens on Unix sockets only.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Service {
    fn work(&self, job: Job, pool: &Pool<Job>) {
        match job {
            Job::Accept(listener) => self.accept(Some(listener), pool),
            Job::Serve(connection, listener) => {
                self.serve(connection, pool);
                self.accept(listener.upgrade().filter(|_| !pool.has_jobs()), pool);
            }
            Job::Run(writer, run) => self.run(writer, run),
        }
    }

    /// Accepts a connection and serves it, again and again, while the listener needs the thread. To hand each connection over
    /// to a thread that sleeps would cost more than most requests.
    fn accept(&self, mut open: Option<Arc<Listener>>, pool: &Pool<Job>) {
        while let Some(listener) = open.take().filter(|listener| listener.begin_accepting()) {
            let weak = Arc::downgrade(&listener);
            let Some(connection) = self.next_connection(listener, pool) else { return };
            self.serve(connection, pool);
            // The connection may have outlasted the listener. Without threads, a job that waits may have only this one.
            open = weak.upgrade().filter(|_| !pool.has_jobs());
        }
    }

    /// The next connection for this thread; `None` when the listener is closed. The last thread that accepts goes on with that:
    /// it hands its connections over, however slow the clients are that the others serve.
    fn next_connection(&self, listener: Arc<Listener>, pool: &Pool<Job>) -> Option<Connection> {
        let mut pause = Duration::ZERO;
        while !listener.is_closed() {
            match listener.accept(&self.limits) {
                Ok((socket, peer)) => {
                    pause = Duration::ZERO;
                    match Connection::admit(&self.admission, socket, peer) {
                        Some(connection) if listener.end_accepting() => return Some(connection),
                        Some(connection) => pool.submit(Job::Serve(connection, Arc::downgrade(&listener))),
                        None => {}
                    }
                }
                Err(error)
                    if listener.is_closed() || matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // Most likely the process has no descriptor left. One comes back when a connection ends.
                Err(error) => {
                    self.admission.counters.accept_errors.fetch_add(1, Relaxed);
                    self.admission.evict_one();
                    log::say(&format!("cannot accept a connection: {error}; trying again"));
                    pause = back_off::longer(pause, BACK_OFF);
                    thread::sleep(pause);
                }
            }
        }
        None
    }
}

/// A server that serves. Dropping the handle does not stop it. Every clone is a handle to the same server.
///
/// ```
/// use newswire::{Router, Server};
/// use std::time::Duration;
///
/// let server = Server::bind("127.0.0.1:0")?.serve(Router::new())?;
/// println!("http://{}/", server.addr());
/// server.stop();
/// server.join(Duration::from_secs(10))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    addr: SocketAddr,
    /// The threads that accept hold them.
    listeners: Vec<Weak<Listener>>,
    admission: Arc<Admission>,
    pool: Arc<Pool<Job>>,
    threads: Arc<Threads>,
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl ServerHandle {
    /// Where the server listens; of several TCP addresses the first. `0.0.0.0:0` when it listens on Unix sockets only.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, closes idle connections, and ends each stream with a reconnection time. A request that is
    /// being answered still gets its answer; one that waits for a place does not. It does not wait for the end of all
    /// that: [`join`](ServerHandle::join) does.
    pub fn stop(&self) {
        if !self.admission.stop() {
            return;
        }
        self.pool.stop();
        self.close_listeners();
    }

    fn close_listeners(&self) {
        self.listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.close());
    }

    /// Stops accepting, and serves what was accepted: a connection gets a second to send its first request. Where another
    /// process goes on with the same listener, no client notices that this one has stopped.
    pub(crate) fn stop_accepting(&self) {
        self.close_listeners();
        let deadline = Instant::now() + LAST_SECOND;
        let is_accepting = || self.listeners.iter().any(|listener| listener.strong_count() > 0);
        while (is_accepting() || self.admission.counts().1 > 0) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the server was stopped by another handle and all of its threads have ended.
    pub fn wait(&self) {
        self.threads.join(Duration::MAX);
    }

    /// Stops the server, and waits for the end of its threads. When `deadline` has passed, all connections are closed,
    /// and the threads get another second. The lines of the log get a second, too.
    ///
    /// # Errors
    /// [`StillRunning`] when a handler does not return.
    pub fn join(&self, deadline: Duration) -> Result<(), StillRunning> {
        self.stop();
        let mut threads = self.threads.join(deadline);
        if threads > 0 {
            self.admission.end_all();
            threads = self.threads.join(LAST_SECOND);
        }
        log::wait_until_written(LAST_SECOND);
        match threads {
            0 => Ok(()),
            threads => Err(StillRunning { threads }),
        }
    }
}

/// A handler of a stopped server has not returned in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillRunning {
    /// How many threads are left: one for each such handler.
    pub threads: usize,
}

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} threads of the stopped server are left, because a handler does not return; end what it waits for",
            self.threads
        )
    }
}

impl std::error::Error for StillRunning {}
