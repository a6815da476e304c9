//! The journal while the system fails: strace makes calls fail, kills the server at a call, and shows what it has synced.

use crate::channels::OPEN;
use crate::files::Directory;
use crate::journal::{all, inspect, journal, open, segments, text};
use crate::server::{Dice, Publisher, Server, Stream, ask, connect, eventually};
use newswire::channel::{JournalSync, Limits};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// In CI it is a failure that something cannot be tested.
fn is_missing(what: &str) -> bool {
    assert!(std::env::var("CI").is_err(), "{what}");
    // Not eprintln, which the test harness would keep to itself.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED, no fault of a disk is tested: {what} ***");
    true
}

fn has_strace() -> bool {
    let found = Command::new("strace").args(["-D", "true"]).output();
    found.is_ok_and(|output| output.status.success()) || !is_missing("strace cannot run")
}

/// A server whose calls strace sees, or changes.
fn traced(path: &Path, options: &[&str], arguments: &[&str]) -> Server {
    let mut command = Command::new("strace");
    // The process that the test starts and kills is the server itself.
    command.args(["-D", "-f"]).args(options).arg(env!("CARGO_BIN_EXE_newswire"));
    command.args(["--listen", "127.0.0.1:0", "--journal", text(path)]).args(OPEN).args(arguments);
    Server::spawn(command)
}

/// Publishes on an open connection, which one thread of the server serves. `None` when the server has ended.
fn publish(socket: &mut std::net::TcpStream, data: &str) -> Option<String> {
    let length = data.len();
    let head = "POST /channels/news HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n";
    let request = format!("{head}Content-Length: {length}\r\n\r\n{data}");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, content)) = text.split_once("\r\n\r\n")
            && let Some((_, rest)) = head.to_ascii_lowercase().split_once("content-length: ")
            && let Some(length) = rest.lines().next().and_then(|text| text.parse::<usize>().ok())
            && content.len() == length
        {
            return Some(text.into_owned());
        }
        let mut piece = [0; 1024];
        match socket.read(&mut piece) {
            Ok(read) if read > 0 => answer.extend_from_slice(&piece[..read]),
            _ => return None,
        }
    }
}

/// The id in an answer that says that the event was published.
fn id(answer: &str) -> String {
    let (head, content) = answer.split_once("\r\n\r\n").expect("it is whole");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    content.trim_end().to_owned()
}

fn data(messages: &[newswire::sse::Message]) -> Vec<&str> {
    messages.iter().map(|message| message.data.as_str()).collect()
}

/// One call on the disk fails once: for which publish, what the publisher is told, how many segments are given up.
#[test]
fn an_event_whose_write_or_sync_has_failed_is_not_acknowledged_not_delivered_and_not_recovered() {
    if !has_strace() {
        return;
    }
    // The first write is that of the header.
    let cases = [
        ("inject=fdatasync:error=EIO:when=3", "may or may not have been kept", 1),
        ("inject=write:error=EIO:when=4", "may or may not have been kept", 1),
        ("inject=write:error=ENOSPC:when=4", "has not kept it", 0),
    ];
    let goes_on = [true, false];
    let cases = cases.iter().flat_map(|case| goes_on.map(|goes_on| (*case, goes_on)));
    for (number, ((fault, sentence, poisoned), goes_on)) in cases.enumerate() {
        let (directory, path) = journal(&format!("fault-{number}"));
        let trace = directory.0.join("trace");
        let options = ["-y", "-o", text(&trace), "-e", "trace=write,fdatasync", "-e", fault];
        let mut server = traced(&path, &options, &["--journal-sync", "always"]);
        let mut live = Stream::subscribe(server.address, "news");
        let mut socket = connect(server.address);
        let mut ids = Vec::new();
        // When it does not go on, it is killed right after the failure.
        for number in 1..=if goes_on { 5 } else { 3 } {
            let answer = publish(&mut socket, &format!("n{number}")).expect("it goes on");
            if number == 3 {
                assert!(answer.starts_with("HTTP/1.1 503 "), "{fault}: {answer}");
                assert!(answer.contains("\r\nRetry-After: "), "{answer}");
                assert!(answer.contains(sentence), "{fault}: {answer}");
                // Subscribers live on.
                assert_eq!(ask(server.address, "GET", "/healthz", &[], "").status, 200);
            } else {
                ids.push(id(&answer));
            }
        }
        let published = if goes_on { &["n1", "n2", "n4", "n5"][..] } else { &["n1", "n2"] };
        let received: Vec<_> = ids.iter().map(|_| live.next().expect("it goes on")).collect();
        assert_eq!(data(&received), published, "{fault}");
        assert_eq!(server.metric("newswire_journal_errors_total"), 1, "{fault}");
        eventually("it is told on standard error", || server.said().contains("the journal"));
        if goes_on {
            assert_eq!(server.metric("newswire_journal_poisoned_total"), poisoned, "{fault}");
        }
        server.kill();
        assert_eq!(segments(&path.join("news")).len(), 1, "{fault}");
        if goes_on && poisoned > 0 {
            assert_is_left_alone(&trace);
        }
        let server = Server::start(&[&OPEN[..], &["--journal", text(&path)]].concat());
        let kept = all(server.address, "news");
        assert_eq!(data(&kept), published, "{fault}");
        assert_eq!(kept.iter().map(|it| &it.last_event_id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    }
}

/// No call on a file reports success after one on it has failed.
fn assert_is_left_alone(trace: &Path) {
    let trace = fs::read_to_string(trace).expect("strace has written it");
    let (before, after) = trace.split_once("(INJECTED)").expect("a call has failed");
    let failed = before.lines().last().expect("it is on a line");
    let (_, file) = failed.split_once('<').expect("it is on a file");
    let file = format!("<{}>", file.split('>').next().unwrap_or_default());
    assert!(file.contains("/news/"), "{failed}");
    assert!(!after.contains(&file), "{file} was used again: {after}");
    assert!(after.contains("/news/"), "another file was used: {after}");
}

#[test]
fn a_sync_at_the_interval_that_fails_is_told_and_the_next_publish_writes_all_into_a_new_segment() {
    if !has_strace() {
        return;
    }
    let (_directory, path) = journal("interval-fault");
    let options = ["-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1"];
    let mut server = traced(&path, &options, &["--journal-sync", "interval"]);
    let mut publisher = Publisher::connect(server.address, "news");
    publisher.publish("one");
    let before = segments(&path.join("news"));
    eventually("the sync fails", || server.metric("newswire_journal_errors_total") == 1);
    eventually("it is told", || server.said().contains("the last second is at risk"));
    assert_eq!(server.metric("newswire_journal_poisoned_total"), 0);
    publisher.publish("two");
    assert_eq!(server.metric("newswire_journal_poisoned_total"), 1);
    let after = segments(&path.join("news"));
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after);
    server.kill();
    assert_eq!(inspect(&path, "news").events, 2);
}

#[test]
fn a_sync_at_the_interval_holds_no_publisher_up_however_long_it_takes() {
    if !has_strace() {
        return;
    }
    let (_directory, path) = journal("interval-slow");
    let slow = "inject=fdatasync:delay_enter=10s";
    let options = ["-o", "/dev/null", "-e", "trace=fdatasync", "-e", slow];
    let server = traced(&path, &options, &["--journal-sync", "interval"]);
    let mut publisher = Publisher::connect(server.address, "news");
    publisher.publish("one");
    let syncs = || server.metric("newswire_journal_syncs_total");
    let so_far = syncs();
    eventually("a sync has begun", || syncs() > so_far);
    let begun = Instant::now();
    for data in ["two", "three"] {
        publisher.publish(data);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// What strace has seen of one thread, when it has seen all.
fn traces(prefix: &Path) -> Vec<String> {
    let (directory, name) = (prefix.parent().expect("it is below"), prefix.file_name());
    let name = name.and_then(|name| name.to_str()).expect("it is UTF-8");
    let mut found = Vec::new();
    eventually("strace has written all", || {
        let entries = fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("it is").path());
        let files = entries.filter(|path| text(path).contains(&format!("/{name}.")));
        found = files.map(|path| fs::read_to_string(path).expect("it is text")).collect();
        !found.is_empty() && found.iter().all(|trace: &String| trace.trim_end().ends_with("+++"))
    });
    found
}

/// The trace of the thread that has answered publishers.
fn trace_of_publisher(prefix: &Path) -> String {
    let mut found: Vec<String> = traces(prefix);
    found.retain(|trace| trace.contains("HTTP/1.1 200") || trace.contains(&hex("HTTP/1.1 200")));
    assert_eq!(found.len(), 1, "one thread has served the one connection");
    found.remove(0)
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

#[test]
fn each_policy_waits_for_the_disk_as_it_promises() {
    if !has_strace() {
        return;
    }
    const EVENTS: usize = 12;
    let run = |sync: &str| {
        let (directory, path) = journal(&format!("policy-{sync}"));
        let trace = directory.0.join("trace");
        let calls = "trace=write,writev,sendto,fsync,fdatasync";
        let options = ["-ff", "-y", "-s", "1000", "-o", text(&trace), "-e", calls];
        // With so short a history, segments come and go.
        let arguments = ["--journal-sync", sync, "--history-bytes", LEAST];
        let mut server = traced(&path, &options, &arguments);
        let mut publisher = Publisher::connect(server.address, "news");
        (0..EVENTS).for_each(|number| drop(publisher.publish(&event(number))));
        let syncs = || server.metric("newswire_journal_syncs_total");
        if sync == "interval" {
            let so_far = syncs();
            eventually("the interval passes", || syncs() > so_far);
        } else {
            thread::sleep(Duration::from_millis(1_200));
        }
        drop(publisher);
        server.kill();
        (traces(&trace).concat(), traces(&trace), directory)
    };
    let (_, threads, _directory) = run("always");
    let publisher = threads.iter().find(|it| it.matches("HTTP/1.1 200").count() == EVENTS);
    let publisher = publisher.expect("one thread has answered all");
    let answers: Vec<&str> = publisher.split("HTTP/1.1 200").collect();
    for (number, before) in answers[..EVENTS].iter().enumerate() {
        let written = before.find(&format!("data: n{number} ")).expect("it is written");
        let synced = before[written..].contains("fdatasync(");
        assert!(synced, "n{number} was answered before it was synced: {before}");
    }
    let (all, _, _directory) = run("interval");
    let syncs = all.matches("fdatasync(").count();
    assert!((1..EVENTS).contains(&syncs), "{syncs} syncs for {EVENTS} events");
    assert!(all.contains("fsync("), "new segments are synced");
    let (all, _, _directory) = run("never");
    assert_eq!(all.matches("sync(").count(), 0, "{all}");
}

#[test]
fn publishers_at_the_same_time_wait_for_one_sync_together() {
    if !has_strace() {
        return;
    }
    const PUBLISHERS: usize = 16;
    let (_directory, path) = journal("group");
    // A slow disk: 30 ms a sync.
    let options = ["-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=30000"];
    let server = traced(&path, &options, &["--journal-sync", "always"]);
    let address = server.address;
    thread::scope(|scope| {
        for _ in 0..PUBLISHERS {
            scope.spawn(move || {
                let mut publisher = Publisher::connect(address, "news");
                (0..10).for_each(|number| drop(publisher.publish(&format!("{number}"))));
            });
        }
    });
    let syncs = server.metric("newswire_journal_syncs_total");
    assert!(syncs < 10 * PUBLISHERS as u64 / 2, "{syncs} syncs");
    assert!(syncs >= 10, "each publisher has waited ten times");
}

/// So many of these events are a history of the least size, and fill a segment.
const HISTORY: usize = 3;
const LEAST: &str = "1024";

fn event(number: usize) -> String {
    format!("n{number} {}", "x".repeat(300))
}

fn short() -> Limits {
    Limits { history_bytes: 1024, ..Limits::default() }
}

/// These were acknowledged, and perhaps one more was written. The journal has the last of them.
fn assert_has(path: &Path, ids: &[String], what: &str) {
    let channels = open(path, short(), JournalSync::Never);
    let found = channels.find("news").map(|channel| channel.summary());
    channels.stop();
    drop(channels);
    let Some(found) = found else {
        assert!(ids.is_empty(), "{what}: nothing is left of {ids:?}");
        return;
    };
    let last = found.last_id.as_ref();
    let is_one_more = last.is_some_and(|last| !ids.contains(last));
    if !is_one_more {
        assert_eq!(last, ids.last(), "{what}");
    }
    let events = (ids.len() + usize::from(is_one_more)).min(HISTORY);
    assert_eq!(found.events, events, "{what}: {found:?} of {ids:?}");
    if events > usize::from(is_one_more) {
        let first = &ids[ids.len() + usize::from(is_one_more) - events];
        assert_eq!(found.first_id.as_ref(), Some(first), "{what}");
    }
    assert!(segments(&path.join("news")).len() <= 3, "{what}");
}

#[test]
fn a_server_that_is_killed_at_any_call_on_the_disk_recovers_what_it_has_acknowledged() {
    if !has_strace() {
        return;
    }
    let calls = [
        // The first write of the main thread is the greeting, without which the test does not go on.
        ("write", 2..=11),
        ("fdatasync", 1..=8),
        ("fsync", 1..=7),
        ("/^rename", 1..=3),
        ("/^unlink", 1..=5),
        ("/^mkdir", 1..=1),
    ];
    let moments = calls.iter().flat_map(|(call, moments)| moments.clone().map(move |at| (*call, at)));
    let mut kills = 0;
    for (call, at) in moments {
        let (_directory, path) = journal(&format!("killed-{}-{at}", call.trim_start_matches("/^")));
        fs::create_dir(&path).expect("it can be made");
        let fault = format!("inject={call}:signal=KILL:when={at}");
        let options = ["-o", "/dev/null", "-e", &fault];
        let arguments = ["--journal-sync", "always", "--history-bytes", LEAST];
        let server = traced(&path, &options, &arguments);
        let (mut socket, mut ids) = (connect(server.address), Vec::new());
        for number in 0..8 {
            let Some(answer) = publish(&mut socket, &event(number)) else {
                kills += 1;
                break;
            };
            ids.push(id(&answer));
        }
        drop(server);
        assert_has(&path, &ids, &format!("{call} {at}"));
    }
    assert!(kills >= 30, "only {kills} were killed at a call");
}

/// A disk that forgets what was not synced, put together from the calls of a server.
#[derive(Default)]
struct Disk {
    files: Vec<File>,
    /// The names in each directory, and what they were since the last sync of the directory: none of these, or all up to
    /// one of them, are left by a loss of power.
    names: BTreeMap<String, Vec<BTreeMap<String, usize>>>,
    open: HashMap<String, Handle>,
}

#[derive(Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
}

enum Handle {
    File(usize),
    Directory(String),
}

fn split(path: &str) -> (String, String) {
    let (directory, name) = path.rsplit_once('/').expect("it is absolute");
    (directory.to_owned(), name.to_owned())
}

impl Disk {
    fn change(&mut self, path: &str, change: impl FnOnce(&mut BTreeMap<String, usize>, String) -> Option<usize>) {
        let (directory, name) = split(path);
        let states = self.names.entry(directory).or_insert_with(|| vec![BTreeMap::new()]);
        let mut names = states.last().expect("there is one").clone();
        change(&mut names, name);
        states.push(names);
    }

    fn find(&self, path: &str) -> Option<usize> {
        let (directory, name) = split(path);
        self.names.get(&directory)?.last()?.get(&name).copied()
    }

    /// Takes a line of strace.
    fn take(&mut self, line: &str) {
        let Some((call, rest)) = line.split_once('(') else { return };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { return };
        if result.starts_with('-') {
            return;
        }
        let texts: Vec<Vec<u8>> = arguments.split('"').skip(1).step_by(2).map(unhex).collect();
        let path = |at: usize| String::from_utf8(texts[at].clone()).expect("it is UTF-8");
        let handle = arguments.split([',', ')']).next().unwrap_or_default().to_owned();
        match call {
            "openat" if arguments.contains("O_CREAT") => {
                self.files.push(File::default());
                let file = self.files.len() - 1;
                self.change(&path(0), |names, name| names.insert(name, file));
                self.open.insert(result.to_owned(), Handle::File(file));
            }
            "openat" => {
                let found = self.find(&path(0)).filter(|file| *file != usize::MAX);
                let handle = found.map_or_else(|| Handle::Directory(path(0)), Handle::File);
                self.open.insert(result.to_owned(), handle);
            }
            "ftruncate" => {
                if let Some(Handle::File(file)) = self.open.get(&handle) {
                    let length = arguments.trim_end_matches([')', ' ']).split(", ").nth(1);
                    let length = length.and_then(|text| text.parse().ok());
                    self.files[*file].now.truncate(length.expect("it is a number"));
                }
            }
            "close" => drop(self.open.remove(&handle)),
            "write" => {
                if let Some(Handle::File(file)) = self.open.get(&handle) {
                    self.files[*file].now.extend_from_slice(&texts[0]);
                }
            }
            "fsync" | "fdatasync" => match self.open.get(&handle) {
                Some(Handle::File(file)) => self.files[*file].synced = self.files[*file].now.clone(),
                Some(Handle::Directory(path)) => {
                    let states = self.names.get_mut(path).expect("it has had names");
                    states.drain(..states.len() - 1);
                }
                None => panic!("it is not open: {line}"),
            },
            "mkdir" => self.change(&path(0), |names, name| names.insert(name, usize::MAX)),
            "rename" => {
                let file = self.find(&path(0)).expect("it is there");
                let (from, to) = (split(&path(0)).1, path(1));
                self.change(&to, |names, name| {
                    names.remove(&from);
                    names.insert(name, file)
                });
            }
            "unlink" => self.change(&path(0), |names, name| names.remove(&name)),
            _ => {}
        }
    }

    /// What a loss of power may leave, below `to`; `choose` gives a number up to another one.
    fn lose_power(&self, from: &str, to: &Path, choose: &mut impl FnMut(usize) -> usize) {
        fs::create_dir_all(to).expect("it can be made");
        let Some(states) = self.names.get(from) else { return };
        for (name, &file) in &states[choose(states.len() - 1)] {
            if file == usize::MAX {
                self.lose_power(&format!("{from}/{name}"), &to.join(name), choose);
                continue;
            }
            let File { now, synced } = &self.files[file];
            assert!(now.starts_with(synced), "what was synced is never changed");
            let length = synced.len() + choose(now.len() - synced.len());
            fs::write(to.join(name), &now[..length]).expect("it can be written");
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1);
    digits.map(|digits| u8::from_str_radix(digits, 16).expect("strace writes hexadecimal")).collect()
}

#[test]
fn what_was_acknowledged_with_always_survives_a_loss_of_power_at_any_moment() {
    if !has_strace() {
        return;
    }
    let (directory, path) = journal("power");
    fs::create_dir(&path).expect("it can be made");
    let trace = directory.0.join("trace");
    let calls = "trace=openat,close,write,writev,sendto,fsync,fdatasync,ftruncate,/^rename,/^unlink,/^mkdir";
    // One sync fails, so that one segment is given up.
    let fault = "inject=fdatasync:error=EIO:when=6";
    let options = ["-ff", "-xx", "-s", "100000", "-o", text(&trace), "-e", calls, "-e", fault];
    let arguments = ["--journal-sync", "always", "--history-bytes", LEAST];
    let mut server = traced(&path, &options, &arguments);
    let mut socket = connect(server.address);
    let answers = (0..10).map(|number| publish(&mut socket, &event(number)));
    let answers: Vec<String> = answers.map(|answer| answer.expect("it goes on")).collect();
    let accepted = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200"));
    let ids: Vec<String> = accepted.map(|answer| id(answer)).collect();
    assert_eq!(ids.len(), 9);
    server.kill();
    let (mut disk, mut acknowledged, mut images) = (Disk::default(), 0, 0);
    let mut dice = Dice::new(3);
    for line in trace_of_publisher(&trace).lines() {
        disk.take(line);
        acknowledged += usize::from(line.contains(&hex("HTTP/1.1 200")));
        // Nothing that was not synced is left, all of it is, or any part.
        for kind in 0..4 {
            let image = directory.0.join(format!("image-{images}"));
            images += 1;
            let mut choose = |most: usize| match kind {
                0 => 0,
                1 => most,
                _ => dice.below(most + 1),
            };
            disk.lose_power(text(&path), &image, &mut choose);
            assert_has(&image, &ids[..acknowledged], &format!("power was lost after {line:.200}"));
            fs::remove_dir_all(image).expect("it is ours");
        }
    }
    assert_eq!(acknowledged, ids.len());
}

/// A disk of 1 MiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(directory: &Directory) -> Option<SmallDisk> {
        let path = directory.0.join("disk");
        fs::create_dir(&path).expect("it can be made");
        let mut command = Command::new("mount");
        let options = ["-t", "tmpfs", "-o", "size=1m", "newswire-test"];
        let mounted = command.args(options).arg(&path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(path)),
            _ => {
                is_missing("a small disk cannot be mounted, which takes root");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn while_the_disk_is_full_publishers_are_told_503_and_when_it_is_free_again_all_goes_on() {
    let directory = Directory::new("journal-full");
    let Some(disk) = SmallDisk::mount(&directory) else { return };
    let path = disk.0.join("journal");
    let arguments = ["--journal", text(&path), "--journal-sync", "always", "--history-bytes", "200000"];
    let mut server = Server::start(&[&OPEN[..], &arguments].concat());
    let mut live = Stream::subscribe(server.address, "news");
    let publish = |size: usize, byte: &str| {
        ask(server.address, "POST", "/channels/news", &[("Accept", "text/plain")], byte.repeat(size))
    };
    assert_eq!(publish(50_000, "a").status, 200);
    // All but 100 kB of what is left.
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![0; 850_000]).expect("there is room");
    let mut refused = 0;
    for _ in 0..5 {
        let answer = publish(90_000, "b");
        if answer.status == 503 {
            refused += 1;
            assert!(answer.field("retry-after").is_some(), "{answer:?}");
            assert!(answer.text().contains("has not kept it"), "{answer:?}");
        }
    }
    assert!(refused >= 3, "the disk is full");
    let [segment] = &segments(&path.join("news"))[..] else { panic!("there is one segment") };
    // Nothing is left of what was refused.
    let bytes = fs::read(segment).expect("it is there");
    assert!(bytes.ends_with(b"\n\n"), "{} bytes, and a part of an event", bytes.len());
    // What is small still finds room.
    fs::remove_file(&ballast).expect("it is ours");
    let accepted = 5 - refused;
    assert_eq!(publish(60_000, "c").status, 200);
    let mut received = vec!["a".repeat(50_000)];
    received.extend(vec!["b".repeat(90_000); accepted]);
    received.push("c".repeat(60_000));
    for expected in received {
        assert_eq!(live.next().map(|message| message.data), Some(expected));
    }
    assert_eq!(server.metric("newswire_journal_errors_total"), refused as u64);
    assert_eq!(server.metric("newswire_journal_poisoned_total"), 0, "a full disk does no harm");
    server.kill();
    let found = inspect(&path, "news");
    assert_eq!((found.events, found.torn_bytes), (2 + accepted, 0));
}

#[test]
fn a_journal_on_a_disk_that_is_mounted_read_only_is_refused() {
    let directory = Directory::new("journal-read-only");
    let Some(disk) = SmallDisk::mount(&directory) else { return };
    let path = disk.0.join("journal");
    open(&path, Limits::default(), JournalSync::Never).stop();
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status();
    assert!(remounted.expect("it runs").success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_newswire"));
    let output = command.args(["--listen", "127.0.0.1:0", "--journal", text(&path)]).output();
    let output = output.expect("the binary under test starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to the journal"));
}
