//! The client's end of HTTP/1.1: a request, the redirects that it is given, and the handle that closes its connection. Each
//! request has a connection of its own: no pool, no cookie, no proxy.

use super::grammar::is_token;
use super::head::{Method, Version};
use super::lock::hold;
pub use super::received::{NetworkError, Response};
use super::received::{REDIRECTS, Socket};
use super::status::Status;
use super::url::{MalformedUrl, Url};
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// A request of a client.
///
/// ```no_run
/// use newswire::http::Method;
/// use newswire::http::client::{CloseHandle, Request};
///
/// let request = Request::new("http://127.0.0.1:8080/channels/news")?;
/// let request = Request { method: Method::Post, content: b"The fox is here.".into(), ..request };
/// let response = request.field("Authorization", "Bearer secret").send(&CloseHandle::default())?;
/// println!("{}", response.status);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Request {
    /// `GET` unless said otherwise.
    pub method: Method,
    /// The URL that is asked.
    pub url: Url,
    /// HTTP/1.1 unless said otherwise.
    pub version: Version,
    /// Names and values. `Host`, `User-Agent`, `Accept-Encoding: identity` and `Connection: close` are sent when they are
    /// not among these, `Content-Length` always where it belongs.
    pub fields: Vec<(String, String)>,
    /// Empty unless said otherwise.
    pub content: Vec<u8>,
    /// How long each address of the host may take to accept the connection; 10 s.
    pub connect_deadline: Duration,
    /// How long the connection may be silent, before the response and within it, until it counts as broken; no bound.
    /// newswire sends a comment every 15 s.
    pub idle_deadline: Option<Duration>,
}

/// Without the values of the fields: a token must not reach a log.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "Request({} {} {names:?})", self.method.name(), self.url)
    }
}

impl Request {
    /// `GET` of this URL.
    ///
    /// # Errors
    /// For a URL that is not `http`.
    pub fn new(url: &str) -> Result<Request, MalformedUrl> {
        Ok(Request {
            method: Method::Get,
            url: Url::parse(url)?,
            version: Version::Http11,
            fields: Vec::new(),
            content: Vec::new(),
            connect_deadline: Duration::from_secs(10),
            idle_deadline: None,
        })
    }

    /// With this field, which replaces those of the same name.
    pub fn field(mut self, name: &str, value: impl Into<String>) -> Request {
        self.fields.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// Sends the request, follows redirects, and waits for the head of the response. `handle` interrupts that, but for
    /// finding a name and a connect, which have deadlines.
    ///
    /// # Errors
    /// Every [`NetworkError`].
    pub fn send(mut self, handle: &CloseHandle) -> Result<Response, NetworkError> {
        let mut asked = Vec::new();
        loop {
            let response = self.send_once(handle)?;
            // "If internalResponse's location URL is null, then return response." (Fetch, 4.4)
            let url = match (response.status.0, response.field("location")) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => self.url.join(location),
                _ => return Ok(response),
            };
            let url = url.map_err(NetworkError::Url)?;
            asked.push(self.url.clone());
            if asked.len() > REDIRECTS {
                let is_loop = asked.contains(&url);
                return Err(NetworkError::TooManyRedirects(url, is_loop));
            }
            self.follow(response.status, url);
        }
    }

    fn follow(&mut self, status: Status, url: Url) {
        // "If one of the following is true: internalResponse's status is 301 or 302 and request's method is `POST`;
        // internalResponse's status is 303 and request's method is not `GET` or `HEAD`; then: Set request's method to
        // `GET` and request's body to null. For each headerName of request-body-header name, delete headerName from
        // request's header list."
        let becomes_get = match status.0 {
            301 | 302 => self.method == Method::Post,
            status => status == 303 && !matches!(self.method, Method::Get | Method::Head),
        };
        if becomes_get {
            self.method = Method::Get;
            self.content.clear();
        }
        // "If request's current URL's origin is not same origin with locationURL's origin, then ... delete headerName":
        // a token for one server is not for another one.
        let is_foreign = self.url.authority() != url.authority();
        self.fields.retain(|(name, _)| match name.to_ascii_lowercase().as_str() {
            "authorization" | "proxy-authorization" | "cookie" | "host" => !is_foreign,
            name => !(becomes_get && name.starts_with("content-")),
        });
        self.url = url;
    }

    /// As [`send`](Request::send), but a redirect is a response like any other.
    ///
    /// # Errors
    /// Those of the connection and the response.
    pub fn send_once(&self, handle: &CloseHandle) -> Result<Response, NetworkError> {
        let has_content = !self.content.is_empty() || matches!(self.method, Method::Post | Method::Put);
        let length = format!("Content-Length: {}\r\n", self.content.len());
        let socket = self.begin(if has_content { &length } else { "" }, &self.content, handle)?;
        Response::read_head(socket, self.method, &self.url)
    }

    /// Sends the request with content in pieces, of which each is one chunk and leaves at once. The first response is
    /// returned when its head arrives, also before the end of the content: a refusal need not wait. No redirect is
    /// followed, because the content cannot be sent twice.
    ///
    /// At an error of `pieces`, the content ends without its last chunk, so that the server knows that it is not whole.
    /// The response may be silent as long as the content goes on; the idle deadline counts behind it.
    ///
    /// # Errors
    /// As [`send_once`](Request::send_once).
    pub fn send_streamed(
        mut self,
        handle: &CloseHandle,
        pieces: impl Iterator<Item = io::Result<Vec<u8>>> + Send + 'static,
    ) -> Result<Response, NetworkError> {
        self.version = Version::Http11;
        let mut socket = self.begin("Transfer-Encoding: chunked\r\n", b"", handle)?;
        // It does not keep the connection open when the response is dropped.
        let peer = Arc::downgrade(&socket.stream);
        let upload = move || {
            let send = |bytes: &[u8]| {
                let socket = peer.upgrade().ok_or(ErrorKind::BrokenPipe)?;
                (&*socket).write_all(bytes)
            };
            // A chunk without bytes is the last one (RFC 9112, 7.1).
            let mut pieces = pieces.filter(|piece| !piece.as_ref().is_ok_and(Vec::is_empty));
            let sent = pieces.try_for_each(|piece| {
                let piece = piece?;
                send(&[format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat())
            });
            if sent.and_then(|()| send(b"0\r\n\r\n")).is_err() {
                // The connection may be gone already.
                peer.upgrade().map(|socket| socket.shutdown(Shutdown::Write));
            }
        };
        socket.upload = Some(thread::Builder::new().name("upload".into()).spawn(upload)?);
        Response::read_head(socket, self.method, &self.url)
    }

    /// Connects, and sends the head and this content.
    fn begin(&self, framing: &str, content: &[u8], handle: &CloseHandle) -> Result<Socket, NetworkError> {
        let version = if self.version == Version::Http10 { "1.0" } else { "1.1" };
        let mut head = format!("{} {} HTTP/{version}\r\n", self.method.name(), self.url.target);
        let has = |name| self.fields.iter().any(|(found, _)| found.eq_ignore_ascii_case(name));
        for (name, value) in [
            ("Host", &*self.url.authority()),
            ("User-Agent", concat!("newswire/", env!("CARGO_PKG_VERSION"))),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ] {
            if !has(name) {
                head += &format!("{name}: {value}\r\n");
            }
        }
        for (name, value) in &self.fields {
            let is_sound = is_token(name.as_bytes()) && !value.contains(['\r', '\n', '\0']);
            if !is_sound || has("content-length") || has("transfer-encoding") {
                return Err(NetworkError::Field(name.clone()));
            }
            head += &format!("{name}: {value}\r\n");
        }
        let stream = handle.watch(self.connect()?);
        // A server may refuse before it has read the content, and close: its response says more than the failure to write.
        let request = [head.as_bytes(), framing.as_bytes(), b"\r\n", content].concat();
        let unsent = (&*stream).write_all(&request).err();
        Ok(Socket { stream, unsent, upload: None })
    }

    fn connect(&self) -> Result<TcpStream, NetworkError> {
        let not_found = |error| NetworkError::NameNotFound(self.url.host.clone(), error);
        let addresses = (&*self.url.host, self.url.port).to_socket_addrs().map_err(not_found)?;
        let mut failed = not_found(ErrorKind::NotFound.into());
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.connect_deadline) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_read_timeout(self.idle_deadline)?;
                    socket.set_write_timeout(self.idle_deadline)?;
                    return Ok(socket);
                }
                Err(error) => failed = NetworkError::NotConnected(address, error),
            }
        }
        Err(failed)
    }
}

/// Closes a client's connection from another thread, and interrupts its waiting.
#[derive(Clone, Debug, Default)]
pub struct CloseHandle(Arc<Closing>);

#[derive(Debug, Default)]
struct Closing {
    /// Whether it was closed, and what is to be closed.
    state: Mutex<(bool, Weak<TcpStream>)>,
    closed: Condvar,
}

impl CloseHandle {
    /// Closes: a read that waits ends at once, and each later connection, too.
    pub fn close(&self) {
        let socket = {
            let mut state = hold(&self.0.state);
            state.0 = true;
            state.1.upgrade()
        };
        self.0.closed.notify_all();
        // A shutdown fails when the peer has closed already.
        socket.map(|socket| socket.shutdown(Shutdown::Both));
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        hold(&self.0.state).0
    }

    /// Waits for so long, or until it is closed; whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let state = hold(&self.0.state);
        let waited = self.0.closed.wait_timeout_while(state, time, |state| !state.0);
        waited.unwrap_or_else(PoisonError::into_inner).0.0
    }

    fn watch(&self, socket: TcpStream) -> Arc<TcpStream> {
        let socket = Arc::new(socket);
        hold(&self.0.state).1 = Arc::downgrade(&socket);
        // It may have been closed during the connect, when this socket was not known yet.
        if self.is_closed() {
            self.close();
        }
        socket
    }
}
