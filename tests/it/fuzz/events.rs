//! Event streams that are read, and events that are written.

use super::{fuzz, mutate, pieces, some_of};
use crate::events::{interpret, parse};
use newswire::Event;
use newswire::sse::{Message, Parser};

#[test]
fn random_streams_give_the_messages_of_the_standard_however_they_are_cut() {
    const TOKENS: [&str; 24] = [
        "data",
        "data:",
        "data: ",
        "id",
        "id: ",
        "event: ",
        "retry: ",
        "retry:",
        ":",
        " ",
        "\r",
        "\n",
        "\r\n",
        "\n\n",
        "\r\r",
        "\0",
        "\u{feff}",
        "x",
        "7",
        "é",
        "😀",
        "message",
        "99999999999999999999",
        "\u{2028}",
    ];
    fuzz("event streams", |dice| {
        let mut stream = some_of(dice, &TOKENS, 60).into_bytes();
        mutate(dice, &mut stream);
        stream.extend_from_slice(dice.pick::<&[u8]>(&[b"", b"\n\n", b"\ndata: end\n\n", b"\xff\n\n"]));
        let shown = String::from_utf8_lossy(&stream).into_owned();
        let expected = interpret(&stream);
        assert_eq!(parse([stream.as_slice()]), expected, "{shown:?} whole");
        let cut = pieces(dice, &stream);
        assert_eq!(parse(cut.iter().copied()), expected, "{shown:?} in {} pieces", cut.len());

        // With a limit the messages are a beginning of all of them, and the pieces do not matter.
        let limit = dice.below(30);
        let feed = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut parser = Parser::with_limit(limit);
            let mut messages: Vec<Message> = Vec::new();
            for piece in pieces {
                match parser.feed(piece) {
                    Ok(more) => messages.extend(more),
                    Err(_) => return (messages, false),
                }
            }
            // An error behind the last event of a piece is returned by the next call.
            (messages, parser.feed(b"").is_ok())
        };
        let (messages, is_within) = feed(&mut stream.chunks(1));
        assert_eq!(messages, expected.0[..messages.len()], "{shown:?} within {limit}");
        assert!(!is_within || messages.len() == expected.0.len(), "{shown:?} within {limit}");
        assert!(messages.iter().all(|message| message.data.len() <= limit), "{shown:?} within {limit}");
        assert_eq!(feed(&mut cut.iter().copied()).1, is_within, "{shown:?} within {limit}");
    });
}

#[test]
fn random_events_are_read_as_they_were_made() {
    const TOKENS: [&str; 14] =
        ["\r", "\n", "\r\n", "\0", "\u{feff}", " ", ":", "data: x", "id: y", "é", "😀", "event", "\u{85}", "\u{2028}"];
    fuzz("events", |dice| {
        let mut stream = String::new();
        // The id of a comment counts from the next event on.
        let (mut expected, mut id, mut last_event_id) = (Vec::new(), String::new(), String::new());
        for _ in 0..1 + dice.below(4) {
            let data = some_of(dice, &TOKENS, 8);
            let is_comment = dice.once_in(4);
            let mut event = if is_comment { Event::default().comment(&data) } else { Event::new(&data) };
            let mut event_type = String::new();
            for _ in 0..dice.below(3) {
                let text = some_of(dice, &TOKENS, 3);
                let is_one_line = !text.contains(['\r', '\n', '\0']);
                let with = if dice.once_in(2) { event.clone().id(&text) } else { event.clone().name(&text) };
                assert_eq!(with.is_ok(), is_one_line, "{text:?}");
                if let Ok(with) = with {
                    // Which of the two it was, the block says.
                    if with.to_string().contains(&format!("id: {text}\n")) && with.clone().id(&text) == Ok(with.clone())
                    {
                        id.clone_from(&text);
                    }
                    if with.clone().name(&text) == Ok(with.clone()) {
                        event_type.clone_from(&text);
                    }
                    event = with;
                }
            }
            stream += &event.to_string();
            if !is_comment {
                last_event_id.clone_from(&id);
                expected.push(Message {
                    event_type: if event_type.is_empty() { "message".to_owned() } else { event_type },
                    data: data.replace("\r\n", "\n").replace('\r', "\n"),
                    last_event_id: last_event_id.clone(),
                });
            }
        }
        let cut = pieces(dice, stream.as_bytes());
        let (messages, id, _) = parse(cut.iter().copied());
        assert_eq!((messages, id), (expected, last_event_id), "{stream:?}");
    });
}
