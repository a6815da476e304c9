//! The log of the page: what survives, what a row says, filters, copies, recordings, and a firehose.

use crate::page::{assert_clean, data, find, publish, read, rows, visit, wait_for_row, wait_for_state};
use crate::webdriver::{Browser, DOWN, ENTER, HOME};

/// Catches what the page copies and saves.
const CATCH: &str = "navigator.clipboard.writeText = async (text) => { window.copied = text };
     URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text }); return 'blob:x' };
     HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download };";

/// What was caught under a name.
fn caught(browser: &Browser, name: &str) -> String {
    browser.wait_for(&format!("window.{name}"));
    browser.run(&format!("return window.{name}"), &[]).text().to_owned()
}

/// A file that is dropped on the page.
fn drop_file(browser: &Browser, name: &str, content: &str) {
    let script = "const data = new DataTransfer();
        data.items.add(new File([arguments[1]], arguments[0]));
        document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))";
    browser.run(script, &[name, content]);
}

#[test]
fn rows_about_the_connection_survive_when_events_are_dropped() {
    let Some((server, browser)) = visit(&["--publish-open", "--history-events", "20000"]) else {
        return;
    };
    browser.click("#channel-tab");
    browser.click("#channel-join");
    wait_for_state(&browser, "^open");
    publish(&server, "/channels/news", "the first");
    wait_for_row(&browser, "the first");
    // The gap demonstration of the page: leave, publish more than the server keeps, join again.
    browser.click("#channel-join");
    wait_for_state(&browser, "^let go");
    let lines = |from: u32, to: u32| (from..to).map(|n| format!("line {n}\n")).collect::<String>();
    publish(&server, "/channels/news?lines", &lines(0, 15000));
    publish(&server, "/channels/news?lines", &lines(15000, 30000));
    browser.click("#channel-join");
    wait_for_row(&browser, "line 29999");
    // The log keeps the newest 10,000 events.
    browser.wait_for("/The oldest [0-9,]+ are dropped/.test(document.querySelector('#log-count').textContent)");
    find(&browser, "gap");
    let gaps = rows(&browser);
    assert_eq!(gaps.iter().filter(|row| row.starts_with("gap|")).count(), 1, "{gaps:?}");
    assert!(gaps.concat().contains("may be lost. The oldest event kept is "), "{gaps:?}");
    find(&browser, "open");
    assert_eq!(rows(&browser).iter().filter(|row| row.starts_with("open|")).count(), 2);
    find(&browser, "the first");
    assert_eq!(data(&rows(&browser)), [""; 0]);
    let elements = browser.run("return String(document.querySelectorAll('*').length)", &[]);
    let elements: u32 = elements.text().parse().expect("a number");
    assert!(elements < 2000, "{elements} elements");
    assert_clean(&browser, &server);
}

#[test]
fn a_row_says_when_what_and_how_large_and_its_json_is_laid_out() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    browser.run(CATCH, &[]);
    drop_file(
        &browser,
        "two.sse",
        ": +10 ms\nevent: order\nid: 7\ndata: {\"items\": [{\"name\": \"Grüße\"}],\ndata:  \"paid\": true}\n\n\
         : +3000 ms\ndata: plain\ndata: two lines\n\n: +20 ms\nid: 8\ndata: {no json\n\n",
    );
    wait_for_state(&browser, "^done");
    let shown = rows(&browser);
    let cells: Vec<Vec<_>> = shown.iter().map(|row| row.split('|').collect()).collect();
    let events: Vec<_> = cells.iter().filter(|row| row[0] == "event").collect();
    let clock = events[0][1];
    assert!(clock.len() == 12 && clock.as_bytes()[8] == b'.', "{clock}");
    // It says the spacing: at least what the recording has.
    let spacing = events[1][2].trim_start_matches('+').trim_end_matches(" s");
    assert!(spacing.parse::<f64>().expect("seconds") >= 1.0, "{spacing}");
    assert_eq!(events[0][3..6], ["order", "7", "47 B"]);
    assert_eq!(events[1][3..], ["message", "7", "15 B", "plain ↵ two lines"]);

    // The first row, whole: JSON as a tree that folds.
    browser.run("document.querySelector('#log').focus()", &[]);
    browser.press(&[HOME, DOWN]);
    browser.wait_for("document.querySelectorAll('#detail-data details').length === 3");
    let tree = browser.text("#detail-data");
    assert!(tree.contains("items: [1]") && tree.contains("name: \"Grüße\"") && tree.contains("paid: true"), "{tree}");
    browser.click("#detail-data details details summary");
    assert!(!browser.text("#detail-data").contains("name:"));
    browser.click("#detail-copy");
    assert_eq!(caught(&browser, "copied"), "{\"items\": [{\"name\": \"Grüße\"}],\n \"paid\": true}");
    browser.press(&[]);
    browser.click("#log .event:nth-child(4)");
    assert_eq!(browser.text("#detail-data"), "{no json");

    // Copies and files
    browser.click("#log-copy");
    let stream = "event: order\nid: 7\ndata: {\"items\": [{\"name\": \"Grüße\"}],\ndata:  \"paid\": true}\n\n\
                  data: plain\ndata: two lines\n\nid: 8\ndata: {no json\n\n";
    browser.wait_for("window.copied.startsWith('event')");
    assert_eq!(caught(&browser, "copied"), stream);
    browser.click("#log-save");
    let saved = caught(&browser, "saved");
    assert_eq!(caught(&browser, "savedAs"), "recording.sse");
    let without_timing: String = saved.split_inclusive('\n').filter(|line| !line.starts_with(": +")).collect();
    assert_eq!(without_timing, stream);
    let delays: Vec<u32> =
        saved.lines().filter_map(|line| line.strip_prefix(": +")?.strip_suffix(" ms")?.parse().ok()).collect();
    assert!(delays.len() == 3 && delays[0] == 0 && delays[1] >= 1000, "{saved}");
    browser.run("document.querySelector('#log-format').value = 'json'", &[]);
    browser.click("#log-copy");
    browser.wait_for("window.copied.startsWith('[')");
    let json = crate::webdriver::Json::parse(&caught(&browser, "copied"));
    assert_eq!(json[1]["data"].text(), "plain\ntwo lines");
    assert_eq!(json[2]["id"].text(), "8");

    // What was saved plays again.
    drop_file(&browser, "again.sse", &saved);
    wait_for_row(&browser, "Playing again.sse");
    wait_for_state(&browser, "^done");
    assert_eq!(data(&rows(&browser)), data(&shown));
    assert_clean(&browser, &server);
}

#[test]
fn the_log_is_filtered_searched_paused_and_cleared() {
    let Some((server, browser)) = visit(&["--publish-open"]) else {
        return;
    };
    read(&browser, &server.url("/channels/news"), "fetch");
    wait_for_state(&browser, "^open");
    let publish = |kind: &str, content: &str| {
        publish(&server, &format!("/channels/news?event={kind}"), content);
        wait_for_row(&browser, content);
    };
    for number in 0..4 {
        publish("weather", &format!("Rain {number}"));
        publish("sport", &format!("Goal {number}"));
    }
    // By type
    browser.run(
        "const type = document.querySelector('#log-type'); type.value = 'sport'; type.dispatchEvent(new Event('change'))",
        &[],
    );
    browser.wait_for("/4 rows shown/.test(document.querySelector('#log-count').textContent)");
    assert_eq!(data(&rows(&browser)), ["Goal 0", "Goal 1", "Goal 2", "Goal 3"]);
    browser.run(
        "const type = document.querySelector('#log-type'); type.value = ''; type.dispatchEvent(new Event('change'))",
        &[],
    );
    // By text: Enter goes from one to the next.
    browser.fill("#log-find", "rain");
    browser.press(&[ENTER]);
    browser.wait_for("document.querySelector('#detail-data').textContent === 'Rain 0'");
    browser.press(&[ENTER]);
    browser.wait_for("document.querySelector('#detail-data').textContent === 'Rain 1'");
    browser.wait_for("document.querySelectorAll('#log .event:not([hidden])').length === 8");
    find(&browser, "rain");
    browser.wait_for("document.querySelectorAll('#log .hit:not([hidden])').length === 4");
    find(&browser, "");
    // Paused, it counts what it holds back.
    browser.click("#log-pause");
    crate::page::publish(&server, "/channels/news", "meanwhile");
    browser.wait_for("/1 new/.test(document.querySelector('#log-pause').textContent)");
    assert!(!rows(&browser).concat().contains("meanwhile"));
    browser.click("#log-pause");
    wait_for_row(&browser, "meanwhile");
    browser.click("#log-clear");
    browser.wait_for("document.querySelector('#log-empty').checkVisibility()");
    publish("weather", "Sun");
    assert_eq!(data(&rows(&browser)), ["Sun"]);
    assert_clean(&browser, &server);
}

#[test]
fn a_thousand_events_a_second_leave_the_page_smooth_and_no_heap_behind() {
    let Some((server, browser)) = visit(&[]) else {
        return;
    };
    browser.wait_for("document.querySelectorAll('.word').length === 9");
    browser.devtools("Performance.enable", "{}");
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
    // The bytes are shown, too.
    browser.click("#wire-more summary");
    read(&browser, &server.url("/lab?count=30000&interval=1&size=100"), "fetch");
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
            "Number(document.querySelector('#read-events').textContent.replace(/,/g, '')) >= {least}"
        ));
    };
    heard("3000");
    let busy = frames_per_second();
    assert!(busy > calm / 10.0, "{calm} frames a second became {busy}");
    // From here on the log is full.
    heard("11000");
    let (nodes_before, heap_before) = measure();
    for least in ["16000", "22000", "28000"] {
        heard(least);
    }
    let (nodes, heap) = measure();
    let elements = browser.run("return String(document.querySelectorAll('*').length)", &[]);
    let elements: u32 = elements.text().parse().expect("a number");
    assert!(elements < 3000, "{elements} elements");
    assert!(nodes < nodes_before + 10000.0, "{nodes_before} nodes became {nodes}");
    assert!(heap < heap_before + 8.0, "{heap_before} MB became {heap}");
    heard("30000");
    browser.wait_for("document.querySelector('#read-id').textContent === '30000'");
    assert_eq!(browser.text("#read-events"), "30,000");
    assert_clean(&browser, &server);
}
