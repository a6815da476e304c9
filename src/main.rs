//! The command: which of its commands was asked for, and the exit codes.

#![forbid(unsafe_code)]

mod cli;

use cli::{Arguments, Failure, check, drain, journal, publish, serve, watch};
use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { sentence, code }) => {
            cli::tell(&sentence);
            ExitCode::from(code)
        }
    }
}

/// ```text
/// newswire = [ "serve" ] *option / "watch" *( option / source ) / "publish" *( option / url / data )
///          / "check" *( option / url ) / "drain" *( option / url ) / "journal" "check" directory
/// ```
fn run() -> Result<(), Failure> {
    let mut arguments = Arguments::new(env::args_os().skip(1));
    if arguments.take_command("watch") {
        return watch::run(arguments);
    }
    if arguments.take_command("check") {
        return check::run(arguments);
    }
    if arguments.take_command("journal") {
        return journal::run(arguments);
    }
    if arguments.take_command("publish") {
        return publish::run(arguments);
    }
    if arguments.take_command("drain") {
        return drain::run(arguments);
    }
    // `serve` is the command without a name.
    arguments.take_command("serve");
    serve::run(arguments)
}
