//! Arguments, one after the other, and their values.

use super::Failure;
use std::ffi::{OsStr, OsString};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

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
        match &self.value {
            None => Ok(()),
            Some(_) => Err(Failure::usage(format!("{name} takes no value"))),
        }
    }

    /// The value of an option, as bytes: a path need not be UTF-8.
    pub(super) fn raw_value(&mut self, name: &str) -> Result<OsString, Failure> {
        let value = self.value.take().or_else(|| self.rest.next());
        value.ok_or_else(|| Failure::usage(format!("{name} needs a value; see newswire --help")))
    }

    /// The value of an option; `what` says in the refusal what it must be.
    pub(super) fn value<T: FromStr>(&mut self, name: &str, what: &str) -> Result<T, Failure> {
        let value = self.raw_value(name)?;
        let parsed = value.to_str().and_then(|text| text.parse().ok());
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
}

pub(super) fn unknown(argument: &OsStr) -> Failure {
    Failure::usage(format!("{argument:?} is not an option; see newswire --help"))
}
