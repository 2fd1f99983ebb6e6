//! When a rule applies: between two instants, or week after week at a place's wall clock.

use std::fmt;

use chrono::{
    DateTime, Datelike, Days, MappedLocalTime, NaiveDate, NaiveTime, SubsecRound, TimeDelta, TimeZone, Utc,
    Weekday,
};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Deserialize;

use super::diagnostic::{Diagnostic, shorten};
use super::rule::Scalar;

/// A stretch of time, from included and until excluded; an absent end is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// The first instant inside.
    pub from: Option<DateTime<Utc>>,
    /// The first instant after.
    pub until: Option<DateTime<Utc>>,
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
    /// When it ends, as `19:00`, on the next day if that is not after `from`; at the end of the day if absent.
    pub until: Option<Scalar>,
}

/// Hours of the week at a place. On a day whose clock is changed, they begin at the first instant at which the clock
/// has reached `from` and end at the last one at which it reaches `until`: what the clock leaves out is not made up for,
/// and an hour that it shows twice counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    zone: Tz,
    days: DaysOfWeek,
    from: NaiveTime,
    until: NaiveTime,
}

/// One bit for each day, Monday's the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DaysOfWeek(u8);

const EVERY_DAY: DaysOfWeek = DaysOfWeek(0b111_1111);
const DAY_NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// No zone has ever left out more of its clock than a day and a bit.
const LONGEST_GAP_STEPS: usize = 26 * 4;
/// Clocks are changed at, and by, quarters of an hour.
const GAP_STEP: TimeDelta = TimeDelta::minutes(15);

impl Window {
    /// Whether the instant lies inside.
    pub fn contains(&self, now: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }

    /// The next instant after `now` at which [`contains`](Self::contains) changes.
    pub fn next_change(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        [self.from, self.until].into_iter().flatten().filter(|instant| *instant > now).min()
    }

    /// The window between two instants as written.
    pub(super) fn check(
        place: &str,
        from: Option<&str>,
        until: Option<&str>,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut instant = |name: &str, written: Option<&str>| {
            let written = written?;
            let parsed = DateTime::parse_from_rfc3339(written.trim());
            if parsed.is_err() {
                let problem = format!("\"{}\" is not an instant", shorten(written));
                let allowed = "RFC 3339: 2026-11-27T08:00:00Z";
                problems.push(Diagnostic::new(format!("{place}.{name}"), problem, allowed));
            }
            // As precise as the catalogue keeps instants.
            parsed.ok().map(|instant| instant.with_timezone(&Utc).trunc_subsecs(6))
        };
        let window = Self { from: instant("from", from), until: instant("until", until) };
        if matches!((window.from, window.until), (Some(from), Some(until)) if from >= until) {
            let field = format!("{place}.until");
            problems.push(Diagnostic::new(field, "is not after from", "an instant after from"));
        }
        window
    }
}

impl Schedule {
    /// Whether the instant lies inside.
    pub fn contains(&self, now: DateTime<Utc>) -> bool {
        let today = now.with_timezone(&self.zone).date_naive();
        // One that began yesterday may still go on.
        [today.pred_opt(), Some(today)]
            .into_iter()
            .flatten()
            .filter_map(|day| self.on(day))
            .any(|(from, until)| from <= now && now < until)
    }

    /// The next instant after `now` at which [`contains`](Self::contains) changes.
    pub fn next_change(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let is_inside = self.contains(now);
        let yesterday = now.with_timezone(&self.zone).date_naive().pred_opt()?;
        // Yesterday, today and a week: what has not changed by then never does.
        let days = (0..9).filter_map(|days| yesterday.checked_add_days(Days::new(days)));
        let ends = days.filter_map(|day| self.on(day)).flat_map(|(from, until)| [from, until]);
        ends.filter(|instant| *instant > now && self.contains(*instant) != is_inside).min()
    }

    /// From when until when it applies on a day, if it does.
    fn on(&self, day: NaiveDate) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        if !self.days.contains(day.weekday()) {
            return None;
        }
        let last_day = if self.until > self.from { day } else { day.succ_opt()? };
        Some((self.instant(day, self.from, Which::First)?, self.instant(last_day, self.until, Which::Last)?))
    }

    /// The instant at which the zone's clock shows this; where it leaves that out, the first one after.
    fn instant(&self, day: NaiveDate, time: NaiveTime, which: Which) -> Option<DateTime<Utc>> {
        let mut local = day.and_time(time);
        for step in 0..LONGEST_GAP_STEPS {
            match (self.zone.from_local_datetime(&local), which) {
                (MappedLocalTime::Single(instant), _)
                | (MappedLocalTime::Ambiguous(instant, _), Which::First)
                | (MappedLocalTime::Ambiguous(_, instant), Which::Last) => return Some(instant.to_utc()),
                (MappedLocalTime::None, _) => {
                    if step == 0 {
                        local = local.checked_sub_signed(past_quarter(time))?;
                    }
                    local = local.checked_add_signed(GAP_STEP)?;
                }
            }
        }
        None
    }
}

/// Which of two instants at which a clock shows the same.
#[derive(Debug, Clone, Copy)]
enum Which {
    First,
    Last,
}

/// How long ago the last quarter of an hour began.
fn past_quarter(time: NaiveTime) -> TimeDelta {
    let past = time.signed_duration_since(NaiveTime::MIN).num_seconds() % GAP_STEP.num_seconds();
    TimeDelta::seconds(past)
}

impl DaysOfWeek {
    fn contains(self, day: Weekday) -> bool {
        self.0 & (1 << day.num_days_from_monday()) != 0
    }
}

impl ScheduleDraft {
    pub(super) fn check(&self, place: &str, problems: &mut Vec<Diagnostic>) -> Option<Schedule> {
        let before = problems.len();
        let mut refuse = |field: &str, written: &str, allowed: &str| {
            let problem = format!("\"{}\" is not allowed", shorten(written));
            problems.push(Diagnostic::new(format!("{place}.schedule.{field}"), problem, allowed));
        };
        let zone: Option<Tz> = self.zone.0.trim().parse().ok();
        if zone.is_none() {
            refuse("zone", &self.zone.0, "a name of the IANA time zone database, such as Europe/Berlin");
        }
        let mut days = self.days.as_ref().map_or(EVERY_DAY, |_| DaysOfWeek(0));
        for written in self.days.iter().flatten() {
            match DAY_NAMES.iter().position(|name| *name == written.0.trim()) {
                Some(day) => days.0 |= 1 << day,
                None => refuse("days", &written.0, &DAY_NAMES.join(", ")),
            }
        }
        if days.0 == 0 && problems_are(before, problems) {
            problems.push(Diagnostic::new(
                format!("{place}.schedule.days"),
                "is empty",
                DAY_NAMES.join(", "),
            ));
        }
        let from = clock_time(place, "from", self.from.as_ref(), problems);
        let until = clock_time(place, "until", self.until.as_ref(), problems);
        (problems.len() == before).then_some(Schedule { zone: zone?, days, from: from?, until: until? })
    }
}

fn problems_are(before: usize, problems: &[Diagnostic]) -> bool {
    problems.len() == before
}

/// `17:00`; midnight if absent, and 24:00 is the next one.
fn clock_time(
    place: &str,
    name: &str,
    written: Option<&Scalar>,
    problems: &mut Vec<Diagnostic>,
) -> Option<NaiveTime> {
    let Some(Scalar(written)) = written else { return Some(NaiveTime::MIN) };
    let parsed = match written.trim() {
        "24:00" if name == "until" => Some(NaiveTime::MIN),
        written => NaiveTime::parse_from_str(written, "%H:%M").ok(),
    };
    if parsed.is_none() {
        let problem = format!("\"{}\" is not a time of day", shorten(written));
        problems.push(Diagnostic::new(
            format!("{place}.schedule.{name}"),
            problem,
            "hours and minutes: \"17:00\"",
        ));
    }
    parsed
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = DAY_NAMES.iter().enumerate().filter(|(day, _)| self.days.0 & (1 << day) != 0);
        let days: Vec<&str> = days.map(|(_, name)| *name).collect();
        let (from, until) = (self.from.format("%H:%M"), self.until.format("%H:%M"));
        write!(formatter, "{} {from}-{until} {}", days.join(" "), self.zone)
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
