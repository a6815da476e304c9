//! The check of the page, which has the rules and the words of `newswire check`.

use crate::page::{assert_clean, read, visit, wait_for_state};
use crate::server::Server;
use crate::webdriver::{Browser, Json};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// The findings of the page, each as its parts, under the name of its rule.
fn check_in_page(browser: &Browser, server: &Server, url: &str) -> BTreeMap<String, [String; 4]> {
    let script = "const { check } = await import(given[0]);
                  return (await check(given[1], { seconds: 2 })).map((f) => [f.rule, f.outcome, f.seen, f.why, f.remedy])";
    let found = browser.run_async(script, &[&server.url("/check.js"), url]);
    let finding = |row: &Json| {
        let [rule, parts @ ..] = &row.texts()[..] else { panic!("{row:?}") };
        let parts: Vec<String> = parts.iter().map(|part| part.to_string()).collect();
        (rule.to_string(), parts.try_into().expect("four parts"))
    };
    found.items().iter().map(finding).collect()
}

/// The same of the command.
fn check_in_terminal(url: &str) -> BTreeMap<String, [String; 4]> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.args(["check", url, "--for", "2", "--output", "json"]).stdin(Stdio::null());
    let output = command.output().expect("the binary under test starts");
    let json = Json::parse(str::from_utf8(&output.stdout).expect("it is UTF-8"));
    let finding = |finding: &Json| {
        let part = |name: &str| finding[name].text().to_owned();
        (part("rule"), ["outcome", "seen", "why", "remedy"].map(part))
    };
    json["findings"].items().iter().map(finding).collect()
}

/// What the page says otherwise than the command.
fn differences(page: &BTreeMap<String, [String; 4]>, terminal: &BTreeMap<String, [String; 4]>) -> Vec<String> {
    // Times, reads and the reconnection time of the words differ from run to run.
    let timed = ["first-byte", "buffering", "heartbeat", "ending", "encoding", "resume", "retry"];
    let is_other = |(rule, found): &(&String, &[String; 4])| {
        let is_timed = timed.contains(&rule.as_str());
        let parts = |[outcome, seen, why, remedy]: &[String; 4]| {
            let seen = if is_timed { "" } else { seen };
            [outcome, seen, why, remedy].map(str::to_owned)
        };
        parts(found) != parts(&terminal[*rule])
    };
    let other = page.iter().filter(is_other);
    other.map(|(rule, found)| format!("{rule}: {found:?} is not {:?}", terminal[rule])).collect()
}

#[test]
fn the_page_finds_what_the_command_finds_and_says_it_in_the_same_words() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    let mut wrong = Vec::new();
    let mut outcomes = BTreeMap::<String, Vec<String>>::new();
    for path in [
        "/sse/mvc/words",
        "/lab?interval=100",
        "/lab?interval=20&complete=loop&retry=5",
        "/lab?interval=20&garbage=on&bom=on&newline=cr",
        "/lab?interval=20&id=off&newline=crlf",
        "/lab?interval=20&event=error&data=%7B%22a%22&data=%7B%7D&data=%5BDONE%5D",
        "/lab?interval=20&type=text/plain",
        "/lab?status=503",
        "/channels/news?typo=1",
        "/healthz",
    ] {
        // Each watches for two seconds. On a busy machine one may see an event more than the other.
        let mut differ = Vec::new();
        for _ in 0..4 {
            let url = server.url(path);
            let (page, terminal) = (check_in_page(&browser, &server, &url), check_in_terminal(&url));
            assert!(page.len() > 18, "{page:?}");
            differ = differences(&page, &terminal);
            if differ.is_empty() {
                page.into_iter().for_each(|(rule, [outcome, ..])| {
                    outcomes.entry(rule).or_default().push(outcome);
                });
                break;
            }
        }
        wrong.extend(differ.into_iter().map(|differ| format!("{path}: {differ}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The streams above break most of the rules.
    let broken = outcomes.values().filter(|all| all.iter().any(|o| o == "warn" || o == "fail"));
    assert!(broken.count() >= 12, "{outcomes:?}");
}

#[test]
fn the_address_in_the_bar_is_checked_at_a_press() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    read(&browser, "lab?interval=50&id=off&complete=loop", "fetch");
    wait_for_state(&browser, "^(open|ended)");
    browser.click("#bar-read");
    browser.click("#check-run");
    browser.wait_for("/^Watching/.test(document.querySelector('#check-state').textContent)");
    browser.wait_for("document.querySelector('#check-table').checkVisibility()");
    let url = server.url("/lab?interval=50&id=off&complete=loop");
    let counts = browser.text("#check-state");
    assert!(counts.starts_with(&format!("{url}: ")) && counts.contains(" fail"), "{counts}");
    assert_eq!(browser.text("#check-line"), format!("newswire check '{url}'"));
    let row = |rule: &str| {
        let script = "return [...document.querySelectorAll('#check-table tr')]
            .find((row) => row.querySelector('th').textContent === arguments[0]).innerText";
        browser.run(script, &[rule]).text().to_owned()
    };
    let (ids, status, resume) = (row("ids"), row("status"), row("resume"));
    assert!(ids.starts_with("warn") && ids.contains("remedy Give each event an id"), "{ids}");
    assert!(status.starts_with("pass") && !status.contains("remedy"), "{status}");
    assert!(resume.starts_with("not judged"), "{resume}");
    assert_clean(&browser, &server);
}

#[test]
fn a_stream_of_another_origin_is_checked_as_far_as_its_server_lets_pages_see() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    let open = Server::start(&[]);
    let found = check_in_page(&browser, &server, &open.url("/lab?interval=50"));
    for rule in ["status", "media-type", "ids", "resume", "ending"] {
        assert_eq!(found[rule][0], "pass", "{rule}: {:?}", found[rule]);
    }
    let closed = Server::start(&["--allow-origin", "https://other.example"]);
    let found = check_in_page(&browser, &server, &closed.url("/sse/mvc/words"));
    let expected = "the server does not let pages of this origin read (CORS)";
    assert_eq!((&*found["status"][0], &*found["status"][1]), ("fail", expected));
    assert_eq!(found["ids"][0], "unjudged");
    let gone = closed.url("/sse/mvc/words");
    drop(closed);
    let found = check_in_page(&browser, &server, &gone);
    assert_eq!(found["status"][1], "the server cannot be reached");
}
