//! The small grammars that several fields and the request target share: tokens, lists, weights, entity tags,
//! authorities, percent-encoding. No socket, no request.

use super::status::Refusal;
use std::borrow::Cow;
use std::iter::from_fn;
use std::net::Ipv6Addr;

/// `tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~" / DIGIT / ALPHA`
/// (RFC 9110, 5.6.2)
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// `token = 1*tchar`
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// `HTAB / SP / VCHAR / obs-text`: what a field value, a quoted pair and a trailer may have (RFC 9110, 5.5).
pub(super) fn is_text_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// `OWS = *( SP / HTAB )` (RFC 9110, 5.6.3) and nothing else. A no-break space or a form feed that one program trims
/// and another program does not has smuggled a `Transfer-Encoding`.
pub(super) fn trim_ows(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The elements of a list. "A recipient MUST parse and ignore a reasonable number of empty list elements" (RFC 9110,
/// 5.6.1.2).
pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(trim_ows).filter(|element| !element.is_empty())
}

/// ```text
/// Accept = #( media-range [ weight ] )        weight = OWS ";" OWS "q=" qvalue        (RFC 9110, 12.5.1, 12.4.2)
/// ```
/// The weight that a list of media ranges gives to a media type, in thousandths; 0 is not acceptable. "The most
/// specific reference has precedence". Other parameters of a range are ignored.
pub(super) fn weight_of<'v>(media_type: &str, ranges: impl Iterator<Item = &'v str>) -> u16 {
    let (kind, _) = media_type.split_once('/').unwrap_or((media_type, ""));
    let precedence = |range: &str| match range.strip_suffix("/*") {
        _ if range.eq_ignore_ascii_case(media_type) => Some(3),
        Some("*") => Some(1),
        Some(found) if found.eq_ignore_ascii_case(kind) => Some(2),
        _ => None,
    };
    let weighted = ranges.filter_map(|element| {
        let mut parts = element.split(';').map(trim_ows);
        let precedence = precedence(parts.next()?)?;
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        Some((precedence, weight.map_or(Some(1000), parse_qvalue)?))
    });
    weighted.max().map_or(0, |(_, weight)| weight)
}

/// `qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )` (RFC 9110, 12.4.2)
fn parse_qvalue(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// ```text
/// If-None-Match = "*" / #entity-tag        entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE        (RFC 9110, 13.1.2, 8.8.3)
/// ```
/// Whether it is weak, and the tag with its quotes, for each up to the first text that is none. `*` is listed as it is. A
/// tag may have a comma in it.
pub(super) fn entity_tags(mut list: &str) -> impl Iterator<Item = (bool, &str)> {
    from_fn(move || {
        list = list.trim_start_matches([' ', '\t', ',']);
        let strong = list.strip_prefix("W/");
        let tag = strong.unwrap_or(list);
        let end = if list.starts_with('*') { 1 } else { tag.strip_prefix('"')?.find('"')? + 2 };
        list = &tag[end..];
        Some((strong.is_some(), &tag[..end]))
    })
}

/// ```text
/// Host = uri-host [ ":" port ]        uri-host = IP-literal / IPv4address / reg-name        (RFC 9110, 7.2)
/// ```
/// IPv6 is the one IP-literal: no other has been defined.
pub(super) fn is_authority(text: &str) -> bool {
    let (is_host, after) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) => (address.parse::<Ipv6Addr>().is_ok(), after),
        None => {
            let (name, after) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_reg_name(name), after)
        }
    };
    // port = *DIGIT (RFC 3986, 3.2.3), at most 65535.
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    is_host && (after.is_empty() || after.strip_prefix(':').is_some_and(is_port))
}

/// `reg-name = *( unreserved / pct-encoded / sub-delims )` (RFC 3986, 3.2.2), and not empty.
fn is_reg_name(text: &str) -> bool {
    let is_name_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'$'..=b'.' | b';' | b'=' | b'_' | b'~');
    !text.is_empty() && text.bytes().all(is_name_byte) && (!text.contains('%') || decode(text).1)
}

/// `pct-encoded = "%" HEXDIG HEXDIG` (RFC 3986, 2.1), decoded once: what still looks encoded afterwards is literal.
pub(super) fn decode_segment(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    // A request target is visible ASCII.
    if !segment.contains('%') {
        return Ok(segment.into());
    }
    let (decoded, is_well_formed) = decode(segment);
    Refusal::bad("A % in the path is not followed by two hexadecimal digits.").unless(is_well_formed)?;
    match String::from_utf8(decoded) {
        Ok(text) if !text.contains('\0') => Ok(text.into()),
        _ => Err(Refusal::bad("The path is not UTF-8, or it has a NUL.")),
    }
}

/// `application/x-www-form-urlencoded` (WHATWG URL, 5.1): `+` is a space, a `%` without two hexadecimal digits stays,
/// and bytes that are not UTF-8 are replaced by U+FFFD.
pub(super) fn decode_form(text: &str) -> String {
    String::from_utf8_lossy(&decode(&text.replace('+', " ")).0).into_owned()
}

/// What is not unreserved (RFC 3986, 2.3) is percent-encoded: the text can stand anywhere in a URL.
pub(crate) fn encode(text: &str) -> String {
    encode_all_but(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte), text)
}

pub(super) fn encode_all_but(is_plain: fn(&u8) -> bool, text: &str) -> String {
    let encode = |byte: u8| match is_plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// The bytes, and whether two hexadecimal digits follow each `%`.
fn decode(text: &str) -> (Vec<u8>, bool) {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (mut decoded, mut is_well_formed) = (Vec::with_capacity(text.len()), true);
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let digits = match after {
            [high, low, ..] if *byte == b'%' => digit(high).zip(digit(low)),
            _ => None,
        };
        decoded.push(digits.map_or(*byte, |(high, low)| (high << 4 | low) as u8));
        is_well_formed &= digits.is_some() || *byte != b'%';
        rest = if digits.is_some() { &after[2..] } else { after };
    }
    (decoded, is_well_formed)
}
