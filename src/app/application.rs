//! The server that the command line starts: what it may be told, and how it listens and serves.

use super::access::{Access, Publishers};
use super::drain::{Drain, Drained};
use super::routes::{Shared, is_taken, router};
use super::site::PAGE;
use super::subscribe::Create;
use crate::channel::{self, Channels, Storage};
use crate::http::admission::Admission;
use crate::http::listener::Listener;
use crate::http::{self, Address, Cors, Files, LogOptions, Router, Server, ServerHandle, Url};
use crate::lab::Lines;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// What the command line says. [`App::listen`] makes a server of it.
#[derive(Clone, Debug)]
pub struct App {
    /// Where to listen; `127.0.0.1:8080`.
    pub addresses: Vec<Address>,
    /// A path under which everything is served, too, as `/push`; none. No route, and no file of the page, may begin with it.
    pub base: Option<String>,
    /// A directory that is served in place of the page; none.
    pub www: Option<PathBuf>,
    /// The origins from which pages may read; any, without credentials.
    pub cors: Cors,
    /// The bounds of the server.
    pub limits: http::Limits,
    /// The bounds of its channels.
    pub channel_limits: channel::Limits,
    /// Where their logs are; in memory.
    pub storage: Storage,
    /// The clients that may publish; none.
    pub publishers: Publishers,
    /// The file that says which keys may publish on which channels, and subscribe to which; none. It is read again within
    /// two seconds of a change.
    pub access_file: Option<PathBuf>,
    /// The application that is asked about each subscription and publish of a channel that the file does not name; none.
    /// There are 64 questions at a time at most, and one for each four connections; each has a thread of its own, and two
    /// seconds. What its `Cache-Control: max-age` lets be kept is 1,024 decisions and 4 MiB at most.
    pub authorize: Option<Url>,
    /// The clients that may begin a channel by subscribing to it; all.
    pub create: Create,
    /// Whether `/lab` is served on an address that is not loopback, too; it is not.
    pub lab: bool,
    /// Whether each request is a line on standard error; it is.
    pub log_accesses: bool,
    /// Whether each of these lines is a JSON object; it is not.
    pub log_json: bool,
    /// The peers that say in `Forwarded` or `X-Forwarded-For` which client the log names; none. `None` stands for the
    /// clients of a Unix socket.
    pub trusted_proxies: Vec<Option<IpAddr>>,
}

impl Default for App {
    fn default() -> App {
        App {
            addresses: vec![Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))],
            base: None,
            www: None,
            cors: Cors::default(),
            limits: http::Limits::default(),
            channel_limits: channel::Limits::default(),
            storage: Storage::Memory,
            publishers: Publishers::None,
            access_file: None,
            authorize: None,
            create: Create::Anyone,
            lab: false,
            log_accesses: true,
            log_json: false,
            trusted_proxies: Vec::new(),
        }
    }
}

impl App {
    /// Takes the port, opens the directory, and starts the fan-out threads.
    ///
    /// # Errors
    /// One sentence that says which of these failed, and why; or which field is out of range.
    pub fn listen(self) -> io::Result<Listening> {
        let failed = |what: String| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        let files = match &self.www {
            None => Files::embedded(PAGE),
            Some(path) => Files::directory(path).map_err(failed(format!("cannot serve the directory {path:?}")))?,
        };
        self.limits.check()?;
        if let Some(base) = self.base.as_deref().filter(|base| is_taken(base, self.www.as_deref())) {
            let sentence = format!("--base cannot be {base}: the server has paths of its own under it");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let admission = Admission::new(&self.limits);
        let connections = self.limits.connections;
        let listener =
            |address: &Address| Listener::bind(address).map_err(failed(format!("cannot listen on {address}")));
        let listeners = self.addresses.iter().map(listener).collect::<io::Result<_>>()?;
        let (accesses, json) = (self.log_accesses, self.log_json);
        let server = Server::from_listeners(listeners).limits(self.limits)?.cors(self.cors.clone()).log(LogOptions {
            accesses,
            json,
            trusted_proxies: self.trusted_proxies,
        });
        let addresses = server.addresses()?;
        let public = addresses.iter().find(|address| !address.is_local());
        if let (Publishers::Anyone, Some(address)) = (&self.publishers, public) {
            let sentence = format!(
                "--publish-open lets every client publish that reaches the server, and {address} is not a loopback \
                 address; use --publish-token-file instead"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let (keys, authorize) = (self.access_file, self.authorize);
        let access = Access::start(self.publishers, self.cors, &addresses, keys, authorize, connections)?;
        let channels = Channels::start_with(self.channel_limits, self.storage)
            .map_err(failed("cannot start the channels".to_owned()))?;
        let has_lab = self.lab || public.is_none();
        let (drain, drained) = Drain::new();
        let mut router = router(Shared {
            files,
            channels: channels.clone(),
            lines: has_lab.then(Lines::default),
            access,
            create: self.create,
            admission: Arc::clone(&admission),
            drain,
        });
        self.base.iter().for_each(|base| router.base(base));
        Ok(Listening { server, router, channels, admission, drained })
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
    drained: Drained,
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Listening {
    /// Where it listens: with port 0 in [`App::addresses`], the port that the system has chosen. Of several TCP addresses it is
    /// the first.
    ///
    /// # Errors
    /// When the system does not say, and when it listens on Unix sockets only.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.server.local_addr()
    }

    /// Everywhere it listens. [`Address::Stdin`] is the address of the socket that standard input is.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> io::Result<Vec<Address>> {
        self.server.addresses()
    }

    /// The channels, to publish from this process.
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// Serves on threads of its own, until the handle stops it, or a client drains it.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn serve(self) -> io::Result<ServerHandle> {
        Ok(self.start()?.0)
    }

    /// Serves until a client drains the server.
    ///
    /// # Errors
    /// As [`serve`](Listening::serve).
    pub fn run(self) -> io::Result<()> {
        // The thread does not panic, and if it did, the server would be gone. What it returns is dropped here, when
        // everything else of the server is gone.
        drop(self.start()?.1.join());
        Ok(())
    }

    fn start(self) -> io::Result<(ServerHandle, JoinHandle<Vec<TcpStream>>)> {
        let connections = Arc::clone(&self.admission);
        let handle = self.server.serve_with(self.router, self.admission)?;
        let (drained, stopping) = (self.drained, handle.clone());
        let wait = move || drained.wait(&stopping, &self.channels, &connections);
        let thread = thread::Builder::new().name("drain".into()).spawn(wait);
        Ok((handle.clone(), thread.inspect_err(|_| handle.stop())?))
    }
}
