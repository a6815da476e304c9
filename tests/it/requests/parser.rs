//! The parsers by themselves: heads and chunks, however they are cut.

use super::contents::{CHUNKS_REFUSED, CHUNKS_TAKEN};
use super::{Case, NEXT, cases, each};
use newswire::http::{Chunks, Framing, Head, HeadParser, Limits};
use std::time::{Duration, Instant};

/// What [`Head::parse`] returns: the length of the head, or the status; `None` while the head is not whole.
fn verdict(wire: &[u8]) -> Option<Result<usize, u16>> {
    match Head::parse(wire, &Limits::default()) {
        Ok(None) => None,
        Ok(Some((_, length))) => Some(Ok(length)),
        Err(refusal) => Some(Err(refusal.status.0)),
    }
}

#[test]
fn a_verdict_on_the_beginning_of_a_head_stands_whatever_follows() {
    each(&cases(), Case::label, |case| {
        let whole = verdict(&case.wire).expect("the parser has a verdict");
        match whole {
            Ok(_) => assert!(!case.by_its_head, "the head was taken"),
            Err(status) => assert!(case.by_its_head && status == case.status, "the head was refused with {status}"),
        }
        // Of a large request, every prefix near its ends, and one in a thousand between them.
        let length = case.wire.len();
        let is_tried = |at: &usize| length < 2_000 || at.is_multiple_of(997) || *at < 50 || at + 50 > length;
        let mut judged = None;
        for at in (0..=length).filter(is_tried) {
            let said = verdict(&case.wire[..at]);
            assert!(
                said == judged || (judged.is_none() && said == Some(whole)),
                "{said:?} for the first {at} bytes, {judged:?} before that, {whole:?} for all"
            );
            judged = said;
        }
        let with_next = [&case.wire[..], NEXT].concat();
        assert_eq!(verdict(&with_next), Some(whole), "with the next request behind it");
    });
}

/// What a [`HeadParser`] returns for a head that arrives in pieces of this size, as [`verdict`] gives it.
fn verdict_in_pieces(wire: &[u8], piece: usize) -> Option<Result<usize, u16>> {
    let (mut parser, limits) = (HeadParser::default(), Limits::default());
    let ends = (0..wire.len()).step_by(piece).chain([wire.len()]);
    ends.map(|end| parser.parse(&wire[..end], &limits)).find_map(|outcome| match outcome {
        Ok(None) => None,
        Ok(Some((_, length))) => Some(Ok(length)),
        Err(refusal) => Some(Err(refusal.status.0)),
    })
}

#[test]
fn a_head_in_pieces_is_read_as_a_whole_one_is() {
    each(&cases(), Case::label, |case| {
        let with_next = [&case.wire[..], NEXT].concat();
        for piece in [1, 2, 3, 7, 100, 1_000] {
            assert_eq!(verdict_in_pieces(&with_next, piece), verdict(&with_next), "of {piece}");
        }
    });
}

/// The time for heads of `bytes` bytes that arrive byte by byte: with one long field, with many short fields, and in
/// empty lines before the request line.
fn time_byte_by_byte(bytes: usize) -> Duration {
    let limits = Limits { head_bytes: bytes + 100, fields: bytes, ..Limits::default() };
    let start = b"GET / HTTP/1.1\r\nHost: a\r\n";
    let heads = [
        [start, &b"X: "[..], &vec![b'z'; bytes], b"\r\n\r\n"].concat(),
        [start, &b"X: y\r\n".repeat(bytes / 6)[..], b"\r\n"].concat(),
        [&b"\r\n".repeat(bytes / 2)[..], start, b"\r\n"].concat(),
    ];
    let started = Instant::now();
    for head in &heads {
        let mut parser = HeadParser::default();
        let length = (0..=head.len()).find_map(|end| {
            let parsed = parser.parse(&head[..end], &limits).expect("it is a head");
            parsed.map(|(_, length)| length)
        });
        assert_eq!(length, Some(head.len()));
    }
    started.elapsed()
}

/// A parser that begins anew at each byte takes sixteen times as long for four times the bytes. Another process can
/// disturb a measurement, so that one good ratio of several is enough.
#[test]
fn the_time_for_a_head_in_pieces_grows_as_its_length_does() {
    let ratios = (0..20).map(|_| {
        let (short, long) = (time_byte_by_byte(4_000), time_byte_by_byte(16_000));
        long.as_secs_f64() / short.as_secs_f64()
    });
    let mut seen = Vec::new();
    let is_linear = ratios.inspect(|ratio| seen.push(*ratio)).any(|ratio| ratio < 8.0);
    assert!(is_linear, "four times the bytes took {seen:?} times as long");
}

#[test]
fn a_head_tells_its_parts() {
    let wire = b"POST http://example.com:81/a%2Fb//%C3%BC?q=a+b%26c&q=2&%C3%BC=%zz&= HTTP/1.1\n\
        Host: localhost\r\nx-list: a, B ,\tc\r\nX-List: D\nX:\t caf\xe9 \t\r\n\
        Content-Length: 007\n\n";
    let (head, length) = Head::parse(wire, &Limits::default()).expect("it is a head").expect("it is whole");
    assert_eq!(length, wire.len());
    assert_eq!(head.method().name(), "POST");
    assert_eq!(head.path(), "/a%2Fb//%C3%BC");
    assert_eq!(head.segments(), ["a/b", "", "ü"]);
    assert_eq!(head.query("q").as_deref(), Some("a b&c"));
    assert_eq!(head.query("ü").as_deref(), Some("%zz"));
    assert_eq!(head.query("r"), None);
    assert_eq!(head.queries().count(), 4);
    assert_eq!(head.authority(), "example.com:81");
    assert_eq!(head.field("x"), Some("caf\u{fffd}"));
    assert_eq!(head.values("x-list").count(), 2);
    for token in ["a", "b", "c", "d"] {
        assert!(head.lists("x-list", token), "{token}");
    }
    assert!(!head.lists("x-list", "a, b"));
    assert_eq!(head.framing(), Framing::Length(7));
    // Debug output ends in logs.
    let wire = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer zebra\r\nCookie: zebra\r\nX: y\r\n\r\n";
    let (secret, _) = Head::parse(wire, &Limits::default()).expect("a head").expect("a whole one");
    let shown = format!("{secret:?}");
    assert!(shown.contains("\"x\", \"y\"") && !shown.contains("zebra"), "{shown}");

    let asterisk = b"OPTIONS * HTTP/1.1\r\nHost: here\r\n\r\n";
    let (head, _) = Head::parse(asterisk, &Limits::default()).expect("it is a head").expect("it is whole");
    assert_eq!((head.path(), head.segments().len()), ("*", 0));
    assert_eq!(head.authority(), "here");
}

/// The media type that a request with these field lines prefers.
fn preferred(fields: &str, offered: &[&'static str]) -> Option<&'static str> {
    let wire = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let parsed = Head::parse(wire.as_bytes(), &Limits::default()).expect("it is a head");
    parsed.expect("it is whole").0.prefers(offered)
}

#[test]
fn the_weights_of_accept_decide_which_media_type_is_preferred() {
    let offered = &["text/event-stream", "text/html"];
    let (stream, html) = (Some(offered[0]), Some(offered[1]));
    for (fields, expected) in [
        ("", stream),
        ("Accept: */*\r\n", stream),
        ("Accept: text/*\r\n", stream),
        ("Accept: text/html\r\n", html),
        ("Accept: TEXT/Html\r\n", html),
        ("Accept: text/html;charset=utf-8\r\n", html),
        ("Accept: text/html, */*\r\n", stream),
        ("Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n", html),
        ("Accept: text/html;q=0.5, text/event-stream;q=0.4\r\n", html),
        ("Accept: text/html;q=0.5, text/event-stream;q=0.501\r\n", stream),
        ("Accept: text/html ; Q=0.5 , text/event-stream\t;\tq=0.4\r\n", html),
        ("Accept: text/event-stream;q=0.4\r\nAccept: text/html;level=1;q=0.5\r\n", html),
        // "The most specific reference has precedence" (RFC 9110, 12.5.1), also over a higher weight.
        ("Accept: text/event-stream;q=0.1, text/*;q=1, */*\r\n", html),
        ("Accept: text/event-stream;q=0, */*;q=0.1\r\n", html),
        // A weight of 0 is "not acceptable" (12.4.2).
        ("Accept: text/html;q=0, text/event-stream;q=0.000\r\n", None),
        ("Accept: */*;q=0\r\n", None),
        ("Accept: image/png, textual/*, text/htm, text/html5, text\r\n", None),
        // A weight outside of the grammar
        ("Accept: text/html;q=2, text/html;q=1.001, text/html;q=-1, text/html;q=\r\n", None),
        ("Accept: text/html;q=0.1234, text/html;q=.5, text/html;q=0.x, text/html;q\r\n", html),
        ("Accept:\r\n", None),
    ] {
        assert_eq!(preferred(fields, offered), expected, "{fields:?}");
    }
    assert_eq!(preferred("", &[]), None);
}

/// How a coding in these pieces is decoded: the content, how many bytes it took and whether it is whole; or the status.
fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), u16> {
    let (mut chunks, mut content, mut taken) = (Chunks::default(), Vec::new(), 0);
    for piece in pieces {
        taken += chunks.decode(piece, &mut content).map_err(|refusal| refusal.status.0)?;
    }
    Ok((content, taken, chunks.is_whole()))
}

#[test]
fn chunks_are_decoded_however_they_are_cut() {
    let taken = CHUNKS_TAKEN.iter().map(|(chunks, content)| {
        let outcome = Ok((content.to_vec(), chunks.len(), true));
        ([chunks, NEXT].concat(), outcome)
    });
    let refused = CHUNKS_REFUSED.iter().map(|(status, chunks)| (chunks.to_vec(), Err(*status)));
    for (wire, expected) in taken.chain(refused) {
        let label = wire.escape_ascii();
        assert_eq!(decode(&[&wire]), expected, "whole: {label}");
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(decode(&bytes), expected, "byte by byte: {label}");
        for first in 0..=wire.len() {
            for second in first..=wire.len() {
                let pieces = [&wire[..first], &wire[first..second], &wire[second..]];
                assert_eq!(decode(&pieces), expected, "cut at {first}, {second}: {label}");
            }
        }
    }
}

#[test]
fn chunks_are_whole_at_their_last_byte_and_not_before() {
    for (chunks, content) in CHUNKS_TAKEN {
        for length in 0..chunks.len() {
            let (read, taken, whole) = decode(&[&chunks[..length]]).expect("nothing is wrong yet");
            assert!(!whole, "whole after {length} bytes: {}", chunks.escape_ascii());
            assert_eq!(taken, length);
            assert!(content.starts_with(&read));
        }
    }
}
