//! What the bench sends, and how it recognises what comes back.

use std::io;
use std::net::SocketAddrV4;

/// Ends the filler of every event's data and occurs nowhere else in any server's answers: not in a
/// head, an id, a comment or a chunk's size. Being one byte, it is never split between two reads,
/// so counting it counts deliveries, whatever framing stands around the data.
pub const MARK: u8 = b'~';

/// Hexadecimal digits after the mark: when the event was published, in nanoseconds since the load
/// began.
const STAMP: usize = 16;

/// A POST that publishes one event of `size` bytes, with the stamp still to be filled in.
pub fn publish(server: SocketAddrV4, path: &str, size: usize) -> Vec<u8> {
    assert!(size > STAMP, "an event must have room for its stamp");
    let head = format!("POST {path} HTTP/1.1\r\nHost: {server}\r\n");
    let mut request = format!("{head}Content-Type: text/plain\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    request.resize(request.len() + size - STAMP - 1, b'x');
    request.push(MARK);
    request.resize(request.len() + STAMP, b'0');
    request
}

/// Writes the time into a request made by [`publish`].
pub fn stamp(request: &mut [u8], nanos: u64) {
    let start = request.len() - STAMP;
    for (place, digit) in request[start..].iter_mut().enumerate() {
        let nibble = nanos >> (4 * (STAMP - 1 - place)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
}

/// A GET of the page.
pub fn visit(server: SocketAddrV4, keep: bool) -> String {
    let connection = if keep { "" } else { "Connection: close\r\n" };
    format!("GET / HTTP/1.1\r\nHost: {server}\r\n{connection}\r\n")
}

/// A GET that subscribes, as an `EventSource` sends it.
pub fn subscribe(server: SocketAddrV4, path: &str, last_event_id: Option<&str>) -> String {
    let resume = last_event_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nAccept: text/event-stream\r\n{resume}\r\n")
}

/// Finds the stamps in a stream that arrives in pieces.
#[derive(Default)]
pub struct Stamps {
    digits: [u8; STAMP],
    /// How many digits of a stamp have come; `None` between stamps.
    have: Option<u8>,
}

impl Stamps {
    /// Calls `each` with every stamp that is complete, and returns how many.
    pub fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(u64)) -> u64 {
        let mut complete = 0;
        loop {
            let have = match self.have {
                Some(have) => usize::from(have),
                None => match memchr::memchr(MARK, bytes) {
                    Some(place) => {
                        bytes = &bytes[place + 1..];
                        0
                    }
                    None => return complete,
                },
            };
            let taken = bytes.len().min(STAMP - have);
            self.digits[have..have + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if have + taken < STAMP {
                self.have = Some((have + taken) as u8);
                return complete;
            }
            self.have = None;
            complete += 1;
            let text = std::str::from_utf8(&self.digits).unwrap_or_default();
            if let Ok(nanos) = u64::from_str_radix(text, 16) {
                each(nanos);
            }
        }
    }
}

/// Counts the deliveries in a piece of a stream without looking at the stamps.
pub fn count(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(MARK, bytes).count() as u64
}

/// The head of an answer: its status, its length in bytes, and the length of the body if it is
/// announced.
pub struct Head {
    pub status: u16,
    pub length: usize,
    pub body: Option<usize>,
}

/// Reads a head, if all of it is there.
pub fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => Ok(Some(Head {
            status: response.code.unwrap_or_default(),
            length,
            body: response
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case("content-length"))
                .and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok()),
        })),
        Err(error) => Err(io::Error::other(format!("not an HTTP answer: {error}"))),
    }
}

/// An answer with its whole body: how many bytes it takes, and its status.
pub fn answer(bytes: &[u8]) -> io::Result<Option<(usize, u16)>> {
    let Some(head) = head(bytes)? else {
        return Ok(None);
    };
    // Every peer announces the length of these short answers; one that does not is a bug to be
    // seen.
    let body = head.body.ok_or_else(|| io::Error::other("an answer without Content-Length"))?;
    let end = head.length + body;
    Ok((bytes.len() >= end).then_some((end, head.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive_every_split() {
        let server = SocketAddrV4::new([127, 0, 0, 1].into(), 80);
        let mut request = publish(server, "/channels/a", 40);
        stamp(&mut request, 0x0123_4567_89ab_cdef);
        let stream = [request.as_slice(), b"\n\n", request.as_slice()].concat();
        for split in 0..stream.len() {
            let (mut stamps, mut seen) = (Stamps::default(), Vec::new());
            let first = stamps.read(&stream[..split], |nanos| seen.push(nanos));
            let second = stamps.read(&stream[split..], |nanos| seen.push(nanos));
            assert_eq!(first + second, 2);
            assert_eq!(seen, [0x0123_4567_89ab_cdef; 2]);
            assert_eq!(count(&stream[..split]) + count(&stream[split..]), 2);
        }
    }
}
