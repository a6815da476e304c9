//! Event ids: `<unix-ms>-<n>`, the shape of Redis Streams. They grow strictly.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

/// A millisecond has room for a million ids; after that, ids use up the next millisecond.
const N_BITS: u32 = 20;

/// The id of an event: milliseconds since 1970 in the upper bits, a count in the lower ones. Ids are compared as numbers:
/// as strings, "10" would come before "9".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u64);

impl Id {
    pub(super) const ZERO: Id = Id(0);
    /// Larger than each id that is issued.
    pub(super) const MAX: Id = Id(u64::MAX);

    /// ```text
    /// id = 1*DIGIT "-" 1*DIGIT
    /// ```
    /// exactly as [`Display`](fmt::Display) writes it. `None` for any other text: this program never issued it.
    pub(crate) fn parse(text: &str) -> Option<Id> {
        let number = |digits: &str| {
            let is_canonical = !digits.is_empty()
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && (digits == "0" || !digits.starts_with('0'));
            is_canonical.then(|| digits.parse::<u64>().ok()).flatten()
        };
        let (ms, n) = text.split_once('-')?;
        let (ms, n) = (number(ms)?, number(n)?);
        (ms < 1 << (64 - N_BITS) && n < 1 << N_BITS).then_some(Id(ms << N_BITS | n))
    }

    /// The largest id that is smaller.
    pub(super) fn previous(self) -> Id {
        Id(self.0.saturating_sub(1))
    }

    /// The largest id that comes before this time, in milliseconds since 1970.
    pub(super) fn before_ms(ms: u64) -> Id {
        Id((ms.min((1 << (64 - N_BITS)) - 1) << N_BITS).saturating_sub(1))
    }

    /// When it was issued, in milliseconds since 1970.
    pub(super) fn ms(self) -> u64 {
        self.0 >> N_BITS
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0 >> N_BITS, self.0 & ((1 << N_BITS) - 1))
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64)
}

/// Issues ids. They grow even if the clock stands still or is set back. The ids of a later process are larger than
/// those of an earlier one, unless the clock was set back between the two. Then the later process does not know an id of
/// the earlier one, and reports a gap; only an id that both have issued is mistaken.
pub(crate) struct Ids {
    clock_ms: fn() -> u64,
    /// The id of the time at which the process started, or a larger one of an earlier process.
    started: AtomicU64,
    /// The largest id of an earlier process that is known.
    recovered: AtomicU64,
    last: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Ids {
        Ids::with_clock(now_ms)
    }

    fn with_clock(clock_ms: fn() -> u64) -> Ids {
        let now = clock_ms() << N_BITS;
        let recovered = AtomicU64::new(0);
        Ids { clock_ms, started: AtomicU64::new(now), recovered, last: AtomicU64::new(now) }
    }

    /// A new id, larger than each one before.
    pub(crate) fn next(&self) -> Id {
        let now = (self.clock_ms)() << N_BITS;
        let last = self.last.fetch_update(Relaxed, Relaxed, |last| Some(now.max(last + 1)));
        // The closure always returns a value, so the result is `Ok`; both arms hold the previous value.
        let (Ok(last) | Err(last)) = last;
        Id(now.max(last + 1))
    }

    /// An earlier process has issued `id`: each new one is larger.
    pub(crate) fn issue_above(&self, id: Id) {
        self.last.fetch_max(id.0, Relaxed);
        self.started.fetch_max(id.0, Relaxed);
        self.recovered.fetch_max(id.0, Relaxed);
    }

    /// Other processes issue the ids of channels, too.
    pub(super) fn mark_shared(&self) {
        self.started.store(u64::MAX, Relaxed);
    }

    pub(super) fn are_shared(&self) -> bool {
        self.started() == Id::MAX
    }

    /// Whether an event of some channel may have the id, or a client was told to come back with it before there was any. A
    /// process that the power failed may have issued larger ones than those that are known of it.
    pub(super) fn may_be_of_event(&self, id: Id) -> bool {
        let is_recovered = id.0 <= self.recovered.load(Relaxed);
        is_recovered || id == self.started() || self.has_issued(id)
    }

    /// Whether this process has issued the id, for whatever channel.
    pub(super) fn has_issued(&self, id: Id) -> bool {
        self.started() < id && id <= self.last()
    }

    /// Each id that this process issues is larger.
    pub(super) fn started(&self) -> Id {
        Id(self.started.load(Relaxed))
    }

    /// The largest id that was issued; at first, the id of the time at which the process started.
    pub(crate) fn last(&self) -> Id {
        Id(self.last.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn ids_grow_when_the_clock_stands_still_or_jumps_or_is_set_back() {
        static AT: AtomicUsize = AtomicUsize::new(0);
        const CLOCK: [u64; 9] = [50, 50, 50, 51, 40, 0, 51, 52, 52];
        let ids = Ids::with_clock(|| CLOCK[AT.fetch_add(1, Relaxed)]);
        let issued: Vec<_> = (1..CLOCK.len()).map(|_| ids.next()).collect();
        assert!(issued.windows(2).all(|pair| pair[0] < pair[1]), "{issued:?}");
        let texts: Vec<_> = issued.iter().map(Id::to_string).collect();
        assert_eq!(texts, ["50-1", "50-2", "51-0", "51-1", "51-2", "51-3", "52-0", "52-1"]);
    }

    #[test]
    fn an_id_is_parsed_only_as_it_is_written() {
        for text in ["0-0", "1795360000000-7", "17592186044415-1048575"] {
            assert_eq!(Id::parse(text).map(|id| id.to_string()).as_deref(), Some(text));
        }
        let malformed = "- 7 7- -7 +7-0 07-0 7-00 7-0-0 7-1048576 17592186044416-0 é-1";
        for text in malformed.split(' ').chain(["", "7-0 "]) {
            assert_eq!(Id::parse(text), None, "{text:?}");
        }
        assert!(Id::parse("10-0") > Id::parse("9-99"));
    }
}
