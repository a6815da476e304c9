//! `newswire serve`: the server, the page and the channels.

use super::arguments::unknown;
use super::descriptors::limit_connections;
use super::{Arguments, Failure, say};
use newswire::Cors;
use newswire::app::{App, Publishers, publish_lines};
use newswire::channel::{Channel, Channels, JournalSync, NoChannel, RedisOptions, Storage};
use newswire::http::Limits;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs, thread};

const HELP: &str = "\
newswire: a Server-Sent Events server that needs nothing but the standard library

USAGE
    newswire [serve] [OPTIONS]
    newswire check URL [OPTIONS]    what is wrong with an event stream; see newswire check --help
    newswire journal check DIR      what a journal holds, and whether a crash has torn it

OPTIONS
    --listen ADDR:PORT         listen here; with port 0 on any free port     [127.0.0.1:8080]
    --www DIR                  serve the files of this directory instead of the page
    --allow-origin ORIGIN      only pages of this origin may read, also with credentials, and
                               may publish; repeatable                 [any page may read]
    --publish-token-file FILE  clients that send the token in this file may publish
    --publish-open             all clients may publish; on a loopback address only
    --stdin NAME               publish each line of standard input on this channel
    --lab                      serve /lab, the streams to test with, on an address that is
                               not loopback, too                          [loopback only]
    --heartbeat SECONDS        send a comment to a subscriber this often; 0 for never    [15]
    --max-connections N        connections at a time  [the descriptor limit less 64, or 65536]
    --max-subscribers N        subscribers and other streams      [nine in ten connections]
    --max-channels N           channels at a time                                      [1024]
    --history-events N         events that each channel keeps                          [1000]
    --history-bytes N          bytes that each channel keeps                        [1048576]
    --journal DIR              keep the events in this directory, too, also across restarts
    --journal-sync WHEN        sync it always, at an interval or never               [interval]
    --redis HOST:PORT          keep the channels in this Redis, for all servers that name it
    --redis-user NAME          the user to log in as, with a password              [default]
    --redis-password-file FILE the password is in this file
    --redis-db N               the number of the database                                [0]
    --redis-prefix TEXT        what each key begins with                         [newswire:]
    --redis-wait N             replicas that must have an event before it is published   [0]
    --quiet                    do not write a line for each request
    --help, --version
";

/// The greatest number that an option takes when nothing else limits it.
const MOST: usize = 10_000_000;

/// Serves until the process ends.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Some(Options { app, stdin, note }) = Options::parse(arguments)? else { return Ok(()) };
    let listening = app.clone().listen().map_err(|error| Failure::usage(error.to_string()))?;
    let address = listening.address().map_err(|error| Failure::later(error.to_string()))?;
    say(&greeting(address, &app, stdin.as_deref(), note));
    if let Some(name) = stdin {
        let channel = listening.channels().open(&name);
        let channel = channel.map_err(|error| Failure::usage(format!("--stdin: {error}")))?;
        let publish = move || publish_stdin(&channel, &app.limits);
        let thread = thread::Builder::new().name("stdin".into()).spawn(publish);
        thread.map_err(|error| Failure::later(format!("cannot start a thread: {error}")))?;
    }
    listening.run().map_err(|error| Failure::later(error.to_string()))
}

fn publish_stdin(channel: &Channel, limits: &Limits) {
    if let Err(error) = publish_lines(io::stdin().lock(), channel, limits) {
        let _ = writeln!(io::stderr(), "newswire: cannot read standard input: {error}");
    }
}

fn greeting(address: SocketAddr, app: &App, stdin: Option<&str>, note: Option<String>) -> String {
    let note = note.map_or(String::new(), |note| format!("newswire: {note}\n"));
    let server = format!("http://{address}");
    let channel = format!("{server}/channels/{}", stdin.unwrap_or("news"));
    let publish = match app.publishers {
        Publishers::None => String::new(),
        Publishers::Anyone => format!("    curl -d Hello {channel}\n"),
        Publishers::Bearer(_) => {
            format!("    curl -d Hello -H 'Authorization: Bearer TOKEN' {channel}\n")
        }
    };
    let has_channel = !publish.is_empty() || stdin.is_some();
    let subscribe = if has_channel { format!("    curl -N {channel}\n") } else { String::new() };
    let has_lab = app.lab || address.ip().is_loopback();
    let lab =
        if has_lab { format!("    curl -N '{server}/lab?interval=100'\n") } else { String::new() };
    format!(
        "{note}newswire listens on {server}/ for at most {} connections. Open it in a browser, or:\n\
         \x20   curl -N {server}/sse/mvc/words\n\
         {lab}{subscribe}{publish}",
        app.limits.connections
    )
}

struct Options {
    app: App,
    stdin: Option<String>,
    /// What the user is told about the number of connections.
    note: Option<String>,
}

impl Options {
    /// `None` when the help or the version was asked for and written.
    fn parse(mut arguments: Arguments) -> Result<Option<Options>, Failure> {
        let mut app = App::default();
        let (mut stdin, mut origins, mut publishers) = (None, Vec::new(), Vec::new());
        let (mut connections, mut streams) = (None, None);
        let (mut journal, mut journal_sync) = (None, None);
        let (mut redis, mut has_redis, mut of_redis) = (RedisOptions::default(), false, None);
        while let Some(option) = arguments.next()? {
            let name = option.as_str();
            let channels = &mut app.channel_limits;
            if name.starts_with("--redis-") {
                of_redis = Some(name.to_owned());
            }
            match name {
                "--listen" => {
                    app.address =
                        arguments.value(name, "an address and a port, as 127.0.0.1:8080")?
                }
                "--www" => app.www = Some(PathBuf::from(arguments.raw_value(name)?)),
                "--allow-origin" => origins.push(arguments.value::<String>(name, "an origin")?),
                "--publish-token-file" => {
                    publishers
                        .push(Publishers::Bearer(read_token(name, arguments.raw_value(name)?)?));
                }
                "--publish-open" => publishers.push(Publishers::Anyone),
                "--stdin" => stdin = Some(channel_name(arguments.value(name, "a name")?)?),
                "--lab" => app.lab = true,
                "--heartbeat" => {
                    let seconds = arguments.number(name, 0, 86_400)?;
                    channels.heartbeat = Duration::from_secs(seconds as u64);
                }
                "--max-connections" => connections = Some(arguments.number(name, 1, MOST)?),
                "--max-subscribers" => streams = Some(arguments.number(name, 0, MOST)?),
                "--max-channels" => channels.channels = arguments.number(name, 1, MOST)?,
                "--history-events" => {
                    channels.history_events = arguments.number(name, 1, 1_000_000_000)?
                }
                "--history-bytes" => {
                    channels.history_bytes = arguments.number(name, 1024, 1 << 40)?
                }
                "--journal" => journal = Some(PathBuf::from(arguments.raw_value(name)?)),
                "--journal-sync" => journal_sync = Some(arguments.one_of(name, &SYNCS)?),
                "--redis" => {
                    (redis.address, has_redis) =
                        (redis_address(arguments.value(name, "HOST:PORT")?)?, true)
                }
                "--redis-user" => redis.user = Some(arguments.value(name, "a name")?),
                "--redis-password-file" => {
                    redis.password = Some(read_token(name, arguments.raw_value(name)?)?)
                }
                "--redis-db" => redis.db = arguments.number(name, 0, 1_000_000)? as u32,
                "--redis-prefix" => redis.prefix = redis_prefix(arguments.value(name, "a text")?)?,
                "--redis-wait" => redis.wait = arguments.number(name, 0, 100)? as u32,
                "--quiet" => app.log_accesses = false,
                "--help" | "-h" | "--version" | "-V" => {
                    arguments.check_switch(name)?;
                    say(if matches!(name, "--help" | "-h") { HELP } else { VERSION });
                    return Ok(None);
                }
                _ => return Err(unknown(OsStr::new(name))),
            }
            arguments.check_switch(name)?;
        }
        app.publishers = one_of(publishers)?;
        app.storage = match (journal, journal_sync, has_redis, of_redis) {
            (Some(_), _, true, _) => {
                return Err(Failure::usage(
                    "--journal and --redis exclude each other; leave one out",
                ));
            }
            (_, _, false, Some(name)) => {
                return Err(Failure::usage(format!("{name} needs --redis HOST:PORT")));
            }
            (None, Some(_), _, _) => {
                return Err(Failure::usage("--journal-sync needs --journal DIR"));
            }
            (Some(directory), sync, ..) => {
                Storage::Journal { directory, sync: sync.unwrap_or_default() }
            }
            (None, None, true, _) if redis.user.is_some() && redis.password.is_none() => {
                return Err(Failure::usage("--redis-user needs --redis-password-file FILE"));
            }
            (None, None, true, _) => Storage::Redis(redis),
            (None, None, false, None) => Storage::Memory,
        };
        if !origins.is_empty() {
            let cors = Cors::only(origins);
            app.cors = cors.map_err(|error| Failure::usage(format!("--allow-origin: {error}")))?;
        }
        let note = limit_connections(&mut app.limits, connections);
        app.limits.streams = streams.unwrap_or((app.limits.connections * 9 / 10).max(1));
        Ok(Some(Options { app, stdin, note }))
    }
}

const SYNCS: [(&str, JournalSync); 3] = [
    ("always", JournalSync::Always),
    ("interval", JournalSync::Interval),
    ("never", JournalSync::Never),
];

const VERSION: &str = concat!("newswire ", env!("CARGO_PKG_VERSION"), "\n");

/// A command line that names a token does not mean that all clients may publish.
fn one_of(mut publishers: Vec<Publishers>) -> Result<Publishers, Failure> {
    let Some(last) = publishers.pop() else { return Ok(Publishers::None) };
    match publishers.iter().all(|other| *other == last) {
        true => Ok(last),
        false => Err(Failure::usage(
            "--publish-token-file FILE and --publish-open exclude each other; leave one out",
        )),
    }
}

fn redis_address(address: String) -> Result<String, Failure> {
    let parts = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match parts.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(_)) => Ok(address),
        _ => Err(Failure::usage(format!(
            "--redis takes HOST:PORT, as 127.0.0.1:6379, not {address:?}"
        ))),
    }
}

/// Braces stand around the name of the channel.
fn redis_prefix(prefix: String) -> Result<String, Failure> {
    let may_stand = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
    match (1..=64).contains(&prefix.len()) && prefix.bytes().all(may_stand) {
        true => Ok(prefix),
        false => Err(Failure::usage(
            "--redis-prefix takes 1 to 64 visible ASCII characters, none of them a brace",
        )),
    }
}

/// Checked before the server listens.
fn channel_name(name: String) -> Result<String, Failure> {
    match Channels::is_name(&name) {
        true => Ok(name),
        false => Err(Failure::usage(format!("--stdin: {}", NoChannel::Name))),
    }
}

/// The token in the file, without the white space around it. The file is read once; its content is never shown.
pub(super) fn read_token(name: &str, path: OsString) -> Result<String, Failure> {
    let path = PathBuf::from(path);
    let failed =
        |why: &dyn fmt::Display| Failure::usage(format!("{name}: cannot use {path:?}: {why}"));
    let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed(&"it holds no token, which is one word of visible ASCII characters"));
    }
    Ok(token.to_owned())
}
