//! RESP, the protocol of Redis, versions 2 and 3: commands to bytes, and bytes to replies.
//!
//! ```text
//! command = "*" count CRLF 1*( "$" length CRLF bytes CRLF )
//! reply   = ( "+" / "-" / ":" / "_" / "#" / "," / "(" ) line CRLF
//!         / ( "$" / "=" / "!" ) length CRLF bytes CRLF / ( "*" / "~" / ">" ) count CRLF count(reply)
//!         / "%" count CRLF count(reply reply)
//! ```

use std::io::{self, BufRead, ErrorKind, Read};
use std::mem::size_of;

/// No reply to a command of ours is deeper than 4: the fields of an entry of a stream in a list.
const DEPTH: usize = 8;
/// The first line of a value, without what follows it. Redis itself cuts an error off sooner.
pub(super) const LINE_BYTES: u64 = 16 * 1024;
/// "The length of a single string ... is limited to 512 MB by default" (proto-max-bulk-len).
const LONGEST: u64 = 512 * 1024 * 1024;

/// Appends a command. Each argument says its length, so that no byte in it can begin another command.
pub(super) fn encode(arguments: &[impl AsRef<[u8]>], wire: &mut Vec<u8>) {
    wire.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments.iter().map(AsRef::as_ref) {
        wire.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        wire.extend_from_slice(argument);
        wire.extend_from_slice(b"\r\n");
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A string of any kind, also a boolean, a double or a big number as it is written.
    Text(Vec<u8>),
    Number(i64),
    Null,
    /// An array, a set, or a map: its keys and values in turns.
    List(Vec<Reply>),
    /// What nothing was asked for.
    Push(Vec<Reply>),
    Error(String),
    /// It was larger than the limits. As the last value of a list it stands for all that followed, too.
    Dropped,
}

/// How much of each reply is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// The longest string.
    pub(super) string_bytes: usize,
    /// What all values of one reply may take in memory.
    pub(super) reply_bytes: usize,
}

impl Most {
    /// Reads one reply. It keeps only bytes that have arrived, and drops values beyond the limits: a reply that is too large
    /// costs its own content, and the replies after it are read all the same.
    ///
    /// After an error, where the next reply begins is unknown.
    pub(super) fn read(self, input: &mut impl BufRead) -> io::Result<Reply> {
        let Most { string_bytes, reply_bytes } = self;
        Reading { input, string_bytes, left: Some(reply_bytes) }.value(0)
    }
}

pub(super) fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "Redis sent what is not a reply to the command")
}

struct Reading<'i, I> {
    input: &'i mut I,
    string_bytes: usize,
    /// What the values that follow may take in memory; `None` when a value was too large, and nothing is kept any more.
    left: Option<usize>,
}

impl<I: BufRead> Reading<'_, I> {
    /// The value in so many lists.
    fn value(&mut self, depth: usize) -> io::Result<Reply> {
        let line = self.line()?;
        let (&kind, rest) = line.split_first().ok_or_else(malformed)?;
        Ok(match kind {
            b'+' | b',' | b'(' | b'#' if !self.keep(rest.len()) => Reply::Dropped,
            b'+' | b',' | b'(' | b'#' => Reply::Text(rest.to_vec()),
            b'-' => self.error(rest),
            b':' => {
                let number = str::from_utf8(rest).ok().and_then(|digits| digits.parse().ok());
                Reply::Number(number.ok_or_else(malformed)?)
            }
            b'_' => Reply::Null,
            b'$' | b'*' if rest == b"-1" => Reply::Null,
            b'$' | b'=' | b'!' => match self.string(length(rest)?)? {
                Some(bytes) if kind == b'!' => self.error(&bytes),
                Some(bytes) => Reply::Text(bytes),
                None => Reply::Dropped,
            },
            b'*' | b'~' => Reply::List(self.values(length(rest)?, depth)?),
            b'%' => {
                let count = length(rest)?.checked_mul(2).ok_or_else(malformed)?;
                Reply::List(self.values(count, depth)?)
            }
            b'>' if depth == 0 => Reply::Push(self.values(length(rest)?, depth)?),
            _ => return Err(malformed()),
        })
    }

    /// A line without its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let length = self.input.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.ends_with(b"\r\n") {
            line.truncate(length - 2);
            return Ok(line);
        }
        let is_whole = line.ends_with(b"\n") || length as u64 == LINE_BYTES;
        Err(if is_whole { malformed() } else { ErrorKind::UnexpectedEof.into() })
    }

    /// `None` when it is too long.
    fn string(&mut self, length: u64) -> io::Result<Option<Vec<u8>>> {
        if length > LONGEST {
            return Err(malformed());
        }
        let is_kept = length <= self.string_bytes as u64 && self.keep(length as usize);
        let has_come = self.input.fill_buf()?.len();
        let (mut bytes, mut end) = (Vec::new(), [0; 2]);
        let mut content = self.input.by_ref().take(length);
        // The length is a claim: neither takes more memory than what has come.
        if is_kept {
            bytes.reserve_exact(has_come.min(length as usize));
            content.read_to_end(&mut bytes)?;
        } else {
            io::copy(&mut content, &mut io::sink())?;
        }
        self.input.read_exact(&mut end)?;
        if end == *b"\r\n" { Ok(is_kept.then_some(bytes)) } else { Err(malformed()) }
    }

    fn values(&mut self, count: u64, depth: usize) -> io::Result<Vec<Reply>> {
        if depth == DEPTH {
            return Err(malformed());
        }
        // The count is a claim.
        let mut values = Vec::new();
        for _ in 0..count {
            let was_full = self.left.is_none();
            let value = self.value(depth + 1)?;
            // A list that has filled the room has its first values.
            let is_kept = self.keep(size_of::<Reply>()) || matches!(value, Reply::List(_));
            if is_kept && !was_full {
                values.push(value);
            } else if !was_full || values.last() != Some(&Reply::Dropped) {
                values.push(Reply::Dropped);
            }
        }
        Ok(values)
    }

    fn error(&mut self, said: &[u8]) -> Reply {
        // Each byte that is not UTF-8 becomes three.
        let said = String::from_utf8_lossy(said).into_owned();
        if self.keep(said.len()) { Reply::Error(said) } else { Reply::Dropped }
    }

    /// Whether so many more bytes are not too many for one reply.
    fn keep(&mut self, bytes: usize) -> bool {
        self.left = self.left.and_then(|left| left.checked_sub(bytes));
        self.left.is_some()
    }
}

/// A length or a count: digits and nothing else.
fn length(digits: &[u8]) -> io::Result<u64> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let digits = str::from_utf8(digits).ok().filter(|_| is_number);
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(malformed)
}
