//! Whether a text is JSON (RFC 8259).

const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];
/// Parsers stop at some depth: serde_json at this one, PHP at 512.
const DEPTH: usize = 128;

/// Whether it is meant as JSON. A log line may begin with a time in brackets, and clients compare `[DONE]` as text.
pub(super) fn is_meant_as_json(text: &str) -> bool {
    let text = text.trim();
    let inner = text.get(1..).unwrap_or_default().trim_start();
    let behind = inner.trim_start_matches(|c: char| c.is_ascii_digit() || "-.".contains(c));
    match text.as_bytes() {
        [b'{', ..] => inner.is_empty() || inner.starts_with(['"', '\'', '}']),
        [b'[', .., b']'] => behind.trim_start().starts_with(['{', '[', '"', '\'', ',', ']']),
        _ => false,
    }
}

pub(super) fn is_json(text: &str) -> bool {
    value(text, DEPTH).is_some_and(|rest| rest.trim_start_matches(WHITE_SPACE).is_empty())
}

/// What follows the value.
fn value(text: &str, depth: usize) -> Option<&str> {
    let text = text.trim_start_matches(WHITE_SPACE);
    let close = match text.chars().next()? {
        '{' => '}',
        '[' => ']',
        '"' => return string(text),
        _ => {
            let end = text.find(|c| ",]} \t\n\r".contains(c)).unwrap_or(text.len());
            let (word, rest) = text.split_at(end);
            return (["true", "false", "null"].contains(&word) || is_number(word)).then_some(rest);
        }
    };
    let mut rest = text[1..].trim_start_matches(WHITE_SPACE);
    if let Some(after) = rest.strip_prefix(close) {
        return Some(after);
    }
    loop {
        if close == '}' {
            let behind_name = string(rest.trim_start_matches(WHITE_SPACE))?;
            rest = behind_name.trim_start_matches(WHITE_SPACE).strip_prefix(':')?;
        }
        rest = value(rest, depth.checked_sub(1)?)?.trim_start_matches(WHITE_SPACE);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return rest.strip_prefix(close),
        }
    }
}

fn string(text: &str) -> Option<&str> {
    let mut rest = text.strip_prefix('"')?;
    loop {
        rest = &rest[rest.find(|c: char| c < ' ' || c == '"' || c == '\\')?..];
        let length = match rest.as_bytes() {
            [b'"', ..] => return Some(&rest[1..]),
            [b'\\', b'u', hex @ ..]
                if hex.iter().take(4).filter(|b| b.is_ascii_hexdigit()).count() == 4 =>
            {
                6
            }
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            _ => return None,
        };
        rest = &rest[length..];
    }
}

/// ```text
/// number = [ "-" ] ( "0" / %x31-39 *DIGIT ) [ "." 1*DIGIT ] [ ( "e" / "E" ) [ "+" / "-" ] 1*DIGIT ]
/// ```
/// Rust reads that, and more: `01`, `.5`, `5.`, `inf`.
fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let has_digits = digits.split('.').all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    let is_padded =
        digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit());
    has_digits && !is_padded && word.parse::<f64>().is_ok()
}
