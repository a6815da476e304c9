//! Several channels in one name, and how an event shows its channel.

use super::limits::is_name;
use crate::sse::Event;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// The parts of one name, at most.
const MAX_PARTS: usize = 16;

/// How many subscribers a channel has is told on a channel of its own, with this before the name. No client can publish on
/// it: it is no name. A dollar sign, which other servers have here, would be replaced by a shell.
pub(crate) const PRESENCE: &str = "@presence.";

/// ```text
/// selection = name / view / "@presence." name
/// view      = part *15( "," part )     ; with at least one comma or asterisk
/// part      = name / [ prefix ] "*"    ; all channels with names that begin so
/// ```
/// The order of the parts does not matter.
#[derive(Clone)]
pub(crate) struct Selection {
    /// Sorted; no channel matches two of them.
    parts: Vec<Arc<str>>,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Channel,
    View,
    Presence,
}

impl Selection {
    /// `None` when it is malformed.
    pub(crate) fn parse(text: &str) -> Option<Selection> {
        // The prefix may be empty, or begin in the middle of what may stand in a name.
        let is_part = |part: &str| match part.strip_suffix('*') {
            Some("") => true,
            Some(prefix) => is_name(prefix),
            None => is_name(part),
        };
        if let Some(name) = text.strip_prefix(PRESENCE).filter(|name| is_name(name)) {
            return Some(Selection { parts: vec![name.into()], kind: Kind::Presence });
        }
        let parts: Vec<&str> = text.split(',').take(MAX_PARTS + 1).collect();
        if parts.len() > MAX_PARTS || !parts.iter().all(|part| is_part(part)) {
            return None;
        }
        let is_covered = |part: &str| parts.iter().any(|other| *other != part && covers(other, part));
        let mut own: Vec<Arc<str>> =
            parts.iter().filter(|part| !is_covered(part)).map(|part| Arc::from(*part)).collect();
        own.sort_unstable();
        own.dedup();
        let kind = if text.contains([',', '*']) { Kind::View } else { Kind::Channel };
        Some(Selection { parts: own, kind })
    }

    /// Its names and patterns. A client needs the right to read each of them.
    pub(crate) fn parts(&self) -> &[Arc<str>] {
        &self.parts
    }

    /// Whether a channel of this name is in it.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.parts.iter().any(|part| **part == *name || covers(part, name))
    }

    /// Whether it is the name of a channel, and nothing else.
    pub(crate) fn is_channel(&self) -> bool {
        self.kind == Kind::Channel
    }

    pub(crate) fn is_view(&self) -> bool {
        self.kind == Kind::View
    }

    /// The same for each order of the parts.
    pub(super) fn name(&self) -> String {
        let prefix = if self.kind == Kind::Presence { PRESENCE } else { "" };
        format!("{prefix}{}", self.parts.join(","))
    }
}

fn covers(pattern: &str, part: &str) -> bool {
    pattern.strip_suffix('*').is_some_and(|prefix| part.starts_with(prefix))
}

/// The names behind `after` that a part of a selection matches.
pub(super) fn matching_part<'t, T>(
    of: &'t BTreeMap<Arc<str>, T>,
    part: &'t str,
    after: &'t str,
) -> impl Iterator<Item = (&'t Arc<str>, &'t T)> {
    let prefix = part.strip_suffix('*');
    let first = prefix.unwrap_or(part);
    let start = if after < first { Included(first) } else { Excluded(after) };
    let named = of.range::<str, _>((start, Unbounded));
    named.take_while(move |(name, _)| prefix.map_or(***name == *first, |prefix| name.starts_with(prefix)))
}

/// The frame of an event as a view shows it: `event: news`, or `event: news:TYPE` if it has a type of its own. A channel may be
/// named as a type that is reserved; then the default type stands after it, as `error:message`.
pub(super) fn shown(channel: &str, frame: &[u8]) -> Arc<[u8]> {
    // Comments, the id and a reconnection time stand before these lines.
    let mut start = 0;
    let mut own_type = None;
    for line in frame.split_inclusive(|byte| *byte == b'\n') {
        own_type = line.strip_prefix(b"event: ");
        if own_type.is_some() || line.starts_with(b"data:") {
            break;
        }
        start += line.len();
    }
    let rest = start + own_type.map_or(0, |own_type| b"event: ".len() + own_type.len());
    let is_reserved = Event::default().name(channel).is_ok_and(|event| event.is_reserved());
    let own_type = match own_type {
        Some(own_type) => [b":", own_type].concat(),
        None if is_reserved => b":message\n".to_vec(),
        None => b"\n".to_vec(),
    };
    [&frame[..start], b"event: ", channel.as_bytes(), &own_type, &frame[rest..]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_an_event_in_a_view_begins_with_its_channel() {
        for (channel, frame, expected) in [
            ("news", "id: 1-1\ndata: x\n\n", "id: 1-1\nevent: news\ndata: x\n\n"),
            ("news", "id: 1-1\nevent: a\ndata: x\n\n", "id: 1-1\nevent: news:a\ndata: x\n\n"),
            ("end", "id: 1-1\ndata: event: \n\n", "id: 1-1\nevent: end:message\ndata: event: \n\n"),
            (
                "c",
                "id: 1-1\n: event: a\nevent: b\nretry: 1\ndata: x\ndata: event: y\n\n",
                "id: 1-1\n: event: a\nevent: c:b\nretry: 1\ndata: x\ndata: event: y\n\n",
            ),
            ("c", "id: 1-1\nretry: 1\ndata: x\n\n", "id: 1-1\nretry: 1\nevent: c\ndata: x\n\n"),
        ] {
            assert_eq!(&*shown(channel, frame.as_bytes()), expected.as_bytes(), "{frame:?}");
        }
    }
}
