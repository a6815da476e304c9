//! Completed channels.

use crate::channels::{OPEN, complete, ids, start};
use crate::resumption::numbers;
use crate::server::{Dice, Publisher, Server, Stream, ask, eventually};
use newswire::Event;
use newswire::channel::Limits;
use newswire::sse::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// Publishers, subscribers and completions run at the same time. A subscriber comes back after each end, after each time
/// that it leaves, and after each 204, until everything was published. Then it must have got every event.
#[test]
fn nothing_is_lost_when_publishing_subscribing_and_completing_race() {
    const PUBLISHERS: u64 = 3;
    const SUBSCRIBERS: u64 = 8;
    let (address, channels) = start(Limits { history_events: 1_000_000, history_bytes: 1 << 30, ..Limits::default() });
    let channel = channels.open("c").expect("there is room");
    let all_published = Arc::new(AtomicBool::new(false));
    let is_over = Arc::new(AtomicBool::new(false));

    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|seed| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let mut dice = Dice::new(seed);
                let mut received: Vec<Message> = Vec::new();
                let (mut ends, mut refusals) = (0, 0);
                loop {
                    // This is read before the request, so that a 204 after it means that nothing is missing.
                    let was_over = is_over.load(SeqCst);
                    let id = received.last().map_or("earliest", |m| m.last_event_id.as_str());
                    let fields = [("Last-Event-ID", id)];
                    let mut stream = Stream::open(address, "/channels/c", &fields);
                    if stream.answer.status == 204 {
                        refusals += 1;
                        if was_over {
                            return (received, ends, refusals);
                        }
                        thread::yield_now();
                        continue;
                    }
                    assert_eq!(stream.answer.status, 200);
                    for _ in 0..1 + dice.below(300) {
                        match stream.next() {
                            Some(message) if message.event_type == "end" => {
                                ends += 1;
                                assert_eq!(stream.next(), None);
                                break;
                            }
                            Some(message) => {
                                assert_eq!(message.event_type, "message", "nothing is lost");
                                received.push(message);
                            }
                            None => panic!("a stream ends with an end"),
                        }
                    }
                }
            })
        })
        .collect();
    let completer = {
        let (channel, all_published) = (channel.clone(), Arc::clone(&all_published));
        thread::spawn(move || {
            let mut dice = Dice::new(77);
            let mut completions = 0;
            while !all_published.load(SeqCst) {
                thread::sleep(Duration::from_micros(dice.below(4000) as u64));
                channel.complete().expect("it is in memory");
                completions += 1;
            }
            completions
        })
    };
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|seed| {
            let channel = channel.clone();
            thread::spawn(move || {
                let mut dice = Dice::new(1000 + seed);
                let publish = |number: usize| {
                    if dice.once_in(3) {
                        thread::sleep(Duration::from_micros(dice.below(2000) as u64));
                    }
                    let data = format!("{number}\n").repeat(dice.below(4));
                    channel.publish(Event::new(data)).expect("it is small").id
                };
                (0..1500).map(publish).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut published: Vec<String> = Vec::new();
    for publisher in publishers {
        published.extend(publisher.join().expect("it publishes"));
    }
    all_published.store(true, SeqCst);
    let completions = completer.join().expect("it completes");
    channel.complete().expect("it is in memory");
    is_over.store(true, SeqCst);

    published.sort_by_key(|id| numbers(id));
    let (mut ends, mut refusals) = (0, 0);
    for subscriber in subscribers {
        let (received, received_ends, was_refused) = subscriber.join().expect("it reads to the end");
        assert_eq!(received.len(), published.len());
        assert!(ids(&received) == published, "each event once, in the order of the ids");
        ends += received_ends;
        refusals += was_refused;
    }
    assert!(completions > 0 && ends > 0 && refusals > 0, "{completions} {ends} {refusals}");
    eventually("all subscribers have left", || channel.subscribers() == 0);
}

#[test]
fn a_completed_channel_ends_its_streams_and_answers_204_only_to_clients_that_lack_nothing() {
    let server = Server::start(&OPEN);
    let address = server.address;
    let mut live = Stream::subscribe(address, "c");
    let mut publisher = Publisher::connect(address, "c");
    let published: Vec<String> = (0..5).map(|number| publisher.publish(&number.to_string())).collect();
    complete(address, "c");
    assert_eq!(ids(&live.until_end()), published);
    // The end has no id, so that the client keeps its last event ID.
    assert_eq!(live.parser.last_event_id(), published[4]);
    let expected = format!("id: {}\ndata: 4\n\nevent: end\ndata: the channel is completed\n\n", published[4]);
    assert!(String::from_utf8_lossy(&live.bytes).ends_with(&expected));

    let status = |id: &str| {
        let fields = [("Last-Event-ID", id)];
        let answer = ask(address, "GET", "/channels/c", &fields[..usize::from(!id.is_empty())], "");
        if answer.status == 204 {
            assert_eq!(answer.field("cache-control"), Some("no-store"));
            assert_eq!(answer.field("content-type"), None);
            assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
        }
        answer.status
    };
    // Twice, since the first time must change nothing.
    for _ in 0..2 {
        assert_eq!(status(&published[4]), 204, "it lacks nothing");
        assert_eq!(status(""), 204, "there is nothing to come");
        for (at, id) in published[..4].iter().enumerate() {
            let received = Stream::resume(address, "c", id).until_end();
            assert_eq!(ids(&received), published[at + 1..], "after event {at}");
        }
        let received = Stream::resume(address, "c", "earliest").until_end();
        assert_eq!(ids(&received), published);
    }
    // To complete a completed channel changes nothing, and is no error.
    complete(address, "c");
    assert_eq!(status(&published[4]), 204);
    let listed = ask(address, "GET", "/channels", &[], "");
    assert!(listed.text().contains("\"completed\":true"), "{listed:?}");

    // A new event opens the channel again.
    let next = publisher.publish("again");
    let mut stream = Stream::resume(address, "c", &published[4]);
    assert_eq!(stream.next().expect("it is open again").last_event_id, next);
    let mut stream = Stream::resume(address, "c", &published[3]);
    let received = [(); 2].map(|()| stream.next().expect("it goes on").last_event_id);
    assert_eq!(received, [published[4].clone(), next.clone()]);
    let listed = ask(address, "GET", "/channels", &[], "");
    assert!(listed.text().contains("\"completed\":false"), "{listed:?}");
    let last = publisher.publish("and again");
    assert_eq!(stream.next().expect("it is live").last_event_id, last);
    complete(address, "c");
    assert_eq!(stream.until_end(), []);
    assert_eq!(status(&next), 200);
    assert_eq!(status(&last), 204);
}

#[test]
fn a_channel_without_an_event_can_be_completed() {
    let server = Server::start(&OPEN);
    let mut stream = Stream::subscribe(server.address, "c");
    complete(server.address, "c");
    assert_eq!(stream.until_end(), []);
    assert_eq!(ask(server.address, "GET", "/channels/c", &[], "").status, 204);
    let id = Publisher::connect(server.address, "c").publish("first");
    let mut stream = Stream::resume(server.address, "c", "earliest");
    assert_eq!(stream.next().expect("it is kept").last_event_id, id);
}
