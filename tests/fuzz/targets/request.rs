//! Heads: a verdict stands, and another parser reads the heads that we accept as we do.

#![no_main]

use libfuzzer_sys::fuzz_target;
use newswire::http::{Framing, Head, HeadParser, Limits, Method, Refusal, Version};

type Verdict = Result<Option<(Head, usize)>, Refusal>;

// The first byte says whether the limits are the defaults, or so small that inputs reach them.
fuzz_target!(|input: &[u8]| {
    let Some((choice, wire)) = input.split_first() else {
        return;
    };
    let mut limits = Limits::default();
    if choice % 2 == 1 {
        (limits.target_bytes, limits.head_bytes, limits.fields) = (24, 160, 4);
    }
    let whole = Head::parse(wire, &limits);
    // Each beginning of a short wire, and some of a long one
    let stride = 1 + wire.len() / 256;
    for length in (0..wire.len()).step_by(stride) {
        stands(&Head::parse(&wire[..length], &limits), &whole, length);
    }
    let mut parser = HeadParser::default();
    let ends = (0..wire.len()).step_by(stride).chain([wire.len()]);
    let verdicts = ends.map(|end| (end, parser.parse(&wire[..end], &limits)));
    match verdicts.into_iter().find(|(_, verdict)| !matches!(verdict, Ok(None))) {
        Some((end, verdict)) => stands(&verdict, &whole, end),
        None => assert!(matches!(whole, Ok(None)), "only the whole has a verdict"),
    }
    if let Ok(Some((head, length))) = &whole {
        assert!(matches!(Head::parse(&wire[..length - 1], &limits), Ok(None)), "it is whole before its last byte");
        stands(&Head::parse(&wire[..*length], &limits), &whole, *length);
        assert!(*length <= limits.head_bytes);
        agrees_with_itself(head, &limits);
        agrees_with_another(head, &wire[..*length]);
    }
});

fn stands(early: &Verdict, late: &Verdict, length: usize) {
    match (early, late) {
        (Ok(None), _) => {}
        (Ok(Some(early)), Ok(Some(late))) => {
            assert_eq!(early.1, late.1);
            assert!(early.1 <= length);
            assert_eq!(format!("{:?}", early.0), format!("{:?}", late.0));
        }
        // The rest may be refused for another reason.
        (Err(_), Err(_)) => {}
        _ => panic!("after {length} bytes {early:?}, then {late:?}"),
    }
}

fn agrees_with_itself(head: &Head, limits: &Limits) {
    let path = head.path();
    assert!(path == "*" && head.method() == Method::Options || path.starts_with('/'));
    assert!(path.len() <= limits.target_bytes && path.bytes().all(|byte| byte.is_ascii_graphic()));
    let slashes = path.bytes().filter(|&byte| byte == b'/').count();
    assert_eq!(head.segments().len(), if path == "*" { 0 } else { slashes });
    assert!(head.segments().iter().all(|segment| !segment.contains('\0') && segment.len() <= path.len()));

    let queries: Vec<_> = head.queries().collect();
    for (name, _) in &queries {
        let first = queries.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        assert_eq!(head.query(name), first);
    }
    for name in ["host", "origin", "authorization"] {
        assert!(head.values(name).count() <= 1);
    }
    assert!(head.version() == Version::Http10 || head.field("host").is_some());
    assert!(!head.authority().contains(['/', '@', ' ']));
    match head.framing() {
        Framing::None => {
            assert!(head.field("content-length").is_none() && head.field("transfer-encoding").is_none())
        }
        Framing::Length(bytes) => {
            assert_eq!(head.field("content-length").and_then(|digits| digits.parse().ok()), Some(bytes));
            assert_eq!(head.values("content-length").count(), 1);
            assert!(head.field("transfer-encoding").is_none());
        }
        Framing::Chunked => {
            assert!(head.lists("transfer-encoding", "chunked") && head.version() == Version::Http11);
            assert!(head.field("content-length").is_none());
        }
    }
}

/// Most HTTP servers in Rust read heads with httparse. It accepts more heads than we do. A head that we accept it must
/// read as we do: otherwise one of the two could be made to see a request that the other does not.
fn agrees_with_another(head: &Head, wire: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut other = httparse::Request::new(&mut fields);
    match other.parse(wire) {
        // It knows no later minor version than 1.1.
        Err(httparse::Error::Version) => return,
        parsed => {
            assert_eq!(parsed, Ok(httparse::Status::Complete(wire.len())), "it reads {other:?}")
        }
    }
    assert_eq!(other.method, Some(head.method().name()));
    assert_eq!(other.version, Some(u8::from(head.version() == Version::Http11)));
    let target = other.path.unwrap_or_default();
    assert!(target.contains(head.path()) || head.path() == "/");
    for field in other.headers.iter() {
        let value = String::from_utf8_lossy(field.value);
        let value = value.trim_matches([' ', '\t']);
        let name = field.name.to_ascii_lowercase();
        assert!(head.values(&name).any(|found| found == value), "only httparse has {name}: {value:?}");
    }
}
