//! `newswire drain`: asks a server to stop without a loss, and waits for that.

use super::output::for_stdout;
use super::serve::read_token;
use super::{Arguments, Failure, say};
use newswire::http::client::{CloseHandle, Request};
use newswire::http::{Method, Status};
use std::time::Duration;

const HELP: &str = "\
newswire drain: a server stops accepting, serves what it has begun, and ends

USAGE
    newswire drain [OPTIONS] URL

Streams end with a time to come back. For a tenth of the time the server goes on, and only
/readyz is 503. Without a token it must be on this machine, and of the same user.

OPTIONS
    --deadline SECONDS         the server ends after this time at the latest     [10]
    --token-file FILE          send the token in this file
";

/// An answer that comes later than the deadline by this does not come.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let (mut seconds, mut token, mut urls) = (10, None, Vec::new());
    while let Some(option) = arguments.next()? {
        let name = option.as_str();
        match name {
            "--deadline" => seconds = arguments.number(name, 1, 3600)?,
            "--token-file" => token = Some(read_token(name, arguments.raw_value(name)?)?),
            "--help" | "-h" => {
                arguments.check_switch(name)?;
                say(HELP);
                return Ok(());
            }
            _ => arguments.operand(name, &mut urls, 1)?,
        }
        arguments.check_switch(name)?;
    }
    let missing = "say which server: its URL; see newswire drain --help";
    let url = urls.pop().ok_or_else(|| Failure::usage(missing))?;
    let unusable = |error: newswire::http::MalformedUrl| Failure::usage(error.to_string());
    let request = Request::new(&url).map_err(unusable)?;
    let url = request.url.join(&format!("drain?seconds={seconds}")).map_err(unusable)?;
    let idle_deadline = Some(Duration::from_secs(seconds as u64) + PATIENCE);
    let mut request = Request { method: Method::Post, url, idle_deadline, ..request };
    if let Some(token) = token {
        request = request.field("Authorization", format!("Bearer {token}"));
    }
    let mut response = request.send_once(&CloseHandle::default())?;
    let mut content = Vec::new();
    while response.read(&mut content)? {}
    let text = String::from_utf8_lossy(&content);
    if response.status == Status::OK {
        say(&for_stdout(&text));
        return Ok(());
    }
    let status = response.status.0;
    let sentence = format!("the server answered with the status {status}: {}", text.trim());
    Err(Failure::later(sentence))
}
