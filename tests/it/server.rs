//! A newswire process of a test's own, and raw conversations with it.

use newswire::Router;
use newswire::app::App;
use newswire::channel::Channels;
use newswire::sse::{Message, Parser};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that is busy with other things. Nothing waits for
/// it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; it ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it has said on standard output, up to the line with its address.
    pub(crate) greeting: String,
    /// What it has said on standard error.
    said: Arc<Mutex<String>>,
}

impl Server {
    /// On a port of its own, with these further arguments.
    pub(crate) fn start(arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
        Server::spawn(command)
    }

    /// From a command line that has port 0 in it.
    pub(crate) fn spawn(mut command: Command) -> Server {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary under test starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                hear(&heard).push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut greeting = String::new();
        let address = loop {
            let start = greeting.len();
            let bytes = stdout.read_line(&mut greeting).expect("its output is text");
            let line = &greeting[start..];
            assert!(bytes > 0, "it ended without an address: {}", hear(&said));
            if let Some((_, rest)) = line.split_once("http://") {
                let (address, _) = rest.split_once('/').expect("the address ends in a slash");
                break address.parse().expect("it says where it listens");
            }
        };
        // Whatever else it says must not fill the pipe.
        thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Server { child, address, greeting, said }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Sends `request` and gives all that comes back until the server closes.
    pub(crate) fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        exchange(self.address, request)
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("it is taken once")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it the way it is meant to be ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it has ended");
    }

    pub(crate) fn said(&self) -> String {
        hear(&self.said).clone()
    }

    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").count()
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// The value of one line of its metrics.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = self.exchange("GET /metrics HTTP/1.0\r\n\r\n");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {metrics}"))
            .parse()
            .expect("it is a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hear(said: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    said.lock().expect("who writes to it does not panic")
}

/// A server of the library in this very process, on a port of its own. It ends with the process.
pub(crate) fn serve(
    router: Router,
    configure: impl FnOnce(newswire::Server) -> newswire::Server,
) -> SocketAddr {
    let server = newswire::Server::bind("127.0.0.1:0").expect("there is a free port");
    let server = configure(server);
    let address = server.local_addr().expect("it listens");
    thread::spawn(move || server.run(router));
    address
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("the server accepts");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    socket.set_write_timeout(Some(PATIENCE)).expect("it is not zero");
    socket.set_nodelay(true).expect("it is a socket");
    socket
}

/// Sends `request` and gives all that comes back until the server closes.
pub(crate) fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut socket = connect(address);
    socket.write_all(request.as_ref()).expect("the server reads");
    let mut response = Vec::new();
    socket.read_to_end(&mut response).expect("the server closes");
    String::from_utf8_lossy(&response).into_owned()
}

/// A response as it stood on the wire, cut into its parts as a client does that expects nothing.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and the fields, without the empty line.
    pub(crate) head: String,
    pub(crate) content: Vec<u8>,
}

impl Answer {
    /// The next response, or `None` when the server closes instead. `to` is the method of the
    /// request: "any response to a HEAD request ... is always terminated by the first empty line"
    /// (RFC 9112, 6.3).
    ///
    /// A reset is an error here: it erases what the peer has not read yet, so a server must not
    /// cause one.
    pub(crate) fn read(from: &mut impl BufRead, to: &str) -> Option<Answer> {
        loop {
            let answer = Answer::read_one(from, to)?;
            // What is interim says nothing about the request (RFC 9110, 15.2).
            if answer.status >= 200 {
                return Some(answer);
            }
        }
    }

    fn read_one(from: &mut impl BufRead, to: &str) -> Option<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let bytes = from.read_line(&mut head);
            match bytes.unwrap_or_else(|error| panic!("no whole head but {head:?}: {error}")) {
                0 if head.is_empty() => return None,
                0 => panic!("closed within the head: {head:?}"),
                _ => {}
            }
        }
        head.truncate(head.len() - 4);
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("no status line: {head:?}"));
        let mut answer = Answer { status, head, content: Vec::new() };
        if to == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Some(answer);
        }
        let length: u64 = match answer.field("content-length") {
            Some(length) => length.parse().expect("Content-Length is a number"),
            None => u64::MAX,
        };
        let read = from.take(length).read_to_end(&mut answer.content);
        read.unwrap_or_else(|error| panic!("no whole content of {answer:?}: {error}"));
        assert!(
            length == u64::MAX || answer.content.len() as u64 == length,
            "closed within the content: {answer:?}"
        );
        Some(answer)
    }

    /// The value of the one field with this name, in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (found, value) = line.split_once(": ").expect("a field has a colon");
            (found.to_ascii_lowercase() == name).then_some(value)
        });
        let value = values.next();
        assert_eq!(values.next(), None, "{name} twice in {}", self.head);
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.content).expect("it is UTF-8")
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.content[..self.content.len().min(1_000)];
        write!(f, "{}\n\n{}", self.head, String::from_utf8_lossy(start))
    }
}

/// Waits until `holds` does; `what` says what was waited for in vain.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads until `end` has been read, and gives everything including it.
pub(crate) fn read_until(socket: &mut impl Read, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let count = socket.read(&mut byte).unwrap_or_else(|error| {
            panic!("waited for {end:?} after {:?}: {error}", String::from_utf8_lossy(&read))
        });
        assert!(count > 0, "it closed before {end:?}, after {:?}", String::from_utf8_lossy(&read));
        read.push(byte[0]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// The whole application in this very process, on a port of its own, for bounds that the command line does not have. It
/// ends with the process.
pub(crate) fn serve_app(app: App) -> (SocketAddr, Channels) {
    let app = App { address: SocketAddr::from(([127, 0, 0, 1], 0)), log_accesses: false, ..app };
    let listening = app.listen().expect("there is a free port");
    let address = listening.address().expect("it listens");
    let channels = listening.channels().clone();
    thread::spawn(move || listening.run());
    (address, channels)
}

/// One request on a connection of its own, with these further fields and this content, and its answer.
pub(crate) fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    content: impl AsRef<[u8]>,
) -> Answer {
    let mut socket = connect(address);
    let mut request = request(address, method, target, fields, content.as_ref());
    request.extend_from_slice(content.as_ref());
    // A server that refuses at once need not read the rest; what it answers is what counts.
    let _ = socket.write_all(&request);
    Answer::read(&mut BufReader::new(socket), method).expect("the server answers")
}

/// The head of a request that closes its connection. What is among `fields` is not added once more.
fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    content: &[u8],
) -> Vec<u8> {
    let has = |name: &str| fields.iter().any(|(found, _)| found.eq_ignore_ascii_case(name));
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !has("host") {
        head += &format!("Host: {address}\r\n");
    }
    if !has("connection") {
        head += "Connection: close\r\n";
    }
    let has_content = !content.is_empty() || method == "POST" || method == "PUT";
    if has_content && !has("content-length") && !has("transfer-encoding") {
        head += &format!("Content-Length: {}\r\n", content.len());
    }
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    (head + "\r\n").into_bytes()
}

/// A client of an event stream, who reads it as it arrives.
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
    /// The response but for its content.
    pub(crate) answer: Answer,
    pub(crate) parser: Parser,
    /// Dispatched and not yet taken.
    messages: VecDeque<Message>,
    /// Every byte of the content so far.
    pub(crate) bytes: Vec<u8>,
}

impl Stream {
    /// Asks for the stream, and waits for the head of the response, whatever its status.
    pub(crate) fn open(address: SocketAddr, target: &str, fields: &[(&str, &str)]) -> Stream {
        Stream::ask(connect(address), target, fields)
    }

    /// The same on a connection that is there already.
    pub(crate) fn ask(mut socket: TcpStream, target: &str, fields: &[(&str, &str)]) -> Stream {
        let address = socket.peer_addr().expect("it is connected");
        socket.write_all(&request(address, "GET", target, fields, b"")).expect("the server reads");
        let mut reader = BufReader::with_capacity(64 * 1024, socket);
        let answer = Answer::read(&mut reader, "HEAD").expect("the server answers");
        Stream {
            reader,
            answer,
            parser: Parser::new(),
            messages: VecDeque::new(),
            bytes: Vec::new(),
        }
    }

    /// Of a channel, from the next event on. The head is sent after the place in the log was found: what is published
    /// once this returns is heard.
    pub(crate) fn subscribe(address: SocketAddr, channel: &str) -> Stream {
        Stream::resume(address, channel, "")
    }

    /// Of a channel, after the event with this id; after none if it is empty.
    pub(crate) fn resume(address: SocketAddr, channel: &str, id: &str) -> Stream {
        let fields = [("Last-Event-ID", id)];
        let fields = if id.is_empty() { &fields[..0] } else { &fields };
        let stream = Stream::open(address, &format!("/channels/{channel}"), fields);
        assert_eq!(stream.answer.status, 200, "{:?}", stream.answer);
        stream
    }

    /// The next message, waiting for it; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Message> {
        self.try_next().unwrap_or_else(|error| panic!("{error} after {:?}", self.tail()))
    }

    /// As [`next`](Stream::next), for a stream that may break.
    pub(crate) fn try_next(&mut self) -> std::io::Result<Option<Message>> {
        while self.messages.is_empty() {
            if !self.read_piece()? {
                return Ok(None);
            }
        }
        Ok(self.messages.pop_front())
    }

    /// Reads on until the content so far holds for `enough`.
    pub(crate) fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) {
        while !enough(&self.bytes) {
            let goes_on = self.read_piece();
            let goes_on = goes_on.unwrap_or_else(|error| panic!("{error} after {:?}", self.tail()));
            assert!(goes_on, "it ended after {:?}", self.tail());
        }
    }

    /// Messages until one is named `end`, which is the last thing that the stream has.
    pub(crate) fn until_end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next() {
            if message.event_type == "end" {
                assert_eq!(self.next(), None, "there is something after the end");
                return messages;
            }
            messages.push(message);
        }
        panic!("it ended without an end, after {:?}", self.tail());
    }

    /// Reads to the end of the stream, whatever it has.
    pub(crate) fn until_closed(mut self) {
        while self.next().is_some() {}
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// The socket, for whoever counts bytes, once the opening and nothing else has arrived.
    pub(crate) fn into_socket(mut self) -> TcpStream {
        self.read_until(|bytes| is_opening(bytes));
        let is_opening = self.bytes.starts_with(b":") && self.messages.is_empty();
        assert!(is_opening && self.reader.buffer().is_empty(), "{:?}", self.tail());
        self.reader.into_inner()
    }

    fn read_piece(&mut self) -> std::io::Result<bool> {
        let piece = self.reader.fill_buf()?;
        let length = piece.len();
        self.bytes.extend_from_slice(piece);
        let messages = self.parser.feed(piece).expect("no event is that large, here");
        self.messages.extend(messages);
        self.reader.consume(length);
        Ok(length > 0)
    }

    fn tail(&self) -> String {
        let from = self.bytes.len().saturating_sub(200);
        String::from_utf8_lossy(&self.bytes[from..]).into_owned()
    }
}

/// A client that publishes one event after another on the same connection.
pub(crate) struct Publisher {
    reader: BufReader<TcpStream>,
    target: String,
}

impl Publisher {
    pub(crate) fn connect(address: SocketAddr, channel: &str) -> Publisher {
        Publisher {
            reader: BufReader::new(connect(address)),
            target: format!("/channels/{channel}"),
        }
    }

    /// Publishes, and gives the id that the event was given.
    pub(crate) fn publish(&mut self, data: &str) -> String {
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\nContent-Length: {}\r\n\r\n{data}",
            self.target,
            data.len()
        );
        let socket = self.reader.get_mut();
        socket.write_all(request.as_bytes()).expect("the server reads");
        let answer = Answer::read(&mut self.reader, "POST").expect("the server answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().trim_end().to_owned()
    }
}

/// Numbers that look like chance and are the same every time (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        // Zero would stay zero.
        let mut dice = Dice(seed ^ 0x9e37_79b9_7f4a_7c15 | 1);
        dice.next();
        dice
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// Once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Whether a stream's first lines are here: a comment and a reconnection time, with no blank line behind them.
pub(crate) fn is_opening(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.rsplit_once("retry: ").is_some_and(|(_, rest)| rest.ends_with('\n'))
}

/// Reads the first lines of a stream.
pub(crate) fn read_opening(socket: &mut impl Read) -> String {
    read_until(socket, "retry: ") + &read_until(socket, "\n")
}
