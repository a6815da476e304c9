//! The page in Chromium, used as a person uses it; what an EventSource makes of the laboratory; and pages that attack.

use crate::server::{Server, ask, eventually};
use crate::webdriver::{Browser, ENTER, Json, SPACE, TAB};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

const WORDS: [&str; 9] = ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog."];

/// Runs before the page's own script. It records violations of the policy, and each state of the words.
const RECORDER: &str = r#"
    window.violations = [];
    document.addEventListener("securitypolicyviolation",
        (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));
    window.states = [];
    document.addEventListener("readystatechange", () => {
        const state = document.getElementById("words-state");
        if (document.readyState !== "interactive" || !state) return;
        const record = () => states.push(state.textContent);
        new MutationObserver(record).observe(state, { childList: true });
    });
"#;

/// A browser at the page of a server with these arguments, or `None` where there is no browser.
fn visit(arguments: &[&str]) -> Option<(Server, Browser)> {
    let browser = Browser::start()?;
    let server = Server::start(arguments);
    browser.run_first(RECORDER);
    browser.open(&server.url("/"));
    Some((server, browser))
}

/// The console has only the page's own lines, no request went elsewhere, and nothing violated the policy. Returns the
/// lines.
fn assert_clean(browser: &Browser, server: &Server) -> Vec<String> {
    assert_clean_of(browser, &[&server.url("/")])
}

/// As [`assert_clean`], for pages from several origins.
fn assert_clean_of(browser: &Browser, places: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    for (level, text) in browser.console() {
        assert!(!matches!(&*level, "SEVERE" | "WARNING"), "{level}: {text}");
        lines.push(text);
    }
    for request in browser.requests() {
        // Chromium starts with a page of its own.
        let mut places = places.iter().chain(&["chrome:", "data:"]);
        let is_ours = places.any(|start| request.starts_with(start));
        assert!(is_ours, "a request to {request}");
    }
    assert_eq!(browser.run("return violations", &[]).items(), []);
    lines
}

fn texts(browser: &Browser, selector: &str) -> Vec<String> {
    let script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)";
    let found = browser.run(script, &[selector]);
    found.texts().into_iter().map(str::to_owned).collect()
}

fn set_size(browser: &Browser, width: u32) {
    let size = format!(r#"{{"width":{width},"height":900,"deviceScaleFactor":1,"mobile":false}}"#);
    browser.devtools("Emulation.setDeviceMetricsOverride", &size);
}

/// The person's preferences: `light` or `dark`, and `reduce` or `no-preference` for motion.
fn set_preferences(browser: &Browser, scheme: &str, motion: &str) {
    let features = format!(
        r#"{{"features":[{{"name":"prefers-color-scheme","value":"{scheme}"}},
        {{"name":"prefers-reduced-motion","value":"{motion}"}}]}}"#
    );
    browser.devtools("Emulation.setEmulatedMedia", &features);
}

#[test]
fn the_words_arrive_with_their_bytes_beside_them() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    browser.wait_for("document.querySelectorAll('.word').length > 0");
    assert_eq!(browser.text("#words-state"), "open (1)");
    browser.wait_for("document.querySelector('#words-state').textContent === 'closed (2)'");
    assert_eq!(texts(&browser, ".word"), WORDS);
    assert_eq!(browser.text("#words-id"), "9");
    assert!(browser.text("#words-since").ends_with(" s"));
    let states = browser.run("return states", &[]);
    assert_eq!(states.texts(), ["closed (2)", "connecting (0)", "open (1)", "closed (2)"]);

    // The wire shows what any other client reads.
    browser.wait_for("document.querySelector('#words-wire .closed')");
    let shown = browser.run(
        "const text = (span) => span.textContent + span.dataset.end;
         const of = (pre) => [...pre.querySelectorAll('span')].map(text).join('');
         return [...document.querySelectorAll('#words-wire pre')].map(of)",
        &[],
    );
    let sent = server.exchange("GET /lab?interval=0 HTTP/1.0\r\n\r\n");
    let (head, body) = sent.split_once("\r\n\r\n").expect("a head");
    let escaped = |text: &str| text.replace('\r', "\\r").replace('\n', "\\n");
    let (shown_head, shown_body) = shown.items().split_first().expect("a head is shown");
    let without_what_differs = |head: &str| {
        let fields = head.replace("\\r\\n", "\n");
        // The laboratory has a policy of its own, because a stranger may choose its bytes.
        let differs = |line: &&str| {
            !["Date:", "Content-Security-Policy:"].iter().any(|name| line.starts_with(name))
        };
        let kept: Vec<_> = fields.lines().filter(differs).collect();
        kept.join("\n").trim_end().to_owned()
    };
    assert_eq!(without_what_differs(shown_head.text()), without_what_differs(&escaped(head)));
    // The reconnection time differs from stream to stream, so that not all clients come back at once.
    let without_retry = |body: &str| {
        let (start, rest) = body.split_once("retry: ").expect("a reconnection time");
        format!("{start}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
    };
    let shown_body: String = shown_body.iter().map(Json::text).collect();
    assert_eq!(without_retry(&shown_body), without_retry(&escaped(body)));
    // Beside each block stands the event that it became.
    let made = texts(&browser, "#words-wire .event .text");
    assert_eq!(made, WORDS);
    assert_eq!(browser.text("#words-wire .open div"), "open: readyState is 1");

    let lines = assert_clean(&browser, &server);
    let mut expected = vec!["connection is established".to_owned()];
    expected.extend((1..).zip(WORDS).map(|(id, word)| format!("id: {id}, data: {word}")));
    expected.push("connection is closed".to_owned());
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.ends_with(&format!("\"{expected}\"")), "{line} is not {expected}");
    }
    assert!(server.said().contains("GET /sse/mvc/words?line="));
    // A page that is done holds no connection.
    let connections = || server.metric("newswire_connections");
    eventually("an idle connection or two", || connections() <= 3);
}

#[test]
fn a_cut_line_comes_back_with_the_next_word() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    // Slowly, so that a busy machine has the time to cut it.
    browser.click("#words-slower");
    browser.wait_for(
        "document.querySelector('#words-state').textContent === 'open (1)'
         && document.querySelectorAll('.word').length >= 2",
    );
    browser.click("#words-cut");
    browser.wait_for("document.querySelector('#words-wire .failed')");
    let told = browser.text("#words-wire .failed div");
    let (_, id) = told.split_once("with Last-Event-ID: ").unwrap_or_else(|| panic!("{told}"));
    browser.wait_for("document.querySelector('.seam')");
    assert_eq!(browser.text(".seam"), format!("cut, and back after {id}"));
    let states = browser.run("return states", &[]);
    let cut = ["open (1)", "connecting (0)", "open (1)"];
    assert!(states.texts().ends_with(&cut), "{states:?}");
    // At another pace the stream goes on behind the last word.
    for _ in 0..3 {
        browser.click("#words-faster");
    }
    browser.wait_for("document.querySelectorAll('.word').length === 9");
    assert_eq!(texts(&browser, ".word"), WORDS);
    let lines = assert_clean(&browser, &server);
    let noted = |line: &&String| line.contains("connection state: 0, error:");
    assert_eq!(lines.iter().filter(noted).count(), 1, "{lines:?}");

    // From the beginning and at the highest pace, there is no higher one.
    browser.click("#words-start");
    for _ in 0..4 {
        browser.click("#words-faster");
    }
    assert_eq!(browser.text("#words-pace"), "fifty words a second");
    browser.wait_for("document.querySelectorAll('.word').length === 9");
    assert_eq!(texts(&browser, ".word"), WORDS);
    let can = "return document.querySelector('#words-faster').getAttribute('aria-disabled')";
    assert_eq!(browser.run(can, &[]).text(), "true");
    browser.click("#words-slower");
    assert_eq!(browser.text("#words-pace"), "ten words a second");
    assert_clean(&browser, &server);
}

#[test]
fn the_laboratory_plays_what_the_form_asks_for() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    // A link to /lab leads to the laboratory on the page.
    browser.open(&server.url("/lab"));
    assert_eq!(browser.url(), server.url("/#lab"));

    browser.fill("[name=text]", "to be or not");
    browser.fill("[name=event]", "token");
    browser.fill("[name=interval]", "200");
    browser.fill("[name=retry]", "50");
    browser.fill("[name=cut]", "2");
    browser.run("document.querySelector('[name=newline]').value = 'crlf'", &[]);
    browser.fill("[name=lines]", "2");
    let query = "text=to+be+or+not&event=token&lines=2&interval=200&retry=50&newline=crlf&cut=2";
    let url = server.url(&format!("/lab?{query}"));
    assert_eq!(browser.text("#lab-url"), url);
    assert_eq!(browser.text("#lab-curl"), format!("curl -N '{url}'"));
    browser.click("[form=order]");
    browser.wait_for("/^204/.test(document.querySelector('#lab-why').textContent)");
    assert_eq!(browser.text("#lab-events"), "4");
    assert_eq!(browser.text("#lab-id"), "4");
    assert_eq!(browser.text("#lab-state"), "closed (2)");
    let summary = browser.text("#lab-summary");
    assert!(summary.contains("4 events") && summary.contains("2 connections"), "{summary}");
    let made = texts(&browser, "#lab-wire .event");
    let expected = |(id, word): (usize, &&str)| {
        format!(
            "id: {id}event: tokendata: {word}data: {word}{word}\n{word} token, id {id}",
            id = id + 1
        )
    };
    let events = ["to", "be", "or", "not"];
    assert_eq!(made, events.iter().enumerate().map(expected).collect::<Vec<_>>());
    // The timeline is a picture. It has the colour of events, and that of an end.
    let colours = browser.run(
        "const canvas = document.querySelector('#timeline'), pen = canvas.getContext('2d');
         const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
         const style = getComputedStyle(canvas);
         const count = (name) => {
           pen.fillStyle = style.getPropertyValue(name);
           const hex = parseInt(pen.fillStyle.slice(1), 16);
           let found = 0;
           for (let at = 0; at < data.length; at += 4)
             found += data[at] << 16 === (hex & 0xff0000) && data[at + 2] === (hex & 255);
           return found;
         };
         return [count('--event'), count('--cut')].map(String)",
        &[],
    );
    assert!(colours.texts().iter().all(|count| *count != "0"), "{colours:?}");
    assert_clean(&browser, &server);

    // For impossible parameters the page shows the server's own sentence.
    browser.fill("[name=cut]", "9");
    browser.click("[form=order]");
    browser
        .wait_for("/cut is less than count/.test(document.querySelector('#lab-why').textContent)");
    assert_eq!(browser.text("#lab-state"), "closed (2)");
    let refused: Vec<_> = browser.console();
    assert!(refused.iter().any(|(_, text)| text.contains("400")), "{refused:?}");

    let take = |name: &str| {
        browser.run(
            "[...document.querySelectorAll('#presets button')]
               .find((b) => b.textContent.includes(arguments[0])).id = 'wanted'",
            &[name],
        );
        browser.click("#wanted");
        browser.run("document.querySelector('#wanted').id = ''", &[]);
    };
    take("never comes back");
    browser.wait_for("/status 503/.test(document.querySelector('#lab-why').textContent)");
    assert_eq!(browser.text("#lab-events"), "0");
    browser.console();

    take("nightmare");
    browser.wait_for("/^204/.test(document.querySelector('#lab-why').textContent)");
    assert_eq!(browser.text("#lab-events"), "9");
    let unfinished = texts(&browser, "#lab-wire li").concat();
    assert!(unfinished.contains("discarded: no empty line came"), "{unfinished}");
    assert!(unfinished.contains("[BOM]: newswire"), "{unfinished}");

    take("tokens");
    browser.wait_for("document.querySelector('#lab-events').textContent === '46'");
    browser.wait_for("/^204/.test(document.querySelector('#lab-why').textContent)");

    take("mobile");
    let heard = |least: u32| {
        browser.wait_for(&format!(
            "Number(document.querySelector('#lab-events').textContent) >= {least}"
        ));
    };
    // It runs long enough to be cut again.
    browser.fill("[name=count]", "2000");
    browser.click("[form=order]");
    browser.wait_for("document.querySelector('#lab-wire .failed')");
    heard(20);
    let summary = browser.text("#lab-summary");
    assert!(summary.contains("2 connections") && !summary.contains(" 0 comments"), "{summary}");
    browser.click("#lab-cut");
    browser.wait_for("/3 connections/.test(document.querySelector('#lab-summary').textContent)");
    let before = browser.text("#lab-events").parse::<u32>().expect("a number");
    heard(before + 5);
    // No event is missing and none came twice: their number is the id of the last.
    let count_and_id = "return ['events', 'id'].map((name) =>
           document.getElementById(`lab-${name}`).textContent.replace(/,/g, ''))";
    let count_and_id = browser.run(count_and_id, &[]);
    assert_eq!(count_and_id[0], count_and_id[1]);
    browser.click("#lab-stop");
    assert_eq!(browser.text("#lab-state"), "closed (2)");

    take("silent");
    browser.wait_for("document.querySelector('#lab-events').textContent === '5'");
    assert_eq!(browser.text("#lab-state"), "open (1)");
    browser.click("#lab-stop");
    assert_clean(&browser, &server);
}

#[test]
fn a_thousand_events_a_second_leave_no_heap_behind() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    browser.wait_for("document.querySelectorAll('.word').length === 9");
    browser.devtools("Performance.enable", "{}");
    // The page watches the wire too, so that twice as many events come.
    browser.fill("[name=count]", "30000");
    browser.fill("[name=interval]", "1");
    browser.fill("[name=size]", "100");
    // Frames drawn in a second, before and while the events come.
    let frames_per_second = || {
        let count = "const until = performance.now() + 2000;
             let frames = 0;
             while (performance.now() < until) {
                 await new Promise(requestAnimationFrame);
                 frames++;
             }
             return frames / 2;";
        browser.run_async(count, &[]).number()
    };
    let calm = frames_per_second();
    browser.click("[form=order]");
    let measure = || {
        browser.devtools("HeapProfiler.collectGarbage", "{}");
        let metrics = browser.devtools("Performance.getMetrics", "{}");
        let of = |name: &str| {
            let found = metrics["metrics"].items().iter().find(|m| m["name"].text() == name);
            found.expect("there is such a metric")["value"].number()
        };
        (of("Nodes"), of("JSHeapUsedSize") / 1e6)
    };
    let heard = |least: &str| {
        browser.wait_for(&format!(
            "Number(document.querySelector('#lab-events').textContent.replace(/,/g, '')) >= {least}"
        ));
    };
    heard("3000");
    let (nodes_before, heap_before) = measure();
    let busy = frames_per_second();
    assert!(busy > calm / 10.0, "{calm} frames a second became {busy}");
    // In steps, because a busy machine takes long.
    for least in ["9000", "16000", "22000", "28000"] {
        heard(least);
    }
    let (nodes, heap) = measure();
    let elements = browser.run("return String(document.querySelectorAll('*').length)", &[]);
    let elements: u32 = elements.text().parse().expect("a number");
    assert!(elements < 3000, "{elements} elements");
    assert!(nodes < nodes_before + 10000.0, "{nodes_before} nodes became {nodes}");
    assert!(heap < heap_before + 8.0, "{heap_before} MB became {heap}");
    heard("30000");
    browser.wait_for("/^204/.test(document.querySelector('#lab-why').textContent)");
    assert_eq!(browser.text("#lab-events"), "30,000");
    assert_eq!(browser.text("#lab-id"), "30000");
    assert_clean(&browser, &server);
}

/// A network link to a server that can be cut, as a mobile network is.
struct Link {
    address: SocketAddr,
    is_down: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Link {
    fn to(server: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let link = Link {
            address: listener.local_addr().expect("it listens"),
            is_down: Arc::default(),
            sockets: Arc::default(),
        };
        let (is_down, sockets) = (Arc::clone(&link.is_down), Arc::clone(&link.sockets));
        thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { continue };
                let far = TcpStream::connect(server).ok();
                let Some(far) = far.filter(|_| !is_down.load(Relaxed)) else {
                    continue;
                };
                let copy = |socket: &TcpStream| socket.try_clone().expect("a descriptor");
                let both = [copy(&near), copy(&far)];
                sockets.lock().expect("no thread panics").extend(both);
                for (mut from, mut to) in [(copy(&near), copy(&far)), (far, near)] {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        link
    }

    fn cut(&self) {
        self.is_down.store(true, Relaxed);
        for socket in self.sockets.lock().expect("no thread panics").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.is_down.store(false, Relaxed);
    }
}

/// Scrolls to the channel, which the page joins when it is in view.
fn look_at_channel(browser: &Browser) {
    browser.run("document.querySelector('#channel').scrollIntoView()", &[]);
    browser.wait_for("document.querySelector('#channel-state').textContent === 'open (1)'");
}

/// Publishes as curl does.
fn publish(server: &Server, path: &str, content: &str) {
    let answer = server.exchange(format!(
        "POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{content}",
        server.address,
        content.len()
    ));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_channel_reaches_two_windows_and_says_what_is_lost() {
    let Some((server, browser)) = visit(&["--publish-open", "--history-events", "5"]) else {
        return;
    };
    let one = browser.window();
    look_at_channel(&browser);

    // The other window reaches the server over a link that can be cut.
    let link = Link::to(server.address);
    let other = browser.new_window("window");
    browser.switch_to(&other);
    let other_place = format!("http://{}/", link.address);
    browser.open(&other_place);
    look_at_channel(&browser);
    browser.wait_for("/2 listening/.test(document.querySelector('#channel-count').textContent)");

    browser.switch_to(&one);
    browser.fill("#channel-text", "extra, extra");
    browser.click("#publish .main");
    browser.wait_for("document.querySelectorAll('#channel-log .event').length === 1");
    browser.wait_for("/2 listening/.test(document.querySelector('#channel-count').textContent)");
    let here = texts(&browser, "#channel-log li");
    assert!(here[0].contains("extra, extra"), "{here:?}");
    browser.switch_to(&other);
    browser.wait_for("document.querySelectorAll('#channel-log .event').length === 1");
    // The same event, with the same id.
    assert_eq!(texts(&browser, "#channel-log li"), here);

    // After the cut it misses two events, reconnects by itself, and gets them in order.
    link.cut();
    browser.wait_for("/connecting/.test(document.querySelector('#channel-state').textContent)");
    publish(&server, "/channels/news", "first");
    publish(&server, "/channels/news", "second");
    link.mend();
    browser.wait_for("document.querySelectorAll('#channel-log .event').length === 3");
    let log = texts(&browser, "#channel-log .event .text");
    assert_eq!(log, ["extra, extra", "first", "second"]);
    assert_eq!(texts(&browser, "#channel-log .gap"), [""; 0]);

    // When the server has dropped events meanwhile, the page says so.
    link.cut();
    browser.wait_for("/connecting/.test(document.querySelector('#channel-state').textContent)");
    for number in 1..=7 {
        publish(&server, "/channels/news", &format!("edition {number}"));
    }
    link.mend();
    browser.wait_for("document.querySelectorAll('#channel-log .event').length === 8");
    let log = texts(&browser, "#channel-log li");
    let gap = log.iter().position(|row| row.contains("may be lost")).expect("a gap is shown");
    assert!(log[gap + 1].contains("edition 3"), "{log:?}");

    // The window that stayed connected has every event once.
    browser.switch_to(&one);
    browser.wait_for("document.querySelectorAll('#channel-log .event').length === 10");
    let log = texts(&browser, "#channel-log .event .text");
    assert_eq!(log[3..], [1, 2, 3, 4, 5, 6, 7].map(|n| format!("edition {n}")));

    // After leaving and joining again, the page gets what it missed.
    browser.click("#channel-join");
    assert_eq!(browser.text("#channel-state"), "closed (2)");
    publish(&server, "/channels/news", "meanwhile");
    browser.click("#channel-join");
    browser.wait_for("document.querySelectorAll('#channel-log .event').length === 11");

    // The page listens to the type that the form names. The log has a bounded length.
    browser.fill("#channel-type", "weather");
    browser.fill("#channel-text", "Rain");
    browser.press(&[ENTER]);
    browser.wait_for("/Rain weather/.test(document.querySelector('#channel-log').textContent)");
    let lines: String = (1..=600).map(|n| format!("line {n}\n")).collect();
    publish(&server, "/channels/news?lines", &lines);
    browser.wait_for("/line 600/.test(document.querySelector('#channel-log').textContent)");
    assert!(texts(&browser, "#channel-log li").len() <= 200);
    assert_clean_of(&browser, &[&server.url("/"), &other_place]);

    // Another channel, from its first event to its end.
    browser.fill("#channel-name", "sports");
    browser.click("#channel-join");
    browser.wait_for("document.querySelector('#channel-state').textContent === 'open (1)'");
    let lines = texts(&browser, "#channel code").concat();
    assert_eq!(lines.matches("/channels/sports").count(), 3, "{lines}");
    publish(&server, "/channels/sports", "goal");
    browser.wait_for("document.querySelectorAll('#channel-log .event').length === 1");
    let delete = format!("DELETE /channels/sports HTTP/1.0\r\nHost: {}\r\n\r\n", server.address);
    assert!(server.exchange(delete).starts_with("HTTP/1.1 204 "));
    browser.wait_for("/completed/.test(document.querySelector('#channel-log').textContent)");
    browser.wait_for("document.querySelector('#channel-state').textContent === 'closed (2)'");

    // A server that was killed and started again has lost its events, and says so.
    browser.fill("#channel-name", "news");
    browser.click("#channel-join");
    browser.wait_for("document.querySelector('#channel-state').textContent === 'open (1)'");
    publish(&server, "/channels/news", "the last");
    browser.wait_for("/the last/.test(document.querySelector('#channel-log').textContent)");
    let again = |mut server: Server| {
        server.kill();
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["--publish-open", "--listen", &server.address.to_string()]);
        Server::spawn(command)
    };
    let server = again(server);
    browser.wait_for("document.querySelector('#channel-state').textContent === 'open (1)'");
    browser.wait_for("document.querySelector('#channel-log .gap')");
    publish(&server, "/channels/news", "the first");
    browser.wait_for("/the first/.test(document.querySelector('#channel-log').textContent)");

    // A gap has no id. A page that leaves and joins again after it still resumes behind its last event.
    browser.click("#channel-join");
    let server = again(server);
    browser.click("#channel-join");
    browser.wait_for("document.querySelectorAll('#channel-log .gap').length === 2");
    browser.click("#channel-join");
    publish(&server, "/channels/news", "between");
    browser.click("#channel-join");
    browser.wait_for("/between/.test(document.querySelector('#channel-log').textContent)");
}

#[test]
fn the_page_says_why_publishing_was_refused() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let closed = Server::start(&[]);
    browser.open(&closed.url("/"));
    look_at_channel(&browser);
    browser.click("#publish .main");
    browser.wait_for("/Publishing is off/.test(document.querySelector('#channel-why').innerText)");
    browser.wait_for("!document.querySelector('#channel-token').checkVisibility()");

    let secret = temporary_directory("token").join("token");
    fs::write(&secret, "swordfish\n").expect("it is a directory of ours");
    let guarded = Server::start(&["--publish-token-file", &secret.display().to_string()]);
    browser.open(&guarded.url("/"));
    look_at_channel(&browser);
    browser.click("#publish .main");
    browser
        .wait_for("/needs Authorization/.test(document.querySelector('#channel-why').innerText)");
    // The field for the token is there, and has the focus.
    browser.wait_for("document.activeElement.id === 'channel-token'");
    browser.press(&['x', ENTER]);
    browser.wait_for("document.querySelector('#channel-why').innerText !== ''");
    browser.fill("#channel-token", "swordfish");
    browser.press(&[ENTER]);
    browser.wait_for("document.querySelectorAll('#channel-log .event').length === 1");
    browser.wait_for("document.querySelector('#channel-why').innerText === ''");
    let _ = fs::remove_dir_all(secret.parent().expect("it is in a directory"));
}

#[test]
fn many_tabs_share_six_connections() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    let first = browser.window();
    look_at_channel(&browser);
    let subscribers = || server.metric("newswire_subscribers");
    eventually("the words are not watched any more", || subscribers() == 1);
    // More tabs than a browser has connections. Each is visible for a moment, then hidden.
    for _ in 0..8 {
        let tab = browser.new_window("tab");
        browser.switch_to(&tab);
        browser.open(&server.url("/"));
        browser.wait_for("document.querySelector('.word')");
    }
    // The first tab disconnected while it was hidden. When it is visible again, it asks for what it missed.
    eventually("there is no subscriber", || subscribers() == 0);
    publish(&server, "/channels/news", "while you were away");
    browser.switch_to(&first);
    browser.devtools("Page.bringToFront", "{}");
    browser
        .wait_for("/while you were away/.test(document.querySelector('#channel-log').innerText)");
    assert_clean(&browser, &server);
}

#[test]
fn a_keyboard_is_enough() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    browser.wait_for("document.querySelectorAll('.word').length === 9");
    // The tab key reaches every control in the order of the page, and each shows its focus.
    let wanted = browser.run(
        "const all = 'a[href], button, input, select, summary, [tabindex=\"0\"]';
         return [...document.querySelectorAll(all)].filter((e) => e.checkVisibility())
           .map((e, at) => { e.dataset.order = at; return String(at); })",
        &[],
    );
    let mut reached = Vec::new();
    for _ in 0..wanted.items().len() {
        browser.press(&[TAB]);
        let at = browser.run(
            "const e = document.activeElement, style = getComputedStyle(e);
             const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
             return seen ? e.dataset.order ?? e.outerHTML : 'unseen: ' + e.outerHTML",
            &[],
        );
        reached.push(at.text().to_owned());
    }
    assert_eq!(reached, wanted.texts());

    // The keyboard works each control.
    let focus = |selector: &str| {
        let script = "document.querySelector(arguments[0]).focus()";
        browser.run(script, &[selector]);
    };
    focus("#words-start");
    browser.press(&[ENTER, TAB]);
    browser.wait_for("document.querySelectorAll('.word').length >= 1");
    browser.press(&[SPACE]);
    browser.wait_for("document.querySelector('#words-wire .failed')");
    let focused = browser.run("return document.activeElement.id", &[]);
    assert_eq!(focused.text(), "words-cut", "the button keeps the focus");
    browser.wait_for("document.querySelectorAll('.word').length === 9");
    focus("[name=count]");
    browser.press(&['3', TAB, TAB, TAB]);
    focus("[name=interval]");
    browser.press(&['9', ENTER]);
    browser.wait_for("document.querySelector('#lab-events').textContent === '3'");
    focus("#channel-text");
    browser.wait_for("document.querySelector('#channel-state').textContent === 'open (1)'");
    browser.press(&['!', ENTER]);
    browser.wait_for("document.querySelectorAll('#channel-log .event').length === 1");
    // Each control has a name for a screen reader.
    let tree = browser.devtools("Accessibility.getFullAXTree", "{}");
    let role = |node: &Json| node["role"]["value"].text().to_owned();
    let mut named = 0;
    for node in tree["nodes"].items().iter().filter(|node| node["ignored"] == Json::False) {
        let wants_name = ["button", "textbox", "spinbutton", "combobox", "checkbox", "link", "img"];
        if wants_name.contains(&&*role(node)) {
            assert_ne!(node["name"]["value"], Json::Text(String::new()), "{node:?}");
            named += 1;
        }
    }
    assert!(named > 40, "{named} names");
    assert_clean(&browser, &server);
}

#[test]
fn the_page_fits_every_width_and_has_contrast_in_both_schemes() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    look_at_channel(&browser);
    publish(&server, "/channels/news", "a-word-that-is-longer-than-any-line-".repeat(9).as_str());
    browser.wait_for("document.querySelector('#channel-log .event')");
    browser.fill("[name=text]", &"unbroken".repeat(40));
    browser.click("[form=order]");
    browser.wait_for("document.querySelector('#lab-wire .event')");
    for scheme in ["light", "dark"] {
        set_preferences(&browser, scheme, "reduce");
        for width in [320, 768, 1600] {
            set_size(&browser, width);
            let is_too_wide = "const { scrollWidth, clientWidth } = document.documentElement;
                               return scrollWidth > clientWidth";
            assert_eq!(browser.run(is_too_wide, &[]), Json::False, "{scheme} {width}");
            // No text sticks out of its box either.
            let out = browser.run(
                "return [...document.querySelectorAll('main *')].filter((e) =>
                   e.checkVisibility() && !/^(INPUT|SELECT|CANVAS)$/.test(e.tagName) &&
                   e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0).map((e) => e.outerHTML)",
                &[],
            );
            assert_eq!(out.texts(), [""; 0], "{scheme} {width}");
            let dim = browser.run(CONTRAST, &[]);
            assert_eq!(dim.texts(), [""; 0], "{scheme} {width}");
            let small = browser.run(
                "return [...document.querySelectorAll('button, input, select, nav a, summary')]
                   .filter((e) => e.checkVisibility() && e.type !== 'checkbox')
                   .filter((e) => e.getBoundingClientRect().height < 24).map((e) => e.outerHTML)",
                &[],
            );
            assert_eq!(small.texts(), [""; 0], "{scheme} {width}");
        }
    }
    let moving = "return String(document.getAnimations().length)";
    assert_eq!(browser.run(moving, &[]).text(), "0", "with reduced motion there is no animation");
    set_preferences(&browser, "light", "no-preference");
    assert_clean(&browser, &server);
}

/// Texts with less contrast than 4.5 (WCAG 2.2, 1.4.3), or 3 for a button that is off.
const CONTRAST: &str = r#"
    const rgb = (color) => color.match(/[\d.]+/g).map(Number);
    const light = (color) => rgb(color).slice(0, 3).map((c) => c / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (e) => {
        for (; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if ((rgb(color)[3] ?? 1) === 1) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const found = [];
    for (const e of document.querySelectorAll("body *")) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own && !/^(INPUT|SELECT)$/.test(e.tagName) || !e.checkVisibility()) continue;
        const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => b - a);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < (e.ariaDisabled === "true" ? 3 : 4.5)) found.push(`${ratio} ${e.outerHTML}`);
    }
    return found;
"#;

#[test]
fn without_javascript_the_page_says_how_to_read_the_stream_with_curl() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::start(&[]);
    browser.run_first("delete window.EventSource");
    browser.open(&server.url("/"));
    let text = browser.text("main");
    assert!(text.contains("This browser has no EventSource"), "{text}");
    assert!(text.contains(&format!("curl -N {}", server.url("/sse/mvc/words"))), "{text}");
    assert!(text.contains("What it is, and is not") && !text.contains("Cut the line"), "{text}");

    browser.devtools("Emulation.setScriptExecutionDisabled", r#"{"value":true}"#);
    browser.open(&server.url("/?again"));
    let text = browser.text("main");
    assert!(text.contains("JavaScript is off"), "{text}");
    assert!(text.contains("curl -N http://127.0.0.1:8080/sse/mvc/words"), "{text}");
    assert!(text.contains("What it is, and is not") && !text.contains("Cut the line"), "{text}");
}

/// What an EventSource reports of a URL, a line for each: `open`, `error STATE`, and an event's type, last event ID and
/// data. It ends when the EventSource gives up, or has failed `most` times.
const LISTEN: &str = r#"
    const [url, most, credentials] = given, log = [];
    return new Promise((resolve) => {
        const source = new EventSource(url, { withCredentials: credentials === "credentials" });
        let failed = 0;
        source.onopen = () => log.push("open");
        source.onerror = () => {
            log.push(`error ${source.readyState}`);
            failed++;
            if (source.readyState === 2 || failed == most) {
                source.close();
                resolve(log);
            }
        };
        for (const type of ["message", "token"]) {
            source.addEventListener(type, ({ data, lastEventId }) => {
                const shown = data.length < 99 ? data : `${data.length} characters`;
                log.push(`${type} ${lastEventId} ${shown}`);
            });
        }
    });
"#;

fn listen(browser: &Browser, url: &str, most: u32) -> Vec<String> {
    let log = browser.run_async(LISTEN, &[url, &most.to_string()]);
    log.texts().into_iter().map(str::to_owned).collect()
}

/// Each parameter of the laboratory, and what the standard (HTML, 9.2) says of it.
#[test]
fn an_event_source_reads_each_stream_of_the_laboratory_as_the_standard_says() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::start(&[]);
    // A page of this origin that has no stream of its own.
    browser.open(&server.url("/healthz"));
    let fails = |query: &str| {
        let log = listen(&browser, &server.url(&format!("/lab?{query}")), 9);
        assert_eq!(log, ["error 2"], "{query}");
    };
    let says = |query: &str, most: u32, expected: &[&str]| {
        let query = format!("text=a+b+c&interval=0&retry=9&{query}");
        let log = listen(&browser, &server.url(&format!("/lab?{query}")), most);
        assert_eq!(log, expected, "{query}");
    };
    // The stream ends, the browser asks again, gets 204, and gives up.
    let abc = ["open", "message 1 a", "message 2 b", "message 3 c", "error 0", "error 2"];
    says("", 9, &abc);

    // What the events are
    says("count=1", 9, &["open", "message 1 a", "error 0", "error 2"]);
    says("count=1&event=token", 9, &["open", "token 1 a", "error 0", "error 2"]);
    // Without ids the same events come again and again.
    let again = ["open", "message  a", "error 0"].repeat(3);
    says("count=1&id=off", 3, &again);
    says("count=1&lines=3", 9, &["open", "message 1 a\na\na", "error 0", "error 2"]);
    says("count=1&size=7&lines=2", 9, &["open", "message 1 a a\na .", "error 0", "error 2"]);
    // Empty data is data.
    says("count=1&size=0", 9, &["open", "message 1 ", "error 0", "error 2"]);
    let large = ["open", "message 1 4194304 characters", "error 0", "error 2"];
    says("count=1&size=4194304", 9, &large);
    says("count=1&binary=3", 9, &["open", "message 1 AQID", "error 0", "error 2"]);
    let text = ["open", "message 1 Grüße", "message 2 🎉", "error 0", "error 2"];
    let log = listen(&browser, &server.url("/lab?text=Grüße+🎉&interval=0&retry=9&chunk=1"), 9);
    assert_eq!(log, text);

    // The bytes differ, the events are the same.
    for query in [
        "newline=lf",
        "newline=cr",
        "newline=crlf",
        "bom=on",
        "chunk=1",
        "chunk=2",
        "chunk=3",
        "chunk=7",
        "garbage=on",
        "heartbeat=10&interval=50",
        "type=text/event-stream;charset=utf-8",
        "status=200",
        "newline=crlf&bom=on&chunk=1&garbage=on",
        "newline=cr&bom=on&chunk=1&garbage=on",
        "redirect=301",
        "redirect=302",
        "redirect=303",
        "redirect=307",
        "redirect=308",
        "line=x",
    ] {
        says(query, 9, &abc);
    }

    // What goes wrong once
    let healed = [
        "open",
        "message 1 a",
        "message 2 b",
        "error 0",
        "open",
        "message 3 c",
        "error 0",
        "error 2",
    ];
    says("cut=2", 9, &healed);
    says("stall=1&silence=100", 9, &abc);
    let loops = ["open", "message 1 a", "error 0", "open", "message 1 a", "error 0"];
    says("count=1&complete=loop", 2, &loops);

    // What goes wrong for good
    for status in [201, 204, 205, 206, 301, 304, 400, 401, 404, 410, 429, 500, 502, 503, 599] {
        fails(&format!("status={status}"));
    }
    for of_type in ["text/plain", "text/event-streams", "application/json", "text/x-bogus"] {
        fails(&format!("type={of_type}"));
    }
    fails("count=0");
    fails("redirect=302&status=500");

    // Events come no earlier than asked for. How much later depends on the machine.
    let times = |query: &str| -> Vec<f64> {
        let script = "const [url] = given, times = [];
             return new Promise((resolve) => {
               const source = new EventSource(url), note = () => times.push(performance.now());
               source.onopen = source.onmessage = note;
               source.onerror = () => { note(); if (source.readyState === 2) resolve(times); };
             });";
        let times = browser.run_async(script, &[&server.url(&format!("/lab?text=a+b&{query}"))]);
        let times: Vec<_> = times.items().iter().map(Json::number).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    };
    // open, a, b, the end, 204
    let paced = times("interval=300&retry=0");
    assert!(paced.len() == 4 && paced[1] > 250.0 && paced[2] > 250.0, "{paced:?}");
    let patient = times("interval=0&retry=700");
    assert!(patient.len() == 4 && patient[3] > 650.0, "{patient:?}");
    let silent = times("interval=0&retry=0&stall=1&silence=500");
    assert!(silent.len() == 4 && silent[1] > 450.0, "{silent:?}");
}

fn temporary_directory(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("page-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).expect("a directory of ours");
    path
}

#[test]
fn a_page_of_another_origin_reads_what_the_policy_allows() {
    let Some(browser) = Browser::start() else {
        return;
    };
    // A page of another origin
    let site = temporary_directory("site");
    fs::write(site.join("index.html"), "<!doctype html><title>Elsewhere</title>").expect("ours");
    let elsewhere = Server::start(&["--www", &site.display().to_string()]);
    let open = Server::start(&[]);
    browser.open(&elsewhere.url("/"));

    // The usual example
    let words = browser.run_async(
        "const [url] = given, words = [];
         return new Promise((resolve) => {
           const source = new EventSource(url);
           source.onmessage = ({ data, lastEventId }) => {
             words.push(`${lastEventId} ${data}`);
             if (data.endsWith('.')) { source.close(); resolve(words); }
           };
           source.onerror = () => resolve(['error']);
         });",
        &[&open.url("/sse/mvc/words")],
    );
    let expected: Vec<_> = (1..).zip(WORDS).map(|(id, word)| format!("{id} {word}")).collect();
    assert_eq!(words.texts(), expected);
    // After a cut: Last-Event-ID needs no preflight.
    let cut = "/lab?text=a+b&interval=0&retry=9&cut=1";
    let healed = ["open", "message 1 a", "error 0", "open", "message 2 b", "error 0", "error 2"];
    assert_eq!(listen(&browser, &open.url(cut), 9), healed);
    // The page can read a refusal.
    let refusal = "const response = await fetch(given[0]);
                   return `${response.status} ${await response.text()}`";
    let refusal = browser.run_async(refusal, &[&open.url("/lab?cut=x")]);
    assert!(refusal.text().starts_with("400 cut is a number"), "{refusal:?}");
    // Any origin may read, but without credentials.
    let with_credentials = |url: &str| {
        let log = browser.run_async(LISTEN, &[url, "9", "credentials"]);
        log.texts().join(", ")
    };
    let one = "/lab?text=a&interval=0&retry=9";
    let heard = "open, message 1 a, error 0, error 2";
    assert_eq!(with_credentials(&open.url(one)), "error 2");

    // Where the command line names origins, the named one may read with credentials. Another origin may not.
    let origin = elsewhere.url("");
    let narrow = Server::start(&["--allow-origin", &origin, "--publish-open"]);
    assert_eq!(listen(&browser, &narrow.url(one), 9).join(", "), heard);
    assert_eq!(with_credentials(&narrow.url(one)), heard);
    let publish =
        "const init = { method: 'POST', body: 'x', headers: { Authorization: 'Bearer y' } };
                   return fetch(given[0], init).then((r) => `${r.status}`, () => 'refused')";
    let published = browser.run_async(publish, &[&narrow.url("/channels/a")]);
    assert_eq!(published.text(), "200");
    browser.open(&format!("http://localhost:{}/", elsewhere.address.port()));
    assert_eq!(listen(&browser, &narrow.url(one), 9).join(", "), "error 2");
    assert_eq!(with_credentials(&narrow.url(one)), "error 2");
    let published = browser.run_async(publish, &[&narrow.url("/channels/a")]);
    assert_eq!(published.text(), "refused");
    assert_eq!(listen(&browser, &open.url(one), 9).join(", "), heard);
    let _ = fs::remove_dir_all(site);
}

/// A page of another origin shows a frame whose bytes it has chosen, in the origin of the server: what runs there would
/// pass for the server's own page.
#[test]
fn nothing_runs_in_a_frame_whose_bytes_a_foreign_page_has_chosen() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = temporary_directory("attack");
    fs::write(site.join("index.html"), "<!doctype html><title>Elsewhere</title>").expect("ours");
    let elsewhere = Server::start(&["--www", &site.display().to_string()]);
    browser.open(&elsewhere.url("/"));
    let named = ["--publish-open", "--allow-origin", "https://named.example"];
    for arguments in [&named[..1], &named] {
        let server = Server::start(arguments);
        for media_type in ["text/html", "image/svg+xml", "application/xhtml+xml", "text/xml"] {
            let script = "const [url, type] = given, told = [];
                 onmessage = ({ data }) => told.push(data);
                 const attack = `parent.postMessage('ran','*');
                   fetch('/channels/news',{method:'POST',body:'x'}).then(r=>parent.postMessage(r.status,'*'));
                   fetch('/channels').then(r=>r.text()).then(t=>parent.postMessage(t,'*'))`.replace(/\\s/g, '');
                 const text = `<svg/xmlns='http://www.w3.org/2000/svg'><script>${attack}</script></svg>`;
                 const frame = document.createElement('iframe');
                 frame.src = `${url}/lab?${new URLSearchParams({ type, text, interval: 0 })}`;
                 const loaded = new Promise((resolve) => frame.onload = resolve);
                 document.body.append(frame);
                 await loaded;
                 // What the script had told would be here by now: it ran before the frame was loaded.
                 await new Promise((resolve) => setTimeout(resolve, 100));
                 return told.map(String)";
            let told = browser.run_async(script, &[&server.url(""), media_type]);
            assert_eq!(told.texts(), [""; 0], "{media_type} {arguments:?}");
        }
        assert_eq!(server.metric("newswire_events_published_total"), 0);
    }
    let _ = fs::remove_dir_all(site);
}

#[test]
fn where_the_laboratory_is_off_the_page_says_so_and_shows_the_words_all_the_same() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.args(["--listen", "0.0.0.0:0"]);
    let server = Server::spawn(command);
    browser.open(&format!("http://127.0.0.1:{}/", server.address.port()));
    browser.wait_for("document.querySelectorAll('.word').length > 1");
    assert!(browser.text("#lab").contains("Start the server with --lab"));
    assert!(!browser.text("#lab").contains("Interval"));
    assert!(browser.text("#wire").contains("The bytes are not shown"));
    for button in ["cut", "slower", "faster"] {
        let is_off = "return document.getElementById(arguments[0]).getAttribute('aria-disabled')";
        assert_eq!(browser.run(is_off, &[&format!("words-{button}")]).text(), "true", "{button}");
    }
    let shown = texts(&browser, "#words-wire .event .text");
    assert_eq!(shown[0], "The");
}

#[test]
fn the_page_tells_other_sites_nothing_and_loads_nothing_from_them() {
    let server = Server::start(&[]);
    for path in ["/", "/app.js", "/style.css"] {
        let answer = ask(server.address, "GET", path, &[], "");
        assert_eq!(answer.field("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = answer.field("content-security-policy").expect("there is one");
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    }
}
