//! The command: which of its commands was asked for, and the exit codes.

#![forbid(unsafe_code)]

mod cli;

use cli::{Arguments, Failure, check, serve};
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { sentence, code }) => {
            // Standard error may be closed, which must not become a panic.
            let _ = writeln!(io::stderr(), "newswire: {sentence}");
            ExitCode::from(code)
        }
    }
}

/// ```text
/// newswire = "check" *argument / [ "serve" ] *option
/// ```
fn run() -> Result<(), Failure> {
    let mut arguments = Arguments::new(env::args_os().skip(1));
    if arguments.take_command("check") {
        return check::run(arguments);
    }
    // `serve` is the command without a name.
    arguments.take_command("serve");
    serve::run(arguments)
}
