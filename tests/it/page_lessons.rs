//! The exercises of the page, and its languages.

use crate::page::{assert_clean, open_page, texts, visit};
use crate::server::{Server, eventually};
use crate::webdriver::{Browser, Json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// What a shell writes for these lines, one after the other.
fn shell(lines: &str) -> String {
    let output = Command::new("sh").args(["-c", lines]).output().expect("a shell");
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

/// Ids and reconnection times differ from run to run.
fn without_ids(line: &str) -> String {
    if line.starts_with("retry: ") {
        return "retry".to_owned();
    }
    let is_part = |c: char| c.is_ascii_digit() || c == '-';
    let pieces = line.split_inclusive(|c| !is_part(c)).map(|piece| {
        let rest = piece.trim_start_matches(is_part);
        // 13 digits, a hyphen, and at least one more
        if piece.len() - rest.len() >= 15 { format!("ID{rest}") } else { piece.to_owned() }
    });
    pieces.collect()
}

#[test]
fn each_line_of_an_exercise_does_what_the_page_shows() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    let has = |tool| !shell(&format!("command -v {tool}")).is_empty();
    if !has("curl") || !has("telnet") {
        assert!(std::env::var("CI").is_err(), "curl and telnet are not installed");
        let _ = writeln!(io::stderr(), "\n*** SKIPPED, the exercises are not tested: no curl or no telnet ***");
        return;
    }
    let lesson = |name: &str| {
        let lines = texts(&browser, &format!("#lesson-{name} .line code"));
        let seen = texts(&browser, &format!("#lesson-{name} pre")).concat();
        let button = format!("#lesson-{name} .line button");
        assert_eq!(texts(&browser, &button).len(), lines.len(), "each line can be copied");
        (lines, seen)
    };
    let address = format!("127.0.0.1 {}", server.address.port());
    let assert_seen = |seen: &str, written: &str| {
        let written: BTreeSet<String> = written.lines().map(without_ids).collect();
        for line in seen.lines().filter(|line| *line != "…").map(without_ids) {
            assert!(written.contains(&line), "{line:?} is not among {written:?}");
        }
    };

    let (frame, seen) = lesson("frame");
    assert!(frame[0].ends_with(&address), "{frame:?}");
    assert_seen(&seen, &shell(&frame[0]));

    let (cut, seen) = lesson("cut");
    let first = cut[0].clone();
    let reading = thread::spawn(move || shell(&first));
    thread::sleep(Duration::from_millis(7000));
    shell(&cut[1]);
    let heard = reading.join().expect("curl ends when its line is cut");
    assert!(heard.contains("data: The\n") && !heard.contains("data: dog."), "{heard}");
    assert_seen(&seen, &shell(&cut[2]));

    // One terminal: the second of these exercises uses a variable of the first.
    let ((find, found), (gap, lost)) = (lesson("find"), lesson("gap"));
    let written = shell(&format!("{}\necho ---\n{}", find.join("\n"), gap.join("\n")));
    let (of_find, of_gap) = written.split_once("---\n").expect("two exercises");
    assert_seen(&found, of_find);
    assert!(!of_find.contains("data: one"), "{of_find}");
    assert_seen(&lost, of_gap);

    // Chromium, too, opens no more than six.
    browser.wait_for("/^done/.test(document.querySelector('#words-state').textContent)");
    let (six, seen) = lesson("six");
    browser.console();
    let opened = |count: usize| {
        let mut lines = Vec::new();
        eventually(&format!("{count} streams are open"), || {
            lines.extend(browser.console().into_iter().map(|(_, text)| text));
            lines.retain(|text: &String| text.contains(" is open"));
            lines.len() >= count
        });
        lines
    };
    browser.run(&six[0].replacen("sources", "window.sources", 1), &[]);
    let first_six = opened(6);
    thread::sleep(Duration::from_millis(500));
    let states = "return sources.map((source) => source.readyState).join('')";
    let states_before = browser.run(states, &[]);
    assert_eq!(states_before.text(), "1111110", "{first_six:?}");
    browser.run(&six[1], &[]);
    let seventh = opened(1);
    let lines = || first_six.iter().chain(&seventh).map(|line| line.trim_end_matches('"'));
    for expected in seen.lines() {
        let is_said = lines().any(|line| line.ends_with(&format!("\"{expected}")));
        assert!(is_said, "{expected} is not among {:?}", lines().collect::<Vec<_>>());
    }
    browser.run(&six[2], &[]);
    assert_eq!(browser.run(states, &[]).text(), "2222222");
}

/// The texts of a language: each path with its text.
fn language(browser: &Browser, server: &Server, name: &str) -> BTreeMap<String, String> {
    let script = "const found = [], walk = (node, path) => typeof node === 'string' ? found.push([path.slice(1), node])
             : Object.entries(node).forEach(([key, part]) => walk(part, `${path}.${key}`));
         for (const url of given.slice(0, 2)) walk((await import(url)).default, '');
         return found";
    let files = ["", "check_"].map(|subject| format!("text/{subject}{name}.js"));
    let urls = files.clone().map(|file| server.url(&format!("/{file}")));
    let found = browser.run_async(script, &urls.each_ref().map(|url| &**url));
    let pair = |pair: &Json| (pair[0].text().to_owned(), pair[1].text().to_owned());
    let texts: BTreeMap<_, _> = found.items().iter().map(pair).collect();
    // Of two texts with one key, the second would hide the first.
    for file in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("www").join(file);
        let source = fs::read_to_string(path).expect("each language has these files");
        let mut groups = vec![BTreeSet::new()];
        for line in source.lines().map(str::trim_start) {
            let group = groups.last_mut().expect("the braces match");
            if let Some((key, _)) = line.split_once(": ").filter(|(key, _)| !key.contains(' ')) {
                assert!(group.insert(key), "twice: {line}");
            }
            if line.ends_with(['{', '[']) {
                groups.push(BTreeSet::new());
            } else if line.starts_with(['}', ']']) {
                groups.pop();
            }
        }
    }
    texts
}

/// The values that stand in a text for names in braces.
fn placeholders(text: &str) -> BTreeSet<&str> {
    text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect()
}

/// What stands between these in the files of the page.
fn quoted<'s>(source: &'s str, start: &str, end: char) -> BTreeSet<&'s str> {
    source.split(start).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0)).collect()
}

#[test]
fn each_text_of_the_page_exists_in_each_language() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    let www = Path::new(env!("CARGO_MANIFEST_DIR")).join("www");
    let html = fs::read_to_string(www.join("index.html")).expect("it is there");
    let of_document: BTreeSet<&str> = ["data-text=\"", "data-label=\"", "data-hint=\""]
        .iter()
        .flat_map(|attribute| quoted(&html, attribute, '"'))
        .collect();
    let (english, chinese) = (language(&browser, &server, "en"), language(&browser, &server, "zh"));
    // The document itself has the English of its texts. A list or a table has a text for each part.
    let wanted: BTreeSet<&str> = english.keys().map(String::as_str).chain(of_document.clone()).collect();
    let whole = |path| {
        let list = str::trim_end_matches(path, |c: char| c.is_ascii_digit()).trim_end_matches('.');
        if of_document.contains(list) { list } else { path }
    };
    let found: BTreeSet<&str> = chinese.keys().map(|path| whole(path)).collect();
    assert_eq!(found, wanted);
    let parts = chinese.keys().filter(|path| whole(path) == "about.table").count();
    let script =
        "return document.querySelectorAll('[data-text=\"about.table\"] :is([scope=row], td + td, th + td)').length";
    assert_eq!(browser.run(script, &[]).number() as usize, parts);
    for (key, text) in &english {
        assert_eq!(placeholders(text), placeholders(&chinese[key]), "{key}");
    }
    // A key that the modules use exists, and so does one that begins as theirs do.
    let mut count = 0;
    for entry in fs::read_dir(&www).expect("a directory") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_none_or(|extension| extension != "js") {
            continue;
        }
        let source = fs::read_to_string(&path).expect("it is text");
        for key in quoted(&source, "text(\"", '"').into_iter().filter(|key| *key != "2d") {
            assert!(english.contains_key(key), "{}: {key}", path.display());
            count += 1;
        }
        for start in quoted(&source, "text(`", '$') {
            let is_known = english.keys().any(|key| key.starts_with(start));
            assert!(is_known, "{}: {start}", path.display());
            count += 1;
        }
    }
    assert!(count > 100, "{count} keys are used");
}

/// Opens the page in a browser with this language.
fn open_in(browser: &Browser, server: &Server, language: &str) {
    browser.devtools("Network.enable", "{}");
    let parameters = format!(r#"{{"userAgent":"test","acceptLanguage":"{language}"}}"#);
    browser.devtools("Emulation.setUserAgentOverride", &parameters);
    open_page(browser, &server.url("/"));
}

#[test]
fn the_page_speaks_chinese_to_a_chinese_browser_and_keeps_the_language_that_was_chosen() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    let speaks = |tag: &str| {
        let script = "return document.documentElement.lang";
        assert_eq!(browser.run(script, &[]).text(), tag);
    };
    speaks("en");
    open_in(&browser, &server, "zh-CN,en");
    speaks("zh-Hans");
    browser.wait_for("/已打开|已完成/.test(document.querySelector('#words-state').textContent)");
    assert_eq!(browser.text("#words-title"), "单词流");
    assert_eq!(browser.text("#lesson-gap h3"), "制造缺口");
    // No English is left but names, code and quotations of the standard.
    let english = browser.run(
        "const names = /newswire|EventSource|JavaScript|WebSocket|Server-Sent Events|English|HTTP|UTF-8|BroadcastChannel|SharedWorker|Last-Event-ID|Content-Type/g;
         const walker = document.createTreeWalker(document.querySelector('body'), NodeFilter.SHOW_TEXT);
         const found = [];
         while (walker.nextNode()) {
           const node = walker.currentNode;
           if (node.parentElement.closest('code, pre, option, script, noscript, textarea, #sentence, .tape, b, [lang=en]')) continue;
           const content = node.textContent.replace(names, '');
           if (/[a-z]{4,}/i.test(content) && !/[\\u4e00-\\u9fff]/.test(content)) found.push(content.trim());
         }
         return found",
        &[],
    );
    let known = ["curl", "telnet", "curl、telnet"];
    let left: Vec<_> = english.texts().into_iter().filter(|text| !known.contains(text)).collect();
    assert_eq!(left, [""; 0]);

    // The choice outlives the page.
    let choose = |name: &str| {
        browser.run(
            "const select = document.querySelector('#language'); select.value = arguments[0];
             select.dispatchEvent(new Event('change'))",
            &[name],
        );
        let is_chosen =
            format!("document.documentElement.lang.startsWith('{name}') && 'isReady' in document.body.dataset");
        browser.wait_for(&is_chosen);
    };
    choose("en");
    open_page(&browser, &server.url("/"));
    speaks("en");
    assert_eq!(browser.text("#words-title"), "The words");
    choose("zh");
    // The address may name a language, too.
    open_page(&browser, &server.url("/?language=en"));
    speaks("en");
    assert_clean(&browser, &server);
}

#[test]
fn the_language_can_be_switched_where_the_browser_stores_nothing() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::start(&[]);
    browser.run_first(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('refused', 'SecurityError') } })",
    );
    open_page(&browser, &server.url("/"));
    browser.run(
        "const select = document.querySelector('#language'); select.value = 'zh';
         select.dispatchEvent(new Event('change'))",
        &[],
    );
    browser.wait_for("document.documentElement.lang === 'zh-Hans'");
    assert_eq!(browser.url(), server.url("/?language=zh"));
}

#[test]
fn chinese_words_arrive_one_character_at_a_time() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    browser.click("#wire-more summary");
    browser.click("[data-preset=characters]");
    browser.wait_for("/^done/.test(document.querySelector('#read-state').textContent)");
    let characters = ["敏", "捷", "的", "棕", "色", "狐", "狸", "跳", "过", "了", "懒", "狗", "。"];
    assert_eq!(texts(&browser, "#read-wire .event .text"), characters);
    let url = browser.run("return document.querySelector('#bar-url').value", &[]);
    assert!(url.text().contains("split=char"), "{url:?}");
    assert_clean(&browser, &server);
}
