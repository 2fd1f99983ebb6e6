//! Requests that arrive while a run is under way share one run after it, and state so.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use pricing_core::store::{CoalescedRun, Store};
use pricing_domain::facts::recalculation::{RecalculationScope, RunState};
use tokio::task::JoinSet;

use super::super::{now, on_both_stores};
use super::{ask, begin, request, run};

on_both_stores!(
    a_request_during_a_run_is_left_to_a_follow_up,
    of_many_who_coalesce_all_share_one_follow_up,
    a_follow_up_that_has_begun_takes_no_more,
    a_follow_up_is_for_its_scope_only,
    a_follow_up_waits_itself,
    a_request_that_is_not_waiting_stays_as_it_is,
    a_request_that_was_never_recorded_is_recorded,
    a_request_whose_follow_ups_name_is_taken_keeps_waiting,
);

async fn coalesce(store: &Store, task_id: &str) -> Result<CoalescedRun> {
    Ok(store.coalesce_run(task_id, &RecalculationScope::All, now()).await?)
}

async fn a_request_during_a_run_is_left_to_a_follow_up(store: &Store) -> Result<()> {
    begin(store, "T-1", 7).await?;
    ask(store, "T-2").await?;
    let coalesced = coalesce(store, "T-2").await?;
    assert_eq!((coalesced.state, coalesced.follow_up.as_deref()), (RunState::Skipped, Some("T-2-follow-up")));
    let reason = coalesced.reason.clone().context("a skipped request says why")?;
    assert!(reason.starts_with("run 7 was under way; "), "{reason}");

    let skipped = run(store, "T-2").await?;
    assert_eq!((skipped.state, skipped.finished_at), (RunState::Skipped, Some(now())));
    assert_eq!((skipped.reason, skipped.follow_up), (coalesced.reason.clone(), coalesced.follow_up.clone()));
    let follow_up = run(store, "T-2-follow-up").await?;
    assert_eq!((follow_up.state, follow_up.scope), (RunState::Requested, RecalculationScope::All));
    assert_eq!(follow_up.requested_at, now());
    // A redelivery gets the same answer and asks for nothing more.
    assert_eq!(coalesce(store, "T-2").await?, coalesced);
    assert_eq!(store.count_requested_runs().await?, 1);
    Ok(())
}

async fn of_many_who_coalesce_all_share_one_follow_up(store: &Store) -> Result<()> {
    begin(store, "T", 1).await?;
    for number in 0..10 {
        ask(store, &format!("T-{number}")).await?;
    }
    let mut coalescing = JoinSet::new();
    for number in 0..10 {
        let store = store.clone();
        coalescing.spawn(async move { coalesce(&store, &format!("T-{number}")).await });
    }
    let outcomes = coalescing.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    assert!(outcomes.iter().all(|outcome| outcome.state == RunState::Skipped), "{outcomes:?}");
    let follow_ups: BTreeSet<_> = outcomes.into_iter().map(|outcome| outcome.follow_up).collect();
    assert_eq!(follow_ups.len(), 1, "{follow_ups:?}");
    assert_eq!(store.count_requested_runs().await?, 1);
    Ok(())
}

async fn a_follow_up_that_has_begun_takes_no_more(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    ask(store, "T-2").await?;
    coalesce(store, "T-2").await?;
    assert!(store.finish_run("T-1", 1, RunState::Done, None, now()).await?);
    assert!(store.begin_run("T-2-follow-up", 2, 1, 10, now()).await?);
    ask(store, "T-3").await?;
    let coalesced = coalesce(store, "T-3").await?;
    assert_eq!(coalesced.follow_up.as_deref(), Some("T-3-follow-up"));
    Ok(())
}

async fn a_follow_up_is_for_its_scope_only(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    let kitchen = RecalculationScope::Category("kitchen".to_owned());
    let garden = RecalculationScope::Category("garden".to_owned());
    let asked = [("T-2", &kitchen), ("T-3", &garden), ("T-4", &kitchen), ("T-5", &RecalculationScope::All)];
    let mut follow_ups = Vec::new();
    for (task_id, scope) in asked {
        store.request_run(&request(task_id, scope.clone(), 0)).await?;
        follow_ups.extend(store.coalesce_run(task_id, scope, now()).await?.follow_up);
    }
    assert_eq!(follow_ups, ["T-2-follow-up", "T-3-follow-up", "T-2-follow-up", "T-5-follow-up"]);
    assert_eq!(run(store, "T-3-follow-up").await?.scope, garden);
    Ok(())
}

async fn a_follow_up_waits_itself(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    ask(store, "T-2").await?;
    coalesce(store, "T-2").await?;
    let coalesced = coalesce(store, "T-2-follow-up").await?;
    assert_eq!((coalesced.state, coalesced.follow_up), (RunState::Requested, None));
    assert_eq!(store.count_requested_runs().await?, 1);
    Ok(())
}

async fn a_request_that_is_not_waiting_stays_as_it_is(store: &Store) -> Result<()> {
    begin(store, "T-1", 1).await?;
    assert_eq!(coalesce(store, "T-1").await?.state, RunState::Running);
    ask(store, "T-2").await?;
    store.withdraw_run("T-2", "Redis is away", now()).await?;
    let coalesced = coalesce(store, "T-2").await?;
    assert_eq!((coalesced.state, coalesced.reason.as_deref()), (RunState::Failed, Some("Redis is away")));
    assert_eq!(store.count_requested_runs().await?, 0);
    Ok(())
}

async fn a_request_that_was_never_recorded_is_recorded(store: &Store) -> Result<()> {
    let coalesced = coalesce(store, "T-1").await?;
    assert_eq!(coalesced.follow_up.as_deref(), Some("T-1-follow-up"));
    let reason = coalesced.reason.context("a skipped request says why")?;
    assert!(reason.starts_with("another run was under way; "), "{reason}");
    assert_eq!(run(store, "T-1").await?.state, RunState::Skipped);
    Ok(())
}

async fn a_request_whose_follow_ups_name_is_taken_keeps_waiting(store: &Store) -> Result<()> {
    ask(store, "T-1-follow-up").await?;
    store.withdraw_run("T-1-follow-up", "test", now()).await?;
    ask(store, "T-1").await?;
    assert_eq!(coalesce(store, "T-1").await?.state, RunState::Requested);
    assert_eq!(store.next_requested_run().await?.map(|run| run.task_id).as_deref(), Some("T-1"));
    Ok(())
}
