//! Channels in Redis, shared by servers.

mod clients;
mod clocks;
mod faults;
mod losses;
mod machines;
mod partition;
mod replies;
mod soak;
mod views;

use crate::server::{Stream, ask, eventually};
use clients::{Node, publish, resume};
use machines::{Redis, Relay, node};
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

#[test]
fn an_event_reaches_the_subscribers_of_every_server_with_one_id_and_in_one_order() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let mut subscribers = nodes.each_ref().map(|node| Stream::subscribe(node.address, "news"));
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let address = nodes[publisher % 2].address;
            thread::spawn(move || {
                let publish = |n| publish(address, "news", &format!("{publisher}.{n}"));
                (0..50).map(|n| publish(n).expect("Redis runs")).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut answered: Vec<String> =
        publishers.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    let received =
        subscribers.each_mut().map(|stream| (0..200).map(|_| stream.next().expect("it goes on")).collect::<Vec<_>>());
    assert_eq!(received[0], received[1]);
    let mut ids: Vec<String> = received[0].iter().map(|it| it.last_event_id.clone()).collect();
    ids.sort();
    answered.sort();
    assert_eq!(ids, answered, "the publishers were answered with these ids");
}

#[test]
fn redis_cli_publishes_and_cannot_break_a_stream() {
    let Some(redis) = Redis::start(&[]) else { return };
    let node = redis.node();
    let mut subscriber = Stream::subscribe(node.address, "news");
    let add = |fields: &[&str]| redis.cli(&[&["XADD", "newswire:{news}", "*"], fields].concat());
    let hello = add(&["data", "hello"]);
    add(&["event", "end", "data", "a reserved type"]);
    add(&["f", "id: 7\ndata: forged\n\n"]);
    add(&["f", "data: a\n\ndata: b\n\n"]);
    add(&["unknown", "field"]);
    let last = add(&["event", "note", "data", "two\nlines"]);
    let mut next = || subscriber.next().expect("it goes on");
    let (first, forged, note) = (next(), next(), next());
    assert_eq!((first.data.as_str(), first.last_event_id), ("hello", hello));
    assert!(forged.data == "forged" && forged.last_event_id != "7", "{forged:?}");
    assert_eq!((note.event_type.as_str(), note.data.as_str()), ("note", "two\nlines"));
    assert_eq!(note.last_event_id, last);
    assert_eq!(node.metric("newswire_redis_skipped_total"), 3);
    let id = publish(node.address, "news", "ours").expect("Redis runs");
    assert!(redis.cli(&["XRANGE", "newswire:{news}", &id, &id]).contains("data: ours"));
}

#[test]
fn a_client_comes_back_to_another_server_and_lacks_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [node(redis.address(), &["--history-events", "100"]), redis.node()];
    let mut ids = Vec::new();
    for n in 0..60 {
        ids.push(publish(nodes[0].address, "news", &n.to_string()).expect("Redis runs"));
        // The other server has never heard of the channel, and then it has; the newest event it may not have read yet.
        for from in [0, n / 2, n] {
            let received = resume(nodes[(n + 1) % 2].address, "news", &ids[from], n - from);
            assert_eq!(received, ids[from + 1..], "behind {from} of {n}");
        }
    }
    // A poll waits for what Redis has, as a stream does.
    let target = format!("/channels/news?poll&last_event_id={}", ids[57]);
    let polled = ask(redis.node().address, "GET", &target, &[], "");
    assert_eq!(polled.text().matches("data: ").count(), 2, "{polled:?}");
    // Redis keeps more than the history holds, and the first server trims.
    for n in 60..400 {
        ids.push(publish(nodes[0].address, "news", &n.to_string()).expect("Redis runs"));
    }
    let kept: usize = redis.cli(&["XLEN", "newswire:{news}"]).parse().expect("it is a number");
    assert!((100..300).contains(&kept), "{kept}");
    let late = redis.node();
    let mut stream = Stream::resume(late.address, "news", &ids[10]);
    let gap = stream.next().expect("it goes on");
    assert_eq!(gap.event_type, "gap");
    let oldest = stream.next().expect("it goes on");
    assert!(gap.data.contains(&format!("\"oldest\":\"{}\"", oldest.last_event_id)), "{gap:?}");
    assert_eq!(resume(late.address, "news", &oldest.last_event_id, kept - 1), ids[400 - kept + 1..]);
}

#[test]
fn a_client_may_know_an_event_that_its_next_server_has_not_read_yet() {
    let Some(redis) = Redis::start(&[]) else { return };
    let relay = Relay::start(redis.address());
    let (ahead, behind) = (redis.node(), node(relay.address, &[]));
    publish(behind.address, "news", "both have it").expect("Redis runs");
    relay.rules().holds = true;
    let id = publish(ahead.address, "news", "one has it").expect("Redis runs");
    let address = behind.address;
    let resumed = thread::spawn(move || Stream::resume(address, "news", &id));
    thread::sleep(Duration::from_millis(300));
    relay.rules().holds = false;
    let next = publish(ahead.address, "news", "next").expect("Redis runs");
    let mut stream = resumed.join().expect("it is answered");
    let message = stream.next().expect("it goes on");
    assert_eq!((message.event_type.as_str(), message.last_event_id), ("message", next));
}

#[test]
fn a_channel_is_completed_on_every_server_until_something_is_published() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (one, other, late) = (redis.node(), redis.node(), redis.node());
    let id = publish(one.address, "news", "last").expect("Redis runs");
    let mut subscriber = Stream::resume(one.address, "news", "earliest");
    assert_eq!(ask(other.address, "DELETE", "/channels/news", &[], "").status, 204);
    assert_eq!(subscriber.until_end().len(), 1);
    for node in [&one, &other, &late] {
        eventually("a client that lacks nothing is told not to come back", || {
            ask(node.address, "GET", "/channels/news", &[("Last-Event-ID", &id)], "").status == 204
        });
    }
    let next = publish(late.address, "news", "more").expect("Redis runs");
    assert_eq!(resume(other.address, "news", &id, 1), [next]);
}

#[test]
fn a_client_is_not_ended_for_good_by_a_server_that_has_not_read_what_follows() {
    let Some(redis) = Redis::start(&[]) else { return };
    let relay = Relay::start(redis.address());
    let (ahead, behind) = (redis.node(), node(relay.address, &[]));
    let id = publish(behind.address, "news", "last").expect("Redis runs");
    assert_eq!(ask(behind.address, "DELETE", "/channels/news", &[], "").status, 204);
    eventually("the channel is completed", || {
        ask(behind.address, "GET", "/channels/news", &[("Last-Event-ID", &id)], "").status == 204
    });
    relay.rules().holds = true;
    let next = publish(ahead.address, "news", "more").expect("Redis runs");
    let address = behind.address;
    // It refuses a status that is not 200.
    let resumed = thread::spawn(move || resume(address, "news", &id, 1));
    thread::sleep(Duration::from_millis(300));
    relay.rules().holds = false;
    assert_eq!(resumed.join().expect("it goes on"), [next]);
}

#[test]
fn a_client_that_lacks_nothing_is_ended_by_a_server_that_has_not_read_the_completion() {
    let Some(redis) = Redis::start(&[]) else { return };
    let relay = Relay::start(redis.address());
    let (ahead, behind) = (redis.node(), node(relay.address, &[]));
    let resume_at_end = |channel: &str| {
        let id = publish(behind.address, channel, "last").expect("Redis runs");
        let has = Stream::resume(behind.address, channel, "earliest").next();
        assert_eq!(has.expect("it goes on").last_event_id, id);
        relay.rules().holds = true;
        let target = format!("/channels/{channel}");
        assert_eq!(ask(ahead.address, "DELETE", &target, &[], "").status, 204);
        let address = behind.address;
        let resumed = thread::spawn(move || ask(address, "GET", &target, &[("Last-Event-ID", &id)], ""));
        thread::sleep(Duration::from_millis(300));
        relay.rules().holds = false;
        resumed.join().expect("it is answered")
    };
    for number in 0..5 {
        let answer = resume_at_end(&format!("news{number}"));
        // A machine that runs nothing for long looks like a Redis that does not answer.
        let is_refused = answer.text().contains("come back later");
        assert!(answer.status == 204 || is_refused, "{answer:?}");
    }
}

#[test]
fn a_channel_whose_events_have_expired_says_when_the_last_one_was_published() {
    let Some(redis) = Redis::start(&[]) else { return };
    let node = node(redis.address(), &["--history-seconds", "1"]);
    let id = publish(node.address, "news", "x").expect("Redis runs");
    let json = [("Accept", "application/json")];
    let mut description = String::new();
    eventually("the event expires", || {
        description = ask(node.address, "GET", "/channels/news", &json, "").text().to_owned();
        description.contains("\"events\":0")
    });
    let ms = id.split_once('-').expect("it is an id").0;
    assert!(description.contains(&format!("\"last_published_ms\":{ms}")), "{description}");
}

#[test]
fn a_burst_that_is_larger_than_the_history_reaches_a_subscriber_that_reads() {
    let Some(redis) = Redis::start(&[]) else { return };
    let node = node(redis.address(), &["--history-events", "1"]);
    let burst = "for n = 1, 200 do redis.call('XADD', KEYS[1], '*', 'data', n) end";
    let arrives = || {
        let mut stream = Stream::subscribe(node.address, "news");
        redis.cli(&["EVAL", burst, "1", "newswire:{news}"]);
        (0..200).all(|_| stream.next().is_some())
    };
    // A machine that does not run the other threads for long cuts the subscriber off, as it may.
    assert!((0..5).any(|_| arrives()));
}

#[test]
fn an_idempotency_key_holds_on_every_server() {
    let Some(redis) = Redis::start(&[]) else { return };
    let nodes = [redis.node(), redis.node()];
    let publish = |node: &Node, data: &str| {
        let fields = [("Idempotency-Key", "order-7"), ("Accept", "text/plain")];
        let answer = ask(node.address, "POST", "/channels/orders", &fields, data);
        (answer.status, answer.text().to_owned())
    };
    let first = publish(&nodes[0], "paid");
    assert_eq!(first.0, 200);
    assert_eq!(publish(&nodes[1], "paid"), first);
    assert_eq!(publish(&nodes[1], "other").0, 422);
    // At one time on one server, which all of them reach before Redis answers anything
    let relay = Relay::start(redis.address());
    let slow = node(relay.address, &[]);
    let address = slow.address;
    clients::publish(address, "orders", "first").expect("Redis runs");
    relay.rules().holds = true;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let fields = [("Idempotency-Key", "order-8"), ("Accept", "text/plain")];
            thread::spawn(move || ask(address, "POST", "/channels/orders", &fields, "x").text().to_owned())
        })
        .collect();
    eventually("all of them wait", || slow.threads() >= 8 + 4);
    thread::sleep(Duration::from_millis(200));
    relay.rules().holds = false;
    let ids: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(redis.cli(&["XLEN", "newswire:{orders}"]), "3");
}

#[test]
fn what_redis_refuses_is_said_before_the_server_listens() {
    let Some(redis) = Redis::start(&["--requirepass", "secret"]) else { return };
    let address = redis.address().to_string();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let mut said = String::new();
        let mut stderr = child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut said).expect("it is text");
        (child.wait().expect("it has ended").code(), said)
    };
    let (code, said) = run(&["--redis", &address]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("NOAUTH"), "{said}");
    let file = redis.directory.join("password");
    std::fs::write(&file, "secret\n").expect("the directory is ours");
    let password = ["--redis-password-file", file.to_str().expect("it is UTF-8")];
    let node = node(redis.address(), &password);
    publish(node.address, "news", "x").expect("the password is right");
    for (arguments, reason) in [
        (&["--redis-db", "1"][..], "needs --redis"),
        (&["--redis", "localhost"], "HOST:PORT"),
        (&["--redis", &address, "--journal", "journal"], "exclude each other"),
        (&["--redis", &address, "--redis-prefix", "a{b"], "brace"),
        (&["--redis", &address, "--redis-user", "me"], "--redis-password-file"),
    ] {
        let (code, said) = run(arguments);
        assert!(code == Some(2) && said.contains(reason), "{arguments:?}: {said}");
    }
    // What the README tells to allow is enough.
    let rule = "+hello +select +client|tracking +ping +xadd +xread +xrange +xrevrange +wait";
    let acl = ["-a", "secret", "ACL", "SETUSER", "app", "on", ">word", "~newswire:*"];
    assert_eq!(redis.cli(&[&acl[..], &rule.split(' ').collect::<Vec<_>>()].concat()), "OK");
    std::fs::write(&file, "word").expect("the directory is ours");
    let app = [&password[..], &["--redis-user", "app"]].concat();
    let node = machines::node(redis.address(), &app);
    let mut stream = Stream::subscribe(node.address, "news");
    publish(node.address, "news", "y").expect("the user may");
    assert_eq!(stream.next().expect("it goes on").data, "y");
    let deaf = Redis::start(&["--rename-command", "CLIENT", "NONE"]).expect("it is there");
    let (code, said) = run(&["--redis", &deaf.address().to_string()]);
    assert!(code == Some(2) && said.contains("CLIENT"), "{said}");
}

#[test]
fn of_several_channels_all_get_the_event_or_none_although_this_server_has_read_none() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (one, other) = (redis.node(), redis.node());
    let publish = |node: &Node, names: &str, data: &str| {
        let target = format!("/channels/{names}");
        ask(node.address, "POST", &target, &[("Idempotency-Key", "k")], data).status
    };
    assert_eq!(publish(&one, "bb", "first"), 200);
    assert_eq!(publish(&other, "aa,bb", "another"), 422);
    assert_eq!(redis.cli(&["EXISTS", "newswire:{aa}"]), "0");
    redis.cli(&["SET", "newswire:{cc}", "no stream"]);
    assert_eq!(publish(&other, "aa,cc", "another"), 503);
    let without_key = ask(other.address, "POST", "/channels/aa,cc", &[], "x");
    assert_eq!(without_key.status, 503);
    assert_eq!(redis.cli(&["EXISTS", "newswire:{aa}"]), "0");
}

#[test]
fn a_channel_without_an_entry_has_not_begun() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (node, other) = (node(redis.address(), &["--create", "nobody"]), redis.node());
    let json = [("Accept", "application/json")];
    let get = |query: &str, fields: &[_]| ask(node.address, "GET", &format!("/channels/news{query}"), fields, "");
    assert_eq!(get("", &json).status, 404);
    assert!(get("?poll", &json).text().contains("has not begun"));
    assert_eq!(ask(node.address, "DELETE", "/channels/news", &[], "").status, 404);
    // If it had begun, this would wait for events.
    assert!(get("", &[]).text().contains("has not begun"));
    publish(other.address, "news", "x").expect("Redis runs");
    assert!(get("", &json).text().contains("\"events\":1"));
    let mut stream = Stream::resume(node.address, "news", "earliest");
    assert_eq!(stream.next().expect("it is kept").data, "x");
}
