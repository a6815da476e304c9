//! Channels and events that go by their age.

use crate::channels::{metric, start};
use crate::server::{Publisher, Server, Stream, ask, eventually};
use newswire::channel::Limits;
use std::time::Duration;

#[test]
fn a_channel_that_is_unused_for_long_is_forgotten_and_its_client_is_told_of_a_gap() {
    let server = Server::start(&["--publish-open", "--quiet", "--channel-idle", "1"]);
    let address = server.address;
    let channels = || server.metric("newswire_channels");
    let ids = ["x", "y"].map(|data| Publisher::connect(address, "unused").publish(data));
    Publisher::connect(address, "completed").publish("x");
    crate::channels::complete(address, "completed");
    let mut live = Stream::subscribe(address, "used");
    Publisher::connect(address, "used").publish("y");
    assert_eq!(channels(), 3);
    eventually("two have expired", || server.metric("newswire_channels_expired_total") == 2);
    assert_eq!(channels(), 1);
    // The one with a subscriber goes on, and goes after it.
    assert_eq!(live.next().expect("it is live").data, "y");
    let mut back = Stream::resume(address, "unused", &ids[0]);
    assert_eq!(back.next().expect("it is told").event_type, "gap");
    // A client that had all has lost nothing.
    let mut whole = Stream::resume(address, "unused", &ids[1]);
    Publisher::connect(address, "unused").publish("z");
    assert_eq!(whole.next().expect("it goes on").data, "z");
    drop(whole);
    drop((live, back));
    eventually("all have expired", || channels() == 0);
}

#[test]
fn a_channel_with_a_subscriber_of_a_view_is_in_use() {
    let limits = ["--publish-open", "--quiet", "--max-channels", "3", "--channel-idle", "1"];
    let server = Server::start(&limits);
    let publish = |name: &str| Publisher::connect(server.address, name).publish("x");
    let lists = |name: &str| {
        let listed = ask(server.address, "GET", "/channels", &[], "");
        listed.text().contains(&format!("\"name\":\"{name}\""))
    };
    publish("a");
    let reader = Stream::subscribe(server.address, "a,b");
    publish("c");
    eventually("the one without a reader expires", || !lists("c"));
    assert!(lists("a"));
    for name in ["d", "e", "f"] {
        publish(name);
        assert!(lists("a"), "another channel is evicted for {name}");
    }
    drop(reader);
    eventually("it expires after its reader", || !lists("a"));
}

#[test]
fn a_channel_of_which_the_program_has_a_handle_does_not_expire() {
    let idle = Duration::from_millis(50);
    let (address, channels) = start(Limits { channel_idle: idle, ..Limits::default() });
    let kept = channels.open("kept").expect("it is a name");
    kept.publish("x").expect("it is small");
    drop(channels.open("other").map(|channel| channel.publish("x")));
    // To find a channel is to use it; to list it is not.
    eventually("the other one expires", || channels.list().len() == 1);
    let mut stream = Stream::resume(address, "kept", "earliest");
    assert_eq!(stream.next().expect("it is kept").data, "x");
    drop((stream, kept));
    eventually("it expires", || channels.list().is_empty());
}

#[test]
fn an_old_event_is_forgotten_and_a_client_that_has_not_got_it_is_told_of_a_gap() {
    let age = Duration::from_secs(2);
    let (address, channels) = start(Limits { history_age: age, ..Limits::default() });
    let channel = channels.open("c").expect("it is a name");
    let publish = |data: &str| channel.publish(data).expect("it is small").id;
    let mut live = Stream::subscribe(address, "c");
    let ids = ["a", "b", "c"].map(publish);
    assert_eq!(Stream::resume(address, "c", &ids[0]).next().expect("it is kept").data, "b");
    eventually("they are forgotten", || metric(address, "newswire_events_expired_total") == 3);
    let summary = channel.summary();
    assert_eq!((summary.events, summary.bytes), (0, 0));
    // Nothing is lost behind the last one.
    let mut streams = [&ids[1], &ids[2], "earliest"].map(|id| Stream::resume(address, "c", id));
    let id = publish("d");
    assert_eq!(streams[0].next().expect("it is told").event_type, "gap");
    for stream in &mut streams {
        assert_eq!(stream.next().expect("it is live").last_event_id, id);
    }
    // A subscriber that is there has lost nothing.
    let data: Vec<String> = (0..4).map(|_| live.next().expect("it is live").data).collect();
    assert_eq!(data, ["a", "b", "c", "d"]);
}

#[test]
fn a_client_of_a_completed_channel_is_told_of_the_events_that_expired_before_it_came_back() {
    let age = Duration::from_millis(200);
    let (address, channels) = start(Limits { history_age: age, ..Limits::default() });
    let channel = channels.open("c").expect("it is a name");
    let ids = ["heard", "lost"].map(|data| channel.publish(data).expect("it is small").id);
    channel.complete().expect("it is in memory");
    eventually("they are forgotten", || metric(address, "newswire_events_expired_total") == 2);
    for query in ["", "?poll"] {
        let field = [("Last-Event-ID", &*ids[0])];
        let mut late = Stream::open(address, &format!("/channels/c{query}"), &field);
        assert_eq!(late.next().expect("it is told").event_type, "gap");
        assert_eq!(late.next().expect("it is told").event_type, "end");
        let field = [("Last-Event-ID", &*ids[1])];
        let whole = Stream::open(address, &format!("/channels/c{query}"), &field);
        assert_eq!(whole.answer.status, 204, "it lacks nothing");
    }
}
