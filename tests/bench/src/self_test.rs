//! The same small test for every server before anything is measured: a fast wrong answer is not a figure.

use crate::peer::{Peer, Server};
use crate::wire;
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const LARGE: usize = 100 * 1024;

pub fn run(peer: Peer, server: &Server) -> io::Result<()> {
    let at = server.address;
    pages(at)?;
    let mut live = Client::subscribe(at, "/channels/self-test", None)?;
    let mut elsewhere = Client::subscribe(at, "/channels/self-test-2", None)?;
    for data in ["first", "second", "third"] {
        publish(at, "/channels/self-test", data)?;
    }
    live.expect(&["first", "second", "third"])?;
    let mut clients = vec![live];
    if peer != Peer::Floor {
        let id = clients[0].id_before("first")?;
        let mut back = Client::subscribe(at, "/channels/self-test", Some(&id))?;
        back.expect(&["second", "third"])?;
        clients.push(back);
    }
    let large = "x".repeat(LARGE);
    for data in ["fourth", &large] {
        publish(at, "/channels/self-test", data)?;
        clients.iter_mut().try_for_each(|client| client.expect(&[data]))?;
    }
    publish(at, "/channels/self-test-2", "alone")?;
    elsewhere.expect(&["alone"])
}

/// Two requests in one go, and then one that ends the connection.
fn pages(at: SocketAddrV4) -> io::Result<()> {
    let mut socket = connect(at)?;
    let requests = [wire::visit(at, true), wire::visit(at, true), wire::visit(at, false)].concat();
    socket.write_all(requests.as_bytes())?;
    let mut answers = Vec::new();
    socket.read_to_end(&mut answers)?;
    let mut used = 0;
    for number in 1..=3 {
        match wire::answer(&answers[used..])? {
            Some((length, 200)) => used += length,
            _ => return Err(io::Error::other(format!("GET / number {number} has no page"))),
        }
    }
    Ok(())
}

fn connect(at: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(at)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn publish(at: SocketAddrV4, path: &str, data: &str) -> io::Result<()> {
    let length = data.len();
    let mut socket = connect(at)?;
    write!(
        socket,
        "POST {path} HTTP/1.1\r\nHost: {at}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{data}"
    )?;
    let mut answer = [0; 4096];
    let length = socket.read(&mut answer)?;
    match wire::head(&answer[..length])?.map(|head| head.status) {
        Some(200..300) => Ok(()),
        status => Err(io::Error::other(format!("a POST was answered {status:?}"))),
    }
}

struct Client {
    socket: TcpStream,
    stream: String,
    /// What the events before had.
    seen: usize,
}

impl Client {
    fn subscribe(at: SocketAddrV4, path: &str, id: Option<&str>) -> io::Result<Self> {
        let mut socket = connect(at)?;
        socket.write_all(wire::subscribe(at, path, id).as_bytes())?;
        let mut client = Self { socket, stream: String::new(), seen: 0 };
        while !client.stream.contains("\r\n\r\n") {
            client.read()?;
        }
        // Some servers answer before all of them knows the subscriber.
        std::thread::sleep(Duration::from_millis(100));
        Ok(client)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut piece = vec![0; 64 * 1024];
        match self.socket.read(&mut piece)? {
            0 => Err(io::Error::other("a stream ended")),
            length => {
                self.stream.push_str(&String::from_utf8_lossy(&piece[..length]));
                Ok(())
            }
        }
    }

    /// The data of the events that have come whole. A chunk's size may stand between the lines.
    fn data(&self) -> Vec<&str> {
        let whole = self.stream.rfind('\n').map_or("", |end| &self.stream[..end]);
        whole.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
    }

    /// Waits for these events, and for no others.
    fn expect(&mut self, wanted: &[&str]) -> io::Result<()> {
        while self.data().len() < self.seen + wanted.len() {
            self.read()?;
        }
        let came = &self.data()[self.seen..];
        let is_right = came.len() == wanted.len()
            && came.iter().zip(wanted).all(|(came, wanted)| {
                // A large event may come in several chunks.
                came == wanted || wanted.len() == LARGE && came.starts_with('x')
            });
        if !is_right {
            let heads: Vec<&str> = came.iter().map(|data| &data[..data.len().min(20)]).collect();
            return Err(io::Error::other(format!("these events came: {heads:?}")));
        }
        self.seen += wanted.len();
        Ok(())
    }

    fn id_before(&self, data: &str) -> io::Result<String> {
        let before = self.stream.split(&format!("data: {data}")).next().unwrap_or_default();
        let id = before.lines().filter_map(|line| line.strip_prefix("id:")).next_back();
        id.map(|id| id.trim().to_owned()).ok_or_else(|| io::Error::other("an event without an id"))
    }
}
