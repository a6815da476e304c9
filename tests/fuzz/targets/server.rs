//! The whole server, in this process: it answers any bytes in HTTP.

#![no_main]

use libfuzzer_sys::fuzz_target;
use newswire::{channel, http};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

static SERVER: OnceLock<SocketAddr> = OnceLock::new();

/// With bounds so small that inputs reach them, and deadlines so short that no input takes long.
fn start() -> SocketAddr {
    let limits = http::Limits {
        content_bytes: 300,
        head_deadline: Duration::from_secs(2),
        content_deadline: Duration::from_secs(2),
        lines_idle: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        write_stall: Duration::from_secs(2),
        // Streams of the laboratory go on for a while after their client has left.
        connections: 8_000,
        streams: 6_000,
        ..http::Limits::default()
    };
    let channel_limits =
        channel::Limits { channels: 16, history_events: 8, history_bytes: 2_000, ..channel::Limits::default() };
    newswire_fuzz::serve(limits, channel_limits).0
}

// Any panic in the server's threads ends this process: libfuzzer-sys sees to that.
fuzz_target!(|wire: &[u8]| {
    let mut socket = TcpStream::connect(SERVER.get_or_init(start)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The server may close before it has read everything.
    let _ = socket.write_all(wire);
    let _ = socket.shutdown(Shutdown::Write);
    let answered = read_responses(&mut socket);
    // Empty lines may stand before a request, and are no request.
    let asks = wire.iter().any(|byte| !b"\r\n".contains(byte));
    assert!(answered > 0 || !asks, "there was no answer");
});

/// How many responses there are, up to the end or the first stream, which may never end.
fn read_responses(socket: &mut TcpStream) -> usize {
    let (mut wire, mut count) = (Vec::new(), 0);
    loop {
        let (status, head, length) = loop {
            if let Some(head) = parse(&wire) {
                break head;
            }
            if !fill(socket, &mut wire) {
                assert!(wire.is_empty(), "the end of a head is missing: {:?}", String::from_utf8_lossy(&wire));
                return count;
            }
        };
        assert_ne!(status, 500, "a handler failed");
        wire.drain(..head);
        if status == 100 {
            continue;
        }
        count += 1;
        match length {
            // The close is the end of the content.
            None => return count,
            Some(length) => {
                while wire.len() < length && fill(socket, &mut wire) {}
                // Less is the answer to a HEAD, or the connection ended within a page.
                if wire.len() < length || wire[..length].windows(5).any(|bytes| bytes == b"HTTP/") {
                    return count;
                }
                wire.drain(..length);
            }
        }
    }
}

/// The status, the length of the head, and that of the content.
fn parse(wire: &[u8]) -> Option<(u16, usize, Option<usize>)> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(wire).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(wire)));
    let httparse::Status::Complete(head) = parsed else {
        return None;
    };
    let status = response.code?;
    let field = |name: &str| {
        let mut named = response.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let first = named.next().map(|field| String::from_utf8_lossy(field.value).into_owned());
        assert!(named.next().is_none(), "{name} comes twice");
        first
    };
    let length = field("content-length").map(|digits| digits.parse().unwrap());
    let length = length.or(matches!(status, 100 | 204 | 304).then_some(0));
    Some((status, head, length))
}

fn fill(socket: &mut TcpStream, wire: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 4096];
    loop {
        return match socket.read(&mut bytes) {
            Ok(count) => {
                wire.extend_from_slice(&bytes[..count]);
                count > 0
            }
            // libFuzzer's clock.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("it neither answers nor closes: {error}"),
        };
    }
}
