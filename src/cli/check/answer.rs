//! The rules of the response: what its head says, and to which requests.

use super::probe::{Exchange, Seen};
use super::rule::Needs::*;
use super::rule::{Finding, Rule, fail, info, pass, shown, warn};
use newswire::http::Status;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "status",
        needs: Nothing,
        judge: |seen| match &seen.first.response {
            Err(sentence) => fail(sentence),
            Ok(response) if response.status == Status::OK => {
                pass(format!("200 from {}", response.url))
            }
            Ok(response) => fail(format!("{} from {}", response.status, response.url)),
        },
        why: "EventSource opens at the status 200 only. 204 stops it for good, and so does any other.",
        remedy: "Start the server; answer 200, and flush the head before any event, through all proxies.",
    },
    Rule {
        name: "media-type",
        needs: Response,
        judge: |seen| match seen.first.field("content-type") {
            Some(_) if seen.first.media_type() == "text/event-stream" => pass("text/event-stream"),
            other => fail(format!("Content-Type is {}", shown(other.unwrap_or_default()))),
        },
        why: "EventSource fails for good at any other media type.",
        remedy: "Send Content-Type: text/event-stream.",
    },
    Rule {
        name: "charset",
        needs: Response,
        judge: |seen| {
            let parameters =
                seen.first.field("content-type").unwrap_or_default().split(';').skip(1);
            let mut named = parameters.filter_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
            });
            match named.next() {
                Some(other) if !other.eq_ignore_ascii_case("utf-8") => warn(shown(other)),
                Some(_) => pass("utf-8"),
                None => pass("none is named"),
            }
        },
        why: "EventSource decodes every stream as UTF-8. Other clients believe the parameter.",
        remedy: "Encode the stream as UTF-8, and leave the parameter out.",
    },
    Rule {
        name: "caching",
        needs: Response,
        judge: |seen| {
            let has = |name| seen.first.has("cache-control", name);
            let found = match seen.first.list("cache-control").join(", ") {
                none if none.is_empty() => "there is no Cache-Control".to_owned(),
                directives => format!("Cache-Control is {}", shown(directives)),
            };
            match seen.first.field("age") {
                Some(age) => fail(format!("it comes from a cache: Age is {}", shown(age))),
                None if has("no-store") || has("no-cache") => pass(found),
                None if has("public") || has("max-age") || has("s-maxage") => fail(found),
                None => warn(found),
            }
        },
        why: "A cache may keep an old stream, or join a second client to the stream of the first.",
        remedy: "Send Cache-Control: no-store (or no-cache).",
    },
    Rule {
        name: "no-transform",
        needs: Response,
        judge: |seen| match seen.first.has("cache-control", "no-transform") {
            true => pass("Cache-Control has it"),
            false => warn("Cache-Control does not have it"),
        },
        why: "Without it, middleware and proxies may compress the stream, and hold events to do so.",
        remedy: "Send Cache-Control: no-store, no-transform.",
    },
    Rule {
        name: "compression",
        needs: Stream,
        judge: |seen| {
            let coding = |exchange: &Exchange| exchange.field("content-encoding").map(shown);
            let bursts = [&seen.first, &seen.gzip].map(|exchange| exchange.stream.bursts().len());
            match (coding(&seen.first), coding(&seen.gzip), &seen.gzip.response) {
                (Some(coding), ..) => fail(format!("{coding}, although identity was asked for")),
                (_, Some(coding), _) if bursts[1] * 2 < bursts[0] => fail(format!(
                    "{coding} holds events: {} bursts instead of {}",
                    bursts[1], bursts[0]
                )),
                (_, Some(coding), _) => warn(format!("{coding}, where gzip is accepted")),
                (.., Err(sentence)) if seen.cross_origin.response.is_ok() => {
                    fail(format!("with Accept-Encoding: gzip, {sentence}"))
                }
                (.., Err(sentence)) => warn(sentence),
                _ => pass("none, also where gzip is accepted"),
            }
        },
        why: "A compressor holds events until it has a block full, unless it is flushed after each.",
        remedy: "Exclude text/event-stream: in nginx from gzip_types, in Express by the filter of \
                 compression(). Or flush after each event.",
    },
    Rule {
        name: "cors",
        needs: Response,
        judge: |seen| match allowed_origins(seen)[..] {
            _ if seen.cross_origin.response.is_err() => {
                warn("a request with an Origin has no response")
            }
            [] => warn(format!("pages of {} may not read this", shown(&seen.origin))),
            ["*"] => pass("pages of any origin may read"),
            [origin] if origin == seen.origin && !seen.cross_origin.has("vary", "origin") => {
                warn(format!("{} is echoed without Vary: Origin", shown(origin)))
            }
            [origin] if origin == seen.origin => {
                pass(format!("pages of {} may read", shown(origin)))
            }
            [origin] if !origin.contains([',', ' ', '*']) => {
                warn(format!("only pages of {} may read", shown(origin)))
            }
            ref several => fail(format!("Access-Control-Allow-Origin is {}", shown(several))),
        },
        why: "A page of another origin reads the stream only where Access-Control-Allow-Origin is * \
              or its own origin, once. Without Vary a cache gives it the answer for another one.",
        remedy: "Send the field once, from the server or the proxy but not from both, and Vary: Origin \
                 where it depends on the request. To check for your page: --header 'Origin: ...'.",
    },
    Rule {
        name: "credentials",
        needs: Response,
        judge: |seen| {
            let allowed = seen.cross_origin.field("access-control-allow-credentials");
            let echoes = allowed_origins(seen)[..] == [seen.origin.as_str()];
            match allowed {
                None => pass("no page of another origin may send credentials"),
                Some("true") if allowed_origins(seen).contains(&"*") => {
                    fail("allowed for the origin *")
                }
                Some("true") if echoes && !seen.origin_is_known => warn("allowed for any origin"),
                Some("true") => pass("allowed for origins by name"),
                Some(other) => {
                    fail(format!("Access-Control-Allow-Credentials is {}", shown(other)))
                }
            }
        },
        why: "With withCredentials a browser takes * for nothing, and `true` alone for yes. Where any \
              origin is echoed, any page reads what the user may read.",
        remedy: "Allow credentials for a list of origins, and echo only these.",
    },
    Rule {
        name: "nosniff",
        needs: Response,
        judge: |seen| match seen.first.has("x-content-type-options", "nosniff") {
            true => pass("nosniff"),
            false => info("X-Content-Type-Options is not nosniff"),
        },
        why: "With it, no browser takes what the events say for HTML.",
        remedy: "Send X-Content-Type-Options: nosniff.",
    },
    Rule {
        name: "x-accel-buffering",
        needs: Response,
        judge: |seen| match (
            seen.first.list("x-accel-buffering").first(),
            seen.first.field("server"),
        ) {
            (Some(value), _) if value == "no" => pass("no"),
            (None, Some(server)) if server.starts_with("nginx") => {
                pass("nginx takes the field away")
            }
            _ => warn("it is not \"no\""),
        },
        why: "nginx in front of the server holds events until it has a block full.",
        remedy: "Send X-Accel-Buffering: no, which nginx obeys; or set proxy_buffering off.",
    },
    Rule {
        name: "connection",
        needs: Stream,
        judge: |seen| match (
            seen.first.list("transfer-encoding"),
            seen.first.field("content-length"),
        ) {
            (_, Some(length)) => warn(format!("Content-Length is {}", shown(length))),
            (codings, _) if codings.is_empty() => info("HTTP/1.1, until the connection closes"),
            (codings, _) => {
                info(format!("HTTP/1.1, Transfer-Encoding: {}", shown(codings.join(", "))))
            }
        },
        why: "A length means that the stream was whole before it was sent. HAProxy holds small chunks for \
              0.2 s. With HTTP/1.1 a browser opens six connections to a host, over all its tabs; a \
              seventh EventSource waits in silence.",
        remedy: "Write events as they happen. Speak HTTP/2 in the proxy in front, or share one EventSource.",
    },
    Rule {
        name: "head",
        needs: Stream,
        judge: |seen| answered(&seen.head),
        why: "Monitors and link checkers ask with HEAD, and wait.",
        remedy: "Answer HEAD with the head of GET, and nothing behind it.",
    },
    Rule {
        name: "http-1.0",
        needs: Stream,
        judge: |seen| match seen.http10.field("transfer-encoding") {
            Some(coding) => {
                fail(format!("it is answered with Transfer-Encoding {}", shown(coding)))
            }
            None => answered(&seen.http10),
        },
        why: "nginx asks in HTTP/1.0 by default. A client that speaks it does not know chunks.",
        remedy: "Answer HTTP/1.0 with a stream that ends with the connection. In nginx: \
                 proxy_http_version 1.1.",
    },
];

fn allowed_origins(seen: &Seen) -> Vec<&str> {
    let responses = seen.cross_origin.response.iter();
    responses.flat_map(|response| response.values("access-control-allow-origin")).collect()
}

fn answered(exchange: &Exchange) -> Finding {
    match &exchange.response {
        Err(sentence) => warn(sentence),
        Ok(response) if response.status != Status::OK => warn(response.status.to_string()),
        Ok(response) => pass(response.status.to_string()),
    }
}
