//! Bytes to events: the standard's algorithm (HTML, 9.2.6), sentence by sentence.

use std::iter;
use std::time::Duration;

/// An event as EventSource would dispatch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `message` unless the stream named another.
    pub event_type: String,
    /// Its data, lines joined by LF.
    pub data: String,
    /// The last event ID at that moment, which an earlier event may have set.
    pub last_event_id: String,
}

/// Interprets an event stream that arrives in pieces of any size.
///
/// ```
/// use newswire::sse::Parser;
///
/// let mut parser = Parser::new();
/// let mut messages = parser.feed(b"id: 1\nda")?;
/// messages.extend(parser.feed(b"ta: The\n\n")?);
/// assert_eq!(messages[0].data, "The");
/// assert_eq!(messages[0].last_event_id, "1");
/// # Ok::<(), newswire::sse::EventTooLarge>(())
/// ```
///
/// When the stream ends there is nothing to do: "once the end of the file is reached, any pending data must be
/// discarded".
#[derive(Clone, Debug, Default)]
pub struct Parser {
    /// The part of a line that has arrived.
    line: Vec<u8>,
    /// The last byte was a CR, which ended a line. An LF now is part of the same line end.
    after_cr: bool,
    /// The first line has ended.
    is_begun: bool,
    data: String,
    event_type: String,
    last_event_id_buffer: String,
    last_event_id: String,
    reconnection_time: Option<Duration>,
    /// Without one, [`Parser::LIMIT`].
    limit: Option<usize>,
    is_too_large: bool,
}

/// An event is larger than the limit of the parser. The stream cannot be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTooLarge;

impl std::fmt::Display for EventTooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event of the stream is larger than the parser's limit")
    }
}

impl std::error::Error for EventTooLarge {}

impl Parser {
    /// The default limit for one event, 16 MiB.
    pub(super) const LIMIT: usize = 16 * 1024 * 1024;

    /// At the start of a stream, with a limit of 16 MiB for one event.
    pub fn new() -> Parser {
        Parser::default()
    }

    /// With another limit, in bytes, for one line and for the data of one event. Data counts as it is decoded: a byte
    /// that is not UTF-8 becomes U+FFFD, which has three bytes.
    pub fn with_limit(limit: usize) -> Parser {
        Parser { limit: Some(limit), ..Parser::default() }
    }

    /// As if a stream before had left this last event ID string.
    pub fn with_last_event_id(mut self, id: impl Into<String>) -> Parser {
        self.last_event_id = id.into();
        self.last_event_id_buffer.clone_from(&self.last_event_id);
        self
    }

    /// The last event ID string: what to send as `Last-Event-ID` on a reconnection.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time that the stream has asked for.
    pub fn reconnection_time(&self) -> Option<Duration> {
        self.reconnection_time
    }

    /// Begins the stream of the next connection. Pending data is discarded; the last event ID and the reconnection time
    /// stay.
    pub fn reconnect(&mut self) {
        *self = Parser {
            limit: self.limit,
            last_event_id_buffer: self.last_event_id.clone(),
            last_event_id: std::mem::take(&mut self.last_event_id),
            reconnection_time: self.reconnection_time,
            ..Parser::default()
        };
    }

    /// Takes the next piece of the stream, and returns the events that it completes.
    ///
    /// # Errors
    /// [`EventTooLarge`] when a line or the data of an event is larger than the limit. If the same piece completes
    /// events before that, they are returned first, and the error at the next call.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<Message>, EventTooLarge> {
        let mut messages = Vec::new();
        self.is_too_large = self.is_too_large || self.process(piece, &mut messages).is_err();
        if self.is_too_large && messages.is_empty() { Err(EventTooLarge) } else { Ok(messages) }
    }

    fn process(&mut self, piece: &[u8], messages: &mut Vec<Message>) -> Result<(), EventTooLarge> {
        // The rest of a CRLF that the piece before began.
        let is_rest = self.after_cr && piece.starts_with(b"\n");
        for (line, end) in lines(&piece[usize::from(is_rest)..]) {
            self.check(self.line.len() + line.len())?;
            self.line.extend_from_slice(line);
            if !end.is_empty() {
                let line = std::mem::take(&mut self.line);
                messages.extend(self.process_line(&line)?);
                self.line = line;
                self.line.clear();
            }
        }
        self.after_cr = piece.ends_with(b"\r") || piece.is_empty() && self.after_cr;
        Ok(())
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(Parser::LIMIT)
    }

    fn check(&self, bytes: usize) -> Result<(), EventTooLarge> {
        if bytes > self.limit() { Err(EventTooLarge) } else { Ok(()) }
    }

    fn process_line(&mut self, line: &[u8]) -> Result<Option<Message>, EventTooLarge> {
        // "Streams must be decoded using the UTF-8 decode algorithm", which "strips one leading UTF-8 Byte Order Mark
        // (BOM), if any" and puts U+FFFD for what is not UTF-8. A line can be decoded by itself, since no byte of a
        // character of several bytes looks like a line end.
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if !self.is_begun => rest,
            _ => line,
        };
        self.is_begun = true;
        // "If the line is empty (a blank line): Dispatch the event."
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (name, value) = field(line);
        self.process_field(name, &String::from_utf8_lossy(value));
        self.check(self.data.len()).map(|()| None)
    }

    fn process_field(&mut self, name: &[u8], value: &str) {
        match name {
            // "Set the event type buffer to the field value."
            b"event" => value.clone_into(&mut self.event_type),
            // "Append the field value to the data buffer, then append a single U+000A LINE FEED (LF) character."
            b"data" => self.data.extend([value, "\n"]),
            // "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value."
            b"id" if !value.contains('\0') => value.clone_into(&mut self.last_event_id_buffer),
            // "If the field value consists of only ASCII digits, then interpret the field value as an integer in base
            // ten, and set the event stream's reconnection time to that integer."
            b"retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.reconnection_time = Some(Duration::from_millis(value.parse().unwrap_or(u64::MAX)));
            }
            // "Otherwise: The field is ignored." A line that begins with a colon is ignored too: its field has no name.
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Message> {
        // "Set the last event ID string of the event source to the value of the last event ID buffer. The buffer does not
        // get reset."
        self.last_event_id.clone_from(&self.last_event_id_buffer);
        let event_type = std::mem::take(&mut self.event_type);
        // "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string and
        // return. If the data buffer's last character is a U+000A LINE FEED (LF) character, then remove the last
        // character."
        let mut data = std::mem::take(&mut self.data);
        data.pop()?;
        Some(Message {
            event_type: if event_type.is_empty() { "message".to_owned() } else { event_type },
            data,
            last_event_id: self.last_event_id.clone(),
        })
    }
}

/// The lines of a text, each with its end, which is empty for a last line that is not whole yet.
///
/// "Lines must be separated by either a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair, a single LF
/// character, or a single CR character." (HTML, 9.2.5)
///
/// ```
/// let lines = newswire::sse::lines(b"data: x\r\n: y");
/// assert_eq!(lines.collect::<Vec<_>>(), [(&b"data: x"[..], &b"\r\n"[..]), (b": y", b"")]);
/// ```
pub fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = text;
    iter::from_fn(move || {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        let (end, after) = after.split_at(if after.starts_with(b"\r\n") { 2 } else { after.len().min(1) });
        let is_line = !rest.is_empty();
        rest = after;
        is_line.then_some((line, end))
    })
}

/// The name of the field in a line, and its value. A comment has no name.
///
/// ```
/// use newswire::sse::field;
///
/// assert_eq!(field(b"data: x"), (&b"data"[..], &b"x"[..]));
/// assert_eq!(field(b": a comment"), (&b""[..], &b"a comment"[..]));
/// ```
pub fn field(line: &[u8]) -> (&[u8], &[u8]) {
    // "Collect the characters on the line before the first U+003A COLON character (:), and let field be that string.
    // Collect the characters after ..., and let value be that string." Without a colon: "using the whole line as the field
    // name, and the empty string as the field value."
    let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':').unwrap_or(line.len()));
    let value = value.strip_prefix(b":").unwrap_or(value);
    // "If value starts with a U+0020 SPACE character, remove it from value."
    (name, value.strip_prefix(b" ").unwrap_or(value))
}
