//! Reading channels: subscribing to one, polling it, describing it, and listing all.

use super::access::Access;
use crate::channel::{Channels, NoChannel, Selection, Summary, since_ms};
use crate::http::{Head, Method, Refusal, Request, Response, Status};
use crate::sse::{LAST_EVENT_ID_PARAMETERS, json_string, refused, refused_because};
use std::mem::replace;
use std::sync::Arc;

/// Which clients may begin a channel by subscribing to it. Publishing begins one, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// All of them.
    Anyone,
    /// Those that may publish.
    Publishers,
    /// None.
    Nobody,
}

/// `GET /channels/{name}`: a stream; with `?poll` one that ends at once. A client that wants JSON is told what the channel
/// looks like, or with `?poll` what it has; of several channels, what each looks like that is there.
///
/// A client that may not begin the channel is told to come back later, as for load, and the same for all names. A 404
/// would end an EventSource for good, although the channel may begin in the next second: after a restart of the server
/// that would be the end of every page that is faster than the publisher.
pub(super) fn subscribe(
    request: &Request<'_>,
    channels: &Channels,
    access: &Arc<Access>,
    may_begin: bool,
) -> Result<Response, Refusal> {
    check_parameters(request, &[&LAST_EVENT_ID_PARAMETERS[..], &["since", "poll", "key"]].concat())?;
    check_since(request)?;
    let polls = is_on(request, "poll")?;
    let offered = ["text/event-stream", "application/json"];
    let is_json = request.prefers(&offered) == Some("application/json");
    let grant = match access.subscribe(request) {
        // Any status but 200 ends an EventSource for good. The application may be back soon.
        Err(refusal) if refusal.status == Status::SERVICE_UNAVAILABLE && !is_json => {
            return Ok(refused_because("the application that authorizes did not answer as it should"));
        }
        grant => grant?,
    };
    let selection = Selection::parse(name(request)).ok_or(NO_SELECTION)?;
    let has_prefix = selection.parts().iter().any(|part| part.ends_with('*'));
    if has_prefix && channels.redis().is_some() {
        return Err(PREFIX_IN_REDIS);
    }
    if (polls || is_json) && !selection.is_channel() && !selection.is_view() {
        return Err(POLL_OF_PRESENCE);
    }
    if is_json && !polls && selection.is_view() {
        if has_prefix {
            return Ok(list(channels, move |name| selection.matches(name)));
        }
        let found = channels.find_all(selection.parts());
        let described: Vec<String> = found.iter().map(|channel| describe(&channel.summary())).collect();
        return Ok(uncached(format!("[{}]\n", described.join(",\n "))));
    } else if is_json && !polls {
        let channel = channels.find(name(request)).ok_or(NO_SUCH_CHANNEL)?.summary();
        return Ok(with_fields(uncached(describe(&channel) + "\n"), &channel));
    }
    let opened = match polls {
        true => channels.open_to_poll(&selection, may_begin),
        false => channels.open_selection(&selection, may_begin),
    };
    match opened {
        // A poll that is read slowly is a stream, too.
        Ok(channel) if polls => Ok(access.watch(grant, channel.poll(request, is_json))),
        Ok(channel) if request.method() == Method::Head && selection.is_channel() => {
            let summary = channel.summary();
            Ok(with_fields(channel.subscribe(request), &summary))
        }
        Ok(channel) => Ok(access.watch(grant, channel.subscribe(request))),
        Err(NoChannel::Full) if !is_json && !may_begin => Ok(refused_because("the channel has not begun")),
        Err(NoChannel::Full) if !is_json => Ok(refused()),
        Err(NoChannel::Name) => Err(NO_SELECTION),
        Err(_) if !may_begin => Err(NOT_BEGUN),
        Err(full) => Err(refusal_of(full)),
    }
}

const NOT_BEGUN: Refusal = Refusal::new(
    Status::SERVICE_UNAVAILABLE,
    "The channel has not begun, and this client may not begin it; come back later.",
);

const NO_SELECTION: Refusal = Refusal::new(
    Status::NOT_FOUND,
    "A channel's name is 1 to 64 letters, digits, dots, underscores and hyphens, and does not begin with a dot. Up to 16 \
     of them, with commas between, are several channels on one connection; name* is all channels whose names begin so. \
     With --presence, @presence.name tells how many subscribers a channel has.",
);

/// To find the channels with a prefix, a server would have to look at all keys of Redis again and again, and to keep a copy
/// of as many streams as anyone has begun.
const PREFIX_IN_REDIS: Refusal =
    Refusal::bad("With --redis, several channels on one connection are up to 16 names, and no prefix.");

const POLL_OF_PRESENCE: Refusal =
    Refusal::bad("poll is for channels; each of them tells as JSON how many subscribers it has.");

pub(super) const NO_SUCH_CHANNEL: Refusal = Refusal::new(Status::NOT_FOUND, "There is no such channel.");

fn check_since(head: &Head) -> Result<(), Refusal> {
    let is_time = |time: String| time.is_empty() || since_ms(&time).is_some();
    if head.query("since").is_none_or(is_time) { Ok(()) } else { Err(NO_TIME) }
}

const NO_TIME: Refusal =
    Refusal::bad("since is how long ago (90s, 10m, 2h, 1d), a time in UTC (2026-11-26T10:00:00Z), or a unix time.");

/// A parameter without a value, with `1` and with `on` turns something on, with `0` and with `off` off.
pub(super) fn is_on(head: &Head, name: &str) -> Result<bool, Refusal> {
    match head.query(name).as_deref() {
        None | Some("0" | "off") => Ok(false),
        Some("" | "1" | "on") => Ok(true),
        Some(_) => {
            let sentence = format!("{name} is on or off.");
            Err(Refusal::with_sentence(Status::BAD_REQUEST, sentence))
        }
    }
}

/// The channel in the path.
pub(super) fn name<'r>(request: &'r Request<'_>) -> &'r str {
    request.parameter("name").unwrap_or_default()
}

/// How many channels of a list are in memory at a time: a client that does not read costs no more than these.
const PAGE: usize = 64;

/// `GET /channels`: a JSON array, an object for each channel that `accepts` takes by its name. A long one is written page by
/// page.
pub(super) fn list(channels: &Channels, accepts: impl Fn(&str) -> bool + Send + 'static) -> Response {
    let (channels, mut last, mut separator) = (channels.clone(), String::new(), "");
    let mut next_page = move || {
        let page = channels.list_after(&last, PAGE);
        let accepted = page.iter().filter(|channel| accepts(&channel.name));
        let object = |channel| replace(&mut separator, ",\n ").to_owned() + &describe(channel);
        let objects: String = accepted.map(object).collect();
        if let Some(channel) = page.last() {
            last.clone_from(&channel.name);
        }
        (objects, page.len() == PAGE)
    };
    let (first, mut goes_on) = next_page();
    let first = format!("[{first}");
    let response = match goes_on {
        false => Response::json(first + "]\n"),
        true => Response::stream("application/json", first.into_bytes(), move |out| {
            while goes_on {
                let page;
                (page, goes_on) = next_page();
                out.write_all(page.as_bytes())?;
            }
            out.write_all(b"]\n")
        })
        .field("X-Content-Type-Options", "nosniff"),
    };
    response.field("Cache-Control", "no-store")
}

fn uncached(json: String) -> Response {
    Response::json(json).field("Cache-Control", "no-store")
}

fn describe(channel: &Summary) -> String {
    let id = |id: &Option<String>| id.as_ref().map_or("null".to_owned(), |id| json_string(id));
    format!(
        "{{\"name\":{},\"subscribers\":{},\"events\":{},\"bytes\":{},\"first_id\":{},\"last_id\":{},\
         \"last_published_ms\":{},\"completed\":{}}}",
        json_string(&channel.name),
        channel.subscribers,
        channel.events,
        channel.bytes,
        id(&channel.first_id),
        id(&channel.last_id),
        channel.last_published_ms.map_or("null".to_owned(), |ms| ms.to_string()),
        channel.completed
    )
}

/// What a client can learn with `HEAD`: the same as in the description, each in a field.
fn with_fields(response: Response, channel: &Summary) -> Response {
    let response = response.field("Newswire-Subscribers", channel.subscribers.to_string());
    let Some(ms) = channel.last_published_ms else { return response };
    let response = response.field("Newswire-Last-Published-Ms", ms.to_string());
    let ids = [("Newswire-First-Id", &channel.first_id), ("Newswire-Last-Id", &channel.last_id)];
    ids.into_iter().fold(response, |response, (name, id)| match id {
        Some(id) => response.field(name, id.clone()),
        None => response,
    })
}

pub(super) fn refusal_of(no_channel: NoChannel) -> Refusal {
    let status = match no_channel {
        NoChannel::Name => Status::NOT_FOUND,
        NoChannel::Full => Status::SERVICE_UNAVAILABLE,
    };
    Refusal::new(status, no_channel.sentence())
}

/// The longest name that a reply repeats.
const SHOWN_NAME_BYTES: usize = 32;

/// Refuses a query with a parameter that the path does not have. `?evnet=x` would publish an event of no type
/// otherwise. The sentence repeats the name only when it is short and plain, since a request is hostile until proven
/// otherwise.
pub(super) fn check_parameters(head: &Head, known: &[&str]) -> Result<(), Refusal> {
    let mut names = head.queries().map(|(name, _)| name);
    let Some(unknown) = names.find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_shown = (1..=SHOWN_NAME_BYTES).contains(&unknown.len()) && unknown.bytes().all(is_plain);
    let culprit = if is_shown { format!("The parameter {unknown}") } else { "A parameter".to_owned() };
    let known = match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    let sentence = format!("{culprit} is unknown. This path knows {known}.");
    Err(Refusal::with_sentence(Status::BAD_REQUEST, sentence))
}
