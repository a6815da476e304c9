//! Dates as HTTP and log lines write them.

use std::time::{Duration, SystemTime};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment in UTC. A clock before 1970 reads as 1970.
pub(crate) struct Date {
    days: u64,
    seconds: u64,
}

impl Date {
    pub(crate) fn now() -> Date {
        Date::of(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO))
    }

    fn of(since_1970: Duration) -> Date {
        let seconds = since_1970.as_secs();
        Date { days: seconds / 86_400, seconds: seconds % 86_400 }
    }

    /// Year, month (from 0) and day of the month, by Hinnant's algorithm: years begin in March, so
    /// that the leap day is the last, and 400 of them are 146,097 days.
    fn civil(&self) -> (u64, usize, u64) {
        let days = self.days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let january_or_february = month >= 10;
        (era * 400 + year_of_era + u64::from(january_or_february), (month as usize + 2) % 12, day)
    }

    fn clock(&self) -> (u64, u64, u64) {
        (self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60)
    }

    /// `IMF-fixdate`, as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7). Every response has one:
    /// by hand it takes a tenth of the time that the formatting machinery does.
    pub(crate) fn imf_fixdate(&self) -> [u8; 29] {
        let ((year, month, day), (hour, minute, second)) = (self.civil(), self.clock());
        let mut date = *b"Day, 00 Mon 0000 00:00:00 GMT";
        date[..3].copy_from_slice(DAYS[(self.days % 7) as usize].as_bytes());
        date[8..11].copy_from_slice(MONTHS[month].as_bytes());
        let numbers = [(5, day), (12, year / 100 % 100), (14, year % 100), (17, hour), (20, minute), (23, second)];
        for (at, number) in numbers {
            date[at] += (number / 10) as u8;
            date[at + 1] += (number % 10) as u8;
        }
        date
    }

    /// As `1994-11-06T08:49:37Z` (RFC 3339).
    pub(crate) fn rfc3339(&self) -> String {
        let ((year, month, day), (hour, minute, second)) = (self.civil(), self.clock());
        format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_days_and_centuries_are_written_as_the_standards_say() {
        let date = |seconds| Date::of(Duration::from_secs(seconds));
        assert_eq!(&date(784_111_777).imf_fixdate(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(&date(951_782_400).imf_fixdate(), b"Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(date(951_868_800).rfc3339(), "2000-03-01T00:00:00Z");
        assert_eq!(date(4_107_542_399).rfc3339(), "2100-02-28T23:59:59Z");
        assert_eq!(date(4_107_542_400).rfc3339(), "2100-03-01T00:00:00Z");
        assert_eq!(&date(1_798_761_599).imf_fixdate(), b"Thu, 31 Dec 2026 23:59:59 GMT");
    }
}
