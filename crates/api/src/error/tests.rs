use std::collections::BTreeSet;

use super::*;

/// Compares the table in this module's doc with `spec`, both as text of this file.
#[test]
fn the_table_has_every_type_with_its_status() {
    let source = include_str!("../error.rs");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("//! | `/problems/")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.parse::<u16>().ok()?))
    };
    let documented: BTreeSet<_> = source.lines().filter_map(row).collect();
    let status_of = |name: &str| {
        let constant = |status: &StatusCode| {
            status.canonical_reason().is_some_and(|reason| reason.to_uppercase().replace(' ', "_") == name)
        };
        (100..600).filter_map(|code| StatusCode::from_u16(code).ok()).find(constant).unwrap()
    };
    let (_, spec) = source.split_once("fn spec(").unwrap();
    let (spec, _) = spec.split_once("fn problem(").unwrap();
    let answer = |text: &str| {
        let (status, rest) = text.split_once(", \"/problems/")?;
        Some((rest.split('"').next()?.to_owned(), status_of(status).as_u16()))
    };
    let answered: BTreeSet<_> = spec.split("(StatusCode::").filter_map(answer).collect();
    assert_eq!((documented.len() > 20, &documented), (true, &answered));
}

#[test]
fn the_outcome_of_a_failed_write_is_reported_as_unknown() {
    let timed_out = || StoreError::TimedOut { limit: std::time::Duration::from_secs(1) };
    let policies_timed_out = EngineError::from(PolicySnapshotError::from(timed_out()));
    for write in [EngineError::from(timed_out()), policies_timed_out] {
        let write = ApiError::from(write).problem();
        assert_eq!(write.status, 503);
        assert!(write.detail.contains("not known whether the change is stored"), "{}", write.detail);
    }
    for read in [ApiError::from(timed_out()), ApiError::of_comparison(timed_out().into())] {
        assert_eq!(read.problem().detail, "the database does not answer; try again later");
    }
}
