//! The reader of the page: any stream, with EventSource and with fetch; what it says when a connection is lost, and the
//! four kinds of closed.

use crate::page::{
    assert_clean, data, find, open_page, publish, read, rows, temporary_directory, visit, wait_for_row, wait_for_state,
};
use crate::server::{Server, eventually};
use crate::webdriver::Browser;
use std::fs;
use std::process::Command;

/// The server again, at the same address.
fn again(mut server: Server, arguments: &[&str]) -> Server {
    server.kill();
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.args(arguments).args(["--listen", &server.address.to_string()]);
    Server::spawn(command)
}

#[test]
fn an_event_named_error_or_open_is_an_event_and_not_a_state() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    for with in ["eventsource", "fetch"] {
        for name in ["error", "open"] {
            let query = format!("lab?event={name}&text=a+b+c&interval=100&retry=60000");
            read(&browser, &server.url(&format!("/{query}")), with);
            browser.wait_for("document.querySelector('#read-events').textContent === '3'");
            wait_for_state(&browser, "^ended");
            let rows = rows(&browser);
            let kinds: Vec<_> = rows.iter().map(|row| row.split('|').next().unwrap_or("")).collect();
            assert_eq!(kinds, ["open", "event", "event", "event", "lost"], "{with} {rows:?}");
            assert_eq!(data(&rows), ["a", "b", "c"]);
            assert!(rows[1].contains(&format!("|{name}|")), "{rows:?}");
            browser.click("#bar-read");
        }
    }
    assert_clean(&browser, &server);
}

#[test]
fn a_server_that_is_away_costs_one_row_that_counts_the_tries() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    browser.wait_for("/done/.test(document.querySelector('#words-state').textContent)");
    let mut server = server;
    for with in ["fetch", "eventsource"] {
        read(&browser, &server.url("/lab?interval=200&count=1000&retry=300"), with);
        browser.wait_for("Number(document.querySelector('#read-events').textContent) > 1");
        server.kill();
        wait_for_row(&browser, "lost.*cannot be reached: [3-9] tries");
        if with == "fetch" {
            wait_for_state(&browser, "unreachable, next try in [0-9]+ s");
        } else {
            wait_for_state(&browser, "unreachable");
        }
        let lost = |rows: &[String]| rows.iter().filter(|row| row.starts_with("lost|")).count();
        find(&browser, "reached");
        assert_eq!(lost(&rows(&browser)), 1);
        find(&browser, "");
        server = again(server, &["--publish-open"]);
        wait_for_state(&browser, "^open");
        find(&browser, "Away for");
        wait_for_row(&browser, "back.*tries: [0-9]+. It is back, behind [0-9]+");
        assert_eq!(lost(&rows(&browser)), 0);
        find(&browser, "");
        browser.click("#bar-read");
    }
}

#[test]
fn four_kinds_of_closed_are_told_apart() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    let looks = || {
        let lamp = browser.run("return document.querySelector('#read-lamp').className", &[]);
        let why = browser.run("return document.querySelector('#read-why').textContent", &[]);
        (lamp.text().to_owned(), why.text().to_owned())
    };
    // Never opened
    assert_eq!(browser.text("#read-state"), "not opened yet");
    assert_eq!(looks(), ("lamp idle".to_owned(), String::new()));
    assert!(browser.text("#log-empty").contains("Each event becomes a row"));
    for with in ["fetch", "eventsource"] {
        // Done, which looks like success
        read(&browser, &server.url("/lab?text=a&interval=0&retry=50"), with);
        wait_for_state(&browser, "^done");
        let (lamp, why) = looks();
        assert!(lamp == "lamp done" && why.starts_with("204"), "{lamp} {why}");
        // Given up, and why
        for (query, reason) in [
            ("status=503", "status 503"),
            ("type=text/plain", "Content-Type is text.plain"),
            ("cut=9&count=9", "cut is less than count"),
        ] {
            read(&browser, &server.url(&format!("/lab?{query}")), with);
            wait_for_row(&browser, &format!("gaveUp.*{reason}"));
            let (lamp, why) = looks();
            assert!(
                lamp == "lamp gaveUp" && why.contains(&reason.replace("text.", "text/")),
                "{with} {query} {lamp} {why}"
            );
        }
        // Let go
        read(&browser, &server.url("/lab?interval=100&count=1000"), with);
        wait_for_state(&browser, "^open");
        browser.click("#bar-read");
        wait_for_state(&browser, "^let go");
        assert_eq!(looks().0, "lamp letGo");
    }
    // A server that does not let pages of this origin read is not a server that is away.
    let closed = Server::start(&["--allow-origin", "https://elsewhere.example"]);
    for with in ["fetch", "eventsource"] {
        read(&browser, &closed.url("/sse/mvc/words"), with);
        wait_for_row(&browser, "gaveUp.*CORS");
    }
}

#[test]
fn the_bar_sends_the_method_the_fields_the_content_and_the_last_event_id() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let directory = temporary_directory("bar");
    let token = directory.join("token");
    fs::write(&token, "swordfish-swordfish\n").expect("it is a directory of ours");
    let server = Server::start(&["--publish-token-file", &token.display().to_string()]);
    open_page(&browser, &server.url("/"));
    browser.click("#bar-more summary");
    let set = |id: &str, value: &str| {
        let script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];
                      e.dispatchEvent(new Event('input', { bubbles: true }))";
        browser.run(script, &[id, value]);
    };
    set("bar-url", &server.url("/channels/news"));
    set("bar-method", "POST");
    set("bar-content", "two\nlines");
    set("bar-fields", "no field");
    browser.click("#bar-read");
    browser.wait_for("document.querySelector('#bar-fields').getAttribute('aria-invalid') === 'true'");
    assert!(browser.text("#bar-fields-why").contains("no field"));
    set("bar-fields", "Authorization: Bearer swordfish-swordfish\nX-Any: 1");
    browser.click("#bar-read");
    wait_for_row(&browser, "gaveUp.*Content-Type is application");
    // What a terminal would need to be told, but not the key.
    let curl = browser.run("return document.querySelector('#type-curl').textContent", &[]);
    let expected = format!(
        "curl -N -H \"Authorization: Bearer $TOKEN\" -H 'X-Any: 1' --data-raw 'two\nlines' {}",
        server.url("/channels/news")
    );
    assert_eq!(curl.text(), expected);
    // The event is there for a client that asks for what came before.
    set("bar-method", "GET");
    set("bar-last-id", "earliest");
    browser.click("#bar-read");
    wait_for_row(&browser, "event.*two ↵ lines");
    // An address that is none is marked.
    browser.click("#bar-read");
    set("bar-url", "ftp://127.0.0.1/");
    browser.click("#bar-read");
    browser.wait_for("document.activeElement.id === 'bar-url'");
    assert!(browser.text("#bar-url-why").contains("http://"));
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn streams_of_other_origins_are_read_and_their_bytes_are_shown() {
    let Some((_server, browser)) = visit(&[]) else {
        return;
    };
    let other = Server::start(&[]);
    browser.click("#wire-more summary");
    read(&browser, &other.url("/lab?text=a+b&interval=50&retry=50&event=token&garbage=on"), "fetch");
    wait_for_state(&browser, "^done");
    assert_eq!(data(&rows(&browser)), ["a", "b"]);
    let wire = browser.run("return document.querySelector('#read-wire').textContent", &[]);
    for part in ["content-type: text/event-stream", "Otherwise the field is ignored", "event: tokendata: aa token"] {
        assert!(wire.text().contains(part), "{part} is not in {wire:?}");
    }
    // A recording is as good as a stream: it is posted once.
    browser.click("[data-preset=chat]");
    wait_for_state(&browser, "^done");
    let shown = rows(&browser);
    assert!(data(&shown).contains(&"[DONE]"), "{shown:?}");
}

#[test]
fn hidden_tabs_let_their_streams_go_as_soon_as_another_tab_opens() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    let first = browser.window();
    read(&browser, &server.url("/channels/news"), "fetch");
    wait_for_state(&browser, "^open");
    publish(&server, "/channels/news", "before");
    wait_for_row(&browser, "before");
    let subscribers = || server.metric("newswire_subscribers");
    // More tabs than a browser has connections. Each is visible for a moment, then hidden.
    for _ in 0..8 {
        let tab = browser.new_window("tab");
        browser.switch_to(&tab);
        browser.open(&server.url("/"));
        browser.wait_for("document.querySelector('.word')");
    }
    eventually("there is no subscriber", || subscribers() == 0);
    publish(&server, "/channels/news", "while you were away");
    browser.switch_to(&first);
    browser.devtools("Page.bringToFront", "{}");
    wait_for_row(&browser, "while you were away");
    wait_for_row(&browser, "letGo.*this page is hidden");
    wait_for_row(&browser, "before");
    assert_clean(&browser, &server);
}

#[test]
fn a_page_that_waits_for_a_free_connection_says_so() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    let mut windows = vec![browser.window()];
    for _ in 0..3 {
        let window = browser.new_window("window");
        browser.switch_to(&window);
        open_page(&browser, &server.url("/"));
        windows.push(window);
    }
    for window in &windows {
        browser.switch_to(window);
        browser.wait_for("/done/.test(document.querySelector('#words-state').textContent)");
    }
    // A stream and its wire are two connections; a browser has six.
    let (last, others) = windows.split_last().expect("there are four");
    for window in others {
        browser.switch_to(window);
        browser.run("document.querySelector('#wire-more').open = true", &[]);
        read(&browser, &server.url("/lab?interval=200&count=5000"), "eventsource");
        wait_for_state(&browser, "^open");
        browser.wait_for("document.querySelector('#read-wire .event')");
    }
    browser.switch_to(last);
    read(&browser, &server.url("/lab?interval=200&count=5000"), "fetch");
    wait_for_state(&browser, "waiting for a free connection");
    browser.switch_to(&others[0]);
    browser.click("#bar-read");
    browser.switch_to(last);
    wait_for_state(&browser, "^open");
}

#[test]
fn a_recording_that_plays_in_a_hidden_page_goes_on() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    let first = browser.window();
    browser.run(
        "const data = new DataTransfer();
         data.items.add(new File([': +0 ms\\ndata: one\\n\\n: +4000 ms\\ndata: two\\n\\n'], 'slow.sse'));
         document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))",
        &[],
    );
    wait_for_row(&browser, "one");
    let tab = browser.new_window("tab");
    browser.switch_to(&tab);
    browser.open(&server.url("/"));
    browser.wait_for("document.querySelector('.word')");
    browser.switch_to(&first);
    wait_for_row(&browser, "two");
    wait_for_state(&browser, "^done");
    assert_eq!(data(&rows(&browser)), ["one", "two"]);
    assert_clean(&browser, &server);
}
