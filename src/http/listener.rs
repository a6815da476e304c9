//! Where a server listens: a TCP port, a Unix socket, or a socket that another program has opened.

use super::limits::Limits;
use std::fmt;
use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// So many threads accept, at most. The system lets 128 connections wait to be accepted and drops the next one; its client tries
/// again a second later.
pub(super) const ACCEPT_THREADS: usize = 3;

/// How often a thread that accepts looks whether its listener was closed, where the socket is not ours to shut down.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long a thread may take to see that its connection was closed, or that one has come.
pub(super) const LAST_SECOND: Duration = Duration::from_secs(1);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address. With port 0 the system chooses the port.
    Tcp(SocketAddr),
    /// A Unix socket. A file that a server has left there is replaced, and the file is removed when the listener is
    /// closed. It is not removed when the process is killed.
    Unix {
        /// Where the file of the socket is; 107 bytes at most.
        path: PathBuf,
        /// Which users may connect, as the permissions of the file: `0o660` lets the owner and the group in.
        mode: u32,
    },
    /// Standard input is the socket, which listens already. systemd hands it over so with `StandardInput=socket` and
    /// `Accept=no`, and inetd with `wait`.
    Stdin,
}

impl Address {
    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Address::Unix { .. } => true,
            Address::Stdin => false,
        }
    }
}

/// ```text
/// address = ip ":" port / "unix:" path [ ",mode=" 3*OCTALDIGIT ] / "stdin"
/// ```
/// Without a mode it is 660: a proxy runs as another user, and shares a group with this process.
impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Address, &'static str> {
        let unix = |rest: &str| {
            let (path, digits) = rest.split_once(",mode=").unwrap_or((rest, "660"));
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777)?;
            let is_sound = !path.is_empty() && digits.len() >= 3 && !digits.starts_with('+');
            is_sound.then(|| Address::Unix { path: path.into(), mode })
        };
        match (text, text.strip_prefix("unix:")) {
            ("stdin", _) => Some(Address::Stdin),
            (_, Some(rest)) => unix(rest),
            (_, None) => text.parse().ok().map(Address::Tcp),
        }
        .ok_or("it is not ADDR:PORT, unix:PATH, unix:PATH,mode=600 or stdin")
    }
}

/// As the command line has it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(addr) => addr.fmt(f),
            Address::Unix { path, .. } => write!(f, "unix:{}", path.display()),
            Address::Stdin => f.write_str("stdin"),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    /// Another process has opened the socket, and may hold it longer than this one.
    is_inherited: bool,
    is_closed: AtomicBool,
    /// A connection that was accepted had the options of the listener: so have all that are accepted after it.
    passes_on: AtomicBool,
    /// How many threads accept, or are about to.
    accepting: AtomicUsize,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// The file is known when this process has made it.
    Unix(UnixListener, PathBuf, Option<Metadata>),
}

impl Listener {
    fn new(socket: Socket) -> Listener {
        let (is_closed, passes_on) = (AtomicBool::new(false), AtomicBool::new(false));
        Listener { socket, is_inherited: false, is_closed, passes_on, accepting: AtomicUsize::new(0) }
    }

    pub(crate) fn bind(address: &Address) -> io::Result<Listener> {
        let socket = match address {
            Address::Tcp(addr) => Socket::Tcp(TcpListener::bind(addr)?),
            Address::Unix { path, mode } => bind_unix(path, *mode)?,
            Address::Stdin => inherit(io::stdin().as_fd().try_clone_to_owned()?)?,
        };
        let mut listener = Listener::new(socket);
        listener.is_inherited = *address == Address::Stdin;
        Ok(listener)
    }

    /// Where it listens, with the port that the system has chosen.
    pub(crate) fn address(&self) -> io::Result<Address> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            Socket::Unix(_, path, _) => {
                let mode = fs::metadata(path).map_or(0, |file| file.mode() & 0o777);
                Address::Unix { path: path.clone(), mode }
            }
        })
    }

    /// Accepts in blocking mode. A TCP connection that comes from now on has the options of its listener, which spares it a
    /// call for each.
    pub(super) fn prepare(&self, limits: &Limits) -> io::Result<()> {
        let socket = self.as_stream()?;
        socket.set_nonblocking(false)?;
        set_options(&socket, limits)?;
        if self.is_inherited {
            // It is the timeout of `accept`, too (socket(7) of Linux).
            socket.set_read_timeout(Some(LOOK_INTERVAL))?;
        }
        Ok(())
    }

    /// The next connection, with its options, and the address of its peer; a client of a Unix socket has none. `WouldBlock`
    /// from time to time, while none comes.
    pub(super) fn accept(&self, limits: &Limits) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        // Before the call: connections are accepted in the order in which they have come, but not looked at in it.
        let passes_on = self.passes_on.load(SeqCst);
        let (socket, peer) = match &self.socket {
            Socket::Tcp(listener) => {
                let (socket, peer) = listener.accept()?;
                (socket, Some(peer))
            }
            // A `TcpStream` is a socket that is written to with `send`. Its family does not matter but for options of TCP.
            Socket::Unix(listener, ..) => (OwnedFd::from(listener.accept()?.0).into(), None),
        };
        // Those that have come before the listener had the options lack them.
        if !passes_on && socket.write_timeout()? == Some(limits.write_step()) {
            self.passes_on.store(true, SeqCst);
        } else if !passes_on {
            set_options(&socket, limits)?;
        }
        if self.is_inherited {
            // Its listener has the one of `accept`.
            socket.set_read_timeout(Some(limits.head_deadline))?;
        }
        Ok((socket, peer))
    }

    /// The calling thread is about to accept. `false` when enough other threads do.
    pub(super) fn begin_accepting(&self) -> bool {
        let one_more = |threads| (threads < ACCEPT_THREADS).then_some(threads + 1);
        self.accepting.fetch_update(SeqCst, SeqCst, one_more).is_ok()
    }

    /// The calling thread accepts no more. `false` when no other thread does: then it must go on.
    pub(super) fn end_accepting(&self) -> bool {
        let one_less = |threads: usize| (threads > 1).then(|| threads - 1);
        self.accepting.fetch_update(SeqCst, SeqCst, one_less).is_ok()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// Ends the threads that accept. The socket is closed when the last of them drops the listener.
    pub(super) fn close(&self) {
        self.is_closed.store(true, SeqCst);
        // It wakes all that accept, and would do so in another process, too.
        if !self.is_inherited {
            let _ = self.as_stream().map(|socket| socket.shutdown(Shutdown::Both));
        }
    }

    fn as_stream(&self) -> io::Result<TcpStream> {
        let socket = match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener, ..) => listener.as_fd(),
        };
        Ok(socket.try_clone_to_owned()?.into())
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::new(Socket::Tcp(listener))
    }
}

/// Small frames leave at once, and a read or a write that has to wait returns from time to time.
fn set_options(socket: &TcpStream, limits: &Limits) -> io::Result<()> {
    // Only TCP has this option.
    let _ = socket.set_nodelay(true);
    socket.set_read_timeout(Some(limits.head_deadline))?;
    // The last one: a connection that has it has the others.
    socket.set_write_timeout(Some(limits.write_step()))
}

impl Drop for Listener {
    /// Removes the file of the socket, unless another server has put its own there.
    fn drop(&mut self) {
        let Socket::Unix(_, path, Some(made)) = &self.socket else { return };
        let is_same = |found: Metadata| (found.dev(), found.ino()) == (made.dev(), made.ino());
        if fs::symlink_metadata(path).is_ok_and(is_same) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Until the permissions are set, the umask of the process decides which users may connect.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    let listener = UnixListener::bind(path).or_else(|error| {
        let is_there = error.kind() == ErrorKind::AddrInUse;
        if is_there && !fs::symlink_metadata(path)?.file_type().is_socket() {
            return Err(io::Error::new(error.kind(), "there is a file that is not a socket"));
        }
        match UnixStream::connect(path) {
            Ok(_) => Err(io::Error::new(error.kind(), "another server listens there")),
            // A server that has ended has left the file.
            Err(refused) if is_there && refused.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            Err(_) => Err(error),
        }
    })?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    let made = fs::symlink_metadata(path)?;
    Ok(Socket::Unix(listener, path.to_owned(), Some(made)))
}

/// Takes a socket that listens from the process that has opened it. Its backlog stays what that process has set.
fn inherit(socket: OwnedFd) -> io::Result<Socket> {
    let (stream, unix) = (TcpStream::from(socket.try_clone()?), UnixListener::from(socket));
    // A connection has a peer; what is no socket has another error.
    let listens = stream.peer_addr().is_err_and(|error| error.kind() == ErrorKind::NotConnected);
    match unix.local_addr() {
        Ok(addr) if listens => {
            let path = addr.as_pathname().unwrap_or(Path::new("")).to_owned();
            Ok(Socket::Unix(unix, path, None))
        }
        // Only TCP has this option. Linux refuses to shut down a socket that is not connected, unless it listens; that it
        // sends nothing more changes nothing then.
        Err(_) if listens && stream.nodelay().is_ok() && stream.shutdown(std::net::Shutdown::Write).is_ok() => {
            Ok(Socket::Tcp(OwnedFd::from(unix).into()))
        }
        _ => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it is no socket that listens; systemd hands one over with StandardInput=socket and Accept=no, inetd with wait",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_is_ready(listener: &Listener, connect: impl Fn()) {
        let limits = Limits { head_deadline: LAST_SECOND * 7, ..Limits::default() };
        // It waits while the server starts.
        connect();
        listener.prepare(&limits).expect("it is a socket");
        for _ in 0..3 {
            let (socket, peer) = listener.accept(&limits).expect("a client has come");
            let timeouts = [socket.read_timeout(), socket.write_timeout()].map(Result::ok);
            assert_eq!(timeouts, [limits.head_deadline, limits.write_step()].map(Some).map(Some));
            assert!(peer.is_none() || socket.nodelay().is_ok_and(|is_set| is_set));
            connect();
        }
        let spares_calls = matches!(listener.socket, Socket::Tcp(_));
        assert_eq!(listener.passes_on.load(SeqCst), spares_calls);
    }

    #[test]
    fn an_accepted_connection_has_its_options_wherever_and_whenever_it_comes() {
        for is_inherited in [false, true] {
            let tcp = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
            let addr = tcp.local_addr().expect("it listens");
            let mut listener = Listener::from(tcp);
            listener.is_inherited = is_inherited;
            assert_is_ready(&listener, || drop(TcpStream::connect(addr).expect("it listens")));
        }
        let path = std::env::temp_dir().join(format!("newswire-options-{}", std::process::id()));
        let unix = Address::Unix { path: path.clone(), mode: 0o600 };
        let listener = Listener::bind(&unix).expect("the directory can be written");
        assert_is_ready(&listener, || drop(UnixStream::connect(&path).expect("it listens")));
    }
}
