//! Text as JSON writes it.

/// A JSON string (RFC 8259, 7), in ASCII letters wherever a reader might stumble.
///
/// ```
/// use newswire::sse::json_string;
///
/// assert_eq!(json_string("\"é\n"), r#""\"\u00e9\u000a""#);
/// ```
pub fn json_string(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            ' '..='~' => json.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    json.push('"');
    json
}
