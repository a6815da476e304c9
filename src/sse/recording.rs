//! A recording: an event stream with its timing in comments. A parser of event streams ignores these, so that a recording
//! is an event stream, too.
//!
//! ```text
//! recording = [ bom ] *( [ timing ] block )
//! timing    = ": +" 1*DIGIT " ms" end-of-line        ; the time since the block before
//! block     = *( comment / field ) end-of-line / 1*( comment / retry )
//! ```
//!
//! Comments and reconnection times have their effect without a blank line. They can be a block of their own, so that a
//! heartbeat keeps its time.

use super::parser::{Parser, lines};
use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Write};
use std::mem::{replace, take};
use std::time::{Duration, Instant};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Room for the longest data that a parser takes, and as much again for the other lines.
const BLOCK_BYTES: usize = 2 * Parser::LIMIT;

/// A part of a stream that stands for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The time since the block before, if a recording has it.
    pub delay: Option<Duration>,
    /// Whether the stream begins here with a byte order mark, which `bytes` do not have.
    pub has_mark: bool,
    /// The bytes, with the blank line that ends them.
    pub bytes: Vec<u8>,
}

impl Block {
    /// The bytes as they arrived, with the byte order mark.
    pub fn wire(&self) -> Vec<u8> {
        [if self.has_mark { BYTE_ORDER_MARK } else { b"" }, &self.bytes].concat()
    }
}

/// Cuts a stream that arrives in pieces of any size into its blocks. No byte is lost or changed.
#[derive(Debug, Default)]
pub struct Blocks {
    /// What has arrived of the next block.
    block: Block,
    /// Where its last line begins.
    line: usize,
    /// A line of it waits for the blank line.
    is_pending: bool,
    is_begun: bool,
    after_cr: bool,
    takes_timings: bool,
    /// The bytes of a block at most, if fewer than usual.
    at_most: Option<usize>,
}

impl Blocks {
    /// At the start of a stream.
    pub fn new() -> Blocks {
        Blocks::default()
    }

    /// Takes the next piece of the stream, and gives the blocks that it completes.
    ///
    /// # Errors
    /// `InvalidData` for a block of more than 32 MiB. The blocks before it are given first, and the error at the next
    /// call.
    pub fn feed(&mut self, piece: &[u8]) -> io::Result<Vec<Block>> {
        let (mut blocks, mut rest) = (Vec::new(), piece);
        // The block before may have been given at the CR. Then this LF of the same line end has a delay of zero.
        if self.after_cr && piece.starts_with(b"\n") {
            rest = &piece[1..];
            if !self.block.bytes.is_empty() {
                self.block.bytes.push(b'\n');
                self.line += 1;
            } else if self.block.delay.is_none() {
                blocks.push(Block { delay: Some(Duration::ZERO), has_mark: false, bytes: b"\n".to_vec() });
            }
        }
        for (line, end) in lines(rest) {
            self.block.bytes.extend_from_slice(line);
            self.block.bytes.extend_from_slice(end);
            if !end.is_empty() {
                self.end_line(end.len(), &mut blocks);
            }
        }
        self.after_cr = piece.ends_with(b"\r") || piece.is_empty() && self.after_cr;
        if blocks.is_empty() && self.block.bytes.len() > self.at_most.unwrap_or(BLOCK_BYTES) {
            let sentence = "a block of the stream is larger than 32 MiB";
            return Err(io::Error::new(ErrorKind::InvalidData, sentence));
        }
        Ok(blocks)
    }

    /// With a line end of so many bytes.
    fn end_line(&mut self, end: usize, blocks: &mut Vec<Block>) {
        if !replace(&mut self.is_begun, true) && self.block.bytes.starts_with(BYTE_ORDER_MARK) {
            self.block.bytes.drain(..BYTE_ORDER_MARK.len());
            self.block.has_mark = true;
        }
        let text = &self.block.bytes[self.line..self.block.bytes.len() - end];
        let (is_blank, timing) = (text.is_empty(), parse_timing(text));
        let needs_blank = !is_blank && !text.starts_with(b":") && !text.starts_with(b"retry:");
        if let Some(delay) = timing.filter(|_| !self.is_pending) {
            if self.line > 0 {
                let line = self.block.bytes.split_off(self.line);
                blocks.push(self.end());
                self.block.bytes = line;
            }
            // A second timing is a comment that the recorded stream had.
            if self.takes_timings && self.block.delay.is_none() {
                self.block.delay = Some(delay);
                self.block.bytes.clear();
                return;
            }
        }
        self.is_pending |= needs_blank;
        self.line = self.block.bytes.len();
        blocks.extend(is_blank.then(|| self.end()));
    }

    /// Gives lines that have their effect without a blank line, if no other line has arrived.
    pub fn release(&mut self) -> Option<Block> {
        let is_whole = self.line > 0 && self.line == self.block.bytes.len();
        (is_whole && !self.is_pending).then(|| self.end())
    }

    /// Gives what has arrived of a block. A parser discards it at the end of a stream.
    pub fn end(&mut self) -> Block {
        (self.line, self.is_pending) = (0, false);
        take(&mut self.block)
    }
}

fn parse_timing(line: &[u8]) -> Option<Duration> {
    let digits = str::from_utf8(line).ok()?.strip_prefix(": +")?.strip_suffix(" ms")?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number).map(Duration::from_millis)
}

/// Writes a recording, each block with one write: one that is interrupted ends with a whole block.
#[derive(Debug)]
pub struct Recorder<W> {
    out: W,
    /// The time of the block before, in whole milliseconds since the start, so that no rounding adds up.
    before: Instant,
    is_empty: bool,
}

impl<W: Write> Recorder<W> {
    /// At the start of a recording, now.
    pub fn new(out: W) -> Recorder<W> {
        Recorder { out, before: Instant::now(), is_empty: true }
    }

    /// Records a block that has arrived now, or with no delay behind the block before.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn record(&mut self, block: &Block) -> io::Result<()> {
        // A mark within the recording would be part of a field name.
        let mark = if block.has_mark && self.is_empty { BYTE_ORDER_MARK } else { b"" };
        let is_at_once = block.delay == Some(Duration::ZERO);
        let timing = if is_at_once { String::new() } else { self.timing() };
        self.is_empty = false;
        self.out.write_all(&[mark, timing.as_bytes(), &block.bytes].concat())
    }

    /// Records each line of a text as a comment. Before the first block it has no timing.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn comment(&mut self, text: &str) -> io::Result<()> {
        let timing = if self.is_empty { String::new() } else { self.timing() };
        let lines = text.lines().map(|line| format!(": {}\n", line.replace('\r', " ")));
        self.is_empty = false;
        self.out.write_all((timing + &lines.collect::<String>()).as_bytes())
    }

    fn timing(&mut self) -> String {
        let milliseconds = self.before.elapsed().as_millis() as u64;
        self.before += Duration::from_millis(milliseconds);
        format!(": +{milliseconds} ms\n")
    }
}

/// Reads a stream block by block. What follows the last whole block is given as a block.
///
/// ```
/// use newswire::sse::Recording;
/// use std::time::Duration;
///
/// let mut blocks = Recording::new(&b": +250 ms\ndata: The\n\n"[..]);
/// let block = blocks.next().expect("it has one")?;
/// assert_eq!(block.delay, Some(Duration::from_millis(250)));
/// assert_eq!(block.bytes, b"data: The\n\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Recording<R> {
    input: R,
    blocks: Blocks,
    whole: VecDeque<Block>,
    is_ended: bool,
}

impl<R: BufRead> Recording<R> {
    /// Of a recording, with its timings.
    pub fn new(input: R) -> Recording<R> {
        let blocks = Blocks { takes_timings: true, ..Blocks::new() };
        Recording { blocks, ..Recording::live(input) }
    }

    /// As [`new`](Recording::new), with blocks of at most so many bytes.
    pub(crate) fn within(input: R, at_most: usize) -> Recording<R> {
        let mut recording = Recording::new(input);
        recording.blocks.at_most = Some(at_most);
        recording
    }

    /// Of a stream that arrives now. A timing is a comment of it, and what [`release`](Blocks::release) gives is a block.
    pub fn live(input: R) -> Recording<R> {
        Recording { input, blocks: Blocks::new(), whole: VecDeque::new(), is_ended: false }
    }

    fn read(&mut self) -> io::Result<()> {
        let piece = self.input.fill_buf()?;
        let length = piece.len();
        self.whole.extend(self.blocks.feed(piece)?);
        self.input.consume(length);
        self.is_ended = length == 0;
        let rest = match self.blocks.takes_timings {
            _ if self.is_ended => Some(self.blocks.end()).filter(|rest| *rest != Block::default()),
            true => None,
            false => self.blocks.release(),
        };
        self.whole.extend(rest);
        Ok(())
    }
}

impl<R: BufRead> Iterator for Recording<R> {
    type Item = io::Result<Block>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.whole.is_empty() && !self.is_ended {
            match self.read() {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    self.is_ended = true;
                    return Some(Err(error));
                }
                _ => {}
            }
        }
        self.whole.pop_front().map(Ok)
    }
}
