//! `newswire check`: what is wrong with an event stream, rule by rule.
//!
//! Read it in this order; each file uses only those before it: `observation`, `finding`, `delivery`, `rules`.

mod delivery;
mod finding;
mod observation;
mod rules;

use super::{Arguments, Failure, output, say};
use finding::{Finding, Outcome};
use newswire::http::client::Request;
use newswire::sse::json_string;
use observation::Seen;
use rules::{RULES, Rule};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const HELP: &str = "\
newswire check: what is wrong with an event stream, rule by rule

USAGE
    newswire check URL [OPTIONS]

OPTIONS
    --for SECONDS              watch the stream for so long                             [10]
    --proxy-timeout SECONDS    the silence after which proxies cut a connection         [60]
    --header 'Name: value'     send this field, too; repeatable
    --token-file FILE          send the token in this file
    --only RULE,RULE           judge only these rules; repeatable
    --skip RULE,RULE           do not judge these rules; repeatable
    --output text|json         a table for people, or a JSON document                 [text]
    --list                     write the names of the rules
    --help

The exit code is 1 if a rule fails, and 2 for a mistake on the command line.
";

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.has("--list") {
        say(&RULES.iter().map(|rule| rule.name.to_owned() + "\n").collect::<String>());
        return Ok(());
    }
    let (url, _) = arguments.operands("say what to check: the URL of a stream")?;
    let own = [("Accept", "text/event-stream"), ("Cache-Control", "no-store")];
    let request = super::request(arguments, url, &own)?;
    let seconds = |name, usual| Ok::<_, Failure>(arguments.seconds(name)?.unwrap_or(Duration::from_secs(usual)));
    let (time, limit) = (seconds("--for", 10)?, seconds("--proxy-timeout", 60)?);
    let is_json = arguments.one_of("--output", &[("text", false), ("json", true)])?.unwrap_or(false);
    let [only, skip] = ["--only", "--skip"].map(|name| arguments.each(name, RULE_NAMES, rule_names));
    let (only, skip) = (only?.concat(), skip?.concat());
    let seen = Seen::gather(&request, time, limit);
    let is_wanted = |name: &str| (only.is_empty() || only.contains(&name)) && !skip.contains(&name);
    let findings = RULES.iter().map(|rule| (rule, rule.judge(&seen)));
    // Where there is no stream, no rule but the status can say so.
    let findings = findings
        .filter(|(rule, (outcome, _))| is_wanted(rule.name) || rule.name == "status" && *outcome == Outcome::Fail);
    let findings: Vec<(&Rule, Finding)> = findings.collect();
    say(&if is_json { to_json(&request, &seen, &findings) } else { to_text(&request, &seen, &findings) });
    match findings.iter().filter(|(_, (outcome, _))| *outcome == Outcome::Fail).count() {
        0 => Ok(()),
        failed => Err(Failure::later(format!("{failed} of {} rules fail", findings.len()))),
    }
}

const RULE_NAMES: &str = "names of rules with commas between, as newswire check --list writes them";

fn rule_names(names: &str) -> Option<Vec<&'static str>> {
    let find = |name: &str| RULES.iter().map(|rule| rule.name).find(|found| *found == name.trim());
    names.split(',').map(find).collect()
}

/// The word for an outcome, and its colour on a terminal (ECMA-48, SGR).
fn word(outcome: Outcome) -> (&'static str, u8) {
    [("pass", 32), ("info", 36), ("warn", 33), ("fail", 31), ("unjudged", 0)][outcome as usize]
}

fn to_text(request: &Request, seen: &Seen, findings: &[(&Rule, Finding)]) -> String {
    let has_color = output::has_color();
    let (url, time) = (&request.url, seen.first.ended_at.as_secs_f64());
    let (events, bytes) = (seen.first.events.len(), seen.first.raw.len());
    let mut text = format!("{url} for {time:.1} s, events: {events}, bytes: {bytes}\n\n");
    let (mut counts, mut unjudged) = ([0; 5], BTreeMap::<&str, Vec<&str>>::new());
    for (rule, (outcome, found)) in findings {
        let name = rule.name;
        counts[*outcome as usize] += 1;
        if *outcome == Outcome::Unjudged {
            unjudged.entry(found).or_default().push(name);
            continue;
        }
        let (word, colour) = word(*outcome);
        // A sentence may hold what a server said: a URL of a redirect, the name of a coding.
        let found = output::escape(found);
        text += &match has_color {
            true => format!("\x1b[{colour}m{word}\x1b[m  {name:<18} {found}\n"),
            false => format!("{word}  {name:<18} {found}\n"),
        };
        if *outcome != Outcome::Pass {
            let [why, remedy] = rule.why_and_remedy();
            text += &format!("{:6}why     {why}\n{:6}remedy  {remedy}\n", "", "");
        }
    }
    let [pass, info, warn, fail, _] = counts;
    text += &format!("\n{pass} pass, {info} info, {warn} warn, {fail} fail\n");
    for (reason, rules) in unjudged {
        text += &format!("not judged, because {reason}: {}\n", rules.join(", "));
    }
    text
}

fn to_json(request: &Request, seen: &Seen, findings: &[(&Rule, Finding)]) -> String {
    let findings = findings.iter().map(|(rule, (outcome, found))| {
        let [why, remedy] = rule.why_and_remedy();
        let texts = [rule.name, word(*outcome).0, found, &why, &remedy].map(json_string);
        let [name, outcome, found, why, remedy] = texts;
        format!("{{\"rule\":{name},\"outcome\":{outcome},\"seen\":{found},\n  \"why\":{why},\n  \"remedy\":{remedy}}}")
    });
    let findings = findings.collect::<Vec<_>>().join(",\n ");
    let (url, time) = (json_string(&request.url.to_string()), seen.time.as_secs_f64());
    let (events, bytes) = (seen.first.events.len(), seen.first.raw.len());
    format!(
        "{{\"url\":{url},\"seconds\":{time},\"events\":{events},\"bytes\":{bytes},\"findings\":[\n {findings}\n]}}\n"
    )
}
