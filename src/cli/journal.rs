//! `newswire journal check`: what a journal holds, and what a server that starts with it would cut off.

use super::{Arguments, Failure, say};
use newswire::channel::{JournalSummary, inspect_journal};
use std::path::Path;

pub(super) const HELP: &str = "\
newswire journal: what a journal holds, and whether a crash has torn it

USAGE
    newswire journal check DIR

OPTIONS
    --help

It changes nothing. The exit code is 1 if a server that starts with the journal would cut off
what a crash has torn, and 2 if the server would refuse to start.
";

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let missing = "the command is newswire journal check DIR";
    let ("check", Some(directory)) = arguments.operands(missing)? else {
        return Err(arguments.mistake(missing));
    };
    let journals = inspect_journal(Path::new(directory))
        .map_err(|error| Failure::usage(format!("the journal {directory:?}: {error}")))?;
    say(&journals.iter().map(line).collect::<String>());
    match journals.iter().map(|journal| journal.torn_bytes).sum() {
        0u64 => Ok(()),
        torn => Err(Failure::later(format!("a server that starts here cuts off {torn} bytes"))),
    }
}

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
