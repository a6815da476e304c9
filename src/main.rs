//! The command line, and nothing else.

#![forbid(unsafe_code)]

use newswire::Cors;
use newswire::app::{App, Publishers, publish_lines};
use newswire::channel::{Channel, Channels, NoChannel};
use newswire::http::Limits;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;
use std::{env, fs, thread};

const HELP: &str = "\
newswire: a Server-Sent Events server that is nothing but the standard library

USAGE
    newswire [serve] [OPTIONS]

OPTIONS
    --listen ADDR:PORT         where to listen; port 0 picks one        [127.0.0.1:8080]
    --www DIR                  serve this directory instead of the page
    --allow-origin ORIGIN      let only pages of this origin read, with credentials,
                               and publish; repeatable                  [any may read, without]
    --publish-token-file FILE  who has the token in this file may publish
    --publish-open             anyone may publish; on a loopback address only
    --stdin NAME               publish each line of standard input on this channel
    --heartbeat SECONDS        silence before a comment is sent; 0 sends none   [15]
    --max-connections N        connections at a time  [the descriptor limit less 64, or 65536]
    --max-subscribers N        subscribers and other streams      [nine in ten connections]
    --max-channels N           channels at a time                               [1024]
    --history-events N         events kept for each channel                     [1000]
    --history-bytes N          bytes kept for each channel                      [1048576]
    --quiet                    no line for each request
    --help, --version
";

/// What keeps us from serving: the sentence, and the exit code: 2 for an argument that cannot be done, 1
/// for what fails later.
struct Failure(String, u8);

impl Failure {
    fn usage(sentence: impl Into<String>) -> Failure {
        Failure(sentence.into(), 2)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(sentence, code)) => {
            // Nobody may be reading: that must not become a panic.
            let _ = writeln!(io::stderr(), "newswire: {sentence}");
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<(), Failure> {
    let Some(order) = Order::parse(env::args_os().skip(1))? else {
        return Ok(());
    };
    let Order { app, stdin, limit_note } = order;
    let listening = app.clone().listen().map_err(|error| Failure::usage(error.to_string()))?;
    let address = listening.address().map_err(|error| Failure(error.to_string(), 1))?;
    say(&greeting(address, &app, stdin.as_deref(), limit_note));
    if let Some(name) = stdin {
        let channel = listening
            .channels()
            .open(&name)
            .map_err(|error| Failure::usage(format!("--stdin: {error}")))?;
        let publish = move || publish_stdin(&channel, &app.limits);
        let thread = thread::Builder::new().name("stdin".into()).spawn(publish);
        thread.map_err(|error| Failure(format!("cannot start a thread: {error}"), 1))?;
    }
    listening.run().map_err(|error| Failure(error.to_string(), 1))
}

fn publish_stdin(channel: &Channel, limits: &Limits) {
    if let Err(error) = publish_lines(io::stdin().lock(), channel, limits) {
        let _ = writeln!(io::stderr(), "newswire: cannot read standard input: {error}");
    }
}

fn greeting(
    address: SocketAddr,
    app: &App,
    stdin: Option<&str>,
    limit_note: Option<String>,
) -> String {
    let note = limit_note.map_or(String::new(), |note| format!("newswire: {note}\n"));
    let url = format!("http://{address}/channels/{}", stdin.unwrap_or("news"));
    let subscribe = match (&app.publishers, stdin) {
        (Publishers::None, None) => String::new(),
        _ => format!("    curl -N {url}\n"),
    };
    let publish = match app.publishers {
        Publishers::None => String::new(),
        Publishers::Anyone => format!("    curl -d Hello {url}\n"),
        Publishers::Bearer(_) => {
            format!("    curl -d Hello -H 'Authorization: Bearer TOKEN' {url}\n")
        }
    };
    format!(
        "{note}newswire listens on http://{address}/ for at most {} connections. Open it in a browser, or:\n\
         \x20   curl -N http://{address}/sse/mvc/words\n\
         {subscribe}{publish}",
        app.limits.connections
    )
}

/// On standard output, which may be closed.
fn say(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What the arguments ask for.
struct Order {
    app: App,
    stdin: Option<String>,
    limit_note: Option<String>,
}

impl Order {
    /// ```text
    /// newswire = [ "serve" ] *option
    /// option   = name value / name "=" value / switch
    /// ```
    /// `None` when help or the version was asked for, and said.
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Order>, Failure> {
        let mut app = App::default();
        let (mut stdin, mut origins, mut publishers) = (None, Vec::new(), Vec::new());
        let (mut connections, mut subscribers) = (None, None);
        let mut arguments = Arguments { rest: arguments, pending: None };
        let mut is_first = true;
        while let Some(argument) = arguments.next()? {
            let channels = &mut app.channel_limits;
            match argument.as_str() {
                "serve" if is_first => {}
                "--listen" => {
                    app.address =
                        arguments.value("--listen", "an address and a port, as 127.0.0.1:8080")?
                }
                "--www" => app.www = Some(PathBuf::from(arguments.raw_value("--www")?)),
                "--allow-origin" => {
                    origins.push(arguments.value::<String>("--allow-origin", "an origin")?)
                }
                "--publish-token-file" => {
                    let token = read_token(arguments.raw_value("--publish-token-file")?)?;
                    publishers.push(Publishers::Bearer(token));
                }
                "--publish-open" => publishers.push(Publishers::Anyone),
                "--stdin" => stdin = Some(channel_name(arguments.value("--stdin", "a name")?)?),
                "--heartbeat" => {
                    channels.heartbeat =
                        Duration::from_secs(arguments.number("--heartbeat", 0, 86_400)? as u64);
                }
                "--max-connections" => {
                    connections = Some(arguments.number("--max-connections", 1, 10_000_000)?)
                }
                "--max-subscribers" => {
                    subscribers = Some(arguments.number("--max-subscribers", 0, 10_000_000)?)
                }
                "--max-channels" => {
                    channels.channels = arguments.number("--max-channels", 1, 10_000_000)?
                }
                "--history-events" => {
                    channels.history_events =
                        arguments.number("--history-events", 1, 1_000_000_000)?
                }
                "--history-bytes" => {
                    channels.history_bytes = arguments.number("--history-bytes", 1024, 1 << 40)?
                }
                "--quiet" => app.log_accesses = false,
                "--help" | "-h" => {
                    arguments.check_switch(&argument)?;
                    say(HELP);
                    return Ok(None);
                }
                "--version" | "-V" => {
                    arguments.check_switch(&argument)?;
                    say(concat!("newswire ", env!("CARGO_PKG_VERSION"), "\n"));
                    return Ok(None);
                }
                _ => {
                    return Err(Failure::usage(format!(
                        "{argument:?} is not an option; see newswire --help"
                    )));
                }
            }
            arguments.check_switch(&argument)?;
            is_first = false;
        }
        // Whoever has given a token does not mean that anyone may.
        if let Some(asked) = publishers.pop() {
            if publishers.iter().any(|other| *other != asked) {
                return Err(Failure::usage(
                    "--publish-token-file FILE and --publish-open exclude each other",
                ));
            }
            app.publishers = asked;
        }
        if !origins.is_empty() {
            app.cors = Cors::only(origins)
                .map_err(|error| Failure::usage(format!("--allow-origin: {error}")))?;
        }
        let limit_note = limit_connections(&mut app.limits, connections);
        let most = app.limits.connections * 9 / 10;
        app.limits.streams = subscribers.unwrap_or(most.max(1));
        Ok(Some(Order { app, stdin, limit_note }))
    }
}

struct Arguments<I> {
    rest: I,
    /// What stood behind the equals sign of the last argument.
    pending: Option<OsString>,
}

impl<I: Iterator<Item = OsString>> Arguments<I> {
    fn next(&mut self) -> Result<Option<String>, Failure> {
        let Some(argument) = self.rest.next() else {
            return Ok(None);
        };
        // Only the value may be a name that is not UTF-8.
        let bytes = argument.as_bytes();
        let (name, value) = match bytes.iter().position(|&byte| byte == b'=') {
            Some(at) if bytes.starts_with(b"--") => (&bytes[..at], Some(&bytes[at + 1..])),
            _ => (bytes, None),
        };
        self.pending = value.map(|value| OsStr::from_bytes(value).to_owned());
        match str::from_utf8(name) {
            Ok(name) => Ok(Some(name.to_owned())),
            Err(_) => {
                Err(Failure::usage(format!("{argument:?} is not an option; see newswire --help")))
            }
        }
    }

    /// A switch has no value.
    fn check_switch(&self, name: &str) -> Result<(), Failure> {
        match &self.pending {
            None => Ok(()),
            Some(_) => Err(Failure::usage(format!("{name} takes no value"))),
        }
    }

    fn raw_value(&mut self, name: &str) -> Result<OsString, Failure> {
        let value = self.pending.take().or_else(|| self.rest.next());
        value.ok_or_else(|| Failure::usage(format!("{name} needs a value; see newswire --help")))
    }

    fn value<T: FromStr>(&mut self, name: &str, what: &str) -> Result<T, Failure> {
        let value = self.raw_value(name)?;
        let parsed = value.to_str().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| Failure::usage(format!("{name} takes {what}, not {value:?}")))
    }

    fn number(&mut self, name: &str, least: usize, most: usize) -> Result<usize, Failure> {
        let what = format!("a number from {least} to {most}");
        match self.value(name, &what)? {
            number if (least..=most).contains(&number) => Ok(number),
            number => Err(Failure::usage(format!("{name} takes {what}, not \"{number}\""))),
        }
    }
}

/// Judged before the server listens.
fn channel_name(name: String) -> Result<String, Failure> {
    match Channels::is_name(&name) {
        true => Ok(name),
        false => Err(Failure::usage(format!("--stdin: {}", NoChannel::Name))),
    }
}

/// The token that the file holds, but for white space around it. It is read once; it is never
/// shown.
fn read_token(path: OsString) -> Result<String, Failure> {
    let path = PathBuf::from(path);
    let failed = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("--publish-token-file: cannot use {path:?}: {why}"))
    };
    let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed(&"it holds no token, which is one word of visible ASCII characters"));
    }
    Ok(token.to_owned())
}

/// Descriptors that are not connections with a place: standard streams, the listener, files being
/// served, and half of them for connections that wait.
const RESERVED_DESCRIPTORS: usize = 64;

/// Without a word from the command line, and however many descriptors there are: as many threads as
/// a small machine bears.
const DEFAULT_MOST_CONNECTIONS: usize = 65_536;

/// More would cost memory and system calls, and keep nobody in who is not silent.
const MOST_WAITING: usize = 1_024;

/// Sets how many connections to admit, and how many may wait; returns what is to be said about it. More
/// than there are descriptors for would only be refused by the system later, in the middle of things.
fn limit_connections(limits: &mut Limits, asked: Option<usize>) -> Option<String> {
    let descriptors = fs::read_to_string("/proc/self/limits")
        .ok()
        .and_then(|limits| soft_descriptor_limit(&limits));
    let Some(descriptors) = descriptors else {
        limits.connections = asked.unwrap_or(limits.connections);
        return None;
    };
    // Of very few, half.
    let room = (descriptors - RESERVED_DESCRIPTORS.min(descriptors / 2)).max(1);
    limits.connections = asked.unwrap_or(DEFAULT_MOST_CONNECTIONS).min(room);
    limits.waiting = ((descriptors - limits.connections) / 2).clamp(1, MOST_WAITING);
    match asked {
        Some(asked) if asked > room => Some(format!(
            "the descriptor limit of {descriptors} leaves room for {room} connections, not {asked}; \
             raise it with ulimit -n"
        )),
        None if room < 4_096 => Some(format!(
            "the descriptor limit of {descriptors} leaves room for {room} connections; raise it with ulimit -n"
        )),
        _ => None,
    }
}

/// ```text
/// Max open files            1024                 524288               files
/// ```
fn soft_descriptor_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}
