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
    draft.check("market[0]", &mut problems).unwrap_or_else(|| panic!("{problems:?}"))
}

/// All changes between two instants, as the walk from one to the next finds them.
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

/// zone, days, from, until, looked at from, and until → the instants at which it starts and stops
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
    // A happy hour in summer and in winter time.
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
    // Over midnight, begun on a Friday only.
    (
        "UTC",
        "fri",
        "22:00",
        "02:00",
        "2026-11-19T00:00:00Z",
        "2026-11-27T00:00:00Z",
        &["20 22:00Z", "21 02:00Z"],
    ),
    // Days that follow each other are one stretch.
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
    // Berlin, 29 March 2026: 02:00 to 03:00 does not exist. Begins late, ends late, or does not happen.
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
    // Berlin, 25 October 2026: 02:00 to 03:00 comes twice.
    (
        "Europe/Berlin",
        "",
        "01:00",
        "02:30",
        "2026-10-24T22:00:00Z",
        "2026-10-25T12:00:00Z",
        &["24 23:00Z", "25 01:30Z"],
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
    // Kathmandu is 5:45 ahead; Samoa left out 30 December 2011.
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
    assert_eq!(draft.check("offer[3]", &mut problems), None);
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    let expected = ["zone", "days", "from", "until"].map(|name| format!("offer[3].schedule.{name}"));
    assert_eq!(fields, expected);
    let empty = ScheduleDraft { zone: scalar("UTC"), days: Some(Vec::new()), ..Default::default() };
    let mut problems = Vec::new();
    assert_eq!(empty.check("offer[3]", &mut problems), None);
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
