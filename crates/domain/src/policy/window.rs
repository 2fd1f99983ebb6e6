//! When a rule applies: between two instants, or weekly by the local time of a zone.

use std::fmt;

use chrono::{DateTime, SubsecRound, Utc};
use jiff::civil::{self, Date, Time, Weekday};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::{Diagnostic, Severity, count_errors, shorten};
use crate::facts::time_zone::{Reached, TimeZones, Zone};
use crate::facts::{instant, local_time};
use crate::policy::scalar::Scalar;

/// A period of time, `from` inclusive and `until` exclusive; an absent end is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// The first instant inside.
    pub from: Option<DateTime<Utc>>,
    /// The first instant after it.
    pub until: Option<DateTime<Utc>>,
}

/// A window as written.
pub(crate) struct WindowDraft<'a> {
    /// The start: an instant (RFC 3339), or a local time of the zone.
    pub(crate) from: Option<&'a str>,
    /// The end, in the same form.
    pub(crate) until: Option<&'a str>,
    /// The zone of ends without an offset.
    pub(crate) zone: Option<&'a Scalar>,
}

/// `schedule` as written: hours of the week at a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleDraft {
    /// Whose wall clock: a name of the IANA time zone database, such as `Europe/Berlin`.
    pub zone: Scalar,
    /// On which days it begins: `mon` to `sun`; every day if absent.
    pub days: Option<Vec<Scalar>>,
    /// When it begins, as `17:00`; at the start of the day if absent.
    pub from: Option<Scalar>,
    /// When it ends, as `19:00`, on the next day if that is not after `from`; at the end of the day if
    /// absent.
    pub until: Option<Scalar>,
}

/// Hours of the week in a zone. On each of its days it is one period: from the first instant at which the
/// clock shows `from` or later until the first at which it shows `until` or later. Skipped hours are not made
/// up for, and a repeated hour between the two counts twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    zone: Zone,
    days: DaysOfWeek,
    from: Time,
    until: Time,
}

/// One bit per day, Monday's the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DaysOfWeek(u8);

const EVERY_DAY: DaysOfWeek = DaysOfWeek(0b111_1111);

const DAY_NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// The number of days searched for the next change. Each schedule changes in any week without a clock change,
/// and no zone has had clock changes in five consecutive weeks.
const DAYS_AHEAD: usize = 40;

impl Window {
    /// Whether the instant lies inside.
    pub fn contains(&self, now: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }

    /// The next instant after `now` at which [`contains`](Self::contains) changes.
    pub fn next_change(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        [self.from, self.until].into_iter().flatten().filter(|instant| *instant > now).min()
    }
}

impl Schedule {
    /// Whether the instant lies inside.
    pub fn contains(&self, now: DateTime<Utc>) -> bool {
        let Some(reached) = Reached::of(&self.zone, now) else { return false };
        let today = reached.shown.date();
        // Yesterday's period may continue; and a clock that was set back across midnight has already shown
        // tomorrow.
        [today.yesterday().ok(), Some(today), today.tomorrow().ok()].into_iter().flatten().any(|day| {
            self.stretch_of(day).is_some_and(|(from, until)| {
                self.zone.has_reached(from, &reached) && !self.zone.has_reached(until, &reached)
            })
        })
    }

    /// The next instant after `now` at which [`contains`](Self::contains) changes.
    pub fn next_change(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.is_always() {
            return None;
        }
        let yesterday = self.zone.shows(now)?.date().yesterday().ok()?;
        let days = std::iter::successors(Some(yesterday), |day| day.tomorrow().ok()).take(DAYS_AHEAD);
        let mut end = None;
        for (from, until) in days.filter_map(|day| self.on(day)).filter(|(_, until)| *until > now) {
            match end {
                None if from > now => return Some(from),
                // Adjacent periods are merged.
                Some(end) if from > end => break,
                _ => end = Some(until),
            }
        }
        end
    }

    fn is_always(&self) -> bool {
        self.days == EVERY_DAY && self.from == self.until
    }

    /// Returns the period of a day, if it has one.
    fn on(&self, day: Date) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let (from, until) = self.stretch_of(day)?;
        let stretch = (self.zone.first_instant(from)?, self.zone.first_instant(until)?);
        (stretch.0 < stretch.1).then_some(stretch)
    }

    /// Returns the period of a day in local time.
    fn stretch_of(&self, day: Date) -> Option<(civil::DateTime, civil::DateTime)> {
        if !self.days.contains(day.weekday()) {
            return None;
        }
        let last_day = if self.until > self.from { day } else { day.tomorrow().ok()? };
        Some((day.to_datetime(self.from), last_day.to_datetime(self.until)))
    }
}

impl WindowDraft<'_> {
    /// Checks the window and adds its faults to `problems`. `place` is its path.
    pub(crate) fn check(&self, place: &str, zones: &TimeZones, problems: &mut Vec<Diagnostic>) -> Window {
        let zone = self.zone.map(|zone| place_clock(&format!("{place}.zone"), zone, zones, problems));
        let mut has_local_time = false;
        let mut instant = |name: &str, written: Option<&str>| {
            let end = read_end(written?.trim(), zone.as_ref());
            has_local_time |= !matches!(end, End::At(_));
            match end {
                // Truncated to the precision of the store.
                End::At(instant) | End::Shown(Some(instant)) => return Some(instant.trunc_subsecs(6)),
                // The zone is unknown, which is reported already.
                End::Shown(None) => {}
                End::Refused { problem, allowed } => {
                    let problem = format!("\"{}\" {problem}", shorten(written.unwrap_or_default()));
                    problems.push(Diagnostic::new(format!("{place}.{name}"), problem, allowed));
                }
            }
            None
        };
        let window = Window { from: instant("from", self.from), until: instant("until", self.until) };
        if matches!((window.from, window.until), (Some(from), Some(until)) if from >= until) {
            let field = format!("{place}.until");
            problems.push(Diagnostic::new(field, "is not after from", "an instant after from"));
        }
        if zone.is_some() && !has_local_time {
            let problem = "has no from or until to tell the place of";
            let allowed = "beside a local time: from: 2026-11-27 08:00";
            problems.push(Diagnostic::new(format!("{place}.zone"), problem, allowed));
        }
        window
    }
}

/// An end of a window as written.
enum End {
    /// An instant with an offset.
    At(DateTime<Utc>),
    /// A local time without an offset, converted by the zone; `None` if the zone is unknown.
    Shown(Option<DateTime<Utc>>),
    Refused {
        problem: &'static str,
        allowed: &'static str,
    },
}

/// Parses an end. `zone` is `None` if none was written, and `Some(None)` if it is unknown.
fn read_end(written: &str, zone: Option<&Option<Zone>>) -> End {
    if let Some(instant) = instant::parse_any_year(written) {
        return End::At(instant);
    }
    match (local_time::parse(written), zone) {
        (Some(shown), Some(zone)) => match zone.as_ref().map(|zone| zone.first_instant(shown)) {
            Some(None) => End::Refused { problem: "is too far away", allowed: "years from 1 to 9999" },
            found => End::Shown(found.flatten()),
        },
        (Some(_), None) => End::Refused {
            problem: "does not say where",
            allowed: "with a zone beside it: zone: Europe/Berlin, or as an instant: 2026-11-27T08:00:00Z",
        },
        (None, _) => End::Refused {
            problem: "is not an instant",
            allowed: "RFC 3339: 2026-11-27T08:00:00Z, or with a zone: 2026-11-27 08:00",
        },
    }
}

/// Looks up the written zone.
fn place_clock(
    field: &str,
    Scalar(written): &Scalar,
    zones: &TimeZones,
    problems: &mut Vec<Diagnostic>,
) -> Option<Zone> {
    let zone = zones.zone(written.trim());
    if zone.is_none() {
        let problem = format!("\"{}\" is not allowed", shorten(written));
        problems.push(Diagnostic::new(field, problem, zones.allowed(written.trim())));
    }
    zone
}

impl DaysOfWeek {
    fn contains(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

impl ScheduleDraft {
    pub(crate) fn check(
        &self,
        place: &str,
        zones: &TimeZones,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Schedule> {
        let before = count_errors(problems);
        let zone = place_clock(&format!("{place}.schedule.zone"), &self.zone, zones, problems);
        let mut refuse = |field: &str, written: &str, allowed: &str| {
            let problem = format!("\"{}\" is not allowed", shorten(written));
            problems.push(Diagnostic::new(format!("{place}.schedule.{field}"), problem, allowed));
        };
        let mut days = self.days.as_ref().map_or(EVERY_DAY, |_| DaysOfWeek(0));
        for written in self.days.iter().flatten() {
            match DAY_NAMES.iter().position(|name| *name == written.0.trim()) {
                Some(day) => days.0 |= 1 << day,
                None => refuse("days", &written.0, &DAY_NAMES.join(", ")),
            }
        }
        if days.0 == 0 && count_errors(problems) == before {
            problems.push(Diagnostic::new(
                format!("{place}.schedule.days"),
                "is empty",
                DAY_NAMES.join(", "),
            ));
        }
        let from = clock_time(place, "from", self.from.as_ref(), problems);
        let until = clock_time(place, "until", self.until.as_ref(), problems);
        (count_errors(problems) == before).then_some(Schedule {
            zone: zone?,
            days,
            from: from?,
            until: until?,
        })
    }
}

/// Parses `17:00`; midnight if absent, and 24:00 is the next midnight.
fn clock_time(
    place: &str,
    name: &str,
    written: Option<&Scalar>,
    problems: &mut Vec<Diagnostic>,
) -> Option<Time> {
    let Some(Scalar(written)) = written else { return Some(Time::midnight()) };
    let parsed = match written.trim() {
        "24:00" if name == "until" => Some(Time::midnight()),
        written => local_time::time_of_day(written),
    };
    let as_published = parsed.or_else(|| local_time::loose_time_of_day(written.trim()));
    if parsed.is_none() {
        let severity = if as_published.is_some() { Severity::Refused } else { Severity::Error };
        let problem = format!("\"{}\" is not a time of day", shorten(written));
        let allowed = "hours and minutes with two digits each: \"07:00\"";
        let field = format!("{place}.schedule.{name}");
        problems.push(Diagnostic::new(field, problem, allowed).with_severity(severity));
    }
    as_published
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = DAY_NAMES.iter().enumerate().filter(|(day, _)| self.days.0 & (1 << day) != 0);
        let days: Vec<&str> = days.map(|(_, name)| *name).collect();
        let (from, until) = (self.from, self.until);
        write!(formatter, "{} {:02}:{:02}-", days.join(" "), from.hour(), from.minute())?;
        write!(formatter, "{:02}:{:02} {}", until.hour(), until.minute(), self.zone)
    }
}

#[cfg(test)]
mod tests;
