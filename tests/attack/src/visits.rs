//! Short connections of all kinds, hundreds of thousands of them: nothing is left of them.

use crate::client::{OPENING, opening_end};
use crate::report::{Report, hold};
use crate::server::{Newswire, is_all_gone};
use crate::{Order, Outcome};
use fastrand::Rng;
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Until histories are full, and the allocator has what so many at a time need, memory grows and is
/// no leak. Of fewer connections than this, half are not enough for that.
const FLAT_FROM: u64 = 500_000;

/// Half a million short connections of all kinds: nothing is left of them.
pub fn run(order: &Order, report: &Report) -> Outcome<()> {
    let what = "short connections";
    if order.connections < 10 {
        return Err("--connections takes ten or more: memory is compared between tenths".into());
    }
    let server = Newswire::start(what, report, &order.newswire, &["--max-connections", "1000", "--heartbeat", "1"])?;
    let at_start = server.vitals_at_first()?;
    report.row(format!("{what}: at the start"), at_start);
    let mut tenths = Vec::new();
    for tenth in 1..=10 {
        let (count, started) = (order.connections / 10, Instant::now());
        come_and_go(server.address, count, order.seed + tenth, report);
        let seconds = started.elapsed().as_secs_f64();
        let vitals = server.vitals_at_rest(at_start, Duration::from_secs(60))?;
        let rate = count as f64 / seconds;
        report.row(format!("{what}: after {} ({rate:.0} a second)", tenth * count), vitals);
        tenths.push(vitals);
    }
    let (before, after) = (tenths[4], tenths[9]);
    is_all_gone(report, what, at_start, after);
    if order.connections < FLAT_FROM {
        report.row(format!("{what}: memory"), "too few to judge");
        return Ok(());
    }
    let is_flat = after.resident_kib <= before.resident_kib + 256;
    report.expect(is_flat, format!("{what}: memory grew from {} to {} KiB", before.resident_kib, after.resident_kib));
    Ok(())
}

const VISITORS: u64 = 8;

fn come_and_go(address: SocketAddr, count: u64, seed: u64, report: &Report) {
    let left = AtomicU64::new(count);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for visitor in 0..VISITORS {
            let (left, failures) = (&left, &failures);
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed * VISITORS + visitor);
                let take = |left: u64| left.checked_sub(1);
                while let Ok(number) = left.fetch_update(Relaxed, Relaxed, take) {
                    if let Err(error) = visit(address, number, &mut random) {
                        hold(failures).push(error.to_string());
                    }
                }
            });
        }
    });
    let failures = hold(&failures);
    if let Some(first) = failures.first() {
        report.violation(format!("{} of {count} short connections failed; one: {first}", failures.len()));
    }
}

/// One connection that does not last.
fn visit(address: SocketAddr, number: u64, random: &mut Rng) -> Outcome<()> {
    let mut socket = connect_from(number, address)?;
    let host = "Host: localhost\r\nConnection: close\r\n";
    let (request, status) = match random.u32(..20) {
        0 => return Ok(()),
        1 => ("GET / HTTP/1.1\r\nHo".to_owned(), 0),
        2 => (format!("POST /channels/short HTTP/1.1\r\n{host}Content-Length: 1000\r\n\r\nhalf of it"), 0),
        3 => ("\u{16}\u{3}\u{1} is not HTTP\r\n\r\n".to_owned(), 400),
        4 => (format!("GET /nothing HTTP/1.1\r\n{host}\r\n"), 404),
        5 | 6 => (format!("POST /channels/short HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nHello"), 200),
        7 | 8 => (format!("GET /channels/short HTTP/1.1\r\n{host}\r\n"), 1),
        9 => (format!("GET /channels/short HTTP/1.1\r\n{host}Last-Event-ID: earliest\r\n\r\n"), 1),
        10 => (format!("GET / HTTP/1.1\r\n{host}\r\n"), 2),
        11 | 12 => (format!("GET / HTTP/1.1\r\n{host}\r\n"), 200),
        _ => (format!("GET /healthz HTTP/1.1\r\n{host}\r\n"), 200),
    };
    socket.write_all(request.as_bytes())?;
    match status {
        // Gone before it is answered.
        0 => {}
        // A stream, left as soon as it begins, or a little later.
        1 => {
            let (mut bytes, mut count) = ([0; 1024], 0);
            while count < bytes.len() && !has_opening(&bytes[..count]) {
                match socket.read(&mut bytes[count..])? {
                    0 => break,
                    more => count += more,
                }
            }
            let begun = String::from_utf8_lossy(&bytes[..count]);
            let opening = begun.split_once("\r\n\r\n").map(|(_, opening)| opening);
            if !begun.starts_with("HTTP/1.1 200 ") || !opening.unwrap_or("").starts_with(OPENING) {
                return Err(format!("a stream began with {begun:?}").into());
            }
            if random.bool() {
                let _ = socket.read(&mut bytes)?;
            }
        }
        // Gone with a reset, in the middle of the answer.
        2 => sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?,
        _ => {
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer)?;
            if !answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()) {
                let answer = String::from_utf8_lossy(&answer);
                return Err(format!("{request:?} is answered {answer:?}").into());
            }
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

/// Whether the head and the opening of a stream are here.
fn has_opening(bytes: &[u8]) -> bool {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    head.is_some_and(|at| opening_end(&bytes[at + 4..]).is_some())
}

/// Loopback has sixteen million addresses to connect from; one alone would run out of ports.
fn connect_from(number: u64, address: SocketAddr) -> Outcome<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let source = Ipv4Addr::new(127, 1, (number / 200 % 200) as u8, (number % 200) as u8 + 1);
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    rustix::net::connect(&socket, &address)?;
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(socket)
}
