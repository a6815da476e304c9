//! Whole lives of channels: publishers, subscribers that come, leave and return, completions.

use super::resumption::json;
use super::{assert_no_panic, fuzz, some_of, start};
use crate::server::{Dice, Stream, ask, is_opening};
use newswire::Event;
use newswire::channel::{Channel, Limits};
use newswire::sse::Message;
use std::net::SocketAddr;

/// A channel, and a model of it: everything that was published on it.
struct Life {
    address: SocketAddr,
    channel: Channel,
    /// Id, type and data of each event.
    log: Vec<Message>,
    /// How many events there were at each completion.
    completions: Vec<usize>,
}

/// A client of a channel, and what it must hear next.
struct Client {
    stream: Option<Stream>,
    last_event_id: String,
    /// The index of its next event in the log.
    next: usize,
    /// How many completions happened before it connected, and do not end its stream.
    completions: usize,
    /// It has asked for all events that are kept, and has received none yet. The oldest may change meanwhile.
    asks_for_all: bool,
    /// A second gap told it, before its first event, that the history had moved on.
    was_overtaken: bool,
}

impl Life {
    /// The index of the oldest event that is kept.
    fn oldest(&self) -> usize {
        let summary = self.channel.summary();
        summary.first_id.map_or(self.log.len(), |first| self.index(&first))
    }

    fn index(&self, id: &str) -> usize {
        let index = self.log.iter().position(|event| event.last_event_id == id);
        index.expect("it was published")
    }

    fn is_completed(&self) -> bool {
        self.completions.last() == Some(&self.log.len())
    }

    fn publish(&mut self, dice: &mut Dice) {
        let data = some_of(dice, &["x", "\n", "\r", " ", ":", "é", "event: end\n", "\0", "0123456789"], 6);
        let event_type = *dice.pick(&["message", "message", "note", "endless"]);
        let id = if dice.once_in(3) {
            let target = format!("/channels/{}?event={event_type}", self.channel.name());
            let answer = ask(self.address, "PUT", &target, &[("Accept", "text/plain")], &data);
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.text().trim_end().to_owned()
        } else {
            let event = Event::new(&data).name(event_type).expect("it is one line");
            self.channel.publish(event).expect("it is small").id
        };
        self.log.push(Message {
            event_type: event_type.to_owned(),
            data: data.replace("\r\n", "\n").replace('\r', "\n"),
            last_event_id: id,
        });
    }

    /// Connects, and reads the gap if something was lost.
    fn connect(&mut self, client: &mut Client, id: &str) {
        let oldest = self.oldest();
        let known = self.log.iter().position(|event| event.last_event_id == id);
        let (start, has_gap) = match known {
            None if id.is_empty() => (self.log.len(), false),
            None if id == "earliest" => (oldest, false),
            None => (oldest, true),
            Some(index) if index + 1 >= oldest => (index + 1, false),
            Some(_) => (oldest, true),
        };
        let fields = [("Last-Event-ID", id)];
        let target = format!("/channels/{}", self.channel.name());
        let mut stream = Stream::open(self.address, &target, &fields[..usize::from(!id.is_empty())]);
        if self.is_completed() && start == self.log.len() {
            assert_eq!(stream.answer.status, 204, "{id:?}");
            return;
        }
        assert_eq!(stream.answer.status, 200, "{id:?}");
        if has_gap {
            let gap = stream.next().expect("the gap is told");
            let oldest = self.log.get(oldest).map_or("null".to_owned(), |event| json(&event.last_event_id));
            assert_eq!(gap.event_type, "gap", "{id:?}");
            assert_eq!(gap.data, format!("{{\"asked\":{},\"oldest\":{oldest}}}", json(id)));
            assert_eq!(gap.last_event_id, "");
        }
        if id.is_empty() {
            stream.read_until(is_opening);
            assert_eq!(stream.parser.last_event_id(), "");
        }
        client.stream = Some(stream);
        client.asks_for_all = id == "earliest";
        client.was_overtaken = false;
        client.next = start;
        // A client that connects after the last completion, and still lacks events from before it, ends with it.
        client.completions = self.completions.len() - usize::from(self.is_completed());
    }

    /// Reads at most `most` events of those that are there for the client; with `to_the_end`, until its stream ends.
    fn hear(&self, client: &mut Client, most: usize, to_the_end: bool) {
        let Some(stream) = &mut client.stream else {
            return;
        };
        let ends = self.completions.get(client.completions..).unwrap_or_default();
        let mut heard = 0;
        while to_the_end || (heard < most && client.next < ends.first().copied().unwrap_or(self.log.len())) {
            match stream.next() {
                Some(message) if message.event_type == "end" => {
                    // The history may have moved past the completion before the replay began.
                    let is_overtaken = client.asks_for_all || client.was_overtaken;
                    let is_past = is_overtaken && ends.iter().any(|&at| at <= self.oldest());
                    assert!(
                        is_past || ends.contains(&client.next),
                        "an end at {}, not at one of {ends:?}",
                        client.next
                    );
                    assert_eq!(message.last_event_id, stream.parser.last_event_id());
                    assert_eq!(stream.next(), None);
                    client.stream = None;
                    return;
                }
                // The history has moved past the client before its replay began.
                Some(message) if message.event_type == "gap" => {
                    let oldest = message.data.rsplit('"').nth(1).expect("it names one");
                    let oldest = self.index(oldest);
                    assert!(client.next < oldest && oldest <= self.oldest());
                    client.next = oldest;
                    client.was_overtaken = true;
                }
                Some(message) => {
                    if std::mem::take(&mut client.asks_for_all) {
                        let first = self.index(&message.last_event_id);
                        assert!(client.next <= first && first <= self.oldest().max(client.next));
                        client.next = first;
                    }
                    assert_eq!(Some(&message), self.log.get(client.next), "event {}", client.next);
                    client.last_event_id = message.last_event_id;
                    client.next += 1;
                    heard += 1;
                }
                // Only a client that the history has overtaken is disconnected like this. The gap is told when it returns.
                None => {
                    assert!(client.next < self.oldest(), "disconnected at {} of {}", client.next, self.log.len());
                    client.stream = None;
                    return;
                }
            }
        }
    }
}

#[test]
fn random_lives_of_channels_go_as_a_model_says() {
    let limits =
        |history_events, history_bytes| Limits { history_events, history_bytes, channels: 8, ..Limits::default() };
    let servers = [limits(1, 1 << 20), limits(3, 1 << 20), limits(1000, 1024), limits(1000, 1 << 20)]
        .map(|limits| (limits.clone(), start(limits)));
    let mut number = 0;
    fuzz("lives of channels", |dice| {
        number += 1;
        let (limits, (address, channels)) = dice.pick(&servers);
        let channel = channels.open(&format!("life{number}")).expect("the channels of earlier rounds have ended");
        let mut life = Life { address: *address, channel, log: Vec::new(), completions: Vec::new() };
        let mut clients: Vec<Client> = (0..1 + dice.below(5))
            .map(|_| Client {
                stream: None,
                last_event_id: String::new(),
                next: 0,
                completions: 0,
                asks_for_all: false,
                was_overtaken: false,
            })
            .collect();
        for _ in 0..5 + dice.below(40) {
            let at = dice.below(clients.len());
            let client = &mut clients[at];
            match dice.below(16) {
                0..=4 => life.publish(dice),
                5 => (0..dice.below(12)).for_each(|_| life.publish(dice)),
                6 => {
                    life.channel.complete().expect("it is in memory");
                    life.completions.push(life.log.len());
                }
                7..=9 if client.stream.is_none() => {
                    let id = client.last_event_id.clone();
                    life.connect(client, &id);
                }
                10 if client.stream.is_none() => life.connect(client, "earliest"),
                11 if client.stream.is_none() => {
                    life.connect(client, dice.pick::<&str>(&["1-0", "unknown", "99999999999999-0"]))
                }
                // The connection breaks: events on their way are lost, and the client will ask for them.
                12 => client.stream = None,
                _ => life.hear(client, dice.below(8), false),
            }
            let summary = life.channel.summary();
            assert!(summary.events <= limits.history_events && summary.bytes <= limits.history_bytes, "{summary:?}");
            assert_eq!(summary.last_id.as_ref(), life.log.last().map(|event| &event.last_event_id));
            assert_eq!(summary.completed, life.is_completed());
            assert_eq!(summary.events, life.log.len() - life.oldest());
        }
        // At the end, a client that returns until it is told not to has received everything that was not lost.
        life.channel.complete().expect("it is in memory");
        life.completions.push(life.log.len());
        for client in &mut clients {
            life.hear(client, 0, true);
            let id = client.last_event_id.clone();
            life.connect(client, &id);
            life.hear(client, 0, true);
            if !client.last_event_id.is_empty() {
                let last = life.log.last().map(|event| &event.last_event_id);
                assert_eq!(Some(&client.last_event_id), last);
            }
        }
    });
    for (_, (address, _)) in &servers {
        assert_no_panic(*address);
    }
}
