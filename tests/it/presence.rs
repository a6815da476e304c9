//! How many subscribers a channel has, as a channel.

use crate::channels::OPEN;
use crate::server::{Server, Stream, ask, eventually};
use std::time::Duration;

fn next(stream: &mut Stream) -> String {
    let event = stream.next().expect("it goes on");
    assert_eq!(event.event_type, "message");
    event.data
}

fn number(subscribers: usize) -> String {
    format!("{{\"subscribers\":{subscribers}}}")
}

#[test]
fn a_presence_tells_how_many_subscribers_a_channel_has_when_that_changes() {
    let server = Server::start(&["--publish-open", "--quiet", "--presence"]);
    let address = server.address;
    let mut presence = Stream::open(address, "/channels/@presence.news", &[]);
    assert_eq!(next(&mut presence), number(0));
    let one = Stream::subscribe(address, "news");
    assert_eq!(next(&mut presence), number(1));
    // Subscribers of a view that shows the channel are there, too.
    let views = ["news,weather", "n*"].map(|name| Stream::open(address, &format!("/channels/{name}"), &[]));
    let other = Stream::subscribe(address, "weather");
    let mut last = next(&mut presence);
    while last != number(3) {
        last = next(&mut presence);
    }
    // The answer to a publisher and the description of the channel count them, too.
    let published = ask(address, "POST", "/channels/news", &[], "x");
    assert!(published.text().contains("\"subscribers\":3"), "{published:?}");
    let json = [("Accept", "application/json")];
    let described = ask(address, "GET", "/channels/news", &json, "");
    assert!(described.text().contains("\"subscribers\":3"), "{described:?}");
    // Others are told at once, and nothing is published for them. A shell may write the at sign as it likes.
    for _ in 0..2 {
        let published = server.metric("newswire_events_published_total");
        let mut other = Stream::open(address, "/channels/%40presence.news", &[]);
        assert_eq!(next(&mut other), number(3));
        assert_eq!(server.metric("newswire_presences"), 1);
        // The server tells once a second.
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(server.metric("newswire_events_published_total"), published);
    }
    drop((one, views, other));
    let mut numbers = vec![last];
    while numbers.last() != Some(&number(0)) {
        numbers.push(next(&mut presence));
    }
    assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:?}");
    drop(presence);
    eventually("it goes with its last subscriber", || server.metric("newswire_presences") == 0);
    // It is made anew within the second in which it was told, and that is no matter.
    let mut again = Stream::open(address, "/channels/@presence.news", &[]);
    assert_eq!(next(&mut again), number(0));
    let json = ask(address, "GET", "/channels/@presence.news", &json, "");
    assert!(json.status == 400 && json.text().contains("each of them tells as JSON"), "{json:?}");
    // It is no channel of the list, and nothing of it is left.
    let list = ask(address, "GET", "/channels", &[], "");
    assert!(list.text().starts_with("[{\"name\":\"news\",\"subscribers\":0,"), "{list:?}");
    assert_eq!(list.text().matches("\"name\"").count(), 1, "{list:?}");
}

#[test]
fn the_number_of_subscribers_does_not_expire() {
    let server = Server::start(&["--publish-open", "--quiet", "--presence", "--history-seconds", "1"]);
    let open = || Stream::open(server.address, "/channels/@presence.news", &[]);
    let mut presence = open();
    assert_eq!(next(&mut presence), number(0));
    // What expires goes within this time.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(next(&mut open()), number(0));
    assert_eq!(server.metric("newswire_events_published_total"), 1);
}

#[test]
fn a_presence_is_published_by_the_server_alone_and_only_if_it_is_asked_to() {
    let server = Server::start(&["--publish-open", "--quiet", "--presence"]);
    let address = server.address;
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(address, method, "/channels/@presence.news", &[], "x");
        assert_eq!(answer.status, 404, "{method}: {answer:?}");
    }
    for name in ["@presence.", "@presence.a,b", "@presence.*", "@presence.@presence.a", "@other.a"] {
        assert_eq!(ask(address, "GET", &format!("/channels/{name}"), &[], "").status, 404, "{name}");
    }
    // No pattern shows it.
    let _presence = Stream::open(address, "/channels/@presence.news", &[]);
    let mut all = Stream::open(address, "/channels/*", &[]);
    eventually("it is told", || server.metric("newswire_events_published_total") > 0);
    crate::server::Publisher::connect(address, "news").publish("x");
    assert_eq!(all.next().expect("it is live").event_type, "news");

    let without = Server::start(&OPEN);
    let answer = ask(without.address, "GET", "/channels/@presence.news", &[], "");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("--presence"), "{answer:?}");
}
