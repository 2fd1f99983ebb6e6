//! Once a newer run has begun, nothing of an older one is written; and each range counts once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use chrono::TimeDelta;
use pricing_core::store::Store;
use pricing_domain::facts::recalculation::RunState;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::{PATIENCE, now, on_both_stores};
use super::{ask, begin, ends, finish_range, outcome, run};

on_both_stores!(
    a_run_with_an_older_number_is_refused,
    of_many_who_begin_a_run_under_one_number_one_does,
    a_restarted_run_takes_over_what_is_finished,
    a_run_takes_over_its_own_ranges_only,
    beginning_a_run_waits_for_the_ranges_of_the_older_one,
    finishing_a_run_waits_for_its_ranges,
    ranges_of_one_run_do_not_wait_for_each_other,
    a_range_finished_twice_counts_once,
    of_many_who_finish_the_same_range_one_does,
    a_range_that_comes_after_the_end_of_its_run_is_not_counted,
);

async fn is_current(store: &Store, run_number: i64) -> Result<bool> {
    let mut transaction = store.begin().await?;
    let is_current = transaction.lock_run(run_number).await?;
    transaction.commit().await?;
    Ok(is_current)
}

async fn a_run_with_an_older_number_is_refused(store: &Store) -> Result<()> {
    assert_eq!(store.last_run_number().await?, 0);
    begin(store, "T-1", 7).await?;
    ask(store, "T-2").await?;
    for run_number in [6, 7] {
        assert!(!store.begin_run("T-2", run_number, 1, 10, now()).await?, "{run_number}");
    }
    assert_eq!(run(store, "T-2").await?.state, RunState::Requested);
    assert_eq!(store.last_run_number().await?, 7);
    assert!(is_current(store, 7).await?);
    assert!(!is_current(store, 6).await?);
    assert!(!is_current(store, 8).await?);
    Ok(())
}

async fn of_many_who_begin_a_run_under_one_number_one_does(store: &Store) -> Result<()> {
    ask(store, "T-1").await?;
    let mut beginning = JoinSet::new();
    for _ in 0..10 {
        let store = store.clone();
        beginning.spawn(async move { store.begin_run("T-1", 1, 1, 10, now()).await });
    }
    let outcomes = beginning.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(outcomes.iter().filter(|has_begun| **has_begun).count(), 1);
    Ok(())
}

async fn a_restarted_run_takes_over_what_is_finished(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    let mut range = store.begin().await?;
    assert!(range.lock_run(1).await?);
    assert!(range.finish_range(1, &ends("P-2", "P-4")?, &outcome("w-1", 3, 2, 1), now()).await?);
    assert!(range.finish_range(1, &ends("P-0", "P-1")?, &outcome("w-1", 2, 1, 0), now()).await?);
    range.commit().await?;
    assert!(store.begin_run("T-1", 2, 4, 11, now() + TimeDelta::seconds(5)).await?);
    let again = run(store, "T-1").await?;
    assert_eq!((again.run_number, again.policy_version, again.products_total), (Some(2), Some(1), Some(10)));
    assert_eq!((again.products_done, again.started_at), (5, Some(now())));
    assert_eq!(store.finished_ranges(1).await?, []);
    assert_eq!(store.finished_ranges(2).await?, [ends("P-0", "P-1")?, ends("P-2", "P-4")?]);

    assert!(!is_current(store, 1).await?);
    assert!(!store.finish_run("T-1", 1, RunState::Done, None, now()).await?);
    assert!(finish_range(store, 2, "P-5", &outcome("w-2", 6, 6, 2)).await?);
    assert!(store.finish_run("T-1", 2, RunState::Done, None, now()).await?);
    let done = run(store, "T-1").await?;
    assert_eq!((done.products_done, done.prices_changed, done.prices_frozen), (11, 9, 3));
    assert_eq!(done.workers, BTreeMap::from([("w-1".to_owned(), 2), ("w-2".to_owned(), 1)]));
    assert_eq!(store.count_finished_ranges(2).await?, 0);
    Ok(())
}

async fn a_run_takes_over_its_own_ranges_only(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    assert!(finish_range(store, 1, "P-0", &outcome("w-1", 1, 1, 0)).await?);
    begin(store, "T-2", 2).await?;
    assert_eq!(store.finished_ranges(2).await?, []);
    assert_eq!((run(store, "T-1").await?.products_done, run(store, "T-2").await?.products_done), (1, 0));
    Ok(())
}

async fn beginning_a_run_waits_for_the_ranges_of_the_older_one(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    ask(store, "T-2").await?;
    let mut range = store.begin().await?;
    assert!(range.lock_run(1).await?);

    let theirs = store.clone();
    let mut newer = tokio::spawn(async move { theirs.begin_run("T-2", 2, 1, 10, now()).await });
    let early = timeout(Duration::from_millis(200), &mut newer).await;
    assert!(early.is_err(), "the newer run waits: {early:?}");

    assert!(range.finish_range(1, &ends("P-0", "P-0")?, &outcome("w", 10, 0, 0), now()).await?);
    range.commit().await?;
    assert!(newer.await??);
    assert!(!is_current(store, 1).await?);
    assert!(is_current(store, 2).await?);
    // The older one is still to be ended or begun again, with what it did.
    assert_eq!(run(store, "T-1").await?.products_done, 10);
    Ok(())
}

async fn finishing_a_run_waits_for_its_ranges(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    let mut range = store.begin().await?;
    assert!(range.lock_run(1).await?);

    let theirs = store.clone();
    let mut end =
        tokio::spawn(async move { theirs.finish_run("T-1", 1, RunState::Failed, Some("test"), now()).await });
    let early = timeout(Duration::from_millis(200), &mut end).await;
    assert!(early.is_err(), "the end waits: {early:?}");

    assert!(range.finish_range(1, &ends("P-0", "P-0")?, &outcome("w", 10, 0, 0), now()).await?);
    range.commit().await?;
    assert!(end.await??);
    assert_eq!(run(store, "T-1").await?.products_done, 10);
    assert_eq!(store.count_finished_ranges(1).await?, 0);
    Ok(())
}

async fn ranges_of_one_run_do_not_wait_for_each_other(store: &Store) -> Result<()> {
    // SQLite has one writer only.
    if store.kind() == "sqlite" {
        return Ok(());
    }
    begin(store, "T-1", 1).await?;
    let mut first = store.begin().await?;
    assert!(first.lock_run(1).await?);
    let theirs = outcome("w-2", 1, 0, 0);
    let second = finish_range(store, 1, "P-1", &theirs);
    assert!(timeout(PATIENCE, second).await??);
    assert!(first.finish_range(1, &ends("P-0", "P-0")?, &outcome("w-1", 1, 0, 0), now()).await?);
    first.commit().await?;
    assert_eq!(store.count_finished_ranges(1).await?, 2);
    Ok(())
}

async fn a_range_finished_twice_counts_once(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    assert!(finish_range(store, 1, "P-5", &outcome("w-1", 10, 5, 1)).await?);
    assert!(!finish_range(store, 1, "P-5", &outcome("w-2", 10, 0, 0)).await?);
    let read = run(store, "T-1").await?;
    assert_eq!((read.products_done, read.prices_changed), (10, 5));
    assert_eq!(read.workers, BTreeMap::from([("w-1".to_owned(), 1)]));
    Ok(())
}

async fn of_many_who_finish_the_same_range_one_does(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    let mut finishing = JoinSet::new();
    for _ in 0..10 {
        let store = store.clone();
        finishing.spawn(async move { finish_range(&store, 1, "P-0", &outcome("w", 10, 5, 1)).await });
    }
    let outcomes = finishing.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(outcomes.iter().filter(|is_new| **is_new).count(), 1);
    assert_eq!(run(store, "T-1").await?.products_done, 10);
    Ok(())
}

async fn a_range_that_comes_after_the_end_of_its_run_is_not_counted(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    assert!(finish_range(store, 1, "P-0", &outcome("w", 10, 5, 1)).await?);
    assert!(store.finish_run("T-1", 1, RunState::Done, None, now()).await?);
    assert!(!finish_range(store, 1, "P-0", &outcome("w", 10, 5, 1)).await?);
    assert!(!finish_range(store, 1, "P-1", &outcome("w", 10, 5, 1)).await?);
    assert_eq!(store.count_finished_ranges(1).await?, 0);
    assert_eq!(run(store, "T-1").await?.products_done, 10);
    Ok(())
}
