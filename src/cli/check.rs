//! `newswire check`: what is wrong with an event stream, rule by rule.
//!
//! Read it in this order: `stream`, `probe`, `rule`, `json`; the rules themselves are in `answer`, `format`, `delivery`.

mod answer;
mod delivery;
mod format;
pub(super) mod json;
mod probe;
mod rule;
mod stream;

use super::arguments::unknown;
use super::{Arguments, Failure, say};
use newswire::http::client::Request;
use newswire::sse::json_string;
use probe::Seen;
use rule::{Finding, Outcome, Rule};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::time::Duration;

const HELP: &str = "\
newswire check: what is wrong with an event stream, rule by rule

USAGE
    newswire check URL [OPTIONS]

OPTIONS
    --for SECONDS              watch the stream for so long                             [10]
    --proxy-timeout SECONDS    the silence after which proxies cut a connection         [60]
    --header 'NAME: VALUE'     send this field, too; repeatable
    --only RULE,RULE           judge only these rules; repeatable
    --skip RULE,RULE           do not judge these rules; repeatable
    --output text|json         a table for people, or a JSON document                 [text]
    --list                     write the names of the rules
    --help

The exit code is 1 if a rule fails, and 2 for a mistake on the command line.
";

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else { return Ok(()) };
    let seen = Seen::gather(&options.request, options.time, options.proxy_timeout);
    let findings: Vec<(&Rule, Finding)> = all_rules()
        .map(|rule| (rule, rule.judge(&seen)))
        // Where there is no stream, no rule but this one can say so.
        .filter(|(rule, (outcome, _))| {
            options.rules.contains(&rule.name) || rule.name == "status" && *outcome == Outcome::Fail
        })
        .collect();
    say(&match options.is_json {
        true => to_json(&options, &seen, &findings),
        false => to_text(&options, &seen, &findings),
    });
    match findings.iter().filter(|(_, (outcome, _))| *outcome == Outcome::Fail).count() {
        0 => Ok(()),
        failed => Err(Failure::later(format!("{failed} of {} rules fail", findings.len()))),
    }
}

fn all_rules() -> impl Iterator<Item = &'static Rule> {
    [answer::RULES, format::RULES, delivery::RULES].into_iter().flatten()
}

struct Options {
    request: Request,
    time: Duration,
    proxy_timeout: Duration,
    rules: Vec<&'static str>,
    is_json: bool,
}

impl Options {
    /// `None` when something else was asked for and written.
    fn parse(mut arguments: Arguments) -> Result<Option<Options>, Failure> {
        let (mut url, mut seconds, mut proxy_timeout, mut is_json) = (None, 10, 60, false);
        let (mut fields, mut only, mut skip) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(option) = arguments.next()? {
            match option.as_str() {
                name @ "--for" => seconds = arguments.number(name, 1, 86_400)?,
                name @ "--proxy-timeout" => proxy_timeout = arguments.number(name, 1, 86_400)?,
                name @ "--header" => fields.push(field(arguments.value(name, "a field")?)?),
                name @ "--only" => only.extend(rules(arguments.value(name, "names of rules")?)?),
                name @ "--skip" => skip.extend(rules(arguments.value(name, "names of rules")?)?),
                name @ "--output" => {
                    let output: String = arguments.value(name, "text or json")?;
                    is_json = match output.as_str() {
                        "json" => true,
                        "text" => false,
                        _ => return Err(Failure::usage("--output takes text or json")),
                    };
                }
                name @ ("--help" | "-h" | "--list") => {
                    arguments.check_switch(name)?;
                    let names = || all_rules().map(|rule| rule.name.to_owned() + "\n").collect();
                    say(&if name == "--list" { names() } else { HELP.to_owned() });
                    return Ok(None);
                }
                name if name.starts_with('-') || url.is_some() => {
                    return Err(unknown(OsStr::new(name)));
                }
                _ => url = Some(option),
            }
        }
        let url =
            url.ok_or_else(|| Failure::usage("check takes a URL; see newswire check --help"))?;
        let request = Request::new(&url).map_err(|error| Failure::usage(error.to_string()))?;
        let request =
            request.field("Accept", "text/event-stream").field("Cache-Control", "no-store");
        let request = fields.iter().fold(request, |all, (name, value)| all.field(name, value));
        let is_wanted =
            |name: &&str| (only.is_empty() || only.contains(name)) && !skip.contains(name);
        let [time, proxy_timeout] =
            [seconds, proxy_timeout].map(|seconds| Duration::from_secs(seconds as u64));
        let rules = all_rules().map(|rule| rule.name).filter(is_wanted).collect();
        Ok(Some(Options { request, time, proxy_timeout, rules, is_json }))
    }
}

fn field(text: String) -> Result<(String, String), Failure> {
    let parts = text.split_once(':').filter(|(name, _)| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty() && name.bytes().all(is_name) && !text.contains(['\r', '\n', '\0'])
    });
    let parts = parts.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    parts.ok_or_else(|| Failure::usage(format!("--header takes 'Name: value', not {text:?}")))
}

fn rules(names: String) -> Result<Vec<&'static str>, Failure> {
    let find = |name: &str| {
        let rule = all_rules().map(|rule| rule.name).find(|found| *found == name.trim());
        rule.ok_or_else(|| {
            Failure::usage(format!("{name:?} is not a rule; see newswire check --list"))
        })
    };
    names.split(',').map(find).collect()
}

/// The word for an outcome, and its colour on a terminal (ECMA-48, SGR).
fn word(outcome: Outcome) -> (&'static str, u8) {
    match outcome {
        Outcome::Pass => ("pass", 32),
        Outcome::Info => ("info", 36),
        Outcome::Warn => ("warn", 33),
        Outcome::Fail => ("fail", 31),
        Outcome::Unjudged => ("unjudged", 0),
    }
}

fn to_text(options: &Options, seen: &Seen, findings: &[(&Rule, Finding)]) -> String {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_coloured = io::stdout().is_terminal() && !no_color;
    let mut text = format!(
        "{} for {} s: {} events, {} bytes\n\n",
        options.request.url,
        options.time.as_secs(),
        seen.first.events.len(),
        seen.first.stream.raw.len()
    );
    let (mut counts, mut unjudged) = ([0; 4], BTreeMap::<&str, Vec<&str>>::new());
    for (rule, (outcome, found)) in findings {
        if *outcome == Outcome::Unjudged {
            unjudged.entry(found).or_default().push(rule.name);
            continue;
        }
        counts[*outcome as usize] += 1;
        let (word, colour) = word(*outcome);
        let word =
            if is_coloured { format!("\x1b[{colour}m{word}\x1b[m") } else { word.to_owned() };
        text += &format!("{word}  {:<18} {found}\n", rule.name);
        if *outcome != Outcome::Pass {
            text += &format!("{:6}why     {}\n{:6}remedy  {}\n", "", rule.why, "", rule.remedy);
        }
    }
    let [pass, info, warn, fail] = counts;
    text += &format!("\n{pass} pass, {info} info, {warn} warn, {fail} fail\n");
    for (reason, rules) in unjudged {
        text += &format!("not judged, because {reason}: {}\n", rules.join(", "));
    }
    text
}

fn to_json(options: &Options, seen: &Seen, findings: &[(&Rule, Finding)]) -> String {
    let findings = findings.iter().map(|(rule, (outcome, found))| {
        let texts = [rule.name, word(*outcome).0, found, rule.why, rule.remedy].map(json_string);
        let [name, outcome, found, why, remedy] = texts;
        format!(
            "{{\"rule\":{name},\"outcome\":{outcome},\"seen\":{found},\n  \"why\":{why},\n  \"remedy\":{remedy}}}"
        )
    });
    format!(
        "{{\"url\":{},\"seconds\":{},\"events\":{},\"bytes\":{},\"findings\":[\n {}\n]}}\n",
        json_string(&options.request.url.to_string()),
        options.time.as_secs(),
        seen.first.events.len(),
        seen.first.stream.raw.len(),
        findings.collect::<Vec<_>>().join(",\n ")
    )
}
