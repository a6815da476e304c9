//! A client that publishes, in all the ways there are.

use crate::client::Caller;
use crate::oracle::Fate;
use crate::payload::{Id, Payload};
use crate::stage::{Channel, Phase, Stage, count, pause};
use fastrand::Rng;
use std::io::{self, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// More than an event has on the wire beside its text: an id, a type, a name before each line; and
/// before the filler of a line that is one event, its number and the like.
const FRAME: usize = 180;

/// Bytes of an event that is larger than all that a channel keeps, and of one that is too large for
/// the server to read.
const NEVER_KEPT: usize = 400_000;
const NEVER_READ: usize = 600_000;

/// Publishes in all the ways there are, one after the other, so that its events have an order.
pub struct Publisher<'s> {
    stage: &'s Stage<'s>,
    channel: &'s Channel,
    number: u32,
    next: u32,
    random: Rng,
    caller: Caller,
}

impl<'s> Publisher<'s> {
    pub fn new(stage: &'s Stage<'s>, channel: &'s Channel, number: u32, seed: u64) -> Publisher<'s> {
        Publisher { stage, channel, number, next: 0, random: Rng::with_seed(seed), caller: Caller::new(stage.address) }
    }

    pub fn run(mut self) {
        while self.stage.phase() == Phase::Play {
            match self.random.u32(..100) {
                0..60 => self.publish(1..200, 1),
                60..70 => self.publish(1..2_000, 10),
                70..74 => self.publish(4_000..60_000, 1),
                74..88 => {
                    let count = self.random.u32(1..60);
                    self.publish_lines(count, false);
                }
                // More than the channel keeps, as fast as it goes.
                88..90 => {
                    let count = self.random.u32(600..1_500);
                    self.publish_lines(count, false);
                }
                90..94 => {
                    let count = self.random.u32(1..200);
                    self.publish_lines(count, true);
                }
                94 => self.publish_what_is_refused(415, b"not \xff text"),
                95 => self.publish_what_is_refused(413, &[b'x'; NEVER_KEPT]),
                96 => self.publish_what_is_refused(413, &[b'x'; NEVER_READ]),
                97 => self.complete(),
                _ => self.caller.hang_up(),
            }
            pause(&mut self.random, 0..25);
        }
    }

    /// One event that each client must get, at the end.
    pub fn publish_last(mut self) {
        let before = self.channel.sent.count();
        for _ in 0..100 {
            self.publish(1..100, 1);
            if self.channel.sent.count() > before {
                return;
            }
        }
        self.stage.report.violation("nothing can be published any more");
    }

    /// The next so many, which have all the type of the first of them.
    fn payloads(&mut self, count: u32) -> Vec<Payload> {
        let first = self.next + self.random.u32(1..=2);
        self.next = first + 2 * (count - 1);
        let numbers = (first..=self.next).step_by(2);
        let publisher = self.number;
        let payload = |number| Payload { publisher, number };
        numbers.map(payload).collect()
    }

    fn publish(&mut self, bytes: Range<usize>, lines: usize) {
        let payload = self.payloads(1)[0];
        let text = payload.write(self.random.usize(bytes), self.random.usize(1..=lines));
        let method = if self.random.bool() { "POST" } else { "PUT" };
        let started = Instant::now();
        let target = self.channel.target(&payload.query());
        let answer = self.caller.request(method, &target, text.as_bytes());
        if matches!(&answer, Ok(answer) if answer.status == 200) {
            count(&self.stage.tallies.published);
        }
        self.note(
            vec![payload],
            text.len() + FRAME,
            started,
            answer.map(|answer| (answer.status, answer.text().to_owned())),
        );
    }

    /// Lines in one request, whole or cut in the middle.
    fn publish_lines(&mut self, lines: u32, cut: bool) {
        let mut payloads = self.payloads(lines);
        let bytes = self.random.usize(1..200);
        let mut text = String::new();
        for payload in &payloads {
            text += &payload.write(bytes, 1);
            text += if self.random.bool() { "\n" } else { "\r\n" };
        }
        let query = match payloads[0].query() {
            query if query.is_empty() => "?lines".to_owned(),
            query => query + "&lines",
        };
        let started = Instant::now();
        let mut cut_at = text.len();
        if cut {
            cut_at = self.random.usize(..text.len());
            // What had not arrived whole is nothing.
            payloads.truncate(text[..cut_at].matches('\n').count());
        }
        let answer = self.upload(&query, text.as_bytes(), cut_at);
        let tallies = &self.stage.tallies;
        match &answer {
            Ok((400, _)) if cut => {
                count(&tallies.uploads_cut);
                let sent = &self.channel.sent;
                return sent.note(payloads, bytes + FRAME, started, Fate::Read);
            }
            Ok((200, text)) => {
                tallies.lines.fetch_add(u64::from(lines), Relaxed);
                let count = format!("\"count\":{lines},");
                self.stage
                    .report
                    .expect(text.contains(&count) && !cut, format!("{lines} lines, cut: {cut}, and it says {text}"));
            }
            _ => {}
        }
        self.note(payloads, bytes + FRAME, started, answer);
    }

    /// Chunked or not, at once or in pieces.
    fn upload(&mut self, query: &str, text: &[u8], cut_at: usize) -> io::Result<(u16, String)> {
        let chunked = self.random.bool();
        let piece = if self.random.bool() { text.len() } else { self.random.usize(1..4_000) };
        let slowly = self.random.u32(..4) == 0;
        let framing =
            if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {}", text.len()) };
        let target = self.channel.target(query);
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
        let socket = self.caller.begin()?;
        socket.write_all(head.as_bytes())?;
        for piece in text[..cut_at].chunks(piece) {
            if chunked {
                let size = format!("{:x}\r\n", piece.len());
                socket.write_all(&[size.as_bytes(), piece, b"\r\n"].concat())?;
            } else {
                socket.write_all(piece)?;
            }
            if slowly {
                pause(&mut self.random, 0..4);
            }
        }
        if cut_at < text.len() {
            // The answer to half of it comes when nothing more will be published of it.
            socket.shutdown(Shutdown::Write)?;
        } else if chunked {
            socket.write_all(b"0\r\n\r\n")?;
        }
        let answer = self.caller.answer()?;
        Ok((answer.status, answer.text().to_owned()))
    }

    fn note(&mut self, payloads: Vec<Payload>, most_bytes: usize, started: Instant, answer: io::Result<(u16, String)>) {
        let fate = match answer {
            Ok((200, text)) => {
                let id = text.split_once("\"id\":\"").and_then(|(_, rest)| rest.split('"').next());
                match id.and_then(Id::read) {
                    Some(id) => Fate::Published(id),
                    None => {
                        let what = format!("published, and it says {text}");
                        return self.stage.report.violation(what);
                    }
                }
            }
            Ok((status, text)) => {
                let what = format!("publishing is answered {status}: {text}");
                self.stage.report.violation(what);
                Fate::Unknown
            }
            Err(error) => {
                self.caller.hang_up();
                self.stage.excuse("publishing", &error);
                Fate::Unknown
            }
        };
        let sent = &self.channel.sent;
        sent.note(payloads, most_bytes, started, fate);
        if fate == Fate::Unknown {
            pause(&mut self.random, 1..20);
        }
    }

    fn publish_what_is_refused(&mut self, status: u16, content: &[u8]) {
        match self.caller.request("POST", &self.channel.target(""), content) {
            // A server that will not read the rest of the content must say that it closes: what is
            // published next on a connection it seemed to keep would be lost.
            Ok(answer) if answer.status == status => {
                let tallies = &self.stage.tallies;
                count(match status {
                    415 => &tallies.not_text,
                    _ => &tallies.too_large,
                });
                if self.caller.is_kept() && self.caller.get("/healthz").is_err() {
                    self.caller.hang_up();
                    if !self.stage.restarts {
                        let what = format!("after a {status} that did not say so the connection was closed");
                        self.stage.report.violation(what);
                    }
                }
            }
            Ok(answer) => self.stage.report.violation(format!("{} in place of {status}", answer.status)),
            // It is answered before it is read, and the answer may be lost.
            Err(_) if content.len() == NEVER_READ => {
                count(&self.stage.tallies.unheard);
                self.caller.hang_up();
            }
            Err(error) => {
                self.caller.hang_up();
                self.stage.excuse("publishing what must be refused", &error);
            }
        }
    }

    fn complete(&mut self) {
        match self.caller.request("DELETE", &self.channel.target(""), b"") {
            // No request has opened it yet.
            Ok(answer) if answer.status == 404 => {}
            Ok(answer) if answer.status == 204 => count(&self.stage.tallies.completed),
            Ok(answer) => self.stage.report.violation(format!("completing is answered {}", answer.status)),
            Err(error) => {
                self.caller.hang_up();
                self.stage.excuse("completing", &error);
            }
        }
    }
}
