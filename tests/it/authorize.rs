//! `--authorize URL`: an application says which clients may subscribe and publish; in good time, wrongly, or never.

use crate::keys::KeyFile;
use crate::server::{Answer, PATIENCE, Server, Stream, ask, eventually, is_opening, serve};
use newswire::http::{Request, Response, Status};
use newswire::{EventSource, Router};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

/// An application that answers each question as `answer` does.
fn application(answer: impl Fn(&Request<'_>) -> Response + Send + Sync + 'static) -> String {
    let mut router = Router::new();
    router.get("/auth", move |request| answer(request));
    format!("http://{}/auth?app=1", serve(router, |server| server))
}

/// One that lets in whatever the channel, unless its name ends in another status.
fn by_channel(request: &Request<'_>) -> Response {
    let channel = request.query("channel").unwrap_or_default();
    let status = channel.rsplit('-').next().and_then(|end| end.parse().ok());
    Response::text(Status(status.unwrap_or(200)), "said\n")
}

/// One that takes connections, and treats each on a thread of its own as `treat` does.
fn listener(treat: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    let treat = Arc::new(treat);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let treat = Arc::clone(&treat);
            thread::spawn(move || treat(socket));
        }
    });
    format!("http://{address}/auth")
}

/// Reads the head of a question.
fn read_head(socket: &TcpStream) -> String {
    let lines = BufReader::new(socket).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Without heartbeats, so that a stream that does not end as it should is silent, and its test ends.
fn start(url: &str) -> Server {
    Server::start(&["--authorize", url, "--heartbeat", "0"])
}

fn post(address: SocketAddr, channel: &str) -> Answer {
    ask(address, "POST", &format!("/channels/{channel}"), &[], "x")
}

/// A stream that only says that the client is to come back: EventSource takes any other status for the end.
fn assert_comes_back(answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("content-type"), Some("text/event-stream"));
    let text = answer.text();
    assert!(text.contains("come back later") && is_opening(&answer.content), "{text:?}");
    assert!(!text.contains("data:") && !text.contains("\n\n"), "{text:?}");
}

#[test]
fn the_application_says_which_clients_come_in() {
    let server = start(&application(by_channel));
    let address = server.address;
    for status in [200, 201, 204, 299] {
        assert_eq!(post(address, &format!("c-{status}")).status, 200);
        let stream = Stream::open(address, &format!("/channels/c-{status}?poll"), &[]);
        assert_eq!(stream.answer.status, 200);
    }
    // 401 and 403 are the end for an EventSource, and so they are meant.
    for status in [401, 403] {
        let channel = format!("/channels/c-{status}");
        for (method, target) in [("GET", channel.clone()), ("POST", channel.clone()), ("GET", channel + "?poll")] {
            let answer = ask(address, method, &target, &[], "");
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(!answer.text().contains("said"), "the application's content stays there");
        }
    }
    for status in [302, 404, 429, 500, 503] {
        let channel = format!("c-{status}");
        assert_comes_back(&ask(address, "GET", &format!("/channels/{channel}"), &[], ""));
        let answer = post(address, &channel);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.field("retry-after").is_some());
        let json = [("Accept", "application/json")];
        assert_eq!(ask(address, "GET", &format!("/channels/{channel}"), &json, "").status, 503);
    }
    assert_eq!(server.metric("newswire_authorize_errors_total"), 15);
    assert_eq!(server.metric("newswire_authorize_requests_total"), 8 + 6 + 15);
    // The list asks about none of its channels, and so it shows none.
    assert_eq!(ask(address, "GET", "/channels", &[], "").text(), "[]\n");
}

#[test]
fn the_application_is_told_what_the_client_says_and_nothing_of_it_can_be_forged() {
    let heads = Arc::new(Mutex::new(Vec::<String>::new()));
    let heard = Arc::clone(&heads);
    let url = listener(move |mut socket| {
        heard.lock().expect("no panic").push(read_head(&socket));
        let _ = socket.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    });
    let server = start(&(url + "?app=1"));
    let told = |method: &str, target: &str, fields: &[(&str, &str)]| {
        assert_eq!(ask(server.address, method, target, fields, "").status, 403, "{target}");
        heads.lock().expect("no panic").pop().expect("it was asked")
    };
    let fields = [
        ("Origin", "https://page.example"),
        ("Cookie", "session=1; other=\u{e9}"),
        ("Authorization", "Bearer app-token"),
        ("X-Secret", "not for others"),
    ];
    let head = told("GET", "/channels/news?key=a%26b+c&lastEventId=7-7", &fields);
    assert!(head.starts_with("GET /auth?app=1&method=GET&channel=news HTTP/1.1\n"), "{head}");
    for line in [
        "Origin: https://page.example",
        "Cookie: session=1; other=\u{e9}",
        "Authorization: Bearer app-token",
        "X-Forwarded-Uri: /channels/news?key=a%26b%20c&lastEventId=7-7",
    ] {
        assert!(head.lines().any(|found| found == line), "no {line:?} in {head}");
    }
    assert!(!head.contains("not for others"), "{head}");
    let head = told("PUT", "/channels/c?event=x", &[]);
    assert!(head.starts_with("GET /auth?app=1&method=PUT&channel=c HTTP/1.1\n"), "{head}");

    // The client's query does not come behind ours, where some programs would take the last of two parameters.
    for (method, target, line) in [
        ("HEAD", "/channels/c?key=1&key=2&last_event_id=%26channel=other%23", "method=HEAD&channel=c"),
        ("GET", "/channels/c%26channel=other?key=%0d%0aX-Forged:1", "method=GET&channel=c%26channel%3Dother"),
        ("GET", "/channels/c%0d%0aX-Forged:%201", "method=GET&channel=c%0D%0AX-Forged%3A%201"),
        ("GET", "/channels/%23c%20HTTP%2F1.1", "method=GET&channel=%23c%20HTTP%2F1.1"),
        ("GET", "/channels/..%2f..%2fadmin", "method=GET&channel=..%2F..%2Fadmin"),
        ("DELETE", "/channels/%c3%a9", "method=DELETE&channel=%C3%A9"),
    ] {
        let head = told(method, target, &[]);
        assert!(head.starts_with(&format!("GET /auth?app=1&{line} HTTP/1.1\n")), "{head}");
        assert!(!head.lines().any(|found| found.starts_with("X-Forged")), "{head}");
    }
}

#[test]
fn an_application_that_answers_wrongly_is_no_application() {
    for wrong in [
        &b""[..],
        b"\x16\x03\x01\x00\xa5",
        b"200 OK\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
    ] {
        let server = start(&listener(move |mut socket| {
            read_head(&socket);
            let _ = socket.write_all(wrong);
        }));
        assert_eq!(post(server.address, "c").status, 503, "{wrong:?}");
        assert_comes_back(&ask(server.address, "GET", "/channels/c", &[], ""));
        assert!(!server.said().contains("panicked"));
    }
    // Nothing listens there.
    let free = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("http://{}/", free.local_addr().expect("it listens"));
    drop(free);
    let server = start(&url);
    assert_eq!(post(server.address, "c").status, 503);
    assert_comes_back(&ask(server.address, "GET", "/channels/c", &[], ""));
}

/// Each byte comes in time, and the whole never does: a deadline for each read would not end this.
#[test]
fn an_application_that_never_ends_its_answer_holds_up_its_clients_for_two_seconds_only() {
    let is_over = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&is_over);
    let url = listener(move |mut socket| {
        read_head(&socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while !watched.load(SeqCst) && socket.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let server = start(&url);
    assert_eq!(post(server.address, "c").status, 503);
    assert_comes_back(&ask(server.address, "GET", "/channels/c", &[], ""));
    // The connections to it are closed as well.
    eventually("no thread asks any more", || crate::channels::threads_named(&server, "authorize") == 0);
    is_over.store(true, SeqCst);
}

#[test]
fn while_the_application_hangs_few_questions_wait_and_everything_else_goes_on() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened, largest) = (Arc::clone(&open), Arc::clone(&most));
    let url = listener(move |mut socket| {
        let now = opened.fetch_add(1, SeqCst) + 1;
        largest.fetch_max(now, SeqCst);
        socket.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        // Until newswire closes.
        let _ = socket.read_to_end(&mut Vec::new());
        opened.fetch_sub(1, SeqCst);
    });
    let key = "backend-0123456789";
    let file = KeyFile::holding(&format!("{key} allow all news\nanyone allow subscribe news\n"));
    let server = Server::start(&["--authorize", &url, "--access", file.path(), "--quiet"]);
    let address = server.address;
    let mut news = Stream::subscribe(address, "news");
    let clients: Vec<_> = (0..150)
        .map(|number| thread::spawn(move || ask(address, "GET", &format!("/channels/c{number}"), &[], "")))
        .collect();
    eventually("as many wait as may", || open.load(SeqCst) >= 60);
    // No fan-out thread waits with them, and a key needs no question.
    let bearer = format!("Bearer {key}");
    let fields = [("Authorization", bearer.as_str())];
    for number in 0..20 {
        let data = number.to_string();
        assert_eq!(ask(address, "POST", "/channels/news", &fields, &data).status, 200);
        assert_eq!(news.next().expect("it is live").data, data);
    }
    for client in clients {
        assert_comes_back(&client.join().expect("it is answered"));
    }
    let most = most.load(SeqCst);
    // A question that newswire has given up is counted until its thread sees the end of the connection.
    assert!((60..100).contains(&most), "{most} questions at a time");
    assert_eq!(server.metric("newswire_authorize_errors_total"), 150);
    assert!(!server.said().contains("panicked"));
}

/// Counts its questions, and answers with this `Cache-Control`.
fn counting(cache_control: &'static str) -> (Server, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let server = start(&application(move |request| {
        counted.fetch_add(1, SeqCst);
        by_channel(request).field("Cache-Control", cache_control)
    }));
    (server, count)
}

#[test]
fn a_decision_is_kept_for_as_long_as_it_says_and_for_the_same_question_only() {
    let (server, count) = counting("private, Max-Age=3600");
    let head = |target: &str, fields: &[(&str, &str)]| ask(server.address, "HEAD", target, fields, "").status;
    for _ in 0..3 {
        assert_eq!(head("/channels/c", &[("Cookie", "user=1")]), 200);
        assert_eq!(head("/channels/c-403", &[("Cookie", "user=1")]), 403);
    }
    assert_eq!(count.load(SeqCst), 2);
    assert_eq!(server.metric("newswire_authorize_cache_hits_total"), 4);
    // Any other client, channel, method or page is another question.
    for (target, fields) in [
        ("/channels/c", &[("Cookie", "user=2")][..]),
        ("/channels/c", &[]),
        ("/channels/c", &[("Cookie", "user=1"), ("Authorization", "Bearer x")]),
        ("/channels/c", &[("Cookie", "user=1"), ("Origin", "https://a.example")]),
        ("/channels/c?key=1", &[("Cookie", "user=1")]),
        ("/channels/d", &[("Cookie", "user=1")]),
        // Nor can the parts of one question be taken for those of another one.
        ("/channels/c", &[("Cookie", "user=1\tAuthorization: Bearer x")]),
    ] {
        let before = count.load(SeqCst);
        assert_eq!(head(target, fields), 200);
        assert_eq!(count.load(SeqCst), before + 1, "{target} {fields:?}");
    }
    assert_eq!(post(server.address, "c").status, 200);
    assert_eq!(count.load(SeqCst), 10);

    for not_kept in ["no-store, max-age=60", "max-age=0", "no-cache", "max-age=-1", "max-age=x", "s-maxage=60", ""] {
        let (server, count) = counting(not_kept);
        let streams = [1, 2].map(|_| Stream::open(server.address, "/channels/c", &[]));
        assert_eq!(count.load(SeqCst), 2, "{not_kept}");
        // And its streams have no end.
        thread::sleep(Duration::from_millis(1_500));
        assert_eq!(post(server.address, "c").status, 200);
        for mut stream in streams {
            assert_eq!(stream.next().expect("it is live").data, "x", "{not_kept}");
        }
    }
}

/// A cache that grows with what strangers send would be a way to fill the memory.
#[test]
fn the_kept_decisions_are_bounded() {
    let (server, count) = counting("max-age=3600");
    let question = |number: usize| {
        let cookie = format!("user={number}");
        ask(server.address, "HEAD", "/channels/c", &[("Cookie", &cookie)], "").status
    };
    (0..1_100).for_each(|number| assert_eq!(question(number), 200));
    assert_eq!(count.load(SeqCst), 1_100);
    assert_eq!(question(1_099), 200);
    assert_eq!(question(1_100 - 1_024), 200);
    assert_eq!(count.load(SeqCst), 1_100, "they are kept");
    assert_eq!(question(0), 200);
    assert_eq!(count.load(SeqCst), 1_101, "the oldest have gone");
    let long = format!("user={}", "x".repeat(8_000));
    let (server, count) = counting("max-age=3600");
    for _ in 0..2 {
        assert_eq!(ask(server.address, "HEAD", "/channels/c", &[("Cookie", &long)], "").status, 200);
    }
    assert_eq!(count.load(SeqCst), 2, "a large question is not kept");
}

#[test]
fn a_stream_ends_when_its_authorization_expires_and_the_application_is_asked_again() {
    let refuses = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&refuses);
    let server = start(&application(move |_| match told.load(SeqCst) {
        true => Response::text(Status::FORBIDDEN, "gone\n"),
        false => Response::text(Status::OK, "in\n").field("Cache-Control", "max-age=3"),
    }));
    let mut stream = Stream::subscribe(server.address, "c");
    assert_eq!(post(server.address, "c").status, 200);
    assert_eq!(stream.next().expect("it is live").data, "x");
    assert_eq!(stream.next(), None, "its time is over");
    eventually("it is counted", || server.metric("newswire_access_revoked_total") >= 1);
    // An EventSource goes on from there, until it is refused.
    let url = server.url("/channels/c");
    let mut source = EventSource::get(&url).expect("it is a URL").last_event_id("earliest");
    assert_eq!(source.next().expect("it is kept").expect("it is let in").data, "x");
    refuses.store(true, SeqCst);
    let error = source.next().expect("it comes back").expect_err("it is refused");
    assert!(error.to_string().contains("403"), "{error}");
}

/// The two together: a client that was sent away comes in when the application is back.
#[test]
fn an_event_source_waits_for_an_application_that_is_away() {
    let is_back = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_back);
    let server = start(&application(move |request| match told.load(SeqCst) {
        true => by_channel(request),
        false => Response::text(Status::INTERNAL_SERVER_ERROR, "broken\n"),
    }));
    let url = server.url("/channels/c");
    let source = EventSource::get(&url).expect("it is a URL").last_event_id("earliest");
    let waits = thread::spawn(move || source.into_iter().next());
    eventually("it was sent away", || server.metric("newswire_authorize_errors_total") == 1);
    is_back.store(true, SeqCst);
    assert_eq!(post(server.address, "c").status, 200);
    let event = waits.join().expect("it waits").expect("it goes on").expect("it is let in");
    assert_eq!(event.data, "x");
}

#[test]
fn only_an_http_url_can_be_asked() {
    for url in ["https://app.example/", "app.example", "ftp://app.example/", "http://", ""] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_newswire"));
        let output = command.args(["--authorize", url]).output().expect("the binary under test starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("--authorize"), "{url}: {said}");
    }
}

/// Each request that waits for the application keeps its connection meanwhile.
#[test]
fn an_application_that_hangs_is_asked_about_one_in_four_connections_at_a_time() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (asked, largest) = (Arc::clone(&now), Arc::clone(&most));
    let url = listener(move |mut socket| {
        let number = asked.fetch_add(1, SeqCst) + 1;
        largest.fetch_max(number, SeqCst);
        // Until the server has given up.
        let _ = socket.read_to_end(&mut Vec::new());
        asked.fetch_sub(1, SeqCst);
    });
    let options = ["--authorize", &url, "--heartbeat", "0", "--max-connections", "12"];
    let server = Server::start(&options);
    let address = server.address;
    let clients: Vec<_> = (0..10)
        .map(|number| {
            let target = format!("/channels/c{number}");
            thread::spawn(move || ask(address, "GET", &target, &[], ""))
        })
        .collect();
    for client in clients {
        assert_comes_back(&client.join().expect("it is answered"));
    }
    assert_eq!(server.metric("newswire_authorize_errors_total"), 10);
    assert!((1..=3).contains(&most.load(SeqCst)), "{most:?}");
}

/// One that looks at how the text begins must not let a client into the rest of a list.
#[test]
fn of_several_channels_each_has_a_question_of_its_own() {
    let server = start(&application(|request| {
        let channel = request.query("channel").unwrap_or_default();
        let is_public = channel.starts_with("public.");
        let age = if channel == "public.short" { "max-age=2" } else { "max-age=3600" };
        let status = if is_public { Status::OK } else { Status::FORBIDDEN };
        Response::text(status, "said\n").field("Cache-Control", age)
    }));
    let address = server.address;
    for names in ["public.a,secret", "secret,public.a", "public.*,secret", "public.a,*"] {
        let target = format!("/channels/{names}");
        for method in ["GET", "POST"] {
            assert_eq!(ask(address, method, &target, &[], "x").status, 403, "{method} {names}");
        }
    }
    assert_eq!(post(address, "public.a,public.b").status, 200);
    // Each decision is kept, and the one that ends first counts.
    let asked = server.metric("newswire_authorize_requests_total");
    assert_eq!(post(address, "public.a,public.b").status, 200);
    assert_eq!(server.metric("newswire_authorize_requests_total"), asked);
    let mut stream = Stream::subscribe(address, "public.a,public.short");
    assert_eq!(stream.next(), None, "its time is over");
}

/// Sixty-four answers one after the other would take too long.
#[test]
fn the_questions_about_several_channels_are_asked_at_the_same_time() {
    let together = Arc::new(Barrier::new(8));
    let server = start(&application(move |request| {
        together.wait();
        by_channel(request)
    }));
    assert_eq!(post(server.address, "a,b,c,d,e,f,g,h").status, 200);
}

#[test]
fn an_upload_ends_when_its_authorization_does() {
    let server = start(&application(|request| by_channel(request).field("Cache-Control", "max-age=3")));
    let mut upload = crate::keys::upload(server.address, "/channels/c?lines", "");
    assert_eq!(upload.read_to_end(&mut Vec::new()).unwrap_or(0), 0, "its time is over");
    eventually("it is counted", || server.metric("newswire_access_revoked_total") == 1);
}
