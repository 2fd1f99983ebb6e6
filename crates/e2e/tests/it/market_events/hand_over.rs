//! From the stream to the queue, by listeners that are processes: in order, at least once, and never more
//! than the queue has room for.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use chrono::Utc;
use pricing_core::jobs::queue::Enqueued;
use pricing_core::jobs::{Job, JobKind, NewJob};
use pricing_e2e::eventually;
use serde_json::json;

use super::{EVENT_WINDOW, Messages, PATIENCE, WINDOW, checked, event, numbered};
use crate::fleet::{Fleet, Service};
use crate::support::{Stores, new_policy};

/// The most entries that a listener holds.
const MAX_IN_HAND: usize = 500;

/// Waits until these events, and no others, are in the queue, and nothing is pending.
async fn queued_become(messages: &Messages, expected: impl IntoIterator<Item = String>) -> Result<()> {
    let expected: BTreeSet<String> = expected.into_iter().collect();
    eventually("the events are in the queue", PATIENCE, async || {
        let queued = messages.queued().await?;
        ensure!(queued == expected, "missing {:?}", expected.difference(&queued));
        let pending = messages.pending().await?;
        ensure!(pending == 0, "{pending} are pending");
        Ok(())
    })
    .await
}

/// Publishes one event after another until they fill the queue's window. Returns how many it took.
async fn fill_window(messages: &Messages) -> Result<usize> {
    let mut published = 0;
    eventually("the window is full", PATIENCE, async || {
        messages.publish([format!("filling-{published}")]).await?;
        published += 1;
        let depth = messages.depth().await?;
        ensure!(depth == WINDOW, "{depth} jobs");
        Ok(())
    })
    .await?;
    Ok(published)
}

/// Finishes every job in the queue, as a worker would. Returns the events in them.
async fn make_room(messages: &Messages) -> Result<BTreeSet<String>> {
    let done = messages.queued().await?;
    for job in
        messages.command::<Vec<String>>(&["SMEMBERS", &messages.keys.queue_window(EVENT_WINDOW)]).await?
    {
        messages.queue.finish(&job, JobKind::ApplyEvents).await?;
    }
    Ok(done)
}

#[tokio::test]
async fn an_entry_that_is_no_event_becomes_a_dead_message_and_blocks_nothing() -> Result<()> {
    let messages = Messages::start().await?;
    let key = messages.keys.event_log();
    messages.publish(numbered("before", 2)).await?;
    let nonsense: String = messages.command(&["XADD", &key, "*", "event", "nonsense"]).await?;
    let fieldless: String = messages.command(&["XADD", &key, "*", "other", "field"]).await?;
    let mut wrong = event("wrong");
    wrong["data"]["price"] = json!(-1);
    let wrong: String = messages.command(&["XADD", &key, "*", "event", &wrong.to_string()]).await?;
    messages.publish(numbered("after", 2)).await?;
    let listener = messages.listeners().start(Service::Listener).await?;
    queued_become(&messages, [numbered("before", 2), numbered("after", 2)].concat()).await?;
    let only_nonsense: String = messages.command(&["XADD", &key, "*", "event", "[]"]).await?;
    let dead = eventually("all nonsense is kept as dead messages", PATIENCE, async || {
        let dead = messages.dead().await?;
        ensure!(dead.len() == 4 && messages.pending().await? == 0, "{dead:?}");
        Ok(dead)
    })
    .await?;
    for (message, (id, reason)) in dead.iter().zip([
        (nonsense, "not a CloudEvent"),
        (fieldless, "not a CloudEvent"),
        (wrong, "data.price"),
        (only_nonsense, "not a CloudEvent"),
    ]) {
        assert_eq!(message["stream_id"], id, "{dead:?}");
        assert!(message["reason"].contains(reason), "{dead:?}");
    }
    assert_eq!(dead[0]["event"], "nonsense");
    assert_eq!(listener.metric("pricing_events_buried_total", "").await?, 4);
    assert_eq!(listener.metric("pricing_events_dispatched_total", "").await?, 4);
    messages.publish(numbered("last", 1)).await?;
    queued_become(&messages, [numbered("before", 2), numbered("after", 2), numbered("last", 1)].concat())
        .await
}

#[tokio::test]
async fn an_entry_that_is_no_event_becomes_one_dead_message_though_its_listener_stops_while_it_waits_for_room()
-> Result<()> {
    let messages = Messages::start().await?;
    let fleet = messages.listeners();
    for number in 0..WINDOW {
        let events = vec![checked(&event(&format!("filling-{number}")))?];
        let job =
            NewJob { task_id: number.to_string(), job: Job::ApplyEvents { events, published_at: None } };
        assert!(matches!(messages.queue.enqueue(&job).await?, Enqueued::Added { .. }));
    }
    messages.publish(["held-0".to_owned()]).await?;
    let key = messages.keys.event_log();
    messages.command::<String>(&["XADD", &key, "*", "event", "nonsense"]).await?;
    messages.publish(["held-1".to_owned()]).await?;
    let mut first = fleet.start(Service::Listener).await?;
    eventually("the listener has read all and waits for room", PATIENCE, async || {
        let pending = messages.pending().await?;
        ensure!(pending == 3, "{pending} are pending");
        Ok(())
    })
    .await?;
    assert!(first.terminate().await?);
    assert_eq!(messages.pending().await?, 3);
    make_room(&messages).await?;
    let _second = fleet.start(Service::Listener).await?;
    queued_become(&messages, numbered("held", 2)).await?;
    let dead = messages.dead().await?;
    assert_eq!(dead.len(), 1, "{dead:?}");
    Ok(())
}

#[tokio::test]
async fn unacknowledged_entries_are_reclaimed_by_a_listener() -> Result<()> {
    let messages = Messages::start().await?;
    let dead = messages.consumer("dead")?;
    dead.ensure_group().await?;
    messages.publish(numbered("left", 30)).await?;
    assert_eq!(dead.reader().await?.next(&[], 20).await?.len(), 20);
    let _listener = messages.listeners().start(Service::Listener).await?;
    queued_become(&messages, numbered("left", 30)).await
}

#[tokio::test]
async fn entries_of_a_killed_listener_are_reclaimed_by_the_other() -> Result<()> {
    let messages = Messages::start().await?;
    let fleet = messages.listeners();
    let mut victim = fleet.start(Service::Listener).await?;
    let mut expected = numbered("filling", fill_window(&messages).await?);
    messages.publish(numbered("held", 100)).await?;
    expected.extend(numbered("held", 100));
    // It waits for room, holding entries.
    eventually("entries are pending", PATIENCE, async || {
        ensure!(messages.pending().await? > 0, "none");
        Ok(())
    })
    .await?;
    victim.kill()?;
    assert!(messages.pending().await? > 0, "the entries it held are still pending");
    let _other = fleet.start(Service::Listener).await?;
    let done = make_room(&messages).await?;
    queued_become(&messages, expected.into_iter().filter(|id| !done.contains(id))).await
}

#[tokio::test]
async fn after_redis_lost_everything_new_events_flow() -> Result<()> {
    let messages = Messages::start().await?;
    let _listener = messages.listeners().start(Service::Listener).await?;
    for round in ["one", "two", "three"] {
        messages.publish(numbered(round, 3)).await?;
        queued_become(&messages, numbered(round, 3)).await?;
        messages.command::<()>(&["FLUSHALL"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_backlog_waits_in_the_stream_and_is_applied_when_a_worker_comes() -> Result<()> {
    const EVENTS: usize = 3_000;
    let stores = Stores::start().await?;
    stores.store().await?.publish_policy(&new_policy("name: plain\n"), None, Utc::now()).await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let messages = Messages::on(stores.redis).await?;
    let listener = fleet.start(Service::Listener).await?;
    let filling = fill_window(&messages).await?;
    for batch in numbered("backlog", EVENTS).chunks(500) {
        messages.publish(batch.to_vec()).await?;
        let depth = messages.depth().await?;
        assert!(depth <= WINDOW, "{depth} jobs");
    }
    // The lag is reported, although nothing moves.
    eventually("the lag is reported", PATIENCE, async || {
        let lag = usize::try_from(listener.metric("pricing_event_log_lag", "").await?)?;
        ensure!(lag >= EVENTS, "{lag} of {EVENTS}");
        Ok(())
    })
    .await?;
    let (depth, pending) = (messages.depth().await?, messages.pending().await?);
    assert_eq!(depth, WINDOW);
    assert!(pending <= MAX_IN_HAND, "{pending} are held by the listener");
    assert_eq!(messages.length().await?, filling + EVENTS);

    let worker = fleet.start(Service::Worker).await?;
    eventually("everything is applied", PATIENCE, async || {
        let applied = worker.metric("pricing_events_applied_total", "\"applied\"").await?;
        ensure!(usize::try_from(applied)? == filling + EVENTS, "{applied} of {}", filling + EVENTS);
        Ok(())
    })
    .await?;
    eventually("nothing waits any more", PATIENCE, async || {
        let (depth, pending) = (messages.depth().await?, messages.pending().await?);
        ensure!((depth, pending) == (0, 0), "{depth} jobs, {pending} entries");
        Ok(())
    })
    .await
}
