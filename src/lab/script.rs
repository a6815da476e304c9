//! What a stream of the laboratory says: words, texts as they are, data of a size, or bytes as base64.

use super::flow::Source;
use crate::sse::base64;
use std::io::{self, Write};
use std::ops::Range;
use std::time::Duration;

/// Events that follow from the parameters of the same names. Each is generated again when it is written.
pub(super) struct Script {
    /// One text an event, from the beginning again when there are more events than texts. Each ends in a CR, which none
    /// has: four thousand words in strings of their own would take 200 KiB.
    pub(super) texts: String,
    pub(super) count: usize,
    pub(super) event: Option<String>,
    pub(super) has_ids: bool,
    pub(super) size: Option<usize>,
    pub(super) lines: usize,
    pub(super) binary: Option<usize>,
    pub(super) interval: Duration,
}

impl Source for Script {
    fn has(&mut self, number: usize) -> io::Result<bool> {
        Ok(number <= self.count)
    }

    fn write(&mut self, number: usize, out: &mut impl Write) -> io::Result<(Duration, bool)> {
        if self.has_ids {
            writeln!(out, "id: {number}")?;
        }
        if let Some(event) = &self.event {
            writeln!(out, "event: {event}")?;
        }
        let count = self.texts.matches('\r').count();
        let text = self.texts.split('\r').nth((number - 1) % count).unwrap_or_default();
        match (self.binary, self.size) {
            (Some(bytes), _) => write_binary(number..number + bytes, out)?,
            (None, Some(size)) => write_sized(text, size, self.lines, out)?,
            (None, None) => {
                for _ in 0..self.lines {
                    text.split('\n').try_for_each(|line| writeln!(out, "data: {line}"))?;
                }
            }
        }
        out.write_all(b"\n")?;
        Ok((self.interval, true))
    }
}

impl Script {
    /// Bytes of the whole stream, about and at most.
    pub(super) fn total_bytes(&self) -> usize {
        let bytes = |text: &str| text.split('\n').map(|line| line.len() + 8).sum();
        let longest = self.texts.split('\r').map(bytes).max();
        let data = match (self.binary, self.size) {
            (Some(bytes), _) => bytes.div_ceil(3) * 4,
            (None, Some(size)) => size + self.lines * 8,
            (None, None) => longest.unwrap_or(0) * self.lines,
        };
        self.count.saturating_mul(data + 32 + self.event.as_ref().map_or(0, String::len))
    }
}

/// Consecutive numbers as bytes, so that every byte there is occurs, in one line of base64.
fn write_binary(numbers: Range<usize>, out: &mut impl Write) -> io::Result<()> {
    /// A multiple of three: base64 without padding in the middle.
    const GROUP_BYTES: usize = 3 * 1024;
    out.write_all(b"data: ")?;
    for start in numbers.clone().step_by(GROUP_BYTES) {
        let group = start..numbers.end.min(start + GROUP_BYTES);
        let bytes: Vec<u8> = group.map(|number| number as u8).collect();
        out.write_all(base64(&bytes).as_bytes())?;
    }
    out.write_all(b"\n")
}

/// Data of exactly `size` bytes: the word again and again with a space behind it, as often as it fits, and then dots.
/// Line ends stand in place of bytes, evenly spread, and dots in place of characters that they cut.
fn write_sized(word: &str, size: usize, lines: usize, out: &mut impl Write) -> io::Result<()> {
    let unit = format!("{word} ");
    let filled = size - size % unit.len();
    let mut begin = 0;
    for line in 1..=lines {
        let end = size * line / lines;
        let byte_at = |at: usize| {
            let within = at % unit.len();
            let is_boundary = |at: &usize| unit.is_char_boundary(*at);
            let before = within - (0..=within).rev().find(is_boundary).unwrap_or(0);
            let behind = (within + 1..).find(is_boundary).unwrap_or(0) - within;
            let is_whole = begin + before <= at && at + behind <= end;
            if at < filled && is_whole { unit.as_bytes()[within] } else { b'.' }
        };
        out.write_all(b"data: ")?;
        for start in (begin..end).step_by(1024) {
            let piece: Vec<u8> = (start..end.min(start + 1024)).map(byte_at).collect();
            out.write_all(&piece)?;
        }
        out.write_all(b"\n")?;
        // The line end stands in place of a byte.
        begin = end + 1;
    }
    Ok(())
}
