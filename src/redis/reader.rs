//! The one thread that reads streams, on one connection.
//!
//! Redis pushes the key of each stream that changes (`CLIENT TRACKING ON BCAST`). A push only wakes; what is read is the
//! truth. A read begins with the last entry that is held: if Redis does not have that entry any more, entries behind it
//! may be lost, too, and the stream is loaded anew. So a stream that was trimmed too far, deleted, or cut off by a
//! failover is noticed at the first read, and a new connection needs no other check.

use super::entry::{Bounds, Entry, Found, Mirror, read};
use super::link::{
    BackOff, Connection, check_role, is_of_no_master, is_refusal, malformed, refused,
};
use super::resp::{Reply, encode};
use super::stream::{Followed, Redis};
use crate::http::lock::hold;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
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
    pub(crate) fn open(options: super::Options, bounds: Bounds) -> io::Result<Arc<Redis>> {
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
        let prefix = self.options.prefix.as_bytes();
        let tracking: &[&[u8]] = &[b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", prefix];
        Connection::open(&self.options, self.bounds.bytes, &[tracking])
    }
}

fn run(redis: &Redis) {
    let mut back_off = BackOff::default();
    let mut number = 0;
    loop {
        let outcome = redis.connect().and_then(|connection| {
            number += 1;
            redis.say("connected".into());
            redis.counters.reconnects.fetch_add(u64::from(number > 1), Relaxed);
            redis.begin_session(number, connection.address, &connection.socket);
            let started = Instant::now();
            let outcome = Reader { redis, connection, number, next_look: started }.run();
            if started.elapsed() > LOOK_INTERVAL {
                back_off = BackOff::default();
            }
            outcome
        });
        redis.end_session();
        if let Err(error) = outcome {
            redis.report(&error);
        }
        if !redis.pause(back_off.next()) {
            return;
        }
    }
}

struct Reader<'r> {
    redis: &'r Redis,
    connection: Connection,
    number: u64,
    next_look: Instant,
}

/// A stream that is to be read.
struct Due {
    key: Arc<str>,
    mirror: Weak<dyn Mirror>,
    is_warm: bool,
    last: Option<String>,
    asked: u64,
}

/// What a page of entries holds, oldest or newest first as it was asked for.
struct Page {
    entries: Vec<(String, Found)>,
    /// Entries may follow.
    is_full: bool,
}

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
                let keys: Vec<_> = shared.due.iter().take(STREAMS).cloned().collect();
                keys.iter()
                    .filter_map(|key| {
                        shared.due.remove(key);
                        let Followed { mirror, is_warm, last, asked, .. } =
                            shared.streams.get(key)?;
                        let (mirror, last) = (Weak::clone(mirror), last.clone());
                        Some(Due {
                            key: Arc::clone(key),
                            mirror,
                            is_warm: *is_warm,
                            last,
                            asked: *asked,
                        })
                    })
                    .collect::<Vec<_>>()
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
        let reply = self.connection.reply_before(self.next_look);
        // What has taken the socket writes a PING. Until its reply is here, a command of this thread could mix with it.
        let mut awaits_pong = hold(&self.redis.shared).asleep.take().is_none();
        if let Some(reply) = reply? {
            awaits_pong &= !self.take_unasked(reply)?;
        }
        while awaits_pong {
            let reply = self.connection.reply()?;
            awaits_pong = !self.take_unasked(reply)?;
        }
        while self.connection.has_unread()
            && let Some(reply) = self.connection.reply_before(Instant::now())?
        {
            self.take_unasked(reply)?;
        }
        Ok(())
    }

    /// Takes a push. `true` for the reply to a PING.
    fn take_unasked(&mut self, reply: Reply) -> io::Result<bool> {
        match reply {
            Reply::Push(push) => self.take_push(&push).map(|()| false),
            Reply::Text(text) if text == b"PONG" => Ok(true),
            _ => Err(malformed()),
        }
    }

    /// `invalidate` with the keys that have changed, or with null for all of them.
    fn take_push(&mut self, push: &[Reply]) -> io::Result<()> {
        if push.first() != Some(&Reply::Text(b"invalidate".into())) {
            return Ok(());
        }
        let shared = &mut *hold(&self.redis.shared);
        match push.get(1) {
            Some(Reply::List(keys)) => {
                let keys = keys.iter().filter_map(text);
                shared.due.extend(
                    keys.filter_map(|key| Some(Arc::clone(shared.streams.get_key_value(key)?.0))),
                );
            }
            _ => shared.due = shared.streams.keys().cloned().collect(),
        }
        Ok(())
    }

    /// The next reply to a command.
    fn reply(&mut self) -> io::Result<Reply> {
        loop {
            match self.connection.reply()? {
                Reply::Push(push) => self.take_push(&push)?,
                // This server cannot serve any stream now.
                Reply::Error(said) if is_of_no_master(&said) => return Err(refused(&said)),
                reply => return Ok(reply),
            }
        }
    }

    /// Asks whether the server is still a master, and which streams have entries that were not read.
    fn look(&mut self) -> io::Result<()> {
        // A mirror must not be dropped under the lock.
        let (mut unasked, mut unwanted, mut warm) = (Vec::new(), Vec::new(), Vec::new());
        hold(&self.redis.shared).streams.retain(|key, followed| {
            if followed.is_unasked() {
                let mirror = followed.mirror.upgrade();
                if mirror.as_ref().is_none_or(|mirror| mirror.subscribers() == 0) {
                    unwanted.extend(mirror);
                    return false;
                }
                unasked.extend(mirror);
            }
            if followed.is_warm {
                warm.push((Arc::clone(key), followed.last.clone().unwrap_or("0-0".into())));
            }
            true
        });
        drop(unasked);
        unwanted.into_iter().for_each(|mirror| mirror.retire());
        let mut wire = Vec::new();
        encode(&[b"HELLO"], &mut wire);
        for some in warm.chunks(PAGE) {
            let keys = some.iter().map(|(key, _)| key.as_bytes());
            let lasts = some.iter().map(|(_, last)| last.as_bytes());
            let command: [&[u8]; 4] = [b"XREAD", b"COUNT", b"1", b"STREAMS"];
            encode(&command.into_iter().chain(keys).chain(lasts).collect::<Vec<_>>(), &mut wire);
        }
        self.connection.send(&wire)?;
        check_role(&self.reply()?)?;
        for _ in warm.chunks(PAGE) {
            let Reply::List(streams) = self.reply()? else { continue };
            let shared = &mut *hold(&self.redis.shared);
            let keys = streams.chunks(2).filter_map(|stream| text(&stream[0]));
            shared.due.extend(
                keys.filter_map(|key| Some(Arc::clone(shared.streams.get_key_value(key)?.0))),
            );
        }
        Ok(())
    }

    fn read(&mut self, due: Vec<Due>) -> io::Result<()> {
        let (going_on, mut loading): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|due| due.is_warm && due.last.is_some());
        let mut wire = Vec::new();
        for due in &going_on {
            let last = due.last.as_deref().unwrap_or_default().as_bytes();
            let count = (PAGE + 1).to_string();
            encode(
                &[b"XRANGE", due.key.as_bytes(), last, b"+", b"COUNT", count.as_bytes()],
                &mut wire,
            );
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

    /// Appends what follows the last entry. `false` when that entry is not there, or something behind it cannot be held.
    fn go_on(&mut self, due: &Due, reply: Reply) -> io::Result<bool> {
        let Ok(Page { entries, is_full }) = self.page(reply, PAGE + 1)? else { return Ok(false) };
        let mut found = entries.into_iter();
        let first = found.next().map(|(id, _)| id);
        if first != due.last {
            return Ok(false);
        }
        let (mut appended, mut last, mut has_more) = (Vec::new(), first, is_full);
        for (nth, (id, found)) in found.enumerate() {
            match found {
                Found::Entry(entry) => appended.push(entry),
                Found::Nothing => drop(self.redis.counters.skipped.fetch_add(1, Relaxed)),
                Found::Hole if nth == 0 => return Ok(false),
                // The next read begins here.
                Found::Hole => {
                    has_more = true;
                    break;
                }
            }
            last = Some(id);
        }
        if has_more && last == due.last {
            return Ok(false);
        }
        if let Some(mirror) = due.mirror.upgrade().filter(|_| !appended.is_empty()) {
            mirror.extend(appended);
        }
        self.finish(due, Some(last), has_more);
        Ok(true)
    }

    /// Reads the newest entries that can be held, from the end of the stream.
    fn load(&mut self, due: Due) -> io::Result<()> {
        let Bounds { events: most_events, bytes: most_bytes, .. } = self.redis.bounds;
        let (mut kept, mut events, mut bytes) = (Vec::<Entry>::new(), 0, 0);
        let (mut last, mut forgotten, mut end) = (None, None, "+".to_owned());
        'pages: loop {
            let (mut wire, count) = (Vec::new(), PAGE.to_string());
            encode(
                &[
                    b"XREVRANGE",
                    due.key.as_bytes(),
                    end.as_bytes(),
                    b"-",
                    b"COUNT",
                    count.as_bytes(),
                ],
                &mut wire,
            );
            self.connection.send(&wire)?;
            let reply = self.reply()?;
            let Ok(Page { entries, is_full }) = self.page(reply, PAGE)? else {
                // The key holds something else. That is no stream, and no channel.
                if let Some(mirror) = due.mirror.upgrade() {
                    mirror.replace(Vec::new(), None);
                }
                self.finish(&due, None, false);
                return Ok(());
            };
            for (nth, (id, found)) in entries.into_iter().enumerate() {
                match found {
                    // What was cut off for the size of the page comes first in the next one.
                    Found::Hole if nth > 0 && is_full => continue 'pages,
                    Found::Hole => {
                        self.redis.counters.skipped.fetch_add(1, Relaxed);
                        forgotten = Some(id.clone());
                    }
                    Found::Nothing => {}
                    Found::Entry(entry) => {
                        events += usize::from(entry.size() > 0);
                        bytes += entry.size();
                        if events > most_events || bytes > most_bytes {
                            forgotten = Some(id.clone());
                        } else {
                            kept.push(entry);
                        }
                    }
                }
                last.get_or_insert_with(|| id.clone());
                if forgotten.is_some() {
                    break 'pages;
                }
                end = format!("({id}");
            }
            if !is_full {
                break;
            }
        }
        kept.reverse();
        if let Some(mirror) = due.mirror.upgrade() {
            // Nothing can be missing between an empty stream and its first entry.
            if due.is_warm && due.last.is_none() && forgotten.is_none() {
                mirror.extend(kept);
            } else {
                self.redis.counters.resets.fetch_add(u64::from(due.is_warm), Relaxed);
                mirror.replace(kept, forgotten.as_deref());
            }
        }
        self.finish(&due, Some(last), false);
        Ok(())
    }

    /// The entries of a reply; the error that Redis gave in its place. Tells publishers of the tokens that it meets.
    fn page(&mut self, reply: Reply, count: usize) -> io::Result<Result<Page, ()>> {
        let values = match reply {
            Reply::List(values) => values,
            Reply::Error(said) => {
                self.redis.report(&refused(&said));
                return Ok(Err(()));
            }
            _ => return Err(malformed()),
        };
        let mut is_full = values.len() >= count;
        let (mut entries, mut met) = (Vec::new(), Vec::new());
        for value in &values {
            if *value == Reply::Dropped {
                is_full = true;
                break;
            }
            let (id, found, token) = read(value, &self.redis.bounds).ok_or_else(malformed)?;
            is_full |= matches!(found, Found::Hole);
            if let Some(token) = token.filter(|token| self.redis.is_own(token)) {
                met.push((token, id.clone()));
            }
            entries.push((id, found));
        }
        if !met.is_empty() {
            let shared = &mut *hold(&self.redis.shared);
            for (token, id) in met {
                if let Some(awaited) = shared.awaited.get_mut(&token) {
                    *awaited = Some(id);
                }
            }
        }
        Ok(Ok(Page { entries, is_full }))
    }

    /// Answers what was asked for before the read. `last` is `None` when the stream could not be read.
    fn finish(&mut self, due: &Due, last: Option<Option<String>>, has_more: bool) {
        let shared = &mut *hold(&self.redis.shared);
        let Some(followed) = shared.streams.get_mut(&due.key) else { return };
        if !Weak::ptr_eq(&followed.mirror, &due.mirror) {
            return;
        }
        followed.is_warm = last.is_some();
        followed.last = last.flatten();
        followed.session = self.number;
        if has_more {
            shared.due.insert(Arc::clone(&due.key));
        } else {
            followed.answered = due.asked;
        }
        self.redis.notify();
    }
}

fn text(reply: &Reply) -> Option<&str> {
    if let Reply::Text(text) = reply { str::from_utf8(text).ok() } else { None }
}
