//! Chromium, driven through ChromeDriver (W3C WebDriver), and the little JSON that this takes.

use crate::server::{PATIENCE, eventually};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::Method;

/// A browser with a profile of its own; it ends with the test.
pub(crate) struct Browser {
    driver: Child,
    agent: Agent,
    /// Where the session is, once there is one.
    session: String,
    profile: PathBuf,
    _place: Place,
}

/// The key under which WebDriver names an element (11.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys by their code point (17.4.2).
pub(crate) const TAB: char = '\u{e004}';
pub(crate) const ENTER: char = '\u{e007}';
pub(crate) const SPACE: char = ' ';
pub(crate) const HOME: char = '\u{e011}';
pub(crate) const RIGHT: char = '\u{e014}';
pub(crate) const DOWN: char = '\u{e015}';

impl Browser {
    /// `None`, loudly, on a machine without ChromeDriver; a machine that is there to test must have
    /// it.
    pub(crate) fn start() -> Option<Browser> {
        let place = Place::take();
        static PROFILES: AtomicU32 = AtomicU32::new(0);
        let profile = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "chromium-{}-{}",
            std::process::id(),
            PROFILES.fetch_add(1, Relaxed)
        ));
        let (driver, port) = match start_driver(&profile) {
            Ok(started) => started,
            Err(error) => {
                assert!(std::env::var("CI").is_err(), "chromedriver does not start: {error}");
                // Not eprintln, which the test harness would keep to itself.
                let _ = writeln!(io::stderr(), "\n*** SKIPPED, the page is not tested: chromedriver: {error} ***");
                return None;
            }
        };
        let agent = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let mut browser =
            Browser { driver, agent, session: format!("http://127.0.0.1:{port}/session"), profile, _place: place };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-precise-memory-info",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", browser.profile.display()),
        ];
        let arguments: Vec<_> = arguments.iter().map(|argument| quote(argument)).collect();
        let answer = browser.ask(
            Method::POST,
            "",
            &format!(
                r#"{{"capabilities":{{"alwaysMatch":{{"browserName":"chrome","timeouts":{{"script":60000}},
                "goog:loggingPrefs":{{"browser":"ALL","performance":"ALL"}},
                "goog:chromeOptions":{{"args":[{}]}}}}}}}}"#,
                arguments.join(",")
            ),
        );
        browser.session = format!("{}/{}", browser.session, answer["sessionId"].text());
        Some(browser)
    }

    fn ask(&self, method: Method, path: &str, content: &str) -> Json {
        self.try_to_ask(method, path, content).unwrap_or_else(|error| panic!("{path} {content}: {error}"))
    }

    /// An answer that is an error says which: `stale element reference: ...`.
    fn try_to_ask(&self, method: Method, path: &str, content: &str) -> Result<Json, String> {
        let url = format!("{}{path}", self.session);
        let sent = match method {
            Method::POST => self.agent.post(url).send(content),
            Method::DELETE => self.agent.delete(url).call(),
            _ => self.agent.get(url).call(),
        };
        let mut response = sent.map_err(|error| error.to_string())?;
        let limit = 64 << 20;
        let text = response.body_mut().with_config().limit(limit).read_to_string();
        let value = Json::parse(&text.map_err(|error| error.to_string())?)["value"].clone();
        match value["error"].clone() {
            Json::Text(error) => Err(format!("{error}: {}", value["message"].text())),
            _ => Ok(value),
        }
    }

    fn post(&self, path: &str, content: &str) -> Json {
        self.ask(Method::POST, path, content)
    }

    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &format!(r#"{{"url":{}}}"#, quote(url)));
    }

    pub(crate) fn url(&self) -> String {
        self.ask(Method::GET, "/url", "").text().to_owned()
    }

    /// What the body of a function returns; `arguments` are its arguments.
    pub(crate) fn run(&self, script: &str, arguments: &[&str]) -> Json {
        self.script("sync", script, arguments)
    }

    /// As [`run`](Browser::run), of an async function.
    pub(crate) fn run_async(&self, script: &str, arguments: &[&str]) -> Json {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             (async (...given) => {{ {script} }})(...arguments).then(done, (e) => done(`threw ${{e}}`));"
        );
        self.script("async", &script, arguments)
    }

    fn script(&self, kind: &str, script: &str, arguments: &[&str]) -> Json {
        let arguments: Vec<_> = arguments.iter().map(|argument| quote(argument)).collect();
        let content = format!(r#"{{"script":{},"args":[{}]}}"#, quote(script), arguments.join(","));
        self.post(&format!("/execute/{kind}"), &content)
    }

    /// Waits until an expression is true.
    pub(crate) fn wait_for(&self, expression: &str) {
        let script = format!("return !!({expression})");
        let deadline = Instant::now() + PATIENCE;
        while self.run(&script, &[]) != Json::True {
            assert!(
                Instant::now() < deadline,
                "waited in vain: {expression}; the page says:\n{}",
                self.run("return document.body.innerText", &[]).text()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The text of an element, as a person sees it.
    pub(crate) fn text(&self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0]).innerText";
        self.run(script, &[selector]).text().to_owned()
    }

    fn element(&self, selector: &str) -> String {
        let content = format!(r#"{{"using":"css selector","value":{}}}"#, quote(selector));
        self.post("/element", &content)[ELEMENT].text().to_owned()
    }

    /// With the mouse, in the middle of what must be visible there.
    pub(crate) fn click(&self, selector: &str) {
        let path = format!("/element/{}/click", self.element(selector));
        let mut last = String::new();
        eventually(&format!("a click on {selector}"), || {
            // A page that still scrolls there moves it away from under the pointer.
            self.try_to_ask(Method::POST, &path, "{}").inspect_err(|error| last.clone_from(error)).is_ok()
        });
    }

    /// Clicks on an element, empties it and types.
    pub(crate) fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/clear"), "{}");
        let content = format!(r#"{{"text":{}}}"#, quote(text));
        self.post(&format!("/element/{element}/value"), &content);
    }

    /// Presses keys one after the other, wherever the focus is.
    pub(crate) fn press(&self, keys: &[char]) {
        let actions: Vec<_> = keys
            .iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| (kind, key)))
            .map(|(kind, key)| {
                let key = quote(&key.to_string());
                format!(r#"{{"type":"{kind}","value":{key}}}"#)
            })
            .collect();
        self.post(
            "/actions",
            &format!(r#"{{"actions":[{{"type":"key","id":"keyboard","actions":[{}]}}]}}"#, actions.join(",")),
        );
    }

    /// A new one, `tab` or `window`; commands go on to go to the old one.
    pub(crate) fn new_window(&self, kind: &str) -> String {
        let answer = self.post("/window/new", &format!(r#"{{"type":"{kind}"}}"#));
        answer["handle"].text().to_owned()
    }

    pub(crate) fn window(&self) -> String {
        self.ask(Method::GET, "/window", "").text().to_owned()
    }

    pub(crate) fn switch_to(&self, window: &str) {
        self.post("/window", &format!(r#"{{"handle":{}}}"#, quote(window)));
    }

    /// A command of the Chrome DevTools Protocol.
    pub(crate) fn devtools(&self, command: &str, parameters: &str) -> Json {
        self.post("/goog/cdp/execute", &format!(r#"{{"cmd":"{command}","params":{parameters}}}"#))
    }

    /// Before any script of the pages that are opened from now on.
    pub(crate) fn run_first(&self, script: &str) {
        let parameters = format!(r#"{{"source":{}}}"#, quote(script));
        self.devtools("Page.addScriptToEvaluateOnNewDocument", &parameters);
    }

    /// Lines on the console since the last time, as (level, text). The text begins with where it
    /// was said.
    pub(crate) fn console(&self) -> Vec<(String, String)> {
        let log = self.post("/se/log", r#"{"type":"browser"}"#);
        let line = |entry: &Json| {
            let (level, message) = (&entry["level"], &entry["message"]);
            (level.text().to_owned(), message.text().to_owned())
        };
        log.items().iter().map(line).collect()
    }

    /// The URL of every request since the last time.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = self.post("/se/log", r#"{"type":"performance"}"#);
        let entries = log.items().iter().map(|entry| {
            let message = Json::parse(entry["message"].text());
            message["message"].clone()
        });
        let sent = entries.filter(|entry| entry["method"].text() == "Network.requestWillBeSent");
        sent.map(|entry| entry["params"]["request"]["url"].text().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // This ends Chromium, which a driver that is killed would leave behind.
        let _ = self.try_to_ask(Method::DELETE, "", "");
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        // A process of Chromium's may still write there.
        for _ in 0..20 {
            if fs::remove_dir_all(&self.profile).is_ok() || !self.profile.exists() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// ChromeDriver, and the port that it listens on. What it and Chromium write is in `profile`.
fn start_driver(profile: &Path) -> io::Result<(Child, u16)> {
    fs::create_dir_all(profile)?;
    // It takes a port of IPv4 that is free, and ends if the same one of IPv6 is not, or if the machine is short of something
    // for a moment.
    for attempt in 0..40 {
        thread::sleep(Duration::from_millis(if attempt < 10 { 0 } else { 500 }));
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", profile)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdout = BufReader::new(driver.stdout.take().expect("it is piped"));
        let mut line = String::new();
        while stdout.read_line(&mut line)? > 0 {
            // "ChromeDriver was started successfully on port 41823."
            let port = line
                .split_once("successfully on port ")
                .and_then(|(_, port)| port.trim().trim_end_matches('.').parse().ok());
            if let Some(port) = port {
                thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
                return Ok((driver, port));
            }
            line.clear();
        }
        driver.wait()?;
    }
    Err(io::Error::other("it ends before it listens"))
}

/// One of the browsers that may run at a time: each is several processes.
struct Place;

const BROWSERS: usize = 2;
static RUNNING: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

impl Place {
    fn take() -> Place {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= BROWSERS {
            running = LEFT.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LEFT.notify_one();
    }
}

/// A JSON text (RFC 8259), read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    False,
    True,
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Map(BTreeMap<String, Json>),
}

impl Json {
    pub(crate) fn parse(text: &str) -> Json {
        let mut rest = text;
        let json = Json::read(&mut rest);
        assert!(rest.trim().is_empty(), "{rest:?} behind a JSON text");
        json
    }

    fn read(rest: &mut &str) -> Json {
        *rest = rest.trim_start();
        let first = rest.chars().next().expect("a JSON text goes on");
        match first {
            '{' => {
                let mut map = BTreeMap::new();
                Json::read_items(rest, '}', |rest| {
                    let Json::Text(name) = Json::read(rest) else {
                        panic!("a name before {rest}");
                    };
                    *rest = rest.trim_start().strip_prefix(':').expect("a colon");
                    map.insert(name, Json::read(rest));
                });
                Json::Map(map)
            }
            '[' => {
                let mut list = Vec::new();
                Json::read_items(rest, ']', |rest| list.push(Json::read(rest)));
                Json::List(list)
            }
            '"' => Json::Text(Json::read_string(rest)),
            _ => {
                let end = rest.find([',', ']', '}', ' ', '\n']).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                *rest = behind;
                match word.trim_end() {
                    "null" => Json::Null,
                    "true" => Json::True,
                    "false" => Json::False,
                    number => Json::Number(number.parse().expect("a number")),
                }
            }
        }
    }

    fn read_items(rest: &mut &str, end: char, mut read: impl FnMut(&mut &str)) {
        *rest = rest[1..].trim_start();
        while !rest.starts_with(end) {
            read(rest);
            *rest = rest.trim_start();
            *rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        *rest = &rest[1..];
    }

    fn read_string(rest: &mut &str) -> String {
        // Escapes are of UTF-16 code units, so that a character may be two of them.
        let (mut units, mut at) = (Vec::new(), 1);
        loop {
            let character = rest[at..].chars().next().expect("a string ends");
            at += character.len_utf8();
            if character == '"' {
                break;
            }
            if character != '\\' {
                units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
                continue;
            }
            let escaped = rest.as_bytes()[at];
            at += 1;
            units.push(match escaped {
                b'n' => 10,
                b't' => 9,
                b'r' => 13,
                b'b' => 8,
                b'f' => 12,
                b'u' => {
                    at += 4;
                    u16::from_str_radix(&rest[at - 4..at], 16).expect("four hex digits")
                }
                other => other.into(),
            });
        }
        *rest = &rest[at..];
        String::from_utf16_lossy(&units)
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Json::Text(text) => text,
            _ => panic!("{self:?} is no string"),
        }
    }

    pub(crate) fn number(&self) -> f64 {
        match self {
            Json::Number(number) => *number,
            _ => panic!("{self:?} is no number"),
        }
    }

    pub(crate) fn items(&self) -> &[Json] {
        match self {
            Json::List(list) => list,
            _ => panic!("{self:?} is no list"),
        }
    }

    /// The strings of a list of strings.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.items().iter().map(Json::text).collect()
    }
}

/// A member, or null when there is none.
impl std::ops::Index<&str> for Json {
    type Output = Json;

    fn index(&self, name: &str) -> &Json {
        match self {
            Json::Map(map) => map.get(name).unwrap_or(&Json::Null),
            _ => &Json::Null,
        }
    }
}

impl std::ops::Index<usize> for Json {
    type Output = Json;

    fn index(&self, at: usize) -> &Json {
        &self.items()[at]
    }
}

/// A JSON string, written.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\x1f' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
