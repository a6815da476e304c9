//! Large files, files that change while they are sent, and files that cannot be opened.

use super::Directory;
use crate::server::{Answer, ask, read_until};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::thread;

/// Content that no buffer contains by chance.
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
                    assert!(answer.content == content, "the content is another one");
                }
                let last = Answer::read(&mut from_server, "GET").expect("it is answered");
                assert_eq!(last.text(), "ok\n");
            });
        }
    });
    let head = ask(server.address, "HEAD", "/large.bin", &[], "");
    assert_eq!(head.field("content-length"), Some(content.len().to_string().as_str()));
}

/// The length has left with the head. When the file becomes shorter, only the close can tell the client.
#[test]
fn a_file_that_changes_while_it_is_sent_has_the_promised_length_or_is_cut() {
    let directory = Directory::new("changing");
    // More than the sockets buffer, so that the server is still sending it
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
        let head = read_until(&mut socket, "\r\n\r\n");
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

/// A cache, or a person, must not believe that a file is gone because the server has no descriptor left.
#[test]
fn a_file_that_cannot_be_opened_now_is_503_and_not_404() {
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
