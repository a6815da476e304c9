//! Arguments, one after the other, and their values.

use super::Failure;
use std::ffi::{OsStr, OsString};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;
use std::time::Duration;

/// ```text
/// argument = name / name "=" value / name value / switch
/// ```
pub(crate) struct Arguments {
    rest: Peekable<Box<dyn Iterator<Item = OsString>>>,
    /// What stood behind the equals sign of the last argument.
    value: Option<OsString>,
}

impl Arguments {
    pub(crate) fn new(arguments: impl Iterator<Item = OsString> + 'static) -> Arguments {
        let arguments: Box<dyn Iterator<Item = OsString>> = Box::new(arguments);
        Arguments { rest: arguments.peekable(), value: None }
    }

    /// Takes the next argument if it is this command.
    pub(crate) fn take_command(&mut self, command: &str) -> bool {
        self.rest.next_if(|argument| argument == command).is_some()
    }

    /// The name of the next option. Only a value may be bytes that are not UTF-8.
    pub(super) fn next(&mut self) -> Result<Option<String>, Failure> {
        let Some(argument) = self.rest.next() else { return Ok(None) };
        let bytes = argument.as_bytes();
        let (name, value) = match bytes.iter().position(|&byte| byte == b'=') {
            Some(at) if bytes.starts_with(b"--") => (&bytes[..at], Some(&bytes[at + 1..])),
            _ => (bytes, None),
        };
        self.value = value.map(|value| OsStr::from_bytes(value).to_owned());
        match str::from_utf8(name) {
            Ok(name) => Ok(Some(name.to_owned())),
            Err(_) => Err(unknown(&argument)),
        }
    }

    /// Refuses a value behind the equals sign that the option has not taken: a switch has none.
    pub(super) fn check_switch(&self, name: &str) -> Result<(), Failure> {
        let mistake = || Err(Failure::usage(format!("{name} takes no value")));
        self.value.as_ref().map_or(Ok(()), |_| mistake())
    }

    /// The value of an option, as bytes: a path need not be UTF-8.
    pub(super) fn raw_value(&mut self, name: &str) -> Result<OsString, Failure> {
        let value = self.value.take().or_else(|| self.rest.next());
        value.ok_or_else(|| Failure::usage(format!("{name} needs a value; see newswire --help")))
    }

    /// The value of an option; `what` says in the refusal what it must be.
    pub(super) fn value<T: FromStr>(&mut self, name: &str, what: &str) -> Result<T, Failure> {
        self.parsed(name, what, |text| text.parse().ok())
    }

    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Failure> {
        let value = self.raw_value(name)?;
        let parsed = value.to_str().and_then(parse);
        parsed.ok_or_else(|| Failure::usage(format!("{name} takes {what}, not {value:?}")))
    }

    pub(super) fn number(
        &mut self,
        name: &str,
        least: usize,
        most: usize,
    ) -> Result<usize, Failure> {
        let what = format!("a number from {least} to {most}");
        match self.value(name, &what)? {
            number if (least..=most).contains(&number) => Ok(number),
            number => Err(Failure::usage(format!("{name} takes {what}, not \"{number}\""))),
        }
    }

    /// What one of these words stands for.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<T, Failure> {
        let what = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let value: String = self.value(name, &format!("one of {what}"))?;
        let found = words.iter().find(|(word, _)| *word == value);
        let mistake = || Failure::usage(format!("{name} takes one of {what}, not {value:?}"));
        found.map(|(_, meaning)| *meaning).ok_or_else(mistake)
    }

    /// Seconds, also with a fraction; more than none.
    pub(super) fn seconds(&mut self, name: &str) -> Result<Duration, Failure> {
        let seconds: f64 = self.value(name, SECONDS)?;
        let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero());
        let mistake = || Failure::usage(format!("{name} takes {SECONDS}, not \"{seconds}\""));
        time.filter(|time| time.as_secs() <= 1_000_000_000).ok_or_else(mistake)
    }

    /// A field for a request, as `Name: value`. What frames the content is not the user's to say.
    pub(super) fn field(&mut self, name: &str) -> Result<(String, String), Failure> {
        let field: String = self.value(name, "a field, as 'Name: value'")?;
        let (found, value) = field.split_once(':').unwrap_or_default();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let frames =
            ["content-length", "transfer-encoding"].contains(&&*found.to_ascii_lowercase());
        let is_name = !found.is_empty() && found.chars().all(is_token) && !frames;
        // The value may be a token, and is not repeated.
        match is_name && !value.contains(char::is_control) {
            true => Ok((found.to_owned(), value.trim().to_owned())),
            false => Err(Failure::usage(format!(
                "{name} takes a field, as 'Name: value', without control characters; newswire itself sends the \
                 length of the content"
            ))),
        }
    }

    /// Adds an argument that is no option, of which there are so many at most. Behind `--`, no argument is an option.
    pub(super) fn operand(
        &mut self,
        argument: &str,
        operands: &mut Vec<String>,
        most: usize,
    ) -> Result<(), Failure> {
        if argument == "--" {
            while self.rest.peek().is_some() {
                let value = self.value("--", "text in UTF-8")?;
                operands.push(value);
            }
        } else if argument.len() > 1 && argument.starts_with('-') {
            return Err(unknown(OsStr::new(argument)));
        } else {
            operands.push(argument.to_owned());
        }
        let extra = |extra| format!("{extra:?} is one argument too many; see newswire --help");
        operands.get(most).map_or(Ok(()), |operand| Err(Failure::usage(extra(operand))))
    }
}

const SECONDS: &str = "a number of seconds, more than 0";

pub(super) fn unknown(argument: &OsStr) -> Failure {
    Failure::usage(format!("{argument:?} is not an option; see newswire --help"))
}
