//! Heads and chunked contents.

use super::{fuzz, mutate, pieces, some_of};
use crate::server::Dice;
use newswire::http::{Chunks, Head, HeadParser, Limits, Method, Refusal};

fn a_head(dice: &mut Dice) -> Vec<u8> {
    let method = *dice.pick(&["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", ""]);
    let path = some_of(dice, &["/", "a", "..", ".", "%2F", "%2e", "%00", "%", "%zz", "*", "channels", "~", "é"], 8);
    let query = some_of(dice, &["?", "&", "=", "a", "%41", "+", "%", "%ff", "last_event_id=1", "#"], 8);
    let target = match dice.below(8) {
        0 => format!("http://{path}{query}"),
        1 => format!("https://host:80/{path}{query}"),
        2 => "*".to_owned(),
        3 => format!("{path}{query}"),
        _ => format!("/{path}{query}"),
    };
    let version = *dice.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.9", "HTTP/2.0", "HTTP/1", ""]);
    let end = *dice.pick(&["\r\n", "\r\n", "\n"]);
    let mut head = String::new();
    if dice.once_in(10) {
        head += end;
    }
    head += &format!("{method} {target} {version}{end}");
    if !dice.once_in(10) {
        head +=
            &format!("Host: {}{end}", dice.pick(&["localhost", "a:80", "[::1]:8080", "", "a b", "a,b", "a:999999"]));
    }
    for _ in 0..dice.below(6) {
        let name = *dice.pick(&[
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Expect",
            "Origin",
            "Authorization",
            "X",
            "Last-Event-ID",
            "x y",
            "",
        ]);
        let value = *dice.pick(&[
            "0",
            "5",
            "5, 5",
            "+5",
            "chunked",
            "gzip, chunked",
            "chunked, chunked",
            "close",
            "keep-alive",
            "100-continue",
            "",
            " ",
            "\t",
            "\u{a0}",
            "é",
            "a\0b",
            "a\rb",
            "18446744073709551616",
            "identity",
            ",",
        ]);
        let colon = *dice.pick(&[": ", ":", ":", ": \t", " :", ":  "]);
        head += &format!("{name}{colon}{value}{end}");
    }
    head += *dice.pick(&[end, end, end, "", "\r", " folded\r\n\r\n"]);
    let mut bytes = head.into_bytes();
    mutate(dice, &mut bytes);
    bytes
}

type Outcome = Result<Option<(Head, usize)>, Refusal>;

#[test]
fn random_heads_get_one_verdict_however_they_arrive() {
    let tiny = Limits { target_bytes: 24, head_bytes: 160, fields: 3, ..Limits::default() };
    fuzz("heads", |dice| {
        let wire = a_head(dice);
        let limits = if dice.once_in(4) { tiny.clone() } else { Limits::default() };
        let shown = String::from_utf8_lossy(&wire).into_owned();
        let whole = Head::parse(&wire, &limits);
        check_beginnings(&wire, &limits, &whole, &shown);

        let (mut parser, mut arrived) = (HeadParser::default(), 0);
        let mut in_pieces = parser.parse(b"", &limits);
        for piece in pieces(dice, &wire) {
            if !matches!(in_pieces, Ok(None)) {
                break;
            }
            arrived += piece.len();
            in_pieces = parser.parse(&wire[..arrived], &limits);
        }
        stands(&in_pieces, &whole, &shown);
        assert_eq!(matches!(in_pieces, Ok(None)), matches!(whole, Ok(None)), "{shown:?}");

        let Ok(Some((head, length))) = whole else {
            return;
        };
        // The bytes behind the head do not matter.
        let followed = [&wire[..length], b"\0\r\nGET / HTTP/1.1\r\n\r\n"].concat();
        let again = Head::parse(&followed, &limits).expect("it is a head").expect("it is whole");
        assert_eq!(again.1, length, "{shown:?}");
        assert!(length <= limits.head_bytes, "{shown:?}");
        assert!(head.path().len() <= limits.target_bytes, "{shown:?}");
        check_head(&head, &shown);
    });
}

/// While too little has arrived there is no verdict. Then it stays the same.
fn check_beginnings(wire: &[u8], limits: &Limits, whole: &Outcome, shown: &str) {
    let mut is_judged = false;
    for arrived in 0..=wire.len() {
        let early = Head::parse(&wire[..arrived], limits);
        stands(&early, whole, shown);
        let has_verdict = !matches!(early, Ok(None));
        assert!(has_verdict || !is_judged, "{shown:?} has no verdict any more at {arrived}");
        is_judged = has_verdict;
        if let (false, Ok(Some((_, length)))) = (has_verdict, whole) {
            assert!(arrived < *length, "{shown:?} is whole at {length}, and not at {arrived}");
        }
    }
}

/// Whether the verdict on a beginning is the one on the whole.
fn stands(early: &Outcome, whole: &Outcome, shown: &str) {
    match (early, whole) {
        (Ok(None), _) => {}
        // A line that is too long already may also be wrong.
        (Err(early), Err(whole)) => {
            let is_same = early.status == whole.status || early.status.0 == 414;
            assert!(is_same, "{shown:?}: first {early}, in the end {whole}");
        }
        (Ok(early), Ok(whole)) => {
            assert_eq!(format!("{early:?}"), format!("{whole:?}"), "{shown:?}")
        }
        _ => panic!("{shown:?}: first {early:?}, in the end {whole:?}"),
    }
}

/// What a head says of itself is true.
fn check_head(head: &Head, shown: &str) {
    assert!(head.path() == "*" || head.path().starts_with('/'), "{shown:?}");
    assert!(head.path() != "*" || head.method() == Method::Options, "{shown:?}");
    assert!(head.segments().iter().all(|segment| !segment.contains('\0')), "{shown:?}");
    for name in ["host", "content-length", "transfer-encoding", "x", "last-event-id"] {
        for value in head.values(name) {
            assert!(!value.contains(['\r', '\n', '\0']), "{shown:?}");
            assert_eq!(value, value.trim_matches([' ', '\t']), "{shown:?}");
        }
    }
    let count = |name| head.values(name).count();
    assert!(count("content-length") == 0 || count("transfer-encoding") == 0, "{shown:?}");
    for name in ["host", "content-length", "origin", "authorization"] {
        assert!(count(name) <= 1, "{name} in {shown:?}");
    }
    assert!(!head.authority().contains(['@', '/', ' ']), "{shown:?}");
    for (name, value) in head.queries() {
        assert!(head.query(&name).is_some(), "{shown:?}");
        // Each byte becomes a U+FFFD at most.
        assert!(name.len() + value.len() <= 3 * shown.len(), "{shown:?}");
    }
}

#[test]
fn random_chunks_are_decoded_however_they_are_cut() {
    fuzz("chunked content", |dice| {
        let mut content = Vec::new();
        let mut wire = Vec::new();
        for _ in 0..dice.below(6) {
            let data: Vec<u8> = (0..1 + dice.below(40)).map(|_| dice.next() as u8).collect();
            let size = match dice.below(3) {
                0 => format!("{:x}", data.len()),
                1 => format!("{:X}", data.len()),
                _ => format!("{:04x}", data.len()),
            };
            let extensions =
                some_of(dice, &[";a", ";a=b", "; a=\"b c\"", " \t;\t a =\tb", ";a=\"\\\"\\;\\x\"", " ; b"], 3);
            wire.extend([size.as_bytes(), extensions.as_bytes(), b"\r\n", &data, b"\r\n"].concat());
            content.extend(data);
        }
        wire.extend_from_slice(dice.pick::<&[u8]>(&[b"0\r\n", b"000\r\n", b"0;x=y\r\n"]));
        for _ in 0..dice.below(3) {
            wire.extend_from_slice(dice.pick::<&[u8]>(&[b"X: y\r\n", b"Content-Length: 5\r\n"]));
        }
        wire.extend_from_slice(b"\r\n");
        let end = wire.len();
        wire.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let is_intact = dice.once_in(2);
        if !is_intact {
            mutate(dice, &mut wire);
        }

        /// The content, how many bytes it took, and whether it is whole; or the status of the refusal.
        type Decoded = Result<(Vec<u8>, usize, bool), u16>;
        let decode = |pieces: &[&[u8]]| -> Decoded {
            let (mut chunks, mut content, mut taken) = (Chunks::default(), Vec::new(), 0);
            for piece in pieces {
                let read = chunks.decode(piece, &mut content).map_err(|refusal| refusal.status.0)?;
                taken += read;
                assert!(read == piece.len() || chunks.is_whole(), "it leaves only the bytes behind the coding");
                if chunks.is_whole() {
                    break;
                }
            }
            Ok((content, taken, chunks.is_whole()))
        };
        let whole = decode(&[&wire]);
        if is_intact {
            assert_eq!(whole, Ok((content, end, true)), "{:?}", String::from_utf8_lossy(&wire));
        }
        let cut = pieces(dice, &wire);
        assert_eq!(decode(&cut), whole, "{:?}", String::from_utf8_lossy(&wire));
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(decode(&bytes), whole, "{:?}", String::from_utf8_lossy(&wire));
        if let Ok((content, taken, _)) = whole {
            assert!(content.len() <= taken, "the content is part of the wire");
        }
    });
}
