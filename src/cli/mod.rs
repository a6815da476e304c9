//! The command line: a file for each command.
//!
//! Read it in this order; each file uses only those before it: `arguments`, `descriptors`, `serve`, `json`, `output`, `check`, `watch`,
//! `publish`, `drain`, `journal`.

mod arguments;
mod check;
mod descriptors;
mod drain;
mod journal;
mod json;
mod output;
mod publish;
mod serve;
mod watch;

use arguments::Arguments;
use newswire::http::client::{NetworkError, Request, Response};
use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};

struct Command {
    name: &'static str,
    help: &'static str,
    most_operands: usize,
    run: fn(&Arguments) -> Result<(), Failure>,
}

#[rustfmt::skip]
const COMMANDS: [Command; 6] = [
    Command { name: "serve", help: serve::HELP, most_operands: 0, run: serve::run },
    Command { name: "watch", help: watch::HELP, most_operands: 1, run: watch::run },
    Command { name: "publish", help: publish::HELP, most_operands: 2, run: publish::run },
    Command { name: "check", help: check::HELP, most_operands: 1, run: check::run },
    Command { name: "drain", help: drain::HELP, most_operands: 1, run: drain::run },
    Command { name: "journal", help: journal::HELP, most_operands: 2, run: journal::run },
];

/// ```text
/// newswire = [ command ] *argument        ; without a command it serves
/// ```
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let mut words = words.peekable();
    let named = words.peek().and_then(|word| COMMANDS.iter().find(|named| *word == named.name));
    words.next_if(|_| named.is_some());
    let command = named.unwrap_or(&COMMANDS[0]);
    let arguments = Arguments::parse(command.help, command.most_operands, words)?;
    if arguments.has("--help") {
        say(command.help);
        return Ok(());
    }
    (command.run)(&arguments)
}

/// Why a command ends: a sentence for standard error, and the exit code. It is 2 for an argument that cannot be used,
/// and 1 for what fails later.
pub(crate) struct Failure {
    pub(crate) sentence: String,
    pub(crate) code: u8,
}

impl Failure {
    fn usage(sentence: impl Into<String>) -> Failure {
        Failure { sentence: sentence.into(), code: 2 }
    }

    fn later(sentence: impl Into<String>) -> Failure {
        Failure { sentence: sentence.into(), code: 1 }
    }
}

/// What fails behind the arguments.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::later(error.to_string())
    }
}

/// A request for a URL of the command line: with the fields of the command, then with those of the options.
fn request(arguments: &Arguments, url: &str, own: &[(&str, &str)]) -> Result<Request, Failure> {
    let mut request = Request::new(url).map_err(|error| Failure::usage(error.to_string()))?;
    for (name, value) in own {
        request = request.field(name, *value);
    }
    if let Some(token) = arguments.token("--token-file")? {
        request = request.field("Authorization", format!("Bearer {token}"));
    }
    let fields = arguments.fields("--header")?.into_iter();
    Ok(fields.fold(request, |request, (name, value)| request.field(&name, value)))
}

/// At most this much is read.
const ANSWER_BYTES: usize = 64 * 1024;

fn read_answer(mut response: Response) -> Result<(Response, String), NetworkError> {
    let mut content = Vec::new();
    while content.len() < ANSWER_BYTES && response.read(&mut content)? {}
    Ok((response, String::from_utf8_lossy(&content).into_owned()))
}

/// Prints the answer of a server to a POST, or fails with it.
fn print_answer((response, text): (Response, String)) -> Result<(), Failure> {
    let status = response.status.0;
    let what = match (status, response.field("location")) {
        (200..300, _) => {
            say(&output::for_stdout(&text));
            return Ok(());
        }
        // A redirect may turn a POST into a GET, which does nothing.
        (300..=399, Some(url)) => format!("; use {url} instead"),
        (401, _) => format!(": {} Name it with --token-file FILE.", text.trim()),
        _ => format!(": {}", text.trim()),
    };
    Err(Failure::later(format!("the server answered with the status {status}{what}")))
}

/// Writes a sentence to standard error, which may be closed. What a server said in it does not control the terminal.
pub(crate) fn tell(sentence: &str) {
    let _ = writeln!(io::stderr(), "newswire: {}", output::escape(sentence));
}

/// Writes to standard output, which may be closed.
fn say(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Standard input for `-`, or a file. The hint says what else the name could have been.
fn open(path: &str, hint: &str) -> Result<Box<dyn Read + Send>, Failure> {
    let failed = |error| Failure::usage(format!("cannot read {path:?}: {error}{hint}"));
    Ok(if path == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(failed)?) })
}

/// What has arrived of the input, as it arrives; `None` at its end.
fn read_piece(file: &mut dyn Read) -> io::Result<Option<Vec<u8>>> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(length) => {
                piece.truncate(length);
                return Ok(Some(piece).filter(|_| length > 0));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
