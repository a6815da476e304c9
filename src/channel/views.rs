//! The views of a server, by their names and by the channels that they show.

use super::channel::Channel;
use super::feed::Feed;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

#[derive(Default)]
pub(super) struct Views {
    by_name: BTreeMap<Arc<str>, (Arc<Feed>, Vec<Channel>)>,
    /// Each part of a selection, with the name of the view: a channel that begins finds its views at a cost that does not
    /// grow with the others.
    by_part: BTreeSet<(Arc<str>, Arc<str>)>,
}

impl Views {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<&(Arc<Feed>, Vec<Channel>)> {
        self.by_name.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.by_name.values().map(|(view, _)| view)
    }

    pub(super) fn insert(&mut self, view: &Channel) {
        let (view, channels) = (&view.feed, view.channels.clone());
        let name = &view.members.name;
        self.by_part.extend(parts(view).map(|part| (Arc::clone(part), Arc::clone(name))));
        self.by_name.insert(Arc::clone(name), (Arc::clone(view), channels));
    }

    /// What it returns must not be dropped under the lock of the table.
    pub(super) fn remove(&mut self, name: &str) -> Option<(Arc<Feed>, Vec<Channel>)> {
        let (view, channels) = self.by_name.remove(name)?;
        for part in parts(&view) {
            self.by_part.remove(&(Arc::clone(part), Arc::clone(&view.members.name)));
        }
        Some((view, channels))
    }

    /// The views that show the channel of this name.
    pub(super) fn of_channel(&self, name: &str) -> Vec<Weak<Feed>> {
        if self.by_name.is_empty() {
            return Vec::new();
        }
        let prefixes = (0..=name.len()).map(|length| format!("{}*", &name[..length]));
        let parts = prefixes.chain([name.to_owned()]).map(Arc::<str>::from);
        let views = parts.flat_map(|part| {
            let first = (Arc::clone(&part), Arc::from(""));
            self.by_part.range(first..).take_while(move |(found, _)| *found == part)
        });
        let view = |(_, name): &(_, Arc<str>)| Some(Arc::downgrade(&self.by_name.get(name)?.0));
        views.filter_map(view).collect()
    }
}

fn parts(view: &Feed) -> impl Iterator<Item = &Arc<str>> {
    view.view.iter().flat_map(|view| view.selection.parts())
}

#[cfg(test)]
mod tests {
    use super::super::asked::Asked;
    use super::super::history::Batch;
    use super::super::limits::Limits;
    use super::super::replay::Replay;
    use super::super::selection::Selection;
    use super::*;
    use crate::channel::Channels;
    use crate::http::lock::hold;
    use crate::http::{Router, Server};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn start(limits: Limits) -> Channels {
        Channels::start(limits).expect("it starts")
    }

    fn open(channels: &Channels, selection: &str) -> Channel {
        let selection = Selection::parse(selection).expect("it is a selection");
        channels.open_selection(&selection, true).expect("there is room")
    }

    fn publish(channels: &Channels, name: &str, bytes: usize) -> String {
        let channel = channels.open(name).expect("there is room");
        channel.publish("x".repeat(bytes)).expect("it is small").id
    }

    fn serve(channel: Channel) -> SocketAddr {
        let mut router = Router::new();
        router.get("/", move |request| channel.subscribe(request));
        let server = Server::bind("127.0.0.1:0").expect("there is a free port");
        let address = server.local_addr().expect("it listens");
        server.log_accesses(false).serve(router).expect("it starts");
        address
    }

    fn get(address: SocketAddr, id: &str) -> BufReader<TcpStream> {
        let mut client = TcpStream::connect(address).expect("it accepts");
        client.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        write!(client, "GET /?last_event_id={id} HTTP/1.0\r\n\r\n").expect("it reads");
        BufReader::new(client)
    }

    fn types(stream: BufReader<TcpStream>) -> impl Iterator<Item = String> {
        let lines = stream.lines().map(|line| line.expect("it is text"));
        lines.filter_map(|line| Some(line.strip_prefix("event: ")?.to_owned()))
    }

    fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn events_that_wait_while_a_log_hangs_are_bounded_and_clients_that_come_back_get_them() {
        let (history_events, history_bytes, heartbeat) = (1, 1000, Duration::ZERO);
        let limits = Limits { history_events, history_bytes, heartbeat, ..Limits::default() };
        let channels = start(limits);
        let view = open(&channels, "*");
        let (hub, address) = (&view.feed.hub, serve(view.clone()));
        let live = get(address, "latest");
        eventually("it is live", || hub.joined.load(SeqCst) == 1);
        let first = publish(&channels, "a", 1);
        let mut live = types(live);
        assert_eq!(live.next().as_deref(), Some("a"));
        let hangs = hub.order.issue(&hub.ids);
        let names: Vec<String> = (10..40).map(|number| format!("c{number}")).collect();
        names.iter().for_each(|name| drop(publish(&channels, name, 900)));
        assert_eq!(live.next(), None, "it has lost them, and ends");
        let back = get(address, &first);
        eventually("it comes back", || view.subscribers() == 1);
        drop(hangs);
        assert_eq!(types(back).take(names.len()).collect::<Vec<_>>(), names);
    }

    #[test]
    fn a_client_whose_replay_waits_for_a_log_gets_heartbeats_and_is_noticed_when_it_leaves() {
        let limits = Limits { heartbeat: Duration::from_millis(20), ..Limits::default() };
        let channels = start(limits);
        let hub = &channels.hub;
        let hangs = hub.order.issue(&hub.ids);
        publish(&channels, "a", 1);
        let view = open(&channels, "a,b");
        let mut client = get(serve(view.clone()), "earliest");
        let mut line = String::new();
        while line != ":\n" {
            line.clear();
            client.read_line(&mut line).expect("it is live");
            assert!(!line.is_empty() && !line.starts_with("id"), "{line}");
        }
        drop(client);
        eventually("it has left", || view.subscribers() == 0);
        drop(hangs);
    }

    #[test]
    fn a_piece_of_a_replay_looks_at_no_channel_that_has_nothing_left_for_it() {
        let channels = start(Limits::default());
        publish(&channels, "quiet", 1);
        (0..3).for_each(|_| drop(publish(&channels, "busy", 30_000)));
        let view = open(&channels, "*");
        let quiet = open(&channels, "quiet").feed;
        let start = view.start(&Asked::Earliest).expect("it can be read");
        let (sender, receiver) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let read = thread::spawn(move || {
            let (mut replay, mut batch) = (Replay::new(&view.feed, start), Batch::default());
            let until = replay.newest();
            let mut events = 0;
            loop {
                assert!(replay.next(&Asked::Earliest, &until, &mut batch).is_ok());
                events += batch.end();
                if sender.send((events, replay.is_complete)).is_err() || replay.is_complete {
                    return;
                }
                goes_on.recv().expect("the test goes on");
            }
        });
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok((2, false)));
        let locked = quiet.lock();
        for event in [(3, false), (4, true)] {
            go_on.send(()).expect("it reads");
            assert_eq!(receiver.recv_timeout(PATIENCE), Ok(event));
        }
        drop(locked);
        read.join().expect("it has read all");
    }

    #[test]
    fn a_view_of_more_channels_than_are_found_at_once_shows_each_of_them_once() {
        let channels = start(Limits::default());
        let names: Vec<String> = (1000..1600).map(|number| format!("c{number}")).collect();
        let expects = |selection: &str, view: Channel| {
            let mut shown = Vec::new();
            view.feed.each_source(|channel| shown.push(channel.members.name.to_string()));
            let parts: Vec<&str> = selection.split(',').collect();
            let matches = |name: &&String| {
                let fits = |part: &&str| match part.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => name == part,
                };
                parts.iter().any(fits)
            };
            let expected: Vec<_> = names.iter().filter(matches).cloned().collect();
            assert_eq!(shown, expected, "{selection}");
        };
        names.iter().for_each(|name| drop(publish(&channels, name, 1)));
        for selection in ["*", "c10*,c1255,c1256,c13*", "b*,c1599", "c1000,c1001", "c1*,d"] {
            expects(selection, open(&channels, selection));
        }
        // A channel that was there is shown once, and so is one that begins later.
        let view = open(&channels, "c*");
        let stream = get(serve(view.clone()), "latest");
        eventually("it is live", || channels.hub.joined.load(SeqCst) == 1);
        for name in ["c1000", "c2000", "c1599"] {
            assert_eq!(channels.open(name).expect("there is room").subscribers(), 1);
            publish(&channels, name, 1);
        }
        assert!(types(stream).take(3).eq(["c1000", "c2000", "c1599"]));
    }

    /// A thread that has the lock of a channel may wait for that of the table.
    #[test]
    fn a_view_is_opened_without_the_lock_of_a_channel_under_that_of_the_table() {
        for (selection, is_over_redis) in [("*", false), ("a,b", true)] {
            let channels = start(Limits::default());
            if is_over_redis {
                channels.hub.ids.mark_shared();
            }
            let a = channels.open("a").expect("there is room");
            let locked = a.feed.lock();
            let others = channels.clone();
            let opener = thread::spawn(move || open(&others, selection));
            let (sender, receiver) = mpsc::channel();
            let others = channels.clone();
            thread::spawn(move || {
                eventually("it is listed", || hold(&others.table).views.len() == 1);
                sender.send(others.open("b").expect("there is room"))
            });
            let b = receiver.recv_timeout(PATIENCE).expect("the table is free");
            drop(locked);
            let view = opener.join().expect("it opens");
            assert!(view.feed.lock().is_active());
            // Also a channel that has begun meanwhile is shown once.
            assert_eq!([&a, &b].map(|it| it.feed.lock().views.len()), [1, 1], "{selection}");
        }
    }

    #[test]
    fn a_publisher_waits_for_all_views_of_its_channel_until_one_deadline() {
        const VIEWS: usize = 200;
        let limits = Limits { history_events: 1, views: VIEWS, ..Limits::default() };
        let channels = start(limits);
        let channel = channels.open("a").expect("there is room");
        let views: Vec<_> = (0..VIEWS).map(|number| open(&channels, &format!("a,b{number}"))).collect();
        for view in &views {
            // As if a fan-out thread hung.
            view.feed.lock().lanes[0].is_out = true;
        }
        let (sender, receiver) = mpsc::channel();
        let published = channel.feed.clone();
        thread::spawn(move || {
            (0..3).for_each(|_| drop(publish_one(&channel)));
            published.wait_for_views(Duration::from_secs(1));
            sender.send(())
        });
        receiver.recv_timeout(PATIENCE).expect("it has waited once for all");
    }

    #[test]
    fn a_subscriber_of_a_view_that_is_shown_an_event_during_a_stop_is_stopped() {
        let channels = start(Limits::default());
        let view = open(&channels, "a,b");
        let mut client = get(serve(view.clone()), "latest");
        eventually("it is live", || view.feed.lock().lanes.iter().any(|lane| lane.len() > 0));
        let mut taken: Vec<_> = {
            let mut state = view.feed.lock();
            state.lanes.iter_mut().flat_map(|lane| lane.drain()).collect()
        };
        channels.hub.stop();
        // The threads are not told of it: that would be under the lock of the channel that is shown. One that has not ended
        // yet may find it all the same.
        taken.drain(..).for_each(|it| _ = view.feed.lock().lanes[0].join(it, None));
        view.feed.show(super::super::id::Id::MAX.previous(), &b"data: x\n\n"[..].into());
        channels.stop();
        let mut received = String::new();
        client.read_to_string(&mut received).expect("it ends");
        assert_eq!(received.matches("retry: ").count(), 2, "{received}");
    }

    /// A channel may be completed between the end of a replay and the look for those that are.
    #[test]
    fn a_client_of_a_view_is_told_of_a_completion_once() {
        for is_over_redis in [false, true] {
            let channels = start(Limits::default());
            if is_over_redis {
                channels.hub.ids.mark_shared();
            }
            let view = open(&channels, "a,b");
            let a = channels.open("a").expect("there is room");
            publish_one(&a);
            let after = if is_over_redis { view.feed.lock().place.clone() } else { vec![channels.hub.ids.last()] };
            let follows_from = view.feed.lock().history.end();
            a.complete().expect("it is in memory");
            let (before, behind) = (Some(follows_from), Some(follows_from + 1));
            assert_eq!(view.feed.ends(&after, before), b"", "it is in what follows");
            let after = if is_over_redis { after } else { vec![channels.hub.ids.last()] };
            let end = b"event: a:end\ndata: the channel is completed\n\n";
            assert_eq!(view.feed.ends(&after, behind), end);
        }
    }

    fn publish_one(channel: &Channel) -> String {
        channel.publish("x").expect("it is small").id
    }
}
