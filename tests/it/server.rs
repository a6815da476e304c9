//! A newswire process of a test's own, and raw conversations with it.

use newswire::Router;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that is busy with other things. Nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; it ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it has said on standard error.
    said: Arc<Mutex<String>>,
}

impl Server {
    /// On a port of its own, with these further arguments.
    pub(crate) fn start(arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments);
        Server::spawn(command)
    }

    /// From a command line that has port 0 in it.
    pub(crate) fn spawn(mut command: Command) -> Server {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary under test starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            let mut line = Vec::new();
            while stderr
                .read_until(b'\n', &mut line)
                .is_ok_and(|bytes| bytes > 0)
            {
                hear(&heard).push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let address = loop {
            let mut line = String::new();
            let bytes = stdout.read_line(&mut line).expect("its output is text");
            assert!(bytes > 0, "it ended without an address: {}", hear(&said));
            if let Some((_, rest)) = line.split_once("http://") {
                let (address, _) = rest.split_once('/').expect("the address ends in a slash");
                break address.parse().expect("it says where it listens");
            }
        };
        // Whatever else it says must not fill the pipe.
        thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Server {
            child,
            address,
            said,
        }
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
        std::fs::read_dir(format!("/proc/{}/task", self.pid()))
            .expect("it runs")
            .count()
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("it runs")
            .count()
    }

    /// The value of one line of its metrics.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = self.exchange("GET /metrics HTTP/1.0\r\n\r\n");
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
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
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    socket
        .set_write_timeout(Some(PATIENCE))
        .expect("it is not zero");
    socket.set_nodelay(true).expect("it is a socket");
    socket
}

/// Sends `request` and gives all that comes back until the server closes.
pub(crate) fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut socket = connect(address);
    socket
        .write_all(request.as_ref())
        .expect("the server reads");
    let mut response = Vec::new();
    socket
        .read_to_end(&mut response)
        .expect("the server closes");
    String::from_utf8_lossy(&response).into_owned()
}

/// A response as it stood on the wire, cut into its parts as a client does that expects nothing.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and the fields, without the empty line.
    pub(crate) head: String,
    pub(crate) content: Vec<u8>,
}

impl Answer {
    /// The next response, or `None` when the server closes instead. `to` is the method of the request: "any response
    /// to a HEAD request ... is always terminated by the first empty line" (RFC 9112, 6.3).
    ///
    /// A reset is an error here: it erases what the peer has not read yet, so a server must not cause one.
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
        let mut answer = Answer {
            status,
            head,
            content: Vec::new(),
        };
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
            panic!(
                "waited for {end:?} after {:?}: {error}",
                String::from_utf8_lossy(&read)
            )
        });
        assert!(
            count > 0,
            "it closed before {end:?}, after {:?}",
            String::from_utf8_lossy(&read)
        );
        read.push(byte[0]);
    }
    String::from_utf8_lossy(&read).into_owned()
}
