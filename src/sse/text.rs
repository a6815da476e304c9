//! Bytes as text.

/// Bytes as text: base64 with padding (RFC 4648, 4).
///
/// ```
/// use newswire::sse::base64;
///
/// assert_eq!(base64(b"foobar"), "Zm9vYmFy");
/// assert_eq!(base64(b"foob"), "Zm9vYg==");
/// ```
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bytes = group.iter().zip([16, 8, 0]);
        let bits = bytes.fold(0, |bits, (&byte, shift)| bits | usize::from(byte) << shift);
        for sextet in 0..4 {
            let letter = ALPHABET[bits >> (18 - 6 * sextet) & 63];
            text.push(char::from(if sextet <= group.len() { letter } else { b'=' }));
        }
    }
    text
}
