//! Instants as RFC 3339 text.
//!
//! The text equals what [`DateTime`] serialises to, RFC 3339 with as many decimal places as needed, but is
//! written in one call. The default serialiser scans each part of it for characters to escape.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::Serializer;

/// The years that RFC 3339 can express and that every database can store.
const WRITABLE_YEARS: RangeInclusive<i32> = 1..=9_999;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// Parses an instant. Second 60, RFC 3339's leap second, becomes the next second: clocks here have no leap
/// seconds, and most clients cannot parse them. `None` also if an offset or a leap second leads out of the
/// years that the text form can express.
pub fn parse(written: &str) -> Option<DateTime<Utc>> {
    parse_any_year(written).filter(|instant| WRITABLE_YEARS.contains(&instant.year()))
}

/// Like [`parse`], for any year.
pub(crate) fn parse_any_year(written: &str) -> Option<DateTime<Utc>> {
    let instant = DateTime::parse_from_rfc3339(written).ok()?.to_utc();
    // chrono represents a leap second as second 59 with more than a second of nanoseconds.
    match instant.timestamp_subsec_nanos().checked_sub(NANOS_PER_SECOND) {
        Some(nanos) => DateTime::from_timestamp(instant.timestamp().checked_add(1)?, nanos),
        None => Some(instant),
    }
}

/// Serialises an instant.
pub fn as_instant<S: Serializer>(instant: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written(*instant))
}

/// Formats an instant for hand-written JSON.
pub(crate) fn written(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// [`as_instant`] for an optional instant (`null` if absent).
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
