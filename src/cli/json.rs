//! Whether a text is JSON (RFC 8259).

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
    value(text, DEPTH).is_some_and(|rest| trim(rest).is_empty())
}

/// What follows the value.
fn value(text: &str, depth: usize) -> Option<&str> {
    let text = trim(text);
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
    let mut rest = trim(&text[1..]);
    if let Some(after) = rest.strip_prefix(close) {
        return Some(after);
    }
    loop {
        if close == '}' {
            rest = trim(string(trim(rest))?).strip_prefix(':')?;
        }
        rest = trim(value(rest, depth.checked_sub(1)?)?);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return rest.strip_prefix(close),
        }
    }
}

fn trim(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

fn string(text: &str) -> Option<&str> {
    let mut chars = text.strip_prefix('"')?.chars();
    loop {
        let is_right = match chars.next()? {
            '"' => return Some(chars.as_str()),
            '\\' => match chars.next()? {
                'u' => (0..4).all(|_| chars.next().is_some_and(|c| c.is_ascii_hexdigit())),
                escape => "\"\\/bfnrt".contains(escape),
            },
            c => c >= ' ',
        };
        is_right.then_some(())?;
    }
}

/// ```text
/// number = [ "-" ] ( "0" / %x31-39 *DIGIT ) [ "." 1*DIGIT ] [ ( "e" / "E" ) [ "+" / "-" ] 1*DIGIT ]
/// ```
/// Rust reads that, and more: `01`, `.5`, `5.`, `inf`.
fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let has_digits = digits.split('.').all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    let is_padded = digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit());
    has_digits && !is_padded && word.parse::<f64>().is_ok()
}
