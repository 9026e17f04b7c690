//! Moments as they stand in the status, and the time of day at which something may be done.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

/// Seconds since the epoch of an RFC 3339 text; `None`: it is none.
pub fn seconds(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// The text of a moment, as the account has it.
pub fn text(seconds: i64) -> String {
    let moment = Timestamp::from_second(seconds).unwrap_or_default();
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Part of each day, in UTC. It may go over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Seconds after midnight.
    start: i64,
    length: i64,
}

impl Window {
    /// From `HH:MM` on, for so many milliseconds; `None`: not a time of day, or not between a minute and a day.
    pub fn new(start: &str, length_ms: u64) -> Option<Self> {
        let (hours, minutes) = start.split_once(':')?;
        let number = |text: &str, below: i64| {
            let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|n: &i64| digits && *n < below)
        };
        let start = (number(hours, 24)? * 60 + number(minutes, 60)?) * MINUTE;
        let length = i64::try_from(length_ms / 1000).ok()?;
        (MINUTE..=DAY).contains(&length).then_some(Self { start, length })
    }

    /// It is open at this moment.
    pub fn is_open(self, at: i64) -> bool {
        (at - self.start).rem_euclid(DAY) < self.length
    }

    /// When it opens the next time.
    pub fn next(self, at: i64) -> i64 {
        at + DAY - (at - self.start).rem_euclid(DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_open_for_its_length_also_over_midnight() {
        let at = |time: &str| seconds(&format!("2026-03-01T{time}:00Z")).unwrap();
        let night = Window::new("23:30", 3_600_000).unwrap();
        for (time, open) in [("23:29", false), ("23:30", true), ("00:29", true), ("00:30", false)] {
            assert_eq!(night.is_open(at(time)), open, "{time}");
        }
        assert_eq!(text(night.next(at("10:00"))), "2026-03-01T23:30:00Z");
        assert_eq!(text(night.next(at("23:45"))), "2026-03-02T23:30:00Z");
        assert!(Window::new("12:00", 86_400_000).unwrap().is_open(at("11:59")));
    }

    #[test]
    fn what_is_no_time_of_day_or_no_part_of_a_day_is_none() {
        for start in ["24:00", "12:60", "1:00", "12", "+1:00", "12:00:00", ""] {
            assert_eq!(Window::new(start, 3_600_000), None, "{start}");
        }
        assert_eq!(Window::new("12:00", 59_999), None);
        assert_eq!(Window::new("12:00", 86_401_000), None);
    }
}
