//! The page, and `--www DIR` in its place: validators, media types, and that no path, link or pipe
//! leads out of the directory or holds up the server.

use crate::server::{Answer, Server, ask};
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// What the binary has in it.
const EMBEDDED: &[(&str, &str, &[u8])] = &[
    ("/", "text/html; charset=utf-8", include_bytes!("../../www/index.html")),
    ("/index.html", "text/html; charset=utf-8", include_bytes!("../../www/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_bytes!("../../www/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_bytes!("../../www/app.js")),
    ("/favicon.svg", "image/svg+xml", include_bytes!("../../www/favicon.svg")),
];

/// A directory of a test's own, which has `site`, to be served, and beside it what must not be. It
/// is gone when the test is over.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Directory {
        let name = format!("{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(path.join("site")).expect("it can be made");
        Directory(path)
    }

    fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("it is below")).expect("it can be made");
        fs::write(path, content).expect("it can be written");
    }

    fn serve(&self) -> Server {
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
        // It may be kept, but not used without asking.
        assert_eq!(whole.field("cache-control"), Some("no-cache"));
        let policy = whole.field("content-security-policy").expect("it has one");
        assert!(policy.contains("default-src 'none'"), "{policy}");
        for unsafe_word in ["unsafe", "http:", "https:", "*", "data:"] {
            assert!(!policy.contains(unsafe_word), "{policy}");
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

/// In both kinds of site
#[test]
fn a_validator_saves_the_content() {
    let directory = Directory::new("validator");
    directory.write("site/index.html", "<p>hello");
    for server in [Server::start(&["--quiet"]), directory.serve()] {
        let whole = get(&server, "/");
        let etag = whole.field("etag").expect("it has one").to_owned();
        let opaque = etag.trim_matches('"');
        assert!(etag.len() > 2 && etag == format!("\"{opaque}\""), "it is strong: {etag}");

        // Entity tags "are equivalent if their opaque-tags match character-by-character, regardless
        // of either or both being tagged as weak" (RFC 9110, 8.8.3.2).
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
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\nIf-None-Match: {etag}\r\n\r\n"
        );
        socket.write_all(request.repeat(2).as_bytes()).expect("the server reads");
        let mut from_server = BufReader::new(socket);
        for _ in 0..2 {
            let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
            assert_eq!(answer.status, 304);
        }
        // What is not there has no validator, whatever is asked.
        assert_eq!(get_if_none_match(&server, "/nothing", "*").status, 404);
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

    // All of it may go, and come back.
    fs::remove_dir_all(directory.0.join("site")).expect("it is there");
    assert_eq!(get(&server, "/new.txt").status, 404);
    assert_eq!(get(&server, "/healthz").status, 200);
    directory.write("site/new.txt", "again");
    assert_eq!(get(&server, "/new.txt").text(), "again");
}

#[test]
fn names_and_media_types_are_those_of_the_files() {
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
        // What the program answers itself is not looked for.
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
        // A policy is the owner's to make.
        assert_eq!(answer.field("content-security-policy"), None);
    }
    let empty = get(&server, "/empty.txt");
    assert_eq!((empty.status, empty.field("content-length")), (200, Some("0")));
    // The page that is embedded is not there, and a folder is none of its files.
    for target in ["/app.js", "/folder", "/folder/deeper", "/folder//", "//", "/index.html/"] {
        assert_eq!(get(&server, target).status, 404, "{target}");
    }
}

#[test]
fn hidden_files_are_not_served() {
    let directory = Directory::new("hidden");
    for name in [".htpasswd", ".git/config", "folder/.env", "..secret", "folder/.well/index.html"] {
        directory.write(format!("site/{name}"), "secret");
    }
    let server = directory.serve();
    for target in [
        "/.htpasswd",
        "/%2ehtpasswd",
        "/.git/config",
        "/%2Egit/config",
        "/folder/.env",
        "/folder/%2eenv",
        "/..secret",
        "/folder/.well/",
        "/folder/../.htpasswd",
    ] {
        let answer = get(&server, target);
        assert!(answer.status == 404 && !answer.text().contains("secret"), "{target}");
    }
}

#[test]
fn no_path_leads_out_of_the_directory() {
    let directory = Directory::new("traversal");
    directory.write("site/index.html", "<p>hello");
    directory.write("site/folder/index.html", "<p>folder");
    directory.write("secret.txt", "secret");
    directory.write("site-secret/secret.txt", "secret");
    let server = directory.serve();
    let absolute = directory.0.join("secret.txt");
    let absolute = absolute.to_str().expect("it is UTF-8");

    let mut ways: Vec<String> = Vec::new();
    // Every way to write two dots, and every way to write what stands behind them
    for dots in [
        "..",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "%252e%252e",
        "%25252e%25252e",
        "..%00",
        "..%20",
        "..;",
        "...",
        "..%0a",
        "%c0%ae%c0%ae",
        "%e0%80%ae%e0%80%ae",
        "%uff0e%uff0e",
        "%ef%bc%8e%ef%bc%8e",
        "%u002e%u002e",
        "%%32%65%%32%65",
        ".%00.",
        "..\\",
        "..:",
    ] {
        for slash in [
            "/",
            "//",
            "/./",
            "%2f",
            "%2F",
            "%252f",
            "%5c",
            "\\",
            "%c0%af",
            "%ef%bc%8f",
            "/%2f",
            "%u2215",
            "%00/",
        ] {
            for start in ["/", "/folder/", "/folder/../", "//", "/./", "/%2f", "/folder%2f"] {
                for times in 1..=3 {
                    let up = format!("{dots}{slash}").repeat(times);
                    ways.push(format!("{start}{up}secret.txt"));
                    ways.push(format!("{start}{up}site-secret{slash}secret.txt"));
                }
            }
        }
    }
    for target in [
        absolute.to_owned(),
        format!("/{absolute}"),
        absolute.replace('/', "%2f"),
        format!("/{}", absolute.replace('/', "%2f")),
        format!("/.{absolute}"),
        format!("/file:{absolute}"),
        format!("/file://{absolute}"),
        format!("http://localhost/..{absolute}"),
        format!("http://localhost{absolute}"),
        "/c:/secret.txt".to_owned(),
        "/secret.txt::$DATA".to_owned(),
    ] {
        ways.push(target);
    }

    let next = std::sync::Mutex::new(ways.iter());
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut socket = BufReader::new(server.connect());
                let take = || next.lock().expect("taking does not panic").next();
                while let Some(target) = take() {
                    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    let written = socket.get_mut().write_all(request.as_bytes());
                    written.expect("the server reads");
                    let answer = Answer::read(&mut socket, "GET").expect("it is answered");
                    assert!(matches!(answer.status, 400 | 404), "{target}: {answer:?}");
                    assert!(!answer.text().contains("secret"), "{target}: {answer:?}");
                    if answer.field("connection") == Some("close") {
                        socket = BufReader::new(server.connect());
                    }
                }
            });
        }
    });
    // And the server is still there.
    assert_eq!(get(&server, "/folder/").text(), "<p>folder");
}

#[test]
fn no_link_leads_out_of_the_directory() {
    let directory = Directory::new("links");
    directory.write("secret.txt", "secret");
    directory.write("site-secret/index.html", "secret");
    directory.write("site/real.txt", "real");
    directory.write("site/folder/real.txt", "real");
    let site = directory.0.join("site");
    let link = |to: &str, name: &str| symlink(to, site.join(name)).expect("it can be made");
    link("real.txt", "inside.txt");
    link("folder", "inside");
    link("../site/real.txt", "through.txt");
    link("../secret.txt", "outside.txt");
    link(directory.0.join("secret.txt").to_str().expect("UTF-8"), "absolute.txt");
    link("..", "up");
    link("../site-secret", "sibling");
    link("/", "root");
    link("/dev/zero", "zero.txt");
    link("/proc/self/environ", "environ.txt");
    link("/dev/stdin", "stdin.txt");
    link("nowhere", "dangling.txt");
    link("loop.txt", "loop.txt");
    link("outside.txt", "twice.txt");
    let server = directory.serve();
    for target in ["/inside.txt", "/inside/real.txt", "/through.txt"] {
        let answer = get(&server, target);
        assert_eq!((answer.status, answer.text()), (200, "real"), "{target}");
    }
    for target in [
        "/outside.txt",
        "/absolute.txt",
        "/up/secret.txt",
        "/sibling/",
        "/sibling/index.html",
        "/root/etc/passwd",
        "/zero.txt",
        "/environ.txt",
        "/stdin.txt",
        "/dangling.txt",
        "/loop.txt",
        "/twice.txt",
    ] {
        assert_eq!(get(&server, target).status, 404, "{target}");
    }
    // The directory itself may be a link.
    symlink("site", directory.0.join("link")).expect("it can be made");
    let linked = directory.0.join("link");
    let server = Server::start(&["--www", linked.to_str().expect("it is UTF-8")]);
    assert_eq!(get(&server, "/real.txt").text(), "real");
    assert_eq!(get(&server, "/outside.txt").status, 404);
}

/// Opening a named pipe waits for its writer, and reading one never ends.
#[test]
fn what_is_no_file_is_not_found_and_holds_up_nobody() {
    let directory = Directory::new("special");
    let site = directory.0.join("site");
    let made = Command::new("mkfifo").arg(site.join("pipe.txt")).status();
    assert!(made.expect("coreutils are installed").success());
    let _socket = UnixListener::bind(site.join("socket")).expect("it can be made");
    fs::create_dir(site.join("index.html")).expect("it can be made");
    let long = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
    fs::write(site.join(long), "not UTF-8").expect("it can be written");
    let server = directory.serve();
    let too_long = format!("/{}", "x".repeat(300));
    let too_deep = "/x".repeat(3_000);
    for target in [
        "/pipe.txt",
        "/socket",
        "/",
        "/index.html",
        "/index.html/",
        "/pipe.txt/",
        "/pipe.txt/x",
        too_long.as_str(),
        too_deep.as_str(),
    ] {
        assert_eq!(get(&server, target).status, 404, "{target}");
    }
    assert_eq!(get(&server, "/caf%e9.txt").status, 400);
}

/// A content that no buffer holds by chance
fn large(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..bytes).map(next).collect()
}

#[test]
fn a_large_file_arrives_whole() {
    let directory = Directory::new("large");
    let content = large(12 * 1024 * 1024);
    directory.write("site/large.bin", &content);
    let server = directory.serve();
    let request = "GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n";
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut socket = server.connect();
                // Twice on one connection, and then something small
                let all = request.repeat(2) + "GET /healthz HTTP/1.0\r\n\r\n";
                socket.write_all(all.as_bytes()).expect("the server reads");
                let mut from_server = BufReader::new(socket);
                for _ in 0..2 {
                    let answer = Answer::read(&mut from_server, "GET").expect("it is answered");
                    assert!(answer.content == content, "it is another one");
                }
                let last = Answer::read(&mut from_server, "GET").expect("it is answered");
                assert_eq!(last.text(), "ok\n");
            });
        }
    });
    let head = ask(server.address, "HEAD", "/large.bin", &[], "");
    assert_eq!(head.field("content-length"), Some(content.len().to_string().as_str()));
}

/// What was promised is kept where it can be; where it cannot, only the close can say so.
#[test]
fn a_file_that_changes_while_it_is_sent_does_not_confuse_its_reader() {
    let directory = Directory::new("changing");
    // More than sockets hold, so that it is still being sent
    let content = vec![b'x'; 32 * 1024 * 1024];
    for (name, is_cut) in [("grows.bin", false), ("shrinks.bin", true)] {
        directory.write(format!("site/{name}"), &content);
        let server = directory.serve();
        let mut socket = server.connect();
        let request = format!(
            "GET /{name} HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\
             Connection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("the server reads");
        let head = crate::server::read_until(&mut socket, "\r\n\r\n");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", content.len())));
        let path = directory.0.join("site").join(name);
        let file = File::options().append(true).open(path).expect("it is there");
        let rest = if is_cut {
            file.set_len(1024).expect("it can be cut");
            String::new()
        } else {
            (&file).write_all(b"more").expect("it can be written");
            "HTTP/1.1 200 OK".to_owned()
        };
        let mut read = Vec::new();
        socket.read_to_end(&mut read).expect("it is no reset");
        if is_cut {
            assert!(read.len() < content.len());
        } else {
            assert!(read[..content.len()] == content[..]);
            assert!(read[content.len()..].starts_with(rest.as_bytes()));
        }
    }
}

/// A cache, or a person, must not believe that a file is gone because the server is busy.
#[test]
fn a_file_that_cannot_be_opened_now_is_not_said_to_be_missing() {
    let directory = Directory::new("busy");
    directory.write("site/index.html", "<p>hello");
    let server = directory.serve();
    let mut socket = BufReader::new(server.connect());
    let mut get = || {
        let written = socket.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        written.expect("the server reads");
        Answer::read(&mut socket, "GET").expect("it is answered").status
    };
    assert_eq!(get(), 200);
    crate::shortage::limit(&server, "nofile", 4);
    let status = get();
    assert!(status == 500 || status == 503, "{status}");
    crate::shortage::limit(&server, "nofile", 100);
    assert_eq!(get(), 200);
}
