//! `newswire drain`: asks a server to stop without a loss, and waits for its end.

use super::{Arguments, Failure, print_answer, read_answer};
use newswire::http::Method;
use newswire::http::client::{CloseHandle, Request};
use std::time::Duration;

pub(super) const HELP: &str = "\
newswire drain: a server stops accepting, serves what it has begun, and ends

USAGE
    newswire drain [OPTIONS] URL

For the first tenth of the time the server goes on as before, and only /readyz answers 503.
Then it finishes requests. Streams end last, each with a time to come back. The command returns
when the process of the server has ended. Without a token, the command must run on the same
machine and as the same user as the server.

OPTIONS
    --deadline SECONDS         the server ends after this time at the latest            [10]
    --token-file FILE          send the token in this file
    --help
";

/// An answer that comes later than the deadline by this does not come.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (url, _) = arguments.operands("say which server: its URL")?;
    let seconds = arguments.number("--deadline", 1..=3600)?.unwrap_or(10);
    let request = super::request(arguments, url, &[])?;
    let url = request.url.join(&format!("drain?seconds={seconds}"));
    let url = url.map_err(|error| Failure::usage(error.to_string()))?;
    let idle_deadline = Some(Duration::from_secs(seconds) + PATIENCE);
    let request = Request { method: Method::Post, url, idle_deadline, ..request };
    // The server ends the answer with its process.
    print_answer(request.send_once(&CloseHandle::default()).and_then(read_answer)?)
}
