//! Queries of the laboratory.

use super::{assert_no_panic, encode, fuzz, mutate, some_of, start};
use crate::events::interpret;
use crate::laboratory::PARAMETERS;
use crate::server::{Answer, ask, connect};
use newswire::channel::Limits;
use std::io::{BufReader, Write};
use std::time::Duration;

#[test]
fn streams_of_the_laboratory_are_as_their_query_says() {
    let (address, _) = start(Limits::default());
    fuzz("streams of the laboratory", |dice| {
        let text = some_of(dice, &["a", "é", "😀", "word", ".", ":", "\0", " ", " ", "\n", "\u{2028}", "data: "], 8);
        let words: Vec<&str> = text.split_whitespace().collect();
        let count = 1 + dice.below(12);
        let lines = 1 + dice.below(4);
        let size = Some(dice.below(200)).filter(|size| dice.once_in(2) && *size + 1 >= lines);
        let ids = !dice.once_in(4);
        let cut = Some(1 + dice.below(12)).filter(|cut| ids && *cut < count && dice.once_in(2));
        let retry = dice.below(5000);
        let event = some_of(dice, &["e", " ", ":", "é", "message"], 2);
        let heard = Some(dice.below(count + 3)).filter(|_| dice.once_in(3));
        let repeats = dice.once_in(3);
        let mut parameters = vec![
            ("text", text.clone()),
            ("count", count.to_string()),
            ("lines", lines.to_string()),
            ("id", if ids { "on" } else { "off" }.to_owned()),
            ("retry", retry.to_string()),
            ("event", event.clone()),
            ("newline", dice.pick(&["lf", "cr", "crlf"]).to_string()),
            ("bom", dice.pick(&["on", "off"]).to_string()),
            ("garbage", dice.pick(&["on", "off"]).to_string()),
            ("complete", if repeats { "loop" } else { "204" }.to_owned()),
            ("interval", "0".to_owned()),
        ];
        // A piece takes a millisecond: there must not be many.
        parameters.extend(Some(("chunk", (50 + dice.below(500)).to_string())).filter(|_| dice.once_in(3)));
        parameters.extend(size.map(|size| ("size", size.to_string())));
        parameters.extend(cut.map(|cut| ("cut", cut.to_string())));
        parameters.extend(heard.map(|heard| ("last_event_id", heard.to_string())));
        // The parameters come in any order.
        for at in (1..parameters.len()).rev() {
            parameters.swap(at, dice.below(at + 1));
        }
        let pairs: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{}={}", encode(dice, name), encode(dice, value))).collect();
        let target = format!("/lab?{}", pairs.join("&"));
        if words.is_empty() {
            let answer = ask(address, "GET", &target, &[], "");
            assert_eq!(answer.status, 400, "{target}: {answer:?}");
            return;
        }
        let answer = ask(address, "GET", &target, &[], "");
        if ids && heard == Some(count) && !repeats {
            assert_eq!(answer.status, 204, "{target}: {answer:?}");
            return;
        }
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let first = heard.filter(|heard| ids && *heard < count).unwrap_or(0);
        let last = cut.filter(|_| heard.is_none()).unwrap_or(count);
        let (messages, _, reconnection_time) = interpret(&answer.content);
        assert_eq!(messages.len(), last - first, "{target}");
        assert_eq!(reconnection_time, Some(Duration::from_millis(retry as u64)), "{target}");
        for (number, message) in (first..last).zip(&messages) {
            let id = if ids { (number + 1).to_string() } else { String::new() };
            assert_eq!(message.last_event_id, id, "{target}");
            let name = if event.is_empty() { "message" } else { &event };
            assert_eq!(message.event_type, name, "{target}");
            assert_eq!(message.data.split('\n').count(), lines, "{target}");
            match size {
                Some(size) => assert_eq!(message.data.len(), size, "{target}"),
                None => assert_eq!(message.data, vec![words[number % words.len()]; lines].join("\n"), "{target}"),
            }
        }
        if dice.once_in(4) {
            let again = ask(address, "GET", &target, &[], "");
            assert!(again.content == answer.content, "{target} a second time");
        }
    });
    assert_no_panic(address);
}

#[test]
fn random_queries_of_the_laboratory_get_one_answer() {
    let names = [&PARAMETERS[..], &["x"]].concat();
    const VALUES: [&str; 26] = [
        "",
        "0",
        "1",
        "2",
        "9",
        "10",
        "599",
        "600",
        "1000",
        "65536",
        "4194304",
        "99999999999999999999",
        "-1",
        "on",
        "off",
        "lf",
        "loop",
        "302",
        "text/html",
        "a/b;c=d",
        "%0d%0aX-Evil:1",
        "%00",
        "%ff",
        "+",
        "a%2Fb",
        "..",
    ];
    let (address, _) = start(Limits::default());
    fuzz("queries of the laboratory", |dice| {
        let pairs: Vec<String> =
            (0..dice.below(6)).map(|_| format!("{}={}", dice.pick(&names), dice.pick(&VALUES))).collect();
        let mut query = pairs.join("&").into_bytes();
        mutate(dice, &mut query);
        // A HEAD is checked and not played: the stream could take an hour. A target has visible ASCII only.
        query.retain(u8::is_ascii_graphic);
        let query = String::from_utf8(query).expect("it is ASCII");
        let request = format!("HEAD /lab?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut socket = connect(address);
        socket.write_all(request.as_bytes()).expect("the server reads");
        let mut reader = BufReader::new(socket);
        let answer = Answer::read(&mut reader, "HEAD").expect("it answers");
        assert!((200..600).contains(&answer.status), "{query}: {answer:?}");
        assert_eq!(answer.field("x-evil"), None, "{query}");
        assert!(Answer::read(&mut reader, "HEAD").is_none(), "{query}: there is a second answer");
        if let Some(location) = answer.field("location") {
            assert!(location.starts_with("/lab?"), "{query} leads to {location}");
        }
    });
    assert_no_panic(address);
}
