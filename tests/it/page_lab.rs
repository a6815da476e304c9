//! The laboratory and the editor of the page.

use crate::page::{assert_clean, data, open_page, publish, rows, texts, visit, wait_for_row, wait_for_state};
use crate::webdriver::Browser;

fn heard(browser: &Browser, least: u32) {
    browser
        .wait_for(&format!("Number(document.querySelector('#read-events').textContent.replace(/,/g, '')) >= {least}"));
}

/// Sets fields of the form under Adjust.
fn adjust(browser: &Browser, fields: &[(&str, &str)]) {
    browser.run("document.querySelector('#adjust').open = true", &[]);
    for (name, value) in fields {
        let script = "const e = document.querySelector(`#order [name=${arguments[0]}]`); e.value = arguments[1];
                      e.dispatchEvent(new Event('input', { bubbles: true }))";
        browser.run(script, &[name, value]);
    }
}

#[test]
fn the_laboratory_plays_what_the_fields_ask_for() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    // A link to /lab leads to the laboratory on the page.
    open_page(&browser, &server.url("/lab"));
    assert_eq!(browser.url(), server.url("/#lab"));
    browser.click("#wire-more summary");
    adjust(
        &browser,
        &[
            ("text", "to be or not"),
            ("event", "token"),
            ("interval", "200"),
            ("retry", "50"),
            ("cut", "2"),
            ("newline", "crlf"),
            ("lines", "2"),
        ],
    );
    browser.click("#run .main");
    wait_for_state(&browser, "^done");
    let query = "text=to+be+or+not&event=token&lines=2&interval=200&retry=50&newline=crlf&cut=2";
    let url = browser.run("return document.querySelector('#bar-url').value", &[]);
    assert_eq!(url.text(), server.url(&format!("/lab?{query}")));
    assert_eq!(data(&rows(&browser)), ["to ↵ to", "be ↵ be", "or ↵ or", "not ↵ not"]);
    assert_eq!(browser.text("#read-id"), "4");
    let summary = browser.text("#read-summary");
    assert!(summary.contains("events 4,") && summary.contains("connections 2"), "{summary}");
    let made = texts(&browser, "#read-wire .event");
    let expected = |(id, word): (usize, &&str)| {
        format!("id: {id}event: tokendata: {word}data: {word}{word}\n{word} token, id {id}", id = id + 1)
    };
    let events = ["to", "be", "or", "not"];
    assert_eq!(made, events.iter().enumerate().map(expected).collect::<Vec<_>>());
    // The chart has the colour of events, and that of an end.
    let colours = browser.run(
        "const canvas = document.querySelector('#chart'), pen = canvas.getContext('2d');
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
}

#[test]
fn a_mistaken_order_marks_its_field_and_says_there_what_is_wrong() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    for with in ["eventsource", "fetch"] {
        adjust(&browser, &[("count", "9"), ("cut", "9")]);
        browser.run("document.querySelector('#lab-as').value = arguments[0]", &[with]);
        browser.click("#run .main");
        browser.wait_for("document.querySelector('[name=cut]').getAttribute('aria-invalid') === 'true'");
        browser.wait_for("document.activeElement.name === 'cut'");
        assert!(browser.text("#lab-cut-why").starts_with("cut is less than count"));
        // It is described to a screen reader, and says nothing of anything else first.
        let told = browser.run("return document.querySelector('[name=cut]').getAttribute('aria-describedby')", &[]);
        assert!(told.text().contains("lab-cut-why"));
        assert!(browser.text("#read-why").starts_with("cut is less than count"));
        // The mark goes when the order is mended.
        adjust(&browser, &[("cut", ""), ("interval", "50")]);
        browser.click("#run .main");
        heard(&browser, 9);
        let marked = browser.run("return String(document.querySelectorAll('[aria-invalid]').length)", &[]);
        assert_eq!(marked.text(), "0");
    }
    // A number outside of its range does not even leave the page.
    adjust(&browser, &[("count", "0")]);
    browser.click("#run .main");
    browser.wait_for("document.activeElement.name === 'count'");
    assert!(browser.text("#lab-count-why").contains("from 1 to 100,000"));
    adjust(&browser, &[("count", "7")]);
    browser.click("#run .main");
    heard(&browser, 7);
    assert!(!server.said().contains("count=0"), "{}", server.said());
}

#[test]
fn a_preset_runs_at_a_press_and_is_marked_while_it_runs() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    let take = |name: &str| browser.click(&format!("[data-preset={name}]"));
    browser.click("#wire-more summary");
    // While the laboratory runs, the words go on to show their bytes.
    take("silent");
    wait_for_state(&browser, "^open");
    let pressed = "[...document.querySelectorAll('#presets [aria-pressed=true]')].map((e) => e.dataset.preset).join()";
    browser.wait_for(&format!("{pressed} === 'silent'"));
    heard(&browser, 5);
    browser.wait_for("/done/.test(document.querySelector('#words-state').textContent)");
    browser.wait_for("document.querySelector('#words-wire .closed')");
    let bytes = texts(&browser, "#words-wire .event pre");
    assert_eq!(bytes.len(), 9);
    assert!(bytes.iter().all(|bytes| bytes.contains("data: ")), "{bytes:?}");
    assert_eq!(browser.text("#read-state"), "open");
    browser.click("#bar-read");
    browser.wait_for(&format!("{pressed} === ''"));

    take("nightmare");
    heard(&browser, 9);
    wait_for_state(&browser, "^done");
    let wire = texts(&browser, "#read-wire li").concat();
    assert!(wire.contains("any pending data must be discarded"), "{wire}");
    assert!(wire.contains("[BOM]: newswire"), "{wire}");

    take("tokens");
    heard(&browser, 46);
    wait_for_state(&browser, "^done");
    assert_clean(&browser, &server);

    take("unavailable");
    wait_for_row(&browser, "gaveUp.*status 503");
    assert_eq!(browser.text("#read-events"), "0");
    browser.console();

    take("mobile");
    // It runs long enough to be cut again.
    adjust(&browser, &[("count", "2000")]);
    browser.click("#run .main");
    wait_for_row(&browser, "(lost|back)");
    heard(&browser, 20);
    browser.click("#read-cut");
    browser.wait_for("/connections 3/.test(document.querySelector('#read-summary').textContent)");
    let before = browser.text("#read-events").parse::<u32>().expect("a number");
    heard(&browser, before + 5);
    // No event is missing and none came twice: their number is the id of the last.
    let count_and_id = "return ['events', 'id'].map((name) =>
           document.getElementById(`read-${name}`).textContent.replace(/,/g, ''))";
    let count_and_id = browser.run(count_and_id, &[]);
    assert_eq!(count_and_id[0], count_and_id[1]);
    browser.click("#bar-read");
    wait_for_state(&browser, "^let go");
    for (name, last) in [("chat", "[DONE]"), ("named", "message_stop"), ("mcp", "isError")] {
        take(name);
        wait_for_state(&browser, "^done");
        let shown = rows(&browser);
        assert!(data(&shown).last().is_some_and(|data| data.contains(last)), "{shown:?}");
    }
    assert_clean(&browser, &server);
}

#[test]
fn the_editor_plays_what_is_typed_saves_it_and_publishes_it() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    browser.click("#write-tab");
    let typed = ": +0 ms\nevent: one\ndata: {\"a\": 1}\n\n: +300 ms\nid: x\ndata: two\ndata: lines";
    browser.run(
        "const area = document.querySelector('#write-text'); area.value = arguments[0];
         area.dispatchEvent(new Event('input'));
         URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text }); return 'blob:x' };
         HTMLAnchorElement.prototype.click = () => {};",
        &[typed],
    );
    browser.wait_for("/Events: 2. Length: 0.3 s/.test(document.querySelector('#write-count').textContent)");
    browser.click("#write-play");
    wait_for_state(&browser, "^done");
    let shown = rows(&browser);
    assert_eq!(data(&shown), ["{\"a\": 1}", "two ↵ lines"]);
    assert!(shown.concat().contains("|one|"), "{shown:?}");
    browser.click("#write-save");
    browser.wait_for("window.saved");
    let saved = browser.run("return window.saved", &[]);
    assert_eq!(saved.text(), format!("{typed}\n\n"));
    // Its events reach every subscriber.
    publish(&server, "/channels/news", "before");
    browser.click("#write-send");
    browser.wait_for("/Published 2 events on news/.test(document.querySelector('#write-told').textContent)");
    browser.click("#channel-tab");
    browser.run("document.querySelector('#bar-last-id').value = 'earliest'", &[]);
    crate::page::read(&browser, &server.url("/channels/news"), "fetch");
    wait_for_row(&browser, "two ↵ lines");
    assert_eq!(data(&rows(&browser)), ["before", "{\"a\": 1}", "two ↵ lines"]);
    assert_clean(&browser, &server);
}
