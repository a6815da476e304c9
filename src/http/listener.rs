//! Where a server listens: a TCP port, a Unix socket, or a socket that another program has opened.

use std::fmt;
use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// The system lets 128 connections wait to be accepted and drops the next one; its client tries again a second later.
/// When 3,000 connections come at once to a busy machine with two cores, nineteen in twenty are answered after 2 s with
/// two accept threads, and after 2.5 to 5 s with one.
pub(super) const ACCEPT_THREADS: usize = 2;

/// How often an accept thread looks whether its listener was closed, where no connection of ours can wake it.
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
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// The file is known when this process has made it.
    Unix(UnixListener, PathBuf, Option<Metadata>),
}

impl Listener {
    pub(crate) fn bind(address: &Address) -> io::Result<Listener> {
        let socket = match address {
            Address::Tcp(addr) => Socket::Tcp(TcpListener::bind(addr)?),
            Address::Unix { path, mode } => bind_unix(path, *mode)?,
            Address::Stdin => inherit(io::stdin().as_fd().try_clone_to_owned()?)?,
        };
        let is_inherited = *address == Address::Stdin;
        Ok(Listener { socket, is_inherited, is_closed: AtomicBool::new(false) })
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

    /// Accepts in blocking mode.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let socket = match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener, ..) => listener.as_fd(),
        };
        let socket = TcpStream::from(socket.try_clone_to_owned()?);
        socket.set_nonblocking(false)?;
        match self.own_addr() {
            Some(_) => Ok(()),
            // It is the timeout of `accept`, too (socket(7) of Linux).
            None => socket.set_read_timeout(Some(LOOK_INTERVAL)),
        }
    }

    /// The next connection, and the address of its peer; a client of a Unix socket has none. `WouldBlock` from time to
    /// time, while none comes.
    pub(super) fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => listener.accept().map(|(socket, peer)| (socket, Some(peer))),
            // A `TcpStream` is a socket that is written to with `send`. Its family does not matter but for options of TCP.
            Socket::Unix(listener, ..) => {
                listener.accept().map(|(socket, _)| (OwnedFd::from(socket).into(), None))
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// Ends the accept threads. The socket is closed when the last of them drops the listener.
    pub(super) fn close(&self) {
        self.is_closed.store(true, SeqCst);
        // `accept` has no deadline here. One connection for each thread wakes it.
        for _ in 0..ACCEPT_THREADS {
            self.own_addr().map(|addr| TcpStream::connect_timeout(&addr, LAST_SECOND));
        }
    }

    /// An address at which this process, and no other, accepts a connection.
    fn own_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) if !self.is_inherited => {
                listener.local_addr().ok().map(reachable)
            }
            _ => None,
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        let (socket, is_closed) = (Socket::Tcp(listener), AtomicBool::new(false));
        Listener { socket, is_inherited: false, is_closed }
    }
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
        Err(_)
            if listens
                && stream.nodelay().is_ok()
                && stream.shutdown(std::net::Shutdown::Write).is_ok() =>
        {
            Ok(Socket::Tcp(OwnedFd::from(unix).into()))
        }
        _ => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it is no socket that listens; systemd hands one over with StandardInput=socket and Accept=no, inetd with wait",
        )),
    }
}

/// An address at which this machine reaches a listener of its own.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    addr
}
