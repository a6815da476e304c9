//! A newswire process of a test's own, and raw conversations with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that is busy with other things. Nothing waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; it ends with the test.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// What it has said on standard error.
    said: Arc<Mutex<String>>,
}

impl Server {
    /// On a port of its own, with these further arguments.
    pub fn start(arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments);
        Server::spawn(command)
    }

    /// From a command line that has port 0 in it.
    pub fn spawn(mut command: Command) -> Server {
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
                heard
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let address = loop {
            let mut line = String::new();
            let bytes = stdout.read_line(&mut line).expect("its output is text");
            assert!(
                bytes > 0,
                "it ended without an address: {}",
                said.lock().unwrap()
            );
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

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("the server accepts");
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
    pub fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut socket = self.connect();
        socket
            .write_all(request.as_ref())
            .expect("the server reads");
        let mut response = Vec::new();
        socket
            .read_to_end(&mut response)
            .expect("the server closes");
        String::from_utf8_lossy(&response).into_owned()
    }

    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("it is taken once")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it the way it is meant to be ended.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it has ended");
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid()))
            .expect("it runs")
            .count()
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("it runs")
            .count()
    }

    /// The value of one line of its metrics.
    pub fn metric(&self, name: &str) -> u64 {
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

/// Waits until `holds` does; `what` says what was waited for in vain.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads until `end` has been read, and gives everything including it.
pub fn read_until(socket: &mut impl Read, end: &str) -> String {
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
