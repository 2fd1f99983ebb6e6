//! Instants as text: RFC 3339.
//!
//! The text of an instant is exactly the one that [`DateTime`] serialises to, RFC 3339 with as many decimal
//! places as needed, but written in one call. By default, every part of it is searched for characters to
//! escape.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::Serializer;

/// Years that RFC 3339 can write, and every database keeps.
const WRITABLE_YEARS: RangeInclusive<i32> = 1..=9_999;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// The instant written so. A second 60, which RFC 3339 has for leap seconds, is the one after: clocks here
/// have none, and programs that read an answer understand none. `None` too where an offset or such a second
/// leads out of the years that the written form has.
pub fn parse(written: &str) -> Option<DateTime<Utc>> {
    parse_any_year(written).filter(|instant| WRITABLE_YEARS.contains(&instant.year()))
}

/// The same, in whatever year it is.
pub(crate) fn parse_any_year(written: &str) -> Option<DateTime<Utc>> {
    let instant = DateTime::parse_from_rfc3339(written).ok()?.to_utc();
    // chrono keeps it as a second 59 with more than a second of nanoseconds.
    match instant.timestamp_subsec_nanos().checked_sub(NANOS_PER_SECOND) {
        Some(nanos) => DateTime::from_timestamp(instant.timestamp().checked_add(1)?, nanos),
        None => Some(instant),
    }
}

/// Serialises an instant.
pub fn as_instant<S: Serializer>(instant: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written(*instant))
}

/// The text of an instant, for hand-written JSON.
pub(crate) fn written(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// [`as_instant`] for one that may be absent (`null`).
pub fn as_optional_instant<S: Serializer>(
    instant: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match instant {
        Some(instant) => as_instant(instant, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_60_is_the_next() {
        for (text, expected) in [
            ("2026-12-31T23:59:60Z", Some("2027-01-01T00:00:00Z")),
            ("2026-12-31t23:59:60.25z", Some("2027-01-01T00:00:00.250Z")),
            ("2026-06-01T12:34:60+02:00", Some("2026-06-01T10:35:00Z")),
            ("2026-06-01 12:34:59.999999999Z", Some("2026-06-01T12:34:59.999999999Z")),
            ("9999-12-31T23:59:60Z", None),
            ("9999-12-31T23:59:59-01:00", None),
            ("0000-06-01T00:00:00Z", None),
            ("2026-06-01T12:34:61Z", None),
            ("2026-06-01T24:00:00Z", None),
            ("2026-06-01T12:34:56", None),
            ("2026-06-01", None),
        ] {
            assert_eq!(parse(text).map(written).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_is_what_chrono_writes(seconds in -99_999_999_999_i64..999_999_999_999, nanos in 0_u32..1_000_000_000, unit in 0_u32..4) {
            let nanos = nanos - nanos % 1_000_u32.pow(unit);
            let instant = DateTime::from_timestamp(seconds, nanos).unwrap();
            let mut written = Vec::new();
            as_instant(&instant, &mut serde_json::Serializer::new(&mut written)).unwrap();
            prop_assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&instant).unwrap());
        }
    }
}
