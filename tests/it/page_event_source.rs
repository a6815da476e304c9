//! What Chromium's EventSource makes of the laboratory; and pages of other origins, which read what the policy allows and
//! attack.

use crate::page::{WORDS, temporary_directory};
use crate::server::Server;
use crate::webdriver::{Browser, Json};
use std::fs;

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
    let healed = ["open", "message 1 a", "message 2 b", "error 0", "open", "message 3 c", "error 0", "error 2"];
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
    let publish = "const init = { method: 'POST', body: 'x', headers: { Authorization: 'Bearer y' } };
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
