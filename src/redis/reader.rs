//! The one thread that reads streams, on one connection.
//!
//! Redis pushes the key of each stream that changes (`CLIENT TRACKING ON BCAST`). A push only wakes; what is read is the
//! truth. A read begins with the last entry that is held: if Redis does not have that entry any more, entries after it
//! may be lost, too, and the stream is loaded anew. So a stream that was trimmed too far, deleted, or cut off by a
//! failover is noticed at the first read, and a new connection needs no other check.

use super::entry::{Bounds, Entry, Page, Read, Unfit};
use super::link::{Connection, Options, back_off};
use super::link::{check_role, is_of_no_master, is_refusal, refused};
use super::resp::{Reply, encode, malformed};
use super::shared::{EMPTY, Followed, Redis};
use crate::http::lock::hold;
use std::io;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Entries that are read with one command.
const PAGE: usize = 256;

/// Streams that are read with one write.
const STREAMS: usize = 64;

/// How often Redis is asked whether it is still a master, and which streams have changed: a push that is lost costs so
/// long, and no event.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Redis {
    /// Connects once, to find out now what would fail each time. A server that cannot be reached may come later.
    ///
    /// # Errors
    /// When Redis refuses what this server needs.
    pub(crate) fn open(options: Options, bounds: Bounds) -> io::Result<Arc<Redis>> {
        let redis = Arc::new(Redis::new(options, bounds));
        match redis.connect() {
            Err(error) if is_refusal(&error) => {
                let sentence = format!("cannot use Redis at {}: {error}", redis.options.address);
                Err(io::Error::new(error.kind(), sentence))
            }
            _ => Ok(redis),
        }
    }

    /// Starts the thread that reads.
    pub(crate) fn start(self: &Arc<Redis>) -> io::Result<JoinHandle<()>> {
        let redis = Arc::clone(self);
        thread::Builder::new().name("redis".into()).spawn(move || run(&redis))
    }

    fn connect(&self) -> io::Result<Connection> {
        let tracking = ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", &self.options.prefix];
        Connection::open(&self.options, self.bounds.bytes, &[&tracking])
    }
}

fn run(redis: &Redis) {
    let (mut number, mut attempts) = (0, 0);
    loop {
        let outcome = redis.connect().and_then(|connection| {
            number += 1;
            redis.say("connected".into());
            redis.begin_session(number, connection.address, &connection.socket);
            let started = Instant::now();
            let outcome = Reader { redis, connection, number, next_look: started }.run();
            if started.elapsed() > LOOK_INTERVAL {
                attempts = 0;
            }
            outcome
        });
        redis.end_session();
        if let Err(error) = outcome {
            redis.report(&error);
        }
        if !redis.pause(back_off(attempts)) {
            return;
        }
        attempts += 1;
    }
}

struct Reader<'r> {
    redis: &'r Redis,
    connection: Connection,
    number: u64,
    next_look: Instant,
}

/// A stream that is to be read, as it was when it was taken out.
type Due = (Arc<str>, Followed);

impl Reader<'_> {
    /// Reads until the connection fails, or the channels are stopped.
    fn run(&mut self) -> io::Result<()> {
        loop {
            if Instant::now() >= self.next_look {
                self.look()?;
                self.next_look = Instant::now() + LOOK_INTERVAL;
            }
            let due = {
                let shared = &mut *hold(&self.redis.shared);
                if shared.is_stopped {
                    return Ok(());
                }
                shared.take_due(STREAMS)
            };
            if due.is_empty() { self.rest()? } else { self.read(due)? }
        }
    }

    /// Sleeps until Redis pushes something, a thread needs something, or it is time to look.
    fn rest(&mut self) -> io::Result<()> {
        {
            let shared = &mut *hold(&self.redis.shared);
            if !shared.due.is_empty() || shared.is_stopped {
                return Ok(());
            }
            shared.asleep = Some(Arc::clone(&self.connection.socket));
        }
        let waited = self.connection.wait_until(self.next_look);
        // The thread that has taken the socket writes a PING. A command of this thread could mix with it, up to its reply.
        let mut awaits_pong = hold(&self.redis.shared).asleep.take().is_none();
        waited?;
        while awaits_pong || self.connection.has_unread() {
            match self.connection.reply()? {
                Reply::Push(push) => self.take_push(&push),
                Reply::Text(text) if awaits_pong && text == b"PONG" => awaits_pong = false,
                _ => return Err(malformed()),
            }
        }
        Ok(())
    }

    /// `invalidate` with the keys that have changed, or with null for all of them.
    fn take_push(&self, push: &[Reply]) {
        let shared = &mut *hold(&self.redis.shared);
        match push {
            [Reply::Text(kind), _] if kind != b"invalidate" => {}
            [_, Reply::List(keys)] => shared.mark_due(keys.iter()),
            _ => shared.mark_all_due(),
        }
    }

    /// The next reply to a command.
    fn reply(&mut self) -> io::Result<Reply> {
        loop {
            match self.connection.reply()? {
                Reply::Push(push) => self.take_push(&push),
                // This server cannot serve any stream now.
                Reply::Error(said) if is_of_no_master(&said) => return Err(refused(&said)),
                reply => return Ok(reply),
            }
        }
    }

    /// Asks whether the server is still a master, and which streams have entries that were not read.
    fn look(&mut self) -> io::Result<()> {
        let warm = self.redis.retire_unwanted();
        let mut wire = Vec::new();
        encode(&["HELLO"], &mut wire);
        for some in warm.chunks(PAGE) {
            let keys = some.iter().map(|(key, _)| &**key);
            let lasts = some.iter().map(|(_, last)| last.as_str());
            let read = ["XREAD", "COUNT", "1", "STREAMS"].into_iter().chain(keys).chain(lasts);
            encode(&read.collect::<Vec<_>>(), &mut wire);
        }
        self.connection.send(&wire)?;
        check_role(&self.reply()?)?;
        for _ in warm.chunks(PAGE) {
            // Null when there is nothing new.
            if let Reply::List(streams) = self.reply()? {
                hold(&self.redis.shared).mark_due(streams.iter().step_by(2));
            }
        }
        Ok(())
    }

    fn read(&mut self, due: Vec<Due>) -> io::Result<()> {
        let is_begun = |(_, it): &Due| it.last.as_ref().is_some_and(|last| last != EMPTY);
        let (going_on, mut loading): (Vec<_>, Vec<_>) = due.into_iter().partition(is_begun);
        let mut wire = Vec::new();
        let count = (PAGE + 1).to_string();
        for (key, followed) in &going_on {
            let last = followed.last.as_deref().unwrap_or_default();
            encode(&["XRANGE", key, last, "+", "COUNT", &count], &mut wire);
        }
        self.connection.send(&wire)?;
        for due in going_on {
            let reply = self.reply()?;
            if !self.go_on(&due, reply)? {
                loading.push(due);
            }
        }
        loading.into_iter().try_for_each(|due| self.load(due))
    }

    /// Appends what follows the last entry. `false` when that entry is not there, or something after it cannot be held.
    fn go_on(&mut self, due: &Due, reply: Reply) -> io::Result<bool> {
        let Some(Page { entries, is_cut }) = self.page(reply)? else { return Ok(false) };
        let mut has_more = is_cut || entries.len() > PAGE;
        let mut entries = entries.into_iter();
        let mut last = entries.next().map(|first| first.id);
        if last != due.1.last {
            return Ok(false);
        }
        let mut appended = Vec::new();
        for next in entries {
            match next.entry {
                Ok(entry) => appended.push(entry),
                Err(Unfit::NoEvent) => self.skipped(),
                // The next read loads anew.
                Err(Unfit::TooLarge) => {
                    has_more = true;
                    break;
                }
            }
            last = Some(next.id);
        }
        if has_more && last == due.1.last {
            return Ok(false);
        }
        if let Some(mirror) = due.1.mirror.upgrade().filter(|_| !appended.is_empty()) {
            mirror.extend(appended);
        }
        self.finish(due, last, has_more);
        Ok(true)
    }

    /// Counts an entry that no channel can hold.
    fn skipped(&self) {
        hold(&self.redis.shared).counted.skipped += 1;
    }

    /// Reads the newest entries that can be held, from the end of the stream.
    fn load(&mut self, due: Due) -> io::Result<()> {
        let (key, Followed { mirror, last: had, .. }) = &due;
        // A key that holds something else is no stream, and no channel.
        let loaded = self.load_newest(key)?;
        let is_stream = loaded.is_some();
        let Loaded { mut entries, last, forgotten } = loaded.unwrap_or_default();
        entries.reverse();
        if let Some(mirror) = mirror.upgrade() {
            // Nothing is missing between an empty stream and its first entry.
            if is_stream && had.as_deref() == Some(EMPTY) && forgotten.is_none() {
                mirror.extend(entries);
            } else {
                hold(&self.redis.shared).counted.resets += u64::from(had.is_some());
                mirror.replace(entries, forgotten.as_deref());
            }
        }
        self.finish(&due, is_stream.then(|| last.unwrap_or_else(|| EMPTY.into())), false);
        Ok(())
    }

    fn load_newest(&mut self, key: &str) -> io::Result<Option<Loaded>> {
        let bounds = self.redis.bounds;
        let (mut loaded, mut bytes, mut end) = (Loaded::default(), 0, "+".to_owned());
        loop {
            let mut wire = Vec::new();
            encode(&["XREVRANGE", key, &end, "-", "COUNT", &PAGE.to_string()], &mut wire);
            self.connection.send(&wire)?;
            let reply = self.reply()?;
            let Some(Page { entries, is_cut }) = self.page(reply)? else { return Ok(None) };
            let is_last = !is_cut && entries.len() < PAGE;
            for next in entries {
                end = format!("({}", next.id);
                loaded.last.get_or_insert_with(|| next.id.clone());
                match next.entry {
                    Ok(entry) if loaded.entries.len() < bounds.events && bytes + entry.size() <= bounds.bytes => {
                        bytes += entry.size();
                        loaded.entries.push(entry);
                    }
                    Err(Unfit::NoEvent) => {}
                    unheld => {
                        if unheld.is_err() {
                            self.skipped();
                        }
                        loaded.forgotten = Some(next.id);
                        return Ok(Some(loaded));
                    }
                }
            }
            if is_last {
                return Ok(Some(loaded));
            }
        }
    }

    /// The entries of a reply; `None` when Redis gave an error in their place. Publishers learn of the tokens in it.
    fn page(&self, reply: Reply) -> io::Result<Option<Page>> {
        let values = match reply {
            Reply::List(values) => values,
            Reply::Error(said) => {
                self.redis.report(&refused(&said));
                return Ok(None);
            }
            _ => return Err(malformed()),
        };
        let page = Page::read(&values, &self.redis.bounds).ok_or_else(malformed)?;
        let shared = &mut *hold(&self.redis.shared);
        for Read { id, token, .. } in &page.entries {
            if let Some(met) = token.as_ref().and_then(|token| shared.awaited.get_mut(token)) {
                *met = Some(id.clone());
            }
        }
        Ok(Some(page))
    }

    /// Answers what was asked for before the read. `last` is `None` when the stream could not be read.
    fn finish(&self, (key, due): &Due, last: Option<String>, has_more: bool) {
        let shared = &mut *hold(&self.redis.shared);
        let Some(followed) = shared.streams.get_mut(key) else { return };
        if !Weak::ptr_eq(&followed.mirror, &due.mirror) {
            return;
        }
        followed.last = last;
        followed.session = self.number;
        if has_more {
            shared.due.insert(Arc::clone(key));
        } else {
            followed.answered = due.asked;
        }
        self.redis.changed.notify_all();
    }
}

/// The newest entries of a stream, the newest first.
#[derive(Default)]
struct Loaded {
    entries: Vec<Entry>,
    /// The newest of all entries, also of those that are no event; `None` when the stream is empty.
    last: Option<String>,
    /// The newest entry that is not held, if any.
    forgotten: Option<String>,
}
