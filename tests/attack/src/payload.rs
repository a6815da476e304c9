//! Events that can be recognized: the publisher, the number, and whether the event is whole.

use crate::client::Event;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

/// Which event of which publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Payload {
    pub publisher: u32,
    pub number: u32,
}

/// An event's id, in the order that ids have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    ms: u64,
    n: u32,
}

impl Payload {
    /// The type that it is published with, which its number tells.
    fn event_type(self) -> Option<&'static str> {
        self.number.is_multiple_of(2).then_some("weather")
    }

    /// What stands behind the channel in the target that it is published to.
    pub fn query(self) -> String {
        let of_type = |event_type| format!("?event={event_type}");
        self.event_type().map(of_type).unwrap_or_default()
    }

    /// `PUBLISHER NUMBER CHECK FILLER`, of about `bytes` bytes in as many lines.
    pub fn write(self, bytes: usize, lines: usize) -> String {
        let mut random = fastrand::Rng::with_seed(u64::from(self.publisher) << 32 | u64::from(self.number));
        let mut filler: String = (0..bytes).map(|_| random.char('!'..='~')).collect();
        for _ in 1..lines {
            let at = random.usize(..=filler.len());
            filler.insert(at, '\n');
        }
        let check = fnv1a(filler.as_bytes());
        let mut text = String::new();
        let _ = write!(text, "{} {} {check:016x} {filler}", self.publisher, self.number);
        text
    }

    /// `None` for any event that we have not published just so.
    pub fn of(event: &Event) -> Option<Payload> {
        let payload = Payload::read(event.data.as_deref()?)?;
        (event.name.as_deref() == payload.event_type()).then_some(payload)
    }

    fn read(text: &str) -> Option<Payload> {
        let mut words = text.splitn(4, ' ');
        let publisher = words.next()?.parse().ok()?;
        let number = words.next()?.parse().ok()?;
        let check = u64::from_str_radix(words.next()?, 16).ok()?;
        (fnv1a(words.next()?.as_bytes()) == check).then_some(Payload { publisher, number })
    }
}

impl Id {
    /// The smallest that can be given from a moment on; the server's clock is ours.
    pub fn earliest_of(moment: Instant) -> Id {
        // In this order, so that it is rather too small.
        let now = clock();
        Id::at(now.saturating_sub(moment.elapsed()))
    }

    /// Larger than any that has been given.
    pub fn latest_now() -> Id {
        Id::at(clock() + Duration::from_millis(1))
    }

    fn at(time: Duration) -> Id {
        Id { ms: time.as_millis() as u64, n: 0 }
    }

    pub fn read(text: &str) -> Option<Id> {
        let (ms, n) = text.split_once('-')?;
        Some(Id { ms: ms.parse().ok()?, n: n.parse().ok()? })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}

fn clock() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
