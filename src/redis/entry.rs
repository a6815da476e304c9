//! An entry of a stream, and what it says: an event, the end of the channel, or nothing.
//!
//! ```text
//! f  an encoded event without its id       data, event  an event of another program, to be encoded here
//! k  its idempotency key                    e            the channel is completed
//! p  a token of the publish command
//! ```

use super::resp::{Reply, encode};
use crate::sse::{Event, Parser};
use std::sync::Arc;

/// What an entry is to a channel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// An encoded event without its id, and its idempotency key.
    Event { block: String, key: Option<String> },
    /// The channel is completed.
    End,
}

/// What a mirror can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) events: usize,
    /// Of all encoded events with their ids, and of their keys.
    pub(crate) bytes: usize,
    pub(crate) is_id: fn(&str) -> bool,
}

/// The copy of a stream in this process. One thread changes it.
pub(crate) trait Mirror: Send + Sync {
    fn subscribers(&self) -> usize;

    /// Puts entries behind all others.
    fn extend(self: Arc<Self>, entries: Vec<Entry>);

    /// Begins anew with these entries, which are within the bounds. Whatever it held may not be what the stream holds, so
    /// the subscribers come back. `forgotten` is the newest id that is not among the entries, if there is an older one.
    fn replace(self: Arc<Self>, entries: Vec<Entry>, forgotten: Option<&str>);

    /// It is not followed any more.
    fn retire(self: Arc<Self>);
}

/// What was found where an entry was expected.
pub(super) enum Found {
    Entry(Entry),
    /// It is no event.
    Nothing,
    /// An event that cannot be held here.
    Hole,
}

impl Entry {
    /// Its bytes in a history.
    pub(super) fn size(&self) -> usize {
        match &self.content {
            Content::Event { block, key } => {
                "id: \n".len() + self.id.len() + block.len() + key.as_ref().map_or(0, String::len)
            }
            Content::End => 0,
        }
    }
}

/// The command that adds an entry. It trims what is older than `oldest`, and keeps some more: to trim exactly would cost
/// Redis twice as much.
pub(super) fn add(key: &str, content: &Content, token: &str, oldest: Option<&str>) -> Vec<u8> {
    let mut arguments = vec!["XADD", key];
    if let Some(oldest) = oldest {
        arguments.extend(["MINID", "~", oldest]);
    }
    arguments.extend(["*", "p", token]);
    match content {
        Content::Event { block, key } => {
            arguments.extend(["f", block]);
            if let Some(key) = key {
                arguments.extend(["k", key]);
            }
        }
        Content::End => arguments.extend(["e", "1"]),
    }
    let mut wire = Vec::new();
    encode(&arguments, &mut wire);
    wire
}

/// Entries as XRANGE and XREVRANGE give them.
pub(super) struct Page {
    pub(super) entries: Vec<Read>,
    /// It was too large, and more entries follow its last one.
    pub(super) is_cut: bool,
}

pub(super) struct Read {
    pub(super) id: String,
    pub(super) found: Found,
    pub(super) token: Option<String>,
}

impl Page {
    /// `None` when these are no entries.
    pub(super) fn read(values: &[Reply], bounds: &Bounds) -> Option<Page> {
        let whole = values.iter().filter(|value| **value != Reply::Dropped);
        let entries: Vec<Read> = whole.map(|value| read(value, bounds)).collect::<Option<_>>()?;
        Some(Page { is_cut: entries.len() < values.len(), entries })
    }
}

fn read(reply: &Reply, bounds: &Bounds) -> Option<Read> {
    let Reply::List(parts) = reply else { return None };
    let Some(Reply::Text(id)) = parts.first() else { return None };
    let id = String::from_utf8(id.clone()).ok()?;
    let fields = if let Some(Reply::List(fields)) = parts.get(1) { fields } else { parts };
    let field = |name: &str| {
        let pair = fields.chunks_exact(2).find(|pair| pair[0] == Reply::Text(name.into()))?;
        if let Reply::Text(value) = &pair[1] { Some(value) } else { None }
    };
    let text = |name: &str| field(name).map(|value| String::from_utf8_lossy(value).into_owned());
    let event = match (field("f"), text("data")) {
        _ if fields.contains(&Reply::Dropped) || !(bounds.is_id)(&id) => Encoded::TooLarge,
        (Some(block), _) if is_block(block) => Encoded::Block(text("f").unwrap_or_default()),
        (Some(block), _) => decode(block, bounds),
        (None, Some(data)) => event(data, text("event").unwrap_or_default(), bounds),
        (None, None) if field("e").is_some() => Encoded::End,
        (None, None) => Encoded::NoEvent,
    };
    let is_key = |key: &String| {
        (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let content = match event {
        Encoded::Block(block) => Ok(Content::Event { block, key: text("k").filter(is_key) }),
        Encoded::End => Ok(Content::End),
        Encoded::NoEvent => Err(Found::Nothing),
        Encoded::TooLarge => Err(Found::Hole),
    };
    let found = match content.map(|content| Entry { id: id.clone(), content }) {
        Ok(entry) if entry.size() <= bounds.bytes => Found::Entry(entry),
        Ok(_) => Found::Hole,
        Err(found) => found,
    };
    Some(Read { id, found, token: text("p") })
}

enum Encoded {
    Block(String),
    End,
    TooLarge,
    NoEvent,
}

/// Whether these bytes are one block as a channel encodes it. Any program may write to Redis: a block with an `id` field,
/// a second block or a reserved event type in it would mislead the clients.
fn is_block(block: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(block) else { return false };
    let Some(lines) = text.strip_suffix("\n\n").filter(|_| !text.contains('\r')) else {
        return false;
    };
    let mut has_data = false;
    let is_fine = |line: &str| {
        has_data |= line.starts_with("data: ");
        let retry = line.strip_prefix("retry: ");
        line.starts_with(": ")
            || line.starts_with("data: ")
            || line.strip_prefix("event: ").is_some_and(is_type)
            || retry
                .is_some_and(|ms| !ms.is_empty() && ms.bytes().all(|byte| byte.is_ascii_digit()))
    };
    lines.split('\n').all(is_fine) && has_data
}

fn is_type(name: &str) -> bool {
    Event::default().name(name).is_ok_and(|event| !event.is_reserved())
}

/// Reads a foreign block as a client would, and encodes the one event that it may be.
fn decode(block: &[u8], bounds: &Bounds) -> Encoded {
    let Ok(mut messages) = Parser::with_limit(bounds.bytes).feed(block) else {
        return Encoded::TooLarge;
    };
    match (messages.pop(), messages.is_empty()) {
        (Some(message), true) => {
            let name = Some(message.event_type).filter(|name| name != "message");
            event(message.data, name.unwrap_or_default(), bounds)
        }
        _ => Encoded::NoEvent,
    }
}

fn event(data: String, name: String, bounds: &Bounds) -> Encoded {
    let event = match name.is_empty() {
        true => Ok(Event::new(data)),
        false => Event::new(data).name(name),
    };
    match event {
        Ok(event) if !event.is_reserved() => {
            event.encoded_within(bounds.bytes).map_or(Encoded::TooLarge, Encoded::Block)
        }
        _ => Encoded::NoEvent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { events: 10, bytes: 100, is_id: |id| id != "9-9" };

    fn list(texts: &[&str]) -> Reply {
        Reply::List(texts.iter().map(|text| Reply::Text((*text).into())).collect())
    }

    fn found(id: &str, fields: &[&str]) -> Found {
        let entry = Reply::List(vec![Reply::Text(id.into()), list(fields)]);
        read(&entry, &BOUNDS).expect("it has an id").found
    }

    fn block(fields: &[&str]) -> Option<String> {
        match found("1-0", fields) {
            Found::Entry(Entry { content: Content::Event { block, .. }, .. }) => Some(block),
            _ => None,
        }
    }

    #[test]
    fn an_event_of_another_program_is_encoded_and_cannot_inject_anything() {
        let block = |fields: &[&str]| block(fields).unwrap_or_default();
        assert_eq!(block(&["data", "hello"]), "data: hello\n\n");
        assert_eq!(block(&["event", "note", "data", "a\nb"]), "event: note\ndata: a\ndata: b\n\n");
        assert_eq!(
            block(&["data", "a\r\rid: 7\n\ndata: b"]),
            "data: a\ndata: \ndata: id: 7\ndata: \ndata: data: b\n\n"
        );
        assert_eq!(
            block(&["f", ": c\nevent: a\nretry: 5\ndata: x\n\n"]),
            ": c\nevent: a\nretry: 5\ndata: x\n\n"
        );
        assert_eq!(block(&["f", "id: 7\ndata: x\n\n"]), "data: x\n\n");
        assert_eq!(block(&["f", "event:a\rdata:x\r\r"]), "event: a\ndata: x\n\n");
        for no_event in [
            &["f", "data: x\n\ndata: y\n\n"][..],
            &["f", "event: end\ndata: x\n\n"],
            &["f", "data: x"],
            &["f", ""],
            &["event", "gap", "data", "x"],
            &["event", "a\nid: 7", "data", "x"],
            &["other", "x"],
            &["data"],
            &[],
        ] {
            assert!(matches!(found("1-0", no_event), Found::Nothing), "{no_event:?}");
        }
    }

    #[test]
    fn an_event_that_cannot_be_held_is_a_hole() {
        let long = "x".repeat(100);
        assert!(matches!(found("9-9", &["data", "x"]), Found::Hole));
        assert!(matches!(found("1-0", &["data", &long]), Found::Hole));
        assert!(matches!(found("1-0", &["f", &format!("data: {long}\n\n")]), Found::Hole));
        let dropped = Reply::List(vec![Reply::Text("f".into()), Reply::Dropped]);
        let entry = Reply::List(vec![Reply::Text("1-0".into()), dropped]);
        assert!(matches!(read(&entry, &BOUNDS), Some(Read { found: Found::Hole, .. })));
    }

    #[test]
    fn an_entry_is_read_as_it_was_added() {
        let content = Content::Event { block: "data: x\n\n".into(), key: Some("k-1".into()) };
        let wire = add("newswire:{a}", &content, "n-1", Some("5-0"));
        let shown = String::from_utf8(wire).expect("it is text").replace("\r\n", " ");
        assert_eq!(
            shown,
            "*12 $4 XADD $12 newswire:{a} $5 MINID $1 ~ $3 5-0 $1 * $1 p $3 n-1 $1 f $9 data: x\n\n $1 k $3 k-1 "
        );
        let entry = Reply::List(vec![
            Reply::Text("1-0".into()),
            list(&["p", "n-1", "f", "data: x\n\n", "k", "k-1"]),
        ]);
        let read = read(&entry, &BOUNDS).expect("it has an id");
        assert_eq!(read.token.as_deref(), Some("n-1"));
        let Found::Entry(entry) = read.found else { panic!("it is one") };
        assert_eq!(entry, Entry { id: "1-0".into(), content });
        assert!(matches!(
            found("1-0", &["e", "1"]),
            Found::Entry(Entry { content: Content::End, .. })
        ));
    }
}
