//! The file of keys: which key may publish on which channels, and subscribe to which. And the keys that a request has.

use crate::channel::Channels;
use crate::http::Head;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::path::Path;

/// A guess at a shorter key may come true.
const SHORTEST_KEY: usize = 16;
const LONGEST_KEY: usize = 256;

/// The largest file.
const FILE_BYTES: u64 = 1024 * 1024;

/// In place of a key: for channels that are open among private ones.
const ANYONE: &str = "anyone";

/// In place of a key: for channels that are private even when they have no key. Without such a line, a channel is public
/// once the last line that names it is gone.
const NONE: &str = "none";

/// A presence channel tells of the channel that its name ends with, and has the rule of that one.
const PRESENCE: &str = "@presence.";

#[derive(Clone, Copy, PartialEq, Eq)]
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
#[derive(Default)]
pub(super) struct Keys {
    lines: Vec<Line>,
}

struct Line {
    holder: Holder,
    actions: &'static [Action],
    patterns: Vec<Pattern>,
}

#[derive(PartialEq, Eq)]
enum Holder {
    Anyone,
    None,
    Key(String),
}

/// The name of a channel, or the beginning of names.
#[derive(Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    is_prefix: bool,
}

impl Keys {
    /// ```text
    /// file = *( [ line ] [ "#" *any ] LF )
    /// line = ( key / "anyone" / "none" ) "allow" ( "publish" / "subscribe" / "all" ) 1*( name / [ name ] "*" )
    /// ```
    /// with white space between the words. The error names the number of the line, and never shows a word of it: each
    /// could be a key.
    pub(super) fn parse(text: &str) -> Result<Keys, String> {
        let lines = text.lines().zip(1..).filter_map(|(line, number)| {
            let words: Vec<&str> =
                line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
            let parsed = (!words.is_empty()).then(|| Line::parse(&words));
            parsed.map(|parsed| parsed.map_err(|what| format!("line {number}: {what}")))
        });
        let lines = lines.collect::<Result<Vec<Line>, _>>()?;
        // It would make every channel public.
        if lines.is_empty() { Err("it has no line".to_owned()) } else { Ok(Keys { lines }) }
    }

    /// The text of a file of keys.
    ///
    /// # Errors
    /// Also when the file is too large, or no text.
    pub(super) fn read(path: &Path) -> io::Result<String> {
        let mut text = String::new();
        let bytes = File::open(path)?.take(FILE_BYTES + 1).read_to_string(&mut text)?;
        let too_large = || io::Error::other("it is larger than 1 MiB");
        if bytes as u64 > FILE_BYTES { Err(too_large()) } else { Ok(text) }
    }

    /// Adds a key that may publish on all channels, as `--publish-token-file` does.
    pub(super) fn with_publisher(mut self, token: &str) -> Keys {
        let all = Pattern { text: String::new(), is_prefix: true };
        let holder = Holder::Key(token.to_owned());
        self.lines.push(Line { holder, actions: &[Action::Publish], patterns: vec![all] });
        self
    }

    /// Those of the keys that a line has.
    pub(super) fn known(&self, mut presented: Vec<String>) -> Vec<String> {
        presented.retain(|key| self.lines.iter().any(|line| line.is_key(key)));
        presented
    }

    /// The verdict on one channel or on several: the worst of them.
    pub(super) fn judge(&self, action: Action, channels: &str, presented: &[String]) -> Verdict {
        let verdicts = channels.split(',').map(|name| self.judge_one(action, name, presented));
        verdicts.max().unwrap_or(Verdict::Unnamed)
    }

    /// Looks at every line, whichever fits: the time does not tell which one did.
    fn judge_one(&self, action: Action, name: &str, presented: &[String]) -> Verdict {
        let asked = Pattern::new(name.strip_prefix(PRESENCE).unwrap_or(name));
        let (mut is_named, mut is_allowed) = (false, false);
        for line in self.lines.iter().filter(|line| line.actions.contains(&action)) {
            is_named |= line.patterns.iter().any(|pattern| pattern.overlaps(&asked));
            let covers = line.patterns.iter().any(|pattern| pattern.covers(&asked));
            is_allowed |= line.is_for(presented) & covers;
        }
        match (is_named, is_allowed) {
            (_, true) => Verdict::Allowed,
            (true, false) => Verdict::Forbidden,
            (false, false) => Verdict::Unnamed,
        }
    }
}

impl Line {
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
        let is_key =
            (SHORTEST_KEY..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(may_stand);
        if ![ANYONE, NONE].contains(key) && !is_key {
            return Err(
                "a key is 16 to 256 letters, digits and -._~+/=, or the word anyone or none",
            );
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
        Ok(Line { holder, actions, patterns })
    }

    fn is_for(&self, presented: &[String]) -> bool {
        let same = presented.iter().map(|given| self.is_key(given));
        same.fold(self.holder == Holder::Anyone, |any, same| any | same)
    }

    fn is_key(&self, given: &str) -> bool {
        matches!(&self.holder, Holder::Key(key) if is_same(given.as_bytes(), key.as_bytes()))
    }
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        let prefix = text.strip_suffix('*');
        Pattern { text: prefix.unwrap_or(text).to_owned(), is_prefix: prefix.is_some() }
    }

    fn is_sound(&self) -> bool {
        Channels::is_name(&self.text) || (self.text.is_empty() && self.is_prefix)
    }

    /// Whether it has every name that the other has.
    fn covers(&self, other: &Pattern) -> bool {
        match self.is_prefix {
            true => other.text.starts_with(&self.text),
            false => self == other,
        }
    }

    /// Whether there may be a name that both have. A client that asks for `user.*` asks for the private `user.7`, too.
    fn overlaps(&self, other: &Pattern) -> bool {
        self.covers(other) || other.covers(self)
    }
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
