//! Local times as text: dates and times of day without an offset.

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};

/// Parses `2026-11-27 08:00`, also with `T` instead of the space, with seconds, or without a time: midnight
/// at the start of the day. 24:00 is midnight at its end, and second 60 the next second.
pub(crate) fn parse(written: &str) -> Option<DateTime> {
    let (date, time) = match written.split_once(['T', ' ']) {
        Some((date, time)) => (self::date(date)?, time),
        None => (self::date(written)?, "00:00"),
    };
    if matches!(time, "24:00" | "24:00:00") {
        return Some(date.tomorrow().ok()?.to_datetime(Time::midnight()));
    }
    let (time, seconds) = match time.split_at_checked(5)? {
        (time, "") => (time, 0),
        (time, seconds) => (time, number(seconds.strip_prefix(':')?).filter(|seconds| *seconds <= 60)?),
    };
    date.to_datetime(time_of_day(time)?).checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

/// Parses hours and minutes of two digits each: `07:05`.
pub(crate) fn time_of_day(written: &str) -> Option<Time> {
    let (hour, minute) = written.split_once(':')?;
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

/// Like [`time_of_day`], but accepts fewer digits (`7:5`) or leading spaces, as published policies may have.
pub(crate) fn loose_time_of_day(written: &str) -> Option<Time> {
    let (hour, minute) = written.split_once(':')?;
    let number =
        |digits: &str| (digits.len() <= 2 && is_digits(digits)).then(|| digits.parse().ok()).flatten();
    let (hour, minute) = (hour.trim_start(), minute.trim_start());
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

fn date(written: &str) -> Option<Date> {
    let (year, rest) = written.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let year = (year.len() == 4 && is_digits(year)).then(|| year.parse().ok()).flatten()?;
    Date::new(year, number(month)?, number(day)?).ok()
}

/// Parses exactly two digits.
fn number(digits: &str) -> Option<i8> {
    (digits.len() == 2 && is_digits(digits)).then(|| digits.parse().ok()).flatten()
}

fn is_digits(written: &str) -> bool {
    written.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_as_they_are_written() {
        for (written, expected) in [
            ("2026-11-27", Some("2026-11-27T00:00:00")),
            ("2026-11-27 08:05", Some("2026-11-27T08:05:00")),
            ("2026-11-27T08:05", Some("2026-11-27T08:05:00")),
            ("2026-11-27 08:05:09", Some("2026-11-27T08:05:09")),
            ("2026-11-27 23:59:60", Some("2026-11-28T00:00:00")),
            ("2026-12-31 24:00", Some("2027-01-01T00:00:00")),
            ("2026-11-27 24:01", None),
            ("2026-11-27 8:05", None),
            ("2026-11-27 08:5", None),
            ("2026-11-27 08:05:61", None),
            ("2026-11-27 08:05:", None),
            ("2026-11-27 08:05 ", None),
            ("2026-11-27 08:05Z", None),
            ("2026-11-27 +8:05", None),
            ("2026-11-31", None),
            ("2026-1-7", None),
            ("26-11-27", None),
            ("27.11.2026", None),
            ("2026-11-27 ", None),
            ("2026-11-27 é", None),
            ("", None),
        ] {
            assert_eq!(parse(written).map(|shown| shown.to_string()).as_deref(), expected, "{written}");
        }
    }

    #[test]
    fn times_of_day_have_two_digits_each() {
        assert_eq!(time_of_day("07:05"), Some(Time::constant(7, 5, 0, 0)));
        for written in [
            "7:5", "07:5", "7:05", "17:0", "007:05", "24:00", "07:60", "07", "0705", " 07:05", "-1:05",
            "07:05:00",
        ] {
            assert_eq!(time_of_day(written), None, "{written}");
        }
        for written in ["7:5", "7: 5", " 7:05"] {
            assert_eq!(loose_time_of_day(written), Some(Time::constant(7, 5, 0, 0)), "{written}");
        }
        for written in [":", "7:", ":5", "24:00", "07:60", "7", "007:5", "-1:5", "7 :5"] {
            assert_eq!(loose_time_of_day(written), None, "{written}");
        }
    }
}
