//! The arguments of a command, read as its help describes them: a line of the help that begins with the name of an option says
//! that there is this option, and whether it has a value.

use super::Failure;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// ```text
/// argument = name / name "=" value / name value / switch / operand        ; behind "--" each is an operand
/// ```
pub(super) struct Arguments {
    help: &'static str,
    /// Each option as often as it was given. A switch has no value.
    options: Vec<(&'static str, Option<OsString>)>,
    operands: Vec<String>,
}

impl Arguments {
    /// With so many operands at most.
    pub(super) fn parse(
        help: &'static str,
        most: usize,
        mut rest: impl Iterator<Item = OsString>,
    ) -> Result<Arguments, Failure> {
        let mut found = Arguments { help, options: Vec::new(), operands: Vec::new() };
        let mut takes_options = true;
        while let Some(argument) = rest.next() {
            let bytes = argument.as_bytes();
            if takes_options && bytes == b"--" && most > 0 {
                takes_options = false;
            } else if takes_options && bytes.len() > 1 && bytes.starts_with(b"-") {
                found.take_option(&argument, &mut rest)?;
            } else if found.operands.len() < most {
                let not_text = |it| found.mistake(format!("{it:?} is not text in UTF-8"));
                let operand = argument.into_string().map_err(not_text)?;
                found.operands.push(operand);
            } else if most == 0 {
                return Err(found.mistake(format!("{argument:?} is not an option and not a command")));
            } else {
                return Err(found.mistake(format!("{argument:?} is one argument too many")));
            }
        }
        Ok(found)
    }

    fn take_option(&mut self, argument: &OsStr, rest: &mut impl Iterator<Item = OsString>) -> Result<(), Failure> {
        let mut parts = argument.as_bytes().splitn(2, |&byte| byte == b'=');
        let name = match parts.next().unwrap_or_default() {
            b"-h" => &b"--help"[..],
            b"-V" => &b"--version"[..],
            name => name,
        };
        // Only a value may be bytes that are not UTF-8. It is not shown: it may be a token.
        let described = str::from_utf8(name).ok().and_then(|name| describe(self.help, name));
        let unknown = || self.mistake(format!("{:?} is not an option", OsStr::from_bytes(name)));
        let (name, form) = described.ok_or_else(unknown)?;
        let behind = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
        let value = match name == form {
            true if behind.is_some() => return Err(self.mistake(format!("{name} takes no value"))),
            true => None,
            false => {
                let missing = || self.mistake(format!("{name} needs a value, as {form}"));
                Some(behind.or_else(|| rest.next()).ok_or_else(missing)?)
            }
        };
        self.options.push((name, value));
        Ok(())
    }

    /// A mistake, and where its remedy stands.
    pub(super) fn mistake(&self, what: impl Display) -> Failure {
        let command = self.help.split(':').next().unwrap_or_default();
        Failure::usage(format!("{what}; see {command} --help"))
    }

    /// The operands, of which there is one at least; `what` says in the refusal which one.
    pub(super) fn operands(&self, what: &str) -> Result<(&str, Option<&str>), Failure> {
        match &self.operands[..] {
            [] => Err(self.mistake(what)),
            [first, rest @ ..] => Ok((first, rest.first().map(String::as_str))),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(found, _)| *found == name)
    }

    /// The first option that was given of those that `is_sought`.
    pub(super) fn first(&self, is_sought: impl Fn(&str) -> bool) -> Option<&'static str> {
        self.options.iter().map(|(name, _)| *name).find(|name| is_sought(name))
    }

    pub(super) fn exclude(&self, one: &str, other: &str) -> Result<(), Failure> {
        let sentence = || format!("{one} and {other} exclude each other; leave one out");
        if self.has(one) && self.has(other) { Err(Failure::usage(sentence())) } else { Ok(()) }
    }

    /// Refuses an option that means nothing without another one.
    pub(super) fn need(&self, one: &str, other: &str) -> Result<(), Failure> {
        let form = describe(self.help, other).map_or(other, |(_, form)| form);
        let sentence = || format!("{one} needs {form}");
        if self.has(one) && !self.has(other) { Err(Failure::usage(sentence())) } else { Ok(()) }
    }

    /// The values of an option, as bytes.
    fn raw(&self, name: &str) -> impl DoubleEndedIterator<Item = &OsString> {
        self.options.iter().filter(move |(found, _)| *found == name).filter_map(|(_, value)| value.as_ref())
    }

    /// A path need not be UTF-8.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).next_back().map(PathBuf::from)
    }

    /// The values of an option that may be given several times; `what` says in the refusal what each must be.
    pub(super) fn each<T>(&self, name: &str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Failure> {
        let parsed = |value: &OsString| {
            let mistake = || Failure::usage(format!("{name} takes {what}, not {value:?}"));
            value.to_str().and_then(&parse).ok_or_else(mistake)
        };
        self.raw(name).map(parsed).collect()
    }

    /// The value of an option. Of several, the last one counts.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        Ok(self.each(name, what, parse)?.pop())
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Failure> {
        self.each(name, "text in UTF-8", |text| Some(text.to_owned()))
    }

    /// Of several, the last one counts.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        Ok(self.texts(name)?.pop())
    }

    pub(super) fn number<N: TryFrom<usize>>(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<N>, Failure> {
        let form = describe(self.help, name).map_or(name, |(_, form)| form);
        let unit = if form.ends_with("SECONDS") { " of seconds" } else { "" };
        let what = format!("a number{unit} from {} to {}", range.start(), range.end());
        let within = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        self.parsed(name, &what, |text| within(text).and_then(|number| number.try_into().ok()))
    }

    /// What one of these words stands for.
    pub(super) fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Failure> {
        let what = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let meaning = |text: &str| words.iter().find(|(word, _)| *word == text).map(|pair| pair.1);
        self.parsed(name, &format!("one of {what}"), meaning)
    }

    /// Seconds, also with a fraction; more than none.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<Duration>, Failure> {
        self.parsed(name, "a number of seconds, more than 0", |text| {
            let time = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
            (!time.is_zero() && time.as_secs() <= 1_000_000_000).then_some(time)
        })
    }

    /// Fields for a request, each as `Name: value`. What frames the content is not the user's to say.
    pub(super) fn fields(&self, name: &str) -> Result<Vec<(String, String)>, Failure> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let frames = |name: &str| ["content-length", "transfer-encoding"].contains(&&*name.to_ascii_lowercase());
        let field = |text: &OsString| {
            let (name, value) = text.to_str()?.split_once(':')?;
            let is_name = !name.is_empty() && name.chars().all(is_token) && !frames(name);
            let is_field = is_name && !value.contains(char::is_control);
            is_field.then(|| (name.to_owned(), value.trim().to_owned()))
        };
        // The value may be a token, and is not repeated.
        let mistake = || {
            Failure::usage(format!(
                "{name} takes a field, as 'Name: value', without control characters; newswire itself sends the \
                 length of the content"
            ))
        };
        self.raw(name).map(|text| field(text).ok_or_else(mistake)).collect()
    }

    /// The token in the file that an option names, without the white space around it. The file is read once; its content is
    /// never shown.
    pub(super) fn token(&self, name: &str) -> Result<Option<String>, Failure> {
        let Some(path) = self.path(name) else { return Ok(None) };
        if self.raw(name).any(|other| path != **other) {
            return Err(Failure::usage(format!("{name} takes one file; leave the others out")));
        }
        let failed = |why: String| Failure::usage(format!("{name}: cannot use {path:?}: {why}"));
        let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        let token = text.trim();
        match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Some(token.to_owned())),
            false => Err(failed("it holds no token, which is one word of visible ASCII characters".into())),
        }
    }
}

/// The name of an option and its form, which has the value, too: `--redis` and `--redis HOST:PORT`.
fn describe(help: &'static str, name: &str) -> Option<(&'static str, &'static str)> {
    // Most descriptions stand two spaces behind the form. `--help, --version` has two forms.
    let columns = help.lines().filter_map(|line| line.strip_prefix("    ")?.split("  ").next());
    let described = |form: &'static str| {
        let (found, rest) = form.split_once(' ').unwrap_or((form, ""));
        let end = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.find('\'').map_or(rest.len(), |end| end + 2),
            None => rest.find(' ').unwrap_or(rest.len()),
        };
        (found, &form[..form.len() - rest.len() + end])
    };
    let mut forms = columns.flat_map(|column| column.split(", ")).map(described);
    forms.find(|(found, _)| *found == name)
}
