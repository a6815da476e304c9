//! An event to its bytes (HTML, 9.2.5). It cannot be built wrong, so it cannot be written wrong.

use std::fmt::{self, Display, Write};
use std::io;
use std::time::Duration;

/// One block of an event stream: an event, or only fields and a comment that the browser keeps to
/// itself.
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
/// # Ok::<(), newswire::sse::MalformedEvent>(())
/// ```
///
/// A stream carries text only. Binary data travels as base64, say, and is a third larger:
///
/// ```
/// use newswire::Event;
/// use newswire::sse::base64;
///
/// let event = Event::new(base64(&[0xff, 0x00, 0x0a]));
/// assert_eq!(event.to_string(), "data: /wAK\n\n"); // In the page: Uint8Array.fromBase64(event.data)
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    comment: Option<String>,
    id: Option<String>,
    name: Option<String>,
    reconnection_time: Option<Duration>,
    data: Option<String>,
}

/// An id or a name that would not arrive as it was given, or would arrive as something else.
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
    /// An event with this data: any text, of any number of lines. CR, LF and CRLF each end one, and
    /// arrive as LF.
    pub fn new(data: impl Into<String>) -> Event {
        Event { data: Some(data.into()), ..Event::default() }
    }

    /// A block that dispatches no event: a comment, of any number of lines. With an
    /// [`id`](Event::id) it moves the last event ID all the same, by the standard and in Chromium;
    /// Firefox and Safari take ids from events only.
    pub fn comment(text: impl Into<String>) -> Event {
        Event { comment: Some(text.into()), ..Event::default() }
    }

    /// With this id, which the browser sends back as `Last-Event-ID` when it reconnects. An empty
    /// one makes it forget.
    ///
    /// # Errors
    /// For CR, LF or NUL in it: the first two would begin another field, and "if the field value
    /// does not contain U+0000 NULL, then set the last event ID buffer to the field value ...
    /// Otherwise, ignore the field" (9.2.6).
    pub fn id(mut self, id: impl Display) -> Result<Event, MalformedEvent> {
        let id = id.to_string();
        if id.contains(['\r', '\n', '\0']) {
            return Err(MalformedEvent("an event's id has a CR, LF or NUL in it"));
        }
        self.id = Some(id);
        Ok(self)
    }

    /// With this name, the event type that `addEventListener` takes; `message` when there is none.
    /// Avoid `error` and `open`, which EventSource dispatches itself, and on a channel `gap` and `end`,
    /// which it sends itself.
    ///
    /// # Errors
    /// For CR, LF or NUL in it.
    pub fn name(mut self, name: impl Into<String>) -> Result<Event, MalformedEvent> {
        let name = name.into();
        if name.contains(['\r', '\n', '\0']) {
            return Err(MalformedEvent("an event's name has a CR, LF or NUL in it"));
        }
        self.name = Some(name);
        Ok(self)
    }

    /// With how long the browser should wait before it reconnects, in whole milliseconds.
    pub fn reconnection_time(mut self, time: Duration) -> Event {
        self.reconnection_time = Some(time);
        self
    }

    /// With other data.
    pub(crate) fn data(mut self, data: String) -> Event {
        self.data = Some(data);
        self
    }

    /// Without an id. A channel gives ids itself, and refuses an event that has one.
    pub fn without_id(mut self) -> Event {
        self.id = None;
        self
    }

    /// The block, if it has at most so many bytes: a kilobyte of line ends becomes seven.
    pub(crate) fn encoded_within(&self, most_bytes: usize) -> Option<String> {
        let mut bounded = Bounded { text: String::new(), most_bytes };
        write!(bounded, "{self}").ok()?;
        Some(bounded.text)
    }

    /// Appends the block's bytes to `frame`.
    pub fn encode(&self, frame: &mut Vec<u8>) {
        frame.extend_from_slice(self.to_string().as_bytes());
    }
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

impl From<&str> for Event {
    fn from(data: &str) -> Event {
        Event::new(data)
    }
}

impl From<String> for Event {
    fn from(data: String) -> Event {
        Event::new(data)
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A space always follows the colon: "if value starts with a U+0020 SPACE character, remove
        // it" (9.2.6) would otherwise eat the first space of who begins with one.
        for line in lines(self.comment.as_deref()) {
            writeln!(f, ": {line}")?;
        }
        if let Some(id) = &self.id {
            writeln!(f, "id: {id}")?;
        }
        if let Some(name) = &self.name {
            writeln!(f, "event: {name}")?;
        }
        if let Some(time) = self.reconnection_time {
            writeln!(f, "retry: {}", time.as_millis())?;
        }
        for line in lines(self.data.as_deref()) {
            writeln!(f, "data: {line}")?;
        }
        f.write_char('\n')
    }
}

/// `end-of-line = ( cr lf / cr / lf )`: whoever splits at LF only lets a CR in the data begin a
/// field of its own.
fn lines(text: Option<&str>) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else {
            return rest.take();
        };
        rest = Some(text[end..].strip_prefix("\r\n").unwrap_or(&text[end + 1..]));
        Some(&text[..end])
    })
}
