//! Where a client wants its stream to start: after an id, at a time, or at one of two words.

use super::id::{Id, now_ms};
use crate::http::Request;
use crate::sse::last_event_id;

#[derive(Clone)]
pub(super) enum Asked {
    /// With what is published from now on.
    Latest,
    /// With the oldest event that is kept.
    Earliest,
    /// After the event with this id. A client may send any text.
    After(String),
    /// With what was published since this time: after this id, unless the text is no time.
    Since(String, Option<Id>),
}

impl Asked {
    /// The last event ID goes before the time: an EventSource that reconnects asks with the same URL, and has an id then.
    pub(super) fn by(request: &Request<'_>) -> Option<Asked> {
        Some(match last_event_id(request) {
            Some(id) if id == "latest" => Asked::Latest,
            Some(id) if id == "earliest" => Asked::Earliest,
            Some(id) => Asked::After(id),
            None => {
                let time = request.query("since").filter(|time| !time.is_empty())?;
                let id = since_ms(&time).map(Id::before_ms);
                Asked::Since(time, id)
            }
        })
    }

    /// The last event ID.
    pub(super) fn id(&self) -> Option<&str> {
        if let Asked::After(id) = self { Some(id) } else { None }
    }

    /// The same for one of so many channels, of which an id has a part each. An id of another view, or of a channel, says
    /// nothing of this one.
    pub(super) fn of_channel(&self, at: usize, channels: usize) -> Asked {
        let Asked::After(text) = self else { return self.clone() };
        let mut parts = text.split(',');
        let is_own = parts.clone().count() == channels;
        Asked::After(parts.nth(at).filter(|_| is_own).unwrap_or_default().to_owned())
    }

    /// As the client wrote it.
    pub(super) fn text(&self) -> &str {
        match self {
            Asked::Latest => "latest",
            Asked::Earliest => "earliest",
            Asked::After(text) | Asked::Since(text, _) => text,
        }
    }
}

/// A larger number counts milliseconds: seconds reach it in the year 5138.
const LARGEST_SECONDS: u64 = 100_000_000_000;

/// ```text
/// since     = duration / unix-time / date
/// duration  = 1*DIGIT ( "s" / "m" / "h" / "d" )        so long before now
/// unix-time = 1*DIGIT                                  in seconds or milliseconds
/// ```
/// In milliseconds since 1970; `None` for any other text.
pub(crate) fn since_ms(text: &str) -> Option<u64> {
    let unit_ms = match text.as_bytes().last()? {
        b's' => 1_000,
        b'm' => 60_000,
        b'h' => 3_600_000,
        b'd' => 86_400_000,
        b'Z' => return date_ms(text),
        _ => {
            let number = number(text)?;
            return Some(if number < LARGEST_SECONDS { number * 1_000 } else { number });
        }
    };
    let ago_ms = number(&text[..text.len() - 1])?.saturating_mul(unit_ms);
    Some(now_ms().saturating_sub(ago_ms))
}

fn number(digits: &str) -> Option<u64> {
    // `parse` takes a sign, too.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// ```text
/// date = 4DIGIT "-" 2DIGIT "-" 2DIGIT "T" 2DIGIT ":" 2DIGIT ":" 2DIGIT [ "." 1*DIGIT ] "Z"        (RFC 3339, 5.6)
/// ```
/// Only in UTC: in a query, the plus sign of another zone is a space. A year before 1970 is none.
fn date_ms(text: &str) -> Option<u64> {
    const SHAPE: &str = "0000-00-00T00:00:00";
    let text = text.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fits = |(byte, shape)| if shape == b'0' { u8::is_ascii_digit(&byte) } else { byte == shape };
    if whole.len() != SHAPE.len() || !whole.bytes().zip(SHAPE.bytes()).all(fits) {
        return None;
    }
    let at = |from: usize, to: usize| number(&whole[from..to]);
    let (year, month, day) = (at(0, 4)?, at(5, 7)?, at(8, 10)?);
    let (hour, minute, second) = (at(11, 13)?, at(14, 16)?, at(17, 19)?);
    let ms = number(fraction).and_then(|_| number(&format!("{fraction:0<3}")[..3]))?;
    let has_day = || (1..=days(year, month + 1, 1) - days(year, month, 1)).contains(&day);
    let is_date = year >= 1970 && (1..=12).contains(&month) && has_day();
    // A leap second is the 60th.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let seconds = || days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    (is_date && is_time).then(|| seconds() * 1_000 + ms)
}

/// The days from 1970 to a date, by Hinnant's algorithm: years begin in March, so that the leap day is the last. Month
/// 13 is January of the next year.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_duration_a_unix_time_or_a_date_in_utc() {
        for (text, ms) in [
            ("0", 0),
            ("1795687200", 1_795_687_200_000),
            ("1795687200123", 1_795_687_200_123),
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-26T10:00:00Z", 1_795_687_200_000),
            ("2026-11-26T10:00:00.1Z", 1_795_687_200_100),
            ("2026-11-26T10:00:00.123456Z", 1_795_687_200_123),
            ("2000-02-29T23:59:60Z", 951_868_800_000),
            ("2023-12-31T00:00:00Z", 1_703_980_800_000),
        ] {
            assert_eq!(since_ms(text), Some(ms), "{text:?}");
        }
        for (text, ago_ms) in [("0s", 0), ("90s", 90_000), ("10m", 600_000), ("2h", 7_200_000)] {
            let (before, ms) = (now_ms(), since_ms(text).expect("it is a time"));
            assert!((before..=now_ms()).contains(&(ms + ago_ms)), "{text:?}");
        }
        assert_eq!(since_ms("99999999999999999999d"), None);
        assert_eq!(since_ms("9999999999d"), Some(0));
        let malformed = "m -1s 1.5h 10min é és éZ Z 2026-11-26 2026-11-26T10:00:00 2026-13-01T00:00:00Z \
                         2026-00-01T00:00:00Z 2026-02-29T00:00:00Z 2026-01-00T00:00:00Z 1969-12-31T23:59:59Z \
                         2026-11-26T24:00:00Z 2026-11-26T10:60:00Z 2026-11-26T10:00:61Z 2026-11-26T10:00Z \
                         2026-11-26T10:00:00.Z 2026-11-26T10:00:00.xZ +026-11-26T10:00:00Z";
        for text in malformed.split_whitespace().chain(["", " 10m", "10 m"]) {
            assert_eq!(since_ms(text), None, "{text:?}");
        }
    }
}
