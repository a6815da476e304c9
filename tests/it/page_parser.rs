//! The parser of the page, in Chromium, against the streams that browsers are tested with and against the library's parser.

use crate::events::web_platform_streams;
use crate::server::Server;
use crate::webdriver::{Browser, Json};
use newswire::sse::Parser;

/// What the page's parser makes of a stream, whole and byte by byte: type, last event ID and data of each event. The bytes
/// come as numbers.
const PARSE: &str = r#"
    const { Parser } = await import(given[0]);
    const bytes = Uint8Array.from(given[1].split(" "), Number);
    return [bytes.length, 1].map((size) => {
        const events = [];
        const parser = new Parser({ event: ({ type, lastEventId, data }) => events.push(`${type}|${lastEventId}|${data}`) });
        for (let at = 0; at < bytes.length; at += size) parser.feed(bytes.subarray(at, at + size));
        return events;
    });
"#;

/// The events in both ways.
fn parse(browser: &Browser, server: &Server, stream: &[u8]) -> [Vec<String>; 2] {
    let bytes: Vec<_> = stream.iter().map(u8::to_string).collect();
    let parsed = browser.run_async(PARSE, &[&server.url("/parser.js"), &bytes.join(" ")]);
    let of = |list: &Json| list.texts().into_iter().map(str::to_owned).collect();
    [of(&parsed[0]), of(&parsed[1])]
}

#[test]
fn the_parser_of_the_page_reads_what_browsers_are_tested_with() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::start(&[]);
    browser.open(&server.url("/healthz"));
    let mut streams: Vec<Vec<u8>> = Vec::new();
    for (stream, expected) in web_platform_streams() {
        for parsed in parse(&browser, &server, &stream) {
            let data: Vec<_> = parsed.iter().map(|event| event.splitn(3, '|').nth(2)).collect();
            let expected: Vec<_> = expected.iter().copied().map(Some).collect();
            assert_eq!(data, expected, "{:?}", String::from_utf8_lossy(&stream));
        }
        streams.push(stream);
    }
    // Types, ids and bytes that are not UTF-8, as the library has them.
    streams.push(include_bytes!("../../www/samples/hostile.sse").to_vec());
    for stream in [
        &b"event: a\rid: 1\rdata: x\r\revent\rid\rdata\r\r"[..],
        b"id: n\0l\ndata: 1\n\nid: 2\n\ndata: 2\n\nid\ndata: 3\n\n",
        b"\n\xef\xbb\xbfdata: not at the start\n\ndata: \xf0\x9f\x98\n\ndata: \xed\xa0\x80\n\n",
        b"event: lost\n\ndata: 1\n\ndata: never ends",
    ] {
        streams.push(stream.to_vec());
    }
    for stream in streams {
        let messages = Parser::new().feed(&stream).expect("it is small");
        let expected: Vec<_> =
            messages.iter().map(|m| format!("{}|{}|{}", m.event_type, m.last_event_id, m.data)).collect();
        for parsed in parse(&browser, &server, &stream) {
            assert_eq!(parsed, expected, "{:?}", String::from_utf8_lossy(&stream));
        }
    }
}
