//! A server: it listens, accepts on two threads, and can be stopped.

use super::admission::Admission;
use super::cors::Cors;
use super::exchange::{Job, Service};
use super::limits::{InvalidLimits, Limits};
use super::lock::hold;
use super::log::Log;
use super::pool::{Backoff, Pool};
use super::router::Router;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
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
    listener: TcpListener,
    limits: Limits,
    cors: Cors,
    log_accesses: bool,
}

/// How long `accept` may take to see that the server stops.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

impl Server {
    /// Listens at the address; port 0 lets the system choose one, which [`local_addr`](Server::local_addr) tells.
    ///
    /// # Errors
    /// As [`TcpListener::bind`]: the port is taken, the address is not this machine's, or the process may not use
    /// ports below 1024.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Server> {
        Ok(Server::from_listener(TcpListener::bind(address)?))
    }

    /// Takes a listener that is listening already, in blocking mode.
    pub fn from_listener(listener: TcpListener) -> Server {
        Server { listener, limits: Limits::default(), cors: Cors::default(), log_accesses: false }
    }

    /// With these limits instead of the default ones.
    ///
    /// # Errors
    /// [`InvalidLimits`] names the field that is out of range.
    pub fn limits(mut self, limits: Limits) -> Result<Server, InvalidLimits> {
        limits.check()?;
        self.limits = limits;
        Ok(self)
    }

    /// With this policy for pages of other origins instead of the default one, which is any origin without
    /// credentials.
    pub fn cors(mut self, cors: Cors) -> Server {
        self.cors = cors;
        self
    }

    /// With a line on standard error for each request; without one by default.
    pub fn log_accesses(mut self, yes: bool) -> Server {
        self.log_accesses = yes;
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends: it may be killed at any moment.
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
    /// # Errors
    /// When the system refuses a thread, or does not say where the listener listens.
    pub fn serve(self, router: Router) -> io::Result<ServerHandle> {
        let admission = Admission::new(&self.limits);
        self.serve_with(router, admission)
    }

    /// As [`serve`](Server::serve), with connections that something else counts, too.
    pub(crate) fn serve_with(
        self,
        router: Router,
        admission: Arc<Admission>,
    ) -> io::Result<ServerHandle> {
        let addr = self.local_addr()?;
        let log = Log::start(self.log_accesses)?;
        let service = Arc::new(Service {
            router,
            limits: self.limits,
            cors: self.cors,
            admission: Arc::clone(&admission),
            log,
        });
        let (working, refused) = (Arc::clone(&service), Arc::clone(&service));
        let pool = Pool::start(
            move |job, pool| working.work(job, pool),
            move |error| {
                refused.admission.evict_one();
                refused.admission.counters.threads_refused.fetch_add(1, Relaxed);
                refused.log.say(format!("newswire: cannot start a thread: {error}; trying again"));
            },
        )?;
        let accepting =
            Arc::new(Acceptor { listener: self.listener, service, pool: Arc::clone(&pool) });
        let acceptors = (0..ACCEPT_THREADS).map(|_| {
            let accepting = Arc::clone(&accepting);
            thread::Builder::new().name("accept".into()).spawn(move || accepting.accept())
        });
        let acceptors = Arc::new(Mutex::new(acceptors.collect::<io::Result<_>>()?));
        Ok(ServerHandle { addr, admission, pool, acceptors })
    }
}

/// The system lets 128 connections wait to be accepted and drops the next one, whose client tries again a second later.
/// When thousands come at once, and every thread wants the processor, two threads get twice the share of one.
const ACCEPT_THREADS: usize = 2;

struct Acceptor {
    listener: TcpListener,
    service: Arc<Service>,
    pool: Arc<Pool<Job>>,
}

impl Acceptor {
    fn accept(&self) {
        let admission = &self.service.admission;
        let mut backoff = Backoff::new();
        while !admission.is_stopping() {
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    backoff = Backoff::new();
                    if let Some(connection) = admission.admit(socket, peer) {
                        self.pool.submit(Job::Serve(connection));
                    }
                }
                // Out of descriptors, most likely: they come back when a connection ends, and the loop must live to
                // see it.
                Err(error) => {
                    admission.counters.accept_errors.fetch_add(1, Relaxed);
                    admission.evict_one();
                    self.service.log.say(format!(
                        "newswire: cannot accept a connection: {error}; trying again"
                    ));
                    thread::sleep(backoff.next());
                }
            }
        }
    }
}

/// A server that serves. Dropping the handle does not stop it; every clone is a handle to the same server.
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
    admission: Arc<Admission>,
    pool: Arc<Pool<Job>>,
    acceptors: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl ServerHandle {
    /// Where the server listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, closes idle connections, and ends streams with a reconnection time; a request that is being
    /// answered still gets its answer. It does not wait for that: [`join`](ServerHandle::join) does.
    pub fn stop(&self) {
        self.admission.stop();
        self.pool.stop();
        // `accept` has no deadline. One connection for each thread wakes it.
        for _ in 0..ACCEPT_THREADS {
            let _ = TcpStream::connect_timeout(&reachable(self.addr), WAKE_TIMEOUT);
        }
    }

    /// Waits until the server stops accepting: for good, unless another handle stops it.
    pub fn wait(&self) {
        for thread in std::mem::take(&mut *hold(&self.acceptors)) {
            let _ = thread.join();
        }
    }

    /// Waits for the threads of a server that stops. When `deadline` has passed, connections that are left are cut, and
    /// their threads get another second.
    ///
    /// # Errors
    /// [`StillRunning`] when a handler does not return.
    pub fn join(&self, deadline: Duration) -> Result<(), StillRunning> {
        self.wait();
        if self.pool.join(Instant::now() + deadline) == 0 {
            return Ok(());
        }
        self.admission.end_all();
        match self.pool.join(Instant::now() + LAST_SECOND) {
            0 => Ok(()),
            threads => Err(StillRunning { threads }),
        }
    }
}

/// How long a thread may take to see that its connection was cut.
const LAST_SECOND: Duration = Duration::from_secs(1);

/// An address at which this machine reaches a listener of its own.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Handlers of a stopped server that have not returned in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillRunning {
    /// How many threads run them.
    pub threads: usize,
}

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads of the server have not returned from their handlers", self.threads)
    }
}

impl std::error::Error for StillRunning {}
