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
    pub(crate) is_key: fn(&str) -> bool,
}

/// The copy of a stream in this process. One thread changes it.
pub(crate) trait Mirror: Send + Sync {
    /// Whether it has subscribers, itself or in a view.
    fn is_wanted(&self) -> bool;

    /// Puts entries after all others.
    fn extend(self: Arc<Self>, entries: Vec<Entry>);

    /// Begins anew with these entries, which are within the bounds. Whatever it held may not be what the stream holds, so
    /// the subscribers come back. `forgotten` is the newest id that is not among the entries, if there is an older one.
    fn replace(self: Arc<Self>, entries: Vec<Entry>, forgotten: Option<&str>);

    /// It is not followed any more.
    fn retire(self: Arc<Self>);
}

/// Why an entry has no content that a channel can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is no event.
    NoEvent,
    /// It is an event that cannot be held here.
    TooLarge,
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
    pub(super) entry: Result<Entry, Unfit>,
    pub(super) token: Option<String>,
}

impl Page {
    /// `None` when these are no entries.
    pub(super) fn read(values: &[Reply], bounds: &Bounds) -> Option<Page> {
        let whole = values.iter().filter(|value| **value != Reply::Dropped);
        let mut entries: Vec<Read> = whole.map(|it| read(it, bounds)).collect::<Option<_>>()?;
        // If the page was cut in its last entry, the next page begins with that one.
        if entries.len() > 1 {
            entries.pop_if(|last| last.entry == Err(Unfit::TooLarge));
        }
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
    let key = || text("k").filter(|key| (bounds.is_key)(key));
    let event = |block| Content::Event { block, key: key() };
    let content = match (field("f"), text("data")) {
        _ if fields.contains(&Reply::Dropped) || !(bounds.is_id)(&id) => Err(Unfit::TooLarge),
        (Some(block), _) => own_block(block, bounds).map(event),
        (None, Some(data)) => encode_event(data, text("event"), bounds).map(event),
        (None, None) if field("e").is_some() => Ok(Content::End),
        (None, None) => Err(Unfit::NoEvent),
    };
    let entry = content.map(|content| Entry { id: id.clone(), content });
    let entry = match entry {
        Ok(entry) if entry.size() > bounds.bytes => Err(Unfit::TooLarge),
        entry => entry,
    };
    Some(Read { id, entry, token: text("p") })
}

/// The block itself if a channel has encoded it. Any other is read as a client would read it, and the one event that it may
/// be is encoded here.
fn own_block(block: &[u8], bounds: &Bounds) -> Result<String, Unfit> {
    if let Some(text) = str::from_utf8(block).ok().filter(|text| is_block(text)) {
        return Ok(text.to_owned());
    }
    let messages = Parser::with_limit(bounds.bytes).feed(block).map_err(|_| Unfit::TooLarge)?;
    let [message] = <[_; 1]>::try_from(messages).map_err(|_| Unfit::NoEvent)?;
    let name = Some(message.event_type).filter(|name| name != "message");
    encode_event(message.data, name, bounds)
}

/// Whether this is one block as a channel encodes it. Any program may write to Redis: a block with an `id` field, a second
/// block or a reserved event type in it would mislead the clients.
fn is_block(text: &str) -> bool {
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
            || retry.is_some_and(|ms| !ms.is_empty() && ms.bytes().all(|byte| byte.is_ascii_digit()))
    };
    lines.split('\n').all(is_fine) && has_data
}

fn is_type(name: &str) -> bool {
    Event::default().name(name).is_ok_and(|event| !event.is_reserved())
}

fn encode_event(data: String, name: Option<String>, bounds: &Bounds) -> Result<String, Unfit> {
    let event = match name.filter(|name| !name.is_empty()) {
        None => Event::new(data),
        Some(name) => Event::new(data).name(name).map_err(|_| Unfit::NoEvent)?,
    };
    if event.is_reserved() {
        return Err(Unfit::NoEvent);
    }
    event.encoded_within(bounds.bytes).ok_or(Unfit::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { events: 10, bytes: 100, is_id: |id| id != "9-9", is_key: |_| true };

    fn list(texts: &[&str]) -> Reply {
        Reply::List(texts.iter().map(|text| Reply::Text((*text).into())).collect())
    }

    fn found(id: &str, fields: &[&str]) -> Result<Content, Unfit> {
        let entry = Reply::List(vec![Reply::Text(id.into()), list(fields)]);
        read(&entry, &BOUNDS).expect("it has an id").entry.map(|entry| entry.content)
    }

    #[test]
    fn an_event_of_another_program_is_encoded_and_cannot_inject_anything() {
        let block = |fields: &[&str]| match found("1-0", fields) {
            Ok(Content::Event { block, .. }) => block,
            other => panic!("{fields:?} is {other:?}"),
        };
        assert_eq!(block(&["data", "hello"]), "data: hello\n\n");
        assert_eq!(block(&["event", "note", "data", "a\nb"]), "event: note\ndata: a\ndata: b\n\n");
        assert_eq!(
            block(&["data", "a\r\rid: 7\n\ndata: b"]),
            "data: a\ndata: \ndata: id: 7\ndata: \ndata: data: b\n\n"
        );
        assert_eq!(block(&["f", ": c\nevent: a\nretry: 5\ndata: x\n\n"]), ": c\nevent: a\nretry: 5\ndata: x\n\n");
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
            assert_eq!(found("1-0", no_event), Err(Unfit::NoEvent), "{no_event:?}");
        }
    }

    #[test]
    fn an_event_that_cannot_be_held_is_a_hole() {
        let long = "x".repeat(100);
        let too_large = Err(Unfit::TooLarge);
        assert_eq!(found("9-9", &["data", "x"]), too_large);
        assert_eq!(found("1-0", &["data", &long]), too_large);
        assert_eq!(found("1-0", &["f", &format!("data: {long}\n\n")]), too_large);
        let dropped = Reply::List(vec![Reply::Text("f".into()), Reply::Dropped]);
        let entry = Reply::List(vec![Reply::Text("1-0".into()), dropped]);
        assert_eq!(read(&entry, &BOUNDS).expect("it has an id").entry, Err(Unfit::TooLarge));
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
        let entry = Reply::List(vec![Reply::Text("1-0".into()), list(&["p", "n-1", "f", "data: x\n\n", "k", "k-1"])]);
        let read = read(&entry, &BOUNDS).expect("it has an id");
        assert_eq!(read.token.as_deref(), Some("n-1"));
        assert_eq!(read.entry, Ok(Entry { id: "1-0".into(), content }));
        assert_eq!(found("1-0", &["e", "1"]), Ok(Content::End));
    }
}
