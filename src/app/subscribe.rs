//! Reading channels: subscribing to one, and listing all.

use crate::channel::{Channels, NoChannel, Summary};
use crate::http::{Head, Refusal, Request, Response, Status};
use crate::sse::{LAST_EVENT_ID_PARAMETERS, json_string, refused};
use std::mem::replace;

/// `GET /channels/{name}`
pub(super) fn subscribe(request: &Request<'_>, channels: &Channels) -> Result<Response, Refusal> {
    check_parameters(request, &LAST_EVENT_ID_PARAMETERS)?;
    match channels.open_to_subscribe(name(request)) {
        Ok(channel) => Ok(channel.subscribe(request)),
        Err(NoChannel::Full) => Ok(refused()),
        Err(name) => Err(refusal_of(name)),
    }
}

/// The channel in the path.
pub(super) fn name<'r>(request: &'r Request<'_>) -> &'r str {
    request.parameter("name").unwrap_or_default()
}

/// How many channels of a list are in memory at a time: a client that does not read costs no more than these.
const PAGE: usize = 64;

/// `GET /channels`: a JSON array, an object for each channel. A long one is written page by page.
pub(super) fn list(channels: &Channels) -> Response {
    let (channels, mut last, mut separator) = (channels.clone(), String::new(), "");
    let mut next_page = move || {
        let page = channels.list_after(&last, PAGE);
        let object = |channel| replace(&mut separator, ",\n ").to_owned() + &describe(channel);
        let objects: String = page.iter().map(object).collect();
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

fn describe(channel: &Summary) -> String {
    let id = |id: &Option<String>| id.as_ref().map_or("null".to_owned(), |id| json_string(id));
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
