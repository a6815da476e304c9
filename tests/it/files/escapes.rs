//! No path, link or pipe leads out of the directory or holds up the server.

use super::{Directory, get};
use crate::server::{Answer, Server};
use std::fs;
use std::io::{BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

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
    // Every way to write two dots, and every way to write the slash behind them
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
        for slash in
            ["/", "//", "/./", "%2f", "%2F", "%252f", "%5c", "\\", "%c0%af", "%ef%bc%8f", "/%2f", "%u2215", "%00/"]
        {
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

    let next = Mutex::new(ways.iter());
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
    // The server still works.
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
fn a_pipe_a_socket_or_a_folder_is_404_and_does_not_block() {
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
