//! Heads: a verdict stands, and who else reads what we accept reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use newswire::http::Limits;
use newswire::http::{Framing, Head, Method, Refusal, Version};

type Verdict = Result<Option<(Head, usize)>, Refusal>;

// The first byte says whether the limits are the usual ones, or so small that they are reached.
fuzz_target!(|input: &[u8]| {
    let Some((choice, wire)) = input.split_first() else {
        return;
    };
    let mut limits = Limits::default();
    if choice % 2 == 1 {
        (limits.target_bytes, limits.head_bytes, limits.fields) = (24, 160, 4);
    }
    let whole = Head::parse(wire, &limits);
    // Every beginning of a short wire, and of a long one so many that it stays quick.
    let stride = 1 + wire.len() / 256;
    for length in (0..wire.len()).step_by(stride) {
        stands(&Head::parse(&wire[..length], &limits), &whole, length);
    }
    if let Ok(Some((head, length))) = &whole {
        assert!(
            matches!(Head::parse(&wire[..length - 1], &limits), Ok(None)),
            "it was whole before its last byte"
        );
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
        // Whoever reads on may find something worse first; what was refused stays refused.
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
    assert!(
        head.segments()
            .iter()
            .all(|segment| !segment.contains('\0') && segment.len() <= path.len())
    );

    let queries: Vec<_> = head.queries().collect();
    for (name, _) in &queries {
        let first = queries.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        assert_eq!(head.query(name), first);
    }
    assert!(head.values("host").count() <= 1);
    assert!(head.version() == Version::Http10 || head.field("host").is_some());
    assert!(!head.authority().contains(['/', '@', ' ']));
    match head.framing() {
        Framing::None => {
            assert!(
                head.field("content-length").is_none() && head.field("transfer-encoding").is_none()
            )
        }
        Framing::Length(bytes) => {
            assert_eq!(
                head.field("content-length").and_then(|digits| digits.parse().ok()),
                Some(bytes)
            );
            assert_eq!(head.values("content-length").count(), 1);
            assert!(head.field("transfer-encoding").is_none());
        }
        Framing::Chunked => {
            assert!(
                head.lists("transfer-encoding", "chunked") && head.version() == Version::Http11
            );
            assert!(head.field("content-length").is_none());
        }
    }
}

/// httparse, which most of Rust's servers read heads with, is laxer than we are in places; what we
/// accept it must read as we do, or one of the two could be made to see a request that the other
/// does not.
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
        assert!(
            head.values(&name).any(|found| found == value),
            "only httparse has {name}: {value:?}"
        );
    }
}
