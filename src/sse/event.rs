//! An event to its bytes (HTML, 9.2.5). An event that would not arrive as it was built cannot be built.

use std::fmt::{self, Display, Write};
use std::io;
use std::time::Duration;

/// One event of a stream: data, and beside it an id, a name, a reconnection time, a comment.
///
/// ```text
/// stream  = [ bom ] *event
/// event   = *( comment / field ) end-of-line
/// comment = colon *any-char end-of-line
/// field   = 1*name-char [ colon [ space ] *any-char ] end-of-line
/// ```
///
/// ```
/// use newswire::Event;
/// use std::time::Duration;
///
/// let event = Event::new("two\nlines").id(7)?.name("note")?.reconnection_time(Duration::from_secs(3));
/// assert_eq!(event.to_string(), "id: 7\nevent: note\nretry: 3000\ndata: two\ndata: lines\n\n");
/// assert!(Event::new("").name("note\ndata: forged").is_err());
/// assert_eq!(Event::default().comment("no data").to_string(), ": no data\n");
/// # Ok::<(), newswire::sse::MalformedEvent>(())
/// ```
///
/// # Without data
/// A blank line dispatches an event. Several clients dispatch an empty one when the block has no data, although the
/// standard forbids it. So an event without data has no blank line. Its comment and its reconnection time take effect at
/// once. Its id takes effect with the next event, unless that has an id of its own. Its name is not written: it would
/// name the next event.
///
/// # Binary data
/// A stream carries text only. [`base64`](crate::sse::base64) carries any bytes, and is a third larger; in the page,
/// `Uint8Array.fromBase64(event.data)` has them again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    comment: Option<String>,
    id: Option<String>,
    name: Option<String>,
    reconnection_time: Option<Duration>,
    data: Option<String>,
}

/// What an [`Event`] holds; `None` where it holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'e> {
    /// Any number of lines.
    pub comment: Option<&'e str>,
    /// One line.
    pub id: Option<&'e str>,
    /// One line, the event type.
    pub name: Option<&'e str>,
    /// Encoded in whole milliseconds.
    pub reconnection_time: Option<Duration>,
    /// Any number of lines.
    pub data: Option<&'e str>,
}

/// An id or a name would not arrive as it was given, or would begin another field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedEvent(&'static str);

impl Display for MalformedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for MalformedEvent {}

impl From<MalformedEvent> for io::Error {
    fn from(error: MalformedEvent) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl Event {
    /// An event with this data: any text, of any number of lines. CR, LF and CRLF each end a line, and arrive as LF.
    pub fn new(data: impl Into<String>) -> Event {
        Event { data: Some(data.into()), ..Event::default() }
    }

    /// With this data instead.
    pub fn data(mut self, data: impl Into<String>) -> Event {
        self.data = Some(data.into());
        self
    }

    /// With this comment, of any number of lines. Clients ignore it; it shows in the raw stream.
    pub fn comment(mut self, text: impl Into<String>) -> Event {
        self.comment = Some(text.into());
        self
    }

    /// With this id. The browser sends the id of the last event as `Last-Event-ID` when it reconnects. After an empty
    /// id it sends none.
    ///
    /// # Errors
    /// When a CR, LF or NUL is in it. CR and LF would begin another field, and "if the field value does not contain
    /// U+0000 NULL, then set the last event ID buffer to the field value ... Otherwise, ignore the field" (9.2.6).
    pub fn id(mut self, id: impl Display) -> Result<Event, MalformedEvent> {
        self.id = Some(one_line(id.to_string(), "the id of an event has a CR, LF or NUL in it")?);
        Ok(self)
    }

    /// With this name, the event type that `addEventListener` takes; without one it is `message`. Avoid the
    /// [reserved](Event::is_reserved) ones.
    ///
    /// # Errors
    /// When a CR, LF or NUL is in it.
    pub fn name(mut self, name: impl Into<String>) -> Result<Event, MalformedEvent> {
        self.name = Some(one_line(name.into(), "the name of an event has a CR, LF or NUL in it")?);
        Ok(self)
    }

    /// With how long the client waits before it reconnects, in whole milliseconds.
    pub fn reconnection_time(mut self, time: Duration) -> Event {
        self.reconnection_time = Some(time);
        self
    }

    /// What the event holds.
    pub fn fields(&self) -> Fields<'_> {
        Fields {
            comment: self.comment.as_deref(),
            id: self.id.as_deref(),
            name: self.name.as_deref(),
            reconnection_time: self.reconnection_time,
            data: self.data.as_deref(),
        }
    }

    /// Whether its name is reserved, and so refused by a channel: EventSource itself dispatches `open` and `error`, and a
    /// channel sends `end`, `gap` and `heartbeat`. With these, a publisher could mislead the clients of a channel, and
    /// with white space around them those clients that trim the type.
    pub fn is_reserved(&self) -> bool {
        matches!(self.name.as_deref().map(str::trim), Some("open" | "error" | "end" | "gap" | "heartbeat"))
    }

    /// Without an id. A channel gives ids itself, and refuses an event that has one.
    pub fn without_id(mut self) -> Event {
        self.id = None;
        self
    }

    /// The encoded event, if it has at most so many bytes: a kilobyte of line ends becomes seven.
    pub(crate) fn encoded_within(&self, most_bytes: usize) -> Option<String> {
        let text = String::with_capacity(self.data.as_ref().map_or(0, |data| data.len()) + 64);
        let mut bounded = Bounded { text, most_bytes };
        write!(bounded, "{self}").ok()?;
        Some(bounded.text)
    }

    /// Appends the encoded event to `frame`.
    pub fn encode(&self, frame: &mut Vec<u8>) {
        frame.extend_from_slice(self.to_string().as_bytes());
    }
}

fn one_line(text: String, error: &'static str) -> Result<String, MalformedEvent> {
    if text.contains(['\r', '\n', '\0']) { Err(MalformedEvent(error)) } else { Ok(text) }
}

struct Bounded {
    text: String,
    most_bytes: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if self.text.len() + piece.len() > self.most_bytes {
            return Err(fmt::Error);
        }
        self.text.push_str(piece);
        Ok(())
    }
}

/// An event with this data.
impl<T: Into<String>> From<T> for Event {
    fn from(data: T) -> Event {
        Event::new(data)
    }
}

/// A copy, for a broadcast.
impl From<&Event> for Event {
    fn from(event: &Event) -> Event {
        event.clone()
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // "If value starts with a U+0020 SPACE character, remove it from value" (9.2.6): without the space behind the
        // colon, a value would lose the space that it begins with.
        for line in lines(self.comment.as_deref()) {
            writeln!(f, ": {line}")?;
        }
        if let Some(id) = &self.id {
            writeln!(f, "id: {id}")?;
        }
        if let Some(name) = self.name.as_ref().filter(|_| self.data.is_some()) {
            writeln!(f, "event: {name}")?;
        }
        if let Some(time) = self.reconnection_time {
            writeln!(f, "retry: {}", time.as_millis())?;
        }
        for line in lines(self.data.as_deref()) {
            writeln!(f, "data: {line}")?;
        }
        if self.data.is_some() { f.write_char('\n') } else { Ok(()) }
    }
}

/// `end-of-line = ( cr lf / cr / lf )`. An encoder that splits at LF only lets a CR in the data begin another field.
fn lines(text: Option<&str>) -> impl Iterator<Item = &str> {
    let parts = text.into_iter().flat_map(|text| text.split("\r\n"));
    parts.flat_map(|part| part.split(['\r', '\n']))
}
