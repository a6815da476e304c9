//! The file of keys: which key may publish on which channels, and subscribe to which. And the keys that a request has.

use crate::channel::{Channels, PRESENCE};
use crate::http::Head;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::io::{self, Read};
use std::path::Path;

/// A guess at a shorter key may come true.
pub(super) const SHORTEST_KEY: usize = 16;
const LONGEST_KEY: usize = 256;

/// The largest file.
const FILE_BYTES: u64 = 1024 * 1024;

/// In place of a key: for channels that are open among private ones.
const ANYONE: &str = "anyone";

/// In place of a key: for channels that are private even when they have no key. Without such a line, a channel is public
/// once the last line that names it is gone.
const NONE: &str = "none";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Publish,
    Subscribe,
}

/// What the keys say of a request, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Allowed,
    /// No line names the channel.
    Unnamed,
    Forbidden,
}

/// A channel that a line names is private for what the line allows: only keys with such a line may do that. A channel that
/// no line names is left to the rules of the server.
///
/// A list asks about each of thousands of channels, and a file may have as many lines. So the lines are sorted once.
#[derive(Default)]
pub(super) struct Keys {
    /// What any line names.
    named: Rights,
    anyone: Rights,
    /// Each key and its rights, under a hash with a secret of this process: no client can choose a guess that is looked for
    /// near a key.
    holders: HashMap<u64, Vec<(String, Rights)>>,
    secret: RandomState,
}

/// What may be done on which channels: in order, and without what another one covers.
#[derive(Default)]
struct Rights(Vec<(Action, Pattern)>);

/// A line of the file.
pub(super) struct Line {
    holder: Holder,
    rights: Vec<(Action, Pattern)>,
}

enum Holder {
    Anyone,
    None,
    Key(String),
}

/// The name of a channel, or the beginning of names. In order, a beginning stands before all that it covers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern {
    text: String,
    is_name: bool,
}

impl Keys {
    /// With these lines. A key may have several.
    pub(super) fn new(lines: Vec<Line>) -> Keys {
        let mut keys = Keys::default();
        for Line { holder, rights } in lines {
            keys.named.0.extend_from_slice(&rights);
            match holder {
                Holder::None => {}
                Holder::Anyone => keys.anyone.0.extend(rights),
                Holder::Key(key) => {
                    let holders = keys.holders.entry(keys.secret.hash_one(&key)).or_default();
                    let known = holders.iter().position(|(known, _)| *known == key);
                    let at = known.unwrap_or(holders.len());
                    if at == holders.len() {
                        holders.push((key, Rights::default()));
                    }
                    holders[at].1.0.extend(rights);
                }
            }
        }
        let of_keys = keys.holders.values_mut().flatten().map(|(_, rights)| rights);
        of_keys.chain([&mut keys.named, &mut keys.anyone]).for_each(Rights::sort);
        keys
    }

    /// The rights of a key that a client has sent.
    fn rights(&self, given: &str) -> Option<&Rights> {
        let mut holders = self.holders.get(&self.secret.hash_one(given))?.iter();
        let holder = holders.find(|(key, _)| is_same(given.as_bytes(), key.as_bytes()));
        holder.map(|(_, rights)| rights)
    }

    /// Those of the keys that a line has.
    pub(super) fn known(&self, mut presented: Vec<String>) -> Vec<String> {
        presented.retain(|key| self.rights(key).is_some());
        presented
    }

    /// The verdict on one channel or on several: the worst of them.
    pub(super) fn judge(&self, action: Action, channels: &str, presented: &[String]) -> Verdict {
        // Once for all channels: a client may send a long key and ask for many.
        let held = presented.iter().filter_map(|key| self.rights(key)).chain([&self.anyone]);
        let held = Vec::from_iter(held);
        let verdicts = channels.split(',').map(|name| {
            // A presence tells of the channel that its name ends with, and has the rule of that one.
            let asked = (action, Pattern::new(name.strip_prefix(PRESENCE).unwrap_or(name)));
            if held.iter().any(|rights| rights.cover(&asked)) {
                Verdict::Allowed
            } else if self.named.overlap(&asked) {
                Verdict::Forbidden
            } else {
                Verdict::Unnamed
            }
        });
        verdicts.max().unwrap_or(Verdict::Unnamed)
    }
}

impl Rights {
    fn sort(&mut self) {
        self.0.sort_unstable();
        self.0.dedup_by(|later, before| covers(before, later));
    }

    /// Whether one of them has every name that is asked for. It is the last one that is not behind that: whatever stands
    /// between a beginning and a name that begins so is covered by it, and so is left out.
    fn cover(&self, asked: &(Action, Pattern)) -> bool {
        let end = self.0.partition_point(|right| right <= asked);
        end > 0 && covers(&self.0[end - 1], asked)
    }

    /// Whether one of them may have a name that is asked for. A client that asks for `user.*` asks for the private `user.7`,
    /// too.
    fn overlap(&self, asked: &(Action, Pattern)) -> bool {
        let start = self.0.partition_point(|right| right < asked);
        self.cover(asked) || self.0.get(start).is_some_and(|right| covers(asked, right))
    }
}

/// Whether a right has all that another one has.
fn covers((action, pattern): &(Action, Pattern), other: &(Action, Pattern)) -> bool {
    *action == other.0
        && match pattern.is_name {
            true => *pattern == other.1,
            false => other.1.text.starts_with(&pattern.text),
        }
}

impl Line {
    /// ```text
    /// file = *( [ line ] [ "#" *any ] LF )
    /// line = ( key / "anyone" / "none" ) "allow" ( "publish" / "subscribe" / "all" ) 1*( name / [ name ] "*" )
    /// ```
    /// with white space between the words. The error names the number of the line, and never shows a word of it: each
    /// could be a key.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Line>, String> {
        let lines = text.lines().zip(1..).filter_map(|(line, number)| {
            let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
            let parsed = (!words.is_empty()).then(|| Line::parse(&words));
            parsed.map(|parsed| parsed.map_err(|what| format!("line {number}: {what}")))
        });
        let lines = lines.collect::<Result<Vec<Line>, _>>()?;
        // It would make every channel public.
        if lines.is_empty() { Err("no line of it allows anything".to_owned()) } else { Ok(lines) }
    }

    /// A key that may publish on all channels, as `--publish-token-file` says.
    pub(super) fn publisher(token: &str) -> Line {
        let holder = Holder::Key(token.to_owned());
        Line { holder, rights: vec![(Action::Publish, Pattern::new("*"))] }
    }

    fn parse(words: &[&str]) -> Result<Line, &'static str> {
        let [key, "allow", action, patterns @ ..] = words else {
            return Err("a line is KEY allow publish|subscribe|all PATTERN...");
        };
        let actions: &[Action] = match *action {
            "publish" => &[Action::Publish],
            "subscribe" => &[Action::Subscribe],
            "all" => &[Action::Publish, Action::Subscribe],
            _ => return Err("what is allowed is publish, subscribe or all"),
        };
        // What a Bearer token (RFC 6750, 2.1), a cookie and a query can carry
        let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let is_key = (SHORTEST_KEY..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(may_stand);
        if ![ANYONE, NONE].contains(key) && !is_key {
            return Err("a key is 16 to 256 letters, digits and -._~+/=, or the word anyone or none");
        }
        let patterns: Vec<Pattern> = patterns.iter().map(|word| Pattern::new(word)).collect();
        if patterns.is_empty() || !patterns.iter().all(Pattern::is_sound) {
            return Err("a pattern is the name of a channel, or the beginning of names and a *");
        }
        let holder = match *key {
            ANYONE => Holder::Anyone,
            NONE => Holder::None,
            key => Holder::Key(key.to_owned()),
        };
        let each = |pattern: Pattern| actions.iter().map(move |action| (*action, pattern.clone()));
        Ok(Line { holder, rights: patterns.into_iter().flat_map(each).collect() })
    }
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        let prefix = text.strip_suffix('*');
        Pattern { text: prefix.unwrap_or(text).to_owned(), is_name: prefix.is_none() }
    }

    fn is_sound(&self) -> bool {
        Channels::is_name(&self.text) || (self.text.is_empty() && !self.is_name)
    }
}

/// The text of a file of keys.
///
/// # Errors
/// Also when the file is too large, or no text.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?.take(FILE_BYTES + 1).read_to_string(&mut text)?;
    let too_large = || io::Error::other("it is larger than 1 MiB");
    if bytes as u64 > FILE_BYTES { Err(too_large()) } else { Ok(text) }
}

/// The cookie for pages: EventSource can send no fields.
const COOKIE: &str = "newswire_key";

/// The keys of a request, one at most of each kind: `Authorization: Bearer`, the cookie, and `?key=`.
pub(super) fn presented(head: &Head) -> Vec<String> {
    let mut cookies = head.values("cookie").flat_map(|value| value.split(';'));
    let cookie = cookies.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    let bearer = head.field("authorization").and_then(bearer);
    let keys = [bearer.map(str::to_owned), cookie.map(str::to_owned), head.query("key")];
    keys.into_iter().flatten().collect()
}

/// ```text
/// credentials = "Bearer" 1*SP b64token        (RFC 6750, 2.1)
/// ```
/// The scheme's name is case-insensitive (RFC 9110, 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Compares in the same time wherever the first wrong byte is. Otherwise the time would tell an attacker how much of a
/// guess is right. The length of a key is no secret.
pub(super) fn is_same(given: &[u8], key: &[u8]) -> bool {
    let difference = |all, (a, b): (&u8, &u8)| all | black_box(a ^ b);
    given.len() == key.len() && black_box(given.iter().zip(key).fold(0, difference)) == 0
}
