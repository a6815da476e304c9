//! The server that the command line starts: what it may be told, and how it listens and serves.

use super::access::{Access, Publishers};
use super::routes::{PAGE, Shared, router};
use crate::channel::{self, Channels};
use crate::http::admission::Admission;
use crate::http::{self, Cors, Files, Router, Server, ServerHandle};
use crate::lab::Lines;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

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
