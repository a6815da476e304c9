//! `newswire serve`: the server, the page and the channels.

use super::arguments::unknown;
use super::descriptors::limit_connections;
use super::{Arguments, Failure, say, tell};
use newswire::Cors;
use newswire::app::{App, Create, Publishers, publish_lines};
use newswire::channel::{Channel, Channels, JournalSync, NoChannel, RedisOptions, Storage};
use newswire::http::{Address, Limits, Url};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs, process, thread};

const HELP: &str = "\
newswire: a Server-Sent Events server that needs nothing but the standard library

USAGE
    newswire [serve] [OPTIONS]
    newswire check URL [OPTIONS]    what is wrong with an event stream; see newswire check --help
    newswire watch URL|FILE|-       prints the events of a stream; see newswire watch --help
    newswire publish URL [DATA]     publishes; see newswire publish --help
    newswire journal check DIR      what a journal holds, and whether a crash has torn it
    newswire drain URL [OPTIONS]    a server stops without a loss; see newswire drain --help

OPTIONS
    --listen ADDRESS           listen at ADDR:PORT, with port 0 at any free port; at unix:PATH,
                               or unix:PATH,mode=600; or at stdin, if it is a socket that
                               listens; repeatable                          [127.0.0.1:8080]
    --base PATH                serve everything under this path, as /push, too
    --www DIR                  serve the files of this directory instead of the page
    --allow-origin ORIGIN      only pages of this origin may read, also with credentials, and
                               may publish; repeatable                 [any page may read]
    --publish-token-file FILE  clients that send the token in this file may publish
    --publish-open             all clients may publish; on a loopback address only
    --access FILE              which keys may publish and subscribe, and where; a line each:
                               KEY allow publish|subscribe|all PATTERN...
    --authorize URL            ask this application about each subscription and publish
    --create CLIENTS           which clients begin a channel by subscribing to it: anyone,
                               publishers or nobody                                [anyone]
    --stdin NAME               publish each line of standard input on this channel
    --lab                      serve /lab, the streams to test with, on an address that is
                               not loopback, too                          [loopback only]
    --heartbeat SECONDS        send a comment to a subscriber this often; 0 for never    [15]
    --heartbeat-event          send an event named heartbeat in place of the comment
    --max-connections N        connections at a time  [the descriptor limit less 64, or 65536]
    --max-subscribers N        subscribers and other streams      [nine in ten connections]
    --max-channels N           channels at a time                                      [1024]
    --presence                 tell how many subscribers a channel has, on @presence.NAME
    --max-views N              sets of several channels on one connection   [max-subscribers]
    --history-events N         events that each channel keeps                          [1000]
    --history-bytes N          bytes that each channel keeps                        [1048576]
    --log text|json            how each request is logged                             [text]
    --trusted-proxy ADDR       log the client that this proxy names, at ADDR or unix; repeatable
    --history-seconds SECONDS  forget an event after so long; 0 for never                 [0]
    --channel-idle SECONDS     forget a channel that is unused for so long; 0 for never   [0]
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

/// Thirty years.
const MOST_SECONDS: usize = 1_000_000_000;

const CREATE: [(&str, Create); 3] =
    [("anyone", Create::Anyone), ("publishers", Create::Publishers), ("nobody", Create::Nobody)];

/// Serves until the process ends.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Some(Options { app, stdin, note }) = Options::parse(arguments)? else { return Ok(()) };
    let listening = app.clone().listen().map_err(|error| Failure::usage(error.to_string()))?;
    let addresses = listening.addresses().map_err(|error| Failure::later(error.to_string()))?;
    say(&greeting(&addresses, &app, stdin.as_deref(), note));
    if let Some(name) = stdin {
        let channel = listening.channels().open(&name);
        let channel = channel.map_err(|error| Failure::usage(format!("--stdin: {error}")))?;
        let publish = move || publish_stdin(&channel, &app.limits);
        let thread = thread::Builder::new().name("stdin".into()).spawn(publish);
        thread.map_err(|error| Failure::later(format!("cannot start a thread: {error}")))?;
    }
    listening.run().map_err(|error| Failure::later(error.to_string()))
}

/// The channel is complete at the end of the input, and a client that has every event does not come back. So the end is
/// said: a service manager closes standard input, and a user may have meant another file.
fn publish_stdin(channel: &Channel, limits: &Limits) {
    let mut input = io::stdin().lock();
    let is_empty = input.fill_buf().is_ok_and(<[u8]>::is_empty);
    let end = if is_empty { "is closed or empty" } else { "has ended" };
    tell(&match publish_lines(input, channel, limits) {
        Ok(()) => format!("standard input {end}; the channel {} is complete", channel.name()),
        Err(error) => format!("cannot read standard input: {error}"),
    });
}

fn greeting(addresses: &[Address], app: &App, stdin: Option<&str>, note: Option<String>) -> String {
    let init = (process::id() == 1).then(|| INIT.to_owned());
    let notes = note.into_iter().chain(init).map(|note| format!("newswire: {note}\n"));
    let place = |address: &Address| match address {
        Address::Tcp(addr) => format!("http://{addr}/"),
        _ => address.to_string(),
    };
    let places: Vec<String> = addresses.iter().map(place).collect();
    let url = places.iter().find(|place| place.starts_with("http:"));
    let (curl, server) = match url {
        Some(url) => ("curl".to_owned(), url.trim_end_matches('/')),
        None => {
            let socket = places[0].trim_start_matches("unix:");
            (format!("curl --unix-socket '{socket}'"), "http://localhost")
        }
    };
    let channel = format!("{server}/channels/{}", stdin.unwrap_or("news"));
    let publish = match app.publishers {
        Publishers::None => String::new(),
        Publishers::Anyone => format!("    {curl} -d Hello {channel}\n"),
        Publishers::Bearer(_) => {
            format!("    {curl} -d Hello -H 'Authorization: Bearer TOKEN' {channel}\n")
        }
    };
    let has_channel = !publish.is_empty() || stdin.is_some();
    let subscribe = if has_channel { format!("    {curl} -N {channel}\n") } else { String::new() };
    let has_lab = app.lab || addresses.iter().all(Address::is_local);
    let lab = match has_lab {
        true => format!("    {curl} -N '{server}/lab?interval=100'\n"),
        false => String::new(),
    };
    format!(
        "{}newswire listens on {} for at most {} connections. Open it in a browser, or:\n\
         \x20   {curl} -N {server}/sse/mvc/words\n\
         {lab}{subscribe}{publish}",
        notes.collect::<String>(),
        places.join(", "),
        app.limits.connections
    )
}

/// The kernel gives the first process of a container no signal that it does not handle, and a handler needs unsafe code.
const INIT: &str =
    "SIGTERM does nothing here, since this is process 1; in a Dockerfile, say STOPSIGNAL SIGKILL";

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
        let mut addresses = Vec::new();
        let (mut connections, mut streams, mut views) = (None, None, None);
        let (mut journal, mut journal_sync) = (None, None);
        let (mut redis, mut has_redis, mut of_redis) = (RedisOptions::default(), false, None);
        while let Some(option) = arguments.next()? {
            let name = option.as_str();
            let channels = &mut app.channel_limits;
            if name.starts_with("--redis-") {
                of_redis = Some(name.to_owned());
            }
            match name {
                "--listen" => addresses.push(arguments.value(name, LISTEN)?),
                "--base" => app.base = Some(arguments.parsed(name, BASE, base)?),
                "--www" => app.www = Some(PathBuf::from(arguments.raw_value(name)?)),
                "--allow-origin" => origins.push(arguments.value::<String>(name, "an origin")?),
                "--publish-token-file" => {
                    publishers
                        .push(Publishers::Bearer(read_token(name, arguments.raw_value(name)?)?));
                }
                "--publish-open" => publishers.push(Publishers::Anyone),
                "--access" => app.access_file = Some(PathBuf::from(arguments.raw_value(name)?)),
                "--authorize" => {
                    let url = Url::parse(&arguments.value::<String>(name, "an http URL")?);
                    let malformed = |error| Failure::usage(format!("{name}: {error}"));
                    app.authorize = Some(url.map_err(malformed)?);
                }
                "--create" => app.create = arguments.one_of(name, &CREATE)?,
                "--stdin" => stdin = Some(channel_name(arguments.value(name, "a name")?)?),
                "--lab" => app.lab = true,
                "--heartbeat" => {
                    let seconds = arguments.number(name, 0, 86_400)?;
                    channels.heartbeat = Duration::from_secs(seconds as u64);
                }
                "--heartbeat-event" => channels.heartbeat_event = true,
                "--history-seconds" => {
                    channels.history_age =
                        Duration::from_secs(arguments.number(name, 0, MOST_SECONDS)? as u64)
                }
                "--channel-idle" => {
                    channels.channel_idle =
                        Duration::from_secs(arguments.number(name, 0, MOST_SECONDS)? as u64)
                }
                "--max-connections" => connections = Some(arguments.number(name, 1, MOST)?),
                "--max-subscribers" => streams = Some(arguments.number(name, 0, MOST)?),
                "--max-channels" => channels.channels = arguments.number(name, 1, MOST)?,
                "--presence" => channels.presence = true,
                "--max-views" => views = Some(arguments.number(name, 1, MOST)?),
                "--history-events" => {
                    channels.history_events = arguments.number(name, 1, 1_000_000_000)?
                }
                "--history-bytes" => {
                    channels.history_bytes = arguments.number(name, 1024, 1 << 40)?
                }
                "--log" => {
                    app.log_json = arguments.one_of(name, &[("text", false), ("json", true)])?;
                }
                "--trusted-proxy" => {
                    app.trusted_proxies.push(arguments.parsed(name, PROXY, proxy)?)
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
        if stdin.is_some() && addresses.contains(&Address::Stdin) {
            return Err(Failure::usage(
                "--listen stdin and --stdin NAME exclude each other; leave one out",
            ));
        }
        if !addresses.is_empty() {
            app.addresses = addresses;
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
        let note = limit_connections(&mut app.limits, connections, app.www.is_some());
        app.limits.streams = streams.unwrap_or((app.limits.connections * 9 / 10).max(1));
        // Fewer would let a client keep new sets out with names that it invents, while there is room for subscribers.
        app.channel_limits.views = views.unwrap_or(app.limits.streams.max(1));
        Ok(Some(Options { app, stdin, note }))
    }
}

const SYNCS: [(&str, JournalSync); 3] = [
    ("always", JournalSync::Always),
    ("interval", JournalSync::Interval),
    ("never", JournalSync::Never),
];

const VERSION: &str = concat!("newswire ", env!("CARGO_PKG_VERSION"), "\n");

const LISTEN: &str =
    "an address and a port, as 127.0.0.1:8080, or unix:PATH, or unix:PATH,mode=660, or stdin";
const BASE: &str = "a path of letters, digits and -._~, as /push";
const PROXY: &str = "an address without a port, as 127.0.0.1, or unix";

fn base(path: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_segment =
        |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(is_plain);
    let segments = path.strip_prefix('/')?;
    let mut segments = segments.strip_suffix('/').unwrap_or(segments).split('/');
    segments.all(is_segment).then(|| path.to_owned())
}

fn proxy(text: &str) -> Option<Option<IpAddr>> {
    if text == "unix" {
        Some(None)
    } else {
        Some(Some(text.parse::<IpAddr>().ok()?.to_canonical()))
    }
}

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
