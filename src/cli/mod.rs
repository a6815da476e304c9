//! The command line: a file for each command.
//!
//! Read it in this order; each file uses only those before it: `arguments`, `descriptors`, `serve`, `json`, `output`, `check`, `watch`,
//! `publish`, `drain`, `journal`.

mod arguments;
pub(crate) mod check;
mod descriptors;
pub(crate) mod drain;
pub(crate) mod journal;
mod json;
mod output;
pub(crate) mod publish;
pub(crate) mod serve;
pub(crate) mod watch;

pub(crate) use arguments::Arguments;
use newswire::http::client::Request;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};

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

/// A request for a URL of the command line, with its fields.
fn request(url: &str, fields: Vec<(String, String)>) -> Result<Request, Failure> {
    let request = Request::new(url).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(fields.into_iter().fold(request, |request, (name, value)| request.field(&name, value)))
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
