//! Reading channels: subscribing to one, and listing all.

use crate::channel::{Channels, NoChannel, Selection};
use crate::http::{Head, Refusal, Request, Response, Status};
use crate::sse::{LAST_EVENT_ID_PARAMETERS, json_string, refused};

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

/// `GET /channels/{name}`. A client that may not begin the channel is told to come back later, as for load, and the same
/// for all names. A 404 would end an EventSource for good, although the channel may begin in the next second: after a
/// restart of the server that would be the end of every page that is faster than the publisher.
pub(super) fn subscribe(
    request: &Request<'_>,
    channels: &Channels,
    may_begin: bool,
) -> Result<Response, Refusal> {
    check_parameters(request, &LAST_EVENT_ID_PARAMETERS)?;
    let Some(selection) = Selection::parse(name(request)) else { return Err(NO_SELECTION) };
    match channels.open_selection(&selection, may_begin) {
        Ok(channel) => Ok(channel.subscribe(request)),
        Err(NoChannel::Full) => Ok(refused()),
        Err(NoChannel::Name) => Err(NO_SELECTION),
    }
}

const NO_SELECTION: Refusal = Refusal::new(
    Status::NOT_FOUND,
    "A channel's name is 1 to 64 letters, digits, dots, underscores and hyphens, and does not begin with a dot. Up to 16 \
     of them, with commas between, are several channels on one connection; name* is all channels whose names begin so. With --presence, @presence.name tells how many subscribers a channel has.",
);

/// The channel in the path.
pub(super) fn name<'r>(request: &'r Request<'_>) -> &'r str {
    request.parameter("name").unwrap_or_default()
}

/// `GET /channels`: a JSON array, an object for each channel.
pub(super) fn list(channels: &Channels) -> Response {
    let id = |id: &Option<String>| id.as_ref().map_or("null".to_owned(), |id| json_string(id));
    let channels = channels.list().into_iter().map(|channel| {
        format!(
            "{{\"name\":{},\"subscribers\":{},\"events\":{},\"bytes\":{},\"first_id\":{},\"last_id\":{},\"completed\":{}}}",
            json_string(&channel.name),
            channel.subscribers,
            channel.events,
            channel.bytes,
            id(&channel.first_id),
            id(&channel.last_id),
            channel.completed
        )
    });
    Response::json(format!("[{}]\n", channels.collect::<Vec<_>>().join(",\n ")))
        .field("Cache-Control", "no-store")
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
    let culprit =
        if is_shown { format!("The parameter {unknown}") } else { "A parameter".to_owned() };
    let known = match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    let sentence = format!("{culprit} is unknown. This path knows {known}.");
    Err(Refusal::with_sentence(Status::BAD_REQUEST, sentence))
}
