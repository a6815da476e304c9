//! `newswire journal check`: what a journal holds, and what a server that starts with it would cut off.

use super::{Arguments, Failure, say};
use newswire::channel::{JournalSummary, inspect_journal};
use std::path::Path;

const HELP: &str = "\
newswire journal check: what a journal holds, and whether a crash has torn it

USAGE
    newswire journal check DIR

OPTIONS
    --help

It changes nothing. The exit code is 1 if a server that starts with the journal would cut off what a crash has torn, and
2 if it would refuse to start.
";

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let mut operands = Vec::new();
    while let Some(option) = arguments.next()? {
        match option.as_str() {
            name @ ("--help" | "-h") => {
                arguments.check_switch(name)?;
                say(HELP);
                return Ok(());
            }
            name => arguments.operand(name, &mut operands, 2)?,
        }
    }
    let [command, directory] = &operands[..] else { return Err(Failure::usage(MISSING)) };
    if command != "check" {
        return Err(Failure::usage(MISSING));
    }
    let journals = inspect_journal(Path::new(directory));
    let journals =
        journals.map_err(|error| Failure::usage(format!("the journal {directory:?}: {error}")))?;
    say(&journals.iter().map(line).collect::<String>());
    let torn_bytes: u64 = journals.iter().map(|journal| journal.torn_bytes).sum();
    match torn_bytes {
        0 => Ok(()),
        _ => Err(Failure::later(format!("a server that starts here cuts off {torn_bytes} bytes"))),
    }
}

const MISSING: &str = "the command is newswire journal check DIR; see newswire journal --help";

fn line(journal: &JournalSummary) -> String {
    let JournalSummary { channel, events, bytes, torn_bytes, .. } = journal;
    let mut line = format!("{channel}: {events} events, {bytes} bytes");
    if let (Some(first), Some(last)) = (&journal.first_id, &journal.last_id) {
        line += &format!(", from {first} to {last}");
    }
    line += if journal.completed { ", completed" } else { "" };
    if *torn_bytes > 0 {
        line += &format!("; {torn_bytes} bytes behind them are torn");
    }
    line + "\n"
}
