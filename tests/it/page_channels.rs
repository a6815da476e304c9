//! The channels of the page: two windows, keys, names, the end, and what to type elsewhere.

use crate::page::{
    assert_clean, assert_clean_of, data, find, open_page, publish, rows, temporary_directory, visit, wait_for_row,
    wait_for_state,
};
use crate::server::Server;
use crate::webdriver::{Browser, ENTER};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

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

/// Opens the panel and joins.
fn join(browser: &Browser) {
    browser.click("#channel-tab");
    browser.click("#channel-join");
    wait_for_state(browser, "^open");
}

#[test]
fn a_channel_reaches_two_windows_and_says_what_is_lost() {
    let Some((server, browser)) = visit(&["--publish-open", "--history-events", "5"]) else {
        return;
    };
    let one = browser.window();
    join(&browser);

    // The other window reaches the server over a link that can be cut.
    let link = Link::to(server.address);
    let other = browser.new_window("window");
    browser.switch_to(&other);
    let other_place = format!("http://{}/", link.address);
    open_page(&browser, &other_place);
    join(&browser);
    browser.wait_for("/2 listening/.test(document.querySelector('#channel-count').textContent)");

    browser.switch_to(&one);
    browser.fill("#channel-text", "extra, extra\non two lines");
    // Every type is seen, also in the other window, which was not told of it.
    browser.fill("#channel-type", "weather");
    browser.click("#publish .main");
    wait_for_row(&browser, "weather.*extra, extra ↵ on two lines");
    browser.wait_for("/Listening: 2/.test(document.querySelector('#channel-why').textContent)");
    let ids = |browser: &Browser| -> Vec<String> {
        let events = rows(browser).into_iter().filter(|row| row.starts_with("event|"));
        events.map(|row| row.split('|').skip(3).collect::<Vec<_>>().join("|")).collect()
    };
    let here = ids(&browser);
    browser.switch_to(&other);
    wait_for_row(&browser, "weather.*extra, extra");
    // The same event, with the same id.
    assert_eq!(ids(&browser), here);

    // Only the channel is cut: the words that come back into the next cut would be an error in the console.
    browser.wait_for("/^done/.test(document.querySelector('#words-state').textContent)");
    // After the cut it misses two events, reconnects by itself, and gets them in order.
    link.cut();
    wait_for_state(&browser, "unreachable|broken|ended");
    publish(&server, "/channels/news", "first");
    publish(&server, "/channels/news", "second");
    link.mend();
    wait_for_row(&browser, "second");
    assert_eq!(data(&rows(&browser)), ["extra, extra ↵ on two lines", "first", "second"]);
    assert!(!rows(&browser).iter().any(|row| row.starts_with("gap|")));

    // When the server has dropped events meanwhile, the page says so.
    link.cut();
    wait_for_state(&browser, "unreachable|broken|ended");
    for number in 1..=7 {
        publish(&server, "/channels/news", &format!("edition {number}"));
    }
    link.mend();
    wait_for_row(&browser, "edition 7");
    find(&browser, "edition");
    browser.wait_for("document.querySelectorAll('#log .event:not([hidden])').length === 5");
    find(&browser, "may be lost");
    wait_for_row(&browser, "^gap");
    find(&browser, "");

    // The window that stayed connected has every event once.
    browser.switch_to(&one);
    find(&browser, "edition");
    browser.wait_for("document.querySelectorAll('#log .event:not([hidden])').length === 7");
    let shown = rows(&browser);
    assert_eq!(data(&shown), [1, 2, 3, 4, 5, 6, 7].map(|n| format!("edition {n}")));
    find(&browser, "");

    // After leaving and joining again, the page gets what it missed.
    browser.click("#channel-join");
    wait_for_state(&browser, "^let go");
    publish(&server, "/channels/news", "meanwhile");
    browser.click("#channel-join");
    wait_for_row(&browser, "meanwhile");
    assert_clean_of(&browser, &[&server.url("/"), &other_place]);

    // A server that was killed and started again has lost its events, and says so.
    let mut server = server;
    server.kill();
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.args(["--publish-open", "--listen", &server.address.to_string()]);
    let server = Server::spawn(command);
    wait_for_row(&browser, "^gap.*No event is kept");
    publish(&server, "/channels/news", "the first");
    wait_for_row(&browser, "the first");
}

#[test]
fn the_end_of_a_channel_looks_like_an_end() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    browser.click("#channel-tab");
    browser.fill("#channel-name", "sports");
    join(&browser);
    publish(&server, "/channels/sports", "goal");
    wait_for_row(&browser, "goal");
    let delete = format!("DELETE /channels/sports HTTP/1.0\r\nHost: {}\r\n\r\n", server.address);
    assert!(server.exchange(delete).starts_with("HTTP/1.1 204 "));
    wait_for_state(&browser, "^done");
    wait_for_row(&browser, "^done");
    let shown = rows(&browser);
    let kinds: Vec<_> = shown.iter().map(|row| row.split('|').next().unwrap_or("")).collect();
    assert_eq!(kinds, ["open", "event", "end", "done"], "{shown:?}");
    assert!(!shown.concat().contains("asks again"), "{shown:?}");
    browser.wait_for("document.querySelector('#channel-join').textContent === 'Join'");
    assert_clean(&browser, &server);
}

#[test]
fn publishing_shows_its_success_without_having_joined() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    browser.click("#channel-tab");
    browser.click("#channel-text");
    browser.click("#publish .main");
    browser.wait_for("/^Published on news as [0-9]+-[0-9]+. Listening: 0.$/.test(document.querySelector('#channel-why').textContent)");
    assert_eq!(server.metric("newswire_events_published_total"), 1);
    assert_eq!(browser.text("#read-state"), "not opened yet");
    // A reserved type is marked.
    browser.fill("#channel-type", "gap");
    browser.press(&[ENTER]);
    browser.wait_for("document.querySelector('#channel-type').getAttribute('aria-invalid') === 'true'");
}

#[test]
fn a_name_that_is_none_is_marked_and_goes_into_no_line() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    browser.click("#channel-tab");
    browser.fill("#channel-name", "news'; rm -rf x");
    browser.wait_for("document.querySelector('#channel-name').getAttribute('aria-invalid') === 'true'");
    assert!(browser.text("#channel-name-why").contains("1 to 64 letters"));
    let lines = "[...document.querySelectorAll('#channel .line')].filter((e) => e.checkVisibility()).length";
    browser.wait_for(&format!("{lines} === 0"));
    let published = server.metric("newswire_events_published_total");
    browser.click("#publish .main");
    browser.click("#channel-join");
    assert_eq!(browser.text("#read-state"), "not opened yet");
    browser.fill("#channel-name", "weather");
    browser.wait_for("!document.querySelector('#channel-name').hasAttribute('aria-invalid')");
    assert_eq!(server.metric("newswire_events_published_total"), published);
    browser.wait_for(&format!("{lines} === 2"));
    let lines = browser.text("#channel");
    assert_eq!(lines.matches("/channels/weather").count(), 2, "{lines}");
}

#[test]
fn the_page_says_why_publishing_was_refused() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let closed = Server::start(&[]);
    open_page(&browser, &closed.url("/"));
    browser.click("#channel-tab");
    browser.click("#publish .main");
    browser.wait_for("/Publishing is off/.test(document.querySelector('#channel-why').textContent)");
    browser.wait_for("!document.querySelector('#channel-token').checkVisibility()");

    let directory = temporary_directory("token");
    let secret = directory.join("token");
    fs::write(&secret, "swordfish-swordfish\n").expect("it is a directory of ours");
    let guarded = Server::start(&["--publish-token-file", &secret.display().to_string()]);
    open_page(&browser, &guarded.url("/"));
    browser.click("#channel-tab");
    browser.click("#publish .main");
    // The field for the token is there, and has the focus. The lines have the field, too, but not the token.
    browser.wait_for("document.activeElement.id === 'channel-token'");
    browser.wait_for("/asks for a key/.test(document.querySelector('#channel-token-why').textContent)");
    browser.wait_for("/Authorization: Bearer [$]TOKEN/.test(document.querySelector('#type-publish').textContent)");
    // A wrong token does not read like none.
    browser.press(&['x', ENTER]);
    browser.wait_for("/does not take this key/.test(document.querySelector('#channel-token-why').textContent)");
    browser.fill("#channel-token", "swordfish-swordfish");
    browser.press(&[ENTER]);
    browser.wait_for("/Published on news/.test(document.querySelector('#channel-why').textContent)");
    browser.wait_for("!document.querySelector('#channel-token-why').checkVisibility()");
    assert!(!browser.text("#channel").contains("swordfish"));
    let _ = fs::remove_dir_all(directory);
}

/// Runs a line that the page shows in a shell, with this binary as `newswire`.
fn shell(line: &str) -> String {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_newswire"));
    let folder = binary.parent().expect("it is in a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("sh")
        .args(["-c", line])
        .env("PATH", format!("{folder}:{path}"))
        .stdin(Stdio::null())
        .output()
        .expect("there is a shell");
    String::from_utf8(output.stdout).expect("it is UTF-8")
}

#[test]
fn the_lines_to_type_elsewhere_do_what_the_page_does() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    publish(&server, "/channels/news", "it's here");
    browser.run("document.querySelector('#bar-last-id').value = 'earliest'", &[]);
    browser.run("document.querySelector('#type-more').open = true", &[]);
    crate::page::read(&browser, &server.url("/channels/news"), "fetch");
    wait_for_row(&browser, "it's here");
    let line = browser.text("#type-watch");
    let said = shell(&format!("{} --count 1 --output data", line));
    assert_eq!(said.trim(), "it's here", "{line}");
    // With a method and a content
    browser.click("[data-preset=chat]");
    wait_for_state(&browser, "^done");
    let line = browser.text("#type-watch");
    let said = shell(&format!("{line} --count 1 --output data"));
    assert!(said.contains("chat.completion.chunk"), "{line}: {said}");
    assert!(browser.text("#type-curl").starts_with("curl -N -H 'Content-Type: application/json' --data-raw '{"));
    // What a page would write reads the same events.
    browser.run("document.querySelector('#bar-as').value = 'eventsource'", &[]);
    crate::page::read(&browser, &server.url("/lab?text=a&event=token&interval=0"), "eventsource");
    wait_for_row(&browser, "open");
    let script = browser.text("#type-script");
    assert!(
        script.starts_with(&format!(
            "const source = new EventSource(\"{}\");",
            server.url("/lab?text=a&event=token&interval=0")
        )),
        "{script}"
    );
}
