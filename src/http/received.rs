//! A response as a client receives it: its head at once, its content as it arrives.

use super::chunked::Chunks;
use super::content::Rest;
use super::grammar::trim_ows;
use super::head::{Method, Version};
use super::head_parser::parse_field;
use super::status::{Refusal, Status};
use super::url::{MalformedUrl, Url};
use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

/// The head of a response with the interim ones before it; browsers take 256 KiB, Node 16 KiB.
const HEAD_BYTES: u64 = 64 * 1024;
/// The lines of one head: the status line and 200 fields, of which hyper takes 100.
const HEAD_LINES: usize = 201;
/// "If request's redirect count is 20, then return a network error." (Fetch, 4.4)
pub(super) const REDIRECTS: usize = 20;

/// Why there is no response, or no more of one.
#[derive(Debug)]
pub enum NetworkError {
    /// A redirect leads to a URL that this client cannot ask.
    Url(MalformedUrl),
    /// The caller's field with this name breaks the grammar or the framing.
    Field(String),
    /// No address is known for this name.
    NameNotFound(String, io::Error),
    /// No address of the host took the connection. This is the last of them.
    NotConnected(SocketAddr, io::Error),
    /// The connection broke: it ended within the response (`UnexpectedEof`), was silent for longer than the idle deadline
    /// (`TimedOut`), was closed by the caller, or was reset.
    Broken(io::Error),
    /// What came is not a response of HTTP/1.1, for the reason that this sentence says.
    Malformed(Cow<'static, str>),
    /// A 21st redirect: where it leads, and whether that was asked before.
    TooManyRedirects(Url, bool),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use NetworkError::*;
        match self {
            Url(error) => write!(f, "a redirect cannot be followed: {error}"),
            Field(name) => write!(f, "the field {name:?} breaks the grammar or the framing"),
            NameNotFound(name, error) => write!(f, "no address is known for {name:?}: {error}"),
            NotConnected(address, error) => write!(f, "{address} takes no connection: {error}"),
            Broken(error) => write!(f, "the connection broke: {error}"),
            Malformed(sentence) => write!(f, "what came is not HTTP/1.1: {sentence}"),
            TooManyRedirects(url, true) => write!(f, "the redirects loop, and lead to {url} again"),
            TooManyRedirects(url, false) => {
                write!(f, "there are more than {REDIRECTS} redirects, now to {url}")
            }
        }
    }
}

impl std::error::Error for NetworkError {}

impl From<io::Error> for NetworkError {
    fn from(error: io::Error) -> NetworkError {
        NetworkError::Broken(match is_timeout(&error) {
            true => io::Error::new(ErrorKind::TimedOut, "nothing arrived within the idle deadline"),
            false => error,
        })
    }
}

/// Which of the two a read that timed out is depends on the platform.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

const fn malformed(sentence: &'static str) -> NetworkError {
    NetworkError::Malformed(Cow::Borrowed(sentence))
}

const NOT_HTTP: NetworkError = malformed("it has no status line; perhaps TLS or another protocol is spoken there");

fn ended_early() -> NetworkError {
    io::Error::new(ErrorKind::UnexpectedEof, "it ended within the response").into()
}

/// What a handle can close while it is read.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: Arc<TcpStream>,
    /// Why the content of the request could not be sent. The system tells of a reset once, and a read behind it looks like
    /// a proper end.
    pub(super) unsent: Option<io::Error>,
    /// Sends content while the response is awaited.
    pub(super) upload: Option<JoinHandle<()>>,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let is_uploading = self.upload.as_ref().is_some_and(|upload| !upload.is_finished());
            match (&*self.stream).read(buffer) {
                Ok(0) => return self.unsent.take().map_or(Ok(0), Err),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_uploading && is_timeout(&error) => {}
                outcome => return outcome,
            }
        }
    }
}

/// A response: its head, and its content as it arrives. The connection is closed when the content has ended, and when this
/// is dropped.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// The version of the status line.
    pub version: Version,
    /// All fields in order, their names in lower case.
    pub fields: Vec<(String, String)>,
    /// The URL that gave this response, the last one of the redirects.
    pub url: Url,
    /// What must still come of the content; `None` when the end of the connection is its end.
    rest: Option<Rest>,
    /// Why the chunked coding is broken behind the content that was given.
    broken: Option<Refusal>,
    /// `None` once there is nothing more to read.
    reader: Option<BufReader<Socket>>,
}

impl Response {
    /// The value of the first field with this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// The values of all fields with this name, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.fields.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The elements of the lists in all fields with this name, in order.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values(name).flat_map(|value| value.split(',')).map(trim_ows)
    }

    /// The essence of the media type: "extract a MIME type" (Fetch, 3.1) takes the last of several that is one.
    pub fn media_type(&self) -> Option<&str> {
        let essences = self.list("content-type").filter_map(|value| value.split(';').next()).map(trim_ows);
        essences.filter(|essence| essence.contains('/') && *essence != "*/*").last()
    }

    /// Closes the connection; the head stays.
    pub fn close(&mut self) {
        self.reader = None;
    }

    /// What a server says of a refusal in plain text: the first line of `content`, cut at 300 characters.
    pub fn sentence(&self, content: &[u8]) -> Option<String> {
        let is_text = |value: &str| value.starts_with("text/plain");
        self.field("content-type").filter(|value| is_text(value))?;
        let line = content.split(|&byte| byte == b'\n').next()?.trim_ascii();
        let text = String::from_utf8_lossy(line).chars().take(300).collect();
        Some(text).filter(|text: &String| !text.is_empty())
    }

    /// What has arrived of the content together with the head, if it has no coding.
    pub(crate) fn arrived(&self) -> &[u8] {
        let is_chunked = matches!(self.rest, Some(Rest::Chunks(_)));
        self.reader.as_ref().filter(|_| !is_chunked).map_or(&[], |reader| reader.buffer())
    }

    /// Waits for content and appends it to `out`; `false` at its end.
    ///
    /// # Errors
    /// [`NetworkError::Broken`] and [`Malformed`](NetworkError::Malformed), behind what arrived before.
    pub fn read(&mut self, out: &mut Vec<u8>) -> Result<bool, NetworkError> {
        let outcome = self.read_content(out);
        if !matches!(outcome, Ok(true)) {
            self.close();
        }
        outcome
    }

    fn read_content(&mut self, out: &mut Vec<u8>) -> Result<bool, NetworkError> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        let before = out.len();
        while out.len() == before {
            if let Some(refusal) = self.broken.take() {
                return Err(NetworkError::Malformed(refusal.sentence));
            }
            if self.rest.as_ref().is_some_and(Rest::is_whole) {
                return Ok(false);
            }
            let wire = reader.fill_buf()?;
            if wire.is_empty() {
                return self.rest.as_ref().map_or(Ok(false), |_| Err(ended_early()));
            }
            let decoded = match &mut self.rest {
                Some(rest) => rest.decode(wire, out),
                None => Rest::Length(u64::MAX).decode(wire, out),
            };
            let taken = decoded.unwrap_or_else(|refusal| {
                self.broken = Some(refusal);
                0
            });
            reader.consume(taken);
        }
        Ok(true)
    }

    /// "A client MUST be able to parse one or more 1xx responses received prior to a final response" (RFC 9110, 15.2).
    pub(super) fn read_head(socket: Socket, method: Method, url: &Url) -> Result<Response, NetworkError> {
        let mut reader = BufReader::with_capacity(16 * 1024, socket);
        // A TLS alert begins with 21, and a peer of another protocol may wait for us now.
        if reader.fill_buf()?.first().is_some_and(|&byte| byte != b'H') {
            return Err(NOT_HTTP);
        }
        let mut head = reader.take(HEAD_BYTES);
        let (version, status, fields) = loop {
            let lines = read_lines(&mut head)?;
            let (line, lines) = lines.split_first().ok_or(NOT_HTTP)?;
            let (version, status) = parse_status_line(line).ok_or(NOT_HTTP)?;
            let owned = |(name, value): (&str, Cow<str>)| (name.to_ascii_lowercase(), value.into());
            let fields: Result<Vec<_>, _> = lines.iter().map(|line| parse_field(line).map(owned)).collect();
            let fields = fields.map_err(|refusal| NetworkError::Malformed(refusal.sentence))?;
            if status.0 >= 200 {
                break (version, status, fields);
            }
        };
        let (url, reader) = (url.clone(), Some(head.into_inner()));
        let mut response = Response { status, version, fields, url, rest: None, broken: None, reader };
        response.rest = response.framing(method).map_err(malformed)?;
        Ok(response)
    }

    /// How the end of the content is known (RFC 9112, 6.3).
    fn framing(&self, method: Method) -> Result<Option<Rest>, &'static str> {
        if method == Method::Head || self.status.forbids_content() {
            return Ok(Some(Rest::Length(0)));
        }
        let (codings, mut lengths) = (Vec::from_iter(self.list("transfer-encoding")), self.list("content-length"));
        // "If a message is received with both a Transfer-Encoding and a Content-Length header field, the
        // Transfer-Encoding overrides the Content-Length."
        match codings[..] {
            [] => {}
            [coding] if coding.eq_ignore_ascii_case("chunked") && self.version == Version::Http11 => {
                return Ok(Some(Rest::Chunks(Chunks::default())));
            }
            _ => return Err("its transfer coding is not chunked alone, or it is HTTP/1.0"),
        }
        // "... unless ... all values in the list are valid and the same": then it is one length.
        let Some(length) = lengths.next() else { return Ok(None) };
        let is_sound = length.bytes().all(|byte| byte.is_ascii_digit()) && lengths.all(|other| other == length);
        let bytes = length.parse().ok().filter(|_| is_sound);
        bytes.map(|bytes| Some(Rest::Length(bytes))).ok_or("its Content-Length is not a number of bytes")
    }
}

/// The lines of a head up to the empty one, without their ends, of which LF alone is one (RFC 9112, 2.2).
fn read_lines(head: &mut io::Take<BufReader<Socket>>) -> Result<Vec<Vec<u8>>, NetworkError> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut line = Vec::new();
        head.read_until(b'\n', &mut line)?;
        match line.pop() {
            Some(b'\n') => drop(line.pop_if(|byte| *byte == b'\r')),
            _ if head.limit() == 0 => return Err(malformed("its head is larger than 64 KiB")),
            _ => return Err(ended_early()),
        }
        match (line.first(), lines.len()) {
            (None, _) => return Ok(lines),
            // "A user agent that receives an obs-fold in a response message ... MUST replace each received obs-fold with
            // one or more SP octets" (RFC 9112, 5.2).
            (Some(b' ' | b'\t'), 2..) => lines.last_mut().into_iter().for_each(|last| last.extend(&line)),
            (_, HEAD_LINES) => return Err(malformed("it has more than 200 fields")),
            _ => lines.push(line),
        }
    }
}

/// ```text
/// status-line = HTTP-version SP status-code SP [ reason-phrase ]        (RFC 9112, 4)
/// ```
/// With an empty phrase, servers leave the last space away, too.
fn parse_status_line(line: &[u8]) -> Option<(Version, Status)> {
    let mut words = str::from_utf8(line.get(..12)?).ok()?.split(' ');
    let version = match words.next()?.strip_prefix("HTTP/1.")? {
        "0" => Version::Http10,
        minor => minor.parse::<u8>().ok().map(|_| Version::Http11)?,
    };
    let status = words.next()?.parse().ok().filter(|status| (100..1000).contains(status))?;
    matches!(line.get(12), None | Some(b' ')).then_some((version, Status(status)))
}
