//! `newswire serve`: the server, the page and the channels.

use super::descriptors::{grow_table, limit_connections};
use super::{Arguments, Failure, say};
use newswire::Cors;
use newswire::app::{App, Create, Publishers, publish_lines};
use newswire::channel::{self, Channel, Channels, JournalSync, RedisOptions, Storage};
use newswire::http::{self, Address, Limits, Url};
use std::io::{self, BufRead, ErrorKind};
use std::net::IpAddr;
use std::time::Duration;
use std::{process, thread};

pub(super) const HELP: &str = "\
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

/// Serves until the process ends.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.has("--version") {
        say(VERSION);
        return Ok(());
    }
    let stdin = arguments.parsed("--stdin", CHANNEL, |name| Channels::is_name(name).then(|| name.to_owned()))?;
    let mut app = app(arguments)?;
    if stdin.is_some() && app.addresses.contains(&Address::Stdin) {
        let sentence = "--listen stdin and --stdin NAME exclude each other; leave one out";
        return Err(Failure::usage(sentence));
    }
    let connections = arguments.number("--max-connections", 1..=MOST)?;
    let note = limit_connections(&mut app.limits, connections, app.www.is_some());
    let streams = arguments.number("--max-subscribers", 0..=MOST)?;
    app.limits.streams = streams.unwrap_or((app.limits.connections * 9 / 10).max(1));
    // Fewer would let a client keep new sets out with names that it invents, while there is room for subscribers. Over
    // Redis, a view does not share its frames with others.
    let views = match app.storage {
        Storage::Redis(_) => app.channel_limits.views,
        _ => app.limits.streams.max(1),
    };
    app.channel_limits.views = arguments.number("--max-views", 1..=MOST)?.unwrap_or(views);
    grow_table(app.limits.connections);
    let listening = app.clone().listen().map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => "; name another address with --listen",
            _ => "",
        };
        Failure::usage(format!("{error}{remedy}"))
    })?;
    say(&greeting(&listening.addresses()?, &app, stdin.as_deref(), note));
    if let Some(name) = stdin {
        let channel = listening.channels().open(&name);
        let channel = channel.map_err(|error| Failure::usage(format!("--stdin: {error}")))?;
        let publish = move || publish_stdin(&channel, &app.limits);
        let thread = thread::Builder::new().name("stdin".into()).spawn(publish);
        thread.map_err(|error| Failure::later(format!("cannot start a thread: {error}")))?;
    }
    Ok(listening.run()?)
}

/// The channel is complete at the end of the input, and a client that has every event does not come back. So the end is
/// said: a service manager closes standard input, and a user may have meant another file.
fn publish_stdin(channel: &Channel, limits: &Limits) {
    let mut input = io::stdin().lock();
    let is_empty = input.fill_buf().is_ok_and(<[u8]>::is_empty);
    let end = if is_empty { "is closed or empty" } else { "has ended" };
    http::say(&match publish_lines(input, channel, limits) {
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
    let has_page = app.www.as_ref().is_none_or(|www| www.join("index.html").is_file());
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
        "{}newswire listens on {} for at most {} connections. {}:\n\
         \x20   {curl} -N {server}/sse/mvc/words\n\
         {lab}{subscribe}{publish}",
        notes.collect::<String>(),
        places.join(", "),
        app.limits.connections,
        if url.is_some() && has_page { "Open it in a browser, or" } else { "Try" }
    )
}

/// The kernel gives the first process of a container no signal that it does not handle, and a handler needs unsafe code.
const INIT: &str = "SIGTERM does nothing here, since this is process 1; in a Dockerfile, say STOPSIGNAL SIGKILL";

/// The greatest number that an option takes when nothing else limits it.
const MOST: usize = 10_000_000;

const VERSION: &str = concat!("newswire ", env!("CARGO_PKG_VERSION"), "\n");

const LISTEN: &str = "an IP address and a port, as 127.0.0.1:8080, or unix:PATH, or unix:PATH,mode=600, or stdin";
const BASE: &str = "a path of letters, digits and -._~, as /push";
const PROXY: &str = "an IP address without a port, as 127.0.0.1, or unix";
const REDIS: &str = "HOST:PORT, as 127.0.0.1:6379";
const PREFIX: &str = "1 to 64 visible ASCII characters, none of them a brace";
const CHANNEL: &str = "the name of a channel, 1 to 64 letters, digits, dots, underscores and hyphens that do not begin with \
                       a dot";

fn app(arguments: &Arguments) -> Result<App, Failure> {
    let create = [("anyone", Create::Anyone), ("publishers", Create::Publishers), ("nobody", Create::Nobody)];
    let origins = arguments.texts("--allow-origin")?;
    let cors = if origins.is_empty() { Ok(Cors::default()) } else { Cors::only(origins) };
    let authorize = arguments.text("--authorize")?.map(|url| Url::parse(&url)).transpose();
    let usual = App::default();
    let addresses = arguments.each("--listen", LISTEN, |text| text.parse().ok())?;
    Ok(App {
        addresses: if addresses.is_empty() { usual.addresses } else { addresses },
        base: arguments.parsed("--base", BASE, base)?,
        www: arguments.path("--www"),
        cors: cors.map_err(|error| Failure::usage(format!("--allow-origin: {error}")))?,
        channel_limits: channel_limits(arguments)?,
        storage: storage(arguments)?,
        publishers: publishers(arguments)?,
        access_file: arguments.path("--access"),
        authorize: authorize.map_err(|error| Failure::usage(format!("--authorize: {error}")))?,
        create: arguments.one_of("--create", &create)?.unwrap_or(usual.create),
        lab: arguments.has("--lab"),
        log_accesses: !arguments.has("--quiet"),
        log_json: arguments.one_of("--log", &[("text", false), ("json", true)])?.unwrap_or(false),
        trusted_proxies: arguments.each("--trusted-proxy", PROXY, proxy)?,
        limits: usual.limits,
    })
}

fn channel_limits(arguments: &Arguments) -> Result<channel::Limits, Failure> {
    let usual = channel::Limits::default();
    let seconds = |name, most| {
        let seconds: Option<u64> = arguments.number(name, 0..=most)?;
        Ok::<_, Failure>(seconds.map(Duration::from_secs))
    };
    /// Thirty years.
    const MOST_SECONDS: usize = 1_000_000_000;
    Ok(channel::Limits {
        heartbeat: seconds("--heartbeat", 86_400)?.unwrap_or(usual.heartbeat),
        heartbeat_event: arguments.has("--heartbeat-event"),
        history_age: seconds("--history-seconds", MOST_SECONDS)?.unwrap_or(usual.history_age),
        channel_idle: seconds("--channel-idle", MOST_SECONDS)?.unwrap_or(usual.channel_idle),
        channels: arguments.number("--max-channels", 1..=MOST)?.unwrap_or(usual.channels),
        presence: arguments.has("--presence"),
        views: usual.views,
        history_events: arguments.number("--history-events", 1..=1_000_000_000)?.unwrap_or(usual.history_events),
        history_bytes: arguments.number("--history-bytes", 1024..=1 << 40)?.unwrap_or(usual.history_bytes),
    })
}

fn storage(arguments: &Arguments) -> Result<Storage, Failure> {
    arguments.exclude("--journal", "--redis")?;
    arguments.need("--journal-sync", "--journal")?;
    if let Some(name) = arguments.first(|name| name.starts_with("--redis-")) {
        arguments.need(name, "--redis")?;
    }
    arguments.need("--redis-user", "--redis-password-file")?;
    let syncs = [("always", JournalSync::Always), ("interval", JournalSync::Interval), ("never", JournalSync::Never)];
    let sync = arguments.one_of("--journal-sync", &syncs)?.unwrap_or_default();
    if let Some(directory) = arguments.path("--journal") {
        return Ok(Storage::Journal { directory, sync });
    }
    let Some(address) = arguments.parsed("--redis", REDIS, redis_address)? else {
        return Ok(Storage::Memory);
    };
    let usual = RedisOptions::default();
    Ok(Storage::Redis(RedisOptions {
        address,
        user: arguments.text("--redis-user")?,
        password: arguments.token("--redis-password-file")?,
        db: arguments.number("--redis-db", 0..=1_000_000)?.unwrap_or(usual.db),
        prefix: arguments.parsed("--redis-prefix", PREFIX, redis_prefix)?.unwrap_or(usual.prefix),
        wait: arguments.number("--redis-wait", 0..=100)?.unwrap_or(usual.wait),
    }))
}

/// A command line that names a token does not mean that all clients may publish.
fn publishers(arguments: &Arguments) -> Result<Publishers, Failure> {
    arguments.exclude("--publish-token-file", "--publish-open")?;
    Ok(match arguments.token("--publish-token-file")? {
        Some(token) => Publishers::Bearer(token),
        None if arguments.has("--publish-open") => Publishers::Anyone,
        None => Publishers::None,
    })
}

fn base(path: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_segment = |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(is_plain);
    let segments = path.strip_prefix('/')?;
    let mut segments = segments.strip_suffix('/').unwrap_or(segments).split('/');
    segments.all(is_segment).then(|| path.to_owned())
}

fn proxy(text: &str) -> Option<Option<IpAddr>> {
    if text == "unix" { Some(None) } else { Some(Some(text.parse::<IpAddr>().ok()?.to_canonical())) }
}

fn redis_address(address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| address.to_owned())
}

/// Braces stand around the name of the channel.
fn redis_prefix(prefix: &str) -> Option<String> {
    let may_stand = |byte: u8| byte.is_ascii_graphic() && !b"{}".contains(&byte);
    let is_prefix = (1..=64).contains(&prefix.len()) && prefix.bytes().all(may_stand);
    is_prefix.then(|| prefix.to_owned())
}
