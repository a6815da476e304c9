//! The page, and `--www DIR` in its place: validators, preconditions and media types.

mod escapes;
mod sending;

use crate::server::{Answer, Server, ask};
use std::fs;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

/// The files in the binary: path, media type, content.
const EMBEDDED: &[(&str, &str, &[u8])] = &[
    ("/", "text/html; charset=utf-8", include_bytes!("../../www/index.html")),
    ("/index.html", "text/html; charset=utf-8", include_bytes!("../../www/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_bytes!("../../www/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_bytes!("../../www/app.js")),
    ("/favicon.svg", "image/svg+xml", include_bytes!("../../www/favicon.svg")),
];

/// A temporary directory. Its folder `site` is served, and nothing beside that folder may be.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Directory {
        let name = format!("{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(path.join("site")).expect("it can be made");
        Directory(path)
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("it is below")).expect("it can be made");
        fs::write(path, content).expect("it can be written");
    }

    pub(crate) fn serve(&self) -> Server {
        let site = self.0.join("site");
        Server::start(&["--www", site.to_str().expect("it is UTF-8"), "--quiet"])
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn get(server: &Server, target: &str) -> Answer {
    ask(server.address, "GET", target, &[], "")
}

fn get_if_none_match(server: &Server, target: &str, tags: &str) -> Answer {
    ask(server.address, "GET", target, &[("If-None-Match", tags)], "")
}

#[test]
fn the_page_is_embedded() {
    let server = Server::start(&["--quiet"]);
    for (target, content_type, content) in EMBEDDED {
        let whole = get(&server, target);
        assert_eq!(whole.status, 200, "{target}");
        assert!(whole.content == *content, "{target} has another content than www/");
        assert_eq!(whole.field("content-type"), Some(*content_type));
        assert_eq!(whole.field("x-content-type-options"), Some("nosniff"));
        // A browser may keep it, and must ask before it uses it.
        assert_eq!(whole.field("cache-control"), Some("no-cache"));
        let policy = whole.field("content-security-policy").expect("it has one");
        assert!(policy.contains("default-src 'none'"), "{policy}");
        // The page reads streams of any server that lets it, and takes nothing else from elsewhere.
        let streams = "connect-src http: https:; ";
        assert!(policy.contains(streams), "{policy}");
        let others = policy.replace(streams, "");
        for unsafe_word in ["unsafe", "http:", "https:", "*", "data:"] {
            assert!(!others.contains(unsafe_word), "{policy}");
        }

        // "The HEAD method is identical to GET except that the server MUST NOT send content in the
        // response" (RFC 9110, 9.3.2).
        let head = ask(server.address, "HEAD", target, &[], "");
        let without_date = |answer: &Answer| {
            let lines = answer.head.lines().filter(|line| !line.starts_with("Date: "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(without_date(&head), without_date(&whole), "{target}");
    }
    assert_eq!(get(&server, "/").content, get(&server, "/index.html").content);
    assert_eq!(get(&server, "/?utm=x#").status, 400, "a fragment is never sent");
    assert_eq!(get(&server, "/?utm=x").status, 200);
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(server.address, method, "/app.js", &[], "");
        assert_eq!(answer.status, 405);
        assert_eq!(answer.field("allow"), Some("GET, HEAD, OPTIONS"));
    }
}

#[test]
fn a_validator_that_still_holds_saves_the_content() {
    let directory = Directory::new("validator");
    directory.write("site/index.html", "<p>hello");
    for server in [Server::start(&["--quiet"]), directory.serve()] {
        let whole = get(&server, "/");
        let etag = whole.field("etag").expect("it has one").to_owned();
        let opaque = etag.trim_matches('"');
        assert!(etag.len() > 2 && etag == format!("\"{opaque}\""), "it is strong: {etag}");

        // Entity tags "are equivalent if their opaque-tags match character-by-character, regardless of either or both
        // being tagged as weak" (RFC 9110, 8.8.3.2).
        for tags in [
            etag.clone(),
            format!("W/{etag}"),
            format!("\"other\", {etag}"),
            format!("{etag},\"other\""),
            format!("W/\"other\" ,\t{etag} , \"more\""),
            format!("\"a,b\",{etag}"),
            format!("\"a, W/\", {etag}"),
            format!("\"\", {etag}"),
            format!(", ,{etag},"),
            "*".to_owned(),
        ] {
            for method in ["GET", "HEAD"] {
                let fields = [("If-None-Match", tags.as_str())];
                let answer = ask(server.address, method, "/", &fields, "");
                assert_eq!(answer.status, 304, "{tags}");
                // "The server generating a 304 response MUST generate ... ETag" (RFC 9110, 15.4.5).
                assert_eq!(answer.field("etag"), Some(etag.as_str()));
                assert_eq!(answer.field("cache-control"), whole.field("cache-control"));
                assert_eq!(answer.field("content-length"), None);
                assert_eq!(answer.field("content-type"), None);
            }
        }
        for tags in [
            String::new(),
            "\"other\"".to_owned(),
            "W/\"other\", \"more\"".to_owned(),
            opaque.to_owned(),
            format!("\"{opaque}"),
            format!("{opaque}\""),
            format!("\"x{opaque}\""),
            format!("\"{opaque}x\""),
            format!("w/{etag}"),
            format!("\"a, {opaque}, b\""),
            "\"*\"".to_owned(),
            "\"a, *\"".to_owned(),
            "\"".to_owned(),
            ",".to_owned(),
        ] {
            let answer = get_if_none_match(&server, "/", &tags);
            assert_eq!(answer.status, 200, "{tags}");
            assert_eq!(answer.content, whole.content);
        }
        // The field may stand in several lines, and a connection goes on behind a 304.
        let mut socket = server.connect();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\nIf-None-Match: {etag}\r\n\r\n");
        socket.write_all(request.repeat(2).as_bytes()).expect("the server reads");
        let mut from_server = BufReader::new(socket);
        for _ in 0..2 {
            let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
            assert_eq!(answer.status, 304);
        }
        // A file that does not exist has no validator.
        assert_eq!(get_if_none_match(&server, "/nothing", "*").status, 404);
    }
}

/// "An origin server MUST NOT perform the requested method if a received If-Match condition evaluates to false; instead,
/// the origin server MUST respond with ... the 412" (RFC 9110, 13.1.1).
#[test]
fn a_file_that_if_match_does_not_name_is_412() {
    let directory = Directory::new("match");
    directory.write("site/index.html", "<p>hello");
    for server in [Server::start(&["--quiet"]), directory.serve()] {
        let whole = get(&server, "/");
        let etag = whole.field("etag").expect("it has one").to_owned();
        for (tags, status) in [
            (etag.clone(), 200),
            (format!("\"other\", {etag}"), 200),
            ("*".to_owned(), 200),
            ("\"other\"".to_owned(), 412),
            // "An origin server MUST use the strong comparison function" (13.1.1).
            (format!("W/{etag}"), 412),
            (format!("\"a, W/\", {etag}"), 200),
            (etag.trim_matches('"').to_owned(), 412),
            (String::new(), 412),
        ] {
            for method in ["GET", "HEAD"] {
                let fields = [("If-Match", tags.as_str())];
                let answer = ask(server.address, method, "/", &fields, "");
                assert_eq!(answer.status, status, "{method} with If-Match: {tags}");
                assert_eq!(answer.field("etag"), Some(etag.as_str()));
            }
            // If-Match is evaluated first (13.2.2).
            let fields = [("If-None-Match", etag.as_str()), ("If-Match", tags.as_str())];
            let both = ask(server.address, "GET", "/", &fields, "");
            assert_eq!(both.status, if status == 200 { 304 } else { 412 }, "{tags}");
        }
        let fields = [("If-Match", "\"other\"")];
        let refused = ask(server.address, "GET", "/", &fields, "");
        assert!(refused.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
        assert!(!refused.text().contains("<p>"), "{refused:?}");
        assert_eq!(ask(server.address, "GET", "/nothing", &fields, "").status, 404);
    }
}

#[test]
fn a_directory_is_served_as_it_is_now() {
    let directory = Directory::new("now");
    directory.write("site/index.html", "<p>first");
    let server = directory.serve();
    let first = get(&server, "/");
    assert_eq!(first.text(), "<p>first");
    let etag = first.field("etag").expect("it has one").to_owned();

    directory.write("site/index.html", "<p>other");
    let second = get_if_none_match(&server, "/", &etag);
    assert_eq!((second.status, second.text()), (200, "<p>other"));
    directory.write("site/new.txt", "new");
    assert_eq!(get(&server, "/new.txt").text(), "new");
    fs::remove_file(directory.0.join("site/index.html")).expect("it is there");
    assert_eq!(get(&server, "/").status, 404);

    // The directory may disappear and come back.
    fs::remove_dir_all(directory.0.join("site")).expect("it is there");
    assert_eq!(get(&server, "/new.txt").status, 404);
    assert_eq!(get(&server, "/healthz").status, 200);
    directory.write("site/new.txt", "again");
    assert_eq!(get(&server, "/new.txt").text(), "again");
}

#[test]
fn the_name_of_a_file_decides_its_path_and_media_type() {
    let directory = Directory::new("names");
    let files = [
        ("index.html", "/", "text/html; charset=utf-8"),
        ("folder/index.html", "/folder/", "text/html; charset=utf-8"),
        ("folder/deeper/index.html", "/folder/deeper/", "text/html; charset=utf-8"),
        ("page.HTM", "/page.HTM", "text/html; charset=utf-8"),
        ("a b+c.css", "/a%20b+c.css", "text/css; charset=utf-8"),
        ("café.js", "/caf%C3%A9.js", "text/javascript; charset=utf-8"),
        ("100%.json", "/100%25.json", "application/json"),
        ("%2e%2e.txt", "/%252e%252e.txt", "text/plain; charset=utf-8"),
        ("a%2Fb.svg", "/a%252Fb.svg", "image/svg+xml"),
        ("who?.png", "/who%3F.png", "image/png"),
        ("number#.jpeg", "/number%23.jpeg", "image/jpeg"),
        ("..gif", "/a/..gif", ""),
        ("a..gif", "/a..gif", "image/gif"),
        ("...", "/...", ""),
        ("app.wasm", "/app.wasm", "application/wasm"),
        ("font.woff2", "/font.woff2", "font/woff2"),
        ("none", "/none", "application/octet-stream"),
        ("html", "/html", "application/octet-stream"),
        ("dot.", "/dot.", "application/octet-stream"),
        ("folder.html/none", "/folder.html/none", "application/octet-stream"),
        ("archive.tar.gz", "/archive.tar.gz", "application/octet-stream"),
        // A route of the program comes before a file.
        ("healthz", "/healthz", "text/plain; charset=utf-8"),
    ];
    for (name, _, _) in files {
        directory.write(format!("site/{name}"), name);
    }
    directory.write("site/empty.txt", "");
    let server = directory.serve();
    for (name, target, content_type) in files {
        let answer = get(&server, target);
        if content_type.is_empty() {
            assert_eq!(answer.status, 404, "{target}");
            continue;
        }
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.field("content-type"), Some(content_type), "{target}");
        let content = if name == "healthz" { "ok\n" } else { name };
        assert_eq!(answer.text(), content, "{target}");
        // The files set their own policy.
        assert_eq!(answer.field("content-security-policy"), None);
    }
    let empty = get(&server, "/empty.txt");
    assert_eq!((empty.status, empty.field("content-length")), (200, Some("0")));
    // The embedded page is not served, and a folder is not a file.
    for target in ["/app.js", "/folder", "/folder/deeper", "/folder//", "//", "/index.html/"] {
        assert_eq!(get(&server, target).status, 404, "{target}");
    }
}
