//! Events as text: for people, as JSON, or their data alone.

use newswire::sse::{Message, json_string};
use std::env;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::{SystemTime, UNIX_EPOCH};

/// What `--output` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Text,
    Json,
    Data,
    Raw,
}

impl Output {
    pub(super) fn parse(name: &str) -> Option<Output> {
        let names = ["text", "json", "data", "raw"].into_iter();
        let outputs = [Output::Text, Output::Json, Output::Data, Output::Raw];
        names.zip(outputs).find_map(|(found, output)| (found == name).then_some(output))
    }
}

/// Prints events in columns that grow with what they hold.
pub(super) struct Printer {
    output: Output,
    is_terminal: bool,
    has_color: bool,
    /// The columns of the id and the type, in characters.
    widths: [usize; 2],
}

/// The widest column; a longer id or type moves the rest of its line.
const WIDEST: usize = 32;

impl Printer {
    /// "All command-line software which adds ANSI color to its output ... should check for a `NO_COLOR` environment variable that,
    /// when present and not an empty string (regardless of its value), prevents the addition of ANSI color." (no-color.org)
    pub(super) fn new(output: Output) -> Printer {
        let is_terminal = io::stdout().is_terminal();
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let has_color = is_terminal && !no_color && !is_dumb;
        Printer { output, is_terminal, has_color, widths: [0; 2] }
    }

    /// An event that has arrived now, as it is printed.
    pub(super) fn print(&mut self, message: &Message) -> String {
        let Message { event_type, data, last_event_id } = message;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.output {
            Output::Text => self.columns(message, now.as_millis()),
            Output::Data if self.is_terminal => {
                data.split('\n').map(|line| escape(line) + "\n").collect()
            }
            Output::Data | Output::Raw => format!("{data}\n"),
            Output::Json => {
                let [id, event, data] =
                    [last_event_id, event_type, data].map(|text| json_string(text));
                let time = now.as_millis();
                format!("{{\"id\":{id},\"event\":{event},\"data\":{data},\"time\":{time}}}\n")
            }
        }
    }

    fn columns(&mut self, message: &Message, unix_ms: u128) -> String {
        let seconds = unix_ms / 1_000 % 86_400;
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let time = format!("{hour:02}:{minute:02}:{second:02}.{:03}Z", unix_ms % 1_000);
        let (mut out, mut indent) = (String::new(), 0);
        let columns = [&message.last_event_id, &message.event_type].map(|text| escape(text));
        for (width, column) in self.widths.iter_mut().zip(&columns) {
            *width = column.chars().count().min(WIDEST).max(*width);
        }
        let [id, event_type] = &columns;
        let cells =
            [(&time, 13, "2"), (id, self.widths[0], "36"), (event_type, self.widths[1], "33")];
        for (cell, width, color) in cells.into_iter().filter(|(_, width, _)| *width > 0) {
            let length = cell.chars().count().max(width);
            let _ = match self.has_color {
                true => write!(out, "\x1b[{color}m{cell:width$}\x1b[0m  "),
                false => write!(out, "{cell:width$}  "),
            };
            indent += length + 2;
        }
        let data = one_line(&message.data).unwrap_or_else(|| message.data.clone());
        for (number, line) in data.split('\n').enumerate() {
            let indent = if number == 0 { 0 } else { indent };
            out += &format!("{:indent$}{}\n", "", escape(line));
        }
        out
    }
}

/// Without characters that control a terminal or reorder a line: a stream is written by a stranger.
pub(super) fn escape(text: &str) -> String {
    let is_harmful = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match is_harmful(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

/// JSON of several lines as one: a string of JSON has no line end, so that each line end is white space. `None` for what
/// is no JSON object or array.
fn one_line(data: &str) -> Option<String> {
    let mut closing = Vec::new();
    let (mut is_string, mut is_escaped) = (false, false);
    for c in data.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\n' if is_string => return None,
            '\\' if is_string => is_escaped = true,
            '"' => is_string = !is_string,
            _ if is_string => {}
            '{' => closing.push('}'),
            '[' => closing.push(']'),
            '}' | ']' if closing.pop() != Some(c) => return None,
            _ if closing.is_empty() && !c.is_whitespace() && !matches!(c, '}' | ']') => {
                return None;
            }
            _ => {}
        }
    }
    let is_json = closing.is_empty() && !is_string && data.trim_start().starts_with(['{', '[']);
    is_json.then(|| data.lines().map(str::trim).collect::<Vec<_>>().join(" "))
}
