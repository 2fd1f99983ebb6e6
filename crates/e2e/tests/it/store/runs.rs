//! A requested recalculation is done, skipped for a reason or failed, never lost, and only the newest run
//! writes.

mod coalescing;
mod fencing;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use chrono::TimeDelta;
use pricing_core::audit::Origin;
use pricing_core::store::{MAX_REASON_CHARS, RangeEnds, RangeOutcome, RunRequest, Store, StoredRun};
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::recalculation::{RecalculationScope, RunState};

use super::{now, on_both_stores, product_id};

on_both_stores!(
    a_request_is_kept_with_every_field,
    requesting_twice_is_idempotent,
    a_request_in_a_transaction_goes_with_it,
    a_request_can_be_withdrawn_until_it_is_begun,
    a_reason_that_is_too_long_is_cut,
    the_next_run_is_a_running_one_then_the_oldest_request,
    a_run_says_what_its_ranges_add_up_to,
    a_run_is_finished_once,
    a_finished_run_cannot_be_begun,
    a_held_run_waits_for_a_decision,
    approval_goes_with_a_request_that_is_coalesced,
    finished_runs_are_forgotten_and_no_more_than_asked_for,
);

fn request(task_id: &str, scope: RecalculationScope, seconds: i64) -> RunRequest {
    let requested_at = now() + TimeDelta::seconds(seconds);
    RunRequest { task_id: task_id.to_owned(), scope, requested_at, approved_by: None }
}

async fn ask(store: &Store, task_id: &str) -> Result<()> {
    assert!(store.request_run(&request(task_id, RecalculationScope::All, 0)).await?);
    Ok(())
}

/// Requests a run and begins it.
async fn begin(store: &Store, task_id: &str, run_number: i64) -> Result<()> {
    ask(store, task_id).await?;
    assert!(store.begin_run(task_id, run_number, 1, 10, now()).await?);
    Ok(())
}

async fn run(store: &Store, task_id: &str) -> Result<StoredRun> {
    store.run(task_id).await?.with_context(|| format!("there is no {task_id}"))
}

fn outcome(worker: &str, products: u64, changed: u64, frozen: u64) -> RangeOutcome {
    RangeOutcome { worker: worker.to_owned(), products, changed, frozen }
}

fn ends(first: &str, last: &str) -> Result<RangeEnds> {
    Ok(RangeEnds { first: product_id(first)?, last: product_id(last)? })
}

/// Finishes the range of one product.
async fn finish_range(store: &Store, run_number: i64, product: &str, outcome: &RangeOutcome) -> Result<bool> {
    let mut transaction = store.begin().await?;
    assert!(transaction.lock_run(run_number).await?);
    let is_new = transaction.finish_range(run_number, &ends(product, product)?, outcome, now()).await?;
    transaction.commit().await?;
    Ok(is_new)
}

async fn a_request_is_kept_with_every_field(store: &Store) -> Result<()> {
    let ids: Vec<ProductId> = ["P-2", "P-1"].map(product_id).into_iter().collect::<Result<_>>()?;
    let scopes = [
        RecalculationScope::All,
        RecalculationScope::Category("küche \"1\"".to_owned()),
        RecalculationScope::Products(ids),
    ];
    for (task_id, scope) in ["T-1", "T-2", "T-3"].into_iter().zip(scopes) {
        assert!(store.request_run(&request(task_id, scope.clone(), 7)).await?);
        let expected = StoredRun {
            task_id: task_id.to_owned(),
            scope,
            state: RunState::Requested,
            reason: None,
            follow_up: None,
            approved_by: None,
            run_number: None,
            policy_version: None,
            requested_at: now() + TimeDelta::seconds(7),
            started_at: None,
            finished_at: None,
            products_total: None,
            products_done: 0,
            prices_changed: 0,
            prices_frozen: 0,
            workers: BTreeMap::new(),
        };
        assert_eq!(store.run(task_id).await?, Some(expected));
    }
    assert_eq!(store.run("T-4").await?, None);
    assert_eq!(store.count_requested_runs().await?, 3);
    Ok(())
}

async fn requesting_twice_is_idempotent(store: &Store) -> Result<()> {
    ask(store, "T-1").await?;
    let again = request("T-1", RecalculationScope::Category("kitchen".to_owned()), 9);
    assert!(!store.request_run(&again).await?);
    let mut transaction = store.begin().await?;
    assert!(!transaction.request_run(&again).await?);
    transaction.commit().await?;
    let read = run(store, "T-1").await?;
    assert_eq!((read.scope, read.requested_at), (RecalculationScope::All, now()));
    Ok(())
}

async fn a_request_in_a_transaction_goes_with_it(store: &Store) -> Result<()> {
    for (task_id, is_committed) in [("T-1", false), ("T-2", true)] {
        let mut transaction = store.begin().await?;
        assert!(transaction.request_run(&request(task_id, RecalculationScope::All, 0)).await?);
        if is_committed {
            transaction.commit().await?;
        }
    }
    assert_eq!(store.run("T-1").await?, None);
    assert!(store.run("T-2").await?.is_some());
    Ok(())
}

async fn a_request_can_be_withdrawn_until_it_is_begun(store: &Store) -> Result<()> {
    ask(store, "T-1").await?;
    assert!(store.withdraw_run("T-1", "Redis is away", now()).await?);
    let read = run(store, "T-1").await?;
    assert_eq!((read.state, read.finished_at), (RunState::Failed, Some(now())));
    assert_eq!(read.reason.as_deref(), Some("Redis is away"));
    assert!(!store.withdraw_run("T-1", "again", now()).await?);
    assert!(!store.withdraw_run("unknown", "again", now()).await?);

    begin(store, "T-2", 1).await?;
    assert!(!store.withdraw_run("T-2", "too late", now()).await?);
    let read = run(store, "T-2").await?;
    assert_eq!((read.state, read.reason), (RunState::Running, None));
    assert_eq!(store.count_requested_runs().await?, 0);
    Ok(())
}

async fn a_reason_that_is_too_long_is_cut(store: &Store) -> Result<()> {
    let (too_long, cut) = ("漢".repeat(MAX_REASON_CHARS + 1), "漢".repeat(MAX_REASON_CHARS));
    ask(store, "T-1").await?;
    store.withdraw_run("T-1", &too_long, now()).await?;
    assert_eq!(run(store, "T-1").await?.reason.as_ref(), Some(&cut));
    begin(store, "T-2", 1).await?;
    store.finish_run("T-2", 1, RunState::Failed, Some(&too_long), now()).await?;
    assert_eq!(run(store, "T-2").await?.reason.as_ref(), Some(&cut));
    Ok(())
}

async fn the_next_run_is_a_running_one_then_the_oldest_request(store: &Store) -> Result<()> {
    assert_eq!(store.next_requested_run().await?, None);
    for (task_id, seconds) in [("T-1", 1), ("T-2", 0), ("T-3", 2)] {
        store.request_run(&request(task_id, RecalculationScope::All, seconds)).await?;
    }
    let next = async || anyhow::Ok(store.next_requested_run().await?.map(|run| run.task_id));
    assert_eq!(next().await?.as_deref(), Some("T-2"));
    assert!(store.begin_run("T-3", 1, 1, 0, now()).await?);
    assert_eq!(next().await?.as_deref(), Some("T-3"));
    assert!(store.finish_run("T-3", 1, RunState::Done, None, now()).await?);
    assert_eq!(next().await?.as_deref(), Some("T-2"));
    store.withdraw_run("T-2", "test", now()).await?;
    assert_eq!(next().await?.as_deref(), Some("T-1"));
    store.withdraw_run("T-1", "test", now()).await?;
    assert_eq!(next().await?, None);
    Ok(())
}

async fn a_run_says_what_its_ranges_add_up_to(store: &Store) -> Result<()> {
    ask(store, "T-1").await?;
    let (started_at, finished_at) = (now() + TimeDelta::seconds(1), now() + TimeDelta::seconds(2));
    assert!(store.begin_run("T-1", 5, 3, 1_234, started_at).await?);
    assert_eq!(store.last_run_number().await?, 5);
    let begun = run(store, "T-1").await?;
    assert_eq!((begun.state, begun.run_number, begun.policy_version), (RunState::Running, Some(5), Some(3)));
    assert_eq!((begun.started_at, begun.products_total), (Some(started_at), Some(1_234)));
    assert_eq!((begun.products_done, &begun.workers), (0, &BTreeMap::new()));

    for (product, outcome) in [
        ("P-0", outcome("w-1", 1_000, 10, 1)),
        ("P-7", outcome("w\"2", 200, 0, 2)),
        ("P-9", outcome("w-1", 34, 4, 0)),
    ] {
        assert!(finish_range(store, 5, product, &outcome).await?);
    }
    assert_eq!(store.count_finished_ranges(5).await?, 3);
    let running = run(store, "T-1").await?;
    assert_eq!((running.products_done, running.prices_changed, running.prices_frozen), (1_234, 14, 3));
    assert_eq!(running.workers, BTreeMap::from([("w-1".to_owned(), 2), ("w\"2".to_owned(), 1)]));
    assert_eq!(store.next_requested_run().await?.as_ref(), Some(&running));

    assert!(store.finish_run("T-1", 5, RunState::Done, None, finished_at).await?);
    let expected = StoredRun { state: RunState::Done, finished_at: Some(finished_at), ..running };
    assert_eq!(run(store, "T-1").await?, expected);
    assert_eq!(store.count_finished_ranges(5).await?, 0);
    Ok(())
}

async fn a_run_is_finished_once(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    assert!(finish_range(store, 1, "P-0", &outcome("w", 9, 8, 7)).await?);
    assert!(!store.finish_run("T-1", 2, RunState::Done, None, now()).await?);
    assert!(!store.finish_run("T-2", 1, RunState::Done, None, now()).await?);
    assert!(store.finish_run("T-1", 1, RunState::Failed, Some("timed out"), now()).await?);
    let finished = run(store, "T-1").await?;
    assert_eq!((finished.state, finished.reason.as_deref()), (RunState::Failed, Some("timed out")));
    assert_eq!(finished.products_done, 9);
    assert!(!store.finish_run("T-1", 1, RunState::Done, None, now()).await?);
    assert_eq!(run(store, "T-1").await?, finished);
    Ok(())
}

async fn a_finished_run_cannot_be_begun(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    assert!(store.finish_run("T-1", 1, RunState::Done, None, now()).await?);
    ask(store, "T-2").await?;
    store.withdraw_run("T-2", "test", now()).await?;
    for task_id in ["T-1", "T-2", "unknown"] {
        assert!(!store.begin_run(task_id, 2, 1, 10, now()).await?, "{task_id}");
    }
    // What was refused has moved no fence.
    assert_eq!(store.last_run_number().await?, 1);
    begin(store, "T-3", 2).await
}

async fn finished_runs_are_forgotten_and_no_more_than_asked_for(store: &Store) -> Result<()> {
    for (task_id, seconds) in [("T-1", 3), ("T-2", 1), ("T-3", 2)] {
        ask(store, task_id).await?;
        store.withdraw_run(task_id, "test", now() + TimeDelta::seconds(seconds)).await?;
    }
    ask(store, "T-4").await?;
    begin(store, "T-5", 1).await?;
    let before = now() + TimeDelta::seconds(3);
    assert_eq!(store.forget_runs(before, 1).await?, 1);
    assert_eq!(store.run("T-2").await?, None);
    assert_eq!(store.forget_runs(before, 10).await?, 1);
    assert_eq!(store.forget_runs(before, 10).await?, 0);
    for task_id in ["T-1", "T-4", "T-5"] {
        run(store, task_id).await?;
    }
    Ok(())
}

async fn a_held_run_waits_for_a_decision(store: &Store) -> Result<()> {
    for task_id in ["T-1", "T-2"] {
        ask(store, task_id).await?;
    }
    let kitchen = request("T-3", RecalculationScope::Category("kitchen".to_owned()), 1);
    assert!(store.request_run(&kitchen).await?);
    let by = Origin::engine();
    for task_id in ["T-1", "T-3", "T-2"] {
        assert!(store.hold_run(task_id, "too far", 4, now()).await?);
        assert!(!store.hold_run(task_id, "again", 4, now()).await?);
    }
    assert_eq!(store.next_requested_run().await?, None);
    let earlier = run(store, "T-1").await?;
    assert_eq!((earlier.state, earlier.follow_up.as_deref()), (RunState::Skipped, Some("T-2")));
    let held = run(store, "T-2").await?;
    assert_eq!((held.state, held.reason.as_deref()), (RunState::Held, Some("too far")));
    assert!(!store.begin_run("T-2", 1, 1, 10, now()).await?);
    assert!(store.approve_run("T-2", "zoe", &by, now()).await?);
    assert!(!store.approve_run("T-2", "kim", &by, now()).await?);
    let next = store.next_requested_run().await?.context("nothing waits")?;
    assert_eq!((next.task_id.as_str(), next.approved_by.as_deref(), next.reason), ("T-2", Some("zoe"), None));
    assert!(store.begin_run("T-2", 1, 1, 10, now()).await?);
    assert!(!store.withdraw_run("T-3", "no", now()).await?);
    assert!(!store.reject_run("T-2", "no", &by, now()).await?, "it was approved");
    assert_eq!(store.held_runs(10).await?.len(), 1);
    assert!(store.reject_run("T-3", "rejected", &by, now()).await?);
    assert_eq!(run(store, "T-3").await?.state, RunState::Failed);
    assert!(!store.approve_run("T-3", "zoe", &by, now()).await?);
    // A later request that begins replaces a held one; a held one without a decision is deleted in the end.
    for (task_id, category) in [("T-4", "toys"), ("T-5", "games")] {
        assert!(
            store
                .request_run(&request(task_id, RecalculationScope::Category(category.to_owned()), 1))
                .await?
        );
        assert!(store.hold_run(task_id, "too far", 4, now()).await?);
    }
    assert_eq!(store.count_requested_runs().await?, 2);
    assert!(store.request_run(&request("T-6", RecalculationScope::Category("toys".to_owned()), 2)).await?);
    assert!(store.begin_run("T-6", 2, 5, 10, now()).await?);
    assert_eq!(run(store, "T-4").await?.follow_up.as_deref(), Some("T-6"));
    assert_eq!(run(store, "T-5").await?.policy_version, Some(4));
    store.forget_runs(now() + TimeDelta::seconds(60), 10).await?;
    assert_eq!(store.run("T-5").await?, None);
    Ok(())
}

async fn approval_goes_with_a_request_that_is_coalesced(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    let approved =
        RunRequest { approved_by: Some("zoe".to_owned()), ..request("T-2", RecalculationScope::All, 1) };
    assert!(store.request_run(&approved).await?);
    let follow_up =
        store.coalesce_run("T-2", &RecalculationScope::All, now()).await?.follow_up.context("none")?;
    assert_eq!(run(store, &follow_up).await?.approved_by.as_deref(), Some("zoe"));
    ask(store, "T-3").await?;
    store.coalesce_run("T-3", &RecalculationScope::All, now()).await?;
    assert_eq!(run(store, &follow_up).await?.approved_by.as_deref(), Some("zoe"));
    Ok(())
}
