//! Whole requests, and bytes that are none.

/// Whole requests that are answered. The connection goes on behind them.
#[rustfmt::skip]
pub(super) const WHOLES_TAKEN: &[(u16, &[u8])] = &[
    // "A recipient MAY recognize a single LF as a line terminator" (RFC 9112, 2.2): people type.
    (200, b"GET /healthz HTTP/1.1\nHost: localhost\n\n"),
    (200, b"GET /healthz HTTP/1.1\nHost: localhost\r\n\n"),
    (200, b"GET /healthz HTTP/1.1\r\nHost: localhost\n\r\n"),
    (200, b"POST /channels/requests HTTP/1.1\nHost: localhost\nContent-Length: 5\n\nzebra"),
    // Empty lines before the request line
    (200, b"\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (200, b"\r\n\r\n\n\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    // HTTP/1.0 with keep-alive
    (200, b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    (200, b"GET /healthz HTTP/1.0\r\nConnection: TE, Keep-Alive\r\nHost: localhost\r\n\r\n"),
    (200, b"GET http://localhost/healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    // Content that no handler reads is skipped, whatever the method.
    (200, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nzebra"),
    (
        200,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nzebra\r\n0\r\n\r\n",
    ),
    (200, b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nzebra"),
    (204, b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nzebra"),
    (404, b"POST /zebra HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nzebra"),
    (
        405,
        b"DELETE /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nzebra\r\n0\r\nA: b\r\n\r\n",
    ),
];

/// Whole requests that are answered. The connection is closed behind them.
#[rustfmt::skip]
pub(super) const WHOLES_LAST: &[(u16, &[u8])] = &[
    (200, b"GET /healthz HTTP/1.0\r\n\r\n"),
    (200, b"GET /healthz HTTP/1.0\n\n"),
    (200, b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"),
    (200, b"GET /healthz HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n"),
    (200, b"HEAD /healthz HTTP/1.0\r\n\r\n"),
    (204, b"OPTIONS * HTTP/1.0\r\n\r\n"),
    (404, b"GET /zebra HTTP/1.0\r\n\r\n"),
    // "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that
    // expectation" (RFC 9110, 10.1.1).
    (200, b"GET /healthz HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"),
    (200, b"GET /healthz HTTP/1.0\r\nExpect: zebra\r\n\r\n"),
    (200, b"POST /channels/requests HTTP/1.0\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nzebra"),
    (400, b"POST /channels/requests HTTP/1.0\r\nHost: localhost\r\n\r\n"),
];

/// Bytes of other protocols, and requests that are none.
#[rustfmt::skip]
pub(super) const WHOLES_REFUSED: &[(u16, &[u8])] = &[
    // TLS: a ClientHello need not have an LF in it.
    (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03zebra"),
    (400, b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03zebra.example\x00\x0a\x00\x17"),
    (400, b"\x80\x2e\x01\x00\x02zebra"),
    // HTTP/2 with prior knowledge, RDP, SOCKS, SMB, the PROXY protocol in both versions
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    (400, b"\x03\x00\x00\x13\x0e\xe0\x00\x00zebra"),
    (400, b"\x05\x01\x00"),
    (400, b"\x04\x01\x00\x50zebra\x00"),
    (400, b"\x00\x00\x00\x85\xffSMBzebra"),
    (400, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /zebra HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (400, b"\r\n\r\n\x00\r\nQUIT\nzebra"),
    // Other protocols in lines
    (400, b"SSH-2.0-zebra\r\n"),
    (400, b"EHLO zebra\r\n"),
    (400, b"USER zebra\r\n"),
    (400, b"*1\r\n$5\r\nzebra\r\n"),
    (400, b"stats zebra\r\n"),
    (400, b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
    (400, b"INVITE sip:zebra@localhost SIP/2.0\r\n\r\n"),
    (400, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nzebra"),
    // Other text
    (400, b"{\"zebra\": 1}\r\n"),
    (400, b"<zebra/>\r\n"),
    (400, b"\xef\xbb\xbfGET /zebra HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (400, b"\xff\xfeG\0E\0T\0 \0/\0z\0\r\0\n\0"),
    (400, b"G\0E\0T\0 \0/\0 \0H\0T\0T\0P\0/\x001\0.\x001\0\r\0\n\0"),
    (400, b" \r\nGET /zebra HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (400, b"\0\0\0\0\0\0\0\0zebra"),
    (400, b"\x7fzebra"),
    // A bare CR is no line end.
    (400, b"GET /zebra HTTP/1.1\rHost: localhost\r\r\n"),
    (400, b"GET /zebra HTTP/1.1\n\rHost: localhost\n\r\n"),
    (400, b"\r\rGET /zebra HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    // HTTP/1.0 needs no Host, but two are refused, and so is a Host that is no host.
    (400, b"GET /zebra HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, b"GET /zebra HTTP/1.0\r\nHost: zebra/\r\n\r\n"),
    // "The server MUST NOT send content in the response" to HEAD (RFC 9110, 9.3.2), not even in a refusal.
    (400, b"HEAD /zebra HTTP/1.1\r\n\r\n"),
    (400, b"HEAD /zebra HTTP/1.1\r\nHost: zebra/\r\n\r\n"),
    // The target's host does not take the place of the field (RFC 9112, 3.2.2).
    (400, b"GET http://zebra.example/ HTTP/1.1\r\n\r\n"),
    // Transfer-Encoding in HTTP/1.0 is treated "as if the framing is faulty, even if a Content-Length is present" (6.1).
    (
        400,
        b"POST /channels/requests HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nzebra\r\n0\r\n\r\n",
    ),
    (
        400,
        b"POST /channels/requests HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\
          Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzebra",
    ),
];

/// Requests that a peer begins, and does not finish before it closes its sending half.
#[rustfmt::skip]
pub(super) const UNFINISHED: &[&[u8]] = &[
    b"G",
    b"GET /zebra HTTP/1.1",
    b"GET /zebra HTTP/1.1\r",
    b"GET /zebra HTTP/1.1\r\n",
    b"GET /zebra HTTP/1.1\r\nHost: local",
    b"GET /zebra HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /zebra HTTP/1.1\r\nHost: localhost\r\n\r",
    b"\r\nGET",
    b"POST /channels/requests HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nzebra",
    b"POST /channels/requests HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n",
    b"POST /channels/requests HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /channels/requests HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
      6\r\nzebra",
    b"POST /channels/requests HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
      5\r\nzebra\r\n0\r\n",
];
