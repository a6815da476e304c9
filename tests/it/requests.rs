//! Raw requests and what becomes of each (RFC 9110, RFC 9112): tables of bytes, each fed to the
//! parser whole, at every prefix and with another request behind it, and to a server whole, byte by
//! byte and pipelined.
//!
//! Hostile bytes carry the word `zebra` wherever they can, and no answer may have it in it.

use crate::server::{Answer, Server, connect};
use newswire::http::Limits;
use newswire::http::{Chunks, Framing, Head};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Request lines, each in a request with a `Host` and nothing else, behind which the connection
/// goes on.
#[rustfmt::skip]
const LINES_TAKEN: &[(u16, &[u8])] = &[
    (200, b"GET /healthz HTTP/1.1"),
    (200, b"HEAD /healthz HTTP/1.1"),
    (200, b"GET / HTTP/1.1"),
    (200, b"HEAD / HTTP/1.1"),
    // A higher minor version is processed "as if it was in the highest minor version within that
    // major version to which the recipient is conformant" (RFC 9110, 2.5).
    (200, b"GET /healthz HTTP/1.2"),
    (200, b"GET /healthz HTTP/1.9"),
    // Absolute-form: "A server MUST accept the absolute-form in requests" (RFC 9112, 3.2.2).
    (200, b"GET http://localhost/healthz HTTP/1.1"),
    (200, b"GET HTTP://LOCALHOST:80/healthz HTTP/1.1"),
    (200, b"GET https://localhost/healthz HTTP/1.1"),
    (200, b"GET http://elsewhere.example/healthz HTTP/1.1"),
    (200, b"GET http://[::1]:8080/healthz HTTP/1.1"),
    (200, b"GET http://localhost HTTP/1.1"),
    (200, b"GET http://localhost?query HTTP/1.1"),
    (200, b"GET http://localhost:/healthz HTTP/1.1"),
    (204, b"OPTIONS http://localhost/healthz HTTP/1.1"),
    // Asterisk-form (3.2.4)
    (204, b"OPTIONS * HTTP/1.1"),
    (204, b"OPTIONS /healthz HTTP/1.1"),
    // A query means nothing here, so that there is none that is wrong.
    (200, b"GET /healthz? HTTP/1.1"),
    (200, b"GET /healthz?? HTTP/1.1"),
    (200, b"GET /healthz?a=b&c=%zz&&=&d HTTP/1.1"),
    (200, b"GET /healthz?next=http://x/../y?z HTTP/1.1"),
    (200, b"GET /healthz?%00%ff%0d%0a HTTP/1.1"),
    // Browsers send these as they are.
    (200, b"GET /healthz?{a}|[b]^'c'` HTTP/1.1"),
    // Percent-encoding, decoded once
    (200, b"GET /he%61lthz HTTP/1.1"),
    (200, b"GET /%68%65%61%6C%74%68%7a HTTP/1.1"),
    (200, b"GET http://localhost/%68ealthz HTTP/1.1"),
    (404, b"GET /he%2561lthz HTTP/1.1"),
    (404, b"GET /healthz%3Fa=b HTTP/1.1"),
    (404, b"GET /%F0%9F%A6%93/caf%C3%A9 HTTP/1.1"),
    // Other resources than the one they look like
    (404, b"GET /zebra HTTP/1.1"),
    (404, b"GET //healthz HTTP/1.1"),
    (404, b"GET //zebra.example/healthz HTTP/1.1"),
    (404, b"GET /healthz/ HTTP/1.1"),
    (404, b"GET /healthz/. HTTP/1.1"),
    (404, b"GET /Healthz HTTP/1.1"),
    (404, b"GET /healthz;zebra=1 HTTP/1.1"),
    (404, b"GET /:80 HTTP/1.1"),
    (404, b"GET /http://localhost/healthz HTTP/1.1"),
    (404, b"HEAD /zebra HTTP/1.1"),
    (404, b"POST /zebra HTTP/1.1"),
    (405, b"POST /healthz HTTP/1.1"),
    (405, b"PUT /healthz HTTP/1.1"),
    (405, b"DELETE /healthz HTTP/1.1"),
    (405, b"DELETE / HTTP/1.1"),
    // Ways out of the site
    (404, b"GET /../healthz HTTP/1.1"),
    (404, b"GET /./healthz HTTP/1.1"),
    (404, b"GET /zebra/../healthz HTTP/1.1"),
    (404, b"GET /zebra/../../../../etc/passwd HTTP/1.1"),
    (404, b"GET http://localhost/../../etc/passwd HTTP/1.1"),
    (404, b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1"),
    (404, b"GET /%2E%2E/zebra HTTP/1.1"),
    (404, b"GET /.%2e/zebra HTTP/1.1"),
    (404, b"GET /..%2f..%2fzebra HTTP/1.1"),
    (404, b"GET /%2e%2e%2fzebra HTTP/1.1"),
    (404, b"GET /..%5c..%5czebra HTTP/1.1"),
    (404, b"GET /..\\..\\zebra HTTP/1.1"),
    (404, b"GET /%252e%252e/zebra HTTP/1.1"),
    (404, b"GET /..;/zebra HTTP/1.1"),
    (404, b"GET /%2Fetc%2Fpasswd HTTP/1.1"),
    (404, b"GET ///etc/passwd HTTP/1.1"),
    (404, b"GET /%EF%BC%8E%EF%BC%8E/zebra HTTP/1.1"),
];

/// Request lines, as above, for which nothing behind them is read.
#[rustfmt::skip]
const LINES_REFUSED: &[(u16, &[u8])] = &[
    // HTTP/0.9, and less
    (400, b"GET /zebra"),
    (400, b"GET"),
    (400, b"zebra"),
    (400, b"GET HTTP/1.1"),
    (400, b"GET  HTTP/1.1"),
    (400, b"/zebra HTTP/1.1"),
    // One space each, and nothing else
    (400, b" GET /zebra HTTP/1.1"),
    (400, b"GET  /zebra HTTP/1.1"),
    (400, b"GET /zebra  HTTP/1.1"),
    (400, b"GET /zebra HTTP/1.1 "),
    (400, b"GET /zebra HTTP/1.1\t"),
    (400, b"GET /a zebra HTTP/1.1"),
    (400, b"GET /zebra HTTP/1.1 HTTP/1.1"),
    (400, b"GET\t/zebra HTTP/1.1"),
    (400, b"GET /zebra\tHTTP/1.1"),
    (400, b"GET\x0b/zebra HTTP/1.1"),
    (400, b"GET\x0c/zebra HTTP/1.1"),
    (400, b"GET\x00/zebra HTTP/1.1"),
    (400, b"GET\xa0/zebra HTTP/1.1"),
    (400, b"GET \r/zebra HTTP/1.1"),
    (400, b"GET /zebra\r HTTP/1.1"),
    (400, b"GET /zebra HTTP/1.1\r"),
    (400, b"\rGET /zebra HTTP/1.1"),
    // Targets
    (400, b"GET zebra HTTP/1.1"),
    (400, b"GET ?zebra HTTP/1.1"),
    (400, b"GET ../zebra HTTP/1.1"),
    (400, b"GET \\zebra HTTP/1.1"),
    (400, b"GET localhost:80 HTTP/1.1"),
    (400, b"GET * HTTP/1.1"),
    (400, b"OPTIONS *zebra HTTP/1.1"),
    (400, b"OPTIONS ** HTTP/1.1"),
    (400, b"GET /zebra#fragment HTTP/1.1"),
    (400, b"GET /z\x00ebra HTTP/1.1"),
    (400, b"GET /z\x01ebra HTTP/1.1"),
    (400, b"GET /z\x1bebra HTTP/1.1"),
    (400, b"GET /zebra\x7f HTTP/1.1"),
    (400, b"GET /caf\xe9/zebra HTTP/1.1"),
    (400, b"GET /caf\xc3\xa9/zebra HTTP/1.1"),
    (400, b"GET /zebra?caf\xe9 HTTP/1.1"),
    (400, b"GET ftp://localhost/zebra HTTP/1.1"),
    (400, b"GET file:///etc/passwd HTTP/1.1"),
    (400, b"GET ://localhost/zebra HTTP/1.1"),
    (400, b"GET http:/zebra HTTP/1.1"),
    (400, b"GET http:zebra HTTP/1.1"),
    (400, b"GET http:// HTTP/1.1"),
    (400, b"GET http:///zebra HTTP/1.1"),
    (400, b"GET http://:80/zebra HTTP/1.1"),
    (400, b"GET http://zebra@localhost/ HTTP/1.1"),
    (400, b"GET http://localhost:zebra/ HTTP/1.1"),
    (400, b"GET http://localhost:80:80/zebra HTTP/1.1"),
    (400, b"GET http://[::1/zebra HTTP/1.1"),
    (400, b"GET http://[::1]zebra/ HTTP/1.1"),
    (400, b"GET http://[zebra]/ HTTP/1.1"),
    (400, b"GET http://localhost\\zebra/ HTTP/1.1"),
    (400, b"GET http://%zz/zebra HTTP/1.1"),
    (400, b"GET http://zebra%/ HTTP/1.1"),
    // Percent-encoding that encodes nothing, or what no path has
    (400, b"GET /zebra% HTTP/1.1"),
    (400, b"GET /zebra%2 HTTP/1.1"),
    (400, b"GET /%2/zebra HTTP/1.1"),
    (400, b"GET /%zzebra HTTP/1.1"),
    (400, b"GET /%+1/zebra HTTP/1.1"),
    (400, b"GET /%u002e/zebra HTTP/1.1"),
    (400, b"GET /zebra%00 HTTP/1.1"),
    (400, b"GET /healthz%00.html HTTP/1.1"),
    (400, b"GET /%ff/zebra HTTP/1.1"),
    (400, b"GET /%c0%ae%c0%ae/zebra HTTP/1.1"),
    (400, b"GET /%e0%80%ae/zebra HTTP/1.1"),
    (400, b"GET /%ed%a0%80/zebra HTTP/1.1"),
    // Versions
    (400, b"GET /zebra HTTP/1.1zebra"),
    (400, b"GET /zebra HTTP/1.10"),
    (400, b"GET /zebra HTTP/01.1"),
    (400, b"GET /zebra HTTP/1.1.1"),
    (400, b"GET /zebra HTTP/1"),
    (400, b"GET /zebra HTTP/1."),
    (400, b"GET /zebra HTTP/.1"),
    (400, b"GET /zebra HTTP/11"),
    (400, b"GET /zebra HTTP/1,1"),
    (400, b"GET /zebra HTTP/1.x"),
    (400, b"GET /zebra HTTP/-1.1"),
    (400, b"GET /zebra HTTP/+1.1"),
    (400, b"GET /zebra HTTP/ 1.1"),
    (400, b"GET /zebra HTTP/"),
    (400, b"GET /zebra HTTP"),
    (400, b"GET /zebra http/1.1"),
    (400, b"GET /zebra Http/1.1"),
    (400, b"GET /zebra HTTPS/1.1"),
    (400, b"GET /zebra XHTTP/1.1"),
    (400, b"GET /zebra HTTP\\1.1"),
    (400, b"GET /zebra HTTP/\xef\xbc\x91.1"),
    (400, b"GET /zebra HTTP/1.1\x00"),
    (400, b"GET /zebra HTTP/1.1\x0b"),
    (400, b"GET /zebra HTTP/2"),
    (505, b"GET /zebra HTTP/0.9"),
    (505, b"GET /zebra HTTP/0.0"),
    (505, b"GET /zebra HTTP/2.0"),
    (505, b"GET /zebra HTTP/3.0"),
    (505, b"GET /zebra HTTP/9.9"),
    (505, b"PRI * HTTP/2.0"),
    // Methods: unknown ones, which are case-sensitive (RFC 9110, 9.1), and none
    (501, b"CONNECT localhost:80 HTTP/1.1"),
    (501, b"TRACE /zebra HTTP/1.1"),
    (501, b"PATCH /zebra HTTP/1.1"),
    (501, b"ZEBRA / HTTP/1.1"),
    (501, b"get /zebra HTTP/1.1"),
    (501, b"Get /zebra HTTP/1.1"),
    (501, b"GETGET /zebra HTTP/1.1"),
    (501, b"GET1 /zebra HTTP/1.1"),
    (501, b"G /zebra HTTP/1.1"),
    (501, b"M-SEARCH * HTTP/1.1"),
    (501, b"!#$%&'*+-.^_`|~0aZ /zebra HTTP/1.1"),
    (400, b"G(ET /zebra HTTP/1.1"),
    (400, b"GET: /zebra HTTP/1.1"),
    (400, b"GET, /zebra HTTP/1.1"),
    (400, b"\"GET\" /zebra HTTP/1.1"),
    (400, b"<zebra> / HTTP/1.1"),
    (400, b"[GET] /zebra HTTP/1.1"),
    (400, b"G@T /zebra HTTP/1.1"),
    (400, b"G/ET /zebra HTTP/1.1"),
    (400, b"G\xc3\x89T /zebra HTTP/1.1"),
    (400, b"GE\x00T /zebra HTTP/1.1"),
    (400, b"GE\x7fT /zebra HTTP/1.1"),
];

/// Field lines of a `GET /healthz HTTP/1.1` that is answered, and behind which the connection goes
/// on.
#[rustfmt::skip]
const FIELDS_TAKEN: &[&[u8]] = &[
    b"Host: localhost\r\n",
    b"host:localhost\r\n",
    b"HOST: \t localhost \t \r\n",
    b"Host: localhost\n",
    b"Host: localhost\nAccept: */*\r\nX: y\n",
    // "If the authority component is missing or undefined for the target URI, then a client MUST
    // send a Host header field with an empty field-value" (RFC 9112, 3.2).
    b"Host:\r\n",
    b"Host: \r\n",
    b"Host: localhost:\r\n",
    b"Host: localhost:65535\r\n",
    b"Host: 127.0.0.1:8080\r\n",
    b"Host: [::1]\r\n",
    b"Host: [::1]:8080\r\n",
    b"Host: [::ffff:127.0.0.1]:80\r\n",
    b"Host: xn--bcher-kva.example.\r\n",
    b"Host: a_b.example\r\n",
    b"Host: %c3%bc.example\r\n",
    b"X-Before: y\r\nHost: localhost\r\n",
    // Values may have obs-text, tabs, any visible character, and nothing at all.
    b"Host: localhost\r\nX: caf\xe9 \xff\x80 caf\xc3\xa9\r\n",
    b"Host: localhost\r\nX: a\tb  c:d;e,\"f\\\"\r\n",
    b"Host: localhost\r\nX:\r\nY: \t \r\n",
    b"Host: localhost\r\nX: :y:\r\n",
    b"Host: localhost\r\nX: Host: zebra\r\n",
    b"Host: localhost\r\n!#$%&'*+-.^_`|~09azAZ: every tchar\r\n",
    b"Host: localhost\r\nX: y\r\nX: y\r\nx: z\r\n",
    b"Host: localhost\r\n0: y\r\n",
    // Other names than those they look like
    b"Host: localhost\r\nX-Host: zebra\r\nHosts: zebra\r\nHos: zebra\r\n",
    b"Host: localhost\r\nContent_Length: 5\r\nX-Content-Length: 5\r\nContent-Lengthx: 5\r\n",
    b"Host: localhost\r\nTransfer_Encoding: chunked\r\nTE: trailers\r\nX-TE: chunked\r\n",
    // The connection's own
    b"Host: localhost\r\nConnection: keep-alive\r\n",
    b"Host: localhost\r\nConnection: closed, close-not, TE\r\nKeep-Alive: close\r\n",
    b"Host: localhost\r\nConnection:\r\n",
    b"Host: localhost\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\nHTTP2-Settings: AA\r\n",
    b"Host: localhost\r\nProxy-Connection: close\r\n",
    // No content, said so
    b"Host: localhost\r\nContent-Length: 0\r\n",
    b"Host: localhost\r\nContent-Length:0\r\n",
    b"Host: localhost\r\nContent-Length: \t000 \r\n",
    // An expectation of who sends no content is met.
    b"Host: localhost\r\nExpect: 100-continue\r\n",
    b"Host: localhost\r\nExpect: 100-CONTINUE\r\nContent-Length: 0\r\n",
];

/// Field lines of a `GET /healthz HTTP/1.1` that is answered and then closed, as it asks.
#[rustfmt::skip]
const FIELDS_LAST: &[&[u8]] = &[
    b"Host: localhost\r\nConnection: close\r\n",
    b"Host: localhost\r\nconnection:CLOSE\r\n",
    b"Host: localhost\r\nConnection: keep-alive, close\r\n",
    b"Host: localhost\r\nConnection: TE ,\tClose\t, x\r\n",
    b"Host: localhost\r\nConnection: keep-alive\r\nConnection: close\r\n",
];

/// Field lines of a `GET /healthz HTTP/1.1` that is refused. What stands behind it is never read.
#[rustfmt::skip]
const FIELDS_REFUSED: &[(u16, &[u8])] = &[
    // "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a
    // Host header field and to any request message that contains more than one Host header field
    // line or a Host header field with an invalid field value" (RFC 9112, 3.2).
    (400, b""),
    (400, b"X: zebra\r\n"),
    (400, b"X-Host: zebra\r\n"),
    (400, b"Host: zebra\r\nHost: zebra\r\n"),
    (400, b"Host: localhost\r\nX: y\r\nhOsT: zebra\r\n"),
    (400, b"Host:\r\nHost: zebra\r\n"),
    (400, b"Host: zebra, localhost\r\n"),
    (400, b"Host: local zebra\r\n"),
    (400, b"Host: local\tzebra\r\n"),
    (400, b"Host: zebra/\r\n"),
    (400, b"Host: zebra\\\r\n"),
    (400, b"Host: /\r\n"),
    (400, b"Host: http://zebra\r\n"),
    (400, b"Host: zebra@localhost\r\n"),
    (400, b"Host: zebra?\r\n"),
    (400, b"Host: zebra#\r\n"),
    (400, b"Host: <zebra>\r\n"),
    (400, b"Host: \"zebra\"\r\n"),
    (400, b"Host: :80\r\n"),
    (400, b"Host: localhost:zebra\r\n"),
    (400, b"Host: localhost:-80\r\n"),
    (400, b"Host: localhost: 80\r\n"),
    (400, b"Host: localhost :80\r\n"),
    (400, b"Host: localhost:80:80\r\n"),
    (400, b"Host: localhost:0x50\r\n"),
    (400, b"Host: ::1\r\n"),
    (400, b"Host: [::1\r\n"),
    (400, b"Host: ::1]\r\n"),
    (400, b"Host: []\r\n"),
    (400, b"Host: [zebra]\r\n"),
    (400, b"Host: [::1]zebra\r\n"),
    (400, b"Host: [::1]:zebra\r\n"),
    (400, b"Host: [::1]]\r\n"),
    (400, b"Host: [dead]\r\n"),
    (400, b"Host: [:::1]\r\n"),
    (400, b"Host: %zz\r\n"),
    (400, b"Host: zebra%\r\n"),
    (400, b"Host: zebra%4\r\n"),
    (400, b"Host: z\xe9bra\r\n"),
    (400, b"Host: z\xc3\xa9bra\r\n"),
    (400, b"Host: zebra\x00\r\n"),
    (400, b"Host: zebra\x0b\r\n"),
    // obs-fold, and whitespace before the first field
    (400, b"Host: localhost\r\n zebra\r\n"),
    (400, b"Host: localhost\r\nX: y\r\n\tzebra\r\n"),
    (400, b"Host: localhost\r\n Content-Length: 5\r\n"),
    (400, b" Host: localhost\r\n"),
    (400, b"\tzebra\r\nHost: localhost\r\n"),
    (400, b"Host: localhost\r\n \r\n"),
    (400, b"Host: localhost\r\n\t\r\n"),
    // "No whitespace is allowed between the field name and colon" (RFC 9112, 5.1).
    (400, b"Host : localhost\r\n"),
    (400, b"Host\t: localhost\r\n"),
    (400, b"Host: localhost\r\nX : zebra\r\n"),
    (400, b"Host: localhost\r\nX zebra: y\r\n"),
    (400, b"Host: localhost\r\nContent-Length : 0\r\n"),
    (400, b"Host: localhost\r\nX\x0b: zebra\r\n"),
    (400, b"Host: localhost\r\nX\xa0: zebra\r\n"),
    // Names that are no tokens
    (400, b"Host: localhost\r\nzebra\r\n"),
    (400, b"Host: localhost\r\nGET /zebra HTTP/1.1\r\n"),
    (400, b"Host: localhost\r\n: zebra\r\n"),
    (400, b"Host: localhost\r\n:\r\n"),
    (400, b"Host: localhost\r\nX(zebra): y\r\n"),
    (400, b"Host: localhost\r\nX[0]: zebra\r\n"),
    (400, b"Host: localhost\r\nX{zebra}: y\r\n"),
    (400, b"Host: localhost\r\n\"X\": zebra\r\n"),
    (400, b"Host: localhost\r\nX,Y: zebra\r\n"),
    (400, b"Host: localhost\r\nX;Y: zebra\r\n"),
    (400, b"Host: localhost\r\nX=Y: zebra\r\n"),
    (400, b"Host: localhost\r\nX/Y: zebra\r\n"),
    (400, b"Host: localhost\r\nX@Y: zebra\r\n"),
    (400, b"Host: localhost\r\n<X>: zebra\r\n"),
    (400, b"Host: localhost\r\nX\\Y: zebra\r\n"),
    (400, b"Host: localhost\r\nX\x00: zebra\r\n"),
    (400, b"Host: localhost\r\n\x00X: zebra\r\n"),
    (400, b"Host: localhost\r\nX\x1f: zebra\r\n"),
    (400, b"Host: localhost\r\nX\x7f: zebra\r\n"),
    (400, b"Host: localhost\r\nX\xe9: zebra\r\n"),
    (400, b"Host: localhost\r\n\xef\xbb\xbfX: zebra\r\n"),
    // "Field values containing CR, LF, or NUL characters are invalid and dangerous" (RFC 9110,
    // 5.5), and the other control characters have no place in one either.
    (400, b"Host: localhost\r\nX: zebra\x00\r\n"),
    (400, b"Host: localhost\r\nX: \x00zebra\r\n"),
    (400, b"Host: localhost\r\nX: zebra\x01\r\n"),
    (400, b"Host: localhost\r\nX: zebra\x08\r\n"),
    (400, b"Host: localhost\r\nX: zebra\x0b\r\n"),
    (400, b"Host: localhost\r\nX: zebra\x0c\r\n"),
    (400, b"Host: localhost\r\nX: zebra\x1b[2J\r\n"),
    (400, b"Host: localhost\r\nX: zebra\x1f\r\n"),
    (400, b"Host: localhost\r\nX: zebra\x7f\r\n"),
    // "A sender MUST NOT generate a bare CR"; who takes one for a line end sees another field.
    (400, b"Host: localhost\r\nX: y\rzebra: z\r\n"),
    (400, b"Host: localhost\r\nX: y\r\rzebra: z\r\n"),
    (400, b"Host: localhost\r\nX: zebra\r\r\n"),
    (400, b"Host: localhost\r\n\rX: zebra\r\n"),
    (400, b"Host: localhost\r\nX\r: zebra\r\n"),
    (400, b"Host: localhost\r\nX:\rzebra\r\n"),
    (400, b"Host: localhost\r\nX: y\r\n\r\r\n"),
    // More than one length, though they agree: "1*DIGIT" and nothing else (RFC 9112, 6.3).
    (400, b"Host: localhost\r\nContent-Length: 5\r\nContent-Length: 5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 0\r\nContent-Length: 5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5\r\nX: y\r\ncontent-length: 6\r\n"),
    (400, b"Host: localhost\r\nContent-Length:\r\nContent-Length: 5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5, 5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5, 6\r\n"),
    (400, b"Host: localhost\r\nContent-Length: ,5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5,\r\n"),
    (400, b"Host: localhost\r\nContent-Length:\r\n"),
    (400, b"Host: localhost\r\nContent-Length: \t \r\n"),
    (400, b"Host: localhost\r\nContent-Length: +5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: -5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: -0\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 0x5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5h\r\n"),
    (400, b"Host: localhost\r\nContent-Length: a\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5.0\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5e0\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5 5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5;zebra\r\n"),
    (400, b"Host: localhost\r\nContent-Length: \"5\"\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 1_000\r\n"),
    (400, b"Host: localhost\r\nContent-Length: zebra\r\n"),
    (400, b"Host: localhost\r\nContent-Length: \x0b5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5\x00\r\n"),
    (400, b"Host: localhost\r\nContent-Length: \xa05\r\n"),
    (400, b"Host: localhost\r\nContent-Length: \xef\xbc\x95\r\n"),
    (400, b"Host: localhost\r\nContent-Length: \xd9\xa5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: \xb2\r\n"),
    (413, b"Host: localhost\r\nContent-Length: 18446744073709551616\r\n"),
    (413, b"Host: localhost\r\nContent-Length: 18446744073709551621\r\n"),
    (413, b"Host: localhost\r\nContent-Length: 99999999999999999999999999999999999999\r\n"),
    // Transfer-Encoding together with Content-Length, in any order
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    (400, b"Host: localhost\r\nContent-Length: 0\r\ntransfer-encoding:chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n"),
    (400, b"Host: localhost\r\nContent-Length: zebra\r\nTransfer-Encoding: chunked\r\n"),
    // "If a Transfer-Encoding header field is present in a request and the chunked transfer coding
    // is not the final encoding, the message body length cannot be determined reliably; the server
    // MUST respond with the 400 (Bad Request) status code and then close the connection" (RFC 9112,
    // 6.3), and "a sender MUST NOT apply the chunked transfer coding more than once" (6.1).
    (400, b"Host: localhost\r\nTransfer-Encoding: identity\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: gzip\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked, gzip\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked, identity\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked, chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: zebra\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked, gzip, chunked\r\n"),
    // What one of two programs takes for chunked
    (400, b"Host: localhost\r\nTransfer-Encoding:\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: ,\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: ,chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked,\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: xchunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunkedzebra\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunk\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chun ked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked zebra\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: \"chunked\"\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: 'chunked'\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: (chunked)\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: [chunked]\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked;\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked;q=zebra\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked=zebra\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: :chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: \x0bchunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: \x0cchunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked\x0c\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked\x00\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: \x00chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: \x1fchunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: \xa0chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked\xc2\xa0\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: \xc2\x85chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: \xff\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chun\xe2\x84\xaaed\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding: chunked\r\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding:\r\n chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding\r\n: chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding : chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding\t: chunked\r\n"),
    (400, b"Host: localhost\r\nTransfer-Encoding\x0b: chunked\r\n"),
    (400, b"Host: localhost\r\n Transfer-Encoding: chunked\r\n"),
    (400, b"Host: localhost\r\nX: y\rTransfer-Encoding: chunked\r\n"),
    (400, b"Host: localhost\r\nX: y\n Transfer-Encoding: chunked\r\n"),
    // "A server that receives a request message with a transfer coding it does not understand
    // SHOULD respond with 501" (RFC 9112, 6.1).
    (501, b"Host: localhost\r\nTransfer-Encoding: gzip, chunked\r\n"),
    (501, b"Host: localhost\r\nTransfer-Encoding: zebra\r\nTransfer-Encoding: chunked\r\n"),
    (501, b"Host: localhost\r\nTransfer-Encoding: identity, chunked\r\n"),
    // Expectations
    (417, b"Host: localhost\r\nExpect: zebra\r\n"),
    (417, b"Host: localhost\r\nExpect: 100-continue, zebra\r\n"),
    (417, b"Host: localhost\r\nExpect: 100-continue\r\nExpect: zebra\r\n"),
    (417, b"Host: localhost\r\nExpect: 100-continue=zebra\r\n"),
    (417, b"Host: localhost\r\nExpect: 200-ok\r\n"),
];

/// Fields and content of a `POST` that publishes it, and behind which the connection goes on.
#[rustfmt::skip]
const CONTENTS_TAKEN: &[(&[u8], &[u8])] = &[
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
    // Who cannot count sends a line end more: "a server ... SHOULD ignore at least one empty line
    // (CRLF) received prior to the request-line" (RFC 9112, 2.2).
    (b"Content-Length: 5", b"zebra\r\n"),
];

/// Fields and content of a `POST` that is refused because of its content.
#[rustfmt::skip]
const CONTENTS_REFUSED: &[(u16, &[u8], &[u8])] = &[
    // Without a length there is no content, but who posts without one has forgotten it, and what
    // comes next may well be it.
    (411, b"X: zebra", b""),
    (411, b"X: zebra", b"GET /zebra HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (413, b"Content-Length: 524289", b"zebra"),
    (413, b"Content-Length: 9223372036854775808", b"zebra"),
    (413, b"Content-Length: 18446744073709551615", b"zebra"),
    (413, b"Content-Length: 524289\r\nExpect: 100-continue", b""),
];

/// The chunked coding, and the content that it is of.
#[rustfmt::skip]
const CHUNKS_TAKEN: &[(&[u8], &[u8])] = &[
    (b"0\r\n\r\n", b""),
    (b"5\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"2\r\nze\r\n3\r\nbra\r\n0\r\n\r\n", b"zebra"),
    (b"1\r\nz\r\n1\r\ne\r\n1\r\nb\r\n1\r\nr\r\n1\r\na\r\n0\r\n\r\n", b"zebra"),
    (b"a\r\n0123456789\r\nA\r\nabcdefghij\r\n0\r\n\r\n", b"0123456789abcdefghij"),
    (b"0000000000000005\r\nzebra\r\n000\r\n\r\n", b"zebra"),
    // Data that looks like what stands around it
    (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    // Extensions and trailers are dropped.
    (b"5;\r\nzebra\r\n0;\r\n\r\n", b"zebra"),
    (b"5;a\r\nzebra\r\n0;b\r\n\r\n", b"zebra"),
    (b"5;a=b;c=\"d;\t e\"\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"5;a=\xe9\r\nzebra\r\n0\r\n\r\n", b"zebra"),
    (b"5\r\nzebra\r\n0\r\nA: b\r\n\r\n", b"zebra"),
    (b"5\r\nzebra\r\n0\r\nA: b\r\nC:\t\xe9 d\r\nE:\r\n\r\n", b"zebra"),
    (b"5\r\nzebra\r\n0\r\nContent-Length: 99\r\nHost: zebra\r\n\r\n", b"zebra"),
];

/// What is no chunked coding. Every CRLF must be one.
#[rustfmt::skip]
const CHUNKS_REFUSED: &[(u16, &[u8])] = &[
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
    (400, b"5\t;a\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\x00\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\x0b\r\nzebra\r\n0\r\n\r\n"),
    (400, b"\xef\xbc\x95\r\nzebra\r\n0\r\n\r\n"),
    (400, b";a\r\nzebra\r\n0\r\n\r\n"),
    // They do not wrap around.
    (400, b"10000000000000005\r\nzebra\r\n0\r\n\r\n"),
    (400, b"10000000000000000\r\n\r\n"),
    (400, b"fffffffffffffffff\r\nzebra\r\n0\r\n\r\n"),
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
    // More or less data than was said
    (400, b"4\r\nzebra\r\n0\r\n\r\n"),
    (400, b"6\r\nzebra\r\n0\r\n\r\n"),
    (400, b"5\r\nzebra\r\n\r\n0\r\n\r\n"),
    // Trailers: "trailer-section = *( field-line CRLF )" (RFC 9112, 7.1.2). Who does not read them
    // as fields finds the next request in them.
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

/// Whole requests that are answered, and behind which the connection goes on.
#[rustfmt::skip]
const WHOLES_TAKEN: &[(u16, &[u8])] = &[
    // "A recipient MAY recognize a single LF as a line terminator" (RFC 9112, 2.2): people type.
    (200, b"GET /healthz HTTP/1.1\nHost: localhost\n\n"),
    (200, b"GET /healthz HTTP/1.1\nHost: localhost\r\n\n"),
    (200, b"GET /healthz HTTP/1.1\r\nHost: localhost\n\r\n"),
    (200, b"POST /channels/requests HTTP/1.1\nHost: localhost\nContent-Length: 5\n\nzebra"),
    // Empty lines before the request line
    (200, b"\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (200, b"\r\n\r\n\n\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    // HTTP/1.0 that asks for it
    (200, b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    (200, b"GET /healthz HTTP/1.0\r\nConnection: TE, Keep-Alive\r\nHost: localhost\r\n\r\n"),
    (200, b"GET http://localhost/healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    // Content that no handler wants is skipped, whatever the method.
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

/// Whole requests that are answered, and behind which the connection is closed.
#[rustfmt::skip]
const WHOLES_LAST: &[(u16, &[u8])] = &[
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

/// Whole conversations of other kinds, and requests that are none. All of them end in a line end,
/// which some need to be judged.
#[rustfmt::skip]
const WHOLES_REFUSED: &[(u16, &[u8])] = &[
    // TLS: the beginning of a ClientHello, which need not have an LF in it
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
    // Text that is no request in other ways
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
    // HTTP/1.0 needs no Host, but it may not have two, and what it has must be one.
    (400, b"GET /zebra HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, b"GET /zebra HTTP/1.0\r\nHost: zebra/\r\n\r\n"),
    // Whatever is wrong with it: "the server MUST NOT send content in the response" to HEAD (RFC
    // 9110, 9.3.2).
    (400, b"HEAD /zebra HTTP/1.1\r\n\r\n"),
    (400, b"HEAD /zebra HTTP/1.1\r\nHost: zebra/\r\n\r\n"),
    // The target's host does not take the place of the field (RFC 9112, 3.2.2).
    (400, b"GET http://zebra.example/ HTTP/1.1\r\n\r\n"),
    // Transfer-Encoding in HTTP/1.0 is "as if the framing is faulty, even if a Content-Length is
    // present" (6.1).
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

/// What a peer says before it closes its writing half in the middle of it.
#[rustfmt::skip]
const UNFINISHED: &[&[u8]] = &[
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

/// The request behind each of them. It is answered with [`NEXT_CONTENT`], and then there is no
/// more.
const NEXT: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const NEXT_CONTENT: &str = "ok\n";

struct Case {
    wire: Vec<u8>,
    status: u16,
    /// Whether it is the head that is refused, which the parser can say by itself.
    by_its_head: bool,
    /// Whether the request behind it is answered.
    goes_on: bool,
}

impl Case {
    fn taken(status: u16, parts: &[&[u8]]) -> Case {
        Case { wire: parts.concat(), status, by_its_head: false, goes_on: true }
    }

    fn last(status: u16, parts: &[&[u8]]) -> Case {
        Case { goes_on: false, ..Case::taken(status, parts) }
    }

    fn refused(status: u16, parts: &[&[u8]]) -> Case {
        Case { by_its_head: true, ..Case::last(status, parts) }
    }

    fn method(&self) -> &'static str {
        if self.wire.starts_with(b"HEAD ") { "HEAD" } else { "GET" }
    }

    fn label(&self) -> String {
        let shown = &self.wire[..self.wire.len().min(160)];
        format!("{} for {}", self.status, shown.escape_ascii())
    }
}

fn cases() -> Vec<Case> {
    const END: &[u8] = b"\r\nHost: localhost\r\n\r\n";
    const GET: &[u8] = b"GET /healthz HTTP/1.1\r\n";
    const POST: &[u8] = b"POST /channels/requests HTTP/1.1\r\nHost: localhost\r\n";
    const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n\r\n";
    let mut cases = Vec::new();

    let lines = LINES_TAKEN.iter();
    cases.extend(lines.map(|(status, line)| Case::taken(*status, &[line, END])));
    let lines = LINES_REFUSED.iter();
    cases.extend(lines.map(|(status, line)| Case::refused(*status, &[line, END])));

    let fields = FIELDS_TAKEN.iter();
    cases.extend(fields.map(|fields| Case::taken(200, &[GET, fields, b"\r\n"])));
    let fields = FIELDS_LAST.iter();
    cases.extend(fields.map(|fields| Case::last(200, &[GET, fields, b"\r\n"])));
    let fields = FIELDS_REFUSED.iter();
    cases.extend(fields.map(|(status, fields)| Case::refused(*status, &[GET, fields, b"\r\n"])));

    let contents = CONTENTS_TAKEN.iter();
    cases.extend(
        contents.map(|(fields, content)| Case::taken(200, &[POST, fields, b"\r\n\r\n", content])),
    );
    let contents = CONTENTS_REFUSED.iter();
    cases.extend(contents.map(|(status, fields, content)| {
        Case::last(*status, &[POST, fields, b"\r\n\r\n", content])
    }));
    let chunks = CHUNKS_TAKEN.iter();
    cases.extend(chunks.map(|(chunks, _)| Case::taken(200, &[POST, CHUNKED, chunks])));
    let chunks = CHUNKS_REFUSED.iter();
    cases.extend(chunks.map(|(status, chunks)| Case::last(*status, &[POST, CHUNKED, chunks])));

    let wholes = WHOLES_TAKEN.iter();
    cases.extend(wholes.map(|(status, whole)| Case::taken(*status, &[whole])));
    let wholes = WHOLES_LAST.iter();
    cases.extend(wholes.map(|(status, whole)| Case::last(*status, &[whole])));
    let wholes = WHOLES_REFUSED.iter();
    cases.extend(wholes.map(|(status, whole)| Case::refused(*status, &[whole])));

    cases.extend(large_cases());
    cases
}

/// Requests at their limits, and one beyond.
fn large_cases() -> Vec<Case> {
    const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
    const LINE_END: &[u8] = b" HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const POST: &[u8] = b"POST /channels/requests HTTP/1.1\r\nHost: localhost\r\n";
    let limits = Limits::default();
    let z = |count: usize| vec![b'z'; count];
    let fields = |count: usize| b"X: y\r\n".repeat(count - 1);
    // "Host" and this field, and all around it, in exactly so many bytes
    let field = |head: usize| [b"X: ", &z(head - GET.len() - 7)[..], b"\r\n"].concat();
    let bare_cr = |count| [b"zebra\r", &z(count)[..]].concat();
    let chunked: &[u8] = b"Transfer-Encoding: chunked\r\n\r\n";
    vec![
        // "It is RECOMMENDED that all HTTP senders and recipients support, at a minimum,
        // request-line lengths of 8000 octets" (RFC 9112, 3).
        Case::taken(200, &[b"GET /healthz?", &z(8000), LINE_END]),
        Case::taken(404, &[b"GET /", &z(limits.target_bytes - 1), LINE_END]),
        Case::refused(414, &[b"GET /", &z(limits.target_bytes), LINE_END]),
        Case::refused(414, &[b"GET /?", &z(2 * limits.head_bytes), LINE_END]),
        Case::refused(414, &[b"GET http://localhost/", &z(limits.target_bytes), LINE_END]),
        Case::refused(414, &[b"GET /", &z(2 * limits.target_bytes)]),
        Case::refused(501, &[&z(500), b" /", LINE_END]),
        // The limit of the head
        Case::taken(200, &[GET, &field(limits.head_bytes), b"\r\n"]),
        Case::refused(431, &[GET, &field(limits.head_bytes + 1), b"\r\n"]),
        Case::refused(431, &[GET, &field(2 * limits.head_bytes), b"\r\n"]),
        Case::refused(431, &[GET, b"X: ", &z(limits.head_bytes)]),
        Case::refused(431, &[GET, &z(limits.head_bytes)]),
        Case::refused(431, &[&b"\r\n".repeat(limits.head_bytes), GET, b"\r\n"]),
        Case::refused(431, &[&b"\n".repeat(limits.head_bytes + 1)]),
        // The number of fields
        Case::taken(200, &[GET, &fields(limits.fields), b"\r\n"]),
        Case::refused(431, &[GET, &fields(limits.fields + 1), b"\r\n"]),
        Case::refused(431, &[GET, &b"a:\n".repeat(2_000), b"\r\n"]),
        // A bare CR is one however much comes behind it.
        Case::refused(400, &[b"GET /", &bare_cr(2 * limits.target_bytes), LINE_END]),
        Case::refused(400, &[GET, b"X: ", &bare_cr(limits.head_bytes), b"\r\n\r\n"]),
        // What is dropped of a chunked content is bounded too.
        Case::last(431, &[POST, chunked, b"5;", &z(5_000), b"\r\nzebra\r\n0\r\n\r\n"]),
        Case::last(431, &[POST, chunked, b"0\r\nX: ", &z(5_000), b"\r\n\r\n"]),
        Case::last(431, &[POST, chunked, b"0\r\n", &b"X: y\r\n".repeat(1_500), b"\r\n"]),
    ]
}

/// What [`Head::parse`] says, as far as it can be compared: the length of the head, or the status.
fn verdict(wire: &[u8]) -> Option<Result<usize, u16>> {
    match Head::parse(wire, &Limits::default()) {
        Ok(None) => None,
        Ok(Some((_, length))) => Some(Ok(length)),
        Err(refusal) => Some(Err(refusal.status.0)),
    }
}

#[test]
fn the_parser_says_the_same_of_every_prefix() {
    each(&cases(), Case::label, |case| {
        let whole = verdict(&case.wire).expect("there is a verdict");
        match whole {
            Ok(_) => assert!(!case.by_its_head, "the head was taken"),
            Err(status) => assert!(
                case.by_its_head && status == case.status,
                "the head was refused with {status}"
            ),
        }
        // Near its ends every prefix of a large one, and between them one in a thousand.
        let length = case.wire.len();
        let is_tried =
            |at: &usize| length < 2_000 || at.is_multiple_of(997) || *at < 50 || at + 50 > length;
        let mut judged = None;
        for at in (0..=length).filter(is_tried) {
            let said = verdict(&case.wire[..at]);
            assert!(
                said == judged || (judged.is_none() && said == Some(whole)),
                "{said:?} of the first {at} bytes, {judged:?} before, {whole:?} of all"
            );
            judged = said;
        }
        let with_next = [&case.wire[..], NEXT].concat();
        assert_eq!(verdict(&with_next), Some(whole), "with the next one behind");
    });
}

#[test]
fn the_parser_takes_a_head_apart() {
    let wire = b"POST http://example.com:81/a%2Fb//%C3%BC?q=a+b%26c&q=2&%C3%BC=%zz&= HTTP/1.1\n\
        Host: localhost\r\nx-list: a, B ,\tc\r\nX-List: D\nX:\t caf\xe9 \t\r\n\
        Content-Length: 007\n\n";
    let (head, length) =
        Head::parse(wire, &Limits::default()).expect("it is a head").expect("it is whole");
    assert_eq!(length, wire.len());
    assert_eq!(head.method().name(), "POST");
    assert_eq!(head.path(), "/a%2Fb//%C3%BC");
    assert_eq!(head.segments(), ["a/b", "", "ü"]);
    assert_eq!(head.query("q").as_deref(), Some("a b&c"));
    assert_eq!(head.query("ü").as_deref(), Some("%zz"));
    assert_eq!(head.query("r"), None);
    assert_eq!(head.queries().count(), 4);
    assert_eq!(head.authority(), "example.com:81");
    assert_eq!(head.field("x"), Some("caf\u{fffd}"));
    assert_eq!(head.values("x-list").count(), 2);
    for token in ["a", "b", "c", "d"] {
        assert!(head.lists("x-list", token), "{token}");
    }
    assert!(!head.lists("x-list", "a, b"));
    assert_eq!(head.framing(), Framing::Length(7));

    let asterisk = b"OPTIONS * HTTP/1.1\r\nHost: here\r\n\r\n";
    let (head, _) =
        Head::parse(asterisk, &Limits::default()).expect("it is a head").expect("it is whole");
    assert_eq!((head.path(), head.segments().len()), ("*", 0));
    assert_eq!(head.authority(), "here");
}

/// How a coding that arrives in these pieces is decoded: the content and how many bytes it took, or
/// the status.
fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), u16> {
    let (mut chunks, mut content, mut taken) = (Chunks::new(), Vec::new(), 0);
    for piece in pieces {
        taken += chunks.decode(piece, &mut content).map_err(|refusal| refusal.status.0)?;
    }
    Ok((content, taken, chunks.is_whole()))
}

#[test]
fn chunks_are_decoded_however_they_are_cut() {
    let taken = CHUNKS_TAKEN.iter().map(|(chunks, content)| {
        let outcome = Ok((content.to_vec(), chunks.len(), true));
        ([chunks, NEXT].concat(), outcome)
    });
    let refused = CHUNKS_REFUSED.iter().map(|(status, chunks)| (chunks.to_vec(), Err(*status)));
    for (wire, expected) in taken.chain(refused) {
        let label = wire.escape_ascii();
        assert_eq!(decode(&[&wire]), expected, "whole: {label}");
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(decode(&bytes), expected, "byte by byte: {label}");
        for first in 0..=wire.len() {
            for second in first..=wire.len() {
                let pieces = [&wire[..first], &wire[first..second], &wire[second..]];
                assert_eq!(decode(&pieces), expected, "cut at {first}, {second}: {label}");
            }
        }
    }
}

#[test]
fn chunks_that_are_not_whole_are_not_called_so() {
    for (chunks, content) in CHUNKS_TAKEN {
        for length in 0..chunks.len() {
            let (read, taken, whole) = decode(&[&chunks[..length]]).expect("nothing is wrong yet");
            assert!(!whole, "whole at {length}: {}", chunks.escape_ascii());
            assert_eq!(taken, length);
            assert!(content.starts_with(&read));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// The next request is sent after the answer, if the connection is still open.
    Whole,
    ByteByByte,
    /// The next request is sent in the same write.
    Pipelined,
}

/// Has one conversation, and panics at what is wrong with it.
fn converse(case: &Case, way: Way, address: SocketAddr) {
    let mut socket = connect(address);
    // The server may have heard enough before the end, so that writing on fails.
    let with_next = [&case.wire[..], NEXT].concat();
    let _ = match way {
        Way::Whole => socket.write_all(&case.wire),
        Way::ByteByByte => with_next.chunks(1).try_for_each(|byte| socket.write_all(byte)),
        Way::Pipelined => socket.write_all(&with_next),
    };
    let mut from_server = BufReader::new(socket.try_clone().expect("it is a socket"));
    let answer = Answer::read(&mut from_server, case.method()).expect("it is answered");
    check(case, &answer);
    if case.goes_on {
        if matches!(way, Way::Whole) {
            socket.write_all(NEXT).expect("the server reads on");
        }
        let next = Answer::read(&mut from_server, "GET").expect("the next one is answered too");
        assert_eq!((next.status, next.text()), (200, NEXT_CONTENT));
    }
    let mut more = Vec::new();
    from_server.read_to_end(&mut more).expect("it is no reset");
    assert!(more.is_empty(), "more was said: {}", more.escape_ascii());
}

fn check(case: &Case, answer: &Answer) {
    assert_eq!(answer.status, case.status, "{answer:?}");
    assert!(answer.field("date").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    assert_eq!(
        answer.field("connection") == Some("close"),
        !case.goes_on,
        "it closes exactly when it says so: {}",
        answer.head
    );
    if case.goes_on && case.wire.windows(8).any(|eight| eight == b"HTTP/1.0") {
        assert_eq!(answer.field("connection"), Some("keep-alive"));
    }
    let whole = [answer.head.as_bytes(), &answer.content].concat();
    let whole = String::from_utf8_lossy(&whole).to_lowercase();
    if case.status >= 400 {
        assert!(!whole.contains("zebra"), "it echoes: {whole}");
        assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert!(answer.field("content-length").is_some(), "{}", answer.head);
        if case.method() != "HEAD" {
            let text = answer.text();
            assert!(text.len() < 200 && text.lines().count() == 1, "{text:?}");
            assert!(text.ends_with('\n'), "{text:?}");
        }
    }
    if case.status == 405 {
        assert!(answer.field("allow").is_some_and(|allow| allow.contains("GET")));
    }
}

/// Calls `converse` for each of `all`, on many threads, and says everything that went wrong.
fn each<T: Sync>(all: &[T], label: impl Fn(&T) -> String + Sync, converse: impl Fn(&T) + Sync) {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Relaxed)) {
                    let outcome = catch_unwind(AssertUnwindSafe(|| converse(one)));
                    if let Err(panic) = outcome {
                        let why = panic.downcast_ref::<String>().cloned();
                        let why = why.or(panic.downcast_ref().map(|why: &&str| why.to_string()));
                        let said = format!("{}\n    {}", label(one), why.unwrap_or_default());
                        wrong.lock().expect("pushing does not panic").push(said);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("pushing does not panic");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_request_gets_its_answer_over_a_socket() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let cases = cases();
    assert!(cases.len() > 150, "{} cases", cases.len());
    let ways = [Way::Whole, Way::ByteByByte, Way::Pipelined];
    let conversations: Vec<(&Case, Way)> =
        cases.iter().flat_map(|case| ways.map(|way| (case, way))).collect();
    each(
        &conversations,
        |(case, way)| format!("{way:?}: {}", case.label()),
        |(case, way)| converse(case, *way, server.address),
    );
}

#[test]
fn a_request_that_is_cut_off_is_400() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    each(
        UNFINISHED,
        |wire| wire.escape_ascii().to_string(),
        |wire| {
            let mut socket = server.connect();
            socket.write_all(wire).expect("the server reads");
            socket.shutdown(Shutdown::Write).expect("it is open");
            let mut from_server = BufReader::new(socket);
            let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
            check(&Case::last(400, &[wire]), &answer);
            assert!(Answer::read(&mut from_server, "GET").is_none());
        },
    );
}

/// Who types a request presses Enter once more, and who pipes one in has an empty line at the end.
#[test]
fn empty_lines_alone_are_no_request() {
    let server = Server::start(&["--quiet"]);
    for wire in [
        &b"\r\n"[..],
        b"\n",
        b"\r\n\r\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: localhost\n\n\n\n",
    ] {
        let mut socket = server.connect();
        socket.write_all(wire).expect("the server reads");
        socket.shutdown(Shutdown::Write).expect("it is open");
        let mut from_server = BufReader::new(socket);
        if wire.starts_with(b"GET") {
            let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
            assert_eq!((answer.status, answer.text()), (200, "ok\n"));
        }
        let more = Answer::read(&mut from_server, "GET");
        assert!(more.is_none(), "{more:?} to {}", wire.escape_ascii());
    }
}

/// The answer has left by then, but nothing behind broken content is a request.
#[test]
fn content_that_nobody_reads_must_be_right_too() {
    let server = Server::start(&["--quiet"]);
    let head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let broken: Vec<&[u8]> = CHUNKS_REFUSED.iter().map(|(_, chunks)| *chunks).collect();
    each(
        &broken,
        |chunks| chunks.escape_ascii().to_string(),
        |chunks| {
            let answers = server.exchange([&head[..], chunks, NEXT].concat());
            assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
            assert!(answers.starts_with("HTTP/1.1 200 OK\r\n"), "{answers}");
        },
    );
}

/// "A server that responds with a final status code instead of reading the entire request content
/// SHOULD indicate whether it intends to close the connection ... or continue reading" (RFC 9110,
/// 10.1.1).
#[test]
fn content_too_large_to_skip_closes_and_says_so() {
    let server = Server::start(&["--quiet"]);
    for request in [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n",
        "DELETE /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n",
        "POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551615\r\n\r\n",
    ] {
        let mut socket = server.connect();
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut from_server = BufReader::new(socket);
        let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
        assert_eq!(answer.field("connection"), Some("close"), "to {request:?}");
        assert!(Answer::read(&mut from_server, "GET").is_none());
    }
}

#[test]
fn continue_is_said_only_when_the_content_is_wanted() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let request = |line: &str, length| {
        format!(
            "{line}\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };

    // Wanted
    let mut socket = server.connect();
    let post = request("POST /channels/requests HTTP/1.1", 5);
    socket.write_all(post.as_bytes()).expect("the server reads");
    let interim = crate::server::read_until(&mut socket, "\r\n\r\n");
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"zebra").expect("the server reads");
    socket.write_all(NEXT).expect("the server reads");
    let mut from_server = BufReader::new(socket);
    for _ in 0..2 {
        let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    // Not wanted: a client may now send its content or not, so that nothing behind is a request.
    let refused = [
        (200, request("GET /healthz HTTP/1.1", 5)),
        (404, request("POST /nothing HTTP/1.1", 5)),
        (405, request("PUT /healthz HTTP/1.1", 5)),
        (413, request("POST /channels/requests HTTP/1.1", 1_000_000)),
        (417, request("POST /channels/requests HTTP/1.1\r\nExpect: more", 5)),
    ];
    for (status, request) in refused {
        let answer = server.exchange(&request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer} to {request}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }

    // HTTP/1.0 does not know it.
    let post = request("POST /channels/requests HTTP/1.0", 5) + "zebra";
    assert!(server.exchange(post).starts_with("HTTP/1.1 200 "));
}

/// A server "MUST send the corresponding responses in the same order that the requests were
/// received" (RFC 9112, 9.3.2).
#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let server = Server::start(&["--publish-open", "--quiet"]);
    let socket = server.connect();
    let mut to_server = socket.try_clone().expect("it is a socket");
    let writer = thread::spawn(move || {
        for number in 0..1_000 {
            let request = match number % 4 {
                0 => "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
                1 => format!(
                    "POST /channels/requests HTTP/1.1\r\nHost: localhost\r\n\
                     Content-Length: {}\r\n\r\n{number}",
                    number.to_string().len()
                ),
                2 => "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
                _ => "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            };
            to_server.write_all(request.as_bytes()).expect("the server reads");
        }
        to_server.write_all(NEXT).expect("the server reads");
    });
    let mut from_server = BufReader::new(socket);
    for number in 0..1_000 {
        let method = if number % 4 == 2 { "HEAD" } else { "GET" };
        let answer = Answer::read(&mut from_server, method).expect("it is answered");
        let expected = if number % 4 == 3 { 404 } else { 200 };
        assert_eq!(answer.status, expected, "request {number}: {answer:?}");
        if number % 4 == 1 {
            assert!(answer.text().starts_with("{\"id\":"), "{answer:?}");
        }
    }
    let last = Answer::read(&mut from_server, "GET").expect("it is answered");
    assert_eq!(last.text(), NEXT_CONTENT);
    writer.join().expect("it writes");
    assert!(Answer::read(&mut from_server, "GET").is_none());
}
