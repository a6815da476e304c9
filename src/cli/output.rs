//! Events as text: for people, as JSON, or their data alone.

use super::json::is_json;
use newswire::sse::{Message, json_string};
use std::env;
use std::io::{self, IsTerminal};
use std::time::{SystemTime, UNIX_EPOCH};

/// What `--output` names.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Output {
    #[default]
    Text,
    Json,
    Data,
    Raw,
}

/// Prints events in columns that grow with what they hold.
pub(super) struct Printer {
    pub(super) output: Output,
    has_color: bool,
    /// The columns of the id and the type, in characters.
    widths: [usize; 2],
}

/// The widest column; a longer id or type moves the rest of its line.
const WIDEST: usize = 32;

impl Printer {
    pub(super) fn new(output: Output) -> Printer {
        Printer { output, has_color: has_color(), widths: [0; 2] }
    }

    /// An event that has arrived now, as it is printed.
    pub(super) fn print(&mut self, message: &Message) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        match self.output {
            Output::Text => self.columns(message, now),
            Output::Data | Output::Raw => for_stdout(&message.data) + "\n",
            Output::Json => format!(
                "{{\"id\":{},\"event\":{},\"data\":{},\"time\":{now}}}\n",
                json_string(&message.last_event_id),
                json_string(&message.event_type),
                json_string(&message.data)
            ),
        }
    }

    fn columns(&mut self, message: &Message, unix_ms: u128) -> String {
        let seconds = unix_ms / 1_000 % 86_400;
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let time = format!("{hour:02}:{minute:02}:{second:02}.{:03}Z", unix_ms % 1_000);
        let cells = [time, escape(&message.last_event_id), escape(&message.event_type)];
        for (width, cell) in self.widths.iter_mut().zip(&cells[1..]) {
            *width = cell.chars().count().min(WIDEST).max(*width);
        }
        let (mut out, mut indent) = (String::new(), 0);
        let [id, event_type] = self.widths;
        let widths = [(13, "2"), (id, "36"), (event_type, "33")].into_iter().zip(cells);
        for ((width, color), cell) in widths.filter(|((width, _), _)| *width > 0) {
            indent += cell.chars().count().max(width) + 2;
            out += &match self.has_color {
                true => format!("\x1b[{color}m{cell:width$}\x1b[0m  "),
                false => format!("{cell:width$}  "),
            };
        }
        let data = one_line(&message.data).unwrap_or_else(|| message.data.clone());
        let lines: Vec<String> = data.split('\n').map(escape).collect();
        out + &lines.join(&format!("\n{:indent$}", "")) + "\n"
    }
}

/// A JSON object or array of several lines as one: no string of JSON has a line end, so that each is white space.
fn one_line(data: &str) -> Option<String> {
    let is_long = data.contains('\n') && data.trim_ascii_start().starts_with(['{', '[']);
    (is_long && is_json(data)).then(|| data.lines().map(str::trim).collect::<Vec<_>>().join(" "))
}

/// "All command-line software which adds ANSI color to its output ... should check for a `NO_COLOR` environment variable
/// that, when present and not an empty string (regardless of its value), prevents the addition of ANSI color."
/// (no-color.org)
pub(super) fn has_color() -> bool {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !no_color && !is_dumb
}

/// Lines that a stranger wrote: as they are for a program, and harmless for a terminal.
pub(super) fn for_stdout(text: &str) -> String {
    match io::stdout().is_terminal() {
        true => text.split('\n').map(escape).collect::<Vec<_>>().join("\n"),
        false => text.to_owned(),
    }
}

/// Without characters that control a terminal or reorder a line.
pub(super) fn escape(text: &str) -> String {
    let is_harmful = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let escape = |c: char| if is_harmful(c) { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escape).collect()
}
