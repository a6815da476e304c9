//! Which requests may read and publish: the one place that decides it.

use super::authorization::Authorization;
use super::host::{host_of, is_at_loopback};
use super::keys::{Action, Keys, Line, SHORTEST_KEY, Verdict, is_same, presented, read_file};
use super::revocation::{Grant, Granted, INTERVAL};
use crate::http::connection::Closer;
use crate::http::lock::hold;
use crate::http::log;
use crate::http::{Address, Cors, Head, Refusal, Request, Response, Status, Url};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::thread;

/// Which clients may publish.
#[derive(Clone, PartialEq, Eq)]
pub enum Publishers {
    /// None.
    None,
    /// All that can reach the server. [`App::listen`](super::App::listen) refuses this on an address that is not
    /// loopback.
    Anyone,
    /// Those that send this token as a key, for instance as `Authorization: Bearer TOKEN`.
    Bearer(String),
}

/// Without the token: a program that logs its configuration must not log the token.
impl fmt::Debug for Publishers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Publishers::None => "None",
            Publishers::Anyone => "Anyone",
            Publishers::Bearer(_) => "Bearer(_)",
        })
    }
}

/// The rules of one server. A route takes one of the methods as its rule.
pub(super) struct Access {
    publishers: Publishers,
    cors: Cors,
    /// Whether a browser on this machine reaches the server at a loopback address, or a proxy at a Unix socket; maybe at
    /// other addresses, too.
    on_loopback: bool,
    /// The addresses at which it listens.
    own: Vec<IpAddr>,
    file: Option<PathBuf>,
    keys: Mutex<Arc<Keys>>,
    pub(super) authorization: Option<Arc<Authorization>>,
    pub(super) granted: Granted,
    /// Requests without a key that allows them.
    pub(super) refused: AtomicU64,
    /// Changes of the file that were not taken.
    pub(super) file_errors: AtomicU64,
}

impl Access {
    /// For a server that listens at these addresses. With a file of keys, or an application that authorizes, a thread
    /// reviews the file and the streams; it ends with the last handle.
    ///
    /// # Errors
    /// What is wrong with the file, or why there is no thread.
    pub(super) fn start(
        publishers: Publishers,
        cors: Cors,
        addresses: &[Address],
        file: Option<PathBuf>,
        authorize: Option<Url>,
        connections: usize,
    ) -> io::Result<Arc<Access>> {
        let (mut text, mut lines) = (String::new(), Vec::new());
        if let Some(file) = &file {
            text = read_file(file).map_err(|error| unusable(file, &error))?;
            lines = Line::parse_all(&text).map_err(|what| unusable(file, &what))?;
        }
        if let Publishers::Bearer(token) = &publishers
            && token.len() < SHORTEST_KEY
        {
            // Earlier versions took any token, and a server that does not start any more helps no operator.
            log::say(SHORT_TOKEN);
        }
        let ip = |address: &Address| match address {
            Address::Tcp(addr) => Some(addr.ip()),
            _ => None,
        };
        let access = Arc::new(Access {
            keys: Mutex::new(Arc::new(keys(lines, &publishers))),
            publishers,
            cors,
            on_loopback: addresses.iter().any(Address::is_local),
            own: addresses.iter().filter_map(ip).collect(),
            file,
            authorization: authorize.map(|url| Authorization::new(url, connections)),
            granted: Granted::default(),
            refused: AtomicU64::new(0),
            file_errors: AtomicU64::new(0),
        });
        if access.reviews() {
            let reviewed = Arc::downgrade(&access);
            let thread = thread::Builder::new().name("access".into());
            let reading = Reading { last: Ok(text.clone()), taken: Ok(text) };
            thread.spawn(move || review(&reviewed, reading))?;
        }
        Ok(access)
    }

    /// Streams, the list of channels, the metrics and the page. They are open to a page of any origin unless the
    /// command line names origins.
    pub(super) fn read(&self, request: &Request<'_>) -> Result<(), Refusal> {
        if self.cors.is_open() {
            return Ok(());
        }
        self.check_host_and_origin(request)
    }

    /// That no page of another site has sent the request. Cutting a line needs no more, because the page cuts lines of its own.
    pub(super) fn check_host_and_origin(&self, request: &Request<'_>) -> Result<(), Refusal> {
        self.check_host(request)?;
        self.check_origin(request)
    }

    /// Publishing an event, and completing a channel.
    pub(super) fn publish(&self, request: &Request<'_>) -> Result<Grant, Refusal> {
        self.grant(Action::Publish, request, || match self.publishers {
            Publishers::Anyone => Ok(()),
            // With keys, a client does not learn which channels have one.
            Publishers::None if self.file.is_none() => Err(PUBLISHING_IS_OFF),
            _ => Err(self.refuse()),
        })
    }

    /// Whether the client has a key to publish, or needs none. The application that authorizes is not asked: it decides about
    /// requests that publish.
    pub(super) fn may_publish(&self, request: &Request<'_>) -> bool {
        let Ok(channels) = channels_of(request) else { return false };
        let is_open = self.publishers == Publishers::Anyone && self.authorization.is_none();
        match self.keys().judge(Action::Publish, channels, &presented(request)) {
            Verdict::Allowed => true,
            Verdict::Unnamed => is_open && self.check_host_and_origin(request).is_ok(),
            Verdict::Forbidden => false,
        }
    }

    /// Subscribing to a channel, or to several.
    pub(super) fn subscribe(&self, request: &Request<'_>) -> Result<Grant, Refusal> {
        self.grant(Action::Subscribe, request, || Ok(()))
    }

    /// `unnamed` decides about channels that no line names, when there is no application to ask.
    fn grant(
        &self,
        action: Action,
        request: &Request<'_>,
        unnamed: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Grant, Refusal> {
        let (channels, keys, presented) = (channels_of(request)?, self.keys(), presented(request));
        let verdict = keys.judge(action, channels, &presented);
        let until = match (verdict, &self.authorization) {
            (Verdict::Allowed, _) => None,
            (Verdict::Unnamed, Some(application)) => application.ask(request, channels)?,
            (Verdict::Unnamed, None) => unnamed().map(|()| None)?,
            (Verdict::Forbidden, _) => return Err(self.refuse()),
        };
        let presented = keys.known(presented);
        Ok(Grant { action, channels: channels.to_owned(), presented, keys, verdict, until, upload: None })
    }

    /// Ends the stream of a response when its grant does not hold any more.
    pub(super) fn watch(self: &Arc<Access>, grant: Grant, response: Response) -> Response {
        if !self.reviews() {
            return response;
        }
        let access = Arc::clone(self);
        response.prepare(move |writer, _| access.granted.add(writer.closer(), grant))
    }

    /// Ends the connection of an upload when its grant does not hold any more, until what this returns is dropped.
    pub(super) fn watch_upload(&self, grant: Grant, closer: Closer) -> Arc<()> {
        let upload = Arc::new(());
        if self.reviews() {
            self.granted.add(closer, Grant { upload: Some(Arc::downgrade(&upload)), ..grant });
        }
        upload
    }

    /// Whether a client may see that a channel is there. The application is not asked about each of a list.
    pub(super) fn sees(&self, request: &Request<'_>) -> impl Fn(&str) -> bool + Send + use<> {
        let keys = self.keys();
        // A list may have many channels, and a client may send a long key that no line has.
        let presented = keys.known(presented(request));
        let sees_unnamed = self.authorization.is_none();
        move |name| match keys.judge(Action::Subscribe, name, &presented) {
            Verdict::Unnamed => sees_unnamed,
            verdict => verdict == Verdict::Allowed,
        }
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&hold(&self.keys))
    }

    fn reviews(&self) -> bool {
        self.file.is_some() || self.authorization.is_some()
    }

    fn refuse(&self) -> Refusal {
        self.refused.fetch_add(1, Relaxed);
        KEY_NEEDED
    }

    /// Takes the keys of the file if it has changed and is sound. It is read each time: a change within the same tick of
    /// the file system's clock must not be missed. A text counts once two reads have found it: the first one may have met
    /// a program that was still writing, and a file without its last lines leaves channels open.
    fn read_again(&self, file: &Path, reading: &mut Reading) {
        let text = read_file(file).map_err(|error| error.to_string());
        if text != reading.last || text == reading.taken {
            reading.last = text;
            return;
        }
        reading.taken = text.clone();
        match text.and_then(|text| Line::parse_all(&text)) {
            Ok(lines) => *hold(&self.keys) = Arc::new(keys(lines, &self.publishers)),
            Err(what) => {
                self.file_errors.fetch_add(1, Relaxed);
                log::say(&format!("{}; the keys stay as they were", unusable(file, &what)));
            }
        }
    }

    /// Whether the request has the token of the publishers, which opens more than the keys of the file: these are for
    /// channels. `None` where no client needs a key, so that there is no token, either.
    pub(super) fn has_token(&self, request: &Request<'_>) -> Option<Result<(), Refusal>> {
        let Publishers::Bearer(token) = &self.publishers else {
            return self.reviews().then_some(Err(NO_TOKEN));
        };
        let keys = presented(request);
        let is_token = keys.iter().any(|key| is_same(key.as_bytes(), token.as_bytes()));
        Some(if is_token { Ok(()) } else { Err(self.refuse()) })
    }

    /// DNS rebinding: the name of evil.example changes to 127.0.0.1 while its page is open. The browser takes this
    /// server for evil.example then, so that nothing is cross-origin, but `Host` still has the name. Only a program
    /// that is not a browser sends no `Host`.
    fn check_host(&self, head: &Head) -> Result<(), Refusal> {
        let authority = head.authority().to_ascii_lowercase();
        let is_known = is_at_loopback(head) || self.is_own(host_of(&authority)) || self.cors.names_host(&authority);
        if is_known || !self.on_loopback { Ok(()) } else { Err(FOREIGN_HOST) }
    }

    /// An address in `Host` is not rebound: it is the one to which the browser has connected.
    fn is_own(&self, host: &str) -> bool {
        let is_at = |ip: IpAddr| self.own.iter().any(|own| *own == ip || own.is_unspecified());
        host.parse().is_ok_and(is_at)
    }

    /// A page of any origin can make its browser send a request here, although it cannot read the answer. Our own
    /// origin is the one that the request was sent to (RFC 6454, 4). This server speaks plain HTTP: behind a proxy that
    /// adds TLS, the page has another origin, which the command line must name. `null` is the origin of a sandbox.
    fn check_origin(&self, head: &Head) -> Result<(), Refusal> {
        let Some(origin) = head.field("origin") else { return Ok(()) };
        let authority = head.authority().to_ascii_lowercase();
        let is_own = !authority.is_empty() && origin == format!("{}://{authority}", head.scheme());
        if is_own || self.cors.names(origin) { Ok(()) } else { Err(FOREIGN_ORIGIN) }
    }
}

/// The most channels that one request may name.
const CHANNELS: usize = 64;

fn channels_of<'r>(request: &'r Request<'_>) -> Result<&'r str, Refusal> {
    let channels = request.parameter("name").unwrap_or_default();
    let is_too_many = channels.split(',').nth(CHANNELS).is_some();
    if is_too_many { Err(TOO_MANY_CHANNELS) } else { Ok(channels) }
}

const TOO_MANY_CHANNELS: Refusal = Refusal::bad("A request names 64 channels at most.");

/// The keys of the file, and the token.
fn keys(mut lines: Vec<Line>, publishers: &Publishers) -> Keys {
    if let Publishers::Bearer(token) = publishers {
        lines.push(Line::publisher(token));
    }
    Keys::new(lines)
}

fn unusable(file: &Path, what: &dyn fmt::Display) -> io::Error {
    let sentence = format!("cannot use the keys in {file:?}: {what}");
    io::Error::new(io::ErrorKind::InvalidInput, sentence)
}

/// What the file had when it was read last, and when its text was taken or found to be wrong.
struct Reading {
    last: Result<String, String>,
    taken: Result<String, String>,
}

/// Reviews the file and the streams until the last handle is gone.
fn review(access: &Weak<Access>, mut reading: Reading) {
    loop {
        thread::sleep(INTERVAL);
        let Some(access) = access.upgrade() else { return };
        if let Some(file) = &access.file {
            access.read_again(file, &mut reading);
        }
        access.granted.review(&access.keys());
    }
}

const SHORT_TOKEN: &str = "the token in the file of --publish-token-file has fewer than 16 characters, so that it can be guessed; \
     openssl rand -hex 16 makes a better one";
const PUBLISHING_IS_OFF: Refusal = Refusal::new(
    Status::FORBIDDEN,
    "Publishing is off. Start the server with --publish-token-file FILE, or on a loopback address with --publish-open.",
);
const NO_TOKEN: Refusal = Refusal::new(
    Status::FORBIDDEN,
    "With --access or --authorize this needs a token. Start the server with --publish-token-file FILE, too, and send the \
     token in that file.",
);
/// Without a key, with an unknown one and with one of another channel, whether the channel exists or not: the table of
/// channels is not looked at before. It is `401`, not `404`, because it says what to do.
const KEY_NEEDED: Refusal = Refusal::new(
    Status::UNAUTHORIZED,
    "This needs a key that allows it: send Authorization: Bearer KEY, or the cookie newswire_key, or ?key=KEY.",
);
const FOREIGN_HOST: Refusal = Refusal::new(
    Status::FORBIDDEN,
    "This server listens on loopback, and the Host of the request is not a loopback name. If the request came through \
     a proxy, start the server with --allow-origin and the origin that the proxy has, as https://your.name.",
);
const FOREIGN_ORIGIN: Refusal = Refusal::new(
    Status::FORBIDDEN,
    "A page of another origin may not do this here. Start the server with --allow-origin and the origin of the page, \
     as https://your.name.",
);
