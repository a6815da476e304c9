//! The command: its arguments, and its exit code.

#![forbid(unsafe_code)]

mod cli;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cli::Failure { sentence, code }) => {
            cli::tell(&sentence);
            ExitCode::from(code)
        }
    }
}
