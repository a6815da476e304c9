//! Recordings that play: `*.sse` files under `--www DIR`, and the samples of the binary.

use crate::events::parse;
use crate::files::Directory;
use crate::laboratory::resident_kib;
use crate::server::{Answer, Server, Stream, ask, connect, read_until};
use newswire::sse::{Blocks, Recorder};
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, "GET", target, &[], "")
}

fn data(content: &[u8]) -> Vec<String> {
    parse([content]).0.into_iter().map(|message| message.data).collect()
}

/// A directory with these files, served.
fn serve(name: &str, files: &[(&str, &str)]) -> (Server, Directory) {
    let directory = Directory::new(name);
    for (path, content) in files {
        directory.write(format!("site/{path}"), content);
    }
    (directory.serve(), directory)
}

const FOX: &str = "id: a\ndata: The\n\nid: b\ndata: quick\n\nid: c\ndata: fox\n\n";

#[test]
fn a_recording_is_played_for_get_and_post_with_and_without_its_ending() {
    let (server, _directory) = serve("played-methods", &[("mocks/v1/chat.sse", FOX)]);
    for target in ["/mocks/v1/chat", "/mocks/v1/chat.sse"] {
        for (method, content) in [("GET", ""), ("POST", ""), ("POST", "{\"stream\":true}")] {
            let answer = ask(server.address, method, target, &[], content);
            assert_eq!(answer.status, 200, "{method} {target}: {answer:?}");
            assert_eq!(answer.field("content-type"), Some("text/event-stream"));
            assert_eq!(answer.field("cache-control"), Some("no-store, no-transform"));
            assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
            assert_eq!(answer.text(), FOX, "the file is sent as it is, without an opening");
        }
        let head = ask(server.address, "HEAD", target, &[], "");
        assert_eq!((head.status, head.field("content-length")), (200, None));
        for (method, status) in [("PUT", 405), ("DELETE", 405), ("OPTIONS", 204)] {
            let answer = ask(server.address, method, target, &[], "");
            assert_eq!(answer.status, status, "{method} {target}");
            assert_eq!(answer.field("allow"), Some("GET, HEAD, POST, OPTIONS"));
        }
    }
    // A page of another origin may post JSON.
    let asks = [
        ("Origin", "http://other.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
    ];
    let answer = ask(server.address, "OPTIONS", "/mocks/v1/chat", &asks, "");
    assert_eq!(answer.field("access-control-allow-methods"), Some("GET, HEAD, POST, OPTIONS"));
    assert_eq!(answer.field("access-control-allow-headers"), Some("content-type"));
}

#[test]
fn a_file_of_the_very_path_comes_before_a_recording() {
    let files = [("a", "plain"), ("a.sse", FOX), ("b.txt", "text"), ("c/x.sse", FOX)];
    let (server, _directory) = serve("played-precedence", &files);
    assert_eq!(get(server.address, "/a").text(), "plain");
    assert_eq!(get(server.address, "/a.sse").text(), FOX);
    assert_eq!(ask(server.address, "POST", "/a.sse", &[], "").text(), FOX);
    for target in ["/a", "/b.txt"] {
        let refused = ask(server.address, "POST", target, &[], "");
        assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD, OPTIONS")));
    }
    assert_eq!(ask(server.address, "POST", "/d", &[], "").status, 404);
    // A folder is no file.
    assert_eq!(ask(server.address, "POST", "/c", &[], "").status, 404);
}

#[test]
fn the_content_of_a_post_is_dropped_and_bounded() {
    let (server, _directory) = serve("played-content", &[("a.sse", FOX)]);
    let content = "x".repeat(500 * 1024);
    assert_eq!(ask(server.address, "POST", "/a", &[], &content).text(), FOX);
    let content = "x".repeat(600 * 1024);
    assert_eq!(ask(server.address, "POST", "/a", &[], &content).status, 413);
}

#[test]
fn no_path_leads_to_a_recording_that_a_file_could_not_be_at() {
    let (server, directory) = serve("played-escapes", &[("in.sse", FOX), (".hidden.sse", FOX)]);
    directory.write("out.sse", "data: secret\n\n");
    directory.write("site/.folder/in.sse", "data: secret\n\n");
    #[cfg(unix)]
    std::os::unix::fs::symlink(directory.0.join("out.sse"), directory.0.join("site/link.sse")).expect("it can be made");
    for target in [
        "/../out",
        "/../out.sse",
        "/%2e%2e/out",
        "/..%2fout",
        "/..%5cout",
        "/in/../../out",
        "/link",
        "/link.sse",
        "/.hidden",
        "/.hidden.sse",
        "/.folder/in",
        "//in",
        "/in/",
        "/in.sse/",
        "/",
        "/.sse",
        "/in%00.sse",
        "/C:in",
        "/./in",
    ] {
        for method in ["GET", "POST"] {
            let answer = ask(server.address, method, target, &[], "");
            assert!([400, 404].contains(&answer.status), "{method} {target}: {answer:?}");
        }
    }
    assert_eq!(get(server.address, "/in").text(), FOX);
}

/// The data of the messages of a stream, each with the time since the request. A slow machine only makes it longer.
fn timed(address: SocketAddr, target: &str) -> Vec<(String, Duration)> {
    let begun = Instant::now();
    let mut stream = Stream::open(address, target, &[]);
    let mut messages = Vec::new();
    while let Some(message) = stream.next() {
        messages.push((message.data, begun.elapsed()));
    }
    messages
}

#[test]
fn the_timings_of_a_recording_give_its_rhythm_and_speed_divides_it() {
    let file = ": +300 ms\ndata: a\n\n: +0 ms\ndata: b\n\n: +1200 ms\ndata: c\n\n: +99 \ndata: d\n\n";
    let (server, _directory) = serve("played-rhythm", &[("a.sse", file)]);
    let messages = timed(server.address, "/a");
    let words: Vec<&str> = messages.iter().map(|(data, _)| data.as_str()).collect();
    assert_eq!(words, ["a", "b", "c", "d"]);
    assert!(messages[0].1 >= Duration::from_millis(300), "{messages:?}");
    assert!(messages[2].1 >= Duration::from_millis(1500), "{messages:?}");
    assert_eq!(get(server.address, "/a").text(), "data: a\n\ndata: b\n\ndata: c\n\n: +99 \ndata: d\n\n");
    let begun = Instant::now();
    get(server.address, "/a?speed=0.5");
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    // The best of some runs: at that speed all pauses together are 15 ms.
    let fastest = (0..20).map(|_| {
        let begun = Instant::now();
        get(server.address, "/a?speed=100");
        begun.elapsed()
    });
    let fastest = fastest.min().expect("there are some");
    assert!(fastest < Duration::from_millis(1500), "{fastest:?}");
}

#[test]
fn a_block_without_a_timing_comes_after_the_interval() {
    let (server, _directory) = serve("played-interval", &[("a.sse", FOX)]);
    for (target, least) in [("/a", 2 * 50), ("/a?interval=500", 2 * 500), ("/a?interval=0", 0)] {
        let begun = Instant::now();
        assert_eq!(get(server.address, target).text(), FOX);
        assert!(begun.elapsed() >= Duration::from_millis(least), "{target}");
    }
    // A timing may be larger than any clock. The stream goes on, as its heartbeats show.
    let huge = format!("data: a\n\n: +{} ms\ndata: b\n\n", u64::MAX);
    let (server, _directory) = serve("played-huge-timing", &[("a.sse", &huge)]);
    let mut stream = Stream::open(server.address, "/a?speed=0.1&jitter=100&heartbeat=10", &[]);
    stream.read_until(|bytes| bytes == b"data: a\n\n:\n:\n");
    assert!(server.metric("newswire_panics_total") == 0);
}

#[test]
fn a_client_goes_on_behind_its_last_event_id_and_gets_204_behind_the_last() {
    let file = "id: 1\ndata: a\n\ndata: b\n\nid: \u{e9}\ndata: c\n\n:comment\n\nid: 2\ndata: d\n\n:the end\n\n";
    let (server, _directory) = serve("played-resume", &[("a.sse", file)]);
    let resume =
        |id: &str, query: &str| ask(server.address, "GET", &format!("/a{query}"), &[("Last-Event-ID", id)], "");
    for (id, expected) in [
        ("1", &["b", "c", "d"][..]),
        ("\u{e9}", &["d"]),
        ("unknown", &["a", "b", "c", "d"]),
        // The field counts, and an empty id is none.
        ("", &["a", "b", "c", "d"]),
    ] {
        assert_eq!(data(&resume(id, "").content), expected, "{id:?}");
    }
    assert_eq!(data(&get(server.address, "/a?last_event_id=1").content), ["b", "c", "d"]);
    assert_eq!(data(&get(server.address, "/a?lastEventId=%C3%A9").content), ["d"]);
    let last = resume("2", "");
    assert_eq!((last.status, last.content.len()), (204, 0));
    assert_eq!(data(&resume("2", "?complete=loop").content), ["a", "b", "c", "d"]);
    // A NUL in an id makes it none, and of two ids in a block the second one counts.
    let file = "id: 1\0\ndata: a\n\nid: 1\nid: 2\ndata: b\n\nid: 1\nid: 3\0\ndata: c\n\ndata: d\n\n";
    let (server, _directory) = serve("played-odd-ids", &[("a.sse", file)]);
    let answer = ask(server.address, "GET", "/a", &[("Last-Event-ID", "1")], "");
    assert_eq!(data(&answer.content), ["d"]);
}

#[test]
fn every_fault_of_the_laboratory_happens_in_a_recording() {
    let (server, _directory) = serve("played-faults", &[("a.sse", FOX)]);
    let text = |query: &str| {
        String::from_utf8_lossy(&get(server.address, &format!("/a?{query}&interval=0")).content).into_owned()
    };
    assert_eq!(text("cut=2"), "id: a\ndata: The\n\nid: b\ndata: quick\n\n");
    assert_eq!(text("chunk=1"), FOX);
    assert_eq!(text("newline=crlf"), FOX.replace('\n', "\r\n"));
    assert_eq!(text("newline=cr&chunk=3"), FOX.replace('\n', "\r"));
    assert_eq!(text("bom=on"), format!("\u{feff}{FOX}"));
    assert_eq!(text("retry=70"), format!(": newswire\nretry: 70\n{FOX}"));
    let garbage = text("garbage=on");
    assert_ne!(garbage, FOX);
    assert_eq!(data(garbage.as_bytes()), ["The", "quick", "fox"]);
    let with_heartbeats = get(server.address, "/a?interval=40&heartbeat=10&jitter=0").content;
    let frame = |word, id| format!("id: {id}\ndata: {word}\n\n");
    let expected = [frame("The", 'a'), frame("quick", 'b'), frame("fox", 'c')].join(":\n:\n:\n");
    assert_eq!(String::from_utf8_lossy(&with_heartbeats), expected);
    let begun = Instant::now();
    assert_eq!(text("stall=1&silence=700"), FOX);
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let refused = get(server.address, "/a?status=503");
    assert_eq!(refused.status, 503);
    // A client that comes back has met the cut, and meets the status.
    let back = ask(server.address, "GET", "/a?cut=1&interval=0", &[("Last-Event-ID", "a")], "");
    assert_eq!(data(&back.content), ["quick", "fox"]);
    assert_eq!(data(text("cut=1&status=500").as_bytes()), ["The"]);
    let back = ask(server.address, "GET", "/a?cut=1&status=500", &[("Last-Event-ID", "a")], "");
    assert_eq!(back.status, 500);
}

#[test]
fn a_cut_counts_events_and_not_comments() {
    let file = ":one\n\n:two\n\ndata: a\n\n:three\n\ndata: b\n\ndata: c\n\n";
    let (server, _directory) = serve("played-comments", &[("a.sse", file)]);
    let content = get(server.address, "/a?cut=2&interval=0").content;
    assert_eq!(data(&content), ["a", "b"]);
}

#[test]
fn a_recording_on_a_line_is_watched() {
    let (server, _directory) = serve("played-line", &[("a.sse", FOX)]);
    let mut watcher = Stream::open(server.address, "/lab/lines/x", &[]);
    assert_eq!(get(server.address, "/a?line=x").text(), FOX);
    let head = watcher.next().expect("it sees the head");
    assert_eq!(head.event_type, "head");
}

#[test]
fn parameters_that_are_not_a_recordings_are_refused_and_no_field_of_the_answer_comes_from_a_query() {
    let (server, _directory) = serve("played-refusals", &[("a.sse", FOX)]);
    for (query, sentence) in [
        ("type=text/html", "type is unknown. The parameters are interval, jitter, speed, retry, "),
        ("redirect=302", "redirect is unknown."),
        ("text=a", "text is unknown."),
        ("count=1", "count is unknown."),
        ("beta=true", "beta is unknown."),
        ("speed=0", "speed is a number from 0.1 to 100."),
        ("speed=1e1", "speed is a number from 0.1 to 100."),
        ("speed=101", "speed is a number from 0.1 to 100."),
        ("stall=3&cut=2", "stall is less than cut"),
        ("%3Cscript%3E=1", "A parameter is unknown."),
    ] {
        let answer = get(server.address, &format!("/a?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().starts_with(sentence), "{query}: {}", answer.text());
    }
    let plain = get(server.address, "/a").head;
    let without_date =
        |head: &str| head.lines().filter(|line| !line.starts_with("Date")).map(str::to_owned).collect::<Vec<_>>();
    let ordered = get(server.address, "/a?line=x&newline=cr&bom=on&garbage=on&retry=1&last_event_id=a&interval=0").head;
    assert_eq!(without_date(&ordered), without_date(&plain));
}

#[test]
fn where_the_laboratory_is_off_a_recording_plays_without_its_faults() {
    let directory = Directory::new("played-without-lab");
    directory.write("site/a.sse", FOX);
    let site = directory.0.join("site");
    let server = Server::start(&["--listen", "0.0.0.0:0", "--www", site.to_str().expect("it is UTF-8"), "--quiet"]);
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    assert_eq!(get(address, "/a?interval=0&speed=2").text(), FOX);
    assert_eq!(data(&get(address, "/a?last_event_id=b").content), ["fox"]);
    for query in ["stall=1", "chunk=1", "line=x", "status=500"] {
        let answer = get(address, &format!("/a?{query}"));
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[test]
fn the_first_lines_of_a_recording_can_make_it_a_refusal() {
    let json = "{\"error\":\n{\"type\":\"rate_limit\"}}";
    let busy = ": status 429\n: header Retry-After: 3\n: header Content-Type: application/json\n: header Cache-Control: private\n\
                : header Link: </a>\n: header Link: </b>\ndata: {\"error\":\ndata: {\"type\":\"rate_limit\"}}\n\n";
    let bare = ": status 503\r\n\r\n";
    let named = ": by hand\n: header X-Request-Id:fox \n: +0 ms\ndata: a\n\n: status 500\ndata: b\n\n";
    let recorded = ": +0 ms\n: status 302\n: header Location: http://evil.example\ndata: a\n\n";
    let gone = ": status 204\ndata: a\n\n";
    let files =
        [("busy.sse", busy), ("bare.sse", bare), ("named.sse", named), ("recorded.sse", recorded), ("gone.sse", gone)];
    let (server, _directory) = serve("played-fixtures", &files);
    for method in ["GET", "POST"] {
        let answer = ask(server.address, method, "/busy", &[], "");
        assert_eq!((answer.status, answer.text()), (429, json), "{answer:?}");
        assert_eq!(answer.field("retry-after"), Some("3"));
        assert_eq!(answer.field("content-type"), Some("application/json"));
        assert_eq!(answer.field("cache-control"), Some("private"));
        assert_eq!(answer.head.matches("Link: ").count(), 2);
    }
    let answer = get(server.address, "/bare");
    assert_eq!((answer.status, answer.text()), (503, ""));
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    let answer = get(server.address, "/named");
    assert_eq!(answer.field("x-request-id"), Some("fox"));
    assert_eq!(answer.text(), ": by hand\ndata: a\n\n: status 500\ndata: b\n\n");
    // What stands behind a timing was recorded from a server that the operator does not run.
    let answer = get(server.address, "/recorded");
    assert_eq!((answer.status, answer.field("location")), (200, None));
    assert_eq!(get(server.address, "/gone").status, 204);
}

#[test]
fn malformed_first_lines_are_an_error_that_says_what_is_wrong() {
    let malformed = [
        ": status 99",
        ": status 600",
        ": status x",
        ": status ",
        ": header x",
        ": header a b: c",
        ": header : c",
        ": header Content-Length: 1",
        ": header transfer-encoding: chunked",
        ": header Connection: close",
        ": header Date: now",
        ": header Access-Control-Allow-Origin: *",
        ": header Set-Cookie: newswire_key=x",
        ": header content-security-policy: default-src *",
        ": header X-Content-Type-Options: none",
        ": header Clear-Site-Data: \"*\"",
    ];
    for line in malformed {
        let file = format!("{line}\ndata: a\n\n");
        let (server, _directory) = serve("played-malformed", &[("a.sse", &file)]);
        let answer = get(server.address, "/a");
        assert_eq!(answer.status, 500, "{line}");
        assert!(answer.text().starts_with("The first lines of this recording are malformed."));
        assert!(server.metric("newswire_panics_total") == 0);
    }
}

#[test]
fn a_hostile_recording_is_played_byte_for_byte() {
    let binary: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    // Long enough that each CRLF of some stands on the edge of what is read at once.
    let crlf = |bytes: usize| format!("data: {}\r\n\r\ndata: b\r\n\r\n", "x".repeat(bytes));
    let edges: Vec<String> = (8176..8194).map(crlf).collect();
    let directory = Directory::new("played-hostile");
    directory.write("site/binary.sse", &binary);
    directory.write("site/bom.sse", "\u{feff}data: a\r\rdata: b\r\n\r\n");
    directory.write("site/empty.sse", "");
    directory.write("site/named.sse", "\u{feff}: header X-Name: fox\n\ndata: a\n\n");
    directory.write("site/unfinished.sse", "data: a\n\ndata: b");
    for (number, file) in edges.iter().enumerate() {
        directory.write(format!("site/{number}.sse"), file);
    }
    let server = directory.serve();
    let play = |target: &str| get(server.address, &format!("/{target}")).content;
    assert!(play("binary?interval=0") == binary);
    assert_eq!(play("bom"), "\u{feff}data: a\r\rdata: b\r\n\r\n".as_bytes());
    assert_eq!(play("empty"), b"");
    assert_eq!(play("named"), "\u{feff}data: a\n\n".as_bytes());
    assert_eq!(play("unfinished"), b"data: a\n\ndata: b");
    for (number, file) in edges.iter().enumerate() {
        assert!(play(&format!("{number}")) == file.as_bytes(), "{number}");
        for (newline, end) in [("lf", "\n"), ("cr", "\r"), ("crlf", "\r\n")] {
            let played = play(&format!("{number}?newline={newline}"));
            assert!(played == file.replace("\r\n", end).as_bytes(), "{number} {newline}");
        }
    }
}

#[test]
fn a_large_recording_costs_no_more_memory_than_a_small_one() {
    let directory = Directory::new("played-large");
    let block = format!("id: x\ndata: {}\n\n", "x".repeat(4_000));
    let mut file = block.repeat((64 << 20) / block.len());
    file += "id: last\ndata: the end\n\n";
    directory.write("site/large.sse", &file);
    let server = directory.serve();
    get(server.address, "/large?last_event_id=last");
    let before = resident_kib(&server);
    let mut streams: Vec<Stream> = (0..8).map(|_| Stream::open(server.address, "/large?interval=0", &[])).collect();
    for stream in &mut streams {
        assert!(stream.next().is_some());
    }
    let cost = resident_kib(&server).saturating_sub(before) / streams.len() as u64;
    assert!(cost <= 256, "{cost} KiB for each");
    drop(streams);
    let content = get(server.address, "/large?interval=0").content;
    assert!(content == file.as_bytes());
}

#[test]
fn the_block_that_a_player_holds_is_not_copied_as_a_whole() {
    let directory = Directory::new("played-block");
    // The system takes some megabytes of it.
    let block = format!("data: {}\n\n", "x\ndata: ".repeat(600_000));
    directory.write("site/a.sse", block.repeat(4));
    let server = directory.serve();
    let before = resident_kib(&server);
    let streams: Vec<Stream> =
        (0..8).map(|_| Stream::open(server.address, "/a?newline=crlf&interval=0", &[])).collect();
    let mut most = 0;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(100));
        most = resident_kib(&server).saturating_sub(before).max(most);
    }
    assert!(most / 8 <= 11 * 1024, "{most} KiB for eight");
    drop(streams);
}

#[test]
fn clients_that_ask_for_an_id_far_behind_do_not_take_every_core() {
    let directory = Directory::new("played-skips");
    directory.write("site/a.sse", "data: a\n\n".repeat(500_000));
    let server = directory.serve();
    let address = server.address;
    let open = move || Stream::open(address, "/a?last_event_id=no&interval=0", &[]);
    let clients: Vec<_> = (0..8).map(|_| thread::spawn(open)).collect();
    let refused = clients.into_iter().map(|client| {
        let mut stream = client.join().expect("it is answered");
        assert_eq!(stream.answer.status, 200);
        match stream.next() {
            Some(message) => {
                assert_eq!(message.data, "a");
                0
            }
            None => {
                let text = String::from_utf8_lossy(&stream.bytes).into_owned();
                assert!(text.contains("come back later\nretry: "), "{text}");
                1
            }
        }
    });
    assert!((1..=6).contains(&refused.sum::<usize>()));
    assert_eq!(open().next().expect("there is room again").data, "a");
}

/// `newswire watch --record` keeps what a stranger sends, and a stranger may send what looks like a directive.
#[test]
fn no_recording_runs_as_a_page_of_the_server() {
    let page = ": header Content-Type: text/html\ndata: <script>alert(1)</script>\n\n";
    let missing = format!(": status 404\n{page}");
    let (server, _directory) = serve("played-page", &[("page.sse", page), ("missing.sse", &missing), ("a.sse", FOX)]);
    for target in ["/page", "/missing", "/a", "/a?status=503", "/a?last_event_id=c&complete=204", "/a?last_event_id=c"]
    {
        let answer = get(server.address, target);
        let policy = answer.field("content-security-policy");
        assert_eq!(policy, Some("sandbox; default-src 'none'"), "{target}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{target}");
    }
}

#[test]
fn a_line_without_an_end_is_refused_beyond_5_mib() {
    let directory = Directory::new("played-endless");
    let endless = format!("data: {}", "x".repeat(8 << 20));
    directory.write("site/first.sse", &endless);
    directory.write("site/second.sse", format!("data: a\n\n{endless}"));
    let server = directory.serve();
    let answer = get(server.address, "/first");
    assert_eq!(answer.status, 500);
    assert!(answer.text().starts_with("This recording cannot be read."), "{}", answer.text());
    let mut stream = Stream::open(server.address, "/second", &[]);
    assert_eq!(stream.next().expect("what stands before is sent").data, "a");
    assert!(!matches!(stream.try_next(), Ok(Some(_))));
    // And a content in place of the stream beyond 1 MiB.
    directory.write("site/third.sse", format!(": status 500\ndata: {}\n\n", "x".repeat(1 << 20)));
    assert!(get(server.address, "/third").text().starts_with("This recording cannot be read."));
}

#[test]
fn a_recording_that_is_recorded_again_has_the_same_events() {
    let directory = Directory::new("played-again");
    directory.write(
        "site/a.sse",
        ": +0 ms\nid: 1\nevent: x\ndata: a\ndata: b\n\n: +200 ms\n:\n: +100 ms\nid: 2\ndata: c\n\n",
    );
    let server = directory.serve();
    let recorded = fs::File::create(directory.0.join("site/b.sse")).expect("it can be made");
    let (mut blocks, mut recorder) = (Blocks::new(), Recorder::new(recorded));
    let mut socket = connect(server.address);
    socket.write_all(b"GET /a HTTP/1.0\r\n\r\n").expect("the server reads");
    read_until(&mut socket, "\r\n\r\n");
    let mut piece = [0; 1024];
    loop {
        let bytes = socket.read(&mut piece).expect("the server sends");
        if bytes == 0 {
            break;
        }
        for block in blocks.feed(&piece[..bytes]).expect("it is small") {
            recorder.record(&block).expect("it can be written");
        }
        if let Some(block) = blocks.release() {
            recorder.record(&block).expect("it can be written");
        }
    }
    let begun = Instant::now();
    let again = get(server.address, "/b").content;
    assert!(begun.elapsed() >= Duration::from_millis(300 * 3 / 4));
    assert_eq!(String::from_utf8_lossy(&again), get(server.address, "/a").text());
    assert_eq!(parse([again.as_slice()]).0.len(), 2);
}

#[test]
fn the_samples_play_and_their_data_is_json_where_it_should_be() {
    let server = Server::start(&["--quiet"]);
    let index = get(server.address, "/samples/");
    let names: Vec<&str> = index.text().split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(names, ["openai-chat", "openai-response", "anthropic-message", "mcp", "hostile"]);
    for name in names {
        for method in ["GET", "POST"] {
            let answer = ask(server.address, method, &format!("/samples/{name}?speed=20"), &[], "");
            let messages = parse([answer.content.as_slice()]).0;
            assert_eq!(answer.field("content-type"), Some("text/event-stream"), "{name}");
            assert!(messages.len() >= 3, "{name}");
            for message in messages.iter().filter(|message| name != "hostile" && message.data != "[DONE]") {
                assert!(is_json(&message.data), "{name}: {}", message.data);
                let kind = format!("\"type\":\"{}\"", message.event_type);
                assert!(message.event_type == "message" || message.data.contains(&kind), "{name}: {message:?}");
            }
            assert_eq!(messages[messages.len() - 1].data == "[DONE]", name == "openai-chat");
        }
    }
}

/// Whether a text is one JSON value (RFC 8259).
fn is_json(text: &str) -> bool {
    fn value(text: &[u8]) -> Option<&[u8]> {
        match text.first()? {
            b'{' => items(&text[1..], b'}', |text| value(string(text)?.strip_prefix(b":")?)),
            b'[' => items(&text[1..], b']', value),
            b'"' => string(text),
            _ => {
                let end = text.iter().position(|byte| b",}]".contains(byte)).unwrap_or(text.len());
                let word = std::str::from_utf8(&text[..end]).ok()?;
                let is_word = ["true", "false", "null"].contains(&word) || word.parse::<f64>().is_ok();
                is_word.then_some(&text[end..])
            }
        }
    }
    fn string(text: &[u8]) -> Option<&[u8]> {
        let mut rest = text.strip_prefix(b"\"")?;
        loop {
            match rest {
                [b'"', rest @ ..] => return Some(rest),
                [b'\\', _, after @ ..] | [b' '..=255, after @ ..] => rest = after,
                _ => return None,
            }
        }
    }
    fn items(text: &[u8], end: u8, item: fn(&[u8]) -> Option<&[u8]>) -> Option<&[u8]> {
        if text.first() == Some(&end) {
            return Some(&text[1..]);
        }
        let rest = item(text)?;
        match rest.first()? {
            b',' => items_behind_a_comma(&rest[1..], end, item),
            byte if *byte == end => Some(&rest[1..]),
            _ => None,
        }
    }
    fn items_behind_a_comma(text: &[u8], end: u8, item: fn(&[u8]) -> Option<&[u8]>) -> Option<&[u8]> {
        if text.first() == Some(&end) { None } else { items(text, end, item) }
    }
    assert!(value(b"{\"a\":[1,\"\\\"\",{}],\"b\":null}") == Some(b""));
    assert!(value(b"{\"a\":[1,]}").is_none() && value(b"{a:1}").is_none());
    value(text.as_bytes()).is_some_and(<[u8]>::is_empty)
}
