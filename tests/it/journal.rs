//! The journal: whatever a publisher was answered is there after a restart, in order, and a client that comes back gets
//! what it missed. `journal_faults` has a system that fails.

use crate::channels::{END, OPEN, complete, metric};
use crate::files::Directory;
use crate::server::{Answer, Dice, PATIENCE, Publisher, Server, Stream, ask, connect, eventually, exchange, serve_app};
use newswire::app::{App, Publishers};
use newswire::channel::{Channels, JournalSummary, JournalSync, Limits, PublishError, Storage, inspect_journal};
use newswire::sse::{Message, Parser};
use newswire::{Event, Router};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// A journal of its own for a test, in a directory that goes with it.
pub(crate) fn journal(name: &str) -> (Directory, PathBuf) {
    let directory = Directory::new(&format!("journal-{name}"));
    let path = directory.0.join("journal");
    (directory, path)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("it is UTF-8")
}

fn start(path: &Path, arguments: &[&str]) -> Server {
    Server::start(&[&OPEN, &["--journal", text(path)], arguments].concat())
}

pub(crate) fn open(path: &Path, limits: Limits, sync: JournalSync) -> Channels {
    let storage = Storage::Journal { directory: path.to_owned(), sync };
    unless_busy(|| Channels::start_with(limits.clone(), storage.clone()))
}

/// A process that another test starts has all our files open for a moment, and so a lock that was given back.
fn unless_busy<T>(mut of: impl FnMut() -> std::io::Result<T>) -> T {
    let mut found = None;
    eventually("the journal is free", || match of() {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => false,
        other => {
            found = Some(other.expect("the journal can be used"));
            true
        }
    });
    found.expect("it was waited for")
}

/// What a channel has in its journal.
pub(crate) fn inspect(path: &Path, channel: &str) -> JournalSummary {
    let all = unless_busy(|| inspect_journal(path));
    let found = all.into_iter().find(|journal| journal.channel == channel);
    found.unwrap_or_else(|| panic!("{channel} is not in {}", path.display()))
}

pub(crate) fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).map_or(Vec::new(), |entries| entries.collect());
    let paths = entries.into_iter().map(|entry| entry.expect("it can be read").path());
    let mut segments: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "events")).collect();
    segments.sort();
    segments
}

/// Everything that a channel keeps; the channel is completed to find the end.
pub(crate) fn all(address: SocketAddr, channel: &str) -> Vec<Message> {
    complete(address, channel);
    Stream::resume(address, channel, "earliest").until_end()
}

/// Publishes on a connection that may break.
fn try_publish(reader: &mut BufReader<TcpStream>, channel: &str, data: &str) -> Option<String> {
    let length = data.len();
    let request = format!(
        "POST /channels/{channel} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\nContent-Length: {length}\r\n\r\n{data}"
    );
    reader.get_mut().write_all(request.as_bytes()).ok()?;
    // A broken answer is no answer.
    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Answer::read(reader, "POST")));
    let answer = answer.ok()??;
    assert_eq!(answer.status, 200, "{answer:?}");
    Some(answer.text().trim_end().to_owned())
}

#[test]
fn a_journal_is_for_its_user_alone() {
    let (_directory, path) = journal("mode");
    let server = start(&path, &[]);
    Publisher::connect(server.address, "news").publish("x");
    for directory in [&path, &path.join("news")] {
        let mode = fs::metadata(directory).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", directory.display());
    }
}

#[test]
fn after_a_restart_a_client_gets_what_it_missed_without_a_gap_and_ids_go_on_growing() {
    let (_directory, path) = journal("restart");
    let mut server = start(&path, &[]);
    let mut publisher = Publisher::connect(server.address, "news");
    let ids: Vec<String> = (1..=5).map(|n| publisher.publish(&format!("n{n}"))).collect();
    let mut live = Stream::resume(server.address, "news", &ids[0]);
    assert_eq!(live.next().expect("it is kept").data, "n2");
    server.kill();
    let server = start(&path, &[]);
    let mut back = Stream::resume(server.address, "news", &ids[1]);
    let data: Vec<String> = (0..3).map(|_| back.next().expect("it is kept").data).collect();
    assert_eq!(data, ["n3", "n4", "n5"]);
    let next = Publisher::connect(server.address, "news").publish("n6");
    assert_eq!(back.next().map(|message| message.last_event_id), Some(next));
    // The time before the restart is known, too. What a view has, and what it does not have yet, has lost nothing.
    let (since, _) = crate::resumption::numbers(&ids[0]);
    for selection in ["news", "news,other", "n*"] {
        for asked in [format!("since={since}"), format!("last_event_id={}", ids[0])] {
            let target = format!("/channels/{selection}?{asked}");
            let first = Stream::open(server.address, &target, &[]).next().expect("it is kept").data;
            assert_eq!(first, if asked.starts_with("since") { "n1" } else { "n2" }, "{target}");
        }
    }
    // An id that the journal never had is a gap.
    let mut stranger = Stream::resume(server.address, "news", "5-5");
    assert_eq!(stranger.next().expect("it is told").event_type, "gap");
    assert_eq!(stranger.next().expect("it is kept").data, "n1");
    assert_eq!(server.metric("newswire_gaps_total"), 1);
}

#[test]
fn ids_are_larger_than_those_of_the_journal_whatever_the_clock_says() {
    let (directory, path) = journal("clock");
    // In the year 2286.
    let segment = ": newswire journal 1\nid: 9999999999998-0\n\nid: 9999999999999-7\ndata: late\n\n";
    directory.write("journal/news/9999999999998-1.events", segment);
    let channels = open(&path, Limits::default(), JournalSync::Never);
    let news = channels.find("news").expect("it is in the journal");
    assert_eq!(news.publish("later").expect("it is small").id, "9999999999999-8");
    let other = channels.open("other").expect("there is room");
    assert_eq!(other.publish("later").expect("it is small").id, "9999999999999-10");
    channels.stop();
}

#[test]
fn new_channels_start_behind_the_evicted_ones_whatever_the_clock_says() {
    let (directory, path) = journal("clock-evicted");
    directory.write("journal/.forgotten", ": newswire journal 1\nid: 9999999999998-7\n\n");
    let channels = open(&path, Limits::default(), JournalSync::Never);
    let news = channels.open("news").expect("there is room");
    assert_eq!(news.publish("later").expect("it is small").id, "9999999999998-9");
    channels.stop();
    let [segment] = &segments(&path.join("news"))[..] else { panic!("there is one segment") };
    let start = fs::read_to_string(segment).expect("it is there");
    assert!(start.starts_with(": newswire journal 1\nid: 9999999999998-7\n\n"), "{start}");
}

#[test]
fn a_completion_and_an_idempotency_key_are_still_known_after_a_restart() {
    let (_directory, path) = journal("keys");
    let once = |address, data: &str| {
        let fields = [("Idempotency-Key", "order-7"), ("Accept", "text/plain")];
        ask(address, "POST", "/channels/news", &fields, data)
    };
    let mut server = start(&path, &[]);
    let id = once(server.address, "paid").text().trim_end().to_owned();
    complete(server.address, "news");
    server.kill();
    let server = start(&path, &[]);
    assert_eq!(once(server.address, "paid").text().trim_end(), id);
    assert_eq!(once(server.address, "other").status, 422);
    let fields = [("Last-Event-ID", &*id)];
    assert_eq!(ask(server.address, "GET", "/channels/news", &fields, "").status, 204);
    // An event behind the completion opens the channel again.
    let next = Publisher::connect(server.address, "news").publish("more");
    let mut stream = Stream::resume(server.address, "news", &id);
    assert_eq!(stream.next().map(|message| message.last_event_id), Some(next));
}

#[test]
fn a_segment_is_an_event_stream_that_any_parser_reads() {
    let (_directory, path) = journal("stream");
    let mut server = start(&path, &["--journal-sync", "never"]);
    let target = "/channels/news?event=note";
    ask(server.address, "POST", target, &[("Idempotency-Key", "k")], "two\nlines");
    complete(server.address, "news");
    server.kill();
    let [segment] = &segments(&path.join("news"))[..] else { panic!("there is one segment") };
    let messages = Parser::new().feed(&fs::read(segment).expect("it is there")).expect("it is small");
    let kinds: Vec<&str> = messages.iter().map(|message| message.event_type.as_str()).collect();
    assert_eq!(kinds, ["note", "end"]);
    assert_eq!(messages[0].data, "two\nlines");
    assert_eq!(inspect(&path, "news").last_id.as_ref(), Some(&messages[0].last_event_id));
}

/// Publishers at the same time share one write.
#[test]
fn a_view_shows_the_end_of_a_channel_where_it_was_committed() {
    let (_directory, path) = journal("ends");
    let server = start(&path, &["--journal-sync", "always"]);
    let address = server.address;
    let mut view = Stream::open(address, "/channels/c,d", &[]);
    Publisher::connect(address, "c").publish("first");
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let mut publisher = Publisher::connect(address, "c");
                for _ in 0..20 {
                    if number % 2 == 0 { complete(address, "c") } else { drop(publisher.publish("x")) }
                }
            });
        }
    });
    Publisher::connect(address, "d").publish("last");
    let in_view = |message: Message| (message.event_type.replace("c:end", "end"), message.last_event_id);
    let shown = std::iter::from_fn(|| view.next()).take_while(|message| message.event_type != "d").map(in_view);
    let [segment] = &segments(&path.join("c"))[..] else { panic!("there is one segment") };
    let messages = Parser::new().feed(&fs::read(segment).expect("it is there")).expect("it is small");
    let in_file = |message: Message| (message.event_type.replace("message", "c"), message.last_event_id);
    let mut written: Vec<_> = messages.into_iter().map(in_file).collect();
    // A channel that is completed twice in one write is shown so once.
    written.dedup();
    assert_eq!(shown.collect::<Vec<_>>(), written);
}

/// The oracle: the ids that publishers were answered, and what they had published.
#[test]
fn what_a_publisher_was_answered_is_there_after_a_kill_at_any_moment_and_in_order() {
    const PUBLISHERS: usize = 8;
    let (_directory, path) = journal("kill");
    let limits = ["--history-events", "1000000", "--history-bytes", "100000000"];
    let mut dice = Dice::new(7);
    let answered: Mutex<BTreeMap<(u64, u64), String>> = Mutex::default();
    for round in 0..6 {
        let sync = ["always", "interval", "never"][round % 3];
        let mut server = start(&path, &[&limits[..], &["--journal-sync", sync]].concat());
        let address = server.address;
        thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let answered = &answered;
                scope.spawn(move || {
                    let mut reader = BufReader::new(connect(address));
                    for number in 0.. {
                        let data = format!("{round}-{publisher}-{number} {}", "x".repeat(number % 300));
                        let Some(id) = try_publish(&mut reader, "news", &data) else { return };
                        let mut answered = answered.lock().expect("no thread panics");
                        assert_eq!(answered.insert(numbers(&id), data), None, "{id} twice");
                    }
                });
            }
            thread::sleep(Duration::from_millis(100 + dice.below(400) as u64));
            server.kill();
        });
    }
    let server = start(&path, &limits);
    let kept = all(server.address, "news");
    let ids: Vec<(u64, u64)> = kept.iter().map(|message| numbers(&message.last_event_id)).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "ids grow");
    let kept: BTreeMap<_, _> = ids.into_iter().zip(kept.iter().map(|message| &message.data)).collect();
    let answered = answered.into_inner().expect("no thread panicked");
    assert!(answered.len() > 100, "{} answers prove nothing", answered.len());
    for (id, data) in &answered {
        assert_eq!(kept.get(id), Some(&data), "{id:?} was answered");
    }
    // What was not answered is there or not, but never half.
    for data in kept.values() {
        let (start, rest) = data.split_once(' ').expect("it is whole");
        let number: usize = start.rsplit('-').next().and_then(|n| n.parse().ok()).expect("it is one");
        assert_eq!(rest, "x".repeat(number % 300), "{start} is whole");
    }
    assert!(kept.len() - answered.len() <= 6 * PUBLISHERS, "one for each publisher and kill");
}

fn numbers(id: &str) -> (u64, u64) {
    let (ms, n) = id.split_once('-').expect("it is an id");
    (ms.parse().expect("it is a number"), n.parse().expect("it is a number"))
}

#[test]
fn a_journal_that_is_cut_at_any_byte_has_the_events_that_a_parser_finds_before_the_cut() {
    let (directory, path) = journal("torn");
    let channels = open(&path, Limits::default(), JournalSync::Never);
    let news = channels.open("news").expect("there is room");
    news.publish("eins").expect("it is small");
    news.publish_once("k", "two\nlines\n").expect("it is small");
    news.complete().expect("there is room on the disk");
    news.publish(Event::new("").name("n").expect("one line").comment("c")).expect("it is small");
    channels.stop();
    drop((news, channels));
    let segment = segments(&path.join("news")).remove(0);
    let name = segment.file_name().and_then(|name| name.to_str()).expect("it is UTF-8");
    let whole = fs::read(&segment).expect("it is there");
    for length in 0..=whole.len() {
        let copy = format!("copy-{length}");
        directory.write(format!("{copy}/news/{name}"), &whole[..length]);
        let copy = directory.0.join(copy);
        let mut parser = Parser::new();
        let found = parser.feed(&whole[..length]).expect("it is small");
        let events: Vec<&Message> = found.iter().filter(|it| it.event_type != "end").collect();
        let before = inspect(&copy, "news");
        assert_eq!(before.events, events.len(), "cut at {length}");
        let last = events.last().map(|message| message.last_event_id.clone());
        assert_eq!(before.last_id, last, "cut at {length}");
        let is_completed = found.last().is_some_and(|message| message.event_type == "end");
        assert_eq!(before.completed, is_completed, "cut at {length}");
        // A server goes on behind them.
        let channels = open(&copy, Limits::default(), JournalSync::Never);
        let news = channels.find("news").expect("it is in the journal");
        assert_eq!(news.summary().completed, is_completed);
        let published = news.publish("next").expect("it is small");
        channels.stop();
        drop((news, channels));
        let after = inspect(&copy, "news");
        let expected = (events.len() + 1, Some(published.id), 0);
        assert_eq!((after.events, after.last_id, after.torn_bytes), expected, "cut at {length}");
        fs::remove_dir_all(copy).expect("it is ours");
    }
}

#[test]
fn zeros_that_a_loss_of_power_has_left_are_cut_off() {
    let (directory, path) = journal("zeros");
    let segment = ": newswire journal 1\nid: 5-0\n\nid: 5-1\ndata: x\n\n\0\0\0\0\ndata: y\n\n";
    directory.write("journal/news/5-0.events", segment);
    let found = inspect(&path, "news");
    assert_eq!((found.events, found.torn_bytes), (1, 14));
}

/// The one before could not be written any more, and the server was killed before it was deleted; or its end was lost.
#[test]
fn a_segment_that_does_not_go_on_where_the_one_before_ended_stands_for_all_before_it() {
    let before = ": newswire journal 1\nid: 5-0\n\nid: 5-1\ndata: x\n\nid: 5-2\ndata: y\n\n";
    let again = ": newswire journal 1\nid: 4-9\n\nid: 5-1\ndata: x\n\nid: 5-3\ndata: z\n\n";
    let behind = ": newswire journal 1\nid: 6-5\n\nid: 7-1\ndata: z\n\n";
    let further = ": newswire journal 1\nid: 5-2\n\nid: 7-1\ndata: z\n\n";
    let torn = &before[..before.len() - 1];
    for (first, second, events, from) in [
        (before, again, 2, "5-1"),
        (before, behind, 1, "7-1"),
        (before, further, 3, "5-1"),
        (torn, further, 1, "7-1"),
        (before, ": newswire jou", 2, "5-1"),
    ] {
        let (directory, path) = journal("stands");
        directory.write("journal/news/5-0.events", first);
        directory.write("journal/news/7-0.events", second);
        let found = inspect(&path, "news");
        assert_eq!((found.events, found.first_id.as_deref()), (events, Some(from)), "{second:?}");
        // It is the same after a server has gone on, and deleted what it does not need.
        let channels = open(&path, Limits::default(), JournalSync::Never);
        let news = channels.find("news").expect("it is in the journal");
        news.publish("next").expect("it is small");
        channels.stop();
        drop((news, channels));
        assert_eq!(inspect(&path, "news").events, events + 1, "{second:?}");
    }
}

#[test]
fn the_command_says_what_a_journal_holds_and_fails_if_a_recovery_would_cut_something() {
    let (directory, path) = journal("command");
    let segment = ": newswire journal 1\nid: 5-0\n\nid: 5-1\ndata: x\n\n";
    directory.write("journal/news/5-0.events", segment);
    directory
        .write("journal/other/7-0.events", format!("{segment}{}", "event: end\ndata: the channel is completed\n\n"));
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
        let output = command.args(["journal", "check", text(&path)]).output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let news = "news: 1 events, 17 bytes, from 5-1 to 5-1";
    let other = "other: 1 events, 17 bytes, from 5-1 to 5-1, completed\n";
    assert_eq!(check(), (Some(0), format!("{news}\n{other}")));
    directory.write("journal/news/5-0.events", format!("{segment}id: 5-2\ndata"));
    let torn = format!("{news}; 12 bytes behind them are torn\n{other}");
    assert_eq!(check(), (Some(1), torn.clone()));
    // It has changed nothing.
    assert_eq!(check(), (Some(1), torn));
    let _server = start(&path, &[]);
    assert_eq!(check().0, Some(2), "a server uses it");
}

#[test]
fn a_journal_that_cannot_be_used_is_refused_with_one_sentence_and_nothing_in_it_is_changed() {
    let whole = ": newswire journal 1\nid: 5-0\n\nid: 5-1\ndata: x\n\n";
    let cases: [(&str, &str, &str); 8] = [
        ("notes.txt", "mine", "not part of a journal"),
        ("news", "mine", "not part of a journal"),
        (".forgotten", "mine", "not a segment"),
        ("news/notes.txt", "mine", "not part of a journal"),
        ("news/5-0.events", "mine", "not a segment"),
        ("news/5-0.events", ": newswire journal 2\nid: 5-0\n\n", "not a segment"),
        ("news/5-0.events", &(whole.to_owned() + "id: 5-1\ndata: y\n\n"), "not larger than the one before"),
        ("news/5-0.events", &(whole.to_owned() + "data: y\n\n"), "not an event of a journal"),
    ];
    for (number, (file, content, why)) in cases.into_iter().enumerate() {
        let (directory, path) = journal(&format!("refused-{number}"));
        directory.write("journal/good/5-0.events", format!("{whole}torn"));
        directory.write(Path::new("journal").join(file), content);
        refuse(&path, why);
        let unchanged = fs::read_to_string(path.join(file)).expect("it is there");
        assert_eq!(unchanged, content);
        let good = fs::read_to_string(path.join("good/5-0.events")).expect("it is there");
        assert_eq!(good, format!("{whole}torn"));
    }
    // No directory can be made there, by any user.
    refuse(Path::new("/proc/newswire"), "cannot write to the journal");
    let (directory, path) = journal("refused-file");
    directory.write("journal", "mine");
    refuse(&path, "cannot write to the journal");
    refuse(&path.join("below/it"), "cannot write to the journal");
}

/// A server that is started with this journal says why not, in one line, and its exit code is 2.
fn refuse(path: &Path, why: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--journal", text(path)]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary under test starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("it is ours").is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    // A server that runs after all is not refused.
    let _ = child.kill();
    let output = child.wait_with_output().expect("it has ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(why) && said.lines().count() == 1, "{why:?} is not in {said:?}");
}

#[test]
fn a_second_process_is_refused_and_the_first_goes_on() {
    let (_directory, path) = journal("two");
    let server = start(&path, &[]);
    Publisher::connect(server.address, "news").publish("one");
    refuse(&path, "another process uses the journal");
    Publisher::connect(server.address, "news").publish("two");
    assert_eq!(all(server.address, "news").len(), 2);
}

#[test]
fn the_option_for_syncs_needs_a_journal() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    let output = command.args(["--journal-sync", "always"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--journal-sync needs --journal"));
}

#[test]
fn the_disk_has_at_most_three_segments_and_three_histories_of_a_channel() {
    let (_directory, path) = journal("bounded");
    let limits = Limits { history_events: 20, history_bytes: 2_000, ..Limits::default() };
    let channels = open(&path, limits.clone(), JournalSync::Never);
    let news = channels.open("news").expect("there is room");
    let bytes = || -> u64 {
        let lengths = segments(&path.join("news")).into_iter().map(fs::metadata);
        lengths.map(|found| found.expect("it is there").len()).sum()
    };
    let mut last = String::new();
    for number in 0..500 {
        let size = if number < 250 { 1 } else { 500 };
        last = news.publish("x".repeat(size)).expect("it fits").id;
        let (count, bytes) = (segments(&path.join("news")).len(), bytes());
        assert!(count <= 3, "{count} segments");
        assert!(bytes <= 3 * 2_000, "{bytes} bytes");
    }
    // Completions alone do not fill it either.
    let before = bytes();
    let complete = || {
        news.complete().expect("there is room on the disk");
        bytes()
    };
    // The first one may begin a segment, which lets old ones go.
    let once = complete();
    assert!(once <= before + END.len() as u64, "{once} after {before} bytes");
    assert!((0..100).all(|_| complete() == once));
    let kept = news.summary();
    channels.stop();
    drop((news, channels));
    let channels = open(&path, limits, JournalSync::Never);
    let recovered = channels.find("news").expect("it is in the journal").summary();
    assert_eq!(recovered, kept);
    assert_eq!(recovered.last_id, Some(last));
    channels.stop();
}

#[test]
fn the_journal_of_an_evicted_channel_is_deleted_and_a_client_of_it_is_told_a_gap_after_a_restart() {
    let (_directory, path) = journal("evicted");
    let mut server = start(&path, &["--max-channels", "1"]);
    let mut publisher = Publisher::connect(server.address, "old");
    let ids = [publisher.publish("one"), publisher.publish("two")];
    complete(server.address, "old");
    eventually("its publisher has left", || ask(server.address, "POST", "/channels/new", &[], "three").status == 200);
    drop(publisher);
    eventually("its journal is deleted", || !path.join("old").exists());
    let forgotten = fs::read_to_string(path.join(".forgotten")).expect("it is there");
    assert_eq!(forgotten, format!(": newswire journal 1\nid: {}\n\n", ids[1]));
    server.kill();
    let server = start(&path, &["--max-channels", "2"]);
    let mut stream = Stream::resume(server.address, "old", &ids[0]);
    assert_eq!(stream.next().expect("it is told").event_type, "gap");
    assert_eq!(all(server.address, "new").len(), 1);
}

/// A callback that publishes on its own channel runs on the thread of a publisher, perhaps of the one that writes.
#[test]
fn a_callback_may_publish_on_the_channel_that_its_subscriber_has_left() {
    let (_directory, path) = journal("callback");
    let channels = open(&path, Limits::default(), JournalSync::Interval);
    let news = channels.open("news").expect("there is room");
    let leaving = news.clone();
    news.on_leave(move |_| drop(leaving.publish("one has left")));
    let mut router = Router::new();
    let subscribed = news.clone();
    router.get("/channels/news", move |request| subscribed.subscribe(request));
    let address = crate::server::serve(router, |server| server);
    let mut witness = Stream::subscribe(address, "news");
    let mut expected = 0;
    for _ in 0..20 {
        drop(Stream::subscribe(address, "news"));
        expected += 1;
        // The write that finds out is that of this thread, or of the fan-out thread.
        let mut left = 0;
        while left == 0 {
            news.publish("tick").expect("it is small");
            let message = witness.next().expect("it goes on");
            left += usize::from(message.data == "one has left");
        }
        expected -= left;
    }
    assert_eq!(expected, 0);
    channels.stop();
}

#[test]
fn publishers_at_the_same_time_share_keys_and_batches_without_mixing_their_outcomes() {
    let (_directory, path) = journal("outcomes");
    let channels = open(&path, Limits::default(), JournalSync::Always);
    let news = channels.open("news").expect("there is room");
    let outcomes = thread::scope(|scope| {
        let publish = |number: usize| {
            let news = news.clone();
            // Two publish each key: one with the same event, one with another.
            scope.spawn(move || {
                let (key, data) = (format!("k{}", number % 20), format!("{}", number % 40));
                (key.clone(), data.clone(), news.publish_once(&key, data))
            })
        };
        let threads: Vec<_> = (0..120).map(publish).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("no thread panics"));
        joined.collect::<Vec<_>>()
    });
    let mut known = BTreeMap::new();
    for (key, data, outcome) in &outcomes {
        if let Ok(published) = outcome {
            let found = known.entry(key).or_insert((data, &published.id));
            assert_eq!(*found, (data, &published.id), "one event for {key}");
        }
    }
    assert_eq!(known.len(), 20);
    for (key, data, outcome) in &outcomes {
        let is_reused = known[key].0 != data;
        assert_eq!(*outcome == Err(PublishError::KeyReused), is_reused, "{key} {data}");
    }
    assert_eq!(news.summary().events, 20);
    channels.stop();
}

#[test]
fn streams_made_to_order_and_channels_without_events_leave_nothing_in_the_journal() {
    let (_directory, path) = journal("nothing");
    let server = start(&path, &[]);
    exchange(server.address, "GET /lab?count=3&interval=1 HTTP/1.0\r\n\r\n");
    drop(Stream::subscribe(server.address, "empty"));
    let names = fs::read_dir(&path).expect("it is there").map(|entry| entry.expect("it is").file_name());
    assert_eq!(names.collect::<Vec<_>>(), [".lock"]);
}

#[test]
fn the_application_publishes_standard_input_into_the_journal() {
    let (_directory, path) = journal("stdin");
    let mut server = start(&path, &["--stdin", "lines"]);
    let mut stdin = server.stdin();
    stdin.write_all(b"one\ntwo\n").expect("it reads");
    drop(stdin);
    eventually("it is completed", || {
        path.join("lines").exists() && {
            let [segment] = &segments(&path.join("lines"))[..] else { return false };
            fs::read(segment).is_ok_and(|bytes| bytes.ends_with(END))
        }
    });
    server.kill();
    let found = inspect(&path, "lines");
    assert_eq!((found.events, found.completed), (2, true));
}

/// A gap is told where something is lost, and nowhere else: the history of the process before was smaller.
#[test]
fn a_server_with_smaller_limits_keeps_the_newest_events_and_tells_what_it_has_dropped() {
    let (_directory, path) = journal("smaller");
    let channels = open(&path, Limits::default(), JournalSync::Never);
    let news = channels.open("news").expect("there is room");
    let ids: Vec<String> = (0..10).map(|n| news.publish(format!("{n}")).expect("it is small").id).collect();
    channels.stop();
    drop((news, channels));
    let limits = Limits { history_events: 3, ..Limits::default() };
    let storage = Storage::Journal { directory: path.clone(), sync: JournalSync::Never };
    let app = App { channel_limits: limits, publishers: Publishers::Anyone, storage, ..App::default() };
    let (address, _) = serve_app(app);
    let mut told = Stream::resume(address, "news", &ids[5]);
    assert_eq!(told.next().expect("it is told").event_type, "gap");
    assert_eq!(told.next().expect("it is kept").data, "7");
    let mut exact = Stream::resume(address, "news", &ids[6]);
    assert_eq!(exact.next().expect("it is kept").data, "7");
    assert_eq!(metric(address, "newswire_gaps_total"), 1);
}
