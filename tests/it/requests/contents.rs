//! Contents and chunked codings (RFC 9112, 6 and 7).

/// Fields and content of a `POST` that publishes the content. The connection goes on behind it.
#[rustfmt::skip]
pub(super) const CONTENTS_TAKEN: &[(&[u8], &[u8])] = &[
    (b"Content-Length: 0", b""),
    (b"Content-Length: 5", b"zebra"),
    (b"content-length:5", b"zebra"),
    (b"Content-Length: 00000000000000000000000000005", b"zebra"),
    (b"Content-Length: 6", b"\r\n\r\n\r\n"),
    (b"Content-Length: 3", b"a\0b"),
    // Content that would be a request, if it were not content
    (b"Content-Length: 23", b"GET /zebra HTTP/1.1\r\n\r\n"),
    (b"Content-Length: 5\r\nX: y", b"0\r\n\r\n"),
    (b"Content-Length: 5\r\nExpect: 100-continue", b"zebra"),
    (b"Content-Length: 5\r\nContent-Encoding: identity", b"zebra"),
    (b"Content-Length: 5\r\nContent-Encoding: Identity, ,\r\nContent-Encoding:", b"zebra"),
    // Content-Range has a meaning for PUT only (RFC 9110, 14.4).
    (b"Content-Length: 5\r\nContent-Range: bytes 0-4/9", b"zebra"),
    // Some clients send a line end behind the content: "a server ... SHOULD ignore at least one empty line (CRLF) received
    // prior to the request-line" (RFC 9112, 2.2).
    (b"Content-Length: 5", b"zebra\r\n"),
];

/// Fields and content of a `POST` that is refused because of its content.
#[rustfmt::skip]
pub(super) const CONTENTS_REFUSED: &[(u16, &[u8], &[u8])] = &[
    // A POST without a length has no content, but its client has more likely forgotten the length, and the next bytes are
    // the content.
    (411, b"X: zebra", b""),
    (411, b"X: zebra", b"GET /zebra HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (413, b"Content-Length: 524289", b"zebra"),
    (413, b"Content-Length: 9223372036854775808", b"zebra"),
    (413, b"Content-Length: 18446744073709551615", b"zebra"),
    (413, b"Content-Length: 524289\r\nExpect: 100-continue", b""),
    (415, b"Content-Length: 5\r\nContent-Encoding: gzip\r\nExpect: 100-continue", b""),
];

/// A chunked coding, and the content that it encodes.
#[rustfmt::skip]
pub(super) const CHUNKS_TAKEN: &[(&[u8], &[u8])] = &[
    (b"0\r\n\r\n", b""),
    (b"5\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"2\r\nze\r\n3\r\nbra\r\n0\r\n\r\n", b"zebra"),
    (b"1\r\nz\r\n1\r\ne\r\n1\r\nb\r\n1\r\nr\r\n1\r\na\r\n0\r\n\r\n", b"zebra"),
    (b"a\r\n0123456789\r\nA\r\nabcdefghij\r\n0\r\n\r\n", b"0123456789abcdefghij"),
    (b"0000000000000005\r\nzebra\r\n000\r\n\r\n", b"zebra"),
    // Data that looks like what stands around it
    (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    // Extensions and trailers are dropped. "chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )"
    // (RFC 9112, 7.1.1), and "a recipient MUST parse for such bad whitespace and remove it" (RFC 9110, 5.6.3).
    (b"5;a\r\nzebra\r\n0;b\r\n\r\n", b"zebra"),
    (b"5;a=b;c=\"d;\t e\"\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"5;!#$%&'*+-.^_`|~09azAZ=!#$%&'*+-.^_`|~09azAZ\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"5 ;a\r\nzebra\r\n0\t;b\r\n\r\n", b"zebra"),
    (b"5 \t; a = b\t;\tc \t=\t \"d\" ; e\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"5;a=\"\"\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"5;a=\"\xe9 [=;,\"\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"5;a=\"\\\"\\\\\\x\\\xe9\\\t\";b\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"5\r\nzebra\r\n0\r\nA: b\r\n\r\n", b"zebra"),
    (b"5\r\nzebra\r\n0\r\nA: b\r\nC:\t\xe9 d\r\nE:\r\n\r\n", b"zebra"),
    (b"5\r\nzebra\r\n0\r\nContent-Length: 99\r\nHost: zebra\r\n\r\n", b"zebra"),
];

/// Bytes that are no chunked coding. Each CRLF must be one.
#[rustfmt::skip]
pub(super) const CHUNKS_REFUSED: &[(u16, &[u8])] = &[
    // Sizes
    (400, b"zebra\r\n"),
    (400, b"\r\nzebra\r\n0\r\n\r\n"),
    (400, b"-5\r\nzebra\r\n0\r\n\r\n"),
    (400, b"+5\r\nzebra\r\n0\r\n\r\n"),
    (400, b"0x5\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5h\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5.0\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5,5\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5_0\r\nzebra\r\n0\r\n\r\n"),
    (400, b"\"5\"\r\nzebra\r\n0\r\n\r\n"),
    (400, b" 5\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5 \r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\t\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5 5\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\x00\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\x0b\r\nzebra\r\n0\r\n\r\n"),
    (400, b"\xef\xbc\x95\r\nzebra\r\n0\r\n\r\n"),
    (400, b";a\r\nzebra\r\n0\r\n\r\n"),
    // A size beyond 64 bits
    (400, b"10000000000000005\r\nzebra\r\n0\r\n\r\n"),
    (400, b"10000000000000000\r\n\r\n"),
    (400, b"fffffffffffffffff\r\nzebra\r\n0\r\n\r\n"),
    // Extensions outside of the grammar: two programs could read the line in two ways.
    (400, b"5;\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5; \r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;;a\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a;\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a \r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a b\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a= \r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a==b\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=;b\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;=b\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5 =b\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5 a\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=b c\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=b \r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=b=c\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;bad[=x\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=x[\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=x\"y\"\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=\xe9\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;\"a\"\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=\"x\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=\"x\"y\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=\"x\" \r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=\"x\\\"\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=\"\\\x00\"\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=\"\x7f\"\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a=\"\n\"\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\r\nzebra\r\n0;\r\n\r\n"),
    // Line ends
    (400, b"5\nzebra\r\n0\r\n\r\n"),
    (400, b"5\rzebra\r\n0\r\n\r\n"),
    (400, b"5\r\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\n\rzebra\r\n0\r\n\r\n"),
    (400, b"5;a\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a\rb\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a\x00\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5;a\x7f\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\r\nzebra\n0\r\n\r\n"),
    (400, b"5\r\nzebra0\r\n\r\n"),
    (400, b"5\r\nzebra\r0\r\n\r\n"),
    (400, b"5\r\nzebra\r\n0\n\r\n"),
    (400, b"5\r\nzebra\r\n0\r\n\n"),
    (400, b"5\r\nzebra\r\n0\r\n\rzebra"),
    // More or less data than the size says
    (400, b"4\r\nzebra\r\n0\r\n\r\n"),
    (400, b"6\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\r\nzebra\r\n\r\n0\r\n\r\n"),
    // Trailers: "trailer-section = *( field-line CRLF )" (RFC 9112, 7.1.2). A program that does not read them as fields
    // finds the next request in them.
    (400, b"0\r\nA: b\nC: d\r\n\r\n"),
    (400, b"0\r\nA: b\rC: d\r\n\r\n"),
    (400, b"0\r\nA: \x00\r\n\r\n"),
    (400, b"0\r\nA: \x7f\r\n\r\n"),
    (400, b"0\r\nzebra\r\n\r\n"),
    (400, b"0\r\nGET /zebra HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (400, b"0\r\n: zebra\r\n\r\n"),
    (400, b"0\r\nA : zebra\r\n\r\n"),
    (400, b"0\r\n zebra\r\n\r\n"),
    (400, b"0\r\nA: b\r\n\tzebra\r\n\r\n"),
    (400, b"0\r\nA(b): zebra\r\n\r\n"),
];
