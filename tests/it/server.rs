//! The binary under test as a process, and raw conversations with it.

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

/// Longer than anything here takes on a busy machine. No test waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; it ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Standard output up to the line with the address.
    pub(crate) greeting: String,
    /// All of standard output so far.
    output: Arc<Mutex<String>>,
    /// All of standard error so far.
    said: Arc<Mutex<String>>,
}

impl Server {
    /// On a port of its own, with these further arguments.
    pub(crate) fn start(arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
        Server::spawn(command)
    }

    /// Runs a command line that has port 0 in it.
    pub(crate) fn spawn(mut command: Command) -> Server {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary under test starts");
        let said = collect(BufReader::new(child.stderr.take().expect("it is piped")), "");
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
        let output = collect(stdout, &greeting);
        Server { child, address, greeting, output, said }
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

    /// Kills it, which is the way to stop the command.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it has ended");
    }

    /// Waits for its end, and returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    pub(crate) fn output(&self) -> String {
        hear(&self.output).clone()
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
        line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().expect("it is a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an output of the process on a thread, so that the pipe is never full.
fn collect(mut from: impl BufRead + Send + 'static, start: &str) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(start.to_owned()));
    let heard = Arc::clone(&said);
    thread::spawn(move || {
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            hear(&heard).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    said
}

fn hear(said: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    said.lock().expect("no thread panics while it holds the lock")
}

/// A server of the library in this process, on a free port. It ends with the process.
pub(crate) fn serve(router: Router, configure: impl FnOnce(newswire::Server) -> newswire::Server) -> SocketAddr {
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

/// A response as it stood on the wire, cut into its parts without any assumption.
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
            // An interim response is not the answer (RFC 9110, 15.2).
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
        assert!(length == u64::MAX || answer.content.len() as u64 == length, "closed within the content: {answer:?}");
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

/// Waits until `holds` returns true. `what` stands in the failure.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads until `end` has been read, and returns everything including `end`.
pub(crate) fn read_until(socket: &mut impl Read, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let mut byte = [0];
        // `read_exact` goes on after a signal, as that of a child that has ended. `read` does not.
        socket
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("waited for {end:?} after {:?}: {error}", String::from_utf8_lossy(&read)));
        read.push(byte[0]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// The whole application in this process, on a free port, for limits that have no option. It ends with the process.
pub(crate) fn serve_app(app: App) -> (SocketAddr, Channels) {
    let addresses = vec![newswire::http::Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))];
    let app = App { addresses, log_accesses: false, ..app };
    let listening = app.listen().expect("there is a free port");
    let address = listening.address().expect("it listens");
    let channels = listening.channels().clone();
    thread::spawn(move || listening.run());
    (address, channels)
}

/// Sends one request on its own connection, with these further fields and this content, and returns the answer.
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
    // A server that refuses at once does not read the rest, so a write error is no failure. The answer counts.
    let _ = socket.write_all(&request);
    Answer::read(&mut BufReader::new(socket), method).expect("the server answers")
}

/// The head of a request that closes its connection. A field among `fields` replaces the one that is added otherwise.
fn request(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)], content: &[u8]) -> Vec<u8> {
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

/// A client that reads an event stream as it arrives.
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
    /// The response but for its content.
    pub(crate) answer: Answer,
    pub(crate) parser: Parser,
    /// Messages that were dispatched and not taken yet.
    messages: VecDeque<Message>,
    /// Every byte of the content so far.
    pub(crate) bytes: Vec<u8>,
}

impl Stream {
    /// Asks for the stream, and waits for the head of the response, with any status.
    pub(crate) fn open(address: SocketAddr, target: &str, fields: &[(&str, &str)]) -> Stream {
        Stream::ask(connect(address), target, fields)
    }

    /// As [`open`](Stream::open), on a connection that is open already.
    pub(crate) fn ask(mut socket: TcpStream, target: &str, fields: &[(&str, &str)]) -> Stream {
        let address = socket.peer_addr().expect("it is connected");
        socket.write_all(&request(address, "GET", target, fields, b"")).expect("the server reads");
        let mut reader = BufReader::with_capacity(64 * 1024, socket);
        let answer = Answer::read(&mut reader, "HEAD").expect("the server answers");
        Stream { reader, answer, parser: Parser::new(), messages: VecDeque::new(), bytes: Vec::new() }
    }

    /// Subscribes to a channel. The server sends the head after it has found the position in the history, so that the
    /// stream has every event that is published after this returns.
    pub(crate) fn subscribe(address: SocketAddr, channel: &str) -> Stream {
        Stream::resume(address, channel, "")
    }

    /// Subscribes to a channel behind the event with this id, if the id is not empty.
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

    /// The messages up to one named `end`, which must be the last of the stream.
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

    /// The socket, when the opening and nothing else has arrived.
    pub(crate) fn into_socket(mut self) -> TcpStream {
        self.read_until(is_opening);
        let is_opening = self.bytes.starts_with(b":") && self.messages.is_empty();
        assert!(is_opening && self.reader.buffer().is_empty(), "{:?}", self.tail());
        self.reader.into_inner()
    }

    fn read_piece(&mut self) -> std::io::Result<bool> {
        let piece = match self.reader.fill_buf() {
            // A signal, as that of a child that has ended
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(true),
            piece => piece?,
        };
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
        Publisher { reader: BufReader::new(connect(address)), target: format!("/channels/{channel}") }
    }

    /// Publishes, and returns the id of the event.
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

/// Pseudo-random numbers, the same every time (xorshift64*).
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
