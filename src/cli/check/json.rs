//! Whether a text is JSON (RFC 8259).

/// Parsers stop at some depth: serde_json at this one, PHP at 512.
const DEPTH: usize = 128;

/// Whether it is meant as JSON. Clients compare `[DONE]` as text.
pub(super) fn is_meant_as_json(text: &str) -> bool {
    let text = text.trim_ascii();
    let first = text.get(1..).and_then(|rest| rest.trim_ascii_start().bytes().next());
    match text.as_bytes() {
        [b'{', ..] => first.is_none_or(|byte| b"\"'}".contains(&byte)),
        [b'[', .., b']'] => first.is_some_and(|byte| b"{[\"'-0123456789".contains(&byte)),
        _ => false,
    }
}

pub(in crate::cli) fn is_json(text: &str) -> bool {
    value(text.as_bytes(), DEPTH).is_some_and(|rest| rest.trim_ascii_start().is_empty())
}

/// What follows the value.
fn value(text: &[u8], depth: usize) -> Option<&[u8]> {
    let text = text.trim_ascii_start();
    match text {
        [b'{' | b'[', ..] if depth == 0 => None,
        [b'{', rest @ ..] => items(rest, b'}', |member| {
            let rest = string(member.trim_ascii_start())?.trim_ascii_start();
            value(rest.strip_prefix(b":")?, depth - 1)
        }),
        [b'[', rest @ ..] => items(rest, b']', |element| value(element, depth - 1)),
        [b'"', ..] => string(text),
        [b't', ..] => text.strip_prefix(b"true"),
        [b'f', ..] => text.strip_prefix(b"false"),
        [b'n', ..] => text.strip_prefix(b"null"),
        _ => number(text),
    }
}

fn items<'t>(
    text: &'t [u8],
    close: u8,
    item: impl Fn(&'t [u8]) -> Option<&'t [u8]>,
) -> Option<&'t [u8]> {
    let mut rest = text.trim_ascii_start();
    if let Some(rest) = rest.strip_prefix(&[close]) {
        return Some(rest);
    }
    loop {
        match item(rest)?.trim_ascii_start().split_first()? {
            (b',', after) => rest = after,
            (&byte, after) => return (byte == close).then_some(after),
        }
    }
}

fn string(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'u', hex @ ..] => {
                hex.split_at_checked(4).filter(|(hex, _)| hex.iter().all(u8::is_ascii_hexdigit))?.1
            }
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', after @ ..] => after,
            [b'\\' | 0..=0x1f, ..] | [] => return None,
            [_, after @ ..] => after,
        }
    }
}

/// ```text
/// number = [ "-" ] int [ "." 1*DIGIT ] [ ( "e" / "E" ) [ "+" / "-" ] 1*DIGIT ]
/// ```
fn number(text: &[u8]) -> Option<&[u8]> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = if rest.starts_with(b"0") { 1 } else { digits(rest) };
    rest = rest.get(whole..).filter(|_| whole > 0)?;
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = fraction.get(digits(fraction)..).filter(|rest| rest.len() < fraction.len())?;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', rest @ ..] => rest,
            _ => exponent,
        };
        rest = exponent.get(digits(exponent)..).filter(|rest| rest.len() < exponent.len())?;
    }
    Some(rest)
}
