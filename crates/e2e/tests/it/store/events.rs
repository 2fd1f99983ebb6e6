//! An event is applied once, however often and by however many processes it is delivered.

use std::time::Duration;

use anyhow::Result;
use chrono::TimeDelta;
use pricing_core::store::Store;
use tokio::time::timeout;

use super::{now, on_both_stores};

on_both_stores!(
    an_event_is_new_once,
    the_same_identifier_from_another_source_is_another_event,
    within_one_batch_the_first_of_two_equal_events_is_new,
    an_event_whose_transaction_was_rolled_back_is_new_again,
    of_concurrent_recorders_of_the_same_events_one_finds_them_new,
    recording_an_event_waits_for_another_recorder,
    events_are_recorded_in_the_order_of_their_keys,
    old_events_are_forgotten_and_no_more_than_asked_for,
);

async fn record(store: &Store, events: &[(&str, &str)]) -> Result<Vec<bool>> {
    let mut transaction = store.begin().await?;
    let new = transaction.record_events(events, now()).await?;
    transaction.commit().await?;
    Ok(new)
}

async fn an_event_is_new_once(store: &Store) -> Result<()> {
    assert!(record(store, &[]).await?.is_empty());
    assert_eq!(record(store, &[("shop", "2"), ("shop", "1")]).await?, [true, true]);
    assert_eq!(record(store, &[("shop", "3"), ("shop", "2"), ("shop", "0")]).await?, [true, false, true]);
    Ok(())
}

async fn the_same_identifier_from_another_source_is_another_event(store: &Store) -> Result<()> {
    assert_eq!(record(store, &[("a", "b/1"), ("a/b", "1"), ("a", "1")]).await?, [true, true, true]);
    assert_eq!(record(store, &[("a/b", "1"), ("\"é\\", "{1}")]).await?, [false, true]);
    assert_eq!(record(store, &[("\"é\\", "{1}")]).await?, [false]);
    Ok(())
}

async fn within_one_batch_the_first_of_two_equal_events_is_new(store: &Store) -> Result<()> {
    let new = record(store, &[("shop", "1"), ("shop", "2"), ("shop", "1"), ("shop", "1")]).await?;
    assert_eq!(new, [true, true, false, false]);
    Ok(())
}

async fn an_event_whose_transaction_was_rolled_back_is_new_again(store: &Store) -> Result<()> {
    let mut transaction = store.begin().await?;
    assert_eq!(transaction.record_events(&[("shop", "1")], now()).await?, [true]);
    drop(transaction);
    assert_eq!(record(store, &[("shop", "1")]).await?, [true]);
    Ok(())
}

async fn of_concurrent_recorders_of_the_same_events_one_finds_them_new(store: &Store) -> Result<()> {
    let mut ids: Vec<String> = (0..200).map(|number| format!("event-{number}")).collect();
    let mut recording = tokio::task::JoinSet::new();
    for _ in 0..12 {
        ids.reverse();
        let (store, ids) = (store.clone(), ids.clone());
        recording.spawn(async move {
            let events: Vec<(&str, &str)> = ids.iter().map(|id| ("shop", id.as_str())).collect();
            record(&store, &events).await
        });
    }
    let outcomes = recording.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let counts = outcomes.iter().map(|new| new.iter().filter(|is_new| **is_new).count());
    let mut counts: Vec<usize> = counts.collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200]);
    Ok(())
}

async fn recording_an_event_waits_for_another_recorder(store: &Store) -> Result<()> {
    let mut first = store.begin().await?;
    assert_eq!(first.record_events(&[("shop", "1"), ("shop", "2")], now()).await?, [true, true]);
    let theirs = store.clone();
    let mut second =
        tokio::spawn(async move { record(&theirs, &[("shop", "3"), ("shop", "2"), ("shop", "1")]).await });
    let early = timeout(Duration::from_millis(200), &mut second).await;
    assert!(early.is_err(), "the second waits: {early:?}");
    first.commit().await?;
    assert_eq!(second.await??, [true, false, false]);
    Ok(())
}

async fn events_are_recorded_in_the_order_of_their_keys(store: &Store) -> Result<()> {
    let mut first = store.begin().await?;
    assert_eq!(first.record_events(&[("shop", "1")], now()).await?, [true]);
    let theirs = store.clone();
    let mut second = tokio::spawn(async move { record(&theirs, &[("shop", "3"), ("shop", "1")]).await });
    let early = timeout(Duration::from_millis(200), &mut second).await;
    assert!(early.is_err(), "the second waits: {early:?}");
    // It waits for the first key before it locks the last: there is no deadlock.
    assert_eq!(first.record_events(&[("shop", "3")], now()).await?, [true]);
    first.commit().await?;
    assert_eq!(second.await??, [false, false]);
    Ok(())
}

async fn old_events_are_forgotten_and_no_more_than_asked_for(store: &Store) -> Result<()> {
    for (id, seconds) in [("3", 3), ("1", 1), ("2", 2)] {
        let mut transaction = store.begin().await?;
        transaction.record_events(&[("shop", id)], now() + TimeDelta::seconds(seconds)).await?;
        transaction.commit().await?;
    }
    let before = now() + TimeDelta::seconds(3);
    assert_eq!(store.forget_applied_events(before, 1).await?, 1);
    assert_eq!(record(store, &[("shop", "2"), ("shop", "3")]).await?, [false, false]);
    assert_eq!(store.forget_applied_events(before, 10).await?, 1);
    assert_eq!(store.forget_applied_events(before, 10).await?, 0);
    assert_eq!(record(store, &[("shop", "1"), ("shop", "2"), ("shop", "3")]).await?, [true, true, false]);
    Ok(())
}
