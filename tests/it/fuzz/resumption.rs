//! Last event ids of any kind, asked of a completed channel.

use super::{assert_no_panic, encode, fuzz, mutate, some_of, start};
use crate::server::ask;
use newswire::Event;
use newswire::channel::Limits;

/// An id of this server: two numbers without leading zeros.
fn parsed(id: &str) -> Option<(u64, u64)> {
    let (ms, n) = id.split_once('-')?;
    let number = |digits: &str| digits.parse::<u64>().ok().filter(|number| number.to_string() == digits);
    // Together they have 64 bits.
    Some((number(ms)?, number(n)?)).filter(|(ms, n)| *ms < 1 << 44 && *n < 1 << 20)
}

pub(super) fn json(text: &str) -> String {
    let unit = |unit: u16| match char::from_u32(u32::from(unit)) {
        Some(character @ ('"' | '\\')) => format!("\\{character}"),
        Some(character @ ' '..='~') => character.to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    let units: String = text.encode_utf16().map(unit).collect();
    format!("\"{units}\"")
}

#[test]
fn a_random_last_event_id_gets_what_a_model_says() {
    let (address, channels) = start(Limits { history_events: 6, ..Limits::default() });
    let (channel, other) = (channels.open("c").expect("it is a name"), channels.open("other").expect("it is a name"));
    let mut ids = Vec::new();
    let mut elsewhere = Vec::new();
    for number in 0..10 {
        ids.push(channel.publish(Event::new(number.to_string())).expect("it is small").id);
        // Ids of another channel, between those of this one
        elsewhere.push(other.publish(Event::new("x")).expect("it is small").id);
    }
    channel.complete().expect("it is in memory");
    let (forgotten, kept) = ids.split_at(4);
    let frames = |from: usize| -> String {
        let frame = |(number, id): (usize, &String)| format!("id: {id}\ndata: {number}\n\n");
        (4 + from..).zip(&kept[from..]).map(frame).collect()
    };
    fuzz("last event ids", |dice| {
        let mut id = match dice.below(8) {
            0 => dice.pick(forgotten).clone(),
            1 => dice.pick(&elsewhere).clone(),
            2 => dice
                .pick(&["earliest", "latest", "", "0-0", "-", "null", "18446744073709551615-0", "earliest "])
                .to_string(),
            3 => {
                some_of(dice, &["1", "-", "\"", "\\", "é", "😀", "\n", "\r", "\0", " ", "}", "\u{2028}", "\u{7f}"], 80)
            }
            _ => dice.pick(kept).clone(),
        };
        if dice.once_in(3) {
            let mut bytes = id.into_bytes();
            mutate(dice, &mut bytes);
            id = String::from_utf8_lossy(&bytes).into_owned();
        }
        // A field value has no control characters, and no whitespace around it.
        let fits_a_field = !id.contains(|c: char| c.is_ascii_control());
        let by_field = fits_a_field && dice.once_in(2);
        let (answer, id) = if by_field {
            let id = id.trim_matches([' ', '\t']).to_owned();
            (ask(address, "GET", "/channels/c", &[("Last-Event-ID", &id)], ""), id)
        } else {
            let target = format!("/channels/c?last_event_id={}", encode(dice, &id));
            (ask(address, "GET", &target, &[], ""), id)
        };
        let number = |id: &String| parsed(id).expect("it is one of ours");
        let behind = |id: &String| kept.iter().filter(|known| number(known) <= number(id)).count();
        // Every id of this server tells what came after it, unless something of that is forgotten.
        let issued = number(&forgotten[forgotten.len() - 1])..=number(&elsewhere[elsewhere.len() - 1]);
        let is_issued = parsed(&id).is_some_and(|id| issued.contains(&id));
        if id.is_empty() || id == "latest" || (is_issued && behind(&id) == kept.len()) {
            assert_eq!(answer.status, 204, "{id:?}: {answer:?}");
            return;
        }
        let expected = if is_issued {
            frames(behind(&id))
        } else if id == "earliest" {
            frames(0)
        } else {
            let asked: String = id.chars().take(64).collect();
            let gap = format!("event: gap\ndata: {{\"asked\":{},\"oldest\":\"{}\"}}\n\n", json(&asked), kept[0]);
            gap + &frames(0)
        };
        assert_eq!(answer.status, 200, "{id:?}: {answer:?}");
        let events = answer.text().split_once("retry: ").and_then(|(_, rest)| rest.split_once('\n'));
        let (_, events) = events.expect("the stream has an opening");
        assert_eq!(events, expected + "event: end\ndata: the channel is completed\n\n", "{id:?}");
    });
    assert_no_panic(address);
}
