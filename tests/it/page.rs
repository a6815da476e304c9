//! The page in Chromium: the words, the page as a whole, and what the other files about the page share.

use crate::server::{Server, ask, eventually};
use crate::webdriver::{Browser, DOWN, ENTER, HOME, Json, RIGHT, SPACE, TAB};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

pub(crate) const WORDS: [&str; 9] = ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog."];

/// Runs before the page's own script. It records violations of the policy, and each state of the words.
const RECORDER: &str = r#"
    window.violations = [];
    document.addEventListener("securitypolicyviolation",
        (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));
    window.states = [];
    document.addEventListener("readystatechange", () => {
        const state = document.getElementById("words-state");
        if (document.readyState !== "interactive" || !state) return;
        const said = ({ addedNodes }) => [...addedNodes].map((node) => node.textContent).join("");
        const record = (changes) => states.push(...changes.map(said));
        new MutationObserver(record).observe(state, { childList: true });
    });
"#;

/// A browser at the page of a server with these arguments, or `None` where there is no browser.
pub(crate) fn visit(arguments: &[&str]) -> Option<(Server, Browser)> {
    let browser = Browser::start()?;
    let server = Server::start(arguments);
    browser.run_first(RECORDER);
    open_page(&browser, &server.url("/"));
    Some((server, browser))
}

/// The console has only the page's own lines, no request went elsewhere, and nothing violated the policy. Returns the
/// lines.
pub(crate) fn assert_clean(browser: &Browser, server: &Server) -> Vec<String> {
    assert_clean_of(browser, &[&server.url("/")])
}

/// As [`assert_clean`], for pages from several origins.
pub(crate) fn assert_clean_of(browser: &Browser, places: &[&str]) -> Vec<String> {
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

pub(crate) fn texts(browser: &Browser, selector: &str) -> Vec<String> {
    let script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)";
    let found = browser.run(script, &[selector]);
    found.texts().into_iter().map(str::to_owned).collect()
}

pub(crate) fn set_size(browser: &Browser, width: u32) {
    let size = format!(r#"{{"width":{width},"height":900,"deviceScaleFactor":1,"mobile":false}}"#);
    browser.devtools("Emulation.setDeviceMetricsOverride", &size);
}

/// The person's preferences: `light` or `dark`, and `reduce` or `no-preference` for motion.
pub(crate) fn set_preferences(browser: &Browser, scheme: &str, motion: &str) {
    let features = format!(
        r#"{{"features":[{{"name":"prefers-color-scheme","value":"{scheme}"}},
        {{"name":"prefers-reduced-motion","value":"{motion}"}}]}}"#
    );
    browser.devtools("Emulation.setEmulatedMedia", &features);
}

/// Opens the page, and waits until all of it works.
pub(crate) fn open_page(browser: &Browser, url: &str) {
    browser.open(url);
    browser.wait_for("'isReady' in document.body.dataset");
}

/// Publishes as curl does.
pub(crate) fn publish(server: &Server, path: &str, content: &str) {
    let answer = server.exchange(format!(
        "POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{content}",
        server.address,
        content.len()
    ));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// A directory of this test.
pub(crate) fn temporary_directory(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).expect("a directory of ours");
    path
}

/// The rows of the log that are in view, each as its kind and its cells.
pub(crate) fn rows(browser: &Browser) -> Vec<String> {
    let script = "return [...document.querySelectorAll('#log [role=option]:not([hidden])')].map((row) =>
        [row.classList[0], ...[...row.children].map((cell) => cell.textContent)].join('|'))";
    let found = browser.run(script, &[]);
    found.texts().into_iter().map(str::to_owned).collect()
}

/// The data of the events among these rows.
pub(crate) fn data(rows: &[String]) -> Vec<&str> {
    let events = rows.iter().filter(|row| row.starts_with("event|"));
    events.map(|row| row.rsplit('|').next().expect("it has cells")).collect()
}

/// Waits until a row in view matches a pattern of JavaScript.
pub(crate) fn wait_for_row(browser: &Browser, pattern: &str) {
    browser.wait_for(&format!(
        "[...document.querySelectorAll('#log [role=option]:not([hidden])')].some((row) =>
           /{pattern}/.test([row.className, ...[...row.children].map((cell) => cell.textContent)].join('|')))"
    ));
}

/// Waits until the state of the reader matches a pattern of JavaScript.
pub(crate) fn wait_for_state(browser: &Browser, pattern: &str) {
    browser.wait_for(&format!("/{pattern}/.test(document.querySelector('#read-state').textContent)"));
    // The log shows in the next frame what has come by then.
    let draw = "window.drawn = false;
        requestAnimationFrame(() => requestAnimationFrame(() => window.drawn = true));";
    browser.run(draw, &[]);
    browser.wait_for("window.drawn");
}

/// Reads an address, as a person does who types it into the bar.
pub(crate) fn read(browser: &Browser, url: &str, with: &str) {
    browser.run("const as = document.querySelector('#bar-as'); as.value = arguments[0]; as.dispatchEvent(new Event('input', { bubbles: true }))", &[with]);
    browser.fill("#bar-url", url);
    browser.press(&[ENTER]);
}

/// Shows only rows of the log with this text.
pub(crate) fn find(browser: &Browser, words: &str) {
    // The rows are drawn with the next frame.
    browser.run_async(
        "document.querySelector('#log-only').checked = true;
         const find = document.querySelector('#log-find');
         find.value = given[0];
         find.dispatchEvent(new Event('input', { bubbles: true }));
         for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame)",
        &[words],
    );
}

#[test]
fn the_words_arrive_with_their_bytes_beside_them() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    browser.wait_for("document.querySelectorAll('.word').length > 0");
    assert_eq!(browser.text("#words-state"), "open (1)");
    browser.wait_for("document.querySelector('#words-state').textContent === 'done (2)'");
    assert_eq!(texts(&browser, ".word"), WORDS);
    assert_eq!(browser.text("#words-id"), "9");
    assert!(browser.text("#words-since").ends_with(" s"));
    let states = browser.run("return states", &[]);
    assert_eq!(states.texts(), ["connecting (0)", "open (1)", "done (2)"]);

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
        let differs = |line: &&str| !["Date:", "Content-Security-Policy:"].iter().any(|name| line.starts_with(name));
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
fn the_words_are_asked_for_once_and_before_any_module_of_the_tools() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    let requests = browser.requests();
    let at = |part: &str| {
        let found = requests.iter().position(|url| url.contains(part));
        found.unwrap_or_else(|| panic!("{part} is not among {requests:?}"))
    };
    for module in ["tool", "lab", "channels", "log", "lessons", "language"] {
        assert!(at("/sse/mvc/words?line=") < at(&format!("/{module}.js")), "{requests:?}");
    }
    let count = |part: &str| requests.iter().filter(|url| url.contains(part)).count();
    assert_eq!((count("/sse/mvc/words"), count("/lab/lines/")), (1, 1), "{requests:?}");
    // What a learner sees of it is complete, although its first bytes came before the module that shows them.
    browser.wait_for("document.querySelector('#words-wire .event')");
    assert_eq!(texts(&browser, "#words-wire .event .text")[0], "The");
    assert!(texts(&browser, "#words-wire pre")[0].starts_with("HTTP/1.1 200 OK"));
    assert_clean(&browser, &server);
}

/// On a slow network the words are there before the modules are.
#[test]
fn a_word_is_shown_before_the_modules_have_come() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::start(&[]);
    browser.devtools("Network.enable", "{}");
    browser.devtools("Network.setBlockedURLs", r#"{"urls":["*/words.js"]}"#);
    browser.open(&server.url("/"));
    browser.wait_for("document.querySelector('#sentence').textContent.startsWith('The quick ')");
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
    let cut = ["open (1)", "ended, asks again (0)", "open (1)"];
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
    assert_eq!(browser.text("#words-pace"), "50");
    browser.wait_for("document.querySelectorAll('.word').length === 9");
    assert_eq!(texts(&browser, ".word"), WORDS);
    let can = "return document.querySelector('#words-faster').getAttribute('aria-disabled')";
    assert_eq!(browser.run(can, &[]).text(), "true");
    browser.click("#words-slower");
    assert_eq!(browser.text("#words-pace"), "10");
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
        "const all = 'a[href], button, input, select, textarea, summary, [tabindex=\"0\"]';
         return [...document.querySelectorAll(all)].filter((e) => e.checkVisibility() && e.tabIndex >= 0)
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
    focus("[data-preset=tokens]");
    browser.press(&[ENTER]);
    browser.wait_for("document.querySelector('[data-preset=tokens]').ariaPressed === 'true'");
    focus("#adjust summary");
    browser.press(&[ENTER]);
    focus("[name=count]");
    browser.run("document.activeElement.select()", &[]);
    browser.press(&['3', ENTER]);
    browser.wait_for("document.querySelector('#read-events').textContent === '3'");
    // The arrows move among the panels and among the rows of the log.
    focus("#lab-tab");
    browser.press(&[RIGHT]);
    browser.wait_for("document.activeElement.id === 'channel-tab'");
    browser.wait_for("document.querySelector('#channel').checkVisibility()");
    focus("#channel-text");
    browser.press(&['!', TAB, TAB, ENTER]);
    browser.wait_for("/Published on news/.test(document.querySelector('#channel-why').textContent)");
    focus("#log");
    browser.press(&[HOME, DOWN]);
    browser.wait_for("document.querySelector('#log-detail').checkVisibility()");
    let active = browser.run(
        "const id = document.querySelector('#log').getAttribute('aria-activedescendant');
         const row = document.getElementById(id);
         return [row.ariaSelected, row.ariaPosInSet, document.querySelector('#detail-data').textContent]",
        &[],
    );
    assert_eq!(active.texts(), ["true", "2", "A"]);
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
    assert!(named > 30, "{named} names");
    assert_clean(&browser, &server);
}

#[test]
fn the_page_fits_every_width_and_has_contrast_in_both_schemes() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    browser.click("#channel-tab");
    browser.click("#publish .main");
    browser.wait_for("/Published on news/.test(document.querySelector('#channel-why').textContent)");
    browser.click("#wire-more summary");
    browser.click("#bar-more summary");
    browser.click("#type-more summary");
    let long = "a-word-that-is-longer-than-any-line-".repeat(9);
    publish(&server, "/channels/news", &format!("{{\"{long}\": [1, \"{long}\"]}}"));
    read(&browser, "channels/news", "eventsource");
    browser.fill("#bar-last-id", "earliest");
    browser.press(&[ENTER, ENTER]);
    browser.wait_for("document.querySelector('#log .event')");
    browser.click("#log .event");
    let panels = ["lab", "channel", "write"];
    for (scheme, panel) in ["light", "dark"].iter().flat_map(|s| panels.map(|p| (*s, p))) {
        set_preferences(&browser, scheme, "reduce");
        browser.run("document.getElementById(`${arguments[0]}-tab`).click()", &[panel]);
        browser.run("document.querySelector('#adjust').open = true", &[]);
        for width in [320, 768, 1600] {
            set_size(&browser, width);
            let is_too_wide = "const { scrollWidth, clientWidth } = document.documentElement;
                               return scrollWidth > clientWidth";
            assert_eq!(browser.run(is_too_wide, &[]), Json::False, "{scheme} {width}");
            // No text sticks out of its box either.
            let out = browser.run(
                "return [...document.querySelectorAll('main *')].filter((e) =>
                   e.checkVisibility() && !/^(INPUT|SELECT|CANVAS|TEXTAREA)$/.test(e.tagName) &&
                   !e.closest('#log') && !e.classList.contains('unseen') &&
                   e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0).map((e) => e.outerHTML.slice(0, 99))",
                &[],
            );
            assert_eq!(out.texts(), [""; 0], "{scheme} {width}");
            let dim = browser.run(CONTRAST, &[]);
            assert_eq!(dim.texts(), [""; 0], "{scheme} {width}");
            // A state and an id stand in one line, and the last row of a form or of buttons is full.
            let broken = browser.run(
                "return [...document.querySelectorAll('.number')]
                   .filter((e) => e.checkVisibility() && e.getClientRects().length > 1).map((e) => e.outerHTML)",
                &[],
            );
            assert_eq!(broken.texts(), [""; 0], "{scheme} {width}");
            let orphans = browser.run(
                "return [...document.querySelectorAll('fieldset, #presets')]
                   .filter((e) => e.checkVisibility()).filter((e) => {
                     const last = e.lastElementChild.getBoundingClientRect();
                     return e.getBoundingClientRect().right - last.right > 2;
                   }).map((e) => e.outerHTML.slice(0, 99))",
                &[],
            );
            assert_eq!(orphans.texts(), [""; 0], "{scheme} {width}");
            // A target has 24 pixels each way (WCAG 2.2, 2.5.8). The label of a checkbox is part of its target.
            let small = browser.run(
                "return [...document.querySelectorAll('button, input, select, textarea, nav a, footer a, summary')]
                   .filter((e) => e.checkVisibility() && e.type !== 'checkbox').filter((e) => {
                     const { width, height } = e.getBoundingClientRect();
                     return Math.min(width, height) < 24;
                   }).map((e) => e.outerHTML)",
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
        if (!own && !/^(INPUT|SELECT|TEXTAREA)$/.test(e.tagName) || !e.checkVisibility()) continue;
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
    browser.devtools("Emulation.setScriptExecutionDisabled", r#"{"value":true}"#);
    browser.open(&server.url("/"));
    let text = browser.text("main");
    assert!(text.contains("JavaScript is off"), "{text}");
    assert!(text.contains("curl -N http://127.0.0.1:8080/sse/mvc/words"), "{text}");
    assert!(text.contains("About"), "{text}");
    // What a script fills is not shown empty.
    assert!(!text.contains("Cut the line") && !text.contains("Exercises"), "{text}");
}

#[test]
fn where_the_laboratory_is_off_the_page_says_so_and_shows_the_words_all_the_same() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.args(["--listen", "0.0.0.0:0"]);
    let server = Server::spawn(command);
    open_page(&browser, &format!("http://127.0.0.1:{}/", server.address.port()));
    browser.wait_for("document.querySelectorAll('.word').length > 1");
    browser.wait_for("/Start the server with --lab/.test(document.querySelector('#lab').innerText)");
    browser.wait_for("!document.querySelector('#adjust').checkVisibility()");
    browser.wait_for("!document.querySelector('[data-preset=tokens]').checkVisibility()");
    // A recording needs no laboratory.
    browser.click("[data-preset=mcp]");
    wait_for_state(&browser, "done");
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
    for path in ["/", "/app.js", "/text/en.js", "/style.css"] {
        let answer = ask(server.address, "GET", path, &[], "");
        assert_eq!(answer.field("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = answer.field("content-security-policy").expect("there is one");
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    }
}

/// The files of `www` with their sizes in bytes and lines.
fn site() -> Vec<(PathBuf, usize, usize)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("www");
    let (mut directories, mut files) = (vec![root.clone()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it is a directory") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let content = fs::read(&path).expect("it can be read");
            let lines = content.iter().filter(|&&byte| byte == b'\n').count();
            let name = path.strip_prefix(&root).expect("it is below").to_owned();
            files.push((name, content.len(), lines));
        }
    }
    files
}

#[test]
fn the_page_is_small_and_each_of_its_files_is_in_the_binary() {
    let server = Server::start(&[]);
    let files = site();
    for (path, bytes, lines) in &files {
        let name = path.to_str().expect("it is UTF-8");
        assert!(*lines <= 350, "{name} has {lines} lines");
        // A recording is played and not sent.
        if !name.ends_with(".sse") {
            let answer = ask(server.address, "GET", &format!("/{name}"), &[], "");
            assert_eq!(answer.content.len(), *bytes, "{name}");
        }
    }
    let total: usize = files.iter().map(|(_, bytes, _)| bytes).sum();
    assert!(total < 192_800, "the page has {total} bytes");
}

/// Passes requests for `/push/…` on to a server as requests for `/…`, as a reverse proxy does.
fn proxy_below_push(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            thread::spawn(move || pass_on(near, server));
        }
    });
    address
}

fn pass_on(mut near: TcpStream, server: SocketAddr) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        near.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let (line, fields) = head.split_once("\r\n").expect("a request line");
    let Some((method, target)) = line.split_once(" /push/") else {
        return near.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n");
    };
    // One request a connection, so that each head comes by here. nginx does the same with its default settings.
    let kept: Vec<_> = fields.split("\r\n").filter(|line| !line.starts_with("Connection:")).collect();
    let mut far = TcpStream::connect(server)?;
    write!(far, "{method} /{}\r\n{}", target.replace("HTTP/1.1", "HTTP/1.0"), kept.join("\r\n"))?;
    let (mut up, mut down) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || std::io::copy(&mut up, &mut down));
    std::io::copy(&mut far, &mut near)?;
    near.shutdown(std::net::Shutdown::Both)
}

#[test]
fn the_page_works_below_a_path() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::start(&["--publish-open"]);
    let place = format!("http://{}/push/", proxy_below_push(server.address));
    browser.run_first(RECORDER);
    open_page(&browser, &place);
    browser.wait_for("document.querySelectorAll('.word').length > 1");
    browser.wait_for("document.querySelectorAll('#words-wire .event').length > 1");
    browser.click("[data-preset=mcp]");
    wait_for_state(&browser, "done");
    browser.click("[data-preset=tokens]");
    browser.wait_for("document.querySelector('#read-events').textContent === '46'");
    browser.click("#channel-tab");
    browser.click("#channel-join");
    wait_for_state(&browser, "^open");
    publish(&server, "/channels/news", "below a path");
    wait_for_row(&browser, "below a path");
    let line = browser.text("#type-publish");
    assert!(line.contains(&format!("{place}channels/news")), "{line}");
    // No request went past the path.
    assert_clean_of(&browser, &[&place]);
}
