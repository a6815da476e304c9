//! RESP, the protocol of Redis, versions 2 and 3: commands to bytes, and bytes to replies.
//!
//! ```text
//! command = "*" count CRLF 1*( "$" length CRLF bytes CRLF )
//! reply   = ( "+" / "-" / ":" / "_" / "#" / "," / "(" ) line CRLF
//!         / ( "$" / "=" / "!" ) length CRLF bytes CRLF / ( "*" / "~" / ">" ) count CRLF count(reply)
//!         / "%" count CRLF count(reply reply)
//! ```

use std::mem::size_of;

/// No reply to a command of ours is deeper than 4: the fields of an entry of a stream in a list.
const DEPTH: usize = 8;
/// The first line of a value, without what follows it. Redis itself cuts an error off sooner.
const LINE_BYTES: usize = 16 * 1024;
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

/// The bytes are not RESP, and where the next reply begins is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads replies that arrive in pieces of any size. It keeps only bytes that have arrived, and drops values beyond the
/// limits: a reply that is too large costs its own content, and the replies behind it are read all the same.
#[derive(Debug)]
pub(super) struct Replies {
    /// The longest string that is kept.
    string_bytes: usize,
    /// What the values of one reply may take in memory.
    reply_bytes: usize,
    taken: usize,
    /// The part of a first line that has arrived.
    line: Vec<u8>,
    string: Option<Partial>,
    /// The lists around the value that is read.
    lists: Vec<List>,
}

#[derive(Debug)]
struct Partial {
    /// With the line end.
    missing: u64,
    /// `None` when it is dropped.
    bytes: Option<Vec<u8>>,
    is_error: bool,
}

#[derive(Debug)]
struct List {
    missing: u64,
    values: Vec<Reply>,
    is_push: bool,
    is_cut: bool,
}

impl Replies {
    pub(super) fn new(string_bytes: usize, reply_bytes: usize) -> Replies {
        let (line, lists) = (Vec::new(), Vec::new());
        Replies { string_bytes, reply_bytes, taken: 0, line, string: None, lists }
    }

    /// Takes bytes off the front of `input`, up to the end of a reply; `None` when the reply is not whole yet.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, Malformed> {
        while !input.is_empty() {
            let value = match self.string.is_some() {
                true => self.end_string(input)?,
                false => self.begin_value(input)?,
            };
            if let Some(reply) = value.and_then(|value| self.put(value)) {
                self.taken = 0;
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    fn begin_value(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, Malformed> {
        let end = input.iter().position(|&byte| byte == b'\n');
        let (piece, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
        *input = rest;
        if self.line.len() + piece.len() > LINE_BYTES {
            return Err(Malformed);
        }
        self.line.extend_from_slice(piece);
        if end.is_none() {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r\n").ok_or(Malformed)?;
        let (&kind, line) = line.split_first().ok_or(Malformed)?;
        let text = str::from_utf8(line).map_err(|_| Malformed);
        Ok(Some(match kind {
            b'+' | b',' | b'(' | b'#' => {
                self.keep(line.len()).map_or(Reply::Dropped, |()| Reply::Text(line.to_vec()))
            }
            b'-' => Reply::Error(String::from_utf8_lossy(line).into_owned()),
            b':' => Reply::Number(text?.parse().map_err(|_| Malformed)?),
            b'_' => Reply::Null,
            b'$' | b'*' if line == b"-1" => Reply::Null,
            b'$' | b'=' | b'!' => {
                let length = length(text?).filter(|length| *length <= LONGEST).ok_or(Malformed)?;
                let is_kept =
                    length <= self.string_bytes as u64 && self.keep(length as usize).is_some();
                let bytes = is_kept.then(Vec::new);
                self.string = Some(Partial { missing: length + 2, bytes, is_error: kind == b'!' });
                return Ok(None);
            }
            b'*' | b'~' | b'>' | b'%' => {
                let count = length(text?).ok_or(Malformed)?;
                let missing = count.checked_mul(1 + u64::from(kind == b'%')).ok_or(Malformed)?;
                let is_push = kind == b'>';
                if self.lists.len() == DEPTH || is_push && !self.lists.is_empty() {
                    return Err(Malformed);
                }
                let list = List { missing, values: Vec::new(), is_push, is_cut: false };
                if missing > 0 {
                    self.lists.push(list);
                    return Ok(None);
                }
                list.end()
            }
            _ => return Err(Malformed),
        }))
    }

    fn end_string(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, Malformed> {
        let Some(string) = &mut self.string else { return Ok(None) };
        let (mut piece, rest) = input.split_at(string.missing.min(input.len() as u64) as usize);
        *input = rest;
        while let Some((&first, after)) = piece.split_first() {
            // The line end is checked, and never kept.
            let of_content = (string.missing.saturating_sub(2)).min(piece.len() as u64) as usize;
            if of_content == 0 {
                if first != if string.missing == 2 { b'\r' } else { b'\n' } {
                    return Err(Malformed);
                }
                (string.missing, piece) = (string.missing - 1, after);
                continue;
            }
            if let Some(bytes) = &mut string.bytes {
                bytes.extend_from_slice(&piece[..of_content]);
            }
            (string.missing, piece) = (string.missing - of_content as u64, &piece[of_content..]);
        }
        if string.missing > 0 {
            return Ok(None);
        }
        let string = self.string.take();
        Ok(string.map(|Partial { bytes, is_error, .. }| match bytes {
            Some(bytes) if is_error => Reply::Error(String::from_utf8_lossy(&bytes).into_owned()),
            Some(bytes) => Reply::Text(bytes),
            None => Reply::Dropped,
        }))
    }

    /// Puts a value in the list around it. Gives the reply when no list is left open.
    fn put(&mut self, mut value: Reply) -> Option<Reply> {
        loop {
            let is_kept = self.keep(size_of::<Reply>()).is_some();
            let Some(mut list) = self.lists.pop() else { return Some(value) };
            // The content of a list is counted already.
            let is_kept = is_kept || matches!(value, Reply::List(_));
            if !list.is_cut {
                list.values.push(if is_kept { value } else { Reply::Dropped });
            } else if list.values.last() != Some(&Reply::Dropped) {
                list.values.push(Reply::Dropped);
            }
            list.is_cut |= self.is_full();
            list.missing -= 1;
            if list.missing > 0 {
                self.lists.push(list);
                return None;
            }
            value = list.end();
        }
    }

    /// `None` when so many more bytes are too many for one reply. Then nothing more of it is kept.
    fn keep(&mut self, bytes: usize) -> Option<()> {
        self.taken = self.taken.saturating_add(bytes);
        (!self.is_full()).then_some(())
    }

    fn is_full(&self) -> bool {
        self.taken > self.reply_bytes
    }
}

impl List {
    fn end(self) -> Reply {
        if self.is_push { Reply::Push(self.values) } else { Reply::List(self.values) }
    }
}

/// A length or a count: digits and nothing else.
fn length(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::Text(text.into())
    }

    fn read(mut wire: &[u8], replies: &mut Replies) -> Result<Vec<Reply>, Malformed> {
        let mut read = Vec::new();
        while let Some(reply) = replies.next(&mut wire)? {
            read.push(reply);
        }
        Ok(read)
    }

    #[test]
    fn a_command_says_the_length_of_each_argument() {
        let mut wire = Vec::new();
        encode(&["XADD", "", "a\r\n$1\r\nb"], &mut wire);
        assert_eq!(wire, b"*3\r\n$4\r\nXADD\r\n$0\r\n\r\n$8\r\na\r\n$1\r\nb\r\n");
    }

    #[test]
    fn replies_of_every_kind_are_read_wherever_they_are_cut() {
        let wire = b"+OK\r\n:-7\r\n$4\r\na\r\nb\r\n$-1\r\n*-1\r\n_\r\n#t\r\n,1.5\r\n(99\r\n-ERR no\r\n!3\r\nBAD\r\n\
            =5\r\ntxt:x\r\n>2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n%1\r\n+k\r\n*0\r\n~1\r\n:1\r\n$0\r\n\r\n";
        let push = Reply::Push(vec![text("invalidate"), Reply::List(vec![text("k")])]);
        let expected = vec![
            text("OK"),
            Reply::Number(-7),
            text("a\r\nb"),
            Reply::Null,
            Reply::Null,
            Reply::Null,
            text("t"),
            text("1.5"),
            text("99"),
            Reply::Error("ERR no".into()),
            Reply::Error("BAD".into()),
            text("txt:x"),
            push,
            Reply::List(vec![text("k"), Reply::List(vec![])]),
            Reply::List(vec![Reply::Number(1)]),
            text(""),
        ];
        for cut in 0..=wire.len() {
            let mut replies = Replies::new(100, 10_000);
            let mut read_so_far = read(&wire[..cut], &mut replies).expect("it is RESP");
            read_so_far.extend(read(&wire[cut..], &mut replies).expect("it is RESP"));
            assert_eq!(read_so_far, expected, "cut at {cut}");
        }
        let mut replies = Replies::new(100, 10_000);
        let by_bytes: Vec<_> =
            wire.iter().flat_map(|byte| read(&[*byte], &mut replies)).flatten().collect();
        assert_eq!(by_bytes, expected);
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        let deep = "*1\r\n".repeat(9);
        let long = "+".to_owned() + &"x".repeat(LINE_BYTES);
        for wire in [
            "?\r\n",
            "\r\n",
            "+OK\n",
            ":x\r\n",
            ":\r\n",
            "$-2\r\n",
            "$+1\r\n",
            "$1\r\nabc",
            "$1\r\na\r\r",
            "%-1\r\n",
            "$9223372036854775807\r\n",
            "*99999999999999999999\r\n",
            "%18446744073709551615\r\n",
            "$?\r\n",
            "*1\r\n>1\r\n",
            &deep,
            &long,
        ] {
            let mut replies = Replies::new(100, 10_000);
            assert_eq!(read(wire.as_bytes(), &mut replies), Err(Malformed), "{wire:.40}");
        }
    }

    #[test]
    fn a_claim_costs_no_memory_and_a_value_beyond_the_limits_costs_only_itself() {
        // The count and the length are claims: no byte of them has come.
        let mut replies = Replies::new(10, 10_000);
        let claims = b"*9223372036854775807\r\n$10\r\n";
        assert_eq!(read(claims, &mut replies), Ok(vec![]));
        assert!(replies.lists[0].values.capacity() == 0);

        let mut replies = Replies::new(10, 10_000);
        let wire = format!("*2\r\n$11\r\n{}\r\n$2\r\nok\r\n+next\r\n", "x".repeat(11));
        let list = Reply::List(vec![Reply::Dropped, text("ok")]);
        assert_eq!(read(wire.as_bytes(), &mut replies), Ok(vec![list, text("next")]));

        let wire = format!("*100000\r\n{}+next\r\n", ":1\r\n".repeat(100_000));
        let read = read(wire.as_bytes(), &mut replies).expect("it is RESP");
        let Reply::List(values) = &read[0] else { panic!("{:?}", read[0]) };
        assert_eq!(values.len(), 10_000 / size_of::<Reply>() + 1);
        assert_eq!((values.last(), &read[1]), (Some(&Reply::Dropped), &text("next")));
    }
}
