//! Instants as JSON: the very text that [`DateTime`] serialises to, RFC 3339 with as many decimal places as it takes,
//! written in one go. Left to itself, every part of it is looked through for characters to escape.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

/// Serialises an instant.
pub fn as_instant<S: Serializer>(instant: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written(*instant))
}

/// The text of an instant, for those who write JSON themselves.
pub(super) fn written(instant: DateTime<Utc>) -> String {
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
